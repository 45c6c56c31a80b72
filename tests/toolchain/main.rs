//! Compilers: what is found of them, what a change of them does, and whether what is found is all of them.
#![cfg(target_os = "linux")]

mod families;
mod proofs;
mod truth;
mod upgrade;

/// Says that a test did not run, or fails if that is not allowed.
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
    assert!(std::env::var("MESH_TEST_NO_SKIP").as_deref() != Ok("1"), "skipping is forbidden: {why}");
}
