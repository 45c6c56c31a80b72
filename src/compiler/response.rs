//! Response files: `@file` stands for the arguments that the file holds (DECIDE).

use crate::reason::Reason;
use mesh_proto::limits::{ARGV_BYTES_MAX, ARGV_ITEMS_MAX};

/// How deep response files may name each other.
pub const DEPTH_MAX: usize = 8;
/// How many response files one command may read.
pub const FILES_MAX: usize = 64;

/// Replaces every `@file` by what the file holds. `argv[0]` is left alone.
///
/// Where gcc and clang, or two versions of gcc, split a file differently (an empty argument, a backslash within quotes, a
/// byte order mark), it is refused rather than guessed.
///
/// # Errors
/// [`Reason::ResponseFile`] if a file cannot be read (the compilers then take the argument as it stands) or is ambiguous;
/// [`Reason::TooLarge`] past the limits.
pub fn expand(argv: &[Vec<u8>], read: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> Result<Vec<Vec<u8>>, Reason> {
    let mut expansion = Expansion { read, out: Vec::with_capacity(argv.len()), bytes: 0, files: 0 };
    for (at, arg) in argv.iter().enumerate() {
        match arg.strip_prefix(b"@") {
            Some(path) if at > 0 => expansion.file(path, 1)?,
            _ => expansion.push(arg.clone())?,
        }
    }
    Ok(expansion.out)
}

struct Expansion<'a> {
    read: &'a mut dyn FnMut(&[u8]) -> Option<Vec<u8>>,
    out: Vec<Vec<u8>>,
    bytes: usize,
    files: usize,
}

impl Expansion<'_> {
    fn push(&mut self, arg: Vec<u8>) -> Result<(), Reason> {
        self.bytes += arg.len() + 1;
        if self.out.len() >= ARGV_ITEMS_MAX || self.bytes > ARGV_BYTES_MAX {
            return Err(Reason::TooLarge);
        }
        self.out.push(arg);
        Ok(())
    }

    fn file(&mut self, path: &[u8], depth: usize) -> Result<(), Reason> {
        self.files += 1;
        if depth > DEPTH_MAX || self.files > FILES_MAX {
            return Err(Reason::TooLarge);
        }
        let text = (self.read)(path).ok_or(Reason::ResponseFile)?;
        for arg in split(&text)? {
            match arg.strip_prefix(b"@") {
                Some(path) => self.file(path, depth + 1)?,
                None => self.push(arg)?,
            }
        }
        Ok(())
    }
}

/// What a reader of a response file is within.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Space,
    Word,
    Quotes(u8),
}

/// Splits the text of a response file by GNU's rules: white space separates, quotes and a backslash keep what is special
/// as it is.
///
/// # Errors
/// [`Reason::ResponseFile`] if compilers disagree on what it means.
pub fn split(text: &[u8]) -> Result<Vec<Vec<u8>>, Reason> {
    let marked = [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"].iter().any(|mark| text.starts_with(mark));
    if marked || text.contains(&0) {
        return Err(Reason::ResponseFile);
    }
    let mut args = Vec::new();
    let mut word = Vec::new();
    let mut within = Within::Space;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        within = match (within, byte) {
            (Within::Quotes(quote), _) if byte == quote => Within::Word,
            (Within::Quotes(b'"'), b'\\') => match bytes.next() {
                Some(escaped @ (b'\\' | b'"')) => {
                    word.push(escaped);
                    within
                }
                _ => return Err(Reason::ResponseFile),
            },
            (Within::Quotes(_), b'\\') => return Err(Reason::ResponseFile),
            (Within::Quotes(_), _) => {
                word.push(byte);
                within
            }
            (_, b'\\') => match bytes.next() {
                Some(escaped) if escaped != b'\n' && escaped != b'\r' => {
                    word.push(escaped);
                    Within::Word
                }
                _ => return Err(Reason::ResponseFile),
            },
            (_, b'"' | b'\'') => Within::Quotes(byte),
            // White space to gcc, a part of a word to clang.
            (_, 0x0b | 0x0c) => return Err(Reason::ResponseFile),
            (Within::Space, _) if is_space(byte) => Within::Space,
            (Within::Word, _) if is_space(byte) => {
                finish(&mut args, &mut word)?;
                Within::Space
            }
            _ => {
                word.push(byte);
                Within::Word
            }
        };
    }
    match within {
        Within::Space => {}
        Within::Word => finish(&mut args, &mut word)?,
        Within::Quotes(_) => return Err(Reason::ResponseFile),
    }
    Ok(args)
}

