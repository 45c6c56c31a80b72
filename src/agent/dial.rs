//! Whom to dial and when, and which of two connections to keep (DECIDE).
//!
//! Addresses are hints and keys decide: an address is dialled, and who answers is known after the handshake. Times are
//! milliseconds since the agent started.

use mesh_proto::peer::PeerId;
use std::{collections::BTreeMap, net::SocketAddr};

/// The first pause after a failure, milliseconds; doubled at each further one.
const PAUSE_MS_MIN: u64 = 500;
/// The longest pause, milliseconds.
const PAUSE_MS_MAX: u64 = 60_000;
/// Addresses remembered, over all machines.
const TARGETS_MAX: usize = 1024;
/// Dials under way at once.
const DIALS_MAX: usize = 16;
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
}

impl Target {
    /// One more failure, and a longer pause.
    fn fail(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        let pause = PAUSE_MS_MIN << self.failures.min(10).saturating_sub(1);
        self.due_ms = now_ms + pause.min(PAUSE_MS_MAX);
    }
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
}

impl Dialer {
    /// An empty book of the machine `me`.
    #[must_use]
    pub fn new(me: PeerId) -> Self {
        Self { me, targets: BTreeMap::new(), live: BTreeMap::new() }
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

    fn heard_as(&mut self, addr: SocketAddr, peer: Option<PeerId>, fixed: bool, group: u64, now_ms: u64) {
        if self.targets.len() >= TARGETS_MAX && !self.targets.contains_key(&addr) {
            let worst = self.targets.iter().filter(|(_, t)| !t.fixed && !t.dialling).max_by_key(|(_, t)| t.failures);
            let Some(worst) = worst.map(|(a, _)| *a) else { return };
            self.targets.remove(&worst);
        }
        let fresh = Target { peer, failures: 0, due_ms: now_ms, dialling: false, greeting: false, fixed, group };
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

    /// The addresses to dial now. Each must be answered by [`Dialer::failed`] or [`Dialer::connected`].
    pub fn due(&mut self, now_ms: u64) -> Vec<(SocketAddr, Option<PeerId>)> {
        let under_way = self.targets.values().filter(|t| t.dialling).count();
        let mut groups: Vec<u64> = self.targets.values().filter(|t| t.dialling).map(|t| t.group).collect();
        let mut out = Vec::new();
        for (addr, target) in &mut self.targets {
            let connected = target.peer.is_some_and(|p| p == self.me || self.live.contains_key(&p));
            let free = !target.dialling && (target.group == 0 || !groups.contains(&target.group));
            if !connected && free && target.due_ms <= now_ms && under_way + out.len() < DIALS_MAX {
                target.dialling = true;
                groups.push(target.group);
                out.push((*addr, target.peer));
            }
        }
        out
    }

    /// When [`Dialer::due`] will next have something, if nothing else happens.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        let busy: Vec<u64> = self.targets.values().filter(|t| t.dialling && t.group != 0).map(|t| t.group).collect();
        let waits = |t: &&Target| {
            !t.dialling
                && !busy.contains(&t.group)
                && !t.peer.is_some_and(|p| p == self.me || self.live.contains_key(&p))
        };
        self.targets.values().filter(waits).map(|t| t.due_ms).min()
    }

    /// Nobody of the mesh answered there. A peer that was said to be there, and is not, is no longer.
    pub fn failed(&mut self, addr: SocketAddr, now_ms: u64) {
        if let Some(target) = self.targets.get_mut(&addr) {
            target.dialling = false;
            target.greeting = false;
            target.fail(now_ms);
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
        for target in self.targets.values_mut().filter(|t| t.peer == Some(peer)) {
            if now_ms >= live.since_ms.saturating_add(STEADY_MS) {
                target.failures = 0;
                target.due_ms = now_ms + PAUSE_MS_MIN / 5;
            } else {
                target.fail(now_ms);
            }
        }
    }

    /// The addresses known for a peer.
    pub fn addresses(&self, peer: PeerId) -> impl Iterator<Item = SocketAddr> {
        self.targets.iter().filter(move |(_, t)| t.peer == Some(peer)).map(|(a, _)| *a)
    }

    /// Everything known, for the file that outlives the agent.
    pub fn book(&self) -> impl Iterator<Item = (SocketAddr, Option<PeerId>, bool)> {
        self.targets.iter().map(|(a, t)| (*a, t.peer, t.fixed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn addr(n: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], n))
    }

    #[test]
    fn an_address_is_dialled_once_at_a_time_and_failures_pause_it() {
        let mut d = Dialer::new(id(1));
        d.heard(addr(1), None, false, 0);
        assert_eq!(d.due(0), vec![(addr(1), None)]);
        assert_eq!(d.due(0), vec![]);
        d.failed(addr(1), 0);
        assert_eq!(d.due(PAUSE_MS_MIN - 1), vec![]);
        assert_eq!(d.next_due_ms(), Some(PAUSE_MS_MIN));
        assert_eq!(d.due(PAUSE_MS_MIN).len(), 1);
        for _ in 0..100 {
            d.failed(addr(1), 0);
        }
        assert_eq!(d.next_due_ms(), Some(PAUSE_MS_MAX));
        d.heard(addr(1), None, false, 7);
        assert_eq!(d.due(7).len(), 1, "hearing of it again ends the pause");
    }

    #[test]
    fn both_sides_keep_the_same_of_two_connections() {
        // 1 and 2 dial each other at once; each sees both connections, in either order.
        for first_is_mine in [true, false] {
            let (mut one, mut two) = (Dialer::new(id(1)), Dialer::new(id(2)));
            one.heard(addr(2), None, false, 0);
            two.heard(addr(1), None, false, 0);
            let survivor = |d: &mut Dialer, me: u8, peer: u8| {
                let mut alive = std::collections::BTreeSet::new();
                // Link n was opened by machine n.
                let order = if first_is_mine { [me, peer] } else { [peer, me] };
                for opener in order {
                    let dialled = (opener == me).then(|| addr(u16::from(peer)));
                    match d.connected(id(peer), u64::from(opener), dialled, 0) {
                        Keep::New => drop(alive.insert(opener)),
                        Keep::Replaces(old) => {
                            alive.retain(|l| u64::from(*l) != old);
                            alive.insert(opener);
                        }
                        Keep::Old => {}
                    }
                }
                alive
            };
            let kept = survivor(&mut one, 1, 2);
            assert_eq!(kept, survivor(&mut two, 2, 1));
            assert_eq!(kept.into_iter().collect::<Vec<_>>(), vec![1]);
        }
    }

    #[test]
    fn a_connected_peers_addresses_rest_until_it_is_lost() {
        let mut d = Dialer::new(id(1));
        d.heard(addr(2), Some(id(2)), false, 0);
        d.heard(addr(3), Some(id(2)), false, 0);
        assert_eq!(d.due(0).len(), 2);
        assert_eq!(d.connected(id(2), 9, Some(addr(2)), 0), Keep::New);
        d.failed(addr(3), 0);
        assert_eq!(d.due(1_000_000), vec![]);
        assert_eq!(d.next_due_ms(), None);
        d.lost(id(2), 8, STEADY_MS);
        assert_eq!(d.due(1_000_000), vec![], "another link of it was lost");
        d.lost(id(2), 9, STEADY_MS);
        assert_eq!(d.due(STEADY_MS + PAUSE_MS_MIN / 5).len(), 2);
    }

    #[test]
    fn the_addresses_of_one_machine_are_dialled_one_after_the_other() {
        let mut d = Dialer::new(id(1));
        d.heard_together(&[addr(2), addr(3)], 7, 0);
        assert_eq!(d.due(0).len(), 1);
        assert_eq!(d.due(0), vec![]);
        d.failed(addr(2), 0);
        assert_eq!(d.due(0), vec![(addr(3), None)]);
        assert!(d.proved(addr(3), id(2)));
        d.connected(id(2), 1, Some(addr(3)), 0);
        assert_eq!(d.due(1_000_000), vec![], "the other address leads to the same machine");
    }

    #[test]
    fn an_address_of_a_machine_that_is_connected_otherwise_is_dialled_no_more() {
        let mut d = Dialer::new(id(1));
        d.connected(id(2), 1, None, 0);
        d.heard(addr(2), None, false, 0);
        assert_eq!(d.due(0).len(), 1);
        assert!(!d.proved(addr(2), id(2)));
        d.ended_early(addr(2), 0);
        assert_eq!(d.due(1_000_000), vec![]);
    }

    #[test]
    fn of_two_dials_to_one_machine_only_the_first_greets() {
        let mut d = Dialer::new(id(1));
        d.heard(addr(2), None, false, 0);
        d.heard(addr(3), None, false, 0);
        assert_eq!(d.due(0).len(), 2);
        assert!(d.proved(addr(3), id(2)));
        assert!(!d.proved(addr(2), id(2)), "one greeting is under way");
        d.ended_early(addr(2), 0);
        d.ended_early(addr(3), 0);
        assert_eq!(d.due(PAUSE_MS_MIN).len(), 2);
        assert!(d.proved(addr(2), id(2)), "that greeting came to nothing");
    }

    #[test]
    fn a_machine_that_was_restarted_replaces_its_old_connection_at_once() {
        let (mut at_once, mut later) = (Dialer::new(id(1)), Dialer::new(id(1)));
        for d in [&mut at_once, &mut later] {
            d.heard(addr(2), None, false, 0);
            assert_eq!(d.connected(id(2), 7, Some(addr(2)), 0), Keep::New);
        }
        assert_eq!(at_once.connected(id(2), 8, None, AT_ONCE_MS - 1), Keep::Old);
        assert_eq!(later.connected(id(2), 8, None, AT_ONCE_MS), Keep::Replaces(7));
    }

    #[test]
    fn a_connection_that_is_closed_again_and_again_is_not_dialled_in_a_storm() {
        let mut d = Dialer::new(id(2));
        d.heard(addr(1), None, false, 0);
        let (mut now, mut dials) = (0, 0);
        while now < 10_000 {
            for (addr, _) in d.due(now) {
                dials += 1;
                assert!(d.proved(addr, id(1)));
                d.connected(id(1), dials, Some(addr), now);
                d.lost(id(1), dials, now);
            }
            now += 10;
        }
        assert!((2..=6).contains(&dials), "{dials} dials in ten seconds");
    }

    #[test]
    fn this_machines_own_address_is_not_dialled_again() {
        let mut d = Dialer::new(id(1));
        d.heard(addr(2), Some(id(1)), false, 0);
        assert_eq!(d.due(0), vec![]);
    }
}
