//! One connection to one peer, as the agent sees it: names, load, what is in flight (DO).

use crate::{
    inputs::{self, Closure},
    net::{self, stream::StreamError},
    sched::choose::Candidate,
};
use mesh_proto::{
    closure::Entry,
    job::Refusal,
    limits,
    message::{Control, Load, Offer},
    naming::{NameBatch, NameError, Namer, Names, NumberSet},
    peer::PeerId,
    toolchain::Fingerprint,
};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// How long an offer waits for the names that it was made with.
const NAMES_WAIT_MAX: Duration = Duration::from_secs(30);
/// Control messages that wait to be sent. What does not fit is dropped: loads are sent again on change.
pub(super) const CONTROL_QUEUE: usize = 64;

/// A standing connection to a peer.
#[derive(Debug)]
pub struct Link {
    /// Distinguishes connections to one peer.
    pub id: u64,
    /// Who.
    pub peer: PeerId,
    /// The transport.
    pub conn: net::endpoint::Link,
    name: Mutex<String>,
    load: Mutex<Load>,
    toolchains: Mutex<HashSet<Fingerprint>>,
    in_flight: AtomicU32,
    names_out: tokio::sync::Mutex<NamesOut>,
    names_in: watch::Sender<Names>,
    control: mpsc::Sender<Control>,
}

#[derive(Debug)]
struct NamesOut {
    namer: Namer<u32>,
    stream: Option<net::channel::Sender>,
}

/// The numbers of a closure on one connection.
#[derive(Debug)]
pub struct Named {
    /// By number.
    pub entries: Vec<(u32, Arc<Entry>)>,
    /// As the offer says it.
    pub set: NumberSet,
    /// How many names there are.
    pub names: u32,
}

