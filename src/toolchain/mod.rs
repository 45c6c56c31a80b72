//! Finds compilers, fingerprints them, closes over their files (DO).
