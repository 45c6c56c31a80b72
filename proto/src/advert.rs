//! What a machine says of itself over mDNS, as the strings of a TXT record (AGREE).
//!
//! Everybody on the network hears this, so it names no person, mesh, compiler or exact load. Members of a mesh share a
//! [`DiscKey`] and recognise each other's tags; to others they are noise that changes with every start of an agent
//! (the instance name is part of each). A tag proves nothing: keys decide, after dialling.

use crate::{peer::base32, toolchain::Fingerprint};
use serde::{Deserialize, Serialize};

/// Bytes that all strings together may take, their length bytes included (RFC 6763, 6.2 advises 200).
pub const TXT_BYTES_MAX: usize = 200;
/// Bytes of one string (the format's own bound).
pub const TXT_STRING_BYTES_MAX: usize = 255;
/// Toolchain tags in one advert; further compilers are learnt from the hello.
pub const TOOLCHAIN_TAGS_MAX: usize = 16;
/// The version of this format.
pub const ADVERT_VERSION: u32 = 1;
/// Pairing discriminators are below this.
pub const DISCRIMINATORS: u16 = 1000;

/// A secret that members share only to recognise each other's adverts. Privacy, never authentication.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscKey(pub [u8; 16]);

/// Says "this instance is of our mesh".
pub type MeshTag = [u8; 6];
/// Says "this instance has that compiler".
pub type ToolchainTag = [u8; 4];

impl DiscKey {
    fn keyed(&self, context: &'static str) -> blake3::Hasher {
        let mut derive = blake3::Hasher::new_derive_key(context);
        derive.update(&self.0);
        blake3::Hasher::new_keyed(derive.finalize().as_bytes())
    }

    /// The tag of an instance of this mesh.
    #[must_use]
    pub fn mesh_tag(&self, instance: &str) -> MeshTag {
        let hash = *self.keyed("mesh discovery v1 tag").update(instance.as_bytes()).finalize().as_bytes();
        [hash[0], hash[1], hash[2], hash[3], hash[4], hash[5]]
    }

    /// The tag of a compiler at an instance.
    #[must_use]
    pub fn toolchain_tag(&self, instance: &str, toolchain: &Fingerprint) -> ToolchainTag {
        let mut hasher = self.keyed("mesh discovery v1 toolchain");
        let hash = *hasher.update(&toolchain.0.0).update(instance.as_bytes()).finalize().as_bytes();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// What two agents on one host have in common, from the host's own id, without telling it.
    #[must_use]
    pub fn host_tag(&self, machine_id: &[u8]) -> [u8; 16] {
        let hash = *self.keyed("mesh discovery v1 host").update(machine_id).finalize().as_bytes();
        let mut tag = [0; 16];
        tag.copy_from_slice(&hash[..16]);
        tag
    }
}

impl std::fmt::Debug for DiscKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DiscKey(…)")
    }
}

/// An announcement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Advert {
    /// The mesh, if the machine is in one.
    pub mesh: Option<MeshTag>,
    /// Its compilers, at most [`TOOLCHAIN_TAGS_MAX`].
    pub toolchains: Vec<ToolchainTag>,
    /// Jobs that it takes at once.
    pub slots: u16,
    /// How many of them are free, roughly.
    pub free: u16,
    /// The first three digits of the code that it shows, while it shows one.
    pub pairing: Option<u16>,
}

/// Why TXT strings are not an advert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdvertError {
    /// No version, or one that this program does not know.
    #[error("an announcement of another version")]
    Version,
    /// A string is not what its key promises.
    #[error("an announcement is malformed in its string \"{0}\"")]
    Malformed(&'static str),
}

impl Advert {
    /// The keys and values of the TXT record, in the order in which they are sent.
    #[must_use]
    pub fn to_txt(&self) -> Vec<(&'static str, String)> {
        let mut out = vec![("v", ADVERT_VERSION.to_string())];
        if let Some(tag) = &self.mesh {
            out.push(("t", base32(tag)));
        }
        if !self.toolchains.is_empty() {
            let tags: Vec<u8> = self.toolchains.iter().take(TOOLCHAIN_TAGS_MAX).flatten().copied().collect();
            out.push(("c", base32(&tags)));
        }
        out.push(("s", self.slots.to_string()));
        out.push(("f", self.free.to_string()));
        if let Some(digits) = self.pairing {
            out.push(("p", format!("{digits:03}")));
        }
        out
    }

    /// Reads a TXT record, by a function that finds a key's value. Unknown keys are left for later versions.
    ///
    /// # Errors
    /// If the version is another or a known value is malformed.
    pub fn from_txt<'a>(value: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, AdvertError> {
        if value("v") != Some(ADVERT_VERSION.to_string().as_bytes()) {
            return Err(AdvertError::Version);
        }
        let mesh = match value("t") {
            None => None,
            Some(text) => {
                let tag = unbase32(text).and_then(|bytes| MeshTag::try_from(bytes).ok());
                Some(tag.ok_or(AdvertError::Malformed("t"))?)
            }
        };
        let tags = value("c").map_or(Some(Vec::new()), unbase32).ok_or(AdvertError::Malformed("c"))?;
        let (tags, rest) = tags.as_chunks::<4>();
        if !rest.is_empty() || tags.len() > TOOLCHAIN_TAGS_MAX {
            return Err(AdvertError::Malformed("c"));
        }
        let count = |key: &'static str| match value(key) {
            None => Ok(0),
            Some(text) => number(text, 5).ok_or(AdvertError::Malformed(key)),
        };
        let pairing = match value("p") {
            None => None,
            Some(text) => {
                let digits = number(text, 3).filter(|d| text.len() == 3 && *d < DISCRIMINATORS);
                Some(digits.ok_or(AdvertError::Malformed("p"))?)
            }
        };
        Ok(Self { mesh, toolchains: tags.to_vec(), slots: count("s")?, free: count("f")?, pairing })
    }
}

