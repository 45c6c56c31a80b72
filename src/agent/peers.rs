//! Dials, takes in and keeps connections to the members of the mesh (DO).

use super::{
    Agent,
    dial::{Dialer, Keep},
    link::{CONTROL_QUEUE, Link},
    mesh, serve,
};
use crate::net::{
    channel::{Receiver, Sender},
    endpoint::{Arrivals, Endpoint, LinkError},
    intro::Doorkeeper,
    pair::{Inviter, NotAdmitted},
    sync::{self, SyncError},
    tls::{Expect, Protocol},
};
use mesh_proto::{
    digest::Digest,
    hello::{Hello, close},
    limits,
    membership::{PublicKey, Record},
    message::Control,
    naming::NameBatch,
    pairing::{Code, Welcome},
    peer::PeerId,
    toolchain::Fingerprint,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{Notify, broadcast, mpsc};

/// A control or names stream may be quiet for as long as the connection lives; this only bounds the call.
const QUIET: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long the dialler sleeps at most.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// A static address is looked up again this often, while its machine is not connected.
const RESOLVE_EVERY: Duration = Duration::from_secs(300);
/// The file of remembered addresses; the name carries the version of the format.
const BOOK: &str = "addresses-v1";
/// Addresses in it.
const BOOK_MAX: usize = 1024;

/// An address in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    addr: SocketAddr,
    peer: Option<PeerId>,
}

/// The sockets and the address book.
#[derive(Debug)]
pub(super) struct Peers {
    pub(super) endpoint: Endpoint,
    pub(super) inviter: Inviter,
    dialer: Mutex<Dialer>,
    /// Something new to dial.
    wake: Notify,
    book: PathBuf,
    /// Addresses that the user named.
    pub(super) fixed: Mutex<Vec<String>>,
    fixed_file: PathBuf,
    /// What became of machines that came to pair: lines for `mesh pair`, of those that were let in with the code that they proved.
    pub(super) pairings: broadcast::Sender<Result<(Code, String), String>>,
    /// Who listens to machines that introduce themselves.
    pub(super) door: Doorkeeper,
    /// Members that were shown the records of this machine, and which these were.
    shown: Mutex<HashMap<PeerId, Digest>>,
    /// Why this machine has not joined yet by the token that it was started with.
    joining: Mutex<Option<String>>,
}

impl Peers {
    pub(super) fn new(state_dir: &std::path::Path, endpoint: Endpoint, inviter: Inviter, config: &[String]) -> Self {
        let me = endpoint.identity().peer();
        let fixed_file = state_dir.join("peers");
        let mut fixed: Vec<String> = config.to_vec();
        fixed.extend(std::fs::read_to_string(&fixed_file).unwrap_or_default().lines().map(str::to_owned));
        fixed.truncate(BOOK_MAX);
        let book = state_dir.join(BOOK);
        let mut dialer = Dialer::new(me);
        let stored = std::fs::read(&book).unwrap_or_default();
        let stored: Vec<Remembered> = postcard::from_bytes(&stored).unwrap_or_default();
        let stored: Vec<_> = stored.into_iter().take(BOOK_MAX).map(|Remembered { addr, peer }| (addr, peer)).collect();
        dialer.remembered(stored.into_iter());
        let pairings = broadcast::Sender::new(16);
        Self {
            endpoint,
            inviter,
            dialer: Mutex::new(dialer),
            wake: Notify::new(),
            book,
            fixed: Mutex::new(fixed),
            fixed_file,
            pairings,
            door: Doorkeeper::default(),
            shown: Mutex::default(),
            joining: Mutex::default(),
        }
    }

