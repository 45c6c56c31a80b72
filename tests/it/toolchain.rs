//! `mesh toolchain` between real agents: sent on demand, compared over the wire, removed.

use crate::{
    desk::{Desk, Streams, run},
    env::{Agent, Ground, until},
    ship::{BARE, SENT_WITHIN},
    upgrade::{Gxx, SETTLED},
};
use mesh::agent::wire::{Ask, Tell};
use serde_json::Value;
use std::time::{Duration, Instant};

/// A compiler, as `mesh toolchain --json` of this agent lists it.
fn listed(desk: &Desk, agent: &Agent, driver: &str) -> Option<Value> {
    let ran = agent.mesh(&desk.ground, &["toolchain", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err());
    let all: Value = serde_json::from_str(&ran.out()).unwrap();
    all["toolchains"].as_array().unwrap().iter().find(|one| one["driver"] == driver).cloned()
}

#[test]
fn a_compiler_is_pushed_without_who_asked_and_pruned_again() {
    let Some(desk) = Desk::configured(Ground::new(), BARE, "") else { return };
    let words = |words: &[&str]| desk.client.mesh(&desk.ground, words);
    let there = |words: &[&str]| desk.provider.mesh(&desk.ground, words);
    assert!(there(&["toolchain", "prune"]).out().contains("no compiler was sent here"));
    let gcc = until("the client knows its gcc", || listed(&desk, &desk.client, "/usr/bin/gcc"));
    let lacks = words(&["toolchain", "--why", "tower", "gcc"]);
    assert!(lacks.out().contains("Now: mesh toolchain push /usr/bin/gcc --to tower\n"), "{lacks:?}");
    let nobody = words(&["toolchain", "push", "gcc", "--to", "nas"]);
    assert_eq!(
        (nobody.code, nobody.err().as_str()),
        (Some(1), "mesh: no machine of this mesh is called nas. See: mesh peers\n")
    );
    // The person goes away when the first line is there.
    let id = gcc["id"].as_str().unwrap().to_owned();
    let mut asked = desk.client.asked(&Ask::Push { ids: vec![id.clone()], peer: None }).unwrap();
    assert!(matches!(asked.next(), Some(Tell::Arrivals(rows)) if rows[0].peer == "tower" && rows[0].id == id));
    drop(asked);
    let end = Instant::now() + SENT_WITHIN;
    while listed(&desk, &desk.client, "/usr/bin/gcc").is_none_or(|gcc| gcc["peers"][0] != "tower") {
        assert!(Instant::now() < end, "it does not arrive: {}", desk.client.log());
        std::thread::sleep(Duration::from_millis(300));
    }
    let sent = listed(&desk, &desk.provider, "/usr/bin/gcc").unwrap();
    assert_eq!((&sent["sent_by"], &sent["id"], &sent["proof"]), (&"laptop".into(), &gcc["id"], &"elsewhere".into()));
    let again = words(&["toolchain", "push", "gcc"]);
    assert_eq!(
        (again.code, again.out().lines().last().unwrap().ends_with("tower has it")),
        (Some(0), true),
        "{again:?}"
    );
    assert_eq!(
        words(&["toolchain", "--why", "tower", "gcc"]).out(),
        "tower has exactly the 1 compiler of this machine that is meant\n"
    );
    // What was used lately stays, unless all is to go.
    let stays = there(&["toolchain", "prune"]);
    assert!(
        stays.code == Some(0) && stays.out().contains("stays. All go with: mesh toolchain prune --all"),
        "{stays:?}"
    );
    // A job that runs keeps its compiler to its end: the assembler is run last.
    let functions =
        (0..3000).map(|n| format!("int f{n}(int x) {{ for (int i = 0; i < x; i++) x ^= i * {n}; return x; }}\n"));
    desk.write("slow.c", functions.collect::<String>());
    let gone = std::thread::scope(|scope| {
        let slow = scope.spawn(|| run(desk.launcher(&desk.line("gcc -O3 -c slow.c -o slow.o")), Streams::Apart).good());
        until("the job runs there", || Some(desk.provider.snapshot().this).filter(|tower| tower.free < tower.slots));
        let gone = there(&["toolchain", "prune", "--all"]);
        slow.join().unwrap();
        gone
    });
    assert_eq!(desk.last().ran_on.as_deref(), Some("tower"), "{:?}", desk.last());
    assert!(
        gone.code == Some(0) && gone.out().contains("removed 1 compiler (gcc ") && gone.out().contains(" MiB\n"),
        "{gone:?}"
    );
    assert_eq!(listed(&desk, &desk.provider, "/usr/bin/gcc"), None);
    until("the client hears of it", || {
        listed(&desk, &desk.client, "/usr/bin/gcc").filter(|gcc| gcc["peers"][0].is_null())
    });
}

#[test]
fn what_another_machine_has_is_compared_file_by_file_over_the_wire() {
    let Some(gxx) = Gxx::new() else { return };
    let Some(desk) = Desk::configured(Ground::new(), "", BARE) else { return };
    until("the provider lends its g++", || {
        listed(&desk, &desk.provider, "/usr/bin/g++").filter(|gxx| gxx["lent"] == true)
    });
    std::thread::sleep(SETTLED);
    // Nothing is known here of what the provider has: it is asked.
    let driver = gxx.driver().to_str().unwrap().to_owned();
    let ran = desk.client.mesh(&desk.ground, &["toolchain", "--why", "tower", &driver]);
    let said = ran.out();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(said.starts_with("of 1 compiler of this machine, tower lacks 1; it has "), "{said}");
    assert!(said.contains(", /usr/bin/g++:\n"), "{said}");
    assert!(said.contains(&format!("it is run as {driver} here and as /usr/bin/g++ there\n")), "{said}");
    assert!(!said.contains("could not be compared"), "{said}");
    assert!(said.ends_with(&format!("Now: mesh toolchain push {driver} --to tower\n")), "{said}");
}
