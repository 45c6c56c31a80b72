//! What this machine compiles itself is kept as well, made in its sandbox; and whatever is not plainly well is left to the
//! launcher's compiler.

use crate::{
    cache::{entries, keeping},
    desk::{Desk, Streams, Where, run, slow},
    env::{descends, has, processes, until},
};
use mesh::reason::Reason;
use std::{
    process::Stdio,
    time::{Duration, Instant},
};

/// How long samples of a compiler may take, on a busy machine.
const PROOF: Duration = Duration::from_secs(120);

/// A desk whose provider lends nothing, so that all stays here, and whose compiler is known to be whole.
fn alone(compiler: &str) -> Option<Desk> {
    let desk = keeping("")?;
    assert_eq!(desk.provider.mesh(&desk.ground, &["pause"]).code, Some(0));
    until("the client is told", || (desk.client.snapshot().peers[0].slots == 0).then_some(()));
    let began = Instant::now();
    for n in 0.. {
        desk.write(format!("warm{n}.c"), format!("int warm{n};\n"));
        run(desk.launcher(&desk.line(&format!("{compiler} -c warm{n}.c -o warm{n}.o"))), Streams::Apart).good();
        assert_eq!(desk.last().reason, Some(Reason::PeersPaused));
        std::thread::sleep(Duration::from_millis(300));
        if !entries(&desk.client).is_empty() {
            break;
        }
        assert!(began.elapsed() < PROOF, "nothing is kept");
    }
    Some(desk)
}

fn kept_twice(desk: &Desk, line: &str) {
    let (unit, count) = (desk.line(line), entries(&desk.client).len());
    desk.same(&unit, Where::Here(Reason::PeersPaused));
    until("the result is kept", || (entries(&desk.client).len() > count).then_some(()));
    desk.same(&unit, Where::Kept);
    assert_eq!(desk.last().made_by, "laptop");
}

#[test]
fn what_this_machine_has_compiled_it_does_not_compile_again() {
    let Some(desk) = alone("gcc") else { return };
    desk.write("a.h", "static int unused;\nint f(void);\n");
    desk.write("a.c", "#include \"a.h\"\n#include <stdio.h>\nint f(void) { return printf(__FILE__); }\n");
    // With a list of what it read, with one that leaves half of it out, and without.
    for (n, line) in ["-O2 -g -Wall -Wextra -MD", "-MMD", "-O1"].iter().enumerate() {
        kept_twice(&desk, &format!("gcc {line} -c a.c -o a{n}.o"));
    }
    // A header that is another one.
    desk.write("a.h", "static int unused = 1;\nint f(void);\n");
    kept_twice(&desk, "gcc -c a.c -o a2.o");
    // What fails says so in the compiler's own words, every time.
    desk.write("bad.c", "int f(void) { return nothing; }\n");
    let count = entries(&desk.client).len();
    for _ in 0..2 {
        let ran = desk.same(&desk.line("gcc -c bad.c -o bad.o"), Where::Here(Reason::PeersPaused));
        assert_eq!(ran.code, Some(1));
    }
    assert_eq!(entries(&desk.client).len(), count);
}

/// The other driver is proved by itself.
fn kept_gxx(desk: &Desk) {
    let (began, count) = (Instant::now(), entries(&desk.client).len());
    for n in 0.. {
        desk.write(format!("warm{n}.cc"), format!("int warm{n};\n"));
        run(desk.launcher(&desk.line(&format!("g++ -c warm{n}.cc -o warm{n}.o"))), Streams::Apart).good();
        std::thread::sleep(Duration::from_millis(300));
        if entries(&desk.client).len() > count {
            return;
        }
        assert!(began.elapsed() < PROOF, "nothing is kept");
    }
}

#[test]
fn clang_s_results_are_kept_where_they_are_made() {
    if !has("clang") {
        return;
    }
    let Some(desk) = alone("clang") else { return };
    desk.write("a.c", "#include <stdio.h>\nint f(int x) { return x == 1 || puts(__FILE__); }\n");
    kept_twice(&desk, "clang -O1 -g -MD -c a.c -o a.o");
}

#[test]
fn where_nothing_may_be_compiled_here_nothing_is() {
    let Some(desk) = alone("gcc") else { return };
    desk.write("a.c", "int a;\n");
    let count = entries(&desk.client).len();
    let ran = run(desk.launcher(&desk.line("gcc -c a.c -o a.o").env("MESH_FALLBACK", "0")), Streams::Apart);
    assert_eq!(ran.code, Some(111), "{}", ran.err());
    assert!(!desk.project.join("a.o").exists());
    assert_eq!(entries(&desk.client).len(), count);
}

#[test]
fn what_changes_meanwhile_and_whose_launcher_dies_is_not_kept() {
    let Some(desk) = alone("gcc") else { return };
    kept_gxx(&desk);
    let count = entries(&desk.client).len();
    let compiling = |name: &str| {
        let mark = format!("{name}.cc");
        processes(mark.as_bytes()).into_iter().any(|pid| descends(pid, desk.client.pid()))
    };
    // Edited in the middle: compiled once more, by the launcher's compiler.
    let unit = slow(&desk, "edited");
    let child = desk.launcher(&unit).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it is being compiled", || compiling("edited").then_some(()));
    desk.write("slow.h", "#define HEADER 2\n");
    assert!(child.wait_with_output().unwrap().status.success());
    let made = desk.read("edited.o");
    run(desk.bare(&unit), Streams::Apart).good();
    assert_eq!(desk.read("edited.o"), made);
    // Killed in the middle: nothing goes on.
    let mut child = desk.launcher(&slow(&desk, "killed")).spawn().unwrap();
    until("it is being compiled", || compiling("killed").then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    until("nothing runs any more", || (!compiling("killed")).then_some(()));
    assert!(!desk.project.join("killed.o").exists());
    assert_eq!(entries(&desk.client).len(), count);
}