    fn dialer(&self) -> std::sync::MutexGuard<'_, Dialer> {
        self.dialer.lock().expect("no panic while held")
    }

    /// An address was heard of.
    pub(super) fn heard(&self, addr: SocketAddr, peer: Option<PeerId>, fixed: bool, now_ms: u64) {
        self.dialer().heard(addr, peer, fixed, now_ms);
        self.wake.notify_one();
    }

    /// Addresses of one machine were heard of.
    pub(super) fn heard_together(&self, addrs: &[SocketAddr], group: u64, now_ms: u64) {
        self.dialer().heard_together(addrs, group, now_ms);
        self.wake.notify_one();
    }

    /// Where members were, or are said to be.
    pub(super) fn known(&self) -> Vec<(PeerId, SocketAddr)> {
        self.dialer().book().filter_map(|(addr, peer, _)| Some((peer?, addr))).collect()
    }

    /// Notes why this machine has not joined yet; whether that is news.
    pub(super) fn set_joining(&self, why: Option<String>) -> bool {
        let mut joining = self.joining.lock().expect("no panic while held");
        let is_news = *joining != why;
        *joining = why;
        is_news
    }

    pub(super) fn joining(&self) -> Option<String> {
        self.joining.lock().expect("no panic while held").clone()
    }

    /// Whether a member has not been shown these records yet; it has from now on.
    fn is_to_be_shown(&self, peer: PeerId, set: Digest) -> bool {
        let mut shown = self.shown.lock().expect("no panic while held");
        if shown.len() >= BOOK_MAX {
            shown.clear();
        }
        shown.insert(peer, set) != Some(set)
    }

    pub(super) fn forget(&self, addr: SocketAddr) {
        self.dialer().forget(addr);
    }

    /// Nobody that is known is of this mesh any more.
    pub(super) fn forget_everybody(&self) {
        *self.dialer() = Dialer::new(self.endpoint.identity().peer());
        let _ = std::fs::remove_file(&self.book);
    }

    pub(super) fn addresses(&self, peer: PeerId) -> Vec<SocketAddr> {
        self.dialer().addresses(peer).collect()
    }

    /// Adds or removes an address that the user names, for good.
    pub(super) fn name_address(&self, address: &str, add: bool) -> std::io::Result<bool> {
        let mut fixed = self.fixed.lock().expect("no panic while held");
        let had = fixed.iter().any(|a| a == address);
        if had != add {
            if add {
                fixed.push(address.to_owned())
            } else {
                fixed.retain(|a| a != address)
            }
            std::fs::write(&self.fixed_file, fixed.join("\n"))?;
        }
        Ok(had)
    }

    fn remember(&self) {
        let known: Vec<Remembered> = {
            let dialer = self.dialer();
            let live = dialer.book().filter(|(_, peer, _)| peer.is_some());
            live.take(BOOK_MAX).map(|(addr, peer, _)| Remembered { addr, peer }).collect()
        };
        let bytes = postcard::to_stdvec(&known).expect("addresses can be written");
        // Renamed into place: a book of which half is written would be none.
        let fresh = self.book.with_extension("new");
        if let Err(e) = std::fs::write(&fresh, bytes).and_then(|()| std::fs::rename(&fresh, &self.book)) {
            tracing::debug!("the address book could not be written: {e}");
        }
    }
}

/// Takes connections in until the agent leaves.
pub(super) async fn accept(agent: Arc<Agent>, mut arrivals: Arrivals) {
    while let Some(link) = arrivals.next().await {
        let agent = agent.clone();
        match link.protocol {
            Protocol::Mesh => drop(tokio::spawn(member(agent, link, None))),
            Protocol::Pair => drop(tokio::spawn(newcomer(agent, link))),
            Protocol::Intro => drop(tokio::spawn(super::intro::newcomer(agent, link))),
        }
    }
}

/// Dials what is due until the agent leaves.
pub(super) async fn dial(agent: Arc<Agent>) {
    loop {
        let now = agent.clock.ms();
        let (due, next) = {
            let mut dialer = agent.peers.dialer();
            let in_mesh = agent.mesh.role().is_some();
            (if in_mesh { dialer.due(now) } else { Vec::new() }, dialer.next_due_ms().filter(|_| in_mesh))
        };
        for (addr, peer) in due {
            let agent = agent.clone();
            tokio::spawn(async move {
                let expect = peer.map_or(Expect::AnyMember, Expect::Peer);
                match agent.peers.endpoint.connect(addr, expect).await {
                    Ok(link) => member(agent, link, Some(addr)).await,
                    Err(e) => {
                        tracing::debug!("dialling failed: {e}");
                        let now = agent.clock.ms();
                        match e {
                            LinkError::WrongKey { .. } => agent.peers.dialer().answered_by_another(addr, now),
                            _ => agent.peers.dialer().failed(addr, now),
                        }
                        agent.peers.wake.notify_one();
                    }
                }
            });
        }
        let sleep = next.map_or(SLEEP_MAX, |at| Duration::from_millis(at.saturating_sub(agent.clock.ms()).max(1)));
        tokio::select! {
            () = tokio::time::sleep(sleep.min(SLEEP_MAX)) => {}
            () = agent.peers.wake.notified() => {}
            () = agent.leaving.cancelled() => return,
        }
    }
}

