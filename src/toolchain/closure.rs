//! Every path that a compiler needs to run in an empty root, by recipe (DO).
//!
//! What is in: the driver and the links that lead to it, the programs it starts for `-c` and `-S` (of every language
//! that mesh distributes), the loader and the libraries of all of these, specs and configuration files, and the files
//! whose mere presence a driver asks for. What is not: headers (inputs of each job, the compiler's own ones too), and
//! what only a link needs (collect2, lto1, ld, libraries of the target).

use super::{
    ask::{AskError, ask},
    elf::{self, Binary, ElfError},
    probe::{self, Identity, IdentityError},
    stamp::{Digests, Stamp, now_s},
    walk::{Found, Walk},
};
use crate::compiler::invocation::Family;
use mesh_proto::{
    path::AbsPath,
    toolchain::{FAMILY_FACT, Manifest, NEEDS_FACT, Needs, Part, PartNode, VERSION_FACT},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// Programs that a gcc starts, and lto-wrapper, which it only looks for.
const GCC_PROGRAMS: &[&str] = &["cc1", "cc1plus", "cc1obj", "cc1objplus", "as", "objcopy", "lto-wrapper"];
/// Programs that a clang starts (with `-fno-integrated-as`, and `-gsplit-dwarf` then).
const CLANG_PROGRAMS: &[&str] = &["as", "objcopy"];
/// The programs among these that a driver looks for by `PATH` where it has none of its own.
pub(super) const PATH_PROGRAMS: &[&str] = &["as", "objcopy"];
/// Files of a gcc: specs that override the built-in ones, and the plug-in whose place goes into options for LTO.
const GCC_FILES: &[&str] = &["specs", "liblto_plugin.so"];
/// Specs read, bytes; the built-in ones of gcc 12 have 8 KB.
const SPECS_BYTES_MAX: u64 = 1 << 20;
/// What is in specs that take more from another file: `%include <file>`, `%include_noerr <file>`.
const SPECS_INCLUDE: &[u8] = b"%include";
/// Files by which clang tells the distribution.
const DISTRIBUTION_FILES: &[&str] = &[
    "/etc/os-release",
    "/usr/lib/os-release",
    "/etc/lsb-release",
    "/etc/redhat-release",
    "/etc/debian_version",
    "/etc/SuSE-release",
    "/etc/alpine-release",
    "/etc/arch-release",
    "/etc/exherbo-release",
    "/etc/gentoo-release",
];
/// Where Gentoo says which gcc is chosen; clang reads it.
const GENTOO_GCC_DIR: &str = "/etc/env.d/gcc";
/// Files taken from one directory, number: clang's lists for sanitizers are a dozen.
const DIRECTORY_FILES_MAX: usize = 64;
/// Parts of one toolchain, number; the largest known have 150.
const PARTS_MAX: usize = 4096;

/// A toolchain as it was just found.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) identity: Identity,
    pub(super) cxx_driver: bool,
    pub(super) real: AbsPath,
    pub(super) manifest: Manifest,
    pub(super) proof: Proof,
    /// Whether every change since the finding began will show in the proof.
    pub(super) settled: bool,
}

/// By what it is seen, without running or reading anything, that a toolchain is still what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proof {
    /// The stamp of every part.
    parts: Vec<(AbsPath, Stamp)>,
    /// What lies behind other paths that were looked at, or that nothing does: a file that appears there could become
    /// a part.
    witnesses: Vec<(Vec<u8>, Option<Stamp>)>,
}

impl Proof {
    /// Looks at everything again.
    pub(super) fn holds(&self) -> bool {
        self.parts.iter().all(|(path, stamp)| stamp_of_part(path.as_bytes()).is_ok_and(|now| now == *stamp))
            && self.witnesses.iter().all(|(path, stamp)| Stamp::behind(path).ok() == *stamp)
    }

    /// Everything that it looks at.
    pub(super) fn paths(&self) -> impl Iterator<Item = &[u8]> {
        let parts = self.parts.iter().map(|(path, _)| path.as_bytes());
        parts.chain(self.witnesses.iter().map(|(path, _)| path.as_slice()))
    }

