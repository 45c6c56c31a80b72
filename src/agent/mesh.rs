//! This machine's key and the records of its mesh, in memory and on disk (DO).

use crate::net::{
    identity::{Ed25519, Identity},
    tls::Gate,
};
use mesh_proto::{
    advert::DiscKey,
    limits,
    membership::{Admit, Body, Cause, Genesis, Members, Merged, PublicKey, Record, RecordSet, Revoke, Role, Sign},
    peer::PeerId,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

/// The records on disk; the name carries the version of the format.
const FILE: &str = "mesh-v1";
/// The file, bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Whom this machine refuses whatever the records say.
const DENIED: &str = "denied-v1";
/// The file, bytes.
const DENIED_BYTES_MAX: u64 = 1 << 20;
/// Whose results are not used if they were made until when.
const TAINTED: &str = "tainted-v1";
/// Machines that are refused so, and those whose results are; what is not written down any more is still revoked.
const DENIED_MAX: usize = 4096;

/// What is on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    records: Vec<Record>,
    disc_key: DiscKey,
}

#[derive(Debug, Clone)]
struct State {
    set: RecordSet,
    disc_key: DiscKey,
    members: Members,
}

/// The mesh that this machine is in, if it is in one.
#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) identity: Arc<Identity>,
    pub(super) gate: Arc<Gate>,
    file: PathBuf,
    state: RwLock<Option<State>>,
    denied: RwLock<BTreeSet<PeerId>>,
    tainted: RwLock<BTreeMap<PeerId, u64>>,
    /// This member says that this machine is out.
    out: RwLock<Option<PeerId>>,
}

/// Why the mesh could not be changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum MeshError {
    /// It is in one already.
    #[error("this machine is already in \"{0}\"")]
    Already(String),
    /// It is in none.
    #[error("this machine is in no mesh")]
    None,
    /// The records could not be written.
    #[error("the records could not be written to {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A record could not be made: a name is too long, most likely.
    #[error("{0}")]
    Record(String),
}

impl Mesh {
    /// Reads the records. A file that cannot be used is kept aside: the machine is then in no mesh, and says so.
    pub(super) fn open(state_dir: &Path, identity: Arc<Identity>, gate: Arc<Gate>) -> Self {
        let file = state_dir.join(FILE);
        let state = match read(&file) {
            Ok(state) => state,
            Err(why) => {
                tracing::error!(
                    "{} is damaged ({why}); this machine is in no mesh until it joins again",
                    file.display()
                );
                let _ = std::fs::rename(&file, file.with_extension("damaged"));
                None
            }
        };
        let denied = crate::host::read_at_most(&state_dir.join(DENIED), DENIED_BYTES_MAX);
        let denied = denied.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
        let tainted = crate::host::read_at_most(&state_dir.join(TAINTED), DENIED_BYTES_MAX);
        let tainted = tainted.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
        let (denied, tainted) = (RwLock::new(denied), RwLock::new(tainted));
        let mesh = Self { identity, gate, file, state: RwLock::new(state), denied, tainted, out: RwLock::default() };
        mesh.evaluate();
        mesh
    }

    pub(super) fn me(&self) -> PeerId {
        self.identity.peer()
    }

    fn with<T>(&self, f: impl FnOnce(&State) -> T) -> Option<T> {
        self.state.read().expect("no panic while held").as_ref().map(f)
    }

    /// The mesh's name.
    pub(super) fn name(&self) -> Option<String> {
        self.with(|s| s.set.mesh_name().to_owned())
    }

    /// Who belongs to it.
    pub(super) fn members(&self) -> Option<Members> {
        self.with(|s| s.members.clone())
    }

    /// What this machine may do.
    pub(super) fn role(&self) -> Option<Role> {
        self.role_of(&self.identity.peer())
    }

    /// What a machine may do; nothing if it is no member.
    pub(super) fn role_of(&self, peer: &PeerId) -> Option<Role> {
        self.with(|s| s.members.get(peer).map(|m| m.role)).flatten()
    }

    /// The machines of owners.
    pub(super) fn owners(&self) -> BTreeSet<PeerId> {
        let all =
            |s: &State| s.members.by_id.iter().filter(|(_, m)| m.role == Role::Owner).map(|(id, _)| *id).collect();
        self.with(all).unwrap_or_default()
    }

    /// The public key of a member that may compile for others.
    pub(super) fn key_of_server(&self, peer: &PeerId) -> Option<PublicKey> {
        self.with(|s| s.members.get(peer).filter(|m| m.role.serves()).map(|m| m.key)).flatten()
    }

