//! One file per subcommand; the only place that prints (DO).

mod agent;
mod cache;
pub mod cc;
mod client;
pub mod demo;
mod doctor;
mod down;
mod explain;
mod failure;
mod find;
mod forget;
mod help;
mod install;
mod invite;
mod jobs;
mod join;
mod list;
mod local;
mod pages;
mod pair;
mod pause;
mod peers;
mod renew;
mod setup;
mod start;
mod stats;
mod status;
mod taint;
mod toolchain;
mod up;
mod with;

use crate::{
    cli::{Cli, Command},
    nearest::nearest,
};
use clap::{CommandFactory, Parser, error::ErrorKind};
use failure::{Failure, USAGE, complain, out};
use std::ffi::OsString;

/// Runs a command of mesh's own and gives its exit code.
#[must_use]
pub fn main() -> u8 {
    let words: Vec<OsString> = std::env::args_os().collect();
    if words.len() == 2 && words[1] == "-j" {
        out(&jobs::number().to_string());
        return 0;
    }
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(e) => return misunderstood(&e, &words),
    };
    let json = wants_json(&cli.command);
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure.text);
            if json {
                let error = serde_json::json!({ "exit": failure.code, "text": failure.text });
                out(&serde_json::json!({ "schema": crate::view::rows::SCHEMA, "error": error }).to_string());
            }
            failure.code
        }
    }
}

fn dispatch(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Help(args) => help::run(&args),
        Command::With(args) => with::run(&args),
        Command::Local(args) => local::run(&args),
        Command::Jobs(args) => jobs::run(&args),
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Up(args) => up::run(&args),
        Command::Down => down::run(),
        Command::Pair(args) => pair::run(&args),
        Command::Join(args) => join::run(&args),
        Command::Invite(args) => invite::run(&args),
        Command::Forget(args) => forget::run(&args),
        Command::Taint(args) => taint::run(&args),
        Command::Leave(args) => renew::leave(&args),
        Command::Rekey(args) => renew::rekey(&args),
        Command::Reset(args) => renew::reset(&args),
        Command::List(args) => list::list(&args),
        Command::Id(args) => list::id(&args),
        Command::Peers(args) => peers::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Pause(args) => pause::pause(&args),
        Command::Resume => pause::resume(),
        Command::Mode(args) => pause::mode(&args),
        Command::Toolchain(args) => toolchain::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::Demo => demo::run(),
        Command::Install(args) => install::install(&args),
        Command::Uninstall => install::uninstall(),
        Command::Version => {
            out(concat!("mesh ", env!("CARGO_PKG_VERSION")));
            Ok(0)
        }
        Command::Cc(_) => Err(Failure::coded(
            USAGE,
            "no compiler was named. mesh cc stands before a compile command: mesh cc gcc -c x.c -o x.o",
        )),
    }
}

fn wants_json(command: &Command) -> bool {
    match command {
        Command::Peers(args) => args.json,
        Command::Jobs(args) => args.json,
        Command::Status(args) | Command::Doctor(args) => args.json,
        Command::Explain(args) => args.json,
        Command::Cache(args) => args.json,
        Command::Toolchain(args) => toolchain::wants_json(args),
        _ => false,
    }
}

/// Help and version are no errors; a word that is no command gets one sentence; the rest is clap's to say.
fn misunderstood(error: &clap::Error, words: &[OsString]) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            0
        }
        ErrorKind::InvalidSubcommand if words.len() > 1 && !words[1].is_empty() => {
            let word = words[1].to_string_lossy();
            let known = Cli::command();
            let own = known.get_subcommands().any(|c| c.get_name() == word);
            if own {
                drop(error.print())
            } else {
                complain(&unknown(&word, &known))
            }
            USAGE
        }
        _ => {
            let _ = error.print();
            USAGE
        }
    }
}

fn unknown(word: &str, known: &clap::Command) -> String {
    let names: Vec<&str> = known.get_subcommands().map(clap::Command::get_name).collect();
    let shown = crate::view::rows::sanitised(word);
    match nearest(word, names.iter().copied()) {
        Some(near) => format!("there is no command \"{shown}\". Did you mean: mesh {near}"),
        None => format!("there is no command \"{shown}\". If it is a compiler: mesh cc {shown} …; else see: mesh help"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_command_is_answered_with_the_nearest() {
        let said = ["peesr", "isntall", "frobnicate", "tcc", "a\x1bb"].map(|word| unknown(word, &Cli::command()));
        insta::assert_snapshot!(said.join("\n"), @r#"
        there is no command "peesr". Did you mean: mesh peers
        there is no command "isntall". Did you mean: mesh install
        there is no command "frobnicate". If it is a compiler: mesh cc frobnicate …; else see: mesh help
        there is no command "tcc". Did you mean: mesh cc
        there is no command "a?b". If it is a compiler: mesh cc a?b …; else see: mesh help
        "#);
    }
}
