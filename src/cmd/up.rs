//! `mesh up`: starts the agent, and makes a mesh or joins one if this machine is in none (DO).

use super::{
    client::{ANSWER_TIME, do_it, places, snapshot},
    failure::{Failure, NO_AGENT, complain, out, out_raw},
    join, start,
};
use crate::{
    agent::{Options, wire::Ask},
    cli::Up,
    config::Flags,
    places::Places,
    view::{
        rows::{compilers, count, sanitised},
        snapshot::Snapshot,
    },
};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// An agent listens within this time after it was started.
const START_TIME: Duration = Duration::from_secs(3);
/// A new agent is given this much longer to say which compilers it has; at its first start it looks at each for longer.
const COMPILERS_TIME: Duration = Duration::from_millis(700);
/// How long a new agent listens for meshes nearby before the person is asked anything.
const NEARBY_TIME: Duration = Duration::from_millis(1500);
/// Between two looks at the agent.
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn run(args: &Up) -> Result<u8, Failure> {
    let places = places()?;
    match snapshot(&places) {
        Ok(now) => {
            out(&format!("mesh: already running on {} (process {})", sanitised(&now.this.name), now.pid));
            member(&places, &args.name, asks())?;
            Ok(0)
        }
        Err(e) if e.code != NO_AGENT => Err(e),
        Err(_) if args.foreground => foreground(&places, &args.name),
        Err(_) => {
            // What is wrong with the configuration can be said here; the agent in the background speaks to nobody.
            super::agent::config(&places, Flags::default())?;
            let now = start_and_wait(&places)?;
            out(&started(&now));
            member(&places, &args.name, asks())?;
            Ok(0)
        }
    }
}

/// The agent in this process; a thread speaks to it as the command would.
fn foreground(places: &Places, name: &str) -> Result<u8, Failure> {
    let (there, name) = (places.clone(), name.to_owned());
    let speaker = move || {
        let spoken = wait(&there).and_then(|now| {
            out(&started(&now));
            member(&there, &name, false)
        });
        if let Err(failure) = spoken {
            complain(&failure.text);
        }
    };
    let thread = std::thread::Builder::new().spawn(speaker);
    thread.map_err(|e| Failure::new(format!("no thread could be started: {e}")))?;
    super::agent::foreground(places, Options { slots: None, port: None })
}

/// Starts an agent in the background and waits until it answers.
pub(super) fn start_and_wait(places: &Places) -> Result<Snapshot, Failure> {
    start::private_dir(&places.runtime).map_err(Failure::new)?;
    // A start that failed a moment ago must not keep a person from trying again; a second agent would see the first one.
    let _ = std::fs::remove_file(places.starting_marker());
    start::agent_in_background(places);
    wait(places)
}

/// Waits until the agent answers, and a little for it to know its compilers.
pub(super) fn wait(places: &Places) -> Result<Snapshot, Failure> {
    let mut until = Instant::now() + START_TIME;
    let mut answered = false;
    loop {
        match snapshot(places) {
            Ok(now) if !now.this.compilers.is_empty() || (answered && Instant::now() >= until) => return Ok(now),
            Ok(_) if !answered => {
                answered = true;
                until = Instant::now() + COMPILERS_TIME;
            }
            Err(e) if e.code != NO_AGENT => return Err(e),
            _ if Instant::now() >= until => {
                let text = "the agent did not start within 3 seconds. Run it in the foreground to see why: mesh agent";
                return Err(Failure::new(text));
            }
            _ => {}
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether a person sits here and can be asked.
pub(super) fn asks() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

pub(super) fn started(now: &Snapshot) -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut has = vec![count(cores as u64, "core")];
    has.extend(compilers(&now.this.compilers));
    if now.this.compilers.is_empty() {
        has.push("its compilers are being looked at".to_owned());
    }
    let mut text = format!("mesh: started on {} ({})", sanitised(&now.this.name), has.join(", "));
    if let Some(why) = &now.not_serving {
        text.push_str(&format!("\nmesh: it does not compile for others: {}", sanitised(why)));
    }
    text
}

/// Makes this machine a member of a mesh, if it is in none: by a code, if one is nearby and a person can be asked; else it
/// founds one.
pub(super) fn member(places: &Places, name: &str, asks: bool) -> Result<(), Failure> {
    if snapshot(places)?.mesh.is_some() {
        return Ok(());
    }
    let is_said = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if let Some(name) = [crate::env::JOIN, crate::env::JOIN_FILE].into_iter().find(|name| is_said(name)) {
        out(&format!("mesh: it joins by the token of {name}; mesh status says how far it is"));
        return Ok(());
    }
    if asks && is_nearby(places)? {
        out(NEARBY);
        while let Some(code) = prompt()? {
            match join::join(places, &code, false) {
                Ok(()) => return Ok(()),
                Err(e) => complain(&e.text),
            }
        }
    }
    do_it(places, &Ask::Found { name: name.to_owned() }, ANSWER_TIME, |note| out(&format!("mesh: {note}")))?;
    out(&founded(name));
    Ok(())
}

const NEARBY: &str =
    "mesh: a mesh is nearby. To join, run \"mesh pair\" on a machine that is in it and type the code here:";

fn founded(name: &str) -> String {
    format!(
        "mesh: no mesh yet on this machine; created \"{}\". Other machines join it with a code:\n\n      \
         on this machine:        mesh pair\n      \
         on the other machine:   mesh up, then mesh join <code>",
        sanitised(name)
    )
}

/// Discovery needs a moment after the start; an agent that has been running for long needs none.
fn is_nearby(places: &Places) -> Result<bool, Failure> {
    loop {
        let now = snapshot(places)?;
        if now.nearby > 0 {
            return Ok(true);
        }
        if now.uptime_ms >= u64::try_from(NEARBY_TIME.as_millis()).unwrap_or(u64::MAX) {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
}

/// A code, or nothing if the person wants a mesh of their own.
fn prompt() -> Result<Option<String>, Failure> {
    out_raw("Code (Enter to start a mesh of your own): ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| Failure::new(format!("no code could be read: {e}")))?;
    let line = line.trim();
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::snapshot::Machine;

    #[test]
    fn the_first_words_are_the_agreed_ones() {
        insta::assert_snapshot!(founded("home"), @r#"
        mesh: no mesh yet on this machine; created "home". Other machines join it with a code:

              on this machine:        mesh pair
              on the other machine:   mesh up, then mesh join <code>
        "#);
        let this = Machine {
            name: "thinkpad".to_owned(),
            compilers: vec!["gcc 14.2.1".to_owned(), "clang 19.1.7".to_owned()],
            ..Machine::default()
        };
        let now = Snapshot { this, not_serving: Some("user namespaces are off".to_owned()), ..Snapshot::default() };
        let text = started(&now);
        let cores = text.split(['(', ')']).nth(1).and_then(|has| has.split(' ').next()).expect("cores");
        assert!(cores.parse::<u32>().is_ok_and(|n| n > 0), "{text}");
        let early = started(&Snapshot::default());
        assert!(early.ends_with(", its compilers are being looked at)"), "{early}");
        insta::assert_snapshot!(text.replacen(&format!("({cores} cores"), "(8 cores", 1), @r"
        mesh: started on thinkpad (8 cores, gcc 14.2.1, clang 19.1.7)
        mesh: it does not compile for others: user namespaces are off
        ");
    }
}
