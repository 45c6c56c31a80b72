//! `mesh local -- COMMAND`: something that is no compile, when this machine has room for it (DO).

use super::{
    client::{self, Client},
    failure::Failure,
};
use crate::{
    agent::wire::{Ask, Tell},
    cli::Local,
    places::Places,
};
use std::{io::ErrorKind, os::unix::ffi::OsStrExt, os::unix::process::CommandExt, process::Command, time::Duration};

/// After this time the command runs whatever the agent says; it says something sooner.
const WAIT_MAX: Duration = Duration::from_secs(330);
/// What a link needs, KiB.
const LINK_KIB: u64 = 1 << 20;
/// What a link needs that optimises all of the program, KiB.
const OPTIMISING_LINK_KIB: u64 = 4 << 20;

/// Waits for room and becomes the command. The connection stays open in it: however it ends, the agent sees it.
pub(super) fn run(args: &Local) -> Result<u8, Failure> {
    let (program, words) = args.command.split_first().expect("the command line has one word at least");
    let lto = words.iter().any(|word| word.as_bytes().starts_with(b"-flto"));
    let memory_kib = args.memory.unwrap_or(if lto { OPTIMISING_LINK_KIB } else { LINK_KIB });
    // Whatever goes wrong, the command runs.
    let held = client::places().ok().and_then(|places| lease(&places, memory_kib, program.as_bytes()));
    if let Some(client) = &held {
        client.outlive();
    }
    let error = Command::new(program).args(words).exec();
    let name = program.display();
    Err(match error.kind() {
        ErrorKind::NotFound => Failure::coded(127, format!("{name} was not found on PATH. Check the command")),
        ErrorKind::PermissionDenied => Failure::coded(126, format!("{name} cannot be executed. Check its permissions")),
        _ => Failure::new(format!("{name} could not be run: {error}")),
    })
}

/// Room for something that needs so much memory, or nothing if the agent does not answer or is not seen to live.
fn lease(places: &Places, memory_kib: u64, name: &[u8]) -> Option<Client> {
    if places.frozen_marker().exists() {
        return None;
    }
    let mut client = Client::ask(places, &Ask::Lease { memory_kib, name: name.to_vec() }, WAIT_MAX).ok()?;
    client.wait(places).ok()?;
    matches!(client.next(), Ok(Tell::Leased)).then_some(client)
}
