//! Machines, the queue of events and the virtual clock; what befalls machines.
//!
//! One world is one seed: nothing in it reads a real clock, a file, a thread or a hash map's order. The decisions are the
//! product's own (`mesh_proto::exchange`, `naming`, `membership`, `mesh::sched`, `mesh::agent::dial`); the simulation
//! does in `peers.rs`, `client.rs` and `provider.rs` what `src/agent` does around them.

use crate::{
    checkers::{Checkers, Seen, View},
    client::Request,
    liar::Lie,
    link::{ConnId, MS, Micros, Net, Pace, Parcel, SECOND, Stream},
    peers::LinkEnd,
    provider::Serving,
    random::Random,
    share::{Asking, Giving},
};
use mesh::{agent::dial::Dialer, sched::intake::Intake};
use mesh_proto::{
    digest::Digest,
    exchange::share::GrantKey,
    membership::{Admit, Body, Genesis, Members, PublicKey, Record, RecordSet, Role, Sign, Verify},
    peer::PeerId,
    toolchain::Fingerprint,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// Seconds since 1970 when a world begins.
const EPOCH_S: u64 = 1_800_000_000;
/// Headers in every machine's copy of the project.
pub(crate) const HEADERS: usize = 10;

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A parcel has come to an end of a connection.
    Arrives { conn: ConnId, side: usize, stream: Stream, number: u32, parcel: Parcel },
    /// An end hears that the other one closed.
    ShutHeard { conn: ConnId, side: usize },
    /// An end may have heard nothing for too long.
    Idle { conn: ConnId, side: usize },
    /// A handshake has come to its end, well or not.
    Handshake { from: usize, incarnation: u32, addr: SocketAddr, expect: Option<PeerId>, in_time: bool },
    /// An announcement is heard.
    Heard { at: usize, addrs: Vec<SocketAddr>, group: u64 },
    /// A machine's own timer; void after a restart.
    Timer { machine: usize, incarnation: u32, timer: Timer },
    /// Something befalls the world.
    Fate(Fate),
}

#[derive(Debug)]
pub(crate) enum Timer {
    Dial,
    Announce,
    TellLoad,
    Greeting { conn: ConnId },
    Request { request: u32, step: u32 },
    LocalEnds,
    Waiters,
    Job { conn: ConnId, stream: Stream, step: u32 },
    Ask { conn: ConnId, stream: Stream, step: u32 },
    Give { conn: ConnId, stream: Stream, step: u32 },
    Lie,
}

/// What the scenario does to the machines.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    Ask { machine: usize, count: u32 },
    Cancel { machine: usize },
    Edit { machine: usize },
    Crash { machine: usize },
    Start { machine: usize },
    Move { machine: usize },
    Cut { island: BTreeSet<usize> },
    Heal,
    Join { newcomer: usize, role: Role },
}

/// Time, order and chance.
#[derive(Debug)]
pub(crate) struct Clock {
    pub(crate) now: Micros,
    pub(crate) random: Random,
    queue: BTreeMap<(Micros, u64), Event>,
    scheduled: u64,
}

impl Clock {
    pub(crate) fn after(&mut self, wait: Micros, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + wait, self.scheduled), event);
    }
}

/// A hash over everything that happened, and the words if they are wanted.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    pub(crate) speaks: bool,
    /// How often what happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// A stand-in for Ed25519: a signature is a hash under the public key. Liars sign with a wrong one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key(pub(crate) u8);

impl Sign for Key {
    fn public_key(&self) -> PublicKey {
        PublicKey([self.0; 32])
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let half = *blake3::keyed_hash(&[self.0; 32], message).as_bytes();
        [half, half].concat().try_into().expect("twice 32 bytes")
    }
}

impl Verify for Key {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
        Key(key.0[0]).sign(message) == *signature
    }
}

/// What a machine is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    Honest,
    /// Breaks the rules, as a client and as a provider.
    Liar,
    /// Was never admitted and tries all the same.
    Stranger,
}

