//! What the plan says of a command line, held against what gcc and clang do with it.
//!
//! A compiler that is not installed is skipped, and says so.

use mesh::compiler::invocation::{Family, Invocation};
use mesh::compiler::native::{question, substitute};
use mesh::compiler::plan::{Deps, Language, Plan};
use mesh::compiler::{plan, response, surely_local};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SOURCE: &str = "#include <stddef.h>\n#include \"h.h\"\nint f(int a) { return a + H; }\n\
    long g(const int *a, const int *b, int n) { long s = 0; for (int i = 0; i < n; i++) s += a[i] * b[i] + i; return s; }\n";

/// A folder with sources in every language, and subfolders for outputs.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for name in ["out", "d", "s"] {
        std::fs::create_dir(folder.path().join(name)).expect("a folder");
    }
    for name in ["a.c", "a.b.c", "s/a.c", "noext", "a.cc", "a.C", "a.cp", "a.c++", "a.CPP", "a.CC", "a.CXX", "a.cxx"] {
        std::fs::write(folder.path().join(name), SOURCE).expect("a source");
    }
    for name in ["a.i", "a.ii", "a.m", "a.mm", "a.M", "a.h", "a.hh", "a.cu"] {
        std::fs::write(folder.path().join(name), "int f(int a) { return a; }\n").expect("a source");
    }
    for name in ["h.h", "s/h.h"] {
        std::fs::write(folder.path().join(name), "#define H 1\n").expect("a header");
    }
    std::fs::write(folder.path().join("list"), "").expect("a list");
    folder
}

/// The compilers of this machine, by name and with their major version.
fn compilers(names: &[&'static str]) -> Vec<(&'static str, u32)> {
    let version = |name: &str| {
        let out = Command::new(name).arg("-dumpversion").output().ok().filter(|o| o.status.success())?;
        String::from_utf8_lossy(&out.stdout).trim().split('.').next()?.parse().ok()
    };
    let found: Vec<_> = names.iter().filter_map(|name| Some((*name, version(name)?))).collect();
    for name in names.iter().filter(|name| !found.iter().any(|(f, _)| f == *name)) {
        eprintln!("SKIPPED: {name} is not installed");
    }
    found
}

fn words(text: &str) -> Vec<Vec<u8>> {
    text.split_whitespace().map(|w| w.as_bytes().to_vec()).collect()
}

fn invocation(compiler: (&str, u32), arguments: &str, cwd: &Path) -> Invocation {
    let (name, version_major) = compiler;
    Invocation {
        argv: words(&format!("{name} {arguments}")),
        cwd: cwd.as_os_str().as_bytes().to_vec(),
        env: Vec::new(),
        family: if name.starts_with("clang") { Family::Clang } else { Family::Gcc },
        version_major,
        cxx_driver: name.ends_with("++"),
    }
}

fn run(argv: &[Vec<u8>], cwd: &Path) -> Output {
    use std::ffi::OsStr;
    let mut command = Command::new(OsStr::from_bytes(&argv[0]));
    command.args(argv[1..].iter().map(|a| OsStr::from_bytes(a))).current_dir(cwd);
    for name in ["CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "SOURCE_DATE_EPOCH", "DEPENDENCIES_OUTPUT"] {
        command.env_remove(name);
    }
    command.output().expect("the compiler runs")
}

/// Every file under a folder, by its path from there.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").path()) {
            if entry.is_dir() {
                open.push(entry);
            } else {
                found.insert(entry.strip_prefix(folder).expect("below it").to_path_buf());
            }
        }
    }
    found
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8(bytes.to_vec()).expect("the tests' own names"))
}

