//! Brings the content that a job lacks, each blob once over all jobs (DO).
//!
//! First from the providers that the client names as sources, and, at the same time, from the client what nobody else can
//! have; what did not come so, from the client. What another job is being sent is waited for.

use super::{Agent, link::Link, serve::Server, share};
use crate::{
    net::{
        channel::{Receiver, Sender},
        stream::{Packed, StreamError},
    },
    store::blobs::{BlobError, Blobs},
};
use mesh_proto::{
    digest::Digest,
    exchange::{
        provider::{Lacking, Provider},
        share::Source,
    },
    job::Refusal,
    limits,
    message::Answer,
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// Blobs that fill one task of storing must come within this time, and as much longer as one of them is larger than that:
/// a millisecond for each of so many bytes.
const BATCH_TIME: Duration = Duration::from_secs(30);
const BYTES_A_MS: u64 = 1000;
/// Packed bytes that are stored by one task.
const BATCH_BYTES: usize = 1 << 20;
/// Blobs that are stored by one task.
const BATCH_BLOBS: usize = 256;
/// A job waits this long for another's fetch of the same blob, while nothing at all is stored, before it asks itself.
const OTHERS_QUIET_MAX: Duration = Duration::from_secs(5);
/// And this long in all.
const OTHERS_WAIT_MAX: Duration = Duration::from_secs(30);

/// Blobs that some job is being sent now.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    digests: Mutex<HashSet<Digest>>,
    changed: Arc<Notify>,
}

impl Incoming {
    /// Ends when, after this call, something has come or will not come.
    pub(super) fn changed(&self) -> OwnedNotified {
        self.changed.clone().notified_owned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
        self.digests.lock().expect("no panic while held")
    }

    /// Splits what is lacking: what this job brings from now on, and what others bring already.
    fn claim(server: &Arc<Server>, lacking: Vec<Lacking>) -> (Claim, Vec<Lacking>, Vec<Lacking>) {
        let mut digests = server.incoming.lock();
        let (mine, others): (Vec<_>, Vec<_>) = lacking.into_iter().partition(|file| digests.insert(file.digest));
        drop(digests);
        (Claim { server: server.clone(), digests: mine.iter().map(|file| file.digest).collect() }, mine, others)
    }
}

/// Blobs on their way to one job.
#[derive(Debug)]
struct Claim {
    server: Arc<Server>,
    digests: Vec<Digest>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.digests.is_empty() {
            let mut incoming = self.server.incoming.lock();
            self.digests.iter().for_each(|digest| {
                incoming.remove(digest);
            });
            drop(incoming);
            self.server.incoming.changed.notify_waiters();
        }
    }
}

/// Stores blobs as they come, many in one blocking task, one task at a time.
#[derive(Debug)]
pub(super) struct Storing {
    server: Arc<Server>,
    batch: Vec<(Digest, Packed)>,
    bytes: usize,
    task: Option<JoinHandle<Result<Vec<Digest>, BlobError>>>,
}

impl Storing {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        Self { server: server.clone(), batch: Vec::new(), bytes: 0, task: None }
    }

    /// Takes a blob.
    pub(super) async fn push(&mut self, digest: Digest, packed: Packed) -> Result<(), BlobError> {
        self.bytes += packed.wire_bytes();
        self.batch.push((digest, packed));
        if self.bytes >= BATCH_BYTES || self.batch.len() >= BATCH_BLOBS { self.store().await } else { Ok(()) }
    }

    /// Begins to store what was taken, after what is being stored.
    async fn store(&mut self) -> Result<(), BlobError> {
        self.stored().await?;
        if !self.batch.is_empty() {
            let (blobs, batch) = (self.server.blobs.clone(), std::mem::take(&mut self.batch));
            self.bytes = 0;
            self.task = Some(tokio::task::spawn_blocking(move || {
                batch.into_iter().map(|(digest, packed)| put(&blobs, digest, packed)).collect()
            }));
        }
        Ok(())
    }

    async fn stored(&mut self) -> Result<(), BlobError> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let stored = task.await.unwrap_or(Err(BlobError::Missing));
        self.task = None;
        let mut incoming = self.server.incoming.lock();
        stored?.iter().for_each(|digest| {
            incoming.remove(digest);
        });
        drop(incoming);
        self.server.incoming.changed.notify_waiters();
        Ok(())
    }

    /// Stores what was taken and waits for it.
    pub(super) async fn finish(&mut self) -> Result<(), BlobError> {
        self.store().await?;
        self.stored().await
    }
}

/// Unpacks, checks and stores one blob; blocking.
fn put(blobs: &Blobs, digest: Digest, packed: Packed) -> Result<Digest, BlobError> {
    let size = packed.size();
    if packed.wire_bytes() > BATCH_BYTES || size > BATCH_BYTES as u64 {
        blobs.put_stream(&digest, &mut packed.reader(), size).map_err(|error| match error {
            // A block that is none.
            BlobError::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => BlobError::Mismatch,
            error => error,
        })?;
    } else {
        let bytes = packed.unpack(&digest).map_err(|_| BlobError::Mismatch)?;
        blobs.put(&digest, &bytes)?;
    }
    Ok(digest)
}

/// Why content did not come.
enum Trouble {
    Stream(StreamError),
    Refused(Refusal),
}

impl From<StreamError> for Trouble {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

impl From<BlobError> for Trouble {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Mismatch | BlobError::TooLarge => Self::Stream(StreamError::Blob),
            BlobError::DiskFull => Self::Refused(Refusal::Disk),
            BlobError::Missing | BlobError::Io(_) => Self::Refused(Refusal::Missing),
        }
    }
}

