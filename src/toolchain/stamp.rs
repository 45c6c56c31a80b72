//! What a `stat` says of a file, and digests kept under it (DO).

use mesh_proto::digest::Digest;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// Digests kept in memory, entries. Two hundred toolchains of a hundred files, most of them shared.
const DIGESTS_MAX: usize = 16_384;
/// A file this young may change again without its times changing, seconds: the coarsest clock of a file system in use
/// (FAT, NFS version 2) ticks every two.
const SETTLED_SECONDS: i64 = 2;
/// How far a file server's clock may be ahead of this machine's, seconds.
const SKEW_SECONDS_MAX: i64 = 3600;
/// How often a file that changes under the reader is read again.
const READS_MAX: usize = 3;

/// A file's identity and times. Equal stamps mean equal content, mode and kind, if the stamp had settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) mode: u32,
    mtime: (i64, u32),
    ctime: (i64, u32),
}

impl Stamp {
    /// Of the path itself; a symbolic link is not followed.
    pub(super) fn of(path: &[u8]) -> io::Result<Self> {
        Ok(rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?.into())
    }

    /// Of what the path leads to.
    pub(super) fn behind(path: &[u8]) -> io::Result<Self> {
        Ok(rustix::fs::stat(path)?.into())
    }

    /// Whether a change after `now_s` would show in this stamp. The time of change alone decides: whatever is done to
    /// a file sets it to the system's clock, and nobody can set it otherwise.
    pub(super) fn settled(&self, now_s: i64) -> bool {
        // A time far in the future is from a clock that was wrong then: today's changes get another one.
        self.ctime.0 + SETTLED_SECONDS < now_s || self.ctime.0 > now_s + SKEW_SECONDS_MAX
    }

    /// Without what changes whenever an entry comes or goes: for a directory that only has to exist.
    pub(super) fn identity(&self) -> Self {
        Self { size: 0, mtime: (0, 0), ctime: (0, 0), ..*self }
    }

    /// Whether its owner may execute it.
    pub(super) fn executable(&self) -> bool {
        self.mode & 0o100 != 0
    }

    /// Whether it is a regular file.
    pub(super) fn is_file(&self) -> bool {
        rustix::fs::FileType::from_raw_mode(self.mode as rustix::fs::RawMode).is_file()
    }

    /// Whether it is a directory.
    pub(super) fn is_dir(&self) -> bool {
        rustix::fs::FileType::from_raw_mode(self.mode as rustix::fs::RawMode).is_dir()
    }

    /// Whether it is a symbolic link.
    pub(super) fn is_symlink(&self) -> bool {
        rustix::fs::FileType::from_raw_mode(self.mode as rustix::fs::RawMode).is_symlink()
    }
}

#[expect(clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
impl From<Stat> for Stamp {
    fn from(s: Stat) -> Self {
        Self {
            dev: s.st_dev as u64,
            ino: s.st_ino as u64,
            size: s.st_size as u64,
            mode: s.st_mode as u32,
            mtime: (s.st_mtime as i64, s.st_mtime_nsec as u32),
            ctime: (s.st_ctime as i64, s.st_ctime_nsec as u32),
        }
    }
}

/// Seconds since 1970.
pub(super) fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// A file's content, and how long that can be relied on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    /// Its stamp, the same before and after the reading.
    pub(super) stamp: Stamp,
    /// Its digest.
    pub(super) digest: Digest,
    /// Whether the stamp alone will show a later change.
    pub(super) settled: bool,
}

/// Digests by stamp: `gcc`, `cc` and `g++` share most of their files, and so do an agent's lives.
#[derive(Debug, Default)]
pub(super) struct Digests(Mutex<HashMap<Stamp, Digest>>);

impl Digests {
    /// Takes a digest from an earlier life.
    pub(super) fn learn(&self, stamp: Stamp, digest: Digest) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= DIGESTS_MAX {
            map.clear();
        }
        map.insert(stamp, digest);
    }

    /// The digest of the file at `path`, which is not followed if it is a symbolic link. `now_s` may be the time of an
    /// earlier moment, since when nothing may have changed.
    ///
    /// # Errors
    /// As reading gives them; [`io::ErrorKind::ResourceBusy`] if the file kept changing.
    pub(super) fn content(&self, path: &[u8], now_s: i64) -> io::Result<Content> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let mut file = File::from(fd);
        for _ in 0..READS_MAX {
            let before: Stamp = rustix::fs::fstat(&file)?.into();
            let settled = before.settled(now_s);
            if settled && let Some(digest) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&before).copied()
            {
                return Ok(Content { stamp: before, digest, settled });
            }
            let digest = read_digest(&mut file)?;
            let after: Stamp = rustix::fs::fstat(&file)?.into();
            if before == after {
                if settled {
                    self.learn(before, digest);
                }
                return Ok(Content { stamp: before, digest, settled });
            }
            io::Seek::rewind(&mut file)?;
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

/// Hashes a file from where it stands to its end.
fn read_digest(file: &mut File) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest(*hasher.finalize().as_bytes())),
            Ok(got) => {
                hasher.update(&buffer[..got]);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_young_file_is_read_each_time_and_an_old_one_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        std::fs::write(&path, "one").expect("written");
        let path = path.as_os_str().as_bytes();
        let digests = Digests::default();
        let young = digests.content(path, now_s()).expect("read");
        assert!(!young.settled && young.digest == Digest::of(b"one"));
        assert!(digests.0.lock().expect("whole").is_empty());

        let later = now_s() + 60;
        assert!(digests.content(path, later).expect("read").settled);
        // Nothing but the kept digest can give this answer.
        digests.learn(young.stamp, Digest::of(b"kept"));
        assert_eq!(digests.content(path, later).expect("read").digest, Digest::of(b"kept"));
        assert_eq!(digests.content(path, now_s()).expect("read").digest, Digest::of(b"one"));
        std::fs::write(dir.path().join("f"), "two").expect("written");
        assert_eq!(digests.content(path, later).expect("read").digest, Digest::of(b"two"));
    }

    #[test]
    fn a_stamp_settles_with_age_or_if_it_is_from_another_age() {
        let stamp = Stamp::of(b"/").expect("there");
        let at = |s| Stamp { mtime: (9_999_999, 0), ctime: (s, 0), ..stamp };
        assert!(at(100).settled(103) && !at(100).settled(102) && !at(100).settled(50));
        assert!(at(100_000).settled(50));
    }
}
