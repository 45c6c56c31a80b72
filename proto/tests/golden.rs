//! The bytes of every message of version 1, as hexadecimal digits in `golden/v1`. A file that has to change means a new
//! version of the protocol: machines that are out there read the old bytes.

use mesh_proto::{
    advert::DiscKey,
    closure::{Entry, File, Node},
    digest::{Digest, hex},
    exchange::{
        results::{Gift, Receipt, Sealed, Seek, Whereabouts},
        share::{Fetch, Grant, GrantKey, Source},
        toolchain::{Arrival, Arriving, Get, Given, NotTaken, Wanted},
    },
    hello::{Hello, Sync},
    intro::{self, Introduction, Unwelcome},
    job::{self, Exit, Job, Outcome, Output, Terminal, Text, Usage},
    key::{ActionKey, EntryKey},
    membership::{Admit, Body, Cause, Delegate, Genesis, MeshId, PublicKey, Record, Revoke, Role, Sign},
    message::{Answer, Closed, Control, Load, Offer, OfferedJob, OfferedParts, StreamHead},
    naming::{NameBatch, NumberSet},
    pairing::{FromInviter, FromJoiner, JoinRequest, Refusal, Versions, Welcome},
    path::AbsPath,
    peer::PeerId,
    token::Token,
    toolchain::{Fingerprint, Manifest, Needs, Part, PartNode},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeSet, fmt::Debug, path::Path};

/// Compares one value's bytes with its file, both ways.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(format!("{name}.hex"));
    let bytes = postcard::to_stdvec(value).expect("encodes");
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(hex(&bytes), golden.trim(), "{name}: the bytes of a message have changed");
    assert_eq!(&mesh_proto::frame::decode::<T>(&bytes).expect("decodes"), value, "{name} reads back");
}

/// Signs with a pattern: what a signature is worth is tested elsewhere.
struct Pattern;

impl Sign for Pattern {
    fn public_key(&self) -> PublicKey {
        PublicKey([0x11; 32])
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        [u8::try_from(message.len() % 251).expect("below 251"); 64]
    }
}

fn admit(not_after: Option<u64>, role: Role) -> Body {
    Body::Admit(Admit {
        mesh: MeshId(Digest([0x22; 32])),
        subject: PublicKey([0x33; 32]),
        name: "tower".into(),
        role,
        not_after,
        issuer: Pattern.public_key().peer(),
        issued: 1_700_000_000,
    })
}

fn delegate() -> Body {
    Body::Delegate(Delegate {
        mesh: MeshId(Digest([0x22; 32])),
        key: PublicKey([0x55; 32]),
        role: Role::Worker,
        not_after: 1_800_000_000,
        label: "ci".into(),
        issuer: Pattern.public_key().peer(),
        issued: 1_700_000_000,
    })
}

fn record() -> Record {
    Record::sign(&admit(None, Role::Owner), &Pattern).expect("signs")
}

#[test]
fn membership_is_what_it_always_was() {
    let genesis = Body::Genesis(Genesis {
        nonce: [0x44; 16],
        founder: Pattern.public_key(),
        founder_name: "thinkpad".into(),
        mesh_name: "home".into(),
    });
    check("body-genesis", &genesis);
    check("body-admit-owner", &admit(None, Role::Owner));
    check("body-admit-worker-until", &admit(Some(1_800_000_000), Role::Worker));
    for (at, cause) in [Cause::Left, Cause::Forgotten, Cause::Stolen, Cause::Rekeyed].into_iter().enumerate() {
        let keep = (0..at).map(|n| PeerId([u8::try_from(n).expect("few"); 32])).collect();
        let (mesh, subject) = (MeshId(Digest([0x22; 32])), PeerId([0x33; 32]));
        let issuer = Pattern.public_key().peer();
        let revoke = Body::Revoke(Revoke { mesh, subject, keep, cause, issuer, issued: 1_700_000_000 });
        check(&format!("body-revoke-{at}"), &revoke);
    }
    check("body-delegate", &delegate());
    check("record", &record());
    for role in [Role::Client, Role::Worker, Role::Peer, Role::Owner] {
        check(&format!("role-{role}"), &role);
    }
    let mesh = Record::sign(&genesis, &Pattern).expect("signs").hash();
    check("mesh-id", &MeshId(mesh));
}

