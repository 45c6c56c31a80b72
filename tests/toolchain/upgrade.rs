//! A compiler that changes, in whatever part of it, is another one from the next question on.

use crate::skipped;
use mesh::{
    reason::Reason,
    toolchain::{LookupError, Registry, Toolchain, differences},
};
use std::{
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, fs::symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

/// After so long a file's times show every later change.
const SETTLED: Duration = Duration::from_millis(3100);

/// A gcc that lies in a directory of its own, with links to most of the machine's.
struct Gcc {
    dir: tempfile::TempDir,
    /// Where its parts are.
    parts: PathBuf,
}

impl Gcc {
    /// `None`, said aloud, if there is no gcc that says where its parts are.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let Some(cc1) = asked("-print-prog-name=cc1").filter(|cc1| cc1.starts_with("/usr/lib")) else {
            skipped("there is no gcc with its parts in /usr/lib");
            return None;
        };
        let home = cc1.parent().expect("a directory");
        let parts = dir.path().join(home.strip_prefix("/usr").expect("below"));
        fs::create_dir_all(&parts).expect("made");
        fs::create_dir_all(dir.path().join("bin")).expect("made");
        fs::create_dir_all(dir.path().join("tools")).expect("made");
        for name in ["cc1", "lto-wrapper", "liblto_plugin.so", "include"] {
            symlink(home.join(name), parts.join(name)).expect("linked");
        }
        let gcc = Self { dir, parts };
        let driver = fs::read(fs::canonicalize("/usr/bin/gcc").expect("real")).expect("read");
        executable(&gcc.at("bin/gcc-one"), &driver);
        executable(&gcc.at("bin/gcc-two"), &[&driver[..], b"x"].concat());
        symlink("gcc-one", gcc.at("bin/gcc")).expect("linked");
        Some(gcc)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The compiler as a caller finds it that has the directory `tools` in its path.
    fn look(&self, registry: &Registry) -> Result<Arc<Toolchain>, LookupError> {
        let path_var = format!("{}:/usr/bin:/bin", self.at("tools").display());
        registry.lookup(self.at("bin/gcc").as_os_str().as_bytes(), b"/", path_var.as_bytes(), Instant::now())
    }

    /// An assembler of its own, which needs a library of its own.
    fn assembler(&self) {
        fs::write(self.at("part.c"), "int part(void) { return 1; }\n").expect("written");
        fs::write(self.at("as.c"), "int part(void); int main(void) { return part(); }\n").expect("written");
        fs::create_dir_all(self.at("first")).expect("made");
        fs::create_dir_all(self.at("second")).expect("made");
        let (dir, second) = (self.dir.path().display(), self.at("second"));
        let run_path = format!("-Wl,-rpath,{dir}/first:{dir}/second");
        for args in [
            vec!["-shared", "part.c", "-o", "second/libpart.so"],
            vec!["as.c", "-o", "tools/as", "-lpart", &run_path, "-L", second.to_str().expect("text")],
        ] {
            assert!(Command::new("gcc").args(args).current_dir(self.dir.path()).status().expect("runs").success());
        }
    }
}

fn asked(question: &str) -> Option<PathBuf> {
    let answer = Command::new("/usr/bin/gcc").arg(question).output().ok()?;
    Some(PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim()))
}

/// Writes a program as a package manager does: beside its place, then renamed.
fn executable(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).expect("written");
    fs::set_permissions(&beside, PermissionsExt::from_mode(0o755)).expect("changed");
    fs::rename(beside, path).expect("renamed");
}

/// The file at a path and one byte more, by rename.
fn replace(path: &Path) {
    let bytes = fs::read(path).expect("there");
    executable(path, &[&bytes[..], b"x"].concat());
}

