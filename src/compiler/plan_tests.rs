//! The meaning of command lines, one by one: a row for each family of options (DECIDE).

use super::invocation::{Family, Invocation};
use super::plan::{Deps, Plan, plan};
use super::surely::surely_local;
use crate::reason::Reason;
use proptest::prelude::*;

fn words(text: &str) -> Vec<Vec<u8>> {
    text.split(' ').filter(|w| !w.is_empty()).map(|w| w.as_bytes().to_vec()).collect()
}

/// The command as gcc, g++, clang or clang++ gets it, by its first word. Words before it with a `=` are the environment.
fn invocation(command: &str) -> Invocation {
    let all = words(command);
    let at = all.iter().position(|w| !w.contains(&b'=')).expect("a program");
    let (env, argv) = all.split_at(at);
    let env = env.iter().map(|w| {
        let eq = w.iter().position(|b| *b == b'=').expect("chosen by it");
        (w[..eq].to_vec(), w[eq + 1..].to_vec())
    });
    let name = argv[0].as_slice();
    Invocation {
        cwd: b"/work".to_vec(),
        env: env.collect(),
        family: if name.starts_with(b"clang") { Family::Clang } else { Family::Gcc },
        version_major: 14,
        cxx_driver: name.ends_with(b"++"),
        argv: argv.to_vec(),
    }
}

fn joined(list: &[Vec<u8>]) -> String {
    list.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect::<Vec<_>>().join(" ")
}

/// A plan in one line, without what is empty.
fn show(plan: &Plan) -> String {
    let lossy = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let mut line = format!("{:?} {} > {}", plan.language, lossy(&plan.source), lossy(&plan.output));
    let mut add = |name: &str, text: String| {
        if !text.is_empty() {
            line.push_str(&format!(" | {name} {text}"));
        }
    };
    add("side", joined(&plan.side_outputs));
    match &plan.deps {
        Deps::None => {}
        Deps::All { path } => add("all", lossy(path)),
        Deps::User { path } => add("user", lossy(path)),
    }
    add("quote", joined(&plan.search.quote));
    add("I", joined(&plan.search.user));
    add("isystem", joined(&plan.search.system));
    add("after", joined(&plan.search.after));
    add("probe", joined(&plan.search.probe));
    add("forced", joined(&plan.forced_includes));
    add("D", plan.defines.iter().map(|(n, b)| format!("{}={}", lossy(n), lossy(b))).collect::<Vec<_>>().join(" "));
    add("in", joined(&plan.extra_inputs));
    add("suspect", joined(&plan.suspects));
    add("native", plan.native.iter().map(usize::to_string).collect::<Vec<_>>().join(" "));
    add("epoch", if plan.epoch_fixed { "fixed".into() } else { String::new() });
    line
}

/// Checks one command: `expect` is a reason's code, or the plan in one line.
fn check(command: &str, expect: &str) {
    let found = match plan(&invocation(command)) {
        Ok(plan) => show(&plan),
        Err(reason) => reason.code().to_owned(),
    };
    assert_eq!(found, expect, "{command}");
}

/// Checks options that leave a compile as simple as it is without them.
fn plain(compiler: &str, options: &[&str]) {
    for option in options {
        check(&format!("{compiler} {option} -c a.c"), "C a.c > a.o");
        check(&format!("{compiler} -c a.c {option}"), "C a.c > a.o");
    }
}

/// Checks options that keep a compile here.
fn local(compiler: &str, options: &[&str], reason: Reason) {
    for option in options {
        check(&format!("{compiler} {option} -c a.c"), reason.code());
    }
}

#[test]
fn what_is_no_compile_stays_here() {
    for both in ["gcc", "clang"] {
        let ask =
            ["a.c", "a.o -o a", "-E a.c", "-M a.c", "-MM a.c", "-fsyntax-only a.c", "--version", "-dumpmachine", ""];
        for arguments in ask {
            check(&format!("{both} {arguments}"), "NOT_COMPILE");
        }
        let questions =
            ["-E", "-M", "-MM", "-MG -MD", "-###", "-v", "--version", "--help=common", "-print-search-dirs"];
        local(both, &questions, Reason::NotCompile);
        local(both, &["-fsyntax-only", "--print-file-name=x", "-dumpspecs", "--target-help"], Reason::NotCompile);
        check(&format!("{both} -c a.c -o"), "NOT_COMPILE");
    }
    local("clang", &["--analyze", "-emit-ast"], Reason::NotCompile);
}

