//! Cores, load, the clock (DO).

mod bus;
mod cpu;
mod groups;
pub mod kernel;
pub mod signals;

pub use cpu::processor;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Cores that this process may use: affinity and the cgroup's quota counted.
#[must_use]
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Memory that programs could still take without others being swapped out, KiB; the container's limit counts. `None` if
/// the system does not tell.
#[must_use]
pub fn memory_free_kib() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let limited = system.cgroup_limits().map(|limits| limits.free_memory);
    let free = limited.map_or(system.available_memory(), |limit| limit.min(system.available_memory()));
    (system.total_memory() > 0).then_some(free / 1024)
}

/// Bytes that an ordinary user can still write where this path is. `None` if the system does not tell.
#[must_use]
pub fn disk_free(path: &std::path::Path) -> Option<u64> {
    let at = rustix::fs::statvfs(path).ok()?;
    Some(at.f_bavail.saturating_mul(at.f_frsize))
}

/// The name of this machine, without a domain; `machine` if it has none.
#[must_use]
pub fn name() -> String {
    let uname = rustix::system::uname();
    let full = uname.nodename().to_string_lossy();
    let short: String = full.split('.').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    if short.is_empty() { "machine".to_owned() } else { short }
}

/// Milliseconds since 1970, for people to read; nothing is decided by it.
#[must_use]
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// A file's content, if it can be read and is no larger than so many bytes.
#[must_use]
pub fn read_at_most(path: &std::path::Path, bytes_max: u64) -> Option<Vec<u8>> {
    let file = std::fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, bytes_max + 1), &mut bytes).ok()?;
    (bytes.len() as u64 <= bytes_max).then_some(bytes)
}

/// A clock that only goes forward.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock {
    /// Microseconds since it was made.
    #[must_use]
    pub fn us(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since it was made.
    #[must_use]
    pub fn ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The machine's monotonic clock, milliseconds: the same for all of its processes, at rest while it sleeps.
#[must_use]
pub fn monotonic_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    std::time::Duration::try_from(time).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long the machine has been running, asleep or not, milliseconds.
#[must_use]
pub fn since_boot_ms() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(clock);
    std::time::Duration::try_from(time).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Processor time of the calling thread, microseconds.
#[must_use]
pub fn thread_cpu_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::try_from(time).map_or(0, |cpu| u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX))
}
