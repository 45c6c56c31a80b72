//! How a result that one machine keeps is had by another (AGREE).
//!
//! ```text
//! asker                     home: where the key points             holder
//!   Seek::Who(key)  ───────▶
//!                   ◀───────  Nobody: the asker makes it now
//!                             Held by these, or Underway at that one
//!   Seek::Give(key) ──────────────────────────────────────────────▶
//!                   ◀──────────────────────────────────────────────  the entry and a blob for each output, or Nothing
//! ```
//! The home knows nothing but who said to have what. What it says is looked at by nobody but the asker, who believes the
//! machine that *made* a result, by its signature, and neither the home nor the holder.

use crate::{
    digest::Digest,
    job::{Exit, Outcome, Output, Text},
    key::ActionKey,
    limits,
    membership::{PublicKey, Sign, Signature, Verify},
    peer::PeerId,
};
use serde::{Deserialize, Serialize};

/// What every statement about a result begins with, so that no signature over anything else can be taken for one.
const DOMAIN: &[u8] = b"mesh-result-v1\0";

/// What a machine says of a result that it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Who.
    pub executor: PeerId,
    /// When, by its clock: milliseconds since 1970.
    pub made_ms: u64,
    /// Its signature over the key, the result and the time.
    pub signature: Signature,
}

/// What of an outcome is the compiler's; what it cost is not.
#[derive(Serialize)]
struct Made<'a> {
    exit: Exit,
    text: &'a [Text],
    outputs: &'a [Output],
}

fn statement(key: &ActionKey, outcome: &Outcome, made_ms: u64) -> Vec<u8> {
    let Outcome { exit, text, outputs, usage: _ } = outcome;
    let made = Made { exit: *exit, text, outputs };
    let made = postcard::to_stdvec(&made).expect("an outcome has no type that postcard cannot write");
    let result = Digest::of(&made);
    [DOMAIN, &key.0.0, &result.0, &made_ms.to_le_bytes()].concat()
}

impl Receipt {
    /// Signs that the holder of this key has made this of the action.
    #[must_use]
    pub fn sign(key: &ActionKey, outcome: &Outcome, made_ms: u64, signer: &impl Sign) -> Self {
        let signature = Signature::new(&signer.sign(&statement(key, outcome, made_ms)));
        Self { executor: signer.public_key().peer(), made_ms, signature }
    }

    /// Whether the machine with this public key has said so of this result.
    #[must_use]
    pub fn holds(&self, key: &ActionKey, outcome: &Outcome, public: &PublicKey, verify: &impl Verify) -> bool {
        public.peer() == self.executor
            && verify.verify(public, &statement(key, outcome, self.made_ms), &self.signature.bytes())
    }
}

/// The first frame of a stream that looks for a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seek {
    /// To the member that the key points at: who has it?
    Who {
        /// Of what.
        key: ActionKey,
        /// If nobody has it, the asker makes it, and should be done after so many milliseconds; 0 if it will not keep it.
        makes_ms: u32,
    },
    /// To a holder: give it.
    Give {
        /// Of what.
        key: ActionKey,
        /// If it is being made there now, it is waited for, so many milliseconds at most.
        wait_ms: u32,
    },
}

/// Who has a result, as far as the asked one was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whereabouts {
    /// Nobody.
    Nobody,
    /// These.
    Held(#[serde(deserialize_with = "crate::bounded::list::<{ limits::HOLDERS_MAX }, _, _>")] Vec<PeerId>),
    /// This one is making it.
    Underway(PeerId),
}

/// What a holder gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gift {
    /// It does not have it, or nobody has signed it.
    Nothing,
    /// The entry; a blob follows for each output, in order.
    Entry(Box<Sealed>),
}

/// A result and who stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Who made it.
    pub receipt: Receipt,
    /// What came of the compile; its status is 0.
    pub outcome: Outcome,
}

