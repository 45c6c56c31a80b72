//! `mesh with`: real builds by real tools, compiled by the provider, with as many jobs as there is room for.

use crate::{
    desk::{Desk, assert_same_files, desk},
    env::{Ground, MESH, Ran, descends, has, processes, until},
};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::{
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The caches of ccache's: a build under mesh must find nothing in its own of what the plain one has left.
const CCACHE_PLAIN: &str = "ccache-plain";
const CCACHE_WITH: &str = "ccache-with";
/// Sources of a project.
const SOURCES: usize = 5;

/// A small project of C.
fn project(desk: &Desk) {
    desk.write("common.h", "#define COMMON 1\nint main(void);\n");
    for at in 0..SOURCES {
        let text = format!("#include \"common.h\"\nint f{at}(int x) {{ return x + COMMON + {at}; }}\n");
        desk.write(format!("f{at}.c"), text);
    }
    desk.write("main.c", "#include \"common.h\"\nint main(void) { return 0; }\n");
}

/// The plain command, and the same under `mesh with`, away from this machine if that can be.
fn plain(desk: &Desk, words: &[&str]) -> Command {
    let mut command = desk.ground.command(words[0]);
    command.args(&words[1..]).current_dir(&desk.project).env("PWD", &desk.project);
    command.env("CCACHE_DIR", desk.ground.dir.join(CCACHE_PLAIN));
    command
}

fn with(desk: &Desk, options: &[&str], words: &[&str]) -> Command {
    let mut command = desk.ground.command(MESH);
    command.arg("with").args(options).arg("--").args(words);
    command.current_dir(&desk.project).env("PWD", &desk.project);
    command.env("MESH_DIR", &desk.client.home).env("MESH", "force");
    command.env("CCACHE_DIR", desk.ground.dir.join(CCACHE_WITH));
    command
}

#[track_caller]
fn good(mut command: Command) -> Ran {
    let ran = Ran::of(&mut command);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out(), ran.err());
    ran
}

/// What a build made: files of these kinds.
fn objects(desk: &Desk) -> crate::desk::Files {
    let kept = |path: &Path| path.extension().is_some_and(|kind| kind == "o" || kind == "d");
    desk.files().into_iter().filter(|(path, _)| kept(path)).collect()
}

/// Builds plainly and under mesh in the same place; all units are the provider's, and the objects are the same.
#[track_caller]
fn same_build(desk: &Desk, builds: &[&[&str]], shown: &str) {
    let before = desk.files();
    for words in builds {
        good(plain(desk, words));
    }
    let made = objects(desk);
    assert!(made.len() > SOURCES, "{shown}: {made:?}");
    wipe(desk);
    desk.restore(&before);
    // Meson puts ccache in front by itself: what is in a cache is compiled nowhere.
    let _ = std::fs::remove_dir_all(desk.ground.dir.join(CCACHE_WITH));
    let served = desk.served();
    for words in builds {
        good(with(desk, &[], words));
    }
    assert_same_files(&made, &objects(desk), shown);
    let wanted = served + SOURCES as u64 + 1;
    until(&format!("{shown}: all units were served"), || (desk.served() == wanted).then_some(()));
}

/// Removes what build systems leave.
fn wipe(desk: &Desk) {
    let _ = std::fs::remove_dir_all(desk.project.join("out"));
}

#[test]
fn a_plain_makefile_is_compiled_elsewhere_into_the_same_objects() {
    if !has("make") {
        return;
    }
    let Some(desk) = desk() else { return };
    project(&desk);
    desk.write("Makefile", "CFLAGS = -g -O1\nprogram: $(patsubst %.c,%.o,$(wildcard *.c))\n\t$(CC) -o $@ $^\n");
    same_build(&desk, &[&["make"]], "make");
}

