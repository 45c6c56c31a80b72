//! One compiler's trial: samples compiled here, and with nothing but its own files (DO).

use super::{
    Agent, compile,
    proofs::{Failure, Unwhole},
    samples::{self, SOURCES, Sample},
    submit,
    wire::Request,
};
use crate::{
    env::Keeping,
    reason::Reason,
    toolchain::{self, Answer, Toolchain},
    worker::{
        run::{Closure, RunError},
        toolchains::ToolchainError,
    },
};
use mesh_proto::{
    closure::Node,
    digest::Digest,
    job::{Exit, Job, Outcome, Output, Text},
};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::runtime::Handle;

/// The directory that the samples are compiled in.
const FOLDER: &str = "toolchain-samples";
/// Where in it the outputs go.
const OUTPUTS: &str = "out";
/// Times that a sample is planned before it is given up for now, and the time between two of them.
const PLANS_MAX: usize = 20;
const PLAN_AGAIN: Duration = Duration::from_millis(200);
/// The object of every sample.
const OBJECT: &str = "out/sample.o";

/// One compiler's trial.
pub(super) struct Trial<'a> {
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
    /// Writes the samples.
    pub(super) fn new(
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

    /// Compiles all of them; stops at the first difference.
    pub(super) fn run(&self) -> Result<(), Failure> {
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
        let planned = match self.plan(sample)? {
            Ok(planned) => planned,
            Err(Reason::Changing) => return Err(Failure::NotNow("a file is changing".to_owned())),
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

    /// Plans the sample as a unit is, once more where somebody is at work in a directory that it reads.
    fn plan(&self, sample: &Sample) -> Result<Result<compile::Sample, Reason>, Failure> {
        for _ in 1..PLANS_MAX {
            match compile::sample(self.agent, self.request(sample)?) {
                Err(Reason::Changing) => std::thread::sleep(PLAN_AGAIN),
                planned => return Ok(planned),
            }
        }
        Ok(compile::sample(self.agent, self.request(sample)?))
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
            session: 0,
            keeping: Keeping::Off,
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
        let Some(server) = self.agent.server.clone().or_else(|| self.agent.proofs.bench()) else {
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
        let numbered = closure.numbered();
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

    fn at_a_peer(&self, job: &Job, closure: &crate::inputs::Closure) -> Result<Outcome, Failure> {
        let Some(link) = self.agent.links.matching(&self.tried.fingerprint).into_iter().next() else {
            return Err(Failure::Nowhere);
        };
        let submitted = self.runtime.block_on(submit::submit(self.agent, &link, (job, closure), 0, false));
        let submit::Ran { outcome, .. } =
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
    let file = |output: &Output| (output.path.as_bytes().to_vec(), output.digest);
    Made { answer, files: outcome.outputs.iter().map(file).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

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
