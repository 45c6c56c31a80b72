//! What the store of results does with a hundred thousand of them: as much as with a hundred, for one of them (DO).

use super::{tests::kept, *};
use rustix::fs::inotify;
use std::{mem::MaybeUninit, time::Instant};

/// How many entries each step has.
const STEPS: [usize; 3] = [1_000, 10_000, 100_000];
/// Looks, or new entries, that are counted at each.
const LOOKS: usize = 100;

/// What was opened below a store's folder since the last look: files, directories.
struct Opened(rustix::fd::OwnedFd);

impl Opened {
    fn watch(folder: &Path) -> Self {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let opened = Self(inotify::init(flags).expect("inotify"));
        opened.add(folder);
        for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
            opened.add(&entry.path());
        }
        opened.count();
        opened
    }

    fn add(&self, folder: &Path) {
        inotify::add_watch(&self.0, folder, inotify::WatchFlags::OPEN).expect("watched");
    }

    fn count(&self) -> (usize, usize) {
        let (mut files, mut folders) = (0, 0);
        let mut buffer = [MaybeUninit::uninit(); 64 << 10];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        while let Ok(event) = reader.next() {
            let seen = event.events();
            assert!(!seen.contains(inotify::ReadFlags::QUEUE_OVERFLOW), "too much happened to count it");
            // An opened directory is seen from above and by itself.
            match (seen.contains(inotify::ReadFlags::ISDIR), event.file_name()) {
                (true, None) => folders += 1,
                (true, Some(_)) => {}
                (false, _) => files += 1,
            }
        }
        (files, folders)
    }
}

fn put(results: &Results, names: std::ops::Range<usize>) {
    for n in names {
        assert!(results.put(&kept(&n.to_string(), 1)));
    }
}

/// Does something to each, and says how long one takes, microseconds.
fn each(names: std::ops::Range<usize>, act: impl Fn(ActionKey)) -> u128 {
    let keys: Vec<ActionKey> = names.map(|n| kept(&n.to_string(), 1).key).collect();
    let began = Instant::now();
    let count = keys.len() as u128;
    keys.into_iter().for_each(act);
    began.elapsed().as_micros() / count
}

#[test]
fn a_look_opens_one_file_however_many_there_are_and_eviction_looks_once_for_thousands() {
    let dir = tempfile::tempdir().expect("a directory");
    let results = Results::open(dir.path(), 1 << 40);
    let mut have = 0;
    for entries in STEPS {
        put(&results, have..entries - LOOKS);
        let opened = Opened::watch(&results.folder);
        let began = Instant::now();
        put(&results, entries - LOOKS..entries);
        let put_us = began.elapsed().as_micros() / LOOKS as u128;
        // The files that are written, and nothing to find their places.
        assert_eq!(opened.count(), (LOOKS, 0), "new ones among {entries}");
        have = entries;
        let hit_us = each(entries / 2..entries / 2 + LOOKS, |key| assert!(results.get(&key).is_some()));
        assert_eq!(opened.count(), (LOOKS, 0), "hits among {entries}");
        let miss_us = each(entries..entries + LOOKS, |key| assert!(results.get(&key).is_none()));
        assert_eq!(opened.count(), (0, 0), "misses among {entries}");
        let began = Instant::now();
        results.count();
        let count_ms = began.elapsed().as_millis();
        assert_eq!(results.stats().entries, entries as u64);
        println!("{entries} entries: hit {hit_us} us, miss {miss_us} us, put {put_us} us, count {count_ms} ms");
    }
    // No room for one more: a tenth goes at once, so that the next thousands find room without a look at what there is.
    let full = Results::open(dir.path(), results.stats().bytes);
    full.count();
    assert_eq!(full.stats().entries, have as u64);
    let opened = Opened::watch(&full.folder);
    let began = Instant::now();
    put(&full, have..have + 1);
    println!("{} of {have} evicted in {} ms", have as u64 + 1 - full.stats().entries, began.elapsed().as_millis());
    let (files, folders) = opened.count();
    assert!(files == 1 && (100..=257).contains(&folders), "{files} files, {folders} folders");
    assert!((have * 89 / 100..=have * 91 / 100).contains(&usize::try_from(full.stats().entries).expect("few")));
    put(&full, have + 1..have + 1 + have / 20);
    assert_eq!(opened.count(), (have / 20, 0));
}
