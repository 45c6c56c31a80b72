//! What the store of results promises.

use super::*;
use mesh_proto::{
    job::{Output, Text, Usage},
    path::AbsPath,
};
use proptest::prelude::*;

pub(super) fn kept(name: &str, bytes: usize) -> Kept {
    let path = |end: &str| AbsPath::new(format!("/w/{name}.{end}")).unwrap();
    let output = |end: &str, size: usize| Output {
        path: path(end),
        digest: Digest::of(end.as_bytes()),
        size: size as u64,
        executable: false,
    };
    Kept {
        key: ActionKey(Digest::of(name.as_bytes())),
        executor: PeerId([7; 32]),
        outcome: Outcome {
            exit: Exit::Code(0),
            text: vec![Text { is_stderr: true, bytes: b"a.c:1: warning".to_vec() }],
            outputs: vec![output("d", 3), output("o", bytes)],
            usage: Usage { run_us: 123, ..Usage::default() },
        },
        packed: vec![b"a:b".to_vec(), vec![9; bytes]],
        made_ms: 456,
        signature: Some(Signature::new(&[5; 64])),
    }
}

fn store(bytes_max: u64) -> (tempfile::TempDir, Results) {
    let dir = tempfile::tempdir().unwrap();
    let results = Results::open(dir.path(), bytes_max);
    (dir, results)
}

fn file_of(results: &Results, kept: &Kept) -> PathBuf {
    results.path(&kept.key)
}

fn age(path: &Path, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn what_was_put_comes_back_also_to_another_agent_and_leaves_nothing_beside() {
    let (dir, results) = store(1 << 20);
    assert_eq!(results.get(&kept("a", 100).key), None);
    results.put(&kept("a", 100));
    results.put(&kept("b", 0));
    let other = Results::open(dir.path(), 1 << 20);
    for store in [&results, &other] {
        assert_eq!(store.get(&kept("a", 100).key), Some(kept("a", 100)));
        assert_eq!(store.get(&kept("b", 0).key), Some(kept("b", 0)));
    }
    other.count();
    assert_eq!((other.stats().entries, other.stats().bytes), (2, results.stats().bytes));
    assert_eq!(std::fs::read_dir(results.folder.join(layout::INCOMING)).unwrap().count(), 0);
    results.put(&kept("a", 50));
    assert_eq!(results.get(&kept("a", 0).key), Some(kept("a", 50)), "the newer one");
    other.count();
    assert_eq!(other.stats().bytes, results.stats().bytes);
    results.remove(&kept("a", 0).key);
    assert_eq!(results.get(&kept("a", 0).key), None);
    assert_eq!((other.clear().entries, other.stats().bytes), (1, 0));
}

#[test]
fn what_is_not_the_whole_entry_of_its_key_is_a_miss_and_goes() {
    let (_dir, results) = store(1 << 20);
    let good = kept("a", 1000);
    results.put(&good);
    let whole = std::fs::read(file_of(&results, &good)).unwrap();
    results.put(&kept("b", 10));
    let foreign = std::fs::read(file_of(&results, &kept("b", 10))).unwrap();
    let mut newer = whole.clone();
    newer[MARK.len() - 1] += 1;
    let longer = [&whole[..], b"x"].concat();
    for bad in [&whole[..whole.len() - 1], &whole[..20], b"", &foreign, &newer, &longer] {
        std::fs::write(file_of(&results, &good), bad).unwrap();
        assert_eq!(results.get(&good.key), None);
        assert!(!file_of(&results, &good).exists());
    }
    assert_eq!(results.stats().damaged, 6);
    results.put(&good);
    std::fs::write(file_of(&results, &kept("b", 10)), &foreign[..foreign.len() / 2]).unwrap();
    let found = results.verify();
    assert_eq!((found.entries, found.damaged, results.stats().entries), (2, 1, 1));
    assert_eq!(results.get(&good.key), Some(good));
}

#[test]
fn the_bound_holds_and_what_was_used_last_stays() {
    let (_dir, results) = store(10_000);
    for (name, hours) in [("a", 4), ("b", 3), ("c", 2)] {
        results.put(&kept(name, 3000));
        age(&file_of(&results, &kept(name, 0)), hours);
    }
    assert!(results.get(&kept("a", 0).key).is_some(), "it is the oldest, and was just used");
    results.put(&kept("d", 3000));
    assert!(results.stats().bytes <= 9000);
    let there: Vec<bool> = ["a", "b", "c", "d"].map(|name| results.get(&kept(name, 0).key).is_some()).into();
    assert_eq!(there, [true, false, false, true]);
    results.put(&kept("e", 20_000));
    assert!(results.get(&kept("e", 0).key).is_none(), "what alone would fill it evicts nothing");
    assert!(results.get(&kept("d", 0).key).is_some());
}

#[test]
fn a_compile_that_failed_is_not_kept() {
    let (_dir, results) = store(1 << 20);
    let mut failed = kept("a", 1);
    failed.outcome.exit = Exit::Code(1);
    results.put(&failed);
    assert_eq!((results.get(&failed.key), results.stats().entries), (None, 0));
}

#[test]
fn a_use_is_noted_once_an_hour_and_no_more() {
    let (_dir, results) = store(1 << 20);
    results.put(&kept("a", 1));
    let file = file_of(&results, &kept("a", 1));
    let time = || std::fs::metadata(&file).unwrap().modified().unwrap();
    let made = time();
    results.get(&kept("a", 1).key).unwrap();
    assert_eq!(time(), made);
    age(&file, 2);
    results.get(&kept("a", 1).key).unwrap();
    assert!(time() >= made);
}

#[test]
fn a_folder_that_cannot_be_made_is_survived_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let results = Results::open(&dir.path().join("file"), 1 << 20);
    results.put(&kept("a", 1));
    results.put(&kept("b", 1));
    results.count();
    assert_eq!((results.get(&kept("a", 1).key), results.stats().not_written), (None, 2));
    assert_eq!((results.verify(), results.clear()), (Found::default(), Found::default()));
}

