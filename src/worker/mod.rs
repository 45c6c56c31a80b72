//! Runs one foreign job: a root with its inputs and nothing else, the sandbox, and what the compiler made (DO).
//!
//! [`strict`] decides what the root holds and [`policy`] what the job may do, [`toolchains`] keeps the machine's
//! compilers as trees that roots can be built on, `sandbox` runs the compiler, [`collect`] picks up its outputs, and
//! [`run`] is the order of these steps. Where it is sure to be the same, a job runs in a tree that is kept for its client
//! instead: [`mirror`] decides that, [`listing`] how the compiler is made to say what it read, and [`mirrors`] holds the
//! trees' processes.

pub mod collect;
pub mod listing;
pub mod mirror;
pub mod mirrors;
pub mod policy;
pub mod run;
pub mod sent;
pub mod strict;
pub mod toolchains;
