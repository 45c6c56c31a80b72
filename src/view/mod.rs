//! What people see (DECIDE).

pub mod jobs;
pub mod rows;
pub mod snapshot;
pub mod table;
pub mod time;
pub mod toolchains;
