//! mesh: one compiler out of the machines on a desk.
//!
//! # Bird's-eye view
//!
//! Every machine runs the same *agent*. `mesh cc gcc -c x.c` is a tiny *launcher* that asks the agent of its machine over a
//! Unix socket. The agent works out what the compile reads, picks a machine that has exactly the same compiler, and sends
//! it the arguments unchanged and the inputs by digest over QUIC. That machine's agent has a root in which the
//! client's absolute paths exist and nothing else does, runs its own copy of the compiler in it (sent to it before, if it
//! had none), and sends back what the compiler made. The launcher renames it into place. Whatever goes wrong on the way, the launcher becomes the compiler.
//! Before that, the agent looks whether it keeps a result of just this action, and asks one member who else does
//! (`agent/seek.rs`): that is placed instead, if the machine that made it has signed it. What stays here for want of others is
//! compiled in this machine's own sandbox (`agent/here.rs`): only then is it known what it has read, so that it can be kept.
//!
//! ```text
//! mesh cc ──Request──▶ agent: Invocation ▶ Plan ▶ Closure ▶ choose(peer)
//!                                                            │ Offer (arguments, inputs by number and digest)
//!                                                            └───── QUIC, one stream a job ─────▶ admit ▶ fetch missing
//!    outputs renamed into place ◀── Done ◀── Outcome ◀── collect ◀── compiler in the sandbox ◀── stage ◀──┘
//! ```
//!
//! # Three kinds of code
//!
//! *Agree*: what two machines must share (crate `mesh-proto`; its `README.md` is the wire). *Decide*: what one machine
//! concludes, values in, values out, no clock, file, lock or `async`. *Do*: what touches the world. The first line of each
//! file says which it is; `tests/tidy.rs` checks that a *decide* file keeps its word and who may know whom:
//!
//! ```text
//! main → cmd → agent → net, worker, toolchain, inputs, store, host, observe
//!                  └─▶ sched, compiler            (pure)
//!         cmd → view → agent's Snapshot type only
//!         worker → sandbox, store        sandbox → nothing of ours, not even mesh-proto
//! ```
//!
//! # Code map
//!
//! | module | kind | what |
//! | --- | --- | --- |
//! | [`cmd`] | do | one file per subcommand, the launcher ([`cmd::cc`]) first; the only place that prints |
//! | [`agent`] | do | the loop that knows everybody: launchers, peers, jobs both ways |
//! | [`compiler`] | decide | what a compiler command line reads and writes, or why it stays here |
//! | [`inputs`] | do | the include graph: what a unit can read, from memory, revalidated for each request |
//! | [`toolchain`] | do | compilers found, fingerprinted by content, closed over their files; in what two of them differ |
//! | [`sched`] | decide | who runs it, who is admitted, what follows a refusal or a long silence; on what terms the owner lends; who knows who has a result |
//! | [`net`] | do | the only code that sees quinn, rustls and mdns-sd: identity, connections, pairing, discovery |
//! | [`worker`] | do | one foreign job: its root, or the tree that is kept for its client; run, collect; compilers kept |
//! | [`sandbox`] | do | runs one program with nothing but what its policy lists; all of the library's `unsafe` |
//! | [`store`] | do | on disk: content by digest, and results by the keys of their actions |
//! | [`view`] | decide | what people see, from one snapshot |
//! | [`host`], [`observe`] | do | cores and clock; logs |
//! | [`launch`] | agree | what both forms of the launcher and the agent see alike, with `core` alone |
//! | [`places`], [`env`], [`reason`], [`config`] | decide | where files lie; variables; why-local codes; settings |
//!
//! The program `mesh-cc` is not made of these modules on Linux: `src/bin/mesh-cc` is the launcher's usual path without any
//! library, because a C library's start costs more than all that the launcher does. It compiles [`launch`], [`env`],
//! [`reason`] and the grammar of [`compiler`] from the same files, and hands the rest over to [`cmd::cc`].
//!
//! # Invariants
//!
//! 1. An output appears only whole, by the launcher's rename.
//! 2. Every blob is checked against its digest before use ([`mesh_proto::exchange`], [`store::blobs`]).
//! 3. A failure of mesh changes no exit code and adds nothing to standard error.
//! 4. No job runs for a non-member: the TLS verifier knows the members, and every connection is checked again after its
//!    handshake.
//! 5. A slot holds one job.
//! 6. Every job ends, by its deadline at the latest.
//! 7. Every buffer, queue and map is bounded by a named constant ([`mesh_proto::limits`]).
//! 8. A job writes nothing outside its own layer and reads nothing but what was declared and the toolchain.
//! 9. No secret, source path or argument is logged at `info` or above.
//!
//! Deliberately absent: a server, a scheduler process, a list of hosts that must agree; a program from the network that is
//! executed anywhere but in the sandbox, and there as anything but a compiler of a known fingerprint; a local preprocessor
//! run; an unauthenticated mode; a way to serve without a sandbox.
#![deny(unsafe_code)]

/// Gives a type the form in which it is stored and sent. The freestanding launcher compiles some of the same files and
/// has neither: there this macro changes nothing.
macro_rules! on_wire {
    ($item:item) => {
        #[derive(serde::Serialize, serde::Deserialize)]
        $item
    };
}

pub mod agent;
pub mod cli;
pub mod cmd;
pub mod compiler;
pub mod config;
pub mod env;
pub mod host;
pub mod inputs;
pub mod launch;
pub mod nearest;
pub mod net;
pub mod observe;
pub mod places;
pub mod reason;
pub mod sandbox;
pub mod sched;
pub mod store;
pub mod toolchain;
pub mod view;
pub mod worker;
