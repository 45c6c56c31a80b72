//! What a [`Snapshot`] looks like in words, in rows and in JSON (DECIDE).

use super::{
    snapshot::{Counters, Lending, Machine, Phase, Snapshot, UnitRecord},
    table::{self, Column, numbers, words},
    time,
};
use serde_json::{Value, json};

/// The version of every JSON object that mesh prints; it only ever gets more keys.
pub const SCHEMA: u32 = 1;
/// What stands where there is nothing to say.
const NOTHING: &str = "-";

/// So many of the columns are told of peers in any case, and all on request.
const PEERS_NARROW: usize = 7;
const PEERS: &[Column] = &[
    words("NAME"),
    words("MATCHES"),
    numbers("SLOTS"),
    numbers("FREE"),
    numbers("RTT"),
    numbers("SPEED"),
    words("STATE"),
    numbers("MEMORY"),
    numbers("FAILED"),
    words("ROLE"),
    numbers("DONE"),
    words("ADDRESSES"),
    words("ID"),
];

/// `text` without what could move the cursor, change colours or reverse the direction of writing: names and sentences come
/// from other machines.
#[must_use]
pub fn sanitised(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if odd(c) { '?' } else { c }).collect()
}

/// `1 machine`, `2 machines`.
#[must_use]
pub fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Labels of compilers as a person says them: a C++ compiler goes without saying beside the C compiler of its version.
#[must_use]
pub fn compilers(labels: &[String]) -> Vec<String> {
    let twin = |label: &String| {
        let (name, version) = label.split_once(' ')?;
        let c = name.strip_suffix("++").map(|c| if c == "g" { "gcc" } else { c })?;
        Some(format!("{c} {version}"))
    };
    let said = |label: &&String| !twin(label).is_some_and(|twin| labels.contains(&twin));
    let mut out: Vec<String> = labels.iter().filter(said).map(|label| sanitised(label)).collect();
    // gcc before clang, as people do.
    out.sort_by_key(|label| (label.starts_with("clang"), label.clone()));
    out
}

fn nothing() -> String {
    NOTHING.to_owned()
}

fn or_nothing(text: String) -> String {
    if text.is_empty() { NOTHING.to_owned() } else { text }
}

/// The machines of a mesh and what they have to give, as `mesh peers` shows them.
#[must_use]
pub fn peers(snapshot: &Snapshot, wide: bool) -> String {
    let this = std::iter::once((&snapshot.this, true));
    let rows: Vec<Vec<String>> = this
        .chain(snapshot.peers.iter().map(|m| (m, false)))
        .map(|(machine, this)| {
            let mut row = peer(machine, this, snapshot.not_serving.is_some());
            if wide {
                row.extend([
                    machine.memory_mib.map_or_else(nothing, |mib| time::size(u64::from(mib) << 20)),
                    if this { nothing() } else { machine.failures.to_string() },
                    or_nothing(sanitised(&machine.role)),
                    if this { NOTHING.to_owned() } else { machine.finished.to_string() },
                    or_nothing(sanitised(&machine.addresses.join(", "))),
                    or_nothing(sanitised(&machine.id)),
                ]);
            }
            row
        })
        .collect();
    let mut out = table::table(if wide { PEERS } else { &PEERS[..PEERS_NARROW] }, &rows);
    out.push_str(&format!("{}\n", sum(snapshot)));
    out.extend(problems(snapshot));
    out
}

fn peer(machine: &Machine, this: bool, not_serving: bool) -> Vec<String> {
    let name = sanitised(&machine.name);
    let here = this || machine.connected;
    let number = |n: u16| if here { n.to_string() } else { NOTHING.to_owned() };
    let state = match (this, not_serving) {
        (true, true) => "this machine, does not serve".to_owned(),
        (true, false) => "this machine".to_owned(),
        _ => or_nothing(sanitised(&machine.state)),
    };
    vec![
        if this { format!("{name} *") } else { name },
        or_nothing(compilers(&machine.compilers).join(", ")),
        number(machine.slots),
        number(machine.free),
        machine.rtt_us.map_or_else(nothing, time::milliseconds),
        machine.speed_percent.map_or_else(nothing, |percent| format!("{}.{:02}", percent / 100, percent % 100)),
        state,
    ]
}