#[test]
fn whatever_is_upgraded_is_another_compiler_at_the_next_question() {
    /// What is done, and what a difference must name then.
    type Change = (&'static str, fn(&Gcc), &'static str);
    let changes: &[Change] = &[
        ("cc1 is replaced", |gcc| replace(&gcc.parts.join("cc1")), "/cc1"),
        (
            "cc1 is written in place",
            |gcc| {
                let mut cc1 = fs::OpenOptions::new().append(true).open(gcc.parts.join("cc1")).expect("there");
                cc1.write_all(b"x").expect("written");
            },
            "/cc1",
        ),
        (
            "the driver's link leads to another one",
            |gcc| {
                symlink("gcc-two", gcc.at("bin/new")).expect("linked");
                fs::rename(gcc.at("bin/new"), gcc.at("bin/gcc")).expect("renamed");
            },
            "/bin/gcc",
        ),
        ("specs appear", |gcc| fs::write(gcc.parts.join("specs"), "*cc1:\n+ -DNEW\n\n").expect("written"), "/specs"),
        ("an assembler appears among the parts", |gcc| replace_as(&gcc.parts.join("as")), "/as"),
        ("an assembler appears in the path", |gcc| replace_as(&gcc.at("tools/as")), "/as"),
        ("the assembler is replaced", |gcc| replace(&gcc.at("tools/as")), "/tools/as"),
        ("a library is replaced", |gcc| replace(&gcc.at("second/libpart.so")), "/libpart.so"),
        (
            "a library appears where it is looked for before",
            |gcc| {
                fs::copy(gcc.at("second/libpart.so"), gcc.at("first/libpart.so")).expect("copied");
            },
            "/libpart.so",
        ),
    ];
    let mut all = Vec::new();
    for change in changes {
        let Some(gcc) = Gcc::new() else { return };
        match change.0 {
            "cc1 is written in place" => {
                let cc1 = fs::read(gcc.parts.join("cc1")).expect("there");
                executable(&gcc.parts.join("cc1"), &cc1);
            }
            what if what.contains("library") || what.contains("assembler is replaced") => gcc.assembler(),
            _ => {}
        }
        all.push((gcc, change));
    }
    std::thread::sleep(SETTLED);
    let cache = tempfile::tempdir().expect("a directory");
    let registry = Registry::open(cache.path(), None);
    let before: Vec<_> = all.iter().map(|(gcc, (what, ..))| gcc.look(&registry).expect(what)).collect();
    for ((gcc, (what, change, _)), before) in all.iter().zip(&before) {
        assert!(Arc::ptr_eq(before, &gcc.look(&registry).expect(what)), "nothing happened yet: {what}");
        change(gcc);
        // At once: by its times alone it could still be the old one.
        assert_eq!(gcc.look(&registry).map(|t| t.driver.clone()), Err(LookupError::Local(Reason::Changing)), "{what}");
        // Callers with another path have what they had.
        let is_still_there = registry.by_fingerprint(before.fingerprint, Instant::now()).is_some();
        assert_eq!(is_still_there, *what == "an assembler appears in the path", "{what}");
    }
    std::thread::sleep(SETTLED);
    for ((gcc, (what, _, names)), before) in all.iter().zip(&before) {
        let after = gcc.look(&registry).expect(what);
        assert_ne!(after.fingerprint, before.fingerprint, "{what}");
        let said: Vec<_> = differences(&before.manifest, &after.manifest).iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|line| line.contains(names)), "{what}: {said:?}");
    }
}

/// From version 16 on clang reads one from beside its driver.
#[test]
fn a_configuration_file_that_appears_makes_another_clang() {
    let Ok(real) = fs::canonicalize("/usr/bin/clang-16") else {
        skipped("clang-16 is not installed");
        return;
    };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    fs::create_dir(dir.path().join("bin")).expect("made");
    let clang = dir.path().join("bin/clang");
    executable(&clang, &fs::read(real).expect("read"));
    std::thread::sleep(SETTLED);
    let registry = Registry::open(&dir.path().join("cache"), None);
    let look = || registry.lookup(clang.as_os_str().as_bytes(), b"/", b"/usr/bin:/bin", Instant::now());
    let before = look().expect("found");
    fs::write(dir.path().join("bin/clang.cfg"), "-DNEW\n").expect("written");
    assert_eq!(look().map(|t| t.fingerprint), Err(LookupError::Local(Reason::Changing)));
    std::thread::sleep(SETTLED);
    let after = look().expect("found");
    let said: Vec<_> = differences(&before.manifest, &after.manifest).iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|line| line.ends_with("/bin/clang.cfg is only there")), "{said:?}");
    let macros = said.iter().any(|line| line == "macros c: not the same");
    assert!(macros, "what it defines counts: {said:?}");
}

fn replace_as(path: &Path) {
    executable(path, &fs::read("/usr/bin/as").expect("read"));
}

