//! One job from the offer's acceptance to its outcome (DO).

use super::collect::{self, CollectError, Known};
use super::policy::{self, Host};
use super::strict::{self, StrictError};
use super::toolchains::{ToolchainError, Toolchains};
use crate::sandbox::policy::{Limits, Without};
use crate::sandbox::{self, Capable, Enforced, NoSandbox, SandboxError, Step};
use crate::store::{blobs::Blobs, layout};
use mesh_proto::closure::Entry;
use mesh_proto::job::{Exit, Job, JobError, Outcome, Output, Refusal, Text, Usage};
use mesh_proto::toolchain::{Fingerprint, Manifest};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// One job, with all that is needed to run it.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// What to run.
    pub job: &'a Job,
    /// Its closure.
    pub entries: &'a [Entry],
    /// Its toolchain.
    pub toolchain: &'a Manifest,
    /// The toolchain's fingerprint.
    pub fingerprint: &'a Fingerprint,
    /// Which of this machine's slots it has: no other job that runs now has the same.
    pub slot: u16,
}

/// A job that ran.
#[derive(Debug)]
pub struct Ran {
    /// Its end.
    pub outcome: Outcome,
    /// The bytes of the outcome's outputs, in their order, each at its beginning.
    pub files: Vec<File>,
    /// What held it.
    pub enforced: Enforced,
}