#[test]
fn cmake_is_given_a_launcher_and_its_cache_file_names_the_real_compiler() {
    if !has("cmake") || !has("ninja") {
        return;
    }
    let Some(desk) = desk() else { return };
    project(&desk);
    desk.write(
        "CMakeLists.txt",
        "cmake_minimum_required(VERSION 3.20)\nproject(p C)\nfile(GLOB s *.c)\nadd_executable(p ${s})\n",
    );
    for generator in ["Ninja", "Unix Makefiles"] {
        let configure = ["cmake", "-B", "out", "-G", generator, "-DCMAKE_BUILD_TYPE=Debug", "."];
        same_build(&desk, &[&configure, &["cmake", "--build", "out"]], generator);
        let cache = String::from_utf8(desk.read("out/CMakeCache.txt")).unwrap();
        let entry = |name: &str| cache.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(!entry("CMAKE_C_COMPILER:").contains("mesh"), "{generator}");
        assert!(entry("CMAKE_C_COMPILER_LAUNCHER:").ends_with("/mesh-cc"), "{generator}");
        assert!(entry("CMAKE_C_LINKER_LAUNCHER:").ends_with("mesh;local;--"), "{generator}");
        wipe(&desk);
    }
    // A tree that was configured without mesh builds here; configured once more under mesh, it does not.
    good(plain(&desk, &["cmake", "-B", "out", "-G", "Ninja", "."]));
    let served = desk.served();
    good(with(&desk, &[], &["ninja", "-C", "out"]));
    assert_eq!(desk.served(), served);
    good(with(&desk, &[], &["cmake", "out"]));
    good(with(&desk, &["--expect-remote", "100"], &["cmake", "--build", "out", "--clean-first"]));
}

/// Meson asks the compiler a lot that is no unit, puts ccache in front of a compiler that nobody has chosen, and compiles by paths
/// that lead up out of the build directory.
#[test]
fn meson_is_compiled_elsewhere_into_the_same_objects() {
    if !has("meson") || !has("ninja") {
        return;
    }
    let Some(desk) = desk() else { return };
    project(&desk);
    let files: Vec<String> = (0..SOURCES).map(|at| format!("'f{at}.c'")).collect();
    desk.write("meson.build", format!("project('p', 'c')\nexecutable('p', 'main.c', {})\n", files.join(", ")));
    for (shown, compiler) in [("meson's own choice", ""), ("a chosen compiler", "CC=cc ")] {
        let setup = format!("{compiler}meson setup out");
        same_build(&desk, &[&["sh", "-c", &setup], &["meson", "compile", "-C", "out"]], shown);
        wipe(&desk);
        let script = format!("{setup} && ninja -C out");
        let shown = format!("{shown}, in a script");
        same_build(&desk, &[&["sh", "-c", &script]], &shown);
        wipe(&desk);
    }
}

#[test]
fn a_build_script_of_cargos_that_compiles_as_the_crate_cc_does_is_compiled_elsewhere() {
    if !has("cargo") {
        return;
    }
    let Some(desk) = desk() else { return };
    desk.write("Cargo.toml", "[package]\nname = \"p\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n");
    desk.write("src/lib.rs", "");
    desk.write("x.c", "int f(void) { return 1; }\n");
    // That crate runs what CC says, or cc, with these options, and takes the word after a known wrapper for the compiler.
    desk.write(
        "build.rs",
        "fn main() {\n    let out = std::env::var(\"OUT_DIR\").unwrap() + \"/x.o\";\n    let cc = std::env::var(\"CC\").unwrap_or(\"cc\".into());\n    \
         let done = std::process::Command::new(cc).args([\"-O0\", \"-ffunction-sections\", \"-fdata-sections\", \"-fPIC\", \"-gdwarf-4\"])\n        \
         .args([\"-fno-omit-frame-pointer\", \"-m64\", \"-Wall\", \"-Wextra\", \"-o\", &out, \"-c\", \"x.c\"]).status().unwrap();\n    \
         assert!(done.success());\n    assert_eq!(std::env::var(\"CC_KNOWN_WRAPPER_CUSTOM\").unwrap(), \"mesh-cc\");\n}\n",
    );
    let served = desk.served();
    let mut build = with(&desk, &[], &["cargo", "build", "--offline", "--quiet"]);
    for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        if let Some(value) = std::env::var_os(name) {
            build.env(name, value);
        }
    }
    good(build);
    until("the unit was served", || (desk.served() == served + 1).then_some(()));
}

