//! What a compiler command line means (DECIDE).
//!
//! Nothing here reads a file, the environment or the clock: values in, values out.

pub mod invocation;
pub mod plan;

/// Whether a command can be seen, at a glance, not to be one compile; the launcher then asks nobody.
#[must_use]
pub fn surely_local(argv: &[&[u8]]) -> Option<crate::reason::Reason> {
    let compiles = argv.iter().skip(1).any(|a| *a == b"-c" || *a == b"-S" || a.starts_with(b"@"));
    (!compiles).then_some(crate::reason::Reason::NotCompile)
}
