//! The machine's compilers as trees that jobs' roots are built on (DO).
//!
//! A tree holds exactly the parts of one manifest, at their paths, as copies that were checked against their digests
//! while they were made: an upgrade of the system changes no job's compiler half-way. One copy serves all trees, by hard
//! links: a machine has a dozen drivers (`gcc`, `cc`, `gcc-12`, …) of one compiler. Rejected: hard links to the system's
//! files (an ordinary user may not make them, a file written in place would change the tree, and often they are on another
//! file system) and binding each part into each root (150 mounts a job). Where the file system shares blocks between
//! copies, the copies cost no room.

use super::strict::{StrictError, check_toolchain};
use crate::store::{blobs, layout};
use mesh_proto::digest::Digest;
use mesh_proto::path::AbsPath;
use mesh_proto::toolchain::{Fingerprint, Manifest, Part, PartNode};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How trees that are not whole yet begin.
const UNFINISHED: &str = "unfinished-";
/// How the name of a copy ends that may be executed.
const EXECUTABLE: &str = "-x";
/// Copies of which it is known whether they are whole, number; beyond it they are looked at again.
const COPIES_KNOWN_MAX: usize = 1 << 16;
/// The extension of a copy that is being written.
const NEW: &str = "new";

/// Why a toolchain's tree is not there.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// The manifest cannot be placed.
    #[error("its manifest cannot be placed: {0}")]
    Malformed(#[from] StrictError),
    /// The manifest is not the one of this fingerprint.
    #[error("its manifest does not have its fingerprint")]
    Fingerprint,
    /// A file of this machine is no longer what the manifest says.
    #[error("{0:?} has changed since the compiler was looked at")]
    Changed(AbsPath),
    /// A file of a compiler that was sent is not here.
    #[error("{0:?} is missing")]
    Missing(AbsPath),
    /// The disk.
    #[error("could not {verb} {path:?}: {error}")]
    Disk {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: AbsPath,
        /// What the system says.
        error: io::Error,
    },
}

impl ToolchainError {
    /// Whether the disk, or this user's share of it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Disk { error, .. } if matches!(error.kind(), StorageFull | QuotaExceeded))
    }
}

/// The trees of one cache directory.
#[derive(Debug)]
pub struct Toolchains {
    cache: PathBuf,
    /// Which are whole, as seen by this process; the inner lock is held while one is made.
    ready: Mutex<HashMap<Fingerprint, Arc<Mutex<bool>>>>,
    copies: Copies,
}

/// A copy of each file, by content and mode, that the trees link to.
#[derive(Debug)]
struct Copies {
    folder: PathBuf,
    /// Which were checked by this process; the inner lock is held while one is made.
    checked: Mutex<Checked>,
}

/// Whose compiler a tree is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// This machine's own: its files are read where they are.
    Here,
    /// Another machine's: its files came before, and nothing of this machine is looked at.
    Sent,
}

type Checked = HashMap<(Digest, bool), Arc<Mutex<bool>>>;

impl Toolchains {
    /// The trees below this cache directory. Removes what an earlier run did not finish.
    ///
    /// # Errors
    /// If the folder cannot be made or listed.
    pub fn open(cache: &Path) -> io::Result<Self> {
        let folder = cache.join(layout::TOOLCHAINS);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        let copies = Copies { folder: cache.join(layout::TOOLCHAIN_FILES), checked: Mutex::default() };
        DirBuilder::new().recursive(true).mode(0o700).create(&copies.folder)?;
        for entry in std::fs::read_dir(&copies.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == NEW) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(Self { cache: cache.to_owned(), ready: Mutex::default(), copies })
    }

