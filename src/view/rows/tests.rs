//! Words of the views (DECIDE).

use super::*;
use crate::{reason::Reason, view::snapshot::Lending};

fn machine(name: &str, compilers: &[&str], slots: u16, free: u16, rtt_us: Option<u64>, state: &str) -> Machine {
    Machine {
        name: name.to_owned(),
        id: "k7f3-q2m9-xad4".to_owned(),
        role: "owner".to_owned(),
        compilers: compilers.iter().map(ToString::to_string).collect(),
        slots,
        free,
        rtt_us,
        state: state.to_owned(),
        addresses: vec!["192.168.1.20:6374".to_owned()],
        connected: rtt_us.is_some(),
        finished: 12,
        speed_percent: rtt_us.map(|us| if us > 1000 { 56 } else { 131 }),
        memory_mib: rtt_us.map(|_| 12_000),
        failures: 0,
        heard_ms: rtt_us.map(|_| 250),
    }
}

fn desk() -> Snapshot {
    Snapshot {
        this: machine("thinkpad", &["gcc 14.2.1", "clang 19.1.7"], 8, 3, None, "ready"),
        mesh: Some("home".to_owned()),
        lending: Lending {
            set_by: "as on every machine without a battery".to_owned(),
            cores: 8,
            slots: 6,
            to: vec!["tower".to_owned()],
            pauses: Some((4, "you were using it".to_owned())),
            ..Lending::default()
        },
        peers: vec![
            machine("mac-mini", &["clang 19.1.7"], 8, 8, Some(3_100), "ready"),
            machine("old-imac", &[], 4, 4, None, "not reachable"),
            machine("tower", &["gcc 14.2.1", "clang 19.1.7"], 24, 17, Some(400), "ready"),
        ],
        counters: Counters {
            requests: 693,
            remote: 612,
            cache_hits: 40,
            cache_hits_mesh: 12,
            cache_hits_joined: 1,
            cache_misses: 120,
            cache_bytes: 3 << 20,
            cache_saved_ms: 83_000,
            cache_not_written: 0,
            cache_damaged: 2,
            cache_kept: 118,
            cache_kept_bytes: 9 << 20,
            uncacheable: Vec::new(),
            local: vec![(Reason::NotCompile, 44), (Reason::NativeArch, 12), (Reason::Probe, 25)],
            served: 7,
            served_in_mirror: 0,
            mirror_misses: 0,
            not_served: 1,
            discrepancies: 1,
            asked_compiler: 2,
            hedges: 5,
            hedges_won: 3,
            wasted_ms: 4_000,
            compiled_ms: 900_000,
            fallbacks: 81,
            overflows: 0,
        },
        version: "0.1.0".to_owned(),
        pid: 4711,
        uptime_ms: 7_500_000,
        port: 6374,
        ..Snapshot::default()
    }
}

fn phase(name: &str, us: u64) -> Phase {
    Phase { name: name.to_owned(), us, cpu_us: None }
}

