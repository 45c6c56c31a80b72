//! One unit's starts on other machines, side by side if need be, and in the sandbox here (DO).

use super::{
    Agent,
    desk::{Order, Ticket},
    link::Link,
    submit::{self, SubmitError},
};
use crate::{
    inputs::Closure,
    reason::Reason,
    sched::{
        dispatch::{AttemptId, End, Why},
        retry::{self, Failure},
    },
    toolchain::Toolchain,
    worker::run::{self, OwnedOrder},
};
use mesh_proto::{
    closure::Node,
    exchange::results::Receipt,
    job::{Exit, Job, Outcome, Refusal},
    peer::PeerId,
};
use std::{ffi::OsStr, io::Read, os::unix::ffi::OsStrExt, path::Path, pin::Pin, sync::Arc, task::Poll, time::Instant};
use tokio_util::sync::CancellationToken;

/// What came of a unit that went out.
pub(super) enum Came {
    /// A compiler ended by itself.
    Back(Box<Back>),
    /// The launcher compiles it; the ticket holds its slot.
    Here { reason: Reason, fallback: bool, why: Why },
    /// It is not to go out any more, for this reason; nothing holds a slot for it.
    Stays { reason: Reason, fallback: bool },
}

/// A result.
pub(super) struct Back {
    /// The machine that made it; `None` for this one's own sandbox.
    pub(super) link: Option<Arc<Link>>,
    pub(super) outcome: Outcome,
    /// The outputs' bytes, in the outcome's order.
    pub(super) bytes: Vec<Vec<u8>>,
    /// The same as they came over the wire; may be empty.
    pub(super) packed: Vec<Vec<u8>>,
    /// What the machine that made it has signed.
    pub(super) receipt: Option<Receipt>,
    pub(super) why: Why,
    /// How often it was started.
    pub(super) starts: u32,
}

type Ran = Result<submit::Ran, SubmitError>;

/// A start under way.
struct Start<'a> {
    attempt: AttemptId,
    link: Option<Arc<Link>>,
    why: Why,
    runs: Pin<Box<dyn Future<Output = Ran> + Send + 'a>>,
}

/// All that are under way: two at most. Dropped, they are cancelled.
#[derive(Default)]
struct Starts<'a>(Vec<Start<'a>>);

impl<'a> Starts<'a> {
    /// The next to end, taken out. Never ends while there is none.
    async fn next(&mut self) -> (Start<'a>, Ran) {
        let (at, ran) = std::future::poll_fn(|context| {
            for (at, start) in self.0.iter_mut().enumerate() {
                if let Poll::Ready(ran) = start.runs.as_mut().poll(context) {
                    return Poll::Ready((at, ran));
                }
            }
            Poll::Pending
        })
        .await;
        (self.0.swap_remove(at), ran)
    }
}

/// What is to be compiled.
#[derive(Clone, Copy)]
pub(super) struct Going<'a> {
    pub(super) job: &'a Job,
    pub(super) closure: &'a Closure,
    pub(super) toolchain: &'a Arc<Toolchain>,
    /// Its result will be kept.
    pub(super) keeps: bool,
}

/// Does what the desk says until the unit has come back or stays here. What failed on the way is added to `note`.
pub(super) async fn run(
    agent: &Arc<Agent>,
    ticket: &mut Ticket,
    going: Going<'_>,
    cancel: &CancellationToken,
    note: &mut String,
) -> Came {
    let mut starts = Starts::default();
    let mut count = 0;
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Came::Stays { reason: Reason::Leaving, fallback: true },
            order = ticket.order() => match order {
                Order::Offer { attempt, peer, memory_kib, why } => {
                    count += 1;
                    match offer(agent, going, attempt, peer, memory_kib, why) {
                        Some(start) => starts.0.push(start),
                        None => ticket.ended(attempt, End::Lost),
                    }
                }
                Order::CopyHere { attempt } => {
                    count += 1;
                    let why = Why { is_second: true, ..Why::default() };
                    starts.0.push(Start { attempt, link: None, why, runs: Box::pin(copy(agent, going)) });
                }
                Order::Here { reason, fallback, why } => return Came::Here { reason, fallback, why },
                Order::Cancel { attempt } => starts.0.retain(|start| start.attempt != attempt),
            },
            () = leaves(agent), if starts.0.is_empty() => {
                // What nobody has yet is compiled here; what somebody has is waited for.
                return Came::Stays { reason: Reason::Leaving, fallback: true };
            }
            (start, ran) = starts.next(), if !starts.0.is_empty() => {
                if let Some(came) = ended(agent, ticket, going, start, ran, count, note) {
                    return came;
                }
            }
        }
    }
}

