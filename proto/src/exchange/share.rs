//! How one provider has blobs from another instead of the client, with the client's leave (AGREE).
//!
//! ```text
//! client ──Grant{to: B, key}──▶ A                    (control stream, once a pair)
//! client ──Offer{sources: [(A, key, numbers)]}──▶ B
//!               B ──Fetch{client, key, digests}──▶ A (a stream of its own)
//!               B ◀──indexes, blobs, indexes, blobs … A
//! ```
//! A digest opens nothing. A gives a blob only to the peer that the client named, only with the key that the client made
//! for this pair, and only if the client has told A of that content on the connection that stands now. With the end of
//! that connection the grant ends. Whatever B does not get so, it asks the client for.

use super::Violation;
use crate::{
    digest::Digest,
    limits,
    naming::{Names, NumberSet},
    peer::PeerId,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The secret of one grant: random bytes. Compared in constant time, never shown.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct GrantKey(pub [u8; 32]);

impl PartialEq for GrantKey {
    fn eq(&self, other: &Self) -> bool {
        // The comparison of two of BLAKE3's hashes takes the same time wherever they differ.
        blake3::Hash::from(self.0) == blake3::Hash::from(other.0)
    }
}

impl Eq for GrantKey {}

impl fmt::Debug for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GrantKey")
    }
}

/// A client's leave for one peer to fetch what the client named to the receiver. A later one for the same peer replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who may fetch.
    pub to: PeerId,
    /// What it shows.
    pub key: GrantKey,
}

/// Where else some files of an offer can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Who has them, or is being sent them.
    pub peer: PeerId,
    /// The grant that it has been told of.
    pub key: GrantKey,
    /// Which files, by the numbers of the offer's connection.
    pub files: NumberSet,
}

/// The first frame of a stream between two providers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Whose files they are.
    pub client: PeerId,
    /// The grant.
    pub key: GrantKey,
    /// The content that is wanted.
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::CLOSURE_ENTRIES_MAX }, _, _>")]
    pub digests: Vec<Digest>,
}

/// What one client has granted on one connection.
#[derive(Debug, Default)]
pub struct Grants(Vec<Grant>);

impl Grants {
    /// Takes a grant; beyond [`limits::GRANTS_MAX`] peers it is not taken, and that peer asks the client instead.
    pub fn take(&mut self, grant: Grant) {
        match self.0.binary_search_by(|had| had.to.cmp(&grant.to)) {
            Ok(at) => self.0[at] = grant,
            Err(at) if self.0.len() < limits::GRANTS_MAX => self.0.insert(at, grant),
            Err(_) => {}
        }
    }

    /// Whether this peer was granted something with this key.
    #[must_use]
    pub fn allow(&self, peer: &PeerId, key: &GrantKey) -> bool {
        let granted = self.0.binary_search_by(|had| had.to.cmp(peer));
        granted.is_ok_and(|at| self.0[at].key == *key)
    }
}

/// The end that gives.
#[derive(Debug)]
pub struct Giver {
    fetch: Fetch,
    asker: PeerId,
    /// Indexes of what was asked for and not given, ascending.
    open: Vec<u32>,
}

impl Giver {
    /// A fetch that came on a connection whose other end has proved to be `asker`.
    #[must_use]
    pub fn new(asker: PeerId, fetch: Fetch) -> Self {
        let open = (0..u32::try_from(fetch.digests.len()).expect("bounded by CLOSURE_ENTRIES_MAX")).collect();
        Self { fetch, asker, open }
    }

    /// Whose files are asked for.
    #[must_use]
    pub fn client(&self) -> PeerId {
        self.fetch.client
    }

    /// What is to be given now: what the client granted to the asker and named here, and what is here; at most
    /// [`limits::SHARE_BATCH_MAX`] blobs. Everything is given once. Empty if there is nothing now; to be asked again when
    /// the grants, the names or what is here have grown.
    pub fn next(
        &mut self,
        grants: &Grants,
        names: &mut Names,
        mut has: impl FnMut(&Digest) -> bool,
    ) -> Vec<(u32, Digest)> {
        if !grants.allow(&self.asker, &self.fetch.key) {
            return Vec::new();
        }
        let digest = |index: u32| self.fetch.digests[index as usize];
        let mut given = Vec::new();
        for &index in &self.open {
            if given.len() == limits::SHARE_BATCH_MAX {
                break;
            }
            let digest = digest(index);
            if names.have_content(&digest) && has(&digest) {
                given.push((index, digest));
            }
        }
        self.open.retain(|index| given.binary_search_by_key(index, |(given, _)| *given).is_err());
        given
    }

    /// Whether everything has been given.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.open.is_empty()
    }
}

/// The end that asks.
#[derive(Debug)]
pub struct Asker {
    /// What is wanted, until it has been announced.
    wanted: Vec<Option<(Digest, u64)>>,
    open: usize,
}

impl Asker {
    /// Asks for blobs of these digests and sizes, at most [`limits::CLOSURE_ENTRIES_MAX`].
    #[must_use]
    pub fn new(wanted: Vec<(Digest, u64)>) -> Self {
        let open = wanted.len();
        Self { wanted: wanted.into_iter().map(Some).collect(), open }
    }

    /// What to send first. To be called before anything has come.
    #[must_use]
    pub fn fetch(&self, client: PeerId, key: GrantKey) -> Fetch {
        Fetch { client, key, digests: self.wanted.iter().flatten().map(|(digest, _)| *digest).collect() }
    }

