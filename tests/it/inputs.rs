//! Headers that appear, vanish and change: what is compiled is what is there at that moment, never an older state.

use crate::{
    desk::{Desk, Where, desk, run, slow},
    env::has,
};
use mesh::reason::Reason;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::{
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let at = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    utimensat(CWD, path, &Timestamps { last_access: at, last_modification: at }, AtFlags::empty()).unwrap();
}

fn object_has(desk: &Desk, name: &str, text: &str) -> bool {
    desk.read(name).windows(text.len()).any(|w| w == text.as_bytes())
}

#[test]
fn a_header_that_appears_earlier_in_the_path_is_seen() {
    let Some(desk) = desk() else { return };
    desk.write("second/h.h", "#define TEXT \"from the second\"\n");
    std::fs::create_dir(desk.project.join("first")).unwrap();
    desk.write("x.c", "#include \"h.h\"\nconst char *t = TEXT;\n");
    let line = "gcc -MD -Ifirst -Isecond -Ithird -c x.c -o x.o";
    desk.same_there(line);
    assert!(object_has(&desk, "x.o", "from the second"));
    for (place, text) in [("first/h.h", "from the first"), ("h.h", "from beside it")] {
        desk.write(place, format!("#define TEXT \"{text}\"\n"));
        desk.same_there(line);
        assert!(object_has(&desk, "x.o", text), "{place}");
    }
    // And gone again, one by one.
    std::fs::remove_file(desk.project.join("h.h")).unwrap();
    desk.same_there(line);
    assert!(object_has(&desk, "x.o", "from the first"));
    std::fs::remove_dir_all(desk.project.join("first")).unwrap();
    desk.same_there(line);
    assert!(object_has(&desk, "x.o", "from the second"));
}

#[test]
fn a_directory_that_appears_or_becomes_another_is_seen() {
    let Some(desk) = desk() else { return };
    desk.write("one/h.h", "#define TEXT \"one\"\n#include_next <h.h>\n");
    desk.write("two/h.h", "#define MORE \"two\"\n");
    desk.write("x.c", "#include <h.h>\nconst char *t = TEXT \"+\" MORE;\n");
    let line = "gcc -MD -Ilink -Ione -Itwo -c x.c -o x.o";
    desk.same_there(line);
    // The same directory by another name: gcc drops one of them, and the next header is another.
    symlink("one", desk.project.join("link")).unwrap();
    desk.same_there(line);
    std::fs::remove_file(desk.project.join("link")).unwrap();
    symlink("three", desk.project.join("link")).unwrap();
    desk.write("three/h.h", "#define TEXT \"three\"\n#define MORE \"\"\n");
    desk.same_there(line);
    assert!(object_has(&desk, "x.o", "three+"));
}

#[test]
fn what_has_include_asks_for_is_seen_when_it_comes_and_goes() {
    let Some(desk) = desk() else { return };
    desk.write(
        "x.c",
        "#if __has_include(\"option.h\")\nconst char *t = \"with\";\n#else\nconst char *t = \"without\";\n#endif\n",
    );
    for compiler in ["gcc", "clang"].into_iter().filter(|c| has(c)) {
        let line = format!("{compiler} -MD -Iinclude -c x.c -o x.o");
        desk.same_there(&line);
        assert!(object_has(&desk, "x.o", "without"));
        // An empty file is enough, and it shows in no dependency list.
        desk.write("include/option.h", "");
        desk.same_there(&line);
        assert!(!object_has(&desk, "x.o", "without"));
        std::fs::remove_dir_all(desk.project.join("include")).unwrap();
        desk.same_there(&line);
        assert!(object_has(&desk, "x.o", "without"));
    }
}

#[test]
fn twins_that_say_pragma_once_are_one_or_two_as_the_compiler_takes_them() {
    let Some(desk) = desk() else { return };
    let text = "#pragma once\n#define JOIN(a, b) a##b\n#define NAME(n) JOIN(v, n)\nint NAME(__COUNTER__);\n";
    desk.write("x.c", "#include \"a/h.h\"\n#include \"b/h.h\"\nint end = __COUNTER__;\n");
    let compilers: Vec<&str> = ["gcc", "clang"].into_iter().filter(|c| has(c)).collect();
    let all = |what: &str| {
        let objects = compilers.iter().map(|compiler| {
            desk.same_there(&format!("{compiler} -MD -g -c x.c -o x.o"));
            (what.to_owned(), desk.read("x.o").len())
        });
        objects.collect::<Vec<_>>()
    };
    let (a, b) = (desk.write("a/h.h", text), desk.write("b/h.h", text));
    set_mtime(&a, 1_700_000_000, 5);
    set_mtime(&b, 1_700_000_000, 5);
    let equal = all("equal times");
    set_mtime(&b, 1_700_000_001, 5);
    let later = all("another second");
    // gcc tells twins apart by their times, clang by their inodes: the case is worth its name.
    assert_ne!(equal[0].1, later[0].1, "gcc takes them for one, then for two");
    set_mtime(&b, 1_700_000_000, 6);
    all("another nanosecond");
    std::fs::remove_file(&b).unwrap();
    symlink("../a/h.h", &b).unwrap();
    all("a link");
    std::fs::remove_file(&b).unwrap();
    std::fs::hard_link(&a, &b).unwrap();
    all("one inode");
    std::fs::remove_file(&b).unwrap();
    desk.write("b/h.h", text.replace("JOIN(v, n)", "JOIN(w, n)"));
    set_mtime(&b, 1_700_000_000, 5);
    all("another content of the same size");
}

