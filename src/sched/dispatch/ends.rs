//! What follows when a start, or a unit, ends (DECIDE).

use super::{Attempt, AttemptId, BUSY_MAX, Dispatcher, Do, End, OUT_OF_MEMORY_MAX, State, UnitId, holder, peer::Peer};
use crate::{
    reason::Reason,
    sched::{
        choose,
        history::{Prediction, SAMPLES_MIN, Work},
        retry::{self, Failure, Next},
        speed::{Speed, mean},
    },
};
use mesh_proto::{
    job::{Refusal, Usage},
    peer::PeerId,
    toolchain::Fingerprint,
};

impl Dispatcher {
    pub(super) fn here_speed(&self, toolchain: &Fingerprint) -> f32 {
        self.here_speeds.get(toolchain).map_or(self.usual, Speed::value)
    }

    /// How fast a machine (`None`: this one) is with a compiler.
    pub(super) fn speed_at(&self, machine: Option<PeerId>, toolchain: &Fingerprint) -> f32 {
        match machine {
            Some(id) => self.peers.get(&id).map_or(self.usual, |peer| peer.speed(toolchain, self.usual)),
            None => self.here_speed(toolchain),
        }
    }

    pub(super) fn chance(&mut self) -> f32 {
        // Xorshift (Marsaglia, 2003): nothing secret depends on it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        #[expect(clippy::cast_precision_loss, reason = "chance")]
        let part = (self.random >> 40) as f32;
        part / 16_777_216.0
    }

    /// Learns from a unit that ended on a machine (`None`: here) what it costs, and how fast the machine is: `own_us` is what
    /// its compiler took with a core of its own.
    pub(super) fn learn(
        &mut self,
        machine: Option<PeerId>,
        toolchain: &Fingerprint,
        work: &Work,
        expected: &Prediction,
        own_us: u64,
        peak_kib: u64,
    ) {
        let at = self.speed_at(machine, toolchain);
        self.counts.compiled_us = self.counts.compiled_us.saturating_add(choose::time(own_us, 1.0 / at));
        if work.key == 0 {
            return;
        }
        let Prediction { average_us, is_informed, is_known: is_known_unit, .. } = *expected;
        if is_informed {
            self.observe(machine, toolchain, (average_us, own_us, is_known_unit));
        }
        let is_known = match machine {
            Some(id) => self.peers.get(&id).is_some_and(|peer| peer.is_known(toolchain)),
            None => self.here_speeds.get(toolchain).is_some_and(Speed::is_known),
        };
        let speed = self.speed_at(machine, toolchain);
        // A machine of which little is known would say more of itself than of the unit.
        if is_known || self.history.ended(work.class) < SAMPLES_MIN {
            self.history.learned(work, choose::time(own_us, 1.0 / speed), peak_kib);
        }
    }

    /// Learns how fast a machine is from a unit that should have cost so much and took so long there.
    ///
    /// Only the ratios of speeds mean anything, and what units cost is told by them: where all seemed to become slower
    /// together, what was learned before would be said in another measure than what is learned now. So the mean of those
    /// that are known stays what it is.
    pub(super) fn observe(&mut self, machine: Option<PeerId>, toolchain: &Fingerprint, unit: (u64, u64, bool)) {
        let (usual, mean_us) = (self.usual, self.history.mean_us());
        let before = self.mean_speed();
        match machine {
            Some(id) => {
                let Some(peer) = self.peers.get_mut(&id) else { return };
                peer.took(*toolchain, (usual, mean_us), unit);
            }
            None => {
                let (cost_us, took_us, is_known) = unit;
                let speed = self.here_speeds.entry(*toolchain).or_insert(Speed::usual(usual, mean_us));
                speed.observe(cost_us, took_us, is_known, mean_us);
            }
        }
        let after = self.mean_speed();
        if before.1 == after.1 && before.1 > 0 {
            let factor = before.0 / after.0;
            self.peers.values_mut().for_each(|peer| peer.scale(factor));
            self.here_speeds.values_mut().for_each(|speed| speed.scale(factor));
        }
        self.usual = self.mean_speed().0;
    }

