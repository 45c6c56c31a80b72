//! The client: every unit of this machine's user, from its closure to its end (DECIDE).
//!
//! A state machine without a clock, a lock or a wire. It is told what happens ([`Dispatcher::ask`], [`Dispatcher::load`],
//! [`Dispatcher::ended`] and the others), and says what is to be done ([`Dispatcher::take`]). The agent and the simulation
//! of the cluster drive the same code.

mod peer;
#[cfg(test)]
mod tests;

use super::{
    choose::{self, Candidate, Choice},
    hedge::{self, Target, Underway},
    history::{History, Prediction, SAMPLES_MIN, Work},
    ledger::Ledger,
    retry::{self, Failure, Next},
    speed::Speed,
};
use crate::reason::Reason;
use mesh_proto::{
    job::{Refusal, Usage},
    message::Load,
    peer::PeerId,
    toolchain::Fingerprint,
};
pub use peer::Peer;
use peer::Wish;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

/// Numbers a unit; later ones are greater.
pub type UnitId = u64;
/// Numbers one start of a unit.
pub type AttemptId = u64;

/// While anything is under way it is looked at this often, microseconds.
const LOOK_US: u64 = 100_000;
/// If nothing began or ended for so long and units wait, one of them is compiled here whatever the ledger says,
/// microseconds: what holds the slots may never give them back.
const STALL_US: u64 = 60_000_000;
/// A unit that was refused this often for want of a slot has failed there.
const BUSY_MAX: u32 = 8;
/// The share of all compile time that second starts may waste, one part of so many.
const WASTE_PARTS: u64 = 20;
/// Of so many units that could have gone out, the latest, it is known whether they were compiled here for want of another.
const LATEST_MAX: usize = 64;
/// From this share of them on, of a hundred, something is wrong.
const ALARM_PERCENT: usize = 25;
/// A compiler should have all of its memory after this time, microseconds.
const GROWS_US: u64 = 5_000_000;
/// Machines that are remembered after they went.
const PEERS_MAX: usize = 4096;
/// Alternatives that are kept for an explanation.
const OTHERS_MAX: usize = 4;
/// A unit that ran out of memory so often is compiled here, alone.
const OUT_OF_MEMORY_MAX: u32 = 2;

/// A unit that wants to be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// With what.
    pub toolchain: Fingerprint,
    /// What is known of its cost.
    pub work: Work,
    /// Not here, unless nobody else serves.
    pub force: bool,
    /// There, if possible.
    pub prefer: Option<PeerId>,
    /// It is to be compiled here, for this reason, and only waits for a slot; and whether that is a fallback from a remote
    /// compile that was or would have been tried.
    pub local: Option<(Reason, bool)>,
}

/// How one start of a unit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The compiler ended by itself, and its result is good: this is the unit's end.
    Done(Usage),
    /// The compiler ended by itself, but nothing is to be learned from it: it failed, or its result is not used for a reason that is not the
    /// machine's.
    Void,
    /// It was refused.
    Refused(Refusal),
    /// The connection, or the peer, went away or broke a rule.
    Lost,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Do {
    /// Offer the unit to this peer.
    Offer {
        /// Which.
        unit: UnitId,
        /// This start of it.
        attempt: AttemptId,
        /// To whom.
        peer: PeerId,
        /// What it is expected to need, KiB; 0 if that is not known.
        memory_kib: u64,
        /// Why there.
        why: Why,
    },
    /// Start the unit once more in this machine's own sandbox.
    CopyHere {
        /// Which.
        unit: UnitId,
        /// This start of it.
        attempt: AttemptId,
    },
    /// The launcher compiles the unit. Its slot is held until [`Dispatcher::local_ended`].
    Here {
        /// Which.
        unit: UnitId,
        /// Why.
        reason: Reason,
        /// Whether it is a fallback from a remote compile that was or would have been tried.
        fallback: bool,
        /// How the machines compared.
        why: Why,
    },
    /// Nobody needs this start's result any more.
    Cancel {
        /// Which.
        unit: UnitId,
        /// This start of it.
        attempt: AttemptId,
    },
}

/// Why a unit went where it went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Why {
    /// When it was expected to end, microseconds from then.
    pub finish_us: u64,
    /// When it would have ended elsewhere; `None` for this machine.
    pub others: Vec<(Option<PeerId>, u64)>,
    /// It is a second start.
    pub is_second: bool,
}

