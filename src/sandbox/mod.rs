//! Runs one program with nothing but what its policy lists (DO).