/// One machine: disk, memory, and what it believes.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) key: Key,
    pub(crate) id: PeerId,
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) nature: Nature,
    pub(crate) up: bool,
    pub(crate) incarnation: u32,
    booted: Micros,
    pub(crate) set: Option<RecordSet>,
    pub(crate) members: Option<Members>,
    pub(crate) dialer: Dialer,
    pub(crate) dial_at: Option<Micros>,
    pub(crate) ends: BTreeMap<ConnId, LinkEnd>,
    /// The connections that stand, one a peer.
    pub(crate) links: BTreeMap<PeerId, ConnId>,
    pub(crate) toolchains: Vec<Fingerprint>,
    pub(crate) cores: u32,
    pub(crate) slots: u32,
    /// A compile's time here, in hundredths of what it takes elsewhere.
    pub(crate) slowness: u64,
    pub(crate) intake: Intake,
    pub(crate) jobs: BTreeMap<(ConnId, Stream), Serving>,
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    /// Fetches from other providers, and theirs from here.
    pub(crate) asks: BTreeMap<(ConnId, Stream), Asking>,
    pub(crate) gives: BTreeMap<(ConnId, Stream), Giving>,
    /// Where a file was named first, and what was granted: on which link, for which.
    pub(crate) holders: BTreeMap<u32, ConnId>,
    pub(crate) keys: BTreeMap<(ConnId, ConnId), GrantKey>,
    /// Keys that were granted to others, and by whom: nothing to an honest machine.
    pub(crate) overheard: Vec<(PeerId, GrantKey)>,
    /// Compilers of this machine's own user.
    pub(crate) own: u32,
    pub(crate) telling: bool,
    pub(crate) waking: bool,
    pub(crate) requests: BTreeMap<u32, Request>,
    pub(crate) by_stream: BTreeMap<(ConnId, Stream), u32>,
    /// Versions of the headers.
    pub(crate) headers: Vec<u32>,
    /// Entries by what they are, as the include graph numbers them.
    pub(crate) entry_ids: BTreeMap<(Vec<u8>, u32), u32>,
}

impl Machine {
    fn new(index: usize) -> Self {
        let key = Key(u8::try_from(index + 1).expect("few machines"));
        let id = key.public_key().peer();
        Self {
            key,
            id,
            addrs: Vec::new(),
            nature: Nature::Honest,
            up: true,
            incarnation: 0,
            booted: 0,
            set: None,
            members: None,
            dialer: Dialer::new(id),
            dial_at: None,
            ends: BTreeMap::new(),
            links: BTreeMap::new(),
            toolchains: vec![toolchain(0)],
            cores: 4,
            slots: 4,
            slowness: 100,
            intake: Intake::default(),
            jobs: BTreeMap::new(),
            blobs: BTreeMap::new(),
            asks: BTreeMap::new(),
            gives: BTreeMap::new(),
            holders: BTreeMap::new(),
            keys: BTreeMap::new(),
            overheard: Vec::new(),
            own: 0,
            telling: false,
            waking: false,
            requests: BTreeMap::new(),
            by_stream: BTreeMap::new(),
            headers: vec![0; HEADERS],
            entry_ids: BTreeMap::new(),
        }
    }

    pub(crate) fn role(&self) -> Option<Role> {
        self.members.as_ref()?.get(&self.id).map(|m| m.role)
    }
}

/// The compilers there are.
pub(crate) fn toolchain(n: u8) -> Fingerprint {
    Fingerprint(Digest([n; 32]))
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) net: Net,
    pub(crate) machines: Vec<Machine>,
    pub(crate) checkers: Checkers,
    pub(crate) trace: Trace,
    pub(crate) step: u64,
    /// Who is at an address now.
    pub(crate) owners: BTreeMap<SocketAddr, usize>,
    next_port: u16,
    pub(crate) next_request: u32,
    /// Users who insist on other machines, in a hundred requests.
    pub(crate) force_percent: u64,
    /// Every machine also knows all addresses one by one, as if typed by a person.
    pub(crate) typed_addresses: bool,
    /// The longest ordinary compile.
    pub(crate) compile_max: Micros,
    /// From then on liars keep quiet.
    pub(crate) lies_until: Micros,
    /// They sign long chains of admissions, which makes a world slow.
    pub(crate) lies_in_chains: bool,
    /// The one lie that all of them tell, always.
    pub(crate) conspiracy: Option<Lie>,
}