/// This machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HereState {
    /// Cores that its user may have.
    pub cores: u32,
    /// Memory that compilers may still take, KiB; `None` if the system does not tell.
    pub memory_free_kib: Option<u64>,
    /// It can run a second start in a sandbox of its own.
    pub copies: bool,
}

/// What has come of all this.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Second starts.
    pub hedges: u64,
    /// Those that ended first.
    pub hedges_won: u64,
    /// Compile time of starts that nobody needed, microseconds.
    pub wasted_us: u64,
    /// All compile time, microseconds.
    pub compiled_us: u64,
    /// Units that were to go out and were compiled here.
    pub fallbacks: u64,
    /// Units that were compiled here although the ledger was full, because nothing moved.
    pub overflows: u64,
}

/// How many compilers it makes sense to start at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parallelism {
    /// Here.
    pub local: u32,
    /// Elsewhere: what this machine may have there, all together.
    pub remote: u32,
    /// Of that, what it has not.
    pub remote_free: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// For a machine, or for a slot here.
    Waits,
    /// With other machines, or in the sandbox here.
    Out,
    /// The launcher compiles it.
    Here { since_us: u64 },
}

#[derive(Debug)]
struct Unit {
    ask: Ask,
    expected: Prediction,
    state: State,
    attempts: Vec<AttemptId>,
    tried: u32,
    busy: u32,
    out_of_memory: u32,
    /// It was started a second time: that happens once.
    is_hedged: bool,
    failed: Vec<PeerId>,
    last: Option<Failure>,
}

#[derive(Debug)]
struct Attempt {
    unit: UnitId,
    /// `None`: the sandbox here.
    peer: Option<PeerId>,
    since_us: u64,
    /// What it was to wait for besides its compiler, microseconds.
    overhead_us: u64,
    /// What its compiler was to take, microseconds.
    run_us: u64,
    is_second: bool,
}

/// Units that choose alike: one that has failed somewhere does not.
type Group = (Fingerprint, bool, Option<PeerId>, Option<UnitId>);

/// Those of a group that wait: the longest first, and the oldest.
#[derive(Debug, Default)]
struct Queue {
    longest: BTreeSet<(Reverse<u64>, UnitId)>,
    oldest: BTreeSet<UnitId>,
}

/// The client's side of this machine.
#[derive(Debug)]
pub struct Dispatcher {
    here: HereState,
    here_speeds: BTreeMap<Fingerprint, Speed>,
    ledger: Ledger,
    peers: BTreeMap<PeerId, Peer>,
    units: BTreeMap<UnitId, Unit>,
    attempts: BTreeMap<AttemptId, Attempt>,
    next_attempt: AttemptId,
    queues: BTreeMap<Group, Queue>,
    /// Units that are compiled here in any case, and wait for a slot.
    to_here: VecDeque<UnitId>,
    history: History,
    acts: Vec<Do>,
    moved_us: u64,
    looked_us: u64,
    /// Chance, for pauses only.
    random: u64,
    counts: Counts,
    /// Whether each of the latest units was compiled here for want of another machine.
    latest: VecDeque<bool>,
}

/// What holds a slot of the ledger here.
fn holder(unit: Option<UnitId>, attempt: AttemptId) -> u64 {
    unit.map_or(attempt * 2 + 1, |unit| unit * 2)
}

impl Dispatcher {
    /// With what was learned before. `seed` is for pauses that should differ from machine to machine.
    #[must_use]
    pub fn new(history: History, seed: u64) -> Self {
        Self {
            here: HereState::default(),
            here_speeds: BTreeMap::new(),
            ledger: Ledger::default(),
            peers: BTreeMap::new(),
            units: BTreeMap::new(),
            attempts: BTreeMap::new(),
            next_attempt: 0,
            queues: BTreeMap::new(),
            to_here: VecDeque::new(),
            history,
            acts: Vec::new(),
            moved_us: 0,
            looked_us: 0,
            random: seed | 1,
            counts: Counts::default(),
            latest: VecDeque::new(),
        }
    }

    /// This machine is so now.
    pub fn here(&mut self, now_us: u64, here: HereState) {
        self.here = here;
        self.ledger.set_slots(here.cores.max(1));
        self.ledger.set_memory_free(here.memory_free_kib);
        self.place(now_us);
    }

