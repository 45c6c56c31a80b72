//! Announcing, dialling, greeting, gossip: what `src/agent/peers.rs` does, in virtual time.

use crate::{
    checkers::Seen,
    link::{CONTROL, ConnId, HANDSHAKE_MAX, MS, NAMES, Parcel, SECOND},
    world::{Event, Nature, Timer, World},
};
use mesh::{agent::dial::Keep, sched::choose::Candidate};
use mesh_proto::{
    exchange::share::Grants,
    frame,
    hello::{Hello, Sync},
    limits,
    membership::{Record, RecordSet, Role},
    message::{Control, Load},
    naming::{NameBatch, Namer, Names},
    peer::PeerId,
    toolchain::Fingerprint,
};
use serde::{Serialize, de::DeserializeOwned};
use std::net::SocketAddr;

/// Between two announcements of one machine.
const ANNOUNCE_EVERY: u64 = 60 * SECOND;
/// Each frame of the greeting must come within this.
const FRAME_DEADLINE: u64 = 3 * SECOND;
/// A changed load is told after this.
const TELL_PAUSE: u64 = 20 * MS;

/// How far the greeting has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Hello,
    Hashes,
    Records,
    Stands,
}

/// One machine's end of a connection.
#[derive(Debug)]
pub(crate) struct LinkEnd {
    pub(crate) peer: usize,
    pub(crate) side: usize,
    pub(crate) phase: Phase,
    dialled: Option<SocketAddr>,
    /// The records that this end greeted with.
    set: RecordSet,
    theirs: Option<Hello>,
    pub(crate) namer: Namer,
    pub(crate) names: Names,
    /// What the peer granted to others.
    pub(crate) grants: Grants,
    pub(crate) load: Load,
    /// What the other side was told last.
    told: Option<Load>,
    pub(crate) in_flight: u32,
    toolchains: Vec<Fingerprint>,
}

impl LinkEnd {
    pub(crate) fn has(&self, toolchain: &Fingerprint) -> bool {
        self.toolchains.contains(toolchain)
    }

    pub(crate) fn candidate(&self, peer: PeerId, rtt_us: u64) -> Candidate {
        Candidate {
            peer,
            slots: u32::from(self.load.slots),
            credits: self.load.credits.into(),
            mine: self.in_flight,
            others: self.load.accepted.into(),
            speed: 1.0,
            overhead_us: 2 * rtt_us,
            has_memory: true,
        }
    }
}

/// A whole frame's message, if it is one.
pub(crate) fn message<T: DeserializeOwned>(parcel: &Parcel, bytes_max: usize) -> Option<T> {
    let (Parcel::Frame(bytes) | Parcel::Blob(bytes)) = parcel else { return None };
    match frame::parse(bytes, bytes_max) {
        Ok(frame::Parsed::Frame { message, used }) if used == bytes.len() => Some(message),
        _ => None,
    }
}

impl World {
    /// Sends a message on a stream of an end that is this machine's.
    pub(crate) fn send<T: Serialize>(&mut self, m: usize, conn: ConnId, stream: u32, message: &T) {
        let bytes = frame::encode(message, limits::JOB_TEXT_BYTES_MAX).expect("below every limit here");
        self.send_parcel(m, conn, stream, Parcel::Frame(bytes));
    }

    pub(crate) fn send_parcel(&mut self, m: usize, conn: ConnId, stream: u32, parcel: Parcel) {
        if let Some(end) = self.machines[m].ends.get(&conn) {
            self.net.send(&mut self.clock, conn, end.side, stream, parcel);
        }
    }

    /// Says over multicast where this machine is, to whom it reaches.
    pub(crate) fn announce_again(&mut self, m: usize) {
        self.announce(m);
        let pause = self.clock.random.between(ANNOUNCE_EVERY * 9 / 10, ANNOUNCE_EVERY);
        self.timer(m, pause, Timer::Announce);
    }

