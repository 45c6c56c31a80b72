//! Runs one foreign job (DO).
