//! Whether a compiler's files are all of it: samples compiled in a root with nothing else give what they give here (DO).
//!
//! A compiler is sent to other machines only if that was seen. The samples are planned and closed as units are, compiled
//! here by the user's own compiler, and then by the copy of its files in a root that holds these files and the closure
//! and nothing else; files and text must be the same byte for byte. What this machine's compiler refuses, what is never
//! distributed, and what two compiles here make differently is no evidence. Where this machine cannot isolate a job, a
//! machine that has the same compiler runs the samples as jobs like any other.
//!
//! The verdict is kept on disk by fingerprint, for the same version of mesh: a proof takes ten to thirty seconds of a
//! processor, with the lowest priority.

use super::{
    Agent, compile,
    samples::{self, SOURCES, Sample},
    submit,
    wire::Request,
};
use crate::{
    toolchain::{self, Answer, Toolchain},
    worker::{
        run::{Closure, RunError},
        toolchains::ToolchainError,
    },
};
use mesh_proto::{
    closure::Node,
    digest::Digest,
    frame,
    job::{Exit, Outcome, Text},
    toolchain::Fingerprint,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// The file's name carries the version of its format.
const FILE: &str = "toolchain-proofs-v1";
/// The directory that the samples are compiled in.
const FOLDER: &str = "toolchain-samples";
/// Where in it the outputs go.
const OUTPUTS: &str = "out";
/// The object of every sample.
const OBJECT: &str = "out/sample.o";
/// Verdicts kept, and compilers that wait for theirs, number each.
const PROOFS_MAX: usize = 512;
/// The file, bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// A reason, bytes.
const REASON_BYTES_MAX: usize = 512;
/// How long after it could not be tried a compiler is tried again.
const RETRY: Duration = Duration::from_secs(600);
/// Why there is no proof where none can be made.
const NOWHERE: &str = "this machine cannot isolate a compiler, and no connected one has it";
/// The priority of whatever a trial runs.
#[cfg(target_os = "linux")]
const NICE: i32 = 19;

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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    verdicts: HashMap<Fingerprint, Verdict>,
    waiting: VecDeque<Arc<Toolchain>>,
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
struct Unwhole {
    why: String,
    /// It succeeds and makes something else: no other machine can be trusted with it, not even one that has it.
    is_silent: bool,
}

/// Why a trial is not a success.
enum Failure {
    /// The files are not enough, or not what decides the output.
    Differs(Unwhole),
    /// It could not be seen.
    NotNow(String),
}

impl Proofs {
    /// What an earlier agent found, below this cache directory.
    pub(super) fn open(cache: &Path) -> Self {
        let mut state = State::default();
        for kept in read(&cache.join(FILE)).unwrap_or_default().into_iter().take(PROOFS_MAX) {
            if kept.version == env!("CARGO_PKG_VERSION") {
                state.verdicts.insert(kept.fingerprint, Verdict::Kept(kept.verdict));
            }
        }
        Self { cache: cache.to_owned(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, fingerprint: &Fingerprint) -> Proof {
        match self.state().verdicts.get(fingerprint) {
            None | Some(Verdict::Waiting) => Proof::Pending,
            Some(Verdict::Nowhere) => Proof::Unproved(NOWHERE.to_owned()),
            Some(Verdict::Kept(Ok(()))) => Proof::Proved,
            Some(Verdict::Kept(Err(Unwhole { why, .. })) | Verdict::NotNow(why, _)) => Proof::Unproved(why.clone()),
        }
    }

    /// Whether a compiler was seen to make something else with nothing but its own files, and not to say so.
    pub(super) fn is_unsafe(&self, fingerprint: &Fingerprint) -> bool {
        matches!(self.state().verdicts.get(fingerprint), Some(Verdict::Kept(Err(unwhole))) if unwhole.is_silent)
    }

    /// Whether a compiler is being tried or waits for that.
    pub(super) fn is_waiting(&self, fingerprint: &Fingerprint) -> bool {
        matches!(self.state().verdicts.get(fingerprint), Some(Verdict::Waiting))
    }

    /// Puts a compiler in the queue, unless it is there or its verdict is known; whether somebody must begin to work.
    fn enqueue(&self, toolchain: &Arc<Toolchain>, now: Instant) -> bool {
        let mut state = self.state();
        if !state.is_due(&toolchain.fingerprint, now) || state.waiting.len() >= PROOFS_MAX {
            return false;
        }
        state.verdicts.insert(toolchain.fingerprint, Verdict::Waiting);
        state.waiting.push_back(toolchain.clone());
        !std::mem::replace(&mut state.is_working, true)
    }

    /// There is no machine that could try it now; it is tried as soon as there is one.
    fn nowhere(&self, fingerprint: Fingerprint) {
        let mut state = self.state();
        if state.verdicts.len() < PROOFS_MAX {
            state.verdicts.entry(fingerprint).or_insert_with(|| Verdict::Nowhere);
        }
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
        };
        let is_kept = matches!(verdict, Verdict::Kept(_));
        let mut state = self.state();
        if state.verdicts.len() >= PROOFS_MAX {
            // Compilers of long ago: whatever is still asked for is tried again.
            state.verdicts.retain(|_, verdict| matches!(verdict, Verdict::Waiting));
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
    fn is_due(&self, fingerprint: &Fingerprint, now: Instant) -> bool {
        match self.verdicts.get(fingerprint) {
            Some(Verdict::Waiting | Verdict::Kept(_)) => false,
            Some(Verdict::NotNow(_, at)) => now >= *at + RETRY,
            Some(Verdict::Nowhere) | None => true,
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
        if self.server.is_none() && self.links.matching(&toolchain.fingerprint).is_empty() {
            return self.proofs.nowhere(toolchain.fingerprint);
        }
        if !self.proofs.enqueue(toolchain, Instant::now()) {
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
    result.map_err(|(Failure::Differs(Unwhole { why, .. }) | Failure::NotNow(why))| why)
}

/// One compiler's trial.
struct Trial<'a> {
    agent: &'a Arc<Agent>,
    runtime: &'a Handle,
    /// The user's own compiler.
    own: &'a Toolchain,
    /// The files that are tried: its own, but in a test.
    tried: &'a Toolchain,
    /// Where the samples lie.
    dir: PathBuf,
    env: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Everything that a compile made and said.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    answer: Answer,
    /// By path.
    files: BTreeMap<Vec<u8>, Digest>,
}

impl Made {
    /// The first thing in which the other one is not the same.
    fn difference(&self, other: &Self) -> Option<String> {
        let shown = |text: &[u8]| {
            let line = text.split(|b| *b == b'\n').next().unwrap_or_default();
            String::from_utf8_lossy(line).into_owned()
        };
        if self.answer.success != other.answer.success {
            return Some(format!("it fails: {}", shown(&other.answer.stderr)));
        }
        if (&self.answer.stdout, &self.answer.stderr) != (&other.answer.stdout, &other.answer.stderr) {
            return Some(format!("it says other words: {}", shown(&other.answer.stderr)));
        }
        let names = || self.files.keys().chain(other.files.keys());
        let differs = names().find(|name| self.files.get(*name) != other.files.get(*name))?;
        let name = differs.rsplit(|b| *b == b'/').next().unwrap_or_default();
        Some(format!("{} differs", String::from_utf8_lossy(name)))
    }
}

impl<'a> Trial<'a> {
    fn new(
        agent: &'a Arc<Agent>,
        runtime: &'a Handle,
        own: &'a Toolchain,
        tried: &'a Toolchain,
    ) -> Result<Self, Failure> {
        let dir = agent.places.cache.join(FOLDER);
        let made = prepare(&dir).and_then(|()| fs::canonicalize(&dir));
        let dir = made.map_err(|error| Failure::NotNow(format!("its samples could not be written: {error}")))?;
        let Some(path_var) = agent.registry.path_var(&own.fingerprint) else {
            return Err(Failure::NotNow("the compiler has changed since".to_owned()));
        };
        let env = vec![(b"LC_ALL".to_vec(), b"C".to_vec()), (b"PATH".to_vec(), path_var)];
        Ok(Self { agent, runtime, own, tried, dir, env })
    }

    fn run(&self) -> Result<(), Failure> {
        let mut counted = 0;
        for sample in samples::samples(self.own.family, self.own.cxx_driver) {
            if self.agent.is_leaving() {
                return Err(Failure::NotNow("the agent ends".to_owned()));
            }
            match self.sample(&sample)? {
                Ok(()) => counted += 1,
                Err(why) if sample.is_needed => {
                    return Err(Failure::NotNow(format!("{} says nothing about it: {why}", sample.name())));
                }
                Err(why) => tracing::debug!("{} says nothing about {}: {why}", sample.name(), self.own.label()),
            }
        }
        tracing::debug!("{counted} samples of {} are the same", self.own.label());
        let _ = fs::remove_dir_all(&self.dir);
        Ok(())
    }

    /// Compiles one sample twice. The inner error says why that is no evidence.
    fn sample(&self, sample: &Sample) -> Result<Result<(), String>, Failure> {
        let here = self.compile_here(sample)?;
        if !here.answer.success {
            return Ok(Err("this machine's own compiler refuses it".to_owned()));
        }
        let planned = match compile::sample(self.agent, self.request(sample)?) {
            Ok(planned) => planned,
            Err(crate::reason::Reason::Changing) => return Err(Failure::NotNow("a file is changing".to_owned())),
            Err(reason) => return Ok(Err(reason.text().to_owned())),
        };
        if planned.toolchain.fingerprint != self.own.fingerprint {
            return Err(Failure::NotNow("the compiler has changed since".to_owned()));
        }
        let there = self.compile_there(planned)?;
        let Some(difference) = here.difference(&there) else { return Ok(Ok(())) };
        if self.compile_here(sample)? != here {
            return Ok(Err("it is never made the same twice".to_owned()));
        }
        let why = format!("with nothing but its own files, {}: {difference}", sample.name());
        Err(Failure::Differs(Unwhole { why, is_silent: there.answer.success }))
    }

    fn request(&self, sample: &Sample) -> Result<Request, Failure> {
        let id = |path: &Path| {
            let meta = fs::metadata(path).map_err(|error| Failure::NotNow(error.to_string()))?;
            Ok((meta.dev(), meta.ino()))
        };
        Ok(Request {
            program: self.own.driver.as_bytes().to_vec(),
            argv: self.argv(sample),
            cwd: self.dir.as_os_str().as_bytes().to_vec(),
            env: self.env.clone(),
            umask: 0o022,
            merged_output: false,
            terminal: None,
            seen: [id(Path::new("/"))?, id(&self.dir)?, id(self.own.program())?],
            force: true,
            prefer: None,
        })
    }

    fn argv(&self, sample: &Sample) -> Vec<Vec<u8>> {
        let mut argv = vec![self.own.driver.as_bytes().to_vec()];
        argv.extend(sample.arguments(OBJECT));
        argv
    }

    /// Runs this machine's own compiler, and takes away what it made.
    fn compile_here(&self, sample: &Sample) -> Result<Made, Failure> {
        let not_now = |error: &dyn std::fmt::Display| Failure::NotNow(error.to_string());
        let answer = toolchain::compile(self.own, &self.argv(sample), &self.dir, &self.env);
        let answer = answer.map_err(|error| not_now(&error))?;
        let files = self.take().map_err(|error| not_now(&error))?;
        Ok(Made { answer, files })
    }

    /// Every file beside the sources and among the outputs, which it removes.
    fn take(&self) -> io::Result<BTreeMap<Vec<u8>, Digest>> {
        let mut files = BTreeMap::new();
        for dir in [self.dir.clone(), self.dir.join(OUTPUTS)] {
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                let is_source = SOURCES.iter().any(|(name, _)| path.file_name() == Some(OsStr::new(name)));
                if !is_source && !path.is_dir() {
                    files.insert(path.as_os_str().as_bytes().to_vec(), Digest::of(&fs::read(&path)?));
                    fs::remove_file(path)?;
                }
            }
        }
        Ok(files)
    }

    /// Runs the sample with the compiler's files alone: here, or where this machine cannot isolate it, at a machine that
    /// has the same compiler.
    fn compile_there(&self, planned: compile::Sample) -> Result<Made, Failure> {
        let compile::Sample { mut job, closure, .. } = planned;
        job.toolchain = self.tried.fingerprint;
        let Some(server) = &self.agent.server else {
            return Ok(made(self.at_a_peer(&job, &closure)?));
        };
        for named in closure.entries.iter() {
            if let Node::File(file) = &named.entry.node {
                let path = Path::new(OsStr::from_bytes(named.entry.path.as_bytes()));
                let stored = fs::read(path).map_err(|e| e.to_string());
                let stored = stored.and_then(|b| server.blobs.put(&file.digest, &b).map_err(|e| e.to_string()));
                stored.map_err(Failure::NotNow)?;
            }
        }
        let numbered = (0u32..).zip(closure.entries.iter().map(|named| named.entry.clone())).collect();
        let ran = server.trial(self.runtime, self.tried, &job, &Closure::new(numbered));
        match ran {
            Ok(ran) => Ok(made(ran.outcome)),
            Err(RunError::Toolchain(ToolchainError::Malformed(error))) => {
                let why = format!("its files cannot be placed: {error}");
                Err(Failure::Differs(Unwhole { why, is_silent: false }))
            }
            Err(error) => Err(Failure::NotNow(error.to_string())),
        }
    }

    fn at_a_peer(&self, job: &mesh_proto::job::Job, closure: &crate::inputs::Closure) -> Result<Outcome, Failure> {
        let Some(link) = self.agent.links.matching(&self.tried.fingerprint).into_iter().next() else {
            return Err(Failure::NotNow(NOWHERE.to_owned()));
        };
        let submitted = self.runtime.block_on(submit::submit(self.agent, &link, job, closure));
        let (outcome, _) =
            submitted.map_err(|_| Failure::NotNow(format!("{} did not compile a sample", link.name())))?;
        Ok(outcome)
    }
}

/// Writes the sources into an empty directory.
fn prepare(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join(OUTPUTS))?;
    SOURCES.iter().try_for_each(|(name, text)| fs::write(dir.join(name), text))
}

/// What a job came to, as a compile here would have it.
fn made(outcome: Outcome) -> Made {
    let text = |is_stderr: bool| {
        let pieces = outcome.text.iter().filter(|text: &&Text| text.is_stderr == is_stderr);
        pieces.flat_map(|text| text.bytes.iter().copied()).collect()
    };
    let mut answer = Answer { success: outcome.exit == Exit::Code(0), stdout: text(false), stderr: text(true) };
    if let Exit::Signal(signal) = outcome.exit {
        answer.stderr = format!("signal {signal}").into_bytes();
    }
    let file = |output: &mesh_proto::job::Output| (output.path.as_bytes().to_vec(), output.digest);
    Made { answer, files: outcome.outputs.iter().map(file).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(name: &str) -> Fingerprint {
        Fingerprint(Digest::of(name.as_bytes()))
    }

    fn differs(why: &str) -> Result<(), Failure> {
        Err(Failure::Differs(Unwhole { why: why.to_owned(), is_silent: false }))
    }

    #[test]
    fn a_verdict_outlives_the_agent_and_what_could_not_be_tried_does_not() {
        let cache = tempfile::tempdir().expect("a directory");
        let proofs = Proofs::open(cache.path());
        assert_eq!(proofs.of(&fingerprint("a")), Proof::Pending);
        proofs.settle(fingerprint("a"), Ok(()));
        proofs.settle(fingerprint("b"), differs("x.o differs"));
        proofs.settle(fingerprint("c"), Err(Failure::NotNow("a file is changing".to_owned())));
        let unproved = |why: &str| Proof::Unproved(why.to_owned());
        assert_eq!(proofs.of(&fingerprint("c")), unproved("a file is changing"));
        let next = Proofs::open(cache.path());
        assert_eq!(next.of(&fingerprint("a")), Proof::Proved);
        assert_eq!(next.of(&fingerprint("b")), unproved("x.o differs"));
        assert_eq!(next.of(&fingerprint("c")), Proof::Pending);
        fs::write(cache.path().join(FILE), b"nonsense").expect("written");
        assert_eq!(Proofs::open(cache.path()).of(&fingerprint("a")), Proof::Pending);
    }

    #[test]
    fn only_a_compiler_that_silently_makes_something_else_is_kept_from_all_machines() {
        let cache = tempfile::tempdir().expect("a directory");
        let proofs = Proofs::open(cache.path());
        proofs.settle(fingerprint("fails"), differs("it fails"));
        let silent = Unwhole { why: "x.o differs".to_owned(), is_silent: true };
        proofs.settle(fingerprint("silent"), Err(Failure::Differs(silent)));
        proofs.settle(fingerprint("not now"), Err(Failure::NotNow("a file is changing".to_owned())));
        proofs.settle(fingerprint("whole"), Ok(()));
        for proofs in [proofs, Proofs::open(cache.path())] {
            let found = ["fails", "silent", "not now", "whole", "unknown"].map(|n| proofs.is_unsafe(&fingerprint(n)));
            assert_eq!(found, [false, true, false, false, false]);
        }
    }

    #[test]
    fn what_nobody_could_try_is_tried_as_soon_as_somebody_can() {
        let cache = tempfile::tempdir().expect("a directory");
        let proofs = Proofs::open(cache.path());
        proofs.nowhere(fingerprint("a"));
        assert_eq!(proofs.of(&fingerprint("a")), Proof::Unproved(NOWHERE.to_owned()));
        let now = Instant::now();
        assert!(proofs.state().is_due(&fingerprint("a"), now));
        proofs.settle(fingerprint("a"), Err(Failure::NotNow("the agent ends".to_owned())));
        assert!(
            !proofs.state().is_due(&fingerprint("a"), now) && proofs.state().is_due(&fingerprint("a"), now + RETRY * 2)
        );
        proofs.nowhere(fingerprint("a"));
        assert_eq!(proofs.of(&fingerprint("a")), Proof::Unproved("the agent ends".to_owned()));
        proofs.settle(fingerprint("a"), Ok(()));
        assert!(!proofs.state().is_due(&fingerprint("a"), now + RETRY * 2));
    }

    #[test]
    fn another_version_of_mesh_tries_again() {
        let cache = tempfile::tempdir().expect("a directory");
        let kept =
            |version: &str| [Kept { fingerprint: fingerprint("a"), version: version.to_owned(), verdict: Ok(()) }];
        write(&cache.path().join(FILE), &kept("0.0.0-other")).expect("written");
        assert_eq!(Proofs::open(cache.path()).of(&fingerprint("a")), Proof::Pending);
        write(&cache.path().join(FILE), &kept(env!("CARGO_PKG_VERSION"))).expect("written");
        assert_eq!(Proofs::open(cache.path()).of(&fingerprint("a")), Proof::Proved);
    }

    #[test]
    fn verdicts_are_bounded_in_number_and_length() {
        let cache = tempfile::tempdir().expect("a directory");
        let proofs = Proofs::open(cache.path());
        for n in 0..=PROOFS_MAX {
            proofs.settle(fingerprint(&n.to_string()), differs(&"é".repeat(REASON_BYTES_MAX)));
        }
        let state = proofs.state();
        assert!(state.verdicts.len() <= PROOFS_MAX);
        assert!(state.kept().iter().all(|kept| kept.verdict.as_ref().is_err_and(|w| w.why.len() <= REASON_BYTES_MAX)));
    }

    #[test]
    fn the_difference_is_named_by_what_a_person_would_look_at_first() {
        let made = |success, stderr: &str, files: &[(&str, &str)]| Made {
            answer: Answer { success, stdout: Vec::new(), stderr: stderr.into() },
            files: files.iter().map(|(n, text)| (n.as_bytes().to_vec(), Digest::of(text.as_bytes()))).collect(),
        };
        let home = made(true, "", &[("/w/out/a.o", "1")]);
        assert_eq!(home.difference(&home), None);
        let of = |other: Made| home.difference(&other).expect("different");
        assert_eq!(of(made(false, "cc1: no\nmore", &[])), "it fails: cc1: no");
        assert_eq!(of(made(true, "warning\n", &[("/w/out/a.o", "1")])), "it says other words: warning");
        assert_eq!(of(made(true, "", &[("/w/out/a.o", "2")])), "a.o differs");
        assert_eq!(of(made(true, "", &[("/w/out/a.o", "1"), ("/w/b", "")])), "b differs");
    }
}
