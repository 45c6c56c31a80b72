//! Which compiler a request means, and where that looks for headers: from memory, for as long as no file changed on which
//! the answer depends (DO).
//!
//! The registry and the searcher look at a hundred paths for each answer. Here the graph, which has watches on them, says
//! whether anything changed since.

use super::Agent;
use crate::{
    compiler::plan::Language,
    inputs::{Basis, Graph, Tick},
    reason::Reason,
    toolchain::{LookupError, Toolchain},
};
use mesh_proto::toolchain::Fingerprint;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// Answers of each kind that are kept. A project uses a handful.
const ANSWERS_MAX: usize = 1024;

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
