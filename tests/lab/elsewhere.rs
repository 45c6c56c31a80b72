//! Builds through machines whose root file systems hold other compilers than the client's, or none: every byte is the
//! client's own compiler's, and the other machine's counter says who made it.

use crate::agents::{LAUNCHER, Node, joined, served};
use crate::build::{self, Compilers, Way};
use crate::builds::{FLAGS, assert_remote, full, limited, make_lua};
use crate::corpora::{self, Corpus};
use crate::machine::{Account, Machine, Spec, eventually};
use crate::{reference, roots};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a compiler may take to be proved, sent and used, on a busy computer.
const SENT_WITHIN: Duration = Duration::from_secs(300);
/// Between two units that ask whether it has come.
const BETWEEN: Duration = Duration::from_millis(300);
/// How long a program that was just written may take until what it is can be believed.
const SETTLED: Duration = Duration::from_secs(3);

/// A client on the computer's root that sees the corpora, and machines on other roots.
fn machines(others: &[(&str, &Path, Account)]) -> Option<crate::Turn> {
    let client = Spec::new("client", Account::Root).sees(&corpora::folder());
    let others = others.iter().map(|(name, root, account)| Spec::new(name, *account).root(root));
    crate::lab(std::iter::once(client).chain(others).collect(), &[corpora::folder()])
}

/// The root, or a visible skip.
fn root(made: Result<PathBuf, String>) -> Option<PathBuf> {
    made.map_err(|why| crate::skip::<()>(&why)).ok()
}

/// No file of the machine is a compiler, a part of one, or a header.
#[track_caller]
fn assert_has_no_compiler(machine: &Machine) {
    let words = "find / -xdev ( -name cc1* -o -name *gcc* -o -name clang* -o -name as -o -name *.h )";
    let found = machine.command(&words.split(' ').collect::<Vec<_>>()).run();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let found: Vec<&str> = found.lines().filter(|path| !path.contains("libgcc_s.so")).collect();
    assert!(found.is_empty(), "{}: {found:?}", machine.name);
    assert!(!machine.command(&["gcc", "--version"]).run().status.success());
}

/// Compiles trifles until one was compiled by the peer: until then the compiler is on its way.
#[track_caller]
fn sent(client: &Node<'_>, peer: &Node<'_>, driver: &str) {
    let unit = client.machine.outside("/home/dev/warm.c");
    std::fs::write(unit, "int warm;\n").expect("the machine's files can be written");
    let before = peer.served();
    let went = eventually(SENT_WITHIN, || {
        let argv = [LAUNCHER, &[driver, "-c", "/home/dev/warm.c", "-o", "/tmp/warm.o"]].concat();
        let order = client.machine.command(&argv).env("MESH", "force").env("MESH_PREFER", &peer.machine.name);
        let ran = order.run();
        assert!(ran.status.success(), "{driver}: {ran:?}");
        if peer.served() > before {
            return Some(());
        }
        std::thread::sleep(BETWEEN);
        None
    });
    let why = || client.mesh(&["explain", "last"]);
    assert!(went.is_some(), "{driver} does not arrive: {:?}\n{}\n{}", why(), client.log(), peer.log());
}

