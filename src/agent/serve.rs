//! Runs jobs for peers (DO).

use super::{
    Agent,
    fetch::{self, Incoming},
    give,
    link::Link,
    pack::{self, PackError},
    share, take,
};
use crate::{
    compiler::invocation::Family,
    net::{
        channel::{Receiver, Sender},
        stream::StreamError,
    },
    sandbox::SandboxError,
    sched::admit::{self, Ledger},
    store::blobs::Blobs,
    toolchain::Toolchain,
    worker::{
        run::{self, Form, Order, OwnedOrder, Ran, RunError, Worker},
        sent::AllSent,
    },
};
use mesh_proto::{
    exchange::provider::Provider,
    frame,
    job::{Job, Refusal},
    limits,
    message::{Answer, Closed, Load, Offer, StreamHead},
    toolchain::{Fingerprint, Manifest},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::Semaphore};

/// A stream must say what it is for within this time.
const HEAD_TIME: Duration = Duration::from_secs(3);

/// What this machine lends.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) worker: Arc<Worker>,
    pub(super) blobs: Arc<Blobs>,
    /// Blobs that some job is being sent now.
    pub(super) incoming: Incoming,
    slots: u32,
    /// Compilers that run.
    running: Arc<Semaphore>,
    accepted: Mutex<u32>,
    /// Compilers whose trees are whole.
    whole: Mutex<HashMap<Fingerprint, Lent>>,
    /// Compilers that other machines sent.
    pub(super) sent: AllSent,
    /// Those that are to come.
    pub(super) taking: take::Taking,
    /// Numbers of slots that no job has.
    free: Mutex<Vec<u16>>,
}

/// A compiler that jobs can run.
#[derive(Debug, Clone)]
struct Lent {
    manifest: Arc<Manifest>,
    family: Family,
}

/// A slot's number, for as long as a compiler runs in it.
struct Slot<'a>(&'a Server, u16);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.free.lock().expect("no panic while held").push(self.1);
    }
}

/// An accepted offer.
struct Accepted<'a>(&'a Agent, &'a Arc<Server>, &'a Link);

impl Drop for Accepted<'_> {
    fn drop(&mut self) {
        *self.1.accepted.lock().expect("no panic while held") -= 1;
        self.2.accepted.fetch_sub(1, Ordering::Relaxed);
        self.0.load_changed();
    }
}

impl Server {
    pub(super) fn new(worker: Arc<Worker>, blobs: Arc<Blobs>, sent: AllSent, slots: u32) -> Self {
        let running = Arc::new(Semaphore::new(slots as usize));
        let free = Mutex::new((0..u16::try_from(slots).unwrap_or(u16::MAX)).collect());
        let incoming = Incoming::default();
        let (whole, taking) = (Mutex::default(), take::Taking::default());
        Self { worker, blobs, incoming, slots, running, accepted: Mutex::new(0), whole, sent, taking, free }
    }

    /// No further job runs these compilers.
    pub(super) fn forget(&self, toolchains: &[Fingerprint]) {
        let mut whole = self.whole.lock().expect("no panic while held");
        whole.retain(|known, _| !toolchains.contains(known));
    }

    fn slot(&self) -> Option<Slot<'_>> {
        let slot = self.free.lock().expect("no panic while held").pop()?;
        Some(Slot(self, slot))
    }

    /// Runs a job of this machine's own, in a root that holds nothing else, in the next free slot; blocking, on a thread
    /// that is not the runtime's.
    pub(super) fn trial(
        &self,
        runtime: &Handle,
        toolchain: &Toolchain,
        job: &Job,
        closure: &run::Closure,
    ) -> Result<Ran, RunError> {
        let lost = || RunError::Sandbox(SandboxError::Cancelled);
        let _running = runtime.block_on(self.running.acquire()).map_err(|_| lost())?;
        let slot = self.slot().ok_or_else(lost)?;
        let (_cancel, cancelled) = run::cancellation().map_err(|_| lost())?;
        let order = Order {
            job,
            closure,
            toolchain: &toolchain.manifest,
            fingerprint: &toolchain.fingerprint,
            family: toolchain.family,
            slot: slot.1,
            mirrors: None,
        };
        self.worker.run(order, &self.blobs, &cancelled)
    }

    /// How many compilers run for others now.
    pub(super) fn running(&self) -> u32 {
        self.slots - u32::try_from(self.running.available_permits()).unwrap_or(self.slots).min(self.slots)
    }

    pub(super) fn accepted(&self) -> u32 {
        *self.accepted.lock().expect("no panic while held")
    }
}

/// How busy this machine is, as this peer is told.
pub(super) fn load_for(agent: &Agent, link: &Link) -> Load {
    let load = load(agent);
    let theirs = u16::try_from(link.accepted.load(Ordering::Relaxed)).unwrap_or(u16::MAX);
    Load { accepted: load.accepted.saturating_sub(theirs), ..load }
}

/// How busy this machine is, all peers taken together.
pub(super) fn load(agent: &Agent) -> Load {
    let closed = closed(agent);
    let small = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let server = agent.server.as_ref().filter(|_| closed.is_none());
    Load {
        slots: server.map_or(0, |s| small(s.slots)),
        accepted: server.map_or(0, |s| small(s.accepted())),
        own: small(agent.local_leases()),
        closed,
        ..Load::default()
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
                Ok(Some(whole)) => agent.records().served(whole),
                Ok(None) => return,
                Err(e) => {
                    tracing::debug!("a job of {} ended early: {e}", link.name());
                    agent.records().served(false);
                }
            }
            agent.changed();
        });
    }
}

