//! Whom to dial and when, and which of two connections to keep (DECIDE).
//!
//! Addresses are hints and keys decide: an address is dialled, and who answers is known after the handshake. Times are
//! milliseconds since the agent started.

use mesh_proto::peer::PeerId;
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
};

/// The first pause after a failure, milliseconds; doubled at each further one.
const PAUSE_MS_MIN: u64 = 500;
/// The longest pause, milliseconds.
const PAUSE_MS_MAX: u64 = 60_000;
/// Addresses remembered, over all machines.
const TARGETS_MAX: usize = 1024;
/// Addresses remembered of one machine.
const TARGETS_OF_ONE_MAX: usize = 32;
/// Dials under way at once.
const DIALS_MAX: usize = 16;
/// Dials to one machine under way at once.
const DIALS_TO_ONE_MAX: usize = 2;
/// So much later than the better address of a machine the next one is tried, milliseconds: most answer before.
const STAGGER_MS: u64 = 150;
/// Two machines that dial each other at once have both connections standing within this, milliseconds: every frame of a
/// greeting has its own limit of seconds.
const AT_ONCE_MS: u64 = 15_000;
/// A connection that ends before this age counts as a failure of its address, milliseconds.
const STEADY_MS: u64 = 5_000;

/// An address, as far as dialling goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    /// Who answered there, or is said to.
    peer: Option<PeerId>,
    failures: u32,
    due_ms: u64,
    dialling: bool,
    /// The handshake is over and the greeting is not.
    greeting: bool,
    /// Kept although it fails: the user named it.
    fixed: bool,
    /// Addresses of one announcement lead to one machine: they are dialled one after the other. 0: none.
    group: u64,
    /// When a member was last proved to be there, as a number that grows with each proof. 0: never.
    proved: u64,
    /// What failed here came after that.
    gone: bool,
}

impl Target {
    /// One more failure, and a longer pause. It is shortened by up to a quarter, each machine and address by an amount of
    /// its own: machines that lost each other in one moment do not all come back in one moment.
    fn fail(&mut self, now_ms: u64, seed: u64) {
        self.failures = self.failures.saturating_add(1);
        self.gone = true;
        let pause = (PAUSE_MS_MIN << self.failures.min(10).saturating_sub(1)).min(PAUSE_MS_MAX);
        let mut hasher = DefaultHasher::new();
        (seed, self.failures).hash(&mut hasher);
        self.due_ms = now_ms + pause - hasher.finish() % (pause / 4 + 1);
    }

    /// Dialled first is what failed least, then where somebody was proved to be last, then what is nearest.
    fn rank(&self, addr: SocketAddr) -> (u32, Reverse<u64>, u8, SocketAddr) {
        (self.failures, Reverse(self.proved), distance(addr), addr)
    }
}

/// How far an address is, by its kind alone: this machine, this link or site, a tunnel, anywhere.
fn distance(addr: SocketAddr) -> u8 {
    match addr.ip() {
        ip if ip.is_loopback() => 0,
        IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() => 1,
        IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_unique_local() => 1,
        // RFC 6598, which VPNs use for their members.
        IpAddr::V4(ip) if ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64 => 2,
        _ => 3,
    }
}

/// Whether an address can be dialled at all.
fn is_dialable(addr: SocketAddr) -> bool {
    let ip = addr.ip();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// Whether an address means the same machine here and at `to`.
fn means_the_same_at(addr: SocketAddr, to: SocketAddr) -> bool {
    match addr.ip() {
        ip if ip.is_loopback() => to.ip().is_loopback(),
        // Both kinds belong to one link, and the number of an interface to one machine.
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}

/// A number of the pair of a machine and an address.
fn seed(me: PeerId, addr: SocketAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    (me.0, addr).hash(&mut hasher);
    hasher.finish()
}

/// A connection that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Live {
    link: u64,
    opener: PeerId,
    since_ms: u64,
}

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is the one.
    New,
    /// It is the one, and this older one is to be closed.
    Replaces(u64),
    /// The older one stays: close the new one.
    Old,
}

