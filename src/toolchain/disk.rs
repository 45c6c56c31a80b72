//! Found toolchains kept over the agent's lives, so that a start costs no hashing and no questions (DO).
//!
//! One small file a toolchain in `compilers-v2`, written beside and renamed. A record is only a claim: it is used after
//! its proof was seen to hold, and a file that does not read as one is ignored and later overwritten.

use super::{closure::Proof, registry::Key, stamp::Digests};
use crate::compiler::invocation::Family;
use mesh_proto::{
    digest::Digest,
    frame,
    path::AbsPath,
    toolchain::{Manifest, PartNode},
};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folder's name carries the version of the format: a change of it is a new name. (`toolchains-v1` beside it holds the
/// worker's trees.)
const FOLDER: &str = "compilers-v2";
/// Records kept, number.
const RECORDS_MAX: usize = 512;
/// One record, bytes: four thousand parts with long paths.
const RECORD_BYTES_MAX: usize = 4 << 20;

/// What is kept of one toolchain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) key: Key,
    pub(super) manifest: Manifest,
    pub(super) proof: Proof,
    pub(super) family: Family,
    pub(super) version: String,
    pub(super) version_major: u32,
    pub(super) triple: String,
    pub(super) cxx_driver: bool,
    pub(super) real: AbsPath,
    /// clang: the GCC installation that it uses by default.
    pub(super) gcc_install: Option<Vec<u8>>,
}

impl Record {
    /// Hands the digests in it to those that may need them for another toolchain.
    pub(super) fn teach(&self, digests: &Digests) {
        // Both lists are made in one pass over the same paths.
        for (part, (path, stamp)) in self.manifest.parts.iter().zip(self.proof.parts()) {
            if let PartNode::File { digest, .. } = &part.node
                && part.path == *path
            {
                digests.learn(*stamp, *digest);
            }
        }
    }
}

/// The folder of records.
#[derive(Debug)]
pub(super) struct Records {
    folder: PathBuf,
}

impl Records {
    /// The folder in a cache directory; it comes to be with the first record.
    pub(super) fn new(cache_dir: &Path) -> Self {
        Self { folder: cache_dir.join(FOLDER) }
    }

    /// Every record that can be read.
    pub(super) fn load(&self) -> Vec<Record> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).collect();
        paths.sort();
        let mut records = Vec::new();
        for path in paths {
            let record = read(&path).ok().filter(|_| records.len() < RECORDS_MAX);
            match record {
                Some(record) if path.file_name().is_some_and(|n| *n == *file_name(&record.key)) => records.push(record),
                // Left over from a crash, of another format, or too many.
                _ => drop(fs::remove_file(&path)),
            }
        }
        records
    }

    /// Writes a record in place of an older one of the same key.
    pub(super) fn save(&self, record: &Record) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut bytes = Vec::new();
        frame::write(record, RECORD_BYTES_MAX, &mut bytes)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let path = self.folder.join(file_name(&record.key));
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        fs::write(&beside, bytes)?;
        fs::rename(&beside, path)
    }

    /// Forgets a record.
    pub(super) fn remove(&self, key: &Key) {
        let _ = fs::remove_file(self.folder.join(file_name(key)));
    }
}

fn file_name(key: &Key) -> String {
    let bytes = postcard::to_stdvec(key).expect("a key has no type that postcard cannot write");
    Digest::of(&bytes).hex()
}

fn read(path: &Path) -> io::Result<Record> {
    if fs::metadata(path)?.len() > (RECORD_BYTES_MAX + frame::HEADER_BYTES) as u64 {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let bytes = fs::read(path)?;
    match frame::parse(&bytes, RECORD_BYTES_MAX) {
        Ok(frame::Parsed::Frame { message, used }) if used == bytes.len() => Ok(message),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
