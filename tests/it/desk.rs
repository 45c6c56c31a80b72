//! Two agents that are one mesh, a project, and the comparison: what the plain compiler does and what the launcher does
//! must be the same, and the provider's own counter says where it was done.

use crate::{
    env::{Agent, Ground, MESH, MESH_CC, Ran, descends, path_var, processes, skip, until},
    turns,
};
use mesh::{
    agent::wire::{Ask, Tell},
    reason::Reason,
    view::snapshot::UnitRecord,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::Permissions,
    io::Read,
    ops::{Deref, DerefMut},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::MetadataExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Condvar, Mutex, PoisonError},
};

/// Desks at once: what a small computer carries.
const DESKS_MAX: usize = 2;

/// Two agents, one of which compiles for the other.
#[derive(Debug)]
pub(crate) struct Desk {
    // Agents go before the ground that they stand on.
    pub(crate) provider: Agent,
    pub(crate) client: Agent,
    /// Where the sources are.
    pub(crate) project: PathBuf,
    /// It is not what it was: nobody else is to have it.
    pub(crate) spoilt: bool,
    pub(crate) ground: Ground,
    projects: u32,
}

/// Desks that nobody uses, and how many there are in all.
static DESKS: Mutex<(Vec<Desk>, usize)> = Mutex::new((Vec::new(), 0));
static RETURNED: Condvar = Condvar::new();

/// A desk for one test alone; the next one gets it after that.
#[derive(Debug)]
pub(crate) struct Lent(Option<Desk>);

/// A desk, or nothing (and a skip) if no machine can serve here.
pub(crate) fn desk() -> Option<Lent> {
    turns::begins();
    let mut desks = DESKS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(mut desk) = desks.0.pop() {
            desk.new_project();
            return Some(Lent(Some(desk)));
        }
        if desks.1 < DESKS_MAX {
            break;
        }
        desks = RETURNED.wait(desks).unwrap_or_else(PoisonError::into_inner);
    }
    desks.1 += 1;
    drop(desks);
    // Counted before it is there: if there will be none, it is taken back.
    let mut lent = Lent(None);
    lent.0 = Desk::new();
    lent.0.is_some().then_some(lent)
}

impl Drop for Lent {
    fn drop(&mut self) {
        let kept = self.0.take().filter(|desk| !desk.spoilt && !std::thread::panicking());
        let mut desks = DESKS.lock().unwrap_or_else(PoisonError::into_inner);
        match kept {
            Some(desk) => desks.0.push(desk),
            None => desks.1 -= 1,
        }
        RETURNED.notify_one();
    }
}

impl Deref for Lent {
    type Target = Desk;
    fn deref(&self) -> &Desk {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Desk {
        self.0.as_mut().unwrap()
    }
}

/// Where a unit is to be compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// By the provider.
    There,
    /// By nobody: its result was kept.
    Kept,
    /// Here, because the agent says so for this reason.
    Here(Reason),
    /// Here, and no agent is asked.
    Unasked,
}

/// How the launcher is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// `mesh cc gcc`
    Cc,
    /// `mesh gcc`
    Mesh,
    /// `mesh-cc gcc`
    MeshCc,
    /// `gcc`, a link to mesh at the front of the path.
    Link,
}

/// What standard output and standard error are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// Two pipes.
    Apart,
    /// One pipe.
    One,
    /// One terminal of so many columns.
    Terminal(u16),
}

/// A compile.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) words: Vec<OsString>,
    pub(crate) cwd: PathBuf,
    pub(crate) pwd: PathBuf,
    pub(crate) env: Vec<(&'static str, OsString)>,
    pub(crate) by: By,
    pub(crate) streams: Streams,
    pub(crate) umask: &'static str,
}

impl Unit {
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    pub(crate) fn by(self, by: By) -> Self {
        Self { by, ..self }
    }

    pub(crate) fn streams(self, streams: Streams) -> Self {
        Self { streams, ..self }
    }

    pub(crate) fn umask(self, umask: &'static str) -> Self {
        Self { umask, ..self }
    }

