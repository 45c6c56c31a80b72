//! How fast a machine is with one compiler, learned from the units that end there (DECIDE).

#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "estimates")]

/// What is believed without any unit counts as so many average units: one odd unit does not ban a machine.
const USUAL_UNITS: f64 = 3.0;
/// What has ended there counts as no more than so many: a machine that has become slow is known to be before long.
const UNITS_MAX: f64 = 16.0;
/// A unit that was compiled before says so much more than one whose cost could only be guessed by its like.
const KNOWN_WEIGHT: f64 = 4.0;
/// From so many units on it is believed.
const SAMPLES_MIN: u32 = 3;
/// The slowest and the fastest that is believed, a usual machine being about 1.
const SPEED_MIN: f64 = 0.005;
const SPEED_MAX: f64 = 50.0;
/// A mean of times is over about so many.
const TIMES_MAX: u64 = 8;

/// What units should have cost that ended on a machine, over the time that they took there. A ratio of sums rather than a
/// mean of ratios: a machine that holds units for long says so with each of them.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Speed {
    cost_us: f64,
    took_us: f64,
    samples: u32,
}

impl Speed {
    /// Of a machine of which nothing is known but how fast machines usually are, where units cost so much on average.
    #[must_use]
    pub fn usual(value: f32, mean_us: u64) -> Self {
        let cost_us = USUAL_UNITS * mean_us.max(1) as f64;
        Self { cost_us, took_us: cost_us / f64::from(value), samples: 0 }
    }

    /// Costs done in a unit of time.
    #[must_use]
    pub fn value(&self) -> f32 {
        self.with(0, 0)
    }

    /// The same if units that should have cost so much had ended after so long: those that are under way and late.
    #[must_use]
    pub fn with(&self, cost_us: u64, took_us: u64) -> f32 {
        let ratio = (self.cost_us + cost_us as f64) / (self.took_us + took_us as f64);
        ratio.clamp(SPEED_MIN, SPEED_MAX) as f32
    }

    /// The same, said in another measure of cost: so many times as fast.
    pub fn scale(&mut self, factor: f32) {
        self.took_us /= f64::from(factor);
    }

    /// Whether enough has ended there to believe it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.samples >= SAMPLES_MIN
    }

    /// A unit that should have cost so much, microseconds on a core of a machine of speed 1, took so long with a core of its
    /// own, where units cost `mean_us` on average. `was_known`: it was compiled before.
    pub fn observe(&mut self, cost_us: u64, took_us: u64, was_known: bool, mean_us: u64) {
        let weight = if was_known { KNOWN_WEIGHT } else { 1.0 };
        self.cost_us += weight * cost_us.max(1) as f64;
        self.took_us += weight * (took_us.max(1) as f64).min(cost_us.max(1) as f64 / SPEED_MIN);
        self.samples = self.samples.saturating_add(1);
        let most = UNITS_MAX * mean_us.max(1) as f64;
        if self.cost_us > most {
            (self.cost_us, self.took_us) = (most, self.took_us * most / self.cost_us);
        }
    }
}

/// The mean of those that are known.
pub fn mean<'a>(speeds: impl Iterator<Item = &'a Speed>) -> Option<f32> {
    let (sum, count) = speeds
        .filter(|speed| speed.is_known())
        .fold((0.0, 0.0), |(sum, count): (f32, f32), speed| (sum + speed.value().ln(), count + 1.0));
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

    const MEAN: u64 = 1000;

    #[test]
    fn one_odd_unit_bans_nobody_and_a_slow_machine_is_known_before_long() {
        let mut speed = Speed::usual(1.0, MEAN);
        speed.observe(MEAN, 10 * MEAN, false, MEAN);
        assert!(speed.value() > 0.3 && !speed.is_known());
        let mut speed = Speed::usual(1.0, MEAN);
        for _ in 0..3 {
            speed.observe(MEAN, 20 * MEAN, false, MEAN);
        }
        assert!(speed.value() < 0.15 && speed.is_known());
        assert!(speed.with(MEAN, 40 * MEAN) < speed.value());
        let mut speed = Speed::usual(1.0, MEAN);
        speed.observe(MEAN, 20 * MEAN, true, MEAN);
        assert!(speed.value() < 0.12, "the unit was known");
        for _ in 0..30 {
            speed.observe(MEAN, MEAN / 2, true, MEAN);
        }
        assert!((speed.value() - 2.0).abs() < 0.2, "{}", speed.value());
        speed.observe(1, u64::MAX, true, MEAN);
        assert!(speed.value() > 0.004);
    }
}
