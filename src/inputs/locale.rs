//! What the compiler opens by itself, for the language of its messages, their colours and the local time (DO).
//!
//! Seen with strace on gcc 12 and its assembler: for every locale but `C` and `POSIX` the C library reads its archive,
//! its alias table, or else a directory for the locale, then the conversion tables' cache; the first message (even the
//! quotes in one) reads a catalogue by the program's name. clang sets no locale and opens none of this; but on a terminal
//! it reads the terminal's description, and without one it writes no colours. gcc knows terminals by their names alone.

use super::node::{NodeId, ROOT, name_hash};
use super::search::Scope;
use super::tree::Found;
use super::walk::Walk;
use super::world::Kind;
use super::{Graph, Undecidable};
use crate::compiler::invocation::Family;
use crate::reason::Reason;

type Env<'a> = &'a [(Vec<u8>, Vec<u8>)];

/// Where the C library keeps compiled locales.
const LOCALES: &[u8] = b"/usr/lib/locale";
/// Where catalogues of messages are; the second is Ubuntu's.
const CATALOGUES: [&[u8]; 2] = [b"/usr/share/locale", b"/usr/share/locale-langpack"];
/// Read for any locale, where they exist.
const ALWAYS: [&[u8]; 10] = [
    b"/usr/lib/locale/locale-archive",
    b"/usr/share/locale/locale.alias",
    b"/usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache",
    b"/usr/lib/x86_64-linux-gnu/gconv/gconv-modules",
    b"/usr/lib/aarch64-linux-gnu/gconv/gconv-modules.cache",
    b"/usr/lib/aarch64-linux-gnu/gconv/gconv-modules",
    b"/usr/lib64/gconv/gconv-modules.cache",
    b"/usr/lib64/gconv/gconv-modules",
    b"/usr/lib/gconv/gconv-modules.cache",
    b"/usr/lib/gconv/gconv-modules",
];
/// What the C library reads of a locale's own directory.
const CATEGORIES: [&[u8]; 2] = [b"/LC_CTYPE", b"/LC_MESSAGES/SYS_LC_MESSAGES"];
/// Programs whose catalogues a compile reads; some distributions append a version.
const DOMAINS: [&[u8]; 6] = [b"gcc", b"cpplib", b"gas", b"bfd", b"opcodes", b"libc"];
/// Where descriptions of terminals are, unless the environment says.
const TERMINALS: [&[u8]; 3] = [b"/etc/terminfo", b"/lib/terminfo", b"/usr/share/terminfo"];
/// The local time where `TZ` does not say.
const LOCAL_TIME: &[u8] = b"/etc/localtime";
/// The time zones.
const ZONES: &[u8] = b"/usr/share/zoneinfo/";
/// More than this many locales in one environment are nobody's.
const NAMES_MAX: usize = 16;

fn var<'e>(env: Env<'e>, name: &[u8]) -> Option<&'e [u8]> {
    env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
}

/// The locales that an environment chooses, for characters, messages and their translations; none for `C`.
fn names(env: Env<'_>) -> Result<Vec<&[u8]>, Reason> {
    let all = var(env, b"LC_ALL");
    let category = |name| all.or_else(|| var(env, name)).or_else(|| var(env, b"LANG"));
    let mut names: Vec<&[u8]> = [category(&b"LC_CTYPE"[..]), category(b"LC_MESSAGES")].into_iter().flatten().collect();
    names.retain(|name| !matches!(*name, b"C" | b"POSIX"));
    if names.is_empty() {
        return Ok(names);
    }
    // Tables of other character sets, and places of the user's own choice, are not worth following.
    let is_utf8 = |name: &&[u8]| {
        let lower = name.to_ascii_lowercase();
        memchr::memmem::find(&lower, b".utf-8").is_some() || memchr::memmem::find(&lower, b".utf8").is_some()
    };
    let is_odd = |name: &[u8]| name.contains(&b'/') || name.contains(&0);
    let moved = [&b"LOCPATH"[..], b"GCONV_PATH", b"NLSPATH", b"OUTPUT_CHARSET"];
    if !names.iter().all(is_utf8) || moved.iter().any(|name| var(env, name).is_some()) {
        return Err(Reason::Environment);
    }
    names.extend(var(env, b"LANGUAGE").unwrap_or_default().split(|byte| *byte == b':').filter(|name| !name.is_empty()));
    if names.iter().any(|name| is_odd(name)) || names.len() > NAMES_MAX {
        return Err(Reason::Environment);
    }
    Ok(names)
}