    /// The stamps of the parts.
    pub(super) fn parts(&self) -> &[(AbsPath, Stamp)] {
        &self.parts
    }
}

/// A part's stamp. Of a directory, only that it is there: its entries are parts of their own.
fn stamp_of_part(path: &[u8]) -> io::Result<Stamp> {
    let stamp = Stamp::of(path)?;
    Ok(if stamp.is_dir() { stamp.identity() } else { stamp })
}

/// Why a compiler's parts are not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClosureError {
    /// It is no compiler.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A question got no answer.
    #[error("asked for {question}: {source}")]
    Ask { question: String, source: AskError },
    /// A question got an answer that cannot be right.
    #[error("asked for {question}, the compiler gave no useful answer")]
    Answer { question: String },
    /// A part cannot be looked at.
    #[error("{path}: {source}")]
    Look { path: String, source: io::Error },
    /// What a part needs is not known.
    #[error("{path}: {source}")]
    Needs { path: String, source: ElfError },
    /// A part is a script: what that runs cannot be known.
    #[error("{path} is a script")]
    Script { path: String },
    /// A part is another system's program (Mach-O): what that needs cannot be known.
    #[error("{path} is no ELF program")]
    NoProgram { path: String },
    /// A part that nothing works without is missing.
    #[error("the compiler has no {0}")]
    Lacks(&'static str),
    /// Its specs take in another file, or are too long to tell.
    #[error("{path} takes in other files")]
    Specs { path: String },
    /// More parts than a toolchain can have.
    #[error("more than {PARTS_MAX} parts")]
    TooMany,
    /// A file kept changing while it was read.
    #[error("{path} changes while it is read")]
    Changing { path: String },
}

/// Finds everything that `driver` needs. `tools` are the paths of [`PATH_PROGRAMS`] by the caller's `PATH`.
pub(super) fn close(
    driver: &AbsPath,
    tools: &[Option<AbsPath>],
    path_var: &[u8],
    digests: &Digests,
) -> Result<Draft, ClosureError> {
    let began_s = now_s();
    let mut search = Search::new(driver, path_var);
    let (real, _) = search.follow(driver.as_bytes())?;
    search.program(&real)?;
    let identity = probe::identify(driver, path_var)?;
    let mut facts = vec![
        ("about".to_owned(), identity.about.clone()),
        ("macros c".to_owned(), identity.macros.0.to_vec()),
        ("target".to_owned(), identity.triple.clone().into_bytes()),
        (FAMILY_FACT.to_owned(), identity.family.name().into()),
        (VERSION_FACT.to_owned(), identity.version.clone().into_bytes()),
    ];
    let search_dirs = search.question("-print-search-dirs")?;
    let programs = search_dirs_line(&search_dirs, "programs");
    search.witnesses.extend(programs.iter().cloned());
    facts.push(("program directories".to_owned(), programs.join(&b':')));
    match identity.family {
        Family::Gcc => {
            search.gcc(tools)?;
            let specs = search.question("-dumpspecs")?;
            facts.push(("specs".to_owned(), mesh_proto::digest::Digest::of(&specs).0.to_vec()));
            facts.push(("library directories".to_owned(), search_dirs_line(&search_dirs, "libraries").join(&b':')));
        }
        Family::Clang => search.clang(tools, &identity)?,
    }
    search.libraries()?;
    if let Some(needs) = search.runs_on(&real)? {
        facts.push((NEEDS_FACT.to_owned(), needs.fact()));
    }
    let cxx_driver = probe::is_cxx_driver(identity.family, driver, &real);
    let (parts, stamps, mut settled) = parts(&search.walk, digests, began_s)?;
    search.witnesses.insert(elf::LOADER_CACHE.into());
    let witnesses: Vec<_> =
        search.witnesses.into_iter().map(|p| (Stamp::behind(&p).ok(), p)).map(|(s, p)| (p, s)).collect();
    settled &= witnesses.iter().all(|(_, stamp)| stamp.is_none_or(|s| s.settled(began_s)));
    facts.sort();
    let manifest = Manifest { driver: driver.clone(), facts, parts };
    Ok(Draft { identity, cxx_driver, real, manifest, proof: Proof { parts: stamps, witnesses }, settled })
}

