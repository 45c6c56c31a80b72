//! What is peculiar to jobs in a tree that is kept for their client: what is stale is not seen, what is read is not
//! changed, and nobody waits.

use crate::collect::{self, PLACED, file};
use crate::compile::{check, words};
use crate::escape::attempt;
use crate::world::{Client, World, abs, closure, job, toolchain};
use mesh::worker::run::{Form, Ran, cancellation};
use mesh_proto::closure::Entry;
use mesh_proto::digest::Digest;
use mesh_proto::job::{Exit, Job};
use mesh_proto::toolchain::Manifest;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest that something may take which must not wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a client whose template has died has none, the first time.
const MOMENT: Duration = Duration::from_millis(250);

/// A directory with these files, in a world.
fn tree(files: &[(&str, &str)]) -> Option<(World, PathBuf)> {
    let world = World::new()?;
    let cwd = world.dir.path().canonicalize().unwrap().join("w");
    for (name, text) in files {
        write(&cwd, name, text);
    }
    Some((world, cwd))
}

fn write(cwd: &Path, name: &str, text: &str) {
    let at = cwd.join(name);
    std::fs::create_dir_all(at.parent().unwrap()).unwrap();
    std::fs::write(at, text).unwrap();
}

/// Compiles a unit in a mirror of this client's with its closure of now; the object, and where it was made.
fn compile(world: &World, client: &Client, line: &str, cwd: &Path) -> (Vec<u8>, Form) {
    let argv = words(line);
    let toolchain = toolchain(line.split(' ').next().unwrap()).unwrap();
    let entries = closure(&argv, cwd, &[]);
    world.stock(&entries);
    let job = job(&toolchain, &argv, cwd, &[cwd]);
    let ran = world.run_for(client, Form::Mirror, &job, &entries, &toolchain).unwrap();
    assert_eq!(ran.outcome.exit, Exit::Code(0), "{line}: {}", text_of(&ran));
    (object(&ran), ran.form)
}

fn object(ran: &Ran) -> Vec<u8> {
    let at = ran.outcome.outputs.iter().position(|output| output.path.name().ends_with(b".o")).unwrap();
    let mut bytes = vec![0; usize::try_from(ran.outcome.outputs[at].size).unwrap()];
    std::os::unix::fs::FileExt::read_exact_at(&ran.files[at], &mut bytes, 0).unwrap();
    bytes
}

fn text_of(ran: &Ran) -> String {
    ran.outcome.text.iter().map(|text| String::from_utf8_lossy(&text.bytes).into_owned()).collect()
}

fn has(object: &[u8], name: &str) -> bool {
    object.windows(name.len()).any(|window| window == name.as_bytes())
}

const COMPILERS: [&str; 2] = ["gcc", "clang"];

#[test]
fn a_header_ahead_in_the_path_that_was_taken_back_is_not_found() {
    let Some((world, cwd)) = tree(&[("b/x.h", "int from_b;\n"), ("u.c", "#include <x.h>\n")]) else { return };
    for compiler in COMPILERS {
        let client = Client::default();
        let line = format!("{compiler} -Ia -Ib -c u.c");
        write(&cwd, "a/x.h", "int from_a;\n");
        let (object, form) = compile(&world, &client, &line, &cwd);
        assert!(has(&object, "from_a") && form == Form::Mirror);
        std::fs::remove_file(cwd.join("a/x.h")).unwrap();
        client.take_back(&[&abs(&cwd.join("a/x.h"))]);
        let (object, form) = compile(&world, &client, &line, &cwd);
        assert!(has(&object, "from_b") && !has(&object, "from_a") && form == Form::Mirror);
    }
}

#[test]
fn a_stale_header_that_nobody_took_back_is_noticed_by_the_list_of_what_was_read() {
    let Some((world, cwd)) = tree(&[("b/x.h", "int from_b;\n"), ("u.c", "#include <x.h>\n")]) else { return };
    for (line, count) in [("gcc -Ia -Ib -c u.c", 1), ("gcc -MD -Ia -Ib -c u.c", 2), ("clang -Ia -Ib -c u.c", 3)] {
        let client = Client::default();
        write(&cwd, "a/x.h", "int from_a;\n");
        compile(&world, &client, line, &cwd);
        std::fs::remove_file(cwd.join("a/x.h")).unwrap();
        let (object, form) = compile(&world, &client, line, &cwd);
        assert!(has(&object, "from_b") && !has(&object, "from_a"), "{line}");
        assert_eq!((form, world.worker.mirror_misses()), (Form::Strict, count), "{line}");
    }
}

