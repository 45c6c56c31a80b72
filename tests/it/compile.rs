//! The same bytes, made by the provider, for every family of options.

use crate::{
    desk::{Desk, Streams, Where, desk},
    env::has,
};
use mesh::reason::Reason;
use std::{
    ffi::{OsStr, OsString},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
};

/// A small program of a source, a header of its own and one of the system's.
fn program(desk: &Desk) {
    desk.write("include/point.h", "#pragma once\n#include <stddef.h>\nstruct point { size_t x, y; };\n");
    let text = "#include \"point.h\"\n#include <stdio.h>\nint area(struct point p) { return (int)(p.x * p.y); }\n\
                int show(struct point p) { return printf(\"%s %d\\n\", __FILE__, area(p)); }\n";
    desk.write("area.c", text);
    desk.write("src/area.cc", format!("#include <vector>\n{text}int n = (int)std::vector<int>{{1, 2}}.size();\n"));
}

const COMPILERS: &[(&str, &str)] =
    &[("gcc", "area.c"), ("g++", "src/area.cc"), ("clang", "area.c"), ("clang++", "src/area.cc")];

/// Each compiler that is here, with a source of its language.
fn compilers() -> impl Iterator<Item = (&'static str, &'static str)> {
    COMPILERS.iter().copied().filter(|(compiler, _)| has(compiler))
}

#[test]
fn every_compiler_makes_the_same_object_elsewhere() {
    let Some(desk) = desk() else { return };
    program(&desk);
    for (compiler, source) in compilers() {
        for options in ["-O0 -g", "-O2 -Wall -Wextra"] {
            desk.same_there(&format!("{compiler} {options} -Iinclude -c {source} -o area.o"));
        }
    }
}

#[test]
fn an_output_may_be_named_in_every_way_or_not_at_all() {
    let Some(desk) = desk() else { return };
    program(&desk);
    std::fs::create_dir(desk.project.join("out")).unwrap();
    for output in ["", " -oarea.o", " -o out/other.obj", " -o ./out/../area", " --output=out/long.o", " -o area.c.o"] {
        desk.same_there(&format!("gcc -Iinclude -c area.c{output}"));
    }
    let absolute = desk.project.join("out/absolute.o");
    desk.same_there(&format!("gcc -Iinclude -c {} -o {}", desk.project.join("area.c").display(), absolute.display()));
}

#[test]
fn every_form_of_dependency_list_is_the_same() {
    let Some(desk) = desk() else { return };
    program(&desk);
    std::fs::create_dir(desk.project.join("deps")).unwrap();
    let forms = [
        "-MD",
        "-MMD",
        "-MMD -MP",
        "-MD -MF deps/area.dep",
        "-MMD -MF deps/area.dep -MT target.o",
        "-MMD -MFdeps/area.dep -MT one -MT two",
        "-MD -MQ a$b",
        "-Wp,-MD,deps/area.dep",
        "-Wp,-MMD,deps/area.dep -MT x",
    ];
    for form in forms {
        desk.same_there(&format!("gcc -Iinclude {form} -c area.c -o area.o"));
    }
    if has("clang") {
        for form in &forms[..7] {
            desk.same_there(&format!("clang -Iinclude {form} -c area.c -o area.o"));
        }
    }
}

#[test]
fn an_existing_dependency_list_keeps_its_mode_and_a_new_object_gets_the_masks() {
    let Some(desk) = desk() else { return };
    program(&desk);
    for (umask, mode) in [("027", 0o640), ("000", 0o666), ("077", 0o600)] {
        desk.write("area.d", "old");
        std::fs::set_permissions(desk.project.join("area.d"), PermissionsExt::from_mode(0o604)).unwrap();
        desk.write("area.o", "old");
        std::fs::set_permissions(desk.project.join("area.o"), PermissionsExt::from_mode(0o601)).unwrap();
        desk.same(&desk.line("gcc -Iinclude -MD -c area.c").umask(umask), Where::There);
        let found = |name: &str| std::fs::metadata(desk.project.join(name)).unwrap().mode() & 0o777;
        assert_eq!((found("area.o"), found("area.d")), (mode, 0o604));
    }
}

