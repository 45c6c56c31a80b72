//! A compiler's own include directories, as it lists them itself (DO).

use super::{ask::ask, native::PLAIN_PATH, registry::Toolchain, stamp::Stamp};
use crate::{
    compiler::{invocation::Family, plan::Language},
    reason::Reason,
};
use mesh_proto::{digest::Digest, frame, toolchain::Fingerprint};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Answers kept in memory, number: one for each toolchain, language and set of probe arguments in use.
const ANSWERS_MAX: usize = 4096;
/// The folder's name carries the version of the format.
const FOLDER: &str = "search-v1";
/// One answer on disk, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Directories in one answer, number.
const DIRS_MAX: usize = 512;
/// Variables that change a compiler's own directories and are not expressed as options.
const VARIABLES: &[&[u8]] = &[b"SDKROOT", b"MACOSX_DEPLOYMENT_TARGET"];

/// A compiler's own include directories for a language and some arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchDirs {
    /// Those that are searched, in order, as the compiler spells them.
    pub present: Vec<Vec<u8>>,
    /// Those that it would search, had it found them.
    pub absent: Vec<Vec<u8>>,
}

/// The compiler's own directories in order: those that are there, then those that are not (which matter only as
/// absent: once one appears, the compiler is asked again). Not kept; see [`Searcher::system_dirs`].
///
/// # Errors
/// [`Reason::Compiler`] if the compiler gives no answer, [`Reason::ToolchainOption`] if it uses an installation that is not
/// part of the toolchain.
pub fn system_dirs(
    toolchain: &Toolchain,
    language: Language,
    probe_args: &[Vec<u8>],
    env: &[(Vec<u8>, Vec<u8>)],
) -> Result<Arc<[Vec<u8>]>, Reason> {
    Ok(question(toolchain, language, probe_args, &relevant(env))?.all())
}

impl SearchDirs {
    fn all(&self) -> Arc<[Vec<u8>]> {
        self.present.iter().chain(&self.absent).cloned().collect()
    }
}

/// What an answer depends on besides the file system.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    toolchain: Fingerprint,
    language: String,
    probe_args: Vec<Vec<u8>>,
    env: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Key {
    fn new(toolchain: &Toolchain, language: Language, probe_args: &[Vec<u8>], env: &[(Vec<u8>, Vec<u8>)]) -> Self {
        Self {
            toolchain: toolchain.fingerprint,
            language: language_name(language).to_owned(),
            probe_args: probe_args.to_vec(),
            env: relevant(env),
        }
    }
}

/// An answer, and what lies behind the directories in and around it. A directory that appears or goes changes the times
/// of the one that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    key: Key,
    dirs: SearchDirs,
    witnesses: Vec<(Vec<u8>, Option<Stamp>)>,
}

/// Answers about include directories, kept in memory and on disk, each checked before it is used.
#[derive(Debug)]
pub struct Searcher {
    folder: PathBuf,
    answers: Mutex<HashMap<Key, Arc<Answered>>>,
}

#[derive(Debug)]
struct Answered {
    kept: Kept,
    all: Arc<[Vec<u8>]>,
}

impl Searcher {
    /// A searcher that keeps its answers below `cache_dir`.
    #[must_use]
    pub fn new(cache_dir: &Path) -> Self {
        Self { folder: cache_dir.join(FOLDER), answers: Mutex::default() }
    }

    /// The compiler's own directories in order, as [`system_dirs`] gives them. An answer is used again after some twenty
    /// `stat` calls show that no directory in or right above it has changed.
    ///
    /// # Errors
    /// As for [`system_dirs`].
    pub fn system_dirs(
        &self,
        toolchain: &Toolchain,
        language: Language,
        probe_args: &[Vec<u8>],
        env: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Arc<[Vec<u8>]>, Reason> {
        let key = Key::new(toolchain, language, probe_args, env);
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&key).map(Arc::clone);
        if let Some(answered) = known.filter(|a| a.kept.holds()) {
            return Ok(Arc::clone(&answered.all));
        }
        let path = self.folder.join(Digest::of(&postcard::to_stdvec(&key).unwrap_or_default()).hex());
        let kept = match load(&path).filter(|kept| kept.key == key && kept.holds()) {
            Some(kept) => kept,
            None => {
                let dirs = question(toolchain, language, probe_args, &key.env)?;
                let kept = Kept { witnesses: witnesses(toolchain, &dirs), dirs, key: key.clone() };
                if let Err(error) = self.save(&path, &kept) {
                    tracing::debug!(%error, "include directories were not kept");
                }
                kept
            }
        };
        let all = kept.dirs.all();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(key, Arc::new(Answered { kept, all: Arc::clone(&all) }));
        Ok(all)
    }