fn unit() -> UnitRecord {
    UnitRecord {
        source: b"/src/parser.cpp".to_vec(),
        output: b"/build/parser.cpp.o".to_vec(),
        ended_ms: 1_767_225_599_000,
        ran_on: Some("tower".to_owned()),
        compiler: "gcc 14.2.1".to_owned(),
        reason: None,
        note: String::new(),
        files: 41,
        phases: vec![phase("scan", 1_900), phase("choose", 20), phase("remote", 3_950_000)],
        phases_there: vec![phase("stage", 2_100), phase("run", 3_940_000), phase("collect", 300)],
        cpu_us: 3_910_000,
        peak_kib: 831_488,
        output_bytes: 1_992_294,
        chosen: vec![("tower".to_owned(), 4_400), ("here".to_owned(), 6_000), ("nas".to_owned(), 12_100)],
        starts: 1,
        cached: false,
        made_by: String::new(),
        made_ms: 0,
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[test]
fn peers_is_a_table_with_this_machine_first_and_starred() {
    insta::assert_snapshot!(peers(&desk(), false), @r"
    NAME        MATCHES                   SLOTS  FREE     RTT  SPEED  STATE
    thinkpad *  gcc 14.2.1, clang 19.1.7      8     3       -      -  this machine
    mac-mini    clang 19.1.7                  8     8  3.1 ms   0.56  ready
    old-imac    -                             -     -       -      -  not reachable
    tower       gcc 14.2.1, clang 19.1.7     24    17  0.4 ms   1.31  ready
    4 machines · 40 slots, 28 free
    ");
    insta::assert_snapshot!(peers(&desk(), true), @r"
    NAME        MATCHES                   SLOTS  FREE     RTT  SPEED  STATE          MEMORY  FAILED  ROLE   DONE  ADDRESSES          ID
    thinkpad *  gcc 14.2.1, clang 19.1.7      8     3       -      -  this machine        -       -  owner     -  192.168.1.20:6374  k7f3-q2m9-xad4
    mac-mini    clang 19.1.7                  8     8  3.1 ms   0.56  ready          11 GiB       0  owner    12  192.168.1.20:6374  k7f3-q2m9-xad4
    old-imac    -                             -     -       -      -  not reachable       -       0  owner    12  192.168.1.20:6374  k7f3-q2m9-xad4
    tower       gcc 14.2.1, clang 19.1.7     24    17  0.4 ms   1.31  ready          11 GiB       0  owner    12  192.168.1.20:6374  k7f3-q2m9-xad4
    4 machines · 40 slots, 28 free
    ");
}

#[test]
fn a_machine_alone_and_without_a_sandbox_says_so() {
    let alone = Snapshot {
        this: machine("thinkpad", &[], 0, 0, None, ""),
        not_serving: Some("user namespaces are switched off".to_owned()),
        discovery_problem: Some("port 5353 is taken".to_owned()),
        version: "0.1.0".to_owned(),
        ..Snapshot::default()
    };
    insta::assert_snapshot!(peers(&alone, false), @r"
    NAME        MATCHES  SLOTS  FREE  RTT  SPEED  STATE
    thinkpad *  -            0     0    -      -  this machine, does not serve
    1 machine · 0 slots, 0 free
    this machine does not serve: user namespaces are switched off
    discovery does not work: port 5353 is taken
    ");
    insta::assert_snapshot!(status(&alone), @r"
    thinkpad, in no mesh. Make one with: mesh up; or join one with: mesh join CODE
    agent      mesh 0.1.0, process 0, up 0 s, UDP port 0
    compilers  -
    lending    nothing: user namespaces are switched off
    borrowing  0 of 0 other machines connected, 0 slots free
    discovery  port 5353 is taken
    compiled   nothing yet
    ");
}

#[test]
fn status_tells_what_is_lent_borrowed_and_compiled_here_and_why() {
    insta::assert_snapshot!(status(&desk()), @r#"
    thinkpad in "home"
    agent      mesh 0.1.0, process 4711, up 2 h 5 min, UDP port 6374
    compilers  gcc 14.2.1, clang 19.1.7
    lending    8 slots, 3 free; 7 jobs done for others, 1 refused or not finished
    mode       share, as on every machine without a battery: lending 6 of 8 cores to tower · paused automatically 4× today (you were using it)
    borrowing  2 of 3 other machines connected, 25 slots free
    late       5 units, 3 second starts ended first; 0.4 % of all compile time was for nothing
    cached     40 of 160 units looked for (25 %), 3.0 MiB: 83.00 s of compiling saved, 12 kept by another machine, 1 waited for, 2 damaged
    compiled   693 units: 612 elsewhere (88 %), 81 here
                 44  NOT_COMPILE: The command does not compile one source to one object (it links, preprocesses or asks the compiler something).
                 25  PROBE: The command looks like a configure-time check, which is faster here.
                 12  NATIVE_ARCH: The command asks for this machine's own processor (-march=native), and what that means here could not be found out.
               for 2 units the compiler was asked for its own list of inputs
               1 remote result dropped because of a discrepancy: please report it
    "#);
}

#[test]
fn explain_tells_where_a_unit_ran_or_why_it_stayed() {
    insta::assert_snapshot!(explain(&unit(), 1_767_225_611_000, shown), @r"
    /src/parser.cpp → /build/parser.cpp.o      12 s ago, 3.95 s in all
     compiler   gcc 14.2.1
     ran on     tower (cpu 3.91 s, peak 812 MiB)
     chosen     lowest expected finish: tower 4.40 s · here 6.00 s · nas 12.10 s
     inputs     41 files and directories
     time       scan 1.9 ms · choose 0.0 ms · remote 3.95 s
     there      stage 2.1 ms · run 3.94 s · collect 0.3 ms
     result     1.9 MiB
    ");
    let here = UnitRecord {
        ran_on: None,
        reason: Some(Reason::NativeArch),
        note: "tower: the job was refused".to_owned(),
        phases: vec![],
        phases_there: vec![],
        files: 0,
        ..unit()
    };
    insta::assert_snapshot!(explain(&here, 1_767_225_599_000, shown), @r"
    /src/parser.cpp ran here: NATIVE_ARCH. The command asks for this machine's own processor (-march=native), and what that means here could not be found out.      just now
     compiler   gcc 14.2.1
     chosen     lowest expected finish: tower 4.40 s · here 6.00 s · nas 12.10 s
     note       tower: the job was refused
     hint       Write the architecture out, such as -march=x86-64-v3.
    ");
    let again = UnitRecord {
        ran_on: None,
        phases: vec![phase("scan", 400), phase("cache", 250)],
        chosen: vec![],
        starts: 0,
        cached: true,
        made_by: "tower".to_owned(),
        made_ms: 1_767_225_539_000,
        ..unit()
    };
    insta::assert_snapshot!(explain(&again, 1_767_225_599_000, shown), @r"
    /src/parser.cpp → /build/parser.cpp.o      just now, 0.7 ms in all
     compiler   gcc 14.2.1
     cached     compiled by tower 1 min ago, in 3.94 s
     inputs     41 files and directories
     time       scan 0.4 ms · cache 0.3 ms
     result     1.9 MiB
    ");
    assert_eq!(explain_json(&[again])["units"][0]["made_by"], "tower");
}

#[test]
fn a_name_cannot_move_the_cursor_or_turn_the_line_around() {
    let mut snapshot = desk();
    snapshot.peers[0].name = "a\x1b[2Jb\u{202e}c\nd".to_owned();
    snapshot.peers[0].state = "rea\rdy".to_owned();
    let text = peers(&snapshot, true);
    assert!(text.contains("a?[2Jb?c?d") && text.contains("rea?dy"), "{text}");
    assert!(!text.chars().any(|c| c != '\n' && c.is_control()));
    assert_eq!(text.lines().count(), 6);
    let json = peers_json(&snapshot).to_string();
    assert!(!json.chars().any(char::is_control));
}

#[test]
fn json_has_its_schema_full_ids_and_integers() {
    insta::assert_snapshot!(peers_json(&desk())["machines"][1].to_string(), @r#"{"addresses":["192.168.1.20:6374"],"connected":true,"failures":0,"finished":12,"free":8,"heard_ms":250,"id":"k7f3-q2m9-xad4","matches":["clang 19.1.7"],"memory_mib":12000,"name":"mac-mini","role":"owner","rtt_us":3100,"slots":8,"speed_percent":56,"state":"ready","this":false}"#);
    assert_eq!(peers_json(&desk())["schema"], 1);
    let status = status_json(&desk());
    assert_eq!((&status["schema"], &status["counters"]["local"]["NATIVE_ARCH"]), (&json!(1), &json!(12)));
    let explained = explain_json(&[UnitRecord { reason: Some(Reason::Stdin), ..unit() }]);
    assert_eq!(explained["units"][0]["reason"]["code"], "STDIN");
    assert_eq!(explained["units"][0]["ended"], "2025-12-31T23:59:59.000Z");
}

#[test]
fn a_compiler_of_cxx_goes_without_saying_beside_its_c_compiler() {
    let said = |labels: &[&str]| compilers(&labels.iter().map(ToString::to_string).collect::<Vec<_>>()).join(", ");
    assert_eq!(said(&["clang 14.0.6", "clang++ 14.0.6", "g++ 12.2.0", "gcc 12.2.0"]), "gcc 12.2.0, clang 14.0.6");
    assert_eq!(said(&["clang++ 14.0.6", "g++ 12.2.0", "gcc 13.1.0"]), "g++ 12.2.0, gcc 13.1.0, clang++ 14.0.6");
    assert_eq!(said(&["tcc", "\x1bcc 1"]), "?cc 1, tcc");
    assert_eq!(said(&[]), "");
}
