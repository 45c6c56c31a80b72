//! This machine gets a new key: to leave its mesh, or to go on in it as somebody else (DO).
//!
//! A key that was put out of a mesh stays out of it, so that nobody who has an old copy of it comes back. Who leaves puts its own key
//! out, and who changes its key admits the new one before. The sockets know the machine by its key: the agent begins anew with it.

use super::{
    Agent,
    command::{FAILED, NO_MESH, REFUSED, failed},
    mesh::MeshError,
    peers,
    wire::Tell,
};
use crate::net::identity::{self, Identity, IdentityError};
use mesh_proto::{
    limits,
    membership::{Cause, Role, Sign},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// What was signed last reaches who is connected within this time.
const TELL_TIME: Duration = Duration::from_millis(300);

/// Why there is no new key.
#[derive(Debug, thiserror::Error)]
enum NotRenewed {
    #[error(transparent)]
    Mesh(#[from] MeshError),
    #[error(transparent)]
    Key(#[from] IdentityError),
    #[error("a file of the key could not be changed: {0}")]
    File(#[from] std::io::Error),
    #[error(
        "the line of those who admitted each other is as long as it may be. Instead: mesh leave, then mesh join CODE with a code of \
         another owner's"
    )]
    Line,
    #[error(
        "this machine has admitted more machines and tokens than stay when its key goes, which are {}",
        limits::KEPT_MAX
    )]
    Many,
}

/// Leaves the mesh: says so to its machines, forgets it, and begins anew as a machine of no mesh.
pub(super) async fn leave(agent: &Arc<Agent>) -> Tell {
    let Some(name) = agent.mesh.name() else {
        return failed(NO_MESH, "this machine is in no mesh");
    };
    // Who is no member any more has nothing to say to those who are.
    if agent.mesh.role().is_some() {
        let me = agent.mesh.me();
        let kept = agent.mesh.set().map(|(set, _)| set.admitted_by(&me)).unwrap_or_default();
        if let Err(error) = agent.mesh.revoke(me, kept, Cause::Left) {
            return failed(FAILED, format!("this machine is still in \"{name}\": {error}"));
        }
        tell_all(agent).await;
    }
    let cleared = agent.mesh.clear().map_err(NotRenewed::from);
    if let Err(error) = cleared.and_then(|()| Ok(identity::remove(&agent.places.state)?)) {
        return failed(
            FAILED,
            format!("this machine has left \"{name}\", but its old key could not be removed: {error}"),
        );
    }
    agent.peers.forget_everybody();
    begins_anew(agent);
    Tell::Finished(format!("left \"{name}\"; this machine has a new identity"))
}

/// Goes on in the mesh with another key; the old one is out.
pub(super) async fn rekey(agent: &Arc<Agent>) -> Tell {
    let (Some(name), Some(role)) = (agent.mesh.name(), agent.mesh.role()) else {
        return failed(NO_MESH, "this machine is in no mesh");
    };
    if role != Role::Owner {
        let text = format!(
            "this machine is a {role}, and only an owner admits keys. Instead: mesh leave, then mesh join CODE"
        );
        return failed(REFUSED, text);
    }
    match renewed(agent) {
        Ok(id) => {
            tell_all(agent).await;
            begins_anew(agent);
            Tell::Finished(format!(
                "this machine has a new key in \"{name}\" and is {id} from now on; the old one is out"
            ))
        }
        Err(error) => failed(FAILED, format!("the key is the old one: {error}")),
    }
}

fn renewed(agent: &Agent) -> Result<String, NotRenewed> {
    let me = agent.mesh.me();
    let fresh = Identity::prepare(&agent.places.state)?;
    agent.mesh.admit(fresh.public_key(), &agent.own_name(), Role::Owner)?;
    if agent.mesh.role_of(&fresh.peer()) != Some(Role::Owner) {
        return Err(NotRenewed::Line);
    }
    let kept = agent.mesh.set().map(|(set, _)| set.admitted_by(&me)).unwrap_or_default();
    if kept.len() > limits::KEPT_MAX {
        return Err(NotRenewed::Many);
    }
    // From here on the old key is worth nothing: the new one must be the one that is found at the next start.
    identity::adopt(&agent.places.state)?;
    agent.mesh.revoke(me, kept, Cause::Rekeyed)?;
    Ok(fresh.peer().short())
}

/// Gives the machines that are connected what was signed last, while the old key still may speak.
async fn tell_all(agent: &Agent) {
    let Some((set, _)) = agent.mesh.set() else { return };
    for link in agent.links.all() {
        link.tell(mesh_proto::message::Control::Records(set.records()));
    }
    tokio::time::sleep(TELL_TIME).await;
    peers::records_changed(agent);
}

fn begins_anew(agent: &Agent) {
    agent.again.store(true, Ordering::Relaxed);
    agent.stop.notify_one();
}
