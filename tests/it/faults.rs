//! Agents and peers killed, frozen, absent; disks full: never worse than without.

use crate::{
    desk::{Begun, Desk, Streams, Unit, Where, assert_same_files, desk, is_compiler, run, slow},
    env::{Agent, Ground, MESH, MESH_CC, Ran, leftovers, processes, until},
};
use mesh::{
    agent::wire::{Ask, Tell},
    launch::beat::SILENCE_MS_MAX,
    reason::Reason,
};
use rustix::process::Signal;
use std::{
    path::PathBuf,
    process::Child,
    time::{Duration, Instant},
};

/// A small compile takes this long at most, on a busy computer.
const COMPILE: Duration = Duration::from_secs(1);
/// What a frozen agent may cost once.
const FROZEN_ONCE: Duration = Duration::from_millis(2500);

/// The end of a compile that had a fault on its way: it is what the compiler alone makes, and mesh left nothing.
#[track_caller]
fn ends_well(desk: &Desk, unit: &Unit, begun: Begun) {
    begun.ends().good();
    let made = desk.files();
    run(desk.bare(unit), Streams::Apart).good();
    assert_same_files(&desk.files(), &made, "after a fault");
    assert_eq!(leftovers(&desk.project), Vec::<PathBuf>::new());
}

#[test]
fn a_unit_that_takes_longer_than_a_launcher_waits_for_silence_is_waited_for() {
    let Some(desk) = desk() else { return };
    let unit = slow(&desk, "long");
    let served = desk.served();
    let begun = desk.begin(&unit, "long.cc");
    std::thread::sleep(Duration::from_millis(SILENCE_MS_MAX + 600));
    ends_well(&desk, &unit, begun);
    assert_eq!((desk.last().reason, desk.served()), (None, served + 1));
}

/// Two desks at once, because a lost peer is only noticed by its silence.
#[test]
fn a_peer_that_is_killed_or_frozen_in_mid_compile_costs_no_unit() {
    let Some(mut killed) = desk() else { return };
    let Some(frozen) = Desk::on(Ground::new()) else { return };
    let units = [slow(&killed, "killed"), slow(&frozen, "frozen")];
    let first = killed.begin(&units[0], "killed.cc");
    killed.provider.kill();
    let second = frozen.begin(&units[1], "frozen.cc");
    frozen.provider.signal(Signal::STOP);
    // The compiler dies with its agent.
    let runs = || processes(b"killed.cc").into_iter().any(is_compiler);
    until("no compiler is left", || (!runs()).then_some(()));
    ends_well(&killed, &units[0], first);
    assert_eq!(killed.last().reason, Some(Reason::PeerLost), "{}", killed.last().note);
    ends_well(&frozen, &units[1], second);
    assert_eq!(frozen.last().reason, Some(Reason::PeerLost), "{}", frozen.last().note);
    // What comes late is not taken.
    frozen.write("frozen.o", "made of it");
    frozen.provider.signal(Signal::CONT);
    frozen.meet();
    assert_eq!(frozen.read("frozen.o"), b"made of it");
    // Each is used again, without anybody saying so.
    killed.restart_provider();
    for desk in [&*killed, &frozen] {
        settled(desk);
        desk.write("x.c", "int x;\n");
        desk.same_there("gcc -c x.c -o x.o");
    }
}

#[test]
fn a_peer_that_is_told_to_end_finishes_what_runs() {
    let Some(mut desk) = desk() else { return };
    let unit = slow(&desk, "drained");
    let served = desk.served();
    let child = desk.begin(&unit, "drained.cc");
    desk.provider.signal(Signal::TERM);
    // Meanwhile it takes nothing new.
    desk.write("x.c", "int x;\n");
    run(desk.launcher(&desk.line("gcc -c x.c")), Streams::Apart).good();
    assert!(desk.last().reason.is_some());
    ends_well(&desk, &unit, child);
    assert_eq!(desk.last().reason, None, "{}", desk.last().note);
    assert_eq!(desk.provider.ended(), Some(0));
    assert_eq!(desk.provider.written("served"), served + 1);
    desk.restart_provider();
}

