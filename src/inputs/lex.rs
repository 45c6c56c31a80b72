//! The smallest parts of C's text: splices, blanks, comments, words, quoted names (DECIDE).

use super::scan::Form;
use std::borrow::Cow;

pub(super) fn is_ident(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

pub(super) fn is_ident_start(byte: u8) -> bool {
    is_ident(byte) && !byte.is_ascii_digit()
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\x0b' | b'\x0c')
}

/// A text to be read at positions; past its end it has zero bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lexer<'t> {
    pub(super) text: &'t [u8],
}

impl<'t> Lexer<'t> {
    pub(super) fn peek(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    /// The position after a splice that begins at `at`: a backslash (or its trigraph), blanks, a newline.
    pub(super) fn splice(&self, at: usize) -> Option<usize> {
        let mut i = match self.peek(at) {
            b'\\' => at + 1,
            b'?' if self.text[at..].starts_with(b"??/") => at + 3,
            _ => return None,
        };
        while is_blank(self.peek(i)) {
            i += 1;
        }
        if self.peek(i) == b'\r' {
            i += 1;
        }
        if i < self.text.len() && self.text[i] == b'\n' {
            Some(i + 1)
        } else if i > at && self.peek(i - 1) == b'\r' {
            Some(i)
        } else {
            None
        }
    }

    /// Skips blanks, block comments and splices, but no newline.
    pub(super) fn space(&self, mut at: usize) -> usize {
        loop {
            match self.peek(at) {
                byte if is_blank(byte) => at += 1,
                b'/' => match self.comment(at) {
                    Some(end) => at = end,
                    None => return at,
                },
                b'\\' | b'?' => match self.splice(at) {
                    Some(end) => at = end,
                    None => return at,
                },
                _ => return at,
            }
        }
    }

    /// The end of a block comment that begins at `at`, which is a slash; splices between `/` and `*` count.
    pub(super) fn comment(&self, at: usize) -> Option<usize> {
        let mut star = at + 1;
        while let Some(next) = self.splice(star) {
            star = next;
        }
        if self.peek(star) != b'*' {
            return None;
        }
        let mut from = star + 1;
        loop {
            let Some(found) = memchr::memchr(b'*', &self.text[from.min(self.text.len())..]) else {
                return Some(self.text.len());
            };
            from += found + 1;
            let mut close = from;
            while let Some(next) = self.splice(close) {
                close = next;
            }
            if self.peek(close) == b'/' {
                return Some(close + 1);
            }
        }
    }

    /// The end of a string or character that begins at `quote`: after the closing quote, or at the newline.
    pub(super) fn literal_end(&self, quote: usize) -> usize {
        let close = self.text[quote];
        let mut at = quote + 1;
        while at < self.text.len() {
            match self.text[at] {
                byte if byte == close => return at + 1,
                b'\n' => return at,
                b'\\' => at = self.splice(at).unwrap_or(at + 2),
                _ => at += 1,
            }
        }
        self.text.len()
    }

    pub(super) fn word_start(&self, mut at: usize) -> usize {
        while at > 0 && is_ident(self.text[at - 1]) {
            at -= 1;
        }
        at
    }

    /// A word at `at` with splices taken out, and where it ends.
    pub(super) fn word(&self, at: usize) -> (Cow<'t, [u8]>, usize) {
        let first = self.word_end(at);
        let mut word = Cow::Borrowed(&self.text[at.min(first)..first]);
        let mut end = first;
        while !word.is_empty()
            && let Some(next) = self.splice(end)
            && is_ident(self.peek(next))
        {
            end = self.word_end(next);
            word.to_mut().extend_from_slice(&self.text[next..end]);
        }
        (word, end)
    }

    fn word_end(&self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        self.text.len().min(at) + rest.iter().position(|byte| !is_ident(*byte)).unwrap_or(rest.len())
    }

    /// A header's name in quotes or angle brackets at `at`, and where it ends. No escapes: a backslash is itself.
    pub(super) fn header(&self, at: usize) -> Option<(Form, Vec<u8>, usize)> {
        let (form, close) = match self.peek(at) {
            b'"' => (Form::Quoted, b'"'),
            b'<' => (Form::Angled, b'>'),
            _ => return None,
        };
        let mut name = Vec::new();
        let mut i = at + 1;
        while i < self.text.len() {
            match self.text[i] {
                byte if byte == close => return (!name.is_empty()).then_some((form, name, i + 1)),
                b'\n' => return None,
                byte => match self.splice(i) {
                    Some(next) => i = next,
                    None => {
                        name.push(byte);
                        i += 1;
                    }
                },
            }
        }
        None
    }

    pub(super) fn ends_line(&self, at: usize) -> bool {
        let at = self.space(at);
        at >= self.text.len()
            || matches!(self.text[at], b'\n' | b'\r')
            || (self.text[at] == b'/' && self.peek(at + 1) == b'/')
    }
}
