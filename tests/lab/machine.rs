//! Machines on one computer: each is a network, mount, pid, ipc and host name of its own, on a bridge that reaches
//! nothing else.
//!
//! Nothing has a name outside: namespaces live as long as their processes, and those end when the pipe on their standard
//! input closes. So a test that is killed leaves no machine behind, only a folder, which the next lab sweeps away.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The first three parts of every machine's address; each lab has a bridge of its own, so all labs may use them.
const NET: &str = "10.77.0";
/// The ordinary user's id, and its group's.
const ORDINARY_ID: u32 = 1000;
/// How long any command on a machine may take, seconds, where nothing else is said.
const COMMAND_SECONDS_MAX: u64 = 120;
/// Period of a machine's CPU quota, microseconds: short, so that a quota reads as a slower core and not as stalls.
const QUOTA_PERIOD_US: u64 = 10_000;
/// What each machine has for itself of the file system; all else is the computer's own.
const OWN: &[&str] = &["tmp", "run", "home"];

/// Who runs a machine's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Account {
    Root,
    /// Without any privilege.
    Ordinary,
}

/// What a machine is to be.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) account: Account,
    /// Folders of the computer that this machine sees; of all that the lab hides.
    pub(crate) sees: Vec<PathBuf>,
    /// Cores that it may use, where control groups allow a limit.
    pub(crate) cores: Option<f64>,
    /// Another root than the computer's own: this folder, read-only.
    pub(crate) root: Option<PathBuf>,
}

impl Spec {
    pub(crate) fn new(name: &str, account: Account) -> Self {
        Self { name: name.into(), account, sees: Vec::new(), cores: None, root: None }
    }

    pub(crate) fn sees(mut self, folder: &Path) -> Self {
        self.sees.push(folder.into());
        self
    }

    /// On a root of its own, of which nothing is the computer's but processor and kernel.
    pub(crate) fn root(mut self, folder: &Path) -> Self {
        self.root = Some(folder.into());
        self
    }

    pub(crate) fn cores(mut self, cores: f64) -> Self {
        self.cores = Some(cores);
        self
    }
}

/// A process that keeps a namespace alive until it is dropped.
#[derive(Debug)]
struct Holder {
    child: Child,
}

impl Holder {
    /// Starts it and waits until its script says `up`.
    fn start(mut command: Command) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{command:?}: {e}"))?;
        let mut said = String::new();
        let stdout = child.stdout.take().expect("it was asked for");
        BufReader::new(stdout).read_line(&mut said).map_err(|e| e.to_string())?;
        if said.trim() == "up" {
            return Ok(Self { child });
        }
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A bridge and the machines on it. Dropping it ends all that runs there and removes their files.
#[derive(Debug)]
pub(crate) struct Lab {
    // Machines go before the bridge that they are plugged into.
    pub(crate) machines: Vec<Machine>,
    bridge: Holder,
    _folder: Folder,
}

/// The lab's folder; removed on drop.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) account: Account,
    /// Its own files, seen from outside: `files/home` is its `/home`.
    pub(crate) files: PathBuf,
    /// Its first process, by the computer's numbers.
    init: u32,
    groups: Vec<PathBuf>,
    /// Its root is not the computer's.
    is_elsewhere: bool,
    _holder: Holder,
}

const BRIDGE: &str = "set -e
ip link add sw0 type bridge mcast_snooping 0 forward_delay 0
ip link set lo up
ip link set sw0 up
echo up
exec cat >/dev/null";

