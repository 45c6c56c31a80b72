//! What `mesh stats` shows of what was counted (DECIDE).

use super::{
    history::Sums,
    rows::{SCHEMA, count, sanitised},
    snapshot::{Files, Uncacheable},
    table::{self, numbers, words},
    time,
};
use crate::reason::Reason;
use serde_json::{Value, json};

/// What is said of a code that another version of mesh knows.
const UNKNOWN: &str = "This version of mesh does not know why.";

/// What was counted, and in what time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// The counts.
    pub sums: Sums,
    /// From when on, milliseconds since 1970, to the minute.
    pub since_ms: u64,
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
    /// Whether an agent runs.
    pub agent: bool,
}

impl Stats {
    fn of(&self, name: &str) -> u64 {
        self.sums.get(name).copied().unwrap_or(0)
    }

    /// The counts whose names begin so, the largest first.
    fn below(&self, prefix: &str) -> Vec<(&str, u64)> {
        let mut all: Vec<(&str, u64)> =
            self.sums.iter().filter_map(|(name, n)| Some((name.strip_prefix(prefix)?, *n))).collect();
        all.sort_by(|one, other| (other.1, one.0).cmp(&(one.1, other.0)));
        all
    }

    fn heading(&self) -> String {
        format!("since      {}\n", time::ago(self.since_ms, self.now_ms))
    }
}

/// All of it, in a few lines.
#[must_use]
pub fn summary(stats: &Stats) -> String {
    let mut out = stats.heading();
    out += &format!("requests   {}\n", stats.of("requests"));
    out += &cache(stats);
    let (elsewhere, here) = (stats.of("remote"), stats.below("local.").iter().map(|(_, n)| n).sum::<u64>());
    let all = elsewhere + here;
    if all == 0 {
        return out + "compiled   nothing\n";
    }
    let percent = elsewhere * 100 / all;
    out += &format!("compiled   {}: {elsewhere} elsewhere ({percent} %), {here} here\n", count(all, "unit"));
    out += &lines(&stats.below("local."), reason_text);
    for (name, what) in [
        ("asked_compiler", "for which the compiler was asked for its own list of inputs"),
        ("hedges", "started a second time because they were late"),
        ("discrepancies", "whose remote result was dropped because of a discrepancy: please report it"),
    ] {
        let n = stats.of(name);
        if n > 0 {
            out += &format!("           {} {what}\n", count(n, "unit"));
        }
    }
    let (served, not) = (stats.of("served"), stats.of("not_served"));
    if served + not > 0 {
        out += &format!("lent       {} done for others, {not} refused or not finished\n", count(served, "job"));
    }
    out
}

/// Results that were kept.
fn cache(stats: &Stats) -> String {
    let (hits, misses) = (stats.of("cache_hits"), stats.of("cache_misses"));
    let (mesh, joined) = (stats.of("cache_hits_mesh"), stats.of("cache_hits_joined"));
    let mut out = String::new();
    if let Some(percent) = (hits * 100).checked_div(hits + misses) {
        let local = hits.saturating_sub(mesh + joined);
        out += &format!("hits       {hits} ({percent} %), {} read", time::size(stats.of("cache_bytes")));
        out +=
            &format!(": {} of compiling saved\n", time::milliseconds(stats.of("cache_saved_ms").saturating_mul(1000)));
        for (n, what) in [
            (local, "kept here"),
            (mesh, "kept by another machine"),
            (joined, "waited for while they were compiled for another unit"),
        ] {
            out += &format!("{n:>15}  {what}\n");
        }
        out += &format!("misses     {misses}\n");
    }
    let kept = stats.of("cache_kept");
    if kept > 0 {
        out += &format!("kept       {}, {}\n", count(kept, "result"), time::size(stats.of("cache_kept_bytes")));
    }
    let uncacheable = stats.below("uncacheable.");
    if !uncacheable.is_empty() {
        out += &format!("not kept   {}\n", count(uncacheable.iter().map(|(_, n)| n).sum(), "unit"));
        out += &lines(&uncacheable, uncacheable_text);
    }
    for (name, what) in [("cache_not_written", "could not be written"), ("cache_damaged", "damaged and removed")] {
        let n = stats.of(name);
        if n > 0 {
            out += &format!("           {} {what}\n", count(n, "result"));
        }
    }
    out
}

/// A line for each count of a code.
fn lines(all: &[(&str, u64)], text: impl Fn(&str) -> &'static str) -> String {
    all.iter().map(|(code, n)| format!("{n:>15}  {}: {}\n", sanitised(code), text(code))).collect()
}

