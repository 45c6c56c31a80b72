//! Every trap that comparing with real compilers has shown, as a small tree.

use super::{Tree, bytes, check, check_refused, closure, closure_as, plan, show};
use crate::compiler::invocation::Family;
use crate::compiler::plan::Language;
use crate::inputs::{Graph, Undecidable};
use crate::reason::Reason;
use mesh_proto::closure::Node;

fn local(reason: Reason) -> Undecidable {
    Undecidable::Local(reason)
}

#[test]
fn a_directory_never_is_the_header_meant() {
    let tree = Tree::new(&[("a.cc", "#include <memory>\n"), ("memory/x.h", ""), ("i/memory", "")]);
    check(&tree, &plan("a.cc", &[".", "i"]), &["f a.cc", "d i", "f i/memory", "d memory"]);
}

#[test]
fn every_file_of_a_name_on_the_search_path_is_taken() {
    let tree =
        Tree::new(&[("a.c", "#include \"x.h\"\n"), ("i/x.h", "#include_next <x.h>\n"), ("j/x.h", ""), ("k/x.h", "")]);
    check(&tree, &plan("a.c", &["i", "j", "k", "i"]), &["f a.c", "d i", "f i/x.h", "d j", "f j/x.h", "d k", "f k/x.h"]);
}

#[test]
fn quotes_look_beside_the_includer_and_brackets_do_not() {
    let tree = Tree::new(&[
        ("a.c", "#include \"s/x.h\"\n#include <z.h>\n"),
        ("s/x.h", "#include \"y.h\"\n#include <w.h>\n"),
        ("s/y.h", ""),
        ("s/w.h", ""),
        ("z.h", ""),
    ]);
    check(&tree, &plan("a.c", &[]), &["f a.c", "d s", "f s/x.h", "f s/y.h"]);
}

#[test]
fn quote_directories_serve_quotes_only() {
    let tree = Tree::new(&[("a.c", "#include \"x.h\"\n#include <y.h>\n"), ("q/x.h", ""), ("q/y.h", "")]);
    let mut plan = plan("a.c", &[]);
    plan.search.quote.push(b"q".to_vec());
    check(&tree, &plan, &["f a.c", "d q", "f q/x.h"]);
    tree.write("a.c", "#include_next <y.h>\n");
    check(&tree, &plan, &["f a.c", "d q", "f q/y.h"]);
}

#[test]
fn both_branches_and_has_include_are_followed() {
    let tree = Tree::new(&[
        ("a.c", "#if __has_include(<p.h>)\n#include <q.h>\n#else\n#include <r.h>\n#endif\n"),
        ("i/p.h", ""),
        ("i/q.h", ""),
        ("i/r.h", ""),
    ]);
    check(&tree, &plan("a.c", &["i"]), &["f a.c", "d i", "f i/p.h", "f i/q.h", "f i/r.h"]);
}

#[test]
fn searched_directories_are_entries_though_empty_and_absent_ones_are_none() {
    let tree = Tree::new(&[("a.c", "")]);
    tree.mkdir("empty");
    check(&tree, &plan("a.c", &["empty", "absent", "empty/../absent"]), &["f a.c", "d empty"]);
}

#[test]
fn directories_left_by_dots_are_entries() {
    let tree = Tree::new(&[
        ("a.c", "#include \"sub/../x.h\"\n#include \"gone/../x.h\"\n#include \"t/./u//y.h\""),
        ("x.h", ""),
        ("t/u/y.h", "#include \"../../z/w.h\"\n"),
        ("z/w.h", ""),
    ]);
    tree.mkdir("sub");
    check(&tree, &plan("a.c", &[]), &["f a.c", "d sub", "d t", "d t/u", "f t/u/y.h", "f x.h", "d z", "f z/w.h"]);
}

