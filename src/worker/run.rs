//! One job from the offer's acceptance to its outcome (DO).

use super::collect::{self, CollectError, Known, Placed};
use super::listing;
use super::mirror::Tools;
use super::mirrors::{Ground, Mirrors, NotMirrored};
use super::policy::{self, Stage};
use super::strict::{self, StrictError};
use super::toolchains::{ToolchainError, Toolchains};
use crate::compiler::invocation::Family;
use crate::env;
use crate::sandbox::policy::{Inputs, Limits, Policy, Priority, Without};
use crate::sandbox::{self, Capable, Enforced, Finished, Group, Groups, NoSandbox, SandboxError, Step};
use crate::store::{blobs::Blobs, layout};
use mesh_proto::closure::Entry;
use mesh_proto::job::{Exit, Job, JobError, Outcome, Output, Refusal, Text, Usage};
use mesh_proto::path::AbsPath;
use mesh_proto::toolchain::{Fingerprint, Manifest};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A closure with the numbers that its entries have on the client's connection, ascending.
pub type Closure = Arc<Vec<(u32, Arc<Entry>)>>;

/// Toolchains whose tables are kept.
const TABLES_MAX: usize = 256;

/// One job, with all that is needed to run it.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// What to run.
    pub job: &'a Job,
    /// Its closure.
    pub closure: &'a Closure,
    /// Its toolchain.
    pub toolchain: &'a Manifest,
    /// The toolchain's fingerprint.
    pub fingerprint: &'a Fingerprint,
    /// The toolchain's grammar of options.
    pub family: Family,
    /// Which of this machine's slots it has: no other job that runs now has the same.
    pub slot: u16,
    /// The trees that this machine keeps for the client.
    pub mirrors: Option<&'a Mirrors>,
    /// It is this machine's owner's, and gives way to nobody.
    pub is_own: bool,
}

/// Where a job ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In a root of its own.
    Strict,
    /// In a tree that is kept for the client.
    Mirror,
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
    /// Where it ran.
    pub form: Form,
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
            Self::Sandbox(SandboxError::Memory) => Refusal::Memory,
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
    /// Where jobs have control groups of their own.
    groups: Option<&'static Groups>,
    /// Barriers that a test leaves out.
    without: Without,
    /// No job runs in a mirror.
    only_strict: bool,
    /// What mirrors must know of each toolchain.
    tables: Mutex<HashMap<Fingerprint, Arc<Tools>>>,
    mirror_misses: AtomicU64,
    /// Jobs give way to everything else on this machine.
    is_polite: AtomicBool,
}

impl Worker {
    /// A worker that re-executes this mesh (normally `/proc/self/exe`) and keeps toolchains below this directory, after
    /// it has tried whether this machine can isolate a job.
    ///
    /// # Errors
    /// Why it cannot: then the machine must not serve.
    pub fn new(mesh: &Path, cache: &Path) -> Result<Self, NoSandbox> {
        let toolchains = Toolchains::open(cache).map_err(|error| NoSandbox::before(error.to_string()))?;
        // Before this process has started another.
        let groups = Groups::take();
        if let Err(why) = &groups {
            tracing::debug!(%why, "jobs have no control groups");
        }
        let capable = sandbox::probe(mesh, &cache.join(layout::TOOLCHAINS))?;
        tracing::debug!(?capable, "jobs can be isolated");
        Ok(Self {
            mesh: mesh.to_owned(),
            toolchains,
            capable,
            limits: Limits::DEFAULT,
            groups: groups.ok(),
            without: Without::default(),
            only_strict: std::env::var_os(env::STRICT).is_some_and(|value| value == "1"),
            tables: Mutex::default(),
            mirror_misses: AtomicU64::new(0),
            is_polite: AtomicBool::new(true),
        })
    }

