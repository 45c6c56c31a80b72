//! What a Linux program or library needs to be loaded (DO).
//!
//! The answer comes from the program's own loader (`ld.so --list`, which is what `ldd` does), asked twice: with the
//! machine's cache of library places and without. Resolving DT_NEEDED here was rejected: run paths, `$ORIGIN`, hardware
//! directories and the loader's built-in directories differ between systems, and the loader knows them all.

use super::ask::{AskError, ask};
use mesh_proto::toolchain;
use object::{
    Endianness, FileKind, ReadCache, ReadRef,
    elf::{self, FileHeader32, FileHeader64},
    read::elf::{Dyn, FileHeader, ProgramHeader},
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

/// Below it a loader finds variants of libraries for newer processors.
const HARDWARE: &str = "glibc-hwcaps";
/// What a directory of such variants for an x86-64 processor is called, up to the level.
const HARDWARE_X86_64: &[u8] = b"x86-64-v";
/// Directories in a file's own search list, bytes.
const RUN_PATH_BYTES_MAX: u64 = 64 << 10;
/// The highest level of x86-64 that the psABI knows.
const LEVEL_MAX: u8 = 4;

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
pub(super) struct Libraries {
    /// Their paths as the loader spells them, itself included.
    pub(super) paths: BTreeSet<PathBuf>,
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
    Ok(match opened(path)? {
        Opened::Elf(file) => look(file)?.map_or(Binary::Other, |found| found.binary),
        Opened::Script => Binary::Script,
        Opened::Other => Binary::Other,
    })
}

/// What a program or library runs on: its architecture, and for x86-64 the level that it is marked with or that the
/// directory of its variant names, at least 1. `None` for anything else than a linked ELF file.
pub(super) fn runs_on(path: &Path) -> io::Result<Option<toolchain::Needs>> {
    let Opened::Elf(file) = opened(path)? else { return Ok(None) };
    let Some(found) = look(file)?.filter(|found| found.binary != Binary::Other) else { return Ok(None) };
    let level = match found.machine {
        elf::EM_X86_64 => found.level.max(variant_level(path)).max(1),
        _ => 0,
    };
    Ok(Some(toolchain::Needs { machine: found.machine.0, level }))
}

/// The directories in which a program or library has its own libraries looked for first (`DT_RUNPATH`, `DT_RPATH`),
/// whether they are there or not; without those that depend on the processor.
pub(super) fn run_path(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Opened::Elf(file) = opened(path)? else { return Ok(Vec::new()) };
    let Some(found) = look(file)? else { return Ok(Vec::new()) };
    let origin = path.parent().map_or(&b"/"[..], |dir| dir.as_os_str().as_bytes());
    let dirs = found.run_path.split(|b| *b == b':').filter(|dir| !dir.is_empty());
    let expanded = dirs.map(|dir| replaced(&replaced(dir, b"${ORIGIN}", origin), b"$ORIGIN", origin));
    Ok(expanded.filter(|dir| dir.starts_with(b"/") && !dir.contains(&b'$')).map(|dir| to_path(&dir)).collect())
}

fn replaced(text: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(by);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}

fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// The level of the directory of variants that a library lies in; 0 if it lies in none.
fn variant_level(path: &Path) -> u8 {
    let level = || {
        let dir = path.parent()?;
        let text = dir.file_name()?.as_bytes().strip_prefix(HARDWARE_X86_64)?;
        (dir.parent()?.file_name()? == HARDWARE).then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
    };
    level().unwrap_or(0)
}

/// A file, by how it begins.
enum Opened {
    Elf(File),
    Script,
    Other,
}

fn opened(path: &Path) -> io::Result<Opened> {
    let mut start = [0; 4];
    let mut file = File::open(path)?;
    if file.read_exact(&mut start).is_err() {
        return Ok(Opened::Other);
    }
    if start.starts_with(b"#!") {
        return Ok(Opened::Script);
    }
    if start != elf::ELFMAG {
        return Ok(Opened::Other);
    }
    io::Seek::rewind(&mut file)?;
    Ok(Opened::Elf(file))
}

/// What the headers of an ELF file say.
struct Headers {
    binary: Binary,
    machine: elf::Machine,
    /// The level of x86-64 that its notes ask for; 0 if none does.
    level: u8,
    /// Its own list of directories for libraries.
    run_path: Vec<u8>,
}

fn look(file: File) -> io::Result<Option<Headers>> {
    let cache = ReadCache::new(file);
    let headers = match FileKind::parse(&cache) {
        Ok(FileKind::Elf32) => headers::<FileHeader32<Endianness>, _>(&cache),
        Ok(FileKind::Elf64) => headers::<FileHeader64<Endianness>, _>(&cache),
        _ => return Ok(None),
    };
    headers.map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// What the file and program headers say.
fn headers<'a, H: FileHeader, R: ReadRef<'a>>(data: R) -> object::read::Result<Headers> {
    let header = H::parse(data)?;
    let endian = header.endian()?;
    let machine = header.e_machine(endian);
    if !matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) {
        return Ok(Headers { binary: Binary::Other, machine, level: 0, run_path: Vec::new() });
    }
    let (mut dynamic, mut loader, mut level) = (false, None, 0);
    let segments = header.program_headers(endian, data)?;
    for segment in segments {
        if let Some(path) = segment.interpreter(endian, data)? {
            loader = Some(PathBuf::from(OsStr::from_bytes(path)));
        }
        dynamic |= segment.p_type(endian) == elf::PT_DYNAMIC;
        level = level.max(needed_level::<H, R>(segment, endian, data)?);
    }
    // A static program that may lie anywhere (static-pie) has a dynamic section but no loader, like a library; the
    // loader then lists nothing for it, which is right.
    let binary = if dynamic || loader.is_some() { Binary::Dynamic { loader } } else { Binary::Static };
    Ok(Headers { binary, machine, level, run_path: dynamic_run_path::<H, R>(segments, endian, data)? })
}

/// The list in the dynamic section; where there are both kinds, the older does not count.
fn dynamic_run_path<'a, H: FileHeader, R: ReadRef<'a>>(
    segments: &[H::ProgramHeader],
    endian: H::Endian,
    data: R,
) -> object::read::Result<Vec<u8>> {
    let mut entries = None;
    for segment in segments {
        entries = entries.or(segment.dynamic(endian, data)?);
    }
    let entries = entries.unwrap_or_default();
    let value = |tag| entries.iter().find(|entry| entry.tag(endian) == tag).map(|entry| entry.val(endian));
    let Some(at) = value(elf::DT_RUNPATH).or_else(|| value(elf::DT_RPATH)) else { return Ok(Vec::new()) };
    let (Some(table), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else { return Ok(Vec::new()) };
    // Only that piece is read: the segment that holds it may be the whole file.
    let place = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD).find_map(|segment| {
        let within = table.checked_sub(segment.p_vaddr(endian).into())?;
        let (offset, length) = segment.file_range(endian);
        (within < length).then(|| offset.checked_add(within)?.checked_add(at)).flatten()
    });
    let length = size.saturating_sub(at).min(RUN_PATH_BYTES_MAX);
    let text = place.and_then(|place| data.read_bytes_at(place, length).ok()).unwrap_or_default();
    Ok(text.split(|b| *b == 0).next().unwrap_or_default().to_vec())
}

/// The highest level of x86-64 that a segment of notes asks for: the bits of `GNU_PROPERTY_X86_ISA_1_NEEDED` are the
/// levels, the lowest first.
fn needed_level<'a, H: FileHeader, R: ReadRef<'a>>(
    segment: &H::ProgramHeader,
    endian: H::Endian,
    data: R,
) -> object::read::Result<u8> {
    let mut level = 0;
    let Some(mut notes) = segment.notes(endian, data)? else { return Ok(level) };
    while let Some(note) = notes.next()? {
        let Some(mut properties) = note.gnu_properties(endian) else { continue };
        while let Some(property) = properties.next()? {
            if property.pr_type() == elf::GNU_PROPERTY_X86_ISA_1_NEEDED {
                let bits = property.data_u32(endian)?;
                level = level.max(u8::try_from(u32::BITS - bits.leading_zeros()).unwrap_or(LEVEL_MAX));
            }
        }
    }
    Ok(level)
}

/// Asks `loader` for everything that `file` is loaded with.
///
/// Of a library that is there in variants for newer processors (`glibc-hwcaps`) this is the plain one: what is not in a
/// job's root cannot be chosen there, so every machine runs the same code whatever its processor is. Where a library is
/// found only by [`LOADER_CACHE`], which names variants, the loader insists on these, and they are listed too.
///
/// # Errors
/// If the loader refuses, or something is missing.
pub(super) fn libraries(loader: &Path, file: &Path) -> Result<Libraries, ElfError> {
    const PLAIN: [&str; 2] = ["--glibc-hwcaps-mask", "none"];
    const NO_CACHE: &str = "--inhibit-cache";
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
    // Loaders that do not know the option know no such variants either (glibc before 2.33, musl).
    let plain = list(&PLAIN)?;
    let by_mask = plain.is_some();
    let mut paths = plain.map_or_else(|| list(&[]), |paths| Ok(Some(paths)))?.ok_or(ElfError::Refused)?;
    let without_cache = if by_mask { list(&[PLAIN[0], PLAIN[1], NO_CACHE]) } else { list(&[NO_CACHE]) };
    let by_cache = match without_cache {
        Ok(Some(found)) => found != paths,
        // A loader without that option (musl's) has no cache either.
        Ok(None) => false,
        Err(ElfError::Missing(_)) => true,
        Err(other) => return Err(other),
    };
    if by_cache {
        let variants: Vec<PathBuf> = paths.iter().flat_map(|library| hardware_variants(library)).collect();
        paths.extend(variants);
    }
    paths.insert(loader.to_owned());
    Ok(Libraries { paths, by_cache })
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
fn hardware_variants(library: &Path) -> Vec<PathBuf> {
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
        let needs = libraries(&loader, Path::new("/bin/ls")).expect("listed");
        assert!(needs.paths.contains(&loader));
        let names: Vec<_> = needs.paths.iter().map(|p| p.to_string_lossy().into_owned()).collect();
        assert!(names.iter().any(|n| n.contains("libc.")), "{names:?}");
        assert!(needs.paths.iter().all(|p| p.exists()), "{names:?}");
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

    /// Links an empty source; `None`, said aloud, without a gcc.
    fn link(dir: &Path, args: &[&str]) -> Option<()> {
        let linked = std::process::Command::new("gcc").args(args).current_dir(dir).output();
        let linked = linked.ok().filter(|out| out.status.success());
        if linked.is_none() {
            eprintln!("SKIPPED: no gcc that links {args:?}");
            assert!(std::env::var("MESH_TEST_NO_SKIP").as_deref() != Ok("1"), "skipping is forbidden");
        }
        linked.map(|_| ())
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_level_is_what_the_notes_ask_for_or_the_directory_says() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("l.c"), "int l(void) { return 1; }\n").expect("written");
        let level = |name: &str| runs_on(&dir.path().join(name)).expect("read").map(|n| (n.machine, n.level));
        for (name, marks) in [("plain.so", "-Wl,-z,noseparate-code"), ("v3.so", "-Wl,-z,x86-64-v3")] {
            let Some(()) = link(dir.path(), &["-shared", "-nostdlib", "l.c", "-o", name, marks]) else { return };
        }
        assert_eq!((level("plain.so"), level("v3.so")), (Some((62, 1)), Some((62, 3))));
        std::fs::create_dir_all(dir.path().join("glibc-hwcaps/x86-64-v4")).expect("made");
        std::fs::copy(dir.path().join("plain.so"), dir.path().join("glibc-hwcaps/x86-64-v4/plain.so")).expect("copied");
        assert_eq!(level("glibc-hwcaps/x86-64-v4/plain.so"), Some((62, 4)));
        let Some(()) = link(dir.path(), &["-c", "l.c", "-o", "l.o"]) else { return };
        assert_eq!((level("l.o"), level("l.c")), (None, None), "neither is loaded");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_plain_library_is_listed_although_this_processor_would_get_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("glibc-hwcaps/x86-64-v2")).expect("made");
        std::fs::write(at("l.c"), "int l(void) { return 1; }\n").expect("written");
        std::fs::write(at("p.c"), "int l(void); int main(void) { return l(); }\n").expect("written");
        for args in [
            &["-shared", "l.c", "-o", "libl.so"][..],
            &["-shared", "l.c", "-o", "glibc-hwcaps/x86-64-v2/libl.so"],
            &["p.c", "-o", "p", "-L.", "-ll", "-Wl,-rpath,$ORIGIN"],
        ] {
            let Some(()) = link(dir.path(), args) else { return };
        }
        let Binary::Dynamic { loader: Some(loader) } = binary(&at("p")).expect("read") else { panic!("dynamic") };
        let chosen = ask(&loader, [OsStr::new("--list"), at("p").as_os_str()], b"", &[]).expect("an answer");
        let chosen = String::from_utf8(chosen.stdout).expect("text");
        assert!(chosen.contains("glibc-hwcaps/x86-64-v2/libl.so"), "{chosen}");
        assert_eq!(run_path(&at("p")).expect("read"), [dir.path()]);
        assert_eq!(run_path(&at("libl.so")).expect("read"), Vec::<PathBuf>::new());
        let listed = libraries(&loader, &at("p")).expect("listed");
        assert!(listed.paths.contains(&at("libl.so")) && !listed.by_cache, "{listed:?}");
        assert!(!listed.paths.contains(&at("glibc-hwcaps/x86-64-v2/libl.so")), "{listed:?}");
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
