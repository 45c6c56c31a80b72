//! The sandbox and the worker, with real kernels and real compilers.
//!
//! Every test runs as whoever runs the suite; under root, [`ordinary`] runs all of them once more as an ordinary user,
//! for whom the kernel's user namespaces do what root's powers do otherwise. What a machine lacks is skipped, visibly;
//! with `MESH_TEST_NO_SKIP=1` it fails instead.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "all of it is tests, helpers included")]

mod collect;
mod compile;
mod container;
mod cost;
mod escape;
mod hostile;
mod kill;
mod limits;
mod mirror;
mod ordinary;
mod secrets;
mod smuggle;
mod threats;
mod world;
