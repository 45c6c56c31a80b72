//! `mesh with -- COMMAND`: a build that compiles on the whole mesh (DO).
//!
//! | file | what |
//! | --- | --- |
//! | `probe` | which tools the build has, and what CMake wrote down of its tree |
//! | `environment` | what the command finds in its environment (decide); `links` makes what stands first in its `PATH` |
//! | `pool` | the jobserver; how many tokens it has is [`crate::sched::tokens`]' to say |
//! | `attend` | the command, from its start to its end; `family` what descends from it |
//! | `awake` | keeps the machine from falling asleep meanwhile |
//! | `summary` | the line at the end (decide) |

mod attend;
mod awake;
mod environment;
mod family;
mod links;
mod pool;
mod probe;
mod summary;

use super::{
    client::{self, Client},
    failure::{Failure, UNWELL, complain},
    find,
};
use crate::{
    agent::wire::{Ask, SessionNow, Tell},
    cli::With,
    env,
    launch::names,
    places::Places,
    sched::{
        dispatch::Parallelism,
        tokens::{self, Told, Tool, Wanted},
    },
};
use environment::Parts;
use pool::Pool;
use std::{
    ffi::{OsStr, OsString},
    io::IsTerminal,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// The agent has this time to say how much room there is: a build waits for it once a second.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Jobs of cargo's for each core of this machine, at most, if no number was said: few of them can go elsewhere.
const CARGO_FOR_EACH_CORE: u32 = 2;

/// Who is asked how much a build may start.
#[derive(Debug, Clone)]
struct Adviser {
    places: Option<Places>,
    session: u64,
    /// No build is around this one.
    is_outer: bool,
    wanted: Wanted,
}

impl Adviser {
    /// What the agent knows of this build; nothing if there is no agent.
    fn session(&self) -> Option<SessionNow> {
        let ask = Ask::Session { session: self.session };
        match Client::ask(self.places.as_ref()?, &ask, ANSWER_TIME).and_then(|mut client| client.next()) {
            Ok(Tell::Session(now)) => Some(now),
            _ => None,
        }
    }

    /// How many processes the build should have now.
    fn total(&self) -> u32 {
        total(self.session(), self.wanted)
    }
}

fn total(now: Option<SessionNow>, wanted: Wanted) -> u32 {
    let now = now.unwrap_or_else(|| SessionNow { local: crate::host::cores(), ..SessionNow::default() });
    tokens::total(Parallelism { local: now.local, remote: now.remote, remote_free: 0 }, wanted)
}

pub(super) fn run(args: &With) -> Result<u8, Failure> {
    let began = Instant::now();
    let path_var = std::env::var_os("PATH").unwrap_or_else(|| names::PATH_DEFAULT.into());
    let cwd = super::cc::working_directory();
    let words: Vec<&[u8]> = args.command.iter().map(|word| word.as_bytes()).collect();
    let tool = Tool::of(&words);
    let tree = probe::tree(tool, &args.command, &cwd);
    // Launchers that ask nobody compile here, however much room there is elsewhere.
    let off = std::env::var_os(env::MESH).is_some_and(|mode| matches!(mode.as_bytes(), b"off" | b"local" | b"0"));
    let most = match args.jobs {
        Some(most) => most,
        // What cargo itself starts are compilers that run here.
        None if tool == Tool::Cargo => crate::host::cores().saturating_mul(CARGO_FOR_EACH_CORE),
        None => u32::MAX,
    };
    let wanted = Wanted { is_local: args.local || off, most };
    // A build within a build is a part of it: the outer one says what came of both.
    let outer = std::env::var_os(env::SESSION).map_or(0, |value| env::session(value.as_bytes()));
    let number = if outer == 0 { number() } else { outer };
    let adviser = Adviser { places: client::places().ok(), session: number, is_outer: outer == 0, wanted };
    let first = adviser.session();
    if std::io::stderr().is_terminal() {
        remarks(args, first, tree.as_ref());
    }
    let told = match std::env::var_os("CMAKE_BUILD_PARALLEL_LEVEL") {
        // A number of the user's own.
        Some(_) if tool == Tool::CmakeBuild => Told::Not,
        _ => tokens::told(tool, &words, &probe::look(tool, &args.command, &path_var, tree.as_ref())),
    };
    let pool = pool(told, adviser.places.as_ref())?;
    let mut command = command(&args.command, told, total(first, wanted));
    set_environment(&mut command, tool, args.local, &adviser, &path_var);
    if args.trusted_only {
        command.env(env::TRUSTED_ONLY, "1");
    }
    if let Some(pool) = &pool {
        let before = std::env::var_os("MAKEFLAGS").unwrap_or_default();
        command.env("MAKEFLAGS", pool.makeflags(&before));
    }
    let status = attend::run(command, pool, adviser.clone())?;
    let now = adviser.session().unwrap_or_default();
    let summary = std::env::var_os(env::SUMMARY);
    let speaks = summary.as_deref().map_or_else(|| std::io::stderr().is_terminal(), |value| value == "1");
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Some(line) = summary::line(&now, took_ms).filter(|_| speaks && outer == 0) {
        complain(&line);
    }
    let code = attend::exit_code(status);
    if let Some(least) = args.expect_remote.filter(|_| code == 0) {
        expect(&now, least.into())?;
    }
    Ok(code)
}

fn expect(now: &SessionNow, least: u64) -> Result<(), Failure> {
    let percent = summary::percent_elsewhere(now);
    if percent >= least {
        return Ok(());
    }
    let text = format!(
        "{percent} % of {} compiles ran elsewhere, and {least} % were expected. Why, for the last one: mesh explain",
        now.units
    );
    Err(Failure::coded(UNWELL, text))
}

/// What a person should know before the build begins.
fn remarks(args: &With, now: Option<SessionNow>, tree: Option<&probe::Tree>) {
    match now {
        _ if args.local => {}
        None => complain("the agent is not running, so this build runs on this machine alone. Start it with: mesh up"),
        Some(now) if !now.in_mesh => {
            complain("this machine is in no mesh, so this build runs on it alone. Run: mesh up, then mesh pair");
        }
        Some(_) => {
            if let Some(tree) = tree.filter(|tree| tree.compiles && !tree.has_launcher) {
                complain(&environment::advice(&tree.dir));
            }
        }
    }
}

/// A number that no other build of this user has.
fn number() -> u64 {
    let pid = u64::from(std::process::id());
    (crate::host::wall_ms() << 22 | pid & 0x3f_ffff).max(1)
}

fn pool(told: Told, places: Option<&Places>) -> Result<Option<Pool>, Failure> {
    let pool = match (told, places) {
        (Told::Fifo, Some(places)) => super::start::private_dir(&places.runtime)
            .map_err(std::io::Error::other)
            .and_then(|()| Pool::fifo(&places.runtime.join(format!("jobs-{}", std::process::id())))),
        (Told::Fifo | Told::Pipe, _) => Pool::pipe(),
        _ => return Ok(None),
    };
    pool.map(Some).map_err(|e| Failure::new(format!("no jobserver can be made: {e}")))
}

/// The command, with the number in it if its tool is told by one.
fn command(words: &[OsString], told: Told, total: u32) -> Command {
    let mut all = words.to_vec();
    match told {
        Told::Words { flag, apart: true, at } => {
            all.splice(at..at, [OsString::from(flag), total.to_string().into()]);
        }
        Told::Words { flag, apart: false, at } => all.insert(at, format!("{flag}{total}").into()),
        _ => {}
    }
    let mut command = Command::new(&all[0]);
    command.args(&all[1..]);
    if told == Told::Level {
        command.env("CMAKE_BUILD_PARALLEL_LEVEL", total.to_string());
    }
    command
}

fn set_environment(command: &mut Command, tool: Tool, alone: bool, adviser: &Adviser, path_var: &OsStr) {
    command.env(env::SESSION, adviser.session.to_string());
    let variables = match parts(adviser.places.as_ref(), path_var) {
        _ if alone => environment::alone(),
        Some(parts) => environment::variables(tool, &parts, path_var, |name| std::env::var_os(name).is_some()),
        None => Vec::new(),
    };
    for (name, value) in variables {
        command.env(name, value);
    }
}

/// Where mesh's parts are; none if the launcher is missing.
fn parts(places: Option<&Places>, path_var: &OsStr) -> Option<Parts> {
    let mesh = std::env::current_exe().ok()?;
    let launcher = mesh.with_file_name(names::MESH_CC);
    let names = links::names(path_var);
    let links =
        places.filter(|_| !names.is_empty()).and_then(|places| links::directory(&places.cache, &launcher, &names).ok());
    let is_there = find::is_own(&launcher) && Path::new(&mesh).is_file();
    is_there.then_some(Parts { mesh, launcher, links })
}
