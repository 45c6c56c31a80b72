//! Tables: a text, and what the scanner must say of it (DECIDE).

use super::*;

/// A scan in words, in its own order: uses sorted, then computed names, then flags.
fn words(text: &str) -> Vec<String> {
    let scan = scan(text.as_bytes(), false);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut out: Vec<String> = scan
        .uses
        .iter()
        .map(|(form, name)| match form {
            Form::Quoted => format!("\"{}\"", text(name)),
            Form::Angled => format!("<{}>", text(name)),
            Form::Next => format!("next {}", text(name)),
            Form::Embed => format!("embed {}", text(name)),
            Form::Line => format!("line {}", text(name)),
        })
        .collect();
    out.extend(scan.computed.iter().map(|c| format!("{}{}", if c.has { "has " } else { "macro " }, text(&c.name))));
    for (bit, name) in [
        (flag::DATE_TIME, "DATE"),
        (flag::TIMESTAMP, "STAMP"),
        (flag::ASM_FILE, "ASM"),
        (flag::MODULES, "MODULES"),
        (flag::COMPUTED, "ASK"),
        (flag::COMPUTED_HAS, "HAS"),
        (flag::PLACE, "PLACE"),
    ] {
        if scan.flags & bit != 0 {
            out.push(name.to_owned());
        }
    }
    out
}

#[track_caller]
fn check(text: &str, want: &[&str]) {
    assert_eq!(words(text), want, "{text}");
}

#[test]
fn finds_directives_however_they_are_spelled() {
    check("#include \"a.h\"\n#include <b.h>", &["\"a.h\"", "<b.h>"]);
    check("  #\tinclude\t<b.h> // c\n", &["<b.h>"]);
    check("#include<b.h>\r\n#include \"a.h\"\r\n", &["\"a.h\"", "<b.h>"]);
    check("\u{feff}#include <b.h>", &["<b.h>"]);
    check("/* x */ #include <b.h>", &["<b.h>"]);
    check("/* x\n y */ # /* z */ include /* w */ <b.h> /* v\n */\n", &["<b.h>"]);
    check("#inc\\\nlude \\\n <b\\\n.h>", &["<b.h>"]);
    check("#include \\  \r\n <b.h>", &["<b.h>"]);
    check("%:include <b.h>\n??=include \"a.h\"", &["\"a.h\"", "<b.h>"]);
    check("# ??/\ninclude <b.h>", &["<b.h>"]);
    check("#import \"a.h\"\n#include_next <n.h>", &["\"a.h\"", "next n.h"]);
    check("#include <sys//*.h>\n#include <b//c.h>", &["<b//c.h>", "<sys//*.h>"]);
    check("#include \"a\\b.h\"", &["\"a\\b.h\""]);
    check("#if 0\n#include <b.h>\n#elif X\n#include <c.h>\n#endif", &["<b.h>", "<c.h>"]);
    check("#embed \"data.bin\" limit(4)", &["embed data.bin"]);
    check("#include <b.h>\n#include <b.h>", &["<b.h>"]);
    check("int x;\r#include <b.h>\r", &["<b.h>"]);
}

#[test]
fn passes_by_comments_and_strings() {
    check("// #include <b.h>\n/*\n#include <c.h>\n*/", &[]);
    check("// x \\\n#include <b.h>\n", &[]);
    check("char *s = \"/*\";\n#include <b.h>\nchar *t = \"*/\";", &["<b.h>"]);
    check("char c = '\"';\n#include <b.h>\n", &["<b.h>"]);
    check("char c = '\\'', d = '/*';\n#include <b.h>\n", &["<b.h>"]);
    check("#if 0\ndon't /* nothing\n#endif\n#include <b.h>\n", &["<b.h>"]);
    check("int x = 1'000'000; /*\n#include <c.h>\n*/\n#include <b.h>", &["<b.h>"]);
    check("x = a / b; y = *p / *q;\n#include <b.h>", &["<b.h>"]);
    check("char *s = \"a\\\n#include <c.h>\";\n#include <b.h>\n", &["<b.h>"]);
    check("/\\\n* \n#include <c.h>\n*\\\n/ #include <b.h>", &["<b.h>"]);
    check("__DATE_X__ x__DATE__ /* __DATE__ */ \"__TIME__\" // __TIMESTAMP__", &[]);
    check("/* .incbin \"x\" */ // .incbin", &[]);
    check("/* #include FOO() */ // #include STR(x)\n", &[]);
}

