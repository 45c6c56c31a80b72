//! Processes that descend from one (DO).

#[cfg(any(target_os = "linux", test))]
use std::collections::BTreeSet;

/// What descends from a process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Family {
    /// How many tokens may be held at most. A token is held for a process that runs, or by a thread of one; the first
    /// process of all runs without.
    pub(super) holders: u32,
    /// Those in the group of this process, and whether each has ended and waits to be seen.
    pub(super) in_group: Vec<(i32, bool)>,
}

/// A process.
#[cfg(any(target_os = "linux", test))]
#[derive(Debug, Clone, Copy)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    threads: u32,
    has_ended: bool,
}

/// What descends from this process but for the group `apart`, if the system tells.
#[cfg(target_os = "linux")]
pub(super) fn family(apart: Option<i32>) -> Option<Family> {
    let own = i32::try_from(std::process::id()).ok()?;
    let group = rustix::process::getpgrp().as_raw_nonzero().get();
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let all = entries.filter_map(|entry| process(&entry)).filter(|process| Some(process.group) != apart);
    let all: Vec<Process> = all.collect();
    Some(descendants(&all, own, group))
}

#[cfg(any(target_os = "linux", test))]
fn descendants(all: &[Process], own: i32, group: i32) -> Family {
    let (mut known, mut found) = (BTreeSet::from([own]), Vec::new());
    // Children may have smaller numbers than their parents: until nothing is added.
    loop {
        let is_new = |process: &&Process| known.contains(&process.parent) && !known.contains(&process.pid);
        let more: Vec<Process> = all.iter().filter(is_new).copied().collect();
        if more.is_empty() {
            break;
        }
        known.extend(more.iter().map(|process| process.pid));
        found.extend(more);
    }
    let parents: BTreeSet<i32> = found.iter().map(|process| process.parent).collect();
    let may_hold = |process: &Process| match process.has_ended {
        // Its parent has not seen it yet, and so has given nothing back; one that has no other parent any more never will.
        true => u32::from(process.parent != own),
        // What runs others waits for them, but for its further threads.
        false => process.threads.saturating_sub(u32::from(parents.contains(&process.pid))),
    };
    let holders = found.iter().map(may_hold).fold(0, u32::saturating_add).saturating_sub(1);
    let in_group =
        found.iter().filter(|process| process.group == group).map(|process| (process.pid, process.has_ended));
    Family { holders, in_group: in_group.collect() }
}

/// What the system tells of a process.
#[cfg(target_os = "linux")]
fn process(entry: &std::fs::DirEntry) -> Option<Process> {
    let pid = entry.file_name().to_str()?.parse().ok()?;
    let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
    // The name may have spaces and parentheses in it.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<i32>().ok();
    let threads = u32::try_from(number(17)?).unwrap_or(0);
    Some(Process { pid, parent: number(1)?, group: number(2)?, threads, has_ended: *fields.first()? == "Z" })
}

/// What descends from this process, if the system tells.
#[cfg(not(target_os = "linux"))]
pub(super) fn family(_apart: Option<i32>) -> Option<Family> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, threads: u32, has_ended: bool) -> Process {
        Process { pid, parent, group: if pid == 9 { 9 } else { 1 }, threads, has_ended }
    }

    #[test]
    fn those_that_run_may_hold_a_token_each_but_for_the_first() {
        // A make (2) with a make (3) that runs two, one of which has ended, and a compiler of three threads (6).
        let all = [
            process(5, 3, 0, true),
            process(2, 1, 1, false),
            process(3, 2, 1, false),
            process(4, 3, 1, false),
            process(6, 2, 3, false),
            process(7, 8, 9, false),
        ];
        let family = descendants(&all, 1, 1);
        assert_eq!(family.holders, 4);
        assert_eq!(family.in_group.len(), 5);
        assert!(family.in_group.contains(&(5, true)));
    }

    #[test]
    fn who_has_lost_its_parent_and_ended_holds_nothing() {
        let all = [process(2, 1, 1, false), process(3, 1, 0, true), process(4, 2, 1, false), process(9, 2, 1, false)];
        let family = descendants(&all, 1, 1);
        assert_eq!((family.holders, family.in_group.len()), (1, 3));
        assert_eq!(descendants(&[], 1, 1), Family::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_is_seen() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let pid = i32::try_from(child.id()).expect("small");
        let seen = super::family(None).expect("there is /proc");
        child.kill().expect("own child");
        child.wait().expect("own child");
        assert!(seen.in_group.contains(&(pid, false)));
    }
}