    pub(crate) fn cwd(self, cwd: &Path) -> Self {
        Self { cwd: cwd.to_owned(), pwd: cwd.to_owned(), ..self }
    }
}

/// A file's mode and content; a link's target.
pub(crate) type Files = BTreeMap<PathBuf, (u32, Vec<u8>)>;

impl Desk {
    fn new() -> Option<Self> {
        Self::on(Ground::new())
    }

    /// A desk on this ground, or nothing (and a skip) if no machine can serve here.
    pub(crate) fn on(ground: Ground) -> Option<Self> {
        let desk = Self::configured(ground, "", "")?;
        desk.meet();
        Some(desk)
    }

    /// A desk whose provider is no owner's, but was admitted by the client's owner in this role.
    pub(crate) fn with_provider_as(role: &str) -> Option<Self> {
        let desk = Self::paired(Ground::new(), "", "", |provider, client| {
            assert!(matches!(client.ask(&Ask::Found { name: "desk".to_owned() }), Tell::Finished(_)));
            client.pair_as(provider, role);
        })?;
        desk.meet();
        Some(desk)
    }

    /// The same with lines for the configurations of provider and client, whatever compilers they have in common.
    pub(crate) fn configured(ground: Ground, provider: &str, client: &str) -> Option<Self> {
        Self::paired(ground, provider, client, |provider, client| {
            assert!(matches!(provider.ask(&Ask::Found { name: "desk".to_owned() }), Tell::Finished(_)));
            provider.pair_with(client);
        })
    }

    fn paired(ground: Ground, provider: &str, client: &str, pair: impl FnOnce(&Agent, &Agent)) -> Option<Self> {
        turns::begins();
        let [mut provider, mut client] = [("tower", provider), ("laptop", client)].map(|(name, lines)| {
            let mut agent = Agent::new(&ground, name);
            agent.configure(lines);
            agent.start(&ground);
            agent
        });
        let serving = provider.answers().not_serving;
        client.answers();
        if let Some(why) = serving {
            skip(&format!("this machine cannot compile for others: {why}"));
            return None;
        }
        pair(&provider, &client);
        let project = ground.dir.clone();
        let mut desk = Self { provider, client, project, spoilt: false, ground, projects: 0 };
        desk.linked();
        desk.new_project();
        Some(desk)
    }

    /// Waits until the client is connected with a provider that serves.
    pub(crate) fn linked(&self) {
        let ready = || self.client.snapshot().peers.iter().any(|p| p.connected && p.slots > 0);
        until("the two agents are connected", || ready().then_some(()));
    }

    /// Another client of the same provider, with a project of its own. It compiles for nobody: the two clients hear of each other
    /// from the provider.
    pub(crate) fn second_client(&self, name: &str) -> Option<Self> {
        let ground = Ground::new();
        let mut client = Agent::new(&ground, name);
        client.configure("slots = 0\n");
        client.start(&ground);
        client.answers();
        self.provider.pair_with(&client);
        let provider = self.provider.seen();
        let project = ground.dir.clone();
        let mut desk = Self { provider, client, project, spoilt: true, ground, projects: 0 };
        desk.linked();
        desk.new_project();
        Some(desk)
    }

    /// Waits until the client knows that the provider has its compilers.
    pub(crate) fn meet(&self) {
        let ready = || self.client.snapshot().peers.iter().any(|p| p.connected && !p.compilers.is_empty());
        until("the two agents agree on a compiler", || ready().then_some(()));
    }

    /// Starts the provider anew and waits until the two have met.
    pub(crate) fn restart_provider(&mut self) {
        self.provider.stop();
        self.provider.start(&self.ground);
        self.provider.answers();
        // That the one before was killed the client may not know yet: this one must see it.
        let sees = || self.provider.snapshot().peers.iter().any(|p| p.connected);
        until("the provider that was started anew is connected", || sees().then_some(()));
        self.meet();
    }

    /// Starts the client's agent anew and waits until the two have met.
    pub(crate) fn restart_client(&mut self) {
        self.client.stop();
        self.client.start(&self.ground);
        self.client.answers();
        self.meet();
    }

