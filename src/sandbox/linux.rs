//! The recipe by which a freshly started mesh becomes a job (DO).
//!
//! Three processes. The *warden* is the one that the agent started: it stays outside, in the agent's process
//! namespace, and ends the job when the agent hangs up. *Init* is pid 1 of the job's namespace: it builds the root,
//! locks itself in, and ends when the program has ended, upon which the kernel ends whatever is left. The *program*
//! is the compiler. The order of the steps is the order of the functions below; each says why it cannot come later.
//!
//! All `unsafe` of mesh's Linux side is in this file. Every function here runs in a process with one thread.

use super::policy::{Identity, Policy, Priority, Without};
use super::{Cost, Enforced, Exit, Rung, Step, confine, container, root, template_child, wire};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;
use wire::{Report, Start};

/// Exit status of the warden and of init if they could not do their part; the report has said why.
pub(super) const FAILED: i32 = 70;
/// Highest capability that is asked for; the kernel's own last one comes before.
const CAPABILITY_MAX: u32 = 63;
/// How likely the kernel picks a job when memory runs out: before anything of the owner's.
pub(super) const OOM_SCORE: &[u8] = b"900";

/// How far a job steps back: in full mode, and where the kernel has no class for what may wait.
const NICE: i32 = 5;
const NICE_IDLE: i32 = 15;
/// `ioprio_set(2)`: of one process; the class of what waits for all others.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
const IOPRIO_IDLE: libc::c_int = 3 << 13;

/// A step that failed, on what, and why.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) step: Step,
    pub(super) path: Vec<u8>,
    pub(super) errno: Errno,
}

/// Names a failure.
pub(super) fn fault(step: Step, path: &[u8], errno: Errno) -> Fault {
    Fault { step, path: path.to_vec(), errno }
}

/// Names a failure without a path, as a closure for `map_err`.
pub(super) fn at(step: Step) -> impl Fn(Errno) -> Fault {
    move |errno| fault(step, b"", errno)
}

/// Becomes a job: reads the policy from standard input, and does what it says. The job's output is this process's own.
pub fn child_main() -> ! {
    let code = match take_control() {
        Err(_) => FAILED,
        Ok(control) => match start(&control) {
            Ok(()) => 0,
            Err(fault) => report_fault(&control, fault),
        },
    };
    std::process::exit(code)
}

/// The first steps, and what the agent asks for then: one job, or a template of many.
fn start(control: &OwnedFd) -> Result<(), Fault> {
    // First of all, so that no later step can outlive the agent.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Session))?;
    // Out of the agent's session: no terminal, no signals from its group.
    rustix::process::setsid().map_err(at(Step::Session))?;
    let mut inbox = wire::Inbox::default();
    let start: Start =
        wire::receive(control.as_fd(), &mut inbox).map_err(|_| fault(Step::Policy, b"", Errno::PROTO))?;
    if let Start::Job(_, true) = &start {
        enter_group(inbox.take_fd())?;
    }
    if let Start::Job(policy, _) = &start
        && matches!(policy.identity, Identity::Chroot { .. })
    {
        return container::warden(policy, control);
    }
    // Best effort: a container may not have the file.
    let _ =
        std::fs::OpenOptions::new().write(true).open("/proc/self/oom_score_adj").map(|mut f| f.write_all(OOM_SCORE));
    match start {
        Start::Job(policy, _) => {
            enter_namespaces(policy.identity, processes(policy.without), policy.without)?;
            warden(&policy, control, None)
        }
        Start::Template(mould) => {
            enter_namespaces(mould.identity, UnshareFlags::empty(), mould.without)?;
            template_child::serve(&mould, control, inbox)
        }
    }
}

/// Goes into the job's control group, before there is anything that the group should count.
fn enter_group(door: Option<OwnedFd>) -> Result<(), Fault> {
    let door = door.ok_or_else(|| fault(Step::Group, b"", Errno::PROTO))?;
    rustix::io::write(&door, b"0").map(drop).map_err(at(Step::Group))
}

pub(super) fn report_fault(control: &OwnedFd, fault: Fault) -> i32 {
    let report = Report::Failed { step: fault.step, path: fault.path, errno: fault.errno.raw_os_error() };
    // If the agent is gone there is nobody to tell.
    let _ = wire::send(control.as_fd(), &report, &[]);
    FAILED
}

