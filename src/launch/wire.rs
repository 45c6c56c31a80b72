//! A launcher's request and the answers to it, byte for byte as on the agent's socket (AGREE, on one machine).
//!
//! The agent's side of the same frames is `agent::wire` with postcard, which needs what a freestanding program does not
//! have. The tests below hold the two together: equal bytes for any request, equal meaning for any answer.

use crate::reason::Reason;

/// Bytes of a frame's length prefix, little-endian.
pub const HEADER_BYTES: usize = 4;
/// One frame from a launcher, bytes: an argument vector and environment fit many times over.
pub const ASK_BYTES_MAX: usize = 16 << 20;
/// One frame from the agent, bytes: all that a compiler may print fits.
pub const TELL_BYTES_MAX: usize = 80 << 20;

/// The place of `agent::wire::Ask::Compile` among the questions.
const COMPILE: u64 = 0;
/// The place of `agent::wire::Tell::Local` among the answers.
const LOCAL: usize = 0;
/// The place of `agent::wire::Tell::Done`.
const DONE: usize = 1;

/// The most bytes of a number: seven bits in each.
const NUMBER_BYTES_MAX: usize = 10;

/// A request to compile, borrowed. See `agent::wire::Request` for its fields.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a, A> {
    /// The compiler.
    pub program: &'a [u8],
    /// The arguments, `argv[0]` first.
    pub argv: &'a [A],
    /// The working directory.
    pub cwd: &'a [u8],
    /// The variables that travel, sorted.
    pub env: &'a [(&'a [u8], &'a [u8])],
    /// The file creation mask.
    pub umask: u32,
    /// Standard output and standard error are one file.
    pub merged_output: bool,
    /// Columns and rows of the terminal that standard error is.
    pub terminal: Option<(u16, u16)>,
    /// Device and inode of root directory, working directory and compiler.
    pub seen: [(u64, u64); 3],
    /// `MESH=force`.
    pub force: bool,
    /// `MESH_PREFER`.
    pub prefer: Option<&'a str>,
    /// `MESH_SESSION`; 0 for none.
    pub session: u64,
    /// What becomes of its result: the place of that among `env::Keeping`.
    pub keeping: u8,
}

/// A buffer that is filled from the front; what does not fit leaves it marked as too small.
struct Writer<'a> {
    buffer: &'a mut [u8],
    used: usize,
    fits: bool,
}

impl Writer<'_> {
    fn raw(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.used..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.used += bytes.len();
            }
            None => self.fits = false,
        }
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.raw(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.raw(&[value as u8]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }
}

impl<A: AsRef<[u8]>> Request<'_, A> {
    /// Writes the frame that asks for this compile, and says how long it is; `None` if the buffer is too small for it.
    #[must_use]
    pub fn write(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut out = Writer { buffer, used: HEADER_BYTES, fits: true };
        out.number(COMPILE);
        out.bytes(self.program);
        out.number(self.argv.len() as u64);
        for argument in self.argv {
            out.bytes(argument.as_ref());
        }
        out.bytes(self.cwd);
        out.number(self.env.len() as u64);
        for (name, value) in self.env {
            out.bytes(name);
            out.bytes(value);
        }
        out.number(self.umask.into());
        out.raw(&[self.merged_output.into(), self.terminal.is_some().into()]);
        if let Some((columns, rows)) = self.terminal {
            out.number(columns.into());
            out.number(rows.into());
        }
        for (device, inode) in self.seen {
            out.number(device);
            out.number(inode);
        }
        out.raw(&[self.force.into(), self.prefer.is_some().into()]);
        if let Some(name) = self.prefer {
            out.bytes(name.as_bytes());
        }
        out.number(self.session);
        out.number(self.keeping.into());
        let (used, fits) = (out.used, out.fits);
        let payload = used - HEADER_BYTES;
        let header = u32::try_from(payload).ok().filter(|_| fits && payload <= ASK_BYTES_MAX)?.to_le_bytes();
        buffer.first_chunk_mut::<HEADER_BYTES>()?.copy_from_slice(&header);
        Some(used)
    }
}

