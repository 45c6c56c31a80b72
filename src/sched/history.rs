//! What a unit will cost, from what it and its like have cost before (DECIDE).
//!
//! A *cost* is the time, in microseconds, that a unit's compiler takes on a core of its own of a machine of speed 1. Which
//! machine that is nobody says: the speeds of all are learned together with the costs, and only their ratios matter.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// A class's latest costs, and how much they differed from what was expected.
const SAMPLES_MAX: usize = 64;
/// Nothing is called late before so many units of its class have ended.
pub const SAMPLES_MIN: u32 = 20;
/// Units remembered one by one: a large project's.
const UNITS_MAX: usize = 32_768;
/// The share of units that are late, of a hundred.
const LATE_PERCENT: usize = 95;
/// A unit is not late before it has taken so much longer than expected, whatever its class did: clocks and caches.
const LATE_FACTOR_MIN: f32 = 1.5;
/// Nor before so much time has passed, microseconds: below that a second start costs as much as it saves.
const LATE_MIN_US: u64 = 100_000;
/// A cost when nothing at all is known, microseconds: a small C++ unit.
const COST_DEFAULT_US: u64 = 500_000;
/// Memory when nothing is known, KiB: C, C++, and either with link-time optimisation.
const MEMORY_DEFAULT_KIB: [u64; 3] = [300 << 10, 1_200 << 10, 4 << 20];
/// The share of new units that get by with what is reserved for them, of a hundred.
const MEMORY_PERCENT: usize = 90;
/// A peak that is not reached again is forgotten by this share each time.
const PEAK_DECAY: u64 = 8;

/// The mean of all costs is over about so many.
const MEAN_OF: u64 = 64;

/// What units have in common that cost alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Class {
    /// C++ or Objective-C++ rather than C.
    pub cxx: bool,
    /// The optimiser runs.
    pub optimised: bool,
    /// Debug information is written.
    pub debug: bool,
    /// Link-time optimisation.
    pub lto: bool,
}

impl Class {
    /// The class of a command.
    #[must_use]
    pub fn of(cxx: bool, argv: &[Vec<u8>]) -> Self {
        let mut class = Self { cxx, ..Self::default() };
        for argument in argv.iter().skip(1) {
            match argument.as_slice() {
                b"-O0" => class.optimised = false,
                [b'-', b'O', ..] => class.optimised = true,
                b"-g0" => class.debug = false,
                [b'-', b'g'] | [b'-', b'g', b'0'..=b'9' | b'g' | b'd' | b's' | b'l', ..] => class.debug = true,
                b"-fno-lto" => class.lto = false,
                [b'-', b'f', b'l', b't', b'o', ..] => class.lto = true,
                _ => {}
            }
        }
        class
    }
}

/// A unit, as far as its cost is concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// The same for the same source with flags of the same class; 0 for what nothing is to be learned from.
    pub key: u64,
    /// What it is like.
    pub class: Class,
    /// All that it may read, bytes.
    pub input_bytes: u64,
}

/// What is expected of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction {
    /// Its cost, microseconds.
    pub cost_us: u64,
    /// What units like it cost on average, microseconds: of new ones the average is well above the one in the middle, and
    /// it is the average by which machines are measured.
    pub average_us: u64,
    /// A cost that only one in twenty passes, microseconds; `None` while too few of its class have ended.
    pub late_us: Option<u64>,
    /// The memory that it needs at most, KiB.
    pub memory_kib: u64,
    /// Nothing like it has ended yet: its memory is anybody's guess.
    pub memory_is_guess: bool,
    /// It has been compiled before.
    pub is_known: bool,
    /// It, or one like it, has been: its cost is more than a guess, and says something of the machine where it ends.
    pub is_informed: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Unit {
    cost_us: u64,
    peak_kib: u64,
    /// When it was learned last, by [`History::learned`]'s count.
    at: u64,
}

/// The latest of a class.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Likes {
    ended: u32,
    /// Costs, microseconds, and peaks, KiB.
    costs: VecDeque<u64>,
    peaks: VecDeque<u64>,
    /// Cost over what was expected, of units that were new and of those that were known.
    new: VecDeque<f32>,
    known: VecDeque<f32>,
    /// Bytes of input, a moving mean.
    input_bytes: f64,
}

/// What has been learned. Bounded; it outlives the agent in a file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    units: BTreeMap<u64, Unit>,
    classes: BTreeMap<Class, Likes>,
    count: u64,
    /// Of the latest costs; 0 if there were none.
    mean_us: u64,
}

impl Likes {
    fn average_us(&self) -> Option<u64> {
        self.costs.iter().sum::<u64>().checked_div(self.costs.len() as u64)
    }
}

fn keep<T>(ring: &mut VecDeque<T>, value: T) {
    if ring.len() >= SAMPLES_MAX {
        ring.pop_front();
    }
    ring.push_back(value);
}

