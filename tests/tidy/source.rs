//! Reads Rust source as far as the checks need: tokens without comments and literals, test code taken out, and the
//! paths that the rest names.
//!
//! A real parser (syn) was rejected: it brings a dependency, drops what macros contain and knows no line numbers without
//! more features. Tokens are enough, because every rule is about words and paths.

/// One word or sign of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// An identifier, `::`, or one other sign.
    pub(crate) text: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// A path such as `crate::net::stream`, with groups expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) segments: Vec<String>,
    /// Where it begins, counted from 1.
    pub(crate) line: usize,
}

impl Path {
    /// Whether these segments stand in it, one after the other, anywhere.
    pub(crate) fn has(&self, wanted: &[&str]) -> bool {
        self.segments.windows(wanted.len()).any(|window| window == wanted)
    }

    /// Whether it begins so.
    pub(crate) fn starts_with(&self, wanted: &[&str]) -> bool {
        self.segments.len() >= wanted.len() && self.segments.iter().zip(wanted).all(|(a, b)| a == b)
    }
}

/// The tokens of a source text; comments and literals leave nothing.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let next = chars.get(at + 1).copied();
        let end = match chars[at] {
            '/' if next == Some('/') => position(&chars, at, |c| c == '\n'),
            '/' if next == Some('*') => block_comment_end(&chars, at),
            '"' => string_end(&chars, at),
            '\'' => char_end(&chars, at),
            c if c == '_' || c.is_alphabetic() => {
                let end = position(&chars, at, |c| c != '_' && !c.is_alphanumeric());
                let word: String = chars[at..end].iter().collect();
                match literal_end(&chars, &word, end) {
                    Some(literal) => literal,
                    None => {
                        out.push(Token { text: word, line });
                        end
                    }
                }
            }
            c if c.is_ascii_digit() => position(&chars, at, |c| c != '_' && !c.is_alphanumeric()),
            ':' if next == Some(':') => {
                out.push(Token { text: "::".into(), line });
                at + 2
            }
            c => {
                if !c.is_whitespace() {
                    out.push(Token { text: c.into(), line });
                }
                at + 1
            }
        };
        line += chars[at..end].iter().filter(|&&c| c == '\n').count();
        at = end;
    }
    out
}

fn position(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|&c| stop(c)).map_or(chars.len(), |n| from + n)
}

/// Block comments nest.
fn block_comment_end(chars: &[char], from: usize) -> usize {
    let (mut depth, mut at) = (0, from);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn string_end(chars: &[char], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A character literal, or only the tick of a lifetime.
fn char_end(chars: &[char], tick: usize) -> usize {
    match (chars.get(tick + 1), chars.get(tick + 2)) {
        (Some('\\'), _) => position(chars, tick + 3, |c| c == '\'') + 1,
        (Some(_), Some('\'')) => tick + 3,
        _ => tick + 1,
    }
}

/// The end of a literal that begins with a word: `r#"…"#`, `b"…"`, `b'…'`, `c"…"`.
fn literal_end(chars: &[char], word: &str, after: usize) -> Option<usize> {
    match (word, chars.get(after)?) {
        ("b" | "c", '"') => Some(string_end(chars, after)),
        ("b", '\'') => Some(char_end(chars, after)),
        ("r" | "br" | "cr", '"' | '#') => {
            let quote = position(chars, after, |c| c != '#');
            (chars.get(quote) == Some(&'"')).then(|| {
                let hashes = quote - after;
                let mut at = quote + 1;
                while at < chars.len() {
                    let closed =
                        chars[at] == '"' && chars[at + 1..].iter().take_while(|&&c| c == '#').count() >= hashes;
                    at += 1;
                    if closed {
                        return at + hashes;
                    }
                }
                chars.len()
            })
        }
        _ => None,
    }
}

/// The tokens that remain when items under `#[cfg(test)]` and `#[test]` are taken out.
pub(crate) fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        match test_attribute_end(tokens, at) {
            Some(end) => at = item_end(tokens, end),
            None => {
                out.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    out
}

/// Whether these texts stand at this place.
pub(crate) fn stands(tokens: &[Token], at: usize, texts: &[&str]) -> bool {
    tokens.len() >= at + texts.len() && tokens[at..].iter().zip(texts).all(|(token, text)| token.text == *text)
}

fn test_attribute_end(tokens: &[Token], at: usize) -> Option<usize> {
    let is = |texts: &[&str]| stands(tokens, at, texts);
    let test = is(&["#", "[", "test", "]"])
        || is(&["#", "[", "cfg", "(", "test"])
        || is(&["#", "[", "cfg", "(", "all", "(", "test"]);
    test.then(|| group_end(tokens, at + 1))
}

/// The place after the bracket that closes the one here.
fn group_end(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_i32;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// The place after the item, statement or field that begins here.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while stands(tokens, at, &["#", "["]) {
        at = group_end(tokens, at + 1);
    }
    const ITEMS: &[&str] = &[
        "async",
        "const",
        "enum",
        "extern",
        "fn",
        "impl",
        "macro_rules",
        "mod",
        "static",
        "struct",
        "trait",
        "type",
        "union",
        "unsafe",
        "use",
    ];
    let mut first = at;
    if stands(tokens, first, &["pub"]) {
        first += 1;
        if stands(tokens, first, &["("]) {
            first = group_end(tokens, first);
        }
    }
    let item = tokens.get(first).is_some_and(|token| ITEMS.contains(&token.text.as_str()));
    let import = stands(tokens, first, &["use"]);
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" if item && !import => return group_end(tokens, at),
            "(" | "[" | "{" => at = group_end(tokens, at),
            ";" => return at + 1,
            "," if !item => return at + 1,
            "}" | ")" | "]" => return at,
            _ => at += 1,
        }
    }
    at
}

