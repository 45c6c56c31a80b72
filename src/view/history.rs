//! What was counted in which minute, as lines of text that outlive an agent (DECIDE).
//!
//! A line is `MINUTE key=n key=n .`: by how much each counter grew. The full stop tells a whole line from one that was torn when
//! the machine went down. Lines of one minute add up, in any order.

use super::{rows, snapshot::Counters};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write};

/// Counts by name: a counter's own, `local.CODE`, `uncacheable.CODE`, `peer.NAME`.
pub type Sums = BTreeMap<String, u64>;

/// Milliseconds of a minute.
pub const MINUTE_MS: u64 = 60_000;
/// For so long it is held what was counted, minutes.
pub const HELD_MINUTES: u64 = 8 * 24 * 60;
/// Counts of one line.
const COUNTS_MAX: usize = 512;
/// A name's bytes.
const NAME_BYTES_MAX: usize = 96;
/// A build has ended when nothing was compiled for so long, minutes.
const BUILD_GAP_MINUTES: u64 = 5;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minute {
    /// Minutes since 1970.
    pub at: u64,
    /// By how much each counter grew.
    pub grown: Sums,
}

/// From when on something is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// For so many minutes.
    Minutes(u64),
    /// Since the last build began: since the last time that nothing had been asked for some minutes.
    Build,
    /// Since the machine started.
    Boot,
    /// Since the counts were set to zero, as far back as is known.
    All,
}

/// The counters as sums, with the units that each machine has compiled.
#[must_use]
pub fn sums<'a>(counters: &Counters, by_peer: impl Iterator<Item = (&'a String, &'a u64)>) -> Sums {
    let mut sums = Sums::new();
    let Value::Object(all) = rows::counters_json(counters) else { return sums };
    for (name, value) in all {
        match value {
            Value::Object(by_code) => {
                let each = by_code.iter().filter_map(|(code, n)| Some((format!("{name}.{code}"), n.as_u64()?)));
                sums.extend(each);
            }
            value => sums.extend(value.as_u64().map(|n| (name, n))),
        }
    }
    sums.extend(by_peer.map(|(name, n)| (format!("peer.{name}"), *n)));
    sums
}

/// By how much each count is larger now. What is smaller than it was has begun anew.
#[must_use]
pub fn grown(before: &Sums, now: &Sums) -> Sums {
    let by = |(name, n): (&String, &u64)| {
        let before = before.get(name).copied().unwrap_or(0);
        let by = if *n < before { *n } else { n - before };
        (by > 0).then(|| (name.clone(), by))
    };
    now.iter().filter_map(by).collect()
}

/// The line of a minute.
#[must_use]
pub fn line(minute: &Minute) -> String {
    let mut line = minute.at.to_string();
    let fits = |name: &&String| name.len() <= NAME_BYTES_MAX;
    for (name, n) in minute.grown.iter().filter(|(name, _)| fits(name)).take(COUNTS_MAX) {
        let _ = write!(line, " {}={n}", escaped(name));
    }
    line + " .\n"
}

/// What these lines hold; what is no whole line is passed over.
#[must_use]
pub fn read(text: &[u8]) -> Vec<Minute> {
    text.split_inclusive(|byte| *byte == b'\n').filter_map(read_line).collect()
}

fn read_line(line: &[u8]) -> Option<Minute> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix(" .\n")?;
    let mut words = line.split(' ');
    let at = words.next()?.parse().ok()?;
    let count = |word: &str| {
        let (name, n) = word.rsplit_once('=')?;
        Some((unescaped(name)?, n.parse().ok()?))
    };
    let grown = words.take(COUNTS_MAX).map(count).collect::<Option<Sums>>()?;
    Some(Minute { at, grown })
}