#[test]
fn links_are_entries_and_dots_behind_them_are_physical() {
    let tree = Tree::new(&[
        ("a.c", "#include \"l/x.h\"\n#include \"l/../y.h\"\n"),
        ("far/dir/x.h", ""),
        ("far/y.h", ""),
        ("y.h", "#error not this one"),
    ]);
    tree.link("far/dir", "l");
    check(&tree, &plan("a.c", &[]), &["f a.c", "d far", "d far/dir", "f far/dir/x.h", "f far/y.h", "l l"]);
}

#[test]
fn a_linked_header_looks_beside_its_link_and_beside_its_file() {
    let tree = Tree::new(&[
        ("a.c", "#include \"i/x.h\"\n"),
        ("real/x.h", "#include \"y.h\"\n"),
        ("real/y.h", ""),
        ("i/y.h", ""),
    ]);
    tree.link("mid", "i/x.h");
    tree.link("../real/x.h", "i/mid");
    let want = ["f a.c", "d i", "l i/mid", "l i/x.h", "f i/y.h", "d real", "f real/x.h", "f real/y.h"];
    check(&tree, &plan("a.c", &[]), &want);
}

#[test]
fn dangling_and_circular_links_lead_nowhere() {
    let tree = Tree::new(&[("a.c", "#include \"x.h\"\n#include \"y.h\"\n")]);
    tree.link("gone", "x.h");
    tree.link("y.h", "y.h");
    check(&tree, &plan("a.c", &[]), &["f a.c", "l x.h", "l y.h"]);
}

#[test]
fn absolute_names_are_followed_component_by_component() {
    let tree = Tree::new(&[("far/x.h", ""), ("a.c", "")]);
    tree.link("far", "l");
    tree.write("a.c", &format!("#include \"{}/l/x.h\"\n#include <{0}/gone.h>\n", tree.root.display()));
    check(&tree, &plan("a.c", &[]), &["f a.c", "d far", "f far/x.h", "l l"]);
}

#[test]
fn the_logical_working_directory_keeps_its_links() {
    let tree = Tree::new(&[("real/deep/a.c", "#include \"../x.h\"\n"), ("real/x.h", "")]);
    tree.link("real/deep", "l");
    let closure = closure(&mut Graph::new(), &tree.path("l"), &plan("a.c", &[])).unwrap();
    assert_eq!(show(&closure, &tree.root), ["l l", "d real", "d real/deep", "f real/deep/a.c", "f real/x.h"]);
    assert_eq!(closure.output_dirs[0].as_bytes(), bytes(&tree.path("real/deep")));
}

#[test]
fn the_implicit_header_is_always_looked_for() {
    let tree = Tree::new(&[("a.c", ""), ("sys/stdc-predef.h", "#include <deep.h>"), ("sys/deep.h", "")]);
    let dirs = [bytes(&tree.path("sys"))];
    let closure = closure_as(&mut Graph::new(), &tree.root, &plan("a.c", &[]), &dirs, Family::Gcc).unwrap();
    assert_eq!(show(&closure, &tree.root), ["f a.c", "d sys", "f sys/deep.h", "f sys/stdc-predef.h"]);
}

#[test]
fn forced_includes_come_from_the_working_directory_first() {
    let tree = Tree::new(&[("s/a.c", ""), ("f.h", "#include \"g.h\"\n"), ("g.h", ""), ("i/f.h", ""), ("i/h.h", "")]);
    let mut plan = plan("s/a.c", &["i"]);
    plan.forced_includes = vec![b"f.h".to_vec(), b"h.h".to_vec(), b"absent.h".to_vec()];
    check(&tree, &plan, &["f f.h", "f g.h", "d i", "f i/f.h", "f i/h.h", "d s", "f s/a.c"]);
}