/// The state of one search for parts.
struct Search<'a> {
    driver: &'a AbsPath,
    path_var: &'a [u8],
    walk: Walk,
    /// Real paths of programs and plug-ins, whose libraries are parts too.
    binaries: BTreeSet<AbsPath>,
    /// The driver's loader; plug-ins name none.
    loader: Option<PathBuf>,
    /// Paths whose change could change the parts.
    witnesses: BTreeSet<Vec<u8>>,
}

impl<'a> Search<'a> {
    fn new(driver: &'a AbsPath, path_var: &'a [u8]) -> Self {
        let (walk, binaries, witnesses) = Default::default();
        Self { driver, path_var, walk, binaries, loader: None, witnesses }
    }

    /// Asks the driver; its standard output without the last line end.
    fn question(&self, option: &str) -> Result<Vec<u8>, ClosureError> {
        let answer = ask(as_path(self.driver.as_bytes()), [option], self.path_var, &[])
            .map_err(|source| ClosureError::Ask { question: option.to_owned(), source })?;
        if !answer.success {
            return Err(ClosureError::Answer { question: option.to_owned() });
        }
        Ok(answer.stdout.trim_ascii_end().to_vec())
    }

    fn follow(&mut self, path: &[u8]) -> Result<(AbsPath, Found), ClosureError> {
        self.walk.follow(path).map_err(|source| look(path, source))
    }

    /// Takes a file if it is there; whether it is.
    fn file(&mut self, path: &[u8]) -> Result<Option<AbsPath>, ClosureError> {
        let end = self.walk.follow_if_there(path).map_err(|source| look(path, source))?;
        Ok(end.filter(|(_, what)| *what == Found::File).map(|(real, _)| real))
    }

    /// Takes the regular files of a directory, by name.
    fn files_of(&mut self, dir: &[u8]) -> Result<(), ClosureError> {
        self.witnesses.insert(dir.to_vec());
        let Ok(entries) = std::fs::read_dir(as_path(dir)) else { return Ok(()) };
        let mut names: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
        names.sort();
        for path in names.iter().take(DIRECTORY_FILES_MAX) {
            self.file(path.as_os_str().as_bytes())?;
        }
        Ok(())
    }

    /// Takes a program, which must be one that can be closed over.
    fn program(&mut self, real: &AbsPath) -> Result<(), ClosureError> {
        let path = as_path(real.as_bytes());
        match elf::binary(path).map_err(|source| look(real.as_bytes(), source))? {
            Binary::Dynamic { loader } => {
                self.binaries.insert(real.clone());
                self.loader = self.loader.take().or(loader);
            }
            Binary::Static => {}
            // Mach-O programs too: their loader does not list what they need, so on macOS every compiler stays here.
            // Taking them without their libraries was rejected: two machines would then hold different compilers for
            // the same one.
            Binary::Other => return Err(ClosureError::NoProgram { path: shown(real.as_bytes()) }),
            Binary::Script => return Err(ClosureError::Script { path: shown(real.as_bytes()) }),
        }
        Ok(())
    }

    /// Takes the programs of these names that the driver would start; whether each is there.
    fn programs(&mut self, names: &[&str], tools: &[Option<AbsPath>]) -> Result<Vec<bool>, ClosureError> {
        let mut there = Vec::new();
        for name in names {
            let mut path = self.question(&format!("-print-prog-name={name}"))?;
            if !path.contains(&b'/') {
                let tool = PATH_PROGRAMS.iter().position(|p| p == name).and_then(|at| tools.get(at)?.as_ref());
                path = tool.map(|p| p.as_bytes().to_vec()).unwrap_or_default();
            }
            let real = if path.first() == Some(&b'/') { self.file(&path)? } else { None };
            if let Some(real) = &real {
                self.program(real)?;
            }
            there.push(real.is_some());
        }
        Ok(there)
    }

