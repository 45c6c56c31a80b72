//! What the kernel's files say of this machine: load, memory, power, heat, and whether somebody types (DO).
//!
//! Everything is read below a root directory, so that tests can lay out files of their own there. A file that is not there
//! says nothing, and that is as if all were well: none of these may keep a machine from helping by being absent.

use super::groups::{self, Group};
use crate::sched::guest::{Power, Signals};
use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

/// One of the kernel's files, bytes at most.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Terminals, batteries, sensors and processes of ours that are looked at, each.
const ENTRIES_MAX: usize = 512;
/// The kernel counts time in these units for programs, whatever its own are: `USER_HZ`, a second's worth.
const TICKS_PER_S: u64 = 100;
/// Two looks closer than this tell nothing of the load, milliseconds.
const SPAN_MS_MIN: u64 = 200;
/// A processor that was throttled stays hot for so long, milliseconds.
const THROTTLED_MS: u64 = 10_000;
/// So close to the temperature at which the kernel switches it off, a machine is too hot, thousandths of a degree.
const CRITICAL_NEAR: i64 = 5_000;
/// Less room than this where jobs are staged is none, bytes; on a small disk, less than such a part of it.
const DISK_BYTES_MIN: u64 = 512 << 20;
const DISK_PART_MIN: u64 = 20;
/// What changes seldom or slowly is looked at so often, milliseconds.
const SLOW_EVERY_MS: u64 = 2_000;
/// Looks that are closer together are those of a machine that compiles for others.
const OFTEN_MS: u64 = 600;

/// What is read at each look, and what is remembered from the last.
#[derive(Debug)]
pub struct Sampler {
    root: PathBuf,
    /// Where jobs are staged.
    disk: PathBuf,
    /// The process whose children are not foreign.
    agent: u32,
    groups: Vec<Group>,
    began: Instant,
    /// Processor time used so far by all and by the agent with its jobs, microseconds, and when that was.
    used: Option<(u64, u64, u64)>,
    foreign_millicores: u32,
    throttles: Option<u64>,
    throttled_at: Option<u64>,
    /// Interrupts of the keyboard and mouse, and when there was the last; nothing until one comes.
    keys: Option<(u64, Option<u64>)>,
    slow: Option<(u64, Slow)>,
    /// When it looked last.
    looked_ms: Option<u64>,
}

/// What is looked at less often.
#[derive(Debug, Clone, Copy, Default)]
struct Slow {
    power: Power,
    too_warm: bool,
    disk_full: bool,
    untouched_s: Option<u64>,
}

/// Whether this machine runs on mains now; one that does not say counts as one that does.
#[must_use]
pub fn has_mains() -> bool {
    Sampler::new(Path::new("/"), Path::new("/"), std::process::id()).power() == Power::Mains
}

impl Sampler {
    /// Looks below `root` at what `agent` and its jobs have to live with.
    #[must_use]
    pub fn new(root: &Path, disk: &Path, agent: u32) -> Self {
        Self {
            root: root.to_owned(),
            disk: disk.to_owned(),
            agent,
            groups: groups::of(root, agent),
            began: Instant::now(),
            used: None,
            foreign_millicores: 0,
            throttles: None,
            throttled_at: None,
            keys: None,
            slow: None,
            looked_ms: None,
        }
    }

    /// What is so now. `most`, `own_builds` are for the caller to say; `cores` are those that the process may use where
    /// no quota says less.
    pub fn look(&mut self, cores: u32) -> Signals {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.look_at(ms, super::wall_ms() / 1000, cores)
    }

    /// The same, at a time by its own clock, milliseconds, and by the wall's, seconds.
    pub fn look_at(&mut self, now_ms: u64, wall_s: u64, cores: u32) -> Signals {
        let quota = self.groups.iter().filter_map(Group::quota_cores).min();
        let cores = quota.map_or(cores, |quota| quota.min(cores)).max(1);
        self.load(now_ms, cores);
        let (total, free) = self.memory();
        // Whoever looks this often does so because jobs of others run: somebody who sits down is to be noticed at once.
        let often = self.looked_ms.replace(now_ms).is_some_and(|at| now_ms.saturating_sub(at) < OFTEN_MS);
        let mut slow = match self.slow {
            Some((at, slow)) if now_ms.saturating_sub(at) < SLOW_EVERY_MS => slow,
            _ => {
                let slow = self.slowly(now_ms, wall_s);
                self.slow = Some((now_ms, slow));
                slow
            }
        };
        if often {
            slow.untouched_s = self.untouched(now_ms, wall_s);
        }
        let pressure = |name: &str| {
            let limited = self.groups.iter().find(|group| group.is_limited());
            let own = limited.and_then(|group| group.read(&format!("{name}.pressure")));
            own.or_else(|| self.read(&format!("proc/pressure/{name}"))).unwrap_or_default()
        };
        let memory = pressure("memory");
        Signals {
            cores,
            most: cores,
            foreign_millicores: self.foreign_millicores,
            own_builds: 0,
            untouched_s: slow.untouched_s,
            power: slow.power,
            hot: slow.too_warm || self.throttled_at.is_some_and(|at| now_ms.saturating_sub(at) < THROTTLED_MS),
            disk_full: slow.disk_full,
            memory_total_kib: total,
            memory_free_kib: free,
            memory_some: average(&memory, "some"),
            memory_full: average(&memory, "full"),
            cpu_some: average(&pressure("cpu"), "some"),
        }
    }

