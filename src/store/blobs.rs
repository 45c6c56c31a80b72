//! Content by digest, as plain files (DO).
//!
//! A blob becomes visible by a rename after its bytes have been checked against its digest. A blob that an earlier run
//! left is checked once more before its first use, since a crash may leave a file without its bytes: nothing is ever
//! synchronised to disk, because everything here can be had again. Rejected: a database (one more format, and the
//! files must exist anyway to be copied into roots), and times of last use as the files' own (they would be written
//! for every job; the order of use is kept in memory and begins with the files' times).

use super::{evict, evict::Candidate, layout};
use mesh_proto::digest::Digest;
use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How much room blobs may take by default, bytes.
pub const STORE_BYTES_MAX: u64 = 4 << 30;
/// What part of the cap an eviction leaves free: so that not every put evicts.
const EVICT_FREE_DIVISOR: u64 = 10;
/// One read, bytes.
const READ_BYTES: usize = 256 << 10;

/// Why a blob was not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The bytes do not have the digest that they were announced with.
    #[error("the bytes are not those of their digest")]
    Mismatch,
    /// There are more bytes than allowed.
    #[error("the blob is larger than allowed")]
    TooLarge,
    /// No room on the disk.
    #[error("the disk is full")]
    DiskFull,
    /// It is not here.
    #[error("there is no such blob")]
    Missing,
    /// Anything else that the file system says.
    #[error("the store could not be read or written: {0}")]
    Io(io::Error),
}

impl From<io::Error> for BlobError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::DiskFull,
            ErrorKind::NotFound => Self::Missing,
            _ => Self::Io(error),
        }
    }
}

/// The store. Shared between threads; every call blocks on the disk.
#[derive(Debug)]
pub struct Blobs {
    folder: PathBuf,
    bytes_max: u64,
    serial: AtomicU64,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<Digest, Stored, Prefix>,
    bytes: u64,
    /// Counts uses: the clock of eviction.
    uses: u64,
}

/// Hashes digests by their first bytes, which are as good as random, and a secret: content can be made whose digests begin
/// alike, but not ones that meet in a table whose secret is unknown.
#[derive(Debug, Clone)]
struct Prefix {
    secret: [u64; 2],
}

impl Default for Prefix {
    fn default() -> Self {
        let random = std::hash::RandomState::new();
        Self { secret: [random.hash_one(0), random.hash_one(1) | 1] }
    }
}

impl BuildHasher for Prefix {
    type Hasher = PrefixHasher;

    fn build_hasher(&self) -> PrefixHasher {
        PrefixHasher { secret: self.secret, hash: 0 }
    }
}

/// One digest's.
#[derive(Debug)]
struct PrefixHasher {
    secret: [u64; 2],
    hash: u64,
}

impl Hasher for PrefixHasher {
    fn finish(&self) -> u64 {
        self.hash
    }

    fn write(&mut self, bytes: &[u8]) {
        // The length before the bytes is the same for all.
        if let Some(begin) = bytes.first_chunk() {
            let [mask, factor] = self.secret;
            let product = u128::from(u64::from_le_bytes(*begin) ^ mask) * u128::from(factor);
            self.hash ^= (product as u64) ^ ((product >> 64) as u64);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

#[derive(Debug)]
struct Stored {
    bytes: u64,
    last_used: u64,
    pins: u32,
    /// Its bytes were seen to have its digest, by this process.
    verified: bool,
}

/// Keeps some blobs from eviction while it lives: those that a job is about to use.
#[derive(Debug)]
pub struct Pin<'a> {
    blobs: &'a Blobs,
    digests: Vec<Digest>,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut index = self.blobs.index();
        for digest in &self.digests {
            if let Some(stored) = index.entries.get_mut(digest) {
                stored.pins = stored.pins.saturating_sub(1);
            }
        }
    }
}

/// A look at the store, which nobody else can change meanwhile. Not to be held over a wait.
#[derive(Debug)]
pub struct Look<'a> {
    index: MutexGuard<'a, Index>,
    unverified: Vec<Digest>,
}

