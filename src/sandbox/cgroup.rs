//! A control group for each job, where the system has given this agent a part of the tree (DO).
//!
//! The other limits count a process or a user; a group counts the job: its memory with that of its files, its processes,
//! and whether the kernel had to kill for want of memory, which is no error of the compiler's. And whatever is in it ends
//! by one write. Only a part of the tree is used that is this agent's alone: where other programs are in the same group, as
//! in a terminal's, nothing is changed, and the limits are those of the processes.

use super::policy::Limits;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where the tree is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";
/// Where the agent goes, so that its own group may have others below it.
const AGENT: &str = "agent";
/// How the groups of jobs begin.
const JOB: &str = "job-";
/// What must be counted.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// What is shared by weight, where it is counted.
const SHARED_BY_WEIGHT: [&str; 2] = ["cpu", "io"];
/// What the sandbox itself has in a job's group: warden, init, and one that kills.
const OWN_PROCESSES: u64 = 3;
/// How often, and how long apart, it is tried to remove a group whose last process is about to be gone.
const REMOVALS: u32 = 50;
const REMOVAL_INTERVAL: Duration = Duration::from_millis(1);

/// Why jobs have no groups of their own.
#[derive(Debug, thiserror::Error)]
pub enum NoGroups {
    /// There is no tree of version 2, or this process is in none of its groups that it can see.
    #[error("there is no cgroup version 2 in which this process is")]
    None,
    /// What must be counted is not counted there.
    #[error("its cgroup {0:?} lacks the controller {1}")]
    Controller(PathBuf, &'static str),
    /// It is not the agent's alone.
    #[error("its cgroup {0:?} is shared with other programs")]
    Shared(PathBuf),
    /// The system does not let it be used.
    #[error("its cgroup {0:?} is not its own to divide: {1}")]
    Refused(PathBuf, io::Error),
}

/// The part of the tree in which this agent's jobs have their groups.
#[derive(Debug)]
pub struct Groups {
    dir: PathBuf,
    next: AtomicU64,
}

impl Groups {
    /// Takes the group that this process is in, if it is alone there: the first time; later it is the same.
    ///
    /// # Errors
    /// Why it is not: then jobs have the limits of processes alone.
    pub fn take() -> Result<&'static Self, &'static NoGroups> {
        static TAKEN: OnceLock<Result<Groups, NoGroups>> = OnceLock::new();
        let take = || {
            let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let dir = look(Path::new(ROOT), &own, std::process::id())?;
            Self::divide(dir, std::process::id())
        };
        TAKEN.get_or_init(take).as_ref()
    }

    /// Divides a group: one below it for the agent, and later one for each job.
    fn divide(dir: PathBuf, pid: u32) -> Result<Self, NoGroups> {
        let divide = || {
            let agent = dir.join(AGENT);
            make(&agent)?;
            write(&agent.join("cgroup.procs"), &pid.to_string())?;
            let wanted = CONTROLLERS.map(|controller| format!("+{controller}")).join(" ");
            write(&dir.join("cgroup.subtree_control"), &wanted)?;
            let have = std::fs::read_to_string(dir.join("cgroup.controllers"))?;
            for controller in SHARED_BY_WEIGHT.iter().filter(|wanted| have.split_whitespace().any(|h| h == **wanted)) {
                // Not every system hands these on; then jobs give way only by their own class.
                let _ = write(&dir.join("cgroup.subtree_control"), &format!("+{controller}"));
            }
            Ok(())
        };
        if let Err(error) = divide() {
            // As it was: the group has no other below it then, so it takes processes again.
            let _ = write(&dir.join("cgroup.procs"), &pid.to_string());
            let _ = std::fs::remove_dir(dir.join(AGENT));
            return Err(NoGroups::Refused(dir, error));
        }
        // What an earlier run could not remove.
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(JOB.as_bytes()) {
                drop(Group { dir: entry.path(), processes: None });
            }
        }
        Ok(Self::below(dir))
    }

    /// The jobs' groups below one that is divided already, and in which no process is. For tests, which make it.
    #[doc(hidden)]
    #[must_use]
    pub fn below(dir: PathBuf) -> Self {
        Self { dir, next: AtomicU64::new(0) }
    }

