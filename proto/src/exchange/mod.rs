//! One job's exchange between two machines: both ends as state machines (AGREE).
//!
//! ```text
//! requester                provider
//!   Offer        ───────▶
//!                ◀───────   Missing(numbers)        at most twice
//!   blobs        ───────▶
//!                ◀───────   Done(outcome), blobs    or Refused
//! ```
//! A reset stream is cancellation, from either side, at any time. The machines know no socket: they are told what
//! arrived and say what comes next, and they are where everything that the other side sends is checked. What a provider
//! lacks it may have from another one: [`share`]. The compiler itself comes by [`toolchain`].

pub mod provider;
pub mod requester;
pub mod results;
pub mod share;
pub mod toolchain;

/// The other side broke a rule; the stream is reset and the job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A message that cannot come at this point.
    #[error("a message out of turn")]
    OutOfTurn,
    /// A request for content that is not a file of the closure.
    #[error("a request for something outside of the closure")]
    NotInClosure,
    /// A blob that was not asked for.
    #[error("a blob that was not asked for")]
    NotAsked,
    /// An output outside of the directories that the job named, twice, out of order, or too large.
    #[error("an output that the job does not allow")]
    Output,
    /// A blob whose size is not the one announced, or whose bytes do not hash to its name.
    #[error("bytes that are not what they were said to be")]
    Content,
    /// More text than a job may print.
    #[error("too much text")]
    Text,
    /// The job itself passes a limit, or its closure does.
    #[error("a job beyond the limits")]
    Job,
}
