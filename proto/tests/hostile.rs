//! Any bytes from another machine: read or refused, never a panic, never memory that was only promised.

use mesh_proto::{
    closure::{Entry, File, Node},
    digest::Digest,
    exchange::{
        provider::Provider,
        requester::{Requester, Step},
        results::{Gift, Whereabouts},
        share::{Asker, Fetch, Giver, Grant, GrantKey, Grants},
        toolchain::{self, Given},
    },
    frame,
    hello::{Hello, Sync},
    intro::{self, Introduction},
    job::{Exit, Job, Outcome, Output, Refusal, Usage},
    key::ActionKey,
    limits,
    membership::{Body, PublicKey, Record, RecordSet, Role, Verify},
    message::{Answer, Control, Offer, StreamHead},
    naming::{NameBatch, Names, NumberSet},
    pairing::{Channel, Code, FromInviter, FromJoiner, Joiner, Window},
    path::AbsPath,
    peer::PeerId,
    token::Token,
    toolchain::{Fingerprint, Manifest, Needs},
};
use proptest::prelude::*;
use rand_core::{CryptoRng, RngCore};
use std::{collections::BTreeSet, sync::Arc};

/// Accepts every signature: what gets behind it must be safe too.
struct Credulous;

impl Verify for Credulous {
    fn verify(&self, _: &PublicKey, _: &[u8], _: &[u8; 64]) -> bool {
        true
    }
}

/// Numbers that are not random at all.
struct Counter(u64);

impl RngCore for Counter {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        rand_core::impls::fill_bytes_via_next(self, dest);
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for Counter {}

const CHANNEL: Channel = Channel { exporter: [1; 32], joiner: PeerId([2; 32]), inviter: PeerId([3; 32]) };

fn golden() -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("lists").map(|e| e.expect("lists").path()).collect();
    files.sort();
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok()).expect("a digit");
    let bytes = |text: String| text.trim().as_bytes().chunks_exact(2).map(|p| digit(p[0]) << 4 | digit(p[1])).collect();
    files.into_iter().map(|file| bytes(std::fs::read_to_string(file).expect("reads"))).collect()
}

/// Everything that reads a machine's bytes.
fn read_all(bytes: &[u8]) {
    if let Ok(hello) = frame::decode::<Hello>(bytes) {
        let _ = hello.check(hello.mesh);
    }
    if let Ok(Sync::Records(records)) = frame::decode::<Sync>(bytes)
        && let Ok(mut set) = RecordSet::from_records(records.clone(), &Credulous)
    {
        set.merge(records, &Credulous);
        let _ = set.evaluate(0);
    }
    if let Ok(record) = frame::decode::<Record>(bytes) {
        let _ = record.body();
        let _ = RecordSet::new(record, &Credulous);
    }
    let _ = frame::decode::<Body>(bytes);
    let _ = frame::decode::<Introduction>(bytes);
    if let Ok(intro::Answer::Welcome(welcome)) = frame::decode::<intro::Answer>(bytes) {
        let _ = welcome.accept(&PublicKey([1; 32]), &PeerId([2; 32]), 0, &Credulous);
    }
    if let Ok(token) = frame::decode::<Token>(bytes) {
        let _ = Token::parse(&token.text());
    }
    let _ = Token::parse(&String::from_utf8_lossy(bytes));
    read_jobs(bytes);
    let code = Code::parse("417-otter-maple").expect("a code");
    if let Ok(message) = frame::decode::<FromJoiner>(bytes) {
        let mut window = Window::new(code.clone(), Role::Owner, 0);
        if let Ok((inviter, _)) = window.begin(message.clone(), CHANNEL, 0, &mut Counter(1)) {
            assert!(inviter.confirm(&mut window, &message, 0).is_err(), "an opening confirms nothing");
        }
    }
    if let Ok(message) = frame::decode::<FromInviter>(bytes) {
        if let FromInviter::Welcome(welcome) = &message {
            let _ = welcome.accept(&PublicKey([1; 32]), &PeerId([2; 32]), 0, &Credulous);
        }
        let (joiner, _) = Joiner::start(&code, CHANNEL, &mut Counter(2));
        if let Ok((proven, _)) = joiner.answered(message.clone()) {
            assert!(proven.confirmed(message).is_err(), "an answer confirms nothing");
        }
    }
}

