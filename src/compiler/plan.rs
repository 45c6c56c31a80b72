//! From a command line to what it reads and writes, or to the reason why it stays here (DECIDE).

use super::args::Mode;
use super::invocation::Invocation;
use super::language::{of_name, of_path, stem_len};
use super::walk::Facts;
use super::{environment, passes, probe};
use crate::launch::names::basename;
use crate::reason::Reason;
use mesh_proto::limits::{ARGV_BYTES_MAX, ARGV_ITEMS_MAX, PATH_BYTES_MAX};

/// What a unit is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// C.
    C,
    /// C++.
    Cxx,
    /// Objective-C.
    ObjC,
    /// Objective-C++.
    ObjCxx,
    /// C that was preprocessed already (`.i`).
    PreprocessedC,
    /// C++ that was preprocessed already (`.ii`).
    PreprocessedCxx,
    /// Assembler with C preprocessing (`.S`).
    AssemblerWithCpp,
}

/// A compile that may run elsewhere. Paths are as typed: relative ones are seen from the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What the source is written in.
    pub language: Language,
    /// The one source.
    pub source: Vec<u8>,
    /// The object, or the assembler text for `-S`: from `-o`, or by default.
    pub output: Vec<u8>,
    /// Every other file that the command is known to write, named or by default (`.d`, `.dwo`, `.gcno`, `.su`, `.dia`);
    /// each may or may not come to be.
    pub side_outputs: Vec<Vec<u8>>,
    /// Which dependency list the command itself makes.
    pub deps: Deps,
    /// Where includes are looked for.
    pub search: Search,
    /// `-include` and `-imacros` files, in order; looked for in the working directory, then as by `#include "…"`.
    pub forced_includes: Vec<Vec<u8>>,
    /// `-D` macros, in order, name and body (an `-D` without `=` has the body `1`); function-like ones with their
    /// parameter list in the name.
    pub defines: Vec<(Vec<u8>, Vec<u8>)>,
    /// Files that options name and the compiler reads: they go with the job.
    pub extra_inputs: Vec<Vec<u8>>,
    /// Values of options that mesh does not know, or of which only the file system can tell whether they name a file:
    /// if one of these exists here, the unit stays local with [`crate::reason::Reason::UnknownOption`].
    pub suspects: Vec<Vec<u8>>,
    /// Options of the kind `-march=native`, by index into `argv`: expanded on this machine before the job goes out.
    pub native: Vec<usize>,
    /// `__DATE__`, `__TIME__` and `__TIMESTAMP__`'s date are fixed by `SOURCE_DATE_EPOCH`, which this compiler honours.
    pub epoch_fixed: bool,
}

/// The dependency list that a command asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deps {
    /// None.
    None,
    /// `-MD` or its kin: system headers are listed too.
    All {
        /// Where it is written.
        path: Vec<u8>,
    },
    /// `-MMD` or its kin: system headers are left out.
    User {
        /// Where it is written.
        path: Vec<u8>,
    },
}

/// The parts of the include search path that a command line and its environment give. Directories are as typed, in
/// order; a leading `=` or `$SYSROOT` is resolved already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Search {
    /// `-iquote`: for `#include "…"` only, after the includer's own directory.
    pub quote: Vec<Vec<u8>>,
    /// `-I` and then `CPATH`.
    pub user: Vec<Vec<u8>>,
    /// `-isystem` and then `C_INCLUDE_PATH` and its family.
    pub system: Vec<Vec<u8>>,
    /// `-idirafter`, after the compiler's own directories.
    pub after: Vec<Vec<u8>>,
    /// The arguments that decide the compiler's own directories (`-std=`, `-m32`, `--sysroot`, `-nostdinc`, `-stdlib=`,
    /// `--target=`, …), in order: what `toolchain` passes on when it asks the compiler for them.
    pub probe: Vec<Vec<u8>>,
}

/// Says what a command reads and writes.
///
/// # Errors
/// The reason why the unit is compiled here: the command is no compile at all, or one that is not distributed, or one of
/// which mesh cannot tell all files. Doubt means here.
pub fn plan(inv: &Invocation) -> Result<Plan, Reason> {
    let bytes: usize = inv.argv.iter().map(|a| a.len() + 1).sum();
    if bytes > ARGV_BYTES_MAX || inv.argv.len() > ARGV_ITEMS_MAX {
        return Err(Reason::TooLarge);
    }
    let mut facts = Facts::of(inv);
    let Some(mode) = facts.mode else { return Err(Reason::NotCompile) };
    conclude_passes(&mut facts);
    match facts.kept_here {
        // A check of autoconf's that does not even compile is no compile first.
        Some(Reason::NotCompile) => return Err(Reason::NotCompile),
        _ if is_probe(inv, &facts) => return Err(Reason::Probe),
        Some(reason) => return Err(reason),
        None => {}
    }
    if let Some(reason) = environment::keeps_here(inv) {
        return Err(reason);
    }
    let native = native_options(&facts)?;
    let [source] = facts.sources.as_slice() else { return Err(Reason::MultiSource) };
    if source.path.is_empty() || source.path.ends_with(b"/") {
        return Err(Reason::MultiSource);
    }
    let language = match source.language {
        Some(name) => of_name(name)?,
        None => of_path(source.path, inv.family, inv.cxx_driver)?,
    };
    let source = source.path.to_vec();
    let output = output(&facts, mode, &source)?;
    let deps = dependencies(&facts, language, &output)?;
    let side_outputs = side_outputs(&mut facts, &deps, &source, &output)?;
    let mut search = std::mem::take(&mut facts.search);
    environment::add_directories(inv, language, &mut search);
    Ok(Plan {
        language,
        source,
        output,
        side_outputs,
        deps,
        search,
        forced_includes: facts.forced,
        defines: facts.defines,
        extra_inputs: facts.inputs,
        suspects: facts.suspects,
        native,
        epoch_fixed: environment::epoch_fixed(inv),
    })
}

