//! Every family that mesh says it knows: found, told apart, and whole by its own samples.

use crate::{
    proofs::{proved, take},
    truth::{check_truth, lookup, registry},
};
use mesh::compiler::invocation::Family;

/// A compiler, its family, whether it is for C++, what it compiles for.
const COMPILERS: &[(&str, Family, bool, &str)] = &[
    ("gcc", Family::Gcc, false, "linux-gnu"),
    ("g++", Family::Gcc, true, "linux-gnu"),
    ("clang", Family::Clang, false, "linux-gnu"),
    ("clang++", Family::Clang, true, "linux-gnu"),
    ("clang-16", Family::Clang, false, "linux-gnu"),
    ("aarch64-linux-gnu-gcc", Family::Gcc, false, "aarch64-linux-gnu"),
    ("aarch64-linux-gnu-g++", Family::Gcc, true, "aarch64-linux-gnu"),
    ("x86_64-w64-mingw32-gcc", Family::Gcc, false, "x86_64-w64-mingw32"),
];

#[test]
fn each_family_is_told_apart_and_all_run_on_this_machine() {
    let cache = tempfile::tempdir().expect("a directory");
    let registry = registry(cache.path());
    let mut fingerprints = Vec::new();
    for (program, family, cxx_driver, target) in COMPILERS {
        let Some(found) = lookup(&registry, program) else { continue };
        assert_eq!((found.family, found.cxx_driver), (*family, *cxx_driver), "{program}");
        assert!(found.triple.ends_with(target), "{program} is for {}", found.triple);
        // A cross compiler runs here, whatever it compiles for.
        let machine = found.manifest.needs().expect("said").machine;
        assert_eq!(machine, if cfg!(target_arch = "x86_64") { 62 } else { 183 }, "{program}");
        fingerprints.push(found.fingerprint);
        let path_var = registry.path_var(&found.fingerprint).expect("a path by which it is found");
        let again = registry.lookup(found.driver.as_bytes(), b"/", &path_var, std::time::Instant::now());
        assert_eq!(again.expect("found").fingerprint, found.fingerprint, "{program}");
    }
    let all = fingerprints.len();
    fingerprints.sort();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), all);
    assert_eq!(registry.known().len(), all);
}

#[test]
fn cross_compilers_and_other_versions_compile_in_an_empty_root_as_on_the_machine() {
    for program in ["clang-16", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "x86_64-w64-mingw32-gcc"] {
        check_truth(program, 5);
    }
}

#[test]
fn cross_compilers_and_other_versions_are_proved_by_their_samples() {
    for program in ["clang-16", "aarch64-linux-gnu-g++", "x86_64-w64-mingw32-gcc"] {
        if let Some(proof) = proved(&format!("/usr/bin/{program}"), |_| {}) {
            assert_eq!(proof, Ok(()), "{program}");
        }
    }
}

#[test]
fn a_cross_compiler_without_its_own_assembler_or_gcc_without_its_objective_c_is_not_proved() {
    for (program, missing, sample) in [
        ("/usr/bin/aarch64-linux-gnu-gcc", "/aarch64-linux-gnu/bin/as", "plain.c with"),
        ("/usr/bin/x86_64-w64-mingw32-gcc", "/x86_64-w64-mingw32-as", "plain.c with"),
        ("/usr/bin/gcc", "/cc1obj", "plain.m with"),
    ] {
        let Some(proof) = proved(program, take(missing)) else { continue };
        let why = proof.expect_err(&format!("{program} without {missing}"));
        assert!(why.contains(sample), "{program} without {missing}: {why}");
    }
}
