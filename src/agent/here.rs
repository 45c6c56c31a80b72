//! Compiles a unit on this machine in such a way that its result can be kept (DO).
//!
//! What the launcher's own compiler makes cannot be kept: nobody knows what it has read. So a unit that stays here for want
//! of a better place runs as a job does, in this machine's own sandbox, with nothing but its closure and a compiler of which
//! samples have shown that its files are all of it. Whatever is not plainly well then is left to the launcher's compiler, as
//! if this had not been tried: its slot is held throughout.

use super::{
    Agent,
    cache::{self, Keep},
    compile::{self, Unit},
    outputs::Placed,
    phases::{Phases, measured},
    proofs::Proof,
    seek::Making,
    starts::{self, Back, Going},
    submit::Ran,
};
use crate::{env::Keeping, reason::Reason, sched::dispatch::Why, toolchain::Toolchain, view::snapshot::UnitRecord};
use mesh_proto::job::{Exit, Text};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A unit that stays here and whose result is to be kept.
pub(super) struct Alone {
    pub(super) unit: Arc<Unit>,
    /// Others wait for it.
    pub(super) making: Option<Making>,
}

/// What came of it.
pub(super) struct Compiled {
    pub(super) text: Vec<Text>,
    pub(super) placed: Placed,
    pub(super) keep: Option<Box<Keep>>,
    pub(super) took: Duration,
}

/// Whether a unit of this compiler can be compiled here so that its result can be kept; otherwise that is made ready.
pub(super) fn is_possible(agent: &Arc<Agent>, toolchain: &Arc<Toolchain>) -> bool {
    if !agent.cache.keeps() || agent.server.is_none() {
        return false;
    }
    let proof = agent.proof(&toolchain.fingerprint);
    if proof == Proof::Pending {
        agent.prove(toolchain);
    }
    proof == Proof::Proved
}

/// Whether a unit stays here for a reason that says nothing against the unit itself.
pub(super) fn is_for_want_of_others(reason: Reason) -> bool {
    use Reason::*;
    matches!(
        reason,
        NoMesh
            | NoPeer
            | NoMatch
            | ToolchainComing
            | Role
            | LocalIdle
            | PeersBusy
            | PeersPaused
            | PeerLost
            | RemoteError
    )
}

/// Compiles it, for this reason; `None` if the launcher's compiler is to do that.
pub(super) async fn compile(
    agent: &Arc<Agent>,
    alone: Alone,
    reason: Reason,
    phases: &mut Phases,
    record: &mut UnitRecord,
) -> Option<Compiled> {
    let Alone { unit, making } = alone;
    let toolchain = unit.shared_toolchain().clone();
    let is_wanted = unit.keeping() == Keeping::Settings && unit.is_kept(agent) && is_for_want_of_others(reason);
    if !is_wanted || !is_possible(agent, &toolchain) {
        return None;
    }
    let began = Instant::now();
    let going = Going { job: &unit.job, closure: &unit.closure, toolchain: &toolchain, keeps: true };
    let ran = starts::copy(agent, going).await;
    phases.ended("compile", None);
    let Ran { outcome, bytes, .. } = ran.ok()?;
    if outcome.exit != Exit::Code(0) {
        return None;
    }
    let took = began.elapsed();
    let (link, receipt) = (None, None);
    let mut back = Back { link, outcome, bytes, packed: Vec::new(), receipt, why: Why::default(), starts: 1 };
    let keep = cache::keep(agent, &unit, &mut back, making);
    let (placing, shown) = (agent.clone(), back.outcome.clone());
    let placed =
        tokio::task::spawn_blocking(move || measured(|| compile::place(&placing, &unit, back.outcome, back.bytes)));
    let (placed, cpu_us) = placed.await.ok()?;
    phases.ended("write", Some(cpu_us));
    let (text, placed) = placed.ok()?;
    compile::ran(&shown, record);
    Some(Compiled { text, placed, keep, took })
}
