//! Hundreds of machines that build, in virtual time: the product's dispatcher and intake, everything around them simulated.
//!
//! Every machine has both. A machine compiles its own user's units at full speed, as many as it has cores, and those of
//! others with what is left; a message takes the latency of both ends, inputs and objects their size over the slower
//! link; a client spends some of its time on each unit that it sends. Nothing here decides anything: `world.rs` does what
//! the agent does, `machine.rs` is a machine's processor, `units.rs` has what was recorded of a real build, `ideal.rs` says
//! what could have been, `checkers.rs` what must hold, and `goals.rs` how good it must be.

mod checkers;
mod goals;
mod ideal;
mod machine;
mod units;
mod world;
