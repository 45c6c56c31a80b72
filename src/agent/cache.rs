//! What was compiled elsewhere once is not compiled again (DO).
//!
//! A unit's key is worked out as soon as its closure is known, in the same task, and a result of that key is placed at once:
//! a hit asks nobody, takes no slot and starts nothing. What comes from another machine is kept after the launcher has its
//! verdict, in the background, and not at all while too much waits for the disk.

use super::{
    Agent,
    compile::Unit,
    outputs::{Made, Placed},
    phases::measured,
    starts::Back,
};
use crate::{
    compiler,
    config::{CacheUse, Config},
    host::wall_ms,
    net::stream::{self, Packed},
    store::results::{Kept, Results, Stats},
};
use mesh_proto::{job::Outcome, key::ActionKey, peer::PeerId};
use std::{path::Path, sync::Arc, time::Instant};
use tokio::sync::Semaphore;

/// What waits to be written, packed, KiB; a result that finds no room is not kept.
const WAITING_KIB_MAX: u32 = 128 << 10;
/// Outputs that are not packed yet and are larger than this together are not kept, bytes.
const UNPACKED_BYTES_MAX: u64 = 64 << 20;

/// The results that this machine keeps, and how they are used.
#[derive(Debug)]
pub(super) struct Cache {
    /// `None`: none are looked for.
    results: Option<Results>,
    keeps: bool,
    room: Arc<Semaphore>,
}

/// A unit that was not compiled.
pub(super) struct Had {
    pub(super) placed: Placed,
    pub(super) outcome: Outcome,
    /// The machine that compiled it once.
    pub(super) executor: PeerId,
    /// When that was, milliseconds since 1970.
    pub(super) made_ms: u64,
    /// Files in its closure.
    pub(super) files: usize,
    /// How long looking and placing took, and of that the processor's time, microseconds.
    pub(super) took_us: (u64, u64),
}

/// A result that is to be kept.
pub(super) struct Keep {
    key: ActionKey,
    executor: PeerId,
    outcome: Outcome,
    /// As they came; empty if they did not come over a wire.
    packed: Vec<Vec<u8>>,
    /// The outputs' bytes, if they did not.
    plain: Vec<Vec<u8>>,
}

impl Cache {
    pub(super) fn open(folder: &Path, config: &Config) -> Self {
        let is_on = config.cache != CacheUse::Off && config.cache_bytes_max > 0;
        let results = is_on.then(|| Results::open(folder, config.cache_bytes_max));
        let room = Arc::new(Semaphore::new(WAITING_KIB_MAX as usize));
        Self { results, keeps: is_on && config.cache == CacheUse::On, room }
    }

    /// Whether a result may be worth its bytes on the wire later.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// What is kept.
    pub(super) fn stats(&self) -> Stats {
        self.results.as_ref().map(Results::stats).unwrap_or_default()
    }

    /// Whether there may be anything at all; wrong, if ever, for the first moments of an agent.
    pub(super) fn may_have(&self) -> bool {
        self.stats().entries > 0
    }
}

/// The key of what a unit makes; `None` if that is of chance or of the time, or nobody wants to know.
pub(super) fn key(agent: &Agent, unit: &Unit) -> Option<ActionKey> {
    agent.cache.results.as_ref()?;
    let toolchain = unit.toolchain();
    if unit.closure.timestamped || !compiler::is_reproducible(&unit.job.argv, toolchain.family) {
        return None;
    }
    // What is not below the toolchain's directories does not exist for the job.
    let has_programs = |dir: &[u8]| {
        let dir = dir.strip_suffix(b"/").unwrap_or(dir);
        let is_below =
            |path: &[u8]| path.strip_prefix(dir).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')));
        !dir.starts_with(b"/") || toolchain.manifest.parts.iter().any(|part| is_below(part.path.as_bytes()))
    };
    Some(ActionKey::of(&unit.job, unit.closure.keyed(), has_programs))
}

/// Places what is kept of a unit's key; blocking.
pub(super) fn look(agent: &Agent, unit: &Unit) -> Option<Had> {
    let (results, key) = (agent.cache.results.as_ref()?, unit.key?);
    let began = Instant::now();
    let (found, cpu_us) = measured(|| {
        let kept = results.get(&key)?;
        let made = made(unit, &kept);
        if made.is_none() {
            results.remove(&key);
        }
        // A disk that has no room for it has none for the compiler's either: that is the compiler's to say.
        let placed = agent.temporaries.place(&made?, unit.umask()).ok()?;
        Some((kept, placed))
    });
    let Some((kept, placed)) = found else {
        agent.records().not_in_cache();
        return None;
    };
    let took_us = (u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), cpu_us);
    let Kept { executor, outcome, made_ms, .. } = kept;
    Some(Had { placed, outcome, executor, made_ms, files: unit.closure.entries.len(), took_us })
}

/// The files of an entry, if each is what it was, and all are what the unit makes.
fn made(unit: &Unit, kept: &Kept) -> Option<Vec<Made>> {
    let plain = |(output, packed): (&mesh_proto::job::Output, &Vec<u8>)| {
        Packed::from_wire(packed, output.size).and_then(|packed| packed.unpack(&output.digest)).ok()
    };
    let bytes: Option<Vec<Vec<u8>>> = kept.outcome.outputs.iter().zip(&kept.packed).map(plain).collect();
    unit.made(&kept.outcome, bytes?)
}

/// What is to be kept of a result that has just come and was found good, if anything.
pub(super) fn keep(agent: &Agent, key: Option<ActionKey>, back: &mut Back) -> Option<Box<Keep>> {
    let key = key.filter(|_| agent.cache.keeps)?;
    let executor = back.link.as_ref().map_or_else(|| agent.mesh.me(), |link| link.peer);
    let packed = std::mem::take(&mut back.packed);
    let mut plain = Vec::new();
    if packed.len() != back.outcome.outputs.len() {
        if back.outcome.outputs.iter().map(|output| output.size).sum::<u64>() > UNPACKED_BYTES_MAX {
            return None;
        }
        plain.clone_from(&back.bytes);
    }
    Some(Box::new(Keep { key, executor, outcome: back.outcome.clone(), packed, plain }))
}

/// Keeps a result, in the background.
pub(super) fn put(agent: &Arc<Agent>, keep: Box<Keep>) {
    let bytes: usize = keep.packed.iter().chain(&keep.plain).map(Vec::len).sum();
    let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
    let Ok(room) = agent.cache.room.clone().try_acquire_many_owned(kib) else { return };
    let agent = agent.clone();
    tokio::task::spawn_blocking(move || {
        let Keep { key, executor, outcome, mut packed, plain } = *keep;
        for bytes in &plain {
            let mut wire = Vec::new();
            if stream::pack_blob(bytes, &mut wire).is_err() {
                return;
            }
            packed.push(wire);
        }
        if let Some(results) = &agent.cache.results {
            results.put(&Kept { key, executor, outcome, packed, made_ms: wall_ms() });
        }
        drop(room);
    });
}

/// Takes stock of what earlier agents kept, when this one has begun.
pub(super) async fn count(agent: Arc<Agent>) {
    let _ = tokio::task::spawn_blocking(move || agent.cache.results.as_ref().map(Results::count)).await;
}
