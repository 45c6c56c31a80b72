//! A cluster in one thread and in virtual time, from one seed: the product's own decisions, everything else simulated.
//!
//! `world.rs` has machines, events and the clock, `link.rs` the network, `peers.rs`, `client.rs`, `provider.rs` and `share.rs`
//! what an agent does around its decisions, `liar.rs` those who break the rules, `checkers.rs` what must hold all the same. The
//! compiler is a pure function of what its inputs hold, so that the right object is known beforehand. What is not looked
//! for here: a member that returns a wrong object with its right digest, which no digest can show.
//!
//! `MESH_SIM_SEEDS=N` tries N seeds instead of 300, `MESH_SIM_SEED=S` that one, with its trace.

mod checkers;
mod client;
mod farm;
mod liar;
mod link;
mod peers;
mod provider;
mod random;
mod share;
mod world;

use checkers::Checkers;
use liar::Lie;
use link::{MS, Micros, Pace, SECOND};
use mesh_proto::membership::Role;
use random::Random;
use std::collections::{BTreeMap, BTreeSet};
use world::{Fate, Nature, World};

/// Seeds of an ordinary run, over all scenarios.
const SEEDS: u64 = 300;
/// Troubles begin and end within this time.
const TROUBLE: Micros = 60 * SECOND;
/// After the last trouble everything finds together within this: a silent peer is missed, and the longest pause before an
/// address is dialled again passes.
const SETTLE: Micros = 150 * SECOND;
/// What was found together stays so for this long.
const STAY: Micros = 20 * SECOND;

/// What befalls a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    Calm,
    Crashes,
    Partitions,
    Liars,
    Overload,
    Dials,
    Slow,
}

const SCENARIOS: [Scenario; 7] = [
    Scenario::Calm,
    Scenario::Crashes,
    Scenario::Partitions,
    Scenario::Liars,
    Scenario::Overload,
    Scenario::Dials,
    Scenario::Slow,
];

/// A seed has its scenario.
fn scenario(seed: u64) -> Scenario {
    SCENARIOS[usize::try_from(seed % SCENARIOS.len() as u64).expect("few")]
}

/// How one seed went.
struct Run {
    hash: u64,
    counts: BTreeMap<&'static str, u64>,
    remote: u64,
    local: u64,
}

fn role(random: &mut Random) -> Role {
    [Role::Owner, Role::Owner, Role::Peer, Role::Peer, Role::Client, Role::Worker][random.index(6)]
}

/// The cluster of a seed, and what will befall it.
fn prepare(seed: u64) -> World {
    let kind = scenario(seed);
    let pace = match kind {
        Scenario::Dials => Pace { delay_min: MS, delay_max: 400 * MS },
        _ => Pace { delay_min: 200, delay_max: 20 * MS },
    };
    let machines = 3 + usize::try_from(seed / SCENARIOS.len() as u64 % 4).expect("few");
    let mut world = World::new(seed, machines, pace);
    let late = if kind == Scenario::Overload { 0 } else { world.clock.random.index(machines - 1) };
    for m in 1..machines - late {
        let inviters: Vec<usize> = (0..m).filter(|i| world.machines[*i].role() == Some(Role::Owner)).collect();
        let inviter = inviters[world.clock.random.index(inviters.len())];
        let role = role(&mut world.clock.random);
        world.admit(inviter, m, role);
    }
    for newcomer in machines - late..machines {
        let (at, role) = (world.clock.random.below(TROUBLE), role(&mut world.clock.random));
        world.fate(at, Fate::Join { newcomer, role });
    }
    match kind {
        Scenario::Calm => {}
        Scenario::Crashes => crashes(&mut world),
        Scenario::Partitions => partitions(&mut world),
        Scenario::Liars => liars(&mut world, late),
        Scenario::Overload => world.force_percent = 100 * (seed / 7 % 2),
        Scenario::Dials => {
            world.typed_addresses = true;
            if world.clock.random.chance(50) {
                crashes(&mut world);
            }
        }
        Scenario::Slow => slowness(&mut world),
    }
    work(&mut world, kind, seed);
    world
}

