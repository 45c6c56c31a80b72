//! What a client's tree holds, and whether a job may run in it (DECIDE).
//!
//! A mirror holds what the client has named, at its paths, over many jobs. A job may run in it if all of its closure is
//! placed exactly, nothing that was taken back is left, and nothing had to change that a running job reads. Nobody ever
//! waits: a job that would have to runs in a root of its own, and a tree that cannot become what it must is given up for a
//! fresh one. For a job of which all is placed a decision costs two bits for each entry.

use super::run::Closure;
use super::strict;
use crate::sandbox::policy::{Place, Update, What};
use crate::store::layout;
use mesh_proto::closure::{Entry, File, Node};
use mesh_proto::digest::Digest;
use mesh_proto::job::Job;
use mesh_proto::path::AbsPath;
use mesh_proto::toolchain::{Fingerprint, Manifest, PartNode};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Content of one mirror, bytes: it is in memory.
pub const MIRROR_BYTES_MAX: u64 = 512 << 20;
/// Files, links and directories of one mirror.
pub const MIRROR_NODES_MAX: usize = 200_000;
/// Jobs that had to run elsewhere because of what other jobs of the mirror read, before it is given up.
pub const CONFLICTS_MAX: u32 = 4;
/// Toolchains whose jobs run in one mirror.
const TOOLCHAINS_MAX: usize = 32;
/// Symbolic links that are followed on one path.
const LINKS_MAX: usize = 40;

/// A set of numbers that are given out densely.
#[derive(Debug, Default, Clone)]
pub struct Numbers(Vec<u64>);

impl Numbers {
    /// Whether it has a number.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Takes a number in.
    pub fn add(&mut self, number: u32) {
        let at = number as usize / 64;
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (number % 64);
    }

    fn remove(&mut self, number: u32) {
        if let Some(word) = self.0.get_mut(number as usize / 64) {
            *word &= !(1 << (number % 64));
        }
    }
}

/// What a toolchain has at its paths, as far as a mirror must know.
#[derive(Debug)]
pub struct Tools {
    at: HashMap<Box<[u8]>, Tool>,
}

#[derive(Debug, PartialEq, Eq)]
enum Tool {
    Directory,
    Symlink(Vec<u8>),
    File,
}

impl Tools {
    /// The table of a manifest, with the directories that lead to its parts.
    #[must_use]
    pub fn new(manifest: &Manifest) -> Self {
        let mut at = HashMap::new();
        for part in &manifest.parts {
            let tool = match &part.node {
                PartNode::Directory => Tool::Directory,
                PartNode::Symlink { target } => Tool::Symlink(target.clone()),
                PartNode::File { .. } => Tool::File,
            };
            at.insert(Box::from(part.path.as_bytes()), tool);
            let mut path = part.path.as_bytes();
            while let Some(parent) = parent(path) {
                at.entry(Box::from(parent)).or_insert(Tool::Directory);
                path = parent;
            }
        }
        Self { at }
    }

    /// Whether it has a part, or a directory that leads to one, at a path.
    #[must_use]
    pub fn has(&self, path: &[u8]) -> bool {
        self.at.contains_key(path)
    }

    /// Whether it has a directory, or leads through one, at a path.
    #[must_use]
    pub fn is_directory(&self, path: &[u8]) -> bool {
        self.at.get(path) == Some(&Tool::Directory)
    }

    fn is_other(&self, path: &[u8]) -> bool {
        self.at.get(path).is_some_and(|tool| *tool != Tool::Directory)
    }

    /// Whether this at a path of the mirror hides a part, or what leads to one.
    fn is_hidden_by(&self, path: &[u8], node: &Node) -> bool {
        match (self.at.get(path), node) {
            (None, _) | (Some(Tool::Directory), Node::Directory) => false,
            (Some(Tool::Symlink(text)), Node::Symlink { target }) => text != target,
            _ => true,
        }
    }
}

