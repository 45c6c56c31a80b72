//! Jobs of others, from the offer to the end of the compiler: who is let in, and who is next (DECIDE).
//!
//! A job that is let in has its inputs fetched while others compile; when they are there it waits for a slot. Slots are
//! what the machine's terms leave. A few more jobs are let in than there are slots, so that wire and compiler overlap, and
//! each client is told how many of its own: its *credits*, a fair share, so that two clients do not meet at the same slot.

use super::{
    guest::Terms,
    ledger::Ledger,
    share::{self, Demand, MachineTag},
};
use mesh_proto::{
    job::Refusal,
    membership::Role,
    message::{Closed, Load},
    peer::PeerId,
};
use std::collections::BTreeMap;

/// Numbers a job at this machine.
pub type JobId = u64;

/// What a job is thought to need that its client has no idea of, KiB: the most, and the share of what there is.
const MEMORY_GUESS_KIB_MAX: u64 = 1_200 << 10;
const MEMORY_GUESS_SHARE: u64 = 2;

/// Rounded down to three binary digits: it changes all the time, and is told when it does.
fn coarsely(mib: u32) -> u32 {
    let step = 1u32 << mib.checked_ilog2().unwrap_or(0).saturating_sub(2);
    mib / step * step
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Start this job's compiler: it has a slot until [`Intake::compiled`].
    Start(JobId),
    /// End this job and tell its client why: the machine needs its memory, or lends nothing any more and the job has not begun.
    GiveUp(JobId, Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fetches,
    Waits { since: u64 },
    Runs,
}

#[derive(Debug, Clone, Copy)]
struct Job {
    client: PeerId,
    need_kib: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, Default)]
struct Client {
    machine: MachineTag,
    wants: u32,
}

/// The provider's side of this machine.
#[derive(Debug)]
pub struct Intake {
    terms: Terms,
    ledger: Ledger,
    clients: BTreeMap<PeerId, Client>,
    /// Jobs whose compiler has not ended.
    jobs: BTreeMap<JobId, Job>,
    acts: Vec<Act>,
    /// The order in which jobs began to wait.
    waits: u64,
}

impl Default for Intake {
    fn default() -> Self {
        let terms = Terms { slots: 0, closed: None, memory_free_kib: None, gives_up_one: false };
        let (ledger, clients, jobs) = (Ledger::default(), BTreeMap::new(), BTreeMap::new());
        Self { terms, ledger, clients, jobs, acts: Vec::new(), waits: 0 }
    }
}

/// Jobs that a machine of so many slots lets in: a quarter more than it runs, one at least.
#[must_use]
pub fn places(slots: u32) -> u32 {
    if slots == 0 { 0 } else { slots + slots.div_ceil(4) }
}

impl Intake {
    /// For whom compilers run.
    #[must_use]
    pub fn served(&self) -> std::collections::BTreeSet<PeerId> {
        self.jobs.values().filter(|job| job.stage == Stage::Runs).map(|job| job.client).collect()
    }

    /// On what terms jobs are let in from now on.
    pub fn terms(&mut self, now_us: u64, terms: Terms) {
        self.terms = terms;
        self.ledger.set_slots(terms.slots);
        self.ledger.set_memory_free(terms.memory_free_kib);
        if terms.gives_up_one
            && let Some(job) = self.ledger.youngest()
        {
            self.acts.push(Act::GiveUp(job, Refusal::Memory));
        }
        if terms.slots == 0 {
            // What runs may end; what waits would wait for nobody knows how long.
            let waits = self.jobs.iter().filter(|(_, job)| job.stage != Stage::Runs);
            self.acts.extend(waits.map(|(id, _)| Act::GiveUp(*id, refusal(terms.closed))));
        }
        self.start(now_us);
    }

    /// A machine is connected.
    pub fn client(&mut self, peer: PeerId, machine: MachineTag) {
        self.clients.insert(peer, Client { machine, wants: 0 });
    }

    /// It says how many units of its own wait for, or are with, others.
    pub fn wants(&mut self, peer: PeerId, wants: u32) {
        if let Some(client) = self.clients.get_mut(&peer) {
            client.wants = wants;
        }
    }

    /// It is no longer connected. Its jobs are told to be [`Intake::gone`] one by one.
    pub fn left(&mut self, peer: PeerId) {
        self.clients.remove(&peer);
    }