    fn gcc(&mut self, tools: &[Option<AbsPath>]) -> Result<(), ClosureError> {
        let there = self.programs(GCC_PROGRAMS, tools)?;
        let has = |name| GCC_PROGRAMS.iter().position(|p| *p == name).is_some_and(|at| there[at]);
        if !has("cc1") {
            return Err(ClosureError::Lacks("cc1"));
        }
        if !has("as") {
            return Err(ClosureError::Lacks("as"));
        }
        for name in GCC_FILES {
            let path = self.question(&format!("-print-file-name={name}"))?;
            if path.first() != Some(&b'/') {
                continue;
            }
            match self.file(&path)? {
                Some(real) if name.ends_with(".so") => self.program(&real)?,
                Some(real) => specs(&real)?,
                None => {}
            }
        }
        Ok(())
    }

    fn clang(&mut self, tools: &[Option<AbsPath>], identity: &Identity) -> Result<(), ClosureError> {
        self.programs(CLANG_PROGRAMS, tools)?;
        if let Some(install) = &identity.gcc_install {
            self.gcc_install(install)?;
        }
        for path in &identity.config_files {
            self.file(path)?;
        }
        for path in DISTRIBUTION_FILES {
            self.witnesses.insert(path.as_bytes().to_vec());
            self.file(path.as_bytes())?;
        }
        self.files_of(GENTOO_GCC_DIR.as_bytes())?;
        // The resource directory: its headers are inputs and its libraries are for links; these are lists that
        // sanitizers use by default.
        let resources = self.question("-print-resource-dir")?;
        self.files_of(&[&resources[..], b"/share"].concat())
    }

    /// The files by which clang knows a GCC installation, for the machine's own words and the smaller ones.
    fn gcc_install(&mut self, install: &[u8]) -> Result<(), ClosureError> {
        self.witnesses.insert(install.to_vec());
        self.follow(install)?;
        self.file(&[install, b"/crtbegin.o"].concat())?;
        let Ok(entries) = std::fs::read_dir(as_path(install)) else { return Ok(()) };
        let mut dirs: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
        dirs.sort();
        for dir in dirs.iter().take(DIRECTORY_FILES_MAX) {
            self.file(dir.join("crtbegin.o").as_os_str().as_bytes())?;
        }
        Ok(())
    }

    /// What a machine must be to run all programs and libraries found: the driver's architecture, and the highest level
    /// that any of them asks for.
    fn runs_on(&self, driver: &AbsPath) -> Result<Option<Needs>, ClosureError> {
        let of =
            |path: &AbsPath| elf::runs_on(as_path(path.as_bytes())).map_err(|source| look(path.as_bytes(), source));
        let Some(mut needs) = of(driver)? else { return Ok(None) };
        for (path, _) in self.walk.found().iter().filter(|(_, found)| **found == Found::File) {
            if let Some(other) = of(path)?.filter(|other| other.machine == needs.machine) {
                needs.level = needs.level.max(other.level);
            }
        }
        Ok(Some(needs))
    }

    /// Takes what every program and plug-in so far is loaded with.
    fn libraries(&mut self) -> Result<(), ClosureError> {
        for binary in std::mem::take(&mut self.binaries) {
            let path = as_path(binary.as_bytes());
            let own = match elf::binary(path).map_err(|source| look(binary.as_bytes(), source))? {
                Binary::Dynamic { loader } => loader,
                _ => None,
            };
            let Some(loader) = own.or_else(|| self.loader.clone()) else { continue };
            let failed = |source| ClosureError::Needs { path: shown(binary.as_bytes()), source };
            let needs = elf::libraries(&loader, path).map_err(failed)?;
            for library in &needs.paths {
                self.follow(library.as_os_str().as_bytes())?;
            }
            // A library that appears in one of these is taken before another one that was found elsewhere.
            for file in needs.paths.iter().map(PathBuf::as_path).chain([path]) {
                let dirs = elf::run_path(file).map_err(|source| look(file.as_os_str().as_bytes(), source))?;
                self.witnesses.extend(dirs.into_iter().map(|dir| dir.into_os_string().into_vec()));
            }
            if needs.by_cache {
                self.file(elf::LOADER_CACHE.as_bytes())?;
            }
            if let Some(path) = musl_path_file(&loader) {
                self.witnesses.insert(path.clone());
                self.file(&path)?;
            }
        }
        Ok(())
    }
}

