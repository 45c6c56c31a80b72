//! Samples show whether a compiler's files are all of it. Needs a sandbox; says so where it is skipped.

use crate::skipped;
use mesh::{agent::prove_alone, places::Places, sandbox, toolchain::Toolchain};
use std::{ffi::OsString, path::Path};

fn mesh() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_mesh"))
}

/// The places of an agent of the test's own.
fn places(dir: &Path) -> Places {
    let places = Places::find(|name| (name == "MESH_DIR").then(|| OsString::from(dir)), 0, |_| true).expect("named");
    for dir in [&places.runtime, &places.state, &places.cache] {
        std::fs::create_dir_all(dir).expect("made");
    }
    places
}

/// What samples say of a compiler from which something was taken; `None`, said aloud, where that cannot be tried.
pub(crate) fn proved(program: &str, change: impl FnOnce(&mut Toolchain)) -> Option<Result<(), String>> {
    let dir = tempfile::tempdir().expect("a directory");
    if !Path::new(program).exists() {
        skipped(&format!("{program} is not installed"));
        return None;
    }
    if let Err(why) = sandbox::probe(mesh(), dir.path()) {
        skipped(&why.to_string());
        return None;
    }
    Some(prove_alone(&places(dir.path()), mesh(), Path::new(program), change))
}

/// Takes the parts away whose paths hold this text.
pub(crate) fn take(text: &'static str) -> impl FnOnce(&mut Toolchain) {
    move |toolchain| {
        let mut manifest = (*toolchain.manifest).clone();
        let before = manifest.parts.len();
        manifest.parts.retain(|part| !String::from_utf8_lossy(part.path.as_bytes()).contains(text));
        assert_ne!(manifest.parts.len(), before, "there is no {text}");
        toolchain.fingerprint = manifest.fingerprint();
        toolchain.manifest = manifest.into();
    }
}

#[test]
fn a_whole_compiler_is_proved() {
    for program in ["/usr/bin/gcc", "/usr/bin/clang"] {
        if let Some(proof) = proved(program, |_| {}) {
            assert_eq!(proof, Ok(()), "{program}");
        }
    }
}

#[test]
fn a_compiler_that_lacks_a_file_is_not_proved_and_the_reason_names_the_sample() {
    for (program, missing, sample) in [
        ("/usr/bin/gcc", "/libisl.so", "plain.c with"),
        ("/usr/bin/gcc", "/cc1plus", "plain.cc with"),
        ("/usr/bin/gcc", "/objcopy", "-gsplit-dwarf"),
        ("/usr/bin/clang", "/crtbegin.o", "hosted.cc with"),
        ("/usr/bin/clang", "/libbfd", "-fno-integrated-as"),
    ] {
        let Some(proof) = proved(program, take(missing)) else { continue };
        let why = proof.expect_err(&format!("{program} without {missing}"));
        assert!(why.contains(sample), "{program} without {missing}: {why}");
    }
}