#[test]
fn raw_strings_hide_doubt_but_not_names() {
    check("auto s = R\"(\n#include <b.h>\n#include X()\n__DATE__ \" /* )\";\n#include <c.h>", &["<b.h>", "<c.h>"]);
    check("auto s = u8R\"x(\n)\" \n /* )x\";\n#include <c.h>", &["<c.h>"]);
    check("#define FOOR\nint FOOR\"(\";\n#include <c.h>\n", &["<c.h>"]);
}

#[test]
fn computed_includes_are_told_apart() {
    check("#include CONFIG_H", &["macro CONFIG_H"]);
    check("#include CONFIG_H // here\n", &["macro CONFIG_H"]);
    check("#include HEADER(x)", &["ASK"]);
    check("#include X Y", &["ASK"]);
    check("#include __FILE__", &["ASK"]);
    check("#embed NAME", &["ASK"]);
    check("#include L\"x.h\"", &["ASK"]);
    check("#include", &[]);
}

#[test]
fn has_include_counts_by_its_operand() {
    check("#if __has_include(<b.h>) && __has_include ( \"a.h\" )", &["\"a.h\"", "<b.h>"]);
    check("#if __has_include_next(<b.h>)", &["next b.h"]);
    check("#if __has_embed(\"d\" limit(3))", &["embed d"]);
    check("#if __has_include(<b//c.h>)", &["<b//c.h>"]);
    check("#if defined(__has_include) && __has_include(<b.h>)", &["<b.h>"]);
    check("#ifdef __has_include\n#if defined __has_include\n#endif", &[]);
    check("#ifndef __has_include\n#define __has_include(x) 0\n#endif", &[]);
    check("#define HAVE_X __has_include(<b.h>)", &["<b.h>"]);
    check("#if __has_include(NAME)", &["has NAME"]);
    check("#if __has_include(NAME(x))", &["HAS"]);
    check("#define P(x) __has_include(x)", &["HAS"]);
    check("#define P __has_include", &["HAS"]);
    check("#define FMT_HAS_INCLUDE(x) __has_include(x)\n#if FMT_HAS_INCLUDE(\"w.h\")\n#endif", &["\"w.h\""]);
    check("#define FMT_HAS_INCLUDE(...) __has_include(__VA_ARGS__)", &[]);
    check("#if __has_in\\\nclude(<b.h>)", &["HAS"]);
    check("// __has_include(NAME)", &[]);
    let scan = scan(b"#define A_has_include(x) __has_include(x)\n#if A_has_include(Y)", false);
    assert_eq!((scan.wrappers.len(), scan.wrapper_calls.len()), (1, 1));
    assert_eq!(scan.wrappers, scan.wrapper_calls);
}

#[test]
fn what_else_keeps_a_unit_here_is_seen() {
    check("char *d = __DATE__;", &["DATE"]);
    check("#define T __TIME__ \"\"", &["DATE"]);
    check("__TIME\\\nSTAMP__", &["STAMP"]);
    check("f(__TIMESTAMP__)", &["STAMP"]);
    check("asm(\".incbin \\\"x\\\"\");", &["ASM"]);
    check("asm(\n\" .include \\\"x\\\"\");", &["ASM"]);
    check("import foo;\n", &["MODULES"]);
    check("import <vector>;", &["MODULES"]);
    check("import :part;", &["MODULES"]);
    check("export module a.b:c;", &["MODULES"]);
    check("module;", &["MODULES"]);
    check("@import Foundation;", &["MODULES"]);
    check("#pragma clang module import x", &["MODULES"]);
    check("import = 3;\nmodule->x();\nmodule(y);\nexport int z;\nimport(x);", &[]);
    assert_eq!(scan(b".incbin \"x\"", true).flags, flag::ASM_FILE);
    assert_eq!(scan(b".incbin \"x\"", false).flags, 0);
}