fn sum(snapshot: &Snapshot) -> String {
    let there: Vec<&Machine> =
        std::iter::once(&snapshot.this).chain(snapshot.peers.iter().filter(|m| m.connected)).collect();
    let add = |of: fn(&Machine) -> u16| there.iter().map(|m| u64::from(of(m))).sum::<u64>();
    format!(
        "{} · {}, {} free",
        count(1 + snapshot.peers.len() as u64, "machine"),
        count(add(|m| m.slots), "slot"),
        add(|m| m.free)
    )
}

/// What keeps this machine from being a full member, a line each.
fn problems(snapshot: &Snapshot) -> Vec<String> {
    let line = |what: &str, why: &Option<String>| why.as_ref().map(|why| format!("{what}: {}\n", sanitised(why)));
    let mut out = Vec::new();
    out.extend(snapshot.forgotten.as_deref().map(|said| format!("{}\n", forgotten(said))));
    out.extend(line("this machine does not serve", &snapshot.not_serving));
    out.extend(line("discovery does not work", &snapshot.discovery_problem));
    out
}

/// That this machine was put out of its mesh, and what to do about it.
#[must_use]
pub fn forgotten(said: &str) -> String {
    format!(
        "this machine was forgotten{}. To come back it needs a new identity: mesh join --new-identity CODE",
        sanitised(said)
    )
}

/// The mode, and what it comes to now.
fn mode(lending: &Lending) -> String {
    format!("{}, {}: {}", lending.mode.name(), sanitised(&lending.set_by), lent(lending))
}

/// What is lent now.
fn lent(lending: &Lending) -> String {
    let mut text = match (&lending.why, lending.paused) {
        (_, true) => match lending.paused_for_ms {
            Some(left) => format!("paused for {} more, then it goes on by itself", time::span(left)),
            None => "paused until you say: mesh resume".to_owned(),
        },
        (Some(why), false) => format!("lending nothing, because {}", sanitised(why)),
        (None, false) => format!("lending {} of {}", lending.slots, count(lending.cores.into(), "core")),
    };
    if !lending.to.is_empty() {
        text.push_str(&format!(" to {}", lending.to.iter().map(|name| sanitised(name)).collect::<Vec<_>>().join(", ")));
    }
    if let Some((times, why)) = &lending.pauses {
        text.push_str(&format!(" · paused automatically {times}× today ({})", sanitised(why)));
    }
    text
}

/// What `mesh mode` and `mesh resume` answer.
#[must_use]
pub fn lending_sentence(lending: &Lending) -> String {
    format!("mode {}", mode(lending))
}

