//! `-march=native` and its kin, written out for this machine's processor (DECIDE).
//!
//! The driver itself is asked what it would run: once for the command's own options ([`question`]), and once more with the
//! answer's words in their place ([`Question::with`]). Only if both runs come to the same ([`agree`]) is the expansion
//! used. Whoever asks runs the driver with the question's arguments and keeps the answers: they change only with the
//! compiler, the processor and these arguments.
//!
//! Measured with gcc 12: the object of an expanded command is that of `-march=native`, except where gcc records its
//! options in it (`-g`, `-flto`, `-frecord-gcc-switches`, `-fverbose-asm`), because `--param` moves behind the other options.
//! The plan keeps those units here. clang's processor features reach its front end by `-Xclang -target-feature`.

use super::args::{Effect, lookup};
use super::invocation::Family;
use super::response::split;
use crate::launch::names::basename;

/// What the driver is asked, and where in it the native options stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The driver as typed, then arguments that make it print what it would run. Nothing in it names a source.
    pub argv: Vec<Vec<u8>>,
    /// The native options, by index into `argv`.
    pub native: Vec<usize>,
    family: Family,
}

/// What makes a driver say how it would compile nothing. (How it would preprocess it does not do: gcc leaves `--param` out.)
const ASK: &[&str] = &["-###", "-S", "-o", "/dev/null", "-x", "c", "/dev/null"];

/// The question for a command whose native options the plan has found: its options that choose a processor or a target.
#[must_use]
pub fn question(argv: &[Vec<u8>], native: &[usize], family: Family) -> Question {
    let mut asked = Question { argv: Vec::new(), native: Vec::new(), family };
    asked.argv.extend(argv.first().cloned());
    asked.argv.extend(ASK.iter().map(|a| a.as_bytes().to_vec()));
    let mut at = 1;
    while at < argv.len() {
        let (arg, index) = (argv[at].as_slice(), at);
        at += 1;
        if arg == b"--" {
            break;
        }
        let Some(found) = lookup(arg, family).filter(|_| arg.first() == Some(&b'-')) else { continue };
        at = (at + found.follow).min(argv.len());
        let name = found.row.name;
        let machine = name.starts_with("-m") && !matches!(found.row.effect, Effect::Llvm | Effect::Suspect);
        if !machine && !matches!(name, "-target" | "--target=" | "-arch" | "-EL" | "-EB") {
            continue;
        }
        if native.contains(&index) {
            asked.native.push(asked.argv.len());
        }
        asked.argv.extend_from_slice(&argv[index..at]);
    }
    asked
}

impl Question {
    /// The question with the expansion in place of the native options: what is to be asked next.
    #[must_use]
    pub fn with(&self, expansion: &[Vec<u8>]) -> Vec<Vec<u8>> {
        substitute(&self.argv, &self.native, expansion)
    }

    /// What the native options stand for, by the driver's answer (its standard error). `None` if the answer is not
    /// understood, or holds a word to the user that the expanded command would not get.
    #[must_use]
    pub fn expansion(&self, answer: &[u8]) -> Option<Vec<Vec<u8>>> {
        if self.complains(answer) {
            return None;
        }
        let words = front_end(answer)?;
        let expansion = match self.family {
            Family::Gcc => self.expansion_gcc(&words)?,
            Family::Clang => self.expansion_clang(&words)?,
        };
        let native = expansion.iter().any(|w| w.ends_with(b"=native"));
        (!native && !expansion.is_empty()).then_some(expansion)
    }

    /// Whether the driver itself said something: its lines begin with its own name, in every language. Where it was run by
    /// another name than the command's, only its English is recognised.
    fn complains(&self, answer: &[u8]) -> bool {
        let name = self.argv.first().map_or(&b""[..], Vec::as_slice);
        let own = |line: &[u8]| {
            [name, basename(name)].iter().any(|n| line.strip_prefix(*n).is_some_and(|rest| rest.starts_with(b": ")))
        };
        let english = |line: &[u8]| {
            let mut marks = [&b": warning: "[..], b": error: "].into_iter();
            !line.starts_with(b" ") && marks.any(|m| line.windows(m.len()).any(|w| w == m))
        };
        answer.split(|b| *b == b'\n').any(|line| own(line) || english(line))
    }

