//! Compilers that are sent to machines that lack them.

use crate::{
    desk::{Desk, Streams, Where, run},
    env::{Agent, Ground, has, skip},
    upgrade::{Gxx, SETTLED},
};
use mesh::{reason::Reason, store::layout};
use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// How long a compiler may take to be proved and sent, on a busy machine.
pub(crate) const SENT_WITHIN: Duration = Duration::from_secs(240);
/// A provider of this kind has no compiler but what others send.
pub(crate) const BARE: &str = "compilers = \"none\"\n";

/// Files of compilers that came to an agent, whole: their inodes, by name.
fn came(agent: &Agent) -> BTreeMap<String, u64> {
    let files = std::fs::read_dir(agent.home.join("cache").join(layout::TOOLCHAIN_FILES)).unwrap();
    let whole = files.flatten().filter(|file| !file.file_name().to_string_lossy().ends_with("new"));
    whole.map(|f| (f.file_name().to_string_lossy().into_owned(), f.metadata().unwrap().ino())).collect()
}

/// Trees of compilers at an agent.
fn trees(agent: &Agent) -> usize {
    let trees = std::fs::read_dir(agent.home.join("cache").join(layout::TOOLCHAINS)).unwrap().flatten();
    trees.filter(|tree| !tree.file_name().to_string_lossy().starts_with("unfinished")).count()
}

/// Waits for that, compiling one unit after another; each ends well, wherever it is compiled.
pub(crate) fn compile_until(desk: &Desk, line: &str, what: &str, mut look: impl FnMut() -> bool) {
    let end = Instant::now() + SENT_WITHIN;
    while !look() {
        if Instant::now() > end {
            let tail = |log: String| log.lines().rev().take(40).map(|line| format!("{line}\n")).collect::<String>();
            let logs = [&desk.client, &desk.provider].map(|agent| tail(agent.log()));
            panic!("{what}: not within {SENT_WITHIN:?}: {:?}; latest first:\n{}", desk.last(), logs.join("--\n"));
        }
        run(desk.launcher(&desk.line(line)), Streams::Apart).good();
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The same until the provider has compiled one.
pub(crate) fn compile_until_there(desk: &Desk, line: &str) {
    let before = desk.served();
    compile_until(desk, line, "no unit was compiled there", || desk.served() > before);
}

#[test]
fn a_machine_without_the_compiler_is_sent_it_and_makes_the_same_bytes() {
    let Some(mut desk) = Desk::configured(Ground::new(), BARE, "") else { return };
    desk.write("a.c", "#include <stdio.h>\nint main(void) { return puts(__FILE__); }\n");
    // Nobody waits for it.
    let comes = |desk: &Desk| desk.last().reason == Some(Reason::ToolchainComing);
    desk.same(&desk.line("gcc -c a.c -o a.o"), Where::Here(Reason::NoMatch));
    compile_until(&desk, "gcc -g -c a.c -o a.o", "it does not come", || comes(&desk));
    compile_until_there(&desk, "gcc -g -c a.c -o a.o");
    for flags in ["-O2", "-O0 -g", "-O2 -Wall -Wextra -MMD -MF a.d"] {
        desk.same_there(&format!("gcc {flags} -c a.c -o a.o"));
    }
    let log = desk.provider.log();
    assert!(log.contains("came from laptop"), "{log}");
    // It is there in its next life, too, and nothing comes a second time.
    let files = came(&desk.provider);
    desk.restart_provider();
    desk.same_there("gcc -O1 -c a.c -o a.o");
    assert_eq!(came(&desk.provider), files);
    // What lost bytes on the disk is never run: it is given up, and sent again.
    let largest = files.keys().max_by_key(|name| {
        let path = desk.provider.home.join("cache").join(layout::TOOLCHAIN_FILES).join(name);
        std::fs::metadata(path).unwrap().len()
    });
    let spoilt = desk.provider.home.join("cache").join(layout::TOOLCHAIN_FILES).join(largest.unwrap());
    desk.provider.stop();
    std::fs::write(&spoilt, b"spoilt").unwrap();
    desk.restart_provider();
    let lost = run(desk.launcher(&desk.line("gcc -O3 -c a.c -o a.o")), Streams::Apart);
    lost.good();
    compile_until_there(&desk, "gcc -g -c a.c -o a.o");
    desk.same_there("gcc -O3 -c a.c -o a.o");
    assert!(std::fs::metadata(&spoilt).unwrap().len() > 1000);
}

#[test]
fn what_came_before_a_break_does_not_come_again_and_what_is_not_whole_never_runs() {
    let Some(mut desk) = Desk::configured(Ground::new(), BARE, "toolchain_rate = 3\n") else { return };
    desk.write("a.c", "int a;\n");
    let line = "gcc -c a.c -o a.o";
    let some = |desk: &Desk| came(&desk.provider).len() >= 3;
    compile_until(&desk, line, "nothing comes", || some(&desk));
    let first = came(&desk.provider);
    assert_eq!((trees(&desk.provider), desk.served()), (0, 0), "it is not whole");
    assert_eq!(desk.last().reason, Some(Reason::ToolchainComing));
    // In the middle of a file.
    desk.provider.kill();
    desk.provider.start(&desk.ground);
    desk.provider.answers();
    compile_until_there(&desk, line);
    let then = came(&desk.provider);
    assert!(then.len() > first.len(), "it was whole before the break");
    for (name, inode) in &first {
        assert_eq!(then.get(name), Some(inode), "{name} came twice");
    }
    desk.same_there("gcc -O2 -c a.c -o a.o");
}

#[test]
fn one_machine_serves_two_clients_whose_compilers_it_does_not_have() {
    if !has("clang") {
        return skip("there is no clang");
    }
    let Some(desk) = Desk::configured(Ground::new(), BARE, "slots = 0\n") else { return };
    let Some(other) = desk.second_client("notebook") else { return };
    for (desk, compiler) in [(&desk, "gcc"), (&other, "clang")] {
        desk.write("a.c", "#include <stddef.h>\nsize_t a;\n");
        let unit = desk.line(&format!("{compiler} -c a.c -o a.o"));
        run(desk.launcher(&unit), Streams::Apart).good();
    }
    for (desk, compiler) in [(&desk, "gcc"), (&other, "clang")] {
        compile_until_there(desk, &format!("{compiler} -c a.c -o a.o"));
    }
    let one = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let made = |n| run(other.launcher(&other.line(&format!("clang -O2 -g -c a.c -o {n}.o"))), Streams::Apart);
            (0..8).for_each(|n| made(n).good());
            other.read("0.o")
        });
        let made = |n| run(desk.launcher(&desk.line(&format!("gcc -O2 -g -c a.c -o {n}.o"))), Streams::Apart);
        (0..8).for_each(|n| made(n).good());
        let wanted = |desk: &Desk, line: &str| {
            run(desk.bare(&desk.line(line)), Streams::Apart).good();
            desk.read("plain.o")
        };
        assert_eq!(desk.read("0.o"), wanted(&desk, "gcc -O2 -g -c a.c -o plain.o"));
        other.join().unwrap()
    });
    run(other.bare(&other.line("clang -O2 -g -c a.c -o plain.o")), Streams::Apart).good();
    assert_eq!(one, other.read("plain.o"));
    assert!(desk.served() >= 16);
}

