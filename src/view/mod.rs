//! What people see (DECIDE).

pub mod snapshot;