/// A Makefile whose jobs sleep for so long; the number is also the mark by which they are found.
fn sleepers(desk: &Desk, jobs: usize, seconds: &str) {
    let all: Vec<String> = (0..jobs).map(|at| format!("j{at}")).collect();
    desk.write("Makefile", format!("all: {0}\n{0}:\n\t@sleep {seconds}\n", all.join(" ")));
}

/// Sleepers that run now, of this build.
fn running(seconds: &str, below: u32) -> usize {
    let mark = format!("sleep\0{seconds}");
    processes(mark.as_bytes()).into_iter().filter(|pid| descends(*pid, below)).count()
}

/// A build that goes on; killed with all that is below it.
struct Going(Child);

impl Going {
    fn start(mut command: Command) -> Self {
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group(), Signal::KILL);
        let _ = self.0.wait();
    }
}

#[test]
fn jobs_become_more_when_a_machine_comes_and_fewer_when_it_goes() {
    if !has("make") {
        return;
    }
    let Some(mut desk) = desk() else { return };
    desk.spoilt = true;
    desk.provider.stop();
    until("the client is alone", || desk.client.snapshot().peers.iter().all(|p| !p.connected).then_some(()));
    let cores = std::thread::available_parallelism().unwrap().get();
    let seconds = "0.2531";
    sleepers(&desk, 4000, seconds);
    let mut build = Going::start(with(&desk, &[], &["make"]));
    let own = build.0.id();
    let now = || running(seconds, own);
    until("the local slots are used", || (now() == cores).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert!(now() <= cores);
    desk.restart_provider();
    until("there are more jobs with another machine", || (now() > cores + 1).then_some(()));
    desk.provider.stop();
    // Two looks a while apart: between two jobs there are always fewer for a moment.
    let few = |count: usize| count <= cores;
    until("there are fewer again", || {
        few(now()).then(|| std::thread::sleep(std::time::Duration::from_millis(150)))?;
        (few(now()) && few(now())).then_some(())
    });
    // The end by a key.
    kill_process_group(build.group(), Signal::INT).unwrap();
    let status = build.0.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()));
    assert_eq!(running(seconds, own), 0);
    desk.client.snapshot();
}

#[test]
fn a_number_of_the_users_own_is_respected_and_nothing_is_said_about_it() {
    if !has("make") {
        return;
    }
    let Some(desk) = desk() else { return };
    desk.write("Makefile", "all: a b c d e f\na b c d e f:\n\t@echo + >> log; sleep 0.1; echo - >> log\n");
    let most = |words: &[&str]| {
        let ran = good(with(&desk, &[], words));
        assert_eq!(ran.err(), "", "{words:?}");
        let log = String::from_utf8(desk.read("log")).unwrap();
        std::fs::remove_file(desk.project.join("log")).unwrap();
        let steps = log.lines().scan(0i32, |now, line| {
            *now += if line == "+" { 1 } else { -1 };
            Some(*now)
        });
        steps.max().unwrap()
    };
    assert_eq!(most(&["make", "-j1"]), 1);
    assert!(most(&["make", "-j", "2"]) <= 2);
    assert!(most(&["make"]) > 2, "two local slots and two elsewhere");
}

