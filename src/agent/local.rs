//! The Unix socket: launchers and commands of this user (DO).

use super::{
    Agent, command, compile,
    wire::{ASK_BYTES_MAX, Ask, BEAT_MS, TELL_BYTES_MAX, Tell},
};
use crate::host;
use mesh_proto::frame;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

/// A launcher or command must have asked within this time.
const ASK_TIME: Duration = Duration::from_secs(10);
/// Room for a question before it is known how long it is, bytes.
const ASK_BYTES_FIRST: usize = 8 << 10;
/// Launchers and commands at once.
const CLIENTS_MAX: usize = 16_384;

/// Shows launchers that wait that this agent lives.
#[derive(Debug)]
pub(super) struct Pulse {
    file: File,
    waiting: AtomicU32,
    /// The first of them has come.
    begun: Notify,
}

/// A launcher that waits.
pub(super) struct Waiting<'a>(&'a Pulse);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pulse {
    /// The pulse that is felt at this path.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(nofollow);
        let file = options.open(path)?;
        Ok(Self { file, waiting: AtomicU32::new(0), begun: Notify::new() })
    }

    /// Launchers that have not been told a verdict.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Somebody waits, for as long as what this gives lives.
    pub(super) fn wait(&self) -> Waiting<'_> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.begun.notify_one();
        }
        Waiting(self)
    }
}

/// Beats for as long as anybody waits. A launcher looks after two seconds, so the first beat may be a second after it came.
pub(super) async fn beat(agent: Arc<Agent>) {
    let pulse = &agent.pulse;
    loop {
        tokio::time::sleep(Duration::from_millis(BEAT_MS)).await;
        if pulse.waiting() == 0 {
            pulse.begun.notified().await;
        } else if let Err(error) = pulse.file.write_all_at(&host::monotonic_ms().to_le_bytes(), 0) {
            tracing::warn!(%error, "launchers cannot be shown that this agent lives");
        }
    }
}

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
    let mut client = Client(stream);
    let ask = tokio::time::timeout(ASK_TIME, client.ask()).await??;
    match ask {
        Ask::Compile(request) => launcher(agent, *request, client).await,
        ask => command::answer(agent, ask, &mut client).await,
    }
}

/// The other end of a socket. In one piece: halves would shut it down before they close it, at a system call a unit.
pub(super) struct Client(UnixStream);

impl Client {
    pub(super) async fn tell(&mut self, tell: &Tell) -> io::Result<()> {
        let bytes = frame::encode(tell, TELL_BYTES_MAX).map_err(|_| io::ErrorKind::InvalidData)?;
        self.0.write_all(&bytes).await
    }

    /// Ends when the other end has closed the connection. All that it may say after its question is one byte.
    pub(super) async fn gone(&mut self) -> Option<u8> {
        let (mut buffer, mut last) = ([0; 64], None);
        while let Ok(read) = self.0.read(&mut buffer).await
            && read > 0
        {
            last = Some(buffer[read - 1]);
        }
        last
    }

    /// What it wants. Nearly always all of it comes with the first read.
    async fn ask(&mut self) -> io::Result<Ask> {
        let malformed = |_| io::Error::from(io::ErrorKind::InvalidData);
        let mut bytes = Vec::with_capacity(ASK_BYTES_FIRST);
        loop {
            if let Some(header) = bytes.first_chunk::<{ frame::HEADER_BYTES }>() {
                let length = frame::HEADER_BYTES + frame::length(*header, ASK_BYTES_MAX).map_err(malformed)?;
                match bytes.get(frame::HEADER_BYTES..length) {
                    // It says nothing more before it has its answer.
                    Some(payload) if bytes.len() == length => return frame::decode(payload).map_err(malformed),
                    Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                    None => bytes.reserve(length - bytes.len()),
                }
            }
            if self.0.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Compiles for a launcher, cancels when the launcher goes away. It is told nothing before the verdict: that would only
/// wake it.
async fn launcher(agent: &Arc<Agent>, request: super::wire::Request, mut client: Client) -> io::Result<()> {
    let cancel = CancellationToken::new();
    let stop = cancel.clone().drop_guard();
    let session = request.session;
    let work = compile::unit(agent, request, cancel.clone());
    tokio::pin!(work);
    let waiting = agent.pulse.wait();
    let verdict = tokio::select! {
        verdict = &mut work => verdict,
        _ = client.gone() => return Ok(()),
    };
    stop.disarm();
    match verdict {
        compile::Verdict::Local { reason, fallback, ticket } => {
            // The connection is the launcher's hold on its slot: it ends with the compiler.
            client.tell(&Tell::Local { reason, fallback }).await?;
            drop(waiting);
            // After a compile that failed remotely the launcher says with what status it ended here.
            let began = Instant::now();
            let status = client.gone().await;
            agent.sessions.ran_here(session, reason, began.elapsed());
            if reason == crate::reason::Reason::CompileError && status == Some(0) {
                tracing::warn!("a compile failed remotely and succeeded here");
                agent.records().discrepancy();
                agent.changed();
            }
            ticket.compiled_here(reason != crate::reason::Reason::CompileError);
        }
        compile::Verdict::Done { text, placed, keep } => {
            let bytes = |p: &std::path::PathBuf| p.as_os_str().as_bytes().to_vec();
            let renames = placed.renames.iter().map(|(from, to)| (bytes(from), bytes(to))).collect();
            client.tell(&Tell::Done { text, renames }).await?;
            drop(waiting);
            if let Some(keep) = keep {
                super::cache::put(agent, keep);
            }
            client.gone().await;
            // It has renamed what it wanted; what it did not is removed with `placed`.
            drop(placed);
        }
    }
    Ok(())
}
