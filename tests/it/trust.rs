//! Who gets in, and whose compiler counts.

use crate::{
    desk::{Desk, Where, desk},
    env::{Agent, Ground, path_var, until},
};
use mesh::{
    agent::wire::{Ask, Tell},
    reason::Reason,
};
use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

fn which(name: &str) -> PathBuf {
    std::env::split_paths(&path_var()).map(|dir| dir.join(name)).find(|path| path.is_file()).unwrap()
}

#[test]
fn a_stranger_that_knows_the_address_gets_no_connection_and_no_compile() {
    let Some(desk) = desk() else { return };
    let stranger = Agent::running(&desk.ground, "stranger");
    // In a mesh of its own, and in none.
    for in_a_mesh in [false, true] {
        if in_a_mesh {
            assert!(matches!(stranger.ask(&Ask::Found { name: "other".to_owned() }), Tell::Finished(_)));
        }
        let added = stranger.mesh(&desk.ground, &["peers", "add", &desk.provider.address()]);
        assert_eq!(added.code, Some(0), "{}", added.err());
        let mine = desk.provider.mesh(&desk.ground, &["peers", "add", &stranger.address()]);
        assert_eq!(mine.code, Some(0), "{}", mine.err());
        // Time for many dials, had they a chance.
        std::thread::sleep(Duration::from_millis(700));
        assert!(stranger.snapshot().peers.iter().all(|p| !p.connected));
        let seen = desk.provider.snapshot();
        assert_eq!(seen.peers.len(), 1, "{:?}", seen.peers);
        desk.write("x.c", "int x;\n");
        let served = desk.served();
        let unit = desk.line("gcc -c x.c -o x.o").env("MESH_DIR", stranger.home.clone()).env("MESH_FALLBACK", "0");
        let ran = crate::desk::run(desk.launcher(&unit), unit.streams);
        assert_eq!(ran.code, Some(111), "{}", ran.err());
        let why = if in_a_mesh { "NO_PEER" } else { "NO_MESH" };
        assert!(ran.err().contains(why), "{}", ran.err());
        assert_eq!(desk.served(), served);
        for agent in [&stranger, &desk.provider] {
            let other = if std::ptr::eq(agent, &stranger) { &desk.provider } else { &stranger };
            agent.mesh(&desk.ground, &["peers", "remove", &other.address()]);
        }
    }
    // The members have not noticed.
    desk.write("x.c", "int y;\n");
    desk.same_there("gcc -c x.c -o x.o");
}

#[test]
fn a_wrong_code_joins_nothing_and_three_of_them_close_the_window() {
    let ground = Ground::new();
    let [host, guest] = ["host", "guest"].map(|name| Agent::running(&ground, name));
    assert!(matches!(host.ask(&Ask::Found { name: "desk".to_owned() }), Tell::Finished(_)));
    let mut window = host.asked(&Ask::Pair { role: "owner".to_owned() }).unwrap();
    let Some(Tell::PairingCode { code, .. }) = window.next() else { panic!("no code") };
    // The number finds the window, the words are the secret.
    let number = code.split('-').next().unwrap();
    let wrong = ["otter-maple", "maple-otter", "otter-otter"].map(|words| format!("{number}-{words}"));
    assert!(!wrong.contains(&code), "one in a million; run it again");
    for code in &wrong {
        let ran = guest.mesh(&ground, &["join", &format!("{code}@{}", host.address())]);
        assert_eq!(ran.code, Some(7), "{}", ran.err());
    }
    let end = window.next();
    assert!(matches!(end, Some(Tell::Failed { code: 7, .. })), "{end:?}");
    // Even the right one is void now.
    let ran = guest.mesh(&ground, &["join", &format!("{code}@{}", host.address())]);
    assert_eq!(ran.code, Some(7), "{}", ran.err());
    assert_eq!((guest.snapshot().mesh, host.snapshot().peers.len()), (None, 0));
    host.pair_with(&guest);
    until("they are connected", || host.snapshot().peers.iter().any(|p| p.connected).then_some(()));
}

#[test]
fn a_code_works_once() {
    let ground = Ground::new();
    let [host, first, second] = ["host", "first", "second"].map(|name| Agent::running(&ground, name));
    assert!(matches!(host.ask(&Ask::Found { name: "desk".to_owned() }), Tell::Finished(_)));
    let mut window = host.asked(&Ask::Pair { role: "owner".to_owned() }).unwrap();
    let Some(Tell::PairingCode { code, .. }) = window.next() else { panic!("no code") };
    let join = |guest: &Agent| guest.mesh(&ground, &["join", &format!("{code}@{}", host.address())]).code;
    assert_eq!(join(&first), Some(0));
    assert_eq!(join(&second), Some(7));
    assert_eq!(second.snapshot().mesh, None);
}

#[test]
fn a_compiler_that_the_peer_has_not_and_is_not_sent_stays_here() {
    let Some(desk) = Desk::configured(Ground::new(), "", "toolchain_rate = 0\n") else { return };
    desk.meet();
    desk.write("x.c", "int x;\n");
    // A wrapper is no compiler whose files are known.
    let wrapper = desk.write("wrapper/gcc", format!("#!/bin/sh\nexec {} \"$@\"\n", which("gcc").display()));
    std::fs::set_permissions(&wrapper, PermissionsExt::from_mode(0o755)).unwrap();
    let with = |dir: &str| {
        let path = path_var();
        let dirs = [desk.project.join(dir)].into_iter().chain(std::env::split_paths(&path));
        desk.line("gcc -c x.c -o x.o").env("PATH", std::env::join_paths(dirs).unwrap())
    };
    desk.same(&with("wrapper"), Where::Here(Reason::Wrapper));
    assert_eq!(desk.last().note, format!("{} is a script", wrapper.display()));
    // The same program in another place, and one byte more: another compiler.
    let real = std::fs::canonicalize(which("gcc")).unwrap();
    let mut bytes = std::fs::read(real).unwrap();
    bytes.push(0);
    let copy = desk.write("copy/bin/gcc", bytes);
    // It looks for its parts from where it is.
    std::os::unix::fs::symlink("/usr/lib", desk.project.join("copy/lib")).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
    let unit = with("copy/bin");
    // Just written: until its times have settled nothing about it is believed.
    until("the copy is known", || {
        crate::desk::run(desk.launcher(&unit), unit.streams).good();
        (desk.last().reason != Some(Reason::Changing)).then_some(())
    });
    desk.same(&unit, Where::Here(Reason::NoMatch));
    desk.same_there("gcc -c x.c -o x.o");
}
