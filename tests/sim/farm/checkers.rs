//! What must hold on the farm, watched from outside of the code: told what happens, never asked what to do.

use super::world::{MS, Micros, SECOND};
use crate::checkers::Complaint;
use mesh::sched::{dispatch::AttemptId, dispatch::UnitId, history::SAMPLES_MIN, intake::JobId};
use mesh_proto::job::Refusal;
use std::collections::BTreeMap;

/// Something that a checker looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen {
    Machine {
        machine: usize,
        cores: u32,
        slots: u32,
    },
    Slots {
        provider: usize,
        slots: u32,
    },
    /// It has so much memory for jobs, and whoever uses it knows what its units need.
    Memory {
        provider: usize,
        kib: u64,
    },
    Asked {
        client: usize,
        unit: UnitId,
        cost_us: u64,
    },
    Ended {
        client: usize,
        unit: UnitId,
    },
    /// A provider says how many jobs a client may have there.
    Credits {
        client: usize,
        provider: usize,
        credits: u16,
    },
    Offered {
        client: usize,
        provider: usize,
        unit: UnitId,
        attempt: AttemptId,
    },
    /// A client has compiled so many units of its class before.
    Knows {
        client: usize,
        units: u64,
    },
    /// A unit is started while another start of it is under way.
    Second {
        client: usize,
        unit: UnitId,
        /// Its number, if it is in the machine's own sandbox.
        here: Option<AttemptId>,
    },
    /// An attempt has an end: an answer came, or nobody wants it any more.
    AttemptOver {
        client: usize,
        attempt: AttemptId,
    },
    Refused {
        refusal: Refusal,
    },
    /// Processor time that came to nothing, at speed 1.
    Wasted {
        client: usize,
        cpu_us: u64,
    },
    Started {
        provider: usize,
        client: usize,
        job: JobId,
        peak_kib: u64,
        waited_us: Micros,
        /// What a second of a machine of speed 1 takes at most there, if it keeps its word.
        second_us: Option<Micros>,
    },
    Stopped {
        provider: usize,
        job: JobId,
    },
    /// A launcher of this machine compiles.
    Here {
        client: usize,
    },
    HereOver {
        client: usize,
    },
}

/// What a unit waits at a provider for its slot at most, of the longest unit: nobody waits longer than two.
const WAIT_UNITS_MAX: u64 = 2;
/// A provider that failed is left alone at least so long.
const PAUSE_MIN: Micros = 400 * MS;
/// Waste that is forgiven: what a loss took with it is nobody's second start.
const WASTE_PERCENT: u64 = 5;
/// A unit never takes longer than this, whatever befalls.
const UNIT_MAX: Micros = 3_000 * SECOND;

#[derive(Debug, Default, Clone)]
struct Provider {
    slots: u32,
    memory_kib: Option<u64>,
    /// Jobs that run, with their memory.
    runs: BTreeMap<JobId, u64>,
}

#[derive(Debug, Default, Clone)]
struct Client {
    cores: u32,
    here: u32,
    /// Units that have been asked for and not ended, and when they were.
    open: BTreeMap<UnitId, Micros>,
    ended: u64,
    /// Units of its class that it had compiled before.
    known: u64,
    cpu_us: u64,
    wasted_us: u64,
    out: BTreeMap<AttemptId, (usize, UnitId)>,
    credits: BTreeMap<usize, u32>,
    /// When a provider failed last.
    failed: BTreeMap<usize, Micros>,
    costs: BTreeMap<UnitId, u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Checkers {
    providers: BTreeMap<usize, Provider>,
    clients: BTreeMap<usize, Client>,
    longest_us: u64,
    complaint: Complaint,
    /// Second starts, and those of them in a machine's own sandbox.
    pub(crate) seconds: u64,
    pub(crate) copies: u64,
    pub(crate) refused: BTreeMap<&'static str, u64>,
    /// The waste of second starts is not bounded where machines vanish with what they have done.
    pub(crate) losses: bool,
    /// What no unit may take longer than, if that is less than what any failure could cost.
    pub(crate) unit_max: Option<Micros>,
}

impl Checkers {
    pub(crate) fn complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    fn hold(&mut self, holds: bool, words: impl FnOnce() -> String) {
        self.complaint.hold(holds, words);
    }

