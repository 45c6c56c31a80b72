//! mesh: one compiler out of the machines on a desk.
//!
//! This page is the map of the architecture. (It is kept true by `tests/tidy.rs` where that can be checked.)
#![deny(unsafe_code)]

pub mod agent;
pub mod cli;
pub mod cmd;
pub mod compiler;
pub mod config;
pub mod env;
pub mod host;
pub mod inputs;
pub mod nearest;
pub mod net;
pub mod observe;
pub mod places;
pub mod reason;
pub mod sandbox;
pub mod sched;
pub mod store;
pub mod toolchain;
pub mod view;
pub mod worker;
