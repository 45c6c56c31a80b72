//! What compiles gave, by the keys of their actions, as plain files (DO).
//!
//! One file an entry: a mark, the BLAKE3 digest of all that follows, the length of the head, the head, and the outputs' bytes
//! one after the other, packed as they came over the wire. An entry becomes visible by a rename. Nothing is ever synchronised
//! to disk: a file that is not wholly what its digest says is no entry, and is removed. Nothing of the folder is held in
//! memory but how much room it takes, so that agents can share it and a start costs nothing, whatever it holds.
//!
//! Rejected: an index (it must be read before the first unit, and two agents would fight over it); large files of many
//! entries (removing from them is copying them).

use super::{
    evict::{self, Candidate},
    layout,
};
use mesh_proto::{
    digest::Digest,
    job::{Exit, Outcome},
    key::ActionKey,
    membership::Signature,
    peer::PeerId,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{DirBuilder, File, Metadata, OpenOptions},
    hash::BuildHasher,
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// How every file begins; the last byte is the format's version.
const MARK: [u8; 8] = *b"meshres\x02";
/// Mark, digest and length of the head, bytes.
const FRONT_BYTES: usize = MARK.len() + DIGEST_BYTES + LENGTH_BYTES;
const DIGEST_BYTES: usize = 32;
const LENGTH_BYTES: usize = 4;
/// An entry that takes more room is not kept, bytes: it is in memory as a whole when it is used.
const ENTRY_BYTES_MAX: u64 = 64 << 20;
/// Entries that are kept; many small ones count as if each took its share of the room.
const ENTRIES_MAX: u64 = 1 << 20;
/// A use is noted in a file's time no more often than this.
const TOUCH_EVERY: Duration = Duration::from_secs(3600);
/// A file that somebody began to write and that is older than this is nobody's any more.
const INCOMING_AGE_MAX: Duration = Duration::from_secs(3600);
/// What part of the bound an eviction leaves free: so that not every entry evicts.
const EVICT_FREE_DIVISOR: u64 = 10;

/// What a compile that ended with status 0 gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The action.
    pub key: ActionKey,
    /// The machine that ran it.
    pub executor: PeerId,
    /// What came of it; the compiler ended with status 0.
    pub outcome: Outcome,
    /// The outputs' bytes, in their order, packed as for the wire.
    pub packed: Vec<Vec<u8>>,
    /// When it ended, milliseconds since 1970, by that machine's clock.
    pub made_ms: u64,
    /// What that machine signed of it ([`mesh_proto::exchange::results::Receipt`]), if it did.
    pub signature: Option<Signature>,
}

/// All of an entry but the outputs' bytes.
#[derive(Serialize, Deserialize)]
struct Head {
    key: ActionKey,
    executor: PeerId,
    outcome: Outcome,
    packed_bytes: Vec<u32>,
    made_ms: u64,
    signature: Option<Signature>,
}

/// The folder as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries, as last counted, with those that were added since.
    pub entries: u64,
    /// The room that they take, bytes.
    pub bytes: u64,
    /// The room that they may take, bytes.
    pub bytes_max: u64,
    /// Entries that could not be written.
    pub not_written: u64,
    /// Entries that were not what their digest says, and are gone.
    pub damaged: u64,
}

/// What a look at every entry found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Entries.
    pub entries: u64,
    /// The room that they take or took, bytes.
    pub bytes: u64,
    /// Of these, entries that were damaged, and are gone.
    pub damaged: u64,
}

/// The results that this machine keeps. Every call blocks on the disk.
#[derive(Debug)]
pub struct Results {
    folder: PathBuf,
    bytes_max: u64,
    /// How the names of what this one writes begin: agents in containers may share a folder and have the same process id.
    prefix: String,
    serial: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    not_written: AtomicU64,
    damaged: AtomicU64,
    /// Held by whoever looks at all entries.
    walking: Mutex<()>,
}

impl Results {
    /// The store below this cache directory, which may take so many bytes. Touches nothing: [`Results::count`] is to be called
    /// when there is time.
    #[must_use]
    pub fn open(cache: &Path, bytes_max: u64) -> Self {
        let zero = || AtomicU64::new(0);
        let (serial, entries, bytes, not_written, damaged) = (zero(), zero(), zero(), zero(), zero());
        let folder = cache.join(layout::RESULTS);
        let prefix = format!("{:016x}", std::hash::RandomState::new().hash_one(std::process::id()));
        Self { folder, bytes_max, prefix, serial, entries, bytes, not_written, damaged, walking: Mutex::default() }
    }

    /// The entry of an action. One that is not whole is removed.
    #[must_use]
    pub fn get(&self, key: &ActionKey) -> Option<Kept> {
        let path = self.path(key);
        let mut file = File::open(&path).ok()?;
        match read(&mut file, key) {
            Ok(kept) => {
                touch(&file);
                Some(kept)
            }
            Err(_) => {
                self.drop_damaged(&path);
                None
            }
        }
    }

    /// Whether there is an entry of an action, whole or not.
    #[must_use]
    pub fn has(&self, key: &ActionKey) -> bool {
        self.path(key).exists()
    }