#[test]
fn a_header_replaced_within_its_second_or_with_its_very_times_is_seen() {
    let Some(desk) = desk() else { return };
    desk.write("x.c", "#include \"h.h\"\nconst char *t = TEXT;\n");
    let path = desk.write("h.h", "#define TEXT \"state 0\"\n");
    let line = "gcc -MD -c x.c -o x.o";
    for state in 1..=6 {
        desk.same_there(line);
        assert!(object_has(&desk, "x.o", &format!("state {}", state - 1)));
        let meta = std::fs::metadata(&path).unwrap();
        let text = format!("#define TEXT \"state {state}\"\n");
        match state % 3 {
            // In place, at once; the kernel gives the times.
            0 => std::fs::write(&path, text).unwrap(),
            // In place, with the old times put back.
            1 => {
                std::fs::write(&path, text).unwrap();
                set_mtime(&path, meta.mtime(), meta.mtime_nsec());
            }
            // Another file of that name, with the old one's times.
            _ => {
                let new = desk.write("h.new", text);
                set_mtime(&new, meta.mtime(), meta.mtime_nsec());
                std::fs::rename(new, &path).unwrap();
            }
        }
    }
    desk.same_there(line);
}

#[test]
fn a_header_that_is_edited_while_the_unit_is_away_makes_no_stale_object() {
    let Some(desk) = desk() else { return };
    let unit = slow(&desk, "edited");
    let child = desk.begin(&unit, "edited.cc");
    desk.write("slow.h", "#define HEADER 2\n");
    child.ends().good();
    assert_eq!(desk.last().reason, Some(Reason::Changing));
    let made = desk.files();
    run(desk.bare(&unit), unit.streams).good();
    crate::desk::assert_same_files(&desk.files(), &made, "an edited header");
}

#[test]
fn a_header_that_appears_while_the_unit_is_away_makes_no_stale_object() {
    let Some(desk) = desk() else { return };
    let mut unit = slow(&desk, "appears");
    unit.words.insert(1, "-Iearlier".into());
    let text = std::fs::read_to_string(desk.project.join("appears.cc")).unwrap();
    desk.write("appears.cc", text.replace("\"slow.h\"", "<slow.h>"));
    unit.words.insert(2, "-I.".into());
    let child = desk.begin(&unit, "appears.cc");
    desk.write("earlier/slow.h", "#define HEADER 3\n");
    child.ends().good();
    assert_eq!(desk.last().reason, Some(Reason::Changing));
    let made = desk.files();
    run(desk.bare(&unit), unit.streams).good();
    crate::desk::assert_same_files(&desk.files(), &made, "a header before the other");
}

#[test]
fn a_unit_that_stays_away_from_its_changed_neighbours_goes_on_being_made_there() {
    let Some(desk) = desk() else { return };
    let unit = slow(&desk, "neighbour");
    let served = desk.served();
    let child = desk.begin(&unit, "neighbour.cc");
    // Other files of the directory come and go all through a build.
    desk.write("other.o", "x");
    desk.write("sub/other.h", "x");
    child.ends().good();
    assert_eq!((desk.last().reason, desk.served()), (None, served + 1));
    let made = desk.files();
    run(desk.bare(&unit), unit.streams).good();
    crate::desk::assert_same_files(&desk.files(), &made, "neighbours");
}

#[test]
fn forced_includes_search_variables_and_macro_includes_are_the_same() {
    let Some(desk) = desk() else { return };
    desk.write("inc/forced.h", "#define FORCED 1\n");
    desk.write("inc/named.h", "int named = FORCED;\n");
    desk.write("macros.h", "#define IMACRO 2\nint never;\n");
    desk.write("blob.bin", [0_u8, 1, 2, 255]);
    desk.write("x.c", "#include NAMED\nint x = IMACRO;\n");
    let line = "gcc -MD -include forced.h -imacros macros.h -DNAMED=\"named.h\" -c x.c -o x.o";
    desk.same(&desk.line(line).env("CPATH", desk.project.join("inc")), Where::There);
    desk.same(&desk.line(line).env("C_INCLUDE_PATH", "inc"), Where::There);
    desk.same(&desk.line(&line.replace("-MD", "-MD -idirafter inc -iquote nowhere -isystem none")), Where::There);
    desk.write("asm.c", "__asm__(\".incbin \\\"blob.bin\\\"\");\n");
    desk.same(&desk.line("gcc -c asm.c"), Where::Here(Reason::AsmIncbin));
    desk.write("computed.c", "#define NAME(x) <x.h>\n#include NAME(stddef)\nsize_t s;\n");
    // The compiler's own list counts only for files that were quiet when it was made.
    std::thread::sleep(std::time::Duration::from_millis(200));
    desk.same_there("gcc -MD -c computed.c");
}
