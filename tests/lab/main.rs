//! Whole machines, real multicast, real projects: the claims that only a network can test.
//!
//! - `machine`   machines in namespaces, and commands on them
//! - `corpora`   the sources of real projects, pinned and fetched
//! - `build`     lists of compiles, run with and without the launcher, compared byte by byte
//! - `reference` what the local compilers make, kept from run to run
//! - `roots`     other roots than the computer's: without a compiler, of another release
//! - `itself`    that these do what they say
//! - `agents`    agents on machines, joined and counted
//! - `joining`, `networks`, `builds`, `elsewhere`, `faults`, `again`, `together`   the claims
//!
//! Linux as root; anything else is skipped visibly, and is a failure under `MESH_TEST_NO_SKIP=1`.
#![cfg(target_os = "linux")]

mod again;
mod agents;
mod build;
mod builds;
mod corpora;
mod elsewhere;
mod faults;
mod itself;
mod joining;
mod machine;
mod networks;
mod reference;
mod roots;
mod together;

use machine::{Lab, Spec};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

/// Labs one at a time: two builds at once on a small computer would blur what each one's times say.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A lab, and the turn that it holds.
struct Turn {
    lab: Lab,
    _turn: MutexGuard<'static, ()>,
}

/// Brings machines up, or says why the test is skipped.
fn lab(specs: Vec<Spec>, hidden: &[PathBuf]) -> Option<Turn> {
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match Lab::new(specs, hidden) {
        Ok(lab) => Some(Turn { lab, _turn: turn }),
        Err(why) => skip(&why),
    }
}

/// Says on the standard error that a test is skipped and why; panics where skipping is forbidden.
fn skip<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("MESH_TEST_NO_SKIP").is_none_or(|value| value != "1"), "would be skipped: {why}");
    eprintln!("skipped: {why}");
    None
}
