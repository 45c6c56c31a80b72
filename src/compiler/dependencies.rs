//! A dependency list as compilers write it, for another checkout (DECIDE).
//!
//! Where a line of it breaks depends on how long the paths are, so that it is read as words and written anew. Only a list
//! that this gives back byte for byte is understood.

use super::{family::Family, portable::below};

/// A list without escapes: what is made, what of, and the lines after it that make each header a target of nothing.
#[derive(Debug, PartialEq, Eq)]
struct List<'t> {
    targets: Vec<&'t [u8]>,
    files: Vec<&'t [u8]>,
    rest: Vec<&'t [u8]>,
}

impl<'t> List<'t> {
    fn parse(text: &'t [u8]) -> Option<Self> {
        let mut words = Vec::new();
        let mut rest = text;
        // The first line, with those that it is continued on.
        loop {
            let end = rest.iter().position(|b| *b == b'\n')?;
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            let (line, goes_on) = line.strip_suffix(b"\\").map_or((line, false), |line| (line, true));
            words.extend(line.split(|b| *b == b' ').filter(|word| !word.is_empty()));
            if !goes_on {
                break;
            }
        }
        let colon = words.iter().position(|word| word.ends_with(b":"))?;
        let files = words.split_off(colon + 1);
        let mut targets = words;
        if let Some(last) = targets.last_mut() {
            *last = last.strip_suffix(b":")?;
        }
        let rest = rest.strip_suffix(b"\n").map_or_else(Vec::new, |rest| rest.split(|b| *b == b'\n').collect());
        // Some clangs leave lines empty between them.
        let name = |line: &'t [u8]| if line.is_empty() { Some(line) } else { line.strip_suffix(b":") };
        let rest = rest.into_iter().map(name).collect::<Option<_>>()?;
        let list = Self { targets, files, rest };
        let is_plain = |word: &&[u8]| !word.iter().any(|b| matches!(b, b'\\' | b'$' | b'#' | b':' | b'\t' | b'\r'));
        let is_named =
            !list.targets.is_empty() && [&list.targets, &list.files].into_iter().flatten().all(|w| !w.is_empty());
        let is_understood = is_named && [&list.targets, &list.files, &list.rest].into_iter().flatten().all(is_plain);
        is_understood.then_some(list)
    }

    fn write(&self, family: Family) -> Vec<u8> {
        let mut out = match family {
            Family::Gcc => self.lines_of_gcc(),
            Family::Clang => self.lines_of_clang(),
        };
        out.push(b'\n');
        for file in &self.rest {
            out.extend_from_slice(file);
            out.extend_from_slice(if file.is_empty() { b"\n" } else { b":\n" });
        }
        out
    }

    /// As `make_write` of gcc's mkdeps does it.
    fn lines_of_gcc(&self) -> Vec<u8> {
        const COLUMNS: usize = 72;
        let (mut out, mut column) = (Vec::new(), 0);
        let add = |out: &mut Vec<u8>, column: &mut usize, word: &[u8]| {
            if *column > 0 {
                if *column + word.len() > COLUMNS {
                    out.extend_from_slice(b" \\\n");
                    *column = 0;
                }
                out.push(b' ');
                *column += 1;
            }
            out.extend_from_slice(word);
            *column += word.len();
        };
        self.targets.iter().for_each(|word| add(&mut out, &mut column, word));
        out.push(b':');
        column += 1;
        self.files.iter().for_each(|word| add(&mut out, &mut column, word));
        out
    }

    /// As clang's `DependencyFileGenerator` does it.
    fn lines_of_clang(&self) -> Vec<u8> {
        const COLUMNS: usize = 75;
        let (mut out, mut column) = (Vec::new(), 0);
        for word in &self.targets {
            if column == 0 {
                column = word.len();
            } else if column + word.len() + 2 > COLUMNS {
                column = word.len() + 2;
                out.extend_from_slice(b" \\\n  ");
            } else {
                column += word.len() + 1;
                out.push(b' ');
            }
            out.extend_from_slice(word);
        }
        out.push(b':');
        column += 1;
        for word in &self.files {
            if column + word.len() + 3 > COLUMNS {
                out.extend_from_slice(b" \\\n ");
                column = 2;
            }
            out.push(b' ');
            out.extend_from_slice(word);
            column += word.len() + 1;
        }
        out
    }
}

