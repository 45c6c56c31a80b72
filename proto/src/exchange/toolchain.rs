//! How a machine comes by a compiler that it does not have (AGREE).
//!
//! ```text
//! client ──Wanted{fingerprint, needs, bytes}──▶ B      (control stream, once a connection)
//! client ◀──Arrival{fingerprint, Coming | Refused}── B (control stream, now and then)
//!           B ──Get{fingerprint}──▶ A                  (a stream of its own, to any member that lends it, or the client)
//!           B ◀──Given::Manifest── A
//!           B ──numbers of parts──▶ A
//!           B ◀──these files, ascending── A            (again, until B has all; then B ends the stream)
//! client ◀──Toolchains([…, fingerprint])── B           (control stream: from now on it serves)
//! ```
//! Nobody is believed: the manifest must have the fingerprint that was asked for, and each file the digest that the manifest
//! says. So it does not matter who gives, and what came before a break need not come again.

use crate::{
    digest::Digest,
    limits,
    naming::NumberSet,
    toolchain::{Fingerprint, Manifest, Needs, PartNode},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The sender has work for a compiler that the receiver does not have, and lets it have that compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Which.
    pub fingerprint: Fingerprint,
    /// What it runs on.
    pub needs: Needs,
    /// All its files, bytes.
    pub bytes: u64,
}

/// What becomes of a compiler that the receiver wants the sender to have. That it is there is said by the list of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Which.
    pub fingerprint: Fingerprint,
    /// How far it is.
    pub state: Arriving,
}

/// How far a compiler is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arriving {
    /// It is coming, or waits for another one that is.
    Coming {
        /// Bytes of its files that are there.
        have: u64,
        /// Bytes of all its files.
        of: u64,
    },
    /// It will not come.
    Refused(NotTaken),
}

/// Why a machine does not take a compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum NotTaken {
    /// It does not compile for others, or not for who asks.
    #[error("it does not compile for this machine")]
    Serve,
    /// Its programs are another architecture's.
    #[error("its processor is of another architecture")]
    Machine,
    /// They need instructions that its processor does not have.
    #[error("its processor lacks instructions that the compiler needs")]
    Processor,
    /// Its disk, or its share of it, has no room.
    #[error("it has no room for it")]
    Room,
    /// Nobody gave it, or what was given could not be used.
    #[error("it could not get it whole")]
    Failed,
    /// It has too many that wait already.
    #[error("it is taking others now")]
    Busy,
}

/// The first frame of a stream by which a compiler is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// Which.
    pub fingerprint: Fingerprint,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Given {
    /// Its parts; the receiver asks for files by their places in the list.
    Manifest(Box<Manifest>),
    /// The giver does not have it, or does not give it away.
    Not,
}

/// The other side broke a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The manifest is not that of the fingerprint.
    #[error("a manifest of another compiler")]
    Fingerprint,
    /// It needs another machine than was said.
    #[error("a manifest that needs another machine than was said")]
    Needs,
    /// It passes a limit.
    #[error("a manifest beyond the limits")]
    Limit,
    /// A number that is no file's, or comes twice.
    #[error("a request for what is no file of it")]
    NotAFile,
}

/// A file to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wants {
    /// Its place among the manifest's parts.
    pub part: u32,
    /// Its content.
    pub digest: Digest,
    /// Its size, bytes.
    pub size: u64,
}

/// Checks a manifest that came for a fingerprint: that it is its own, that it needs no more than `needs`, and the limits.
/// Whether its paths can be placed is for who places them.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(manifest: &Manifest, fingerprint: &Fingerprint, needs: &Needs) -> Result<(), Wrong> {
    if manifest.parts.len() > limits::TOOLCHAIN_PARTS_MAX {
        return Err(Wrong::Limit);
    }
    let mut bytes = 0u64;
    for part in &manifest.parts {
        if let PartNode::File { size, .. } = part.node {
            if size > limits::BLOB_BYTES_MAX {
                return Err(Wrong::Limit);
            }
            bytes = bytes.saturating_add(size);
        }
    }
    if bytes > limits::TOOLCHAIN_BYTES_MAX {
        return Err(Wrong::Limit);
    }
    if manifest.fingerprint() != *fingerprint {
        return Err(Wrong::Fingerprint);
    }
    if manifest.needs() != Some(*needs) {
        return Err(Wrong::Needs);
    }
    Ok(())
}

/// The bytes of all files of a manifest.
#[must_use]
pub fn bytes(manifest: &Manifest) -> u64 {
    let size = |node: &PartNode| if let PartNode::File { size, .. } = node { *size } else { 0 };
    manifest.parts.iter().fold(0, |sum, part| sum.saturating_add(size(&part.node)))
}

/// The files of a manifest that are not there, each content once, ascending by part.
#[must_use]
pub fn lacking(manifest: &Manifest, mut has: impl FnMut(&Digest) -> bool) -> Vec<Wants> {
    let mut known: BTreeMap<Digest, bool> = BTreeMap::new();
    let mut wants = Vec::new();
    for (at, part) in manifest.parts.iter().enumerate() {
        let PartNode::File { digest, size, .. } = part.node else { continue };
        if known.contains_key(&digest) {
            continue;
        }
        let there = has(&digest);
        known.insert(digest, there);
        if !there {
            wants.push(Wants { part: u32::try_from(at).unwrap_or(u32::MAX), digest, size });
        }
    }
    wants
}