impl Look<'_> {
    /// Whether a blob is here, and marks it as used. One that an earlier run left counts as here for now, and is noted.
    pub fn has(&mut self, digest: &Digest) -> bool {
        let now = self.index.uses;
        let Some(stored) = self.index.entries.get_mut(digest) else { return false };
        stored.last_used = now;
        if !stored.verified {
            self.unverified.push(*digest);
        }
        true
    }

    /// Those of which an earlier run left the bytes: [`Blobs::has`] checks them, which takes the disk.
    #[must_use]
    pub fn unverified(self) -> Vec<Digest> {
        self.unverified
    }
}

impl Blobs {
    /// Opens the store below this cache directory, making it if need be, and takes stock.
    ///
    /// # Errors
    /// If the folder cannot be made or listed.
    pub fn open(cache: &Path, bytes_max: u64) -> Result<Self, BlobError> {
        let folder = cache.join(layout::BLOBS);
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(folder.join(layout::INCOMING))?;
        // What an earlier run did not finish.
        for entry in std::fs::read_dir(folder.join(layout::INCOMING))? {
            std::fs::remove_file(entry?.path())?;
        }
        let index = Mutex::new(Index::read(&folder)?);
        let blobs = Self { folder, bytes_max, serial: AtomicU64::new(0), index };
        blobs.evict(&mut blobs.index());
        Ok(blobs)
    }

    /// The folder below which [`layout::blob`] names the files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How much room the blobs take, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.index().bytes
    }

    /// Stores these bytes, if they are those of `digest`.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`], or what the disk says.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), BlobError> {
        if Digest::of(bytes) != *digest {
            return Err(BlobError::Mismatch);
        }
        self.keep(digest, |incoming| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(incoming)?;
            file.write_all(bytes)?;
            Ok(bytes.len() as u64)
        })
    }

    /// Stores all that `from` gives, if it is the content of `digest` and no more than `bytes_max` bytes.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`], [`BlobError::TooLarge`], or what reading or the disk says. Nothing is left then.
    pub fn put_stream(&self, digest: &Digest, from: &mut impl Read, bytes_max: u64) -> Result<(), BlobError> {
        self.keep(digest, |incoming| receive(incoming, digest, from, bytes_max))
    }

    /// Has a file written beside the store, and takes it in if it was written well: `write` answers for its content.
    fn keep(&self, digest: &Digest, write: impl FnOnce(&Path) -> Result<u64, BlobError>) -> Result<(), BlobError> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let incoming = self.folder.join(layout::INCOMING).join(format!("{}-{serial}", std::process::id()));
        let kept = write(&incoming).and_then(|bytes| {
            let target = self.path(digest);
            match std::fs::rename(&incoming, &target) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let parent = target.parent().unwrap_or(&self.folder);
                    DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
                    std::fs::rename(&incoming, &target)?;
                }
                other => other?,
            }
            Ok(bytes)
        });
        if kept.is_err() {
            // It may not exist; the next start sweeps whatever stays.
            let _ = std::fs::remove_file(&incoming);
        }
        let bytes = kept?;
        let mut index = self.index();
        index.insert(*digest, bytes);
        if index.bytes > self.bytes_max {
            self.evict(&mut index);
        }
        Ok(())
    }

    /// Which blobs are here, many questions at once and without the disk.
    #[must_use]
    pub fn look(&self) -> Look<'_> {
        let mut index = self.index();
        index.uses += 1;
        Look { index, unverified: Vec::new() }
    }

    /// Whether the blob is here and whole; marks it as used.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        let verified = {
            let mut index = self.index();
            index.uses += 1;
            let now = index.uses;
            let Some(stored) = index.entries.get_mut(digest) else { return false };
            stored.last_used = now;
            stored.verified
        };
        verified || self.verify(digest)
    }

    /// Checks the bytes of a blob that an earlier run left; forgets it if they are not its own.
    fn verify(&self, digest: &Digest) -> bool {
        let whole = File::open(self.path(digest)).and_then(hash).is_ok_and(|found| found == *digest);
        let mut index = self.index();
        if whole {
            if let Some(stored) = index.entries.get_mut(digest) {
                stored.verified = true;
            }
        } else {
            self.forget(&mut index, digest);
        }
        whole
    }

    /// Opens a blob to read it.
    ///
    /// # Errors
    /// [`BlobError::Missing`], or what the disk says.
    pub fn read(&self, digest: &Digest) -> Result<File, BlobError> {
        if !self.has(digest) {
            return Err(BlobError::Missing);
        }
        Ok(File::open(self.path(digest))?)
    }

    /// Keeps these blobs from eviction. Those that are not here are not kept: ask for them after pinning.
    #[must_use]
    pub fn pin(&self, digests: impl IntoIterator<Item = Digest>) -> Pin<'_> {
        let mut index = self.index();
        let mut pinned = Vec::new();
        for digest in digests {
            if let Some(stored) = index.entries.get_mut(&digest) {
                stored.pins += 1;
                pinned.push(digest);
            }
        }
        Pin { blobs: self, digests: pinned }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(layout::blob(digest))
    }

    /// Removes what is too much.
    fn evict(&self, index: &mut Index) {
        if index.bytes <= self.bytes_max {
            return;
        }
        let candidates = index.entries.iter().map(|(key, stored)| Candidate {
            key: *key,
            bytes: stored.bytes,
            last_used: stored.last_used,
            pinned: stored.pins > 0,
        });
        for victim in evict::victims(candidates, self.bytes_max - self.bytes_max / EVICT_FREE_DIVISOR) {
            self.forget(index, &victim);
        }
    }

    fn forget(&self, index: &mut Index, digest: &Digest) {
        if let Some(stored) = index.entries.remove(digest) {
            index.bytes -= stored.bytes;
            // It may be gone already; if it cannot be removed, the next start counts it again.
            let _ = std::fs::remove_file(self.path(digest));
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // No code under the lock can leave the index half changed.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a file of all that `from` gives, if it is the content of `digest` and no more than `bytes_max` bytes.
fn receive(to: &Path, digest: &Digest, from: &mut impl Read, bytes_max: u64) -> Result<u64, BlobError> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        let got = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        bytes += got as u64;
        if bytes > bytes_max {
            return Err(BlobError::TooLarge);
        }
        hasher.update(&buffer[..got]);
        file.write_all(&buffer[..got])?;
    }
    if Digest(*hasher.finalize().as_bytes()) == *digest { Ok(bytes) } else { Err(BlobError::Mismatch) }
}