/// Refuses specs that take in files that no question tells.
fn specs(path: &AbsPath) -> Result<(), ClosureError> {
    let mut text = Vec::new();
    let file = std::fs::File::open(as_path(path.as_bytes())).map_err(|source| look(path.as_bytes(), source))?;
    file.take(SPECS_BYTES_MAX).read_to_end(&mut text).map_err(|source| look(path.as_bytes(), source))?;
    let is_plain = (text.len() as u64) < SPECS_BYTES_MAX && memchr::memmem::find(&text, SPECS_INCLUDE).is_none();
    if is_plain { Ok(()) } else { Err(ClosureError::Specs { path: shown(path.as_bytes()) }) }
}

/// The file in which musl's loader finds its directories: `/etc/ld-musl-ARCH.path`.
fn musl_path_file(loader: &Path) -> Option<Vec<u8>> {
    let arch = loader.file_name()?.as_bytes().strip_prefix(b"ld-musl-")?.strip_suffix(b".so.1")?;
    Some([b"/etc/ld-musl-", arch, b".path"].concat())
}

/// What was met, with content and stamps, and whether all of it had settled.
type Parts = (Vec<Part>, Vec<(AbsPath, Stamp)>, bool);

fn parts(walk: &Walk, digests: &Digests, began_s: i64) -> Result<Parts, ClosureError> {
    if walk.found().len() > PARTS_MAX {
        return Err(ClosureError::TooMany);
    }
    let (mut parts, mut stamps, mut all_settled) = (Vec::new(), Vec::new(), true);
    for (path, found) in walk.found() {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::ResourceBusy => ClosureError::Changing { path: shown(path.as_bytes()) },
            _ => look(path.as_bytes(), source),
        };
        let (node, stamp) = match found {
            Found::File => {
                let content = digests.content(path.as_bytes(), began_s).map_err(failed)?;
                let (size, executable) = (content.stamp.size, content.stamp.executable());
                all_settled &= content.settled;
                (PartNode::File { digest: content.digest, size, executable }, content.stamp)
            }
            Found::Symlink(target) => {
                let stamp = stamp_of_part(path.as_bytes()).map_err(failed)?;
                all_settled &= stamp.settled(began_s);
                (PartNode::Symlink { target: target.clone() }, stamp)
            }
            Found::Directory => (PartNode::Directory, stamp_of_part(path.as_bytes()).map_err(failed)?),
        };
        parts.push(Part { path: path.clone(), node });
        stamps.push((path.clone(), stamp));
    }
    Ok((parts, stamps, all_settled))
}

/// The directories in one line of `-print-search-dirs`: `programs: =/a:/b`.
fn search_dirs_line(text: &[u8], label: &str) -> Vec<Vec<u8>> {
    let line = text.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(label.as_bytes())?.strip_prefix(b": ="));
    let dirs = line.unwrap_or_default().split(|b| *b == b':').filter(|d| !d.is_empty());
    dirs.map(<[u8]>::to_vec).collect()
}

