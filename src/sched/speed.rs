//! How fast a machine is with one compiler, learned from the units that end there (DECIDE).

use serde::{Deserialize, Serialize};

/// The mean is over about so many units that were known before: a machine that has become slow is known to be before long.
const WEIGHT_MAX: f32 = 8.0;
/// What a unit says that was compiled before, and one whose cost could only be guessed by its like.
const WEIGHT_KNOWN: f32 = 1.0;
const WEIGHT_NEW: f32 = 0.3;
/// What is believed without any unit weighs as much as one that was known: a single odd unit does not ban a machine.
const WEIGHT_USUAL: f32 = 1.0;
/// The slowest and the fastest that is believed, a usual machine being about 1.
const SPEED_MIN: f32 = 0.005;
const SPEED_MAX: f32 = 50.0;
/// A mean of times is over about so many.
const TIMES_MAX: u64 = 8;

/// A geometric moving mean of what units should have cost over the time that they took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    value: f32,
    weight: f32,
}

impl Speed {
    /// Of a machine of which nothing is known but how fast machines usually are.
    #[must_use]
    pub fn usual(value: f32) -> Self {
        Self { value, weight: WEIGHT_USUAL }
    }

    /// Costs done in a unit of time.
    #[must_use]
    pub fn value(&self) -> f32 {
        self.value
    }

    /// Whether enough has ended there to believe it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.weight >= WEIGHT_USUAL + WEIGHT_NEW * 3.0 - f32::EPSILON
    }

    /// A unit that should have cost so much, microseconds on a core of a machine of speed 1, took so long with a core of its
    /// own. `was_known`: it was compiled before.
    pub fn observe(&mut self, cost_us: u64, took_us: u64, was_known: bool) {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let ratio = (cost_us.max(1) as f32 / took_us.max(1) as f32).clamp(SPEED_MIN, SPEED_MAX);
        let says = if was_known { WEIGHT_KNOWN } else { WEIGHT_NEW };
        let had = self.weight.min(WEIGHT_MAX - says);
        self.value = ((self.value.ln() * had + ratio.ln() * says) / (had + says)).exp().clamp(SPEED_MIN, SPEED_MAX);
        self.weight = had + says;
    }
}

/// The mean of those that are known.
pub fn mean<'a>(speeds: impl Iterator<Item = &'a Speed>) -> Option<f32> {
    let (sum, count) = speeds
        .filter(|speed| speed.is_known())
        .fold((0.0, 0.0), |(sum, count): (f32, f32), speed| (sum + speed.value.ln(), count + 1.0));
    (count > 0.0).then(|| (sum / count).exp())
}

/// A moving mean of times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mean {
    us: u64,
    samples: u64,
}

impl Mean {
    /// One more, microseconds.
    pub fn observe(&mut self, us: u64) {
        self.samples = (self.samples + 1).min(TIMES_MAX);
        self.us = (self.us * (self.samples - 1) + us) / self.samples;
    }

    /// The mean, microseconds, if there was any.
    #[must_use]
    pub fn value(&self) -> Option<u64> {
        (self.samples > 0).then_some(self.us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_odd_unit_bans_nobody_and_a_slow_machine_is_known_before_long() {
        let mut speed = Speed::usual(1.0);
        speed.observe(1000, 8_000, false);
        assert!(speed.value() > 0.5 && !speed.is_known());
        for _ in 0..4 {
            speed.observe(1000, 20_000, false);
        }
        assert!(speed.value() < 0.25 && speed.is_known());
        let mut speed = Speed::usual(1.0);
        speed.observe(1000, 20_000, true);
        assert!(speed.value() < 0.25, "the unit was known");
        for _ in 0..30 {
            speed.observe(1000, 500, true);
        }
        assert!((speed.value() - 2.0).abs() < 0.1);
        speed.observe(1, u64::MAX, true);
        assert!(speed.value() >= SPEED_MIN);
    }
}
