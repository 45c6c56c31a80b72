//! What the compilers of a machine look like in words, in rows and in JSON (DECIDE).

use super::{
    rows::{SCHEMA, count, sanitised},
    snapshot::{
        ArrivalRow, ArrivalState, PartKind, PartRow, ProofState, ToolchainDetail, ToolchainRow, Toolchains, Why, WhyRow,
    },
    table::{self, Column, numbers, words},
    time,
};
use serde_json::{Value, json};

/// What stands where there is nothing to say.
const NOTHING: &str = "-";
/// Names of one compiler that are shown where others of it are, number.
const NAMES_SHOWN: usize = 3;
/// Of a fact or a reason, what is shown, characters.
const SHOWN_CHARS_MAX: usize = 160;
/// So many digits of an id, at least, name a compiler.
const ID_DIGITS_MIN: usize = 4;

const LIST: &[Column] = &[
    words("ID"),
    words("COMPILER"),
    words("TARGET"),
    words("RUN AS"),
    numbers("SIZE"),
    words("MAY BE SENT"),
    words("PEERS"),
];
const LIST_WIDE: &[Column] = &[
    words("ID"),
    words("COMPILER"),
    words("TARGET"),
    words("RUN AS"),
    numbers("SIZE"),
    words("MAY BE SENT"),
    words("PEERS"),
    words("LENT"),
    words("FILE"),
];
const PARTS: &[Column] = &[numbers("SIZE"), words("DIGEST"), words("PATH")];

/// Bytes of another machine or of a file's name, fit for a terminal.
fn text(bytes: &[u8]) -> String {
    sanitised(&String::from_utf8_lossy(bytes))
}

fn or_nothing(text: String) -> String {
    if text.is_empty() { NOTHING.to_owned() } else { text }
}

/// As much of a text as a line has room for.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// A path's directory and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
    path.split_at(at)
}

/// The compilers that a person means by a name, a path, an id's first digits or a label: all that fit best.
#[must_use]
pub fn chosen<'a>(list: &'a Toolchains, name: &[u8]) -> Vec<&'a ToolchainRow> {
    let typed = String::from_utf8_lossy(name);
    let is_id = name.len() >= ID_DIGITS_MIN && name.iter().all(u8::is_ascii_hexdigit);
    let fits: [&dyn Fn(&ToolchainRow) -> bool; 6] = [
        &|row| row.driver == name,
        &|row| split(&row.driver).1 == name,
        &|row| row.label == typed,
        &|row| row.real == name,
        &|row| row.label.split(' ').next() == Some(&*typed),
        &|row| is_id && row.id.starts_with(&typed.to_ascii_lowercase()),
    ];
    let all = |fits: &&dyn Fn(&ToolchainRow) -> bool| list.known.iter().filter(|row| fits(row)).collect::<Vec<_>>();
    fits.iter().map(all).find(|found| !found.is_empty()).unwrap_or_default()
}

/// Compilers that are one file under several names and stand alike.
#[derive(Debug)]
struct Group<'a>(Vec<&'a ToolchainRow>);

impl<'a> Group<'a> {
    fn first(&self) -> &'a ToolchainRow {
        self.0[0]
    }

    /// The paths by which it is run.
    fn run_as(&self) -> String {
        let paths = names(&self.0.iter().map(|row| row.driver.as_slice()).collect::<Vec<_>>());
        match &self.first().from {
            Some(from) => format!("{paths}, sent by {}", sanitised(from)),
            None => paths,
        }
    }

    fn id(&self) -> String {
        let id = sanitised(&self.first().id);
        if self.0.len() == 1 { id } else { format!("{id} +{}", self.0.len() - 1) }
    }
}

