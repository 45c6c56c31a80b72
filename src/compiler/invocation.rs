//! A compiler command as it was typed, with all that it depends on (DECIDE).

pub use super::family::Family;

/// A compiler command. Response files are expanded already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// `argv[0]` as typed, then the arguments.
    pub argv: Vec<Vec<u8>>,
    /// The working directory as `PWD` spells it, if that is where the process is; else the real path.
    pub cwd: Vec<u8>,
    /// The environment, as far as a compiler may look at it.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The compiler's grammar.
    pub family: Family,
    /// The compiler's major version (`__GNUC__`, `__clang_major__`).
    pub version_major: u32,
    /// Whether the driver is the C++ one (g++, clang++): it compiles `.c` as C++ (clang++, g++) and `.h` as a C++ header.
    pub cxx_driver: bool,
}

impl Invocation {
    /// The value of an environment variable.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&[u8]> {
        self.env.iter().find(|(k, _)| k == name.as_bytes()).map(|(_, v)| v.as_slice())
    }
}
