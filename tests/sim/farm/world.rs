//! The farm: machines, messages, and what an agent does around its decisions.

mod fates;
mod provider;

pub(crate) use fates::Fate;

use super::{
    checkers::{Checkers, Seen},
    ideal::micros,
    machine::Processor,
    units::UnitSpec,
};
use crate::random::Random;
use mesh::sched::{
    dispatch::{Ask, AttemptId, Dispatcher, Do, End, HereState, Known, UnitId},
    guest::Terms,
    history::{Class, History, Work},
    intake::{Act, Intake, JobId},
    speed::Speed,
};
use mesh_proto::{
    digest::Digest,
    job::{Refusal, Usage},
    membership::Role,
    message::{Closed, Load},
    peer::PeerId,
    toolchain::Fingerprint,
};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Micros = u64;
pub(crate) const MS: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// A peer that is silent for so long is given up.
const IDLE: Micros = 10 * SECOND;
/// An answer takes no longer: a job's wall time and what is beside it.
const ANSWER_MAX: Micros = 660 * SECOND;
/// Loads go out this often at most.
const PACE: Micros = 250 * MS;
/// What lies between two units that a client sends: it spends five milliseconds of processor time on each, on several of
/// its cores (build tool, launcher, closure and wire side by side).
const FEED: Micros = 2 * MS;
/// What a job takes besides its compiler: its root, and collecting what it made.
const STAGE: Micros = 10 * MS;
/// The headers that all units of a project share are sent once, and are this share of what a unit reads, of a hundred.
const SHARED_PERCENT: u64 = 95;
/// What is sent and comes back is compressed to a part of so many.
const COMPRESSION: u64 = 4;
/// A copy in the sandbox here is numbered beyond all units and jobs.
const COPIES: u64 = 1 << 60;
/// A unit of this machine's own is numbered beyond all jobs.
const OWN: u64 = 1 << 59;

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    /// An offer comes to a provider.
    Offer {
        from: usize,
        to: usize,
        epoch: u32,
        attempt: AttemptId,
        unit: usize,
        memory_kib: u64,
    },
    /// A provider has a job's inputs.
    Fetched {
        at: usize,
        life: u32,
        job: JobId,
    },
    /// A processor may have come to the end of something.
    Compiled {
        at: usize,
        version: u64,
    },
    /// An answer comes to a client.
    Answer {
        to: usize,
        from: usize,
        epoch: u32,
        attempt: AttemptId,
        end: End,
    },
    /// A client does not want a job any more.
    Cancel {
        from: usize,
        to: usize,
        attempt: AttemptId,
    },
    /// A load comes.
    Heard {
        from: usize,
        to: usize,
        epoch: u32,
        load: Load,
    },
    /// Loads may go out again.
    Tell {
        at: usize,
    },
    /// A machine that is short of memory looks how much is left.
    Look {
        at: usize,
    },
    /// The dispatcher is due.
    Tick {
        at: usize,
    },
    /// A client gives a silent provider up, and the other way round.
    Missed {
        client: usize,
        provider: usize,
        epoch: u32,
    },
    /// A client has waited for an answer for as long as it waits at all.
    Late {
        at: usize,
        attempt: AttemptId,
    },
    /// They find each other.
    Meet {
        client: usize,
        provider: usize,
    },
    Fate(Fate),
}

/// How a provider misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    Honest,
    /// It says that it has a thousand slots, and takes all that comes.
    Boasts,
    /// It takes a job and then says that it could not run it.
    Refuses,
    /// It takes jobs and never answers.
    Silent,
    /// Its disk is full.
    Full,
}

/// A job at a provider.
#[derive(Debug, Clone, Copy)]
struct Job {
    client: usize,
    epoch: u32,
    attempt: AttemptId,
    spec: UnitSpec,
    ready_us: Option<Micros>,
    started_us: Option<Micros>,
    crowd_percent: u16,
}

