//! Frames and blobs on QUIC streams (DO).
//!
//! A frame is [`mesh_proto::frame`]'s. A blob's size and digest are known to the receiver beforehand, so its bytes
//! carry neither: they come in blocks of at most [`BLOCK_BYTES`], each with a header of four bytes, its length on the
//! wire with the top bit set if it is zstd. A block decompresses into a buffer of the size that is still expected of
//! it, so no sender can make a receiver hold more than it declared.

use mesh_proto::{
    digest::Digest,
    frame::{self, FrameError, HEADER_BYTES},
    limits,
};
use quinn::{ReadError, ReadExactError, RecvStream, SendStream, WriteError};
use serde::{Serialize, de::DeserializeOwned};
use std::{cell::RefCell, time::Duration};

/// Plain bytes in one block: what is held in memory beyond what has come.
pub const BLOCK_BYTES: usize = 256 << 10;
/// A blob shorter than this, bytes, is sent as it is: the frame would cost more than it saves.
const COMPRESS_BYTES_MIN: usize = 1 << 10;
/// zstd's level: higher ones cost the client more time than a LAN takes to carry the difference.
const LEVEL: i32 = 1;
/// A compressed block must save this many of its bytes' sixteenths, else it goes plain.
const SAVES_SIXTEENTHS: usize = 1;
/// A block's header, bytes.
const BLOCK_HEADER_BYTES: usize = 4;
/// The header's mark of a compressed block.
const COMPRESSED: u32 = 1 << 31;

