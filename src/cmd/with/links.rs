//! A directory of links named like compilers that lead to the launcher, made for builds (DO).

use crate::launch::names;
use mesh_proto::digest::Digest;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Names that are linked, at most: there are systems with a cross compiler for everything.
const NAMES_MAX: usize = 1024;
/// Directories of links that are kept: a name set each, of which a user has two or three.
const DIRS_MAX: usize = 32;

/// Programs that look for the compiler themselves, and to which links lead that are named like compilers.
const WRAPPERS: &[&str] = &["ccache", "sccache", "distcc", "icecc"];

/// Every name on `path_var` that a compiler has. A link to ccache stays what is found first: a link in front of it would run
/// it, which is nothing that could go elsewhere, while it asks for what it lacks by the launcher.
pub(super) fn names(path_var: &OsStr) -> BTreeSet<OsString> {
    let dirs = std::env::split_paths(path_var).filter(|dir| dir.is_absolute());
    let entries = dirs.filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let is_compiler = |entry: &std::fs::DirEntry| names::is_compiler_name(entry.file_name().as_bytes());
    let mut first: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for entry in entries.filter(is_compiler).take(NAMES_MAX) {
        first.entry(entry.file_name()).or_insert_with(|| entry.path());
    }
    let is_wrapper = |path: &Path| {
        let real = std::fs::canonicalize(path).unwrap_or_default();
        real.file_name().is_some_and(|name| WRAPPERS.iter().any(|wrapper| name == *wrapper))
    };
    first.into_iter().filter(|(_, path)| !is_wrapper(path)).map(|(name, _)| name).collect()
}

/// The directory below `cache` with a link to `launcher` for each name. It is named for what is in it: a build whose `PATH`
/// has other compilers must not find a link to one that it has not.
pub(super) fn directory(cache: &Path, launcher: &Path, names: &BTreeSet<OsString>) -> io::Result<PathBuf> {
    let words = std::iter::once(launcher.as_os_str()).chain(names.iter().map(OsString::as_os_str));
    let text: Vec<u8> = words.flat_map(|word| word.as_bytes().iter().copied().chain([0])).collect();
    let number = u64::from_be_bytes(*Digest::of(&text).0.first_chunk().expect("a digest has 32 bytes"));
    let all = cache.join("links");
    let dir = all.join(format!("{number:016x}"));
    if dir.is_dir() {
        return Ok(dir);
    }
    std::fs::create_dir_all(&all)?;
    make_room(&all);
    // Whole or not at all: another build may make the same one now.
    let fresh = all.join(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_dir_all(&fresh);
    std::fs::create_dir(&fresh)?;
    for name in names {
        std::os::unix::fs::symlink(launcher, fresh.join(name))?;
    }
    if std::fs::rename(&fresh, &dir).is_err() {
        std::fs::remove_dir_all(&fresh)?;
    }
    Ok(dir)
}

/// Removes the oldest until there is room for one more.
fn make_room(all: &Path) {
    let made = |entry: std::fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
    let mut dirs: Vec<_> = std::fs::read_dir(all).into_iter().flatten().flatten().filter_map(made).collect();
    dirs.sort();
    for (_, old) in dirs.iter().take((dirs.len() + 1).saturating_sub(DIRS_MAX)) {
        let _ = std::fs::remove_dir_all(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_of_names_has_a_directory_of_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).expect("fresh");
        for name in ["gcc", "arm-none-eabi-g++-12", "clang-format", "make"] {
            std::fs::write(bin.join(name), "").expect("fresh");
        }
        let found = names(bin.as_os_str());
        assert_eq!(found, ["arm-none-eabi-g++-12", "gcc"].map(OsString::from).into());
        let (cache, launcher) = (dir.path().join("cache"), bin.join("mesh-cc"));
        let links = directory(&cache, &launcher, &found).expect("a fresh place");
        assert_eq!(std::fs::read_link(links.join("gcc")).expect("a link"), launcher);
        assert_eq!(directory(&cache, &launcher, &found).expect("it is there"), links);
        let other = directory(&cache, &launcher, &["gcc".into()].into()).expect("a fresh place");
        assert!(other != links && !other.join("arm-none-eabi-g++-12").exists());
        for n in 0..40 {
            directory(&cache, &launcher, &[format!("gcc-{n}").into()].into()).expect("room");
        }
        assert_eq!(std::fs::read_dir(cache.join("links")).expect("there").count(), DIRS_MAX);
    }
}
