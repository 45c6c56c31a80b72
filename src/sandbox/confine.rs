//! Landlock rules and the system call filter (DO).
//!
//! The filter is a list of what is refused, not of what is allowed. Rejected: a list of what is allowed. Compilers of
//! all versions from all distributions run here; a harmless call that such a list forgot would not be an attack stopped
//! but a compile that ends otherwise than at home. A list of what is refused must be complete instead: so
//! calls newer than [`NEWEST`] do not exist for a job, nor does any other architecture's way into the kernel.

use super::{
    Landlock, Step,
    linux::{Fault, fault},
    policy::Policy,
    root::DEVICES,
};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The newest Landlock rights that are asked for.
const LANDLOCK_ABI: ABI = ABI::V6;
/// The newest system call that has been judged (`file_setattr`, Linux 6.17). All architectures number alike here.
const NEWEST: u32 = 469;

/// `TIOCSTI` and `TIOCLINUX`, the same on all processors; the C libraries disagree on their type.
const TYPING: [u64; 2] = [0x5412, 0x541c];

/// Restricts this process to reading the root and writing the policy's writable directories. The root must be the
/// job's own already: rules hold what is at a path when they are made.
pub(super) fn landlock(policy: &Policy) -> Result<Landlock, Fault> {
    if policy.without.landlock {
        return Ok(Landlock::Absent);
    }
    restrict(policy).map_err(|_| fault(Step::Landlock, b"", Errno::PERM))
}

fn restrict(policy: &Policy) -> Result<Landlock, Box<dyn std::error::Error>> {
    let special = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::IoctlDev;
    let write = AccessFs::from_all(LANDLOCK_ABI) & !special;
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .handle_access(AccessNet::from_all(LANDLOCK_ABI))?
        .scope(Scope::from_all(LANDLOCK_ABI))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::from_read(LANDLOCK_ABI)))?;
    for path in &policy.writable {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(OsStr::from_bytes(path))?, write))?;
    }
    for name in DEVICES {
        let path = format!("/dev/{name}");
        // A container may not be let have them.
        if std::fs::exists(&path)? {
            rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, device))?;
        }
    }
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Landlock::Full,
        RulesetStatus::PartiallyEnforced => Landlock::Partial,
        RulesetStatus::NotEnforced => Landlock::Absent,
    })
}

/// The system call filter, ready to be installed.
#[derive(Debug)]
pub(super) struct Filters(Vec<BpfProgram>);

impl Filters {
    /// All of it.
    pub(super) fn whole() -> Result<Self, Fault> {
        Ok(Self(vec![refused(|_| true).ok_or_else(Self::failed)?, unknown()]))
    }

    /// What a template can be held to itself, and what is left for each of its jobs. The kernel looks at every call's way
    /// through a filter when it is installed, which takes longer than all mounts of a job together; what a job inherits
    /// costs it nothing.
    pub(super) fn split() -> Result<[Self; 2], Fault> {
        let is_steps = |call| STEPS.contains(&call);
        let template = vec![refused(|call| !is_steps(call)).ok_or_else(Self::failed)?, unknown()];
        Ok([Self(template), Self(vec![steps().ok_or_else(Self::failed)?])])
    }

    /// Installs the filter for this process and all it will start.
    pub(super) fn install(&self) -> Result<(), Fault> {
        self.0.iter().try_for_each(|program| seccompiler::apply_filter(program).map_err(|_| Self::failed()))
    }

    fn failed() -> Fault {
        fault(Step::Seccomp, b"", Errno::INVAL)
    }
}

/// A rule on one argument.
fn rule(argument: u8, op: SeccompCmpOp, value: u64) -> Option<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value).ok()?;
    SeccompRule::new(vec![condition]).ok()
}

/// The calls by which a job's root is built. All of them are among the refused.
const STEPS: [i64; 4] = [libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_unshare];

/// Those end with EPERM.
fn steps() -> Option<BpfProgram> {
    program(STEPS.iter().map(|call| (*call, vec![])).collect())
}

/// The calls that end with EPERM, of those that are `wanted`. Any other architecture's call ends the process.
fn refused(wanted: impl Fn(i64) -> bool) -> Option<BpfProgram> {
    let listed = REFUSED.iter().map(|(call, _)| *call).filter(|call| wanted(*call));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = listed.map(|call| (call, vec![])).collect();
    #[cfg(target_arch = "x86_64")]
    rules.extend(REFUSED_X86.iter().map(|(call, _)| (*call, vec![])));
    // Threads and processes, but no namespaces. (clone3 hides its flags in memory: see `unknown`.)
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    let flags = namespaces.map(|flag| u64::from(flag.cast_unsigned()));
    let clone: Option<Vec<_>> = flags.into_iter().map(|flag| rule(0, SeccompCmpOp::MaskedEq(flag), flag)).collect();
    rules.insert(libc::SYS_clone, clone?);
    // A pair of connected sockets leads nowhere; other families than Unix have been ways into the kernel.
    let unix = u64::from(libc::AF_UNIX.cast_unsigned());
    rules.insert(libc::SYS_socketpair, vec![rule(0, SeccompCmpOp::Ne, unix)?]);
    // Typing into a terminal on behalf of who reads it.
    let ioctl: Option<Vec<_>> = TYPING.into_iter().map(|request| rule(1, SeccompCmpOp::Eq, request)).collect();
    rules.insert(libc::SYS_ioctl, ioctl?);
    program(rules)
}

