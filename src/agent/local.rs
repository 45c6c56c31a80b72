//! The Unix socket: launchers and commands of this user (DO).

use super::{
    Agent, command, compile,
    wire::{ASK_BYTES_MAX, Ask, BEAT_MS, TELL_BYTES_MAX, Tell},
};
use mesh_proto::frame;
use std::{
    io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_util::sync::CancellationToken;

/// A launcher or command must have asked within this time.
const ASK_TIME: Duration = Duration::from_secs(10);
/// Launchers and commands at once.
const CLIENTS_MAX: usize = 16_384;

/// Binds the socket. The lock is held already, so a socket that is there belongs to nobody.
pub(super) fn bind(path: &std::path::Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves launchers and commands until the agent leaves.
pub(super) async fn serve(agent: Arc<Agent>, listener: UnixListener) {
    let room = Arc::new(tokio::sync::Semaphore::new(CLIENTS_MAX));
    let uid = rustix::process::geteuid().as_raw();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) if stream.peer_cred().is_ok_and(|c| c.uid() == uid || c.uid() == 0) => {
                let agent = agent.clone();
                tokio::spawn(async move {
                    if let Err(e) = client(&agent, stream).await {
                        tracing::debug!("a launcher or command went away: {e}");
                    }
                    drop(permit);
                });
            }
            Ok(_) => tracing::warn!("another user's process was turned away from the socket"),
            Err(e) => {
                // Out of descriptors, most likely: others will be freed.
                tracing::warn!("the socket could not accept: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn client(agent: &Arc<Agent>, stream: UnixStream) -> io::Result<()> {
    let (mut reader, writer) = stream.into_split();
    let ask = tokio::time::timeout(ASK_TIME, read_ask(&mut reader)).await??;
    let mut client = Client { reader, writer };
    match ask {
        Ask::Compile(request) => launcher(agent, *request, client).await,
        ask => command::answer(agent, ask, &mut client).await,
    }
}

/// The other end of a socket.
pub(super) struct Client {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
}

impl Client {
    pub(super) async fn tell(&mut self, tell: &Tell) -> io::Result<()> {
        let bytes = frame::encode(tell, TELL_BYTES_MAX).map_err(|_| io::ErrorKind::InvalidData)?;
        self.writer.write_all(&bytes).await
    }

    /// Ends when the other end has closed the connection. All that it may say after its question is one byte.
    pub(super) async fn gone(&mut self) -> Option<u8> {
        gone(&mut self.reader).await
    }
}

async fn gone(reader: &mut OwnedReadHalf) -> Option<u8> {
    let (mut buffer, mut last) = ([0; 64], None);
    while let Ok(read) = reader.read(&mut buffer).await
        && read > 0
    {
        last = Some(buffer[read - 1]);
    }
    last
}

async fn read_ask(reader: &mut OwnedReadHalf) -> io::Result<Ask> {
    let malformed = |_| io::Error::from(io::ErrorKind::InvalidData);
    let mut header = [0; frame::HEADER_BYTES];
    reader.read_exact(&mut header).await?;
    let length = frame::length(header, ASK_BYTES_MAX).map_err(malformed)?;
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await?;
    frame::decode(&payload).map_err(malformed)
}

/// Compiles for a launcher: beats while it works, cancels when the launcher goes away. The first sign of life is the
/// verdict or the first beat, well before a launcher gives up: a word before that would only wake it.
async fn launcher(agent: &Arc<Agent>, request: super::wire::Request, mut client: Client) -> io::Result<()> {
    let cancel = CancellationToken::new();
    let stop = cancel.clone().drop_guard();
    let work = compile::unit(agent, request, cancel.clone());
    tokio::pin!(work);
    let mut beat = tokio::time::interval(Duration::from_millis(BEAT_MS));
    beat.tick().await;
    let verdict = loop {
        tokio::select! {
            verdict = &mut work => break verdict,
            _ = beat.tick() => client.tell(&Tell::Beat).await?,
            _ = gone(&mut client.reader) => return Ok(()),
        }
    };
    stop.disarm();
    match verdict {
        compile::Verdict::Local { reason, fallback } => {
            // The connection is the launcher's lease of a local slot: it ends with the compiler.
            let _lease = agent.local_lease();
            client.tell(&Tell::Local { reason, fallback }).await?;
            // After a compile that failed remotely the launcher says with what status it ended here.
            let status = client.gone().await;
            if reason == crate::reason::Reason::CompileError && status == Some(0) {
                tracing::warn!("a compile failed remotely and succeeded here");
                agent.records().discrepancy();
                agent.changed();
            }
        }
        compile::Verdict::Done { text, placed } => {
            let bytes = |p: &std::path::PathBuf| p.as_os_str().as_bytes().to_vec();
            let renames = placed.renames.iter().map(|(from, to)| (bytes(from), bytes(to))).collect();
            client.tell(&Tell::Done { text, renames }).await?;
            client.gone().await;
            // It has renamed what it wanted; what it did not is removed with `placed`.
            drop(placed);
        }
    }
    Ok(())
}