    /// The mean speed of those machines of which something is known, and how many that are; 1 if there are none.
    pub(super) fn mean_speed(&self) -> (f32, u32) {
        let peers = self.peers.values().filter_map(Peer::mean_speed);
        let all = peers.chain(mean(self.here_speeds.values()));
        let (sum, count) = all.fold((0.0f32, 0), |(sum, count), speed| (sum + speed.ln(), count + 1));
        #[expect(clippy::cast_precision_loss, reason = "machines are few")]
        let value = if count > 0 { (sum / count as f32).exp() } else { 1.0 };
        (value, count)
    }

    /// Ends one start. The unit is placed again, or has ended.
    pub(super) fn end(&mut self, now_us: u64, number: AttemptId, end: End) {
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
    pub(super) fn release(&mut self, attempt: &Attempt, number: AttemptId) {
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

    pub(super) fn done(&mut self, now_us: u64, attempt: &Attempt, usage: &Usage) {
        let unit = &self.units[&attempt.unit];
        let (work, toolchain, expected) = (unit.ask.work, unit.ask.toolchain, unit.expected);
        let own_us = usage.run_us * 100 / u64::from(usage.crowd_percent.max(100));
        if let Some(peer) = attempt.peer.and_then(|id| self.peers.get_mut(&id)) {
            peer.worked();
            let elapsed_us = now_us.saturating_sub(attempt.since_us);
            peer.overhead_was(elapsed_us.saturating_sub(usage.run_us).saturating_sub(usage.wait_us));
        }
        self.learn(attempt.peer, &toolchain, &work, &expected, own_us, usage.peak_kib);
        // By what it cost is judged what the other start of it was good for.
        let at = self.speed_at(attempt.peer, &toolchain);
        if let Some(unit) = self.units.get_mut(&attempt.unit) {
            let cost_us = choose::time(own_us, 1.0 / at).max(1);
            unit.expected =
                Prediction { cost_us, average_us: cost_us, is_informed: true, is_known: true, ..unit.expected };
        }
        self.counts.hedges_won += u64::from(attempt.is_second);
        self.was(false);
        self.forget(now_us, attempt.unit);
    }

    pub(super) fn failed(&mut self, now_us: u64, attempt: &Attempt, failure: Failure) {
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
    pub(super) fn again(&mut self, id: UnitId, failed: Option<PeerId>) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.failed.extend(failed);
        if unit.attempts.is_empty() {
            unit.state = State::Waits;
            self.wait(id);
        }
    }

    /// Ends a unit and whatever is left of it.
    pub(super) fn forget(&mut self, now_us: u64, id: UnitId) {
        self.wait_no_more(id);
        let Some(unit) = self.units.remove(&id) else { return };
        self.moved_us = now_us;
        self.ledger.end(holder(Some(id), 0));
        let toolchain = unit.ask.toolchain;
        for number in unit.attempts {
            if let Some(attempt) = self.attempts.remove(&number) {
                self.release(&attempt, number);
                let ran_us = now_us.saturating_sub(attempt.since_us).saturating_sub(attempt.overhead_us);
                // A machine that lost by being slow says so although its result is not awaited: what it would have taken
                // is not known, only that it was more. Whoever has taken so long takes as long again, on average.
                let expected = unit.expected;
                if attempt.peer.is_some() && expected.is_informed && ran_us > attempt.run_us {
                    let unit = (expected.average_us, ran_us.saturating_mul(2), expected.is_known);
                    self.observe(attempt.peer, &toolchain, unit);
                }
                let at = self.speed_at(attempt.peer, &toolchain);
                // It has not done all of the unit, however long it took.
                let wasted_us = choose::time(ran_us, 1.0 / at).min(expected.cost_us);
                self.counts.wasted_us = self.counts.wasted_us.saturating_add(wasted_us);
                self.acts.push(Do::Cancel { unit: id, attempt: number });
            }
        }
    }
}
