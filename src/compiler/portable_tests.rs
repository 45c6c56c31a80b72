//! Tables: a command, and whether what it makes may be given to another checkout (DECIDE).

use super::*;
use crate::compiler::{family::Family, invocation::Invocation, plan::plan};

const ROOT: &[u8] = b"/home/u/p";

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn root_of(cwd: &str, line: &str) -> Option<String> {
    let invocation = Invocation {
        argv: words(line),
        cwd: cwd.into(),
        env: vec![],
        family: Family::Gcc,
        version_major: 12,
        cxx_driver: false,
    };
    let plan = plan(&invocation).expect("a compile");
    let root = root(&plan, cwd.as_bytes()).filter(|root| is_movable(root));
    root.map(|root| String::from_utf8(root).expect("text"))
}

#[test]
fn the_root_holds_all_that_a_command_names_from_where_it_is() {
    for (cwd, line, expect) in [
        ("/home/u/p", "cc -c a.c", Some("/home/u/p")),
        ("/home/u/p/build", "cc -c /home/u/p/src/a.c -o x/a.o", Some("/home/u/p")),
        ("/home/u/p/build", "cc -c ../src/a.c -o x/a.o", Some("/home/u/p")),
        ("/home/u/p/src", "cc -I../include -c a.c", Some("/home/u/p")),
        ("/home/u/p/src", "cc -I/opt/include -c a.c", Some("/home/u/p/src")),
        ("/home/u/p", "cc -c a.c -o /tmp/a.o", None),
        ("/home", "cc -c a.c", None),
        ("/usr/src/p", "cc -c a.c", None),
        ("/home/u/my project", "cc -c a.c", None),
        ("/home/u/p", "cc -c a.i", None),
    ] {
        assert_eq!(root_of(cwd, line).as_deref(), expect, "{cwd}: {line}");
    }
}

#[test]
fn only_commands_of_which_nothing_shows_are_portable() {
    for line in [
        "cc -O2 -Wall -Werror=shadow -std=c++17 -fPIC -fno-exceptions -march=x86-64 -c /home/u/p/a.c -o /home/u/p/b/a.o",
        "cc -I/home/u/p/inc -isystem /home/u/p/sys -iquote/home/u/p/q -include /home/u/p/c.h -c a.c",
        "cc -MD -MT b/a.o -MF /home/u/p/b/a.o.d -DX=1 -D Y -UZ --param l1-cache-size=32 -c a.c",
        "cc -fvisibility=hidden -fdiagnostics-color=always -fconstexpr-depth=9 -c a.c",
    ] {
        let moved = argv(&words(line), ROOT);
        assert!(moved.as_ref().is_some_and(|moved| moved.iter().all(|word| !has(word, ROOT))), "{line}: {moved:?}");
        let other = line.replace("/home/u/p", "/srv/q");
        assert_eq!(moved, argv(&words(&other), b"/srv/q"), "{line}");
    }
    for option in [
        "-g",
        "-g0",
        "-ggdb",
        "-gsplit-dwarf",
        "-fdebug-prefix-map=/home/u/p=.",
        "-ffile-prefix-map=/home/u/p=.",
        "-fmacro-prefix-map=/home/u/p=.",
        "-fprofile-arcs",
        "-ftest-coverage",
        "--coverage",
        "-fprofile-use",
        "-fprofile-instr-generate",
        "-fcoverage-mapping",
        "-fsanitize=address",
        "-save-temps",
        "-S",
        "-E",
        "-M",
        "-fplugin=x.so",
        "-frandom-seed=/home/u/p/a.c",
        "-flto",
        "-fopenmp",
        "-fstack-usage",
        "-frecord-gcc-switches",
        "-grecord-gcc-switches",
        "-fembed-bitcode",
        "-dumpdir x",
        "-auxbase x",
        "-Wp,-D,x",
        "-Wa,-g",
        "-mllvm x",
        "-Xclang x",
        "-DROOT=\"/home/u/p\"",
        "-D ROOT=\"/home/u/p\"",
        "-D/home/u/p",
        "-I/home/u/p2/inc",
        "-I=/home/u/p",
        "-I/home/u/p/x/home/u/p",
        "--sysroot=/home/u/p/s",
        "-isysroot /home/u/p/s",
        "-B/home/u/p",
        "-specs=/home/u/p/s",
        "-funknown",
    ] {
        assert_eq!(argv(&words(&format!("cc {option} -c a.c")), ROOT), None, "{option}");
    }
    assert_eq!(argv(&words("/home/u/p/bin/cc -c a.c"), ROOT), None);
}