/// Everything that reads what is said about jobs.
fn read_jobs(bytes: &[u8]) {
    let mut names = Names::default();
    if let Ok(batch) = frame::decode::<NameBatch>(bytes) {
        let _ = names.learn(batch);
    }
    let plain = |job: Job| Offer {
        job,
        batches: 0,
        closure: NumberSet::default(),
        sources: vec![],
        memory_kib: 0,
        signed: false,
    };
    let mut offered = None;
    match frame::decode::<StreamHead>(bytes) {
        Ok(StreamHead::Job(offer)) => offered = Some(*offer),
        Ok(StreamHead::Fetch(fetch)) => {
            let mut giver = Giver::new(PeerId([2; 32]), *fetch);
            assert!(giver.next(&Grants::default(), &mut names, |_| true).is_empty(), "nothing was granted");
        }
        Ok(StreamHead::Toolchain(_) | StreamHead::Seek(_)) | Err(_) => {}
    }
    if let Ok(Given::Manifest(manifest)) = frame::decode::<Given>(bytes) {
        let (fingerprint, needs) = (manifest.fingerprint(), Needs { machine: 62, level: 1 });
        if toolchain::check(&manifest, &fingerprint, &needs).is_ok() {
            assert!(toolchain::bytes(&manifest) <= limits::TOOLCHAIN_BYTES_MAX);
        }
        let lacking = toolchain::lacking(&manifest, |_| false);
        assert!(lacking.is_empty() || !toolchain::turn(&lacking).is_empty());
    }
    let offers = [offered, frame::decode::<Job>(bytes).ok().map(plain)];
    for offer in offers.into_iter().flatten() {
        if let Ok(mut provider) = Provider::new(&offer, &names) {
            let lacking = provider.lacking(|_| false);
            let _ = provider.ask(&lacking);
            let _ = provider.received(bytes);
        }
    }
    let answers = [
        frame::decode::<Answer>(bytes).ok(),
        frame::decode::<NumberSet>(bytes).ok().map(Answer::Missing),
        frame::decode::<Outcome>(bytes).ok().map(|outcome| Answer::Done(Box::new(outcome))),
    ];
    for answer in answers.into_iter().flatten() {
        if let Answer::Missing(indexes) = &answer {
            let _ = Asker::new(vec![(Digest([0; 32]), 0)]).announced(indexes);
        }
        let _ = Requester::<Entry>::new([], vec![AbsPath::root()]).answer(answer);
    }
    let _ = frame::decode::<Entry>(bytes);
    let held = frame::decode::<Whereabouts>(bytes);
    assert!(!matches!(held, Ok(Whereabouts::Held(all)) if all.len() > limits::HOLDERS_MAX));
    if let Ok(Gift::Entry(sealed)) = frame::decode::<Gift>(bytes) {
        let key = ActionKey(Digest([0; 32]));
        assert!(!sealed.is_good(&key, &PublicKey([0; 32]), &Credulous), "of another machine");
    }
    let _ = frame::decode::<Control>(bytes);
    if let Ok(manifest) = frame::decode::<Manifest>(bytes) {
        let _ = manifest.fingerprint();
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
        let _ = frame::parse::<Hello>(&bytes, limits::HELLO_BYTES_MAX);
    }

    #[test]
    fn messages_with_some_bytes_changed_are_read_or_refused(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let all = golden();
        let mut bytes = all[which.index(all.len())].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_all(&bytes);
        let cut = cut.index(bytes.len() + 1);
        read_all(&bytes[..cut]);
    }

    #[test]
    fn a_record_that_is_read_has_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(body) = frame::decode::<Body>(&bytes) {
            let again = postcard::to_stdvec(&body).expect("encodes");
            prop_assert_eq!(frame::decode::<Body>(&again).expect("decodes"), body);
        }
    }
}

