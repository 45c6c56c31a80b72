//! The project that the demonstration builds: small programs' usual work in C and C++, with headers in common (DECIDE).
//!
//! The files lie beside this one, so that compilers and people read them as they are; here they are embedded. Linked
//! together they are a program that tries itself out.

/// A file of the embedded project.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// Its path in the project; what includes it names it from the project's top.
    pub path: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! files {
    ($($folder:literal: $($name:literal)*;)*) => {
        &[$($(Unit { path: concat!($folder, "/", $name), text: include_str!(concat!("units/", $name)) },)*)*]
    };
}

/// The project.
#[rustfmt::skip] // One line a file would be a page of nothing.
pub const UNITS: &[Unit] = files! {
    "include":
        "arena.h" "buffer.h" "check.h" "graph.h" "hashmap.h" "json.h" "matrix.h" "parser.hpp" "pool.hpp" "sort.h"
        "text.h" "tokens.hpp" "tree.hpp";
    "src":
        "arena.c" "base64.c" "bigint.c" "buffer.c" "calc.c" "checksum.c" "csv.c" "glob.c" "graph_order.c"
        "graph_paths.c" "hashmap.c" "json_parse.c" "json_write.c" "life.c" "main.c" "matrix.c" "sort.c" "text.c"
        "bridge.cpp" "dates.cpp" "dense.cpp" "evaluate.cpp" "events.cpp" "fraction.cpp" "intern.cpp" "lru.cpp"
        "parser.cpp" "patterns.cpp" "permute.cpp" "pool.cpp" "shapes.cpp" "stream.cpp" "tokens.cpp" "tree.cpp"
        "tuples.cpp" "words.cpp";
};

#[cfg(test)]
mod tests {
    use super::UNITS;
    use std::{
        path::Path,
        process::{Command, Stdio},
    };

    /// What the units are promised to compile without a warning with.
    const STRICT: &[&str] = &["-Wall", "-Wextra", "-Werror", "-O0", "-g", "-c"];

    #[test]
    fn every_file_beside_is_embedded_and_names_are_unique() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cmd/demo/units");
        let there = std::fs::read_dir(folder).expect("the folder is there").flatten();
        let mut there: Vec<_> = there.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut embedded: Vec<_> = UNITS.iter().map(|unit| name(unit.path)).collect();
        there.sort_unstable();
        embedded.sort_unstable();
        assert_eq!(embedded, there);
        let sources = |ending: &str| UNITS.iter().filter(|unit| unit.path.ends_with(ending)).count();
        assert_eq!((sources(".c"), sources(".cpp")), (18, 18));
    }

    /// Compiles the project, several units at once, links it and runs it.
    fn try_out(dir: &Path, c: &str, cxx: &str) {
        let mut running = Vec::new();
        let mut objects = Vec::new();
        for unit in UNITS.iter().filter(|unit| unit.path.starts_with("src/")) {
            let (driver, standard) = if unit.path.ends_with(".c") { (c, "-std=c11") } else { (cxx, "-std=c++17") };
            objects.push(dir.join(format!("{}.o", unit.path.replace('/', "_"))));
            let mut command = Command::new(driver);
            command.arg(standard).args(STRICT).args(["-Iinclude", unit.path, "-o"]).args(objects.last());
            running.push((unit.path, command.current_dir(dir).stderr(Stdio::piped()).spawn().expect("it is there")));
            if running.len() == 4 || objects.len() == 36 {
                for (path, child) in running.drain(..) {
                    let output = child.wait_with_output().expect("it is our child");
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(output.status.success() && said.is_empty(), "{driver} {path}: {said}");
                }
            }
        }
        let program = dir.join("program");
        let linked = Command::new(cxx).args(&objects).arg("-o").arg(&program).args(["-pthread", "-lm"]).status();
        assert!(linked.expect("it is there").success(), "{cxx} does not link");
        let ran = Command::new(program).output().expect("it was linked");
        assert!(ran.status.success(), "{c}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    #[test]
    fn the_units_compile_without_a_warning_and_do_what_they_claim() {
        let dir = tempfile::tempdir().expect("a directory");
        for unit in UNITS {
            let path = dir.path().join(unit.path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            std::fs::write(path, unit.text).expect("writable");
        }
        let there = |name: &str| Command::new(name).arg("--version").output().is_ok_and(|said| said.status.success());
        let mut tried = 0;
        for (c, cxx) in [("gcc", "g++"), ("clang", "clang++")] {
            if there(c) && there(cxx) {
                try_out(dir.path(), c, cxx);
                tried += 1;
            }
        }
        let skipping_forbidden = std::env::var_os("MESH_TEST_NO_SKIP").is_some_and(|value| value == "1");
        assert!(tried == 2 || !skipping_forbidden, "gcc or clang is missing");
        if tried < 2 {
            eprintln!("skipped: only {tried} of gcc and clang are here");
        }
    }
}
