//! Runs one program that nobody trusts, in a root of its own (DO).
//!
//! The threat: a member of the mesh sends sources of which this machine knows nothing, and compilers are large
//! programs that were never meant to be fed by strangers. So whatever runs here is taken to be hostile from its first
//! instruction. What stops it, each barrier by itself:
//!
//! - *A root of its own* (mount namespace, `pivot_root`): it can name nothing of this machine but its inputs, its
//!   toolchain, five harmless devices and its own processes. All of it is read-only but its output directories.
//! - *A user of its own, no groups, no capability in any set, `no_new_privs`*: what it can name it cannot own, and
//!   nothing it can execute gives it more.
//! - *Namespaces* for processes, network and System V objects: it sees, signals and reaches nobody.
//! - *Landlock*: the same rules for files once more, by another part of the kernel.
//! - *seccomp*: no sockets, no tracing, no namespaces, no rarely used doors into the kernel.
//! - *Limits*: memory, time, processes, file sizes, output; and where the system gave the agent a control group, of the
//!   job as a whole ([`Groups`]).
//! - *One process whose death is everybody's*: the job's first process is pid 1 of its namespace.
//!
//! # The ladder
//!
//! What an agent may do differs, so there are three forms, and [`probe`] takes the first in which a real job runs. It is
//! tried and never guessed: what forbids a namespace has many names. Where none stands, the machine does not serve; there
//! is no way to make it.
//!
//! - [`Rung::UserNamespace`]: the agent is an ordinary user. The job is nobody in a user namespace and, outside, the agent's
//!   user, who owns nothing in the job's root but what the job may have.
//! - [`Rung::Namespaces`]: the agent is root. The same namespaces without that of users; the job is a user for each slot.
//! - [`Rung::Container`]: the agent is root with no more than [`needs`] names. The root is a directory of copies that the
//!   job is changed into (`chroot`), the job is a user that no other job has, and there is no `/proc`.
//!
//! All have Landlock as far as the kernel does, the same filter, no capability and the limits. What the last rung lacks is
//! a second barrier before the network and System V objects; that a job can count other processes by the gaps in the
//! numbers of its own, and read the container's host name; and that its files are on disk, where their sum is looked at five
//! times a second rather than refused by the kernel. There the end of a job is the end of its user's last process.
//!
//! # Attempts
//!
//! What a job would try, what stops it, and the test that tries it. Where two barriers stop the same, each is shown to
//! hold by itself; without all of them the attempt succeeds ([`policy::Without`]), else the test would test nothing.
//!
//! | attempt | stopped by | test |
//! | --- | --- | --- |
//! | read a file of this machine | root | `it_cannot_read_a_file_of_this_machine` |
//! | read one that it could name | user | `it_is_nobody_to_the_files_of_this_machine_even_if_it_could_name_them` |
//! | find the agent's key | root, user | `the_agents_key_and_what_else_lies_beside_it_is_not_found` |
//! | find another client's files | a template for each client | `another_clients_files_are_not_found_in_a_mirror_nor_beside_it` |
//! | find another job's outputs | layers, processes, user, Landlock | `another_jobs_outputs_are_not_found` |
//! | write elsewhere | read-only mounts, Landlock, user | `it_cannot_write_outside_of_its_output_directories` |
//! | reach a network | seccomp, namespace, Landlock | `it_reaches_no_network` |
//! | reach a socket without a file | seccomp, namespace, Landlock | `it_reaches_no_abstract_socket` |
//! | trace, look into its first process | seccomp; that one is hidden | `it_traces_nobody`, `it_cannot_look_into_or_end_its_first_process` |
//! | signal this machine's processes | namespace, user, Landlock | `it_sees_and_kills_nobody` |
//! | share memory, read keys, learn names | seccomp, namespaces | `memory_that_programs_of_this_machine_share_is_not_shared_with_it`, `a_key_of_the_session_that_the_agent_was_started_in_is_not_read`, `it_does_not_learn_this_machines_name` |
//! | read or change what `/proc` tells | only processes are in it; Landlock | `what_proc_tells_of_this_machine_is_not_there` |
//! | mount, change the root, make namespaces | seccomp, capabilities, Landlock | `it_mounts_nothing_and_enters_no_namespace` |
//! | make a device | capabilities, mounts, Landlock | `it_makes_no_device` |
//! | gain by set-user-id | `no_new_privs`, mounts | `it_gains_nothing_from_set_user_id` |
//! | bpf, perf, io_uring, keys, handles | seccomp | `system_calls_that_no_compiler_needs_are_refused_and_unknown_ones_do_not_exist` |
//! | the 32-bit door | seccomp | `another_architectures_system_calls_end_it` |
//! | fork without end | limits | `a_fork_bomb_is_bounded` |
//! | take memory, fill files | limits, size of its memory | `it_cannot_have_more_memory_than_its_limit`, `it_cannot_fill_memory_through_files` |
//! | open, lengthen, make many files | limits | `limits_hold_open_files_long_files_and_many_files` |
//! | print without end | the agent counts | `it_prints_no_more_than_its_limit` |
//! | slow its machine down | scheduling class | `a_job_has_the_cores_while_nobody_else_wants_them` |
//! | stay when it is over | first process | `what_a_job_leaves_behind_dies_with_it`, `a_killed_agent_takes_its_jobs_along` |
//! | inherit from the agent | closed before it starts | `it_inherits_no_descriptor_no_variable_and_no_mask` |
//! | place inputs elsewhere | `worker`, then the builder | `a_closure_that_writes_through_a_link_or_twice_is_refused_in_every_form`, `the_builder_places_nothing_through_a_link_by_itself` |
//! | lead out by a link | root | `a_link_to_a_file_of_this_machine_leads_to_nothing` |
//! | ship a compiler that leads elsewhere | `worker` | `a_compiler_whose_files_lead_elsewhere_is_refused` |
//! | lead out by an output | `worker` follows no link | `a_link_among_outputs_leads_out_only_for_those_who_follow_it` |
//! | odd outputs | `worker` takes plain files | `only_regular_files_of_output_directories_come_back`, `neither_a_device_nor_a_file_of_a_terabyte_comes_back` |
//! | `-fplugin`, `-B`, `-specs`, `-wrapper`, `@file`, `.incbin`, `-o /etc/x` and kin | root | `no_line_of_gccs_reads_writes_or_runs_anything_of_this_machine`, `no_line_of_clangs_reads_writes_or_runs_anything_of_this_machine`, `no_embedded_file_is_one_of_this_machine` |
//! | bring a program along | all of the above | `a_program_that_the_client_sends_along_runs_and_finds_nothing` |
//!
//! The agent has many threads, so it never forks: it runs mesh once more with [`CHILD_ARG`], which reads a
//! [`policy::Policy`] from its standard input, a socket, and becomes the job ([`child_main`]). Or it becomes a
//! [`Template`], which holds the inputs of many jobs of one client and forks for each.