/// Gets the content that is not here.
pub(super) async fn fetch(
    agent: &Arc<Agent>,
    server: &Arc<Server>,
    client: &Link,
    sources: &[Source],
    provider: &mut Provider,
    out: &mut Sender,
    inp: &mut Receiver,
) -> Result<Result<(), Refusal>, StreamError> {
    match bring(agent, server, client, sources, provider, out, inp).await {
        Ok(()) => Ok(Ok(())),
        Err(Trouble::Refused(refusal)) => Ok(Err(refusal)),
        Err(Trouble::Stream(error)) => Err(error),
    }
}

async fn bring(
    agent: &Arc<Agent>,
    server: &Arc<Server>,
    client: &Link,
    sources: &[Source],
    provider: &mut Provider,
    out: &mut Sender,
    inp: &mut Receiver,
) -> Result<(), Trouble> {
    let lacking = lacking(server, provider).await;
    if lacking.is_empty() {
        return Ok(());
    }
    let (claim, mine, others) = Incoming::claim(server, lacking);
    // What came between the look and the claim.
    let mine = still_lacking(server, &mine);
    let (shared, mine) = share_out(agent, sources, mine);
    let mut asking: JoinSet<()> = JoinSet::new();
    for (source, files) in shared {
        let (agent, server, client) = (agent.clone(), server.clone(), client.peer);
        asking.spawn(async move { share::ask(&agent, &server, &source, client, files).await });
    }
    ask_client(server, provider, &mine, out, inp).await?;
    while asking.join_next().await.is_some() {}
    drop(claim);
    wait_for_others(server, &others).await;
    let rest = lacking_now(server, provider);
    if rest.is_empty() {
        return Ok(());
    }
    let (claim, mut mine, others) = Incoming::claim(server, rest);
    // Nobody was quick enough: it comes twice then.
    mine.extend(others);
    mine.sort_unstable_by_key(|file| file.number);
    ask_client(server, provider, &mine, out, inp).await?;
    drop(claim);
    Ok(())
}

/// What is not here; what an earlier run left is checked first.
async fn lacking(server: &Arc<Server>, provider: &Provider) -> Vec<Lacking> {
    let (lacking, unverified) = {
        let mut look = server.blobs.look();
        let lacking = provider.lacking(|digest| look.has(digest));
        (lacking, look.unverified())
    };
    if unverified.is_empty() {
        return lacking;
    }
    let blobs = server.blobs.clone();
    // Those that are not whole are forgotten by the question.
    let checked = tokio::task::spawn_blocking(move || unverified.iter().filter(|digest| blobs.has(digest)).count());
    let _ = checked.await;
    lacking_now(server, provider)
}

fn lacking_now(server: &Server, provider: &Provider) -> Vec<Lacking> {
    let mut look = server.blobs.look();
    provider.lacking(|digest| look.has(digest))
}

fn still_lacking(server: &Server, files: &[Lacking]) -> Vec<Lacking> {
    let mut look = server.blobs.look();
    files.iter().filter(|file| !look.has(&file.digest)).copied().collect()
}

/// Splits files: those that a source has to which this machine has a link, and the rest. Nothing is dialled for it.
fn share_out(agent: &Agent, sources: &[Source], files: Vec<Lacking>) -> (Vec<(Source, Vec<Lacking>)>, Vec<Lacking>) {
    let (mut shared, mut rest) = (Vec::new(), files);
    for source in sources.iter().filter(|source| agent.links.get(source.peer).is_some()) {
        let Ok(numbers) = source.files.numbers() else { continue };
        let (there, not): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|file| numbers.binary_search(&file.number).is_ok());
        rest = not;
        if !there.is_empty() {
            shared.push((source.clone(), there));
        }
    }
    (shared, rest)
}

/// Has the client send these.
async fn ask_client(
    server: &Arc<Server>,
    provider: &mut Provider,
    files: &[Lacking],
    out: &mut Sender,
    inp: &mut Receiver,
) -> Result<(), Trouble> {
    if files.is_empty() {
        return Ok(());
    }
    out.send(&Answer::Missing(provider.ask(files)), limits::FRAME_BYTES_MAX).await?;
    let mut storing = Storing::new(server);
    while provider.awaited().is_some() {
        // One timer for many small blobs, one for each large one.
        let first = provider.awaited().map_or(0, |(_, size)| size);
        let batch = async {
            let mut bytes = 0;
            for _ in 0..BATCH_BLOBS {
                let Some((digest, size)) = provider.awaited() else { break };
                bytes += size;
                if bytes > BATCH_BYTES as u64 && bytes > size {
                    break;
                }
                let packed = inp.receive_packed(size).await?;
                provider.came().map_err(|_| StreamError::Blob)?;
                storing.push(digest, packed).await?;
            }
            Ok::<(), Trouble>(())
        };
        timeout(BATCH_TIME + Duration::from_millis(first / BYTES_A_MS), batch)
            .await
            .unwrap_or(Err(StreamError::Late.into()))?;
    }
    Ok(storing.finish().await?)
}

/// Waits for what other jobs are being sent, within bounds.
async fn wait_for_others(server: &Server, others: &[Lacking]) {
    let incoming = &server.incoming;
    let all = async {
        loop {
            let changed = incoming.changed();
            {
                let under_way = incoming.lock();
                if !others.iter().any(|file| under_way.contains(&file.digest)) {
                    return;
                }
            }
            if timeout(OTHERS_QUIET_MAX, changed).await.is_err() {
                return;
            }
        }
    };
    if !others.is_empty() {
        let _ = timeout(OTHERS_WAIT_MAX, all).await;
    }
}