/// The length of the payload that a header announces; `None` if it passes the limit.
#[must_use]
pub fn payload_len(header: [u8; HEADER_BYTES]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(header)).ok().filter(|bytes| *bytes <= TELL_BYTES_MAX)
}

/// An answer, borrowed from its bytes. See `agent::wire::Tell`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell<'a> {
    /// Compile it here.
    Local {
        /// Why.
        reason: Reason,
        /// Whether it is a fallback.
        fallback: bool,
    },
    /// It was compiled.
    Done(Done<'a>),
}

/// What a compile printed, and its files. Checked: both lists are whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done<'a> {
    texts: usize,
    from: Reader<'a>,
}

/// Reads from the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<usize> {
        let mut value = 0u64;
        for at in 0..NUMBER_BYTES_MAX {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << (7 * at);
            if shifted >> (7 * at) != bits {
                return None;
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                return usize::try_from(value).ok();
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<(bool, &'a [u8])> {
        Some((self.flag()?, self.bytes()?))
    }

    fn rename(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        Some((self.bytes()?, self.bytes()?))
    }
}

impl<'a> Tell<'a> {
    /// What a whole payload says; `None` if it is not exactly one answer to a compile.
    #[must_use]
    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let mut bytes = Reader(payload);
        let tell = match bytes.number()? {
            LOCAL => Self::Local { reason: *Reason::ALL.get(bytes.number()?)?, fallback: bytes.flag()? },
            DONE => {
                let texts = bytes.number()?;
                let done = Done { texts, from: bytes };
                for _ in 0..texts {
                    bytes.text()?;
                }
                for _ in 0..bytes.number()? {
                    bytes.rename()?;
                }
                Self::Done(done)
            }
            _ => return None,
        };
        bytes.0.is_empty().then_some(tell)
    }
}

impl<'a> Done<'a> {
    /// Pieces of what was printed, and whether each is for standard error.
    pub fn texts(self) -> impl Iterator<Item = (bool, &'a [u8])> {
        let mut bytes = self.from;
        (0..self.texts).map_while(move |_| bytes.text())
    }

    /// Files to rename: from, to.
    pub fn renames(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut bytes = self.from;
        let mut count = None;
        for _ in 0..self.texts {
            bytes.text();
        }
        core::iter::from_fn(move || {
            let left = match count {
                None => bytes.number()?,
                Some(left) => left,
            };
            count = Some(left.checked_sub(1)?);
            bytes.rename()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::wire::{self, Ask},
        env::Keeping,
    };
    use mesh_proto::{
        frame,
        job::{Terminal, Text},
    };
    use proptest::prelude::*;

    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![proptest::collection::vec(any::<u8>(), 0..8), proptest::collection::vec(any::<u8>(), 120..300)]
    }

    fn any_pairs() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
        proptest::collection::vec((any_bytes(), any_bytes()), 0..5)
    }

    fn any_request() -> impl Strategy<Value = wire::Request> {
        let words = (any_bytes(), proptest::collection::vec(any_bytes(), 0..200), any_bytes(), any_pairs());
        let rest = (any::<u32>(), any::<bool>(), any::<Option<(u16, u16)>>(), any::<[(u64, u64); 3]>());
        let keeping = prop_oneof![
            Just(Keeping::Settings),
            Just(Keeping::Read),
            Just(Keeping::Off),
            Just(Keeping::Ccache),
            Just(Keeping::Elsewhere)
        ];
        let tail = (any::<bool>(), any::<Option<String>>(), any::<u64>(), keeping);
        (words, rest, tail).prop_map(|(words, rest, (force, prefer, session, keeping))| wire::Request {
            program: words.0,
            argv: words.1,
            cwd: words.2,
            env: words.3,
            umask: rest.0,
            merged_output: rest.1,
            terminal: rest.2.map(|(columns, rows)| Terminal { columns, rows }),
            seen: rest.3,
            force,
            prefer,
            session,
            keeping,
        })
    }

