//! What the two forms of the launcher and the agent must see alike (AGREE, on one machine).
//!
//! On Linux `mesh-cc` is a freestanding program without a C library (`src/bin/mesh-cc`); `mesh cc`, and `mesh-cc`
//! elsewhere, is `cmd::cc`. What both need lives here once: values in, values out, `core` only, because these files are
//! compiled into a program that has nothing else. They refer to no module but [`crate::reason`].

pub mod beat;
pub mod names;
pub mod socket;
pub mod wire;
