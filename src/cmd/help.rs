//! `mesh help`: a command's options, or what a reason code means (DO).

use super::failure::{Failure, USAGE, out, out_raw};
use crate::{
    cli::{Cli, Help},
    nearest::nearest,
    reason::Reason,
    view::rows::sanitised,
};
use clap::CommandFactory;

/// Lists all codes.
const CODES: &str = "codes";

pub(super) fn run(args: &Help) -> Result<u8, Failure> {
    let mut at = Cli::command();
    at.build();
    let mut words = args.words.iter();
    let Some(first) = words.next() else {
        // That nobody reads it is no failure.
        let _ = at.print_help();
        return Ok(0);
    };
    if first == CODES {
        Reason::ALL.iter().for_each(|reason| out(&format!("{:<24} {}", reason.code(), reason.text())));
        return Ok(0);
    }
    if let Some(reason) = meant(first) {
        out_raw(&page(reason));
        return Ok(0);
    }
    let mut next = Some(first);
    while let Some(word) = next {
        at = at.find_subcommand(word).cloned().ok_or_else(|| unknown(word))?;
        next = words.next();
    }
    let _ = at.print_long_help();
    Ok(0)
}

/// The reason of a code, however it is written.
fn meant(word: &str) -> Option<Reason> {
    let code = word.to_ascii_uppercase().replace('-', "_");
    Reason::ALL.iter().copied().find(|reason| reason.code() == code)
}

/// What a code means, and what a person can do.
fn page(reason: Reason) -> String {
    let mut text = format!("{}\n\n  {}\n", reason.code(), reason.text());
    if !reason.hint().is_empty() {
        text += &format!("\n  What to do: {}\n", reason.hint());
    }
    text += "\n  How often: mesh stats. Of one file: mesh explain FILE. All codes: mesh help codes\n";
    text
}

fn unknown(word: &str) -> Failure {
    let shown = sanitised(word);
    let command = Cli::command();
    let codes: Vec<String> = Reason::ALL.iter().map(|reason| reason.code().to_lowercase()).collect();
    let of_codes = || nearest(&word.replace('-', "_"), codes.iter().map(String::as_str)).map(str::to_uppercase);
    let names = command.get_subcommands().map(clap::Command::get_name);
    let near = nearest(word, names).map(str::to_owned).or_else(of_codes);
    let hint = near.map_or_else(
        || "mesh help lists the commands, mesh help codes the reasons why a unit was compiled here".to_owned(),
        |near| format!("Did you mean: mesh help {near}"),
    );
    Failure::coded(USAGE, format!("there is no command and no reason \"{shown}\". {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_page_however_it_is_written() {
        for reason in Reason::ALL {
            assert_eq!(meant(reason.code()), Some(*reason));
            assert_eq!(meant(&reason.code().to_lowercase().replace('_', "-")), Some(*reason));
            let page = page(*reason);
            assert!(page.contains(reason.text()) && page.contains(reason.hint()), "{page}");
        }
        insta::assert_snapshot!(page(Reason::NativeArch), @r#"
        NATIVE_ARCH

          The command asks for this machine's own processor (-march=native), and what that means here could not be found out.

          What to do: Write the architecture out, such as -march=x86-64-v3.

          How often: mesh stats. Of one file: mesh explain FILE. All codes: mesh help codes
        "#);
    }

    #[test]
    fn a_slip_of_the_pen_is_pointed_to_what_was_meant() {
        let said = ["pears", "NATIVE_ARC", "xyzzy"].map(|word| unknown(word).text);
        insta::assert_snapshot!(said.join("\n"), @r#"
        there is no command and no reason "pears". Did you mean: mesh help peers
        there is no command and no reason "NATIVE_ARC". Did you mean: mesh help NATIVE_ARCH
        there is no command and no reason "xyzzy". mesh help lists the commands, mesh help codes the reasons why a unit was compiled here
        "#);
    }
}
