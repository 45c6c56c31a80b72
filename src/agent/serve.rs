//! Runs jobs for peers (DO).

use super::{Agent, link::Link};
use crate::{
    net::{
        channel::{Receiver, Sender},
        stream::StreamError,
    },
    sched::admit::{self, Ledger},
    store::blobs::{BlobError, Blobs},
    worker::run::{self, OwnedOrder, Ran, Worker},
};
use mesh_proto::{
    closure::{Entry, Node},
    digest::Digest,
    exchange::provider::Provider,
    job::Refusal,
    limits,
    message::{Answer, Closed, Load, Offer, StreamHead},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, watch};

/// A stream must say what it is for within this time.
const HEAD_TIME: Duration = Duration::from_secs(3);
/// One blob must arrive within this time.
const BLOB_TIME: Duration = Duration::from_secs(30);
/// A job waits this long for another's fetch of the same blob before it asks itself.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(5);

/// What this machine lends.
#[derive(Debug)]
pub(super) struct Server {
    worker: Arc<Worker>,
    blobs: Arc<Blobs>,
    slots: u32,
    /// Compilers that run.
    running: Arc<Semaphore>,
    accepted: Mutex<u32>,
    /// Numbers of slots that no job has.
    free: Mutex<Vec<u16>>,
    /// Blobs that some job is being sent now.
    fetches: Mutex<HashMap<Digest, watch::Receiver<()>>>,
}

/// A slot's number, for as long as a compiler runs in it.
struct Slot<'a>(&'a Server, u16);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.free.lock().expect("no panic while held").push(self.1);
    }
}

/// An accepted offer.
struct Accepted<'a>(&'a Agent, &'a Server);

impl Drop for Accepted<'_> {
    fn drop(&mut self) {
        *self.1.accepted.lock().expect("no panic while held") -= 1;
        self.0.load_changed();
    }
}

impl Server {
    pub(super) fn new(worker: Arc<Worker>, blobs: Arc<Blobs>, slots: u32) -> Self {
        let running = Arc::new(Semaphore::new(slots as usize));
        let free = Mutex::new((0..u16::try_from(slots).unwrap_or(u16::MAX)).collect());
        Self { worker, blobs, slots, running, accepted: Mutex::new(0), free, fetches: Mutex::default() }
    }

    fn slot(&self) -> Option<Slot<'_>> {
        let slot = self.free.lock().expect("no panic while held").pop()?;
        Some(Slot(self, slot))
    }

    /// How many compilers run for others now.
    pub(super) fn running(&self) -> u32 {
        self.slots - u32::try_from(self.running.available_permits()).unwrap_or(self.slots).min(self.slots)
    }

    pub(super) fn accepted(&self) -> u32 {
        *self.accepted.lock().expect("no panic while held")
    }
}

/// How busy this machine is, as its peers are told.
pub(super) fn load(agent: &Agent) -> Load {
    let closed = closed(agent);
    let small = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let server = agent.server.as_ref().filter(|_| closed.is_none());
    Load {
        slots: server.map_or(0, |s| small(s.slots)),
        accepted: server.map_or(0, |s| small(s.accepted())),
        own: small(agent.local_leases()),
        closed,
    }
}

fn closed(agent: &Agent) -> Option<Closed> {
    match &agent.server {
        _ if agent.is_leaving() => Some(Closed::Leaving),
        None => Some(Closed::NoSandbox),
        Some(_) if !agent.may_serve() => Some(Closed::Role),
        Some(_) => None,
    }
}

/// Serves the job streams of one connection until it ends.
pub(super) async fn streams(agent: Arc<Agent>, link: Arc<Link>) {
    while let Ok((sender, receiver)) = link.conn.accept_bi().await {
        let (agent, link) = (agent.clone(), link.clone());
        tokio::spawn(async move {
            let end = stream(&agent, &link, sender, receiver).await;
            match end {
                Ok(whole) => agent.records().served(whole),
                Err(e) => {
                    tracing::debug!("a job of {} ended early: {e}", link.name());
                    agent.records().served(false);
                }
            }
            agent.changed();
        });
    }
}

/// One stream. `Ok(true)` if the job ran to its end.
async fn stream(agent: &Arc<Agent>, link: &Link, mut out: Sender, mut inp: Receiver) -> Result<bool, StreamError> {
    let StreamHead::Job(offer) = inp.receive(limits::FRAME_BYTES_MAX, HEAD_TIME).await?;
    let ran = match accept(agent, link) {
        Ok((server, accepted)) => {
            let stopped = out.stopped();
            let ran = tokio::select! {
                ran = job(agent, server, link, *offer, &mut out, &mut inp) => ran?,
                // The client has lost interest, or the connection is gone.
                () = stopped => return Err(StreamError::Finished),
            };
            drop(accepted);
            ran
        }
        Err(refusal) => Err(refusal),
    };
    let whole = ran.is_ok();
    match ran {
        Err(refusal) => {
            tracing::debug!("a job of {} was refused: {refusal}", link.name());
            out.send(&Answer::Refused(refusal), limits::FRAME_BYTES_MAX).await?;
        }
        Ok(ran) => {
            let most = limits::JOB_TEXT_BYTES_MAX + limits::FRAME_BYTES_MAX;
            out.send(&Answer::Done(Box::new(ran.outcome)), most).await?;
            for file in ran.files {
                let bytes = tokio::task::spawn_blocking(move || read_all(file)).await;
                out.send_blob(&bytes.map_err(|_| StreamError::Late)?.map_err(StreamError::Sink)?).await?;
            }
        }
    }
    out.finish();
    Ok(whole)
}

