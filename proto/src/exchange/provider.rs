//! The end that runs a job (AGREE).

use super::Violation;
use crate::{
    closure::{Entry, File, Node},
    digest::Digest,
    job::Refusal,
    limits,
    message::Offer,
    naming::{Names, NumberSet},
};
use std::{collections::VecDeque, sync::Arc};

/// An offer whose closure is known and within the limits.
#[derive(Debug)]
pub struct Provider {
    /// The closure by number, ascending.
    closure: Vec<(u32, Arc<Entry>)>,
    /// Files whose content was asked for and has not come, in the order in which it will.
    awaited: VecDeque<(Digest, u64)>,
}

/// A file of the closure whose content is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    /// Its number.
    pub number: u32,
    /// Its content.
    pub digest: Digest,
    /// Its size, bytes.
    pub size: u64,
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
        // By the beginning of the digest, which tells nearly all of them apart without a look at the entries.
        let mut files: Vec<(u64, &File)> = Vec::with_capacity(entries.len());
        let mut bytes = 0u64;
        for entry in &entries {
            if let Node::File(file) = &entry.node {
                let begin = file.digest.0.first_chunk().expect("a digest is longer");
                files.push((u64::from_le_bytes(*begin), file));
                bytes = bytes.checked_add(file.size).ok_or(Refusal::Malformed)?;
            }
        }
        if bytes > limits::JOB_INPUT_BYTES_MAX || files.iter().any(|(_, file)| file.size > limits::BLOB_BYTES_MAX) {
            return Err(Refusal::Malformed);
        }
        // Content is fetched and checked once for each digest: another size beside it would never be looked at.
        files.sort_unstable_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.digest.cmp(&other.digest)));
        let other_size = |pair: &[(u64, &File)]| {
            pair[0].0 == pair[1].0 && pair[0].1.digest == pair[1].1.digest && pair[0].1.size != pair[1].1.size
        };
        if files.windows(2).any(other_size) {
            return Err(Refusal::Malformed);
        }
        Ok(Self { closure: numbers.into_iter().zip(entries).collect(), awaited: VecDeque::new() })
    }

    /// The closure, in order of its numbers.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.closure.iter().map(|(_, entry)| entry)
    }

    /// The same with the numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u32, Arc<Entry>)> {
        self.closure.iter().map(|(number, entry)| (*number, entry.clone()))
    }

    /// The files whose content `has` not, in order of their numbers, each content once.
    pub fn lacking(&self, mut has: impl FnMut(&Digest) -> bool) -> Vec<Lacking> {
        let mut lacking: Vec<Lacking> = Vec::new();
        for (number, entry) in &self.closure {
            if let Node::File(File { digest, size, .. }) = &entry.node
                && !has(digest)
            {
                lacking.push(Lacking { number: *number, digest: *digest, size: *size });
            }
        }
        lacking.sort_unstable_by_key(|file| (file.digest, file.number));
        lacking.dedup_by_key(|file| file.digest);
        lacking.sort_unstable_by_key(|file| file.number);
        lacking
    }

    /// Asks for these, which are in order of their numbers: their blobs are awaited. What may be asked for is bounded by
    /// [`limits::MISSING_ROUNDS_MAX`] calls, and each file once.
    pub fn ask(&mut self, files: &[Lacking]) -> NumberSet {
        self.awaited.extend(files.iter().map(|file| (file.digest, file.size)));
        NumberSet::ascending(files.iter().map(|file| file.number))
    }

    /// What the next blob must be: its digest and size. `None` once all have come.
    #[must_use]
    pub fn awaited(&self) -> Option<(Digest, u64)> {
        self.awaited.front().copied()
    }

    /// The next blob has come, and its size and digest were checked.
    ///
    /// # Errors
    /// If none was asked for.
    pub fn came(&mut self) -> Result<(Digest, u64), Violation> {
        self.awaited.pop_front().ok_or(Violation::OutOfTurn)
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
    use crate::{job::Job, naming::NameBatch, path::AbsPath, toolchain::Fingerprint};

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
        Offer {
            job,
            batches: 0,
            closure: NumberSet::new(&mut numbers.to_vec()),
            sources: vec![],
            memory_kib: 0,
            signed: false,
        }
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
        assert_eq!(p.lacking(|_| true), []);
        let lacking = p.lacking(|_| false);
        assert_eq!(p.ask(&lacking).numbers(), Ok(vec![0, 2]));
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