    fn read(&self, path: &str) -> Option<String> {
        read(&self.root.join(path))
    }

    fn entries(&self, path: &str) -> Vec<PathBuf> {
        let listing = std::fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        listing.take(ENTRIES_MAX).map(|entry| entry.path()).collect()
    }

    /// Others' processor time since the last look.
    fn load(&mut self, now_ms: u64, cores: u32) {
        let Some(all) = self.used_by_all() else { return };
        let ours = self.used_by_ours();
        let Some((had_all, had_ours, at)) = self.used else {
            self.used = Some((all, ours, now_ms));
            return;
        };
        let span = now_ms.saturating_sub(at);
        if span < SPAN_MS_MIN {
            return;
        }
        let foreign = all.saturating_sub(had_all).saturating_sub(ours.saturating_sub(had_ours));
        let millicores = u32::try_from(foreign / span).unwrap_or(u32::MAX).min(cores.saturating_mul(1000));
        // Half of the last look's counts too: one that met a tick of the kernel's is not the truth.
        self.foreign_millicores = u32::midpoint(self.foreign_millicores, millicores);
        self.used = Some((all, ours, now_ms));
    }

    /// Processor time that was not idle: of the container if it is limited, else of the machine; microseconds.
    fn used_by_all(&self) -> Option<u64> {
        let limited = self.groups.iter().find(|group| group.quota_cores().is_some());
        if let Some(used) = limited.and_then(Group::used_us) {
            return Some(used);
        }
        let stat = self.read("proc/stat")?;
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guests are in user already.
        let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum::<u64>();
        Some(busy.saturating_mul(1_000_000 / TICKS_PER_S))
    }

    /// Processor time of the agent and of all that it started, those that ended counted, microseconds.
    fn used_by_ours(&self) -> u64 {
        let (mut next, mut ticks, mut seen) = (vec![self.agent], 0u64, 0);
        while let Some(pid) = next.pop() {
            seen += 1;
            if seen > ENTRIES_MAX {
                break;
            }
            let Some(stat) = self.read(&format!("proc/{pid}/stat")) else { continue };
            // The name, in parentheses, may hold anything.
            let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
            // Counted from the state: utime, stime, cutime, cstime.
            ticks += after.split_whitespace().skip(11).take(4).filter_map(|word| word.parse::<u64>().ok()).sum::<u64>();
            for task in self.entries(&format!("proc/{pid}/task")) {
                let children = read(&task.join("children")).unwrap_or_default();
                next.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            }
        }
        ticks.saturating_mul(1_000_000 / TICKS_PER_S)
    }

    /// All memory, and what programs could still take of it, KiB: the container's, if it is limited.
    fn memory(&self) -> (Option<u64>, Option<u64>) {
        let info = self.read("proc/meminfo").unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let (mut total, mut free) = (field("MemTotal"), field("MemAvailable"));
        for (limit, used) in self.groups.iter().filter_map(Group::memory_kib) {
            if total.is_none_or(|total| limit < total) {
                total = Some(limit);
            }
            let left = limit.saturating_sub(used);
            free = Some(free.map_or(left, |free| free.min(left)));
        }
        (total, free)
    }

    fn slowly(&mut self, now_ms: u64, wall_s: u64) -> Slow {
        let throttles = self.throttles();
        if self.throttles.is_some_and(|had| throttles > had) {
            self.throttled_at = Some(now_ms);
        }
        self.throttles = Some(throttles);
        Slow {
            power: self.power(),
            too_warm: self.is_too_warm(),
            disk_full: self.is_disk_full(),
            untouched_s: self.untouched(now_ms, wall_s),
        }
    }

