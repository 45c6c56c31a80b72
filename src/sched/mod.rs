//! Who runs a job (DECIDE).

pub mod admit;
pub mod choose;
pub mod guest;
pub mod lend;
pub mod retry;
