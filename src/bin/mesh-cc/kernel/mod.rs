//! The entry of the program, its arguments and the system calls it makes, as safe functions (DO).
//!
//! The one place of this program with `unsafe` in it. What cannot be written safely is what a C library is for: the first
//! instructions, the calls' machine code, and the memory functions that the compiler takes for granted.

mod call;
mod memory;
mod start;

pub(crate) use call::*;
pub(crate) use memory::{buffers, remember, remembered};
pub(crate) use start::Start;