impl World {
    /// Machines that know nothing of each other; machine 0 has founded a mesh.
    pub(crate) fn new(seed: u64, machines: usize, pace: Pace) -> Self {
        let clock = Clock { now: 0, random: Random::new(seed), queue: BTreeMap::new(), scheduled: 0 };
        let mut world = Self {
            clock,
            net: Net::new(pace),
            machines: (0..machines).map(Machine::new).collect(),
            checkers: Checkers::default(),
            trace: Trace::default(),
            step: 0,
            owners: BTreeMap::new(),
            next_port: 1,
            next_request: 0,
            force_percent: 50,
            typed_addresses: false,
            compile_max: 2 * SECOND,
            lies_until: 0,
            lies_in_chains: false,
            conspiracy: None,
        };
        for m in 0..machines {
            if world.clock.random.chance(40) {
                world.machines[m].toolchains.push(toolchain(1));
            }
            let cores = u32::try_from(world.clock.random.between(1, 4)).expect("few");
            world.machines[m].cores = cores;
            world.machines[m].slots = cores;
            let slots = world.machines[m].slots;
            world.checkers.see(0, Seen::Slots { provider: m, slots });
            for _ in 0..world.clock.random.between(1, 2) {
                world.add_address(m);
            }
        }
        let founder = world.machines[0].key;
        let (nonce, name) = ([0; 16], "m0".to_owned());
        let genesis = Genesis { nonce, founder: founder.public_key(), founder_name: name, mesh_name: "desk".into() };
        let record = Record::sign(&Body::Genesis(genesis), &founder).expect("a name that is allowed");
        let set = RecordSet::new(record, &founder).expect("signed by itself");
        world.enter(0, set);
        world.checkers.see(0, Seen::Admitted { machine: 0, role: Role::Owner });
        world
    }

    fn add_address(&mut self, m: usize) {
        let addr = SocketAddr::from(([10, 0, 0, 1], self.next_port));
        self.next_port += 1;
        self.machines[m].addrs.push(addr);
        self.owners.insert(addr, m);
    }

    /// Takes a set as the machine's own and decides who is a member.
    pub(crate) fn enter(&mut self, m: usize, set: RecordSet) {
        let now_s = self.now_s();
        self.machines[m].members = Some(set.evaluate(now_s));
        self.machines[m].set = Some(set);
    }

    /// An owner signs a machine's admission; both then hold the same records.
    pub(crate) fn admit(&mut self, inviter: usize, newcomer: usize, role: Role) {
        let Some(mut set) = self.machines[inviter].set.clone() else { return };
        let (issuer, subject) = (self.machines[inviter].key, self.machines[newcomer].key.public_key());
        let admit = Admit {
            mesh: set.mesh(),
            subject,
            name: format!("m{newcomer}"),
            role,
            not_after: None,
            issuer: issuer.public_key().peer(),
            issued: self.now_s(),
        };
        let record = Record::sign(&Body::Admit(admit), &issuer).expect("a name that is allowed");
        set.merge(vec![record], &issuer);
        self.checkers.see(self.clock.now, Seen::Admitted { machine: newcomer, role });
        let welcome = RecordSet::from_records(set.records(), &issuer).expect("a whole set");
        self.enter(inviter, set);
        self.enter(newcomer, welcome);
        self.note("joined", [inviter, newcomer, 0]);
    }

    pub(crate) fn now_s(&self) -> u64 {
        EPOCH_S + self.clock.now / SECOND
    }

    /// Milliseconds since a machine's agent started.
    pub(crate) fn local_ms(&self, m: usize) -> u64 {
        (self.clock.now - self.machines[m].booted) / MS
    }

    pub(crate) fn timer(&mut self, machine: usize, wait: Micros, timer: Timer) {
        let incarnation = self.machines[machine].incarnation;
        self.clock.after(wait, Event::Timer { machine, incarnation, timer });
    }

    pub(crate) fn fate(&mut self, at: Micros, fate: Fate) {
        let wait = at.saturating_sub(self.clock.now);
        self.clock.after(wait, Event::Fate(fate));
    }

