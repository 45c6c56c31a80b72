//! Machines nearby, by mDNS: announces this one, hears of others (DO).
//!
//! What is heard is a hint: an address is dialled, and the key that answers decides.

use super::{Agent, serve};
use crate::{
    config::{Announce, Config},
    net::{
        discovery::{Discovery, DiscoveryConfig, Event, Sighting},
        endpoint::PORT,
    },
};
use mesh_proto::advert::{Advert, TOOLCHAIN_TAGS_MAX};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

/// RFC 6762's port.
const MDNS_PORT: u16 = 5353;
/// Instances remembered; discovery itself bounds what it tells.
const INSTANCES_MAX: usize = 1024;

pub(super) type Events = Option<mpsc::Receiver<Event>>;

/// What is heard, and what is said.
#[derive(Debug)]
pub(super) struct Nearby {
    discovery: Mutex<Option<Discovery>>,
    heard: Mutex<HashMap<String, Sighting>>,
    changed: Notify,
}

impl Nearby {
    pub(super) fn start(config: &Config, loopback_only: bool, port: u16) -> (Self, Events) {
        let mdns_port = std::env::var(crate::env::MDNS_PORT).ok().and_then(|p| p.parse().ok()).unwrap_or(MDNS_PORT);
        // On the loopback interface alone there is nobody to hear but for tests, which name a port of their own.
        let silent = config.announce == Announce::Off || loopback_only && mdns_port == MDNS_PORT;
        let (discovery, events) = if silent {
            (None, None)
        } else {
            let (discovery, events) =
                Discovery::start(DiscoveryConfig { mdns_port, loopback_only, announce: true }, port);
            (Some(discovery), Some(events))
        };
        let nearby = Self { discovery: Mutex::new(discovery), heard: Mutex::default(), changed: Notify::new() };
        (nearby, events)
    }

    fn with<T>(&self, f: impl FnOnce(&Discovery) -> T) -> Option<T> {
        self.discovery.lock().expect("no panic while held").as_ref().map(f)
    }

    fn sightings(&self) -> Vec<Sighting> {
        self.heard.lock().expect("no panic while held").values().cloned().collect()
    }
}

/// Hears of others until the agent leaves.
pub(super) async fn discover(agent: Arc<Agent>, events: Events) {
    agent.announce();
    let Some(mut events) = events else { return };
    while let Some(event) = events.recv().await {
        match event {
            Event::Sighting(sighting) => {
                if ours(&agent, &sighting) {
                    approach(&agent, &sighting);
                }
                let mut heard = agent.nearby.heard.lock().expect("no panic while held");
                if heard.len() < INSTANCES_MAX || heard.contains_key(&sighting.instance) {
                    heard.insert(sighting.instance.clone(), sighting);
                }
            }
            Event::Gone { instance } => {
                agent.nearby.heard.lock().expect("no panic while held").remove(&instance);
            }
        }
        agent.nearby.changed.notify_waiters();
    }
}

/// Whether an announcement carries this machine's mesh's tag.
fn ours(agent: &Agent, sighting: &Sighting) -> bool {
    let tag = agent.mesh.set().map(|(_, key)| key.mesh_tag(&sighting.instance));
    tag.is_some() && sighting.advert.mesh == tag
}

fn approach(agent: &Agent, sighting: &Sighting) {
    let digest = mesh_proto::digest::Digest::of(sighting.instance.as_bytes());
    let group = u64::from_le_bytes(*digest.0.first_chunk().expect("a digest has 32 bytes")).max(1);
    agent.peers.heard_together(&sighting.addrs, group, agent.clock.ms());
}

/// Says goodbye, so that nobody dials a machine that is gone.
pub(super) async fn goodbye(agent: &Agent) {
    let discovery = agent.nearby.discovery.lock().expect("no panic while held").take();
    if let Some(discovery) = discovery {
        discovery.stop().await;
    }
}

/// The addresses of machines that show a code with these digits, as soon as there are some.
pub(super) async fn showing(agent: &Agent, digits: u16, wait: Duration) -> Vec<SocketAddr> {
    let find = async {
        loop {
            let changed = agent.nearby.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let shown = agent.nearby.sightings().into_iter().filter(|s| s.advert.pairing == Some(digits));
            let addrs: Vec<SocketAddr> = shown.flat_map(|s| s.addrs).collect();
            if !addrs.is_empty() {
                return addrs;
            }
            changed.await;
        }
    };
    tokio::time::timeout(wait, find).await.unwrap_or_default()
}

/// Why discovery does not work, if it does not.
pub(super) fn problem(agent: &Agent) -> Option<String> {
    agent.nearby.with(Discovery::health)?.trouble
}

/// Announcements of meshes that this machine is not in.
pub(super) fn strangers(agent: &Agent) -> u16 {
    let strange = |s: &Sighting| s.advert.mesh.is_some() && !ours(agent, s);
    u16::try_from(agent.nearby.sightings().iter().filter(|s| strange(s)).count()).unwrap_or(u16::MAX)
}

impl Agent {
    /// Says what there is to say now; discovery paces it. A machine that has just joined also looks at what was heard
    /// before it could read the tags.
    pub(super) fn announce(&self) {
        let load = serve::load(self);
        let key = self.mesh.set().map(|(_, key)| key);
        let running = self.slots.running();
        self.nearby.with(|discovery| {
            let instance = discovery.instance();
            let tag = |f: &mesh_proto::toolchain::Fingerprint| key.map(|k| k.toolchain_tag(instance, f));
            let advert = Advert {
                mesh: key.map(|k| k.mesh_tag(instance)),
                toolchains: self.served_toolchains().iter().take(TOOLCHAIN_TAGS_MAX).filter_map(tag).collect(),
                slots: load.slots,
                free: load.slots.saturating_sub(u16::try_from(running).unwrap_or(u16::MAX)),
                pairing: self.peers.inviter.status().map(|s| s.discriminator),
            };
            discovery.announce(advert, key);
        });
        for sighting in self.nearby.sightings() {
            if ours(self, &sighting) {
                approach(self, &sighting);
            }
        }
    }
}

/// The addresses of this machine that others may reach, as a person types them.
pub(super) fn own_addresses(loopback: bool, port: u16) -> Vec<String> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let usable = |i: &&if_addrs::Interface| match i.ip() {
        // An agent that listens on the loopback interface listens on IPv4's.
        IpAddr::V6(ip) => !loopback && !i.is_loopback() && !ip.is_unicast_link_local(),
        IpAddr::V4(ip) => i.is_loopback() == loopback && !ip.is_link_local(),
    };
    let with_port = |ip: IpAddr| match (ip, port) {
        (ip, PORT) => ip.to_string(),
        (ip, port) => SocketAddr::new(ip, port).to_string(),
    };
    all.iter().filter(usable).map(|i| with_port(i.ip())).collect()
}
