//! The loop that knows everybody: launchers, peers, jobs both ways (DO).
//!
//! | file | what |
//! | --- | --- |
//! | [`wire`] | what launchers and commands say on the socket |
//! | `local` | the socket: acknowledge, beat, lease |
//! | `compile` | one unit of ours, from request to verdict; [`outputs`] writes the result |
//! | [`history`] | what was counted, for longer than an agent lives |
//! | `cache` | what was compiled elsewhere once is not compiled again |
//! | `seek` | what another machine has made is had from there; who has what is told |
//! | `desk` | drives the dispatcher, which says where our units go; `starts` does it, `submit` offers a unit to a peer |
//! | `slots` | drives the intake, which says whose job may run here |
//! | `session` | builds: what came of each one's units; room here for what is no compile |
//! | `serve` | jobs of others; `fetch` brings their inputs, `share` from other providers and to them |
//! | `proofs` | whether a compiler may be sent to others; `trial` compiles `samples` here and in a root with nothing else |
//! | `ship` | our compilers to machines that lack them; `give` sends the files, `take` is the other end |
//! | `pack` | content made ready for the wire |
//! | [`dial`] | whom to dial and when (decide); [`links`] and [`link`]: the connections that stand; `peers` drives both |
//! | `mesh` | key and records on disk; founding, pairing, joining |
//! | `guest` | how much is lent, by what the owner says and leaves |
//! | `command` | what `mesh peers` and the others ask; `toolchains` what `mesh toolchain` asks |
//! | `run` | start and end |

pub mod dial;
pub mod history;
pub mod link;
pub mod links;
pub mod outputs;
pub mod records;
pub mod wire;

mod asked;
mod cache;
mod checkouts;
mod command;
mod compile;
mod compilers;
mod desk;
mod fetch;
mod forget;
mod give;
mod guest;
mod here;
mod intro;
mod local;
mod mesh;
mod natives;
mod nearby;
mod pack;
mod peers;
mod phases;
mod proofs;
mod renew;
mod run;
mod samples;
mod seek;
mod serve;
mod session;
mod share;
mod ship;
mod slots;
mod starts;
mod submit;
mod take;
mod toolchains;
mod trial;

#[doc(hidden)]
pub use run::prove_alone;
pub use run::{AgentError, Ended, Options, run};

use crate::{
    compiler::native::Question,
    config::Config,
    host::Clock,
    inputs::{Arrivals, Graph, Retired},
    places::Places,
    reason::Reason,
    sched::dispatch::Dispatcher,
    toolchain::{Registry, Searcher, Toolchain},
};
use links::Links;
use mesh_proto::{limits::TOOLCHAINS_MAX, toolchain::Fingerprint};
use records::Records;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What `-march=native` and its kin come to, by compiler and command; nothing if that cannot be told.
type Natives = HashMap<(Fingerprint, Question), Option<Vec<Vec<u8>>>>;

/// One user's agent.
#[derive(Debug)]
pub struct Agent {
    places: Places,
    config: Config,
    clock: Clock,
    registry: Arc<Registry>,
    compilers: compilers::Compilers,
    searcher: Searcher,
    graph: Mutex<Graph>,
    /// Numbers requests, without the graph's lock.
    arrivals: Arrivals,
    /// What of the graph's entries is no longer true.
    retired: Retired,
    temporaries: Arc<outputs::Temporaries>,
    records: Mutex<Records>,
    history: history::History,
    /// Results that are kept.
    cache: cache::Cache,
    /// Who has which results.
    whereto: seek::Whereto,
    links: Links,
    pulse: local::Pulse,
    /// This machine's own units, and where they are.
    desk: desk::Desk,
    /// Jobs of others.
    slots: slots::Slots,
    /// Builds, and what came of their units.
    sessions: session::Sessions,
    lending: guest::Lending,
    mesh: mesh::Mesh,
    peers: peers::Peers,
    server: Option<Arc<serve::Server>>,
    /// Compilers on their way to other machines.
    giving: give::Giving,
    /// Inputs as they went over the wire lately.
    packs: pack::Packs,
    /// Why there is no server.
    no_sandbox: Option<String>,
    /// Cores that this process may use, as last looked at: the question costs a dozen system calls.
    cores: AtomicU32,
    leaving: CancellationToken,
    /// Compilers that this machine lends.
    served: Mutex<Vec<Arc<Toolchain>>>,
    natives: Mutex<Natives>,
    /// Which compilers are known to be whole.
    proofs: proofs::Proofs,
    /// When the system was asked for its free memory, and what it said.
    memory: Mutex<Option<(u64, Option<u64>)>>,
    nearby: nearby::Nearby,
    /// Only the loopback interface is used.
    loopback: bool,
    /// Counters or load have changed.
    dirty: Notify,
    /// `mesh down`.
    stop: Notify,
    /// When it has stopped, it begins anew.
    again: AtomicBool,
}

