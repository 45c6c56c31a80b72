//! `mesh toolchain`: what it asks, what it prints, how it exits.

use super::{Place, ran};
use mesh::{
    agent::wire::{Ask, Look, Tell},
    reason::Reason,
    view::snapshot::{
        ArrivalRow, ArrivalState, Nearest, ProofState, RefusedRow, ToolchainDetail, ToolchainRow, Toolchains, Why,
        WhyRow,
    },
};

const GCC: &str = "5e1c09a1b2";

fn gcc() -> ToolchainRow {
    ToolchainRow {
        id: GCC.to_owned(),
        label: "gcc 12.2.0".to_owned(),
        target: "x86_64-linux-gnu".to_owned(),
        driver: b"/usr/bin/gcc".to_vec(),
        real: b"/usr/bin/gcc-12".to_vec(),
        bytes: 49 << 20,
        is_lent: true,
        proof: ProofState::Proved,
        has: vec!["tower".to_owned()],
        ..ToolchainRow::default()
    }
}

fn known(looked_at: Option<&str>) -> Toolchains {
    let cc = ToolchainRow { id: "00c0c0c0c0".to_owned(), driver: b"/usr/bin/cc".to_vec(), ..gcc() };
    let script = RefusedRow {
        program: b"/usr/bin/c99".to_vec(),
        reason: Reason::Wrapper,
        why: "/usr/bin/c99 is a script".to_owned(),
    };
    Toolchains {
        known: vec![cc, gcc()],
        refused: vec![script],
        providers: vec!["tower".to_owned()],
        not_sending: None,
        looked_at: looked_at.map(str::to_owned),
    }
}

fn arrivals(peer: &str, state: ArrivalState) -> Tell {
    Tell::Arrivals(vec![ArrivalRow { id: GCC.to_owned(), peer: peer.to_owned(), state }])
}

/// An agent that knows gcc, under two names.
fn agent(ask: &Ask) -> Vec<Tell> {
    match ask {
        Ask::Toolchains { look } => {
            let is_gcc = |look: &Look| look.program.ends_with(b"gcc");
            vec![Tell::Toolchains(Box::new(known(look.as_ref().filter(|look| is_gcc(look)).map(|_| GCC))))]
        }
        Ask::Toolchain { id } if id == GCC => {
            vec![Tell::Toolchain(Box::new(ToolchainDetail { row: gcc(), ..ToolchainDetail::default() }))]
        }
        Ask::WhyNot { peer, ids } if peer == "tower" => {
            let nearest = Nearest {
                label: "gcc 12.2.0".to_owned(),
                driver: b"/usr/bin/gcc".to_vec(),
                differences: vec!["/usr/lib/gcc/cc1 has 30 bytes here and 31 there".to_owned()],
                count: 1,
            };
            let row = WhyRow {
                id: GCC.to_owned(),
                label: "gcc 12.2.0".to_owned(),
                driver: b"/usr/bin/gcc".to_vec(),
                nearest: Some(nearest),
                outlook: "it is sent when a unit wants it there".to_owned(),
                can_be_sent: true,
                ..WhyRow::default()
            };
            let asked = if ids.is_empty() { 2 } else { 1 };
            vec![Tell::WhyNot(Box::new(Why { peer: peer.clone(), asked, there: 1, silent: 0, lacking: vec![row] }))]
        }
        Ask::WhyNot { peer, .. } => {
            vec![Tell::Failed { code: 1, text: format!("{peer} is not connected. See: mesh peers") }]
        }
        Ask::Push { peer: Some(peer), .. } if peer == "nas" => vec![
            arrivals("nas", ArrivalState::Refused("it has no room for it".to_owned())),
            Tell::Failed { code: 7, text: "0 of 1 compiler arrived; 1 refused, for the reason above".to_owned() },
        ],
        Ask::Push { .. } => {
            let coming = |have: u64| arrivals("tower", ArrivalState::Coming { have: have << 20, of: 49 << 20 });
            vec![
                arrivals("tower", ArrivalState::Told),
                coming(1),
                coming(2),
                coming(3),
                coming(20),
                arrivals("tower", ArrivalState::There),
                Tell::Finished(String::new()),
            ]
        }
        Ask::Prune { all } => {
            let text = if *all { "removed 1 compiler (gcc 12.2.0); freed 49 MiB" } else { "nothing is removed" };
            vec![Tell::Finished(text.to_owned())]
        }
        other => panic!("not in the script: {other:?}"),
    }
}

