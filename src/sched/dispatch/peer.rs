//! What is believed of another machine, and how old it is (DECIDE).

use crate::sched::{
    breaker::Breaker,
    choose::Candidate,
    speed::{self, Mean, Speed},
};
use mesh_proto::{message::Load, peer::PeerId, toolchain::Fingerprint};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes a second of a link of which nothing is known: a slow gigabit.
const BYTES_A_S_DEFAULT: u64 = 60_000_000;
/// Units of little input are compressed to about this share, one part of so many.
const COMPRESSION: u64 = 4;
/// A machine that refused for want of a slot is asked again after this time, or when it says something new.
const BUSY_US: u64 = 100_000;
/// One that is too slow to be used gets a unit this often, microseconds, to see whether it still is.
const TRIAL_US: u64 = 60_000_000;
/// At first a machine gets one unit for so many of its slots.
const UNKNOWN_SHARE: u32 = 4;
/// A machine that so many units in succession have passed by does not help.
const PASSED_BY_MAX: u32 = 20;
/// Speeds of so many compilers are remembered for one machine.
const SPEEDS_MAX: usize = 64;

/// A machine of the mesh.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    pub(super) is_connected: bool,
    pub(super) load: Load,
    /// When it said so.
    pub(super) heard_us: u64,
    pub(super) toolchains: BTreeSet<Fingerprint>,
    pub(super) rtt_us: u64,
    bytes_a_s: Option<u64>,
    /// What its units took besides their compilers lately.
    overhead: Mean,
    speeds: BTreeMap<Fingerprint, Speed>,
    /// Offers of this machine that it holds.
    pub(super) mine: u32,
    pub(super) breaker: Breaker,
    busy_until_us: u64,
    /// How fast it can be at most, by what is taking so long there now.
    pub(super) seems: Option<f32>,
    /// When it got a unit last.
    got_us: u64,
    /// What it has shown to be good for: nobody knows how slow it is before units have ended there, nor whether it keeps
    /// what it grants. One more with each unit that ends well, so that it doubles in the time of a unit.
    proved: Option<u32>,
    /// Units in succession that would have ended much later there, although it had nothing to do.
    passed_by: u32,
}

impl Peer {
    /// What was learned of it before.
    pub(super) fn remember(&mut self, toolchain: Fingerprint, speed: Speed) {
        if self.speeds.len() < SPEEDS_MAX {
            self.speeds.insert(toolchain, speed);
        }
    }

    /// What was learned of it.
    pub(super) fn known_speeds(&self) -> impl Iterator<Item = (Fingerprint, Speed)> {
        self.speeds.iter().map(|(toolchain, speed)| (*toolchain, *speed))
    }

    /// It says how busy it is.
    pub(super) fn says(&mut self, now_us: u64, load: Load) {
        self.load = load;
        self.heard_us = now_us;
        self.busy_until_us = 0;
    }

    /// It is offered one more.
    pub(super) fn gets_one(&mut self, now_us: u64) {
        self.mine += 1;
        self.got_us = now_us;
        self.passed_by = 0;
    }

    /// A unit went elsewhere that would have ended much later here.
    pub(super) fn is_passed_by(&mut self) {
        self.passed_by = self.passed_by.saturating_add(1);
    }

    /// Whether units go elsewhere one after the other because they would end later here.
    #[must_use]
    pub(super) fn is_left_out(&self) -> bool {
        self.passed_by >= PASSED_BY_MAX
    }

    /// Whether it may have one although it is too slow to be used.
    pub(super) fn is_due_for_a_trial(&self, now_us: u64) -> bool {
        self.mine == 0 && now_us.saturating_sub(self.got_us) >= TRIAL_US
    }

    /// It refused for want of a slot.
    pub(super) fn was_busy(&mut self, now_us: u64) {
        self.proved = Some(self.mine.max(1));
        self.busy_until_us = now_us.saturating_add(BUSY_US);
    }

    /// A unit ended well there. If it waited for longer than it ran, and longer than was to be expected, the machine takes
    /// more than it can run.
    pub(super) fn worked(&mut self, has_waited: bool) {
        self.breaker.worked();
        self.proved = Some(match has_waited {
            true => self.mine.div_ceil(2).max(1),
            false => self.proved.unwrap_or_else(|| self.at_first()).saturating_add(1),
        });
    }

    /// How many units it gets before one has ended there: some, if nothing is remembered of it.
    fn at_first(&self) -> u32 {
        let is_known = self.speeds.values().any(Speed::is_known);
        if is_known { u32::MAX } else { (u32::from(self.load.slots) / UNKNOWN_SHARE).max(1) }
    }

