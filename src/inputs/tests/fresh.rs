//! Freshness, with a file system and a clock made for it.

use super::fake::{Bench, Fake, change, waits};
use crate::compiler::invocation::Family;
use crate::inputs::world::Kind;
use crate::inputs::{Closure, Graph, ReadError, Undecidable, Want};
use crate::reason::Reason;
use mesh_proto::closure::Node;
use rustix::io::Errno;
use std::sync::Arc;

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
fn a_directory_that_came_back_is_listed_for_an_earlier_request_too() {
    let mut bench = Bench::new();
    let early = bench.arrivals.arrive();
    bench.closure();
    bench.fake.wait(1000);
    bench.fake.state().put(b"/w/x.h", Kind::File, b"");
    bench.fake.remove("/w/i");
    bench.fake.put("/w/i", "");
    bench.closure();
    bench.fake.remove("/w/i");
    bench.fake.state().put(b"/w/i", Kind::Dir, b"");
    bench.fake.put("/w/i/x.h", "");
    // A unit that passes by it and does not search it.
    let user = std::mem::take(&mut bench.plan.search.user);
    bench.plan.extra_inputs.push(b"i/x.h".to_vec());
    bench.closure();
    bench.plan.extra_inputs.clear();
    bench.plan.search.user = user;
    assert_eq!(names(&bench.closure_at(early).unwrap()), "/w /w/a.c /w/g /w/i /w/i/x.h /w/x.h");
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
fn a_name_that_appears_in_a_directory_below_a_search_directory_is_seen() {
    for mut bench in [Bench::new(), Bench::watched()] {
        bench.fake.put("/w/a.c", "#include <s/y.h>\n");
        bench.fake.state().put(b"/w/i/s", Kind::Dir, b"");
        for _ in 0..3 {
            bench.fake.wait(3000);
            assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/i /w/i/s");
        }
        bench.fake.put("/w/i/s/y.h", "");
        assert_eq!(names(&bench.closure()), "/w /w/a.c /w/g /w/i /w/i/s /w/i/s/y.h");
    }
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

fn entries(closure: &Closure) -> Vec<Arc<mesh_proto::key::Keyed>> {
    closure.entries.iter().map(|named| Arc::clone(&named.entry)).collect()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_changes_an_old_graph_says_what_a_new_one_says(
        changes in proptest::collection::vec((0_usize..12, 0_usize..26, waits(), proptest::bool::ANY), 1..40),
        is_watched in proptest::bool::ANY,
    ) {
        let mut bench = if is_watched { Bench::watched() } else { Bench::new() };
        let mut last: Option<Closure> = None;
        for (place, what, wait_ms, is_asked) in changes {
            change(&mut bench.fake.state(), (place, what, wait_ms));
            let was_fresh = last.as_ref().filter(|_| is_asked).map(|closure| bench.is_fresh(closure));
            let tick = bench.arrivals.arrive();
            let old = bench.closure_at(tick);
            let world = Fake { is_watched: false, ..bench.fake.clone() };
            let graph = Graph::with_world(Box::new(world));
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