fn look(path: &[u8], source: io::Error) -> ClosureError {
    ClosureError::Look { path: shown(path), source }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::toolchain::Fingerprint;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A directory with a link, an executable and a library, and what a walk over the given paths makes of it.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::create_dir(dir.path().join("lib")).expect("made");
            std::fs::write(dir.path().join("gcc-12"), "driver").expect("written");
            std::fs::write(dir.path().join("lib/cc1"), "compiler").expect("written");
            std::fs::set_permissions(dir.path().join("gcc-12"), std::fs::Permissions::from_mode(0o755))
                .expect("changed");
            symlink("gcc-12", dir.path().join("gcc")).expect("linked");
            Self(dir)
        }

        fn fingerprint(&self, order: &[&str]) -> Fingerprint {
            let mut walk = Walk::default();
            for name in order {
                walk.follow(self.0.path().join(name).as_os_str().as_bytes()).expect("there");
            }
            let (parts, stamps, _) = parts(&walk, &Digests::default(), now_s()).expect("read");
            assert_eq!(parts.len(), stamps.len());
            let driver = AbsPath::new("/usr/bin/gcc").expect("normal");
            Manifest { driver, facts: Vec::new(), parts }.fingerprint()
        }
    }

    #[test]
    fn a_changed_byte_mode_or_link_changes_the_fingerprint_and_the_order_of_finding_does_not() {
        let tree = Tree::new();
        let path = |name: &str| tree.0.path().join(name);
        let order = ["gcc", "lib/cc1", "lib"];
        let mut seen = vec![tree.fingerprint(&order)];
        assert_eq!(tree.fingerprint(&["lib", "lib/cc1", "gcc"]), seen[0]);

        std::fs::write(path("lib/cc1"), "compileR").expect("written");
        seen.push(tree.fingerprint(&order));
        std::fs::set_permissions(path("lib/cc1"), std::fs::Permissions::from_mode(0o755)).expect("changed");
        seen.push(tree.fingerprint(&order));
        std::fs::remove_file(path("gcc")).expect("removed");
        symlink("./gcc-12", path("gcc")).expect("linked");
        seen.push(tree.fingerprint(&order));
        std::fs::remove_file(path("gcc")).expect("removed");
        std::fs::copy(path("gcc-12"), path("gcc")).expect("copied");
        seen.push(tree.fingerprint(&order));

        let distinct: std::collections::HashSet<_> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len());
    }

    #[test]
    fn a_proof_breaks_when_a_part_changes_or_a_witness_appears() {
        let tree = Tree::new();
        let path = |name: &str| tree.0.path().join(name).as_os_str().as_bytes().to_vec();
        let proof = || {
            let mut walk = Walk::default();
            walk.follow(&path("gcc")).expect("there");
            walk.follow(&path("lib")).expect("there");
            let (_, parts, _) = parts(&walk, &Digests::default(), now_s()).expect("read");
            Proof { parts, witnesses: vec![(path("specs"), None)] }
        };
        let before = proof();
        assert!(before.holds());
        // An entry more in a directory that only has to be there is no change.
        std::fs::write(tree.0.path().join("lib/new"), "").expect("written");
        assert!(before.holds());
        std::fs::write(tree.0.path().join("specs"), "").expect("written");
        assert!(!before.holds());
        std::fs::remove_file(tree.0.path().join("specs")).expect("removed");
        assert!(before.holds());
        std::fs::write(tree.0.path().join("gcc-12"), "DRIVER").expect("written");
        assert!(!before.holds());
        let before = proof();
        std::fs::remove_dir_all(tree.0.path().join("lib")).expect("removed");
        assert!(!before.holds());
    }

    #[test]
    fn a_mach_o_program_is_refused_because_its_libraries_cannot_be_listed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("gcc");
        // The magics of a 64-bit program and of one for several processors, which is what Xcode's are.
        for magic in [[0xcf, 0xfa, 0xed, 0xfe], [0xca, 0xfe, 0xba, 0xbe]] {
            std::fs::write(&path, [&magic[..], &[0; 60]].concat()).expect("written");
            let driver = AbsPath::new(path.as_os_str().as_bytes()).expect("normal");
            let refused = Search::new(&driver, b"/usr/bin:/bin").program(&driver);
            assert!(matches!(refused, Err(ClosureError::NoProgram { .. })), "{refused:?}");
        }
    }

    #[test]
    fn the_lines_of_search_directories_are_read() {
        let text = b"install: /usr/lib/gcc/x/12/\nprograms: =/usr/lib/gcc/x/12/:/usr/lib/gcc/x/\nlibraries: =/lib";
        assert_eq!(search_dirs_line(text, "programs"), [b"/usr/lib/gcc/x/12/".to_vec(), b"/usr/lib/gcc/x/".to_vec()]);
        assert_eq!(search_dirs_line(text, "libraries"), [b"/lib".to_vec()]);
        assert_eq!(search_dirs_line(b"", "libraries"), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn musl_keeps_its_directories_in_a_file() {
        assert_eq!(musl_path_file(Path::new("/lib/ld-musl-x86_64.so.1")), Some(b"/etc/ld-musl-x86_64.path".to_vec()));
        assert_eq!(musl_path_file(Path::new("/lib64/ld-linux-x86-64.so.2")), None);
    }
}
