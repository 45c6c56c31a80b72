//! What a build finds in its environment so that its tools use mesh without being told (DECIDE).

use crate::{env, sched::tokens::Tool};
use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// Where mesh's parts are.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    /// The program with all commands.
    pub(super) mesh: PathBuf,
    /// The launcher.
    pub(super) launcher: PathBuf,
    /// The directory of links named like compilers; none if it could not be made.
    pub(super) links: Option<PathBuf>,
}

/// Variables to set for a command that compiles on the mesh; what a person has set stays, but for `PATH`.
pub(super) fn variables(
    tool: Tool,
    parts: &Parts,
    path_var: &OsStr,
    has: impl Fn(&str) -> bool,
) -> Vec<(&'static str, OsString)> {
    let mut all: Vec<(&'static str, OsString)> = Vec::new();
    let mut add = |name: &'static str, value: OsString| {
        if !has(name) {
            all.push((name, value));
        }
    };
    // CMake writes down the compilers that it finds: with links in front it would be those, and the tree would need them ever
    // after. A launcher it writes down beside the real compiler.
    let cmake = matches!(tool, Tool::CmakeConfigure | Tool::CmakeBuild);
    add("CMAKE_C_COMPILER_LAUNCHER", parts.launcher.clone().into());
    add("CMAKE_CXX_COMPILER_LAUNCHER", parts.launcher.clone().into());
    // In words and not a link: a tree is used for longer than anything in a cache directory can be relied upon.
    let mut links_here = parts.mesh.clone().into_os_string();
    links_here.push(";local;--");
    add("CMAKE_C_LINKER_LAUNCHER", links_here.clone());
    add("CMAKE_CXX_LINKER_LAUNCHER", links_here);
    // The crate that compiles C for cargo takes the word after a launcher that it knows for the compiler.
    add("CC_KNOWN_WRAPPER_CUSTOM", "mesh-cc".into());
    // ccache looks at the compiler itself, whose upgrades must not go unnoticed behind a link, and runs it by the launcher.
    add("CCACHE_PREFIX", parts.launcher.clone().into());
    add("CCACHE_PATH", path_var.to_owned());
    if let Some(links) = parts.links.as_ref().filter(|_| !cmake) {
        let mut dirs = links.clone().into_os_string();
        dirs.push(":");
        dirs.push(path_var);
        all.push(("PATH", dirs));
    }
    all
}

/// Why the units of a tree that CMake has configured do not come to mesh, and what to do about it.
pub(super) fn advice(dir: &Path) -> String {
    format!(
        "{} was configured without mesh, so its compiles stay on this machine. Run once: mesh with -- cmake {}",
        dir.display(),
        dir.display()
    )
}

/// Says to launchers that they are to ask nobody.
pub(super) fn alone() -> Vec<(&'static str, OsString)> {
    vec![(env::MESH, "local".into())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        let at = |name: &str| PathBuf::from("/m").join(name);
        Parts { mesh: at("mesh"), launcher: at("mesh-cc"), links: Some(at("links")) }
    }

    fn set(tool: Tool, has: &[&str]) -> Vec<(&'static str, OsString)> {
        variables(tool, &parts(), OsStr::new("/usr/bin:/bin"), |name| has.contains(&name))
    }

    #[test]
    fn make_finds_links_first_and_cmake_never_does() {
        let path = |tool| set(tool, &["PATH"]).into_iter().find(|(name, _)| *name == "PATH").map(|(_, value)| value);
        for tool in [Tool::Make, Tool::Ninja, Tool::Cargo, Tool::MesonCompile, Tool::Other] {
            assert_eq!(path(tool), Some("/m/links:/usr/bin:/bin".into()), "{tool:?}");
        }
        assert_eq!([path(Tool::CmakeConfigure), path(Tool::CmakeBuild)], [None, None]);
    }

    #[test]
    fn what_a_person_has_set_stays() {
        let names = |has: &[&str]| set(Tool::CmakeConfigure, has).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert!(names(&[]).contains(&"CMAKE_CXX_COMPILER_LAUNCHER"));
        assert!(!names(&["CMAKE_CXX_COMPILER_LAUNCHER"]).contains(&"CMAKE_CXX_COMPILER_LAUNCHER"));
        assert!(!names(&["CCACHE_PREFIX"]).contains(&"CCACHE_PREFIX"));
    }
}
