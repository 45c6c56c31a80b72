//! What a compiler command line means (DECIDE).
//!
//! Nothing here reads a file, the environment or the clock: values in, values out.
//!
//! ```text
//! response     argv with @files      -> argv
//! plan         Invocation            -> Plan, or the Reason why the unit stays here
//!   walk       one pass over the arguments, by the rows of `table`, looked up by `args`
//!   passes     -Wp, -Wa, -Xclang: arguments that another program parses
//!   language, environment, probe
//! reproducible argv             -> whether it gives the same bytes twice
//! portable     Plan, argv, object  -> whether it is the same in another checkout
//!   dependencies                 a dependency list, for that one
//! surely       argv                  -> a Reason, where the launcher needs no agent to know it
//! native       -march=native         -> what it means on this machine
//! ```

mod args;
pub mod dependencies;
mod environment;
mod family;
pub mod invocation;
mod language;
pub mod native;
mod passes;
pub mod plan;
#[cfg(test)]
mod plan_tests;
pub mod portable;
mod probe;
mod reproducible;
pub mod response;
mod surely;
mod table;
mod walk;

pub use plan::plan;
pub use reproducible::is_reproducible;
pub use surely::surely_local;