    fn is_disk_full(&self) -> bool {
        let Ok(at) = rustix::fs::statvfs(&self.disk) else { return false };
        let bytes = |blocks: u64| blocks.saturating_mul(at.f_frsize);
        bytes(at.f_bavail) < DISK_BYTES_MIN.min(bytes(at.f_blocks) / DISK_PART_MIN)
    }

    /// The fullest battery that gives power, unless a cable does.
    fn power(&self) -> Power {
        let mut percent = None;
        for supply in self.entries("sys/class/power_supply") {
            let word = |name: &str| read(&supply.join(name)).map(|text| text.trim().to_owned()).unwrap_or_default();
            match word("type").as_str() {
                // A mouse has one, too.
                "Battery" if word("scope") != "Device" && word("status") == "Discharging" => {
                    percent = percent.max(Some(word("capacity").parse().unwrap_or(0)));
                }
                "Mains" | "USB" if word("online") == "1" => return Power::Mains,
                _ => {}
            }
        }
        percent.map_or(Power::Mains, Power::Battery)
    }

    /// Whether this machine has a battery of its own, as a laptop has.
    #[must_use]
    pub fn has_battery(&self) -> bool {
        self.entries("sys/class/power_supply").iter().any(|supply| {
            let is = |name: &str, want: &str| read(&supply.join(name)).is_some_and(|text| text.trim() == want);
            is("type", "Battery") && !is("scope", "Device")
        })
    }

    /// How often the processor was slowed for its heat since the start.
    fn throttles(&self) -> u64 {
        let count = |name: &str| self.read(&format!("sys/devices/system/cpu/cpu0/thermal_throttle/{name}"));
        let counts = ["package_throttle_count", "core_throttle_count"].into_iter().filter_map(count);
        counts.filter_map(|text| text.trim().parse::<u64>().ok()).sum()
    }

    fn is_too_warm(&self) -> bool {
        let zones = self.entries("sys/class/thermal");
        zones.iter().any(|zone| {
            let number = |name: &str| read(&zone.join(name))?.trim().parse::<i64>().ok();
            let Some(now) = number("temp").filter(|now| *now > 0) else { return false };
            (0..16).map_while(|n| Some((n, read(&zone.join(format!("trip_point_{n}_type")))?))).any(|(n, kind)| {
                let Some(limit) = number(&format!("trip_point_{n}_temp")).filter(|limit| *limit > 0) else {
                    return false;
                };
                match kind.trim() {
                    "hot" => now >= limit,
                    "critical" => now >= limit - CRITICAL_NEAR,
                    _ => false,
                }
            })
        })
    }

    /// For how long nobody has typed, seconds: a terminal's access time is when a program last read from it, and the
    /// keyboard's controller counts its interrupts.
    fn untouched(&mut self, now_ms: u64, wall_s: u64) -> Option<u64> {
        let numbered = |path: &PathBuf, prefix: &str| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // On macOS they are called ttys000 and so on.
            let number =
                name.strip_prefix(prefix).map(|n| if prefix.is_empty() { n } else { n.strip_prefix('s').unwrap_or(n) });
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        let consoles = self.entries("dev").into_iter().filter(|path| numbered(path, "tty"));
        let remote = self.entries("dev/pts").into_iter().filter(|path| numbered(path, ""));
        let read_at = consoles.chain(remote).filter_map(|path| {
            let at = u64::try_from(std::fs::metadata(path).ok()?.atime()).ok()?;
            Some(wall_s.saturating_sub(at))
        });
        let terminals = read_at.min();
        let pressed = self.interrupts().and_then(|now| {
            let last = match self.keys {
                Some((had, last)) if now == had => last,
                Some(_) => Some(now_ms),
                None => None,
            };
            self.keys = Some((now, last));
            last.map(|at| now_ms.saturating_sub(at) / 1000)
        });
        terminals.into_iter().chain(pressed).min()
    }

    /// Interrupts of the keyboard's and mouse's own controller; nothing where they share one with disks, as with USB.
    fn interrupts(&self) -> Option<u64> {
        let all = self.read("proc/interrupts")?;
        let mut lines = all.lines().filter(|line| line.ends_with("i8042")).peekable();
        lines.peek()?;
        let counts = |line: &str| line.split_whitespace().skip(1).map_while(|w| w.parse::<u64>().ok()).sum::<u64>();
        Some(lines.map(counts).sum())
    }
}

pub(super) fn read(path: &Path) -> Option<String> {
    super::read_at_most(path, FILE_BYTES_MAX).and_then(|bytes| String::from_utf8(bytes).ok())
}

