//! From a program as typed to a compiler's driver, and what that says of itself (DO).

use super::{
    ask::{Answer, AskError, ask},
    registry::{LookupError, MeshBinary},
    stamp::Stamp,
};
use crate::{compiler::invocation::Family, reason::Reason};
use mesh_proto::{digest::Digest, path::AbsPath};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

/// Programs that stand in for compilers by links of their names. A search passes over them, as over mesh's own.
const STAND_INS: &[&[u8]] = &[
    b"ccache",
    b"distcc",
    b"icecc",
    b"icerun",
    b"sccache",
    b"gomacc",
    b"rewrapper",
    b"buildcache",
    b"nocc",
    b"fastbuild",
];
/// Names under which mesh itself stands in for a compiler, whatever file they are.
const MESH_NAMES: &[&[u8]] = &[b"mesh", b"mesh-cc"];
/// What a compiler's name has in it. Only such programs are run to be asked: `rm -v` would not take it as a question.
const NAME_MARKS: &[&[u8]] = &[b"cc", b"c++", b"g++", b"clang"];
/// Macros of compilers that pretend to be gcc or clang and have another command line or other parts.
const PRETENDERS: &[&[u8]] = &[
    b"__INTEL_COMPILER",
    b"__INTEL_LLVM_COMPILER",
    b"__NVCOMPILER",
    b"__PGI",
    b"__TINYC__",
    b"__PCC__",
    b"__ARMCC_VERSION",
    b"__ibmxl__",
    b"__SUNPRO_C",
    b"__OPEN64__",
    b"__PATHCC__",
    b"__EMSCRIPTEN__",
    b"_CRAYC",
];
/// Beginnings of the lines of `-v` that depend on the compiler alone, not on how it was called or what else is there.
const ABOUT_GCC: &[&[u8]] =
    &[b"Target: ", b"Configured with: ", b"Thread model: ", b"Supported LTO", b"gcc version ", b"OFFLOAD_"];
/// The same for clang, with the places that it found and that are parts of the toolchain therefore.
const ABOUT_CLANG: &[&[u8]] =
    &[b"Target: ", b"Thread model: ", b"InstalledDir: ", SELECTED_INSTALL, b"Selected multilib: ", CONFIG_FILE];
/// clang names the GCC installation whose libraries it uses.
const SELECTED_INSTALL: &[u8] = b"Selected GCC installation: ";
/// clang names each configuration file that it read.
const CONFIG_FILE: &[u8] = b"Configuration file: ";

/// gcc names itself as it was called.
const COLLECT: &[u8] = b"COLLECT_GCC=";

/// The driver that a program as typed stands for.
///
/// A name without a slash is looked for in `path_var`, the caller's own; directories of it may be relative to `cwd`.
/// Found in a place that is mesh or another stand-in, it is looked for further on.
pub(super) fn resolve(
    program: &[u8],
    cwd: &[u8],
    path_var: &[u8],
    mesh: Option<MeshBinary>,
) -> Result<AbsPath, LookupError> {
    if program.is_empty() {
        return Err(LookupError::NotFound);
    }
    if program.contains(&b'/') {
        let path = absolute(cwd, program);
        return match judge(&path, mesh) {
            Verdict::Absent if Stamp::behind(&path).is_err() => Err(LookupError::NotFound),
            Verdict::Compiler => normal(&path).ok_or(LookupError::Local(Reason::Compiler)),
            Verdict::StandIn => Err(LookupError::Local(Reason::StandIn)),
            Verdict::Absent | Verdict::Unlikely => Err(LookupError::Local(Reason::Compiler)),
        };
    }
    for dir in path_var.split(|b| *b == b':') {
        let path = [&absolute(cwd, dir)[..], b"/", program].concat();
        match judge(&path, mesh) {
            Verdict::Absent | Verdict::StandIn => {}
            Verdict::Compiler => return normal(&path).ok_or(LookupError::Local(Reason::Compiler)),
            Verdict::Unlikely => return Err(LookupError::Local(Reason::Compiler)),
        }
    }
    Err(LookupError::NotFound)
}

