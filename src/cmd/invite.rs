//! `mesh invite`: a token with which machines join without anybody at them (DO).

use super::{
    client::{ANSWER_TIME, Client, foreign, places},
    failure::{Failure, USAGE, complain, out},
    pause,
};
use crate::{
    agent::wire::{Ask, Tell},
    cli::{Invite, TokenRole},
    view::{rows::sanitised, time},
};

/// How long a token lives if nothing is said, seconds: who submits only can do least harm.
const CLIENT_S: u64 = 7 * 24 * 3600;
const OTHERS_S: u64 = 24 * 3600;
/// And at most.
const LIFE_S_MAX: u64 = 90 * 24 * 3600;

pub(super) fn run(args: &Invite) -> Result<u8, Failure> {
    let life_s = match args.expires.as_deref() {
        None if args.role == TokenRole::Client => CLIENT_S,
        None => OTHERS_S,
        Some(text) => pause::seconds(text).filter(|s| (60..=LIFE_S_MAX).contains(s)).ok_or_else(|| {
            let shown = sanitised(text);
            Failure::coded(
                USAGE,
                format!("\"{shown}\" is no time from 1m to 90d. Write it as in: mesh invite --expires 12h"),
            )
        })?,
    };
    let role = args.role.name();
    let label =
        args.label.clone().unwrap_or_else(|| format!("{role}-{:x}", (crate::host::wall_ms() / 1000) & 0xff_ffff));
    let ask = Ask::Invite { role: role.to_owned(), life_s, label };
    let Tell::Token { text, label, role, not_after } = Client::ask(&places()?, &ask, ANSWER_TIME)?.next()? else {
        return Err(foreign());
    };
    if args.json {
        let until = time::rfc3339(not_after * 1000);
        let said = serde_json::json!({ "schema": 1, "token": text, "label": label, "role": role, "expires": until });
        out(&said.to_string());
        return Ok(0);
    }
    // Alone on standard output, so that it can be sent where it is needed without being seen.
    out(&text);
    let label = sanitised(&label);
    complain(&format!(
        "\"{label}\" admits machines as {role} until {}. Whoever has it joins: it is a secret.",
        time::day(not_after)
    ));
    complain(
        "give it to an agent as MESH_JOIN, or in a file that MESH_JOIN_FILE names; or to a person, for: mesh join -",
    );
    complain(&format!("to end it, and the membership of all that joined by it: mesh forget token:{label}"));
    Ok(0)
}
