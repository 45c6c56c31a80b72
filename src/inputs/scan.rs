//! What a file's text says about other files: its directives, found without evaluating a condition (DECIDE).
//!
//! A lexer of just enough of C: it knows comments, strings, raw strings, splices and where a line begins, and follows
//! every `#if` branch. Where it errs it errs to a file too many: an include that only looks like one costs a lookup.
//! What could only be found by expanding macros is flagged, never guessed.

use super::lex::{Lexer, is_ident, is_ident_start};
use memchr::{memchr2, memmem};
use serde::{Deserialize, Serialize};

/// How a name is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Form {
    /// `"name"`: the includer's own directory first.
    Quoted,
    /// `<name>`.
    Angled,
    /// `#include_next`, which goes on from wherever the includer was found: any directory may be meant.
    Next,
    /// `#embed`: content without directives.
    Embed,
    /// The name in `#line 1 "name"`: gcc opens it to print the line that a warning is about.
    Line,
}

/// What a macro stands for, as far as an `#include` of it can use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// `"name"` or `<name>`.
    Header(Form, Box<[u8]>),
    /// One other identifier, by its [`hash32`].
    Alias(u32),
    /// Nothing that could be a header's name: a number, a parenthesis, nothing at all.
    Plain,
    /// Parameters, or several tokens.
    Complex,
}

/// A `#define`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Define {
    /// [`hash32`] of its name.
    pub name: u32,
    /// What it stands for.
    pub body: Body,
}

/// `#include NAME` or `__has_include(NAME)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Computed {
    /// The macro.
    pub name: Box<[u8]>,
    /// It stands in `__has_include`, which no dependency list shows.
    pub has: bool,
}

/// Properties of a text, as bits of [`Scan::flags`].
pub mod flag {
    /// `__DATE__` or `__TIME__`.
    pub const DATE_TIME: u8 = 1;
    /// `__TIMESTAMP__`.
    pub const TIMESTAMP: u8 = 1 << 1;
    /// The assembler is told to read a file.
    pub const ASM_FILE: u8 = 1 << 2;
    /// A line that is one of modules in C++20, or `@import`.
    pub const MODULES: u8 = 1 << 3;
    /// An include whose operand only the compiler can make out.
    pub const COMPUTED: u8 = 1 << 4;
    /// A `__has_include` or `__has_embed` whose operand is neither a literal nor a name.
    pub const COMPUTED_HAS: u8 = 1 << 5;
    /// `__FILE__` or another name of what says in which file it stands, or an absolute path of a file to be read.
    pub const PLACE: u8 = 1 << 6;
}

/// All that is kept of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Names that it may read, each once.
    pub uses: Vec<(Form, Box<[u8]>)>,
    /// Macros that stand for such names.
    pub computed: Vec<Computed>,
    /// What it defines.
    pub defines: Vec<Define>,
    /// [`hash32`] of macros that pass their parameter to `__has_include`.
    pub wrappers: Vec<u32>,
    /// [`hash32`] of macros, by their names such wrappers, that are called with something else than a literal.
    pub wrapper_calls: Vec<u32>,
    /// Bits of [`flag`].
    pub flags: u8,
    /// How many directories above where it is looked for the farthest name leads ([`climb`]).
    pub climb: u8,
}

/// How many directories above where it is looked for a name leads on its way.
#[must_use]
pub fn climb(name: &[u8]) -> u8 {
    let (mut above, mut below) = (0u8, 0u8);
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if below > 0 => below -= 1,
            b".." => above = above.saturating_add(1),
            _ => below = below.saturating_add(1),
        }
    }
    above
}

