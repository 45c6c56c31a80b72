//! Answers what `mesh peers`, `mesh pair` and the others ask (DO).

use super::{
    Agent, forget, intro,
    local::Client,
    mesh,
    peers::{self},
    renew, serve, toolchains,
    wire::{Ask, Tell},
};
use crate::{
    net::pair,
    sched::dispatch::Dispatcher,
    view::{
        snapshot::{Counters, Machine, Snapshot},
        time,
    },
};
use mesh_proto::{
    membership::Role,
    pairing::{Code, JoinRequest},
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};

/// Exit codes of `reference` commands: failed, usage, not in a mesh, refused.
pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const NO_MESH: u8 = 4;
pub(super) const REFUSED: u8 = 7;
/// Nothing came of it in time.
pub(super) const TIMEOUT: u8 = 6;
/// How long a code is looked for among announcements.
const LOOK_FOR_CODE: Duration = Duration::from_secs(5);
/// How often an open window is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Answers one question.
pub(super) async fn answer(agent: &Arc<Agent>, ask: Ask, client: &mut Client) -> io::Result<()> {
    let tell = match ask {
        // Launchers are served elsewhere.
        Ask::Compile(_) => return Ok(()),
        Ask::Snapshot => Tell::Snapshot(Box::new(snapshot(agent))),
        Ask::Explain { path } => Tell::Explained(agent.records().find(path.as_deref())),
        Ask::Found { name } => found(agent, &name),
        Ask::Pair { role } => return pair(agent, &role, client).await,
        Ask::Join { code, address, leave } => join(agent, &code, address.as_deref(), leave, client).await?,
        Ask::AddAddress { address } => address_named(agent, &address, true).await,
        Ask::RemoveAddress { address } => address_named(agent, &address, false).await,
        Ask::Toolchains { look } => toolchains::list(agent, look).await,
        Ask::Toolchain { id } => toolchains::detail(agent, id).await,
        Ask::WhyNot { peer, ids } => toolchains::why(agent, &peer, &ids).await,
        Ask::Push { ids, peer } => return toolchains::push(agent, &ids, peer.as_deref(), client).await,
        Ask::Prune { all } => toolchains::prune(agent, all).await,
        Ask::Session { session } => Tell::Session(agent.session_now(session)),
        Ask::Pause { seconds } => agent.pause(seconds),
        Ask::Resume => agent.resume(),
        Ask::Mode { change } => agent.mode(change),
        Ask::Lease { memory_kib, name } => {
            return super::session::lease(agent, memory_kib, &name, client).await;
        }
        Ask::Count { zero } => count(agent, zero).await,
        Ask::Forget { name, stolen, keeps } => forget::forget(agent, &name, stolen, keeps),
        Ask::Taint { name } => forget::taint(agent, &name),
        Ask::Invite { role, life_s, label } => intro::invite(agent, &role, life_s, &label),
        Ask::Tokens => Tell::Tokens(intro::tokens(agent)),
        Ask::JoinByToken { text, leave } => match in_another(agent, leave) {
            Some(refused) => refused,
            None => intro::join(agent, &text).await,
        },
        Ask::Leave => renew::leave(agent).await,
        Ask::Rekey => renew::rekey(agent).await,
        Ask::Files { since_ms } => Tell::Files(agent.records().files(since_ms)),
        Ask::Jobs => Tell::Jobs(agent.jobs()),
        Ask::Stop => {
            agent.stop.notify_one();
            return client.tell(&Tell::Finished("the agent is stopping".to_owned())).await;
        }
    };
    client.tell(&tell).await
}

pub(super) fn failed(code: u8, text: impl Into<String>) -> Tell {
    Tell::Failed { code, text: text.into() }
}

/// Writes down what was counted until now, or forgets it.
async fn count(agent: &Arc<Agent>, zero: bool) -> Tell {
    let counting = agent.clone();
    let written = tokio::task::spawn_blocking(move || {
        if zero {
            return counting.history.zero(super::history::sums(&counting));
        }
        super::history::add(&counting);
        Ok(())
    });
    match written.await {
        Ok(Ok(())) => Tell::Finished("counted".to_owned()),
        Ok(Err(error)) => failed(FAILED, format!("what was counted could not be removed: {error}")),
        Err(_) => failed(FAILED, "what was counted could not be written"),
    }
}

