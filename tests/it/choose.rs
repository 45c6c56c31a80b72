//! Where units go on real agents: a machine that stops answering, and what happens to this one when others are lost.

use crate::{
    desk::{Streams, assert_same_files, desk, is_compiler, run, slow},
    env::{processes, until},
};
use rustix::process::Signal;
use std::{
    process::Child,
    time::{Duration, Instant},
};

/// A peer that says nothing is given up after so long.
const MISSED: Duration = Duration::from_secs(10);
/// Units of one class before any of it is called late.
const ENOUGH: usize = 26;

#[test]
fn a_unit_with_a_frozen_machine_is_started_again_and_ends_long_before_that_one_is_missed() {
    let Some(mut desk) = desk() else { return };
    // A frozen provider cannot be asked how the desk was left.
    desk.spoilt = true;
    let unit = |n: usize| {
        desk.write(format!("u{n}.c"), format!("#include <stdio.h>\nint f{n}(void) {{ return printf(\"{n}\"); }}\n"));
        let line = format!("gcc -O2 -c u{n}.c -o u{n}.o");
        desk.line(&line).env("MESH", "on").env("MESH_PREFER", "tower")
    };
    let served = desk.served();
    for n in 0..ENOUGH {
        run(desk.launcher(&unit(n)), Streams::Apart).good();
    }
    assert_eq!(desk.served(), served + ENOUGH as u64, "all of them are the provider's");
    let late = unit(ENOUGH);
    run(desk.bare(&late), Streams::Apart).good();
    let made = desk.files();
    std::fs::remove_file(desk.project.join(format!("u{ENOUGH}.o"))).unwrap();
    desk.provider.signal(Signal::STOP);
    let began = Instant::now();
    run(desk.launcher(&late), Streams::Apart).good();
    let took = began.elapsed();
    desk.provider.signal(Signal::CONT);
    assert!(took < MISSED / 2, "{took:?}");
    assert_same_files(&made, &desk.files(), "a unit that was started twice");
    let counters = desk.client.snapshot().counters;
    assert_eq!((counters.hedges, counters.hedges_won), (1, 1), "{:?}", desk.last());
    // The slot there is free again.
    let idle = || desk.client.snapshot().peers.iter().any(|peer| peer.slots > 0 && peer.free == peer.slots);
    until("the machine that was frozen has given the unit up", || idle().then_some(()));
}

#[test]
fn no_more_compilers_run_here_than_there_are_cores_when_the_peer_is_lost() {
    let Some(mut desk) = desk() else { return };
    desk.spoilt = true;
    let cores = mesh::host::cores() as usize;
    let units: Vec<_> = (0..cores * 8).map(|n| slow(&desk, &format!("cap{n}")).env("MESH", "on")).collect();
    let mut children: Vec<Child> = units.iter().map(|unit| desk.launcher(unit).spawn().unwrap()).collect();
    let compilers = || processes(b"cap").into_iter().filter(|pid| is_compiler(*pid)).count();
    until("compilers run", || (compilers() > 0).then_some(()));
    desk.provider.kill();
    // What the lost machine ran dies with it.
    std::thread::sleep(Duration::from_millis(300));
    let mut most = 0;
    for child in &mut children {
        while child.try_wait().unwrap().is_none() {
            most = most.max(compilers());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(child.wait().unwrap().success());
    }
    assert!(most > 0, "all of them had ended before");
    assert!(most <= cores, "{most} compilers ran at once on {cores} cores");
}
