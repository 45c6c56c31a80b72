//! The agent's side of a template: starts it, tells it what its tree holds, and begins jobs in it (DO).

use super::{
    Finished, Group, SandboxError,
    parent::{self, Begun},
    policy::{Mould, Policy, Update},
    wire::{self, Command, Inbox, Report, Start},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// How long a template may take to stand.
const START_WAIT: Duration = Duration::from_secs(10);
/// How long it may leave a command unread: it is at most busy with placing files.
const SEND_WAIT: Duration = Duration::from_secs(20);

/// A process that holds a tree of inputs for many jobs, and forks for each. It ends, with all its jobs, when this value
/// is dropped or this process ends; a job that has begun keeps it.
#[derive(Debug)]
pub struct Template {
    socket: OwnedFd,
    process: OwnedFd,
    end: Arc<AtomicU8>,
}

/// It has not ended.
const LIVES: u8 = 0;
/// It had nothing to do any more.
const RETIRED: u8 = 1;
/// It ended before it should have.
const DIED: u8 = 2;

impl Template {
    /// Starts one; `mesh` is the program to re-execute. Waits until it stands.
    ///
    /// # Errors
    /// The step of its recipe that failed.
    pub fn start(mesh: &Path, mould: &Mould) -> Result<Arc<Self>, SandboxError> {
        let (socket, theirs) = parent::channel()?;
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, Some(SEND_WAIT))
            .map_err(|errno| SandboxError::Channel(errno.into()))?;
        let mut command = parent::command(mesh, theirs);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let end = Arc::new(AtomicU8::new(LIVES));
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let ended = Arc::clone(&end);
        // A thread of its own for as long as it lives: a process that asked for a signal at its parent's death gets it
        // at the death of the thread that started it. And somebody has to wait for it.
        let keeper = std::thread::Builder::new().name("template".to_owned()).spawn(move || {
            let spawned = command.spawn();
            drop(command);
            let child = match spawned.and_then(|child| Ok((process_of(&child)?, child))) {
                Ok((process, child)) => {
                    let _ = tell.send(Ok(process));
                    Some(child)
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                    None
                }
            };
            // Fails only if it has been waited for.
            let status = child.and_then(|mut child| child.wait().ok());
            let how = if status.is_some_and(|status| status.success()) { RETIRED } else { DIED };
            ended.store(how, Ordering::Release);
        });
        keeper.map_err(SandboxError::Spawn)?;
        let process = told.recv().map_err(|_| SandboxError::Lost)?.map_err(SandboxError::Spawn)?;
        let template = Arc::new(Self { socket, process, end });
        template.send(&Start::<&Policy>::Template(mould.clone()), &[])?;
        template.stands()?;
        Ok(template)
    }

    /// Waits for its first report.
    fn stands(&self) -> Result<(), SandboxError> {
        let until = Instant::now() + START_WAIT;
        let mut inbox = Inbox::default();
        loop {
            match inbox.take().map_err(SandboxError::Channel)? {
                Some(Report::Standing) => return Ok(()),
                Some(Report::Failed { step, path, errno }) => {
                    return Err(SandboxError::Setup { step, path, error: io::Error::from_raw_os_error(errno) });
                }
                Some(_) => return Err(SandboxError::Lost),
                None => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(1..) if inbox.fill(self.socket.as_fd()).map_err(SandboxError::Channel)? => {}
                _ => return Err(SandboxError::Lost),
            }
        }
    }

    /// Whether its process has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.end.load(Ordering::Acquire) != LIVES
    }

    /// Whether it ended before it should have.
    #[must_use]
    pub fn has_died(&self) -> bool {
        self.end.load(Ordering::Acquire) == DIED
    }

    /// Changes its tree. What is begun afterwards sees the change, or fails if the change fails.
    ///
    /// # Errors
    /// If it cannot be told.
    pub fn update(&self, update: &Update) -> Result<(), SandboxError> {
        self.send(&Command::<&Update, &Policy>::Update(update), &[])
    }

    /// Begins a job whose inputs are the template's tree, in a control group of its own if there is one for it.
    ///
    /// # Errors
    /// If it cannot be told.
    pub fn begin(self: &Arc<Self>, policy: &Policy, group: Option<Arc<Group>>) -> Result<Begun, SandboxError> {
        parent::begin(self, policy, group)
    }

    /// Runs a job to its end, as [`super::run`] does.
    ///
    /// # Errors
    /// Whatever kept the job from ending by itself.
    pub fn run(self: &Arc<Self>, policy: &Policy, cancelled: BorrowedFd<'_>) -> Result<Finished, SandboxError> {
        self.begin(policy, None)?.finish(cancelled)
    }

    /// Standard output, standard error, the socket to report on, and what leads into the job's control group, if it has
    /// one.
    pub(super) fn send_job(&self, policy: &Policy, fds: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
        self.send(&Command::<&Update, &Policy>::Job(policy, fds.len() > 3), fds)
    }

    fn send(&self, value: &impl serde::Serialize, fds: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
        wire::send(self.socket.as_fd(), value, fds).map_err(|error| {
            // Half a command may have gone.
            self.kill();
            SandboxError::Channel(error)
        })
    }

    /// Ends it, and with it all its jobs.
    pub fn kill(&self) {
        // Fails only if it has ended.
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A descriptor of a child that has not been waited for.
fn process_of(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}
