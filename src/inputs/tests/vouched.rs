//! What a watch excuses, and what it does not, in memory.

use super::fake::Bench;
use crate::inputs::Closure;
use crate::inputs::world::Kind;

/// A bench in which all is quiet and watched.
fn quiet() -> Bench {
    let mut bench = Bench::watched();
    for _ in 0..3 {
        bench.fake.wait(3000);
        bench.closure();
    }
    bench.costs();
    bench
}

fn same(a: &Closure, b: &Closure) -> bool {
    a.entries.len() == b.entries.len() && a.entries.iter().zip(b.entries.iter()).all(|(a, b)| a.id == b.id)
}

#[test]
fn what_is_quiet_and_watched_is_not_looked_at() {
    let mut bench = quiet();
    let closure = bench.closure();
    assert_eq!(bench.costs(), (1, 0, 0), "the output alone");
    assert!(bench.is_fresh(&closure));
    assert_eq!(bench.costs(), (0, 0, 0));
}

#[test]
fn without_the_event_a_change_would_be_missed_and_with_it_none_is() {
    for is_deaf in [true, false] {
        let mut bench = quiet();
        let before = bench.closure();
        bench.fake.state().is_deaf = is_deaf;
        bench.fake.put("/w/i/x.h", "int other;");
        assert_eq!(bench.is_fresh(&before), is_deaf);
        assert_eq!(same(&before, &bench.closure()), is_deaf);
        let mut bench = quiet();
        let before = bench.closure();
        bench.fake.state().is_deaf = is_deaf;
        bench.fake.put("/w/g/x.h", "int early;");
        assert_eq!(bench.is_fresh(&before), is_deaf);
        assert_eq!(same(&before, &bench.closure()), is_deaf);
    }
}

#[test]
fn a_file_that_is_not_quiet_is_looked_at_though_it_is_watched() {
    let mut bench = quiet();
    bench.fake.put("/w/i/x.h", "int z;");
    bench.fake.wait(1900);
    let before = bench.closure();
    bench.closure();
    bench.costs();
    bench.closure();
    assert_eq!(bench.costs().0, 2, "the file and the output");
    // Through a mapping, which makes no event.
    bench.fake.state().is_deaf = true;
    bench.fake.put("/w/i/x.h", "int w;");
    assert!(!bench.is_fresh(&before));
}

#[test]
fn lost_events_and_directories_that_move_end_all_trust() {
    let mut bench = quiet();
    let before = bench.closure();
    bench.fake.state().is_deaf = true;
    bench.fake.put("/w/i/x.h", "int other;");
    assert!(bench.is_fresh(&before), "nothing told of it");
    bench.fake.state().lose();
    assert!(!bench.is_fresh(&before));

    let mut bench = quiet();
    bench.closure();
    bench.costs();
    bench.fake.state().rename(b"/w", b"/v");
    bench.fake.state().put(b"/w", Kind::Dir, b"");
    let tick = bench.arrivals.arrive();
    assert!(bench.closure_at(tick).is_err(), "there is no source any more");
    bench.fake.state().remove(b"/w");
    bench.fake.state().rename(b"/v", b"/w");
    bench.costs();
    bench.closure();
    assert!(bench.costs().0 >= 6, "all five paths and the output");
}

#[test]
fn objects_that_come_and_go_beside_the_sources_cost_nothing() {
    let mut bench = quiet();
    let before = bench.closure();
    bench.costs();
    for n in 0..50 {
        bench.fake.put(&format!("/w/.mesh-{n}"), "");
        bench.fake.state().rename(format!("/w/.mesh-{n}").as_bytes(), format!("/w/{n}.o").as_bytes());
        assert!(bench.is_fresh(&before));
        assert!(same(&before, &bench.closure()));
        assert_eq!(bench.costs(), (1, 0, 0), "the output alone");
    }
    // A name that nobody asked for before is looked for in a listing that has it.
    bench.fake.put("/w/y.h", "");
    bench.fake.put("/w/b.c", "#include \"y.h\"");
    bench.plan.source = b"b.c".to_vec();
    let closure = bench.closure();
    assert!(closure.entries.iter().any(|named| named.entry.path.as_bytes() == b"/w/y.h"));
    assert_eq!(bench.costs().1, 1);
}

#[test]
fn a_precompiled_header_that_appears_is_seen_though_nobody_asked_for_it() {
    let mut bench = quiet();
    bench.closure();
    bench.fake.put("/w/i/x.h.gch", "");
    let tick = bench.arrivals.arrive();
    assert!(bench.closure_at(tick).is_err());
}

#[test]
fn what_other_machines_may_change_is_always_looked_at() {
    let mut bench = Bench::watched();
    bench.fake.state().put(b"/net", Kind::Dir, b"");
    bench.fake.put("/net/y.h", "");
    for dir in ["/net", "/net/y.h"] {
        bench.fake.state().nodes.get_mut(dir.as_bytes()).unwrap().0.dev = 2;
    }
    bench.plan.search.user.push(b"/net".to_vec());
    bench.fake.put("/w/a.c", "#include \"x.h\"\n#include <y.h>\n");
    for _ in 0..3 {
        bench.fake.wait(3000);
        bench.closure();
    }
    bench.costs();
    bench.closure();
    assert_eq!(bench.costs().0, 3, "the directory, its file and the output");
}

#[test]
fn one_inode_under_two_names_is_trusted_under_the_first_only() {
    let mut bench = Bench::watched();
    bench.fake.put("/w/g/x.h", "int x;");
    let stat = bench.fake.state().nodes[&b"/w/i/x.h"[..]].0;
    bench.fake.state().nodes.get_mut(&b"/w/g/x.h"[..]).unwrap().0 = stat;
    for _ in 0..3 {
        bench.fake.wait(3000);
        bench.closure();
    }
    bench.costs();
    bench.closure();
    assert_eq!(bench.costs().0, 2, "one of the two and the output");
}

#[test]
fn where_no_more_may_be_watched_the_rest_is_looked_at() {
    let mut bench = Bench::watched();
    bench.fake.state().watches_max = 4;
    for _ in 0..3 {
        bench.fake.wait(3000);
        bench.closure();
    }
    bench.costs();
    let before = bench.closure();
    // The root and three of the five have watches.
    assert_eq!(bench.costs().0, 3);
    bench.fake.put("/w/i/x.h", "int other;");
    assert!(!bench.is_fresh(&before));
    // In the end room is made for what is asked for now.
    bench.fake.state().watches_max = 0;
    bench.fake.wait(3000);
    for _ in 0..10_100 {
        bench.closure();
    }
    bench.costs();
    bench.closure();
    assert_eq!(bench.costs().0, 1);
}
