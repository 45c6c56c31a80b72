//! The toolchains of this machine, each checked before it is used (DO).

use super::{
    closure::{self, ClosureError, Draft, Proof},
    disk::{Record, Records},
    probe::{self, IdentityError},
    stamp::Digests,
};
use crate::{compiler::invocation::Family, reason::Reason};
use mesh_proto::{
    limits::TOOLCHAINS_MAX,
    path::AbsPath,
    toolchain::{Fingerprint, Manifest},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Toolchains known at once, number; beyond it all are forgotten and found again from disk records as they are asked for.
const SLOTS_MAX: usize = 1024;
/// How long a program that is no compiler is not asked again, seconds. Until then its units are local, which is safe.
const FAILURE_SECONDS: u64 = 60;
/// The same where a file was too young or changing, seconds: the next moment may find it settled.
const CHANGING_SECONDS: u64 = 1;

/// The identity of mesh's own binary, however it is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeshBinary {
    /// Its device.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
}

/// Why there is no toolchain for a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Nothing of that name is there: the launcher exits with 127.
    #[error("there is no such program")]
    NotFound,
    /// The program is there, and its units stay here.
    #[error("{0}")]
    Local(Reason),
}

/// A compiler of this machine, with everything that decides its output.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// Its files and facts.
    pub manifest: Arc<Manifest>,
    /// The manifest's fingerprint.
    pub fingerprint: Fingerprint,
    /// Its grammar of options.
    pub family: Family,
    /// Its version, as `12.2.0`.
    pub version: String,
    /// The first number of the version.
    pub version_major: u32,
    /// What it compiles for, as it says itself.
    pub triple: String,
    /// Whether it takes `.c` for C++.
    pub cxx_driver: bool,
    /// The path by which it was found: what is run.
    pub driver: AbsPath,
    /// The file behind that path.
    pub real: AbsPath,
    /// clang: the GCC installation that it uses by default, whose marks are among the parts.
    pub gcc_install: Option<Vec<u8>>,
}

impl Toolchain {
    /// A short name for people: `gcc 12.2.0`.
    #[must_use]
    pub fn label(&self) -> String {
        let name = match (self.family, self.cxx_driver) {
            (Family::Gcc, false) => "gcc",
            (Family::Gcc, true) => "g++",
            (Family::Clang, false) => "clang",
            (Family::Clang, true) => "clang++",
        };
        format!("{name} {}", self.version)
    }

    /// The bytes of all files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        use mesh_proto::toolchain::PartNode;
        let size = |node: &PartNode| if let PartNode::File { size, .. } = node { *size } else { 0 };
        self.manifest.parts.iter().map(|p| size(&p.node)).sum()
    }

    /// The driver's path, to run it.
    #[must_use]
    pub fn program(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(self.driver.as_bytes()))
    }
}

/// What decides which toolchain a program is: its path, and the tools that it would find by the caller's `PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Key {
    driver: AbsPath,
    tools: Vec<Option<AbsPath>>,
}

/// What is known of one key. Its lock is held while it is found out, so that concurrent requests share the work.
#[derive(Debug, Default)]
struct Slot {
    known: Option<Known>,
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Known {
    toolchain: Arc<Toolchain>,
    proof: Proof,
    /// When the last check that held began; none for a record from disk.
    checked: Option<Instant>,
}

#[derive(Debug)]
struct Failed {
    reason: Reason,
    /// In more words than the reason's.
    why: String,
    until: Instant,
}

/// A program that looks like a compiler and is not used as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its path.
    pub program: AbsPath,
    /// Why its units stay here.
    pub reason: Reason,
    /// What exactly was met: a sentence without its full stop.
    pub why: String,
}

/// The toolchains of this machine. Shared by reference between threads; every method may block.
#[derive(Debug)]
pub struct Registry {
    mesh: Option<MeshBinary>,
    records: Records,
    digests: Digests,
    slots: Mutex<HashMap<Key, Arc<Mutex<Slot>>>>,
    /// The keys of each fingerprint: callers with different tools on their `PATH` that the driver does not use share one.
    keys: Mutex<HashMap<Fingerprint, Vec<Key>>>,
}

