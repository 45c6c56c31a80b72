//! Starts the agent, and ends it in order (DO).

use super::{Agent, links::Links, local, mesh::Mesh, outputs::Temporaries, peers, records::Records, serve};
use crate::{
    config::Config,
    host::Clock,
    inputs::Graph,
    net::{
        endpoint::{Arrivals, Endpoint, EndpointConfig, EndpointError, PORT},
        identity::{Identity, IdentityError},
        pair::Inviter,
        tls::Gate,
    },
    places::Places,
    sched::admit,
    store::{
        blobs::{self, Blobs},
        layout,
    },
    toolchain::{MeshBinary, Registry, Searcher},
    worker::run::Worker,
};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::OpenOptions,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

/// The load goes out this often at most.
const PACE: Duration = Duration::from_millis(50);
/// The counters are written this long after they have changed.
const COUNTERS_PACE: Duration = Duration::from_secs(1);
/// How often the free slots that are announced are looked at, seconds; discovery says them when they have changed.
const ANNOUNCE_EVERY_S: u64 = 10;
/// Jobs that run when the agent is told to end have this long.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Threads for what blocks: closures, hashing, files, jobs of others.
const BLOCKING_THREADS_MAX: usize = 256;
/// Directories that are looked through for compilers to lend, besides those of `PATH`.
const USUAL_DIRS: &[&str] = &["/usr/local/bin", "/usr/bin", "/bin", "/opt/homebrew/bin"];
/// The machine has compiled nothing for this long when the rest of its compilers are looked for.
const SCAN_QUIET: Duration = Duration::from_secs(30);
/// The compilers that most builds name, lent from the start.
const USUAL_NAMES: &[&str] = &["gcc", "g++", "cc", "c++", "clang", "clang++"];
/// What is known of inputs is written this often at most, seconds, and when the agent ends.
const SAVE_INPUTS_EVERY_S: u64 = 300;
/// Files that must have been read anew before that is worth it.
const LEARNED_MIN: u64 = 16;
/// The agent's address may be any of the host's.
const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// What the command line says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// `--slots`.
    pub slots: Option<u16>,
    /// `--port`.
    pub port: Option<u16>,
}

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// One runs already.
    #[error("an agent is running already for this user. To start it anew: mesh down, then mesh up")]
    Running,
    /// A directory or file of its own cannot be used.
    #[error("{path} cannot be used: {source}")]
    Place {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Signals or the runtime.
    #[error("the system refuses what an agent needs: {0}")]
    System(#[from] std::io::Error),
}

/// Runs the agent until it is told to stop, by a signal or by `mesh down`.
///
/// # Errors
/// If it cannot start.
pub fn run(places: &Places, config: Config, options: Options) -> Result<(), AgentError> {
    for dir in [&places.runtime, &places.state, &places.cache] {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| AgentError::Place { path: dir.clone(), source })?;
    }
    let _lock = lock(places)?;
    let _ = std::fs::remove_file(places.frozen_marker());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(AgentError::System)?;
    let ended = runtime.block_on(live(places, config, options));
    // Blocking work that is still under way belongs to launchers that are gone.
    runtime.shutdown_background();
    let _ = std::fs::remove_file(&places.socket);
    ended
}

/// The lock is held for as long as the file is open; a second agent cannot have it.
fn lock(places: &Places) -> Result<std::fs::File, AgentError> {
    let path = places.lock();
    let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = open.map_err(|source| AgentError::Place { path, source })?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| AgentError::Running)?;
    Ok(file)
}

async fn live(places: &Places, config: Config, options: Options) -> Result<(), AgentError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener =
        local::bind(&places.socket).map_err(|source| AgentError::Place { path: places.socket.clone(), source })?;
    let (agent, arrivals, events) = make(places, config, options).await?;
    let _ = std::fs::remove_file(places.starting_marker());
    tracing::info!("{} listens on port {}", agent.mesh.me().short(), agent.peers.endpoint.port());
    if let Some(why) = &agent.no_sandbox {
        tracing::warn!("this machine does not compile for others: {why}");
    }
    let tasks = [
        tokio::spawn(local::serve(agent.clone(), listener)),
        tokio::spawn(local::beat(agent.clone())),
        tokio::spawn(peers::accept(agent.clone(), arrivals)),
        tokio::spawn(peers::dial(agent.clone())),
        tokio::spawn(peers::resolve_fixed(agent.clone())),
        tokio::spawn(super::nearby::discover(agent.clone(), events)),
        tokio::spawn(find_toolchains(agent.clone())),
        tokio::spawn(publish(agent.clone())),
        tokio::spawn(housekeep(agent.clone())),
    ];
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = agent.stop.notified() => {}
    }
    leave(&agent).await;
    for task in tasks {
        task.abort();
    }
    Ok(())
}

