//! The loop that knows everybody (DO).

pub mod dial;
pub mod outputs;
pub mod records;
pub mod run;
pub mod wire;
pub use run::{Options, run};
