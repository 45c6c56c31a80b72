//! Who has which core and how much memory on one machine (DECIDE).

use std::collections::BTreeMap;

/// A compiler should have all of its memory after this time, microseconds.
const GROWS_US: u64 = 5_000_000;

/// Whoever holds something.
pub type Holder = u64;

/// What one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    /// What it was thought to need at most, KiB.
    need_kib: u64,
    /// When it began, microseconds.
    since_us: u64,
}

/// Cores and memory, and who holds them.
///
/// Memory is reserved before a compiler starts, because it takes it late: what the system says to be free is less what those
/// that run have not taken yet.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    slots: u32,
    /// What the system has for compilers, as last looked at, KiB; what those that run have already is not in it.
    memory_free_kib: Option<u64>,
    held: BTreeMap<Holder, Held>,
}

impl Ledger {
    /// As many at once.
    pub fn set_slots(&mut self, slots: u32) {
        self.slots = slots;
    }

    /// As many at once.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// So much memory is free now, KiB.
    pub fn set_memory_free(&mut self, kib: Option<u64>) {
        self.memory_free_kib = kib;
    }

    /// How many hold something.
    #[must_use]
    pub fn running(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is a free slot, whatever it is for.
    #[must_use]
    pub fn has_slot(&self) -> bool {
        self.running() < self.slots
    }

    /// Memory that is neither taken nor promised, KiB; `None` if the system does not tell.
    #[must_use]
    pub fn memory_left(&self, now_us: u64) -> Option<u64> {
        let promised: u64 = self.held.values().map(|held| held.outstanding(now_us)).sum();
        self.memory_free_kib.map(|free| free.saturating_sub(promised))
    }

    /// Whether one that needs so much memory, KiB, may begin. The only one always may: it could wait for ever.
    #[must_use]
    pub fn has_room(&self, need_kib: u64, now_us: u64) -> bool {
        let fits = || self.memory_left(now_us).is_none_or(|left| need_kib <= left);
        self.has_slot() && (self.held.is_empty() || fits())
    }

    /// It begins.
    pub fn begin(&mut self, holder: Holder, need_kib: u64, now_us: u64) {
        let before = self.held.insert(holder, Held { need_kib, since_us: now_us });
        debug_assert!(before.is_none(), "nobody holds two slots");
    }

    /// It ends. Says whether it held anything.
    pub fn end(&mut self, holder: Holder) -> bool {
        self.held.remove(&holder).is_some()
    }

    /// The one that began last.
    #[must_use]
    pub fn youngest(&self) -> Option<Holder> {
        self.held.iter().max_by_key(|(holder, held)| (held.since_us, **holder)).map(|(holder, _)| *holder)
    }
}

impl Held {
    /// What of its memory it has not taken yet: a compiler grows about evenly.
    fn outstanding(&self, now_us: u64) -> u64 {
        let age = now_us.saturating_sub(self.since_us);
        if age >= GROWS_US {
            return 0;
        }
        let left = u128::from(self.need_kib) * u128::from(GROWS_US - age) / u128::from(GROWS_US);
        u64::try_from(left).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 20;

    #[test]
    fn what_was_promised_is_not_promised_twice() {
        let mut ledger = Ledger::default();
        ledger.set_slots(8);
        ledger.set_memory_free(Some(4 * GIB));
        assert!(ledger.has_room(3 * GIB, 0));
        ledger.begin(1, 3 * GIB, 0);
        assert_eq!(ledger.memory_left(0), Some(GIB));
        assert!(!ledger.has_room(2 * GIB, 0));
        // Half of it is taken, and the system says so.
        ledger.set_memory_free(Some(5 * GIB / 2));
        assert_eq!(ledger.memory_left(GROWS_US / 2), Some(GIB));
        assert!(ledger.end(1) && !ledger.end(1));
        assert_eq!(ledger.memory_left(GROWS_US / 2), Some(5 * GIB / 2));
    }

    #[test]
    fn one_alone_always_begins_and_never_more_than_there_are_slots() {
        let mut ledger = Ledger::default();
        assert!(!ledger.has_room(0, 0));
        ledger.set_slots(2);
        ledger.set_memory_free(Some(0));
        assert!(ledger.has_room(GIB, 0));
        ledger.begin(1, GIB, 0);
        assert!(!ledger.has_room(1, 0) && ledger.has_slot());
        ledger.set_memory_free(None);
        assert!(ledger.has_room(GIB, 0));
        ledger.begin(2, GIB, 1);
        assert!(!ledger.has_slot() && ledger.youngest() == Some(2));
    }
}
