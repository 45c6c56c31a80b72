//! What was compiled once, here or elsewhere, is not compiled again (DO).
//!
//! A unit's key is worked out as soon as its closure is known, in the same task, and a result of that key is placed at once:
//! a hit asks nobody, takes no slot and starts nothing. What comes from another machine is kept after the launcher has its
//! verdict, in the background, and not at all while too much waits for the disk. Who makes a result for another keeps it too.

use super::{
    Agent,
    checkouts::{self, Portable},
    compile::Unit,
    outputs::{Made, Placed},
    phases::measured,
    seek::{self, Making},
    starts::Back,
};
use crate::{
    compiler,
    config::{CacheUse, Config},
    env::Keeping,
    host::wall_ms,
    net::stream::{self, Packed},
    store::{
        checkouts::Checkouts,
        results::{Kept, Results, Stats},
    },
    view::snapshot::Uncacheable,
};
use mesh_proto::{
    closure::Entry,
    exchange::results::{Receipt, Sealed},
    job::{Job, Outcome},
    key::{ActionKey, EntryKey},
    peer::PeerId,
    toolchain::Manifest,
};
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
    pub(super) results: Option<Results>,
    /// Which of them other checkouts may have.
    pub(super) checkouts: Checkouts,
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
    /// The root of the checkout in which it was made, if that was another one.
    pub(super) elsewhere: Option<Vec<u8>>,
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
    /// What the machine that made it has signed.
    receipt: Option<Receipt>,
    /// What another checkout may have it by.
    portable: Option<Portable>,
    /// Others wait for it.
    pub(super) making: Option<Making>,
}

impl Cache {
    pub(super) fn open(folder: &Path, config: &Config) -> Self {
        let is_on = config.cache != CacheUse::Off && config.cache_bytes_max > 0;
        let results = is_on.then(|| Results::open(folder, config.cache_bytes_max));
        let room = Arc::new(Semaphore::new(WAITING_KIB_MAX as usize));
        let checkouts = Checkouts::open(folder, config.cache_bytes_max);
        Self { results, checkouts, keeps: is_on && config.cache == CacheUse::On, room }
    }

    /// Whether a result may be worth its bytes on the wire later.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// What is kept.
    pub(super) fn stats(&self) -> Stats {
        self.results.as_ref().map(Results::stats).unwrap_or_default()
    }

    /// Whether results are looked for at all.
    pub(super) fn is_on(&self) -> bool {
        self.results.is_some()
    }

    /// Whether there is an entry of an action.
    pub(super) fn has(&self, key: &ActionKey) -> bool {
        self.results.as_ref().is_some_and(|results| results.has(key))
    }

    /// The actions of which there are entries, so many at most; blocking.
    pub(super) fn keys(&self, most: usize) -> Vec<ActionKey> {
        self.results.as_ref().map(|results| results.keys(most)).unwrap_or_default()
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
    let why = match unit.keeping() {
        Keeping::Off => Some(Uncacheable::Asked),
        Keeping::Ccache => Some(Uncacheable::Ccache),
        _ if unit.closure.timestamped => Some(Uncacheable::Time),
        _ if !compiler::is_reproducible(&unit.job.argv, toolchain.family) => Some(Uncacheable::Flags),
        Keeping::Settings | Keeping::Read | Keeping::Elsewhere => None,
    };
    if let Some(why) = why {
        agent.records().uncacheable(why);
        return None;
    }
    Some(ActionKey::of(&unit.job, unit.closure.keyed(), has_programs(&toolchain.manifest)))
}

/// Whether a directory of `PATH` exists for a job: what is not below the toolchain's directories does not.
pub(super) fn has_programs(manifest: &Manifest) -> impl Fn(&[u8]) -> bool {
    |dir| {
        let dir = dir.strip_suffix(b"/").unwrap_or(dir);
        let is_below =
            |path: &[u8]| path.strip_prefix(dir).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')));
        !dir.starts_with(b"/") || manifest.parts.iter().any(|part| is_below(part.path.as_bytes()))
    }
}

/// The key of a job of another machine's, by what is known here of its closure.
pub(super) fn key_of(job: &Job, manifest: &Manifest, mut closure: Vec<Arc<Entry>>) -> ActionKey {
    closure.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    ActionKey::of(job, closure.iter().map(|entry| (&**entry, EntryKey::of(entry))), has_programs(manifest))
}

/// Places what is kept of a unit's key; blocking.
pub(super) fn look(agent: &Agent, unit: &Unit) -> Option<Had> {
    let (results, key) = (agent.cache.results.as_ref()?, unit.key?);
    let began = Instant::now();
    let (found, cpu_us) = measured(|| {
        let kept = results.get(&key)?;
        if seek::believed(agent, &kept.executor, kept.made_ms).is_none() {
            // In no mesh nothing is known of anybody: that may be for a moment only.
            if agent.mesh.name().is_some() {
                results.remove(&key);
            }
            return None;
        }
        if !seek::is_taken(agent, unit, &kept.executor) {
            return None;
        }
        let made = made(unit, &kept);
        if made.is_none() {
            results.remove(&key);
        }
        // A disk that has no room for it has none for the compiler's either: that is the compiler's to say.
        let placed = agent.temporaries.place(&made?, unit.umask()).ok()?;
        Some((kept, placed))
    });
    let (kept, placed) = found?;
    Some(Had::new(unit, &kept, placed, (began, cpu_us)))
}

/// Places a result that another machine gave, which is to be kept here too then; blocking.
pub(super) fn take(agent: &Agent, unit: &Unit, kept: Kept) -> Option<(Had, Box<Keep>)> {
    let began = Instant::now();
    let (placed, cpu_us) = measured(|| agent.temporaries.place(&made(unit, &kept)?, unit.umask()).ok());
    let had = Had::new(unit, &kept, placed?, (began, cpu_us));
    let Kept { key, executor, outcome, packed, made_ms, signature } = kept;
    let receipt = signature.map(|signature| Receipt { executor, made_ms, signature });
    let portable = unit.portable.clone();
    Some((had, Box::new(Keep { key, executor, outcome, packed, plain: Vec::new(), receipt, portable, making: None })))
}

impl Had {
    pub(super) fn new(unit: &Unit, kept: &Kept, placed: Placed, (began, cpu_us): (Instant, u64)) -> Self {
        let took_us = (u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), cpu_us);
        let Kept { executor, made_ms, .. } = *kept;
        let (outcome, files) = (kept.outcome.clone(), unit.closure.entries.len());
        Self { placed, outcome, executor, made_ms, files, elsewhere: None, took_us }
    }
}