    /// The actions of which there are entries, so many at most.
    #[must_use]
    pub fn keys(&self, most: usize) -> Vec<ActionKey> {
        let mut keys = Vec::new();
        self.each(|_, key, _| {
            if keys.len() < most {
                keys.push(key);
            }
        });
        keys
    }

    /// Keeps an entry, over one of the same action. That it could not be written is no error: there is none then. Says
    /// whether there is one.
    pub fn put(&self, kept: &Kept) -> bool {
        let Some(bytes) = encoded(kept).filter(|bytes| bytes.len() as u64 <= self.bytes_max) else { return false };
        if let Err(error) = self.write(&kept.key, &bytes) {
            if self.not_written.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::debug!(%error, "a result could not be kept; further ones are only counted");
            }
            return false;
        }
        let entries = self.entries.load(Ordering::Relaxed);
        if self.bytes.load(Ordering::Relaxed) > self.bytes_max || entries > ENTRIES_MAX {
            self.evict();
        }
        true
    }

    /// Removes an action's entry.
    pub fn remove(&self, key: &ActionKey) {
        self.unlink(&self.path(key));
    }

    /// Removes every entry; says what there was.
    pub fn clear(&self) -> Found {
        let _walking = self.walking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Found::default();
        self.each(|path, _, metadata| {
            if std::fs::remove_file(path).is_ok() {
                found.entries += 1;
                found.bytes += metadata.len();
            }
        });
        self.survey();
        found
    }

    /// Reads every entry, and removes those that are not whole.
    pub fn verify(&self) -> Found {
        let _walking = self.walking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Found::default();
        self.each(|path, key, metadata| {
            let whole = File::open(path).and_then(|mut file| read(&mut file, &key));
            match whole {
                Err(error) if error.kind() == ErrorKind::NotFound => return,
                Err(_) => {
                    self.drop_damaged(path);
                    found.damaged += 1;
                }
                Ok(_) => {}
            }
            found.entries += 1;
            found.bytes += metadata.len();
        });
        self.survey();
        found
    }

    /// Counts, and changes nothing.
    pub fn survey(&self) -> Found {
        let mut found = Found::default();
        self.each(|_, _, metadata| {
            found.entries += 1;
            found.bytes += metadata.len();
        });
        self.entries.store(found.entries, Ordering::Relaxed);
        self.bytes.store(found.bytes, Ordering::Relaxed);
        found
    }

    /// Takes stock, removes what is too much and what somebody began to write and left.
    pub fn count(&self) {
        let left = |path: &Path| {
            let age =
                path.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
            age.is_some_and(|age| age > INCOMING_AGE_MAX)
        };
        for entry in std::fs::read_dir(self.folder.join(layout::INCOMING)).into_iter().flatten().flatten() {
            if left(&entry.path()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        self.evict();
    }

    /// What the folder holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            entries: self.entries.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_max: self.bytes_max,
            not_written: self.not_written.load(Ordering::Relaxed),
            damaged: self.damaged.load(Ordering::Relaxed),
        }
    }

    fn path(&self, key: &ActionKey) -> PathBuf {
        self.folder.join(layout::blob(&key.0))
    }

    fn write(&self, key: &ActionKey, bytes: &[u8]) -> io::Result<()> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let incoming = self.folder.join(layout::INCOMING);
        let from = incoming.join(format!("{}-{serial}", self.prefix));
        let written = self.write_and_rename(&incoming, &from, key, bytes);
        if written.is_err() {
            let _ = std::fs::remove_file(&from);
        }
        written
    }

    fn write_and_rename(&self, incoming: &Path, from: &Path, key: &ActionKey, bytes: &[u8]) -> io::Result<()> {
        let open = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(from);
        let mut file = with_folder(incoming, open)?;
        file.write_all(bytes)?;
        drop(file);
        let to = self.path(key);
        let old = std::fs::metadata(&to).map(|old| old.len());
        with_folder(to.parent().unwrap_or(&self.folder), || std::fs::rename(from, &to))?;
        match old {
            Ok(old) => self.take_off(0, old),
            Err(_) => {
                self.entries.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Subtracts, from sums that another agent on the same folder may have made untrue.
    fn take_off(&self, entries: u64, bytes: u64) {
        let less = |sum: &AtomicU64, by: u64| {
            let _ = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sum| Some(sum.saturating_sub(by)));
        };
        less(&self.entries, entries);
        less(&self.bytes, bytes);
    }

    fn unlink(&self, path: &Path) {
        let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if std::fs::remove_file(path).is_ok() {
            self.take_off(1, bytes);
        }
    }

    fn drop_damaged(&self, path: &Path) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        self.unlink(path);
    }

    /// Counts what is there, and removes the entries that were not used for the longest time if it is too much. Whoever finds
    /// somebody else at it leaves it to them.
    fn evict(&self) {
        let Ok(_walking) = self.walking.try_lock() else { return };
        let (mut candidates, mut found) = (Vec::new(), Found::default());
        self.each(|_, key, metadata| {
            found.entries += 1;
            found.bytes += metadata.len();
            let used = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            let last_used = used.map_or(0, |used| u64::try_from(used.as_nanos()).unwrap_or(u64::MAX));
            let bytes = metadata.len().max(self.bytes_max / ENTRIES_MAX);
            // What is beyond is for the next time.
            if candidates.len() < 2 * ENTRIES_MAX as usize {
                candidates.push(Candidate { key, bytes, last_used, pinned: false });
            }
        });
        self.entries.store(found.entries, Ordering::Relaxed);
        self.bytes.store(found.bytes, Ordering::Relaxed);
        if candidates.iter().map(|candidate| candidate.bytes).sum::<u64>() > self.bytes_max {
            let left = self.bytes_max - self.bytes_max / EVICT_FREE_DIVISOR;
            evict::victims(candidates, left).iter().for_each(|key| self.remove(key));
        }
    }

    /// Every entry with its path, its key and its metadata.
    fn each(&self, mut see: impl FnMut(&Path, ActionKey, &Metadata)) {
        let folders = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for folder in folders.filter(|folder| folder.file_name() != layout::INCOMING) {
            for entry in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let key = layout::blob_digest(entry.file_name().as_encoded_bytes()).map(ActionKey);
                if let (Some(key), Ok(metadata)) = (key, entry.metadata()) {
                    see(&entry.path(), key, &metadata);
                }
            }
        }
    }
}

