//! Builds a tree of files from a policy's list, under a directory that nobody else can reach yet (DO).
//!
//! The list is sorted, so the builder walks it with a stack of open directories: every name is made relative to a
//! descriptor, every directory is entered without following links, and in a job's own tree nothing that exists is ever
//! replaced. In a template's tree a file or link may take the place of another, by a rename: whoever has the old one open
//! keeps it. So even a list that `worker` should have refused cannot place anything outside of the root.

use super::{
    Step,
    linux::{Fault, fault},
    policy::{Place, What},
};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One read of a source, bytes: most headers are copied by one read and one write.
const COPY_BYTES: usize = 256 << 10;
/// What something is called in the directory of new ones, until it has its place.
const NEW: &[u8] = b"new";
/// What a directory is opened with: its descriptor is only a place.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes files and directories below one directory.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    top: BorrowedFd<'a>,
    /// Where the sources of files are.
    sources: BorrowedFd<'a>,
    /// Who owns what the job may change, if that is another user than the one who builds.
    owner: Option<u32>,
    /// Where files and links are made before they are renamed to their places, if those may be taken.
    fresh: Option<BorrowedFd<'a>>,
    /// The directories between the top and where the builder is: name and descriptor.
    stack: Vec<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(top: BorrowedFd<'a>, sources: BorrowedFd<'a>, owner: Option<u32>) -> Self {
        Self { top, sources, owner, fresh: None, stack: Vec::new(), buffer: vec![0; COPY_BYTES] }
    }

    /// For a template's tree: `fresh` is a directory of the same file system that no job sees.
    pub(super) fn replacing(top: BorrowedFd<'a>, sources: BorrowedFd<'a>, fresh: BorrowedFd<'a>) -> Self {
        Self { fresh: Some(fresh), ..Self::new(top, sources, None) }
    }

    /// Removes a file, a link, or an empty directory.
    pub(super) fn remove(&mut self, path: &[u8]) -> Result<(), Fault> {
        let (parent, name) = split(path);
        let removed =
            self.enter(parent).and_then(|()| match rustix::fs::unlinkat(self.here(), name, AtFlags::empty()) {
                Err(Errno::ISDIR) => rustix::fs::unlinkat(self.here(), name, AtFlags::REMOVEDIR),
                other => other,
            });
        // It may have been one of these.
        self.stack.clear();
        removed.map_err(|errno| fault(Step::Place, path, errno))
    }

    /// Makes one place, and the directories that lead to it.
    pub(super) fn place(&mut self, place: &Place) -> Result<(), Fault> {
        let failed = |errno| fault(Step::Place, &place.path, errno);
        if let What::Directory = place.what {
            return self.directory(&place.path, place.writable).map_err(failed);
        }
        let (parent, name) = split(&place.path);
        self.enter(parent).map_err(failed)?;
        let Some(fresh) = self.fresh else { return self.make(place, None, name) };
        self.make(place, Some(fresh), NEW)?;
        rustix::fs::renameat(fresh, NEW, self.here(), name).map_err(failed)?;
        match rustix::fs::unlinkat(fresh, NEW, AtFlags::empty()) {
            // A rename between two names of one inode does nothing.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Makes a file or link in `dir`, or else where the builder is.
    fn make(&mut self, place: &Place, dir: Option<BorrowedFd<'_>>, name: &[u8]) -> Result<(), Fault> {
        let failed = |errno| fault(Step::Place, &place.path, errno);
        match &place.what {
            What::Directory => {}
            What::File { source, size, mtime_s, mtime_ns, executable } => {
                // In a template's tree they are nobody's and anybody's: what a job changes goes to its own layer, and only
                // in its output directories is it let.
                let mode = if dir.is_some() { 0o666 } else { 0o644 } | if *executable { 0o111 } else { 0 };
                let mode = Mode::from_raw_mode(mode);
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let here = dir.unwrap_or_else(|| self.here());
                let file = rustix::fs::openat(here, name, flags, mode).map_err(failed)?;
                self.copy(source, *size, file.as_fd(), &place.path)?;
                if let Some(owner) = self.owner.filter(|_| place.writable) {
                    rustix::fs::fchown(&file, uid(owner), gid(owner)).map_err(failed)?;
                }
                let mtime = Timespec { tv_sec: *mtime_s, tv_nsec: i64::from(*mtime_ns) };
                let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
                let times = Timestamps { last_access: omit, last_modification: mtime };
                rustix::fs::futimens(&file, &times).map_err(failed)?;
            }
            What::HardLink { to } => {
                let here = dir.unwrap_or_else(|| self.here());
                rustix::fs::linkat(self.top, to.as_slice(), here, name, AtFlags::empty()).map_err(failed)?;
                if let Some(owner) = self.owner.filter(|_| place.writable) {
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::chownat(here, name, uid(owner), gid(owner), flags).map_err(failed)?;
                }
            }
            What::Symlink { target } => {
                let here = dir.unwrap_or_else(|| self.here());
                rustix::fs::symlinkat(target.as_slice(), here, name).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Makes a directory, and those that lead to it; gives it to the job if it may write there.
    pub(super) fn directory(&mut self, path: &[u8], writable: bool) -> Result<(), Errno> {
        self.enter(path)?;
        if let Some(owner) = self.owner.filter(|_| writable) {
            let flags = AtFlags::EMPTY_PATH;
            rustix::fs::chownat(self.here(), c"", uid(owner), gid(owner), flags)?;
        }
        Ok(())
    }

    /// The descriptor of the directory at a path that was made before.
    pub(super) fn open(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Errno> {
        self.enter(path)?;
        Ok(self.here())
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.top, |(_, fd)| fd.as_fd())
    }

    /// Goes to a directory, by way of what is common with where the builder is; makes what does not exist.
    fn enter(&mut self, path: &[u8]) -> Result<(), Errno> {
        let wanted: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        let common = self.stack.iter().zip(&wanted).take_while(|((have, _), want)| have == *want).count();
        self.stack.truncate(common);
        for name in &wanted[common..] {
            if matches!(*name, b"." | b"..") {
                return Err(Errno::INVAL);
            }
            let open = || rustix::fs::openat(self.here(), *name, DIRECTORY, Mode::empty());
            let fd = match open() {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(self.here(), *name, Mode::from_raw_mode(0o755))?;
                    open()?
                }
                other => other?,
            };
            self.stack.push((name.to_vec(), fd));
        }
        Ok(())
    }

    /// Copies a source of exactly this size.
    fn copy(&mut self, source: &str, size: u64, to: BorrowedFd<'_>, path: &[u8]) -> Result<(), Fault> {
        let missing = |errno| fault(Step::Source, path, errno);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = rustix::fs::openat(self.sources, source, flags, Mode::empty()).map_err(missing)?;
        let mut left = size;
        loop {
            // One byte more than is left is asked for, so that a source that is too long is seen.
            let room = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX).min(self.buffer.len());
            let got = match rustix::io::read(&from, &mut self.buffer[..room]) {
                Err(Errno::INTR) => continue,
                other => other.map_err(missing)?,
            };
            if got as u64 > left || (got == 0 && left > 0) {
                return Err(missing(Errno::FBIG));
            }
            left -= got as u64;
            let mut rest = &self.buffer[..got];
            while !rest.is_empty() {
                match rustix::io::write(to, rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(fault(Step::Place, path, errno)),
                }
            }
            if got < room && left == 0 {
                return Ok(());
            }
        }
    }
}

fn uid(id: u32) -> Option<rustix::fs::Uid> {
    Some(rustix::fs::Uid::from_raw(id))
}

fn gid(id: u32) -> Option<rustix::fs::Gid> {
    Some(rustix::fs::Gid::from_raw(id))
}

/// Directory and name of a path without leading slash.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn file(path: &str, size: u64) -> Place {
        let what = What::File {
            source: "blob".into(),
            size,
            mtime_s: 1_600_000_000,
            mtime_ns: 123_456_789,
            executable: false,
        };
        Place { path: path.into(), what, writable: false }
    }

    fn build(places: &[Place]) -> (tempfile::TempDir, Result<(), Fault>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("blob"), b"hello").unwrap();
        std::fs::create_dir(dir.path().join("top")).unwrap();
        let open = |path: &std::path::Path| rustix::fs::open(path, DIRECTORY, Mode::empty()).unwrap();
        let (top, sources) = (open(&dir.path().join("top")), open(dir.path()));
        let mut builder = Builder::new(top.as_fd(), sources.as_fd(), None);
        let result = places.iter().try_for_each(|place| builder.place(place));
        (dir, result)
    }

    #[test]
    fn files_have_their_times_and_links_their_inode() {
        let link = Place { path: b"a/c".into(), what: What::HardLink { to: b"a-b/x".into() }, writable: false };
        let (dir, result) = build(&[file("a-b/x", 5), link, file("a/b/x", 5)]);
        assert!(result.is_ok(), "{result:?}");
        let meta = |path: &str| std::fs::metadata(dir.path().join("top").join(path)).unwrap();
        assert_eq!((meta("a-b/x").mtime(), meta("a-b/x").mtime_nsec()), (1_600_000_000, 123_456_789));
        assert_eq!(meta("a-b/x").ino(), meta("a/c").ino());
        assert_ne!(meta("a-b/x").ino(), meta("a/b/x").ino());
    }

    #[test]
    fn a_source_of_another_size_is_not_placed() {
        for size in [4, 6, 0] {
            let (_dir, result) = build(&[file("x", size)]);
            assert_eq!(result.unwrap_err().step, Step::Source, "{size}");
        }
    }

    #[test]
    fn nothing_is_placed_through_a_link_or_outside() {
        let link = |path: &str, target: &str| Place {
            path: path.into(),
            what: What::Symlink { target: target.into() },
            writable: false,
        };
        for bad in [vec![link("a", ".."), file("a/x", 5)], vec![file("../x", 5)], vec![file("a", 5), file("a/x", 5)]] {
            let (dir, result) = build(&bad);
            assert_eq!(result.unwrap_err().step, Step::Place);
            assert!(!dir.path().join("x").exists());
        }
        let (dir, result) = build(&[link("a", "../blob"), file("a", 5)]);
        assert!(result.is_err());
        assert_eq!(std::fs::read(dir.path().join("blob")).unwrap(), b"hello");
    }
}