#[test]
fn what_a_unit_asks_for_and_does_not_read_appears_and_vanishes() {
    let text = "#if __has_include(\"maybe.h\")\nint with;\n#else\nint without;\n#endif\n";
    let Some((world, cwd)) = tree(&[("u.c", text)]) else { return };
    for compiler in COMPILERS {
        let client = Client::default();
        let line = format!("{compiler} -c u.c");
        let argv = words(&line);
        let Some(toolchain) = toolchain(compiler) else { return };
        for (turn, there) in [true, false, true, false].into_iter().enumerate() {
            let maybe = cwd.join("maybe.h");
            if there {
                write(&cwd, "maybe.h", "");
            } else {
                let _ = std::fs::remove_file(&maybe);
                client.take_back(&[&abs(&maybe)]);
            }
            // No compiler lists it: the client's scan of the directory does.
            let entries = closure(&argv, &cwd, &[&maybe]);
            world.stock(&entries);
            let job = job(&toolchain, &argv, &cwd, &[&cwd]);
            let ran = world.run_for(&client, Form::Mirror, &job, &entries, &toolchain).unwrap();
            let object = object(&ran);
            assert_eq!((has(&object, "without"), ran.form), (!there, Form::Mirror), "{compiler} {turn}");
        }
    }
}

#[test]
fn a_directory_takes_the_place_of_a_header_and_the_other_way_round() {
    let Some((world, cwd)) = tree(&[("b/x.h", "int from_b;\n"), ("u.c", "#include <x.h>\n")]) else { return };
    let client = Client::default();
    let line = "gcc -Ia -Ib -c u.c";
    for turn in 0..2 {
        write(&cwd, "a/x.h", "int from_a;\n");
        assert!(has(&compile(&world, &client, line, &cwd).0, "from_a"), "{turn}");
        // Not taken back: what is named at its path says enough.
        std::fs::remove_file(cwd.join("a/x.h")).unwrap();
        std::fs::create_dir(cwd.join("a/x.h")).unwrap();
        write(&cwd, "a/x.h/inner.h", "");
        let argv = words(line);
        let entries = closure(&argv, &cwd, &[&cwd.join("a/x.h"), &cwd.join("a/x.h/inner.h")]);
        world.stock(&entries);
        let toolchain = toolchain("gcc").unwrap();
        let job = job(&toolchain, &argv, &cwd, &[&cwd]);
        let ran = world.run_for(&client, Form::Mirror, &job, &entries, &toolchain).unwrap();
        assert!(has(&object(&ran), "from_b"), "{turn}");
        assert_eq!(ran.form, Form::Mirror, "{turn}");
        std::fs::remove_dir_all(cwd.join("a/x.h")).unwrap();
        if turn == 0 {
            client.take_back(&[&abs(&cwd.join("a/x.h/inner.h")), &abs(&cwd.join("a/x.h"))]);
        }
    }
    assert_eq!(client.mirrors.count(), 1);
}

#[test]
fn links_in_the_search_path_lead_where_they_lead_at_home_and_renamed_directories_are_new() {
    let files = [("real/x.h", "#include \"y.h\"\n"), ("real/y.h", "int y;\n"), ("u.c", "#include <x.h>\n")];
    let Some((world, cwd)) = tree(&files) else { return };
    std::os::unix::fs::symlink("real", cwd.join("link")).unwrap();
    std::os::unix::fs::symlink("../real/x.h", cwd.join("real/z.h")).unwrap();
    for compiler in COMPILERS {
        check(&world, &format!("{compiler} -g -Ilink -c u.c -o u.o"), &cwd, &["u.o"]);
        check(&world, &format!("{compiler} -g -Ilink/../link -include z.h -c u.c -o u.o"), &cwd, &["u.o"]);
    }
    std::fs::rename(cwd.join("real"), cwd.join("renamed")).unwrap();
    std::fs::remove_file(cwd.join("link")).unwrap();
    std::os::unix::fs::symlink("renamed", cwd.join("link")).unwrap();
    let gone = ["real/x.h", "real/y.h", "real/z.h", "real"].map(|name| abs(&cwd.join(name)));
    world.client.take_back(&gone.each_ref());
    for compiler in COMPILERS {
        check(&world, &format!("{compiler} -g -Ilink -c u.c -o u.o"), &cwd, &["u.o"]);
    }
    assert_eq!(world.client.mirrors.count(), 1);
}

