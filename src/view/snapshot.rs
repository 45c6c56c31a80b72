//! A picture of the agent at one moment: what every view is made from (DECIDE).

use crate::{reason::Reason, sched::guest::Mode};
use serde::{Deserialize, Serialize};

/// The agent, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// This machine.
    pub this: Machine,
    /// The name of the mesh; `None` if it is in none.
    pub mesh: Option<String>,
    /// The other members, by name.
    pub peers: Vec<Machine>,
    /// Counters since the agent started.
    pub counters: Counters,
    /// Why this machine does not serve; `None` if it does.
    pub not_serving: Option<String>,
    /// Why discovery does not work, if it does not.
    pub discovery_problem: Option<String>,
    /// Why it has not joined yet by the token that it was started with.
    pub joining: Option<String>,
    /// This machine was put out of its mesh, and is connected with nobody: by whom and when, as far as that is known.
    pub forgotten: Option<String>,
    /// So many of the latest units came back to this machine that something must be wrong.
    pub alarm: bool,
    /// Announcements heard of meshes that this machine is not in.
    pub nearby: u16,
    /// The version of the program.
    pub version: String,
    /// The agent's process id.
    pub pid: u32,
    /// How long it has been running, milliseconds.
    pub uptime_ms: u64,
    /// The UDP port it listens on.
    pub port: u16,
    /// What this machine lends, and why so much.
    pub lending: Lending,
}

/// What a machine lends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lending {
    /// In general.
    pub mode: Mode,
    /// Who said so, as a part of a sentence.
    pub set_by: String,
    /// Cores that the agent may use.
    pub cores: u32,
    /// Compilers that it runs for others now at most.
    pub slots: u32,
    /// Why there are none.
    pub why: Option<String>,
    /// Its owner has paused it.
    pub paused: bool,
    /// For so long still, milliseconds; until told otherwise if `None`.
    pub paused_for_ms: Option<u64>,
    /// How often it closed by itself today, and why the last time.
    pub pauses: Option<(u32, String)>,
    /// For whom it compiles now.
    pub to: Vec<String>,
}

impl Default for Lending {
    fn default() -> Self {
        let (set_by, why) = (String::new(), None);
        let (paused, paused_for_ms, pauses, to) = (false, None, None, Vec::new());
        Self { mode: Mode::Share, set_by, cores: 0, slots: 0, why, paused, paused_for_ms, pauses, to }
    }
}

/// One machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name in the mesh.
    pub name: String,
    /// Its full id, 52 characters in groups.
    pub id: String,
    /// Its role in the mesh.
    pub role: String,
    /// Labels of its compilers: those that this machine has too; all, for this machine.
    pub compilers: Vec<String>,
    /// Compilers that it runs for others at once.
    pub slots: u16,
    /// How many of them are free.
    pub free: u16,
    /// Round trip time, microseconds; `None` for this machine and while not connected.
    pub rtt_us: Option<u64>,
    /// What it is doing.
    pub state: String,
    /// Where it is or was last seen.
    pub addresses: Vec<String>,
    /// Whether it is connected (this machine is).
    pub connected: bool,
    /// Jobs of ours that it has finished.
    pub finished: u64,
    /// How fast one of its slots is, this machine's being 100, if enough units have ended there to tell.
    pub speed_percent: Option<u32>,
    /// Memory that further jobs may take there, as it last said, MiB.
    pub memory_mib: Option<u32>,
    /// Failures since something last went well there.
    pub failures: u32,
    /// How long ago it last said how busy it is, milliseconds.
    pub heard_ms: Option<u64>,
}

/// Counts since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests from launchers.
    pub requests: u64,
    /// Units compiled elsewhere and delivered.
    pub remote: u64,
    /// Units that were not compiled, because their result was kept.
    pub cache_hits: u64,
    /// Of these, the ones that another machine had kept.
    pub cache_hits_mesh: u64,
    /// Of these, the ones that were being compiled for another unit, here or elsewhere.
    pub cache_hits_joined: u64,
    /// Units of which a result was looked for in vain.
    pub cache_misses: u64,
    /// What the results held that were found, bytes.
    pub cache_bytes: u64,
    /// How long their compilers had run, milliseconds.
    pub cache_saved_ms: u64,
    /// Results that could not be written.
    pub cache_not_written: u64,
    /// Kept results that were damaged, and are gone.
    pub cache_damaged: u64,
    /// Results that were written.
    pub cache_kept: u64,
    /// What they hold, bytes.
    pub cache_kept_bytes: u64,
    /// Units of which no result is looked for or kept, by why.
    pub uncacheable: Vec<(Uncacheable, u64)>,
    /// Units left to the launcher, by reason.
    pub local: Vec<(Reason, u64)>,
    /// Jobs run for others, to the end.
    pub served: u64,
    /// Of these, jobs that ran in a tree that is kept for their client.
    pub served_in_mirror: u64,
    /// Jobs that read something there that is not in their closure, and ran once more with that alone.
    pub mirror_misses: u64,
    /// Jobs of others refused or not finished.
    pub not_served: u64,
    /// Results dropped because they were not what the inputs allow.
    pub discrepancies: u64,
    /// Units whose closure was made with the compiler's own list.
    pub asked_compiler: u64,
    /// Units that were late and started a second time.
    pub hedges: u64,
    /// Of these, those whose second start ended first.
    pub hedges_won: u64,
    /// Compile time of starts that nobody needed, milliseconds.
    pub wasted_ms: u64,
    /// All compile time of this machine's units, wherever they ran, milliseconds.
    pub compiled_ms: u64,
    /// Units that were to go out and were compiled here.
    pub fallbacks: u64,
    /// Units that were compiled here although all slots were taken, because nothing moved.
    pub overflows: u64,
}

