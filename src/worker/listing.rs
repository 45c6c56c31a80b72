//! How a compiler is made to say what it read (DECIDE).
//!
//! A job in a mirror can see more than its closure, so its own list of what it read is held against the closure. Asking for
//! the list must not change a byte of what the job makes, and that decides how it is asked for: clang's variables make a
//! `-MMD` list system headers too, and gcc writes one list only. Where no way is left the job runs in a root that holds its
//! closure alone.

use crate::compiler::invocation::Family;
use mesh_proto::job::Job;

/// What the list is called, in a directory of the job's temporary files.
pub const LIST_NAME: &[u8] = b".mesh-read";

/// A list, bytes.
pub const LIST_BYTES_MAX: u64 = 16 << 20;

/// How to have the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing<'a> {
    /// The job asks for it itself: an output of this name, or the only one that ends in `.d`.
    Own(Option<&'a [u8]>),
    /// Ask gcc for one.
    Appended,
    /// Ask clang for one through its environment.
    Printed,
    /// Nothing but the named source is read.
    Nothing,
    /// There is no way.
    None,
}

/// Suffixes of sources that are preprocessed.
const PREPROCESSED: &[&[u8]] =
    &[b"c", b"cc", b"cp", b"cpp", b"cxx", b"c++", b"C", b"CPP", b"CC", b"CXX", b"C++", b"m", b"mm", b"M", b"S", b"sx"];
/// Suffixes of sources that are read as they are.
const PLAIN: &[&[u8]] = &[b"s", b"i", b"ii", b"mi", b"mii"];

/// Options whose next argument is no source.
const FOLLOWED: &[&[u8]] = &[
    b"-o",
    b"-I",
    b"-D",
    b"-U",
    b"-include",
    b"-imacros",
    b"-isystem",
    b"-iquote",
    b"-idirafter",
    b"-isysroot",
    b"-MF",
    b"-MT",
    b"-MQ",
    b"-x",
    b"-target",
    b"-arch",
    b"--param",
    b"-Xclang",
    b"-Xassembler",
    b"-Xpreprocessor",
    b"-Xlinker",
    b"-mllvm",
];

/// What the arguments say of lists and sources.
#[derive(Debug, Default)]
struct Said<'a> {
    /// `-MD`.
    all: bool,
    /// Another form that writes a list, or one that hides behind another option.
    other: bool,
    /// `-MF`.
    file: Option<&'a [u8]>,
    /// Sources that are preprocessed.
    sources: usize,
    /// Sources that are not.
    plain: usize,
    /// `-x`.
    language: Option<&'a [u8]>,
}

/// Decides how a job says what it read.
#[must_use]
pub fn listing(job: &Job, family: Family) -> Listing<'_> {
    let said = said(&job.argv);
    let is_printing = job.env.iter().any(|(name, _)| name.starts_with(b"CC_PRINT_"));
    if said.other || is_printing || said.sources + said.plain != 1 {
        return Listing::None;
    }
    let is_plain = match said.language {
        Some(b"assembler" | b"cpp-output" | b"c++-cpp-output") => true,
        Some(_) => false,
        None => said.plain == 1,
    };
    match (said.all, said.file, family) {
        (true, Some(b"-" | b"/dev/stdout"), _) => Listing::None,
        (true, Some(file), _) => Listing::Own(Some(file.rsplit(|byte| *byte == b'/').next().unwrap_or(file))),
        (true, None, _) => Listing::Own(None),
        // Without a list to be written, it is an error that is the compiler's to report.
        (false, Some(_), _) => Listing::None,
        (false, None, _) if is_plain => Listing::Nothing,
        (false, None, Family::Gcc) => Listing::Appended,
        (false, None, Family::Clang) => Listing::Printed,
    }
}

fn said(argv: &[Vec<u8>]) -> Said<'_> {
    let mut said = Said::default();
    let mut args = argv.iter().skip(1).map(Vec::as_slice);
    let mut options_end = false;
    while let Some(arg) = args.next() {
        match arg {
            _ if options_end || !arg.starts_with(b"-") || arg == b"-" => {
                let suffix = arg.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
                if PLAIN.contains(&suffix) {
                    said.plain += 1;
                } else {
                    // Of whatever suffix: with a language that was named it may be a source.
                    said.sources += usize::from(said.language.is_some() || PREPROCESSED.contains(&suffix));
                }
            }
            b"--" => options_end = true,
            b"-MD" | b"--write-dependencies" => said.all = true,
            b"-MF" => said.file = args.next(),
            b"-MP" => {}
            b"-MT" | b"-MQ" => drop(args.next()),
            [b'-', b'M', b'F', file @ ..] => said.file = Some(file),
            [b'-', b'M', b'T' | b'Q', ..] => {}
            [b'-', b'M', ..] => said.other = true,
            b"-x" => said.language = args.next(),
            [b'-', b'x', language @ ..] => said.language = Some(language),
            [b'-', b'W', b'p', b',', rest @ ..] => said.other |= rest.windows(2).any(|pair| pair == b"-M"),
            b"-Xpreprocessor" | b"-Xclang" => {
                said.other |= args.next().is_some_and(|next| {
                    [&b"-M"[..], b"-dep", b"-header-include", b"-sys-header"].iter().any(|it| next.starts_with(it))
                });
            }
            _ if arg.starts_with(b"--") && arg.windows(12).any(|part| part == b"dependencies") => said.other = true,
            _ if FOLLOWED.contains(&arg) => drop(args.next()),
            _ => {}
        }
    }
    said
}

