//! Asks the program whether the README tells the truth about its commands and options.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

/// First words that are not commands with a help of their own: the launcher's argv belongs to the compiler.
const LAUNCHER_WORDS: &[&str] = &["cc", "gcc", "g++", "clang", "clang++", "c++"];

/// The commands that a text shows, each with the options shown with it: `mesh WORD …` in code, fenced or not.
fn shown(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let pieces: Vec<&str> =
            if fenced { line.split("&&").collect() } else { line.split('`').skip(1).step_by(2).collect() };
        for piece in pieces {
            let piece = piece.split(" #").next().unwrap_or_default().trim().trim_start_matches("$ ");
            let mut words = piece.split_whitespace();
            if words.next() != Some("mesh") {
                continue;
            }
            let Some(command) = words.next() else { continue };
            let named = command.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !command.starts_with('-');
            if named && !LAUNCHER_WORDS.contains(&command) {
                let options = words.take_while(|word| *word != "--").filter(|word| word.starts_with("--"));
                let names = options.map(|word| word.split('=').next().unwrap_or(word).to_owned());
                out.entry(command.to_owned()).or_default().extend(names);
            }
        }
    }
    out
}

/// What is wrong with a README, given what the program answers to `WORDS --help` (`None`: it knows no such command).
pub(crate) fn check(text: &str, help: impl Fn(&[&str]) -> Option<String>) -> Vec<String> {
    let mut out = Vec::new();
    if help(&["no-such-command"]).is_some() {
        out.push("the program takes any word for a command, so nothing can be checked".into());
    }
    for (command, options) in shown(text) {
        match help(&[&command]) {
            None => out.push(format!("`mesh {command}` does not exist")),
            Some(page) => out.extend(
                options.iter().filter(|o| !page.contains(o.as_str())).map(|o| format!("`mesh {command}` has no {o}")),
            ),
        }
    }
    out
}

/// The program's help on a command, or `None` if it refuses the words.
pub(crate) fn help(program: &str, words: &[&str]) -> Option<String> {
    let command = Command::new(program).args(words).arg("--help").env("MESH", "off").stdin(Stdio::null()).output();
    let output = command.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

mod tests {
    use super::check;

    fn program(words: &[&str]) -> Option<String> {
        (words == ["peers"]).then(|| "Lists peers\n  --json  as JSON".to_owned())
    }

    #[test]
    fn commands_and_options_that_do_not_exist_are_found() {
        assert_eq!(check("Run `mesh peers --json`.\n```\n$ mesh peers\n```", program), Vec::<String>::new());
        assert_eq!(check("Run `mesh fly`.", program), ["`mesh fly` does not exist"]);
        assert_eq!(check("```sh\ncd x && mesh peers --xml  # --why\n```", program), ["`mesh peers` has no --xml"]);
        assert_eq!(check("`mesh cc gcc --version`, mesh fly, `mesh CODE`", program), Vec::<String>::new());
        assert_eq!(check("", |_| Some(String::new())).len(), 1);
    }
}
