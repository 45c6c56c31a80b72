//! The commands against an agent that follows a script: what they ask, what they print, how they exit.

#![expect(clippy::unwrap_used, reason = "this is all test, and a test fails by panicking")]

use mesh::{
    agent::wire::{ASK_BYTES_MAX, Ask, TELL_BYTES_MAX, Tell},
    reason::Reason,
    view::snapshot::{Counters, Machine, Snapshot, UnitRecord},
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
        ran_on: None,
        compiler: "gcc 14.2.1".to_owned(),
        reason: Some(Reason::NoMatch),
        note: String::new(),
        files: 0,
        phases: vec![],
        cpu_us: 0,
        peak_kib: 0,
        output_bytes: 0,
    }
}

/// Answers for an agent whose machine is in the mesh of `desk`.
fn member(ask: &Ask) -> Vec<Tell> {
    match ask {
        Ask::Snapshot => vec![Tell::Ack, Tell::Snapshot(Box::new(desk()))],
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
    NAME        MATCHES     SLOTS  FREE     RTT  STATE
    thinkpad *  gcc 14.2.1      8     3       -  this machine
    tower       gcc 14.2.1     24    17  0.4 ms  ready
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
        let why = "x.c ran here: NO_MATCH. No connected machine has exactly this compiler.";
        assert!(ran.out.contains(why), "{}", ran.out);
        assert!(ran.out.contains("hint       Install the same package on both"), "{}", ran.out);
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
            Tell::Beat,
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

/// Says that a test did not run; where none may be left out, that is a failure.
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
    assert_ne!(std::env::var("MESH_TEST_NO_SKIP").as_deref(), Ok("1"), "skipped: {why}");
}

/// A home with compilers on a `PATH` of its own, where no service manager can be reached.
fn home(place: &Place) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let home = place.dir.path().join("home");
    std::fs::create_dir_all(home.join("bin")).unwrap();
    for name in ["gcc", "g++"] {
        std::fs::write(home.join("bin").join(name), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(home.join("bin").join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    home
}

fn at_home(place: &Place, words: &[&str]) -> Ran {
    let home = home(place);
    let mut command = place.command(words);
    command.env("HOME", &home).env("PATH", home.join("bin"));
    ran(command)
}

/// Every path below a directory, sorted.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            all.extend(below(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}

#[test]
#[cfg(target_os = "linux")]
fn install_print_shows_everything_and_changes_nothing() {
    let place = Place::empty();
    let links = home(&place).join("links");
    let before = below(place.dir.path());
    let ran = at_home(&place, &["install", "--print", "--links", links.to_str().unwrap()]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let program = Path::new(env!("CARGO_BIN_EXE_mesh")).parent().unwrap().to_str().unwrap();
    insta::assert_snapshot!(ran.out.replace(place.dir.path().to_str().unwrap(), "DIR").replace(program, "BIN"), @r#"
    # would write DIR/home/.config/systemd/user/mesh.service
    # Written by "mesh install"; "mesh uninstall" removes it.
    [Unit]
    Description=mesh build agent
    StartLimitIntervalSec=0

    [Service]
    Type=exec
    ExecStart="BIN/mesh" agent
    Environment="MESH_DIR=DIR"
    Environment="PATH=DIR/home/bin"
    Restart=on-failure
    RestartSec=2
    TimeoutStopSec=35
    KillMode=mixed
    Delegate=cpu io memory pids
    CPUWeight=20
    IOWeight=20
    OOMPolicy=continue
    TasksMax=4096
    LimitNOFILE=65536
    UMask=0077
    NoNewPrivileges=yes

    [Install]
    WantedBy=default.target

    # would make the links
    DIR/home/links/gcc -> BIN/mesh-cc
    DIR/home/links/g++ -> BIN/mesh-cc

    # would run, if a service manager ran for this user
    systemctl --user daemon-reload
    systemctl --user enable --now mesh.service
    "#);
    assert_eq!(below(place.dir.path()), before);
}

#[test]
#[cfg(target_os = "linux")]
fn uninstall_undoes_exactly_what_install_did() {
    let place = Place::empty();
    let home = home(&place);
    std::fs::create_dir_all(home.join(".config/systemd/user")).unwrap();
    std::fs::create_dir(place.dir.path().join("state")).unwrap();
    std::fs::write(home.join(".config/systemd/user/other.service"), "").unwrap();
    let before = below(place.dir.path());
    let links = home.join("links");
    for _ in 0..2 {
        let ran = at_home(&place, &["install", "--links", links.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.contains("no service manager runs for this user here"), "{}", ran.out);
    }
    let unit = std::fs::read_to_string(home.join(".config/systemd/user/mesh.service")).unwrap();
    assert!(unit.contains(&format!("ExecStart=\"{}\" agent\n", env!("CARGO_BIN_EXE_mesh"))), "{unit}");
    let masked = Command::new(links.join("gcc")).env_clear().env("PATH", home.join("bin")).env("MESH", "off").status();
    assert!(masked.unwrap().success(), "the link runs the gcc behind it");
    let ran = at_home(&place, &["uninstall"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(below(place.dir.path()), before);
    assert_eq!(at_home(&place, &["uninstall"]).out, "mesh: nothing is installed\n");
}

#[test]
#[cfg(target_os = "linux")]
fn install_replaces_no_file_that_is_not_meshs() {
    let place = Place::empty();
    let unit = home(&place).join(".config/systemd/user/mesh.service");
    std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
    std::fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    let ran = at_home(&place, &["install"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.ends_with("mesh.service is there and not by mesh. Move it away first\n"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&unit).unwrap(), "[Service]\nExecStart=/bin/true\n");
    let bin = home(&place).join("bin");
    let ran = at_home(&place, &["install", "--links", bin.to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("is there already and is not mesh's"), "{}", ran.err);
}

#[test]
#[cfg(target_os = "linux")]
fn systemd_understands_every_line_of_the_unit() {
    let place = Place::empty();
    let unit = home(&place).join(".config/systemd/user/mesh.service");
    assert_eq!(at_home(&place, &["install"]).code, 0);
    let mut verify = Command::new("systemd-analyze");
    verify.args(["--user", "verify"]).arg(&unit).env("XDG_RUNTIME_DIR", place.dir.path());
    match verify.output() {
        Ok(output) if !String::from_utf8_lossy(&output.stderr).contains("Failed to initialize") => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("mesh.service"), "{said}");
        }
        other => skipped(&format!("systemd-analyze cannot verify units here ({other:?})")),
    }
}

/// In the real home, because systemd looks nowhere else; only where nobody has installed mesh.
#[test]
#[cfg(target_os = "linux")]
fn systemd_starts_the_agent_and_stops_it() {
    let systemctl = |words: &[&str]| Command::new("systemctl").arg("--user").args(words).output();
    if !systemctl(&["show-environment"]).is_ok_and(|o| o.status.success()) {
        skipped("systemd runs for no user here");
        return;
    }
    if systemctl(&["cat", "mesh.service"]).is_ok_and(|o| o.status.success()) {
        skipped("mesh is installed for this user");
        return;
    }
    let place = Place::empty();
    let mesh = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
        command.args(words).env("MESH_DIR", place.dir.path()).stdin(Stdio::null());
        ran(command)
    };
    let installed = mesh(&["install"]);
    let status = mesh(&["status"]);
    let active = systemctl(&["is-active", "mesh.service"]).unwrap();
    let removed = mesh(&["uninstall"]);
    assert_eq!(installed.code, 0, "{installed:?}");
    assert!(status.out.contains(" in \"home\"\n"), "{status:?}");
    assert_eq!(active.stdout, b"active\n");
    assert_eq!(removed.code, 0, "{removed:?}");
    assert_eq!(mesh(&["status"]).code, 3);
    assert!(!systemctl(&["cat", "mesh.service"]).unwrap().status.success());
}