    pub(crate) fn see(&mut self, now: Micros, seen: Seen) {
        match seen {
            Seen::Machine { machine, cores, slots } => {
                self.clients.entry(machine).or_default().cores = cores;
                self.providers.entry(machine).or_default().slots = slots;
            }
            Seen::Slots { provider, slots } => self.providers.entry(provider).or_default().slots = slots,
            Seen::Memory { provider, kib } => self.providers.entry(provider).or_default().memory_kib = Some(kib),
            Seen::Asked { client, unit, cost_us } => {
                self.longest_us = self.longest_us.max(cost_us);
                let state = self.clients.entry(client).or_default();
                let twice = state.costs.insert(unit, cost_us).is_some();
                state.open.insert(unit, now);
                self.hold(!twice, || format!("{client} asked for unit {unit} twice"));
            }
            Seen::Ended { client, unit } => self.ended(now, client, unit),
            Seen::Credits { client, provider, credits } => {
                let had = self.clients.entry(client).or_default();
                had.credits.insert(provider, credits.into());
            }
            Seen::Offered { client, provider, unit, attempt } => self.offered(now, client, provider, unit, attempt),
            Seen::Knows { client, units } => self.clients.entry(client).or_default().known = units,
            Seen::Second { client, unit, here } => {
                self.seconds += 1;
                self.copies += u64::from(here.is_some());
                let state = self.clients.entry(client).or_default();
                state.out.extend(here.map(|attempt| (attempt, (client, unit))));
                let (ended, own, cores) = (state.ended + state.known, state.here, state.cores);
                let starts = state.out.values().filter(|(_, u)| *u == unit).count();
                let enough = ended >= u64::from(SAMPLES_MIN);
                self.hold(enough, || format!("{client} started unit {unit} again after {ended} units of its class"));
                self.hold(here.is_none() || own < cores, || {
                    format!("{client} started {unit} again here, where all is full")
                });
                self.hold(starts <= 2, || format!("{client} started unit {unit} {starts} times at once"));
            }
            Seen::AttemptOver { client, attempt } => {
                self.clients.entry(client).or_default().out.remove(&attempt);
            }
            Seen::Refused { refusal } => {
                let name = match refusal {
                    Refusal::Busy => "busy",
                    Refusal::Sandbox => "sandbox",
                    Refusal::Memory => "memory",
                    Refusal::Paused => "paused",
                    _ => "other",
                };
                *self.refused.entry(name).or_default() += 1;
            }
            Seen::Wasted { client, cpu_us } => self.clients.entry(client).or_default().wasted_us += cpu_us,
            Seen::Started { provider, client, job, peak_kib, waited_us, second_us } => {
                let longest = second_us.map(|us| self.longest_us.saturating_mul(us) / SECOND * WAIT_UNITS_MAX);
                let state = self.providers.entry(provider).or_default();
                let twice = state.runs.insert(job, peak_kib).is_some();
                let (runs, slots) = (state.runs.len(), state.slots);
                let (sum, most) = (state.runs.values().sum::<u64>(), state.memory_kib.unwrap_or(u64::MAX));
                self.hold(!twice, || format!("{provider} started job {job} twice"));
                self.hold(runs <= slots as usize, || format!("{provider} of {slots} slots runs {runs} jobs"));
                let words = || format!("a job of {client} waited {waited_us} µs for a slot of {provider}");
                self.hold(longest.is_none_or(|longest| waited_us <= longest), words);
                self.hold(runs <= 1 || sum <= most, || format!("{runs} jobs of {provider} need {sum} of {most} KiB"));
            }
            Seen::Stopped { provider, job } => {
                self.providers.entry(provider).or_default().runs.remove(&job);
            }
            Seen::Here { client } => {
                let state = self.clients.entry(client).or_default();
                state.here += 1;
                let (here, cores) = (state.here, state.cores);
                self.hold(here <= cores, || format!("{here} compilers of its user run on {client}, of {cores} cores"));
            }
            Seen::HereOver { client } => {
                let state = self.clients.entry(client).or_default();
                let had = state.here > 0;
                state.here = state.here.saturating_sub(1);
                self.hold(had, || format!("{client} ended more than it began"));
            }
        }
    }

    fn offered(&mut self, now: Micros, client: usize, provider: usize, unit: UnitId, attempt: AttemptId) {
        let state = self.clients.entry(client).or_default();
        state.out.insert(attempt, (provider, unit));
        let there = state.out.values().filter(|(to, _)| *to == provider).count();
        let credits = state.credits.get(&provider).copied().unwrap_or(0) as usize;
        let open = state.open.contains_key(&unit);
        let failed = state.failed.get(&provider).copied();
        self.hold(there <= credits, || format!("{client} has {there} jobs at {provider}, which granted {credits}"));
        self.hold(open, || format!("{client} offered unit {unit}, which nobody wants"));
        let rested = failed.is_none_or(|at| now >= at + PAUSE_MIN);
        self.hold(rested, || format!("{client} asked {provider} again right after it had failed"));
    }

    /// A provider failed at a job that it had taken.
    pub(crate) fn failed(&mut self, now: Micros, client: usize, provider: usize) {
        self.clients.entry(client).or_default().failed.insert(provider, now);
    }

    fn ended(&mut self, now: Micros, client: usize, unit: UnitId) {
        let (losses, unit_max) = (self.losses, self.unit_max.unwrap_or(UNIT_MAX));
        let state = self.clients.entry(client).or_default();
        let asked = state.open.remove(&unit);
        let left = state.out.iter().find(|(_, (_, of))| *of == unit).map(|(attempt, _)| *attempt);
        state.ended += 1;
        state.cpu_us += state.costs.get(&unit).copied().unwrap_or(0);
        let (wasted, cpu, ended) = (state.wasted_us, state.cpu_us, state.ended);
        self.hold(asked.is_some(), || format!("unit {unit} of {client} ended twice, or was never asked for"));
        self.hold(left.is_none(), || format!("unit {unit} of {client} has ended, but not its start {left:?}"));
        let took = now - asked.unwrap_or(now);
        self.hold(took <= unit_max, || format!("unit {unit} of {client} took {} s", took / SECOND));
        // What one more second start may cost is not known before it has ended.
        let slack = 2 * self.longest_us;
        let frugal = losses || ended < 100 || wasted <= cpu * WASTE_PERCENT / 100 + slack;
        self.hold(frugal, || format!("{client} wasted {} s of {} s", wasted / SECOND, cpu / SECOND));
    }

    /// At the very end.
    pub(crate) fn over(&mut self) -> Result<(), String> {
        for (client, state) in &self.clients {
            if let Some((unit, _)) = state.open.first_key_value() {
                return Err(format!("unit {unit} of {client} never ended"));
            }
            if state.here > 0 || !state.out.is_empty() {
                return Err(format!("{client} still has {} compilers and {} offers", state.here, state.out.len()));
            }
        }
        match self.providers.iter().find(|(_, state)| !state.runs.is_empty()) {
            Some((provider, state)) => Err(format!("{provider} still runs {} jobs", state.runs.len())),
            None => Ok(()),
        }
    }
}
