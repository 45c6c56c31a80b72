//! A machine for tests: a cache, a worker, toolchains and closures found by asking the compilers.

use mesh::compiler::invocation::Family;
use mesh::sandbox::policy::{Identities, Inputs, Limits, Mould, Policy, Update, Without};
use mesh::sandbox::{self, Finished, SandboxError, Template};
use mesh::store::blobs::{Blobs, STORE_BYTES_MAX};
use mesh::worker::mirrors::Mirrors;
use mesh::worker::run::{Cancelled, Closure, Form, Order, Ran, RunError, Worker, cancellation};
use mesh_proto::closure::{Entry, File, Node};
use mesh_proto::digest::Digest;
use mesh_proto::job::Job;
use mesh_proto::path::AbsPath;
use mesh_proto::toolchain::{Manifest, Part, PartNode};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

pub(crate) fn mesh() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| std::env::var_os("MESH_TEST_BIN").unwrap_or(env!("CARGO_BIN_EXE_mesh").into()).into())
}

/// Says that a test did not run, or fails if that is not allowed.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("MESH_TEST_NO_SKIP").is_none(), "would be skipped: {why}");
    eprintln!("skipped: {why}");
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// No two jobs of this test run have the same slot, as no two of an agent's have.
pub(crate) fn slot() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A directory of this machine that all may read, and on which no root is built.
pub(crate) fn apart() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) worker: Worker,
    pub(crate) blobs: Blobs,
    /// The only client, for tests that need no other.
    pub(crate) client: Client,
    pub(crate) is_without_overlay: bool,
}

/// What a client has named on its connection, and the trees that are kept for it.
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) mirrors: Mirrors,
    named: Mutex<Named>,
}

#[derive(Default)]
struct Named {
    numbers: HashMap<Entry, u32>,
    at: HashMap<AbsPath, Entry>,
    next: u32,
}

impl Client {
    /// The closure of these entries, by number. What they say of a path takes back what was said of it before.
    pub(crate) fn closure(&self, entries: &[Entry]) -> Closure {
        let mut named = self.named.lock().unwrap();
        let mut gone = Vec::new();
        let mut closure: Vec<_> = entries.iter().map(|entry| (named.number(entry, &mut gone), entry.clone())).collect();
        self.mirrors.gone(&gone);
        closure.sort_unstable();
        Arc::new(closure.into_iter().map(|(number, entry)| (number, Arc::new(entry))).collect())
    }

    /// Nothing is at these paths any more.
    pub(crate) fn take_back(&self, paths: &[&AbsPath]) {
        let mut named = self.named.lock().unwrap();
        let gone: Vec<u32> = paths.iter().filter_map(|path| named.forget(path)).collect();
        self.mirrors.gone(&gone);
    }
}

impl Named {
    fn number(&mut self, entry: &Entry, gone: &mut Vec<u32>) -> u32 {
        if self.at.get(&entry.path) != Some(entry) {
            gone.extend(self.forget(&entry.path));
            self.at.insert(entry.path.clone(), entry.clone());
            self.numbers.insert(entry.clone(), self.next);
            self.next += 1;
        }
        self.numbers[entry]
    }

    fn forget(&mut self, path: &AbsPath) -> Option<u32> {
        self.numbers.remove(&self.at.remove(path)?)
    }
}