async fn leaves(agent: &Agent) {
    agent.leaving.cancelled().await;
}

fn offer<'a>(
    agent: &'a Arc<Agent>,
    going: Going<'a>,
    attempt: AttemptId,
    peer: PeerId,
    memory_kib: u64,
    why: Why,
) -> Option<Start<'a>> {
    let link = agent.links.get(peer)?;
    let there = link.clone();
    let runs = async move { submit::submit(agent, &there, (going.job, going.closure), memory_kib, going.keeps).await };
    Some(Start { attempt, link: Some(link), why, runs: Box::pin(runs) })
}

/// One start has ended: what follows for the unit, if the desk is not to say it.
fn ended(
    agent: &Arc<Agent>,
    ticket: &Ticket,
    going: Going<'_>,
    start: Start<'_>,
    ran: Ran,
    starts: u32,
    note: &mut String,
) -> Option<Came> {
    let Start { attempt, link, why, .. } = start;
    let name = link.as_ref().map_or_else(|| "this machine's sandbox".to_owned(), |link| link.name());
    let stays = |reason| {
        ticket.ended(attempt, End::Void);
        Some(Came::Stays { reason, fallback: true })
    };
    match ran {
        Ok(ran) if retry::is_illegal_instruction(&ran.outcome) => {
            tracing::warn!("{name} cannot run {}: illegal instruction", going.toolchain.label());
            if let Some(link) = link {
                link.shipments.quarantine(going.job.toolchain, Instant::now());
                agent.tell_toolchains(&link);
            }
            stays(Reason::IllegalInstruction)
        }
        Ok(submit::Ran { outcome, bytes, packed, receipt }) => {
            let end = if outcome.exit == Exit::Code(0) { End::Done(outcome.usage) } else { End::Void };
            ticket.ended(attempt, end);
            Some(Came::Back(Box::new(Back { link, outcome, bytes, packed, receipt, why, starts })))
        }
        Err(SubmitError::Changed) => stays(Reason::Changing),
        Err(SubmitError::Violation(violation)) => {
            agent.records().discrepancy();
            tracing::warn!("{name} broke the protocol: {violation}");
            stays(Reason::Discrepancy)
        }
        Err(SubmitError::Failed(failure)) => {
            let (words, end) = match failure {
                Failure::Refused(refusal) => (refusal.to_string(), End::Refused(refusal)),
                Failure::Lost => ("the connection was lost".to_owned(), End::Lost),
            };
            // A machine that is full is no news.
            if failure != Failure::Refused(Refusal::Busy) || note.is_empty() {
                *note = format!("{name}: {words}");
            }
            ticket.ended(attempt, end);
            None
        }
    }
}

/// Runs the unit in this machine's own sandbox, in a root that holds its closure and nothing else.
pub(super) async fn copy(agent: &Arc<Agent>, going: Going<'_>) -> Ran {
    let failed = |refusal| SubmitError::Failed(Failure::Refused(refusal));
    let server = agent.server.clone().ok_or(failed(Refusal::Sandbox))?;
    let (entries, bench) = (going.closure.entries.clone(), server.clone());
    let stored = tokio::task::spawn_blocking(move || {
        entries.iter().try_for_each(|named| match &named.entry.node {
            Node::File(file) if !bench.blobs.has(&file.digest) => {
                let bytes = std::fs::read(Path::new(OsStr::from_bytes(named.entry.path.as_bytes()))).ok()?;
                bench.blobs.put(&file.digest, &bytes).ok()
            }
            _ => Some(()),
        })
    });
    // A file that is no longer what the closure says is not taken in.
    stored.await.ok().flatten().ok_or(SubmitError::Changed)?;
    let slot = server.slot().ok_or(failed(Refusal::Busy))?;
    let toolchain = going.toolchain;
    let order = OwnedOrder {
        job: Job { strict: true, ..going.job.clone() },
        closure: going.closure.numbered(),
        toolchain: toolchain.manifest.clone(),
        fingerprint: toolchain.fingerprint,
        family: toolchain.family,
        slot: slot.number(),
        mirrors: None,
        is_own: true,
    };
    let ran = run::run(server.worker.clone(), order, server.blobs.clone()).await;
    drop(slot);
    let ran = ran.map_err(failed)?;
    let read = tokio::task::spawn_blocking(move || {
        let read = |mut file: std::fs::File| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map(|_| bytes)
        };
        let bytes: std::io::Result<Vec<Vec<u8>>> = ran.files.into_iter().map(read).collect();
        bytes.map(|bytes| submit::Ran { outcome: ran.outcome, bytes, packed: Vec::new(), receipt: None })
    });
    read.await.ok().and_then(Result::ok).ok_or(failed(Refusal::Collect))
}
