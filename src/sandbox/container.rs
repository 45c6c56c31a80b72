//! The recipe where nothing can be mounted and no namespace entered, as in most containers (DO).
//!
//! Two processes. The *warden* is the one that the agent started, and stays root. It builds the job's root on disk, starts
//! the program, watches both ends, and when the job must end or has ended, ends every process of the job's user: it
//! becomes that user for a moment, and the kernel's "all that I may signal" are then exactly the job's. All that the job
//! leaves behind becomes the warden's child, so that it can wait until none is left. The *program* is the compiler: it
//! changes its root, becomes the job's user, and locks itself in. The order of the steps is the order of the functions.
//!
//! What the other rungs have by namespaces, this one has so: files by `chroot`, which a process without capabilities does
//! not leave; network and objects of System V by the system call filter; processes of others by being another user, and
//! there is no `/proc` in its root. That there are other processes it can tell from the numbers of its own, and nothing
//! more. Compilers find themselves by `argv[0]` where there is no `/proc/self/exe`.

use super::{
    Enforced, Exit, Rung, Step, confine,
    linux::{self, Fault, at, fault},
    needs,
    policy::{Identity, Inputs, Policy},
    root::{self, DEVICES},
    tree::Builder,
    wire::{self, Report},
    workshop,
};
use crate::sandbox::Cost;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatVfs};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How often it is looked whether a job fills the disk.
const DISK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// How long the last process of a job may take to be gone after it was killed.
const GONE_WAIT: Duration = Duration::from_secs(5);
/// Between two looks at what is left.
const GONE_INTERVAL: Duration = Duration::from_millis(1);
/// Looks after which what seems to be left may be what nobody waits for.
const GONE_LOOKS: u32 = 20;

/// The warden, from the agent's word to the job's last process.
pub(super) fn warden(policy: &Policy, control: &OwnedFd) -> Result<(), Fault> {
    let Identity::Chroot { id } = policy.identity else { return Err(fault(Step::Policy, b"", Errno::INVAL)) };
    check_capabilities()?;
    linux::give_way(policy.priority);
    // The agent's end is seen at its socket: a warden that was killed with it could end nobody.
    rustix::process::set_parent_process_death_signal(None).map_err(at(Step::Session))?;
    // Before there is anybody who could be left behind.
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).map_err(at(Step::Session))?;
    // Held until this process ends. Another agent in this container counts its users from the same one on.
    let _claim = claim(id)?;
    // What an earlier warden could not end, because it was killed itself.
    end_all(id)?;
    rustix::process::umask(Mode::empty());
    let root = build(policy, id)?;
    let before = rustix::fs::fstatvfs(&root).map_err(at(Step::Place))?;
    let devices = has_devices(root.as_fd());
    // Before the fork, so that no end of a child is missed.
    let children = linux::child_signals().map_err(at(Step::Wait))?;
    let setup_cpu_us = linux::own_cpu_us();
    let start = Instant::now();
    let warden = rustix::process::getpid();
    let Some(program) = linux::fork().map_err(at(Step::Fork))? else {
        let fault = match lock_in(policy, control, &root, devices, warden) {
            Ok(()) => linux::become_program(policy),
            Err(fault) => fault,
        };
        linux::exit_now(linux::report_fault(control, fault))
    };
    let ended = watch(&children, control, &root, policy, &before, program);
    let run_us = linux::micros(start.elapsed());
    // Whatever it was that ended the watch.
    end_all(id)?;
    if let Some((exit, cost)) = ended? {
        let cost = Cost { run_us, setup_cpu_us, ..cost };
        let _ = wire::send(control.as_fd(), &Report::Ended { exit, cost }, &[]);
    }
    Ok(())
}

/// That this process has what the rung needs: a name says more than the step that would fail.
fn check_capabilities() -> Result<(), Fault> {
    let have = rustix::thread::capabilities(None).map_err(at(Step::Privileges))?.effective.bits();
    match needs::first_missing(have) {
        None => Ok(()),
        Some(missing) => Err(fault(Step::Privileges, format!("CAP_{}", missing.name).as_bytes(), Errno::PERM)),
    }
}