    /// How many jobs in mirrors read, or did not say that they did not read, what is not in their closure.
    #[must_use]
    pub fn mirror_misses(&self) -> u64 {
        self.mirror_misses.load(Ordering::Relaxed)
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

    /// The same for a toolchain whose files were sent.
    ///
    /// # Errors
    /// If it cannot be made: not all of its files are here.
    pub fn prepare_sent(&self, toolchain: &Manifest, fingerprint: &Fingerprint) -> Result<(), ToolchainError> {
        self.toolchains.tree_of_sent(toolchain, fingerprint).map(drop)
    }

    /// The toolchains' trees and files.
    #[must_use]
    pub fn toolchains(&self) -> &Toolchains {
        &self.toolchains
    }

    /// Runs one job to its end on this thread, which does nothing else meanwhile: in a mirror where that is possible and
    /// sure to be the same, else in a root of its own.
    ///
    /// # Errors
    /// Why it did not end by itself or its outputs could not be had, for this machine's own log;
    /// [`RunError::refusal`] is what the client is told. No process of the job is left then.
    pub fn run(&self, order: Order<'_>, blobs: &Blobs, cancelled: &Cancelled) -> Result<Ran, RunError> {
        let started = Instant::now();
        order.job.check()?;
        let base = self.toolchains.tree(order.toolchain, order.fingerprint)?;
        let may_mirror =
            self.capable.enforced.overlay && !self.without.overlay && !self.only_strict && !order.job.strict;
        if let Some(mirrors) = order.mirrors.filter(|_| may_mirror) {
            match self.run_in_mirror(order, mirrors, blobs, cancelled, started) {
                Ok(ran) => return Ok(ran),
                // Another form would end no other way.
                Err(NotMirrored::Ended(
                    error @ (SandboxError::Cancelled | SandboxError::Wall | SandboxError::Text | SandboxError::Memory),
                )) => return Err(error.into()),
                Err(NotMirrored::Missed) => {
                    self.mirror_misses.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!("a job read what is not in its closure; it runs once more with that alone");
                }
                Err(why) => tracing::debug!(%why, "a job runs in a root of its own"),
            }
        }
        self.run_strict(order, &base, blobs, cancelled, started)
    }

    /// Whether jobs that start from now on give way to everything else on this machine.
    pub fn set_polite(&self, polite: bool) {
        self.is_polite.store(polite, Ordering::Relaxed);
    }

    fn priority(&self, is_own: bool) -> Priority {
        if is_own {
            return Priority::Usual;
        }
        if self.is_polite.load(Ordering::Relaxed) { Priority::Idle } else { Priority::Nice }
    }

    fn run_strict(
        &self,
        order: Order<'_>,
        base: &Path,
        blobs: &Blobs,
        cancelled: &Cancelled,
        started: Instant,
    ) -> Result<Ran, RunError> {
        let entries: Vec<&Entry> = order.closure.iter().map(|(_, entry)| &**entry).collect();
        let strict::Root { tree, output_dirs, temp_dirs, bytes } = strict::root(order.job, &entries, order.toolchain)?;
        let digests = strict::digests(&entries);
        let _pin = blobs.pin(digests.iter().copied());
        if !digests.iter().all(|digest| blobs.has(digest)) {
            return Err(RunError::Missing);
        }
        let stage = Stage {
            inputs: Inputs::Own { tree, sources: blobs.folder().as_os_str().as_bytes().to_vec() },
            base: base.as_os_str().as_bytes().to_vec(),
            output_dirs: &output_dirs,
            temp_dirs: &temp_dirs,
            bytes,
            nodes: entries.len() as u64,
        };
        let mut policy = policy::policy(order, stage, self.capable.identities, self.limits, self.without);
        policy.priority = self.priority(order.is_own);
        let group = group(self.groups, &policy);
        let finished = sandbox::run_in(&self.mesh, &policy, group.as_ref(), cancelled.read_end.as_fd())?;
        let ended = Instant::now();
        let overlay = finished.enforced.overlay;
        let owner = finished.remains.as_ref().map(sandbox::Remains::owner);
        let there = Placed::new(&entries, order.toolchain, &output_dirs, &temp_dirs);
        let known = Known { there: &there, output_dirs: &output_dirs, temp_dirs: &temp_dirs, overlay, owner };
        outcome(finished, &known, Form::Strict, started, ended)
    }

    /// Runs a job in the client's tree, and holds what it says that it read against its closure.
    fn run_in_mirror(
        &self,
        order: Order<'_>,
        mirrors: &Mirrors,
        blobs: &Blobs,
        cancelled: &Cancelled,
        started: Instant,
    ) -> Result<Ran, NotMirrored> {
        let listing = listing::listing(order.job, order.family);
        if listing == listing::Listing::None {
            return Err(NotMirrored::NoList);
        }
        let tools = self.table(order);
        let ground = Ground {
            mesh: &self.mesh,
            blobs,
            bases: &self.toolchains.folder(),
            identity: self.capable.identities.of_slot(order.slot),
            without: self.without,
            groups: self.groups,
        };
        let mut list = None;
        let mut begun = mirrors.begin(order, &tools, &ground, |output_dirs, temp_dirs| {
            let stage = Stage {
                inputs: Inputs::Mirror,
                base: order.fingerprint.0.hex().into_bytes(),
                output_dirs,
                temp_dirs,
                bytes: 0,
                nodes: 0,
            };
            let mut policy = policy::policy(order, stage, self.capable.identities, self.limits, self.without);
            policy.priority = self.priority(order.is_own);
            let dir = temp_dirs.iter().find(|dir| !output_dirs.contains(dir));
            list = dir.and_then(|dir| dir.join(listing::LIST_NAME).ok());
            let path = list.as_ref().map(AbsPath::as_bytes);
            match (listing, path) {
                (listing::Listing::Appended, Some(path)) => policy.argv = listing::appended(&policy.argv, path),
                (listing::Listing::Printed, Some(path)) => policy.env.extend(listing::printed(path)),
                // There is no place for one: it will be missing.
                (_, _) => {}
            }
            policy
        })?;
        let finished = begun.finish(cancelled.read_end.as_fd())?;
        let ended = Instant::now();
        let layer = finished.layer.try_clone().map_err(|_| NotMirrored::Missed)?;
        let has_succeeded = finished.exit == sandbox::Exit::Code(0);
        let (output_dirs, temp_dirs) = begun.directories();
        let known = Known { there: &begun, output_dirs, temp_dirs, overlay: true, owner: None };
        let ran = outcome(finished, &known, Form::Mirror, started, ended).map_err(|_| NotMirrored::Missed)?;
        // What a compiler says that fails is said by the client's own.
        if has_succeeded {
            let text = match (listing, &list) {
                (listing::Listing::Nothing, _) => Some(Vec::new()),
                (listing::Listing::Own(name), _) => own_list(&ran, name),
                (_, Some(list)) => collect::read_beneath(layer.as_fd(), list, listing::LIST_BYTES_MAX),
                (_, None) => None,
            };
            let paths = text.and_then(|text| listing::paths(listing, &text)).ok_or(NotMirrored::Missed)?;
            if !begun.covers(&order.job.cwd, &paths) {
                return Err(NotMirrored::Missed);
            }
        }
        Ok(ran)
    }

    /// What a mirror must know of a job's toolchain.
    fn table(&self, order: Order<'_>) -> Arc<Tools> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tools) = tables.get(order.fingerprint) {
            return Arc::clone(tools);
        }
        if tables.len() >= TABLES_MAX {
            tables.clear();
        }
        let tools = Arc::new(Tools::new(order.toolchain));
        tables.insert(*order.fingerprint, Arc::clone(&tools));
        tools
    }
}

