//! Cores, load, the clock (DO).