#[test]
fn the_output_is_named_or_follows_from_the_source() {
    for both in ["gcc", "clang"] {
        check(&format!("{both} -c d/a.c"), "C d/a.c > a.o");
        check(&format!("{both} -c d/a.b.c"), "C d/a.b.c > a.b.o");
        check(&format!("{both} -S a.c"), "C a.c > a.s");
        check(&format!("{both} -S -c a.c"), "C a.c > a.s");
        check(&format!("{both} -c -S a.c"), "C a.c > a.s");
        check(&format!("{both} -c a.c -o x/y.o"), "C a.c > x/y.o");
        check(&format!("{both} -c a.c -ox/y.o"), "C a.c > x/y.o");
        check(&format!("{both} -c a.c --output=x.o"), "C a.c > x.o");
        check(&format!("{both} -c a.c --output x.o"), "C a.c > x.o");
        for special in ["-", "/dev/null", "/dev/stdout", "d/", "a.c", "d/.o"] {
            check(&format!("{both} -c a.c -o {special}"), "SPECIAL_OUTPUT");
        }
    }
    check("clang -c a.c -o x.o -o y.o", "C a.c > y.o");
    check("gcc -c a.c -o x.o -o y.o", "SPECIAL_OUTPUT");
    check("clang -c a.c -emit-llvm", "C a.c > a.bc");
    check("clang -S a.c -emit-llvm", "C a.c > a.ll");
}

#[test]
fn one_source_is_distributed() {
    for both in ["gcc", "clang"] {
        check(&format!("{both} -c"), "MULTI_SOURCE");
        check(&format!("{both} -c a.c b.c"), "MULTI_SOURCE");
        check(&format!("{both} -c a.c b.o"), "MULTI_SOURCE");
        check(&format!("{both} -c -x c -"), "STDIN");
        check(&format!("{both} -c a.c @args"), "RESPONSE_FILE_UNREADABLE");
        check(&format!("{both} -arch x86_64 -arch arm64 -c a.c"), "MULTI_SOURCE");
        check(&format!("{both} -arch x86_64 -c a.c"), "C a.c > a.o");
    }
    check("clang -c -- -a.c", "C -a.c > -a.o");
    check("clang -c -- a.c -O2", "MULTI_SOURCE");
    check("gcc -c -- a.c", "UNKNOWN_OPTION");
}

#[test]
fn the_language_is_named_or_follows_from_extension_and_driver() {
    let table = [
        ("C", "c"),
        ("Cxx", "cc cp cxx cpp c++ C CPP"),
        ("PreprocessedC", "i"),
        ("PreprocessedCxx", "ii"),
        ("ObjC", "m"),
        ("ObjCxx", "mm M"),
    ];
    for (language, extensions) in table {
        for extension in extensions.split(' ') {
            for compiler in ["gcc", "clang"] {
                check(&format!("{compiler} -c a.{extension}"), &format!("{language} a.{extension} > a.o"));
            }
            for compiler in ["g++", "clang++"] {
                let language = language.strip_suffix('C').filter(|l| *l != "Obj").map(|l| format!("{l}Cxx"));
                let language =
                    language.unwrap_or_else(|| table.iter().find(|r| r.1 == extensions).expect("row").0.into());
                check(&format!("{compiler} -c a.{extension}"), &format!("{language} a.{extension} > a.o"));
            }
        }
    }
    for extension in ["f", "F90", "adb", "d", "go", "cu", "hip", "cl", "o", "txt", ""] {
        check(&format!("gcc -c a.{extension}"), "LANGUAGE");
    }
    for extension in ["s", "S", "sx"] {
        check(&format!("gcc -c a.{extension}"), "ASSEMBLER");
    }
    for extension in ["cppm", "ixx", "ccm", "mpp"] {
        check(&format!("clang -c a.{extension}"), "MODULES");
    }
    check("gcc -x c++ -c a.c", "Cxx a.c > a.o");
    check("gcc -xc++ -c a.c", "Cxx a.c > a.o");
    check("gcc -c a.c -x c++", "C a.c > a.o");
    check("g++ -x c -c a.cc", "C a.cc > a.o");
    check("gcc -x c++ -x none -c a.c", "C a.c > a.o");
    check("g++ -x none -c a.c", "LANGUAGE");
    check("gcc -x c -c a.h", "C a.h > a.o");
    check("gcc -x cpp-output -c a.c", "PreprocessedC a.c > a.o");
    check("gcc -x c++-cpp-output -c a.c", "PreprocessedCxx a.c > a.o");
    check("gcc -x objective-c -c a.c", "ObjC a.c > a.o");
    for (name, reason) in [
        ("assembler", "ASSEMBLER"),
        ("assembler-with-cpp", "ASSEMBLER"),
        ("cuda", "LANGUAGE"),
        ("hip", "LANGUAGE"),
        ("cl", "LANGUAGE"),
        ("f95", "LANGUAGE"),
        ("CORE-AVX2", "LANGUAGE"),
        ("c++-module", "MODULES"),
        ("c++-header-unit", "MODULES"),
    ] {
        check(&format!("clang -x {name} -c a.c"), reason);
    }
}

