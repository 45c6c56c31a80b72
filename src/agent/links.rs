//! The connections that stand, one a peer (DO).

use super::link::Link;
use mesh_proto::{limits, peer::PeerId, toolchain::Fingerprint};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// All links.
#[derive(Debug, Default)]
pub struct Links {
    by_peer: Mutex<BTreeMap<PeerId, Arc<Link>>>,
    next_id: AtomicU64,
    /// The link on which a file was named first, by the file's number in the include graph.
    holders: Mutex<HashMap<u32, u64>>,
}

/// Files by the link that holds them, by their numbers on another link.
pub type HeldFiles = Vec<(Arc<Link>, Vec<u32>)>;

/// Files that one peer was told of before all others: they are had from it, unless its job comes to nothing.
#[derive(Debug)]
pub struct Claimed<'a> {
    links: &'a Links,
    link: u64,
    files: Vec<u32>,
}

impl Claimed<'_> {
    /// The peer has taken the job: it has the files, or asks for them.
    pub fn keep(&mut self) {
        self.files.clear();
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        if !self.files.is_empty() {
            let mut holders = self.links.holders.lock().expect("no panic while held");
            self.files.iter().for_each(|file| {
                if holders.get(file) == Some(&self.link) {
                    holders.remove(file);
                }
            });
        }
    }
}

impl Links {
    /// A number for a new link.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Which links hold these files, given as numbers in the include graph and on `link`, which is told of them now. Where
    /// there is none that stands, it is `link` from now on.
    pub fn hold_files(&self, link: &Link, files: &[(u32, u32)]) -> (Claimed<'_>, HeldFiles) {
        let mut claimed = Claimed { links: self, link: link.id, files: Vec::new() };
        let mut held = HeldFiles::new();
        if files.is_empty() {
            return (claimed, held);
        }
        let standing = self.all();
        let mut holders = self.holders.lock().expect("no panic while held");
        if holders.len() + files.len() > limits::NAMES_MAX {
            holders.clear();
        }
        for &(file, number) in files {
            let holder = holders.get(&file).and_then(|id| standing.iter().find(|l| l.id == *id));
            match holder.filter(|holder| holder.id != link.id) {
                Some(holder) => match held.iter_mut().find(|(l, _)| l.id == holder.id) {
                    Some((_, numbers)) => numbers.push(number),
                    None => held.push((holder.clone(), vec![number])),
                },
                None => {
                    holders.insert(file, link.id);
                    claimed.files.push(file);
                }
            }
        }
        drop(holders);
        (claimed, held)
    }

    /// Puts a link in place of whatever there was for its peer.
    pub fn insert(&self, link: Arc<Link>) {
        self.lock().insert(link.peer, link);
    }

    /// Takes a link out, if it is still the one for its peer; says whether it was.
    pub fn remove(&self, link: &Link) -> bool {
        let mut links = self.lock();
        let stood = links.get(&link.peer).is_some_and(|l| l.id == link.id);
        if stood {
            links.remove(&link.peer);
        }
        drop(links);
        stood
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

    /// Those whose peer has a compiler and can run it.
    #[must_use]
    pub fn matching(&self, toolchain: &Fingerprint) -> Vec<Arc<Link>> {
        let now = std::time::Instant::now();
        let may = |link: &&Arc<Link>| link.has(toolchain) && !link.shipments.is_quarantined(toolchain, now);
        self.lock().values().filter(may).cloned().collect()
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

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PeerId, Arc<Link>>> {
        self.by_peer.lock().expect("no panic while held")
    }
}
