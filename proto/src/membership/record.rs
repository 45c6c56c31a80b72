//! One signed record, its bytes and what makes them canonical (AGREE).

use crate::{digest::Digest, limits, peer::PeerId};
use serde::{Deserialize, Serialize};

/// What every signed record begins with, so that no signature over anything else can be taken for one.
const DOMAIN: &[u8] = b"mesh-record-v1\0";

/// DER of SubjectPublicKeyInfo for Ed25519 (RFC 8410), up to the key's own 32 bytes.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A machine's Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The key as DER of SubjectPublicKeyInfo, as it stands in a certificate.
    #[must_use]
    pub fn spki(&self) -> [u8; 44] {
        let mut der = [0; 44];
        der[..12].copy_from_slice(&SPKI_PREFIX);
        der[12..].copy_from_slice(&self.0);
        der
    }

    /// Reads what [`PublicKey::spki`] writes; any other algorithm or encoding is none.
    #[must_use]
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        Some(Self(der.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?))
    }

    /// The id of the machine that holds the key.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        PeerId::of_spki(&self.spki())
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.peer().fmt(f)
    }
}

/// An Ed25519 signature, in two halves because serde knows arrays up to 32.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature([[u8; 32]; 2]);

impl Signature {
    /// A signature of these 64 bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 64]) -> Self {
        let mut halves = [[0; 32]; 2];
        halves[0].copy_from_slice(&bytes[..32]);
        halves[1].copy_from_slice(&bytes[32..]);
        Self(halves)
    }

    /// Its 64 bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0[0]);
        bytes[32..].copy_from_slice(&self.0[1]);
        bytes
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signature(…)")
    }
}

/// Checks Ed25519 signatures; handed in, because this crate holds no cryptographic library.
pub trait Verify {
    /// Whether `signature` over `message` was made with the key behind `key`.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool;
}

/// Makes Ed25519 signatures with one machine's key.
pub trait Sign {
    /// The public half of the key.
    fn public_key(&self) -> PublicKey;
    /// A signature over `message`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// A mesh: BLAKE3 of its genesis record's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MeshId(pub Digest);

impl std::fmt::Debug for MeshId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Submits jobs, and nothing else.
    Client,
    /// Serves jobs, and nothing else.
    Worker,
    /// Submits and serves.
    Peer,
    /// Submits, serves, admits and forgets machines.
    Owner,
}

impl Role {
    /// Whether others run jobs for it.
    #[must_use]
    pub fn submits(self) -> bool {
        self != Self::Worker
    }

    /// Whether it runs jobs for others.
    #[must_use]
    pub fn serves(self) -> bool {
        self != Self::Client
    }

    /// Whether its word admits machines.
    #[must_use]
    pub fn admits(self) -> bool {
        self == Self::Owner
    }

    /// The role with the rights of both.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Client, Self::Worker) | (Self::Worker, Self::Client) => Self::Peer,
            (one, two) => one.max(two),
        }
    }

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Worker => "worker",
            Self::Peer => "peer",
            Self::Owner => "owner",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Begins a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// Random, so that one machine can found two meshes of one name.
    pub nonce: [u8; 16],
    /// The founder's key. The record is signed with it, and its holder is the first owner.
    pub founder: PublicKey,
    /// What the founder calls itself.
    pub founder_name: String,
    /// What people call the mesh.
    pub mesh_name: String,
}

/// Lets a machine in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    /// The mesh that it is let into.
    pub mesh: MeshId,
    /// Its key.
    pub subject: PublicKey,
    /// What it calls itself.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When this ends, seconds since 1970; none: never.
    pub not_after: Option<u64>,
    /// The owner who signs.
    pub issuer: PeerId,
    /// When it was signed, seconds since 1970: for display, and to prefer the newer of two names.
    pub issued: u64,
}

/// Lets whoever has a key admit machines, in one role, until a time: a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegate {
    /// The mesh that it admits to.
    pub mesh: MeshId,
    /// The token's key.
    pub key: PublicKey,
    /// What the machines are that it admits: never owners.
    pub role: Role,
    /// When it ends, and with it the membership of those that it has admitted, seconds since 1970: nobody can tell when
    /// something was signed with a key that many have.
    pub not_after: u64,
    /// What people call it.
    pub label: String,
    /// The owner who signs.
    pub issuer: PeerId,
    /// When it was signed, seconds since 1970: for display.
    pub issued: u64,
}

