//! Finds the compiler that a command names, never mesh itself (DO).

use crate::launch::names;
use std::{
    ffi::{OsStr, OsString},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

/// A compiler to run.
#[derive(Debug)]
pub(super) struct Found {
    /// Where it is: absolute.
    pub(super) path: PathBuf,
    /// Its identity.
    pub(super) id: (u64, u64),
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotFound {
    /// Nothing of that name.
    Absent,
    /// A file that cannot be executed.
    NotExecutable,
}

/// The files that are mesh: the running program and its siblings.
struct Own(Vec<(u64, u64)>);

impl Own {
    fn new() -> Self {
        let mut ids = Vec::new();
        if let Ok(exe) = std::env::current_exe() {
            let others =
                [names::MESH, names::MESH_CC].map(OsStr::new).into_iter().filter(|n| exe.file_name() != Some(n));
            for name in others {
                ids.extend(std::fs::metadata(exe.with_file_name(name)).map(|m| (m.dev(), m.ino())));
            }
            ids.extend(std::fs::metadata(&exe).map(|m| (m.dev(), m.ino())));
        }
        Self(ids)
    }
}

/// Whether a path leads to mesh itself.
pub(super) fn is_own(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| Own::new().0.contains(&(meta.dev(), meta.ino())))
}

/// Looks `program` up as a shell would: by path if it has a slash, else along `PATH`; links that lead to mesh do not count,
/// so that a directory of such links may come first.
pub(super) fn find(program: &OsStr, cwd: &Path, path_var: Option<&OsStr>) -> Result<Found, NotFound> {
    let own = Own::new();
    let mut worst = NotFound::Absent;
    let mut try_path = |path: PathBuf| match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() && !own.0.contains(&(meta.dev(), meta.ino())) => {
            if meta.mode() & 0o111 == 0 {
                worst = NotFound::NotExecutable;
                return None;
            }
            Some(Found { path, id: (meta.dev(), meta.ino()) })
        }
        _ => None,
    };
    let found = if program.as_bytes().contains(&b'/') {
        try_path(cwd.join(program))
    } else {
        let default = OsString::from(names::PATH_DEFAULT);
        let path_var = path_var.unwrap_or(&default);
        std::env::split_paths(path_var).map(|dir| cwd.join(dir).join(program)).find_map(&mut try_path)
    };
    found.ok_or(worst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn links_to_mesh_are_passed_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let (links, real) = (dir.path().join("links"), dir.path().join("real"));
        for d in [&links, &real] {
            std::fs::create_dir(d).expect("fresh");
        }
        symlink(std::env::current_exe().expect("running"), links.join("gcc")).expect("fresh");
        std::fs::write(real.join("gcc"), "#!/bin/sh\n").expect("fresh");
        let path = std::env::join_paths([&links, &real]).expect("no colon");
        let look = || find(OsStr::new("gcc"), Path::new("/"), Some(&path));
        std::fs::set_permissions(real.join("gcc"), PermissionsExt::from_mode(0o644)).expect("own file");
        assert_eq!(look().expect_err("not executable"), NotFound::NotExecutable);
        std::fs::set_permissions(real.join("gcc"), PermissionsExt::from_mode(0o755)).expect("own file");
        assert_eq!(look().expect("there").path, real.join("gcc"));
        assert_eq!(find(OsStr::new("real/gcc"), dir.path(), None).expect("there").path, real.join("gcc"));
        assert_eq!(find(OsStr::new("no-such-cc"), dir.path(), Some(&path)).expect_err("absent"), NotFound::Absent);
    }
}