/// Looks the user's addresses up, now and then.
pub(super) async fn resolve_fixed(agent: Arc<Agent>) {
    loop {
        let fixed = agent.peers.fixed.lock().expect("no panic while held").clone();
        for address in fixed {
            for addr in lookup(&address).await {
                let known = agent.peers.dialer().book().any(|(a, _, fixed)| a == addr && fixed);
                if !known {
                    agent.peers.heard(addr, None, true, agent.clock.ms());
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RESOLVE_EVERY) => {}
            () = agent.leaving.cancelled() => return,
        }
    }
}

/// Where this machine may be reached, as far as it knows.
pub(super) fn own_addresses(agent: &Agent) -> Vec<SocketAddr> {
    let own = super::nearby::own_addresses(agent.loopback, agent.peers.endpoint.port());
    let port = crate::net::endpoint::PORT;
    let with_port = |text: &String| text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, port)));
    own.iter().filter_map(with_port).collect()
}

/// The addresses of `HOST[:PORT]`, `ADDRESS[:PORT]` or `[ADDRESS]:PORT`.
pub(super) async fn lookup(address: &str) -> Vec<SocketAddr> {
    const PORT: u16 = crate::net::endpoint::PORT;
    if let Ok(addr) = address.parse::<SocketAddr>() {
        return vec![addr];
    }
    if let Ok(ip) = address.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        return vec![SocketAddr::new(ip, PORT)];
    }
    let with_port = if address.contains(':') { address.to_owned() } else { format!("{address}:{PORT}") };
    tokio::net::lookup_host(with_port)
        .await
        .map(|found| found.take(limits::ADDRESSES_MAX).collect())
        .unwrap_or_default()
}

fn hello(agent: &Agent, conn: &crate::net::endpoint::Link) -> Option<(Hello, mesh_proto::membership::RecordSet)> {
    let (set, disc_key) = agent.mesh.set()?;
    let me = agent.mesh.me();
    let machine = std::fs::read("/etc/machine-id").unwrap_or_else(|_| crate::host::name().into_bytes());
    let mut addresses = agent.config.advertise.clone();
    let room = limits::ADDRESSES_MAX.saturating_sub(addresses.len());
    addresses.extend(agent.peers.dialer().tell(conn.peer, conn.address(), room));
    let hello = Hello {
        proto_min: mesh_proto::version::OLDEST as u32,
        proto_max: mesh_proto::version::NEWEST as u32,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        mesh: set.mesh(),
        set_digest: set.digest(),
        role: agent.mesh.role(),
        name: agent.mesh.name_of(&me).unwrap_or_else(crate::host::name),
        host_tag: disc_key.host_tag(&machine),
        slots: u32::from(serve::load(agent).slots),
        toolchains: agent.served_toolchains(),
        addresses,
        now_s: mesh::now_s(),
    };
    Some((hello, set))
}

/// A connection between members, from its handshake to its end.
async fn member(agent: Arc<Agent>, conn: crate::net::endpoint::Link, dialled: Option<SocketAddr>) {
    let peer = conn.peer;
    let first = dialled.is_none_or(|addr| agent.peers.dialer().proved(addr, peer));
    let end = if first {
        greeted(&agent, conn, dialled).await
    } else {
        conn.close(close::DUPLICATE, "");
        Err("another connection to it stands, or is about to".to_owned())
    };
    if let Err(why) = end {
        tracing::debug!("{peer:?}: {why}");
    }
    if let Some(addr) = dialled {
        let mut dialer = agent.peers.dialer();
        // Only if it is still marked as under way: a link that stood has settled that.
        dialer.ended_early(addr, agent.clock.ms());
    }
    agent.peers.wake.notify_one();
}

