//! Which entries of a store go when it is too large (DECIDE).

/// One entry as far as the choice is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<K> {
    /// Which.
    pub key: K,
    /// How much room it takes, bytes.
    pub bytes: u64,
    /// When it was last used: larger is later; the unit does not matter.
    pub last_used: u64,
    /// In use: it stays.
    pub pinned: bool,
}

/// The entries to remove, least recently used first, so that what is left takes at most `bytes_max`; as many as there
/// are if the pinned ones alone take more. Equal ages go by key, so that the choice is the same every time.
#[must_use]
pub fn victims<K: Ord + Copy>(candidates: impl IntoIterator<Item = Candidate<K>>, bytes_max: u64) -> Vec<K> {
    let mut candidates: Vec<_> = candidates.into_iter().collect();
    let mut bytes: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
    candidates.sort_unstable_by_key(|candidate| (candidate.last_used, candidate.key));
    let mut victims = Vec::new();
    for candidate in candidates {
        if bytes <= bytes_max {
            break;
        }
        if !candidate.pinned {
            bytes -= candidate.bytes;
            victims.push(candidate.key);
        }
    }
    victims
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(key: u32, bytes: u64, last_used: u64, pinned: bool) -> Candidate<u32> {
        Candidate { key, bytes, last_used, pinned }
    }

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_needed() {
        let all = [candidate(1, 10, 3, false), candidate(2, 10, 1, false), candidate(3, 10, 2, false)];
        assert!(victims(all, 30).is_empty());
        assert_eq!(victims(all, 29), [2]);
        assert_eq!(victims(all, 10), [2, 3]);
        assert_eq!(victims(all, 0), [2, 3, 1]);
    }

    #[test]
    fn what_is_in_use_stays() {
        let all = [candidate(1, 10, 1, true), candidate(2, 10, 2, false)];
        assert_eq!(victims(all, 10), [2]);
        assert_eq!(victims(all, 0), [2]);
    }

    proptest! {
        #[test]
        fn what_is_left_fits_or_is_all_pinned(
            all in proptest::collection::vec((0..100_u64, 0..20_u64, any::<bool>()), 0..40), cap in 0..3000_u64
        ) {
            let number = |((bytes, used, pinned), key)| candidate(key, bytes, used, pinned);
            let all: Vec<_> = all.into_iter().zip(0..).map(number).collect();
            let gone = victims(all.clone(), cap);
            let left: Vec<_> = all.iter().filter(|c| !gone.contains(&c.key)).collect();
            prop_assert!(left.iter().map(|c| c.bytes).sum::<u64>() <= cap || left.iter().all(|c| c.pinned));
            prop_assert!(all.iter().all(|c| !(c.pinned && gone.contains(&c.key))));
        }
    }
}