/// The address book and the connections.
#[derive(Debug)]
pub struct Dialer {
    me: PeerId,
    targets: BTreeMap<SocketAddr, Target>,
    live: BTreeMap<PeerId, Live>,
    /// How often a member was proved to be at an address.
    proofs: u64,
}

impl Dialer {
    /// An empty book of the machine `me`.
    #[must_use]
    pub fn new(me: PeerId) -> Self {
        Self { me, targets: BTreeMap::new(), live: BTreeMap::new(), proofs: 0 }
    }

    /// An address was heard of: it is due at once, whatever failed before.
    pub fn heard(&mut self, addr: SocketAddr, peer: Option<PeerId>, fixed: bool, now_ms: u64) {
        self.heard_as(addr, peer, fixed, 0, now_ms);
    }

    /// Addresses that lead to one machine were heard of, the best first.
    pub fn heard_together(&mut self, addrs: &[SocketAddr], group: u64, now_ms: u64) {
        // One machine has one group: an address that it announced before its restart takes the new one.
        let known = addrs.iter().find_map(|a| self.targets.get(a).and_then(|t| t.peer));
        for addr in addrs {
            self.heard_as(*addr, known, false, group, now_ms);
        }
    }

    /// What the book of an earlier run says: the best first. Each is due at once, and its place in the order is kept.
    pub fn remembered(&mut self, book: impl DoubleEndedIterator<Item = (SocketAddr, Option<PeerId>)>) {
        for (addr, peer) in book.rev() {
            self.heard(addr, peer, false, 0);
            self.prove(addr);
        }
    }

    /// Another member says that there may be somebody. That is no reason to end a pause: who is wrong, or wants to do harm,
    /// could have this machine dial an address as often as it says so.
    pub fn told(&mut self, addr: SocketAddr, now_ms: u64) {
        if is_dialable(addr) && !self.targets.contains_key(&addr) {
            self.heard(addr, None, false, now_ms);
        }
    }

    /// A connection with `peer` comes from this address, or has moved to it.
    pub fn observed(&mut self, addr: SocketAddr, peer: PeerId, now_ms: u64) {
        if !self.targets.contains_key(&addr) {
            self.heard(addr, Some(peer), false, now_ms);
        }
        if let Some(target) = self.targets.get_mut(&addr) {
            target.peer = Some(peer);
        }
        self.prove(addr);
    }

    /// The addresses that a member at `to` may be told, at most `max`, the best first: those where others were proved to
    /// be, if they mean the same there. Addresses of the whole internet are told only if the user named them here.
    #[must_use]
    pub fn tell(&self, peer: PeerId, to: SocketAddr, max: usize) -> Vec<SocketAddr> {
        const ANYWHERE: u8 = 3;
        let tellable = |(addr, t): &(&SocketAddr, &Target)| {
            t.proved > 0
                && !t.gone
                && t.peer.is_some_and(|p| p != peer && p != self.me)
                && means_the_same_at(**addr, to)
                && (t.fixed || distance(**addr) < ANYWHERE)
        };
        let mut all: Vec<_> = self.targets.iter().filter(tellable).collect();
        all.sort_by_key(|(addr, t)| t.rank(**addr));
        all.into_iter().map(|(addr, _)| *addr).take(max).collect()
    }

    fn prove(&mut self, addr: SocketAddr) {
        self.proofs += 1;
        if let Some(target) = self.targets.get_mut(&addr) {
            target.proved = self.proofs;
            target.gone = false;
        }
    }

    /// Makes room for one more address of a machine.
    fn trim(&mut self, peer: PeerId) {
        if self.addresses(peer).count() >= TARGETS_OF_ONE_MAX {
            let of_it = self.targets.iter().filter(|(_, t)| t.peer == Some(peer) && !t.fixed && !t.dialling);
            if let Some(worst) = of_it.max_by_key(|(a, t)| t.rank(**a)).map(|(a, _)| *a) {
                self.targets.remove(&worst);
            }
        }
    }

