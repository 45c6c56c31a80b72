//! Looks at the tools that a build may use, and at its tree: as little as the build's tool needs (DO).

use crate::sched::tokens::{self, Found, Make, Tool, Version};
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A tool that has not told its version after this time counts as old.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(1);
/// What is read of its answer, bytes.
const ANSWER_BYTES_MAX: u64 = 4096;
/// What is read of a cache file, bytes.
const CACHE_BYTES_MAX: u64 = 16 << 20;
/// Names under which makes are installed.
const MAKES: &[&str] = &["make", "gmake", "bmake"];

/// What CMake wrote down of a build tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    /// Where it is, as the command has it.
    pub(super) dir: PathBuf,
    /// The program that builds it.
    pub(super) program: PathBuf,
    /// Its compiles go through a launcher.
    pub(super) has_launcher: bool,
    /// It has a compiler of its own: it compiles C or C++.
    pub(super) compiles: bool,
}

/// What a build's command may need to be told.
pub(super) fn look(tool: Tool, words: &[OsString], path_var: &OsStr, tree: Option<&Tree>) -> Found {
    let flags_tell = std::env::var_os("MAKEFLAGS").is_some_and(|flags| tokens::flags_tell(flags.as_bytes()));
    let program = |tree: &Tree| tree.program.file_name().is_some_and(|name| name.as_bytes().starts_with(b"ninja"));
    let tree_is_ninja = tree.is_some_and(program);
    let mut found = Found { tree_is_ninja, flags_tell, ..Found::default() };
    let ninja = match tool {
        Tool::Ninja => words.first().map(PathBuf::from),
        Tool::MesonCompile => Some(PathBuf::from("ninja")),
        Tool::CmakeBuild if tree_is_ninja => tree.map(|tree| tree.program.clone()),
        _ => None,
    };
    found.ninja = ninja.and_then(|program| version(&program));
    // A ninja that is no client is told by a number, whatever the makes are.
    let asks_makes = match tool {
        Tool::Xcodebuild | Tool::CmakeConfigure => false,
        Tool::Ninja | Tool::MesonCompile => found.ninja.is_some(),
        Tool::CmakeBuild | Tool::Make | Tool::Cargo | Tool::Other => true,
    };
    if asks_makes {
        found.makes = makes(path_var).iter().map(|program| make(program)).collect();
        let own = match tool {
            Tool::Make => words.first().and_then(|word| on_path(Path::new(word), path_var)),
            Tool::CmakeBuild => tree.map(|tree| tree.program.clone()).filter(|_| !tree_is_ninja),
            _ => None,
        };
        found.own = own.map(|program| make(&program));
    }
    found
}

/// Each make on `PATH`, once.
fn makes(path_var: &OsStr) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let dirs = std::env::split_paths(path_var).filter(|dir| dir.is_absolute());
    let all = dirs.flat_map(|dir| MAKES.iter().map(move |name| dir.join(name)));
    let is_new = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|meta| seen.insert((meta.dev(), meta.ino())));
    all.filter(|path| path.is_file()).filter(is_new).collect()
}

/// The program that a command's first word names.
fn on_path(word: &Path, path_var: &OsStr) -> Option<PathBuf> {
    if word.components().count() > 1 {
        return Some(word.to_owned());
    }
    std::env::split_paths(path_var).map(|dir| dir.join(word)).find(|path| path.is_file())
}

/// Whose make a program is.
fn make(program: &Path) -> Make {
    answer(program).map_or(Make::Silent, |answer| Make::read(&answer))
}

/// What a program says of its version.
fn version(program: &Path) -> Option<Version> {
    Version::read(&answer(program)?)
}

/// What a program says when it is asked for its version, if it does so in time.
fn answer(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version").env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let until = Instant::now() + ANSWER_TIME;
    // Its answer fits into the pipe: it need not be read for the program to end.
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= until {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(LOOK);
    }
    let mut answer = Vec::new();
    child.stdout.take()?.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// The build tree that a command works on, if CMake has written it.
pub(super) fn tree(tool: Tool, words: &[OsString], cwd: &Path) -> Option<Tree> {
    let after = |flags: &[&str]| {
        let at = words.iter().position(|word| flags.iter().any(|flag| word == flag))?;
        words.get(at + 1).map(PathBuf::from)
    };
    let dir = match tool {
        Tool::CmakeBuild => after(&["--build"])?,
        Tool::Make | Tool::Ninja => after(&["-C", "--directory"]).unwrap_or_else(|| ".".into()),
        _ => return None,
    };
    let file = std::fs::File::open(cwd.join(&dir).join("CMakeCache.txt")).ok()?;
    let mut text = Vec::new();
    file.take(CACHE_BYTES_MAX).read_to_end(&mut text).ok()?;
    Some(Tree { dir, ..read_tree(&String::from_utf8_lossy(&text)) })
}

fn read_tree(cache: &str) -> Tree {
    let entry = |line: &str, name: &str| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?.split_once('=')?.1;
        (!value.is_empty()).then(|| value.to_owned())
    };
    let find = |name: &str| cache.lines().find_map(|line| entry(line, name));
    let either =
        |what: &str| ["C", "CXX"].iter().any(|language| find(&format!("CMAKE_{language}_COMPILER{what}")).is_some());
    Tree {
        dir: PathBuf::new(),
        program: find("CMAKE_MAKE_PROGRAM").map(PathBuf::from).unwrap_or_default(),
        has_launcher: either("_LAUNCHER"),
        compiles: either(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_tree_is_read_from_its_cache_file() {
        let text = "# c\nCMAKE_C_COMPILER:FILEPATH=/usr/bin/cc\nCMAKE_C_COMPILER_LAUNCHER:STRING=\n\
                    CMAKE_MAKE_PROGRAM:FILEPATH=/usr/bin/ninja\nCMAKE_C_COMPILER_AR:FILEPATH=/usr/bin/gcc-ar\n";
        let plain = Tree { dir: PathBuf::new(), program: "/usr/bin/ninja".into(), has_launcher: false, compiles: true };
        assert_eq!(read_tree(text), plain);
        let text = text.replace("LAUNCHER:STRING=", "LAUNCHER:UNINITIALIZED=/usr/bin/mesh-cc");
        assert_eq!(read_tree(&text), Tree { has_launcher: true, ..plain });
        assert_eq!(read_tree(""), Tree::default());
    }

    #[test]
    fn a_tool_that_does_not_answer_is_old() {
        assert_eq!(version(Path::new("/no/such/make")), None);
        let dir = tempfile::tempdir().expect("a directory");
        for (name, script, want) in [("mute", "exit 0", None), ("new", "echo GNU Make 4.4", Some(Version(4, 4)))] {
            let tool = dir.path().join(name);
            std::fs::write(&tool, format!("#!/bin/sh\n{script}\n")).expect("fresh");
            std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("own file");
            assert_eq!(version(&tool), want, "{name}");
        }
    }
}
