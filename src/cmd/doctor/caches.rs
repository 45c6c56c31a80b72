//! What the doctor says of a cache of compilers' results in front of mesh or behind it (DECIDE).

use super::advice::{Check, Level, check, good};

/// The check's name.
const ID: &str = "launcher";
/// Variables that hold what is run in front of a compiler, or a compiler with what is run in front of it.
const LAUNCHERS: &[&str] = &["CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER", "CC", "CXX"];
/// What ccache runs in front of the compiler when it has no result.
const PREFIX: &str = "CCACHE_PREFIX";
/// What to do where two programs keep results.
const ALONE: &str = "name mesh-cc alone, which keeps results itself and has those of other machines; or ccache alone, with \
                     CCACHE_PREFIX=mesh-cc and MESH_CACHE=off";

/// What is to be said of this environment; nothing if no such cache is in it together with mesh.
pub(super) fn launcher(var: impl Fn(&str) -> Option<String>) -> Option<Check> {
    let values = LAUNCHERS.iter().filter_map(|name| Some((*name, var(name)?)));
    values.filter_map(|(name, value)| together(name, &value)).next().or_else(|| prefix(&var))
}

/// What a launcher of several words comes to.
fn together(name: &str, value: &str) -> Option<Check> {
    let words: Vec<&str> = value.split([' ', ';', '\t']).filter(|word| !word.is_empty()).map(program).collect();
    let mesh = words.iter().position(|word| is_mesh(word))?;
    let (at, cache) = words.iter().enumerate().find(|(_, word)| matches!(**word, "ccache" | "sccache"))?;
    let warn = |text: String, hint: &str| Some(check(ID, Level::Warning, text, hint));
    if mesh < at {
        let text = format!("{name} has mesh-cc in front of {cache}, which is no compiler: every unit is compiled here");
        return warn(text, ALONE);
    }
    if *cache == "sccache" {
        let text = format!(
            "{name} has sccache in front of mesh-cc: sccache takes mesh-cc for the compiler, and both keep results"
        );
        return warn(
            text,
            "choose one: name mesh-cc alone, or sccache alone; sccache can run nothing in front of a compiler",
        );
    }
    let text = format!(
        "{name} has ccache in front of mesh-cc: ccache takes mesh-cc for the compiler, so that it sees no other compiler \
         behind it, and mesh leaves all keeping to it"
    );
    warn(text, ALONE)
}

/// What `CCACHE_PREFIX` comes to.
fn prefix(var: &impl Fn(&str) -> Option<String>) -> Option<Check> {
    let value = var(PREFIX)?;
    if !value.split(' ').map(program).any(is_mesh) {
        return None;
    }
    if var(crate::env::CACHE).as_deref() == Some("on") {
        let text =
            format!("ccache runs mesh-cc ({PREFIX}), and MESH_CACHE=on has mesh keep the same results once more");
        return Some(check(
            ID,
            Level::Warning,
            text,
            "MESH_CACHE=off, or no MESH_CACHE at all: then ccache alone keeps them",
        ));
    }
    Some(good(ID, format!("ccache runs mesh-cc ({PREFIX}) and keeps the results; mesh does not keep them once more")))
}

/// A program's name without its directory.
fn program(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

fn is_mesh(program: &str) -> bool {
    matches!(program, "mesh-cc" | "mesh")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(all: &[(&str, &str)]) -> Option<(Level, String)> {
        let var = |name: &str| all.iter().find(|(have, _)| *have == name).map(|(_, value)| (*value).to_owned());
        launcher(var).map(|check| (check.level, format!("{} | {}", check.text, check.hint)))
    }

    #[test]
    fn a_cache_in_front_of_mesh_or_behind_it_is_explained() {
        for (name, value, about) in [
            ("CMAKE_C_COMPILER_LAUNCHER", "ccache;mesh-cc", "ccache in front of mesh-cc"),
            ("CMAKE_CXX_COMPILER_LAUNCHER", "/usr/bin/ccache;/opt/mesh/bin/mesh-cc", "ccache in front of mesh-cc"),
            ("CC", "ccache mesh-cc gcc", "ccache in front of mesh-cc"),
            ("CXX", "ccache mesh cc g++", "ccache in front of mesh-cc"),
            ("CC", "sccache mesh-cc gcc", "sccache in front of mesh-cc"),
            ("CC", "mesh-cc ccache gcc", "mesh-cc in front of ccache"),
            ("CMAKE_C_COMPILER_LAUNCHER", "mesh-cc;sccache", "mesh-cc in front of sccache"),
        ] {
            let (level, text) = said(&[(name, value)]).expect(value);
            assert_eq!(level, Level::Warning, "{value}");
            assert!(text.starts_with(name) && text.contains(about) && text.contains("mesh-cc alone"), "{text}");
        }
        for (name, value) in [("CC", "mesh-cc gcc"), ("CC", "ccache gcc"), ("CXX", ""), ("CCACHE_PREFIX", "distcc")] {
            assert_eq!(said(&[(name, value)]), None, "{value}");
        }
    }

    #[test]
    fn ccache_with_mesh_as_its_prefix_is_well_unless_both_keep() {
        let prefix = ("CCACHE_PREFIX", "/usr/bin/mesh-cc");
        for cache in ["off", "read", ""] {
            assert_eq!(said(&[prefix, ("MESH_CACHE", cache)]).map(|said| said.0), Some(Level::Good), "{cache}");
        }
        let (level, text) = said(&[prefix, ("MESH_CACHE", "on")]).expect("something to say");
        assert!(level == Level::Warning && text.contains("MESH_CACHE=off"), "{text}");
    }
}
