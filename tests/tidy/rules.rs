//! The rules that the tree must keep, as tables, and the checks that read them.

use crate::source::{Path, Token, paths, stands, tokens, without_tests};
use std::collections::{BTreeMap, BTreeSet};

/// Lines of a source file, its tests included.
const FILE_LINES_MAX: usize = 700;
/// What may lie at the top, besides dot-files and `LICENSE*`.
const TOP_LEVEL: &[&str] = &["Cargo.lock", "Cargo.toml", "README.md", "deny.toml", "proto", "src", "tests"];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["common", "handler2", "helper", "helpers", "manager", "misc", "util", "utils"];
/// Where `unsafe` may stand: these files, and folders of these names.
const UNSAFE_ALLOWED: &[&str] = &["src/bin/mesh-cc/kernel", "src/host/macos", "src/sandbox/linux", "src/sandbox/macos"];
/// Who may print: commands, the program's first lines, and the build script, whose words are for Cargo.
const PRINTERS: &[&str] = &["src/bin/", "src/build.rs", "src/cmd/", "src/main.rs"];

/// Who may end the process: those, and the child that the sandbox forks.
const ENDERS: &[&str] = &["src/bin/", "src/cmd/", "src/main.rs", "src/sandbox/"];

/// Which modules a module may name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Knows {
    /// These and no others.
    Only(&'static [&'static str]),
    /// All but these.
    AllBut(&'static [&'static str]),
}

/// Who may know whom. `proto` stands for the crate `mesh_proto`. A new edge is a decision of its own: change it in a
/// commit that does nothing else.
pub(crate) const LAYERS: &[(&str, Knows)] = &[
    ("main", Knows::AllBut(&[])),
    ("bin", Knows::AllBut(&[])),
    ("cmd", Knows::AllBut(&[])),
    ("agent", Knows::AllBut(&["cmd"])),
    ("view", Knows::Only(&["proto", "reason", "sched"])),
    ("compiler", Knows::Only(&["launch", "proto", "reason"])),
    ("sched", Knows::Only(&["compiler", "proto", "reason"])),
    ("launch", Knows::Only(&["reason"])),
    ("reason", Knows::Only(&[])),
    ("sandbox", Knows::Only(&[])),
    ("net", Knows::AllBut(&["agent", "cmd", "store", "view", "worker"])),
    ("store", Knows::AllBut(&["agent", "cmd", "net", "view", "worker"])),
    ("worker", Knows::AllBut(&["agent", "cmd", "net", "view"])),
    ("inputs", Knows::AllBut(&["agent", "cmd", "net", "view", "worker"])),
    ("toolchain", Knows::AllBut(&["agent", "cmd", "net", "view"])),
    ("host", Knows::AllBut(&["agent", "cmd", "net", "store", "view", "worker"])),
    ("observe", Knows::AllBut(&["agent", "cmd", "net", "store", "view", "worker"])),
];
/// For modules that the table does not name.
const OTHERS_KNOW: Knows = Knows::AllBut(&["cmd"]);

/// What a pure file (AGREE or DECIDE) must not name, and what it does instead.
const IMPURE_PATHS: &[(&[&str], &str)] = &[
    (&["std", "fs"], "let the caller read and hand in bytes"),
    (&["std", "env"], "let the caller hand in the value"),
    (&["std", "process"], "return what should be run"),
    (&["std", "thread"], "let the caller run it"),
    (&["std", "os", "unix", "net"], "let the caller move the bytes"),
    (&["std", "sync", "Mutex"], "take values, return values"),
    (&["std", "sync", "RwLock"], "take values, return values"),
    (&["tokio"], "let the caller move the bytes"),
    (&["tokio_util"], "let the caller move the bytes"),
    (&["quinn"], "let src/net speak to the network"),
    (&["rustix", "fs"], "let the caller read and hand in bytes"),
    (&["tracing"], "return what happened; the caller logs"),
];
/// Calls that a pure file must not make, wherever their type is imported from.
const IMPURE_CALLS: &[(&[&str], &str)] = &[
    (&["Instant", "now"], "take `now` as a value"),
    (&["SystemTime", "now"], "take `now` as a value"),
    (&["env", "var"], "let the caller hand in the value"),
    (&["env", "var_os"], "let the caller hand in the value"),
    (&["env", "vars_os"], "let the caller hand in the value"),
];
/// Of `std::net`, what is a value and no socket.
const ADDRESS_TYPES: &[&str] =
    &["AddrParseError", "IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6"];