    fn written(request: &wire::Request, buffer: &mut [u8]) -> Option<usize> {
        let env: Vec<(&[u8], &[u8])> = request.env.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        let plain = Request {
            program: &request.program,
            argv: &request.argv,
            cwd: &request.cwd,
            env: &env,
            umask: request.umask,
            merged_output: request.merged_output,
            terminal: request.terminal.map(|t| (t.columns, t.rows)),
            seen: request.seen,
            force: request.force,
            prefer: request.prefer.as_deref(),
            session: request.session,
            keeping: request.keeping as u8,
        };
        plain.write(buffer)
    }

    fn any_tell() -> impl Strategy<Value = wire::Tell> {
        let text = (any::<bool>(), any_bytes()).prop_map(|(is_stderr, bytes)| Text { is_stderr, bytes });
        let texts = proptest::collection::vec(text, 0..4);
        prop_oneof![
            (0..Reason::ALL.len(), any::<bool>())
                .prop_map(|(at, fallback)| wire::Tell::Local { reason: Reason::ALL[at], fallback }),
            (texts, any_pairs()).prop_map(|(text, renames)| wire::Tell::Done { text, renames }),
        ]
    }

    fn owned(tell: Tell<'_>) -> wire::Tell {
        match tell {
            Tell::Local { reason, fallback } => wire::Tell::Local { reason, fallback },
            Tell::Done(done) => wire::Tell::Done {
                text: done.texts().map(|(is_stderr, b)| Text { is_stderr, bytes: b.to_vec() }).collect(),
                renames: done.renames().map(|(from, to)| (from.to_vec(), to.to_vec())).collect(),
            },
        }
    }

    proptest! {
        #[test]
        fn a_request_is_the_bytes_that_the_agent_reads(request in any_request()) {
            let mut buffer = vec![0; 1 << 20];
            let used = written(&request, &mut buffer).expect("it fits");
            let expected = frame::encode(&Ask::Compile(Box::new(request.clone())), ASK_BYTES_MAX).expect("it fits");
            prop_assert_eq!(&buffer[..used], &expected[..]);
            // One byte less, and nothing is sent that is not whole.
            prop_assert_eq!(written(&request, &mut vec![0; used - 1]), None);
        }

        #[test]
        fn an_answer_reads_as_the_agent_meant_it(tell in any_tell()) {
            let bytes = frame::encode(&tell, TELL_BYTES_MAX).expect("it fits");
            let header = *bytes.first_chunk::<HEADER_BYTES>().expect("a header");
            prop_assert_eq!(payload_len(header), Some(bytes.len() - HEADER_BYTES));
            let payload = &bytes[HEADER_BYTES..];
            prop_assert_eq!(owned(Tell::read(payload).expect("an answer")), tell);
            // A part of it, or more than it, is none.
            prop_assert_eq!(Tell::read(&payload[..payload.len() - 1]), None);
            let longer = [payload, &[0]].concat();
            prop_assert_eq!(Tell::read(&longer), None);
        }

        #[test]
        fn any_bytes_have_an_answer_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(Tell::Done(done)) = Tell::read(&bytes) {
                prop_assert!(done.texts().count() + done.renames().count() <= bytes.len());
            }
        }
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        for tell in [wire::Tell::Note("x".into()), wire::Tell::Failed { code: 1, text: "x".into() }] {
            let bytes = frame::encode(&tell, TELL_BYTES_MAX).expect("it fits");
            assert_eq!(Tell::read(&bytes[HEADER_BYTES..]), None);
        }
        assert_eq!(payload_len([0xff; HEADER_BYTES]), None);
    }
}