/// The files that are asked for by these numbers, ascending.
///
/// # Errors
/// If a number is no file's, or they are more than [`limits::TOOLCHAIN_PARTS_MAX`].
pub fn asked(manifest: &Manifest, numbers: &NumberSet) -> Result<Vec<Wants>, Wrong> {
    let numbers = numbers.numbers().map_err(|_| Wrong::NotAFile)?;
    if numbers.len() > limits::TOOLCHAIN_PARTS_MAX {
        return Err(Wrong::Limit);
    }
    let file = |part: u32| match manifest.parts.get(part as usize).map(|found| &found.node) {
        Some(PartNode::File { digest, size, .. }) => Ok(Wants { part, digest: *digest, size: *size }),
        _ => Err(Wrong::NotAFile),
    };
    numbers.into_iter().map(file).collect()
}

/// The first of these files that are asked for together: at least one, and no more than fill [`limits::TOOLCHAIN_TURN_BYTES`].
#[must_use]
pub fn turn(wants: &[Wants]) -> &[Wants] {
    let mut bytes = 0u64;
    let fits = wants.iter().take_while(|file| {
        bytes = bytes.saturating_add(file.size);
        bytes <= limits::TOOLCHAIN_TURN_BYTES
    });
    &wants[..fits.count().max(1).min(wants.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        path::AbsPath,
        toolchain::{NEEDS_FACT, Part},
    };

    const NEEDS: Needs = Needs { machine: 62, level: 1 };

    fn path(text: &str) -> AbsPath {
        AbsPath::new(text).expect("normal")
    }

    fn file(at: &str, content: &[u8], size: u64) -> Part {
        Part { path: path(at), node: PartNode::File { digest: Digest::of(content), size, executable: true } }
    }

    fn manifest(parts: Vec<Part>) -> Manifest {
        Manifest { driver: path("/usr/bin/gcc"), facts: vec![(NEEDS_FACT.into(), NEEDS.fact())], parts }
    }

    fn usual() -> Manifest {
        let link = Part { path: path("/usr/bin/gcc"), node: PartNode::Symlink { target: b"gcc-12".to_vec() } };
        manifest(vec![
            link,
            file("/usr/bin/gcc-12", b"driver", 6),
            file("/usr/lib/cc1", b"cc1", 3),
            file("/usr/lib/copy", b"cc1", 3),
        ])
    }

    #[test]
    fn only_the_manifest_of_the_fingerprint_within_the_limits_is_taken() {
        let good = usual();
        assert_eq!(check(&good, &good.fingerprint(), &NEEDS), Ok(()));
        let other = manifest(vec![file("/usr/bin/gcc", b"other", 5)]);
        assert_eq!(check(&other, &good.fingerprint(), &NEEDS), Err(Wrong::Fingerprint));
        // What was said when it was wanted decided whether it is taken at all.
        let modest = Needs { level: 0, ..NEEDS };
        assert_eq!(check(&good, &good.fingerprint(), &modest), Err(Wrong::Needs));
        let silent = Manifest { facts: vec![], ..usual() };
        assert_eq!(check(&silent, &silent.fingerprint(), &NEEDS), Err(Wrong::Needs));
        for parts in [
            vec![file("/a", b"a", limits::BLOB_BYTES_MAX + 1)],
            vec![file("/a", b"a", u64::MAX), file("/b", b"b", u64::MAX)],
            (0..=limits::TOOLCHAIN_BYTES_MAX / limits::BLOB_BYTES_MAX)
                .map(|n| file(&format!("/{n}"), b"a", limits::BLOB_BYTES_MAX))
                .collect(),
            (0..=limits::TOOLCHAIN_PARTS_MAX).map(|n| file(&format!("/{n}"), b"a", 0)).collect(),
        ] {
            let wrong = manifest(parts);
            assert_eq!(check(&wrong, &wrong.fingerprint(), &NEEDS), Err(Wrong::Limit));
        }
    }

    #[test]
    fn what_is_there_is_not_asked_for_and_each_content_once() {
        let manifest = usual();
        let all = lacking(&manifest, |_| false);
        assert_eq!(all.iter().map(|w| w.part).collect::<Vec<_>>(), [1, 2]);
        let rest = lacking(&manifest, |digest| *digest == Digest::of(b"driver"));
        assert_eq!(rest.iter().map(|w| w.part).collect::<Vec<_>>(), [2]);
        assert_eq!(bytes(&manifest), 12);
    }

    #[test]
    fn only_files_can_be_asked_for() {
        let manifest = usual();
        let ask = |numbers: &[u32]| asked(&manifest, &NumberSet::new(&mut numbers.to_vec()));
        assert_eq!(ask(&[1, 2]).expect("files").len(), 2);
        for wrong in [&[0][..], &[4], &[1, u32::MAX]] {
            assert_eq!(ask(wrong), Err(Wrong::NotAFile));
        }
    }

    #[test]
    fn a_turn_is_one_file_or_as_many_as_fit() {
        let want = |size| Wants { part: 0, digest: Digest::of(b""), size };
        let max = limits::TOOLCHAIN_TURN_BYTES;
        assert_eq!(turn(&[want(max + 1), want(1)]).len(), 1);
        assert_eq!(turn(&[want(max - 1), want(1), want(1)]).len(), 2);
        assert_eq!(turn(&[want(1); 3]).len(), 3);
        assert!(turn(&[]).is_empty());
    }
}