fn found(agent: &Agent, name: &str) -> Tell {
    match agent.mesh.found(name, &agent.my_name()) {
        Ok(()) => {
            agent.announce();
            Tell::Finished(format!("created \"{name}\""))
        }
        Err(e) => failed(FAILED, format!("no mesh was created: {e}")),
    }
}

/// Shows a code and waits until a machine has joined with it, the window closes or the person goes away.
async fn pair(agent: &Arc<Agent>, role: &str, client: &mut Client) -> io::Result<()> {
    let role = match role {
        "owner" => Role::Owner,
        "peer" => Role::Peer,
        "worker" => Role::Worker,
        "client" => Role::Client,
        other => {
            let text = format!("{other} is no role. Choose owner, peer, worker or client");
            return client.tell(&failed(USAGE, text)).await;
        }
    };
    match agent.mesh.role() {
        Some(mine) if mine.admits() => {}
        Some(mine) => {
            let text =
                format!("this machine is a {mine}, and only an owner admits others. Run mesh pair on another machine");
            return client.tell(&failed(REFUSED, text)).await;
        }
        None => return client.tell(&failed(NO_MESH, "this machine is in no mesh. Run: mesh up")).await,
    }
    let mut pairings = agent.peers.pairings.subscribe();
    let code = agent.peers.inviter.open(role);
    agent.announce();
    let addresses = own_addresses(agent);
    client.tell(&Tell::PairingCode { code: code.to_string(), addresses }).await?;
    let mut look = tokio::time::interval(LOOK);
    let told = loop {
        tokio::select! {
            line = pairings.recv() => match line {
                Ok(Ok((proved, line))) if proved == code => break Tell::Finished(line),
                // Who was let in by the code before this one, and is reported late.
                Ok(Ok(_)) => {}
                Ok(Err(line)) => {
                    let line = line.trim_start_matches("mesh: ").to_owned();
                    client.tell(&Tell::Note(line)).await?;
                }
                Err(_) => {}
            },
            _ = look.tick() => match agent.peers.inviter.status() {
                Some(status) if status.tries_left > 0 => {}
                // What a machine that has just joined has to say comes before the end of its window.
                _ if !pairings.is_empty() => {}
                Some(_) => break failed(REFUSED, "3 wrong codes: the code is cancelled. Run mesh pair for a new one"),
                None => {
                    let joined = tokio::time::timeout(Duration::from_secs(10), pairings.recv()).await;
                    break match joined {
                        Ok(Ok(Ok((_, line)))) => Tell::Finished(line),
                        Ok(Ok(Err(line))) => failed(REFUSED, line.trim_start_matches("mesh: ")),
                        _ => failed(TIMEOUT, "nobody joined within 5 minutes; the code is void. Run mesh pair for a new one"),
                    };
                }
            },
            _ = client.gone() => {
                agent.peers.inviter.close(&code);
                agent.announce();
                return Ok(());
            }
        }
    };
    agent.peers.inviter.close(&code);
    agent.announce();
    client.tell(&told).await
}

/// Joins the mesh whose code this is.
async fn join(
    agent: &Arc<Agent>,
    code: &str,
    address: Option<&str>,
    leave: bool,
    client: &mut Client,
) -> io::Result<Tell> {
    let code: Code = match Code::parse(code) {
        Ok(code) => code,
        Err(e) => return Ok(failed(USAGE, e.to_string())),
    };
    if let Some(refused) = in_another(agent, leave) {
        return Ok(refused);
    }
    let addresses: Vec<SocketAddr> = match address {
        Some(address) => peers::lookup(address).await,
        None => super::nearby::showing(agent, code.discriminator(), LOOK_FOR_CODE).await,
    };
    if addresses.is_empty() {
        let text = match address {
            Some(address) => format!("{address} is not known here. Give an address, as in CODE@192.168.1.20"),
            None => pair::JoinError::Nobody(code).to_string(),
        };
        return Ok(failed(FAILED, text));
    }
    client.tell(&Tell::Note("proving the code …".to_owned())).await?;
    let request = JoinRequest {
        name: agent.my_name(),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        cores: crate::host::cores(),
    };
    let mut last = None;
    for addr in addresses {
        let joined = pair::join(&agent.peers.endpoint, addr, &code, request.clone(), mesh::now_s()).await;
        match joined {
            Ok(joined) => return Ok(entered(agent, addr, joined)),
            Err(e) => {
                let definite = matches!(e, pair::JoinError::WrongCode(_) | pair::JoinError::Cancelled);
                last = Some(e);
                if definite {
                    break;
                }
            }
        }
    }
    let text = match last {
        Some(pair::JoinError::Forgotten(at_s)) => crate::view::rows::forgotten(&format!(" on {}", time::day(at_s))),
        other => other.map_or_else(String::new, |e| e.to_string()),
    };
    Ok(failed(REFUSED, text))
}

