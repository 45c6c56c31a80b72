//! `mesh toolchain`: the compilers of this machine, who has them, and what is sent where (DO).

use super::{
    client::{ANSWER_TIME, Client, do_it, foreign, places},
    failure::{Failure, USAGE, out, out_raw, told},
};
use crate::{
    agent::wire::{Ask, Look, Tell},
    cli::{Output, Toolchain, ToolchainCommand, ToolchainList},
    places::Places,
    view::{
        rows::sanitised,
        snapshot::{ArrivalRow, ArrivalState, ToolchainRow, Toolchains},
        toolchains,
    },
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    time::Duration,
};

/// The names by which builds run compilers.
const USUAL_NAMES: &[&str] = &["gcc", "g++", "cc", "c++", "clang", "clang++"];
/// A compiler that is not known is asked some twenty questions, and a hundred megabytes of it are read.
const LOOK_TIME: Duration = Duration::from_secs(60);
/// The other machine describes its compilers within this time.
const WHY_TIME: Duration = Duration::from_secs(60);
/// Jobs that run end first, then files go.
const PRUNE_TIME: Duration = Duration::from_secs(120);
/// Longer than the agent waits for compilers to arrive.
const PUSH_TIME: Duration = Duration::from_secs(61 * 60);
/// Of a compiler that is coming, a line is printed when so much more of it is there, percent.
const PERCENT_STEP: u64 = 10;

pub(super) fn run(args: &Toolchain) -> Result<u8, Failure> {
    let places = places()?;
    match (&args.command, &args.why[..]) {
        (None, []) => list(&places, &args.list),
        (None, [peer, name @ ..]) => why(&places, peer, name.first().map(|name| &**name), args.list.json),
        (Some(ToolchainCommand::List(args)), _) => list(&places, args),
        (Some(ToolchainCommand::Show { name, json }), _) => show(&places, name, *json),
        (Some(ToolchainCommand::Push { name, to }), _) => push(&places, name.as_deref(), to.as_deref()),
        (Some(ToolchainCommand::Prune { all }), _) => prune(&places, *all),
    }
}

pub(super) fn wants_json(args: &Toolchain) -> bool {
    match &args.command {
        None => args.list.json,
        Some(ToolchainCommand::List(list)) => list.json,
        Some(ToolchainCommand::Show { json, .. }) => *json,
        Some(_) => false,
    }
}

fn list(places: &Places, args: &ToolchainList) -> Result<u8, Failure> {
    let all = known(places, None)?;
    if args.json {
        out(&toolchains::list_json(&all).to_string());
    } else {
        out_raw(&toolchains::list(&all, args.output == Some(Output::Wide)));
    }
    Ok(0)
}

fn known(places: &Places, look: Option<Look>) -> Result<Toolchains, Failure> {
    match Client::ask(places, &Ask::Toolchains { look }, LOOK_TIME)?.next()? {
        Tell::Toolchains(all) => Ok(*all),
        _ => Err(foreign()),
    }
}

/// The compilers that a person means, of which there is at least one: that which a build would run by this name from
/// here, else those that are called so.
fn named(places: &Places, typed: &OsStr) -> Result<Vec<ToolchainRow>, Failure> {
    let name = full(typed)?;
    let all = looked(places, &name)?;
    let rows = meant(&all, &name);
    if !rows.is_empty() {
        return Ok(rows);
    }
    let shown = sanitised(&typed.to_string_lossy());
    let is_meant = |program: &[u8]| program == name || program.rsplit(|b| *b == b'/').next() == Some(&name[..]);
    match all.refused.iter().find(|one| is_meant(&one.program)) {
        Some(one) => Err(Failure::new(format!("{shown} is not used as a compiler: {}", told(&one.why)))),
        None => Err(Failure::new(format!("no compiler is called {shown} here. See: mesh toolchain"))),
    }
}

/// What is known after the agent has looked at the program of this name.
fn looked(places: &Places, name: &[u8]) -> Result<Toolchains, Failure> {
    let path_var = std::env::var_os("PATH").unwrap_or_default().into_vec();
    let cwd = std::env::current_dir().unwrap_or_default().into_os_string().into_vec();
    known(places, Some(Look { program: name.to_vec(), cwd, path_var }))
}

fn meant(all: &Toolchains, name: &[u8]) -> Vec<ToolchainRow> {
    match all.known.iter().find(|row| Some(&row.id) == all.looked_at.as_ref()) {
        Some(row) => vec![row.clone()],
        None => toolchains::chosen(all, name).into_iter().cloned().collect(),
    }
}

