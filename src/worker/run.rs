//! One job from the offer's acceptance to its outcome (DO).

use super::collect::{self, CollectError, Known};
use super::strict::{self, Root, StrictError};
use super::toolchains::{ToolchainError, Toolchains};
use crate::sandbox::policy::{Identity, Limits, Policy, Without};
use crate::sandbox::{self, Enforced, NoSandbox, SandboxError, Step};
use crate::store::blobs::Blobs;
use mesh_proto::closure::Entry;
use mesh_proto::job::{Exit, Job, JobError, Outcome, Output, Refusal, Text, Usage};
use mesh_proto::limits;
use mesh_proto::path::AbsPath;
use mesh_proto::toolchain::{Fingerprint, Manifest};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Room for a job's own files beyond its inputs and outputs: temporary ones, and what a page rounds up, bytes.
const SPARE_BYTES: u64 = 1 << 30;
/// Files, links and directories beyond those of the closure.
const SPARE_NODES: u64 = 16 << 10;

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
        sandbox::probe(mesh, &cache.join(crate::store::layout::TOOLCHAINS))?;
        Ok(Self { mesh: mesh.to_owned(), toolchains, limits: Limits::DEFAULT, without: Without::default() })
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
        let policy = self.policy(order, &root, &base, blobs);
        let finished = sandbox::run(&self.mesh, &policy, cancelled.read_end.as_fd())?;
        let ended = Instant::now();
        let (outputs, temps) = (&root.output_dirs, &root.temp_dirs);
        let known = Known::new(order.entries, order.toolchain, outputs, temps, finished.enforced.overlay);
        let (outputs, files): (Vec<Output>, Vec<File>) =
            collect::collect(finished.layer.as_fd(), &known)?.into_iter().unzip();
        let cost = finished.cost;
        let usage = Usage {
            user_us: cost.user_us,
            system_us: cost.system_us,
            peak_kib: cost.peak_kib,
            stage_us: micros(ended - started).saturating_sub(cost.run_us),
            run_us: cost.run_us,
            collect_us: micros(ended.elapsed()),
        };
        let exit = match finished.exit {
            sandbox::Exit::Code(code) => Exit::Code(code),
            sandbox::Exit::Signal(signal) => Exit::Signal(signal),
        };
        let text = finished.text.into_iter().map(|chunk| Text { is_stderr: chunk.is_stderr, bytes: chunk.bytes });
        let outcome = Outcome { exit, text: text.collect(), outputs, usage };
        Ok(Ran { outcome, files, enforced: finished.enforced })
    }

    /// Translates a job into what the sandbox understands.
    fn policy(&self, order: Order<'_>, root: &Root, base: &Path, blobs: &Blobs) -> Policy {
        let job = order.job;
        let bytes = |path: &AbsPath| path.as_bytes().to_vec();
        let limits = Limits {
            wall_ms: self.limits.wall_ms.min(job.wall_ms_max).min(limits::JOB_WALL_MS_MAX),
            tree_bytes: self.limits.tree_bytes.min(root.bytes + limits::JOB_OUTPUT_BYTES_MAX + SPARE_BYTES),
            tree_nodes: self.limits.tree_nodes.max(order.entries.len() as u64 * 2 + SPARE_NODES),
            ..self.limits
        };
        Policy {
            tree: root.tree.clone(),
            sources: blobs.folder().as_os_str().as_bytes().to_vec(),
            base: base.as_os_str().as_bytes().to_vec(),
            program: bytes(&order.toolchain.driver),
            argv: job.argv.clone(),
            env: job.env.clone(),
            cwd: job.cwd.clone(),
            umask: job.umask,
            writable: root.output_dirs.union(&root.temp_dirs).map(bytes).collect(),
            identity: Identity::of_slot(order.slot),
            limits,
            merged_output: job.merged_output,
            terminal: job.terminal.map(|terminal| (terminal.columns, terminal.rows)),
            without: self.without,
        }
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

/// Runs a job on a thread of tokio's blocking pool. Dropping the future cancels the job: its processes are killed, though
/// that is not waited for.
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