#[test]
fn hellos_are_what_they_always_were() {
    let hello = Hello {
        proto_min: 1,
        proto_max: 2,
        agent_version: "0.1.0".into(),
        mesh: MeshId(Digest([1; 32])),
        set_digest: Digest([2; 32]),
        role: Some(Role::Peer),
        name: "tower".into(),
        host_tag: [3; 16],
        slots: 300,
        toolchains: vec![Fingerprint(Digest([4; 32]))],
        addresses: vec!["10.1.2.3:6374".parse().expect("v4"), "[2001:db8::1]:6374".parse().expect("v6")],
        now_s: 1_700_000_000,
    };
    check("hello", &hello);
    check("hello-without-role", &Hello { role: None, toolchains: vec![], addresses: vec![], ..hello });
    check("sync-hashes", &Sync::Hashes(vec![Digest([5; 32]), Digest([6; 32])]));
    check("sync-records", &Sync::Records(vec![record()]));
}

#[test]
fn pairing_is_what_it_always_was() {
    let versions = Versions { min: 1, max: 1 };
    check("pair-open", &FromJoiner::Open { versions, discriminator: 417, element: [7; 32] });
    check("pair-confirm", &FromJoiner::Confirm { mac: [8; 32] });
    let (name, os, arch) = ("tower".into(), "linux".into(), "x86_64".into());
    check("pair-join", &FromJoiner::Join(JoinRequest { name, os, arch, cores: 24 }));
    check("pair-answer", &FromInviter::Answer { versions, element: [9; 32] });
    check("pair-confirmed", &FromInviter::Confirmed { role: Role::Owner, mac: [10; 32] });
    let addresses = vec![(PeerId([11; 32]), "10.1.2.3:6374".parse().expect("an address"))];
    let welcome = Welcome { records: vec![record()], disc_key: DiscKey([12; 16]), addresses };
    check("pair-welcome", &FromInviter::Welcome(welcome));
    let refusals = [
        Refusal::Closed,
        Refusal::OtherCode,
        Refusal::Busy,
        Refusal::WrongCode { tries_left: 2 },
        Refusal::Cancelled,
        Refusal::Version,
        Refusal::Malformed,
        Refusal::Failed,
        Refusal::Forgotten { at_s: 1_780_000_000 },
    ];
    for (at, refusal) in refusals.into_iter().enumerate() {
        check(&format!("pair-refused-{at}"), &FromInviter::Refused(refusal));
    }
}

#[test]
fn introductions_and_tokens_are_what_they_always_were() {
    check("intro-records", &Introduction { records: vec![record()] });
    let welcome = Welcome { records: vec![record()], disc_key: DiscKey([12; 16]), addresses: Vec::new() };
    check("intro-welcome", &intro::Answer::Welcome(welcome));
    let refusals =
        [Unwelcome::Forgotten { at_s: 1_780_000_000 }, Unwelcome::Expired, Unwelcome::Unknown, Unwelcome::Full];
    for (at, refusal) in refusals.into_iter().enumerate() {
        check(&format!("intro-refused-{at}"), &intro::Answer::Refused(refusal));
    }
    let token = Token {
        mesh: MeshId(Digest([0x22; 32])),
        seed: [0x66; 32],
        disc_key: DiscKey([12; 16]),
        role: Role::Client,
        not_after: 1_800_000_000,
        addresses: vec!["10.1.2.3:6374".parse().expect("an address")],
    };
    check("token", &token);
    assert!(token.text().starts_with("meshjoin_1_eirceirceirceirc"), "{}", token.text());
}

fn path(path: &str) -> AbsPath {
    AbsPath::new(path).expect("normal")
}

/// A file, a link and a directory, with every field away from its default.
fn entries() -> Vec<Entry> {
    let file = File {
        digest: Digest([0x51; 32]),
        size: 70_000,
        mtime_s: -3,
        mtime_ns: 999_999_999,
        executable: true,
        inode: u64::MAX,
    };
    vec![
        Entry { path: path("/w/a b/\u{e9}.c"), node: Node::File(file) },
        Entry { path: path("/w/link"), node: Node::Symlink { target: b"../x\xff".to_vec() } },
        Entry { path: AbsPath::root(), node: Node::Directory },
    ]
}

fn job() -> Job {
    Job {
        toolchain: Fingerprint(Digest([0x52; 32])),
        argv: vec![b"gcc".to_vec(), b"-c".to_vec(), b"a\xff.c".to_vec(), Vec::new()],
        env: vec![(b"LANG".to_vec(), b"de_DE.UTF-8".to_vec())],
        cwd: b"/w/..".to_vec(),
        output_dirs: vec![path("/w/out")],
        umask: 0o27,
        merged_output: true,
        terminal: Some(Terminal { columns: 200, rows: 50 }),
        wall_ms_max: 600_000,
        strict: false,
    }
}