/// The names under which the C library looks for a locale: `de_DE.UTF-8`, `de_DE.utf8`, `de_DE`, `de.UTF-8`, …
fn variants(name: &[u8]) -> Vec<Vec<u8>> {
    let cut = |text: &[u8], at: u8| {
        let at = text.iter().position(|byte| *byte == at).unwrap_or(text.len());
        (text[..at].to_vec(), text[at..].to_vec())
    };
    let (rest, modifier) = cut(name, b'@');
    let (rest, codeset) = cut(&rest, b'.');
    let (language, territory) = cut(&rest, b'_');
    let plain: Vec<u8> =
        codeset.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect();
    let normal = if plain.is_empty() { Vec::new() } else { [b".", &plain[..]].concat() };
    let mut variants = Vec::new();
    for territory in [&territory[..], b""] {
        for codeset in [&codeset[..], &normal, b""] {
            for modifier in [&modifier[..], b""] {
                let variant = [&language, territory, codeset, modifier].concat();
                if !variants.contains(&variant) {
                    variants.push(variant);
                }
            }
        }
    }
    variants
}

/// Where the terminal library looks for the description of the terminal that an environment names.
fn terminal_files(env: Env<'_>) -> Vec<Vec<u8>> {
    let Some(name) = var(env, b"TERM").filter(|name| !name.contains(&b'/') && name[0] != b'.') else {
        return Vec::new();
    };
    let own = var(env, b"HOME").map(|home| [home, b"/.terminfo"].concat());
    let more = var(env, b"TERMINFO_DIRS").unwrap_or_default().split(|byte| *byte == b':').map(<[u8]>::to_vec);
    let said = var(env, b"TERMINFO").map(<[u8]>::to_vec);
    let dirs = said.into_iter().chain(own).chain(more).chain(TERMINALS.iter().map(|dir| dir.to_vec()));
    let dirs = dirs.filter(|dir| dir.first() == Some(&b'/')).take(NAMES_MAX);
    dirs.map(|dir| [&dir, &b"/"[..], &name[..1], b"/", name].concat()).collect()
}

fn is_catalogue(name: &[u8]) -> bool {
    name.strip_suffix(b".mo").is_some_and(|stem| {
        DOMAINS.iter().any(|domain| stem.strip_prefix(*domain).is_some_and(|rest| rest.is_empty() || rest[0] == b'-'))
    })
}

impl Graph {
    /// Adds the locale's files to a closure.
    pub(super) fn add_locale(&mut self, walk: &mut Walk<'_>) -> Result<(), Undecidable> {
        if walk.want.family != Family::Gcc {
            return Ok(());
        }
        let names = names(walk.want.env)?;
        if names.is_empty() {
            return Ok(());
        }
        for path in ALWAYS {
            self.add_path(walk, path)?;
        }
        let mut variants: Vec<_> = names.into_iter().flat_map(variants).collect();
        variants.sort_unstable();
        variants.dedup();
        if let Some(dir) = self.add_dir(walk, ROOT, LOCALES)? {
            for variant in self.present(dir, &variants)? {
                for category in CATEGORIES {
                    let name = self.name(&[&variant, category].concat());
                    let lookup = self.lookup(Scope::Dir(dir), name);
                    self.take_content(walk, lookup)?;
                }
            }
        }
        let others = walk.want.locale_dirs.iter().map(Vec::as_slice);
        let places: Vec<&[u8]> = CATALOGUES.into_iter().chain(others).collect();
        for place in places {
            let Some(dir) = self.add_dir(walk, ROOT, place)? else { continue };
            for variant in self.present(dir, &variants)? {
                let messages = [&variant, &b"/LC_MESSAGES"[..]].concat();
                let Some(messages) = self.add_dir(walk, dir, &messages)? else { continue };
                self.list_whole(messages)?;
                for name in self.names_in(messages, is_catalogue) {
                    let name = self.name(&name);
                    let lookup = self.lookup(Scope::Dir(messages), name);
                    self.take_content(walk, lookup)?;
                }
            }
        }
        Ok(())
    }

    /// Adds the terminal's description, which clang reads if standard error is a terminal.
    pub(super) fn add_terminal(&mut self, walk: &mut Walk<'_>) -> Result<(), Undecidable> {
        if walk.want.family == Family::Clang {
            for path in terminal_files(walk.want.env) {
                self.add_path(walk, &path)?;
            }
        }
        Ok(())
    }

