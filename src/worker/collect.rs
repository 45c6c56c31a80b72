//! What the compiler made, out of the layer that it wrote to (DO).
//!
//! The layer was written by a hostile program, whose processes are all dead: nothing in it changes any more, but names
//! and kinds in it may be anything. So every name is opened relative to its directory's descriptor without following
//! links, and whatever is not a plain file in an output directory makes the whole job void.

use super::strict::PROVIDED;
use crate::store::blobs;
use mesh_proto::closure::{Entry, Node};
use mesh_proto::job::Output;
use mesh_proto::limits;
use mesh_proto::path::AbsPath;
use mesh_proto::toolchain::{Manifest, PartNode};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Why the outputs were not collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Not a plain file: a link, a device, a directory that was not there, a file with set-user-id.
    #[error("{0:?} is not a regular file")]
    Kind(AbsPath),
    /// In a directory below an output directory, from which nothing is returned.
    #[error("{0:?} lies in no output directory")]
    Elsewhere(AbsPath),
    /// An input that is gone.
    #[error("the input {0:?} was removed")]
    Removed(AbsPath),
    /// Too many files.
    #[error("too many files were made")]
    TooMany,
    /// Too many bytes.
    #[error("the files that were made are too large")]
    TooLarge,
    /// A name that no path can hold.
    #[error("a name in {0:?} is no path's")]
    Name(AbsPath),
    /// The layer could not be read.
    #[error("could not read {path:?}: {errno}")]
    Read {
        /// Where.
        path: AbsPath,
        /// Why.
        errno: Errno,
    },
}

/// A file that the compiler made, with its content, at its beginning.
pub type Made = (Output, File);

/// What was there before the compiler ran.
pub trait There {
    /// The input at a path.
    fn input(&self, path: &[u8]) -> Option<Node>;
    /// The toolchain's part at a path: the text of a link, or `None` for anything else.
    fn part(&self, path: &[u8]) -> Option<Option<Vec<u8>>>;
    /// Whether a directory was at a path.
    fn is_directory(&self, path: &[u8]) -> bool;
    /// The paths of all inputs, for a layer that holds them too.
    fn inputs(&self) -> Vec<&[u8]>;
}

/// What is known of the root that the layer belongs to.
pub struct Known<'a> {
    /// What was there.
    pub there: &'a dyn There,
    /// Where what was made counts.
    pub output_dirs: &'a BTreeSet<AbsPath>,
    /// Where it does not.
    pub temp_dirs: &'a BTreeSet<AbsPath>,
    /// The layer holds only what was written; else it is the tree of inputs itself.
    pub overlay: bool,
    /// The job's user, where the layer holds the toolchain too: what another user owns was there before.
    pub owner: Option<u32>,
}

impl std::fmt::Debug for Known<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("output_dirs", self.output_dirs).finish_non_exhaustive()
    }
}

/// What was placed for one job alone.
#[derive(Debug)]
pub struct Placed<'a> {
    entries: HashMap<&'a [u8], &'a Node>,
    /// All directories that were there before the compiler ran.
    directories: HashSet<&'a [u8]>,
    toolchain: HashMap<&'a [u8], &'a PartNode>,
}

impl<'a> Placed<'a> {
    /// Takes note of what was placed.
    #[must_use]
    pub fn new(
        entries: &'a [&'a Entry],
        toolchain: &'a Manifest,
        output_dirs: &'a BTreeSet<AbsPath>,
        temp_dirs: &'a BTreeSet<AbsPath>,
    ) -> Self {
        let mut directories = HashSet::new();
        let parts = toolchain.parts.iter().map(|part| (&part.path, matches!(part.node, PartNode::Directory)));
        let placed = entries.iter().map(|entry| (&entry.path, entry.node == Node::Directory));
        let more = output_dirs.iter().chain(temp_dirs).map(|dir| (dir, true));
        for (path, is_directory) in parts.chain(placed).chain(more) {
            let bytes = path.as_bytes();
            if is_directory {
                directories.insert(bytes);
            }
            for at in (1..bytes.len()).rev().filter(|at| bytes[*at] == b'/') {
                // All before it are known as well.
                if !directories.insert(&bytes[..at]) {
                    break;
                }
            }
        }
        let entries = entries.iter().map(|entry| (entry.path.as_bytes(), &entry.node)).collect();
        let toolchain = toolchain.parts.iter().map(|part| (part.path.as_bytes(), &part.node)).collect();
        Self { entries, directories, toolchain }
    }
}

