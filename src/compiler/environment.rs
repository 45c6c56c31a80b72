//! What the environment adds to a command line (DECIDE).

use super::invocation::{Family, Invocation};
use super::plan::{Language, Search};
use crate::reason::Reason;

/// Variables that make a compiler read, write or run something that is not distributed. An empty value counts as unset
/// except where a compiler only asks whether the variable is there.
const KEPT_HERE: &[&str] = &[
    "DEPENDENCIES_OUTPUT",
    "SUNPRO_DEPENDENCIES",
    "GCC_EXEC_PREFIX",
    "GCC_ROOT",
    "COMPILER_PATH",
    "GCC_COMPARE_DEBUG",
    "CCC_OVERRIDE_OPTIONS",
    "QA_OVERRIDE_GCC3_OPTIONS",
    "CCC_ADD_ARGS",
    "CC_LOG_DIAGNOSTICS",
    "CC_LOG_DIAGNOSTICS_FILE",
    "CLANG_CONFIG_PATH",
    "RC_DEBUG_OPTIONS",
    "RC_DEBUG_PREFIX_MAP",
    "AS_LOG_FILE",
    "LD_PRELOAD",
    "LD_AUDIT",
    "DYLD_INSERT_LIBRARIES",
];

/// What variables begin with that make clang print what it does (`CC_PRINT_OPTIONS`, `CC_PRINT_HEADERS`).
const KEPT_HERE_PREFIX: &[u8] = b"CC_PRINT_";

/// The first gcc and the first clang that honour `SOURCE_DATE_EPOCH`.
const EPOCH_GCC_MIN: u32 = 7;
const EPOCH_CLANG_MIN: u32 = 16;
/// The digits of the largest epoch that gcc accepts (the year 9999), which keeps out what it rejects.
const EPOCH_DIGITS_MAX: usize = 12;

/// Whether the environment keeps a unit here. `LD_LIBRARY_PATH` does not: it is set for many users all the time, for
/// the programs that they build and not for the compiler.
pub(super) fn keeps_here(inv: &Invocation) -> Option<Reason> {
    let kept = |(name, value): &(Vec<u8>, Vec<u8>)| {
        !value.is_empty()
            && (name.starts_with(KEPT_HERE_PREFIX) || KEPT_HERE.iter().any(|k| k.as_bytes() == name.as_slice()))
    };
    inv.env.iter().any(kept).then_some(Reason::Environment)
}

/// Appends the directories of `CPATH` and its family, where both compilers do: after the command line's own.
pub(super) fn add_directories(inv: &Invocation, language: Language, search: &mut Search) {
    search.user.extend(directories(inv.var("CPATH")));
    let name = match language {
        Language::C | Language::PreprocessedC | Language::AssemblerWithCpp => "C_INCLUDE_PATH",
        Language::Cxx | Language::PreprocessedCxx => "CPLUS_INCLUDE_PATH",
        Language::ObjC => "OBJC_INCLUDE_PATH",
        Language::ObjCxx => "OBJCPLUS_INCLUDE_PATH",
    };
    search.system.extend(directories(inv.var(name)));
}

/// The directories of a list; an empty element is the working directory, an empty list names none.
fn directories(list: Option<&[u8]>) -> impl Iterator<Item = Vec<u8>> {
    let list = list.filter(|l| !l.is_empty()).unwrap_or_default();
    let count = if list.is_empty() { 0 } else { usize::MAX };
    list.split(|b| *b == b':').take(count).map(|d| if d.is_empty() { b".".to_vec() } else { d.to_vec() })
}

/// Whether `SOURCE_DATE_EPOCH` fixes what `__DATE__` says.
pub(super) fn epoch_fixed(inv: &Invocation) -> bool {
    let known = match inv.family {
        Family::Gcc => inv.version_major >= EPOCH_GCC_MIN,
        Family::Clang => inv.version_major >= EPOCH_CLANG_MIN,
    };
    known
        && inv
            .var("SOURCE_DATE_EPOCH")
            .is_some_and(|v| !v.is_empty() && v.len() <= EPOCH_DIGITS_MAX && v.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_element_of_a_list_is_the_working_directory() {
        let check = |list: Option<&[u8]>, expect: &[&[u8]]| {
            assert_eq!(directories(list).collect::<Vec<_>>(), expect, "{list:?}");
        };
        check(None, &[]);
        check(Some(b""), &[]);
        check(Some(b"/a"), &[b"/a"]);
        check(Some(b":/a::b:"), &[b".", b"/a", b".", b"b", b"."]);
    }
}
