//! Where mesh keeps its files: the XDG base directories, or one directory for all (DECIDE).

use crate::launch::{
    beat,
    socket::{self, Runtime},
};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The directories of one user's mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Socket, lock and markers; gone at the next boot. Mode 0700.
    pub runtime: PathBuf,
    /// Key, records, address book. Mode 0700.
    pub state: PathBuf,
    /// Blobs and toolchains; safe to delete.
    pub cache: PathBuf,
    /// `config.toml`.
    pub config: PathBuf,
    /// The agent's socket.
    pub socket: PathBuf,
}

impl Places {
    /// The places for an environment and a user. `None` if the environment names no home and no directory.
    ///
    /// <https://specifications.freedesktop.org/basedir-spec/latest/>: a relative path in an XDG variable is ignored. If
    /// `XDG_RUNTIME_DIR` is not set the socket lies in `/run/user/UID` if that is there, else in `/tmp/mesh-UID`; its
    /// owner is checked before use.
    #[must_use]
    pub fn find(var: impl Fn(&str) -> Option<OsString>, uid: u32, exists: impl Fn(&Path) -> bool) -> Option<Self> {
        let absolute = |name: &str| var(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let (dir, base) = (var(crate::env::DIR), var("XDG_RUNTIME_DIR"));
        let runtime = socket::runtime(dir.as_deref().map(OsStr::as_bytes), base.as_deref().map(OsStr::as_bytes));
        let mut places = if let Runtime::InOne(dir) = runtime {
            let dir = Path::new(OsStr::from_bytes(dir));
            let at = |name: &str| dir.join(name);
            Self {
                runtime: at("run"),
                state: at("state"),
                cache: at("cache"),
                config: at("config"),
                socket: PathBuf::new(),
            }
        } else {
            let home = absolute("HOME");
            let xdg = |name: &str, below: &str| {
                absolute(name).or_else(|| home.as_ref().map(|h| h.join(below))).map(|base| base.join("mesh"))
            };
            let user = || {
                let user = PathBuf::from(format!("/run/user/{uid}"));
                if exists(&user) { user.join("mesh") } else { PathBuf::from(format!("/tmp/mesh-{uid}")) }
            };
            let runtime = match runtime {
                Runtime::InBase(base) => Path::new(OsStr::from_bytes(base)).join("mesh"),
                _ => user(),
            };
            Self {
                runtime,
                state: xdg("XDG_STATE_HOME", ".local/state")?,
                cache: xdg("XDG_CACHE_HOME", ".cache")?,
                config: xdg("XDG_CONFIG_HOME", ".config")?,
                socket: PathBuf::new(),
            }
        };
        places.socket = absolute(crate::env::SOCKET).unwrap_or_else(|| places.runtime.join(socket::NAME));
        Some(places)
    }

    /// A launcher that found the agent frozen leaves this beside the socket; the agent takes it away.
    #[must_use]
    pub fn frozen_marker(&self) -> PathBuf {
        self.socket.with_extension(socket::FROZEN)
    }

    /// The agent shows here that it lives, as [`crate::launch::beat`] says.
    #[must_use]
    pub fn beat(&self) -> PathBuf {
        self.socket.with_extension(beat::BEAT)
    }

    /// A launcher that starts an agent leaves this, so that the next ones do not.
    #[must_use]
    pub fn starting_marker(&self) -> PathBuf {
        self.socket.with_extension("starting")
    }

    /// Locked by the agent for as long as it lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.socket.with_extension("lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(vars: &[(&str, &str)], run_user: bool) -> Option<Places> {
        let var = |name: &str| vars.iter().find(|(k, _)| *k == name).map(|(_, v)| OsString::from(v));
        Places::find(var, 7, |_| run_user)
    }

    #[test]
    fn follows_the_base_directory_specification() {
        let p = find(&[("HOME", "/h")], true).expect("a home");
        assert_eq!(p.socket, Path::new("/run/user/7/mesh/agent-1.sock"));
        assert_eq!((p.state.to_str(), p.cache.to_str()), (Some("/h/.local/state/mesh"), Some("/h/.cache/mesh")));
        let p =
            find(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s"), ("XDG_CACHE_HOME", "relative")], false).expect("a home");
        assert_eq!((p.state.to_str(), p.cache.to_str()), (Some("/s/mesh"), Some("/h/.cache/mesh")));
        assert_eq!(p.runtime, Path::new("/tmp/mesh-7"));
        assert_eq!(find(&[], true), None);
    }

    #[test]
    fn one_directory_can_hold_everything() {
        let p = find(&[("MESH_DIR", "/d"), ("HOME", "/h")], true).expect("a directory");
        assert_eq!(p.socket, Path::new("/d/run/agent-1.sock"));
        assert_eq!(p.state, Path::new("/d/state"));
        let p = find(&[("MESH_DIR", "/d"), ("MESH_SOCKET", "/x/s")], true).expect("a directory");
        assert_eq!((p.socket.as_path(), p.lock().as_path()), (Path::new("/x/s"), Path::new("/x/s.lock")));
    }
}
