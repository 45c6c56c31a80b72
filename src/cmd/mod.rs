//! One file per subcommand; the only place that prints (DO).

pub mod cc;
mod find;
mod start;

/// Runs a command of mesh's own and gives its exit code.
#[must_use]
pub fn main() -> u8 {
    2
}