    /// A member's name; two of one name are told apart by their ids.
    pub(super) fn name_of(&self, peer: &PeerId) -> Option<String> {
        self.with(|s| {
            let member = s.members.get(peer)?;
            let twins = s.members.by_id.values().filter(|m| m.name == member.name).count();
            Some(if twins > 1 { format!("{}-{}", member.name, &peer.short()[..4]) } else { member.name.clone() })
        })
        .flatten()
    }

    /// The records and the announcements' secret.
    pub(super) fn set(&self) -> Option<(RecordSet, DiscKey)> {
        self.with(|s| (s.set.clone(), s.disc_key))
    }

    /// Begins a mesh of one.
    pub(super) fn found(&self, mesh_name: &str, my_name: &str) -> Result<(), MeshError> {
        if let Some(name) = self.name() {
            return Err(MeshError::Already(name));
        }
        let mut random = [0u8; 32];
        fill_random(&mut random);
        let (nonce, disc) = random.split_at(16);
        let genesis = Genesis {
            nonce: nonce.try_into().expect("half of 32 bytes"),
            founder: self.identity.public_key(),
            founder_name: my_name.to_owned(),
            mesh_name: mesh_name.to_owned(),
        };
        let record = |e: &dyn std::fmt::Display| MeshError::Record(e.to_string());
        let genesis = Record::sign(&Body::Genesis(genesis), &*self.identity).map_err(|e| record(&e))?;
        let set = RecordSet::new(genesis, &Ed25519).map_err(|e| record(&e))?;
        self.replace(set, DiscKey(disc.try_into().expect("half of 32 bytes")))
    }

    /// Enters a mesh, or leaves one for it.
    pub(super) fn replace(&self, set: RecordSet, disc_key: DiscKey) -> Result<(), MeshError> {
        let members = set.evaluate(now_s());
        let state = State { set, disc_key, members };
        self.write(&state)?;
        *self.out.write().expect("no panic while held") = None;
        *self.state.write().expect("no panic while held") = Some(state);
        self.evaluate();
        Ok(())
    }

    /// Signs a machine's admission and keeps it.
    pub(super) fn admit(&self, key: PublicKey, name: &str, role: Role) -> Result<RecordSet, MeshError> {
        let (mut set, disc_key) = self.set().ok_or(MeshError::None)?;
        let admit = Admit {
            mesh: set.mesh(),
            subject: key,
            name: name.to_owned(),
            role,
            not_after: None,
            issuer: self.me(),
            issued: now_s(),
        };
        let record =
            Record::sign(&Body::Admit(admit), &*self.identity).map_err(|e| MeshError::Record(e.to_string()))?;
        taken(set.merge(vec![record], &Ed25519))?;
        self.replace(set.clone(), disc_key)?;
        Ok(set)
    }

    /// Refuses a machine from now on, whatever the records say: before anything else is done about it.
    pub(super) fn deny(&self, peer: PeerId) -> Result<(), MeshError> {
        let denied = {
            let mut denied = self.denied.write().expect("no panic while held");
            if denied.len() < DENIED_MAX {
                denied.insert(peer);
            }
            denied.clone()
        };
        let bytes = postcard::to_stdvec(&denied).expect("ids have no form that postcard cannot write");
        let written = self.write_to(&self.file.with_file_name(DENIED), &bytes);
        self.evaluate();
        written
    }

    /// Signs that a machine is out, and keeps that. Of those that it has admitted, these stay; they may not be
    /// more than [`limits::KEPT_MAX`].
    pub(super) fn revoke(&self, subject: PeerId, keep: Vec<PeerId>, cause: Cause) -> Result<(), MeshError> {
        let (set, _) = self.set().ok_or(MeshError::None)?;
        let keep: BTreeSet<PeerId> = keep.into_iter().collect();
        if keep.len() > limits::KEPT_MAX {
            let (has, most) = (keep.len(), limits::KEPT_MAX);
            return Err(MeshError::Record(format!(
                "it has admitted {has} machines and tokens, and {most} can stay when it goes"
            )));
        }
        let keep = keep.into_iter().collect();
        let revoke = Revoke { mesh: set.mesh(), subject, keep, cause, issuer: self.me(), issued: now_s() };
        self.sign(&Body::Revoke(revoke))
    }