#[test]
fn a_promise_of_gigabytes_in_a_few_bytes_is_refused() {
    // Variant 0, then a length of four gigabytes, then nothing.
    let bytes = [0x00, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(frame::decode::<Sync>(&bytes).is_err());
    assert!(frame::decode::<Record>(&bytes[1..]).is_err());
}

/// The lengths at which a list of small items is refused although its frame has room for it.
#[test]
fn lists_of_nothing_are_refused_before_they_are_memory() {
    fn list(count: usize, item: &[u8]) -> Vec<u8> {
        let mut bytes = postcard::to_stdvec(&count).expect("encodes");
        (0..count).for_each(|_| bytes.extend_from_slice(item));
        bytes
    }
    // A path is one byte of length and a slash; `2` is a directory.
    for (count, read) in [(limits::NAME_BATCH_MAX, true), (limits::NAME_BATCH_MAX + 1, false)] {
        // The number of the first, the entries, nothing that is gone.
        let bytes = [&[0][..], &list(count, &[1, b'/', 2]), &[0]].concat();
        assert!(bytes.len() < limits::FRAME_BYTES_MAX);
        assert_eq!(frame::decode::<NameBatch>(&bytes).is_ok(), read, "{count} names");
    }
    for (count, read) in [(limits::CLOSURE_ENTRIES_MAX, true), (limits::CLOSURE_ENTRIES_MAX + 1, false)] {
        assert_eq!(frame::decode::<NumberSet>(&list(count, &[1, 1])).is_ok(), read, "{count} runs");
    }
    // An outcome: exit code 0, its text, no outputs, a usage of eight zeros.
    for (count, read) in [(limits::JOB_TEXT_PIECES_MAX, true), (limits::JOB_TEXT_PIECES_MAX + 1, false)] {
        let bytes = [&[0, 0][..], &list(count, &[0, 0]), &[0; 9]].concat();
        assert_eq!(frame::decode::<Outcome>(&bytes).is_ok(), read, "{count} texts");
    }
    for (count, read) in [(limits::JOB_OUTPUTS_MAX, true), (limits::JOB_OUTPUTS_MAX + 1, false)] {
        let output = [&[1, b'/'][..], &[0; 34]].concat();
        let bytes = [&[0, 0, 0][..], &list(count, &output), &[0; 8]].concat();
        assert_eq!(frame::decode::<Outcome>(&bytes).is_ok(), read, "{count} outputs");
    }
    // A manifest: its driver, facts of an empty label and value each, parts that are directories.
    let manifest = |facts: usize, parts: usize| {
        let bytes = [&[1, b'/'][..], &list(facts, &[0, 0]), &list(parts, &[1, b'/', 2])].concat();
        frame::decode::<Manifest>(&bytes).is_ok()
    };
    assert!(manifest(limits::TOOLCHAIN_FACTS_MAX, limits::TOOLCHAIN_PARTS_MAX));
    assert!(!manifest(limits::TOOLCHAIN_FACTS_MAX + 1, 0) && !manifest(0, limits::TOOLCHAIN_PARTS_MAX + 1));
    let fetch = |count: usize| frame::decode::<Fetch>(&[&[0; 64][..], &list(count, &[0; 32])].concat()).is_ok();
    assert!(fetch(limits::CLOSURE_ENTRIES_MAX) && !fetch(limits::CLOSURE_ENTRIES_MAX + 1));
    for (count, read) in [(limits::HOLDERS_MAX, true), (limits::HOLDERS_MAX + 1, false)] {
        let bytes = [&[1][..], &list(count, &[0; 32])].concat();
        assert_eq!(frame::decode::<Whereabouts>(&bytes).is_ok(), read, "{count} holders");
    }
    for (count, read) in [(limits::HELD_BATCH_MAX, true), (limits::HELD_BATCH_MAX + 1, false)] {
        let bytes = [&[7][..], &list(count, &[0; 32])].concat();
        assert_eq!(frame::decode::<Control>(&bytes).is_ok(), read, "{count} results held");
    }
    // An offer's sources follow its job, its batches and its closure: a peer, a key, an empty set each; then its memory, and
    // whether it is to be signed.
    for (count, read) in [(limits::SOURCES_MAX, true), (limits::SOURCES_MAX + 1, false)] {
        let job = [&[0; 32][..], &[0, 0, 1, b'/', 0], &[0; 5]].concat();
        let bytes = [&job[..], &[0, 0], &list(count, &[0; 65]), &[0, 0]].concat();
        assert_eq!(frame::decode::<Offer>(&bytes).is_ok(), read, "{count} sources");
    }
    // A job: fingerprint, arguments, environment, directory, output directories, umask, flags, wall time.
    let job = |argv: usize, env: usize, dirs: usize| {
        let (argv, env, dirs) = (list(argv, &[0]), list(env, &[0, 0]), list(dirs, &[1, b'/']));
        let bytes = [&[0; 32][..], &argv, &env, &[1, b'/'], &dirs, &[0; 5]].concat();
        frame::decode::<Job>(&bytes).is_ok()
    };
    assert!(job(limits::ARGV_ITEMS_MAX, limits::ENV_ITEMS_MAX, limits::JOB_OUTPUTS_MAX));
    assert!(!job(limits::ARGV_ITEMS_MAX + 1, 0, 0));
    assert!(!job(0, limits::ENV_ITEMS_MAX + 1, 0));
    assert!(!job(0, 0, limits::JOB_OUTPUTS_MAX + 1));
}

/// Any entry, valid or not in what it says of itself.
fn any_entry() -> impl Strategy<Value = Entry> {
    let path = "(/[a-c]{1,2}){1,3}".prop_map(|p| AbsPath::new(p).expect("normal"));
    let size = prop_oneof![0u64..40, Just(limits::BLOB_BYTES_MAX), Just(limits::JOB_INPUT_BYTES_MAX), any::<u64>()];
    let file = (0u8..4, size, any::<i64>(), any::<u32>()).prop_map(|(content, size, mtime_s, mtime_ns)| {
        Node::File(File { digest: Digest::of(&[content]), size, mtime_s, mtime_ns, executable: false, inode: 0 })
    });
    let link = proptest::collection::vec(any::<u8>(), 0..5).prop_map(|target| Node::Symlink { target });
    (path, prop_oneof![4 => file, 1 => link, 1 => Just(Node::Directory)]).prop_map(|(path, node)| Entry { path, node })
}

fn any_numbers() -> impl Strategy<Value = NumberSet> {
    let runs = proptest::collection::vec((0u32..4, 0u32..4), 0..6);
    let wild = proptest::collection::vec((any::<u32>(), any::<u32>()), 0..6);
    // The set's own type has no way to be malformed: it is made as the other side would, from bytes.
    prop_oneof![3 => runs, 1 => wild]
        .prop_map(|runs| frame::decode(&postcard::to_stdvec(&runs).expect("encodes")).expect("any runs are read"))
}

fn any_job() -> impl Strategy<Value = Job> {
    let words = || proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..4);
    let cwd = prop_oneof![Just(b"/w".to_vec()), proptest::collection::vec(any::<u8>(), 0..4)];
    (words(), words(), cwd, any::<u64>()).prop_map(|(argv, env, cwd, wall_ms_max)| Job {
        toolchain: Fingerprint(Digest([1; 32])),
        argv,
        env: env.into_iter().map(|name| (name, b"value".to_vec())).collect(),
        cwd,
        output_dirs: vec![AbsPath::new("/w").expect("normal")],
        umask: 0,
        merged_output: false,
        terminal: None,
        wall_ms_max,
        strict: false,
    })
}