/// Something that the tree does against a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) file: String,
    /// Counted from 1; 0 for the whole file.
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// The project's files by path from the top, with their text (empty for what is not text).
pub(crate) type Tree = BTreeMap<String, String>;

/// All complaints about a tree.
pub(crate) fn check(tree: &Tree) -> Vec<Complaint> {
    let mut out = Vec::new();
    check_top_level(tree, &mut out);
    check_forgotten(tree, &mut out);
    for (file, text) in tree {
        check_length(file, text, &mut out);
        check_left_over(file, text, &mut out);
        if file.ends_with(".rs") {
            check_rust(file, text, &mut out);
        }
    }
    out
}

fn complain(out: &mut Vec<Complaint>, file: &str, line: usize, text: impl Into<String>) {
    let complaint = Complaint { file: file.into(), line, text: text.into() };
    if !out.contains(&complaint) {
        out.push(complaint);
    }
}

fn check_top_level(tree: &Tree, out: &mut Vec<Complaint>) {
    let tops: BTreeSet<&str> = tree.keys().filter_map(|file| file.split('/').next()).collect();
    for top in tops {
        if !(TOP_LEVEL.contains(&top) || top.starts_with('.') || top.starts_with("LICENSE")) {
            complain(out, top, 0, "does not belong at the top; find it a place in src, proto or tests");
        }
    }
}

fn check_length(file: &str, text: &str, out: &mut Vec<Complaint>) {
    let lines = text.lines().count();
    if file.ends_with(".rs") && lines > FILE_LINES_MAX {
        complain(out, file, 0, format!("has {lines} lines, more than {FILE_LINES_MAX}; split it along a noun"));
    }
    let stem = file.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or_default();
    let parent = file.strip_suffix("/mod.rs").and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    if file.ends_with(".rs") && (EMPTY_NAMES.contains(&stem) || EMPTY_NAMES.contains(&parent)) {
        complain(out, file, 0, "is named for nothing that is inside; name it after its noun");
    }
}

/// Marks of unfinished work, in any text. (Put together here so that this file does not hold them.)
fn check_left_over(file: &str, text: &str, out: &mut Vec<Complaint>) {
    let marks = [concat!("FIX", "ME"), concat!("TO", "DO:"), concat!("TO", "DO("), concat!("XX", "X:")];
    for (number, line) in text.lines().enumerate() {
        if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
            complain(out, file, number + 1, format!("{mark} is left over; do it or open an issue"));
        }
    }
}

fn is_test_file(file: &str) -> bool {
    file.starts_with("tests/") || file.contains("/tests/") || file.ends_with("/tests.rs") || file.ends_with("_tests.rs")
}

/// What a file says it is in the first paragraph of its documentation.
fn kinds(text: &str) -> Vec<&'static str> {
    let head: Vec<&str> =
        text.lines().take_while(|line| line.starts_with("//!")).take_while(|line| line.trim() != "//!").collect();
    let head = head.join("\n");
    ["AGREE", "DECIDE", "DO"]
        .into_iter()
        .filter(|kind| [")", ","].iter().any(|end| head.contains(&format!("({kind}{end}"))))
        .collect()
}

