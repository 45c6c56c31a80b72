//! The trees that this machine keeps for one client, each with the process that holds it (DO).
//!
//! They belong to one connection, so two clients never share one. At any time one is current; others end with their last
//! jobs. [`super::mirror`] decides everything but what depends on processes: that one could not be started, or has died,
//! after which jobs have roots of their own for a while.

use super::collect::There;
use super::mirror::{MIRROR_BYTES_MAX, MIRROR_NODES_MAX, Mirror, Numbers, Run, Tools, Verdict, Why};
use super::run::{Closure, Order};
use crate::sandbox::policy::{Identity, Mould, Policy, Update, Without};
use crate::sandbox::{Begun, Finished, Groups, SandboxError, Step, Template};
use crate::store::blobs::{Blobs, Pin};
use mesh_proto::closure::Node;
use mesh_proto::digest::Digest;
use mesh_proto::path::AbsPath;
use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Trees of one client at once, with those that only wait for the end of their jobs.
const MIRRORS_MAX: usize = 3;
/// Room in a tree's file system beyond what its decisions count: pages are rounded up, bytes.
const SPARE_BYTES: u64 = 1 << 30;
/// How long a tree is kept without a job, milliseconds: it is memory of the owner's.
const IDLE_MS: u64 = 10 * 60 * 1000;
/// How long jobs have roots of their own after a tree has failed, at first; twice as long each time.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// And at most.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Why a job did not run in a mirror.
#[derive(Debug, thiserror::Error)]
pub enum NotMirrored {
    /// The compiler cannot be made to say what it read.
    #[error("the compiler would not say what it read")]
    NoList,
    /// It cannot become what the job needs.
    #[error("{0}")]
    Decided(#[from] Why),
    /// There are as many as may be, and none of them will do.
    #[error("there are too many mirrors of this client")]
    TooMany,
    /// One failed a moment ago.
    #[error("the last mirror failed a moment ago")]
    Waiting,
    /// The job did not come to an end by itself.
    #[error("{0}")]
    Ended(#[from] SandboxError),
    /// It read what is not in its closure, or did not say what it read.
    #[error("it read what is not in its closure")]
    Missed,
}

/// What trees are made from.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The program to re-execute.
    pub mesh: &'a Path,
    /// Where the content is.
    pub blobs: &'a Blobs,
    /// Where the toolchains' trees are.
    pub bases: &'a Path,
    /// Who the jobs are.
    pub identity: Identity,
    /// Barriers left out.
    pub without: Without,
    /// Where jobs have control groups of their own.
    pub groups: Option<&'a Groups>,
}

/// The trees of one client.
#[derive(Debug, Default)]
pub struct Mirrors {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// All that was ever taken back.
    gone: Numbers,
    /// The current one is the last, if it is not given up.
    live: Vec<Live>,
    next_epoch: u64,
    /// Since a job last ran to its end in one.
    failures: u32,
    has_warned: bool,
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Live {
    epoch: u64,
    template: Arc<Template>,
    mirror: Mirror,
    given_up: bool,
}

impl Mirrors {
    /// These numbers are no longer true.
    pub fn gone(&self, numbers: &[u32]) {
        if numbers.is_empty() {
            return;
        }
        let mut state = self.state();
        numbers.iter().for_each(|number| state.gone.add(*number));
        state.live.iter_mut().filter(|live| !live.given_up).for_each(|live| live.mirror.gone(numbers));
    }

    /// How many processes hold trees now.
    #[must_use]
    pub fn count(&self) -> usize {
        let mut state = self.state();
        state.sweep(Instant::now());
        state.live.len()
    }

