//! Real projects, compiled on other machines: every byte is the local compiler's, and nearly all ran elsewhere.

use crate::agents::{LAUNCHER, Node, joined, served, warm_up};
use crate::build::{self, Compilers, Family, Made, Unit, Way};
use crate::corpora::{self, Corpus};
use crate::machine::{Account, Machine, Spec};
use crate::reference::{self, key_of, stamp, which};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Units of each corpus, where `MESH_LAB_FULL=1` does not ask for all: what two cores compile in a few minutes.
const CURL_UNITS: usize = 30;
const ABSEIL_UNITS: usize = 12;
/// Of a hundred units, how many must have run elsewhere by the peers' own counters.
const REMOTE_PERCENT_MIN: u64 = 95;
/// The flags that every corpus is compiled with.
pub(crate) const FLAGS: &[&str] = &["-O2 -MD", "-O0 -g -MD"];

/// A client that sees the corpora and two machines that do not.
fn machines(account: Account) -> Option<crate::Turn> {
    let client = Spec::new("client", account).sees(&corpora::folder());
    let specs = vec![client, Spec::new("tower", account), Spec::new("attic", account)];
    let turn = crate::lab(specs, &[corpora::folder()])?;
    let [client, peers @ ..] = turn.lab.machines.as_slice() else { panic!("three machines") };
    let list = format!("ls -A '{}' 2>/dev/null || true", corpora::folder().display());
    assert!(!client.sh(&list).is_empty(), "the client sees the sources");
    peers.iter().for_each(|peer| assert_eq!(peer.sh(&list), "", "{} sees the sources", peer.name));
    Some(turn)
}

pub(crate) fn full() -> bool {
    std::env::var_os("MESH_LAB_FULL").is_some_and(|value| value == "1")
}

pub(crate) fn limited(corpus: Corpus) -> Option<Vec<Unit>> {
    let all = corpus.units().map_err(|why| crate::skip::<()>(&why)).ok()?;
    Some(match corpus {
        Corpus::Curl if !full() => build::spread(all, CURL_UNITS),
        Corpus::Abseil if !full() => build::spread(all, ABSEIL_UNITS),
        _ => all,
    })
}

/// sqlite is one unit of many seconds, during which the other core idles: by one compiler, quickly, is enough every day.
fn is_dear(corpus: Corpus, compilers: Compilers, flags: &str) -> bool {
    corpus == Corpus::Sqlite && (compilers == Compilers::Clang || flags.contains("-O2"))
}

