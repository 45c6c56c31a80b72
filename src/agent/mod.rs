//! The loop that knows everybody (DO).

pub mod dial;
pub mod outputs;
pub mod records;
pub mod wire;
