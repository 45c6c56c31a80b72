//! Follows paths as the kernel does and notes everything on the way (DO).

use super::stamp::Stamp;
use mesh_proto::path::AbsPath;
use std::{collections::BTreeMap, io};

/// Symbolic links in one path, as Linux limits them.
const LINKS_MAX: usize = 40;

/// What lies at a path by which no link leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// A regular file.
    File,
    /// A symbolic link and its text.
    Symlink(Vec<u8>),
    /// A directory that a path leaves again by `..`, or that is itself what is looked for.
    Directory,
}

/// Everything that was met, by real path: no component before the last is a symbolic link.
#[derive(Debug, Default)]
pub(super) struct Walk {
    found: BTreeMap<AbsPath, Found>,
}

impl Walk {
    /// Follows an absolute path to its end, and notes the links, the directories left by `..`, and the end.
    ///
    /// # Errors
    /// As the kernel would give them: not found, not a directory, too many links. What was met before stays noted.
    pub(super) fn follow(&mut self, path: &[u8]) -> io::Result<(AbsPath, Found)> {
        if path.first() != Some(&b'/') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut ahead: Vec<Vec<u8>> = components(path);
        let mut at = AbsPath::root();
        let mut links = 0;
        while let Some(component) = ahead.pop() {
            if component == b".." {
                self.note(&at, Found::Directory);
                at = at.parent().unwrap_or_else(AbsPath::root);
                continue;
            }
            let next = at.join(&component).map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
            let stamp = Stamp::of(next.as_bytes())?;
            if stamp.is_symlink() {
                links += 1;
                if links > LINKS_MAX {
                    return Err(rustix::io::Errno::LOOP.into());
                }
                let target = rustix::fs::readlink(next.as_bytes(), Vec::new())?.into_bytes();
                if target.first() == Some(&b'/') {
                    at = AbsPath::root();
                }
                ahead.extend(components(&target));
                self.note(&next, Found::Symlink(target));
            } else if stamp.is_dir() {
                at = next;
            } else if !stamp.is_file() {
                return Err(io::ErrorKind::InvalidInput.into());
            } else if ahead.is_empty() {
                self.note(&next, Found::File);
                return Ok((next, Found::File));
            } else {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        self.note(&at, Found::Directory);
        Ok((at, Found::Directory))
    }

    /// As [`Walk::follow`], but what does not exist is no error, and leaves no trace.
    ///
    /// # Errors
    /// Any other failure.
    pub(super) fn follow_if_there(&mut self, path: &[u8]) -> io::Result<Option<(AbsPath, Found)>> {
        let mut trial = Self::default();
        match trial.follow(path) {
            Ok(end) => {
                self.found.extend(trial.found);
                Ok(Some(end))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Everything met so far, by path.
    pub(super) fn found(&self) -> &BTreeMap<AbsPath, Found> {
        &self.found
    }

    fn note(&mut self, path: &AbsPath, what: Found) {
        if path.as_bytes() != b"/" {
            self.found.insert(path.clone(), what);
        }
    }
}

/// A path's components, last first, without those that mean nothing.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').rev().filter(|c| !c.is_empty() && *c != b".").map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{ffi::OsStrExt, fs::symlink};

    /// A real directory: the system's own may lie behind a link.
    fn place() -> (tempfile::TempDir, Vec<u8>) {
        let dir = tempfile::tempdir().expect("a directory");
        let real = std::fs::canonicalize(dir.path()).expect("real").into_os_string();
        (dir, real.as_bytes().to_vec())
    }

    fn met(walk: &Walk, base: &[u8]) -> Vec<(String, Found)> {
        let short = |p: &AbsPath| String::from_utf8_lossy(&p.as_bytes()[base.len()..]).into_owned();
        walk.found()
            .iter()
            .filter(|(p, _)| p.as_bytes().len() > base.len())
            .map(|(p, f)| (short(p), f.clone()))
            .collect()
    }

    #[test]
    fn every_link_of_a_chain_is_met_by_its_real_path() {
        let (dir, base) = place();
        std::fs::create_dir_all(dir.path().join("usr/bin")).expect("made");
        std::fs::create_dir_all(dir.path().join("etc/alt")).expect("made");
        std::fs::write(dir.path().join("usr/bin/gcc-12"), "").expect("made");
        symlink("usr/bin", dir.path().join("bin")).expect("made");
        symlink(
            [dir.path().as_os_str().as_bytes(), b"/etc/alt/cc"].concat().as_slice().to_os(),
            dir.path().join("usr/bin/cc"),
        )
        .expect("made");
        symlink("../../usr/./bin//gcc-12", dir.path().join("etc/alt/cc")).expect("made");
        let mut walk = Walk::default();
        let (end, what) = walk.follow(&[&base[..], b"/bin/cc"].concat()).expect("there");
        assert_eq!((end.name(), what), (&b"gcc-12"[..], Found::File));
        let names: Vec<_> = met(&walk, &base).into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["/bin", "/etc", "/etc/alt", "/etc/alt/cc", "/usr/bin/cc", "/usr/bin/gcc-12"]);
    }

    #[test]
    fn a_directory_left_by_dots_is_met() {
        let (dir, base) = place();
        std::fs::create_dir_all(dir.path().join("a/b")).expect("made");
        std::fs::write(dir.path().join("a/f"), "").expect("made");
        let mut walk = Walk::default();
        walk.follow(&[&base[..], b"/a/b/../f"].concat()).expect("there");
        assert_eq!(met(&walk, &base), [("/a/b".into(), Found::Directory), ("/a/f".into(), Found::File)]);
    }

    #[test]
    fn what_is_not_there_leaves_no_trace_and_a_circle_ends() {
        let (dir, base) = place();
        symlink("x", dir.path().join("y")).expect("made");
        let mut walk = Walk::default();
        assert_eq!(walk.follow_if_there(&[&base[..], b"/y"].concat()).expect("no error"), None);
        assert!(walk.found().is_empty());
        symlink("y", dir.path().join("x")).expect("made");
        assert!(walk.follow(&[&base[..], b"/y"].concat()).is_err());
        assert!(walk.follow(b"relative").is_err());
    }

    trait ToOs {
        fn to_os(&self) -> &std::ffi::OsStr;
    }
    impl ToOs for [u8] {
        fn to_os(&self) -> &std::ffi::OsStr {
            std::ffi::OsStr::from_bytes(self)
        }
    }
}
