//! Any order, any part first, forged and full sets (AGREE).

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
    let body = Body::Genesis(Genesis { nonce: [0; 16], founder, founder_name: "one".into(), mesh_name: "m".into() });
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
    let revoke =
        Revoke { mesh: set.mesh(), subject: id(subject), keep, cause: Cause::Forgotten, issuer: id(issuer), issued: 6 };
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
    assert_eq!(with(vec![revoke(&base, 3, 2, &[4, 5]), revoke(&base, 1, 2, &[5])]), [1, 3, 5], "by every one of them");
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

fn token(set: &RecordSet, issuer: u8, key: u8, role: Role, not_after: u64) -> Record {
    let (mesh, key, label) = (set.mesh(), Fake(key).public_key(), "ci".to_owned());
    let delegate = Delegate { mesh, key, role, not_after, label, issuer: id(issuer), issued: 4 };
    Record::sign(&Body::Delegate(delegate), &Fake(issuer)).expect("signs")
}

#[test]
fn a_token_admits_in_its_role_until_it_ends_or_is_revoked() {
    let base = founded();
    let good = vec![token(&base, 1, 9, Role::Worker, 1000), record(&base, 9, 2, Role::Worker)];
    for records in [good.clone(), good.iter().rev().cloned().collect()] {
        let mut set = base.clone();
        assert_eq!(set.merge(records, &Fake(0)), Merged { added: 2, refused: 0 });
        assert_eq!(here(&set), [1, 2]);
        assert_eq!(set.evaluate(0).get(&id(2)).map(|m| (m.role, m.not_after)), Some((Role::Worker, Some(1000))));
        assert_eq!(set.evaluate(1001 + EXPIRY_GRACE_S).by_id.len(), 1, "it ends with the token");
        assert_eq!(set.chain(&id(2), 0), good, "both links, for whoever has heard of neither");
        // By its owner, or by another one.
        set.merge(vec![revoke(&base, 1, 9, &[])], &Fake(0));
        assert_eq!(here(&set), [1]);
        assert!(set.chain(&id(2), 0).is_empty());
    }
    let with = |records: Vec<Record>| {
        let mut set = base.clone();
        let merged = set.merge(records, &Fake(0));
        (merged.added, merged.refused, here(&set))
    };
    let worker = || token(&base, 1, 9, Role::Worker, 1000);
    assert_eq!(with(vec![worker(), record(&base, 9, 2, Role::Client)]), (2, 0, vec![1]), "in no other role");
    assert_eq!(with(vec![worker(), record(&base, 9, 2, Role::Owner)]), (1, 1, vec![1]), "never an owner");
    assert_eq!(with(vec![worker(), token(&base, 9, 8, Role::Worker, 1000)]), (1, 1, vec![1]), "no further token");
    assert_eq!(with(vec![worker(), revoke(&base, 9, 1, &[])]), (1, 1, vec![1]), "it puts nobody out");
    assert_eq!(with(vec![token(&base, 7, 9, Role::Worker, 1000), record(&base, 9, 2, Role::Worker)]), (0, 2, vec![1]));
    let owner = Delegate {
        mesh: base.mesh(),
        key: Fake(9).public_key(),
        role: Role::Owner,
        not_after: 1000,
        label: "ci".into(),
        issuer: id(1),
        issued: 4,
    };
    assert_eq!(Record::sign(&Body::Delegate(owner), &Fake(1)), Err(RecordError::Owner));
}

#[test]
fn what_has_ended_a_week_ago_is_dropped_and_nothing_that_still_matters() {
    let mut set = family();
    let gone = Admit { not_after: Some(1000), ..admit(set.mesh(), 1, 12, Role::Peer) };
    let owner = Admit { not_after: Some(1000), ..admit(set.mesh(), 1, 13, Role::Owner) };
    let records = vec![
        token(&set, 1, 9, Role::Worker, 1000),
        record(&set, 9, 10, Role::Worker),
        token(&set, 1, 8, Role::Worker, KEPT_S),
        record(&set, 8, 11, Role::Worker),
        signed(1, gone),
        signed(1, owner),
        revoke(&set, 13, 6, &[]),
    ];
    assert_eq!(set.merge(records, &Fake(0)), Merged { added: 7, refused: 0 });
    let before = set.records().len();
    set.prune(1000 + KEPT_S);
    assert_eq!(set.records().len(), before);
    set.prune(1001 + KEPT_S);
    assert_eq!(set.records().len(), before - 3);
    assert!(set.revocation(&id(6)).is_some());
    assert_eq!(RecordSet::from_records(set.records(), &Fake(0)), Ok(set));
}

#[test]
fn what_a_revocation_keeps_is_sorted_bounded_and_not_itself() {
    let set = family();
    let with = |keep: Vec<PeerId>| {
        let body = Revoke { mesh: set.mesh(), subject: id(2), keep, cause: Cause::Stolen, issuer: id(1), issued: 6 };
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
        links in proptest::collection::vec((1u8..8, 1u8..6, 0usize..4, proptest::option::of(0u64..3), 0u64..3), 0..12),
        revokes in proptest::collection::vec((1u8..6, 1u8..6, proptest::collection::btree_set(1u8..6, 0..3)), 0..4),
        tokens in proptest::collection::vec((1u8..6, 4u8..8, 0usize..3, 0u64..3), 0..4),
        seed in any::<u64>(),
    ) {
        let base = founded();
        let revoked: BTreeSet<u8> = revokes.iter().map(|(_, subject, _)| *subject).collect();
        let revokes = revokes.iter().map(|(issuer, subject, keep)| {
            let keep: Vec<u8> = keep.iter().copied().filter(|n| n != subject).collect();
            revoke(&base, *issuer, *subject, &keep)
        });
        let revokes: Vec<Record> = revokes.collect();
        let tokens = tokens.iter().map(|(issuer, key, role, end)| {
            token(&base, *issuer, *key, [Role::Client, Role::Worker, Role::Peer][*role], end * 1000)
        });
        let tokens: Vec<Record> = tokens.collect();
        let records: Vec<Record> = links
            .into_iter()
            .map(|(issuer, subject, role, not_after, issued)| {
                let role = [Role::Client, Role::Worker, Role::Peer, Role::Owner][role];
                let not_after = not_after.map(|n| n * 1000);
                signed(issuer, Admit { not_after, issued, ..admit(base.mesh(), issuer, subject, role) })
            })
            .chain(revokes)
            .chain(tokens)
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
