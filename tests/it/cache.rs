//! What was compiled elsewhere once is not compiled again, and gives the same bytes; what is not the same thing is.

use crate::{
    desk::{Desk, Streams, Unit, Where, desk, run, slow},
    env::{Agent, Ground, has, until},
    upgrade::{Gxx, SETTLED},
};
use mesh::reason::Reason;
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// A desk of its own whose client keeps results, with these lines in the client's configuration.
pub(crate) fn keeping(lines: &str) -> Option<Desk> {
    let mut desk = Desk::on(Ground::new())?;
    desk.client.keeps = true;
    desk.client.configure(lines);
    desk.restart_client();
    Some(desk)
}

/// The files of a client's kept results.
pub(crate) fn entries(client: &Agent) -> Vec<PathBuf> {
    let list = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = list(&client.home.join("cache/results-v1")).filter(|dir| !dir.ends_with("incoming"));
    folders.flat_map(|dir| list(&dir).collect::<Vec<_>>()).collect()
}

impl Desk {
    /// Compiles there, waits until the result is kept, and compiles once more.
    #[track_caller]
    pub(crate) fn same_twice(&self, unit: &Unit) {
        let count = entries(&self.client).len();
        assert_eq!(self.same(unit, Where::There).code, Some(0), "{:?}", unit.words);
        until("the result is kept", || (entries(&self.client).len() > count).then_some(()));
        self.same(unit, Where::Kept);
    }
}

#[test]
fn a_second_build_compiles_nothing_and_makes_every_byte_again() {
    let Some(mut desk) = keeping("") else { return };
    desk.write("inc/a.h", "#pragma once\nstatic int unused;\nint f(int);\n");
    desk.write("a.c", "#include \"a.h\"\n#include <stdio.h>\nint f(int x) { int y; return printf(\"%d\", x) + y; }\n");
    desk.write("b.cc", "#include <vector>\nint g() { return std::vector<int>(3).size(); }\n");
    desk.write("big.c", format!("const char big[] = {{{}}};\n", "1,2,3,4,5,6,7,8,9,".repeat(60_000)));
    let mut lines = vec![
        "gcc -O2 -g -Wall -Iinc -MD -MP -c a.c -o a.o",
        "gcc -g -gsplit-dwarf -Iinc -MMD -MF deps -c a.c -o split.o",
        "g++ -O1 -fstack-usage -c b.cc",
        "gcc -S -Iinc a.c -o a.s",
        "gcc -c big.c",
    ];
    if has("clang") {
        lines.push("clang -g -Weverything -Iinc -MD -c a.c -o ac.o");
    }
    let units: Vec<Unit> = lines.iter().map(|line| desk.line(line)).collect();
    for unit in &units {
        desk.same_twice(unit);
    }
    let coloured = units[0].clone().streams(Streams::Terminal(100)).env("TERM", "xterm");
    desk.same_twice(&coloured);
    desk.same_twice(&units[0].clone().streams(Streams::One));
    desk.same(&units[0].clone().umask("077"), Where::Kept);
    // Touched, but not changed.
    let text = std::fs::read(desk.project.join("inc/a.h")).unwrap();
    desk.write("inc/a.h", text);
    desk.same(&units[0], Where::Kept);
    let last = desk.last();
    assert_eq!((last.ran_on, last.made_by.as_str(), last.reason), (None, "tower", None));
    assert_eq!(last.phases.iter().map(|phase| phase.name.as_str()).collect::<Vec<_>>(), ["scan", "cache"]);
    let counters = desk.client.snapshot().counters;
    assert_eq!((counters.cache_hits, counters.cache_misses), (units.len() as u64 + 4, units.len() as u64 + 2));
    assert!(counters.cache_bytes > 500_000 && counters.cache_saved_ms > 0, "{counters:?}");
    let explained = desk.client.mesh(&desk.ground, &["explain", "last"]);
    assert!(explained.out().contains("cached     compiled by tower"), "{}", explained.out());
    let status = desk.client.mesh(&desk.ground, &["status"]);
    assert!(status.out().contains("of compiling saved"), "{}", status.out());
    desk.restart_client();
    desk.same(&units[1], Where::Kept);
    desk.provider.stop();
    until("the client knows that it is alone", || {
        (!desk.client.snapshot().peers.iter().any(|peer| peer.connected)).then_some(())
    });
    let before = desk.client.snapshot().counters.cache_hits;
    let ran = desk.launcher(&units[2]).output().unwrap();
    assert_eq!((ran.status.code(), desk.client.snapshot().counters.cache_hits), (Some(0), before + 1));
}