#[test]
fn configure_time_checks_stay_here() {
    for source in
        ["conftest.c", "/tmp/tmp.conftest.cc", "CheckIncludeFile.c", "d/CheckSymbolExists.c", "sanitycheckc.c"]
    {
        check(&format!("gcc -c {source}"), "PROBE");
    }
    check("gcc -c b/CMakeFiles/CMakeScratch/TryCompile-x1/t.c", "PROBE");
    check("gcc -c meson-private/tmp1/testfile.c", "PROBE");
    for cwd in ["/b/CMakeFiles/CMakeTmp", "/b/CMakeFiles/CMakeScratch/TryCompile-ab", "/b/meson-private/tmpx"] {
        let inv = Invocation { cwd: cwd.into(), ..invocation("gcc -c a.c") };
        assert_eq!(plan(&inv), Err(Reason::Probe), "{cwd}");
    }
    check("gcc -c Checker.c", "C Checker.c > Checker.o");
}

#[test]
fn macros_keep_their_order() {
    for both in ["gcc", "clang"] {
        check(
            &format!("{both} -DA -D B=2 -UA -U B -DC= -DD(x)=x -DE=F=G -undef -c a.c"),
            "C a.c > a.o | D C= D(x)=x E=F=G",
        );
        check(&format!("{both} -UA -DA=1 -DA=2 -c a.c"), "C a.c > a.o | D A=1 A=2");
        check(&format!("{both} -DA(x)=x -UA -c a.c"), "C a.c > a.o");
        check(&format!("{both} --define-macro=A --define-macro B -c a.c"), "C a.c > a.o | D A=1 B=1");
    }
}

#[test]
fn include_directories_keep_their_chains() {
    for both in ["gcc", "clang"] {
        check(
            &format!("{both} -Ia -I b -iquote q -iquoteq2 -isystem s -isystems2 -idirafter z -idirafterz2 -c a.c"),
            "C a.c > a.o | quote q q2 | I a b | isystem s s2 | after z z2",
        );
        check(&format!("{both} --include-directory=a --include-directory b -c a.c"), "C a.c > a.o | I a b");
        check(&format!("{both} -include f.h -imacros m.h -includeg.h -c a.c"), "C a.c > a.o | forced f.h m.h g.h");
        local(both, &["-I-", "-iprefix p -iwithprefix w", "-iwithprefixbefore w", "-I=inc"], Reason::UnknownOption);
        local(both, &["-isystem =x", "-F dir", "-iframework dir", "-remap"], Reason::UnknownOption);
    }
    let clangs = ["-cxx-isystem d", "-isystem-after d", "-stdlib++-isystem d", "-ivfsoverlay f", "-iwithsysroot d"];
    local("clang", &clangs, Reason::UnknownOption);
    check(
        "CPATH=/x::/y C_INCLUDE_PATH=/c CPLUS_INCLUDE_PATH=/p gcc -Ia -isystem s -c a.c",
        "C a.c > a.o | I a /x . /y | isystem s /c",
    );
    check("CPLUS_INCLUDE_PATH=/p clang++ -c a.c", "Cxx a.c > a.o | isystem /p");
    check("OBJC_INCLUDE_PATH=/o gcc -c a.m", "ObjC a.m > a.o | isystem /o");
    check("OBJCPLUS_INCLUDE_PATH=/o gcc -c a.mm", "ObjCxx a.mm > a.o | isystem /o");
}

