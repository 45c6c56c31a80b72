//! Which compiles the demonstration is made of, and what two builds of them have in common (DECIDE).

use super::units::Unit;
use crate::view::rows::{count, sanitised};
use std::collections::{BTreeMap, BTreeSet};

/// Compilers of C, then of C++.
pub(super) const COMPILERS: &[(&str, bool)] = &[("gcc", false), ("clang", false), ("g++", true), ("clang++", true)];
/// Taken in turn, so that optimised and debugged, warned and plain, with every kind of dependency list come up.
const OPTIONS: &[&[&str]] = &[
    &["-O2", "-g", "-Wall", "-Wextra", "-MD"],
    &["-O0", "-g", "-MMD"],
    &["-O2", "-fPIC", "-Wall", "-Wextra", "-MD", "-MP"],
    &["-Os", "-g1", "-ffunction-sections", "-Wall", "-MMD"],
];

/// One compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// The compiler's name.
    pub(super) compiler: &'static str,
    /// Its arguments.
    pub(super) args: Vec<String>,
    /// The object, from the project's top.
    pub(super) object: String,
}

impl Job {
    /// As a person would type it.
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.compiler, self.args.join(" "))
    }
}

/// Whether a path is C++'s (`true`), C's, or no source.
fn is_cxx(path: &str) -> Option<bool> {
    match path.rsplit_once('.')?.1 {
        "c" => Some(false),
        "cc" | "cpp" | "cxx" => Some(true),
        _ => None,
    }
}

/// Sources among these files.
pub(super) fn sources(units: &[Unit]) -> usize {
    units.iter().filter(|u| is_cxx(u.path).is_some()).count()
}

/// Every source with every compiler of its language that is there.
pub(super) fn jobs(units: &[Unit], there: &[&'static str]) -> Vec<Job> {
    let compilers = COMPILERS.iter().filter(|(name, _)| there.contains(name));
    let mut jobs = Vec::new();
    for (at, unit) in units.iter().enumerate() {
        let Some(cxx) = is_cxx(unit.path) else { continue };
        for (turn, (compiler, _)) in compilers.clone().filter(|(_, is)| *is == cxx).enumerate() {
            let object = format!("{OUT}/{compiler}/{}.o", unit.path.replace('/', "_"));
            let standard = if cxx { "-std=gnu++17" } else { "-std=gnu11" };
            let words = [&[standard, "-Iinclude", "-I."], OPTIONS[(at + turn) % OPTIONS.len()]].concat();
            let args = words.into_iter().chain(["-c", unit.path, "-o", &object]).map(str::to_owned).collect();
            jobs.push(Job { compiler, args, object });
        }
    }
    jobs
}

/// Where objects go, from the project's top.
pub(super) const OUT: &str = "out";

/// What a build left: its files, and what each compile said and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Built {
    /// Every file below [`OUT`], by path.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Exit status, standard output and standard error, in the order of the jobs.
    pub(super) said: Vec<(Option<i32>, Vec<u8>, Vec<u8>)>,
}

/// What in two builds differs, a line each.
pub(super) fn differences(jobs: &[Job], reference: &Built, mesh: &Built) -> Vec<String> {
    let mut out = Vec::new();
    let paths: BTreeSet<&String> = reference.files.keys().chain(mesh.files.keys()).collect();
    for path in paths {
        match (reference.files.get(path), mesh.files.get(path)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(_), Some(_)) => out.push(format!("{path} differs")),
            (Some(_), None) => out.push(format!("{path} is missing")),
            _ => out.push(format!("{path} is too much")),
        }
    }
    for (at, job) in jobs.iter().enumerate() {
        match (reference.said.get(at), mesh.said.get(at)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) if a.0 != b.0 => out.push(format!("the exit status differs: {}", job.line())),
            _ => out.push(format!("what was printed differs: {}", job.line())),
        }
    }
    out
}

/// What was compared.
pub(super) fn compared(built: &Built) -> String {
    let ending = |end: &str| built.files.keys().filter(|path| path.ends_with(end)).count() as u64;
    let printed = built.said.iter().filter(|(_, out, err)| !out.is_empty() || !err.is_empty()).count() as u64;
    let rest = built.files.len() as u64 - ending(".o") - ending(".d");
    let mut text = format!(
        "{}, {}, {} of warnings and all exit codes",
        count(ending(".o"), "object"),
        count(ending(".d"), "dependency list"),
        count(printed, "page"),
    );
    if rest > 0 {
        text.push_str(&format!(", {} besides", count(rest, "file")));
    }
    text
}

/// A line of a build that did not go as it should, cut to what a person reads.
pub(super) fn shown(lines: &[String]) -> Vec<String> {
    /// Lines shown.
    const SHOWN: usize = 8;
    let mut out: Vec<String> = lines.iter().take(SHOWN).map(|line| format!("           {}", sanitised(line))).collect();
    if lines.len() > SHOWN {
        out.push(format!("           and {} more", lines.len() - SHOWN));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::units::UNITS, *};

    #[test]
    fn every_source_is_compiled_by_every_compiler_of_its_language() {
        let all = jobs(UNITS, &["gcc", "g++", "clang", "clang++"]);
        assert_eq!(all.len(), 2 * sources(UNITS));
        let objects: BTreeSet<&String> = all.iter().map(|j| &j.object).collect();
        assert_eq!(objects.len(), all.len(), "no two compiles write one file");
        for job in &all {
            let cxx = job.compiler.ends_with("++");
            assert_eq!(job.args.iter().find_map(|a| a.starts_with("-std").then_some(a == "-std=gnu++17")), Some(cxx));
        }
        assert_eq!(jobs(UNITS, &["g++"]).iter().filter(|j| j.compiler != "g++").count(), 0);
        assert_eq!(jobs(UNITS, &[]), []);
    }

    #[test]
    fn every_difference_is_found() {
        let jobs = &jobs(UNITS, &["gcc"])[..1];
        let built = |object: &[u8], err: &str, code| Built {
            files: [("out/a.o".to_owned(), object.to_vec()), ("out/a.d".to_owned(), vec![])].into(),
            said: vec![(Some(code), vec![], err.as_bytes().to_vec())],
        };
        let reference = built(b"1", "warning", 0);
        assert_eq!(differences(jobs, &reference, &built(b"1", "warning", 0)), Vec::<String>::new());
        assert_eq!(differences(jobs, &reference, &built(b"2", "warning", 0)), ["out/a.o differs"]);
        assert_eq!(differences(jobs, &reference, &built(b"1", "warming", 0)).len(), 1);
        assert!(
            differences(jobs, &reference, &built(b"1", "warning", 1))[0].starts_with("the exit status differs: gcc ")
        );
        let mut less = built(b"1", "warning", 0);
        less.files.remove("out/a.d");
        assert_eq!(differences(jobs, &reference, &less), ["out/a.d is missing"]);
        assert_eq!(differences(jobs, &less, &reference), ["out/a.d is too much"]);
        assert_eq!(differences(jobs, &reference, &Built::default()).len(), 3);
        assert_eq!(compared(&reference), "1 object, 1 dependency list, 1 page of warnings and all exit codes");
    }
}