    fn heard_as(&mut self, addr: SocketAddr, peer: Option<PeerId>, fixed: bool, group: u64, now_ms: u64) {
        if self.targets.len() >= TARGETS_MAX && !self.targets.contains_key(&addr) {
            let worst = self.targets.iter().filter(|(_, t)| !t.fixed && !t.dialling).max_by_key(|(a, t)| t.rank(**a));
            let Some(worst) = worst.map(|(a, _)| *a) else { return };
            self.targets.remove(&worst);
        }
        if let Some(peer) = peer.filter(|_| !self.targets.contains_key(&addr)) {
            self.trim(peer);
        }
        let fresh = Target {
            peer,
            failures: 0,
            due_ms: now_ms,
            dialling: false,
            greeting: false,
            fixed,
            group,
            proved: 0,
            gone: false,
        };
        let target = self.targets.entry(addr).or_insert(fresh);
        target.peer = peer.or(target.peer);
        target.fixed |= fixed;
        target.group = if group == 0 { target.group } else { group };
        target.failures = 0;
        target.due_ms = target.due_ms.min(now_ms);
    }

    /// The user no longer wants this address.
    pub fn forget(&mut self, addr: SocketAddr) {
        self.targets.remove(&addr);
    }

    /// The addresses to dial now, the best first. Each must be answered by [`Dialer::failed`] or [`Dialer::connected`]. Of
    /// one machine's addresses the best is dialled, and [`STAGGER_MS`] later the next one beside it.
    pub fn due(&mut self, now_ms: u64) -> Vec<(SocketAddr, Option<PeerId>)> {
        let mut room = DIALS_MAX.saturating_sub(self.targets.values().filter(|t| t.dialling).count());
        let mut ranked: Vec<(_, SocketAddr)> = Vec::new();
        ranked.extend(self.targets.iter().filter(|(_, t)| t.due_ms <= now_ms).map(|(a, t)| (t.rank(*a), *a)));
        ranked.sort();
        let mut out = Vec::new();
        for (_, addr) in ranked {
            if room == 0 {
                break;
            }
            // What was chosen before this one may have put it off.
            let Some(target) = self.targets.get(&addr).filter(|t| t.due_ms <= now_ms && self.waits(t)) else {
                continue;
            };
            let peer = target.peer;
            for (other, t) in &mut self.targets {
                if *other == addr {
                    t.dialling = true;
                } else if peer.is_some() && t.peer == peer && !t.dialling {
                    t.due_ms = t.due_ms.max(now_ms + STAGGER_MS);
                }
            }
            room -= 1;
            out.push((addr, peer));
        }
        out
    }

    /// Whether only the time keeps an address from being dialled.
    fn waits(&self, target: &Target) -> bool {
        let connected = target.peer.is_some_and(|p| p == self.me || self.live.contains_key(&p));
        let mut under_way = self.targets.values().filter(|t| t.dialling);
        if target.dialling || connected {
            return false;
        }
        if target.group != 0 && under_way.clone().any(|t| t.group == target.group) {
            return false;
        }
        target.peer.is_none() || under_way.by_ref().filter(|t| t.peer == target.peer).count() < DIALS_TO_ONE_MAX
    }

