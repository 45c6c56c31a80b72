//! Whether what a compile makes is the same in another checkout of its project (DECIDE).
//!
//! A wrong object is the worst that can happen and a compile too many costs little: what is not known to be harmless counts
//! as harmful. The *root* of a unit is the directory that holds all that its command names by relative paths. A command is
//! portable if its root stands in it only where a path begins, and if no option makes the compiler write paths down.

use super::plan::{Language, Plan};
use memchr::memmem;

/// Roots that are longer are not moved, bytes.
const ROOT_BYTES_MAX: usize = 1024;
/// Nothing below these is a project.
const SYSTEM: &[&[u8]] =
    &[b"/bin", b"/dev", b"/etc", b"/lib", b"/lib64", b"/nix", b"/proc", b"/run", b"/sbin", b"/sys", b"/usr"];
/// What stands for the root: no path can have it.
const TOKEN: &[u8] = b"\0root";

/// Options whose value, the next argument or joined to it, is a path that shows in no object.
const PATHS: &[&[u8]] =
    &[b"-I", b"-MF", b"-MQ", b"-MT", b"-idirafter", b"-imacros", b"-include", b"-iquote", b"-isystem", b"-o"];
/// Options whose value, the next argument, is no path.
const VALUES: &[&[u8]] = &[b"--param", b"-D", b"-U", b"-x"];
/// Options without a value.
const PLAIN: &[&[u8]] = &[
    b"-MD",
    b"-MMD",
    b"-MP",
    b"-Qunused-arguments",
    b"-ansi",
    b"-c",
    b"-nostdinc",
    b"-nostdinc++",
    b"-pedantic",
    b"-pedantic-errors",
    b"-pipe",
    b"-pthread",
    b"-w",
];
/// Beginnings of options that show in no object, or not as a path.
const BEGINNINGS: &[&[u8]] = &[b"--param=", b"-D", b"-O", b"-U", b"-W", b"-m", b"-std=", b"-stdlib="];
/// These begin so too, but pass something on.
const PASSING: &[&[u8]] = &[b"-Wa,", b"-Wl,", b"-Wp,", b"-mllvm"];
/// Options after `-f` or `-fno-`.
const SWITCHES: &[&[u8]] = &[
    b"PIC",
    b"PIE",
    b"access-control",
    b"aligned-new",
    b"associative-math",
    b"asynchronous-unwind-tables",
    b"builtin",
    b"char8_t",
    b"color-diagnostics",
    b"common",
    b"concepts",
    b"coroutines",
    b"data-sections",
    b"delete-null-pointer-checks",
    b"diagnostics-color",
    b"elide-constructors",
    b"exceptions",
    b"fast-math",
    b"finite-math-only",
    b"freestanding",
    b"function-sections",
    b"gcse",
    b"gnu89-inline",
    b"hosted",
    b"ident",
    b"implicit-templates",
    b"inline",
    b"inline-functions",
    b"ipa-sra",
    b"ivopts",
    b"jump-tables",
    b"math-errno",
    b"merge-all-constants",
    b"merge-constants",
    b"ms-extensions",
    b"non-call-exceptions",
    b"omit-frame-pointer",
    b"operator-names",
    b"permissive",
    b"pic",
    b"pie",
    b"plt",
    b"reciprocal-math",
    b"rounding-math",
    b"rtti",
    b"semantic-interposition",
    b"short-enums",
    b"signaling-nans",
    b"signed-char",
    b"signed-zeros",
    b"sized-deallocation",
    b"slp-vectorize",
    b"stack-clash-protection",
    b"stack-protector",
    b"stack-protector-all",
    b"stack-protector-strong",
    b"strict-aliasing",
    b"strict-overflow",
    b"strict-return",
    b"threadsafe-statics",
    b"trapping-math",
    b"trapv",
    b"tree-loop-vectorize",
    b"tree-slp-vectorize",
    b"tree-vectorize",
    b"unroll-loops",
    b"unsigned-char",
    b"unwind-tables",
    b"vectorize",
    b"visibility-inlines-hidden",
    b"wrapv",
    b"zero-initialized-in-bss",
];
/// Options after `-f` that have a value after `=`.
const SETTINGS: &[&[u8]] = &[
    b"abi-version",
    b"cf-protection",
    b"constexpr-depth",
    b"constexpr-loop-limit",
    b"constexpr-ops-limit",
    b"constexpr-steps",
    b"diagnostics-color",
    b"error-limit",
    b"excess-precision",
    b"fp-contract",
    b"inline-limit",
    b"max-errors",
    b"message-length",
    b"template-backtrace-limit",
    b"template-depth",
    b"tls-model",
    b"visibility",
];

