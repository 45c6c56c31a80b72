//! How a project is built on the mesh, in lines that can be copied: by its build system (DECIDE).

use crate::cli::SetupFor;

/// What is said of one build system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recipe {
    /// What it is called.
    pub(super) name: &'static str,
    /// The lines for a shell, or for a file that the next comment names.
    pub(super) lines: &'static [&'static str],
    /// The same without `mesh with`, for who starts builds in another way.
    pub(super) by_hand: &'static [&'static str],
    /// What goes wrong otherwise.
    pub(super) traps: &'static [&'static str],
}

/// What is said of a build system; `None` for what is no build system.
pub(super) fn recipe(what: SetupFor) -> Option<Recipe> {
    use SetupFor::*;
    Some(match what {
        Container | Firewall => return None,
        Cmake => Recipe {
            name: "CMake",
            lines: &["mesh with -- cmake -B build", "mesh with -- cmake --build build"],
            by_hand: &[
                "cmake -B build -DCMAKE_C_COMPILER_LAUNCHER=mesh-cc -DCMAKE_CXX_COMPILER_LAUNCHER=mesh-cc",
                "cmake --build build -j$(mesh -j)",
            ],
            traps: &[
                "The launcher is taken when a folder is configured for the first time: a build folder that is there already is configured \
                 once more, best after rm -r build.",
                "CMake 3.4 or later; from 3.17 on the variables CMAKE_C_COMPILER_LAUNCHER and CMAKE_CXX_COMPILER_LAUNCHER do as well.",
                "The generators for Xcode and Visual Studio know no launcher: use Ninja or Makefiles.",
                "With ccache: mesh setup ccache. Not \"ccache;mesh-cc\": ccache would take mesh for the compiler.",
            ],
        },
        Make => Recipe {
            name: "make",
            lines: &["mesh with -- make"],
            by_hand: &["make CC=\"mesh-cc gcc\" CXX=\"mesh-cc g++\" -j$(mesh -j)"],
            traps: &[
                "A Makefile that says CC = gcc itself wins over the environment, and not over the command line: the second form, or mesh setup links.",
                "make without a jobserver of GNU's (bmake) needs a -j of its own.",
            ],
        },
        Kernel => Recipe {
            name: "the Linux kernel",
            lines: &["mesh with -- make CC=\"mesh-cc gcc\" HOSTCC=\"mesh-cc gcc\""],
            by_hand: &["make CC=\"mesh-cc gcc\" HOSTCC=\"mesh-cc gcc\" -j$(mesh -j)"],
            traps: &[
                "With LLVM=1: CC=\"mesh-cc clang\".",
                "With compiler plug-ins (CONFIG_GCC_PLUGINS) units stay on this machine; mesh stats counts them as PLUGIN.",
                "KBUILD_BUILD_TIMESTAMP=0 keeps the time out of the few units that hold it, so that they are found again.",
            ],
        },
        Meson => Recipe {
            name: "Meson",
            lines: &["mesh with -- meson setup build", "mesh with -- meson compile -C build"],
            by_hand: &["CC=\"mesh-cc gcc\" CXX=\"mesh-cc g++\" meson setup build", "ninja -C build -j$(mesh -j)"],
            traps: &[
                "Meson remembers the compiler of a folder: one that is there already needs meson setup --wipe.",
                "Meson puts ccache in front by itself where it is installed, unless CC says more than one word.",
            ],
        },
        Autotools => Recipe {
            name: "a configure script",
            lines: &["mesh with -- ./configure", "mesh with -- make"],
            by_hand: &["./configure CC=\"mesh-cc gcc\" CXX=\"mesh-cc g++\"", "make -j$(mesh -j)"],
            traps: &["What configure itself compiles stays here: each is faster done than sent (PROBE in mesh stats)."],
        },
        Cargo => Recipe {
            name: "the C and C++ parts of a Cargo project",
            lines: &["mesh with -- cargo build"],
            by_hand: &["CC=\"mesh-cc gcc\" CXX=\"mesh-cc g++\" CC_KNOWN_WRAPPER_CUSTOM=mesh-cc cargo build"],
            traps: &[
                "Without CC_KNOWN_WRAPPER_CUSTOM the cc crate takes mesh-cc itself for the compiler.",
                "Rust itself is compiled here.",
            ],
        },
        Ccache => Recipe {
            name: "ccache in front of mesh",
            lines: &["export CCACHE_PREFIX=mesh-cc"],
            by_hand: &[],
            traps: &[
                "The build goes on naming ccache, and nothing else changes: CMAKE_CXX_COMPILER_LAUNCHER=ccache, or CC=\"ccache gcc\".",
                "Not ccache in front of mesh-cc as if that were the compiler (\"ccache;mesh-cc\", or a link named gcc): ccache then looks at \
                 mesh's file to see whether the compiler is another one, and misses its upgrade.",
                "mesh keeps results too, those of all its machines: ccache is needed only where something else wants it.",
            ],
        },
        Links => Recipe {
            name: "a build that cannot be told of a launcher",
            lines: &["mesh install --links \"$HOME/.local/lib/mesh\"", "export PATH=\"$HOME/.local/lib/mesh:$PATH\""],
            by_hand: &[],
            traps: &[
                "The links are named gcc, g++, cc, c++, clang and clang++, as far as these are installed; each finds the real one behind itself on PATH.",
                "mesh with does the same for the build that it runs, and leaves nothing behind.",
            ],
        },
        Xcode => Recipe {
            name: "xcodebuild",
            lines: &["mesh with -- xcodebuild C_COMPILER_LAUNCHER=mesh-cc CLANG_ENABLE_MODULES=NO"],
            by_hand: &[],
            traps: &[
                "Units with modules stay on this machine (MODULES in mesh stats), so that this helps C and C++ most.",
                "Not CC=...: Xcode does not recognise the compiler then.",
            ],
        },
        Gn => Recipe {
            name: "GN (Chromium, V8)",
            lines: &[
                "gn gen out/mesh --args='cc_wrapper=\"mesh-cc\" clang_use_chrome_plugins=false'",
                "mesh with -- ninja -C out/mesh",
            ],
            by_hand: &[],
            traps: &["With its plug-ins clang stays on this machine (PLUGIN in mesh stats)."],
        },
        Bazel => Recipe {
            name: "Bazel",
            lines: &[
                "bazel build --action_env=CC=/path/to/a/script --spawn_strategy=local //...",
                "# the script: #!/bin/sh",
                "# exec mesh-cc gcc \"$@\"",
            ],
            by_hand: &[],
            traps: &[
                "Bazel has a protocol of its own for other machines, which does more for it: mesh is for what is there already.",
            ],
        },
        Buildroot => Recipe {
            name: "Buildroot",
            lines: &["mesh with -- make BR2_CCACHE=y CCACHE_PREFIX=mesh-cc"],
            by_hand: &[],
            traps: &[
                "Its own compilers are sent to the other machines when they are first wanted: mesh toolchain shows how far that is.",
            ],
        },
        Ndk => Recipe {
            name: "the Android NDK",
            lines: &["mesh with -- ndk-build NDK_CCACHE=mesh-cc"],
            by_hand: &[],
            traps: &["With CMake: mesh setup cmake."],
        },
        Idf => Recipe {
            name: "ESP-IDF",
            lines: &[
                "mesh with -- idf.py -DCMAKE_C_COMPILER_LAUNCHER=mesh-cc -DCMAKE_CXX_COMPILER_LAUNCHER=mesh-cc build",
            ],
            by_hand: &[],
            traps: &[
                "IDF_CCACHE_ENABLE=1 takes the place of a launcher: with it, export CCACHE_PREFIX=mesh-cc instead.",
            ],
        },
        Scons => Recipe {
            name: "SCons and Waf",
            lines: &["mesh with -- scons CC=\"mesh-cc gcc\" CXX=\"mesh-cc g++\""],
            by_hand: &[],
            traps: &[
                "An SConstruct that does not take CC from its arguments takes it from its Environment: mesh setup links helps either way.",
            ],
        },
    })
}

