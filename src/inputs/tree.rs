//! Paths and what is there: checks, listings, contents, links, entries (DO).

use super::node::{
    Data, DirData, FastMap, FileData, Led, LinkData, Listing, Named, Node, NodeId, ROOT, Read, Text, Vouched, name_hash,
};
use super::scan;
use super::world::{Kind, Stat};
use super::{Closure, Graph, Undecidable};
use crate::reason::Reason;
use mesh_proto::closure::{Entry, File, Node as WireNode};
use mesh_proto::digest::Digest;
use mesh_proto::key::Keyed;
use mesh_proto::limits;
use mesh_proto::path::AbsPath;
use rustix::io::Errno;
use std::ops::Bound;
use std::sync::Arc;

/// Links followed for one path, as Linux has it.
const LINKS_MAX: u32 = 40;
/// How often something that changes under the reader is read before giving up.
const READS_MAX: u32 = 2;
/// The same for directories, which change with every object that is written into them.
const LISTINGS_MAX: u32 = 8;
/// The step between two places in the order of paths when they are dealt anew.
const LABEL_STEP: u64 = 1 << 32;

/// What is kept of the buffer that files are read into, bytes.
const BUFFER_BYTES_MAX: usize = 1 << 20;

type Done<T = ()> = Result<T, Undecidable>;

impl Node {
    pub(super) fn new(parent: NodeId, path: Box<[u8]>, kind: Option<Kind>) -> Self {
        Self {
            parent,
            next: None,
            path,
            kind,
            stat: Stat::UNKNOWN,
            checked: 0,
            proven: 0,
            entered: 0,
            followed: 0,
            data: Data::None,
            entry: None,
            label: 0,
            vouched: Vouched::default(),
            is_told: false,
            is_basis: false,
        }
    }

    /// The last component.
    pub(super) fn name(&self) -> &[u8] {
        let cut = memchr::memrchr(b'/', &self.path).map_or(0, |at| at + 1);
        &self.path[cut..]
    }
}

fn child_key(dir: NodeId, name: &[u8]) -> u64 {
    name_hash(name) ^ (u64::from(dir) << 32 | u64::from(dir))
}

/// Where a path led.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// The last component, a link itself if it is one.
    pub(super) leaf: NodeId,
    /// What is behind it.
    pub(super) end: NodeId,
}

impl Graph {
    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    pub(super) fn kind(&self, id: NodeId) -> Option<Kind> {
        self.node(id).kind
    }