fn check_rust(file: &str, text: &str, out: &mut Vec<Complaint>) {
    let all = tokens(text);
    check_everywhere(file, &all, out);
    if is_test_file(file) {
        return;
    }
    let code = without_tests(&all);
    let named = paths(&code);
    check_product(file, &code, &named, out);
    check_layers(file, &named, out);
    let kinds = kinds(text);
    let root = is_crate_root(file);
    match (file.starts_with("proto/"), kinds.as_slice()) {
        (true, ["AGREE"]) | (false, ["AGREE" | "DECIDE" | "DO"]) => {}
        (false, []) if root => {}
        (true, _) => {
            complain(out, file, 1, "must say (AGREE) in the first lines of its documentation, and no other kind")
        }
        (false, _) => {
            complain(out, file, 1, "must say (AGREE), (DECIDE) or (DO) in the first lines of its documentation")
        }
    }
    if file.starts_with("proto/") || kinds.contains(&"AGREE") || kinds.contains(&"DECIDE") {
        check_pure(file, &code, &named, out);
    }
    let wanted = match file {
        "proto/src/lib.rs" => Some("forbid"),
        "src/lib.rs" => Some("deny"),
        _ => None,
    };
    if let Some(level) = wanted
        && !(0..all.len()).any(|at| stands(&all, at, &["#", "!", "[", level, "(", "unsafe_code", ")", "]"]))
    {
        complain(out, file, 1, format!("must say #![{level}(unsafe_code)]"));
    }
}

/// What neither the product nor its tests may hold.
fn check_everywhere(file: &str, all: &[Token], out: &mut Vec<Complaint>) {
    let inside = |place: &&str| file == format!("{place}.rs") || file.starts_with(&format!("{place}/"));
    for (at, token) in all.iter().enumerate() {
        let is = |texts: &[&str]| stands(all, at, texts);
        if is(&["#", "[", "ignore"]) {
            complain(
                out,
                file,
                token.line,
                "the attribute hides a test; make it run, or skip visibly for a stated reason",
            );
        }
        if is(&["unsafe"]) && !UNSAFE_ALLOWED.iter().any(inside) {
            complain(out, file, token.line, "unsafe belongs into src/sandbox/{linux,macos}.rs; rustix has safe calls");
        }
        for word in ["todo", "unimplemented", "dbg"] {
            if is(&[word, "!"]) {
                complain(out, file, token.line, format!("{word}! is left over"));
            }
        }
    }
}

/// What the product may not hold, though its tests may.
fn check_product(file: &str, code: &[Token], named: &[Path], out: &mut Vec<Complaint>) {
    let printer = PRINTERS.iter().any(|place| file.starts_with(place));
    for (at, token) in code.iter().enumerate() {
        if stands(code, at, &[".", "unwrap", "(", ")"]) {
            complain(out, file, token.line, "unwrap(): handle it, or expect(\"why it cannot fail\")");
        }
        let prints = ["print", "println", "eprint", "eprintln"].iter().any(|word| stands(code, at, &[word, "!"]));
        if prints && !printer {
            complain(out, file, token.line, "only src/cmd prints; return the words");
        }
    }
    for path in named.iter().filter(|path| path.segments.len() > 1) {
        if path.starts_with(&["anyhow"]) && !printer {
            complain(out, file, path.line, "anyhow is for src/cmd and main; use the module's own error enum");
        }
        if path.has(&["process", "exit"]) && !ENDERS.iter().any(|place| file.starts_with(place)) {
            complain(out, file, path.line, "only src/cmd, main and a sandbox's child end the process; return an error");
        }
    }
}

fn check_pure(file: &str, code: &[Token], named: &[Path], out: &mut Vec<Complaint>) {
    for token in code.iter().filter(|token| matches!(token.text.as_str(), "async" | "await")) {
        complain(out, file, token.line, format!("{} in a pure file; move it to a (DO) file", token.text));
    }
    for path in named {
        let banned = IMPURE_PATHS.iter().find(|(banned, _)| path.starts_with(banned));
        let called = IMPURE_CALLS.iter().find(|(banned, _)| path.has(banned));
        if let Some((_, instead)) = banned.or(called) {
            complain(out, file, path.line, format!("{} in a pure file: {instead}", path.segments.join("::")));
        }
        let socket = path.starts_with(&["std", "net"])
            && !path.segments.get(2).is_some_and(|name| ADDRESS_TYPES.contains(&name.as_str()));
        if socket {
            complain(out, file, path.line, "sockets in a pure file: let the caller move the bytes");
        }
    }
}

