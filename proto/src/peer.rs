//! Who a machine is (AGREE).

use serde::{Deserialize, Serialize};

/// A machine of a mesh: BLAKE3 of its public key (the DER of SubjectPublicKeyInfo, RFC 5280), never of a certificate,
/// a name or an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub [u8; 32]);

/// RFC 4648's base 32 in lower case, without padding.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl PeerId {
    /// The id of the machine that holds this key.
    #[must_use]
    pub fn of_spki(spki_der: &[u8]) -> Self {
        Self(*blake3::hash(spki_der).as_bytes())
    }

    /// 52 characters in groups of four.
    #[must_use]
    pub fn text(&self) -> String {
        let plain = base32(&self.0);
        let groups: Vec<&str> = (0..plain.len()).step_by(4).map(|at| &plain[at..(at + 4).min(plain.len())]).collect();
        groups.join("-")
    }

    /// The first eight characters, for display only: `k7f3-q2m9`.
    #[must_use]
    pub fn short(&self) -> String {
        self.text()[..9].to_owned()
    }

    /// Reads what [`PeerId::text`] writes; hyphens may be left out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain: Vec<u8> = text.bytes().filter(|b| *b != b'-').map(|b| b.to_ascii_lowercase()).collect();
        if plain.len() != 52 {
            return None;
        }
        let mut out = [0u8; 32];
        let (mut bits, mut held, mut at) = (0u32, 0u32, 0);
        for c in plain {
            let value = u32::try_from(ALPHABET.iter().position(|a| *a == c)?).ok()?;
            bits = bits << 5 | value;
            held += 5;
            if held >= 8 {
                held -= 8;
                if at < 32 {
                    out[at] = u8::try_from(bits >> held & 0xff).ok()?;
                    at += 1;
                }
            }
        }
        (base32(&out) == text.replace('-', "").to_ascii_lowercase()).then_some(Self(out))
    }
}

impl std::fmt::Debug for PeerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.short())
    }
}

/// Lower-case base 32 of bytes, without padding.
#[must_use]
pub fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            out.push(char::from(ALPHABET[(bits >> held & 31) as usize]));
        }
    }
    if held > 0 {
        out.push(char::from(ALPHABET[(bits << (5 - held) & 31) as usize]));
    }
    out
}

/// Reads what [`base32`] writes, and nothing else. The caller bounds its length.
pub(crate) fn unbase32(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut held) = (0u32, 0u32);
    for c in text {
        let value = match c {
            b'a'..=b'z' => c - b'a',
            b'2'..=b'7' => c - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5 | u32::from(value)) & 0xfff;
        held += 5;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    (base32(&out).as_bytes() == text).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_with_and_without_hyphens() {
        let id = PeerId::of_spki(b"key");
        assert_eq!(id.text().replace('-', "").len(), 52);
        assert_eq!(PeerId::parse(&id.text()), Some(id));
        assert_eq!(PeerId::parse(&id.text().replace('-', "").to_uppercase()), Some(id));
        assert_eq!(PeerId::parse(&id.text()[1..]), None);
        assert_eq!(id.short().len(), 9);
    }

    #[test]
    fn base32_is_rfc_4648s() {
        for (bytes, text) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }
}
