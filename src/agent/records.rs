//! What the agent remembers of units, and its counters (DO).

use crate::{
    reason::Reason,
    view::{
        rows,
        snapshot::{Counters, FileRow, Files, Uncacheable, UnitRecord},
    },
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::{Path, PathBuf},
};

/// Units remembered for `mesh explain`.
const UNITS_MAX: usize = 4096;
/// Records that one question is answered with.
const ANSWERS_MAX: usize = 20;
/// Sources that one question is answered with.
const FILES_MAX: usize = 50;

/// Units and counters.
#[derive(Debug, Default)]
pub struct Records {
    units: VecDeque<UnitRecord>,
    counters: Counters,
    local: BTreeMap<Reason, u64>,
    by_peer: BTreeMap<String, u64>,
    uncacheable: BTreeMap<Uncacheable, u64>,
    /// How long the compilers of kept results had run, microseconds.
    saved_us: u64,
    /// Changes since the file was written.
    dirty: bool,
}

impl Records {
    /// A request arrived.
    pub fn requested(&mut self) {
        self.counters.requests += 1;
        self.dirty = true;
    }

    /// A unit ended.
    pub fn ended(&mut self, unit: UnitRecord) {
        match (&unit.reason, &unit.ran_on) {
            (Some(reason), _) => *self.local.entry(*reason).or_default() += 1,
            (None, Some(peer)) => {
                self.counters.remote += 1;
                *self.by_peer.entry(peer.clone()).or_default() += 1;
            }
            (None, None) if unit.cached => {
                self.counters.cache_hits += 1;
                self.counters.cache_bytes += unit.output_bytes;
                let run_us = unit.phases_there.iter().find(|phase| phase.name == "run").map_or(0, |phase| phase.us);
                self.saved_us += run_us;
                self.counters.cache_saved_ms = self.saved_us / 1000;
            }
            (None, None) => {}
        }
        self.dirty = true;
        if self.units.len() >= UNITS_MAX {
            self.units.pop_front();
        }
        self.units.push_back(unit);
    }

    /// A foreign job ended; `whole` if it ran to its end and the outcome was sent.
    pub fn served(&mut self, whole: bool) {
        if whole {
            self.counters.served += 1;
        } else {
            self.counters.not_served += 1;
        }
        self.dirty = true;
    }

    /// A foreign job ran in a tree that is kept for its client; `misses` did so in vain, all together.
    pub fn ran(&mut self, in_mirror: bool, misses: u64) {
        self.counters.served_in_mirror += u64::from(in_mirror);
        self.counters.mirror_misses = misses;
    }

    /// A result was had from another machine, or, with `joined`, as soon as it had been compiled for another unit.
    pub fn had_elsewhere(&mut self, joined: bool) {
        if joined {
            self.counters.cache_hits_joined += 1;
        } else {
            self.counters.cache_hits_mesh += 1;
        }
    }

    /// A result was looked for in vain.
    pub fn not_in_cache(&mut self) {
        self.counters.cache_misses += 1;
    }

    /// No result of a unit is looked for or kept.
    pub fn uncacheable(&mut self, why: Uncacheable) {
        *self.uncacheable.entry(why).or_default() += 1;
    }

    /// A result of so many bytes was written.
    pub fn kept(&mut self, bytes: u64) {
        self.counters.cache_kept += 1;
        self.counters.cache_kept_bytes += bytes;
    }

    /// A result was dropped.
    pub fn discrepancy(&mut self) {
        self.counters.discrepancies += 1;
        self.dirty = true;
    }