/// Who builds what, when.
fn work(world: &mut World, kind: Scenario, seed: u64) {
    let machines = world.machines.len();
    if kind == Scenario::Overload {
        world.compile_max = 500 * MS;
        // A user who types -j1000, and then another one.
        let count = if (seed / 7).is_multiple_of(8) { 1000 } else { 60 };
        world.fate(5 * SECOND, Fate::Ask { machine: 0, count });
        world.fate(6 * SECOND, Fate::Ask { machine: 1, count: count / 4 });
        return;
    }
    for _ in 0..world.clock.random.between(6, 14) {
        let (at, machine) = (world.clock.random.below(TROUBLE), world.clock.random.index(machines));
        let count = u32::try_from(world.clock.random.between(1, 4)).expect("few");
        world.fate(at, Fate::Ask { machine, count });
        let after = at + world.clock.random.below(SECOND);
        match world.clock.random.below(6) {
            0 => world.fate(after, Fate::Cancel { machine }),
            1 => world.fate(after, Fate::Edit { machine }),
            _ => {}
        }
    }
}

fn crashes(world: &mut World) {
    let machines = world.machines.len();
    for _ in 0..world.clock.random.between(1, 6) {
        let (at, machine) = (world.clock.random.below(TROUBLE), world.clock.random.index(machines));
        let down = if world.clock.random.chance(50) { 100 * MS } else { 15 * SECOND };
        let down = world.clock.random.between(10 * MS, down);
        world.fate(at, Fate::Crash { machine });
        if world.clock.random.chance(30) {
            world.fate(at + down / 2, Fate::Move { machine });
        }
        world.fate(at + down, Fate::Start { machine });
    }
    // A start that fell into another one's time of death.
    for machine in 0..machines {
        world.fate(TROUBLE + 16 * SECOND, Fate::Start { machine });
    }
}

fn partitions(world: &mut World) {
    let machines = world.machines.len();
    for _ in 0..world.clock.random.between(1, 4) {
        let at = world.clock.random.below(TROUBLE);
        let island: BTreeSet<usize> = (0..machines).filter(|_| world.clock.random.chance(50)).collect();
        let length = if world.clock.random.chance(50) { 5 * SECOND } else { 40 * SECOND };
        let length = world.clock.random.between(100 * MS, length);
        world.fate(at, Fate::Cut { island });
        world.fate(at + length, Fate::Heal);
    }
    world.fate(TROUBLE + 41 * SECOND, Fate::Heal);
}

fn liars(world: &mut World, late: usize) {
    let machines = world.machines.len();
    world.lies_until = TROUBLE;
    world.lies_in_chains = world.clock.random.chance(25);
    world.force_percent = 80;
    if world.clock.random.chance(30) {
        // Everybody but the founder, and nobody breaks off in a way that would end a request at once.
        (1..machines).for_each(|m| world.machines[m].nature = Nature::Liar);
        world.conspiracy = Some([Lie::Silence, Lie::Reset, Lie::Garbage][world.clock.random.index(3)]);
        return;
    }
    let liar = 1 + world.clock.random.index(machines - 1);
    world.machines[liar].nature = Nature::Liar;
    if late > 0 && liar != machines - 1 {
        // The last one is never admitted, whatever the liar says.
        world.machines[machines - 1].nature = Nature::Stranger;
    }
}

fn slowness(world: &mut World) {
    for machine in 0..world.machines.len() {
        match world.clock.random.below(4) {
            0 => world.machines[machine].slowness = 2000,
            1 => drop(world.net.far.insert(machine, 300 * MS)),
            2 => drop(world.net.far.insert(machine, 700 * MS)),
            _ => {}
        }
    }
}

