//! Announces this agent over mDNS and tells of others (DO).
//!
//! What is heard is a hint: addresses to dial and tags to recognise, never a proof and never the end of a connection.
//! mDNS may fail in many ways (a port held by another program, a network that forbids multicast, its thread dying);
//! none of them reaches the agent, which reads the reason in [`Discovery::health`] while a new try is made.

pub use super::announce::Sighting;
use super::announce::{Heard, is_virtual, update};
use mdns_sd::{
    DaemonEvent, Error, IfKind, IfPredicate, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent,
    ServiceInfo,
};
use mesh_proto::advert::{Advert, DiscKey};
use rand_core::{OsRng, RngCore};
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

/// The service type.
const SERVICE: &str = "_mesh._udp.local.";
/// Letters of an instance's name.
const INSTANCE_LETTERS: usize = 8;
/// Events that wait for the agent.
const EVENTS_MAX: usize = 256;
/// A goodbye is believed only if the instance stays away this long: some are followed by a new announcement.
const GONE_AFTER: Duration = Duration::from_secs(2);
/// Waits between tries after a failure: the first and the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);
/// A session that lasted this long was a good one: the next failure starts with the first wait again.
const GOOD_SESSION: Duration = Duration::from_secs(60);
/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// Tries of a command while the daemon's queue is full, and the wait between them.
const COMMAND_TRIES: usize = 20;
const COMMAND_WAIT: Duration = Duration::from_millis(25);
/// How long an instance whose address failed has for answering that it is still there.
const VERIFY: Duration = Duration::from_secs(3);
/// An announcement that no interface has taken after this long is a trouble worth telling.
const UNHEARD: Duration = Duration::from_secs(10);
/// Instances that may await verification.
const VERIFY_MAX: usize = 16;

/// How to discover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// The mDNS port; another one than 5353 makes a world of its own, for tests.
    pub mdns_port: u16,
    /// Only the loopback interface, which otherwise is left out.
    pub loopback_only: bool,
    /// Whether to announce this agent, or only to listen.
    pub announce: bool,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self { mdns_port: mdns_sd::MDNS_PORT, loopback_only: false, announce: true }
    }
}

/// What discovery tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An instance is there, or says something new.
    Sighting(Sighting),
    /// An instance said goodbye, or was not heard for long. No reason to end a connection.
    Gone {
        /// Its name.
        instance: String,
    },
}

/// How discovery is doing, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// What is wrong, if anything is.
    pub trouble: Option<String>,
    /// Sightings there was no room for: somebody announces very many instances.
    pub dropped: u64,
}

/// What is to be said, and by whom members are recognised.
#[derive(Debug, Clone, Default)]
struct Wanted {
    advert: Advert,
    key: Option<DiscKey>,
}

/// The running discovery. Dropped, it stops without a goodbye.
#[derive(Debug)]
pub struct Discovery {
    instance: String,
    wanted: watch::Sender<Wanted>,
    verify: mpsc::Sender<String>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
    health: Arc<Mutex<Health>>,
}

impl Drop for Discovery {
    fn drop(&mut self) {
        if self.stop.is_some() {
            self.task.abort();
        }
    }
}

impl Discovery {
    /// Starts; `port` is where this agent's endpoint listens. Needs a running tokio runtime. Nothing is announced
    /// before the first [`Discovery::announce`].
    #[must_use]
    pub fn start(config: DiscoveryConfig, port: u16) -> (Self, mpsc::Receiver<Event>) {
        let instance = random_instance();
        let health = Arc::new(Mutex::new(Health::default()));
        let (wanted, wanted_seen) = watch::channel(Wanted::default());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (verify, verify_asked) = mpsc::channel(VERIFY_MAX);
        let (events, events_seen) = mpsc::channel(EVENTS_MAX);
        let runner = Runner {
            config,
            port,
            instance: instance.clone(),
            wanted: wanted_seen,
            verify: verify_asked,
            events,
            health: health.clone(),
            heard: Heard::default(),
            leaving: BTreeMap::new(),
        };
        let task = tokio::spawn(runner.run(stopped));
        (Self { instance, wanted, verify, stop: Some(stop), task, health }, events_seen)
    }

