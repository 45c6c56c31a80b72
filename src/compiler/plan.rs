//! From a command line to what it reads and writes, or to the reason why it stays here (DECIDE).

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