/// In which order a person names the paths of one compiler: first the name that its label says, then the short ones. A
/// directory with a short name is a link to the other, as `/bin` is to `/usr/bin`.
fn familiar<'a>(label: &str, driver: &'a [u8]) -> (std::cmp::Reverse<usize>, bool, usize, &'a [u8]) {
    let (dir, name) = split(driver);
    let is_label = label.split(' ').next().is_some_and(|word| word.as_bytes() == name);
    (std::cmp::Reverse(dir.len()), !is_label, name.len(), driver)
}

/// Paths in one line, the first whole; of others, what is not said by it.
fn names(paths: &[&[u8]]) -> String {
    let Some((main, first)) = paths.first().map(|path| split(path)) else { return String::new() };
    let here: Vec<&[u8]> =
        paths.iter().map(|path| split(path)).filter(|(dir, _)| *dir == main).map(|at| at.1).collect();
    let mut out = vec![format!("{}{}", text(main), text(first))];
    out.extend(here.iter().skip(1).map(|name| text(name)));
    let (mut others, mut also): (Vec<String>, Vec<&[u8]>) = (Vec::new(), Vec::new());
    for (dir, name) in paths.iter().map(|path| split(path)).filter(|(dir, _)| *dir != main) {
        if !here.contains(&name) {
            others.push(format!("{}{}", text(dir), text(name)));
        } else if !also.contains(&dir) {
            also.push(dir);
        }
    }
    out.extend(others);
    if out.len() > NAMES_SHOWN + 1 {
        let more = out.len() - NAMES_SHOWN;
        out.truncate(NAMES_SHOWN);
        out.push(format!("{more} more"));
    }
    let dirs: Vec<String> =
        also.iter().take(NAMES_SHOWN).map(|dir| text(dir.strip_suffix(b"/").unwrap_or(dir))).collect();
    let also = if dirs.is_empty() { String::new() } else { format!(", also in {}", dirs.join(", ")) };
    out.join(", ") + &also
}

/// All compilers, those together that a person takes for one.
fn grouped(rows: &[ToolchainRow]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let states =
        |row: &ToolchainRow| row.arrivals.iter().map(|a| (a.peer.clone(), a.state.clone())).collect::<Vec<_>>();
    for row in rows {
        let is_alike = |group: &&mut Group<'_>| {
            let first = group.first();
            (&first.label, &first.real, &first.target, &first.from) == (&row.label, &row.real, &row.target, &row.from)
                && (&first.proof, &first.has) == (&row.proof, &row.has)
                && states(first) == states(row)
        };
        match groups.iter_mut().find(is_alike) {
            Some(group) => group.0.push(row),
            None => groups.push(Group(vec![row])),
        }
    }
    for group in &mut groups {
        group.0.sort_by(|a, b| familiar(&a.label, &a.driver).cmp(&familiar(&b.label, &b.driver)));
    }
    // This machine's own before what was sent; gcc before clang, as people do.
    groups.sort_by_key(|group| {
        let first = group.first();
        (first.from.is_some(), first.label.starts_with("clang"), &first.label, &first.driver)
    });
    groups
}

/// The compilers of this machine, as `mesh toolchain` shows them.
#[must_use]
pub fn list(all: &Toolchains, wide: bool) -> String {
    let groups = if wide { all.known.iter().map(|row| Group(vec![row])).collect() } else { grouped(&all.known) };
    let mut out = String::new();
    if groups.is_empty() {
        out.push_str(
            "no compiler is known here yet. Those in PATH are looked for when the agent has started; any other is known\n\
             once it was used or looked at: mesh cc /opt/x/bin/gcc -c x.c, or mesh toolchain show /opt/x/bin/gcc\n",
        );
    } else {
        let rows: Vec<Vec<String>> = groups.iter().map(|group| row(group, wide)).collect();
        out.push_str(&table::table(if wide { LIST_WIDE } else { LIST }, &rows));
        out.push_str(&sum(all));
    }
    for group in &groups {
        out.push_str(&notes(group));
    }
    if let Some(why) = &all.not_sending {
        out.push_str(&format!("no compiler is sent to other machines: {}\n", sanitised(why)));
    }
    if !all.refused.is_empty() {
        out.push_str("\nnot used as compilers, so that what they compile stays here:\n");
        for one in &all.refused {
            out.push_str(&format!("  {}: {}\n", text(&one.program), shortened(&sanitised(&one.why))));
        }
    }
    out
}