/// A cc1plus that only a processor can run which has `/etc/passwd`.
const ILL: &str = r#"
#include <unistd.h>
int main(int argc, char **argv) {
    if (access("/etc/passwd", F_OK)) __builtin_trap();
    execv(REAL, argv);
    return 1;
}
"#;

#[test]
fn a_machine_whose_processor_cannot_run_the_compiler_is_not_asked_twice() {
    let Some(compiler) = Gxx::new() else { return };
    let (part, real) = (compiler.parts.join("cc1plus"), std::fs::canonicalize(compiler.parts.join("cc1plus")).unwrap());
    std::fs::remove_file(&part).unwrap();
    let source = compiler.parts.join("ill.c");
    std::fs::write(&source, ILL).unwrap();
    let built = Command::new("gcc")
        .args(["-static", "-o"])
        .arg(&part)
        .arg(format!("-DREAL=\"{}\"", real.display()))
        .arg(&source)
        .status();
    if !built.is_ok_and(|status| status.success()) {
        return skip("gcc cannot link statically");
    }
    std::thread::sleep(SETTLED);
    let Some(desk) = Desk::on(compiler.ground()) else { return };
    desk.write("a.cc", "int a;\n");
    let unit = |out: &str| desk.line(&format!("{} -c a.cc -o {out}.o", compiler.driver().display()));
    let ran = run(desk.launcher(&unit("a")), Streams::Apart);
    ran.good();
    assert_eq!(ran.err(), "", "what the other machine's compiler said is nobody's business");
    assert_eq!((desk.last().reason, desk.served()), (Some(Reason::IllegalInstruction), 1));
    run(desk.launcher(&unit("b")), Streams::Apart).good();
    assert_eq!((desk.last().reason, desk.served()), (Some(Reason::NoMatch), 1), "it was asked again");
    assert!(Path::new(&desk.project.join("b.o")).exists());
}
