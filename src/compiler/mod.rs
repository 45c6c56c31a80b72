//! What a compiler command line means (DECIDE).
//!
//! Nothing here reads a file, the environment or the clock: values in, values out.

pub mod invocation;
pub mod plan;
