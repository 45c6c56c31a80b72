//! What two members say first: hellos, and the records that the other lacks (DO).

use super::{
    endpoint::{Link, LinkError},
    stream::{self, StreamError},
};
use mesh_proto::{
    hello::{Hello, HelloError, Sync, close},
    limits,
    membership::{Record, RecordSet},
};
use quinn::{RecvStream, SendStream};
use std::time::Duration;

/// Each frame of the exchange must come within this.
const FRAME_DEADLINE: Duration = Duration::from_secs(3);

/// Why two machines did not come to terms. The link is closed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The connection ended; the other side may not have heard of this machine's admission.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A stream failed although the connection stands.
    #[error("the exchange of hellos failed")]
    Stream(#[from] StreamError),
    /// The other side's hello is not acceptable.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// A frame that does not belong where it came.
    #[error("the other machine does not follow the protocol")]
    Malformed,
}

/// What came of it.
#[derive(Debug)]
pub struct Greeting {
    /// The other side's hello, checked.
    pub hello: Hello,
    /// Records that the other side has and we lacked, unchecked: they are for [`RecordSet::merge`].
    pub records: Vec<Record>,
    /// The stream, which stays open for whatever the two say later.
    pub send: SendStream,
    /// Its other half.
    pub recv: RecvStream,
}

/// Exchanges hellos on the first bidirectional stream, which the dialer opens, and then records if the sets differ.
/// `ours` must carry the digest of `set`. On failure the link is closed.
///
/// # Errors
/// If the other side refuses us, is of another mesh or version, is too slow, or breaks the protocol.
pub async fn greet(link: &Link, ours: &Hello, set: &RecordSet) -> Result<Greeting, SyncError> {
    let greeted = exchange(link, ours, set).await;
    greeted.map_err(|error| {
        // An end that the other side gave explains more than the broken stream that it left.
        if let (SyncError::Stream(StreamError::Read(_) | StreamError::Write(_)), Some(end)) = (&error, link.end()) {
            return SyncError::Link(end);
        }
        let (code, words) = match &error {
            SyncError::Stream(StreamError::Late) => (close::BUSY, "too slow"),
            _ => (close::MALFORMED, "no agreement"),
        };
        link.close(code, words);
        error
    })
}

async fn exchange(link: &Link, ours: &Hello, set: &RecordSet) -> Result<Greeting, SyncError> {
    let (mut send, mut recv) = open(link).await?;
    stream::send(&mut send, ours, limits::HELLO_BYTES_MAX).await?;
    let hello: Hello = stream::recv(&mut recv, limits::HELLO_BYTES_MAX, FRAME_DEADLINE).await?;
    hello.check(ours.mesh)?;
    let mut records = Vec::new();
    if hello.set_digest != ours.set_digest {
        // Each side sends before it reads; what it sends fits the stream's window, so neither waits for the other.
        stream::send(&mut send, &Sync::Hashes(set.hashes()), limits::WELCOME_BYTES_MAX).await?;
        let theirs = match stream::recv(&mut recv, limits::WELCOME_BYTES_MAX, FRAME_DEADLINE).await? {
            Sync::Hashes(hashes) if hashes.len() <= limits::SET_RECORDS_MAX => hashes,
            _ => return Err(SyncError::Malformed),
        };
        stream::send(&mut send, &Sync::Records(set.missing(&theirs)), limits::WELCOME_BYTES_MAX).await?;
        records = match stream::recv(&mut recv, limits::WELCOME_BYTES_MAX, FRAME_DEADLINE).await? {
            Sync::Records(records) if records.len() <= limits::SET_RECORDS_MAX => records,
            _ => return Err(SyncError::Malformed),
        };
    }
    Ok(Greeting { hello, records, send, recv })
}

async fn open(link: &Link) -> Result<(SendStream, RecvStream), SyncError> {
    let failed = |error| LinkError::of(link.address(), &error);
    if link.dialled {
        return Ok(link.conn.open_bi().await.map_err(failed)?);
    }
    match tokio::time::timeout(FRAME_DEADLINE, link.conn.accept_bi()).await {
        Ok(opened) => Ok(opened.map_err(failed)?),
        Err(_) => Err(StreamError::Late.into()),
    }
}