/// FNV-1a: what macro names are compared by. A collision makes a closure larger or a unit undecidable, never smaller.
#[must_use]
pub fn hash32(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Reads a text. With `asm`, it is assembler: `.include` and `.incbin` count outside strings too.
#[must_use]
pub fn scan(text: &[u8], asm: bool) -> Scan {
    let mut scanner = Scanner::new(text);
    scanner.run();
    let mut out = scanner.out;
    if asm && names_asm_file(text) {
        out.flags |= flag::ASM_FILE;
    }
    for (_, name) in out.uses.iter().filter(|(form, _)| *form != Form::Line) {
        out.climb = out.climb.max(climb(name));
        out.flags |= if name.starts_with(b"/") { flag::PLACE } else { 0 };
    }
    out.uses.sort_unstable();
    out.uses.dedup();
    out.defines.shrink_to_fit();
    out
}

/// What a `-D` option's body stands for.
#[must_use]
pub fn body_of(text: &[u8]) -> Body {
    Scanner::new(text).body(0)
}

/// The flags that a macro body given on the command line brings.
#[must_use]
pub fn flags_of_body(text: &[u8]) -> u8 {
    let mut scanner = Scanner::new(text);
    scanner.run();
    let has = [&b"has_include"[..], b"has_embed"].iter().any(|word| memmem::find(text, word).is_some());
    scanner.out.flags | if has { flag::COMPUTED_HAS } else { 0 }
}

/// Identifiers that matter outside comments and strings. (Two letters more or less find the rest of their family.)
const WATCHED: [&[u8]; 8] = [
    b"__DATE__",
    b"__TIME",
    b"has_include",
    b"HAS_INCLUDE",
    b"__has_embed",
    b"_FILE",
    b"source_location",
    b"PRETTY_FUNCTION",
];
/// Longest delimiter of a raw string, bytes.
const RAW_DELIMITER_BYTES_MAX: usize = 16;

const fn table(bytes: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut i = 0;
    while i < bytes.len() {
        table[bytes[i] as usize] = true;
        i += 1;
    }
    table
}
/// Where ordinary text ends.
static SPECIAL: [bool; 256] = table(b"\n\r/\"'\\");

fn names_asm_file(text: &[u8]) -> bool {
    memmem::find(text, b"incbin").is_some() || memmem::find(text, b".include").is_some()
}

/// The define whose line is being read.
struct Current {
    name: u32,
    is_wrapper_name: bool,
    /// Its parameter list; empty for an object-like one.
    parameters: (usize, usize),
}

struct Scanner<'t> {
    lex: Lexer<'t>,
    at: usize,
    /// Where watched words are, in order, and how many are behind us.
    watches: Vec<usize>,
    watched: usize,
    define: Option<Current>,
    out: Scan,
}

impl<'t> Scanner<'t> {
    fn new(text: &'t [u8]) -> Self {
        let mut watches: Vec<usize> = WATCHED.iter().flat_map(|word| memmem::find_iter(text, word)).collect();
        watches.sort_unstable();
        let at = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        Self { lex: Lexer { text }, at, watches, watched: 0, define: None, out: Scan::default() }
    }

    fn run(&mut self) {
        let mut line_start = true;
        while self.at < self.lex.text.len() {
            if line_start {
                self.define = None;
                self.begin_line();
                line_start = false;
            }
            let start = self.at.min(self.lex.text.len());
            let rest = &self.lex.text[start..];
            let end = start + rest.iter().position(|b| SPECIAL[usize::from(*b)]).unwrap_or(rest.len());
            if self.watched < self.watches.len() && self.watch(start, end) {
                continue;
            }
            self.at = end + 1;
            match self.lex.peek(end) {
                b'\n' | b'\r' => line_start = true,
                b'/' => self.slash(end),
                b'"' => self.string(end),
                b'\'' => self.character(end),
                b'\\' => {
                    if let Some(next) = self.lex.splice(end) {
                        self.at = next;
                        self.spliced_word(end, next);
                    }
                }
                _ => {}
            }
        }
    }

    fn slash(&mut self, at: usize) {
        if let Some(end) = self.lex.comment(at) {
            self.at = end;
            return;
        }
        let mut second = at + 1;
        while let Some(next) = self.lex.splice(second) {
            second = next;
        }
        if self.lex.peek(second) != b'/' {
            return;
        }
        self.at = second + 1;
        // To the newline, which is left for the caller; a splice carries the comment on.
        loop {
            let rest = &self.lex.text[self.at.min(self.lex.text.len())..];
            let Some(found) = memchr2(b'\n', b'\\', rest) else {
                self.at = self.lex.text.len();
                return;
            };
            let end = self.at + found;
            match self.lex.text[end] {
                b'\n' => {
                    self.at = end;
                    return;
                }
                _ => self.at = self.lex.splice(end).unwrap_or(end + 1),
            }
        }
    }

