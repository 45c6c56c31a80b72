//! Entries that are no longer true although nobody asks for their paths any more (DO).
//!
//! A peer may run a job in a tree of everything that it was told, so whatever lies in a directory of a closure and was an
//! entry once must be true or logged as gone when the closure is made. Content alone may be out of date: no unit that
//! has the path in its closure is served with it.

use super::node::{Data, Listing, NodeId, Read, name_hash};
use super::world::Kind;
use super::{Graph, Undecidable};
use mesh_proto::closure::Node as WireNode;

/// What was told of one directory's paths.
#[derive(Debug, Default)]
pub(super) struct Told {
    children: Vec<NodeId>,
    /// The directory as it was when all of them were last looked at one by one, for one that is not listed.
    read: Option<Read>,
    /// One came after that.
    is_new: bool,
}

impl Graph {
    /// A path has an entry.
    pub(super) fn note_told(&mut self, id: NodeId) {
        if self.node(id).is_told {
            return;
        }
        self.node_mut(id).is_told = true;
        let told = self.told.entry(self.node(id).parent).or_default();
        told.children.push(id);
        told.is_new = true;
    }

    /// What was told of a path is no longer so.
    pub(super) fn retire(&mut self, id: NodeId) {
        if let Some(entry) = self.node_mut(id).entry.take() {
            self.retired.push(entry.id);
        }
    }

    /// The same of everything in what was a directory.
    pub(super) fn retire_below(&mut self, id: NodeId) {
        let mut dirs = vec![id];
        while let Some(dir) = dirs.pop() {
            for child in self.told.remove(&dir).unwrap_or_default().children {
                self.node_mut(child).is_told = false;
                self.retire(child);
                dirs.push(child);
            }
        }
    }

    /// Compares what was told of a directory's paths with its listing.
    pub(super) fn compare_told(&mut self, dir: NodeId) {
        let Some(mut told) = self.told.remove(&dir) else { return };
        told.is_new = false;
        let mut gone = Vec::new();
        let mut links = Vec::new();
        let listing = match &self.node(dir).data {
            Data::Dir(data) => &data.listing,
            _ => &Listing::default(),
        };
        for id in &told.children {
            let node = self.node(*id);
            let name = node.name();
            let listed = listing.kind(name_hash(name), name);
            let entered = node.entry.as_ref().map(|named| kind(&named.entry.node));
            if listed.is_none() || listed != entered {
                gone.push(*id);
            } else if listed == Some(Kind::Link) {
                links.push(*id);
            }
        }
        for id in &gone {
            self.node_mut(*id).is_told = false;
            self.retire(*id);
            self.retire_below(*id);
        }
        told.children.retain(|id| self.nodes[*id as usize].is_told);
        self.told.insert(dir, told);
        for id in links {
            // The text may be another under the same name.
            if self.check(id).is_err() {
                self.retire(id);
            }
        }
    }

    /// Makes sure that all that was told of a checked directory's paths is true, or logged.
    pub(super) fn settle_told(&mut self, dir: NodeId) -> Result<(), Undecidable> {
        let Some(told) = self.told.get(&dir) else { return Ok(()) };
        let is_new = told.is_new;
        if matches!(self.node(dir).data, Data::Dir(_)) {
            if is_new {
                self.list_whole(dir)?;
                self.compare_told(dir);
            }
            return self.list(dir);
        }
        let (tick, stat, checked) = (self.tick, self.node(dir).stat, self.node(dir).checked);
        let Some(told) = self.told.get_mut(&dir) else { return Ok(()) };
        if !is_new && told.read.as_mut().is_some_and(|read| read.holds(&stat, checked, tick)) {
            return Ok(());
        }
        let (now, good) = (self.world.now(), checked);
        let Some(mut told) = self.told.remove(&dir) else { return Ok(()) };
        // One that is new may have been looked at before the directory was.
        told.read = (!is_new).then(|| Read::new(stat, now, good));
        told.is_new = false;
        let done = told.children.iter().try_for_each(|id| self.check(*id));
        let nodes = &mut self.nodes;
        told.children.retain(|id| {
            let node = &mut nodes[*id as usize];
            node.is_told = node.entry.is_some();
            node.is_told
        });
        self.told.insert(dir, told);
        done
    }
}

fn kind(node: &WireNode) -> Kind {
    match node {
        WireNode::File(_) => Kind::File,
        WireNode::Directory => Kind::Dir,
        WireNode::Symlink { .. } => Kind::Link,
    }
}
