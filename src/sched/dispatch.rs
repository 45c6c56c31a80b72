//! The client: every unit of this machine's user, from its closure to its end (DECIDE).
//!
//! A state machine without a clock, a lock or a wire. It is told what happens ([`Dispatcher::ask`], [`Dispatcher::load`],
//! [`Dispatcher::ended`] and the others), and says what is to be done ([`Dispatcher::take`]). The agent and the simulation
//! of the cluster drive the same code. [`place`] says where units go that wait, [`ends`] what follows when a start ends,
//! [`second`] which units are started a second time, [`peer`] what is believed of another machine.

mod ends;
mod peer;
mod place;
mod second;
#[cfg(test)]
mod tests;

use super::{
    choose,
    history::{History, Prediction, Work},
    ledger::Ledger,
    retry::Failure,
    speed::{Speed, mean},
};
use crate::reason::Reason;
use mesh_proto::{
    digest::Digest,
    job::{Refusal, Usage},
    message::Load,
    peer::PeerId,
    toolchain::Fingerprint,
};
pub use peer::Peer;
use serde::{Deserialize, Serialize};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
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
/// The share of all compile time that second starts may be expected to waste, one part of so many: what they really waste is
/// known afterwards, and is to stay below a twentieth.
const WASTE_PARTS: u64 = 30;
/// And so many average units, so that a small build is not left with its last unit on a machine that crawls.
const WASTE_UNITS: u64 = 2;
/// Of so many units that could have gone out, the latest, it is known whether they were compiled here for want of another.
const LATEST_MAX: usize = 64;
/// From this share of them on, of a hundred, something is wrong.
const ALARM_PERCENT: usize = 25;
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
    /// Nobody else compiles it, if this is not everybody.
    pub among: Option<Arc<BTreeSet<PeerId>>>,
    /// It is to be compiled here, for this reason, and only waits for a slot; and whether that is a fallback from a remote
    /// compile that was or would have been tried.
    pub local: Option<(Reason, bool)>,
    /// The memory that it is known to need, KiB; 0 if that is to be told from its work.
    pub memory_kib: u64,
}

impl Ask {
    /// For something that is compiled here, with a compiler of which nothing need be known. The reason is to be added.
    #[must_use]
    pub fn here(work: Work) -> Self {
        Self {
            toolchain: Fingerprint(Digest([0; 32])),
            work,
            force: false,
            prefer: None,
            among: None,
            local: None,
            memory_kib: 0,
        }
    }

    /// Whether a machine may compile it.
    #[must_use]
    pub fn may_go_to(&self, peer: &PeerId) -> bool {
        self.among.as_ref().is_none_or(|among| among.contains(peer))
    }
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

/// What is worth remembering when an agent ends: costs of units, and how fast machines are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Known {
    /// What units cost.
    pub history: History,
    /// How fast machines are with a compiler; `None` for this one.
    pub speeds: Vec<(Option<PeerId>, Fingerprint, Speed)>,
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
    /// Compile time of starts that nobody needed, as it would be on a machine of speed 1, microseconds.
    pub wasted_us: u64,
    /// All compile time, microseconds on such a machine.
    pub compiled_us: u64,
    /// Units that were to go out and were compiled here.
    pub fallbacks: u64,
    /// Units that were compiled here although the ledger was full, because nothing moved.
    pub overflows: u64,
}

/// What is believed of a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Belief {
    /// How fast one of its slots is, this machine's being 1, if enough units have ended there to tell.
    pub speed: Option<f32>,
    /// Offers of this machine that it has.
    pub held: u32,
    /// Failures since something last went well there.
    pub failures: u32,
    /// When it last said how busy it is, microseconds.
    pub heard_us: u64,
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
    /// It was started a second time, which happens once: so much of both may be in vain, microseconds of cost.
    hedged_us: Option<u64>,
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

/// Units that choose alike: one that has failed somewhere does not. The second of the flags: not everybody may compile it.
type Group = (Fingerprint, [bool; 2], Option<PeerId>, Option<UnitId>);

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
    /// How fast a machine is of which nothing is known: as those of which something is.
    usual: f32,
    /// Starts that are so late that a second one goes before units that wait.
    hopeless: Vec<AttemptId>,
}

/// What holds a slot of the ledger here.
fn holder(unit: Option<UnitId>, attempt: AttemptId) -> u64 {
    unit.map_or(attempt * 2 + 1, |unit| unit * 2)
}