/// Ends an argument. An empty one is kept by gcc and dropped by clang.
fn finish(args: &mut Vec<Vec<u8>>, word: &mut Vec<u8>) -> Result<(), Reason> {
    if word.is_empty() {
        return Err(Reason::ResponseFile);
    }
    args.push(std::mem::take(word));
    Ok(())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expect: &[&str]) {
        let expect: Vec<_> = expect.iter().map(|e| e.as_bytes().to_vec()).collect();
        assert_eq!(split(text.as_bytes()), Ok(expect), "{text}");
    }

    fn refused(text: &[u8]) {
        assert_eq!(split(text), Err(Reason::ResponseFile), "{}", String::from_utf8_lossy(text));
    }

    #[test]
    fn white_space_separates_and_quotes_hold_together() {
        check("", &[]);
        check(" \n\t ", &[]);
        check("-c a.c\n-o  a.o", &["-c", "a.c", "-o", "a.o"]);
        check("\"a b\" 'c d' e\\ f", &["a b", "c d", "e f"]);
        check("-D'A=\"x\"' -DB=\\\"y\\\" \"-DC=\\\"z\\\\\\\"\"", &["-DA=\"x\"", "-DB=\"y\"", "-DC=\"z\\\""]);
        check("a'b'\"c\"d", &["abcd"]);
    }

    #[test]
    fn what_compilers_split_differently_is_refused() {
        refused(b"''");
        refused(b"'a\\b'");
        refused(b"\"a\\n\"");
        refused(b"a\\");
        refused(b"'a");
        refused(b"\xef\xbb\xbf-c");
        refused(b"-c\0");
        refused(b"-c\x0c");
        refused(b"a\\\nb");
    }

    fn words(args: &[&str]) -> Vec<Vec<u8>> {
        args.iter().map(|a| a.as_bytes().to_vec()).collect()
    }

    #[test]
    fn files_may_name_files_up_to_a_depth() {
        let mut read = |path: &[u8]| match path {
            b"a" => Some(b"-c @b".to_vec()),
            b"b" => Some(b"x.c".to_vec()),
            b"loop" => Some(b"@loop".to_vec()),
            _ => None,
        };
        assert_eq!(expand(&words(&["@cc", "@a", "-O2"]), &mut read), Ok(words(&["@cc", "-c", "x.c", "-O2"])));
        assert_eq!(expand(&words(&["cc", "@absent"]), &mut read), Err(Reason::ResponseFile));
        assert_eq!(expand(&words(&["cc", "@loop"]), &mut read), Err(Reason::TooLarge));
    }

    proptest! {
        #[test]
        fn splitting_undoes_quoting(args in prop::collection::vec(prop::collection::vec(1u8.., 1..20), 0..10)) {
            let args: Vec<Vec<u8>> = args.into_iter().map(|a| a.into_iter().filter(|b| !b"\r\n".contains(b)).collect())
                .filter(|a: &Vec<u8>| !a.is_empty()).collect();
            let mut text = b" ".to_vec();
            for arg in &args {
                text.extend(arg.iter().flat_map(|b| [b'\\', *b]));
                text.push(b' ');
            }
            prop_assert_eq!(split(&text), Ok(args.clone()));
            let mut text = b"\n".to_vec();
            for arg in &args {
                text.push(b'"');
                for byte in arg {
                    if b"\"\\".contains(byte) {
                        text.push(b'\\');
                    }
                    text.push(*byte);
                }
                text.extend(b"\"\n");
            }
            prop_assert_eq!(split(&text), Ok(args));
        }

        #[test]
        fn any_bytes_are_split_or_refused(text in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(args) = split(&text) {
                prop_assert!(args.iter().map(Vec::len).sum::<usize>() <= text.len());
                prop_assert!(args.iter().all(|a| !a.is_empty()));
            }
        }
    }
}