    fn new_project(&mut self) {
        if self.projects > 0 {
            std::fs::remove_dir_all(&self.project).unwrap();
        }
        self.projects += 1;
        self.project = self.ground.dir.join(format!("project-{}", self.projects));
        std::fs::create_dir_all(&self.project).unwrap();
    }

    /// Writes a source.
    pub(crate) fn write(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.project.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.project.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// A compile in the project, by `mesh cc`, forced away from this machine.
    pub(crate) fn unit<W: AsRef<OsStr>>(&self, words: &[W]) -> Unit {
        Unit {
            words: words.iter().map(|w| w.as_ref().to_owned()).collect(),
            cwd: self.project.clone(),
            pwd: self.project.clone(),
            env: vec![],
            by: By::Cc,
            streams: Streams::Apart,
            umask: "022",
        }
    }

    /// The same as one line of words.
    pub(crate) fn line(&self, line: &str) -> Unit {
        self.unit(&line.split(' ').collect::<Vec<_>>())
    }

    fn command(&self, unit: &Unit, before: &[&str], path: OsString) -> Command {
        let mut command = self.ground.command("sh");
        command.args(["-c", "umask $0; exec \"$@\"", unit.umask]).args(before).args(&unit.words);
        command.current_dir(&unit.cwd).env("PWD", &unit.pwd).env("PATH", path);
        command.envs(unit.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The compile by the compiler itself.
    pub(crate) fn bare(&self, unit: &Unit) -> Command {
        self.command(unit, &[], path_var())
    }

    /// The compile by the launcher.
    pub(crate) fn launcher(&self, unit: &Unit) -> Command {
        let (before, path): (&[&str], _) = match unit.by {
            By::Cc => (&[MESH, "cc"], path_var()),
            By::Mesh => (&[MESH], path_var()),
            By::MeshCc => (&[MESH_CC], path_var()),
            By::Link => (&[], self.path_with_links()),
        };
        let mut command = self.command(unit, before, path);
        for (name, value) in [("MESH_DIR", self.client.home.as_os_str()), ("MESH", OsStr::new("force"))] {
            if !unit.env.iter().any(|(have, _)| *have == name) {
                command.env(name, value);
            }
        }
        command
    }

    /// A path at whose front there are links to mesh, named like compilers.
    pub(crate) fn path_with_links(&self) -> OsString {
        let links = self.ground.dir.join("links");
        if std::fs::create_dir(&links).is_ok() {
            for name in ["gcc", "g++", "clang", "clang++"] {
                std::os::unix::fs::symlink(MESH_CC, links.join(name)).unwrap();
            }
        }
        std::env::join_paths([links].into_iter().chain(std::env::split_paths(&path_var()))).unwrap()
    }

    pub(crate) fn files(&self) -> Files {
        let mut files = Files::new();
        take(&self.project, &self.project, &mut files);
        files
    }

    /// Makes the project what it was.
    pub(crate) fn restore(&self, before: &Files) {
        let now = self.files();
        for (path, (mode, bytes)) in now.iter().filter(|(path, file)| before.get(*path) != Some(file)) {
            let _ = (mode, bytes);
            std::fs::remove_file(self.project.join(path)).unwrap();
        }
        for (path, (mode, bytes)) in before.iter().filter(|(path, file)| now.get(*path) != Some(file)) {
            std::fs::write(self.project.join(path), bytes).unwrap();
            std::fs::set_permissions(self.project.join(path), Permissions::from_mode(*mode)).unwrap();
        }
    }

    /// Counters of the provider: done and not done; of the client: asked and done elsewhere.
    fn counts(&self) -> [u64; 4] {
        let (provider, client) = (self.provider.snapshot().counters, self.client.snapshot().counters);
        [provider.served, provider.not_served, client.requests, client.remote]
    }

    /// How many units the provider has compiled, by its own count.
    pub(crate) fn served(&self) -> u64 {
        self.counts()[0]
    }

    /// What the client's agent knows of its last unit.
    pub(crate) fn last(&self) -> UnitRecord {
        match self.client.ask(&Ask::Explain { path: None }) {
            Tell::Explained(mut units) => units.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Compiles by the compiler itself, then by the launcher, and compares everything; gives what both did.
    #[track_caller]
    pub(crate) fn same(&self, unit: &Unit, place: Where) -> Ran {
        let before = self.files();
        let plain = run(self.bare(unit), unit.streams);
        let made = self.files();
        self.restore(&before);
        let counts = self.counts();
        let ran = run(self.launcher(unit), unit.streams);
        let shown = unit.words.iter().map(|w| w.display().to_string()).collect::<Vec<_>>().join(" ");
        let shown = &shown[..shown.len().min(200)];
        assert_same_words(&plain, &ran, shown);
        assert_same_files(&made, &self.files(), shown);
        self.assert_where(&counts, place, shown);
        ran
    }

    /// The same where the unit must be compiled by the provider and well.
    #[track_caller]
    pub(crate) fn same_there(&self, line: &str) -> Ran {
        let ran = self.same(&self.line(line), Where::There);
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.err());
        ran
    }

    #[track_caller]
    fn assert_where(&self, before: &[u64; 4], place: Where, shown: &str) {
        let wanted = match place {
            Where::There => [1, 0, 1, 1],
            // It was made there, and then not taken.
            Where::Here(Reason::CompileError | Reason::DiskFull) => [1, 0, 1, 0],
            Where::Here(_) | Where::Kept => [0, 0, 1, 0],
            Where::Unasked => [0, 0, 0, 0],
        };
        let since = || -> [u64; 4] {
            let now = self.counts();
            std::array::from_fn(|at| now[at] - before[at])
        };
        // The provider counts a job when the last byte has gone out, which may be after the launcher's end.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
        while since() != wanted && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let got = since();
        if got != wanted {
            let last = (got[2] > 0).then(|| self.last());
            let last = last.map(|l| (l.reason, l.note, l.ran_on));
            panic!("{shown}: served, not served, asked, remote are {got:?}, not {wanted:?}: {last:?}");
        }
        if let Where::Here(reason) = place {
            assert_eq!(self.last().reason, Some(reason), "{shown}");
        }
        assert_eq!(got[2] > 0 && self.last().cached, place == Where::Kept, "{shown}");
    }

    /// Starts a compile that takes a moment and stops the provider's compiler in the middle of it.
    pub(crate) fn begin(&self, unit: &Unit, mark: &str) -> Begun {
        let mut command = self.launcher(unit);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let provider = self.provider.pid();
        let found = || {
            let has_ended = child.try_wait().unwrap().is_some();
            assert!(!has_ended, "it ended before its compiler was met there: {:?}", self.last());
            let mut compilers = processes(mark.as_bytes()).into_iter().filter(|pid| is_compiler(*pid));
            let pid = compilers.find(|pid| descends(*pid, provider))?;
            Pid::from_raw(pid.cast_signed()).filter(|pid| kill_process(*pid, Signal::STOP).is_ok())
        };
        let compiler = until("the provider's compiler runs", found);
        Begun { child: Some(child), compiler }
    }
}

/// A compile whose compiler, at the provider, is stopped.
#[derive(Debug)]
pub(crate) struct Begun {
    child: Option<Child>,
    compiler: Pid,
}

impl Begun {
    /// Lets the compiler go on.
    pub(crate) fn resume(&self) {
        // It may be dead with its agent.
        let _ = kill_process(self.compiler, Signal::CONT);
    }

    /// Lets it go on, and what came of the compile.
    pub(crate) fn ends(mut self) -> Ran {
        self.resume();
        self.child.take().unwrap().wait_with_output().unwrap().into()
    }

    /// What came of the compile although the compiler never goes on.
    pub(crate) fn ends_without(mut self) -> Ran {
        self.child.take().unwrap().wait_with_output().unwrap().into()
    }

    /// Kills the launcher.
    pub(crate) fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.resume();
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn is_compiler(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("cc1"))
}

/// A small unit that takes its compiler about a second: time enough to be met in the middle.
pub(crate) fn slow(desk: &Desk, name: &str) -> Unit {
    turning(desk, name, 400_000)
}

/// A small unit that takes its compiler about a quarter of a second.
pub(crate) fn brief(desk: &Desk, name: &str) -> Unit {
    turning(desk, name, 100_000)
}

/// A unit whose compiler runs a loop itself.
fn turning(desk: &Desk, name: &str, turns: u32) -> Unit {
    let text = format!(
        "#include \"slow.h\"\nconstexpr unsigned spin(unsigned n) {{ unsigned s = 0; \
         for (unsigned i = 0; i < n; i++) s += (i * 7) ^ s; return s; }}\n\
         constexpr unsigned value = spin({turns}u);\nunsigned get() {{ return value + HEADER; }}\n"
    );
    desk.write(format!("{name}.cc"), text);
    desk.write("slow.h", "#define HEADER 1\n");
    let limits = "-fconstexpr-loop-limit=2147483647 -fconstexpr-ops-limit=9000000000000000000";
    desk.line(&format!("g++ -std=c++17 {limits} -c {name}.cc -o {name}.o"))
}

fn take(dir: &Path, top: &Path, files: &mut Files) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let path = entry.path();
        let name = path.strip_prefix(top).unwrap().to_owned();
        if meta.is_dir() {
            take(&path, top, files);
        } else if meta.is_symlink() {
            files.insert(name, (0, std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()));
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            files.insert(name, (meta.mode() & 0o7777, bytes));
        }
    }
}

#[track_caller]
fn assert_same_words(plain: &Ran, ran: &Ran, shown: &str) {
    assert!(
        plain == ran,
        "{shown}\n--- the compiler: {:?} {:?}\n{}{}\n--- the launcher: {:?} {:?}\n{}{}",
        plain.code,
        plain.signal,
        plain.out(),
        plain.err(),
        ran.code,
        ran.signal,
        ran.out(),
        ran.err()
    );
}

#[track_caller]
pub(crate) fn assert_same_files(plain: &Files, made: &Files, shown: &str) {
    let paths = plain.keys().chain(made.keys());
    let differ: Vec<String> = paths
        .filter(|path| plain.get(*path) != made.get(*path))
        .map(|path| {
            let what =
                |files: &Files| files.get(path).map(|(mode, bytes)| format!("mode {mode:o}, {} bytes", bytes.len()));
            format!("{path:?}: {:?} by the compiler, {:?} by the launcher", what(plain), what(made))
        })
        .collect();
    assert!(differ.is_empty(), "{shown}\n{}", differ.join("\n"));
}

/// Runs a command with these streams.
pub(crate) fn run(mut command: Command, streams: Streams) -> Ran {
    match streams {
        Streams::Apart => Ran::of(&mut command),
        Streams::One => {
            let (mut read_end, write_end) = std::io::pipe().unwrap();
            command.stdout(write_end.try_clone().unwrap()).stderr(write_end);
            let mut child = command.spawn().unwrap();
            drop(command);
            let mut out = Vec::new();
            read_end.read_to_end(&mut out).unwrap();
            let status = child.wait().unwrap();
            Ran { out, ..std::process::Output { status, stdout: vec![], stderr: vec![] }.into() }
        }
        Streams::Terminal(columns) => on_a_terminal(command, columns),
    }
}

fn on_a_terminal(mut command: Command, columns: u16) -> Ran {
    use rustix::{
        fs::{Mode, OFlags, open},
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
        termios::{Winsize, tcsetwinsize},
    };
    let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&own).unwrap();
    unlockpt(&own).unwrap();
    let name = ptsname(&own, Vec::new()).unwrap();
    let other: OwnedFd = open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    tcsetwinsize(&own, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    command.stdout(other.try_clone().unwrap()).stderr(other);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut own = std::fs::File::from(own);
    let mut out = Vec::new();
    let mut piece = [0; 4096];
    // The end of a terminal is an error.
    while let Ok(n @ 1..) = own.read(&mut piece) {
        out.extend_from_slice(&piece[..n]);
    }
    let status = child.wait().unwrap();
    Ran { out, ..std::process::Output { status, stdout: vec![], stderr: vec![] }.into() }
}