/// Files that tell how a project is built, the most telling first.
const TELLING: &[(&[&str], SetupFor)] = &[
    (&["CMakeLists.txt"], SetupFor::Cmake),
    (&["meson.build"], SetupFor::Meson),
    (&["Cargo.toml"], SetupFor::Cargo),
    (&["Kbuild", "Kconfig", "Makefile"], SetupFor::Kernel),
    (&["BUILD.gn"], SetupFor::Gn),
    (&[".gn"], SetupFor::Gn),
    (&["MODULE.bazel"], SetupFor::Bazel),
    (&["WORKSPACE"], SetupFor::Bazel),
    (&["sdkconfig"], SetupFor::Idf),
    (&["Config.in", "Makefile", "package"], SetupFor::Buildroot),
    (&["configure"], SetupFor::Autotools),
    (&["configure.ac"], SetupFor::Autotools),
    (&["SConstruct"], SetupFor::Scons),
    (&["wscript"], SetupFor::Scons),
    (&["GNUmakefile"], SetupFor::Make),
    (&["Makefile"], SetupFor::Make),
    (&["makefile"], SetupFor::Make),
];

/// How a project is built that has these files at its top.
pub(super) fn detected(has: impl Fn(&str) -> bool) -> Option<SetupFor> {
    let fits = |(files, _): &&(&[&str], SetupFor)| files.iter().all(|file| has(file));
    TELLING.iter().find(fits).map(|(_, what)| *what)
}

