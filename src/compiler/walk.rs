//! One pass over the arguments of a compiler, by the rows of the table (DECIDE).

use super::args::{Chain, Effect, Match, Mode, lookup};
use super::invocation::{Family, Invocation};
use super::plan::Search;
use crate::reason::Reason;

/// A source as the command line names it, and the `-x` that was in force there.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub path: &'a [u8],
    pub language: Option<&'a [u8]>,
}

/// All that the arguments say, in their order, before anything is concluded from several of them.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    /// The first reason met why the unit stays here.
    pub kept_here: Option<Reason>,
    pub mode: Option<Mode>,
    pub bitcode: bool,
    pub output: Option<&'a [u8]>,
    pub sources: Vec<Source<'a>>,
    pub deps_all: bool,
    pub deps_user: bool,
    pub deps_file: Option<&'a [u8]>,
    /// Dependency lists that `-Wp,` asks for: whether it is `-MMD`, and the file.
    pub deps_passed: Vec<(bool, &'a [u8])>,
    pub search: Search,
    pub forced: Vec<Vec<u8>>,
    pub defines: Vec<(Vec<u8>, Vec<u8>)>,
    pub inputs: Vec<Vec<u8>>,
    pub side_outputs: Vec<Vec<u8>>,
    /// Extensions of the files that are made beside the object.
    pub beside: Vec<&'static str>,
    pub suspects: Vec<Vec<u8>>,
    /// Options of the kind `-march=`: index, name with its `=`, whether the value is `native`.
    pub machine: Vec<(usize, &'a [u8], bool)>,
    /// Options that record other options in the object, or print them into the assembler text.
    pub records_options: bool,
    pub arch: Option<&'a [u8]>,
    pub preprocessor: Vec<&'a [u8]>,
    pub assembler: Vec<&'a [u8]>,
    pub frontend: Vec<&'a [u8]>,
}

impl<'a> Facts<'a> {
    /// Keeps the unit here, for the first reason given.
    pub(super) fn keep(&mut self, reason: Reason) {
        self.kept_here.get_or_insert(reason);
    }

    /// Walks all arguments.
    pub(super) fn of(inv: &'a Invocation) -> Self {
        let mut facts = Self::default();
        let mut language = None;
        let mut records = Records::default();
        let args = &inv.argv;
        let mut at = 1;
        while at < args.len() {
            let arg = args[at].as_slice();
            let index = at;
            at += 1;
            if arg == b"--" {
                // gcc has no such end of options and calls it an error.
                if inv.family == Family::Gcc {
                    facts.keep(Reason::UnknownOption);
                }
                facts.sources.extend(args[at..].iter().map(|path| Source { path, language }));
                break;
            }
            if arg.len() < 2 || arg[0] != b'-' {
                facts.positional(arg, language);
                continue;
            }
            records.see(arg, inv.family);
            let Some(found) = lookup(arg, inv.family) else {
                facts.unknown(arg);
                continue;
            };
            if args.len() - at < found.follow {
                facts.keep(Reason::NotCompile);
                break;
            }
            let value = if found.follow == 0 { found.joined } else { args[at].as_slice() };
            at += found.follow;
            facts.option(inv, index, &found, value, &mut language);
            if matches!(found.row.effect, Effect::Probe | Effect::Machine | Effect::By(_)) {
                facts.remember_probe(&args[index..at], &found, value);
            }
        }
        facts.records_options = records.options_are_recorded();
        facts
    }

    fn positional(&mut self, arg: &'a [u8], language: Option<&'a [u8]>) {
        if arg == b"-" {
            self.keep(Reason::Stdin);
        } else if arg.first() == Some(&b'@') {
            self.keep(Reason::ResponseFile);
        }
        self.sources.push(Source { path: arg, language });
    }

    fn option(
        &mut self,
        inv: &Invocation,
        index: usize,
        found: &Match<'a>,
        value: &'a [u8],
        language: &mut Option<&'a [u8]>,
    ) {
        let effect = match found.row.effect {
            Effect::By(decide) => decide(value),
            effect => effect,
        };
        match effect {
            Effect::Plain | Effect::By(_) | Effect::Probe => {}
            Effect::Suspect => self.suspect(value),
            Effect::Local(reason) => self.keep(reason),
            Effect::Mode(Mode::Assembly) => self.mode = Some(Mode::Assembly),
            Effect::Mode(Mode::Object) => {
                self.mode.get_or_insert(Mode::Object);
            }
            Effect::Bitcode => self.bitcode = true,
            Effect::Output => {
                if self.output.replace(value).is_some() && inv.family == Family::Gcc {
                    self.keep(Reason::SpecialOutput);
                }
            }
            Effect::Language => {
                // After `-x none` g++ takes C for C again, as it does not without.
                if value == b"none" && inv.cxx_driver {
                    self.keep(Reason::Language);
                }
                *language = (value != b"none").then_some(value);
            }
            Effect::Include(chain) => self.include(chain, value),
            Effect::Forced => self.forced.push(value.to_vec()),
            Effect::Define => self.define(value),
            Effect::Undefine => self.undefine(value),
            Effect::DepsAll => self.deps_all = true,
            Effect::DepsUser => self.deps_user = true,
            Effect::DepsFile => self.deps_file = Some(value),
            Effect::Input => self.inputs.push(value.to_vec()),
            Effect::SideOutput => self.side_outputs.push(value.to_vec()),
            Effect::Beside(extension) => self.beside.push(extension),
            Effect::Machine | Effect::Tune => {
                self.machine.push((index, found.row.name.as_bytes(), value.starts_with(b"native")));
            }
            Effect::Arch => {
                if self.arch.replace(value).is_some_and(|before| before != value) {
                    self.keep(Reason::MultiSource);
                }
            }
            Effect::Preprocessor => self.preprocessor.extend(value.split(|b| *b == b',')),
            Effect::PreprocessorOne => self.preprocessor.push(value),
            Effect::Assembler => self.assembler.extend(value.split(|b| *b == b',')),
            Effect::AssemblerOne => self.assembler.push(value),
            Effect::Frontend => self.frontend.push(value),
            Effect::Llvm => self.suspects_of(value),
        }
    }

    /// Keeps an argument that decides the compiler's own include directories, as it was typed.
    fn remember_probe(&mut self, typed: &[Vec<u8>], found: &Match<'_>, value: &[u8]) {
        let decides = match found.row.effect {
            Effect::By(decide) => matches!(decide(value), Effect::Probe),
            _ => true,
        };
        if decides {
            self.search.probe.extend_from_slice(typed);
        }
    }

    fn include(&mut self, chain: Chain, dir: &[u8]) {
        // Relative to the compiler's system root, which only the compiler knows.
        if dir.first() == Some(&b'=') || dir.starts_with(b"$SYSROOT") {
            return self.keep(Reason::UnknownOption);
        }
        let list = match chain {
            Chain::Quote => &mut self.search.quote,
            Chain::User => &mut self.search.user,
            Chain::System => &mut self.search.system,
            Chain::After => &mut self.search.after,
        };
        list.push(dir.to_vec());
    }

    /// `-D NAME`, `-D NAME=BODY`, `-D NAME(PARAMETERS)=BODY`.
    pub(super) fn define(&mut self, value: &[u8]) {
        let macro_ = match value.iter().position(|b| *b == b'=') {
            Some(at) => (value[..at].to_vec(), value[at + 1..].to_vec()),
            None => (value.to_vec(), b"1".to_vec()),
        };
        self.defines.push(macro_);
    }

    /// `-U NAME`.
    pub(super) fn undefine(&mut self, name: &[u8]) {
        let bare = |n: &[u8]| n.split(|b| *b == b'(').next().is_some_and(|n| n == name);
        self.defines.retain(|(defined, _)| !bare(defined));
    }

    /// An option that the table does not hold. Its arity is not known: a value in an argument of its own is counted as a
    /// second source, which keeps the unit here.
    pub(super) fn unknown(&mut self, arg: &[u8]) {
        // gcc reads `--plugin=x` as `-fplugin=x`; every spelling that is harmless is in the table.
        if arg.starts_with(b"--") {
            return self.keep(Reason::UnknownOption);
        }
        self.suspects_of(arg);
    }

    /// Takes from an option's text whatever may name a file: what follows a `=`, or a path joined to the option.
    pub(super) fn suspects_of(&mut self, arg: &[u8]) {
        if let Some(at) = arg.iter().position(|b| *b == b'=') {
            return self.suspect(&arg[at + 1..]);
        }
        let text = arg.strip_prefix(b"-").unwrap_or(arg);
        if !text.iter().any(|b| matches!(b, b'/' | b'.')) {
            return;
        }
        self.suspect(text);
        self.suspect(text.get(1..).unwrap_or_default());
        if let Some(slash) = text.iter().position(|b| *b == b'/').filter(|s| *s > 1) {
            self.suspect(&text[slash..]);
        }
    }

    /// Adds a value that may name a file, and the parts of a list of them.
    pub(super) fn suspect(&mut self, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        self.suspects.push(value.to_vec());
        if value.iter().any(|b| LIST_MARKS.contains(b)) {
            let parts = value.split(|b| LIST_MARKS.contains(b)).filter(|p| !p.is_empty());
            self.suspects.extend(parts.map(<[u8]>::to_vec));
        }
    }
}

/// What stands between the elements of a list, or between a key and its value.
const LIST_MARKS: &[u8] = b",:;=";

/// Whether the options themselves end up in what the compiler writes, so that expanding one of them changes it.
#[derive(Debug, Default)]
struct Records {
    /// Debug information, where gcc records its options unless told not to.
    debug: bool,
    /// `-gno-record-gcc-switches` was the last word.
    not_in_debug: bool,
    always: bool,
}

impl Records {
    fn see(&mut self, arg: &[u8], family: Family) {
        match arg {
            b"-grecord-gcc-switches" | b"-grecord-command-line" if family == Family::Clang => self.always = true,
            b"-grecord-gcc-switches" => self.not_in_debug = false,
            b"-gno-record-gcc-switches" => self.not_in_debug = true,
            b"-frecord-gcc-switches" | b"-frecord-command-line" | b"-fverbose-asm" => self.always = true,
            _ if arg.starts_with(b"-flto") || arg.starts_with(b"-fembed-bitcode") => self.always = true,
            _ if arg.starts_with(b"-fsanitize") || arg.starts_with(b"-fcompare-debug") => {}
            b"-g0" => {}
            _ if family == Family::Gcc && arg.starts_with(b"-g") => self.debug = true,
            _ => {}
        }
    }

    fn options_are_recorded(&self) -> bool {
        self.always || (self.debug && !self.not_in_debug)
    }
}
