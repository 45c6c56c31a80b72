//! Puts a machine out of the mesh (DO).
//!
//! First this machine refuses it, whatever else succeeds; then it is signed that it is out, if this machine may say so for the
//! others; then whoever is connected is told, and the connection with it is closed, with which its jobs end.

use super::{
    Agent,
    command::{REFUSED, USAGE, failed},
    peers,
    wire::Tell,
};
use crate::{net::identity::Identity, view::rows::count};
use mesh_proto::{
    membership::{Cause, Delegate, Members, RecordSet, Role},
    peer::PeerId,
};
use std::{collections::BTreeSet, sync::Arc};

/// Clocks on a desk are minutes apart: what a machine says to have made within this time after its results were tainted may have
/// been made before, milliseconds.
const CLOCKS_MS: u64 = 10 * 60 * 1000;
/// Fewer characters of an id name nobody.
const PREFIX_MIN: usize = 6;

/// How a token is told from a machine.
const TOKEN: &str = "token:";

/// The tokens that have not ended: their keys, names and roles.
fn tokens(set: &RecordSet) -> Vec<(PeerId, String, Role)> {
    let row = |token: &Delegate| (token.key.peer(), token.label.clone(), token.role);
    super::intro::live(set, super::mesh::now_s()).map(row).collect()
}

/// The token of this name.
fn token(agent: &Agent, label: &str) -> Result<PeerId, String> {
    let found = agent.mesh.set().and_then(|(set, _)| {
        let named = super::intro::live(&set, super::mesh::now_s()).find(|token| token.label == label);
        named.map(|token| token.key.peer())
    });
    found.ok_or_else(|| format!("there is no token \"{label}\", or it has ended. mesh list shows them"))
}

/// Uses no result any more that a machine has made until now, whether it is a member or was one.
pub(super) fn taint(agent: &Agent, name: &str) -> Tell {
    let Some((set, _)) = agent.mesh.set() else {
        return failed(super::command::NO_MESH, "this machine is in no mesh");
    };
    let all: Vec<(PeerId, String)> =
        set.everybody().into_iter().filter_map(|peer| Some((peer, set.name_of(&peer)?))).collect();
    let subject = match meant(agent, &all, name) {
        Ok(subject) => subject,
        Err(text) => return failed(USAGE, text),
    };
    let called = agent.mesh.name_of(&subject).or_else(|| set.name_of(&subject)).unwrap_or_else(|| subject.short());
    let made = agent.records().made_by(&called);
    match agent.mesh.taint(subject, crate::host::wall_ms() + CLOCKS_MS) {
        Ok(()) => Tell::Tainted { name: called, made },
        Err(error) => failed(super::command::FAILED, format!("results of {called} may still be used: {error}")),
    }
}