    pub(crate) fn announce(&mut self, m: usize) {
        if !self.machines[m].up || self.machines[m].set.is_none() {
            return;
        }
        let (addrs, group) = (self.machines[m].addrs.clone(), 1 + m as u64);
        for at in (0..self.machines.len()).filter(|at| *at != m) {
            // Multicast is lost now and then.
            if self.net.reachable(m, at) && !self.clock.random.chance(10) {
                let delay = self.net.delay(&mut self.clock, m, at);
                self.clock.after(delay, Event::Heard { at, addrs: addrs.clone(), group });
            }
        }
    }

    pub(crate) fn heard(&mut self, at: usize, addrs: &[SocketAddr], group: u64) {
        if self.machines[at].up && self.machines[at].set.is_some() {
            let now = self.local_ms(at);
            self.machines[at].dialer.heard_together(addrs, group, now);
            self.wake_dialer(at);
        }
    }

    /// Looks at what is due to be dialled, now.
    pub(crate) fn wake_dialer(&mut self, m: usize) {
        if self.machines[m].dial_at != Some(self.clock.now) {
            self.machines[m].dial_at = Some(self.clock.now);
            self.timer(m, 0, Timer::Dial);
        }
    }

    pub(crate) fn dial(&mut self, m: usize) {
        if self.machines[m].dial_at != Some(self.clock.now) {
            return;
        }
        let now = self.local_ms(m);
        let stranger = self.machines[m].nature == Nature::Stranger;
        if self.machines[m].role().is_none() && !stranger {
            return;
        }
        self.machines[m].dial_at = None;
        for (addr, expect) in self.machines[m].dialer.due(now) {
            let to = self.owners.get(&addr).copied();
            let delay = to.map(|to| 2 * self.net.delay(&mut self.clock, m, to));
            let in_time = delay.is_some_and(|d| d < HANDSHAKE_MAX);
            let wait = delay.unwrap_or(HANDSHAKE_MAX).min(HANDSHAKE_MAX);
            self.note("dialled", [m, to.unwrap_or(usize::MAX), usize::from(addr.port())]);
            let incarnation = self.machines[m].incarnation;
            self.clock.after(wait, Event::Handshake { from: m, incarnation, addr, expect, in_time });
        }
        if let Some(next) = self.machines[m].dialer.next_due_ms() {
            let wait = next.saturating_sub(now).max(1) * MS;
            let at = self.clock.now + wait;
            self.machines[m].dial_at = Some(at);
            self.timer(m, wait, Timer::Dial);
        }
    }

    fn dial_failed(&mut self, m: usize, addr: SocketAddr, wrong_key: bool) {
        let now = self.local_ms(m);
        let dialer = &mut self.machines[m].dialer;
        dialer.failed(addr, now);
        if wrong_key {
            // Another machine of the mesh has this address now.
            dialer.forget(addr);
            dialer.heard(addr, None, false, now);
        }
        self.wake_dialer(m);
    }

    pub(crate) fn handshake(&mut self, m: usize, addr: SocketAddr, expect: Option<PeerId>, in_time: bool) {
        let to = self.owners.get(&addr).copied();
        let Some(to) = to.filter(|to| in_time && self.machines[*to].up && self.net.reachable(m, *to)) else {
            return self.dial_failed(m, addr, false);
        };
        let (me, peer) = (self.machines[m].id, self.machines[to].id);
        let knows = |who: usize, whom: &PeerId| {
            self.machines[who].members.as_ref().is_some_and(|members| members.get(whom).is_some())
        };
        // A stranger does not care whom it meets; the other side's gate is what counts.
        let accepted = knows(to, &me);
        let wanted = knows(m, &peer) || self.machines[m].nature == Nature::Stranger;
        if expect.is_some_and(|p| p != peer) || !accepted || !wanted {
            self.note("turned away", [m, to, 0]);
            return self.dial_failed(m, addr, expect.is_some_and(|p| p != peer));
        }
        self.see(Seen::Handshake { dialler: m, other: to });
        if !self.machines[m].dialer.proved(addr, peer) {
            self.note("not greeted", [m, to, 0]);
            let now = self.local_ms(m);
            self.machines[m].dialer.ended_early(addr, now);
            return self.wake_dialer(m);
        }
        let conn = self.net.connect(m, to);
        self.note("handshake", [m, to, conn]);
        self.greet(m, conn, to, 0, Some(addr));
        self.greet(to, conn, m, 1, None);
    }

