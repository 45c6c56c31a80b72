//! The tree keeps its own rules: who may know whom, what is pure, how long a file is, what was forgotten.
//!
//! Run as a test, so that `cargo test` is the whole gate. `tidy/rules.rs` holds the rules as tables, `tidy/source.rs`
//! reads Rust as far as they need, `tidy/readme.rs` asks the program whether the README tells the truth. The checks
//! have tests of their own below: each must catch what it is for.

#[path = "tidy/readme.rs"]
mod readme;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use rules::{Tree, check};
use std::path::Path;

/// What is not part of the project: build results and the history.
const SKIPPED: &[&str] = &["target", ".git"];

/// Reads the tree below a folder; what is not UTF-8 counts as an empty text.
fn read_tree(root: &Path, folder: &Path, tree: &mut Tree) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(root).expect("it lies below the root").to_string_lossy().into_owned();
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            read_tree(root, &path, tree)?;
        } else {
            tree.insert(name, std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
    Ok(())
}

#[test]
fn the_tree_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tree = Tree::new();
    read_tree(root, root, &mut tree).unwrap();
    assert!(tree.contains_key("src/lib.rs") && tree.contains_key("tests/tidy.rs"), "the tree was not read");
    let complaints: Vec<String> = check(&tree).iter().map(ToString::to_string).collect();
    assert!(complaints.is_empty(), "the tree is not tidy:\n{}\n", complaints.join("\n"));
}

#[test]
fn the_readme_names_only_what_exists() {
    let Ok(text) = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")) else { return };
    let complaints = readme::check(&text, |words| readme::help(env!("CARGO_BIN_EXE_mesh"), words));
    assert!(complaints.is_empty(), "README.md:\n{}\n", complaints.join("\n"));
}

/// What `check` says about one file alone in a tree (and so named by no `mod` line, which is not the point here).
fn about(file: &str, text: &str) -> String {
    let complaints = check(&Tree::from([(file.to_owned(), text.to_owned())]));
    let lines =
        complaints.iter().filter(|complaint| !complaint.text.starts_with("no `mod` line")).map(ToString::to_string);
    lines.collect::<Vec<_>>().join("\n")
}

/// The check catches this snippet with these words.
#[track_caller]
fn caught(file: &str, text: &str, words: &str) {
    let said = about(file, text);
    assert!(said.contains(words), "{file} with {text:?} should be told {words:?}, was told {said:?}");
}

/// The check lets this snippet pass.
#[track_caller]
fn passes(file: &str, text: &str) {
    assert_eq!(about(file, text), "", "{file} with {text:?}");
}

#[test]
fn layers_that_may_not_know_each_other_are_caught() {
    caught("src/net/a.rs", "//! (DO)\nuse crate::store::Blobs;", "net may not know store");
    caught("src/store/a.rs", "//! (DO)\nuse crate::{host, net::{Link, Way}};", "store may not know net");
    caught("src/worker/a.rs", "//! (DO)\nfn f() { crate::net::send() }", "worker may not know net");
    caught("src/sched/a.rs", "//! (DECIDE)\nuse super::super::host::Load;", "sched may not know host");
    caught("src/compiler/mod.rs", "//! (DECIDE)\nuse super::inputs;", "compiler may not know inputs");
    caught("src/sandbox/a.rs", "//! (DO)\nuse mesh_proto::job::Job;", "sandbox may not know proto");
    caught("src/sandbox/a.rs", "//! (DO)\nuse crate::host;", "sandbox may not know host");
    caught("src/agent/a.rs", "//! (DO)\nuse crate::cmd::peers;", "agent may not know cmd");
    caught("src/config.rs", "//! (DO)\nuse crate::cmd;", "config may not know cmd");
    caught("src/view/a.rs", "//! (DECIDE)\nuse crate::net::Link;", "view may not know net");
    caught("src/view/a.rs", "//! (DECIDE)\nuse crate::agent::Agent;", "view may not know agent");
    passes("src/cmd/a.rs", "//! (DO)\nuse crate::{agent, net, view};");
    passes("src/worker/a.rs", "//! (DO)\nuse crate::{sandbox, store}; use super::run; use mesh_proto::job::Job;");
    passes("src/net/a.rs", "//! (DO)\n// use crate::store;\nconst A: &str = \"crate::store\";");
}

#[test]
fn impure_words_in_pure_files_are_caught() {
    for (text, words) in [
        ("use std::fs;", "std::fs"),
        ("use std::{collections::BTreeMap, env::var_os};", "std::env"),
        ("fn f() { std::fs::read(p) }", "std::fs::read"),
        ("use std::time::Instant; fn f() { Instant::now() }", "take `now` as a value"),
        ("fn f() { std::time::SystemTime::now() }", "take `now` as a value"),
        ("async fn f() {}", "async in a pure file"),
        ("use tokio::sync::watch;", "tokio"),
        ("use std::net::UdpSocket;", "sockets"),
        ("use tracing::info;", "the caller logs"),
        ("use std::sync::Mutex;", "take values"),
    ] {
        caught("src/sched/a.rs", &format!("//! Chooses (DECIDE).\n{text}"), words);
        caught("proto/src/a.rs", &format!("//! Agrees (AGREE).\n{text}"), words);
    }
    passes("src/sched/a.rs", "//! Chooses (DECIDE).\nuse std::{net::IpAddr, time::Instant};");
    passes("src/sched/a.rs", "//! (DECIDE)\n#[cfg(test)]\nmod tests { fn f() { std::fs::read(\"a\").unwrap(); } }");
    passes("src/host/a.rs", "//! (DO)\nuse std::{fs, time::Instant}; async fn f() { Instant::now() }");
}

