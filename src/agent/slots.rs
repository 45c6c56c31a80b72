//! Drives the intake: which job of another machine may run now (DO).

use super::{Agent, link::Link};
use crate::sched::{
    guest::Terms,
    intake::{Act, Intake, JobId},
};
use mesh_proto::{job::Refusal, message::Load, peer::PeerId};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};
use tokio::sync::watch;

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waits,
    Runs,
    GivenUp(Refusal),
}

#[derive(Debug, Default)]
struct State {
    intake: Intake,
    next: JobId,
    /// One for each job that was let in.
    jobs: HashMap<JobId, watch::Sender<Stage>>,
    /// Whose they are, and since when they run, microseconds.
    run: HashMap<JobId, (PeerId, Option<u64>)>,
}

/// Slots, and who has them.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<State>, AtomicU32);

/// An answer that is on its way: its job has no slot any more, but the agent must not end.
#[derive(Debug)]
pub(super) struct Answering<'a>(&'a Slots);

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.1.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A job that was let in. Dropped, it has ended.
#[derive(Debug)]
pub(super) struct Place {
    agent: Arc<Agent>,
    id: JobId,
    stage: watch::Receiver<Stage>,
}

impl Slots {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while held")
    }

    /// Counts a job whose answer is not yet sent, for as long as this lives.
    pub(super) fn answering(&self) -> Answering<'_> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Answering(self)
    }

    /// Whether anybody still waits for this machine.
    pub(super) fn is_idle(&self) -> bool {
        self.accepted() == 0 && self.1.load(Ordering::Relaxed) == 0
    }

    /// Compilers that run for others.
    pub(super) fn running(&self) -> u32 {
        self.state().intake.running()
    }

    /// Jobs that were let in and have not ended.
    pub(super) fn accepted(&self) -> u32 {
        self.state().intake.accepted()
    }

    /// For whom they run.
    pub(super) fn served(&self) -> std::collections::BTreeSet<PeerId> {
        self.state().intake.served()
    }

    /// Whose jobs run, and since when, microseconds.
    pub(super) fn runs(&self) -> Vec<(PeerId, u64)> {
        let since = |(peer, since): &(PeerId, Option<u64>)| Some((*peer, (*since)?));
        self.state().run.values().filter_map(since).collect()
    }

    /// What a peer is told of them.
    pub(super) fn load_for(&self, now_us: u64, peer: PeerId) -> Load {
        self.state().intake.load_for(now_us, peer)
    }
}

impl Agent {
    /// Tells the intake that something happened, and everybody what follows.
    pub(super) fn slots<T>(&self, tell: impl FnOnce(&mut Intake, u64) -> T) -> T {
        let mut state = self.slots.state();
        let now = self.clock.us();
        let result = tell(&mut state.intake, now);
        for act in state.intake.take() {
            let (id, stage) = match act {
                Act::Start(id) => (id, Stage::Runs),
                Act::GiveUp(id, why) => (id, Stage::GivenUp(why)),
            };
            if let Some(job) = state.jobs.get(&id) {
                job.send_replace(stage);
            }
            if let Some((_, since)) = state.run.get_mut(&id) {
                *since = Some(now);
            }
        }
        drop(state);
        self.dirty.notify_one();
        result
    }

    /// On what terms this machine serves from now on.
    pub(super) fn serve_on(&self, terms: Terms) {
        self.slots(|intake, now| intake.terms(now, terms));
    }

    /// Lets a job in.
    ///
    /// # Errors
    /// What to answer.
    pub(super) fn let_in(self: &Arc<Self>, link: &Link, memory_kib: u64) -> Result<Place, Refusal> {
        let role = self.mesh.role_of(&link.peer);
        let (sender, stage) = watch::channel(Stage::Waits);
        let id = {
            let mut state = self.slots.state();
            let id = state.next;
            state.intake.offer(id, link.peer, role, memory_kib)?;
            state.next += 1;
            state.jobs.insert(id, sender);
            state.run.insert(id, (link.peer, None));
            id
        };
        self.dirty.notify_one();
        Ok(Place { agent: self.clone(), id, stage })
    }
}

impl Place {
    /// The inputs are there: waits for a slot, and says how long that took, microseconds.
    pub(super) async fn slot(&mut self) -> u64 {
        let began = Instant::now();
        let id = self.id;
        self.agent.slots(|intake, now| intake.ready(now, id));
        // Whoever was given up waits in vain, and is ended by who looks at `given_up`.
        let _ = self.stage.wait_for(|stage| *stage == Stage::Runs).await;
        u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Ends when the job is to be given up, with what its client is told.
    pub(super) fn given_up(&self) -> impl Future<Output = Refusal> + use<> {
        let mut stage = self.stage.clone();
        async move {
            let given_up = stage.wait_for(|stage| matches!(stage, Stage::GivenUp(_))).await;
            match given_up.map(|stage| *stage) {
                Ok(Stage::GivenUp(why)) => why,
                _ => std::future::pending().await,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let id = self.id;
        {
            let mut state = self.agent.slots.state();
            state.jobs.remove(&id);
            state.run.remove(&id);
        }
        self.agent.slots(|intake, now| intake.ended(now, id));
    }
}