impl Dispatcher {
    /// With what was learned before. `seed` is for pauses that should differ from machine to machine.
    #[must_use]
    pub fn new(known: Known, seed: u64) -> Self {
        let Known { history, speeds } = known;
        let mut all = Self {
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
            usual: 1.0,
            hopeless: Vec::new(),
        };
        for (machine, toolchain, speed) in speeds.into_iter().take(PEERS_MAX) {
            match machine {
                Some(id) => all.peers.entry(id).or_default().remember(toolchain, speed),
                None => drop(all.here_speeds.insert(toolchain, speed)),
            }
        }
        all.usual = all.mean_speed().0;
        all
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
        let mut expected = self.history.predict(&ask.work);
        if ask.memory_kib > 0 {
            (expected.memory_kib, expected.memory_is_guess) = (ask.memory_kib, false);
        }
        let unit = Unit {
            ask,
            expected,
            state: State::Waits,
            attempts: Vec::new(),
            tried: 0,
            busy: 0,
            out_of_memory: 0,
            hedged_us: None,
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
            let (work, toolchain, expected) = (unit.ask.work, unit.ask.toolchain, unit.expected);
            // Others that run here take their part of what it gets.
            let crowd = u64::from(self.ledger.running().max(1)).max(u64::from(self.here.cores.max(1)));
            let own_us = took_us * u64::from(self.here.cores.max(1)) / crowd;
            self.learn(None, &toolchain, &work, &expected, own_us, 0);
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
        self.look_at_what_takes_long(now_us);
        self.note_hopeless(now_us);
        self.place(now_us);
        self.hedge(now_us);
        self.unstall(now_us);
    }

    /// What is to be done since the last call, in order.
    pub fn take(&mut self) -> Vec<Do> {
        std::mem::take(&mut self.acts)
    }

    /// Units that wait for, or are with, other machines: by this those share their slots out. Rounded up to two binary digits,
    /// so that it need not be said anew with every unit.
    #[must_use]
    pub fn wants(&self) -> u32 {
        let away = |unit: &&Unit| unit.ask.local.is_none() && !matches!(unit.state, State::Here { .. });
        let count = u32::try_from(self.units.values().filter(away).count()).unwrap_or(u32::MAX);
        let step = 1u32 << count.checked_ilog2().unwrap_or(0).saturating_sub(1);
        count.div_ceil(step).saturating_mul(step)
    }

    /// Compilers of this machine's own user that run here, second starts included.
    #[must_use]
    pub fn running_here(&self) -> u32 {
        self.ledger.running()
    }

    /// How long a unit is expected to take here, microseconds.
    #[must_use]
    pub fn expects_us(&self, toolchain: &Fingerprint, work: &Work) -> u64 {
        choose::time(self.history.predict(work).cost_us, self.here_speed(toolchain))
    }

    /// Whether any unit is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.units.is_empty()
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

    /// What is worth remembering.
    #[must_use]
    pub fn known(&self) -> Known {
        let here = self.here_speeds.iter().map(|(toolchain, speed)| (None, *toolchain, *speed));
        let there = self
            .peers
            .iter()
            .flat_map(|(id, peer)| peer.known_speeds().map(|(toolchain, speed)| (Some(*id), toolchain, speed)));
        Known { history: self.history.clone(), speeds: here.chain(there).collect() }
    }

    /// How often a cost was learned: to tell whether it is worth keeping.
    #[must_use]
    pub fn learned(&self) -> u64 {
        self.history.count()
    }

    /// What is believed of a peer.
    #[must_use]
    pub fn belief(&self, id: PeerId) -> Belief {
        let here = mean(self.here_speeds.values()).unwrap_or(self.usual);
        self.peers.get(&id).map_or_else(Belief::default, |peer| Belief {
            speed: peer.mean_speed().map(|speed| speed / here),
            held: peer.mine,
            failures: peer.breaker.failures(),
            heard_us: peer.heard_us,
        })
    }

    /// Whether a peer is so slow, or so far away, that it only gets what the others have no room for.
    #[must_use]
    pub fn is_too_slow(&self, id: PeerId) -> bool {
        let speeds = self.peers.values().filter(|peer| peer.serves()).filter_map(Peer::mean_speed);
        let best = speeds.fold(mean(self.here_speeds.values()).unwrap_or(0.0), f32::max);
        let Some(peer) = self.peers.get(&id) else { return false };
        peer.is_left_out() || peer.mean_speed().is_some_and(|own| choose::is_too_slow(own, best))
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
}