impl Agent {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().expect("no panic while held")
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().expect("no panic while held")
    }

    /// Counters, or how busy this machine is, have changed: they are written, and its peers told, soon.
    fn changed(&self) {
        self.dirty.notify_one();
    }

    /// Compilers that run here now, whoever's they are.
    fn running_here(&self) -> u32 {
        self.desk.look(Dispatcher::running_here) + self.slots.running()
    }

    /// Compilers that run here for each hundred that there are cores for; 100 at least.
    fn crowd_percent(&self) -> u16 {
        let percent = self.running_here().saturating_mul(100) / self.cores().max(1);
        u16::try_from(percent.max(100)).unwrap_or(u16::MAX)
    }

    /// What the mesh calls this machine.
    fn own_name(&self) -> String {
        self.mesh.name_of(&self.mesh.me()).unwrap_or_else(|| self.my_name())
    }

    fn cores(&self) -> u32 {
        self.cores.load(Ordering::Relaxed)
    }

    /// The name of this machine: its settings' or its host's.
    fn my_name(&self) -> String {
        self.config.name.clone().unwrap_or_else(crate::host::name)
    }

    fn served(&self) -> Vec<Arc<Toolchain>> {
        self.served.lock().expect("no panic while held").clone()
    }

    fn set_served(&self, toolchains: Vec<Arc<Toolchain>>) {
        *self.served.lock().expect("no panic while held") = toolchains;
        peers::toolchains_changed(self, &self.served_toolchains());
    }

    /// The fingerprints of what it lends; none if it does not serve.
    fn served_toolchains(&self) -> Vec<Fingerprint> {
        // A pause changes nothing of it: what is said of compilers is how they are found again after it.
        if serve::never(self).is_some() {
            return Vec::new();
        }
        let mut all: Vec<Fingerprint> = self.served().iter().map(|t| t.fingerprint).collect();
        let sent = self.server.iter().flat_map(|server| server.sent.list());
        all.extend(sent.map(|(fingerprint, _)| fingerprint));
        all.sort();
        all.dedup();
        all.truncate(TOOLCHAINS_MAX);
        all
    }

    /// As the system said within the last second: the question costs half a millisecond, and offers come in bursts.
    fn memory_free_kib(&self) -> Option<u64> {
        let now = self.clock.ms();
        let mut known = self.memory.lock().expect("no panic while held");
        if known.is_none_or(|(at, _)| now.saturating_sub(at) >= 1000) {
            *known = Some((now, crate::host::memory_free_kib()));
        }
        known.and_then(|(_, free)| free)
    }

    fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    fn may_serve(&self) -> bool {
        self.mesh.role().is_some_and(|role| role.serves())
    }

    /// Whether it makes sense to look at a unit's inputs at all.
    fn may_go_out(self: &Arc<Self>, toolchain: &Arc<Toolchain>) -> Result<(), Reason> {
        match self.mesh.role() {
            None => return Err(Reason::NoMesh),
            Some(role) if !role.submits() => return Err(Reason::Role),
            Some(_) => {}
        }
        if self.links.all().is_empty() {
            return Err(Reason::NoPeer);
        }
        if self.proofs.is_unsafe(&toolchain.fingerprint) {
            return Err(Reason::Unproved);
        }
        let spread = self.spread(toolchain);
        match spread {
            _ if self.proofs.is_on_trial(&toolchain.fingerprint) => Err(Reason::ToolchainComing),
            _ if !self.links.matching(&toolchain.fingerprint).is_empty() => Ok(()),
            ship::Spread::Coming => Err(Reason::ToolchainComing),
            ship::Spread::Settled => Err(Reason::NoMatch),
        }
    }
}