impl Registry {
    /// A registry that keeps what it finds below `cache_dir`, and takes `mesh` for no compiler.
    #[must_use]
    pub fn open(cache_dir: &Path, mesh: Option<MeshBinary>) -> Self {
        let records = Records::new(cache_dir);
        let digests = Digests::default();
        let (mut slots, mut keys) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for record in records.load() {
            record.teach(&digests);
            let (key, known) = Known::from_record(record);
            keys.entry(known.toolchain.fingerprint).or_default().push(key.clone());
            slots.insert(key, Arc::new(Mutex::new(Slot { known: Some(known), failed: None })));
        }
        Self { mesh, records, digests, slots: Mutex::new(slots), keys: Mutex::new(keys) }
    }

    /// The toolchain of `program` as typed, for a caller in `cwd` with that `PATH`.
    ///
    /// `arrived` is when the request came: a check of the files counts for it if it began no earlier, so requests that
    /// come together share one. There is no window of time in which an old check would do.
    ///
    /// # Errors
    /// [`LookupError::NotFound`] if there is no such program, else the reason why its units stay here.
    pub fn lookup(
        &self,
        program: &[u8],
        cwd: &[u8],
        path_var: &[u8],
        arrived: Instant,
    ) -> Result<Arc<Toolchain>, LookupError> {
        let driver = probe::resolve(program, cwd, path_var, self.mesh)?;
        let tools = closure::PATH_PROGRAMS.iter().map(|name| probe::on_path(name.as_bytes(), cwd, path_var)).collect();
        let key = Key { driver, tools };
        let slot = self.slot(&key);
        let mut slot = locked(&slot);
        if let Some(known) = slot.known.as_mut() {
            if known.fresh_for(arrived) {
                return Ok(Arc::clone(&known.toolchain));
            }
            self.forget(&key, &mut slot);
        }
        if let Some(failed) = &slot.failed
            && Instant::now() < failed.until
        {
            return Err(LookupError::Local(failed.reason));
        }
        self.find(key, path_var, &mut slot).map_err(LookupError::Local)
    }

    /// Every path on which [`Registry::lookup`]'s answer for an absolute `program` depends: for as long as none of them
    /// changes, the answer is the same. `None` if there is no such answer.
    #[must_use]
    pub fn depends_on(&self, program: &[u8], cwd: &[u8], path_var: &[u8]) -> Option<Vec<Vec<u8>>> {
        let driver = probe::resolve(program, cwd, path_var, self.mesh).ok().filter(|_| program.starts_with(b"/"))?;
        let tool = |name: &&str| probe::on_path(name.as_bytes(), cwd, path_var);
        let tools: Vec<Option<AbsPath>> = closure::PATH_PROGRAMS.iter().map(tool).collect();
        let mut paths = vec![program.to_vec()];
        for (name, found) in closure::PATH_PROGRAMS.iter().zip(&tools) {
            paths.extend(probe::looked_at(name.as_bytes(), cwd, path_var, found.as_ref()));
        }
        let slot = self.slot(&Key { driver, tools });
        let slot = locked(&slot);
        paths.extend(slot.known.as_ref()?.proof.paths().map(<[u8]>::to_vec));
        Some(paths)
    }

    /// The toolchain of this fingerprint, checked now or since `arrived`; `None` if there is none or it has changed.
    #[must_use]
    pub fn by_fingerprint(&self, fingerprint: Fingerprint, arrived: Instant) -> Option<Arc<Toolchain>> {
        let keys = locked(&self.keys).get(&fingerprint)?.clone();
        for key in keys {
            let Some(slot) = locked(&self.slots).get(&key).map(Arc::clone) else { continue };
            let mut slot = locked(&slot);
            let Some(known) = slot.known.as_mut().filter(|k| k.toolchain.fingerprint == fingerprint) else { continue };
            if known.fresh_for(arrived) {
                return Some(Arc::clone(&known.toolchain));
            }
            self.forget(&key, &mut slot);
        }
        None
    }