impl There for Placed<'_> {
    fn input(&self, path: &[u8]) -> Option<Node> {
        self.entries.get(path).map(|node| Node::clone(node))
    }

    fn part(&self, path: &[u8]) -> Option<Option<Vec<u8>>> {
        self.toolchain.get(path).map(|part| match part {
            PartNode::Symlink { target } => Some(target.clone()),
            _ => None,
        })
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        self.directories.contains(path)
    }

    fn inputs(&self) -> Vec<&[u8]> {
        self.entries.keys().copied().collect()
    }
}

impl Known<'_> {
    /// Whether the walk does not enter a directory: it has its own turn, or what is in it does not count.
    fn is_passed_over(&self, dir: &AbsPath) -> bool {
        self.output_dirs.contains(dir) || self.temp_dirs.contains(dir) || PROVIDED.contains(&dir.as_bytes())
    }
}

/// Collects what the compiler made in the output directories, sorted by path.
///
/// # Errors
/// The first thing that cannot be returned.
pub fn collect(layer: BorrowedFd<'_>, known: &Known<'_>) -> Result<Vec<Made>, CollectError> {
    let mut walk = Walk { known, made: Vec::new(), bytes: 0 };
    for path in known.output_dirs {
        match open_beneath(layer, path.below_root()) {
            Ok(dir) => walk.directory(dir, path, 0)?,
            // Nothing was written there.
            Err(Errno::NOENT) if known.overlay => {}
            Err(errno) => return Err(CollectError::Read { path: path.clone(), errno }),
        }
    }
    let mut made = walk.made;
    made.sort_unstable_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    Ok(made)
}

/// Opens a directory by its path below another one, through directories only.
fn open_beneath(top: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |dir: BorrowedFd<'_>, name: &[u8]| rustix::fs::openat(dir, name, flags, Mode::empty());
    let mut here = open(top, b".")?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        here = open(here.as_fd(), name)?;
    }
    Ok(here)
}

/// The content of a plain file at a path below a directory, if it is one of at most so many bytes.
#[must_use]
pub fn read_beneath(top: BorrowedFd<'_>, path: &AbsPath, bytes_max: u64) -> Option<Vec<u8>> {
    let dir = open_beneath(top, path.parent()?.below_root()).ok()?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&dir, path.name(), flags, Mode::empty()).ok()?);
    let metadata = file.metadata().ok().filter(|metadata| metadata.is_file() && metadata.len() <= bytes_max)?;
    let mut bytes = vec![0; usize::try_from(metadata.len()).ok()?];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).ok()?;
    Some(bytes)
}

struct Walk<'a> {
    known: &'a Known<'a>,
    made: Vec<Made>,
    bytes: u64,
}

