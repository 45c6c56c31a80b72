//! What two machines of a mesh must agree on (AGREE).
//!
//! Everything here is pure: types, their bytes, limits, the cache key, and both ends of each exchange as state
//! machines. There is no socket, file, clock, thread or source of randomness in this crate and there never will be:
//! callers hand in bytes, the time and random numbers. A change in this crate is a change that peers must care about.
//! `proto/README.md` shows the wire in tables.
#![forbid(unsafe_code)]

pub mod advert;
mod bounded;
pub mod closure;
pub mod digest;
pub mod exchange;
pub mod frame;
pub mod hello;
pub mod intro;
pub mod job;
pub mod key;
pub mod limits;
pub mod membership;
pub mod message;
pub mod naming;
pub mod pairing;
pub mod path;
pub mod peer;
pub mod token;
pub mod toolchain;
pub mod version;
