//! What a job may see: files, symbolic links and directories by their paths on the client (AGREE).
//!
//! Whatever is not listed does not exist for the job: absence needs no entry in the strict form.

use crate::{digest::Digest, path::AbsPath};
use serde::{Deserialize, Serialize};

/// One path of a closure.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// Where the client has it. No component before the last is a symbolic link: such a link is an entry of its own,
    /// and what lies behind it is listed by its real path.
    pub path: AbsPath,
    /// What is there.
    pub node: Node,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Node {
    /// A regular file.
    File(File),
    /// A symbolic link.
    Symlink {
        /// Its text, as the client has it.
        target: Vec<u8>,
    },
    /// A directory, empty but for the other entries. A file's parents need no entry.
    Directory,
}

/// A regular file, with all of its identity that compilers look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct File {
    /// Its content.
    pub digest: Digest,
    /// Its size, bytes.
    pub size: u64,
    /// Modification time, seconds since 1970.
    pub mtime_s: i64,
    /// Modification time, nanoseconds within the second.
    pub mtime_ns: u32,
    /// Whether anybody may execute it.
    pub executable: bool,
    /// Equal for two paths exactly if they are one inode on the client (gcc and clang tell files apart by it, for
    /// `#pragma once` and `#import`); opaque otherwise.
    pub inode: u64,
}