    /// The folder that the trees are in, each by its fingerprint.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.cache.join(layout::TOOLCHAINS)
    }

    /// The tree of this toolchain of the machine's own, made now if it is not there. One that an earlier run made is checked
    /// first: it was never synchronised to disk.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn tree(&self, manifest: &Manifest, fingerprint: &Fingerprint) -> Result<PathBuf, ToolchainError> {
        self.tree_of(manifest, fingerprint, Origin::Here)
    }

    /// The tree of a toolchain whose files were sent; see [`Toolchains::tree`].
    ///
    /// # Errors
    /// If it cannot be made; [`ToolchainError::Missing`] for a file that did not come or lost bytes since.
    pub fn tree_of_sent(&self, manifest: &Manifest, fingerprint: &Fingerprint) -> Result<PathBuf, ToolchainError> {
        self.tree_of(manifest, fingerprint, Origin::Sent)
    }

    /// Whether a file's content is here, checked now if it was not.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        [false, true].into_iter().any(|executable| self.copies.has(digest, executable))
    }

    /// Takes a file in, of exactly `size` bytes from `content`.
    ///
    /// # Errors
    /// [`ToolchainError::Changed`] if it is not what `digest` says; else what the disk says.
    pub fn receive(&self, part: &Part, content: &mut dyn io::Read) -> Result<(), ToolchainError> {
        let PartNode::File { digest, size, executable } = &part.node else { return Ok(()) };
        self.copies.receive(part, digest, *size, *executable, content)
    }

    /// Removes a toolchain's tree, and all files that no toolchain needs any more of which `is_needed` does not say so. Gives
    /// how many bytes that freed.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove(&self, fingerprint: &Fingerprint, is_needed: impl Fn(&Digest) -> bool) -> io::Result<u64> {
        let state = self.ready.lock().unwrap_or_else(PoisonError::into_inner).remove(fingerprint);
        // Whoever is making it ends first.
        let _last = state.as_ref().map(|state| state.lock().unwrap_or_else(PoisonError::into_inner));
        remove(&layout::toolchain(&self.cache, fingerprint))?;
        self.copies.sweep(is_needed)
    }

    /// Removes all files that no toolchain needs if they are more than so many bytes together. Gives how many bytes that
    /// freed.
    ///
    /// # Errors
    /// What the disk says.
    pub fn sweep_over(&self, bytes_max: u64, is_needed: impl Fn(&Digest) -> bool) -> io::Result<u64> {
        if self.copies.unneeded(&is_needed)? <= bytes_max { Ok(0) } else { self.copies.sweep(is_needed) }
    }

    fn tree_of(
        &self,
        manifest: &Manifest,
        fingerprint: &Fingerprint,
        origin: Origin,
    ) -> Result<PathBuf, ToolchainError> {
        let state = {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(ready.entry(*fingerprint).or_default())
        };
        let tree = layout::toolchain(&self.cache, fingerprint);
        let mut is_ready = state.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_ready {
            if manifest.fingerprint() != *fingerprint {
                return Err(ToolchainError::Fingerprint);
            }
            check_toolchain(manifest)?;
            if !self.is_whole(&tree, manifest, origin) {
                self.make(&tree, manifest, origin)?;
            }
            *is_ready = true;
        }
        Ok(tree)
    }

    fn make(&self, tree: &Path, manifest: &Manifest, origin: Origin) -> Result<(), ToolchainError> {
        let disk = |verb| move |error| ToolchainError::Disk { verb, path: AbsPath::root(), error };
        let name = tree.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = self.cache.join(layout::TOOLCHAINS).join(format!("{UNFINISHED}{name}"));
        remove(&unfinished).map_err(disk("remove"))?;
        remove(tree).map_err(disk("remove"))?;
        directory(&unfinished).map_err(disk("make"))?;
        for part in &manifest.parts {
            self.place(part, &unfinished, origin)?;
        }
        std::fs::rename(&unfinished, tree).map_err(disk("rename"))
    }

    /// Puts one part into a tree. No path leads through a link: the manifest was checked.
    fn place(&self, part: &Part, tree: &Path, origin: Origin) -> Result<(), ToolchainError> {
        let disk = |verb| move |error| ToolchainError::Disk { verb, path: part.path.clone(), error };
        let to = below(tree, &part.path);
        let from = Path::new(OsStr::from_bytes(part.path.as_bytes()));
        if part.node == PartNode::Directory {
            return directory(&to).map_err(disk("make"));
        }
        to.parent().map_or(Ok(()), directory).map_err(disk("make"))?;
        match &part.node {
            PartNode::Directory => Ok(()),
            PartNode::Symlink { target } => {
                if origin == Origin::Here {
                    let found = std::fs::read_link(from).map_err(disk("read"))?;
                    if found.as_os_str().as_bytes() != target {
                        return Err(ToolchainError::Changed(part.path.clone()));
                    }
                }
                std::os::unix::fs::symlink(OsStr::from_bytes(target), &to).map_err(disk("make"))
            }
            PartNode::File { digest, executable, .. } => {
                let copy = self.copies.of(part, digest, *executable, origin)?;
                std::fs::hard_link(copy, &to).map_err(disk("link"))
            }
        }
    }

    /// Whether a tree holds every part as the manifest says: every file is the checked copy itself.
    fn is_whole(&self, tree: &Path, manifest: &Manifest, origin: Origin) -> bool {
        let same = |at: &Path, copy: &Path| {
            let id = |path: &Path| std::fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()));
            matches!((id(at), id(copy)), (Ok(one), Ok(two)) if one == two)
        };
        manifest.parts.iter().all(|part| {
            let at = below(tree, &part.path);
            match &part.node {
                PartNode::Directory => std::fs::symlink_metadata(at).is_ok_and(|found| found.is_dir()),
                PartNode::Symlink { target } => {
                    std::fs::read_link(at).is_ok_and(|found| found.as_os_str().as_bytes() == target)
                }
                PartNode::File { digest, executable, .. } => {
                    self.copies.of(part, digest, *executable, origin).is_ok_and(|copy| same(&at, &copy))
                }
            }
        })
    }
}

