//! Processes that descend from one (DO).

/// Of processes that descend from another: how many threads they have, and the numbers of those in this process's group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Family {
    /// Threads of all of them: no more of them can each hold something.
    pub(super) threads: u32,
    /// Those in the group of this process, and whether each has ended and waits to be seen.
    pub(super) in_group: Vec<(i32, bool)>,
}

/// What descends from this process, if the system tells.
#[cfg(target_os = "linux")]
pub(super) fn family() -> Option<Family> {
    let own = i32::try_from(std::process::id()).ok()?;
    let group = rustix::process::getpgrp().as_raw_nonzero().get();
    let all: Vec<[i32; 5]> = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| stat(&entry)).collect();
    let mut known = std::collections::BTreeSet::from([own]);
    let mut family = Family::default();
    // Children may have smaller numbers than their parents: until nothing is added.
    loop {
        let more = all.iter().filter(|[pid, parent, ..]| known.contains(parent) && !known.contains(pid));
        let more: Vec<&[i32; 5]> = more.collect();
        if more.is_empty() {
            return Some(family);
        }
        for [pid, _, of_group, threads, ended] in more {
            known.insert(*pid);
            family.threads = family.threads.saturating_add(u32::try_from(*threads).unwrap_or(0));
            if *of_group == group {
                family.in_group.push((*pid, *ended == 1));
            }
        }
    }
}

/// A process's number, parent, group, threads, and whether it has ended.
#[cfg(target_os = "linux")]
fn stat(entry: &std::fs::DirEntry) -> Option<[i32; 5]> {
    let pid = entry.file_name().to_str()?.parse().ok()?;
    let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
    // The name may have spaces and parentheses in it.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ended = *fields.first()? == "Z";
    let number = |at: usize| fields.get(at)?.parse::<i32>().ok();
    Some([pid, number(1)?, number(2)?, if ended { 0 } else { number(17)? }, i32::from(ended)])
}

/// What descends from this process, if the system tells.
#[cfg(not(target_os = "linux"))]
pub(super) fn family() -> Option<Family> {
    None
}
