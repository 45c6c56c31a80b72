//! Whatever happens to an agent, a build ends as if there were no mesh, and little later.

use crate::agents::{LAUNCHER, Node, joined, served, warm_up};
use crate::build::{self, Compilers, Made, Unit, Way};
use crate::corpora::{self, Corpus};
use crate::machine::{Account, Spec, eventually};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long launchers may wait for an agent that does not answer: once, for the whole build.
const LOST: Duration = Duration::from_secs(2);
/// What else a shared computer may add to a build's time.
const NOISE: Duration = Duration::from_secs(3);
/// How long a unit may hang on a peer that froze.
const FROZEN_PEER: Duration = Duration::from_secs(60);
/// Small compiles in a row.
const TRIFLES: usize = 12;
/// Units in a faulty build.
const UNITS: usize = 16;
/// Until a thawed agent has done whatever it may still do.
const THAWED: Duration = Duration::from_secs(4);

fn machines() -> Option<crate::Turn> {
    let client = Spec::new("client", Account::Ordinary).sees(&corpora::folder());
    let specs = vec![client, Spec::new("tower", Account::Ordinary), Spec::new("attic", Account::Ordinary)];
    crate::lab(specs, &[corpora::folder()])
}

/// C++ units that take long enough for something to happen meanwhile.
pub(crate) fn units() -> Option<Vec<Unit>> {
    let all = Corpus::Abseil.units().map_err(|why| crate::skip::<()>(&why)).ok()?;
    Some(build::spread(all, UNITS))
}

pub(crate) fn way() -> Way {
    Way::new(Compilers::Gcc, "-O2 -g -MD").env("MESH", "force")
}

/// The plain compiler's results, and how long it took.
pub(crate) fn reference(node: &Node<'_>, units: &[Unit]) -> (Made, Duration) {
    let begun = Instant::now();
    let made = build::build(node.machine, units, &way(), &[]);
    assert_eq!(made.succeeded(), units.len(), "{made:?}");
    (made, begun.elapsed())
}

/// Panics if a build took much longer than the plain compiler's. Other work on this computer may have begun meanwhile, so
/// the plain compiler is timed once more before that is said.
#[track_caller]
fn assert_little_later(node: &Node<'_>, units: &[Unit], took: Duration, alone: Duration) {
    let bound = |alone: Duration| alone * 2 + LOST + NOISE;
    if took < bound(alone) {
        return;
    }
    let (_, again) = reference(node, units);
    assert!(took < bound(again), "took {took:?}, the plain compiler {alone:?} before and {again:?} after");
}