#[test]
fn two_clients_with_the_same_paths_have_each_their_own_files() {
    let Some((world, cwd)) = tree(&[("u.c", "#include \"x.h\"\n"), ("x.h", "int x;\n")]) else { return };
    let clients = [Client::default(), Client::default()];
    let (argv, toolchain) = (words("gcc -c u.c"), toolchain("gcc").unwrap());
    let mut asked = Vec::new();
    for name in ["first", "second"] {
        write(&cwd, "x.h", &format!("int {name};\n"));
        let entries = closure(&argv, &cwd, &[]);
        world.stock(&entries);
        asked.push((name, entries));
    }
    let job = job(&toolchain, &argv, &cwd, &[&cwd]);
    std::thread::scope(|scope| {
        for ((name, entries), client) in asked.iter().zip(&clients) {
            let (world, job, toolchain) = (&world, &job, &toolchain);
            scope.spawn(move || {
                for _ in 0..5 {
                    let ran = world.run_for(client, Form::Mirror, job, entries, toolchain).unwrap();
                    assert!(has(&object(&ran), name) && ran.form == Form::Mirror);
                }
            });
        }
    });
}

/// A job of the attempts' program that need not say what it read.
fn attempt_job(args: &[&str]) -> Job {
    collect::job(&[args, &["none.s"]].concat(), &["/w/out"])
}

/// A world with content for attempts, and their toolchain.
fn attempts() -> Option<(World, Manifest)> {
    attempt()?;
    let world = World::new()?;
    for content in [PLACED, b"old", b"newer"] {
        world.blobs.put(&Digest::of(content), content).unwrap();
    }
    Some((world, collect::toolchain()))
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_job_writes_its_own_layer_and_sees_no_others() {
    let Some((world, toolchain)) = attempts() else { return };
    let entries = [file("/w/out/placed", PLACED), file("/w/beside", b"old")];
    let attempt = |args: &[&str]| world.run_for(&world.client, Form::Mirror, &attempt_job(args), &entries, &toolchain);
    let run = |args: &[&str]| {
        let ran = attempt(args).unwrap();
        assert_eq!(ran.form, Form::Mirror);
        (ran.outcome.exit, text_of(&ran))
    };
    // What it may change it changes for itself.
    assert_eq!(run(&["write", "/w/out/placed"]).0, Exit::Code(0));
    assert_eq!(run(&["write", "/w/out/made"]).0, Exit::Code(0));
    assert!(attempt(&["odd", "remove"]).is_err());
    assert_eq!(run(&["read", "/w/out/placed"]), (Exit::Code(0), String::from_utf8_lossy(PLACED).into_owned()));
    assert_eq!(run(&["list", "/w/out"]).1, "placed\n");
    // What it may not, not even for itself.
    for at in ["/w/beside", "/w/made", "/made", "/dev/made"] {
        assert_eq!(run(&["write", at]).0, Exit::Code(1), "{at}");
    }
    assert_eq!(run(&["read", "/w/beside"]).1, "old");
    for at in ["/in", "/bases", "/fresh", "/job"] {
        assert_eq!(run(&["list", at]).0, Exit::Code(1), "{at}");
    }
}

#[test]
fn a_hung_job_keeps_what_it_reads_and_nobody_waits_for_it() {
    let Some((world, toolchain)) = attempts() else { return };
    let (old, new) = ([file("/w/x.h", b"old")], [file("/w/x.h", b"newer")]);
    let (cancel, cancelled) = cancellation().unwrap();
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| {
            let job = attempt_job(&["stay", "/w/out/hung-in-a-mirror"]);
            world.run_until(&cancelled, &world.client, Form::Mirror, &job, &old, &toolchain)
        });
        eventually("it starts", || crate::kill::processes_with("/w/out/hung-in-a-mirror").len() == 3);
        let start = Instant::now();
        let mut forms = Vec::new();
        for _ in 0..6 {
            let job = attempt_job(&["read", "/w/x.h"]);
            let ran = world.run_for(&world.client, Form::Mirror, &job, &new, &toolchain).unwrap();
            assert_eq!(text_of(&ran), "newer");
            forms.push(ran.form);
            // What does not touch it runs beside it.
            let ran = world.run_for(&world.client, Form::Mirror, &attempt_job(&["umask"]), &[], &toolchain).unwrap();
            forms.push(ran.form);
        }
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        // While it was new they had roots of their own; then there was a fresh mirror.
        assert_eq!((forms[0], forms[10]), (Form::Strict, Form::Mirror), "{forms:?}");
        assert_eq!(client_count(&world), 2);
        // Undisturbed.
        assert_eq!(crate::kill::processes_with("/w/out/hung-in-a-mirror").len(), 3);
        drop(cancel);
        assert!(hung.join().unwrap().is_err());
    });
    assert_eq!(client_count(&world), 1);
}

fn client_count(world: &World) -> usize {
    world.client.mirrors.count()
}

