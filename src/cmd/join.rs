//! `mesh join CODE`: makes this machine a member of the mesh whose code it is (DO).

use super::{
    client::{do_it, places, snapshot},
    failure::{Failure, USAGE, complain, out},
};
use crate::{
    agent::wire::Ask,
    cli::Join,
    config::is_address,
    places::Places,
    view::{
        rows::{compilers, count, sanitised},
        snapshot::{Machine, Snapshot},
    },
};
use mesh_proto::token::Token;
use std::time::{Duration, Instant};

/// Finding the other machine, proving the code and being admitted takes no longer.
const JOIN_TIME: Duration = Duration::from_secs(60);
/// How long the machines of the mesh are given to connect before they are counted.
const MEET_TIME: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn run(args: &Join) -> Result<u8, Failure> {
    let mut code = args.code.clone();
    if code == "-" {
        code.clear();
        std::io::stdin().read_line(&mut code).map_err(|e| Failure::new(format!("no code could be read: {e}")))?;
    }
    let places = places()?;
    if args.new_identity {
        // What is wrong with the code is said before anything is left.
        if Token::is_meant(&code) {
            Token::parse(&code).map_err(|e| Failure::coded(USAGE, e.to_string()))?;
        } else {
            parse(&code).map_err(|text| Failure::coded(USAGE, text))?;
        }
        super::renew::fresh(&places)?;
    }
    if Token::is_meant(&code) {
        if args.code != "-" {
            complain(
                "that token is in your shell's history now. Whoever reads it there can join: another time, mesh join - reads it",
            );
        }
        let ask = Ask::JoinByToken { text: code, leave: args.leave };
        let said = do_it(&places, &ask, JOIN_TIME, |note| out(&format!("mesh: {note}")))?;
        out(&format!("mesh: {}", met(&places).unwrap_or(said)));
        return Ok(0);
    }
    join(&places, &code, args.leave)?;
    Ok(0)
}

/// Joins, and says so.
pub(super) fn join(places: &Places, typed: &str, leave: bool) -> Result<(), Failure> {
    let (code, address) = parse(typed).map_err(|text| Failure::coded(USAGE, text))?;
    let ask = Ask::Join { code, address, leave };
    let said = do_it(places, &ask, JOIN_TIME, |note| out(&format!("mesh: {note}")))?;
    out(&format!("mesh: {}", met(places).unwrap_or(said)));
    Ok(())
}

/// The code in its normal form, and the address after `@`.
fn parse(typed: &str) -> Result<(String, Option<String>), String> {
    let typed = typed.trim();
    let (code, address) = match typed.split_once('@') {
        Some((code, address)) => (code, Some(address.trim().to_owned())),
        None => (typed, None),
    };
    if let Some(address) = address.as_ref().filter(|a| !is_address(a)) {
        return Err(format!(
            "\"{}\" is not an address. Write it as in: mesh join CODE@192.168.1.20",
            sanitised(address)
        ));
    }
    let words: Vec<String> =
        code.split(|c: char| c == '-' || c.is_whitespace()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect();
    let number = words.first().is_some_and(|w| w.bytes().all(|b| b.is_ascii_digit()));
    if words.len() != 3 || !number {
        return Err(format!(
            "\"{}\" is not a code. A code looks like 417-otter-maple; \"mesh pair\" on a machine of the mesh shows one",
            sanitised(code)
        ));
    }
    Ok((words.join("-"), address))
}

/// Who is there, once all have connected or had the time to.
fn met(places: &Places) -> Option<String> {
    let until = Instant::now() + MEET_TIME;
    loop {
        let now = snapshot(places).ok()?;
        let all = !now.peers.is_empty() && now.peers.iter().all(|p| p.connected);
        if all || Instant::now() >= until {
            return joined(&now);
        }
        std::thread::sleep(LOOK);
    }
}

fn joined(now: &Snapshot) -> Option<String> {
    let mesh = now.mesh.as_ref()?;
    let there = || std::iter::once(&now.this).chain(now.peers.iter().filter(|p| p.connected));
    // Slots, not cores: a machine may lend fewer, and usually takes a few more to hide the way.
    let slots: u64 = there().map(|m| u64::from(m.slots)).sum();
    let machines = 1 + now.peers.len() as u64;
    let mut text = format!("joined \"{}\". {}, {}.", sanitised(mesh), count(machines, "machine"), count(slots, "slot"));
    for compiler in compilers(&now.this.compilers) {
        let has = |p: &&Machine| p.connected && compilers(&p.compilers).contains(&compiler);
        let with = now.peers.iter().filter(has).count() as u64 + 1;
        let on = match with {
            1 => continue,
            2 if machines == 2 => "both".to_owned(),
            n if n == machines => format!("all {n}"),
            n => format!("{n} of them"),
        };
        text.push_str(&format!(" {compiler} matches on {on}."));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        for (typed, code, address) in [
            ("417-otter-maple", "417-otter-maple", None),
            (" 417 Otter  maple\n", "417-otter-maple", None),
            ("417-otter-maple@192.168.1.20", "417-otter-maple", Some("192.168.1.20")),
            ("417-otter-maple@[::1]:6374", "417-otter-maple", Some("[::1]:6374")),
        ] {
            assert_eq!(parse(typed), Ok((code.to_owned(), address.map(str::to_owned))), "{typed}");
        }
        let said = ["otter", "", "417-otter", "a-b-c", "417-otter-maple@", "417-otter-maple@a b"]
            .map(|typed| parse(typed).expect_err(typed));
        insta::assert_snapshot!(said.join("\n"), @r#"
        "otter" is not a code. A code looks like 417-otter-maple; "mesh pair" on a machine of the mesh shows one
        "" is not a code. A code looks like 417-otter-maple; "mesh pair" on a machine of the mesh shows one
        "417-otter" is not a code. A code looks like 417-otter-maple; "mesh pair" on a machine of the mesh shows one
        "a-b-c" is not a code. A code looks like 417-otter-maple; "mesh pair" on a machine of the mesh shows one
        "" is not an address. Write it as in: mesh join CODE@192.168.1.20
        "a b" is not an address. Write it as in: mesh join CODE@192.168.1.20
        "#);
    }

    fn machine(compilers: &[&str], slots: u16) -> Machine {
        let compilers = compilers.iter().map(ToString::to_string).collect();
        Machine { compilers, slots, connected: true, ..Machine::default() }
    }

    #[test]
    fn who_has_joined_is_told_what_it_gained() {
        let this = machine(&["gcc 14.2.1", "clang 19.1.7"], 24);
        let mesh = Some("home".to_owned());
        let two = Snapshot { this, mesh, peers: vec![machine(&["gcc 14.2.1"], 8)], ..Snapshot::default() };
        let mut three = two.clone();
        three.peers.push(machine(&["gcc 14.2.1", "clang 19.1.7"], 4));
        let alone = Snapshot { peers: vec![Machine::default()], ..two.clone() };
        let said = [&two, &three, &alone].map(|s| joined(s).expect("in a mesh"));
        insta::assert_snapshot!(said.join("\n"), @r#"
        joined "home". 2 machines, 32 slots. gcc 14.2.1 matches on both.
        joined "home". 3 machines, 36 slots. gcc 14.2.1 matches on all 3. clang 19.1.7 matches on 2 of them.
        joined "home". 2 machines, 24 slots.
        "#);
        assert_eq!(joined(&Snapshot::default()), None);
    }
}
