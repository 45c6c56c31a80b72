//! The commands against an agent that follows a script: what they ask, what they print, how they exit.

#![expect(clippy::unwrap_used, reason = "this is all test, and a test fails by panicking")]

#[cfg(target_os = "linux")]
#[path = "cmd/install.rs"]
mod install;
#[path = "cmd/stats.rs"]
mod stats;
#[path = "cmd/toolchain.rs"]
mod toolchain;

use mesh::{
    agent::wire::{ASK_BYTES_MAX, Ask, TELL_BYTES_MAX, Tell},
    reason::Reason,
    view::snapshot::{Counters, Lending, Machine, Snapshot, UnitRecord},
};
use mesh_proto::frame;
use std::{
    io::{Read, Write},
    os::unix::{
        ffi::OsStrExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

/// A directory for all of mesh's files, with or without an agent in it.
struct Place {
    dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Ask>>>,
}

/// What came of a command.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), asked: Arc::default() }
    }

    /// With an agent that answers every question as `script` says, and closes the connection.
    fn with_agent(script: impl Fn(&Ask) -> Vec<Tell> + Send + 'static) -> Self {
        let place = Self::empty();
        place.serve(script);
        place
    }

    fn serve(&self, script: impl Fn(&Ask) -> Vec<Tell> + Send + 'static) {
        let (listener, asked, socket) = (self.listener(), self.asked.clone(), self.socket());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(ask) = read_ask(&mut stream) else { continue };
                asked.lock().unwrap().push(ask.clone());
                for tell in script(&ask) {
                    // The command may have heard enough already.
                    let _ = stream.write_all(&frame::encode(&tell, TELL_BYTES_MAX).unwrap());
                }
                if ask == Ask::Stop {
                    std::fs::remove_file(&socket).unwrap();
                    return;
                }
            }
        });
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/agent-1.sock")
    }

    fn listener(&self) -> UnixListener {
        std::fs::create_dir(self.dir.path().join("run")).unwrap();
        UnixListener::bind(self.socket()).unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
        command.args(words).env_clear().env("MESH_DIR", self.dir.path()).stdin(Stdio::null());
        command
    }

    fn mesh(&self, words: &[&str]) -> Ran {
        ran(self.command(words))
    }

    fn json(&self, words: &[&str]) -> serde_json::Value {
        let ran = self.mesh(words);
        serde_json::from_str(&ran.out).unwrap()
    }

    fn asked(&self) -> Vec<Ask> {
        self.asked.lock().unwrap().clone()
    }
}

