//! Two real agents on loopback, the real launcher, real compilers: what a build sees of mesh, and that it is nothing.
//!
//! - `addresses` who knows where others are, and from whom
//! - `env`       agents in directories of their own, a project between them, and the comparison with the plain compiler
//! - `builds`    tools under `mesh with`: the same objects, jobs that follow the mesh, nothing left behind
//! - `cache`     what was compiled once is not compiled again, and what is another thing is
//! - `checkouts` what one checkout of a project had compiled another has, where not a byte tells of it
//! - `compile`   the same bytes, by the provider's own count made there, for every family of options
//! - `inputs`    headers that appear, vanish and change
//! - `liar`      a provider that answers with what nobody asked for
//! - `launcher`  the ways to call it, and bad input
//! - `forms`     the freestanding launcher and the one in mesh, before an agent that is played
//! - `faults`    agents and peers killed, frozen, absent; disks full
//! - `guest`     what a machine lends: modes, pauses, and jobs that give way to its owner
//! - `here`      what this machine compiles itself is kept too
//! - `proof`     a compiler that is not all that mesh knows of it
//! - `seek`      what one machine had compiled, the others have; and whom they believe
//! - `share`     inputs from one provider to another, with the client's grant
//! - `ship`      compilers to machines that lack them
//! - `toolchain` `mesh toolchain`: compared over the wire, sent on demand, removed
//! - `trust`     who gets in, and whose compiler counts
//! - `turns`     which tests run alone, because they measure how fast something is
//! - `upgrade`   a compiler that changes between two units and during one
//! - `with`      builds by make, ninja and CMake
//!
//! Linux, because only there a machine serves yet. What this machine lacks is skipped visibly, and is a failure under
//! `MESH_TEST_NO_SKIP=1`.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "this is all test, and a test fails by panicking")]

mod addresses;
mod builds;
mod cache;
mod checkouts;
mod choose;
mod compile;
mod desk;
mod env;
mod faults;
mod forget;
mod forms;
mod guest;
mod here;
mod inputs;
mod keeping;
mod launcher;
mod liar;
mod proof;
mod renew;
mod seek;
mod share;
mod ship;
mod token;
mod toolchain;
mod trust;
mod trusted;
mod turns;
mod upgrade;
mod with;
