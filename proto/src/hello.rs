//! What two members say first on a connection, and how their records are made equal (AGREE).
//!
//! The dialer opens the first bidirectional stream; each side sends a [`Hello`] and reads the other's. If the set
//! digests differ, each side sends the hashes of its records, then the records that the other lacks, and merges. Both
//! sides do the same at the same time, so there is no machine to keep: the order of frames each way is the protocol.

use crate::{
    digest::Digest,
    limits,
    membership::{MeshId, Record, Role, is_name},
    toolchain::Fingerprint,
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Codes with which a connection is ended (QUIC's application errors).
pub mod close {
    /// Everything that was to be said was said.
    pub const DONE: u32 = 0x2000;
    /// The other side is no member (any more).
    pub const NOT_MEMBER: u32 = 0x2001;
    /// The agent is stopping.
    pub const LEAVING: u32 = 0x2002;
    /// The other one of two connections between this pair is kept.
    pub const DUPLICATE: u32 = 0x2003;
    /// Too much at once.
    pub const BUSY: u32 = 0x2004;
    /// A message broke the protocol.
    pub const MALFORMED: u32 = 0x2005;
    /// A pairing was refused; the last message says why.
    pub const PAIRING_REFUSED: u32 = 0x2101;
}

/// A program version, bytes of text.
const AGENT_VERSION_BYTES_MAX: usize = 32;

/// The first frame each way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest protocol version that the sender speaks.
    pub proto_min: u32,
    /// The newest.
    pub proto_max: u32,
    /// The sender's program version, for display.
    pub agent_version: String,
    /// The sender's mesh.
    pub mesh: MeshId,
    /// Digest of the records that the sender holds.
    pub set_digest: Digest,
    /// The role that the sender believes to have.
    pub role: Option<Role>,
    /// What the sender calls itself now.
    pub name: String,
    /// Equal for two agents on one host and telling nothing else: [`crate::advert::DiscKey::host_tag`].
    pub host_tag: [u8; 16],
    /// Jobs that the sender takes at once; 0 if it does not serve.
    pub slots: u32,
    /// The compilers that the sender can run, sorted.
    pub toolchains: Vec<Fingerprint>,
    /// Where the sender was reached lately, and where it knows of others being: hints.
    pub addresses: Vec<SocketAddr>,
    /// The sender's clock, seconds since 1970: only to tell a person that one of the clocks is wrong.
    pub now_s: u64,
}

/// Why a hello is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The sender is in another mesh.
    #[error("the other machine speaks for another mesh")]
    OtherMesh,
    /// No common version.
    #[error("no common protocol version: {min} to {max} there")]
    Version {
        /// Their oldest.
        min: u32,
        /// Their newest.
        max: u32,
    },
    /// A list or a text passes its limit.
    #[error("the other machine's hello passes a limit")]
    Limit,
}

impl Hello {
    /// Checks what decoding cannot, and that the sender is of mesh `mesh`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, mesh: MeshId) -> Result<(), HelloError> {
        if self.toolchains.len() > limits::TOOLCHAINS_MAX
            || self.addresses.len() > limits::ADDRESSES_MAX
            || self.agent_version.len() > AGENT_VERSION_BYTES_MAX
            || self.agent_version.chars().any(char::is_control)
            || !is_name(&self.name)
        {
            return Err(HelloError::Limit);
        }
        let (oldest, newest) = (crate::version::OLDEST as u32, crate::version::NEWEST as u32);
        if self.proto_max < oldest || self.proto_min > newest {
            return Err(HelloError::Version { min: self.proto_min, max: self.proto_max });
        }
        if self.mesh == mesh { Ok(()) } else { Err(HelloError::OtherMesh) }
    }
}

/// The frames after the hellos, each way, if the set digests differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sync {
    /// The hashes of the records that the sender holds.
    Hashes(Vec<Digest>),
    /// The records that the receiver lacks; the last frame of the exchange.
    Records(Vec<Record>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            proto_min: 1,
            proto_max: 1,
            agent_version: "0.1.0".into(),
            mesh: MeshId(Digest([1; 32])),
            set_digest: Digest([2; 32]),
            role: Some(Role::Owner),
            name: "tower".into(),
            host_tag: [3; 16],
            slots: 24,
            toolchains: vec![Fingerprint(Digest([4; 32])); limits::TOOLCHAINS_MAX],
            addresses: vec!["[fe80::1]:6374".parse().expect("an address"); limits::ADDRESSES_MAX],
            now_s: u64::MAX,
        }
    }

    #[test]
    fn the_largest_hello_fits_its_frame() {
        let hello = hello();
        assert_eq!(hello.check(hello.mesh), Ok(()));
        assert!(crate::frame::encode(&hello, limits::HELLO_BYTES_MAX).is_ok());
    }

    #[test]
    fn another_mesh_another_version_and_too_much_are_refused() {
        let good = hello();
        assert_eq!(good.check(MeshId(Digest([9; 32]))), Err(HelloError::OtherMesh));
        let newer = Hello { proto_min: 7, proto_max: 9, ..good.clone() };
        assert_eq!(newer.check(good.mesh), Err(HelloError::Version { min: 7, max: 9 }));
        let many = Hello { toolchains: vec![Fingerprint(Digest([4; 32])); limits::TOOLCHAINS_MAX + 1], ..good.clone() };
        assert_eq!(many.check(good.mesh), Err(HelloError::Limit));
        let odd = Hello { name: "a\x1b[31m".into(), ..good.clone() };
        assert_eq!(odd.check(good.mesh), Err(HelloError::Limit));
    }
}