/// Why a job does not run in a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// An input is no longer true.
    #[error("an input was taken back")]
    Gone,
    /// An input is not here.
    #[error("an input is missing")]
    Missing,
    /// A running job reads what would have to change.
    #[error("a running job reads what would have to change")]
    Conflict,
    /// A path of the client hides a part of the toolchain.
    #[error("an input lies where the toolchain is")]
    Toolchain,
    /// An entry breaks a rule, or leads where it may not.
    #[error("an entry is odd")]
    Odd,
    /// What it may write does not lie in directories.
    #[error("an output directory leads through a file or a link")]
    Outputs,
    /// It holds as much as it may.
    #[error("the mirror is full")]
    Full,
    /// Something else is where a directory must be, or the other way round.
    #[error("a directory and something else at one path")]
    Structure,
}

/// Where a job may run.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In this mirror, after this update.
    Run(Run),
    /// In a root of its own; the mirror is to be updated nevertheless.
    Strict(Why, Update),
    /// This mirror cannot become what the job needs: in a fresh one.
    Fresh(Why),
}

/// A job that may run.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// By which [`Mirror::ended`] knows it.
    pub job: u64,
    /// What changes before it starts.
    pub update: Update,
    /// Where it may write and what it writes comes back.
    pub output_dirs: BTreeSet<AbsPath>,
    /// Where it may write, and what it writes is dropped.
    pub temp_dirs: BTreeSet<AbsPath>,
}

/// What is at one path.
#[derive(Debug)]
struct Held {
    /// `None`: a directory that only leads to others.
    entry: Option<(u32, Arc<Entry>)>,
    /// How many paths are directly below it.
    children: u32,
}

impl Held {
    fn is_directory(&self) -> bool {
        self.entry.as_ref().is_none_or(|(_, entry)| entry.node == Node::Directory)
    }
}

/// The client's tree.
#[derive(Debug)]
pub struct Mirror {
    placed: Numbers,
    by_number: HashMap<u32, Arc<Entry>>,
    at: HashMap<Box<[u8]>, Held>,
    /// Which of the placed are one inode, by the client's number of it.
    inodes: HashMap<u64, Vec<u32>>,
    /// Placed, and taken back since.
    stale: Vec<u32>,
    running: Vec<(u64, Closure)>,
    /// How many paths hide a part, for each toolchain whose jobs came.
    hidden: Vec<(Fingerprint, Arc<Tools>, u32)>,
    bytes: u64,
    conflicts: u32,
    next: u64,
}

impl Default for Mirror {
    fn default() -> Self {
        // The sandbox has made these; they stay.
        let at = [&b"/"[..], b"/proc", b"/dev"].map(|path| (Box::from(path), Held { entry: None, children: 1 }));
        Self {
            placed: Numbers::default(),
            by_number: HashMap::new(),
            at: HashMap::from(at),
            inodes: HashMap::new(),
            stale: Vec::new(),
            running: Vec::new(),
            hidden: Vec::new(),
            bytes: 0,
            conflicts: 0,
            next: 0,
        }
    }
}

const DIRECTORY: Node = Node::Directory;

impl Mirror {
    /// These numbers are no longer true. What lies in a directory that is none any more goes with it: nobody looks there,
    /// so nobody takes it back.
    pub fn gone(&mut self, numbers: &[u32]) {
        let placed = numbers.iter().copied().filter(|number| self.placed.has(*number));
        let placed: Vec<(u32, &Arc<Entry>)> =
            placed.filter_map(|number| Some((number, self.by_number.get(&number)?))).collect();
        let is_directory = |entry: &Entry| entry.node == DIRECTORY;
        let dirs = placed.iter().filter(|(_, entry)| is_directory(entry)).map(|(_, entry)| entry.path.as_bytes());
        let dirs: HashSet<&[u8]> = dirs.collect();
        self.stale.extend(placed.iter().map(|(number, _)| number));
        if !dirs.is_empty() {
            let lies_in_one =
                |path: &[u8]| std::iter::successors(parent(path), |at| parent(at)).any(|at| dirs.contains(at));
            let below = self.by_number.iter().filter(|(_, entry)| lies_in_one(entry.path.as_bytes()));
            self.stale.extend(below.map(|(number, _)| number));
        }
    }

