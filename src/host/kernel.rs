//! What this machine's kernel lets a sandbox do, as its own files say (DO).

use std::path::Path;

/// What is said of it. `None` stands for what this kernel does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// This process is root, as far as it can see.
    pub is_root: bool,
    /// `user.max_user_namespaces`: how many an ordinary user may make.
    pub user_namespaces_max: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, which Debian's kernels had: 0 forbids them.
    pub user_namespaces_allowed: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`: 1 leaves those without a profile no power in them.
    pub apparmor_restricts: Option<u64>,
    /// System calls of this process are filtered already, as a container's are.
    pub is_filtered: bool,
    /// This process is in a container, by the marks that engines leave.
    pub is_container: bool,
    /// There is a `/proc` that shows this process.
    pub has_proc: bool,
    /// The version of Landlock.
    pub landlock_abi: Option<u32>,
}

impl Kernel {
    /// What is said now.
    #[must_use]
    pub fn look() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let filter = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        let marks = ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"];
        Self {
            is_root: rustix::process::geteuid().is_root(),
            user_namespaces_max: setting("user/max_user_namespaces"),
            user_namespaces_allowed: setting("kernel/unprivileged_userns_clone"),
            apparmor_restricts: setting("kernel/apparmor_restrict_unprivileged_userns"),
            is_filtered: filter.is_some_and(|mode| mode.trim() == "2"),
            is_container: marks.iter().any(|mark| Path::new(mark).exists()),
            has_proc: !status.is_empty(),
            landlock_abi: crate::sandbox::landlock_abi(),
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

/// Bytes that this process may still write where a path lies; of its first ancestor that exists, if it does not.
#[must_use]
pub fn room(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|ancestor| ancestor.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether jobs of this agent have control groups of their own; else why not, as a sentence's part.
///
/// # Errors
/// Why not.
#[cfg(target_os = "linux")]
pub fn job_groups(agent: u32) -> Result<(), String> {
    use crate::sandbox::cgroup;
    let own = std::fs::read_to_string(format!("/proc/{agent}/cgroup")).map_err(|error| error.to_string())?;
    let root = Path::new(cgroup::ROOT);
    if cgroup::is_divided(root, &own) {
        return Ok(());
    }
    match cgroup::look(root, &own, agent) {
        Ok(_) => Err("it could have been divided, but was not when the agent started".to_owned()),
        Err(why) => Err(why.to_string()),
    }
}

/// Whether jobs of this agent have control groups of their own.
///
/// # Errors
/// That this system has none.
#[cfg(not(target_os = "linux"))]
pub fn job_groups(_agent: u32) -> Result<(), String> {
    Err("this system has no control groups".to_owned())
}