    fn greet(&mut self, m: usize, conn: ConnId, peer: usize, side: usize, dialled: Option<SocketAddr>) {
        let Some(set) = self.machines[m].set.clone() else { return };
        let slots = self.machines[m].slots;
        let hello = Hello {
            proto_min: 1,
            proto_max: 1,
            agent_version: "0.1.0".into(),
            mesh: set.mesh(),
            set_digest: set.digest(),
            role: self.machines[m].role(),
            name: format!("m{m}"),
            host_tag: [0; 16],
            slots,
            toolchains: self.served_toolchains(m),
            addresses: Vec::new(),
            now_s: self.now_s(),
        };
        let end = LinkEnd {
            peer,
            side,
            phase: Phase::Hello,
            dialled,
            set,
            theirs: None,
            namer: Namer::default(),
            names: Names::default(),
            grants: Grants::default(),
            load: Load::default(),
            told: None,
            in_flight: 0,
            toolchains: Vec::new(),
        };
        self.machines[m].ends.insert(conn, end);
        self.send(m, conn, CONTROL, &hello);
        self.timer(m, FRAME_DEADLINE * 3, Timer::Greeting { conn });
    }

    pub(crate) fn greeting_late(&mut self, m: usize, conn: ConnId) {
        if self.machines[m].ends.get(&conn).is_some_and(|e| e.phase != Phase::Stands) {
            self.note("greeting late", [m, conn, 0]);
            self.close(m, conn);
        }
    }

    /// Something came on the control stream.
    pub(crate) fn control_arrives(&mut self, m: usize, conn: ConnId, parcel: Parcel) {
        let end = &self.machines[m].ends[&conn];
        let went_well = match end.phase {
            Phase::Hello => self.hello_arrives(m, conn, message(&parcel, limits::HELLO_BYTES_MAX)),
            Phase::Hashes => match message(&parcel, limits::WELCOME_BYTES_MAX) {
                Some(Sync::Hashes(hashes)) if hashes.len() <= limits::SET_RECORDS_MAX => {
                    let missing = end.set.missing(&hashes);
                    self.send(m, conn, CONTROL, &Sync::Records(missing));
                    self.phase(m, conn, Phase::Records);
                    true
                }
                _ => false,
            },
            Phase::Records => match message(&parcel, limits::WELCOME_BYTES_MAX) {
                Some(Sync::Records(records)) if records.len() <= limits::SET_RECORDS_MAX => {
                    self.greeted(m, conn, records);
                    true
                }
                _ => false,
            },
            Phase::Stands => self.said(m, conn, message(&parcel, limits::WELCOME_BYTES_MAX)),
        };
        if !went_well {
            self.note("malformed", [m, conn, 0]);
            self.close(m, conn);
        }
    }

    fn phase(&mut self, m: usize, conn: ConnId, phase: Phase) {
        if let Some(end) = self.machines[m].ends.get_mut(&conn) {
            end.phase = phase;
        }
    }

    fn hello_arrives(&mut self, m: usize, conn: ConnId, hello: Option<Hello>) -> bool {
        let end = self.machines[m].ends.get_mut(&conn).expect("looked at above");
        let Some(hello) = hello.filter(|h| h.check(end.set.mesh()).is_ok()) else { return false };
        let equal = hello.set_digest == end.set.digest();
        end.theirs = Some(hello);
        if equal {
            self.greeted(m, conn, Vec::new());
        } else {
            let hashes = end.set.hashes();
            self.send(m, conn, CONTROL, &Sync::Hashes(hashes));
            self.phase(m, conn, Phase::Hashes);
        }
        true
    }

