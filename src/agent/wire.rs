//! What launchers and commands say to the agent on its Unix socket, and what it answers (AGREE, on one machine).
//!
//! Frames of [`mesh_proto::frame`]. The socket's name carries the version, so that a new launcher never talks to an old
//! agent. Nothing here travels between machines. The launcher that has no postcard writes and reads the same bytes in
//! [`crate::launch::wire`].

pub use crate::launch::wire::{ASK_BYTES_MAX, TELL_BYTES_MAX};
use crate::{
    env::Keeping,
    reason::Reason,
    sched::guest::Mode,
    view::snapshot::{ArrivalRow, Files, JobRow, Snapshot, ToolchainDetail, Toolchains, Why},
};
use mesh_proto::job::{Terminal, Text};
use serde::{Deserialize, Serialize};

/// The agent beats this often while a launcher waits, milliseconds.
pub const BEAT_MS: u64 = 1000;
const _: () = assert!(BEAT_MS < crate::launch::beat::SILENCE_MS_MAX);

/// The identity of a file: device and inode.
pub type FileId = (u64, u64);

/// What the agent is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Compile.
    Compile(Box<Request>),
    /// Everything there is to see.
    Snapshot,
    /// How units were compiled whose source or object has this path (absolute), the latest last.
    Explain {
        /// The path, or nothing for the last unit of all.
        path: Option<Vec<u8>>,
    },
    /// Found a mesh of this name, if the machine is in none.
    Found {
        /// The name.
        name: String,
    },
    /// Open a pairing window.
    Pair {
        /// The role that the newcomer gets.
        role: String,
    },
    /// Join the mesh whose code this is.
    Join {
        /// The code, as typed.
        code: String,
        /// Where the other machine is, if it was said.
        address: Option<String>,
        /// Leave a mesh of more than this machine for it.
        leave: bool,
    },
    /// Remember an address where a machine of the mesh may be.
    AddAddress {
        /// Host or address, with or without a port.
        address: String,
    },
    /// Forget such an address.
    RemoveAddress {
        /// As it was added.
        address: String,
    },
    /// Finish what runs and end.
    Stop,
    /// The compilers that are known.
    Toolchains {
        /// A program to look at first, if it is not known yet.
        look: Option<Look>,
    },
    /// Everything about one of them.
    Toolchain {
        /// Its [`ToolchainRow::id`](crate::view::snapshot::ToolchainRow::id).
        id: String,
    },
    /// Why another machine does not have compilers of this one.
    WhyNot {
        /// Its name, or the first digits of its id.
        peer: String,
        /// Which compilers, by id; all that are known if none is named.
        ids: Vec<String>,
    },
    /// Have compilers sent now. Told how far they are until all of them are there or refused; goes on without who asked.
    Push {
        /// Which, by id.
        ids: Vec<String>,
        /// To whom, by name or the first digits of an id; to all that compile for others if nobody is named.
        peer: Option<String>,
    },
    /// Remove compilers that were sent here.
    Prune {
        /// Those that were used lately, too.
        all: bool,
    },
    /// How much it makes sense to start at once now, and what has come of this session's units.
    Session {
        /// As in [`Request::session`].
        session: u64,
    },
    /// Room on this machine for something that is no compile. Told [`Tell::Leased`] when it is there; given back when the
    /// connection ends.
    Lease {
        /// What it will need, KiB.
        memory_kib: u64,
        /// Its program, for those who look.
        name: Vec<u8>,
    },
    /// What runs now, for this machine's user and for others.
    Jobs,
    /// Lend nothing for a while.
    Pause {
        /// For how long, seconds; until it is resumed if `None`.
        seconds: Option<u64>,
    },
    /// End the pause.
    Resume,
    /// Say what is lent; lend otherwise from now on.
    Mode {
        /// How it is lent from now on; as it is if `None`.
        change: Option<ModeChange>,
    },
    /// Write down what was counted, where those who look read it.
    Count {
        /// Begin at zero instead.
        zero: bool,
    },
    /// What came of each source's units, as far as units are remembered.
    Files {
        /// Of those that ended then or later, milliseconds since 1970.
        since_ms: u64,
    },
    /// Make a token. Told [`Tell::Token`].
    Invite {
        /// What the machines are that join by it.
        role: String,
        /// How long it lives, seconds.
        life_s: u64,
        /// What it is called.
        label: String,
    },
    /// The tokens that have not ended. Told [`Tell::Tokens`].
    Tokens,
    /// Join by a token.
    JoinByToken {
        /// As it was copied.
        text: String,
        /// Leave the mesh that this machine is in.
        leave: bool,
    },
    /// Leave the mesh with a new key; the agent begins anew.
    Leave,
    /// Go on in the mesh with a new key; the agent begins anew.
    Rekey,
    /// Use no result any more that a machine has made until now. Told [`Tell::Tainted`].
    Taint {
        /// Its name, or the first characters of its id.
        name: String,
    },
    /// Put a machine out of the mesh. Told [`Tell::Forgetting`] unless that was seen before.
    Forget {
        /// Its name, or the first characters of its id.
        name: String,
        /// Somebody else may have its key.
        stolen: bool,
        /// What stands of its admissions; nothing has been said about that yet if `None`.
        keeps: Option<bool>,
    },
}

