//! Roots for machines that are not the computer's own: one without any compiler, one of another release of Debian.
//!
//! Made once and kept beside the corpora. The packages come by `apt-get download` with the computer's own settings;
//! nothing is installed. Another release is put together by that package's `debootstrap`, a script that needs no place.

use crate::corpora;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// The release: the one after the oldest that mesh runs on, so that the programs built here run there too.
const RELEASE: &str = "trixie";
/// Its compiler, which no older release has.
pub(crate) const COMPILER: &str = "gcc-14";

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn folder() -> PathBuf {
    corpora::folder().join("roots")
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", said.trim())) }
}

/// What a package of the computer's own release holds, unpacked.
fn unpacked(name: &str) -> Result<PathBuf, String> {
    let place = folder().join(name);
    if place.join("whole").exists() {
        return Ok(place);
    }
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
    run(Command::new("apt-get").args(["-q", "-o", "APT::Sandbox::User=root", "download", name]).current_dir(&place))?;
    let files = std::fs::read_dir(&place).map_err(|e| e.to_string())?;
    let package = files.flatten().map(|file| file.path()).find(|path| path.extension().is_some_and(|e| e == "deb"));
    let package = package.ok_or_else(|| format!("{name} did not come"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&place))?;
    std::fs::write(place.join("whole"), "").map_err(|e| e.to_string())?;
    Ok(place)
}

fn make(path: &Path) -> Result<(), String> {
    std::fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    make(to.parent().unwrap_or(Path::new("/")))?;
    std::fs::copy(from, to).map(drop).map_err(|e| format!("{} to {}: {e}", from.display(), to.display()))
}

/// A root with busybox and the libraries that mesh is linked with, and nothing else: no compiler, no headers.
pub(crate) fn bare() -> Result<PathBuf, String> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let busybox = unpacked("busybox-static")?.join("bin/busybox");
    let root = folder().join("bare");
    for name in ["bin", "dev", "etc", "home", "proc", "run", "sys", "tmp", "usr"] {
        make(&root.join(name))?;
    }
    copy(&busybox, &root.join("bin/busybox"))?;
    for applet in ["sh", "cat", "cp", "env", "find", "id", "ls", "rm", "sleep", "timeout", "umount"] {
        let link = root.join("bin").join(applet);
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink("busybox", &link).map_err(|e| e.to_string())?;
        }
    }
    std::fs::write(root.join("etc/machine-id"), "").map_err(|e| e.to_string())?;
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/home/dev:/bin/sh\n").map_err(|e| e.to_string())?;
    let ldd = Command::new("ldd").arg(env!("CARGO_BIN_EXE_mesh")).output().map_err(|e| format!("ldd: {e}"))?;
    for word in String::from_utf8_lossy(&ldd.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(word), &root.join(&word[1..]))?;
    }
    Ok(root)
}

/// A small system of another release, with its own compiler.
pub(crate) fn other_release() -> Result<PathBuf, String> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let root = folder().join(RELEASE);
    let whole = root.with_extension("whole");
    if whole.exists() {
        return Ok(root);
    }
    let tool = unpacked("debootstrap")?;
    let _ = std::fs::remove_dir_all(&root);
    let mut debootstrap = Command::new("sh");
    debootstrap
        .arg(tool.join("usr/sbin/debootstrap"))
        .arg("--variant=minbase")
        .arg(format!("--include={COMPILER},libc6-dev"));
    debootstrap.arg(RELEASE).arg(&root).arg(mirror()?).env("DEBOOTSTRAP_DIR", tool.join("usr/share/debootstrap"));
    run(&mut debootstrap)?;
    std::fs::write(whole, "").map_err(|e| e.to_string())?;
    Ok(root)
}

/// The mirror that this computer's apt uses for Debian's own packages.
fn mirror() -> Result<String, String> {
    let said = Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]).output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let found = said.lines().find(|line| line.trim_end_matches('/').ends_with("/debian"));
    let found = found.ok_or("this computer's apt names no mirror of Debian")?;
    Ok(found.trim_end_matches('/').to_owned())
}