#[test]
fn what_decides_the_compilers_own_directories_is_kept_in_order() {
    check(
        "gcc -O2 -std=c11 -m32 --sysroot=/s -isysroot /r -nostdinc -ansi -march=armv7-a -c a.c",
        "C a.c > a.o | probe -std=c11 -m32 --sysroot=/s -isysroot /r -nostdinc -ansi -march=armv7-a",
    );
    check(
        "clang++ --sysroot /s -stdlib=libc++ -nostdinc++ -target arm-linux --target=x86_64-linux -c a.cc",
        "Cxx a.cc > a.o | probe --sysroot /s -stdlib=libc++ -nostdinc++ -target arm-linux --target=x86_64-linux",
    );
    let moved = ["-B/x", "-B /x", "--prefix=/x", "-specs=f", "--specs f", "-wrapper gdb", "--gcc-toolchain=/x"];
    local("gcc", &moved, Reason::ToolchainOption);
    let moved = ["-gcc-toolchain /x", "-resource-dir /x", "-resource-dir=/x", "--config f", "--driver-mode=g++"];
    local("clang", &moved, Reason::ToolchainOption);
    local("clang", &["--target=x86_64-pc-windows-msvc", "-fopenmp-targets=nvptx64"], Reason::ToolchainOption);
}

#[test]
fn flags_of_code_and_warnings_are_plain() {
    for both in ["gcc", "clang"] {
        plain(
            both,
            &["-O2", "-O", "-Ofast", "-Wall", "-Werror=format=2", "-w", "-pipe", "-pedantic-errors", "-trigraphs"],
        );
        plain(both, &["-pthread", "-fopenmp", "-fPIC", "-fvisibility=hidden", "-mavx2", "-mtune=skylake", "-fno-rtti"]);
        plain(
            both,
            &["-g", "-g3", "-g0", "-ggdb", "-gdwarf-4", "-gz=zlib", "-flto", "-flto=thin", "-ffat-lto-objects"],
        );
        plain(
            both,
            &["-Wl,-z,now", "-lm", "-l m", "-L/lib", "-L /lib", "-Xlinker x.ld", "-T x.ld", "-rpath /x", "-static"],
        );
        plain(
            both,
            &["-z now", "-e main", "-u sym", "-shared", "-A q=a", "--param x=1", "--param=x=1", "-framework X"],
        );
        plain(both, &["-MT t", "-MQ t", "-MP", "-MTt", "-frandom-seed=a.o", "-ffile-prefix-map=/a=/b"]);
        plain(both, &["-fdebug-prefix-map=/a=/b", "-fmacro-prefix-map=/a=/b", "-fdiagnostics-color=always", "-H1"]);
        plain(
            both,
            &["-finput-charset=UTF-8", "-fexec-charset=utf-8", "-fprofile-generate=/d", "-fprofile-update=atomic"],
        );
        plain(
            both,
            &[
                "-fprofile-abs-path",
                "-grecord-gcc-switches",
                "-sectcreate __T __s file",
                "-fdiagnostics-format=json",
                "-fmessage-length=0",
            ],
        );
        local(both, &["-fexec-charset=IBM1047", "-finput-charset=latin1"], Reason::UnknownOption);
    }
    plain("clang", &["-fcolor-diagnostics", "-Rpass=inline", "-fdebug-compilation-dir /x", "-ftrapv-handler f"]);
    plain("clang", &["-fprofile-instr-generate=x.profraw", "-fxray-modes= all", "-Xanalyzer x"]);
    plain("gcc", &["-fopt-info-vec", "-Winvalid-pch", "-fpch-preprocess", "-R /x", "-h x"]);
}

