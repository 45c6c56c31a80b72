//! How many compilers a build may start at once, and how its tool is told (DECIDE).
//!
//! | tool | told by |
//! | --- | --- |
//! | make, cargo, anything else | a jobserver: a pipe; a named one if every make on `PATH` is 4.4 or later |
//! | a make that is not GNU's, and whatever may run one | nothing: it takes the words for its own, and ends |
//! | ninja 1.13 and later | the named jobserver, where there is one |
//! | ninja before that | `-j N` |
//! | `cmake --build` | as the tool in its cache file: ninja by `CMAKE_BUILD_PARALLEL_LEVEL` |
//! | `meson compile` | `-j N`, for its ninja |
//! | xcodebuild | `-jobs N` |
//!
//! Where a person has said how many, nothing is added.

use super::dispatch::Parallelism;

/// Of a hundred units that other machines can run, so many more are started: while one travels, its slot would be idle.
const REMOTE_PERCENT: u64 = 110;
/// Tokens, at most: each is a process of the build's, and all of them fit into a pipe.
pub const TOKENS_MAX: u32 = 4096;

/// How much a person wants to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Only what there is room for on this machine counts.
    pub is_local: bool,
    /// Processes, at most.
    pub most: u32,
}

impl Wanted {
    /// What there is room for, wherever.
    pub const MESH: Self = Self { is_local: false, most: u32::MAX };
    /// What there is room for on this machine.
    pub const LOCAL: Self = Self { is_local: true, ..Self::MESH };
}

/// How many compilers should be started at once; 1 at least. What other machines may be given counts whether this machine
/// uses it now or not: else a build would shrink because it runs.
#[must_use]
pub fn total(now: Parallelism, wanted: Wanted) -> u32 {
    let remote = (u64::from(now.remote) * REMOTE_PERCENT).div_ceil(100);
    let mesh = u32::try_from(u64::from(now.local) + remote).unwrap_or(u32::MAX);
    let room = if wanted.is_local { now.local } else { mesh };
    room.min(wanted.most).clamp(1, TOKENS_MAX)
}

/// The first two numbers of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The first that stands in a program's answer to `--version`.
    #[must_use]
    pub fn read(answer: &str) -> Option<Self> {
        let line = answer.lines().next()?;
        line.split([' ', ',', '-']).find_map(|word| {
            let mut numbers = word.split('.');
            let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
            Some(Self(major, minor))
        })
    }
}

/// A make, by its answer to `--version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// GNU make.
    Gnu(Version),
    /// Another one, such as the BSDs': to `MAKEFLAGS` with a jobserver it says that an argument is illegal.
    Foreign,
    /// It gave no answer in time. Hardly any is not GNU's; it counts as an old one.
    Silent,
}

impl Make {
    /// The make that answered this.
    #[must_use]
    pub fn read(answer: &str) -> Self {
        let is_gnu = answer.starts_with("GNU Make ");
        Version::read(answer).filter(|_| is_gnu).map_or(Self::Foreign, Self::Gnu)
    }

    fn knows_fifo(self) -> bool {
        matches!(self, Self::Gnu(version) if version >= MAKE_FIFO)
    }
}

/// The first make that is a client of named pipes.
const MAKE_FIFO: Version = Version(4, 4);
/// The first ninja that is a client of a jobserver, of named pipes alone.
const NINJA_CLIENT: Version = Version(1, 13);

/// A build tool, as a command names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// GNU make, or another one.
    Make,
    /// ninja, or samurai under its name.
    Ninja,
    /// `cmake`, to write a build's files.
    CmakeConfigure,
    /// `cmake --build`.
    CmakeBuild,
    /// `meson compile`.
    MesonCompile,
    /// cargo.
    Cargo,
    /// xcodebuild.
    Xcodebuild,
    /// Anything else: a script, perhaps, that runs one of them.
    Other,
}

impl Tool {
    /// The tool that a command runs: the words after the program's name tell the uses of one program apart.
    #[must_use]
    pub fn of(words: &[&[u8]]) -> Self {
        let name = words.first().map_or(&b""[..], |word| word.rsplit(|b| *b == b'/').next().unwrap_or(word));
        let says = |what: &[u8]| words.iter().skip(1).any(|word| *word == what);
        match name {
            b"make" | b"gmake" | b"gnumake" | b"bmake" | b"pmake" => Self::Make,
            b"ninja" | b"ninja-build" | b"samu" => Self::Ninja,
            b"cmake" | b"cmake3" if says(b"--build") => Self::CmakeBuild,
            b"cmake" | b"cmake3" => Self::CmakeConfigure,
            b"meson" if words.get(1) == Some(&&b"compile"[..]) => Self::MesonCompile,
            b"cargo" => Self::Cargo,
            b"xcodebuild" => Self::Xcodebuild,
            _ => Self::Other,
        }
    }