proptest! {
    /// What is taken back must have been named, in this batch or before; a batch that is refused changes nothing.
    #[test]
    fn any_batches_name_in_order_and_take_back_only_what_was_named(
        batches in proptest::collection::vec((0u32..6, 0usize..4, any_numbers()), 0..8),
    ) {
        let entry = Entry { path: AbsPath::root(), node: Node::Directory };
        let (mut names, mut named, mut told) = (Names::default(), 0u32, 0u32);
        for (first, count, gone) in batches {
            let batch = NameBatch { first, entries: vec![entry.clone(); count], gone: gone.clone() };
            match names.learn(batch) {
                Ok(numbers) => {
                    prop_assert_eq!(first, named);
                    named += u32::try_from(count).expect("few");
                    told += 1;
                    prop_assert!(numbers.iter().all(|n| *n < named));
                    prop_assert_eq!(Ok(numbers), gone.numbers());
                }
                Err(_) => {
                    let after = named + u32::try_from(count).expect("few");
                    let unknown = gone.numbers().map_or(true, |g| g.last().is_some_and(|n| *n >= after));
                    prop_assert!(first != named || unknown, "refused without a reason");
                }
            }
            prop_assert_eq!((names.count(), names.batches()), (named, told));
        }
    }

    #[test]
    fn any_runs_are_a_bounded_ascending_set_or_refused(runs in proptest::collection::vec(
        prop_oneof![(0u32..9, 0u32..9), (any::<u32>(), any::<u32>()), (0u32..9, 19_000u32..21_000)], 0..8,
    )) {
        let set: NumberSet = frame::decode(&postcard::to_stdvec(&runs).expect("encodes")).expect("few runs are read");
        if let Ok(numbers) = set.numbers() {
            prop_assert!(numbers.len() <= limits::CLOSURE_ENTRIES_MAX);
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
            let again = NumberSet::new(&mut numbers.clone());
            prop_assert_eq!(again.numbers(), Ok(numbers));
        }
    }

    #[test]
    fn any_numbers_make_a_set_of_just_these(mut numbers in proptest::collection::vec(
        prop_oneof![0u32..50, any::<u32>(), Just(u32::MAX - 1)], 0..50,
    )) {
        numbers.retain(|n| *n < u32::MAX);
        let set = NumberSet::new(&mut numbers.clone());
        numbers.sort_unstable();
        numbers.dedup();
        prop_assert_eq!(set.numbers(), Ok(numbers));
    }

    #[test]
    fn any_offer_is_taken_within_the_limits_or_refused(
        entries in proptest::collection::vec(any_entry(), 0..12),
        closure in any_numbers(),
        job in any_job(),
        names in any::<u32>(),
        blobs in proptest::collection::vec((0u8..6, 0usize..3), 0..12),
    ) {
        let mut known = Names::default();
        known.learn(NameBatch { first: 0, entries, gone: NumberSet::default() }).expect("few, from the beginning");
        let offer = Offer { job, batches: names, closure, sources: vec![], memory_kib: 0, signed: false };
        match Provider::new(&offer, &known) {
            Err(refusal) => prop_assert_eq!(refusal, Refusal::Malformed),
            Ok(mut provider) => {
                prop_assert_eq!(offer.job.check(), Ok(()));
                let size = |e: &Entry| if let Node::File(f) = &e.node { f.size } else { 0 };
                let sizes: Vec<u64> = provider.entries().map(|e| size(e)).collect();
                prop_assert!(sizes.iter().all(|s| *s <= limits::BLOB_BYTES_MAX));
                prop_assert!(sizes.iter().sum::<u64>() <= limits::JOB_INPUT_BYTES_MAX);
                let content = |e: &Entry| if let Node::File(f) = &e.node { Some((f.digest, f.size)) } else { None };
                let contents: BTreeSet<_> = provider.entries().filter_map(|e| content(e)).collect();
                let digests: BTreeSet<_> = contents.iter().map(|(digest, _)| *digest).collect();
                prop_assert_eq!(contents.len(), digests.len(), "one size for each content");
                let lacking = provider.lacking(|_| false);
                let asked = provider.ask(&lacking).numbers().expect("its own set");
                prop_assert!(asked.iter().all(|n| offer.closure.numbers().expect("taken").contains(n)));
                for (content, length) in blobs {
                    let (bytes, awaited) = (vec![content; length], provider.awaited());
                    match provider.received(&bytes) {
                        Ok(digest) => prop_assert_eq!(Some((digest, length as u64)), awaited),
                        Err(_) => prop_assert_eq!(provider.awaited(), awaited, "what was refused is still awaited"),
                    }
                }
            }
        }
    }

    /// Whoever asks for whatever with whatever key gets only what was granted to it, named and is here, each once.
    #[test]
    fn any_fetch_gets_only_what_was_granted_and_named(
        granted in proptest::collection::vec((0u8..3, 0u8..3), 0..4),
        named in proptest::collection::vec(0u8..6, 0..6),
        here in proptest::collection::btree_set(0u8..6, 0..6),
        asker in 0u8..3,
        key in 0u8..3,
        asked in proptest::collection::vec(0u8..6, 0..8),
    ) {
        let digest = |content: u8| Digest::of(&[content]);
        let mut grants = Grants::default();
        for (to, key) in &granted {
            grants.take(Grant { to: PeerId([*to; 32]), key: GrantKey([*key; 32]) });
        }
        let file = |content: &u8| {
            let digest = digest(*content);
            let file = File { digest, size: 1, mtime_s: 0, mtime_ns: 0, executable: false, inode: 0 };
            Entry { path: AbsPath::root(), node: Node::File(file) }
        };
        let mut names = Names::default();
        let entries = named.iter().map(file).collect();
        names.learn(NameBatch { first: 0, entries, gone: NumberSet::default() }).expect("few, from the beginning");
        let digests: Vec<Digest> = asked.iter().map(|c| digest(*c)).collect();
        let fetch = Fetch { client: PeerId([9; 32]), key: GrantKey([key; 32]), digests };
        let mut giver = Giver::new(PeerId([asker; 32]), fetch);
        let has = |d: &Digest| here.iter().any(|c| digest(*c) == *d);
        let given = giver.next(&grants, &mut names, has);
        let allowed = granted.iter().rev().find(|(to, _)| *to == asker).is_some_and(|(_, last)| *last == key);
        let expected: Vec<(u32, Digest)> = (0u32..)
            .zip(&asked)
            .filter(|(_, content)| allowed && named.contains(content) && here.contains(content))
            .map(|(index, content)| (index, digest(*content)))
            .collect();
        prop_assert_eq!(given, expected);
        prop_assert!(giver.next(&grants, &mut names, has).is_empty(), "given twice");
    }

    /// Whatever is announced: only what was asked for is awaited, each once.
    #[test]
    fn any_announcement_is_of_what_was_asked_for(
        wanted in 0usize..6,
        announced in proptest::collection::vec(any_numbers(), 0..4),
    ) {
        let wanted: Vec<(Digest, u64)> = (0..wanted as u64).map(|n| (Digest::of(&n.to_le_bytes()), n)).collect();
        let mut asker = Asker::new(wanted.clone());
        let mut come = Vec::new();
        for indexes in announced {
            match asker.announced(&indexes) {
                Ok(blobs) => come.extend(blobs),
                Err(_) => break,
            }
        }
        prop_assert!(come.iter().all(|blob| wanted.contains(blob)));
        prop_assert_eq!(come.iter().collect::<BTreeSet<_>>().len(), come.len(), "announced twice");
        prop_assert!(!asker.is_done() || come.len() == wanted.len());
    }

    #[test]
    fn any_answers_leave_the_requester_within_its_job(
        entries in proptest::collection::vec(any_entry(), 0..8),
        asked in proptest::collection::vec(any_numbers(), 0..3),
        outputs in proptest::collection::vec(("(/[a-c]{1,2}){1,3}", any::<u64>()), 0..4),
    ) {
        let dir = AbsPath::new("/a").expect("normal");
        let closure: Vec<_> = (0u32..).zip(entries.into_iter().map(Arc::new)).collect();
        let mut requester = Requester::new(closure.clone(), vec![dir.clone()]);
        let mut sent = Vec::new();
        for (at, numbers) in asked.into_iter().enumerate() {
            match requester.answer(Answer::Missing(numbers.clone())) {
                Ok(Step::Send(files)) => {
                    prop_assert!(at < limits::MISSING_ROUNDS_MAX, "asked too often");
                    sent.extend(numbers.numbers().expect("taken"));
                    prop_assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), sent.len(), "sent twice");
                    prop_assert!(files.iter().all(|f| closure.iter().any(|(_, e)| e == f)));
                    prop_assert!(files.iter().all(|f| matches!(f.node, Node::File(_))));
                }
                other => prop_assert!(other.is_err()),
            }
        }
        let outputs = outputs.into_iter().map(|(path, size)| Output {
            path: AbsPath::new(path).expect("normal"),
            digest: Digest([0; 32]),
            size,
            executable: false,
        });
        let (exit, usage) = (Exit::Code(0), Usage::default());
        let outcome = Outcome { exit, text: vec![], outputs: outputs.collect(), usage };
        if let Ok(Step::Receive(outcome)) = requester.answer(Answer::Done(Box::new(outcome))) {
            prop_assert!(outcome.outputs.iter().all(|o| o.path.parent().as_ref() == Some(&dir)));
            prop_assert!(outcome.outputs.iter().map(|o| o.size).sum::<u64>() <= limits::JOB_OUTPUT_BYTES_MAX);
            prop_assert!(outcome.outputs.windows(2).all(|pair| pair[0].path < pair[1].path));
        }
        prop_assert!(requester.answer(Answer::Refused(Refusal::Busy)).is_err(), "nothing comes after the end");
    }
}
