//! What to do when a peer refuses a job or is lost (DECIDE).

use crate::reason::Reason;
use mesh_proto::job::{Exit, Outcome, Refusal};

/// Peers that one unit is offered to before it is compiled here.
pub const ATTEMPTS_MAX: u32 = 3;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The peer said no.
    Refused(Refusal),
    /// The connection, or the peer, went away or broke a rule.
    Lost,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Choose again, without the peers that failed.
    Elsewhere,
    /// Compile here.
    Here(Reason),
}

/// Whether a compiler ended because the processor there does not have one of its instructions. A driver says of a program
/// of its own that a signal ended it: gcc with its status for internal errors (4), clang with 254
/// or, of itself, with a shell's 132.
#[must_use]
pub fn is_illegal_instruction(outcome: &Outcome) -> bool {
    /// As `strsignal` has it in the C locale.
    const WORDS: &[u8] = b"Illegal instruction";
    const GCC_INTERNAL: u8 = 4;
    const CLANG_SIGNAL: [u8; 2] = [132, 254];
    const SIGILL: u8 = 4;
    let says = || outcome.text.iter().any(|text| text.bytes.windows(WORDS.len()).any(|words| words == WORDS));
    match outcome.exit {
        Exit::Signal(signal) => signal == SIGILL,
        Exit::Code(code) => (code == GCC_INTERNAL || CLANG_SIGNAL.contains(&code)) && says(),
    }
}

/// Decides after attempt number `attempt` (from 1) failed. What another machine would answer too ends it at once.
#[must_use]
pub fn next(failure: Failure, attempt: u32) -> Next {
    let is_last = attempt >= ATTEMPTS_MAX || matches!(failure, Failure::Refused(Refusal::Malformed | Refusal::Limit));
    if is_last { Next::Here(reason(failure)) } else { Next::Elsewhere }
}

/// Why a unit is compiled here whose last attempt failed so.
#[must_use]
pub fn reason(failure: Failure) -> Reason {
    match failure {
        Failure::Lost => Reason::PeerLost,
        Failure::Refused(Refusal::Busy) => Reason::PeersBusy,
        Failure::Refused(Refusal::Paused | Refusal::Leaving) => Reason::PeersPaused,
        Failure::Refused(Refusal::Limit) => Reason::Deadline,
        Failure::Refused(Refusal::Role) => Reason::Role,
        Failure::Refused(Refusal::Toolchain) => Reason::NoMatch,
        Failure::Refused(Refusal::Memory) => Reason::RemoteOom,
        Failure::Refused(
            Refusal::Malformed | Refusal::Missing | Refusal::Sandbox | Refusal::Collect | Refusal::Disk,
        ) => Reason::RemoteError,
    }
}

/// Whether a machine that refuses so is to be left alone for a while: it took the job and could not run it.
#[must_use]
pub fn is_fault(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::Missing | Refusal::Sandbox | Refusal::Collect | Refusal::Disk | Refusal::Toolchain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_peer_is_tried_and_then_this_machine() {
        let refused = [Refusal::Busy, Refusal::Sandbox, Refusal::Memory].map(Failure::Refused);
        for failure in refused.into_iter().chain([Failure::Lost]) {
            assert_eq!(next(failure, 1), Next::Elsewhere);
            assert!(matches!(next(failure, ATTEMPTS_MAX), Next::Here(_)));
        }
        assert_eq!(next(Failure::Refused(Refusal::Limit), 1), Next::Here(Reason::Deadline));
    }
}