#[test]
fn what_else_a_compile_leaves_is_the_same() {
    let Some(desk) = desk() else { return };
    program(&desk);
    for options in [
        "-S -O1 -c",
        "-S -o area.s",
        "-g -gsplit-dwarf -c",
        "-g -gsplit-dwarf -c -o out.o",
        // Without a seed gcc writes a number by chance into notes and sections.
        "--coverage -frandom-seed=1 -c",
        "-fstack-usage -c",
        "-x c++ -c",
        "-flto -frandom-seed=1 -c",
        "-fsanitize=address -c",
        "-fPIC -pthread -m32 -nostdinc -Dstddef -c",
    ] {
        // The last one has no headers: what it says then is the compiler's own business.
        let place = if options.contains("-m32") { Where::Here(Reason::CompileError) } else { Where::There };
        desk.same(&desk.line(&format!("gcc -Iinclude {options} area.c")), place);
    }
    if has("clang") {
        for options in ["-S -O1 -c", "-g -gsplit-dwarf -c", "-x c++ -c", "-flto=thin -c"] {
            desk.same_there(&format!("clang -Iinclude {options} area.c"));
        }
    }
}

#[test]
fn warnings_are_the_same_by_pipe_and_on_a_terminal() {
    let Some(desk) = desk() else { return };
    let long = "unused_".repeat(30);
    desk.write("w.c", format!("int f(unsigned a) {{ int {long}1 = 1; return a < 0 || (a == 2) == 3; }}\n"));
    for compiler in ["gcc", "clang"].into_iter().filter(|c| has(c)) {
        let unit = desk.line(&format!("{compiler} -Wall -Wextra -c w.c"));
        let said = desk.same(&unit, Where::There);
        assert!(said.err().contains("unused_") && !said.err().contains('\x1b'), "{}", said.err());
        for columns in [80, 200] {
            let said = desk.same(&unit.clone().streams(Streams::Terminal(columns)).env("TERM", "xterm"), Where::There);
            assert!(said.out().contains("\x1b["), "no colours: {}", said.out());
        }
        let said = desk.same(&unit.clone().streams(Streams::Terminal(80)).env("TERM", "dumb"), Where::There);
        assert!(!said.out().contains("\x1b[01;35m"), "colours: {}", said.out());
        desk.same(&desk.line(&format!("{compiler} -fdiagnostics-color=always -Wall -Wextra -c w.c")), Where::There);
    }
}

#[test]
fn an_error_is_the_compilers_own_to_the_last_byte() {
    let Some(desk) = desk() else { return };
    desk.write("e.c", "#include <stdio.h>\n#warning first\nint main(void) { return undeclared; }\n");
    desk.write("e.o", "an older object");
    for compiler in ["gcc", "clang"].into_iter().filter(|c| has(c)) {
        for streams in [Streams::Apart, Streams::One, Streams::Terminal(100)] {
            let unit = desk.line(&format!("{compiler} -MD -c e.c")).env("TERM", "xterm").streams(streams);
            let ran = desk.same(&unit, Where::Here(Reason::CompileError));
            assert_eq!(ran.code, Some(1));
        }
        desk.write("absent.c", "#include \"absent.h\"\n");
        assert_eq!(
            desk.same(&desk.line(&format!("{compiler} -c absent.c")), Where::Here(Reason::CompileError)).code,
            Some(1)
        );
    }
}

#[test]
fn words_come_in_order_when_both_streams_are_one_pipe() {
    let Some(desk) = desk() else { return };
    let warned: String = (0..400).map(|n| format!("int f{n}(void) {{ int unused{n}; return {n}; }}\n")).collect();
    desk.write("many.c", warned);
    let said = desk.same(&desk.line("gcc -Wall -c many.c").streams(Streams::One), Where::There);
    assert!(said.out.len() > 64 << 10, "more than a pipe holds");
    // A listing goes to standard output, between two warnings' writes.
    let unit = desk.line("gcc -Wall -Wa,-aln -c many.c").streams(Streams::One);
    desk.same(&unit, Where::Here(Reason::Assembler));
}

