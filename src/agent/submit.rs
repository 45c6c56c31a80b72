//! Offers a job to a peer and brings its outcome back (DO).

use super::{
    Agent,
    link::{Link, LinkError},
    pack::{self, PackError},
};
use crate::{
    inputs::Closure,
    net::{
        channel::{Receiver, Sender},
        stream::StreamError,
    },
    sched::retry::Failure,
};
use mesh_proto::{
    closure::{Entry, Node},
    digest::Digest,
    exchange::{
        Violation,
        requester::{Requester, Step},
        results::Receipt,
    },
    job::{Exit, Job, Outcome},
    key::Keyed,
    limits,
    message::{Answer, OfferedJob, OfferedParts},
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long a peer may take over its answer beyond the job's own wall time: waiting for a slot, fetching, staging.
const ANSWER_SLACK: Duration = Duration::from_secs(60);
/// How long one output may take to arrive, and a millisecond more for each of so many bytes.
const OUTPUT_TIME: Duration = Duration::from_secs(30);
const OUTPUT_BYTES_A_MS: u64 = 1000;
/// Outputs of so many bytes together are unpacked on the network's thread: a task would cost as much.
const UNPACK_HERE_BYTES_MAX: u64 = 32 << 10;

/// A job that a compiler has ended.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) outcome: Outcome,
    /// The outputs' bytes, in the outcome's order.
    pub(super) bytes: Vec<Vec<u8>>,
    /// The same as they came over the wire; empty if that is of no use to anybody.
    pub(super) packed: Vec<Vec<u8>>,
    /// What the machine that made it has signed.
    pub(super) receipt: Option<Receipt>,
}

/// Why there is no outcome.
#[derive(Debug)]
pub(super) enum SubmitError {
    /// The peer refused it or was lost.
    Failed(Failure),
    /// The peer broke a rule.
    Violation(Violation),
    /// An input is no longer what the closure says.
    Changed,
}

impl From<StreamError> for SubmitError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Blob => Self::Violation(Violation::Content),
            error => {
                tracing::debug!("a job's stream ended: {error}");
                Self::Failed(Failure::Lost)
            }
        }
    }
}

impl From<LinkError> for SubmitError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Stream(error) => error.into(),
            LinkError::Name(_) => Self::Failed(Failure::Lost),
            LinkError::Changed => Self::Changed,
        }
    }
}

/// The content of a closure's file, if it is still what the entry says; blocking.
fn read(entry: &Entry) -> Option<Vec<u8>> {
    let Node::File(file) = &entry.node else { return None };
    let bytes = std::fs::read(Path::new(OsStr::from_bytes(entry.path.as_bytes()))).ok()?;
    (Digest::of(&bytes) == file.digest).then_some(bytes)
}

/// Offers `job`, which should need so much memory at most (KiB; 0 if nobody knows), on `link`; `signed`: its result will be kept.
/// Dropping the future cancels the job there.
pub(super) async fn submit(
    agent: &Arc<Agent>,
    link: &Link,
    (job, closure): (&Job, &Closure),
    memory_kib: u64,
    signed: bool,
) -> Result<Ran, SubmitError> {
    let named = link.name_closure(closure, &agent.retired, &agent.links).await?;
    let mut claimed = named.claimed;
    let (mut sender, mut receiver) = link.conn.open_bi().await?;
    let wall = Duration::from_millis(job.wall_ms_max) + ANSWER_SLACK;
    let mut machine = Requester::new(named.entries, job.output_dirs.clone());
    let (batches, closure, sources) = (named.batches, &named.set, &named.sources);
    let offer = OfferedJob::Job(OfferedParts { job, batches, closure, sources, memory_kib, signed });
    sender.send(&offer, limits::FRAME_BYTES_MAX).await?;
    loop {
        let answer: Answer = receiver.receive(limits::JOB_TEXT_BYTES_MAX + limits::FRAME_BYTES_MAX, wall).await?;
        match machine.answer(answer).map_err(SubmitError::Violation)? {
            Step::Send(files) => {
                claimed.keep();
                let (count, bytes) = (files.len(), send(agent, &mut sender, files).await?);
                tracing::debug!("{} was sent {count} inputs in {bytes} bytes", link.name());
            }
            Step::Refused(refusal) => return Err(SubmitError::Failed(Failure::Refused(refusal))),
            Step::Receive(outcome) => {
                claimed.keep();
                let (bytes, packed) = receive(&mut receiver, &outcome, signed).await?;
                let receipt = if signed && outcome.exit == Exit::Code(0) {
                    Some(receiver.receive(limits::FRAME_BYTES_MAX, OUTPUT_TIME).await?)
                } else {
                    None
                };
                return Ok(Ran { outcome: *outcome, bytes, packed, receipt });
            }
        }
    }
}

/// Reads, checks and packs files in one blocking task, and sends them.
async fn send(agent: &Arc<Agent>, sender: &mut Sender, files: Vec<Arc<Keyed>>) -> Result<u64, SubmitError> {
    let packing = agent.clone();
    let sent = pack::send(sender, Vec::new(), move |packer| {
        files.iter().try_for_each(|entry| {
            let Node::File(file) = &entry.node else { return Err(PackError::Content) };
            packer.kept(&packing.packs, file.digest, || read(entry))
        })
    });
    sent.await.map_err(|error| match error {
        PackError::Content => SubmitError::Changed,
        PackError::Stream(error) => error.into(),
    })
}

/// Receives the outputs, and gives them as they came too if that is wanted. Large ones are unpacked off the network's thread.
async fn receive(
    receiver: &mut Receiver,
    outcome: &Outcome,
    as_they_came: bool,
) -> Result<(Vec<Vec<u8>>, Vec<Vec<u8>>), StreamError> {
    let is_worth_it = as_they_came && outcome.exit == Exit::Code(0);
    let mut packed = Vec::with_capacity(outcome.outputs.len());
    let mut bytes = 0;
    for output in &outcome.outputs {
        let time = OUTPUT_TIME + Duration::from_millis(output.size / OUTPUT_BYTES_A_MS);
        let blob = timeout(time, receiver.receive_packed(output.size)).await;
        packed.push((output.digest, blob.unwrap_or(Err(StreamError::Late))?));
        bytes += output.size;
    }
    let unpack = move || {
        let came = packed.iter().filter(|_| is_worth_it).map(|(_, blob)| blob.wire()).collect();
        let plain: Result<_, StreamError> = packed.into_iter().map(|(digest, blob)| blob.unpack(&digest)).collect();
        plain.map(|plain| (plain, came))
    };
    if bytes <= UNPACK_HERE_BYTES_MAX {
        return unpack();
    }
    tokio::task::spawn_blocking(unpack).await.unwrap_or(Err(StreamError::Finished))
}
