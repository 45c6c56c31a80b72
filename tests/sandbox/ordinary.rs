//! The whole suite once more as an ordinary user, for whom the sandbox stands on a user namespace.

use crate::world::{is_root, mesh, skip};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// An ordinary user and group, neither the system's nobody nor root.
const USER: u32 = 1000;

#[test]
fn everything_holds_as_an_ordinary_user() {
    if !is_root() {
        return skip("not root: the suite runs as an ordinary user already");
    }
    // The build directory may lie where other users cannot go.
    let dir = tempfile::tempdir().unwrap();
    let (suite, program) = (dir.path().join("suite"), dir.path().join("mesh"));
    std::fs::copy(std::env::current_exe().unwrap(), &suite).unwrap();
    std::fs::copy(mesh(), &program).unwrap();
    let own = dir.path().join("tmp");
    std::fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(USER), Some(USER)).unwrap();
    for path in [dir.path(), &suite, &program] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(&suite);
    command.args(["--skip", "ordinary::", "--test-threads=2"]).current_dir("/").uid(USER).gid(USER);
    // As root the standard library drops all groups with the user.
    command.env("MESH_TEST_BIN", &program).env("TMPDIR", &own).env("HOME", &own);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "as an ordinary user:\n{text}");
    for line in text.lines().filter(|line| line.starts_with("skipped")) {
        eprintln!("as an ordinary user: {line}");
    }
}