    /// Every path on which [`Searcher::system_dirs`]'s last answer to this question depends. `None` if there is none.
    #[must_use]
    pub fn depends_on(
        &self,
        toolchain: &Toolchain,
        language: Language,
        probe_args: &[Vec<u8>],
        env: &[(Vec<u8>, Vec<u8>)],
    ) -> Option<Vec<Vec<u8>>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = answers.get(&Key::new(toolchain, language, probe_args, env))?;
        Some(answered.kept.witnesses.iter().map(|(path, _)| path.clone()).collect())
    }

    fn save(&self, path: &Path, kept: &Kept) -> std::io::Result<()> {
        let bytes = frame::encode(kept, ANSWER_BYTES_MAX).map_err(std::io::Error::other)?;
        fs::create_dir_all(&self.folder)?;
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        fs::write(&beside, bytes)?;
        fs::rename(beside, path)
    }
}

impl Kept {
    fn holds(&self) -> bool {
        self.witnesses.iter().all(|(path, stamp)| Stamp::behind(path).ok() == *stamp)
    }
}

fn load(path: &Path) -> Option<Kept> {
    let bytes = fs::read(path).ok()?;
    match frame::parse(&bytes, ANSWER_BYTES_MAX) {
        Ok(frame::Parsed::Frame { message, .. }) => Some(message),
        _ => None,
    }
}

/// Of an environment, sorted, what changes a compiler's own directories.
#[must_use]
pub fn relevant(env: &[(Vec<u8>, Vec<u8>)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut env: Vec<_> = env.iter().filter(|(name, _)| VARIABLES.contains(&&name[..])).cloned().collect();
    env.sort();
    env
}

/// What `-x` calls a language.
fn language_name(language: Language) -> &'static str {
    match language {
        Language::C => "c",
        Language::Cxx => "c++",
        Language::ObjC => "objective-c",
        Language::ObjCxx => "objective-c++",
        // Preprocessed text includes nothing; the question is the same as for the plain language.
        Language::PreprocessedC => "c",
        Language::PreprocessedCxx => "c++",
        Language::AssemblerWithCpp => "assembler-with-cpp",
    }
}

/// Asks the compiler.
fn question(
    toolchain: &Toolchain,
    language: Language,
    probe_args: &[Vec<u8>],
    env: &[(Vec<u8>, Vec<u8>)],
) -> Result<SearchDirs, Reason> {
    let before = ["-x", language_name(language)].into_iter().map(OsStr::new);
    let after = ["-E", "-v", "/dev/null"].into_iter().map(OsStr::new);
    let args = before.chain(probe_args.iter().map(|arg| OsStr::from_bytes(arg))).chain(after);
    let answer = ask(toolchain.program(), args, PLAIN_PATH, env).map_err(|error| {
        tracing::debug!(%error, "no answer about include directories");
        Reason::Compiler
    })?;
    if !answer.success {
        return Err(Reason::Compiler);
    }
    if toolchain.family == Family::Clang && parse_install(&answer.stderr) != toolchain.gcc_install.as_deref() {
        // The provider's clang would not see that installation's marks and would search elsewhere.
        return Err(Reason::ToolchainOption);
    }
    let dirs = parse_search_list(&answer.stderr).ok_or(Reason::Compiler)?;
    if dirs.present.len() + dirs.absent.len() > DIRS_MAX { Err(Reason::TooLarge) } else { Ok(dirs) }
}

/// The GCC installation that clang says it uses.
fn parse_install(text: &[u8]) -> Option<&[u8]> {
    text.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(b"Selected GCC installation: "))
}

