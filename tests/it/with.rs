//! `mesh with`: real build tools, a provider, and the same objects as without.

use crate::{
    desk::{Desk, desk},
    env::{MESH, Ran, has},
};
use std::{collections::BTreeMap, os::unix::process::ExitStatusExt, path::Path, process::Command};

/// Sources of a project.
const UNITS: usize = 12;

/// A program of several sources that share a header.
fn program(desk: &Desk) {
    desk.write("shared.h", "static inline int twice(int x) { return 2 * x; }\n");
    let (mut declared, mut called) = (String::new(), String::new());
    for n in 1..UNITS {
        desk.write(format!("u{n}.c"), format!("#include \"shared.h\"\nint f{n}(int x) {{ return twice(x) + {n}; }}\n"));
        declared += &format!("int f{n}(int);\n");
        called += &format!(" + f{n}({n})");
    }
    desk.write(
        "main.c",
        format!("#include <stdio.h>\n{declared}int main(void) {{ return printf(\"%d\\n\", 0{called}) < 0; }}\n"),
    );
}

/// A Makefile that names no compiler.
const MAKEFILE: &str = "prog: $(patsubst %.c,%.o,$(wildcard *.c))\n\t$(CC) -o $@ $^\n%.o: %.c shared.h\n\t$(CC) -O1 -c -o $@ $<\n\
    clean:\n\trm -f prog *.o\n";

/// A command in the project by itself.
fn plain(desk: &Desk, words: &[&str]) -> Command {
    let mut command = desk.ground.command(words[0]);
    command.args(&words[1..]).current_dir(&desk.project);
    command
}

/// The same under `mesh with`, its units forced away from this machine.
fn with(desk: &Desk, options: &[&str], words: &[&str]) -> Command {
    let mut command = desk.ground.command(MESH);
    command.arg("with").args(options).arg("--").args(words).current_dir(&desk.project);
    command.env("MESH", "force").env("MESH_DIR", &desk.client.home).env("MESH_SUMMARY", "1");
    command
}

/// Objects below a directory, by their paths.
fn objects(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in std::fs::read_dir(at).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "o") {
                found.insert(path.strip_prefix(dir).unwrap().display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn make_compiles_on_the_mesh_what_it_compiles_alone() {
    let Some(desk) = desk().filter(|_| has("make")) else { return };
    program(&desk);
    desk.write("Makefile", MAKEFILE);
    assert_eq!(Ran::of(&mut plain(&desk, &["make"])).code, Some(0));
    let alone = objects(&desk.project);
    assert_eq!((alone.len(), Ran::of(&mut plain(&desk, &["make", "clean"])).code), (UNITS, Some(0)));
    let served = desk.served();
    let ran = Ran::of(&mut with(&desk, &["--expect-remote", "100"], &["make"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(desk.served() - served, UNITS as u64, "{ran:?}");
    assert!(objects(&desk.project) == alone, "other objects than make's alone");
    let line = ran.err();
    assert!(line.starts_with("mesh: 12 compiles in ") && line.contains(", 100 % elsewhere"), "{line}");
    // The same once more has nothing to do, and says nothing of compiles.
    assert_eq!(Ran::of(&mut with(&desk, &[], &["make"])).err(), "");
}

#[test]
fn a_build_ends_as_its_command_does() {
    let Some(desk) = desk() else { return };
    let ends = |options: &[&str], words: &[&str]| with(&desk, options, words).output().unwrap();
    assert_eq!(ends(&[], &["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(ends(&[], &["sh", "-c", "kill -TERM $$"]).status.signal(), Some(15));
    assert_eq!(ends(&[], &["sh", "-c", "kill -KILL $$"]).status.signal(), Some(9));
    assert_eq!(ends(&[], &["no-such-tool"]).status.code(), Some(127));
    let missed = ends(&["--expect-remote", "80"], &["true"]);
    let said = String::from_utf8(missed.stderr).unwrap();
    assert_eq!(missed.status.code(), Some(5));
    assert!(said.starts_with("mesh: 0 % of 0 compiles ran elsewhere, and 80 % were expected."), "{said}");
}
