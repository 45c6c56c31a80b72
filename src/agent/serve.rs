//! Runs jobs for peers (DO).

use super::{
    Agent, cache,
    fetch::{self, Incoming},
    give,
    link::Link,
    pack::{self, PackError, Packer},
    seek, share,
    slots::Place,
    take,
};
use crate::{
    compiler::invocation::Family,
    net::{
        channel::{Receiver, Sender},
        stream::{self, StreamError},
    },
    sandbox::SandboxError,
    sched::{dispatch::Dispatcher, guest::Terms},
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
    job::{Exit, Job, Outcome, Refusal},
    key::ActionKey,
    limits,
    message::{Answer, Closed, Load, Offer, StreamHead},
    toolchain::{Fingerprint, Manifest},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::Semaphore};

/// A stream must say what it is for within this time.
const HEAD_TIME: Duration = Duration::from_secs(3);
/// Outputs that are larger together are not kept where they were made, bytes.
const KEPT_BYTES_MAX: u64 = 64 << 20;
/// Numbers of jobs beyond two for each slot: samples, and second starts of this machine's own units.
const NUMBERS_SPARE: u32 = 16;

/// What this machine lends.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) worker: Arc<Worker>,
    pub(super) blobs: Arc<Blobs>,
    /// Blobs that some job is being sent now.
    pub(super) incoming: Incoming,
    /// Compilers run for others at once, at most: its settings', or its cores.
    pub(super) slots: u32,
    /// Samples by which compilers are proved run one by one.
    trials: Arc<Semaphore>,
    /// Compilers whose trees are whole.
    whole: Mutex<HashMap<Fingerprint, Lent>>,
    /// Compilers that other machines sent.
    pub(super) sent: AllSent,
    /// Those that are to come.
    pub(super) taking: take::Taking,
    /// Numbers that no job has: as many as jobs can run, be collected and be tried side by side.
    free: Mutex<Vec<u16>>,
}

/// A compiler that jobs can run.
#[derive(Debug, Clone)]
struct Lent {
    manifest: Arc<Manifest>,
    family: Family,
}

/// A job's number, for as long as anything of it is left: in some sandboxes it is known by it.
pub(super) struct Slot<'a>(&'a Server, u16);

impl Slot<'_> {
    pub(super) fn number(&self) -> u16 {
        self.1
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.free.lock().expect("no panic while held").push(self.1);
    }
}

impl Server {
    pub(super) fn new(worker: Arc<Worker>, blobs: Arc<Blobs>, sent: AllSent, slots: u32) -> Self {
        let numbers = slots.saturating_mul(2).saturating_add(NUMBERS_SPARE);
        let free = Mutex::new((0..u16::try_from(numbers).unwrap_or(u16::MAX)).rev().collect());
        let (incoming, trials) = (Incoming::default(), Arc::new(Semaphore::new(1)));
        let (whole, taking) = (Mutex::default(), take::Taking::default());
        Self { worker, blobs, incoming, slots, trials, whole, sent, taking, free }
    }

    /// No further job runs these compilers.
    pub(super) fn forget(&self, toolchains: &[Fingerprint]) {
        let mut whole = self.whole.lock().expect("no panic while held");
        whole.retain(|known, _| !toolchains.contains(known));
    }

    /// A number that no other job has.
    pub(super) fn slot(&self) -> Option<Slot<'_>> {
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
        let _alone = runtime.block_on(self.trials.acquire()).map_err(|_| lost())?;
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
            is_own: false,
        };
        self.worker.run(order, &self.blobs, &cancelled)
    }
}

/// How busy this machine is, as this peer is told.
pub(super) fn load_for(agent: &Agent, link: &Link) -> Load {
    let small = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let (own, wants) = agent.desk.look(|dispatcher| (dispatcher.running_here(), dispatcher.wants()));
    Load { own: small(own), wants: small(wants), ..agent.slots.load_for(agent.clock.us(), link.peer) }
}

/// How busy this machine is, to somebody who has nothing here.
pub(super) fn load(agent: &Agent) -> Load {
    let own = agent.desk.look(Dispatcher::running_here);
    let load = agent.slots.load_for(agent.clock.us(), agent.mesh.me());
    Load { own: u16::try_from(own).unwrap_or(u16::MAX), ..load }
}

/// On what terms this machine serves now.
pub(super) fn terms(agent: &Agent) -> Terms {
    let closed = never(agent);
    match agent.lending.terms().filter(|_| closed.is_none()) {
        Some(terms) => terms,
        None => Terms { slots: 0, closed: closed.or(Some(Closed::Busy)), memory_free_kib: None, gives_up_one: false },
    }
}

