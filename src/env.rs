//! Every environment variable of mesh's own, declared once, and which variables of others travel with a job (DECIDE).

/// `on` (default), `off`: compile here and ask no agent; `force`: never choose this machine while a peer could take the
/// unit (failures still fall back).
pub const MESH: &str = "MESH";
/// `0`: where a unit would fall back to a local compile, fail with status 111 instead. For tests.
pub const FALLBACK: &str = "MESH_FALLBACK";
/// A peer, by name or id, that gets the unit if it can take it.
pub const PREFER: &str = "MESH_PREFER";
/// `1`: this unit is compiled by this machine or one of an owner's of the mesh, and a kept result is used only if one of these
/// made it.
pub const TRUSTED_ONLY: &str = "MESH_TRUSTED_ONLY";
/// One directory for all of mesh's files instead of the XDG places. For tests and demonstrations.
pub const DIR: &str = "MESH_DIR";
/// The agent's socket, if it is not in the runtime directory.
pub const SOCKET: &str = "MESH_SOCKET";
/// The real compiler for a link that is named like one.
pub const CC: &str = "MESH_CC";
/// Set for every compiler that mesh starts: a launcher that sees it runs the compiler and asks nobody.
pub const DEPTH: &str = "MESH_DEPTH";
/// `1`: the launcher says on standard error what it did. Without it, it never prints a word of its own.
pub const VERBOSE: &str = "MESH_VERBOSE";
/// The agent's log filter, in the syntax of the `tracing` crates; default `info`.
pub const LOG: &str = "MESH_LOG";
/// The mDNS port, default 5353. For tests.
pub const MDNS_PORT: &str = "MESH_MDNS_PORT";
/// This machine's name in a mesh, over the configuration file's `name`.
pub const NAME: &str = "MESH_NAME";
/// Compilers that this machine runs for others at once, or `auto`; over the configuration file's `slots`.
pub const SLOTS: &str = "MESH_SLOTS";
/// The UDP port, over the configuration file's `port`.
pub const PORT: &str = "MESH_PORT";
/// Addresses where machines of the mesh may be, separated by commas, over the configuration file's `peers`.
pub const PEERS: &str = "MESH_PEERS";
/// Addresses with ports, separated by commas, at which others reach this machine although it does not know them itself: in
/// a container, the host's address and the port that is published, such as `192.168.1.30:6374`.
pub const ADVERTISE: &str = "MESH_ADVERTISE";
/// `all` or `none`: which compilers of its own this machine lends; over the configuration file's `compilers`.
pub const COMPILERS: &str = "MESH_COMPILERS";
/// A token by which an agent that is in no mesh joins one.
pub const JOIN: &str = "MESH_JOIN";
/// A file that holds such a token.
pub const JOIN_FILE: &str = "MESH_JOIN_FILE";
/// MB a second at which this machine sends compilers to others; over the configuration file's `toolchain_rate`.
pub const TOOLCHAIN_RATE: &str = "MESH_TOOLCHAIN_RATE";
/// `off`, `idle`, `share` or `full`: what this machine lends, over the configuration file's `mode`.
pub const MODE: &str = "MESH_MODE";
/// `on` (default), `read` or `off`. For an agent: whether results are kept and looked for; over the configuration file's
/// `cache.use`. For a launcher: the same of its unit, as far as the agent does it at all.
pub const CACHE: &str = "MESH_CACHE";
/// How much room kept results may take, such as `10G`, for an agent; over the configuration file's `cache.max_size`.
pub const CACHE_SIZE: &str = "MESH_CACHE_SIZE";
/// `1`: announce and browse on the loopback interface only. For tests and demonstrations.
pub const LOOPBACK: &str = "MESH_LOOPBACK";
/// `1`, for an agent: every job for another machine gets a root of its own, even where a kept tree would do. For tests and
/// comparisons.
pub const STRICT: &str = "MESH_STRICT";

/// Which build a unit belongs to, a decimal number: set by `mesh with` for the command that it runs.
pub const SESSION: &str = "MESH_SESSION";
/// `0`: `mesh with` ends without a line about the build; `1`: it says it even where standard error is no terminal.
pub const SUMMARY: &str = "MESH_SUMMARY";
/// `0`: `mesh with` lets this machine fall asleep for idleness while the build runs, on mains as well.
pub const INHIBIT: &str = "MESH_INHIBIT";

/// Variables that travel with a request because a compiler, its loader or its C library looks at them.
const TRAVEL: &[&str] = &[
    "ASAN_OPTIONS",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLORTERM",
    "COLUMNS",
    "COMPILER_PATH",
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "CPP_RESTRICTED",
    "C_INCLUDE_PATH",
    "DEPENDENCIES_OUTPUT",
    "EXTRA_CLANGD_FLAGS",
    "GCONV_PATH",
    "GREP_COLORS",
    "HOME",
    "LANG",
    "LANGUAGE",
    "LIBRARY_PATH",
    "LOCPATH",
    "LSAN_OPTIONS",
    "MACOSX_DEPLOYMENT_TARGET",
    "NLSPATH",
    "NO_COLOR",
    "OBJCPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "OUTPUT_CHARSET",
    "PATH",
    "PWD",
    "SDKROOT",
    "SOURCE_DATE_EPOCH",
    "SUNPRO_DEPENDENCIES",
    "TEMP",
    "TERM",
    "TERMINFO",
    "TERMINFO_DIRS",
    "TERM_URLS",
    "TEXTDOMAINDIR",
    "TMP",
    "TMPDIR",
    "TZ",
    "UBSAN_OPTIONS",
    "XDG_CONFIG_HOME",
];