/// Builds the root: inputs as copies, the base as links, devices; yields the root.
fn build(policy: &Policy, id: u32) -> Result<OwnedFd, Fault> {
    let Inputs::Own { tree, sources } = &policy.inputs else { return Err(fault(Step::Layers, b"", Errno::NODEV)) };
    let sources = root::open_kept(sources, OFlags::DIRECTORY)?;
    let base = rustix::fs::open(&*policy.base, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| fault(Step::Keep, &policy.base, errno))?;
    let root = workshop::make(&workshop::root(policy)).map_err(at(Step::Memory))?;
    let mut builder = Builder::new(root.as_fd(), sources.as_fd(), Some(id));
    tree.iter().try_for_each(|place| builder.place(place))?;
    for writable in &policy.writable {
        builder.directory(writable, true).map_err(|errno| fault(Step::Place, writable, errno))?;
    }
    workshop::link_base(base.as_fd(), root.as_fd(), &mut Vec::new(), 0)?;
    builder.directory(b"proc", false).map_err(at(Step::Place))?;
    make_devices(builder.open(b"dev").map_err(at(Step::Device))?)?;
    Ok(root)
}

/// The devices, where the container may make them and the file system lets them be opened.
fn make_devices(dev: BorrowedFd<'_>) -> Result<(), Fault> {
    for name in DEVICES {
        let failed = |errno| fault(Step::Device, name.as_bytes(), errno);
        let real = rustix::fs::stat(format!("/dev/{name}")).map_err(failed)?;
        let made = rustix::fs::mknodat(dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), real.st_rdev);
        match made {
            Ok(()) => {}
            Err(Errno::PERM) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
        if rustix::fs::openat(dev, name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).is_err() {
            rustix::fs::unlinkat(dev, name, AtFlags::empty()).map_err(failed)?;
        }
    }
    Ok(())
}

fn has_devices(root: BorrowedFd<'_>) -> bool {
    DEVICES.iter().all(|name| rustix::fs::statat(root, format!("dev/{name}"), AtFlags::SYMLINK_NOFOLLOW).is_ok())
}

/// The program's own steps until only what a job may do is left to it.
fn lock_in(policy: &Policy, control: &OwnedFd, root: &OwnedFd, devices: bool, warden: Pid) -> Result<(), Fault> {
    // While it can be named. Best effort: a container may not have the file.
    let _ = std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/oom_score_adj")
        .map(|mut file| file.write_all(linux::OOM_SCORE));
    rustix::process::fchdir(root).map_err(at(Step::Pivot))?;
    rustix::process::chroot(".").map_err(at(Step::Pivot))?;
    // The last two steps that need capabilities.
    if !policy.without.own_user {
        linux::bound_capabilities()?;
    }
    linux::drop_privileges(policy)?;
    // Only now: a change of user clears it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Session))?;
    if rustix::process::getppid() != Some(warden) {
        return Err(fault(Step::Session, b"", Errno::PIPE));
    }
    // After the change of root: the rules hold the files that are at the paths now.
    let landlock = confine::landlock(policy)?;
    // Last: the steps before need calls that it refuses.
    if !policy.without.seccomp {
        confine::Filters::whole()?.install()?;
    }
    let seccomp = !policy.without.seccomp;
    let enforced =
        Enforced { rung: Rung::Container, user_namespace: false, overlay: false, devices, landlock, seccomp };
    // The last descriptor on this machine's files closes with the program's start, as all do.
    let sent = wire::send(control.as_fd(), &Report::Ready(enforced), &[root.as_fd()]);
    sent.map_err(|_| fault(Step::Policy, b"", Errno::PIPE))
}