    fn string(&mut self, quote: usize) {
        if quote > 0 && self.lex.text[quote - 1] == b'R' && self.is_raw(quote - 1) && self.raw(quote) {
            return;
        }
        let end = self.lex.literal_end(quote);
        let inner = &self.lex.text[quote + 1..end.min(self.lex.text.len())];
        if memchr::memchr(b'.', inner).is_some() && names_asm_file(inner) {
            self.out.flags |= flag::ASM_FILE;
        }
        self.at = end;
    }

    fn character(&mut self, quote: usize) {
        // 1'000: a separator, if what stands before it is a number.
        if quote > 0 && is_ident(self.lex.text[quote - 1]) && is_ident(self.lex.peek(quote + 1)) {
            let start = self.lex.word_start(quote);
            if self.lex.peek(start).is_ascii_digit() || (start > 0 && self.lex.text[start - 1] == b'\'') {
                return;
            }
        }
        self.at = self.lex.literal_end(quote);
    }

    /// Whether the `R` at `at` is a raw string's prefix, not the end of a longer word.
    fn is_raw(&self, at: usize) -> bool {
        matches!(&self.lex.text[self.lex.word_start(at)..=at], b"R" | b"u8R" | b"uR" | b"UR" | b"LR")
    }

    /// Skips a raw string. Its lines count as lines all the same, for languages that have no raw strings, but raise
    /// no doubt.
    fn raw(&mut self, quote: usize) -> bool {
        let start = quote + 1;
        let head = &self.lex.text[start..self.lex.text.len().min(start + RAW_DELIMITER_BYTES_MAX + 1)];
        let Some(open) = memchr::memchr(b'(', head) else { return false };
        if head[..open].iter().any(|b| matches!(b, b' ' | b')' | b'\\' | b'\t' | b'\n' | b'"')) {
            return false;
        }
        let close = [b")", &head[..open], b"\""].concat();
        let from = start + open + 1;
        let Some(length) = memmem::find(&self.lex.text[from..], &close) else { return false };
        let inner = &self.lex.text[from..from + length];
        if memchr::memchr(b'#', inner).is_some() {
            let mut within = Scanner::new(inner);
            within.run();
            self.out.uses.append(&mut within.out.uses);
            self.out.defines.append(&mut within.out.defines);
        }
        if names_asm_file(inner) {
            self.out.flags |= flag::ASM_FILE;
        }
        self.at = from + length + close.len();
        true
    }

    /// A word that a splice cuts escapes the search for watched words, so such words are put together here.
    fn spliced_word(&mut self, at: usize, next: usize) {
        if at == 0 || !is_ident(self.lex.text[at - 1]) || !is_ident(self.lex.peek(next)) {
            return;
        }
        let (word, _) = self.lex.word(self.lex.word_start(at));
        match &*word {
            b"__DATE__" | b"__TIME__" => self.out.flags |= flag::DATE_TIME,
            b"__TIMESTAMP__" => self.out.flags |= flag::TIMESTAMP,
            word if is_place(word) => self.out.flags |= flag::PLACE,
            word if is_wrapper_name(word) || word == b"__has_embed" => self.out.flags |= flag::COMPUTED_HAS,
            _ => {}
        }
    }

    fn begin_line(&mut self) {
        self.at = self.lex.space(self.at);
        match self.lex.peek(self.at) {
            b'#' => self.directive(self.at + 1),
            b'%' if self.lex.peek(self.at + 1) == b':' => self.directive(self.at + 2),
            b'?' if self.lex.text[self.at..].starts_with(b"??=") => self.directive(self.at + 3),
            b'i' | b'm' | b'e' | b'@' => self.module_line(),
            _ => {}
        }
    }

    fn directive(&mut self, at: usize) {
        let at = self.lex.space(at);
        if self.lex.peek(at).is_ascii_digit() {
            self.line_marker(at);
            return;
        }
        let (word, end) = self.lex.word(at);
        self.at = end.max(at);
        match &*word {
            b"include" | b"import" => self.include(end, None),
            b"include_next" => self.include(end, Some(Form::Next)),
            b"embed" => self.include(end, Some(Form::Embed)),
            b"define" => self.define(end),
            b"line" => self.line_marker(end),
            b"pragma" => self.pragma(end),
            _ => {}
        }
    }