    /// The greeting is over: is this the connection to keep?
    fn greeted(&mut self, m: usize, conn: ConnId, records: Vec<Record>) {
        let greeted_with = self.machines[m].ends.get(&conn).map(|e| e.set.hashes()).unwrap_or_default();
        let in_common: Vec<_> = greeted_with.into_iter().chain(records.iter().map(Record::hash)).collect();
        self.merge(m, records);
        let Some(peer) = self.machines[m].ends.get(&conn).map(|e| e.peer) else { return };
        let id = self.machines[peer].id;
        let Some(end) = self.machines[m].ends.get_mut(&conn) else { return };
        let dialled = end.dialled;
        let Some(hello) = end.theirs.take() else { return };
        end.toolchains = hello.toolchains;
        if self.machines[m].members.as_ref().is_none_or(|members| members.get(&id).is_none()) {
            return self.close(m, conn);
        }
        let now = self.local_ms(m);
        match self.machines[m].dialer.connected(id, conn as u64, dialled, now) {
            Keep::Old => {
                self.note("kept the old", [m, peer, conn]);
                return self.close(m, conn);
            }
            Keep::Replaces(_) => {
                self.note("replaced", [m, peer, conn]);
                if let Some(old) = self.machines[m].links.get(&id).copied() {
                    self.machines[m].links.insert(id, conn);
                    self.close(m, old);
                }
            }
            Keep::New => self.note("kept", [m, peer, conn]),
        }
        self.machines[m].links.insert(id, conn);
        self.phase(m, conn, Phase::Stands);
        self.see(Seen::Stands { machine: m, peer, conn });
        let tag = (peer as u128).to_le_bytes();
        self.machines[m].intake.client(id, tag);
        self.tell_load_on(m, conn);
        let served = self.served_toolchains(m);
        self.send(m, conn, CONTROL, &Control::Toolchains(served));
        let late = self.machines[m].set.as_ref().map(|set| set.missing(&in_common)).unwrap_or_default();
        if !late.is_empty() {
            self.note("told late records", [m, conn, late.len()]);
            self.send(m, conn, CONTROL, &Control::Records(late));
        }
        self.wake_waiters(m);
        self.wake_dialer(m);
    }

    fn said(&mut self, m: usize, conn: ConnId, said: Option<Control>) -> bool {
        let end = self.machines[m].ends.get_mut(&conn).expect("looked at above");
        let end_peer = end.peer;
        match said {
            Some(Control::Load(load)) => {
                end.load = load;
                let peer = self.machines[end_peer].id;
                self.machines[m].intake.wants(peer, load.wants.into());
                self.wake_waiters(m);
            }
            Some(Control::Toolchains(list)) if list.len() <= limits::TOOLCHAINS_MAX => {
                end.toolchains = list;
                self.wake_waiters(m);
            }
            Some(Control::Records(records)) if records.len() <= limits::SET_RECORDS_MAX => self.merge(m, records),
            Some(Control::Leaving) => {
                end.load = Load::default();
                self.wake_waiters(m);
            }
            Some(Control::Grant(grant)) => {
                end.grants.take(grant.clone());
                let client = end.peer;
                let client = self.machines[client].id;
                self.machines[m].overheard.push((client, grant.key));
                self.all_give_more(m);
            }
            _ => return false,
        }
        true
    }

    /// Takes records in; what was new is told to everybody.
    pub(crate) fn merge(&mut self, m: usize, records: Vec<Record>) {
        let Some(mut set) = self.machines[m].set.clone() else { return };
        let merged = set.merge(records, &self.machines[m].key);
        if merged.refused > 0 {
            self.note("refused records", [m, merged.refused, 0]);
        }
        if merged.added > 0 {
            self.note("merged", [m, merged.added, 0]);
            self.enter(m, set);
            self.records_changed(m);
        }
    }

    pub(crate) fn records_changed(&mut self, m: usize) {
        let Some(records) = self.machines[m].set.as_ref().map(RecordSet::records) else { return };
        let links: Vec<ConnId> = self.machines[m].links.values().copied().collect();
        for conn in links {
            self.send(m, conn, CONTROL, &Control::Records(records.clone()));
        }
        self.wake_dialer(m);
    }

