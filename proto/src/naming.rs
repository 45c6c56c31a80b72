//! Small numbers for closure entries, so that a thousand headers cost a kilobyte and not eighty (AGREE).
//!
//! The requester names each [`Entry`] once per connection, on one ordered stream; afterwards a job lists numbers. Numbers
//! are given out densely from zero. On the same stream it takes back what is no longer true: a path that vanished, or
//! that holds something else now. A job says how many batches it was made after; the provider waits for its stream of
//! names to get that far, for a bounded time.
//!
//! **What a provider may rely on.** When an offer was made, every entry that was named and not taken back, and that lies
//! in a directory of the offer's closure, was there on the client. So a provider may keep a tree of what was named, and
//! run jobs in it that see more than their closure.

use crate::{
    closure::{Entry, Node},
    digest::Digest,
    limits,
};
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, sync::Arc};

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
        Self::ascending(numbers.iter().copied())
    }

    /// The set of these numbers, which ascend; repetitions count once.
    #[must_use]
    pub fn ascending(numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let mut next = 0u32;
        let mut last = None;
        for number in numbers {
            debug_assert!(last <= Some(number), "numbers ascend");
            if last.replace(number) == Some(number) {
                continue;
            }
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
    /// Numbers, of this batch or earlier ones, whose entries are no longer true. Repeating one is allowed.
    pub gone: NumberSet,
}

/// Keys in one piece of a namer's table.
const PIECE: usize = 256;
/// Keys of entries are smaller than this: the table's own length is bounded by it.
const KEYS_MAX: u32 = 1 << 28;
/// Nothing has this number.
const NO_NUMBER: u32 = u32::MAX;

/// The requester's side: gives out numbers. A key identifies an entry cheaply at the caller's: equal keys must mean equal
/// entries for as long as the connection lasts. Keys are best dense: they are places in a table.
#[derive(Debug, Default)]
pub struct Namer {
    /// The numbers by key, in pieces of which most exist or none of whose keys was named.
    numbers: Vec<Option<Box<[u32; PIECE]>>>,
    count: u32,
    unsent: Vec<Entry>,
    unsent_first: u32,
    gone: Vec<u32>,
    batches: u32,
}

impl Namer {
    /// The number of an entry; new ones wait for [`Namer::take_batches`].
    ///
    /// # Errors
    /// [`NameError::TooMany`]: the connection has to be opened anew.
    pub fn number(&mut self, key: u32, entry: impl FnOnce() -> Entry) -> Result<u32, NameError> {
        let (piece, at) = place(key);
        if let Some(Some(numbers)) = self.numbers.get(piece)
            && numbers[at] != NO_NUMBER
        {
            return Ok(numbers[at]);
        }
        if key >= KEYS_MAX || self.count as usize >= limits::NAMES_MAX {
            return Err(NameError::TooMany);
        }
        if self.numbers.len() <= piece {
            self.numbers.resize_with(piece + 1, || None);
        }
        let number = self.count;
        self.numbers[piece].get_or_insert_with(|| Box::new([NO_NUMBER; PIECE]))[at] = number;
        self.count += 1;
        self.unsent.push(entry());
        Ok(number)
    }

    /// The entry with this key is no longer true. Nothing happens if it was never named.
    pub fn take_back(&mut self, key: u32) {
        let (piece, at) = place(key);
        if let Some(Some(numbers)) = self.numbers.get(piece) {
            self.gone.extend(Some(numbers[at]).filter(|number| *number != NO_NUMBER));
        }
    }

    /// No entry that was named so far is known to be true. One that turns out to be is named anew.
    pub fn take_back_all(&mut self) {
        self.gone.extend(0..self.count());
        self.numbers.clear();
    }

    /// How many names there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether there is anything that the other side has not been told.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.unsent.is_empty() || !self.gone.is_empty()
    }

    /// How many batches were taken: what an offer's `batches` says.
    #[must_use]
    pub fn batches(&self) -> u32 {
        self.batches
    }

    /// What the other side has not been told, in batches that fit a frame each; to be sent in order before the job that
    /// made them is waited for. Empty if there is nothing to tell.
    pub fn take_batches(&mut self) -> Vec<NameBatch> {
        /// The longest path, a link's text, and what else an entry has.
        const ENTRY_BYTES_MAX: usize = 2 * limits::PATH_BYTES_MAX + 128;
        /// Leaves room for numbers that are no longer true: each a run of two numbers of five bytes at most.
        const PART: usize = (limits::FRAME_BYTES_MAX - 10 * limits::CLOSURE_ENTRIES_MAX) / ENTRY_BYTES_MAX;
        let mut out = Vec::new();
        let mut rest = std::mem::take(&mut self.unsent);
        while !rest.is_empty() {
            let after = rest.split_off(rest.len().min(PART));
            let count = u32::try_from(rest.len()).expect("bounded by PART");
            out.push(NameBatch { first: self.unsent_first, entries: rest, gone: NumberSet::default() });
            self.unsent_first += count;
            rest = after;
        }
        let mut gone = std::mem::take(&mut self.gone);
        gone.sort_unstable();
        gone.dedup();
        for part in gone.chunks_mut(limits::CLOSURE_ENTRIES_MAX) {
            let gone = NumberSet::new(&mut part.to_vec());
            match out.last_mut() {
                Some(last) if last.gone == NumberSet::default() => last.gone = gone,
                _ => out.push(NameBatch { first: self.unsent_first, entries: Vec::new(), gone }),
            }
        }
        self.batches = self.batches.wrapping_add(u32::try_from(out.len()).expect("few"));
        out
    }
}

