//! Which unit is started a second time, and where (DECIDE).
//!
//! A unit is late if it has taken longer than all but one in twenty of its like would have, had it been where the second
//! start would go; on a machine that is known to be very slow it is late from the beginning. Of a unit that was compiled before it is known what it costs, so that its machine is at fault; one that is new may only
//! be larger than expected, and then a second start on a machine that is no faster would end no earlier.

use super::choose::{is_too_slow, time};

/// What a second start must promise: to end in this share of the time that is left otherwise, of a hundred.
const GAIN_PERCENT: u64 = 75;
/// After so many times the latest that was expected, its machine is taken to be stuck.
const STUCK: u64 = 3;

/// Nothing is started a second time before, microseconds: it would cost as much as it saves.
pub const EARLIEST_US: u64 = 100_000;
/// What a second start in this machine's own sandbox takes besides its compiler, microseconds.
pub const COPY_US: u64 = 15_000;

/// A unit that is under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Underway {
    /// For how long, microseconds.
    pub elapsed_us: u64,
    /// What it was expected to cost.
    pub cost_us: u64,
    /// A cost that only one in twenty passes.
    pub late_us: u64,
    /// It was compiled before.
    pub is_known: bool,
    /// How fast its machine is.
    pub speed: f32,
    /// Whether enough has ended there to know that.
    pub is_proved: bool,
    /// What it was to wait for there besides its compiler, microseconds.
    pub overhead_us: u64,
}

/// Where a second start could go at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// How fast it is.
    pub speed: f32,
    /// What a unit waits for there besides its compiler, microseconds.
    pub overhead_us: u64,
}

/// The time that a second start there would save, microseconds; `None` if it is not worth it.
#[must_use]
pub fn gain_us(unit: &Underway, target: &Target) -> Option<u64> {
    let run_us = unit.elapsed_us.saturating_sub(unit.overhead_us);
    let latest_us = |speed, overhead_us: u64| time(unit.late_us, speed).saturating_add(overhead_us);
    let whole_us = unit.overhead_us.saturating_add(time(unit.cost_us, unit.speed));
    // Whatever it costs, it costs the same there and here.
    let is_misplaced = unit.is_proved && is_too_slow(unit.speed, target.speed);
    if !is_misplaced && unit.elapsed_us <= latest_us(target.speed, target.overhead_us) {
        return None;
    }
    // What has passed there is the least that a new unit costs.
    let passed = time(run_us, 1.0 / unit.speed.max(f32::MIN_POSITIVE));
    let cost_us = if unit.is_known { unit.cost_us } else { unit.cost_us.max(passed) };
    let again_us = target.overhead_us.saturating_add(time(cost_us, target.speed));
    let is_stuck = unit.elapsed_us > STUCK.saturating_mul(latest_us(unit.speed, unit.overhead_us));
    let left_us = match whole_us.checked_sub(unit.elapsed_us).filter(|left| *left > 0) {
        Some(left) => left,
        None if is_stuck => return Some(unit.elapsed_us),
        None => unit.elapsed_us / 2,
    };
    (again_us <= left_us / 100 * GAIN_PERCENT).then(|| left_us - again_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    /// A unit of a second that is compiled on a machine of this speed.
    fn unit(speed: f32, elapsed_us: u64) -> Underway {
        let (cost_us, late_us) = (SECOND, 3 * SECOND / 2);
        Underway { elapsed_us, cost_us, late_us, is_known: true, speed, is_proved: false, overhead_us: 1000 }
    }

    const EQUAL: Target = Target { speed: 1.0, overhead_us: 1000 };

    #[test]
    fn nothing_is_started_again_before_it_is_late() {
        assert_eq!(gain_us(&unit(1.0, SECOND), &EQUAL), None);
        assert_eq!(gain_us(&unit(0.05, SECOND), &EQUAL), None);
        assert!(gain_us(&unit(0.05, 2 * SECOND), &EQUAL).is_some_and(|us| us > 16 * SECOND));
    }

    #[test]
    fn on_a_machine_that_is_known_to_be_slow_a_unit_is_late_from_the_beginning() {
        let slow = |speed| Underway { is_proved: true, ..unit(speed, SECOND / 5) };
        assert!(gain_us(&slow(0.05), &EQUAL).is_some_and(|us| us > 18 * SECOND));
        assert_eq!(gain_us(&slow(0.5), &EQUAL), None, "many are a little slower");
        assert_eq!(gain_us(&slow(0.05), &Target { speed: 0.06, ..EQUAL }), None);
    }

    #[test]
    fn a_known_unit_that_is_late_is_its_machines_fault() {
        assert_eq!(gain_us(&unit(1.0, 2 * SECOND), &EQUAL), None, "it may end at any moment");
        assert!(gain_us(&unit(1.0, 3 * SECOND), &EQUAL).is_some());
    }

    #[test]
    fn a_new_unit_that_is_late_is_only_large_until_its_machine_must_be_stuck() {
        let new = |elapsed_us| Underway { is_known: false, ..unit(1.0, elapsed_us) };
        assert_eq!(gain_us(&new(3 * SECOND), &EQUAL), None);
        assert!(gain_us(&new(3 * SECOND), &Target { speed: 4.0, ..EQUAL }).is_some());
        assert!(gain_us(&new(5 * SECOND), &EQUAL).is_some());
    }

    #[test]
    fn nothing_moves_to_where_it_would_end_later() {
        let slow = Target { speed: 0.1, overhead_us: 1000 };
        assert_eq!(gain_us(&unit(1.0, 4 * SECOND), &slow), None);
    }
}
