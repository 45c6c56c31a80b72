//! Pairing by a short code: both ends of `mesh-pair/1` as machines without a socket (AGREE).
//!
//! Two machines that trust nobody are connected by TLS, each with a key of its own. The person carries a code of 22
//! secret bits. SPAKE2 turns it into a strong key without showing it to a listener; the key is then bound to this very
//! channel (the TLS exporter and both public keys), so that a relay that ends TLS on both sides and forwards every byte
//! is refused though the code is right. The joiner proves the code first, so a guess costs one of three tries and the
//! inviter says nothing that could be tested elsewhere.
//!
//! ```text
//! joiner  Open { versions, digits, X }  ──▶
//!                                       ◀──  Answer { versions, Y }        (or Refused, at any step)
//! joiner  Confirm { mac }               ──▶  wrong: one try less
//!                                       ◀──  Confirmed { role, mac }
//! joiner  Join { name, … }              ──▶
//!                                       ◀──  Welcome { records, … }
//! ```
//!
//! The `spake2` crate was never audited: it is used behind two calls here, and channel binding and confirmation are our
//! own, so a weakness in it costs at most one window.

mod code;

pub use code::{Code, CodeError};

use crate::{
    advert::DiscKey,
    limits,
    membership::{PublicKey, Record, RecordSet, Role, SetError, Verify, is_name},
    peer::PeerId,
    version,
};
use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use std::net::SocketAddr;

/// How long a code is good, milliseconds.
pub const WINDOW_MS: u64 = 5 * 60 * 1000;
/// Wrong codes that cancel a code.
pub const TRIES: u8 = 3;
/// Label of the TLS exporter (RFC 8446, 7.5) that binds a pairing to its connection.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-mesh-pair-v1";
/// Addresses of members in a welcome.
pub const KNOWN_ADDRESSES_MAX: usize = 256;

/// The protocol versions that a machine speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Oldest.
    pub min: u32,
    /// Newest.
    pub max: u32,
}

impl Versions {
    /// Those of this program.
    pub const OURS: Self = Self { min: version::OLDEST as u32, max: version::NEWEST as u32 };

    fn meet(self, other: Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

/// What a joiner sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromJoiner {
    /// Begins.
    Open {
        /// What the joiner speaks.
        versions: Versions,
        /// The code's three digits.
        discriminator: u16,
        /// The joiner's SPAKE2 element.
        element: [u8; 32],
    },
    /// Proves the code.
    Confirm {
        /// Over the whole exchange, keyed by its result.
        mac: [u8; 32],
    },
    /// Says who joins; the key is the one that TLS proved.
    Join(JoinRequest),
}

/// What an inviter sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromInviter {
    /// Answers [`FromJoiner::Open`].
    Answer {
        /// What the inviter speaks.
        versions: Versions,
        /// The inviter's SPAKE2 element.
        element: [u8; 32],
    },
    /// Proves the code too.
    Confirmed {
        /// What the joiner will be.
        role: Role,
        /// Over the whole exchange and the role.
        mac: [u8; 32],
    },
    /// The mesh.
    Welcome(Welcome),
    /// The end.
    Refused(Refusal),
}

/// Who joins, for the other person's screen and the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// What the machine calls itself.
    pub name: String,
    /// `linux`, `macos`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Its cores.
    pub cores: u32,
}

impl JoinRequest {
    /// Whether it may be shown and recorded.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        [&self.name, &self.os, &self.arch].iter().all(|text| is_name(text))
    }
}

/// All that a new member needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The mesh's records, the joiner's own admission among them.
    pub records: Vec<Record>,
    /// The secret of its announcements.
    pub disc_key: DiscKey,
    /// Where members were reached lately: hints.
    pub addresses: Vec<(PeerId, SocketAddr)>,
}

impl Welcome {
    /// The mesh that a joiner with key `me` enters, checked: it is a member, and so is the inviter, as an owner.
    ///
    /// # Errors
    /// If that is not so.
    pub fn accept(
        &self,
        me: &PublicKey,
        inviter: &PeerId,
        now_s: u64,
        by: &dyn Verify,
    ) -> Result<RecordSet, PairError> {
        if self.records.len() > limits::SET_RECORDS_MAX || self.addresses.len() > KNOWN_ADDRESSES_MAX {
            return Err(PairError::Malformed);
        }
        let set = RecordSet::from_records(self.records.clone(), by)?;
        let members = set.evaluate(now_s);
        let admitted = members.get(&me.peer()).is_some() && members.get(inviter).is_some_and(|m| m.role.admits());
        if admitted { Ok(set) } else { Err(PairError::NotAdmitted) }
    }
}