    /// gcc writes the options out on its front end's command line, before the command's own.
    fn expansion_gcc(&self, words: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
        let mut expansion = Vec::new();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            if word == b"--param" {
                expansion.push([b"--param=", rest.next()?.as_slice()].concat());
            } else if word.starts_with(b"--param=") || word.starts_with(b"-m") {
                expansion.push(word.clone());
            }
        }
        let own = self.argv.iter().enumerate().filter(|(at, _)| !self.native.contains(at));
        for (_, arg) in own.filter(|(_, arg)| arg.starts_with(b"-m")) {
            if let Some(at) = expansion.iter().rposition(|word| word == arg) {
                expansion.remove(at);
            }
        }
        Some(expansion)
    }

    /// clang's front end gets a processor and a list of features, not all of which the driver has options for.
    fn expansion_clang(&self, words: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
        let after = |name: &[u8]| words.iter().position(|w| w == name).and_then(|at| words.get(at + 1));
        let mut expansion = Vec::new();
        let mut features = false;
        for at in &self.native {
            let option = self.argv.get(*at)?;
            let name = option.split_inclusive(|b| *b == b'=').next()?;
            let tunes = name == b"-mtune=";
            features |= !tunes;
            let processor = after(if tunes { b"-tune-cpu" } else { b"-target-cpu" })?;
            expansion.push([name, processor].concat());
        }
        expansion.sort_unstable();
        expansion.dedup();
        let pairs = words.windows(2).filter(|pair| features && pair[0] == b"-target-feature");
        for pair in pairs {
            expansion.extend([&b"-Xclang"[..], b"-target-feature", b"-Xclang", &pair[1]].map(<[u8]>::to_vec));
        }
        Some(expansion)
    }

    /// Whether the answer to the expanded question comes to the same as the answer to this one.
    #[must_use]
    pub fn agree(&self, answer: &[u8], expanded: &[u8]) -> bool {
        if self.complains(answer) || self.complains(expanded) {
            return false;
        }
        match (front_end(answer), front_end(expanded)) {
            (Some(one), Some(other)) => Parts::of(&one, self.family) == Parts::of(&other, self.family),
            _ => false,
        }
    }
}

/// The command with the expansion in place of its native options. It goes to the front: both compilers let the options
/// that the command itself names come after what `native` stands for.
#[must_use]
pub fn substitute(argv: &[Vec<u8>], native: &[usize], expansion: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut out = Vec::with_capacity(argv.len() + expansion.len());
    out.extend(argv.first().cloned());
    out.extend_from_slice(expansion);
    let kept = argv.iter().enumerate().skip(1).filter(|(at, _)| !native.contains(at));
    out.extend(kept.map(|(_, arg)| arg.clone()));
    out
}

/// The words of the front end's command line in an answer.
fn front_end(answer: &[u8]) -> Option<Vec<Vec<u8>>> {
    answer.split(|b| *b == b'\n').filter(|line| line.starts_with(b" ")).find_map(|line| {
        let words = split(line).ok()?;
        let is_cc1 = basename(words.first()?) == b"cc1" || words.get(1)? == b"-cc1";
        is_cc1.then_some(words)
    })
}

/// A front end's command line in the kinds of words of which only the order among themselves counts.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    machine: Vec<&'a [u8]>,
    parameters: Vec<&'a [u8]>,
    rest: Vec<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn of(words: &'a [Vec<u8>], family: Family) -> Self {
        let mut parts = Self { machine: Vec::new(), parameters: Vec::new(), rest: Vec::new() };
        let mut words = words.iter().map(Vec::as_slice);
        while let Some(word) = words.next() {
            match (family, word) {
                (Family::Gcc, b"--param") => parts.parameters.extend(words.next()),
                (Family::Clang, b"-target-feature") => parts.machine.extend(words.next()),
                (Family::Gcc, [b'-', b'm', ..]) => parts.machine.push(word),
                (Family::Gcc, _) if word.starts_with(b"--param=") => parts.parameters.push(&word[8..]),
                _ => parts.rest.push(word),
            }
        }
        if family == Family::Gcc {
            // gcc's driver and its front end both drop an option that a later one takes back.
            let all = parts.machine.clone();
            let mut at = 0;
            parts.machine.retain(|word| {
                at += 1;
                !all[at..].iter().any(|later| switch(later) == switch(word))
            });
        }
        parts
    }
}

