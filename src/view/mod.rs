//! What people see (DECIDE).

pub mod history;
pub mod jobs;
pub mod rows;
pub mod snapshot;
pub mod stats;
pub mod table;
pub mod time;
pub mod toolchains;