/// The arguments that ask gcc for a list at `path`.
#[must_use]
pub fn appended(argv: &[Vec<u8>], path: &[u8]) -> Vec<Vec<u8>> {
    let mut argv = argv.to_vec();
    let end = argv.iter().position(|arg| arg == b"--").unwrap_or(argv.len());
    argv.splice(end..end, [b"-MD".to_vec(), b"-MF".to_vec(), path.to_vec()]);
    argv
}

/// The variables that ask clang for a list at `path`.
#[must_use]
pub fn printed(path: &[u8]) -> [(Vec<u8>, Vec<u8>); 2] {
    [(b"CC_PRINT_HEADERS".to_vec(), b"1".to_vec()), (b"CC_PRINT_HEADERS_FILE".to_vec(), path.to_vec())]
}

/// The paths that a list names, as written; `None` if it is no list.
#[must_use]
pub fn paths(listing: Listing<'_>, text: &[u8]) -> Option<Vec<Vec<u8>>> {
    match listing {
        Listing::Own(_) | Listing::Appended => crate::inputs::deps::parse(text).filter(|paths| !paths.is_empty()),
        Listing::Printed => {
            Some(text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
        }
        Listing::Nothing => Some(Vec::new()),
        Listing::None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::{digest::Digest, toolchain::Fingerprint};

    fn job(line: &str) -> Job {
        Job {
            toolchain: Fingerprint(Digest([0; 32])),
            argv: line.split(' ').map(|arg| arg.as_bytes().to_vec()).collect(),
            env: vec![],
            cwd: b"/w".to_vec(),
            output_dirs: vec![],
            umask: 0,
            merged_output: false,
            terminal: None,
            wall_ms_max: 1,
            strict: false,
        }
    }

    #[test]
    fn each_command_line_has_the_way_that_changes_nothing() {
        use Listing::{Appended, Nothing, Own, Printed};
        let none = Listing::None;
        for (line, gcc, clang) in [
            ("cc -c a.c", Appended, Printed),
            ("cc -c a.c -o b.o", Appended, Printed),
            ("cc -MD -c a.c", Own(None), Own(None)),
            ("cc -MD -MP -MT x -MF d/a.d -c a.cc", Own(Some(b"a.d")), Own(Some(b"a.d"))),
            ("cc -MD -MFx.d -MQx -c a.cc", Own(Some(b"x.d")), Own(Some(b"x.d"))),
            ("cc -MD -MF - -c a.c", none, none),
            ("cc -MF x.d -c a.c", none, none),
            ("cc -MMD -c a.c", none, none),
            ("cc -MD -MMD -c a.c", none, none),
            ("cc -M a.c", none, none),
            ("cc -Wp,-MMD,x.d -c a.c", none, none),
            ("cc -Wp,-DX -c a.c", Appended, Printed),
            ("cc -Xpreprocessor -MD -c a.c", none, none),
            ("cc -Xclang -dependency-file -Xclang x -c a.c", none, none),
            ("cc -Xclang -fx -c a.c", Appended, Printed),
            ("cc --user-dependencies -c a.c", none, none),
            ("cc -c a.s", Nothing, Nothing),
            ("cc -c a.ii -o a.o", Nothing, Nothing),
            ("cc -S a.c -o a.s", Appended, Printed),
            ("cc -c a.S", Appended, Printed),
            ("cc -x assembler -c a.c", Nothing, Nothing),
            ("cc -x c -c a.s", Appended, Printed),
            ("cc -xc++ -c a.inc", Appended, Printed),
            ("cc -c a.c b.c", none, none),
            ("cc -c", none, none),
            ("cc -include x.c -c a.c", Appended, Printed),
            ("cc -c -- a.c", Appended, Printed),
            ("cc -march=x -mmd -c a.c", Appended, Printed),
        ] {
            let job = job(line);
            assert_eq!((listing(&job, Family::Gcc), listing(&job, Family::Clang)), (gcc, clang), "{line}");
        }
        let mut asked = job("cc -c a.c");
        asked.env.extend(printed(b"x"));
        assert_eq!(listing(&asked, Family::Clang), Listing::None);
    }

    #[test]
    fn what_is_asked_for_comes_before_the_end_of_options() {
        let text = |line: &str| appended(&job(line).argv, b"/t/x").join(&b' ');
        assert_eq!(text("cc -c a.c"), b"cc -c a.c -MD -MF /t/x");
        assert_eq!(text("cc -c -- a.c"), b"cc -c -MD -MF /t/x -- a.c");
    }

    #[test]
    fn a_list_that_is_none_covers_nothing() {
        assert_eq!(paths(Listing::Appended, b"x"), None);
        assert_eq!(paths(Listing::Appended, b""), None);
        assert_eq!(paths(Listing::None, b"a: b"), None);
        assert_eq!(paths(Listing::Appended, b"a: b c\n"), Some(vec![b"b".to_vec(), b"c".to_vec()]));
        assert_eq!(paths(Listing::Printed, b"./a\n/b c\n"), Some(vec![b"./a".to_vec(), b"/b c".to_vec()]));
        assert_eq!(paths(Listing::Printed, b""), Some(vec![]));
    }
}
