//! The loop that knows everybody (DO).

pub mod wire;
