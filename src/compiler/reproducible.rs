//! Whether a compile that is done twice gives the same bytes twice (DECIDE).

use super::family::Family;

/// With these gcc writes a random number, or the time, into what it makes, unless it is told what to take for it.
const SEEDED: &[&[u8]] =
    &[b"-flto", b"-fprofile-arcs", b"-fprofile-generate", b"-ftest-coverage", b"--coverage", b"-coverage"];
/// What tells gcc.
const SEED: &[u8] = b"-frandom-seed=";
/// With these a compiler writes addresses of its own memory, or times that it measured.
const NEVER: &[&[u8]] = &[b"-fsave-optimization-record", b"-ftime-trace", b"-ftime-report", b"-fmem-report", b"-time"];

/// Whether what this command makes depends on nothing but the command and what it reads, as far as options tell. An option
/// that is taken back later counts as given: doubt means no.
#[must_use]
pub fn is_reproducible(argv: &[Vec<u8>], family: Family) -> bool {
    let begins = |words: &[&[u8]]| argv.iter().skip(1).any(|arg| words.iter().any(|word| arg.starts_with(word)));
    let seed = || argv.iter().skip(1).any(|arg| arg.strip_prefix(SEED).is_some_and(|seed| !seed.is_empty()));
    !begins(NEVER) && (family == Family::Clang || !begins(SEEDED) || seed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_compiler_makes_of_chance_or_of_the_time_is_not_reproducible() {
        let check = |family, line: &str, expect: bool| {
            let argv: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            assert_eq!(is_reproducible(&argv, family), expect, "{family:?}: {line}");
        };
        for (line, gcc, clang) in [
            ("cc -c a.c", true, true),
            ("cc -g -O2 -gsplit-dwarf -MD -c a.c -o a.o", true, true),
            ("cc -flto -c a.c", false, true),
            ("cc -flto=auto -c a.c", false, true),
            ("cc -flto -fno-lto -c a.c", false, true),
            ("cc -fno-lto -c a.c", true, true),
            ("cc -flto -frandom-seed=a.c -c a.c", true, true),
            ("cc -flto -frandom-seed= -c a.c", false, true),
            ("cc --coverage -c a.c", false, true),
            ("cc -fprofile-arcs -ftest-coverage -c a.c", false, true),
            ("cc -ftest-coverage -c a.c", false, true),
            ("cc -fprofile-generate=/p -c a.c", false, true),
            ("cc -coverage -frandom-seed=1 -c a.c", true, true),
            ("cc -fprofile-instr-generate -c a.c", true, true),
            ("cc -fsave-optimization-record -frandom-seed=1 -c a.c", false, false),
            ("cc -ftime-trace -c a.c", false, false),
            ("-flto -c a.c", true, true),
        ] {
            check(Family::Gcc, line, gcc);
            check(Family::Clang, line, clang);
        }
    }
}