async fn greeted(
    agent: &Arc<Agent>,
    conn: crate::net::endpoint::Link,
    dialled: Option<SocketAddr>,
) -> Result<(), String> {
    let (ours, set) = hello(agent, &conn).ok_or("this machine is in no mesh")?;
    let greeting = sync::greet(&conn, &ours, &set).await.map_err(|e| {
        // A dialler has shown its certificate before the other side judges it.
        if matches!(e, SyncError::Link(LinkError::Forgotten(_))) {
            agent.mesh.refused_for_good(conn.peer);
        }
        if let (SyncError::Link(LinkError::Refused(_)), Some(addr)) = (&e, dialled) {
            introduced(agent, addr, conn.peer, set.digest());
        }
        e.to_string()
    })?;
    let (sender, receiver) = (Sender::new(greeting.send), Receiver::new(greeting.recv));
    let in_common: Vec<_> = set.hashes().into_iter().chain(greeting.records.iter().map(Record::hash)).collect();
    if agent.mesh.merge(greeting.records).is_some() {
        records_changed(agent);
    }
    let peer = conn.peer;
    // Decided again: the records may have changed since the handshake.
    if agent.mesh.members().is_none_or(|m| m.get(&peer).is_none()) {
        conn.close(close::NOT_MEMBER, "no member");
        return Err("the other machine is no member".to_owned());
    }
    // Only now: before, it was a stranger's word.
    let now = agent.clock.ms();
    greeting.hello.addresses.iter().for_each(|addr| agent.peers.dialer().told(*addr, now));
    agent.peers.dialer().observed(conn.address(), peer, now);
    agent.peers.wake.notify_one();
    let (control, outbox) = mpsc::channel(CONTROL_QUEUE);
    let link = Arc::new(Link::new(agent.links.next_id(), peer, conn, control));
    link.set_name(&agent.mesh.name_of(&peer).unwrap_or(greeting.hello.name));
    link.set_toolchains(greeting.hello.toolchains);
    let host_tag = greeting.hello.host_tag;
    let kept = agent.peers.dialer().connected(peer, link.id, dialled, agent.clock.ms());
    match kept {
        Keep::Old => {
            link.conn.close(close::DUPLICATE, "");
            return Ok(());
        }
        Keep::Replaces(_) => {
            if let Some(old) = agent.links.get(peer) {
                old.conn.close(close::DUPLICATE, "");
            }
        }
        Keep::New => {}
    }
    agent.links.insert(link.clone());
    agent.whereto.members_changed();
    agent.slots(|intake, _| intake.client(peer, host_tag));
    agent.desk(|dispatcher, now| {
        dispatcher.connected(now, peer, link.conn.rtt_us());
    });
    agent.tell_toolchains(&link);
    link.tell_load(serve::load_for(agent, &link));
    link.tell(Control::Toolchains(agent.served_toolchains()));
    // Records that came in while the two were greeting went to those who were connected then.
    let late = agent.mesh.set().map(|(set, _)| set.missing(&in_common)).unwrap_or_default();
    if !late.is_empty() {
        link.tell(Control::Records(late));
    }
    tracing::info!("connected: {}", link.name());
    agent.peers.remember();
    stand(agent, &link, sender, receiver, outbox).await;
    tracing::info!("disconnected: {}", link.name());
    if agent.links.remove(&link) {
        agent.whereto.members_changed();
        agent.slots(|intake, _| intake.left(peer));
        agent.desk(|dispatcher, now| dispatcher.lost(now, peer));
    }
    // It may have moved while it stood.
    agent.peers.dialer().observed(link.conn.address(), peer, agent.clock.ms());
    agent.peers.dialer().lost(peer, link.id, agent.clock.ms());
    agent.peers.remember();
    Ok(())
}

/// A member that has not heard of this machine's admission is shown it, once, and dialled again.
fn introduced(agent: &Arc<Agent>, addr: SocketAddr, peer: PeerId, set: Digest) {
    if !agent.peers.is_to_be_shown(peer, set) {
        return;
    }
    let agent = agent.clone();
    tokio::spawn(async move {
        if super::intro::to_member(&agent, addr, peer).await {
            agent.peers.heard(addr, Some(peer), false, agent.clock.ms());
        }
    });
}

/// Everything that happens on a standing connection, until it ends.
async fn stand(
    agent: &Arc<Agent>,
    link: &Arc<Link>,
    sender: Sender,
    receiver: Receiver,
    outbox: mpsc::Receiver<Control>,
) {
    let jobs = tokio::spawn(serve::streams(agent.clone(), link.clone()));
    let names = tokio::spawn(names(link.clone()));
    tokio::select! {
        () = said(agent, link, receiver) => {}
        () = say(sender, outbox) => {}
        _ = link.conn.closed() => {}
    }
    jobs.abort();
    names.abort();
    link.conn.close(close::DONE, "");
}

