//! A set of records and what it means (AGREE).
//!
//! The set only ever holds records whose signatures were checked, so its evaluation needs no cryptography and can be
//! repeated whenever the clock matters. Its order never matters, so that gossip needs neither a clock nor a consensus:
//!
//! 1. *Reach* is whoever was ever admitted along owners, whatever was revoked.
//! 2. A revocation counts if its signer is an owner in reach, or the revoked machine itself: whether the signer was revoked too
//!    is not asked. So two owners who revoke each other are both out.
//! 3. A revoked key is out for good, and so is whoever it has admitted, but for those that *every* revocation of it keeps.

use super::record::{Admit, Body, Genesis, MeshId, PublicKey, Record, RecordError, Revoke, Role, Verify};
use crate::{digest::Digest, limits, peer::PeerId};
use std::collections::{BTreeMap, BTreeSet};

/// How long after its end an admission still counts, seconds: clocks on a desk are minutes apart.
const EXPIRY_GRACE_S: u64 = 10 * 60;

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
        admits.chain(self.revokes.iter().map(|(hash, (record, _))| (hash, record)))
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
        let mut waiting: BTreeMap<PeerId, Vec<(Digest, Record, Admit)>> = BTreeMap::new();
        let mut revokes = Vec::new();
        for record in records {
            match record.body() {
                Ok(Body::Admit(admit)) if admit.mesh == self.mesh => {
                    let hash = record.hash();
                    if !self.admits.contains_key(&hash) {
                        waiting.entry(admit.issuer).or_default().push((hash, record, admit));
                    }
                }
                Ok(Body::Revoke(revoke)) if revoke.mesh == self.mesh => {
                    let hash = record.hash();
                    if !self.revokes.contains_key(&hash) {
                        revokes.push((hash, record, revoke));
                    }
                }
                Ok(Body::Genesis(_)) if record == self.genesis_record => {}
                _ => merged.refused += 1,
            }
        }
        // An owner may be admitted by a record that comes after the ones it signed: whoever becomes one is looked at
        // then. However long a chain is, it is followed to its end: if a part of it were left for another time, two
        // machines that heard of it in different portions would never hold equal sets.
        let mut owners = self.owners();
        let mut next: Vec<PeerId> = owners.keys().copied().collect();
        while let Some(issuer) = next.pop() {
            for (hash, record, admit) in waiting.remove(&issuer).unwrap_or_default() {
                let full = self.admits.len() + 1 >= limits::RECORDS_MAX;
                if full || !record.is_signed_by(&owners[&issuer], verify) {
                    merged.refused += 1;
                    continue;
                }
                let subject = admit.subject.peer();
                if admit.role.admits() && owners.insert(subject, admit.subject).is_none() {
                    next.push(subject);
                }
                let new = self.admits.insert(hash, (record, admit)).is_none();
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

    /// The machines that a machine has admitted, sorted.
    #[must_use]
    pub fn admitted_by(&self, peer: &PeerId) -> Vec<PeerId> {
        let by_it = self.admits.values().filter(|(_, admit)| admit.issuer == *peer);
        by_it.map(|(_, admit)| admit.subject.peer()).collect::<BTreeSet<_>>().into_iter().collect()
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
        for depth in 1..=limits::CHAIN_DEPTH_MAX {
            let mut next = BTreeSet::new();
            let stands = |a: &Admit| revoked.get(&a.issuer).is_none_or(|keep| keep.contains(&a.subject.peer()));
            let live = |a: &Admit| a.not_after.is_none_or(|end| now_s <= end.saturating_add(EXPIRY_GRACE_S));
            for (_, admit) in self.admits.values().filter(|(_, a)| newest.contains(&a.issuer) && live(a) && stands(a)) {
                let subject = admit.subject.peer();
                by_id.entry(subject).and_modify(|m| join(m, admit)).or_insert_with(|| member(admit, depth));
                if admit.role.admits() && owners.insert(subject) {
                    next.insert(subject);
                }
            }
            newest = next;
        }
        by_id.retain(|peer, _| !revoked.contains_key(peer));
        Members { mesh: self.mesh, mesh_name: self.genesis.mesh_name.clone(), by_id }
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
pub(super) mod tests {
    use super::*;
    use crate::membership::{Sign, record::Cause};
    use proptest::prelude::*;

    /// A stand-in for Ed25519: whoever knows the public key can sign, which no test below does for another.
    pub(crate) struct Fake(pub(crate) u8);

    impl Sign for Fake {
        fn public_key(&self) -> PublicKey {
            PublicKey([self.0; 32])
        }

        fn sign(&self, message: &[u8]) -> [u8; 64] {
            let half = *blake3::keyed_hash(&[self.0; 32], message).as_bytes();
            [half, half].concat().try_into().expect("64 bytes")
        }
    }

    impl Verify for Fake {
        fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
            Fake(key.0[0]).sign(message) == *signature
        }
    }

    fn founded() -> RecordSet {
        let founder = Fake(1).public_key();
        let body =
            Body::Genesis(Genesis { nonce: [0; 16], founder, founder_name: "one".into(), mesh_name: "m".into() });
        RecordSet::new(Record::sign(&body, &Fake(1)).expect("signs"), &Fake(0)).expect("valid")
    }

    fn admit(mesh: MeshId, issuer: u8, subject: u8, role: Role) -> Admit {
        let (name, issuer) = (format!("m{subject}"), Fake(issuer).public_key().peer());
        Admit { mesh, subject: Fake(subject).public_key(), name, role, not_after: None, issuer, issued: 5 }
    }

    fn signed(issuer: u8, admit: Admit) -> Record {
        Record::sign(&Body::Admit(admit), &Fake(issuer)).expect("signs")
    }

    fn record(set: &RecordSet, issuer: u8, subject: u8, role: Role) -> Record {
        signed(issuer, admit(set.mesh(), issuer, subject, role))
    }

    fn role_of(members: &Members, who: u8) -> Option<Role> {
        members.get(&Fake(who).public_key().peer()).map(|m| m.role)
    }

    #[test]
    fn owners_admit_and_others_do_not() {
        let mut set = founded();
        let records = vec![
            record(&set, 3, 4, Role::Client),
            record(&set, 2, 3, Role::Owner),
            record(&set, 1, 2, Role::Owner),
            record(&set, 4, 5, Role::Owner),
        ];
        assert_eq!(set.merge(records.clone(), &Fake(0)), Merged { added: 3, refused: 1 });
        assert_eq!(set.merge(records, &Fake(0)), Merged { added: 0, refused: 1 }, "merging again adds nothing");
        let members = set.evaluate(0);
        assert_eq!(role_of(&members, 1), Some(Role::Owner));
        assert_eq!(role_of(&members, 4), Some(Role::Client));
        assert_eq!(role_of(&members, 5), None);
        assert_eq!(members.get(&Fake(4).public_key().peer()).map(|m| m.depth), Some(3));
    }

    #[test]
    fn a_forged_or_foreign_record_is_refused() {
        let mut set = founded();
        let forged = {
            let good = record(&set, 1, 2, Role::Owner);
            let other = record(&set, 1, 3, Role::Owner);
            let (mut good, other) = (good.bytes(), other.bytes());
            let at = good.len() - 64;
            good[at..].copy_from_slice(&other[other.len() - 64..]);
            postcard::from_bytes::<Record>(&good).expect("a record")
        };
        let foreign = signed(1, admit(MeshId(Digest([3; 32])), 1, 2, Role::Owner));
        assert_eq!(set.merge(vec![forged, foreign], &Fake(0)), Merged { added: 0, refused: 2 });
        assert_eq!(set.evaluate(0).by_id.len(), 1);
    }

    #[test]
    fn an_admission_ends_with_some_grace_and_takes_its_chain_along() {
        let mut set = founded();
        let ends = Admit { not_after: Some(1000), ..admit(set.mesh(), 1, 2, Role::Owner) };
        let after = record(&set, 2, 3, Role::Peer);
        set.merge(vec![signed(1, ends), after], &Fake(0));
        assert_eq!(set.evaluate(1000 + EXPIRY_GRACE_S).by_id.len(), 3);
        assert_eq!(set.evaluate(1001 + EXPIRY_GRACE_S).by_id.len(), 1);
    }

    #[test]
    fn a_chain_may_have_eight_links_and_no_more() {
        let mut set = founded();
        let chain: Vec<_> = (1..=10).map(|n| record(&set, n, n + 1, Role::Owner)).collect();
        for part in chain.chunks(2) {
            set.merge(part.to_vec(), &Fake(0));
        }
        let members = set.evaluate(0);
        assert_eq!(role_of(&members, 9), Some(Role::Owner));
        assert_eq!(role_of(&members, 10), None);
    }

    #[test]
    fn a_long_chain_is_taken_in_alike_as_a_whole_and_in_parts() {
        let (mut whole, mut parts) = (founded(), founded());
        let chain: Vec<_> = (1..=90).map(|n| record(&whole, n, n + 1, Role::Owner)).collect();
        for part in chain.chunks(limits::CHAIN_DEPTH_MAX) {
            parts.merge(part.to_vec(), &Fake(0));
        }
        assert_eq!(whole.merge(chain.into_iter().rev().collect(), &Fake(0)), Merged { added: 90, refused: 0 });
        assert_eq!(whole, parts);
    }

    #[test]
    fn a_set_holds_no_more_than_its_limit() {
        let mut set = founded();
        let many = (0..limits::RECORDS_MAX as u64 + 5)
            .map(|issued| signed(1, Admit { issued, ..admit(set.mesh(), 1, 2, Role::Peer) }))
            .collect();
        assert_eq!(set.merge(many, &Fake(0)), Merged { added: limits::RECORDS_MAX - 1, refused: 6 });
        assert_eq!(set.records().len(), limits::RECORDS_MAX);
    }

    #[test]
    fn machines_that_meet_end_with_equal_sets() {
        let (mut one, mut two) = (founded(), founded());
        let shared = record(&one, 1, 2, Role::Owner);
        one.merge(vec![shared.clone(), record(&one, 1, 3, Role::Peer)], &Fake(0));
        two.merge(vec![shared, record(&two, 2, 4, Role::Peer)], &Fake(0));
        assert_ne!(one.digest(), two.digest());
        let (to_two, to_one) = (one.missing(&two.hashes()), two.missing(&one.hashes()));
        assert_eq!((to_two.len(), to_one.len()), (1, 1));
        one.merge(to_one, &Fake(0));
        two.merge(to_two, &Fake(0));
        assert_eq!(one.digest(), two.digest());
        assert_eq!(one, two);
    }

    fn id(n: u8) -> PeerId {
        Fake(n).public_key().peer()
    }

    fn revoke(set: &RecordSet, issuer: u8, subject: u8, keep: &[u8]) -> Record {
        let mut keep: Vec<PeerId> = keep.iter().map(|n| id(*n)).collect();
        keep.sort();
        let revoke = Revoke {
            mesh: set.mesh(),
            subject: id(subject),
            keep,
            cause: Cause::Forgotten,
            issuer: id(issuer),
            issued: 6,
        };
        Record::sign(&Body::Revoke(revoke), &Fake(issuer)).expect("signs")
    }

    fn here(set: &RecordSet) -> Vec<u8> {
        (1..20).filter(|n| set.evaluate(0).get(&id(*n)).is_some()).collect()
    }

    /// 1 has admitted 2 and 3 as owners; 2 has admitted 4, an owner, and 5; 4 has admitted 6.
    fn family() -> RecordSet {
        let mut set = founded();
        let links = [(1, 2), (1, 3), (2, 4), (2, 5), (4, 6)];
        let records =
            links.iter().map(|(by, who)| record(&set, *by, *who, if *who < 5 { Role::Owner } else { Role::Peer }));
        let records = records.collect();
        set.merge(records, &Fake(0));
        set
    }

    #[test]
    fn a_revoked_machine_is_out_for_good_with_all_that_it_admitted_but_those_that_are_kept() {
        let base = family();
        let with = |records: Vec<Record>| {
            let mut set = base.clone();
            assert_eq!(set.merge(records.clone(), &Fake(0)), Merged { added: records.len(), refused: 0 });
            here(&set)
        };
        assert_eq!(with(vec![]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(with(vec![revoke(&base, 3, 2, &[])]), [1, 3]);
        assert_eq!(with(vec![revoke(&base, 3, 2, &[4])]), [1, 3, 4, 6]);
        assert_eq!(
            with(vec![revoke(&base, 3, 2, &[4, 5]), revoke(&base, 1, 2, &[5])]),
            [1, 3, 5],
            "by every one of them"
        );
        assert_eq!(with(vec![revoke(&base, 3, 2, &[4]), revoke(&base, 1, 4, &[6])]), [1, 3, 6], "through two of them");
        // Who is admitted again by another owner with the same key stays out; another path helps those it had admitted.
        assert_eq!(with(vec![revoke(&base, 3, 2, &[]), record(&base, 3, 2, Role::Owner)]), [1, 3]);
        assert_eq!(with(vec![revoke(&base, 3, 2, &[]), record(&base, 3, 5, Role::Peer)]), [1, 3, 5]);
        // Two who revoke each other are both out, and so is a founder.
        assert_eq!(with(vec![revoke(&base, 3, 2, &[]), revoke(&base, 2, 3, &[])]), [1]);
        assert_eq!(with(vec![revoke(&base, 2, 1, &[2])]), [2, 4, 5, 6]);
    }

    #[test]
    fn owners_revoke_whoever_they_want_and_others_themselves_alone() {
        let base = family();
        let mut set = base.clone();
        assert_eq!(set.merge(vec![revoke(&base, 5, 6, &[])], &Fake(0)), Merged { added: 0, refused: 1 });
        assert_eq!(set.merge(vec![revoke(&base, 9, 9, &[])], &Fake(0)), Merged { added: 0, refused: 1 }, "a stranger");
        assert_eq!(set.merge(vec![revoke(&base, 5, 5, &[])], &Fake(0)), Merged { added: 1, refused: 0 });
        assert_eq!(here(&set), [1, 2, 3, 4, 6]);
        assert_eq!(set.revocation(&id(5)).map(|revoke| revoke.issuer), Some(id(5)));
        assert_eq!((set.revocation(&id(2)), set.admitted_by(&id(2)).len()), (None, 2));
        // It is a record like any other: kept, told, and counted in the digest.
        assert_eq!(RecordSet::from_records(set.records(), &Fake(0)), Ok(set.clone()));
        assert_eq!(base.missing(&set.hashes()).len() + set.missing(&base.hashes()).len(), 1);
        assert_ne!(base.digest(), set.digest());
        // Signed by somebody else than it says.
        let (mut forged, other) = (revoke(&base, 1, 3, &[]).bytes(), revoke(&base, 1, 2, &[]).bytes());
        let at = forged.len() - 64;
        forged[at..].copy_from_slice(&other[other.len() - 64..]);
        let forged = postcard::from_bytes::<Record>(&forged).expect("a record");
        assert_eq!(set.merge(vec![forged], &Fake(0)), Merged { added: 0, refused: 1 });
    }

    #[test]
    fn what_a_revocation_keeps_is_sorted_bounded_and_not_itself() {
        let set = family();
        let with = |keep: Vec<PeerId>| {
            let body =
                Revoke { mesh: set.mesh(), subject: id(2), keep, cause: Cause::Stolen, issuer: id(1), issued: 6 };
            Record::sign(&Body::Revoke(body), &Fake(1))
        };
        let mut most: Vec<PeerId> = (3..3 + limits::KEPT_MAX as u8).map(id).collect();
        most.sort();
        assert!(with(most.clone()).is_ok_and(|record| record.body().is_ok()));
        assert_eq!(with(most.iter().rev().copied().collect()), Err(RecordError::Keep));
        assert_eq!(with(vec![id(3), id(3)]), Err(RecordError::Keep));
        assert_eq!(with(vec![id(2)]), Err(RecordError::Keep));
        let more: BTreeSet<PeerId> = most.iter().copied().chain([id(99)]).collect();
        assert_eq!(with(more.into_iter().collect()), Err(RecordError::Keep));
    }

    #[test]
    fn a_set_that_is_full_of_admissions_has_room_for_revocations() {
        let mut set = founded();
        let many = (0..limits::RECORDS_MAX as u64 + 5)
            .map(|issued| signed(1, Admit { issued, ..admit(set.mesh(), 1, 2, Role::Peer) }))
            .collect();
        set.merge(many, &Fake(0));
        let revoked = revoke(&set, 1, 2, &[]);
        assert_eq!(set.merge(vec![revoked], &Fake(0)), Merged { added: 1, refused: 0 });
        assert_eq!(here(&set), [1]);
    }

    #[test]
    fn records_without_exactly_one_beginning_are_no_mesh() {
        let set = founded();
        assert_eq!(RecordSet::from_records(vec![], &Fake(0)), Err(SetError::Genesis));
        let twice = [set.records(), set.records()].concat();
        assert_eq!(RecordSet::from_records(twice, &Fake(0)), Err(SetError::Genesis));
        assert_eq!(RecordSet::from_records(set.records(), &Fake(0)), Ok(set));
    }

    proptest! {
        #[test]
        fn order_never_matters(
            links in proptest::collection::vec((1u8..6, 1u8..6, 0usize..4, proptest::option::of(0u64..3), 0u64..3), 0..12),
            revokes in proptest::collection::vec((1u8..6, 1u8..6, proptest::collection::btree_set(1u8..6, 0..3)), 0..4),
            seed in any::<u64>(),
        ) {
            let base = founded();
            let revoked: BTreeSet<u8> = revokes.iter().map(|(_, subject, _)| *subject).collect();
            let revokes = revokes.iter().map(|(issuer, subject, keep)| {
                let keep: Vec<u8> = keep.iter().copied().filter(|n| n != subject).collect();
                revoke(&base, *issuer, *subject, &keep)
            });
            let revokes: Vec<Record> = revokes.collect();
            let records: Vec<Record> = links
                .into_iter()
                .map(|(issuer, subject, role, not_after, issued)| {
                    let role = [Role::Client, Role::Worker, Role::Peer, Role::Owner][role];
                    let not_after = not_after.map(|n| n * 1000);
                    signed(issuer, Admit { not_after, issued, ..admit(base.mesh(), issuer, subject, role) })
                })
                .chain(revokes)
                .collect();
            let mut shuffled = records.clone();
            shuffled.sort_by_key(|r| blake3::keyed_hash(&[1; 32], &[&r.hash().0[..], &seed.to_le_bytes()].concat()).to_hex().to_string());
            let (mut one, mut two, mut three) = (base.clone(), base.clone(), base);
            one.merge(records.clone(), &Fake(0));
            two.merge(shuffled.clone(), &Fake(0));
            // One at a time, and what was refused offered again: gossip comes so.
            for _ in 0..6 {
                for record in &shuffled {
                    three.merge(vec![record.clone()], &Fake(0));
                }
            }
            prop_assert_eq!(&one, &two);
            prop_assert_eq!(&one, &three);
            for now in [0, 1500, 5000] {
                prop_assert_eq!(one.evaluate(now), two.evaluate(now));
            }
            for n in revoked.into_iter().filter(|n| one.revocation(&id(*n)).is_some()) {
                prop_assert!(one.evaluate(0).get(&id(n)).is_none(), "{} is out", n);
            }
        }
    }
}