/// Takes the agent's socket off standard input, where the job must find nothing.
fn take_control() -> Result<OwnedFd, Errno> {
    // Whatever else the agent's process had open when it started this one is not for a job.
    close_from(3);
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(control)
}

/// Becomes the warden of a job of a template, of which this process is a fresh child. The job's output and the agent's
/// end of it come from the template; every other descriptor is closed.
pub(super) fn warden_of_template(
    policy: &Policy,
    filters: &confine::Filters,
    [stdout, stderr, control]: [OwnedFd; 3],
    door: Option<OwnedFd>,
    template: Pid,
) -> ! {
    let begin = || {
        // Init's end must be told to the warden.
        follow_children(true);
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Session))?;
        // It may have ended before the signal was asked for.
        if rustix::process::getppid() != Some(template) {
            return Err(fault(Step::Session, b"", Errno::PIPE));
        }
        rustix::process::setsid().map_err(at(Step::Session))?;
        if door.is_some() {
            enter_group(door)?;
        }
        rustix::stdio::dup2_stdout(&stdout).map_err(at(Step::Session))?;
        rustix::stdio::dup2_stderr(&stderr).map_err(at(Step::Session))?;
        close_all_but(&control);
        // SAFETY: this process has one thread, and no descriptors or file system state that another one relies on.
        unsafe { rustix::thread::unshare_unsafe(processes(policy.without) | UnshareFlags::NEWNS) }
            .map_err(at(Step::Namespaces))?;
        warden(policy, &control, Some(filters))
    };
    let code = begin().map_or_else(|fault| report_fault(&control, fault), |()| 0);
    // Without dropping what the template owns: its descriptors are closed already.
    exit_now(code)
}

/// Gives way to the machine's owner, with all that this process will start. Best effort: a job that is not let is no worse
/// for what it makes.
pub(super) fn give_way(priority: Priority) {
    let nice = |by| {
        let _ = rustix::process::nice(by);
    };
    match priority {
        Priority::Usual => {}
        Priority::Nice => nice(NICE),
        Priority::Idle => {
            let none = libc::sched_param { sched_priority: 0 };
            // SAFETY: the parameters live for the call, which keeps nothing of them; 0 is this process.
            if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) } != 0 {
                nice(NICE_IDLE);
            }
            // SAFETY: three numbers, no memory.
            unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE) };
        }
    }
}

/// The warden: starts init in its namespaces, and watches over both ends.
fn warden(policy: &Policy, control: &OwnedFd, filters: Option<&confine::Filters>) -> Result<(), Fault> {
    give_way(policy.priority);
    let (alive, warden_lives) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(at(Step::Fork))?;
    match fork().map_err(at(Step::Fork))? {
        None => {
            drop(warden_lives);
            let code = match init(policy, control, &alive, filters) {
                Ok(()) => 0,
                Err(fault) => report_fault(control, fault),
            };
            exit_now(code)
        }
        Some(init) => {
            drop(alive);
            watch(control, init).map_err(at(Step::Wait))
        }
    }
}

/// The namespace of processes that every job has alone.
fn processes(without: Without) -> UnshareFlags {
    if without.process_namespace { UnshareFlags::empty() } else { UnshareFlags::NEWPID }
}

/// Leaves this machine's namespaces. A user namespace comes with them where the agent may not make the others alone.
fn enter_namespaces(identity: Identity, more: UnshareFlags, without: Without) -> Result<(), Fault> {
    let mut flags = more | UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP;
    flags.set(UnshareFlags::NEWNET, !without.network_namespace);
    flags.set(UnshareFlags::NEWIPC, !without.ipc_namespace);
    flags.set(UnshareFlags::NEWUTS, !without.uts_namespace);
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if let Identity::Namespace { .. } = identity {
        flags |= UnshareFlags::NEWUSER;
    }
    // SAFETY: this process has one thread, and no descriptors or file system state that another one relies on.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(at(Step::Namespaces))?;
    if let Identity::Namespace { id } = identity {
        let id = if without.own_user { 0 } else { id };
        // An ordinary user may map one id only, its own, and only after giving up the right to change groups.
        let maps = [
            ("/proc/self/setgroups", "deny".to_owned()),
            ("/proc/self/uid_map", format!("{id} {uid} 1")),
            ("/proc/self/gid_map", format!("{id} {gid} 1")),
        ];
        for (path, text) in maps {
            std::fs::write(path, text).map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                fault(Step::UserMap, path.as_bytes(), errno)
            })?;
        }
    }
    if without.uts_namespace {
        return Ok(());
    }
    // The job shall not read this machine's name.
    rustix::system::sethostname(b"mesh").map_err(at(Step::Namespaces))
}