/// Every path in the tokens, `use` groups expanded: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
pub(crate) fn paths(tokens: &[Token]) -> Vec<Path> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        at = if is_word(&tokens[at]) { path(tokens, at, &[], &mut out) } else { at + 1 };
    }
    out
}

fn is_word(token: &Token) -> bool {
    token.text.starts_with(|c: char| c == '_' || c.is_alphabetic())
}

fn path(tokens: &[Token], mut at: usize, before: &[String], out: &mut Vec<Path>) -> usize {
    let line = tokens[at].line;
    let mut segments = before.to_vec();
    loop {
        segments.push(tokens[at].text.clone());
        at += 1;
        if !stands(tokens, at, &["::"]) {
            break;
        }
        match tokens.get(at + 1) {
            Some(token) if is_word(token) => at += 1,
            Some(token) if token.text == "{" => return group(tokens, at + 2, &segments, out),
            _ => break,
        }
    }
    out.push(Path { segments, line });
    at
}

fn group(tokens: &[Token], mut at: usize, before: &[String], out: &mut Vec<Path>) -> usize {
    while at < tokens.len() && tokens[at].text != "}" {
        at = match tokens[at].text.as_str() {
            "as" => at + 2,
            _ if is_word(&tokens[at]) => path(tokens, at, before, out),
            _ => at + 1,
        };
    }
    at + 1
}

mod tests {
    use super::*;

    fn words(text: &str) -> String {
        tokens(text).iter().map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_leave_no_tokens() {
        assert_eq!(words("a // b\n/* c /* d */ e */ f"), "a f");
        assert_eq!(words(r##"a "b \" c" r#"d " e"# b"f" 'g' b'h' '\'' i"##), "a i");
        assert_eq!(words("fn f<'a>(x: &'a u8) {}"), "fn f < a > ( x : & a u8 ) { }");
        assert_eq!(words("r#type 0x1f_u8"), "r # type");
    }

    #[test]
    fn lines_are_counted_through_literals() {
        let found = tokens("\"a\nb\" /*\n*/ c");
        assert_eq!((found[0].text.as_str(), found[0].line), ("c", 3));
    }

    #[test]
    fn test_items_are_taken_out_and_nothing_else() {
        let left = |text: &str| {
            without_tests(&tokens(text)).iter().map(|token| token.text.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(left("a; #[cfg(test)] mod tests { fn f() { x } } b"), "a ; b");
        assert_eq!(left("#[cfg(test)] use a::{b, c}; d"), "d");
        assert_eq!(left("#[cfg(test)] #[path = \"x\"] pub(crate) mod tests; d"), "d");
        assert_eq!(left("struct S { #[cfg(test)] a: u8, b: u8 }"), "struct S { b : u8 }");
        assert_eq!(left("#[test] fn f<A, B>(a: [u8; 3]) -> u8 { x } d"), "d");
        assert_eq!(left("#[cfg(not(test))] fn f() {}"), "# [ cfg ( not ( test ) ) ] fn f ( ) { }");
    }

    #[test]
    fn groups_are_expanded() {
        let found: Vec<String> = paths(&tokens("use a::{b, c::{d as e, self}, f::*}; g::<u8>::h"))
            .iter()
            .map(|path| path.segments.join("::"))
            .collect();
        assert_eq!(found, ["use", "a::b", "a::c::d", "a::c::self", "a::f", "g", "u8", "h"]);
    }
}
