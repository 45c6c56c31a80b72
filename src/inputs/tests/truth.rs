//! What real compilers say that they read is in the closure.

use super::{Tree, bytes, closure_as, plan};
use crate::compiler::invocation::Family;
use crate::inputs::Graph;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The search directories that a compiler has by itself; `None` if it is not installed.
pub(super) fn system_dirs(compiler: &str, language: &str) -> Option<Vec<Vec<u8>>> {
    let out =
        Command::new(compiler).args(["-E", "-v", "-x", language, "/dev/null"]).env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8(out.stderr).unwrap();
    let (_, list) = text.split_once("#include <...> search starts here:\n").unwrap();
    let (list, _) = list.split_once("End of search list").unwrap();
    Some(list.lines().map(|line| line.trim().as_bytes().to_vec()).collect())
}

/// What `-M` lists, by real path.
fn listed(compiler: &str, cwd: &Path, args: &[&str]) -> BTreeSet<Vec<u8>> {
    let out = Command::new(compiler).current_dir(cwd).arg("-M").args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap().replace("\\\n", " ");
    let (_, list) = text.split_once(':').unwrap();
    list.split_whitespace().map(|path| bytes(&cwd.join(path).canonicalize().unwrap())).collect()
}

fn check_compilers(tree: &Tree, source: &str, user: &[&str]) {
    let is_cxx = source.ends_with(".cc");
    let (language, compilers) = if is_cxx { ("c++", ["g++", "clang++"]) } else { ("c", ["gcc", "clang"]) };
    for (compiler, family) in compilers.into_iter().zip([Family::Gcc, Family::Clang]) {
        let Some(dirs) = system_dirs(compiler, language) else {
            eprintln!("skipped: no {compiler} here");
            continue;
        };
        let closure = closure_as(&mut Graph::new(), &tree.root, &plan(source, user), &dirs, family).unwrap();
        let have: BTreeSet<_> = closure.entries.iter().map(|named| named.entry.path.as_bytes().to_vec()).collect();
        let includes: Vec<String> = user.iter().map(|dir| format!("-I{dir}")).collect();
        let args: Vec<&str> = includes.iter().map(String::as_str).chain([source]).collect();
        let read = listed(compiler, &tree.root, &args);
        let missed: Vec<_> = read.difference(&have).map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        assert!(missed.is_empty(), "{compiler} {source} missed {missed:?}");
        assert!(have.len() < read.len() * 8 + 200, "{compiler} {source}: {} for {}", have.len(), read.len());
    }
}

#[test]
fn what_compilers_list_is_in_the_closure() {
    let includes = |names: &[&str]| names.iter().map(|name| format!("#include {name}\n")).collect::<String>();
    let cxx = ["<vector>", "<iostream>", "<algorithm>", "<filesystem>", "<thread>", "<regex>", "\"x.h\""];
    let c = ["<stdio.h>", "<stdlib.h>", "<limits.h>", "<stdint.h>", "<math.h>", "<pthread.h>", "<signal.h>"];
    let system = ["<sys/socket.h>", "<sys/stat.h>", "<netinet/in.h>", "<errno.h>", "<emmintrin.h>"];
    let absent =
        "#if __has_include(<windows-absent.h>)\n#include <windows-absent.h>\n#else\n#include <memory>\n#endif\n";
    let tree = Tree::new(&[
        ("a.cc", &includes(&cxx)),
        ("b.c", &includes(&c)),
        ("c.cc", &[absent, &includes(&["<stdlib.h>", "<math.h>"])].concat()),
        ("d.c", &includes(&system)),
        ("i/x.h", &["#pragma once\n", &includes(&["<cstdlib>", "<bits/stdc++.h>"])].concat()),
        ("memory/y.h", ""),
    ]);
    check_compilers(&tree, "a.cc", &[".", "i"]);
    check_compilers(&tree, "b.c", &[]);
    check_compilers(&tree, "c.cc", &["."]);
    check_compilers(&tree, "d.c", &["i", "absent"]);
}