/// An entry as another machine is given it, with who stands for it, and the outputs' bytes; blocking.
pub(super) fn sealed(agent: &Agent, key: &ActionKey) -> Option<(Sealed, Vec<Vec<u8>>)> {
    let Kept { executor, outcome, packed, made_ms, signature, .. } = agent.cache.results.as_ref()?.get(key)?;
    let receipt = match signature {
        Some(signature) => Receipt { executor, made_ms, signature },
        // Made here, in the sandbox, for this machine's own user: nobody has asked for it before.
        None if executor == agent.mesh.me() => seek::receipt(agent, key, &outcome, made_ms),
        None => return None,
    };
    Some((Sealed { receipt, outcome }, packed))
}

/// The files of an entry, if each is what it was, and all are what the unit makes.
fn made(unit: &Unit, kept: &Kept) -> Option<Vec<Made>> {
    unit.made(&kept.outcome, unpacked(kept)?)
}

/// The outputs' bytes, if each is what it was.
pub(super) fn unpacked(kept: &Kept) -> Option<Vec<Vec<u8>>> {
    let plain = |(output, packed): (&mesh_proto::job::Output, &Vec<u8>)| {
        Packed::from_wire(packed, output.size).and_then(|packed| packed.unpack(&output.digest)).ok()
    };
    kept.outcome.outputs.iter().zip(&kept.packed).map(plain).collect()
}

/// What is to be kept of a result that has just come and was found good, if anything.
pub(super) fn keep(agent: &Agent, unit: &Unit, back: &mut Back, making: Option<Making>) -> Option<Box<Keep>> {
    let key = unit.key.filter(|_| unit.is_kept(agent))?;
    let executor = back.link.as_ref().map_or_else(|| agent.mesh.me(), |link| link.peer);
    let packed = std::mem::take(&mut back.packed);
    let mut plain = Vec::new();
    if packed.len() != back.outcome.outputs.len() {
        if back.outcome.outputs.iter().map(|output| output.size).sum::<u64>() > UNPACKED_BYTES_MAX {
            return None;
        }
        plain.clone_from(&back.bytes);
    }
    let receipt = back.receipt.filter(|receipt| receipt.executor == executor);
    let (outcome, portable) = (back.outcome.clone(), unit.portable.clone());
    Some(Box::new(Keep { key, executor, outcome, packed, plain, receipt, portable, making }))
}

/// What this machine has made for another one, to be kept here too.
pub(super) fn keep_made(key: ActionKey, outcome: Outcome, packed: Vec<Vec<u8>>, receipt: Receipt) -> Box<Keep> {
    let (executor, receipt) = (receipt.executor, Some(receipt));
    Box::new(Keep { key, executor, outcome, packed, plain: Vec::new(), receipt, portable: None, making: None })
}

/// Keeps a result, in the background.
pub(super) fn put(agent: &Arc<Agent>, keep: Box<Keep>) {
    let bytes: usize = keep.packed.iter().chain(&keep.plain).map(Vec::len).sum();
    let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
    let Ok(room) = agent.cache.room.clone().try_acquire_many_owned(kib) else { return };
    let agent = agent.clone();
    tokio::task::spawn_blocking(move || {
        put_now(&agent, *keep);
        drop(room);
    });
}

/// Keeps a result; blocking.
pub(super) fn put_now(agent: &Agent, keep: Keep) {
    let Keep { key, executor, outcome, mut packed, plain, receipt, portable, making } = keep;
    for bytes in &plain {
        let mut wire = Vec::new();
        if stream::pack_blob(bytes, &mut wire).is_err() {
            return;
        }
        packed.push(wire);
    }
    if let Some(results) = &agent.cache.results {
        let made_ms = receipt.map_or_else(wall_ms, |receipt| receipt.made_ms);
        let signature = receipt.map(|receipt| receipt.signature);
        let bytes = packed.iter().map(Vec::len).sum::<usize>() as u64;
        let kept = Kept { key, executor, outcome, packed, made_ms, signature };
        if results.put(&kept) {
            agent.records().kept(bytes);
        }
        seek::kept(agent, key);
        if let Some(portable) = portable {
            checkouts::keep(agent, portable, &kept);
        }
    }
    // Who waited for it finds it now.
    drop(making);
}

/// Takes stock of what earlier agents kept, when this one has begun.
pub(super) async fn count(agent: Arc<Agent>) {
    let _ = tokio::task::spawn_blocking(move || agent.cache.results.as_ref().map(Results::count)).await;
}