fn numbers() -> NumberSet {
    NumberSet::new(&mut vec![0, 1, 2, 200, 201, 70_000])
}

#[test]
fn closures_and_their_names_are_what_they_always_were() {
    let [file, link, directory] = entries().try_into().expect("three");
    check("entry-file", &file);
    check("entry-symlink", &link);
    check("entry-directory", &directory);
    check("names", &NameBatch { first: 300, entries: entries(), gone: NumberSet::new(&mut vec![3, 5, 6]) });
    check("numbers", &numbers());
    check("numbers-none", &NumberSet::default());
}

#[test]
fn jobs_are_what_they_always_were() {
    check("job", &job());
    check("job-plain", &Job { env: vec![], merged_output: false, terminal: None, ..job() });
    let offer =
        Offer { job: job(), batches: 70_001, closure: numbers(), sources: vec![], memory_kib: 300_000, signed: false };
    check("stream-job", &StreamHead::Job(Box::new(offer.clone())));
    let (peer, key) = (PeerId([0x56; 32]), GrantKey([0x57; 32]));
    let sources = vec![Source { peer, key, files: NumberSet::new(&mut vec![0, 2]) }];
    let offer = Offer { sources, ..offer };
    check("stream-job-sources", &StreamHead::Job(Box::new(offer.clone())));
    let offer = Offer { signed: true, ..offer };
    let Offer { job, batches, closure, sources, memory_kib, signed } = &offer;
    let borrowed = postcard::to_stdvec(&OfferedJob::Job(OfferedParts {
        job,
        batches: *batches,
        closure,
        sources,
        memory_kib: *memory_kib,
        signed: *signed,
    }));
    assert_eq!(borrowed, postcard::to_stdvec(&StreamHead::Job(Box::new(offer.clone()))));
    let fetch = Fetch { client: peer, key, digests: vec![Digest([0x58; 32]), Digest([0x59; 32])] };
    check("stream-fetch", &StreamHead::Fetch(Box::new(fetch)));
    let usage = Usage {
        user_us: 1,
        system_us: 128,
        peak_kib: 16_384,
        stage_us: 3,
        wait_us: 6,
        run_us: 4,
        collect_us: 5,
        crowd_percent: 200,
    };
    let output =
        |name: &str, executable| Output { path: path(name), digest: Digest([0x53; 32]), size: 1 << 40, executable };
    let outcome = Outcome {
        exit: Exit::Code(0),
        text: vec![
            Text { is_stderr: true, bytes: b"a.c:1: warning\n".to_vec() },
            Text { is_stderr: false, bytes: b"\x00".to_vec() },
        ],
        outputs: vec![output("/w/out/a.d", false), output("/w/out/a.o", true)],
        usage,
    };
    let action = ActionKey(Digest([0x5a; 32]));
    check("stream-seek-who", &StreamHead::Seek(Seek::Who { key: action, makes_ms: 300 }));
    check("stream-seek-give", &StreamHead::Seek(Seek::Give { key: action, wait_ms: 0 }));
    check("whereabouts-nobody", &Whereabouts::Nobody);
    check("whereabouts-held", &Whereabouts::Held(vec![peer, PeerId([0x5b; 32])]));
    check("whereabouts-underway", &Whereabouts::Underway(peer));
    let receipt = Receipt::sign(&action, &outcome, 1_700_000_000_000, &Pattern);
    check("receipt", &Some(receipt));
    check("gift-nothing", &Gift::Nothing);
    check("gift-entry", &Gift::Entry(Box::new(Sealed { receipt, outcome: outcome.clone() })));
    check("answer-missing", &Answer::Missing(numbers()));
    check("answer-done", &Answer::Done(Box::new(outcome.clone())));
    let killed = Outcome { exit: Exit::Signal(11), text: vec![], outputs: vec![], usage: Usage::default() };
    check("answer-done-signal", &Answer::Done(Box::new(killed)));
    check("outcome", &outcome);
    let refusals = [
        job::Refusal::Busy,
        job::Refusal::Paused,
        job::Refusal::Toolchain,
        job::Refusal::Missing,
        job::Refusal::Sandbox,
        job::Refusal::Collect,
        job::Refusal::Limit,
        job::Refusal::Malformed,
        job::Refusal::Role,
        job::Refusal::Disk,
        job::Refusal::Leaving,
        job::Refusal::Memory,
    ];
    for (at, refusal) in refusals.into_iter().enumerate() {
        check(&format!("answer-refused-{at}"), &Answer::Refused(refusal));
    }
}

