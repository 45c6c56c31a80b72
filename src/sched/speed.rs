//! How fast a machine is with one compiler, learned from the units that end there (DECIDE).

/// The mean is over about so many: a machine that has become slow is known to be before long.
const SAMPLES_MAX: u16 = 8;
/// The slowest and the fastest that is believed, this machine and its like being about 1.
const SPEED_MIN: f32 = 0.005;
const SPEED_MAX: f32 = 50.0;

/// A geometric moving mean of what units should have cost over the time that they took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    value: f32,
    samples: u16,
}

impl Default for Speed {
    fn default() -> Self {
        Self { value: 1.0, samples: 0 }
    }
}

impl Speed {
    /// Costs done in a unit of time.
    #[must_use]
    pub fn value(&self) -> f32 {
        self.value
    }

    /// Whether enough has ended there to believe it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.samples >= 3
    }

    /// A unit that should have cost so much, microseconds on a core of a machine of speed 1, took so long with a core of its
    /// own.
    pub fn observe(&mut self, cost_us: u64, took_us: u64) {
        self.samples = (self.samples + 1).min(SAMPLES_MAX);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let ratio = (cost_us.max(1) as f32 / took_us.max(1) as f32).clamp(SPEED_MIN, SPEED_MAX);
        let weight = 1.0 / f32::from(self.samples);
        self.value = (self.value.ln() * (1.0 - weight) + ratio.ln() * weight).exp().clamp(SPEED_MIN, SPEED_MAX);
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
        self.samples = (self.samples + 1).min(SAMPLES_MAX.into());
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
    fn the_first_units_decide_and_later_ones_correct() {
        let mut speed = Speed::default();
        speed.observe(1000, 20_000);
        assert!((speed.value() - 0.05).abs() < 0.001);
        for _ in 0..30 {
            speed.observe(1000, 500);
        }
        assert!((speed.value() - 2.0).abs() < 0.1);
        speed.observe(1, u64::MAX);
        assert!(speed.value() >= SPEED_MIN);
    }
}
