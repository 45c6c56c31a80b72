//! Freshness, with a file system and a clock made for it.

use super::plan;
use crate::compiler::invocation::Family;
use crate::compiler::plan::Plan;
use crate::inputs::world::{Kind, NameSink, Stat, Time, World};
use crate::inputs::{Arrivals, Closure, Graph, ReadError, Tick, Undecidable, Want};
use crate::reason::Reason;
use mesh_proto::closure::Node;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Debug, Default, Clone)]
struct State {
    nodes: BTreeMap<Vec<u8>, (Stat, Vec<u8>)>,
    now_ms: i64,
    /// Stamps keep whole seconds only.
    is_coarse: bool,
    inodes: u64,
    stats: usize,
    lists: usize,
    reads: usize,
    /// What happens right after the next read of a file has seen its stat.
    during_read: Option<(String, String)>,
    /// The same, every time.
    always: bool,
}

impl State {
    fn stamp(&self) -> Time {
        let ns = if self.is_coarse { 0 } else { (self.now_ms % 1000) as u32 * 1_000_000 + 1 };
        Time { s: self.now_ms / 1000, ns }
    }

    fn put(&mut self, path: &[u8], kind: Kind, content: &[u8]) {
        let stamp = self.stamp();
        let is_new = !self.nodes.get(path).is_some_and(|(stat, _)| stat.kind == kind);
        if is_new {
            self.inodes += 1;
            let parent = &path[..path.iter().rposition(|b| *b == b'/').unwrap().max(1)];
            if let Some((stat, _)) = self.nodes.get_mut(parent) {
                (stat.mtime, stat.ctime) = (stamp, stamp);
            }
        }
        let ino = if is_new { self.inodes } else { self.nodes[path].0.ino };
        let size = content.len() as u64;
        let stat = Stat { kind, dev: 1, ino, size, mode: 0o644, mtime: stamp, ctime: stamp };
        self.nodes.insert(path.to_vec(), (stat, content.to_vec()));
    }

    fn get(&self, path: &[u8]) -> Result<&(Stat, Vec<u8>), Errno> {
        self.nodes.get(path).ok_or(Errno::NOENT)
    }
}

/// Files in memory, shared with the test.
#[derive(Debug, Clone, Default)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn wait(&self, ms: i64) {
        self.state().now_ms += ms;
    }

    fn put(&self, path: &str, text: &str) {
        self.state().put(path.as_bytes(), Kind::File, text.as_bytes());
    }

    fn remove(&self, path: &str) {
        let mut state = self.state();
        state.nodes.remove(path.as_bytes()).unwrap();
        let stamp = state.stamp();
        let parent = &path[..path.rfind('/').unwrap()];
        let stat = &mut state.nodes.get_mut(parent.as_bytes()).unwrap().0;
        (stat.mtime, stat.ctime) = (stamp, stamp);
    }
}

impl World for Fake {
    fn stat(&self, path: &[u8]) -> Result<Stat, Errno> {
        let mut state = self.state();
        state.stats += 1;
        Ok(state.get(path)?.0)
    }

    fn list(&self, path: &[u8], sink: &mut NameSink<'_>) -> Result<(Stat, Stat), Errno> {
        let mut state = self.state();
        state.lists += 1;
        let prefix = [path, b"/"].concat();
        for (name, (stat, _)) in &state.nodes {
            if let Some(rest) = name.strip_prefix(&prefix[..]).filter(|rest| !rest.contains(&b'/')) {
                // As a file system that does not tell kinds, for some.
                sink(rest, (rest.len() % 2 == 0).then_some(stat.kind));
            }
        }
        let stat = state.get(path)?.0;
        Ok((stat, stat))
    }

    fn read(&self, path: &[u8], _: u64, into: &mut Vec<u8>) -> Result<(Stat, Stat), Errno> {
        let mut state = self.state();
        state.reads += 1;
        let (before, content) = state.get(path)?.clone();
        into.extend_from_slice(&content);
        if let Some((path, text)) = state.during_read.take() {
            state.now_ms += 1;
            state.put(path.as_bytes(), Kind::File, text.as_bytes());
            if state.always {
                state.during_read = Some((path, text));
            }
        }
        Ok((before, state.get(path)?.0))
    }