    /// This agent's instance name: part of each tag that it announces.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Says what to announce from now on, and the key by which members are told from strangers. Announced as often as
    /// is decent, not as often as called.
    pub fn announce(&self, advert: Advert, key: Option<DiscKey>) {
        self.wanted.send_replace(Wanted { advert, key });
    }

    /// Says that an instance's addresses did not answer: it is asked whether it is still there, and if not, it is gone
    /// sooner than its record's 75 minutes.
    pub fn doubt(&self, instance: &str) {
        // Full: there is doubt about many others already.
        let _ = self.verify.try_send(instance.to_owned());
    }

    /// How it is doing.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says goodbye to the network and stops.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if tokio::time::timeout(2 * GOODBYE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// A name that nobody can connect with a person or with the last start.
fn random_instance() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random = [0; INSTANCE_LETTERS];
    OsRng.fill_bytes(&mut random);
    random.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

/// Why a session with the mDNS daemon ended.
enum End {
    Stopped,
    Failed(String),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error.to_string())
    }
}

struct Runner {
    config: DiscoveryConfig,
    port: u16,
    instance: String,
    wanted: watch::Receiver<Wanted>,
    verify: mpsc::Receiver<String>,
    events: mpsc::Sender<Event>,
    health: Arc<Mutex<Health>>,
    heard: Heard,
    /// Instances that said goodbye, and when that is believed.
    leaving: BTreeMap<String, Instant>,
}

impl Runner {
    async fn run(mut self, mut stopped: tokio::sync::oneshot::Receiver<()>) {
        let mut wait = RETRY_FIRST;
        loop {
            let began = Instant::now();
            let why = match self.session(&mut stopped).await {
                End::Stopped => return,
                End::Failed(why) => why,
            };
            tracing::debug!(%why, "mDNS failed; trying again later");
            self.trouble(Some(why));
            if began.elapsed() >= GOOD_SESSION {
                wait = RETRY_FIRST;
            }
            tokio::select! {
                _ = &mut stopped => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RETRY_LAST);
        }
    }

