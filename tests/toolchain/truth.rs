//! The truth about toolchains: what a manifest names is enough to compile in an otherwise empty root, and what comes
//! out is what the compiler makes on the whole machine, byte for byte. Needs root (or user namespaces) and bubblewrap;
//! says so where it is skipped.

use crate::skipped;
use mesh::{
    compiler::{invocation::Family, plan::Language},
    reason::Reason,
    toolchain::{LookupError, Registry, Searcher, Toolchain, native_trace, system_dirs},
};
use mesh_proto::toolchain::PartNode;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Instant,
};

/// Of a header's path, so many components may be its name below a search directory.
const HEADER_DEPTH_MAX: usize = 4;
const PATH_VAR: &str = "/usr/local/bin:/usr/bin:/bin";

const C_SAMPLE: &str = "#include <stdio.h>\n#include <string.h>\n#include <assert.h>\n\
    int f(int n, char *s) { int v[8]; assert(n < 8); memset(v, n, sizeof v);\n\
    #pragma omp parallel for\n for (int i = 0; i < n; i++) v[i] += i;\n\
    printf(\"%s %d %s\\n\", s, v[n], __FILE__); return v[0] / n; }\n";
const CXX_SAMPLE: &str = "#include <vector>\n#include <string>\n#include <map>\n#include <stdexcept>\n\
    template <class T> T sum(const std::vector<T> &v) { T t{}; for (auto &x : v) t += x; return t; }\n\
    int g(std::map<std::string, int> &m) { try { return sum(std::vector<int>{1, 2, m.at(\"x\")}); }\n\
    catch (const std::out_of_range &) { return static_cast<int>(m.size()); } }\n";

/// What is passed for both languages, and for whom.
const FLAGS: &[(Option<Family>, &str)] = &[
    (None, "-c -O2"),
    (None, "-c -g"),
    (None, "-c -O2 -g3 -Wall -Wextra -MD"),
    (None, "-S -O1"),
    (None, "-c -O2 -flto -frandom-seed=1"),
    (None, "-c -g -flto -ffat-lto-objects -frandom-seed=1"),
    (None, "-c -O1 -g -fsanitize=address,undefined"),
    (None, "-c -O1 -fsanitize=thread"),
    (None, "-c -O2 -march=native"),
    (None, "-c -O0 -g -gsplit-dwarf"),
    (None, "-c -g -gz"),
    (None, "-c -O2 -pipe"),
    (None, "-c -O2 -fopenmp"),
    (None, "-c -O2 --coverage -frandom-seed=1"),
    (None, "-c -O2 -fno-inline -pg"),
    (Some(Family::Gcc), "-c -g -gdwarf-4 -fdebug-types-section -fstack-usage"),
    (Some(Family::Gcc), "-c -O2 -frecord-gcc-switches"),
    (Some(Family::Clang), "-c -O2 -flto=thin"),
    (Some(Family::Clang), "-c -O2 -fno-integrated-as"),
    (Some(Family::Clang), "-c -g -fno-integrated-as -gsplit-dwarf"),
    (Some(Family::Clang), "-c -g -fsanitize=cfi -flto -fvisibility=hidden"),
];

pub(crate) fn registry(cache: &Path) -> Registry {
    Registry::open(cache, None)
}

pub(crate) fn lookup(registry: &Registry, program: &str) -> Option<Arc<Toolchain>> {
    match registry.lookup(program.as_bytes(), b"/", PATH_VAR.as_bytes(), Instant::now()) {
        Ok(toolchain) => Some(toolchain),
        Err(LookupError::NotFound) => {
            skipped(&format!("{program} is not installed"));
            None
        }
        Err(LookupError::Local(Reason::Changing)) => {
            skipped(&format!("{program} was installed a moment ago"));
            None
        }
        Err(other) => panic!("{program}: {other}"),
    }
}