fn program(rules: BTreeMap<i64, Vec<SeccompRule>>) -> Option<BpfProgram> {
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().ok()?;
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).ok()?.try_into().ok()
}

/// The calls that do not exist: newer than what this list knows (on x86-64 these are also the numbers of its 32-bit
/// cousin x32), and clone3, so that the C library falls back to clone, whose flags can be seen.
fn unknown() -> BpfProgram {
    let op = |code: u32, jt, jf, k| sock_filter { code: u16::try_from(code).unwrap_or(0), jt, jf, k };
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap_or(0);
    let no_such = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    vec![
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 2, 0, NEWEST),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, clone3),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, no_such),
    ]
}

/// What no compiler needs, each with what it is kept from.
const REFUSED: &[(i64, &str)] = &[
    (libc::SYS_socket, "any network, and sockets with a name"),
    (libc::SYS_ptrace, "control over another process"),
    (libc::SYS_process_vm_readv, "another process's memory"),
    (libc::SYS_process_vm_writev, "another process's memory"),
    (libc::SYS_process_madvise, "another process's memory"),
    (libc::SYS_pidfd_getfd, "another process's files"),
    (libc::SYS_kcmp, "what processes share, which is a step of attacks"),
    (libc::SYS_mount, "the mount table"),
    (libc::SYS_umount2, "the mount table"),
    (libc::SYS_pivot_root, "another root"),
    (libc::SYS_chroot, "another root"),
    (libc::SYS_fsopen, "the mount table"),
    (libc::SYS_fsconfig, "the mount table"),
    (libc::SYS_fsmount, "the mount table"),
    (libc::SYS_fspick, "the mount table"),
    (libc::SYS_move_mount, "the mount table"),
    (libc::SYS_open_tree, "the mount table"),
    (libc::SYS_mount_setattr, "the mount table"),
    (libc::SYS_unshare, "namespaces, behind which much of the kernel opens"),
    (libc::SYS_setns, "namespaces"),
    (libc::SYS_keyctl, "keys, which no namespace divides"),
    (libc::SYS_add_key, "keys"),
    (libc::SYS_request_key, "keys"),
    (libc::SYS_bpf, "code in the kernel"),
    (libc::SYS_perf_event_open, "counters of the whole machine"),
    (libc::SYS_userfaultfd, "stopping the kernel at a chosen page, a step of attacks"),
    (libc::SYS_io_uring_setup, "calls that this filter would not see"),
    (libc::SYS_io_uring_enter, "calls that this filter would not see"),
    (libc::SYS_io_uring_register, "calls that this filter would not see"),
    (libc::SYS_kexec_load, "the kernel itself"),
    (libc::SYS_init_module, "the kernel itself"),
    (libc::SYS_finit_module, "the kernel itself"),
    (libc::SYS_delete_module, "the kernel itself"),
    (libc::SYS_reboot, "the machine"),
    (libc::SYS_swapon, "the machine"),
    (libc::SYS_swapoff, "the machine"),
    (libc::SYS_acct, "the machine"),
    (libc::SYS_quotactl, "the machine"),
    (libc::SYS_syslog, "the kernel's log"),
    (libc::SYS_settimeofday, "the clock"),
    (libc::SYS_clock_settime, "the clock"),
    (libc::SYS_adjtimex, "the clock"),
    (libc::SYS_clock_adjtime, "the clock"),
    (libc::SYS_sethostname, "the machine's name"),
    (libc::SYS_setdomainname, "the machine's name"),
    (libc::SYS_vhangup, "the terminal"),
    (libc::SYS_open_by_handle_at, "files that have no name here"),
    (libc::SYS_name_to_handle_at, "files that have no name here"),
    (libc::SYS_fanotify_init, "what others do with files"),
    (libc::SYS_inotify_init1, "what others do with files: a toolchain's are the same for all jobs"),
    (libc::SYS_move_pages, "where memory lies"),
    (libc::SYS_migrate_pages, "where memory lies"),
    (libc::SYS_memfd_create, "memory that no limit counts"),
    (libc::SYS_memfd_secret, "memory that no limit counts"),
    (libc::SYS_shmget, "memory that no limit counts"),
    (libc::SYS_msgget, "memory that no limit counts"),
    (libc::SYS_semget, "memory that no limit counts"),
    (libc::SYS_mq_open, "memory that no limit counts"),
    (libc::SYS_nfsservctl, "a call of old"),
    (libc::SYS_lookup_dcookie, "profiles of the whole machine"),
    (libc::SYS_personality, "an older kernel's gaps"),
];

/// The same, of what exists on x86-64 only.
#[cfg(target_arch = "x86_64")]
const REFUSED_X86: &[(i64, &str)] = &[
    (libc::SYS_kexec_file_load, "the kernel itself"),
    (libc::SYS_inotify_init, "what others do with files"),
    (libc::SYS_iopl, "devices"),
    (libc::SYS_ioperm, "devices"),
    (libc::SYS_modify_ldt, "segments, of which only old attacks make use"),
    (libc::SYS_uselib, "a call of old"),
    (libc::SYS_ustat, "a call of old"),
    (libc::SYS_sysfs, "a call of old"),
    (libc::SYS__sysctl, "a call of old"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refused_call_is_one_the_filter_has_judged() {
        assert!(refused(|_| true).is_some() && steps().is_some());
        assert!(STEPS.iter().all(|step| REFUSED.iter().any(|(call, _)| call == step)));
        for (call, why) in REFUSED {
            assert!(*call >= 0 && *call <= i64::from(NEWEST) && !why.is_empty(), "{call}");
        }
    }
}