    /// Every compiler that is known now, by its driver's path, whether anybody has checked it lately or not.
    #[must_use]
    pub fn known(&self) -> Vec<Arc<Toolchain>> {
        let of = |slot: &Slot| slot.known.as_ref().map(|known| Arc::clone(&known.toolchain));
        let mut known: Vec<_> = self.all_slots().iter().filter_map(|(_, slot)| of(&locked(slot))).collect();
        known.sort_by(|a, b| (&a.driver, a.fingerprint).cmp(&(&b.driver, b.fingerprint)));
        known.dedup_by_key(|toolchain| toolchain.fingerprint);
        known
    }

    /// Every program that was taken for a compiler lately and is not used as one, by its path.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        let mut refused: Vec<Refused> = Vec::new();
        for (key, slot) in self.all_slots() {
            if let Some(failed) = &locked(&slot).failed {
                refused.push(Refused { program: key.driver, reason: failed.reason, why: failed.why.clone() });
            }
        }
        refused.sort_by(|a, b| (&a.program, &a.why).cmp(&(&b.program, &b.why)));
        refused.dedup();
        refused
    }

    /// What exactly was met at this absolute path, if it was refused as a compiler lately; never waits for a look-up.
    #[must_use]
    pub fn why_refused(&self, program: &[u8]) -> Option<String> {
        let is_it = |key: &&Key| key.driver.as_bytes() == program;
        let slots = locked(&self.slots);
        let mut found = slots.iter().filter(|(key, _)| is_it(key)).map(|(_, slot)| slot);
        found.find_map(|slot| slot.try_lock().ok()?.failed.as_ref().map(|failed| failed.why.clone()))
    }

    fn all_slots(&self) -> Vec<(Key, Arc<Mutex<Slot>>)> {
        locked(&self.slots).iter().map(|(key, slot)| (key.clone(), Arc::clone(slot))).collect()
    }

    /// A `PATH` by which this toolchain is found by its driver's path: the directories of the tools that its driver takes
    /// from there. `None` if the toolchain is not known, or no such `PATH` can be made.
    #[must_use]
    pub fn path_var(&self, fingerprint: &Fingerprint) -> Option<Vec<u8>> {
        let keys = locked(&self.keys).get(fingerprint)?.clone();
        keys.iter().find_map(|key| {
            let mut dirs: Vec<Vec<u8>> = Vec::new();
            for dir in key.tools.iter().flatten().filter_map(AbsPath::parent) {
                if !dirs.iter().any(|known| known == dir.as_bytes()) {
                    dirs.push(dir.as_bytes().to_vec());
                }
            }
            // An empty list would mean the working directory.
            let path_var = if dirs.is_empty() { b"/nonexistent".to_vec() } else { dirs.join(&b':') };
            let found = closure::PATH_PROGRAMS.iter().map(|name| probe::on_path(name.as_bytes(), b"/", &path_var));
            found.eq(key.tools.iter().cloned()).then_some(path_var)
        })
    }

    /// The compilers in these directories, to advertise: gcc, g++, cc, c++, clang, clang++, with a target before or a
    /// version behind, at most as many as a machine may advertise. `dirs` also serve as the `PATH` for their tools.
    ///
    /// One after the other, for it runs in the background: on a machine that has records of them it takes milliseconds,
    /// else about a quarter of a second each.
    #[must_use]
    pub fn scan(&self, dirs: &[PathBuf]) -> Vec<Arc<Toolchain>> {
        let began = Instant::now();
        let joined: Vec<&[u8]> = dirs.iter().map(|d| d.as_os_str().as_bytes()).collect();
        let path_var = joined.join(&b':');
        let mut found: Vec<Arc<Toolchain>> = Vec::new();
        for dir in dirs {
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            let mut names: Vec<_> = entries.flatten().map(|e| e.file_name()).collect();
            names.retain(|name| probe::is_compiler_name(name.as_bytes()));
            // Short names first: `gcc` before `x86_64-linux-gnu-gcc-12`, should there be too many.
            names.sort_by_key(|name| (name.len(), name.clone()));
            for name in names {
                if found.len() >= TOOLCHAINS_MAX {
                    return found;
                }
                let path = dir.join(name);
                if let Ok(toolchain) = self.lookup(path.as_os_str().as_bytes(), b"/", &path_var, began)
                    && !found.iter().any(|t| t.fingerprint == toolchain.fingerprint)
                {
                    found.push(toolchain);
                }
            }
        }
        found
    }

    /// Finds a toolchain anew and keeps it.
    fn find(&self, key: Key, path_var: &[u8], slot: &mut Slot) -> Result<Arc<Toolchain>, Reason> {
        let began = Instant::now();
        let fail = |slot: &mut Slot, reason, why, seconds| {
            tracing::debug!(driver = ?key.driver, why, "no toolchain");
            slot.failed = Some(Failed { reason, why, until: Instant::now() + Duration::from_secs(seconds) });
            Err(reason)
        };
        let draft = match closure::close(&key.driver, &key.tools, path_var, &self.digests) {
            Ok(draft) => draft,
            Err(error) => {
                let (reason, seconds) = match error {
                    ClosureError::Changing { .. } => (Reason::Changing, CHANGING_SECONDS),
                    ClosureError::Script { .. } | ClosureError::Identity(IdentityError::Wrapper(_)) => {
                        (Reason::Wrapper, FAILURE_SECONDS)
                    }
                    _ => (Reason::Compiler, FAILURE_SECONDS),
                };
                return fail(slot, reason, error.to_string(), seconds);
            }
        };
        if !draft.settled {
            // Somebody is installing it. Until that shows in the times, nothing about it can be relied on.
            let why = "one of its files changed within the last seconds".to_owned();
            return fail(slot, Reason::Changing, why, CHANGING_SECONDS);
        }
        let record = Record::new(key, draft);
        if let Err(error) = self.records.save(&record) {
            tracing::debug!(%error, "the toolchain's record was not kept");
        }
        let (key, known) = Known::from_record(record);
        let known = Known { checked: Some(began), ..known };
        let toolchain = Arc::clone(&known.toolchain);
        let mut keys = locked(&self.keys);
        let same = keys.entry(toolchain.fingerprint).or_default();
        if !same.contains(&key) {
            same.push(key);
        }
        drop(keys);
        *slot = Slot { known: Some(known), failed: None };
        Ok(toolchain)
    }

    fn forget(&self, key: &Key, slot: &mut Slot) {
        if let Some(known) = slot.known.take() {
            let mut keys = locked(&self.keys);
            if let Some(same) = keys.get_mut(&known.toolchain.fingerprint) {
                same.retain(|k| k != key);
                if same.is_empty() {
                    keys.remove(&known.toolchain.fingerprint);
                }
            }
            drop(keys);
            self.records.remove(key);
        }
    }

    fn slot(&self, key: &Key) -> Arc<Mutex<Slot>> {
        let mut slots = locked(&self.slots);
        if slots.len() >= SLOTS_MAX && !slots.contains_key(key) {
            slots.clear();
            locked(&self.keys).clear();
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }
}

