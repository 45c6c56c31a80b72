//! The ladder with a compiler of its own making: a script that counts its runs and prints a list.

use super::{Tree, bytes, plan, show};
use crate::compiler::invocation::Family;
use crate::compiler::plan::Plan;
use crate::inputs::ask::{self, Question, Rung};
use crate::inputs::{Closure, Graph, Want};
use crate::reason::Reason;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;
use std::time::Duration;

struct Bench {
    tree: Tree,
    graph: Mutex<Graph>,
    plan: Plan,
}

impl Bench {
    fn new(script: &str) -> Self {
        let tree = Tree::new(&[
            ("a.c", "#define H(x) <x.h>\n#include H(y)\n"),
            ("i/y.h", "#include \"z.h\"\n"),
            ("i/z.h", ""),
            ("bin/cc", &format!("#!/bin/sh\necho run >> \"$RUNS\"\n{script}\n")),
            ("runs/n", ""),
        ]);
        std::fs::set_permissions(tree.path("bin/cc"), std::fs::Permissions::from_mode(0o755)).unwrap();
        // What is read must be older than the question.
        std::thread::sleep(Duration::from_millis(60));
        Self { tree, graph: Mutex::new(Graph::new()), plan: plan("a.c", &["i"]) }
    }

    fn closure(&self) -> Result<(Closure, Rung), Reason> {
        let cwd = bytes(&self.tree.root);
        let runs = (b"RUNS".to_vec(), bytes(&self.tree.path("runs/n")));
        let env = [runs, (b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())];
        let requested_at = self.graph.lock().unwrap().arrivals().arrive();
        let want = Want {
            plan: &self.plan,
            cwd: &cwd,
            env: &env,
            system_dirs: &[],
            locale_dirs: &[],
            family: Family::Gcc,
            requested_at,
        };
        let program = bytes(&self.tree.path("bin/cc"));
        let argv: Vec<Vec<u8>> = ["cc", "-Ii", "-c", "a.c", "-o", "out.o"].map(|arg| arg.as_bytes().to_vec()).into();
        ask::closure(&self.graph, &want, &Question { program: &program, argv: &argv, cwd: &cwd, env: &env })
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.tree.path("runs/n")).unwrap().lines().count()
    }
}

const WANT: [&str; 4] = ["f a.c", "d i", "f i/y.h", "f i/z.h"];

#[test]
fn the_compiler_is_asked_once_and_its_list_kept_while_nothing_changes() {
    let bench = Bench::new("[ \"$*\" = '-Ii a.c -M' ] && echo 'a.o: a.c i/y.h'");
    let (closure, rung) = bench.closure().unwrap();
    assert_eq!((show(&closure, &bench.tree.root), rung), (WANT.map(str::to_owned).to_vec(), Rung::Asked));
    let (closure, rung) = bench.closure().unwrap();
    assert_eq!((show(&closure, &bench.tree.root), rung), (WANT.map(str::to_owned).to_vec(), Rung::Kept));
    assert_eq!(bench.runs(), 1);
    bench.tree.write("i/z.h", "int changed;\n");
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(bench.closure().unwrap().1, Rung::Asked);
    bench.tree.write("i/new.h", "");
    assert_eq!(bench.closure().unwrap().1, Rung::Asked);
    assert_eq!(bench.closure().unwrap().1, Rung::Kept);
    assert_eq!(bench.runs(), 3);
}

#[test]
fn what_is_found_is_followed_and_looked_for_in_every_directory() {
    let mut bench = Bench::new("echo 'a.o: a.c i/y.h'");
    bench.tree.write("j/y.h", "");
    bench.plan.search.user.push(b"j".to_vec());
    std::thread::sleep(Duration::from_millis(60));
    let (closure, _) = bench.closure().unwrap();
    assert_eq!(show(&closure, &bench.tree.root), ["f a.c", "d i", "f i/y.h", "f i/z.h", "d j", "f j/y.h"]);
}

#[test]
fn a_compiler_that_fails_or_babbles_leaves_the_unit_here() {
    for script in ["echo 'a.o: a.c'; exit 1", "echo nothing", "true"] {
        assert_eq!(Bench::new(script).closure().unwrap_err(), Reason::ComputedInclude, "{script}");
    }
}

#[test]
fn an_edit_while_the_compiler_is_asked_leaves_the_unit_here() {
    let bench = Bench::new("echo 'int edited;' >> i/z.h; echo 'a.o: a.c i/y.h'");
    assert_eq!(bench.closure().unwrap_err(), Reason::Changing);
}
