//! How machines that nobody introduced to each other meet, and meet again when the one that knew both is gone.

use crate::env::{Agent, Ground, until};
use mesh::agent::wire::{Ask, Tell};
use std::time::Duration;

/// How many others an agent is connected with.
fn connected(agent: &Agent) -> usize {
    agent.snapshot().peers.iter().filter(|peer| peer.connected).count()
}

/// The file in which an agent remembers where others were.
fn book(agent: &Agent) -> std::path::PathBuf {
    agent.home.join("state/addresses-v1")
}

#[test]
fn members_hear_from_a_third_one_where_they_are_and_remember_it_without_it() {
    let ground = Ground::new();
    let mut hub = Agent::running(&ground, "hub");
    assert!(matches!(hub.ask(&Ask::Found { name: "desk".to_owned() }), Tell::Finished(_)));
    let [mut one, mut two] = ["one", "two"].map(|name| Agent::running(&ground, name));
    hub.pair_with(&one);
    hub.pair_with(&two);
    until("each is connected with both others", || {
        [&hub, &one, &two].into_iter().all(|agent| connected(agent) == 2).then_some(())
    });
    // The one that knew both is gone, and both were away.
    hub.stop();
    let restart = |agent: &mut Agent| {
        agent.start(&ground);
        agent.answers();
    };
    one.stop();
    two.stop();
    restart(&mut one);
    restart(&mut two);
    until("the two find each other", || (connected(&one) == 1 && connected(&two) == 1).then_some(()));
    // It is the book that tells them: without it they are alone.
    one.stop();
    two.stop();
    for agent in [&one, &two] {
        std::fs::remove_file(book(agent)).unwrap();
    }
    restart(&mut one);
    restart(&mut two);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((connected(&one), connected(&two)), (0, 0));
}