impl World {
    /// `None`, said aloud, where there is no sandbox.
    pub(crate) fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let blobs = Blobs::open(&cache, STORE_BYTES_MAX).unwrap();
        match Worker::new(mesh(), &cache) {
            Ok(worker) => Some(Self { dir, worker, blobs, client: Client::default(), is_without_overlay: false }),
            Err(error) => {
                skip(&error.to_string());
                None
            }
        }
    }

    /// The same machine with a worker that leaves barriers out.
    pub(crate) fn without(self, without: Without) -> Self {
        Self { worker: self.worker.without(without), is_without_overlay: without.overlay, ..self }
    }

    /// In a root of its own.
    pub(crate) fn run(&self, job: &Job, entries: &[Entry], toolchain: &Manifest) -> Result<Ran, RunError> {
        self.run_for(&self.client, Form::Strict, job, entries, toolchain)
    }

    /// In a mirror of this client's, if that can be.
    pub(crate) fn run_for(
        &self,
        client: &Client,
        form: Form,
        job: &Job,
        entries: &[Entry],
        toolchain: &Manifest,
    ) -> Result<Ran, RunError> {
        let (_cancel, cancelled) = cancellation().unwrap();
        self.run_until(&cancelled, client, form, job, entries, toolchain)
    }

    /// The same until it is cancelled.
    pub(crate) fn run_until(
        &self,
        cancelled: &Cancelled,
        client: &Client,
        form: Form,
        job: &Job,
        entries: &[Entry],
        toolchain: &Manifest,
    ) -> Result<Ran, RunError> {
        let closure = &client.closure(entries);
        let mirrors = (form == Form::Mirror).then_some(&client.mirrors);
        let (fingerprint, slot) = (&toolchain.fingerprint(), slot());
        let is_clang = toolchain.driver.name().starts_with(b"clang");
        let family = if is_clang { Family::Clang } else { Family::Gcc };
        let order = Order { job, closure, toolchain, fingerprint, family, slot, mirrors, is_own: false };
        self.worker.run(order, &self.blobs, cancelled)
    }

    /// Puts all files of a closure into the store.
    pub(crate) fn stock(&self, entries: &[Entry]) {
        for entry in entries {
            if let Node::File(file) = &entry.node {
                let bytes = std::fs::read(OsStr::from_bytes(entry.path.as_bytes())).unwrap();
                self.blobs.put(&file.digest, &bytes).unwrap();
            }
        }
    }
}

pub(crate) fn abs(path: &Path) -> AbsPath {
    AbsPath::new(path.as_os_str().as_bytes()).unwrap()
}

/// Paths as they are on this machine, with the links that lead to them.
#[derive(Default)]
pub(crate) struct Paths(pub(crate) BTreeMap<AbsPath, PathBuf>);

impl Paths {
    /// Takes a path and every link on the way to what it means.
    pub(crate) fn add(&mut self, path: &Path) {
        let mut real = PathBuf::from("/");
        let mut rest: Vec<OsString> = path.iter().filter(|name| *name != "/").map(OsStr::to_owned).collect();
        rest.reverse();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&name);
            let Ok(metadata) = next.symlink_metadata() else { return };
            if !metadata.is_symlink() {
                real = next;
                continue;
            }
            links += 1;
            assert!(links < 40, "{path:?}");
            let target = next.read_link().unwrap();
            self.0.insert(abs(&next), next.clone());
            if target.is_absolute() {
                real = PathBuf::from("/");
            }
            let names = target.iter().filter(|name| *name != "/").map(OsStr::to_owned);
            rest.extend(names.collect::<Vec<_>>().into_iter().rev());
        }
        if real != Path::new("/") {
            self.0.insert(abs(&real), real);
        }
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        let entry = |(path, on_disk): (&AbsPath, &PathBuf)| {
            let metadata = on_disk.symlink_metadata().unwrap();
            let node = if metadata.is_symlink() {
                Node::Symlink { target: on_disk.read_link().unwrap().into_os_string().into_vec() }
            } else if metadata.is_dir() {
                Node::Directory
            } else {
                Node::File(File {
                    digest: Digest::of(&std::fs::read(on_disk).unwrap()),
                    size: metadata.len(),
                    mtime_s: metadata.mtime(),
                    mtime_ns: u32::try_from(metadata.mtime_nsec()).unwrap(),
                    executable: metadata.mode() & 0o111 != 0,
                    inode: metadata.ino(),
                })
            };
            Entry { path: path.clone(), node }
        };
        self.0.iter().map(entry).collect()
    }

    fn parts(&self) -> Vec<Part> {
        let part = |entry: Entry| {
            let node = match entry.node {
                Node::File(file) => {
                    PartNode::File { digest: file.digest, size: file.size, executable: file.executable }
                }
                Node::Symlink { target } => PartNode::Symlink { target },
                Node::Directory => PartNode::Directory,
            };
            Part { path: entry.path, node }
        };
        self.entries().into_iter().map(part).collect()
    }
}

pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What an ELF file needs to run.
fn add_program(paths: &mut Paths, program: &Path) {
    paths.add(program);
    for word in output(Command::new("ldd").arg(program)).split_whitespace() {
        if word.starts_with('/') {
            paths.add(Path::new(word));
        }
    }
}

/// A toolchain as a test needs it: what the driver says that it runs, and what that needs.
pub(crate) fn toolchain(driver: &str) -> Option<Manifest> {
    let found = output(Command::new("sh").args(["-c", &format!("command -v {driver}")]));
    let driver = PathBuf::from(found.trim());
    if !driver.is_absolute() {
        skip(&format!("there is no {driver:?}"));
        return None;
    }
    let mut paths = Paths::default();
    add_program(&mut paths, &driver);
    for name in ["cc1", "cc1plus", "as", "ld", "collect2", "lto-wrapper"] {
        let program = output(Command::new(&driver).arg(format!("-print-prog-name={name}")));
        let program = PathBuf::from(program.trim());
        let program = if program.is_absolute() { program } else { Path::new("/usr/bin").join(program) };
        if program.exists() {
            add_program(&mut paths, &program);
        }
    }
    // By these clang finds the system's gcc, and so its headers.
    for name in ["crtbegin.o", "liblto_plugin.so"] {
        let file = output(Command::new(&driver).arg(format!("-print-file-name={name}")));
        if Path::new(file.trim()).is_absolute() {
            paths.add(Path::new(file.trim()));
        }
    }
    paths.add(Path::new("/etc/os-release"));
    paths.add(Path::new("/etc/debian_version"));
    Some(Manifest { driver: abs(&driver), facts: vec![], parts: paths.parts() })
}

/// The closure of a command, by the compiler's own list, with the directories that it searches.
pub(crate) fn closure(argv: &[OsString], cwd: &Path, more: &[&Path]) -> Vec<Entry> {
    let mut paths = Paths::default();
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).args(["-M", "-MF", "/dev/stdout", "-MT", "x", "-v"]);
    let listed = command.current_dir(cwd).env("LC_ALL", "C").env("PWD", cwd).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    for line in String::from_utf8_lossy(&listed.stderr).lines().filter(|line| line.starts_with(" /")) {
        paths.add(Path::new(line.trim()));
    }
    let rule = listed.stdout;
    let mut word = Vec::new();
    let mut escaped = false;
    for byte in rule.iter().skip(rule.iter().position(|byte| *byte == b':').unwrap() + 1) {
        match byte {
            b'\\' if !escaped => escaped = true,
            b' ' | b'\n' if !escaped => {
                if !word.is_empty() {
                    paths.add(&cwd.join(OsStr::from_bytes(&word)));
                    word.clear();
                }
            }
            b'\n' => escaped = false,
            byte => {
                escaped = false;
                word.push(*byte);
            }
        }
    }
    paths.add(cwd);
    more.iter().for_each(|path| paths.add(path));
    paths.entries()
}

/// The job of a command line that is run in `cwd`.
pub(crate) fn job(toolchain: &Manifest, argv: &[OsString], cwd: &Path, output_dirs: &[&Path]) -> Job {
    Job {
        toolchain: toolchain.fingerprint(),
        argv: argv.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: environment(cwd).into_iter().map(|(name, value)| (name.into(), value.into_vec())).collect(),
        cwd: cwd.as_os_str().as_bytes().to_vec(),
        output_dirs: output_dirs.iter().map(|dir| abs(&dir.canonicalize().unwrap())).collect(),
        umask: 0o022,
        merged_output: false,
        terminal: None,
        wall_ms_max: 60_000,
        strict: false,
    }
}

