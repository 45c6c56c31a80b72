//! Starts the agent, and ends it in order (DO).

use super::{
    Agent,
    links::Links,
    local,
    mesh::Mesh,
    outputs::Temporaries,
    peers,
    proofs::{Proof, try_with},
    records::Records,
    serve,
};
use crate::{
    config::{Announce, Config},
    host::Clock,
    inputs::Graph,
    net::{
        endpoint::{Arrivals, Endpoint, EndpointConfig, EndpointError, PORT},
        identity::{Identity, IdentityError},
        pair::Inviter,
        tls::Gate,
    },
    places::Places,
    store::{
        blobs::{self, Blobs},
        layout,
    },
    toolchain::{MeshBinary, Registry, Searcher, Toolchain},
    worker::{run::Worker, sent::AllSent},
};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::OpenOptions,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

/// The load goes out this often at most: what a client must know at once, it is told when it offers.
const PACE: Duration = Duration::from_millis(250);
/// The counters are written this long after they have changed.
const COUNTERS_PACE: Duration = Duration::from_secs(1);
/// How often the free slots that are announced are looked at, seconds; discovery says them when they have changed.
const ANNOUNCE_EVERY_S: u64 = 10;
/// Jobs that run when the agent is told to end have this long.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Threads for what blocks: closures, hashing, files, jobs of others.
const BLOCKING_THREADS_MAX: usize = 256;
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

/// How the agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// This machine has a new key, with which the agent is to begin anew.
    ToBeginAnew,
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
pub fn run(places: &Places, config: Config, options: Options) -> Result<Ended, AgentError> {
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

async fn live(places: &Places, config: Config, options: Options) -> Result<Ended, AgentError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener =
        local::bind(&places.socket).map_err(|source| AgentError::Place { path: places.socket.clone(), source })?;
    let exe = std::env::current_exe()?;
    // The running file, even if another has been installed in its place.
    let own = Path::new("/proc/self/exe");
    let worker = if own.exists() { own } else { &exe };
    let binary = std::fs::metadata(&exe).ok().map(|m| MeshBinary { dev: m.dev(), ino: m.ino() });
    let loopback = std::env::var_os(crate::env::LOOPBACK).is_some_and(|v| v == "1");
    let own = Own { worker: worker.to_owned(), binary, loopback };
    let (agent, arrivals, events) = make(places, config, options, own).await?;
    let _ = std::fs::remove_file(places.starting_marker());
    agent.look_at_owner();
    agent.look_around();
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
        tokio::spawn(super::intro::join_by_environment(agent.clone())),
        tokio::spawn(super::nearby::discover(agent.clone(), events)),
        tokio::spawn(super::compilers::lend(agent.clone())),
        tokio::spawn(super::take::work(agent.clone())),
        tokio::spawn(super::desk::watch(agent.clone())),
        tokio::spawn(super::guest::watch(agent.clone())),
        tokio::spawn(publish(agent.clone())),
        tokio::spawn(housekeep(agent.clone())),
        tokio::spawn(super::cache::count(agent.clone())),
        tokio::spawn(super::seek::tell(agent.clone())),
        tokio::spawn(super::history::keep(agent.clone())),
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
    Ok(if agent.again.load(Ordering::Relaxed) { Ended::ToBeginAnew } else { Ended::Stopped })
}

/// What an agent is made with besides its settings.
struct Own {
    /// What is executed to isolate a job.
    worker: PathBuf,
    /// The program that is no compiler.
    binary: Option<MeshBinary>,
    /// Only the loopback interface is used.
    loopback: bool,
}

/// Proves one compiler with an agent that nobody hears of and that ends with it. `worker` is mesh's own binary; `change`
/// may take something from the compiler. For tests only.
///
/// # Errors
/// Why there is no proof.
#[doc(hidden)]
pub fn prove_alone(
    places: &Places,
    worker: &Path,
    program: &Path,
    change: impl FnOnce(&mut Toolchain),
) -> Result<(), String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|e| said(&e))?.block_on(async {
        let config = Config { announce: Announce::Off, port: Some(0), slots: Some(1), ..Config::default() };
        let own = Own { worker: worker.to_owned(), binary: None, loopback: true };
        let (agent, _arrivals, _events) = make(places, config, Options::default(), own).await.map_err(|e| said(&e))?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let (program, path) = (program.as_os_str().as_bytes(), path.as_bytes());
        let found = agent.registry.lookup(program, b"/", path, std::time::Instant::now()).map_err(|e| said(&e))?;
        let mut changed = Toolchain::clone(&found);
        change(&mut changed);
        if changed.fingerprint != found.fingerprint {
            let runtime = tokio::runtime::Handle::current();
            let tried = tokio::task::spawn_blocking(move || try_with(&agent, &runtime, &found, &changed));
            return tried.await.map_err(|e| said(&e))?;
        }
        agent.prove(&found);
        loop {
            match agent.proof(&found.fingerprint) {
                Proof::Proved => return Ok(()),
                Proof::Unproved(why) => return Err(why),
                Proof::Pending => tokio::time::sleep(PACE).await,
            }
        }
    })
}