/// Waits until init has ended, and ends it if the agent hangs up. When the warden ends, nothing of the job is left: the
/// kernel lets pid 1 of a namespace end only after everything in it.
fn watch(control: &OwnedFd, init: Pid) -> Result<(), Errno> {
    let pidfd = rustix::process::pidfd_open(init, PidfdFlags::empty())?;
    let mut agent_listens = true;
    loop {
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        if agent_listens {
            fds.push(PollFd::new(control, PollFlags::IN | PollFlags::RDHUP));
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let hung_up = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if !fds[0].revents().is_empty() {
            rustix::process::waitpid(Some(init), WaitOptions::empty())?;
            return Ok(());
        }
        if hung_up {
            agent_listens = false;
            rustix::process::pidfd_send_signal(&pidfd, Signal::KILL)?;
        }
    }
}

/// Init: builds the root, locks itself in, starts the program, and reports how it ended.
fn init(policy: &Policy, control: &OwnedFd, alive: &OwnedFd, filters: Option<&confine::Filters>) -> Result<(), Fault> {
    let kept = root::Kept::open(policy)?;
    // What is placed has the modes that it is given.
    rustix::process::umask(Mode::empty());
    let layers = root::build(policy, &kept)?;
    // Descriptors on this machine's files must be gone before anything untrusted runs.
    drop(kept);
    if filters.is_none() && !policy.without.own_user {
        bound_capabilities()?;
    }
    drop_privileges(policy)?;
    // Only now: a change of user clears it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Session))?;
    warden_is_alive(alive)?;
    // After the change of root: the rules hold the files that are at the paths now.
    let landlock = confine::landlock(policy)?;
    // Last: the steps before need calls that it refuses.
    if !policy.without.seccomp {
        filters.map_or_else(|| confine::Filters::whole()?.install(), confine::Filters::install)?;
    }
    let user_namespace = matches!(policy.identity, Identity::Namespace { .. });
    let enforced = Enforced {
        rung: if user_namespace { Rung::UserNamespace } else { Rung::Namespaces },
        user_namespace,
        overlay: layers.overlay,
        devices: true,
        landlock,
        seccomp: !policy.without.seccomp,
    };
    let setup_cpu_us = own_cpu_us();
    let ready = wire::send(control.as_fd(), &Report::Ready(enforced), &[layers.written.as_fd()]);
    ready.map_err(|_| fault(Step::Policy, b"", Errno::PIPE))?;
    drop(layers);
    // Before the fork, so that no end of a child is missed.
    let children = child_signals().map_err(at(Step::Wait))?;
    let start = Instant::now();
    let Some(program) = fork().map_err(at(Step::Fork))? else {
        let fault = become_program(policy);
        exit_now(report_fault(control, fault))
    };
    let (exit, mut cost) = reap(&children, alive, program).map_err(at(Step::Wait))?;
    cost.run_us = micros(start.elapsed());
    cost.setup_cpu_us = setup_cpu_us;
    let _ = wire::send(control.as_fd(), &Report::Ended { exit, cost }, &[]);
    Ok(())
}

/// Takes every capability out of the bounding set, while it still may: what is not there can be had by no file's bits. A
/// template does it for its jobs.
pub(super) fn bound_capabilities() -> Result<(), Fault> {
    for bit in 0..=CAPABILITY_MAX {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Err(Errno::INVAL) => break,
            other => other.map_err(at(Step::Privileges))?,
        }
    }
    Ok(())
}

