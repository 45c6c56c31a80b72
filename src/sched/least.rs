//! Picks the machine with the lowest expected finish (DECIDE).

use mesh_proto::peer::PeerId;

/// A peer may hold this many offers for each of its slots: what waits there has its inputs fetched and its root built
/// while another compiles.
pub const OFFERS_PER_SLOT: u32 = 2;

/// What is believed of a connected peer that has the unit's compiler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Who.
    pub peer: PeerId,
    /// Compilers that it runs for others at once; 0: it does not serve.
    pub slots: u32,
    /// Offers that it holds: ours in flight, and what it last said of others'.
    pub held: u32,
    /// How fast one of its cores is, this machine's being 1.
    pub speed: f32,
    /// Round trip time, microseconds.
    pub rtt_us: u64,
}

/// This machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Here {
    /// Cores.
    pub cores: u32,
    /// Compilers that run here now: its own user's, and others'.
    pub running: u32,
}

/// Where a unit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// To this peer.
    Peer(PeerId),
    /// It is compiled here.
    Here,
    /// Everybody is full; ask again when something changes.
    Wait,
}

/// Chooses. `here` is `None` where this machine is out of the choice (`MESH=force`). A preferred peer that can take the
/// unit gets it. Ties go to the shorter round trip, then to the smaller id, so that equal input gives equal choice.
///
/// The expected finish is the queue's length per slot, over the speed. A local compile is counted as slower than its core
/// by a quarter, because this machine's cores also feed everybody else (DESIGN: the client's CPU is the scarce thing).
#[must_use]
pub fn choose(candidates: &[Candidate], here: Option<Here>, prefer: Option<PeerId>) -> Choice {
    const HERE_SPEED: f32 = 0.8;
    let open = |c: &&Candidate| c.slots > 0 && c.held < c.slots * OFFERS_PER_SLOT;
    if let Some(preferred) = candidates.iter().filter(open).find(|c| Some(c.peer) == prefer) {
        return Choice::Peer(preferred.peer);
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of compilers are small")]
    let finish = |held: u32, slots: u32, speed: f32| (held + 1) as f32 / slots.max(1) as f32 / speed.max(0.01);
    // Up to its slots a peer starts at once, however many it has: there the speed alone counts.
    let rank = |c: &Candidate| finish(c.held, c.slots, c.speed);
    let best = candidates
        .iter()
        .filter(open)
        .min_by(|a, b| rank(a).total_cmp(&rank(b)).then(a.rtt_us.cmp(&b.rtt_us)).then(a.peer.cmp(&b.peer)));
    match (best, here) {
        (Some(peer), Some(here)) if rank(peer) > finish(here.running, here.cores, HERE_SPEED) => Choice::Here,
        (Some(peer), _) => Choice::Peer(peer.peer),
        (None, Some(_)) => Choice::Here,
        (None, None) if candidates.iter().any(|c| c.slots > 0) => Choice::Wait,
        (None, None) => Choice::Here,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8, slots: u32, held: u32) -> Candidate {
        Candidate { peer: PeerId([n; 32]), slots, held, speed: 1.0, rtt_us: 500 }
    }

    fn id(n: u8) -> Choice {
        Choice::Peer(PeerId([n; 32]))
    }

    const IDLE: Option<Here> = Some(Here { cores: 4, running: 0 });
    const FULL: Option<Here> = Some(Here { cores: 4, running: 8 });

    #[test]
    fn the_least_loaded_peer_gets_it() {
        assert_eq!(choose(&[peer(1, 8, 4), peer(2, 8, 1)], FULL, None), id(2));
        assert_eq!(choose(&[peer(1, 2, 1), peer(2, 8, 2)], FULL, None), id(2));
        assert_eq!(choose(&[peer(1, 4, 0), Candidate { speed: 2.0, ..peer(2, 4, 0) }], FULL, None), id(2));
        assert_eq!(choose(&[peer(1, 4, 0), Candidate { rtt_us: 9, ..peer(2, 4, 0) }], FULL, None), id(2));
    }

    #[test]
    fn this_machine_takes_what_it_would_finish_first() {
        assert_eq!(choose(&[peer(1, 4, 8)], IDLE, None), Choice::Here);
        assert_eq!(choose(&[peer(1, 4, 3)], IDLE, None), Choice::Here);
        assert_eq!(choose(&[peer(1, 4, 0)], IDLE, None), id(1));
        assert_eq!(choose(&[], IDLE, None), Choice::Here);
    }

    #[test]
    fn forced_away_it_waits_for_a_peer_but_not_for_one_that_does_not_serve() {
        assert_eq!(choose(&[peer(1, 4, 8)], None, None), Choice::Wait);
        assert_eq!(choose(&[peer(1, 0, 0)], None, None), Choice::Here);
        assert_eq!(choose(&[], None, None), Choice::Here);
    }

    #[test]
    fn a_preferred_peer_gets_it_while_it_can_take_it() {
        let both = [peer(1, 8, 0), peer(2, 8, 7)];
        assert_eq!(choose(&both, IDLE, Some(PeerId([2; 32]))), id(2));
        assert_eq!(choose(&[peer(1, 8, 0), peer(2, 8, 16)], IDLE, Some(PeerId([2; 32]))), id(1));
    }
}
