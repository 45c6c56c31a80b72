//! The line that a build ends with (DECIDE).

use crate::agent::wire::SessionNow;

/// From so few units nothing is concluded.
const UNITS_MIN: u64 = 10;
/// Of so many units that were measured one may not have been.
const MEASURED_MIN: u64 = 10;
/// What a build must have gained before that is said, percent of its time.
const GAIN_PERCENT_MIN: u64 = 110;

/// What is to be said of a build that took so long; nothing if it compiled nothing.
pub(super) fn line(now: &SessionNow, took_ms: u64) -> Option<String> {
    if now.units == 0 && now.cached == 0 {
        return None;
    }
    if now.units == 0 {
        return Some(format!("{} in {}, all of them kept from before.", results(now.cached), spoken(took_ms)));
    }
    let compiles = if now.units == 1 { "1 compile".to_owned() } else { format!("{} compiles", now.units) };
    let mut line = format!("{compiles} in {}, {} % elsewhere", spoken(took_ms), percent_elsewhere(now));
    if let Some(alone_ms) = alone_ms(now)
        && alone_ms * 100 >= took_ms.max(1) * GAIN_PERCENT_MIN
    {
        let tenths = alone_ms * 10 / took_ms.max(1);
        let (whole, tenth) = (tenths / 10, tenths % 10);
        line += &format!("; about {whole}.{tenth}× faster than alone (est. {})", spoken(alone_ms));
    }
    if now.cached > 0 {
        line += &format!("; {} kept from before", results(now.cached));
    }
    Some(line + ".")
}

fn results(number: u64) -> String {
    if number == 1 { "1 result".to_owned() } else { format!("{number} results") }
}

/// How many of a hundred units that were compiled were so elsewhere; 100 only if all were, or none had to be.
pub(super) fn percent_elsewhere(now: &SessionNow) -> u64 {
    if now.units == 0 && now.cached > 0 { 100 } else { now.elsewhere * 100 / now.units.max(1) }
}

/// How long the compilers alone would have taken on this machine alone, milliseconds, if enough is known.
fn alone_ms(now: &SessionNow) -> Option<u64> {
    let is_known = now.units >= UNITS_MIN && now.elsewhere > 0 && now.unmeasured * MEASURED_MIN <= now.units;
    is_known.then(|| now.compile_ms / u64::from(now.local.max(1)))
}

/// `4 m 51 s`, `51 s`, `1 h 3 m`.
fn spoken(ms: u64) -> String {
    let s = (ms + 500) / 1000;
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, 0..=9) => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} m {s} s"),
        (h, m, _) => format!("{h} h {m} m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_summed_up_and_only_what_is_known_is_said() {
        let known =
            SessionNow { local: 8, units: 1490, elsewhere: 1297, compile_ms: 7_440_000, ..SessionNow::default() };
        let full = "1490 compiles in 4 m 51 s, 87 % elsewhere; about 3.1× faster than alone (est. 15 m 30 s).";
        assert_eq!(line(&known, 291_000).as_deref(), Some(full));
        let short = "1490 compiles in 4 m 51 s, 87 % elsewhere.";
        for unknown in [
            SessionNow { unmeasured: 200, ..known },
            SessionNow { compile_ms: 1_000_000, ..known },
            SessionNow { local: 100, ..known },
        ] {
            assert_eq!(line(&unknown, 291_000).as_deref(), Some(short));
        }
        let few = SessionNow { units: 1, elsewhere: 0, ..known };
        assert_eq!(line(&few, 1_260).as_deref(), Some("1 compile in 1.2 s, 0 % elsewhere."));
        let again = SessionNow { units: 0, elsewhere: 0, cached: 12, ..known };
        assert_eq!(line(&again, 1_260).as_deref(), Some("12 results in 1.2 s, all of them kept from before."));
        assert_eq!((percent_elsewhere(&again), percent_elsewhere(&SessionNow::default())), (100, 0));
        let some = SessionNow { cached: 1, ..few };
        let said = line(&some, 1_260);
        assert_eq!(said.as_deref(), Some("1 compile in 1.2 s, 0 % elsewhere; 1 result kept from before."));
        assert_eq!(line(&SessionNow::default(), 5), None);
        assert_eq!([9_999, 59_600, 3_780_000].map(spoken), ["10 s", "1 m 0 s", "1 h 3 m"]);
    }
}