impl Copies {
    /// The checked copy of a part's content; made now if it is not there, made anew if it lost bytes.
    fn of(&self, part: &Part, digest: &Digest, executable: bool, origin: Origin) -> Result<PathBuf, ToolchainError> {
        let disk = |verb| move |error| ToolchainError::Disk { verb, path: part.path.clone(), error };
        let state = self.state(digest, executable);
        let path = self.path(digest, executable);
        let mut is_checked = state.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_checked {
            if !file_digest(&path).is_ok_and(|found| found == *digest) {
                let from = match origin {
                    Origin::Here => PathBuf::from(OsStr::from_bytes(part.path.as_bytes())),
                    // The same content may have come under the other mode.
                    Origin::Sent => self.path(digest, !executable),
                };
                let source = File::open(from).map_err(|error| match origin {
                    Origin::Sent if error.kind() == ErrorKind::NotFound => ToolchainError::Missing(part.path.clone()),
                    _ => disk("read")(error),
                })?;
                self.make(part, digest, executable, |copy| copy_content(&source, copy))?;
            }
            *is_checked = true;
        }
        Ok(path)
    }

    /// Makes a copy, whatever is there in its place; the state of its content is locked.
    fn make(
        &self,
        part: &Part,
        digest: &Digest,
        executable: bool,
        fill: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), ToolchainError> {
        let disk = |verb| move |error| ToolchainError::Disk { verb, path: part.path.clone(), error };
        let path = self.path(digest, executable);
        let made = path.with_extension(NEW);
        let _ = std::fs::remove_file(&made);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let copy = options.open(&made).map_err(disk("make"))?;
        let filled = fill(&copy).map_err(disk("copy")).and_then(|()| {
            let mode = if executable { 0o755 } else { 0o644 };
            copy.set_permissions(PermissionsExt::from_mode(mode)).map_err(disk("make"))?;
            // What was written is what is checked, not what was read.
            if file_digest(&made).map_err(disk("read"))? != *digest {
                return Err(ToolchainError::Changed(part.path.clone()));
            }
            std::fs::rename(&made, &path).map_err(disk("rename"))
        });
        if filled.is_err() {
            let _ = std::fs::remove_file(&made);
        }
        filled
    }

    fn receive(
        &self,
        part: &Part,
        digest: &Digest,
        size: u64,
        executable: bool,
        content: &mut dyn io::Read,
    ) -> Result<(), ToolchainError> {
        let state = self.state(digest, executable);
        let mut is_checked = state.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_checked {
            self.make(part, digest, executable, |mut copy| {
                let came = io::copy(&mut io::Read::take(content, size), &mut copy)?;
                if came == size { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
            })?;
            *is_checked = true;
        }
        Ok(())
    }

    fn has(&self, digest: &Digest, executable: bool) -> bool {
        let state = self.state(digest, executable);
        let mut is_checked = state.lock().unwrap_or_else(PoisonError::into_inner);
        *is_checked = *is_checked || file_digest(&self.path(digest, executable)).is_ok_and(|found| found == *digest);
        *is_checked
    }

    /// The copies that are not needed, bytes.
    fn unneeded(&self, is_needed: impl Fn(&Digest) -> bool) -> io::Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let hex = name.to_str().map(|name| name.strip_suffix(EXECUTABLE).unwrap_or(name));
            if hex.and_then(Digest::from_hex).is_some_and(|digest| !is_needed(&digest)) {
                bytes += entry.metadata()?.len();
            }
        }
        Ok(bytes)
    }

    /// Removes the copies that are not needed. Trees that stand keep what they link to.
    fn sweep(&self, is_needed: impl Fn(&Digest) -> bool) -> io::Result<u64> {
        let mut freed = 0;
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let (hex, executable) = name.strip_suffix(EXECUTABLE).map_or((&*name, false), |hex| (hex, true));
            let Some(digest) = Digest::from_hex(hex).filter(|digest| !is_needed(digest)) else { continue };
            let state = self.state(&digest, executable);
            let mut is_checked = state.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = entry.metadata()?.len();
            std::fs::remove_file(entry.path())?;
            (*is_checked, freed) = (false, freed + bytes);
        }
        Ok(freed)
    }

    fn state(&self, digest: &Digest, executable: bool) -> Arc<Mutex<bool>> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.len() >= COPIES_KNOWN_MAX {
            // Those that somebody has at this moment stay.
            checked.retain(|_, state| Arc::strong_count(state) > 1);
        }
        Arc::clone(checked.entry((*digest, executable)).or_default())
    }

    fn path(&self, digest: &Digest, executable: bool) -> PathBuf {
        self.folder.join(format!("{}{}", digest.hex(), if executable { EXECUTABLE } else { "" }))
    }
}