#[test]
fn what_decides_the_bytes_decides_what_is_found() {
    let Some(desk) = keeping("") else { return };
    desk.write("a.h", "#define A 1\n");
    desk.write("a.c", "#include \"a.h\"\nint a(void) { int unused; return A; }\n");
    let unit = desk.line("gcc -g -Wall -c a.c -o a.o");
    desk.same_twice(&unit);
    desk.same_twice(&desk.line("gcc -g -O1 -Wall -c a.c -o a.o"));
    desk.same_twice(&desk.line("gcc -g -Wall -c a.c -o b.o"));
    desk.same_twice(&unit.clone().env("LANG", "C").env("LC_ALL", "C"));
    desk.same_twice(&unit.clone().env("CPATH", "/nowhere"));
    desk.write("a.h", "#define A 2\n");
    desk.same_twice(&unit);
    desk.write("a.h", "#define A 1\n");
    desk.same(&unit, Where::Kept);
    // A name that was looked for in vain.
    desk.write("first/keep", "");
    let searched = desk.line("gcc -Ifirst -I. -c c.c -o c.o");
    desk.write("c.c", "#include <a.h>\nint c = A;\n");
    desk.same_twice(&searched);
    desk.write("first/a.h", "#define A 7\n");
    desk.same_twice(&searched);
    std::fs::remove_file(desk.project.join("first/a.h")).unwrap();
    desk.same(&searched, Where::Kept);
    // Two checkouts, with their paths in the debug information.
    for checkout in ["one", "two"] {
        desk.write(format!("{checkout}/d.c"), "int d;\n");
        let cwd = desk.project.join(checkout);
        desk.same_twice(&desk.line("gcc -g -c d.c -o d.o").cwd(&cwd));
    }
    // The same object from the same text by another name.
    desk.write("e.c", "int d;\n");
    desk.same_twice(&desk.line("gcc -c e.c -o e.o"));
}

#[test]
fn an_upgraded_compiler_finds_nothing_of_the_one_that_it_was() {
    let Some(gxx) = Gxx::new() else { return };
    std::thread::sleep(SETTLED);
    let ground = gxx.ground();
    let path = ground.path.clone();
    let Some(mut desk) = Desk::on(ground) else { return };
    desk.client.keeps = true;
    desk.restart_client();
    desk.write("x.cc", "#define WORD(x) #x\n#define TEXT(x) WORD(x)\nconst char *release = TEXT(RELEASE);\n");
    let unit = desk.line("g++ -c x.cc -o x.o").env("PATH", path);
    desk.same_twice(&unit);
    gxx.upgrade("-DRELEASE=first");
    std::thread::sleep(SETTLED);
    until("the other machine has the new one", || {
        assert!(desk.launcher(&unit).output().unwrap().status.success());
        assert!(desk.read("x.o").windows(5).any(|word| word == b"first"), "the old one's object");
        desk.last().reason.is_none().then_some(())
    });
    desk.same(&unit, Where::Kept);
}

