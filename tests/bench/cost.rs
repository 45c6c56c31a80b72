//! Processor time of processes, as the kernel counts it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Processor time of some units together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// Microseconds.
    pub(crate) us: u64,
    /// Units.
    pub(crate) units: usize,
}

impl Cpu {
    /// For one unit, microseconds.
    pub(crate) fn each(&self) -> u64 {
        self.us / self.units.max(1) as u64
    }

    /// As a share of another's, percent.
    pub(crate) fn share_of(&self, whole: &Self) -> f64 {
        self.us as f64 / whole.us.max(1) as f64 * 100.0
    }
}

/// User and system time of all children of this process that have been waited for, microseconds.
pub(crate) fn children_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ticks(&stat, &[CHILDREN_USER, CHILDREN_SYSTEM]) * tick_us()
}

/// A control group that a process and all that it starts from now on are in: short-lived descendants count there, whoever
/// waits for them.
#[derive(Debug)]
pub(crate) struct Group {
    dir: Option<PathBuf>,
}

impl Group {
    /// Where control groups are, in version 2 and in version 1.
    const ROOTS: [(&str, &str); 2] =
        [("/sys/fs/cgroup", "cgroup.controllers"), ("/sys/fs/cgroup/cpuacct", "cpuacct.usage")];
    /// How often its removal is tried.
    const REMOVALS_MAX: u32 = 100;

    /// A group for this process; an empty one if there can be none.
    pub(crate) fn of(pid: u32) -> Self {
        let root = Self::ROOTS.iter().find(|(root, mark)| Path::new(root).join(mark).exists());
        let dir = root.map(|(root, _)| Path::new(root).join(format!("mesh-bench-{pid}")));
        let is_made = |dir: &PathBuf| {
            std::fs::create_dir(dir).is_ok() && std::fs::write(dir.join("cgroup.procs"), pid.to_string()).is_ok()
        };
        Self { dir: dir.filter(is_made) }
    }

    /// Processor time of all that was ever in it, microseconds.
    pub(crate) fn us(&self) -> Option<u64> {
        let dir = self.dir.as_ref()?;
        if let Ok(nanoseconds) = std::fs::read_to_string(dir.join("cpuacct.usage")) {
            return nanoseconds.trim().parse::<u64>().ok().map(|ns| ns / 1000);
        }
        let stat = std::fs::read_to_string(dir.join("cpu.stat")).ok()?;
        stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes end a moment after they were told to.
        for _ in 0..Self::REMOVALS_MAX {
            if self.dir.as_ref().is_none_or(|dir| std::fs::remove_dir(dir).is_ok()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Where a process's times are in its line, counted after the name.
const USER: usize = 11;
const SYSTEM: usize = 12;
const CHILDREN_USER: usize = 13;
const CHILDREN_SYSTEM: usize = 14;
/// Where the number of its parent is.
const PARENT: usize = 1;

/// User and system time of a process, of what descends from it, and of what these have waited for, microseconds.
pub(crate) fn family_us(pid: u32) -> u64 {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = u32::try_from(ticks(&stat, &[PARENT])).unwrap_or(0);
        all.push((pid, parent, ticks(&stat, &[USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM])));
    }
    let mut family = vec![pid];
    let mut at = 0;
    while at < family.len() {
        let of = family[at];
        family.extend(all.iter().filter(|(_, parent, _)| *parent == of).map(|(pid, _, _)| *pid));
        at += 1;
    }
    all.iter().filter(|(pid, _, _)| family.contains(pid)).map(|(_, _, ticks)| ticks).sum::<u64>() * tick_us()
}

/// The sum of some numbers of a process's line.
fn ticks(stat: &str, at: &[usize]) -> u64 {
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = rest.split(' ').collect();
    at.iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum()
}

/// The unit of these times, microseconds.
fn tick_us() -> u64 {
    1_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// The one in the middle.
pub(crate) fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// A duration in whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
