//! Trees of files in temporary directories, plans over them, and what a closure must hold.

#[cfg(target_os = "linux")]
mod cost;
#[cfg(target_os = "linux")]
mod disk;
mod fake;
mod fresh;
mod ladder;
mod memory;
mod told;
mod traps;
mod truth;
mod vouched;

use super::{Closure, Graph, Undecidable, Want};
use crate::compiler::invocation::Family;
use crate::compiler::plan::{Deps, Language, Plan, Search};
use mesh_proto::closure::Node;
use std::path::{Path, PathBuf};

/// A temporary directory by its real path, with files in it.
pub(super) struct Tree {
    _dir: tempfile::TempDir,
    pub(super) root: PathBuf,
}

impl Tree {
    /// Files by relative path and text.
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let tree = Self { _dir: dir, root };
        for (path, text) in files {
            tree.write(path, text);
        }
        tree
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(super) fn mkdir(&self, path: &str) {
        std::fs::create_dir_all(self.path(path)).unwrap();
    }

    pub(super) fn link(&self, target: &str, path: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }
}

pub(super) fn bytes(path: &Path) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec()
}

/// A plan for `source` with `-I` directories.
pub(super) fn plan(source: &str, user: &[&str]) -> Plan {
    let is_cxx = [".cc", ".cpp"].iter().any(|end| source.ends_with(end));
    Plan {
        language: if is_cxx { Language::Cxx } else { Language::C },
        source: source.into(),
        output: b"out.o".to_vec(),
        side_outputs: Vec::new(),
        deps: Deps::None,
        search: Search { user: user.iter().map(|dir| dir.as_bytes().to_vec()).collect(), ..Search::default() },
        forced_includes: Vec::new(),
        defines: Vec::new(),
        extra_inputs: Vec::new(),
        suspects: Vec::new(),
        native: Vec::new(),
        epoch_fixed: false,
    }
}

/// The closure of a plan in a directory, with no system directories, asked for now.
pub(super) fn closure(graph: &mut Graph, cwd: &Path, plan: &Plan) -> Result<Closure, Undecidable> {
    closure_as(graph, cwd, plan, &[], Family::Gcc)
}

pub(super) fn closure_as(
    graph: &mut Graph,
    cwd: &Path,
    plan: &Plan,
    system_dirs: &[Vec<u8>],
    family: Family,
) -> Result<Closure, Undecidable> {
    let requested_at = graph.arrivals().arrive();
    let cwd = bytes(cwd);
    graph.closure(&Want { plan, cwd: &cwd, env: &[], system_dirs, locale_dirs: &[], family, requested_at })
}

/// A closure as text relative to `root`: `f name`, `d name`, `l name`, those outside left out.
pub(super) fn show(closure: &Closure, root: &Path) -> Vec<String> {
    let prefix = [bytes(root), b"/".to_vec()].concat();
    let mut shown = Vec::new();
    for named in closure.entries.iter() {
        let Some(rest) = named.entry.path.as_bytes().strip_prefix(&prefix[..]) else { continue };
        let letter = match named.entry.node {
            Node::File(_) => 'f',
            Node::Symlink { .. } => 'l',
            Node::Directory => 'd',
        };
        shown.push(format!("{letter} {}", String::from_utf8_lossy(rest)));
    }
    shown
}

/// Asserts on the closure of a tree's `a.c` (or `a.cc`), compiled in the tree's root.
#[track_caller]
pub(super) fn check(tree: &Tree, plan: &Plan, want: &[&str]) {
    let closure = closure(&mut Graph::new(), &tree.root, plan).unwrap();
    assert_eq!(show(&closure, &tree.root), want);
}

#[track_caller]
pub(super) fn check_refused(tree: &Tree, plan: &Plan, want: Undecidable) {
    assert_eq!(closure(&mut Graph::new(), &tree.root, plan).unwrap_err(), want);
}

#[test]
fn a_closure_comes_by_path_each_entry_with_the_key_that_it_has_alone() {
    let mut bench = fake::Bench::new();
    bench.fake.put("/w/a.c", "#include \"z.h\"\n#include \"b.h\"");
    bench.fake.put("/w/z.h", "");
    bench.fake.put("/w/b.h", "");
    let tick = bench.arrivals.arrive();
    let closure = bench.closure_at(tick).unwrap();
    let keyed: Vec<_> = closure.keyed().collect();
    assert!(keyed.len() >= 3 && keyed.windows(2).all(|pair| pair[0].0.path < pair[1].0.path));
    assert!(keyed.iter().all(|(entry, key)| *key == mesh_proto::key::EntryKey::of(entry)));
}
