//! Why two compilers that seem the same are not (DECIDE).

use mesh_proto::{
    path::AbsPath,
    toolchain::{FAMILY_FACT, Manifest, Part, PartNode, VERSION_FACT},
};
use std::{cmp::Reverse, collections::BTreeMap, fmt};

/// The label of the fact that says what a compiler compiles for.
pub(crate) const TARGET_FACT: &str = "target";

/// Of a fact, what is shown of each side, bytes.
const SHOWN_BYTES_MAX: usize = 120;

/// One thing in which two manifests differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// They are run by different paths.
    Driver {
        /// Of the first.
        here: AbsPath,
        /// Of the second.
        there: AbsPath,
    },
    /// They say different things of themselves.
    Fact {
        /// Of what.
        label: String,
        /// What the first says, if anything.
        here: Option<Vec<u8>>,
        /// What the second says, if anything.
        there: Option<Vec<u8>>,
    },
    /// They have different things at one path.
    Part {
        /// The path.
        path: AbsPath,
        /// What the first has there, if anything.
        here: Option<PartNode>,
        /// What the second has there, if anything.
        there: Option<PartNode>,
    },
}

/// Everything in which two manifests differ: the driver, then facts by label, then parts by path. Nothing exactly if
/// their fingerprints are equal.
#[must_use]
pub fn differences(here: &Manifest, there: &Manifest) -> Vec<Difference> {
    let mut found = Vec::new();
    if here.driver != there.driver {
        found.push(Difference::Driver { here: here.driver.clone(), there: there.driver.clone() });
    }
    let facts = |m: &Manifest| m.facts.iter().cloned().collect::<BTreeMap<String, Vec<u8>>>();
    for (label, here, there) in unequal(facts(here), facts(there)) {
        found.push(Difference::Fact { label, here, there });
    }
    let nodes = |m: &Manifest| {
        m.parts.iter().map(|Part { path, node }| (path.clone(), node.clone())).collect::<BTreeMap<AbsPath, PartNode>>()
    };
    for (path, here, there) in unequal(nodes(here), nodes(there)) {
        found.push(Difference::Part { path, here, there });
    }
    found
}

/// Which of these a person would compare with `ours`: one that is run by the same path, else by the same name, else one
/// of its family and language for its target; of several, that with the fewest differences. `None` if nothing is like it.
#[must_use]
pub fn most_similar<'a>(ours: &Manifest, theirs: impl IntoIterator<Item = &'a Manifest>) -> Option<&'a Manifest> {
    let fact = |m: &Manifest, label: &str| m.fact(label).map(<[u8]>::to_vec);
    let likeness = |theirs: &Manifest| {
        let same = |label| fact(ours, label) == fact(theirs, label);
        let (path, name) = (ours.driver == theirs.driver, ours.driver.name() == theirs.driver.name());
        let language = is_cxx(ours) == is_cxx(theirs);
        let kind = u8::from(same(TARGET_FACT)) + u8::from(same(FAMILY_FACT)) + u8::from(language);
        (path || name || kind == 3).then_some((path, name, kind, same(VERSION_FACT)))
    };
    let liked = theirs.into_iter().filter_map(|theirs| Some((likeness(theirs)?, theirs)));
    let by = |(likeness, theirs): &(_, &'a Manifest)| (*likeness, Reverse(differences(ours, theirs).len()));
    liked.max_by_key(by).map(|(_, theirs)| theirs)
}

/// Whether it is called as compilers for C++ are.
#[must_use]
pub fn is_cxx(manifest: &Manifest) -> bool {
    manifest.driver.name().windows(2).any(|pair| pair == b"++")
}