    /// Puts something into the trace.
    pub(crate) fn note(&mut self, what: &'static str, numbers: [usize; 3]) {
        let mut hash = self.trace.hash ^ self.clock.now;
        for byte in what.bytes().map(u64::from).chain(numbers.iter().map(|n| *n as u64)) {
            hash = (hash ^ byte).wrapping_mul(0x0100_0000_01b3);
        }
        self.trace.hash = hash.rotate_left(17);
        *self.trace.counts.entry(what).or_default() += 1;
        if self.trace.speaks {
            println!("{:>12} µs  step {:>6}  {what} {numbers:?}", self.clock.now, self.step);
        }
    }

    pub(crate) fn see(&mut self, seen: Seen<'_>) {
        self.checkers.see(self.clock.now, seen);
    }

    /// What the honest members believe that are up.
    pub(crate) fn views(&self) -> Vec<View> {
        let mut views = Vec::new();
        for (machine, m) in self.machines.iter().enumerate() {
            let Some(set) = m.set.as_ref().filter(|_| m.up && m.nature != Nature::Stranger) else { continue };
            let links = m.links.values().map(|conn| (m.ends[conn].peer, *conn)).collect();
            let mut open = BTreeMap::new();
            for end in m.ends.values() {
                *open.entry(end.peer).or_default() += 1;
            }
            views.push(View { machine, records: set.digest(), links, open });
        }
        views
    }

    /// Begins: everybody who is up looks around.
    pub(crate) fn begin(&mut self) {
        for m in 0..self.machines.len() {
            if self.machines[m].up {
                self.boot(m);
            }
        }
    }

