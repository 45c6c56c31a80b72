//! What is said on each kind of stream of a `mesh/1` connection (AGREE).
//!
//! Enum variants are only appended. Three kinds of streams: the *control* stream, bidirectional, opened by the side that
//! dialled, first the hello and the records and then [`Control`] both ways; the *names* stream, one each way at most,
//! [`NameBatch`] after [`NameBatch`]; and one bidirectional stream a *job*, [`Offer`] one way and [`Answer`] the other, a
//! *fetch* between two providers ([`crate::exchange::share`]), or a *toolchain* ([`crate::exchange::toolchain`]).

use crate::{
    exchange::{
        results::Seek,
        share::{Fetch, Grant, Source},
        toolchain::{Arrival, Get, Wanted},
    },
    job::{Job, Outcome, Refusal},
    key::ActionKey,
    limits,
    membership::Record,
    naming::NumberSet,
    toolchain::Fingerprint,
};
use serde::{Deserialize, Serialize};

/// The first frame on every bidirectional stream but the control stream: what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamHead {
    /// A job.
    Job(Box<Offer>),
    /// Blobs that a client has granted. Back come sets of indexes into the list, each followed by these blobs in ascending
    /// order; the stream ends when the giver has no more.
    Fetch(Box<Fetch>),
    /// A compiler. Back comes [`crate::exchange::toolchain::Given`]; then sets of numbers of files one way, each followed by
    /// these files the other way, until the asker ends the stream.
    Toolchain(Get),
    /// A result that somebody may have. Back comes [`crate::exchange::results::Whereabouts`], or
    /// [`crate::exchange::results::Gift`] and its blobs.
    Seek(Seek),
}

/// A job, offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What to run.
    pub job: Job,
    /// After how many batches of names this was made: the provider's names must have come this far.
    pub batches: u32,
    /// The closure, by numbers.
    pub closure: NumberSet,
    /// Which files of the closure can be had from other providers. Nothing depends on it.
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::SOURCES_MAX }, _, _>")]
    pub sources: Vec<Source>,
    /// The memory that the requester expects the job to need at most, KiB; 0 if it has no idea.
    pub memory_kib: u64,
    /// The result will be kept: after the last blob comes the provider's [`crate::exchange::results::Receipt`], if the
    /// compiler ended with status 0.
    pub signed: bool,
}

/// A [`StreamHead::Job`] that is only written: what it says is borrowed, because a job may be offered more than once.
#[derive(Debug, Serialize)]
#[serde(rename = "StreamHead")]
pub enum OfferedJob<'a> {
    /// An [`Offer`], with the same fields.
    Job(OfferedParts<'a>),
}

/// The parts of an [`Offer`], in its order.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct OfferedParts<'a> {
    /// What to run.
    pub job: &'a Job,
    /// After how many batches of names this was made.
    pub batches: u32,
    /// The closure, by numbers.
    pub closure: &'a NumberSet,
    /// Which files of the closure can be had from other providers.
    pub sources: &'a [Source],
    /// The memory that the job is expected to need at most, KiB.
    pub memory_kib: u64,
    /// The result will be kept.
    pub signed: bool,
}

/// What the provider says to an offer: [`Answer::Missing`] [`limits::MISSING_ROUNDS_MAX`] times at most, then one of the
/// others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It takes the job and lacks the content of the files with these numbers, of which it has not said so before. The
    /// requester sends a blob for each, in ascending order of the numbers.
    Missing(NumberSet),
    /// It does not run, or did not finish, the job. The stream ends.
    Refused(Refusal),
    /// The compiler ended. A blob follows for each output, in order; then the stream ends.
    Done(Box<Outcome>),
}

/// What flows on the control stream after the hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// How busy the sender is; sent on change.
    Load(Load),
    /// The compilers that the sender runs for others, all of them; sent on change.
    Toolchains(Vec<Fingerprint>),
    /// Records that the receiver may not have.
    Records(Vec<Record>),
    /// The sender shuts down and takes no new jobs.
    Leaving,
    /// A peer may fetch from the receiver what the sender has named to it.
    Grant(Grant),
    /// The sender has work for a compiler that the receiver does not have.
    Wanted(Wanted),
    /// What becomes of a compiler that the receiver wants the sender to have.
    Arrival(Arrival),
    /// Results that the sender has and whose keys point at the receiver.
    Held(#[serde(deserialize_with = "crate::bounded::list::<{ limits::HELD_BATCH_MAX }, _, _>")] Vec<ActionKey>),
}

/// How busy a machine is, as it tells one other: what that one has put upon it, that one knows better. Sent when it has
/// changed, four times a second at most but for what must be known at once; nothing while nothing happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Compilers that it runs for others at once, as its owner, its foreign load and its memory leave it now; 0 if it does
    /// not serve.
    pub slots: u16,
    /// Offers that it takes from the machine that is told, all together: that one's fair share of its slots and of what
    /// waits beside them with its inputs there.
    pub credits: u16,
    /// Offers that it has accepted and whose compiler has not ended, of all but the machine that is told.
    pub accepted: u16,
    /// Compilers that its own user runs now.
    pub own: u16,
    /// Units of its own user that wait for, or are with, other machines: by this the told one shares its slots out.
    pub wants: u16,
    /// Memory that further jobs may reserve there, MiB.
    pub memory_mib: u32,
    /// Why it does not serve, if `slots` is 0.
    pub closed: Option<Closed>,
}

/// Why a machine does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Closed {
    /// No sandbox.
    NoSandbox,
    /// Its owner paused it.
    Paused,
    /// Its role is to submit only.
    Role,
    /// It is shutting down.
    Leaving,
    /// Its owner lends nothing: mode `off`.
    Off,
    /// Somebody uses it.
    InUse,
    /// It runs on its battery.
    Battery,
    /// It is too hot.
    Hot,
    /// Its network is paid by the byte.
    Metered,
    /// It is short of memory.
    Memory,
    /// Its own user's builds, or other programs, need all of its cores.
    Busy,
    /// Its disk is full.
    Disk,
}