    /// A group for one job.
    ///
    /// # Errors
    /// If it cannot be made or limited.
    pub fn job(&self, limits: &Limits) -> io::Result<Group> {
        let dir = self.dir.join(format!("{JOB}{}", self.next.fetch_add(1, Ordering::Relaxed)));
        make(&dir)?;
        let mut group = Group { dir, processes: None };
        let set = |name: &str, value: &str| write(&group.dir.join(name), value);
        // The files of a job are in memory too, where the sandbox builds its root there.
        set("memory.max", &limits.memory_bytes.saturating_add(limits.tree_bytes).to_string())?;
        set("pids.max", &limits.processes.saturating_add(OWN_PROCESSES).to_string())?;
        // Half a job is of no use.
        set("memory.oom.group", "1")?;
        // A process's class counts only within its group. Kernels before 5.15 know weights alone.
        if set("cpu.idle", "1").is_err() {
            let _ = set("cpu.weight", "1");
        }
        let _ = set("io.weight", "1");
        // Swap may not be there, and then nothing of it can be used.
        match set("memory.swap.max", "0") {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
        group.processes = Some(open(&group.dir.join("cgroup.procs"))?);
        Ok(group)
    }
}

/// The group that a process is in, if it may be divided among jobs; changes nothing. `own` is what `/proc/PID/cgroup`
/// says of it.
///
/// # Errors
/// Why it may not.
pub fn look(root: &Path, own: &str, pid: u32) -> Result<PathBuf, NoGroups> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).ok_or(NoGroups::None)?;
    let inside = !path.split('/').any(|name| name == "..");
    let dir = root.join(path);
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
    let controllers = read("cgroup.controllers").filter(|_| inside).ok_or(NoGroups::None)?;
    for wanted in CONTROLLERS {
        if !controllers.split_whitespace().any(|have| have == wanted) {
            return Err(NoGroups::Controller(dir, wanted));
        }
    }
    let processes = read("cgroup.procs").unwrap_or_default();
    if !processes.split_whitespace().all(|other| other == pid.to_string()) {
        return Err(NoGroups::Shared(dir));
    }
    match OpenOptions::new().write(true).open(dir.join("cgroup.subtree_control")) {
        Ok(_) => Ok(dir),
        Err(error) => Err(NoGroups::Refused(dir, error)),
    }
}

/// Whether a process has divided the group above its own, by what `/proc/PID/cgroup` says of it.
#[must_use]
pub fn is_divided(root: &Path, own: &str) -> bool {
    let above = own.lines().find_map(|line| line.strip_prefix("0::/")?.strip_suffix(AGENT));
    let counted = above.and_then(|above| std::fs::read_to_string(root.join(above).join("cgroup.subtree_control")).ok());
    counted.is_some_and(|have| CONTROLLERS.iter().all(|wanted| have.split_whitespace().any(|word| word == *wanted)))
}

/// One job's group; whatever is in it when this is dropped is killed.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
    /// Where a process is written that shall be in it.
    processes: Option<File>,
}

impl Group {
    /// What a process writes `0` to, to be in it with all that it will start.
    pub(super) fn door(&self) -> Option<&File> {
        self.processes.as_ref()
    }

    /// A group that counts nothing. For tests, where the kernel counts elsewhere.
    ///
    /// # Errors
    /// If it cannot be made.
    #[doc(hidden)]
    pub fn uncounted(dir: PathBuf) -> io::Result<Self> {
        make(&dir)?;
        let processes = Some(open(&dir.join("cgroup.procs"))?);
        Ok(Self { dir, processes })
    }

    /// Whether the kernel killed in it for want of memory.
    #[must_use]
    pub fn was_out_of_memory(&self) -> bool {
        let events = std::fs::read_to_string(self.dir.join("memory.events")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.parse().ok());
        kills.is_some_and(|kills: u64| kills > 0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Both fail only where there is nobody, or no group, any more.
        let _ = write(&self.dir.join("cgroup.kill"), "1");
        for _ in 0..REMOVALS {
            match std::fs::remove_dir(&self.dir) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy => std::thread::sleep(REMOVAL_INTERVAL),
                _ => return,
            }
        }
    }
}

