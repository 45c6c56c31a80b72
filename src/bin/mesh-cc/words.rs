//! Strings that end with a zero, put together without an allocator (DECIDE).

use core::ffi::CStr;

/// The longest path, its zero included, bytes.
pub(crate) const PATH_BYTES_MAX: usize = 4096;

/// A path that is being put together.
#[derive(Clone)]
pub(crate) struct Path {
    bytes: [u8; PATH_BYTES_MAX],
    used: usize,
}

impl Path {
    /// All these pieces, one after the other; `None` if it is too long, or a zero is in it.
    pub(crate) fn of(pieces: &[&[u8]]) -> Option<Self> {
        let mut path = Self { bytes: [0; PATH_BYTES_MAX], used: 0 };
        for piece in pieces {
            path.push(piece)?;
        }
        Some(path)
    }

    /// Adds a piece; `None` if there is no room for it and the zero, or a zero is in it.
    fn push(&mut self, piece: &[u8]) -> Option<()> {
        let end = self.used + piece.len();
        if end >= PATH_BYTES_MAX || piece.contains(&0) {
            return None;
        }
        self.bytes.get_mut(self.used..end)?.copy_from_slice(piece);
        self.used = end;
        Some(())
    }

    /// Adds what stands behind this directory: with a slash between them, or instead of it if it is absolute.
    pub(crate) fn join(mut self, piece: &[u8]) -> Option<Self> {
        if piece.first() == Some(&b'/') {
            return Self::of(&[piece]);
        }
        if self.used > 0 && self.bytes().last() != Some(&b'/') {
            self.push(b"/")?;
        }
        self.push(piece)?;
        Some(self)
    }

    /// Without the zero.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    /// With the zero.
    pub(crate) fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// A number in decimal digits.
pub(crate) fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return digits.get(at..).unwrap_or_default();
        }
    }
}
