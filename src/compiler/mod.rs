//! What a compiler command line means (DECIDE).
