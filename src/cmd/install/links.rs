//! Links named like compilers that lead to `mesh-cc`, for the front of `PATH` (DO).

use super::super::{failure::Failure, find};
use serde::{Deserialize, Serialize};
use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// The names that builds use for compilers.
const NAMES: &[&str] = &["gcc", "g++", "cc", "c++", "clang", "clang++"];

/// Links, made or to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Links {
    /// Where they lie.
    pub(super) dir: PathBuf,
    /// Where they lead.
    pub(super) target: PathBuf,
    /// Their names.
    pub(super) names: Vec<String>,
    /// Whether the directory was made for them.
    pub(super) made_dir: bool,
}

impl Links {
    /// A link for each compiler on `path_var`.
    ///
    /// # Errors
    /// If a name is taken by something else, or there is no compiler: nothing has been changed then.
    pub(super) fn plan(dir: &Path, target: &Path, path_var: Option<&OsStr>) -> Result<Self, Failure> {
        if !target.is_file() {
            return Err(Failure::new(format!("{} is missing. Install mesh-cc beside mesh", target.display())));
        }
        let there = |name: &&&str| find::find(OsStr::new(name), Path::new("/"), path_var).is_ok();
        let names: Vec<String> = NAMES.iter().filter(there).map(ToString::to_string).collect();
        if names.is_empty() {
            return Err(Failure::new("there is no compiler on PATH to make links for. Install gcc or clang first"));
        }
        let links = Self { dir: dir.to_owned(), target: target.to_owned(), names, made_dir: !dir.exists() };
        for link in links.paths() {
            if std::fs::symlink_metadata(&link).is_ok() && !links.is_own(&link) {
                return Err(Failure::new(format!(
                    "{} is there already and is not mesh's. Name an empty directory: mesh install --links DIR",
                    link.display()
                )));
            }
        }
        Ok(links)
    }

    /// These, and those that were made there before: a compiler that is gone since has left its link.
    pub(super) fn and(mut self, before: Option<Self>) -> Self {
        let Some(before) = before.filter(|before| before.target == self.target) else { return self };
        self.made_dir |= before.made_dir;
        let gone: Vec<String> = before.names.into_iter().filter(|name| !self.names.contains(name)).collect();
        self.names.extend(gone);
        self
    }

    /// The links' paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.names.iter().map(|name| self.dir.join(name))
    }

    fn is_own(&self, link: &Path) -> bool {
        std::fs::read_link(link).is_ok_and(|to| to == self.target)
    }

    /// Makes those that are not there.
    pub(super) fn make(&self) -> Result<(), Failure> {
        let failure = |path: &Path, e: std::io::Error| Failure::new(format!("{} cannot be made: {e}", path.display()));
        std::fs::create_dir_all(&self.dir).map_err(|e| failure(&self.dir, e))?;
        for link in self.paths().filter(|link| !self.is_own(link)) {
            std::os::unix::fs::symlink(&self.target, &link).map_err(|e| failure(&link, e))?;
        }
        Ok(())
    }

    /// Removes those that still lead where they were made to lead; gives what it removed.
    pub(super) fn remove(&self) -> Vec<PathBuf> {
        let own = self.paths().filter(|link| self.is_own(link));
        let mut gone: Vec<PathBuf> = own.filter(|link| std::fs::remove_file(link).is_ok()).collect();
        // Not if somebody has put something else there.
        if self.made_dir && std::fs::remove_dir(&self.dir).is_ok() {
            gone.push(self.dir.clone());
        }
        gone
    }

    /// The line that puts them to use.
    pub(super) fn advice(&self) -> String {
        let mut path = OsString::from(&self.dir);
        path.push(":$PATH");
        format!("to use the links, put their directory first: PATH={}", path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A directory with `mesh-cc` and, on a `PATH` of its own, gcc and clang++.
    fn desk() -> (tempfile::TempDir, PathBuf, OsString) {
        let dir = tempfile::tempdir().expect("a directory");
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).expect("fresh");
        for name in ["gcc", "clang++", "mesh-cc"] {
            std::fs::write(bin.join(name), "#!/bin/sh\n").expect("fresh");
            std::fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).expect("own file");
        }
        let links = dir.path().join("links");
        (dir, links, bin.into_os_string())
    }

    #[test]
    fn links_are_made_for_compilers_that_exist_and_removed_again() {
        let (dir, at, path) = desk();
        let target = dir.path().join("bin/mesh-cc");
        let links = Links::plan(&at, &target, Some(&path)).expect("nothing is in the way");
        assert_eq!(links.names, ["gcc", "clang++"]);
        assert!(!at.exists(), "a plan changes nothing");
        links.make().expect("nothing is in the way");
        assert_eq!(std::fs::read_link(at.join("gcc")).expect("a link"), target);
        let again = Links::plan(&at, &target, Some(&path)).expect("they are its own");
        again.make().expect("they are there");
        // A compiler that is gone has left its link, which is removed with the others.
        std::fs::remove_file(dir.path().join("bin/gcc")).expect("own file");
        let later = Links::plan(&at, &target, Some(&path)).expect("they are its own").and(Some(links));
        assert_eq!((later.names.as_slice(), later.made_dir), (&["clang++".to_owned(), "gcc".to_owned()][..], true));
        assert_eq!(later.remove().len(), 3);
        assert!(!at.exists());
    }

    #[test]
    fn what_is_not_meshs_is_neither_replaced_nor_removed() {
        let (dir, at, path) = desk();
        let target = dir.path().join("bin/mesh-cc");
        let bin = dir.path().join("bin");
        let refused = Links::plan(&bin, &target, Some(&path)).expect_err("gcc itself lies there");
        assert!(refused.text.contains("is there already and is not mesh's"), "{}", refused.text);
        let links = Links::plan(&at, &target, Some(&path)).expect("nothing is in the way");
        links.make().expect("nothing is in the way");
        std::fs::remove_file(at.join("gcc")).expect("a link");
        symlink("/elsewhere", at.join("gcc")).expect("free");
        assert_eq!(links.remove(), [at.join("clang++")]);
        assert!(at.join("gcc").is_symlink());
        assert!(Links::plan(&at, &target, Some(OsStr::new("/no/such"))).is_err());
        assert!(Links::plan(&at, &bin.join("absent"), Some(&path)).is_err());
    }
}