/// This machine, as `mesh status` shows it.
#[must_use]
pub fn status(snapshot: &Snapshot) -> String {
    let this = &snapshot.this;
    let name = sanitised(&this.name);
    let mut out = match &snapshot.mesh {
        Some(mesh) => format!("{name} in \"{}\"\n", sanitised(mesh)),
        None => format!("{name}, in no mesh. Make one with: mesh up; or join one with: mesh join CODE\n"),
    };
    let mut line = |label: &str, text: String| out.push_str(&format!("{label:<11}{text}\n"));
    line(
        "agent",
        format!(
            "mesh {}, process {}, up {}, UDP port {}",
            sanitised(&snapshot.version),
            snapshot.pid,
            time::span(snapshot.uptime_ms),
            snapshot.port
        ),
    );
    line("compilers", or_nothing(compilers(&this.compilers).join(", ")));
    let counters = &snapshot.counters;
    match &snapshot.not_serving {
        Some(why) => line("lending", format!("nothing: {}", sanitised(why))),
        None => {
            let lent = format!("{}, {} free; {}", count(this.slots.into(), "slot"), this.free, served(counters));
            line("lending", lent);
            line("mode", mode(&snapshot.lending));
        }
    }
    let connected = snapshot.peers.iter().filter(|p| p.connected);
    let free: u64 = connected.clone().map(|p| u64::from(p.free)).sum();
    line(
        "borrowing",
        format!(
            "{} of {} connected, {} free",
            connected.count(),
            count(snapshot.peers.len() as u64, "other machine"),
            count(free, "slot")
        ),
    );
    if counters.hedges > 0 {
        let share = counters.wasted_ms * 1000 / counters.compiled_ms.max(1);
        let cost = format!("{}.{} % of all compile time was for nothing", share / 10, share % 10);
        let won = count(counters.hedges_won, "second start");
        line("late", format!("{}, {won} ended first; {cost}", count(counters.hedges, "unit")));
    }
    if snapshot.alarm {
        let why = "many of the latest units came back to this machine. Look at: mesh peers, mesh doctor";
        line("alarm", why.to_owned());
    }
    if let Some(why) = &snapshot.joining {
        line("joining", sanitised(why));
    }
    if let Some(said) = &snapshot.forgotten {
        line("forgotten", forgotten(said));
    }
    if let Some(problem) = &snapshot.discovery_problem {
        line("discovery", sanitised(problem));
    }
    out.push_str(&compiled(counters));
    out
}

fn served(counters: &Counters) -> String {
    let mut text = format!("{} done for others", count(counters.served, "job"));
    if counters.not_served > 0 {
        text.push_str(&format!(", {} refused or not finished", counters.not_served));
    }
    text
}

/// What was not compiled, in a line; nothing if nothing was looked for.
#[must_use]
pub fn cached(counters: &Counters) -> String {
    let (hits, all) = (counters.cache_hits, counters.cache_hits + counters.cache_misses);
    if all == 0 {
        return String::new();
    }
    let (percent, bytes) = (hits * 100 / all, time::size(counters.cache_bytes));
    let saved = time::milliseconds(counters.cache_saved_ms.saturating_mul(1000));
    let looked = count(all, "unit");
    let mut line =
        format!("cached     {hits} of {looked} looked for ({percent} %), {bytes}: {saved} of compiling saved");
    for (n, what) in [
        (counters.cache_hits_mesh, "kept by another machine"),
        (counters.cache_hits_joined, "waited for"),
        (counters.cache_not_written, "could not be written"),
        (counters.cache_damaged, "damaged"),
    ] {
        if n > 0 {
            line += &format!(", {n} {what}");
        }
    }
    line + "\n"
}

/// What was compiled where, and why here.
fn compiled(counters: &Counters) -> String {
    let here: u64 = counters.local.iter().map(|(_, n)| n).sum();
    let all = counters.remote + here;
    let mut out = cached(counters);
    if all == 0 {
        return out + "compiled   nothing yet\n";
    }
    let percent = counters.remote * 100 / all;
    out += &format!("compiled   {}: {} elsewhere ({percent} %), {here} here\n", count(all, "unit"), counters.remote);
    let mut local = counters.local.clone();
    local.sort_by_key(|(reason, n)| (std::cmp::Reverse(*n), *reason));
    for (reason, n) in local {
        out.push_str(&format!("{:>15}  {}: {}\n", n, reason.code(), reason.text()));
    }
    if counters.asked_compiler > 0 {
        let units = count(counters.asked_compiler, "unit");
        out.push_str(&format!("           for {units} the compiler was asked for its own list of inputs\n"));
    }
    if counters.discrepancies > 0 {
        let results = count(counters.discrepancies, "remote result");
        out.push_str(&format!("           {results} dropped because of a discrepancy: please report it\n"));
    }
    out
}