    fn readlink(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        Ok(self.state().get(path)?.1.clone())
    }

    fn now(&self) -> Time {
        let state = self.state();
        Time { s: state.now_ms / 1000, ns: (state.now_ms % 1000) as u32 * 1_000_000 }
    }
}

struct Bench {
    fake: Fake,
    graph: Graph,
    arrivals: Arrivals,
    plan: Plan,
}

impl Bench {
    /// `/w/a.c` includes `x.h`, which is in `/w/i`, from a minute ago.
    fn new() -> Self {
        let fake = Fake::default();
        {
            let mut state = fake.state();
            state.now_ms = 1_000_000_000;
            for dir in ["/", "/w", "/w/g", "/w/i"] {
                state.put(dir.as_bytes(), Kind::Dir, b"");
            }
            state.put(b"/w/a.c", Kind::File, b"#include \"x.h\"\n");
            state.put(b"/w/i/x.h", Kind::File, b"int x;");
        }
        fake.wait(60_000);
        let graph = Graph::with_world(Box::new(fake.clone()));
        Self { arrivals: graph.arrivals(), graph, plan: plan("a.c", &["g", "i"]), fake }
    }

    fn closure_at(&mut self, requested_at: Tick) -> Result<Closure, Undecidable> {
        let want = Want {
            plan: &self.plan,
            cwd: b"/w",
            env: &[],
            system_dirs: &[],
            locale_dirs: &[],
            family: Family::Gcc,
            requested_at,
        };
        self.graph.closure(&want)
    }

    fn closure(&mut self) -> Closure {
        let tick = self.arrivals.arrive();
        self.closure_at(tick).unwrap()
    }

    fn is_fresh(&mut self, closure: &Closure) -> bool {
        let requested_at = self.arrivals.arrive();
        let want = Want {
            plan: &self.plan,
            cwd: b"/w",
            env: &[],
            system_dirs: &[],
            locale_dirs: &[],
            family: Family::Gcc,
            requested_at,
        };
        self.graph.still_fresh(&want, closure)
    }

    /// Stats, listings and reads since the last call.
    fn costs(&self) -> (usize, usize, usize) {
        let mut state = self.fake.state();
        (std::mem::take(&mut state.stats), std::mem::take(&mut state.lists), std::mem::take(&mut state.reads))
    }
}

/// What a closure holds beyond the unit's own files, with an environment.
fn foreign(bench: &mut Bench, env: &[(&str, &str)], family: Family) -> String {
    let env: Vec<_> = env.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
    let requested_at = bench.arrivals.arrive();
    let locale_dirs = [b"/opt/share/locale".to_vec()];
    let want = Want {
        plan: &bench.plan,
        cwd: b"/w",
        env: &env,
        system_dirs: &[],
        locale_dirs: &locale_dirs,
        family,
        requested_at,
    };
    let names = names(&bench.graph.closure(&want).unwrap());
    let is_foreign = |name: &&str| !name.starts_with("/w");
    names.split(' ').filter(is_foreign).collect::<Vec<_>>().join(" ")
}

fn names(closure: &Closure) -> String {
    let path = |named: &crate::inputs::Named| String::from_utf8(named.entry.path.as_bytes().to_vec()).unwrap();
    closure.entries.iter().map(path).collect::<Vec<_>>().join(" ")
}

fn size_of(closure: &Closure, path: &str) -> u64 {
    closure
        .entries
        .iter()
        .find_map(|named| match &named.entry.node {
            Node::File(file) if named.entry.path.as_bytes() == path.as_bytes() => Some(file.size),
            _ => None,
        })
        .unwrap()
}

#[test]
fn what_did_not_change_is_neither_read_nor_listed_again() {
    let mut bench = Bench::new();
    let first = bench.closure();
    assert_eq!(names(&first), "/w /w/a.c /w/g /w/i /w/i/x.h");
    assert_eq!(bench.costs().2, 2);
    let second = bench.closure();
    let (stats, lists, reads) = bench.costs();
    // Three directories, two files, and the output, which is no input.
    assert_eq!((stats, lists, reads), (6, 0, 0));
    assert!(first.entries.iter().zip(second.entries.iter()).all(|(a, b)| a.id == b.id));
}

