//! Real compilers in a root of their job's own, and in a mirror, give the bytes that they give at home.

use crate::world::{World, abs, closure, environment, job, toolchain};
use mesh::sandbox::policy::Without;
use mesh::worker::run::{Form, Ran};
use mesh_proto::digest::Digest;
use mesh_proto::job::{Exit, Terminal};
use mesh_proto::path::AbsPath;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const C: &str = r#"#include <stdio.h>
#include <assert.h>
#include "part.h"
int main(void) { assert(PART); printf("%s %s %d\n", __FILE__, __BASE_FILE__, PART); return 0; }
"#;
const CPP: &str = r#"#include <vector>
#include <string>
#include <map>
#include "part.h"
std::map<std::string, std::vector<int>> f() { return {{__FILE__, {PART, __LINE__}}}; }
"#;

pub(crate) fn sources(dir: &Path) {
    std::fs::write(dir.join("unit.c"), C).unwrap();
    std::fs::write(dir.join("unit.cpp"), CPP).unwrap();
    std::fs::write(dir.join("part.h"), "#pragma once\n#define PART 7\n").unwrap();
}

pub(crate) fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// Compiles at home and in a root, and compares all that either gave.
pub(crate) fn check(world: &World, line: &str, cwd: &Path, made: &[&str]) {
    let argv = words(line);
    let Some(toolchain) = toolchain(line.split(' ').next().unwrap()) else { return };
    // With all that lies there, outputs of an earlier run too: what a compiler does not list it may still look at.
    let mut there = Vec::new();
    everything(cwd, &mut there);
    let entries = closure(&argv, cwd, &there.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    world.stock(&entries);
    let environment = environment(cwd);
    let home = Command::new(&argv[0]).args(&argv[1..]).current_dir(cwd).env_clear().envs(environment).output().unwrap();
    let expected: Vec<Vec<u8>> = made.iter().map(|name| std::fs::read(cwd.join(name)).unwrap()).collect();
    for name in made {
        std::fs::remove_file(cwd.join(name)).unwrap();
    }
    let dirs: Vec<PathBuf> = made.iter().map(|name| cwd.join(name).parent().unwrap().to_owned()).collect();
    let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).chain([cwd]).collect();
    let job = job(&toolchain, &argv, cwd, &dirs);
    for form in [Form::Strict, Form::Mirror, Form::Mirror] {
        let ran = world.run_for(&world.client, form, &job, &entries, &toolchain).unwrap();
        // Where the compiler cannot be made to say what it read, there is only one form.
        let form = if line.contains("-MMD") || world.is_without_overlay { Form::Strict } else { form };
        assert_eq!(ran.form, form, "{line}");
        compare(line, ran, &home, cwd, made, &expected);
    }
    for (name, bytes) in made.iter().zip(expected) {
        std::fs::write(cwd.join(name), bytes).unwrap();
    }
}

/// Compares what a job gave with what was given and made at home.
fn compare(line: &str, ran: Ran, home: &Output, cwd: &Path, made: &[&str], expected: &[Vec<u8>]) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    for text in &ran.outcome.text {
        if text.is_stderr { &mut err } else { &mut out }.extend_from_slice(&text.bytes);
    }
    assert_eq!(String::from_utf8_lossy(&err), String::from_utf8_lossy(&home.stderr), "{line}");
    assert_eq!(out, home.stdout, "{line}");
    assert_eq!(ran.outcome.exit, Exit::Code(u8::try_from(home.status.code().unwrap()).unwrap()), "{line}");
    let real = |name: &&str| abs(&cwd.join(name).parent().unwrap().canonicalize().unwrap()).join(base(name)).unwrap();
    let wanted: BTreeMap<AbsPath, &Vec<u8>> = made.iter().map(real).zip(expected).collect();
    assert!(
        ran.outcome.outputs.iter().map(|output| &output.path).eq(wanted.keys()),
        "{line}: {:?}",
        ran.outcome.outputs
    );
    for (output, mut file) in ran.outcome.outputs.iter().zip(ran.files) {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        assert!(bytes == *wanted[&output.path], "{line}: {:?} differs", output.path);
        assert_eq!(Digest::of(&bytes), output.digest);
    }
}

fn everything(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            everything(&path, files);
        }
        files.push(path);
    }
}

fn base(name: &str) -> &[u8] {
    name.rsplit('/').next().unwrap().as_bytes()
}

#[test]
fn c_and_cpp_by_gcc_and_clang_are_the_same_bytes() {
    let Some(world) = World::new() else { return };
    let cwd = world.dir.path().join("w");
    std::fs::create_dir(&cwd).unwrap();
    sources(&cwd);
    for (cc, cxx) in [("gcc", "g++"), ("clang", "clang++")] {
        check(&world, &format!("{cc} -O2 -g -Wall -MD -c unit.c -o unit.o"), &cwd, &["unit.o", "unit.d"]);
        // The outputs of the first build lie there now.
        check(&world, &format!("{cc} -O2 -g -Wall -MD -c unit.c -o unit.o"), &cwd, &["unit.o", "unit.d"]);
        check(&world, &format!("{cxx} -O0 -g -MMD -MF deps -c unit.cpp -o unit.o"), &cwd, &["unit.o", "deps"]);
    }
}

#[test]
fn without_an_overlay_the_bytes_are_the_same() {
    let Some(world) = World::new() else { return };
    let world = world.without(Without { overlay: true, ..Without::default() });
    let cwd = world.dir.path().join("w");
    std::fs::create_dir(&cwd).unwrap();
    sources(&cwd);
    check(&world, "gcc -O2 -g -MD -c unit.c -o unit.o", &cwd, &["unit.o", "unit.d"]);
    check(&world, "clang++ -g -c unit.cpp", &cwd, &["unit.o"]);
}

