//! A file system, its watches and a clock in memory, and a unit in it.

use super::plan;
use crate::compiler::invocation::Family;
use crate::compiler::plan::Plan;
use crate::inputs::watch::{Event, WatchId, Watcher};
use crate::inputs::world::{Kind, NameSink, Stat, Time, World};
use crate::inputs::{Arrivals, Closure, Graph, Tick, Undecidable, Want};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Debug, Default, Clone)]
pub(super) struct State {
    pub(super) nodes: BTreeMap<Vec<u8>, (Stat, Vec<u8>)>,
    pub(super) now_ms: i64,
    /// Stamps keep whole seconds only.
    pub(super) is_coarse: bool,
    pub(super) inodes: u64,
    pub(super) stats: usize,
    pub(super) lists: usize,
    pub(super) reads: usize,
    /// What vanishes when a file is read.
    pub(super) removed_by_read: Option<(String, String)>,
    /// What happens right after the next read of a file has seen its stat.
    pub(super) during_read: Option<(String, String)>,
    /// The same, every time.
    pub(super) always: bool,
    /// By inode; kept until the inode is gone.
    watches: BTreeMap<u64, WatchId>,
    events: Vec<Heard>,
    /// No more than this, unless it is zero.
    pub(super) watches_max: usize,
    /// What no event is made of.
    pub(super) is_deaf: bool,
}

#[derive(Debug, Clone)]
enum Heard {
    Name(WatchId, Vec<u8>),
    Changed(WatchId),
    Moved(WatchId),
    Ended(WatchId),
    Lost,
}

fn parent(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|b| *b == b'/').unwrap().max(1)]
}

impl State {
    pub(super) fn stamp(&self) -> Time {
        let ns = if self.is_coarse { 0 } else { (self.now_ms % 1000) as u32 * 1_000_000 + 1 };
        Time { s: self.now_ms / 1000, ns }
    }

    pub(super) fn put(&mut self, path: &[u8], kind: Kind, content: &[u8]) {
        let stamp = self.stamp();
        let is_new = !self.nodes.get(path).is_some_and(|(stat, _)| stat.kind == kind);
        if is_new {
            if let Some((stat, _)) = self.nodes.get(path) {
                self.end(stat.ino);
            }
            self.inodes += 1;
            self.name_changed(path);
        } else {
            let watch = self.watches.get(&self.nodes[path].0.ino).copied();
            self.tell(watch.map(Heard::Changed));
        }
        let ino = if is_new { self.inodes } else { self.nodes[path].0.ino };
        let size = content.len() as u64;
        let stat = Stat { kind, dev: 1, ino, size, mode: 0o644, mtime: stamp, ctime: stamp };
        self.nodes.insert(path.to_vec(), (stat, content.to_vec()));
    }

    fn tell(&mut self, event: Option<Heard>) {
        if !self.is_deaf {
            self.events.extend(event);
        }
    }

    /// Events were lost.
    pub(super) fn lose(&mut self) {
        self.events = vec![Heard::Lost];
    }

    /// Something came or went: the directory is stamped, and its watch tells.
    fn name_changed(&mut self, path: &[u8]) {
        let stamp = self.stamp();
        if let Some((stat, _)) = self.nodes.get_mut(parent(path)) {
            (stat.mtime, stat.ctime) = (stamp, stamp);
            let watch = self.watches.get(&stat.ino).copied();
            let name = path[path.iter().rposition(|b| *b == b'/').unwrap() + 1..].to_vec();
            self.tell(watch.map(|watch| Heard::Name(watch, name)));
        }
    }

    /// An inode is gone.
    fn end(&mut self, ino: u64) {
        let watch = self.watches.remove(&ino);
        self.tell(watch.map(Heard::Ended));
    }

    /// `rm -r`.
    pub(super) fn remove(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        let gone: Vec<Vec<u8>> =
            self.nodes.keys().rev().filter(|name| *name == path || name.starts_with(&below)).cloned().collect();
        for path in gone {
            let (stat, _) = self.nodes.remove(&path).unwrap();
            self.name_changed(&path);
            self.end(stat.ino);
        }
    }

    /// `mv -T`, to where nothing is.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) {
        let below = [from, b"/"].concat();
        let moved: Vec<Vec<u8>> =
            self.nodes.keys().filter(|name| *name == from || name.starts_with(&below)).cloned().collect();
        for path in moved {
            let node = self.nodes.remove(&path).unwrap();
            self.nodes.insert([to, &path[from.len()..]].concat(), node);
        }
        self.name_changed(from);
        self.name_changed(to);
        let watch = self.watches.get(&self.nodes[to].0.ino).copied();
        self.tell(watch.map(Heard::Moved));
    }

    pub(super) fn get(&self, path: &[u8]) -> Result<&(Stat, Vec<u8>), Errno> {
        self.nodes.get(path).ok_or(Errno::NOENT)
    }
}

/// Files in memory, shared with the test.
#[derive(Debug, Clone, Default)]
pub(super) struct Fake {
    pub(super) shared: Arc<Mutex<State>>,
    /// It has watches.
    pub(super) is_watched: bool,
}

