//! `mesh peers`: the machines of the mesh (DO).

use super::{
    client::{ANSWER_TIME, do_it, places, snapshot},
    failure::{Failure, NO_MESH, USAGE, out, out_raw},
};
use crate::{
    agent::wire::Ask,
    cli::{Output, Peers, PeersChange},
    config::is_address,
    view::rows::{self, sanitised},
};

pub(super) fn run(args: &Peers) -> Result<u8, Failure> {
    let places = places()?;
    let ask = match &args.change {
        None => return list(&snapshot(&places)?, args),
        Some(PeersChange::Add { address }) => Ask::AddAddress { address: checked(address)? },
        Some(PeersChange::Remove { address }) => Ask::RemoveAddress { address: checked(address)? },
    };
    let said = do_it(&places, &ask, ANSWER_TIME, |note| out(&format!("mesh: {note}")))?;
    out(&format!("mesh: {said}"));
    Ok(0)
}

fn checked(address: &str) -> Result<String, Failure> {
    if is_address(address) {
        return Ok(address.to_owned());
    }
    let text =
        format!("\"{}\" is not an address. Write a host and, if need be, a port: tower.lan:6374", sanitised(address));
    Err(Failure::coded(USAGE, text))
}

fn list(now: &crate::view::snapshot::Snapshot, args: &Peers) -> Result<u8, Failure> {
    if args.json {
        out(&rows::peers_json(now).to_string());
        return Ok(if now.mesh.is_some() { 0 } else { NO_MESH });
    }
    if now.mesh.is_none() {
        let text = "this machine is in no mesh. Make one with: mesh up; or join one with: mesh join CODE";
        return Err(Failure::coded(NO_MESH, text));
    }
    out_raw(&rows::peers(now, args.output == Some(Output::Wide)));
    Ok(0)
}