/// Puts it out, or tells what that would come to as long as nothing is said of those that it has admitted.
pub(super) fn forget(agent: &Arc<Agent>, name: &str, stolen: bool, keeps: Option<bool>) -> Tell {
    let Some(members) = agent.mesh.members() else {
        return failed(super::command::NO_MESH, "this machine is in no mesh");
    };
    let all: Vec<(PeerId, String)> = members.by_id.iter().map(|(peer, member)| (*peer, member.name.clone())).collect();
    let token = name.strip_prefix(TOKEN).map(|label| token(agent, label));
    let subject = match token.unwrap_or_else(|| meant(agent, &all, name)) {
        Ok(subject) => subject,
        Err(text) => return failed(USAGE, text),
    };
    let me: &Identity = &agent.mesh.identity;
    if subject == me.peer() {
        return failed(REFUSED, "that is this machine itself. To leave the mesh: mesh leave");
    }
    let is_token = name.starts_with(TOKEN);
    let called =
        agent.mesh.name_of(&subject).unwrap_or_else(|| if is_token { name.to_owned() } else { subject.short() });
    let admitted = agent.mesh.set().map(|(set, _)| set.admitted_by(&subject)).unwrap_or_default();
    // Without these this machine would be out too: itself, and those through whom it was admitted.
    let own = ancestors(&members, me.peer());
    let tokens: Vec<(PeerId, String, Role)> = agent.mesh.set().map(|(set, _)| tokens(&set)).unwrap_or_default();
    let is_live = |peer: &PeerId| members.get(peer).is_some() || tokens.iter().any(|(token, ..)| token == peer);
    let admitted = admitted.into_iter().filter(|peer| *peer != subject && is_live(peer));
    let (own, admitted): (Vec<PeerId>, Vec<PeerId>) = admitted.partition(|peer| own.contains(peer));
    let Some(keeps) = keeps else {
        let token = |peer: &PeerId| {
            let (_, label, role) = tokens.iter().find(|(token, ..)| token == peer)?;
            Some((format!("{TOKEN}{label}"), role.name().to_owned()))
        };
        let machine = |peer: &PeerId| Some((agent.mesh.name_of(peer)?, agent.mesh.role_of(peer)?.name().to_owned()));
        let shown = admitted.iter().filter_map(|peer| machine(peer).or_else(|| token(peer)));
        return Tell::Forgetting { name: called, id: subject.short(), admitted: shown.collect() };
    };
    if let Err(error) = agent.mesh.deny(subject) {
        tracing::warn!("{error}");
    }
    let may_say_so = agent.mesh.role().is_some_and(mesh_proto::membership::Role::admits);
    let keep = if keeps { [own, admitted].concat() } else { own };
    let cause = if stolen { Cause::Stolen } else { Cause::Forgotten };
    let signed = may_say_so.then(|| agent.mesh.revoke(subject, keep, cause));
    let others: Vec<PeerId> = agent.links.all().iter().map(|link| link.peer).filter(|peer| *peer != subject).collect();
    peers::records_changed(agent);
    match signed {
        Some(Err(error)) => {
            let text = format!(
                "{called} is refused here, but the others do not know: {error}. Without those: mesh forget {called} --stolen"
            );
            failed(super::command::FAILED, text)
        }
        None => Tell::Finished(format!(
            "forgotten here: {called}. The others still let it in: this machine is no owner, so ask one to say: mesh forget {called}"
        )),
        Some(Ok(())) => {
            let told = others.len();
            let rest = agent.mesh.members().map_or(0, |members| members.by_id.len()).saturating_sub(1 + told);
            let later = if rest == 0 {
                String::new()
            } else {
                format!("; {} not connected and will be told by the others", are(rest))
            };
            Tell::Finished(format!("forgotten: {called}. Told {}{later}.", count(told as u64, "machine")))
        }
    }
}

/// A member and all through whom it was admitted.
fn ancestors(members: &Members, of: PeerId) -> BTreeSet<PeerId> {
    let mut all = BTreeSet::new();
    let mut at = Some(of);
    while let Some(peer) = at.filter(|peer| all.insert(*peer)) {
        at = members.get(&peer).map(|member| member.issuer);
    }
    all
}

fn are(machines: usize) -> String {
    let verb = if machines == 1 { "is" } else { "are" };
    format!("{} {verb}", count(machines as u64, "machine"))
}

/// The one member that a name, or the beginning of an id, means.
fn meant(agent: &Agent, all: &[(PeerId, String)], name: &str) -> Result<PeerId, String> {
    let plain = name.replace('-', "");
    let begins = |peer: &PeerId| plain.len() >= PREFIX_MIN && peer.text().replace('-', "").starts_with(&plain);
    let mut named: Vec<PeerId> = all
        .iter()
        .filter(|(peer, called)| called == name || agent.mesh.name_of(peer).is_some_and(|n| n == name))
        .map(|(peer, _)| *peer)
        .collect();
    if named.is_empty() {
        named = all.iter().filter(|(peer, _)| begins(peer)).map(|(peer, _)| *peer).collect();
    }
    match named.as_slice() {
        [one] => Ok(*one),
        [] => Err(format!("no machine of the mesh is called \"{name}\". mesh peers lists them")),
        several => {
            let ids: Vec<String> = several.iter().map(PeerId::short).collect();
            Err(format!("several machines are meant by \"{name}\": {}. Say which by its id", ids.join(", ")))
        }
    }
}