fn make(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Opens one of the files that the kernel shows in a group.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the files that the kernel would show in a group.
    fn group(dir: &Path, controllers: &str, processes: &str) {
        std::fs::create_dir_all(dir).unwrap();
        let files = [("cgroup.controllers", controllers), ("cgroup.procs", processes), ("cgroup.subtree_control", "")];
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn a_group_is_divided_only_if_it_counts_enough_and_nobody_else_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        let own = "9:name=systemd:/x\n0::/mesh.service\n";
        let said = |own| look(root.path(), own, 7).map_err(|error| error.to_string());
        assert!(said(own).unwrap_err().starts_with("there is no cgroup version 2"));
        let dir = root.path().join("mesh.service");
        group(&dir, "cpu memory pids\n", "7\n");
        assert_eq!(said(own), Ok(dir.clone()));
        for hidden in ["9:memory:/x\n", "0::/../mesh.service\n", "0::/other\n", ""] {
            assert!(said(hidden).unwrap_err().starts_with("there is no cgroup version 2"), "{hidden}");
        }
        group(&dir, "cpu memory pids\n", "7\n8\n");
        assert!(said(own).unwrap_err().ends_with("is shared with other programs"));
        group(&dir, "cpu memory\n", "7\n");
        assert!(said(own).unwrap_err().ends_with("lacks the controller pids"));
    }

    #[test]
    fn the_agent_moves_aside_and_each_job_gets_its_limits() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("mesh.service");
        group(&dir, "memory pids\n", "7\n");
        group(&dir.join(AGENT), "memory pids\n", "");
        let groups = Groups::divide(dir.clone(), 7).unwrap();
        let read = |path: &str| std::fs::read_to_string(dir.join(path)).unwrap();
        assert_eq!((read("agent/cgroup.procs"), read("cgroup.subtree_control")), ("7".into(), "+memory +pids".into()));
        for name in ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cgroup.procs", "cgroup.kill"] {
            group(&dir.join("job-0"), "", "");
            std::fs::write(dir.join("job-0").join(name), "").unwrap();
        }
        let limits = Limits { memory_bytes: 1000, tree_bytes: 24, processes: 128, ..Limits::DEFAULT };
        let job = groups.job(&limits).unwrap();
        assert_eq!((read("job-0/memory.max"), read("job-0/memory.swap.max")), ("1024".into(), "0".into()));
        assert_eq!((read("job-0/pids.max"), read("job-0/memory.oom.group")), ("131".into(), "1".into()));
        assert!(!job.was_out_of_memory());
        std::fs::write(dir.join("job-0/memory.events"), "low 0\noom 1\noom_kill 0\n").unwrap();
        assert!(!job.was_out_of_memory());
        std::fs::write(dir.join("job-0/memory.events"), "low 0\noom 1\noom_kill 2\n").unwrap();
        assert!(job.was_out_of_memory());
        drop(job);
        assert_eq!(read("job-0/cgroup.kill"), "1");
        // The next has no files here, as where the kernel refuses to count.
        assert!(groups.job(&limits).is_err());
    }

    #[test]
    fn a_group_that_cannot_be_divided_is_left_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("mesh.service");
        group(&dir, "memory pids\n", "7\n");
        // Without the files that the kernel would show in the agent's.
        let refused = Groups::divide(dir.clone(), 7).unwrap_err();
        assert!(matches!(refused, NoGroups::Refused(..)), "{refused}");
        assert!(!dir.join(AGENT).exists());
        assert_eq!(std::fs::read_to_string(dir.join("cgroup.procs")).unwrap(), "7\n");
    }

    #[test]
    fn whether_it_was_divided_can_be_seen_from_outside() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("mesh.service");
        group(&dir, "", "");
        assert!(!is_divided(root.path(), "0::/mesh.service/agent\n"));
        std::fs::write(dir.join("cgroup.subtree_control"), "memory pids\n").unwrap();
        assert!(is_divided(root.path(), "0::/mesh.service/agent\n"));
        assert!(!is_divided(root.path(), "0::/mesh.service\n"));
    }
}
