//! Whether a compiler's files are all of it: samples compiled in a root with nothing else give what they give here (DO).
//!
//! A compiler is sent to other machines only if that was seen. The samples are planned and closed as units are, compiled
//! here by the user's own compiler, and then by the copy of its files in a root that holds these files and the closure
//! and nothing else; files and text must be the same byte for byte. What this machine's compiler refuses, what is never
//! distributed, and what two compiles here make differently is no evidence. Where this machine cannot isolate a job, a
//! machine that has the same compiler runs the samples as jobs like any other; if none has it, one is sent it for that,
//! and until the verdict nothing but samples goes there.
//!
//! This file keeps the verdicts and the queue; [`super::trial`] tries one compiler.
//!
//! The verdict is kept on disk by fingerprint, for the same version of mesh: a proof takes ten to thirty seconds of a
//! processor, with a low priority.

use super::{Agent, run, serve::Server, trial::Trial};
use crate::toolchain::Toolchain;
use mesh_proto::{frame, toolchain::Fingerprint};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// The file's name carries the version of its format.
const FILE: &str = "toolchain-proofs-v1";
/// Verdicts kept, and compilers that wait for theirs, number each.
const PROOFS_MAX: usize = 512;
/// The file, bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// A reason, bytes.
const REASON_BYTES_MAX: usize = 512;
/// How long after it could not be tried a compiler is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// Why there is no proof where none can be made.
const NOWHERE: &str = "this machine cannot isolate a compiler, and no connected one has it";
/// The priority of whatever a trial runs: it costs no more for being done sooner, and until then other machines wait for
/// the compiler. With the lowest it takes as long as the build that wants it.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// What is known of a compiler's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing yet.
    Pending,
    /// They are all that it needs.
    Proved,
    /// They are not, or that could not be seen; a sentence without its full stop.
    Unproved(String),
}

/// What is known of each compiler.
#[derive(Debug)]
pub(super) struct Proofs {
    cache: PathBuf,
    /// Mesh's own program, to isolate samples where this machine lends nothing.
    worker: PathBuf,
    /// What runs the samples there, made when it is wanted; nothing if this machine cannot.
    bench: OnceLock<Option<Arc<Server>>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    verdicts: HashMap<Fingerprint, Verdict>,
    waiting: VecDeque<Arc<Toolchain>>,
    /// Those that another machine was sent only to try them.
    lent_for_trial: HashSet<Fingerprint>,
    /// A thread is at work.
    is_working: bool,
}

#[derive(Debug, Clone)]
enum Verdict {
    Waiting,
    Kept(Result<(), Unwhole>),
    /// It could not be tried then.
    NotNow(String, Instant),
    /// This machine cannot isolate a compiler, and no other one has it.
    Nowhere,
}

/// What is on disk of one compiler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    fingerprint: Fingerprint,
    /// Mesh's own: another one may take other files for a compiler's.
    version: String,
    verdict: Result<(), Unwhole>,
}

/// What a compiler does with nothing but its own files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unwhole {
    pub(super) why: String,
    /// It succeeds and makes something else: no other machine can be trusted with it, not even one that has it.
    pub(super) is_silent: bool,
}

/// Why a trial is not a success.
#[derive(Debug)]
pub(super) enum Failure {
    /// The files are not enough, or not what decides the output.
    Differs(Unwhole),
    /// It could not be seen.
    NotNow(String),
    /// There is no machine that could see it.
    Nowhere,
}