impl Walk<'_> {
    /// Goes through one directory: an output directory, or one below it.
    fn directory(&mut self, dir: OwnedFd, path: &AbsPath, depth: usize) -> Result<(), CollectError> {
        let failed = |errno| CollectError::Read { path: path.clone(), errno };
        if depth > limits::PATH_DEPTH_MAX {
            return Err(CollectError::Kind(path.clone()));
        }
        let mut seen = HashSet::new();
        for entry in rustix::fs::Dir::read_from(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let at = path.join(name.to_bytes()).map_err(|_| CollectError::Name(path.clone()))?;
            let failed = |errno| CollectError::Read { path: at.clone(), errno };
            let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => self.file(dir.as_fd(), name, &at, &stat)?,
                FileType::Directory if self.known.is_passed_over(&at) => {}
                FileType::Directory if self.known.there.is_directory(at.as_bytes()) => {
                    let inner = open_beneath(dir.as_fd(), name.to_bytes()).map_err(failed)?;
                    self.directory(inner, &at, depth + 1)?;
                }
                // An overlay's mark for what was removed.
                FileType::CharacterDevice if self.known.overlay && stat.st_rdev == 0 => self.removed(&at)?,
                FileType::Symlink if self.is_placed_link(dir.as_fd(), name, &at) => {}
                _ => return Err(CollectError::Kind(at)),
            }
            seen.insert(at);
        }
        if self.known.overlay { Ok(()) } else { self.all_still_there(path, &seen) }
    }

    /// Without an overlay the links that were placed are in the layer too.
    fn is_placed_link(&self, dir: BorrowedFd<'_>, name: &std::ffi::CStr, at: &AbsPath) -> bool {
        if self.known.overlay {
            return false;
        }
        let placed = match self.known.there.input(at.as_bytes()) {
            Some(Node::Symlink { target }) => Some(target),
            _ => self.known.there.part(at.as_bytes()).flatten(),
        };
        let text = rustix::fs::readlinkat(dir, name, Vec::new()).map(std::ffi::CString::into_bytes);
        placed.is_some_and(|target| text.as_ref() == Ok(&target))
    }

    fn was_there(&self, path: &AbsPath) -> bool {
        let bytes = path.as_bytes();
        self.known.there.input(bytes).is_some() || self.known.there.part(bytes).is_some()
    }

    fn removed(&self, path: &AbsPath) -> Result<(), CollectError> {
        if self.was_there(path) || self.known.there.is_directory(path.as_bytes()) {
            return Err(CollectError::Removed(path.clone()));
        }
        Ok(())
    }

    /// Without an overlay nothing marks what was removed: what was placed here must have been seen.
    fn all_still_there(&self, path: &AbsPath, seen: &HashSet<AbsPath>) -> Result<(), CollectError> {
        for entry in self.known.there.inputs() {
            let Ok(at) = AbsPath::new(entry) else { continue };
            if at.parent().as_ref() == Some(path) && !seen.contains(&at) {
                return Err(CollectError::Removed(at));
            }
        }
        Ok(())
    }

    /// Takes a file, unless it is one that was there before and is as it was.
    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &std::ffi::CStr,
        at: &AbsPath,
        stat: &Stat,
    ) -> Result<(), CollectError> {
        if Mode::from_raw_mode(stat.st_mode).intersects(Mode::SUID | Mode::SGID) {
            return Err(CollectError::Kind(at.clone()));
        }
        // Where the toolchain is bound over the inputs' tree, this is the empty file under the mount.
        let is_part = || self.known.there.part(at.as_bytes()).is_some();
        if !self.known.overlay && stat.st_size == 0 && is_part() {
            return Ok(());
        }
        if self.known.owner.is_some_and(|owner| owner != stat.st_uid) && is_part() {
            return Ok(());
        }
        let failed = |errno| CollectError::Read { path: at.clone(), errno };
        let size = u64::try_from(stat.st_size).map_err(|_| CollectError::TooLarge)?;
        if self.bytes.saturating_add(size) > limits::JOB_OUTPUT_BYTES_MAX || size > limits::BLOB_BYTES_MAX {
            return Err(CollectError::TooLarge);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed)?);
        let digest = blobs::hash(&file)
            .and_then(|digest| file.seek(SeekFrom::Start(0)).map(|_| digest))
            .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let output = Output { path: at.clone(), digest, size, executable: stat.st_mode & 0o100 != 0 };
        if self.is_as_placed(&output, stat) {
            return Ok(());
        }
        if !at.parent().is_some_and(|parent| self.known.output_dirs.contains(&parent)) {
            return Err(CollectError::Elsewhere(at.clone()));
        }
        if self.made.len() == limits::JOB_OUTPUTS_MAX {
            return Err(CollectError::TooMany);
        }
        self.bytes += size;
        self.made.push((output, file));
        Ok(())
    }

    /// Whether it is an input that was placed here, with the content and the time that it was placed with. A file that
    /// was written again with the same bytes is an output: its time has changed, as it would have at home.
    fn is_as_placed(&self, output: &Output, stat: &Stat) -> bool {
        let Some(Node::File(file)) = self.known.there.input(output.path.as_bytes()) else { return false };
        let same_time = i128::from(stat.st_mtime) == i128::from(file.mtime_s)
            && i128::from(stat.st_mtime_nsec) == i128::from(file.mtime_ns);
        same_time && output.digest == file.digest
    }
}