/// The options for a root with the toolchain's parts, these headers and directories, and nothing else. Files are bound,
/// neither copied (a hundred megabytes) nor hard-linked (which changes their times, by which everybody knows them).
fn root_options(toolchain: &Toolchain, headers: &BTreeSet<PathBuf>, dirs: &[Vec<u8>]) -> Vec<OsString> {
    let mut options: Vec<OsString> = Vec::new();
    let mut add = |words: [&OsStr; 3]| options.extend(words.iter().filter(|w| !w.is_empty()).map(|w| w.to_os_string()));
    for part in &toolchain.manifest.parts {
        let path = OsStr::from_bytes(part.path.as_bytes());
        match &part.node {
            PartNode::File { .. } => add(["--ro-bind".as_ref(), path, path]),
            PartNode::Symlink { target } => add(["--symlink".as_ref(), OsStr::from_bytes(target), path]),
            PartNode::Directory => add(["--dir".as_ref(), path, "".as_ref()]),
        }
    }
    for header in headers {
        add(["--ro-bind".as_ref(), header.as_ref(), header.as_ref()]);
        // mingw's headers are links, and gcc lists what they lead to.
        let tails = header.ancestors().skip(1).take(HEADER_DEPTH_MAX).filter_map(|top| header.strip_prefix(top).ok());
        let reals = dirs.iter().filter_map(|dir| fs::canonicalize(OsStr::from_bytes(dir)).ok());
        let links: BTreeSet<PathBuf> = reals
            .flat_map(|dir| tails.clone().map(move |tail| dir.join(tail)))
            .filter(|link| link.is_symlink())
            .collect();
        for link in links.iter().filter(|link| fs::canonicalize(link).is_ok_and(|real| real == *header)) {
            let target = fs::read_link(link).expect("a link");
            add(["--symlink".as_ref(), target.as_ref(), link.as_ref()]);
        }
    }
    for dir in dirs {
        if let Ok(real) = fs::canonicalize(OsStr::from_bytes(dir)) {
            add(["--dir".as_ref(), real.as_ref(), "".as_ref()]);
        }
    }
    options
}

/// Every file that the compiler lists for these arguments, by real path; none if they are wrong.
fn headers(toolchain: &Toolchain, source: &Path, flags: &[&str]) -> BTreeSet<PathBuf> {
    let kept = flags.iter().filter(|f| !matches!(**f, "-c" | "-S" | "-MD" | "-fsanitize=cfi"));
    let out = Command::new(toolchain.program()).args(kept).arg("-M").arg(source).output().expect("runs");
    let text = String::from_utf8(out.stdout).expect("text").replace("\\\n", " ");
    let listed = text.split_once(':').map_or("", |(_, listed)| listed).split_whitespace();
    listed.map(|p| fs::canonicalize(p).expect("there")).filter(|p| p.starts_with("/usr")).collect()
}

/// Every file in a directory with its bytes.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("listed").map(|e| e.expect("an entry"));
    entries.map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).expect("read"))).collect()
}

/// Runs a command in `work`, on this machine or in the root, and takes away what it made.
fn run(
    root: Option<&[OsString]>,
    work: &Path,
    toolchain: &Toolchain,
    args: &[&str],
) -> (Output, BTreeMap<String, Vec<u8>>) {
    let mut command = match root {
        None => Command::new(toolchain.program()),
        Some(options) => {
            let mut bwrap = Command::new("bwrap");
            bwrap.args(options).args(["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--unshare-all"]);
            bwrap.arg("--bind").args([work, work]).arg("--chdir").arg(work).arg(toolchain.program());
            bwrap
        }
    };
    let output = command.args(args).env_clear().env("PATH", PATH_VAR).env("LC_ALL", "C").current_dir(work).output();
    let output = output.expect("runs");
    let mut made = files(work);
    made.retain(|name, _| !matches!(name.as_str(), "sample.c" | "sample.cc"));
    for name in made.keys() {
        fs::remove_file(work.join(name)).expect("removed");
    }
    (output, made)
}

/// Whether an empty root can be made here at all.
fn can_sandbox() -> bool {
    let works = Command::new("bwrap").args(["--ro-bind", "/", "/", "--unshare-all", "/bin/true"]).output();
    let works = works.is_ok_and(|o| o.status.success());
    if !works {
        skipped("bubblewrap is not installed or cannot make namespaces here");
    }
    works
}