#[cfg(target_os = "linux")]
pub mod cgroup;
pub mod needs;
pub mod policy;

#[cfg(target_os = "linux")]
mod confine;
#[cfg(target_os = "linux")]
mod container;
#[cfg(not(target_os = "linux"))]
mod fallback;
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "fork, exec, wait and signals have no safe form; all of it is in this file")]
mod linux;
#[cfg(target_os = "linux")]
mod parent;
#[cfg(target_os = "linux")]
mod root;
#[cfg(target_os = "linux")]
mod template;
#[cfg(target_os = "linux")]
mod template_child;
#[cfg(target_os = "linux")]
mod tree;
#[cfg(target_os = "linux")]
mod wire;
#[cfg(target_os = "linux")]
mod workshop;

#[cfg(target_os = "linux")]
pub use cgroup::{Group, Groups};
#[cfg(not(target_os = "linux"))]
pub use fallback::{Begun, Group, Groups, Remains, Template, child_main, probe, run, run_in};
#[cfg(target_os = "linux")]
pub use linux::child_main;
#[cfg(target_os = "linux")]
pub use parent::{Begun, probe, run, run_in};
#[cfg(target_os = "linux")]
pub use template::Template;
#[cfg(target_os = "linux")]
pub use workshop::Remains;

use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

