//! A machine's processor: who compiles on it, and how fast.

use super::ideal::micros;
use std::collections::BTreeMap;

/// Something that is compiled.
#[derive(Debug, Clone, Copy)]
struct Running {
    /// What is left of it, microseconds on a core of speed 1.
    left_us: f64,
    /// It gives way to those that do not.
    gives_way: bool,
}

/// A processor. Numbers of what it runs are its owner's.
#[derive(Debug)]
pub(crate) struct Processor {
    pub(crate) cores: u32,
    pub(crate) speed: f64,
    /// Nothing goes on.
    pub(crate) sleeps: bool,
    runs: BTreeMap<u64, Running>,
    at_us: u64,
}

impl Processor {
    pub(crate) fn new(cores: u32, speed: f64) -> Self {
        Self { cores, speed, sleeps: false, runs: BTreeMap::new(), at_us: 0 }
    }

    fn count(&self, gives_way: bool) -> usize {
        self.runs.values().filter(|run| run.gives_way == gives_way).count()
    }

    /// How fast one of each kind goes: first those that do not give way, then the others with what is left.
    fn rates(&self) -> (f64, f64) {
        let (own, guests) = (self.count(false) as f64, self.count(true) as f64);
        let cores = f64::from(self.cores);
        let rate = |count: f64, cores: f64| if count > 0.0 { self.speed * (cores / count).min(1.0) } else { 0.0 };
        // Even who gives way to all gets a little.
        (rate(own, cores), rate(guests, (cores - own).max(cores / 50.0)))
    }

    /// Time has passed.
    pub(crate) fn advance(&mut self, now_us: u64) {
        let (own, guest) = self.rates();
        let passed = if self.sleeps { 0.0 } else { (now_us - self.at_us) as f64 };
        self.at_us = now_us;
        for run in self.runs.values_mut() {
            run.left_us -= passed * if run.gives_way { guest } else { own };
        }
    }

    /// After [`Processor::advance`].
    pub(crate) fn begin(&mut self, number: u64, cost_us: u64, gives_way: bool) {
        self.runs.insert(number, Running { left_us: cost_us as f64, gives_way });
    }

    /// Takes something away before its end; what is left of it, microseconds.
    pub(crate) fn stop(&mut self, number: u64) -> Option<u64> {
        self.runs.remove(&number).map(|run| micros(run.left_us.max(0.0)))
    }

    /// All of them.
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
    }

    /// Those that have ended.
    pub(crate) fn ended(&mut self) -> Vec<u64> {
        let over: Vec<u64> = self.runs.iter().filter(|(_, run)| run.left_us < 0.5).map(|(n, _)| *n).collect();
        for number in &over {
            self.runs.remove(number);
        }
        over
    }

    /// When the next one ends.
    pub(crate) fn next_us(&self) -> Option<u64> {
        if self.sleeps {
            return None;
        }
        let (own, guest) = self.rates();
        let wait = |run: &Running| run.left_us.max(0.0) / if run.gives_way { guest } else { own };
        let first = self.runs.values().map(wait).min_by(f64::total_cmp)?;
        Some(self.at_us + micros(first.ceil()).max(1))
    }

    /// How many run that do not give way, and that do.
    pub(crate) fn running(&self) -> (u32, u32) {
        let small = |n: usize| u32::try_from(n).expect("few");
        (small(self.count(false)), small(self.count(true)))
    }
}

#[test]
fn guests_share_what_the_owner_leaves() {
    let mut cpu = Processor::new(2, 2.0);
    cpu.begin(1, 1000, false);
    cpu.begin(2, 1000, true);
    assert_eq!(cpu.next_us(), Some(500));
    cpu.begin(3, 1000, true);
    cpu.advance(500);
    assert_eq!(cpu.ended(), [1]);
    // They had half a core each, and now have one.
    assert_eq!(cpu.next_us(), Some(750));
    cpu.advance(750);
    assert_eq!((cpu.ended(), cpu.running()), (vec![2, 3], (0, 0)));
}
