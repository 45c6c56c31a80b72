//! One connection to one peer, as the agent sees it: names, load, what is in flight (DO).

use super::{
    links::{Claimed, Links},
    ship::Shipments,
};
use crate::{
    inputs::{Closure, Cursor, Gone, Retired},
    net::{self, stream::StreamError},
    worker::mirrors::Mirrors,
};
use mesh_proto::{
    closure::{Entry, Node},
    exchange::share::{Grant, GrantKey, Grants, Source},
    hello::close,
    job::Refusal,
    key::Keyed,
    limits,
    message::{Control, Load, Offer},
    naming::{NameBatch, NameError, Namer, Names, NumberSet},
    peer::PeerId,
    toolchain::Fingerprint,
};
use rand_core::RngCore;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
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
    /// When it was made.
    pub(super) since: Instant,
    /// The transport.
    pub conn: net::endpoint::Link,
    name: Mutex<String>,
    load: Mutex<Load>,
    toolchains: Mutex<HashSet<Fingerprint>>,
    /// What the peer was told last of how busy this machine is.
    told: Mutex<Option<Load>>,
    names_out: Arc<tokio::sync::Mutex<NamesOut>>,
    names_in: watch::Sender<Names>,
    /// What the peer granted to others, of what it named here.
    grants: watch::Sender<Grants>,
    /// What other peers were granted for this one: the number of their link, and the key.
    keys: Mutex<Vec<(u64, GrantKey)>>,
    /// The trees of what it named.
    pub mirrors: Arc<Mirrors>,
    /// Compilers that it lacks or cannot run.
    pub(super) shipments: Shipments,
    control: mpsc::Sender<Control>,
}

#[derive(Debug)]
struct NamesOut {
    namer: Namer,
    /// How far the log of entries that are no longer true has been told.
    told: Cursor,
    stream: Option<net::channel::Sender>,
}

/// The numbers of a closure on one connection.
#[derive(Debug)]
pub struct Named<'a> {
    /// By number, ascending.
    pub entries: Vec<(u32, Arc<Keyed>)>,
    /// As the offer says it.
    pub set: NumberSet,
    /// After how many batches of names the offer is made.
    pub batches: u32,
    /// Who else has been told of the files that this peer is told of now.
    pub sources: Vec<Source>,
    /// Files of which this peer is the first to be told.
    pub claimed: Claimed<'a>,
}

/// Ends when the peer has named or granted more.
#[derive(Debug)]
pub struct Told(watch::Receiver<Names>, watch::Receiver<Grants>);

impl Told {
    /// Waits for it.
    pub async fn news(&mut self) {
        let Self(names, grants) = self;
        tokio::select! {
            _ = names.changed() => {}
            _ = grants.changed() => {}
        }
    }
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
    /// An entry of the closure is no longer true, and the peer has been told so.
    #[error("an input changed since the closure was made")]
    Changed,
}

