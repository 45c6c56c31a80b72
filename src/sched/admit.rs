//! Whether this machine takes a foreign job now (DECIDE).

use crate::sched::least::OFFERS_PER_SLOT;
use mesh_proto::{job::Refusal, membership::Role, message::Closed};

/// This machine's state, as far as admission looks at it, and who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    /// Compilers run for others at once.
    pub slots: u32,
    /// Offers accepted and not finished.
    pub accepted: u32,
    /// Why it does not serve at all.
    pub closed: Option<Closed>,
    /// Memory that programs could still take, KiB; `None` if that is not known.
    pub memory_free_kib: Option<u64>,
    /// What the machine that offers may do in the mesh, by the records as they are now; `None`: it is no member.
    pub client: Option<Role>,
}

/// Below this no further compile is taken in, KiB: a large C++ unit takes half a gigabyte, and the machine's owner must
/// never be pushed into swap by somebody else's.
pub const MEMORY_FREE_KIB_MIN: u64 = 512 << 10;

/// Accepts, or says why not.
///
/// # Errors
/// The refusal to answer with.
pub fn admit(ledger: &Ledger) -> Result<(), Refusal> {
    match ledger.closed {
        _ if !ledger.client.is_some_and(Role::submits) => Err(Refusal::Role),
        Some(Closed::Leaving) => Err(Refusal::Leaving),
        Some(Closed::NoSandbox) => Err(Refusal::Sandbox),
        Some(Closed::Role) => Err(Refusal::Role),
        Some(Closed::Paused | Closed::Off | Closed::InUse | Closed::Battery | Closed::Hot | Closed::Metered) => {
            Err(Refusal::Paused)
        }
        Some(Closed::Memory | Closed::Busy) => Err(Refusal::Busy),
        Some(Closed::Disk) => Err(Refusal::Disk),
        None if ledger.accepted >= ledger.slots * OFFERS_PER_SLOT => Err(Refusal::Busy),
        None if ledger.memory_free_kib.is_some_and(|free| free < MEMORY_FREE_KIB_MIN) => Err(Refusal::Busy),
        None => Ok(()),
    }
}

/// Slots for others on a machine of so many cores: over-booked by a quarter, so that wire and compiler overlap.
#[must_use]
pub fn slots(cores: u32) -> u32 {
    cores + cores.div_ceil(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: Ledger =
        Ledger { slots: 3, accepted: 5, closed: None, memory_free_kib: None, client: Some(Role::Client) };

    #[test]
    fn a_worker_or_a_stranger_that_offers_is_refused() {
        for client in [Role::Client, Role::Peer, Role::Owner] {
            assert_eq!(admit(&Ledger { client: Some(client), ..LEDGER }), Ok(()));
        }
        for client in [None, Some(Role::Worker)] {
            assert_eq!(admit(&Ledger { client, ..LEDGER }), Err(Refusal::Role));
        }
    }

    #[test]
    fn takes_twice_its_slots_and_then_is_busy() {
        let ledger = LEDGER;
        assert_eq!(admit(&ledger), Ok(()));
        assert_eq!(admit(&Ledger { accepted: 6, ..ledger }), Err(Refusal::Busy));
        assert_eq!(admit(&Ledger { closed: Some(Closed::NoSandbox), ..ledger }), Err(Refusal::Sandbox));
        assert_eq!(admit(&Ledger { slots: 0, ..ledger }), Err(Refusal::Busy));
        let tight = Ledger { memory_free_kib: Some(MEMORY_FREE_KIB_MIN - 1), ..ledger };
        assert_eq!(admit(&tight), Err(Refusal::Busy));
        assert_eq!(admit(&Ledger { memory_free_kib: Some(MEMORY_FREE_KIB_MIN), ..ledger }), Ok(()));
        assert_eq!((slots(1), slots(2), slots(8)), (2, 3, 10));
    }
}
