//! What the control groups that a process is in leave it: version 1 and 2 (DO).

use super::signals::read;
use std::path::{Path, PathBuf};

/// Levels of the tree that are looked at.
const DEPTH_MAX: usize = 16;
/// Limits above this are none, bytes: version 1 writes the largest number of pages there is.
const LIMIT_BYTES_MAX: u64 = 1 << 60;

/// One group, its own or one above it.
#[derive(Debug)]
pub(super) struct Group {
    dir: PathBuf,
    controllers: Controllers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controllers {
    /// Version 2, which has all in one tree.
    All,
    /// Version 1's trees.
    Cpu,
    Memory,
}

/// The groups of a process and all those above them, below `root`, the innermost first. In a container the path that the
/// kernel names may be the host's: then what is mounted is the container's own.
pub(super) fn of(root: &Path, pid: u32) -> Vec<Group> {
    let named = read(&root.join(format!("proc/{pid}/cgroup"))).unwrap_or_default();
    let mut found = Vec::new();
    for line in named.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(kinds), Some(path)) = (fields.next(), fields.next()) else { continue };
        let mut add = |mount: &str, controllers| {
            let top = root.join("sys/fs/cgroup").join(mount);
            let inside = !path.split('/').any(|name| name == "..");
            let own = top.join(path.trim_start_matches('/'));
            let from = if inside && own.is_dir() { own } else { top.clone() };
            let up = from.ancestors().take_while(|dir| dir.starts_with(&top)).take(DEPTH_MAX);
            found.extend(up.map(|dir| Group { dir: dir.to_owned(), controllers }));
        };
        match kinds {
            "" => add("", Controllers::All),
            _ => kinds.split(',').for_each(|kind| match kind {
                "cpu" => add("cpu", Controllers::Cpu),
                "memory" => add("memory", Controllers::Memory),
                _ => {}
            }),
        }
    }
    found
}

impl Group {
    pub(super) fn read(&self, name: &str) -> Option<String> {
        read(&self.dir.join(name))
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.read(name)?.trim().parse().ok()
    }

    /// Whole cores that it may use; nothing if it may use all.
    pub(super) fn quota_cores(&self) -> Option<u32> {
        let (quota, period) = match self.controllers {
            Controllers::All => {
                let text = self.read("cpu.max")?;
                let mut words = text.split_whitespace();
                (words.next()?.parse().ok()?, words.next()?.parse().ok()?)
            }
            Controllers::Cpu => (self.number("cpu.cfs_quota_us")?, self.number("cpu.cfs_period_us")?),
            Controllers::Memory => return None,
        };
        (quota > 0 && period > 0).then(|| u32::try_from(quota / period).unwrap_or(u32::MAX).max(1))
    }

    /// What it may use of memory and what it does use, without files that nobody reads any more, KiB.
    pub(super) fn memory_kib(&self) -> Option<(u64, u64)> {
        let (limit, used) = match self.controllers {
            Controllers::All => ("memory.max", "memory.current"),
            Controllers::Memory => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            Controllers::Cpu => return None,
        };
        let limit = u64::try_from(self.number(limit)?).ok().filter(|limit| *limit < LIMIT_BYTES_MAX)?;
        let used = u64::try_from(self.number(used)?).ok()?;
        let stat = self.read("memory.stat").unwrap_or_default();
        let idle = stat.lines().find_map(|line| {
            line.strip_prefix("inactive_file ").or_else(|| line.strip_prefix("total_inactive_file "))?.parse().ok()
        });
        Some((limit / 1024, used.saturating_sub(idle.unwrap_or(0)) / 1024))
    }

    /// Whether it is a container's rather than the machine's: it may not use all.
    pub(super) fn is_limited(&self) -> bool {
        self.quota_cores().is_some() || self.memory_kib().is_some()
    }

    /// Processor time that it has used, microseconds; of those whose quota counts.
    pub(super) fn used_us(&self) -> Option<u64> {
        match self.controllers {
            Controllers::All => {
                let stat = self.read("cpu.stat")?;
                stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())
            }
            // Mounted together, under one of two names.
            Controllers::Cpu => Some(u64::try_from(self.number("cpuacct.usage")?).ok()? / 1000),
            Controllers::Memory => None,
        }
    }
}