pub(crate) fn environment(cwd: &Path) -> Vec<(&'static str, OsString)> {
    vec![("LC_ALL", "C".into()), ("PATH", "/usr/bin:/bin".into()), ("PWD", cwd.into())]
}

/// Runs a program that was compiled for a test, alone in a root, with this as its policy.
pub(crate) struct Alone {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) policy: Policy,
}

impl Alone {
    /// `program` is a file on this machine: it becomes `/program` in the root.
    pub(crate) fn new(program: &Path, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        std::fs::create_dir(&base).unwrap();
        std::fs::copy(program, base.join("program")).unwrap();
        for path in [dir.path(), &base] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let argv = std::iter::once("program").chain(args.iter().copied()).map(|arg| arg.as_bytes().to_vec());
        let policy = Policy {
            inputs: Inputs::Own { tree: vec![], sources: bytes(dir.path()) },
            base: bytes(&base),
            program: b"/program".to_vec(),
            argv: argv.collect(),
            env: vec![],
            cwd: b"/out".to_vec(),
            umask: 0o022,
            writable: vec![b"/out".to_vec(), b"/tmp".to_vec()],
            identity: Identities::candidates(is_root())[0].of_slot(slot()),
            limits: Limits { wall_ms: 20_000, ..Limits::DEFAULT },
            priority: mesh::sandbox::policy::Priority::default(),
            merged_output: false,
            terminal: None,
            without: Without::default(),
        };
        Self { dir, policy }
    }

    pub(crate) fn run(&self) -> Result<Finished, SandboxError> {
        let (_cancel, cancelled) = std::io::pipe().unwrap().into_swapped();
        sandbox::run(mesh(), &self.policy, cancelled.as_fd())
    }

    /// A template in which this job can run, and its policy for that: what it would have placed is in the tree.
    pub(crate) fn template(&self) -> Result<(Arc<Template>, Policy), SandboxError> {
        let Inputs::Own { tree, .. } = &self.policy.inputs else { panic!("it has one already") };
        let (mould, policy) = self.in_template();
        let template = Template::start(mesh(), &mould)?;
        template.update(&Update { remove: vec![], place: tree.clone() })?;
        Ok((template, policy))
    }

    /// What that template is made of, and the policy.
    pub(crate) fn in_template(&self) -> (Mould, Policy) {
        let Inputs::Own { sources, .. } = &self.policy.inputs else { panic!("it has one already") };
        let mould = Mould {
            sources: sources.clone(),
            bases: self.dir.path().as_os_str().as_bytes().to_vec(),
            identity: self.policy.identity,
            tree_bytes: 64 << 20,
            tree_nodes: 1000,
            idle_ms: 60_000,
            without: self.policy.without,
        };
        let base = Path::new(OsStr::from_bytes(&self.policy.base)).file_name().unwrap().as_bytes().to_vec();
        (mould, Policy { inputs: Inputs::Mirror, base, ..self.policy.clone() })
    }

    /// The same in a template.
    pub(crate) fn run_in_template(&self) -> Result<Finished, SandboxError> {
        let (_cancel, cancelled) = std::io::pipe().unwrap().into_swapped();
        let (template, policy) = self.template()?;
        template.run(&policy, cancelled.as_fd())
    }
}

/// The ends of a pipe, the writing one first.
trait Swapped {
    fn into_swapped(self) -> (std::io::PipeWriter, std::io::PipeReader);
}

impl Swapped for (std::io::PipeReader, std::io::PipeWriter) {
    fn into_swapped(self) -> (std::io::PipeWriter, std::io::PipeReader) {
        (self.1, self.0)
    }
}