async fn make(
    places: &Places,
    config: Config,
    options: Options,
) -> Result<(Arc<Agent>, Arrivals, super::nearby::Events), AgentError> {
    let identity = Arc::new(Identity::open(&places.state)?);
    let gate = Arc::new(Gate::default());
    let mesh = Mesh::open(&places.state, identity.clone(), gate.clone());
    let loopback = std::env::var_os(crate::env::LOOPBACK).is_some_and(|v| v == "1");
    let port = options.port.or(config.port).unwrap_or(PORT);
    let at = EndpointConfig { ip: loopback.then_some(LOOPBACK), port };
    let (endpoint, arrivals) = Endpoint::bind(&at, identity, gate.clone())?;
    let clock = Clock::default();
    let inviter = Inviter::new(gate, move || clock.ms());
    let exe = std::env::current_exe()?;
    let binary = std::fs::metadata(&exe).ok().map(|m| MeshBinary { dev: m.dev(), ino: m.ino() });
    let registry = Arc::new(Registry::open(&places.cache, binary));
    let slots = options.slots.or(config.slots).map_or_else(|| admit::slots(crate::host::cores()), u32::from);
    let cache = places.cache.clone();
    let server = tokio::task::spawn_blocking(move || server(&exe, &cache, slots)).await;
    let (server, no_sandbox) = match server.unwrap_or_else(|_| Err("the sandbox could not be tried".to_owned())) {
        Ok(server) => (Some(server), None),
        Err(why) => (None, Some(why)),
    };
    let peers = peers::Peers::new(&places.state, endpoint, inviter, &config.peers);
    let mut graph = Graph::new();
    graph.load_from(&layout::inputs(&places.cache));
    let pulse =
        local::Pulse::open(&places.beat()).map_err(|source| AgentError::Place { path: places.beat(), source })?;
    let (nearby, events) = super::nearby::Nearby::start(&config, loopback, peers.endpoint.port());
    let agent = Agent {
        places: places.clone(),
        compilers: super::compilers::Compilers::default(),
        arrivals: graph.arrivals(),
        retired: graph.retired(),
        graph: Mutex::new(graph),
        searcher: Searcher::new(&places.cache),
        temporaries: Temporaries::sweep(&places.runtime),
        records: Mutex::new(Records::default()),
        links: Links::default(),
        pulse,
        leases: AtomicU32::new(0),
        cores: AtomicU32::new(crate::host::cores()),
        leaving: CancellationToken::new(),
        dirty: Notify::new(),
        stop: Notify::new(),
        served: Mutex::default(),
        natives: Mutex::default(),
        memory: Mutex::default(),
        nearby,
        loopback,
        config,
        clock,
        registry,
        mesh,
        peers,
        server: server.map(Arc::new),
        packs: super::pack::Packs::default(),
        no_sandbox,
    };
    Ok((Arc::new(agent), arrivals, events))
}

/// What this machine lends, if it can isolate jobs; blocking.
fn server(exe: &std::path::Path, cache: &std::path::Path, slots: u32) -> Result<serve::Server, String> {
    if slots == 0 {
        return Err("its settings say slots = 0".to_owned());
    }
    // The running file, even if another has been installed in its place.
    let own = std::path::Path::new("/proc/self/exe");
    let exe = if own.exists() { own } else { exe };
    let worker = Worker::new(exe, cache).map_err(|e| e.why)?;
    let blobs = Blobs::open(cache, blobs::STORE_BYTES_MAX).map_err(|e| e.to_string())?;
    Ok(serve::Server::new(Arc::new(worker), Arc::new(blobs), slots))
}