    /// Lets time pass until `until`, or until a checker has something to say.
    pub(crate) fn run(&mut self, until: Micros) -> Result<(), String> {
        while let Some(entry) = self.clock.queue.first_entry() {
            let (at, _) = *entry.key();
            if at > until {
                break;
            }
            let event = entry.remove();
            self.clock.now = at;
            self.step += 1;
            self.happens(event);
            if let Some(complaint) = self.checkers.complaint() {
                return Err(complaint);
            }
        }
        self.clock.now = until;
        Ok(())
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives { conn, side, stream, number, parcel } => {
                for parcel in self.net.arrives(conn, side, stream, number, parcel) {
                    let machine = self.net.conns[conn].ends[side];
                    if self.machines[machine].ends.contains_key(&conn) {
                        self.read(machine, conn, stream, parcel);
                    }
                }
            }
            Event::ShutHeard { conn, side } if self.net.conns[conn].open[side] => self.hear_shut(conn, side),
            Event::Idle { conn, side } if self.net.is_silent(conn, side) => self.hear_shut(conn, side),
            Event::ShutHeard { .. } | Event::Idle { .. } => {}
            Event::Handshake { from, incarnation, addr, expect, in_time } => {
                if self.machines[from].incarnation == incarnation {
                    self.handshake(from, addr, expect, in_time);
                }
            }
            Event::Heard { at, addrs, group } => self.heard(at, &addrs, group),
            Event::Timer { machine, incarnation, timer } => {
                if self.machines[machine].incarnation == incarnation {
                    self.rings(machine, timer);
                }
            }
            Event::Fate(fate) => self.befalls(fate),
        }
    }

    fn hear_shut(&mut self, conn: ConnId, side: usize) {
        let machine = self.net.conns[conn].ends[side];
        self.net.shut(&mut self.clock, conn, side, false);
        self.link_ended(machine, conn);
    }

    fn read(&mut self, machine: usize, conn: ConnId, stream: Stream, parcel: Parcel) {
        match stream {
            crate::link::CONTROL => self.control_arrives(machine, conn, parcel),
            1 | 2 => self.names_arrive(machine, conn, parcel),
            _ if stream % 2 == u32::try_from(self.machines[machine].ends[&conn].side).expect("0 or 1") => {
                self.answer_arrives(machine, conn, stream, parcel);
            }
            _ => self.offer_arrives(machine, conn, stream, parcel),
        }
    }

    fn rings(&mut self, machine: usize, timer: Timer) {
        match timer {
            Timer::Dial => self.dial(machine),
            Timer::Announce => self.announce_again(machine),
            Timer::TellLoad => self.tell_load(machine),
            Timer::Greeting { conn } => self.greeting_late(machine, conn),
            Timer::Request { request, step } => self.request_late(machine, request, step),
            Timer::LocalEnds => {
                self.machines[machine].own -= 1;
                self.load_changed(machine);
            }
            Timer::Waiters => self.waiters_choose(machine),
            Timer::Job { conn, stream, step } => self.job_timer(machine, (conn, stream), step),
            Timer::Ask { conn, stream, step } => self.ask_timer(machine, (conn, stream), step),
            Timer::Give { conn, stream, step } => self.give_timer(machine, (conn, stream), step),
            Timer::Lie => self.lie(machine),
        }
    }

    fn befalls(&mut self, fate: Fate) {
        if matches!(fate, Fate::Crash { .. } | Fate::Cut { .. } | Fate::Move { .. }) {
            self.see(Seen::Trouble);
        }
        match fate {
            Fate::Ask { machine, count } => {
                for _ in 0..count {
                    self.ask(machine);
                }
            }
            Fate::Cancel { machine } => self.cancel_one(machine),
            Fate::Edit { machine } => {
                let header = self.clock.random.index(HEADERS);
                self.machines[machine].headers[header] += 1;
                self.note("edited", [machine, header, 0]);
            }
            Fate::Crash { machine } if self.machines[machine].up => self.crash(machine),
            Fate::Start { machine } if !self.machines[machine].up => self.boot(machine),
            Fate::Crash { .. } | Fate::Start { .. } => {}
            Fate::Move { machine } => {
                for addr in std::mem::take(&mut self.machines[machine].addrs) {
                    self.owners.remove(&addr);
                }
                self.add_address(machine);
                self.note("moved", [machine, 0, 0]);
            }
            Fate::Cut { island } => {
                let machines = self.machines.len();
                self.net.cut(&mut self.clock, &island, machines);
                self.note("cut", [island.len(), 0, 0]);
            }
            Fate::Heal => {
                self.net.heal(&mut self.clock);
                self.note("healed", [0; 3]);
                for m in 0..self.machines.len() {
                    self.announce(m);
                }
            }
            Fate::Join { newcomer, role } => self.join(newcomer, role),
        }
    }

    /// Power is lost. Disk stays: records, address book, blobs, sources.
    fn crash(&mut self, m: usize) {
        self.note("crashed", [m, self.machines[m].requests.len(), self.machines[m].jobs.len()]);
        let conns: Vec<ConnId> = self.machines[m].ends.keys().copied().collect();
        for conn in conns {
            let side = self.machines[m].ends[&conn].side;
            self.net.shut(&mut self.clock, conn, side, false);
        }
        for request in std::mem::take(&mut self.machines[m].requests).into_keys() {
            // The launcher's socket breaks, and the launcher becomes the compiler.
            self.see(Seen::Ended { request, end: crate::checkers::End::Local(mesh::reason::Reason::NoAgent) });
        }
        self.see(Seen::Crashed { provider: m });
        let book: Vec<_> = self.machines[m].dialer.book().collect();
        let machine = &mut self.machines[m];
        machine.up = false;
        machine.incarnation += 1;
        machine.dialer = Dialer::new(machine.id);
        for (addr, peer, fixed) in book {
            machine.dialer.heard(addr, peer.filter(|_| !fixed), fixed, 0);
        }
        machine.dial_at = None;
        machine.ends.clear();
        machine.links.clear();
        machine.intake = Intake::default();
        machine.jobs.clear();
        machine.own = 0;
        machine.telling = false;
        machine.waking = false;
        machine.by_stream.clear();
        machine.asks.clear();
        machine.gives.clear();
        machine.holders.clear();
        machine.keys.clear();
    }

    fn boot(&mut self, m: usize) {
        self.machines[m].up = true;
        self.machines[m].booted = self.clock.now;
        self.note("started", [m, 0, 0]);
        if self.typed_addresses {
            let typed: Vec<SocketAddr> = self.owners.iter().filter(|(_, o)| **o != m).map(|(a, _)| *a).collect();
            for addr in typed {
                self.machines[m].dialer.heard(addr, None, true, 0);
            }
        }
        self.timer(m, 0, Timer::Announce);
        self.wake_dialer(m);
        if self.machines[m].nature != Nature::Honest {
            self.timer(m, SECOND, Timer::Lie);
        }
    }
}