/// The value that so many of a hundred do not pass.
fn percentile<T: Copy>(ring: &VecDeque<T>, percent: usize, order: impl Fn(&T, &T) -> std::cmp::Ordering) -> Option<T> {
    let mut all: Vec<T> = ring.iter().copied().collect();
    let at = (all.len() * percent / 100).min(all.len().checked_sub(1)?);
    Some(*all.select_nth_unstable_by(at, order).1)
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "estimates")]
fn scaled(us: u64, factor: f32) -> u64 {
    (us as f64 * f64::from(factor)) as u64
}

impl History {
    /// What to expect of a unit.
    #[must_use]
    pub fn predict(&self, work: &Work) -> Prediction {
        let unit = self.units.get(&work.key);
        let likes = self.classes.get(&work.class).filter(|likes| likes.ended > 0);
        let middle = likes.and_then(|likes| percentile(&likes.costs, 50, u64::cmp));
        let by_size = |us: Option<u64>| us.map_or(COST_DEFAULT_US, |us| scaled(us, size(work, likes)));
        let cost_us = unit.map_or_else(|| by_size(middle), |unit| unit.cost_us).max(1);
        let average_us = unit.map_or_else(|| by_size(likes.and_then(Likes::average_us)), |unit| unit.cost_us).max(1);
        let ratios = likes.map(|likes| if unit.is_some() { &likes.known } else { &likes.new });
        // Of units that come again there may be few yet; they differ less from what is expected than new ones.
        let enough = |ring: &&VecDeque<f32>| ring.len() >= SAMPLES_MIN as usize;
        let ratios = ratios.filter(enough).or(likes.map(|likes| &likes.new)).filter(enough);
        let late = ratios.and_then(|ring| percentile(ring, LATE_PERCENT, f32::total_cmp));
        let late_us = late.map(|ratio| scaled(cost_us, ratio.max(LATE_FACTOR_MIN)).max(LATE_MIN_US));
        let (memory_kib, memory_is_guess) = memory(work.class, unit, likes);
        let is_known = unit.is_some();
        let is_informed = is_known || likes.is_some();
        Prediction { cost_us, average_us, late_us, memory_kib, memory_is_guess, is_known, is_informed }
    }

    /// A unit has ended: what it cost and the most memory that it had, KiB (0 if that is not known).
    pub fn learned(&mut self, work: &Work, cost_us: u64, peak_kib: u64) {
        let before = self.predict(work);
        self.count += 1;
        let at = self.count;
        let weight = self.count.min(MEAN_OF);
        self.mean_us = (self.mean_us / weight * (weight - 1) + cost_us / weight).max(1);
        let likes = self.classes.entry(work.class).or_default();
        likes.ended = likes.ended.saturating_add(1);
        keep(&mut likes.costs, cost_us);
        if peak_kib > 0 {
            keep(&mut likes.peaks, peak_kib);
        }
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "estimates")]
        let ratio = (cost_us as f64 / before.cost_us as f64) as f32;
        if before.is_informed {
            keep(if before.is_known { &mut likes.known } else { &mut likes.new }, ratio);
        }
        #[expect(clippy::cast_precision_loss, reason = "estimates")]
        let bytes = work.input_bytes as f64;
        likes.input_bytes += (bytes - likes.input_bytes) / f64::from(likes.ended.min(32));
        if let Some(unit) = self.units.get_mut(&work.key) {
            // Half of what was known stays: one slow day of one machine is not the unit's fault.
            unit.cost_us = unit.cost_us.midpoint(cost_us);
            unit.peak_kib = peak_kib.max(unit.peak_kib - unit.peak_kib / PEAK_DECAY);
            unit.at = at;
            return;
        }
        if self.units.len() >= UNITS_MAX {
            self.forget_old();
        }
        self.units.insert(work.key, Unit { cost_us, peak_kib, at });
    }

    /// A unit was ended for want of memory: it needs twice what it was thought to, wherever it runs next.
    pub fn out_of_memory(&mut self, work: &Work) {
        let before = self.predict(work);
        let at = self.count;
        let unit = self.units.entry(work.key).or_insert(Unit { cost_us: before.cost_us, peak_kib: 0, at });
        unit.peak_kib = before.memory_kib.saturating_mul(2);
    }

    /// What a unit of any kind has cost lately, microseconds, a moving mean.
    #[must_use]
    pub fn mean_us(&self) -> u64 {
        if self.mean_us == 0 { COST_DEFAULT_US } else { self.mean_us }
    }

    /// Units of a class that have ended.
    #[must_use]
    pub fn ended(&self, class: Class) -> u32 {
        self.classes.get(&class).map_or(0, |likes| likes.ended)
    }

    /// How often something was learned: to tell whether it is worth keeping.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Forgets the half that was learned longest ago.
    fn forget_old(&mut self) {
        let mut times: Vec<u64> = self.units.values().map(|unit| unit.at).collect();
        let half = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(half);
        let middle = *middle;
        self.units.retain(|_, unit| unit.at > middle);
    }
}

