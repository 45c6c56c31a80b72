//! Machines that join by a token, and members that have not heard of each other (DO).

use super::{
    Agent,
    command::{FAILED, NO_MESH, REFUSED, USAGE, entered, failed},
    mesh::{self, MeshError},
    peers,
    wire::{Tell, TokenRow},
};
use crate::{
    env,
    net::{
        endpoint::Link,
        identity::{Ed25519, Identity},
        intro::{IntroError, introduce},
        pair::Joined,
    },
    view::time,
};
use mesh_proto::{
    intro::{Answer, Unwelcome},
    limits,
    membership::{Admit, Body, Delegate, Record, RecordSet, Role, Sign},
    pairing::Welcome,
    peer::PeerId,
    token::Token,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// A token lives no longer, seconds.
const LIFE_MAX_S: u64 = 90 * 24 * 3600;
/// The first pause between two tries to join by the token that this agent was started with; doubled at each further one.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A file that holds a token, bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// Why this machine did not join.
#[derive(Debug, thiserror::Error)]
enum NotJoined {
    #[error("the token ended on {0}. Ask for a new one: mesh invite")]
    Ended(String),
    #[error("the token names no address where a machine of the mesh could be")]
    NoAddress,
    #[error("{addr}: {error}")]
    Intro { addr: SocketAddr, error: IntroError },
    #[error("{0}: what answers there is not of the token's mesh, or does not let this machine in")]
    Wrong(SocketAddr),
    #[error("this machine's admission could not be signed: {0}")]
    Sign(String),
}

/// Makes a token.
pub(super) fn invite(agent: &Arc<Agent>, role: &str, life_s: u64, label: &str) -> Tell {
    let role = match role {
        "peer" => Role::Peer,
        "worker" => Role::Worker,
        "client" => Role::Client,
        other => return failed(USAGE, format!("a token makes no {other}. Choose peer, worker or client")),
    };
    let Some((set, disc_key)) = agent.mesh.set() else {
        return failed(NO_MESH, "this machine is in no mesh. Run: mesh up");
    };
    if !agent.mesh.role().is_some_and(Role::admits) {
        return failed(REFUSED, "only an owner admits others. Run mesh invite on another machine");
    }
    let now_s = mesh::now_s();
    if live(&set, now_s).any(|token| token.label == label) {
        let text = format!(
            "there is a token \"{label}\" already. Give this one another name with --label, or end that one: mesh forget token:{label}"
        );
        return failed(USAGE, text);
    }
    let mut seed = [0; 32];
    mesh::fill_random(&mut seed);
    let not_after = now_s + life_s.min(LIFE_MAX_S);
    let signed = Identity::of_seed(&seed).map_err(|e| MeshError::Record(e.to_string())).and_then(|identity| {
        let (mesh, key, label, issuer) = (set.mesh(), identity.public_key(), label.to_owned(), agent.mesh.me());
        agent.mesh.sign(&Body::Delegate(Delegate { mesh, key, role, not_after, label, issuer, issued: now_s }))
    });
    if let Err(error) = signed {
        return failed(FAILED, format!("no token was made: {error}"));
    }
    peers::records_changed(agent);
    let advertised = agent.config.advertise.iter().copied();
    let own = peers::own_addresses(agent);
    let addresses = advertised.chain(own).take(limits::TOKEN_ADDRESSES_MAX).collect();
    let token = Token { mesh: set.mesh(), seed, disc_key, role, not_after, addresses };
    Tell::Token { text: token.text(), label: label.to_owned(), role: role.name().to_owned(), not_after }
}

/// Tokens that have not ended and were not put out.
pub(super) fn live(set: &RecordSet, now_s: u64) -> impl Iterator<Item = &Delegate> {
    let tokens = set.tokens().into_iter();
    tokens.filter(move |token| token.not_after > now_s && set.revocation(&token.key.peer()).is_none())
}

/// The tokens that have not ended.
pub(super) fn tokens(agent: &Agent) -> Vec<TokenRow> {
    let Some((set, _)) = agent.mesh.set() else { return Vec::new() };
    let row = |token: &Delegate| {
        let joined = set.admitted_by(&token.key.peer());
        let joined = joined.iter().filter(|peer| agent.mesh.role_of(peer).is_some());
        TokenRow {
            label: token.label.clone(),
            role: token.role.name().to_owned(),
            not_after: token.not_after,
            joined: joined.filter_map(|peer| agent.mesh.name_of(peer)).collect(),
        }
    };
    live(&set, mesh::now_s()).map(row).collect()
}

/// Judges a machine that introduces itself.
pub(super) async fn newcomer(agent: Arc<Agent>, link: Link) {
    let peer = link.peer;
    agent.peers.door.hear(&link, |records| judge(&agent, &peer, records)).await;
}

fn judge(agent: &Arc<Agent>, peer: &PeerId, records: Vec<Record>) -> Answer {
    let Some((set, disc_key)) = agent.mesh.set() else { return Answer::Refused(Unwelcome::Unknown) };
    if let Some(at_s) = agent.mesh.out_since(peer) {
        return Answer::Refused(Unwelcome::Forgotten { at_s });
    }
    let mut with = set.clone();
    let merged = with.merge(records.clone(), &Ed25519);
    if with.evaluate(mesh::now_s()).get(peer).is_some() {
        if agent.mesh.merge(records).is_some() {
            peers::records_changed(agent);
            tracing::info!("joined: {}", agent.mesh.name_of(peer).unwrap_or_else(|| peer.short()));
        }
        return Answer::Welcome(Welcome { records: with.records(), disc_key, addresses: agent.peers.known() });
    }
    let issuers = records.iter().filter_map(|record| match record.body() {
        Ok(Body::Admit(admit)) => Some(admit.issuer),
        _ => None,
    });
    let ended = issuers.filter_map(|issuer| agent.mesh.out_since(&issuer)).min();
    Answer::Refused(match ended {
        Some(at_s) => Unwelcome::Forgotten { at_s },
        None if merged.refused > 0 && with.is_full() => Unwelcome::Full,
        None if merged.refused > 0 => Unwelcome::Unknown,
        None => Unwelcome::Expired,
    })
}

/// Joins by a token, as `mesh join` does.
pub(super) async fn join(agent: &Arc<Agent>, text: &str) -> Tell {
    let token = match Token::parse(text) {
        Ok(token) => token,
        Err(error) => return failed(USAGE, error.to_string()),
    };
    match by(agent, &token).await {
        Ok((addr, joined)) => entered(agent, addr, joined),
        Err(error) => failed(REFUSED, format!("this machine has not joined: {error}")),
    }
}

async fn by(agent: &Arc<Agent>, token: &Token) -> Result<(SocketAddr, Joined), NotJoined> {
    if token.not_after <= mesh::now_s() {
        return Err(NotJoined::Ended(time::day(token.not_after)));
    }
    let sign = |e: &dyn std::fmt::Display| NotJoined::Sign(e.to_string());
    let signer = Identity::of_seed(&token.seed).map_err(|e| sign(&e))?;
    let me = agent.mesh.identity.public_key();
    let admit = Admit {
        mesh: token.mesh,
        subject: me,
        name: agent.my_name(),
        role: token.role,
        not_after: None,
        issuer: signer.peer(),
        issued: mesh::now_s(),
    };
    let record = Record::sign(&Body::Admit(admit), &signer).map_err(|e| sign(&e))?;
    let mut addresses = token.addresses.clone();
    let fixed = agent.peers.fixed.lock().expect("no panic while held").clone();
    for address in fixed {
        addresses.extend(peers::lookup(&address).await);
    }
    let mut last = NotJoined::NoAddress;
    for addr in addresses {
        match introduce(&agent.peers.endpoint, addr, vec![record.clone()]).await {
            Ok((welcome, inviter)) => match welcomed(token, welcome, inviter, &me.peer()) {
                Some(joined) => return Ok((addr, joined)),
                None => last = NotJoined::Wrong(addr),
            },
            Err(error) => last = NotJoined::Intro { addr, error },
        }
    }
    Err(last)
}

/// The mesh that a welcome is to, if it is the token's, and both this machine and who gave it are members.
fn welcomed(token: &Token, welcome: Welcome, inviter: PeerId, me: &PeerId) -> Option<Joined> {
    let Welcome { records, disc_key, addresses } = welcome;
    if records.len() > limits::SET_RECORDS_MAX || addresses.len() > limits::RECORDS_MAX {
        return None;
    }
    let set = RecordSet::from_records(records, &Ed25519).ok().filter(|set| set.mesh() == token.mesh)?;
    let members = set.evaluate(mesh::now_s());
    let role = members.get(me)?.role;
    members.get(&inviter)?;
    Some(Joined { set, disc_key, role, inviter, addresses })
}

/// Joins by the token that this agent was started with, if it is in no mesh; tries until it succeeds.
pub(super) async fn join_by_environment(agent: Arc<Agent>) {
    let Some(token) = given() else { return };
    if agent.mesh.name().is_some() {
        return;
    }
    let mut pause = RETRY_MIN;
    loop {
        let said = match &token {
            Ok(text) => join(&agent, text).await,
            Err(why) => failed(USAGE, why.clone()),
        };
        let why = match said {
            Tell::Failed { text, .. } => text,
            _ => {
                agent.peers.set_joining(None);
                return;
            }
        };
        if agent.peers.set_joining(Some(why.clone())) {
            tracing::warn!("{why}");
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = agent.leaving.cancelled() => return,
        }
        if agent.mesh.name().is_some() {
            agent.peers.set_joining(None);
            return;
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// The token in the environment, or in the file that it names.
fn given() -> Option<Result<String, String>> {
    let said = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(text) = said(env::JOIN) {
        return Some(text.into_string().map_err(|_| format!("{} is no token", env::JOIN)));
    }
    let path = said(env::JOIN_FILE)?;
    let read = crate::host::read_at_most(path.as_ref(), FILE_BYTES_MAX).and_then(|bytes| String::from_utf8(bytes).ok());
    Some(read.ok_or_else(|| format!("the token in {} ({}) cannot be read", path.display(), env::JOIN_FILE)))
}

/// Introduces this machine, as the member that it is, to one that has refused it because it has not heard of it.
pub(super) async fn to_member(agent: &Arc<Agent>, addr: SocketAddr, peer: PeerId) -> bool {
    let Some((set, _)) = agent.mesh.set() else { return false };
    let chain = set.chain(&agent.mesh.me(), mesh::now_s());
    if chain.is_empty() || chain.len() > limits::INTRO_RECORDS_MAX {
        return false;
    }
    match introduce(&agent.peers.endpoint, addr, chain).await {
        // What it says is taken only from a member, like all that is said.
        Ok((welcome, found)) if found == peer && agent.mesh.role_of(&peer).is_some() => {
            if agent.mesh.merge(welcome.records).is_some() {
                peers::records_changed(agent);
            }
            true
        }
        Ok(_) => false,
        Err(error) => {
            tracing::debug!("{peer:?} was shown why this machine is a member: {error}");
            false
        }
    }
}