/// A path from the root; a name as it is.
fn full(typed: &OsStr) -> Result<Vec<u8>, Failure> {
    if typed.is_empty() {
        return Err(Failure::coded(USAGE, "the name of a compiler is empty. Name one of: mesh toolchain"));
    }
    if !typed.as_bytes().contains(&b'/') {
        return Ok(typed.as_bytes().to_vec());
    }
    let path = std::path::absolute(typed);
    let path =
        path.map_err(|e| Failure::new(format!("the working directory cannot be told: {e}. Give a whole path")))?;
    Ok(path.into_os_string().into_vec())
}

fn show(places: &Places, name: &OsStr, json: bool) -> Result<u8, Failure> {
    let mut details = Vec::new();
    for row in named(places, name)? {
        match Client::ask(places, &Ask::Toolchain { id: row.id }, ANSWER_TIME)?.next()? {
            Tell::Toolchain(detail) => details.push(*detail),
            _ => return Err(foreign()),
        }
    }
    if json {
        out(&toolchains::details_json(&details).to_string());
    } else {
        let now_ms = crate::host::wall_ms();
        let shown: Vec<String> = details.iter().map(|detail| toolchains::detail(detail, now_ms)).collect();
        out_raw(&shown.join("\n"));
    }
    Ok(0)
}

fn why(places: &Places, peer: &OsStr, name: Option<&OsStr>, json: bool) -> Result<u8, Failure> {
    let ids = match name {
        Some(name) => named(places, name)?.into_iter().map(|row| row.id).collect(),
        None => Vec::new(),
    };
    let peer = peer.to_string_lossy().into_owned();
    let why = match Client::ask(places, &Ask::WhyNot { peer, ids }, WHY_TIME)?.next()? {
        Tell::WhyNot(why) => *why,
        _ => return Err(foreign()),
    };
    if json {
        out(&toolchains::why_json(&why).to_string());
    } else {
        out_raw(&toolchains::why(&why));
    }
    Ok(0)
}

fn push(places: &Places, name: Option<&OsStr>, to: Option<&str>) -> Result<u8, Failure> {
    let rows = match name {
        Some(name) => named(places, name)?,
        None => usual(places)?,
    };
    if rows.is_empty() {
        let text = "no compiler with a usual name is known here. Name one: mesh toolchain push /opt/x/bin/gcc";
        return Err(Failure::new(text));
    }
    let labels: HashMap<String, String> = rows.iter().map(|row| (row.id.clone(), what(row))).collect();
    let ask = Ask::Push { ids: rows.into_iter().map(|row| row.id).collect(), peer: to.map(str::to_owned) };
    let mut client = Client::ask(places, &ask, PUSH_TIME)?;
    let mut printed = HashMap::new();
    loop {
        match client.next()? {
            Tell::Arrivals(rows) => {
                for row in rows.iter().filter(|row| is_news(&mut printed, row)) {
                    out(&toolchains::arrival(labels.get(&row.id).unwrap_or(&row.id), row));
                }
            }
            Tell::Finished(_) => return Ok(0),
            _ => return Err(foreign()),
        }
    }
}

/// The compilers that builds run by their usual names.
fn usual(places: &Places) -> Result<Vec<ToolchainRow>, Failure> {
    let mut rows: Vec<ToolchainRow> = Vec::new();
    for name in USUAL_NAMES {
        let all = looked(places, name.as_bytes())?;
        let found = all.known.iter().find(|row| Some(&row.id) == all.looked_at.as_ref());
        rows.extend(found.filter(|found| rows.iter().all(|row| row.id != found.id)).cloned());
    }
    Ok(rows)
}

/// What a line of progress calls a compiler.
fn what(row: &ToolchainRow) -> String {
    format!("{} ({})", row.label, String::from_utf8_lossy(&row.driver))
}

/// Whether a line is worth printing: another state, or enough more of it.
fn is_news(printed: &mut HashMap<(String, String), ArrivalState>, row: &ArrivalRow) -> bool {
    let tenth = |state: &ArrivalState| match state {
        ArrivalState::Coming { have, of } => Some(toolchains::percent(*have, *of) / PERCENT_STEP),
        _ => None,
    };
    let key = (row.id.clone(), row.peer.clone());
    let is_news = printed.get(&key).is_none_or(|before| match (tenth(before), tenth(&row.state)) {
        (Some(before), Some(now)) => before != now,
        _ => *before != row.state,
    });
    if is_news {
        printed.insert(key, row.state.clone());
    }
    is_news
}

fn prune(places: &Places, all: bool) -> Result<u8, Failure> {
    let said = do_it(places, &Ask::Prune { all }, PRUNE_TIME, |note| out(&format!("mesh: {note}")))?;
    out(&format!("mesh: {said}"));
    Ok(0)
}
