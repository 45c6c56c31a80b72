//! Blobs from one provider to another, with the client's grant (DO).
//!
//! Any trouble on this way means that the client is asked instead: nothing here is an error of the job's.

use super::{
    Agent,
    fetch::Storing,
    link::Link,
    pack::{self, PackError},
    serve::Server,
};
use crate::net::{channel::Sender, stream::StreamError};
use mesh_proto::{
    digest::Digest,
    exchange::{
        provider::Lacking,
        share::{Asker, Fetch, Giver, Source},
    },
    frame, limits,
    message::StreamHead,
    naming::NumberSet,
    peer::PeerId,
};
use std::{io::Read, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

/// How long a giver waits for a grant, a name or a blob that is on its way to it, since it last gave something.
const GIVE_WAIT: Duration = Duration::from_millis(250);
/// How long one fetch is given to at all.
const GIVE_MAX: Duration = Duration::from_secs(60);
/// How long an asker waits for the next announcement: a giver's wait, and the way.
const ASK_QUIET: Duration = Duration::from_millis(500);
/// How long it waits for the next of the blobs that were announced, and a millisecond more for each of so many bytes.
const BLOB_QUIET: Duration = Duration::from_secs(1);
const BLOB_BYTES_A_MS: u64 = 5000;
/// How long it asks one source at all before it asks the client for the rest.
const ASK_MAX: Duration = Duration::from_secs(20);

/// Gives a peer what a client granted to it, as it becomes available.
pub(super) async fn give(agent: &Arc<Agent>, asker: &Link, fetch: Fetch, mut out: Sender) -> Result<(), StreamError> {
    let Some(server) = &agent.server else { return Err(StreamError::Finished) };
    let mut giver = Giver::new(asker.peer, fetch);
    let giving = async {
        let mut until = Instant::now() + GIVE_WAIT;
        while !giver.is_done() {
            // The grant is the connection's: with the client's link it is gone.
            let Some(client) = agent.links.get(giver.client()) else { break };
            let (come, mut told) = (server.incoming.changed(), client.told());
            let given = {
                let mut look = server.blobs.look();
                client.grantable(|grants, names| giver.next(grants, names, |digest| look.has(digest)))
            };
            if given.is_empty() {
                let news = async {
                    tokio::select! {
                        () = come => {}
                        () = told.news() => {}
                    }
                };
                if timeout_at(until, news).await.is_err() {
                    break;
                }
                continue;
            }
            send(agent, server, &mut out, given).await?;
            until = Instant::now() + GIVE_WAIT;
        }
        Ok(())
    };
    timeout(GIVE_MAX, giving).await.unwrap_or(Err(StreamError::Late))?;
    out.finish();
    Ok(())
}

/// Announces blobs and sends them.
async fn send(
    agent: &Arc<Agent>,
    server: &Arc<Server>,
    out: &mut Sender,
    given: Vec<(u32, Digest)>,
) -> Result<(), StreamError> {
    let indexes = NumberSet::ascending(given.iter().map(|(index, _)| *index));
    let first = frame::encode(&indexes, limits::FRAME_BYTES_MAX)?;
    let (packing, blobs) = (agent.clone(), server.blobs.clone());
    let read = move |digest: &Digest| {
        let mut bytes = Vec::new();
        blobs.read(digest).ok()?.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    let sent = pack::send(out, first, move |packer| {
        given.into_iter().try_for_each(|(_, digest)| packer.kept(&packing.packs, digest, || read(&digest)))
    });
    sent.await.map(drop).map_err(|error| match error {
        PackError::Stream(error) => error,
        // It was here a moment ago: the stream ends, and the asker asks the client.
        PackError::Content => StreamError::Finished,
    })
}

/// Asks a source for files of a client's. What came is stored; what did not come is for the caller to see.
pub(super) async fn ask(
    agent: &Arc<Agent>,
    server: &Arc<Server>,
    source: &Source,
    client: PeerId,
    files: Vec<Lacking>,
) {
    let Some(link) = agent.links.get(source.peer) else { return };
    let mut storing = Storing::new(server);
    let asked = timeout(ASK_MAX, converse(&link, source, client, files, &mut storing)).await;
    if let Ok(Err(error)) = &asked {
        tracing::debug!("{} did not give what it was asked for: {error}", link.name());
    }
    // What has come counts, however it ended; what is wrong is not stored.
    if let Err(error) = storing.finish().await {
        tracing::debug!("what {} gave was not stored: {error}", link.name());
    }
}

async fn converse(
    link: &Link,
    source: &Source,
    client: PeerId,
    files: Vec<Lacking>,
    storing: &mut Storing,
) -> Result<(), StreamError> {
    let mut asker = Asker::new(files.into_iter().map(|file| (file.digest, file.size)).collect());
    let (mut sender, mut receiver) = link.conn.open_bi().await?;
    let head = StreamHead::Fetch(Box::new(asker.fetch(client, source.key)));
    sender.send(&head, limits::FRAME_BYTES_MAX).await?;
    while !asker.is_done() {
        let indexes: NumberSet = receiver.receive(limits::FRAME_BYTES_MAX, ASK_QUIET).await?;
        for (digest, size) in asker.announced(&indexes).map_err(|_| StreamError::Blob)? {
            let time = BLOB_QUIET + Duration::from_millis(size / BLOB_BYTES_A_MS);
            let packed = timeout(time, receiver.receive_packed(size)).await;
            let packed = packed.unwrap_or(Err(StreamError::Late))?;
            storing.push(digest, packed).await.map_err(|_| StreamError::Blob)?;
        }
    }
    sender.finish();
    Ok(())
}