fn read_all(mut file: std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}

fn accept<'a>(agent: &'a Agent, link: &Link) -> Result<(&'a Server, Accepted<'a>), Refusal> {
    let server = agent.server.as_ref().ok_or(Refusal::Sandbox)?;
    {
        let mut accepted = server.accepted.lock().expect("no panic while held");
        let memory_free_kib = agent.memory_free_kib();
        let (slots, accepted_now, closed) = (server.slots, *accepted, closed(agent));
        let client = agent.mesh.role_of(&link.peer);
        admit::admit(&Ledger { slots, accepted: accepted_now, closed, memory_free_kib, client })?;
        *accepted += 1;
    }
    agent.load_changed();
    Ok((server, Accepted(agent, server)))
}

/// Fetches what is missing, waits for a slot, runs the job.
async fn job(
    agent: &Arc<Agent>,
    server: &Server,
    link: &Link,
    offer: Offer,
    out: &mut Sender,
    inp: &mut Receiver,
) -> Result<Result<Ran, Refusal>, StreamError> {
    let began = Instant::now();
    let (registry, fingerprint) = (agent.registry.clone(), offer.job.toolchain);
    let found = tokio::task::spawn_blocking(move || registry.by_fingerprint(fingerprint, began)).await;
    let Ok(Some(toolchain)) = found else { return Ok(Err(Refusal::Toolchain)) };
    let mut provider = match link.with_names(&offer, |names| Provider::new(&offer, names)).await {
        Ok(Ok(provider)) => provider,
        Ok(Err(refusal)) | Err(refusal) => return Ok(Err(refusal)),
    };
    if let Err(refusal) = fetch(server, &mut provider, out, inp).await? {
        return Ok(Err(refusal));
    }
    let Ok(_running) = server.running.acquire().await else { return Ok(Err(Refusal::Leaving)) };
    let Some(slot) = server.slot() else { return Ok(Err(Refusal::Busy)) };
    let staged = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let order = OwnedOrder {
        closure: provider.numbered().collect(),
        toolchain: Arc::new(toolchain.manifest.clone()),
        fingerprint: toolchain.fingerprint,
        family: toolchain.family,
        mirrors: Some(link.mirrors.clone()),
        slot: slot.1,
        job: offer.job,
    };
    let ran = run::run(server.worker.clone(), order, server.blobs.clone()).await;
    Ok(ran.map(|mut ran| {
        ran.outcome.usage.stage_us += staged;
        ran
    }))
}

/// Gets the content that is not here, each blob once over all jobs.
async fn fetch(
    server: &Server,
    provider: &mut Provider,
    out: &mut Sender,
    inp: &mut Receiver,
) -> Result<Result<(), Refusal>, StreamError> {
    wait_for_others(server, provider).await;
    let blobs = &server.blobs;
    let missing = provider.missing(|digest| blobs.has(digest));
    if provider.awaited().is_none() {
        return Ok(Ok(()));
    }
    let (done, waiting) = watch::channel(());
    let mine = Mine { server, digests: provider.all_awaited(), _done: done };
    for digest in &mine.digests {
        server.fetches.lock().expect("no panic while held").insert(*digest, waiting.clone());
    }
    out.send(&Answer::Missing(missing), limits::FRAME_BYTES_MAX).await?;
    while let Some((digest, size)) = provider.awaited() {
        let bytes = tokio::time::timeout(BLOB_TIME, inp.receive_blob(size, digest)).await;
        let bytes = bytes.map_err(|_| StreamError::Late)??;
        provider.received(&bytes).map_err(|_| StreamError::Blob)?;
        let blobs = server.blobs.clone();
        let put = tokio::task::spawn_blocking(move || blobs.put(&digest, &bytes)).await;
        match put {
            Ok(Ok(())) => {}
            Ok(Err(BlobError::DiskFull)) => return Ok(Err(Refusal::Disk)),
            _ => return Ok(Err(Refusal::Missing)),
        }
    }
    Ok(Ok(()))
}

/// Blobs on their way to this job.
struct Mine<'a> {
    server: &'a Server,
    digests: Vec<Digest>,
    /// Dropped with it: who waits sees the end.
    _done: watch::Sender<()>,
}

impl Drop for Mine<'_> {
    fn drop(&mut self) {
        let mut fetches = self.server.fetches.lock().expect("no panic while held");
        for digest in &self.digests {
            fetches.remove(digest);
        }
    }
}

/// If another job is being sent something that this one needs too, waits for that, within bounds.
async fn wait_for_others(server: &Server, provider: &Provider) {
    let others: Vec<watch::Receiver<()>> = {
        let fetches = server.fetches.lock().expect("no panic while held");
        if fetches.is_empty() {
            return;
        }
        let digest = |e: &Entry| if let Node::File(file) = &e.node { Some(file.digest) } else { None };
        provider.entries().filter_map(|e| fetches.get(&digest(e)?).cloned()).collect()
    };
    let all = async {
        for mut other in others {
            // An error is the end of the other's fetch.
            while other.changed().await.is_ok() {}
        }
    };
    let _ = tokio::time::timeout(FETCH_WAIT_MAX, all).await;
}