    /// The node of a name in a directory, if there is one.
    pub(super) fn known_child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        let mut at = self.children.get(&child_key(dir, name)).copied();
        while let Some(id) = at {
            let node = self.node(id);
            if node.parent == dir && node.name() == name {
                break;
            }
            at = node.next;
        }
        at
    }

    /// The node of a name in a directory; `kind` is what is believed if it is new.
    pub(super) fn child(&mut self, dir: NodeId, name: &[u8], kind: Option<Kind>) -> NodeId {
        if let Some(id) = self.known_child(dir, name) {
            return id;
        }
        let key = child_key(dir, name);
        let first = self.children.get(&key).copied();
        let parent = &self.node(dir).path;
        let mut path = Vec::with_capacity(parent.len() + name.len() + 1);
        path.extend_from_slice(parent);
        if dir != ROOT {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let id = self.nodes.len() as NodeId;
        let mut node = Node::new(dir, path.into(), kind);
        node.next = first;
        self.nodes.push(node);
        self.children.insert(key, id);
        id
    }

    /// Makes sure that what is known of a path was looked at after the request arrived.
    pub(super) fn check(&mut self, id: NodeId) -> Done {
        let node = &mut self.nodes[id as usize];
        if node.checked >= self.tick && node.checked > 0 {
            return Ok(());
        }
        if let Some(drained) = self.watches.vouches(node.vouched.trusted).filter(|drained| *drained >= self.tick) {
            node.checked = drained;
            return Ok(());
        }
        let guard = self.hold(id);
        let (now, seen) = (self.world.now(), self.arrivals.last());
        let stat = match self.world.stat(&self.node(id).path) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(_) => return Err(Reason::Unreadable.into()),
        };
        self.learn(id, stat, seen)?;
        self.trust(id, guard, now);
        Ok(())
    }

    fn learn(&mut self, id: NodeId, stat: Option<Stat>, seen: u64) -> Done {
        let tick = self.tick;
        let node = self.node_mut(id);
        let (is_first, kind_before) = (node.checked == 0, node.kind);
        node.checked = seen.max(1);
        node.kind = stat.map(|stat| stat.kind);
        node.stat = stat.unwrap_or(Stat::UNKNOWN);
        if node.kind != kind_before {
            node.data = Data::None;
            node.vouched.trusted = 0;
            self.retire(id);
            if kind_before == Some(Kind::Dir) {
                self.retire_below(id);
            }
            // Of a name never looked at before, nobody has been told anything, unless a listing told it.
            if !is_first || kind_before.is_some() {
                self.version += 1;
            }
        }
        let node = self.node_mut(id);
        if let (Some(stat), Some(Kind::Link)) = (stat, node.kind) {
            let is_read = match &mut node.data {
                Data::Link(link) => link.read.holds(&stat, seen, tick),
                _ => false,
            };
            if !is_read {
                self.read_link(id, stat)?;
            }
        }
        Ok(())
    }

    fn read_link(&mut self, id: NodeId, stat: Stat) -> Done {
        let (now, good) = (self.world.now(), self.arrivals.last());
        let target = self.world.readlink(&self.node(id).path).map_err(|_| Reason::Changing)?;
        let node = self.node_mut(id);
        let read = Read::new(stat, now, good);
        let is_other = matches!(&node.data, Data::Link(link) if link.target != target);
        node.data = Data::Link(Box::new(LinkData { read, target, led: None }));
        if is_other {
            self.retire(id);
            self.version += 1;
        }
        Ok(())
    }

    /// Makes sure that a directory's names are known as of after the request's arrival. It must have been checked.
    pub(super) fn list(&mut self, id: NodeId) -> Done {
        if self.is_proven(id) && matches!(self.node(id).data, Data::Dir(_)) {
            return Ok(());
        }
        self.check(id)?;
        let (tick, guard) = (self.tick, self.guard(id));
        let node = self.node_mut(id);
        if node.kind != Some(Kind::Dir) {
            return Err(Reason::Changing.into());
        }
        let (stat, checked) = (&node.stat, node.checked);
        if let Data::Dir(dir) = &mut node.data {
            if guard != 0 && dir.guard == guard {
                dir.read.good = dir.read.good.max(checked);
            } else if !dir.read.holds(stat, checked, tick) {
                return self.list_anew(id);
            }
            node.proven = dir.read.good;
            return Ok(());
        }
        self.list_anew(id)
    }

    /// The same with every name, not only those that were asked for before.
    pub(super) fn list_whole(&mut self, id: NodeId) -> Done {
        self.list(id)?;
        match &self.node(id).data {
            Data::Dir(dir) if dir.is_behind => self.list_anew(id),
            _ => Ok(()),
        }
    }

    fn list_anew(&mut self, id: NodeId) -> Done {
        let guard = self.guard(id);
        let (listing, read) = self.read_dir(id)?;
        let node = self.node_mut(id);
        node.stat = read.stat;
        node.checked = node.checked.max(read.good);
        node.proven = read.good;
        let mut asked = FastMap::default();
        let mut is_other = false;
        if let Data::Dir(before) = std::mem::take(&mut node.data) {
            is_other = listing.has_pch != before.listing.has_pch
                || (listing.has_pch && listing.fingerprint() != before.listing.fingerprint());
            asked = before.asked;
            for (hash, answer) in &mut asked {
                let kind = listing.kind_by_hash(*hash);
                is_other |= kind != *answer;
                *answer = kind;
            }
        }
        let data = DirData { read, listing, asked, guard, is_behind: false };
        self.node_mut(id).data = Data::Dir(Box::new(data));
        if is_other {
            self.version += 1;
        }
        self.compare_told(id);
        Ok(())
    }

    fn read_dir(&self, id: NodeId) -> Done<(Listing, Read)> {
        let path = &self.node(id).path;
        for _ in 0..LISTINGS_MAX {
            let (now, good) = (self.world.now(), self.arrivals.last());
            let mut listing = Listing::default();
            let mut unknown = Vec::new();
            let (before, after) = self
                .world
                .list(path, &mut |name, kind| match kind {
                    Some(kind) => listing.push(name, kind),
                    None => unknown.push(name.to_vec()),
                })
                .map_err(|error| match error {
                    Errno::ACCESS | Errno::PERM => Reason::Unreadable,
                    _ => Reason::Changing,
                })?;
            for name in unknown {
                let child = [path, &b"/"[..], &name].concat();
                match self.world.stat(&child) {
                    Ok(stat) => listing.push(&name, stat.kind),
                    Err(Errno::NOENT) => {}
                    Err(_) => return Err(Reason::Unreadable.into()),
                }
            }
            if before == after {
                listing.finish();
                return Ok((listing, Read::new(before, now, good.max(1))));
            }
        }
        Err(Reason::Changing.into())
    }

    /// What a listed directory has under a name. Remembers that it was asked.
    pub(super) fn listed(&mut self, dir: NodeId, hash: u64, name: &[u8]) -> Done<Option<Kind>> {
        if let Data::Dir(data) = &self.node(dir).data
            && data.is_behind
            && !data.asked.contains_key(&hash)
        {
            self.list_anew(dir)?;
        }
        let Data::Dir(data) = &mut self.node_mut(dir).data else { return Ok(None) };
        let kind = data.listing.kind(hash, name);
        data.asked.insert(hash, kind);
        Ok(kind)
    }

    /// The names in a listed directory that are wanted.
    pub(super) fn names_in(&self, dir: NodeId, is_wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let Data::Dir(data) = &self.node(dir).data else { return Vec::new() };
        data.listing.names().filter(|name| is_wanted(name)).map(<[u8]>::to_vec).collect()
    }

    /// Whether a listed directory holds a precompiled header.
    pub(super) fn has_pch(&self, dir: NodeId) -> bool {
        matches!(&self.node(dir).data, Data::Dir(data) if data.listing.has_pch)
    }

    /// Follows a path from a directory by looking at each component. All that was looked at is added to `trail`, what
    /// is not there too.
    pub(super) fn resolve(&mut self, base: NodeId, path: &[u8], trail: &mut Vec<NodeId>) -> Done<Option<Found>> {
        self.resolve_within(base, path, trail, &mut 0)
    }

    fn resolve_within(
        &mut self,
        base: NodeId,
        path: &[u8],
        trail: &mut Vec<NodeId>,
        links: &mut u32,
    ) -> Done<Option<Found>> {
        let start = if path.first() == Some(&b'/') { ROOT } else { base };
        let mut at = Found { leaf: start, end: start };
        if path.is_empty() || path.contains(&0) {
            return Ok(None);
        }
        for component in path.split(|byte| *byte == b'/') {
            if self.kind(at.end) != Some(Kind::Dir) {
                return Ok(None);
            }
            match component {
                b"" | b"." => {}
                b".." => {
                    let parent = self.node(at.end).parent;
                    at = Found { leaf: parent, end: parent };
                }
                name if name.len() > limits::COMPONENT_BYTES_MAX => return Ok(None),
                name => {
                    let leaf = self.child(at.end, name, None);
                    self.check(leaf)?;
                    trail.push(leaf);
                    let Some(end) = self.follow(leaf, trail, links)? else { return Ok(None) };
                    at = Found { leaf, end };
                }
            }
        }
        Ok(Some(at))
    }

    /// What is behind a checked node: itself, unless it is a link.
    pub(super) fn follow(&mut self, leaf: NodeId, trail: &mut Vec<NodeId>, links: &mut u32) -> Done<Option<NodeId>> {
        match self.kind(leaf) {
            None => Ok(None),
            Some(Kind::Link) if *links == 0 => self.follow_first(leaf, trail, links),
            Some(Kind::Link) => self.follow_link(leaf, trail, links),
            Some(_) => Ok(Some(leaf)),
        }
    }

    /// Follows a path's first link, by memory if nothing on its way changed: whole trees may be made of links.
    fn follow_first(&mut self, leaf: NodeId, trail: &mut Vec<NodeId>, links: &mut u32) -> Done<Option<NodeId>> {
        let version = self.version;
        if let Data::Link(link) = &self.node(leaf).data
            && let Some(led) = link.led.as_ref().filter(|led| led.version == version)
        {
            let (end, way, count) = (led.end, Arc::clone(&led.trail), led.links);
            way.iter().try_for_each(|id| self.check(*id))?;
            if self.version == version {
                trail.extend_from_slice(&way);
                *links += count;
                return Ok(end);
            }
        }
        let (version, start) = (self.version, trail.len());
        let end = self.follow_link(leaf, trail, links)?;
        let way = trail[start..].into();
        if let Data::Link(link) = &mut self.node_mut(leaf).data {
            link.led = Some(Led { version, end, trail: way, links: *links });
        }
        Ok(end)
    }

    fn follow_link(&mut self, leaf: NodeId, trail: &mut Vec<NodeId>, links: &mut u32) -> Done<Option<NodeId>> {
        *links += 1;
        if *links > LINKS_MAX {
            return Ok(None);
        }
        let Data::Link(link) = &self.node(leaf).data else { return Err(Reason::Changing.into()) };
        let target = link.target.clone();
        let parent = self.node(leaf).parent;
        Ok(self.resolve_within(parent, &target, trail, links)?.map(|found| found.end))
    }

    /// Whether what was read of a path is known to be right for the request without looking further.
    fn is_proven(&self, id: NodeId) -> bool {
        let node = self.node(id);
        node.proven >= self.tick && node.proven > 0
    }

    /// Makes sure that a file's content is known as of after the request's arrival, scanned if `follow`.
    pub(super) fn load(&mut self, id: NodeId, follow: bool) -> Done {
        let is_proven = self.is_proven(id);
        if !is_proven {
            self.check(id)?;
        }
        let tick = self.tick;
        let node = self.node_mut(id);
        if node.kind != Some(Kind::File) {
            return Err(Reason::Changing.into());
        }
        let (stat, checked) = (&node.stat, node.checked);
        if let Data::File(file) = &mut node.data
            && (is_proven || file.read.holds(stat, checked, tick))
            && (file.text.is_some() || !follow)
        {
            node.proven = file.read.good;
            return Ok(());
        }
        self.read_file(id, follow)
    }

    fn read_file(&mut self, id: NodeId, follow: bool) -> Done {
        if let Some((digest, scan)) = self.recall_content(id, follow) {
            let (stat, good) = (self.node(id).stat, self.node(id).checked);
            let text = scan.map(|scan| self.text(scan));
            self.keep_content(id, FileData { read: Read { stat, settled: true, good }, digest, text });
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.buffer);
        let read = self.read_content(id, &mut bytes);
        let done = read.map(|read| {
            let file = self.take_in(id, read, &bytes, follow);
            self.keep_content(id, file);
        });
        bytes.clear();
        bytes.shrink_to(BUFFER_BYTES_MAX);
        self.buffer = bytes;
        done
    }

    fn read_content(&self, id: NodeId, bytes: &mut Vec<u8>) -> Done<Read> {
        for _ in 0..READS_MAX {
            let (now, good) = (self.world.now(), self.arrivals.last());
            bytes.clear();
            let stats = self.world.read(&self.node(id).path, limits::BLOB_BYTES_MAX, bytes);
            let (before, after) = stats.map_err(|error| match error {
                Errno::NOENT | Errno::LOOP | Errno::NOTDIR => Reason::Changing,
                _ => Reason::Unreadable,
            })?;
            if before.kind != Kind::File {
                return Err(Reason::Changing.into());
            }
            if bytes.len() as u64 > limits::BLOB_BYTES_MAX {
                return Err(Reason::TooLarge.into());
            }
            if before == after && before.size == bytes.len() as u64 {
                return Ok(Read::new(before, now, good.max(1)));
            }
        }
        Err(Reason::Changing.into())
    }

    fn take_in(&mut self, id: NodeId, read: Read, bytes: &[u8], follow: bool) -> FileData {
        let digest = Digest::of(bytes);
        let path = &self.node(id).path;
        let is_asm = [&b".S"[..], b".s", b".sx", b".asm", b".inc"].iter().any(|end| path.ends_with(end));
        let kept = match &mut self.node_mut(id).data {
            Data::File(before) if before.digest == digest => before.text.take(),
            _ => None,
        };
        let text = match kept {
            Some(text) => Some(text),
            None if follow => Some(self.text(scan::scan(bytes, is_asm))),
            None => None,
        };
        FileData { read, digest, text }
    }

    fn keep_content(&mut self, id: NodeId, file: FileData) {
        let is_same = matches!(&self.node(id).data,
            Data::File(before) if before.digest == file.digest && before.read.stat == file.read.stat);
        if !is_same {
            self.retire(id);
        }
        let node = self.node_mut(id);
        node.stat = file.read.stat;
        node.checked = node.checked.max(file.read.good);
        node.proven = file.read.good;
        node.data = Data::File(Box::new(file));
    }

    fn text(&mut self, mut scan: scan::Scan) -> Arc<Text> {
        let uses = std::mem::take(&mut scan.uses);
        let uses = uses.into_iter().map(|(form, name)| (form, self.name(&name))).collect();
        self.next_text += 1;
        Arc::new(Text { serial: self.next_text, uses, scan })
    }

    /// Gives a checked node its entry; `None` for what is not there, and for what no entry can describe.
    pub(super) fn enter(&mut self, id: NodeId) -> Done<Option<&Named>> {
        let node = self.node(id);
        if node.entry.is_none() {
            let wire = match (&node.kind, &node.data) {
                (Some(Kind::Dir), _) => WireNode::Directory,
                (Some(Kind::Link), Data::Link(link)) => WireNode::Symlink { target: link.target.clone() },
                (Some(Kind::File), Data::File(file)) => WireNode::File(File {
                    digest: file.digest,
                    size: file.read.stat.size,
                    mtime_s: file.read.stat.mtime.s,
                    mtime_ns: file.read.stat.mtime.ns,
                    executable: file.read.stat.mode & 0o111 != 0,
                    inode: file.read.stat.identity(),
                }),
                _ => return Ok(None),
            };
            let path = AbsPath::new(&node.path[..]).map_err(|_| Reason::TooLarge)?;
            let entry = Arc::new(Keyed::new(Entry { path, node: wire }));
            self.next_entry += 1;
            let named = Named { id: self.next_entry, entry };
            if self.node(id).label == 0 {
                self.place(id);
            }
            self.node_mut(id).entry = Some(named);
            self.note_told(id);
        }
        Ok(self.node(id).entry.as_ref())
    }

    /// Finds a path's place in the order of all paths, as a number, so that closures are sorted by numbers.
    fn place(&mut self, id: NodeId) {
        let path = self.node(id).path.clone();
        let bounds = |from, to| (from, to);
        let before = self.order.range::<[u8], _>(bounds(Bound::Unbounded, Bound::Excluded(&path[..]))).next_back();
        let below = before.map_or(0, |(_, id)| self.node(*id).label);
        let after = self.order.range::<[u8], _>(bounds(Bound::Excluded(&path[..]), Bound::Unbounded)).next();
        let above = after.map_or(below.saturating_add(2 * LABEL_STEP), |(_, id)| self.node(*id).label);
        self.order.insert(path, id);
        if above - below >= 2 {
            self.node_mut(id).label = below + (above - below) / 2;
            return;
        }
        let ids: Vec<NodeId> = self.order.values().copied().collect();
        for (index, id) in ids.into_iter().enumerate() {
            self.node_mut(id).label = (index as u64 + 1) * LABEL_STEP;
        }
    }

    /// Whether everything that a closure holds, and every directory it searched, is as it was.
    pub(super) fn recheck(&mut self, closure: &Closure) -> bool {
        let version = self.version;
        if closure.absent.iter().any(|id| self.check(*id).is_err()) {
            return false;
        }
        for (id, named) in closure.nodes.iter().zip(closure.entries.iter()) {
            let done = match self.kind(*id) {
                Some(Kind::File) => self.load(*id, false),
                Some(Kind::Dir) if matches!(self.node(*id).data, Data::Dir(_)) => self.list(*id),
                _ => self.check(*id),
            };
            let is_same = self.node(*id).entry.as_ref().is_some_and(|now| now.id == named.id);
            if done.is_err() || !is_same || self.version != version {
                return false;
            }
        }
        self.version == version
    }
}
