//! `mesh agent`: the agent in the foreground, or started in the background (DO).

use super::{
    client::places,
    failure::{Failure, complain},
    start,
};
use crate::{
    agent::{Ended, Options},
    cli::Agent,
    config::{Config, Flags, resolve},
    places::Places,
};
use std::{os::unix::process::CommandExt, process::Command};

pub(super) fn run(args: &Agent) -> Result<u8, Failure> {
    if args.detach {
        return detach(args);
    }
    foreground(&places()?, Options { slots: args.slots, port: args.port })
}

/// Runs the agent until it ends.
pub(super) fn foreground(places: &Places, options: Options) -> Result<u8, Failure> {
    let config = config(places, Flags { slots: options.slots, port: options.port })?;
    crate::observe::start(std::env::var(crate::env::LOG).ok().as_deref());
    match crate::agent::run(places, config, options).map_err(|e| Failure::new(sentence(&e.into())))? {
        Ended::Stopped => Ok(0),
        Ended::ToBeginAnew => Err(begin_anew(options)),
    }
}

/// Becomes the agent once more, as the same process: whoever looks after it sees none end.
fn begin_anew(options: Options) -> Failure {
    let Some(mesh) = start::mesh_program() else { return Failure::new("the mesh program cannot find itself") };
    let mut command = Command::new(&mesh);
    command.arg("agent");
    add_numbers(&mut command, options);
    let error = command.exec();
    Failure::new(format!("{} could not be started: {error}", mesh.display()))
}

/// An error's causes, three at most.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().take(3).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The settings; what is odd about the file is said once, here.
pub(super) fn config(places: &Places, flags: Flags) -> Result<Config, Failure> {
    let path = places.config.join("config.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(Failure::new(format!("the configuration {} cannot be read: {e}", path.display()))),
    };
    let (config, warnings) = resolve(flags, |name| std::env::var_os(name), text.as_deref())
        .map_err(|e| Failure::new(format!("the configuration does not hold: {e}. Change {}", path.display())))?;
    for warning in warnings {
        complain(&warning);
    }
    Ok(config)
}

/// Becomes the leader of a session of its own, starts the agent in it and returns at once: the caller's terminal, process
/// group and pipes are then nothing to the agent. (A build tool that waits for its pipes to close would wait for ever.)
fn detach(args: &Agent) -> Result<u8, Failure> {
    // Fails only for the leader of a process group, which then is detached by being started alone.
    let alone = rustix::process::setsid().is_ok();
    let mesh = start::mesh_program().ok_or_else(|| Failure::new("the mesh program cannot find itself"))?;
    let mut command = start::detached(&mesh);
    command.arg("agent");
    add_numbers(&mut command, Options { slots: args.slots, port: args.port });
    if !alone {
        command.process_group(0);
    }
    crate::sandbox::close_inherited_descriptors();
    let child = command.spawn().map_err(|e| Failure::new(format!("{} could not be started: {e}", mesh.display())))?;
    // It lives longer than this process, which nobody waits on.
    drop(child);
    Ok(0)
}

fn add_numbers(command: &mut Command, options: Options) {
    for (option, value) in [("--slots", options.slots.map(u32::from)), ("--port", options.port.map(u32::from))] {
        if let Some(value) = value {
            command.arg(option).arg(value.to_string());
        }
    }
}
