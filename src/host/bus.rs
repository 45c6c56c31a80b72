//! What no file says, but services of a desktop do: whether its session is idle, and whether its network is paid by the
//! byte (DO).
//!
//! They are asked through systemd's own program for their bus, twice a minute at most, on a thread of its own: a service
//! that hangs keeps nobody waiting. A library for that bus would be larger than all that is asked. Where the program or the
//! bus is not there, nothing is said.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Asked so often at most, milliseconds.
const ASK_EVERY_MS: u64 = 30_000;
/// After a failure, so often.
const FAILED_EVERY_MS: u64 = 600_000;
/// An answer takes no longer.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Between two looks whether it has come.
const LOOK: Duration = Duration::from_millis(10);
/// An answer, bytes at most.
const ANSWER_BYTES_MAX: u64 = 4096;
/// Where the program may be, below the root.
const PROGRAMS: &[&str] = &["usr/bin/busctl", "run/current-system/sw/bin/busctl"];
/// The bus, below the root.
const SOCKET: &str = "run/dbus/system_bus_socket";

/// What the services said last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// When somebody last used the session, seconds since 1970; nothing if that is not known.
    pub(super) touched_s: Option<u64>,
    /// The network is paid by the byte, or is thought to be.
    pub(super) metered: bool,
}

#[derive(Debug, Default)]
struct State {
    said: Said,
    /// The session has been seen idle: where it never is, nobody may have told the service when it is.
    was_idle: bool,
    asking: bool,
    failed: bool,
}

/// Asks them.
#[derive(Debug)]
pub(super) struct Bus {
    program: Option<PathBuf>,
    asked_ms: Option<u64>,
    state: Arc<Mutex<State>>,
}

/// Which session manager's property, and which network manager's (their interfaces' own documentation: `sd-login` and
/// NetworkManager's D-Bus reference).
const IDLE: &[&str] = &[
    "org.freedesktop.login1",
    "/org/freedesktop/login1",
    "org.freedesktop.login1.Manager",
    "IdleHint",
    "IdleSinceHint",
];
const METERED: &[&str] =
    &["org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager", "Metered"];

impl Bus {
    /// The one below this root, if there is one.
    #[must_use]
    pub(super) fn new(root: &Path) -> Self {
        let program = PROGRAMS.iter().map(|program| root.join(program)).find(|program| program.exists());
        let program = program.filter(|_| root.join(SOCKET).exists());
        Self { program, asked_ms: None, state: Arc::default() }
    }

    /// What was said last. Asks anew, beside the caller, if that is long ago by the caller's clock, milliseconds; `wall_s` is
    /// the wall's, seconds since 1970.
    pub(super) fn look(&mut self, now_ms: u64, wall_s: u64) -> Said {
        let Some(program) = &self.program else { return Said::default() };
        let mut state = self.state.lock().expect("no panic while held");
        let pause = if state.failed { FAILED_EVERY_MS } else { ASK_EVERY_MS };
        let due = self.asked_ms.is_none_or(|at| now_ms.saturating_sub(at) >= pause);
        if due && !state.asking {
            self.asked_ms = Some(now_ms);
            let (program, shared) = (program.clone(), self.state.clone());
            let asker = std::thread::Builder::new().name("bus".to_owned());
            state.asking = asker.spawn(move || ask(&program, wall_s, &shared)).is_ok();
        }
        state.said
    }
}

fn ask(program: &Path, wall_s: u64, shared: &Mutex<State>) {
    let (idle, metered) = (answer(program, IDLE), answer(program, METERED));
    let mut state = shared.lock().expect("no panic while held");
    state.asking = false;
    state.failed = idle.is_none() && metered.is_none();
    let (is_idle, since_s) = idle.as_deref().map_or((None, None), session);
    state.was_idle |= is_idle == Some(true);
    state.said.touched_s = match is_idle {
        Some(true) => since_s,
        // It says so of a session that nobody ever calls idle, too.
        Some(false) => state.was_idle.then_some(wall_s),
        None => None,
    };
    state.said.metered = metered.as_deref().is_some_and(is_metered);
}