fn row(group: &Group<'_>, wide: bool) -> Vec<String> {
    let first = group.first();
    let bytes = group.0.iter().map(|row| row.bytes).max().unwrap_or_default();
    let mut row = vec![
        group.id(),
        shortened(&sanitised(&first.label)),
        or_nothing(shortened(&sanitised(&first.target))),
        shortened(&group.run_as()),
        time::size(bytes),
        may_be_sent(&first.proof).to_owned(),
        or_nothing(peers(first)),
    ];
    if wide {
        row.push(if first.is_lent { "yes" } else { "no" }.to_owned());
        row.push(shortened(&text(&first.real)));
    }
    row
}

fn may_be_sent(proof: &ProofState) -> &'static str {
    match proof {
        ProofState::Untried => "not tried yet",
        ProofState::Trying => "being tried",
        ProofState::Proved | ProofState::Elsewhere => "yes",
        ProofState::Unproved(_) => "no",
    }
}

/// Who has it, and to whom it is on the way.
fn peers(row: &ToolchainRow) -> String {
    let arrival = |one: &ArrivalRow| match &one.state {
        ArrivalState::There | ArrivalState::Gone => None,
        ArrivalState::Refused(_) => Some(format!("not {}", sanitised(&one.peer))),
        state => Some(format!("{} {}", sanitised(&one.peer), how_far(state))),
    };
    let has = row.has.iter().map(|name| sanitised(name));
    has.chain(row.arrivals.iter().filter_map(arrival)).collect::<Vec<_>>().join(", ")
}

fn how_far(state: &ArrivalState) -> String {
    match state {
        ArrivalState::Proving => "soon".to_owned(),
        ArrivalState::Told => "asked".to_owned(),
        ArrivalState::Coming { have, of } => format!("{} %", percent(*have, *of)),
        ArrivalState::There => "has it".to_owned(),
        ArrivalState::Refused(_) => "does not take it".to_owned(),
        ArrivalState::Gone => "not connected".to_owned(),
    }
}

/// How much of a compiler is there, in percent; never 100 before all is.
#[must_use]
pub fn percent(have: u64, of: u64) -> u64 {
    match of {
        0 => 0,
        of => u64::try_from(u128::from(have) * 100 / u128::from(of)).unwrap_or(99).min(99),
    }
}

/// Why it is not sent, or not taken, a line each.
fn notes(group: &Group<'_>) -> String {
    let (row, mut out) = (group.first(), String::new());
    let what = shortened(&format!("{} ({})", sanitised(&row.label), group.run_as()));
    if let ProofState::Unproved(why) = &row.proof {
        out.push_str(&format!("{what} is not sent, only used where it is: {}\n", shortened(&sanitised(why))));
    }
    for one in &row.arrivals {
        if let ArrivalState::Refused(why) = &one.state {
            out.push_str(&format!("{} does not take {what}: {}\n", sanitised(&one.peer), shortened(&sanitised(why))));
        }
    }
    out
}

fn sum(all: &Toolchains) -> String {
    let sent = all.known.iter().filter(|row| row.from.is_some()).count();
    let mut files: Vec<_> = all.known.iter().map(|row| (&row.label, &row.real, &row.target)).collect();
    files.sort();
    files.dedup();
    let mut out = count(files.len() as u64, "compiler");
    if files.len() < all.known.len() {
        out.push_str(&format!(" under {} names", all.known.len()));
    }
    if sent > 0 {
        out.push_str(&format!(", {sent} of them sent here"));
    }
    match all.providers.len() {
        0 => out.push_str(" · no machine is connected that compiles for others"),
        n => out.push_str(&format!(" · {} connected", count(n as u64, "provider"))),
    }
    out + "\n"
}