    /// A job is offered: it is let in, or refused. `memory_kib` is what its client expects it to need, 0 if it has no idea.
    ///
    /// # Errors
    /// What to answer.
    pub fn offer(&mut self, id: JobId, peer: PeerId, role: Option<Role>, memory_kib: u64) -> Result<(), Refusal> {
        if !role.is_some_and(Role::submits) {
            return Err(Refusal::Role);
        }
        if self.terms.slots == 0 {
            return Err(refusal(self.terms.closed));
        }
        if self.held(peer) >= self.credits(peer) {
            return Err(Refusal::Busy);
        }
        let free = self.terms.memory_free_kib;
        let guess = || free.map_or(0, |kib| MEMORY_GUESS_KIB_MAX.min(kib / MEMORY_GUESS_SHARE));
        let need_kib = if memory_kib == 0 { guess() } else { memory_kib };
        // It would not fit even if it were alone.
        if self.ledger.running() == 0 && free.is_some_and(|free| need_kib > free) {
            return Err(Refusal::Busy);
        }
        self.jobs.insert(id, Job { client: peer, need_kib, stage: Stage::Fetches });
        Ok(())
    }

    /// A job's inputs are here: it waits for a slot.
    pub fn ready(&mut self, now_us: u64, id: JobId) {
        self.waits += 1;
        if let Some(job) = self.jobs.get_mut(&id).filter(|job| job.stage == Stage::Fetches) {
            job.stage = Stage::Waits { since: self.waits };
            self.start(now_us);
        }
    }

    /// A job's compiler has ended, or the job has, however far it was: its slot and its place are free.
    pub fn ended(&mut self, now_us: u64, id: JobId) {
        if self.jobs.remove(&id).is_some() {
            self.ledger.end(id);
            self.start(now_us);
        }
    }

    /// What is to be done since the last call.
    pub fn take(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    /// Compilers that run for others.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.ledger.running()
    }

    /// Jobs that were let in and whose compiler has not ended.
    #[must_use]
    pub fn accepted(&self) -> u32 {
        u32::try_from(self.jobs.len()).unwrap_or(u32::MAX)
    }

    /// What one peer is told of how busy this machine is; what its own user does is not in it.
    #[must_use]
    pub fn load_for(&self, now_us: u64, peer: PeerId) -> Load {
        let small = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        if self.terms.slots == 0 {
            return Load { closed: Some(self.terms.closed.unwrap_or(Closed::Busy)), ..Load::default() };
        }
        let memory_kib = self.ledger.memory_left(now_us).unwrap_or(u64::MAX);
        Load {
            slots: small(self.terms.slots),
            credits: small(self.credits(peer)),
            accepted: small(self.accepted().saturating_sub(self.held(peer))),
            memory_mib: coarsely(u32::try_from(memory_kib / 1024).unwrap_or(u32::MAX)),
            ..Load::default()
        }
    }

    /// Jobs of one client that were let in.
    fn held(&self, peer: PeerId) -> u32 {
        u32::try_from(self.jobs.values().filter(|job| job.client == peer).count()).unwrap_or(u32::MAX)
    }

    /// How many jobs one client may have here: the places of its fair share of the slots, and one in any case. A share of the
    /// places would not do: with one place more than another, a client has always somebody who waits for the other's slot.
    fn credits(&self, peer: PeerId) -> u32 {
        let mut demands: BTreeMap<PeerId, Demand> = BTreeMap::new();
        for (id, client) in &self.clients {
            let slots = client.wants.max(self.held(*id));
            if slots > 0 || *id == peer {
                demands.insert(*id, Demand { machine: client.machine, slots });
            }
        }
        places(share::fair(self.terms.slots, &demands, peer)).max(1)
    }

    /// Starts whoever is next, for as long as there is room: of the machine that runs the fewest here, then of its user that
    /// does, then who came first. If there is no memory for that one, all wait: else it might wait for ever.
    fn start(&mut self, now_us: u64) {
        while self.ledger.has_slot()
            && let Some(id) = self.next()
        {
            let job = self.jobs.get_mut(&id).expect("it was chosen from these");
            if !self.ledger.has_room(job.need_kib, now_us) {
                return;
            }
            job.stage = Stage::Runs;
            self.ledger.begin(id, job.need_kib, now_us);
            self.acts.push(Act::Start(id));
        }
    }