/// Closes every descriptor but the three standard ones: for a process that has opened none of its own and is about to
/// start one that outlives its caller (a build tool that waits for the end of a pipe would wait for ever).
pub fn close_inherited_descriptors() {
    #[cfg(target_os = "linux")]
    linux::close_from(3);
}

/// The version of Landlock that this machine's kernel offers; `None` if it offers none.
#[must_use]
pub fn landlock_abi() -> Option<u32> {
    #[cfg(target_os = "linux")]
    return linux::landlock_abi();
    #[cfg(not(target_os = "linux"))]
    None
}

/// The hidden first argument by which mesh runs itself as a job.
pub const CHILD_ARG: &str = "__job";

/// Whether this process was started to become a job.
#[must_use]
pub fn is_child() -> bool {
    std::env::args_os().nth(1).is_some_and(|arg| arg == CHILD_ARG)
}

/// A job that came to an end by itself.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// What it printed, in the order of arrival.
    pub text: Vec<Chunk>,
    /// What it cost.
    pub cost: Cost,
    /// What it made: the root of its output layer, whose paths are those of the job's root. The layer is in memory and
    /// vanishes with this descriptor; or on disk, and vanishes with what remains.
    pub layer: OwnedFd,
    /// What must stay until the layer has been read.
    pub remains: Option<Remains>,
    /// What held it.
    pub enforced: Enforced,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this status.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

/// A piece of what a job printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// On standard error.
    pub is_stderr: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a job cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// User time of the program and the children it waited for, microseconds.
    pub user_us: u64,
    /// Their system time, microseconds.
    pub system_us: u64,
    /// The largest resident set among them, KiB.
    pub peak_kib: u64,
    /// The program's wall time, microseconds.
    pub run_us: u64,
    /// Processor time that building the root took, microseconds.
    pub setup_cpu_us: u64,
}

/// That this machine can isolate a job, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capable {
    /// Who its jobs are.
    pub identities: policy::Identities,
    /// What holds them.
    pub enforced: Enforced,
}

/// Which barriers hold a job beyond the ones without which it does not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {
    /// How the job is kept from this machine.
    pub rung: Rung,
    /// The job is in a user namespace.
    pub user_namespace: bool,
    /// The root is an overlay; otherwise each file of the base is bound into it.
    pub overlay: bool,
    /// The job has `/dev/null` and its like.
    pub devices: bool,
    /// Landlock: fully, partially, or not.
    pub landlock: Landlock,
    /// System calls are filtered.
    pub seccomp: bool,
}

/// The forms of the sandbox, best first. Below the last there is none: such a machine does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rung {
    /// Namespaces, one of users among them: the agent is an ordinary user.
    UserNamespace,
    /// Namespaces that the agent makes as root.
    Namespaces,
    /// A changed root and a user for each job: the agent is root in a container that lets it do no more.
    Container,
}

/// How much of the Landlock rules the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Landlock {
    /// All of them.
    Full,
    /// Those that this kernel knows.
    Partial,
    /// None: the kernel has no Landlock.
    Absent,
}

