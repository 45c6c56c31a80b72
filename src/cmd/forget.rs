//! `mesh forget NAME`: puts a machine out of the mesh (DO).

use super::{
    client::{ANSWER_TIME, Client, foreign, places},
    failure::{Failure, USAGE, out, told},
};
use crate::{
    agent::wire::{Ask, Tell},
    cli::Forget,
    view::rows::sanitised,
};
use std::io::IsTerminal;

pub(super) fn run(args: &Forget) -> Result<u8, Failure> {
    let ask = |keeps| Ask::Forget { name: args.name.clone(), stolen: args.stolen, keeps };
    let Tell::Forgetting { name, id, admitted } = answer(&ask(None))? else { return Err(foreign()) };
    let name = sanitised(&name);
    out(&format!("{name} ({id}) will be refused by this machine at once and by the others as they hear of it."));
    // Whoever joined by a token goes with it.
    let mut keeps = !args.stolen && !args.name.starts_with("token:");
    let asks = std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && !args.yes;
    if !asks && !args.yes {
        return Err(Failure::coded(USAGE, format!("nobody can be asked here. To go on: mesh forget {name} --yes")));
    }
    if !admitted.is_empty() {
        let shown: Vec<String> = admitted.iter().map(|(who, role)| format!("{} ({role})", sanitised(who))).collect();
        let fate = if keeps { "They stay." } else { "They are forgotten with it." };
        out(&format!(
            "It admitted: {}.{}",
            shown.join(", "),
            if asks && keeps { String::new() } else { format!("  {fate}") }
        ));
        if asks && keeps {
            keeps = yes("Keep these? [Y/n] ", true)?;
        }
    }
    if asks && !yes(&format!("Forget {name}? [y/N] "), false)? {
        out("mesh: nothing was changed");
        return Ok(1);
    }
    match answer(&ask(Some(keeps)))? {
        Tell::Finished(line) => {
            out(&told(&line));
            Ok(0)
        }
        _ => Err(foreign()),
    }
}

fn answer(ask: &Ask) -> Result<Tell, Failure> {
    Client::ask(&places()?, ask, ANSWER_TIME)?.next()
}

/// Asks; an empty line is the usual answer.
fn yes(question: &str, usual: bool) -> Result<bool, Failure> {
    super::failure::out_raw(question);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| Failure::new(format!("no answer could be read: {e}")))?;
    Ok(match line.trim() {
        "" => usual && !line.is_empty(),
        word => word.eq_ignore_ascii_case("y") || word.eq_ignore_ascii_case("yes"),
    })
}