/// Why a stream is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The other side took too long.
    #[error("the other machine did not send in time")]
    Late,
    /// The other side ended the stream where a message was due.
    #[error("the other machine ended the stream")]
    Finished,
    /// The stream or its connection broke while writing.
    #[error("sending failed")]
    Write(#[from] WriteError),
    /// The stream or its connection broke while reading.
    #[error("receiving failed")]
    Read(#[from] ReadError),
    /// What came is not a frame of the expected kind.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What came is not the blob that was asked for.
    #[error("a blob from the other machine is not what was declared")]
    Blob,
    /// A blob that was to be sent cannot be read.
    #[error("a blob could not be read")]
    Content(#[source] std::io::Error),
    /// The compressor failed.
    #[error("a blob could not be compressed")]
    Compress(#[source] std::io::Error),
}

/// Sends one message.
///
/// # Errors
/// If it is longer than `bytes_max`, or the stream broke.
pub async fn send<T: Serialize>(stream: &mut SendStream, message: &T, bytes_max: usize) -> Result<(), StreamError> {
    let bytes = frame::encode(message, bytes_max)?;
    Ok(stream.write_all(&bytes).await?)
}

/// Receives one message, waiting no longer than `deadline` for all of it.
///
/// # Errors
/// [`StreamError::Finished`] if the stream ended before it began; else if it is late, too long or malformed.
pub async fn recv<T: DeserializeOwned>(
    stream: &mut RecvStream,
    bytes_max: usize,
    deadline: Duration,
) -> Result<T, StreamError> {
    let whole = async {
        let mut header = [0; HEADER_BYTES];
        read(stream, &mut header).await?;
        let mut payload = vec![0; frame::length(header, bytes_max)?];
        // The frame has begun: an end of the stream within it is not a clean one, but as useless.
        read(stream, &mut payload).await?;
        Ok(frame::decode(&payload)?)
    };
    tokio::time::timeout(deadline, whole).await.unwrap_or(Err(StreamError::Late))
}

async fn read(stream: &mut RecvStream, into: &mut [u8]) -> Result<(), StreamError> {
    stream.read_exact(into).await.map_err(|error| match error {
        ReadExactError::FinishedEarly(_) => StreamError::Finished,
        ReadExactError::ReadError(error) => StreamError::Read(error),
    })
}

thread_local! {
    /// A compressor takes hundreds of kilobytes and is reused.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// What goes before a block of this length on the wire.
fn header(length: usize, mark: u32) -> [u8; BLOCK_HEADER_BYTES] {
    (u32::try_from(length).unwrap_or(u32::MAX) | mark).to_le_bytes()
}

/// One block as it goes over the wire, header included.
fn pack(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    if plain.len() >= COMPRESS_BYTES_MIN {
        let packed = COMPRESSOR.with_borrow_mut(|slot| {
            let compressor = match slot {
                Some(compressor) => compressor,
                None => slot.insert(zstd::bulk::Compressor::new(LEVEL)?),
            };
            compressor.compress(plain)
        })?;
        let saves = packed.len() + plain.len() * SAVES_SIXTEENTHS / 16 <= plain.len();
        // The receiver refuses what grows more than this, whoever sends it.
        let modest = plain.len() as u64 <= packed.len() as u64 * limits::COMPRESSION_RATIO_MAX;
        if saves && modest {
            return Ok([&header(packed.len(), COMPRESSED)[..], &packed].concat());
        }
    }
    Ok([&header(plain.len(), 0)[..], plain].concat())
}

/// Appends a blob to `wire` as it goes over the wire. Compresses what is worth it: not on the network's thread, unless it
/// is small.
///
/// # Errors
/// If the compressor fails.
pub fn pack_blob(bytes: &[u8], wire: &mut Vec<u8>) -> Result<(), StreamError> {
    for block in bytes.chunks(BLOCK_BYTES) {
        wire.extend_from_slice(&pack(block).map_err(StreamError::Compress)?);
    }
    Ok(())
}

/// A blob as it came: neither unpacked nor checked.
#[derive(Debug)]
pub struct Packed {
    size: u64,
    blocks: Vec<Block>,
}

/// A block as it came, and what it will hold.
#[derive(Debug)]
struct Block {
    compressed: bool,
    wire: Vec<u8>,
    plain_len: usize,
}

impl Block {
    fn unpack(self) -> Result<Vec<u8>, StreamError> {
        if !self.compressed {
            return Ok(self.wire);
        }
        let plain = unpack(&self.wire, self.plain_len).map_err(|_| StreamError::Blob)?;
        if plain.len() == self.plain_len { Ok(plain) } else { Err(StreamError::Blob) }
    }
}

impl Packed {
    /// The size that it was declared with, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How much memory it takes, bytes.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.wire.len()).sum()
    }

    /// The bytes that it had on the wire.
    #[must_use]
    pub fn wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.wire_bytes() + self.blocks.len() * BLOCK_HEADER_BYTES);
        for block in &self.blocks {
            let mark = if block.compressed { COMPRESSED } else { 0 };
            wire.extend_from_slice(&header(block.wire.len(), mark));
            wire.extend_from_slice(&block.wire);
        }
        wire
    }

    /// A blob of `size` bytes from what [`Packed::wire`] or [`pack_blob`] gave.
    ///
    /// # Errors
    /// [`StreamError::Blob`] if these cannot be its bytes.
    pub fn from_wire(mut wire: &[u8], size: u64) -> Result<Self, StreamError> {
        let mut blocks = Vec::new();
        let mut left = size;
        while left > 0 {
            let plain_len = usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
            let (header, rest) = wire.split_first_chunk().ok_or(StreamError::Blob)?;
            let (compressed, wire_len) = block_length(*header, plain_len)?;
            let (block, rest) = rest.split_at_checked(wire_len).ok_or(StreamError::Blob)?;
            blocks.push(Block { compressed, wire: block.to_vec(), plain_len });
            left -= plain_len as u64;
            wire = rest;
        }
        if wire.is_empty() { Ok(Self { size, blocks }) } else { Err(StreamError::Blob) }
    }

    /// Its content, if it is what `digest` says.
    ///
    /// # Errors
    /// [`StreamError::Blob`] if it is not.
    pub fn unpack(self, digest: &Digest) -> Result<Vec<u8>, StreamError> {
        let mut blocks = self.blocks.into_iter();
        let mut bytes = blocks.next().map_or_else(|| Ok(Vec::new()), Block::unpack)?;
        for block in blocks {
            bytes.extend_from_slice(&block.unpack()?);
        }
        if Digest::of(&bytes) == *digest { Ok(bytes) } else { Err(StreamError::Blob) }
    }

    /// Its content, block by block, unchecked; a block that cannot be unpacked is an error of the reader's.
    #[must_use]
    pub fn reader(self) -> Unpacking {
        Unpacking { blocks: self.blocks.into_iter(), plain: std::io::Cursor::default() }
    }
}

/// Reads what a [`Packed`] holds.
#[derive(Debug)]
pub struct Unpacking {
    blocks: std::vec::IntoIter<Block>,
    plain: std::io::Cursor<Vec<u8>>,
}

impl std::io::Read for Unpacking {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let got = self.plain.read(into)?;
            if got > 0 || into.is_empty() {
                return Ok(got);
            }
            let Some(block) = self.blocks.next() else { return Ok(0) };
            let plain = block.unpack().map_err(|_| std::io::ErrorKind::InvalidData)?;
            self.plain = std::io::Cursor::new(plain);
        }
    }
}