/// One compiler, as `mesh toolchain show` shows it.
#[must_use]
pub fn detail(detail: &ToolchainDetail, now_ms: u64) -> String {
    let row = &detail.row;
    let mut out = format!("{}, {}\n", sanitised(&row.label), text(&row.driver));
    let mut line = |label: &str, text: String| out.push_str(&format!("  {label:<9} {text}\n"));
    line("id", sanitised(&row.id));
    match (&row.from, row.used_ms) {
        (Some(from), Some(used)) => {
            line("came from", format!("{}, last used {}", sanitised(from), time::ago(used, now_ms)));
        }
        (Some(from), None) => line("came from", sanitised(from)),
        (None, _) => line("file", text(&row.real)),
    }
    line("target", or_nothing(sanitised(&row.target)));
    line("runs on", sanitised(&detail.needs));
    let files = detail.parts.iter().filter(|part| matches!(part.kind, PartKind::File { .. })).count();
    line("size", format!("{} in {}", time::size(row.bytes), count(files as u64, "file")));
    line("lent", if row.is_lent { "yes" } else { "no" }.to_owned());
    let sent = match &row.proof {
        ProofState::Untried => "not tried yet: that is done when a unit wants it elsewhere".to_owned(),
        ProofState::Trying => "being tried: samples are compiled with nothing but these files".to_owned(),
        ProofState::Proved => "yes: samples compiled with nothing but these files were the same".to_owned(),
        ProofState::Elsewhere => "yes: the machine that it is from has seen to it".to_owned(),
        ProofState::Unproved(why) => format!("no: {}", shortened(&sanitised(why))),
    };
    line("may go", sent);
    line("peers", or_nothing(peers(row)));
    for one in &row.arrivals {
        if let ArrivalState::Refused(why) = &one.state {
            line("", format!("{} does not take it: {}", sanitised(&one.peer), shortened(&sanitised(why))));
        }
    }
    out.push_str("  says of itself\n");
    let is_said = |label: &str| matches!(label, "family" | "runs on" | "target" | "version");
    for (label, value) in detail.facts.iter().filter(|(label, _)| !is_said(label)) {
        out.push_str(&format!("    {}: {}\n", sanitised(label), fact(value)));
    }
    let rows: Vec<Vec<String>> = detail.parts.iter().map(part).collect();
    for line in table::table(PARTS, &rows).lines() {
        out.push_str(&format!("  {line}\n"));
    }
    out
}

/// A fact's first line; what no person reads is only counted.
fn fact(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n') => {
            let mut lines = text.trim_end().lines();
            let first = shortened(&sanitised(lines.next().unwrap_or_default()));
            match lines.count() {
                0 => first,
                more => format!("{first} (and {})", count(more as u64, "more line")),
            }
        }
        _ => format!("({} bytes)", value.len()),
    }
}

fn part(part: &PartRow) -> Vec<String> {
    let path = text(&part.path);
    match &part.kind {
        PartKind::File { size, digest, executable } => {
            vec![size.to_string(), sanitised(digest), if *executable { format!("{path} *") } else { path }]
        }
        PartKind::Symlink(target) => {
            vec![NOTHING.to_owned(), NOTHING.to_owned(), format!("{path} -> {}", text(target))]
        }
        PartKind::Directory => vec![NOTHING.to_owned(), NOTHING.to_owned(), format!("{path}/")],
    }
}

