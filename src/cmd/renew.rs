//! `mesh leave`, `mesh rekey`, `mesh reset`: a new identity for this machine (DO).

use super::{
    client::{ANSWER_TIME, do_it, places, snapshot},
    failure::{Failure, NO_AGENT, NO_MESH, TIMEOUT, USAGE, out, out_raw},
};
use crate::{
    agent::wire::Ask,
    cli::{Reset, Sure},
    places::Places,
    view::{
        rows::{count, sanitised},
        snapshot::Snapshot,
    },
};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// An agent that begins anew answers within this time: it lets what runs for others end first.
const ANEW_TIME: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn leave(args: &Sure) -> Result<u8, Failure> {
    let places = places()?;
    let now = member(&places)?;
    let (others, mesh) = (now.peers.len() as u64, mesh(&now));
    let question = format!("{} of \"{mesh}\" will be there without this one. Leave? [y/N] ", count(others, "machine"));
    sure(args.yes, &question, "mesh leave --yes")?;
    out(&format!("mesh: {}", anew(&places, &now, &Ask::Leave)?));
    let away = now.peers.iter().filter(|peer| !peer.connected).count() as u64;
    if away > 0 {
        let verb = if away == 1 { "was" } else { "were" };
        out(&format!("mesh: {} {verb} not connected and will be told by the others", count(away, "machine")));
    }
    out("mesh: to join again: mesh join CODE; to begin a mesh: mesh up");
    Ok(0)
}

pub(super) fn rekey(args: &Sure) -> Result<u8, Failure> {
    let places = places()?;
    let now = member(&places)?;
    let question = "The key that this machine has now will be out for good, on all machines of the mesh. Go on? [y/N] ";
    sure(args.yes, question, "mesh rekey --yes")?;
    out(&format!("mesh: {}", anew(&places, &now, &Ask::Rekey)?));
    Ok(0)
}

pub(super) fn reset(args: &Reset) -> Result<u8, Failure> {
    let places = places()?;
    let now = member(&places)?;
    let name = args.name.clone().unwrap_or_else(|| mesh(&now));
    let question = format!(
        "This machine leaves \"{}\" and begins \"{}\" with a new identity; each other one is to join it with a code. Go on? [y/N] ",
        mesh(&now),
        sanitised(&name)
    );
    sure(args.yes, &question, "mesh reset --yes")?;
    out(&format!("mesh: {}", anew(&places, &now, &Ask::Leave)?));
    do_it(&places, &Ask::Found { name: name.clone() }, ANSWER_TIME, |note| out(&format!("mesh: {note}")))?;
    out(&format!("mesh: created \"{}\". Other machines join it with a code: mesh pair", sanitised(&name)));
    Ok(0)
}

/// Gives this machine, whatever it is in, a new identity in no mesh.
pub(super) fn fresh(places: &Places) -> Result<(), Failure> {
    let now = snapshot(places)?;
    if now.mesh.is_some() {
        out(&format!("mesh: {}", anew(places, &now, &Ask::Leave)?));
    }
    Ok(())
}

fn mesh(now: &Snapshot) -> String {
    sanitised(now.mesh.as_deref().unwrap_or_default())
}

fn member(places: &Places) -> Result<Snapshot, Failure> {
    let now = snapshot(places)?;
    if now.mesh.is_none() {
        return Err(Failure::coded(NO_MESH, "this machine is in no mesh. Run: mesh up"));
    }
    Ok(now)
}

/// Asks, where somebody can be asked.
fn sure(said: bool, question: &str, otherwise: &str) -> Result<(), Failure> {
    if said {
        return Ok(());
    }
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return Err(Failure::coded(USAGE, format!("nobody can be asked here. To go on: {otherwise}")));
    }
    out_raw(question);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| Failure::new(format!("no answer could be read: {e}")))?;
    if matches!(line.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Failure::new("nothing was changed")) }
}

/// Has it done, and waits for the agent with the new key.
fn anew(places: &Places, before: &Snapshot, ask: &Ask) -> Result<String, Failure> {
    let said = do_it(places, ask, ANSWER_TIME, |note| out(&format!("mesh: {note}")))?;
    let until = Instant::now() + ANEW_TIME;
    loop {
        match snapshot(places) {
            Ok(now) if now.this.id != before.this.id => return Ok(said),
            Err(e) if e.code != NO_AGENT && e.code != TIMEOUT => return Err(e),
            _ if Instant::now() >= until => {
                let text = format!("{said}, but the agent has not begun anew within 20 seconds. Look at: mesh status");
                return Err(Failure::coded(TIMEOUT, text));
            }
            _ => std::thread::sleep(LOOK),
        }
    }
}
