//! The end that runs a job (AGREE).

use super::Violation;
use crate::{
    closure::{Entry, Node},
    digest::Digest,
    job::Refusal,
    limits,
    message::Offer,
    naming::{Names, NumberSet},
};
use std::{collections::BTreeMap, sync::Arc};

/// An offer whose closure is known and within the limits.
#[derive(Debug)]
pub struct Provider {
    /// The closure, by number.
    closure: BTreeMap<u32, Arc<Entry>>,
    /// Files whose content was asked for and has not come, in the order in which it will.
    awaited: std::collections::VecDeque<Arc<Entry>>,
}

impl Provider {
    /// Checks an offer against the names of its connection, which must have come as far as the offer says.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn new(offer: &Offer, names: &Names) -> Result<Self, Refusal> {
        offer.job.check().map_err(|_| Refusal::Malformed)?;
        let numbers = offer.closure.numbers().map_err(|_| Refusal::Malformed)?;
        let entries = names.resolve(&offer.closure).map_err(|_| Refusal::Malformed)?;
        let size = |e: &Arc<Entry>| if let Node::File(f) = &e.node { f.size } else { 0 };
        let bytes = entries.iter().try_fold(0u64, |sum, e| sum.checked_add(size(e)));
        let too_large = |e: &Arc<Entry>| size(e) > limits::BLOB_BYTES_MAX;
        if bytes.is_none_or(|b| b > limits::JOB_INPUT_BYTES_MAX) || entries.iter().any(too_large) {
            return Err(Refusal::Malformed);
        }
        // Content is fetched and checked once for each digest: another size beside it would never be looked at.
        let mut sizes = BTreeMap::new();
        let agrees = |e: &Arc<Entry>| match &e.node {
            Node::File(f) => *sizes.entry(f.digest).or_insert(f.size) == f.size,
            _ => true,
        };
        if !entries.iter().all(agrees) {
            return Err(Refusal::Malformed);
        }
        Ok(Self { closure: numbers.into_iter().zip(entries).collect(), awaited: std::collections::VecDeque::new() })
    }

    /// The closure, in order of its numbers.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.closure.values()
    }

    /// The same with the numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u32, Arc<Entry>)> {
        self.closure.iter().map(|(number, entry)| (*number, entry.clone()))
    }

    /// Which files to ask for: those whose content `has` not, each content once. Called once.
    pub fn missing(&mut self, has: impl Fn(&Digest) -> bool) -> NumberSet {
        let mut seen = std::collections::HashSet::new();
        let mut numbers = Vec::new();
        for (number, entry) in &self.closure {
            if let Node::File(file) = &entry.node
                && !has(&file.digest)
                && seen.insert(file.digest)
            {
                numbers.push(*number);
                self.awaited.push_back(entry.clone());
            }
        }
        NumberSet::new(&mut numbers)
    }

    /// What the next blob must be: its digest and size. `None` once all have come.
    #[must_use]
    pub fn awaited(&self) -> Option<(Digest, u64)> {
        self.awaited.front().and_then(|e| if let Node::File(f) = &e.node { Some((f.digest, f.size)) } else { None })
    }

    /// The digests of everything that has not come.
    #[must_use]
    pub fn all_awaited(&self) -> Vec<Digest> {
        self.awaited.iter().filter_map(|e| if let Node::File(f) = &e.node { Some(f.digest) } else { None }).collect()
    }

    /// Takes the next blob: its bytes must be what was named.
    ///
    /// # Errors
    /// If they are not, or none was asked for.
    pub fn received(&mut self, bytes: &[u8]) -> Result<Digest, Violation> {
        let (digest, size) = self.awaited().ok_or(Violation::OutOfTurn)?;
        if bytes.len() as u64 != size || Digest::of(bytes) != digest {
            return Err(Violation::Content);
        }
        self.awaited.pop_front();
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{closure::File, job::Job, naming::NameBatch, path::AbsPath, toolchain::Fingerprint};

    fn file(path: &str, content: &[u8], size: u64) -> Entry {
        let digest = Digest::of(content);
        let file = File { digest, size, mtime_s: 0, mtime_ns: 0, executable: false, inode: 0 };
        Entry { path: AbsPath::new(path).expect("normal"), node: Node::File(file) }
    }

    fn offer(numbers: &[u32]) -> Offer {
        let job = Job {
            toolchain: Fingerprint(Digest::of(b"")),
            argv: vec![b"gcc".to_vec()],
            env: vec![],
            cwd: b"/".to_vec(),
            output_dirs: vec![],
            umask: 0,
            merged_output: false,
            terminal: None,
            wall_ms_max: 1,
            strict: false,
        };
        Offer { job, batches: 0, closure: NumberSet::new(&mut numbers.to_vec()) }
    }

    fn names(entries: Vec<Entry>) -> Names {
        let mut names = Names::default();
        names.learn(NameBatch { first: 0, entries, gone: NumberSet::default() }).expect("in order");
        names
    }

    #[test]
    fn equal_content_is_asked_for_once_and_checked_when_it_comes() {
        let names = names(vec![file("/a", b"1", 1), file("/b", b"1", 1), file("/c", b"22", 2)]);
        let mut p = Provider::new(&offer(&[0, 1, 2]), &names).expect("fine");
        assert_eq!(p.missing(|_| false).numbers(), Ok(vec![0, 2]));
        assert_eq!(p.received(b"2"), Err(Violation::Content));
        assert_eq!(p.received(b"1"), Ok(Digest::of(b"1")));
        assert_eq!(p.received(b"22"), Ok(Digest::of(b"22")));
        assert_eq!(p.received(b""), Err(Violation::OutOfTurn));
    }

    #[test]
    fn one_content_of_two_sizes_is_refused() {
        let names = names(vec![file("/a", b"1", 1), file("/b", b"1", 0)]);
        assert_eq!(Provider::new(&offer(&[0, 1]), &names).err(), Some(Refusal::Malformed));
        assert!(Provider::new(&offer(&[0]), &names).is_ok());
    }

    #[test]
    fn an_offer_beyond_the_limits_or_with_unknown_numbers_is_refused() {
        let huge = limits::BLOB_BYTES_MAX + 1;
        assert_eq!(Provider::new(&offer(&[0]), &names(vec![file("/a", b"", huge)])).err(), Some(Refusal::Malformed));
        assert_eq!(Provider::new(&offer(&[1]), &names(vec![file("/a", b"", 0)])).err(), Some(Refusal::Malformed));
        let mut bad = offer(&[0]);
        bad.job.argv.clear();
        assert_eq!(Provider::new(&bad, &names(vec![file("/a", b"", 0)])).err(), Some(Refusal::Malformed));
    }
}
