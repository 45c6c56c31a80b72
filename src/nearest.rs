//! The known word that a mistyped one most likely means (DECIDE).

/// Words further away than this are no guess, edits.
const EDITS_MAX: usize = 2;

/// The known word nearest to `word`, if it is near enough to be meant: at most two letters added, dropped, changed or
/// swapped with their neighbour, and fewer than the word has.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let far = |known: &&str| edits(&word, &known.chars().collect::<Vec<_>>());
    let (known, edits) = known.into_iter().map(|k| (k, far(&k))).min_by_key(|(_, edits)| *edits)?;
    (edits <= EDITS_MAX && edits < word.len()).then_some(known)
}

/// Optimal string alignment distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_understood_and_other_words_are_not() {
        let known = ["peers", "pair", "status", "up", "down"];
        for (word, want) in [
            ("pers", Some("peers")),
            ("peesr", Some("peers")),
            ("Status", Some("status")),
            ("pu", Some("up")),
            ("stats", Some("status")),
            ("downn", Some("down")),
            ("x", None),
            ("compile", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), want, "{word}");
        }
        assert_eq!(nearest("a", []), None);
    }
}