#[test]
fn what_strict_jobs_and_odd_closures_ask_for_is_a_root_of_their_own() {
    let Some((world, toolchain)) = attempts() else { return };
    let form = |job: &Job, entries: &[Entry]| {
        world.run_for(&world.client, Form::Mirror, job, entries, &toolchain).unwrap().form
    };
    let plain = attempt_job(&["umask"]);
    assert_eq!(form(&plain, &[file("/w/x", b"old")]), Form::Mirror);
    assert_eq!(form(&Job { strict: true, ..plain.clone() }, &[]), Form::Strict);
    assert_eq!(form(&collect::job(&["umask"], &["/w/out"]), &[]), Form::Strict);
    // Where its toolchain is: the program itself.
    let driver = &toolchain.driver;
    let content = std::fs::read(std::ffi::OsStr::new(std::str::from_utf8(driver.as_bytes()).unwrap())).unwrap();
    world.blobs.put(&Digest::of(&content), &content).unwrap();
    let hiding = file(std::str::from_utf8(driver.as_bytes()).unwrap(), &content);
    let made_executable = |mut entry: Entry| {
        if let mesh_proto::closure::Node::File(file) = &mut entry.node {
            file.executable = true;
        }
        entry
    };
    assert_eq!(form(&plain, &[made_executable(hiding.clone())]), Form::Strict);
    // And for those that do not name it, for as long as it lies there.
    assert_eq!(form(&plain, &[]), Form::Strict);
    world.client.take_back(&[&hiding.path]);
    assert_eq!(form(&plain, &[]), Form::Mirror);
}

#[test]
fn a_dead_template_costs_its_jobs_one_more_run_and_later_ones_a_moment_without() {
    let Some((world, toolchain)) = attempts() else { return };
    let run =
        || world.run_for(&world.client, Form::Mirror, &attempt_job(&["umask"]), &[file("/w/x", b"old")], &toolchain);
    assert_eq!(run().unwrap().form, Form::Mirror);
    let killed = std::thread::scope(|scope| {
        let (cancel, cancelled) = cancellation().unwrap();
        let (world, toolchain) = (&world, &toolchain);
        let hung = scope.spawn(move || {
            let job = attempt_job(&["stay", "/w/out/template-dies"]);
            world.run_until(&cancelled, &world.client, Form::Mirror, &job, &[], toolchain)
        });
        let stays = || crate::kill::processes_with("/w/out/template-dies");
        eventually("it starts", || stays().len() == 3);
        let before = stays();
        let killed = Instant::now();
        world.client.mirrors.kill_all();
        // Once more, with a root of its own.
        eventually("it starts again", || stays().len() == 3 && stays().iter().all(|pid| !before.contains(pid)));
        drop(cancel);
        assert!(hung.join().unwrap().is_err());
        killed
    });
    let next = run().unwrap().form;
    // On a computer that does much else, the moment may be over by now.
    assert!(next == Form::Strict || killed.elapsed() >= MOMENT, "{next:?}");
    eventually("there is a new one", || run().unwrap().form == Form::Mirror);
}

/// The list that is asked for changes no byte of an object.
#[test]
fn asking_for_a_list_changes_no_object() {
    let Some((world, cwd)) = tree(&[("x.h", "inline int x(void) { return __LINE__; }\n")]) else { return };
    write(&cwd, "u.c", "#include <stdio.h>\n#include \"x.h\"\nint f(void) { return x() + sizeof __FILE__; }\n");
    for compiler in ["gcc", "g++", "clang"] {
        for flags in [
            "-O2",
            "-g -O2",
            "-g3",
            "-frecord-gcc-switches",
            "-grecord-gcc-switches -g",
            "-g -flto -frandom-seed=1",
            "-flto -ffat-lto-objects -frandom-seed=1",
            "-O0 --coverage -frandom-seed=1",
            "-fsanitize=address,undefined -g",
        ] {
            let side = if flags.contains("coverage") { vec!["u.o", "u.gcno"] } else { vec!["u.o"] };
            check(&world, &format!("{compiler} {flags} -c u.c -o u.o"), &cwd, &side);
        }
    }
    assert_eq!(world.worker.mirror_misses(), 0);
}

/// Not a test by itself: an agent's part in the one below.
#[test]
fn helper_form() {
    let Some(form) = std::env::var_os("MESH_TEST_FORM") else { return };
    let Some((world, toolchain)) = attempts() else { return };
    let ran = world.run_for(&world.client, Form::Mirror, &attempt_job(&["umask"]), &[], &toolchain).unwrap();
    assert_eq!(format!("{:?}", ran.form).as_str(), form);
}

#[test]
fn an_agent_can_be_told_to_give_every_job_a_root_of_its_own() {
    for (value, form) in [("1", "Strict"), ("0", "Mirror")] {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "mirror::helper_form"]).env("MESH_STRICT", value).env("MESH_TEST_FORM", form);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{value}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