    /// Somebody with an owner's rights lets a machine in.
    pub(crate) fn join(&mut self, newcomer: usize, role: Role) {
        let may = |m: &usize| {
            let inviter = &self.machines[*m];
            inviter.up && inviter.role() == Some(Role::Owner) && self.net.reachable(*m, newcomer)
        };
        let inviters: Vec<usize> = (0..self.machines.len()).filter(|m| *m != newcomer).filter(may).collect();
        if inviters.is_empty() || !self.machines[newcomer].up {
            return;
        }
        let inviter = inviters[self.clock.random.index(inviters.len())];
        self.admit(inviter, newcomer, role);
        self.records_changed(inviter);
        let known: Vec<_> = self.machines[inviter].dialer.book().filter_map(|(a, p, _)| Some((a, p?))).collect();
        let now = self.local_ms(newcomer);
        for (addr, peer) in known {
            self.machines[newcomer].dialer.heard(addr, Some(peer), false, now);
        }
        let (addr, id) = (self.machines[inviter].addrs[0], self.machines[inviter].id);
        self.machines[newcomer].dialer.heard(addr, Some(id), false, now);
        self.wake_dialer(newcomer);
        self.announce(newcomer);
    }

    pub(crate) fn close(&mut self, m: usize, conn: ConnId) {
        if let Some(side) = self.machines[m].ends.get(&conn).map(|e| e.side) {
            self.net.shut(&mut self.clock, conn, side, true);
            self.link_ended(m, conn);
        }
    }

    /// An end is no more, for whatever reason.
    pub(crate) fn link_ended(&mut self, m: usize, conn: ConnId) {
        let Some(end) = self.machines[m].ends.remove(&conn) else { return };
        self.note("ended", [m, end.peer, conn]);
        let (id, now) = (self.machines[end.peer].id, self.local_ms(m));
        let machine = &mut self.machines[m];
        if machine.links.get(&id) == Some(&conn) {
            machine.links.remove(&id);
            machine.intake.left(id);
        }
        if end.phase == Phase::Stands {
            self.checkers.see(self.clock.now, Seen::Falls { machine: m, conn });
            machine.dialer.lost(id, conn as u64, now);
        } else if let Some(addr) = end.dialled {
            machine.dialer.ended_early(addr, now);
        }
        self.shares_lost(m, conn);
        self.jobs_lost(m, conn);
        self.requests_lost(m, conn);
        self.wake_dialer(m);
        self.wake_waiters(m);
    }

    pub(crate) fn names_arrive(&mut self, m: usize, conn: ConnId, parcel: Parcel) {
        let batch: Option<NameBatch> = message(&parcel, limits::FRAME_BYTES_MAX);
        let end = self.machines[m].ends.get_mut(&conn).expect("looked at above");
        if batch.is_some_and(|batch| end.names.learn(batch).is_ok()) {
            self.names_came(m, conn);
            self.all_give_more(m);
        } else {
            self.note("bad names", [m, conn, 0]);
            self.close(m, conn);
        }
    }

    /// The stream on which this end sends names.
    pub(crate) fn names_stream(&self, m: usize, conn: ConnId) -> u32 {
        NAMES[self.machines[m].ends[&conn].side]
    }

    /// The load is told soon, and whoever waits chooses again.
    pub(crate) fn load_changed(&mut self, m: usize) {
        if !self.machines[m].telling {
            self.machines[m].telling = true;
            self.timer(m, TELL_PAUSE, Timer::TellLoad);
        }
        self.wake_waiters(m);
    }

    pub(crate) fn tell_load(&mut self, m: usize) {
        self.machines[m].telling = false;
        let links: Vec<ConnId> = self.machines[m].links.values().copied().collect();
        links.into_iter().for_each(|conn| self.tell_load_on(m, conn));
    }

    /// Says how busy a machine is to one other, if that does not know.
    fn tell_load_on(&mut self, m: usize, conn: ConnId) {
        let load = self.load_for(m, conn);
        if let Some(end) = self.machines[m].ends.get_mut(&conn)
            && end.told.replace(load) != Some(load)
        {
            self.send(m, conn, CONTROL, &Control::Load(load));
        }
    }
}
