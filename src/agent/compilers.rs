//! Which compiler a request means, and where that looks for headers: from memory, for as long as no file changed on which
//! the answer depends; and which compilers this machine lends (DO).
//!
//! The registry and the searcher look at a hundred paths for each answer. Here the graph, which has watches on them, says
//! whether anything changed since.

use super::Agent;
use crate::{
    compiler::plan::Language,
    config,
    inputs::{Basis, Graph, Tick},
    reason::Reason,
    toolchain::{LookupError, Toolchain},
};
use mesh_proto::{limits::TOOLCHAINS_MAX, toolchain::Fingerprint};
use std::{
    collections::HashMap,
    hash::Hash,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Answers of each kind that are kept. A project uses a handful.
const ANSWERS_MAX: usize = 1024;
/// Directories that are looked through for compilers to lend, besides those of `PATH`.
const USUAL_DIRS: &[&str] = &["/usr/local/bin", "/usr/bin", "/bin", "/opt/homebrew/bin"];
/// Directories that are looked through in all.
const DIRS_MAX: usize = 64;
/// The compilers that most builds name, lent from the start and looked at most often.
const USUAL_NAMES: &[&str] = &["gcc", "g++", "cc", "c++", "clang", "clang++"];
/// How often these are looked at again: an upgrade of them shows within this time, for two milliseconds of a processor.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The machine has compiled nothing for so many looks when the rest of its compilers are looked for, the first time.
const QUIET_LOOKS: u32 = 6;
/// After so many looks the rest are looked at again.
const SCAN_LOOKS: u32 = 60;

/// Answers that hold for as long as what they are based on.
#[derive(Debug, Default)]
pub(super) struct Compilers {
    toolchains: Answers<Asked, Arc<Toolchain>>,
    directories: Answers<Search, Arc<[Vec<u8>]>>,
}

/// What decides which compiler is meant, besides files.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Asked {
    program: Vec<u8>,
    path_var: Vec<u8>,
    /// Where the path's relative directories begin, if it has any.
    cwd: Vec<u8>,
}

/// What decides which directories are searched, besides files.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Search {
    toolchain: Fingerprint,
    language: Language,
    probe_args: Vec<Vec<u8>>,
    env: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug)]
struct Answers<K, V>(Mutex<HashMap<K, Slot<V>>>);

/// An answer, and what it is based on. Locked while it is found out, so that units that come together ask once.
type Slot<V> = Arc<Mutex<Option<(V, Basis)>>>;

impl<K, V> Default for Answers<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Answers<K, V> {
    fn slot(&self, key: K) -> Slot<V> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= ANSWERS_MAX && !slots.contains_key(&key) {
            slots.clear();
        }
        slots.entry(key).or_default().clone()
    }

    /// The answer that is kept, or the one that `find` gives now; that is kept if `depends_on` knows on which paths it
    /// depends, and if it is still the same after these were looked at.
    fn get<E>(
        &self,
        key: K,
        graph: &Mutex<Graph>,
        tick: Tick,
        find: impl Fn() -> Result<V, E>,
        depends_on: impl FnOnce() -> Option<Vec<Vec<u8>>>,
        is_same: impl FnOnce(&V, &V) -> bool,
    ) -> Result<V, E> {
        let locked = || graph.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = self.slot(key);
        let mut kept = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((answer, basis)) = &*kept
            && locked().stands(basis, tick)
        {
            return Ok(answer.clone());
        }
        *kept = None;
        let first = find()?;
        let basis = depends_on().and_then(|paths| locked().basis(paths.iter().map(Vec::as_slice), tick));
        let Some(basis) = basis else { return Ok(first) };
        // Once more: only what was learned after the paths were looked at is covered.
        let answer = find()?;
        if is_same(&first, &answer) {
            *kept = Some((answer.clone(), basis));
        }
        Ok(answer)
    }
}

