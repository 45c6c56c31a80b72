//! The connections that stand, one a peer (DO).

use super::link::Link;
use mesh_proto::{peer::PeerId, toolchain::Fingerprint};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// All links. A wait on [`Links::changed`] ends when a link comes or goes, a peer's load changes or a job of ours ends.
#[derive(Debug, Default)]
pub struct Links {
    by_peer: Mutex<BTreeMap<PeerId, Arc<Link>>>,
    changed: Notify,
    next_id: AtomicU64,
}

impl Links {
    /// A number for a new link.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts a link in place of whatever there was for its peer.
    pub fn insert(&self, link: Arc<Link>) {
        self.lock().insert(link.peer, link);
        self.wake();
    }

    /// Takes a link out, if it is still the one for its peer.
    pub fn remove(&self, link: &Link) {
        let mut links = self.lock();
        if links.get(&link.peer).is_some_and(|l| l.id == link.id) {
            links.remove(&link.peer);
        }
        drop(links);
        self.wake();
    }

    /// All of them, by id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Link>> {
        self.lock().values().cloned().collect()
    }

    /// The one to a peer.
    #[must_use]
    pub fn get(&self, peer: PeerId) -> Option<Arc<Link>> {
        self.lock().get(&peer).cloned()
    }

    /// Those whose peer has a compiler.
    #[must_use]
    pub fn matching(&self, toolchain: &Fingerprint) -> Vec<Arc<Link>> {
        self.lock().values().filter(|l| l.has(toolchain)).cloned().collect()
    }

    /// The peer of this name, or whose id begins so.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<PeerId> {
        /// Fewer characters of an id name nobody.
        const PREFIX_MIN: usize = 6;
        let links = self.lock();
        let by_name = links.values().find(|l| l.name() == name);
        let plain = name.replace('-', "");
        let by_id = || {
            let begins = |l: &&Arc<Link>| l.peer.text().replace('-', "").starts_with(&plain);
            if plain.len() < PREFIX_MIN { None } else { links.values().find(begins) }
        };
        by_name.or_else(by_id).map(|l| l.peer)
    }

    /// Ends at the next change after this call.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        let mut notified = Box::pin(self.changed.notified());
        // Registered now, so that nothing between this call and the wait is missed.
        notified.as_mut().enable();
        notified
    }

    /// Something that a choice looks at has changed.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PeerId, Arc<Link>>> {
        self.by_peer.lock().expect("no panic while held")
    }
}
