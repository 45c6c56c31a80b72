//! The directory on disk in which jobs have their roots where nothing can be mounted (DO).
//!
//! It lies beside the job's base, so that what the base holds can be linked: the toolchain's files are root's, the job is
//! not, and so it reads them and no more. Inputs are copies, as in every other form. Each job's identity has one root in
//! it, which is removed by whoever comes next to it: the agent once the outputs are collected, or the next job of the
//! identity. Nobody but root goes there.

use super::{
    Step,
    linux::{Fault, fault},
    policy::Policy,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The workshop's name, beside the bases, none of which has it.
const NAME: &str = "roots";
/// How deep the base is walked.
const DEPTH_MAX: usize = 64;
/// What a directory is opened with to be listed.
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where the root of a policy's job is.
pub(super) fn root(policy: &Policy) -> PathBuf {
    let base = Path::new(OsStr::from_bytes(&policy.base));
    base.parent().unwrap_or(base).join(NAME).join(policy.identity.id().to_string())
}

/// What is left of a job's root on this machine; removed when this is dropped.
#[derive(Debug)]
pub struct Remains {
    root: PathBuf,
    owner: u32,
}

impl Remains {
    pub(super) fn of(policy: &Policy) -> Self {
        Self { root: root(policy), owner: policy.identity.id() }
    }

    /// The user that the job was: whatever else lies in its root was there before.
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.owner
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        // The next job of this identity tries once more, and says so if it cannot.
        let _ = remove(&self.root);
    }
}

/// Makes an empty root at a path, in place of what an earlier job left.
pub(super) fn make(path: &Path) -> Result<OwnedFd, Errno> {
    let make = |path: &Path, mode| match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    };
    path.parent().map_or(Ok(()), |workshop| make(workshop, 0o700))?;
    remove(path)?;
    make(path, 0o755)?;
    rustix::fs::open(path, LISTED, Mode::empty())
}

/// Removes a directory with all that is in it. A hostile program made it, and may have made it deeper than descriptors
/// last: what is found in a directory of it is moved up, so only one is ever open below it.
pub(super) fn remove(path: &Path) -> Result<(), Errno> {
    let top = match rustix::fs::open(path, LISTED, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let mut moved = 0_u64;
    loop {
        let mut is_empty = true;
        for (name, kind) in entries(top.as_fd())? {
            is_empty = false;
            if kind != FileType::Directory {
                rustix::fs::unlinkat(&top, &name, AtFlags::empty())?;
                continue;
            }
            if rustix::fs::unlinkat(&top, &name, AtFlags::REMOVEDIR).is_ok() {
                continue;
            }
            let inner = rustix::fs::openat(&top, &name, LISTED, Mode::empty())?;
            for (below, kind) in entries(inner.as_fd())? {
                if kind != FileType::Directory {
                    rustix::fs::unlinkat(&inner, &below, AtFlags::empty())?;
                } else if rustix::fs::unlinkat(&inner, &below, AtFlags::REMOVEDIR).is_err() {
                    lift(inner.as_fd(), &below, top.as_fd(), &mut moved)?;
                }
            }
            rustix::fs::unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
        }
        if is_empty {
            return rustix::fs::rmdir(path);
        }
    }
}

/// Moves a directory to the top, under a name that is free there.
fn lift(from: BorrowedFd<'_>, name: &std::ffi::CStr, top: BorrowedFd<'_>, moved: &mut u64) -> Result<(), Errno> {
    loop {
        *moved += 1;
        let free = format!("{moved}");
        match rustix::fs::renameat_with(from, name, top, free, rustix::fs::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
    }
}

/// The names and kinds in a directory.
fn entries(dir: BorrowedFd<'_>) -> Result<Vec<(std::ffi::CString, FileType)>, Errno> {
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            kind => kind,
        };
        found.push((name.to_owned(), kind));
    }
    Ok(found)
}

/// Links what a base holds into a root, where the inputs have not placed it already; `below` is its path.
pub(super) fn link_base(
    base: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    below: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Fault> {
    let failed = |path: &[u8], errno| fault(Step::Layers, path, errno);
    if depth > DEPTH_MAX {
        return Err(failed(below, Errno::LOOP));
    }
    for (name, kind) in entries(base).map_err(|errno| failed(below, errno))? {
        let length = below.len();
        below.push(b'/');
        below.extend_from_slice(name.to_bytes());
        let failed = |errno| failed(below, errno);
        let exists = |result| if result == Err(Errno::EXIST) { Ok(()) } else { result };
        match kind {
            FileType::Directory => {
                exists(rustix::fs::mkdirat(root, &name, Mode::from_raw_mode(0o755))).map_err(failed)?;
                let open = |dir: BorrowedFd<'_>| rustix::fs::openat(dir, &name, LISTED, Mode::empty());
                let (from, to) = (open(base).map_err(failed)?, open(root).map_err(failed)?);
                link_base(from.as_fd(), to.as_fd(), below, depth + 1)?;
            }
            FileType::Symlink => {
                let text = rustix::fs::readlinkat(base, &name, Vec::new()).map_err(failed)?;
                exists(rustix::fs::symlinkat(&text, root, &name)).map_err(failed)?;
            }
            // An input of this path is equal: `worker` saw to that.
            FileType::RegularFile => {
                exists(rustix::fs::linkat(base, &name, root, &name, AtFlags::empty())).map_err(failed)?;
            }
            _ => return Err(failed(Errno::INVAL)),
        }
        below.truncate(length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_removed_however_deep_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("7");
        let mut here = make(&path).unwrap();
        // Deeper than descriptors last, with names that the way up takes too.
        for depth in 0..3000 {
            let name = format!("{}", depth % 3);
            rustix::fs::mkdirat(&here, &name, Mode::from_raw_mode(0o700)).unwrap();
            rustix::fs::symlinkat("/", &here, "link").unwrap();
            here = rustix::fs::openat(&here, &name, LISTED, Mode::empty()).unwrap();
        }
        std::fs::write(path.join("file"), b"x").unwrap();
        // Another job of the identity finds nothing.
        assert_eq!(entries(make(&path).unwrap().as_fd()).unwrap(), []);
        remove(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(remove(&path), Ok(()));
    }

    #[test]
    fn what_an_input_has_placed_is_not_replaced_by_the_base() {
        let dir = tempfile::tempdir().unwrap();
        let (base, root) = (dir.path().join("base"), dir.path().join("root"));
        for path in ["base/usr/lib", "root/usr"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::fs::write(base.join("usr/tool"), b"tool").unwrap();
        std::fs::write(base.join("usr/lib/cc1"), b"cc1").unwrap();
        std::os::unix::fs::symlink("usr/lib", base.join("lib")).unwrap();
        std::fs::write(root.join("usr/tool"), b"placed").unwrap();
        let open = |path: &Path| rustix::fs::open(path, LISTED, Mode::empty()).unwrap();
        link_base(open(&base).as_fd(), open(&root).as_fd(), &mut Vec::new(), 0).unwrap();
        assert_eq!(std::fs::read(root.join("usr/tool")).unwrap(), b"placed");
        assert_eq!(std::fs::read(root.join("lib/cc1")).unwrap(), b"cc1");
    }
}
