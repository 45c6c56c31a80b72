//! Where the agent's socket lies (DECIDE).

/// The version of what lies in the runtime directory: the socket's protocol.
pub const NAME: &str = "agent-1.sock";
/// A launcher that found the agent frozen leaves a marker with this extension beside the socket; the agent takes it away.
pub const FROZEN: &str = "frozen";

/// The directory in which the socket lies unless it is named by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime<'a> {
    /// `run` in the one directory for everything.
    InOne(&'a [u8]),
    /// `mesh` in the directory that `XDG_RUNTIME_DIR` names.
    InBase(&'a [u8]),
    /// `mesh` in `/run/user/UID` if that is there, else `/tmp/mesh-UID`.
    OfUser,
}

/// What of an environment decides the place. `dir` is `MESH_DIR`, `base` is `XDG_RUNTIME_DIR`.
///
/// <https://specifications.freedesktop.org/basedir-spec/latest/>: a path that is not absolute is ignored.
#[must_use]
pub fn runtime<'a>(dir: Option<&'a [u8]>, base: Option<&'a [u8]>) -> Runtime<'a> {
    match (absolute(dir), absolute(base)) {
        (Some(dir), _) => Runtime::InOne(dir),
        (None, Some(base)) => Runtime::InBase(base),
        (None, None) => Runtime::OfUser,
    }
}

/// A variable's value if it is an absolute path.
#[must_use]
pub fn absolute(value: Option<&[u8]>) -> Option<&[u8]> {
    value.filter(|path| path.first() == Some(&b'/'))
}

/// How much of a socket's path stays in the path of a marker beside it: all before the extension of its last name, which
/// a dot at the beginning does not begin.
#[must_use]
pub fn stem_len(socket: &[u8]) -> usize {
    let base = socket.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
    match socket.iter().rposition(|b| *b == b'.') {
        Some(dot) if dot > base => dot,
        _ => socket.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

    #[test]
    fn a_marker_lies_where_a_path_with_another_extension_does() {
        for socket in ["/d/run/agent-1.sock", "/x/s", "/x.y/s", "/x/.s", "/x/a.b.c", "/x/a."] {
            let cut = [&socket.as_bytes()[..stem_len(socket.as_bytes())], b".", FROZEN.as_bytes()].concat();
            assert_eq!(Path::new(OsStr::from_bytes(&cut)), Path::new(socket).with_extension(FROZEN));
        }
    }

    #[test]
    fn one_directory_comes_before_the_base_directory_and_relative_ones_do_not_count() {
        assert_eq!(runtime(Some(b"/d"), Some(b"/x")), Runtime::InOne(b"/d"));
        assert_eq!(runtime(Some(b"d"), Some(b"/x")), Runtime::InBase(b"/x"));
        assert_eq!(runtime(None, Some(b"")), Runtime::OfUser);
    }
}