impl Fake {
    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.lock().unwrap()
    }

    pub(super) fn wait(&self, ms: i64) {
        self.state().now_ms += ms;
    }

    pub(super) fn put(&self, path: &str, text: &str) {
        self.state().put(path.as_bytes(), Kind::File, text.as_bytes());
    }

    pub(super) fn remove(&self, path: &str) {
        self.state().remove(path.as_bytes());
    }
}

/// Hears of the changes in such files.
#[derive(Debug)]
struct Ear(Fake);

impl Watcher for Ear {
    fn watch(&mut self, path: &[u8], kind: Kind) -> Result<WatchId, Errno> {
        let mut state = self.0.state();
        let stat = state.get(path)?.0;
        if stat.kind != kind {
            return Err(Errno::NOTDIR);
        }
        // As the kernel: one watch an inode, and numbers are not used again.
        let next = 1 + i32::try_from(stat.ino).unwrap();
        Ok(*state.watches.entry(stat.ino).or_insert(next))
    }

    fn is_local(&self, path: &[u8]) -> bool {
        !path.starts_with(b"/net")
    }

    fn drain(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        for event in std::mem::take(&mut self.0.state().events) {
            sink(match &event {
                Heard::Name(watch, name) => Event::Name { watch: *watch, name },
                Heard::Changed(watch) => Event::Changed(*watch),
                Heard::Moved(watch) => Event::Moved(*watch),
                Heard::Ended(watch) => Event::Ended(*watch),
                Heard::Lost => Event::Lost,
            });
        }
    }

    fn watches_max(&self) -> usize {
        match self.0.state().watches_max {
            0 => 1000,
            max => max,
        }
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
        if let Some((_, gone)) = state.removed_by_read.take_if(|(read, _)| read.as_bytes() == path) {
            state.remove(gone.as_bytes());
            // The disk is slow.
            state.now_ms += 100;
        }
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

    fn watcher(&self) -> Option<Box<dyn Watcher>> {
        if self.is_watched { Some(Box::new(Ear(self.clone()))) } else { None }
    }
}

pub(super) struct Bench {
    pub(super) fake: Fake,
    pub(super) graph: Graph,
    pub(super) arrivals: Arrivals,
    pub(super) plan: Plan,
}

impl Bench {
    /// `/w/a.c` includes `x.h`, which is in `/w/i`, from a minute ago.
    pub(super) fn new() -> Self {
        Self::with(Fake::default())
    }

    /// The same with watches.
    pub(super) fn watched() -> Self {
        Self::with(Fake { is_watched: true, ..Fake::default() })
    }

    fn with(fake: Fake) -> Self {
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

    pub(super) fn closure_at(&mut self, requested_at: Tick) -> Result<Closure, Undecidable> {
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

    pub(super) fn closure(&mut self) -> Closure {
        let tick = self.arrivals.arrive();
        self.closure_at(tick).unwrap()
    }

    pub(super) fn is_fresh(&mut self, closure: &Closure) -> bool {
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
    pub(super) fn costs(&self) -> (usize, usize, usize) {
        let mut state = self.fake.state();
        (std::mem::take(&mut state.stats), std::mem::take(&mut state.lists), std::mem::take(&mut state.reads))
    }
}

/// One change of the tree: which place, what is put there, and how long it is until the next.
pub(super) fn change(state: &mut State, (place, what, wait_ms): (usize, usize, i64)) {
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
    if !state.nodes.get(parent(path)).is_some_and(|(stat, _)| stat.kind == Kind::Dir) {
        return;
    }
    let (kind, content) = match what {
        0..6 => (Kind::File, TEXTS[what]),
        6..11 => (Kind::Link, TARGETS[what - 6]),
        11..13 => (Kind::Dir, ""),
        13 => return state.remove(path),
        // Whole trees change places.
        _ => {
            let to = PLACES[what % 12].as_bytes();
            let is_dir = state.nodes.get(parent(to)).is_some_and(|(stat, _)| stat.kind == Kind::Dir);
            if state.nodes.contains_key(path) && !state.nodes.contains_key(to) && is_dir && !to.starts_with(path) {
                state.rename(path, to);
            }
            state.now_ms += wait_ms;
            return;
        }
    };
    let is_there = |state: &State| state.nodes.get(path).map(|(stat, _)| stat.kind);
    if is_there(state) == Some(Kind::Dir) && kind == Kind::Dir {
        return;
    }
    if is_there(state).is_some_and(|there| there != Kind::File || kind != Kind::File) {
        state.remove(path);
    }
    state.put(path, kind, content.as_bytes());
    state.now_ms += wait_ms;
}

impl Fake {
    /// Whether no component before the last is a link.
    pub(super) fn is_real(&self, path: &[u8]) -> bool {
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

/// Milliseconds between two changes: hurried ones, and such that leave all quiet.
pub(super) fn waits() -> impl proptest::strategy::Strategy<Value = i64> {
    proptest::prop_oneof![0_i64..40, 3000_i64..3001]
}