/// One stream. `true` if it was for a job that ran to its end; nothing if it was for no job.
async fn stream(
    agent: &Arc<Agent>,
    link: &Link,
    mut out: Sender,
    mut inp: Receiver,
) -> Result<Option<bool>, StreamError> {
    let offer = match inp.receive(limits::FRAME_BYTES_MAX, HEAD_TIME).await? {
        StreamHead::Job(offer) => offer,
        StreamHead::Fetch(fetch) => {
            if let Err(e) = share::give(agent, link, *fetch, out).await {
                tracing::debug!("{} did not get all that it asked for: {e}", link.name());
            }
            return Ok(None);
        }
        StreamHead::Toolchain(get) => {
            if let Err(e) = give::give(agent, link, get, out, inp).await {
                tracing::debug!("{} did not get a whole compiler: {e}", link.name());
            }
            return Ok(None);
        }
    };
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
            let done = frame::encode(&Answer::Done(Box::new(ran.outcome)), most)?;
            let sent = pack::send(&mut out, done, move |packer| {
                ran.files.into_iter().try_for_each(|file| packer.blob(&read_all(file).map_err(StreamError::Content)?))
            });
            sent.await.map_err(|error| match error {
                PackError::Stream(error) => error,
                PackError::Content => StreamError::Finished,
            })?;
        }
    }
    out.finish();
    Ok(Some(whole))
}

fn read_all(mut file: std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}

fn accept<'a>(agent: &'a Agent, link: &'a Link) -> Result<(&'a Arc<Server>, Accepted<'a>), Refusal> {
    let server = agent.server.as_ref().ok_or(Refusal::Sandbox)?;
    {
        let mut accepted = server.accepted.lock().expect("no panic while held");
        let memory_free_kib = agent.memory_free_kib();
        let (slots, accepted_now, closed) = (server.slots, *accepted, closed(agent));
        let client = agent.mesh.role_of(&link.peer);
        admit::admit(&Ledger { slots, accepted: accepted_now, closed, memory_free_kib, client })?;
        *accepted += 1;
    }
    link.accepted.fetch_add(1, Ordering::Relaxed);
    agent.load_changed();
    Ok((server, Accepted(agent, server, link)))
}

/// The compiler of this fingerprint. Once its tree is whole the machine's own files do not matter any more: the tree is a
/// copy, checked against the fingerprint.
async fn toolchain(agent: &Arc<Agent>, server: &Arc<Server>, fingerprint: Fingerprint) -> Option<Lent> {
    let known = server.whole.lock().expect("no panic while held").get(&fingerprint).cloned();
    if known.is_some() {
        return known;
    }
    let (registry, making, began) = (agent.registry.clone(), server.clone(), Instant::now());
    let made = tokio::task::spawn_blocking(move || {
        let lent = match registry.by_fingerprint(fingerprint, began) {
            Some(own) => {
                let lent = Lent { manifest: own.manifest.clone(), family: own.family };
                making.worker.prepare(&lent.manifest, &fingerprint).map(|()| lent)
            }
            None => {
                let sent = making.sent.get(&fingerprint)?;
                let lent = Lent { family: take::family(&sent.manifest)?, manifest: sent.manifest };
                making.worker.prepare_sent(&lent.manifest, &fingerprint).map(|()| lent)
            }
        };
        let lent = lent.inspect_err(|error| tracing::debug!(%error, "a toolchain cannot be used")).ok()?;
        let mut whole = making.whole.lock().expect("no panic while held");
        if whole.len() >= limits::TOOLCHAINS_MAX {
            whole.clear();
        }
        whole.insert(fingerprint, lent.clone());
        Some(lent)
    });
    let lent = made.await.ok()?;
    if lent.is_none() && server.sent.get(&fingerprint).is_some() {
        // It lost bytes on this machine's disk: who wants it has it sent again.
        take::give_up(agent, vec![fingerprint]).await;
    }
    lent
}

/// Fetches what is missing, waits for a slot, runs the job.
async fn job(
    agent: &Arc<Agent>,
    server: &Arc<Server>,
    link: &Link,
    offer: Offer,
    out: &mut Sender,
    inp: &mut Receiver,
) -> Result<Result<Ran, Refusal>, StreamError> {
    let began = Instant::now();
    let fingerprint = offer.job.toolchain;
    let Some(toolchain) = toolchain(agent, server, fingerprint).await else {
        return Ok(Err(Refusal::Toolchain));
    };
    server.sent.used(&fingerprint, crate::host::wall_ms());
    let mut provider = match link.with_names(&offer, |names| Provider::new(&offer, names)).await {
        Ok(Ok(provider)) => provider,
        Ok(Err(refusal)) | Err(refusal) => return Ok(Err(refusal)),
    };
    if let Err(refusal) = fetch::fetch(agent, server, link, &offer.sources, &mut provider, out, inp).await? {
        return Ok(Err(refusal));
    }
    let Ok(_running) = server.running.acquire().await else { return Ok(Err(Refusal::Leaving)) };
    let Some(slot) = server.slot() else { return Ok(Err(Refusal::Busy)) };
    let staged = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let order = OwnedOrder {
        closure: provider.numbered().collect(),
        toolchain: toolchain.manifest,
        fingerprint,
        family: toolchain.family,
        mirrors: Some(link.mirrors.clone()),
        slot: slot.1,
        job: offer.job,
    };
    let ran = run::run(server.worker.clone(), order, server.blobs.clone()).await;
    if let Ok(ran) = &ran {
        agent.records().ran(ran.form == Form::Mirror, server.worker.mirror_misses());
    }
    Ok(ran.map(|mut ran| {
        ran.outcome.usage.stage_us += staged;
        ran
    }))
}