    /// Kills the processes that hold trees. For tests only, which see by it what follows.
    #[doc(hidden)]
    pub fn kill_all(&self) {
        self.state().live.iter().for_each(|live| live.template.kill());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a job in the current tree, with the policy that is made of the directories in which it may write.
    ///
    /// # Errors
    /// Why it cannot run in one.
    pub(super) fn begin<'a>(
        &'a self,
        order: Order<'a>,
        tools: &'a Arc<Tools>,
        ground: &Ground<'a>,
        mut policy: impl FnMut(&BTreeSet<AbsPath>, &BTreeSet<AbsPath>) -> Policy,
    ) -> Result<Mirrored<'a>, NotMirrored> {
        let mut pins = Vec::new();
        let mut keep = |digest: &Digest| {
            pins.push(ground.blobs.pin([*digest]));
            ground.blobs.has(digest)
        };
        let (epoch, run, begun) = self.state().begin(order, tools, ground, &mut keep, &mut policy)?;
        let Run { job, output_dirs, temp_dirs, .. } = run;
        let (closure, begun) = (order.closure, Some(begun));
        Ok(Mirrored { mirrors: self, epoch, job, closure, tools, output_dirs, temp_dirs, begun, _pins: pins })
    }
}

impl State {
    fn begin(
        &mut self,
        order: Order<'_>,
        tools: &Arc<Tools>,
        ground: &Ground<'_>,
        keep: &mut dyn FnMut(&Digest) -> bool,
        policy: &mut dyn FnMut(&BTreeSet<AbsPath>, &BTreeSet<AbsPath>) -> Policy,
    ) -> Result<(u64, Run, Begun), NotMirrored> {
        let now = Instant::now();
        self.sweep(now);
        if self.live.len() < MIRRORS_MAX
            && let Some(live) = self.live.last_mut().filter(|live| live.mirror.is_contended())
        {
            live.given_up = true;
        }
        // The second time in a fresh one.
        for _ in 0..2 {
            let at = self.current(ground, now)?;
            let Self { live, gone, .. } = self;
            let live = &mut live[at];
            match live.mirror.admit(order.job, order.closure, gone, (order.fingerprint, tools), keep) {
                Verdict::Run(run) => {
                    let policy = policy(&run.output_dirs, &run.temp_dirs);
                    let begun = live
                        .tell(&run.update)
                        .and_then(|()| live.template.begin(&policy, super::run::group(ground.groups, &policy)));
                    let epoch = live.epoch;
                    return match begun {
                        Ok(begun) => Ok((epoch, run, begun)),
                        Err(error) => {
                            live.mirror.ended(run.job);
                            self.failed(epoch, &error, now);
                            Err(error.into())
                        }
                    };
                }
                Verdict::Strict(why, update) => {
                    if let Err(error) = live.tell(&update) {
                        let epoch = live.epoch;
                        self.failed(epoch, &error, now);
                    }
                    return Err(why.into());
                }
                Verdict::Fresh(why) => {
                    tracing::debug!(%why, "a mirror is given up for a fresh one");
                    live.given_up = true;
                    self.sweep(now);
                }
            }
        }
        Err(NotMirrored::TooMany)
    }

    /// Where the current one is; made now if there is none.
    fn current(&mut self, ground: &Ground<'_>, now: Instant) -> Result<usize, NotMirrored> {
        if self.live.last().is_some_and(|live| !live.given_up) {
            return Ok(self.live.len() - 1);
        }
        if self.live.len() >= MIRRORS_MAX {
            return Err(NotMirrored::TooMany);
        }
        if self.retry_at.is_some_and(|at| now < at) {
            return Err(NotMirrored::Waiting);
        }
        let mould = Mould {
            sources: ground.blobs.folder().as_os_str().as_bytes().to_vec(),
            bases: ground.bases.as_os_str().as_bytes().to_vec(),
            identity: ground.identity,
            tree_bytes: MIRROR_BYTES_MAX + SPARE_BYTES,
            tree_nodes: MIRROR_NODES_MAX as u64 * 2,
            idle_ms: IDLE_MS,
            without: ground.without,
        };
        let template = Template::start(ground.mesh, &mould).inspect_err(|error| self.back_off(error, now))?;
        let (epoch, mirror) = (self.next_epoch, Mirror::default());
        self.next_epoch += 1;
        self.live.push(Live { epoch, template, mirror, given_up: false });
        Ok(self.live.len() - 1)
    }

    /// Lets go of those that have died, and of those that were given up and have no jobs left.
    fn sweep(&mut self, now: Instant) {
        if self.live.iter().any(|live| live.template.has_died() && !live.given_up) {
            self.back_off(&SandboxError::Lost, now);
        }
        let is_over = |live: &Live| live.template.has_ended() || (live.given_up && live.mirror.is_idle());
        self.live.retain(|live| !is_over(live));
    }

