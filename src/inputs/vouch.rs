//! What need not be looked at because a watch would have told of its change (DO).
//!
//! The truth is always `stat`; a watch only excuses it. A path is *trusted* from a check on that was made with watches in
//! place on everything that decides it: each directory on its way (a path here has no link before its last component),
//! and what is there itself, if it is a file or a directory. An event about any of that ends the trust in what it names;
//! one that could concern all that lies below (a directory moved or gone, its attributes changed, a mount, events lost)
//! ends the whole epoch, and everything is looked at and watched anew.
//!
//! A file is trusted only if it was quiet when last seen, since writes through a mapping make no event. Directories cannot
//! be mapped: their names come and go by calls that all make events, so those need not be quiet. That matters: objects
//! are written into working directories all the time, and names that nobody asked for change no answer.
//!
//! Known to be missed: a mapping left open for long and then written to, and what a file system stacked upon this one (an
//! overlay over its upper directory) writes to files that are compiled from below it.

use super::node::{Data, NodeId, ROOT, name_hash};
use super::watch::{Event, WatchId, Watcher};
use super::world::{Kind, Stat, Time};
use super::{Graph, Tick};
use std::collections::HashMap;

/// Watches of one graph, for as much as half of what the system allows one user. About one kilobyte each, in the kernel.
const WATCHES_MAX: usize = 1 << 16;
/// Watches added in one call: three microseconds each.
const WATCHES_PER_CALL_MAX: usize = 1024;
/// Calls after which, when there is no room for more, all watches are dropped: they may be of what nobody asks for now.
const CALLS_FULL_MAX: u32 = 10_000;
/// Devices remembered.
const DEVICES_MAX: usize = 64;

/// All watches of a graph.
#[derive(Debug, Default)]
pub(super) struct Watches {
    watcher: Option<Box<dyn Watcher>>,
    is_tried: bool,
    /// Raised whenever nothing is known to be watched any more. Zero before the first watch.
    epoch: u32,
    by_id: HashMap<WatchId, NodeId>,
    /// Whether a device's changes are all made by this machine.
    devices: HashMap<u64, bool>,
    /// The last arrival that came before the last look at the events.
    drained: u64,
    budget: usize,
    is_full: bool,
    calls_full: u32,
}

impl Watches {
    /// Watches nothing any more.
    pub(super) fn drop_all(&mut self) {
        *self = Self { epoch: self.epoch + 1, ..Self::default() };
    }

    fn distrust(&mut self) {
        self.epoch += 1;
        self.devices.clear();
    }

    /// The arrival up to which what is trusted counts; `None` if that is nothing.
    pub(super) fn vouches(&self, trusted: u32) -> Option<u64> {
        (trusted == self.epoch && self.epoch != 0).then_some(self.drained)
    }
}

impl Graph {
    /// Begins a call that counts for a request: takes in what happened, unless that was done since the request arrived.
    pub(super) fn begin_call(&mut self, requested_at: Tick) {
        self.tick = requested_at.0;
        self.watches.budget = WATCHES_PER_CALL_MAX;
        if self.watches.is_full {
            self.watches.calls_full += 1;
            if self.watches.calls_full > CALLS_FULL_MAX {
                self.watches.drop_all();
            }
        }
        if !self.watches.is_tried {
            self.watches.is_tried = true;
            self.watches.watcher = self.world.watcher();
            self.watches.epoch += 1;
        }
        if self.watches.drained >= self.tick {
            return;
        }
        let seen = self.arrivals.last();
        if let Some(mut watcher) = self.watches.watcher.take() {
            watcher.drain(&mut |event| self.hear(event));
            self.watches.watcher = Some(watcher);
            self.watches.drained = seen;
        }
    }

    fn hear(&mut self, event: Event<'_>) {
        match event {
            Event::Lost => self.watches.distrust(),
            Event::Name { watch, name } => {
                if let Some(dir) = self.relying_on(watch) {
                    self.hear_name(dir, name);
                }
            }
            Event::Changed(watch) | Event::Moved(watch) => {
                if let Some(id) = self.relying_on(watch) {
                    self.hear_own(id);
                }
            }
            Event::Ended(watch) => {
                if let Some(id) = self.relying_on(watch) {
                    self.hear_own(id);
                    self.node_mut(id).vouched.watched = 0;
                }
                self.watches.by_id.remove(&watch);
            }
        }
    }

    /// The path that a watch is believed for.
    fn relying_on(&self, watch: WatchId) -> Option<NodeId> {
        let id = *self.watches.by_id.get(&watch)?;
        let vouched = self.node(id).vouched;
        (vouched.watch == watch && vouched.watched == self.watches.epoch).then_some(id)
    }

    fn hear_own(&mut self, id: NodeId) {
        if self.kind(id) == Some(Kind::Dir) {
            // All paths through a directory that moved, or that may not be passed any more, are others now.
            self.watches.distrust();
        } else {
            self.distrust(id);
        }
    }

    fn hear_name(&mut self, dir: NodeId, name: &[u8]) {
        let child = self.known_child(dir, name);
        if let Some(id) = child {
            if self.kind(id) == Some(Kind::Dir) {
                // Below a directory that takes its place, what was not there may be, and no watch told of it. The gone
                // one's own watch tells only when nobody has it open any more.
                return self.watches.distrust();
            }
            self.distrust(id);
            // Something else is there now, which needs a watch of its own.
            let vouched = &mut self.node_mut(id).vouched;
            (vouched.watched, vouched.refused) = (0, 0);
        }
        let is_pch = name.ends_with(b".gch") || name.ends_with(b".pch");
        let is_answered = match &mut self.node_mut(dir).data {
            Data::Dir(data) => {
                data.is_behind = true;
                is_pch || data.listing.has_pch || data.asked.contains_key(&name_hash(name))
            }
            _ => false,
        };
        if child.is_some() || is_answered || self.node(dir).is_basis {
            self.distrust(dir);
        }
    }