fn ran(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn read_ask(stream: &mut UnixStream) -> Option<Ask> {
    let mut header = [0; frame::HEADER_BYTES];
    stream.read_exact(&mut header).ok()?;
    let mut payload = vec![0; frame::length(header, ASK_BYTES_MAX).unwrap()];
    stream.read_exact(&mut payload).unwrap();
    Some(frame::decode(&payload).unwrap())
}

fn machine(name: &str, compilers: &[&str], slots: u16, free: u16, rtt_us: Option<u64>) -> Machine {
    Machine {
        name: name.to_owned(),
        compilers: compilers.iter().map(ToString::to_string).collect(),
        slots,
        free,
        rtt_us,
        state: "ready".to_owned(),
        connected: true,
        ..Machine::default()
    }
}

fn desk() -> Snapshot {
    Snapshot {
        this: machine("thinkpad", &["gcc 14.2.1"], 8, 3, None),
        lending: Lending { set_by: "set by mesh mode".to_owned(), cores: 8, slots: 7, ..Lending::default() },
        mesh: Some("home".to_owned()),
        peers: vec![machine("tower", &["gcc 14.2.1"], 24, 17, Some(400))],
        counters: Counters { remote: 3, local: vec![(Reason::Stdin, 1)], ..Counters::default() },
        version: "0.1.0".to_owned(),
        pid: 4711,
        uptime_ms: 60_000,
        port: 6374,
        ..Snapshot::default()
    }
}

fn record(source: &Path, ended_ms: u64) -> UnitRecord {
    UnitRecord {
        source: source.as_os_str().as_bytes().to_vec(),
        output: b"/o/x.o".to_vec(),
        ended_ms,
        compiler: "gcc 14.2.1".to_owned(),
        reason: Some(Reason::NoMatch),
        starts: 1,
        ..UnitRecord::default()
    }
}

/// Answers for an agent whose machine is in the mesh of `desk`.
fn member(ask: &Ask) -> Vec<Tell> {
    match ask {
        Ask::Snapshot => vec![Tell::Snapshot(Box::new(desk()))],
        Ask::Stop => vec![Tell::Finished("stopping".to_owned())],
        other => panic!("not in the script: {other:?}"),
    }
}

#[test]
fn without_an_agent_every_question_ends_with_3_and_what_to_do() {
    let place = Place::empty();
    for words in [&["peers"][..], &["status"], &["explain"], &["pair"], &["join", "417-otter-maple"]] {
        let ran = place.mesh(words);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{words:?}");
        assert_eq!(ran.err, "mesh: the agent is not running. Start it with: mesh up\n", "{words:?}");
    }
    // A socket that a killed agent left behind is no agent.
    drop(place.listener());
    assert_eq!(place.mesh(&["peers"]).code, 3);
    let said = place.json(&["peers", "--json"]);
    assert_eq!((&said["schema"], &said["error"]["exit"]), (&1.into(), &3.into()));
}

#[test]
fn peers_prints_the_table_and_json_says_the_same() {
    let place = Place::with_agent(member);
    let ran = place.mesh(&["peers"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    insta::assert_snapshot!(ran.out, @r"
    NAME        MATCHES     SLOTS  FREE     RTT  SPEED  STATE
    thinkpad *  gcc 14.2.1      8     3       -      -  this machine
    tower       gcc 14.2.1     24    17  0.4 ms      -  ready
    2 machines · 32 slots, 20 free
    ");
    let json = place.json(&["peers", "--json"]);
    assert_eq!((&json["schema"], &json["mesh"]), (&1.into(), &"home".into()));
    assert_eq!((&json["machines"][0]["this"], &json["machines"][1]["free"]), (&true.into(), &17.into()));
    assert!(place.mesh(&["peers", "-o", "wide"]).out.lines().next().unwrap().ends_with("ID"));
    assert_eq!(place.asked(), vec![Ask::Snapshot; 3]);
}

#[test]
fn outside_a_mesh_peers_ends_with_4_and_status_still_tells() {
    let place = Place::with_agent(|_| vec![Tell::Snapshot(Box::new(Snapshot { mesh: None, ..desk() }))]);
    let ran = place.mesh(&["peers"]);
    assert_eq!((ran.code, ran.out.as_str()), (4, ""));
    insta::assert_snapshot!(ran.err, @"mesh: this machine is in no mesh. Make one with: mesh up; or join one with: mesh join CODE");
    assert_eq!(place.mesh(&["peers", "--json"]).code, 4);
    let status = place.mesh(&["status"]);
    assert_eq!(status.code, 0);
    assert!(status.out.starts_with("thinkpad, in no mesh."), "{}", status.out);
}

#[test]
fn status_counts_what_ran_where() {
    let place = Place::with_agent(member);
    insta::assert_snapshot!(place.mesh(&["status"]).out, @r#"
    thinkpad in "home"
    agent      mesh 0.1.0, process 4711, up 1 min, UDP port 6374
    compilers  gcc 14.2.1
    lending    8 slots, 3 free; 0 jobs done for others
    mode       share, set by mesh mode: lending 7 of 8 cores
    borrowing  1 of 1 other machine connected, 17 slots free
    compiled   4 units: 3 elsewhere (75 %), 1 here
                  1  STDIN: The source is read from standard input.
    "#);
    let json = place.json(&["status", "--json"]);
    assert_eq!(json["counters"]["local"], serde_json::json!({ "STDIN": 1 }));
}

#[test]
fn explain_asks_for_a_path_in_every_spelling() {
    let place = Place::empty();
    let real = place.dir.path().canonicalize().unwrap().join("real");
    std::fs::create_dir(&real).unwrap();
    std::fs::write(real.join("x.c"), "").unwrap();
    std::os::unix::fs::symlink("real", place.dir.path().join("link")).unwrap();
    let source = real.join("x.c");
    place.serve(move |ask| {
        let Ask::Explain { path } = ask else { panic!("not in the script: {ask:?}") };
        let fits = path.as_ref().is_none_or(|p| p == source.as_os_str().as_bytes());
        let units = if fits { vec![record(&source, 0), record(&source, 1000)] } else { vec![] };
        vec![Tell::Explained(units)]
    });
    let explain = |words: &[&str]| {
        let mut command = place.command(words);
        command.current_dir(place.dir.path().join("link"));
        ran(command)
    };
    for words in [&["explain"][..], &["explain", "last"], &["explain", "x.c"], &["explain", "./../link/x.c"]] {
        let ran = explain(words);
        assert_eq!(ran.code, 0, "{words:?}: {}", ran.err);
        let why = "x.c ran here: NO_MATCH. No connected machine has exactly this compiler, and none can be sent it.";
        assert!(ran.out.contains(why), "{}", ran.out);
        assert!(ran.out.contains("hint       Run: mesh toolchain"), "{}", ran.out);
        assert!(ran.out.contains("earlier    1 more of this file"), "{}", ran.out);
    }
    let json: serde_json::Value = serde_json::from_str(&explain(&["explain", "--json"]).out).unwrap();
    assert_eq!(json["units"][1]["ended"], "1970-01-01T00:00:01.000Z");
    assert_eq!(json["units"][1]["reason"]["code"], "NO_MATCH");
    let unknown = explain(&["explain", "y.c"]);
    assert_eq!(unknown.code, 1);
    insta::assert_snapshot!(unknown.err, @"mesh: nothing is known of y.c. It was not compiled through this agent since it started, or under another name");
}

#[test]
fn a_mesh_is_founded_once_and_with_the_name_that_was_given() {
    let mesh = Mutex::new(None);
    let place = Place::with_agent(move |ask| match ask {
        Ask::Snapshot => {
            let mesh = mesh.lock().unwrap().clone();
            vec![Tell::Snapshot(Box::new(Snapshot { mesh, nearby: 1, ..desk() }))]
        }
        Ask::Found { name } => {
            *mesh.lock().unwrap() = Some(name.clone());
            vec![Tell::Finished("founded".to_owned())]
        }
        other => panic!("not in the script: {other:?}"),
    });
    let ran = place.mesh(&["up", "--name", "desk"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out, @r#"
    mesh: already running on thinkpad (process 4711)
    mesh: no mesh yet on this machine; created "desk". Other machines join it with a code:

          on this machine:        mesh pair
          on the other machine:   mesh up, then mesh join <code>
    "#);
    let again = place.mesh(&["up", "--name", "other"]);
    assert_eq!((again.code, again.out.as_str()), (0, "mesh: already running on thinkpad (process 4711)\n"));
    assert_eq!(place.asked().iter().filter(|a| matches!(a, Ask::Found { .. })).count(), 1);
}

/// What a person at a terminal sees of a command, who types `lines`.
#[cfg(target_os = "linux")]
fn at_a_terminal(place: &Place, words: &[&str], lines: &str) -> (i32, String) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
    let terminal = std::fs::File::options().read(true).write(true).open(name).unwrap();
    // What is typed is not echoed: it would come anywhere between the answers.
    let mut modes = rustix::termios::tcgetattr(&terminal).unwrap();
    modes.local_modes.remove(rustix::termios::LocalModes::ECHO);
    rustix::termios::tcsetattr(&terminal, rustix::termios::OptionalActions::Now, &modes).unwrap();
    let mut command = place.command(words);
    command.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap()).stderr(terminal);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut person = std::fs::File::from(person);
    person.write_all(lines.as_bytes()).unwrap();
    let mut seen = Vec::new();
    // Reading ends with an error when the last process has closed its end.
    let _ = person.read_to_end(&mut seen);
    (child.wait().unwrap().code().unwrap(), String::from_utf8(seen).unwrap().replace("\r\n", "\n"))
}

/// An agent in no mesh that hears one nearby, of the code 417-otter-maple.
#[cfg(target_os = "linux")]
fn newcomer() -> Place {
    let mesh = Mutex::new(None);
    Place::with_agent(move |ask| match ask {
        Ask::Snapshot => {
            let mesh = mesh.lock().unwrap().clone();
            vec![Tell::Snapshot(Box::new(Snapshot { mesh, nearby: 1, ..desk() }))]
        }
        Ask::Join { code, .. } if code == "417-otter-maple" => {
            *mesh.lock().unwrap() = Some("home".to_owned());
            vec![Tell::Note("proving the code to thinkpad … ok".to_owned()), Tell::Finished("joined".to_owned())]
        }
        Ask::Join { .. } => vec![Tell::Failed { code: 7, text: "that code is not right. 2 tries left.".to_owned() }],
        Ask::Found { name } => {
            *mesh.lock().unwrap() = Some(name.clone());
            vec![Tell::Finished("founded".to_owned())]
        }
        other => panic!("not in the script: {other:?}"),
    })
}

#[test]
#[cfg(target_os = "linux")]
fn a_person_near_a_mesh_is_asked_for_its_code_until_it_is_right() {
    let place = newcomer();
    let (code, seen) = at_a_terminal(&place, &["up"], "417-otter-birch\n417 Otter Maple\n");
    assert_eq!(code, 0, "{seen}");
    insta::assert_snapshot!(seen, @r#"
    mesh: already running on thinkpad (process 4711)
    mesh: a mesh is nearby. To join, run "mesh pair" on a machine that is in it and type the code here:
    Code (Enter to start a mesh of your own): mesh: that code is not right. 2 tries left.
    Code (Enter to start a mesh of your own): mesh: proving the code to thinkpad … ok
    mesh: joined "home". 2 machines, 32 slots. gcc 14.2.1 matches on both.
    "#);
    assert!(!place.asked().iter().any(|a| matches!(a, Ask::Found { .. })));
}

#[test]
#[cfg(target_os = "linux")]
fn a_person_near_a_mesh_may_have_one_of_their_own() {
    let place = newcomer();
    let (code, seen) = at_a_terminal(&place, &["up", "--name", "mine"], "\n");
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("created \"mine\""), "{seen}");
    assert!(!place.asked().iter().any(|a| matches!(a, Ask::Join { .. })));
}

#[test]
fn a_real_agent_outlives_the_command_that_started_it_and_ends_with_down() {
    let place = Place::empty();
    let mesh = |words: &[&str]| {
        let mut command = place.command(words);
        // Neither the network nor the agent of the person who runs the test is to notice.
        command
            .env("MESH_MODE", "full")
            .env("MESH_LOOPBACK", "1")
            .env("MESH_MDNS_PORT", "5399")
            .env("MESH_PORT", "0")
            .env("MESH_NAME", "desk");
        ran(command)
    };
    // The output ends, so nothing of it is open in the agent.
    let up = mesh(&["up", "--name", "lab"]);
    assert_eq!((up.code, up.err.as_str()), (0, ""), "{}", up.out);
    assert!(up.out.starts_with("mesh: started on desk ("), "{}", up.out);
    assert!(up.out.contains("created \"lab\""), "{}", up.out);
    assert!(mesh(&["up"]).out.starts_with("mesh: already running on desk (process "));
    assert!(mesh(&["status"]).out.starts_with("desk in \"lab\"\n"));
    let second = mesh(&["agent"]);
    assert_eq!(second.code, 1);
    assert!(second.err.contains("running already"), "{}", second.err);
    assert_eq!(mesh(&["down"]).out, "mesh: stopped\n");
    assert_eq!(mesh(&["status"]).code, 3);
    assert!(mesh(&["up"]).out.starts_with("mesh: started on desk ("), "it starts again at once");
    assert!(mesh(&["status"]).out.starts_with("desk in \"lab\"\n"), "and is who it was");
    assert_eq!(mesh(&["down"]).code, 0);
}

#[test]
fn down_waits_until_the_agent_is_gone_and_is_content_if_it_is() {
    let place = Place::with_agent(member);
    let ran = place.mesh(&["down"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "mesh: stopped\n"));
    assert!(!place.socket().exists());
    let again = place.mesh(&["down"]);
    assert_eq!((again.code, again.out.as_str()), (0, "mesh: the agent was not running\n"));
}

#[test]
fn pair_shows_the_code_then_who_joined() {
    let place = Place::with_agent(|ask| {
        assert_eq!(*ask, Ask::Pair { role: "worker".to_owned() });
        vec![
            Tell::PairingCode { code: "417-otter-maple".to_owned(), addresses: vec!["192.168.1.20".to_owned()] },
            Tell::Note("a wrong code from 192.168.1.77. 2 tries left.".to_owned()),
            Tell::Finished("joined: tower  k7f3-q2m9   linux x86_64   24 cores   role worker".to_owned()),
        ]
    });
    let ran = place.mesh(&["pair", "--as", "worker"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out, @r"
    To add a machine, type this there within 5 minutes:

          mesh join 417-otter-maple

          (no discovery on that network?  mesh join 417-otter-maple@192.168.1.20)

    waiting …  Ctrl-C cancels
    mesh: a wrong code from 192.168.1.77. 2 tries left.
    joined: tower  k7f3-q2m9   linux x86_64   24 cores   role worker
    ");
}

#[test]
fn ctrl_c_closes_the_window() {
    let place = Place::empty();
    let listener = place.listener();
    let mut child = place.command(&["pair"]).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    assert!(matches!(read_ask(&mut stream), Some(Ask::Pair { .. })));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    child.wait().unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the agent sees the end of the connection");
}

#[test]
fn join_says_how_it_goes_and_who_is_there() {
    let place = Place::with_agent(|ask| match ask {
        Ask::Join { code, address, leave } => {
            assert_eq!((code.as_str(), address.as_deref(), *leave), ("417-otter-maple", Some("10.0.0.7:6374"), true));
            vec![Tell::Note("proving the code to thinkpad … ok".to_owned()), Tell::Finished("joined".to_owned())]
        }
        other => member(other),
    });
    let ran = place.mesh(&["join", "417 Otter Maple@10.0.0.7:6374", "--leave"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out, @r#"
    mesh: proving the code to thinkpad … ok
    mesh: joined "home". 2 machines, 32 slots. gcc 14.2.1 matches on both.
    "#);
}

#[test]
fn an_agents_refusal_is_the_exit_code_and_the_sentence() {
    for code in [1, 4, 6, 7] {
        let text = "mesh: that code is not right.\x1b[2J 2 tries left.";
        let place = Place::with_agent(move |_| vec![Tell::Failed { code, text: text.to_owned() }]);
        let ran = place.mesh(&["join", "417-otter-maple"]);
        assert_eq!(ran.code, i32::from(code));
        assert_eq!(ran.err, "mesh: that code is not right.?[2J 2 tries left.\n");
    }
}

#[test]
fn addresses_are_added_and_removed_and_nonsense_is_not_sent() {
    let place = Place::with_agent(|ask| match ask {
        Ask::AddAddress { address } | Ask::RemoveAddress { address } => {
            vec![Tell::Finished(format!("noted: {address}"))]
        }
        other => panic!("not in the script: {other:?}"),
    });
    assert_eq!(place.mesh(&["peers", "add", "tower.lan:6374"]).out, "mesh: noted: tower.lan:6374\n");
    assert_eq!(place.mesh(&["peers", "remove", "10.0.0.7"]).code, 0);
    let ran = place.mesh(&["peers", "add", "no such host"]);
    assert_eq!(ran.code, 2);
    insta::assert_snapshot!(ran.err, @r#"mesh: "no such host" is not an address. Write a host and, if need be, a port: tower.lan:6374"#);
    assert_eq!(place.asked().len(), 2);
}

#[test]
fn an_agent_that_says_nothing_or_nonsense_holds_nobody() {
    let silent = Place::empty();
    let _listener = silent.listener();
    let ran = silent.mesh(&["status"]);
    assert_eq!(ran.code, 6);
    assert!(ran.err.starts_with("mesh: the agent does not answer."), "{}", ran.err);
    let strange = Place::with_agent(|_| vec![Tell::Finished("what?".to_owned())]);
    let ran = strange.mesh(&["status"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("mesh: the agent speaks another version of mesh."), "{}", ran.err);
    let curt = Place::with_agent(|_| vec![]);
    assert_eq!(curt.mesh(&["status"]).code, 3);
}

#[test]
fn a_full_queue_of_a_stopped_agent_holds_nobody() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
    let place = Place::empty();
    std::fs::create_dir(place.dir.path().join("run")).unwrap();
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(place.socket()).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let _queued = UnixStream::connect(place.socket()).unwrap();
    assert_eq!(place.mesh(&["status"]).code, 6);
}

#[test]
fn words_that_are_no_command_end_with_2_and_a_hint() {
    let place = Place::empty();
    let ran = place.mesh(&["staus"]);
    assert_eq!((ran.code, ran.err.as_str()), (2, "mesh: there is no command \"staus\". Did you mean: mesh status\n"));
    for line in ["staus --help", "peers --xml", "pair --as king", "join", "join otter", "cc", "agent --port x"] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(place.mesh(&words).code, 2, "{line}");
    }
    assert_eq!(place.mesh(&[]).code, 2);
    let help = place.mesh(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.out.starts_with("Examples:\n  mesh up"), "{}", help.out);
    assert_eq!(place.mesh(&["version"]).out, concat!("mesh ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let place = Place::with_agent(member);
    let mut child = place.command(&["peers"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_wrong_configuration_is_told_before_an_agent_is_started() {
    let place = Place::empty();
    std::fs::create_dir(place.dir.path().join("config")).unwrap();
    std::fs::write(place.dir.path().join("config/config.toml"), "slots = 'many'\n").unwrap();
    let ran = place.mesh(&["up"]);
    assert_eq!(ran.code, 1);
    let err = ran.err.replace(place.dir.path().to_str().unwrap(), "DIR");
    insta::assert_snapshot!(err, @r#"mesh: the configuration does not hold: slots must be "auto" or a number from 0 to 4096. Change DIR/config/config.toml"#);
    assert!(!place.socket().exists());
}