#[test]
fn what_an_agent_began_and_left_goes_when_it_is_old() {
    let (_dir, results) = store(1 << 20);
    results.put(&kept("a", 1));
    let left = results.folder.join(layout::INCOMING).join("1-1");
    std::fs::write(&left, "x").unwrap();
    results.count();
    assert!(left.exists(), "another agent may be writing it");
    age(&left, 2);
    results.count();
    assert!(!left.exists());
}

#[test]
fn agents_on_one_folder_do_each_other_no_harm() {
    let (dir, _) = store(1 << 20);
    let work = |seed: usize| {
        let results = Results::open(dir.path(), 20_000);
        for round in 0..200 {
            let name = format!("{}", (round * 7 + seed) % 20);
            match results.get(&kept(&name, 0).key) {
                Some(got) => assert_eq!(got, kept(&name, 2000)),
                None => assert!(results.put(&kept(&name, 2000))),
            }
        }
        results.stats().damaged
    };
    let damaged: u64 = std::thread::scope(|scope| {
        let works: Vec<_> = (0..4).map(|seed| scope.spawn(move || work(seed))).collect();
        works.into_iter().map(|work| work.join().unwrap()).sum()
    });
    assert_eq!(damaged, 0);
    let after = Results::open(dir.path(), 20_000);
    after.count();
    assert!(after.stats().bytes <= 20_000);
    assert_eq!(after.verify().damaged, 0);
}

proptest! {
    #[test]
    fn a_changed_byte_is_a_miss(at in any::<prop::sample::Index>(), by in 1..=u8::MAX) {
        let good = kept("a", 300);
        let mut bytes = encoded(&good).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        prop_assert_eq!(decoded(&bytes), None);
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        // With a digest that fits, so that what follows it is looked at.
        let file = [&MARK[..], &Digest::of(&bytes).0, &bytes].concat();
        let _ = decoded(&file);
    }
}