/// What is said to who would leave other machines without having said so.
fn in_another(agent: &Agent, leave: bool) -> Option<Tell> {
    let members = agent.mesh.members().filter(|members| members.by_id.len() > 1 && !leave)?;
    let text = format!(
        "this machine is already in \"{}\" with {} more. To leave that mesh for the new one: mesh join --leave CODE",
        members.mesh_name,
        members.by_id.len() - 1
    );
    Some(failed(REFUSED, text))
}

pub(super) fn entered(agent: &Arc<Agent>, addr: SocketAddr, joined: pair::Joined) -> Tell {
    let name = joined.set.mesh_name().to_owned();
    // What connected this machine to a mesh that it leaves goes with it.
    if let Err(e) = agent.mesh.replace(joined.set, joined.disc_key) {
        return failed(FAILED, e.to_string());
    }
    let now = agent.clock.ms();
    agent.peers.heard(addr, Some(joined.inviter), false, now);
    for (peer, addr) in joined.addresses {
        agent.peers.heard(addr, Some(peer), false, now);
    }
    peers::records_changed(agent);
    Tell::Finished(format!("joined \"{name}\""))
}

async fn address_named(agent: &Arc<Agent>, address: &str, add: bool) -> Tell {
    let had = match agent.peers.name_address(address, add) {
        Ok(had) => had,
        Err(e) => return failed(FAILED, format!("the address could not be kept: {e}")),
    };
    let found = peers::lookup(address).await;
    for addr in &found {
        if add {
            agent.peers.heard(*addr, None, true, agent.clock.ms());
        } else {
            agent.peers.forget(*addr);
        }
    }
    match (add, had) {
        (true, true) => Tell::Finished(format!("{address} was known already")),
        (true, false) if found.is_empty() => {
            Tell::Finished(format!("{address} is remembered; that name leads nowhere at the moment"))
        }
        (true, false) => Tell::Finished(format!("{address} is remembered")),
        (false, true) => Tell::Finished(format!("{address} is forgotten")),
        (false, false) => failed(FAILED, format!("{address} was not among the addresses that you named")),
    }
}

/// Where this machine may be reached: for `mesh join CODE@ADDR`.
fn own_addresses(agent: &Agent) -> Vec<String> {
    super::nearby::own_addresses(agent.loopback, agent.peers.endpoint.port())
}

