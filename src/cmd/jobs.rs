//! `mesh jobs` and `mesh -j`: how many compilers a build should start at once (DO).

use super::{
    client::{self, Client, foreign},
    failure::{Failure, out},
};
use crate::{
    agent::wire::{Ask, SessionNow, Tell},
    cli::Jobs,
    sched::{
        dispatch::Parallelism,
        tokens::{self, Wanted},
    },
    view::rows::SCHEMA,
};

pub(super) fn run(args: &Jobs) -> Result<u8, Failure> {
    let now = now()?;
    let total = |wanted| tokens::total(Parallelism { local: now.local, remote: now.remote, remote_free: 0 }, wanted);
    let (mesh, local) = (total(Wanted::Mesh), total(Wanted::Local));
    if args.json {
        let json = serde_json::json!({ "schema": SCHEMA, "jobs": mesh, "local": local, "remote": mesh - local });
        out(&json.to_string());
    } else {
        let number = if args.local {
            local
        } else if args.remote {
            mesh - local
        } else {
            mesh
        };
        out(&number.to_string());
    }
    Ok(0)
}

/// `mesh -j`: a build that asks is told a number in any case, that of this machine's cores where there is no agent.
pub(super) fn number() -> u32 {
    let now = now().unwrap_or_else(|_| SessionNow { local: crate::host::cores(), ..SessionNow::default() });
    tokens::total(Parallelism { local: now.local, remote: now.remote, remote_free: 0 }, Wanted::Mesh)
}

fn now() -> Result<SessionNow, Failure> {
    match Client::ask(&client::places()?, &Ask::Session { session: 0 }, client::ANSWER_TIME)?.next()? {
        Tell::Session(now) => Ok(now),
        _ => Err(foreign()),
    }
}