#[test]
fn an_agent_that_is_told_to_end_delivers_what_runs() {
    let Some(mut desk) = desk() else { return };
    let unit = slow(&desk, "delivered");
    let remote = desk.client.snapshot().counters.remote;
    let child = desk.begin(&unit, "delivered.cc");
    desk.client.signal(Signal::TERM);
    ends_well(&desk, &unit, child);
    assert_eq!(desk.client.ended(), Some(0));
    assert_eq!(desk.client.written("remote"), remote + 1);
    assert!(!desk.client.socket().exists());
    desk.restart_client();
}

#[test]
fn without_an_agent_it_compiles_and_one_is_started_that_founds_no_mesh() {
    let ground = Ground::new();
    let agent = Agent::new(&ground, "alone");
    std::fs::write(ground.dir.join("x.c"), "int x;\n").unwrap();
    let compile = || {
        let mut command = ground.command(MESH_CC);
        command.args(["gcc", "-c", "x.c", "-o", "x.o"]).current_dir(&ground.dir);
        command.env("MESH", "on").env("MESH_DIR", &agent.home).env("MESH_LOOPBACK", "1").env("MESH_PORT", "0");
        command.env("SECRET", "of a build").env("MESH_CACHE", "read");
        let begun = Instant::now();
        // Its pipes are read to their end: an agent that kept them open would hold the build.
        Ran::of(&mut command).good();
        begun.elapsed()
    };
    let first = compile();
    let begun = until("an agent has been started", || agent.try_snapshot());
    agent.owns(begun.pid);
    assert!(first < FROZEN_ONCE, "{first:?}");
    assert_eq!(begun.mesh, None);
    let environment = std::fs::read(format!("/proc/{}/environ", begun.pid)).unwrap();
    assert!(!environment.windows(6).any(|w| w == b"SECRET"), "it has nothing of the build's environment");
    assert!(environment.windows(15).any(|w| w == b"MESH_CACHE=read"), "but for its own settings");
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", begun.pid)).unwrap();
    assert_eq!(cwd, PathBuf::from("/"));
    compile();
    let now = agent.try_snapshot().unwrap();
    assert_eq!((now.pid, now.mesh, now.counters.local), (begun.pid, None, vec![(Reason::NoMesh, 1)]));
    let down = agent.mesh(&ground, &["down"]);
    assert_eq!(down.code, Some(0), "{}", down.err());
    assert_eq!(agent.try_snapshot(), None);
    assert!(!PathBuf::from(format!("/proc/{}/cmdline", begun.pid)).exists() || is_defunct(begun.pid));
}

fn is_defunct(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn many_launchers_without_an_agent_start_one() {
    let ground = Ground::new();
    let agent = Agent::new(&ground, "alone");
    std::fs::write(ground.dir.join("x.c"), "int x;\n").unwrap();
    let launch = |n: u32| {
        let mut command = ground.command(MESH_CC);
        command.args(["gcc", "-c", "x.c", "-o", &format!("x{n}.o")]).current_dir(&ground.dir);
        command.env("MESH", "on").env("MESH_DIR", &agent.home).env("MESH_LOOPBACK", "1").env("MESH_PORT", "0");
        command.spawn().unwrap()
    };
    for mut child in (0..8).map(launch).collect::<Vec<_>>() {
        assert!(child.wait().unwrap().success());
    }
    let now = until("an agent has been started", || agent.try_snapshot());
    agent.owns(now.pid);
    let home = agent.home.as_os_str().as_encoded_bytes();
    let is_here = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(home.len()).any(|w| w == home)
    };
    // A program that the agent is about to run is its image for a moment. A second agent would stay.
    until("there is one agent", || {
        let agents: Vec<u32> = processes(b"agent").into_iter().filter(is_here).collect();
        (agents == [now.pid]).then_some(())
    });
    assert_eq!(agent.mesh(&ground, &["down"]).code, Some(0));
}

#[test]
fn a_second_agent_says_that_one_is_running() {
    let Some(desk) = desk() else { return };
    let mut command = desk.ground.command(MESH);
    command.args(["agent", "--port", "0"]).env("MESH_DIR", &desk.client.home).env("MESH_LOOPBACK", "1");
    let ran = Ran::of(&mut command);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err().contains("running already"), "{}", ran.err());
    // The first one has not lost its socket.
    desk.write("x.c", "int x;\n");
    desk.same_there("gcc -c x.c -o x.o");
}

