//! What a Linux program or library needs to be loaded (DO).
//!
//! The answer comes from the program's own loader (`ld.so --list`, which is what `ldd` does), asked twice: with the
//! machine's cache of library places and without. Resolving DT_NEEDED here was rejected: run paths, `$ORIGIN`, hardware
//! directories and the loader's built-in directories differ between systems, and the loader knows them all.

use super::ask::{AskError, ask};
use object::{
    Endianness, FileKind, ReadCache, ReadRef,
    elf::{self, FileHeader32, FileHeader64},
    read::elf::{FileHeader, ProgramHeader},
};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The loader's cache of library places. It names every library of the machine, so it differs between machines that
/// have the same compiler, and is left out wherever the libraries are found without.
pub(super) const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// What kind of file something is, as far as running it is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Binary {
    /// An ELF program or library that is loaded dynamically, and the loader that it names (a library names none).
    Dynamic {
        /// The path in PT_INTERP.
        loader: Option<PathBuf>,
    },
    /// An ELF program that needs nothing.
    Static,
    /// Text for an interpreter (`#!`).
    Script,
    /// Anything else: an object file, data, another system's program.
    Other,
}

/// The libraries that a file is loaded with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Their paths as the loader spells them, itself included.
    pub(super) libraries: BTreeSet<PathBuf>,
    /// Whether they are found so only with [`LOADER_CACHE`].
    pub(super) by_cache: bool,
}

/// Why it is not known what a file needs.
#[derive(Debug, thiserror::Error)]
pub(super) enum ElfError {
    /// The loader gave no answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The loader refused the file.
    #[error("the loader cannot list what a file needs")]
    Refused,
    /// A library is not there.
    #[error("a library is missing: {0}")]
    Missing(String),
}

/// Looks at the beginning and the program headers of a file.
pub(super) fn binary(path: &Path) -> io::Result<Binary> {
    let mut start = [0; 4];
    let mut file = File::open(path)?;
    if file.read_exact(&mut start).is_err() {
        return Ok(Binary::Other);
    }
    if start.starts_with(b"#!") {
        return Ok(Binary::Script);
    }
    if start != elf::ELFMAG {
        return Ok(Binary::Other);
    }
    io::Seek::rewind(&mut file)?;
    let cache = ReadCache::new(file);
    let headers = match FileKind::parse(&cache) {
        Ok(FileKind::Elf32) => headers::<FileHeader32<Endianness>, _>(&cache),
        Ok(FileKind::Elf64) => headers::<FileHeader64<Endianness>, _>(&cache),
        _ => return Ok(Binary::Other),
    };
    headers.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// What the program headers say.
fn headers<'a, H: FileHeader, R: ReadRef<'a>>(data: R) -> object::read::Result<Binary> {
    let header = H::parse(data)?;
    let endian = header.endian()?;
    if !matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) {
        return Ok(Binary::Other);
    }
    let (mut dynamic, mut loader) = (false, None);
    for segment in header.program_headers(endian, data)? {
        if let Some(path) = segment.interpreter(endian, data)? {
            loader = Some(PathBuf::from(OsStr::from_bytes(path)));
        }
        dynamic |= segment.p_type(endian) == elf::PT_DYNAMIC;
    }
    // A static program that may lie anywhere (static-pie) has a dynamic section but no loader, like a library; the
    // loader then lists nothing for it, which is right.
    Ok(if dynamic || loader.is_some() { Binary::Dynamic { loader } } else { Binary::Static })
}

/// Asks `loader` for everything that `file` is loaded with.
///
/// # Errors
/// If the loader refuses, or something is missing.
pub(super) fn needs(loader: &Path, file: &Path) -> Result<Needs, ElfError> {
    let list = |options: &[&str]| -> Result<Option<BTreeSet<PathBuf>>, ElfError> {
        let args = options.iter().map(OsStr::new).chain([OsStr::new("--list"), file.as_os_str()]);
        let answer = ask(loader, args, b"", &[])?;
        if !answer.success {
            let text = [answer.stdout.as_slice(), &answer.stderr].concat();
            // "statically linked" is how the loader names a file without needs, and it fails on it.
            return Ok(memchr::memmem::find(&text, b"statically linked").map(|_| BTreeSet::new()));
        }
        parse_list(&answer.stdout).map(Some)
    };
    let mut libraries = list(&[])?.ok_or(ElfError::Refused)?;
    let by_cache = match list(&["--inhibit-cache"]) {
        Ok(Some(plain)) => plain != libraries,
        // A loader without that option (musl's) has no cache either.
        Ok(None) => false,
        Err(ElfError::Missing(_)) => true,
        Err(other) => return Err(other),
    };
    libraries.insert(loader.to_owned());
    Ok(Needs { libraries, by_cache })
}