    fn trouble(&self, trouble: Option<String>) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.trouble = trouble;
        health.dropped = self.heard.dropped();
    }

    /// One life of the mDNS thread.
    async fn session(&mut self, stopped: &mut tokio::sync::oneshot::Receiver<()>) -> End {
        if let Err(error) = can_share(self.config.mdns_port) {
            return End::Failed(format!("port {} is held exclusively: {error}", self.config.mdns_port));
        }
        let daemon = match ServiceDaemon::new_with_port(self.config.mdns_port) {
            Ok(daemon) => daemon,
            Err(error) => return error.into(),
        };
        let end = self.listen(&daemon, stopped).await.unwrap_or_else(|end| end);
        // The thread must not outlive the session, or two of them would answer for one agent.
        if let Ok(done) = daemon.shutdown() {
            let _ = tokio::time::timeout(GOODBYE, done.recv_async()).await;
        }
        end
    }

    async fn listen(
        &mut self,
        daemon: &ServiceDaemon,
        stopped: &mut tokio::sync::oneshot::Receiver<()>,
    ) -> Result<End, End> {
        self.choose_interfaces(daemon).await?;
        let monitor = command(|| daemon.monitor()).await?;
        let mut browse = command(|| daemon.browse(SERVICE)).await?;
        self.trouble(None);
        let mut announced: Option<(Advert, Instant)> = None;
        let mut unheard_at: Option<Instant> = None;
        self.wanted.mark_changed();
        // What nobody asked to announce yet is not announced.
        let mut ready = self.wanted.borrow().advert != Advert::default();
        loop {
            let next = self.next_announcement(ready, announced.as_ref());
            let update_at = next.as_ref().map(|(_, at)| *at);
            let gone_at = self.leaving.values().min().copied();
            tokio::select! {
                _ = &mut *stopped => {
                    goodbye(daemon, &self.fullname()).await;
                    return Ok(End::Stopped);
                }
                changed = self.wanted.changed() => {
                    ready = ready || self.wanted.borrow_and_update().advert != Advert::default();
                    if changed.is_err() {
                        return Ok(End::Stopped);
                    }
                }
                () = until(update_at) => {
                    let Some((advert, _)) = next else { continue };
                    let info = self.service(&advert)?;
                    command(|| daemon.register(info.clone())).await?;
                    announced = Some((advert, Instant::now()));
                    unheard_at = unheard_at.or(Some(Instant::now() + UNHEARD));
                }
                () = until(unheard_at) => {
                    unheard_at = None;
                    self.trouble(Some("no network interface takes the announcement".to_owned()));
                }
                () = until(gone_at) => self.believe_goodbyes().await,
                event = browse.recv_async() => match event {
                    Ok(event) => self.hear(event).await,
                    // We were too slow, or the daemon is gone; the next command tells which.
                    Err(_) => browse = command(|| daemon.browse(SERVICE)).await?,
                },
                event = monitor.recv_async() => {
                    if matches!(event, Ok(DaemonEvent::Announce(..))) {
                        unheard_at = None;
                    }
                    self.observe(event)?;
                }
                Some(instance) = self.verify.recv() => {
                    let name = format!("{instance}.{SERVICE}");
                    command(|| daemon.verify(name.clone(), VERIFY)).await?;
                }
            }
        }
    }

    async fn choose_interfaces(&self, daemon: &ServiceDaemon) -> Result<(), End> {
        if self.config.loopback_only {
            command(|| daemon.disable_interface(IfKind::All)).await?;
            command(|| daemon.enable_interface(IfKind::LoopbackV4)).await?;
        } else {
            let virtual_ones = IfKind::Predicate(IfPredicate::new(|interface| is_virtual(&interface.name)));
            let without = vec![IfKind::LoopbackV4, IfKind::LoopbackV6, virtual_ones];
            command(|| daemon.disable_interface(without.clone())).await?;
        }
        Ok(())
    }

    fn fullname(&self) -> String {
        format!("{}.{SERVICE}", self.instance)
    }

    /// What to announce next and when, if anything.
    fn next_announcement(&self, ready: bool, announced: Option<&(Advert, Instant)>) -> Option<(Advert, Instant)> {
        if !self.config.announce || !ready {
            return None;
        }
        let now = Instant::now();
        let since = announced.map_or(Duration::MAX, |(_, at)| now.saturating_duration_since(*at));
        let (advert, wait) = update(announced.map(|(advert, _)| advert), &self.wanted.borrow().advert, since)?;
        Some((advert, now + wait))
    }

    fn service(&self, advert: &Advert) -> Result<ServiceInfo, End> {
        let host = format!("{}.local.", self.instance);
        let txt = advert.to_txt();
        let addresses = if self.config.loopback_only { "127.0.0.1" } else { "" };
        let info = ServiceInfo::new(SERVICE, &self.instance, &host, addresses, self.port, txt.as_slice())?;
        Ok(if self.config.loopback_only { info } else { info.enable_addr_auto() })
    }

    fn observe(&self, event: Result<DaemonEvent, mdns_sd::RecvError>) -> Result<(), End> {
        match event {
            Ok(DaemonEvent::Error(error)) => self.trouble(Some(error.to_string())),
            Ok(DaemonEvent::Announce(..)) => self.trouble(None),
            Ok(_) => {}
            Err(_) => return Err(End::Failed("the mDNS thread ended".to_owned())),
        }
        Ok(())
    }

    async fn hear(&mut self, event: ServiceEvent) {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let Some(sighting) = sighting(&service) else { return };
                if sighting.instance == self.instance {
                    return;
                }
                self.leaving.remove(&sighting.instance);
                let kin = {
                    let wanted = self.wanted.borrow();
                    let tag = wanted.key.map(|key| key.mesh_tag(&sighting.instance));
                    tag.is_some() && tag == sighting.advert.mesh
                };
                let instance = sighting.instance.clone();
                if self.heard.see(sighting, kin)
                    && let Some(sighting) = self.heard.get(&instance)
                {
                    // Waiting here at worst ends the subscription, which is then made again.
                    let _ = self.events.send(Event::Sighting(sighting.clone())).await;
                }
            }
            ServiceEvent::ServiceRemoved(_, name) => {
                if let Some(instance) = instance_of(&name).filter(|i| self.heard.get(i).is_some()) {
                    self.leaving.entry(instance.to_owned()).or_insert(Instant::now() + GONE_AFTER);
                }
            }
            _ => {}
        }
    }

    async fn believe_goodbyes(&mut self) {
        let now = Instant::now();
        let gone: Vec<String> = self.leaving.iter().filter(|(_, at)| **at <= now).map(|(i, _)| i.clone()).collect();
        for instance in gone {
            self.leaving.remove(&instance);
            if self.heard.forget(&instance) {
                let _ = self.events.send(Event::Gone { instance }).await;
            }
        }
    }
}