    pub(super) fn measured(&mut self, rtt_us: u64, bytes_a_s: Option<u64>) {
        self.rtt_us = rtt_us;
        self.bytes_a_s = bytes_a_s.filter(|rate| *rate > 0).or(self.bytes_a_s);
    }

    /// How fast it seems if units that should have cost so much had ended after so long.
    pub(super) fn seems_with(&mut self, usual: f32, mean_us: u64, (cost_us, took_us): (u64, u64)) {
        let slowest = self.speeds.values().copied().min_by(|a, b| a.value().total_cmp(&b.value()));
        let known = slowest.unwrap_or(Speed::usual(usual, mean_us));
        self.seems = Some(known.with(cost_us, took_us));
    }

    /// How fast it is with a compiler; with one that has not been used there, as with all others; and if it is not known at
    /// all, as most are.
    #[must_use]
    pub(super) fn speed(&self, toolchain: &Fingerprint, usual: f32) -> f32 {
        let own = self.speeds.get(toolchain).map(Speed::value);
        let speed = own.or_else(|| self.mean_speed()).unwrap_or(usual);
        self.seems.map_or(speed, |seems| speed.min(seems))
    }

    /// Whether enough units have ended there with a compiler to believe its speed.
    #[must_use]
    pub(super) fn is_known(&self, toolchain: &Fingerprint) -> bool {
        self.speeds.get(toolchain).is_some_and(Speed::is_known)
    }

    /// How fast it is with all compilers, if enough units have ended there to tell.
    #[must_use]
    pub(super) fn mean_speed(&self) -> Option<f32> {
        speed::mean(self.speeds.values())
    }

    /// See [`Speed::scale`].
    pub(super) fn scale(&mut self, factor: f32) {
        self.speeds.values_mut().for_each(|speed| speed.scale(factor));
    }

    /// A unit ended there: it should have cost so much, and its compiler took so long with a core of its own.
    pub(super) fn took(
        &mut self,
        toolchain: Fingerprint,
        (usual, mean_us): (f32, u64),
        (cost_us, run_us, known): (u64, u64, bool),
    ) {
        if self.speeds.len() >= SPEEDS_MAX && !self.speeds.contains_key(&toolchain) {
            self.speeds.clear();
        }
        let usual = self.speed(&toolchain, usual);
        let speed = self.speeds.entry(toolchain).or_insert(Speed::usual(usual, mean_us));
        speed.observe(cost_us, run_us, known, mean_us);
    }

    /// What a unit took there besides its compiler and the wait for a slot.
    pub(super) fn overhead_was(&mut self, us: u64) {
        self.overhead.observe(us);
    }

    /// What a unit of so much input will take there besides its compiler, microseconds.
    #[must_use]
    pub(super) fn overhead_us(&self, input_bytes: u64) -> u64 {
        let rate = self.bytes_a_s.unwrap_or(BYTES_A_S_DEFAULT).max(1);
        let wire = || (input_bytes / COMPRESSION).saturating_mul(1_000_000) / rate;
        self.overhead.value().unwrap_or_else(|| self.rtt_us.saturating_mul(3).saturating_add(wire()))
    }

    /// Whether it serves at all.
    #[must_use]
    pub(super) fn serves(&self) -> bool {
        self.is_connected && self.load.slots > 0 && self.load.closed.is_none()
    }

    /// As the choice sees it.
    #[must_use]
    pub(super) fn candidate(&self, id: PeerId, wish: &Wish, usual: f32, now_us: u64) -> Candidate {
        Candidate {
            peer: id,
            slots: u32::from(self.load.slots),
            credits: self.credits(now_us),
            mine: self.mine,
            others: u32::from(self.load.accepted),
            speed: self.speed(&wish.toolchain, usual),
            overhead_us: self.overhead_us(wish.input_bytes),
            has_memory: wish.memory_kib / 1024 <= u64::from(self.load.memory_mib),
        }
    }

    /// How many units of this machine it gets at once: what it granted, or less, if it has been found not to keep that.
    #[must_use]
    pub(super) fn credits(&self, now_us: u64) -> u32 {
        match u32::from(self.load.credits) {
            _ if self.breaker.is_open(now_us) || now_us < self.busy_until_us => 0,
            credits if self.breaker.is_on_probation() => credits.min(1),
            credits => credits.min(self.proved.unwrap_or_else(|| self.at_first())),
        }
    }
}

/// What a unit needs of a machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) toolchain: Fingerprint,
    pub(super) input_bytes: u64,
    /// 0 if nobody knows.
    pub(super) memory_kib: u64,
}