    /// A closure was made with the compiler's own list.
    pub fn asked_compiler(&mut self) {
        self.counters.asked_compiler += 1;
        self.dirty = true;
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            local: self.local.iter().map(|(r, n)| (*r, *n)).collect(),
            uncacheable: self.uncacheable.iter().map(|(why, n)| (*why, *n)).collect(),
            ..self.counters.clone()
        }
    }

    /// How many of our units each peer has finished.
    pub fn by_peer(&self) -> impl Iterator<Item = (&String, &u64)> {
        self.by_peer.iter()
    }

    /// What came of the units that are remembered and ended then or later, milliseconds since 1970, by source.
    #[must_use]
    pub fn files(&self, since_ms: u64) -> Files {
        let mut by_source: HashMap<&[u8], FileRow> = HashMap::new();
        let units = self.units.iter().filter(|unit| unit.ended_ms >= since_ms && !unit.source.is_empty());
        for unit in units {
            let row = by_source.entry(&unit.source).or_default();
            row.units += 1;
            row.elsewhere += u64::from(unit.ran_on.is_some());
            row.cached += u64::from(unit.cached);
            row.ms += unit.phases.iter().map(|phase| phase.us).sum::<u64>() / 1000;
            row.reason = unit.reason.or(row.reason);
        }
        let count = by_source.len() as u64;
        let named = |(source, row): (&[u8], FileRow)| FileRow { source: source.to_vec(), ..row };
        let mut rows: Vec<FileRow> = by_source.into_iter().map(named).collect();
        rows.sort_unstable_by(|one, other| (other.ms, &one.source).cmp(&(one.ms, &other.source)));
        rows.truncate(FILES_MAX);
        let from_ms = self.units.front().map(|unit| unit.ended_ms);
        Files { rows, count, from_ms, forgotten: self.units.len() >= UNITS_MAX }
    }

    /// How many of our units a peer has finished.
    #[must_use]
    pub fn finished_by(&self, peer: &str) -> u64 {
        self.by_peer.get(peer).copied().unwrap_or(0)
    }

    /// Units whose source or object has this path, the latest last; the last of all for `None`.
    #[must_use]
    pub fn find(&self, path: Option<&[u8]>) -> Vec<UnitRecord> {
        let fits = |u: &&UnitRecord| path.is_none_or(|p| u.source == p || u.output == p);
        let most = if path.is_some() { ANSWERS_MAX } else { 1 };
        let mut found: Vec<UnitRecord> = self.units.iter().rev().filter(fits).take(most).cloned().collect();
        found.reverse();
        found
    }

    /// Outputs that a machine has made, the latest first, and when, milliseconds since 1970: of those of the latest units.
    #[must_use]
    pub fn made_by(&self, name: &str) -> Vec<(Vec<u8>, u64)> {
        let by_it = |unit: &&UnitRecord| unit.made_by == name || unit.ran_on.as_deref() == Some(name);
        self.units.iter().rev().filter(by_it).map(|unit| (unit.output.clone(), unit.ended_ms)).collect()
    }

    /// Whether the counters have changed since [`Records::write`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Writes the counters as JSON to `counters.json` in the state directory, whole or not at all.
    pub fn write(&mut self, state_dir: &Path) {
        self.dirty = false;
        let mut json = rows::counters_json(&self.counters());
        json["schema"] = rows::SCHEMA.into();
        let (path, temp) = (counters_file(state_dir), state_dir.join("counters.json.new"));
        if std::fs::write(&temp, format!("{json}\n")).and_then(|()| std::fs::rename(&temp, &path)).is_err() {
            tracing::debug!("the counters could not be written");
        }
    }
}

/// Where the counters are written.
#[must_use]
pub fn counters_file(state_dir: &Path) -> PathBuf {
    state_dir.join("counters.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(source: &str, reason: Option<Reason>) -> UnitRecord {
        UnitRecord {
            source: source.into(),
            output: format!("{source}.o").into(),
            ran_on: reason.is_none().then(|| "tower".to_owned()),
            compiler: "gcc 12".to_owned(),
            reason,
            files: 1,
            ..UnitRecord::default()
        }
    }

    #[test]
    fn units_are_found_by_source_and_by_object_and_old_ones_go() {
        let mut records = Records::default();
        for n in 0..UNITS_MAX + 10 {
            records.ended(unit(&format!("/{n}.c"), (n % 2 == 0).then_some(Reason::NoPeer)));
        }
        assert!(records.find(Some(b"/9.c")).is_empty());
        assert_eq!(records.find(Some(b"/11.c.o")).len(), 1);
        assert_eq!(records.find(None)[0].source, format!("/{}.c", UNITS_MAX + 9).into_bytes());
        let counters = records.counters();
        assert_eq!(counters.remote, counters.local[0].1);
        assert_eq!(records.finished_by("tower"), counters.remote);
    }

    #[test]
    fn the_counters_are_written_as_json() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut records = Records::default();
        records.served(true);
        assert!(records.is_dirty());
        records.write(dir.path());
        assert!(!records.is_dirty());
        let text = std::fs::read_to_string(counters_file(dir.path())).expect("written");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["served"], 1);
    }
}