/// Waits until then; for ever if there is no then.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Gives the daemon a command, again for a while if its queue is full.
async fn command<T>(give: impl Fn() -> mdns_sd::Result<T>) -> Result<T, End> {
    for _ in 1..COMMAND_TRIES {
        match give() {
            Err(Error::Again) => tokio::time::sleep(COMMAND_WAIT).await,
            other => return other.map_err(End::from),
        }
    }
    give().map_err(End::from)
}

/// Whether the mDNS port can be had beside others. The daemon opens its sockets without telling when that fails, and
/// then hears nothing for ever: avahi's `disallow-other-stacks=yes` does that.
fn can_share(port: u16) -> rustix::io::Result<()> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Not every system has it; those get along without.
    let _ = sockopt::set_socket_reuseport(&socket, true);
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
}

/// Takes this agent's records back. Returns when the packet is out, because an exit before that loses it.
async fn goodbye(daemon: &ServiceDaemon, fullname: &str) {
    let done: Result<Receiver<_>, End> = command(|| daemon.unregister(fullname)).await;
    if let Ok(done) = done {
        let _ = tokio::time::timeout(GOODBYE, done.recv_async()).await;
    }
}

/// The instance in a full name, if it is one that may be shown.
fn instance_of(fullname: &str) -> Option<&str> {
    let instance = fullname.strip_suffix(SERVICE)?.strip_suffix('.')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (!instance.is_empty() && instance.len() <= 63 && instance.bytes().all(plain)).then_some(instance)
}

/// What a resolved service says, if it is ours and well-formed.
fn sighting(service: &ResolvedService) -> Option<Sighting> {
    let instance = instance_of(&service.fullname)?.to_owned();
    let advert = Advert::from_txt(|key| service.get_property_val(key).flatten()).ok()?;
    let port = service.port;
    let addrs: Vec<SocketAddr> = service
        .addresses
        .iter()
        .filter_map(|ip| match ip {
            ScopedIp::V4(v4) => Some(SocketAddr::from((*v4.addr(), port))),
            ScopedIp::V6(v6) => {
                // Without its interface a link-local address leads nowhere.
                let scope = if v6.addr().is_unicast_link_local() { v6.scope_id().index } else { 0 };
                Some(SocketAddrV6::new(*v6.addr(), port, 0, scope).into())
            }
            _ => None,
        })
        .collect();
    (port != 0 && !addrs.is_empty()).then_some(Sighting { instance, addrs, advert })
}
