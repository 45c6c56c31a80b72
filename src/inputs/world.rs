//! The file system and the clock as the graph sees them; tests put their own in place (DO).

use super::watch::Watcher;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io::Read as _;

/// A moment of the wall clock or of a file's time stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970.
    pub s: i64,
    /// Nanoseconds within the second.
    pub ns: u32,
}

impl Time {
    fn nanos(self) -> i128 {
        i128::from(self.s) * 1_000_000_000 + i128::from(self.ns)
    }
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A device, a pipe or a socket.
    Other,
}

/// A file's identity: as long as all of this stays the same, so does the content, but for racy stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// The device.
    pub dev: u64,
    /// The inode on that device.
    pub ino: u64,
    /// Size, bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// When the content changed, as anybody may set it.
    pub mtime: Time,
    /// When the inode changed, as only the kernel sets it.
    pub ctime: Time,
}

/// How much older than the moment of reading a stamp must be to prove that nothing came after, nanoseconds. Kernels
/// stamp by their timer tick, 10 ms at the slowest.
const RACY_NS: i128 = 20_000_000;
/// The same where the file system keeps whole seconds, or two of them.
const RACY_COARSE_NS: i128 = 2_000_000_000;
/// How long a file must have been left alone for its watch to be believed, nanoseconds. A write through a mapping makes
/// no event, so a file that somebody is busy with is looked at.
const QUIET_NS: i128 = 2_000_000_000;

impl Stat {
    /// Whether what was read at `read`, with this stamp before and after, can be told from what is written later.
    #[must_use]
    pub fn is_settled(&self, read: Time) -> bool {
        let window = if self.ctime.ns == 0 { RACY_COARSE_NS } else { RACY_NS };
        self.mtime.max(self.ctime).nanos() + window < read.nanos()
    }

    /// Whether nobody had changed it for a while when it was looked at.
    #[must_use]
    pub fn is_quiet(&self, seen: Time) -> bool {
        self.mtime.max(self.ctime).nanos() + QUIET_NS < seen.nanos()
    }
}

/// Takes a directory's names one by one; no kind where the file system does not say.
pub type NameSink<'a> = dyn FnMut(&[u8], Option<Kind>) + 'a;

/// The file system and the wall clock.
pub trait World: Send + std::fmt::Debug {
    /// What is at a path, a link itself if it is one.
    ///
    /// # Errors
    /// As the system says.
    fn stat(&self, path: &[u8]) -> Result<Stat, Errno>;
    /// The names in a directory, with its stat before and after.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, path: &[u8], sink: &mut NameSink<'_>) -> Result<(Stat, Stat), Errno>;
    /// Appends a regular file's content, with its stat before and after; never more than `bytes_max` and one.
    ///
    /// # Errors
    /// As the system says.
    fn read(&self, path: &[u8], bytes_max: u64, into: &mut Vec<u8>) -> Result<(Stat, Stat), Errno>;
    /// A link's text.
    ///
    /// # Errors
    /// As the system says.
    fn readlink(&self, path: &[u8]) -> Result<Vec<u8>, Errno>;
    /// The wall clock, from which file stamps come.
    fn now(&self) -> Time;
    /// What tells of changes, if anything does.
    fn watcher(&self) -> Option<Box<dyn Watcher>> {
        None
    }
}

/// This machine's file system.
#[derive(Debug, Default)]
pub struct Disk;

#[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the fields' types differ between platforms")]
fn stat_from(stat: &rustix::fs::Stat) -> Stat {
    Stat {
        kind: kind_from(FileType::from_raw_mode(stat.st_mode as _)).unwrap_or(Kind::Other),
        dev: stat.st_dev as u64,
        ino: stat.st_ino as u64,
        size: stat.st_size as u64,
        mode: stat.st_mode as u32 & 0o7777,
        mtime: Time { s: stat.st_mtime as i64, ns: stat.st_mtime_nsec as u32 },
        ctime: Time { s: stat.st_ctime as i64, ns: stat.st_ctime_nsec as u32 },
    }
}

fn kind_from(kind: FileType) -> Option<Kind> {
    match kind {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Dir),
        FileType::Symlink => Some(Kind::Link),
        FileType::Unknown => None,
        _ => Some(Kind::Other),
    }
}

impl World for Disk {
    fn stat(&self, path: &[u8]) -> Result<Stat, Errno> {
        rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat_from(&stat))
    }

    fn list(&self, path: &[u8], sink: &mut NameSink<'_>) -> Result<(Stat, Stat), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut dir = Dir::new(rustix::fs::openat(CWD, path, flags, Mode::empty())?)?;
        let before = stat_from(&dir.stat()?);
        while let Some(entry) = dir.read() {
            let entry = entry?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => sink(name, kind_from(entry.file_type())),
            }
        }
        let after = stat_from(&dir.stat()?);
        Ok((before, after))
    }

    fn read(&self, path: &[u8], bytes_max: u64, into: &mut Vec<u8>) -> Result<(Stat, Stat), Errno> {
        // A pipe in the file's place must not hold the agent up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = std::fs::File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
        let before = stat_from(&rustix::fs::fstat(&file)?);
        if before.kind == Kind::File {
            into.reserve(usize::try_from(before.size.min(bytes_max)).unwrap_or(0) + 1);
            (&file)
                .take(bytes_max + 1)
                .read_to_end(into)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        let after = stat_from(&rustix::fs::fstat(&file)?);
        Ok((before, after))
    }

    fn readlink(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        rustix::fs::readlinkat(CWD, path, Vec::new()).map(std::ffi::CString::into_bytes)
    }

    fn now(&self) -> Time {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Time { s: now.tv_sec, ns: u32::try_from(now.tv_nsec).unwrap_or(0) }
    }

    #[cfg(target_os = "linux")]
    fn watcher(&self) -> Option<Box<dyn Watcher>> {
        Some(Box::new(super::watch::Inotify::new()?))
    }
}