#[test]
fn odd_working_directories_are_the_same_bytes() {
    let Some(world) = World::new() else { return };
    let odd = world.dir.path().join(OsStr::from_bytes(b"a dir \xff with $odd 'bytes'"));
    std::fs::create_dir(&odd).unwrap();
    sources(&odd);
    let link = world.dir.path().join("link");
    std::os::unix::fs::symlink(odd.file_name().unwrap(), &link).unwrap();
    for cwd in [odd, link] {
        check(&world, "gcc -g -MD -c unit.c -o unit.o", &cwd, &["unit.o", "unit.d"]);
        check(&world, "clang -g -MD -c unit.c -o unit.o", &cwd, &["unit.o", "unit.d"]);
    }
}

#[test]
fn outputs_in_other_directories_come_back_by_their_real_paths() {
    let Some(world) = World::new() else { return };
    let (cwd, build) = (world.dir.path().join("w/src"), world.dir.path().join("w/build"));
    std::fs::create_dir_all(&cwd).unwrap();
    std::fs::create_dir_all(build.join("sub")).unwrap();
    std::os::unix::fs::symlink("../build", cwd.join("link")).unwrap();
    sources(&cwd);
    std::fs::write(build.join("generated.h"), "#define GENERATED 1\n").unwrap();
    let line = "gcc -g -Ilink -include generated.h -MD -MF link/sub/unit.d -c unit.c -o ../build/unit.o";
    check(&world, line, &cwd, &["../build/unit.o", "../build/sub/unit.d"]);
}

/// gcc tells files apart by time, size and content, clang by inode.
#[test]
fn files_are_told_apart_as_at_home() {
    let Some(world) = World::new() else { return };
    let cwd = world.dir.path().join("w");
    std::fs::create_dir_all(cwd.join("a")).unwrap();
    std::fs::create_dir_all(cwd.join("b")).unwrap();
    let header =
        "#pragma once\n#define PASTE2(a, b) a##b\n#define PASTE(a, b) PASTE2(a, b)\nint PASTE(seen, __COUNTER__);\n";
    std::fs::write(cwd.join("unit.c"), "#include \"a/h.h\"\n#include \"b/h.h\"\nconst char *when = __TIMESTAMP__;\n")
        .unwrap();
    let at = |seconds, nanos| std::time::UNIX_EPOCH + std::time::Duration::new(seconds, nanos);
    let mut seen = Vec::new();
    // One inode; two inodes of the same time; two inodes whose times differ by a nanosecond and by a second.
    for other in [None, Some(at(1_600_000_000, 5)), Some(at(1_600_000_000, 6)), Some(at(1_600_000_001, 5))] {
        std::fs::write(cwd.join("a/h.h"), header).unwrap();
        std::fs::File::open(cwd.join("a/h.h")).unwrap().set_modified(at(1_600_000_000, 5)).unwrap();
        let _ = std::fs::remove_file(cwd.join("b/h.h"));
        match other {
            None => std::fs::hard_link(cwd.join("a/h.h"), cwd.join("b/h.h")).unwrap(),
            Some(time) => {
                std::fs::write(cwd.join("b/h.h"), header).unwrap();
                std::fs::File::open(cwd.join("b/h.h")).unwrap().set_modified(time).unwrap();
            }
        }
        for compiler in ["gcc", "clang"] {
            check(&world, &format!("{compiler} -c unit.c -o unit.o"), &cwd, &["unit.o"]);
            let object = std::fs::read(cwd.join("unit.o")).unwrap();
            seen.push(object.windows(5).any(|name| name == b"seen1"));
        }
    }
    // gcc sees the second one only if the second of its time differs; clang if the inode does.
    assert_eq!(seen, [false, false, false, true, false, true, true, true]);
}

#[test]
fn an_error_has_the_same_words_and_status_and_makes_nothing() {
    let Some(world) = World::new() else { return };
    let cwd = world.dir.path().join("w");
    std::fs::create_dir(&cwd).unwrap();
    std::fs::write(cwd.join("unit.c"), "int main(void) { return unknown; }\n").unwrap();
    for compiler in ["gcc", "clang"] {
        check(&world, &format!("{compiler} -Wall -c unit.c -o unit.o"), &cwd, &[]);
    }
}

#[test]
fn on_a_terminal_diagnostics_are_coloured_as_at_home() {
    let Some(world) = World::new() else { return };
    let cwd = world.dir.path().join("w");
    std::fs::create_dir(&cwd).unwrap();
    std::fs::write(cwd.join("unit.c"), "int f(void) { int unused; }\n").unwrap();
    let Some(toolchain) = toolchain("gcc") else { return };
    let argv = words("gcc -Wall -c unit.c -o unit.o");
    let entries = closure(&argv, &cwd, &[]);
    world.stock(&entries);
    let mut home = Command::new("gcc");
    home.args(&argv[1..]).arg("-fdiagnostics-color=always").current_dir(&cwd).env("LC_ALL", "C");
    let home = home.output().unwrap().stderr;
    let mut job = job(&toolchain, &argv, &cwd, &[&cwd]);
    job.env.push((b"TERM".to_vec(), b"xterm".to_vec()));
    job.terminal = Some(Terminal { columns: 80, rows: 24 });
    for form in [Form::Strict, Form::Mirror] {
        let ran = world.run_for(&world.client, form, &job, &entries, &toolchain).unwrap();
        assert_eq!(ran.form, form);
        let text: Vec<u8> = ran.outcome.text.iter().flat_map(|text| text.bytes.clone()).collect();
        assert!(text.contains(&0x1b) && ran.outcome.text.iter().all(|text| text.is_stderr));
        assert_eq!(String::from_utf8_lossy(&text), String::from_utf8_lossy(&home));
    }
}
