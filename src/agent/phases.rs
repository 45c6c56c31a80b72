//! Where a unit's time goes (DO).

use crate::{host::thread_cpu_us, view::snapshot::Phase};
use std::time::Instant;

/// The phases of one unit, in order.
#[derive(Debug)]
pub(super) struct Phases {
    last: Instant,
    took: Vec<Phase>,
}

impl Default for Phases {
    fn default() -> Self {
        Self { last: Instant::now(), took: Vec::new() }
    }
}

impl Phases {
    /// What has passed since the last call was this phase. A phase that comes again adds to what it took before.
    pub(super) fn ended(&mut self, name: &str, cpu_us: Option<u64>) {
        let now = Instant::now();
        let us = u64::try_from((now - self.last).as_micros()).unwrap_or(u64::MAX);
        self.last = now;
        match self.took.iter_mut().find(|had| had.name == name) {
            Some(had) => {
                had.us += us;
                had.cpu_us = had.cpu_us.zip(cpu_us).map(|(had, more)| had + more).or(cpu_us);
            }
            None => self.took.push(Phase { name: name.to_owned(), us, cpu_us }),
        }
    }

    /// So much of the last phase was another one, which came after it.
    pub(super) fn split(&mut self, name: &str, us: u64, cpu_us: u64) {
        if let Some(last) = self.took.last_mut() {
            last.us = last.us.saturating_sub(us);
            last.cpu_us = last.cpu_us.map(|all| all.saturating_sub(cpu_us));
        }
        self.took.push(Phase { name: name.to_owned(), us, cpu_us: Some(cpu_us) });
    }

    pub(super) fn take(self) -> Vec<Phase> {
        self.took
    }
}

/// Runs a closure and says what of this thread's processor time it took, microseconds.
pub(super) fn measured<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = thread_cpu_us();
    let result = work();
    (result, thread_cpu_us().saturating_sub(before))
}
