//! What ends a command that could not do what it was asked (DO).

use std::io::Write;

/// It could not be done.
pub(super) const FAILED: u8 = 1;
/// The words are not a command.
pub(super) const USAGE: u8 = 2;
/// The agent is not running.
pub(super) const NO_AGENT: u8 = 3;
/// This machine is in no mesh.
pub(super) const NO_MESH: u8 = 4;
/// The doctor found a failure.
pub(super) const UNWELL: u8 = 5;
/// Nothing answered in time.
pub(super) const TIMEOUT: u8 = 6;
/// Interrupted by the person.
pub(super) const INTERRUPTED: u8 = 130;

/// Why, in one sentence or a few: what, why, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The exit code.
    pub(super) code: u8,
    /// The sentences, without `mesh: `.
    pub(super) text: String,
}

impl Failure {
    /// A failure of no special kind.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self::coded(FAILED, text)
    }

    /// A failure with an exit code of its own.
    pub(super) fn coded(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// A line on standard output; that nobody reads it is no failure.
pub(super) fn out(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Text on standard output as it is.
pub(super) fn out_raw(text: &str) {
    let mut out = std::io::stdout();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// A line of mesh's own on standard error.
pub(super) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "mesh: {line}");
}

/// A line of an agent's, which may quote other machines, fit for a terminal and without a `mesh: ` of its own.
pub(super) fn told(line: &str) -> String {
    let line = crate::view::rows::sanitised(line.trim_end());
    line.strip_prefix("mesh: ").map_or(line.clone(), str::to_owned)
}