/// A tool that a driver finds by the caller's `PATH` (as, objcopy): the first executable file of that name.
pub(super) fn on_path(name: &[u8], cwd: &[u8], path_var: &[u8]) -> Option<AbsPath> {
    let mut places = path_var.split(|b| *b == b':').map(|dir| [&absolute(cwd, dir)[..], b"/", name].concat());
    places.find(|path| executable_file(path).is_some()).and_then(|path| normal(&path))
}

/// The paths that [`on_path`] looks at: all up to the one that it finds.
pub(super) fn looked_at(name: &[u8], cwd: &[u8], path_var: &[u8], found: Option<&AbsPath>) -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    for dir in path_var.split(|b| *b == b':') {
        let path = [&absolute(cwd, dir)[..], b"/", name].concat();
        let is_last = found.is_some() && normal(&path).as_ref() == found;
        paths.push(path);
        if is_last {
            break;
        }
    }
    paths
}

/// What is at a path, as far as looking for a compiler is concerned.
enum Verdict {
    Absent,
    StandIn,
    Unlikely,
    Compiler,
}

fn judge(path: &[u8], mesh: Option<MeshBinary>) -> Verdict {
    let Some(stamp) = executable_file(path) else { return Verdict::Absent };
    if mesh.is_some_and(|m| (m.dev, m.ino) == (stamp.dev, stamp.ino)) {
        return Verdict::StandIn;
    }
    let name = |p: &[u8]| p.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
    let Ok(real) = std::fs::canonicalize(OsStr::from_bytes(path)) else { return Verdict::Absent };
    let (typed, real) = (name(path), name(real.as_os_str().as_bytes()));
    if STAND_INS.contains(&&real[..]) || MESH_NAMES.contains(&&real[..]) || MESH_NAMES.contains(&&typed[..]) {
        return Verdict::StandIn;
    }
    let likely = |name: &[u8]| NAME_MARKS.iter().any(|mark| memchr::memmem::find(name, mark).is_some());
    if likely(&typed) || likely(&real) { Verdict::Compiler } else { Verdict::Unlikely }
}

/// The stamp of the file behind a path, if it is one that may be executed.
fn executable_file(path: &[u8]) -> Option<Stamp> {
    let stamp = Stamp::behind(path).ok()?;
    (stamp.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()).then_some(stamp)
}

/// `path` seen from `cwd`; an empty path is `cwd`, as in `PATH`.
fn absolute(cwd: &[u8], path: &[u8]) -> Vec<u8> {
    match path {
        [b'/', ..] => path.to_vec(),
        [] => cwd.to_vec(),
        _ => [cwd, b"/", path].concat(),
    }
}

/// A path in normal form. `..` is resolved by the file system, since what lies before it may be a link; all else is as
/// typed, since a driver looks at how it was called.
fn normal(path: &[u8]) -> Option<AbsPath> {
    if !path.split(|b| *b == b'/').any(|c| c == b"..") {
        return AbsPath::lexical(&AbsPath::root(), path).ok();
    }
    let cut = path.iter().rposition(|b| *b == b'/')?;
    let dir = std::fs::canonicalize(OsStr::from_bytes(&path[..=cut])).ok()?;
    AbsPath::new(dir.as_os_str().as_bytes()).ok()?.join(&path[cut + 1..]).ok()
}

/// What a compiler says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) family: Family,
    pub(super) version: String,
    pub(super) version_major: u32,
    pub(super) triple: String,
    /// The lines of `-v` that are facts.
    pub(super) about: Vec<u8>,
    /// Digest of the predefined macros for C.
    pub(super) macros: Digest,
    /// clang: the GCC installation that it chose.
    pub(super) gcc_install: Option<Vec<u8>>,
    /// clang: its configuration files.
    pub(super) config_files: Vec<Vec<u8>>,
    /// The program that answered, by its own words, if it says so: gcc as it was called, clang by its file.
    pub(super) answered: Option<Vec<u8>>,
}

