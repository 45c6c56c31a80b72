//! What the graph remembers of one path, and of the names in one directory (DECIDE).

use super::scan::Scan;
use super::watch::WatchId;
use super::world::{Kind, Stat, Time};
use mesh_proto::digest::Digest;
use mesh_proto::key::Keyed;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// A path without a symbolic link before its last component, by number.
pub(super) type NodeId = u32;
/// The root directory.
pub(super) const ROOT: NodeId = 0;

/// A hasher for keys that are hashes or small numbers already.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0xa076_1d64_78bd_642f) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

/// A map with such keys.
pub(super) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// A name's hash: what listings are looked up by.
pub(super) fn name_hash(name: &[u8]) -> u64 {
    let mut mix = Mix(name.len() as u64);
    for chunk in name.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix.write_u64(u64::from_le_bytes(word));
    }
    mix.finish()
}

/// What is known of one path. A walk comes by thousands: what it looks at of each is in one line of the processor's cache.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Node {
    /// The last arrival that came before the last check; 0 before the first.
    pub(super) checked: u64,
    /// The last arrival that what was read is known to be right for.
    pub(super) proven: u64,
    pub(super) data: Data,
    pub(super) parent: NodeId,
    /// The walk that last entered it in its closure, and the one that last followed it as a source text.
    pub(super) entered: u32,
    pub(super) followed: u32,
    /// `None`: nothing is there. Before the first check: what the directory's listing says.
    pub(super) kind: Option<Kind>,
    /// Its directory's list of those that have or had entries knows it.
    pub(super) is_told: bool,
    pub(super) vouched: Vouched,
    /// A directory of which every name that comes or goes matters to somebody.
    pub(super) is_basis: bool,
    /// The next node with the same key in the table of children.
    pub(super) next: Option<NodeId>,
    pub(super) path: Box<[u8]>,
    /// Before the first check: all zero.
    pub(super) stat: Stat,
    pub(super) entry: Option<Named>,
    /// Its place in the order of paths.
    pub(super) label: u64,
}

/// What watches say of one path. Numbers of epochs: what is of another epoch than the graph's is void, as is zero.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Vouched {
    /// Since when the last check holds until an event says otherwise.
    pub(super) trusted: u32,
    /// Since when it was looked at.
    pub(super) seen: u32,
    /// Since when there is a watch on what is there.
    pub(super) watched: u32,
    /// Since when there can be none.
    pub(super) refused: u32,
    /// That watch.
    pub(super) watch: WatchId,
}

/// An entry and the number that it keeps for as long as nothing about it changes.
#[derive(Debug, Clone)]
pub struct Named {
    /// Never given to another entry by the same graph.
    pub id: u32,
    /// What goes over the wire, and what it adds to a job's key.
    pub entry: Arc<Keyed>,
}

/// What was read of a path.
#[derive(Debug, Default)]
pub(super) enum Data {
    #[default]
    None,
    File(Box<FileData>),
    Dir(Box<DirData>),
    Link(Box<LinkData>),
}

/// A file as it was read.
#[derive(Debug)]
pub(super) struct FileData {
    pub(super) read: Read,
    pub(super) digest: Digest,
    /// `None` for content that was never to be followed.
    pub(super) text: Option<Arc<Text>>,
}

/// A scan with its names as numbers.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) serial: u32,
    pub(super) uses: Box<[(super::scan::Form, NameId)]>,
    pub(super) scan: Scan,
}

/// An operand of includes, by number.
pub(super) type NameId = u32;

/// When something was read, and how it was stamped then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub(super) stat: Stat,
    pub(super) settled: bool,
    /// The last arrival before the reading, or before a check that proved it still good.
    pub(super) good: u64,
}

impl Read {
    pub(super) fn new(stat: Stat, at: Time, good: u64) -> Self {
        Self { stat, settled: stat.is_settled(at), good }
    }

    /// Whether it holds for arrivals up to `tick`, given a stat that was made for it.
    pub(super) fn holds(&mut self, stat: &Stat, checked: u64, tick: u64) -> bool {
        if self.stat != *stat {
            return false;
        }
        if self.settled {
            self.good = self.good.max(checked);
        }
        self.good >= tick
    }
}