/// Why no result of a unit is looked for or kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Uncacheable {
    /// It uses the time of its compilation.
    Time,
    /// An option makes something of chance.
    Flags,
    /// The launcher was told so.
    Asked,
    /// The launcher was started by ccache, which keeps the result itself.
    Ccache,
}

impl Uncacheable {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Time, Self::Flags, Self::Asked, Self::Ccache];

    /// As in JSON, for ever.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Time => "TIME",
            Self::Flags => "FLAGS",
            Self::Asked => "ASKED",
            Self::Ccache => "CCACHE",
        }
    }

    /// One sentence that says why.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Time => "The source uses the time of its compilation (__DATE__, __TIME__ or __TIMESTAMP__).",
            Self::Flags => "An option makes the object depend on chance or on the time.",
            Self::Asked => "MESH_CACHE=off was set for the compile.",
            Self::Ccache => "ccache ran the compile, and keeps the result itself (MESH_CACHE=on: mesh keeps it too).",
        }
    }
}

/// How one unit was compiled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// The source, absolute.
    pub source: Vec<u8>,
    /// The object, absolute.
    pub output: Vec<u8>,
    /// When it ended, milliseconds since 1970.
    pub ended_ms: u64,
    /// The name of the machine that ran it; `None` if it was left to the launcher.
    pub ran_on: Option<String>,
    /// The compiler's label.
    pub compiler: String,
    /// Why it was left to the launcher.
    pub reason: Option<Reason>,
    /// More about it.
    pub note: String,
    /// Files in its closure.
    pub files: u32,
    /// How long each phase took here, in order.
    pub phases: Vec<Phase>,
    /// How long each phase took on the machine that ran it, as that machine says.
    pub phases_there: Vec<Phase>,
    /// The compiler's CPU time there, microseconds.
    pub cpu_us: u64,
    /// Its largest resident set, KiB.
    pub peak_kib: u64,
    /// Bytes of its outputs.
    pub output_bytes: u64,
    /// When it was expected to end, milliseconds from when it was placed: on the machine that was chosen, then on others.
    pub chosen: Vec<(String, u64)>,
    /// How often it was started on other machines.
    pub starts: u32,
    /// It was not compiled: its result was kept.
    pub cached: bool,
    /// The name of the machine that compiled it then.
    pub made_by: String,
    /// When that was, milliseconds since 1970.
    pub made_ms: u64,
}

/// What came of the units that are remembered, by source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Those that took the longest first; not all, if there are many.
    pub rows: Vec<FileRow>,
    /// How many sources there are in all.
    pub count: u64,
    /// When the oldest unit that is remembered ended, milliseconds since 1970; `None` if none is.
    pub from_ms: Option<u64>,
    /// Older ones have been forgotten.
    pub forgotten: bool,
}

/// What came of one source's units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    /// The source, absolute.
    pub source: Vec<u8>,
    /// Units.
    pub units: u64,
    /// Of these, those that another machine compiled.
    pub elsewhere: u64,
    /// Of these, those whose result was kept.
    pub cached: u64,
    /// From their requests to their verdicts, milliseconds.
    pub ms: u64,
    /// Why the last one that stayed here did.
    pub reason: Option<Reason>,
}

/// Something that runs, or waits to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// The source, absolute, or the program; empty for a job of another machine's.
    pub name: Vec<u8>,
    /// Where it is.
    pub place: JobPlace,
    /// For how long, milliseconds.
    pub ms: u64,
}

/// Where something runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum JobPlace {
    /// On this machine.
    Here,
    /// On the machine of this name.
    There(String),
    /// Nowhere yet.
    Waits,
    /// On this machine, for the one of this name.
    For(String),
}

/// A part of a unit's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// Wall time, microseconds.
    pub us: u64,
    /// Processor time of the thread that did it, microseconds, where one did.
    pub cpu_us: Option<u64>,
}

