//! Looks at this machine and lends what its owner leaves (DO).

use super::{
    Agent, command,
    wire::{ModeChange, Tell},
};
use crate::{
    config::Config,
    host::{self, signals::Sampler},
    places::Places,
    sched::{
        dispatch::Dispatcher,
        guest::{Active, Guest, Mode, Policy, Terms},
    },
    view::snapshot::Lending as Shown,
};
use mesh_proto::message::Closed;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// How often this machine is looked at while it compiles for others, and while it does not.
const LOOK_BUSY: Duration = Duration::from_millis(250);
const LOOK_IDLE: Duration = Duration::from_secs(1);
/// What the owner last said, in the state directory.
const FILE: &str = "lending-v1";
/// That file's bytes at most.
const FILE_BYTES_MAX: u64 = 4096;

/// What the owner last said by a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    mode: Option<Mode>,
    /// By the wall's clock, milliseconds; `u64::MAX` for good.
    paused_until_ms: Option<u64>,
}

#[derive(Debug)]
struct State {
    guest: Guest,
    sampler: Sampler,
    said: Said,
    cores: u32,
    terms: Option<Terms>,
}

/// What this machine lends, and why so much.
#[derive(Debug)]
pub(super) struct Lending {
    state: Mutex<State>,
    file: PathBuf,
    settled: Settled,
}

/// What the settings say.
#[derive(Debug, Clone, Copy)]
struct Settled {
    mode: Mode,
    set_by: &'static str,
    policy: Policy,
}

impl Lending {
    /// With what was said before this agent started.
    pub(super) fn open(places: &Places, config: &Config, now_ms: u64) -> Self {
        let sampler = Sampler::new(Path::new("/"), &places.cache, std::process::id());
        let (mode, set_by) = match config.mode {
            Some(mode) if config.mode_from_env => (mode, "set by MESH_MODE"),
            Some(mode) => (mode, "set in config.toml"),
            None if sampler.has_battery() => (Mode::Idle, "as on every machine with a battery"),
            None => (Mode::Share, "as on every machine without a battery"),
        };
        let policy = Policy { mode, keep_free: config.keep_free, on_battery: config.on_battery };
        let file = places.state.join(FILE);
        let kept = host::read_at_most(&file, FILE_BYTES_MAX);
        let said: Said = kept.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
        let mut guest = Guest::default();
        if let Some(until) = said.paused_until_ms {
            guest.pause(now_ms.saturating_add(until.saturating_sub(host::wall_ms())));
        }
        let state = Mutex::new(State { guest, sampler, said, cores: host::cores(), terms: None });
        Self { state, file, settled: Settled { mode, set_by, policy } }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    fn mode(&self, said: Said) -> (Mode, &'static str) {
        said.mode.map_or((self.settled.mode, self.settled.set_by), |mode| (mode, "set by mesh mode"))
    }

    /// On what terms this machine lends now, by its last look at itself. That a job is to be given up is said once.
    pub(super) fn terms(&self) -> Option<Terms> {
        let mut state = self.state();
        let terms = state.terms;
        if let Some(terms) = &mut state.terms {
            terms.gives_up_one = false;
        }
        terms
    }

    /// Looks at the machine.
    fn look(&self, agent: &Agent) -> Option<Terms> {
        let server = agent.server.as_ref()?;
        let own_builds = agent.desk.look(Dispatcher::running_here);
        let mut state = self.state();
        let mut signals = state.sampler.look(agent.cores());
        (signals.most, signals.own_builds) = (server.slots, own_builds);
        let policy = Policy { mode: self.mode(state.said).0, ..self.settled.policy };
        let terms = state.guest.look(agent.clock.ms(), &policy, &signals);
        state.cores = signals.cores;
        state.terms = Some(terms);
        Some(terms)
    }

    /// Keeps what the owner said over the agent's end.
    fn keep(&self, said: Said) -> std::io::Result<()> {
        let bytes = postcard::to_stdvec(&said).map_err(std::io::Error::other)?;
        let temporary = self.file.with_extension("new");
        std::fs::write(&temporary, bytes)?;
        std::fs::rename(temporary, &self.file)
    }

    /// What people are shown of it.
    pub(super) fn shown(&self, agent: &Agent) -> Shown {
        let now_ms = agent.clock.ms();
        let to = agent.slots.served().iter().filter_map(|peer| agent.mesh.name_of(peer)).collect();
        let state = self.state();
        let (mode, set_by) = self.mode(state.said);
        let never = super::serve::never(agent);
        let closed = never.or_else(|| state.terms.and_then(|terms| terms.closed));
        let paused = state.guest.paused_until_ms();
        let last = state.guest.last();
        Shown {
            mode,
            set_by: set_by.to_owned(),
            cores: state.cores,
            slots: state.terms.filter(|_| never.is_none()).map_or(0, |terms| terms.slots),
            why: closed.map(|closed| reason(closed, last.and_then(|last| last.active)).to_owned()),
            paused_for_ms: paused.filter(|until| *until != u64::MAX).map(|until| until.saturating_sub(now_ms)),
            paused: paused.is_some(),
            pauses: state.guest.pauses().map(|(times, why)| (times, reason(why, None).to_owned())),
            to,
        }
    }
}

/// Why nothing is lent, as its owner is told.
fn reason(closed: Closed, active: Option<Active>) -> &'static str {
    match (closed, active) {
        (Closed::Off, _) => "its mode is off",
        (Closed::Paused, _) => "you paused it",
        (Closed::InUse, Some(Active::Load)) => "your programs were busy",
        (Closed::InUse, _) => "you were using it",
        (Closed::Battery, _) => "it was on battery",
        (Closed::Hot, _) => "it was too hot",
        (Closed::Metered, _) => "its network was metered",
        (Closed::Memory, _) => "it was short of memory",
        (Closed::Busy, _) => "it was busy with your own work",
        (Closed::Disk, _) => "its disk was full",
        (Closed::NoSandbox, _) => "it has no sandbox",
        (Closed::Role, _) => "it is in no mesh, or its role does not let it",
        (Closed::Leaving, _) => "it is leaving",
    }
}