fn remove(tree: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(tree) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes a directory and those before it, open to the job whatever this process's mask is.
fn directory(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), directory)?;
            std::fs::create_dir(path)?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))
}

fn below(tree: &Path, path: &AbsPath) -> PathBuf {
    tree.join(OsStr::from_bytes(path.below_root()))
}

fn file_digest(path: &Path) -> io::Result<Digest> {
    blobs::hash(File::open(path)?)
}

/// Copies a file's bytes, by sharing its blocks where the file system can.
fn copy_content(mut from: &File, mut to: &File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    io::copy(&mut from, &mut to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A toolchain of one file and one link, in a directory of its own.
    fn toolchain(dir: &Path) -> Manifest {
        std::fs::write(dir.join("cc1"), b"code").unwrap();
        std::os::unix::fs::symlink("cc1", dir.join("cc")).unwrap();
        let path = |name: &str| AbsPath::new(dir.join(name).as_os_str().as_bytes()).unwrap();
        let file = PartNode::File { digest: Digest::of(b"code"), size: 4, executable: true };
        let parts = vec![
            Part { path: path("cc"), node: PartNode::Symlink { target: b"cc1".to_vec() } },
            Part { path: path("cc1"), node: file },
        ];
        Manifest { driver: path("cc"), facts: vec![], parts }
    }

    fn place_of(tree: &Path, dir: &Path, name: &str) -> PathBuf {
        tree.join(dir.strip_prefix("/").unwrap()).join(name)
    }

    #[test]
    fn a_tree_is_a_copy_that_later_changes_of_the_system_do_not_reach() {
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let manifest = toolchain(dir.path());
        let fingerprint = manifest.fingerprint();
        let toolchains = Toolchains::open(cache.path()).unwrap();
        let tree = toolchains.tree(&manifest, &fingerprint).unwrap();
        std::fs::write(dir.path().join("cc1"), b"CODE").unwrap();
        assert_eq!(std::fs::read(place_of(&tree, dir.path(), "cc")).unwrap(), b"code");
        let mode = std::fs::metadata(place_of(&tree, dir.path(), "cc1")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(toolchains.tree(&manifest, &fingerprint).unwrap(), tree);
    }

    #[test]
    fn a_file_that_is_not_what_the_manifest_says_makes_no_tree() {
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let manifest = toolchain(dir.path());
        std::fs::write(dir.path().join("cc1"), b"CODE").unwrap();
        let toolchains = Toolchains::open(cache.path()).unwrap();
        let result = toolchains.tree(&manifest, &manifest.fingerprint());
        assert!(matches!(result, Err(ToolchainError::Changed(_))), "{result:?}");
        let other = Fingerprint(Digest::of(b"other"));
        assert!(matches!(toolchains.tree(&manifest, &other), Err(ToolchainError::Fingerprint)));
        assert!(!layout::toolchain(cache.path(), &manifest.fingerprint()).exists());
    }

    #[test]
    fn what_came_of_compilers_that_were_never_whole_goes_when_it_is_too_much() {
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let toolchains = Toolchains::open(cache.path()).unwrap();
        let part = &toolchain(dir.path()).parts[1];
        toolchains.receive(part, &mut &b"code"[..]).unwrap();
        let digest = Digest::of(b"code");
        assert_eq!(toolchains.sweep_over(0, |needed| *needed == digest).unwrap(), 0);
        assert_eq!(toolchains.sweep_over(4, |_| false).unwrap(), 0);
        assert!(toolchains.has(&digest));
        assert_eq!(toolchains.sweep_over(3, |_| false).unwrap(), 4);
        assert!(!toolchains.has(&digest));
        // What has other bytes than it should is not kept at all.
        assert!(toolchains.receive(part, &mut &b"evil"[..]).is_err());
        assert!(toolchains.receive(part, &mut &b"cod"[..]).is_err());
        assert_eq!(std::fs::read_dir(&toolchains.copies.folder).unwrap().count(), 0);
    }

    #[test]
    fn a_tree_that_lost_bytes_is_made_anew_after_a_restart() {
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let manifest = toolchain(dir.path());
        let fingerprint = manifest.fingerprint();
        let tree = Toolchains::open(cache.path()).unwrap().tree(&manifest, &fingerprint).unwrap();
        std::fs::write(place_of(&tree, dir.path(), "cc1"), b"").unwrap();
        let tree = Toolchains::open(cache.path()).unwrap().tree(&manifest, &fingerprint).unwrap();
        assert_eq!(std::fs::read(place_of(&tree, dir.path(), "cc1")).unwrap(), b"code");
    }
}
