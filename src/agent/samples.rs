//! The units by which a compiler is tried: a few lines in each language, with the options that make compilers look for
//! more than they otherwise do (DECIDE).

use crate::compiler::invocation::Family;

/// The sources, by name. The plain ones include nothing that a compiler does not bring: a cross compiler may have no
/// library of its target.
pub(super) const SOURCES: &[(&str, &str)] = &[
    (
        "plain.c",
        "#include <stddef.h>\n\
         struct s { size_t n; double d; };\n\
         double f(struct s *s, int i) { double v[4] = {0}; int unused; for (; i > 0; i--) v[i & 3] += s->d / i;\n\
         return v[0] + (double)s->n; }\n",
    ),
    (
        "hosted.c",
        "#include <assert.h>\n#include <stdio.h>\n#include <string.h>\n\
         int f(int n, const char *s) { int v[8]; assert(n < 8); memset(v, n, sizeof v);\n\
         #pragma omp parallel for\n for (int i = 0; i < n; i++) v[i] += i;\n\
         printf(\"%s %d %s\\n\", s, v[n], __FILE__); return v[0] / n; }\n",
    ),
    (
        "plain.cc",
        "template <class T> T f(T t) { try { return t / 3; } catch (int n) { return n; } }\n\
         struct A { virtual ~A() {} virtual int g(int n) { return f(n); } };\n\
         int h(A *a) { return a->g(7) + f(1.5); }\n",
    ),
    (
        "hosted.cc",
        "#include <stdexcept>\n#include <string>\n#include <vector>\n\
         int g(const std::vector<std::string> &v) { int n = 0;\n\
         #pragma omp parallel for\n for (int i = 0; i < 4; i++) n += i;\n\
         try { return n + v.at(2).size(); } catch (const std::out_of_range &) { return -n; } }\n",
    ),
    (
        "plain.m",
        "@interface Root { int n; }\n- (int)n;\n@end\n\
         @implementation Root\n- (int)n { return n; }\n@end\n\
         int f(Root *r) { return [r n]; }\n",
    ),
];

/// What each hosted source is compiled with.
const EACH: &[&str] =
    &["-O2", "-g", "-O2 -g -Wall -Wextra -MD", "-O1 -g -fsanitize=address", "-O2 -fopenmp", "-O0 -g -gsplit-dwarf"];
/// What gcc is tried with besides: its names for LTO are random if they are not seeded.
const GCC: &[&str] = &["-O2 -flto -frandom-seed=1", "-g -flto -ffat-lto-objects -frandom-seed=1"];
/// What clang is tried with besides.
const CLANG: &[&str] =
    &["-O2 -flto", "-O2 -flto=thin", "-O2 -fno-integrated-as", "-g -gsplit-dwarf -fno-integrated-as"];
/// What the plain sources are compiled with.
const PLAIN: &[&str] = &["-O2 -Wall", "-g"];

/// One command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// The source, of [`SOURCES`].
    pub(super) source: &'static str,
    /// The options, a space between them.
    pub(super) options: &'static str,
    /// Without this one nothing is proved.
    pub(super) is_needed: bool,
}

impl Sample {
    /// The arguments after the compiler's name, for sources in the working directory and an object elsewhere.
    pub(super) fn arguments(&self, object: &str) -> Vec<Vec<u8>> {
        let words = self.options.split(' ').chain(["-c", self.source, "-o", object]);
        words.map(|word| word.as_bytes().to_vec()).collect()
    }

    /// For people: `hosted.cc with -O2`.
    pub(super) fn name(&self) -> String {
        format!("{} with {}", self.source, self.options)
    }
}

/// All that a compiler is tried with, the one that must succeed first.
pub(super) fn samples(family: Family, cxx_driver: bool) -> Vec<Sample> {
    let plain: &[&'static str] = if cxx_driver { &["plain.cc"] } else { &["plain.c", "plain.cc", "plain.m"] };
    let hosted: &[&'static str] = if cxx_driver { &["hosted.cc"] } else { &["hosted.c", "hosted.cc"] };
    let more = match family {
        Family::Gcc => GCC,
        Family::Clang => CLANG,
    };
    let with = |source, options| Sample { source, options, is_needed: false };
    let mut all: Vec<Sample> = plain.iter().flat_map(|source| PLAIN.iter().map(|o| with(*source, *o))).collect();
    all.extend(hosted.iter().flat_map(|source| EACH.iter().chain(more).map(|o| with(*source, *o))));
    if let Some(first) = all.first_mut() {
        first.is_needed = true;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_a_source_and_exactly_one_is_needed() {
        for (family, cxx_driver) in [(Family::Gcc, false), (Family::Gcc, true), (Family::Clang, false)] {
            let all = samples(family, cxx_driver);
            assert!(all.iter().all(|s| SOURCES.iter().any(|(name, _)| *name == s.source)));
            assert_eq!(all.iter().filter(|s| s.is_needed).count(), 1);
            assert!(all[0].is_needed, "it decides whether the others are worth anything");
            let cxx_only = all.iter().all(|s| s.source.ends_with(".cc"));
            assert_eq!(cxx_only, cxx_driver);
        }
    }

    #[test]
    fn a_sample_is_a_command_that_names_its_object() {
        let sample = Sample { source: "plain.c", options: "-O2 -g", is_needed: false };
        let words: Vec<_> = sample.arguments("out/x.o").into_iter().map(|w| String::from_utf8(w).unwrap()).collect();
        assert_eq!(words, ["-O2", "-g", "-c", "plain.c", "-o", "out/x.o"]);
    }
}