#[test]
fn of_the_environment_only_the_working_directory_may_have_the_root() {
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let is_portable =
        |name, value| env(&[pair("LANG", "C"), pair(name, value)], b"/home/u/p/b", ROOT).is_some_and(|e| e.len() == 2);
    assert!(is_portable("PWD", "/home/u/p/b") && is_portable("CPATH", "/opt/x") && is_portable("HOME", "/home/u/p"));
    for (name, value) in [("PWD", "/home/u/p"), ("PWD", "/l/p/b"), ("CPATH", "/home/u/p/i"), ("TZ", ":/home/u/p/z")] {
        assert!(!is_portable(name, value), "{name}={value}");
    }
}

#[test]
fn an_object_that_tells_where_it_was_made_is_found_out() {
    for (object, expect) in [
        (&b"\x7fELF..text.."[..], true),
        (b"a.c\0_GLOBAL__sub_I_main\0_GLOBAL__N_1\0", true),
        (b"x/home/u/p/a.c\0", false),
        (b"_GLOBAL__sub_I__home_u_p_a.cc\0", false),
        (b"_GLOBAL__sub_I_a.cc_1234ABCD_0x3f\0", false),
        (b"_GLOBAL__sub_I_a.cc_1234abcd\0", true),
    ] {
        assert_eq!(is_silent(object, ROOT), expect, "{}", String::from_utf8_lossy(object));
    }
}

#[test]
fn only_what_the_system_says_for_itself_is_no_matter() {
    let is = |line: &str, path: &str| {
        let invocation = Invocation {
            argv: words(line),
            cwd: ROOT.to_vec(),
            env: vec![],
            family: Family::Gcc,
            version_major: 12,
            cxx_driver: false,
        };
        is_for_itself(path.as_bytes(), &plan(&invocation).expect("a compile"))
    };
    assert!(is("cc -DNDEBUG -c a.c", "/usr/include/assert.h"));
    for path in ["x86_64-linux-gnu/c++/12/bits/c++config.h", "c++/12/debug/macros.h", "c++/12/parallel/settings.h"] {
        assert!(is("cc -c a.cc", &format!("/usr/include/{path}")), "{path}");
        assert!(!is("cc -D_GLIBCXX_ASSERTIONS -c a.cc", &format!("/usr/include/{path}")), "{path}");
        assert!(!is("cc -c a.cc", &format!("/home/u/p/usr/include/{path}")), "{path}");
    }
    assert!(!is("cc -c a.c", "/usr/include/assert.h"));
    for path in ["/home/u/p/assert.h", "/usr/include/c++/12/source_location", "/usr/include/own.h"] {
        assert!(!is("cc -DNDEBUG -c a.c", path), "{path}");
    }
}

#[test]
fn no_name_leads_out_of_a_raised_root() {
    let raised = |climb, line: &str, file: &str| {
        let invocation = Invocation {
            argv: words(line),
            cwd: b"/home/u/p/b".to_vec(),
            env: vec![],
            family: Family::Gcc,
            version_major: 12,
            cxx_driver: false,
        };
        let plan = plan(&invocation).expect("a compile");
        let root = root(&plan, &invocation.cwd).expect("one");
        raised(root, climb, &plan, &invocation.cwd, [file.as_bytes(), b"/usr/include/x.h"].into_iter())
            .map(|root| String::from_utf8(root).expect("text"))
    };
    let check = |climb, line, file, expect: Option<&str>| {
        assert_eq!(raised(climb, line, file).as_deref(), expect, "{climb} {line} {file}");
    };
    check(0, "cc -c a.c", "/home/u/p/b/a.c", Some("/home/u/p/b"));
    check(1, "cc -c a.c", "/home/u/p/b/a.c", Some("/home/u/p"));
    check(1, "cc -c ../s/a.c", "/home/u/p/s/a.c", Some("/home/u/p"));
    check(2, "cc -c ../s/a.c", "/home/u/p/s/a.c", Some("/home/u"));
    check(1, "cc -I/home/u/p -c ../s/a.c", "/home/u/p/s/a.c", Some("/home/u"));
    check(1, "cc -include x.h -c ../s/t/a.c", "/home/u/p/s/t/a.c", Some("/home/u/p"));
    check(3, "cc -include x.h -c ../s/a.c", "/home/u/p/s/a.c", Some("/home"));
    check(4, "cc -c ../s/a.c", "/home/u/p/s/a.c", None);
}

#[test]
fn a_link_that_leads_up_or_anywhere_is_no_plain_one() {
    for (target, expect) in [("a.h", true), ("d/a..h", true), ("../a.h", false), ("d/../a.h", false), ("/a.h", false)] {
        assert_eq!(is_plain_link(target.as_bytes()), expect, "{target}");
    }
}