    /// A job in this one failed, or it could not be told of it.
    fn failed(&mut self, epoch: u64, error: &SandboxError, now: Instant) {
        let is_the_jobs = matches!(
            error,
            // What killed it may have killed the tree's process too: that is seen before the next job.
            SandboxError::Cancelled
                | SandboxError::Wall
                | SandboxError::Text
                | SandboxError::Lost
                | SandboxError::Memory
                | SandboxError::Setup { step: Step::Cwd | Step::Exec, .. }
        );
        let live = self.live.iter_mut().find(|live| live.epoch == epoch && !live.given_up);
        if let Some(live) = live.filter(|_| !is_the_jobs) {
            live.given_up = true;
            self.back_off(error, now);
        }
    }

    fn back_off(&mut self, error: &SandboxError, now: Instant) {
        // Its path would be the client's.
        let step = if let SandboxError::Setup { step, .. } = error { step.to_string() } else { error.to_string() };
        if self.has_warned {
            tracing::debug!("a mirror of a client failed again: {step}");
        } else {
            tracing::warn!("a mirror of a client failed ({step}); its jobs have roots of their own for a while");
        }
        self.has_warned = true;
        let wait = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + wait);
    }
}

impl Live {
    fn tell(&self, update: &Update) -> Result<(), SandboxError> {
        if update.is_empty() { Ok(()) } else { self.template.update(update) }
    }
}

/// A job in a mirror, from its start until what it made has been collected: nothing that it reads changes meanwhile.
pub(super) struct Mirrored<'a> {
    mirrors: &'a Mirrors,
    epoch: u64,
    job: u64,
    closure: &'a Closure,
    tools: &'a Tools,
    output_dirs: BTreeSet<AbsPath>,
    temp_dirs: BTreeSet<AbsPath>,
    begun: Option<Begun>,
    /// What is being placed for it. It has been when the job has ended.
    _pins: Vec<Pin<'a>>,
}

impl Mirrored<'_> {
    /// Waits for its end.
    pub(super) fn finish(&mut self, cancelled: BorrowedFd<'_>) -> Result<Finished, SandboxError> {
        let finished = self.begun.take().map_or(Err(SandboxError::Lost), |begun| begun.finish(cancelled));
        let mut state = self.mirrors.state();
        match &finished {
            Ok(_) => state.failures = 0,
            Err(error) => state.failed(self.epoch, error, Instant::now()),
        }
        finished
    }

    /// Where it may write: what comes back, and what does not.
    pub(super) fn directories(&self) -> (&BTreeSet<AbsPath>, &BTreeSet<AbsPath>) {
        (&self.output_dirs, &self.temp_dirs)
    }

    /// Whether all these paths, seen from `cwd`, lead to files of its closure or its toolchain.
    pub(super) fn covers(&self, cwd: &[u8], paths: &[Vec<u8>]) -> bool {
        self.with(|mirror| paths.iter().all(|path| mirror.covers(self.closure, self.tools, cwd, path))) == Some(true)
    }

    fn with<T>(&self, ask: impl FnOnce(&Mirror) -> T) -> Option<T> {
        self.mirrors.state().live.iter().find(|live| live.epoch == self.epoch).map(|live| ask(&live.mirror))
    }
}

impl There for Mirrored<'_> {
    fn input(&self, path: &[u8]) -> Option<Node> {
        self.with(|mirror| mirror.node(path).cloned()).flatten()
    }

    fn part(&self, path: &[u8]) -> Option<Option<Vec<u8>>> {
        // A link's text is asked for where there is no overlay only.
        self.tools.has(path).then_some(None)
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        let leads_to = |dir: &AbsPath| {
            dir.as_bytes().strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        self.output_dirs.iter().chain(&self.temp_dirs).any(leads_to)
            || self.tools.is_directory(path)
            || self.with(|mirror| mirror.is_directory(path)) == Some(true)
    }

    fn inputs(&self) -> Vec<&[u8]> {
        // They are never in a layer above the mirror.
        Vec::new()
    }
}

impl Drop for Mirrored<'_> {
    fn drop(&mut self) {
        let mut state = self.mirrors.state();
        if let Some(live) = state.live.iter_mut().find(|live| live.epoch == self.epoch) {
            live.mirror.ended(self.job);
        }
        state.sweep(Instant::now());
    }
}