/// The counts may have been written by another version of mesh.
fn reason_text(code: &str) -> &'static str {
    Reason::ALL.iter().find(|reason| reason.code() == code).map_or(UNKNOWN, |reason| reason.text())
}

fn uncacheable_text(code: &str) -> &'static str {
    Uncacheable::ALL.iter().find(|why| why.code() == code).map_or(UNKNOWN, |why| why.text())
}

/// A row for each machine that has compiled a unit of this one's.
#[must_use]
pub fn by_peer(stats: &Stats) -> String {
    let rows = stats.below("peer.").into_iter().map(|(name, n)| vec![sanitised(name), n.to_string()]);
    let here: u64 = stats.below("local.").iter().map(|(_, n)| n).sum();
    let rows: Vec<Vec<String>> = rows.chain([vec!["this machine".to_owned(), here.to_string()]]).collect();
    stats.heading() + &table::table(&[words("MACHINE"), numbers("UNITS")], &rows)
}

/// A row for each reason why a unit was compiled here, or its result not kept.
#[must_use]
pub fn by_reason(stats: &Stats) -> String {
    let row = |(code, n): (&str, u64), text: &str| vec![n.to_string(), sanitised(code), text.to_owned()];
    let here = stats.below("local.").into_iter().map(|one| row(one, reason_text(one.0)));
    let not_kept = stats.below("uncacheable.").into_iter().map(|one| row(one, uncacheable_text(one.0)));
    let columns = |code, text| [numbers("UNITS"), words(code), words(text)];
    let mut out = stats.heading() + &table::table(&columns("COMPILED HERE", "WHY"), &here.collect::<Vec<_>>());
    let not_kept: Vec<Vec<String>> = not_kept.collect();
    if !not_kept.is_empty() {
        out += &table::table(&columns("NOT KEPT", "WHY"), &not_kept);
    }
    out
}

/// A row for each source; `shown` makes a path fit for the reader.
#[must_use]
pub fn by_file(stats: &Stats, files: &Files, shown: impl Fn(&[u8]) -> String) -> String {
    let columns =
        [numbers("TIME"), numbers("UNITS"), numbers("ELSEWHERE"), numbers("KEPT"), words("LAST HERE"), words("SOURCE")];
    let row = |row: &super::snapshot::FileRow| {
        vec![
            time::milliseconds(row.ms.saturating_mul(1000)),
            row.units.to_string(),
            row.elsewhere.to_string(),
            row.cached.to_string(),
            row.reason.map_or("-", Reason::code).to_owned(),
            sanitised(&shown(&row.source)),
        ]
    };
    let rows: Vec<Vec<String>> = files.rows.iter().map(row).collect();
    let mut out = stats.heading() + &table::table(&columns, &rows);
    let more = files.count.saturating_sub(files.rows.len() as u64);
    if more > 0 {
        out += &format!("and {} that took less time\n", count(more, "source"));
    }
    if let Some(from) = since_when(stats, files) {
        out += &format!("units are remembered since {} only\n", time::ago(from, stats.now_ms));
    }
    out
}

/// Since when units are remembered, if more was asked for.
fn since_when(stats: &Stats, files: &Files) -> Option<u64> {
    let from = files.from_ms.unwrap_or(stats.now_ms);
    // Units before the first that is remembered are missing if any were forgotten, or an earlier agent had them.
    let ended =
        files.rows.iter().map(|row| row.units).sum::<u64>() + files.count.saturating_sub(files.rows.len() as u64);
    (from > stats.since_ms && (files.forgotten || stats.of("requests") > ended)).then_some(from)
}