/// What the program says to a question; nothing if it fails or takes too long.
fn answer(program: &Path, question: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    // No service is started for the question.
    command.args(["--system", "--auto-start=no", "get-property"]).args(question);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let began = Instant::now();
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if began.elapsed() < ANSWER_TIME => std::thread::sleep(LOOK),
            Ok(None) | Err(_) => break false,
        }
    };
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    let mut text = String::new();
    child.stdout.take()?.take(ANSWER_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether the session is idle, and since when, seconds since 1970: `b true` and `t` with microseconds, a line each.
fn session(text: &str) -> (Option<bool>, Option<u64>) {
    let value = |kind: &str| text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
    let idle = value("b").and_then(|word| word.trim().parse().ok());
    let since = value("t").and_then(|word| word.trim().parse::<u64>().ok());
    (idle, since.filter(|us| *us > 0).map(|us| us / 1_000_000))
}

/// `NMMetered`: 1 is yes, 3 is thought to be.
fn is_metered(text: &str) -> bool {
    matches!(text.trim(), "u 1" | "u 3")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A root with a program that answers so.
    fn root(script: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in [PROGRAMS[0], SOCKET] {
            std::fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(root.path().join(path), format!("#!/bin/sh\n{script}\n")).unwrap();
        }
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(root.path().join(PROGRAMS[0]), executable).unwrap();
        root
    }

    /// Asks, and waits for the answer.
    fn asked(bus: &mut Bus, now_ms: u64, wall_s: u64) -> Said {
        bus.look(now_ms, wall_s);
        let end = Instant::now() + 5 * ANSWER_TIME;
        while bus.state.lock().unwrap().asking && Instant::now() < end {
            std::thread::sleep(LOOK);
        }
        bus.look(now_ms, wall_s)
    }

    #[test]
    fn a_session_that_is_called_idle_was_used_when_it_says_and_one_that_no_longer_is_is_used_now() {
        let root = root("case \"$*\" in *login1*) cat \"$0.idle\" ;; *) echo 'u 4' ;; esac");
        let say = |text: &str| std::fs::write(root.path().join("usr/bin/busctl.idle"), text).unwrap();
        let mut bus = Bus::new(root.path());
        say("b false\nt 0\n");
        assert_eq!(asked(&mut bus, 0, 1000), Said::default(), "nobody may ever call it idle");
        say("b true\nt 900000000\n");
        assert_eq!(asked(&mut bus, ASK_EVERY_MS - 1, 1029).touched_s, None, "not asked again so soon");
        assert_eq!(asked(&mut bus, ASK_EVERY_MS, 1030).touched_s, Some(900));
        say("b false\nt 0\n");
        assert_eq!(asked(&mut bus, 2 * ASK_EVERY_MS, 1060).touched_s, Some(1060));
    }

    #[test]
    fn a_network_that_is_or_is_thought_to_be_metered_is() {
        for (answer, metered) in [("u 0", false), ("u 1", true), ("u 2", false), ("u 3", true), ("u 4", false)] {
            let root = root(&format!("case \"$*\" in *NetworkManager*) echo '{answer}' ;; *) exit 1 ;; esac"));
            assert_eq!(asked(&mut Bus::new(root.path()), 0, 0), Said { touched_s: None, metered }, "{answer}");
        }
    }

    #[test]
    fn a_bus_that_hangs_or_is_not_there_says_nothing_and_keeps_nobody_waiting() {
        let root = root("exec sleep 60");
        let mut bus = Bus::new(root.path());
        let began = Instant::now();
        bus.look(0, 0);
        assert!(began.elapsed() < ANSWER_TIME);
        assert_eq!(asked(&mut bus, 1, 0), Said::default());
        assert!(bus.state.lock().unwrap().failed);
        std::fs::remove_file(root.path().join(SOCKET)).unwrap();
        assert!(Bus::new(root.path()).program.is_none());
    }
}
