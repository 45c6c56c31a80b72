//! Where mesh knows no sandbox: such a machine submits and does not serve (DO).

use super::{Capable, Finished, NoSandbox, SandboxError, policy::Policy};
use std::{os::fd::BorrowedFd, path::Path};

/// Refuses: there is no sandbox on this system.
///
/// # Errors
/// Always.
pub fn probe(_mesh: &Path, _scratch: &Path) -> Result<Capable, NoSandbox> {
    Err(NoSandbox { why: SandboxError::Unsupported.to_string() })
}

/// Refuses: there is no sandbox on this system, and nothing runs without one.
///
/// # Errors
/// Always.
pub fn run(_mesh: &Path, _policy: &Policy, _cancelled: BorrowedFd<'_>) -> Result<Finished, SandboxError> {
    Err(SandboxError::Unsupported)
}

/// Ends: nobody starts a job on this system.
pub fn child_main() -> ! {
    std::process::exit(70)
}
