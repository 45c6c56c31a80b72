//! Where units go on real agents: a machine that stops answering, one that is slow, one that two want, and what happens to
//! this one when others are lost.

use crate::{
    desk::{Desk, Files, Streams, Unit, assert_same_files, brief, desk, is_compiler, run},
    env::{Agent, Ground, descends, processes, until},
    turns,
};
use mesh::{
    agent::wire::{Ask, Tell},
    view::snapshot::JobPlace,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A peer that says nothing is given up after so long.
const MISSED: Duration = Duration::from_secs(10);
/// Units of one class before any of it is called late.
const ENOUGH: usize = 26;
/// Builds after which a machine is known, at most.
const BUILDS_MAX: usize = 6;
/// Between two looks at what runs.
const LOOK: Duration = Duration::from_millis(20);

/// For whom an agent compiles now, by its own list: a name for each job.
fn guests(agent: &Agent) -> Vec<String> {
    let Tell::Jobs(jobs) = agent.ask(&Ask::Jobs) else { panic!("no list of jobs") };
    let name = |place| match place {
        JobPlace::For(name) => Some(name),
        _ => None,
    };
    jobs.into_iter().filter_map(|job| name(job.place)).collect()
}

/// Compiles all units, so many at once, and calls `watch` every now and then with how many have not begun.
fn build(desk: &Desk, units: &[Unit], at_once: usize, watch: impl FnMut(usize)) {
    build_by(|unit| desk.launcher(unit), units, at_once, watch);
}

fn build_by(
    command: impl Fn(&Unit) -> std::process::Command + Sync,
    units: &[Unit],
    at_once: usize,
    mut watch: impl FnMut(usize),
) {
    let (next, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            run(command(unit), Streams::Apart).good();
            ended.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        while !all.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            watch(units.len().saturating_sub(next.load(Ordering::Relaxed)));
            std::thread::sleep(LOOK);
        }
    });
    assert_eq!(ended.into_inner(), units.len());
}

/// What the compiler itself makes of the units, taken away again.
fn made_by_the_compiler(desk: &Desk, units: &[Unit]) -> Files {
    let before = desk.files();
    build_by(|unit| desk.bare(unit), units, mesh::host::cores() as usize, |_| ());
    let made = desk.files();
    desk.restore(&before);
    made
}

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
    // Little to send and much to compile: so it is met in the middle.
    let text = "#define A(x) int f##x(int n) { int s = 0; while (n--) s += n * s ^ 1##x; return s; }\n\
                #define B(x) A(x##0) A(x##1) A(x##2) A(x##3) A(x##4)\n#define C(x) B(x##0) B(x##1) B(x##2) B(x##3) B(x##4)\n\
                C(0) C(1) C(2) C(3) C(4) C(5) C(6) C(7)\n";
    desk.write(format!("u{ENOUGH}.c"), text);
    let made = made_by_the_compiler(&desk, std::slice::from_ref(&late));
    let before = desk.provider.snapshot().counters;
    let name = format!("u{ENOUGH}.c");
    let begun = desk.begin(&late, &name);
    assert_eq!(guests(&desk.provider), ["laptop"], "it is under way there");
    desk.provider.signal(Signal::STOP);
    let began = Instant::now();
    begun.ends_without().good();
    let took = began.elapsed();
    let there = || {
        let mut all = processes(name.as_bytes()).into_iter();
        all.any(|pid| is_compiler(pid) && descends(pid, desk.provider.pid()))
    };
    assert!(there(), "nobody has ended its compiler yet");
    desk.provider.signal(Signal::CONT);
    assert!(took < MISSED / 2, "{took:?}");
    assert_same_files(&made, &desk.files(), "a unit that was started twice");
    let counters = desk.client.snapshot().counters;
    assert_eq!((counters.hedges, counters.hedges_won), (1, 1), "{:?}", desk.last());
    // The one that lost is gone there, by that machine's own count, and its slot is free again for both.
    until("the machine that was frozen has given the unit up", || {
        let now = desk.provider.snapshot();
        let is_free = now.this.slots > 0 && now.this.free == now.this.slots;
        (is_free && now.counters.not_served == before.not_served + 1 && !there()).then_some(())
    });
    assert_eq!(guests(&desk.provider), Vec::<String>::new());
    assert_eq!(desk.served(), before.served);
    let idle = || desk.client.snapshot().peers.iter().any(|peer| peer.slots > 0 && peer.free == peer.slots);
    until("the client knows it", || idle().then_some(()));
}

#[test]
fn no_more_compilers_run_here_than_there_are_cores_when_the_peer_is_lost() {
    let Some(mut desk) = desk() else { return };
    desk.spoilt = true;
    let cores = mesh::host::cores() as usize;
    let units: Vec<Unit> = (0..40).map(|n| brief(&desk, &format!("cap{n}")).env("MESH", "on")).collect();
    let made = made_by_the_compiler(&desk, &units);
    let (served, provider) = (desk.served(), desk.provider.pid());
    let here = || {
        let all = processes(b"cap").into_iter().filter(|pid| is_compiler(*pid));
        all.filter(|pid| !descends(*pid, provider)).count()
    };
    let (mut peak, mut there, mut killed, mut after) = (0, (0, 0), None::<Instant>, 0);
    // Taken out so that it can be killed while the others use the desk.
    let seen = desk.provider.seen();
    let mut lost = std::mem::replace(&mut desk.provider, seen);
    build(&desk, &units, cores * 8, |_| match killed {
        None => {
            peak = peak.max(here());
            there = (lost.snapshot().counters.served - served, guests(&lost).len());
            if there.0 > 0 && there.1 > 0 {
                lost.kill();
                killed = Some(Instant::now());
            }
        }
        // What the lost machine ran dies with it.
        Some(at) if at.elapsed() < Duration::from_millis(300) => {}
        Some(_) => {
            after = after.max(here());
            peak = peak.max(after);
        }
    });
    assert!(there.0 > 0 && there.1 > 0, "it had compiled {} units and had {} when it was killed", there.0, there.1);
    assert!(after > 0, "all of them had ended before");
    assert!(peak <= cores, "{peak} compilers ran at once on {cores} cores");
    assert_same_files(&made, &desk.files(), "a build that lost its peer");
}