/// Reads `name => path (address)` and `path (address)` lines.
fn parse_list(text: &[u8]) -> Result<BTreeSet<PathBuf>, ElfError> {
    let mut found = BTreeSet::new();
    for line in text.split(|b| *b == b'\n') {
        let line = line.trim_ascii();
        let place = match memchr::memmem::find(line, b" => ") {
            Some(at) => &line[at + 4..],
            None => line,
        };
        if place == b"not found" {
            return Err(ElfError::Missing(String::from_utf8_lossy(line).into_owned()));
        }
        let end = memchr::memmem::rfind(place, b" (0x").unwrap_or(place.len());
        // What is no path is the kernel's own (linux-vdso.so.1) or a remark.
        if place.first() == Some(&b'/') {
            found.insert(PathBuf::from(OsStr::from_bytes(&place[..end])));
        }
    }
    Ok(found)
}

/// The other places at which a loader on another processor would find the same library: beside a hardware directory
/// the plain one, and the other way round.
pub(super) fn hardware_variants(library: &Path) -> Vec<PathBuf> {
    const HARDWARE: &str = "glibc-hwcaps";
    let (Some(dir), Some(name)) = (library.parent(), library.file_name()) else { return Vec::new() };
    let plain = match dir.parent() {
        Some(up) if up.file_name() == Some(OsStr::new(HARDWARE)) => up.parent().unwrap_or(dir),
        _ => dir,
    };
    let mut places = vec![plain.join(name)];
    if let Ok(kinds) = std::fs::read_dir(plain.join(HARDWARE)) {
        places.extend(kinds.flatten().map(|kind| kind.path().join(name)));
    }
    places.retain(|p| p != library && p.exists());
    places.sort();
    places
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn ls_is_dynamic_and_needs_a_libc_and_its_loader() {
        let Binary::Dynamic { loader: Some(loader) } = binary(Path::new("/bin/ls")).expect("read") else {
            panic!("ls is a dynamic program")
        };
        let needs = needs(&loader, Path::new("/bin/ls")).expect("listed");
        assert!(needs.libraries.contains(&loader));
        let names: Vec<_> = needs.libraries.iter().map(|p| p.to_string_lossy().into_owned()).collect();
        assert!(names.iter().any(|n| n.contains("libc.")), "{names:?}");
        assert!(needs.libraries.iter().all(|p| p.exists()), "{names:?}");
    }

    #[test]
    fn scripts_and_data_are_no_programs() {
        let dir = tempfile::tempdir().expect("a directory");
        for (bytes, kind) in [
            (&b"#!/bin/sh\nexec gcc"[..], Binary::Script),
            (b"#!", Binary::Other),
            (b"", Binary::Other),
            (b"plain text", Binary::Other),
        ] {
            std::fs::write(dir.path().join("f"), bytes).expect("written");
            assert_eq!(binary(&dir.path().join("f")).expect("read"), kind, "{bytes:?}");
        }
        std::fs::write(dir.path().join("f"), b"\x7fELF\x02\x01\x01 then nonsense").expect("written");
        assert!(!matches!(binary(&dir.path().join("f")), Ok(Binary::Dynamic { .. } | Binary::Static)));
    }

    #[test]
    fn the_loaders_list_is_read() {
        let text =
            b"\tlinux-vdso.so.1 (0x00007ff5)\n\tlibz.so.1 => /lib/a b/libz.so.1 (0x00007f)\n\t/lib64/ld.so.2 (0x1)\n";
        let found: Vec<_> = parse_list(text).expect("read").into_iter().collect();
        assert_eq!(found, [PathBuf::from("/lib/a b/libz.so.1"), PathBuf::from("/lib64/ld.so.2")]);
        assert!(matches!(parse_list(b"\tlibq.so => not found\n"), Err(ElfError::Missing(_))));
        assert_eq!(parse_list(b"\tstatically linked\n").expect("read").len(), 0);
    }

    #[test]
    fn a_library_in_a_hardware_directory_brings_the_plain_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let fast = dir.path().join("glibc-hwcaps/x86-64-v3");
        std::fs::create_dir_all(&fast).expect("made");
        std::fs::write(dir.path().join("l.so"), "").expect("made");
        assert_eq!(hardware_variants(&dir.path().join("l.so")), Vec::<PathBuf>::new());
        std::fs::write(fast.join("l.so"), "").expect("made");
        assert_eq!(hardware_variants(&dir.path().join("l.so")), [fast.join("l.so")]);
        assert_eq!(hardware_variants(&fast.join("l.so")), [dir.path().join("l.so")]);
    }
}
