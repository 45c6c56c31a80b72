//! Which kept result another checkout may have, by the portable keys of units (DO).
//!
//! One small file a slot, and as many slots as a share of the room for results pays for: a unit whose slot another one has
//! takes it over. So there is nothing to count and nothing to evict. Each file carries the digest of its content; one that
//! is not wholly that is none.

use super::layout;
use mesh_proto::{digest::Digest, key::ActionKey};
use serde::{Deserialize, Serialize};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    hash::BuildHasher,
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// One slot takes at most this on disk, bytes.
const SLOT_BYTES_MAX: u64 = 4096;
/// All slots take this part of the room for results.
const ROOM_DIVISOR: u64 = 16;
/// Slots at most, however much room there is.
const SLOTS_MAX: u64 = 1 << 16;
const DIGEST_BYTES: usize = 32;

/// Where a unit was compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The unit's portable key.
    pub portable: Digest,
    /// What its result is kept under.
    pub key: ActionKey,
    /// The root of the checkout in which it was made.
    pub root: Vec<u8>,
}

/// What checkouts may give each other. Every call blocks on the disk.
#[derive(Debug)]
pub struct Checkouts {
    folder: PathBuf,
    slots: u64,
    /// How the names of what is being written begin.
    prefix: String,
    serial: AtomicU64,
}

impl Checkouts {
    /// Those below this cache directory, beside results that may take so many bytes. Touches nothing.
    #[must_use]
    pub fn open(cache: &Path, results_bytes_max: u64) -> Self {
        let slots = (results_bytes_max / ROOM_DIVISOR / SLOT_BYTES_MAX).clamp(1, SLOTS_MAX);
        let prefix = format!("new-{:016x}", std::hash::RandomState::new().hash_one(std::process::id()));
        Self { folder: cache.join(layout::CHECKOUTS), slots, prefix, serial: AtomicU64::new(0) }
    }

    /// Where a unit of this portable key was compiled.
    #[must_use]
    pub fn get(&self, portable: &Digest) -> Option<Made> {
        let mut bytes = Vec::new();
        File::open(self.path(portable)).ok()?.take(SLOT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let (digest, rest) = bytes.split_first_chunk::<DIGEST_BYTES>()?;
        let made: Made = postcard::from_bytes(rest).ok().filter(|_| Digest::of(rest).0 == *digest)?;
        (made.portable == *portable).then_some(made)
    }

    /// Notes where a unit was compiled. That it could not be written is no error.
    pub fn put(&self, made: &Made) {
        let Ok(rest) = postcard::to_stdvec(made) else { return };
        let bytes = [&Digest::of(&rest).0[..], &rest].concat();
        if bytes.len() as u64 > SLOT_BYTES_MAX {
            return;
        }
        let from = self.folder.join(format!("{}-{}", self.prefix, self.serial.fetch_add(1, Ordering::Relaxed)));
        if self.write(&from, &self.path(&made.portable), &bytes).is_err() {
            let _ = std::fs::remove_file(&from);
        }
    }

    /// Forgets where a unit was compiled.
    pub fn remove(&self, portable: &Digest) {
        let _ = std::fs::remove_file(self.path(portable));
    }

    /// Forgets all.
    pub fn clear(&self) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
    }

    fn path(&self, portable: &Digest) -> PathBuf {
        let number = u64::from_le_bytes(*portable.0.first_chunk().expect("a digest is longer"));
        self.folder.join(format!("{:04x}", number % self.slots))
    }

    fn write(&self, from: &Path, to: &Path, bytes: &[u8]) -> io::Result<()> {
        let open = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(from);
        let mut file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
                open()?
            }
            opened => opened?,
        };
        file.write_all(bytes)?;
        drop(file);
        std::fs::rename(from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str) -> Made {
        Made { portable: Digest::of(text.as_bytes()), key: ActionKey(Digest::of(b"key")), root: b"/w/one".to_vec() }
    }

    #[test]
    fn a_unit_is_found_by_its_own_portable_key_alone_and_only_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let checkouts = Checkouts::open(dir.path(), 1 << 30);
        let one = made("one");
        assert_eq!(checkouts.get(&one.portable), None);
        checkouts.put(&one);
        assert_eq!(checkouts.get(&one.portable), Some(one.clone()));
        assert_eq!(checkouts.get(&made("two").portable), None);
        let path = checkouts.path(&one.portable);
        let mut bytes = std::fs::read(&path).expect("there");
        *bytes.last_mut().expect("not empty") ^= 1;
        std::fs::write(&path, &bytes).expect("room");
        assert_eq!(checkouts.get(&one.portable), None);
        checkouts.clear();
        assert!(!path.exists());
    }

    #[test]
    fn however_many_there_are_they_take_no_more_files_than_slots() {
        let dir = tempfile::tempdir().expect("a directory");
        let checkouts = Checkouts::open(dir.path(), 4 * ROOM_DIVISOR * SLOT_BYTES_MAX);
        for number in 0..50 {
            let one = made(&number.to_string());
            checkouts.put(&one);
            assert_eq!(checkouts.get(&one.portable), Some(one));
        }
        let files = std::fs::read_dir(dir.path().join(layout::CHECKOUTS)).expect("a folder").count();
        assert_eq!(files, 4);
    }
}