#[test]
fn the_list_is_what_the_command_alone_shows() {
    let place = Place::with_agent(agent);
    let ran = place.mesh(&["toolchain"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    insta::assert_snapshot!(ran.out, @r"
    ID             COMPILER    TARGET            RUN AS              SIZE  MAY BE SENT  PEERS
    5e1c09a1b2 +1  gcc 12.2.0  x86_64-linux-gnu  /usr/bin/gcc, cc  49 MiB  yes          tower
    1 compiler under 2 names · 1 provider connected

    not used as compilers, so that what they compile stays here:
      /usr/bin/c99: /usr/bin/c99 is a script
    ");
    assert_eq!(place.mesh(&["toolchain", "list"]).out, ran.out);
    let wide = place.mesh(&["toolchain", "list", "-o", "wide"]).out;
    assert!(wide.lines().next().unwrap().ends_with("FILE") && wide.contains("/usr/bin/gcc-12\n"), "{wide}");
    assert_eq!(place.mesh(&["toolchain", "-o", "wide"]).out, wide);
    for words in [&["toolchain", "--json"][..], &["toolchain", "list", "--json"]] {
        let json = place.json(words);
        assert_eq!((&json["schema"], &json["toolchains"][1]["id"]), (&1.into(), &GCC.into()));
    }
    assert!(place.asked().iter().all(|ask| *ask == Ask::Toolchains { look: None }));
}

#[test]
fn show_asks_for_what_a_build_would_run_by_that_name() {
    let place = Place::with_agent(agent);
    let mut command = place.command(&["toolchain", "show", "gcc"]);
    command.env("PATH", "/opt/bin:/usr/bin").current_dir("/");
    let shown = ran(command);
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(shown.out.starts_with("gcc 12.2.0, /usr/bin/gcc\n  id        5e1c09a1b2\n"), "{}", shown.out);
    let look = Look { program: b"gcc".to_vec(), cwd: b"/".to_vec(), path_var: b"/opt/bin:/usr/bin".to_vec() };
    assert_eq!(place.asked()[0], Ask::Toolchains { look: Some(look) });
    let json = place.json(&["toolchain", "show", GCC, "--json"]);
    assert_eq!((&json["schema"], &json["toolchains"][0]["id"]), (&1.into(), &GCC.into()));
    // A path is one from the root, whatever it was typed as.
    let mut command = place.command(&["toolchain", "show", "bin/gcc"]);
    command.current_dir("/usr");
    assert_eq!(ran(command).code, 0);
    assert!(
        place.asked().iter().any(
            |ask| matches!(ask, Ask::Toolchains { look: Some(Look { program, .. }) } if program == b"/usr/bin/gcc")
        )
    );
    let unknown = place.mesh(&["toolchain", "show", "icc\u{1b}"]);
    assert_eq!(
        (unknown.code, unknown.err.as_str()),
        (1, "mesh: no compiler is called icc? here. See: mesh toolchain\n")
    );
    let script = place.mesh(&["toolchain", "show", "/usr/bin/c99"]);
    assert_eq!(script.code, 1);
    assert_eq!(script.err, "mesh: /usr/bin/c99 is not used as a compiler: /usr/bin/c99 is a script\n");
    let json = place.json(&["toolchain", "show", "icc", "--json"]);
    assert_eq!((&json["schema"], &json["error"]["exit"]), (&1.into(), &1.into()));
}

#[test]
fn why_names_a_machine_and_perhaps_a_compiler() {
    let place = Place::with_agent(agent);
    let ran = place.mesh(&["toolchain", "--why", "tower", "gcc"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out, @r"
    of 1 compiler of this machine, tower lacks 1; it has 1 in all

    gcc 12.2.0 (/usr/bin/gcc)
      the most similar one there is gcc 12.2.0, /usr/bin/gcc:
        /usr/lib/gcc/cc1 has 30 bytes here and 31 there
      it is sent when a unit wants it there. Now: mesh toolchain push /usr/bin/gcc --to tower
    ");
    let ids = |ask: &Ask| if let Ask::WhyNot { ids, .. } = ask { Some(ids.clone()) } else { None };
    assert_eq!(place.asked().iter().find_map(ids), Some(vec![GCC.to_owned()]));
    let json = place.json(&["toolchain", "--why", "tower", "--json"]);
    assert_eq!((&json["asked"], &json["lacking"][0]["id"]), (&2.into(), &GCC.into()));
    let gone = place.mesh(&["toolchain", "--why", "nas"]);
    assert_eq!((gone.code, gone.err.as_str()), (1, "mesh: nas is not connected. See: mesh peers\n"));
}

#[test]
fn push_tells_each_step_once_and_ends_as_the_transfer_did() {
    let place = Place::with_agent(agent);
    let ran = place.mesh(&["toolchain", "push", "gcc", "--to", "tower"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out, @r"
    gcc 12.2.0 (/usr/bin/gcc): tower is asked to take it
    gcc 12.2.0 (/usr/bin/gcc): 1.0 MiB of 49 MiB at tower (2 %)
    gcc 12.2.0 (/usr/bin/gcc): 20 MiB of 49 MiB at tower (40 %)
    gcc 12.2.0 (/usr/bin/gcc): tower has it
    ");
    let refused = place.mesh(&["toolchain", "push", "gcc", "--to", "nas"]);
    assert_eq!(
        (refused.code, refused.out.as_str()),
        (7, "gcc 12.2.0 (/usr/bin/gcc): not sent to nas: it has no room for it\n")
    );
    assert_eq!(refused.err, "mesh: 0 of 1 compiler arrived; 1 refused, for the reason above\n");
    // Without a name: what builds run by the usual names, each once.
    assert_eq!(place.mesh(&["toolchain", "push"]).code, 0);
    let all = Ask::Push { ids: vec![GCC.to_owned()], peer: None };
    assert_eq!(place.asked().last(), Some(&all));
}

#[test]
fn prune_says_what_was_removed() {
    let place = Place::with_agent(agent);
    assert_eq!(place.mesh(&["toolchain", "prune"]).out, "mesh: nothing is removed\n");
    let all = place.mesh(&["toolchain", "prune", "--all"]);
    assert_eq!((all.code, all.out.as_str()), (0, "mesh: removed 1 compiler (gcc 12.2.0); freed 49 MiB\n"));
}

#[test]
fn words_that_mean_nothing_end_with_2_and_no_agent_with_3() {
    let place = Place::empty();
    for words in [
        &["toolchain", "gcc"][..],
        &["toolchain", "show"],
        &["toolchain", "show", ""],
        &["toolchain", "--why"],
        &["toolchain", "--why", "a", "b", "c"],
        &["toolchain", "--why", "a", "-o", "wide"],
        &["toolchain", "push", "--to"],
        &["toolchain", "prune", "gcc"],
        &["toolchain", "-o", "narrow"],
    ] {
        assert_eq!(place.mesh(words).code, 2, "{words:?}");
    }
    for words in
        [&["toolchain"][..], &["toolchain", "show", "gcc"], &["toolchain", "--why", "a"], &["toolchain", "prune"]]
    {
        let ran = place.mesh(words);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{words:?}");
        assert_eq!(ran.err, "mesh: the agent is not running. Start it with: mesh up\n", "{words:?}");
    }
}
