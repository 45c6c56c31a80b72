//! Which entries stopped being true, in the order in which that was seen (DO).
//!
//! Whoever was told an entry must be told that it is no longer so: a peer may keep a tree of all that it was told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Entries kept; who has not looked for longer is told that nothing is known to be true. Four bytes each.
const KEPT_MAX: usize = 1 << 20;

/// A place in the log. Later places are greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(u64);

/// What stopped being true between two places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// The entries with these numbers ([`super::Named::id`]).
    Some(Vec<u32>),
    /// Perhaps every entry.
    All,
}

/// The log of one graph. Shared with those who told others of its entries.
#[derive(Debug, Clone, Default)]
pub struct Retired(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    /// The place of the oldest that is kept.
    first: u64,
    ids: VecDeque<u32>,
}

impl Retired {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place after the latest entry.
    #[must_use]
    pub fn now(&self) -> Cursor {
        let log = self.log();
        Cursor(log.first + log.ids.len() as u64)
    }

    /// What stopped being true from one place on and before another. Nothing if the first is not the earlier one.
    #[must_use]
    pub fn between(&self, from: Cursor, to: Cursor) -> Gone {
        let log = self.log();
        if from >= to {
            return Gone::Some(Vec::new());
        }
        let index = |cursor: Cursor| cursor.0.checked_sub(log.first).and_then(|at| usize::try_from(at).ok());
        match (index(from), index(to)) {
            (Some(from), Some(to)) => Gone::Some(log.ids.range(from..to.min(log.ids.len())).copied().collect()),
            _ => Gone::All,
        }
    }

    /// The entry with this number is no longer true.
    pub(super) fn push(&self, id: u32) {
        let mut log = self.log();
        if log.ids.len() >= KEPT_MAX {
            log.ids.pop_front();
            log.first += 1;
        }
        log.ids.push_back(id);
    }

    /// Nothing is known of any entry any more.
    pub(super) fn push_all(&self) {
        let mut log = self.log();
        // One place beyond all: no earlier cursor is within the log then.
        log.first += log.ids.len() as u64 + 1;
        log.ids.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reader_sees_what_came_after_its_last_look() {
        let log = Retired::default();
        let before = log.now();
        log.push(1);
        let middle = log.now();
        log.push(2);
        assert_eq!(log.between(before, middle), Gone::Some(vec![1]));
        assert_eq!(log.between(middle, log.now()), Gone::Some(vec![2]));
        assert_eq!(log.between(before, log.now()), Gone::Some(vec![1, 2]));
        assert_eq!(log.between(log.now(), before), Gone::Some(vec![]));
    }

    #[test]
    fn who_looked_too_long_ago_is_told_that_nothing_is_known() {
        let log = Retired::default();
        let before = log.now();
        log.push_all();
        assert_eq!(log.between(before, log.now()), Gone::All);
        let after = log.now();
        log.push(5);
        assert_eq!(log.between(after, log.now()), Gone::Some(vec![5]));
        for id in 0..KEPT_MAX {
            log.push(u32::try_from(id).expect("small"));
        }
        assert_eq!(log.between(after, log.now()), Gone::All);
    }
}
