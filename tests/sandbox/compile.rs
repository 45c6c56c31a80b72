//! Real compilers in the strict root give the bytes that they give at home.

use crate::world::{World, closure, environment, job, toolchain};
use mesh::sandbox::policy::Without;
use mesh_proto::job::Exit;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

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

fn sources(dir: &Path) {
    std::fs::write(dir.join("unit.c"), C).unwrap();
    std::fs::write(dir.join("unit.cpp"), CPP).unwrap();
    std::fs::write(dir.join("part.h"), "#pragma once\n#define PART 7\n").unwrap();
}

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// Compiles at home and in a root, and compares all that either gave.
fn check(world: &World, line: &str, cwd: &Path, made: &[&str]) {
    let argv = words(line);
    let Some(toolchain) = toolchain(line.split(' ').next().unwrap()) else { return };
    let entries = closure(&argv, cwd, &[]);
    world.stock(&entries);
    let environment = environment(cwd);
    let home = Command::new(&argv[0]).args(&argv[1..]).current_dir(cwd).env_clear().envs(environment).output().unwrap();
    let expected: Vec<Vec<u8>> = made.iter().map(|name| std::fs::read(cwd.join(name)).unwrap()).collect();
    for name in made {
        std::fs::remove_file(cwd.join(name)).unwrap();
    }
    let ran = world.run(&job(&toolchain, &argv, cwd, &[cwd]), &entries, &toolchain).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    for text in &ran.outcome.text {
        if text.is_stderr { &mut err } else { &mut out }.extend_from_slice(&text.bytes);
    }
    assert_eq!(String::from_utf8_lossy(&err), String::from_utf8_lossy(&home.stderr), "{line}");
    assert_eq!(out, home.stdout, "{line}");
    assert_eq!(ran.outcome.exit, Exit::Code(u8::try_from(home.status.code().unwrap()).unwrap()), "{line}");
    let names: Vec<&[u8]> = ran.outcome.outputs.iter().map(|output| output.path.name()).collect();
    let mut wanted: Vec<&[u8]> = made.iter().map(|name| name.as_bytes()).collect();
    wanted.sort_unstable();
    assert_eq!(names, wanted, "{line}");
    for (output, mut file) in ran.outcome.outputs.iter().zip(ran.files) {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        let at = made.iter().position(|name| name.as_bytes() == output.path.name()).unwrap();
        assert!(bytes == expected[at], "{line}: {:?} differs", output.path);
        assert_eq!(mesh_proto::digest::Digest::of(&bytes), output.digest);
    }
}

#[test]
fn c_and_cpp_by_gcc_and_clang_are_the_same_bytes() {
    let Some(world) = World::new() else { return };
    let cwd = world.dir.path().join("w");
    std::fs::create_dir(&cwd).unwrap();
    sources(&cwd);
    for (cc, cxx) in [("gcc", "g++"), ("clang", "clang++")] {
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