/// Why a program is no compiler that mesh knows.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    /// It gave no answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It does not preprocess an empty file.
    #[error("the program does not answer as gcc and clang do")]
    Refused,
    /// Its macros are those of neither.
    #[error("the program is neither gcc nor clang")]
    Unknown,
    /// Another program than it has answered: that one's files would be missing.
    #[error("the program runs another one: {0}")]
    Wrapper(String),
}

/// Asks a driver who it is: one run gives the `-v` text and the macros that only a compiler proper can know.
pub(super) fn identify(driver: &AbsPath, path_var: &[u8]) -> Result<Identity, IdentityError> {
    let program = Path::new(OsStr::from_bytes(driver.as_bytes()));
    // -nostdinc: gcc would otherwise add the macros of the system's stdc-predef.h, which is an input.
    let answer = ask(program, ["-v", "-dM", "-E", "-x", "c", "-nostdinc", "/dev/null"], path_var, &[])?;
    if !answer.success {
        return Err(IdentityError::Refused);
    }
    let identity = parse_identity(&answer).ok_or(IdentityError::Unknown)?;
    match &identity.answered {
        Some(other) if !is_itself(identity.family, driver, other) => {
            Err(IdentityError::Wrapper(String::from_utf8_lossy(other).into_owned()))
        }
        _ => Ok(identity),
    }
}

/// Whether the program that answered is the driver that was asked. gcc is told by the name by which it was called, since
/// its file is called anything; clang gives its file.
fn is_itself(family: Family, driver: &AbsPath, answered: &[u8]) -> bool {
    let real = |path: &[u8]| std::fs::canonicalize(OsStr::from_bytes(path)).ok();
    answered == driver.as_bytes() || family == Family::Clang && real(answered) == real(driver.as_bytes())
}

/// The program of the command line with clang's front end in what `-v` says.
fn front_end(line: &[u8]) -> Option<Vec<u8>> {
    let rest = line.strip_prefix(b" \"")?;
    let end = rest.iter().position(|b| *b == b'"')?;
    let is_plain = !rest[..end].contains(&b'\\');
    (is_plain && rest[end + 1..].starts_with(b" -cc1 ")).then(|| rest[..end].to_vec())
}

/// Reads the answer to [`identify`]'s question.
fn parse_identity(answer: &Answer) -> Option<Identity> {
    let macro_body = |name: &[u8]| {
        let lines = answer.stdout.split(|b| *b == b'\n');
        lines.filter_map(|l| l.strip_prefix(b"#define ")?.strip_prefix(name)?.strip_prefix(b" ")).next()
    };
    if PRETENDERS.iter().any(|name| macro_body(name).is_some()) {
        return None;
    }
    let number = |name: &[u8]| std::str::from_utf8(macro_body(name)?).ok()?.trim().parse::<u32>().ok();
    let version = |names: [&[u8]; 3]| Some([number(names[0])?, number(names[1])?, number(names[2])?]);
    let (family, [major, minor, patch]) =
        match version([b"__clang_major__", b"__clang_minor__", b"__clang_patchlevel__"]) {
            Some(version) => (Family::Clang, version),
            None => (Family::Gcc, version([b"__GNUC__", b"__GNUC_MINOR__", b"__GNUC_PATCHLEVEL__"])?),
        };
    let lines = || answer.stderr.split(|b| *b == b'\n');
    let after = |mark: &'static [u8]| lines().filter_map(move |l| l.strip_prefix(mark)).map(<[u8]>::to_vec);
    let keep = |line: &[u8]| match family {
        Family::Gcc => ABOUT_GCC.iter().any(|mark| line.starts_with(mark)),
        Family::Clang => {
            ABOUT_CLANG.iter().any(|mark| line.starts_with(mark))
                || memchr::memmem::find(line, b"clang version ").is_some_and(|at| at < 40)
        }
    };
    let about: Vec<&[u8]> = lines().filter(|l| keep(l)).collect();
    if family == Family::Gcc && !about.iter().any(|l| l.starts_with(b"gcc version ")) {
        return None;
    }
    Some(Identity {
        family,
        version: format!("{major}.{minor}.{patch}"),
        version_major: major,
        triple: String::from_utf8(after(b"Target: ").next()?).ok()?,
        about: about.join(&b'\n'),
        macros: Digest::of(&answer.stdout),
        gcc_install: after(SELECTED_INSTALL).next(),
        config_files: after(CONFIG_FILE).collect(),
        answered: match family {
            Family::Gcc => after(COLLECT).next(),
            Family::Clang => lines().find_map(front_end),
        },
    })
}

