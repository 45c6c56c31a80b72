//! `mesh with`: real build tools, a provider, and the same objects as without.

use crate::{
    desk::{Desk, Streams, desk, run},
    env::{Ground, MESH, Ran, has, processes, until},
};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::{
    collections::BTreeMap,
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

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
fn an_inhibitor_is_held_as_long_as_the_build_runs_however_it_ends() {
    let Some(desk) = desk() else { return };
    let inhibitor = desk.write("bin/systemd-inhibit", "");
    std::fs::set_permissions(&inhibitor, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Its own name for what the inhibitor runs, by which it is found.
    let name = format!("holder-{}", std::process::id());
    std::fs::write(&inhibitor, format!("#!/bin/sh\necho \"$*\" >> asked\nexec ./{name}\n")).unwrap();
    std::os::unix::fs::symlink("/bin/cat", desk.project.join(&name)).unwrap();
    let held = || processes(format!("./{name}\0").as_bytes()).len();
    let build = |setting: &str| {
        let mut command = with(&desk, &[], &["sleep", "60"]);
        let paths = [desk.project.join("bin")].into_iter().chain(std::env::split_paths(&desk.ground.path));
        command.env("PATH", std::env::join_paths(paths).unwrap()).env("MESH_INHIBIT", setting);
        Group::start(command)
    };
    let asleep = |build: &Group| {
        let below = |pid: &u32| crate::env::descends(*pid, build.0.id());
        processes(b"sleep\x0060\0").iter().any(below)
    };
    if !mesh::host::signals::has_mains() {
        return crate::env::skip("this machine runs on its battery");
    }
    for signal in [Signal::TERM, Signal::KILL] {
        let mut build = build("1");
        until("the machine is kept awake", || (held() == 1).then_some(()));
        until("the build runs", || asleep(&build).then_some(()));
        kill_process(Pid::from_child(&build.0), signal).unwrap();
        build.ended();
        until("it may sleep again", || (held() == 0).then_some(()));
    }
    assert_eq!(String::from_utf8(desk.read("asked")).unwrap().lines().count(), 2);
    let off = build("0");
    until("the build runs", || asleep(&off).then_some(()));
    assert_eq!(held(), 0);
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

/// A CMake project of the same sources.
const CMAKELISTS: &str =
    "cmake_minimum_required(VERSION 3.16)\nproject(p C)\nfile(GLOB all *.c)\nadd_executable(prog ${all})\n";

/// Configures and builds with this generator, alone and on the mesh, and compares.
fn cmake_builds(desk: &Desk, generator: &str) {
    program(desk);
    desk.write("CMakeLists.txt", CMAKELISTS);
    let build = desk.project.join("build");
    let configure = ["cmake", "-G", generator, "-B", "build"];
    for words in [&configure[..], &["cmake", "--build", "build"]] {
        let ran = Ran::of(&mut plain(desk, words));
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let alone = objects(&build);
    std::fs::remove_dir_all(&build).unwrap();
    let ran = Ran::of(&mut with(desk, &[], &configure));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // The tree names the real compiler: it does not depend on anything that was made for this build.
    let cache = std::fs::read_to_string(build.join("CMakeCache.txt")).unwrap();
    let compiler = cache.lines().find(|line| line.starts_with("CMAKE_C_COMPILER:")).unwrap();
    assert!(!compiler.contains(desk.client.home.to_str().unwrap()), "{compiler}");
    let served = desk.served();
    let ran = Ran::of(&mut with(desk, &[], &["cmake", "--build", "build"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(desk.served() - served, UNITS as u64, "{ran:?}");
    assert!(objects(&build) == alone, "other objects than alone");
    assert!(!ran.err().contains("jobserver"), "{}", ran.err());
    // The link was run by what waits for room on this machine.
    let script = if generator == "Ninja" { "CMakeFiles/rules.ninja" } else { "CMakeFiles/prog.dir/link.txt" };
    let script = std::fs::read_to_string(build.join(script)).unwrap();
    assert!(script.contains("mesh local -- /"), "{script}");
}

#[test]
fn cmake_and_ninja_compile_on_the_mesh_what_they_compile_alone() {
    let Some(desk) = desk().filter(|_| has("cmake") && has("ninja")) else { return };
    cmake_builds(&desk, "Ninja");
}

#[test]
fn cmake_and_make_compile_on_the_mesh_what_they_compile_alone() {
    let Some(desk) = desk().filter(|_| has("cmake") && has("make")) else { return };
    cmake_builds(&desk, "Unix Makefiles");
}

/// A tool that answers with this version and otherwise shows what it was told.
fn tool(desk: &Desk, name: &str, version: &str) {
    let script = format!("#!/bin/sh\n[ \"$1\" = --version ] && echo '{version}' || echo \"$MAKEFLAGS|$*\"\n");
    let path = desk.write(Path::new("bin").join(name), script);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn each_tool_is_told_in_the_way_that_its_version_understands() {
    let Some(desk) = desk() else { return };
    std::fs::create_dir_all(desk.project.join("bin")).unwrap();
    let bin = desk.project.join("bin");
    let told = |options: &[&str], words: &[&str]| {
        let mut command = with(&desk, options, words);
        command.env("PATH", std::env::join_paths([&bin]).unwrap());
        Ran::of(&mut command).out().trim().to_owned()
    };
    tool(&desk, "ninja", "1.11.1");
    tool(&desk, "make", "GNU Make 4.3");
    let mesh: u32 = desk.client.mesh(&desk.ground, &["-j"]).out().trim().parse().unwrap();
    assert_eq!(told(&[], &["ninja", "-C", "b"]), format!("|-j{mesh} -C b"));
    assert_eq!(told(&["-j", "1"], &["ninja"]), "|-j1");
    assert_eq!(told(&[], &["ninja", "-j3"]), "|-j3");
    let pipe = told(&[], &["make", "all"]);
    assert!(pipe.contains("--jobserver-auth=") && !pipe.contains("fifo") && pipe.ends_with("|all"), "{pipe}");
    assert_eq!(told(&[], &["make", "-j2"]), "|-j2");
    tool(&desk, "make", "GNU Make 4.4");
    assert!(told(&[], &["make"]).contains("--jobserver-auth=fifo:"));
    assert_eq!(told(&[], &["ninja"]), format!("|-j{mesh}"));
    tool(&desk, "ninja", "1.13.0");
    assert!(told(&[], &["ninja"]).contains("--jobserver-auth=fifo:"));
    // The number holds on this machine alone as well.
    tool(&desk, "make", "GNU Make 4.3");
    assert_eq!(told(&["--local", "-j", "1"], &["ninja"]), "|-j1");
    // Another make than GNU's takes such words for its own, and ends.
    tool(&desk, "bmake", "");
    assert_eq!([told(&[], &["bmake", "all"]), told(&[], &["/bin/sh", "-c", "make"])], ["|all", "|"]);
    assert!(told(&[], &["make"]).contains("--jobserver-auth="));
    let left = std::fs::read_dir(desk.client.home.join("run")).unwrap().flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("jobs-")));
}

/// Makes a Makefile of so many targets that each do nothing for so long, under a name of their own in the process list.
fn nappers(desk: &Desk, count: u32, seconds: &str) -> String {
    let name = format!("napper-{}-{count}", std::process::id());
    std::os::unix::fs::symlink("/bin/sleep", desk.project.join(&name)).unwrap();
    let targets: String = (0..count).map(|n| format!(" t{n}")).collect();
    desk.write("Makefile", format!("all:{targets}\n.PHONY:{targets}\n{targets}:\n\t@./{name} {seconds}\n"));
    name
}

/// Ends with its process's group.
struct Group(Child);

impl Group {
    fn start(mut command: Command) -> Self {
        Self(command.process_group(0).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.0), signal).unwrap();
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        until("the build ends", || self.0.try_wait().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

#[test]
fn a_build_grows_when_a_machine_comes_and_shrinks_when_it_goes() {
    if !has("make") {
        return;
    }
    let Some(mut desk) = Desk::configured(Ground::new(), "slots = 8\n", "") else { return };
    desk.provider.stop();
    let number = |desk: &Desk| desk.client.mesh(&desk.ground, &["jobs"]).out().trim().parse::<usize>().unwrap_or(0);
    let alone = until("only this machine is left", || Some(number(&desk)).filter(|n| *n > 0 && *n < 8));
    let name = nappers(&desk, 400, "0.4");
    let naps = || processes(format!("./{name}\0").as_bytes()).len();
    let _build = Group::start(with(&desk, &[], &["make"]));
    until("the build runs", || (naps() == alone).then_some(()));
    std::thread::sleep(Duration::from_millis(1500));
    assert!(naps() <= alone, "nobody has come yet");
    desk.restart_provider();
    let more = until("there is more room", || Some(number(&desk)).filter(|n| *n > alone + 3));
    until("the build takes it", || (naps() > alone + 3).then_some(()));
    assert!(naps() <= more);
    desk.provider.stop();
    until("the build gives it back", || (naps() <= alone).then_some(()));
    std::thread::sleep(Duration::from_millis(1000));
    assert!(naps() <= alone, "it stays so");
}

#[test]
fn what_a_killed_make_leaves_running_is_ended() {
    let Some(desk) = desk().filter(|_| has("make")) else { return };
    let name = nappers(&desk, 4, "60");
    let naps = || processes(format!("./{name}\0").as_bytes());
    let mut build = Group::start(with(&desk, &[], &["make"]));
    until("the build runs", || (!naps().is_empty()).then_some(()));
    let mesh = build.0.id();
    let make = processes(b"make\0").into_iter().find(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok()) == Some(mesh)
    });
    kill_process(Pid::from_raw(make.unwrap().cast_signed()).unwrap(), Signal::KILL).unwrap();
    assert_eq!(build.ended().signal(), Some(9));
    assert_eq!(naps(), Vec::<u32>::new());
}

#[test]
fn an_interrupt_ends_the_build_and_nothing_else() {
    let Some(desk) = desk().filter(|_| has("make")) else { return };
    let name = nappers(&desk, 4, "60");
    let naps = || processes(format!("./{name}\0").as_bytes());
    let mut build = Group::start(with(&desk, &[], &["make"]));
    until("the build runs", || (!naps().is_empty()).then_some(()));
    let began = Instant::now();
    build.signal(Signal::INT);
    let status = build.ended();
    // make itself ends with a code of its own.
    assert!(!status.success() && began.elapsed() < Duration::from_secs(3), "{status:?}");
    until("nothing is left", || naps().is_empty().then_some(()));
    desk.client.snapshot();
}

#[test]
fn links_wait_for_room_and_give_it_back_however_they_end() {
    let Some(desk) = desk() else { return };
    let cores: usize = desk.client.mesh(&desk.ground, &["jobs", "--local"]).out().trim().parse().unwrap();
    let local = |words: &[&str]| {
        let mut command = desk.ground.command(MESH);
        command.args(["local", "--memory", "1M", "--"]).args(words).env("MESH_DIR", &desk.client.home);
        command
    };
    assert_eq!(Ran::of(&mut local(&["sh", "-c", "exit 3"])).code, Some(3));
    assert_eq!(Ran::of(&mut local(&["no-such-linker"])).code, Some(127));
    let all: Vec<Group> = (0..cores).map(|_| Group::start(local(&["sleep", "61"]))).collect();
    let asleep = |build: &Group| {
        std::fs::read(format!("/proc/{}/cmdline", build.0.id())).unwrap_or_default() == b"sleep\x0061\0"
    };
    until("all cores are taken", || all.iter().all(asleep).then_some(()));
    let late = Group::start(local(&["sleep", "61"]));
    std::thread::sleep(Duration::from_millis(700));
    assert!(!asleep(&late), "there is no room");
    all[0].signal(Signal::KILL);
    until("there is room", || asleep(&late).then_some(()));
}

#[test]
fn without_an_agent_a_build_runs_all_the_same() {
    let ground = Ground::new();
    let mut command = ground.command(MESH);
    // Told to be quiet it is; and the link would not start an agent, because `MESH` is off.
    command.args(["with", "--", "sh", "-c", "echo $MESH_SESSION"]);
    let ran = Ran::of(&mut command);
    assert_eq!((ran.code, ran.err().as_str()), (Some(0), ""));
    assert!(ran.out().trim().parse::<u64>().unwrap() > 0);
    let mut link = ground.command(MESH);
    assert_eq!(Ran::of(link.args(["local", "--", "echo", "linked"])).out(), "linked\n");
    let mut number = ground.command(MESH);
    assert!(Ran::of(number.arg("-j")).out().trim().parse::<u32>().unwrap() >= 1);
}

#[test]
fn a_build_script_that_finds_its_compiler_as_the_cc_crate_does_compiles_on_the_mesh() {
    let Some(desk) = desk() else { return };
    let cargo = std::env::var_os("CARGO").map(std::path::PathBuf::from);
    let Some(cargo) = cargo.filter(|cargo| cargo.is_file()) else { return crate::env::skip("cargo did not run this") };
    for dir in ["src", "c"] {
        std::fs::create_dir_all(desk.project.join(dir)).unwrap();
    }
    desk.write("Cargo.toml", "[package]\nname = \"p\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n");
    desk.write("src/main.rs", "fn main() {}\n");
    for n in 0..4 {
        desk.write(format!("c/u{n}.c"), format!("int f{n}(int x) {{ return x + {n}; }}\n"));
    }
    // Not the crate itself, which may not be here: it runs `cc` from PATH, and is a client of cargo's jobserver.
    let script = "fn main() {\n    let out = std::env::var(\"OUT_DIR\").unwrap();\n    for n in 0..4 {\n        \
        let ok = std::process::Command::new(\"cc\").args([\"-O1\", \"-ffunction-sections\", \"-c\", \"-o\"])\n            \
        .arg(format!(\"{out}/u{n}.o\")).arg(format!(\"c/u{n}.c\")).status().unwrap();\n        assert!(ok.success());\n    }\n}\n";
    desk.write("build.rs", script);
    let mut command = with(&desk, &[], &[cargo.to_str().unwrap(), "build", "--offline", "--quiet"]);
    let home = std::env::var_os("HOME").unwrap_or_default();
    for (name, below) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        command.env(name, std::env::var_os(name).unwrap_or_else(|| Path::new(&home).join(below).into()));
    }
    if let Some(toolchain) = std::env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    let served = desk.served();
    let ran = Ran::of(&mut command);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(desk.served() - served, 4, "{ran:?}");
    assert!(ran.err().starts_with("mesh: 4 compiles in "), "{}", ran.err());
}

#[test]
fn what_runs_is_listed_and_counted() {
    let Some(desk) = desk() else { return };
    let unit = Group::start({
        let mut command = desk.ground.command(MESH);
        command.args(["local", "--memory", "1M", "--", "sleep", "62"]).env("MESH_DIR", &desk.client.home);
        command
    });
    let jobs = || {
        let ran = desk.client.mesh(&desk.ground, &["jobs", "--json"]);
        serde_json::from_str::<serde_json::Value>(&ran.out()).unwrap()
    };
    let one = until("it is listed", || jobs()["running"].get(0).cloned());
    assert_eq!((&one["file"], &one["state"]), (&"sleep".into(), &"here".into()));
    let now = jobs();
    assert_eq!(now["jobs"].as_u64(), Some(now["local"].as_u64().unwrap() + now["remote"].as_u64().unwrap()));
    drop(unit);
    until("it is gone", || jobs()["running"].as_array().unwrap().is_empty().then_some(()));
}

#[test]
fn a_tree_that_was_configured_without_mesh_is_noticed_and_the_advice_is_good() {
    let Some(desk) = desk().filter(|_| has("cmake") && has("ninja")) else { return };
    program(&desk);
    desk.write("CMakeLists.txt", CMAKELISTS);
    assert_eq!(Ran::of(&mut plain(&desk, &["cmake", "-G", "Ninja", "-B", "build"])).code, Some(0));
    let build =
        || run(with(&desk, &[], &["cmake", "--build", "build", "--target", "clean"]), Streams::Terminal(80)).out();
    let advice =
        "build was configured without mesh, so its compiles stay on this machine. Run once: mesh with -- cmake build";
    let said = build();
    assert!(said.contains(advice), "{said}");
    assert_eq!(Ran::of(&mut with(&desk, &[], &["cmake", "build"])).code, Some(0));
    let said = build();
    assert!(!said.contains("configured without mesh"), "{said}");
    let served = desk.served();
    let ran = Ran::of(&mut with(&desk, &[], &["cmake", "--build", "build"]));
    assert_eq!((ran.code, desk.served() - served), (Some(0), UNITS as u64), "{ran:?}");
}

#[test]
fn tokens_that_a_killed_make_held_come_back_to_the_others() {
    let Some(desk) = desk().filter(|_| has("make")) else { return };
    let total: usize = desk.client.mesh(&desk.ground, &["-j"]).out().trim().parse().unwrap();
    if total < 3 {
        return crate::env::skip("there is room for two at once only");
    }
    let name = nappers(&desk, 200, "0.5");
    std::fs::rename(desk.project.join("Makefile"), desk.project.join("naps.mk")).unwrap();
    desk.write("Makefile", "all: first\n\t$(MAKE) -f naps.mk TURN=second\nfirst:\n\t-$(MAKE) -f naps.mk TURN=first\n");
    let naps = || processes(format!("./{name}\0").as_bytes()).len();
    let _build = Group::start(with(&desk, &[], &["make"]));
    until("the first uses all tokens", || (naps() == total).then_some(()));
    let first = processes(b"\0TURN=first\0");
    let own = |pid: &&u32| std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default() == b"make\n";
    let own: Vec<&u32> = first.iter().filter(own).collect();
    assert_eq!(own.len(), 1, "{own:?}");
    kill_process(Pid::from_raw(own[0].cast_signed()).unwrap(), Signal::KILL).unwrap();
    until("the second has begun", || (!processes(b"\0TURN=second\0").is_empty()).then_some(()));
    until("it has all tokens again", || (naps() == total).then_some(()));
}
