//! Which member knows who has a result, and what it knows (DECIDE).
//!
//! Each key points at one of the members that a machine is connected with: the one whose score with the key is highest
//! (rendezvous hashing). When a member comes or goes, only the keys that point at it move. What a member is told is a hint:
//! that it forgets, or is told a lie, costs somebody a question.

use mesh_proto::{exchange::results::Whereabouts, key::ActionKey, limits::HOLDERS_MAX, peer::PeerId};
use std::collections::{HashMap, VecDeque};

/// Results of which it is known who has them; the oldest word is forgotten.
const KNOWN_MAX: usize = 200_000;
/// Results that are being made.
const UNDERWAY_MAX: usize = 4096;
/// Members that are told apart.
const MEMBERS_MAX: usize = 4096;
/// Who makes a result is believed to for so many times as long as it said.
const SLACK: u64 = 2;

/// The member that a key points at; `None` if there is none.
#[must_use]
pub fn home(key: &ActionKey, members: impl IntoIterator<Item = PeerId>) -> Option<PeerId> {
    let begin = |bytes: &[u8; 32]| u64::from_le_bytes(*bytes.first_chunk().expect("32 bytes are more than 8"));
    let key = begin(&key.0.0);
    // Both are digests already: what is left to do is to mix the two.
    let score = |peer: &PeerId| mixed(key ^ mixed(begin(&peer.0)));
    members.into_iter().max_by_key(|peer| (score(peer), *peer))
}

/// The finalizer of SplitMix64: every bit of the input changes half of the output's.
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Half of a key: enough to tell results apart that nobody can choose.
type Short = [u8; 16];

fn short(key: &ActionKey) -> Short {
    *key.0.0.first_chunk().expect("32 bytes are more than 16")
}

/// A member, by its place in the table.
type Place = u16;

/// What one member knows of who has what.
#[derive(Debug, Default)]
pub struct Index {
    members: Vec<PeerId>,
    /// Who said to have it, the latest first.
    held: HashMap<Short, [Option<Place>; HOLDERS_MAX]>,
    /// As they came.
    order: VecDeque<Short>,
    /// Who makes it, and until when that is believed, microseconds.
    underway: HashMap<Short, (PeerId, u64)>,
}

impl Index {
    /// A member says that it has a result.
    pub fn held(&mut self, by: PeerId, key: &ActionKey) {
        let Some(place) = self.place(by) else { return };
        let short = short(key);
        if self.underway.get(&short).is_some_and(|(maker, _)| *maker == by) {
            self.underway.remove(&short);
        }
        let fresh = !self.held.contains_key(&short);
        let holders = self.held.entry(short).or_default();
        if !holders.contains(&Some(place)) {
            holders.rotate_right(1);
            holders[0] = Some(place);
        }
        if fresh {
            self.order.push_back(short);
            while self.order.len() > KNOWN_MAX {
                if let Some(oldest) = self.order.pop_front() {
                    self.held.remove(&oldest);
                }
            }
        }
    }

    /// Who has a result, or makes it, of those that are there; if nobody is known to, the asker makes it from now on, for
    /// about `makes_us`, unless that is 0.
    pub fn ask(
        &mut self,
        now_us: u64,
        asker: PeerId,
        key: &ActionKey,
        makes_us: u64,
        is_there: impl Fn(&PeerId) -> bool,
    ) -> Whereabouts {
        let short = short(key);
        let known = self.held.get(&short).into_iter().flatten().flatten();
        let known = known.filter_map(|place| self.members.get(usize::from(*place)).copied());
        // Who asks does not have it, whatever it said once.
        let held: Vec<PeerId> = known.filter(|peer| *peer != asker && is_there(peer)).collect();
        if !held.is_empty() {
            return Whereabouts::Held(held);
        }
        if let Some((maker, until_us)) = self.underway.get(&short)
            && *until_us > now_us
            && *maker != asker
            && is_there(maker)
        {
            return Whereabouts::Underway(*maker);
        }
        if makes_us > 0 {
            if self.underway.len() >= UNDERWAY_MAX {
                self.underway.retain(|_, (_, until_us)| *until_us > now_us);
            }
            if self.underway.len() < UNDERWAY_MAX {
                self.underway.insert(short, (asker, now_us.saturating_add(makes_us.saturating_mul(SLACK))));
            }
        }
        Whereabouts::Nobody
    }