/// Compiles the samples with a compiler on the machine and in its empty root, with one in `every` sets of flags. (All of
/// them for gcc and clang, which compile both languages.)
pub(crate) fn check_truth(program: &str, every: usize) {
    let cache = tempfile::tempdir().expect("a directory");
    let registry = registry(cache.path());
    let Some(toolchain) = lookup(&registry, program).filter(|_| can_sandbox()) else { return };
    let cxx_only = toolchain.cxx_driver;
    for (name, text) in [("sample.c", C_SAMPLE), ("sample.cc", CXX_SAMPLE)] {
        if cxx_only && name == "sample.c" {
            continue;
        }
        // Beside the target directory, not in /tmp, which the root covers with an empty one.
        let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let source = work.path().join(name);
        fs::write(&source, text).expect("written");
        let language = if name == "sample.c" { Language::C } else { Language::Cxx };
        let dirs = match system_dirs(&toolchain, language, &[], &[]) {
            Err(Reason::Compiler) if every > 1 && language == Language::Cxx => {
                eprintln!("{program} has no C++");
                continue;
            }
            dirs => dirs.expect("listed"),
        };
        for (_, flags) in FLAGS.iter().filter(|(family, _)| family.is_none_or(|f| f == toolchain.family)).step_by(every)
        {
            let flags: Vec<&str> = flags.split(' ').collect();
            let root = root_options(&toolchain, &headers(&toolchain, &source, &flags), &dirs);
            let args = [&flags[..], &[name]].concat();
            let (here, made_here) = run(None, work.path(), &toolchain, &args);
            let (there, made_there) = run(Some(&root), work.path(), &toolchain, &args);
            let words = |o: &Output| String::from_utf8_lossy(&o.stderr).into_owned();
            assert_eq!((words(&there), there.status.code()), (words(&here), here.status.code()), "{program} {args:?}");
            assert!(
                here.status.success() || every > 1 || flags.contains(&"-fsanitize=cfi"),
                "{program} {args:?}: {}",
                words(&here)
            );
            assert_eq!(
                made_there.keys().collect::<Vec<_>>(),
                made_here.keys().collect::<Vec<_>>(),
                "{program} {args:?}"
            );
            for (file, bytes) in &made_here {
                assert!(made_there[file] == *bytes, "{program} {args:?}: {file} differs");
            }
        }
    }
}

#[test]
fn gcc_compiles_in_an_empty_root_as_on_the_machine() {
    check_truth("gcc", 1);
}

#[test]
fn gxx_compiles_in_an_empty_root_as_on_the_machine() {
    check_truth("g++", 4);
}

#[test]
fn clang_compiles_in_an_empty_root_as_on_the_machine() {
    check_truth("clang", 1);
}

/// `MESH_TEST_COMPILERS` names more of them: cross compilers, other versions.
#[test]
fn further_compilers_compile_in_an_empty_root_too() {
    let more = std::env::var("MESH_TEST_COMPILERS").unwrap_or_default();
    for program in ["clang++"].into_iter().chain(more.split_whitespace()) {
        check_truth(program, 4);
    }
}

#[test]
fn without_any_one_of_its_files_a_compiler_fails_or_makes_something_else() {
    let cache = tempfile::tempdir().expect("a directory");
    let registry = registry(cache.path());
    for (program, args, needed) in [
        ("gcc", "-c -O2 sample.cc", &["/cc1plus", "/libisl.so", "/ld-linux", "-as", "/libbfd", "/gcc"][..]),
        ("clang", "-c -O2 sample.cc", &["/libLLVM", "/libedit.so", "/crtbegin.o", "/bin/clang"][..]),
    ] {
        let Some(toolchain) = lookup(&registry, program).filter(|_| can_sandbox()) else { return };
        let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        fs::write(work.path().join("sample.cc"), CXX_SAMPLE).expect("written");
        let args: Vec<&str> = args.split(' ').collect();
        let dirs = system_dirs(&toolchain, Language::Cxx, &[], &[]).expect("listed");
        let headers = headers(&toolchain, &work.path().join("sample.cc"), &["-O2"]);
        let (_, whole) = run(Some(&root_options(&toolchain, &headers, &dirs)), work.path(), &toolchain, &args);
        assert!(whole.contains_key("sample.o"), "{program}");
        for name in needed {
            let mut less = Toolchain::clone(&toolchain);
            let text = |p: &mesh_proto::toolchain::Part| String::from_utf8_lossy(p.path.as_bytes()).into_owned();
            Arc::make_mut(&mut less.manifest).parts.retain(|p| !text(p).contains(name));
            assert_ne!(less.manifest.parts.len(), toolchain.manifest.parts.len(), "{program} has no {name}");
            let (_, made) = run(Some(&root_options(&less, &headers, &dirs)), work.path(), &toolchain, &args);
            assert_ne!(made, whole, "{program} without {name}");
        }
    }
}

