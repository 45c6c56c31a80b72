//! Offers a job to a peer and brings its outcome back (DO).

use super::link::{Link, LinkError};
use crate::{
    inputs::{Closure, Retired},
    net::stream::StreamError,
    sched::retry::Failure,
};
use mesh_proto::{
    closure::{Entry, Node},
    digest::Digest,
    exchange::{
        Violation,
        requester::{Requester, Step},
    },
    job::{Job, Outcome},
    limits,
    message::{Answer, Offer, StreamHead},
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, sync::Arc, time::Duration};

/// How long a peer may take over its answer beyond the job's own wall time: waiting for a slot, fetching, staging.
const ANSWER_SLACK: Duration = Duration::from_secs(60);

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

/// Offers `job` on `link`. Dropping the future cancels the job there.
pub(super) async fn submit(
    link: &Arc<Link>,
    job: &Job,
    closure: &Closure,
    retired: &Retired,
) -> Result<(Outcome, Vec<Vec<u8>>), SubmitError> {
    let _held = link.hold();
    let named = link.name_closure(closure, retired).await?;
    let (mut sender, mut receiver) = link.conn.open_bi().await?;
    let offer = Offer { job: job.clone(), batches: named.batches, closure: named.set };
    let wall = Duration::from_millis(offer.job.wall_ms_max) + ANSWER_SLACK;
    let mut machine = Requester::new(named.entries, job.output_dirs.clone());
    sender.send(&StreamHead::Job(Box::new(offer)), limits::FRAME_BYTES_MAX).await?;
    loop {
        let answer: Answer = receiver.receive(limits::JOB_TEXT_BYTES_MAX + limits::FRAME_BYTES_MAX, wall).await?;
        match machine.answer(answer).map_err(SubmitError::Violation)? {
            Step::Send(files) => {
                for entry in files {
                    let read = tokio::task::spawn_blocking(move || read(&entry)).await;
                    let bytes = read.ok().flatten().ok_or(SubmitError::Changed)?;
                    sender.send_blob(&bytes).await?;
                }
            }
            Step::Refused(refusal) => return Err(SubmitError::Failed(Failure::Refused(refusal))),
            Step::Receive(outcome) => {
                let mut bytes = Vec::with_capacity(outcome.outputs.len());
                for output in &outcome.outputs {
                    bytes.push(receiver.receive_blob(output.size, output.digest).await?);
                }
                return Ok((*outcome, bytes));
            }
        }
    }
}
