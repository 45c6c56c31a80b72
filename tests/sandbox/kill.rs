//! A job that must end ends as a whole: no process of it is left, whatever it does about that.

use crate::escape::{attempt, result};
use crate::world::{Alone, mesh};
use mesh::sandbox::policy::{Mould, Policy};
use mesh::sandbox::{self, Exit, SandboxError, Template};
use rustix::process::Pid;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that a kill may take to be complete.
const PATIENCE: Duration = Duration::from_secs(5);

/// Every process on this machine, with one of its fields in `/proc`.
fn processes(field: &str) -> Vec<(Pid, Vec<u8>)> {
    let names = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let pids = names.filter_map(|name| Pid::from_raw(name.to_str()?.parse().ok()?));
    pids.map(|pid| (pid, std::fs::read(format!("/proc/{pid}/{field}")).unwrap_or_default())).collect()
}

/// All programs that got this word as an argument. (Init and the warden did not; but a call that runs a job returns
/// only after they have ended.)
pub(crate) fn processes_with(word: &str) -> Vec<Pid> {
    let has_word = |line: &[u8]| line.split(|byte| *byte == 0).any(|arg| arg == word.as_bytes());
    processes("cmdline").into_iter().filter(|(_, line)| has_word(line)).map(|(pid, _)| pid).collect()
}