#[test]
fn a_killed_build_leaves_no_process_behind() {
    if !has("make") {
        return;
    }
    let Some(desk) = desk() else { return };
    let seconds = "61.4471";
    sleepers(&desk, 3, seconds);
    let mut build = Going::start(with(&desk, &[], &["make"]));
    let own = build.0.id();
    until("its jobs run", || (running(seconds, own) >= 2).then_some(()));
    let is_make = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "make")
            && descends(*pid, own)
    };
    let make = processes(b"make").into_iter().find(is_make).unwrap();
    kill_process(Pid::from_raw(make.cast_signed()).unwrap(), Signal::KILL).unwrap();
    assert_eq!(build.0.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    let mark = format!("sleep\0{seconds}");
    until("its jobs are gone", || processes(mark.as_bytes()).is_empty().then_some(()));
    desk.client.snapshot();
}

#[test]
fn tokens_of_a_make_that_was_killed_are_there_for_the_next_one() {
    if !has("make") {
        return;
    }
    let Some(desk) = desk() else { return };
    let (first, second) = ("62.1117", "63.1119");
    desk.write("Makefile", format!("a b c d:\n\t@sleep {first}\ne f g h:\n\t@sleep {second}\n"));
    // The first make dies with all the tokens that its jobs had, and the jobs after it.
    let script = "make a b c d & sleep 1; kill -9 $!; wait $! 2>/dev/null; sh ./end; exec make e f g h";
    desk.write(
        "end",
        format!("for d in /proc/[0-9]*; do [ \"$(tr '\\0' ' ' < $d/cmdline 2>/dev/null)\" = 'sleep {first} ' ] && kill ${{d#/proc/}}; done; true\n"),
    );
    let build = Going::start(with(&desk, &["-j", "4"], &["sh", "-c", script]));
    let own = build.0.id();
    until("the second make runs", || (running(second, own) >= 1).then_some(()));
    until("it has its tokens again", || (running(second, own) >= 2).then_some(()));
}

