//! This machine's key: on disk, as a certificate, and for signing records (DO).
//!
//! Who a machine is, is its Ed25519 key and nothing else. The certificate around it is made anew at every start and
//! says nothing; peers look at the key inside.

use mesh_proto::{
    membership::{PublicKey, Sign, Verify},
    peer::PeerId,
};
use rand_core::RngCore;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PublicKeyData, SigningKey};
use rustls::{
    SignatureScheme,
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The key's file in the state directory: PKCS#8, DER.
const KEY_FILE: &str = "machine-key-v1";
/// The key that is to come in its place.
const NEXT_FILE: &str = "machine-key-v1.next";
/// An Ed25519 key takes 83 bytes; a file longer than this, bytes, is not one.
const KEY_FILE_BYTES_MAX: u64 = 1024;
/// The certificate needs a name; nobody reads it.
const CERTIFICATE_NAME: &str = "mesh";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The state directory cannot be made or entered.
    #[error("the state directory {path} cannot be used")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file cannot be read.
    #[error("this machine's key {path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file cannot be written.
    #[error("this machine's key {path} cannot be written")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than the owner may read the key.
    #[error("this machine's key {path} can be read by others (mode {mode:03o}). Close it with: chmod 600 {path}")]
    Mode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error(
        "this machine's key {path} is damaged. Restore it from a backup, or remove it: this machine then is a new one \
         and must join again"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// The library that makes keys and certificates failed.
    #[error("no key or certificate could be made: {0}")]
    Make(String),
}

/// The machine's key, ready for TLS and for signing.
pub struct Identity {
    key_pair: KeyPair,
    public: PublicKey,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// The identity in `state_dir`; made if there is none. Two agents that start at once end with one key.
    ///
    /// # Errors
    /// If the directory or the file cannot be used, or the file is not a private Ed25519 key.
    pub fn open(state_dir: &Path) -> Result<Self, IdentityError> {
        let at = |source| IdentityError::Directory { path: state_dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(at)?;
        let path = state_dir.join(KEY_FILE);
        match read_key(&path)? {
            Some(identity) => Ok(identity),
            None => {
                let fresh = KeyPair::generate_for(&PKCS_ED25519).map_err(|e| IdentityError::Make(e.to_string()))?;
                create(&path, fresh.serialized_der())
                    .map_err(|source| IdentityError::Write { path: path.clone(), source })?;
                // Read back: another agent may have been first, and a key that cannot be read must not be used.
                read_key(&path)?.ok_or(IdentityError::Damaged { path })
            }
        }
    }

    /// A new identity beside the one in `state_dir`, for [`adopt`].
    ///
    /// # Errors
    /// If the directory or the file cannot be used.
    pub fn prepare(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(NEXT_FILE);
        let failed = |source| IdentityError::Write { path: path.clone(), source };
        remove_file(&path).map_err(failed)?;
        let fresh = KeyPair::generate_for(&PKCS_ED25519).map_err(|e| IdentityError::Make(e.to_string()))?;
        create(&path, fresh.serialized_der()).map_err(failed)?;
        Self::of(fresh)
    }

    /// The identity of a key that is known by its seed.
    ///
    /// # Errors
    /// If the library does not take it.
    pub fn of_seed(seed: &[u8; 32]) -> Result<Self, IdentityError> {
        /// What comes before the seed in a private key's DER (RFC 8410, section 7).
        const BEFORE: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let der = PrivatePkcs8KeyDer::from([&BEFORE[..], seed].concat());
        let key_pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519);
        Self::of(key_pair.map_err(|e| IdentityError::Make(e.to_string()))?)
    }

    /// An identity that is on no disk.
    ///
    /// # Errors
    /// If the library fails.
    pub fn ephemeral() -> Result<Self, IdentityError> {
        let fresh = KeyPair::generate_for(&PKCS_ED25519).map_err(|e| IdentityError::Make(e.to_string()))?;
        Self::of(fresh)
    }

    fn of(key_pair: KeyPair) -> Result<Self, IdentityError> {
        let failed = |e: &dyn std::fmt::Display| IdentityError::Make(e.to_string());
        let public = PublicKey::from_spki(&key_pair.subject_public_key_info())
            .ok_or_else(|| failed(&"the key is not an Ed25519 key"))?;
        let certificate = CertificateParams::new(vec![CERTIFICATE_NAME.to_owned()])
            .and_then(|params| params.self_signed(&key_pair))
            .map_err(|e| failed(&e))?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pair.serialized_der().to_vec()));
        let certified =
            CertifiedKey::from_der(vec![certificate.der().clone()], der, &provider()).map_err(|e| failed(&e))?;
        Ok(Self { key_pair, public, certified: Arc::new(certified) })
    }

    /// Who this machine is.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.public.peer()
    }

    /// The certificate and key, for TLS.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({:?})", self.peer())
    }
}