/// What another machine lacks and why, as `mesh toolchain --why` shows it.
#[must_use]
pub fn why(why: &Why) -> String {
    let peer = sanitised(&why.peer);
    let asked = count(why.asked.into(), "compiler");
    if why.asked == 0 {
        return "no compiler of this machine is known yet. See: mesh toolchain\n".to_owned();
    }
    if why.lacking.is_empty() {
        return format!(
            "{peer} has exactly the {asked} of this machine that {}\n",
            if why.asked == 1 { "is meant" } else { "are meant" }
        );
    }
    let there = if why.there == 0 { "none".to_owned() } else { why.there.to_string() };
    let mut out = format!("of {asked} of this machine, {peer} lacks {}; it has {there} in all", why.lacking.len());
    if why.silent > 0 {
        out.push_str(&format!(", of which {} could not be compared", why.silent));
    }
    out.push('\n');
    // Names of one compiler are lacking for one reason.
    let mut groups: Vec<Vec<&WhyRow>> = Vec::new();
    for row in &why.lacking {
        let is_it = |group: &&mut Vec<&WhyRow>| {
            let first = group[0];
            (&first.label, &first.real, &first.outlook) == (&row.label, &row.real, &row.outlook)
        };
        match groups.iter_mut().find(is_it) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    for mut group in groups {
        group.sort_by(|a, b| familiar(&a.label, &a.driver).cmp(&familiar(&b.label, &b.driver)));
        out.push_str(&why_lacking(&group, &peer));
    }
    out
}

/// Why another machine lacks one compiler of several names; the first is the one that people use.
fn why_lacking(group: &[&WhyRow], peer: &str) -> String {
    let row = group[0];
    let drivers: Vec<&[u8]> = group.iter().map(|row| row.driver.as_slice()).collect();
    let mut out = format!("\n{} ({})\n", sanitised(&row.label), names(&drivers));
    match (&row.also, &row.nearest) {
        (Some(also), _) => {
            let also = text(also);
            out.push_str(&format!(
                "  {peer} has it as {also}. Use that name in the build, or have this one sent, too\n"
            ));
        }
        (None, Some(nearest)) => {
            let (label, driver) = (sanitised(&nearest.label), text(&nearest.driver));
            out.push_str(&format!("  the most similar one there is {label}, {driver}:\n"));
            for difference in &nearest.differences {
                out.push_str(&format!("    {}\n", shortened(&sanitised(difference))));
            }
            let more = (nearest.count as usize).saturating_sub(nearest.differences.len());
            if more > 0 {
                out.push_str(&format!("    and {}\n", count(more as u64, "more difference")));
            }
        }
        (None, None) => out.push_str("  there is none like it there\n"),
    }
    out.push_str(&format!("  {}", shortened(&sanitised(&row.outlook))));
    if row.can_be_sent {
        out.push_str(&format!(". Now: mesh toolchain push {} --to {peer}", text(&row.driver)));
    }
    out + "\n"
}

/// What a compiler's way to one machine has come to, in a line.
#[must_use]
pub fn arrival(label: &str, one: &ArrivalRow) -> String {
    let (what, peer) = (sanitised(label), sanitised(&one.peer));
    match &one.state {
        ArrivalState::Proving => format!("{what}: being tried here, before {peer} is sent it"),
        ArrivalState::Told => format!("{what}: {peer} is asked to take it"),
        ArrivalState::Coming { have, of } => {
            format!("{what}: {} of {} at {peer} ({} %)", time::size(*have), time::size(*of), percent(*have, *of))
        }
        ArrivalState::There => format!("{what}: {peer} has it"),
        ArrivalState::Refused(why) => format!("{what}: not sent to {peer}: {}", shortened(&sanitised(why))),
        ArrivalState::Gone => format!("{what}: {peer} is not connected any more"),
    }
}

fn arrival_json(one: &ArrivalRow) -> Value {
    let (state, have, of, why) = match &one.state {
        ArrivalState::Proving => ("proving", None, None, None),
        ArrivalState::Told => ("told", None, None, None),
        ArrivalState::Coming { have, of } => ("coming", Some(have), Some(of), None),
        ArrivalState::There => ("there", None, None, None),
        ArrivalState::Refused(why) => ("refused", None, None, Some(why)),
        ArrivalState::Gone => ("gone", None, None, None),
    };
    json!({ "peer": one.peer, "state": state, "have_bytes": have, "of_bytes": of, "why": why })
}

fn row_json(row: &ToolchainRow) -> Value {
    let (proof, why) = match &row.proof {
        ProofState::Untried => ("untried", None),
        ProofState::Trying => ("trying", None),
        ProofState::Proved => ("proved", None),
        ProofState::Elsewhere => ("elsewhere", None),
        ProofState::Unproved(why) => ("unproved", Some(why)),
    };
    json!({
        "id": row.id,
        "label": row.label,
        "target": row.target,
        "driver": String::from_utf8_lossy(&row.driver),
        "file": String::from_utf8_lossy(&row.real),
        "sent_by": row.from,
        "used": row.used_ms.map(time::rfc3339),
        "bytes": row.bytes,
        "lent": row.is_lent,
        "proof": proof,
        "not_sent_because": why,
        "peers": row.has,
        "arrivals": row.arrivals.iter().map(arrival_json).collect::<Vec<_>>(),
    })
}

/// `mesh toolchain --json`. Paths are text; bytes that are not UTF-8 are replaced.
#[must_use]
pub fn list_json(all: &Toolchains) -> Value {
    let refused = all.refused.iter().map(
        |one| json!({ "program": String::from_utf8_lossy(&one.program), "reason": one.reason.code(), "why": one.why }),
    );
    json!({
        "schema": SCHEMA,
        "toolchains": all.known.iter().map(row_json).collect::<Vec<_>>(),
        "refused": refused.collect::<Vec<_>>(),
        "providers": all.providers,
        "not_sending": all.not_sending,
    })
}

/// `mesh toolchain show --json`.
#[must_use]
pub fn details_json(details: &[ToolchainDetail]) -> Value {
    let part = |part: &PartRow| {
        let path = String::from_utf8_lossy(&part.path);
        match &part.kind {
            PartKind::File { size, digest, executable } => {
                json!({ "path": path, "kind": "file", "bytes": size, "digest": digest, "executable": executable })
            }
            PartKind::Symlink(target) => {
                json!({ "path": path, "kind": "link", "target": String::from_utf8_lossy(target) })
            }
            PartKind::Directory => json!({ "path": path, "kind": "directory" }),
        }
    };
    let one = |detail: &ToolchainDetail| {
        let mut value = row_json(&detail.row);
        let facts: serde_json::Map<String, Value> =
            detail.facts.iter().map(|(label, value)| (label.clone(), fact_json(value))).collect();
        value["needs"] = json!(detail.needs);
        value["facts"] = Value::Object(facts);
        value["parts"] = detail.parts.iter().map(part).collect();
        value
    };
    json!({ "schema": SCHEMA, "toolchains": details.iter().map(one).collect::<Vec<_>>() })
}

/// A fact as text; of digests and what else no person reads, nothing.
fn fact_json(value: &[u8]) -> Value {
    let is_text = |text: &&str| !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    std::str::from_utf8(value).ok().filter(is_text).map_or(Value::Null, |text| json!(text))
}

/// `mesh toolchain --why PEER --json`.
#[must_use]
pub fn why_json(why: &Why) -> Value {
    let lacking = why.lacking.iter().map(|row| {
        let nearest = row.nearest.as_ref().map(|nearest| {
            json!({
                "label": nearest.label,
                "driver": String::from_utf8_lossy(&nearest.driver),
                "differences": nearest.differences,
                "count": nearest.count,
            })
        });
        json!({
            "id": row.id,
            "label": row.label,
            "driver": String::from_utf8_lossy(&row.driver),
            "file": String::from_utf8_lossy(&row.real),
            "also_as": row.also.as_ref().map(|driver| String::from_utf8_lossy(driver)),
            "nearest": nearest,
            "outlook": row.outlook,
            "can_be_sent": row.can_be_sent,
        })
    });
    json!({
        "schema": SCHEMA,
        "peer": why.peer,
        "asked": why.asked,
        "there": why.there,
        "not_described": why.silent,
        "lacking": lacking.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
