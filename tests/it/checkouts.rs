//! Two checkouts of one project: what one has compiled the other one has, where the compiler's own bytes are the same, and
//! never where they may not be. Everything is compared with what the plain compiler makes in that checkout.

use crate::{
    desk::{Desk, Unit, Where},
    env::{Ground, has, until},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The checkouts, below the project: in other directories, and of other lengths.
const CHECKOUTS: [&str; 2] = ["a/one", "b/another-checkout-of-it"];
/// After a result is kept, which other checkouts may have it is noted within this time.
const NOTED: Duration = Duration::from_millis(150);

fn keeping() -> Option<Desk> {
    let mut desk = Desk::on(Ground::new())?;
    desk.client.keeps = true;
    desk.restart_client();
    Some(desk)
}

impl Desk {
    /// How many results are kept, and of how many other checkouts may have them.
    fn kept(&self) -> [usize; 2] {
        let list = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let cache = self.client.home.join("cache");
        let folders = list(&cache.join("results-v1")).filter(|dir| !dir.ends_with("incoming"));
        [folders.map(|dir| list(&dir).count()).sum(), list(&cache.join("checkouts-v1")).count()]
    }

    fn checkout(&self, name: &str) -> PathBuf {
        self.project.join(name)
    }

    /// Writes a file into both checkouts.
    fn write_both(&self, name: &str, text: &str) {
        for checkout in CHECKOUTS {
            self.write(format!("{checkout}/{name}"), text);
        }
    }

    /// A command in a checkout's build directory, with `@` for the checkout.
    fn line_in(&self, checkout: &str, line: &str) -> Unit {
        let root = self.checkout(checkout);
        let build = root.join("build");
        std::fs::create_dir_all(&build).unwrap();
        self.line(&line.replace('@', root.to_str().unwrap())).cwd(&build)
    }

    /// Whether the plain compiler makes the same files in both.
    fn makes_the_same(&self, units: &[Unit; 2]) -> bool {
        let before = self.files();
        for unit in units {
            assert!(self.bare(unit).output().unwrap().status.success(), "{:?}", unit.words);
        }
        let made = self.files();
        self.restore(&before);
        let [one, other] = CHECKOUTS.map(|checkout| {
            let made = made.iter().filter(|(path, _)| !before.contains_key(*path));
            let made = made.filter_map(|(path, (_, bytes))| Some((path.strip_prefix(checkout).ok()?, bytes)));
            made.collect::<Vec<_>>()
        });
        assert!(!one.is_empty());
        one == other
    }

    /// Compiles in the first checkout and waits until that is kept.
    #[track_caller]
    fn first(&self, unit: &Unit) {
        let [before, _] = self.kept();
        assert_eq!(self.same(unit, Where::There).code, Some(0));
        until("the result is kept", || (self.kept()[0] > before).then_some(()));
        std::thread::sleep(NOTED);
    }
}

#[test]
fn what_one_checkout_has_compiled_another_one_has() {
    let Some(desk) = keeping() else { return };
    desk.write_both("src/own.h", "#define OWN 3\n");
    desk.write_both("build/config.h", "#define CONFIG 4\n");
    let c = "#include <stdio.h>\n#include \"own.h\"\n#include <a.h>\n#include <config.h>\n\
        int f(int x) { return printf(\"%d\", x) + OWN + CONFIG; }\n";
    desk.write_both("src/a.c", c);
    desk.write_both("inc/a.h", "#pragma once\nint f(int);\nstatic inline int twice(int x) { return 2 * x; }\n");
    desk.write_both(
        "src/b.cc",
        "#include <algorithm>\n#include <iostream>\n#include <string>\n#include <vector>\n#include \"a.h\"\n\
         static std::string name = \"x\";\nint g() { std::vector<int> v(3); std::sort(v.begin(), v.end()); \
         std::cout << name; return twice(v[0]); }\n",
    );
    desk.write_both("src/checked.c", "#include <assert.h>\nint h(int x) { assert(x); return x; }\n");
    desk.write_both("src/up.c", "#include \"../inc/a.h\"\nint f(int x) { return twice(x); }\n");
    desk.write_both("src/constructor.cc", "void start(int);\nnamespace { struct S { S() { start(1); } } s; }\n");
    let cmake = "-MD -MT x/a.o -MF x/a.o.d -o x/a.o -c";
    let mut lines = vec![
        format!("gcc -O2 -I@/inc -I@/build -Wall {cmake} @/src/a.c"),
        format!("g++ -O2 -std=gnu++17 -I@/inc -isystem @/build -fPIC {cmake} @/src/b.cc"),
        "gcc -O2 -DNDEBUG -MD -MP -c @/src/checked.c -o @/build/x/checked.o".to_owned(),
        "gcc -O1 -I../inc -I. -MMD -c ../src/a.c -o a.o".to_owned(),
        "gcc -O1 -I../inc -I. -c ../src/a.c".to_owned(),
        "gcc -O1 -MD -c @/src/up.c -o up.o".to_owned(),
        "g++ -O1 -MD -c @/src/constructor.cc -o constructor.o".to_owned(),
    ];
    if has("clang") {
        lines.push(format!("clang -O2 -I@/inc -I@/build {cmake} @/src/a.c"));
        lines.push("clang++ -O2 -I@/inc -MD -MP -MT @/build/x/b.o -c @/src/b.cc -o x/b.o".to_owned());
    }
    for checkout in CHECKOUTS {
        std::fs::create_dir_all(desk.checkout(checkout).join("build/x")).unwrap();
    }
    for line in &lines {
        desk.first(&desk.line_in(CHECKOUTS[0], line));
        let [kept, noted] = desk.kept();
        assert_eq!(kept, noted, "{line}");
        for _ in 0..2 {
            desk.same(&desk.line_in(CHECKOUTS[1], line), Where::Kept);
            let last = desk.last();
            assert!(last.note.contains(CHECKOUTS[0]) && last.made_by == "tower", "{line}: {}", last.note);
        }
        desk.same(&desk.line_in(CHECKOUTS[0], line), Where::Kept);
        assert_eq!(desk.last().note, "", "{line}");
    }
    desk.same(&desk.line_in(CHECKOUTS[1], &lines[0]), Where::Kept);
    let explained = desk.client.mesh(&desk.ground, &["explain", "last"]);
    assert!(explained.out().contains("made in another checkout"), "{}", explained.out());
    // What is removed is found no more.
    assert_eq!(desk.client.mesh(&desk.ground, &["cache", "clear"]).code, Some(0));
    assert_eq!(desk.kept(), [0, 0]);
    desk.same(&desk.line_in(CHECKOUTS[1], &lines[0]), Where::There);
}

/// A command of which the other checkout may have nothing.
struct Never {
    name: &'static str,
    text: &'static str,
    /// After the compiler; the source and `-c` follow.
    options: &'static str,
    /// Whether the plain compiler's bytes differ.
    differs: bool,
}

const fn never(name: &'static str, text: &'static str, options: &'static str, differs: bool) -> Never {
    Never { name, text, options, differs }
}

const PLAIN: &str = "int f(int x) { return x ? 1 : 2; }\n";
const FILE: &str = "const char *f = __FILE__;\n";

#[test]
fn what_tells_where_it_was_made_no_other_checkout_has() {
    let Some(desk) = keeping() else { return };
    let mut all = vec![
        never("debug.c", PLAIN, "gcc -g", true),
        never("split.c", PLAIN, "gcc -g -gsplit-dwarf", true),
        never("mapped.c", PLAIN, "gcc -g -fdebug-prefix-map=@=.", false),
        never("file.c", FILE, "gcc", true),
        never("length.c", "int f = sizeof __FILE__;\n", "gcc", true),
        never("base.c", "const char *f = __BASE_FILE__;\n", "gcc", true),
        never("given.c", "const char *f = WHERE;\n", "gcc -DWHERE=__FILE__", true),
        never("builtin.c", "const char *f(void) { return __builtin_FILE(); }\n", "gcc", true),
        never("spliced.c", "int f = sizeof __FI\\\nLE__;\n", "gcc", true),
        never("assert.c", "#include <assert.h>\nint f(int x) { assert(x); return x; }\n", "gcc", true),
        never(
            "undone.c",
            "#undef NDEBUG\n#include <assert.h>\nint f(int x) { assert(x); return x; }\n",
            "gcc -DNDEBUG",
            true,
        ),
        never(
            "location.cc",
            "#include <source_location>\nconst char *f() { return std::source_location::current().file_name(); }\n",
            "g++ -std=c++20",
            true,
        ),
        never("root.c", "const char *f = ROOT;\n", "gcc -DROOT=\"@\"", true),
        never("warned.c", "static int f(void) { return 1; }\n", "gcc -Wall", false),
        never("outside.c", "#include \"../../shared.h\"\nint f = SHARED;\n", "gcc", false),
        never("other.c", "#include \"other.h\"\nint f = OTHER;\n", "gcc", true),
        never("arcs.c", PLAIN, "gcc -fprofile-arcs -frandom-seed=1", true),
        never("sanitized.c", "int f(int x) { return x + 1; }\n", "gcc -fsanitize=undefined", true),
        never("recorded.c", PLAIN, "gcc -frecord-gcc-switches", false),
        never(
            "climbs.c",
            "#include \"../inc/a.h\"\n#if __has_include(\"../../one/inc/a.h\")\nint f = A;\n#endif\n",
            "gcc",
            true,
        ),
        never("line.c", "#line 1 \"x.c\"\nconst char *f = __BASE_FILE__;\n", "gcc", true),
    ];
    if has("clang") {
        all.extend([
            never("clang_debug.c", PLAIN, "clang -g", true),
            never("clang_file.c", FILE, "clang", true),
            never(
                "pretty.cc",
                "template <class T> constexpr int f(T) { return sizeof __PRETTY_FUNCTION__; }\nint g() { return f([] {}); }\n",
                "clang++ -O2 -std=c++17",
                true,
            ),
            never("command.c", PLAIN, "clang -frecord-command-line", true),
            never("mapping.c", PLAIN, "clang -fprofile-instr-generate -fcoverage-mapping", true),
        ]);
    }
    desk.write_both("inc/a.h", "#define A 1\n");
    for (checkout, other) in CHECKOUTS.iter().zip(["1", "2"]) {
        desk.write(format!("{checkout}/../shared.h"), "#define SHARED 1\n");
        desk.write(format!("{checkout}/src/other.h"), format!("#define OTHER {other}\n"));
    }
    for Never { name, text, options, differs } in &all {
        desk.write_both(&format!("src/{name}"), text);
        let line = format!("{options} -c @/src/{name} -o {name}.o");
        let units = CHECKOUTS.map(|checkout| desk.line_in(checkout, &line));
        let is_same = desk.makes_the_same(&units);
        assert_eq!(!is_same, *differs, "{name}: whether the compiler's own bytes differ");
        desk.first(&units[0]);
        desk.same(&units[1], Where::There);
    }
    // Of `outside.c`, `other.c` and `climbs.c` one that reads the same could have it.
    assert_eq!(desk.kept()[1], 6, "nothing else of that is noted for other checkouts");
}

#[test]
fn a_checkout_that_is_reached_by_other_ways_has_nothing_of_others() {
    let Some(desk) = keeping() else { return };
    desk.write_both("src/a.c", PLAIN);
    let line = "gcc -O2 -c @/src/a.c -o a.o";
    desk.first(&desk.line_in(CHECKOUTS[0], line));
    assert_eq!(desk.kept(), [1, 1]);
    // Through a symbolic link.
    std::os::unix::fs::symlink(desk.checkout(CHECKOUTS[1]), desk.project.join("link")).unwrap();
    desk.first(&desk.line_in("link", line));
    // With a variable that has the path.
    let wrong = desk.line_in(CHECKOUTS[1], line);
    desk.first(&wrong.clone().env("CPATH", desk.checkout(CHECKOUTS[1]).join("inc")));
    // A name that is absolute in the text leads to what may be gone.
    let own = desk.checkout(CHECKOUTS[0]).join("src/own.h");
    let text = format!("#include \"own.h\"\n#if __has_include({own:?})\nint f = 1;\n#endif\n");
    desk.write_both("src/own.h", "");
    desk.write_both("src/absolute.c", &text);
    let [first, second] = CHECKOUTS.map(|checkout| desk.line_in(checkout, "gcc -c @/src/absolute.c -o b.o"));
    let noted = desk.kept()[1];
    desk.first(&first);
    assert_eq!(desk.kept()[1], noted);
    std::fs::remove_file(own).unwrap();
    desk.same(&second, Where::There);
    // So does a link, the same in both, that leads into the first one.
    let real = desk.checkout(CHECKOUTS[0]).join("src/real.h");
    desk.write_both("src/real.h", "");
    desk.write_both("src/linked.c", "#include \"real.h\"\n#if __has_include(\"link.h\")\nint f = 1;\n#endif\n");
    for checkout in CHECKOUTS {
        std::os::unix::fs::symlink(&real, desk.checkout(checkout).join("src/link.h")).unwrap();
    }
    let [first, second] = CHECKOUTS.map(|checkout| desk.line_in(checkout, "gcc -c @/src/linked.c -o l.o"));
    desk.first(&first);
    assert_eq!(desk.kept()[1], noted);
    std::fs::remove_file(real).unwrap();
    desk.same(&second, Where::There);
    // With a file more.
    desk.write(format!("{}/src/more/x.h", CHECKOUTS[1]), "");
    desk.same(&wrong, Where::Kept);
    desk.write(format!("{}/src/a.c", CHECKOUTS[1]), format!("{PLAIN}\n"));
    desk.same(&wrong, Where::There);
}
