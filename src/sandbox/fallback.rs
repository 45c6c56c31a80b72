//! Where mesh knows no sandbox: such a machine submits and does not serve (DO).
//!
//! So it is on macOS. Its sandbox keeps a program from files, but it cannot show it a client's paths at their places; what
//! is compiled at other places is the same only for some options, and only if every path in diagnostics and dependency
//! lists is put back. Rejected: to serve those some. A Linux container on the same Mac serves everything.

use super::{
    Capable, Finished, NoSandbox, SandboxError,
    policy::{Limits, Mould, Policy, Update},
};
use std::{os::fd::BorrowedFd, path::Path, sync::Arc};

/// A template, of which there is none on this system.
#[derive(Debug)]
pub enum Template {}

/// Where jobs have control groups, which is nowhere on this system.
#[derive(Debug)]
pub enum Groups {}

impl Groups {
    /// Refuses: there are none on this system.
    ///
    /// # Errors
    /// Always.
    pub fn take() -> Result<&'static Self, SandboxError> {
        Err(SandboxError::Unsupported)
    }

    /// A group for one job.
    ///
    /// # Errors
    /// Never: there is none.
    pub fn job(&self, _limits: &Limits) -> std::io::Result<Group> {
        match *self {}
    }
}

/// A job's control group, of which there is none on this system.
#[derive(Debug)]
pub enum Group {}

/// What is left of a job, of which there is none on this system.
#[derive(Debug)]
pub enum Remains {}

impl Remains {
    /// The user that the job was.
    #[must_use]
    pub fn owner(&self) -> u32 {
        match *self {}
    }
}

/// A job that has begun, of which there is none on this system.
#[derive(Debug)]
pub enum Begun {}

impl Template {
    /// Refuses: there is no sandbox on this system.
    ///
    /// # Errors
    /// Always.
    pub fn start(_mesh: &Path, _mould: &Mould) -> Result<Arc<Self>, SandboxError> {
        Err(SandboxError::Unsupported)
    }

    /// Whether its process has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match *self {}
    }

    /// Whether it ended before it should have.
    #[must_use]
    pub fn has_died(&self) -> bool {
        match *self {}
    }

    /// Changes its tree.
    ///
    /// # Errors
    /// Never: there is none.
    pub fn update(&self, _update: &Update) -> Result<(), SandboxError> {
        match *self {}
    }

    /// Begins a job.
    ///
    /// # Errors
    /// Never: there is none.
    pub fn begin(self: &Arc<Self>, _policy: &Policy, _group: Option<Arc<Group>>) -> Result<Begun, SandboxError> {
        match **self {}
    }

    /// Ends it.
    pub fn kill(&self) {
        match *self {}
    }
}

impl Begun {
    /// Waits for the job's end.
    ///
    /// # Errors
    /// Never: there is none.
    pub fn finish(self, _cancelled: BorrowedFd<'_>) -> Result<Finished, SandboxError> {
        match self {}
    }
}

/// Refuses: there is no sandbox on this system.
///
/// # Errors
/// Always.
pub fn probe(_mesh: &Path, _scratch: &Path) -> Result<Capable, NoSandbox> {
    let why = if cfg!(target_os = "macos") {
        "macOS can keep a job from this machine's files, but not show it its client's paths at their places".to_owned()
    } else {
        SandboxError::Unsupported.to_string()
    };
    Err(NoSandbox::before(why))
}

/// Refuses: there is no sandbox on this system, and nothing runs without one.
///
/// # Errors
/// Always.
pub fn run(_mesh: &Path, _policy: &Policy, _cancelled: BorrowedFd<'_>) -> Result<Finished, SandboxError> {
    Err(SandboxError::Unsupported)
}

/// Refuses: there is no sandbox on this system, and nothing runs without one.
///
/// # Errors
/// Always.
pub fn run_in(
    _mesh: &Path,
    _policy: &Policy,
    _group: Option<&Arc<Group>>,
    _cancelled: BorrowedFd<'_>,
) -> Result<Finished, SandboxError> {
    Err(SandboxError::Unsupported)
}

/// Ends: nobody starts a job on this system.
pub fn child_main() -> ! {
    std::process::exit(70)
}
