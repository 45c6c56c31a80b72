//! Names of compilers, of programs of mesh, and of files in a path (DECIDE).

/// The program with all commands; the whole launcher is in it.
pub const MESH: &str = "mesh";
/// The launcher's own program.
pub const MESH_CC: &str = "mesh-cc";
/// Where programs are looked for if `PATH` is not set.
pub const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// The part of a path after its last slash.
#[must_use]
pub fn basename(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or(path)
}

/// Whether a file name is one that compilers have: `gcc`, `x86_64-linux-gnu-g++-12`, `clang-14`, `c++`, `cc`.
#[must_use]
pub fn is_compiler_name(name: &[u8]) -> bool {
    let version = |s: &[u8]| !s.is_empty() && s.iter().all(|b| b.is_ascii_digit() || *b == b'.');
    let base = match name.iter().rposition(|b| *b == b'-') {
        Some(at) if version(&name[at + 1..]) => &name[..at],
        _ => name,
    };
    [&b"gcc"[..], b"g++", b"cc", b"c++", b"clang", b"clang++"].iter().any(|known| {
        base == *known || base.strip_suffix(*known).is_some_and(|prefix| prefix.len() > 1 && prefix.ends_with(b"-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_have_prefixes_and_versions() {
        for name in
            ["gcc", "g++-12", "x86_64-linux-gnu-gcc-12", "clang-14", "clang++", "c++", "cc", "arm-none-eabi-g++"]
        {
            assert!(is_compiler_name(name.as_bytes()), "{name}");
        }
        for name in ["gccgo", "agcc", "-gcc", "clangd", "clang-format", "ccache", "distcc", "gcc-", "peers", "cc-12x"] {
            assert!(!is_compiler_name(name.as_bytes()), "{name}");
        }
    }
}