#[test]
fn what_may_be_otherwise_the_next_time_is_not_kept() {
    let Some(desk) = keeping("") else { return };
    let count = || entries(&desk.client).len();
    desk.write("bad.c", "int f(void) { return nothing; }\n");
    desk.write("when.c", "const char *when = __DATE__ __TIME__;\n");
    desk.write("stamp.c", "const char *when = __TIMESTAMP__;\n");
    desk.write("a.c", "int a(int x) { return x ? 1 : 2; }\n");
    for _ in 0..2 {
        desk.same(&desk.line("gcc -c bad.c -o bad.o"), Where::Here(Reason::CompileError));
        // Each compile has a second of its own: nothing to compare.
        run(desk.launcher(&desk.line("gcc -c when.c -o when.o")), Streams::Apart).good();
        assert_eq!(desk.last().reason, Some(Reason::Timestamp));
        let stamped = desk.line("gcc -c stamp.c -o stamp.o").env("SOURCE_DATE_EPOCH", "86400");
        desk.same(&stamped, Where::There);
        // Random, so that no two compiles can be compared.
        let random = desk.line("gcc -flto --coverage -c a.c -o a.o");
        assert!(desk.launcher(&random).output().unwrap().status.success());
        assert_eq!(desk.last().ran_on.as_deref(), Some("tower"));
    }
    assert_eq!(count(), 0);
    desk.same_twice(&desk.line("gcc -c when.c -o when.o").env("SOURCE_DATE_EPOCH", "86400"));
    desk.same_twice(&desk.line("gcc -flto -frandom-seed=a -c a.c -o a.o"));
    assert_eq!(count(), 2);
}

#[test]
fn what_changed_while_it_was_compiled_is_not_kept() {
    let Some(desk) = keeping("") else { return };
    let unit = slow(&desk, "edited");
    let child = desk.begin(&unit, "edited.cc");
    desk.write("slow.h", "#define HEADER 2\n");
    child.ends().good();
    assert_eq!(desk.last().reason, Some(Reason::Changing));
    // What is kept after it comes after it.
    desk.write("a.c", "int a;\n");
    desk.same_twice(&desk.line("gcc -c a.c -o a.o"));
    assert_eq!(entries(&desk.client).len(), 1);
}

#[test]
fn what_is_damaged_is_compiled_again_and_what_is_cleared_is_gone() {
    let Some(desk) = keeping("") else { return };
    desk.write("a.c", "int a;\n");
    let unit = desk.line("gcc -c a.c -o a.o");
    desk.same_twice(&unit);
    let file = entries(&desk.client).pop().unwrap();
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for bad in [&flipped[..], &whole[..whole.len() / 2], b""] {
        std::fs::write(&file, bad).unwrap();
        desk.same_healed(&unit, &file, bad);
    }
    std::fs::write(&file, &flipped).unwrap();
    let verified = desk.client.mesh(&desk.ground, &["cache", "verify"]);
    assert_eq!(verified.code, Some(0), "{}", verified.err());
    assert!(verified.out().contains("1 damaged"), "{}", verified.out());
    assert!(entries(&desk.client).is_empty());
    desk.same_twice(&unit);
    let stats = desk.client.mesh(&desk.ground, &["cache"]);
    assert!(stats.out().contains("1 result"), "{}", stats.out());
    let cleared = desk.client.mesh(&desk.ground, &["cache", "clear"]);
    assert!(cleared.out().contains("1 result"), "{}", cleared.out());
    assert!(entries(&desk.client).is_empty());
    desk.same_twice(&unit);
}

impl Desk {
    /// Compiles there because the entry is damaged, and waits until it is whole again.
    #[track_caller]
    fn same_healed(&self, unit: &Unit, file: &Path, bad: &[u8]) {
        self.same(unit, Where::There);
        until("there is another entry", || std::fs::read(file).is_ok_and(|now| now != bad).then_some(()));
        self.same(unit, Where::Kept);
    }
}

#[test]
fn the_room_that_results_take_has_a_bound() {
    let Some(desk) = keeping("[cache]\nmax_size = \"1M\"\n") else { return };
    let room =
        || entries(&desk.client).iter().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum::<u64>();
    // Bytes that do not shrink.
    let mut noise = 1u32;
    let mut kept = 0;
    for n in 0..12 {
        let numbers: Vec<String> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24).to_string()
        })
        .take(150_000)
        .collect();
        desk.write(format!("n{n}.c"), format!("const unsigned char n{n}[] = {{{}}};\n", numbers.join(",")));
        let ran = desk.launcher(&desk.line(&format!("gcc -c n{n}.c -o n{n}.o"))).output().unwrap();
        assert!(ran.status.success());
        until("the result is kept", || {
            let now = desk.client.mesh(&desk.ground, &["cache", "stats", "--json"]);
            let stats: serde_json::Value = serde_json::from_slice(&now.out).ok()?;
            kept = stats["entries"].as_u64()?;
            (kept > 0 && room() <= 1 << 20).then_some(())
        });
    }
    assert!((2..=7).contains(&kept), "{kept} entries of 150 KB");
}

