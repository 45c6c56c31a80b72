//! Moments and durations in words (DECIDE).

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// RFC 3339 in UTC with milliseconds, for JSON.
#[must_use]
pub fn rfc3339(ms_since_1970: u64) -> String {
    let (s, ms) = (ms_since_1970 / 1000, ms_since_1970 % 1000);
    let (year, month, day) = civil(s / DAY_S);
    let (h, m, s) = (s % DAY_S / 3600, s % 3600 / 60, s % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}

/// The Gregorian date of a day counted from 1970-01-01, by Howard Hinnant's `civil_from_days`: years begin in March, so
/// that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// A day in UTC as a person says it: `3 June 2026`.
#[must_use]
pub fn day(s_since_1970: u64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let (year, month, day) = civil(s_since_1970 / DAY_S);
    let month = usize::try_from(month).ok().and_then(|month| MONTHS.get(month - 1)).copied().unwrap_or_default();
    format!("{day} {month} {year}")
}

/// A duration in its two largest units: `2 d 3 h`, `2 h 5 min`, `12 min`, `40 s`.
#[must_use]
pub fn span(ms: u64) -> String {
    let s = ms / 1000;
    match (s / DAY_S, s / 3600, s / 60) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, min) => format!("{min} min"),
        (0, h, min) => format!("{h} h {} min", min % 60),
        (d, h, _) => format!("{d} d {} h", h % 24),
    }
}

/// How long ago something was.
#[must_use]
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) {
        0..1000 => "just now".to_owned(),
        ms => format!("{} ago", span(ms)),
    }
}

/// Microseconds with the digits that mean something: `0.4 ms`, `12 ms`, `3.95 s`.
#[must_use]
pub fn milliseconds(us: u64) -> String {
    if us >= 999_500 {
        return seconds(us);
    }
    if us < 9_950 {
        format!("{}.{} ms", (us + 50) / 1000, (us + 50) % 1000 / 100)
    } else {
        format!("{} ms", (us + 500) / 1000)
    }
}

/// Microseconds as seconds with two decimals: `3.95 s`.
#[must_use]
pub fn seconds(us: u64) -> String {
    let hundredths = (us + 5_000) / 10_000;
    format!("{}.{:02} s", hundredths / 100, hundredths % 100)
}

/// Bytes in the largest binary unit: `212 KiB`, `1.9 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut at = 0;
    let mut unit = 1024u64;
    while bytes / unit >= 1024 && at + 1 < units.len() {
        unit *= 1024;
        at += 1;
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, units[at])
    } else {
        format!("{} {}", tenths / 10, units[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        for (ms, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_767_225_599_000, "2025-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(ms), want);
        }
    }

    #[test]
    fn durations_and_sizes_are_as_people_say_them() {
        let spans = [0, 999, 40_000, 725_000, 7_500_000, 183_600_000].map(span);
        insta::assert_snapshot!(spans.join(", "), @"0 s, 0 s, 40 s, 12 min, 2 h 5 min, 2 d 3 h");
        assert_eq!(
            (ago(5, 5).as_str(), ago(9, 5).as_str(), ago(0, 61_000).as_str()),
            ("just now", "just now", "1 min ago")
        );
        insta::assert_snapshot!([40, 400, 3_100, 9_949, 9_950, 12_400, 999_400, 999_500].map(milliseconds).join(", "), @"0.0 ms, 0.4 ms, 3.1 ms, 9.9 ms, 10 ms, 12 ms, 999 ms, 1.00 s");
        insta::assert_snapshot!([0, 3_954_999, 59_999_000].map(seconds).join(", "), @"0.00 s, 3.95 s, 60.00 s");
        insta::assert_snapshot!([0, 1023, 1024, 217_088, 1_992_294, u64::MAX].map(size).join(", "), @"0 bytes, 1023 bytes, 1.0 KiB, 212 KiB, 1.9 MiB, 16777216 TiB");
    }
}