/// A project that is built.
#[derive(Debug, Default)]
pub(crate) struct Build {
    pub(crate) units: Vec<UnitSpec>,
    /// Outstanding at once; as the product suggests if `None`.
    pub(crate) parallel: Option<usize>,
    /// Only elsewhere.
    pub(crate) force: bool,
    next: usize,
    outstanding: usize,
    pub(crate) done: usize,
    pub(crate) began_us: Micros,
    pub(crate) ended_us: Option<Micros>,
    /// By the dispatcher's number.
    by_id: BTreeMap<UnitId, usize>,
}

#[derive(Debug)]
pub(crate) struct Machine {
    id: PeerId,
    pub(crate) cpu: Processor,
    pub(crate) latency: Micros,
    pub(crate) bytes_a_s: u64,
    /// Messages that come only with the second try, of a hundred.
    pub(crate) loss_percent: u64,
    pub(crate) memory_kib: u64,
    /// The slowest that it has been.
    slowest: f64,
    pub(crate) nature: Nature,
    slots: u32,
    closed: Option<Closed>,
    up: bool,
    /// Grows when it dies.
    life: u32,
    dispatcher: Dispatcher,
    intake: Intake,
    jobs: BTreeMap<JobId, Job>,
    next_job: JobId,
    /// What each client was told last.
    told: BTreeMap<usize, Load>,
    /// Whom it has ever been connected with.
    met: BTreeSet<usize>,
    telling: bool,
    untold: bool,
    ticks_at: Option<Micros>,
    version: u64,
    fed_until: Micros,
    /// Clients whose headers it has.
    warm: BTreeSet<usize>,
    pub(crate) build: Build,
    /// Attempts under way: to whom, and of which unit.
    out: BTreeMap<AttemptId, (usize, usize)>,
    /// Copies here: which unit, and when they began.
    copies: BTreeMap<AttemptId, (usize, Micros)>,
}

/// A hash over everything that happened.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    pub(crate) speaks: bool,
}

#[derive(Debug)]
pub(crate) struct Farm {
    pub(crate) now: Micros,
    pub(crate) random: Random,
    queue: BTreeMap<(Micros, u64), Event>,
    scheduled: u64,
    pub(crate) machines: Vec<Machine>,
    /// Pairs that are connected, and their epoch; clients first.
    links: BTreeMap<(usize, usize), u32>,
    epochs: u32,
    cut: BTreeSet<(usize, usize)>,
    pub(crate) checkers: Checkers,
    pub(crate) trace: Trace,
}

fn toolchain() -> Fingerprint {
    Fingerprint(Digest([7; 32]))
}

fn tag(machine: usize) -> [u8; 16] {
    (machine as u128).to_le_bytes()
}

