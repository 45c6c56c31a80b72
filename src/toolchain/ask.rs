//! Runs a program to ask it something, or to see what it makes: clean environment, no input, bounded time and output (DO).

use super::registry::Toolchain;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    ffi::OsStr,
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long one question may take, seconds: clang on a cold disk takes two or three.
const ANSWER_SECONDS_MAX: u64 = 20;
/// How long a compiler may take over a unit of a few lines, seconds: it runs with a low priority.
const COMPILE_SECONDS_MAX: u64 = 120;
/// One stream of an answer, bytes. `-dM` of a large target is about 60 KB.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How often an answerer that closed its output, but lives on, is looked at, milliseconds.
const REAP_MS: u64 = 2;

/// What a program said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether it exited with zero.
    pub success: bool,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It could not be started.
    #[error("the program could not be run: {0}")]
    Run(#[source] io::Error),
    /// It took longer than a question may.
    #[error("the program did not end in time")]
    Slow,
    /// It said more than an answer may hold.
    #[error("the program's answer passes {ANSWER_BYTES_MAX} bytes")]
    Long,
}

/// Runs `program` with these arguments and waits for what it says.
///
/// The environment is `PATH`, `LC_ALL=C` and `extra` and nothing else, so that neither the agent's own environment nor
/// a user's language changes an answer; the working directory is `/`. A group of its own lets a late one be killed with
/// all its children.
pub(super) fn ask<A: AsRef<OsStr>>(
    program: &Path,
    args: impl IntoIterator<Item = A>,
    path_var: &[u8],
    extra: &[(Vec<u8>, Vec<u8>)],
) -> Result<Answer, AskError> {
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(pairs(extra)).env("PATH", OsStr::from_bytes(path_var)).env("LC_ALL", "C");
    answer(command.current_dir("/"), ANSWER_SECONDS_MAX)
}

/// Runs a compiler as its user would, `argv[0]` first, with this environment and nothing else, and waits for its end.
///
/// # Errors
/// If it does not run, or takes or says more than a small unit may.
pub fn compile(
    toolchain: &Toolchain,
    argv: &[Vec<u8>],
    cwd: &Path,
    env: &[(Vec<u8>, Vec<u8>)],
) -> Result<Answer, AskError> {
    let mut command = Command::new(toolchain.program());
    let mut words = argv.iter().map(|word| OsStr::from_bytes(word));
    command.arg0(words.next().unwrap_or_default()).args(words).env_clear().envs(pairs(env));
    answer(command.current_dir(cwd), COMPILE_SECONDS_MAX)
}

fn pairs(env: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (&OsStr, &OsStr)> {
    env.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value)))
}

fn answer(command: &mut Command, seconds_max: u64) -> Result<Answer, AskError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(AskError::Run)?;
    let result = listen(&mut child, Instant::now() + Duration::from_secs(seconds_max));
    if result.is_err() {
        if let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.wait();
    }
    result
}

/// Reads both streams to their ends, then waits for the exit.
fn listen(child: &mut Child, deadline: Instant) -> Result<Answer, AskError> {
    let mut streams = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
    let mut texts = [Vec::new(), Vec::new()];
    while streams.iter().any(Option::is_some) {
        let left = deadline.checked_duration_since(Instant::now()).ok_or(AskError::Slow)?;
        let timeout = Timespec::try_from(left).map_err(|_| AskError::Slow)?;
        let open: Vec<usize> = (0..streams.len()).filter(|i| streams[*i].is_some()).collect();
        let mut set: Vec<PollFd<'_>> = streams.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        match poll(&mut set, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(AskError::Run(e.into())),
            Ok(_) => {}
        }
        let ready: Vec<usize> =
            open.into_iter().zip(&set).filter(|(_, p)| !p.revents().is_empty()).map(|(i, _)| i).collect();
        for i in ready {
            if let Some(fd) = &streams[i]
                && !read_some(fd, &mut texts[i])?
            {
                streams[i] = None;
            }
        }
    }
    loop {
        match child.try_wait().map_err(AskError::Run)? {
            Some(status) => {
                let [stdout, stderr] = texts;
                return Ok(Answer { success: status.success(), stdout, stderr });
            }
            None if Instant::now() >= deadline => return Err(AskError::Slow),
            None => std::thread::sleep(Duration::from_millis(REAP_MS)),
        }
    }
}

/// Appends what is there; whether the stream is still open.
fn read_some(stream: &OwnedFd, into: &mut Vec<u8>) -> Result<bool, AskError> {
    let mut buffer = [0; 16 << 10];
    let got = match rustix::io::read(stream, &mut buffer) {
        Ok(got) => got,
        Err(rustix::io::Errno::INTR) => return Ok(true),
        Err(e) => return Err(AskError::Run(e.into())),
    };
    if into.len() + got > ANSWER_BYTES_MAX {
        return Err(AskError::Long);
    }
    into.extend_from_slice(&buffer[..got]);
    Ok(got > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Result<Answer, AskError> {
        ask(Path::new("/bin/sh"), ["-c", script], b"/usr/bin:/bin", &[(b"EXTRA".to_vec(), b"1".to_vec())])
    }

    #[test]
    fn an_answer_has_both_streams_and_the_exit() {
        let answer = sh("echo out; echo err >&2; exit 3").expect("runs");
        assert_eq!(
            (answer.success, answer.stdout.as_slice(), answer.stderr.as_slice()),
            (false, &b"out\n"[..], &b"err\n"[..])
        );
        assert!(sh("exec >&- 2>&-; sleep 0.05; exit 0").expect("runs").success);
    }

    #[test]
    fn the_environment_is_clean_and_the_place_fixed() {
        let answer = sh("pwd; echo $LC_ALL $EXTRA [$HOME$USER$CARGO]; cat").expect("runs");
        assert_eq!(String::from_utf8_lossy(&answer.stdout), "/\nC 1 []\n");
    }

    #[test]
    fn an_endless_answer_is_cut_off() {
        assert!(matches!(sh("while :; do echo 0123456789012345678901234567890123456789; done"), Err(AskError::Long)));
    }
}