/// A name of a machine may be of any letters: those that part a line are written as their code.
fn escaped(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        match c {
            '%' | '=' => drop(write!(out, "%{:06x}", u32::from(c))),
            c if c.is_whitespace() || c.is_control() => drop(write!(out, "%{:06x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('%');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(6)?;
        out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        out.push_str(rest);
    }
    Some(out)
}

/// The lines that are to stay when the file is written anew, the newest last, so many bytes at most.
#[must_use]
pub fn kept(mut minutes: Vec<Minute>, now_ms: u64, bytes_max: usize) -> Vec<String> {
    let now = now_ms / MINUTE_MS;
    // A clock that was wrong once must not make lines that stay for ever.
    minutes.retain(|minute| minute.at + HELD_MINUTES >= now && minute.at <= now + HELD_MINUTES);
    minutes.sort_by_key(|minute| minute.at);
    let mut room = bytes_max;
    let mut lines: Vec<String> = minutes.iter().rev().map(line).collect();
    let fit = lines.iter().take_while(|line| {
        let fits = line.len() <= room;
        room = room.saturating_sub(line.len());
        fits
    });
    let fit = fit.count();
    lines.truncate(fit);
    lines.reverse();
    lines
}

impl Since {
    /// What a person says: `30m`, `2h`, `2d`, `build` or `boot`.
    ///
    /// # Errors
    /// What can be said.
    pub fn parse(word: &str) -> Result<Self, String> {
        let said = || format!("a time such as 30m, 2h or 2d ({} days at most), build or boot", HELD_MINUTES / 24 / 60);
        match word {
            "build" => return Ok(Self::Build),
            "boot" => return Ok(Self::Boot),
            _ => {}
        }
        let minutes = match word.split_at_checked(word.len().saturating_sub(1)) {
            Some((n, "m")) => n.parse().ok(),
            Some((n, "h")) => n.parse().ok().and_then(|n: u64| n.checked_mul(60)),
            Some((n, "d")) => n.parse().ok().and_then(|n: u64| n.checked_mul(24 * 60)),
            _ => None,
        };
        minutes.filter(|minutes| (1..=HELD_MINUTES).contains(minutes)).map(Self::Minutes).ok_or_else(said)
    }

    /// The first minute that counts.
    #[must_use]
    pub fn first(self, minutes: &[Minute], now_ms: u64, booted_ms: u64) -> u64 {
        match self {
            Self::Minutes(n) => (now_ms / MINUTE_MS).saturating_sub(n),
            Self::Boot => booted_ms / MINUTE_MS,
            Self::All => minutes.iter().map(|minute| minute.at).min().unwrap_or(now_ms / MINUTE_MS),
            Self::Build => last_build(minutes).unwrap_or(now_ms / MINUTE_MS),
        }
    }
}

/// The minute in which the last build began.
fn last_build(minutes: &[Minute]) -> Option<u64> {
    let asked = minutes.iter().filter(|minute| minute.grown.get("requests").is_some_and(|n| *n > 0));
    let mut asked: Vec<u64> = asked.map(|minute| minute.at).collect();
    asked.sort_unstable();
    let mut first = *asked.last()?;
    for at in asked.iter().rev() {
        if first - at > BUILD_GAP_MINUTES {
            break;
        }
        first = *at;
    }
    Some(first)
}

/// What was counted from this minute on.
#[must_use]
pub fn total(minutes: &[Minute], first: u64) -> Sums {
    let mut sums = Sums::new();
    for (name, n) in minutes.iter().filter(|minute| minute.at >= first).flat_map(|minute| &minute.grown) {
        let sum = sums.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*n);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    fn minute(at: u64, counts: &[(&str, u64)]) -> Minute {
        Minute { at, grown: counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect() }
    }

    #[test]
    fn a_line_is_read_as_it_was_written_and_a_torn_one_is_not() {
        let odd = minute(7, &[("peer.my tower=%\n", 3), ("peer.工作站", u64::MAX), ("requests", 1)]);
        let text = line(&odd);
        assert_eq!(text.lines().count(), 1);
        assert_eq!(read(text.as_bytes()), std::slice::from_ref(&odd));
        for cut in 0..text.len() - 1 {
            assert_eq!(read(&text.as_bytes()[..cut]), [], "{cut}");
            // The next agent begins a new line.
            let both = [&text.as_bytes()[..cut], b"\n", text.as_bytes()].concat();
            assert_eq!(read(&both), std::slice::from_ref(&odd), "{cut}");
        }
        for garbage in
            ["", "\n", " .\n", "x a=1 .\n", "1 a .\n", "1 a=-1 .\n", "1 a=1\n", "1 a%00=1 .\n", "1 %110000=1 .\n"]
        {
            assert_eq!(read(garbage.as_bytes()), [], "{garbage:?}");
        }
        assert_eq!(read(b"1 \xff=1 .\n2 a=5 .\n"), [minute(2, &[("a", 5)])]);
    }

    #[test]
    fn only_what_grew_is_written_and_it_adds_up_to_what_was_counted() {
        let counters = |requests, stdin| Counters {
            requests,
            local: vec![(Reason::Stdin, stdin)],
            cache_damaged: 1,
            ..Counters::default()
        };
        let peers: BTreeMap<String, u64> = [("tower".to_owned(), 2)].into();
        let (one, two) = (sums(&counters(3, 1), peers.iter()), sums(&counters(10, 1), peers.iter()));
        assert_eq!((one["requests"], one["local.STDIN"], one["peer.tower"]), (3, 1, 2));
        let by = grown(&one, &two);
        assert_eq!(by, [("requests".to_owned(), 7)].into());
        assert!(grown(&two, &two).is_empty());
        let first = Minute { at: 1, grown: grown(&Sums::new(), &one) };
        let both = [first, Minute { at: 1, grown: by }];
        let held: Sums = two.into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(total(&both, 1), held);
        assert!(total(&both, 2).is_empty());
        // Counted anew: all of it is new.
        assert_eq!(grown(&[("a".to_owned(), 9)].into(), &[("a".to_owned(), 4)].into())["a"], 4);
    }

    #[test]
    fn a_time_is_said_in_minutes_hours_or_days() {
        for (word, minutes) in [("1m", 1), ("30m", 30), ("2h", 120), ("2d", 2880), ("8d", 11_520), ("192h", 11_520)] {
            assert_eq!(Since::parse(word), Ok(Since::Minutes(minutes)), "{word}");
        }
        assert_eq!((Since::parse("build"), Since::parse("boot")), (Ok(Since::Build), Ok(Since::Boot)));
        for word in ["", "m", "0m", "9d", "2", "2s", "-1h", "1.5h", "2 h", "ü", "99999999999999999999d", "builds"] {
            assert!(Since::parse(word).is_err(), "{word:?}");
        }
    }

    #[test]
    fn a_build_begins_after_a_pause() {
        let at = |at| minute(at, &[("requests", 1)]);
        let served = minute(900, &[("served", 1)]);
        let first = |minutes: &[Minute]| Since::Build.first(minutes, 1000 * MINUTE_MS, 0);
        assert_eq!(first(&[]), 1000);
        assert_eq!(first(&[at(10), at(12), at(17), at(40), at(45), at(46), served.clone()]), 40);
        assert_eq!(first(&[at(46), at(40), at(45), at(10)]), 40);
        assert_eq!(first(&[at(10), served]), 10);
        let held = [at(5), at(990)];
        for (since, want) in [(Since::Minutes(30), 970), (Since::Boot, 900), (Since::All, 5)] {
            assert_eq!(since.first(&held, 1000 * MINUTE_MS, 900 * MINUTE_MS), want, "{since:?}");
        }
    }

    #[test]
    fn what_is_too_old_too_much_or_of_a_wrong_clock_goes() {
        let now = 100_000;
        let all: Vec<Minute> = [now - HELD_MINUTES - 1, now - HELD_MINUTES, now, now - 5, now + HELD_MINUTES + 1]
            .map(|at| minute(at, &[("a", 1)]))
            .into();
        let lines = |bytes| kept(all.clone(), now * MINUTE_MS, bytes).concat();
        assert_eq!(lines(1000), "88480 a=1 .\n99995 a=1 .\n100000 a=1 .\n");
        assert_eq!(lines(30), "99995 a=1 .\n100000 a=1 .\n");
        assert_eq!(lines(12), "");
    }
}