/// A build during which something happens, as soon as some units were compiled elsewhere.
#[track_caller]
pub(crate) fn build_while(nodes: &[Node<'_>], units: &[Unit], happens: impl FnOnce()) -> (Made, Duration) {
    let before = served(nodes);
    let begun = Instant::now();
    let mut building = build::start(nodes[0].machine, units, &way().jobs(6), LAUNCHER);
    let going = eventually(Duration::from_secs(60), || (served(nodes) >= before + 2).then_some(()));
    assert!(going.is_some() && !building.is_over(), "the build was to be half done: {}", nodes[0].log());
    happens();
    (building.finish(), begun.elapsed())
}

/// How long each of so many small compiles takes, one after the other, as the machine itself measures it.
#[track_caller]
fn trifles(node: &Node<'_>) -> Vec<Duration> {
    std::fs::write(node.machine.outside("/home/dev/trifle.c"), "int trifle;\n")
        .expect("the machine's files can be written");
    let script = format!(
        "for n in $(seq {TRIFLES}); do begun=$(date +%s%N); \
         mesh-cc gcc -c /home/dev/trifle.c -o /tmp/trifle.o; echo $(($(date +%s%N) - begun)); done"
    );
    let said = node.machine.sh(&script);
    said.lines().map(|line| Duration::from_nanos(line.parse().expect("a number of nanoseconds"))).collect()
}

#[test]
fn a_frozen_agent_is_waited_for_once_and_by_no_later_launcher() {
    let Some(turn) = machines() else { return };
    let nodes = joined(&turn.lab);
    warm_up(&nodes);
    let slow = |took: &[Duration]| took.iter().filter(|t| **t >= LOST).count();
    assert_eq!(slow(&trifles(&nodes[0])), 0, "a trifle takes two seconds here without any fault");
    agent_signal(&nodes[0], Signal::STOP);
    let took = trifles(&nodes[0]);
    assert_eq!(slow(&took), 1, "exactly the first launcher waits: {took:?}");
    assert!(took[0] >= LOST && took[0] < LOST + NOISE, "{took:?}");
    agent_signal(&nodes[0], Signal::CONT);
    warm_up(&nodes);
}

#[track_caller]
fn agent_signal(node: &Node<'_>, signal: Signal) {
    node.agent.as_ref().expect("it was started").signal(signal);
}

#[test]
fn a_peer_killed_in_mid_build_costs_no_unit_and_no_byte() {
    let (Some(units), Some(turn)) = (units(), machines()) else { return };
    let nodes = joined(&turn.lab);
    warm_up(&nodes);
    let (wanted, _) = reference(&nodes[0], &units);
    let before = nodes[2].served();
    let (made, _) = build_while(&nodes, &units, || agent_signal(&nodes[1], Signal::KILL));
    made.assert_same(&wanted, "a peer was killed");
    assert!(nodes[2].served() > before, "the other peer goes on");
}

#[test]
fn a_peer_frozen_in_mid_build_costs_no_unit_and_no_byte() {
    let (Some(units), Some(turn)) = (units(), machines()) else { return };
    let nodes = joined(&turn.lab);
    warm_up(&nodes);
    let (wanted, alone) = reference(&nodes[0], &units);
    let (made, took) = build_while(&nodes, &units, || agent_signal(&nodes[1], Signal::STOP));
    made.assert_same(&wanted, "a peer was frozen");
    assert!(took < alone * 2 + FROZEN_PEER, "took {took:?}, the plain compiler {alone:?}");
    agent_signal(&nodes[1], Signal::CONT);
}

#[test]
fn with_no_agent_a_build_goes_on() {
    let (Some(units), Some(turn)) = (units(), machines()) else { return };
    let node = Node::install(&turn.lab.machines[0]);
    let (wanted, alone) = reference(&node, &units);
    let begun = Instant::now();
    build::build(node.machine, &units, &way(), LAUNCHER).assert_same(&wanted, "no agent");
    let took = begun.elapsed();
    assert_little_later(&node, &units, took, alone);
    // The launcher starts one, for the next build.
    let started = eventually(LOST, || node.mesh(&["status"]).status.success().then_some(()));
    assert!(started.is_some() && !node.machine.processes("mesh agent").is_empty(), "{:?}", node.mesh(&["status"]));
}

#[test]
fn an_agent_killed_in_mid_build_costs_no_unit_and_no_byte() {
    let (Some(units), Some(turn)) = (units(), machines()) else { return };
    let nodes = joined(&turn.lab);
    warm_up(&nodes);
    let (wanted, alone) = reference(&nodes[0], &units);
    let (made, took) = build_while(&nodes, &units, || agent_signal(&nodes[0], Signal::KILL));
    made.assert_same(&wanted, "the client's agent was killed");
    assert_little_later(&nodes[0], &units, took, alone);
}

/// Which file lies at each place: inode, time of change, content.
fn identities(folder: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).expect("the folder is there").flatten();
    let identity = |path: PathBuf| {
        let meta = std::fs::metadata(&path).expect("the file is there");
        let content = std::fs::read(&path).expect("the file can be read");
        (path, (meta.ino(), meta.mtime(), meta.mtime_nsec(), content))
    };
    entries.map(|entry| identity(entry.path())).collect()
}

#[test]
fn a_frozen_agent_costs_two_seconds_once_and_overwrites_nothing_when_it_thaws() {
    let (Some(units), Some(turn)) = (units(), machines()) else { return };
    let nodes = joined(&turn.lab);
    warm_up(&nodes);
    let client = nodes[0].machine;
    let (wanted, alone) = reference(&nodes[0], &units);

    let begun = Instant::now();
    agent_signal(&nodes[0], Signal::STOP);
    build::build(client, &units, &way(), LAUNCHER).assert_same(&wanted, "the agent was frozen before the build");
    let took = begun.elapsed();
    assert_little_later(&nodes[0], &units, took, alone);
    agent_signal(&nodes[0], Signal::CONT);
    warm_up(&nodes);

    let (made, took) = build_while(&nodes, &units, || agent_signal(&nodes[0], Signal::STOP));
    made.assert_same(&wanted, "the agent was frozen in mid-build");
    assert_little_later(&nodes[0], &units, took, alone);
    // A later build, without the launcher, makes other objects; the thawed agent must leave them alone.
    let other = Way::new(Compilers::Gcc, "-O0");
    let later = build::build(client, &units, &other, &[]);
    assert_ne!(later, wanted);
    let before = identities(&client.outside("/home/dev/out"));
    agent_signal(&nodes[0], Signal::CONT);
    std::thread::sleep(THAWED);
    let after = identities(&client.outside("/home/dev/out"));
    let changed: Vec<_> =
        after.iter().filter(|(path, file)| before.get(*path) != Some(file)).map(|(path, _)| path).collect();
    assert!(changed.is_empty() && before.len() == after.len(), "the thawed agent wrote {changed:?}");
}