/// The keys whose values are not the same on both sides, in order.
fn unequal<K: Ord, V: PartialEq>(mut here: BTreeMap<K, V>, there: BTreeMap<K, V>) -> Vec<(K, Option<V>, Option<V>)> {
    let mut found = Vec::new();
    for (key, theirs) in there {
        match here.remove(&key) {
            Some(ours) if ours == theirs => {}
            ours => found.push((key, ours, Some(theirs))),
        }
    }
    found.extend(here.into_iter().map(|(key, ours)| (key, Some(ours), None)));
    found.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    found
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver { here, there } => {
                write!(f, "it is run as {} here and as {} there", text(here.as_bytes()), text(there.as_bytes()))
            }
            Self::Fact { label, here, there } => match (here, there) {
                (Some(here), Some(there)) => {
                    let (here, there) = first_unequal_line(here, there);
                    match (shown(here), shown(there)) {
                        (Some(here), Some(there)) => write!(f, "{label}: \"{here}\" here and \"{there}\" there"),
                        _ => write!(f, "{label}: not the same"),
                    }
                }
                (Some(_), None) => write!(f, "{label}: said only here"),
                (None, _) => write!(f, "{label}: said only there"),
            },
            Self::Part { path, here, there } => {
                let path = text(path.as_bytes());
                match (here, there) {
                    (Some(here), Some(there)) => part(f, &path, here, there),
                    (Some(_), None) => write!(f, "{path} is only here"),
                    (None, _) => write!(f, "{path} is only there"),
                }
            }
        }
    }
}

fn part(f: &mut fmt::Formatter<'_>, path: &str, here: &PartNode, there: &PartNode) -> fmt::Result {
    match (here, there) {
        (PartNode::File { digest, size, .. }, PartNode::File { digest: other, size: theirs, .. }) => {
            if digest == other {
                write!(f, "{path} may be executed on one side only")
            } else if size == theirs {
                write!(f, "{path} has another content, of the same {size} bytes")
            } else {
                write!(f, "{path} has {size} bytes here and {theirs} there")
            }
        }
        (PartNode::Symlink { target }, PartNode::Symlink { target: theirs }) => {
            write!(f, "{path} leads to {} here and to {} there", text(target), text(theirs))
        }
        _ => write!(f, "{path} is {} here and {} there", kind(here), kind(there)),
    }
}

fn kind(node: &PartNode) -> &'static str {
    match node {
        PartNode::File { .. } => "a file",
        PartNode::Symlink { .. } => "a link",
        PartNode::Directory => "a directory",
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Facts of several lines (what `-v` says) differ in one of them, most often.
fn first_unequal_line<'a>(here: &'a [u8], there: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let (mut ours, mut theirs) = (here.split(|b| *b == b'\n'), there.split(|b| *b == b'\n'));
    loop {
        match (ours.next(), theirs.next()) {
            (Some(a), Some(b)) if a == b => {}
            (a, b) => return (a.unwrap_or_default(), b.unwrap_or_default()),
        }
    }
}