#[test]
fn a_frozen_agent_costs_one_wait_and_overwrites_nothing_when_it_thaws() {
    let Some(desk) = desk() else { return };
    desk.write("x.c", "int x = 1;\n");
    let unit = desk.line("gcc -c x.c -o x.o");
    desk.same(&unit, Where::There);
    let marker = desk.client.socket().with_extension("frozen");
    desk.client.signal(Signal::STOP);
    let timed = || {
        let begun = Instant::now();
        run(desk.launcher(&unit), Streams::Apart).good();
        begun.elapsed()
    };
    let first = timed();
    assert!(first < FROZEN_ONCE + COMPILE && marker.exists(), "{first:?}");
    for _ in 0..3 {
        let next = timed();
        assert!(next < COMPILE, "{next:?}");
    }
    // Somebody makes something of the object, then the agent wakes up and finds the request in its socket.
    desk.write("x.o", "made of it");
    desk.client.signal(Signal::CONT);
    until("the marker is taken away", || (!marker.exists()).then_some(()));
    until("it answers", || desk.client.try_snapshot());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(desk.read("x.o"), b"made of it");
    assert_eq!(leftovers(&desk.project), Vec::<PathBuf>::new());
    desk.meet();
    desk.write("x.c", "int x = 2;\n");
    settled(&desk);
    desk.same(&unit, Where::There);
}

/// Waits until the counters stand still: what a fault left under way has been counted.
fn settled(desk: &Desk) {
    let counts = || {
        let (a, b) = (desk.provider.snapshot().counters, desk.client.snapshot().counters);
        (a.served, a.not_served, b.requests, b.remote, b.local)
    };
    until("the counters stand still", || {
        let before = counts();
        std::thread::sleep(Duration::from_millis(150));
        (counts() == before).then_some(())
    });
}

#[test]
fn an_agent_that_freezes_in_mid_compile_costs_its_silence_and_no_more() {
    let Some(desk) = desk() else { return };
    let unit = slow(&desk, "silent");
    let child = desk.begin(&unit, "silent.cc");
    desk.client.signal(Signal::STOP);
    ends_well(&desk, &unit, child);
    desk.write("silent.o", "made of it");
    desk.client.signal(Signal::CONT);
    until("it answers", || desk.client.try_snapshot());
    settled(&desk);
    assert_eq!(desk.read("silent.o"), b"made of it");
    assert_eq!(leftovers(&desk.project), Vec::<PathBuf>::new());
    let marker = desk.client.socket().with_extension("frozen");
    until("the marker is taken away", || (!marker.exists()).then_some(()));
    desk.meet();
}

#[test]
fn an_agent_that_is_killed_in_mid_compile_costs_no_unit() {
    let Some(mut desk) = desk() else { return };
    let unit = slow(&desk, "orphan");
    let child = desk.begin(&unit, "orphan.cc");
    desk.client.kill();
    ends_well(&desk, &unit, child);
    // The launcher may have started another one, in the place of the one that was killed.
    desk.client.mesh(&desk.ground, &["down"]);
    desk.restart_client();
    desk.write("x.c", "int x;\n");
    settled(&desk);
    desk.same_there("gcc -c x.c -o x.o");
}

#[test]
fn a_launcher_that_is_killed_leaves_no_process_and_no_file() {
    let Some(desk) = desk() else { return };
    let unit = slow(&desk, "endless");
    let before = desk.files();
    let not_served = desk.provider.snapshot().counters.not_served;
    desk.begin(&unit, "endless.cc").kill();
    let killed = Instant::now();
    until("no process is left", || processes(b"endless.cc").is_empty().then_some(()));
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    assert_same_files(&before, &desk.files(), "after a launcher's death");
    until("it is counted", || (desk.provider.snapshot().counters.not_served == not_served + 1).then_some(()));
    until("the slot is free", || {
        let this = desk.provider.snapshot().this;
        (this.slots == this.free).then_some(())
    });
}