#[test]
fn odd_names_make_no_difference() {
    let Some(desk) = desk() else { return };
    let names: [&[u8]; 6] = [b"a b", b"quo'te\"s", b"\xff\xfe", b"-dash", b"d$o`l#lar", "größe".as_bytes()];
    for name in names {
        let path = |end: &str| OsString::from(OsStr::from_bytes(&[b"./", name, end.as_bytes()].concat()));
        desk.write(path(".c"), "const char *f(void) { return __FILE__; }\n");
        let words = ["gcc".into(), "-g".into(), "-MD".into(), "-c".into(), path(".c"), "-o".into(), path(".o")];
        desk.same(&desk.unit(&words), Where::There);
    }
    // No dependency list can name a file with a line break in its name.
    desk.write("new\nline.c", "const char *f(void) { return __FILE__; }\n");
    desk.same(&desk.unit(&["gcc", "-g", "-c", "new\nline.c", "-o", "new\nline.o"]), Where::There);
    let dir = desk.project.join(OsStr::from_bytes(b"dir \xff"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("x.c"), "#include \"y z.h\"\n").unwrap();
    std::fs::write(dir.join("y z.h"), "int y;\n").unwrap();
    desk.same(&desk.line("gcc -g -MD -c x.c").cwd(&dir), Where::There);
}

#[test]
fn a_directory_reached_by_a_link_stays_what_it_is_called() {
    let Some(desk) = desk() else { return };
    desk.write("real/deep/x.c", "#include \"../y.h\"\nconst char *f(void) { return __FILE__; }\n");
    desk.write("real/y.h", "int y;\n");
    symlink("real/deep", desk.project.join("link")).unwrap();
    for compiler in ["gcc", "clang"].into_iter().filter(|c| has(c)) {
        let unit = desk.line(&format!("{compiler} -g -MD -c x.c -o x.o")).cwd(&desk.project.join("link"));
        desk.same(&unit, Where::There);
        let bytes = desk.read("real/deep/x.o");
        let name = desk.project.join("link");
        let name = name.as_os_str().as_bytes();
        assert!(bytes.windows(name.len()).any(|w| w == name), "the directory's name as typed is in the object");
        // And a PWD that lies.
        let mut lying = unit.clone();
        lying.pwd = desk.project.clone();
        desk.same(&lying, Where::There);
        // Through the link from above.
        desk.same_there(&format!("{compiler} -g -MD -c link/x.c -o link/x.o"));
    }
}

#[test]
fn two_megabytes_of_arguments_are_compiled() {
    let Some(desk) = desk() else { return };
    desk.write("x.c", "int f(void) { return D1 + D9; }\n");
    let short: Vec<String> = (0..7000).map(|d| format!("-DD{d}={d}")).collect();
    desk.write("short.rsp", short.join("\n"));
    desk.same_there("gcc @short.rsp -c x.c -o x.o");
    let long: Vec<String> = (0..20_000).map(|d| format!("-DLONG{d}={}", "x".repeat(100))).collect();
    desk.write("long.rsp", [short.join(" "), long.join("\n")].join("\n"));
    assert!(desk.read("long.rsp").len() > 2 << 20);
    let words = |compiler: &str, size: usize| {
        let mut words: Vec<String> = [compiler, "-c", "x.c"].map(str::to_owned).to_vec();
        words.extend_from_slice(&short[..10]);
        words.extend((0..size / 1000).map(|d| format!("-DLONG{d}={}", "x".repeat(980))));
        words
    };
    // gcc itself cannot do it, and says so.
    desk.same(&desk.line("gcc @long.rsp -c x.c -o x.o"), Where::Here(Reason::TooLarge));
    desk.same(&desk.unit(&words("gcc", 1_600_000)), Where::Here(Reason::TooLarge));
    if has("clang") {
        desk.same_there("clang @short.rsp -c x.c -o x.o");
        let ran = desk.same(&desk.line("clang @long.rsp -c x.c -o x.o"), Where::Here(Reason::TooLarge));
        ran.good();
        // Below the limit of a request that goes out, and between that and the kernel's.
        desk.same(&desk.unit(&words("clang", 800_000)), Where::There);
        desk.same(&desk.unit(&words("clang", 1_600_000)), Where::Here(Reason::TooLarge));
    }
}

#[test]
fn response_files_are_read_as_the_compiler_reads_them() {
    let Some(desk) = desk() else { return };
    desk.write("x.c", "const char *f(void) { return S T; }\n");
    desk.write("dir/in.rsp", "-DT='\"t u\"'\n");
    desk.write("a.rsp", "-g \"-DS=\\\"s  s\\\"\"\n@dir/in.rsp\n-c x.c\t-o x.o\n");
    for compiler in ["gcc", "clang"].into_iter().filter(|c| has(c)) {
        let ran = desk.same_there(&format!("{compiler} @a.rsp"));
        ran.good();
    }
}

#[test]
fn what_is_no_single_compile_is_left_to_the_compiler() {
    let Some(desk) = desk() else { return };
    program(&desk);
    desk.write("main.c", "int main(void) { return 0; }\n");
    desk.write("s.s", ".globl x\nx:\n");
    for (line, place) in [
        ("gcc -Iinclude -E area.c", Where::Unasked),
        ("gcc -Iinclude -MM area.c", Where::Unasked),
        ("gcc --version", Where::Unasked),
        ("gcc main.c -o main", Where::Unasked),
        ("gcc -c -x c -", Where::Unasked),
        ("gcc -Iinclude -c area.c main.c", Where::Here(Reason::MultiSource)),
        ("gcc -c", Where::Here(Reason::MultiSource)),
        ("gcc -c s.s", Where::Here(Reason::Assembler)),
        ("gcc -Iinclude -save-temps -c area.c", Where::Here(Reason::SaveTemps)),
        ("gcc -c main.c -o /dev/null", Where::Here(Reason::SpecialOutput)),
        ("gcc -fno-such-option -c main.c", Where::Here(Reason::CompileError)),
        ("gcc -B. -c main.c", Where::Here(Reason::ToolchainOption)),
    ] {
        desk.same(&desk.line(line), place);
    }
}

#[test]
fn what_is_fed_to_standard_input_is_compiled() {
    let Some(desk) = desk() else { return };
    desk.write("in.c", "int from_standard_input;\n");
    let unit = desk.line("gcc -c -x c - -o in.o");
    let feed = |mut command: std::process::Command| {
        command.stdin(std::fs::File::open(desk.project.join("in.c")).unwrap());
        let ran = crate::desk::run(command, Streams::Apart);
        (ran, std::fs::read(desk.project.join("in.o")).unwrap())
    };
    let plain = feed(desk.bare(&unit));
    std::fs::remove_file(desk.project.join("in.o")).unwrap();
    assert_eq!(plain, feed(desk.launcher(&unit)));
    plain.0.good();
}

#[test]
fn a_time_stamp_is_this_machines_unless_the_epoch_is_fixed() {
    let Some(desk) = desk() else { return };
    desk.write("t.c", "const char *when = __DATE__ __TIME__;\n");
    let unit = desk.line("gcc -c t.c -o t.o");
    let fixed = unit.clone().env("SOURCE_DATE_EPOCH", "86400");
    desk.same(&fixed, Where::There);
    assert!(desk.read("t.o").windows(11).any(|w| w == b"Jan  2 1970"), "the epoch is in the object");
    let before = desk.served();
    crate::desk::run(desk.launcher(&unit), Streams::Apart).good();
    assert_eq!((desk.served(), desk.last().reason), (before, Some(Reason::Timestamp)));
}

#[test]
fn more_units_than_the_provider_takes_wait_for_room_and_no_longer() {
    /// Many times what a provider accepts at once.
    const UNITS: u64 = 32;
    let Some(desk) = desk() else { return };
    let before = desk.served();
    let began = std::time::Instant::now();
    let mut running = Vec::new();
    for n in 0..UNITS {
        desk.write(format!("many{n}.c"), format!("int many{n};\n"));
        running.push(desk.launcher(&desk.line(&format!("gcc -c many{n}.c"))).spawn().unwrap());
    }
    for mut launcher in running {
        assert!(launcher.wait().unwrap().success());
    }
    crate::env::until("all were compiled there", || (desk.served() >= before + UNITS).then_some(()));
    // Nobody tells a client of the room that its own units leave. One that waits for news would wait for a minute.
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
}