/// What `-mNAME` and `-mno-NAME` switch; an option with a value is itself.
fn switch(word: &[u8]) -> &[u8] {
    word.strip_prefix(b"-mno-").or_else(|| word.strip_prefix(b"-m")).unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<u8>> {
        text.split_whitespace().map(|w| w.as_bytes().to_vec()).collect()
    }

    const GCC: &str = "Using built-in specs.\nCOLLECT_GCC=gcc\n /usr/lib/gcc/x86_64-linux-gnu/12/cc1 -E -quiet -imultiarch \
        x86_64-linux-gnu /dev/null \"-march=znver3\" -mavx2 -mno-sgx --param \"l1-cache-size=32\" \"-mtune=znver3\" \
        -m64 -dumpbase null\n";

    #[test]
    fn gcc_writes_its_processor_out() {
        let command = words("gcc -O2 -march=native -m64 -c a.c -o a.o");
        let asked = question(&command, &[2], Family::Gcc);
        assert_eq!(asked.argv, words("gcc -### -S -o /dev/null -x c /dev/null -march=native -m64"));
        let expansion = asked.expansion(GCC.as_bytes()).expect("understood");
        assert_eq!(expansion, words("-march=znver3 -mavx2 -mno-sgx --param=l1-cache-size=32 -mtune=znver3"));
        let expanded = substitute(&command, &[2], &expansion);
        assert_eq!(
            expanded,
            words("gcc -march=znver3 -mavx2 -mno-sgx --param=l1-cache-size=32 -mtune=znver3 -O2 -m64 -c a.c -o a.o")
        );
    }

    #[test]
    fn answers_agree_only_if_the_same_is_run() {
        let asked = question(&words("gcc -march=native"), &[1], Family::Gcc);
        let moved = " /usr/lib/gcc/x86_64-linux-gnu/12/cc1 -E -quiet -imultiarch x86_64-linux-gnu /dev/null -march=znver3 \
            -mavx2 -mno-sgx -mtune=znver3 -m64 -dumpbase null --param=l1-cache-size=32\n";
        assert!(asked.agree(GCC.as_bytes(), moved.as_bytes()));
        assert!(asked.agree(GCC.as_bytes(), moved.replace("-mno-sgx", "-msgx -mno-sgx").as_bytes()));
        assert!(!asked.agree(GCC.as_bytes(), moved.replace("-mno-sgx", "").as_bytes()));
        assert!(!asked.agree(GCC.as_bytes(), moved.replace("-mno-sgx", "-msgx").as_bytes()));
        assert!(!asked.agree(GCC.as_bytes(), moved.replace("size=32", "size=64").as_bytes()));
        assert!(!asked.agree(GCC.as_bytes(), b""));
    }

    #[test]
    fn a_driver_that_complains_is_not_believed() {
        let asked = question(&words("/usr/bin/gcc -mcpu=native"), &[1], Family::Gcc);
        let answer = format!("gcc: Warnung: -mcpu= ist veraltet\n{GCC}");
        assert_eq!(asked.expansion(answer.as_bytes()), None);
        let answer = format!("x86_64-linux-gnu-gcc-12: warning: -mcpu= is deprecated\n{GCC}");
        assert_eq!(asked.expansion(answer.as_bytes()), None);
        assert_eq!(asked.expansion(b"no such thing"), None);
    }

    #[test]
    fn clang_gets_its_features_through_to_the_front_end() {
        let asked = question(&words("clang -march=native -mtune=native -mllvm -x -c a.c"), &[1, 2], Family::Clang);
        assert_eq!(asked.argv, words("clang -### -S -o /dev/null -x c /dev/null -march=native -mtune=native"));
        let answer = " \"/usr/bin/clang\" \"-cc1\" \"-target-cpu\" \"znver3\" \"-target-feature\" \"+avx2\" \
            \"-target-feature\" \"-sgx\" \"-tune-cpu\" \"znver3\" \"-E\"\n";
        assert_eq!(
            asked.expansion(answer.as_bytes()).expect("understood"),
            words(
                "-march=znver3 -mtune=znver3 -Xclang -target-feature -Xclang +avx2 -Xclang -target-feature -Xclang -sgx"
            )
        );
    }
}