#[test]
fn files_that_do_not_say_their_kind_are_caught() {
    caught("src/sched/a.rs", "//! Chooses.\n", "must say (AGREE), (DECIDE) or (DO)");
    caught("src/sched/a.rs", "//! Chooses (DECIDE), runs (DO).\n", "must say (AGREE), (DECIDE) or (DO)");
    caught("src/sched/a.rs", "//! Chooses.\n//!\n//! Late (DECIDE).\n", "must say (AGREE), (DECIDE) or (DO)");
    caught("proto/src/a.rs", "//! Chooses (DECIDE).\n", "must say (AGREE)");
    passes("src/agent/wire.rs", "//! Speaks (AGREE, on one machine).\n");
    passes("src/bin/a.rs", "//! The other program.\n");
    caught("src/lib.rs", "//! The map.\n", "#![deny(unsafe_code)]");
    caught("proto/src/lib.rs", "//! (AGREE)\n#![deny(unsafe_code)]", "#![forbid(unsafe_code)]");
    passes("src/sched/a.rs", "//! Chooses among\n//! peers (DECIDE).\n");
}

#[test]
fn unfinished_and_dangerous_code_is_caught() {
    caught("src/host/a.rs", "//! (DO)\nfn f() { g().unwrap() }", "unwrap()");
    passes("src/host/a.rs", "//! (DO)\n#[test] fn f() { g().unwrap() }\nfn h() { g().unwrap_or(1) }");
    passes("tests/it/a.rs", "fn f() { g().unwrap() }");
    caught("src/host/a.rs", concat!("//! (DO)\nfn f() { to", "do!() }"), "todo!");
    caught("tests/it/a.rs", concat!("fn f() { unimple", "mented!() }"), "unimplemented!");
    caught("tests/it/a.rs", concat!("#[test] #[ig", "nore = \"slow\"] fn f() {}"), "hides a test");
    caught("src/host/a.rs", concat!("//! (DO)\n// FIX", "ME later"), "left over");
    caught("src/host/a.rs", "//! (DO)\nfn f() { unsafe { g() } }", "unsafe belongs");
    caught("tests/it/a.rs", "fn f() { unsafe { g() } }", "unsafe belongs");
    passes("src/sandbox/linux.rs", "//! (DO)\nfn f() { unsafe { g() } }");
    passes("src/sandbox/linux/jail.rs", "//! (DO)\nfn f() { unsafe { g() } }");
    caught("src/host/a.rs", "//! (DO)\nfn f() { println!(\"x\") }", "only src/cmd prints");
    passes("src/cmd/a.rs", "//! (DO)\nfn f() { println!(\"x\") }");
    caught("src/host/a.rs", "//! (DO)\nuse anyhow::Result;", "anyhow is for");
    caught("src/host/a.rs", "//! (DO)\nfn f() { std::process::exit(1) }", "end the process");
    passes("src/sandbox/a.rs", "//! (DO)\nfn f() { std::process::exit(1) }");
}

#[test]
fn misplaced_long_and_forgotten_files_are_caught() {
    let tree = |files: &[(&str, &str)]| -> String {
        let tree = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
        check(&tree).iter().map(|complaint| format!("{complaint}\n")).collect()
    };
    assert!(tree(&[("docs/a.md", "")]).contains("docs:0: does not belong at the top"));
    assert_eq!(tree(&[("LICENSE-MIT", ""), (".ci/run", ""), ("README.md", "")]), "");
    caught("src/host/a.rs", &format!("//! (DO)\n{}", "//\n".repeat(700)), "701 lines");
    caught("src/host/util.rs", "//! (DO)\n", "named for nothing");
    caught("src/helpers/mod.rs", "//! (DO)\n", "named for nothing");
    let map = "//! Map.\n#![deny(unsafe_code)]\n";
    assert!(tree(&[("src/lib.rs", map), ("src/a.rs", "//! (DO)\n")]).contains("src/a.rs:0: no `mod` line"));
    assert!(tree(&[("tests/it/main.rs", "// mod a;"), ("tests/it/a.rs", "")]).contains("tests/it/a.rs:0: no `mod`"));
    assert_eq!(tree(&[("tests/it/main.rs", "mod a;"), ("tests/it/a.rs", "")]), "");
    let beside = "//! (DO)\n#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;";
    let lib = "//! Map.\n#![deny(unsafe_code)]\nmod b;";
    assert_eq!(tree(&[("src/lib.rs", lib), ("src/b.rs", beside), ("src/b_tests.rs", "fn f() { g().unwrap() }")]), "");
    let manifest = "autotests = false\n[[test]]\npath = \"tests/a.rs\"\n";
    let said = tree(&[("Cargo.toml", manifest), ("tests/a.rs", ""), ("tests/b.rs", "")]);
    assert!(said.contains("tests/b.rs:0: is in no [[test]]") && !said.contains("tests/a.rs"), "{said}");
}
