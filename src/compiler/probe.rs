//! Telling a configure-time check from a unit worth distributing (DECIDE).

use crate::launch::names::basename;

/// Directories in which CMake and Meson compile their checks.
const DIRECTORIES: &[&str] = &["CMakeTmp", "CMakeScratch", "meson-private"];
/// What the directory of one check of CMake's is called.
const DIRECTORY_PREFIX: &[u8] = b"TryCompile-";
/// What the sources of autoconf's, CMake's and Meson's checks are called, up to the extension.
const STEMS: &[&str] = &[
    "conftest",
    "tmp.conftest",
    "CheckIncludeFile",
    "CheckFunctionExists",
    "CheckSymbolExists",
    "CheckTypeSize",
    "CheckPrototypeDefinition",
    "CMakeCCompilerId",
    "CMakeCXXCompilerId",
    "CMakeCCompilerABI",
    "CMakeCXXCompilerABI",
    "sanitycheckc",
    "sanitycheckcpp",
    "sanitycheckobjc",
    "sanitycheckobjcpp",
];

/// Whether a source is called as checks are.
pub(super) fn is_named_like_one(source: &[u8]) -> bool {
    let name = basename(source);
    let Some(dot) = name.iter().rposition(|b| *b == b'.') else { return false };
    STEMS.iter().any(|s| s.as_bytes() == &name[..dot])
}

/// Whether a directory, or one above it, is where checks are compiled.
pub(super) fn is_in_one(path: &[u8]) -> bool {
    path.split(|b| *b == b'/')
        .any(|part| part.starts_with(DIRECTORY_PREFIX) || DIRECTORIES.iter().any(|d| d.as_bytes() == part))
}