/// A control group for a job. Without one it has the limits of its processes still.
pub(super) fn group(groups: Option<&Groups>, policy: &Policy) -> Option<Arc<Group>> {
    match groups?.job(&policy.limits) {
        Ok(group) => Some(Arc::new(group)),
        Err(error) => {
            tracing::debug!(%error, "a job has no control group");
            None
        }
    }
}

/// The list among a job's outputs: the one of this name, or the only one that ends as lists do.
fn own_list(ran: &Ran, name: Option<&[u8]>) -> Option<Vec<u8>> {
    let is_list = |output: &Output| match name {
        Some(name) => output.path.name() == name,
        None => output.path.name().ends_with(b".d"),
    };
    let mut found = ran.outcome.outputs.iter().zip(&ran.files).filter(|(output, _)| is_list(output));
    let (Some((output, file)), None) = (found.next(), found.next()) else { return None };
    if output.size > listing::LIST_BYTES_MAX {
        return None;
    }
    let mut text = vec![0; usize::try_from(output.size).ok()?];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut text, 0).ok()?;
    Some(text)
}

/// Collects what a job that has ended made.
fn outcome(
    finished: Finished,
    known: &Known<'_>,
    form: Form,
    started: Instant,
    ended: Instant,
) -> Result<Ran, RunError> {
    if finished.text.len() > mesh_proto::limits::JOB_TEXT_PIECES_MAX {
        return Err(SandboxError::Text.into());
    }
    let exit = match finished.exit {
        sandbox::Exit::Code(code) => Exit::Code(code),
        sandbox::Exit::Signal(signal) => Exit::Signal(signal),
    };
    let made = match collect::collect(finished.layer.as_fd(), known) {
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
        wait_us: 0,
        run_us: cost.run_us,
        collect_us: micros(ended.elapsed()),
        crowd_percent: 100,
    };
    let text = finished.text.into_iter().map(|chunk| Text { is_stderr: chunk.is_stderr, bytes: chunk.bytes });
    let outcome = Outcome { exit, text: text.collect(), outputs, usage };
    Ok(Ran { outcome, files, enforced: finished.enforced, form })
}

/// A job that owns all it needs, to be run beside other work.
#[derive(Debug)]
pub struct OwnedOrder {
    /// What to run.
    pub job: Job,
    /// Its closure, by ascending number.
    pub closure: Vec<(u32, Arc<Entry>)>,
    /// Its toolchain.
    pub toolchain: Arc<Manifest>,
    /// The toolchain's fingerprint.
    pub fingerprint: Fingerprint,
    /// The toolchain's grammar of options.
    pub family: Family,
    /// Its slot.
    pub slot: u16,
    /// The trees that this machine keeps for the client.
    pub mirrors: Option<Arc<Mirrors>>,
    /// It is this machine's owner's, and gives way to nobody.
    pub is_own: bool,
}

/// Runs a job on a thread of tokio's blocking pool. Dropping the future cancels the job: its processes are killed,
/// though that is not waited for.
///
/// # Errors
/// As [`Worker::run`], as the client is told; the log (debug) has the rest.
pub async fn run(worker: Arc<Worker>, order: OwnedOrder, blobs: Arc<Blobs>) -> Result<Ran, Refusal> {
    let (cancel, cancelled) = cancellation().map_err(|_| Refusal::Sandbox)?;
    let ran = tokio::task::spawn_blocking(move || {
        let OwnedOrder { job, closure, toolchain, fingerprint, family, slot, mirrors, is_own } = order;
        let closure = Arc::new(closure);
        let order = Order {
            job: &job,
            closure: &closure,
            toolchain: &toolchain,
            fingerprint: &fingerprint,
            family,
            slot,
            mirrors: mirrors.as_deref(),
            is_own,
        };
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