    fn distrust(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        node.vouched.trusted = 0;
        if let Data::Dir(dir) = &mut node.data {
            dir.guard = 0;
        }
    }

    /// Makes sure that whatever will happen to a path from now on makes an event. The epoch for [`Graph::trust`], or zero.
    pub(super) fn hold(&mut self, id: NodeId) -> u32 {
        if self.watches.watcher.is_none() {
            return 0;
        }
        let epoch = self.watches.epoch;
        if std::mem::replace(&mut self.node_mut(id).vouched.seen, epoch) != epoch {
            // What is looked at once only is not worth a watch, nor is anything where epochs are as short as that.
            return 0;
        }
        let is_held = self.hold_dir(self.node(id).parent)
            && match self.kind(id) {
                Some(Kind::Dir) => self.hold_dir(id),
                Some(Kind::File) => self.add_watch(id, Kind::File),
                // What is in a link cannot change; it is replaced, as what was not there is, by name.
                Some(Kind::Link) | None => true,
                Some(Kind::Other) => false,
            };
        if is_held { epoch } else { 0 }
    }

    /// The same for a directory and all on its way. From the root on: a directory's watch counts only if whatever
    /// replaced the directory since would have made an event.
    fn hold_dir(&mut self, id: NodeId) -> bool {
        let (node, epoch) = (self.node(id), self.watches.epoch);
        if node.vouched.watched == epoch || node.vouched.refused == epoch {
            return node.vouched.watched == epoch;
        }
        let parent = node.parent;
        if (id != ROOT && !self.hold_dir(parent)) || self.kind(id) != Some(Kind::Dir) {
            let is_refused = self.node(parent).vouched.refused == epoch;
            self.node_mut(id).vouched.refused = if is_refused { epoch } else { 0 };
            return false;
        }
        if !self.add_watch(id, Kind::Dir) {
            return false;
        }
        // After the watch: another file system mounted here until now is seen, a later one ends the epoch.
        let stat = self.world.stat(&self.node(id).path);
        let is_good = stat.is_ok_and(|stat| stat.kind == Kind::Dir && self.is_local(id, &stat));
        if !is_good {
            let vouched = &mut self.node_mut(id).vouched;
            (vouched.watched, vouched.refused) = (0, epoch);
        }
        is_good
    }

    /// Watches what is at a path, if it is not yet.
    fn add_watch(&mut self, id: NodeId, kind: Kind) -> bool {
        let epoch = self.watches.epoch;
        let vouched = self.node(id).vouched;
        if vouched.watched == epoch || vouched.refused == epoch {
            return vouched.watched == epoch;
        }
        let watches = &mut self.watches;
        let Some(watcher) = &mut watches.watcher else { return false };
        watches.is_full |= watches.by_id.len() >= watcher.watches_max().min(WATCHES_MAX);
        if watches.is_full || watches.budget == 0 {
            return false;
        }
        watches.budget -= 1;
        let watch = match watcher.watch(&self.nodes[id as usize].path, kind) {
            Ok(watch) => watch,
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::NOMEM) => {
                watches.is_full = true;
                return false;
            }
            Err(_) => {
                self.node_mut(id).vouched.refused = epoch;
                return false;
            }
        };
        if self.relying_on(watch).is_some_and(|other| other != id) {
            // One inode under two names: its events are told for the first of them only.
            self.node_mut(id).vouched.refused = epoch;
            return false;
        }
        self.watches.by_id.insert(watch, id);
        let vouched = &mut self.node_mut(id).vouched;
        (vouched.watch, vouched.watched) = (watch, epoch);
        true
    }

    fn is_local(&mut self, id: NodeId, stat: &Stat) -> bool {
        let watches = &mut self.watches;
        if let Some(is_local) = watches.devices.get(&stat.dev) {
            return *is_local;
        }
        let path = &self.nodes[id as usize].path;
        let is_local = watches.watcher.as_ref().is_some_and(|watcher| watcher.is_local(path));
        if watches.devices.len() >= DEVICES_MAX {
            watches.devices.clear();
        }
        watches.devices.insert(stat.dev, is_local);
        is_local
    }

    /// Trusts a check, made at `seen` while [`Graph::hold`] had given `guard`.
    pub(super) fn trust(&mut self, id: NodeId, guard: u32, seen: Time) {
        if guard == 0 || guard != self.watches.epoch {
            return;
        }
        let node = self.node(id);
        let (stat, is_watched) = (node.stat, node.vouched.watched == guard);
        let is_good = match node.kind {
            None | Some(Kind::Link) => true,
            Some(Kind::Dir) => is_watched,
            Some(Kind::File) => is_watched && stat.is_quiet(seen) && self.is_local(id, &stat),
            Some(Kind::Other) => false,
        };
        if is_good {
            self.node_mut(id).vouched.trusted = guard;
        }
    }

    /// The epoch in which a path is trusted; zero if it is not.
    pub(super) fn guard(&self, id: NodeId) -> u32 {
        let trusted = self.node(id).vouched.trusted;
        if self.watches.vouches(trusted).is_some() { trusted } else { 0 }
    }
}
