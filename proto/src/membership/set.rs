//! A set of records and what it means (AGREE).
//!
//! The set only ever holds records whose signatures were checked, so its evaluation needs no cryptography and can be
//! repeated whenever the clock matters. Its order never matters, so that gossip needs neither a clock nor a consensus:
//!
//! 1. *Reach* is whoever was ever admitted along owners, whatever was revoked.
//! 2. A revocation counts if its signer is an owner in reach, or the revoked machine itself: whether the signer was revoked too
//!    is not asked. So two owners who revoke each other are both out.
//! 3. A token's key signs admissions in its one role, which end with it; nobody becomes an owner by it.
//! 4. A revoked key is out for good, and so is whoever it has admitted, but for those that *every* revocation of it keeps.

use super::record::{Admit, Body, Delegate, Genesis, MeshId, PublicKey, Record, RecordError, Revoke, Role, Verify};
use crate::{digest::Digest, limits, peer::PeerId};
use std::collections::{BTreeMap, BTreeSet};

/// How long after its end an admission still counts, seconds: clocks on a desk are minutes apart.
const EXPIRY_GRACE_S: u64 = 10 * 60;

/// How long records are kept that have ended, seconds.
const KEPT_S: u64 = 7 * 24 * 3600;

/// Why records are not a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A record is not one.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// There is not exactly one genesis record among them.
    #[error("membership records must hold exactly one beginning of a mesh")]
    Genesis,
    /// The genesis record is not signed by the founder that it names.
    #[error("the signature on a mesh's beginning is wrong")]
    Signature,
}

/// What became of records that were offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Merged {
    /// They were new and are now held.
    pub added: usize,
    /// They are malformed, of another mesh, not signed by an owner, or more than a set may hold.
    pub refused: usize,
}

/// One machine of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its key.
    pub key: PublicKey,
    /// What it calls itself: the newest of its admissions' names. Two machines may share one.
    pub name: String,
    /// The rights of all its admissions together.
    pub role: Role,
    /// When the last of its admissions ends, seconds since 1970.
    pub not_after: Option<u64>,
    /// When the newest of its admissions was signed, seconds since 1970; 0 for the founder.
    pub issued: u64,
    /// Who signed the newest of its admissions; the founder itself for the founder.
    pub issuer: PeerId,
    /// Links between it and the founder.
    pub depth: usize,
}

/// Who belongs to a mesh at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The mesh.
    pub mesh: MeshId,
    /// What people call it.
    pub mesh_name: String,
    /// Its machines.
    pub by_id: BTreeMap<PeerId, Member>,
}

impl Members {
    /// The machine with this id, if it is a member.
    #[must_use]
    pub fn get(&self, id: &PeerId) -> Option<&Member> {
        self.by_id.get(id)
    }
}

/// The records that a machine holds of one mesh: signatures checked, order forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSet {
    mesh: MeshId,
    genesis: Genesis,
    genesis_record: Record,
    admits: BTreeMap<Digest, (Record, Admit)>,
    delegates: BTreeMap<Digest, (Record, Delegate)>,
    revokes: BTreeMap<Digest, (Record, Revoke)>,
}

impl RecordSet {
    /// The set of a mesh that has just begun.
    ///
    /// # Errors
    /// If the record is not a genesis, or not signed by the founder that it names.
    pub fn new(record: Record, verify: &dyn Verify) -> Result<Self, SetError> {
        let Body::Genesis(genesis) = record.body()? else { return Err(SetError::Genesis) };
        if !record.is_signed_by(&genesis.founder, verify) {
            return Err(SetError::Signature);
        }
        Ok(Self {
            mesh: MeshId(record.hash()),
            genesis,
            genesis_record: record,
            admits: BTreeMap::new(),
            delegates: BTreeMap::new(),
            revokes: BTreeMap::new(),
        })
    }