/// Gives up groups, user and every capability, now and for ever.
pub(super) fn drop_privileges(policy: &Policy) -> Result<(), Fault> {
    let failed = at(Step::Privileges);
    if !policy.without.own_user {
        drop_user(policy.identity)?;
    }
    if !policy.without.no_new_privs {
        rustix::thread::set_no_new_privs(true).map_err(&failed)?;
    }
    // The program is the same user as init: it must not trace it or look at its files.
    let hidden = match policy.without.hidden_init {
        false => rustix::process::DumpableBehavior::NotDumpable,
        true => rustix::process::DumpableBehavior::Dumpable,
    };
    rustix::process::set_dumpable_behavior(hidden).map_err(&failed)
}

/// Becomes the job's user, without any capability.
fn drop_user(identity: Identity) -> Result<(), Fault> {
    let failed = at(Step::Privileges);
    if let Identity::User { id } | Identity::Chroot { id } = identity {
        let (uid, gid) = (rustix::process::Uid::from_raw(id), rustix::process::Gid::from_raw(id));
        rustix::thread::set_thread_groups(&[]).map_err(&failed)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(&failed)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(&failed)?;
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, none).map_err(&failed)?;
    rustix::thread::clear_ambient_capability_set().map_err(&failed)
}

/// Makes sure that the warden had not ended before the death signal was asked for.
fn warden_is_alive(alive: &OwnedFd) -> Result<(), Fault> {
    let mut fds = [PollFd::new(alive, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&now)) {
        Ok(0) => Ok(()),
        Ok(_) => Err(fault(Step::Session, b"", Errno::PIPE)),
        Err(errno) => Err(fault(Step::Session, b"", errno)),
    }
}

