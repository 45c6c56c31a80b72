//! Units as they were recorded, and as many as a build needs.
//!
//! `recorded.txt` has a line for each unit of abseil 20220623.1 as g++ 12 compiles it with `-O2 -g`, `-O0 -g` and `-O2`: processor
//! time in milliseconds, the largest resident set in MiB, and the bytes of all that it reads in KiB (from `-MD`).

use crate::random::Random;

const RECORDED: &str = include_str!("recorded.txt");
/// The mean unit of a large C++ project such as LLDB, milliseconds: 72 minutes on four cores over some four thousand units.
const MEAN_MS: u64 = 4_200;

/// One unit of a build.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnitSpec {
    /// The same in every build of the project.
    pub(crate) key: u64,
    /// What it takes on a core of a machine of speed 1, microseconds.
    pub(crate) cost_us: u64,
    /// The memory that it needs, KiB.
    pub(crate) peak_kib: u64,
    /// All that it reads, bytes.
    pub(crate) input_bytes: u64,
    /// What comes back, bytes.
    pub(crate) output_bytes: u64,
}

fn recorded() -> Vec<(u64, u64, u64)> {
    let number = |word: Option<&str>| word.and_then(|w| w.parse::<u64>().ok()).expect("three numbers a line");
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        (number(words.next()), number(words.next()), number(words.next()))
    };
    RECORDED.lines().map(row).collect()
}

/// A project of so many units with the recorded mixture, made larger so that their mean is a large project's. Neighbours are
/// alike, as the files of one directory are.
pub(crate) fn project(random: &mut Random, count: usize) -> Vec<UnitSpec> {
    let rows = recorded();
    let mean = rows.iter().map(|row| row.0).sum::<u64>() / rows.len() as u64;
    let mut units = Vec::with_capacity(count);
    let mut at = 0;
    for key in 0..count as u64 {
        if key % 16 == 0 {
            at = random.index(rows.len());
        }
        at = (at + random.index(5)) % rows.len();
        let (ms, mib, kib) = rows[at];
        // Two files that look alike do not cost exactly the same.
        let percent = random.between(70, 140);
        let cost_us = (ms * 1000 * MEAN_MS / mean.max(1) * percent / 100).max(20_000);
        let (peak_kib, input_bytes) = (mib * 1024, kib * 1024);
        units.push(UnitSpec { key: key + 1, cost_us, peak_kib, input_bytes, output_bytes: cost_us / 10 });
    }
    units
}

#[test]
fn the_units_are_like_a_large_projects() {
    let units = project(&mut Random::new(1), 4_000);
    let mean_ms = units.iter().map(|unit| unit.cost_us).sum::<u64>() / units.len() as u64 / 1000;
    assert!((3_000..6_000).contains(&mean_ms), "{mean_ms}");
    let longest_ms = units.iter().map(|unit| unit.cost_us / 1000).max().unwrap_or(0);
    assert!(longest_ms > 3 * mean_ms, "{longest_ms}: there is a tail");
}
