//! Keeps a machine that has mains from falling asleep for idleness while a build runs (DO).

use crate::{env, host::signals};
use std::process::{Child, Command, Stdio};

/// The inhibitor's program, where the system has one.
const PROGRAM: &str = "systemd-inhibit";

/// A process that keeps the machine awake, until this is dropped or this process ends, however it does.
#[derive(Debug)]
pub(super) struct Awake(Child);

impl Awake {
    /// Keeps it awake if it has mains and nobody has said otherwise. A machine where that cannot be had builds all the same.
    pub(super) fn hold() -> Option<Self> {
        if std::env::var_os(env::INHIBIT).is_some_and(|value| value == "0") || !signals::has_mains() {
            return None;
        }
        // What it runs ends with its input, which only this process has open: a killed one needs nobody to clean up.
        let mut command = Command::new(PROGRAM);
        command.args(["--what=idle", "--who=mesh", "--why=A build runs", "cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Not in the build's group: a key that the build survives must not end this.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().ok().map(Self)
    }

    /// The group that its processes are in: they are none of the build's.
    pub(super) fn group(&self) -> Option<i32> {
        i32::try_from(self.0.id()).ok()
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It may still wait for a bus that does not answer.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
