//! The loop that knows everybody (DO).
