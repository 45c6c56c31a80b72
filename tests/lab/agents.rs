//! Agents on machines: started, joined, asked for their counters.

use crate::machine::{Lab, Machine, Ran, Running, eventually};
use serde_json::Value;
use std::time::Duration;

/// How long an agent may take until it answers.
const START: Duration = Duration::from_secs(5);
/// How long joined machines may take until each is connected with each.
const MEET: Duration = Duration::from_secs(10);
/// How long toolchains may take to be fingerprinted and matched after that.
const MATCH: Duration = Duration::from_secs(30);
/// The launcher, as a build names it.
pub(crate) const LAUNCHER: &[&str] = &["mesh-cc"];

/// A machine that has mesh installed.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) agent: Option<Running>,
    /// It keeps results.
    pub(crate) keeps: bool,
}

impl<'a> Node<'a> {
    /// Installs mesh on a machine; starts nothing.
    pub(crate) fn install(machine: &'a Machine) -> Self {
        machine.make_dir("/home/dev/bin");
        let bin = machine.outside("/home/dev/bin");
        for (program, name) in [(env!("CARGO_BIN_EXE_mesh"), "mesh"), (env!("CARGO_BIN_EXE_mesh-cc"), "mesh-cc")] {
            let there = bin.join(name);
            let linked = std::fs::hard_link(program, &there);
            linked.or_else(|_| std::fs::copy(program, &there).map(drop)).expect("mesh can be installed on a machine");
        }
        Self { machine, agent: None, keeps: false }
    }

    /// Starts the agent and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        let running = self
            .machine
            .command(&["mesh", "agent"])
            .env("MESH_LOG", "debug")
            .env("MESH_MODE", "full")
            .env("MESH_CACHE", if self.keeps { "on" } else { "off" })
            .start("agent.log");
        let answers = eventually(START, || self.mesh(&["status"]).status.success().then_some(()));
        assert!(answers.is_some(), "{}'s agent does not answer: {}", self.machine.name, running.said());
        self.agent = Some(running);
    }

    /// One command of mesh.
    pub(crate) fn mesh(&self, words: &[&str]) -> Ran {
        let words: Vec<&str> = std::iter::once("mesh").chain(words.iter().copied()).collect();
        self.machine.command(&words).seconds_max(20).run()
    }

    /// One command of mesh that must succeed.
    #[track_caller]
    pub(crate) fn mesh_ok(&self, words: &[&str]) -> String {
        let ran = self.mesh(words);
        assert!(ran.status.success(), "mesh {words:?} on {}: {ran:?}\n{}", self.machine.name, self.log());
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self, command: &str) -> Value {
        let text = self.mesh_ok(&[command, "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("mesh {command} --json: {e}: {text}"))
    }

    /// What the agent has said so far.
    pub(crate) fn log(&self) -> String {
        self.agent.as_ref().map(Running::said).unwrap_or_default()
    }

    /// How many jobs it has compiled for others: its own count.
    #[track_caller]
    pub(crate) fn served(&self) -> u64 {
        self.counted("served")
    }

    /// One of its counters.
    #[track_caller]
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let status = self.json("status");
        find(&status, &|value| value.get(name).and_then(Value::as_u64))
            .unwrap_or_else(|| panic!("mesh status --json counts no {name}: {status}"))
    }

    /// How many results it has dropped because they were not what the inputs allow: its own count.
    #[track_caller]
    pub(crate) fn discrepancies(&self) -> u64 {
        self.counted("discrepancies")
    }

    /// Whether it is connected with a machine of this name.
    pub(crate) fn is_with(&self, name: &str) -> bool {
        let ran = self.mesh(&["peers", "--json"]);
        let peers: Value = serde_json::from_slice(&ran.stdout).unwrap_or_default();
        let connected = |value: &Value| {
            let named = value.get("name").and_then(Value::as_str) == Some(name);
            (named && value.get("connected").and_then(Value::as_bool) == Some(true)).then_some(())
        };
        find(&peers, &connected).is_some()
    }

    /// Opens a pairing window; gives the code and the command that holds it open.
    #[track_caller]
    pub(crate) fn pair(&self) -> (String, Running) {
        let running = self.machine.command(&["mesh", "pair"]).start("pair.log");
        let code = eventually(START, || {
            let said = running.said();
            let after = said.split("mesh join ").nth(1)?;
            Some(after.split_whitespace().next()?.to_owned())
        });
        (code.unwrap_or_else(|| panic!("mesh pair shows no code: {}", running.said())), running)
    }

    /// Joins by a code; the addresses come from discovery.
    #[track_caller]
    pub(crate) fn join(&self, inviter: &Self) {
        let (code, mut pairing) = inviter.pair();
        self.mesh_ok(&["join", &code]);
        let ended = pairing.wait(START);
        assert!(ended.is_some_and(|status| status.success()), "mesh pair ends well: {}", pairing.said());
    }
}

