//! `mesh list` and `mesh id`: which mesh, and who this machine is in it (DO).

use super::{
    client::{ANSWER_TIME, Client, foreign, places, snapshot},
    failure::{Failure, NO_MESH, out},
};
use crate::{
    agent::wire::{Ask, Tell},
    cli::Json,
    view::{
        rows::{count, sanitised},
        time,
    },
};

pub(super) fn list(args: &Json) -> Result<u8, Failure> {
    let places = places()?;
    let now = snapshot(&places)?;
    let tokens = match Client::ask(&places, &Ask::Tokens, ANSWER_TIME)?.next()? {
        Tell::Tokens(tokens) => tokens,
        _ => return Err(foreign()),
    };
    if args.json {
        let tokens: Vec<_> = tokens
            .iter()
            .map(|t| {
                let until = time::rfc3339(t.not_after * 1000);
                serde_json::json!({ "label": t.label, "role": t.role, "expires": until, "joined": t.joined })
            })
            .collect();
        let meshes: Vec<_> = now
            .mesh
            .iter()
            .map(|name| serde_json::json!({ "name": name, "machines": 1 + now.peers.len(), "role": now.this.role, "tokens": tokens }))
            .collect();
        out(&serde_json::json!({ "schema": 1, "meshes": meshes }).to_string());
        return Ok(0);
    }
    let Some(mesh) = &now.mesh else {
        return Err(Failure::coded(
            NO_MESH,
            "this machine is in no mesh. Make one with: mesh up; or join one with: mesh join CODE",
        ));
    };
    let connected = now.peers.iter().filter(|peer| peer.connected).count();
    let machines = count(1 + now.peers.len() as u64, "machine");
    let role = sanitised(&now.this.role);
    out(&format!("{}  {machines}, {connected} of the others connected; this one is {role}", sanitised(mesh)));
    for token in tokens {
        let joined: Vec<String> = token.joined.iter().map(|name| sanitised(name)).collect();
        let joined = if joined.is_empty() { "nobody yet".to_owned() } else { joined.join(", ") };
        let (label, role, until) = (sanitised(&token.label), sanitised(&token.role), time::day(token.not_after));
        out(&format!("  token:{label}  admits as {role} until {until}; joined by it: {joined}"));
    }
    Ok(0)
}

pub(super) fn id(args: &Json) -> Result<u8, Failure> {
    let this = snapshot(&places()?)?.this;
    if args.json {
        out(&serde_json::json!({ "schema": 1, "id": this.id, "name": this.name, "role": this.role }).to_string());
    } else {
        out(&sanitised(&this.id));
    }
    Ok(0)
}