#[test]
fn requests_that_arrived_before_a_check_share_it_and_later_ones_do_not() {
    let mut bench = Bench::new();
    bench.closure();
    let (one, two) = (bench.arrivals.arrive(), bench.arrivals.arrive());
    bench.costs();
    bench.closure_at(one).unwrap();
    assert_eq!(bench.costs().0, 6);
    bench.closure_at(two).unwrap();
    assert_eq!(bench.costs().0, 1, "the output alone");
    // The file changes, without the clock moving: only a later arrival must see it.
    bench.fake.put("/w/i/x.h", "long long x;");
    let three = bench.arrivals.arrive();
    assert_eq!(size_of(&bench.closure_at(two).unwrap(), "/w/i/x.h"), 6);
    assert_eq!(size_of(&bench.closure_at(three).unwrap(), "/w/i/x.h"), 12);
}

#[test]
fn a_racy_file_is_read_again_until_its_stamp_is_old() {
    let mut bench = Bench::new();
    bench.fake.put("/w/i/x.h", "int x;");
    bench.closure();
    bench.costs();
    // Written again within the same stamp and of the same size: no stat can tell.
    bench.fake.put("/w/i/x.h", "int y;");
    bench.fake.wait(15);
    let digest = |closure: &Closure| closure.entries.iter().map(|n| n.entry.node.clone()).collect::<Vec<_>>();
    let second = bench.closure();
    assert_eq!(bench.costs().2, 1);
    let third = bench.closure();
    assert_eq!(bench.costs().2, 1, "still racy: 15 ms are not enough");
    assert_eq!(digest(&second), digest(&third));
    assert!(second.entries.iter().zip(third.entries.iter()).all(|(a, b)| a.id == b.id), "nothing new is named");
    bench.fake.wait(15);
    bench.closure();
    assert_eq!(bench.costs().2, 1);
    bench.closure();
    assert_eq!(bench.costs().2, 0, "settled");
}

#[test]
fn a_same_size_rewrite_within_one_stamp_is_seen() {
    let mut bench = Bench::new();
    bench.fake.put("/w/i/x.h", "#include \"p.h\"");
    bench.fake.put("/w/i/p.h", "");
    bench.fake.put("/w/i/q.h", "");
    assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/i /w/i/p.h /w/i/x.h");
    bench.fake.put("/w/i/x.h", "#include \"q.h\"");
    assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/i /w/i/q.h /w/i/x.h");
}

#[test]
fn coarse_stamps_are_racy_for_two_seconds() {
    let mut bench = Bench::new();
    bench.fake.state().is_coarse = true;
    bench.fake.put("/w/i/x.h", "int x;");
    bench.closure();
    bench.fake.wait(1500);
    bench.costs();
    bench.closure();
    assert_eq!(bench.costs().2, 1);
    bench.fake.wait(1500);
    bench.closure();
    bench.costs();
    bench.closure();
    assert_eq!(bench.costs().2, 0);
}

#[test]
fn stamps_of_the_future_prove_nothing() {
    let mut bench = Bench::new();
    bench.fake.wait(60_000);
    bench.fake.put("/w/i/x.h", "int x;");
    bench.fake.wait(-60_000);
    bench.closure();
    bench.costs();
    bench.closure();
    assert_eq!(bench.costs().2, 1);
}

#[test]
fn a_name_that_appears_earlier_on_the_path_is_seen() {
    let mut bench = Bench::new();
    bench.closure();
    bench.fake.put("/w/g/x.h", "int early;");
    assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/g/x.h /w/i /w/i/x.h");
    bench.fake.wait(1000);
    bench.fake.remove("/w/g/x.h");
    assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/i /w/i/x.h");
}

#[test]
fn a_name_that_appears_within_a_directorys_stamp_is_seen() {
    let mut bench = Bench::new();
    bench.fake.put("/w/g/other", "");
    bench.closure();
    bench.fake.put("/w/g/x.h", "int early;");
    assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/g/x.h /w/i /w/i/x.h");
}

