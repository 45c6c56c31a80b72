//! Agents and peers killed, frozen, absent; disks full: never worse than without.

use crate::{
    desk::{Desk, Streams, Unit, Where, assert_same_files, desk, run, slow},
    env::{Agent, Ground, MESH_CC, Ran, leftovers, processes, until},
};
use mesh::{
    agent::wire::{Ask, Tell},
    reason::Reason,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A compile takes this long at most on a busy computer, beyond what a fault may cost.
const COMPILE: Duration = Duration::from_secs(2);
/// What a frozen agent may cost once.
const FROZEN_ONCE: Duration = Duration::from_millis(2500);

/// The end of a compile that had a fault on its way: it is what the compiler alone makes, and mesh left nothing.
#[track_caller]
fn ends_well(desk: &Desk, unit: &Unit, child: Child) {
    let ran: Ran = child.wait_with_output().unwrap().into();
    ran.good();
    let made = desk.files();
    run(desk.bare(unit), Streams::Apart).good();
    assert_same_files(&desk.files(), &made, "after a fault");
    assert_eq!(leftovers(&desk.project), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_peer_that_is_killed_in_mid_compile_costs_no_unit() {
    let Some(mut desk) = desk() else { return };
    desk.spoilt = true;
    let unit = slow(&desk, "killed", 250_000);
    let child = desk.begin(&unit, "killed.cc");
    desk.provider.kill();
    ends_well(&desk, &unit, child);
    let last = desk.last();
    assert_eq!(last.reason, Some(Reason::PeerLost), "{}", last.note);
    // Its compiler dies with it.
    until("no process is left", || processes(b"killed.cc").is_empty().then_some(()));
    // It comes back and is used again, without anybody saying so.
    let ground = &desk.0_ground();
    desk.provider.start(ground);
    desk.provider.answers();
    desk.meet();
    desk.same_there("g++ -std=c++17 -c killed.cc -fconstexpr-loop-limit=2147483647 -o again.o");
}