/// The root of a unit, if it has one that can be moved: the deepest directory that holds the working directory, the source,
/// the object, and the directories of includes that are named as seen from the working directory.
#[must_use]
pub fn root(plan: &Plan, cwd: &[u8]) -> Option<Vec<u8>> {
    if !matches!(plan.language, Language::C | Language::Cxx) {
        return None;
    }
    let mut common = parts(cwd, b".")?;
    let search = &plan.search;
    let dirs = [&search.quote, &search.user, &search.system, &search.after].into_iter().flatten();
    let files = [&plan.source, &plan.output];
    for (path, is_file) in files.into_iter().map(|path| (path, true)).chain(dirs.map(|path| (path, false))) {
        if !is_file && path.starts_with(b"/") {
            continue;
        }
        let mut other = parts(cwd, path)?;
        if is_file {
            other.pop();
        }
        let alike = common.iter().zip(&other).take_while(|(one, other)| one == other).count();
        common.truncate(alike);
    }
    Some(joined(&common))
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&b"/"[..], part]).collect::<Vec<_>>().concat()
}

/// A root so high that no name leads out of it that climbs so far: from where included files lie, `files`, or from a
/// directory of the search path. A name that left it could find, or miss, what is in a checkout of another name.
#[must_use]
pub fn raised<'p>(
    mut root: Vec<u8>,
    climb: usize,
    plan: &Plan,
    cwd: &[u8],
    files: impl Iterator<Item = &'p [u8]> + Clone,
) -> Option<Vec<u8>> {
    if climb == 0 {
        return Some(root);
    }
    let search = &plan.search;
    let forced = (!plan.forced_includes.is_empty()).then(|| cwd.to_vec());
    let dirs = [&search.quote, &search.user, &search.system, &search.after].into_iter().flatten();
    let dirs: Option<Vec<Vec<u8>>> = dirs.map(|dir| Some(joined(&parts(cwd, dir)?))).collect();
    let dirs: Vec<Vec<u8>> = dirs?.into_iter().chain(forced).collect();
    let count = |path: &[u8], root: &[u8]| below(path, root).map(|rest| rest.iter().filter(|b| **b == b'/').count());
    loop {
        let of_files = files.clone().filter_map(|file| count(file, &root).map(|depth| depth.saturating_sub(1)));
        let depth = of_files.chain(dirs.iter().filter_map(|dir| count(dir, &root))).min().unwrap_or(0);
        if climb <= depth {
            return Some(root);
        }
        let end = root.iter().rposition(|b| *b == b'/').filter(|end| *end > 0)?;
        root.truncate(end);
    }
}

/// Whether a symbolic link in a checkout leads to a place that is told by its target alone.
#[must_use]
pub fn is_plain_link(target: &[u8]) -> bool {
    !target.starts_with(b"/") && target.split(|b| *b == b'/').all(|part| part != b"..")
}

/// The components of a path seen from a directory, as text.
fn parts<'p>(cwd: &'p [u8], path: &'p [u8]) -> Option<Vec<&'p [u8]>> {
    let from = if path.starts_with(b"/") { &b""[..] } else { cwd };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in from.split(|b| *b == b'/').chain(path.split(|b| *b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts)
}

/// Whether a directory can be a root: deep enough to be somebody's, and of characters that no compiler escapes anywhere.
#[must_use]
pub fn is_movable(root: &[u8]) -> bool {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-' | b'+');
    let is_system = SYSTEM.iter().any(|dir| below(root, dir).is_some());
    root.len() <= ROOT_BYTES_MAX
        && root.iter().filter(|b| **b == b'/').count() >= 2
        && root.iter().all(is_plain)
        && !is_system
}

/// What follows a root in a path that is that root or lies below it.
#[must_use]
pub fn below<'p>(path: &'p [u8], root: &[u8]) -> Option<&'p [u8]> {
    path.strip_prefix(root).filter(|rest| matches!(rest.first(), None | Some(b'/')))
}

/// The path with the root's place taken by a token, if it lies below it.
#[must_use]
pub fn anywhere(path: &[u8], root: &[u8]) -> Option<Vec<u8>> {
    below(path, root).map(|rest| [TOKEN, rest].concat())
}

fn has(bytes: &[u8], needle: &[u8]) -> bool {
    memmem::find(bytes, needle).is_some()
}