#[test]
fn a_file_that_becomes_a_link_or_a_directory_is_seen() {
    let mut bench = Bench::new();
    bench.closure();
    bench.fake.wait(1000);
    bench.fake.put("/w/real.h", "int real;");
    bench.fake.state().put(b"/w/i/x.h", Kind::Link, b"../real.h");
    assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/i /w/i/x.h /w/real.h");
    bench.fake.wait(1000);
    bench.fake.state().put(b"/w/i/x.h", Kind::Link, b"../gone.h");
    assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/i /w/i/x.h");
    bench.fake.wait(1000);
    bench.fake.state().put(b"/w/i/x.h", Kind::Dir, b"");
    assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/i /w/i/x.h");
}

#[test]
fn a_search_directory_that_appears_is_seen() {
    let mut bench = Bench::new();
    bench.plan.search.user.insert(0, b"new".to_vec());
    assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/i /w/i/x.h");
    bench.fake.wait(1000);
    bench.fake.state().put(b"/w/new", Kind::Dir, b"");
    bench.fake.put("/w/new/x.h", "");
    assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/i /w/i/x.h /w/new /w/new/x.h");
}

#[test]
fn a_touched_file_has_a_new_entry_and_is_not_scanned_anew_for_nothing() {
    let mut bench = Bench::new();
    let first = bench.closure();
    bench.fake.wait(1000);
    bench.fake.put("/w/i/x.h", "int x;");
    let second = bench.closure();
    let changed = first.entries.iter().zip(second.entries.iter()).filter(|(a, b)| a.id != b.id).count();
    assert_eq!(changed, 1);
}

#[test]
fn a_file_that_changes_while_read_is_read_once_more_and_then_given_up() {
    let mut bench = Bench::new();
    bench.fake.state().during_read = Some(("/w/a.c".into(), "#include \"x.h\"\n#include \"y.h\"\n".into()));
    bench.fake.put("/w/i/y.h", "");
    assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/i /w/i/x.h /w/i/y.h");
    {
        let mut state = bench.fake.state();
        state.now_ms += 1000;
        state.put(b"/w/a.c", Kind::File, b"#include \"x.h\"\n");
        state.always = true;
        state.during_read = Some(("/w/a.c".into(), "#include \"y.h\"\n".into()));
    }
    let tick = bench.arrivals.arrive();
    assert_eq!(bench.closure_at(tick).unwrap_err(), Undecidable::Local(Reason::Changing));
}

#[test]
fn an_edit_during_the_compile_voids_its_result() {
    let mut bench = Bench::new();
    let closure = bench.closure();
    assert!(bench.is_fresh(&closure));
    bench.fake.wait(1000);
    // Objects appear in the working directory all the time.
    bench.fake.put("/w/b.o", "");
    assert!(bench.is_fresh(&closure));
    bench.fake.put("/w/i/x.h", "int z;");
    assert!(!bench.is_fresh(&closure));
    let closure = bench.closure();
    bench.fake.wait(1000);
    bench.fake.put("/w/g/x.h", "");
    assert!(!bench.is_fresh(&closure));
}

#[test]
fn what_another_unit_asked_for_voids_nothing() {
    let mut bench = Bench::new();
    bench.fake.put("/w/b.c", "#include \"generated.h\"\n");
    bench.plan.source = b"b.c".to_vec();
    bench.closure();
    bench.plan.source = b"a.c".to_vec();
    let closure = bench.closure();
    bench.fake.wait(1000);
    bench.fake.put("/w/generated.h", "");
    assert!(bench.is_fresh(&closure));
}

#[test]
fn forgetting_everything_keeps_numbers_apart() {
    let mut bench = Bench::new();
    let first = bench.closure();
    bench.graph.forget();
    let second = bench.closure();
    assert!(first.entries.iter().zip(second.entries.iter()).all(|(a, b)| a.entry == b.entry && a.id != b.id));
    assert!(bench.is_fresh(&first));
}

#[test]
fn content_that_is_not_what_was_promised_is_not_given() {
    let mut bench = Bench::new();
    let closure = bench.closure();
    let header = closure.entries.iter().find(|named| named.entry.path.name() == b"x.h").unwrap();
    assert_eq!(bench.graph.read(&header.entry).unwrap(), b"int x;");
    assert_eq!(bench.graph.read(&closure.entries[0].entry), Err(ReadError::NotAFile));
    bench.fake.put("/w/i/x.h", "int y;");
    assert_eq!(bench.graph.read(&header.entry), Err(ReadError::Changing));
    bench.fake.remove("/w/i/x.h");
    assert_eq!(bench.graph.read(&header.entry), Err(ReadError::System(Errno::NOENT)));
}

