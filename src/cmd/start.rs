//! Starts an agent in the background, detached from everything of the process that starts it (DO).

use crate::places::Places;
use std::{
    ffi::OsStr,
    fs::OpenOptions,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

/// While a marker of a start is younger than this, nobody else starts an agent.
const STARTING: Duration = Duration::from_secs(5);
/// What an agent's environment keeps of its starter's: places and locale, nothing of a build.
const KEPT: &[&str] = &[
    "HOME",
    "PATH",
    "USER",
    "LOGNAME",
    "LANG",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    crate::env::DIR,
    crate::env::SOCKET,
    crate::env::LOG,
    crate::env::MDNS_PORT,
    crate::env::LOOPBACK,
    crate::env::NAME,
    crate::env::SLOTS,
    crate::env::COMPILERS,
    crate::env::TOOLCHAIN_RATE,
    crate::env::PORT,
    crate::env::PEERS,
    crate::env::ADVERTISE,
    crate::env::CACHE,
    crate::env::CACHE_SIZE,
];

/// Makes a directory of mode 0700 with its parents, or checks that the one there belongs to this user and to no other.
///
/// # Errors
/// A sentence.
pub(crate) fn private_dir(dir: &Path) -> Result<(), String> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| format!("the directory {} cannot be made: {e}", dir.display()))?;
    let meta = std::fs::symlink_metadata(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let uid = rustix::process::geteuid().as_raw();
    if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o022 != 0 {
        return Err(format!(
            "{} is not a directory that only this user can write to. Another user may have made it. Remove it, or set \
             XDG_RUNTIME_DIR",
            dir.display()
        ));
    }
    Ok(())
}

/// Starts an agent unless somebody is doing so already. Does not wait for it.
pub(super) fn agent_in_background(places: &Places) {
    if private_dir(&places.runtime).is_err() {
        return;
    }
    let marker = places.starting_marker();
    let young = |meta: std::fs::Metadata| {
        let age = meta.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        age.is_some_and(|age| age < STARTING)
    };
    if std::fs::metadata(&marker).is_ok_and(young) {
        return;
    }
    let _ = std::fs::remove_file(&marker);
    if OpenOptions::new().write(true).create_new(true).mode(0o600).open(&marker).is_err() {
        return;
    }
    // An agent takes the marker away once it listens: one may have begun to since this launcher looked for it.
    if UnixStream::connect(&places.socket).is_ok() {
        let _ = std::fs::remove_file(&marker);
        return;
    }
    let Some(mesh) = mesh_program() else { return };
    let mut command = detached(&mesh);
    command.arg("agent").arg("--detach");
    let _ = command.status();
}

/// The `mesh` program: this one, or the one beside `mesh-cc`.
pub(super) fn mesh_program() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    let name = exe.file_name()?;
    Some(if name == OsStr::new("mesh") { exe } else { exe.with_file_name("mesh") })
}

/// A command with a clean environment, no terminal and the root as its directory.
pub(super) fn detached(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
