//! x (DO).
use super::failure::Failure;
use crate::cli::Install;
pub(super) fn install(_: &Install) -> Result<u8, Failure> {
    Err(Failure::new("x"))
}
pub(super) fn uninstall() -> Result<u8, Failure> {
    Err(Failure::new("x"))
}
