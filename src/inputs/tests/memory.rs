//! What outlives the agent, and what of it is believed.

use super::fake::Bench;
use crate::inputs::memory::write;
use crate::inputs::{Closure, Graph};
use mesh_proto::closure::Entry;
use std::path::PathBuf;

struct Kept {
    _dir: tempfile::TempDir,
    file: PathBuf,
}

/// A bench and what it saved.
fn saved() -> (Bench, Kept, Closure) {
    let mut bench = Bench::new();
    bench.fake.put("/w/i/x.h", "#include \"y.h\"\n#define NAME \"z.h\"\n#include NAME\n");
    bench.fake.put("/w/i/y.h", "");
    bench.fake.put("/w/i/z.h", "");
    bench.fake.wait(1000);
    let closure = bench.closure();
    let dir = tempfile::tempdir().unwrap();
    let kept = Kept { file: dir.path().join("inputs"), _dir: dir };
    assert_eq!(bench.graph.learned(), 4);
    bench.graph.save_to(&kept.file).unwrap();
    bench.costs();
    (bench, kept, closure)
}

/// The agent ends and starts again.
fn restart(bench: &mut Bench, kept: &Kept) {
    bench.graph = Graph::with_world(Box::new(bench.fake.clone()));
    bench.arrivals = bench.graph.arrivals();
    bench.graph.load_from(&kept.file);
}

fn entries(closure: &Closure) -> Vec<Entry> {
    closure.entries.iter().map(|named| Entry::clone(&named.entry)).collect()
}

#[test]
fn what_did_not_change_is_not_read_after_a_restart() {
    let (mut bench, kept, before) = saved();
    restart(&mut bench, &kept);
    let after = bench.closure();
    assert_eq!(entries(&before), entries(&after));
    let (stats, _, reads) = bench.costs();
    assert_eq!((stats >= 5, reads), (true, 0), "looked at, not read");
    assert_eq!(bench.graph.learned(), 0);
    assert!(bench.is_fresh(&after));
}

#[test]
fn what_changed_while_the_agent_was_away_is_read() {
    let (mut bench, kept, _) = saved();
    bench.fake.put("/w/i/x.h", "#include \"v.h\"\n#define NAME \"z.h\"\n#include NAME\n");
    bench.fake.put("/w/i/v.h", "");
    restart(&mut bench, &kept);
    let closure = bench.closure();
    assert_eq!(bench.costs().2, 2, "the changed one and the new one");
    assert!(closure.entries.iter().any(|named| named.entry.path.as_bytes() == b"/w/i/v.h"));
    assert!(!closure.entries.iter().any(|named| named.entry.path.as_bytes() == b"/w/i/y.h"));
}

#[test]
fn what_was_racy_when_it_was_read_is_not_kept() {
    let (mut bench, kept, _) = saved();
    bench.fake.put("/w/i/y.h", "int a;");
    bench.closure();
    bench.graph.save_to(&kept.file).unwrap();
    // Within one stamp and of one size: no stat can tell.
    bench.fake.put("/w/i/y.h", "int b;");
    bench.fake.wait(1000);
    restart(&mut bench, &kept);
    bench.costs();
    bench.closure();
    assert_eq!(bench.costs().2, 1);
}

#[test]
fn what_nobody_asked_for_is_kept_for_another_time() {
    let (mut bench, kept, before) = saved();
    restart(&mut bench, &kept);
    bench.fake.put("/w/b.c", "");
    bench.fake.wait(1000);
    bench.plan.source = b"b.c".to_vec();
    bench.closure();
    bench.graph.save_to(&kept.file).unwrap();
    restart(&mut bench, &kept);
    bench.plan.source = b"a.c".to_vec();
    bench.costs();
    assert_eq!(entries(&bench.closure()).len(), entries(&before).len());
    assert_eq!(bench.costs().2, 0);
}

#[test]
fn what_nobody_asks_for_is_left_out_in_the_end() {
    let (mut bench, kept, _) = saved();
    bench.fake.put("/w/b.c", "");
    bench.fake.wait(1000);
    bench.plan.source = b"b.c".to_vec();
    let size = |kept: &Kept| std::fs::metadata(&kept.file).unwrap().len();
    let before = size(&kept);
    for _ in 0..25 {
        restart(&mut bench, &kept);
        bench.closure();
        bench.graph.save_to(&kept.file).unwrap();
    }
    assert!(size(&kept) < before);
}

#[test]
fn a_file_that_is_odd_in_any_way_is_as_good_as_none() {
    let (mut bench, kept, before) = saved();
    let good = std::fs::read(&kept.file).unwrap();
    let mut check = |bytes: &[u8], reads: usize| {
        std::fs::write(&kept.file, bytes).unwrap();
        restart(&mut bench, &kept);
        bench.costs();
        assert_eq!(entries(&bench.closure()), entries(&before));
        assert_eq!(bench.costs().2, reads);
    };
    check(&good, 0);
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        check(&bad, 4);
    }
    check(&good[..good.len() - 1], 4);
    check(&[&good[..], b"x"].concat(), 4);
    check(b"", 4);
    // Whole, but not what it says.
    write(&kept.file, &[0xff; 64]).unwrap();
    let bytes = std::fs::read(&kept.file).unwrap();
    check(&bytes, 4);
}

#[test]
fn no_file_and_no_directory_for_it_are_no_trouble() {
    let (mut bench, kept, before) = saved();
    std::fs::remove_file(&kept.file).unwrap();
    restart(&mut bench, &kept);
    assert_eq!(entries(&bench.closure()), entries(&before));
    let nowhere = kept.file.join("below");
    assert!(bench.graph.save_to(&nowhere).is_err());
    bench.graph.save_to(&kept.file).unwrap();
    assert!(bench.graph.save_to(&nowhere).is_err(), "the directory is a file");
}