/// The list that the same command gives if the root is another; `None` if this one is not understood, or has the root
/// anywhere but where a path begins.
#[must_use]
pub fn moved(text: &[u8], family: Family, from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let list = List::parse(text).filter(|list| list.write(family) == text)?;
    let mut paths = Vec::new();
    for word in [&list.targets, &list.files, &list.rest].into_iter().flatten() {
        let rest = below(word, from);
        if memchr::memmem::find(rest.unwrap_or(word), from).is_some() {
            return None;
        }
        paths.push(rest.map_or_else(|| word.to_vec(), |rest| [to, rest].concat()));
    }
    let mut paths = paths.iter().map(Vec::as_slice);
    let targets = paths.by_ref().take(list.targets.len()).collect();
    let files = paths.by_ref().take(list.files.len()).collect();
    Some(List { targets, files, rest: paths.collect() }.write(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GCC: &str = "/w/one/b/a.o: /w/one/a.c /usr/include/stdc-predef.h \\\n /w/one/include/first-header-of-some-length.h \\\n relative/second-header-of-some-length.h\n/usr/include/stdc-predef.h:\n";

    #[test]
    fn a_list_is_broken_where_the_compiler_would_break_it() {
        let one = moved(GCC.as_bytes(), Family::Gcc, b"/w/one", b"/w/one").expect("understood");
        assert_eq!(one, GCC.as_bytes());
        let long = b"/w/a-much-longer-name/of-a-checkout";
        let other = moved(GCC.as_bytes(), Family::Gcc, b"/w/one", long).expect("understood");
        let expected = "/w/a-much-longer-name/of-a-checkout/b/a.o: \\\n /w/a-much-longer-name/of-a-checkout/a.c /usr/include/stdc-predef.h \\\n \
            /w/a-much-longer-name/of-a-checkout/include/first-header-of-some-length.h \\\n relative/second-header-of-some-length.h\n/usr/include/stdc-predef.h:\n";
        assert_eq!(String::from_utf8_lossy(&other), expected);
        let back = moved(&other, Family::Gcc, long, b"/w/one").expect("understood");
        assert_eq!(back, GCC.as_bytes());
    }

    #[test]
    fn a_list_of_clang_is_broken_as_clang_does() {
        let text = "/w/one/b.o: /w/one/b.cc \\\n  /usr/lib/gcc/x86_64-linux-gnu/12/../../../../include/c++/12/string \\\n  \
            /w/one/a.h\n\n/w/one/a.h:\n";
        assert_eq!(moved(text.as_bytes(), Family::Clang, b"/w/one", b"/w/one").as_deref(), Some(text.as_bytes()));
        let other = moved(text.as_bytes(), Family::Clang, b"/w/one", b"/w/another").expect("understood");
        assert_eq!(String::from_utf8_lossy(&other), text.replace("/w/one", "/w/another"));
        assert_eq!(moved(text.as_bytes(), Family::Gcc, b"/w/one", b"/w/one"), None);
    }

    #[test]
    fn what_is_not_understood_is_not_moved() {
        for text in [
            "",
            "a.o: a.c",
            "a.o: a\\ b.c\n",
            "a.o: $$x.c\n",
            "a.o: a.c \\\n b.c\n",
            "a.o : a.c\n",
            "a.o: a.c\nx\n",
            "a.o: /x/w/one/a.c\n",
            "a.o: /w/one/w/one/a.c\n",
            "a.o: /w/one2/a.c\n",
            "a.o:  a.c\n",
        ] {
            assert_eq!(moved(text.as_bytes(), Family::Gcc, b"/w/one", b"/w/two"), None, "{text:?}");
        }
    }
}
