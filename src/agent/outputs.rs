//! Writes what a job made beside its targets, under temporary names; the launcher renames (DO).
//!
//! A temporary file lives until the launcher has renamed it or has gone. The directories that ever held one are in a list
//! on disk, with the mark that this agent's names bear, so that an agent that was killed leaves nothing: the next one
//! sweeps. Directories and not files: a build writes to few, and a unit costs no line.

use mesh_proto::{digest::hex, job::Output};
use rand_core::RngCore;
use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// What the directories are kept in, below the runtime directory.
const LIST: &str = "temporary-files";
/// Directories in the list. Beyond it what a killed agent left elsewhere stays.
const DIRECTORIES_MAX: usize = 65_536;
/// Names looked at in one directory when sweeping.
const SWEEP_NAMES_MAX: usize = 1 << 20;

/// The temporary files of one agent.
#[derive(Debug)]
pub struct Temporaries {
    /// How the names of this agent begin.
    prefix: String,
    list: PathBuf,
    known: Mutex<Known>,
    next: AtomicU64,
}

/// The directories in the list.
#[derive(Debug, Default)]
struct Known {
    directories: HashSet<PathBuf>,
    file: Option<File>,
}

/// A file that a job made, here.
#[derive(Debug)]
pub struct Made {
    /// What it is.
    pub output: Output,
    /// Its content.
    pub bytes: Vec<u8>,
    /// The compiler writes over an old file, whose mode stays (dependency lists), rather than making a new one (objects:
    /// the assembler and clang remove the old one first).
    pub keeps_mode: bool,
}

/// Temporary files of one unit; those that were not kept are removed when it goes.
#[derive(Debug)]
pub struct Placed {
    /// From, to.
    pub renames: Vec<(PathBuf, PathBuf)>,
    kept: bool,
}

impl Temporaries {
    /// Sweeps what an earlier agent left, and begins a list.
    #[must_use]
    pub fn sweep(runtime_dir: &Path) -> Arc<Self> {
        let list = runtime_dir.join(LIST);
        let text = std::fs::read(&list).unwrap_or_default();
        let mut lines = text.split(|b| *b == 0);
        if let Some(prefix) = lines.next().filter(|prefix| prefix.starts_with(PREFIX.as_bytes())) {
            lines
                .filter(|line| line.starts_with(b"/"))
                .for_each(|dir| sweep(Path::new(OsStr::from_bytes(dir)), prefix));
        }
        let _ = std::fs::remove_file(&list);
        let mut mark = [0; 6];
        rand_core::OsRng.fill_bytes(&mut mark);
        let prefix = format!("{PREFIX}{}-", hex(&mark));
        Arc::new(Self { prefix, list, known: Mutex::default(), next: AtomicU64::new(0) })
    }

    fn name(&self) -> String {
        format!("{}{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes sure that a directory is in the list before a file is made there.
    fn remember(&self, directory: &Path) -> std::io::Result<()> {
        let mut known = self.known.lock().expect("no panic while held");
        if known.directories.contains(directory) || known.directories.len() >= DIRECTORIES_MAX {
            return Ok(());
        }
        if known.file.is_none() {
            let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.list)?;
            file.write_all(&[self.prefix.as_bytes(), &[0]].concat())?;
            known.file = Some(file);
        }
        if let Some(file) = &mut known.file {
            file.write_all(&[directory.as_os_str().as_bytes(), &[0]].concat())?;
        }
        known.directories.insert(directory.to_owned());
        Ok(())
    }

    /// Writes all outputs beside their targets, with the mode that the compiler would have given them.
    ///
    /// # Errors
    /// Nothing is left behind then.
    pub fn place(self: &Arc<Self>, outputs: &[Made], umask: u32) -> std::io::Result<Placed> {
        let pair = |made: &Made| {
            let to = PathBuf::from(OsStr::from_bytes(made.output.path.as_bytes()));
            (to.with_file_name(self.name()), to)
        };
        let pairs: Vec<(PathBuf, PathBuf)> = outputs.iter().map(pair).collect();
        pairs.iter().filter_map(|(from, _)| from.parent()).try_for_each(|dir| self.remember(dir))?;
        let placed = Placed { renames: pairs, kept: false };
        for (made, (from, to)) in outputs.iter().zip(&placed.renames) {
            // No compile makes a program, whatever a peer says of it.
            let fresh = 0o666 & !umask;
            let old = if made.keeps_mode { std::fs::metadata(to).ok() } else { None };
            let mode = old.map_or(fresh, |old| old.mode() & 0o777);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(from)?;
            file.write_all(&made.bytes)?;
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        }
        Ok(placed)
    }
}

/// How temporary names of any agent begin.
const PREFIX: &str = ".mesh-";

/// Removes files of a directory whose names begin so.
fn sweep(dir: &Path, prefix: &[u8]) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.take(SWEEP_NAMES_MAX).flatten() {
        if entry.file_name().as_bytes().starts_with(prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl Placed {
    /// The launcher has renamed them.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if !self.kept {
            for (from, _) in &self.renames {
                let _ = std::fs::remove_file(from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::{digest::Digest, path::AbsPath};

    fn output(path: &Path) -> Made {
        let path = AbsPath::new(path.as_os_str().as_bytes()).expect("normal");
        let output = Output { path, digest: Digest::of(b"x"), size: 1, executable: false };
        Made { output, bytes: b"x".to_vec(), keeps_mode: true }
    }

    #[test]
    fn what_nobody_renamed_goes_and_what_a_killed_agent_left_is_swept() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Temporaries::sweep(dir.path());
        let placed = home.place(&[output(&dir.path().join("a.o"))], 0o027).expect("room");
        let from = placed.renames[0].0.clone();
        assert_eq!(std::fs::metadata(&from).expect("written").mode() & 0o777, 0o640);
        drop(placed);
        assert!(!from.exists());
        let placed = home.place(&[output(&dir.path().join("a.o"))], 0).expect("room");
        let from = placed.renames[0].0.clone();
        std::mem::forget(placed);
        drop(Temporaries::sweep(dir.path()));
        assert!(!from.exists());
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Temporaries::sweep(dir.path());
        let (good, bad) = (output(&dir.path().join("a.o")), output(&dir.path().join("no/a.d")));
        assert!(home.place(&[good, bad], 0).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 1, "only the list");
    }

    #[test]
    fn an_existing_list_keeps_its_mode_and_an_object_is_new() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("a.o");
        std::fs::write(&target, "old").expect("room");
        std::fs::set_permissions(&target, PermissionsExt::from_mode(0o604)).expect("own");
        for (keeps_mode, mode) in [(true, 0o604), (false, 0o644)] {
            let made = Made { keeps_mode, ..output(&target) };
            let placed = Temporaries::sweep(dir.path()).place(&[made], 0o022).expect("room");
            assert_eq!(std::fs::metadata(&placed.renames[0].0).expect("written").mode() & 0o777, mode);
        }
    }
}