impl Sealed {
    /// Whether it is an entry that can be used: of a compile that went well, within the limits of a job, and said to be of
    /// this action by the machine with this public key.
    #[must_use]
    pub fn is_good(&self, key: &ActionKey, public: &PublicKey, verify: &impl Verify) -> bool {
        let Outcome { exit, text, outputs, .. } = &self.outcome;
        let bytes = outputs.iter().try_fold(0u64, |sum, output| sum.checked_add(output.size));
        *exit == Exit::Code(0)
            && text.iter().map(|text| text.bytes.len()).sum::<usize>() <= limits::JOB_TEXT_BYTES_MAX
            && outputs.iter().all(|output| output.size <= limits::BLOB_BYTES_MAX)
            && bytes.is_some_and(|bytes| bytes <= limits::RESULT_BYTES_MAX)
            && self.receipt.holds(key, &self.outcome, public, verify)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{job::Usage, path::AbsPath};

    /// A signature that is no secret: the key and a digest of the message.
    struct Toy(PublicKey);

    fn toy(key: &PublicKey, message: &[u8]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&key.0);
        bytes[32..].copy_from_slice(&Digest::of(message).0);
        bytes
    }

    impl Sign for Toy {
        fn public_key(&self) -> PublicKey {
            self.0
        }
        fn sign(&self, message: &[u8]) -> [u8; 64] {
            toy(&self.0, message)
        }
    }

    impl Verify for Toy {
        fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
            toy(key, message) == *signature
        }
    }

    fn outcome() -> Outcome {
        let path = AbsPath::new("/w/a.o").expect("normal");
        Outcome {
            exit: Exit::Code(0),
            text: vec![Text { is_stderr: true, bytes: b"w".to_vec() }],
            outputs: vec![Output { path, digest: Digest::of(b"o"), size: 1, executable: false }],
            usage: Usage::default(),
        }
    }

    #[test]
    fn a_receipt_holds_for_what_was_signed_and_for_nothing_else() {
        let (maker, other) = (Toy(PublicKey([1; 32])), Toy(PublicKey([2; 32])));
        let key = ActionKey(Digest::of(b"key"));
        let receipt = Receipt::sign(&key, &outcome(), 7, &maker);
        let good = Sealed { receipt, outcome: outcome() };
        assert!(good.is_good(&key, &maker.0, &maker));
        let costly = Outcome { usage: Usage { run_us: 9, ..Usage::default() }, ..outcome() };
        assert!(Sealed { receipt, outcome: costly }.is_good(&key, &maker.0, &maker), "what it cost is no result");
        assert!(!good.is_good(&ActionKey(Digest::of(b"another")), &maker.0, &maker));
        assert!(!good.is_good(&key, &other.0, &other), "somebody else's key");
        let bad = |change: fn(&mut Sealed)| {
            let mut sealed = good.clone();
            change(&mut sealed);
            assert!(!sealed.is_good(&key, &maker.0, &maker), "{sealed:?}");
        };
        bad(|sealed| sealed.receipt.made_ms += 1);
        bad(|sealed| sealed.receipt.executor = PeerId([9; 32]));
        bad(|sealed| sealed.outcome.text[0].bytes[0] ^= 1);
        bad(|sealed| sealed.outcome.text[0].is_stderr = false);
        bad(|sealed| sealed.outcome.outputs[0].digest.0[0] ^= 1);
        bad(|sealed| sealed.outcome.outputs[0].executable = true);
        bad(|sealed| sealed.outcome.outputs.clear());
        let failed = Outcome { exit: Exit::Code(1), ..outcome() };
        let receipt = Receipt::sign(&key, &failed, 7, &maker);
        assert!(!Sealed { receipt, outcome: failed }.is_good(&key, &maker.0, &maker), "signed, but no success");
        let mut large = outcome();
        large.outputs[0].size = limits::RESULT_BYTES_MAX + 1;
        let receipt = Receipt::sign(&key, &large, 7, &maker);
        assert!(!Sealed { receipt, outcome: large }.is_good(&key, &maker.0, &maker), "signed, but too large");
    }
}