    /// A unit wants to be compiled. It may have asked before, if it has ended since.
    pub fn ask(&mut self, now_us: u64, id: UnitId, ask: Ask) {
        if self.units.is_empty() {
            self.moved_us = now_us;
            self.looked_us = now_us;
        }
        let expected = self.history.predict(&ask.work);
        let unit = Unit {
            ask,
            expected,
            state: State::Waits,
            attempts: Vec::new(),
            tried: 0,
            busy: 0,
            out_of_memory: 0,
            is_hedged: false,
            failed: Vec::new(),
            last: None,
        };
        self.units.insert(id, unit);
        self.wait(id);
        self.place(now_us);
    }

    /// A machine is connected.
    pub fn connected(&mut self, now_us: u64, id: PeerId, rtt_us: u64) {
        if self.peers.len() >= PEERS_MAX {
            self.peers.retain(|_, peer| peer.is_connected);
        }
        let peer = self.peers.entry(id).or_default();
        peer.is_connected = true;
        peer.load = Load::default();
        peer.mine = 0;
        peer.measured(rtt_us, None);
        self.place(now_us);
    }

    /// Its connection is gone, and with it all that it had.
    pub fn lost(&mut self, now_us: u64, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.is_connected = false;
            peer.toolchains.clear();
        }
        let there = |(number, attempt): (&AttemptId, &Attempt)| (attempt.peer == Some(id)).then_some(*number);
        let gone: Vec<AttemptId> = self.attempts.iter().filter_map(there).collect();
        for attempt in gone {
            self.end(now_us, attempt, End::Lost);
        }
        self.place(now_us);
    }

    /// It says how busy it is.
    pub fn load(&mut self, now_us: u64, id: PeerId, load: Load) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.says(now_us, load);
            self.place(now_us);
        }
    }

    /// The compilers that it runs for others, without those that it has proved unable to run.
    pub fn lends(&mut self, now_us: u64, id: PeerId, toolchains: impl IntoIterator<Item = Fingerprint>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.toolchains = toolchains.into_iter().collect();
            self.place(now_us);
        }
    }

    /// What its link has been found to be like: round trip, and bytes a second if that is known.
    pub fn link(&mut self, id: PeerId, rtt_us: u64, bytes_a_s: Option<u64>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.measured(rtt_us, bytes_a_s);
        }
    }

    /// One start of a unit has ended.
    pub fn ended(&mut self, now_us: u64, attempt: AttemptId, end: End) {
        self.end(now_us, attempt, end);
        self.place(now_us);
    }

    /// The launcher's compiler has ended; how long it took is worth learning if it went well.
    pub fn local_ended(&mut self, now_us: u64, id: UnitId, went_well: bool) {
        if let Some(unit) = self.units.get(&id)
            && let State::Here { since_us } = unit.state
            && went_well
        {
            let took_us = now_us.saturating_sub(since_us);
            let (work, toolchain, cost_us) = (unit.ask.work, unit.ask.toolchain, unit.expected.cost_us);
            // Others that run here take their part of what it gets.
            let crowd = u64::from(self.ledger.running().max(1)).max(u64::from(self.here.cores.max(1)));
            let own_us = took_us * u64::from(self.here.cores.max(1)) / crowd;
            let speed = self.here_speeds.entry(toolchain).or_default();
            speed.observe(cost_us, own_us);
            let speed = *speed;
            self.learn(&work, speed, own_us, 0);
        }
        self.gone(now_us, id);
    }

    /// Nobody needs the unit any more: its launcher has what it wanted, or went away.
    pub fn gone(&mut self, now_us: u64, id: UnitId) {
        self.forget(now_us, id);
        self.place(now_us);
    }

    /// When [`Dispatcher::tick`] is due, if at all.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        let busy = self.units.values().any(|unit| !matches!(unit.state, State::Here { .. }));
        busy.then(|| self.looked_us + LOOK_US)
    }

    /// Time has passed: units that are late are started once more, machines that were left alone are tried again.
    pub fn tick(&mut self, now_us: u64) {
        self.looked_us = now_us;
        self.place(now_us);
        self.hedge(now_us);
        self.unstall(now_us);
    }

    /// What is to be done since the last call, in order.
    pub fn take(&mut self) -> Vec<Do> {
        std::mem::take(&mut self.acts)
    }

    /// Units that wait for, or are with, other machines: by this those share their slots out.
    #[must_use]
    pub fn wants(&self) -> u32 {
        let away = |unit: &&Unit| unit.ask.local.is_none() && !matches!(unit.state, State::Here { .. });
        u32::try_from(self.units.values().filter(away).count()).unwrap_or(u32::MAX)
    }

    /// Compilers of this machine's own user that run here, second starts included.
    #[must_use]
    pub fn running_here(&self) -> u32 {
        self.ledger.running()
    }

    /// How many compilers it makes sense to start at once.
    #[must_use]
    pub fn parallelism(&self) -> Parallelism {
        let serving = self.peers.values().filter(|peer| peer.serves());
        let (mut remote, mut remote_free) = (0, 0);
        for peer in serving {
            let credits = u32::from(peer.load.credits);
            remote += credits;
            remote_free += credits.saturating_sub(peer.mine);
        }
        Parallelism { local: self.here.cores.max(1), remote, remote_free }
    }

    /// What has come of it all.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether so many of the latest units that could have gone out were compiled here that something must be wrong.
    #[must_use]
    pub fn is_alarming(&self) -> bool {
        let here = self.latest.iter().filter(|here| **here).count();
        self.latest.len() >= LATEST_MAX && here * 100 >= self.latest.len() * ALARM_PERCENT
    }

    /// What is known of costs, to be kept.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// How fast a peer is with a compiler, if enough units have ended there to tell.
    #[must_use]
    pub fn speed_of(&self, peer: PeerId, toolchain: &Fingerprint) -> Option<f32> {
        self.peers.get(&peer).filter(|peer| peer.is_known(toolchain)).map(|peer| peer.speed(toolchain))
    }

    /// How often a machine has failed since something last went well there.
    #[must_use]
    pub fn failures_of(&self, peer: PeerId) -> u32 {
        self.peers.get(&peer).map_or(0, |peer| peer.breaker.failures())
    }

    /// Every unit that is under way: where its starts are, and since when, microseconds; no start for one that waits.
    pub fn under_way(&self) -> impl Iterator<Item = (UnitId, Vec<(Option<PeerId>, u64)>)> {
        self.units.iter().map(|(id, unit)| {
            let starts = unit.attempts.iter().filter_map(|attempt| self.attempts.get(attempt));
            let mut starts: Vec<_> = starts.map(|attempt| (attempt.peer, attempt.since_us)).collect();
            if let State::Here { since_us } = unit.state {
                starts.push((None, since_us));
            }
            (*id, starts)
        })
    }

    fn here_speed(&self, toolchain: &Fingerprint) -> f32 {
        self.here_speeds.get(toolchain).map_or(1.0, Speed::value)
    }

    fn chance(&mut self) -> f32 {
        // Xorshift (Marsaglia, 2003): nothing secret depends on it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        #[expect(clippy::cast_precision_loss, reason = "chance")]
        let part = (self.random >> 40) as f32;
        part / 16_777_216.0
    }

    /// Remembers what a unit cost on a machine of this speed.
    fn learn(&mut self, work: &Work, speed: Speed, own_us: u64, peak_kib: u64) {
        self.counts.compiled_us = self.counts.compiled_us.saturating_add(own_us);
        // A machine of which little is known would say more of itself than of the unit.
        if work.key == 0 {
            return;
        }
        if speed.is_known() || self.history.ended(work.class) < SAMPLES_MIN {
            self.history.learned(work, choose::time(own_us, 1.0 / speed.value()), peak_kib);
        }
    }

    fn group(&self, id: UnitId, unit: &Unit) -> Group {
        let alone = (!unit.failed.is_empty() || unit.out_of_memory > 0).then_some(id);
        (unit.ask.toolchain, unit.ask.force, unit.ask.prefer, alone)
    }

    /// Puts a unit among those that wait.
    fn wait(&mut self, id: UnitId) {
        let Some(unit) = self.units.get(&id) else { return };
        if unit.ask.local.is_some() {
            self.to_here.push_back(id);
            return;
        }
        let (group, cost) = (self.group(id, unit), Reverse(unit.expected.cost_us));
        let queue = self.queues.entry(group).or_default();
        queue.longest.insert((cost, id));
        queue.oldest.insert(id);
    }

    /// Takes a unit out of those that wait.
    fn wait_no_more(&mut self, id: UnitId) {
        let Some(unit) = self.units.get(&id) else { return };
        let (group, cost) = (self.group(id, unit), Reverse(unit.expected.cost_us));
        if let Some(queue) = self.queues.get_mut(&group) {
            queue.longest.remove(&(cost, id));
            queue.oldest.remove(&id);
            if queue.oldest.is_empty() {
                self.queues.remove(&group);
            }
        }
        self.to_here.retain(|waiting| *waiting != id);
    }

    /// It is compiled here in any case, as soon as there is room.
    fn must_be_here(&mut self, id: UnitId, reason: Reason, fallback: bool) {
        self.wait_no_more(id);
        if let Some(unit) = self.units.get_mut(&id) {
            unit.ask.local = Some((reason, fallback));
            unit.state = State::Waits;
            self.to_here.push_back(id);
        }
    }

    /// Gives whoever waits what there is.
    fn place(&mut self, now_us: u64) {
        self.place_here(now_us);
        let groups: Vec<Group> = self.queues.keys().copied().collect();
        for group in groups {
            while let Some(id) = self.queues.get(&group).and_then(|queue| self.next_of(queue)) {
                if !self.place_one(now_us, id) {
                    break;
                }
            }
        }
        self.place_here(now_us);
    }

    /// The longest, so that it does not end last; but nobody is passed by for ever.
    fn next_of(&self, queue: &Queue) -> Option<UnitId> {
        /// One that so many later ones could have passed by goes first.
        const PASSED_MAX: u64 = 256;
        let (_, longest) = queue.longest.first()?;
        let oldest = queue.oldest.first()?;
        let newest = queue.oldest.last()?;
        Some(if newest - oldest > PASSED_MAX { *oldest } else { *longest })
    }

    fn place_here(&mut self, now_us: u64) {
        while let Some(id) = self.to_here.front().copied() {
            let Some(unit) = self.units.get(&id) else {
                self.to_here.pop_front();
                continue;
            };
            if !self.ledger.has_room(unit.expected.memory_kib, now_us) {
                return;
            }
            self.to_here.pop_front();
            let (reason, fallback) = unit.ask.local.unwrap_or((Reason::PeersBusy, true));
            self.begin_here(now_us, id, reason, fallback, Why::default());
        }
    }

    fn begin_here(&mut self, now_us: u64, id: UnitId, reason: Reason, fallback: bool, why: Why) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.state = State::Here { since_us: now_us };
        self.ledger.begin(holder(Some(id), 0), unit.expected.memory_kib, now_us, GROWS_US);
        self.moved_us = now_us;
        if fallback {
            self.counts.fallbacks += 1;
            self.was(true);
        }
        self.acts.push(Do::Here { unit: id, reason, fallback, why });
    }

    fn was(&mut self, here: bool) {
        if self.latest.len() >= LATEST_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(here);
    }

    fn wish(unit: &Unit) -> Wish {
        let memory_kib = if unit.expected.memory_is_guess { 0 } else { unit.expected.memory_kib };
        Wish { toolchain: unit.ask.toolchain, input_bytes: unit.ask.work.input_bytes, memory_kib }
    }

    /// The machines that a unit could go to.
    fn candidates(&self, unit: &Unit, now_us: u64) -> Vec<Candidate> {
        let wish = Self::wish(unit);
        let has = |(id, peer): &(&PeerId, &Peer)| {
            peer.serves() && peer.toolchains.contains(&wish.toolchain) && !unit.failed.contains(id)
        };
        self.peers.iter().filter(has).map(|(id, peer)| peer.candidate(*id, &wish, now_us)).collect()
    }

    /// This machine, if it is in the choice.
    fn at_home(&self, unit: &Unit, now_us: u64) -> choose::Here {
        choose::Here {
            slots: self.ledger.slots(),
            running: self.ledger.running(),
            speed: self.here_speed(&unit.ask.toolchain),
            has_room: self.to_here.is_empty() && self.ledger.has_room(unit.expected.memory_kib, now_us),
        }
    }

    /// Places one unit that waits. `false` if it has to go on waiting, and all like it with it.
    fn place_one(&mut self, now_us: u64, id: UnitId) -> bool {
        let unit = &self.units[&id];
        let candidates = self.candidates(unit, now_us);
        let here = (!unit.ask.force).then(|| self.at_home(unit, now_us));
        let usable = candidates.iter().any(|c| c.credits > 0 || c.mine > 0);
        let waiting = self.queues.values().map(|queue| queue.oldest.len()).sum::<usize>() - 1;
        let load = choose::Load {
            cost_us: unit.expected.cost_us,
            mean_us: self.history.mean_us(),
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
        };
        let choice = choose::choose(load, &candidates, here, unit.ask.prefer);
        let why = |finish_us| why(finish_us, choice, &load, &candidates, here);
        match choice {
            Choice::Peer(peer, finish_us) => {
                let why = why(finish_us);
                self.wait_no_more(id);
                self.offer(now_us, id, peer, why);
                true
            }
            Choice::Here(finish_us) => {
                let why = why(finish_us);
                let (reason, fallback) = if usable { (Reason::LocalIdle, false) } else { self.why_nobody(unit) };
                self.wait_no_more(id);
                self.begin_here(now_us, id, reason, fallback, why);
                if !fallback {
                    self.was(false);
                }
                true
            }
            Choice::Wait => false,
            Choice::Nobody => {
                let (reason, fallback) = self.why_nobody(unit);
                self.must_be_here(id, reason, fallback);
                self.place_here(now_us);
                true
            }
        }
    }

    /// Why nobody else takes it.
    fn why_nobody(&self, unit: &Unit) -> (Reason, bool) {
        if let Some(failure) = unit.last {
            return (retry::reason(failure), true);
        }
        let has = |peer: &&Peer| peer.is_connected && peer.toolchains.contains(&unit.ask.toolchain);
        let there: Vec<&Peer> = self.peers.values().filter(has).collect();
        let reason = if there.is_empty() {
            Reason::NoMatch
        } else if there.iter().any(|peer| peer.serves() && peer.breaker.is_on_probation()) {
            Reason::PeerLost
        } else if there.iter().any(|peer| peer.serves()) {
            Reason::PeersBusy
        } else {
            Reason::PeersPaused
        };
        (reason, true)
    }

    fn offer(&mut self, now_us: u64, id: UnitId, peer: PeerId, why: Why) {
        let unit = self.units.get_mut(&id).expect("it was looked at");
        let wish = Self::wish(unit);
        let there = self.peers.get_mut(&peer).expect("it was chosen from these");
        let candidate = there.candidate(peer, &wish, now_us);
        let overhead_us = candidate.overhead_us + candidate.wait_us(self.history.mean_us());
        there.mine += 1;
        let attempt = self.next_attempt;
        self.next_attempt += 1;
        unit.state = State::Out;
        unit.attempts.push(attempt);
        unit.tried += u32::from(!why.is_second);
        let is_second = why.is_second;
        let run_us = choose::time(unit.expected.cost_us, candidate.speed);
        let made = Attempt { unit: id, peer: Some(peer), since_us: now_us, overhead_us, run_us, is_second };
        self.attempts.insert(attempt, made);
        self.moved_us = now_us;
        self.acts.push(Do::Offer { unit: id, attempt, peer, memory_kib: wish.memory_kib, why });
    }

    /// Ends one start. The unit is placed again, or has ended.
    fn end(&mut self, now_us: u64, number: AttemptId, end: End) {
        let Some(attempt) = self.attempts.remove(&number) else { return };
        self.release(&attempt, number);
        self.moved_us = now_us;
        let Some(unit) = self.units.get_mut(&attempt.unit) else { return };
        unit.attempts.retain(|other| *other != number);
        match end {
            End::Done(usage) => self.done(now_us, &attempt, &usage),
            End::Void => self.forget(now_us, attempt.unit),
            End::Refused(Refusal::Busy) if unit.busy < BUSY_MAX => {
                unit.busy += 1;
                if let Some(peer) = attempt.peer.and_then(|id| self.peers.get_mut(&id)) {
                    peer.was_busy(now_us);
                }
                unit.tried = unit.tried.saturating_sub(1);
                self.again(attempt.unit, None);
            }
            End::Refused(refusal) => self.failed(now_us, &attempt, Failure::Refused(refusal)),
            End::Lost => self.failed(now_us, &attempt, Failure::Lost),
        }
    }

    /// What a start held is free.
    fn release(&mut self, attempt: &Attempt, number: AttemptId) {
        match attempt.peer {
            Some(id) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.mine = peer.mine.saturating_sub(1);
                }
            }
            None => {
                self.ledger.end(holder(None, number));
            }
        }
    }

    fn done(&mut self, now_us: u64, attempt: &Attempt, usage: &Usage) {
        let unit = &self.units[&attempt.unit];
        let (work, toolchain, cost_us) = (unit.ask.work, unit.ask.toolchain, unit.expected.cost_us);
        let own_us = usage.run_us * 100 / u64::from(usage.crowd_percent.max(100));
        let speed = match attempt.peer {
            Some(id) => {
                let Some(peer) = self.peers.get_mut(&id) else { return };
                peer.breaker.worked();
                let elapsed_us = now_us.saturating_sub(attempt.since_us);
                peer.overhead_was(elapsed_us.saturating_sub(usage.run_us).saturating_sub(usage.wait_us));
                peer.took(toolchain, cost_us, own_us)
            }
            None => {
                let speed = self.here_speeds.entry(toolchain).or_default();
                speed.observe(cost_us, own_us);
                *speed
            }
        };
        self.learn(&work, speed, own_us, usage.peak_kib);
        self.counts.hedges_won += u64::from(attempt.is_second);
        self.was(false);
        self.forget(now_us, attempt.unit);
    }

    fn failed(&mut self, now_us: u64, attempt: &Attempt, failure: Failure) {
        let jitter = self.chance();
        if let Some(peer) = attempt.peer.and_then(|id| self.peers.get_mut(&id)) {
            match failure {
                Failure::Lost => peer.breaker.failed(now_us, jitter),
                Failure::Refused(refusal) if retry::is_fault(refusal) => peer.breaker.failed(now_us, jitter),
                Failure::Refused(Refusal::Paused | Refusal::Leaving) => peer.load.slots = 0,
                Failure::Refused(_) => {}
            }
        }
        let Some(unit) = self.units.get_mut(&attempt.unit) else { return };
        unit.last = Some(failure);
        if failure == Failure::Refused(Refusal::Memory) {
            unit.out_of_memory += 1;
            self.history.out_of_memory(&unit.ask.work);
            unit.expected = self.history.predict(&unit.ask.work);
        }
        let heavy = unit.out_of_memory >= OUT_OF_MEMORY_MAX;
        let next = if heavy { Next::Here(Reason::RemoteOom) } else { retry::next(failure, unit.tried) };
        match next {
            // Its other start may still end well.
            _ if !unit.attempts.is_empty() => unit.failed.extend(attempt.peer),
            Next::Elsewhere => self.again(attempt.unit, attempt.peer),
            Next::Here(reason) => self.must_be_here(attempt.unit, reason, true),
        }
    }

    /// A unit waits again, if no other start of it is under way; without a machine where it failed.
    fn again(&mut self, id: UnitId, failed: Option<PeerId>) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.failed.extend(failed);
        if unit.attempts.is_empty() {
            unit.state = State::Waits;
            self.wait(id);
        }
    }

    /// Ends a unit and whatever is left of it.
    fn forget(&mut self, now_us: u64, id: UnitId) {
        self.wait_no_more(id);
        let Some(unit) = self.units.remove(&id) else { return };
        self.moved_us = now_us;
        self.ledger.end(holder(Some(id), 0));
        for number in unit.attempts {
            if let Some(attempt) = self.attempts.remove(&number) {
                self.release(&attempt, number);
                let ran_us = now_us.saturating_sub(attempt.since_us).saturating_sub(attempt.overhead_us);
                self.counts.wasted_us = self.counts.wasted_us.saturating_add(ran_us);
                self.acts.push(Do::Cancel { unit: id, attempt: number });
            }
        }
    }

    /// Starts units that are late a second time, the newest first, while somebody has nothing else to do.
    fn hedge(&mut self, now_us: u64) {
        if !self.queues.is_empty() || !self.to_here.is_empty() {
            return;
        }
        let mut late: Vec<(u64, AttemptId)> = Vec::new();
        for (number, attempt) in self.attempts.iter().rev() {
            let alone = self.units.get(&attempt.unit).is_some_and(|u| u.attempts.len() == 1 && !u.is_hedged);
            if alone {
                late.push((attempt.since_us, *number));
            }
        }
        for (_, number) in late {
            self.hedge_one(now_us, number);
        }
    }

    fn hedge_one(&mut self, now_us: u64, number: AttemptId) {
        let attempt = &self.attempts[&number];
        let (id, unit) = (attempt.unit, &self.units[&attempt.unit]);
        let Some(late_us) = unit.expected.late_us else { return };
        let here_speed = self.here_speed(&unit.ask.toolchain);
        let speed = match attempt.peer {
            Some(peer) => self.peers.get(&peer).map_or(1.0, |peer| peer.speed(&unit.ask.toolchain)),
            None => here_speed,
        };
        let underway = Underway {
            elapsed_us: now_us.saturating_sub(attempt.since_us),
            cost_us: unit.expected.cost_us,
            late_us,
            is_known: unit.expected.is_known,
            speed,
            overhead_us: attempt.overhead_us,
        };
        if underway.elapsed_us <= hedge::EARLIEST_US {
            return;
        }
        let idle = |c: &Candidate| c.is_open() && c.mine + c.others < c.slots && Some(c.peer) != attempt.peer;
        let candidates = self.candidates(unit, now_us);
        let there = candidates.iter().filter(|c| idle(c)).filter_map(|c| {
            let target = Target { speed: c.speed, overhead_us: c.overhead_us };
            hedge::gain_us(&underway, &target).map(|gain| (gain, Some(c.peer), c.speed))
        });
        let room_here = self.here.copies
            && attempt.peer.is_some()
            && !unit.ask.force
            && self.ledger.has_room(unit.expected.memory_kib, now_us);
        let target = Target { speed: here_speed, overhead_us: hedge::COPY_US };
        let at_home = room_here.then(|| hedge::gain_us(&underway, &target)).flatten();
        let best =
            there.chain(at_home.map(|gain| (gain, None, here_speed))).max_by_key(|(gain, peer, _)| (*gain, *peer));
        let Some((_, target, speed)) = best else { return };
        let costs_us = choose::time(unit.expected.cost_us, speed);
        if !self.may_waste(costs_us) {
            return;
        }
        self.counts.hedges += 1;
        let unit = self.units.get_mut(&id).expect("it was looked at");
        unit.is_hedged = true;
        match target {
            Some(peer) => {
                let why = Why { is_second: true, ..Why::default() };
                self.offer(now_us, id, peer, why);
            }
            None => {
                let attempt = self.next_attempt;
                self.next_attempt += 1;
                unit.attempts.push(attempt);
                self.ledger.begin(holder(None, attempt), unit.expected.memory_kib, now_us, GROWS_US);
                let overhead_us = hedge::COPY_US;
                let (peer, since_us, run_us, is_second) = (None, now_us, costs_us, true);
                let made = Attempt { unit: id, peer, since_us, overhead_us, run_us, is_second };
                self.attempts.insert(attempt, made);
                self.acts.push(Do::CopyHere { unit: id, attempt });
            }
        }
    }

    /// Whether so much more may be spent in vain: all second starts that are under way may be.
    fn may_waste(&self, costs_us: u64) -> bool {
        let under_way = self.attempts.values().filter(|attempt| attempt.is_second).map(|attempt| attempt.run_us);
        let wasted = self.counts.wasted_us.saturating_add(under_way.sum()).saturating_add(costs_us);
        wasted <= self.counts.compiled_us / WASTE_PARTS
    }

    /// If nothing has moved for long and somebody waits, one of them does not wait any more.
    fn unstall(&mut self, now_us: u64) {
        if now_us.saturating_sub(self.moved_us) < STALL_US {
            return;
        }
        let waiting = self.to_here.front().copied();
        let waiting = waiting.or_else(|| self.queues.values().filter_map(|queue| queue.oldest.first()).min().copied());
        let Some(id) = waiting else { return };
        let (reason, fallback) = self.units[&id].ask.local.unwrap_or((Reason::PeersBusy, true));
        self.wait_no_more(id);
        self.counts.overflows += 1;
        self.begin_here(now_us, id, reason, fallback, Why::default());
    }
}

/// How the machines compared, in short.
fn why(
    finish_us: u64,
    choice: Choice,
    load: &choose::Load,
    candidates: &[Candidate],
    here: Option<choose::Here>,
) -> Why {
    let chosen = match choice {
        Choice::Peer(peer, _) => Some(peer),
        _ => None,
    };
    let others = candidates.iter().filter(|c| Some(c.peer) != chosen);
    let mut others: Vec<_> = others.map(|c| (Some(c.peer), c.finish_us(load.cost_us, load.mean_us))).collect();
    if let Some(here) = here.filter(|_| chosen.is_some()) {
        others.push((None, here.finish_us(load.cost_us)));
    }
    others.sort_by_key(|(_, finish)| *finish);
    others.truncate(OTHERS_MAX);
    Why { finish_us, others, is_second: false }
}
