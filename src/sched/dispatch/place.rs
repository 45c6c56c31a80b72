//! Where units go that wait (DECIDE).

use super::{
    Attempt, Dispatcher, Do, Group, LATEST_MAX, OTHERS_MAX, Queue, STALL_US, State, Unit, UnitId, Why, holder,
    peer::{Peer, Wish},
};
use crate::{
    reason::Reason,
    sched::{
        choose::{self, Candidate, Choice},
        retry,
    },
};
use mesh_proto::{peer::PeerId, toolchain::Fingerprint};
use std::cmp::Reverse;

impl Dispatcher {
    pub(super) fn group(&self, id: UnitId, unit: &Unit) -> Group {
        let alone = (!unit.failed.is_empty() || unit.out_of_memory > 0).then_some(id);
        (unit.ask.toolchain, [unit.ask.force, unit.ask.among.is_some()], unit.ask.prefer, alone)
    }

    /// Puts a unit among those that wait.
    pub(super) fn wait(&mut self, id: UnitId) {
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
    pub(super) fn wait_no_more(&mut self, id: UnitId) {
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
    pub(super) fn must_be_here(&mut self, id: UnitId, reason: Reason, fallback: bool) {
        self.wait_no_more(id);
        if let Some(unit) = self.units.get_mut(&id) {
            unit.ask.local = Some((reason, fallback));
            unit.state = State::Waits;
            self.to_here.push_back(id);
        }
    }

    /// Gives whoever waits what there is.
    pub(super) fn place(&mut self, now_us: u64) {
        self.place_here(now_us);
        self.hedge_hopeless(now_us);
        let groups: Vec<Group> = self.queues.keys().copied().collect();
        for group in groups {
            while let Some((id, shorter)) = self.queues.get(&group).and_then(|queue| self.next_of(queue)) {
                let placed = self.place_one(now_us, id, shorter.is_some());
                if !placed && !shorter.is_some_and(|shorter| self.place_one(now_us, shorter, false)) {
                    break;
                }
            }
        }
        self.place_here(now_us);
    }

    /// The longest, so that it does not end last; but nobody is passed by for ever. And the shortest, if it is much shorter.
    pub(super) fn next_of(&self, queue: &Queue) -> Option<(UnitId, Option<UnitId>)> {
        /// A unit is much shorter than another if it is less than one of so many parts of it.
        const SHORTER: u64 = 2;
        /// One that so many later ones could have passed by goes first.
        const PASSED_MAX: u64 = 256;
        let (Reverse(most), longest) = queue.longest.first()?;
        let (Reverse(least), shortest) = queue.longest.last()?;
        let oldest = queue.oldest.first()?;
        let newest = queue.oldest.last()?;
        let shorter = (*least < most / SHORTER).then_some(*shortest);
        Some(if newest - oldest > PASSED_MAX { (*oldest, None) } else { (*longest, shorter) })
    }

    pub(super) fn place_here(&mut self, now_us: u64) {
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

    pub(super) fn begin_here(&mut self, now_us: u64, id: UnitId, reason: Reason, fallback: bool, why: Why) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        unit.state = State::Here { since_us: now_us };
        self.ledger.begin(holder(Some(id), 0), unit.expected.memory_kib, now_us);
        self.moved_us = now_us;
        if fallback {
            self.counts.fallbacks += 1;
            self.was(true);
        }
        self.acts.push(Do::Here { unit: id, reason, fallback, why });
    }

    pub(super) fn was(&mut self, here: bool) {
        if self.latest.len() >= LATEST_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(here);
    }

    pub(super) fn wish(unit: &Unit) -> Wish {
        let memory_kib = if unit.expected.memory_is_guess { 0 } else { unit.expected.memory_kib };
        Wish { toolchain: unit.ask.toolchain, input_bytes: unit.ask.work.input_bytes, memory_kib }
    }

    /// The machines that a unit could go to.
    pub(super) fn candidates(&self, unit: &Unit, now_us: u64) -> Vec<Candidate> {
        let wish = Self::wish(unit);
        let has = |(id, peer): &(&PeerId, &Peer)| {
            let is_left = unit.ask.may_go_to(id) && !unit.failed.contains(id);
            is_left && peer.serves() && peer.toolchains.contains(&wish.toolchain)
        };
        let usual = self.usual;
        self.peers.iter().filter(has).map(|(id, peer)| peer.candidate(*id, &wish, usual, now_us)).collect()
    }

    /// Takes those out of the choice that are known to be so slow that they only do harm, but for a unit now and then.
    fn leave_out(
        &self,
        toolchain: &Fingerprint,
        candidates: &mut [Candidate],
        here: Option<choose::Here>,
        now_us: u64,
    ) {
        let known = |id: &PeerId| self.peers.get(id).filter(|peer| peer.is_known(toolchain));
        let proved = candidates.iter().filter(|c| known(&c.peer).is_some()).map(|c| c.speed);
        let best = proved.chain(here.map(|here| here.speed)).fold(0.0, f32::max);
        for candidate in candidates.iter_mut().filter(|c| choose::is_useless(c.speed, best)) {
            if let Some(peer) = known(&candidate.peer) {
                candidate.credits = if peer.is_due_for_a_trial(now_us) { candidate.credits.min(1) } else { 0 };
            }
        }
    }

    /// Notes which machines had nothing to do and were not chosen, because the unit would have ended much later there.
    fn note_who_is_passed_by(&mut self, choice: Choice, load: &choose::Load, candidates: &[Candidate]) {
        /// So many times as late.
        const LATER: u64 = 2;
        let (Choice::Peer(_, finish_us) | Choice::Here(finish_us)) = choice else { return };
        let latest_us = finish_us.saturating_mul(LATER);
        let idle = candidates.iter().filter(|c| c.is_open() && c.mine == 0);
        for candidate in idle.filter(|c| c.finish_us(load.cost_us, load.mean_us) > latest_us) {
            if let Some(peer) = self.peers.get_mut(&candidate.peer) {
                peer.is_passed_by();
            }
        }
    }

    /// This machine, if it is in the choice.
    pub(super) fn at_home(&self, unit: &Unit, now_us: u64) -> choose::Here {
        choose::Here {
            slots: self.ledger.slots(),
            running: self.ledger.running(),
            speed: self.here_speed(&unit.ask.toolchain),
            has_room: self.to_here.is_empty() && self.ledger.has_room(unit.expected.memory_kib, now_us),
        }
    }

    /// Whether it is worth looking at a unit that waits: all that it could choose may be full.
    fn is_anybody_open(&self, now_us: u64) -> bool {
        let is_full = |peer: &Peer| peer.serves() && peer.mine > 0 && peer.mine >= peer.credits(now_us);
        let all_full =
            self.peers.values().any(is_full) && self.peers.values().all(|peer| !peer.serves() || is_full(peer));
        let here = self.to_here.is_empty() && self.ledger.has_room(0, now_us);
        here || !all_full
    }

    /// Places one unit that waits. `false` if it has to go on waiting, and all like it with it.
    pub(super) fn place_one(&mut self, now_us: u64, id: UnitId, is_long: bool) -> bool {
        if !self.is_anybody_open(now_us) {
            return false;
        }
        let unit = &self.units[&id];
        let mut candidates = self.candidates(unit, now_us);
        let here = (!unit.ask.force).then(|| self.at_home(unit, now_us));
        let usable = candidates.iter().any(|c| c.credits > 0 || c.mine > 0);
        self.leave_out(&unit.ask.toolchain, &mut candidates, here, now_us);
        let waiting = self.queues.values().map(|queue| queue.oldest.len()).sum::<usize>() - 1;
        let load = choose::Load {
            cost_us: unit.expected.cost_us,
            mean_us: self.history.mean_us(),
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
            is_long,
        };
        let choice = choose::choose(load, &candidates, here, unit.ask.prefer);
        self.note_who_is_passed_by(choice, &load, &candidates);
        let unit = &self.units[&id];
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
    pub(super) fn why_nobody(&self, unit: &Unit) -> (Reason, bool) {
        if let Some(failure) = unit.last {
            return (retry::reason(failure), true);
        }
        let has = |peer: &&Peer| peer.is_connected && peer.toolchains.contains(&unit.ask.toolchain);
        let all = || self.peers.iter().filter(|(_, peer)| has(peer));
        let there: Vec<&Peer> = all().filter(|(id, _)| unit.ask.may_go_to(id)).map(|(_, peer)| peer).collect();
        let reason = if there.is_empty() && all().next().is_some() {
            Reason::Policy
        } else if there.is_empty() {
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

    pub(super) fn offer(&mut self, now_us: u64, id: UnitId, peer: PeerId, why: Why) {
        let usual = self.usual;
        let unit = self.units.get_mut(&id).expect("it was looked at");
        // It may have waited since before anything of its class had ended.
        if unit.ask.memory_kib == 0 {
            unit.expected = self.history.predict(&unit.ask.work);
        }
        let wish = Self::wish(unit);
        let there = self.peers.get_mut(&peer).expect("it was chosen from these");
        let candidate = there.candidate(peer, &wish, usual, now_us);
        let overhead_us = candidate.overhead_us + candidate.wait_us(self.history.mean_us());
        there.gets_one(now_us);
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

    /// If nothing has moved for long and somebody waits, one of them does not wait any more.
    pub(super) fn unstall(&mut self, now_us: u64) {
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