/// abseil and lua through one machine alone.
fn builds_through(name: &str, root: &Path, account: Account) {
    let (Some(units), Some(turn)) = (limited(Corpus::Abseil), machines(&[(name, root, account)])) else { return };
    let sources = match Corpus::Lua.get() {
        Ok(sources) => sources,
        Err(why) => return crate::skip(&why).unwrap_or_default(),
    };
    if name == "bare" {
        assert_has_no_compiler(&turn.lab.machines[1]);
    }
    let nodes = joined(&turn.lab);
    let mut ways = vec![(Compilers::Gcc, FLAGS[0]), (Compilers::Clang, FLAGS[1])];
    if full() {
        ways.extend([(Compilers::Gcc, FLAGS[1]), (Compilers::Clang, FLAGS[0])]);
    } else if (name, account) != ("bare", Account::Root) {
        // clang is the largest compiler to be sent: every day it goes to one machine.
        ways.truncate(1);
    }
    for driver in ["gcc", "g++"].into_iter().chain((ways.len() > 1).then_some("clang++")) {
        sent(&nodes[0], &nodes[1], driver);
    }
    for (compilers, flags) in &ways {
        let what = format!("abseil by {compilers:?} {flags} through {name}, {account:?}");
        let way = Way::new(*compilers, flags).env("MESH", "force");
        let before = served(&nodes);
        let made = build::build(nodes[0].machine, &units, &way, LAUNCHER);
        reference::assert_local(nodes[0].machine, &units, &way, &what, &made);
        assert_remote(&what, &nodes, before, units.len());
    }
    let before = served(&nodes);
    let made = make_lua(nodes[0].machine, &sources, LAUNCHER[0], "-g");
    made.assert_same(&make_lua(nodes[0].machine, &sources, "", "-g"), "lua");
    assert!(made.objects() >= 30, "{}", made.objects());
    assert_remote(&format!("lua through {name}, {account:?}"), &nodes, before, made.objects());
}

#[test]
fn abseil_and_lua_through_a_machine_without_any_compiler() {
    let Some(bare) = root(roots::bare()) else { return };
    builds_through("bare", &bare, Account::Root);
}

#[test]
fn abseil_and_lua_through_an_ordinary_user_of_a_machine_without_any_compiler() {
    let Some(bare) = root(roots::bare()) else { return };
    builds_through("bare", &bare, Account::Ordinary);
}

#[test]
fn abseil_and_lua_through_a_machine_of_another_release_with_another_compiler() {
    let Some(release) = root(roots::other_release()) else { return };
    builds_through("release", &release, Account::Root);
}

/// What compilers write into objects that depends on where and what they are: paths, versions, headers of their own.
const TELLING: &str = "#include <stddef.h>\n#include <limits.h>\nconst char *file = __FILE__, *version = __VERSION__;\n\
    size_t size = sizeof(max_align_t) + INT_MAX;\nint f(int unused) { return __INCLUDE_LEVEL__; }\n";

/// A unit by this driver, here and through the launcher: both objects and all words.
#[track_caller]
fn both_ways(node: &Node<'_>, peer: &Node<'_>, driver: &str, flags: &str) -> [(Vec<u8>, Vec<u8>); 2] {
    [&[][..], LAUNCHER].map(|launcher| {
        let line = format!("{driver} -Wall -Wextra {flags} -c telling.c -o telling.o");
        let argv: Vec<&str> = launcher.iter().copied().chain(line.split_whitespace()).collect();
        let ran = node.machine.command(&argv).env("MESH", "force").env("MESH_PREFER", &peer.machine.name).run();
        assert!(ran.status.success(), "{line}: {ran:?}");
        (std::fs::read(node.machine.outside("/home/dev/telling.o")).expect("it was made"), ran.stderr)
    })
}

#[track_caller]
fn same_both_ways(client: &Node<'_>, peer: &Node<'_>, driver: &str) {
    std::fs::write(client.machine.outside("/home/dev/telling.c"), TELLING).expect("the machine's files can be written");
    for flags in ["-O2", "-O0 -g", "-O2 -g -flto -frandom-seed=1"] {
        let before = peer.served();
        let [here, there] = both_ways(client, peer, driver, flags);
        assert!(
            here == there,
            "{driver} {flags}: {:?} {:?}",
            String::from_utf8_lossy(&here.1),
            String::from_utf8_lossy(&there.1)
        );
        assert_eq!(peer.served(), before + 1, "{driver} {flags}: {:?}", client.mesh(&["explain", "last"]));
    }
    println!("{driver}: the same through {}", peer.machine.name);
}