    /// Adds the time zone's file, for `__TIMESTAMP__`.
    pub(super) fn add_time_zone(&mut self, walk: &mut Walk<'_>) -> Result<(), Undecidable> {
        match var(walk.want.env, b"TZ") {
            None => self.add_path(walk, LOCAL_TIME),
            Some(zone) => {
                let zone = zone.strip_prefix(b":").unwrap_or(zone);
                let zone = if zone.first() == Some(&b'/') { zone.to_vec() } else { [ZONES, zone].concat() };
                self.add_path(walk, &zone)
            }
        }
    }

    fn add_path(&mut self, walk: &mut Walk<'_>, path: &[u8]) -> Result<(), Undecidable> {
        let name = self.name(path);
        let lookup = self.lookup(Scope::At(ROOT), name);
        self.take_content(walk, lookup)
    }

    fn add_dir(&mut self, walk: &mut Walk<'_>, base: NodeId, path: &[u8]) -> Result<Option<NodeId>, Undecidable> {
        let mut trail = Vec::new();
        let found = self.resolve(base, path, &mut trail)?;
        let Some(Found { end, .. }) = found.filter(|found| self.kind(found.end) == Some(Kind::Dir)) else {
            return Ok(None);
        };
        self.list(end)?;
        self.mark_all(walk, &trail)?;
        Ok(Some(end))
    }

    fn present(&mut self, dir: NodeId, names: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Undecidable> {
        let mut present = Vec::new();
        for name in names {
            if self.listed(dir, name_hash(name), name)?.is_some() {
                present.push(name.clone());
            }
        }
        Ok(present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(env: &[(&str, &str)], want: Result<&[&str], Reason>) {
        let env: Vec<_> = env.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
        let want = want.map(|names| names.iter().map(|name| name.as_bytes()).collect());
        assert_eq!(names(&env), want);
    }

    #[test]
    fn the_environment_chooses_as_the_c_library_does() {
        check(&[], Ok(&[]));
        check(&[("LANG", "C"), ("LANGUAGE", "de")], Ok(&[]));
        check(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")], Ok(&[]));
        check(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "")], Ok(&["de_DE.UTF-8", "de_DE.UTF-8"]));
        check(&[("LANG", "de_DE.UTF-8"), ("LC_MESSAGES", "C")], Ok(&["de_DE.UTF-8"]));
        check(&[("LC_ALL", "en_US.utf8"), ("LANGUAGE", "de:fr")], Ok(&["en_US.utf8", "en_US.utf8", "de", "fr"]));
        check(&[("LANG", "de_DE")], Err(Reason::Environment));
        check(&[("LANG", "de_DE.UTF-8"), ("LOCPATH", "/x")], Err(Reason::Environment));
        check(&[("LANG", "../x.UTF-8")], Err(Reason::Environment));
    }

    #[test]
    fn a_terminal_is_described_where_the_library_looks() {
        let files = |env: &[(&str, &str)]| {
            let env: Vec<_> = env.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
            terminal_files(&env).into_iter().map(|f| String::from_utf8(f).unwrap()).collect::<Vec<_>>()
        };
        let usual = ["/etc/terminfo/x/xterm", "/lib/terminfo/x/xterm", "/usr/share/terminfo/x/xterm"];
        assert_eq!(files(&[("TERM", "xterm")]), usual);
        let said = files(&[("TERM", "xterm"), ("TERMINFO", "/k"), ("HOME", "/h"), ("TERMINFO_DIRS", "/a:b:")]);
        assert_eq!(said[..3], ["/k/x/xterm", "/h/.terminfo/x/xterm", "/a/x/xterm"]);
        assert_eq!(said[3..], usual);
        assert!(files(&[("TERM", "../../x")]).is_empty() && files(&[]).is_empty());
    }

    #[test]
    fn variants_are_what_strace_showed() {
        let shown: Vec<_> = variants(b"de_DE.UTF-8").into_iter().map(|v| String::from_utf8(v).unwrap()).collect();
        assert_eq!(shown, ["de_DE.UTF-8", "de_DE.utf8", "de_DE", "de.UTF-8", "de.utf8", "de"]);
        assert_eq!(variants(b"de_DE.UTF-8@euro").len(), 12);
        assert_eq!(variants(b"de"), [b"de".to_vec()]);
    }

    #[test]
    fn catalogues_of_the_compiler_are_told_by_name() {
        for (name, is) in [("gcc.mo", true), ("gcc-12.mo", true), ("gas.mo", true), ("gccgo.mo", false), ("gcc", false)]
        {
            assert_eq!(is_catalogue(name.as_bytes()), is, "{name}");
        }
    }
}
