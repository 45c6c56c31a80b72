//! What a machine lends: its owner's word is obeyed at once, and what it compiles gives way to everything else.

use crate::{
    desk::{Where, desk, is_compiler, slow},
    env::{Agent, Ground, descends, processes, until},
    turns,
};
use mesh::{reason::Reason, sched::guest::Mode};
use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// What the client is told of the provider, which is its only peer.
fn state_seen(client: &Agent) -> String {
    client.snapshot().peers[0].state.clone()
}

/// Whether the client is told that the provider lends: on a computer that does much else, it may find it slow besides.
fn is_ready(client: &Agent) -> bool {
    state_seen(client).starts_with("ready")
}

/// Ends a process when the test ends, however it does.
struct Spins(Child);

impl Spins {
    fn start(ground: &Ground) -> Self {
        let mut command = ground.command("sh");
        Self(command.args(["-c", "while :; do :; done"]).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Spins {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A field of `/proc/PID/stat`, counted as in proc(5).
fn stat(pid: u32, field: usize) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after) = text.rsplit_once(')').unwrap();
    after.split_whitespace().nth(field - 3).unwrap().to_owned()
}

#[test]
fn a_paused_machine_gets_no_unit_until_it_is_resumed_and_the_build_goes_on_without_it() {
    let Some(mut desk) = desk() else { return };
    desk.spoilt = true;
    desk.write("a.c", "int a(void) { return 1; }\n");
    desk.same_there("gcc -c a.c -o a.o");
    let paused = desk.provider.mesh(&desk.ground, &["pause"]);
    assert_eq!((paused.code, paused.out().as_str()), (Some(0), "mesh: paused until you say: mesh resume\n"));
    until("the client is told", || (state_seen(&desk.client) == "paused").then_some(()));
    let served = desk.served();
    desk.same(&desk.line("gcc -c a.c -o a.o"), Where::Here(Reason::PeersPaused));
    assert_eq!(desk.served(), served);
    let status = desk.provider.mesh(&desk.ground, &["status"]).out();
    assert!(status.contains("mode       full, set by MESH_MODE: paused until you say: mesh resume"), "{status}");
    // What the owner said outlives the agent.
    desk.restart_provider();
    until("the client is told again", || (state_seen(&desk.client) == "paused").then_some(()));
    let resumed = desk.provider.mesh(&desk.ground, &["resume"]);
    assert!(resumed.out().starts_with("mesh: mode full, set by MESH_MODE: lending "), "{}", resumed.out());
    until("the client is told of the end", || is_ready(&desk.client).then_some(()));
    desk.same_there("gcc -c a.c -o a.o");
}

#[test]
fn a_pause_of_a_second_ends_by_itself() {
    let Some(mut desk) = desk() else { return };
    desk.spoilt = true;
    desk.write("a.c", "int a(void) { return 1; }\n");
    let began = Instant::now();
    let paused = desk.provider.mesh(&desk.ground, &["pause", "1s"]);
    assert_eq!(paused.code, Some(0), "{}", paused.err());
    until("it is open again", || desk.provider.snapshot().lending.why.is_none().then_some(()));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    until("the client is told", || is_ready(&desk.client).then_some(()));
    desk.same_there("gcc -c a.c -o a.o");
}

#[test]
fn a_mode_is_kept_and_says_who_set_it_and_a_wrong_one_is_refused() {
    let ground = Ground::new();
    let mut agent = Agent::new(&ground, "alone");
    agent.start(&ground);
    agent.answers();
    let said = |agent: &Agent, words: &[&str]| agent.mesh(&ground, words);
    assert!(said(&agent, &["mode", "off"]).code == Some(0));
    let off = |agent: &mut Agent| {
        let lending = agent.answers().lending;
        (lending.mode, lending.set_by)
    };
    assert_eq!(off(&mut agent), (Mode::Off, "set by mesh mode".to_owned()));
    agent.stop();
    agent.start(&ground);
    assert_eq!(off(&mut agent), (Mode::Off, "set by mesh mode".to_owned()));
    assert!(said(&agent, &["mode", "auto"]).code == Some(0));
    assert_eq!(off(&mut agent), (Mode::Full, "set by MESH_MODE".to_owned()));
    let wrong = said(&agent, &["mode", "ful"]);
    assert_eq!((wrong.code, wrong.err().contains("Did you mean: mesh mode full")), (Some(2), true), "{}", wrong.err());
    let wrong = said(&agent, &["pause", "soon"]);
    assert_eq!((wrong.code, wrong.err().contains("mesh pause 30m")), (Some(2), true), "{}", wrong.err());
}

#[test]
fn a_machine_that_is_lent_while_idle_is_closed_while_its_owners_programs_are_busy() {
    let _alone = turns::alone();
    let Some(mut desk) = desk() else { return };
    desk.spoilt = true;
    let cores = std::thread::available_parallelism().unwrap().get();
    let spinning: Vec<Spins> = (0..cores).map(|_| Spins::start(&desk.ground)).collect();
    assert_eq!(desk.provider.mesh(&desk.ground, &["mode", "idle"]).code, Some(0));
    until("the client is told", || (state_seen(&desk.client) == "paused: in use").then_some(()));
    assert_eq!(desk.client.snapshot().peers[0].slots, 0);
    // Its owner may give it all away nevertheless.
    assert_eq!(desk.provider.mesh(&desk.ground, &["mode", "full"]).code, Some(0));
    until("the client is told of it", || is_ready(&desk.client).then_some(()));
    drop(spinning);
}

#[test]
fn a_job_gives_way_and_is_the_first_to_go_when_memory_runs_out() {
    let Some(desk) = desk() else { return };
    let unit = slow(&desk, "polite");
    let begun = desk.begin(&unit, "polite.cc");
    let provider = desk.provider.pid();
    let jobs: Vec<u32> =
        processes(b"polite.cc").into_iter().filter(|pid| is_compiler(*pid) && descends(*pid, provider)).collect();
    assert!(!jobs.is_empty());
    for pid in jobs {
        assert_eq!(stat(pid, 19), "5", "nice, in full mode");
        assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "900");
    }
    assert_eq!(stat(provider, 19), "0", "the agent itself does not give way");
    begun.ends().good();
}
