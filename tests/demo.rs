//! `mesh demo` for real: the main job of the product, in one command.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// The demonstration in a directory of its own for temporary files, as an ordinary user's or root's, whoever runs the test.
fn demo(temp: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command.arg("demo").env("TMPDIR", temp).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program is there")
}

/// A short path: sockets lie below it.
fn temp() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("m").tempdir_in("/tmp").expect("a directory")
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).expect("readable").next().is_none()
}

#[test]
fn the_demonstration_builds_everything_elsewhere_and_equal_and_leaves_nothing() {
    let temp = temp();
    let output = demo(temp.path()).wait_with_output().expect("it ends");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(is_empty(temp.path()), "files were left behind");
    if err.contains("cannot compile for others") || err.contains("no gcc or clang") {
        eprintln!("skipped: {err}");
        assert_ne!(std::env::var("MESH_TEST_NO_SKIP").as_deref(), Ok("1"), "skipped: {err}");
        assert_eq!(output.status.code(), Some(1), "what could not be shown is no success");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(out.contains("\nbytes      all equal: "), "{out}");
}

#[test]
fn an_interrupted_demonstration_takes_everything_down() {
    let temp = temp();
    let mut child = demo(temp.path());
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    // From this line on, files and agents come into being.
    assert!(lines.any(|line| line.is_ok_and(|line| line.starts_with("reference"))), "it did not begin");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    drop(lines);
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert!(is_empty(temp.path()), "files were left behind");
}
