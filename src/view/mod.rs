//! What people see (DECIDE).