#[test]
fn a_full_disk_here_fails_only_where_the_compiler_would() {
    let Some(desk) = desk() else { return };
    let at = desk.project.join("disk");
    let Some(disk) = desk.ground.small_disk(&at, 96) else { return };
    // The desk may come from a test that has killed its provider, whose old connection is only missed after a while.
    desk.write("first.c", "int first;\n");
    until("the peer is used", || {
        run(desk.launcher(&desk.line("gcc -c first.c -o first.o")), Streams::Apart).good();
        desk.last().reason.is_none().then_some(())
    });
    desk.write("disk/x.c", "char big[60000] = { 1 };\n");
    // Through a pipe, because the name of a temporary file would be in the message.
    let unit = desk.line("gcc -pipe -c x.c -o x.o").cwd(&at);
    // Room for one object, not for two: the compiler removes the old one first.
    desk.same(&unit, Where::There);
    desk.same(&unit, Where::Here(Reason::DiskFull));
    // Room for none.
    std::fs::remove_file(at.join("x.o")).unwrap();
    let filler = disk.fill();
    let ran = desk.same(&unit, Where::Here(Reason::DiskFull));
    assert_eq!(ran.code, Some(1));
    std::fs::remove_file(filler).unwrap();
    desk.same(&unit, Where::There);
    assert_eq!(leftovers(&desk.project), Vec::<PathBuf>::new());
}

#[test]
fn a_full_disk_at_the_peer_is_the_peers_trouble_only() {
    let ground = Ground::new();
    let cache = ground.dir.join("tower/cache");
    let Some(disk) = ground.small_disk(&cache, 120 << 10) else { return };
    let Some(desk) = Desk::on(ground) else { return };
    desk.write("x.c", "int x = 1;\n");
    let compiled = || {
        run(desk.launcher(&desk.line("gcc -c x.c -o x.o")), Streams::Apart).good();
        desk.last().reason
    };
    until("the peer has its first compiler ready", || compiled().is_none().then_some(()));
    // The other compilers do not fit; it goes on trying them for a moment.
    until("the peer's disk stands still", || {
        let room = || rustix::fs::statvfs(&cache).unwrap().f_bavail;
        let before = room();
        std::thread::sleep(Duration::from_millis(400));
        (room() == before).then_some(())
    });
    let filler = disk.fill();
    desk.write("x.h", format!("/* {} */\nint y;\n", "not seen before ".repeat(1000)));
    desk.write("x.c", "#include \"x.h\"\nint x = 2;\n");
    let plain = run(desk.bare(&desk.line("gcc -c x.c -o x.o")), Streams::Apart);
    let made = desk.files();
    plain.good();
    std::fs::remove_file(desk.project.join("x.o")).unwrap();
    // The peer may have noticed already, and said that it lends nothing.
    let reason = compiled();
    assert!(matches!(reason, Some(Reason::RemoteError | Reason::PeersPaused)), "{reason:?}: {}", desk.last().note);
    assert_same_files(&made, &desk.files(), "the peer's disk is full");
    std::fs::remove_file(filler).unwrap();
    until("the peer has room again", || compiled().is_none().then_some(()));
    desk.same_there("gcc -c x.c -o x.o");
    drop(desk);
}

#[test]
fn a_build_goes_on_while_its_peer_is_killed_and_comes_back() {
    let Some(mut desk) = desk() else { return };
    let sources: Vec<String> = (0..24).map(|n| format!("u{n}")).collect();
    for (n, name) in sources.iter().enumerate() {
        desk.write(format!("{name}.c"), format!("#include <stdio.h>\nint f{n}(void) {{ return printf(\"{n}\"); }}\n"));
    }
    let unit = |name: &String| desk.line(&format!("gcc -O2 -g -MD -c {name}.c -o {name}.o"));
    for name in &sources {
        run(desk.bare(&unit(name)), Streams::Apart).good();
    }
    let made = desk.files();
    let children: Vec<Child> = sources
        .iter()
        .map(|name| {
            std::fs::remove_file(desk.project.join(format!("{name}.o"))).unwrap();
            desk.launcher(&unit(name).env("MESH", "on")).spawn().unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(60));
    desk.provider.kill();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_same_files(&made, &desk.files(), "a build with a peer killed");
    desk.restart_provider();
    assert!(matches!(desk.client.ask(&Ask::Snapshot), Tell::Snapshot(_)));
}