impl Link {
    /// A fresh connection; what is given to `control` goes out on its control stream.
    #[must_use]
    pub fn new(id: u64, peer: PeerId, conn: net::endpoint::Link, control: mpsc::Sender<Control>) -> Self {
        Self {
            id,
            peer,
            since: Instant::now(),
            conn,
            name: Mutex::default(),
            load: Mutex::default(),
            toolchains: Mutex::default(),
            told: Mutex::default(),
            names_out: Arc::new(tokio::sync::Mutex::new(NamesOut {
                namer: Namer::default(),
                told: Cursor::default(),
                stream: None,
            })),
            names_in: watch::Sender::new(Names::default()),
            grants: watch::Sender::default(),
            keys: Mutex::default(),
            mirrors: Arc::default(),
            shipments: Shipments::default(),
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
        let mut there = self.toolchains.lock().expect("no panic while held");
        *there = toolchains.into_iter().collect();
        self.shipments.arrived(there.iter());
    }

    /// Whether it has a compiler.
    #[must_use]
    pub fn has(&self, toolchain: &Fingerprint) -> bool {
        self.toolchains.lock().expect("no panic while held").contains(toolchain)
    }

    /// The compilers that it said it runs for others, in order.
    #[must_use]
    pub fn toolchains(&self) -> Vec<Fingerprint> {
        let there = self.toolchains.lock().expect("no panic while held");
        let mut all: Vec<Fingerprint> = there.iter().copied().collect();
        all.sort();
        all
    }

    /// Says how busy this machine is, if the peer does not know.
    pub fn tell_load(&self, load: Load) {
        let mut told = self.told.lock().expect("no panic while held");
        if *told != Some(load) && self.tell(Control::Load(load)) {
            *told = Some(load);
        }
    }

    /// Sends a control message, if there is room; says whether there was.
    pub fn tell(&self, message: Control) -> bool {
        let told = self.control.try_send(message).is_ok();
        if !told {
            tracing::debug!("{:?}: a control message found no room", self.peer);
        }
        told
    }

    /// Numbers a closure, and has the names sent that the peer has not been told, and what it was told that is no longer
    /// true: in a task of its own, because a launcher may go away at any moment, and half a batch would be the end of the
    /// connection.
    ///
    /// # Errors
    /// If the connection has had too many names, or the closure is older than what the peer knows.
    pub async fn name_closure<'a>(
        &self,
        closure: &Closure,
        retired: &Retired,
        links: &'a Links,
    ) -> Result<Named<'a>, LinkError> {
        let mut out = self.names_out.clone().lock_owned().await;
        // A closure that is older than what was told may hold what was taken back, or what would never be.
        match retired.between(closure.retired_at, out.told) {
            Gone::Some(mut ids) => {
                ids.sort_unstable();
                if !ids.is_empty() && closure.entries.iter().any(|named| ids.binary_search(&named.id).is_ok()) {
                    return Err(LinkError::Changed);
                }
            }
            Gone::All => return Err(LinkError::Changed),
        }
        match retired.between(out.told, closure.retired_at) {
            Gone::Some(ids) => ids.into_iter().for_each(|id| out.namer.take_back(id)),
            Gone::All => out.namer.take_back_all(),
        }
        out.told = out.told.max(closure.retired_at);
        let known = out.namer.count();
        let mut entries = Vec::with_capacity(closure.entries.len());
        let mut fresh = Vec::new();
        for named in closure.entries.iter() {
            let number = out.namer.number(named.id, || Entry::clone(&named.entry))?;
            if number >= known && matches!(named.entry.node, Node::File(_)) {
                fresh.push((named.id, number));
            }
            entries.push((number, named.entry.clone()));
        }
        let batches = out.namer.has_news().then(|| out.namer.take_batches());
        let count = out.namer.batches();
        // From here to the task there is no wait: what was taken is sent.
        match batches {
            Some(batches) => drop(tokio::spawn(send_names(self.conn.clone(), out, batches))),
            None => drop(out),
        }
        // Long runs ascend already.
        entries.sort_by_key(|(number, _)| *number);
        let set = NumberSet::ascending(entries.iter().map(|(n, _)| *n));
        let (claimed, held) = links.hold_files(self, &fresh);
        let sources = held.into_iter().filter_map(|(source, files)| self.source(&source, files));
        let sources = sources.take(limits::SOURCES_MAX).collect();
        Ok(Named { entries, set, batches: count, sources, claimed })
    }

    /// Another peer as a source of this one, with a grant that it has been told of.
    fn source(&self, source: &Link, mut files: Vec<u32>) -> Option<Source> {
        let mut keys = self.keys.lock().expect("no panic while held");
        let known = keys.iter().find(|(link, _)| *link == source.id).map(|(_, key)| *key);
        let key = match known {
            Some(key) => key,
            None => {
                let mut key = GrantKey([0; 32]);
                rand_core::OsRng.try_fill_bytes(&mut key.0).ok()?;
                if !source.tell(Control::Grant(Grant { to: self.peer, key })) {
                    return None;
                }
                if keys.len() >= limits::GRANTS_MAX {
                    // Links that are gone are among them; those that stand are granted anew.
                    keys.clear();
                }
                keys.push((source.id, key));
                key
            }
        };
        Some(Source { peer: source.peer, key, files: NumberSet::new(&mut files) })
    }

    /// The peer grants another one what it named here.
    pub fn granted(&self, grant: Grant) {
        self.grants.send_modify(|grants| grants.take(grant));
    }

    /// What the peer has granted and named so far.
    pub fn grantable<T>(&self, with: impl FnOnce(&Grants, &mut Names) -> T) -> T {
        let mut with = Some(with);
        let mut result = None;
        self.names_in.send_if_modified(|names| {
            result = with.take().map(|with| with(&self.grants.borrow(), names));
            false
        });
        result.expect("called once")
    }

    /// To wait for more than that.
    #[must_use]
    pub fn told(&self) -> Told {
        Told(self.names_in.subscribe(), self.grants.subscribe())
    }

    /// Takes names in from the peer.
    ///
    /// # Errors
    /// If they break a rule: the connection is to be closed.
    pub fn learn(&self, batch: NameBatch) -> Result<(), NameError> {
        let mut result = Ok(());
        // Before anybody who waits for the batch sees that it has come.
        self.names_in.send_modify(|names| result = names.learn(batch).map(|gone| self.mirrors.gone(&gone)));
        result
    }

    /// Waits until the names have come as far as an offer says, and hands them to `with`.
    ///
    /// # Errors
    /// [`Refusal::Missing`] if they do not come in time.
    pub async fn with_names<T>(&self, offer: &Offer, with: impl FnOnce(&Names) -> T) -> Result<T, Refusal> {
        let mut names = self.names_in.subscribe();
        let come = names.wait_for(|names| names.batches() >= offer.batches);
        let come = tokio::time::timeout(NAMES_WAIT_MAX, come).await;
        let known = come.map_err(|_| Refusal::Missing)?.map_err(|_| Refusal::Missing)?;
        Ok(with(&known))
    }
}

/// Sends names in order. Whatever goes wrong here is the end of the connection: jobs are offered that rely on them.
async fn send_names(
    conn: net::endpoint::Link,
    mut out: tokio::sync::OwnedMutexGuard<NamesOut>,
    batches: Vec<NameBatch>,
) {
    let sent = async {
        for batch in batches {
            if out.stream.is_none() {
                out.stream = Some(conn.open_uni().await?);
            }
            let stream = out.stream.as_mut().expect("opened above");
            stream.send(&batch, limits::FRAME_BYTES_MAX).await?;
        }
        Ok::<(), StreamError>(())
    };
    if let Err(error) = sent.await {
        tracing::debug!("{:?}: names could not be told: {error}", conn.peer);
        conn.close(close::DONE, "names");
    }
}