/// A fact's text; `None` for digests and what else no person reads.
fn shown(fact: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(fact).ok().filter(|text| !text.chars().any(char::is_control))?;
    let cut = text.floor_char_boundary(SHOWN_BYTES_MAX);
    Some(if cut < text.len() { format!("{}…", &text[..cut]) } else { text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::digest::Digest;

    fn path(text: &str) -> AbsPath {
        AbsPath::new(text).unwrap()
    }

    fn file(at: &str, content: &str, executable: bool) -> Part {
        let node = PartNode::File { digest: Digest::of(content.as_bytes()), size: content.len() as u64, executable };
        Part { path: path(at), node }
    }

    fn link(at: &str, target: &str) -> Part {
        Part { path: path(at), node: PartNode::Symlink { target: target.into() } }
    }

    fn manifest(driver: &str, facts: &[(&str, &[u8])], parts: Vec<Part>) -> Manifest {
        let facts = facts.iter().map(|(label, value)| ((*label).to_owned(), value.to_vec())).collect();
        Manifest { driver: path(driver), facts, parts }
    }

    fn said(here: &Manifest, there: &Manifest) -> Vec<String> {
        differences(here, there).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_kind_of_difference_is_a_sentence() {
        let here = manifest(
            "/usr/bin/gcc",
            &[("about", b"Target: x\ngcc version 12.2.0"), ("specs", &[1; 32]), ("target", b"x")],
            vec![
                file("/a", "one", true),
                file("/b", "one", true),
                file("/c", "same", true),
                link("/d", "12"),
                file("/e", "x", true),
                file("/only", "x", true),
            ],
        );
        let there = manifest(
            "/usr/bin/cc",
            &[("about", b"Target: x\ngcc version 12.3.0"), ("more", b""), ("specs", &[2; 32]), ("target", b"x")],
            vec![
                file("/a", "two", true),
                file("/b", "three", true),
                file("/c", "same", false),
                link("/d", "13"),
                link("/e", "x"),
            ],
        );
        insta::assert_snapshot!(said(&here, &there).join("\n"), @r#"
        it is run as /usr/bin/gcc here and as /usr/bin/cc there
        about: "gcc version 12.2.0" here and "gcc version 12.3.0" there
        more: said only there
        specs: not the same
        /a has another content, of the same 3 bytes
        /b has 3 bytes here and 5 there
        /c may be executed on one side only
        /d leads to 12 here and to 13 there
        /e is a file here and a link there
        /only is only here
        "#);
        assert_eq!(differences(&there, &here).len(), differences(&here, &there).len());
    }

    #[test]
    fn nothing_differs_exactly_if_the_fingerprints_are_equal() {
        let one = manifest("/usr/bin/gcc", &[("a", b"1"), ("b", b"2")], vec![file("/a", "1", true), link("/b", "a")]);
        let turned =
            manifest("/usr/bin/gcc", &[("b", b"2"), ("a", b"1")], vec![link("/b", "a"), file("/a", "1", true)]);
        assert_eq!((one.fingerprint(), differences(&one, &turned)), (turned.fingerprint(), Vec::new()));
        let other = manifest("/usr/bin/gcc", &[("a", b"1"), ("b", b"2")], vec![file("/a", "2", true), link("/b", "a")]);
        assert_ne!(one.fingerprint(), other.fingerprint());
        assert_eq!(said(&one, &other), ["/a has another content, of the same 1 bytes"]);
    }

    #[test]
    fn a_long_fact_is_cut_and_a_binary_one_is_not_shown() {
        let with = |fact: &[u8]| manifest("/g", &[("f", fact)], Vec::new());
        let long = said(&with("é".repeat(100).as_bytes()), &with(b"short")).remove(0);
        assert!(long.len() < 200 && long.ends_with("…\" here and \"short\" there"), "{long}");
        assert_eq!(said(&with(&[0xff; 4]), &with(b"text")), ["f: not the same"]);
    }

    #[test]
    fn the_most_similar_one_is_that_of_the_same_path_then_name_then_kind() {
        let facts: &[(&str, &[u8])] = &[("family", b"gcc"), ("target", b"x"), ("version", b"12")];
        let other: &[(&str, &[u8])] = &[("family", b"clang"), ("target", b"x"), ("version", b"12")];
        let ours = manifest("/usr/bin/gcc", facts, vec![file("/a", "1", true), file("/b", "1", true)]);
        let path = manifest("/usr/bin/gcc", other, vec![]);
        let name = manifest("/opt/bin/gcc", other, vec![]);
        let near = manifest("/opt/bin/gcc-12", facts, vec![file("/a", "1", true)]);
        let far = manifest("/opt/bin/x-gcc", facts, vec![]);
        let cxx = manifest("/usr/bin/g++", facts, vec![]);
        let of = |theirs: &[&Manifest]| most_similar(&ours, theirs.iter().copied()).map(|m| m.driver.clone());
        assert_eq!(of(&[&near, &name, &path, &cxx]), Some(path.driver.clone()));
        assert_eq!(of(&[&near, &name, &cxx]), Some(name.driver.clone()));
        assert_eq!(of(&[&far, &near, &cxx]), Some(near.driver.clone()));
        assert_eq!(of(&[&cxx, &manifest("/usr/bin/clang", other, vec![])]), None);
    }
}