    fn next(&self) -> Option<JobId> {
        let machine = |client: &PeerId| self.clients.get(client).map_or([0; 16], |known| known.machine);
        let mut by_machine: BTreeMap<MachineTag, u32> = BTreeMap::new();
        let mut by_user: BTreeMap<PeerId, u32> = BTreeMap::new();
        for job in self.jobs.values().filter(|job| job.stage == Stage::Runs) {
            *by_machine.entry(machine(&job.client)).or_default() += 1;
            *by_user.entry(job.client).or_default() += 1;
        }
        let waiting = self.jobs.iter().filter_map(|(id, job)| match job.stage {
            Stage::Waits { since } => Some((id, job, since)),
            _ => None,
        });
        let of = |job: &Job| {
            let machines = by_machine.get(&machine(&job.client)).copied().unwrap_or(0);
            (machines, by_user.get(&job.client).copied().unwrap_or(0))
        };
        waiting.min_by_key(|(_, job, since)| (of(job), *since)).map(|(id, ..)| *id)
    }
}

/// What is answered where nothing is lent.
fn refusal(closed: Option<Closed>) -> Refusal {
    match closed {
        Some(Closed::Leaving) => Refusal::Leaving,
        Some(Closed::NoSandbox) => Refusal::Sandbox,
        Some(Closed::Role) => Refusal::Role,
        Some(Closed::Disk) => Refusal::Disk,
        Some(Closed::Memory | Closed::Busy) | None => Refusal::Busy,
        Some(Closed::Paused | Closed::Off | Closed::InUse | Closed::Battery | Closed::Hot | Closed::Metered) => {
            Refusal::Paused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId([1; 32]);
    const B: PeerId = PeerId([2; 32]);
    const GIB: u64 = 1 << 20;

    fn intake(slots: u32, memory_free_kib: Option<u64>) -> Intake {
        let mut intake = Intake::default();
        intake.terms(0, Terms { slots, closed: None, memory_free_kib, gives_up_one: false });
        intake.client(A, [1; 16]);
        intake.client(B, [2; 16]);
        intake
    }

    fn offer(intake: &mut Intake, id: JobId, peer: PeerId) -> Result<(), Refusal> {
        intake.offer(id, peer, Some(Role::Client), 0)
    }

    #[test]
    fn a_worker_or_a_stranger_that_offers_is_refused() {
        let mut intake = intake(1, None);
        for role in [None, Some(Role::Worker)] {
            assert_eq!(intake.offer(1, A, role, 0), Err(Refusal::Role));
        }
        for (id, role) in [Role::Client, Role::Peer].into_iter().enumerate() {
            assert_eq!(intake.offer(id as u64, A, Some(role), 0), Ok(()));
        }
    }

    #[test]
    fn a_client_alone_has_all_places_and_shares_them_with_one_that_comes() {
        let mut intake = intake(4, None);
        assert_eq!(intake.load_for(0, A).credits, 5);
        intake.wants(B, 20);
        assert_eq!(intake.load_for(0, A).credits, 3);
        for id in 0..3 {
            assert_eq!(offer(&mut intake, id, A), Ok(()));
        }
        assert_eq!(offer(&mut intake, 3, A), Err(Refusal::Busy));
        assert_eq!((intake.load_for(0, B).accepted, intake.load_for(0, A).accepted), (3, 0));
        intake.left(B);
        assert_eq!(offer(&mut intake, 3, A), Ok(()));
    }

    #[test]
    fn two_who_want_all_run_equally_many_whoever_ends_first() {
        let mut intake = intake(4, None);
        let mut running: Vec<(JobId, PeerId)> = Vec::new();
        let mut next = 0;
        for turn in 0..40 {
            // Each offers all that it may, and its inputs are there at once.
            for peer in [A, B] {
                intake.wants(peer, 20);
                while offer(&mut intake, next, peer) == Ok(()) {
                    intake.ready(0, next);
                    running.push((next, peer));
                    next += 1;
                }
            }
            let runs = |peer| intake.jobs.values().filter(|j| j.client == peer && j.stage == Stage::Runs).count();
            if turn > 4 {
                assert_eq!((runs(A), runs(B)), (2, 2), "turn {turn}");
            }
            // The answer to the end is a new offer, which comes later than the slot is given away.
            let at = running.iter().position(|(id, _)| intake.jobs[id].stage == Stage::Runs).expect("some run");
            let (ended, _) = running.remove(at);
            intake.ended(0, ended);
            assert_eq!(intake.running(), 4);
        }
    }

    #[test]
    fn the_next_slot_goes_to_the_machine_that_runs_the_fewest() {
        let mut intake = intake(2, None);
        for id in 0..3 {
            offer(&mut intake, id, A).expect("alone");
            intake.ready(0, id);
        }
        assert_eq!(intake.take(), [Act::Start(0), Act::Start(1)]);
        offer(&mut intake, 7, B).expect("one is always let in");
        intake.ready(0, 7);
        intake.ended(0, 0);
        assert_eq!(intake.take(), [Act::Start(7)], "it came after 2, but its machine runs nothing");
        intake.ended(0, 1);
        assert_eq!(intake.take(), [Act::Start(2)]);
    }

    #[test]
    fn a_slot_holds_one_job_until_its_compiler_ends_and_inputs_are_fetched_meanwhile() {
        let mut intake = intake(1, None);
        offer(&mut intake, 1, A).expect("first");
        offer(&mut intake, 2, A).expect("its inputs come while the first one runs");
        assert_eq!(offer(&mut intake, 3, A), Err(Refusal::Busy));
        intake.ready(0, 2);
        assert_eq!(intake.take(), [Act::Start(2)], "who is ready first is first");
        intake.ready(0, 1);
        assert_eq!((intake.take(), intake.running()), (vec![], 1));
        intake.ended(0, 2);
        assert_eq!(intake.take(), [Act::Start(1)]);
        intake.ended(0, 1);
        intake.ended(0, 1);
        assert_eq!((intake.running(), intake.accepted()), (0, 0));
    }

    #[test]
    fn memory_is_reserved_before_a_compiler_starts() {
        let mut intake = intake(4, Some(4 * GIB));
        for id in 0..2 {
            intake.offer(id, A, Some(Role::Client), 3 * GIB).expect("each fits alone");
            intake.ready(0, id);
        }
        assert_eq!(intake.take(), [Act::Start(0)]);
        assert_eq!(intake.load_for(0, A).memory_mib, 1024);
        intake.ended(0, 0);
        assert_eq!(intake.take(), [Act::Start(1)]);
        intake.ended(0, 1);
        assert_eq!(intake.offer(9, A, Some(Role::Client), 5 * GIB), Err(Refusal::Busy));
    }

    #[test]
    fn a_machine_that_needs_its_memory_gives_the_youngest_job_up() {
        let mut intake = intake(2, None);
        for id in 0..2 {
            offer(&mut intake, id, A).expect("room");
            intake.ready(id, id);
        }
        intake.take();
        intake.terms(9, Terms { slots: 1, closed: None, memory_free_kib: Some(0), gives_up_one: true });
        assert_eq!(intake.take(), [Act::GiveUp(1, Refusal::Memory)]);
    }

    #[test]
    fn who_waits_at_a_machine_that_closes_is_turned_away_and_who_runs_is_not() {
        let mut intake = intake(1, None);
        for id in 0..2 {
            offer(&mut intake, id, A).expect("a place");
            intake.ready(0, id);
        }
        assert_eq!(intake.take(), [Act::Start(0)]);
        intake.terms(1, Terms { slots: 0, closed: Some(Closed::Paused), memory_free_kib: None, gives_up_one: false });
        assert_eq!(intake.take(), [Act::GiveUp(1, Refusal::Paused)]);
    }

    #[test]
    fn memory_is_told_in_steps_and_never_more_than_there_is() {
        assert_eq!([0, 1, 7, 8, 9, 1023, 1024, 1279, 1280].map(coarsely), [0, 1, 7, 8, 8, 896, 1024, 1024, 1280]);
    }

    #[test]
    fn what_is_closed_says_why() {
        let mut intake = intake(1, None);
        let closed = |closed| Terms { slots: 0, closed: Some(closed), memory_free_kib: None, gives_up_one: false };
        for (why, refused) in [
            (Closed::InUse, Refusal::Paused),
            (Closed::Leaving, Refusal::Leaving),
            (Closed::NoSandbox, Refusal::Sandbox),
            (Closed::Disk, Refusal::Disk),
            (Closed::Memory, Refusal::Busy),
        ] {
            intake.terms(0, closed(why));
            assert_eq!(offer(&mut intake, 1, A), Err(refused));
            assert_eq!(intake.load_for(0, A).closed, Some(why));
        }
    }
}