/// Receives a blob of exactly `size` bytes as it is on the wire. What it holds in memory has come: nothing is made room for
/// because it was declared.
///
/// # Errors
/// If the stream broke, or the blocks cannot be those of so many bytes.
pub async fn recv_packed(stream: &mut RecvStream, size: u64) -> Result<Packed, StreamError> {
    if size > limits::BLOB_BYTES_MAX {
        return Err(StreamError::Blob);
    }
    let mut blocks = Vec::new();
    let mut left = size;
    while left > 0 {
        let plain_len = usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
        blocks.push(recv_block(stream, plain_len).await?);
        left -= plain_len as u64;
    }
    Ok(Packed { size, blocks })
}

async fn recv_block(stream: &mut RecvStream, plain_len: usize) -> Result<Block, StreamError> {
    let mut header = [0; BLOCK_HEADER_BYTES];
    read(stream, &mut header).await?;
    let (compressed, wire_len) = block_length(header, plain_len)?;
    let mut wire = vec![0; wire_len];
    read(stream, &mut wire).await?;
    Ok(Block { compressed, wire, plain_len })
}

/// Whether a block of so many bytes is compressed, and its length on the wire, bytes.
fn block_length(header: [u8; BLOCK_HEADER_BYTES], plain_len: usize) -> Result<(bool, usize), StreamError> {
    let header = u32::from_le_bytes(header);
    let wire_len = (header & !COMPRESSED) as usize;
    let compressed = header & COMPRESSED != 0;
    // A compressed block is smaller than its content, and not absurdly so; a plain one is its content.
    let grows = plain_len as u64 > wire_len as u64 * limits::COMPRESSION_RATIO_MAX;
    let wrong = if compressed { wire_len >= plain_len || grows } else { wire_len != plain_len };
    if wrong { Err(StreamError::Blob) } else { Ok((compressed, wire_len)) }
}

fn unpack(wire: &[u8], plain_len: usize) -> std::io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress(wire, plain_len)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    fn is_compressed(packed: &[u8]) -> bool {
        packed[3] & 0x80 != 0
    }

    #[test]
    fn text_shrinks_and_what_would_not_goes_plain() {
        let text = "int main(void) { return 0; }\n".repeat(100).into_bytes();
        // Repetition alone shrinks beyond the ratio that a receiver takes: mix some noise in.
        let text = [text, noise(500)].concat();
        let packed = pack(&text).expect("packs");
        assert!(is_compressed(&packed) && packed.len() < text.len() / 2);
        assert_eq!(unpack(&packed[4..], text.len()).expect("unpacks"), text);
        for plain in [noise(100_000), b"short".repeat(100), Vec::new(), vec![0; BLOCK_BYTES]] {
            let packed = pack(&plain).expect("packs");
            assert!(!is_compressed(&packed));
            assert_eq!(packed[4..], plain);
        }
    }

    #[test]
    fn what_was_packed_is_read_back_from_its_bytes_and_other_bytes_are_not() {
        let text = [b"int main(void) { return 0; }\n".repeat(20_000), noise(70_000)].concat();
        for blob in [text, noise(3), Vec::new()] {
            let mut wire = Vec::new();
            pack_blob(&blob, &mut wire).expect("packs");
            let (size, digest) = (blob.len() as u64, Digest::of(&blob));
            let packed = Packed::from_wire(&wire, size).expect("whole");
            assert_eq!(packed.wire(), wire);
            assert_eq!(packed.unpack(&digest).expect("unpacks"), blob);
            assert!(Packed::from_wire(&[&wire[..], b"x"].concat(), size).is_err());
            assert!(wire.is_empty() || Packed::from_wire(&wire[..wire.len() - 1], size).is_err());
            assert!(Packed::from_wire(&wire, size + 1).and_then(|packed| packed.unpack(&digest)).is_err());
        }
    }

    #[test]
    fn a_block_never_grows_beyond_what_is_expected_of_it() {
        let bomb = zstd::bulk::compress(&vec![0; 10 << 20], 1).expect("packs");
        assert!(unpack(&bomb, 1000).is_err());
    }
}
