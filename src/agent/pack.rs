//! Blobs made ready for the wire in blocking tasks, and kept so for a while (DO).
//!
//! One task packs all that one stream sends and hands it over in pieces: the network's thread neither reads files nor
//! compresses, and a hundred small blobs are a few writes.

use crate::net::{
    channel::Sender,
    stream::{self, StreamError},
};
use mesh_proto::digest::Digest;
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::Read,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// Packed blobs that are kept for the next peer, bytes together.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// A packed blob larger than this, bytes, is not kept.
const KEPT_BLOB_BYTES_MAX: usize = 4 << 20;
/// A piece is handed to the network when it has this many bytes.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait for the network.
const PIECES_MAX: usize = 4;

/// The packed form of blobs that were sent lately: a second peer costs no second compression.
#[derive(Debug, Default)]
pub(super) struct Packs(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    blobs: HashMap<Digest, (u64, Arc<[u8]>)>,
    /// By last use.
    order: BTreeMap<u64, Digest>,
    uses: u64,
    bytes: usize,
}

impl Packs {
    /// The packed form of a blob, if it is kept.
    pub(super) fn get(&self, digest: &Digest) -> Option<Arc<[u8]>> {
        let mut kept = self.0.lock().expect("no panic while held");
        let Kept { blobs, order, uses, .. } = &mut *kept;
        let (used, packed) = blobs.get_mut(digest)?;
        *uses += 1;
        order.remove(used);
        order.insert(*uses, *digest);
        *used = *uses;
        Some(packed.clone())
    }

    /// Keeps the packed form of a blob; what was not used for longest goes.
    fn keep(&self, digest: Digest, packed: &[u8]) {
        if packed.len() > KEPT_BLOB_BYTES_MAX {
            return;
        }
        let mut kept = self.0.lock().expect("no panic while held");
        if kept.blobs.contains_key(&digest) {
            return;
        }
        kept.uses += 1;
        kept.bytes += packed.len();
        let now = kept.uses;
        kept.order.insert(now, digest);
        kept.blobs.insert(digest, (now, packed.into()));
        while kept.bytes > KEPT_BYTES_MAX {
            let Some((_, oldest)) = kept.order.pop_first() else { return };
            if let Some((_, packed)) = kept.blobs.remove(&oldest) {
                kept.bytes -= packed.len();
            }
        }
    }
}

/// So many bytes a second, all together.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_a_second: u64,
    /// When what was let through so far is through at that rate.
    free: Mutex<Option<Instant>>,
}

impl Pace {
    /// So many bytes a second.
    pub(super) fn new(bytes_a_second: u64) -> Self {
        Self { bytes_a_second, free: Mutex::default() }
    }

    /// When so many bytes may go out, asked at `now`.
    fn turn(&self, bytes: usize, now: Instant) -> Instant {
        let mut free = self.free.lock().expect("no panic while held");
        let begin = free.map_or(now, |free| free.max(now));
        let takes = (bytes as u64).saturating_mul(1_000_000) / self.bytes_a_second.max(1);
        *free = Some(begin + Duration::from_micros(takes));
        begin
    }

    async fn wait(&self, bytes: usize) {
        tokio::time::sleep_until(self.turn(bytes, Instant::now())).await;
    }
}

/// Why a stream's bytes did not all go out.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackError {
    /// The content is not what it was, or cannot be read.
    #[error("the content of a blob cannot be had any more")]
    Content,
    /// The stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Takes blobs in a blocking task.
#[derive(Debug)]
pub(super) struct Packer {
    piece: Vec<u8>,
    to: mpsc::Sender<Vec<u8>>,
}

impl Packer {
    /// Packs a blob.
    pub(super) fn blob(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        for block in bytes.chunks(stream::BLOCK_BYTES) {
            stream::pack_blob(block, &mut self.piece)?;
            self.hand_over(PIECE_BYTES)?;
        }
        Ok(())
    }

    /// Takes what is whole blobs or frames as they go over the wire.
    pub(super) fn packed(&mut self, wire: &[u8]) -> Result<(), PackError> {
        self.piece.extend_from_slice(wire);
        self.hand_over(PIECE_BYTES)
    }

    /// Packs so many bytes of a file, without holding more than a block of it.
    pub(super) fn file(&mut self, mut file: File, size: u64) -> Result<(), PackError> {
        let mut block = Vec::with_capacity(stream::BLOCK_BYTES);
        let mut left = size;
        while left > 0 {
            block.clear();
            let wanted = left.min(stream::BLOCK_BYTES as u64);
            let read = (&mut file).take(wanted).read_to_end(&mut block).map_err(StreamError::Content)?;
            if read as u64 != wanted {
                return Err(PackError::Content);
            }
            left -= wanted;
            stream::pack_blob(&block, &mut self.piece)?;
            self.hand_over(PIECE_BYTES)?;
        }
        Ok(())
    }