#[test]
fn dependency_lists_are_found_by_name_or_by_default() {
    for both in ["gcc", "clang"] {
        check(&format!("{both} -MD -c d/a.c"), "C d/a.c > a.o | side a.d | all a.d");
        check(&format!("{both} -MD -c a.c -o x/b.y.o"), "C a.c > x/b.y.o | side x/b.y.d | all x/b.y.d");
        check(&format!("{both} -MD -c a.c -o x.y/b"), "C a.c > x.y/b | side x.y/b.d | all x.y/b.d");
        check(&format!("{both} -MMD -MP -MF f.d -MT t -c a.c"), "C a.c > a.o | side f.d | user f.d");
        check(&format!("{both} -MMD -MFf.d -c a.c"), "C a.c > a.o | side f.d | user f.d");
        check(&format!("{both} -MF f.d -MD -MF g.d -c a.c"), "C a.c > a.o | side g.d | all g.d");
        check(&format!("{both} -MD -MMD -c a.c"), "C a.c > a.o | side a.d | user a.d");
        check(&format!("{both} -MMD -MD -S a.c"), "C a.c > a.s | side a.d | user a.d");
        check(&format!("{both} -Wp,-MD,f.d -c a.c"), "C a.c > a.o | side f.d | all f.d");
        check(&format!("{both} -Wp,-MMD,f.d -Wp,-MT,t -c a.c"), "C a.c > a.o | side f.d | user f.d");
        check(&format!("{both} --write-user-dependencies -c a.c"), "C a.c > a.o | side a.d | user a.d");
        check(&format!("{both} -MF f.d -c a.c"), "C a.c > a.o");
        local(both, &["-Wp,-MD", "-Wp,-MD,f.d -MD", "-Wp,-MD,f.d -Wp,-MMD,g.d"], Reason::UnknownOption);
        local(both, &["-MD -MF -", "-MD -MF /dev/stdout", "-MD -MF a.o", "-MD -MF a.c"], Reason::SpecialOutput);
        check(&format!("{both} -Wp,-MMD,x/.a.o.d -c a.c -o x/a.o"), "C a.c > x/a.o | side x/.a.o.d | user x/.a.o.d");
        check(&format!("{both} -MD -MF .deps/a.Tpo -c a.c"), "C a.c > a.o | side .deps/a.Tpo | all .deps/a.Tpo");
        check(&format!("{both} -MD -MF .depend -c a.c"), "C a.c > a.o | side .depend | all .depend");
    }
    check("gcc -Xpreprocessor -MD -Xpreprocessor f.d -c a.c", "C a.c > a.o | side f.d | all f.d");
    check("gcc -MD -c a.i", "PreprocessedC a.i > a.o");
    check("clang -MD -c a.i", "PreprocessedC a.i > a.o");
    local("clang", &["-MJ f", "-dependency-file f", "-gen-cdb-fragment-path d"], Reason::SpecialOutput);
}

#[test]
fn arguments_of_the_passes_are_taken_apart() {
    for both in ["gcc", "clang"] {
        check(&format!("{both} -Wp,-DA=1,-UB -Wp,-D_FORTIFY_SOURCE=2 -c a.c"), "C a.c > a.o | D A=1 _FORTIFY_SOURCE=2");
        local(both, &["-Wp,-Ix", "-Wp,-include,x", "-Xpreprocessor -Ix", "-Wp,@f"], Reason::UnknownOption);
        plain(both, &["-Wa,--noexecstack", "-Wa,-mrelax-relocations=no,--fatal-warnings", "-Wa,--defsym,X=1"]);
        plain(both, &["-Xassembler --noexecstack", "-Wa,--debug-prefix-map=/a=/b", "-Wa,--gdwarf-5"]);
        local(both, &["-Wa,-al=f", "-Wa,-adhln", "-Wa,--MD,f", "-Wa,@f", "-Wa,-Ix", "-Wa,-o,x"], Reason::Assembler);
        local(both, &["-Wa,x.s", "-Xassembler x.s", "-Xassembler -a"], Reason::Assembler);
    }
    plain(
        "clang",
        &["-Xclang -disable-O0-optnone", "-Xclang -target-feature -Xclang +avx2", "-mllvm -inline-threshold"],
    );
    plain("clang", &["-Xclang -Wall", "-Xclang -fno-pch-timestamp", "-Xclang -mllvm -Xclang -x"]);
    check("clang -Xclang -include -Xclang f.h -c a.c", "C a.c > a.o | forced f.h");
    check("clang -mllvm -profile=f.txt -c a.c", "C a.c > a.o | suspect f.txt");
    local(
        "clang",
        &["-Xclang -load -Xclang p.so", "-Xclang -add-plugin -Xclang p", "-Xclang -plugin-arg-x -Xclang y"],
        Reason::Plugin,
    );
    local("clang", &["-Xclang -include-pch -Xclang x.pch"], Reason::PchUse);
    local("clang", &["-Xclang -emit-pch"], Reason::PchCreate);
    local("clang", &["-Xclang -header-include-file -Xclang f", "-Xclang -isystem -Xclang d"], Reason::UnknownOption);
    local("clang", &["-Xarch_x86_64 -O2", "-Xarch_host -DX"], Reason::UnknownOption);
}

