//! `mesh list` and `mesh id`: which mesh, and who this machine is in it (DO).

use super::{
    client::{places, snapshot},
    failure::{Failure, NO_MESH, out},
};
use crate::{
    cli::Json,
    view::rows::{count, sanitised},
};

pub(super) fn list(args: &Json) -> Result<u8, Failure> {
    let now = snapshot(&places()?)?;
    if args.json {
        let meshes: Vec<_> = now
            .mesh
            .iter()
            .map(|name| serde_json::json!({ "name": name, "machines": 1 + now.peers.len(), "role": now.this.role }))
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