async fn make(
    places: &Places,
    config: Config,
    options: Options,
    own: Own,
) -> Result<(Arc<Agent>, Arrivals, super::nearby::Events), AgentError> {
    let identity = Arc::new(Identity::open(&places.state)?);
    let gate = Arc::new(Gate::default());
    let mesh = Mesh::open(&places.state, identity.clone(), gate.clone());
    let loopback = own.loopback;
    let port = options.port.or(config.port).unwrap_or(PORT);
    let at = EndpointConfig { ip: loopback.then_some(LOOPBACK), port };
    let (endpoint, arrivals) = Endpoint::bind(&at, identity, gate.clone())?;
    let clock = Clock::default();
    let inviter = Inviter::new(gate, move || clock.ms());
    let registry = Arc::new(Registry::open(&places.cache, own.binary));
    let slots = options.slots.or(config.slots).map_or_else(crate::host::cores, u32::from);
    let cache = places.cache.clone();
    let worker = own.worker.clone();
    let server = tokio::task::spawn_blocking(move || server(&worker, &cache, slots)).await;
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
    let giving = super::give::Giving::new(config.toolchain_rate);
    let agent = Agent {
        places: places.clone(),
        compilers: super::compilers::Compilers::default(),
        arrivals: graph.arrivals(),
        retired: graph.retired(),
        graph: Mutex::new(graph),
        searcher: Searcher::new(&places.cache),
        temporaries: Temporaries::sweep(&places.runtime),
        records: Mutex::new(Records::default()),
        history: super::history::History::new(&places.state),
        cache: super::cache::Cache::open(&places.cache, &config),
        whereto: super::seek::Whereto::default(),
        links: Links::default(),
        pulse,
        desk: super::desk::Desk::open(&places.cache),
        slots: super::slots::Slots::default(),
        sessions: super::session::Sessions::default(),
        lending: super::guest::Lending::open(places, &config, clock.ms()),
        cores: AtomicU32::new(crate::host::cores()),
        leaving: CancellationToken::new(),
        dirty: Notify::new(),
        stop: Notify::new(),
        again: AtomicBool::new(false),
        served: Mutex::default(),
        natives: Mutex::default(),
        proofs: super::proofs::Proofs::open(&places.cache, &own.worker),
        memory: Mutex::default(),
        nearby,
        loopback,
        config,
        clock,
        registry,
        mesh,
        peers,
        server: server.map(Arc::new),
        giving,
        packs: super::pack::Packs::default(),
        no_sandbox,
    };
    Ok((Arc::new(agent), arrivals, events))
}

/// What this machine lends, if it can isolate jobs; blocking.
pub(super) fn server(exe: &Path, cache: &Path, slots: u32) -> Result<serve::Server, String> {
    if slots == 0 {
        return Err("its settings say slots = 0".to_owned());
    }
    let worker = Worker::new(exe, cache).map_err(|e| e.why)?;
    let blobs = Blobs::open(cache, blobs::STORE_BYTES_MAX).map_err(|e| e.to_string())?;
    let sent = AllSent::open(cache).map_err(|e| e.to_string())?;
    Ok(serve::Server::new(Arc::new(worker), Arc::new(blobs), sent, slots))
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
        if agent.is_busy() || seconds.is_multiple_of(ANNOUNCE_EVERY_S) {
            agent.look_around();
        }
        let load = serve::load(&agent);
        if seconds.is_multiple_of(ANNOUNCE_EVERY_S) {
            agent.cores.store(crate::host::cores(), Ordering::Relaxed);
            for link in agent.links.all() {
                agent.tell_toolchains(&link);
            }
            if announced != Some(load) {
                announced = Some(load);
                agent.announce();
            }
        }
        if seconds.is_multiple_of(SAVE_INPUTS_EVERY_S) {
            let (saving, mut so_far) = (agent.clone(), saved);
            let done = tokio::task::spawn_blocking(move || {
                save_inputs(&saving, &mut so_far);
                saving.desk.save(&saving.places.cache);
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
    agent.serve_on(serve::terms(agent));
    for link in agent.links.all() {
        link.tell(mesh_proto::message::Control::Leaving);
    }
    let deadline = tokio::time::Instant::now() + DRAIN_MAX;
    let busy = || {
        // A launcher waits from its question to its verdict: what came of its unit may be on its way to the disk.
        !agent.slots.is_idle() || agent.pulse.waiting() > 0
    };
    while busy() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    super::nearby::goodbye(agent).await;
    agent.records().write(&agent.places.state);
    super::history::add(agent);
    save_inputs(agent, &mut 0);
    agent.desk.save(&agent.places.cache);
    agent.peers.endpoint.close("leaving").await;
}