    /// Results that it knows something of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether it knows nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn place(&mut self, peer: PeerId) -> Option<Place> {
        let known = self.members.iter().position(|member| *member == peer);
        let place = match known {
            Some(place) => place,
            None if self.members.len() < MEMBERS_MAX => {
                self.members.push(peer);
                self.members.len() - 1
            }
            None => return None,
        };
        Place::try_from(place).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::digest::Digest;

    fn peer(n: u64) -> PeerId {
        PeerId(Digest::of(&n.to_le_bytes()).0)
    }

    fn key(n: u64) -> ActionKey {
        ActionKey(Digest::of(&[&b"k"[..], &n.to_le_bytes()].concat()))
    }

    #[test]
    fn keys_point_at_all_members_alike_and_only_those_of_one_that_leaves_move() {
        let all: Vec<PeerId> = (0..5).map(peer).collect();
        let mut counts = [0u32; 5];
        for n in 0..10_000 {
            let home_now = home(&key(n), all.iter().copied()).unwrap();
            counts[all.iter().position(|peer| *peer == home_now).unwrap()] += 1;
            let after = home(&key(n), all[1..].iter().copied()).unwrap();
            assert_eq!(after != home_now, home_now == all[0], "{n}");
            assert_eq!(home(&key(n), all.iter().rev().copied()), Some(home_now), "the order does not matter");
        }
        assert!(counts.iter().all(|count| (1800..2200).contains(count)), "{counts:?}");
        assert_eq!(home(&key(1), []), None);
    }

    #[test]
    fn who_has_a_result_is_named_while_it_is_there_and_never_to_itself() {
        let mut index = Index::default();
        let (a, b, c) = (peer(1), peer(2), peer(3));
        let everybody = |_: &PeerId| true;
        index.held(a, &key(1));
        index.held(b, &key(1));
        index.held(b, &key(1));
        assert_eq!(index.ask(0, c, &key(1), 0, everybody), Whereabouts::Held(vec![b, a]));
        assert_eq!(index.ask(0, b, &key(1), 0, everybody), Whereabouts::Held(vec![a]));
        assert_eq!(index.ask(0, c, &key(1), 0, |peer| *peer == a), Whereabouts::Held(vec![a]));
        assert_eq!(index.ask(0, c, &key(1), 0, |_| false), Whereabouts::Nobody);
        index.held(c, &key(1));
        assert_eq!(index.ask(0, peer(4), &key(1), 0, everybody), Whereabouts::Held(vec![c, b]), "the latest");
    }

    #[test]
    fn the_first_who_asks_makes_it_and_the_others_are_sent_to_it_for_a_while() {
        let mut index = Index::default();
        let (a, b) = (peer(1), peer(2));
        let everybody = |_: &PeerId| true;
        assert_eq!(index.ask(0, b, &key(1), 0, everybody), Whereabouts::Nobody, "it would not keep it");
        assert_eq!(index.ask(0, a, &key(1), 100, everybody), Whereabouts::Nobody);
        assert_eq!(index.ask(150, b, &key(1), 100, everybody), Whereabouts::Underway(a));
        assert_eq!(index.ask(150, a, &key(1), 0, everybody), Whereabouts::Nobody, "not to itself");
        assert_eq!(index.ask(150, b, &key(1), 0, |_| false), Whereabouts::Nobody, "it is gone");
        assert_eq!(index.ask(250, b, &key(1), 100, everybody), Whereabouts::Nobody, "it has taken too long");
        assert_eq!(index.ask(300, a, &key(1), 100, everybody), Whereabouts::Underway(b));
        index.held(b, &key(1));
        assert_eq!(index.ask(300, a, &key(1), 100, everybody), Whereabouts::Held(vec![b]));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut index = Index::default();
        for n in 0..KNOWN_MAX as u64 + 10 {
            index.held(peer(n % 3), &key(n));
        }
        assert_eq!((index.len(), index.order.len()), (KNOWN_MAX, KNOWN_MAX));
        assert_eq!(index.ask(0, peer(9), &key(0), 0, |_| true), Whereabouts::Nobody, "the oldest is forgotten");
        for n in 0..2 * UNDERWAY_MAX as u64 {
            index.ask(0, peer(1), &key(u64::MAX - n), 1000, |_| true);
        }
        assert_eq!(index.underway.len(), UNDERWAY_MAX);
        index.ask(5000, peer(1), &key(u64::MAX / 2), 1000, |_| true);
        assert_eq!(index.underway.len(), 1, "what is believed no more makes room");
    }
}