/// A number of one to `digits_max` decimal digits.
fn number(text: &[u8], digits_max: usize) -> Option<u16> {
    let plain = !text.is_empty() && text.len() <= digits_max && text.iter().all(u8::is_ascii_digit);
    if plain { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// Reads what [`base32`] writes, and nothing else.
fn unbase32(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > TXT_STRING_BYTES_MAX { None } else { crate::peer::unbase32(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use proptest::prelude::*;

    fn read(txt: &[(&str, String)]) -> Result<Advert, AdvertError> {
        Advert::from_txt(|key| txt.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_bytes()))
    }

    fn size(txt: &[(&str, String)]) -> usize {
        txt.iter().map(|(k, v)| 1 + k.len() + 1 + v.len()).sum()
    }

    fn full() -> Advert {
        Advert {
            mesh: Some([1, 2, 3, 4, 5, 6]),
            toolchains: vec![[0xff; 4]; TOOLCHAIN_TAGS_MAX],
            slots: 9999,
            free: 1024,
            pairing: Some(7),
        }
    }

    #[test]
    fn the_largest_advert_fits_and_reads_back() {
        let txt = full().to_txt();
        assert!(size(&txt) <= TXT_BYTES_MAX, "{} bytes", size(&txt));
        assert_eq!(read(&txt), Ok(full()));
    }

    #[test]
    fn the_text_is_what_it_always_was() {
        let advert = Advert { toolchains: vec![[0, 1, 2, 3], [4, 5, 6, 7]], ..full() };
        let text: Vec<String> = advert.to_txt().iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text.join(" "), "v=1 t=aebagbafay c=aaaqeayeaudao s=9999 f=1024 p=007");
    }

    #[test]
    fn tags_differ_by_mesh_instance_and_compiler() {
        let (one, two) = (DiscKey([1; 16]), DiscKey([2; 16]));
        let (gcc, clang) = (Fingerprint(Digest([1; 32])), Fingerprint(Digest([2; 32])));
        assert_eq!(one.mesh_tag("a"), one.mesh_tag("a"));
        assert_ne!(one.mesh_tag("a"), two.mesh_tag("a"));
        assert_ne!(one.mesh_tag("a"), one.mesh_tag("b"));
        assert_ne!(one.toolchain_tag("a", &gcc), one.toolchain_tag("a", &clang));
        assert_ne!(one.toolchain_tag("a", &gcc), one.toolchain_tag("b", &gcc));
        assert_ne!(one.host_tag(b"id"), two.host_tag(b"id"));
        assert_eq!(format!("{one:?}"), "DiscKey(…)");
    }

    #[test]
    fn another_version_and_malformed_values_are_refused_and_unknown_keys_are_not() {
        let good = full().to_txt();
        let with = |key: &'static str, value: &str| {
            let mut txt: Vec<_> = good.iter().filter(|(k, _)| *k != key).cloned().collect();
            txt.push((key, value.to_owned()));
            read(&txt)
        };
        assert_eq!(with("v", "2"), Err(AdvertError::Version));
        for (key, value) in [("t", "aebagbafa"), ("t", "AEBAGBAFAY"), ("c", "aaaqe"), ("c", "é"), ("s", "-1")] {
            assert_eq!(with(key, value), Err(AdvertError::Malformed(key)), "{key}={value}");
        }
        for (key, value) in [("s", "99999"), ("f", ""), ("p", "7"), ("p", "0007"), ("c", &"a".repeat(300))] {
            assert_eq!(with(key, value), Err(AdvertError::Malformed(key)), "{key}={value}");
        }
        assert_eq!(with("z", "later"), Ok(full()));
    }

    proptest! {
        #[test]
        fn every_advert_reads_back(
            mesh: Option<[u8; 6]>, toolchains in proptest::collection::vec(any::<[u8; 4]>(), 0..=TOOLCHAIN_TAGS_MAX),
            slots: u16, free: u16, pairing in proptest::option::of(0..DISCRIMINATORS),
        ) {
            let advert = Advert { mesh, toolchains, slots, free, pairing };
            prop_assert_eq!(read(&advert.to_txt()), Ok(advert));
        }

        #[test]
        fn any_bytes_are_read_or_refused(values: [Option<Vec<u8>>; 5], version: bool) {
            let v = Some(if version { b"1".to_vec() } else { vec![] });
            let _ = Advert::from_txt(|key| {
                let at = ["t", "c", "s", "f", "p"].iter().position(|k| *k == key);
                at.map_or(v.as_deref(), |at| values[at].as_deref())
            });
        }
    }
}