/// What a file of `/proc/pressure` says of the last ten seconds, hundredths of a percent.
fn average(text: &str, which: &str) -> u32 {
    let line = text.lines().find_map(|line| line.strip_prefix(which)).unwrap_or_default();
    let fields: HashMap<&str, &str> = line.split_whitespace().filter_map(|word| word.split_once('=')).collect();
    let percent: f64 = fields.get("avg10").and_then(|word| word.parse().ok()).unwrap_or(0.0);
    // Of a percentage; a cast saturates.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 10000")]
    let hundredths = (percent.clamp(0.0, 100.0) * 100.0).round() as u32;
    hundredths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files as the kernel would show them, of a machine that is not this one.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            fake.put("proc/meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\nMemAvailable:   8192000 kB\n");
            fake.cpu(0);
            fake.put("proc/7/stat", "7 (mesh) x) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0");
            fake
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        /// So much processor time was used by all, ticks.
        fn cpu(&self, ticks: u64) {
            self.put("proc/stat", &format!("cpu  {ticks} 0 0 9999 55 0 0 0 0 0\ncpu0 1 1 1 1\n"));
        }

        fn sampler(&self) -> Sampler {
            Sampler::new(self.0.path(), self.0.path(), 7)
        }

        fn look(&self) -> Signals {
            self.sampler().look_at(0, 0, 8)
        }
    }

    #[test]
    fn where_the_kernel_says_nothing_all_is_well() {
        let empty = tempfile::tempdir().unwrap();
        let found = Sampler::new(empty.path(), empty.path(), 7).look_at(0, 0, 8);
        assert_eq!(found, Signals { cores: 8, most: 8, ..Signals::default() });
    }

    #[test]
    fn what_the_agents_own_children_use_is_not_foreign() {
        let fake = Fake::new();
        let mut sampler = fake.sampler();
        assert_eq!(sampler.look_at(0, 0, 8).foreign_millicores, 0);
        // In a second: 500 ticks by all, of which the agent has used 100, its child 150, and one that ended 50.
        fake.cpu(500);
        fake.put("proc/7/stat", "7 (mesh) x) S 1 7 7 0 -1 0 0 0 0 0 60 40 20 30 20 0");
        fake.put("proc/7/task/7/children", "9 ");
        fake.put("proc/9/stat", "9 (cc1) R 7 7 7 0 -1 0 0 0 0 0 100 50 0 0 20 0");
        let once = sampler.look_at(1000, 0, 8).foreign_millicores;
        assert_eq!(once, 1000, "half of the two cores that 200 ticks are: the look before saw none");
        // Nothing more happens.
        let looks = [2000, 3000, 4000].map(|now| sampler.look_at(now, 0, 8).foreign_millicores);
        assert_eq!(looks, [500, 250, 125]);
    }

    #[test]
    fn a_battery_counts_while_no_cable_does() {
        let fake = Fake::new();
        fake.put("sys/class/power_supply/hidpp/type", "Battery\n");
        fake.put("sys/class/power_supply/hidpp/scope", "Device\n");
        fake.put("sys/class/power_supply/hidpp/status", "Discharging\n");
        assert_eq!((fake.look().power, fake.sampler().has_battery()), (Power::Mains, false), "a mouse");
        fake.put("sys/class/power_supply/BAT0/type", "Battery\n");
        fake.put("sys/class/power_supply/BAT0/status", "Discharging\n");
        fake.put("sys/class/power_supply/BAT0/capacity", "73\n");
        assert_eq!((fake.look().power, fake.sampler().has_battery()), (Power::Battery(73), true));
        fake.put("sys/class/power_supply/AC/type", "Mains\n");
        fake.put("sys/class/power_supply/AC/online", "1\n");
        assert_eq!(fake.look().power, Power::Mains);
    }

    #[test]
    fn heat_is_a_sensor_near_its_end_or_a_processor_that_is_slowed() {
        let fake = Fake::new();
        let zone = |name: &str, text: &str| fake.put(&format!("sys/class/thermal/thermal_zone0/{name}"), text);
        zone("temp", "94000\n");
        zone("trip_point_0_type", "passive\n");
        zone("trip_point_0_temp", "80000\n");
        zone("trip_point_1_type", "critical\n");
        zone("trip_point_1_temp", "100000\n");
        assert!(!fake.look().hot);
        zone("temp", "95000\n");
        assert!(fake.look().hot);
        zone("temp", "40000\n");
        let count = |n: &str| fake.put("sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", n);
        count("5\n");
        let mut sampler = fake.sampler();
        assert!(!sampler.look_at(0, 0, 8).hot, "what was before the first look");
        count("6\n");
        assert!(sampler.look_at(2000, 0, 8).hot);
        assert!(sampler.look_at(11_900, 0, 8).hot && !sampler.look_at(14_000, 0, 8).hot);
    }

    #[test]
    fn pressure_is_read_in_hundredths_of_a_percent() {
        let fake = Fake::new();
        let memory =
            "some avg10=12.34 avg60=0.00 avg300=0.00 total=1\nfull avg10=5.01 avg60=0.00 avg300=0.00 total=1\n";
        fake.put("proc/pressure/memory", memory);
        fake.put("proc/pressure/cpu", "some avg10=99.99 avg60=0.00 avg300=0.00 total=1\n");
        let found = fake.look();
        assert_eq!((found.memory_some, found.memory_full, found.cpu_some), (1234, 501, 9999));
    }

    #[test]
    fn a_container_has_what_its_groups_leave_it_and_never_what_its_host_has() {
        let fake = Fake::new();
        fake.put("proc/7/cgroup", "0::/docker/a/agent\n");
        fake.put("sys/fs/cgroup/docker/a/agent/cpu.max", "max 100000\n");
        fake.put("sys/fs/cgroup/docker/a/cpu.max", "250000 100000\n");
        fake.put("sys/fs/cgroup/docker/a/cpu.stat", "usage_usec 0\nuser_usec 0\n");
        fake.put("sys/fs/cgroup/docker/a/memory.max", "2147483648\n");
        fake.put("sys/fs/cgroup/docker/a/memory.current", "1073741824\n");
        fake.put("sys/fs/cgroup/docker/a/memory.stat", "anon 1\ninactive_file 536870912\n");
        fake.put("sys/fs/cgroup/docker/a/memory.pressure", "some avg10=20.00 avg60=0.00 avg300=0.00 total=1\n");
        fake.put("proc/pressure/memory", "some avg10=1.00 avg60=0.00 avg300=0.00 total=1\n");
        let mut sampler = fake.sampler();
        let found = sampler.look_at(0, 0, 8);
        assert_eq!((found.cores, found.memory_total_kib), (2, Some(2 << 20)));
        assert_eq!((found.memory_free_kib, found.memory_some), (Some(3 << 19), 2000));
        // What the host's others do is nothing to it.
        fake.cpu(800);
        fake.put("sys/fs/cgroup/docker/a/cpu.stat", "usage_usec 400000\n");
        assert_eq!(sampler.look_at(1000, 0, 8).foreign_millicores, 200);
    }

    #[test]
    fn the_first_version_of_groups_says_the_same_in_other_words() {
        let fake = Fake::new();
        // The path is the host's: what is mounted is the container's.
        fake.put("proc/7/cgroup", "4:cpu,cpuacct:/docker/a\n3:memory:/docker/a\n1:name=systemd:/x\n");
        fake.put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n");
        fake.put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
        fake.put("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");
        fake.put("sys/fs/cgroup/memory/memory.usage_in_bytes", "1048576\n");
        let found = fake.look();
        assert_eq!(
            (found.cores, found.memory_total_kib, found.memory_free_kib),
            (1, Some(1 << 20), Some((1 << 20) - 1024))
        );
        fake.put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
        fake.put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        let found = fake.look();
        assert_eq!((found.cores, found.memory_total_kib), (8, Some(16_384_000)));
    }

    #[test]
    fn somebody_types_where_a_terminal_was_read_or_the_keyboard_interrupts() {
        let fake = Fake::new();
        assert_eq!(fake.look().untouched_s, None);
        for name in ["dev/pts/3", "dev/tty1", "dev/ttyS0x", "dev/pts/ptmx"] {
            fake.put(name, "");
            let read = if name.ends_with('x') { 990 } else { 600 };
            let times = std::fs::FileTimes::new()
                .set_accessed(std::time::UNIX_EPOCH + std::time::Duration::from_secs(read))
                .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(995));
            std::fs::File::options().write(true).open(fake.0.path().join(name)).unwrap().set_times(times).unwrap();
        }
        assert_eq!(fake.sampler().look_at(0, 1000, 8).untouched_s, Some(400), "output is not typing");
        let keys =
            |n: u32| fake.put("proc/interrupts", &format!("  CPU0 CPU1\n  1:  {n}  7  IO-APIC  1-edge  i8042\n"));
        keys(5);
        let mut sampler = fake.sampler();
        assert_eq!(sampler.look_at(0, 1000, 8).untouched_s, Some(400));
        keys(6);
        assert_eq!(sampler.look_at(2000, 1002, 8).untouched_s, Some(0));
        assert_eq!(sampler.look_at(7000, 1007, 8).untouched_s, Some(5));
    }
}
