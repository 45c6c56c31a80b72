//! Takes in compilers that other members want this machine to have (DO).
//!
//! One after the other, in the background, from any member that lends it, from the one that wants it if there is none. What
//! came stays, so a transfer that broke goes on with another giver, or after a restart, where it was. The compiler is lent
//! once its tree is whole and every file of it was checked.

use super::{Agent, link::Link, peers, serve::Server};
use crate::{
    compiler::invocation::Family,
    net::stream::{Packed, StreamError, Unpacking},
    sched::lend::{self, Shelf},
    toolchain::Toolchain,
    worker::{sent::Sent, strict},
};
use mesh_proto::{
    digest::Digest,
    exchange::toolchain::{self, Arrival, Arriving, Get, Given, NotTaken, Wanted, Wants},
    limits,
    message::{Control, StreamHead},
    naming::NumberSet,
    peer::PeerId,
    toolchain::{FAMILY_FACT, Fingerprint, Manifest},
};
use std::{
    collections::{HashSet, VecDeque},
    io::{self, Read},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};

/// A giver answers within this time.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// So many bytes of a file are held at once; a multiple of a block, so that a file is the same on the wire.
const PIECE_BYTES: u64 = 4 << 20;
/// A piece must come within this time, at the lowest rate that a giver can be set to.
const PIECE_TIME: Duration = Duration::from_secs(120);
/// Pieces that wait for the disk.
const PIECES_MAX: usize = 2;
/// Machines that one compiler is asked of.
const GIVERS_MAX: usize = 8;
/// Machines that are told how one compiler is coming.
const CLIENTS_MAX: usize = 64;
/// They are told this often at most.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Compilers that are to come.
#[derive(Debug, Default)]
pub(super) struct Taking {
    /// The first one may be coming now.
    waiting: Mutex<VecDeque<Waiting>>,
    more: Notify,
}

/// A compiler, and who wants this machine to have it.
#[derive(Debug, Clone)]
struct Waiting {
    wanted: Wanted,
    clients: Vec<PeerId>,
}

impl Taking {
    /// Whether nothing is coming or waits to come.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().expect("no panic while held")
    }
}

