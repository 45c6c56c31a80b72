//! Drives the dispatcher: hands on what happens, and what it says to those who do it (DO).

use super::{Agent, link::Link};
use crate::{
    host,
    sched::dispatch::{Ask, AttemptId, Dispatcher, Do, End, HereState, Known, UnitId, Why},
    store::layout,
};
use mesh_proto::peer::PeerId;
use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc};

/// What was learned of costs, bytes of the file at most.
const HISTORY_BYTES_MAX: u64 = 16 << 20;
/// Memory that this machine's own compiles leave free, KiB: below that everything else on it suffers.
const MEMORY_KEPT_KIB: u64 = 512 << 10;

/// What a unit's task is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Offer it to this peer.
    Offer { attempt: AttemptId, peer: PeerId, memory_kib: u64, why: Why },
    /// Start it once more in this machine's own sandbox.
    CopyHere { attempt: AttemptId },
    /// The launcher compiles it; the slot is held for as long as the ticket lives.
    Here { reason: crate::reason::Reason, fallback: bool, why: Why },
    /// This start is not needed any more.
    Cancel { attempt: AttemptId },
}

/// Where a unit's starts are, `None` for this machine, and since when, microseconds.
type Starts = Vec<(Option<PeerId>, u64)>;

#[derive(Debug)]
struct State {
    dispatcher: Dispatcher,
    /// Who does what for a unit. One for each that is under way, and an order or two in each.
    tasks: HashMap<UnitId, mpsc::UnboundedSender<Order>>,
    /// What they are to a person: sources, or programs.
    names: HashMap<UnitId, Vec<u8>>,
}

/// The dispatcher, and who listens to it.
#[derive(Debug)]
pub(super) struct Desk {
    state: Mutex<State>,
    next: AtomicU64,
    /// Something is due at another time than before.
    wake: Notify,
    /// What was learned, as last written.
    saved: AtomicU64,
}

/// A unit at the desk. Dropped, it is gone, with all that it held.
#[derive(Debug)]
pub(super) struct Ticket {
    agent: Arc<Agent>,
    id: UnitId,
    orders: mpsc::UnboundedReceiver<Order>,
}

impl Desk {
    /// With what an agent before this one learned.
    pub(super) fn open(cache: &Path) -> Self {
        let known = host::read_at_most(&layout::history(cache), HISTORY_BYTES_MAX);
        let known: Known = known.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
        let saved = AtomicU64::new(known.history.count());
        let seed = host::wall_ms() ^ u64::from(std::process::id()) << 32;
        let state = Mutex::new(State {
            dispatcher: Dispatcher::new(known, seed),
            tasks: HashMap::new(),
            names: HashMap::new(),
        });
        Self { state, next: AtomicU64::new(1), wake: Notify::new(), saved }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    /// Looks at the dispatcher.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Dispatcher) -> T) -> T {
        look(&self.state().dispatcher)
    }

    /// Every unit that is under way: what it is to a person, and where its starts are since when.
    pub(super) fn under_way(&self) -> Vec<(Vec<u8>, Starts)> {
        let state = self.state();
        let named = |(id, starts)| (state.names.get(&id).cloned().unwrap_or_default(), starts);
        state.dispatcher.under_way().map(named).collect()
    }

    /// Writes what was learned, if there is anything new; blocking.
    pub(super) fn save(&self, cache: &Path) {
        let content = {
            let state = self.state();
            let count = state.dispatcher.learned();
            if self.saved.swap(count, Ordering::Relaxed) == count {
                return;
            }
            postcard::to_stdvec(&state.dispatcher.known())
        };
        let written = content.map_err(std::io::Error::other).and_then(|bytes| {
            let (path, temporary) = (layout::history(cache), layout::history(cache).with_extension("new"));
            std::fs::write(&temporary, bytes)?;
            std::fs::rename(temporary, path)
        });
        if let Err(error) = written {
            tracing::debug!(%error, "what was learned of costs was not kept");
        }
    }
}