/// Waits until the program has ended: how. Or until the agent hangs up: nothing. Or the job fills the disk: a fault.
fn watch(
    children: &OwnedFd,
    control: &OwnedFd,
    root: &OwnedFd,
    policy: &Policy,
    before: &StatVfs,
    program: Pid,
) -> Result<Option<(Exit, Cost)>, Fault> {
    let failed = at(Step::Wait);
    loop {
        while let Some((pid, exit, cost)) = linux::wait_any().map_err(&failed)? {
            if pid == program {
                check_disk(root, policy, before)?;
                return Ok(Some((exit, cost)));
            }
        }
        let mut fds = [PollFd::new(children, PollFlags::IN), PollFd::new(control, PollFlags::IN | PollFlags::RDHUP)];
        match poll(&mut fds, Some(&DISK_INTERVAL)) {
            Err(Errno::INTR) => continue,
            other => other.map_err(&failed)?,
        };
        if !fds[1].revents().is_empty() {
            return Ok(None);
        }
        check_disk(root, policy, before)?;
        linux::drain(children).map_err(&failed)?;
    }
}

/// Fails if the file system has lost more since the job's start than the job may use. What others took meanwhile counts
/// against it, so that nothing that a job hides, such as an open file without a name, can count for it.
fn check_disk(root: &OwnedFd, policy: &Policy, before: &StatVfs) -> Result<(), Fault> {
    let now = rustix::fs::fstatvfs(root).map_err(at(Step::Wait))?;
    let bytes = before.f_bfree.saturating_sub(now.f_bfree).saturating_mul(now.f_frsize);
    let nodes = before.f_ffree.saturating_sub(now.f_ffree);
    let is_over = bytes > policy.limits.tree_bytes || nodes > policy.limits.tree_nodes;
    if is_over && !policy.without.limits { Err(fault(Step::Place, b"", Errno::NOSPC)) } else { Ok(()) }
}

/// Makes sure that no other job has this user, for as long as this process lives: by a name that only one can have.
fn claim(id: u32) -> Result<OwnedFd, Fault> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
    let failed = at(Step::Claim);
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(&failed)?;
    let name = SocketAddrUnix::new_abstract_name(format!("mesh-job-{id}").as_bytes()).map_err(&failed)?;
    bind(&socket, &name).map_err(&failed)?;
    Ok(socket)
}

/// Ends every process of a job's user, and waits until none is left.
fn end_all(id: u32) -> Result<(), Fault> {
    let failed = at(Step::Wait);
    let until = Instant::now() + GONE_WAIT;
    let user = rustix::process::Uid::from_raw(id);
    for look in 0_u32.. {
        // What of the job has ended is this process's to wait for.
        while linux::wait_any().unwrap_or(None).is_some() {}
        match rustix::process::getpriority_user(user) {
            Err(Errno::SRCH) => return Ok(()),
            other => other.map_err(&failed)?,
        };
        // One that ended under an earlier warden is a zombie of whoever is the container's first process, who may never
        // wait for it. It runs no more.
        if look > GONE_LOOKS && !is_anybody_alive(id) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(fault(Step::Wait, b"", Errno::TIMEDOUT));
        }
        if linux::fork().map_err(&failed)?.is_none() {
            linux::exit_now(kill_all(id).map_or(linux::FAILED, |()| 0));
        }
        std::thread::sleep(GONE_INTERVAL);
    }
    Ok(())
}

/// Kills all processes of a user, as that user. The killer's real and saved ids are others, which no job has: so the
/// job cannot signal it. No child of one that is killed appears later: the kernel lets none be made under the signal.
fn kill_all(id: u32) -> Result<(), Errno> {
    let (own, job) = (rustix::process::Uid::from_raw(Identity::killer(id)), rustix::process::Uid::from_raw(id));
    rustix::thread::set_thread_res_uid(own, job, own)?;
    linux::kill_everybody()
}

/// Whether a process of a user runs, by this machine's own list.
fn is_anybody_alive(id: u32) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    let is_alive = |status: &str| {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let is_users = field("Uid:").is_some_and(|ids| ids.split_whitespace().any(|word| word.parse() == Ok(id)));
        is_users && !field("State:").is_some_and(|state| state.trim_start().starts_with(['Z', 'X']))
    };
    processes.flatten().any(|entry| {
        let name = entry.file_name();
        let is_process = name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        is_process && std::fs::read_to_string(entry.path().join("status")).is_ok_and(|status| is_alive(&status))
    })
}
