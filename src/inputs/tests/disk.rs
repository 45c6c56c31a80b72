//! What a watch excuses, and what it does not, with the kernel's own events and real files.

use super::{Tree, bytes, plan};
use crate::compiler::invocation::Family;
use crate::compiler::plan::Plan;
use crate::inputs::watch::{Event, Inotify, WatchId, Watcher};
use crate::inputs::world::{Disk, Kind, NameSink, Stat, Time, World};
use crate::inputs::{Closure, Graph, Undecidable, Want};
use rustix::io::Errno;
use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The disk, counted.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    stats: Arc<AtomicUsize>,
    lists: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
    /// How far the clock is ahead, seconds: what was just written is quiet then.
    ahead_s: i64,
    /// Events that are not passed on.
    is_dropped: fn(&Event<'_>) -> bool,
    /// It has no watches.
    pub(super) is_deaf: bool,
}

impl Counted {
    pub(super) fn new(ahead_s: i64, is_dropped: fn(&Event<'_>) -> bool) -> Self {
        let counter = || Arc::new(AtomicUsize::new(0));
        Self { stats: counter(), lists: counter(), reads: counter(), ahead_s, is_dropped, is_deaf: false }
    }

    /// Stats, listings and reads since the last call.
    pub(super) fn costs(&self) -> (usize, usize, usize) {
        let take = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
        (take(&self.stats), take(&self.lists), take(&self.reads))
    }
}

impl World for Counted {
    fn stat(&self, path: &[u8]) -> Result<Stat, Errno> {
        self.stats.fetch_add(1, Ordering::Relaxed);
        Disk.stat(path)
    }
    fn list(&self, path: &[u8], sink: &mut NameSink<'_>) -> Result<(Stat, Stat), Errno> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        Disk.list(path, sink)
    }
    fn read(&self, path: &[u8], bytes_max: u64, into: &mut Vec<u8>) -> Result<(Stat, Stat), Errno> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Disk.read(path, bytes_max, into)
    }
    fn readlink(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        Disk.readlink(path)
    }
    fn now(&self) -> Time {
        let now = Disk.now();
        Time { s: now.s + self.ahead_s, ..now }
    }
    fn watcher(&self) -> Option<Box<dyn Watcher>> {
        let inner = Disk.watcher().filter(|_| !self.is_deaf)?;
        Some(Box::new(Filtered { inner, is_dropped: self.is_dropped }))
    }
}

