//! Lists of compiles, run on a machine with and without the launcher, and everything they made compared byte by byte.

use crate::machine::{Machine, Order, Running, quoted};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Where every build puts what it makes. The same place for all, because compilers write the path of their output into it.
const OUT: &str = "/home/dev/out";
/// Where the scripts lie.
const SCRIPTS: &str = "/home/dev/scripts";
/// How long one list may take, seconds.
const LIST_SECONDS_MAX: u64 = 1800;

/// Which driver a source needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    C,
    Cxx,
}

/// Whose drivers are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Compilers {
    Gcc,
    Clang,
}

impl Compilers {
    pub(crate) fn driver(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Gcc, Family::C) => "gcc",
            (Self::Gcc, Family::Cxx) => "g++",
            (Self::Clang, Family::C) => "clang",
            (Self::Clang, Family::Cxx) => "clang++",
        }
    }
}

/// One source to be compiled to one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) folder: PathBuf,
    pub(crate) family: Family,
    pub(crate) flags: Vec<OsString>,
    /// As the command names it: absolute, or relative to `folder`.
    pub(crate) source: PathBuf,
}

/// So many of the units, spread evenly over all.
pub(crate) fn spread(units: Vec<Unit>, count: usize) -> Vec<Unit> {
    let all = units.len();
    if count >= all {
        return units;
    }
    (0..count).map(|n| units[(2 * n + 1) * all / (2 * count)].clone()).collect()
}

/// How a list is compiled.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) compilers: Compilers,
    /// Added to each unit's own flags.
    pub(crate) flags: Vec<OsString>,
    /// How many at once.
    pub(crate) jobs: usize,
    pub(crate) env: Vec<(OsString, OsString)>,
}

impl Way {
    pub(crate) fn new(compilers: Compilers, flags: &str) -> Self {
        Self { compilers, flags: flags.split_whitespace().map(Into::into).collect(), jobs: 4, env: Vec::new() }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs;
        self
    }
}

/// Everything that a build left: path below its folder, and bytes. Exit codes and what the compilers said are files too.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Made(pub(crate) BTreeMap<PathBuf, Vec<u8>>);

impl std::fmt::Debug for Made {
    /// What compilers said and how they ended; of the rest the names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (path, bytes) in &self.0 {
            let said = matches!(path.extension().and_then(OsStr::to_str), Some("err" | "out" | "exit"));
            let text = if said { String::from_utf8_lossy(bytes) } else { format!("{} bytes", bytes.len()).into() };
            writeln!(f, "{}: {}", path.display(), text.trim_end())?;
        }
        Ok(())
    }
}

impl Made {
    /// Reads a folder, outside the machine.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut made = Self::default();
        made.add(folder, folder);
        made
    }

    fn add(&mut self, root: &Path, folder: &Path) {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries.flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).expect("it lies below").to_owned();
            if path.is_symlink() {
                let target = std::fs::read_link(&path).unwrap_or_default();
                self.0.insert(name, target.into_os_string().into_vec());
            } else if path.is_dir() {
                self.add(root, &path);
            } else {
                self.0.insert(name, std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
            }
        }
    }

    /// How many objects there are.
    pub(crate) fn objects(&self) -> usize {
        self.0.keys().filter(|path| path.extension() == Some(OsStr::new("o"))).count()
    }

    /// How many units ended with exit code 0.
    pub(crate) fn succeeded(&self) -> usize {
        self.0.iter().filter(|(path, text)| path.extension() == Some(OsStr::new("exit")) && *text == b"0\n").count()
    }

    /// What the compilers said, for a test that fails.
    pub(crate) fn complaints(&self) -> String {
        let said = self.0.iter().filter(|(path, text)| path.extension() == Some(OsStr::new("err")) && !text.is_empty());
        said.map(|(path, text)| format!("{}: {}", path.display(), String::from_utf8_lossy(text))).collect()
    }

    /// What differs from a reference, a line each; empty if nothing does.
    pub(crate) fn differences(&self, reference: &Self) -> String {
        let mut out = String::new();
        for path in reference.0.keys().filter(|path| !self.0.contains_key(*path)) {
            out += &format!("{} is missing\n", path.display());
        }
        for (path, bytes) in &self.0 {
            match reference.0.get(path) {
                None => out += &format!("{} is too many\n", path.display()),
                Some(wanted) if wanted == bytes => {}
                Some(wanted) => {
                    let at =
                        wanted.iter().zip(bytes).position(|(a, b)| a != b).unwrap_or(wanted.len().min(bytes.len()));
                    let (of, to) = (wanted.len(), bytes.len());
                    out += &format!("{} differs from byte {at} ({of} bytes locally, {to} here)\n", path.display());
                    let text = matches!(path.extension().and_then(OsStr::to_str), Some("err" | "exit" | "d"));
                    if text {
                        let (wanted, bytes) = (String::from_utf8_lossy(wanted), String::from_utf8_lossy(bytes));
                        out += &format!("  locally: {wanted}\n  here:    {bytes}\n");
                    }
                }
            }
        }
        out
    }

    /// Panics with the differences from a reference, if there are any.
    #[track_caller]
    pub(crate) fn assert_same(&self, reference: &Self, what: &str) {
        let differences = self.differences(reference);
        assert!(differences.is_empty(), "{what}: not what the local compiler makes:\n{differences}");
    }
}

