//! Logs (DO).
