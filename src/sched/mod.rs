//! Who runs a job (DECIDE).