/// The text: lines that a shell can read, whatever of it is copied.
pub(super) fn text(recipe: &Recipe, detected: bool) -> String {
    let mut out = format!("# {}{}\n", recipe.name, if detected { ", as in this folder" } else { "" });
    recipe.lines.iter().for_each(|line| out += &format!("{line}\n"));
    if !recipe.by_hand.is_empty() {
        out += "\n# or, without mesh with\n";
        recipe.by_hand.iter().for_each(|line| out += &format!("{line}\n"));
    }
    if !recipe.traps.is_empty() {
        out += "\n";
        recipe.traps.iter().for_each(|trap| out += &format!("# - {trap}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use std::process::{Command, Stdio};

    #[test]
    fn every_text_is_lines_that_a_shell_reads() {
        for what in SetupFor::value_variants() {
            let Some(recipe) = recipe(*what) else { continue };
            assert!(!recipe.lines.is_empty() && !recipe.traps.is_empty(), "{what:?}");
            let text = text(&recipe, false);
            let read = Command::new("sh").args(["-n", "-c", &text]).stdin(Stdio::null()).output().expect("there is sh");
            assert!(read.status.success(), "{what:?}: {}\n{text}", String::from_utf8_lossy(&read.stderr));
            assert!(text.contains("mesh"), "{what:?}");
            assert!(text.lines().all(|line| !line.ends_with(' ')), "{what:?}");
        }
    }

    #[test]
    fn a_project_is_known_by_its_files_and_the_more_telling_one_wins() {
        let told = |files: &[&str]| detected(|name| files.contains(&name));
        assert_eq!(told(&[]), None);
        assert_eq!(told(&["README.md"]), None);
        assert_eq!(told(&["Makefile"]), Some(SetupFor::Make));
        assert_eq!(told(&["Makefile", "CMakeLists.txt", "configure"]), Some(SetupFor::Cmake));
        assert_eq!(told(&["Makefile", "Kbuild", "Kconfig"]), Some(SetupFor::Kernel));
        assert_eq!(told(&["Makefile", "Kconfig"]), Some(SetupFor::Make), "not every project with options is a kernel");
        assert_eq!(told(&["configure", "Makefile"]), Some(SetupFor::Autotools));
        assert_eq!(told(&["meson.build", "Makefile"]), Some(SetupFor::Meson));
    }

    #[test]
    fn the_lines_for_cmake_are_the_agreed_ones() {
        let shown = text(&recipe(SetupFor::Cmake).expect("a build system"), true);
        let lines: Vec<&str> = shown.lines().filter(|line| !line.starts_with("# -")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        # CMake, as in this folder
        mesh with -- cmake -B build
        mesh with -- cmake --build build

        # or, without mesh with
        cmake -B build -DCMAKE_C_COMPILER_LAUNCHER=mesh-cc -DCMAKE_CXX_COMPILER_LAUNCHER=mesh-cc
        cmake --build build -j$(mesh -j)
        ");
    }
}
