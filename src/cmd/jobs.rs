//! `mesh jobs` and `mesh -j`: how many compilers a build should start at once, and what runs now (DO).

use super::{
    client::{self, Client, foreign},
    failure::{Failure, out, out_raw},
};
use crate::{
    agent::wire::{Ask, SessionNow, Tell},
    cli::Jobs,
    sched::{
        dispatch::Parallelism,
        tokens::{self, Wanted},
    },
    view::{jobs, snapshot::JobRow},
};
use std::io::IsTerminal;

/// A number for a build that asks, a list for a person who looks.
pub(super) fn run(args: &Jobs) -> Result<u8, Failure> {
    let now = now()?;
    let (mesh, local) = (total(&now, Wanted::MESH), total(&now, Wanted::LOCAL));
    if args.json {
        out(&jobs::answer(&running()?, local, mesh).to_string());
    } else if args.local {
        out(&local.to_string());
    } else if args.remote {
        out(&(mesh - local).to_string());
    } else if std::io::stdout().is_terminal() {
        let cwd = super::cc::working_directory();
        let shown = |path: &[u8]| {
            let path = String::from_utf8_lossy(path);
            let below = path.strip_prefix(&*cwd.to_string_lossy()).and_then(|path| path.strip_prefix('/'));
            below.unwrap_or(&path).to_owned()
        };
        out_raw(&jobs::list(&running()?, shown));
    } else {
        out(&mesh.to_string());
    }
    Ok(0)
}

/// `mesh -j`: a build that asks is told a number in any case, that of this machine's cores where there is no agent.
pub(super) fn number() -> u32 {
    let now = now().unwrap_or_else(|_| SessionNow { local: crate::host::cores(), ..SessionNow::default() });
    total(&now, Wanted::MESH)
}

fn total(now: &SessionNow, wanted: Wanted) -> u32 {
    tokens::total(Parallelism { local: now.local, remote: now.remote, remote_free: 0 }, wanted)
}

fn now() -> Result<SessionNow, Failure> {
    match Client::ask(&client::places()?, &Ask::Session { session: 0 }, client::ANSWER_TIME)?.next()? {
        Tell::Session(now) => Ok(now),
        _ => Err(foreign()),
    }
}

fn running() -> Result<Vec<JobRow>, Failure> {
    match Client::ask(&client::places()?, &Ask::Jobs, client::ANSWER_TIME)?.next()? {
        Tell::Jobs(jobs) => Ok(jobs),
        _ => Err(foreign()),
    }
}
