//! Absolute paths as byte strings, in a form that cannot leave a root (AGREE).

use crate::limits::{COMPONENT_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};
use serde::{Deserialize, Serialize};

/// An absolute path in normal form: `/`, or components joined by single slashes, none of them empty, `.` or `..`, no
/// NUL, within the limits. Any bytes otherwise: paths are not text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct AbsPath(Box<[u8]>);

/// Why bytes are not an [`AbsPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The first byte is not a slash.
    #[error("the path is not absolute")]
    Relative,
    /// An empty component, `.`, `..`, or a slash at the end.
    #[error("the path is not in normal form")]
    NotNormal,
    /// A zero byte.
    #[error("the path has a zero byte")]
    Nul,
    /// More bytes or components than the limits allow.
    #[error("the path is too long")]
    TooLong,
}

impl AbsPath {
    /// The root directory.
    #[must_use]
    pub fn root() -> Self {
        Self(Box::from(*b"/"))
    }

    /// Checks and takes bytes that are in normal form already.
    ///
    /// # Errors
    /// What is wrong with them; nothing is mended here.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.first() != Some(&b'/') {
            return Err(PathError::Relative);
        }
        if bytes.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if bytes.len() > 1 {
            let mut depth = 0;
            for component in bytes[1..].split(|b| *b == b'/') {
                depth += 1;
                match component {
                    b"" | b"." | b".." => return Err(PathError::NotNormal),
                    _ if component.contains(&0) => return Err(PathError::Nul),
                    _ if component.len() > COMPONENT_BYTES_MAX || depth > PATH_DEPTH_MAX => {
                        return Err(PathError::TooLong);
                    }
                    _ => {}
                }
            }
        }
        Ok(Self(bytes.into()))
    }

    /// `path`, seen from `base` if it is relative, with `.`, empty components and `..` taken out **as text**: only for
    /// paths of which it is known that no component before a `..` is a symbolic link.
    ///
    /// # Errors
    /// As for [`AbsPath::new`].
    pub fn lexical(base: &Self, path: &[u8]) -> Result<Self, PathError> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let from = if path.first() == Some(&b'/') { &[][..] } else { &base.0[..] };
        for component in from.split(|b| *b == b'/').chain(path.split(|b| *b == b'/')) {
            match component {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                _ => parts.push(component),
            }
        }
        let mut bytes = Vec::with_capacity(path.len() + base.0.len() + 1);
        for part in &parts {
            bytes.push(b'/');
            bytes.extend_from_slice(part);
        }
        if bytes.is_empty() {
            bytes.push(b'/');
        }
        Self::new(bytes)
    }

    /// The path's bytes, the leading slash included.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes after the leading slash: relative to a root.
    #[must_use]
    pub fn below_root(&self) -> &[u8] {
        &self.0[1..]
    }

    /// The directory that holds it; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.0.len() == 1 {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(Box::from(&self.0[..cut.max(1)])))
    }

    /// The last component; empty for the root.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let cut = self.0.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        &self.0[cut..]
    }

    /// This directory's entry of that name.
    ///
    /// # Errors
    /// If `name` is not one component, or the limits are passed.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        let mut bytes = self.0.to_vec();
        if bytes.len() > 1 {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        if name.contains(&b'/') {
            return Err(PathError::NotNormal);
        }
        Self::new(bytes)
    }

    /// Whether it is `directory` or lies below it.
    #[must_use]
    pub fn is_within(&self, directory: &Self) -> bool {
        directory.0.len() == 1
            || self.0.strip_prefix(&*directory.0).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl std::fmt::Debug for AbsPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0))
    }
}

impl TryFrom<Vec<u8>> for AbsPath {
    type Error = PathError;
    fn try_from(bytes: Vec<u8>) -> Result<Self, PathError> {
        Self::new(bytes)
    }
}

impl From<AbsPath> for Vec<u8> {
    fn from(path: AbsPath) -> Self {
        path.0.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_leave_a_root() {
        for (bytes, why) in [
            (&b"a/b"[..], PathError::Relative),
            (b"", PathError::Relative),
            (b"/a/../b", PathError::NotNormal),
            (b"/..", PathError::NotNormal),
            (b"/a//b", PathError::NotNormal),
            (b"/a/", PathError::NotNormal),
            (b"//", PathError::NotNormal),
            (b"/./a", PathError::NotNormal),
            (b"/a\0b", PathError::Nul),
        ] {
            assert_eq!(AbsPath::new(bytes), Err(why), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(AbsPath::new([b"/".as_slice(), &[b'a'; 256]].concat()), Err(PathError::TooLong));
        assert_eq!(AbsPath::new(b"/a".repeat(65)), Err(PathError::TooLong));
        assert!(AbsPath::new(b"/\xff\xfe/...").is_ok());
    }

    #[test]
    fn lexical_takes_dots_out() {
        let base = AbsPath::new("/w/x").expect("normal");
        for (path, want) in
            [("a.c", "/w/x/a.c"), ("../a.c", "/w/a.c"), ("/q//./r/../s/", "/q/s"), ("../../..", "/"), (".", "/w/x")]
        {
            assert_eq!(AbsPath::lexical(&base, path.as_bytes()), AbsPath::new(want), "{path}");
        }
    }

    #[test]
    fn within_means_whole_components() {
        let p = |s: &str| AbsPath::new(s).expect("normal");
        assert!(p("/a/b").is_within(&p("/a")) && p("/a").is_within(&p("/a")) && p("/a").is_within(&p("/")));
        assert!(!p("/ab").is_within(&p("/a")));
        assert_eq!(p("/a/b").parent(), Some(p("/a")));
        assert_eq!(p("/a").parent(), Some(p("/")));
        assert_eq!(p("/").parent(), None);
        assert_eq!(p("/").join(b"x"), Ok(p("/x")));
        assert!(p("/").join(b"x/y").is_err());
    }
}