/// Why a machine is put out: for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It has said so itself.
    Left,
    /// An owner has forgotten it.
    Forgotten,
    /// Somebody else may have its key.
    Stolen,
    /// It has another key now, which it has admitted.
    Rekeyed,
}

/// Puts a key out, for good: the machine may come back with a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// The mesh that it is put out of.
    pub mesh: MeshId,
    /// Whose key.
    pub subject: PeerId,
    /// Of the machines that it has admitted, the ones whose admissions stand, sorted; all others fall with it. No clock says
    /// which came before: who has stolen a key can write any time into what it signs.
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::KEPT_MAX }, _, _>")]
    pub keep: Vec<PeerId>,
    /// Why.
    pub cause: Cause,
    /// Who signs: an owner, or the machine itself.
    pub issuer: PeerId,
    /// When it was signed, seconds since 1970: for display.
    pub issued: u64,
}

/// What a record says. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// The beginning of a mesh.
    Genesis(Genesis),
    /// The admission of a machine.
    Admit(Admit),
    /// The end of a machine's membership.
    Revoke(Revoke),
    /// A token.
    Delegate(Delegate),
}

/// Why bytes are not a record, or a body cannot become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Longer than [`limits::RECORD_BYTES_MAX`].
    #[error("a membership record passes its limit of {} bytes", limits::RECORD_BYTES_MAX)]
    TooLong,
    /// Not the one encoding of something this version knows.
    #[error("a membership record is malformed, or of a newer version")]
    Malformed,
    /// A name is empty, too long, or holds control characters.
    #[error("a name must have 1 to {} bytes and no control characters", limits::NAME_BYTES_MAX)]
    Name,
    /// A revocation keeps a machine twice, out of order, or the one that it puts out, or too many.
    #[error("a revocation must name at most {} other machines to keep, sorted, each once", limits::KEPT_MAX)]
    Keep,
    /// A token would make owners.
    #[error("a token admits peers, workers or clients, and no owners")]
    Owner,
    /// Signed by somebody else than it says.
    #[error("a membership record's signer is not the one that it names")]
    Signer,
}

/// A body and a signature over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    body: Vec<u8>,
    signature: Signature,
}

impl Record {
    /// Signs a body.
    ///
    /// # Errors
    /// If the body breaks a limit, or names another signer than `signer`.
    pub fn sign(body: &Body, signer: &dyn Sign) -> Result<Self, RecordError> {
        check(body)?;
        let names = match body {
            Body::Genesis(genesis) => genesis.founder.peer(),
            Body::Admit(admit) => admit.issuer,
            Body::Revoke(revoke) => revoke.issuer,
            Body::Delegate(delegate) => delegate.issuer,
        };
        if names != signer.public_key().peer() {
            return Err(RecordError::Signer);
        }
        let body = postcard::to_stdvec(body).map_err(|_| RecordError::Malformed)?;
        let signature = Signature::new(&signer.sign(&signed_bytes(&body)));
        let record = Self { body, signature };
        if record.bytes().len() > limits::RECORD_BYTES_MAX { Err(RecordError::TooLong) } else { Ok(record) }
    }

    /// What it says, whoever signed it.
    ///
    /// # Errors
    /// If its bytes are too long, not canonical, or break a limit.
    pub fn body(&self) -> Result<Body, RecordError> {
        if self.bytes().len() > limits::RECORD_BYTES_MAX {
            return Err(RecordError::TooLong);
        }
        let body = match postcard::take_from_bytes::<Body>(&self.body) {
            Ok((body, [])) => body,
            _ => return Err(RecordError::Malformed),
        };
        // postcard reads over-long integers too; one meaning must have one hash.
        if postcard::to_stdvec(&body).ok().as_deref() != Some(&self.body) {
            return Err(RecordError::Malformed);
        }
        check(&body)?;
        Ok(body)
    }

