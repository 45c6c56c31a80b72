//! What of the library's grammar of compiler options the launcher needs: the very same files (DECIDE).
#![allow(dead_code, unreachable_pub, reason = "the library uses the rest")]

#[path = "../../compiler/args.rs"]
mod args;
#[path = "../../compiler/family.rs"]
mod family;
#[path = "../../compiler/probe.rs"]
mod probe;
#[path = "../../compiler/surely.rs"]
mod surely;
#[path = "../../compiler/table.rs"]
mod table;

pub use surely::surely_local;