/// Reads the arguments that other programs parse. They come after the driver's own, as the driver places them.
fn conclude_passes(facts: &mut Facts<'_>) {
    let pieces = std::mem::take(&mut facts.preprocessor);
    passes::preprocessor(facts, &pieces);
    let pieces = std::mem::take(&mut facts.assembler);
    passes::assembler(facts, &pieces);
    let pieces = std::mem::take(&mut facts.frontend);
    passes::frontend(facts, &pieces);
}

fn is_probe(inv: &Invocation, facts: &Facts<'_>) -> bool {
    probe::is_in_one(&inv.cwd)
        || facts.sources.iter().any(|s| probe::is_named_like_one(s.path) || probe::is_in_one(s.path))
}

/// The options that ask for this machine's processor. One that stands beside another value of the same option is kept here:
/// expanding it would change which of them counts.
fn native_options(facts: &Facts<'_>) -> Result<Vec<usize>, Reason> {
    let native: Vec<_> = facts.machine.iter().filter(|(_, _, native)| *native).collect();
    let mixed = native.iter().any(|(_, name, _)| facts.machine.iter().any(|(_, n, native)| n == name && !native));
    if mixed || (facts.records_options && !native.is_empty()) {
        return Err(Reason::NativeArch);
    }
    Ok(native.into_iter().map(|(index, _, _)| *index).collect())
}

/// Where the object goes. With several `-o` clang takes the last; gcc does too, but hands all of them on to its parts.
fn output(facts: &Facts<'_>, mode: Mode, source: &[u8]) -> Result<Vec<u8>, Reason> {
    let output = match facts.output {
        Some(named) => named.to_vec(),
        None => {
            let name = basename(source);
            let extension = match (mode, facts.bitcode) {
                (Mode::Object, false) => "o",
                (Mode::Object, true) => "bc",
                (Mode::Assembly, false) => "s",
                (Mode::Assembly, true) => "ll",
            };
            with_extension(name, extension)
        }
    };
    match stem_len(&output).map(|dot| &output[dot + 1..]) {
        Some(b"gch" | b"pch") => return Err(Reason::PchCreate),
        Some(b"pcm" | b"gcm") => return Err(Reason::Modules),
        _ => {}
    }
    // Where the extension of a name begins whose only dot is its first byte, compilers disagree.
    let hidden = basename(&output).first() == Some(&b'.') && stem_len(&output).is_none();
    if hidden || !is_file_name(&output) || output == source {
        return Err(Reason::SpecialOutput);
    }
    Ok(output)
}

/// Whether a path can be that of a regular file that a compiler makes, as far as its spelling tells.
fn is_file_name(path: &[u8]) -> bool {
    let special = path == b"-" || path.starts_with(b"/dev/") || path.starts_with(b"/proc/");
    !special && !basename(path).is_empty() && path.len() <= PATH_BYTES_MAX
}

/// The path with another extension, or with one if it has none.
fn with_extension(path: &[u8], extension: &str) -> Vec<u8> {
    let stem = &path[..stem_len(path).unwrap_or(path.len())];
    [stem, b".", extension.as_bytes()].concat()
}

/// Which dependency list the command makes, and where.
fn dependencies(facts: &Facts<'_>, language: Language, output: &[u8]) -> Result<Deps, Reason> {
    let asked = facts.deps_all || facts.deps_user;
    let (user, path) = match facts.deps_passed.as_slice() {
        [] if !asked => return Ok(Deps::None),
        // With both, both compilers leave system headers out.
        [] => {
            let path = facts.deps_file.map_or_else(|| with_extension(output, "d"), <[u8]>::to_vec);
            (facts.deps_user, path)
        }
        [(user, path)] if !asked && facts.deps_file.is_none() => (*user, path.to_vec()),
        // Which of several files wins differs between compilers.
        _ => return Err(Reason::UnknownOption),
    };
    // Neither compiler makes one for what is preprocessed already.
    Ok(match user {
        _ if matches!(language, Language::PreprocessedC | Language::PreprocessedCxx) => Deps::None,
        true => Deps::User { path },
        false => Deps::All { path },
    })
}

/// Every file but the object that the command may write.
fn side_outputs(facts: &mut Facts<'_>, deps: &Deps, source: &[u8], output: &[u8]) -> Result<Vec<Vec<u8>>, Reason> {
    let mut paths = std::mem::take(&mut facts.side_outputs);
    paths.extend(facts.beside.iter().map(|extension| with_extension(output, extension)));
    match deps {
        Deps::All { path } | Deps::User { path } => paths.push(path.clone()),
        Deps::None => {}
    }
    paths.sort_unstable();
    paths.dedup();
    if paths.iter().any(|path| !is_file_name(path) || path == source || path == output) {
        return Err(Reason::SpecialOutput);
    }
    Ok(paths)
}
