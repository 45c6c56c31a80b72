//! Picks the machine with the lowest expected finish (DECIDE).

use mesh_proto::peer::PeerId;

/// How much later than by waiting a unit may be expected to end on a machine that has room now. A slow machine helps for as
/// long as there is enough to do; a very slow one would still be at it when all others are done.
const SLOWER_MAX: u64 = 4;
/// The same for a unit beside which nobody waits, or much shorter ones for which a slow machine is good enough; of a hundred.
const SLOWER_PERCENT: u64 = 150;
/// A machine that is so many times slower than the best is not used at all: what it would add is less than what its last
/// units cost.
const USELESS: u64 = 10;
/// This machine's cores also feed all others (the client's processor is the scarce thing): it counts as slower than it is.
const HERE_PERCENT: u64 = 80;

/// What is believed of a connected peer that has the unit's compiler and serves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Who.
    pub peer: PeerId,
    /// Compilers that it runs for others at once.
    pub slots: u32,
    /// Offers that it takes from this machine, all together; 0 while it is left alone.
    pub credits: u32,
    /// Offers of this machine that it holds.
    pub mine: u32,
    /// Offers of others that it holds, as it last said.
    pub others: u32,
    /// How fast one of its slots is.
    pub speed: f32,
    /// What a unit takes there besides its compiler: the wire, the inputs that it lacks, its root; microseconds.
    pub overhead_us: u64,
    /// Whether the unit fits into its memory.
    pub has_memory: bool,
}

/// This machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Here {
    /// Compilers that its own user runs at once.
    pub slots: u32,
    /// Compilers that run here now.
    pub running: u32,
    /// How fast one of its slots is.
    pub speed: f32,
    /// Whether one more may begin: a slot is free, and the unit fits into its memory.
    pub has_room: bool,
}

/// What is to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// What the unit is expected to cost, microseconds.
    pub cost_us: u64,
    /// What units cost on average.
    pub mean_us: u64,
    /// Units that wait besides it.
    pub waiting: u32,
    /// Much shorter ones are among them.
    pub is_long: bool,
}

/// Where a unit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// To this peer; it should end there after so many microseconds.
    Peer(PeerId, u64),
    /// It is compiled here, and should end after so many microseconds.
    Here(u64),
    /// Whoever would be best is full; ask again when something changes.
    Wait,
    /// Nobody serves, and this machine is out of the choice.
    Nobody,
}

impl Candidate {
    /// Whether it takes one more.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.slots > 0 && self.mine < self.credits && self.has_memory
    }

    /// How long until a unit that is given to it now gets a slot, microseconds.
    #[must_use]
    pub fn wait_us(&self, mean_us: u64) -> u64 {
        let held = u64::from(self.mine) + u64::from(self.others);
        let slots = u64::from(self.slots.max(1));
        let ahead = (held + 1).saturating_sub(slots);
        time(mean_us, self.speed).saturating_mul(ahead) / slots
    }

    /// When a unit that is given to it now ends, microseconds from now.
    #[must_use]
    pub fn finish_us(&self, cost_us: u64, mean_us: u64) -> u64 {
        let run = time(cost_us, self.speed);
        self.overhead_us.saturating_add(self.wait_us(mean_us)).saturating_add(run)
    }
}

impl Here {
    /// When a unit that begins here now ends, microseconds from now.
    #[must_use]
    pub fn finish_us(&self, cost_us: u64) -> u64 {
        // Jobs of others give way, but they are there.
        let crowd = u64::from(self.running + 1).max(u64::from(self.slots));
        time(cost_us, self.speed).saturating_mul(crowd) / u64::from(self.slots.max(1)) * 100 / HERE_PERCENT
    }
}

/// Whether a machine of this speed gets only what there is no room for elsewhere, where the best one is so fast.
#[must_use]
pub fn is_too_slow(speed: f32, best: f32) -> bool {
    time(1_000_000, speed) / SLOWER_MAX > time(1_000_000, best)
}

