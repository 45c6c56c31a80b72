//! A set of records and what it means (AGREE).
//!
//! The set only ever holds records whose signatures were checked, so its evaluation needs no cryptography and can be
//! repeated whenever the clock matters. Evaluation is monotone: more records never take a right away. (A later kind of
//! record, the revocation, will; it wins over all admissions, again in any order.)

use super::record::{Admit, Body, Genesis, MeshId, PublicKey, Record, RecordError, Role, Verify};
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
        Ok(Self { mesh: MeshId(record.hash()), genesis, genesis_record: record, admits: BTreeMap::new() })
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
        let admits = self.admits.values().map(|(record, _)| record.clone());
        std::iter::once(self.genesis_record.clone()).chain(admits).collect()
    }

    /// The hashes of all records but the genesis (whose hash is the mesh), sorted.
    #[must_use]
    pub fn hashes(&self) -> Vec<Digest> {
        self.admits.keys().copied().collect()
    }

    /// A digest of the whole set: equal sets, equal digests.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("mesh record set v1");
        hasher.update(&self.mesh.0.0);
        for hash in self.admits.keys() {
            hasher.update(&hash.0);
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// The records that are here and not among `theirs`.
    #[must_use]
    pub fn missing(&self, theirs: &[Digest]) -> Vec<Record> {
        let theirs: BTreeSet<&Digest> = theirs.iter().collect();
        self.admits.iter().filter(|(hash, _)| !theirs.contains(hash)).map(|(_, (record, _))| record.clone()).collect()
    }

    /// Takes in records that another machine holds: those of this mesh whose signer is an owner by records that are
    /// here or among them. The result does not depend on their order, nor on how they are parted, unless they are more
    /// than a set may hold.
    pub fn merge(&mut self, records: Vec<Record>, verify: &dyn Verify) -> Merged {
        let mut merged = Merged::default();
        let mut waiting: BTreeMap<PeerId, Vec<(Digest, Record, Admit)>> = BTreeMap::new();
        for record in records {
            match record.body() {
                Ok(Body::Admit(admit)) if admit.mesh == self.mesh => {
                    let hash = record.hash();
                    if !self.admits.contains_key(&hash) {
                        waiting.entry(admit.issuer).or_default().push((hash, record, admit));
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
        merged
    }

    /// Everybody who was ever admitted as an owner, whatever the time.
    fn owners(&self) -> BTreeMap<PeerId, PublicKey> {
        let admitted = self.admits.values().filter(|(_, a)| a.role.admits()).map(|(_, a)| a.subject);
        std::iter::once(self.genesis.founder).chain(admitted).map(|key| (key.peer(), key)).collect()
    }

    /// Who is a member at `now_s` (seconds since 1970): every machine with a path of admissions, none of them ended,
    /// from the founder through owners, no longer than [`limits::CHAIN_DEPTH_MAX`].
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
        for depth in 1..=limits::CHAIN_DEPTH_MAX {
            let mut next = BTreeSet::new();
            let live = |a: &Admit| a.not_after.is_none_or(|end| now_s <= end.saturating_add(EXPIRY_GRACE_S));
            for (_, admit) in self.admits.values().filter(|(_, a)| newest.contains(&a.issuer) && live(a)) {
                let subject = admit.subject.peer();
                by_id.entry(subject).and_modify(|m| join(m, admit)).or_insert_with(|| member(admit, depth));
                if admit.role.admits() && owners.insert(subject) {
                    next.insert(subject);
                }
            }
            newest = next;
        }
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
    use crate::membership::Sign;
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
            seed in any::<u64>(),
        ) {
            let base = founded();
            let records: Vec<Record> = links
                .into_iter()
                .map(|(issuer, subject, role, not_after, issued)| {
                    let role = [Role::Client, Role::Worker, Role::Peer, Role::Owner][role];
                    let not_after = not_after.map(|n| n * 1000);
                    signed(issuer, Admit { not_after, issued, ..admit(base.mesh(), issuer, subject, role) })
                })
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
        }
    }
}