    /// The set that these records make, read from disk or handed over by an inviter. Records that do not belong are
    /// left out.
    ///
    /// # Errors
    /// If there is not exactly one valid genesis among them.
    pub fn from_records(records: Vec<Record>, verify: &dyn Verify) -> Result<Self, SetError> {
        let (mut begins, rest): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|r| matches!(r.body(), Ok(Body::Genesis(_))));
        let (Some(genesis), true) = (begins.pop(), begins.is_empty()) else { return Err(SetError::Genesis) };
        let mut set = Self::new(genesis, verify)?;
        set.merge(rest, verify);
        Ok(set)
    }

    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// What people call it.
    #[must_use]
    pub fn mesh_name(&self) -> &str {
        &self.genesis.mesh_name
    }

    /// All records, genesis first: what is stored, and what a new machine is given.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        std::iter::once(self.genesis_record.clone()).chain(self.others().map(|(_, record)| record.clone())).collect()
    }

    /// The hashes of all records but the genesis (whose hash is the mesh), sorted.
    #[must_use]
    pub fn hashes(&self) -> Vec<Digest> {
        let mut hashes: Vec<Digest> = self.others().map(|(hash, _)| *hash).collect();
        hashes.sort_unstable();
        hashes
    }

    /// All records but the genesis.
    fn others(&self) -> impl Iterator<Item = (&Digest, &Record)> {
        let admits = self.admits.iter().map(|(hash, (record, _))| (hash, record));
        let delegates = self.delegates.iter().map(|(hash, (record, _))| (hash, record));
        admits.chain(delegates).chain(self.revokes.iter().map(|(hash, (record, _))| (hash, record)))
    }

    /// A digest of the whole set: equal sets, equal digests.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("mesh record set v1");
        hasher.update(&self.mesh.0.0);
        for hash in self.hashes() {
            hasher.update(&hash.0);
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// The records that are here and not among `theirs`.
    #[must_use]
    pub fn missing(&self, theirs: &[Digest]) -> Vec<Record> {
        let theirs: BTreeSet<&Digest> = theirs.iter().collect();
        self.others().filter(|(hash, _)| !theirs.contains(hash)).map(|(_, record)| record.clone()).collect()
    }

    /// Takes in records that another machine holds: those of this mesh whose signer is an owner by records that are
    /// here or among them. The result does not depend on their order, nor on how they are parted, unless they are more
    /// than a set may hold.
    pub fn merge(&mut self, records: Vec<Record>, verify: &dyn Verify) -> Merged {
        let mut merged = Merged::default();
        let mut waiting: BTreeMap<PeerId, Vec<(Digest, Record, Grant)>> = BTreeMap::new();
        let mut revokes = Vec::new();
        for record in records {
            let hash = record.hash();
            match record.body() {
                Ok(Body::Admit(admit)) if admit.mesh == self.mesh => {
                    if !self.admits.contains_key(&hash) {
                        waiting.entry(admit.issuer).or_default().push((hash, record, Grant::Admit(admit)));
                    }
                }
                Ok(Body::Delegate(delegate)) if delegate.mesh == self.mesh => {
                    if !self.delegates.contains_key(&hash) {
                        waiting.entry(delegate.issuer).or_default().push((hash, record, Grant::Delegate(delegate)));
                    }
                }
                Ok(Body::Revoke(revoke)) if revoke.mesh == self.mesh => {
                    if !self.revokes.contains_key(&hash) {
                        revokes.push((hash, record, revoke));
                    }
                }
                Ok(Body::Genesis(_)) if record == self.genesis_record => {}
                _ => merged.refused += 1,
            }
        }
        // An owner, or a token, may be made by a record that comes after the ones it signed: whoever becomes one is looked at
        // then. However long a chain is, it is followed to its end: if a part of it were left for another time, two
        // machines that heard of it in different portions would never hold equal sets.
        let mut owners = self.owners();
        let mut signers: BTreeMap<PeerId, PublicKey> =
            self.delegates.values().map(|(_, delegate)| (delegate.key.peer(), delegate.key)).collect();
        signers.extend(&owners);
        let mut next: Vec<PeerId> = signers.keys().copied().collect();
        while let Some(issuer) = next.pop() {
            let may_sign = |(_, _, grant): &(_, _, Grant)| owners.contains_key(&issuer) || grant.is_for_tokens();
            let (now, later): (Vec<_>, Vec<_>) =
                waiting.remove(&issuer).unwrap_or_default().into_iter().partition(may_sign);
            if !later.is_empty() {
                // It may become an owner yet.
                waiting.insert(issuer, later);
            }
            for (hash, record, grant) in now {
                if self.is_full() || !record.is_signed_by(&signers[&issuer], verify) {
                    merged.refused += 1;
                    continue;
                }
                let (subject, key, is_owner) = grant.signer();
                let is_new =
                    if is_owner { owners.insert(subject, key).is_none() } else { !signers.contains_key(&subject) };
                if (is_owner || grant.is_token()) && is_new {
                    signers.insert(subject, key);
                    next.push(subject);
                }
                let new = match grant {
                    Grant::Admit(admit) => self.admits.insert(hash, (record, admit)).is_none(),
                    Grant::Delegate(delegate) => self.delegates.insert(hash, (record, delegate)).is_none(),
                };
                merged.added += usize::from(new);
            }
        }
        merged.refused += waiting.values().map(Vec::len).sum::<usize>();
        for (hash, record, revoke) in revokes {
            let key = match owners.get(&revoke.issuer) {
                Some(key) => Some(*key),
                None if revoke.issuer == revoke.subject => self.key_of(&revoke.subject),
                None => None,
            };
            let full = self.revokes.len() >= limits::REVOCATIONS_MAX;
            if full || !key.is_some_and(|key| record.is_signed_by(&key, verify)) {
                merged.refused += 1;
                continue;
            }
            merged.added += usize::from(self.revokes.insert(hash, (record, revoke)).is_none());
        }
        merged
    }

    /// The key of a machine that was ever admitted.
    fn key_of(&self, peer: &PeerId) -> Option<PublicKey> {
        let admitted = self.admits.values().map(|(_, admit)| admit.subject);
        std::iter::once(self.genesis.founder).chain(admitted).find(|key| key.peer() == *peer)
    }

    /// The first revocation of a machine, by its time, if there is one.
    #[must_use]
    pub fn revocation(&self, peer: &PeerId) -> Option<&Revoke> {
        let of_it = self.revokes.values().map(|(_, revoke)| revoke).filter(|revoke| revoke.subject == *peer);
        of_it.min_by_key(|revoke| (revoke.issued, revoke.issuer))
    }

    /// Whether no machine and no token can be admitted any more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.admits.len() + self.delegates.len() + 1 >= limits::RECORDS_MAX
    }

    /// The tokens that are known: each once.
    #[must_use]
    pub fn tokens(&self) -> Vec<&Delegate> {
        self.delegates.values().map(|(_, delegate)| delegate).collect()
    }

    /// Drops what has ended so long ago that every clock agrees: tokens, those that they have admitted, and other machines that are no
    /// owners. An owner's admission is kept, because what it has revoked stays revoked.
    pub fn prune(&mut self, now_s: u64) {
        let is_over = |not_after: u64| now_s > not_after.saturating_add(KEPT_S);
        self.delegates.retain(|_, (_, delegate)| !is_over(delegate.not_after));
        let tokens: BTreeSet<PeerId> = self.delegates.values().map(|(_, delegate)| delegate.key.peer()).collect();
        let owners = self.owners();
        self.admits.retain(|_, (_, admit)| {
            admit.role.admits()
                || !admit.not_after.is_some_and(is_over)
                    && (owners.contains_key(&admit.issuer) || tokens.contains(&admit.issuer))
        });
    }

    /// The records by which a machine is a member, for one that has never heard of it: each link of a shortest line from the
    /// founder. Empty if there is none.
    #[must_use]
    pub fn chain(&self, peer: &PeerId, now_s: u64) -> Vec<Record> {
        let revoked = self.revoked();
        let mut line: BTreeMap<PeerId, (PeerId, &Record)> = BTreeMap::new();
        let mut newest = BTreeSet::from([self.genesis.founder.peer()]);
        let admits = self.admits.values().map(|(record, a)| (record, a.issuer, a.subject.peer(), a.not_after));
        let tokens = self.delegates.values().map(|(record, d)| (record, d.issuer, d.key.peer(), Some(d.not_after)));
        let links: Vec<_> = admits.chain(tokens).filter(|(_, _, _, end)| is_live(*end, now_s)).collect();
        // One more than owners: the last may be a token's.
        for _ in 0..=limits::CHAIN_DEPTH_MAX {
            let mut next = BTreeSet::new();
            for (record, issuer, subject, _) in links.iter().filter(|(_, issuer, ..)| newest.contains(issuer)) {
                let stands = revoked.get(issuer).is_none_or(|keep| keep.contains(subject));
                if stands && *subject != self.genesis.founder.peer() && !line.contains_key(subject) {
                    line.insert(*subject, (*issuer, record));
                    next.insert(*subject);
                }
            }
            newest = next;
        }
        let mut out = Vec::new();
        let mut at = *peer;
        while let Some((issuer, record)) = line.get(&at) {
            out.push((*record).clone());
            at = *issuer;
        }
        out.reverse();
        out
    }

    /// Everybody who was ever admitted, members or not.
    #[must_use]
    pub fn everybody(&self) -> BTreeSet<PeerId> {
        let admitted = self.admits.values().map(|(_, admit)| admit.subject.peer());
        std::iter::once(self.genesis.founder.peer()).chain(admitted).collect()
    }

    /// Everybody who was put out.
    #[must_use]
    pub fn all_revoked(&self) -> BTreeSet<PeerId> {
        self.revokes.values().map(|(_, revoke)| revoke.subject).collect()
    }

    /// What a machine that was ever admitted called itself last, whether it is a member or not.
    #[must_use]
    pub fn name_of(&self, peer: &PeerId) -> Option<String> {
        let named = self.admits.values().map(|(_, admit)| admit).filter(|admit| admit.subject.peer() == *peer);
        let newest = named.max_by_key(|admit| (admit.issued, &admit.name)).map(|admit| admit.name.clone());
        newest.or_else(|| (self.genesis.founder.peer() == *peer).then(|| self.genesis.founder_name.clone()))
    }

    /// The machines that a machine or a token has admitted, and the tokens that it has made, sorted.
    #[must_use]
    pub fn admitted_by(&self, peer: &PeerId) -> Vec<PeerId> {
        let machines = self.admits.values().map(|(_, admit)| (admit.issuer, admit.subject.peer()));
        let tokens = self.delegates.values().map(|(_, delegate)| (delegate.issuer, delegate.key.peer()));
        let by_it = machines.chain(tokens).filter(|(issuer, _)| issuer == peer);
        by_it.map(|(_, subject)| subject).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Who is revoked, and which of its admissions stand nevertheless.
    fn revoked(&self) -> BTreeMap<PeerId, BTreeSet<PeerId>> {
        let mut revoked: BTreeMap<PeerId, BTreeSet<PeerId>> = BTreeMap::new();
        for (_, revoke) in self.revokes.values() {
            let keep: BTreeSet<PeerId> = revoke.keep.iter().copied().collect();
            let kept = revoked.entry(revoke.subject).or_insert_with(|| keep.clone());
            *kept = kept.intersection(&keep).copied().collect();
        }
        revoked
    }

    /// Everybody who was ever admitted as an owner, whatever the time.
    fn owners(&self) -> BTreeMap<PeerId, PublicKey> {
        let admitted = self.admits.values().filter(|(_, a)| a.role.admits()).map(|(_, a)| a.subject);
        std::iter::once(self.genesis.founder).chain(admitted).map(|key| (key.peer(), key)).collect()
    }

    /// Who is a member at `now_s` (seconds since 1970): every machine with a path of admissions, none of them ended,
    /// from the founder through owners, no longer than [`limits::CHAIN_DEPTH_MAX`]. A path may lead through a revoked owner if
    /// its revocation keeps the next one.
    #[must_use]
    pub fn evaluate(&self, now_s: u64) -> Members {
        let founder = Member {
            key: self.genesis.founder,
            name: self.genesis.founder_name.clone(),
            role: Role::Owner,
            not_after: None,
            issued: 0,
            issuer: self.genesis.founder.peer(),
            depth: 0,
        };
        let id = founder.key.peer();
        let mut by_id = BTreeMap::from([(id, founder)]);
        let mut owners = BTreeSet::from([id]);
        let mut newest = BTreeSet::from([id]);
        let revoked = self.revoked();
        let stands = |issuer: &PeerId, subject: PeerId| revoked.get(issuer).is_none_or(|keep| keep.contains(&subject));
        for depth in 1..=limits::CHAIN_DEPTH_MAX {
            let mut next = BTreeSet::new();
            let admits =
                || self.admits.values().map(|(_, admit)| admit).filter(|admit| is_live(admit.not_after, now_s));
            for admit in admits().filter(|a| newest.contains(&a.issuer) && stands(&a.issuer, a.subject.peer())) {
                let subject = admit.subject.peer();
                by_id.entry(subject).and_modify(|m| join(m, admit)).or_insert_with(|| member(admit, depth));
                if admit.role.admits() && owners.insert(subject) {
                    next.insert(subject);
                }
            }
            // Whom tokens of these owners have admitted: each no longer than the token itself.
            let tokens = self.delegates.values().map(|(_, delegate)| delegate);
            let tokens = tokens.filter(|d| newest.contains(&d.issuer) && stands(&d.issuer, d.key.peer()));
            for token in tokens.filter(|token| is_live(Some(token.not_after), now_s)) {
                let issuer = token.key.peer();
                let by_it = admits().filter(|admit| admit.issuer == issuer && admit.role == token.role);
                for admit in by_it.filter(|admit| stands(&issuer, admit.subject.peer())) {
                    let not_after = Some(admit.not_after.map_or(token.not_after, |end| end.min(token.not_after)));
                    let admit = Admit { not_after, ..admit.clone() };
                    let entry = by_id.entry(admit.subject.peer()).and_modify(|m| join(m, &admit));
                    entry.or_insert_with(|| member(&admit, depth));
                }
            }
            newest = next;
        }
        by_id.retain(|peer, _| !revoked.contains_key(peer));
        Members { mesh: self.mesh, mesh_name: self.genesis.mesh_name.clone(), by_id }
    }
}

