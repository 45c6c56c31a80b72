//! `mesh down`: stops the agent and waits until it is gone (DO).

use super::{
    client::{Client, is_gone, places},
    failure::{Failure, NO_AGENT, TIMEOUT, out, told},
};
use crate::{
    agent::wire::{Ask, Tell},
    places::Places,
};
use std::time::{Duration, Instant};

/// An agent that was told to stop is gone within this time.
const STOP_TIME: Duration = Duration::from_secs(15);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(30);

pub(super) fn run() -> Result<u8, Failure> {
    out(match stop(&places()?)? {
        true => "mesh: stopped",
        false => "mesh: the agent was not running",
    });
    Ok(0)
}

/// Stops the agent; `false` if there was none. When it returns, the socket is closed and the agent's lock is free.
pub(super) fn stop(places: &Places) -> Result<bool, Failure> {
    let until = Instant::now() + STOP_TIME;
    let mut client = match Client::ask(places, &Ask::Stop, STOP_TIME) {
        Ok(client) => client,
        Err(e) if e.code == NO_AGENT => return Ok(false),
        Err(e) => return Err(e),
    };
    loop {
        match client.next() {
            Ok(Tell::Note(line)) => out(&format!("mesh: {}", told(&line))),
            Ok(_) => break,
            // It ended without another word.
            Err(e) if e.code == NO_AGENT => break,
            Err(e) if e.code == TIMEOUT => return Err(lingers()),
            Err(e) => return Err(e),
        }
    }
    while !(is_gone(places) && lock_is_free(places)) {
        if Instant::now() >= until {
            return Err(lingers());
        }
        std::thread::sleep(LOOK);
    }
    Ok(true)
}

fn lingers() -> Failure {
    Failure::coded(
        TIMEOUT,
        "the agent has not ended within 15 seconds. It may be finishing a job. Look again with: mesh status",
    )
}

/// Whether the agent's process has let go of its lock, so that the next one can start.
fn lock_is_free(places: &Places) -> bool {
    let Ok(file) = std::fs::File::open(places.lock()) else { return true };
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_ok()
}