#[test]
fn a_locale_brings_what_the_c_library_and_the_compiler_open_for_it() {
    let mut bench = Bench::new();
    {
        let mut state = bench.fake.state();
        for dir in [
            "/usr",
            "/usr/lib",
            "/usr/lib/locale",
            "/usr/lib/locale/C.utf8",
            "/usr/lib/locale/C.utf8/LC_MESSAGES",
            "/usr/share",
            "/usr/share/locale",
            "/usr/share/locale/de",
            "/usr/share/locale/de/LC_MESSAGES",
            "/opt",
            "/opt/share",
            "/opt/share/locale",
            "/opt/share/locale/de",
            "/opt/share/locale/de/LC_MESSAGES",
        ] {
            state.put(dir.as_bytes(), Kind::Dir, b"");
        }
        for file in [
            "/usr/lib/locale/C.utf8/LC_CTYPE",
            "/usr/lib/locale/C.utf8/LC_MESSAGES/SYS_LC_MESSAGES",
            "/usr/lib/locale/locale-archive",
            "/usr/share/locale/de/LC_MESSAGES/gcc-12.mo",
            "/usr/share/locale/de/LC_MESSAGES/bash.mo",
            "/opt/share/locale/de/LC_MESSAGES/cpplib.mo",
        ] {
            state.put(file.as_bytes(), Kind::File, b"");
        }
    }
    bench.fake.wait(1000);
    assert_eq!(foreign(&mut bench, &[], Family::Gcc), "");
    assert_eq!(foreign(&mut bench, &[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")], Family::Gcc), "");
    assert_eq!(foreign(&mut bench, &[("LANG", "de_DE.UTF-8")], Family::Clang), "");
    let common = "/usr /usr/lib /usr/lib/locale";
    assert_eq!(
        foreign(&mut bench, &[("LC_ALL", "C.UTF-8")], Family::Gcc),
        format!(
            "/opt /opt/share /opt/share/locale {common} /usr/lib/locale/C.utf8 /usr/lib/locale/C.utf8/LC_CTYPE \
            /usr/lib/locale/C.utf8/LC_MESSAGES /usr/lib/locale/C.utf8/LC_MESSAGES/SYS_LC_MESSAGES \
            /usr/lib/locale/locale-archive /usr/share /usr/share/locale"
        )
    );
    let german = "/opt /opt/share /opt/share/locale /opt/share/locale/de /opt/share/locale/de/LC_MESSAGES \
        /opt/share/locale/de/LC_MESSAGES/cpplib.mo /usr /usr/lib /usr/lib/locale /usr/lib/locale/locale-archive \
        /usr/share /usr/share/locale /usr/share/locale/de /usr/share/locale/de/LC_MESSAGES \
        /usr/share/locale/de/LC_MESSAGES/gcc-12.mo";
    assert_eq!(foreign(&mut bench, &[("LANG", "de_DE.UTF-8")], Family::Gcc), german);
    bench.costs();
    assert_eq!(foreign(&mut bench, &[("LANG", "de_DE.UTF-8")], Family::Gcc), german);
    let (stats, lists, reads) = bench.costs();
    assert!(stats < 40 && lists == 0 && reads == 0, "{stats} {lists} {reads}");
}

#[test]
fn the_time_zone_goes_with_a_unit_that_prints_local_times() {
    let mut bench = Bench::new();
    bench.fake.put("/w/a.c", "char *t = __TIMESTAMP__;");
    bench.fake.state().put(b"/etc", Kind::Dir, b"");
    bench.fake.put("/etc/localtime", "");
    bench.plan.epoch_fixed = true;
    assert_eq!(foreign(&mut bench, &[], Family::Clang), "/etc /etc/localtime");
    assert_eq!(foreign(&mut bench, &[("TZ", "UTC0")], Family::Clang), "");
}

/// Removes a node and all below it, as `rm -r`, and stamps its directory.
fn remove_tree(state: &mut State, path: &[u8]) {
    let below = [path, b"/"].concat();
    let count = state.nodes.len();
    state.nodes.retain(|name, _| name != path && !name.starts_with(&below));
    if state.nodes.len() != count {
        let stamp = state.stamp();
        let parent = &path[..path.iter().rposition(|b| *b == b'/').unwrap()];
        if let Some((stat, _)) = state.nodes.get_mut(parent) {
            (stat.mtime, stat.ctime) = (stamp, stamp);
        }
    }
}

/// One change of the tree: which place, what is put there, and how long it is until the next.
fn change(state: &mut State, (place, what, wait_ms): (usize, usize, i64)) {
    const PLACES: [&str; 12] = [
        "/w/a.c",
        "/w/x.h",
        "/w/i",
        "/w/i/x.h",
        "/w/i/s",
        "/w/i/s/y.h",
        "/w/g",
        "/w/g/x.h",
        "/w/g/s",
        "/w/g/s/y.h",
        "/w/y.h",
        "/w/x.h.gch",
    ];
    const TEXTS: [&str; 6] = [
        "#include \"x.h\"",
        "#include <x.h>\n#include <s/y.h>",
        "#include \"../y.h\"",
        "#define H <s/y.h>\n#include H",
        "#include_next <x.h>",
        "int x;",
    ];
    const TARGETS: [&str; 5] = ["x.h", "../g", "/w/i/s", "s/y.h", "gone"];
    let path = PLACES[place].as_bytes();
    let parent = &path[..path.iter().rposition(|b| *b == b'/').unwrap()];
    if !state.nodes.get(parent).is_some_and(|(stat, _)| stat.kind == Kind::Dir) {
        return;
    }
    let (kind, content) = match what {
        0..6 => (Kind::File, TEXTS[what]),
        6..11 => (Kind::Link, TARGETS[what - 6]),
        11..13 => (Kind::Dir, ""),
        _ => return remove_tree(state, path),
    };
    let is_there = |state: &State| state.nodes.get(path).map(|(stat, _)| stat.kind);
    if is_there(state) == Some(Kind::Dir) && kind == Kind::Dir {
        return;
    }
    if is_there(state).is_some_and(|there| there != Kind::File || kind != Kind::File) {
        remove_tree(state, path);
    }
    state.put(path, kind, content.as_bytes());
    state.now_ms += wait_ms;
}

fn entries(closure: &Closure) -> Vec<Arc<mesh_proto::closure::Entry>> {
    closure.entries.iter().map(|named| Arc::clone(&named.entry)).collect()
}

impl Fake {
    /// Whether no component before the last is a link.
    fn is_real(&self, path: &[u8]) -> bool {
        let state = self.state();
        let mut at = 1;
        while let Some(next) = path[at..].iter().position(|b| *b == b'/') {
            if state.nodes.get(&path[..at + next]).is_some_and(|(stat, _)| stat.kind == Kind::Link) {
                return false;
            }
            at += next + 1;
        }
        true
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_changes_an_old_graph_says_what_a_new_one_says(
        changes in proptest::collection::vec((0_usize..12, 0_usize..14, 0_i64..40), 1..40),
    ) {
        let mut bench = Bench::new();
        let mut last: Option<Closure> = None;
        for one in changes {
            change(&mut bench.fake.state(), one);
            let was_fresh = last.as_ref().map(|closure| bench.is_fresh(closure));
            let tick = bench.arrivals.arrive();
            let old = bench.closure_at(tick);
            let graph = Graph::with_world(Box::new(bench.fake.clone()));
            let arrivals = graph.arrivals();
            let mut new = Bench { graph, plan: bench.plan.clone(), fake: bench.fake.clone(), arrivals };
            let tick = new.arrivals.arrive();
            let new = new.closure_at(tick);
            match (&old, &new) {
                (Ok(old), Ok(new)) => {
                    proptest::prop_assert_eq!(entries(old), entries(new));
                    if let (Some(last), Some(was_fresh)) = (&last, was_fresh) {
                        proptest::prop_assert_eq!(was_fresh, entries(last) == entries(old));
                    }
                    for named in old.entries.iter() {
                        let path = &named.entry.path;
                        proptest::prop_assert!(bench.fake.is_real(path.as_bytes()), "{path:?}");
                    }
                }
                (old, new) => {
                    proptest::prop_assert_eq!(old.as_ref().err(), new.as_ref().err());
                    proptest::prop_assert_ne!(was_fresh, Some(true));
                }
            }
            last = old.ok();
        }
    }
}
