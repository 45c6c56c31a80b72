//! Dependency lists as compilers write them for make (DECIDE).

/// The paths that the rules of a `.d` file depend on, as written, each once; `None` if it is no such file.
#[must_use]
pub fn parse(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut is_target = true;
        let mut is_empty = true;
        loop {
            let (token, next) = token(rest, is_target);
            rest = next;
            match token {
                Token::Word(word) => {
                    is_empty = false;
                    if !is_target && seen.insert(word.clone()) {
                        paths.push(word);
                    }
                }
                Token::Colon if is_empty => return None,
                Token::Colon => is_target = false,
                Token::End if is_target && !is_empty => return None,
                Token::End => break,
            }
        }
    }
    Some(paths)
}

enum Token {
    Word(Vec<u8>),
    Colon,
    End,
}

/// One word, the colon after targets, or the end of a logical line; and what follows. Before a blank, backslashes come
/// in pairs and an odd one escapes the blank; before `#`, `:` and a newline only the last one counts; elsewhere they
/// are themselves.
fn token(text: &[u8], is_target: bool) -> (Token, &[u8]) {
    let mut word = Vec::new();
    let mut i = 0;
    let is_end = |at: usize| {
        let rest = &text[at..];
        rest.first().is_none_or(u8::is_ascii_whitespace) || rest.starts_with(b"\\\n") || rest.starts_with(b"\\\r\n")
    };
    while i < text.len() {
        match text[i] {
            b' ' | b'\t' | b'\r' if word.is_empty() => i += 1,
            b'\n' if word.is_empty() => return (Token::End, &text[i + 1..]),
            b' ' | b'\t' | b'\r' | b'\n' => break,
            b':' if is_target && is_end(i + 1) => {
                if word.is_empty() {
                    return (Token::Colon, &text[i + 1..]);
                }
                break;
            }
            b'$' if text.get(i + 1) == Some(&b'$') => {
                word.push(b'$');
                i += 2;
            }
            b'\\' => {
                let run = text[i..].iter().take_while(|byte| **byte == b'\\').count();
                let after = i + run;
                match text.get(after) {
                    Some(b' ' | b'\t') => {
                        word.resize(word.len() + run / 2, b'\\');
                        i = after;
                        if run % 2 == 1 {
                            word.push(text[after]);
                            i += 1;
                        }
                    }
                    Some(byte @ (b'#' | b':')) => {
                        word.resize(word.len() + run - 1, b'\\');
                        word.push(*byte);
                        i = after + 1;
                    }
                    Some(b'\n' | b'\r') => {
                        word.resize(word.len() + run - 1, b'\\');
                        i = after + 1 + usize::from(text[after..].starts_with(b"\r\n"));
                        if !word.is_empty() {
                            break;
                        }
                    }
                    _ => {
                        word.resize(word.len() + run, b'\\');
                        i = after;
                    }
                }
            }
            byte => {
                word.push(byte);
                i += 1;
            }
        }
    }
    if word.is_empty() { (Token::End, &[]) } else { (Token::Word(word), &text[i..]) }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let want = want.iter().map(|path| path.as_bytes().to_vec()).collect();
        assert_eq!(parse(text.as_bytes()), Some(want), "{text}");
    }

    #[test]
    fn reads_what_compilers_write() {
        check("a.o: a.c x.h \\\n y.h \\\n  /usr/z.h\n", &["a.c", "x.h", "y.h", "/usr/z.h"]);
        check("a.o: a.c\\\n  x.h\r\n", &["a.c", "x.h"]);
        check("a.o b.o: a.c x.h\nx.h:\n\ny.h :\n", &["a.c", "x.h"]);
        check("a.o: a.c a.c", &["a.c"]);
        check("c:/a.o: a.c b:c", &["a.c", "b:c"]);
        check("a.o:\\\n a.c\n", &["a.c"]);
        check("", &[]);
    }

    #[test]
    fn takes_escapes_out() {
        check("a\\ b.o: a\\ b.c", &["a b.c"]);
        check("a: x\\\\\\ y z\\\\ w", &["x\\ y", "z\\", "w"]);
        check("a: x\\#y $$z c\\d e\\:f", &["x#y", "$z", "c\\d", "e:f"]);
        check("a: x\\\\#y", &["x\\#y"]);
    }

    #[test]
    fn refuses_what_is_no_rule() {
        for text in ["CXX_IMPORTS += foo.c++m\n", "a.o\n", ": a.c\n", "a.o: b\nx"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