#[test]
fn native_options_are_pointed_at_unless_they_are_recorded() {
    for both in ["gcc", "clang"] {
        check(&format!("{both} -march=native -c a.c"), "C a.c > a.o | probe -march=native | native 1");
        check(&format!("{both} -O2 -mtune=native -c a.c"), "C a.c > a.o | native 2");
        check(&format!("{both} -mcpu=native -c a.c"), "C a.c > a.o | probe -mcpu=native | native 1");
        check(
            &format!("{both} -march=native -mtune=native -g0 -c a.c"),
            "C a.c > a.o | probe -march=native | native 1 2",
        );
        local(both, &["-march=native -march=x86-64", "-march=native -frecord-gcc-switches"], Reason::NativeArch);
        local(both, &["-march=native -flto", "-mtune=native -fverbose-asm"], Reason::NativeArch);
    }
    local("gcc", &["-march=native -g", "-mtune=native -ggdb3", "-march=native -gdwarf-5"], Reason::NativeArch);
    check("gcc -mtune=native -g -gno-record-gcc-switches -c a.c", "C a.c > a.o | native 1");
    check("clang -mtune=native -g -c a.c", "C a.c > a.o | native 1");
}

#[test]
fn files_beside_the_object_are_known() {
    for both in ["gcc", "clang"] {
        check(&format!("{both} -g -gsplit-dwarf -c a.c -o x/b.o"), "C a.c > x/b.o | side x/b.dwo");
        check(&format!("{both} -gsplit-dwarf=single -c d/a.c"), "C d/a.c > a.o | side a.dwo");
        for coverage in ["--coverage", "-coverage", "-ftest-coverage", "-fprofile-arcs -ftest-coverage"] {
            check(&format!("{both} {coverage} -c a.c -o x/b"), "C a.c > x/b | side x/b.gcno");
        }
        check(&format!("{both} -fstack-usage -c a.c"), "C a.c > a.o | side a.su");
        check(&format!("{both} -ftime-trace -c a.c"), "C a.c > a.o | side a.json");
        check(&format!("{both} -foptimization-record-file=r.yaml -c a.c"), "C a.c > a.o | side r.yaml");
        local(both, &["-fprofile-dir=/x"], Reason::CoveragePath);
    }
    check("gcc -fcallgraph-info=su -c a.c", "C a.c > a.o | side a.ci");
    check("gcc -aux-info p.txt -c a.c", "C a.c > a.o | side p.txt");
    check("gcc --coverage -fprofile-note=n.gcno -c a.c", "C a.c > a.o | side a.gcno n.gcno");
    check("gcc -fsave-optimization-record -c a.c", "C a.c > a.o | side a.opt-record.json.gz");
    check("clang -fsave-optimization-record=yaml -c a.c", "C a.c > a.o | side a.opt.yaml");
    check("clang --serialize-diagnostics x/a.dia -c a.c", "C a.c > a.o | side x/a.dia");
    check("clang -serialize-diagnostics x/a.dia -c a.c", "C a.c > a.o | side x/a.dia");
}