/// Whether a driver takes a `.c` file for C++. gcc's two drivers are two programs, so the real file's name tells;
/// clang is one program and goes by the name it is called by.
pub(super) fn is_cxx_driver(family: Family, driver: &AbsPath, real: &AbsPath) -> bool {
    let stem = |name: &[u8]| {
        let end = name.iter().rposition(|b| !(b.is_ascii_digit() || matches!(b, b'.' | b'-'))).map_or(0, |at| at + 1);
        name[..end].to_vec()
    };
    match family {
        Family::Gcc => stem(real.name()).ends_with(b"++"),
        Family::Clang => stem(driver.name()).ends_with(b"++"),
    }
}

/// Whether a file's name is that of a compiler to advertise: `gcc`, `g++`, `cc`, `c++`, `clang`, `clang++`, with a
/// target before or a version behind.
pub(super) fn is_compiler_name(name: &[u8]) -> bool {
    let numeric = |part: &[u8]| !part.is_empty() && part.iter().all(|b| b.is_ascii_digit() || *b == b'.');
    let mut parts: Vec<&[u8]> = name.split(|b| *b == b'-').collect();
    if parts.len() > 1 && parts.last().is_some_and(|last| numeric(last)) {
        parts.pop();
    }
    let Some((last, target)) = parts.split_last() else { return false };
    let known: [&[u8]; 6] = [b"gcc", b"g++", b"cc", b"c++", b"clang", b"clang++"];
    // A target has two parts or more (`arm-none-eabi`), which leaves out Debian's scripts c89-gcc and c99-gcc.
    known.contains(last) && target.len() != 1 && target.iter().all(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    /// A directory with executable files of these names.
    fn programs(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for name in names {
            std::fs::write(dir.path().join(name), "a program").expect("written");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(dir.path().join(name), mode).expect("changed");
        }
        dir
    }

    fn path_of(dirs: &[&tempfile::TempDir]) -> Vec<u8> {
        let dirs: Vec<_> = dirs.iter().map(|d| d.path().as_os_str().as_bytes()).collect();
        dirs.join(&b':')
    }

    fn at(dir: &tempfile::TempDir, name: &str) -> Result<AbsPath, LookupError> {
        Ok(AbsPath::new(dir.path().join(name).as_os_str().as_bytes()).expect("normal"))
    }

    const LOCAL: Result<AbsPath, LookupError> = Err(LookupError::Local(Reason::Compiler));
    const NOT_FOUND: Result<AbsPath, LookupError> = Err(LookupError::NotFound);

    #[test]
    fn the_first_executable_file_of_the_callers_path_is_found() {
        let (empty, one, two) = (programs(&[]), programs(&["gcc"]), programs(&["gcc", "arm-linux-gnueabihf-gcc-12"]));
        std::fs::create_dir(empty.path().join("gcc")).expect("a directory is no program");
        std::fs::write(empty.path().join("clang"), "not executable").expect("written");
        let path = path_of(&[&empty, &one, &two]);
        assert_eq!(resolve(b"gcc", b"/", &path, None), at(&one, "gcc"));
        assert_eq!(resolve(b"arm-linux-gnueabihf-gcc-12", b"/", &path, None), at(&two, "arm-linux-gnueabihf-gcc-12"));
        assert_eq!(resolve(b"clang", b"/", &path, None), NOT_FOUND);
        assert_eq!(resolve(b"gcc", b"/", b"/nowhere", None), NOT_FOUND);
        assert_eq!(resolve(b"", b"/", &path, None), NOT_FOUND);
    }

    #[test]
    fn meshs_own_links_and_other_stand_ins_are_passed_over() {
        let (own, links, real) =
            (programs(&["mesh-binary", "mesh-cc"]), programs(&["ccache"]), programs(&["gcc", "cc"]));
        let binary = own.path().join("mesh-binary");
        symlink(&binary, links.path().join("gcc")).expect("linked");
        std::fs::hard_link(&binary, own.path().join("gcc")).expect("linked");
        symlink("ccache", links.path().join("cc")).expect("linked");
        let meta = std::fs::metadata(&binary).expect("there");
        let mesh = Some(MeshBinary { dev: meta.dev(), ino: meta.ino() });
        let path = path_of(&[&own, &links, &real]);
        assert_eq!(resolve(b"gcc", b"/", &path, mesh), at(&real, "gcc"));
        assert_eq!(resolve(b"cc", b"/", &path, mesh), at(&real, "cc"));
        // Without mesh's identity a hard link cannot be told, so this shows that it was the identity.
        assert_eq!(resolve(b"gcc", b"/", &path, None), at(&own, "gcc"));
        // Named by its path it is not passed over.
        let stand_in = Err(LookupError::Local(Reason::StandIn));
        assert_eq!(resolve(links.path().join("gcc").as_os_str().as_bytes(), b"/", b"", mesh), stand_in);
        assert_eq!(resolve(links.path().join("cc").as_os_str().as_bytes(), b"/", b"", mesh), stand_in);
        assert_eq!(resolve(b"mesh-cc", b"/", &path, mesh), NOT_FOUND);
    }

    #[test]
    fn paths_are_seen_from_the_callers_directory() {
        let dir = programs(&["cc"]);
        let base = dir.path().as_os_str().as_bytes();
        std::fs::create_dir(dir.path().join("sub")).expect("made");
        assert_eq!(resolve(b"./cc", base, b"", None), at(&dir, "cc"));
        assert_eq!(resolve(b"cc", base, b"/nowhere::", None), at(&dir, "cc"));
        assert_eq!(resolve(b"cc", base, b"sub/..", None).map(|p| p.name().to_vec()), Ok(b"cc".to_vec()));
        assert_eq!(resolve(b"./gcc", base, b"", None), NOT_FOUND);
        assert_eq!(resolve(b"./sub", base, b"", None), LOCAL);
    }

    #[test]
    fn a_link_before_dots_is_followed_as_the_kernel_does() {
        let (here, there) = (programs(&["cc"]), programs(&["cc"]));
        std::fs::create_dir(there.path().join("deep")).expect("made");
        symlink(there.path().join("deep"), here.path().join("link")).expect("linked");
        let found = resolve(b"link/../cc", here.path().as_os_str().as_bytes(), b"", None).expect("found");
        let want = std::fs::canonicalize(there.path().join("cc")).expect("real");
        assert_eq!(found.as_bytes(), want.as_os_str().as_bytes());
    }

    #[test]
    fn programs_with_other_names_are_never_asked() {
        let dir = programs(&["rm", "install"]);
        symlink("rm", dir.path().join("cc")).expect("linked");
        assert_eq!(resolve(b"rm", b"/", &path_of(&[&dir]), None), LOCAL);
        assert_eq!(resolve(b"cc", b"/", &path_of(&[&dir]), None), at(&dir, "cc"));
    }

    #[test]
    fn names_worth_advertising() {
        for name in
            ["gcc", "g++-12", "cc", "c++", "clang-14", "clang++", "x86_64-linux-gnu-gcc-12", "arm-none-eabi-g++"]
        {
            assert!(is_compiler_name(name.as_bytes()), "{name}");
        }
        for name in [
            "gcc-ar",
            "gcc-ar-12",
            "c99-gcc",
            "clang-format-14",
            "clang-cpp",
            "cpp",
            "gccgo",
            "ccache",
            "-gcc",
            "12",
            "",
        ] {
            assert!(!is_compiler_name(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn which_driver_is_for_cxx() {
        let path = |p: &str| AbsPath::new(p).expect("normal");
        for (family, driver, real, want) in [
            (Family::Gcc, "/usr/bin/g++", "/usr/bin/x86_64-linux-gnu-g++-12", true),
            (Family::Gcc, "/usr/bin/foo++", "/usr/bin/gcc-12", false),
            (Family::Gcc, "/usr/bin/cc", "/usr/bin/gcc-4.8", false),
            (Family::Clang, "/usr/bin/clang++-14", "/usr/lib/llvm-14/bin/clang", true),
            (Family::Clang, "/usr/bin/c++", "/usr/lib/llvm-14/bin/clang", true),
            (Family::Clang, "/usr/bin/clang-14", "/usr/lib/llvm-14/bin/clang", false),
        ] {
            assert_eq!(is_cxx_driver(family, &path(driver), &path(real)), want, "{driver}");
        }
    }

    fn answer(macros: &str, text: &str) -> Answer {
        Answer { success: true, stdout: macros.into(), stderr: text.into() }
    }

    #[test]
    fn gcc_is_known_by_its_macros_and_its_words() {
        let macros = "#define __GNUC__ 12\n#define __GNUC_MINOR__ 2\n#define __GNUC_PATCHLEVEL__ 0\n";
        let text = "Using built-in specs.\nCOLLECT_GCC=/tmp/gcc\nTarget: x86_64-linux-gnu\nConfigured with: ../x\n\
                    gcc version 12.2.0 (Debian)\nCOLLECT_GCC_OPTIONS='-v'\n";
        let id = parse_identity(&answer(macros, text)).expect("gcc");
        assert_eq!((id.family, id.version.as_str(), id.version_major), (Family::Gcc, "12.2.0", 12));
        assert_eq!(id.triple, "x86_64-linux-gnu");
        assert_eq!(id.answered.as_deref(), Some(&b"/tmp/gcc"[..]));
        assert_eq!(id.about, b"Target: x86_64-linux-gnu\nConfigured with: ../x\ngcc version 12.2.0 (Debian)");
        assert_eq!(parse_identity(&answer(macros, "Target: x\n")), None);
        assert_eq!(parse_identity(&answer(&format!("{macros}#define __INTEL_COMPILER 1\n"), text)), None);
        assert_eq!(parse_identity(&answer("#define __GNUC__ x\n", text)), None);
    }

    #[test]
    fn clang_is_known_although_it_claims_to_be_gcc() {
        let macros = "#define __GNUC__ 4\n#define __GNUC_MINOR__ 2\n#define __GNUC_PATCHLEVEL__ 1\n#define __clang__ 1\n\
                      #define __clang_major__ 14\n#define __clang_minor__ 0\n#define __clang_patchlevel__ 6\n";
        let text = "Debian clang version 14.0.6\nTarget: x86_64-pc-linux-gnu\nInstalledDir: /usr/bin\n\
                    Found candidate GCC installation: /usr/bin/../lib/gcc/x86_64-linux-gnu/11\n\
                    Selected GCC installation: /usr/bin/../lib/gcc/x86_64-linux-gnu/12\n (in-process)\n \
                    \"/usr/lib/llvm-14/bin/clang\" -cc1 -triple x86_64-pc-linux-gnu -E\n";
        let id = parse_identity(&answer(macros, text)).expect("clang");
        assert_eq!((id.family, id.version.as_str()), (Family::Clang, "14.0.6"));
        assert_eq!(id.gcc_install.as_deref(), Some(&b"/usr/bin/../lib/gcc/x86_64-linux-gnu/12"[..]));
        assert!(memchr::memmem::find(&id.about, b"candidate").is_none());
        assert!(id.about.starts_with(b"Debian clang version 14.0.6\n"));
        assert_eq!(id.answered.as_deref(), Some(&b"/usr/lib/llvm-14/bin/clang"[..]));
    }
}
