//! Builds: what came of each one's units, how much they may start at once, and room here for what is no compile (DO).

use super::{
    Agent,
    desk::{Order, Ticket},
    local::Client,
    wire::{SessionNow, Tell},
};
use crate::{
    reason::Reason,
    sched::{
        dispatch::{Ask, Dispatcher},
        history::Work,
    },
    view::snapshot::{JobPlace, JobRow, UnitRecord},
};
use mesh_proto::peer::PeerId;
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// Builds that are remembered; the one that has not been heard of for longest goes first.
const SESSIONS_MAX: usize = 64;

/// Jobs that are listed.
const JOBS_MAX: usize = 1000;
/// After this time what waits for room here is told to run whether there is any or not.
const LEASE_TIME: Duration = Duration::from_secs(300);

/// Builds, the one that was heard of last at the end.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<VecDeque<(u64, SessionNow)>>);

impl Sessions {
    fn all(&self) -> MutexGuard<'_, VecDeque<(u64, SessionNow)>> {
        self.0.lock().expect("no panic while held")
    }

    /// Changes what is known of a build; 0 is none.
    fn change(&self, session: u64, change: impl FnOnce(&mut SessionNow)) {
        if session == 0 {
            return;
        }
        let mut all = self.all();
        let before = all.iter().position(|(number, _)| *number == session).and_then(|at| all.remove(at));
        let (_, mut now) = before.unwrap_or((session, SessionNow::default()));
        change(&mut now);
        if all.len() >= SESSIONS_MAX {
            all.pop_front();
        }
        all.push_back((session, now));
    }

    /// A unit was compiled elsewhere, or is left to its launcher. `speed` is that machine's, this one's being 1.
    pub(super) fn ended(&self, session: u64, speed: impl FnOnce(&str) -> f32, unit: &UnitRecord) {
        self.change(session, |now| match (unit.reason, &unit.ran_on) {
            (Some(reason), _) => {
                now.units += u64::from(is_compile(reason));
                now.unmeasured += u64::from(is_compile(reason));
            }
            (None, Some(machine)) => {
                let run_us = unit.phases_there.iter().find(|phase| phase.name == "run").map_or(0, |phase| phase.us);
                let run = Duration::from_micros(run_us).mul_f32(speed(machine).clamp(0.01, 100.0));
                now.units += 1;
                now.elsewhere += 1;
                now.compile_ms += u64::try_from(run.as_millis()).unwrap_or(u64::MAX);
            }
            // It was not compiled.
            (None, None) => now.cached += u64::from(unit.cached),
        });
    }

    /// The launcher's compiler has ended that was told to run here.
    pub(super) fn ran_here(&self, session: u64, reason: Reason, took: Duration) {
        if is_compile(reason) {
            self.change(session, |now| {
                now.unmeasured = now.unmeasured.saturating_sub(1);
                now.compile_ms += u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            });
        }
    }
}

/// Whether what stays here for this reason is a compile of the build, and not a link or a question to the compiler.
fn is_compile(reason: Reason) -> bool {
    !matches!(reason, Reason::NotCompile | Reason::Probe)
}

impl Agent {
    /// How fast one slot of a machine of this name is, this one's being 1 (which it is taken to be if that is not known).
    pub(super) fn speed_of(&self, name: &str) -> f32 {
        let link = self.links.all().into_iter().find(|link| link.name() == name);
        link.and_then(|link| self.desk.look(|all| all.belief(link.peer).speed)).unwrap_or(1.0)
    }

    /// What runs now, and what waits to, the oldest first.
    pub(super) fn jobs(&self) -> Vec<JobRow> {
        let now = self.clock.us();
        let ms = |since: u64| now.saturating_sub(since) / 1000;
        let named = |peer: PeerId| self.mesh.name_of(&peer).unwrap_or_else(|| peer.short());
        let mut all = Vec::new();
        for (name, starts) in self.desk.under_way() {
            if starts.is_empty() {
                all.push(JobRow { name: name.clone(), place: JobPlace::Waits, ms: 0 });
            }
            for (peer, since) in starts {
                let place = peer.map_or(JobPlace::Here, |peer| JobPlace::There(named(peer)));
                all.push(JobRow { name: name.clone(), place, ms: ms(since) });
            }
        }
        for (peer, since) in self.slots.runs() {
            all.push(JobRow { name: Vec::new(), place: JobPlace::For(named(peer)), ms: ms(since) });
        }
        all.sort_by_key(|row| std::cmp::Reverse(row.ms));
        all.truncate(JOBS_MAX);
        all
    }