/// Reads the lists in the `-v` text of a preprocessor run.
fn parse_search_list(text: &[u8]) -> Option<SearchDirs> {
    let mut dirs = SearchDirs { present: Vec::new(), absent: Vec::new() };
    let mut within = false;
    for line in text.split(|b| *b == b'\n') {
        if let Some(rest) = line.strip_prefix(b"ignoring nonexistent directory \"") {
            let path = rest.strip_suffix(b"\"")?.to_vec();
            if !dirs.absent.contains(&path) {
                dirs.absent.push(path);
            }
        } else if line == b"#include <...> search starts here:" {
            within = true;
        } else if line == b"End of search list." {
            // Without that head (all directories switched off) clang's list is empty.
            return Some(dirs);
        } else if within && let Some(path) = line.strip_prefix(b" ") {
            // A framework directory of macOS is no directory for `#include <name>` by itself.
            if !path.ends_with(b" (framework directory)") {
                dirs.present.push(path.to_vec());
            }
        }
    }
    None
}

/// What to look at to see that an answer still stands: its directories, the ones right above them, and where a driver
/// looks for libraries of C++ beside itself.
fn witnesses(toolchain: &Toolchain, dirs: &SearchDirs) -> Vec<(Vec<u8>, Option<Stamp>)> {
    let mut paths = BTreeSet::new();
    for dir in dirs.present.iter().chain(&dirs.absent) {
        paths.insert(dir.clone());
        paths.insert([dir, &b"/.."[..]].concat());
        if let Some(cut) = dir.iter().rposition(|b| *b == b'/') {
            paths.insert(dir[..cut.max(1)].to_vec());
        }
    }
    for path in [&toolchain.driver, &toolchain.real] {
        if let Some(dir) = path.parent() {
            paths.insert([dir.as_bytes(), b"/../include"].concat());
            paths.insert([dir.as_bytes(), b"/../include/c++"].concat());
        }
    }
    paths.into_iter().map(|path| (Stamp::behind(&path).ok(), path)).map(|(stamp, path)| (path, stamp)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Option<(Vec<String>, Vec<String>)> {
        let text_of = |dirs: Vec<Vec<u8>>| dirs.into_iter().map(|d| String::from_utf8(d).expect("text")).collect();
        parse_search_list(text.as_bytes()).map(|d| (text_of(d.present), text_of(d.absent)))
    }

    #[test]
    fn gccs_list_is_read_in_order() {
        let text = "Using built-in specs.\n /usr/lib/gcc/cc1 -E -quiet\n\
            ignoring duplicate directory \"/usr/include/x\"\n\
            ignoring nonexistent directory \"/usr/local/include/x86_64-linux-gnu\"\n\
            ignoring nonexistent directory \"/no where\"\n\
            #include \"...\" search starts here:\n /quoted\n#include <...> search starts here:\n /usr/include/c++/12\n\
            \u{20}/usr/include\nEnd of search list.\n /not/a/dir\n";
        let (present, absent) = list(text).expect("a list");
        assert_eq!(present, ["/usr/include/c++/12", "/usr/include"]);
        assert_eq!(absent, ["/usr/local/include/x86_64-linux-gnu", "/no where"]);
    }

    #[test]
    fn clangs_list_is_read_with_frameworks_left_out() {
        let text = "clang -cc1 version 14.0.6 based upon LLVM 14.0.6 default target x\n\
            ignoring nonexistent directory \"/include\"\n#include \"...\" search starts here:\n\
            #include <...> search starts here:\n /usr/lib/llvm-14/lib/clang/14.0.6/include\n\
            \u{20}/System/Library/Frameworks (framework directory)\nEnd of search list.\n";
        let (present, absent) = list(text).expect("a list");
        assert_eq!(
            (present, absent),
            (vec!["/usr/lib/llvm-14/lib/clang/14.0.6/include".into()], vec!["/include".into()])
        );
    }

    #[test]
    fn a_list_that_does_not_end_is_no_answer_and_an_empty_one_is() {
        assert_eq!(list("#include <...> search starts here:\n /usr/include\n"), None);
        assert_eq!(list("gcc: error\n"), None);
        assert_eq!(list("#include \"...\" search starts here:\nEnd of search list.\n"), Some((vec![], vec![])));
    }
}
