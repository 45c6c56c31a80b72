//! What a compiler's fingerprint is made of (AGREE).

use crate::{digest::Digest, limits, path::AbsPath};
use serde::{Deserialize, Serialize};

/// Names everything that decides a compiler's output. Two machines with equal fingerprints have the same files at the
/// same paths. Never made from a name or a version string.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub Digest);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One file, link or directory of a toolchain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// Where it is on the machine.
    pub path: AbsPath,
    /// What it is.
    pub node: PartNode,
}

/// What a [`Part`] is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PartNode {
    /// A regular file.
    File {
        /// Its content.
        digest: Digest,
        /// Its size, bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Its text.
        target: Vec<u8>,
    },
    /// A directory that drivers look for, or that must exist to be walked through.
    Directory,
}

/// Everything that decides the output of one compiler, as asked for by one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The path by which the compiler is run; often a symbolic link among the parts.
    pub driver: AbsPath,
    /// What it says of itself, labelled and sorted: target, specs, search directories.
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::TOOLCHAIN_FACTS_MAX }, _, _>")]
    pub facts: Vec<(String, Vec<u8>)>,
    /// Its files, sorted by path, no path twice.
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::TOOLCHAIN_PARTS_MAX }, _, _>")]
    pub parts: Vec<Part>,
}

/// The label of the fact by which a manifest says what its programs run on; its value is [`Needs::fact`].
pub const NEEDS_FACT: &str = "runs on";

/// The label of the fact that says which grammar of options it has: `gcc` or `clang`.
pub const FAMILY_FACT: &str = "family";

/// The label of the fact that says its version, as `12.2.0`.
pub const VERSION_FACT: &str = "version";

/// What a machine must be to run the programs of a toolchain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Needs {
    /// ELF's number of the architecture (`e_machine`, System V ABI): 62 is x86-64, 183 is AArch64.
    pub machine: u16,
    /// The highest level that any of its files is marked with, of those that the x86-64 psABI counts from 1 to 4; 0 for
    /// other architectures.
    pub level: u8,
}

impl Needs {
    /// As the value of a manifest's fact: both numbers in decimal, a space between them.
    #[must_use]
    pub fn fact(self) -> Vec<u8> {
        format!("{} {}", self.machine, self.level).into_bytes()
    }

    fn from_fact(value: &[u8]) -> Option<Self> {
        let (machine, level) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        Some(Self { machine: machine.parse().ok()?, level: level.parse().ok()? })
    }
}

impl Manifest {
    /// What a machine must be to run it; `None` if the manifest does not say.
    #[must_use]
    pub fn needs(&self) -> Option<Needs> {
        Needs::from_fact(self.fact(NEEDS_FACT)?)
    }

    /// What it says under this label.
    #[must_use]
    pub fn fact(&self, label: &str) -> Option<&[u8]> {
        self.facts.iter().find(|(known, _)| known == label).map(|(_, value)| value.as_slice())
    }

    /// The fingerprint: BLAKE3, under a context of its own, of the manifest's encoding with the parts and facts sorted.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut sorted = self.clone();
        sorted.facts.sort();
        sorted.parts.sort();
        sorted.parts.dedup();
        let bytes = postcard::to_stdvec(&sorted).expect("a manifest has no type that postcard cannot write");
        let mut hasher = blake3::Hasher::new_derive_key("mesh 2026 toolchain fingerprint v1");
        hasher.update(&bytes);
        Fingerprint(Digest(*hasher.finalize().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(parts: Vec<Part>) -> Manifest {
        Manifest {
            driver: AbsPath::new("/usr/bin/gcc").expect("normal"),
            facts: vec![("target".into(), b"x".to_vec())],
            parts,
        }
    }

    fn file(path: &str, content: &[u8]) -> Part {
        let node = PartNode::File { digest: Digest::of(content), size: content.len() as u64, executable: true };
        Part { path: AbsPath::new(path).expect("normal"), node }
    }

    #[test]
    fn what_a_toolchain_runs_on_is_read_as_it_was_written() {
        let needs = Needs { machine: 62, level: 3 };
        let says = |value: &[u8]| Manifest { facts: vec![(NEEDS_FACT.into(), value.to_vec())], ..manifest(vec![]) };
        assert_eq!(says(&needs.fact()).needs(), Some(needs));
        for other in [&b""[..], b"62", b"62 ", b"62 3 1", b"99999999 1", b"62 256", b"\xff 1"] {
            assert_eq!(says(other).needs(), None);
        }
        assert_eq!(manifest(vec![]).needs(), None);
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        let one = manifest(vec![file("/a", b"1"), file("/b", b"2")]);
        assert_eq!(one.fingerprint(), manifest(vec![file("/b", b"2"), file("/a", b"1")]).fingerprint());
        for other in [
            manifest(vec![file("/a", b"1"), file("/b", b"3")]),
            manifest(vec![file("/a", b"1"), file("/c", b"2")]),
            manifest(vec![file("/a", b"1")]),
            Manifest { facts: vec![("target".into(), b"y".to_vec())], ..one.clone() },
            Manifest { driver: AbsPath::new("/usr/bin/cc").expect("normal"), ..one.clone() },
        ] {
            assert_ne!(one.fingerprint(), other.fingerprint());
        }
    }
}