/// The first answer that a value or one inside it gives.
fn find<T>(value: &Value, ask: &dyn Fn(&Value) -> Option<T>) -> Option<T> {
    let inside = || match value {
        Value::Array(values) => values.iter().find_map(|value| find(value, ask)),
        Value::Object(values) => values.values().find_map(|value| find(value, ask)),
        _ => None,
    };
    ask(value).or_else(inside)
}

/// The lab's machines with agents in one mesh, each connected with each; the first is the client.
#[track_caller]
pub(crate) fn joined(lab: &Lab) -> Vec<Node<'_>> {
    joined_as(lab, false)
}

/// The same, and they keep results or do not.
#[track_caller]
pub(crate) fn joined_as(lab: &Lab, keeps: bool) -> Vec<Node<'_>> {
    let mut nodes: Vec<Node<'_>> = lab.machines.iter().map(Node::install).collect();
    for node in &mut nodes {
        node.keeps = keeps;
        node.start();
    }
    nodes[0].mesh_ok(&["up"]);
    for node in &nodes[1..] {
        node.join(&nodes[0]);
    }
    for node in &nodes {
        for other in nodes.iter().filter(|other| other.machine.name != node.machine.name) {
            meet(node, other, MEET);
        }
    }
    nodes
}

#[track_caller]
pub(crate) fn meet(node: &Node<'_>, other: &Node<'_>, at_most: Duration) {
    let (one, two) = (&node.machine.name, &other.machine.name);
    let met = eventually(at_most, || node.is_with(two).then_some(()));
    assert!(met.is_some(), "{one} is not with {two} within {at_most:?}: {:?}\n{}", node.mesh(&["peers"]), node.log());
}

/// How many jobs all but the client have compiled.
#[track_caller]
pub(crate) fn served(nodes: &[Node<'_>]) -> u64 {
    nodes[1..].iter().map(Node::served).sum()
}

/// Compiles trifles until a unit of each driver was compiled elsewhere.
#[track_caller]
pub(crate) fn warm_up(nodes: &[Node<'_>]) {
    let client = nodes[0].machine;
    std::fs::write(client.outside("/home/dev/warm.c"), "int warm;\n").expect("the machine's files can be written");
    for driver in ["gcc", "g++", "clang", "clang++"] {
        let before = served(nodes);
        let went = eventually(MATCH, || {
            let argv = [LAUNCHER, &[driver, "-c", "/home/dev/warm.c", "-o", "/tmp/warm.o"]].concat();
            let ran = client.command(&argv).env("MESH", "force").run();
            assert!(ran.status.success(), "{driver}: {ran:?}");
            (served(nodes) > before).then_some(())
        });
        let why = || nodes[0].mesh(&["explain", "last"]);
        assert!(went.is_some(), "{driver}: nothing runs elsewhere: {:?}\n{}", why(), nodes[0].log());
    }
}