#[test]
fn macros_that_name_headers_are_looked_up_in_all_that_is_read() {
    let tree = Tree::new(&[
        ("a.c", "#include \"d.h\"\n#include CONFIG\n#include USER\n#include NOBODY\n"),
        ("d.h", "#if A\n#define CONFIG \"x.h\"\n#else\n#define CONFIG OTHER\n#endif\n#define OTHER <y.h>\n"),
        ("x.h", "#include LATE\n#define LATER \"z.h\"\n"),
        ("y.h", "#define LATE LATER\n"),
        ("z.h", ""),
        ("u.h", ""),
    ]);
    let mut plan = plan("a.c", &["."]);
    plan.defines = vec![(b"USER".to_vec(), b"\"u.h\"".to_vec())];
    check(&tree, &plan, &["f a.c", "f d.h", "f u.h", "f x.h", "f y.h", "f z.h"]);
}

#[test]
fn macros_that_only_a_compiler_can_expand_ask_it() {
    for text in [
        "#define H(x) <x.h>\n#include H(y)\n",
        "#define H(x) <x.h>\n#include H\n",
        "#define H STR(y.h)\n#include H\n",
        "#define H <linux/y.h>\n#include H\n",
        "#define y z\n#define H <y.h>\n#include H\n",
        "#include __FILE__\n",
    ] {
        let tree = Tree::new(&[("a.c", text), ("y.h", "")]);
        check_refused(&tree, &plan("a.c", &["."]), Undecidable::AskCompiler);
    }
}

#[test]
fn has_include_of_what_is_computed_stays_here() {
    for text in ["#if __has_include(FOO)\n#endif\n", "#define F(x) <x>\n#if __has_include(F(y))\n#endif\n"] {
        check_refused(&Tree::new(&[("a.c", text)]), &plan("a.c", &[]), local(Reason::ComputedInclude));
    }
    let tree = Tree::new(&[("a.c", "#define FOO \"x.h\"\n#if __has_include(FOO)\n#endif\n"), ("x.h", "")]);
    check(&tree, &plan("a.c", &[]), &["f a.c", "f x.h"]);
    let wrapper = "#define MY_HAS_INCLUDE(x) __has_include(x)\n";
    let tree = Tree::new(&[("a.c", &format!("{wrapper}#if MY_HAS_INCLUDE(\"x.h\")\n#endif\n")), ("x.h", "")]);
    check(&tree, &plan("a.c", &[]), &["f a.c", "f x.h"]);
    tree.write("a.c", &format!("{wrapper}#if MY_HAS_INCLUDE(FOO)\n#endif\n"));
    check_refused(&tree, &plan("a.c", &[]), local(Reason::ComputedInclude));
}

#[test]
fn what_the_sandbox_could_not_reproduce_stays_here() {
    for (text, reason) in [
        ("char *d = __DATE__;", Reason::Timestamp),
        ("char *d = __TIMESTAMP__;", Reason::Timestamp),
        ("__asm__(\".incbin \\\"x\\\"\");", Reason::AsmIncbin),
    ] {
        check_refused(&Tree::new(&[("a.c", text)]), &plan("a.c", &[]), local(reason));
    }
    let modules = [("a.cc", "import foo;\n"), ("a.c", "import foo;\n")];
    check_refused(&Tree::new(&modules), &plan("a.cc", &[]), local(Reason::Modules));
    check(&Tree::new(&modules), &plan("a.c", &[]), &["f a.c"]);
    let mut fixed = plan("a.c", &[]);
    fixed.epoch_fixed = true;
    check(&Tree::new(&[("a.c", "char *d = __DATE__;")]), &fixed, &["f a.c"]);
    let mut redacted = plan("a.c", &[]);
    redacted.defines = ["__DATE__", "__TIME__"].map(|name| (name.into(), b"\"redacted\"".to_vec())).into();
    check(&Tree::new(&[("a.c", "char *d = __DATE__;")]), &redacted, &["f a.c"]);
    let mut defined = plan("a.c", &[]);
    defined.defines.push((b"WHEN".to_vec(), b"__TIME__".to_vec()));
    check_refused(&Tree::new(&[("a.c", "")]), &defined, local(Reason::Timestamp));
}

