//! The code that a person carries from one machine to the other: `417-otter-maple` (AGREE).
//!
//! Three digits that everybody may hear (they find the right machine) and two words that nobody may (22 bits, worth
//! three guesses). The words are our own list, `words.txt`: 2048 short English words, sorted, no two alike.

use crate::advert::DISCRIMINATORS;
use rand_core::{CryptoRng, RngCore};
use std::sync::OnceLock;

/// Words in the list: a power of two, so that random bits choose evenly.
const WORDS: usize = 2048;

/// A pairing code.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    discriminator: u16,
    words: [usize; 2],
}

/// Why a text is not a code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Not three digits and two words.
    #[error("a code is three digits and two words, such as 417-otter-maple")]
    Form,
    /// A word that is in no code.
    #[error("\"{0}\" is in no code; is it misspelt?")]
    Word(String),
}

impl Code {
    /// A new code.
    pub fn random(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut word = || rng.next_u32() as usize % WORDS;
        let words = [word(), word()];
        // The modulus favours some digits by one in four million; they are public.
        let discriminator = u16::try_from(rng.next_u32() % u32::from(DISCRIMINATORS)).expect("below a thousand");
        Self { discriminator, words }
    }

    /// Reads a code as a person types it: any case; hyphens, spaces, underscores or dots between the parts.
    ///
    /// # Errors
    /// If it is none. A word that is in no code is named, before it costs one of three tries.
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        let between = |c: char| c.is_whitespace() || matches!(c, '-' | '_' | '.' | '–' | '—');
        let parts: Vec<String> = text.split(between).filter(|p| !p.is_empty()).map(str::to_lowercase).collect();
        let [digits, one, two] = parts.as_slice() else { return Err(CodeError::Form) };
        if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(CodeError::Form);
        }
        let find = |word: &String| words().binary_search(&word.as_str()).map_err(|_| CodeError::Word(word.clone()));
        Ok(Self { discriminator: digits.parse().map_err(|_| CodeError::Form)?, words: [find(one)?, find(two)?] })
    }

    /// The three digits, as a number: they are announced, and prove nothing.
    #[must_use]
    pub fn discriminator(&self) -> u16 {
        self.discriminator
    }

    /// The secret part, as both sides feed it to the key exchange.
    pub(super) fn password(&self) -> String {
        self.words.map(|at| words()[at]).join("-")
    }
}

impl std::fmt::Display for Code {
    /// The code as it is shown. It is a secret: only for the person's own terminal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:03}-{}", self.discriminator, self.password())
    }
}

impl std::fmt::Debug for Code {
    /// The public digits only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:03}-…", self.discriminator)
    }
}

fn words() -> &'static [&'static str] {
    static LIST: OnceLock<Vec<&'static str>> = OnceLock::new();
    LIST.get_or_init(|| include_str!("words.txt").lines().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_list_has_2048_sorted_distinct_short_words() {
        assert_eq!(words().len(), WORDS);
        assert!(words().is_sorted_by(|one, two| one < two));
        for word in words() {
            assert!((3..=7).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
        }
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code = Code::parse("417-otter-maple").expect("a code");
        for text in ["417 Otter Maple", " 417-OTTER-maple\n", "417_otter_maple", "417.otter - maple"] {
            assert_eq!(Code::parse(text).as_ref(), Ok(&code), "{text}");
        }
        assert_eq!(code.to_string(), "417-otter-maple");
        assert_eq!(format!("{code:?}"), "417-…");
        assert_eq!(Code::parse("007-otter-maple").map(|c| c.to_string()).as_deref(), Ok("007-otter-maple"));
    }

    #[test]
    fn what_is_no_code_is_refused_and_a_wrong_word_named() {
        for text in ["", "417", "417-otter", "41-otter-maple", "4170-otter-maple", "٤١٧-otter-maple", "a-b-c-d"] {
            assert_eq!(Code::parse(text), Err(CodeError::Form), "{text}");
        }
        assert_eq!(Code::parse("417-oter-maple"), Err(CodeError::Word("oter".into())));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = Code::parse(&text);
        }
    }
}
