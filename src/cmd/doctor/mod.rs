//! `mesh doctor`: what this machine can do, and what to do about what it cannot (DO).
//!
//! It tries the sandbox itself, as the agent does when it starts, and asks the kernel only for the reason.

mod advice;
mod caches;
mod network;

use super::{
    client::{places, snapshot},
    failure::{Failure, UNWELL, out, out_raw},
};
use crate::{
    cli::Json,
    host::kernel::{self, Kernel},
    sandbox,
    view::{
        rows::{SCHEMA, sanitised},
        snapshot::Snapshot,
    },
};
use advice::{Check, Facts, Level, Running};
use network::{Network, Other};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

pub(super) fn run(args: &Json) -> Result<u8, Failure> {
    let (facts, network) = facts()?;
    let mut checks = advice::checks(&facts);
    checks.extend(network.iter().flat_map(network::checks));
    checks.extend(caches::launcher(|name| std::env::var(name).ok()));
    let failures = checks.iter().filter(|check| check.level == Level::Failure).count();
    if args.json {
        out(&json(&checks).to_string());
    } else {
        out_raw(&text(&checks));
    }
    Ok(if failures == 0 { 0 } else { UNWELL })
}

/// What there is to know, of the network only if there is an agent that knows it.
fn facts() -> Result<(Facts, Option<Network>), Failure> {
    let places = places()?;
    let kernel = Kernel::look();
    let now = snapshot(&places).map_err(|failure| failure.text);
    let network = now.as_ref().ok().map(|now| look_at_network(now, kernel.is_container));
    let agent = now.map(|now| Running {
        version: now.version.clone(),
        since: crate::view::time::span(now.uptime_ms),
        not_serving: now.not_serving.clone(),
        groups: kernel::job_groups(now.pid),
    });
    let program =
        std::env::current_exe().map_err(|error| Failure::new(format!("this program has no name: {error}")))?;
    // The running file, even if another has been installed in its place.
    let own = Path::new("/proc/self/exe");
    let sandbox = sandbox::probe(if own.exists() { own } else { &program }, &scratch(&places.cache));
    let facts = Facts {
        agent,
        kernel,
        sandbox: sandbox.map(|capable| capable.enforced),
        cache: (places.cache.display().to_string(), kernel::room(&places.cache)),
        program: program.display().to_string(),
        has_sandbox: cfg!(target_os = "linux"),
    };
    Ok((facts, network))
}

fn look_at_network(now: &Snapshot, is_container: bool) -> Network {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let other = |peer: &crate::view::snapshot::Machine| Other {
        name: peer.name.clone(),
        connected: peer.connected,
        captured: peer.addresses.iter().find_map(|addr| captured(addr.parse().ok()?, &interfaces)),
        addresses: peer.addresses.clone(),
    };
    Network {
        port: now.port,
        discovery_problem: now.discovery_problem.clone(),
        others: now.peers.iter().map(other).collect(),
        is_container,
    }
}

/// An address in the network of one interface that the system reaches through another one. Nothing is sent: a connected
/// UDP socket has chosen its way.
fn captured(to: SocketAddr, interfaces: &[if_addrs::Interface]) -> Option<(IpAddr, String)> {
    let IpAddr::V4(ip) = to.ip() else { return None };
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(to).ok()?;
    let from = socket.local_addr().ok()?.ip();
    let beside = |i: &if_addrs::Interface| match &i.addr {
        if_addrs::IfAddr::V4(own) => {
            let mask = u32::from(own.netmask);
            // A network of one address is a tunnel's end.
            mask != u32::MAX && mask != 0 && u32::from(own.ip) & mask == u32::from(ip) & mask
        }
        if_addrs::IfAddr::V6(_) => false,
    };
    let chosen = interfaces.iter().find(|i| i.ip() == from)?;
    let near: Vec<_> = interfaces.iter().filter(|i| beside(i)).collect();
    let own = interfaces.iter().any(|i| i.ip() == to.ip());
    (!own && !near.is_empty() && near.iter().all(|i| i.name != chosen.name)).then(|| (to.ip(), chosen.name.clone()))
}

/// Where jobs would be tried: beside the toolchains, so that their file system is tried too.
fn scratch(cache: &Path) -> std::path::PathBuf {
    cache.join(crate::store::layout::TOOLCHAINS)
}

fn text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
    let indent = " ".repeat(6 + width + 2);
    let line = |check: &Check| {
        let found = format!("{:<4}  {:<width$}  {}\n", check.level.word(), check.id, sanitised(&check.text));
        if check.hint.is_empty() { found } else { format!("{found}{indent}{}\n", sanitised(&check.hint)) }
    };
    checks.iter().map(line).collect()
}

fn json(checks: &[Check]) -> serde_json::Value {
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            serde_json::json!({
                "id": check.id,
                "level": check.level.word().to_lowercase(),
                "text": check.text,
                "hint": check.hint,
            })
        })
        .collect();
    serde_json::json!({ "schema": SCHEMA, "checks": checks })
}