    fn include(&mut self, at: usize, form: Option<Form>) {
        let at = self.lex.space(at);
        if let Some((own, name, end)) = self.lex.header(at) {
            self.out.uses.push((form.unwrap_or(own), name.into()));
            self.at = end;
        } else if is_ident_start(self.lex.peek(at)) {
            let (name, end) = self.lex.word(at);
            if self.lex.ends_line(end) && form != Some(Form::Embed) && !name.starts_with(b"__") {
                self.out.computed.push(Computed { name: name.into(), has: false });
            } else {
                self.out.flags |= flag::COMPUTED;
            }
            self.at = end;
        } else if !self.lex.ends_line(at) && !matches!(self.lex.peek(at), b'"' | b'<') {
            self.out.flags |= flag::COMPUTED;
        }
    }

    fn define(&mut self, at: usize) {
        let at = self.lex.space(at);
        if !is_ident_start(self.lex.peek(at)) {
            return;
        }
        let (name, end) = self.lex.word(at);
        self.at = end;
        let hash = hash32(&name);
        let (body, parameters) = if self.lex.peek(end) == b'(' {
            let rest = &self.lex.text[end..];
            let close = memchr2(b')', b'\n', rest).unwrap_or(rest.len());
            (Body::Complex, (end, end + close))
        } else {
            (self.body(end), (end, end))
        };
        self.out.defines.push(Define { name: hash, body });
        self.define = Some(Current { name: hash, is_wrapper_name: is_wrapper_name(&name), parameters });
    }

    fn body(&self, at: usize) -> Body {
        let at = self.lex.space(at);
        if let Some((form, name, end)) = self.lex.header(at) {
            return if self.lex.ends_line(end) { Body::Header(form, name.into()) } else { Body::Complex };
        }
        match self.lex.peek(at) {
            byte if is_ident_start(byte) => {
                let (word, end) = self.lex.word(at);
                if self.lex.ends_line(end) { Body::Alias(hash32(&word)) } else { Body::Complex }
            }
            b'<' | b'"' => Body::Complex,
            _ => Body::Plain,
        }
    }

    /// `#line 7 "name"` and `# 7 "name"`, from the number on.
    fn line_marker(&mut self, at: usize) {
        let mut i = self.lex.space(at);
        while self.lex.peek(i).is_ascii_digit() {
            i += 1;
        }
        i = self.lex.space(i);
        self.at = i;
        if self.lex.peek(i) != b'"' {
            return;
        }
        let end = self.lex.literal_end(i);
        let inner = &self.lex.text[i + 1..end.saturating_sub(1).max(i + 1)];
        self.at = end;
        // Without its escapes, of which only these occur in names of files.
        let mut name = Vec::with_capacity(inner.len());
        let mut bytes = inner.iter();
        while let Some(byte) = bytes.next() {
            name.push(if *byte == b'\\' { bytes.next().copied().unwrap_or(b'\\') } else { *byte });
        }
        let is_new = self.out.uses.last().is_none_or(|(form, last)| *form != Form::Line || **last != *name);
        if !name.is_empty() && name[0] != b'<' && is_new {
            self.out.uses.push((Form::Line, name.into()));
        }
    }

    fn pragma(&mut self, at: usize) {
        let (first, end) = self.lex.word(self.lex.space(at));
        let (second, end) = self.lex.word(self.lex.space(end));
        match (&*first, &*second) {
            // gcc looks for the file and compares its date; clang 14 looks for the better header.
            (b"GCC", b"dependency") | (b"clang", b"include_instead") => {
                let open = self.lex.space(end);
                let open = if self.lex.peek(open) == b'(' { self.lex.space(open + 1) } else { open };
                match self.lex.header(open) {
                    Some((form, name, end)) => {
                        self.out.uses.push((form, name.into()));
                        self.at = end;
                    }
                    None => self.out.flags |= flag::COMPUTED_HAS,
                }
            }
            (b"clang", b"module") => self.out.flags |= flag::MODULES,
            _ => {}
        }
    }

    /// `import name;`, `import <name>;`, `module;`, `module name;`, `export module name;`, `@import name;`.
    fn module_line(&mut self) {
        let at = self.at;
        let is_objc = self.lex.peek(at) == b'@';
        let (mut word, mut end) = self.lex.word(at + usize::from(is_objc));
        if *word == *b"export" {
            (word, end) = self.lex.word(self.lex.space(end));
        }
        let rest = self.lex.space(end);
        let shaped = match &*word {
            b"import" if is_objc => true,
            b"import" => {
                self.lex.header(rest).is_some_and(|(_, _, end)| self.lex.peek(self.lex.space(end)) == b';')
                    || self.named(rest)
            }
            b"module" => self.lex.peek(rest) == b';' || self.named(rest),
            _ => false,
        };
        if shaped {
            self.out.flags |= flag::MODULES;
        }
    }