/// The module of ours that a path leads to, seen from a file: the first name under the crate's root.
fn module_named(file: &str, path: &Path) -> Option<String> {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["mesh_proto", ..] => Some("proto".into()),
        ["crate", name, ..] => Some((*name).into()),
        ["mesh", name, ..] if file == "src/main.rs" || file.starts_with("src/bin/") => Some((*name).into()),
        ["super", ..] => {
            let ups = segments.iter().take_while(|segment| **segment == "super").count();
            let inside = file.strip_prefix("src/")?.strip_suffix(".rs")?;
            let depth = inside.strip_suffix("/mod").unwrap_or(inside).split('/').count();
            // More `super` than levels: an inline module's, which stays inside its own file or climbs no further than one.
            (ups >= depth).then(|| segments.get(ups).map(|name| (*name).to_owned())).flatten()
        }
        _ => None,
    }
}

fn check_layers(file: &str, named: &[Path], out: &mut Vec<Complaint>) {
    let Some(inside) = file.strip_prefix("src/") else { return };
    let own = inside.split(['/', '.']).next().unwrap_or_default();
    if own == "lib" {
        return;
    }
    let knows = LAYERS.iter().find(|(name, _)| *name == own).map_or(OTHERS_KNOW, |(_, knows)| *knows);
    for path in named {
        let Some(module) = module_named(file, path).filter(|module| module != own) else { continue };
        let allowed = match knows {
            Knows::Only(names) => names.contains(&module.as_str()),
            Knows::AllBut(names) => !names.contains(&module.as_str()),
        };
        if !allowed {
            complain(out, file, path.line, format!("{own} may not know {module} (tests/tidy/rules.rs, LAYERS)"));
        }
    }
}

/// Rust files that no `mod` line reaches, and so are neither compiled nor tested.
fn check_forgotten(tree: &Tree, out: &mut Vec<Complaint>) {
    let listed: BTreeSet<&str> = tree
        .iter()
        .filter(|(file, _)| file.ends_with("Cargo.toml"))
        .flat_map(|(_, text)| text.lines().filter_map(|line| line.trim().strip_prefix("path = \"")?.strip_suffix('"')))
        .collect();
    for file in tree.keys().filter(|file| file.ends_with(".rs")) {
        if listed.contains(file.as_str()) || is_crate_root(file) || is_reached(tree, file) {
            continue;
        }
        complain(out, file, 0, "no `mod` line reaches it, so nothing compiles it");
    }
    let manifest = tree.get("Cargo.toml").map_or("", String::as_str);
    for file in tree.keys().filter(|file| file.ends_with(".rs") && is_integration_test(file)) {
        if manifest.contains("autotests = false") && !listed.contains(file.as_str()) {
            complain(out, file, 0, "is in no [[test]] of Cargo.toml, so it never runs");
        }
    }
}

/// `tests/NAME.rs` and `tests/NAME/main.rs`, which Cargo finds by itself.
fn is_integration_test(file: &str) -> bool {
    let Some(inside) = file.strip_prefix("tests/") else { return false };
    let parts: Vec<&str> = inside.split('/').collect();
    matches!(parts.as_slice(), [_] | [_, "main.rs"])
}

fn is_crate_root(file: &str) -> bool {
    let inside = file.strip_prefix("proto/").unwrap_or(file);
    matches!(inside, "src/lib.rs" | "src/main.rs" | "src/build.rs" | "build.rs")
        || inside.starts_with("src/bin/")
        || is_integration_test(inside)
}

fn is_reached(tree: &Tree, file: &str) -> bool {
    let own = file.strip_suffix("/mod.rs").unwrap_or(file.strip_suffix(".rs").unwrap_or(file));
    let Some((folder, name)) = own.rsplit_once('/') else { return false };
    let last = folder.rsplit('/').next().unwrap_or(folder);
    let beside = ["mod", "lib", "main", last].map(|stem| format!("{folder}/{stem}.rs"));
    let parents = beside.into_iter().chain([format!("{folder}.rs")]);
    let declared =
        parents.filter(|parent| parent.as_str() != file).filter_map(|parent| tree.get(&parent)).any(|text| {
            let code = tokens(text);
            (0..code.len()).any(|at| stands(&code, at, &["mod", name, ";"]))
        });
    let by_path = format!("#[path = \"{name}.rs\"]");
    declared || tree.iter().any(|(beside, text)| beside.starts_with(&format!("{folder}/")) && text.contains(&by_path))
}