/// Beginnings of names that travel likewise.
const TRAVEL_PREFIXES: &[&str] =
    &["CCC_", "CC_PRINT", "CC_LOG", "CLANG_", "GCC_", "GLIBC_", "LC_", "LD_", "LIBC_", "LLVM_", "MALLOC_"];

/// Whether a variable of this name travels with a request.
#[must_use]
pub fn travels(name: &[u8]) -> bool {
    TRAVEL.binary_search_by(|have| have.as_bytes().cmp(name)).is_ok()
        || TRAVEL_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Names the descriptor for what ccache does not keep of what is printed: ccache sets it for a compiler whose result it is
/// about to keep, and for that only.
const CCACHE_KEEPS: &str = "UNCACHED_ERR_FD";
/// `1`: what ccache sets for every program that it runs, so that none of them is ccache again.
const CCACHE_RUNS: &str = "CCACHE_DISABLE";

on_wire! {
    /// What a launcher says of the results of its unit. It can take away from what its agent does, and add nothing.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Keeping {
        /// What the agent's settings say.
        Settings,
        /// [`CACHE`] says `read`: a result is looked for, and none is kept.
        Read,
        /// [`CACHE`] says `off`.
        Off,
        /// ccache runs the launcher and keeps the result itself.
        Ccache,
        /// [`FALLBACK`] says that nothing is to be compiled on this machine: so nothing is, to be kept.
        Elsewhere,
    }
}

/// What a launcher with these variables says of its unit's results.
#[must_use]
pub fn keeping<V: AsRef<[u8]>>(var: impl Fn(&str) -> Option<V>) -> Keeping {
    let is_elsewhere = || var(FALLBACK).is_some_and(|value| value.as_ref() == b"0");
    let runs = || var(CCACHE_RUNS).is_some_and(|value| value.as_ref() == b"1");
    match var(CACHE).as_ref().map(AsRef::as_ref) {
        Some(b"read") => Keeping::Read,
        Some(b"off") => Keeping::Off,
        said if said != Some(b"on") && var(CCACHE_KEEPS).is_some() && runs() => Keeping::Ccache,
        _ if is_elsewhere() => Keeping::Elsewhere,
        _ => Keeping::Settings,
    }
}

/// What [`TRUSTED_ONLY`] says: anything but nothing and `0` restricts, so that a slip of the pen does not widen trust.
#[must_use]
pub fn trusted_only(value: Option<&[u8]>) -> bool {
    value.is_some_and(|value| !value.is_empty() && value != b"0")
}

/// What [`SESSION`] says; 0, which is no build, for anything that is not a decimal number of 64 bits.
#[must_use]
pub fn session(value: &[u8]) -> u64 {
    let digit = |so_far: u64, byte: &u8| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        so_far.checked_mul(10)?.checked_add(digit)
    };
    value.iter().try_fold(0, digit).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_ccache_keeps_is_kept_here_only_if_that_is_said() {
        let said = |all: &[(&str, &'static str)]| {
            keeping(|name| all.iter().find(|(have, _)| *have == name).map(|(_, value)| value.as_bytes()))
        };
        let below = [("UNCACHED_ERR_FD", "3"), ("CCACHE_DISABLE", "1"), ("CCACHE_PREFIX", "mesh-cc")];
        assert_eq!(said(&[]), Keeping::Settings);
        assert_eq!(said(&below), Keeping::Ccache);
        // Set for every program, or what ccache runs without keeping it.
        assert_eq!((said(&below[..1]), said(&below[1..])), (Keeping::Settings, Keeping::Settings));
        let elsewhere = [("MESH_FALLBACK", "0")];
        assert_eq!(said(&elsewhere), Keeping::Elsewhere);
        assert_eq!(said(&[elsewhere[0], ("MESH_CACHE", "on")]), Keeping::Elsewhere);
        assert_eq!(said(&[elsewhere[0], ("MESH_CACHE", "read")]), Keeping::Read);
        for (word, want) in [
            ("on", Keeping::Settings),
            ("read", Keeping::Read),
            ("off", Keeping::Off),
            ("yes", Keeping::Ccache),
            ("", Keeping::Ccache),
        ] {
            assert_eq!(said(&[&below[..], &[("MESH_CACHE", word)]].concat()), want, "{word}");
        }
    }

    #[test]
    fn what_compilers_look_at_travels_and_secrets_do_not() {
        assert!(TRAVEL.is_sorted());
        for name in ["PATH", "LANG", "LC_ALL", "GCC_COLORS", "CPATH", "SOURCE_DATE_EPOCH", "PWD", "LD_PRELOAD"] {
            assert!(travels(name.as_bytes()), "{name}");
        }
        assert_eq!(
            [&b"18446744073709551615"[..], b"18446744073709551616", b"7x", b""].map(session),
            [u64::MAX, 0, 0, 0]
        );
        for name in
            ["AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "GITHUB_TOKEN", "MESH", "MESH_DEPTH", "MESH_SESSION", "USER"]
        {
            assert!(!travels(name.as_bytes()), "{name}");
        }
    }
}
