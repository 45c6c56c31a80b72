//! Arguments that the driver hands to another program: the preprocessor, the assembler, clang's front end (DECIDE).

use super::args::{Effect, lookup};
use super::invocation::Family;
use super::walk::Facts;
use crate::reason::Reason;

/// Reads what `-Wp,` and `-Xpreprocessor` pass on. Only what is common is understood: a dependency list, macros.
pub(super) fn preprocessor<'a>(facts: &mut Facts<'a>, pieces: &[&'a [u8]]) {
    let mut rest = pieces.iter().copied();
    while let Some(piece) = rest.next() {
        match piece {
            // Without a file gcc's own front end takes its next argument for one: whatever that may be.
            b"-MD" | b"-MMD" => match rest.next() {
                Some(file) if !file.is_empty() => facts.deps_passed.push((piece == b"-MMD", file)),
                _ => facts.keep(Reason::UnknownOption),
            },
            b"-MT" | b"-MQ" if rest.next().is_some() => {}
            b"-MP" | b"-undef" | b"-w" => {}
            b"-D" | b"-U" => match rest.next() {
                Some(value) if piece == b"-D" => facts.define(value),
                Some(name) => facts.undefine(name),
                None => facts.keep(Reason::UnknownOption),
            },
            _ => match piece {
                [b'-', b'D', value @ ..] => facts.define(value),
                [b'-', b'U', name @ ..] => facts.undefine(name),
                [b'-', b'W', ..] => {}
                _ => facts.keep(Reason::UnknownOption),
            },
        }
    }
}

/// Assembler options that name no file and change nothing but the object.
const ASSEMBLER_PLAIN: &[&str] = &[
    "--noexecstack",
    "--execstack",
    "--fatal-warnings",
    "--no-warn",
    "--warn",
    "-W",
    "--keep-locals",
    "-L",
    "-K",
    "-k",
    "-g",
    "-Z",
    "-n",
    "--32",
    "--64",
    "--x32",
    "-EL",
    "-EB",
    "--reduce-memory-overheads",
    "--strip-local-absolute",
    "--no-pad-sections",
    "--divide",
];

/// What assembler options begin with that name no file, whatever follows.
const ASSEMBLER_PLAIN_PREFIXES: &[&str] = &[
    "-m",
    "--m",
    "--gdwarf",
    "--gstabs",
    "--compress-debug-sections",
    "--nocompress-debug-sections",
    "--debug-prefix-map=",
    "--defsym=",
    "--elf-stt-common=",
    "--size-check=",
    "--generate-missing-build-notes=",
    "--sectname-subst",
    "--hash-size=",
];

/// Reads what `-Wa,` and `-Xassembler` pass on: anything that may name a file or list the source keeps the unit here.
pub(super) fn assembler(facts: &mut Facts<'_>, pieces: &[&[u8]]) {
    let mut rest = pieces.iter().copied();
    while let Some(piece) = rest.next() {
        let plain = match piece {
            b"--defsym" | b"--debug-prefix-map" => rest.next().is_some(),
            b"-mllvm" | b"--MD" => false,
            _ => {
                ASSEMBLER_PLAIN.iter().any(|p| p.as_bytes() == piece)
                    || ASSEMBLER_PLAIN_PREFIXES.iter().any(|p| piece.starts_with(p.as_bytes()))
            }
        };
        if !plain {
            facts.keep(Reason::Assembler);
        }
    }
}

/// Options of clang's front end with a value that is no file.
const FRONTEND_VALUED: &[&str] =
    &["-target-feature", "-target-cpu", "-tune-cpu", "-target-abi", "-mrelocation-model", "-mcode-model", "-pic-level"];

/// What options of clang's front end begin with that name no file.
const FRONTEND_PLAIN_PREFIXES: &[&str] =
    &["-disable-", "-enable-", "-no-", "-debug-info-kind=", "-dwarf-version=", "-O", "-menable-", "-mrelax-", "-mno-"];

/// Reads what `-Xclang` passes on.
pub(super) fn frontend(facts: &mut Facts<'_>, pieces: &[&[u8]]) {
    let mut rest = pieces.iter().copied();
    while let Some(piece) = rest.next() {
        if FRONTEND_VALUED.iter().any(|p| p.as_bytes() == piece) {
            if rest.next().is_none() {
                facts.keep(Reason::UnknownOption);
            }
            continue;
        }
        match piece {
            b"-include" => match rest.next() {
                Some(file) => facts.forced.push(file.to_vec()),
                None => facts.keep(Reason::UnknownOption),
            },
            b"-include-pch" | b"-building-pch-with-obj" => facts.keep(Reason::PchUse),
            b"-load" | b"-plugin" | b"-add-plugin" => facts.keep(Reason::Plugin),
            b"-mllvm" => match rest.next() {
                Some(value) => facts.suspects_of(value),
                None => facts.keep(Reason::UnknownOption),
            },
            _ if piece.starts_with(b"-plugin") => facts.keep(Reason::Plugin),
            _ if FRONTEND_PLAIN_PREFIXES.iter().any(|p| piece.starts_with(p.as_bytes())) => facts.suspects_of(piece),
            _ if piece.first() == Some(&b'-') => frontend_by_table(facts, piece),
            value => facts.suspect(value),
        }
    }
}

/// Options that the driver knows too mean the same to the front end, as far as they stand alone.
fn frontend_by_table(facts: &mut Facts<'_>, piece: &[u8]) {
    match lookup(piece, Family::Clang) {
        Some(found) if found.follow == 0 => match found.row.effect {
            Effect::Plain => {}
            Effect::Suspect => facts.suspect(found.joined),
            Effect::Define => facts.define(found.joined),
            Effect::Undefine => facts.undefine(found.joined),
            Effect::Local(reason) => facts.keep(reason),
            _ => facts.keep(Reason::UnknownOption),
        },
        Some(_) => facts.keep(Reason::UnknownOption),
        None if piece.starts_with(b"-f") => facts.suspects_of(piece),
        None => facts.keep(Reason::UnknownOption),
    }
}
