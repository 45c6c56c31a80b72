//! Networks as they are: routed, without multicast, with addresses that change.

use crate::agents::{LAUNCHER, Node, joined, meet, served, warm_up};
use crate::build;
use crate::corpora;
use crate::faults::{build_while, reference, units, way};
use crate::machine::{Account, Spec, eventually};
use std::time::Duration;

/// Until machines that know of each other are connected, or know that they are not.
const MEET: Duration = Duration::from_secs(10);
/// Until a machine whose address has changed has its connections back, whoever opened them: the other end may first have to
/// find out that nobody is at the old address.
const BACK: Duration = Duration::from_secs(60);
/// Units of the small builds.
const FEW: usize = 4;

/// Gives a machine another address, and a way to all others.
fn moved(node: &Node<'_>, address: &str, gateway: &str) {
    node.machine.sh(&format!(
        "ip addr flush dev eth0; ip addr add {address}/24 dev eth0; ip route add default via {gateway} dev eth0"
    ));
}

#[test]
fn machines_of_two_routed_networks_without_multicast_meet_by_token_or_by_name_and_build_together() {
    let client = Spec::new("client", Account::Root).sees(&corpora::folder());
    let specs = vec![client, Spec::new("tower", Account::Root), Spec::new("gateway", Account::Root)];
    let Some(mut units) = units() else { return };
    units.truncate(FEW);
    let Some(turn) = crate::lab(specs, &[corpora::folder()]) else { return };
    let mut nodes: Vec<Node<'_>> = turn.lab.machines.iter().map(Node::install).collect();
    // Each of the two sees the gateway and nothing else; what it sends to everybody ends there.
    turn.lab.keep_apart(0);
    turn.lab.keep_apart(1);
    nodes[2]
        .machine
        .sh("ip addr flush dev eth0; ip addr add 10.78.1.1/24 dev eth0; ip addr add 10.78.2.1/24 dev eth0; \
         echo 1 >/proc/sys/net/ipv4/ip_forward");
    moved(&nodes[0], "10.78.1.2", "10.78.1.1");
    moved(&nodes[1], "10.78.2.2", "10.78.2.1");
    nodes.truncate(2);
    nodes.iter_mut().for_each(Node::start);
    let [client, tower] = nodes.as_slice() else { panic!("two machines") };
    tower.mesh_ok(&["up"]);
    // Nobody is nearby: discovery ends at the gateway.
    let (code, pairing) = tower.pair();
    let ran = client.mesh(&["join", &code]);
    assert!(!ran.status.success(), "{ran:?}");
    drop(pairing);
    let token = tower.mesh_ok(&["invite", "--as", "peer"]);
    client.mesh_ok(&["join", token.trim()]);
    meet(client, tower, MEET);
    let (wanted, _) = reference(client, &units);
    let builds = |what: &str| {
        warm_up(&nodes);
        let before = served(&nodes);
        let made = build::build(client.machine, &units, &way(), LAUNCHER);
        made.assert_same(&wanted, what);
        assert!(served(&nodes) >= before + FEW as u64, "{what}: it was compiled in the other network");
    };
    builds("by token");
    // By name, as somebody would who has neither discovery nor a token.
    client.mesh_ok(&["leave", "--yes"]);
    client
        .machine
        .sh("cp /etc/hosts /tmp/hosts; echo 10.78.2.2 tower.lan >>/tmp/hosts; mount --bind /tmp/hosts /etc/hosts");
    let (code, mut pairing) = tower.pair();
    client.mesh_ok(&["join", &format!("{code}@tower.lan")]);
    assert!(pairing.wait(MEET).is_some_and(|status| status.success()), "{}", pairing.said());
    meet(client, tower, MEET);
    builds("by name");
}

#[test]
fn a_build_goes_on_when_the_client_s_address_changes() {
    let client = Spec::new("client", Account::Root).sees(&corpora::folder());
    let specs = vec![client, Spec::new("tower", Account::Ordinary)];
    let Some(units) = units() else { return };
    let Some(turn) = crate::lab(specs, &[corpora::folder()]) else { return };
    let nodes = joined(&turn.lab);
    warm_up(&nodes);
    let (wanted, _) = reference(&nodes[0], &units);
    let (made, _) = build_while(&nodes, &units, || {
        nodes[0].machine.sh("ip addr add 10.77.0.101/24 brd + dev eth0; ip addr del 10.77.0.1/24 dev eth0; \
             ip route replace 224.0.0.0/4 dev eth0; ip route replace default dev eth0");
    });
    made.assert_same(&wanted, "a build whose client moved");
    // And the two have each other again, without anybody's doing.
    let back = eventually(BACK, || (nodes[0].is_with("tower") && nodes[1].is_with("client")).then_some(()));
    assert!(back.is_some(), "{:?}\n{}", nodes[0].mesh(&["peers"]), nodes[0].log());
    let before = served(&nodes);
    let few = &units[..FEW];
    let again = eventually(BACK, || {
        build::build(nodes[0].machine, few, &way(), LAUNCHER);
        (served(&nodes) > before).then_some(())
    });
    assert!(again.is_some(), "the tower compiles for the client at its new address");
}