impl Agent {
    /// Tells the dispatcher that something happened, and everybody what follows.
    pub(super) fn desk<T>(&self, tell: impl FnOnce(&mut Dispatcher, u64) -> T) -> T {
        let mut state = self.desk.state();
        let due = state.dispatcher.due();
        let result = tell(&mut state.dispatcher, self.clock.us());
        for act in state.dispatcher.take() {
            let (unit, order) = match act {
                Do::Offer { unit, attempt, peer, memory_kib, why } => {
                    (unit, Order::Offer { attempt, peer, memory_kib, why })
                }
                Do::CopyHere { unit, attempt } => (unit, Order::CopyHere { attempt }),
                Do::Here { unit, reason, fallback, why } => (unit, Order::Here { reason, fallback, why }),
                Do::Cancel { unit, attempt } => (unit, Order::Cancel { attempt }),
            };
            if let Some(task) = state.tasks.get(&unit) {
                // Whoever does not listen any more is about to say that it is gone.
                let _ = task.send(order);
            }
        }
        if state.dispatcher.due() != due {
            self.desk.wake.notify_one();
        }
        drop(state);
        result
    }

    /// Brings a unit to the desk.
    pub(super) fn ask(self: &Arc<Self>, ask: Ask, name: &[u8]) -> Ticket {
        let id = self.desk.next.fetch_add(1, Ordering::Relaxed);
        let (sender, orders) = mpsc::unbounded_channel();
        {
            let mut state = self.desk.state();
            state.tasks.insert(id, sender);
            state.names.insert(id, name.to_vec());
        }
        let ticket = Ticket { agent: self.clone(), id, orders };
        self.desk(|dispatcher, now| dispatcher.ask(now, id, ask));
        self.dirty.notify_one();
        ticket
    }

    /// Tells the dispatcher which compilers a peer has and can run, and what the link to it is like.
    pub(super) fn tell_toolchains(&self, link: &Link) {
        let now = Instant::now();
        let mut there = link.toolchains();
        there.retain(|toolchain| !link.shipments.is_quarantined(toolchain, now));
        let rtt_us = link.conn.rtt_us();
        self.desk(|dispatcher, now| {
            dispatcher.link(link.peer, rtt_us, None);
            dispatcher.lends(now, link.peer, there);
        });
    }

    /// Whether anything is under way, either way.
    pub(super) fn is_busy(&self) -> bool {
        self.slots.accepted() > 0 || self.desk.look(Dispatcher::is_busy)
    }

    /// Looks at this machine, for its own units and for those of others.
    pub(super) fn look_around(&self) {
        self.tell_here();
        self.serve_on(super::serve::terms(self));
    }

    /// What this machine is like now, for its own units.
    fn tell_here(&self) {
        let free = self.memory_free_kib().map(|kib| kib.saturating_sub(MEMORY_KEPT_KIB));
        let here = HereState { cores: self.cores(), memory_free_kib: free, copies: self.server.is_some() };
        self.desk(|dispatcher, now| dispatcher.here(now, here));
    }
}

impl Ticket {
    /// What is to be done next.
    pub(super) async fn order(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            // The sender lives as long as this does.
            None => std::future::pending().await,
        }
    }

    /// One start has ended.
    pub(super) fn ended(&self, attempt: AttemptId, end: End) {
        self.agent.desk(|dispatcher, now| dispatcher.ended(now, attempt, end));
        self.agent.dirty.notify_one();
    }

    /// The unit is to be compiled here, whatever it was before: waits for a slot.
    pub(super) async fn stay(&mut self, mut ask: Ask, reason: crate::reason::Reason, fallback: bool) {
        ask.local = Some((reason, fallback));
        let id = self.id;
        self.agent.desk(|dispatcher, now| {
            dispatcher.gone(now, id);
            dispatcher.ask(now, id, ask);
        });
        while !matches!(self.order().await, Order::Here { .. }) {}
    }

    /// The launcher's compiler has ended.
    pub(super) fn compiled_here(self, went_well: bool) {
        let id = self.id;
        self.agent.desk(|dispatcher, now| dispatcher.local_ended(now, id, went_well));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let id = self.id;
        {
            let mut state = self.agent.desk.state();
            state.tasks.remove(&id);
            state.names.remove(&id);
        }
        self.agent.desk(|dispatcher, now| dispatcher.gone(now, id));
        self.agent.changed();
    }
}

/// Has the dispatcher look at the time, while anything is under way.
pub(super) async fn watch(agent: Arc<Agent>) {
    loop {
        let due = agent.desk.look(Dispatcher::due);
        let wait = due.map(|due| Duration::from_micros(due.saturating_sub(agent.clock.us())));
        let later = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = later => agent.desk(Dispatcher::tick),
            () = agent.desk.wake.notified() => {}
        }
    }
}