/// Why a closure could not be numbered.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The names.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Counts an offer as held by the peer for as long as it lives.
#[derive(Debug)]
pub struct Held<'a>(&'a Link);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    /// A fresh connection; what is given to `control` goes out on its control stream.
    #[must_use]
    pub fn new(id: u64, peer: PeerId, conn: net::endpoint::Link, control: mpsc::Sender<Control>) -> Self {
        Self {
            id,
            peer,
            conn,
            name: Mutex::default(),
            load: Mutex::default(),
            toolchains: Mutex::default(),
            in_flight: AtomicU32::new(0),
            names_out: tokio::sync::Mutex::new(NamesOut { namer: Namer::default(), stream: None }),
            names_in: watch::Sender::new(Names::default()),
            control,
        }
    }

    /// The peer's name in the mesh.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.lock().expect("no panic while held").clone()
    }

    /// What the mesh calls the peer.
    pub fn set_name(&self, name: &str) {
        name.clone_into(&mut self.name.lock().expect("no panic while held"));
    }

    /// How busy it last said to be.
    #[must_use]
    pub fn load(&self) -> Load {
        *self.load.lock().expect("no panic while held")
    }

    /// It said how busy it is.
    pub fn set_load(&self, load: Load) {
        *self.load.lock().expect("no panic while held") = load;
    }

    /// It said which compilers it runs for others.
    pub fn set_toolchains(&self, toolchains: impl IntoIterator<Item = Fingerprint>) {
        *self.toolchains.lock().expect("no panic while held") = toolchains.into_iter().collect();
    }

    /// Whether it has a compiler.
    #[must_use]
    pub fn has(&self, toolchain: &Fingerprint) -> bool {
        self.toolchains.lock().expect("no panic while held").contains(toolchain)
    }

    /// Offers of ours that it holds.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// It holds one more.
    pub fn hold(&self) -> Held<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Held(self)
    }

    /// What the choice looks at. Ours in flight are known exactly; of others' it said so last.
    #[must_use]
    pub fn candidate(&self) -> Candidate {
        let load = self.load();
        Candidate {
            peer: self.peer,
            slots: u32::from(load.slots),
            held: self.in_flight().max(u32::from(load.accepted)),
            speed: 1.0,
            rtt_us: self.conn.rtt_us(),
        }
    }

    /// Sends a control message, if there is room.
    pub fn tell(&self, message: Control) {
        if self.control.try_send(message).is_err() {
            tracing::debug!("{:?}: a control message found no room", self.peer);
        }
    }

    /// Numbers a closure, and sends the names that the peer has not been told. In a task of its own: a launcher may go away
    /// at any moment, and half a batch would be the end of the connection.
    ///
    /// # Errors
    /// If the connection is lost or has had too many names.
    pub async fn name_closure(self: &Arc<Self>, closure: &Closure) -> Result<Named, LinkError> {
        let (link, entries) = (self.clone(), closure.entries.clone());
        let naming = tokio::spawn(async move { link.name_entries(&entries).await });
        naming.await.unwrap_or(Err(LinkError::Stream(StreamError::Finished)))
    }

    async fn name_entries(&self, closure: &[inputs::Named]) -> Result<Named, LinkError> {
        let mut out = self.names_out.lock().await;
        let mut entries = Vec::with_capacity(closure.len());
        for named in closure {
            let number = out.namer.number(named.id, || Entry::clone(&named.entry))?;
            entries.push((number, named.entry.clone()));
        }
        let names = out.namer.count();
        if let Some(batch) = out.namer.take_batch() {
            if out.stream.is_none() {
                out.stream = Some(self.conn.open_uni().await?);
            }
            let stream = out.stream.as_mut().expect("opened above");
            for part in parts(batch) {
                stream.send(&part, limits::FRAME_BYTES_MAX).await?;
            }
        }
        drop(out);
        let set = NumberSet::new(&mut entries.iter().map(|(n, _)| *n).collect());
        Ok(Named { entries, set, names })
    }

    /// Takes names in from the peer.
    ///
    /// # Errors
    /// If they break a rule: the connection is to be closed.
    pub fn learn(&self, batch: NameBatch) -> Result<(), NameError> {
        let mut result = Ok(());
        self.names_in.send_modify(|names| result = names.learn(batch));
        result
    }

    /// Waits until the names have come as far as an offer says, and hands them to `with`.
    ///
    /// # Errors
    /// [`Refusal::Missing`] if they do not come in time.
    pub async fn with_names<T>(&self, offer: &Offer, with: impl FnOnce(&Names) -> T) -> Result<T, Refusal> {
        let mut names = self.names_in.subscribe();
        let come = names.wait_for(|names| names.count() >= offer.names);
        let come = tokio::time::timeout(NAMES_WAIT_MAX, come).await;
        let known = come.map_err(|_| Refusal::Missing)?.map_err(|_| Refusal::Missing)?;
        Ok(with(&known))
    }
}

/// Cuts a batch so that each part fits a frame.
fn parts(batch: NameBatch) -> Vec<NameBatch> {
    /// The longest path, a link's text, and what else an entry has.
    const ENTRY_BYTES_MAX: usize = 2 * limits::PATH_BYTES_MAX + 128;
    const PART: usize = limits::FRAME_BYTES_MAX / ENTRY_BYTES_MAX;
    let mut first = batch.first;
    let mut out = Vec::new();
    let mut rest = batch.entries;
    while !rest.is_empty() {
        let after = rest.split_off(rest.len().min(PART));
        let count = u32::try_from(rest.len()).expect("bounded by PART");
        out.push(NameBatch { first, entries: rest });
        first += count;
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::{closure::Node, path::AbsPath};

    #[test]
    fn a_large_batch_is_cut_and_loses_nothing() {
        let entry = |n: u32| Entry { path: AbsPath::new(format!("/{n}")).expect("normal"), node: Node::Directory };
        let batch = NameBatch { first: 5, entries: (0..5000).map(entry).collect() };
        let mut names = Names::default();
        names.learn(NameBatch { first: 0, entries: (0..5).map(entry).collect() }).expect("in order");
        let parts = parts(batch);
        assert!(parts.len() > 1);
        for part in parts {
            names.learn(part).expect("in order");
        }
        assert_eq!(names.count(), 5005);
    }
}
