//! Agents in directories of their own. Whatever ends a test, its panic or its own death, they end with it: a small shell
//! waits for the end of its standard input, ends what is left by number and removes the directory.

use mesh::{
    agent::wire::{ASK_BYTES_MAX, Ask, TELL_BYTES_MAX, Tell},
    view::snapshot::Snapshot,
};
use mesh_proto::frame;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Within this time everything must have come about that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Ends what is left: agents by the numbers in their files, mounts, the directory.
const SWEEPER: &str = r#"cat >/dev/null
for file in "$1"/*/pid; do [ -e "$file" ] && kill -9 "$(cat "$file")"; done 2>/dev/null
grep -F " $1/" /proc/mounts | cut -d' ' -f2 | while read -r mount; do umount -l "$mount"; done
rm -rf "$1" || { sleep 0.3; rm -rf "$1"; }"#;

/// Looks until there is an answer; panics with `what` if there is none in time.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(Instant::now() < end, "in {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(LOOK);
    }
}

/// Says on the standard error that a test is skipped and why; panics where skipping is forbidden.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("MESH_TEST_NO_SKIP").is_none_or(|value| value != "1"), "would be skipped: {why}");
    eprintln!("skipped: {why}");
}

/// Whether this machine has a program; if not, the test that asked is skipped.
pub(crate) fn has(program: &str) -> bool {
    let there = std::env::split_paths(&path_var()).any(|dir| dir.join(program).is_file());
    if !there {
        skip(&format!("{program} is not installed"));
    }
    there
}

pub(crate) fn path_var() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}

/// The launcher's programs.
pub(crate) const MESH: &str = env!("CARGO_BIN_EXE_mesh");
pub(crate) const MESH_CC: &str = env!("CARGO_BIN_EXE_mesh-cc");

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
}

impl From<Output> for Ran {
    fn from(o: Output) -> Self {
        Self { code: o.status.code(), signal: o.status.signal(), out: o.stdout, err: o.stderr }
    }
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        command.output().unwrap().into()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// It ended well and mesh said nothing.
    #[track_caller]
    pub(crate) fn good(&self) {
        assert_eq!((self.code, self.err().as_str()), (Some(0), ""));
    }
}

/// A directory that is gone with everything that runs or is mounted in it.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) dir: PathBuf,
    /// Where programs are looked for.
    pub(crate) path: std::ffi::OsString,
    sweeper: Child,
}

impl Ground {
    pub(crate) fn new() -> Self {
        // A short path, because sockets lie below it.
        let dir = tempfile::Builder::new().prefix("mi").tempdir_in("/tmp").unwrap().keep();
        let mut sweeper = Command::new("sh");
        sweeper.args(["-c", SWEEPER, "sh"]).arg(&dir).stdin(Stdio::piped()).stdout(Stdio::null());
        Self { sweeper: sweeper.spawn().unwrap(), dir, path: path_var() }
    }

    /// A command with nothing of this process's environment but the path. If it leads to a launcher, by whatever way, that
    /// asks nobody and starts nobody unless it is told to.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", &self.path).env("HOME", self.dir.join("home")).stdin(Stdio::null());
        command.env("MESH", "off").env("MESH_DIR", self.dir.join("nobody"));
        command
    }

    /// Puts a file system of so many KiB there; `None` (and a skip) if this user may not.
    pub(crate) fn small_disk(&self, at: &Path, kib: u32) -> Option<Disk> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k,mode=0700"), "mesh-it"]).arg(at);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Disk(at.to_owned())),
            other => {
                skip(&format!("no file system can be mounted here: {other:?}"));
                None
            }
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        drop(self.sweeper.stdin.take());
        let _ = self.sweeper.wait();
    }
}

/// A file system; taken away with all that is on it.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Writes a file that takes all the room there is.
    pub(crate) fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let mut file = File::create(&filler).unwrap();
        let mut piece = vec![1; 1 << 20];
        while !piece.is_empty() {
            if file.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        filler
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may be gone already, with the ground that it is on.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// An agent and its directory.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
    child: Option<Child>,
    port: u16,
    /// It is started where it may not isolate anything.
    pub(crate) is_powerless: bool,
    /// It keeps results: else every unit is compiled, however often it was before.
    pub(crate) keeps: bool,
    /// Variables of its own.
    pub(crate) env: Vec<(&'static str, std::ffi::OsString)>,
}

/// Runs what follows as a root that may nothing, in a namespace of users below which there is no other.
const POWERLESS: &str = "echo 0 > /proc/sys/user/max_user_namespaces && \
    exec setpriv --bounding-set -all --inh-caps -all \"$@\"";

impl Agent {
    /// A place for an agent, which does not run yet.
    pub(crate) fn new(ground: &Ground, name: &str) -> Self {
        let home = ground.dir.join(name);
        std::fs::create_dir_all(home.join("config")).unwrap();
        // Announced nowhere: only who is told the address comes.
        std::fs::write(home.join("config/config.toml"), "[discovery]\nannounce = \"off\"\n").unwrap();
        Self { name: name.to_owned(), home, child: None, port: 0, is_powerless: false, keeps: false, env: Vec::new() }
    }

    /// The same, and it answers.
    pub(crate) fn running(ground: &Ground, name: &str) -> Self {
        let mut agent = Self::new(ground, name);
        agent.start(ground);
        agent.answers();
        agent
    }

    /// Puts these lines at the beginning of its configuration.
    pub(crate) fn configure(&self, lines: &str) {
        let file = self.home.join("config/config.toml");
        let rest = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, [lines, &rest].concat()).unwrap();
    }

    /// The same agent for somebody else, who neither starts nor ends it.
    pub(crate) fn seen(&self) -> Self {
        Self {
            name: self.name.clone(),
            home: self.home.clone(),
            child: None,
            port: self.port,
            is_powerless: false,
            keeps: false,
            env: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, ground: &Ground) {
        let log = File::options().create(true).append(true).open(self.home.join("log")).unwrap();
        let mut command = ground.command(if self.is_powerless { "unshare" } else { MESH });
        if self.is_powerless {
            command.args(["--user", "--map-root-user", "sh", "-c", POWERLESS, "sh", MESH]);
        }
        command.args(["agent", "--port", &self.port.to_string()]).current_dir("/");
        command.env("MESH_DIR", &self.home).env("MESH_NAME", &self.name).env("MESH_LOOPBACK", "1");
        // Whoever types on this machine, and what else runs on it, is nothing to a test unless it sets another mode.
        command.env("MESH_MODE", "full");
        if !self.keeps {
            command.env("MESH_CACHE", "off");
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env("MESH_LOG", "mesh=debug").stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        self.owns(child.id());
        self.child = Some(child);
    }

    /// Notes the number of a process that must not outlive the test.
    pub(crate) fn owns(&self, pid: u32) {
        std::fs::write(self.home.join("pid"), pid.to_string()).unwrap();
    }

    /// Waits until it answers.
    pub(crate) fn answers(&mut self) -> Snapshot {
        let now = until(&format!("{} answers", self.name), || self.try_snapshot());
        self.port = now.port;
        now
    }

    /// Counters as it last wrote them, which it does when it ends.
    pub(crate) fn written(&self, counter: &str) -> u64 {
        let text = std::fs::read_to_string(self.home.join("state/counters.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()[counter].as_u64().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        let started = self.child.as_ref().map(Child::id);
        started.unwrap_or_else(|| std::fs::read_to_string(self.home.join("pid")).unwrap().parse().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = std::fs::remove_file(self.home.join("pid"));
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it in order, so that its peers hear of it.
    pub(crate) fn stop(&mut self) {
        if self.child.is_some() {
            self.signal(Signal::CONT);
            self.signal(Signal::TERM);
            self.ended();
        }
    }

    /// Waits for its end and gives its status.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let child = self.child.as_mut().unwrap();
        let status = until("the agent ends", || child.try_wait().unwrap());
        self.child = None;
        let _ = std::fs::remove_file(self.home.join("pid"));
        status.code()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.join("run/agent-1.sock")
    }

    /// A question over the socket; the connection stays open for more answers.
    pub(crate) fn asked(&self, ask: &Ask) -> Option<Asked> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&frame::encode(ask, ASK_BYTES_MAX).unwrap()).ok()?;
        Some(Asked(stream))
    }

    #[track_caller]
    pub(crate) fn ask(&self, ask: &Ask) -> Tell {
        self.asked(ask).and_then(|mut asked| asked.next()).unwrap_or_else(|| panic!("{} answers {ask:?}", self.name))
    }

    pub(crate) fn try_snapshot(&self) -> Option<Snapshot> {
        match self.asked(&Ask::Snapshot)?.next()? {
            Tell::Snapshot(now) => Some(*now),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.try_snapshot().unwrap_or_else(|| panic!("{} answers; its log: {}", self.name, self.log()))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// A command of mesh's own for this agent.
    pub(crate) fn mesh(&self, ground: &Ground, words: &[&str]) -> Ran {
        let mut command = ground.command(MESH);
        command.args(words).env("MESH_DIR", &self.home).env("MESH_LOOPBACK", "1");
        Ran::of(&mut command)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The other's view of the pairing: opens a window here and joins with its code there.
    pub(crate) fn pair_with(&self, joiner: &Self) {
        self.pair_as(joiner, "owner");
    }

    /// The same with a machine that is not an owner's.
    pub(crate) fn pair_as(&self, joiner: &Self, role: &str) {
        let mut window = self.asked(&Ask::Pair { role: role.to_owned() }).unwrap();
        let Some(Tell::PairingCode { code, .. }) = window.next() else { panic!("no code") };
        let joined = joiner.ask(&Ask::Join { code, address: Some(self.address()), leave: false });
        assert!(matches!(joined, Tell::Finished(_)), "{joined:?}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Answers still to come.
#[derive(Debug)]
pub(crate) struct Asked(UnixStream);

impl Asked {
    /// The next answer that says something.
    pub(crate) fn next(&mut self) -> Option<Tell> {
        loop {
            let mut header = [0; frame::HEADER_BYTES];
            self.0.read_exact(&mut header).ok()?;
            let mut payload = vec![0; frame::length(header, TELL_BYTES_MAX).unwrap()];
            self.0.read_exact(&mut payload).ok()?;
            match frame::decode(&payload).unwrap() {
                Tell::Note(_) => {}
                tell => return Some(tell),
            }
        }
    }
}

/// Processes whose command line has `mark` in it, by number.
pub(crate) fn processes(mark: &[u8]) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(mark.len()).any(|w| w == mark)
        })
        .collect()
}

/// Whether a process descends from another.
pub(crate) fn descends(pid: u32, ancestor: u32) -> bool {
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let mut at = pid;
    while let Some(next) = parent(at).filter(|p| *p > 1) {
        if next == ancestor {
            return true;
        }
        at = next;
    }
    false
}

/// Files whose names begin like mesh's temporary ones, below a directory.
pub(crate) fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(leftovers(&entry.path()));
        } else if entry.file_name().as_encoded_bytes().starts_with(b".mesh-") {
            found.push(entry.path());
        }
    }
    found
}