/// A directory as it was listed.
#[derive(Debug)]
pub(super) struct DirData {
    pub(super) read: Read,
    pub(super) listing: Listing,
    /// By hash, the names that were asked for, with the answer given.
    pub(super) asked: FastMap<u64, Option<Kind>>,
    /// The epoch of the watch that was in place before it was listed: until that tells of an asked name, the answers hold
    /// whatever the stamps say. Zero if there was none.
    pub(super) guard: u32,
    /// Names came or went that nobody had asked for: the answers hold, the listing does not.
    pub(super) is_behind: bool,
}

/// A link as it was read.
#[derive(Debug)]
pub(super) struct LinkData {
    pub(super) read: Read,
    pub(super) target: Vec<u8>,
    /// Where it led the last time that it was the first link of a path.
    pub(super) led: Option<Led>,
}

/// A link followed to its end.
#[derive(Debug)]
pub(super) struct Led {
    /// The graph's version that it is right for.
    pub(super) version: u64,
    pub(super) end: Option<NodeId>,
    pub(super) trail: Arc<[NodeId]>,
    /// How many links that took.
    pub(super) links: u32,
}

/// A directory's names and kinds in a flat hash table: built in one go, never changed.
#[derive(Debug, Default)]
pub(super) struct Listing {
    bytes: Vec<u8>,
    names: Vec<ListedName>,
    /// Index into `names` plus one, by hash; a power of two of them.
    slots: Box<[u32]>,
    /// A precompiled header is among the names.
    pub(super) has_pch: bool,
}

#[derive(Debug, Clone, Copy)]
struct ListedName {
    hash: u64,
    start: u32,
    length: u16,
    kind: Kind,
}

impl Listing {
    pub(super) fn push(&mut self, name: &[u8], kind: Kind) {
        let start = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(name);
        self.names.push(ListedName { hash: name_hash(name), start, length, kind });
        self.has_pch |= name.ends_with(b".gch") || name.ends_with(b".pch");
    }

    pub(super) fn finish(&mut self) {
        let size = (self.names.len() * 2).next_power_of_two();
        self.slots = vec![0; size].into();
        for (index, name) in self.names.iter().enumerate() {
            let mut slot = name.hash as usize & (size - 1);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            self.slots[slot] = index as u32 + 1;
        }
    }

    fn find(&self, hash: u64, same: impl Fn(&ListedName) -> bool) -> Option<Kind> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != 0 {
            let name = &self.names[self.slots[slot] as usize - 1];
            if name.hash == hash && same(name) {
                return Some(name.kind);
            }
            slot = (slot + 1) & mask;
        }
        None
    }

    pub(super) fn kind(&self, hash: u64, name: &[u8]) -> Option<Kind> {
        self.find(hash, |listed| {
            let start = listed.start as usize;
            self.bytes.get(start..start + usize::from(listed.length)) == Some(name)
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.iter().map(|name| &self.bytes[name.start as usize..name.start as usize + usize::from(name.length)])
    }

    /// The kind of whatever has this hash: good enough to notice changes by.
    pub(super) fn kind_by_hash(&self, hash: u64) -> Option<Kind> {
        self.find(hash, |_| true)
    }

    /// A digest of all names and kinds, whatever their order in the directory.
    pub(super) fn fingerprint(&self) -> u64 {
        self.names.iter().fold(self.names.len() as u64, |sum, name| {
            let mut mix = Mix(name.hash);
            mix.write_u8(name.kind as u8);
            sum.wrapping_add(mix.finish())
        })
    }
}

impl Stat {
    /// The stat of what was never looked at.
    pub(super) const UNKNOWN: Self = Self {
        kind: Kind::Other,
        dev: 0,
        ino: 0,
        size: 0,
        mode: 0,
        mtime: Time { s: 0, ns: 0 },
        ctime: Time { s: 0, ns: 0 },
    };

    /// One number for (device, inode): exact on one device, and over several but for a chance of two to the minus 64.
    pub(super) fn identity(&self) -> u64 {
        let mut mix = Mix(0);
        mix.write_u64(self.dev);
        self.ino ^ mix.finish()
    }
}
