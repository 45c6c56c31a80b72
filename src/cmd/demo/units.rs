//! Units to compile, with their headers (DECIDE).

/// A file of the embedded project.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// Its path in the project; what includes it names it from the project's top.
    pub path: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// The project.
pub const UNITS: &[Unit] = &[
    Unit { path: "include/sum.h", text: "#pragma once\nint sum(const int *from, int count);\n" },
    Unit {
        path: "src/sum.c",
        text: "#include \"sum.h\"\nint sum(const int *from, int count) {\n    int all = 0, unused;\n    for (int at = 0; at < \
               count; at++) all += from[at];\n    return all;\n}\n",
    },
    Unit {
        path: "src/words.cpp",
        text: "#include <string>\n#include <vector>\nstd::string joined(const std::vector<std::string> &words) {\n    \
               std::string all;\n    for (const auto &word : words) all += word;\n    return all;\n}\n",
    },
];