    /// Whether no job runs in it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether so many jobs had to run elsewhere that a fresh one is better.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        self.conflicts >= CONFLICTS_MAX
    }

    /// A job has ended.
    pub fn ended(&mut self, job: u64) {
        self.running.retain(|(running, _)| *running != job);
    }

    /// Decides about a job whose closure has these numbers in ascending order. `gone` are all that were ever taken back;
    /// `keep` says whether some content is here, and keeps it here. What the verdict says is taken for done.
    pub fn admit(
        &mut self,
        job: &Job,
        closure: &Closure,
        gone: &Numbers,
        (fingerprint, tools): (&Fingerprint, &Arc<Tools>),
        keep: &mut dyn FnMut(&Digest) -> bool,
    ) -> Verdict {
        let mut update = Update::default();
        if closure.iter().any(|(number, _)| gone.has(*number)) {
            return Verdict::Strict(Why::Gone, update);
        }
        let mut missing: Vec<&(u32, Arc<Entry>)> =
            closure.iter().filter(|(number, _)| !self.placed.has(*number)).collect();
        self.stale.retain(|number| self.placed.has(*number));
        let replaced = missing.iter().filter_map(|(_, entry)| self.replaced_by(entry));
        if !self.running.is_empty() && self.stale.iter().copied().chain(replaced).any(|number| self.is_read(number)) {
            self.conflicts += 1;
            return Verdict::Strict(Why::Conflict, update);
        }
        for number in std::mem::take(&mut self.stale) {
            self.remove(number, &mut update);
        }
        if let Some(why) = self.refusal(&missing, keep) {
            // An empty one would be no larger.
            let is_hopeless = why != Why::Full || self.by_number.is_empty();
            return if is_hopeless { Verdict::Strict(why, update) } else { Verdict::Fresh(why) };
        }
        missing.sort_unstable_by_key(|(_, entry)| entry.path.as_bytes());
        for (number, entry) in missing {
            if !self.place(*number, entry, &mut update) {
                return Verdict::Fresh(Why::Structure);
            }
        }
        if self.hidden_of(fingerprint, tools) > 0 {
            return Verdict::Strict(Why::Toolchain, update);
        }
        let Some((output_dirs, temp_dirs)) = self.writable(job, tools) else {
            return Verdict::Strict(Why::Outputs, update);
        };
        let job = self.next;
        self.next += 1;
        self.running.push((job, Arc::clone(closure)));
        Verdict::Run(Run { job, update, output_dirs, temp_dirs })
    }

    /// Which number's content goes if this entry is placed. A directory takes nothing away from a directory.
    fn replaced_by(&self, entry: &Entry) -> Option<u32> {
        let (number, there) = self.at.get(entry.path.as_bytes())?.entry.as_ref()?;
        (there.node != DIRECTORY || entry.node != DIRECTORY).then_some(*number)
    }

    fn is_read(&self, number: u32) -> bool {
        let reads = |closure: &Closure| closure.binary_search_by_key(&number, |(number, _)| *number).is_ok();
        self.running.iter().any(|(_, closure)| reads(closure))
    }

    /// Why these cannot be placed, if they cannot.
    fn refusal(&self, missing: &[&(u32, Arc<Entry>)], keep: &mut dyn FnMut(&Digest) -> bool) -> Option<Why> {
        let mut bytes = self.bytes;
        for (_, entry) in missing {
            let Ok(size) = strict::check_entry(entry, None) else { return Some(Why::Odd) };
            bytes = bytes.saturating_add(size);
            if let Node::File(file) = &entry.node
                && !keep(&file.digest)
            {
                return Some(Why::Missing);
            }
        }
        let is_full = bytes > MIRROR_BYTES_MAX || self.at.len() + missing.len() > MIRROR_NODES_MAX;
        is_full.then_some(Why::Full)
    }

    /// Places one entry; `false` if something of another kind is in its way.
    fn place(&mut self, number: u32, entry: &Arc<Entry>, update: &mut Update) -> bool {
        let path = entry.path.as_bytes();
        let is_directory = entry.node == DIRECTORY;
        if let Some(held) = self.at.get_mut(path) {
            if held.is_directory() != is_directory {
                return false;
            }
            match held.entry.replace((number, Arc::clone(entry))) {
                Some((old, was)) => self.forget(old, &was),
                None => self.count_hidden(path, &DIRECTORY, -1),
            }
        } else {
            if !self.add_path(entry) {
                return false;
            }
            self.at.insert(Box::from(path), Held { entry: Some((number, Arc::clone(entry))), children: 0 });
        }
        self.count_hidden(path, &entry.node, 1);
        self.placed.add(number);
        self.by_number.insert(number, Arc::clone(entry));
        let what = match &entry.node {
            // One that led to others was there, and so was one that another number named.
            Node::Directory => What::Directory,
            Node::Symlink { target } => What::Symlink { target: target.clone() },
            Node::File(file) => self.file(number, file),
        };
        update.place.push(Place { path: entry.path.below_root().to_vec(), what, writable: false });
        true
    }

    /// Makes the directories that lead to a new path; `false` if one of them is none.
    fn add_path(&mut self, entry: &Entry) -> bool {
        let mut path = entry.path.as_bytes();
        while let Some(parent) = parent(path) {
            if let Some(held) = self.at.get_mut(parent) {
                held.children += 1;
                return held.is_directory() || {
                    held.children -= 1;
                    false
                };
            }
            self.at.insert(Box::from(parent), Held { entry: None, children: 1 });
            self.count_hidden(parent, &DIRECTORY, 1);
            path = parent;
        }
        true
    }

    /// A file's content, or the name of one that is the same inode on the client.
    fn file(&mut self, number: u32, file: &File) -> What {
        self.bytes = self.bytes.saturating_add(file.size);
        let same = self.inodes.entry(file.inode).or_default();
        let first = same.first().and_then(|first| self.by_number.get(first));
        let link = first.filter(|other| matches!(&other.node, Node::File(is) if is == file));
        let link = link.map(|other| What::HardLink { to: other.path.below_root().to_vec() });
        if link.is_none() {
            // Another file has the inode now.
            same.clear();
        }
        same.push(number);
        link.unwrap_or_else(|| What::File {
            source: layout::blob(&file.digest),
            size: file.size,
            mtime_s: file.mtime_s,
            mtime_ns: file.mtime_ns,
            executable: file.executable,
        })
    }

    /// Takes a number out of all tables but the one by path.
    fn forget(&mut self, number: u32, entry: &Entry) {
        self.placed.remove(number);
        self.by_number.remove(&number);
        self.count_hidden(entry.path.as_bytes(), &entry.node, -1);
        if let Node::File(file) = &entry.node {
            self.bytes = self.bytes.saturating_sub(file.size);
            if let Some(same) = self.inodes.get_mut(&file.inode) {
                same.retain(|other| *other != number);
                if same.is_empty() {
                    self.inodes.remove(&file.inode);
                }
            }
        }
    }

    /// Removes what was taken back, and directories that led to nothing else.
    fn remove(&mut self, number: u32, update: &mut Update) {
        let Some(entry) = self.by_number.get(&number).cloned() else { return };
        self.forget(number, &entry);
        let path = entry.path.as_bytes();
        let Some(held) = self.at.get_mut(path) else { return };
        held.entry = None;
        if held.children > 0 {
            // A directory that leads to others still, until they are removed too.
            self.count_hidden(path, &DIRECTORY, 1);
            return;
        }
        self.at.remove(path);
        update.remove.push(path[1..].to_vec());
        let mut path = path;
        while let Some(parent) = parent(path) {
            let Some(held) = self.at.get_mut(parent) else { return };
            held.children = held.children.saturating_sub(1);
            if held.children > 0 || held.entry.is_some() {
                return;
            }
            self.at.remove(parent);
            self.count_hidden(parent, &DIRECTORY, -1);
            update.remove.push(parent[1..].to_vec());
            path = parent;
        }
    }

    fn count_hidden(&mut self, path: &[u8], node: &Node, by: i32) {
        for (_, tools, hidden) in &mut self.hidden {
            if tools.is_hidden_by(path, node) {
                *hidden = hidden.saturating_add_signed(by);
            }
        }
    }

    /// How many paths hide a part of this toolchain.
    fn hidden_of(&mut self, fingerprint: &Fingerprint, tools: &Arc<Tools>) -> u32 {
        if let Some((.., hidden)) = self.hidden.iter().find(|(known, ..)| known == fingerprint) {
            return *hidden;
        }
        if self.hidden.len() == TOOLCHAINS_MAX {
            return 1;
        }
        let node = |held: &Held| held.entry.as_ref().map_or(DIRECTORY, |(_, entry)| entry.node.clone());
        let hiding = self.at.iter().filter(|(path, held)| tools.has(path) && tools.is_hidden_by(path, &node(held)));
        let hidden = u32::try_from(hiding.count()).unwrap_or(u32::MAX);
        self.hidden.push((*fingerprint, Arc::clone(tools), hidden));
        hidden
    }

    /// Where a job may write: what comes back, and what does not.
    fn writable(&self, job: &Job, tools: &Tools) -> Option<(BTreeSet<AbsPath>, BTreeSet<AbsPath>)> {
        let is_other = |path: &[u8]| tools.is_other(path) || self.at.get(path).is_some_and(|held| !held.is_directory());
        for dir in &job.output_dirs {
            strict::check_writable(dir).ok()?;
            let mut path = Some(dir.as_bytes());
            while let Some(here) = path {
                if is_other(here) {
                    return None;
                }
                path = parent(here);
            }
        }
        let link = match self.node(b"/tmp") {
            Some(Node::Symlink { target }) => Some(target.as_slice()),
            _ => None,
        };
        Some((job.output_dirs.iter().cloned().collect(), strict::temp_dirs(job, link, is_other)))
    }

    /// What the client has at a path.
    #[must_use]
    pub fn node(&self, path: &[u8]) -> Option<&Node> {
        self.at.get(path)?.entry.as_ref().map(|(_, entry)| &entry.node)
    }

    /// Whether a directory is at a path.
    #[must_use]
    pub fn is_directory(&self, path: &[u8]) -> bool {
        self.at.get(path).is_some_and(Held::is_directory)
    }

    /// Whether a path, seen from `cwd`, leads to a file of the closure or the toolchain, through links of either.
    #[must_use]
    pub fn covers(&self, closure: &Closure, tools: &Tools, cwd: &[u8], path: &[u8]) -> bool {
        let is_input = |number: u32| closure.binary_search_by_key(&number, |(number, _)| *number).is_ok();
        // Most paths lead through directories only, and so does what is at a path of the mirror.
        let mut whole: Vec<u8> = Vec::with_capacity(cwd.len() + path.len() + 1);
        let start = if path.starts_with(b"/") { &b""[..] } else { cwd };
        for name in components_of(start).chain(components_of(path)) {
            whole.push(b'/');
            whole.extend_from_slice(name);
        }
        if let Some(Held { entry: Some((number, entry)), .. }) = self.at.get(whole.as_slice())
            && matches!(entry.node, Node::File(_))
        {
            return is_input(*number);
        }
        let mut rest: Vec<&[u8]> = Vec::new();
        let push = |rest: &mut Vec<_>, text| rest.extend(components_of(text).rev());
        push(&mut rest, path);
        if !path.starts_with(b"/") {
            push(&mut rest, cwd);
        }
        let mut here = whole;
        here.clear();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == b".." {
                here.truncate(here.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            let length = here.len();
            here.push(b'/');
            here.extend_from_slice(name);
            let link = match self.at.get(here.as_slice()) {
                // Only what the job could see, had it a root of its own.
                Some(Held { entry: Some((number, entry)), .. }) => match &entry.node {
                    Node::File(_) => return rest.is_empty() && is_input(*number),
                    Node::Symlink { target } if is_input(*number) => Some(target.as_slice()),
                    Node::Symlink { .. } => return false,
                    Node::Directory => None,
                },
                Some(_) => None,
                None => match tools.at.get(here.as_slice()) {
                    Some(Tool::File) => return rest.is_empty(),
                    Some(Tool::Symlink(target)) => Some(target.as_slice()),
                    Some(Tool::Directory) => None,
                    None => return false,
                },
            };
            if let Some(target) = link {
                links += 1;
                if links > LINKS_MAX {
                    return false;
                }
                here.truncate(if target.starts_with(b"/") { 0 } else { length });
                push(&mut rest, target);
            }
        }
        false
    }
}

/// The names of a path that lead somewhere.
fn components_of(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// The directory that a path in normal form lies in.
fn parent(path: &[u8]) -> Option<&[u8]> {
    let cut = path.iter().rposition(|byte| *byte == b'/').filter(|_| path.len() > 1)?;
    Some(&path[..cut.max(1)])
}

#[cfg(test)]
mod tests;
