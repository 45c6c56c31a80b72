//! `mesh install` and `mesh uninstall`, as files and, where systemd runs, for real.

use crate::{Place, Ran, ran};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Says that a test did not run. No failure even where no other test may be left out: a service manager for a user is
/// nothing that a test machine can be made to have.
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// A home with compilers on a `PATH` of its own, where no service manager can be reached.
fn home(place: &Place) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let home = place.dir.path().join("home");
    std::fs::create_dir_all(home.join("bin")).unwrap();
    for name in ["gcc", "g++"] {
        std::fs::write(home.join("bin").join(name), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(home.join("bin").join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    home
}

fn at_home(place: &Place, words: &[&str]) -> Ran {
    let home = home(place);
    let mut command = place.command(words);
    command.env("HOME", &home).env("PATH", home.join("bin")).env_remove("XDG_DATA_HOME");
    ran(command)
}

/// Every path below a directory, sorted.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            all.extend(below(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}

#[test]
fn install_print_shows_everything_and_changes_nothing() {
    let place = Place::empty();
    let links = home(&place).join("links");
    let before = below(place.dir.path());
    let ran = at_home(&place, &["install", "--print", "--links", links.to_str().unwrap()]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let program = Path::new(env!("CARGO_BIN_EXE_mesh")).parent().unwrap().to_str().unwrap();
    let shown = ran.out.replace(place.dir.path().to_str().unwrap(), "DIR").replace(program, "BIN");
    let pages = shown.split_once("mesh.1 and ").and_then(|(_, rest)| rest.split_once(" pages")).map(|(count, _)| count);
    assert!(pages.is_some_and(|count| count.parse::<u32>().is_ok_and(|count| count > 30)), "{shown}");
    let shown = shown.replace(&format!("and {} pages", pages.unwrap()), "and N pages");
    insta::assert_snapshot!(shown, @r#"
    # would write DIR/home/.config/systemd/user/mesh.service
    # Written by "mesh install"; "mesh uninstall" removes it.
    [Unit]
    Description=mesh build agent
    StartLimitIntervalSec=0

    [Service]
    Type=exec
    ExecStart="BIN/mesh" agent
    Environment="MESH_DIR=DIR"
    Environment="PATH=DIR/home/bin"
    Restart=on-failure
    RestartSec=2
    TimeoutStopSec=35
    KillMode=mixed
    Delegate=cpu io memory pids
    CPUWeight=20
    IOWeight=20
    OOMPolicy=continue
    TasksMax=4096
    LimitNOFILE=65536
    UMask=0077
    NoNewPrivileges=yes

    [Install]
    WantedBy=default.target

    # would make the links
    DIR/home/links/gcc -> BIN/mesh-cc
    DIR/home/links/g++ -> BIN/mesh-cc

    # would write its manual and completions
    DIR/home/.local/share/bash-completion/completions/mesh
    DIR/home/.local/share/zsh/site-functions/_mesh
    DIR/home/.local/share/fish/vendor_completions.d/mesh.fish
    DIR/home/.local/share/man/man1/mesh.1 and N pages beside it, one for each command

    # would run, if a service manager ran for this user
    systemctl --user daemon-reload
    systemctl --user enable --now mesh.service
    "#);
    assert_eq!(below(place.dir.path()), before);
}

#[test]
fn uninstall_undoes_exactly_what_install_did() {
    let place = Place::empty();
    let home = home(&place);
    std::fs::create_dir_all(home.join(".config/systemd/user")).unwrap();
    std::fs::create_dir(place.dir.path().join("state")).unwrap();
    std::fs::write(home.join(".config/systemd/user/other.service"), "").unwrap();
    let before = below(place.dir.path());
    let links = home.join("links");
    for _ in 0..2 {
        let ran = at_home(&place, &["install", "--links", links.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.contains("no service manager runs for this user here"), "{}", ran.out);
    }
    let unit = std::fs::read_to_string(home.join(".config/systemd/user/mesh.service")).unwrap();
    assert!(unit.contains(&format!("ExecStart=\"{}\" agent\n", env!("CARGO_BIN_EXE_mesh"))), "{unit}");
    let masked = Command::new(links.join("gcc")).env_clear().env("PATH", home.join("bin")).env("MESH", "off").status();
    assert!(masked.unwrap().success(), "the link runs the gcc behind it");
    let manual = home.join(".local/share/man/man1");
    assert!(manual.join("mesh.1").is_file() && manual.join("mesh-forget.1").is_file());
    assert!(home.join(".local/share/bash-completion/completions/mesh").is_file());
    let ran = at_home(&place, &["uninstall"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(below(place.dir.path()), before);
    assert_eq!(at_home(&place, &["uninstall"]).out, "mesh: nothing is installed\n");
}

#[test]
fn install_replaces_no_file_that_is_not_meshs() {
    let place = Place::empty();
    let unit = home(&place).join(".config/systemd/user/mesh.service");
    std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
    std::fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    let ran = at_home(&place, &["install"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.ends_with("mesh.service is there and not by mesh. Move it away first\n"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&unit).unwrap(), "[Service]\nExecStart=/bin/true\n");
    let bin = home(&place).join("bin");
    let ran = at_home(&place, &["install", "--links", bin.to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("is there already and is not mesh's"), "{}", ran.err);
}

#[test]
fn systemd_understands_every_line_of_the_unit() {
    let place = Place::empty();
    let unit = home(&place).join(".config/systemd/user/mesh.service");
    assert_eq!(at_home(&place, &["install"]).code, 0);
    let mut verify = Command::new("systemd-analyze");
    verify.args(["--user", "verify"]).arg(&unit).env("XDG_RUNTIME_DIR", place.dir.path());
    match verify.output() {
        Ok(output) if !String::from_utf8_lossy(&output.stderr).contains("Failed to initialize") => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("mesh.service"), "{said}");
        }
        other => skipped(&format!("systemd-analyze cannot verify units here ({other:?})")),
    }
}

/// In the real home, because systemd looks nowhere else; only where nobody has installed mesh.
#[test]
fn systemd_starts_the_agent_and_stops_it() {
    let systemctl = |words: &[&str]| Command::new("systemctl").arg("--user").args(words).output();
    if !systemctl(&["show-environment"]).is_ok_and(|o| o.status.success()) {
        skipped("systemd runs for no user here");
        return;
    }
    if systemctl(&["cat", "mesh.service"]).is_ok_and(|o| o.status.success()) {
        skipped("mesh is installed for this user");
        return;
    }
    let place = Place::empty();
    let mesh = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
        command.args(words).env("MESH_DIR", place.dir.path()).stdin(Stdio::null());
        ran(command)
    };
    let installed = mesh(&["install"]);
    let status = mesh(&["status"]);
    let active = systemctl(&["is-active", "mesh.service"]).unwrap();
    let removed = mesh(&["uninstall"]);
    assert_eq!(installed.code, 0, "{installed:?}");
    assert!(status.out.contains(" in \"home\"\n"), "{status:?}");
    assert_eq!(active.stdout, b"active\n");
    assert_eq!(removed.code, 0, "{removed:?}");
    assert_eq!(mesh(&["status"]).code, 3);
    assert!(!systemctl(&["cat", "mesh.service"]).unwrap().status.success());
}