/// Lives one seed through. Whatever goes wrong, a panic included, becomes one line that says how to see it again.
fn live(seed: u64, speaks: bool) -> Result<Run, String> {
    let mut world = prepare(seed);
    world.trace.speaks = speaks;
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(&mut world)));
    let ended = played.unwrap_or_else(|_| Err("a panic, as above".to_owned()));
    if let Err(words) = ended {
        let (kind, step, ms) = (scenario(seed), world.step, world.clock.now / MS);
        return Err(format!(
            "{kind:?}, seed {seed}, step {step}, {ms} ms: {words}; MESH_SIM_SEED={seed} cargo test --test sim"
        ));
    }
    let local = world.checkers.local.values().sum();
    Ok(Run { hash: world.trace.hash, counts: world.trace.counts, remote: world.checkers.remote, local })
}

fn play(world: &mut World) -> Result<(), String> {
    world.begin();
    world.run(TROUBLE + 41 * SECOND + SETTLE)?;
    let before = world.views();
    Checkers::agree(&before)?;
    world.run(world.clock.now + STAY)?;
    let after = world.views();
    Checkers::agree(&after)?;
    if before != after {
        return Err("connections or records change although everything is quiet".to_owned());
    }
    let last = world.clock.now + client::DEADLINE;
    while world.checkers.open() > 0 && world.clock.now < last {
        world.run(world.clock.now + 10 * SECOND)?;
    }
    // Jobs that nobody asked for are given up in this time.
    world.run(world.clock.now + client::WALL + client::BLOB_TIME)?;
    world.checkers.over(|m| world.machines[m].nature == Nature::Honest)
}

/// Lives all seeds of a scenario; what must have happened in them, over all, is given as words of the trace.
fn try_all(kind: Scenario, must_happen: &[&str]) {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    if let Some(seed) = number("MESH_SIM_SEED") {
        if scenario(seed) == kind
            && let Err(line) = live(seed, true)
        {
            panic!("{line}");
        }
        return;
    }
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut remote, mut local, mut again) = (0, 0, 2);
    for seed in (0..number("MESH_SIM_SEEDS").unwrap_or(SEEDS)).filter(|s| scenario(*s) == kind) {
        let run = live(seed, false).unwrap_or_else(|line| panic!("{line}"));
        if again > 0 {
            again -= 1;
            let second = live(seed, false).unwrap_or_else(|line| panic!("{line}"));
            assert_eq!(run.hash, second.hash, "{kind:?}, seed {seed}: the same seed gave another trace");
        }
        for (what, count) in run.counts {
            *counts.entry(what).or_default() += count;
        }
        remote += run.remote;
        local += run.local;
    }
    assert!(remote > 0 && local > 0, "{kind:?}: {remote} requests ended remotely, {local} here");
    for what in must_happen {
        assert!(counts.contains_key(what), "{kind:?}: {what:?} never happened, so nothing is known of it: {counts:?}");
    }
}

#[test]
fn a_calm_mesh_compiles_and_agrees() {
    try_all(
        Scenario::Calm,
        &["joined", "merged", "kept", "runs", "done remotely", "cancelled", "edited", "had from a source"],
    );
}

#[test]
fn crashes_and_restarts_lose_no_request() {
    try_all(Scenario::Crashes, &["crashed", "moved", "lost", "replaced"]);
}

#[test]
fn partitions_heal_and_leave_no_trace() {
    try_all(Scenario::Partitions, &["cut", "healed", "lost", "merged"]);
}

#[test]
fn liars_gain_nothing() {
    let must = [
        "lies",
        "lied",
        "violation",
        "bad blob",
        "bad names",
        "refused records",
        "turned away",
        "turned down",
        "chain",
        "steals",
        "a source broke a rule",
    ];
    try_all(Scenario::Liars, &must);
}

#[test]
fn overload_is_turned_down_and_waited_for() {
    try_all(Scenario::Overload, &["turned down", "waits", "refused"]);
}

#[test]
fn simultaneous_dials_leave_one_connection() {
    try_all(Scenario::Dials, &["replaced", "kept the old"]);
}

#[test]
fn slow_machines_hold_up_nobody_for_ever() {
    try_all(Scenario::Slow, &["gives up", "waits for names", "refused"]);
}