#[test]
fn a_compiler_is_found_once_and_known_to_the_next_life() {
    let cache = tempfile::tempdir().expect("a directory");
    let first = registry(cache.path());
    let Some(gcc) = lookup(&first, "gcc") else { return };
    assert_eq!((gcc.family, gcc.cxx_driver, gcc.driver.as_bytes()), (Family::Gcc, false, &b"/usr/bin/gcc"[..]));
    assert_eq!(gcc.label(), format!("gcc {}", gcc.version));
    assert!(Arc::ptr_eq(&gcc, &lookup(&first, "gcc").expect("known")));
    assert!(gcc.manifest.parts.is_sorted_by(|a, b| a.path < b.path));
    assert!(!gcc.manifest.parts.iter().any(|p| p.path.as_bytes().ends_with(b".h")), "headers are inputs");
    let machine = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    let needs = gcc.manifest.needs().expect("said");
    assert_eq!((needs.machine, needs.level > 0), (machine, machine == 62));
    let found = first.by_fingerprint(gcc.fingerprint, Instant::now()).expect("known");
    assert!(Arc::ptr_eq(&gcc, &found));

    let again = registry(cache.path());
    let began = Instant::now();
    let same = again.by_fingerprint(gcc.fingerprint, began).expect("kept");
    assert_eq!((&same.manifest, same.fingerprint), (&gcc.manifest, gcc.fingerprint));
    drop(again);
    for entry in fs::read_dir(cache.path().join("compilers-v2")).expect("there") {
        fs::write(entry.expect("an entry").path(), b"nonsense").expect("written");
    }
    let third = registry(cache.path());
    assert!(third.by_fingerprint(gcc.fingerprint, Instant::now()).is_none());
    assert_eq!(lookup(&third, "gcc").expect("found anew").fingerprint, gcc.fingerprint);
}

#[test]
fn each_path_is_a_toolchain_of_its_own_and_all_are_advertised() {
    let cache = tempfile::tempdir().expect("a directory");
    let registry = registry(cache.path());
    let (Some(gcc), Some(cc)) = (lookup(&registry, "gcc"), lookup(&registry, "cc")) else { return };
    assert_ne!(gcc.fingerprint, cc.fingerprint);
    let all = registry.scan(&[PathBuf::from("/usr/local/bin"), PathBuf::from("/usr/bin"), PathBuf::from("/bin")]);
    for one in [&gcc, &cc] {
        assert!(all.iter().any(|t| t.fingerprint == one.fingerprint), "{:?}", one.driver);
    }
    let mut fingerprints: Vec<_> = all.iter().map(|t| t.fingerprint).collect();
    fingerprints.sort();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), all.len());
}

#[test]
fn scripts_and_strangers_are_local_and_the_absent_not_found() {
    let cache = tempfile::tempdir().expect("a directory");
    let registry = registry(cache.path());
    let script = cache.path().join("gcc");
    fs::write(&script, "#!/bin/sh\nexec /usr/bin/gcc \"$@\"\n").expect("written");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("changed");
    let ask = |program: &str| {
        registry.lookup(program.as_bytes(), b"/", PATH_VAR.as_bytes(), Instant::now()).map(|t| t.driver.clone())
    };
    assert_eq!(ask(script.to_str().expect("text")), Err(LookupError::Local(Reason::Wrapper)));
    assert_eq!(ask("ls"), Err(LookupError::Local(Reason::Compiler)));
    assert_eq!(ask("no-such-gcc"), Err(LookupError::NotFound));
    fs::copy("/bin/true", cache.path().join("cc")).expect("copied");
    let stranger = cache.path().join("cc");
    assert_eq!(ask(stranger.to_str().expect("text")), Err(LookupError::Local(Reason::Compiler)));
}

