//! Introductions: how a member is let in that the other one has not heard of (AGREE).
//!
//! It has proved its key by TLS and shows the records by which that key is a member. For a machine with a token, that is the admission
//! which it has signed for itself with the token's key. What it shows is worth what the signatures on it are.

use crate::{limits, membership::Record, pairing::Welcome};
use serde::{Deserialize, Serialize};

/// What the newcomer shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The links from what the other one knows to the newcomer, in any order.
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::INTRO_RECORDS_MAX }, _, _>")]
    pub records: Vec<Record>,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is a member here too: all that the mesh's members know.
    Welcome(Welcome),
    /// It is not.
    Refused(Unwelcome),
}

/// Why a newcomer is no member. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Unwelcome {
    /// Its key was put out of the mesh, or the token was; when, seconds since 1970.
    #[error("it was forgotten")]
    Forgotten {
        /// When, seconds since 1970.
        at_s: u64,
    },
    /// The token, or the admission, has ended.
    #[error("the token has ended")]
    Expired,
    /// No owner that is known here has signed it. Another member may know more.
    #[error("the token is not known there, or was forgotten")]
    Unknown,
    /// The mesh holds as many records as it may.
    #[error("the mesh holds as many records as it may")]
    Full,
}