#[test]
fn what_is_said_between_jobs_is_what_it_always_was() {
    let load = Load { slots: 300, credits: 5, accepted: 7, own: 2, wants: 130, memory_mib: 70_000, closed: None };
    check("control-load", &Control::Load(load));
    let closed = [
        Closed::NoSandbox,
        Closed::Paused,
        Closed::Role,
        Closed::Leaving,
        Closed::Off,
        Closed::InUse,
        Closed::Battery,
        Closed::Hot,
        Closed::Metered,
        Closed::Memory,
        Closed::Busy,
        Closed::Disk,
    ];
    for (at, closed) in closed.into_iter().enumerate() {
        let load = Load { closed: Some(closed), ..Load::default() };
        check(&format!("control-load-closed-{at}"), &Control::Load(load));
    }
    check("control-toolchains", &Control::Toolchains(vec![Fingerprint(Digest([0x54; 32]))]));
    check("control-records", &Control::Records(vec![record()]));
    check("control-leaving", &Control::Leaving);
    let grant = Grant { to: PeerId([0x56; 32]), key: GrantKey([0x57; 32]) };
    check("control-grant", &Control::Grant(grant));
    let fingerprint = Fingerprint(Digest([0x54; 32]));
    let needs = Needs { machine: 183, level: 0 };
    check("control-wanted", &Control::Wanted(Wanted { fingerprint, needs, bytes: 1 << 40 }));
    let arrival = |state| Control::Arrival(Arrival { fingerprint, state });
    check("control-arrival-coming", &arrival(Arriving::Coming { have: 127, of: 128 }));
    let all =
        [NotTaken::Serve, NotTaken::Machine, NotTaken::Processor, NotTaken::Room, NotTaken::Failed, NotTaken::Busy];
    for (at, why) in all.into_iter().enumerate() {
        check(&format!("control-arrival-refused-{at}"), &arrival(Arriving::Refused(why)));
    }
    check("control-held", &Control::Held(vec![ActionKey(Digest([0x5a; 32]))]));
    check("stream-toolchain", &StreamHead::Toolchain(Get { fingerprint }));
    check("given-not", &Given::Not);
}

#[test]
fn a_manifest_and_its_fingerprint_are_what_they_always_were() {
    let file = PartNode::File { digest: Digest([0x55; 32]), size: 1_000_000, executable: true };
    let manifest = Manifest {
        driver: path("/usr/bin/gcc"),
        facts: vec![("target".into(), b"x86_64-linux-gnu".to_vec()), ("specs".into(), b"\xff".to_vec())],
        parts: vec![
            Part { path: path("/usr/lib/cc1"), node: file },
            Part { path: path("/usr/bin/gcc"), node: PartNode::Symlink { target: b"gcc-12".to_vec() } },
            Part { path: path("/usr/lib/none"), node: PartNode::Directory },
        ],
    };
    check("manifest", &manifest);
    check("given-manifest", &Given::Manifest(Box::new(manifest.clone())));
    check("derived-fingerprint", &manifest.fingerprint());
    let entries = entries();
    let keyed = entries.iter().map(|entry| (entry, EntryKey::of(entry)));
    check("derived-action-key", &ActionKey::of(&job(), keyed, |dir| dir == b"/usr/bin"));
}

#[test]
fn derivations_are_what_they_always_were() {
    let key = DiscKey([1; 16]);
    let toolchain = Fingerprint(Digest([2; 32]));
    check("derived-mesh-tag", &key.mesh_tag("abcdefgh"));
    check("derived-toolchain-tag", &key.toolchain_tag("abcdefgh", &toolchain));
    check("derived-host-tag", &key.host_tag(b"machine"));
    check("derived-peer", &Pattern.public_key().peer());
    check("derived-record-hash", &record().hash());
}

#[test]
fn no_golden_file_is_without_its_message() {
    let source = include_str!("golden.rs");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let names: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("lists")
        .map(|entry| entry.expect("lists").file_name().to_string_lossy().into_owned())
        .collect();
    for name in &names {
        let stem = name.strip_suffix(".hex").expect("a golden file");
        let family = stem.trim_end_matches(|c: char| c.is_ascii_digit());
        let named = [stem, family].iter().any(|s| source.contains(&format!("\"{s}")));
        assert!(named || stem.starts_with("role-"), "{name} belongs to no message");
    }
}
