//! The loop that knows everybody (DO).

pub mod dial;
pub mod wire;
