//! Finds compilers, fingerprints them by content, closes over their files and asks them about themselves (DO).
//!
//! ```text
//! probe     a program as typed  -> the driver's path, or why it is no compiler; what the compiler says of itself
//! closure   the driver          -> the manifest: every path that it needs to run in an empty root
//! registry  both, kept          -> a checked `Toolchain` for each request; what to advertise; what a peer asks for
//! search    a toolchain         -> its own include directories for a language and some arguments
//! differ…   two manifests       -> why two compilers that seem the same are not
//! native    a toolchain         -> what `-march=native` and kin mean on this machine
//! ```
//!
//! Everything here blocks: a cold look-up runs the compiler some twenty times and hashes about a hundred megabytes, so
//! an agent calls it where blocking is allowed. A warm look-up is a `stat` of every part (0.1 to 0.3 ms).

mod ask;
mod closure;
mod differences;
mod disk;
mod elf;
mod native;
mod probe;
mod registry;
mod search;
mod stamp;
mod walk;

pub use ask::{Answer, AskError, compile};
pub(crate) use differences::TARGET_FACT;
pub use differences::{Difference, differences, is_cxx, most_similar};
pub use native::native_trace;
pub use registry::{LookupError, MeshBinary, Refused, Registry, Toolchain};
pub use search::{SearchDirs, Searcher, relevant, system_dirs};
