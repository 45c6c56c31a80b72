//! Runs one foreign job: a root with its inputs and nothing else, the sandbox, and what the compiler made (DO).
//!
//! [`strict`] decides what the root holds and [`policy`] what the job may do, [`toolchains`] keeps the machine's
//! compilers as trees that roots can be built on, `sandbox` runs the compiler, [`collect`] picks up its outputs, and
//! [`run`] is the order of these steps.

pub mod collect;
pub mod policy;
pub mod run;
pub mod strict;
pub mod toolchains;
