//! Any bytes from another machine: read or refused, never a panic, never memory that was only promised.

use mesh_proto::{
    frame,
    hello::{Hello, Sync},
    limits,
    membership::{Body, PublicKey, Record, RecordSet, Role, Verify},
    pairing::{Channel, Code, FromInviter, FromJoiner, Joiner, Window},
    peer::PeerId,
};
use proptest::prelude::*;
use rand_core::{CryptoRng, RngCore};

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