#[test]
fn precompiled_headers_stay_here_beside_their_header_or_without_it() {
    let tree = Tree::new(&[("a.c", "#include \"i/x.h\"\n"), ("i/x.h", ""), ("i/y.h.gch", "")]);
    check(&tree, &plan("a.c", &[]), &["f a.c", "d i", "f i/x.h"]);
    tree.mkdir("i/x.h.gch");
    check_refused(&tree, &plan("a.c", &[]), local(Reason::PchUse));
    let tree = Tree::new(&[("a.c", "#include <z.h>\n"), ("i/z.h.gch", "")]);
    check_refused(&tree, &plan("a.c", &["i"]), local(Reason::PchUse));
    let tree = Tree::new(&[("a.c", ""), ("f.h", ""), ("f.h.pch", "")]);
    let mut forced = plan("a.c", &[]);
    forced.forced_includes.push(b"f.h".to_vec());
    check_refused(&tree, &forced, local(Reason::PchUse));
}

#[test]
fn files_that_only_diagnostics_open_are_content() {
    let tree = Tree::new(&[("s/a.c", "#line 1 \"p.y\"\n"), ("p.y", "#include \"x.h\"\n"), ("x.h", "")]);
    check(&tree, &plan("s/a.c", &[]), &["f p.y", "d s", "f s/a.c"]);
}

#[test]
fn embedded_data_is_content() {
    let tree =
        Tree::new(&[("a.c", "char d[] = {\n#embed \"d.bin\"\n};\n"), ("d.bin", "#include \"x.h\"\n"), ("x.h", "")]);
    check(&tree, &plan("a.c", &[]), &["f a.c", "f d.bin"]);
}

#[test]
fn outputs_must_be_regular_files_in_directories_that_exist() {
    let tree = Tree::new(&[("a.c", ""), ("o/x.o", "")]);
    tree.link("a.c", "link.o");
    for (output, is_good) in [
        ("o/x.o", true),
        ("o/new.o", true),
        ("gone/x.o", false),
        ("o", false),
        ("o/", false),
        ("/dev/null", false),
        ("link.o", false),
    ] {
        let mut plan = plan("a.c", &[]);
        plan.output = output.into();
        let result = closure(&mut Graph::new(), &tree.root, &plan);
        assert_eq!(result.as_ref().err(), (!is_good).then_some(&local(Reason::SpecialOutput)), "{output}");
    }
    let mut plan = plan("a.c", &[]);
    plan.output = b"o/x.o".to_vec();
    plan.side_outputs = vec![b"x.d".to_vec(), b"o/../y.d".to_vec()];
    let closure = closure(&mut Graph::new(), &tree.root, &plan).unwrap();
    let dirs: Vec<_> = closure.output_dirs.iter().map(|dir| dir.as_bytes().to_vec()).collect();
    assert_eq!(dirs, [bytes(&tree.path("o")), bytes(&tree.root)]);
    assert_eq!(show(&closure, &tree.root), ["f a.c", "d o"]);
}

#[test]
fn unreadable_and_missing_sources_stay_here() {
    let tree = Tree::new(&[("x.h", "")]);
    check_refused(&tree, &plan("a.c", &[]), local(Reason::Unreadable));
    tree.mkdir("a.c");
    check_refused(&tree, &plan("a.c", &[]), local(Reason::Unreadable));
    check_refused(&tree, &plan("/dev/null", &[]), local(Reason::Unreadable));
}

#[test]
fn a_suspect_that_exists_stays_here() {
    let tree = Tree::new(&[("a.c", ""), ("x.txt", "")]);
    let mut plan = plan("a.c", &[]);
    plan.suspects = vec![b"3".to_vec(), b"".to_vec()];
    check(&tree, &plan, &["f a.c"]);
    plan.suspects.push(b"x.txt".to_vec());
    check_refused(&tree, &plan, local(Reason::UnknownOption));
}

#[test]
fn files_that_options_name_are_content() {
    let tree = Tree::new(&[("a.c", ""), ("d/list.txt", "#include \"a.h\"\n")]);
    tree.link("d", "l");
    let mut plan = plan("a.c", &[]);
    plan.extra_inputs = vec![b"l/list.txt".to_vec(), b"gone.txt".to_vec()];
    check(&tree, &plan, &["f a.c", "d d", "f d/list.txt", "l l"]);
}

