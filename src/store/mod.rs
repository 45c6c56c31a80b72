//! Content on disk (DO).

pub mod blobs;
pub mod checkouts;
pub mod evict;
pub mod layout;
pub mod results;