/// Why this machine would serve nobody however much its owner lent.
pub(super) fn never(agent: &Agent) -> Option<Closed> {
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
        StreamHead::Seek(seek) => {
            if let Err(e) = seek::answer(agent, link, seek, out).await {
                tracing::debug!("{} did not get a result: {e}", link.name());
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
    let mut answering = None;
    let let_in = agent.server.as_ref().ok_or(Refusal::Sandbox);
    let ran = match let_in.and_then(|server| Ok((server, agent.let_in(link, offer.memory_kib)?))) {
        Ok((server, mut place)) => {
            answering = Some(agent.slots.answering());
            let (stopped, given_up) = (out.stopped(), place.given_up());
            let ran = tokio::select! {
                ran = job(agent, server, link, *offer, (&mut out, &mut inp), &mut place) => ran?,
                why = given_up => Err(why),
                // The client has lost interest, or the connection is gone.
                () = stopped => return Err(StreamError::Finished),
            };
            // The slot is free as soon as the compiler has ended: what it made is still to be sent.
            drop(place);
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
        Ok((ran, key)) => {
            let most = limits::JOB_TEXT_BYTES_MAX + limits::FRAME_BYTES_MAX;
            let answer = Answer::Done(Box::new(ran.outcome));
            let done = frame::encode(&answer, most)?;
            let Answer::Done(outcome) = answer else { return Err(StreamError::Finished) };
            let (files, sending) = (ran.files, agent.clone());
            let sent = pack::send(&mut out, done, move |packer| match key {
                Some(key) if outcome.exit == Exit::Code(0) => send_and_keep(&sending, packer, files, key, *outcome),
                _ => files.into_iter().try_for_each(|file| packer.blob(&read_all(file).map_err(StreamError::Content)?)),
            });
            sent.await.map_err(|error| match error {
                PackError::Stream(error) => error,
                PackError::Content => StreamError::Finished,
            })?;
        }
    }
    out.finish();
    drop(answering);
    Ok(Some(whole))
}

/// Sends the outputs and this machine's word on them, and keeps both; blocking.
fn send_and_keep(
    agent: &Arc<Agent>,
    packer: &mut Packer,
    files: Vec<std::fs::File>,
    key: ActionKey,
    outcome: Outcome,
) -> Result<(), PackError> {
    let receipt = seek::receipt(agent, &key, &outcome, crate::host::wall_ms());
    let keeps = agent.cache.keeps() && outcome.outputs.iter().map(|o| o.size).sum::<u64>() <= KEPT_BYTES_MAX;
    let mut packed = Vec::new();
    for file in files {
        let bytes = read_all(file).map_err(StreamError::Content)?;
        if keeps {
            let mut wire = Vec::new();
            stream::pack_blob(&bytes, &mut wire)?;
            packer.packed(&wire)?;
            packed.push(wire);
        } else {
            packer.blob(&bytes)?;
        }
    }
    packer.packed(&frame::encode(&receipt, limits::FRAME_BYTES_MAX).map_err(StreamError::from)?)?;
    if keeps {
        cache::put_now(agent, *cache::keep_made(key, outcome, packed, receipt));
    }
    Ok(())
}

fn read_all(mut file: std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
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
    (out, inp): (&mut Sender, &mut Receiver),
    place: &mut Place,
) -> Result<Result<(Ran, Option<ActionKey>), Refusal>, StreamError> {
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
    let staged = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let waited = place.slot().await;
    let Some(slot) = server.slot() else { return Ok(Err(Refusal::Busy)) };
    let crowd_percent = agent.crowd_percent();
    // What is signed is what was run: worked out of what this machine has, and nothing that the client says of it.
    let entries = || provider.entries().cloned().collect();
    let key = offer.signed.then(|| cache::key_of(&offer.job, &toolchain.manifest, entries()));
    let order = OwnedOrder {
        closure: provider.numbered().collect(),
        toolchain: toolchain.manifest,
        fingerprint,
        family: toolchain.family,
        mirrors: Some(link.mirrors.clone()),
        is_own: false,
        slot: slot.1,
        job: offer.job,
    };
    let ran = run::run(server.worker.clone(), order, server.blobs.clone()).await;
    if let Ok(ran) = &ran {
        agent.records().ran(ran.form == Form::Mirror, server.worker.mirror_misses());
    }
    Ok(ran.map(|mut ran| {
        let usage = &mut ran.outcome.usage;
        usage.stage_us += staged;
        (usage.wait_us, usage.crowd_percent) = (waited, crowd_percent);
        (ran, key)
    }))
}