#[test]
fn one_inode_of_two_names_is_told_from_two_equal_files() {
    let tree =
        Tree::new(&[("a.c", "#include \"x.h\"\n#include \"y.h\"\n#include \"z.h\"\n"), ("x.h", "1"), ("z.h", "1")]);
    std::fs::hard_link(tree.path("x.h"), tree.path("y.h")).unwrap();
    let closure = closure(&mut Graph::new(), &tree.root, &plan("a.c", &[])).unwrap();
    let inode = |name: &str| {
        closure.entries.iter().find_map(|named| match &named.entry.node {
            Node::File(file) if named.entry.path.name() == name.as_bytes() => Some((file.inode, file.digest)),
            _ => None,
        })
    };
    assert_eq!(inode("x.h"), inode("y.h"));
    assert_ne!(inode("x.h").unwrap().0, inode("z.h").unwrap().0);
    assert_eq!(inode("x.h").unwrap().1, inode("z.h").unwrap().1);
}

#[test]
fn a_file_in_a_directorys_place_is_an_entry_for_gcc_and_a_header_map_for_clang() {
    let tree = Tree::new(&[("a.c", ""), ("x.hmap", "")]);
    check(&tree, &plan("a.c", &["x.hmap", "x.hmap/sub"]), &["f a.c", "f x.hmap"]);
    let refused = closure_as(&mut Graph::new(), &tree.root, &plan("a.c", &["x.hmap"]), &[], Family::Clang);
    assert_eq!(refused.unwrap_err(), local(Reason::ComputedInclude));
}

#[test]
fn assembler_that_includes_by_itself_stays_here() {
    let tree = Tree::new(&[("a.S", "#include \"x.h\"\n"), ("x.h", ""), ("b.S", ".include \"y.inc\"\n")]);
    let mut asm = plan("a.S", &[]);
    asm.language = Language::AssemblerWithCpp;
    check(&tree, &asm, &["f a.S", "f x.h"]);
    asm.source = b"b.S".to_vec();
    check_refused(&tree, &asm, local(Reason::AsmIncbin));
}

#[test]
fn entries_come_in_the_order_of_their_paths() {
    let tree = Tree::new(&[
        ("a.c", "#include \"b/x.h\"\n#include \"b.h\"\n#include \"b-c.h\"\n"),
        ("b/x.h", ""),
        ("b.h", ""),
        ("b-c.h", ""),
    ]);
    let mut graph = Graph::new();
    for _ in 0..2 {
        let closure = closure(&mut graph, &tree.root, &plan("a.c", &[])).unwrap();
        assert!(closure.entries.windows(2).all(|pair| pair[0].entry.path < pair[1].entry.path));
        tree.write("a.c", "#include \"b/x.h\"\n#include \"b.h\"\n#include \"b-c.h\"\n#include \"a-a.h\"\n");
        tree.write("a-a.h", "");
    }
}

#[test]
fn odd_names_are_bytes() {
    use std::os::unix::ffi::OsStrExt as _;
    let tree = Tree::new(&[("a.c", "#include \"a b $.h\"\n"), ("a b $.h", "")]);
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    std::fs::create_dir(tree.root.join(odd)).unwrap();
    std::fs::write(tree.root.join(odd).join("x.h"), "").unwrap();
    let mut text = b"#include \"a b $.h\"\n#include \"\xff\xfe/x.h\"\n".to_vec();
    text.extend_from_slice(b"// \xff");
    std::fs::write(tree.path("a.c"), text).unwrap();
    let closure = closure(&mut Graph::new(), &tree.root, &plan("a.c", &[])).unwrap();
    assert_eq!(show(&closure, &tree.root).len(), 4);
    assert!(closure.entries.iter().any(|named| named.entry.path.as_bytes().ends_with(b"/\xff\xfe/x.h")));
}
