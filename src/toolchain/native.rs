//! What options such as `-march=native` mean on this machine, in the driver's own words (DO).

use super::{ask::ask, registry::Toolchain};
use crate::reason::Reason;
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

/// The `PATH` of a question for which the driver needs no tools.
pub(super) const PLAIN_PATH: &[u8] = b"/usr/bin:/bin";

/// The text that the driver prints for these arguments, a question of `compiler::native` without its first word: the
/// commands that it would run, with every option of the kind `-march=native` written out for this processor. The caller
/// keeps what it makes of it per toolchain and question, for as long as the process lives: in that time the processor
/// stays the same.
///
/// # Errors
/// [`Reason::NativeArch`] if the driver gives no answer.
pub fn native_trace(toolchain: &Toolchain, args: &[Vec<u8>]) -> Result<Vec<u8>, Reason> {
    let args = args.iter().map(|arg| OsStr::from_bytes(arg));
    match ask(toolchain.program(), args, PLAIN_PATH, &[]) {
        Ok(answer) if answer.success => Ok(answer.stderr),
        Ok(_) => Err(Reason::NativeArch),
        Err(error) => {
            tracing::debug!(%error, "no answer about native flags");
            Err(Reason::NativeArch)
        }
    }
}