/// Why one giver did not give all.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("it does not give it")]
    Not,
    #[error("{0}")]
    Wrong(#[from] toolchain::Wrong),
    #[error("its manifest cannot be placed: {0}")]
    Malformed(#[from] strict::StrictError),
    #[error("{0}")]
    Disk(#[from] crate::worker::toolchains::ToolchainError),
    #[error("the agent has no thread for it")]
    Thread,
}

/// A member wants this machine to have a compiler.
pub(super) async fn wanted(agent: &Arc<Agent>, link: &Link, wanted: Wanted) {
    let Some(server) = &agent.server else { return refuse(link, wanted.fingerprint, NotTaken::Serve) };
    if agent.served_toolchains().contains(&wanted.fingerprint) {
        // It was told before; perhaps the two crossed.
        link.tell(Control::Toolchains(agent.served_toolchains()));
        return;
    }
    let cache = agent.places.cache.clone();
    let disk_free = tokio::task::spawn_blocking(move || crate::host::disk_free(&cache)).await.ok().flatten();
    let shelf = Shelf {
        serves: super::serve::never(agent).is_none(),
        processor: crate::host::processor(),
        client: agent.mesh.role_of(&link.peer),
        waiting: server.taking.lock().len(),
        disk_free,
    };
    if let Err(why) = lend::take(&shelf, &wanted) {
        return refuse(link, wanted.fingerprint, why);
    }
    {
        let mut waiting = server.taking.lock();
        match waiting.iter_mut().find(|one| one.wanted.fingerprint == wanted.fingerprint) {
            Some(one) if one.clients.contains(&link.peer) || one.clients.len() >= CLIENTS_MAX => {}
            Some(one) => one.clients.push(link.peer),
            None => waiting.push_back(Waiting { wanted, clients: vec![link.peer] }),
        }
    }
    let state = Arriving::Coming { have: 0, of: wanted.bytes };
    link.tell(Control::Arrival(Arrival { fingerprint: wanted.fingerprint, state }));
    server.taking.more.notify_one();
}

fn refuse(link: &Link, fingerprint: Fingerprint, why: NotTaken) {
    link.tell(Control::Arrival(Arrival { fingerprint, state: Arriving::Refused(why) }));
}

/// Takes in what waits, until the agent leaves.
pub(super) async fn work(agent: Arc<Agent>) {
    let Some(server) = agent.server.clone() else { return };
    loop {
        let next = server.taking.lock().front().cloned();
        let Some(next) = next else {
            server.taking.more.notified().await;
            continue;
        };
        let fingerprint = next.wanted.fingerprint;
        let taken = take(&agent, &server, next.wanted).await;
        let clients = server.taking.lock().pop_front().map(|done| done.clients).unwrap_or_default();
        match taken {
            Ok(()) => peers::toolchains_changed(&agent, &agent.served_toolchains()),
            Err(why) => {
                for link in clients.iter().filter_map(|client| agent.links.get(*client)) {
                    refuse(&link, fingerprint, why);
                }
            }
        }
    }
}

/// Takes one compiler in.
async fn take(agent: &Arc<Agent>, server: &Arc<Server>, wanted: Wanted) -> Result<(), NotTaken> {
    if !make_room(agent, server, wanted.bytes).await {
        return Err(NotTaken::Room);
    }
    let mut result = Err(NotTaken::Failed);
    for link in givers(agent, server, &wanted) {
        match from(agent, server, &link, &wanted).await {
            Ok(()) => return Ok(()),
            Err(trouble) => {
                tracing::info!("{} did not give a whole compiler: {trouble}", link.name());
                if matches!(&trouble, Trouble::Disk(error) if error.is_full()) {
                    return Err(NotTaken::Room);
                }
                result = Err(NotTaken::Failed);
            }
        }
    }
    result
}

/// Who is asked: machines that lend it before those that want it, whose network has most to do.
fn givers(agent: &Agent, server: &Server, wanted: &Wanted) -> Vec<Arc<Link>> {
    let clients = {
        let waiting = server.taking.lock();
        let one = waiting.iter().find(|one| one.wanted.fingerprint == wanted.fingerprint);
        one.map(|one| one.clients.clone()).unwrap_or_default()
    };
    let mut givers = agent.links.matching(&wanted.fingerprint);
    givers.retain(|link| !clients.contains(&link.peer));
    givers.sort_by_key(|link| link.conn.rtt_us());
    givers.extend(clients.iter().filter_map(|client| agent.links.get(*client)));
    givers.truncate(GIVERS_MAX);
    givers
}

/// Gets what is lacking from one giver, and lends the compiler if that was all.
async fn from(agent: &Arc<Agent>, server: &Arc<Server>, link: &Link, wanted: &Wanted) -> Result<(), Trouble> {
    let (mut out, mut inp) = link.conn.open_bi().await?;
    out.send(&StreamHead::Toolchain(Get { fingerprint: wanted.fingerprint }), limits::FRAME_BYTES_MAX).await?;
    let given: Given = inp.receive(limits::TOOLCHAIN_MANIFEST_BYTES_MAX, ANSWER_TIME).await?;
    let Given::Manifest(manifest) = given else { return Err(Trouble::Not) };
    let manifest: Arc<Manifest> = Arc::from(manifest);
    toolchain::check(&manifest, &wanted.fingerprint, &wanted.needs)?;
    strict::check_toolchain(&manifest)?;
    let lacking = lacking(server, &manifest).await?;
    let of = toolchain::bytes(&manifest);
    if of > wanted.bytes {
        // There is room for what was said.
        return Err(toolchain::Wrong::Limit.into());
    }
    let mut progress = Progress { agent, server, fingerprint: wanted.fingerprint, of, told: None };
    let mut have = of.saturating_sub(lacking.iter().map(|file| file.size).sum());
    let mut rest = &lacking[..];
    while !rest.is_empty() {
        let turn = toolchain::turn(rest);
        let numbers = NumberSet::ascending(turn.iter().map(|file| file.part));
        out.send(&numbers, limits::FRAME_BYTES_MAX).await?;
        for file in turn {
            let (to, pieces) = mpsc::channel(PIECES_MAX);
            let (keeping, manifest, part) = (server.clone(), manifest.clone(), file.part as usize);
            let storing = tokio::task::spawn_blocking(move || {
                let mut content = Pieces { pieces, now: None };
                keeping.worker.toolchains().receive(&manifest.parts[part], &mut content)
            });
            let mut left = file.size;
            while left > 0 {
                let bytes = left.min(PIECE_BYTES);
                let piece = timeout(PIECE_TIME, inp.receive_packed(bytes)).await.unwrap_or(Err(StreamError::Late))?;
                left -= bytes;
                have += bytes;
                progress.tell(have);
                if to.send(piece).await.is_err() {
                    // The disk does not take it: it says below why.
                    break;
                }
            }
            drop(to);
            storing.await.map_err(|_| Trouble::Thread)??;
        }
        rest = &rest[turn.len()..];
    }
    out.finish();
    adopt(server, wanted.fingerprint, manifest, link.name()).await
}

/// What is not here.
async fn lacking(server: &Arc<Server>, manifest: &Arc<Manifest>) -> Result<Vec<Wants>, Trouble> {
    let (looking, manifest) = (server.clone(), manifest.clone());
    let look = move || toolchain::lacking(&manifest, |digest| looking.worker.toolchains().has(digest));
    tokio::task::spawn_blocking(look).await.map_err(|_| Trouble::Thread)
}

/// Makes the tree, and keeps the compiler.
async fn adopt(
    server: &Arc<Server>,
    fingerprint: Fingerprint,
    manifest: Arc<Manifest>,
    from: String,
) -> Result<(), Trouble> {
    let keeping = server.clone();
    let made = tokio::task::spawn_blocking(move || {
        keeping.worker.prepare_sent(&manifest, &fingerprint)?;
        let now_ms = crate::host::wall_ms();
        let sent = Sent { manifest, from, came_ms: now_ms, used_ms: now_ms };
        tracing::info!("{} came from {}", name(&sent.manifest), sent.from);
        let disk = |error| crate::worker::toolchains::ToolchainError::Disk {
            verb: "write",
            path: mesh_proto::path::AbsPath::root(),
            error,
        };
        keeping.sent.add(fingerprint, sent).map_err(disk)
    });
    Ok(made.await.map_err(|_| Trouble::Thread)??)
}

/// A compiler's name for people.
pub(super) fn name(manifest: &Manifest) -> String {
    let version = manifest.fact(mesh_proto::toolchain::VERSION_FACT).unwrap_or_default();
    format!("{} {}", String::from_utf8_lossy(manifest.driver.name()), String::from_utf8_lossy(version))
}

/// The grammar of options of a compiler that was sent.
pub(super) fn family(manifest: &Manifest) -> Option<Family> {
    Family::of_name(manifest.fact(FAMILY_FACT)?)
}

/// Gives up what was used long ago, so that so many bytes more find room; whether they do. What came of compilers that
/// never were whole goes as well where there is too much of it: it is no compiler's, so nothing else would ever remove it.
async fn make_room(agent: &Arc<Agent>, server: &Arc<Server>, bytes: u64) -> bool {
    let sent = server.sent.list();
    let held: Vec<lend::Sent> = sent
        .iter()
        .map(|(fingerprint, sent)| lend::Sent { fingerprint: *fingerprint, bytes: sent.bytes(), used_ms: sent.used_ms })
        .collect();
    let victims = lend::victims(&held, bytes, lend::SENT_BYTES_MAX, crate::host::wall_ms());
    if !victims.is_empty() {
        give_up(agent, victims).await;
    }
    let held = server.sent.list().iter().fold(bytes, |sum, (_, sent)| sum.saturating_add(sent.bytes()));
    let Some(room) = lend::SENT_BYTES_MAX.checked_sub(held) else { return false };
    let (sweeping, needed) = (server.clone(), needed(agent, server));
    let sweep = move || sweeping.worker.toolchains().sweep_over(room, |digest| needed.contains(digest));
    matches!(tokio::task::spawn_blocking(sweep).await, Ok(Ok(_)))
}

/// The files of all compilers that this machine lends.
fn needed(agent: &Agent, server: &Server) -> HashSet<Digest> {
    let own = agent.served();
    let own = own.iter().map(|toolchain: &Arc<Toolchain>| toolchain.manifest.clone());
    let sent = server.sent.list().into_iter().map(|(_, sent)| sent.manifest);
    own.chain(sent).flat_map(|manifest| digests(&manifest)).collect()
}

/// Gives up these compilers. Gives how many bytes that freed.
pub(super) async fn give_up(agent: &Arc<Agent>, victims: Vec<Fingerprint>) -> u64 {
    let Some(server) = agent.server.clone() else { return 0 };
    server.forget(&victims);
    // First nobody is told of them any more, then they go.
    let gone: Vec<Sent> = victims.iter().filter_map(|one| server.sent.remove(one)).collect();
    peers::toolchains_changed(agent, &agent.served_toolchains());
    let needed = needed(agent, &server);
    for one in &gone {
        tracing::info!("{} is given up", name(&one.manifest));
    }
    let removing = tokio::task::spawn_blocking(move || {
        let toolchains = server.worker.toolchains();
        let remove = |one: &Fingerprint| toolchains.remove(one, |digest| needed.contains(digest)).unwrap_or(0);
        victims.iter().map(remove).sum()
    });
    removing.await.unwrap_or(0)
}

fn digests(manifest: &Manifest) -> Vec<Digest> {
    toolchain::lacking(manifest, |_| false).iter().map(|file| file.digest).collect()
}

/// Tells those who want a compiler how far it is.
struct Progress<'a> {
    agent: &'a Agent,
    server: &'a Server,
    fingerprint: Fingerprint,
    of: u64,
    told: Option<Instant>,
}

impl Progress<'_> {
    fn tell(&mut self, have: u64) {
        let now = Instant::now();
        if self.told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
            return;
        }
        self.told = Some(now);
        let state = Arriving::Coming { have, of: self.of };
        let waiting = self.server.taking.lock();
        let clients = waiting.iter().find(|one| one.wanted.fingerprint == self.fingerprint).map(|one| &one.clients);
        for link in clients.into_iter().flatten().filter_map(|client| self.agent.links.get(*client)) {
            link.tell(Control::Arrival(Arrival { fingerprint: self.fingerprint, state }));
        }
    }
}

/// A file as it comes, for the thread that writes it.
struct Pieces {
    pieces: mpsc::Receiver<Packed>,
    now: Option<Unpacking>,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = &mut self.now {
                let got = piece.read(into)?;
                if got > 0 || into.is_empty() {
                    return Ok(got);
                }
            }
            match self.pieces.blocking_recv() {
                Some(packed) => self.now = Some(packed.reader()),
                None => return Ok(0),
            }
        }
    }
}
