//! The grammar of gcc's and clang's options: how many arguments each takes and what it means for a unit (DECIDE).
//!
//! The rows are in [`super::table`]. Handwritten, not an argument parser's: the grammar is not ours to define, and an arity
//! that is wrong would mistake an option's value for a source.

use super::family::Family;
use super::table::ROWS;
use crate::reason::Reason;

/// How an option and its value stand on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The option alone.
    Exact,
    /// The value follows in the same argument; it may be empty.
    Joined,
    /// So many arguments follow.
    Separate(usize),
    /// The value follows in the same argument, or in the next one if this one ends there.
    Either,
}

/// Which compilers know a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// gcc and clang.
    Both,
    /// gcc only.
    Gcc,
    /// clang only.
    Clang,
}

impl Known {
    fn by(self, family: Family) -> bool {
        match self {
            Self::Both => true,
            Self::Gcc => family == Family::Gcc,
            Self::Clang => family == Family::Clang,
        }
    }
}

/// What a unit's one step makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// `-c`.
    Object,
    /// `-S`, which wins over `-c`.
    Assembly,
}

/// Which part of the include search path an option adds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// `-iquote`.
    Quote,
    /// `-I`.
    User,
    /// `-isystem`.
    System,
    /// `-idirafter`.
    After,
}

/// What an option means for where a unit may run and which files belong to it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// Remote, and nothing more to know: the argument is sent as it is, and its value names no file.
    Plain,
    /// Remote, unless the value, or a part of it, names a file here.
    Suspect,
    /// Stays here.
    Local(Reason),
    /// The value decides.
    By(fn(&[u8]) -> Effect),
    /// `-c` or `-S`.
    Mode(Mode),
    /// `-emit-llvm`: other default extensions.
    Bitcode,
    /// `-o`.
    Output,
    /// `-x`.
    Language,
    /// A directory of the include search path.
    Include(Chain),
    /// `-include`, `-imacros`.
    Forced,
    /// `-D`.
    Define,
    /// `-U`.
    Undefine,
    /// `-MD`.
    DepsAll,
    /// `-MMD`.
    DepsUser,
    /// `-MF`.
    DepsFile,
    /// The value is a file that the compiler reads.
    Input,
    /// The value is a file that the compiler writes.
    SideOutput,
    /// The compiler writes a file named like the object, with this extension.
    Beside(&'static str),
    /// Decides the compiler's own include directories.
    Probe,
    /// `-march=` and its kin: decides the compiler's own directories, and may ask for this machine's processor.
    Machine,
    /// `-mtune=`: may ask for this machine's processor.
    Tune,
    /// `-arch`: one is a target, several are several compiles.
    Arch,
    /// `-Wp,`: arguments of the preprocessor, between commas.
    Preprocessor,
    /// `-Xpreprocessor`.
    PreprocessorOne,
    /// `-Wa,`: arguments of the assembler, between commas.
    Assembler,
    /// `-Xassembler`.
    AssemblerOne,
    /// `-Xclang`.
    Frontend,
    /// `-mllvm`.
    Llvm,
}

/// One option, or one family of options.
#[derive(Debug)]
pub(super) struct Row {
    /// The spelling, with its dashes and, where it belongs to the name, its `=`.
    pub name: &'static str,
    pub form: Form,
    pub known: Known,
    pub effect: Effect,
}

/// An argument that a row describes.
#[derive(Debug)]
pub(super) struct Match<'a> {
    pub row: &'static Row,
    /// The joined value; empty if there is none.
    pub joined: &'a [u8],
    /// How many of the arguments that follow belong to the option.
    pub follow: usize,
}

/// The bucket of an option: its first byte after the dash. `--long` options share the dash's.
const fn bucket(name: &[u8]) -> usize {
    if name.len() < 2 { 0 } else { name[1] as usize }
}

const NONE: u16 = u16::MAX;

/// For each bucket its first row, and for each row the next one in its bucket: built when mesh is, so that the launcher
/// pays nothing for it.
static INDEX: ([u16; 256], [u16; ROWS.len()]) = {
    let mut first = [NONE; 256];
    let mut next = [NONE; ROWS.len()];
    let mut i = ROWS.len();
    while i > 0 {
        i -= 1;
        let at = bucket(ROWS[i].name.as_bytes());
        next[i] = first[at];
        first[at] = i as u16;
    }
    (first, next)
};

/// Finds the row of an argument that begins with a dash: of all that fit the one with the longest name, as both compilers
/// do. `None` for an option that the table does not hold.
pub(super) fn lookup(arg: &[u8], family: Family) -> Option<Match<'_>> {
    let mut best: Option<&'static Row> = None;
    let mut at = INDEX.0[bucket(arg)];
    while at != NONE {
        let row = &ROWS[at as usize];
        at = INDEX.1[at as usize];
        let name = row.name.as_bytes();
        let fits = match row.form {
            Form::Exact | Form::Separate(_) => arg == name,
            Form::Joined | Form::Either => arg.starts_with(name),
        };
        if fits && row.known.by(family) && best.is_none_or(|b| name.len() > b.name.len()) {
            best = Some(row);
        }
    }
    let row = best?;
    let joined = &arg[row.name.len()..];
    let follow = match row.form {
        Form::Exact | Form::Joined => 0,
        Form::Separate(n) => n,
        Form::Either => usize::from(joined.is_empty()),
    };
    Some(Match { row, joined, follow })
}

/// How many of the arguments after this one belong to it, for whichever compiler takes more.
pub(super) fn follow_max(arg: &[u8]) -> usize {
    let of = |family| lookup(arg, family).map_or(0, |m| m.follow);
    of(Family::Gcc).max(of(Family::Clang))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arg: &str, family: Family, name: &str, joined: &str, follow: usize) {
        let found = lookup(arg.as_bytes(), family).unwrap_or_else(|| panic!("{arg} is in the table"));
        assert_eq!((found.row.name, found.joined, found.follow), (name, joined.as_bytes(), follow), "{arg}");
    }

    #[test]
    fn no_two_rows_claim_the_same_spelling_for_one_compiler() {
        for family in [Family::Gcc, Family::Clang] {
            let mut names: Vec<_> = ROWS.iter().filter(|r| r.known.by(family)).map(|r| r.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{family:?}");
        }
    }

    #[test]
    fn every_row_is_found_by_its_own_name() {
        for row in ROWS {
            for family in [Family::Gcc, Family::Clang].into_iter().filter(|f| row.known.by(*f)) {
                let found = lookup(row.name.as_bytes(), family).expect("in the table");
                assert_eq!(found.row.name, row.name);
            }
        }
    }

    #[test]
    fn the_longest_name_wins() {
        check("-include-pch", Family::Clang, "-include-pch", "", 1);
        check("-includefoo.h", Family::Gcc, "-include", "foo.h", 0);
        check("-isystem-after", Family::Clang, "-isystem-after", "", 1);
        check("-isystem-after", Family::Gcc, "-isystem", "-after", 0);
        check("-I", Family::Gcc, "-I", "", 1);
        check("-Iinclude", Family::Gcc, "-I", "include", 0);
        check("-dumpversion", Family::Gcc, "-dumpversion", "", 0);
        check("-da", Family::Gcc, "-d", "a", 0);
        check("-MFx.d", Family::Gcc, "-MF", "x.d", 0);
        check("-MMD", Family::Gcc, "-MMD", "", 0);
        check("--include-directory=x", Family::Gcc, "--include-directory=", "x", 0);
    }
}
