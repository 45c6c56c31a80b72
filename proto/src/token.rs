//! What a person copies so that machines join without anybody at them (AGREE).

use crate::{
    advert::DiscKey,
    limits,
    membership::{MeshId, Role},
    peer::{base32, unbase32},
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// How each token begins, so that whoever looks for secrets that were left lying around finds it.
pub const PREFIX: &str = "meshjoin_1_";
/// A token's characters at most; real ones have about 250.
const TEXT_MAX: usize = 1024;
/// What a slip of the pen changes is noticed with, bytes.
const CHECK_BYTES: usize = 4;

/// A token. Whoever has it joins until it ends: it is a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The mesh.
    pub mesh: MeshId,
    /// The seed of the Ed25519 key (RFC 8032) that signs admissions.
    pub seed: [u8; 32],
    /// The secret of the mesh's announcements.
    pub disc_key: DiscKey,
    /// What it makes.
    pub role: Role,
    /// When it ends, seconds since 1970.
    pub not_after: u64,
    /// Where members may be.
    #[serde(deserialize_with = "crate::bounded::list::<{ limits::TOKEN_ADDRESSES_MAX }, _, _>")]
    pub addresses: Vec<SocketAddr>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("mesh", &self.mesh).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin like one.
    #[error("a token begins with {PREFIX}")]
    Prefix,
    /// Something of it is missing or changed.
    #[error("the token is not whole: a part is missing, or was changed. Copy it again")]
    Damaged,
}

impl Token {
    /// The text that is copied.
    #[must_use]
    pub fn text(&self) -> String {
        let mut bytes = postcard::to_stdvec(self).expect("plain values always encode");
        let check = blake3::derive_key("mesh 2026 token check v1", &bytes);
        bytes.extend_from_slice(&check[..CHECK_BYTES]);
        format!("{PREFIX}{}", base32(&bytes))
    }

    /// Whether a text is meant as a token.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.trim_start().starts_with("meshjoin_")
    }

    /// Reads what [`Token::text`] writes; white space around and in it is nothing, for terminals break long lines.
    ///
    /// # Errors
    /// If it is not whole.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).take(TEXT_MAX + 1).collect();
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let whole = Some(rest.as_bytes()).filter(|rest| rest.len() <= TEXT_MAX);
        let bytes = whole.and_then(unbase32).ok_or(TokenError::Damaged)?;
        let at = bytes.len().checked_sub(CHECK_BYTES).ok_or(TokenError::Damaged)?;
        let (bytes, check) = bytes.split_at(at);
        if blake3::derive_key("mesh 2026 token check v1", bytes)[..CHECK_BYTES] != *check {
            return Err(TokenError::Damaged);
        }
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((token, [])) if !token.role.admits() => Ok(token),
            _ => Err(TokenError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn token() -> Token {
        Token {
            mesh: MeshId(Digest([1; 32])),
            seed: [2; 32],
            disc_key: DiscKey([3; 16]),
            role: Role::Client,
            not_after: 1_800_000_000,
            addresses: vec!["192.168.1.20:6374".parse().expect("an address")],
        }
    }

    #[test]
    fn a_token_reads_back_however_it_was_copied_and_no_other_text_does() {
        let text = token().text();
        assert!(text.starts_with(PREFIX) && text.len() < 250, "{} characters", text.len());
        assert_eq!(Token::parse(&text), Ok(token()));
        let addresses = vec!["[2001:db8::1234:5678]:65535".parse().expect("an address"); limits::TOKEN_ADDRESSES_MAX];
        let longest = Token { addresses, ..token() };
        assert_eq!(Token::parse(&longest.text()), Ok(longest));
        let (one, two) = text.split_at(80);
        assert_eq!(Token::parse(&format!("  {one}\r\n{two}\n")), Ok(token()));
        assert_eq!(Token::parse("417-otter-maple"), Err(TokenError::Prefix));
        assert_eq!(Token::parse(PREFIX), Err(TokenError::Damaged));
        assert_eq!(Token::parse(&text[..text.len() - 3]), Err(TokenError::Damaged));
        for at in PREFIX.len()..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
            let wrong = String::from_utf8(wrong).expect("letters");
            assert_eq!(Token::parse(&wrong), Err(TokenError::Damaged), "character {at}");
        }
    }

    #[test]
    fn a_token_that_makes_owners_is_none_and_none_shows_its_secret() {
        let owner = Token { role: Role::Owner, ..token() };
        assert_eq!(Token::parse(&owner.text()), Err(TokenError::Damaged));
        let shown = format!("{:?}", token());
        assert!(!shown.contains("seed") && !shown.contains("2, 2"), "{shown}");
    }
}
