//! What was told of a path is taken back when it is no longer so, whoever asks.

use super::fake::{Bench, change, waits};
use crate::inputs::world::Kind;
use crate::inputs::{Cursor, Gone};
use mesh_proto::closure::Node;
use mesh_proto::key::Keyed;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one peer knows.
#[derive(Default)]
struct Peer {
    told: BTreeMap<u32, Arc<Keyed>>,
    at: Cursor,
}

impl Peer {
    /// Tells of a unit's closure, and checks what lies in its directories. Whether there was one.
    fn check(&mut self, bench: &mut Bench) -> Result<bool, String> {
        let tick = bench.arrivals.arrive();
        let Ok(closure) = bench.closure_at(tick) else { return Ok(false) };
        match bench.graph.retired().between(self.at, closure.retired_at) {
            Gone::Some(ids) => ids.iter().for_each(|id| drop(self.told.remove(id))),
            Gone::All => self.told.clear(),
        }
        self.at = closure.retired_at;
        self.told.extend(closure.entries.iter().map(|named| (named.id, Arc::clone(&named.entry))));
        let is_dir = |named: &&crate::inputs::Named| named.entry.node == Node::Directory;
        let state = bench.fake.state();
        for dir in closure.entries.iter().filter(is_dir) {
            let below = [dir.entry.path.as_bytes(), b"/"].concat();
            for entry in self.told.values() {
                let path = entry.path.as_bytes();
                if path.strip_prefix(&below[..]).is_none_or(|name| name.contains(&b'/')) {
                    continue;
                }
                let is_true = match (&entry.node, state.nodes.get(path)) {
                    (Node::File(_), Some((stat, _))) => stat.kind == Kind::File,
                    (Node::Directory, Some((stat, _))) => stat.kind == Kind::Dir,
                    (Node::Symlink { target }, Some((stat, text))) => stat.kind == Kind::Link && target == text,
                    (_, None) => false,
                };
                if !is_true {
                    return Err(format!("{entry:?}"));
                }
            }
        }
        Ok(true)
    }
}

fn choose(bench: &mut Bench, unit: usize) {
    let dirs: &[&str] = [&["g", "i"][..], &["i/s"], &["g/s", "i"], &[], &["g/s/../s", "absent"]][unit % 5];
    bench.plan.search.user = dirs.iter().map(|dir| dir.as_bytes().to_vec()).collect();
    bench.plan.source = if unit < 5 { b"a.c".to_vec() } else { b"y.h".to_vec() };
}

#[test]
fn a_name_that_vanishes_is_taken_back_though_no_unit_asks_for_it() {
    for mut bench in [Bench::new(), Bench::watched()] {
        let mut peer = Peer::default();
        bench.fake.put("/w/b.c", "int b;");
        assert_eq!(peer.check(&mut bench), Ok(true));
        bench.plan.source = b"b.c".to_vec();
        bench.fake.wait(3000);
        assert_eq!(peer.check(&mut bench), Ok(true));
        assert_eq!(peer.check(&mut bench), Ok(true));
        let count = peer.told.len();
        bench.fake.remove("/w/i/x.h");
        assert_eq!(peer.check(&mut bench), Ok(true));
        assert_eq!(peer.told.len(), count - 1);
        bench.fake.wait(3000);
        // The whole directory, which that unit does not search.
        bench.plan.search.user.clear();
        assert_eq!(peer.check(&mut bench), Ok(true));
        bench.fake.remove("/w/i");
        assert_eq!(peer.check(&mut bench), Ok(true));
        assert_eq!(peer.told.len(), count - 2);
    }
}

#[test]
fn a_directory_that_vanishes_takes_all_below_it_back() {
    for mut bench in [Bench::new(), Bench::watched()] {
        let mut peer = Peer::default();
        bench.fake.put("/w/b.c", "int b;");
        assert_eq!(peer.check(&mut bench), Ok(true));
        bench.plan.source = b"b.c".to_vec();
        bench.plan.search.user.clear();
        bench.fake.wait(3000);
        bench.fake.remove("/w/i");
        assert_eq!(peer.check(&mut bench), Ok(true));
        let paths: Vec<_> = peer.told.values().map(|entry| entry.path.as_bytes().to_vec()).collect();
        assert!(paths.iter().all(|path| !path.starts_with(b"/w/i")), "{peer:?}", peer = peer.told);
    }
}

#[test]
fn a_directory_that_only_its_own_name_leads_to_takes_all_below_it_back_too() {
    for mut bench in [Bench::new(), Bench::watched()] {
        let mut peer = Peer::default();
        // Nobody lists the one above it.
        bench.fake.state().put(b"/v", Kind::Dir, b"");
        bench.fake.state().put(b"/v/i", Kind::Dir, b"");
        bench.fake.put("/v/i/x.h", "");
        bench.plan.search.user = vec![b"/v/i".to_vec()];
        for _ in 0..3 {
            bench.fake.wait(3000);
            assert_eq!(peer.check(&mut bench), Ok(true));
        }
        bench.fake.remove("/v/i");
        assert_eq!(peer.check(&mut bench), Ok(true));
        let paths: Vec<_> = peer.told.values().map(|entry| entry.path.as_bytes().to_vec()).collect();
        assert!(paths.iter().all(|path| !path.starts_with(b"/v/i")), "{paths:?}");
    }
}

#[test]
fn what_vanishes_while_the_closure_is_made_is_not_told_for_long() {
    for mut bench in [Bench::new(), Bench::watched()] {
        let mut peer = Peer::default();
        bench.fake.state().put(b"/w/b", Kind::Dir, b"");
        bench.fake.state().put(b"/w/b/e.h", Kind::Link, b"../i/x.h");
        bench.fake.put("/w/b/f.h", "");
        bench.fake.put("/w/c.c", "");
        bench.fake.wait(3000);
        bench.plan.forced_includes = vec![b"/w/b/e.h".to_vec(), b"/w/b/f.h".to_vec()];
        // The link was looked at; what it leads to, and the names beside it, were not.
        bench.fake.state().removed_by_read = Some(("/w/b/f.h".into(), "/w/b/e.h".into()));
        let _ = peer.check(&mut bench);
        assert!(!bench.fake.state().nodes.contains_key(&b"/w/b/e.h"[..]));
        bench.plan.forced_includes.clear();
        bench.plan.source = b"c.c".to_vec();
        bench.plan.search.user = vec![b"b".to_vec()];
        bench.fake.wait(3000);
        assert_eq!(peer.check(&mut bench), Ok(true));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]
    #[test]
    fn all_that_a_peer_was_told_in_a_closures_directories_is_there(
        steps in proptest::collection::vec((0_usize..12, 0_usize..26, waits(), 0_usize..16), 1..60),
        is_watched in proptest::bool::ANY,
    ) {
        let mut bench = if is_watched { Bench::watched() } else { Bench::new() };
        let mut peer = Peer::default();
        for (place, what, wait_ms, unit) in steps {
            change(&mut bench.fake.state(), (place, what, wait_ms));
            // Not after each change does somebody compile.
            if unit < 10 {
                choose(&mut bench, unit);
                let checked = peer.check(&mut bench);
                proptest::prop_assert!(checked.is_ok(), "{checked:?}");
            }
        }
    }
}