#[test]
fn files_that_options_name_go_along() {
    let lists =
        ["-fsanitize-blacklist=", "-fsanitize-ignorelist=", "-fsanitize-coverage-allowlist=", "-fxray-attr-list="];
    for list in lists {
        check(&format!("clang {list}l.txt -c a.c"), "C a.c > a.o | in l.txt");
    }
    check("clang -fxray-always-instrument= l.txt -c a.c", "C a.c > a.o | in l.txt");
}

#[test]
fn what_is_not_distributed_says_why() {
    for both in ["gcc", "clang"] {
        local(
            both,
            &["-fprofile-use", "-fprofile-use=d", "-fauto-profile=f", "-fbranch-probabilities"],
            Reason::ProfileUse,
        );
        local(both, &["-fprofile-instr-use=f", "-fprofile-sample-use=f", "-fprofile-list=f"], Reason::ProfileUse);
        local(both, &["-fprofile-correction", "-fprofile-remapping-file=f", "-fthinlto-index=f"], Reason::ProfileUse);
        local(both, &["-fplugin=p.so", "-fplugin-arg-p-x=1", "-fpass-plugin=p.so"], Reason::Plugin);
        local(both, &["-fmodules", "-fmodules-ts", "-fcxx-modules", "-fimplicit-modules"], Reason::Modules);
        local(
            both,
            &["-fmodule-file=m.pcm", "-fmodule-mapper=m", "-fmodule-header", "-fmodule-output"],
            Reason::Modules,
        );
        local(both, &["-fmodules-cache-path=d", "-fprebuilt-module-path=d", "-fmodule-map-file=f"], Reason::Modules);
        local(
            both,
            &["-fdeps-format=p1689r5", "-fdeps-file=f", "-fbuild-session-file=f", "--precompile"],
            Reason::Modules,
        );
        local(both, &["-include-pch x.pch"], Reason::PchUse);
        local(both, &["-o a.gch", "-o a.pch", "-x c-header", "-x c++-header"], Reason::PchCreate);
        check(&format!("{both} -c a.h"), "PCH_CREATE");
        check(&format!("{both} -c a.hpp -o a.o"), "PCH_CREATE");
        local(
            both,
            &["-save-temps", "-save-temps=obj", "--save-temps", "-fdump-tree-all", "-da", "-dr"],
            Reason::SaveTemps,
        );
        local(both, &["-fopt-info-vec=f", "-ftime-report", "-fstats", "-fmem-report", "-Q", "-H"], Reason::SaveTemps);
        local(
            both,
            &["-ftime-trace=d", "-fdiagnostics-format=sarif-file", "-fdiagnostics-add-output=sarif"],
            Reason::SaveTemps,
        );
        local(both, &["-dumpdir d/", "-dumpbase b", "-frepo", "-time", "-fcompare-debug"], Reason::SaveTemps);
    }
    local("clang", &["-index-store-path d", "-index-unit-output-path f"], Reason::SpecialOutput);
}

#[test]
fn unknown_options_go_out_unless_they_name_a_file_here() {
    for both in ["gcc", "clang"] {
        plain(both, &["-fnew-thing", "-Znew", "-qnew"]);
        check(&format!("{both} -fnew=x/y.txt -c a.c"), "C a.c > a.o | suspect x/y.txt");
        check(&format!("{both} -fnew=k:a,b -c a.c"), "C a.c > a.o | suspect k:a,b k a b");
        check(&format!("{both} -Zx/y.txt -c a.c"), "C a.c > a.o | suspect Zx/y.txt x/y.txt /y.txt");
        check(&format!("{both} -Z/y -c a.c"), "C a.c > a.o | suspect Z/y /y");
        check(&format!("{both} -Zcfg.txt -c a.c"), "C a.c > a.o | suspect Zcfg.txt cfg.txt");
        check(&format!("{both} -Z file -c a.c"), "MULTI_SOURCE");
        local(both, &["--plugin=p.so", "--new"], Reason::UnknownOption);
    }
}

