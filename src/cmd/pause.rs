//! `mesh pause`, `mesh resume` and `mesh mode`: what this machine lends (DO).

use super::{
    client::{ANSWER_TIME, Client, foreign, places},
    failure::{Failure, USAGE, out, told},
};
use crate::{
    agent::wire::{Ask, ModeChange, Tell},
    cli::{Mode, Pause},
    nearest::nearest,
    sched::guest,
};

/// The longest pause that has an end, seconds.
const PAUSE_S_MAX: u64 = 366 * 24 * 3600;
/// What `mesh mode` takes, besides the modes.
const SETTINGS: &str = "auto";

pub(super) fn pause(args: &Pause) -> Result<u8, Failure> {
    let seconds = match args.time.as_deref() {
        None => None,
        Some(text) => Some(seconds(text).ok_or_else(|| {
            let shown = crate::view::rows::sanitised(text);
            Failure::coded(USAGE, format!("\"{shown}\" is no time. Write it as in: mesh pause 30m; or 90s, 2h, 1d"))
        })?),
    };
    ask(&Ask::Pause { seconds })
}

pub(super) fn resume() -> Result<u8, Failure> {
    ask(&Ask::Resume)
}

pub(super) fn mode(args: &Mode) -> Result<u8, Failure> {
    let change = match args.mode.as_deref() {
        None => None,
        Some(SETTINGS) => Some(ModeChange::Settings),
        Some(word) => Some(ModeChange::To(guest::Mode::named(word).ok_or_else(|| unknown(word))?)),
    };
    ask(&Ask::Mode { change })
}

fn unknown(word: &str) -> Failure {
    let shown = crate::view::rows::sanitised(word);
    let meant = nearest(word, ["off", "idle", "share", "full", SETTINGS]);
    let hint = meant.map_or_else(
        || "It is one of: off, idle, share, full, auto".to_owned(),
        |near| format!("Did you mean: mesh mode {near}"),
    );
    Failure::coded(USAGE, format!("there is no mode \"{shown}\". {hint}"))
}

/// `90s`, `30m`, `2h`, `1d`; a number alone is minutes.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix(|c: char| c.is_ascii_alphabetic()) {
        Some(digits) => (digits, &text[digits.len()..]),
        None => (text, "m"),
    };
    let each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(each).filter(|seconds| (1..=PAUSE_S_MAX).contains(seconds))
}

fn ask(ask: &Ask) -> Result<u8, Failure> {
    match Client::ask(&places()?, ask, ANSWER_TIME)?.next()? {
        Tell::Finished(line) => {
            out(&format!("mesh: {}", told(&line)));
            Ok(0)
        }
        _ => Err(foreign()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_a_unit_and_without_one_are_minutes() {
        let all = ["90s", "30m", "2h", "1d", "5", "0", "", "m", "-1s", "1w", "400d", "1.5h", "１s"];
        let minute = 60;
        let (hour, day) = (60 * minute, 24 * 60 * minute);
        let good = [Some(90), Some(30 * minute), Some(2 * hour), Some(day), Some(5 * minute)];
        assert_eq!(all.map(seconds)[..5], good);
        assert_eq!(all.map(seconds)[5..], [None; 8]);
    }

    #[test]
    fn a_mistyped_mode_is_answered_with_the_nearest() {
        insta::assert_snapshot!(unknown("shar").text, @r#"there is no mode "shar". Did you mean: mesh mode share"#);
        insta::assert_snapshot!(unknown("gently").text, @r#"there is no mode "gently". It is one of: off, idle, share, full, auto"#);
    }
}