    /// A build as it is now.
    pub(super) fn session_now(&self, session: u64) -> SessionNow {
        let known = self.sessions.all().iter().find(|(number, _)| *number == session).map(|(_, now)| *now);
        let parallelism = self.desk.look(Dispatcher::parallelism);
        SessionNow {
            local: parallelism.local,
            remote: parallelism.remote,
            in_mesh: self.mesh.role().is_some(),
            ..known.unwrap_or_default()
        }
    }
}

/// Waits until this machine has room for one more program of its user's: the only place where such room is asked for.
pub(super) async fn slot_here(
    agent: &Arc<Agent>,
    had: Option<Ticket>,
    ask: Ask,
    (reason, fallback): (Reason, bool),
    name: &[u8],
) -> Ticket {
    if let Some(mut ticket) = had {
        ticket.stay(ask, reason, fallback).await;
        return ticket;
    }
    let mut ticket = agent.ask(Ask { local: Some((reason, fallback)), ..ask }, name);
    while !matches!(ticket.order().await, Order::Here { .. }) {}
    ticket
}

/// Gives a program that is no compile its place, for as long as its connection stands.
pub(super) async fn lease(agent: &Arc<Agent>, memory_kib: u64, name: &[u8], client: &mut Client) -> io::Result<()> {
    let ask = Ask { memory_kib, ..Ask::here(Work::default()) };
    let waiting = agent.pulse.wait();
    let ticket = tokio::select! {
        ticket = tokio::time::timeout(LEASE_TIME, slot_here(agent, None, ask, (Reason::NotCompile, false), name)) => ticket.ok(),
        _ = client.gone() => return Ok(()),
    };
    drop(waiting);
    client.tell(&Tell::Leased).await?;
    client.gone().await;
    if let Some(ticket) = ticket {
        // Nothing is learned from it: it is like no compile.
        ticket.compiled_here(false);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::snapshot::Phase;

    fn unit(ran_on: Option<&str>, reason: Option<Reason>, run_ms: u64) -> UnitRecord {
        UnitRecord {
            ran_on: ran_on.map(str::to_owned),
            reason,
            phases_there: vec![Phase { name: "run".to_owned(), us: run_ms * 1000, cpu_us: None }],
            ..UnitRecord::default()
        }
    }

    fn now(sessions: &Sessions, session: u64) -> SessionNow {
        sessions.all().iter().find(|(number, _)| *number == session).map(|(_, now)| *now).unwrap_or_default()
    }

    #[test]
    fn a_build_is_told_of_its_own_units_in_time_of_this_machine() {
        let sessions = Sessions::default();
        sessions.ended(7, |_| 2.0, &unit(Some("tower"), None, 100));
        sessions.ended(7, |_| 2.0, &unit(None, Some(Reason::LocalIdle), 0));
        sessions.ended(7, |_| 2.0, &unit(None, Some(Reason::NotCompile), 0));
        sessions.ended(8, |_| 2.0, &unit(Some("tower"), None, 5));
        sessions.ended(0, |_| 2.0, &unit(Some("tower"), None, 5));
        let half = SessionNow { units: 2, elsewhere: 1, compile_ms: 200, unmeasured: 1, ..SessionNow::default() };
        assert_eq!(now(&sessions, 7), half);
        sessions.ran_here(7, Reason::LocalIdle, Duration::from_millis(50));
        sessions.ran_here(7, Reason::NotCompile, Duration::from_millis(50));
        assert_eq!(now(&sessions, 7), SessionNow { compile_ms: 250, unmeasured: 0, ..half });
        assert_eq!((now(&sessions, 8).units, now(&sessions, 0)), (1, SessionNow::default()));
    }

    #[test]
    fn of_many_builds_the_latest_are_remembered() {
        let sessions = Sessions::default();
        for session in 1..=SESSIONS_MAX as u64 + 1 {
            sessions.ended(session, |_| 1.0, &unit(Some("tower"), None, 1));
            sessions.ended(1, |_| 1.0, &unit(Some("tower"), None, 1));
        }
        assert_eq!(sessions.all().len(), SESSIONS_MAX);
        assert_eq!((now(&sessions, 2).units, now(&sessions, 3).units), (0, 1));
        assert_eq!(now(&sessions, 1).units, SESSIONS_MAX as u64 + 2);
    }
}
