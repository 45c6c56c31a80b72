//! A machine leaves, comes back as a new one, or changes its key.

use crate::{
    desk::{Desk, Where, brief},
    env::{Agent, Ground, Ran, until},
};
use mesh::{
    agent::wire::{Ask, Tell},
    reason::Reason,
};

fn peers(agent: &Agent) -> Vec<(String, bool)> {
    agent.snapshot().peers.iter().map(|peer| (peer.id.clone(), peer.connected)).collect()
}

fn id(agent: &Agent) -> String {
    agent.snapshot().this.id
}

/// A command at the client's, which must succeed.
#[track_caller]
fn told(desk: &Desk, words: &[&str]) -> String {
    let ran = desk.client.mesh(&desk.ground, words);
    ran.good();
    ran.out()
}

/// Joins the client to the provider's mesh.
fn joins(desk: &Desk, options: &[&str]) -> Ran {
    let mut window = desk.provider.asked(&Ask::Pair { role: "owner".to_owned() }).unwrap();
    let Some(Tell::PairingCode { code, .. }) = window.next() else { panic!("no code") };
    let code = format!("{code}@{}", desk.provider.address());
    desk.client.mesh(&desk.ground, &[&["join"], options, &[&code]].concat())
}

#[test]
fn who_leaves_is_out_everywhere_and_comes_back_as_a_new_machine() {
    let Some(mut desk) = Desk::on(Ground::new()) else { return };
    let (before, pid) = (id(&desk.client), desk.client.snapshot().pid);
    let asked = desk.client.mesh(&desk.ground, &["leave"]);
    assert_eq!(asked.code, Some(2), "{}", asked.err());
    assert!(asked.err().contains("mesh leave --yes"), "{}", asked.err());
    let said = told(&desk, &["leave", "--yes"]);
    assert!(said.contains("left \"desk\"; this machine has a new identity"), "{said}");
    assert!(!said.contains("not connected"), "{said}");
    let now = desk.client.answers();
    assert_eq!((now.mesh, now.peers.len(), now.pid), (None, 0, pid), "the same process, in no mesh");
    assert_ne!(id(&desk.client), before);
    until("the provider knows that it has left", || peers(&desk.provider).is_empty().then_some(()));
    desk.same(&brief(&desk, "a"), Where::Here(Reason::NoMesh));
    let listed = desk.client.mesh(&desk.ground, &["list"]);
    assert_eq!(listed.code, Some(4), "{}", listed.err());
    joins(&desk, &[]).good();
    desk.meet();
    desk.same(&brief(&desk, "b"), Where::There);
    assert_eq!(told(&desk, &["list"]).trim(), "desk  2 machines, 1 of the others connected; this one is owner");
    assert_eq!(told(&desk, &["id"]).trim(), id(&desk.client));
}

#[test]
fn who_was_forgotten_comes_back_with_a_new_identity_and_not_without() {
    let Some(mut desk) = Desk::on(Ground::new()) else { return };
    desk.provider.mesh(&desk.ground, &["forget", "laptop", "--yes"]).good();
    until("it knows", || desk.client.snapshot().forgotten);
    let old = joins(&desk, &["--leave"]);
    assert_eq!(old.code, Some(7), "{}", old.out());
    assert!(old.err().contains("mesh join --new-identity CODE"), "{}", old.err());
    joins(&desk, &["--new-identity"]).good();
    desk.client.answers();
    desk.meet();
    assert_eq!(desk.client.snapshot().forgotten, None);
    desk.same(&brief(&desk, "a"), Where::There);
    assert_eq!(peers(&desk.provider).len(), 1, "the old identity is not listed");
}

#[test]
fn a_machine_with_a_new_key_goes_on_and_a_copy_of_the_old_one_is_out() {
    let Some(mut desk) = Desk::on(Ground::new()) else { return };
    let before = id(&desk.client);
    desk.client.mesh(&desk.ground, &["invite", "--label", "ci"]);
    // A copy of its disk, made while nobody writes there.
    desk.client.stop();
    let mut copy = Agent::new(&desk.ground, "copy");
    std::fs::remove_dir_all(&copy.home).unwrap();
    Ran::of(std::process::Command::new("cp").arg("-a").args([&desk.client.home, &copy.home])).good();
    desk.client.start(&desk.ground);
    desk.client.answers();
    desk.meet();
    let said = told(&desk, &["rekey", "--yes"]);
    assert!(said.contains("this machine has a new key in \"desk\""), "{said}");
    desk.client.answers();
    assert_ne!(id(&desk.client), before);
    desk.meet();
    // The token that it had made before stands.
    assert!(told(&desk, &["list"]).contains("token:ci "), "{}", told(&desk, &["list"]));
    desk.same(&brief(&desk, "a"), Where::There);
    copy.start(&desk.ground);
    copy.answers();
    assert_eq!(id(&copy), before);
    until("the copy is told that it is out", || copy.snapshot().forgotten);
    assert!(peers(&copy).iter().all(|(_, connected)| !connected));
    let known: Vec<String> = peers(&desk.provider).into_iter().map(|(id, _)| id).collect();
    assert_eq!(known, [id(&desk.client)]);
}

#[test]
fn a_mesh_of_its_own_begins_with_a_new_identity() {
    let Some(mut desk) = Desk::on(Ground::new()) else { return };
    let before = id(&desk.client);
    let said = told(&desk, &["reset", "--name", "lab", "--yes"]);
    assert!(said.contains("left \"desk\"") && said.contains("created \"lab\""), "{said}");
    let now = desk.client.answers();
    assert_eq!((now.mesh.as_deref(), now.peers.len()), (Some("lab"), 0));
    assert_ne!(id(&desk.client), before);
}