    /// Packs a blob whose packed form may be kept, or shall be.
    pub(super) fn kept(
        &mut self,
        packs: &Packs,
        digest: Digest,
        read: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Result<(), PackError> {
        if let Some(packed) = packs.get(&digest) {
            self.piece.extend_from_slice(&packed);
            return self.hand_over(PIECE_BYTES);
        }
        let bytes = read().ok_or(PackError::Content)?;
        if bytes.len() > KEPT_BLOB_BYTES_MAX {
            return self.blob(&bytes);
        }
        let start = self.piece.len();
        stream::pack_blob(&bytes, &mut self.piece)?;
        packs.keep(digest, &self.piece[start..]);
        self.hand_over(PIECE_BYTES)
    }

    fn hand_over(&mut self, bytes_min: usize) -> Result<(), PackError> {
        if self.piece.is_empty() || self.piece.len() < bytes_min {
            return Ok(());
        }
        // Nobody takes it any more: the stream has ended.
        self.to.blocking_send(std::mem::take(&mut self.piece)).map_err(|_| StreamError::Finished.into())
    }
}

/// Sends `first`, which is whole frames, and after it what `pack` packs, in a blocking task. Gives how many bytes went out.
pub(super) async fn send(
    out: &mut Sender,
    first: Vec<u8>,
    pack: impl FnOnce(&mut Packer) -> Result<(), PackError> + Send + 'static,
) -> Result<u64, PackError> {
    send_pieces(out, first, None, pack).await
}

/// Sends what `pack` packs, no faster than the pace.
pub(super) async fn send_paced(
    out: &mut Sender,
    pace: &Pace,
    pack: impl FnOnce(&mut Packer) -> Result<(), PackError> + Send + 'static,
) -> Result<u64, PackError> {
    send_pieces(out, Vec::new(), Some(pace), pack).await
}

async fn send_pieces(
    out: &mut Sender,
    first: Vec<u8>,
    pace: Option<&Pace>,
    pack: impl FnOnce(&mut Packer) -> Result<(), PackError> + Send + 'static,
) -> Result<u64, PackError> {
    let (to, mut pieces) = mpsc::channel(PIECES_MAX);
    let packing = tokio::task::spawn_blocking(move || {
        let mut packer = Packer { piece: first, to };
        pack(&mut packer)?;
        packer.hand_over(1)
    });
    let mut bytes = 0;
    while let Some(piece) = pieces.recv().await {
        if let Some(pace) = pace {
            pace.wait(piece.len()).await;
        }
        out.send_bytes(&piece).await?;
        bytes += piece.len() as u64;
    }
    packing.await.unwrap_or(Err(PackError::Content)).map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: usize, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_was_used_last_stays() {
        let packs = Packs::default();
        let digest = |n: usize| Digest::of(&n.to_le_bytes());
        let blob = noise(0, 1 << 20);
        for n in 0..KEPT_BYTES_MAX / blob.len() {
            packs.keep(digest(n), &blob);
        }
        assert!(packs.get(&digest(0)).is_some());
        packs.keep(digest(1000), &blob);
        assert!(packs.get(&digest(0)).is_some() && packs.get(&digest(1)).is_none());
        assert!(packs.get(&digest(1000)).is_some());
        packs.keep(digest(2000), &vec![0; KEPT_BLOB_BYTES_MAX + 1]);
        assert!(packs.get(&digest(2000)).is_none());
        let kept = packs.0.lock().expect("alone");
        assert_eq!(kept.bytes, kept.blobs.values().map(|(_, packed)| packed.len()).sum::<usize>());
        assert_eq!(kept.order.len(), kept.blobs.len());
    }

    #[test]
    fn a_blob_is_read_and_packed_once_and_sent_the_same_twice() {
        let packs = Packs::default();
        let (to, mut pieces) = mpsc::channel(PIECES_MAX);
        let mut packer = Packer { piece: Vec::new(), to };
        let text = [b"int i;\n".repeat(500), noise(1, 900)].concat();
        packer.kept(&packs, Digest::of(&text), || Some(text.clone())).expect("packs");
        let once = packer.piece.clone();
        packer.kept(&packs, Digest::of(&text), || panic!("read again")).expect("packs");
        assert_eq!(packer.piece, [&once[..], &once[..]].concat());
        packer.hand_over(1).expect("room");
        assert_eq!(pieces.try_recv().expect("handed over").len(), 2 * once.len());
        assert!(once.len() < text.len());
    }

    #[test]
    fn no_more_goes_out_than_the_rate_allows_whoever_asks() {
        let pace = Pace::new(1_000_000);
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        assert_eq!(pace.turn(500_000, now), now);
        assert_eq!(pace.turn(250_000, now), after(500));
        assert_eq!(pace.turn(1, after(600)), after(750));
        // What was not used is not saved up.
        assert_eq!(pace.turn(1_000_000, after(5000)), after(5000));
        assert_eq!(pace.turn(1, after(5000)), after(6000));
    }
}