/// Runs a command that the plan sends out, and checks that all it makes is where the plan looks: the object by its name,
/// anything else in the directory of a file that the plan names.
fn makes_what_the_plan_says(compiler: (&'static str, u32), arguments: &str) {
    let folder = folder();
    let before = files(folder.path());
    let inv = invocation(compiler, arguments, folder.path());
    let command = format!("{} {arguments}", compiler.0);
    let plan = plan(&inv).unwrap_or_else(|reason| panic!("{command} stays here: {reason}"));
    let out = run(&inv.argv, folder.path());
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    let mut made: BTreeSet<_> = files(folder.path()).difference(&before).cloned().collect();
    assert!(made.remove(&path(&plan.output)), "{command} makes no {:?} but {made:?}", path(&plan.output));
    let named: BTreeSet<_> = plan.side_outputs.iter().map(|p| path(p)).collect();
    let apart: Vec<_> = made.difference(&named).filter(|p| !NAMED_OTHERWISE.iter().any(|n| p.ends_with(n))).collect();
    assert!(apart.is_empty(), "{command} also makes {apart:?}, not in {named:?}");
    let folders: BTreeSet<_> = named
        .iter()
        .map(|p| p.parent())
        .chain([path(&plan.output).parent()])
        .collect::<Vec<_>>()
        .into_iter()
        .map(|p| p.map(Path::to_path_buf))
        .collect();
    assert!(made.iter().all(|p| folders.contains(&p.parent().map(Path::to_path_buf))), "{command}: {made:?}");
    lists_what_the_plan_says(&command, &plan, folder.path());
}

/// What gcc names after the source as well: found by its directory.
const NAMED_OTHERWISE: &[&str] = &["b.c.opt-record.json.gz", "a.c.opt-record.json.gz"];

/// A dependency list that leaves system headers out names none of them, and the other kind does.
fn lists_what_the_plan_says(command: &str, plan: &Plan, folder: &Path) {
    let (file, all) = match &plan.deps {
        Deps::None => return,
        Deps::All { path } => (path, true),
        Deps::User { path } => (path, false),
    };
    let text = std::fs::read_to_string(folder.join(path(file))).unwrap_or_else(|e| panic!("{command}: {e}"));
    if plan.language == Language::C {
        assert_eq!(text.contains("stddef.h"), all, "{command}: {text}");
        assert!(text.contains("h.h"), "{command}: {text}");
    }
}

#[test]
fn both_compilers_write_where_the_plan_says() {
    let cases = [
        "-c a.c",
        "-c s/a.c",
        "-c a.b.c",
        "-S a.c",
        "-S -c a.c",
        "-c -S a.c -o out/b.s -MD",
        "-c a.c -oout/b.o",
        "-c a.c --output=out/b.o",
        "-c a.c --output out/b.o",
        "-x c -c noext",
        "-c a.c -x c++",
        "-c a.c -MD",
        "-c s/a.c -MD",
        "-c a.b.c -MMD",
        "-c a.c -o out/b -MD",
        "-c a.c -o out/b.y.o -MMD -MP",
        "-c a.c -o out/b.o -MF d/x.d -MD -MFd/y.d",
        "-c a.c -MD -MMD",
        "-c a.c -MMD -MD",
        "-c a.c -o out/b.o -Wp,-MD,d/x.d",
        "-c a.c -o out/b.o -Wp,-MMD,d/x.d -MT t",
        "-c a.c --write-dependencies -o out/b.o",
        "-c a.c --write-user-dependencies",
        "-MD -c a.i",
        "-c s/a.c -g -gsplit-dwarf",
        "-c a.c -o out/b.y.o -g -gsplit-dwarf --coverage -fstack-usage -MD",
        "-c a.c -o out/b -g -gsplit-dwarf -ftest-coverage -fprofile-arcs -fstack-usage",
        "-c s/a.c --coverage -fstack-usage",
        "-c a.c -o out/b.o -fsave-optimization-record",
        "-c s/a.c -fsave-optimization-record",
        "-c a.c -std=gnu99 -include h.h -imacros h.h -Is -iquote d -isystem d -idirafter d -DX=1 -UX",
        "-c a.c -flto",
        "-c a.c -lm -Wl,-z,now -Lnowhere -Xlinker nowhere",
    ];
    for compiler in compilers(&["gcc", "clang"]) {
        for arguments in cases {
            makes_what_the_plan_says(compiler, arguments);
        }
    }
    for compiler in compilers(&["gcc"]) {
        for arguments in [
            "-c a.c -o out/b.o -fcallgraph-info",
            "-c a.c -o out/b.o -aux-info d/x",
            "-c a.c -o out/b.o --coverage -fprofile-note=d/x.gcno",
            "-c a.c -o out/b.o -Xpreprocessor -MD -Xpreprocessor d/x.d",
            "-c a.c -fopt-info-all",
            "-c a.c -T nowhere -u sym -z now -e main -A q=a",
        ] {
            makes_what_the_plan_says(compiler, arguments);
        }
    }
    for compiler in compilers(&["clang"]) {
        for arguments in [
            "-c -- a.c",
            "-c a.c -o out/b.o -o d/c.o -MD",
            "-c a.c -emit-llvm",
            "-S a.c -emit-llvm",
            "-c a.c -o out/b.o -ftime-trace",
            "-c s/a.c -ftime-trace",
            "-c a.c -o out/b.o --serialize-diagnostics d/x.dia",
            "-c a.c -o out/b.o -fsanitize=address -fsanitize-ignorelist=list",
            "-c a.c -Xclang -include -Xclang h.h -mllvm -inline-threshold=7",
            "-c a.c -o out/b.o -foptimization-record-file=d/x.yaml -fsave-optimization-record",
        ] {
            makes_what_the_plan_says(compiler, arguments);
        }
    }
}

/// What clang calls a language in its front end's `-x`, and which of gcc's front ends reads it.
fn in_the_front_end(language: Language) -> (&'static str, &'static str) {
    match language {
        Language::C => ("c", "cc1"),
        Language::Cxx => ("c++", "cc1plus"),
        Language::ObjC => ("objective-c", "cc1obj"),
        Language::ObjCxx => ("objective-c++", "cc1objplus"),
        Language::PreprocessedC => ("cpp-output", "cc1 -fpreprocessed"),
        Language::PreprocessedCxx => ("c++-cpp-output", "cc1plus -fpreprocessed"),
        Language::AssemblerWithCpp => ("assembler-with-cpp", "cc1"),
    }
}

#[test]
fn both_compilers_choose_the_language_that_the_plan_names() {
    let sources = [
        "a.c",
        "a.cc",
        "a.C",
        "a.cp",
        "a.c++",
        "a.CPP",
        "a.CC",
        "a.CXX",
        "a.cxx",
        "a.i",
        "a.ii",
        "a.m",
        "a.mm",
        "a.M",
        "-x c++ a.c",
        "-x c a.cc",
        "-xc++ -x none a.c",
        "a.c -x c++",
        "-x c a.h",
        "-x cpp-output a.c",
        "-x objective-c a.c",
    ];
    for compiler in compilers(&["gcc", "g++", "clang", "clang++"]) {
        let folder = folder();
        for source in sources {
            let inv = invocation(compiler, &format!("-c {source}"), folder.path());
            let Ok(plan) = plan(&inv) else {
                assert!(matches!(source, "a.CC" | "a.CXX" | "-xc++ -x none a.c"), "{source} stays here");
                continue;
            };
            let mut argv = inv.argv.clone();
            argv.push(b"-###".to_vec());
            let answer = String::from_utf8_lossy(&run(&argv, folder.path()).stderr).replace('"', "");
            let line = answer.lines().find(|l| l.contains("cc1")).unwrap_or_else(|| panic!("{source}: {answer}"));
            let (clang, gcc) = in_the_front_end(plan.language);
            if compiler.0.starts_with("clang") {
                assert!(line.contains(&format!(" -x {clang} ")), "{compiler:?} {source}: {line}");
            } else {
                let program = line.split_whitespace().next().and_then(|p| p.rsplit('/').next()).unwrap_or_default();
                let read =
                    if line.contains("-fpreprocessed") { format!("{program} -fpreprocessed") } else { program.into() };
                assert_eq!(read, gcc, "{compiler:?} {source}");
            }
        }
    }
}

/// The objects of a native command and of its expansion; `None` if it has none here, with the reason printed.
fn expanded_equals(compiler: (&'static str, u32), options: &str, source: &str) -> Option<bool> {
    let folder = folder();
    let inv = invocation(compiler, &format!("{options} -c {source} -o out/x.o"), folder.path());
    let plan = plan(&inv).unwrap_or_else(|reason| panic!("{options} stays here: {reason}"));
    let asked = question(&inv.argv, &plan.native, inv.family);
    let answer = run(&asked.argv, folder.path()).stderr;
    let Some(expansion) = asked.expansion(&answer) else {
        eprintln!("SKIPPED: {compiler:?} {options} has no expansion here");
        return None;
    };
    let expanded = run(&asked.with(&expansion), folder.path()).stderr;
    if !asked.agree(&answer, &expanded) {
        eprintln!("SKIPPED: {compiler:?} {options} does not come to the same here");
        return None;
    }
    let object = |argv: &[Vec<u8>]| {
        let out = run(argv, folder.path());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        (std::fs::read(folder.path().join("out/x.o")).expect("an object"), out.stderr)
    };
    let argv = substitute(&inv.argv, &plan.native, &expansion);
    assert!(!argv.iter().any(|a| a.ends_with(b"=native")));
    Some(object(&inv.argv) == object(&argv))
}

#[test]
fn an_expanded_native_command_makes_the_same_object() {
    let mut compared = 0;
    let found = compilers(&["gcc", "g++", "clang", "clang++"]);
    for compiler in &found {
        let source = if compiler.0.ends_with("++") { "a.cc" } else { "a.c" };
        let mut cases = vec![
            "-O2 -march=native",
            "-O3 -march=native -mtune=native",
            "-O2 -mtune=native",
            "-O2 -march=x86-64-v3 -mtune=native",
            "-O2 -march=native -mtune=generic",
            "-O2 -mno-avx2 -march=native",
            "-O2 -march=native -mno-avx512f -fopenmp-simd -Wall",
            "-O2 -march=native -m32 -fno-pic",
            "-O2 -march=native -march=native -S",
        ];
        match compiler.0.starts_with("clang") {
            true => cases.extend(["-O2 -g -march=native", "-O2 -march=native -g -gsplit-dwarf"]),
            false => cases.extend(["-O2 -g -gno-record-gcc-switches -march=native"]),
        }
        let cases = cases.into_iter().filter(|c| cfg!(target_arch = "x86_64") || !c.contains("x86-64"));
        for options in cases.map(|c| c.replace("-S", "-fno-asynchronous-unwind-tables")) {
            if options.contains("-m32") && !Path::new("/usr/include/gnu/stubs-32.h").exists() {
                eprintln!("SKIPPED: {options}: no 32-bit headers");
                continue;
            }
            let equal = expanded_equals(*compiler, &options, source);
            if options == "-O2 -march=native" && cfg!(target_arch = "x86_64") {
                assert!(equal.is_some(), "{compiler:?} writes out what this processor is");
            }
            if let Some(equal) = equal {
                assert!(equal, "{compiler:?} {options}");
                compared += 1;
            }
        }
    }
    eprintln!("{compared} native commands were compared");
}

#[test]
fn response_files_are_split_as_both_compilers_split_them() {
    let texts = [
        "-DA -DB=1\n-DC",
        "\"-DA=x y\" '-DB=x y' -DC=x\\ y",
        "-DA=\\\"x\\\" '-DB=\"x\"' \"-DC=\\\"x\\\"\" \"-DD=\\\\\"",
        "\n\t -DA=a'b'\"c\"d -DB \r\n",
        "@inner -DB",
    ];
    for compiler in compilers(&["gcc", "clang"]) {
        for text in texts {
            let folder = folder();
            std::fs::write(folder.path().join("inner"), "-DINNER='1 2'").expect("a file");
            std::fs::write(folder.path().join("args"), text).expect("a file");
            let command = words(&format!("{} -E -dM -xc /dev/null @args", compiler.0));
            let mut read = |path: &[u8]| std::fs::read(folder.path().join(String::from_utf8_lossy(path).as_ref())).ok();
            let expanded = response::expand(&command, &mut read).unwrap_or_else(|r| panic!("{text}: {r}"));
            let (one, other) = (run(&command, folder.path()), run(&expanded, folder.path()));
            assert!(one.status.success(), "{text}: {}", String::from_utf8_lossy(&one.stderr));
            assert_eq!(one, other, "{compiler:?} {text}");
        }
    }
}

#[test]
fn the_launchers_check_agrees_with_what_compilers_do_without_a_unit() {
    for compiler in compilers(&["gcc", "clang"]) {
        let folder = folder();
        for arguments in ["-E a.c", "-M a.c", "-c -fsyntax-only a.c", "--version", "-c -### a.c", "-c -M a.c"] {
            let inv = invocation(compiler, arguments, folder.path());
            assert!(surely_local(&inv.argv).is_some(), "{arguments}");
            let before = files(folder.path());
            assert!(run(&inv.argv, folder.path()).status.success(), "{arguments}");
            assert_eq!(files(folder.path()), before, "{compiler:?} {arguments} makes a file");
        }
    }
}