#[test]
fn a_compilers_own_directories_are_listed_and_kept() {
    let cache = tempfile::tempdir().expect("a directory");
    let registry = registry(cache.path());
    let searcher = Searcher::new(cache.path());
    for program in ["gcc", "clang"] {
        let Some(toolchain) = lookup(&registry, program) else { continue };
        let c = searcher.system_dirs(&toolchain, Language::C, &[], &[]).expect("listed");
        let cxx = searcher.system_dirs(&toolchain, Language::Cxx, &[], &[]).expect("listed");
        let none = searcher.system_dirs(&toolchain, Language::C, &[b"-nostdinc".to_vec()], &[]).expect("listed");
        assert!(c.contains(&b"/usr/include".to_vec()) && cxx.len() > c.len(), "{program}");
        assert!(!none.contains(&b"/usr/include".to_vec()), "{program}");
        assert_eq!(system_dirs(&toolchain, Language::C, &[], &[]).as_ref(), Ok(&c));
        assert!(Arc::ptr_eq(&c, &searcher.system_dirs(&toolchain, Language::C, &[], &[]).expect("kept")));
        let next = Searcher::new(cache.path());
        assert_eq!(next.system_dirs(&toolchain, Language::Cxx, &[], &[]), Ok(cxx));
        let bad = searcher.system_dirs(&toolchain, Language::C, &[b"--no-such-option".to_vec()], &[]);
        assert_eq!(bad, Err(Reason::Compiler), "{program}");
    }
}

#[test]
fn native_flags_are_written_out_by_the_driver() {
    let cache = tempfile::tempdir().expect("a directory");
    let registry = registry(cache.path());
    let question = |flag: &str| ["-###", "-S", "-x", "c", "/dev/null", flag].map(|a| a.as_bytes().to_vec());
    for (program, word) in [("gcc", "-march="), ("clang", "-target-cpu")] {
        let Some(toolchain) = lookup(&registry, program) else { continue };
        let text = native_trace(&toolchain, &question("-march=native")).expect("an answer");
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains(word) && !text.contains("\"-march=native\""), "{text}");
        assert_eq!(native_trace(&toolchain, &question("--no-such-option")), Err(Reason::NativeArch), "{program}");
    }
}

#[test]
fn what_native_stands_for_is_the_same_command_for_every_family() {
    use mesh::compiler::native::{question, substitute};
    let cache = tempfile::tempdir().expect("a directory");
    let registry = registry(cache.path());
    let words = |line: &str| line.split(' ').map(|w| w.as_bytes().to_vec()).collect::<Vec<_>>();
    for program in ["gcc", "g++", "clang", "clang-16"] {
        let Some(toolchain) = lookup(&registry, program) else { continue };
        for options in ["-march=native", "-march=native -mtune=native", "-mtune=native", "-mno-avx -march=native -mbmi"]
        {
            let command = words(&format!("{program} -O2 {options} -c x.c -o x.o"));
            let native: Vec<usize> = (0..command.len()).filter(|at| command[*at].ends_with(b"=native")).collect();
            let asked = question(&command, &native, toolchain.family);
            let answer = native_trace(&toolchain, &asked.argv[1..]).expect("an answer");
            let expansion = asked.expansion(&answer).unwrap_or_else(|| panic!("{program} {options} is not understood"));
            let expanded = native_trace(&toolchain, &asked.with(&expansion)[1..]).expect("an answer");
            let agree = asked.agree(&answer, &expanded);
            // clang moves the command's own features behind the others: such a unit stays here.
            let is_sure = toolchain.family == Family::Gcc || !options.contains("-mno-avx");
            assert!(agree || !is_sure, "{program} {options}");
            let whole = substitute(&command, &native, &expansion);
            assert!(!whole.iter().any(|word| word.ends_with(b"=native")), "{program} {options}");
        }
    }
    // A compiler for another processor knows of no native one.
    if let Some(cross) = lookup(&registry, "aarch64-linux-gnu-gcc") {
        let command = words("aarch64-linux-gnu-gcc -march=native -c x.c");
        let asked = question(&command, &[1], cross.family);
        let answer = native_trace(&cross, &asked.argv[1..]);
        assert!(answer.map_or(true, |answer| asked.expansion(&answer).is_none()));
    }
}