#[test]
fn a_folder_that_nothing_can_be_written_to_is_nothing_to_a_build() {
    let Some(mut desk) = keeping("") else { return };
    desk.write("a.c", "int a;\n");
    desk.write("b.c", "int b;\n");
    desk.same_twice(&desk.line("gcc -c a.c -o a.o"));
    let folder = desk.client.home.join("cache/results-v1");
    // A file where the folder for what is being written should be: this stops root too.
    std::fs::remove_dir_all(folder.join("incoming")).unwrap();
    std::fs::write(folder.join("incoming"), "").unwrap();
    for _ in 0..2 {
        desk.same(&desk.line("gcc -c b.c -o b.o"), Where::There);
    }
    desk.same(&desk.line("gcc -c a.c -o a.o"), Where::Kept);
    assert_eq!(entries(&desk.client).len(), 1);
    std::fs::remove_file(folder.join("incoming")).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o500)).unwrap();
    desk.same(&desk.line("gcc -c a.c -o a.o"), Where::Kept);
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    // A folder that is gone is made again.
    std::fs::remove_dir_all(&folder).unwrap();
    desk.same_twice(&desk.line("gcc -c a.c -o a.o"));
    // Only read.
    desk.client.configure("[cache]\nuse = \"read\"\n");
    desk.restart_client();
    desk.same(&desk.line("gcc -c a.c -o a.o"), Where::Kept);
    for _ in 0..2 {
        desk.same(&desk.line("gcc -c b.c -o b.o"), Where::There);
    }
    desk.client.keeps = false;
    desk.restart_client();
    desk.same(&desk.line("gcc -c a.c -o a.o"), Where::There);
}

#[test]
fn a_disk_that_is_full_or_only_read_is_nothing_to_a_build() {
    let ground = Ground::new();
    let folder = ground.dir.join("laptop/cache/results-v1");
    let Some(disk) = ground.small_disk(&folder, 256) else { return };
    let Some(mut desk) = Desk::on(ground) else { return };
    desk.client.keeps = true;
    desk.restart_client();
    for name in ["a", "b", "c"] {
        desk.write(format!("{name}.c"), format!("int {name};\n"));
    }
    let unit = |name: &str| desk.line(&format!("gcc -c {name}.c -o {name}.o"));
    desk.same_twice(&unit("a"));
    let filler = disk.fill();
    for _ in 0..2 {
        desk.same(&unit("b"), Where::There);
    }
    until("it is counted", || (desk.client.snapshot().counters.cache_not_written >= 1).then_some(()));
    desk.same(&unit("a"), Where::Kept);
    assert_eq!(std::fs::read_dir(folder.join("incoming")).unwrap().count(), 0, "nothing half written stays");
    std::fs::remove_file(filler).unwrap();
    desk.same_twice(&unit("b"));
    let remount = |how: &str| {
        let ran = std::process::Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&folder).status();
        assert!(ran.unwrap().success());
    };
    remount("ro");
    desk.same(&unit("a"), Where::Kept);
    for _ in 0..2 {
        desk.same(&unit("c"), Where::There);
    }
    remount("rw");
    desk.same_twice(&unit("c"));
}

#[test]
fn agents_of_tests_keep_nothing_unless_that_is_the_claim() {
    let Some(desk) = desk() else { return };
    desk.write("a.c", "int a;\n");
    desk.same_there("gcc -c a.c -o a.o");
    desk.same_there("gcc -c a.c -o a.o");
    assert!(entries(&desk.client).is_empty());
}