    /// The giver announces blobs: their digests and sizes in the order in which they follow.
    ///
    /// # Errors
    /// If it announces nothing, what was not asked for, or something twice.
    pub fn announced(&mut self, indexes: &NumberSet) -> Result<Vec<(Digest, u64)>, Violation> {
        let indexes = indexes.numbers().map_err(|_| Violation::NotAsked)?;
        let open = |index: &u32| self.wanted.get(*index as usize).is_some_and(Option::is_some);
        if indexes.is_empty() || !indexes.iter().all(open) {
            return Err(Violation::NotAsked);
        }
        self.open -= indexes.len();
        Ok(indexes.into_iter().filter_map(|index| self.wanted[index as usize].take()).collect())
    }

    /// Whether everything has been announced.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.open == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        closure::{Entry, File, Node},
        naming::NameBatch,
        path::AbsPath,
    };

    const CLIENT: PeerId = PeerId([1; 32]);
    const ASKER: PeerId = PeerId([2; 32]);
    const OTHER: PeerId = PeerId([3; 32]);
    const KEY: GrantKey = GrantKey([4; 32]);

    fn digest(content: &[u8]) -> Digest {
        Digest::of(content)
    }

    fn named(contents: &[&[u8]]) -> Names {
        let mut names = Names::default();
        let entry = |content: &&[u8]| {
            let (digest, size) = (digest(content), content.len() as u64);
            let file = File { digest, size, mtime_s: 0, mtime_ns: 0, executable: false, inode: 0 };
            Entry { path: AbsPath::new("/a").expect("normal"), node: Node::File(file) }
        };
        let entries = contents.iter().map(entry).collect();
        names.learn(NameBatch { first: 0, entries, gone: NumberSet::default() }).expect("in order");
        names
    }

    fn fetch(key: GrantKey, contents: &[&[u8]]) -> Fetch {
        Fetch { client: CLIENT, key, digests: contents.iter().map(|c| digest(c)).collect() }
    }

    fn granted(to: PeerId) -> Grants {
        let mut grants = Grants::default();
        grants.take(Grant { to, key: KEY });
        grants
    }

    #[test]
    fn what_was_granted_named_and_is_here_is_given_once() {
        let (grants, mut names) = (granted(ASKER), named(&[b"one", b"two"]));
        let mut giver = Giver::new(ASKER, fetch(KEY, &[b"one", b"two"]));
        assert_eq!(giver.next(&grants, &mut names, |d| *d == digest(b"two")), [(1, digest(b"two"))]);
        assert!(!giver.is_done());
        assert_eq!(giver.next(&grants, &mut names, |_| true), [(0, digest(b"one"))]);
        assert!(giver.is_done() && giver.next(&grants, &mut names, |_| true).is_empty());
    }

    /// Each of the three: without the check, the last line would be given to as well.
    #[test]
    fn an_ungranted_peer_a_stolen_key_and_an_unnamed_digest_get_nothing() {
        let mut names = named(&[b"one"]);
        let mut gets = |asker, grants: &Grants, key, content: &[u8]| {
            let mut giver = Giver::new(asker, fetch(key, &[content]));
            !giver.next(grants, &mut names, |_| true).is_empty()
        };
        assert!(gets(ASKER, &granted(ASKER), KEY, b"one"));
        assert!(!gets(ASKER, &Grants::default(), KEY, b"one"), "nothing was granted");
        assert!(!gets(OTHER, &granted(ASKER), KEY, b"one"), "the key is another peer's");
        assert!(!gets(ASKER, &granted(ASKER), GrantKey([5; 32]), b"one"), "the key is a wrong one");
        assert!(!gets(ASKER, &granted(ASKER), KEY, b"two"), "the client never named that");
    }

    #[test]
    fn a_later_grant_replaces_the_one_before_and_the_list_is_bounded() {
        let mut grants = granted(ASKER);
        grants.take(Grant { to: ASKER, key: GrantKey([6; 32]) });
        assert!(!grants.allow(&ASKER, &KEY) && grants.allow(&ASKER, &GrantKey([6; 32])));
        for n in 0..2 * limits::GRANTS_MAX {
            let mut to = [9; 32];
            to[..8].copy_from_slice(&n.to_le_bytes());
            grants.take(Grant { to: PeerId(to), key: KEY });
        }
        assert_eq!(grants.0.len(), limits::GRANTS_MAX);
        assert!(grants.allow(&ASKER, &GrantKey([6; 32])));
    }

    #[test]
    fn only_what_was_asked_for_is_taken_and_each_once() {
        let asker = || Asker::new(vec![(digest(b"one"), 3), (digest(b"two"), 3)]);
        let set = |numbers: &[u32]| NumberSet::new(&mut numbers.to_vec());
        assert_eq!(asker().announced(&set(&[1])), Ok(vec![(digest(b"two"), 3)]));
        for wrong in [&[2][..], &[0, 1, 2], &[]] {
            assert_eq!(asker().announced(&set(wrong)), Err(Violation::NotAsked));
        }
        let mut asker = asker();
        assert_eq!(asker.fetch(CLIENT, KEY), fetch(KEY, &[b"one", b"two"]));
        asker.announced(&set(&[0])).expect("asked for");
        assert_eq!(asker.announced(&set(&[0, 1])), Err(Violation::NotAsked));
        assert!(!format!("{KEY:?}").contains('4'), "a key is never shown");
    }
}