    /// Whether a person has said in the command how many to start at once.
    #[must_use]
    pub fn is_told(self, words: &[&[u8]]) -> bool {
        let own = words.get(1..).unwrap_or_default().iter().take_while(|word| **word != b"--");
        let mut own = own.copied();
        match self {
            Self::Xcodebuild => own.any(|word| word == b"-jobs"),
            Self::CmakeConfigure | Self::Other => false,
            Self::Cargo => own.any(|word| short_jobs(word, b"") || long_jobs(word, &[b"--jobs"])),
            Self::Make => own.any(|word| short_jobs(word, MAKE_LETTERS) || long_jobs(word, &[b"--jobs"])),
            Self::Ninja | Self::MesonCompile => {
                own.any(|word| short_jobs(word, b"nvd") || long_jobs(word, &[b"--jobs"]))
            }
            Self::CmakeBuild => {
                // What stands after the `--` goes to the tool itself.
                let rest = || words.iter().skip(1);
                rest().any(|word| short_jobs(word, b"") || long_jobs(word, &[b"--parallel", b"--jobs"]))
            }
        }
    }
}

/// The flags of make that take no value, and so may stand in one word before another.
const MAKE_LETTERS: &[u8] = b"BbdeikLmnpqRrSstvw";

/// `-j`, `-j8`, or in one word with `before` flags that take no value: `-kj8`.
fn short_jobs(word: &[u8], before: &[u8]) -> bool {
    let Some(flags) = word.strip_prefix(b"-").filter(|flags| !flags.starts_with(b"-")) else { return false };
    let Some(at) = flags.iter().position(|flag| *flag == b'j') else { return false };
    flags[..at].iter().all(|flag| before.contains(flag)) && flags[at + 1..].iter().all(u8::is_ascii_digit)
}

fn long_jobs(word: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|name| word.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"=")))
}

/// Whether `MAKEFLAGS` says already how many to start: a number, or the jobserver of a make around this one.
#[must_use]
pub fn flags_tell(makeflags: &[u8]) -> bool {
    // In the first word, single letters may stand without a dash.
    let first = makeflags.split(|b| *b == b' ').next().filter(|word| !word.starts_with(b"-") && !word.contains(&b'='));
    let first = first.is_some_and(|letters| short_jobs(&[b"-", letters].concat(), MAKE_LETTERS));
    let tells = |word: &[u8]| {
        word.starts_with(b"--jobserver") || short_jobs(word, MAKE_LETTERS) || long_jobs(word, &[b"--jobs"])
    };
    first || makeflags.split(|b| *b == b' ').any(tells)
}

/// What is known of the tools that a build may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Each make on `PATH`.
    pub makes: Vec<Make>,
    /// The make that the build runs, if that is known.
    pub own: Option<Make>,
    /// The ninja that the build uses.
    pub ninja: Option<Version>,
    /// The tool of a configured build tree is ninja.
    pub tree_is_ninja: bool,
    /// `MAKEFLAGS` tells already.
    pub flags_tell: bool,
}

/// How a build is told how many to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is not: it was told by somebody else, or starts one at a time.
    Not,
    /// By a jobserver in a pipe.
    Pipe,
    /// By a jobserver in a named pipe.
    Fifo,
    /// By words with a number, put in at this place of the command: the number is joined to the word (`-j8`), or is one of its own.
    Words {
        /// The word.
        flag: &'static str,
        /// Whether the number is the next word.
        apart: bool,
        /// Before which word of the command.
        at: usize,
    },
    /// By `CMAKE_BUILD_PARALLEL_LEVEL`.
    Level,
}

/// How to tell a build.
#[must_use]
pub fn told(tool: Tool, words: &[&[u8]], found: &Found) -> Told {
    if tool.is_told(words) || tool == Tool::CmakeConfigure {
        return Told::Not;
    }
    let may_be_foreign = found.makes.contains(&Make::Foreign);
    let is_foreign = found.own.map_or(may_be_foreign, |own| own == Make::Foreign);
    let mut clients = found.makes.iter().chain(&found.own).filter(|make| **make != Make::Foreign).peekable();
    let has_make = clients.peek().is_some();
    let no_old_make = clients.all(|make| make.knows_fifo());
    let ninja_is_client = found.ninja.is_some_and(|ninja| ninja >= NINJA_CLIENT) && no_old_make && !may_be_foreign;
    match tool {
        Tool::Ninja | Tool::MesonCompile if ninja_is_client && !found.flags_tell => Told::Fifo,
        Tool::CmakeBuild if found.tree_is_ninja && ninja_is_client && !found.flags_tell => Told::Fifo,
        Tool::Ninja => Told::Words { flag: "-j", apart: false, at: 1 },
        Tool::MesonCompile => Told::Words { flag: "-j", apart: true, at: 2 },
        Tool::Xcodebuild => Told::Words { flag: "-jobs", apart: true, at: 1 },
        Tool::CmakeBuild if found.tree_is_ninja => Told::Level,
        _ if found.flags_tell || is_foreign => Told::Not,
        _ if has_make && no_old_make => Told::Fifo,
        _ => Told::Pipe,
    }
}

#[cfg(test)]
mod tests;
