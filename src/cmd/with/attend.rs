//! The build's command, from its start to its end (DO).

use super::{
    Adviser,
    awake::Awake,
    family::{Family, family},
    pool::Pool,
};
use crate::cmd::failure::{FAILED, Failure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};

/// The program is not there (POSIX shells' status for it).
const EXIT_NOT_FOUND: u8 = 127;
/// It cannot be executed.
const EXIT_NOT_EXECUTABLE: u8 = 126;
/// A shell's status for a program that was ended by a signal, to which the signal's number is added.
const EXIT_SIGNAL: u8 = 128;
/// Tokens follow the mesh this often.
const FOLLOW: Duration = Duration::from_secs(1);
/// Of that time, tokens that are too many are waited for so long; between two tries of which only other processes had
/// something, so long nothing is done.
const COLLECT: Duration = Duration::from_millis(900);
const COLLECT_PAUSE: Duration = Duration::from_millis(2);
/// What a command that was killed has left running is told to end, and has this time for it.
const END_TIME: Duration = Duration::from_secs(2);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// Runs the command to its end. What interrupts this process is the command's to answer: a terminal tells both, and what
/// comes to this one alone is handed on.
pub(super) fn run(command: Command, pool: Option<Pool>, adviser: Adviser) -> Result<ExitStatus, Failure> {
    // Asked for beside the build, which does not wait for it, and given up before anything else happens.
    let awake = adviser.is_outer.then(Awake::hold).flatten();
    let apart = awake.as_ref().and_then(Awake::group);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(format!("the command cannot be attended to: {e}")))?;
    let name = command.get_program().to_owned();
    let named = pool.as_ref().and_then(Pool::named);
    let status = runtime.block_on(attend(command, pool, adviser, apart));
    drop(awake);
    // A question to an agent that does not answer is not waited for, and who asks it may hold the pool.
    runtime.shutdown_background();
    if let Some(path) = named {
        let _ = std::fs::remove_file(path);
    }
    status.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            let text = format!("{} was not found on PATH. Check the command after mesh with --", name.display());
            Failure::coded(EXIT_NOT_FOUND, text)
        }
        io::ErrorKind::PermissionDenied => {
            Failure::coded(EXIT_NOT_EXECUTABLE, format!("{} cannot be executed. Check its permissions", name.display()))
        }
        _ => Failure::coded(FAILED, format!("{} could not be run: {e}", name.display())),
    })
}

async fn attend(
    command: Command,
    mut pool: Option<Pool>,
    adviser: Adviser,
    apart: Option<i32>,
) -> io::Result<ExitStatus> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    adopt();
    if let Some(pool) = &mut pool {
        pool.aim(adviser.total());
    }
    let mut child = tokio::process::Command::from(command).spawn()?;
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(pool) = &pool {
        pool.inherited();
    }
    let pool = Arc::new(Mutex::new(pool));
    let hand_on = |signal| {
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    };
    let mut tick = tokio::time::interval(FOLLOW);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            _ = interrupt.recv() => if !is_in_foreground() { hand_on(Signal::INT) },
            _ = quit.recv() => if !is_in_foreground() { hand_on(Signal::QUIT) },
            _ = terminate.recv() => hand_on(Signal::TERM),
            _ = hang_up.recv() => hand_on(Signal::HUP),
            _ = tick.tick() => {
                let (pool, adviser) = (pool.clone(), adviser.clone());
                // Not waited for: the build may end meanwhile. Two at once only wait for each other.
                tokio::task::spawn_blocking(move || follow(&pool, &adviser, pid, apart));
            }
        }
    };
    if status.signal().is_some() {
        end_what_is_left().await;
    }
    Ok(status)
}

/// Whether a terminal's keys reach this process, and so the command as well. What comes otherwise came to this one alone.
fn is_in_foreground() -> bool {
    let (input, out, err) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let group = rustix::termios::tcgetpgrp(&input)
        .or_else(|_| rustix::termios::tcgetpgrp(&err))
        .or_else(|_| rustix::termios::tcgetpgrp(&out));
    group == Ok(rustix::process::getpgrp())
}

/// Has as many tokens as the mesh has room for now.
fn follow(pool: &Mutex<Option<Pool>>, adviser: &Adviser, child: Option<Pid>, apart: Option<i32>) {
    // The one before still waits for an agent that does not answer.
    let Ok(mut pool) = pool.try_lock() else { return };
    let before = pool.as_ref().map_or(0, Pool::out);
    let descendants = family(apart);
    bury(descendants.as_ref(), child);
    let Some(pool) = pool.as_mut() else { return };
    pool.aim(adviser.total());
    if let Some(family) = descendants {
        pool.restore(before.min(pool.out()), family.holders);
    }
    // A client that gives a token back takes one again at once: whoever only looks now and then gets none.
    let until = Instant::now() + COLLECT;
    while pool.collect()
        && let Some(left) = until.checked_duration_since(Instant::now())
    {
        pool.wait(left);
        if pool.collect() {
            std::thread::sleep(COLLECT_PAUSE);
        }
    }
}

/// What loses its parent becomes this process's child and not somebody else's: so it is known what a killed command leaves.
fn adopt() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Descendants that have ended and have no other parent any more are seen off.
fn bury(family: Option<&Family>, child: Option<Pid>) {
    let ended = family.into_iter().flat_map(|family| &family.in_group).filter(|(_, ended)| *ended);
    for pid in ended.filter_map(|(pid, _)| Pid::from_raw(*pid)).filter(|pid| Some(*pid) != child) {
        // Others' children are not found, and stay theirs.
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Ends what a command that was killed has left running, if the system tells what that is.
async fn end_what_is_left() {
    let until = Instant::now() + END_TIME;
    let mut told = Vec::new();
    while let Some(family) = family(None) {
        bury(Some(&family), None);
        let left: Vec<i32> = family.in_group.iter().filter(|(_, ended)| !ended).map(|(pid, _)| *pid).collect();
        let is_late = Instant::now() >= until;
        let signal = if is_late { Signal::KILL } else { Signal::TERM };
        for pid in left.iter().filter(|pid| is_late || !told.contains(*pid)) {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = kill_process(pid, signal);
            }
        }
        if left.is_empty() || is_late {
            return;
        }
        told = left;
        tokio::time::sleep(LOOK).await;
    }
}

/// The command's exit code; ended by a signal, this process ends by it, too.
pub(super) fn exit_code(status: ExitStatus) -> u8 {
    let Some(signal) = status.signal() else {
        return status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED);
    };
    // This process still catches what it handed on; the shell that it becomes does not, and dies as the command did.
    let script = format!("ulimit -c 0; kill -{signal} $$");
    let _ = Command::new("/bin/sh").args(["-c", &script]).exec();
    EXIT_SIGNAL.saturating_add(u8::try_from(signal).unwrap_or(0))
}
