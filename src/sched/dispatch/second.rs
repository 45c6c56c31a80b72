//! Second starts of units that are late, within a budget (DECIDE).

use super::{Attempt, AttemptId, Dispatcher, Do, WASTE_PARTS, WASTE_UNITS, Why, holder};
use crate::sched::{
    choose::{self, Candidate},
    hedge::{self, Target, Underway},
};
use mesh_proto::peer::PeerId;
use std::collections::BTreeMap;

/// After so many times the latest that was expected on a usual machine, a unit goes before those that have not begun.
const HOPELESS: u64 = 2;

impl Dispatcher {
    /// How fast machines can be at most, by what is under way there.
    pub(super) fn look_at_what_takes_long(&mut self, now_us: u64) {
        for peer in self.peers.values_mut() {
            peer.seems = None;
        }
        let (usual, mean_us) = (self.usual, self.history.mean_us());
        // What they should have cost, and for how long they have been under way: those that are late, by machine.
        let mut late: BTreeMap<PeerId, (u64, u64)> = BTreeMap::new();
        for attempt in self.attempts.values() {
            let (Some(id), Some(unit)) = (attempt.peer, self.units.get(&attempt.unit)) else { continue };
            let passed_us = now_us.saturating_sub(attempt.since_us).saturating_sub(attempt.overhead_us);
            if unit.expected.is_informed && passed_us > hedge::EARLIEST_US.max(attempt.run_us) {
                let (cost_us, took_us) = late.entry(id).or_default();
                *cost_us = cost_us.saturating_add(unit.expected.average_us);
                *took_us = took_us.saturating_add(passed_us);
            }
        }
        for (id, sums) in late {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.seems_with(usual, mean_us, sums);
            }
        }
    }

    /// Starts units that are late a second time, the newest first, while somebody has nothing else to do.
    pub(super) fn hedge(&mut self, now_us: u64) {
        if !self.queues.is_empty() || !self.to_here.is_empty() {
            return;
        }
        let mut late: Vec<(u64, AttemptId)> = Vec::new();
        for (number, attempt) in self.attempts.iter().rev() {
            let alone = self.units.get(&attempt.unit).is_some_and(|u| u.attempts.len() == 1 && u.hedged_us.is_none());
            if alone {
                late.push((attempt.since_us, *number));
            }
        }
        for (_, number) in late {
            self.hedge_one(now_us, number, WASTE_PARTS);
        }
    }

    /// Notes which starts are so late that a second one must not wait until there is nothing else to do: a unit that is
    /// with a very slow machine would be the last one of the build.
    pub(super) fn note_hopeless(&mut self, now_us: u64) {
        for unit in self.units.values_mut().filter(|unit| unit.expected.late_us.is_none() && !unit.attempts.is_empty())
        {
            unit.expected.late_us = self.history.predict(&unit.ask.work).late_us;
        }
        let is_hopeless = |(number, attempt): (&AttemptId, &Attempt)| {
            let unit = self.units.get(&attempt.unit)?;
            let late_us = unit.expected.late_us.filter(|_| unit.hedged_us.is_none() && unit.attempts.len() == 1)?;
            let latest_us = choose::time(late_us, self.usual).saturating_add(attempt.overhead_us);
            let elapsed_us = now_us.saturating_sub(attempt.since_us);
            (elapsed_us > HOPELESS.saturating_mul(latest_us)).then_some(*number)
        };
        self.hopeless = self.attempts.iter().filter_map(is_hopeless).collect();
    }

    /// Starts those a second time, if there is room; half of what may be wasted is left for the end of the build.
    pub(super) fn hedge_hopeless(&mut self, now_us: u64) {
        for number in std::mem::take(&mut self.hopeless) {
            let Some(attempt) = self.attempts.get(&number) else { continue };
            let unit = attempt.unit;
            self.hedge_one(now_us, number, WASTE_PARTS * 2);
            if self.units.get(&unit).is_some_and(|unit| unit.hedged_us.is_none()) {
                self.hopeless.push(number);
            }
        }
    }

    fn hedge_one(&mut self, now_us: u64, number: AttemptId, parts: u64) {
        let attempt = &self.attempts[&number];
        let (id, unit) = (attempt.unit, &self.units[&attempt.unit]);
        let Some(late_us) = unit.expected.late_us else { return };
        let here_speed = self.here_speed(&unit.ask.toolchain);
        let speed = self.speed_at(attempt.peer, &unit.ask.toolchain);
        let there = attempt.peer.and_then(|id| self.peers.get(&id));
        let is_proved = there.is_none_or(|peer| peer.is_known(&unit.ask.toolchain));
        let underway = Underway {
            elapsed_us: now_us.saturating_sub(attempt.since_us),
            cost_us: unit.expected.cost_us,
            late_us,
            // Of a machine where nothing has ended yet it is rather the machine than the unit.
            is_known: unit.expected.is_known || !is_proved,
            speed,
            is_proved,
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
        let Some((_, target, target_speed)) = best else { return };
        let (cost_us, run_us) = (unit.expected.cost_us, choose::time(unit.expected.cost_us, target_speed));
        // A slow machine will not have done much of it.
        let done_us = choose::time(underway.elapsed_us.saturating_add(run_us), 1.0 / speed);
        let risk_us = if is_proved { cost_us.min(done_us) } else { cost_us };
        if !self.may_waste(risk_us, parts) {
            return;
        }
        self.counts.hedges += 1;
        let unit = self.units.get_mut(&id).expect("it was looked at");
        unit.hedged_us = Some(risk_us);
        match target {
            Some(peer) => {
                let why = Why { is_second: true, ..Why::default() };
                self.offer(now_us, id, peer, why);
            }
            None => {
                let attempt = self.next_attempt;
                self.next_attempt += 1;
                unit.attempts.push(attempt);
                self.ledger.begin(holder(None, attempt), unit.expected.memory_kib, now_us);
                let overhead_us = hedge::COPY_US;
                let (peer, since_us, is_second) = (None, now_us, true);
                let made = Attempt { unit: id, peer, since_us, overhead_us, run_us, is_second };
                self.attempts.insert(attempt, made);
                self.acts.push(Do::CopyHere { unit: id, attempt });
            }
        }
    }

    /// Whether so much more may be spent in vain: all second starts that are under way may be.
    pub(super) fn may_waste(&self, costs_us: u64, parts: u64) -> bool {
        let second = self.attempts.values().filter(|attempt| attempt.is_second);
        let risks = second.filter_map(|attempt| self.units.get(&attempt.unit)?.hedged_us);
        let wasted = self.counts.wasted_us.saturating_add(risks.sum()).saturating_add(costs_us);
        wasted <= self.counts.compiled_us / parts + WASTE_UNITS * self.history.mean_us()
    }
}