#[test]
fn every_compiler_of_the_client_works_on_a_machine_that_has_none() {
    let Some(bare) = root(roots::bare()) else { return };
    let Some(turn) = machines(&[("bare", &bare, Account::Root)]) else { return };
    let nodes = joined(&turn.lab);
    let mut tried = 0;
    for driver in ["gcc", "g++", "clang", "clang-16", "clang-19", "clang-22", "aarch64-linux-gnu-gcc"] {
        if !nodes[0].machine.command(&[driver, "--version"]).run().status.success() {
            eprintln!("{driver} is not installed");
            continue;
        }
        sent(&nodes[0], &nodes[1], driver);
        same_both_ways(&nodes[0], &nodes[1], driver);
        tried += 1;
    }
    assert!(tried >= 1 || crate::skip::<()>("no compiler is installed").is_none());
}

/// The second client runs another release, whose compiler neither the first nor the machine between them has.
#[test]
fn two_clients_of_different_releases_use_one_machine_without_a_compiler_at_once() {
    let (Some(bare), Some(release)) = (root(roots::bare()), root(roots::other_release())) else { return };
    let others = [("release", release.as_path(), Account::Root), ("bare", bare.as_path(), Account::Root)];
    let Some(turn) = machines(&others) else { return };
    let nodes = joined(&turn.lab);
    let (clients, peer) = ([(&nodes[0], "gcc"), (&nodes[1], roots::COMPILER)], &nodes[2]);
    for (client, driver) in clients {
        sent(client, peer, driver);
    }
    let before = peer.served();
    std::thread::scope(|scope| {
        for (client, driver) in clients {
            scope.spawn(move || {
                std::fs::write(client.machine.outside("/home/dev/telling.c"), TELLING).expect("it can be written");
                for turn in 0..5 {
                    let flags = format!("-O2 -g -DTURN={turn}");
                    let [here, there] = both_ways(client, peer, driver, &flags);
                    assert!(here == there, "{driver} {flags}");
                    let version = if driver == "gcc" { "GCC: (Debian 14" } else { "GCC: (Debian 12" };
                    assert!(!there.0.windows(version.len()).any(|window| window == version.as_bytes()), "{driver}");
                }
            });
        }
    });
    assert_eq!(peer.served() - before, 10, "units were compiled elsewhere than by the machine between");
}

/// A driver of the client's own, beside which its parts are found as beside the computer's.
fn own_driver(client: &Machine, more: &[u8]) -> PathBuf {
    client.make_dir("/home/dev/own/bin");
    let real = std::fs::canonicalize(reference::which("gcc")).expect("there is gcc");
    let bytes = [std::fs::read(real).expect("it can be read"), more.to_vec()].concat();
    let place = client.outside("/home/dev/own/bin/gcc");
    let fresh = place.with_extension("new");
    std::fs::write(&fresh, bytes).expect("the machine's files can be written");
    std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)).expect("own");
    std::fs::rename(fresh, place).expect("own");
    let library = client.outside("/home/dev/own/lib");
    if library.symlink_metadata().is_err() {
        std::os::unix::fs::symlink("/usr/lib", library).expect("own");
    }
    "/home/dev/own/bin/gcc".into()
}

#[test]
fn a_compiler_that_is_replaced_between_two_builds_is_sent_anew() {
    let Some(bare) = root(roots::bare()) else { return };
    let Some(turn) = machines(&[("bare", &bare, Account::Root)]) else { return };
    let nodes = joined(&turn.lab);
    let client = &nodes[0];
    let mut driver = PathBuf::new();
    for more in [&b""[..], b"\0"] {
        driver = own_driver(client.machine, more);
        std::thread::sleep(SETTLED);
        sent(client, &nodes[1], driver.to_str().expect("plain"));
        same_both_ways(client, &nodes[1], driver.to_str().expect("plain"));
    }
    assert!(nodes[1].log().matches("came from client").count() >= 2, "{}: {}", driver.display(), nodes[1].log());
}