/// The children of a process: of an agent, its wardens.
fn children_of(parent: u32) -> Vec<Pid> {
    let is_child = |stat: &[u8]| {
        let stat = String::from_utf8_lossy(stat).into_owned();
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(&parent.to_string())
    };
    processes("stat").into_iter().filter(|(_, stat)| is_child(stat)).map(|(pid, _)| pid).collect()
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A job that stays, by a marker that no other test's job has.
fn staying(marker: &str) -> Option<Alone> {
    Some(Alone::new(attempt()?, &["stay", &format!("/out/{marker}")]))
}

#[test]
fn what_a_job_leaves_behind_dies_with_it() {
    let Some(program) = attempt() else { return };
    let alone = Alone::new(program, &["daemonise", "left-behind"]);
    assert_eq!(result(&alone.run().unwrap()).0, 0);
    assert_eq!(processes_with("left-behind"), []);
    // The control: outside they stay. With no output of this test's, which would wait for them.
    let mut outside = Command::new(program);
    outside.args(["daemonise", "left-at-home"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(outside.status().unwrap().success());
    let left = processes_with("left-at-home");
    for pid in &left {
        rustix::process::kill_process(*pid, rustix::process::Signal::KILL).unwrap();
    }
    assert_eq!(left.len(), 3);
}

#[test]
fn a_job_over_its_wall_time_is_gone() {
    let Some(mut alone) = staying("over-time") else { return };
    alone.policy.limits.wall_ms = 300;
    let start = Instant::now();
    assert!(matches!(alone.run(), Err(SandboxError::Wall)));
    assert!(start.elapsed() >= Duration::from_millis(300) && start.elapsed() < PATIENCE);
    assert_eq!(processes_with("/out/over-time"), []);
}

#[test]
fn a_cancelled_job_is_gone() {
    let Some(alone) = staying("cancelled") else { return };
    let (cancelled, cancel) = std::io::pipe().unwrap();
    let policy = alone.policy.clone();
    let job = std::thread::spawn(move || sandbox::run(mesh(), &policy, cancelled.as_fd()));
    // The program and the two that it leaves to others.
    eventually("it starts", || processes_with("/out/cancelled").len() == 3);
    let start = Instant::now();
    drop(cancel);
    assert!(matches!(job.join().unwrap(), Err(SandboxError::Cancelled)));
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    assert_eq!(processes_with("/out/cancelled"), []);
}

/// Not a test by itself: the agent's part in the ones below. It starts one job and waits for it.
#[test]
fn helper_agent() {
    let Some(path) = std::env::var_os("MESH_TEST_POLICY") else { return };
    let (policy, mould): (Policy, Option<Mould>) = postcard::from_bytes(&std::fs::read(path).unwrap()).unwrap();
    let (cancelled, _cancel) = std::io::pipe().unwrap();
    let _ = match mould {
        None => sandbox::run(mesh(), &policy, cancelled.as_fd()),
        Some(mould) => Template::start(mesh(), &mould).unwrap().run(&policy, cancelled.as_fd()),
    };
}

fn agent(alone: &Alone, in_template: bool) -> std::process::Child {
    let path = alone.dir.path().join("policy");
    let what = if in_template {
        let (mould, policy) = alone.in_template();
        (policy, Some(mould))
    } else {
        (alone.policy.clone(), None)
    };
    std::fs::write(&path, postcard::to_stdvec(&what).unwrap()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kill::helper_agent"]).env("MESH_TEST_POLICY", path);
    command.stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_killed_agent_takes_its_jobs_along() {
    for in_template in [false, true] {
        let Some(alone) = staying("agent-killed") else { return };
        let mut agent = agent(&alone, in_template);
        eventually("it starts", || processes_with("/out/agent-killed").len() == 3);
        let templates = children_of(agent.id());
        agent.kill().unwrap();
        agent.wait().unwrap();
        eventually("all end", || processes_with("/out/agent-killed").is_empty());
        eventually("what held them ends", || templates.iter().all(|pid| !is_running(*pid)));
    }
}

/// Whether a process has not ended.
fn is_running(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

#[test]
fn a_killed_template_takes_its_jobs_along_and_they_are_reported() {
    let Some(alone) = staying("template-killed") else { return };
    let mut agent = agent(&alone, true);
    eventually("it starts", || processes_with("/out/template-killed").len() == 3);
    let templates = children_of(agent.id());
    assert_eq!(templates.len(), 1);
    let wardens = children_of(templates[0].as_raw_nonzero().get().cast_unsigned());
    assert_eq!(wardens.len(), 1);
    rustix::process::kill_process(templates[0], rustix::process::Signal::KILL).unwrap();
    eventually("all end", || processes_with("/out/template-killed").is_empty());
    assert!(agent.wait().unwrap().success());
}

#[test]
fn a_killed_warden_of_a_template_takes_its_job_along_and_no_other() {
    let Some(alone) = staying("one-of-two") else { return };
    let Some(other) = staying("two-of-two") else { return };
    let (template, policy) = alone.template().unwrap();
    let (cancelled, cancel) = std::io::pipe().unwrap();
    let mut second = policy.clone();
    second.argv = other.policy.argv.clone();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| template.run(&policy, cancelled.as_fd()));
        let second = scope.spawn(|| template.run(&second, cancelled.as_fd()));
        eventually("they start", || {
            processes_with("/out/one-of-two").len() == 3 && processes_with("/out/two-of-two").len() == 3
        });
        // The program's parent is init, and init's is the warden.
        let parent_of = |pid: Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let field = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
            Pid::from_raw(field).unwrap()
        };
        let init = processes_with("/out/one-of-two").into_iter().map(parent_of).next().unwrap();
        rustix::process::kill_process(parent_of(init), rustix::process::Signal::KILL).unwrap();
        assert!(matches!(first.join().unwrap(), Err(SandboxError::Lost)));
        assert_eq!(processes_with("/out/one-of-two"), []);
        assert_eq!(processes_with("/out/two-of-two").len(), 3);
        drop(cancel);
        assert!(matches!(second.join().unwrap(), Err(SandboxError::Cancelled)));
        assert_eq!(processes_with("/out/two-of-two"), []);
    });
}

#[test]
fn what_a_job_of_a_template_leaves_behind_dies_with_it_and_its_time_is_bounded() {
    let Some(program) = attempt() else { return };
    let alone = Alone::new(program, &["daemonise", "left-in-template"]);
    assert_eq!(result(&alone.run_in_template().unwrap()).0, 0);
    assert_eq!(processes_with("left-in-template"), []);
    let Some(mut alone) = staying("over-time-in-template") else { return };
    alone.policy.limits.wall_ms = 300;
    assert!(matches!(alone.run_in_template(), Err(SandboxError::Wall)));
    assert_eq!(processes_with("/out/over-time-in-template"), []);
}

#[test]
fn a_killed_warden_takes_its_job_along_and_is_reported() {
    let Some(alone) = staying("warden-killed") else { return };
    let mut agent = agent(&alone, false);
    eventually("it starts", || processes_with("/out/warden-killed").len() == 3);
    let wardens = children_of(agent.id());
    assert_eq!(wardens.len(), 1);
    rustix::process::kill_process(wardens[0], rustix::process::Signal::KILL).unwrap();
    eventually("all end", || processes_with("/out/warden-killed").is_empty());
    assert!(agent.wait().unwrap().success());
}

#[test]
fn a_template_without_jobs_ends_and_one_with_a_job_does_not() {
    let Some(alone) = staying("keeps-its-template") else { return };
    let (mould, policy) = alone.in_template();
    let template = Template::start(mesh(), &Mould { idle_ms: 100, ..mould }).unwrap();
    let (cancelled, cancel) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let job = scope.spawn(|| template.run(&policy, cancelled.as_fd()));
        eventually("it starts", || processes_with("/out/keeps-its-template").len() == 3);
        std::thread::sleep(Duration::from_millis(400));
        assert!(!template.has_ended());
        drop(cancel);
        assert!(matches!(job.join().unwrap(), Err(SandboxError::Cancelled)));
    });
    eventually("it ends", || template.has_ended());
    assert!(!template.has_died());
}

#[test]
fn a_job_ended_by_a_signal_says_which() {
    let Some(program) = attempt() else { return };
    let alone = Alone::new(program, &["forks", "1"]);
    assert_eq!(alone.run().unwrap().exit, Exit::Signal(15));
}