/// Whether a machine of this speed is not used at all, where the best one is so fast.
#[must_use]
pub fn is_useless(speed: f32, best: f32) -> bool {
    time(1_000_000, speed) / USELESS > time(1_000_000, best)
}

/// How long a cost takes at a speed, microseconds.
#[must_use]
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
pub fn time(cost_us: u64, speed: f32) -> u64 {
    (cost_us as f64 / f64::from(speed.max(f32::MIN_POSITIVE))) as u64
}

/// Chooses. `here` is `None` where this machine is out of the choice (`MESH=force`). A preferred peer that can take the
/// unit gets it. Ties go to the smaller id, so that equal input gives equal choice.
#[must_use]
pub fn choose(load: Load, candidates: &[Candidate], here: Option<Here>, prefer: Option<PeerId>) -> Choice {
    let finish = |c: &Candidate| c.finish_us(load.cost_us, load.mean_us);
    let open = || candidates.iter().filter(|c| c.is_open());
    if let Some(preferred) = open().find(|c| Some(c.peer) == prefer) {
        return Choice::Peer(preferred.peer, finish(preferred));
    }
    let best = open().map(|c| (finish(c), c.peer)).min();
    let at_home = here.filter(|here| here.has_room).map(|here| here.finish_us(load.cost_us));
    let choice = match (best, at_home) {
        (Some((there, _)), Some(at_home)) if at_home < there => Choice::Here(at_home),
        (Some((there, peer)), _) => Choice::Peer(peer, there),
        (None, Some(at_home)) => Choice::Here(at_home),
        (None, None) if here.is_none() && candidates.iter().all(|c| c.slots == 0) => return Choice::Nobody,
        (None, None) => return Choice::Wait,
    };
    let (Choice::Peer(_, now_us) | Choice::Here(now_us)) = choice else { return choice };
    match by_waiting(load, candidates, here) {
        Some(later_us) if now_us / SLOWER_MAX > later_us => Choice::Wait,
        Some(later_us) if (load.is_long || load.waiting == 0) && now_us / SLOWER_PERCENT > later_us / 100 => {
            Choice::Wait
        }
        _ => choice,
    }
}