/// The command with a token in the root's place; `None` if it is not portable.
#[must_use]
pub fn argv(argv: &[Vec<u8>], root: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (program, options) = argv.split_first()?;
    let mut out = vec![program.clone()];
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let one: &[u8] = option;
        if PATHS.contains(&one) {
            let value = options.next()?;
            out.push(one.to_vec());
            out.push(anywhere(value, root).unwrap_or_else(|| value.clone()));
        } else if VALUES.contains(&one) {
            out.extend([one.to_vec(), options.next()?.clone()]);
        } else if !one.starts_with(b"-") {
            out.push(anywhere(one, root).unwrap_or_else(|| one.to_vec()));
        } else if PLAIN.contains(&one) || is_harmless(one) {
            out.push(one.to_vec());
        } else {
            // The longest: `-include` is not `-i`, and `-isystem` not `-I`.
            let path = PATHS.iter().filter(|path| one.starts_with(path)).max_by_key(|path| path.len())?;
            let value = &one[path.len()..];
            out.push([path, &*anywhere(value, root).unwrap_or_else(|| value.to_vec())].concat());
        }
    }
    out.iter().all(|word| !has(word, root)).then_some(out)
}

/// Whether an option shows in no object, or not as a path.
fn is_harmless(option: &[u8]) -> bool {
    if PASSING.iter().any(|word| option.starts_with(word)) {
        return false;
    }
    if let Some(name) = option.strip_prefix(b"-f") {
        let (name, value) = name.split_at(name.iter().position(|b| *b == b'=').unwrap_or(name.len()));
        let name = name.strip_prefix(b"no-").unwrap_or(name);
        return if value.is_empty() { SWITCHES.contains(&name) } else { SETTINGS.contains(&name) };
    }
    BEGINNINGS.iter().any(|begin| option.starts_with(begin))
}

/// The environment with a token in the root's place, for which only `PWD` may have it; `None` if it is not portable.
#[must_use]
pub fn env(env: &[(Vec<u8>, Vec<u8>)], cwd: &[u8], root: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let moved = |(name, value): &(Vec<u8>, Vec<u8>)| {
        let value = match name.as_slice() {
            // What lies there is in no job's root, unless it is the compiler's.
            b"PATH" | b"HOME" | b"TMP" | b"TEMP" | b"TMPDIR" => value.clone(),
            b"PWD" => anywhere(value, root).filter(|_| value == cwd)?,
            _ if has(value, root) => return None,
            _ => value.clone(),
        };
        Some((name.clone(), value))
    };
    env.iter().map(moved).collect()
}

/// Whether a file of the system's that says `__FILE__` or its kin does so for itself alone: `assert` does nothing then, and
/// the C++ library means its own headers.
#[must_use]
pub fn is_for_itself(path: &[u8], plan: &Plan) -> bool {
    let defines = |begin: &[u8]| plan.defines.iter().any(|(name, _)| name.starts_with(begin));
    if path == b"/usr/include/assert.h" {
        return plan.defines.iter().any(|(name, _)| name == b"NDEBUG");
    }
    let is_library = path.starts_with(b"/usr/include/") && has(path, b"/c++/") && !defines(b"_GLIBCXX_");
    let own: [&[u8]; 3] = [b"/bits/c++config.h", b"/pstl/pstl_config.h", b"/version"];
    let folders: [&[u8]; 2] = [b"/debug/", b"/parallel/"];
    is_library && (own.iter().any(|name| path.ends_with(name)) || folders.iter().any(|folder| has(path, folder)))
}

/// Whether an object does not tell where it was made: neither the root, nor its form in gcc's names, nor a sum of a path.
#[must_use]
pub fn is_silent(object: &[u8], root: &[u8]) -> bool {
    let mangled: Vec<u8> = root.iter().map(|b| if b.is_ascii_alphanumeric() { *b } else { b'_' }).collect();
    !has(object, root) && !has(object, &mangled) && !has_sum(object)
}

/// gcc names the constructors of a file without public names after a checksum of its path.
fn has_sum(object: &[u8]) -> bool {
    const NAME: &[u8] = b"_GLOBAL__";
    const SUM_DIGITS: usize = 8;
    memmem::find_iter(object, NAME).any(|at| {
        let rest = &object[at + NAME.len()..];
        let end = rest.iter().position(|b| !b.is_ascii_alphanumeric() && !matches!(b, b'_' | b'.' | b'$'));
        let name = &rest[..end.unwrap_or(rest.len())];
        let is_sum =
            |part: &[u8]| part.len() == SUM_DIGITS && part.iter().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
        name.split(|b| *b == b'_').any(is_sum)
    })
}

#[cfg(test)]
#[path = "portable_tests.rs"]
mod tests;