    /// Is in no mesh any more, and refuses nobody.
    pub(super) fn clear(&self) -> Result<(), MeshError> {
        for path in [self.file.clone(), self.file.with_file_name(DENIED)] {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(MeshError::Write { path, source: e });
                }
                _ => {}
            }
        }
        *self.state.write().expect("no panic while held") = None;
        self.denied.write().expect("no panic while held").clear();
        self.evaluate();
        Ok(())
    }

    /// Uses no result any more that a machine has made until now, milliseconds since 1970.
    pub(super) fn taint(&self, peer: PeerId, now_ms: u64) -> Result<(), MeshError> {
        let tainted = {
            let mut tainted = self.tainted.write().expect("no panic while held");
            if tainted.len() >= DENIED_MAX && !tainted.contains_key(&peer) {
                return Err(MeshError::Record("more machines are tainted than can be noted".to_owned()));
            }
            tainted.insert(peer, now_ms);
            tainted.clone()
        };
        let bytes = postcard::to_stdvec(&tainted).expect("ids have no form that postcard cannot write");
        self.write_to(&self.file.with_file_name(TAINTED), &bytes)
    }

    /// Whether what a machine made at this time is not used.
    pub(super) fn is_tainted(&self, peer: &PeerId, made_ms: u64) -> bool {
        self.tainted.read().expect("no panic while held").get(peer).is_some_and(|until| made_ms <= *until)
    }

    /// When a machine was put out of the mesh, seconds since 1970, if it was.
    pub(super) fn out_since(&self, peer: &PeerId) -> Option<u64> {
        let revoked = self.with(|s| s.set.revocation(peer).map(|revoke| revoke.issued)).flatten();
        revoked.or_else(|| self.denied.read().expect("no panic while held").contains(peer).then(now_s))
    }

    /// A member has refused this machine because it was put out.
    pub(super) fn refused_for_good(&self, by: PeerId) {
        let mut out = self.out.write().expect("no panic while held");
        if out.is_none() {
            tracing::warn!("a member of the mesh says that this machine was forgotten");
        }
        *out = Some(by);
    }

    /// That this machine was put out, in words; `None` if nobody says so.
    pub(super) fn forgotten(&self) -> Option<String> {
        let me = self.me();
        let said = self.with(|s| {
            let revoke = s.set.revocation(&me)?;
            let by = s.set.name_of(&revoke.issuer).unwrap_or_else(|| revoke.issuer.short());
            Some(format!(" on {} by {by}", crate::view::time::day(revoke.issued)))
        });
        let told = || {
            let by = (*self.out.read().expect("no panic while held"))?;
            Some(self.name_of(&by).map_or_else(String::new, |name| format!(", as {name} says")))
        };
        said.flatten().or_else(told)
    }

    /// Signs something as this machine, and keeps it.
    pub(super) fn sign(&self, body: &Body) -> Result<(), MeshError> {
        let (mut set, disc_key) = self.set().ok_or(MeshError::None)?;
        let record = Record::sign(body, &*self.identity).map_err(|e| MeshError::Record(e.to_string()))?;
        taken(set.merge(vec![record], &Ed25519))?;
        self.replace(set, disc_key)
    }

    /// Takes records in that a peer holds. `None` if there was nothing new.
    pub(super) fn merge(&self, records: Vec<Record>) -> Option<Merged> {
        let (mut set, disc_key) = self.set()?;
        let merged = set.merge(records, &Ed25519);
        if merged.added == 0 {
            return None;
        }
        set.prune(now_s());
        if let Err(e) = self.replace(set, disc_key) {
            tracing::error!("{e}");
        }
        Some(merged)
    }

    /// Decides anew who belongs to the mesh, and tells the gate.
    pub(super) fn evaluate(&self) {
        let mut state = self.state.write().expect("no panic while held");
        let members = match state.as_mut() {
            Some(state) => {
                state.members = state.set.evaluate(now_s());
                let denied = self.denied.read().expect("no panic while held");
                state.members.by_id.retain(|peer, _| !denied.contains(peer));
                self.gate.revoke(state.set.all_revoked());
                state.members.by_id.keys().copied().collect()
            }
            None => {
                self.gate.revoke(BTreeSet::new());
                BTreeSet::new()
            }
        };
        self.gate.allow(members);
    }

    fn write(&self, state: &State) -> Result<(), MeshError> {
        let stored = Stored { records: state.set.records(), disc_key: state.disc_key };
        let bytes = postcard::to_stdvec(&stored).expect("records have no type that postcard cannot write");
        self.write_to(&self.file, &bytes)
    }

    fn write_to(&self, path: &Path, bytes: &[u8]) -> Result<(), MeshError> {
        let temp = path.with_extension("new");
        let failed = |source| MeshError::Write { path: path.to_owned(), source };
        let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp);
        let mut file = open.map_err(failed)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&temp, path).map_err(failed)
    }
}

