//! Machines that have never met find each other, become one mesh by one typed code each, and stay one.

use crate::agents::{Node, joined, meet};
use crate::machine::{Account, Spec, eventually};
use std::time::{Duration, Instant};

/// From an agent's start until the others are connected with it.
const SEEN_WITHIN: Duration = Duration::from_secs(2);
/// Until the news of a joined machine has reached a machine that was not asked.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

fn three() -> Option<crate::Turn> {
    let names = [("anton", Account::Root), ("berta", Account::Ordinary), ("carla", Account::Ordinary)];
    crate::lab(names.into_iter().map(|(name, account)| Spec::new(name, account)).collect(), &[])
}

#[test]
fn a_third_machine_joined_through_the_second_is_known_to_the_first() {
    let Some(turn) = three() else { return };
    let mut nodes: Vec<Node<'_>> = turn.lab.machines.iter().map(Node::install).collect();
    nodes.iter_mut().for_each(Node::start);
    let [anton, berta, carla] = nodes.as_slice() else { panic!("three machines") };
    anton.mesh_ok(&["up"]);
    berta.join(anton);
    meet(anton, berta, TOLD_WITHIN);
    carla.join(berta);
    for (one, other) in [(anton, carla), (carla, anton), (berta, carla), (carla, berta)] {
        meet(one, other, TOLD_WITHIN);
    }
}

#[test]
fn a_wrong_code_joins_nothing() {
    let Some(turn) = three() else { return };
    let mut nodes: Vec<Node<'_>> = turn.lab.machines.iter().map(Node::install).collect();
    nodes.iter_mut().for_each(Node::start);
    let [anton, berta, _] = nodes.as_slice() else { panic!("three machines") };
    anton.mesh_ok(&["up"]);
    let (code, _pairing) = anton.pair();
    let digits = code.split('-').next().expect("a code begins with digits");
    let ran = berta.mesh(&["join", &format!("{digits}-wrong-wrong")]);
    assert!(!ran.status.success(), "{ran:?}");
    std::thread::sleep(SEEN_WITHIN);
    assert!(!anton.is_with("berta") && !berta.is_with("anton"));
}

#[test]
fn a_member_that_starts_is_seen_within_two_seconds() {
    let Some(turn) = three() else { return };
    let mut nodes = joined(&turn.lab);
    let mut agent = nodes[1].agent.take().expect("it was started");
    agent.signal(rustix::process::Signal::TERM);
    assert!(agent.wait(TOLD_WITHIN).is_some(), "SIGTERM ends an agent: {}", agent.said());
    for other in [0, 2] {
        let gone = eventually(TOLD_WITHIN, || (!nodes[other].is_with("berta")).then_some(()));
        assert!(gone.is_some(), "an agent that has ended is not seen any more");
    }
    let begun = Instant::now();
    let (berta, others) = (&mut nodes[1], [0, 2]);
    berta.agent = Some(berta.machine.command(&["mesh", "agent"]).start("agent.log"));
    for other in others {
        let left = SEEN_WITHIN.saturating_sub(begun.elapsed());
        meet(&nodes[other], &nodes[1], left);
    }
}
