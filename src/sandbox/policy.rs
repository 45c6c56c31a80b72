//! What a job may see, do and use, as plain data (DECIDE).
//!
//! The code that applies a policy knows nothing about compilers, and this module knows nothing about jobs from other
//! machines: `worker` translates one into the other. A policy crosses one process boundary, from the agent to the
//! re-executed mesh that becomes the job, so paths are bytes (a `PathBuf` cannot be written if it is not UTF-8).

use serde::{Deserialize, Serialize};

/// Everything the sandbox needs to run one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What the job's root holds above the base.
    pub inputs: Inputs,
    /// A tree on this machine that the job sees below its inputs, read-only: its toolchain. For [`Inputs::Mirror`], a
    /// name in the template's [`Mould::bases`].
    pub base: Vec<u8>,
    /// The program, by its path in the job's root: the driver of its toolchain's manifest, never what a job says.
    pub program: Vec<u8>,
    /// Its arguments, `argv[0]` first.
    pub argv: Vec<Vec<u8>>,
    /// Its environment.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Its working directory as `PWD` spells it, in the job's root; may lead through symbolic links.
    pub cwd: Vec<u8>,
    /// Its file creation mask.
    pub umask: u32,
    /// The directories in which the job may write, as paths in its root. Each is made if `tree` does not name it.
    pub writable: Vec<Vec<u8>>,
    /// Who the job is.
    pub identity: Identity,
    /// How much it may use.
    pub limits: Limits,
    /// What it gives way to.
    pub priority: Priority,
    /// Standard output and standard error are one pipe.
    pub merged_output: bool,
    /// Standard error is a terminal of so many columns and rows.
    pub terminal: Option<(u16, u16)>,
    /// Barriers left out. Nothing but tests sets any: a test of a barrier must show that it is this barrier that holds.
    pub without: Without,
}

/// What a job gives way to on a machine that has other things to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Priority {
    /// Everything: it has the cores and the disk only while nobody else wants them.
    #[default]
    Idle,
    /// A little to everything.
    Nice,
    /// Nothing: its owner waits for it.
    Usual,
}

/// Where a job's inputs come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inputs {
    /// Copied for this job alone.
    Own {
        /// What is placed, sorted by path, so that a directory comes before what is in it.
        tree: Vec<Place>,
        /// The directory on this machine in which the sources of [`What::File`] are.
        sources: Vec<u8>,
    },
    /// The tree that the job's template holds, as it is when the job starts.
    Mirror,
}

/// What a template needs: the process that holds a tree of inputs for many jobs of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mould {
    /// The directory on this machine in which the sources of [`What::File`] are.
    pub sources: Vec<u8>,
    /// The directory on this machine in which all bases of its jobs are.
    pub bases: Vec<u8>,
    /// Who its jobs are. Of [`Identity::User`] only the kind counts: each job's policy has its own.
    pub identity: Identity,
    /// All files of its tree, bytes: they are in memory.
    pub tree_bytes: u64,
    /// Files, links and directories of its tree.
    pub tree_nodes: u64,
    /// It ends by itself, and gives its memory back, after so long without a job, milliseconds.
    pub idle_ms: u64,
    /// Barriers left out, which its jobs inherit from it. Only tests set any.
    pub without: Without,
}

/// A change of a template's tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Paths, without the leading slash, that are removed first, in this order: what is in a directory before it.
    pub remove: Vec<Vec<u8>>,
    /// What is placed then, in this order. A file or link takes the place of another at once, never in between.
    pub place: Vec<Place>,
}

impl Update {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.place.is_empty()
    }
}

/// One path of the job's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where, without the leading slash; no component before the last is anything but a directory.
    pub path: Vec<u8>,
    /// What.
    pub what: What,
    /// It belongs to the job, which may change it.
    pub writable: bool,
}

/// What is at a [`Place`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A directory.
    Directory,
    /// A copy of a file.
    File {
        /// Where the bytes are, below the directory of sources.
        source: String,
        /// How many there are.
        size: u64,
        /// Modification time, seconds.
        mtime_s: i64,
        /// Modification time, nanoseconds within the second.
        mtime_ns: u32,
        /// Anybody may execute it.
        executable: bool,
    },
    /// The same inode as the place of this path, which comes before this one.
    HardLink {
        /// The other path, without the leading slash.
        to: Vec<u8>,
    },
    /// A symbolic link. Its text is never followed while the root is built.
    Symlink {
        /// The text.
        target: Vec<u8>,
    },
}

/// Who the job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// The agent is root: the job is this user and group, which own nothing on this machine, and is in no other group.
    User {
        /// User and group id.
        id: u32,
    },
    /// The agent is an ordinary user: the job is this user and group in a user namespace of its own, in which no other
    /// ids exist; outside it is the agent's user, who owns nothing in the job's root but what the job may have.
    Namespace {
        /// User and group id inside.
        id: u32,
    },
    /// The agent is root in a container where it may neither mount nor enter namespaces: the job is this user and group in
    /// a changed root.
    Chroot {
        /// User and group id.
        id: u32,
    },
}