    /// When [`Dialer::due`] will next have something, if nothing else happens.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        if self.targets.values().filter(|t| t.dialling).count() >= DIALS_MAX {
            return None;
        }
        self.targets.values().filter(|t| self.waits(t)).map(|t| t.due_ms).min()
    }

    /// Nobody of the mesh answered there. A peer that was said to be there, and is not, is no longer.
    pub fn failed(&mut self, addr: SocketAddr, now_ms: u64) {
        let seed = seed(self.me, addr);
        if let Some(target) = self.targets.get_mut(&addr) {
            target.dialling = false;
            target.greeting = false;
            target.fail(now_ms, seed);
        }
    }

    /// Another key answered there than was expected: whoever it is, after a pause anybody of the mesh may be there.
    pub fn answered_by_another(&mut self, addr: SocketAddr, now_ms: u64) {
        self.failed(addr, now_ms);
        if let Some(target) = self.targets.get_mut(&addr) {
            target.peer = None;
            target.group = 0;
            target.proved = 0;
        }
    }

    /// The handshake has shown who is at an address, and so at the others of its machine: while a connection to that
    /// machine stands, none of them is dialled again, whatever becomes of this one.
    ///
    /// `false` if a connection to it stands or another one is being greeted on: this one is to be closed before a word is
    /// said. Only its opener can tell: of two connections that one side opened, the two sides, which see them in
    /// different orders, would each close the other one.
    #[must_use]
    pub fn proved(&mut self, addr: SocketAddr, peer: PeerId) -> bool {
        let mut greets = self.targets.iter().filter(|(a, t)| **a != addr && t.greeting && t.peer == Some(peer));
        let first = !self.live.contains_key(&peer) && greets.next().is_none();
        if let Some(target) = self.targets.get_mut(&addr) {
            target.peer = Some(peer);
            target.greeting = first;
            let group = target.group;
            for other in self.targets.values_mut().filter(|t| t.group == group && group != 0) {
                other.peer = Some(peer);
            }
        }
        self.prove(addr);
        first
    }

    /// A connection that was opened there ended before it stood.
    pub fn ended_early(&mut self, addr: SocketAddr, now_ms: u64) {
        if self.targets.get(&addr).is_some_and(|t| t.dialling) {
            self.failed(addr, now_ms);
        }
    }

    /// A connection to `peer` stands; `dialled` is the address if this machine opened it. Of two connections that were
    /// opened at once the one by the smaller id is kept, so that both sides keep the same.
    pub fn connected(&mut self, peer: PeerId, link: u64, dialled: Option<SocketAddr>, now_ms: u64) -> Keep {
        let opener = if dialled.is_some() { self.me } else { peer };
        if let Some(target) = dialled.and_then(|addr| self.targets.get_mut(&addr)) {
            target.dialling = false;
            target.greeting = false;
        }
        let new = Live { link, opener, since_ms: now_ms };
        match self.live.get(&peer).copied() {
            None => {
                self.live.insert(peer, new);
                Keep::New
            }
            // By the same side, or by the other one long afterwards: it would not have greeted if it still knew of the
            // first, which has died without our knowing.
            Some(old)
                if old.opener == opener || opener < old.opener || now_ms >= old.since_ms.saturating_add(AT_ONCE_MS) =>
            {
                self.live.insert(peer, new);
                Keep::Replaces(old.link)
            }
            Some(_) => Keep::Old,
        }
    }

    /// A connection ended. If it was a steady one its addresses are due at once, and then with pauses; if not, it was one
    /// more failure.
    pub fn lost(&mut self, peer: PeerId, link: u64, now_ms: u64) {
        let Some(live) = self.live.get(&peer).copied().filter(|l| l.link == link) else { return };
        self.live.remove(&peer);
        let me = self.me;
        for (addr, target) in self.targets.iter_mut().filter(|(_, t)| t.peer == Some(peer)) {
            if now_ms >= live.since_ms.saturating_add(STEADY_MS) {
                target.failures = 0;
                target.due_ms = now_ms + PAUSE_MS_MIN / 5;
            } else {
                target.fail(now_ms, seed(me, *addr));
            }
        }
    }

    /// The addresses known for a peer.
    pub fn addresses(&self, peer: PeerId) -> impl Iterator<Item = SocketAddr> {
        self.targets.iter().filter(move |(_, t)| t.peer == Some(peer)).map(|(a, _)| *a)
    }

    /// Everything known, for the file that outlives the agent: where a member was proved to be last comes first.
    pub fn book(&self) -> impl Iterator<Item = (SocketAddr, Option<PeerId>, bool)> {
        let mut all: Vec<_> = self.targets.iter().collect();
        all.sort_by_key(|(addr, t)| (Reverse(t.proved), **addr));
        all.into_iter().map(|(a, t)| (*a, t.peer, t.fixed))
    }
}

#[cfg(test)]
mod tests;