impl Agent {
    /// Looks at the machine now, and has everybody told what follows.
    pub(super) fn look_at_owner(&self) {
        if let Some(terms) = self.lending.look(self) {
            if let Some(server) = &self.server {
                let said = self.lending.state().said;
                server.worker.set_polite(self.lending.mode(said).0 != Mode::Full);
            }
            if self.told_terms(terms) {
                self.serve_on(super::serve::terms(self));
            }
        }
    }

    /// Whether these terms differ from those by which jobs are let in.
    fn told_terms(&self, terms: Terms) -> bool {
        let load = super::serve::load(self);
        u32::from(load.slots) != terms.slots || load.closed != terms.closed || terms.gives_up_one || self.is_busy()
    }

    /// `mesh pause`.
    pub(super) fn pause(&self, seconds: Option<u64>) -> Tell {
        let span_ms = seconds.map(|seconds| seconds.saturating_mul(1000));
        let until = |now: u64| span_ms.map_or(u64::MAX, |span| now.saturating_add(span));
        let change = |state: &mut State| {
            state.said.paused_until_ms = Some(until(host::wall_ms()));
            state.guest.pause(until(self.clock.ms()));
        };
        let ends = span_ms.map_or_else(
            || "until you say: mesh resume".to_owned(),
            |span| format!("for {}; sooner with: mesh resume", crate::view::time::span(span)),
        );
        self.change(change, || format!("paused {ends}"))
    }

    /// `mesh resume`.
    pub(super) fn resume(&self) -> Tell {
        let change = |state: &mut State| {
            state.said.paused_until_ms = None;
            state.guest.renew();
        };
        self.change(change, || self.meaning())
    }

    /// `mesh mode`.
    pub(super) fn mode(&self, change: Option<ModeChange>) -> Tell {
        let Some(to) = change else {
            self.look_at_owner();
            return Tell::Finished(self.meaning());
        };
        let change = |state: &mut State| {
            state.said.mode = match to {
                ModeChange::To(mode) => Some(mode),
                ModeChange::Settings => None,
            };
            // A pause stays one.
            let paused = state.guest.paused_until_ms();
            state.guest.renew();
            if let Some(until) = paused {
                state.guest.pause(until);
            }
        };
        self.change(change, || self.meaning())
    }

    fn change(&self, change: impl FnOnce(&mut State), said: impl FnOnce() -> String) -> Tell {
        let kept = {
            let mut state = self.lending.state();
            change(&mut state);
            state.said
        };
        self.look_at_owner();
        match self.lending.keep(kept) {
            Ok(()) => Tell::Finished(said()),
            Err(error) => command::failed(
                command::FAILED,
                format!("{}, but only until the agent ends: it could not be written down: {error}", said()),
            ),
        }
    }

    /// What is lent now and why, in a sentence.
    fn meaning(&self) -> String {
        match &self.no_sandbox {
            Some(why) => format!("lending nothing: {why}"),
            None => crate::view::rows::lending_sentence(&self.lending.shown(self)),
        }
    }
}

/// Looks at the machine again and again.
pub(super) async fn watch(agent: Arc<Agent>) {
    loop {
        let busy = agent.slots.accepted() > 0;
        tokio::time::sleep(if busy { LOOK_BUSY } else { LOOK_IDLE }).await;
        agent.look_at_owner();
    }
}