/// Whether what ends then still counts.
fn is_live(not_after: Option<u64>, now_s: u64) -> bool {
    not_after.is_none_or(|end| now_s <= end.saturating_add(EXPIRY_GRACE_S))
}

/// What makes members, or those who make them.
enum Grant {
    Admit(Admit),
    Delegate(Delegate),
}

impl Grant {
    /// Whether the key of a token may sign it.
    fn is_for_tokens(&self) -> bool {
        matches!(self, Self::Admit(admit) if !admit.role.admits())
    }

    /// Whether it makes a token.
    fn is_token(&self) -> bool {
        matches!(self, Self::Delegate(_))
    }

    /// Who may sign from now on, if anybody, and whether as an owner.
    fn signer(&self) -> (PeerId, PublicKey, bool) {
        match self {
            Self::Admit(admit) => (admit.subject.peer(), admit.subject, admit.role.admits()),
            Self::Delegate(delegate) => (delegate.key.peer(), delegate.key, false),
        }
    }
}

/// The member that one admission makes.
fn member(admit: &Admit, depth: usize) -> Member {
    Member {
        key: admit.subject,
        name: admit.name.clone(),
        role: admit.role,
        not_after: admit.not_after,
        issued: admit.issued,
        issuer: admit.issuer,
        depth,
    }
}

/// Adds another admission to a member. The order of additions does not matter: rights only grow, and the newest name
/// wins, with the names and issuers themselves settling a tie.
fn join(member: &mut Member, admit: &Admit) {
    member.role = member.role.join(admit.role);
    member.not_after = match (member.not_after, admit.not_after) {
        (Some(one), Some(two)) => Some(one.max(two)),
        _ => None,
    };
    if (admit.issued, &admit.name, admit.issuer) > (member.issued, &member.name, member.issuer) {
        member.issued = admit.issued;
        member.name.clone_from(&admit.name);
        member.issuer = admit.issuer;
    }
}

#[cfg(test)]
pub(super) mod tests;
