//! The agent, not yet (DO).

use crate::{config::Config, places::Places};

/// What the command line says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// `--slots`.
    pub slots: Option<u16>,
    /// `--port`.
    pub port: Option<u16>,
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// Always, in this tree.
pub fn run(_places: &Places, _config: Config, _options: Options) -> anyhow::Result<()> {
    anyhow::bail!("this tree has no agent")
}
