//! Real projects to build: fetched once, pinned by their sums, kept under `target` (or `$MESH_TEST_CORPORA`).
//!
//! Three come from Debian's source packages, through an apt configuration of our own, so that the computer's stays as it
//! is; sqlite's amalgamation comes with a crate. Git repositories were rejected: their hosts answer less reliably to a
//! build machine than a distribution's mirrors.

use crate::build::{Family, Unit};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// A project that is built in the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Corpus {
    Lua,
    Sqlite,
    Curl,
    Abseil,
}

/// A source package of Debian 12.
struct Package {
    name: &'static str,
    tarball: &'static str,
    sha256: &'static str,
    /// The one folder in the tarball.
    top: &'static str,
}

const LUA: Package = Package {
    name: "lua5.4",
    tarball: "lua5.4_5.4.4.orig.tar.gz",
    sha256: "164c7849653b80ae67bec4b7473b884bf5cc8d2dca05653475ec2ed27b9ebf61",
    top: "lua-5.4.4",
};
const CURL: Package = Package {
    name: "curl",
    tarball: "curl_7.88.1.orig.tar.gz",
    sha256: "cdb38b72e36bc5d33d5b8810f8018ece1baa29a8f215b4495e495ded82bbf3c7",
    top: "curl-7.88.1",
};
const ABSEIL: Package = Package {
    name: "abseil",
    tarball: "abseil_20220623.1.orig.tar.gz",
    sha256: "abfe2897f3a30edaa74bc34365afe3c2a3cd012091a97dc7e008f7016adcd5fe",
    top: "abseil-20220623.1",
};
/// The crate that carries sqlite 3.46.0's amalgamation, and the sum of its `sqlite3.c`.
const SQLITE_CRATE: (&str, &str) = ("libsqlite3-sys", "0.30.1");
const SQLITE_SHA256: &str = "c01235302fe80da901fb70c7622c39147e29d9f29b7f6eb746b23517f320c90d";

/// Configuring without anything that the computer may or may not have installed.
const CURL_OPTIONS: &[&str] = &[
    "-DCURL_ENABLE_SSL=OFF",
    "-DCURL_USE_LIBSSH2=OFF",
    "-DCURL_USE_LIBPSL=OFF",
    "-DUSE_LIBIDN2=OFF",
    "-DCURL_DISABLE_LDAP=ON",
    "-DUSE_NGHTTP2=OFF",
    "-DCURL_ZLIB=OFF",
    "-DCURL_BROTLI=OFF",
    "-DCURL_ZSTD=OFF",
];

/// Where all corpora lie; what a lab hides from machines that are to compile without seeing them.
pub(crate) fn folder() -> PathBuf {
    match std::env::var_os("MESH_TEST_CORPORA") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpora"),
    }
}

impl Corpus {
    /// Fetches and configures it, if that was not done before; gives the folder of its sources.
    pub(crate) fn get(self) -> Result<PathBuf, String> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match self {
            Self::Lua => unpacked(&LUA),
            Self::Sqlite => sqlite(),
            Self::Curl => configured(&CURL, CURL_OPTIONS),
            Self::Abseil => configured(&ABSEIL, &["-DCMAKE_CXX_STANDARD=17"]),
        }
    }

    /// Its translation units, each as the project compiles it, but without `-O` and `-g`.
    pub(crate) fn units(self) -> Result<Vec<Unit>, String> {
        let sources = self.get()?;
        let plain = |folder: PathBuf, source: &str, flags: &str| Unit {
            folder,
            family: Family::C,
            flags: flags.split(' ').map(Into::into).collect(),
            source: source.into(),
        };
        let mut units = match self {
            Self::Lua => {
                let folder = sources.join("src");
                let names = std::fs::read_dir(&folder).map_err(|e| e.to_string())?;
                let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
                let flags = "-Wall -Wextra -std=gnu99 -DLUA_COMPAT_5_3 -DLUA_USE_LINUX";
                names.filter(|name| name.ends_with(".c")).map(|name| plain(folder.clone(), &name, flags)).collect()
            }
            Self::Sqlite => {
                let flags = "-DSQLITE_ENABLE_FTS5 -DSQLITE_ENABLE_RTREE -DSQLITE_THREADSAFE=1 -DHAVE_USLEEP=1";
                vec![plain(sources, "sqlite3.c", flags)]
            }
            Self::Curl | Self::Abseil => from_database(&sources.join("compile_commands.json"))?,
        };
        units.sort_by(|a, b| a.source.cmp(&b.source));
        units.dedup_by(|a, b| a.source == b.source);
        Ok(units)
    }
}

