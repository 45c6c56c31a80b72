//! A number of slots, shared out among machines and their users (DECIDE).

use std::collections::BTreeMap;

/// The tag of a machine: two users' agents on one machine have the same.
pub type MachineTag = [u8; 16];

/// What one user's agent has and would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The machine that it is on.
    pub machine: MachineTag,
    /// Slots that it would use if it could.
    pub slots: u32,
}

/// Shares slots out evenly: nobody gets more than it would use, and nobody less than another who would use as much (max-min
/// fairness). What does not divide goes to those who come first.
fn evenly(slots: u32, demands: &[u32]) -> Vec<u32> {
    let mut shares = vec![0; demands.len()];
    let mut left = slots;
    loop {
        let open: Vec<usize> = (0..demands.len()).filter(|at| shares[*at] < demands[*at]).collect();
        let Ok(count) = u32::try_from(open.len()) else { return shares };
        if count == 0 || left == 0 {
            return shares;
        }
        let each = (left / count).max(1);
        for at in open {
            let more = each.min(demands[at] - shares[at]).min(left);
            shares[at] += more;
            left -= more;
        }
    }
}

/// What of `slots` is `who`'s fair share, if it would use all that it gets: first the machines share, then the users of each.
pub fn fair<K: Ord + Copy>(slots: u32, demands: &BTreeMap<K, Demand>, who: K) -> u32 {
    let Some(mine) = demands.get(&who) else { return 0 };
    let mut machines: BTreeMap<MachineTag, u32> = BTreeMap::new();
    for demand in demands.values() {
        let sum = machines.entry(demand.machine).or_default();
        *sum = sum.saturating_add(demand.slots);
    }
    machines.insert(mine.machine, u32::MAX);
    let totals: Vec<u32> = machines.values().copied().collect();
    let place = machines.keys().position(|tag| *tag == mine.machine).unwrap_or(0);
    let of_machine = evenly(slots, &totals)[place];
    let users: Vec<(K, u32)> = demands
        .iter()
        .filter(|(_, demand)| demand.machine == mine.machine)
        .map(|(key, demand)| (*key, if *key == who { u32::MAX } else { demand.slots }))
        .collect();
    let wanted: Vec<u32> = users.iter().map(|(_, slots)| *slots).collect();
    let place = users.iter().position(|(key, _)| *key == who).unwrap_or(0);
    evenly(of_machine, &wanted)[place]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn demands(all: &[(u8, u8, u32)]) -> BTreeMap<u8, Demand> {
        all.iter().map(|(who, machine, slots)| (*who, Demand { machine: [*machine; 16], slots: *slots })).collect()
    }

    #[test]
    fn machines_share_before_their_users_do() {
        let all = demands(&[(1, 1, 100), (2, 2, 100), (3, 2, 100)]);
        assert_eq!(fair(8, &all, 1), 4);
        assert_eq!((fair(8, &all, 2), fair(8, &all, 3)), (2, 2));
    }

    #[test]
    fn what_one_does_not_use_is_the_others() {
        let all = demands(&[(1, 1, 1), (2, 2, 100), (3, 3, 0)]);
        assert_eq!(fair(8, &all, 2), 7);
        assert_eq!(fair(8, &all, 1), 4, "who has asked for one may ask for more");
        assert_eq!(fair(8, &all, 3), 3, "who comes new finds room");
        assert_eq!(fair(8, &all, 4), 0);
    }

    proptest! {
        #[test]
        fn shares_are_no_more_than_there_is_and_nobody_has_less_than_an_equal(
            slots in 0u32..200, wanted in prop::collection::vec(0u32..50, 1..12),
        ) {
            let shares = evenly(slots, &wanted);
            prop_assert_eq!(shares.iter().sum::<u32>(), slots.min(wanted.iter().sum()));
            for (share, want) in shares.iter().zip(&wanted) {
                prop_assert!(share <= want);
                let most = shares.iter().max().expect("one at least");
                prop_assert!(*share == *want || share + 1 >= *most);
            }
        }
    }
}