#[test]
fn a_make_that_knows_no_named_file_gets_none() {
    if !has("make") {
        return;
    }
    let Some(desk) = desk() else { return };
    let told = good(with(&desk, &[], &["sh", "-c", "echo $MAKEFLAGS"])).out();
    let said = good(plain(&desk, &["make", "--version"])).out();
    let old = ["GNU Make 4.2", "GNU Make 4.3"].iter().any(|version| said.starts_with(version));
    assert_eq!(told.contains("fifo:"), !old, "{told}");
    // One that does, alone on the path, gets one, and it is gone afterwards.
    let bin = desk.ground.dir.join("new-make");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(
        bin.join("make"),
        "#!/bin/sh\n[ \"$1\" = --version ] && echo GNU Make 4.4.1 && exit\necho \"$MAKEFLAGS\"\n",
    )
    .unwrap();
    std::fs::set_permissions(bin.join("make"), PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = with(&desk, &[], &["make"]);
    command.env("PATH", &bin);
    let told = good(command).out();
    let fifo = told.trim().split_once("fifo:").map(|(_, path)| PathBuf::from(path)).unwrap();
    assert!(fifo.is_absolute() && !fifo.exists(), "{told}");
}

#[test]
fn a_build_runs_where_there_is_no_agent_and_starts_none() {
    let ground = Ground::new();
    let home = ground.dir.join("nobody");
    let mut command = ground.command(MESH);
    command.args(["with", "--", "sh", "-c", "echo built"]).env("MESH", "on").env("MESH_DIR", &home);
    let ran = Ran::of(&mut command);
    assert_eq!((ran.code, ran.out().as_str(), ran.err().as_str()), (Some(0), "built\n", ""));
    assert!(!home.join("run").exists());
}

#[test]
fn one_compile_alone_goes_through_mesh_and_so_does_a_build_within_a_build() {
    let Some(desk) = desk() else { return };
    project(&desk);
    let served = desk.served();
    good(with(&desk, &["--expect-remote", "100"], &["gcc", "-c", "main.c", "-o", "main.o"]));
    let inner = format!("{MESH} with -- gcc -c f0.c -o f0.o && gcc -c f1.c -o f1.o");
    let mut nested = with(&desk, &[], &["sh", "-c", &inner]);
    nested.env("MESH_SUMMARY", "1");
    let said = good(nested).err();
    assert!(said.starts_with("mesh: 2 compiles in ") && said.lines().count() == 1, "{said}");
    until("all three were served", || (desk.served() == served + 3).then_some(()));
}

#[test]
fn ccache_in_front_keeps_the_compiler_itself_in_mind_and_asks_mesh_for_what_it_lacks() {
    if !has("ccache") || !has("make") {
        return;
    }
    let Some(desk) = desk() else { return };
    let links = Path::new("/usr/lib/ccache");
    for (form, variable, in_path) in
        [("words", "CC=ccache gcc", false), ("links", "CC=gcc", links.join("gcc").exists())]
    {
        if form == "links" && !in_path {
            crate::env::skip("ccache has no links here");
            continue;
        }
        project(&desk);
        desk.write("Makefile", "all: $(patsubst %.c,%.o,$(wildcard *.c))\n");
        let before = desk.files();
        let build = |_: &str| {
            let mut build = with(&desk, &[], &["make", variable]);
            build.env("CCACHE_DIR", desk.ground.dir.join(format!("ccache-{form}")));
            build.env("CCACHE_SLOPPINESS", "include_file_mtime,include_file_ctime");
            if in_path {
                let paths = [links.to_owned()].into_iter().chain(std::env::split_paths(&desk.ground.path));
                build.env("PATH", std::env::join_paths(paths).unwrap());
            }
            good(build);
        };
        let served = desk.served();
        build("misses");
        let wanted = served + SOURCES as u64 + 1;
        until(&format!("{form}: the misses were served"), || (desk.served() == wanted).then_some(()));
        desk.restore(&before);
        build("hits");
        assert_eq!(desk.served(), wanted, "{form}");
        desk.restore(&before);
    }
}

#[test]
fn what_ends_the_builds_guardian_ends_the_build() {
    let Some(desk) = desk() else { return };
    // A shell that waits for a program leaves an interrupt to that, so there it is the program itself.
    for (signal, before, after) in
        [(Signal::TERM, "", "; true"), (Signal::HUP, "", "; true"), (Signal::INT, "exec ", "")]
    {
        let seconds = "64.5513";
        let script = format!("{before}sleep {seconds}{after}");
        let mut build = Going::start(with(&desk, &[], &["sh", "-c", &script]));
        let own = build.0.id();
        until("it runs", || (running(seconds, own) == 1).then_some(()));
        // To one process alone, as a supervisor does it.
        kill_process(build.group(), signal).unwrap();
        assert_eq!(build.0.wait().unwrap().signal(), Some(signal.as_raw()));
        let mark = format!("sleep\0{seconds}");
        until("nothing is left", || processes(mark.as_bytes()).is_empty().then_some(()));
    }
}

#[test]
fn links_side_by_side_wait_for_slots_and_give_them_back_however_they_end() {
    let Some(desk) = desk() else { return };
    let cores = std::thread::available_parallelism().unwrap().get();
    let seconds = "65.7717";
    let link = || {
        let mut command = desk.ground.command(MESH);
        command.args(["local", "--", "sleep", seconds]).env("MESH_DIR", &desk.client.home).env("MESH", "on");
        Going::start(command)
    };
    let mut links: Vec<Going> = (0..cores + 1).map(|_| link()).collect();
    let mark = format!("sleep\0{seconds}");
    let runs = || {
        let comm = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        processes(mark.as_bytes()).into_iter().filter(|pid| comm(pid).trim() == "sleep").collect::<Vec<_>>()
    };
    until("all slots are taken", || (runs().len() == cores).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(runs().len(), cores, "the last one waits");
    // Killed, not ended: the slot comes back.
    let first = runs()[0];
    links.retain_mut(|link| {
        let is_it = link.0.id() == first;
        if is_it {
            link.0.kill().unwrap();
            link.0.wait().unwrap();
        }
        !is_it
    });
    until("the one that waited runs", || (runs().len() == cores && !runs().contains(&first)).then_some(()));
}