impl Index {
    /// Lists the store. The order of use begins with the order of writing.
    fn read(folder: &Path) -> Result<Self, BlobError> {
        let mut found = Vec::new();
        for fan in std::fs::read_dir(folder)? {
            let fan = fan?;
            if fan.file_name() == layout::INCOMING || !fan.file_type()?.is_dir() {
                continue;
            }
            for entry in std::fs::read_dir(fan.path())? {
                let entry = entry?;
                let Some(digest) = layout::blob_digest(entry.file_name().as_encoded_bytes()) else { continue };
                let metadata = entry.metadata()?;
                found.push((metadata.modified()?, digest, metadata.len()));
            }
        }
        found.sort_unstable();
        let mut index = Self::default();
        for (_, digest, bytes) in found {
            index.insert(digest, bytes);
            if let Some(stored) = index.entries.get_mut(&digest) {
                stored.verified = false;
            }
        }
        Ok(index)
    }

    /// Notes a blob whose bytes were just checked.
    fn insert(&mut self, digest: Digest, bytes: u64) {
        self.uses += 1;
        let stored = Stored { bytes, last_used: self.uses, pins: 0, verified: true };
        match self.entries.entry(digest) {
            std::collections::hash_map::Entry::Occupied(mut old) => {
                let pins = old.get().pins;
                self.bytes -= old.get().bytes;
                old.insert(Stored { pins, ..stored });
            }
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(stored);
            }
        }
        self.bytes += bytes;
    }
}