#[test]
fn a_wrapper_or_a_link_to_a_launcher_is_refused_each_for_its_own_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let registry = Registry::open(dir.path(), None);
    let look = |path: &Path| {
        let found = registry.lookup(path.as_os_str().as_bytes(), b"/", b"/usr/bin:/bin", Instant::now());
        found.map(|toolchain| toolchain.driver.clone())
    };
    let wrapper = dir.path().join("cross-gcc");
    executable(&wrapper, b"#!/bin/sh\nexec /usr/bin/gcc -m32 \"$@\"\n");
    assert_eq!(look(&wrapper), Err(LookupError::Local(Reason::Wrapper)));
    for launcher in ["ccache", "distcc", "icecc"] {
        executable(&dir.path().join(launcher), b"\x7fELF");
        let link = dir.path().join(format!("{launcher}-links"));
        fs::create_dir(&link).expect("made");
        symlink(dir.path().join(launcher), link.join("gcc")).expect("linked");
        assert_eq!(look(&link.join("gcc")), Err(LookupError::Local(Reason::StandIn)), "{launcher}");
        // In the path it is passed over, and the compiler behind it is found.
        let path_var = format!("{}:/usr/bin", link.display());
        let found = registry.lookup(b"gcc", b"/", path_var.as_bytes(), Instant::now());
        match found {
            Ok(toolchain) => assert_eq!(toolchain.driver.as_bytes(), b"/usr/bin/gcc"),
            Err(other) => skipped(&format!("gcc: {other}")),
        }
    }
    if let Some(gcc) = Gcc::new() {
        fs::write(gcc.parts.join("specs"), "%include_noerr <more.specs>\n\n").expect("written");
        let found = gcc.look(&registry).map(|toolchain| toolchain.driver.clone());
        assert_eq!(found, Err(LookupError::Local(Reason::Compiler)), "what the specs take in is not known");
    }
    let stranger = dir.path().join("cc");
    executable(&stranger, &fs::read("/bin/true").expect("read"));
    assert_eq!(look(&stranger), Err(LookupError::Local(Reason::Compiler)));
    let said: Vec<_> = registry.refused().into_iter().map(|r| (r.program.name().to_vec(), r.reason, r.why)).collect();
    let why = format!("{} is a script", wrapper.display());
    assert!(said.contains(&(b"cross-gcc".to_vec(), Reason::Wrapper, why)), "{said:?}");
    assert!(said.iter().any(|(name, reason, _)| name == b"cc" && *reason == Reason::Compiler), "{said:?}");
    assert!(registry.known().iter().all(|t| t.driver.as_bytes() == b"/usr/bin/gcc"));
}

/// Buildroot's drivers, among others, are such programs: what they run would be missing in a root of the driver's files.
#[test]
fn a_program_that_runs_a_compiler_is_no_compiler_itself() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let registry = Registry::open(dir.path(), None);
    let mut all = Vec::new();
    for compiler in ["/usr/bin/gcc", "/usr/bin/clang"] {
        if !Path::new(compiler).exists() {
            skipped(&format!("{compiler} is not installed"));
            continue;
        }
        let text = format!(
            "#include <unistd.h>\nint main(int n, char **v) {{ (void)n; v[0] = \"{compiler}\"; return execv(v[0], v); }}\n"
        );
        fs::write(dir.path().join("w.c"), text).expect("written");
        let name = format!("wrapper-{}", compiler.rsplit('/').next().expect("a name"));
        let linked = Command::new(compiler).args(["-w", "w.c", "-o", &name]).current_dir(dir.path()).status();
        assert!(linked.expect("runs").success());
        all.push(dir.path().join(name));
    }
    std::thread::sleep(SETTLED);
    for wrapper in all {
        let found = registry.lookup(wrapper.as_os_str().as_bytes(), b"/", b"/usr/bin:/bin", Instant::now());
        assert_eq!(found.map(|t| t.driver.clone()), Err(LookupError::Local(Reason::Wrapper)), "{}", wrapper.display());
        let link = dir.path().join("link-cc");
        let _ = fs::remove_file(&link);
        let real = if wrapper.ends_with("wrapper-gcc") { "/usr/bin/gcc" } else { "/usr/bin/clang" };
        symlink(real, &link).expect("linked");
        // A link to the compiler is the compiler.
        let found = registry.lookup(link.as_os_str().as_bytes(), b"/", b"/usr/bin:/bin", Instant::now());
        assert!(matches!(found, Ok(_) | Err(LookupError::Local(Reason::Changing))), "{found:?}");
    }
}

#[test]
fn debians_c89_and_c99_are_scripts_and_said_to_be() {
    let cache = tempfile::tempdir().expect("a directory");
    let registry = Registry::open(cache.path(), None);
    for name in ["c89", "c99"] {
        match registry.lookup(name.as_bytes(), b"/", b"/usr/bin:/bin", Instant::now()) {
            Err(LookupError::NotFound) => skipped(&format!("{name} is not installed")),
            other => {
                let other = other.map(|toolchain| toolchain.driver.clone());
                assert_eq!(other, Err(LookupError::Local(Reason::Wrapper)), "{name}");
            }
        }
    }
}
