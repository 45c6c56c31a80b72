//! `mesh taint NAME`: nothing that a machine has made is used any more (DO).

use super::{
    client::{ANSWER_TIME, Client, foreign, places},
    explain::relative,
    failure::{Failure, out},
};
use crate::{
    agent::wire::{Ask, Tell},
    cli::Taint,
    view::{rows, time},
};

pub(super) fn run(args: &Taint) -> Result<u8, Failure> {
    let ask = Ask::Taint { name: args.name.clone() };
    let Tell::Tainted { name, made } = Client::ask(&places()?, &ask, ANSWER_TIME)?.next()? else {
        return Err(foreign());
    };
    if args.json {
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let made: Vec<_> = made
            .iter()
            .map(|(output, at)| serde_json::json!({ "output": text(output), "ended": time::rfc3339(*at) }))
            .collect();
        out(&serde_json::json!({ "schema": 1, "machine": name, "made": made }).to_string());
        return Ok(0);
    }
    let name = rows::sanitised(&name);
    out(&format!("kept results that {name} made until now are not used any more."));
    if made.is_empty() {
        out("Of the units that this agent remembers it has made none.");
        return Ok(0);
    }
    out(&format!(
        "It made {} of those that this agent remembers. Compile them again, for they may be wrong:",
        rows::count(made.len() as u64, "unit")
    ));
    let (cwd, now) = (super::cc::working_directory(), crate::host::wall_ms());
    for (output, at) in &made {
        out(&format!("  {}  {}", rows::sanitised(&relative(&cwd, output)), time::ago(*at, now)));
    }
    Ok(0)
}