#[test]
fn the_environment_may_keep_a_unit_here() {
    for name in ["DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES", "GCC_EXEC_PREFIX", "COMPILER_PATH", "GCC_COMPARE_DEBUG"]
    {
        check(&format!("{name}=x gcc -c a.c"), "ENVIRONMENT");
        check(&format!("{name}= gcc -c a.c"), "C a.c > a.o");
    }
    for name in ["CCC_OVERRIDE_OPTIONS", "CC_PRINT_OPTIONS", "CC_PRINT_HEADERS_FILE", "LD_PRELOAD"] {
        check(&format!("{name}=x clang -c a.c"), "ENVIRONMENT");
    }
    let harmless = "TMPDIR=/t LD_LIBRARY_PATH=/l LANG=C GCC_COLORS=x SDKROOT=/s MACOSX_DEPLOYMENT_TARGET=11";
    check(&format!("{harmless} clang -c a.c"), "C a.c > a.o");
    check("SOURCE_DATE_EPOCH=1 gcc -c a.c", "C a.c > a.o | epoch fixed");
    check("SOURCE_DATE_EPOCH=x gcc -c a.c", "C a.c > a.o");
    check("SOURCE_DATE_EPOCH=1 clang -c a.c", "C a.c > a.o");
    let newer = Invocation { version_major: 16, ..invocation("SOURCE_DATE_EPOCH=1 clang -c a.c") };
    assert!(plan(&newer).expect("remote").epoch_fixed);
}

#[test]
fn commands_past_the_limits_stay_here() {
    let mut inv = invocation("gcc -c a.c");
    inv.argv.push(vec![b'x'; 2 << 20]);
    assert_eq!(plan(&inv), Err(Reason::TooLarge));
    let mut inv = invocation("gcc -c a.c");
    inv.argv.resize(40_000, b"-O2".to_vec());
    assert_eq!(plan(&inv), Err(Reason::TooLarge));
}

#[test]
fn the_launcher_knows_what_is_surely_local() {
    let check = |command: &str, expect: Option<Reason>| assert_eq!(surely_local(&words(command)), expect, "{command}");
    check("gcc", Some(Reason::NotCompile));
    check("gcc a.o -o a", Some(Reason::NotCompile));
    check("gcc a.o @objects -o a", None);
    check("gcc --version", Some(Reason::NotCompile));
    check("gcc -c -E a.c", Some(Reason::NotCompile));
    check("gcc -c -### a.c", Some(Reason::NotCompile));
    check("gcc -c conftest.c", Some(Reason::Probe));
    check("gcc -xc -c -", Some(Reason::Stdin));
    check("gcc -c a.c -o -E", None);
    check("gcc -c a.c -o -", None);
    check("gcc -c a.c -o conftest.o", None);
    check("gcc -c a.c -sectcreate a b -E", None);
    check("gcc -c a.c", None);
}

fn any_word() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<Vec<u8>> = super::table::ROWS.iter().map(|r| r.name.as_bytes().to_vec()).collect();
    let plain =
        words("-c -S -o -x a.c b.cc x.o - -- c++ none -E -MD -MF -Wp,-MD -Wp,-MD,f -Xclang -include conftest.c @f =");
    prop_oneof![
        prop::sample::select(known),
        prop::sample::select(plain),
        prop::collection::vec(any::<u8>(), 0..8),
        (
            prop::sample::select(words("-f -W -o -I -D -Wa, -Wp, -march= -x -d")),
            prop::collection::vec(any::<u8>(), 0..8)
        )
            .prop_map(|(option, value)| [option, value].concat()),
    ]
}

proptest! {
    #[test]
    fn any_command_has_a_plan_or_a_reason(
        args in prop::collection::vec(any_word(), 0..12),
        clang: bool,
        cxx_driver: bool,
    ) {
        let family = if clang { Family::Clang } else { Family::Gcc };
        let argv: Vec<_> = std::iter::once(b"cc".to_vec()).chain(args).collect();
        let inv = Invocation { argv, cwd: b"/w".to_vec(), env: Vec::new(), family, version_major: 14, cxx_driver };
        let found = plan(&inv);
        if let Ok(plan) = &found {
            prop_assert!(inv.argv.contains(&plan.source));
            prop_assert_ne!(&plan.output, &plan.source);
            prop_assert!(!plan.side_outputs.iter().any(|p| p.is_empty() || p.starts_with(b"/dev/")));
            prop_assert!(plan.native.iter().all(|at| inv.argv[*at].starts_with(b"-m")));
        }
        if surely_local(&inv.argv).is_some() {
            prop_assert!(found.is_err());
        }
    }
}
