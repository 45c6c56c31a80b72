//! A picture of the agent at one moment: what every view is made from (DECIDE).

use crate::reason::Reason;
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
}

/// Counts since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests from launchers.
    pub requests: u64,
    /// Units compiled elsewhere and delivered.
    pub remote: u64,
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
}

/// How one unit was compiled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