impl Sign for Identity {
    fn public_key(&self) -> PublicKey {
        self.public
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.key_pair.sign(message).expect("Ed25519 signing needs no randomness and cannot fail");
        signature.try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

/// Checks Ed25519 signatures with the library that TLS uses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ed25519;

impl Verify for Ed25519 {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let ed25519 = algorithms.mapping.iter().find(|(scheme, _)| *scheme == SignatureScheme::ED25519);
        ed25519.is_some_and(|(_, algorithms)| {
            !algorithms.is_empty() && algorithms.iter().all(|a| a.verify_signature(&key.0, message, signature).is_ok())
        })
    }
}

/// The one provider of cryptography; always handed over, so that no process-wide default exists to be set twice.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}

/// Makes what [`Identity::prepare`] has made the identity in `state_dir`.
///
/// # Errors
/// If the file cannot be renamed.
pub fn adopt(state_dir: &Path) -> io::Result<()> {
    std::fs::rename(state_dir.join(NEXT_FILE), state_dir.join(KEY_FILE))?;
    File::open(state_dir)?.sync_all()
}

/// Removes the identity in `state_dir`: the next one that is opened there is new.
///
/// # Errors
/// If the file cannot be removed.
pub fn remove(state_dir: &Path) -> io::Result<()> {
    remove_file(&state_dir.join(KEY_FILE))?;
    File::open(state_dir)?.sync_all()
}

fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reads the key, if its file exists.
fn read_key(path: &Path) -> Result<Option<Identity>, IdentityError> {
    let at = |source| IdentityError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(at(e)),
    };
    let mode = file.metadata().map_err(at)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Mode { path: path.to_owned(), mode });
    }
    let mut der = Vec::new();
    file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut der).map_err(at)?;
    let damaged = || IdentityError::Damaged { path: path.to_owned() };
    let key_pair =
        KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519).map_err(|_| damaged())?;
    Identity::of(key_pair).map(Some)
}

/// Writes a whole key under `path` or nothing; a key that is there already stays.
fn create(path: &Path, der: &[u8]) -> io::Result<()> {
    let draft = path.with_extension(format!("draft-{:016x}", rand_core::OsRng.next_u64()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(der)?;
        file.sync_all()?;
        // A link, unlike a rename, does not replace the key of an agent that was faster.
        match std::fs::hard_link(&draft, path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    })();
    let removed = std::fs::remove_file(&draft);
    written?;
    removed?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("exists").mode() & 0o777
    }

    #[test]
    fn a_key_is_made_once_and_closed_to_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("a/state");
        let one = Identity::open(&state).expect("made");
        let two = Identity::open(&state).expect("read");
        assert_eq!(one.peer(), two.peer());
        assert_eq!((mode(&state), mode(&state.join(KEY_FILE))), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(&state).expect("lists").count(), 1, "no draft is left");
        assert_ne!(Identity::ephemeral().expect("made").peer(), one.peer());
    }

    #[test]
    fn agents_that_start_at_once_end_with_one_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(KEY_FILE);
        let (one, two) = (KeyPair::generate_for(&PKCS_ED25519), KeyPair::generate_for(&PKCS_ED25519));
        let (one, two) = (one.expect("made"), two.expect("made"));
        create(&path, one.serialized_der()).expect("first");
        create(&path, two.serialized_der()).expect("second");
        assert_eq!(std::fs::read(&path).expect("reads"), one.serialized_der());
    }

    #[test]
    fn a_damaged_or_open_key_is_refused_and_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        Identity::open(dir.path()).expect("made");
        let path = dir.path().join(KEY_FILE);
        let good = std::fs::read(&path).expect("reads");
        for bad in [&b""[..], b"junk", &good[..40], &[0u8; 5000]] {
            std::fs::write(&path, bad).expect("writes");
            assert!(matches!(Identity::open(dir.path()), Err(IdentityError::Damaged { .. })));
            assert_eq!(std::fs::read(&path).expect("reads"), bad);
        }
        std::fs::write(&path, &good).expect("writes");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("chmod");
        let open = Identity::open(dir.path()).expect_err("open to a group");
        assert!(open.to_string().contains("chmod 600"), "{open}");
    }

    #[test]
    fn only_the_machines_own_signature_over_these_bytes_is_valid() {
        let (one, two) = (Identity::ephemeral().expect("made"), Identity::ephemeral().expect("made"));
        let mut signature = one.sign(b"words");
        assert!(Ed25519.verify(&one.public_key(), b"words", &signature));
        assert!(!Ed25519.verify(&one.public_key(), b"word", &signature));
        assert!(!Ed25519.verify(&two.public_key(), b"words", &signature));
        signature[0] ^= 1;
        assert!(!Ed25519.verify(&one.public_key(), b"words", &signature));
    }
}