async fn say(mut sender: Sender, mut outbox: mpsc::Receiver<Control>) {
    while let Some(message) = outbox.recv().await {
        if sender.send(&message, limits::WELCOME_BYTES_MAX).await.is_err() {
            return;
        }
    }
}

async fn said(agent: &Arc<Agent>, link: &Link, mut receiver: Receiver) {
    loop {
        match receiver.receive(limits::WELCOME_BYTES_MAX, QUIET).await {
            Ok(Control::Load(load)) => {
                link.set_load(load);
                agent.slots(|intake, _| intake.wants(link.peer, load.wants.into()));
                agent.desk(|dispatcher, now| dispatcher.load(now, link.peer, load));
            }
            Ok(Control::Toolchains(list)) if list.len() <= limits::TOOLCHAINS_MAX => {
                link.set_toolchains(list);
                agent.tell_toolchains(link);
            }
            Ok(Control::Records(records)) if records.len() <= limits::SET_RECORDS_MAX => {
                if agent.mesh.merge(records).is_some() {
                    records_changed(agent);
                }
            }
            Ok(Control::Grant(grant)) => link.granted(grant),
            Ok(Control::Wanted(wanted)) => super::take::wanted(agent, link, wanted).await,
            Ok(Control::Arrival(arrival)) => agent.arrival(link, arrival),
            Ok(Control::Held(keys)) => agent.whereto.held(link.peer, &keys),
            Ok(Control::Leaving) => {
                let load = mesh_proto::message::Load {
                    closed: Some(mesh_proto::message::Closed::Leaving),
                    ..Default::default()
                };
                link.set_load(load);
                agent.desk(|dispatcher, now| dispatcher.load(now, link.peer, load));
            }
            Ok(_) | Err(_) => return,
        }
    }
}

async fn names(link: Arc<Link>) {
    let Ok(mut stream) = link.conn.accept_uni().await else { return };
    loop {
        match stream.receive::<NameBatch>(limits::FRAME_BYTES_MAX, QUIET).await {
            Ok(batch) => {
                if link.learn(batch).is_err() {
                    link.conn.close(close::MALFORMED, "names out of order");
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// New records: everybody connected is told, and who is no member any more is cut off.
pub(super) fn records_changed(agent: &Agent) {
    // Its role may be another one.
    agent.look_around();
    let Some((set, _)) = agent.mesh.set() else { return };
    let records: Vec<Record> = set.records();
    let members = agent.mesh.members();
    for link in agent.links.all() {
        if members.as_ref().is_none_or(|m| m.get(&link.peer).is_none()) {
            link.conn.close(close::NOT_MEMBER, "no member");
        } else {
            link.tell(Control::Records(records.clone()));
        }
    }
    agent.announce();
    agent.peers.wake.notify_one();
}

/// Tells all peers which compilers are run here for others.
pub(super) fn toolchains_changed(agent: &Agent, served: &[Fingerprint]) {
    for link in agent.links.all() {
        link.tell(Control::Toolchains(served.to_vec()));
    }
    agent.announce();
}

/// A machine that wants to join.
async fn newcomer(agent: Arc<Agent>, link: crate::net::endpoint::Link) {
    let admit = |request: &mesh_proto::pairing::JoinRequest, key: &PublicKey, role| {
        let failed = |why: String| NotAdmitted::Failed(why);
        if let Some(at_s) = agent.mesh.out_since(&key.peer()) {
            return Err(NotAdmitted::Forgotten { name: request.name.clone(), at_s });
        }
        let set = agent.mesh.admit(*key, &request.name, role).map_err(|e| failed(e.to_string()))?;
        let (_, disc_key) = agent.mesh.set().ok_or_else(|| failed("this machine is in no mesh".to_owned()))?;
        Ok(Welcome { records: set.records(), disc_key, addresses: agent.peers.known() })
    };
    let line = match agent.peers.inviter.serve(link, admit).await {
        Ok(admitted) => {
            records_changed(&agent);
            let r = &admitted.request;
            let id = admitted.key.peer().short();
            let line =
                format!("joined: {}  {id}   {} {}   {} cores   role {}", r.name, r.os, r.arch, r.cores, admitted.role);
            Ok((admitted.code.clone(), line))
        }
        Err(e) => Err(format!("mesh: {e}")),
    };
    match &line {
        Ok((_, line)) => tracing::info!("{line}"),
        Err(line) => tracing::warn!("{line}"),
    }
    agent.announce();
    let _ = agent.peers.pairings.send(line);
}