/// A token that has not ended, as far as its mesh knows it: not its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// What it is called.
    pub label: String,
    /// What the machines are that join by it.
    pub role: String,
    /// When it ends, seconds since 1970.
    pub not_after: u64,
    /// The names of those that have joined by it.
    pub joined: Vec<String>,
}

/// A change of what is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModeChange {
    /// This, whatever the settings say.
    To(Mode),
    /// What the settings say.
    Settings,
}

/// A program that may be a compiler, as a person means it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// A name, or a path.
    pub program: Vec<u8>,
    /// Where a relative path begins.
    pub cwd: Vec<u8>,
    /// Where a name is looked for.
    pub path_var: Vec<u8>,
}

/// A compile, with all that the agent needs to know of the process that wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The compiler that the launcher would run: an absolute path.
    pub program: Vec<u8>,
    /// `argv[0]` as the compiler is to see it, then the arguments.
    pub argv: Vec<Vec<u8>>,
    /// The working directory: `PWD` if it is the working directory, else the real path.
    pub cwd: Vec<u8>,
    /// The variables of [`crate::env::travels`], sorted by name.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The file creation mask.
    pub umask: u32,
    /// Standard output and standard error are one file.
    pub merged_output: bool,
    /// Standard error is a terminal.
    pub terminal: Option<Terminal>,
    /// The root directory, the working directory and the compiler, as the launcher sees them: in a container or a chroot
    /// they are others than the agent's.
    pub seen: [FileId; 3],
    /// `MESH=force`.
    pub force: bool,
    /// `MESH_PREFER`.
    pub prefer: Option<String>,
    /// `MESH_SESSION`: the build that it belongs to; 0 for none. It goes no further than the agent.
    pub session: u64,
    /// What becomes of its result.
    pub keeping: Keeping,
    /// `MESH_TRUSTED_ONLY`: only machines of owners compile it, and only their results are used.
    pub trusted_only: bool,
}

/// A build, as far as its agent knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionNow {
    /// Compilers that this machine runs for its own user at once.
    pub local: u32,
    /// Compilers that other machines run for it at once, all together.
    pub remote: u32,
    /// Whether this machine is in a mesh.
    pub in_mesh: bool,
    /// Units that were compiled, wherever.
    pub units: u64,
    /// Of these, those that other machines compiled.
    pub elsewhere: u64,
    /// What their compilers took, in time of this machine's, milliseconds.
    pub compile_ms: u64,
    /// Units of which it is not known what they took.
    pub unmeasured: u64,
    /// Units that were not compiled, because their result was kept.
    pub cached: u64,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Tell {
    /// Compile it here. The launcher keeps the connection open for as long as the compiler runs: it is the lease of a
    /// local slot.
    Local {
        /// Why.
        reason: Reason,
        /// Whether this is a fallback from a remote compile that was or would have been tried.
        fallback: bool,
    },
    /// It was compiled, with status 0.
    Done {
        /// What the compiler printed.
        text: Vec<Text>,
        /// Files to rename, each from its temporary name.
        renames: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// Everything there is to see.
    Snapshot(Box<Snapshot>),
    /// Records of units.
    Explained(Vec<crate::view::snapshot::UnitRecord>),
    /// A pairing window is open.
    PairingCode {
        /// What the other machine types.
        code: String,
        /// Addresses of this machine, for `mesh join CODE@ADDR`.
        addresses: Vec<String>,
    },
    /// A line for the person who waits.
    Note(String),
    /// It is done; a line that says what.
    Finished(String),
    /// It cannot be done.
    Failed {
        /// The exit code.
        code: u8,
        /// What, why, what to do.
        text: String,
    },
    /// The compilers that are known.
    Toolchains(Box<Toolchains>),
    /// Everything about one of them.
    Toolchain(Box<ToolchainDetail>),
    /// Why another machine does not have compilers of this one.
    WhyNot(Box<Why>),
    /// How far compilers are on their way.
    Arrivals(Vec<ArrivalRow>),
    /// A build, as far as its agent knows it.
    Session(SessionNow),
    /// There is room now.
    Leased,
    /// What runs now, the oldest first.
    Jobs(Vec<JobRow>),
    /// What came of each source's units.
    Files(Files),
    /// The tokens that have not ended.
    Tokens(Vec<TokenRow>),
    /// A token was made.
    Token {
        /// The secret, as it is copied.
        text: String,
        /// What it is called.
        label: String,
        /// What the machines are that join by it.
        role: String,
        /// When it ends, seconds since 1970.
        not_after: u64,
    },
    /// A machine whose results are not used.
    Tainted {
        /// Its name.
        name: String,
        /// Outputs of the latest units that it has made, and when, milliseconds since 1970, the latest first.
        made: Vec<(Vec<u8>, u64)>,
    },
    /// A machine that can be put out.
    Forgetting {
        /// Its name.
        name: String,
        /// The beginning of its id.
        id: String,
        /// The machines that it has admitted: names and roles.
        admitted: Vec<(String, String)>,
    },
}
