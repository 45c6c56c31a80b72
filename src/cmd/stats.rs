//! `mesh stats`: what was compiled where, what was kept and what that saved (DO).
//!
//! What earlier agents counted is in a file, which can be read while none runs.

use super::{
    client::{ANSWER_TIME, Client, do_it, foreign, places},
    failure::{Failure, NO_AGENT, out, out_raw},
};
use crate::{
    agent::{
        history::History,
        wire::{Ask, Tell},
    },
    cli::{Stats, StatsBy},
    host,
    places::Places,
    view::{
        history::{self, MINUTE_MS, Since, Sums},
        snapshot::Files,
        stats,
    },
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

pub(super) fn run(args: &Stats) -> Result<u8, Failure> {
    let places = places()?;
    let asked = do_it(&places, &Ask::Count { zero: args.zero }, ANSWER_TIME, |_| {});
    if args.zero {
        return zero(&places, asked.err());
    }
    let minutes = History::new(&places.state).read();
    let now_ms = host::wall_ms();
    let first = args.since.unwrap_or(Since::All).first(&minutes, now_ms, now_ms.saturating_sub(host::since_boot_ms()));
    let sums = history::total(&minutes, first);
    let counted = stats::Stats { sums, since_ms: first * MINUTE_MS, now_ms, agent: asked.is_ok() };
    let files = match args.by {
        Some(StatsBy::File) if asked.is_ok() => Some(files(&places, counted.since_ms)?),
        _ => None,
    };
    if args.json {
        out(&stats::json(&counted, files.as_ref()).to_string());
    } else {
        out_raw(&match (args.by, &files) {
            (None, _) => stats::summary(&counted),
            (Some(StatsBy::Peer), _) => stats::by_peer(&counted),
            (Some(StatsBy::Reason), _) => stats::by_reason(&counted),
            (Some(StatsBy::File), Some(files)) => {
                stats::by_file(&counted, files, short(&super::cc::working_directory()))
            }
            // Sources are remembered by an agent alone.
            (Some(StatsBy::File), None) => String::new(),
        });
    }
    // What the file holds is told all the same, but it may not be all.
    asked.map(|_| 0)
}

/// Forgets everything, in the agent or in its place.
fn zero(places: &Places, failure: Option<Failure>) -> Result<u8, Failure> {
    match failure {
        Some(failure) if failure.code == NO_AGENT => {
            let removed = History::new(&places.state).zero(Sums::new());
            removed.map_err(|e| Failure::new(format!("what was counted could not be removed: {e}")))?;
        }
        Some(failure) => return Err(failure),
        None => {}
    }
    out("mesh: all counts begin at zero");
    Ok(0)
}

fn files(places: &Places, since_ms: u64) -> Result<Files, Failure> {
    match Client::ask(places, &Ask::Files { since_ms }, ANSWER_TIME)?.next()? {
        Tell::Files(files) => Ok(files),
        _ => Err(foreign()),
    }
}

/// Below the working directory a path is shown as it is from there.
fn short(cwd: &Path) -> impl Fn(&[u8]) -> String {
    move |path| {
        let path = Path::new(OsStr::from_bytes(path));
        path.strip_prefix(cwd).unwrap_or(path).to_string_lossy().into_owned()
    }
}