/// The step of the recipe that failed. One for each, so that a failed sandbox says exactly where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Step {
    /// The policy could not be read.
    #[error("read the policy")]
    Policy,
    /// A new session, the death signal, the out-of-memory score.
    #[error("leave the agent's session")]
    Session,
    /// The job's control group.
    #[error("enter its control group")]
    Group,
    /// A user that no other job has.
    #[error("have its user for itself")]
    Claim,
    /// The namespaces.
    #[error("enter namespaces of its own")]
    Namespaces,
    /// The user namespace's map.
    #[error("map its user")]
    UserMap,
    /// The first process of the namespace.
    #[error("fork")]
    Fork,
    /// Something of this machine that the root is built from.
    #[error("open what the root is built from")]
    Keep,
    /// Private propagation of mounts.
    #[error("make its mounts private")]
    Private,
    /// The memory file system for inputs and outputs.
    #[error("mount memory for the root")]
    Memory,
    /// A file, link or directory of the root.
    #[error("place an input")]
    Place,
    /// The source of a file of the root: missing, or not of its size.
    #[error("read an input")]
    Source,
    /// Toolchain, inputs and output layer as one tree.
    #[error("put the layers together")]
    Layers,
    /// `/proc`.
    #[error("mount /proc")]
    Proc,
    /// A device.
    #[error("provide a device")]
    Device,
    /// A writable directory, or the rest read-only.
    #[error("make the root read-only but for the outputs")]
    ReadOnly,
    /// The change of root.
    #[error("change the root")]
    Pivot,
    /// Groups, user, capabilities.
    #[error("drop its privileges")]
    Privileges,
    /// Landlock.
    #[error("restrict it by Landlock")]
    Landlock,
    /// The system call filter.
    #[error("filter its system calls")]
    Seccomp,
    /// Limits of resources.
    #[error("limit its resources")]
    Limits,
    /// The working directory.
    #[error("enter the working directory")]
    Cwd,
    /// The program.
    #[error("execute the program")]
    Exec,
    /// Waiting for it.
    #[error("wait for the program")]
    Wait,
}

/// A job that did not come to an end by itself.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// This system has no sandbox that mesh knows.
    #[error("this system has no sandbox that mesh can use")]
    Unsupported,
    /// The process could not be started.
    #[error("could not start the job's process: {0}")]
    Spawn(std::io::Error),
    /// The pipes, socket or terminal to it could not be made or used.
    #[error("could not talk to the job's process: {0}")]
    Channel(std::io::Error),
    /// A step of the recipe failed in the child.
    #[error("could not {step}{}: {error}", at(path))]
    Setup {
        /// Which.
        step: Step,
        /// On what, if it was a path.
        path: Vec<u8>,
        /// Why.
        error: std::io::Error,
    },
    /// The job's processes are gone without a word: killed from outside, most likely for want of memory.
    #[error("the job's processes were killed")]
    Lost,
    /// The kernel killed it because it had all the memory that it may have.
    #[error("the job had all the memory that it may have")]
    Memory,
    /// Its wall time was over.
    #[error("the job passed its wall time")]
    Wall,
    /// It printed too much.
    #[error("the job printed too much")]
    Text,
    /// The caller cancelled it.
    #[error("the job was cancelled")]
    Cancelled,
}

/// A path for a message, if there is one.
fn at(path: &[u8]) -> String {
    if path.is_empty() { String::new() } else { format!(" ({})", String::from_utf8_lossy(path)) }
}

/// Why this machine cannot run foreign jobs.
#[derive(Debug, thiserror::Error)]
#[error("this machine cannot isolate a job, so it does not serve: {why}")]
pub struct NoSandbox {
    /// The step that failed and why, as a sentence's part.
    pub why: String,
    /// Each rung that was tried, and where it failed. Empty if it did not come to that.
    pub tried: Vec<Tried>,
}

impl NoSandbox {
    /// What kept any rung from being tried.
    #[must_use]
    pub fn before(why: impl Into<String>) -> Self {
        Self { why: why.into(), tried: Vec::new() }
    }
}

/// A rung that did not stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Which.
    pub rung: Rung,
    /// The step that failed, if one did.
    pub step: Option<Step>,
    /// That step and why, as a sentence's part.
    pub why: String,
}
