//! When a machine that failed is asked again (DECIDE).

/// The first pause after a failure, microseconds.
const PAUSE_US: u64 = 1_000_000;
/// The longest.
const PAUSE_US_MAX: u64 = 60_000_000;

/// What is held against one machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breaker {
    /// Failures since something last went well there.
    failures: u32,
    until: u64,
}

impl Breaker {
    /// It failed: it is left alone for a pause that doubles each time, between half and all of it by `jitter` (0 to 1), so
    /// that those who were disappointed together do not come back together. Failures of jobs that were there at the same time count once.
    pub fn failed(&mut self, now_us: u64, jitter: f32) {
        if self.is_open(now_us) {
            return;
        }
        let pause = PAUSE_US.saturating_mul(1 << self.failures.min(16)).min(PAUSE_US_MAX);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "chance"
        )]
        let part = (pause as f32 * (0.5 + jitter.clamp(0.0, 1.0) / 2.0)) as u64;
        self.failures = self.failures.saturating_add(1);
        self.until = now_us.saturating_add(part);
    }

    /// Something went well there.
    pub fn worked(&mut self) {
        *self = Self::default();
    }

    /// It is left alone.
    #[must_use]
    pub fn is_open(&self, now_us: u64) -> bool {
        now_us < self.until
    }

    /// It is tried again, with one unit at a time until something goes well.
    #[must_use]
    pub fn is_on_probation(&self) -> bool {
        self.failures > 0
    }

    /// Failures since something last went well there.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_their_longest_and_end_when_something_goes_well() {
        let mut breaker = Breaker::default();
        assert!(!breaker.is_open(0) && !breaker.is_on_probation());
        let mut now = 0;
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            breaker.failed(now, 1.0);
            assert!(breaker.is_open(now + expected * PAUSE_US - 1) && !breaker.is_open(now + expected * PAUSE_US));
            // What was lost with it does not count again.
            breaker.failed(now + 1, 0.0);
            now += expected * PAUSE_US;
        }
        assert!(breaker.is_on_probation());
        breaker.worked();
        assert_eq!(breaker, Breaker::default());
        breaker.failed(0, 0.0);
        assert!(breaker.is_open(PAUSE_US / 2 - 1) && !breaker.is_open(PAUSE_US / 2));
    }
}