#[test]
fn names_that_only_diagnostics_open_are_seen() {
    check("#line 7 \"p.y\"\n#line 8\n# 9 \"q.y\" 1 3\n# 1 \"<built-in>\"", &["line p.y", "line q.y"]);
    check("# 1 \"a\\\\b\\\"c\"", &["line a\\b\"c"]);
    check("#pragma GCC dependency \"p.y\" old", &["\"p.y\""]);
    check("#pragma clang include_instead(<b.h>)", &["<b.h>"]);
}

#[test]
fn defines_are_kept_by_what_an_include_could_make_of_them() {
    let bodies = |text: &str| scan(text.as_bytes(), false).defines.into_iter().map(|d| d.body).collect::<Vec<_>>();
    let header = |form, name: &str| Body::Header(form, name.as_bytes().into());
    assert_eq!(
        bodies("#define A \"x.h\" /* c */\n#define B <y.h>"),
        [header(Form::Quoted, "x.h"), header(Form::Angled, "y.h")]
    );
    assert_eq!(bodies("#define A B\n# define A \\\n B\n"), [Body::Alias(hash32(b"B")), Body::Alias(hash32(b"B"))]);
    assert_eq!(
        bodies("#define A(x) x\n#define B C(x)\n#define D \"x\" y"),
        [Body::Complex, Body::Complex, Body::Complex]
    );
    assert_eq!(bodies("#define A\n#define B 1\n#define C (x)\n"), [Body::Plain, Body::Plain, Body::Plain]);
    assert_eq!(body_of(b"\"x.h\""), header(Form::Quoted, "x.h"));
    assert_eq!(flags_of_body(b"__DATE__"), flag::DATE_TIME);
    assert_ne!(flags_of_body(b"__has_include(<x.h>)") & flag::COMPUTED_HAS, 0);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic_or_run_on(text in proptest::collection::vec(proptest::sample::select(
        &b"#include<>\"'\\\n\r/*R() ?=%:_haTIMEDef__has_include\xff\0 .line0"[..]), 0..400)) {
        let scan = scan(&text, false);
        proptest::prop_assert!(scan.uses.len() <= text.len());
    }
}

#[test]
fn finds_what_says_in_which_file_it_stands() {
    for word in ["__FILE__", "__BASE_FILE__", "__builtin_FILE()", "__PRETTY_FUNCTION__", "__FI\\\nLE__"] {
        check(&format!("#define WHERE f({word})\n"), &["PLACE"]);
        check(&format!("/* {word} */ char *s = \"{word}\"; // {word}\n"), &[]);
    }
    check("auto w = std::source_location::current();", &["PLACE"]);
    check("auto w = __builtin_source_location();", &["PLACE"]);
    check("#include <source_location>\n", &["<source_location>"]);
    check("f(__FILE_NAME__, A_FILE, __LINE__, __cpp_lib_source_location);", &[]);
}

#[test]
fn knows_how_far_names_lead_out_of_their_directory() {
    for (text, above) in [
        ("#include \"a/../b.h\"\n", 0),
        ("#include \"../b.h\"\n#include <c.h>\n", 1),
        ("#include <a/../../../b/c.h>\n", 2),
        ("#line 1 \"../../x.y\"\n", 0),
        ("#if __has_include(\"../../../x\")\n", 3),
    ] {
        assert_eq!(scan(text.as_bytes(), false).climb, above, "{text}");
    }
    check("#include \"/a/b.h\"\n", &["\"/a/b.h\"", "PLACE"]);
    check("#line 1 \"/a/x.y\"\n", &["line /a/x.y"]);
}