/// A record that was signed here is kept unless there are too many.
fn taken(merged: Merged) -> Result<(), MeshError> {
    let full = || MeshError::Record("the mesh holds as many records as it may".to_owned());
    (merged.refused == 0).then_some(()).ok_or_else(full)
}

fn read(file: &Path) -> Result<Option<State>, String> {
    let meta = match std::fs::metadata(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
        Ok(meta) => meta,
    };
    if meta.len() > FILE_BYTES_MAX {
        return Err("it is too large".to_owned());
    }
    let bytes = std::fs::read(file).map_err(|e| e.to_string())?;
    let stored: Stored = match postcard::take_from_bytes(&bytes) {
        Ok((stored, [])) => stored,
        _ => return Err("it is not what was written".to_owned()),
    };
    let set = RecordSet::from_records(stored.records, &Ed25519).map_err(|e| e.to_string())?;
    let members = set.evaluate(now_s());
    Ok(Some(State { set, disc_key: stored.disc_key, members }))
}

pub(super) fn now_s() -> u64 {
    crate::host::wall_ms() / 1000
}

/// Fills a buffer from the system's source of randomness.
pub(super) fn fill_random(buffer: &mut [u8]) {
    use rand_core::RngCore;
    rand_core::OsRng.fill_bytes(buffer);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(dir: &Path) -> Mesh {
        let identity = Arc::new(Identity::open(dir).expect("a directory"));
        Mesh::open(dir, identity, Arc::new(Gate::default()))
    }

    #[test]
    fn a_founded_mesh_is_there_after_a_restart_and_admits() {
        let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let newcomer = machine(two.path());
        assert_eq!(newcomer.role(), None);
        let founder = machine(one.path());
        founder.found("home", "thinkpad").expect("in none");
        assert!(matches!(founder.found("work", "thinkpad"), Err(MeshError::Already(name)) if name == "home"));
        founder.admit(newcomer.identity.public_key(), "tower", Role::Peer).expect("an owner");
        let again = machine(one.path());
        assert_eq!(again.role(), Some(Role::Owner));
        assert_eq!(again.name_of(&newcomer.me()).as_deref(), Some("tower"));
        assert!(again.gate.is_member(&newcomer.me()));
    }

    #[test]
    fn a_revocation_keeps_whoever_is_named_in_whatever_order_or_is_not_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let founder = machine(dir.path());
        founder.found("home", "a").expect("in none");
        let keys: Vec<PublicKey> = (0..30).map(|n| PublicKey([n; 32])).collect();
        for key in &keys {
            founder.admit(*key, "one", Role::Peer).expect("an owner");
        }
        let subject = PublicKey([99; 32]);
        founder.admit(subject, "out", Role::Owner).expect("an owner");
        let mut named: Vec<PeerId> = keys.iter().map(PublicKey::peer).collect();
        named.sort_unstable_by(|one, other| other.cmp(one));
        let refused = founder.revoke(subject.peer(), named.clone(), Cause::Stolen).expect_err("too many");
        assert!(refused.to_string().contains("30 machines and tokens, and 24 can stay"), "{refused}");
        assert!(founder.role_of(&subject.peer()).is_some(), "nothing was signed");
        named.truncate(limits::KEPT_MAX);
        founder.revoke(subject.peer(), named.clone(), Cause::Stolen).expect("signs");
        let (set, _) = founder.set().expect("in a mesh");
        let kept: BTreeSet<PeerId> = set.revocation(&subject.peer()).expect("revoked").keep.iter().copied().collect();
        assert_eq!(kept, named.into_iter().collect());
    }

    #[test]
    fn damaged_records_are_kept_aside_and_the_machine_is_in_no_mesh() {
        let dir = tempfile::tempdir().expect("a directory");
        machine(dir.path()).found("home", "a").expect("in none");
        let file = dir.path().join(FILE);
        let mut bytes = std::fs::read(&file).expect("written");
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).expect("own file");
        assert_eq!(machine(dir.path()).role(), None);
        assert!(file.with_extension("damaged").exists());
    }
}