/// A list on its way.
#[derive(Debug)]
pub(crate) struct Building<'a> {
    machine: &'a Machine,
    running: Running,
}

impl Building<'_> {
    /// Waits for the end and takes what was made out of the way.
    pub(crate) fn finish(mut self) -> Made {
        let status = self.running.wait(std::time::Duration::from_secs(LIST_SECONDS_MAX)).expect("the build ends");
        assert!(status.success(), "the list itself failed: {}", self.running.said());
        Made::read(&self.machine.outside(OUT))
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.running.ended().is_some()
    }
}

/// Compiles a list: `prefix` is the launcher's words, empty for the plain compiler.
pub(crate) fn build(machine: &Machine, units: &[Unit], way: &Way, prefix: &[&str]) -> Made {
    start(machine, units, way, prefix).finish()
}

/// Starts compiling a list.
pub(crate) fn start<'a>(machine: &'a Machine, units: &[Unit], way: &Way, prefix: &[&str]) -> Building<'a> {
    prepare(machine, units, way, prefix);
    let running = order(machine, way).start("build.log");
    Building { machine, running }
}

fn prepare(machine: &Machine, units: &[Unit], way: &Way, prefix: &[&str]) {
    for folder in [OUT, SCRIPTS] {
        let _ = std::fs::remove_dir_all(machine.outside(folder));
        machine.make_dir(folder);
    }
    for (number, unit) in units.iter().enumerate() {
        let path = machine.outside(SCRIPTS).join(format!("{number:04}.sh"));
        std::fs::write(&path, script(number, unit, way, prefix)).expect("the machine's files can be written");
    }
}

fn order<'a>(machine: &'a Machine, way: &Way) -> Order<'a> {
    let script = format!("ls {SCRIPTS}/*.sh | xargs -P {} -n 1 sh", way.jobs);
    let mut order = machine.command(&["sh", "-c", &script]).seconds_max(LIST_SECONDS_MAX);
    for (name, value) in &way.env {
        order = order.env(name, value);
    }
    order
}

/// Compiles one unit; its words and its exit code become files beside the object.
fn script(number: usize, unit: &Unit, way: &Way, prefix: &[&str]) -> Vec<u8> {
    let stem = unit.source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let base = format!("{OUT}/{number:04}-{stem}");
    let object = format!("{base}.o");
    let mut words: Vec<&OsStr> = prefix.iter().map(OsStr::new).collect();
    words.push(way.compilers.driver(unit.family).as_ref());
    words.extend(unit.flags.iter().chain(&way.flags).map(OsString::as_os_str));
    words.extend(["-c".as_ref(), unit.source.as_os_str(), "-o".as_ref(), object.as_ref()]);
    let mut out = b"cd ".to_vec();
    out.extend(quoted(unit.folder.as_os_str()));
    out.extend_from_slice(b" || exit\n");
    for word in words {
        out.extend(quoted(word));
        out.push(b' ');
    }
    for (stream, ending) in [(">", ".out"), ("2>", ".err")] {
        out.extend_from_slice(stream.as_bytes());
        out.extend(quoted(format!("{base}{ending}").as_ref()));
        out.push(b' ');
    }
    out.extend_from_slice(b"\necho $? >");
    out.extend(quoted(format!("{base}.exit").as_ref()));
    out.push(b'\n');
    debug_assert!(!out.contains(&0), "{:?}", OsStr::from_bytes(&out));
    out
}
