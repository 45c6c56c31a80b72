//! What outlives the agent: each file's digest and scan, under its whole stat (DO).
//!
//! Reading and scanning is what a first build costs most; the rest is learned by the checks that are made anyway. Nothing
//! in the file is believed of a path: it is looked at first, and content that has another stat than it had is read. Only
//! content whose stamps were settled is kept, so an equal stat proves it. A file that is odd in any way, or made by
//! another version of the scanner, is as good as none.

use super::Graph;
use super::node::{Data, FileData, NodeId, name_hash};
use super::scan::Scan;
use super::world::Stat;
use mesh_proto::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// How such a file begins.
const MAGIC: &[u8; 8] = b"mesh-inp";
/// What the rest looks like.
const VERSION: u32 = 1;
/// What makes scans: other sources make other scans.
const SCANNER: [&str; 2] = [include_str!("scan.rs"), include_str!("lex.rs")];
/// The whole file, bytes: about 40 000 sources.
const FILE_BYTES_MAX: usize = 64 << 20;
/// Files in it.
const RECORDS_MAX: usize = 200_000;
/// How often it may be loaded before a file that nobody asked for is left out.
const IDLE_MAX: u8 = 20;
/// Magic, version, scanner, length and digest of the content.
const HEADER_BYTES: usize = 8 + 4 + 32 + 8 + 32;

/// One file as it was read.
#[derive(Debug, Serialize, Deserialize)]
struct Record<P, S> {
    path: P,
    stat: Stat,
    digest: Digest,
    scan: S,
}

/// What the content begins with, for each record in their order.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Line {
    path_hash: u64,
    bytes: u32,
    /// How often it was loaded since anybody asked for it.
    idle: u8,
}

/// A file of records: where it is, and what is in it once somebody asks.
#[derive(Debug, Default)]
pub(super) struct Memory {
    path: Option<PathBuf>,
    content: Vec<u8>,
    /// By the path's hash, where its record is in the content, and how idle it is.
    lines: HashMap<u64, (usize, Line)>,
    /// Files read since.
    learned: u64,
}

impl Memory {
    /// What was known of a file with this stat.
    fn take(&mut self, path: &[u8], stat: &Stat) -> Option<(Digest, Option<Scan>)> {
        if let Some(file) = self.path.take() {
            self.load(&file);
        }
        let (start, line) = self.lines.remove(&name_hash(path))?;
        let bytes = self.content.get(start..start + line.bytes as usize)?;
        let record: Record<Vec<u8>, Option<Scan>> = postcard::from_bytes(bytes).ok()?;
        (record.path == path && record.stat == *stat).then_some((record.digest, record.scan))
    }

    fn load(&mut self, file: &Path) {
        let Some(content) = read(file) else { return };
        let Ok((lines, records)) = postcard::take_from_bytes::<Vec<Line>>(&content) else { return };
        let mut start = content.len() - records.len();
        if lines.len() > RECORDS_MAX || lines.iter().map(|line| line.bytes as usize).sum::<usize>() != records.len() {
            return;
        }
        for mut line in lines {
            line.idle = line.idle.saturating_add(1);
            self.lines.insert(line.path_hash, (start, line));
            start += line.bytes as usize;
        }
        self.content = content;
    }
}

fn scanner() -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for source in SCANNER {
        hasher.update(source.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn header(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    [&MAGIC[..], &VERSION.to_le_bytes(), &scanner(), &length, &Digest::of(content).0].concat()
}

/// The content of a file, if it is whole.
fn read(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(file).ok()?;
    file.take((HEADER_BYTES + FILE_BYTES_MAX) as u64 + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() < HEADER_BYTES || bytes.len() > HEADER_BYTES + FILE_BYTES_MAX {
        return None;
    }
    let content = bytes.split_off(HEADER_BYTES);
    (header(&content) == bytes).then_some(content)
}

/// Puts what [`Graph::saved`] gave into a file, whole or not at all.
///
/// # Errors
/// As the system says; the file is what it was then.
pub fn write(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let beside = file.with_extension(format!("{}.new", std::process::id()));
    let written = (|| {
        let mut options = std::fs::File::options();
        // Paths and names of macros are nobody else's business.
        let mut new = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        new.write_all(&header(content))?;
        new.write_all(content)?;
        std::fs::rename(&beside, file)
    })();
    if written.is_err() {
        // Perhaps it was never made.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

impl Graph {
    /// Uses what an earlier graph saved there, from the first file on that is not known yet. Reading it costs about as
    /// much as reading ten of the files that it saves reading.
    pub fn load_from(&mut self, file: &Path) {
        self.memory = Memory { path: Some(file.to_path_buf()), ..Memory::default() };
    }

    /// How many files were read and scanned so far: whether saving is worth it.
    #[must_use]
    pub fn learned(&self) -> u64 {
        self.memory.learned
    }

    /// What [`Graph::load_from`] takes, to be put into a file by [`write`]: nothing needs the graph meanwhile.
    #[must_use]
    pub fn saved(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        let mut records = Vec::new();
        let mut keep = |path_hash: u64, idle: u8, record: &[u8]| {
            let Ok(bytes) = u32::try_from(record.len()) else { return };
            // A line takes sixteen bytes at most.
            if records.len() + record.len() + 16 * (lines.len() + 1) < FILE_BYTES_MAX && lines.len() < RECORDS_MAX {
                lines.push(Line { path_hash, bytes, idle });
                records.extend_from_slice(record);
            }
        };
        for node in &self.nodes {
            let Data::File(file) = &node.data else { continue };
            if let Some(record) = self.record(&node.path, file) {
                keep(name_hash(&node.path), 0, &record);
            }
        }
        for (path_hash, (start, line)) in &self.memory.lines {
            if line.idle <= IDLE_MAX
                && let Some(record) = self.memory.content.get(*start..*start + line.bytes as usize)
            {
                keep(*path_hash, line.idle, record);
            }
        }
        let mut content = postcard::to_allocvec(&lines).unwrap_or_default();
        content.extend_from_slice(&records);
        content
    }

    /// Saves what [`Graph::load_from`] takes.
    ///
    /// # Errors
    /// As [`write`].
    pub fn save_to(&self, file: &Path) -> std::io::Result<()> {
        write(file, &self.saved())
    }

    fn record(&self, path: &[u8], file: &FileData) -> Option<Vec<u8>> {
        if !file.read.settled {
            return None;
        }
        let scan = file.text.as_ref().map(|text| {
            let uses = text.uses.iter().map(|(form, name)| (*form, self.names[*name as usize].bytes.clone())).collect();
            Scan { uses, ..text.scan.clone() }
        });
        postcard::to_allocvec(&Record { path, stat: file.read.stat, digest: file.digest, scan }).ok()
    }

    /// What was known of a file as it was just seen, without reading it; with its scan if `follow`.
    pub(super) fn recall_content(&mut self, id: NodeId, follow: bool) -> Option<(Digest, Option<Scan>)> {
        let node = &self.nodes[id as usize];
        let known = self.memory.take(&node.path, &node.stat).filter(|(_, scan)| scan.is_some() || !follow);
        self.memory.learned += u64::from(known.is_none());
        known
    }
}