/// Finds the compilers that this machine lends and keeps up with their upgrades, in the background.
pub(super) async fn lend(agent: Arc<Agent>) {
    if agent.config.compilers == config::Compilers::None {
        return;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).filter(|p| p.is_absolute()).collect();
    for dir in USUAL_DIRS.iter().map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs.truncate(DIRS_MAX);
    let (mut usual, mut all) = (look(&agent, &dirs).await, Vec::new());
    let mut lent = usual.clone();
    agent.set_served(lent.clone());
    let (mut seen, mut quiet, mut since_scan) = (agent.records().counters(), 0, 0);
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = agent.leaving.cancelled() => return,
        }
        let now = look(&agent, &dirs).await;
        let has_changed = !are_same(&now, &usual);
        usual = now;
        // All drivers of a machine take seconds of CPU, the first time: not while a build wants them.
        let counters = agent.records().counters();
        quiet = if std::mem::replace(&mut seen, counters) == seen { quiet + 1 } else { 0 };
        since_scan += 1;
        let is_due = if all.is_empty() { quiet >= QUIET_LOOKS } else { has_changed || since_scan >= SCAN_LOOKS };
        if is_due {
            let (finding, dirs) = (agent.clone(), dirs.clone());
            all = tokio::task::spawn_blocking(move || finding.registry.scan(&dirs)).await.unwrap_or_default();
            since_scan = 0;
        }
        let now = together(&usual, &all);
        if !are_same(&now, &lent) {
            tracing::info!("{} compilers", now.len());
            lent = now;
            agent.set_served(lent.clone());
        }
    }
}

fn are_same(some: &[Arc<Toolchain>], others: &[Arc<Toolchain>]) -> bool {
    some.iter().map(|one| one.fingerprint).eq(others.iter().map(|one| one.fingerprint))
}

/// The usual compilers, as they are now.
async fn look(agent: &Arc<Agent>, dirs: &[PathBuf]) -> Vec<Arc<Toolchain>> {
    let (finding, path) = (agent.clone(), std::env::join_paths(dirs).unwrap_or_default());
    let looked = tokio::task::spawn_blocking(move || {
        let look =
            |name: &&str| finding.registry.lookup(name.as_bytes(), b"/", path.as_encoded_bytes(), Instant::now()).ok();
        USUAL_NAMES.iter().filter_map(look).collect()
    });
    looked.await.unwrap_or_default()
}

/// Each compiler once, the usual ones first. Of the others, those that are found by the path of a usual one are older.
fn together(usual: &[Arc<Toolchain>], all: &[Arc<Toolchain>]) -> Vec<Arc<Toolchain>> {
    let mut lent = usual.to_vec();
    for one in all {
        if !lent.iter().any(|known| known.fingerprint == one.fingerprint || known.driver == one.driver) {
            lent.push(one.clone());
        }
    }
    lent.truncate(TOOLCHAINS_MAX);
    lent
}

impl Agent {
    /// The compiler that a request means.
    ///
    /// # Errors
    /// As the registry's.
    pub(super) fn compiler(
        &self,
        program: &[u8],
        cwd: &[u8],
        path_var: &[u8],
        (at, tick): (Instant, Tick),
    ) -> Result<Arc<Toolchain>, LookupError> {
        let is_absolute = path_var.split(|b| *b == b':').all(|dir| dir.starts_with(b"/"));
        let key = Asked {
            program: program.to_vec(),
            path_var: path_var.to_vec(),
            cwd: if is_absolute { Vec::new() } else { cwd.to_vec() },
        };
        // A check that was made for another request counts the first time only: later ones must come after the paths were looked at.
        let first = std::cell::Cell::new(Some(at));
        let find = || self.registry.lookup(program, cwd, path_var, first.take().unwrap_or_else(Instant::now));
        let depends_on = || self.registry.depends_on(program, cwd, path_var);
        let is_same = |a: &Arc<Toolchain>, b: &Arc<Toolchain>| a.fingerprint == b.fingerprint;
        self.compilers.toolchains.get(key, &self.graph, tick, find, depends_on, is_same)
    }

    /// Where a compiler looks for headers by itself.
    ///
    /// # Errors
    /// As the searcher's.
    pub(super) fn system_dirs(
        &self,
        toolchain: &Toolchain,
        language: Language,
        probe_args: &[Vec<u8>],
        env: &[(Vec<u8>, Vec<u8>)],
        tick: Tick,
    ) -> Result<Arc<[Vec<u8>]>, Reason> {
        let key = Search {
            toolchain: toolchain.fingerprint,
            language,
            probe_args: probe_args.to_vec(),
            env: crate::toolchain::relevant(env),
        };
        let find = || self.searcher.system_dirs(toolchain, language, probe_args, env);
        let depends_on = || self.searcher.depends_on(toolchain, language, probe_args, env);
        self.compilers.directories.get(key, &self.graph, tick, find, depends_on, |a, b| a == b)
    }
}