/// Why an inviter ends a pairing. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No code is shown, or its five minutes are over.
    Closed,
    /// A code with other digits is shown.
    OtherCode,
    /// Another machine is being paired at this moment.
    Busy,
    /// The words are wrong.
    WrongCode {
        /// How often they may still be tried.
        tries_left: u8,
    },
    /// The code was cancelled by wrong tries.
    Cancelled,
    /// No common protocol version.
    Version,
    /// A message that does not belong where it came.
    Malformed,
    /// The admission could not be signed or stored.
    Failed,
    /// The joiner's key was put out of the mesh, and no admission makes it a member again.
    Forgotten {
        /// When, seconds since 1970.
        at_s: u64,
    },
}

/// Why a pairing failed, at the joiner's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// The inviter ended it.
    #[error("the other machine refused: {0:?}")]
    Refused(Refusal),
    /// A message that does not belong where it came.
    #[error("the other machine does not follow the pairing protocol")]
    Malformed,
    /// No common protocol version.
    #[error("the two machines have no protocol version in common; update the older one")]
    Version,
    /// The inviter did not know the code, or is not at the other end of this connection.
    #[error("the other machine could not prove the code; somebody may be in between")]
    Unproven,
    /// What the inviter handed over does not make this machine a member.
    #[error("the other machine's records do not admit this machine")]
    NotAdmitted,
    /// What the inviter handed over is no mesh.
    #[error(transparent)]
    Records(#[from] SetError),
}

/// The connection that a pairing is bound to, as TLS shows it to both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// 32 bytes from the TLS exporter with [`EXPORTER_LABEL`].
    pub exporter: [u8; 32],
    /// The key of the side that dialled.
    pub joiner: PeerId,
    /// The key of the side that was dialled.
    pub inviter: PeerId,
}

/// Everything that both ends saw in the clear, in one order: what the proofs cover.
#[derive(Serialize)]
struct Transcript {
    channel: Channel,
    discriminator: u16,
    joiner: Versions,
    inviter: Versions,
    elements: [[u8; 32]; 2],
}

impl Transcript {
    /// The key under which proofs are made, from SPAKE2's result and the channel.
    fn key(&self, shared: &[u8]) -> [u8; 32] {
        let mut derive = blake3::Hasher::new_derive_key("mesh pairing v1 confirmation key");
        derive.update(shared).update(&self.channel.exporter);
        *derive.finalize().as_bytes()
    }

    /// One side's proof. `blake3::Hash` compares in constant time.
    fn proof(&self, key: &[u8; 32], side: &str, role: Option<Role>) -> blake3::Hash {
        let seen = postcard::to_stdvec(&(side, self, role)).expect("plain values always encode");
        blake3::keyed_hash(key, &seen)
    }
}

/// SPAKE2 marks each side's message with a letter, which both sides know anyway.
const SIDE_JOINER: u8 = b'A';
const SIDE_INVITER: u8 = b'B';

fn identities() -> (Identity, Identity) {
    (Identity::new(b"mesh-join"), Identity::new(b"mesh-invite"))
}

fn element_of(message: &[u8]) -> [u8; 32] {
    message[1..].try_into().expect("an Ed25519 element has 32 bytes")
}

fn finish(spake: Spake2<Ed25519Group>, side: u8, element: &[u8; 32]) -> Option<Vec<u8>> {
    spake.finish(&[&[side], &element[..]].concat()).ok()
}

/// The joiner, waiting for the answer.
pub struct Joiner {
    spake: Spake2<Ed25519Group>,
    channel: Channel,
    discriminator: u16,
    element: [u8; 32],
}

impl Joiner {
    /// Begins: the machine and the first message.
    pub fn start(code: &Code, channel: Channel, rng: &mut (impl CryptoRng + RngCore)) -> (Self, FromJoiner) {
        let (join, invite) = identities();
        let (spake, message) = Spake2::start_a_with_rng(&Password::new(code.password()), &join, &invite, rng);
        let (discriminator, element) = (code.discriminator(), element_of(&message));
        let open = FromJoiner::Open { versions: Versions::OURS, discriminator, element };
        (Self { spake, channel, discriminator, element }, open)
    }

    /// Takes the answer and proves the code.
    ///
    /// # Errors
    /// If the answer is a refusal or none.
    pub fn answered(self, message: FromInviter) -> Result<(Proven, FromJoiner), PairError> {
        let (versions, theirs) = match message {
            FromInviter::Answer { versions, element } => (versions, element),
            FromInviter::Refused(refusal) => return Err(PairError::Refused(refusal)),
            _ => return Err(PairError::Malformed),
        };
        if !versions.meet(Versions::OURS) {
            return Err(PairError::Version);
        }
        let transcript = Transcript {
            channel: self.channel,
            discriminator: self.discriminator,
            joiner: Versions::OURS,
            inviter: versions,
            elements: [self.element, theirs],
        };
        let shared = finish(self.spake, SIDE_INVITER, &theirs).ok_or(PairError::Malformed)?;
        let key = transcript.key(&shared);
        let mac = *transcript.proof(&key, "join", None).as_bytes();
        Ok((Proven { key, transcript }, FromJoiner::Confirm { mac }))
    }
}

