//! The template: one process that holds namespaces and a tree of inputs, and forks for each job (DO).
//!
//! What it has set up is what all jobs of one client share: network, objects of System V, this machine's name, the user
//! namespace where there is one, and the tree. What a job must have alone is made after the fork: processes, mounts and
//! the layer that takes what it writes. The template's root is memory that holds nothing but what the recipe of a job
//! needs to name, so that a job's copy of the mount table is short. It has one thread, trusts the agent, and looks at
//! nothing that a job has made.

use super::{
    Step,
    confine::Filters,
    linux::{self, Fault, fault},
    policy::{Mould, Policy, Update},
    root,
    tree::Builder,
    wire::{self, Command, Inbox, Report},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// The tree of inputs, below the template's root.
pub(super) const TREE: &str = "in";
/// Where the bases are bound.
pub(super) const BASES: &str = "bases";
/// Where a job mounts its memory.
pub(super) const STAGE: &str = "/job";
/// Where files are made before they are renamed into the tree.
const FRESH: &str = "fresh";

/// What a template works with once its root stands.
struct Template {
    tree: OwnedFd,
    fresh: OwnedFd,
    sources: OwnedFd,
    filters: Filters,
    /// An update failed: nobody knows what the tree holds, so nothing starts in it any more.
    broken: Option<Fault>,
}

/// Serves until the agent hangs up, or has had no job for long; whatever runs then is ended by the end of this process.
pub(super) fn serve(mould: &Mould, control: &OwnedFd, mut inbox: Inbox) -> Result<(), Fault> {
    let mut template = Template::new(mould)?;
    // Nobody asks how its jobs' wardens ended.
    linux::follow_children(false);
    wire::send(control.as_fd(), &Report::Standing, &[]).map_err(|_| fault(Step::Policy, b"", Errno::PIPE))?;
    let lost = |_| fault(Step::Policy, b"", Errno::PROTO);
    loop {
        while let Some(command) = inbox.take::<Command>().map_err(lost)? {
            match command {
                Command::Update(update) => template.update(&update),
                Command::Job(policy, is_grouped) => {
                    let fds = [inbox.take_fd(), inbox.take_fd(), inbox.take_fd()];
                    let [Some(stdout), Some(stderr), Some(report)] = fds else {
                        return Err(fault(Step::Policy, b"", Errno::PROTO));
                    };
                    let door = if is_grouped { inbox.take_fd() } else { None };
                    template.job(&policy, [stdout, stderr, report], door);
                }
            }
        }
        if is_idle(control, mould.idle_ms) || !inbox.fill(control.as_fd()).map_err(lost)? {
            return Ok(());
        }
    }
}

/// Waits for a command, or for so long without one that the template is idle: a job that runs keeps it.
fn is_idle(control: &OwnedFd, idle_ms: u64) -> bool {
    let patience = Timespec::try_from(Duration::from_millis(idle_ms)).ok();
    loop {
        match poll(&mut [PollFd::new(control, PollFlags::IN)], patience.as_ref()) {
            Ok(0) => {
                // The kernel reaps its children: only one that has not ended can be waited for.
                if matches!(rustix::process::wait(WaitOptions::NOHANG), Err(Errno::CHILD)) {
                    return true;
                }
            }
            Err(Errno::INTR) => {}
            // What is wrong the read will say.
            Ok(_) | Err(_) => return false,
        }
    }
}

impl Template {
    fn new(mould: &Mould) -> Result<Self, Fault> {
        root::make_private()?;
        let devices = root::devices()?;
        let sources = root::open_kept(&mould.sources, OFlags::DIRECTORY)?;
        let bases = root::open_kept(&mould.bases, OFlags::DIRECTORY)?;
        rustix::process::umask(Mode::empty());
        let stage = root::stage()?;
        let without = mould.without;
        let mut names = vec![TREE, FRESH, BASES, &STAGE[1..], "dev", "proc"];
        names.extend(without.own_root.then_some(root::MACHINE));
        root::memory(stage, (mould.tree_bytes, mould.tree_nodes), &names)?;
        let bind = |from: &OwnedFd, to: &str, step| {
            root::bind_fd(from.as_fd(), to).map_err(|errno| fault(step, to.as_bytes(), errno))
        };
        bind(&bases, BASES, Step::Keep)?;
        for (name, device) in &devices {
            let at = format!("dev/{name}");
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let made = rustix::fs::open(&at, flags, Mode::from_raw_mode(0o666));
            made.map_err(|errno| fault(Step::Device, name.as_bytes(), errno))?;
            bind(device, &at, Step::Device)?;
        }
        // The kernel lets a user namespace mount a job's own only beside one that hides nothing.
        let proc = rustix::mount::mount_bind_recursive("/proc", "proc");
        proc.map_err(|errno| fault(Step::Proc, b"", errno))?;
        root::pivot_to(stage, without)?;
        let open = |path| root::open_directory(path).map_err(|errno| fault(Step::Memory, b"", errno));
        let (tree, fresh) = (open(TREE)?, open(FRESH)?);
        root::mount_points(&mut Builder::new(tree.as_fd(), sources.as_fd(), None), without)?;
        if !without.own_user {
            linux::bound_capabilities()?;
        }
        let [own, filters] = Filters::split()?;
        if !without.seccomp {
            own.install()?;
        }
        Ok(Self { tree, fresh, sources, filters, broken: None })
    }

    /// Changes the tree.
    fn update(&mut self, update: &Update) {
        if self.broken.is_some() {
            return;
        }
        let mut builder = Builder::replacing(self.tree.as_fd(), self.sources.as_fd(), self.fresh.as_fd());
        let removed = update.remove.iter().try_for_each(|path| builder.remove(path));
        self.broken = removed.and_then(|()| update.place.iter().try_for_each(|place| builder.place(place))).err();
    }

    /// Starts a job, or says on its socket why not.
    fn job(&self, policy: &Policy, fds: [OwnedFd; 3], door: Option<OwnedFd>) {
        if let Some(broken) = &self.broken {
            linux::report_fault(&fds[2], fault(broken.step, &broken.path, broken.errno));
            return;
        }
        let own = rustix::process::getpid();
        match linux::fork() {
            Ok(None) => linux::warden_of_template(policy, &self.filters, fds, door, own),
            Ok(Some(_)) => {}
            Err(errno) => {
                linux::report_fault(&fds[2], fault(Step::Fork, b"", errno));
            }
        }
    }
}