#[track_caller]
pub(crate) fn assert_remote(what: &str, nodes: &[Node<'_>], before: u64, units: usize) {
    let count = served(nodes) - before;
    let enough = count * 100 >= units as u64 * REMOTE_PERCENT_MIN;
    let why = nodes[0].mesh(&["status"]);
    assert!(enough, "{what}: only {count} of {units} units ran elsewhere: {why:?}\n{}", nodes[0].log());
    assert_eq!(nodes[0].discrepancies(), 0, "{what}: results were dropped: {why:?}\n{}", nodes[0].log());
    println!("{what}: {count} of {units} units ran elsewhere, all equal");
}

fn compiles_the_same(account: Account, corpora: &[Corpus]) {
    let lists: Option<Vec<Vec<Unit>>> = corpora.iter().map(|corpus| limited(*corpus)).collect();
    let (Some(lists), Some(turn)) = (lists, machines(account)) else { return };
    let nodes = joined(&turn.lab);
    warm_up(&nodes);
    for (corpus, units) in corpora.iter().zip(&lists) {
        for compilers in [Compilers::Gcc, Compilers::Clang] {
            for flags in FLAGS.iter().filter(|flags| full() || !is_dear(*corpus, compilers, flags)) {
                let name = format!("{corpus:?} {compilers:?} {flags}");
                let way = Way::new(compilers, flags).env("MESH", "force");
                let before = served(&nodes);
                let made = build::build(nodes[0].machine, units, &way, LAUNCHER);
                reference::assert_local(nodes[0].machine, units, &way, &name, &made);
                assert_remote(&format!("{name}, {account:?}"), &nodes, before, units.len());
            }
        }
    }
}

#[test]
fn curl_and_sqlite_compile_the_same_as_root() {
    compiles_the_same(Account::Root, &[Corpus::Curl, Corpus::Sqlite]);
}

#[test]
fn curl_and_sqlite_compile_the_same_as_an_ordinary_user() {
    compiles_the_same(Account::Ordinary, &[Corpus::Curl, Corpus::Sqlite]);
}

#[test]
fn abseil_compiles_the_same_as_root() {
    compiles_the_same(Account::Root, &[Corpus::Abseil]);
}

#[test]
fn abseil_compiles_the_same_as_an_ordinary_user() {
    compiles_the_same(Account::Ordinary, &[Corpus::Abseil]);
}

/// lua's own build in its own source folder; everything that lies there afterwards.
pub(crate) fn make_lua(machine: &Machine, sources: &Path, prefix: &str, flags: &str) -> Made {
    let place = machine.outside("/home/dev/lua");
    let _ = std::fs::remove_dir_all(&place);
    machine.make_dir("/home/dev/lua");
    machine.sh(&format!("cp -r --preserve=timestamps '{}'/. /home/dev/lua", sources.display()));
    let make = format!("make -C lua/src -j4 linux-noreadline CC='{prefix} gcc -std=gnu99' MYCFLAGS='{flags}'");
    let ran = machine.command(&["sh", "-c", &make]).env("MESH", "force").seconds_max(600).run();
    assert!(ran.status.success(), "{make}: {ran:?}");
    Made::read(&place)
}

fn lua_makes_the_same(account: Account) {
    let sources = match Corpus::Lua.get() {
        Ok(sources) => sources,
        Err(why) => return crate::skip(&why).unwrap_or_default(),
    };
    let Some(turn) = machines(account) else { return };
    let nodes = joined(&turn.lab);
    warm_up(&nodes);
    for flags in ["", "-MMD", "-O0 -g"] {
        let before = served(&nodes);
        let made = make_lua(nodes[0].machine, &sources, LAUNCHER[0], flags);
        let key = key_of(&[b"lua".to_vec(), flags.into(), stamp(&which("gcc")), stamp(&sources.join("src/lua.h"))]);
        let name = format!("lua's own build, {flags:?}");
        reference::assert_kept(&key, &name, &made, || make_lua(nodes[0].machine, &sources, "", flags));
        assert!(made.objects() >= 30, "{}", made.objects());
        assert_remote(&format!("lua's own build, {flags:?}, {account:?}"), &nodes, before, made.objects());
    }
}

#[test]
fn lua_s_own_build_in_its_own_folder_makes_the_same_as_root() {
    lua_makes_the_same(Account::Root);
}

#[test]
fn lua_s_own_build_in_its_own_folder_makes_the_same_as_an_ordinary_user() {
    lua_makes_the_same(Account::Ordinary);
}

/// A unit that shows whatever a path or a locale changes: warnings with quotes, `__FILE__`, debug information, headers
/// beside it and through `..`.
fn telling_unit(machine: &Machine, folder: &Path) -> Unit {
    for sub in [folder.to_path_buf(), folder.join("sub")] {
        machine.make_dir(sub);
    }
    let place = machine.outside(folder);
    let source = "#include \"sub/../near.h\"\n#include <stdio.h>\nint f(int unused) { puts(__FILE__ NEAR); }\n";
    let files = [
        ("a.c", source),
        ("near.h", "#include \"sub/far.h\"\n#define NEAR FAR\n"),
        ("sub/far.h", "#define FAR __FILE__\n"),
    ];
    for (name, text) in files {
        std::fs::write(place.join(name), text).expect("the machine's files can be written");
    }
    let flags = ["-Wall", "-Wextra", "-g", "-MD"].map(Into::into).to_vec();
    Unit { folder: folder.into(), family: Family::C, flags, source: "a.c".into() }
}

/// Whether gcc's own translations are installed; without them the locale still changes quotes and widths.
fn gcc_speaks_german(machine: &Machine) -> bool {
    let found = machine.sh("ls /usr/share/locale/de/LC_MESSAGES 2>/dev/null || true");
    found.contains("gcc") || crate::skip::<()>("gcc's German messages are not installed").is_some()
}

#[test]
fn locales_and_odd_folders_change_nothing() {
    let Some(turn) = machines(Account::Ordinary) else { return };
    let nodes = joined(&turn.lab);
    warm_up(&nodes);
    let client = nodes[0].machine;
    let spaced = PathBuf::from("/home/dev/two words 'and' $a quote");
    let bytes = Path::new("/home/dev").join(OsStr::from_bytes(b"latin \xe4\xf6\xfc"));
    let deep = PathBuf::from("/home/dev/real/deep");
    telling_unit(client, &deep);
    std::os::unix::fs::symlink("real/deep", client.outside("/home/dev/link")).expect("a link can be made");
    let linked = Unit { folder: "/home/dev/link".into(), ..telling_unit(client, &deep) };
    let units = [telling_unit(client, &spaced), telling_unit(client, &bytes), linked];
    let german = client.sh("locale -a").contains("de_DE.utf8");
    if !german && crate::skip::<()>("there is no locale de_DE.UTF-8").is_none() {
        return;
    }
    for compilers in [Compilers::Gcc, Compilers::Clang] {
        for locale in ["C", "de_DE.UTF-8", "xx_YY.UTF-8"] {
            let way = Way::new(compilers, "").env("MESH", "force").env("LANG", locale);
            let wanted = build::build(client, &units, &way, &[]);
            let warned = wanted.0.values().any(|text| String::from_utf8_lossy(text).contains("[-Wunused-parameter]"));
            assert!(warned && wanted.succeeded() == units.len(), "{wanted:?}");
            let in_german = wanted.0.values().any(|text| String::from_utf8_lossy(text).contains("Warnung:"));
            let translated = locale == "de_DE.UTF-8" && compilers == Compilers::Gcc && gcc_speaks_german(client);
            assert_eq!(in_german, translated, "{compilers:?} {locale}: {wanted:?}");
            let before = served(&nodes);
            build::build(client, &units, &way, LAUNCHER).assert_same(&wanted, &format!("{compilers:?} {locale}"));
            assert_remote(&format!("{compilers:?} {locale}"), &nodes, before, units.len());
        }
    }
}