#[test]
fn two_clients_who_both_want_all_of_a_machine_have_it_in_equal_parts() {
    let Some(desk) = Desk::configured(Ground::new(), "slots = 4\n", "slots = 0\n") else { return };
    desk.meet();
    let Some(other) = desk.second_client("notebook") else { return };
    other.meet();
    let slots = usize::from(desk.provider.snapshot().this.slots);
    assert_eq!(slots, 4);
    // So many at once that each would fill the machine twice.
    let at_once = slots * 2;
    let units = |desk: &Desk| (0..24).map(|n| brief(desk, &format!("share{n}"))).collect::<Vec<_>>();
    let (mine, others) = (units(&desk), units(&other));
    let served = desk.served();
    let (waiting, samples) = (Mutex::new([usize::MAX; 2]), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| build(&other, &others, at_once, |left| waiting.lock().unwrap()[1] = left));
        build(&desk, &mine, at_once, |left| {
            waiting.lock().unwrap()[0] = left;
            let both_want = waiting.lock().unwrap().iter().all(|left| (1..=24 - at_once).contains(left));
            if both_want {
                let now = guests(&desk.provider);
                samples
                    .lock()
                    .unwrap()
                    .push(["laptop", "notebook"].map(|who| now.iter().filter(|w| *w == who).count()));
            }
        });
    });
    assert_eq!(desk.served() - served, 48, "all of them are the provider's");
    // It takes a moment until the machine is ready for both.
    let samples: Vec<_> = samples.into_inner().unwrap();
    let samples: Vec<_> = samples.into_iter().skip_while(|now| now.iter().sum::<usize>() < slots).collect();
    assert!(samples.len() > 20, "{} looks", samples.len());
    let parts = [0, 1].map(|who| samples.iter().map(|now| now[who]).sum::<usize>() * 100 / (samples.len() * slots));
    assert!(parts.iter().all(|part| *part >= 40), "{parts:?} of a hundred in {} looks", samples.len());
}

/// A process and what descends from it.
fn with_descendants(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<u32> =
            lists.flat_map(|list| list.split(' ').flat_map(str::parse).collect::<Vec<_>>()).collect();
        all.extend(children);
        at += 1;
    }
    all
}

/// Lets a process and what descends from it run for a thirtieth of the time. What has not run for a while is let run before
/// others, so that where much else runs it is slower than they are by less than thirty times.
fn slowed<T>(pid: u32, during: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    let signal = |signal| {
        for each in with_descendants(pid).into_iter().filter_map(|each| Pid::from_raw(each.cast_signed())) {
            let _ = kill_process(each, signal);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                signal(Signal::STOP);
                std::thread::sleep(Duration::from_millis(290));
                signal(Signal::CONT);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let _over = Over(&is_over);
        during()
    })
}

/// Says that it is over, however that comes about.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_machine_that_is_slow_is_found_out_and_makes_no_build_slower_then() {
    let _alone = turns::alone();
    let Some(mut desk) = desk() else { return };
    desk.spoilt = true;
    let cores = mesh::host::cores() as usize;
    let units: Vec<Unit> = (0..30).map(|n| brief(&desk, &format!("late{n}")).env("MESH", "on")).collect();
    let timed = |mode: &str, at_once| {
        let units: Vec<Unit> = units.iter().map(|unit| unit.clone().env("MESH", mode)).collect();
        let began = Instant::now();
        build(&desk, &units, at_once, |_| ());
        began.elapsed()
    };
    // As many as run here at once: where other programs run as well, more would have a larger part of the machine.
    let (alone, meshed) = (|| timed("local", cores), || timed("on", cores * 2));
    let made = made_by_the_compiler(&desk, &units);
    slowed(desk.provider.pid(), || {
        // Units must have passed it by before anything is believed of it.
        let is_said = (0..BUILDS_MAX).any(|_| {
            meshed();
            assert_same_files(&made, &desk.files(), "a build with a slow peer");
            let peers = desk.client.mesh(&desk.ground, &["peers"]).out();
            peers.lines().any(|line| line.starts_with("tower") && line.ends_with("too slow to help much"))
        });
        let client = desk.client.snapshot();
        assert!(is_said, "{:?}", client.peers);
        let (asked, remote) = (client.counters.requests, client.counters.remote);
        assert!(remote * 2 < asked, "{remote} of {asked} went there");
        // Other programs run here as well: a build that was disturbed is tried again, and so is what it is measured by.
        let mut ratios: Vec<(f64, Duration, Duration)> = Vec::new();
        while ratios.len() < 3 && ratios.iter().all(|(ratio, ..)| *ratio > 1.25) {
            let (alone, meshed) = (alone(), meshed());
            ratios.push((meshed.as_secs_f64() / alone.as_secs_f64(), alone, meshed));
        }
        assert!(ratios.iter().any(|(ratio, ..)| *ratio <= 1.25), "{ratios:?}");
    });
}