    /// `a.b:c ;` at `at`, on one line.
    fn named(&self, at: usize) -> bool {
        let mut end = at;
        while is_ident(self.lex.peek(end)) && end < self.lex.text.len()
            || matches!(self.lex.peek(end), b'.' | b':' | b' ')
        {
            end += 1;
        }
        end > at && self.lex.peek(end) == b';' && (is_ident_start(self.lex.peek(at)) || self.lex.peek(at) == b':')
    }

    /// Looks at the watched words in a run of ordinary text; true if one moved the position.
    fn watch(&mut self, start: usize, end: usize) -> bool {
        while let Some(found) = self.watches.get(self.watched).copied() {
            if found >= end {
                return false;
            }
            self.watched += 1;
            if found < start {
                continue;
            }
            let first = self.lex.word_start(found).max(start);
            let (word, after) = self.lex.word(first);
            match &*word {
                b"__DATE__" | b"__TIME__" => self.out.flags |= flag::DATE_TIME,
                b"__TIMESTAMP__" => self.out.flags |= flag::TIMESTAMP,
                word if is_place(word) => self.out.flags |= flag::PLACE,
                b"__has_include" | b"__has_include_next" | b"__has_embed" => {
                    if let Some(next) = self.has(&word, after, false) {
                        self.at = next;
                        return true;
                    }
                }
                word if is_wrapper_name(word) => {
                    if let Some(next) = self.has(word, after, true) {
                        self.at = next;
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }

    /// The operand of `__has_include` or of a macro that by its name passes it on; where to go on, if a literal
    /// was read.
    fn has(&mut self, word: &[u8], after: usize, is_wrapper: bool) -> Option<usize> {
        let open = self.lex.space(after);
        if self.lex.peek(open) != b'(' {
            // As in `defined(__has_include)`; as a macro's body it makes that macro another name of it.
            if let Some(define) = &self.define
                && !is_wrapper
            {
                if define.is_wrapper_name {
                    self.out.wrappers.push(define.name);
                } else {
                    self.out.flags |= flag::COMPUTED_HAS;
                }
            }
            return None;
        }
        let at = self.lex.space(open + 1);
        if let Some((own, name, end)) = self.lex.header(at) {
            let form = match word {
                b"__has_include_next" => Form::Next,
                b"__has_embed" => Form::Embed,
                _ => own,
            };
            self.out.uses.push((form, name.into()));
            return Some(end);
        }
        let (name, end) = self.lex.word(at);
        if let Some(define) = &self.define
            && self.is_parameter(define, &name)
        {
            match (is_wrapper, define.is_wrapper_name) {
                (false, true) => self.out.wrappers.push(define.name),
                (true, true) => {}
                (_, false) => self.out.flags |= flag::COMPUTED_HAS,
            }
        } else if is_wrapper {
            self.out.wrapper_calls.push(hash32(word));
        } else if !name.is_empty() && self.lex.peek(self.lex.space(end)) == b')' {
            self.out.computed.push(Computed { name: name.into(), has: true });
        } else {
            self.out.flags |= flag::COMPUTED_HAS;
        }
        None
    }

    fn is_parameter(&self, define: &Current, name: &[u8]) -> bool {
        let list = &self.lex.text[define.parameters.0..define.parameters.1];
        (name == b"__VA_ARGS__" && memmem::find(list, b"...").is_some())
            || list.split(|b| !is_ident(*b)).any(|parameter| !parameter.is_empty() && parameter == name)
    }
}

/// Whether a word stands for a path, or for a text that may hold one: clang names a lambda by where it is.
fn is_place(word: &[u8]) -> bool {
    matches!(word, b"__FILE__" | b"__BASE_FILE__" | b"__builtin_FILE" | b"__PRETTY_FUNCTION__")
        || word.ends_with(b"source_location") && !word.starts_with(b"__cpp_lib_")
}

fn is_wrapper_name(word: &[u8]) -> bool {
    memmem::find(word, b"has_include").is_some() || memmem::find(word, b"HAS_INCLUDE").is_some()
}

#[cfg(test)]
mod tests;
