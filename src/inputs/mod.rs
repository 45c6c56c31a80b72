//! Which files a job reads (DO).
