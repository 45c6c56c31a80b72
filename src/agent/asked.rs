//! What a request means on this machine (DO).

use super::wire::Request;
use crate::{reason::Reason, toolchain::Toolchain};
use mesh_proto::path::AbsPath;
use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

/// A response file, bytes.
const RESPONSE_BYTES_MAX: u64 = 8 << 20;

/// `LD_LIBRARY_PATH` is set for many users all the time, for the programs that they build. It matters only if a library of
/// the compiler's own would be taken from there.
pub(super) fn plain_loader(request: &Request, toolchain: &Toolchain) -> Result<(), Reason> {
    let Some((_, dirs)) = request.env.iter().find(|(k, _)| k == b"LD_LIBRARY_PATH") else { return Ok(()) };
    let is_library = |name: &[u8]| name.windows(3).any(|w| w == b".so");
    let parts = || toolchain.manifest.parts.iter().map(|p| &p.path).filter(|p| is_library(p.name()));
    for dir in dirs.split(|b| *b == b':' || *b == b';') {
        // An empty element is the working directory.
        let dir = absolute(&request.cwd, if dir.is_empty() { b"." } else { dir });
        let other = |part: &AbsPath| {
            let there = [&dir[..], b"/", part.name()].concat();
            let real = |path: &[u8]| std::fs::canonicalize(OsStr::from_bytes(path)).ok();
            real(&there).is_some_and(|found| Some(found) != real(part.as_bytes()))
        };
        if parts().any(other) {
            return Err(Reason::Environment);
        }
    }
    Ok(())
}

/// In a container or a chroot the launcher's paths mean other files than the agent's.
pub(super) fn same_root(request: &Request) -> Result<(), Reason> {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let here = [id(Path::new("/")), id(&path(&request.cwd)), id(&path(&request.program))];
    if here.iter().zip(request.seen).all(|(here, seen)| *here == Some(seen)) { Ok(()) } else { Err(Reason::OtherRoot) }
}

pub(super) fn read_response(cwd: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let path = PathBuf::from(OsStr::from_bytes(&absolute(cwd, name)));
    let meta = std::fs::metadata(&path).ok()?;
    if !meta.is_file() || meta.len() > RESPONSE_BYTES_MAX {
        return None;
    }
    std::fs::read(path).ok()
}

/// `path` seen from `cwd`; nothing else about it changes.
pub(super) fn absolute(cwd: &[u8], path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") { path.to_vec() } else { [cwd, b"/", path].concat() }
}