/// The first of the ids that jobs have under a root agent, one for each slot. Beyond those that distributions, systemd
/// (which ends at 0x6fff_ffff) and container managers hand out, and below 2^31, which some programs read as negative.
pub const FIRST_USER: u32 = 1_990_000_000;
/// The same where only the lowest ids exist, as in a container whose root is an ordinary user outside: the last ones, of
/// which a container's distribution hands out none, with room for two for each slot that an agent may have.
pub const FIRST_LOW_USER: u32 = 57_300;
/// How far apart the users of two agents in one container are: each counts its own from the first on.
const USERS_ASIDE: u32 = 512;
/// What the system calls nobody: what a job sees itself as in a user namespace.
pub const NOBODY: u32 = 65_534;

/// How the jobs of one agent get their identities: what [`super::probe`] found to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identities {
    /// The agent is root: a user for each slot.
    PerSlot,
    /// The agent is root where only the lowest users exist, as in some containers: one user for all slots. Their
    /// processes are counted together, but do not see each other.
    Shared,
    /// The agent is an ordinary user.
    Namespace,
    /// The agent is root and can enter no namespaces: two users for each slot, from this one on. One is the job, the other
    /// ends it.
    Chroot {
        /// The first.
        first: u32,
    },
}

impl Identities {
    /// What to try, best first.
    #[must_use]
    pub fn candidates(agent_is_root: bool) -> &'static [Self] {
        const ROOT: &[Identities] = &[
            Identities::PerSlot,
            Identities::Shared,
            Identities::Chroot { first: FIRST_USER },
            Identities::Chroot { first: FIRST_LOW_USER },
        ];
        if agent_is_root { ROOT } else { &[Self::Namespace] }
    }

    /// The rung that they belong to.
    #[must_use]
    pub fn rung(self) -> super::Rung {
        match self {
            Self::PerSlot | Self::Shared => super::Rung::Namespaces,
            Self::Namespace => super::Rung::UserNamespace,
            Self::Chroot { .. } => super::Rung::Container,
        }
    }

    /// The identity of the job in this slot.
    #[must_use]
    pub fn of_slot(self, slot: u16) -> Identity {
        match self {
            Self::PerSlot => Identity::User { id: FIRST_USER + u32::from(slot) },
            Self::Shared => Identity::User { id: NOBODY },
            Self::Namespace => Identity::Namespace { id: NOBODY },
            Self::Chroot { first } => Identity::Chroot { id: first + 2 * u32::from(slot) },
        }
    }
}

impl Identity {
    /// The user id that the job sees.
    #[must_use]
    pub fn id(self) -> u32 {
        match self {
            Self::User { id } | Self::Namespace { id } | Self::Chroot { id } => id,
        }
    }

    /// Another identity that does as well, where this one is another agent's on the same machine.
    #[must_use]
    pub fn beside(self) -> Self {
        match self {
            Self::Chroot { id } => Self::Chroot { id: id + USERS_ASIDE },
            other => other,
        }
    }

    /// Who ends the job of this id where that takes a user: the id beside it, which no job has.
    #[must_use]
    pub fn killer(id: u32) -> u32 {
        id + 1
    }
}

/// How much a job may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time from start to end, milliseconds.
    pub wall_ms: u64,
    /// Processor time of one process, seconds.
    pub cpu_s: u64,
    /// Writable memory of one process, bytes.
    pub memory_bytes: u64,
    /// One file, bytes.
    pub file_bytes: u64,
    /// All files of the job, inputs included, bytes: they are in memory.
    pub tree_bytes: u64,
    /// Files, links and directories, inputs included.
    pub tree_nodes: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// What it may print, bytes.
    pub text_bytes: u64,
}

impl Limits {
    /// What a compile may use where nothing else is known.
    pub const DEFAULT: Self = Self {
        wall_ms: 10 * 60 * 1000,
        // Longer than the wall time: it only ends what escaped the wall clock.
        cpu_s: 11 * 60,
        memory_bytes: 8 << 30,
        file_bytes: 2 << 30,
        tree_bytes: 4 << 30,
        tree_nodes: 64 << 10,
        processes: 128,
        open_files: 1024,
        text_bytes: 64 << 20,
    };
}

/// Barriers that a test leaves out, to see that what they stop succeeds without them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Without {
    /// No system call filter.
    pub seccomp: bool,
    /// No Landlock.
    pub landlock: bool,
    /// The root is not remounted read-only.
    pub read_only: bool,
    /// No limits of resources.
    pub limits: bool,
    /// The layers are put together by binding each file of the base rather than by overlayfs, as where the kernel
    /// refuses an overlay to a user namespace.
    pub overlay: bool,
    /// The root that was left stays in the job's, at `/machine`: for a job of its own that is this machine's root, for
    /// one of a template the template's, in which this machine's is at `/machine` once more.
    pub own_root: bool,
    /// The job is whom the agent is, with all capabilities: root under root, and root of its namespace in a namespace.
    pub own_user: bool,
    /// What it executes may give it more. The two filters imply this barrier, so they must be left out with it.
    pub no_new_privs: bool,
    /// The job's mounts honour devices and set-user-id bits.
    pub mount_flags: bool,
    /// It is among this machine's processes, and sees them.
    pub process_namespace: bool,
    /// It has this machine's network.
    pub network_namespace: bool,
    /// It has this machine's System V objects and message queues.
    pub ipc_namespace: bool,
    /// It sees this machine's name.
    pub uts_namespace: bool,
    /// Its first process may be looked into by processes of the same user.
    pub hidden_init: bool,
    /// `/proc` shows more than processes.
    pub proc_subset: bool,
}