#[derive(Debug)]
struct Filtered {
    inner: Box<dyn Watcher>,
    is_dropped: fn(&Event<'_>) -> bool,
}

impl Watcher for Filtered {
    fn watch(&mut self, path: &[u8], kind: Kind) -> Result<WatchId, Errno> {
        self.inner.watch(path, kind)
    }
    fn is_local(&self, path: &[u8]) -> bool {
        self.inner.is_local(path)
    }
    fn drain(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        let is_dropped = self.is_dropped;
        self.inner.drain(&mut |event| {
            if !is_dropped(&event) {
                sink(event);
            }
        });
    }
    fn watches_max(&self) -> usize {
        self.inner.watches_max()
    }
}

/// A unit that includes from a directory `i`, from a link `cur` to a directory, and what is not there.
struct Bench {
    tree: Tree,
    plan: Plan,
    world: Counted,
    graph: Graph,
}

impl Bench {
    fn new(ahead_s: i64, is_dropped: fn(&Event<'_>) -> bool) -> Self {
        let tree = Tree::new(&[
            ("p/q/a.c", "#include \"x.h\"\n#include \"l.h\"\n#include \"absent.h\"\n"),
            ("p/q/g/other.h", ""),
            ("p/q/i/x.h", "int x;"),
            ("p/q/v1/l.h", "int one;"),
            ("p/q/v2/l.h", "int two;"),
            ("elsewhere/x.h", "int elsewhere;"),
        ]);
        tree.link("v1", "p/q/cur");
        let world = Counted::new(ahead_s, is_dropped);
        let graph = Graph::with_world(Box::new(world.clone()));
        let mut plan = plan("a.c", &["g", "i", "cur"]);
        plan.extra_inputs.push(b"g/below/list".to_vec());
        Self { plan, tree, world, graph }
    }

    fn closure(&mut self) -> Result<Closure, Undecidable> {
        super::closure(&mut self.graph, &self.tree.path("p/q"), &self.plan)
    }

    fn is_fresh(&mut self, closure: &Closure) -> bool {
        let requested_at = self.graph.arrivals().arrive();
        let cwd = bytes(&self.tree.path("p/q"));
        let (plan, family) = (&self.plan, Family::Gcc);
        let want = Want { plan, cwd: &cwd, env: &[], system_dirs: &[], locale_dirs: &[], family, requested_at };
        self.graph.still_fresh(&want, closure)
    }

    fn costs(&self) -> (usize, usize, usize) {
        self.world.costs()
    }
}

fn skipped(why: &str) -> bool {
    assert!(std::env::var_os("MESH_TEST_NO_SKIP").is_none(), "would be skipped: {why}");
    eprintln!("skipped: {why}");
    true
}

/// Whether temporary files are where no watch is believed.
fn is_elsewhere() -> bool {
    let dir = bytes(&std::env::temp_dir());
    let local = Inotify::new().is_some_and(|inotify| inotify.is_local(b"/") && inotify.is_local(&dir));
    !local && skipped("temporary files are on a file system that others may write to, or there is no inotify")
}

/// The change is seen by the next request, and is not if the events that the rule is about are dropped.
#[track_caller]
fn check(prepare: fn(&Tree), change: fn(&Tree), rule: fn(&Event<'_>) -> bool) {
    for is_dropped in [(|_| false) as fn(&Event<'_>) -> bool, rule] {
        let is_off = std::ptr::fn_addr_eq(is_dropped, rule);
        let mut bench = Bench::new(10, is_dropped);
        prepare(&bench.tree);
        bench.closure().unwrap();
        bench.closure().unwrap();
        let before = bench.closure().unwrap();
        bench.costs();
        assert!(bench.is_fresh(&before));
        assert_eq!(bench.costs(), (0, 0, 0));
        change(&bench.tree);
        assert_eq!(bench.is_fresh(&before), is_off, "off: {is_off}");
        let is_same = bench.closure().is_ok_and(|now| {
            now.entries.len() == before.entries.len()
                && now.entries.iter().zip(before.entries.iter()).all(|(a, b)| a.entry == b.entry)
        });
        assert_eq!(is_same, is_off, "off: {is_off}");
    }
}

fn any(_: &Event<'_>) -> bool {
    true
}

fn own(event: &Event<'_>) -> bool {
    matches!(event, Event::Changed(_))
}

fn of_names(event: &Event<'_>) -> bool {
    matches!(event, Event::Name { .. } | Event::Moved(_) | Event::Ended(_))
}

fn nothing(_: &Tree) {}

fn append(tree: &Tree, path: &str) {
    std::fs::OpenOptions::new().append(true).open(tree.path(path)).unwrap().write_all(b" ").unwrap();
}

#[test]
fn an_unchanged_unit_is_answered_without_looking() {
    if is_elsewhere() {
        return;
    }
    let mut bench = Bench::new(10, |_| false);
    bench.closure().unwrap();
    bench.closure().unwrap();
    bench.costs();
    let closure = bench.closure().unwrap();
    assert_eq!(bench.costs(), (1, 0, 0), "the output alone");
    assert!(bench.is_fresh(&closure));
    assert_eq!(bench.costs(), (0, 0, 0));
}

#[test]
fn edits_are_seen_in_place_by_rename_and_by_touch() {
    if is_elsewhere() {
        return;
    }
    check(nothing, |tree| append(tree, "p/q/i/x.h"), own);
    check(nothing, |tree| std::fs::rename(tree.path("elsewhere/x.h"), tree.path("p/q/i/x.h")).unwrap(), any);
    let touch = |tree: &Tree| {
        let file = std::fs::File::options().append(true).open(tree.path("p/q/i/x.h")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    check(nothing, touch, own);
}

#[test]
fn names_that_appear_and_vanish_are_seen() {
    if is_elsewhere() {
        return;
    }
    check(nothing, |tree| tree.write("p/q/g/x.h", "int early;"), of_names);
    check(nothing, |tree| tree.write("p/q/absent.h", ""), of_names);
    check(|tree| tree.write("p/q/g/x.h", ""), |tree| std::fs::remove_file(tree.path("p/q/g/x.h")).unwrap(), any);
}

fn swap(tree: &Tree, path: &str, with: &str) {
    std::fs::rename(tree.path(path), tree.path("away")).unwrap();
    std::fs::rename(tree.path(with), tree.path(path)).unwrap();
}

#[test]
fn directories_that_change_places_are_seen_at_any_height() {
    if is_elsewhere() {
        return;
    }
    check(nothing, |tree| swap(tree, "p/q/i", "elsewhere"), of_names);
    // Below it, nothing is told.
    let copy = |tree: &Tree| {
        assert!(Command::new("cp").args(["-r"]).args([tree.path("p"), tree.path("o")]).status().unwrap().success());
        tree.write("o/q/i/x.h", "int of_another_tree;");
    };
    check(copy, |tree| swap(tree, "p", "o"), of_names);
}

#[test]
fn what_was_not_in_a_directory_is_looked_for_in_its_successor() {
    if is_elsewhere() {
        return;
    }
    // Whoever has the old one open keeps its watch from telling that it is gone.
    let replace = |tree: &Tree| {
        let dir = tree.path("p/q/g/below");
        let open = std::fs::File::open(&dir).unwrap();
        std::fs::remove_dir(&dir).unwrap();
        tree.write("p/q/g/below/list", "");
        std::mem::forget(open);
    };
    check(|tree| tree.mkdir("p/q/g/below"), replace, of_names);
}

#[test]
fn a_file_that_took_anothers_place_is_watched_itself() {
    if is_elsewhere() {
        return;
    }
    let mut bench = Bench::new(10, |_| false);
    bench.closure().unwrap();
    bench.closure().unwrap();
    // The old one lives on under another name.
    std::fs::hard_link(bench.tree.path("p/q/i/x.h"), bench.tree.path("old")).unwrap();
    std::fs::rename(bench.tree.path("elsewhere/x.h"), bench.tree.path("p/q/i/x.h")).unwrap();
    bench.closure().unwrap();
    let before = bench.closure().unwrap();
    bench.costs();
    assert!(bench.is_fresh(&before));
    assert_eq!(bench.costs().0, 0);
    append(&bench.tree, "p/q/i/x.h");
    assert!(!bench.is_fresh(&before));
}

#[test]
fn a_link_that_is_switched_is_seen() {
    if is_elsewhere() {
        return;
    }
    let switch = |tree: &Tree| {
        tree.link("v2", "p/q/new");
        std::fs::rename(tree.path("p/q/new"), tree.path("p/q/cur")).unwrap();
    };
    check(nothing, switch, of_names);
}

#[test]
fn a_write_through_another_hard_link_is_seen_whenever_that_was_made() {
    if is_elsewhere() {
        return;
    }
    let link = |tree: &Tree| std::fs::hard_link(tree.path("p/q/i/x.h"), tree.path("elsewhere/y.h")).unwrap();
    check(link, |tree| append(tree, "elsewhere/y.h"), own);
    let both = |tree: &Tree| {
        std::fs::hard_link(tree.path("p/q/i/x.h"), tree.path("elsewhere/y.h")).unwrap();
        append(tree, "elsewhere/y.h");
    };
    check(nothing, both, own);
}

#[test]
fn more_events_than_the_kernel_keeps_end_all_trust() {
    let kept = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    if is_elsewhere() || (kept.trim().parse::<usize>().unwrap() > 50_000 && skipped("the queue of events is too long"))
    {
        return;
    }
    let overflow = |tree: &Tree| {
        let path = tree.path("p/q/g/other.h");
        for _ in 0..25_000 {
            std::fs::remove_file(&path).unwrap();
            std::fs::File::create(&path).unwrap();
        }
        append(tree, "p/q/i/x.h");
    };
    check(nothing, overflow, |event| *event == Event::Lost);
}

#[test]
fn a_file_written_in_the_instant_in_which_it_is_read_is_not_trusted() {
    if is_elsewhere() {
        return;
    }
    // With the true clock, all is too new to be trusted, and no event is passed on: stamps alone must tell.
    let mut bench = Bench::new(0, any);
    bench.closure().unwrap();
    for round in 0..20 {
        let before = bench.closure().unwrap();
        bench.tree.write("p/q/i/x.h", &format!("int y{};", round % 2));
        assert!(!bench.is_fresh(&before), "round {round}");
    }
}

#[test]
fn a_mount_over_a_directory_is_seen() {
    const INSIDE: &str = "MESH_TEST_IN_MOUNT_NAMESPACE";
    if is_elsewhere() {
        return;
    }
    if std::env::var_os(INSIDE).is_some() {
        let mount = |tree: &Tree| {
            let mount = Command::new("mount").arg("--bind").args([tree.path("elsewhere"), tree.path("p/q/i")]).status();
            assert!(mount.unwrap().success());
        };
        return check(nothing, mount, |event| *event == Event::Lost);
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command
    };
    if !unshare().arg("true").output().is_ok_and(|out| out.status.success()) {
        skipped("no namespace for mounts may be made");
        return;
    }
    let name = "inputs::tests::disk::a_mount_over_a_directory_is_seen";
    let me = std::env::current_exe().unwrap();
    let out = unshare().arg(me).args(["--exact", name, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}