/// When a unit would end that waits for a machine which is full now, microseconds from now.
fn by_waiting(load: Load, candidates: &[Candidate], here: Option<Here>) -> Option<u64> {
    let full = candidates.iter().filter(|c| c.slots > 0 && c.has_memory && c.mine > 0 && !c.is_open());
    let full_here = here.filter(|here| !here.has_room && here.running > 0);
    let speeds = full.map(|c| (c.slots, c.speed)).chain(full_here.map(|here| (here.slots, here.speed)));
    let (mut rate, mut fastest) = (0.0f32, 0.0f32);
    for (slots, speed) in speeds {
        #[expect(clippy::cast_precision_loss, reason = "slots are few")]
        let slots = slots as f32;
        rate += slots * speed;
        fastest = fastest.max(speed);
    }
    let queue = load.mean_us.saturating_mul(u64::from(load.waiting) + 1);
    (rate > 0.0).then(|| time(queue, rate).saturating_add(time(load.cost_us, fastest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { cost_us: 1_000_000, mean_us: 1_000_000, waiting: 0, is_long: false };
    const IDLE: Option<Here> = Some(Here { slots: 4, running: 0, speed: 1.0, has_room: true });
    const FULL: Option<Here> = Some(Here { slots: 4, running: 4, speed: 1.0, has_room: false });

    fn peer(n: u8, slots: u32, mine: u32) -> Candidate {
        let peer = PeerId([n; 32]);
        Candidate { peer, slots, credits: slots + 1, mine, others: 0, speed: 1.0, overhead_us: 500, has_memory: true }
    }

    /// Who gets it.
    fn chosen(candidates: &[Candidate], here: Option<Here>) -> Option<u8> {
        match choose(LOAD, candidates, here, None) {
            Choice::Peer(peer, _) => Some(peer.0[0]),
            Choice::Here(_) => Some(0),
            Choice::Wait | Choice::Nobody => None,
        }
    }

    #[test]
    fn the_peer_that_would_end_first_gets_it() {
        assert_eq!(chosen(&[peer(1, 8, 8), peer(2, 8, 1)], FULL), Some(2));
        assert_eq!(chosen(&[peer(1, 4, 0), Candidate { speed: 2.0, ..peer(2, 4, 0) }], FULL), Some(2));
        assert_eq!(chosen(&[peer(1, 4, 0), Candidate { overhead_us: 9, ..peer(2, 4, 0) }], FULL), Some(2));
        assert_eq!(chosen(&[Candidate { others: 9, ..peer(1, 8, 0) }, peer(2, 2, 0)], FULL), Some(2));
        assert_eq!(chosen(&[Candidate { has_memory: false, ..peer(1, 8, 0) }, peer(2, 2, 1)], FULL), Some(2));
        assert_eq!(chosen(&[peer(2, 4, 0), peer(1, 4, 0)], FULL), Some(1), "ties go one way");
    }

    #[test]
    fn nobody_is_given_more_than_its_credits() {
        assert_eq!(chosen(&[Candidate { credits: 2, ..peer(1, 8, 2) }], FULL), None);
        assert_eq!(chosen(&[Candidate { credits: 3, ..peer(1, 8, 2) }], FULL), Some(1));
        assert_eq!(chosen(&[Candidate { credits: 0, ..peer(1, 8, 0) }], IDLE), Some(0));
    }

    #[test]
    fn this_machine_takes_what_it_would_finish_first() {
        assert_eq!(chosen(&[peer(1, 4, 5)], IDLE), Some(0));
        assert_eq!(chosen(&[peer(1, 4, 0)], IDLE), Some(1), "its cores feed the others");
        assert_eq!(chosen(&[Candidate { speed: 0.5, ..peer(1, 4, 0) }], IDLE), Some(0));
        assert_eq!(chosen(&[], IDLE), Some(0));
        // A unit of a millisecond is not worth a wire.
        let tiny = Load { cost_us: 1000, ..LOAD };
        assert!(matches!(choose(tiny, &[peer(1, 4, 0)], IDLE, None), Choice::Here(_)));
    }

    #[test]
    fn forced_away_it_waits_for_a_peer_but_not_for_one_that_does_not_serve() {
        assert_eq!(choose(LOAD, &[peer(1, 4, 5)], None, None), Choice::Wait);
        assert_eq!(choose(LOAD, &[peer(1, 0, 0)], None, None), Choice::Nobody);
        assert_eq!(choose(LOAD, &[], None, None), Choice::Nobody);
        assert_eq!(choose(LOAD, &[], FULL, None), Choice::Wait, "for a slot here");
    }

    #[test]
    fn a_slow_machine_helps_and_a_very_slow_one_only_a_long_queue() {
        let slow = |speed| [peer(1, 4, 5), Candidate { speed, ..peer(2, 4, 0) }];
        assert_eq!(chosen(&slow(0.35), FULL), Some(2));
        assert_eq!(chosen(&slow(0.05), FULL), None);
        let queue = Load { waiting: 100, ..LOAD };
        assert!(matches!(choose(queue, &slow(0.05), FULL, None), Choice::Peer(..)));
        assert_eq!(chosen(&slow(0.05)[1..], None), Some(2), "if there is nobody else");
    }

    #[test]
    fn a_preferred_peer_gets_it_while_it_can_take_it() {
        let both = [peer(1, 8, 0), peer(2, 8, 7)];
        let preferred = |all: &[Candidate]| choose(LOAD, all, IDLE, Some(PeerId([2; 32])));
        assert!(matches!(preferred(&both), Choice::Peer(PeerId([2, ..]), _)));
        assert!(matches!(preferred(&[peer(1, 8, 0), peer(2, 8, 9)]), Choice::Peer(PeerId([1, ..]), _)));
    }
}