/// Finds the compilers that this machine lends, and makes them ready, in the background.
async fn find_toolchains(agent: Arc<Agent>) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).filter(|p| p.is_absolute()).collect();
    for dir in USUAL_DIRS.iter().map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs.truncate(64);
    let (finding, path_dirs) = (agent.clone(), dirs.clone());
    let usual = tokio::task::spawn_blocking(move || {
        let path = std::env::join_paths(&path_dirs).unwrap_or_default();
        let look = |name: &&str| {
            finding.registry.lookup(name.as_bytes(), b"/", path.as_encoded_bytes(), std::time::Instant::now()).ok()
        };
        USUAL_NAMES.iter().filter_map(look).collect::<Vec<_>>()
    });
    agent.set_served(usual.await.unwrap_or_default());
    // All drivers of a machine take seconds of CPU, the first time: not while a build wants them.
    let mut seen = agent.records().counters();
    loop {
        tokio::select! {
            () = tokio::time::sleep(SCAN_QUIET) => {}
            () = agent.leaving.cancelled() => return,
        }
        let now = agent.records().counters();
        if std::mem::replace(&mut seen, now) == seen {
            break;
        }
    }
    let finding = agent.clone();
    let found = tokio::task::spawn_blocking(move || finding.registry.scan(&dirs)).await.unwrap_or_default();
    tracing::info!("{} compilers", found.len());
    if !found.is_empty() {
        agent.set_served(found);
    }
}

/// Writes the counters and tells the peers how busy this machine is, on change and not too often.
async fn publish(agent: Arc<Agent>) {
    let mut write_at = None;
    loop {
        let due = async {
            match write_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let is_due = tokio::select! {
            () = agent.dirty.notified() => false,
            () = due => true,
        };
        for link in agent.links.all() {
            link.tell_load(serve::load_for(&agent, &link));
        }
        if is_due {
            write_at = None;
            let writing = agent.clone();
            let _ = tokio::task::spawn_blocking(move || writing.records().write(&writing.places.state)).await;
        } else if write_at.is_none() && agent.records().is_dirty() {
            write_at = Some(tokio::time::Instant::now() + COUNTERS_PACE);
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Once a second: takes away the marker that a launcher left when this agent was frozen, and keeps what is announced true.
async fn housekeep(agent: Arc<Agent>) {
    let marker = agent.places.frozen_marker();
    let (mut seconds, mut announced, mut saved) = (0u64, None, 0);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        seconds += 1;
        let load = serve::load(&agent);
        if seconds.is_multiple_of(ANNOUNCE_EVERY_S) {
            agent.cores.store(crate::host::cores(), Ordering::Relaxed);
            if announced != Some(load) {
                announced = Some(load);
                agent.announce();
            }
        }
        if seconds.is_multiple_of(SAVE_INPUTS_EVERY_S) {
            let (saving, mut so_far) = (agent.clone(), saved);
            let done = tokio::task::spawn_blocking(move || {
                save_inputs(&saving, &mut so_far);
                so_far
            });
            saved = done.await.unwrap_or(saved);
        }
        if marker.exists() {
            tracing::warn!("this agent was frozen for a while; launchers compiled without it");
            let _ = std::fs::remove_file(&marker);
        }
    }
}

/// Writes what is known of the files that units read, if that is worth it.
fn save_inputs(agent: &Agent, saved: &mut u64) {
    let graph = agent.graph();
    let learned = graph.learned();
    if learned.saturating_sub(*saved) < LEARNED_MIN {
        return;
    }
    let content = graph.saved();
    // Written without the lock: units wait for it.
    drop(graph);
    *saved = learned;
    if let Err(error) = crate::inputs::memory::write(&layout::inputs(&agent.places.cache), &content) {
        tracing::debug!(%error, "what is known of inputs was not kept");
    }
}

/// Takes no new work, lets what runs end, says goodbye.
async fn leave(agent: &Arc<Agent>) {
    tracing::info!("leaving");
    agent.leaving.cancel();
    for link in agent.links.all() {
        link.tell(mesh_proto::message::Control::Leaving);
    }
    let deadline = tokio::time::Instant::now() + DRAIN_MAX;
    let busy = || {
        let serving = agent.server.as_ref().map_or(0, |server| server.accepted());
        serving > 0 || agent.links.all().iter().any(|l| l.in_flight() > 0)
    };
    while busy() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    super::nearby::goodbye(agent).await;
    agent.records().write(&agent.places.state);
    save_inputs(agent, &mut 0);
    agent.peers.endpoint.close("leaving").await;
}