/// How a unit was compiled, as `mesh explain` shows it. `shown` makes a path fit for the reader.
#[must_use]
pub fn explain(unit: &UnitRecord, now_ms: u64, shown: impl Fn(&[u8]) -> String) -> String {
    let source = sanitised(&shown(&unit.source));
    let ago = time::ago(unit.ended_ms, now_ms);
    let total: u64 = unit.phases.iter().map(|phase| phase.us).sum();
    let mut out = String::new();
    let mut line = |label: &str, text: String| out.push_str(&format!(" {label:<10} {text}\n"));
    if !unit.compiler.is_empty() {
        line("compiler", sanitised(&unit.compiler));
    }
    if let Some(machine) = &unit.ran_on {
        let cost = format!("cpu {}, peak {}", time::seconds(unit.cpu_us), time::size(unit.peak_kib * 1024));
        line("ran on", format!("{} ({cost})", sanitised(machine)));
    }
    if unit.cached {
        let run = unit.phases_there.iter().find(|phase| phase.name == "run").map_or(0, |phase| phase.us);
        let (by, ago) = (sanitised(&unit.made_by), time::ago(unit.made_ms, now_ms));
        line("cached", format!("compiled by {by} {ago}, in {}", time::milliseconds(run)));
    }
    if !unit.chosen.is_empty() {
        let one = |(name, ms): &(String, u64)| format!("{} {}", sanitised(name), time::milliseconds(ms * 1000));
        let all = unit.chosen.iter().map(one).collect::<Vec<_>>().join(" · ");
        line("chosen", format!("lowest expected finish: {all}"));
    }
    if unit.starts > 1 {
        line("starts", format!("{}: it was refused, lost or late", unit.starts));
    }
    if unit.files > 0 {
        line("inputs", format!("{} files and directories", unit.files));
    }
    for (label, phases) in [("time", &unit.phases), ("there", &unit.phases_there)] {
        if unit.cached && label == "there" {
            continue;
        }
        let phase = |p: &Phase| format!("{} {}", sanitised(&p.name), time::milliseconds(p.us));
        if !phases.is_empty() {
            line(label, phases.iter().map(phase).collect::<Vec<_>>().join(" · "));
        }
    }
    if unit.ran_on.is_some() || unit.cached {
        line("result", time::size(unit.output_bytes));
    }
    if !unit.note.is_empty() {
        line("note", sanitised(&unit.note));
    }
    if let Some(hint) = unit.reason.map(|r| r.hint()).filter(|hint| !hint.is_empty()) {
        line("hint", hint.to_owned());
    }
    let head = match (&unit.reason, unit.output.is_empty()) {
        (Some(reason), _) => format!("{source} ran here: {}. {}      {ago}\n", reason.code(), reason.text()),
        (None, true) => format!("{source}      {ago}, {} in all\n", time::milliseconds(total)),
        (None, false) => {
            let output = sanitised(&shown(&unit.output));
            format!("{source} → {output}      {ago}, {} in all\n", time::milliseconds(total))
        }
    };
    head + &out
}

fn machine_json(machine: &Machine, this: bool) -> Value {
    json!({
        "name": machine.name,
        "id": machine.id,
        "this": this,
        "role": machine.role,
        "matches": machine.compilers,
        "slots": machine.slots,
        "free": machine.free,
        "rtt_us": machine.rtt_us,
        "state": machine.state,
        "connected": this || machine.connected,
        "addresses": machine.addresses,
        "finished": machine.finished,
        "speed_percent": machine.speed_percent,
        "memory_mib": machine.memory_mib,
        "failures": machine.failures,
        "heard_ms": machine.heard_ms,
    })
}

/// `mesh peers --json`.
#[must_use]
pub fn peers_json(snapshot: &Snapshot) -> Value {
    let peers = snapshot.peers.iter().map(|m| machine_json(m, false));
    let machines: Vec<Value> = std::iter::once(machine_json(&snapshot.this, true)).chain(peers).collect();
    json!({ "schema": SCHEMA, "mesh": snapshot.mesh, "machines": machines })
}

