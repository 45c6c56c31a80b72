//! Names of what mesh keeps on disk below its cache directory (DECIDE).
//!
//! Every folder carries the version of its format: a change of format is a new name, never a migration, and an old and
//! a new mesh can share a disk.

use mesh_proto::{digest::Digest, toolchain::Fingerprint};
use std::path::{Path, PathBuf};

/// Content by digest: `blobs-v1/ab/abcd…`.
pub const BLOBS: &str = "blobs-v1";
/// Content that is being written, beside what is whole, so that a rename makes it visible.
pub const INCOMING: &str = "incoming";
/// What compiles gave, by their keys: `results-v1/ab/abcd…`, named like blobs.
pub const RESULTS: &str = "results-v1";
/// Which of these other checkouts of a project may have: `checkouts-v1/abcd`.
pub const CHECKOUTS: &str = "checkouts-v1";
/// Trees of toolchains by fingerprint: `toolchains-v1/abcd…/usr/bin/gcc`.
pub const TOOLCHAINS: &str = "toolchains-v1";
/// What is known of the files that units read.
const INPUTS: &str = "inputs-v1";
/// What was learned of units' costs.
const HISTORY: &str = "history-v1";
/// The folder of the files that the toolchains' trees link to.
pub const TOOLCHAIN_FILES: &str = "toolchain-files-v1";

/// What is known of the toolchains that other machines sent.
pub const TOOLCHAINS_SENT: &str = "toolchains-sent-v1";

/// Where a blob is, below [`BLOBS`]. 256 folders, so that none grows large.
#[must_use]
pub fn blob(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}/{hex}", &hex[..2])
}

/// The digest of a blob's file name; `None` for files that are not blobs.
#[must_use]
pub fn blob_digest(name: &[u8]) -> Option<Digest> {
    Digest::from_hex(std::str::from_utf8(name).ok()?)
}

/// The file of what is known of the files that units read, below the cache directory.
#[must_use]
pub fn inputs(cache: &Path) -> PathBuf {
    cache.join(INPUTS)
}

/// The file of what was learned of units' costs, below the cache directory.
#[must_use]
pub fn history(cache: &Path) -> PathBuf {
    cache.join(HISTORY)
}

/// Where a toolchain's tree is, below the cache directory.
#[must_use]
pub fn toolchain(cache: &Path, fingerprint: &Fingerprint) -> PathBuf {
    cache.join(TOOLCHAINS).join(fingerprint.0.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blobs_name_gives_its_digest_back() {
        let digest = Digest::of(b"x");
        let path = blob(&digest);
        let (folder, name) = path.split_once('/').unwrap();
        assert_eq!(blob_digest(name.as_bytes()), Some(digest));
        assert!(name.starts_with(folder) && folder.len() == 2);
        assert_eq!(blob_digest(b"README"), None);
    }
}
