//! A machine that was forgotten is out: at once, everywhere, for good.

use crate::{
    desk::{Desk, Where, brief, slow},
    env::{Agent, Ground, processes, until},
    seek::{joins, keys},
};
use mesh::{agent::wire::Ask, agent::wire::Tell, reason::Reason};

fn sees(agent: &Agent, name: &str) -> bool {
    agent.snapshot().peers.iter().any(|peer| peer.name == name)
}

fn is_connected(agent: &Agent, name: &str) -> bool {
    agent.snapshot().peers.iter().any(|peer| peer.name == name && peer.connected)
}

/// A desk, and another client of its provider, which the first client knows.
fn two_clients() -> Option<(Desk, Desk)> {
    let mut desk = Desk::on(Ground::new())?;
    // Only the provider compiles for others.
    desk.client.configure("slots = 0\n");
    desk.restart_client();
    let mut other = desk.second_client("notebook")?;
    joins(&desk, &mut other);
    until("all are connected", || {
        let all = is_connected(&desk.client, "notebook") && is_connected(&desk.provider, "notebook");
        all.then_some(())
    });
    Some((desk, other))
}

#[test]
fn a_forgotten_machine_is_refused_at_once_by_all_and_its_job_ends() {
    let Some((mut desk, mut other)) = two_clients() else { return };
    // Whoever is a member comes back after a restart.
    other.client.stop();
    other.client.start(&other.ground);
    other.client.answers();
    other.meet();
    let unit = slow(&other, "long");
    let begun = other.begin(&unit, "long.cc");
    assert!(!processes(b"long.cc").is_empty(), "its compiler runs on the provider");
    // The client, which has not admitted it, says so.
    let ran = desk.client.mesh(&desk.ground, &["forget", "notebook", "--yes"]);
    ran.good();
    assert!(ran.out().contains("will be refused by this machine at once"), "{}", ran.out());
    assert!(ran.out().contains("forgotten: notebook. Told 1 machine."), "{}", ran.out());
    until("the provider has cut it off", || (!sees(&desk.provider, "notebook")).then_some(()));
    assert!(!sees(&desk.client, "notebook"));
    until("its job is gone", || processes(b"long.cc").is_empty().then_some(()));
    begun.ends_without().good();
    until("it knows", || other.client.snapshot().forgotten);
    assert_eq!(other.client.snapshot().peers.iter().filter(|peer| peer.connected).count(), 0);
    let status = other.client.mesh(&other.ground, &["status"]).out();
    assert!(status.contains("this machine was forgotten, as "), "{status}");
    assert!(status.contains("mesh join --new-identity CODE"), "{status}");
    // It goes on by itself.
    let served = desk.served();
    let mut alone = brief(&other, "alone");
    alone.env.push(("MESH_FALLBACK", "1".into()));
    other.same(&alone, Where::Here(Reason::NoPeer));
    assert_eq!(desk.served(), served);
    // A restart of either side changes nothing.
    desk.restart_provider();
    other.client.stop();
    other.client.start(&other.ground);
    other.client.answers();
    until("it is told again", || other.client.snapshot().forgotten);
    assert!(!sees(&desk.provider, "notebook"));
    // Nor does a code: the key is out for good.
    let mut window = desk.provider.asked(&Ask::Pair { role: "owner".to_owned() }).unwrap();
    let Some(Tell::PairingCode { code, .. }) = window.next() else { panic!("no code") };
    let address = Some(desk.provider.address());
    let said = other.client.ask(&Ask::Join { code, address, leave: true });
    let Tell::Failed { text, .. } = said else { panic!("{said:?}") };
    assert!(text.contains("this machine was forgotten on ") && text.contains("--new-identity"), "{text}");
}

#[test]
fn what_a_forgotten_machine_has_made_is_used_no_more() {
    let Some(mut desk) = Desk::on(Ground::new()) else { return };
    desk.spoilt = true;
    desk.client.keeps = true;
    desk.restart_client();
    let unit = brief(&desk, "a");
    desk.same(&unit, Where::There);
    until("its result is kept", || (!keys(&desk.client).is_empty()).then_some(()));
    desk.same(&unit, Where::Kept);
    desk.client.mesh(&desk.ground, &["forget", "tower", "--stolen", "--yes"]).good();
    assert!(!sees(&desk.client, "tower"));
    let alone = unit.env("MESH_CACHE", "read");
    desk.same(&alone, Where::Here(Reason::NoPeer));
    until("its results are dropped", || keys(&desk.client).is_empty().then_some(()));
}

#[test]
fn what_a_tainted_machine_has_made_is_used_no_more_and_is_listed() {
    let Some(mut desk) = Desk::on(Ground::new()) else { return };
    desk.spoilt = true;
    desk.client.keeps = true;
    desk.restart_client();
    let unit = brief(&desk, "a");
    desk.same(&unit, Where::There);
    until("its result is kept", || (!keys(&desk.client).is_empty()).then_some(()));
    desk.same(&unit, Where::Kept);
    let ran = desk.client.mesh(&desk.ground, &["taint", "tower"]);
    ran.good();
    assert!(ran.out().contains("kept results that tower made until now are not used"), "{}", ran.out());
    assert!(ran.out().contains("It made 2 units") && ran.out().contains("a.o"), "{}", ran.out());
    // It still compiles; but by its own clock, which may be wrong, it has made this hardly later.
    desk.same(&unit, Where::There);
    until("its new result is kept", || (!keys(&desk.client).is_empty()).then_some(()));
    desk.same(&unit, Where::There);
    // That outlives the agent, and the machine's membership.
    desk.client.mesh(&desk.ground, &["forget", "tower", "--yes"]).good();
    desk.client.mesh(&desk.ground, &["taint", "tower"]).good();
}

#[test]
fn a_machine_that_is_no_owner_refuses_for_itself_alone_and_says_so() {
    let Some(desk) = Desk::with_provider_as("peer") else { return };
    let ran = desk.provider.mesh(&desk.ground, &["forget", "laptop", "--yes"]);
    ran.good();
    assert!(ran.out().contains("this machine is no owner"), "{}", ran.out());
    until("it has cut the other off", || (!is_connected(&desk.client, "tower")).then_some(()));
    assert!(sees(&desk.client, "tower"), "the owner still has it in its mesh");
    assert_eq!(desk.client.snapshot().forgotten, None, "nobody who may say so has");
}

#[test]
fn a_name_that_means_nobody_or_this_machine_is_refused_and_without_an_answer_nothing_is_done() {
    let Some(desk) = Desk::on(Ground::new()) else { return };
    let ran = desk.client.mesh(&desk.ground, &["forget", "towr", "--yes"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err().contains("no machine of the mesh is called \"towr\". mesh peers lists them"), "{}", ran.err());
    let ran = desk.client.mesh(&desk.ground, &["forget", "laptop", "--yes"]);
    assert_eq!(ran.code, Some(7), "{}", ran.err());
    assert!(ran.err().contains("mesh leave"), "{}", ran.err());
    let ran = desk.client.mesh(&desk.ground, &["forget", "tower"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err().contains("mesh forget tower --yes"), "{}", ran.err());
    assert!(is_connected(&desk.client, "tower"));
}
