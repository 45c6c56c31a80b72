//! Content on disk (DO).
