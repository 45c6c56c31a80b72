//! Logs (DO).

use tracing_subscriber::EnvFilter;

/// Logs to standard error, which systemd and launchd collect. `filter` is in the syntax of `tracing`'s filters.
pub fn start(filter: Option<&str>) {
    let filter = filter.and_then(|f| EnvFilter::try_new(f).ok()).unwrap_or_else(|| EnvFilter::new("info,mdns_sd=off"));
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    // Only a second call could fail, and then there is a log already.
    let _ = log.with_target(false).try_init();
}
