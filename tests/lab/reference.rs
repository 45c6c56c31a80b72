//! What the local compilers make of a list, kept under `target` so that a second run need not compile it again.
//!
//! A kept reference is only ever a saving of time: where a build differs from it, it is made anew before anybody is
//! blamed, because a header that was updated meanwhile is in no key.

use crate::build::{self, Made, Unit, Way};
use crate::machine::Machine;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// References that are kept: two for each list that this test knows, in its short and its full form.
const KEPT_MAX: usize = 64;
/// What stands for the headers and libraries of this computer: it changes when a package does.
const PACKAGES: &str = "/var/lib/dpkg/status";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("references-v1")
}

/// Panics with the differences from what the local compiler makes of a list, if there are any.
#[track_caller]
pub(crate) fn assert_local(machine: &Machine, units: &[Unit], way: &Way, name: &str, made: &Made) {
    assert_kept(&key(units, way), name, made, || {
        let fresh = build::build(machine, units, way, &[]);
        assert_eq!(fresh.succeeded(), units.len(), "{name}: the plain compiler fails: {}", fresh.complaints());
        fresh
    });
}

/// Panics with the differences from what is kept under a key, or else from what is made now, if there are any.
#[track_caller]
pub(crate) fn assert_kept(key: &str, name: &str, made: &Made, make: impl FnOnce() -> Made) {
    let place = folder().join(key);
    if read(&place).is_some_and(|kept| made.differences(&kept).is_empty()) {
        return;
    }
    let fresh = make();
    made.assert_same(&fresh, name);
    write(&place, &fresh);
}

/// Everything that decides what a list becomes, as a name: units, flags, environment, compilers, headers.
fn key(units: &[Unit], way: &Way) -> String {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for unit in units {
        parts.push(unit.folder.as_os_str().as_bytes().to_vec());
        parts.push(unit.source.as_os_str().as_bytes().to_vec());
        parts.extend(unit.flags.iter().map(|flag| flag.as_bytes().to_vec()));
        parts.push(stamp(&which(way.compilers.driver(unit.family))));
        parts.push(stamp(&unit.folder.join(&unit.source)));
    }
    parts.extend(way.flags.iter().map(|flag| flag.as_bytes().to_vec()));
    parts.extend(way.env.iter().flat_map(|(name, value)| [name.as_bytes().to_vec(), value.as_bytes().to_vec()]));
    key_of(&parts)
}

/// The same for whatever else decides.
pub(crate) fn key_of(parts: &[Vec<u8>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts.iter().chain([&stamp(Path::new(PACKAGES))]) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex().to_string()
}

pub(crate) fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.exists()).unwrap_or_default()
}

/// What changes when a file does.
pub(crate) fn stamp(path: &Path) -> Vec<u8> {
    std::fs::metadata(path)
        .map(|meta| format!("{}:{}:{}:{}", meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
        .unwrap_or_default()
        .into_bytes()
}

fn read(place: &Path) -> Option<Made> {
    let bytes = std::fs::read(place).ok()?;
    let files: Vec<(Vec<u8>, Vec<u8>)> = postcard::from_bytes(&bytes).ok()?;
    Some(Made(files.into_iter().map(|(name, bytes)| (OsString::from_vec(name).into(), bytes)).collect()))
}

/// Keeps a reference, whole or not at all; that it cannot be kept costs only time.
fn write(place: &Path, made: &Made) {
    let files: Vec<(&[u8], &[u8])> =
        made.0.iter().map(|(name, b)| (name.as_os_str().as_bytes(), b.as_slice())).collect();
    let part = place.with_extension(format!("{}.part", std::process::id()));
    let kept = std::fs::create_dir_all(folder())
        .and_then(|()| std::fs::write(&part, postcard::to_stdvec(&files).unwrap_or_default()))
        .and_then(|()| std::fs::rename(&part, place));
    if let Err(e) = kept {
        eprintln!("a reference is not kept: {}: {e}", place.display());
    }
    forget_oldest();
}

fn forget_oldest() {
    let entries = std::fs::read_dir(folder()).into_iter().flatten().flatten();
    let mut kept: Vec<_> = entries.filter_map(|entry| Some((entry.metadata().ok()?.mtime(), entry.path()))).collect();
    kept.sort();
    for (_, path) in kept.iter().take(kept.len().saturating_sub(KEPT_MAX)) {
        let _ = std::fs::remove_file(path);
    }
}

#[test]
fn a_kept_reference_is_what_was_made_and_another_list_has_another() {
    let made = Made([("a.o", b"\0\xff".to_vec()), ("a.err", Vec::new())].map(|(n, b)| (n.into(), b)).into());
    let place = folder().join(format!("test-{}", std::process::id()));
    write(&place, &made);
    assert_eq!(read(&place), Some(made));
    std::fs::write(&place, b"\xff\xff\xff").unwrap();
    assert_eq!(read(&place), None, "what cannot be read is made again");
    std::fs::remove_file(&place).unwrap();

    let unit =
        |source: &str| Unit { folder: "/".into(), family: build::Family::C, flags: Vec::new(), source: source.into() };
    let plain = Way::new(build::Compilers::Gcc, "-O2");
    let keys = [
        key(&[unit("a.c")], &plain),
        key(&[unit("b.c")], &plain),
        key(&[unit("a.c")], &Way::new(build::Compilers::Gcc, "-O0")),
        key(&[unit("a.c")], &plain.clone().env("LANG", "C")),
    ];
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}