/// The memory that a unit needs at most, KiB, and whether that is only a guess.
fn memory(class: Class, unit: Option<&Unit>, likes: Option<&Likes>) -> (u64, bool) {
    let default = MEMORY_DEFAULT_KIB[if class.lto { 2 } else { usize::from(class.cxx) }];
    if let Some(unit) = unit.filter(|unit| unit.peak_kib > 0) {
        return (unit.peak_kib + unit.peak_kib / 8, false);
    }
    let peaks = likes.map(|likes| &likes.peaks).filter(|peaks| !peaks.is_empty());
    match peaks {
        Some(peaks) if peaks.len() >= SAMPLES_MIN as usize => {
            (percentile(peaks, MEMORY_PERCENT, u64::cmp).unwrap_or(default), false)
        }
        Some(peaks) => (percentile(peaks, 50, u64::cmp).map_or(default, |kib| kib * 3 / 2), false),
        None => (default, true),
    }
}

/// How a new unit's size changes what is expected of it: by the root of the ratio, within bounds. Sizes say less than they
/// seem to, because most of what a unit reads is the same for all.
fn size(work: &Work, likes: Option<&Likes>) -> f32 {
    let mean = likes.map_or(0.0, |likes| likes.input_bytes);
    if mean < 1.0 || work.input_bytes == 0 {
        return 1.0;
    }
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "estimates")]
    let ratio = (work.input_bytes as f64 / mean) as f32;
    ratio.sqrt().clamp(0.5, 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(key: u64) -> Work {
        Work { key, class: Class { cxx: true, ..Class::default() }, input_bytes: 1000 }
    }

    #[test]
    fn classes_are_told_apart_by_the_last_word_of_each_kind() {
        let class = |line: &str| {
            let argv: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            Class::of(false, &argv)
        };
        assert_eq!(class("gcc -c x.c"), Class::default());
        assert_eq!(class("gcc -O2 -g -c x.c"), Class { optimised: true, debug: true, ..Class::default() });
        assert_eq!(class("gcc -O2 -O0 -ggdb3 -g0 x.c"), Class::default());
        assert_eq!(class("gcc -flto=auto x.c"), Class { lto: true, ..Class::default() });
        assert_eq!(class("gcc -gsplit-dwarf -flto -fno-lto x.c"), Class { debug: true, ..Class::default() });
    }

    #[test]
    fn a_unit_that_was_compiled_is_expected_to_cost_that_again() {
        let mut history = History::default();
        assert!(!history.predict(&work(1)).is_known);
        history.learned(&work(1), 2_000_000, 500_000);
        let known = history.predict(&work(1));
        assert_eq!((known.cost_us, known.is_known), (2_000_000, true));
        assert!(known.memory_kib >= 500_000 && known.memory_kib < 600_000);
        // One of the same class is the best guess for another.
        assert_eq!(history.predict(&work(2)).cost_us, 2_000_000);
        history.learned(&work(1), 1_000_000, 100_000);
        assert_eq!(history.predict(&work(1)).cost_us, 1_500_000);
        assert!(history.predict(&work(1)).memory_kib > 400_000, "a peak is not forgotten at once");
    }

    #[test]
    fn nothing_is_late_before_twenty_of_its_class_have_ended() {
        let mut history = History::default();
        // The first of all was expected to cost what nobody knew.
        for key in 0..=u64::from(SAMPLES_MIN) {
            assert_eq!(history.predict(&work(99)).late_us, None);
            history.learned(&work(key), 1_000_000, 0);
        }
        let late = history.predict(&work(99)).late_us.expect("enough");
        assert!((1_500_000..3_000_000).contains(&late), "{late}");
        let other = Work { class: Class { lto: true, ..Class::default() }, ..work(99) };
        assert_eq!(history.predict(&other).late_us, None);
    }

    #[test]
    fn a_class_whose_units_differ_widely_is_late_late() {
        let (mut even, mut wide) = (History::default(), History::default());
        for key in 0..60 {
            even.learned(&work(key), 1_000_000, 0);
            wide.learned(&work(key), if key % 5 == 0 { 10_000_000 } else { 1_000_000 }, 0);
        }
        assert!(wide.predict(&work(99)).late_us > even.predict(&work(99)).late_us.map(|us| us * 4));
    }

    #[test]
    fn a_unit_that_ran_out_of_memory_is_given_twice_as_much() {
        let mut history = History::default();
        let before = history.predict(&work(1)).memory_kib;
        history.out_of_memory(&work(1));
        assert!(history.predict(&work(1)).memory_kib >= 2 * before);
    }

    #[test]
    fn old_units_are_forgotten_and_the_new_ones_stay() {
        let mut history = History::default();
        for key in 0..UNITS_MAX as u64 + 1 {
            history.learned(&work(key), 1000, 0);
        }
        assert!(history.units.len() <= UNITS_MAX && history.predict(&work(UNITS_MAX as u64)).is_known);
        assert!(!history.predict(&work(0)).is_known);
    }
}