/// All of it as JSON; with `files`, what came of each source's units too.
#[must_use]
pub fn json(stats: &Stats, files: Option<&Files>) -> Value {
    let mut counters = serde_json::Map::new();
    let mut by = ["local.", "uncacheable.", "peer."].map(|prefix| {
        let all = stats.below(prefix).into_iter().map(|(name, n)| (name.to_owned(), json!(n)));
        Value::Object(all.collect())
    });
    counters
        .extend(stats.sums.iter().filter(|(name, _)| !name.contains('.')).map(|(name, n)| (name.clone(), json!(n))));
    let [local, uncacheable, peers] = &mut by;
    let mut json = json!({
        "schema": SCHEMA,
        "since": time::rfc3339(stats.since_ms),
        "until": time::rfc3339(stats.now_ms),
        "agent": stats.agent,
        "counters": counters,
        "local": local.take(),
        "uncacheable": uncacheable.take(),
        "peers": peers.take(),
    });
    if let Some(files) = files {
        let row = |row: &super::snapshot::FileRow| {
            json!({
                "source": String::from_utf8_lossy(&row.source),
                "units": row.units,
                "elsewhere": row.elsewhere,
                "cached": row.cached,
                "ms": row.ms,
                "reason": row.reason.map(Reason::code),
            })
        };
        json["files"] = files.rows.iter().map(row).collect();
        json["files_count"] = files.count.into();
        json["files_since"] = files.from_ms.map(time::rfc3339).into();
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::snapshot::FileRow;

    fn stats() -> Stats {
        let counts = [
            ("requests", 900),
            ("remote", 612),
            ("cache_hits", 200),
            ("cache_hits_mesh", 12),
            ("cache_hits_joined", 1),
            ("cache_misses", 600),
            ("cache_bytes", 9 << 20),
            ("cache_saved_ms", 83_000),
            ("cache_kept", 590),
            ("cache_kept_bytes", 30 << 20),
            ("cache_damaged", 1),
            ("uncacheable.TIME", 3),
            ("uncacheable.FLAGS", 9),
            ("uncacheable.NEWER\x1b", 1),
            ("local.STDIN", 4),
            ("local.PROBE", 84),
            ("peer.tower", 400),
            ("peer.nas", 212),
            ("served", 2),
        ];
        let sums = counts.into_iter().map(|(name, n): (&str, u64)| (name.to_owned(), n)).collect();
        Stats { sums, since_ms: 1_767_225_600_000, now_ms: 1_767_233_100_000, agent: true }
    }

    #[test]
    fn the_summary_says_what_was_had_from_where_and_why_not() {
        insta::assert_snapshot!(summary(&stats()), @r"
        since      2 h 5 min ago
        requests   900
        hits       200 (25 %), 9.0 MiB read: 83.00 s of compiling saved
                    187  kept here
                     12  kept by another machine
                      1  waited for while they were compiled for another unit
        misses     600
        kept       590 results, 30 MiB
        not kept   13 units
                      9  FLAGS: An option makes the object depend on chance or on the time.
                      3  TIME: The source uses the time of its compilation (__DATE__, __TIME__ or __TIMESTAMP__).
                      1  NEWER?: This version of mesh does not know why.
                   1 result damaged and removed
        compiled   700 units: 612 elsewhere (87 %), 88 here
                     84  PROBE: The command looks like a configure-time check, which is faster here.
                      4  STDIN: The source is read from standard input.
        lent       2 jobs done for others, 0 refused or not finished
        ");
        insta::assert_snapshot!(summary(&Stats::default()), @r"
        since      just now
        requests   0
        compiled   nothing
        ");
    }

    #[test]
    fn by_machine_by_reason_and_by_file_are_tables() {
        insta::assert_snapshot!(by_peer(&stats()), @r"
        since      2 h 5 min ago
        MACHINE       UNITS
        tower           400
        nas             212
        this machine     88
        ");
        insta::assert_snapshot!(by_reason(&stats()), @r"
        since      2 h 5 min ago
        UNITS  COMPILED HERE  WHY
           84  PROBE          The command looks like a configure-time check, which is faster here.
            4  STDIN          The source is read from standard input.
        UNITS  NOT KEPT  WHY
            9  FLAGS     An option makes the object depend on chance or on the time.
            3  TIME      The source uses the time of its compilation (__DATE__, __TIME__ or __TIMESTAMP__).
            1  NEWER?    This version of mesh does not know why.
        ");
        let row =
            |source: &str, ms, reason| FileRow { source: source.into(), units: 2, elsewhere: 1, cached: 1, ms, reason };
        let files = Files {
            rows: vec![row("/src/a.c", 4_820, None), row("/src/b\x1b.c", 12, Some(Reason::Probe))],
            count: 3,
            from_ms: Some(1_767_229_500_000),
            forgotten: true,
        };
        let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        insta::assert_snapshot!(by_file(&stats(), &files, shown), @r"
        since      2 h 5 min ago
          TIME  UNITS  ELSEWHERE  KEPT  LAST HERE  SOURCE
        4.82 s      2          1     1  -          /src/a.c
         12 ms      2          1     1  PROBE      /src/b?.c
        and 1 source that took less time
        units are remembered since 1 h 0 min ago only
        ");
        let later = Stats { since_ms: 1_767_230_000_000, ..stats() };
        assert!(!by_file(&later, &files, shown).contains("remembered"));
        let said = json(&stats(), Some(&files));
        assert_eq!((&said["counters"]["cache_hits"], &said["peers"]["nas"]), (&200.into(), &212.into()));
        assert_eq!((&said["local"]["PROBE"], &said["files"][0]["ms"]), (&84.into(), &4820.into()));
        assert_eq!(said["since"], "2026-01-01T00:00:00.000Z");
    }
}