/// Does it, and if a folder was missing for it once more after making that.
fn with_folder<T>(folder: &Path, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match act() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            act()
        }
        done => done,
    }
}

/// Notes in the file's time that it is used, so that eviction knows; on a disk that cannot be written to nothing is evicted.
fn touch(file: &File) {
    let now = SystemTime::now();
    let noted = file.metadata().and_then(|metadata| metadata.modified());
    if noted.is_ok_and(|noted| now.duration_since(noted).is_ok_and(|age| age > TOUCH_EVERY)) {
        let _ = file.set_modified(now);
    }
}

/// Whether there can be an entry of this.
fn is_consistent(outcome: &Outcome, packed: usize) -> bool {
    outcome.exit == Exit::Code(0) && outcome.outputs.len() == packed
}

/// The bytes of an entry's file; `None` for what is not kept, or larger than entries may be.
fn encoded(kept: &Kept) -> Option<Vec<u8>> {
    let body: usize = kept.packed.iter().map(Vec::len).sum();
    if !is_consistent(&kept.outcome, kept.packed.len()) || body as u64 > ENTRY_BYTES_MAX {
        return None;
    }
    let head = Head {
        key: kept.key,
        executor: kept.executor,
        outcome: kept.outcome.clone(),
        packed_bytes: kept.packed.iter().map(|packed| u32::try_from(packed.len())).collect::<Result<_, _>>().ok()?,
        made_ms: kept.made_ms,
        signature: kept.signature,
    };
    let head = postcard::to_stdvec(&head).ok()?;
    let mut bytes = Vec::with_capacity(FRONT_BYTES + head.len() + body);
    bytes.extend_from_slice(&MARK);
    bytes.extend_from_slice(&[0; DIGEST_BYTES]);
    bytes.extend_from_slice(&u32::try_from(head.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(&head);
    kept.packed.iter().for_each(|packed| bytes.extend_from_slice(packed));
    let digest = Digest::of(&bytes[MARK.len() + DIGEST_BYTES..]);
    bytes[MARK.len()..MARK.len() + DIGEST_BYTES].copy_from_slice(&digest.0);
    (bytes.len() as u64 <= ENTRY_BYTES_MAX).then_some(bytes)
}

/// Reads an entry's file.
///
/// # Errors
/// If it cannot be read; [`ErrorKind::InvalidData`] if it is not the whole entry of this action.
fn read(file: &mut File, key: &ActionKey) -> io::Result<Kept> {
    let size = file.metadata()?.len();
    if size > ENTRY_BYTES_MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(ENTRY_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    decoded(&bytes).filter(|kept| kept.key == *key).ok_or(ErrorKind::InvalidData.into())
}

/// The entry that these bytes are; `None` if they are not a whole one.
fn decoded(bytes: &[u8]) -> Option<Kept> {
    let (digest, rest) = bytes.strip_prefix(&MARK)?.split_first_chunk::<DIGEST_BYTES>()?;
    if Digest::of(rest).0 != *digest {
        return None;
    }
    let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>()?;
    let (head, mut rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let head: Head = postcard::from_bytes(head).ok()?;
    if !is_consistent(&head.outcome, head.packed_bytes.len()) {
        return None;
    }
    let mut packed = Vec::with_capacity(head.packed_bytes.len());
    for bytes in &head.packed_bytes {
        let (one, others) = rest.split_at_checked(usize::try_from(*bytes).ok()?)?;
        packed.push(one.to_vec());
        rest = others;
    }
    let Head { key, executor, outcome, made_ms, signature, .. } = head;
    rest.is_empty().then_some(Kept { key, executor, outcome, packed, made_ms, signature })
}

#[cfg(test)]
#[path = "results_tests.rs"]
mod tests;

#[cfg(all(test, target_os = "linux"))]
#[path = "results_many_tests.rs"]
mod many_tests;
