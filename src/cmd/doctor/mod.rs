//! `mesh doctor`: what this machine can do, and what to do about what it cannot (DO).
//!
//! It tries the sandbox itself, as the agent does when it starts, and asks the kernel only for the reason.

mod advice;
mod caches;

use super::{
    client::{places, snapshot},
    failure::{Failure, UNWELL, out, out_raw},
};
use crate::{
    cli::Json,
    host::kernel::{self, Kernel},
    sandbox,
    view::rows::{SCHEMA, sanitised},
};
use advice::{Check, Facts, Level, Running};
use std::path::Path;

pub(super) fn run(args: &Json) -> Result<u8, Failure> {
    let mut checks = advice::checks(&facts()?);
    checks.extend(caches::launcher(|name| std::env::var(name).ok()));
    let failures = checks.iter().filter(|check| check.level == Level::Failure).count();
    if args.json {
        out(&json(&checks).to_string());
    } else {
        out_raw(&text(&checks));
    }
    Ok(if failures == 0 { 0 } else { UNWELL })
}

fn facts() -> Result<Facts, Failure> {
    let places = places()?;
    let agent = snapshot(&places).map_err(|failure| failure.text).map(|now| Running {
        version: now.version.clone(),
        since: crate::view::time::span(now.uptime_ms),
        not_serving: now.not_serving.clone(),
        groups: kernel::job_groups(now.pid),
    });
    let program =
        std::env::current_exe().map_err(|error| Failure::new(format!("this program has no name: {error}")))?;
    // The running file, even if another has been installed in its place.
    let own = Path::new("/proc/self/exe");
    let sandbox = sandbox::probe(if own.exists() { own } else { &program }, &scratch(&places.cache));
    Ok(Facts {
        agent,
        kernel: Kernel::look(),
        sandbox: sandbox.map(|capable| capable.enforced),
        cache: (places.cache.display().to_string(), kernel::room(&places.cache)),
        program: program.display().to_string(),
        has_sandbox: cfg!(target_os = "linux"),
    })
}

/// Where jobs would be tried: beside the toolchains, so that their file system is tried too.
fn scratch(cache: &Path) -> std::path::PathBuf {
    cache.join(crate::store::layout::TOOLCHAINS)
}

fn text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
    let indent = " ".repeat(6 + width + 2);
    let line = |check: &Check| {
        let found = format!("{:<4}  {:<width$}  {}\n", check.level.word(), check.id, sanitised(&check.text));
        if check.hint.is_empty() { found } else { format!("{found}{indent}{}\n", sanitised(&check.hint)) }
    };
    checks.iter().map(line).collect()
}

fn json(checks: &[Check]) -> serde_json::Value {
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            serde_json::json!({
                "id": check.id,
                "level": check.level.word().to_lowercase(),
                "text": check.text,
                "hint": check.hint,
            })
        })
        .collect();
    serde_json::json!({ "schema": SCHEMA, "checks": checks })
}