/// Where a key is in a namer's table: which piece, and where in it.
fn place(key: u32) -> (usize, usize) {
    (key as usize / PIECE, key as usize % PIECE)
}

/// The provider's side: what the numbers of one connection mean.
#[derive(Debug, Default)]
pub struct Names {
    entries: Vec<Arc<Entry>>,
    batches: u32,
    /// The content of the first `indexed` entries: made when somebody asks.
    content: HashSet<Digest>,
    indexed: usize,
}

impl Names {
    /// Takes a batch in, and says which numbers are no longer true.
    ///
    /// # Errors
    /// If it does not continue where the last one ended, takes back what was never named, or passes the limit: the
    /// connection is to be closed.
    pub fn learn(&mut self, batch: NameBatch) -> Result<Vec<u32>, NameError> {
        if batch.first as usize != self.entries.len() {
            return Err(NameError::Malformed);
        }
        if self.entries.len() + batch.entries.len() > limits::NAMES_MAX {
            return Err(NameError::TooMany);
        }
        let gone = batch.gone.numbers()?;
        if gone.last().is_some_and(|last| *last as usize >= self.entries.len() + batch.entries.len()) {
            return Err(NameError::Unknown);
        }
        self.entries.extend(batch.entries.into_iter().map(Arc::new));
        self.batches = self.batches.wrapping_add(1);
        Ok(gone)
    }

    /// How many batches have come.
    #[must_use]
    pub fn batches(&self) -> u32 {
        self.batches
    }

    /// How many are known.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("bounded by NAMES_MAX")
    }

    /// Whether some entry was named, taken back since or not, that has this content.
    pub fn have_content(&mut self, digest: &Digest) -> bool {
        let file = |e: &Arc<Entry>| if let Node::File(f) = &e.node { Some(f.digest) } else { None };
        self.content.extend(self.entries[self.indexed..].iter().filter_map(file));
        self.indexed = self.entries.len();
        self.content.contains(digest)
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
    use crate::path::AbsPath;

    fn entry(n: u32) -> Entry {
        Entry { path: AbsPath::new(format!("/d/{n}")).expect("normal"), node: Node::Directory }
    }

    #[test]
    fn what_is_named_on_one_side_is_known_on_the_other() {
        let (mut namer, mut names) = (Namer::default(), Names::default());
        for round in 0..3u32 {
            let mut numbers: Vec<u32> =
                (0..round * 5 + 5).map(|n| namer.number(n, || entry(n)).expect("few")).collect();
            for batch in namer.take_batches() {
                names.learn(batch).expect("in order");
            }
            assert_eq!(namer.take_batches(), []);
            assert_eq!((names.count(), names.batches()), (namer.count(), namer.batches()));
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
        let batch =
            |first, entries, gone: &[u32]| NameBatch { first, entries, gone: NumberSet::new(&mut gone.to_vec()) };
        assert_eq!(names.learn(batch(1, vec![entry(0)], &[])), Err(NameError::Malformed));
        assert_eq!(names.learn(batch(0, vec![entry(0)], &[1])), Err(NameError::Unknown));
        assert_eq!(names.learn(batch(0, vec![entry(0)], &[])), Ok(vec![]));
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

    #[test]
    fn what_was_taken_back_is_told_once_and_only_if_it_was_named() {
        let (mut namer, mut names) = (Namer::default(), Names::default());
        for n in 0..3u32 {
            namer.number(n, || entry(n)).expect("few");
        }
        namer.take_batches().into_iter().for_each(|batch| assert_eq!(names.learn(batch), Ok(vec![])));
        namer.take_back(1);
        namer.take_back(7);
        namer.number(3, || entry(3)).expect("few");
        let batches = namer.take_batches();
        assert_eq!(batches.len(), 1);
        batches.into_iter().for_each(|batch| assert_eq!(names.learn(batch), Ok(vec![1])));
        namer.take_back_all();
        let gone: Vec<u32> =
            namer.take_batches().into_iter().flat_map(|batch| names.learn(batch).expect("known")).collect();
        assert_eq!(gone, [0, 1, 2, 3]);
        assert_eq!(namer.number(3, || entry(3)), Ok(4), "the old number means nothing any more");
        namer.take_batches().into_iter().for_each(|batch| assert_eq!(names.learn(batch), Ok(vec![])));
        assert_eq!(namer.take_batches(), []);
    }

    #[test]
    fn a_large_batch_is_cut_and_loses_nothing() {
        let (mut namer, mut names) = (Namer::default(), Names::default());
        for n in 0..50_000u32 {
            namer.number(n, || entry(n)).expect("few");
        }
        let batches = namer.take_batches();
        assert!(batches.len() > 1);
        batches.into_iter().for_each(|batch| assert_eq!(names.learn(batch), Ok(vec![])));
        assert_eq!((names.count(), names.batches()), (50_000, namer.batches()));
        (0..50_000).filter(|n| n % 2 == 0).for_each(|n| namer.take_back(n));
        let gone: Vec<u32> =
            namer.take_batches().into_iter().flat_map(|batch| names.learn(batch).expect("known")).collect();
        assert_eq!(gone.len(), 25_000);
    }
}