impl Known {
    /// Whether it is what it was, by a check that began when the request was there.
    fn fresh_for(&mut self, arrived: Instant) -> bool {
        if self.checked.is_some_and(|checked| checked >= arrived) {
            return true;
        }
        let began = Instant::now();
        if self.proof.holds() {
            self.checked = Some(began);
            return true;
        }
        false
    }

    fn from_record(record: Record) -> (Key, Self) {
        let toolchain = Toolchain {
            fingerprint: record.manifest.fingerprint(),
            manifest: Arc::new(record.manifest),
            family: record.family,
            version: record.version,
            version_major: record.version_major,
            triple: record.triple,
            cxx_driver: record.cxx_driver,
            driver: record.key.driver.clone(),
            real: record.real,
            gcc_install: record.gcc_install,
        };
        (record.key, Self { toolchain: Arc::new(toolchain), proof: record.proof, checked: None })
    }
}

impl Record {
    fn new(key: Key, draft: Draft) -> Self {
        Self {
            key,
            manifest: draft.manifest,
            proof: draft.proof,
            family: draft.identity.family,
            version: draft.identity.version,
            version_major: draft.identity.version_major,
            triple: draft.identity.triple,
            cxx_driver: draft.cxx_driver,
            real: draft.real,
            gcc_install: draft.identity.gcc_install,
        }
    }
}

/// A lock's content; a thread that died with it left nothing half-done in it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
