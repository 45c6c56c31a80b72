//! Whether this machine takes a foreign job now (DECIDE).

use crate::sched::choose::OFFERS_PER_SLOT;
use mesh_proto::{job::Refusal, message::Closed};

/// This machine's state, as far as admission looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    /// Compilers run for others at once.
    pub slots: u32,
    /// Offers accepted and not finished.
    pub accepted: u32,
    /// Why it does not serve at all.
    pub closed: Option<Closed>,
}

/// Accepts, or says why not.
///
/// # Errors
/// The refusal to answer with.
pub fn admit(ledger: &Ledger) -> Result<(), Refusal> {
    match ledger.closed {
        Some(Closed::Leaving) => Err(Refusal::Leaving),
        Some(Closed::NoSandbox) => Err(Refusal::Sandbox),
        Some(Closed::Role) => Err(Refusal::Role),
        Some(Closed::Paused) => Err(Refusal::Paused),
        None if ledger.accepted >= ledger.slots * OFFERS_PER_SLOT => Err(Refusal::Busy),
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

    #[test]
    fn takes_twice_its_slots_and_then_is_busy() {
        let ledger = Ledger { slots: 3, accepted: 5, closed: None };
        assert_eq!(admit(&ledger), Ok(()));
        assert_eq!(admit(&Ledger { accepted: 6, ..ledger }), Err(Refusal::Busy));
        assert_eq!(admit(&Ledger { closed: Some(Closed::NoSandbox), ..ledger }), Err(Refusal::Sandbox));
        assert_eq!(admit(&Ledger { slots: 0, accepted: 0, closed: None }), Err(Refusal::Busy));
        assert_eq!((slots(1), slots(2), slots(8)), (2, 3, 10));
    }
}