    /// Whether the signature is by the holder of `key`.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey, verify: &dyn Verify) -> bool {
        verify.verify(key, &signed_bytes(&self.body), &self.signature.bytes())
    }

    /// Its bytes, as they are hashed.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a byte string and an array always encode")
    }

    /// BLAKE3 of [`Record::bytes`].
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(&self.bytes())
    }
}

/// The bytes that a signature covers.
fn signed_bytes(body: &[u8]) -> Vec<u8> {
    [DOMAIN, body].concat()
}

/// Whether a machine or a mesh may be called so: it will be printed on other people's terminals.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= limits::NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

/// Checks what decoding cannot.
fn check(body: &Body) -> Result<(), RecordError> {
    let names: &[&String] = match body {
        Body::Genesis(genesis) => &[&genesis.founder_name, &genesis.mesh_name],
        Body::Admit(admit) => &[&admit.name],
        Body::Delegate(delegate) if delegate.role.admits() => return Err(RecordError::Owner),
        Body::Delegate(delegate) => &[&delegate.label],
        Body::Revoke(Revoke { keep, subject, .. }) => {
            let is_sorted = keep.windows(2).all(|pair| pair[0] < pair[1]);
            let is_good = keep.len() <= limits::KEPT_MAX && is_sorted && !keep.contains(subject);
            return if is_good { Ok(()) } else { Err(RecordError::Keep) };
        }
    };
    if names.iter().all(|name| is_name(name)) { Ok(()) } else { Err(RecordError::Name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::set::tests::Fake;

    fn genesis(name: &str) -> Body {
        let founder = Fake(1).public_key();
        Body::Genesis(Genesis { nonce: [7; 16], founder, founder_name: "a".into(), mesh_name: name.into() })
    }

    #[test]
    fn a_record_reads_back_and_knows_its_signer() {
        let body = genesis("home");
        let record = Record::sign(&body, &Fake(1)).expect("signs");
        assert_eq!(record.body(), Ok(body));
        assert!(record.is_signed_by(&Fake(1).public_key(), &Fake(0)));
        assert!(!record.is_signed_by(&Fake(2).public_key(), &Fake(0)));
    }

    #[test]
    fn nobody_signs_in_anothers_name() {
        assert_eq!(Record::sign(&genesis("home"), &Fake(2)), Err(RecordError::Signer));
    }

    #[test]
    fn an_encoding_that_is_not_the_only_one_is_refused() {
        let record = Record::sign(&genesis("home"), &Fake(1)).expect("signs");
        let mut longer = record.clone();
        longer.body.push(0);
        assert_eq!(longer.body(), Err(RecordError::Malformed));
        // The variant 0 as a varint of two bytes.
        let mut loose = record;
        loose.body.splice(0..1, [0x80, 0x00]);
        assert_eq!(loose.body(), Err(RecordError::Malformed));
    }

    #[test]
    fn names_that_could_confuse_a_terminal_are_refused() {
        for bad in ["", "  ", "a\x1b[2Jb", "a\nb", &"x".repeat(65)] {
            assert_eq!(Record::sign(&genesis(bad), &Fake(1)), Err(RecordError::Name), "{bad:?}");
        }
        assert!(is_name("Anas Rechner Ä"));
    }

    #[test]
    fn only_ed25519_keys_in_their_one_encoding_are_keys() {
        let key = PublicKey([9; 32]);
        assert_eq!(PublicKey::from_spki(&key.spki()), Some(key));
        assert_eq!(PublicKey::from_spki(&key.spki()[..43]), None);
        let mut other = key.spki();
        other[8] = 0x71;
        assert_eq!(PublicKey::from_spki(&other), None);
        assert_eq!(key.peer(), PeerId::of_spki(&key.spki()));
    }

    #[test]
    fn roles_join_to_the_rights_of_both() {
        assert_eq!(Role::Client.join(Role::Worker), Role::Peer);
        assert_eq!(Role::Owner.join(Role::Client), Role::Owner);
        assert!(!Role::Client.serves() && !Role::Worker.submits() && !Role::Peer.admits() && Role::Owner.admits());
    }
}
