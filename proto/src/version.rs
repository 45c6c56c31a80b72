//! Versions of the protocol: a diary, newest first, and what TLS negotiates (AGREE).

/// A version of the protocol between agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The first: jobs in strict roots, names by number, membership by signed records, load frames.
    V1 = 1,
}

/// The newest version that this program speaks.
pub const NEWEST: Version = Version::V1;
/// The oldest version that this program speaks.
pub const OLDEST: Version = Version::V1;

/// ALPN (RFC 7301) of the protocol between members, newest first.
pub const ALPN_MESH: &[&[u8]] = &[b"mesh/1"];
/// ALPN of introductions: a member that the other one has not heard of, or a machine with a token.
pub const ALPN_INTRO: &[u8] = b"mesh-intro/1";
/// ALPN of pairing; offered only while a window is open.
pub const ALPN_PAIR: &[u8] = b"mesh-pair/1";
