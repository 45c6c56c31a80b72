//! Length-prefixed frames: how messages lie on a stream (AGREE).
//!
//! Four bytes of length, little-endian, then that many bytes of postcard. The length is checked against the caller's
//! limit before anything is allocated, and a payload must be used up by its message: bytes left over are an error,
//! because postcard alone would ignore them.

use serde::{Serialize, de::DeserializeOwned};

/// Bytes of the length prefix.
pub const HEADER_BYTES: usize = 4;

/// Why bytes are not a frame, or a value cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame says to be, or would be, longer than its limit.
    #[error("a frame of {bytes} bytes passes the limit of {max}")]
    TooLong {
        /// What it says.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// The payload is not exactly one message of the expected type.
    #[error("a frame holds something else than one message of the expected kind")]
    Malformed,
}

/// What a buffer begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// Not yet a whole frame.
    Incomplete,
    /// A frame.
    Frame {
        /// Its message.
        message: T,
        /// Bytes that it took, header included.
        used: usize,
    },
}

/// Appends `message` to `buffer` as one frame.
///
/// # Errors
/// If it would be longer than `bytes_max`; the buffer is then as before.
pub fn write<T: Serialize>(message: &T, bytes_max: usize, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = buffer.len();
    let payload = postcard::to_stdvec(message).map_err(|_| FrameError::Malformed)?;
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    buffer.extend_from_slice(&payload);
    let bytes = buffer.len() - start - HEADER_BYTES;
    if bytes > bytes_max {
        buffer.truncate(start);
        return Err(FrameError::TooLong { bytes, max: bytes_max });
    }
    let header = u32::try_from(bytes).map_err(|_| FrameError::TooLong { bytes, max: bytes_max })?.to_le_bytes();
    buffer[start..start + HEADER_BYTES].copy_from_slice(&header);
    Ok(())
}

/// `message` as one frame.
///
/// # Errors
/// As for [`write`].
pub fn encode<T: Serialize>(message: &T, bytes_max: usize) -> Result<Vec<u8>, FrameError> {
    let mut buffer = Vec::new();
    write(message, bytes_max, &mut buffer)?;
    Ok(buffer)
}

/// The length that a header announces.
///
/// # Errors
/// If it passes `bytes_max`.
pub fn length(header: [u8; HEADER_BYTES], bytes_max: usize) -> Result<usize, FrameError> {
    let bytes = u32::from_le_bytes(header) as usize;
    if bytes > bytes_max { Err(FrameError::TooLong { bytes, max: bytes_max }) } else { Ok(bytes) }
}

/// The message that a whole payload is.
///
/// # Errors
/// If it is not exactly one message.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Malformed),
    }
}

/// Reads a frame from the beginning of `buffer`.
///
/// # Errors
/// If what is there can never become a frame within `bytes_max`.
pub fn parse<T: DeserializeOwned>(buffer: &[u8], bytes_max: usize) -> Result<Parsed<T>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(Parsed::Incomplete) };
    let bytes = length(*header, bytes_max)?;
    match buffer.get(HEADER_BYTES..HEADER_BYTES + bytes) {
        None => Ok(Parsed::Incomplete),
        Some(payload) => Ok(Parsed::Frame { message: decode(payload)?, used: HEADER_BYTES + bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_and_a_part_of_one_is_incomplete() {
        let bytes = encode(&(7u32, "words".to_owned()), 100).expect("fits");
        for cut in 0..bytes.len() {
            assert_eq!(parse::<(u32, String)>(&bytes[..cut], 100), Ok(Parsed::Incomplete));
        }
        assert_eq!(parse(&bytes, 100), Ok(Parsed::Frame { message: (7u32, "words".to_owned()), used: bytes.len() }));
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_are_there() {
        assert_eq!(parse::<u8>(&[0xff; 4], 10), Err(FrameError::TooLong { bytes: u32::MAX as usize, max: 10 }));
        let mut kept = b"before".to_vec();
        assert!(write(&vec![0u8; 11], 10, &mut kept).is_err());
        assert_eq!(kept, b"before");
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        assert_eq!(decode::<u8>(&[1, 2]), Err(FrameError::Malformed));
    }
}