impl std::fmt::Debug for Joiner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joiner").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// The joiner, having proved the code, waiting for the inviter to do the same.
pub struct Proven {
    key: [u8; 32],
    transcript: Transcript,
}

impl Proven {
    /// Checks the inviter's proof: only now is the inviter known to have the code, and the role to be its word.
    ///
    /// # Errors
    /// If the message is a refusal, no proof, or a wrong one.
    pub fn confirmed(self, message: FromInviter) -> Result<Role, PairError> {
        match message {
            FromInviter::Confirmed { role, mac } => {
                let right = self.transcript.proof(&self.key, "invite", Some(role)) == blake3::Hash::from_bytes(mac);
                if right { Ok(role) } else { Err(PairError::Unproven) }
            }
            FromInviter::Refused(refusal) => Err(PairError::Refused(refusal)),
            _ => Err(PairError::Malformed),
        }
    }
}

impl std::fmt::Debug for Proven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proven").field("channel", &self.transcript.channel).finish_non_exhaustive()
    }
}

/// A code that is being shown: five minutes, three tries, one machine at a time.
#[derive(Debug)]
pub struct Window {
    code: Code,
    role: Role,
    ends_ms: u64,
    tries_left: u8,
    pairing: bool,
}

impl Window {
    /// Opens one at `now_ms` (any clock that only moves forward).
    #[must_use]
    pub fn new(code: Code, role: Role, now_ms: u64) -> Self {
        Self { code, role, ends_ms: now_ms.saturating_add(WINDOW_MS), tries_left: TRIES, pairing: false }
    }

    /// The code, to show it.
    #[must_use]
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// Whether somebody may still pair.
    #[must_use]
    pub fn is_open(&self, now_ms: u64) -> bool {
        self.usable(now_ms).is_ok()
    }

    /// How often a wrong code may still be tried.
    #[must_use]
    pub fn tries_left(&self) -> u8 {
        self.tries_left
    }

    /// Milliseconds until the code expires.
    #[must_use]
    pub fn remaining_ms(&self, now_ms: u64) -> u64 {
        self.ends_ms.saturating_sub(now_ms)
    }

    fn usable(&self, now_ms: u64) -> Result<(), Refusal> {
        if self.tries_left == 0 {
            Err(Refusal::Cancelled)
        } else if now_ms >= self.ends_ms {
            Err(Refusal::Closed)
        } else {
            Ok(())
        }
    }

    /// Takes a joiner's first message. On success the window is busy until [`Inviter::confirm`] or [`Window::abandon`].
    ///
    /// # Errors
    /// The refusal to send.
    pub fn begin(
        &mut self,
        message: FromJoiner,
        channel: Channel,
        now_ms: u64,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(Inviter, FromInviter), Refusal> {
        self.usable(now_ms)?;
        if self.pairing {
            return Err(Refusal::Busy);
        }
        let FromJoiner::Open { versions, discriminator, element: theirs } = message else {
            return Err(Refusal::Malformed);
        };
        if !versions.meet(Versions::OURS) {
            return Err(Refusal::Version);
        }
        if discriminator != self.code.discriminator() {
            return Err(Refusal::OtherCode);
        }
        let (join, invite) = identities();
        let (spake, message) = Spake2::start_b_with_rng(&Password::new(self.code.password()), &join, &invite, rng);
        let element = element_of(&message);
        let elements = [theirs, element];
        let transcript = Transcript { channel, discriminator, joiner: versions, inviter: Versions::OURS, elements };
        let shared = finish(spake, SIDE_JOINER, &theirs).ok_or(Refusal::Malformed)?;
        let key = transcript.key(&shared);
        self.pairing = true;
        Ok((Inviter { key, transcript }, FromInviter::Answer { versions: Versions::OURS, element }))
    }

    /// The joiner went away before it proved anything. Costs no try: it learnt nothing either.
    pub fn abandon(&mut self) {
        self.pairing = false;
    }
}

/// The inviter, waiting for the joiner's proof.
pub struct Inviter {
    key: [u8; 32],
    transcript: Transcript,
}

impl Inviter {
    /// Checks the joiner's proof; a wrong one costs a try. The window is free again.
    ///
    /// # Errors
    /// The refusal to send. The inviter's own proof is then never made.
    pub fn confirm(self, window: &mut Window, message: &FromJoiner, now_ms: u64) -> Result<FromInviter, Refusal> {
        window.pairing = false;
        window.usable(now_ms)?;
        let FromJoiner::Confirm { mac } = message else { return Err(Refusal::Malformed) };
        if self.transcript.proof(&self.key, "join", None) != blake3::Hash::from_bytes(*mac) {
            window.tries_left -= 1;
            return Err(Refusal::WrongCode { tries_left: window.tries_left });
        }
        let mac = *self.transcript.proof(&self.key, "invite", Some(window.role)).as_bytes();
        Ok(FromInviter::Confirmed { role: window.role, mac })
    }
}

impl std::fmt::Debug for Inviter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inviter").field("channel", &self.transcript.channel).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