impl Farm {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: 0,
            random: Random::new(seed),
            queue: BTreeMap::new(),
            scheduled: 0,
            machines: Vec::new(),
            links: BTreeMap::new(),
            epochs: 0,
            cut: BTreeSet::new(),
            checkers: Checkers::default(),
            trace: Trace::default(),
        }
    }

    /// A machine of so many cores, each so fast.
    pub(crate) fn add(&mut self, cores: u32, speed: f64) -> usize {
        let number = self.machines.len();
        let mut id = [0; 32];
        id[..16].copy_from_slice(&tag(number));
        let mut machine = Machine {
            id: PeerId(id),
            cpu: Processor::new(cores, speed),
            latency: 300,
            bytes_a_s: 110_000_000,
            loss_percent: 0,
            memory_kib: 64 << 20,
            slowest: speed,
            nature: Nature::Honest,
            slots: cores,
            closed: None,
            up: true,
            life: 0,
            dispatcher: Dispatcher::new(Known::default(), self.random.next()),
            intake: Intake::default(),
            jobs: BTreeMap::new(),
            next_job: 0,
            told: BTreeMap::new(),
            met: BTreeSet::new(),
            telling: false,
            untold: false,
            ticks_at: None,
            version: 0,
            fed_until: 0,
            warm: BTreeSet::new(),
            build: Build::default(),
            out: BTreeMap::new(),
            copies: BTreeMap::new(),
        };
        machine.dispatcher.here(0, HereState { cores, memory_free_kib: Some(64 << 20), copies: true });
        self.machines.push(machine);
        self.checkers.see(0, Seen::Machine { machine: number, cores, slots: cores });
        self.terms(number);
        number
    }

    pub(crate) fn after(&mut self, wait: Micros, fate: Fate) {
        self.schedule(wait, Event::Fate(fate));
    }

    fn schedule(&mut self, wait: Micros, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + wait, self.scheduled), event);
    }

    /// Puts something into the trace.
    fn note(&mut self, what: &'static str, numbers: [u64; 3]) {
        let mut hash = self.trace.hash ^ self.now;
        for byte in what.bytes().map(u64::from).chain(numbers) {
            hash = (hash ^ byte).wrapping_mul(0x0100_0000_01b3);
        }
        self.trace.hash = hash.rotate_left(17);
        if self.trace.speaks {
            println!("{:>12} µs  {what} {numbers:?}", self.now);
        }
    }

    /// Lets time pass until all builds have ended.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        const EVENTS_MAX: u64 = 60_000_000;
        for _ in 0..EVENTS_MAX {
            if self.machines.iter().all(|m| m.build.done == m.build.units.len()) {
                return Ok(());
            }
            let Some(((at, _), event)) = self.queue.pop_first() else {
                return Err("nothing happens any more, and a build has not ended".to_owned());
            };
            self.now = at;
            self.happens(event);
            if let Some(complaint) = self.checkers.complaint() {
                return Err(complaint);
            }
        }
        Err("a build goes on for ever".to_owned())
    }

    /// Lets what is still under way come to rest, and looks at what is left.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        let until = self.now + 4000 * SECOND;
        while let Some((at, _)) = self.queue.first_key_value().map(|(key, _)| *key)
            && at <= until
        {
            let (_, event) = self.queue.pop_first().expect("looked at above");
            self.now = at;
            self.happens(event);
            if let Some(complaint) = self.checkers.complaint() {
                return Err(complaint);
            }
        }
        for (number, machine) in self.machines.iter().enumerate().filter(|(_, m)| m.nature == Nature::Honest) {
            let (own, guests) = machine.cpu.running();
            if own + guests + machine.intake.accepted() + machine.dispatcher.running_here() > 0 {
                return Err(format!("machine {number} still compiles what nobody wants"));
            }
        }
        self.checkers.over()
    }

    fn reachable(&self, a: usize, b: usize) -> bool {
        !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }

    fn latency(&mut self, a: usize, b: usize) -> Micros {
        let base = self.machines[a].latency + self.machines[b].latency;
        // What is lost is missed after a round trip or two, or when the sender's timer is over.
        let loss = self.machines[a].loss_percent.max(self.machines[b].loss_percent);
        let again = if loss > 0 && self.random.chance(loss) { 3 * base + 25 * MS } else { 0 };
        base + self.random.below(base / 4 + 1) + again
    }

    fn wire(&self, a: usize, b: usize, bytes: u64) -> Micros {
        let rate = self.machines[a].bytes_a_s.min(self.machines[b].bytes_a_s).max(1);
        bytes / COMPRESSION * SECOND / rate
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Offer { from, to, epoch, attempt, unit, memory_kib } => {
                if self.machines[to].up && self.reachable(from, to) && self.epoch(from, to) == Some(epoch) {
                    self.offered(from, to, epoch, attempt, unit, memory_kib);
                }
            }
            Event::Fetched { at, life, job } => {
                if self.machines[at].life == life {
                    self.fetched(at, job);
                }
            }
            Event::Compiled { at, version } => {
                if self.machines[at].version == version {
                    self.compiled(at);
                }
            }
            Event::Answer { to, from, epoch, attempt, end } => {
                if self.machines[to].up && self.reachable(from, to) && self.epoch(to, from) == Some(epoch) {
                    self.answered(to, attempt, end);
                }
            }
            Event::Cancel { from, to, attempt } => {
                if self.machines[to].up && self.reachable(from, to) {
                    self.cancelled(from, to, attempt);
                }
            }
            Event::Heard { from, to, epoch, load } => self.heard(from, to, epoch, load),
            Event::Tell { at } => {
                self.machines[at].telling = false;
                if self.machines[at].untold {
                    self.tell(at);
                }
            }
            Event::Look { at } => {
                self.terms(at);
                self.schedule(SECOND, Event::Look { at });
            }
            Event::Tick { at } => {
                self.machines[at].ticks_at = None;
                let now = self.now;
                self.machines[at].dispatcher.tick(now);
                self.act(at);
            }
            Event::Missed { client, provider, epoch } => {
                if self.epoch(client, provider) == Some(epoch) {
                    self.missed(client, provider);
                }
            }
            Event::Late { at, attempt } => self.answered(at, attempt, End::Lost),
            Event::Meet { client, provider } => self.meet(client, provider),
            Event::Fate(fate) => self.befalls(fate),
        }
    }

    fn epoch(&self, client: usize, provider: usize) -> Option<u32> {
        self.links.get(&(client, provider)).copied()
    }

    /// A client and a provider are connected from now on.
    pub(crate) fn meet(&mut self, client: usize, provider: usize) {
        let both_up = self.machines[client].up && self.machines[provider].up;
        if !both_up || !self.reachable(client, provider) || self.links.contains_key(&(client, provider)) {
            return;
        }
        self.epochs += 1;
        self.links.insert((client, provider), self.epochs);
        self.machines[client].met.insert(provider);
        self.machines[provider].met.insert(client);
        let (now, there, here) = (self.now, self.machines[provider].id, self.machines[client].id);
        let rtt_us = 2 * (self.machines[client].latency + self.machines[provider].latency);
        self.machines[provider].intake.client(here, tag(client));
        self.machines[provider].told.remove(&client);
        let dispatcher = &mut self.machines[client].dispatcher;
        dispatcher.connected(now, there, rtt_us);
        dispatcher.lends(now, there, [toolchain()]);
        self.changed(provider);
        self.changed(client);
        self.act(client);
    }

    fn missed(&mut self, client: usize, provider: usize) {
        self.links.remove(&(client, provider));
        let (now, there, here) = (self.now, self.machines[provider].id, self.machines[client].id);
        self.note("missed", [client as u64, provider as u64, 0]);
        // Each end has its own view of it; both give up about now.
        self.machines[provider].intake.left(here);
        let of = |job: &Job| job.client == client;
        let jobs: Vec<JobId> = self.machines[provider].jobs.iter().filter(|(_, j)| of(j)).map(|(id, _)| *id).collect();
        for job in jobs {
            self.drop_job(provider, job);
        }
        if self.machines[client].up {
            self.machines[client].dispatcher.lost(now, there);
            let lost: Vec<AttemptId> =
                self.machines[client].out.iter().filter(|(_, (to, _))| *to == provider).map(|(a, _)| *a).collect();
            for attempt in lost {
                self.machines[client].out.remove(&attempt);
                self.checkers.see(now, Seen::AttemptOver { client, attempt });
            }
            self.act(client);
        }
        self.schedule(SECOND, Event::Meet { client, provider });
    }

    /// A user's build tool starts as many units as it should.
    fn feed(&mut self, at: usize) {
        loop {
            let machine = &mut self.machines[at];
            let suggested = machine.dispatcher.parallelism();
            let suggested = suggested.local + suggested.remote + suggested.remote.div_ceil(10);
            let build = &mut machine.build;
            let most = build.parallel.unwrap_or(suggested as usize).max(1);
            if build.next == build.units.len() || build.outstanding >= most {
                return;
            }
            let (number, spec) = (build.next, build.units[build.next]);
            build.next += 1;
            build.outstanding += 1;
            let class = Class { cxx: true, optimised: true, debug: true, lto: false };
            let work = Work { key: spec.key, class, input_bytes: spec.input_bytes };
            let ask = Ask { toolchain: toolchain(), work, force: build.force, ..Ask::here(work) };
            let id = number as UnitId;
            build.by_id.insert(id, number);
            self.checkers.see(self.now, Seen::Asked { client: at, unit: id, cost_us: spec.cost_us });
            machine.dispatcher.ask(self.now, id, ask);
            self.act(at);
        }
    }

    /// Does what the dispatcher of a machine says.
    fn act(&mut self, at: usize) {
        let acts = self.machines[at].dispatcher.take();
        for act in acts {
            match act {
                Do::Offer { unit, attempt, peer, memory_kib, why } => {
                    let number = self.machines[at].build.by_id[&unit];
                    let to = usize::from_le_bytes(*peer.0.first_chunk().expect("32 bytes"));
                    self.offer(at, to, attempt, (unit, number), memory_kib, why.is_second);
                }
                Do::CopyHere { unit, attempt } => {
                    let number = self.machines[at].build.by_id[&unit];
                    let spec = self.machines[at].build.units[number];
                    self.checkers.see(self.now, Seen::Second { client: at, unit, here: Some(attempt) });
                    self.machines[at].copies.insert(attempt, (number, self.now));
                    self.begin(at, COPIES + attempt, spec.cost_us, true);
                }
                Do::Here { unit, reason, .. } => {
                    let number = self.machines[at].build.by_id[&unit];
                    let spec = self.machines[at].build.units[number];
                    self.note("here", [at as u64, unit, reason as u64]);
                    self.checkers.see(self.now, Seen::Here { client: at });
                    self.begin(at, OWN + unit, spec.cost_us, false);
                }
                Do::Cancel { unit, attempt } => self.cancel(at, unit, attempt),
            }
        }
        self.arm(at);
        self.changed(at);
    }

    fn arm(&mut self, at: usize) {
        if let Some(due) = self.machines[at].dispatcher.due()
            && self.machines[at].ticks_at.is_none()
        {
            self.machines[at].ticks_at = Some(due);
            self.schedule(due.saturating_sub(self.now), Event::Tick { at });
        }
    }

    fn offer(
        &mut self,
        at: usize,
        to: usize,
        attempt: AttemptId,
        (id, unit): (UnitId, usize),
        memory_kib: u64,
        second: bool,
    ) {
        self.note("offer", [at as u64, to as u64, unit as u64]);
        self.checkers.see(self.now, Seen::Offered { client: at, provider: to, unit: id, attempt });
        if second {
            self.checkers.see(self.now, Seen::Second { client: at, unit: id, here: None });
        }
        self.machines[at].out.insert(attempt, (to, unit));
        let Some(epoch) = self.epoch(at, to) else { return };
        // The client prepares its units one after another.
        let begins = self.machines[at].fed_until.max(self.now) + FEED;
        self.machines[at].fed_until = begins;
        self.schedule(ANSWER_MAX, Event::Late { at, attempt });
        let wait = begins - self.now + self.latency(at, to);
        self.schedule(wait, Event::Offer { from: at, to, epoch, attempt, unit, memory_kib });
    }

    fn cancel(&mut self, at: usize, unit: UnitId, attempt: AttemptId) {
        self.note("cancel", [at as u64, unit, attempt]);
        self.checkers.see(self.now, Seen::AttemptOver { client: at, attempt });
        if self.machines[at].copies.remove(&attempt).is_some() {
            self.advance(at);
            let left = self.machines[at].cpu.stop(COPIES + attempt).unwrap_or(0);
            let number = self.machines[at].build.by_id[&unit];
            let spent = self.machines[at].build.units[number].cost_us.saturating_sub(left);
            self.checkers.see(self.now, Seen::Wasted { client: at, cpu_us: spent });
            self.next_end(at);
        } else if let Some((to, _)) = self.machines[at].out.remove(&attempt) {
            let wait = self.latency(at, to);
            self.schedule(wait, Event::Cancel { from: at, to, attempt });
        }
    }

    /// An answer has come to a client.
    fn answered(&mut self, at: usize, attempt: AttemptId, end: End) {
        // One that was cancelled is not listened to.
        let Some((from, number)) = self.machines[at].out.remove(&attempt) else { return };
        if let End::Refused(Refusal::Sandbox | Refusal::Disk) = end {
            self.checkers.failed(self.now, at, from);
        }
        self.over(at, attempt, number, end);
    }

    fn over(&mut self, at: usize, attempt: AttemptId, number: usize, end: End) {
        let now = self.now;
        self.checkers.see(now, Seen::AttemptOver { client: at, attempt });
        if let End::Refused(refusal) = end {
            self.checkers.see(now, Seen::Refused { refusal });
        }
        self.machines[at].dispatcher.ended(now, attempt, end);
        self.act(at);
        if matches!(end, End::Done(_)) {
            self.unit_ended(at, number as UnitId, false);
        }
    }

    /// A unit is done.
    fn unit_ended(&mut self, at: usize, unit: UnitId, here: bool) {
        let now = self.now;
        self.note("done", [at as u64, unit, u64::from(here)]);
        if here {
            self.checkers.see(now, Seen::HereOver { client: at });
            self.machines[at].dispatcher.local_ended(now, unit, true);
        }
        self.checkers.see(now, Seen::Ended { client: at, unit });
        let build = &mut self.machines[at].build;
        build.outstanding -= 1;
        build.done += 1;
        if build.done == build.units.len() {
            build.ended_us = Some(now);
        }
        self.act(at);
        self.feed(at);
    }

    /// How busy a machine is has changed: it says so now, or as soon as it may.
    fn changed(&mut self, at: usize) {
        self.machines[at].untold = true;
        if !self.machines[at].telling {
            self.tell(at);
        }
    }

    fn tell(&mut self, at: usize) {
        self.machines[at].untold = false;
        if !self.machines[at].up {
            return;
        }
        let small = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let wants = small(self.machines[at].dispatcher.wants());
        let own = small(self.machines[at].dispatcher.running_here());
        let mut any = false;
        let epoch =
            |other: &usize| self.epoch(at, *other).or_else(|| self.epoch(*other, at)).map(|epoch| (*other, epoch));
        let pairs: Vec<(usize, u32)> = self.machines[at].met.iter().filter_map(epoch).collect();
        for (other, epoch) in pairs {
            let peer = self.machines[other].id;
            let mut load = Load { own, wants, ..self.machines[at].intake.load_for(self.now, peer) };
            if self.machines[at].nature == Nature::Boasts {
                load = Load { slots: 1000, credits: 1000, closed: None, ..load };
            }
            if self.machines[at].told.get(&other) != Some(&load) {
                any = true;
                self.machines[at].told.insert(other, load);
                let wait = self.latency(at, other);
                self.schedule(wait, Event::Heard { from: at, to: other, epoch, load });
            }
        }
        if any {
            self.machines[at].telling = true;
            self.schedule(PACE, Event::Tell { at });
        }
    }

    fn heard(&mut self, from: usize, to: usize, epoch: u32, load: Load) {
        let known = self.epoch(from, to) == Some(epoch) || self.epoch(to, from) == Some(epoch);
        if !known || !self.machines[to].up || !self.reachable(from, to) {
            return;
        }
        let (now, peer) = (self.now, self.machines[from].id);
        self.machines[to].intake.wants(peer, load.wants.into());
        self.machines[to].dispatcher.load(now, peer, load);
        self.checkers.see(now, Seen::Credits { client: to, provider: from, credits: load.credits });
        self.act(to);
        // How much the build tool starts follows what there is.
        if self.machines[to].build.began_us <= now && !self.machines[to].build.units.is_empty() {
            self.feed(to);
        }
    }
}