fn run(command: &mut Command, log: &Path) -> Result<(), String> {
    let said = std::fs::File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
    let again = said.try_clone().map_err(|e| e.to_string())?;
    let status = command.stdin(Stdio::null()).stdout(said).stderr(again).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}; see {}", log.display())),
        Err(e) => Err(format!("{command:?}: {e}")),
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn check_sum(file: &Path, sha256: &str) -> Result<(), String> {
    let output = Command::new("sha256sum").arg(file).output().map_err(|e| format!("sha256sum: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match said.split_whitespace().next() {
        Some(sum) if sum == sha256 => Ok(()),
        other => Err(format!("{} has the sum {other:?}, pinned is {sha256}", file.display())),
    }
}

/// The tarball of a package, fetched if need be, its sum checked.
fn tarball(package: &Package) -> Result<PathBuf, String> {
    let base = folder().join("debian");
    let path = base.join(package.tarball);
    if !path.exists() {
        for sub in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(base.join(sub)).map_err(|e| format!("{}: {e}", base.display()))?;
        }
        write(&base.join("sources.list"), &sources(Path::new("/etc/apt"))?)?;
        let apt = |log: &str, words: &[&str]| {
            let mut command = Command::new("apt-get");
            command.arg("-q").current_dir(&base);
            for (name, value) in
                [("Dir::Etc::sourcelist", "sources.list"), ("Dir::State::lists", "lists"), ("Dir::Cache", "cache")]
            {
                command.arg("-o").arg(format!("{name}={}", base.join(value).display()));
            }
            command.args([
                "-o",
                "Dir::Etc::sourceparts=-",
                "-o",
                "APT::Sandbox::User=root",
                "-o",
                "Acquire::Retries=3",
            ]);
            run(command.args(words), &base.join(log))
        };
        if !base.join("listed").exists() {
            apt("update.log", &["update"])?;
            write(&base.join("listed"), "")?;
        }
        apt(&format!("{}.log", package.name), &["source", "--download-only", package.name])?;
    }
    check_sum(&path, package.sha256)?;
    Ok(path)
}

/// The source packages of wherever this computer has its packages from, one line each. Signatures are not asked for: the
/// sums decide.
fn sources(apt: &Path) -> Result<String, String> {
    let mut files = vec![apt.join("sources.list")];
    files.extend(std::fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten().map(|e| e.path()));
    let mut out = String::new();
    for text in files.iter().filter_map(|file| std::fs::read_to_string(file).ok()) {
        for line in text.lines().map(str::trim) {
            let words: Vec<&str> =
                line.split_whitespace().filter(|w| !w.starts_with('[') && !w.ends_with(']')).collect();
            if let ["deb" | "deb-src", rest @ ..] = words.as_slice() {
                out.push_str(&format!("deb-src [trusted=yes] {}\n", rest.join(" ")));
            }
        }
        for stanza in text.split("\n\n") {
            let field = |name: &str| stanza.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim();
            for suite in field("Suites:").split_whitespace() {
                for uri in field("URIs:").split_whitespace() {
                    out.push_str(&format!("deb-src [trusted=yes] {uri} {suite} {}\n", field("Components:")));
                }
            }
        }
    }
    if out.is_empty() { Err("this computer names no place for packages".to_owned()) } else { Ok(out) }
}