/// `sh` stays the first process and waits for `cat`, and so buries what is left to it.
const INIT: &str = r#"set -e
host=$1; shift
hostname "$host"
mount --make-rprivate /
if [ -e /etc/machine-id ]; then mount --bind machine-id /etc/machine-id; fi
for own in tmp run home; do
    mount --bind "$own" "$own"
    for seen in $MESH_LAB_SEEN; do
        case $seen in /$own/*) mkdir -p ".$seen"; mount --bind "$seen" ".$seen" ;; esac
    done
    mount --rbind "$own" "/$own"
done
for hidden in "$@"; do
    if [ -d "$hidden" ]; then mount -t tmpfs -o size=64k,mode=555 hidden "$hidden"; fi
done
cd /
echo up
cat >/dev/null"#;

/// The same on another root, of which only `sh`, `umount` and `cat` must be there. `pivot_root` is this computer's.
const INIT_ELSEWHERE: &str = r#"set -e
hostname "$1"
mount --make-rprivate /
mkdir -p root tmp/left
mount --bind "$2" root
mount -o remount,bind,ro root
for own in tmp run home; do mount --bind "$own" "root/$own"; done
mount -t proc proc root/proc
mount --rbind /dev root/dev
mount --rbind /sys root/sys
if [ -e root/etc/machine-id ]; then mount --bind machine-id root/etc/machine-id; fi
cd root
pivot_root . tmp/left
cd /
umount -l /tmp/left
echo up
cat >/dev/null"#;

const PLUG: &str = "set -e
for name in all default eth0; do echo 0 >/proc/sys/net/ipv6/conf/$name/accept_dad || true; done 2>/dev/null
ip link set lo up
ip addr add $1/24 brd + dev eth0
ip link set eth0 up
ip route add 224.0.0.0/4 dev eth0
ip route add default dev eth0";

impl Lab {
    /// Brings machines up. What the lab hides from those that are not said to see it: `hidden` and its own folder.
    pub(crate) fn new(specs: Vec<Spec>, hidden: &[PathBuf]) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("machines need root (namespaces)".into());
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab");
        sweep(&all);
        let folder = all.join(format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        make_dir(&folder, None)?;
        let folder = Folder(folder);
        let mut switch = Command::new("unshare");
        switch.args(["--net", "sh", "-c", BRIDGE]);
        let bridge = Holder::start(switch)?;
        let mut machines = Vec::new();
        for (number, spec) in specs.into_iter().enumerate() {
            let mut out_of_sight: Vec<&Path> = hidden.iter().map(PathBuf::as_path).collect();
            out_of_sight.retain(|path| !spec.sees.iter().any(|seen| seen == path));
            out_of_sight.push(&all);
            machines.push(Machine::start(&spec, number, &folder.0, &out_of_sight, bridge.child.id())?);
        }
        Ok(Self { machines, bridge, _folder: folder })
    }

    /// Keeps a machine's frames from all others that are kept apart so: what it sends reaches only those that are not.
    pub(crate) fn keep_apart(&self, machine: usize) {
        let (switch, port) = (format!("--net=/proc/{}/ns/net", self.bridge.child.id()), format!("p{machine}"));
        let set = ["ip", "link", "set", "dev", &port, "type", "bridge_slave", "isolated", "on"];
        succeed(Command::new("nsenter").arg(switch).args(set)).expect("a bridge keeps ports apart");
    }
}

/// Removes the folders of labs whose process is gone.
fn sweep(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.split('-').next().unwrap_or_default().to_owned();
        if !Path::new("/proc").join(owner).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn make_dir(path: &Path, owner: Option<u32>) -> Result<(), String> {
    std::fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))?;
    std::os::unix::fs::chown(path, owner, owner).map_err(|e| format!("{}: {e}", path.display()))
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn words(paths: &[PathBuf]) -> OsString {
    paths.iter().map(|path| path.as_os_str()).collect::<Vec<_>>().join(OsStr::new(" "))
}

impl Machine {
    fn start(spec: &Spec, number: usize, lab: &Path, hidden: &[&Path], switch: u32) -> Result<Self, String> {
        let files = lab.join(&spec.name);
        let owner = (spec.account == Account::Ordinary).then_some(ORDINARY_ID);
        let user = owner.unwrap_or(0);
        for folder in OWN {
            make_dir(&files.join(folder), None)?;
        }
        for folder in ["home/dev", "run/user"] {
            make_dir(&files.join(folder), owner)?;
        }
        make_dir(&files.join(format!("run/user/{user}")), owner)?;
        let sticky = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(files.join("tmp"), sticky).map_err(|e| e.to_string())?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(files.join(format!("run/user/{user}")), private).map_err(|e| e.to_string())?;
        let id = format!("{:032x}\n", 0x1ab_u128 << 64 | number as u128);
        std::fs::write(files.join("machine-id"), id).map_err(|e| e.to_string())?;

        let mut unshare = Command::new("unshare");
        unshare
            .args(["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .current_dir(&files);
        match &spec.root {
            None => unshare
                .args(["sh", "-c", INIT, "init", &spec.name])
                .args(hidden)
                .env("MESH_LAB_SEEN", words(&spec.sees)),
            Some(root) => unshare.args(["sh", "-c", INIT_ELSEWHERE, "init", &spec.name]).arg(root),
        };
        let holder = Holder::start(unshare)?;
        let init = child_of(holder.child.id()).ok_or("its first process is not there")?;
        let address = format!("{NET}.{}", number + 1);
        let port = format!("p{number}");
        let into = |pid: u32| format!("--net=/proc/{pid}/ns/net");
        succeed(Command::new("nsenter").arg(into(switch)).args(["ip", "link", "add", &port, "type", "veth"]).args([
            "peer",
            "name",
            "eth0",
            "netns",
            &init.to_string(),
        ]))?;
        succeed(Command::new("nsenter").arg(into(switch)).args(["ip", "link", "set", &port, "master", "sw0", "up"]))?;
        succeed(Command::new("nsenter").arg(into(init)).args(["sh", "-c", PLUG, "plug", &address]))?;
        let groups = match spec.cores {
            Some(cores) => limit_cores(&format!("{}-{}", std::process::id(), spec.name), cores),
            None => Vec::new(),
        };
        let is_elsewhere = spec.root.is_some();
        let (name, account) = (spec.name.clone(), spec.account);
        Ok(Self { name, address, account, files, init, groups, is_elsewhere, _holder: holder })
    }

    /// Whether a quota holds here.
    pub(crate) fn limited(&self) -> bool {
        !self.groups.is_empty()
    }

    /// CPU time that all its programs have taken so far, seconds; nothing where no quota holds.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        let read = |file: &str| self.groups.iter().find_map(|group| std::fs::read_to_string(group.join(file)).ok());
        if let Some(text) = read("cpuacct.usage") {
            return text.trim().parse::<f64>().ok().map(|ns| ns / 1e9);
        }
        let text = read("cpu.stat")?;
        let us = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        us.parse::<f64>().ok().map(|us| us / 1e6)
    }

    /// A place on this machine, seen from outside. Only what is the machine's own.
    pub(crate) fn outside(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        let own = inside.strip_prefix("/").expect("places on a machine are absolute");
        assert!(OWN.iter().any(|folder| own.starts_with(folder)), "{} is not the machine's own", inside.display());
        self.files.join(own)
    }

    /// Makes a folder on this machine that its user may write to.
    pub(crate) fn make_dir(&self, inside: impl AsRef<Path>) {
        let owner = (self.account == Account::Ordinary).then_some(ORDINARY_ID);
        make_dir(&self.outside(inside), owner).expect("a machine's folder can be made");
    }

    /// The environment of its user's programs.
    pub(crate) fn env(&self) -> BTreeMap<&'static str, String> {
        let (user, id) = match self.account {
            Account::Root => ("root", 0),
            Account::Ordinary => ("dev", ORDINARY_ID),
        };
        BTreeMap::from([
            ("PATH", "/home/dev/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME", "/home/dev".to_owned()),
            ("USER", user.to_owned()),
            ("LOGNAME", user.to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("SHELL", "/bin/sh".to_owned()),
            ("PWD", "/".to_owned()),
            ("XDG_RUNTIME_DIR", format!("/run/user/{id}")),
        ])
    }

    /// A command here, as its user, in its user's environment.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, argv: &[S]) -> Order<'_> {
        let argv = argv.iter().map(|word| word.as_ref().to_owned()).collect();
        let env = self.env().into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Order { machine: self, argv, env, cwd: "/home/dev".into(), seconds_max: COMMAND_SECONDS_MAX }
    }

    /// Runs a shell script here and gives what it said; panics with its words if it fails.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let ran = self.command(&["sh", "-ec", script]).run();
        assert!(ran.status.success(), "{} on {}: {ran:?}", script, self.name);
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    /// The processes here whose command line has this text, by the computer's numbers.
    pub(crate) fn processes(&self, text: &str) -> Vec<u32> {
        let here = std::fs::read_link(format!("/proc/{}/ns/pid", self.init)).ok();
        let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        numbers
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| here.is_some() && std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok() == here)
            .filter(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
            })
            .collect()
    }

    /// Runs something on this computer's side, but with the network of this machine.
    pub(crate) fn on_its_network<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let network = std::fs::File::open(format!("/proc/{}/ns/net", self.init)).expect("the machine is up");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let kind = rustix::thread::LinkNameSpaceType::Network;
                rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), Some(kind))
                    .expect("root may enter a network namespace");
                act()
            });
            thread.join().expect("what ran there did not panic")
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        signal(self.init, rustix::process::Signal::KILL);
        let _ = self._holder.child.wait();
        for group in &self.groups {
            let _ = std::fs::remove_dir(group);
        }
    }
}

/// Sends a signal to a process; one that is gone already is no error.
pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// A control group with a quota, for either version; none where this computer allows none.
fn limit_cores(name: &str, cores: f64) -> Vec<PathBuf> {
    let quota_us = (cores * QUOTA_PERIOD_US as f64) as u64;
    let base = Path::new("/sys/fs/cgroup");
    let (old, new) = (base.join("cpu").join(format!("mesh-lab-{name}")), base.join(format!("mesh-lab-{name}")));
    let made = |group: &Path, files: &[(&str, String)]| {
        std::fs::create_dir(group).is_ok()
            && files
                .iter()
                .all(|(file, text)| group.join(file).exists() && std::fs::write(group.join(file), text).is_ok())
    };
    if base.join("cpu/cpu.cfs_quota_us").exists() {
        let [period, quota] = [QUOTA_PERIOD_US, quota_us].map(|us| us.to_string());
        // What a machine may have it gets, whatever else this computer does.
        let files = [("cpu.cfs_period_us", period), ("cpu.cfs_quota_us", quota), ("cpu.shares", "262144".to_owned())];
        // What it takes is counted in another hierarchy, which may be the same one under another name.
        let counted = base.join("cpuacct").join(format!("mesh-lab-{name}"));
        return match made(&old, &files) {
            true if counted.exists() || made(&counted, &[]) => vec![old, counted],
            true => vec![old],
            false => Vec::new(),
        };
    }
    let files = [("cpu.max", format!("{quota_us} {QUOTA_PERIOD_US}")), ("cpu.weight", "10000".to_owned())];
    if made(&new, &files) {
        return vec![new];
    }
    let _ = std::fs::remove_dir(&new);
    Vec::new()
}

/// A command for a machine, not yet given.
#[derive(Debug, Clone)]
pub(crate) struct Order<'a> {
    machine: &'a Machine,
    argv: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    cwd: PathBuf,
    seconds_max: u64,
}

/// What a command said and how it ended.
#[derive(Clone)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (out, err) = (String::from_utf8_lossy(&self.stdout), String::from_utf8_lossy(&self.stderr));
        write!(f, "{}\n{out}{err}", self.status)
    }
}

impl Order<'_> {
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().into(), value.as_ref().into());
        self
    }

    pub(crate) fn seconds_max(mut self, seconds: u64) -> Self {
        self.seconds_max = seconds;
        self
    }

    /// The command that enters the machine. It becomes `nsenter`, whose one child is the program itself.
    fn entering(&self) -> Command {
        // `$1`: control groups.
        const JOIN: &str = r#"for group in $1; do echo $$ >"$group/cgroup.procs"; done; shift; exec "$@""#;
        const GO: &str = r#"cd "$1" || exit 125; shift; exec "$@""#;
        let groups = words(&self.machine.groups);
        let mut command = Command::new("sh");
        command.args(["-c", JOIN, "sh"]).arg(groups).args(["nsenter", "-t", &self.machine.init.to_string()]);
        command.args(["--net", "--mount", "--uts", "--ipc", "--pid"]);
        let (is_ordinary, id) = (self.machine.account == Account::Ordinary, ORDINARY_ID.to_string());
        match (is_ordinary, self.machine.is_elsewhere) {
            (false, _) => command.arg("--"),
            (true, false) => command.args([
                "--",
                "setpriv",
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "--inh-caps=-all",
                "--",
            ]),
            // Its root has few programs.
            (true, true) => command.args(["--setuid", &id, "--setgid", &id, "--"]),
        };
        command.args(["sh", "-c", GO, "sh"]).arg(&self.cwd).args(&self.argv);
        command.env_clear().envs(&self.env);
        command
    }

    /// Runs it to its end, or to its deadline (status 124, from `timeout`).
    pub(crate) fn run(self) -> Ran {
        let mut order = self.clone();
        let limit = ["timeout".to_owned(), "-k".into(), "5".into(), self.seconds_max.to_string()];
        order.argv = limit.into_iter().map(OsString::from).chain(self.argv).collect();
        let output = order.entering().stdin(Stdio::null()).output().expect("sh can be started");
        Ran { status: output.status, stdout: output.stdout, stderr: output.stderr }
    }

    /// Starts it in the background; its words go to `log` among the machine's files.
    pub(crate) fn start(self, log: &str) -> Running {
        let path = self.machine.files.join(log);
        let mut log = std::fs::File::create(&path).expect("the machine's files can be written");
        let _ = writeln!(log, "{:?}", self.argv);
        let again = log.try_clone().expect("a descriptor is left");
        let child = self.entering().stdin(Stdio::null()).stdout(log).stderr(again).spawn().expect("sh can be started");
        Running { child, log: path }
    }
}

/// Something that runs on a machine in the background; ended when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// The program itself, by the computer's number, once `nsenter` has started it.
    pub(crate) fn pid(&self) -> Option<u32> {
        child_of(self.child.id())
    }

    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits for its end; `None` when it takes longer.
    pub(crate) fn wait(&mut self, at_most: Duration) -> Option<ExitStatus> {
        eventually(at_most, || self.ended())
    }

    pub(crate) fn signal(&self, number: rustix::process::Signal) {
        if let Some(pid) = self.pid() {
            signal(pid, number);
        }
        // nsenter stops itself when its child stops, and would never see the rest.
        if number != rustix::process::Signal::STOP {
            signal(self.child.id(), rustix::process::Signal::CONT);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(rustix::process::Signal::KILL);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Asks every 10 ms until there is an answer or the time is over.
pub(crate) fn eventually<T>(at_most: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = std::time::Instant::now() + at_most;
    loop {
        match ask() {
            Some(answer) => return Some(answer),
            None if std::time::Instant::now() >= end => return None,
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Words that a shell reads back as these bytes.
pub(crate) fn quoted(word: &OsStr) -> Vec<u8> {
    let mut out = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            byte => out.push(byte),
        }
    }
    out.push(b'\'');
    out
}