impl Proofs {
    /// What an earlier agent found, below this cache directory. `worker` is mesh's own program.
    pub(super) fn open(cache: &Path, worker: &Path) -> Self {
        let mut state = State::default();
        for kept in read(&cache.join(FILE)).unwrap_or_default().into_iter().take(PROOFS_MAX) {
            if kept.version == env!("CARGO_PKG_VERSION") {
                state.verdicts.insert(kept.fingerprint, Verdict::Kept(kept.verdict));
            }
        }
        let (cache, worker) = (cache.to_owned(), worker.to_owned());
        Self { cache, worker, bench: OnceLock::new(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, fingerprint: &Fingerprint) -> Proof {
        self.of_at(fingerprint, Instant::now())
    }

    fn of_at(&self, fingerprint: &Fingerprint, now: Instant) -> Proof {
        match self.state().verdicts.get(fingerprint) {
            None | Some(Verdict::Waiting) => Proof::Pending,
            Some(Verdict::NotNow(_, at)) if now >= *at + RETRY => Proof::Pending,
            Some(Verdict::Nowhere) => Proof::Unproved(NOWHERE.to_owned()),
            Some(Verdict::Kept(Ok(()))) => Proof::Proved,
            Some(Verdict::Kept(Err(Unwhole { why, .. })) | Verdict::NotNow(why, _)) => Proof::Unproved(why.clone()),
        }
    }

    /// Whether a compiler was seen to make something else with nothing but its own files, and not to say so.
    pub(super) fn is_unsafe(&self, fingerprint: &Fingerprint) -> bool {
        let state = self.state();
        let is_lent = state.lent_for_trial.contains(fingerprint);
        matches!(state.verdicts.get(fingerprint), Some(Verdict::Kept(Err(unwhole))) if unwhole.is_silent || is_lent)
    }

    /// Whether it is with another machine only to be tried, so that no unit may go there yet.
    pub(super) fn is_on_trial(&self, fingerprint: &Fingerprint) -> bool {
        let state = self.state();
        state.lent_for_trial.contains(fingerprint) && !matches!(state.verdicts.get(fingerprint), Some(Verdict::Kept(_)))
    }

    /// What runs samples on this machine although it lends nothing; blocking, the first time.
    pub(super) fn bench(&self) -> Option<Arc<Server>> {
        let made = self.bench.get_or_init(|| {
            let made = run::server(&self.worker, &self.cache, 1);
            made.inspect_err(|why| tracing::debug!(why, "no compiler can be tried here")).ok().map(Arc::new)
        });
        made.clone()
    }

    /// Whether a compiler is being tried or waits for that.
    pub(super) fn is_waiting(&self, fingerprint: &Fingerprint) -> bool {
        matches!(self.state().verdicts.get(fingerprint), Some(Verdict::Waiting))
    }

    /// Puts a compiler in the queue, unless it is there or its verdict is known; whether somebody must begin to work.
    /// `somewhere` says that a machine has it that may not have had it before.
    fn enqueue(&self, toolchain: &Arc<Toolchain>, now: Instant, somewhere: bool) -> bool {
        let mut state = self.state();
        if !state.is_due(&toolchain.fingerprint, now, somewhere) || state.waiting.len() >= PROOFS_MAX {
            return false;
        }
        state.verdicts.insert(toolchain.fingerprint, Verdict::Waiting);
        state.waiting.push_back(toolchain.clone());
        !std::mem::replace(&mut state.is_working, true)
    }

    /// The next compiler in the queue; nothing ends the work.
    fn next(&self) -> Option<Arc<Toolchain>> {
        let mut state = self.state();
        let next = state.waiting.pop_front();
        state.is_working = next.is_some();
        next
    }

    fn settle(&self, fingerprint: Fingerprint, tried: Result<(), Failure>) {
        let shortened = |mut why: String| {
            why.truncate(why.floor_char_boundary(REASON_BYTES_MAX));
            why
        };
        let verdict = match tried {
            Ok(()) => Verdict::Kept(Ok(())),
            Err(Failure::Differs(unwhole)) => {
                Verdict::Kept(Err(Unwhole { why: shortened(unwhole.why), is_silent: unwhole.is_silent }))
            }
            Err(Failure::NotNow(why)) => Verdict::NotNow(shortened(why), Instant::now()),
            Err(Failure::Nowhere) => Verdict::Nowhere,
        };
        let is_kept = matches!(verdict, Verdict::Kept(_));
        let mut state = self.state();
        if state.verdicts.len() >= PROOFS_MAX {
            // Compilers of long ago: whatever is still asked for is tried again.
            state.verdicts.retain(|_, verdict| matches!(verdict, Verdict::Waiting));
            state.lent_for_trial.clear();
        }
        state.verdicts.insert(fingerprint, verdict);
        let kept = is_kept.then(|| state.kept());
        drop(state);
        if let Some(kept) = kept
            && let Err(error) = write(&self.cache.join(FILE), &kept)
        {
            tracing::debug!(%error, "the proofs of compilers were not kept");
        }
    }
}

impl State {
    /// Whether a compiler is to be tried: it was not, or some time ago it could not be.
    fn is_due(&self, fingerprint: &Fingerprint, now: Instant, somewhere: bool) -> bool {
        match self.verdicts.get(fingerprint) {
            Some(Verdict::Waiting | Verdict::Kept(_)) => false,
            Some(Verdict::NotNow(_, at)) => now >= *at + RETRY,
            Some(Verdict::Nowhere) => somewhere,
            None => true,
        }
    }

    fn kept(&self) -> Vec<Kept> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let kept = |(fingerprint, verdict): (&Fingerprint, &Verdict)| match verdict {
            Verdict::Kept(verdict) => {
                Some(Kept { fingerprint: *fingerprint, version: version.clone(), verdict: verdict.clone() })
            }
            _ => None,
        };
        self.verdicts.iter().filter_map(kept).collect()
    }
}

fn read(path: &Path) -> io::Result<Vec<Kept>> {
    if fs::metadata(path)?.len() > (FILE_BYTES_MAX + frame::HEADER_BYTES) as u64 {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    match frame::parse(&fs::read(path)?, FILE_BYTES_MAX) {
        Ok(frame::Parsed::Frame { message, .. }) => Ok(message),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn write(path: &Path, kept: &[Kept]) -> io::Result<()> {
    let bytes = frame::encode(&kept, FILE_BYTES_MAX).map_err(io::Error::other)?;
    let beside = path.with_extension("new");
    fs::write(&beside, bytes)?;
    fs::rename(beside, path)
}

impl Agent {
    /// What is known of a compiler's files. Never blocks for long.
    pub(super) fn proof(&self, fingerprint: &Fingerprint) -> Proof {
        self.proofs.of(fingerprint)
    }

    /// Has a compiler tried in the background, one at a time, unless it was or is about to be.
    pub(super) fn prove(self: &Arc<Self>, toolchain: &Arc<Toolchain>) {
        let somewhere = !self.links.matching(&toolchain.fingerprint).is_empty();
        if !self.proofs.enqueue(toolchain, Instant::now(), somewhere) {
            return;
        }
        let (agent, runtime) = (self.clone(), Handle::current());
        // A thread of its own: its low priority passes to all that it starts, and would stay with a thread of the pool.
        let spawned = std::thread::Builder::new().name("prove".to_owned()).spawn(move || work(&agent, &runtime));
        if let Err(error) = spawned {
            tracing::debug!(%error, "no thread to try compilers");
            while let Some(toolchain) = self.proofs.next() {
                self.proofs.settle(toolchain.fingerprint, Err(Failure::NotNow(error.to_string())));
            }
        }
    }
}

impl Agent {
    /// Whether a compiler that no machine can try yet is to be sent to one that can; it may be sent to one alone.
    pub(super) fn lends_for_trial(&self, fingerprint: &Fingerprint) -> bool {
        let is_coming = |link: &Arc<super::link::Link>| link.shipments.is_coming(fingerprint) || link.has(fingerprint);
        let is_alone = !self.links.all().iter().any(is_coming);
        let mut state = self.proofs.state();
        let is_nowhere = matches!(state.verdicts.get(fingerprint), Some(Verdict::Nowhere));
        if is_nowhere && is_alone && state.lent_for_trial.len() < PROOFS_MAX {
            state.lent_for_trial.insert(*fingerprint);
            return true;
        }
        false
    }
}

/// Tries one compiler after the other until none waits.
fn work(agent: &Arc<Agent>, runtime: &Handle) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "compilers are tried with the usual priority");
    }
    while let Some(toolchain) = agent.proofs.next() {
        let tried = Trial::new(agent, runtime, &toolchain, &toolchain).and_then(|trial| trial.run());
        match &tried {
            Ok(()) => tracing::info!("{} may be sent to other machines", toolchain.label()),
            Err(Failure::Differs(unwhole)) => {
                tracing::warn!("{} is not sent to other machines: {}", toolchain.label(), unwhole.why);
            }
            Err(Failure::NotNow(why)) => tracing::info!("{} could not be tried: {why}", toolchain.label()),
            Err(Failure::Nowhere) => tracing::info!("{} could not be tried: {NOWHERE}", toolchain.label()),
        }
        agent.proofs.settle(toolchain.fingerprint, tried);
    }
}

/// Tries one compiler's samples with the files of another, which lacks something: for a test of what a trial sees.
///
/// # Errors
/// What it sees.
pub(super) fn try_with(agent: &Arc<Agent>, runtime: &Handle, own: &Toolchain, tried: &Toolchain) -> Result<(), String> {
    let result = Trial::new(agent, runtime, own, tried).and_then(|trial| trial.run());
    result.map_err(|failure| match failure {
        Failure::Differs(Unwhole { why, .. }) | Failure::NotNow(why) => why,
        Failure::Nowhere => NOWHERE.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::digest::Digest;

    fn open(cache: &tempfile::TempDir) -> Proofs {
        Proofs::open(cache.path(), Path::new("/nonexistent"))
    }

    fn fingerprint(name: &str) -> Fingerprint {
        Fingerprint(Digest::of(name.as_bytes()))
    }

    fn differs(why: &str) -> Result<(), Failure> {
        Err(Failure::Differs(Unwhole { why: why.to_owned(), is_silent: false }))
    }

    #[test]
    fn a_verdict_outlives_the_agent_and_what_could_not_be_tried_does_not() {
        let cache = tempfile::tempdir().expect("a directory");
        let proofs = open(&cache);
        assert_eq!(proofs.of(&fingerprint("a")), Proof::Pending);
        proofs.settle(fingerprint("a"), Ok(()));
        proofs.settle(fingerprint("b"), differs("x.o differs"));
        proofs.settle(fingerprint("c"), Err(Failure::NotNow("a file is changing".to_owned())));
        let unproved = |why: &str| Proof::Unproved(why.to_owned());
        assert_eq!(proofs.of(&fingerprint("c")), unproved("a file is changing"));
        let next = open(&cache);
        assert_eq!(next.of(&fingerprint("a")), Proof::Proved);
        assert_eq!(next.of(&fingerprint("b")), unproved("x.o differs"));
        assert_eq!(next.of(&fingerprint("c")), Proof::Pending);
        fs::write(cache.path().join(FILE), b"nonsense").expect("written");
        assert_eq!(open(&cache).of(&fingerprint("a")), Proof::Pending);
    }

    #[test]
    fn only_a_compiler_that_silently_makes_something_else_is_kept_from_all_machines() {
        let cache = tempfile::tempdir().expect("a directory");
        let proofs = open(&cache);
        proofs.settle(fingerprint("fails"), differs("it fails"));
        let silent = Unwhole { why: "x.o differs".to_owned(), is_silent: true };
        proofs.settle(fingerprint("silent"), Err(Failure::Differs(silent)));
        proofs.settle(fingerprint("not now"), Err(Failure::NotNow("a file is changing".to_owned())));
        proofs.settle(fingerprint("whole"), Ok(()));
        for proofs in [proofs, open(&cache)] {
            let found = ["fails", "silent", "not now", "whole", "unknown"].map(|n| proofs.is_unsafe(&fingerprint(n)));
            assert_eq!(found, [false, true, false, false, false]);
        }
    }

    #[test]
    fn what_nobody_could_try_is_tried_as_soon_as_somebody_can() {
        let cache = tempfile::tempdir().expect("a directory");
        let proofs = open(&cache);
        let a = fingerprint("a");
        let is_due = |now, somewhere| proofs.state().is_due(&a, now, somewhere);
        let now = Instant::now();
        assert!(is_due(now, false));
        proofs.settle(a, Err(Failure::Nowhere));
        assert_eq!(proofs.of(&a), Proof::Unproved(NOWHERE.to_owned()));
        assert!(!is_due(now + RETRY * 2, false) && is_due(now, true));
        proofs.settle(a, Err(Failure::NotNow("the agent ends".to_owned())));
        assert!(!is_due(now, true) && is_due(now + RETRY * 2, false));
        // Who asks whether it may be sent has it tried again then.
        assert_eq!(proofs.of_at(&a, now), Proof::Unproved("the agent ends".to_owned()));
        assert_eq!(proofs.of_at(&a, now + RETRY * 2), Proof::Pending);
        proofs.settle(a, Ok(()));
        assert!(!is_due(now + RETRY * 2, true));
    }

    #[test]
    fn what_was_sent_only_to_be_tried_is_used_for_nothing_else_before_the_verdict_and_after_a_bad_one() {
        let cache = tempfile::tempdir().expect("a directory");
        let proofs = open(&cache);
        let a = fingerprint("a");
        proofs.settle(a, Err(Failure::Nowhere));
        assert!(!proofs.is_on_trial(&a));
        proofs.state().lent_for_trial.insert(a);
        assert!(proofs.is_on_trial(&a) && !proofs.is_unsafe(&a));
        proofs.settle(a, Ok(()));
        assert!(!proofs.is_on_trial(&a) && !proofs.is_unsafe(&a));
        proofs.settle(a, differs("it fails"));
        assert!(!proofs.is_on_trial(&a) && proofs.is_unsafe(&a), "who has it has it from here");
    }

    #[test]
    fn another_version_of_mesh_tries_again() {
        let cache = tempfile::tempdir().expect("a directory");
        let kept =
            |version: &str| [Kept { fingerprint: fingerprint("a"), version: version.to_owned(), verdict: Ok(()) }];
        write(&cache.path().join(FILE), &kept("0.0.0-other")).expect("written");
        assert_eq!(open(&cache).of(&fingerprint("a")), Proof::Pending);
        write(&cache.path().join(FILE), &kept(env!("CARGO_PKG_VERSION"))).expect("written");
        assert_eq!(open(&cache).of(&fingerprint("a")), Proof::Proved);
    }

    #[test]
    fn verdicts_are_bounded_in_number_and_length() {
        let cache = tempfile::tempdir().expect("a directory");
        let proofs = open(&cache);
        for n in 0..=PROOFS_MAX {
            proofs.settle(fingerprint(&n.to_string()), differs(&"é".repeat(REASON_BYTES_MAX)));
        }
        let state = proofs.state();
        assert!(state.verdicts.len() <= PROOFS_MAX);
        assert!(state.kept().iter().all(|kept| kept.verdict.as_ref().is_err_and(|w| w.why.len() <= REASON_BYTES_MAX)));
    }
}
