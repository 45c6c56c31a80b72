//! Machines join by a token, as long as it is good, and are out with it.

use crate::{
    desk::{Desk, Where, brief},
    env::{Agent, Ground, MESH, Ran, until},
};
use std::{io::Write, process::Stdio};

/// A token of the provider's, and what was said beside it.
fn invited(desk: &Desk, options: &[&str]) -> (String, String) {
    let ran = desk.provider.mesh(&desk.ground, &[&["invite"], options].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err());
    assert_eq!(ran.out().lines().count(), 1, "nothing but the token: {}", ran.out());
    (ran.out().trim().to_owned(), ran.err())
}

fn peers(agent: &Agent) -> Vec<(String, String, bool)> {
    agent.snapshot().peers.iter().map(|peer| (peer.name.clone(), peer.role.clone(), peer.connected)).collect()
}

fn is_connected(agent: &Agent, name: &str) -> bool {
    peers(agent).iter().any(|(who, _, connected)| who == name && *connected)
}

/// `mesh join -` at another agent.
fn join(desk: &Desk, agent: &Agent, text: &str) -> Ran {
    let mut command = desk.ground.command(MESH);
    command.args(["join", "-"]).env("MESH_DIR", &agent.home).env("MESH_LOOPBACK", "1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_machine_joins_by_a_token_compiles_there_and_is_out_when_the_token_is() {
    let Some(mut desk) = Desk::on(Ground::new()) else { return };
    let (token, said) = invited(&desk, &["--as", "client", "--label", "ci"]);
    assert!(token.starts_with("meshjoin_1_"), "{token}");
    assert!(said.contains("\"ci\" admits machines as client until") && said.contains("mesh forget token:ci"), "{said}");
    let again = desk.provider.mesh(&desk.ground, &["invite", "--label", "ci"]);
    assert_eq!(again.code, Some(2), "{}", again.err());
    // The client leaves, and comes back as what the token makes.
    desk.client.mesh(&desk.ground, &["leave", "--yes"]).good();
    desk.client.answers();
    let ran = join(&desk, &desk.client, &token);
    ran.good();
    assert!(ran.out().contains("joined \"desk\""), "{}", ran.out());
    assert!(!ran.err().contains("history"), "{}", ran.err());
    desk.meet();
    until("the provider knows it", || is_connected(&desk.provider, "laptop").then_some(()));
    assert_eq!(peers(&desk.provider), [("laptop".to_owned(), "client".to_owned(), true)]);
    desk.same(&brief(&desk, "a"), Where::There);
    let listed = desk.provider.mesh(&desk.ground, &["list"]).out();
    assert!(
        listed.contains("token:ci  admits as client until ") && listed.contains("joined by it: laptop"),
        "{listed}"
    );
    // It admits nobody.
    let refused = desk.client.mesh(&desk.ground, &["invite"]);
    assert_eq!(refused.code, Some(7), "{}", refused.err());
    // A machine that comes later knows it from the others.
    let other = desk.second_client("notebook").unwrap();
    assert!(peers(&other.client).iter().any(|(name, role, _)| name == "laptop" && role == "client"));
    // With the token, who joined by it is out, and nobody comes in by it any more.
    let ran = desk.provider.mesh(&desk.ground, &["forget", "token:ci", "--yes"]);
    ran.good();
    assert!(ran.out().contains("laptop (client)") && ran.out().contains("They are forgotten with it"), "{}", ran.out());
    until("it is cut off", || (!is_connected(&desk.client, "tower")).then_some(()));
    assert!(peers(&desk.provider).iter().all(|(name, ..)| name != "laptop"));
    assert!(!desk.provider.mesh(&desk.ground, &["list"]).out().contains("token:"));
    let late = Agent::running(&desk.ground, "late");
    let ran = join(&desk, &late, &token);
    assert_eq!(ran.code, Some(7), "{}", ran.err());
    assert!(ran.err().contains("forgotten"), "{}", ran.err());
    assert_eq!(late.snapshot().mesh, None);
}

#[test]
fn an_agent_that_is_started_with_a_token_joins_by_itself_whoever_of_the_mesh_is_there_first() {
    let Some(mut desk) = Desk::on(Ground::new()) else { return };
    let (token, _) = invited(&desk, &["--as", "worker", "--expires", "2h"]);
    // The token's address leads to nobody for a while.
    desk.provider.stop();
    let file = desk.ground.dir.join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let mut worker = Agent::new(&desk.ground, "worker");
    worker.env.push(("MESH_JOIN_FILE", file.into()));
    worker.start(&desk.ground);
    worker.answers();
    let why = until("it says why it has not joined", || worker.snapshot().joining);
    assert!(why.contains("this machine has not joined"), "{why}");
    let status = worker.mesh(&desk.ground, &["status"]).out();
    assert!(status.contains("has not joined"), "{status}");
    desk.provider.start(&desk.ground);
    desk.provider.answers();
    until("it is in", || is_connected(&desk.provider, "worker").then_some(()));
    assert_eq!(worker.snapshot().joining, None);
    // Without the token it is a member still.
    worker.env.clear();
    worker.stop();
    worker.start(&desk.ground);
    worker.answers();
    until("it is in again", || is_connected(&desk.provider, "worker").then_some(()));
    assert_eq!(worker.snapshot().this.role, "worker");
}

#[test]
fn a_token_that_is_damaged_or_of_nobody_joins_nothing_and_says_so() {
    let Some(desk) = Desk::on(Ground::new()) else { return };
    let (token, _) = invited(&desk, &[]);
    let late = Agent::running(&desk.ground, "late");
    let ran = join(&desk, &late, &token[..token.len() - 4]);
    assert_eq!(ran.code, Some(2), "{}", ran.err());
    assert!(ran.err().contains("the token is not whole"), "{}", ran.err());
    // In argv: joined, with a warning.
    let ran = late.mesh(&desk.ground, &["join", &token]);
    assert_eq!(ran.code, Some(0), "{}", ran.err());
    assert!(ran.err().contains("shell's history"), "{}", ran.err());
    let role = desk.provider.mesh(&desk.ground, &["invite", "--as", "owner"]);
    assert_eq!(role.code, Some(2));
    let long = desk.provider.mesh(&desk.ground, &["invite", "--expires", "91d"]);
    assert!(long.code == Some(2) && long.err().contains("from 1m to 90d"), "{}", long.err());
}

#[test]
fn a_member_that_another_one_has_not_heard_of_introduces_itself() {
    let Some(mut desk) = Desk::on(Ground::new()) else { return };
    // The provider, who founded the mesh, is away while the client admits a third machine and goes.
    desk.provider.stop();
    let third = Agent::running(&desk.ground, "third");
    desk.client.pair_with(&third);
    desk.client.stop();
    desk.provider.start(&desk.ground);
    desk.provider.answers();
    let added = third.mesh(&desk.ground, &["peers", "add", &desk.provider.address()]);
    assert_eq!(added.code, Some(0), "{}", added.err());
    until("it is let in", || is_connected(&desk.provider, "third").then_some(()));
}
