//! Small numbers for closure entries, so that a thousand headers cost a kilobyte and not eighty (AGREE).
//!
//! The requester names each [`Entry`] once per connection, on one ordered stream; afterwards a job lists numbers. Numbers
//! are given out densely from zero. A job says how many names it was made with; the provider waits for its stream of
//! names to get that far, for a bounded time.

use crate::{closure::Entry, limits};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, hash::Hash, sync::Arc};

/// A set of numbers, as gaps and runs in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberSet {
    /// How far each run starts after the end of the one before, and how many follow on from there (at least one).
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::CLOSURE_ENTRIES_MAX }, _, _>")]
    runs: Vec<(u32, u32)>,
}

impl NumberSet {
    /// The set of these numbers; sorts them and drops repetitions.
    #[must_use]
    pub fn new(numbers: &mut Vec<u32>) -> Self {
        numbers.sort_unstable();
        numbers.dedup();
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let mut next = 0u32;
        for &number in numbers.iter() {
            match runs.last_mut() {
                Some(run) if number == next => run.1 += 1,
                _ => runs.push((number - next, 1)),
            }
            next = number.saturating_add(1);
        }
        Self { runs }
    }

    /// The numbers in ascending order.
    ///
    /// # Errors
    /// [`NameError::Malformed`] if it holds more than a closure may, an empty run, or passes 32 bits.
    pub fn numbers(&self) -> Result<Vec<u32>, NameError> {
        let mut out = Vec::new();
        let mut next = 0u32;
        for &(gap, length) in &self.runs {
            let start = next.checked_add(gap).ok_or(NameError::Malformed)?;
            let end = start.checked_add(length).ok_or(NameError::Malformed)?;
            if length == 0 || out.len() + length as usize > limits::CLOSURE_ENTRIES_MAX {
                return Err(NameError::Malformed);
            }
            out.extend(start..end);
            next = end;
        }
        Ok(out)
    }
}

/// Why names or numbers are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A batch that does not continue where the last one ended, or a set that is none.
    #[error("names out of order, or a malformed set of numbers")]
    Malformed,
    /// A number that nothing was named with.
    #[error("a number without a name")]
    Unknown,
    /// More names than a connection may have.
    #[error("too many names on one connection")]
    TooMany,
}

/// Names for the numbers from `first` on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameBatch {
    /// The number of the first.
    pub first: u32,
    /// The entries, in order.
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::NAME_BATCH_MAX }, _, _>")]
    pub entries: Vec<Entry>,
}

/// The requester's side: gives out numbers. `K` identifies an entry cheaply at the caller's: equal keys must mean equal
/// entries for as long as the connection lasts.
#[derive(Debug)]
pub struct Namer<K> {
    numbers: HashMap<K, u32>,
    unsent: Vec<Entry>,
    unsent_first: u32,
}

impl<K> Default for Namer<K> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), unsent: Vec::new(), unsent_first: 0 }
    }
}

impl<K: Hash + Eq> Namer<K> {
    /// The number of an entry; new ones wait for [`Namer::take_batch`].
    ///
    /// # Errors
    /// [`NameError::TooMany`]: the connection has to be opened anew.
    pub fn number(&mut self, key: K, entry: impl FnOnce() -> Entry) -> Result<u32, NameError> {
        let next = self.numbers.len();
        match self.numbers.entry(key) {
            std::collections::hash_map::Entry::Occupied(had) => Ok(*had.get()),
            std::collections::hash_map::Entry::Vacant(_) if next >= limits::NAMES_MAX => Err(NameError::TooMany),
            std::collections::hash_map::Entry::Vacant(free) => {
                let number = u32::try_from(next).map_err(|_| NameError::TooMany)?;
                self.unsent.push(entry());
                Ok(*free.insert(number))
            }
        }
    }

    /// How many names there are: what a job's `names` says.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.numbers.len()).expect("bounded by NAMES_MAX")
    }

    /// The names that the other side has not been told; to be sent before the job that made them is waited for.
    pub fn take_batch(&mut self) -> Option<NameBatch> {
        if self.unsent.is_empty() {
            return None;
        }
        let entries = std::mem::take(&mut self.unsent);
        let first = self.unsent_first;
        self.unsent_first += u32::try_from(entries.len()).expect("bounded by NAMES_MAX");
        Some(NameBatch { first, entries })
    }
}

/// The provider's side: what the numbers of one connection mean.
#[derive(Debug, Default)]
pub struct Names {
    entries: Vec<Arc<Entry>>,
}

impl Names {
    /// Takes a batch in.
    ///
    /// # Errors
    /// If it does not continue where the last one ended, or passes the limit: the connection is to be closed.
    pub fn learn(&mut self, batch: NameBatch) -> Result<(), NameError> {
        if batch.first as usize != self.entries.len() {
            return Err(NameError::Malformed);
        }
        if self.entries.len() + batch.entries.len() > limits::NAMES_MAX {
            return Err(NameError::TooMany);
        }
        self.entries.extend(batch.entries.into_iter().map(Arc::new));
        Ok(())
    }

    /// How many are known.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("bounded by NAMES_MAX")
    }

    /// The entries with these numbers.
    ///
    /// # Errors
    /// If the set is malformed or has a number that is not known.
    pub fn resolve(&self, set: &NumberSet) -> Result<Vec<Arc<Entry>>, NameError> {
        let known = |n: u32| self.entries.get(n as usize).cloned().ok_or(NameError::Unknown);
        set.numbers()?.into_iter().map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{closure::Node, path::AbsPath};

    fn entry(n: u32) -> Entry {
        Entry { path: AbsPath::new(format!("/d/{n}")).expect("normal"), node: Node::Directory }
    }

    #[test]
    fn what_is_named_on_one_side_is_known_on_the_other() {
        let (mut namer, mut names) = (Namer::default(), Names::default());
        for round in 0..3u32 {
            let mut numbers: Vec<u32> =
                (0..round * 5 + 5).map(|n| namer.number(n, || entry(n)).expect("few")).collect();
            if let Some(batch) = namer.take_batch() {
                names.learn(batch).expect("in order");
            }
            assert_eq!(namer.take_batch(), None);
            assert_eq!(names.count(), namer.count());
            let set = NumberSet::new(&mut numbers);
            assert_eq!(set.runs.len(), 1);
            let got = names.resolve(&set).expect("known");
            assert_eq!(got.len(), numbers.len());
            assert_eq!(*got[3], entry(3));
        }
    }

    #[test]
    fn gaps_unknown_numbers_and_endless_runs_are_refused() {
        let mut names = Names::default();
        assert_eq!(names.learn(NameBatch { first: 1, entries: vec![entry(0)] }), Err(NameError::Malformed));
        names.learn(NameBatch { first: 0, entries: vec![entry(0)] }).expect("in order");
        assert_eq!(names.resolve(&NumberSet::new(&mut vec![1])), Err(NameError::Unknown));
        for runs in [vec![(0, u32::MAX)], vec![(u32::MAX, 2)], vec![(0, 0)], vec![(5, 1), (u32::MAX, 1)]] {
            assert_eq!(NumberSet { runs }.numbers(), Err(NameError::Malformed));
        }
    }

    #[test]
    fn a_set_reads_back() {
        let mut numbers = vec![9, 3, 4, 4, 0, 1000, 1001];
        let set = NumberSet::new(&mut numbers);
        assert_eq!(set.numbers(), Ok(vec![0, 3, 4, 9, 1000, 1001]));
    }
}
