//! What is known of the compilers that other machines sent (DO).
//!
//! One file for each, its manifest in it, by fingerprint: after a restart the machine lends them again. A file is written
//! when all of its compiler is here, so that one which came in part is never lent.

use crate::store::layout;
use mesh_proto::{
    exchange::toolchain,
    limits::TOOLCHAINS_MAX,
    toolchain::{Fingerprint, Manifest},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A file of this kind, bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The time of the last use is written when it is this much later than the one written before, milliseconds.
const USED_PACE_MS: u64 = 60 * 60 * 1000;
/// The extension of a file that is being written.
const NEW: &str = "new";

/// A compiler that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its parts and what it says of itself.
    pub manifest: Arc<Manifest>,
    /// The machine that gave the most of it, by name.
    pub from: String,
    /// When it was whole, milliseconds since 1970.
    pub came_ms: u64,
    /// When it was used last, milliseconds since 1970.
    pub used_ms: u64,
}

impl Sent {
    /// All its files, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        toolchain::bytes(&self.manifest)
    }
}

/// What is in a file: a [`Sent`].
#[derive(Debug, Serialize, Deserialize)]
struct Kept<M> {
    manifest: M,
    from: String,
    came_ms: u64,
    used_ms: u64,
}

/// All of them.
#[derive(Debug)]
pub struct AllSent {
    folder: PathBuf,
    all: Mutex<BTreeMap<Fingerprint, Sent>>,
}

impl AllSent {
    /// Those that an earlier run knew below this cache directory; a file that is not what it should be is removed.
    ///
    /// # Errors
    /// If the folder cannot be made or listed.
    pub fn open(cache: &Path) -> io::Result<Self> {
        let folder = cache.join(layout::TOOLCHAINS_SENT);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            match read(&path) {
                Some((fingerprint, sent)) if all.len() < TOOLCHAINS_MAX => drop(all.insert(fingerprint, sent)),
                _ => std::fs::remove_file(path)?,
            }
        }
        Ok(Self { folder, all: Mutex::new(all) })
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, fingerprint: &Fingerprint) -> Option<Sent> {
        self.lock().get(fingerprint).cloned()
    }

    /// All, by fingerprint.
    #[must_use]
    pub fn list(&self) -> Vec<(Fingerprint, Sent)> {
        self.lock().iter().map(|(fingerprint, sent)| (*fingerprint, sent.clone())).collect()
    }

    /// One more, which is whole.
    ///
    /// # Errors
    /// If it cannot be written, or there are [`TOOLCHAINS_MAX`]: then it is not known after a restart, nor now.
    pub fn add(&self, fingerprint: Fingerprint, sent: Sent) -> io::Result<()> {
        let mut all = self.lock();
        if all.len() >= TOOLCHAINS_MAX && !all.contains_key(&fingerprint) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.write(&fingerprint, &sent)?;
        all.insert(fingerprint, sent);
        Ok(())
    }

    /// It is used now.
    pub fn used(&self, fingerprint: &Fingerprint, now_ms: u64) {
        let mut all = self.lock();
        let Some(sent) = all.get_mut(fingerprint) else { return };
        let is_due = now_ms.saturating_sub(sent.used_ms) >= USED_PACE_MS;
        sent.used_ms = sent.used_ms.max(now_ms);
        if is_due && let Err(error) = self.write(fingerprint, sent) {
            tracing::debug!(%error, "when a compiler was used was not kept");
        }
    }

    /// It is given up. Its files are for others to remove.
    pub fn remove(&self, fingerprint: &Fingerprint) -> Option<Sent> {
        let _ = std::fs::remove_file(self.file(fingerprint));
        self.lock().remove(fingerprint)
    }

    fn file(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.folder.join(fingerprint.0.hex())
    }

    fn write(&self, fingerprint: &Fingerprint, sent: &Sent) -> io::Result<()> {
        let Sent { manifest, from, came_ms, used_ms } = sent;
        let kept = Kept { manifest: &**manifest, from: from.clone(), came_ms: *came_ms, used_ms: *used_ms };
        let bytes = postcard::to_stdvec(&kept).map_err(|_| io::ErrorKind::InvalidData)?;
        let (file, beside) = (self.file(fingerprint), self.file(fingerprint).with_extension(NEW));
        std::fs::write(&beside, bytes)?;
        std::fs::rename(beside, file)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Fingerprint, Sent>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file's content, if it is that of the fingerprint in its name.
fn read(path: &Path) -> Option<(Fingerprint, Sent)> {
    if std::fs::symlink_metadata(path).ok().filter(|meta| meta.is_file())?.len() > FILE_BYTES_MAX {
        return None;
    }
    let kept: Kept<Manifest> = postcard::from_bytes(&std::fs::read(path).ok()?).ok()?;
    let Kept { manifest, from, came_ms, used_ms } = kept;
    let sent = Sent { manifest: Arc::new(manifest), from, came_ms, used_ms };
    let fingerprint = sent.manifest.fingerprint();
    let name = path.file_name()?.to_str()?;
    (fingerprint.0.hex() == name).then_some((fingerprint, sent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::path::AbsPath;

    fn sent(driver: &str, used_ms: u64) -> Sent {
        let manifest = Manifest { driver: AbsPath::new(driver).unwrap(), facts: vec![], parts: vec![] };
        Sent { manifest: Arc::new(manifest), from: "laptop".into(), came_ms: 1, used_ms }
    }

    #[test]
    fn what_was_whole_is_known_to_the_next_life_and_nothing_else() {
        let cache = tempfile::tempdir().unwrap();
        let all = AllSent::open(cache.path()).unwrap();
        let (gcc, clang) = (sent("/usr/bin/gcc", 5), sent("/usr/bin/clang", 5));
        let [gcc_is, clang_is] = [&gcc, &clang].map(|one| one.manifest.fingerprint());
        all.add(gcc_is, gcc.clone()).unwrap();
        all.add(clang_is, clang.clone()).unwrap();
        all.used(&gcc_is, 5 + USED_PACE_MS);
        all.used(&clang_is, 4 + USED_PACE_MS);
        assert_eq!(all.get(&clang_is).unwrap().used_ms, 4 + USED_PACE_MS);
        let folder = cache.path().join(layout::TOOLCHAINS_SENT);
        // One that lost bytes, one under another's name, one that was being written.
        std::fs::write(folder.join(clang_is.0.hex()), b"x").unwrap();
        std::fs::copy(folder.join(gcc_is.0.hex()), folder.join("00").with_extension(NEW)).unwrap();
        let again = AllSent::open(cache.path()).unwrap();
        assert_eq!(again.list(), [(gcc_is, Sent { used_ms: 5 + USED_PACE_MS, ..gcc })]);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        assert!(again.remove(&gcc_is).is_some());
        assert!(AllSent::open(cache.path()).unwrap().list().is_empty());
    }
}