/// `mesh status --json`.
#[must_use]
pub fn status_json(snapshot: &Snapshot) -> Value {
    json!({
        "schema": SCHEMA,
        "mesh": snapshot.mesh,
        "this": machine_json(&snapshot.this, true),
        "version": snapshot.version,
        "pid": snapshot.pid,
        "uptime_ms": snapshot.uptime_ms,
        "port": snapshot.port,
        "not_serving": snapshot.not_serving,
        "lending": {
            "mode": snapshot.lending.mode.name(),
            "set_by": snapshot.lending.set_by,
            "cores": snapshot.lending.cores,
            "slots": snapshot.lending.slots,
            "why": snapshot.lending.why,
            "paused": snapshot.lending.paused,
            "paused_for_ms": snapshot.lending.paused_for_ms,
            "pauses_today": snapshot.lending.pauses.as_ref().map_or(0, |(times, _)| *times),
            "to": snapshot.lending.to,
        },
        "discovery_problem": snapshot.discovery_problem,
        "forgotten": snapshot.forgotten,
        "joining": snapshot.joining,
        "nearby": snapshot.nearby,
        "counters": counters_json(&snapshot.counters),
    })
}

/// Counters as an object; units that stayed here by their reason's code.
#[must_use]
pub fn counters_json(counters: &Counters) -> Value {
    let local: serde_json::Map<String, Value> =
        counters.local.iter().map(|(reason, n)| (reason.code().to_owned(), json!(n))).collect();
    let uncacheable: serde_json::Map<String, Value> =
        counters.uncacheable.iter().map(|(why, n)| (why.code().to_owned(), json!(n))).collect();
    json!({
        "requests": counters.requests,
        "remote": counters.remote,
        "cache_hits": counters.cache_hits,
        "cache_hits_mesh": counters.cache_hits_mesh,
        "cache_hits_joined": counters.cache_hits_joined,
        "cache_misses": counters.cache_misses,
        "cache_bytes": counters.cache_bytes,
        "cache_saved_ms": counters.cache_saved_ms,
        "cache_not_written": counters.cache_not_written,
        "cache_damaged": counters.cache_damaged,
        "cache_kept": counters.cache_kept,
        "cache_kept_bytes": counters.cache_kept_bytes,
        "uncacheable": uncacheable,
        "local": local,
        "served": counters.served,
        "served_in_mirror": counters.served_in_mirror,
        "mirror_misses": counters.mirror_misses,
        "not_served": counters.not_served,
        "discrepancies": counters.discrepancies,
        "asked_compiler": counters.asked_compiler,
        "hedges": counters.hedges,
        "hedges_won": counters.hedges_won,
        "wasted_ms": counters.wasted_ms,
        "compiled_ms": counters.compiled_ms,
        "fallbacks": counters.fallbacks,
        "overflows": counters.overflows,
    })
}

/// `mesh explain --json`: the latest unit last. Paths are text; bytes that are not UTF-8 are replaced.
#[must_use]
pub fn explain_json(units: &[UnitRecord]) -> Value {
    let unit = |u: &UnitRecord| {
        let phase = |p: &Phase| json!({ "name": p.name, "us": p.us, "cpu_us": p.cpu_us });
        let phases = |phases: &[Phase]| phases.iter().map(phase).collect::<Vec<Value>>();
        json!({
            "source": String::from_utf8_lossy(&u.source),
            "output": String::from_utf8_lossy(&u.output),
            "ended": time::rfc3339(u.ended_ms),
            "remote": u.ran_on.is_some(),
            "ran_on": u.ran_on,
            "compiler": u.compiler,
            "reason": u.reason.map(|r| json!({ "code": r.code(), "text": r.text(), "hint": r.hint() })),
            "note": u.note,
            "files": u.files,
            "phases": phases(&u.phases),
            "phases_there": phases(&u.phases_there),
            "cpu_us": u.cpu_us,
            "peak_kib": u.peak_kib,
            "output_bytes": u.output_bytes,
            "chosen": u.chosen.iter().map(|(name, ms)| json!({ "name": name, "ms": ms })).collect::<Vec<_>>(),
            "starts": u.starts,
            "cached": u.cached,
            "made_by": u.cached.then_some(&u.made_by),
            "made": u.cached.then(|| time::rfc3339(u.made_ms)),
        })
    };
    json!({ "schema": SCHEMA, "units": units.iter().map(unit).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests;