/// Reaps everything until the program has ended, or the warden has.
fn reap(children: &OwnedFd, alive: &OwnedFd, program: Pid) -> Result<(Exit, Cost), Errno> {
    loop {
        while let Some((pid, exit, cost)) = wait_any()? {
            if pid == program {
                return Ok((exit, cost));
            }
        }
        let mut fds = [PollFd::new(children, PollFlags::IN), PollFd::new(alive, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        if !fds[1].revents().is_empty() {
            exit_now(FAILED);
        }
        drain(children)?;
    }
}

/// Takes what has come off the descriptor of [`child_signals`].
pub(super) fn drain(children: &OwnedFd) -> Result<(), Errno> {
    match rustix::io::read(children, &mut [0_u8; 1024]) {
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The last steps, in the process that becomes the compiler. Returns only if one fails.
pub(super) fn become_program(policy: &Policy) -> Fault {
    match prepare_program(policy) {
        Err(fault) => fault,
        Ok((program, argv, env)) => {
            let argv_pointers = pointers(&argv);
            let env_pointers = pointers(&env);
            // SAFETY: both arrays end with a null pointer, and they and the strings that they point to live until here.
            unsafe { libc::execve(program.as_ptr(), argv_pointers.as_ptr(), env_pointers.as_ptr()) };
            fault(Step::Exec, &policy.program, last_errno())
        }
    }
}

type Command = (CString, Vec<CString>, Vec<CString>);

fn prepare_program(policy: &Policy) -> Result<Command, Fault> {
    let text = |bytes: Vec<u8>| CString::new(bytes).map_err(|_| fault(Step::Exec, b"", Errno::INVAL));
    let program = text(policy.program.clone())?;
    let argv: Result<Vec<_>, _> = policy.argv.iter().cloned().map(text).collect();
    let env: Result<Vec<_>, _> =
        policy.env.iter().map(|(name, value)| text([name, value.as_slice()].join(&b'='))).collect();
    let command = (program, argv?, env?);
    rustix::process::chdir(&*policy.cwd).map_err(|errno| fault(Step::Cwd, &policy.cwd, errno))?;
    if !policy.without.limits {
        limit(policy).map_err(at(Step::Limits))?;
    }
    let mask = rustix::fs::RawMode::try_from(policy.umask & 0o777).unwrap_or(0o022);
    rustix::process::umask(Mode::from_raw_mode(mask));
    reset_signals();
    Ok(command)
}

fn limit(policy: &Policy) -> Result<(), Errno> {
    let limits = &policy.limits;
    let mut wanted = vec![
        (Resource::Core, 0),
        (Resource::Cpu, limits.cpu_s),
        (Resource::Data, limits.memory_bytes),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Nofile, limits.open_files),
        (Resource::Memlock, 0),
    ];
    // Before Linux 5.14 a namespace's processes are counted with all others of the agent's user.
    if !matches!(policy.identity, Identity::Namespace { .. }) || counts_by_namespace() {
        wanted.push((Resource::Nproc, limits.processes));
    }
    for (resource, limit) in wanted {
        let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Some(limit.min(most));
        rustix::process::setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    }
    Ok(())
}

/// Whether processes are counted for each user namespace apart: Linux 5.14.
fn counts_by_namespace() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 14)
}

// From here on: what has no safe form.

/// Forks; `None` in the child.
pub(super) fn fork() -> Result<Option<Pid>, Errno> {
    // SAFETY: this process has one thread, so the child may do all that its parent may.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(last_errno()) } else { Ok(Pid::from_raw(pid)) }
}

/// Ends this process without running what its parent has registered for its own end.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

/// Kills every process that this one may signal, but itself. The caller is a user of whose processes none may stay.
pub(super) fn kill_everybody() -> Result<(), Errno> {
    // SAFETY: the call takes no pointer.
    if unsafe { libc::kill(-1, libc::SIGKILL) } == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The version of Landlock that the kernel offers; `None` if it has none, or none is enabled.
pub(super) fn landlock_abi() -> Option<u32> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no structure and makes no descriptor; it yields a number.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    u32::try_from(abi).ok().filter(|abi| *abi > 0)
}

/// Closes every descriptor from this one on.
pub(super) fn close_from(first: u32) {
    // SAFETY: called before this process owns any descriptor above standard error. Before Linux 5.9 the call does not
    // exist; then the close-on-exec flag, which mesh sets everywhere, is what keeps descriptors from the job.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Closes every descriptor above standard error but this one. For a fresh child that never returns to what owns them.
fn close_all_but(kept: &OwnedFd) {
    let kept = kept.as_raw_fd().cast_unsigned();
    // SAFETY: the caller's process ends without touching another descriptor of those that it was forked with.
    unsafe {
        if kept > 3 {
            libc::syscall(libc::SYS_close_range, 3, kept - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, kept + 1, u32::MAX, 0);
    }
}

/// Whether this process waits for its children, or lets the kernel reap them.
pub(super) fn follow_children(waits: bool) {
    let action = if waits { libc::SIG_DFL } else { libc::SIG_IGN };
    // SAFETY: neither is a function of this process.
    unsafe { libc::signal(libc::SIGCHLD, action) };
}

/// Every signal at its default and none blocked: the runtime ignores SIGPIPE, which a program would inherit.
fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is no function of this process. What may not be set (SIGKILL) only fails.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised before it is used, and lives on this stack.
    unsafe {
        let mut none = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// A descriptor that becomes readable when a child ends.
pub(super) fn child_signals() -> Result<OwnedFd, Errno> {
    // SAFETY: the set is initialised before it is used, and lives on this stack; the descriptor is new, so it is owned
    // by nobody else.
    unsafe {
        let mut set = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(last_errno()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Reaps one child that has ended, if there is one: who, how, and what it and those it waited for have cost.
pub(super) fn wait_any() -> Result<Option<(Pid, Exit, Cost)>, Errno> {
    let mut status = 0;
    // SAFETY: a `rusage` of zeroes is a valid one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right type.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
    if pid < 0 {
        return Err(last_errno());
    }
    let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
    let exit = if libc::WIFSIGNALED(status) {
        Exit::Signal(u8::try_from(libc::WTERMSIG(status)).unwrap_or(u8::MAX))
    } else {
        Exit::Code(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
    };
    let cost = Cost {
        user_us: time_us(usage.ru_utime),
        system_us: time_us(usage.ru_stime),
        peak_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
        ..Cost::default()
    };
    Ok(Some((pid, exit, cost)))
}

/// This process's own processor time, microseconds.
pub(super) fn own_cpu_us() -> u64 {
    // SAFETY: a `rusage` of zeroes is a valid one, and the pointer is to a live value.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    time_us(usage.ru_utime) + time_us(usage.ru_stime)
}

fn time_us(time: libc::timeval) -> u64 {
    u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0)
}

pub(super) fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
