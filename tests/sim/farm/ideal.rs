//! What the best that could be done would take.

use super::units::UnitSpec;
use std::collections::BTreeSet;

/// A core: when it is free next, and how fast it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Core {
    pub(crate) speed: f64,
}

/// When a list of units ends that is handed out in its order, each to the core that would end it first, by somebody who
/// knows every cost and every speed beforehand, with no time lost between machines: microseconds.
///
/// It is never less than the work over all speeds together, which is what the goals are measured against where the tail does not matter.
pub(crate) fn makespan_us(units: &[UnitSpec], cores: &[Core]) -> u64 {
    // Cores of one speed are alike: it is enough to look at the one of them that is free first.
    let mut kinds: Vec<(f64, BTreeSet<(u64, usize)>)> = Vec::new();
    for (number, core) in cores.iter().enumerate() {
        let at = kinds.iter().position(|(speed, _)| speed.total_cmp(&core.speed).is_eq());
        let at = at.unwrap_or_else(|| {
            kinds.push((core.speed, BTreeSet::new()));
            kinds.len() - 1
        });
        kinds[at].1.insert((0, number));
    }
    let mut end = 0;
    for unit in units {
        let finish = |(speed, free): &(f64, BTreeSet<(u64, usize)>)| {
            let (at, _) = free.first().copied().unwrap_or_default();
            at + micros(unit.cost_us as f64 / speed)
        };
        let best = (0..kinds.len()).min_by_key(|kind| finish(&kinds[*kind])).expect("one core at least");
        let at = finish(&kinds[best]);
        let (_, number) = kinds[best].1.pop_first().expect("as many as there are");
        kinds[best].1.insert((at, number));
        end = end.max(at);
    }
    end
}

pub(crate) fn micros(us: f64) -> u64 {
    us.round() as u64
}

#[test]
fn two_equal_cores_share_and_a_slow_one_is_left_out_of_the_tail() {
    let unit = |cost_us| UnitSpec { key: 1, cost_us, peak_kib: 0, input_bytes: 0, output_bytes: 0 };
    let units = vec![unit(1000); 4];
    let core = |speed| Core { speed };
    assert_eq!(makespan_us(&units, &[core(1.0), core(1.0)]), 2000);
    assert_eq!(makespan_us(&units, &[core(1.0), core(0.1)]), 4000);
    assert_eq!(makespan_us(&units, &[core(2.0)]), 2000);
}