/// Why a job did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The job breaks a rule of the protocol.
    #[error("the job is malformed: {0}")]
    Job(#[from] JobError),
    /// Its closure does.
    #[error("the closure is malformed: {0}")]
    Closure(#[from] StrictError),
    /// An input is not here.
    #[error("an input is missing")]
    Missing,
    /// The toolchain's tree is not there.
    #[error("the toolchain cannot be used: {0}")]
    Toolchain(#[from] ToolchainError),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The outputs.
    #[error("the outputs cannot be collected: {0}")]
    Collect(#[from] CollectError),
}

impl RunError {
    /// What the client is told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Job(_) | Self::Closure(_) => Refusal::Malformed,
            Self::Missing => Refusal::Missing,
            Self::Toolchain(ToolchainError::Disk { error, .. }) if is_full(error) => Refusal::Disk,
            Self::Toolchain(_) => Refusal::Toolchain,
            Self::Sandbox(SandboxError::Setup { step: Step::Source, .. }) => Refusal::Missing,
            Self::Sandbox(SandboxError::Setup { step: Step::Cwd, .. }) => Refusal::Malformed,
            Self::Sandbox(SandboxError::Setup { step: Step::Place, error, .. }) if is_full(error) => Refusal::Limit,
            Self::Sandbox(SandboxError::Wall | SandboxError::Text | SandboxError::Lost) => Refusal::Limit,
            Self::Sandbox(_) => Refusal::Sandbox,
            Self::Collect(_) => Refusal::Collect,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Cancels a job by being dropped.
#[derive(Debug)]
pub struct Cancel {
    _write_end: OwnedFd,
}

/// Where a job hears of its cancellation.
#[derive(Debug)]
pub struct Cancelled {
    read_end: OwnedFd,
}

/// A way to cancel one job: it is cancelled when the first of the two is dropped.
///
/// # Errors
/// If this process has no descriptor left.
pub fn cancellation() -> io::Result<(Cancel, Cancelled)> {
    let (read_end, write_end) = io::pipe()?;
    Ok((Cancel { _write_end: write_end.into() }, Cancelled { read_end: read_end.into() }))
}

/// Runs foreign jobs on this machine.
#[derive(Debug)]
pub struct Worker {
    mesh: PathBuf,
    toolchains: Toolchains,
    capable: Capable,
    limits: Limits,
    /// Barriers that a test leaves out.
    without: Without,
}

impl Worker {
    /// A worker that re-executes this mesh (normally `/proc/self/exe`) and keeps toolchains below this directory, after
    /// it has tried whether this machine can isolate a job.
    ///
    /// # Errors
    /// Why it cannot: then the machine must not serve.
    pub fn new(mesh: &Path, cache: &Path) -> Result<Self, NoSandbox> {
        let toolchains = Toolchains::open(cache).map_err(|error| NoSandbox { why: error.to_string() })?;
        let capable = sandbox::probe(mesh, &cache.join(layout::TOOLCHAINS))?;
        let (mesh, limits, without) = (mesh.to_owned(), Limits::DEFAULT, Without::default());
        Ok(Self { mesh, toolchains, capable, limits, without })
    }

    /// How this machine isolates its jobs.
    #[must_use]
    pub fn capable(&self) -> &Capable {
        &self.capable
    }

    /// The same with other limits for each job; its wall time is the job's own, if that is shorter.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same without some barriers. For tests only, which show by it what each barrier is good for.
    #[doc(hidden)]
    #[must_use]
    pub fn without(self, without: Without) -> Self {
        Self { without, ..self }
    }

    /// Makes the toolchain's tree ready, so that the first job need not wait for it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn prepare(&self, toolchain: &Manifest, fingerprint: &Fingerprint) -> Result<(), ToolchainError> {
        self.toolchains.tree(toolchain, fingerprint).map(drop)
    }

    /// Runs one job to its end on this thread, which does nothing else meanwhile.
    ///
    /// # Errors
    /// Why it did not end by itself or its outputs could not be had, for this machine's own log;
    /// [`RunError::refusal`] is what the client is told. No process of the job is left then.
    pub fn run(&self, order: Order<'_>, blobs: &Blobs, cancelled: &Cancelled) -> Result<Ran, RunError> {
        let started = Instant::now();
        order.job.check()?;
        let root = strict::root(order.job, order.entries, order.toolchain)?;
        let digests = strict::digests(order.entries);
        let _pin = blobs.pin(digests.iter().copied());
        if !digests.iter().all(|digest| blobs.has(digest)) {
            return Err(RunError::Missing);
        }
        let base = self.toolchains.tree(order.toolchain, order.fingerprint)?;
        let host = Host { base: &base, blobs: blobs.folder(), identities: self.capable.identities };
        let policy = policy::policy(order, &root, host, self.limits, self.without);
        let finished = sandbox::run(&self.mesh, &policy, cancelled.read_end.as_fd())?;
        let ended = Instant::now();
        let (outputs, temps) = (&root.output_dirs, &root.temp_dirs);
        let known = Known::new(order.entries, order.toolchain, outputs, temps, finished.enforced.overlay);
        let exit = match finished.exit {
            sandbox::Exit::Code(code) => Exit::Code(code),
            sandbox::Exit::Signal(signal) => Exit::Signal(signal),
        };
        let made = match collect::collect(finished.layer.as_fd(), &known) {
            // A compiler that fails removes what it has begun, and what lay there before. The client compiles the unit
            // again by itself then, so nothing needs to come back; a refusal would make it ask another machine first.
            Err(_) if exit != Exit::Code(0) => Vec::new(),
            other => other?,
        };
        let (outputs, files): (Vec<Output>, Vec<File>) = made.into_iter().unzip();
        let cost = finished.cost;
        let usage = Usage {
            user_us: cost.user_us,
            system_us: cost.system_us,
            peak_kib: cost.peak_kib,
            stage_us: micros(ended - started).saturating_sub(cost.run_us),
            run_us: cost.run_us,
            collect_us: micros(ended.elapsed()),
        };
        let text = finished.text.into_iter().map(|chunk| Text { is_stderr: chunk.is_stderr, bytes: chunk.bytes });
        let outcome = Outcome { exit, text: text.collect(), outputs, usage };
        Ok(Ran { outcome, files, enforced: finished.enforced })
    }
}

/// A job that owns all it needs, to be run beside other work.
#[derive(Debug)]
pub struct OwnedOrder {
    /// What to run.
    pub job: Job,
    /// Its closure.
    pub entries: Vec<Entry>,
    /// Its toolchain.
    pub toolchain: Arc<Manifest>,
    /// The toolchain's fingerprint.
    pub fingerprint: Fingerprint,
    /// Its slot.
    pub slot: u16,
}

/// Runs a job on a thread of tokio's blocking pool. Dropping the future cancels the job: its processes are killed,
/// though that is not waited for.
///
/// # Errors
/// As [`Worker::run`], as the client is told; the log (debug) has the rest.
pub async fn run(worker: Arc<Worker>, order: OwnedOrder, blobs: Arc<Blobs>) -> Result<Ran, Refusal> {
    let (cancel, cancelled) = cancellation().map_err(|_| Refusal::Sandbox)?;
    let ran = tokio::task::spawn_blocking(move || {
        let OwnedOrder { job, entries, toolchain, fingerprint, slot } = &order;
        let order = Order { job, entries, toolchain, fingerprint, slot: *slot };
        worker.run(order, &blobs, &cancelled).map_err(|error| {
            tracing::debug!(%error, "a job was not run");
            error.refusal()
        })
    });
    let result = ran.await.unwrap_or(Err(Refusal::Sandbox));
    drop(cancel);
    result
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