/// The compilers that this machine has, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchains {
    /// Each by the path of its driver.
    pub known: Vec<ToolchainRow>,
    /// What looks like a compiler and is not used as one.
    pub refused: Vec<RefusedRow>,
    /// Connected machines that compile for others, by name.
    pub providers: Vec<String>,
    /// Why no compiler is sent from here; `None` if they are.
    pub not_sending: Option<String>,
    /// The [`ToolchainRow::id`] of the compiler that the person meant, if one was asked for by a name or path and found.
    pub looked_at: Option<String>,
}

/// One compiler: one fingerprint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolchainRow {
    /// The first digits of its fingerprint: enough to name it, too few to ask another machine for it.
    pub id: String,
    /// A short name for people: `gcc 12.2.0`.
    pub label: String,
    /// What it compiles for.
    pub target: String,
    /// The path by which it is run.
    pub driver: Vec<u8>,
    /// The file behind that path; of a compiler that was sent, the path itself.
    pub real: Vec<u8>,
    /// The machine that sent it; `None` for one of this machine's own.
    pub from: Option<String>,
    /// When it was used last, of one that was sent, milliseconds since 1970.
    pub used_ms: Option<u64>,
    /// All its files, bytes.
    pub bytes: u64,
    /// Whether it runs here for others.
    pub is_lent: bool,
    /// Whether it may be sent to others.
    pub proof: ProofState,
    /// Connected machines that have it, by name.
    pub has: Vec<String>,
    /// Machines that lack it and were told of it.
    pub arrivals: Vec<ArrivalRow>,
}

/// Whether a compiler's files were seen to be all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProofState {
    /// Nobody has wanted to know yet.
    #[default]
    Untried,
    /// It is being tried, or waits for that.
    Trying,
    /// They are.
    Proved,
    /// They are not, or that could not be seen: why.
    Unproved(String),
    /// Another machine saw it and sent the compiler.
    Elsewhere,
}

/// How far a compiler is on its way to one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivalRow {
    /// The compiler's [`ToolchainRow::id`].
    pub id: String,
    /// The machine's name.
    pub peer: String,
    /// How far.
    pub state: ArrivalState,
}

/// How far a compiler is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArrivalState {
    /// It is tried here first.
    Proving,
    /// The machine was told, and has said nothing yet.
    Told,
    /// It is coming.
    Coming {
        /// Bytes that are there.
        have: u64,
        /// Bytes of all its files.
        of: u64,
    },
    /// The machine has it.
    There,
    /// It does not come: why.
    Refused(String),
    /// The machine is not connected any more.
    Gone,
}

/// A program that looks like a compiler and is not used as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRow {
    /// Its path.
    pub program: Vec<u8>,
    /// Why its units stay here.
    pub reason: Reason,
    /// What exactly was met: a sentence without its full stop.
    pub why: String,
}

/// Everything that is known of one compiler.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolchainDetail {
    /// What the list says.
    pub row: ToolchainRow,
    /// What its programs run on, in words.
    pub needs: String,
    /// What it says of itself, by label.
    pub facts: Vec<(String, Vec<u8>)>,
    /// Its parts, by path.
    pub parts: Vec<PartRow>,
}

/// One part of a compiler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRow {
    /// Where it is.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: PartKind,
}

/// What a part is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartKind {
    /// A file.
    File {
        /// Bytes.
        size: u64,
        /// The first digits of its digest.
        digest: String,
        /// It may be executed.
        executable: bool,
    },
    /// A symbolic link, with its text.
    Symlink(Vec<u8>),
    /// A directory.
    Directory,
}

/// Why another machine does not have compilers of this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The other machine's name.
    pub peer: String,
    /// How many compilers were looked at.
    pub asked: u32,
    /// How many compilers it has in all.
    pub there: u32,
    /// How many of these it did not describe.
    pub silent: u32,
    /// Those that it lacks.
    pub lacking: Vec<WhyRow>,
}

/// Why another machine does not have one compiler of this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyRow {
    /// The compiler's [`ToolchainRow::id`].
    pub id: String,
    /// Its label.
    pub label: String,
    /// The path by which it is run here.
    pub driver: Vec<u8>,
    /// The file behind that path.
    pub real: Vec<u8>,
    /// Another path by which it is run, under which the other machine has it.
    pub also: Option<Vec<u8>>,
    /// The most similar one that the other machine has.
    pub nearest: Option<Nearest>,
    /// What becomes of it: a sentence without its full stop.
    pub outlook: String,
    /// Whether it could be sent now.
    pub can_be_sent: bool,
}

/// A compiler of another machine that is nearly the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nearest {
    /// Its label.
    pub label: String,
    /// The path by which it is run there.
    pub driver: Vec<u8>,
    /// The first things in which they differ.
    pub differences: Vec<String>,
    /// How many differences there are in all.
    pub count: u32,
}