fn unpacked(package: &Package) -> Result<PathBuf, String> {
    let out = folder().join(package.top);
    if !out.exists() {
        let tarball = tarball(package)?;
        // Unpacked beside and renamed, so that what is there is whole.
        let part = folder().join(format!("{}.part", package.top));
        let _ = std::fs::remove_dir_all(&part);
        std::fs::create_dir_all(&part).map_err(|e| format!("{}: {e}", part.display()))?;
        run(
            Command::new("tar").arg("xf").arg(&tarball).arg("--no-same-owner").arg("-C").arg(&part),
            &part.join("tar.log"),
        )?;
        std::fs::rename(part.join(package.top), &out).map_err(|e| format!("{}: {e}", out.display()))?;
        let _ = std::fs::remove_dir_all(&part);
    }
    Ok(out)
}

/// The folder that CMake configured, with the compile database.
fn configured(package: &Package, options: &[&str]) -> Result<PathBuf, String> {
    let sources = unpacked(package)?;
    let build = folder().join(format!("{}-build", package.top));
    if !build.join("configured").exists() {
        let _ = std::fs::remove_dir_all(&build);
        std::fs::create_dir_all(&build).map_err(|e| format!("{}: {e}", build.display()))?;
        let mut cmake = Command::new("cmake");
        cmake.args(["-G", "Ninja", "-S"]).arg(&sources).arg("-B").arg(&build);
        cmake.args(["-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF"]);
        cmake.args(options).env("CC", "gcc").env("CXX", "g++").env("LC_ALL", "C");
        run(&mut cmake, &folder().join(format!("{}-configure.log", package.top)))?;
        write(&build.join("configured"), "")?;
    }
    Ok(build)
}

fn sqlite() -> Result<PathBuf, String> {
    let (name, version) = SQLITE_CRATE;
    let project = folder().join("sqlite");
    let sources = project.join("vendor").join(name).join("sqlite3");
    if !project.join("fetched").exists() {
        let _ = std::fs::remove_dir_all(&project);
        std::fs::create_dir_all(project.join("src")).map_err(|e| format!("{}: {e}", project.display()))?;
        let manifest = format!(
            "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n\
             [dependencies]\n{name} = \"={version}\"\n"
        );
        write(&project.join("Cargo.toml"), &manifest)?;
        write(&project.join("src/lib.rs"), "")?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        run(Command::new(cargo).args(["vendor", "--quiet"]).current_dir(&project), &folder().join("sqlite.log"))?;
        check_sum(&sources.join("sqlite3.c"), SQLITE_SHA256)?;
        write(&project.join("fetched"), "")?;
    }
    Ok(sources)
}

/// The units of a compile database.
fn from_database(path: &Path) -> Result<Vec<Unit>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let database: Vec<serde_json::Value> =
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    database.iter().map(|entry| unit_of(entry).ok_or_else(|| format!("{}: {entry}", path.display()))).collect()
}

fn unit_of(entry: &serde_json::Value) -> Option<Unit> {
    let text = |name: &str| entry.get(name)?.as_str();
    let source = text("file")?;
    let mut flags = Vec::new();
    let mut words = shell_words(text("command")?).into_iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-o" => drop(words.next()),
            "-c" => {}
            flag if flag == source || flag.starts_with("-O") || flag.starts_with("-g") => {}
            _ => flags.push(word.into()),
        }
    }
    let family = if source.ends_with(".c") { Family::C } else { Family::Cxx };
    Some(Unit { folder: text("directory")?.into(), family, flags, source: source.into() })
}

/// Splits a command as a shell does: CMake quotes with backslashes and double quotes.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.extend(chars.next()),
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
                continue;
            }
            c => word.push(c),
        }
        begun = true;
    }
    if begun {
        words.push(word);
    }
    words
}

#[test]
fn a_database_s_command_becomes_a_unit() {
    let entry = serde_json::json!({
        "directory": "/b", "file": "/s/a b.c",
        "command": "/usr/bin/cc -DX=\\\"1\\\" \"-I/s/a b\" -O3 -g -std=gnu99 -o x/a.c.o -c \"/s/a b.c\"",
    });
    let unit = unit_of(&entry).unwrap();
    assert_eq!(unit.flags, ["-DX=\"1\"", "-I/s/a b", "-std=gnu99"]);
    assert_eq!((unit.family, unit.source.to_str(), unit.folder.to_str()), (Family::C, Some("/s/a b.c"), Some("/b")));
}