/// The digest of all that is read.
///
/// # Errors
/// What reading says.
pub fn hash(mut from: impl Read) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(Digest(*hasher.finalize().as_bytes())),
            Ok(got) => {
                hasher.update(&buffer[..got]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn store(bytes_max: u64) -> (tempfile::TempDir, Blobs) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path(), bytes_max).unwrap();
        (dir, blobs)
    }

    fn content(blobs: &Blobs, digest: &Digest) -> Vec<u8> {
        let mut bytes = Vec::new();
        blobs.read(digest).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_put_can_be_read_here_and_after_a_restart() {
        let (dir, blobs) = store(1000);
        let digest = Digest::of(b"hello");
        assert!(!blobs.has(&digest));
        blobs.put(&digest, b"hello").unwrap();
        blobs.put(&digest, b"hello").unwrap();
        assert_eq!((content(&blobs, &digest), blobs.bytes()), (b"hello".to_vec(), 5));
        let again = Blobs::open(dir.path(), 1000).unwrap();
        assert_eq!((content(&again, &digest), again.bytes()), (b"hello".to_vec(), 5));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&again.path(&digest)), mode(again.folder())), (0o600, 0o700));
    }

    #[test]
    fn a_look_knows_what_is_here_and_what_was_never_checked() {
        let (dir, blobs) = store(1000);
        let [here, not] = [Digest::of(b"here"), Digest::of(b"not")];
        blobs.put(&here, b"here").unwrap();
        let mut look = blobs.look();
        assert!(look.has(&here) && !look.has(&not));
        assert_eq!(look.unverified(), []);
        let again = Blobs::open(dir.path(), 1000).unwrap();
        let mut look = again.look();
        assert!(look.has(&here));
        assert_eq!(look.unverified(), [here]);
        assert!(again.has(&here));
        let mut look = again.look();
        assert!(look.has(&here) && look.unverified().is_empty());
    }

    #[test]
    fn bytes_of_another_digest_or_too_many_are_never_visible() {
        let (_dir, blobs) = store(1000);
        let digest = Digest::of(b"hello");
        assert!(matches!(blobs.put(&digest, b"hellO"), Err(BlobError::Mismatch)));
        assert!(matches!(blobs.put_stream(&digest, &mut &b"hello"[..], 4), Err(BlobError::TooLarge)));
        assert!(!blobs.has(&digest) && !blobs.path(&digest).exists());
        assert_eq!(std::fs::read_dir(blobs.folder().join(layout::INCOMING)).unwrap().count(), 0);
    }

    #[test]
    fn a_blob_that_lost_its_bytes_in_a_crash_is_forgotten() {
        let (dir, blobs) = store(1000);
        let digest = Digest::of(b"hello");
        blobs.put(&digest, b"hello").unwrap();
        std::fs::write(blobs.path(&digest), b"").unwrap();
        let again = Blobs::open(dir.path(), 1000).unwrap();
        assert!(!again.has(&digest) && !again.path(&digest).exists());
        assert!(matches!(again.read(&digest), Err(BlobError::Missing)));
    }

    #[test]
    fn a_full_store_drops_what_was_used_longest_ago_and_nothing_pinned() {
        let (dir, blobs) = store(250);
        let bytes = |n: u8| vec![n; 100];
        let digest = |n: u8| Digest::of(&bytes(n));
        blobs.put(&digest(1), &bytes(1)).unwrap();
        blobs.put(&digest(2), &bytes(2)).unwrap();
        assert!(blobs.has(&digest(1)));
        blobs.put(&digest(3), &bytes(3)).unwrap();
        assert!(blobs.has(&digest(1)) && !blobs.has(&digest(2)) && blobs.has(&digest(3)));
        let pin = blobs.pin([digest(1)]);
        blobs.put(&digest(4), &bytes(4)).unwrap();
        assert!(blobs.has(&digest(1)) && !blobs.has(&digest(3)));
        drop(pin);
        assert_eq!(Blobs::open(dir.path(), 100).unwrap().bytes(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_has_an_error_of_its_own() {
        // /dev/full answers every write as a full disk does.
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = full.write_all(b"x").unwrap_err();
        assert!(matches!(BlobError::from(error), BlobError::DiskFull));
    }
}