/// The picture of this moment.
fn snapshot(agent: &Agent) -> Snapshot {
    let me = agent.mesh.me();
    let load = serve::load(agent);
    let records = agent.records();
    let members = agent.mesh.members();
    let served = agent.served();
    let sent = agent.server.as_ref().map(|server| server.sent.list()).unwrap_or_default();
    // What it lends may be less than what it has.
    let own = || agent.registry.known().into_iter().chain(served.iter().cloned());
    let this = Machine {
        name: agent.mesh.name_of(&me).unwrap_or_else(|| agent.my_name()),
        id: me.text(),
        role: agent.mesh.role().map_or_else(String::new, |r| r.name().to_owned()),
        compilers: labels(
            served.iter().map(|t| t.label()).chain(sent.iter().map(|(_, sent)| super::take::name(&sent.manifest))),
        ),
        slots: load.slots,
        free: load.slots.saturating_sub(u16::try_from(agent.slots.running()).unwrap_or(u16::MAX)),
        rtt_us: None,
        state: state(&load),
        addresses: own_addresses(agent),
        connected: true,
        finished: 0,
        speed_percent: None,
        memory_mib: Some(load.memory_mib),
        failures: 0,
        heard_ms: None,
    };
    let others = members.iter().flat_map(|m| m.by_id.keys()).filter(|id| **id != me);
    let mut peers: Vec<Machine> = others
        .map(|id| {
            let link = agent.links.get(*id);
            let name = agent.mesh.name_of(id).unwrap_or_default();
            let load = link.as_ref().map(|l| l.load()).unwrap_or_default();
            let (belief, slow) = agent.desk.look(|all| (all.belief(*id), all.is_too_slow(*id)));
            let held = u16::try_from(belief.held).unwrap_or(u16::MAX);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "speeds are small")]
            let percent = |speed: f32| (speed * 100.0).round() as u32;
            let has = |l: &super::link::Link| labels(own().filter(|t| l.has(&t.fingerprint)).map(|t| t.label()));
            Machine {
                id: id.text(),
                role: members.as_ref().and_then(|m| m.get(id)).map_or_else(String::new, |m| m.role.name().to_owned()),
                compilers: link.as_deref().map(has).unwrap_or_default(),
                slots: load.slots,
                // What others have there, and what this machine has.
                free: load.slots.saturating_sub(load.accepted).saturating_sub(held),
                rtt_us: link.as_ref().map(|l| l.conn.rtt_us()),
                state: match &link {
                    None => "not connected".to_owned(),
                    Some(_) if slow && load.closed.is_none() => "ready, too slow to help much".to_owned(),
                    Some(_) => state(&load),
                },
                addresses: agent.peers.addresses(*id).iter().map(ToString::to_string).collect(),
                connected: link.is_some(),
                finished: records.finished_by(&name),
                speed_percent: belief.speed.map(percent),
                memory_mib: link.as_ref().map(|_| load.memory_mib),
                failures: belief.failures,
                heard_ms: link.as_ref().map(|_| (agent.clock.us().saturating_sub(belief.heard_us)) / 1000),
                name,
            }
        })
        .collect();
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    Snapshot {
        this,
        mesh: agent.mesh.name(),
        peers,
        counters: counters(agent, &records),
        alarm: agent.desk.look(Dispatcher::is_alarming),
        not_serving: agent.no_sandbox.clone(),
        discovery_problem: super::nearby::problem(agent),
        joining: agent.peers.joining(),
        forgotten: agent.mesh.forgotten().filter(|_| agent.links.all().is_empty()),
        nearby: super::nearby::strangers(agent),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_ms: agent.clock.ms(),
        port: agent.peers.endpoint.port(),
        lending: agent.lending.shown(agent),
    }
}

/// What the records have counted, and the dispatcher.
pub(super) fn counters(agent: &Agent, records: &super::records::Records) -> Counters {
    let counts = agent.desk.look(Dispatcher::counts);
    let kept = agent.cache.stats();
    Counters {
        cache_not_written: kept.not_written,
        cache_damaged: kept.damaged,
        hedges: counts.hedges,
        hedges_won: counts.hedges_won,
        wasted_ms: counts.wasted_us / 1000,
        compiled_ms: counts.compiled_us / 1000,
        fallbacks: counts.fallbacks,
        overflows: counts.overflows,
        ..records.counters()
    }
}

/// Each label once: `gcc` and `cc` are often the same version.
fn labels(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut labels: Vec<String> = all.collect();
    labels.sort();
    labels.dedup();
    labels
}

fn state(load: &mesh_proto::message::Load) -> String {
    use mesh_proto::message::Closed;
    match load.closed {
        None if load.slots == 0 => "submits only",
        None => "ready",
        Some(Closed::NoSandbox) => "submits only: no sandbox",
        Some(Closed::Paused) => "paused",
        Some(Closed::Off) => "lends nothing: mode off",
        Some(Closed::InUse) => "paused: in use",
        Some(Closed::Battery) => "paused: on battery",
        Some(Closed::Hot) => "paused: too hot",
        Some(Closed::Metered) => "paused: metered network",
        Some(Closed::Memory) => "paused: short of memory",
        Some(Closed::Busy) => "busy with its own work",
        Some(Closed::Disk) => "paused: disk full",
        Some(Closed::Role) => "submits only: its role",
        Some(Closed::Leaving) => "leaving",
    }
    .to_owned()
}
