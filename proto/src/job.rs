//! A job, its outcome, and why it may be refused (AGREE).

use crate::{digest::Digest, limits, path::AbsPath, toolchain::Fingerprint};
use serde::{Deserialize, Serialize};

/// One compile, all that decides its result but the closure's entries, which are named beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The compiler. The provider runs its own copy; no path or name from the wire chooses a program.
    pub toolchain: Fingerprint,
    /// The arguments as the compiler sees them, `argv[0]` first (which the compiler looks at, but which is not what
    /// is run).
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::ARGV_ITEMS_MAX }, _, _>")]
    pub argv: Vec<Vec<u8>>,
    /// The environment, sorted by name.
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::ENV_ITEMS_MAX }, _, _>")]
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The working directory as the client's `PWD` spells it: absolute, may lead through symbolic links.
    pub cwd: Vec<u8>,
    /// The directories, by real path, in which the compiler may create files.
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::JOB_OUTPUTS_MAX }, _, _>")]
    pub output_dirs: Vec<AbsPath>,
    /// The client's file creation mask.
    pub umask: u32,
    /// Standard output and standard error are one file on the client: one pipe keeps their order.
    pub merged_output: bool,
    /// Standard error is a terminal on the client.
    pub terminal: Option<Terminal>,
    /// The provider ends the job after this many milliseconds of wall time; at most [`limits::JOB_WALL_MS_MAX`].
    pub wall_ms_max: u64,
    /// Only a root that holds the closure and nothing else will do: the client is not sure that it knows every name that
    /// the compiler will look for.
    pub strict: bool,
}

/// The client's terminal, as far as a compiler can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Width, columns; 0 if unknown.
    pub columns: u16,
    /// Height, rows; 0 if unknown.
    pub rows: u16,
}

/// Which limit a [`Job`] passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Arguments: none, too many, or too many bytes.
    #[error("the argument vector is empty or too large")]
    Argv,
    /// Environment: too many or too many bytes, or a name with `=` or a zero byte.
    #[error("the environment is malformed or too large")]
    Env,
    /// The working directory is not absolute, or too long.
    #[error("the working directory is not an absolute path")]
    Cwd,
    /// More output directories than files may come back.
    #[error("too many output directories")]
    OutputDirs,
}

impl Job {
    /// Checks what decoding cannot: every list against its limit, every string against zero bytes.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), JobError> {
        let nul = |s: &[u8]| s.contains(&0);
        let argv_bytes: usize = self.argv.iter().map(Vec::len).sum();
        if self.argv.is_empty()
            || self.argv.len() > limits::ARGV_ITEMS_MAX
            || argv_bytes > limits::ARGV_BYTES_MAX
            || self.argv.iter().any(|a| nul(a))
        {
            return Err(JobError::Argv);
        }
        let env_bytes: usize = self.env.iter().map(|(k, v)| k.len() + v.len()).sum();
        if self.env.len() > limits::ENV_ITEMS_MAX
            || env_bytes > limits::ENV_BYTES_MAX
            || self.env.iter().any(|(k, v)| k.is_empty() || k.contains(&b'=') || nul(k) || nul(v))
        {
            return Err(JobError::Env);
        }
        if self.cwd.first() != Some(&b'/') || self.cwd.len() > limits::PATH_BYTES_MAX || nul(&self.cwd) {
            return Err(JobError::Cwd);
        }
        if self.output_dirs.len() > limits::JOB_OUTPUTS_MAX {
            return Err(JobError::OutputDirs);
        }
        Ok(())
    }
}

/// How the compiler ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this status.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

/// A piece of what the compiler printed, in the order of printing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// Standard error rather than standard output.
    pub is_stderr: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A file that the compiler made. Regular files only: anything else is a refusal to collect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Where, by real path; its directory is one of the job's `output_dirs`.
    pub path: AbsPath,
    /// Its content.
    pub digest: Digest,
    /// Its size, bytes.
    pub size: u64,
    /// Whether the compiler left it executable for its owner.
    pub executable: bool,
}

/// What a job cost the provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The compiler's and its children's user time, microseconds.
    pub user_us: u64,
    /// Their system time, microseconds.
    pub system_us: u64,
    /// The largest resident set among them, KiB.
    pub peak_kib: u64,
    /// From offer to start of the compiler, microseconds: fetching and staging, without the wait for a slot.
    pub stage_us: u64,
    /// How long it waited for a slot, microseconds.
    pub wait_us: u64,
    /// The compiler's wall time, microseconds.
    pub run_us: u64,
    /// From its end to the outcome: collecting, microseconds.
    pub collect_us: u64,
    /// Compilers that ran there when it started, itself counted, for each hundred that it has cores for: above 100 they
    /// share cores, and `run_us` says so much less of how fast the machine is.
    pub crowd_percent: u16,
}

/// The end of a job that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How the compiler ended.
    pub exit: Exit,
    /// What it printed.
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::JOB_TEXT_PIECES_MAX }, _, _>")]
    pub text: Vec<Text>,
    /// What it made, sorted by path. The bytes follow on the same stream, in this order.
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::JOB_OUTPUTS_MAX }, _, _>")]
    pub outputs: Vec<Output>,
    /// What it cost.
    pub usage: Usage,
}

/// Why a provider does not run, or did not finish, a job. The client then asks another peer or compiles here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// All slots are taken.
    #[error("all slots are taken")]
    Busy,
    /// The owner does not lend the machine now.
    #[error("paused by its owner")]
    Paused,
    /// No toolchain of that fingerprint.
    #[error("it does not have this compiler")]
    Toolchain,
    /// An input could not be had.
    #[error("an input could not be fetched")]
    Missing,
    /// The root could not be built or the sandbox not be made.
    #[error("its sandbox could not run the job")]
    Sandbox,
    /// What the compiler made could not be collected: too much, or not a regular file.
    #[error("the outputs could not be collected")]
    Collect,
    /// The job passed its wall time or another limit of resources.
    #[error("the job passed a limit of time or memory")]
    Limit,
    /// The offer breaks a rule of the protocol.
    #[error("the request was malformed")]
    Malformed,
    /// This machine may not submit there.
    #[error("its role does not allow it")]
    Role,
    /// The disk is full there.
    #[error("its disk is full")]
    Disk,
    /// It is shutting down.
    #[error("it is shutting down")]
    Leaving,
    /// The job had all the memory that it may have there. Never said of a compiler that only failed.
    #[error("the job had no memory left there")]
    Memory,
}
