//! `mesh pair`: shows a code with which another machine joins (DO).

use super::{
    client::{Client, places},
    failure::{Failure, out, out_raw, told},
    up::asks,
};
use crate::{
    agent::wire::{Ask, Tell},
    cli::Pair,
    view::rows::sanitised,
};
use std::time::Duration;

/// A pairing window is open for five minutes; the agent closes it, this only bounds the wait for that.
const WINDOW_TIME: Duration = Duration::from_secs(330);
/// Addresses that are shown, items.
const ADDRESSES_SHOWN: usize = 3;

pub(super) fn run(args: &Pair) -> Result<u8, Failure> {
    loop {
        once(args.role.name())?;
        if !asks() || !another()? {
            return Ok(0);
        }
    }
}

/// One window. Ctrl-C ends this process, and with its connection the window.
fn once(role: &str) -> Result<(), Failure> {
    let mut client = Client::ask(&places()?, &Ask::Pair { role: role.to_owned() }, WINDOW_TIME)?;
    loop {
        match client.next()? {
            Tell::PairingCode { code, addresses } => out(&invitation(&code, &addresses)),
            Tell::Note(line) => out(&format!("mesh: {}", told(&line))),
            Tell::Finished(line) => {
                out(&told(&line));
                return Ok(());
            }
            _ => {
                return Err(Failure::new(
                    "the agent speaks another version of mesh. Restart it: mesh down, then mesh up",
                ));
            }
        }
    }
}

fn invitation(code: &str, addresses: &[String]) -> String {
    let code = sanitised(code);
    let mut text = format!("To add a machine, type this there within 5 minutes:\n\n      mesh join {code}\n\n");
    let mut lead = "(no discovery on that network?  ";
    for address in addresses.iter().take(ADDRESSES_SHOWN) {
        let end = if lead.starts_with('(') && addresses.len().min(ADDRESSES_SHOWN) == 1 { ")" } else { "" };
        text.push_str(&format!("      {lead}mesh join {code}@{}{end}\n", sanitised(address)));
        lead = "                            or  ";
    }
    if addresses.len() > 1 {
        text.truncate(text.trim_end().len());
        text.push_str(")\n");
    }
    if !addresses.is_empty() {
        text.push('\n');
    }
    text + "waiting …  Ctrl-C cancels"
}

fn another() -> Result<bool, Failure> {
    out_raw("Add another with the same command? [y/N] ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| Failure::new(format!("no answer could be read: {e}")))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_invitation_is_worded_as_agreed() {
        let addresses = ["192.168.1.20".to_owned(), "[fe80::1]:6374".to_owned()];
        insta::assert_snapshot!(invitation("417-otter-maple", &addresses[..1]), @r"
        To add a machine, type this there within 5 minutes:

              mesh join 417-otter-maple

              (no discovery on that network?  mesh join 417-otter-maple@192.168.1.20)

        waiting …  Ctrl-C cancels
        ");
        insta::assert_snapshot!(invitation("417-otter-maple", &addresses), @r"
        To add a machine, type this there within 5 minutes:

              mesh join 417-otter-maple

              (no discovery on that network?  mesh join 417-otter-maple@192.168.1.20
                                          or  mesh join 417-otter-maple@[fe80::1]:6374)

        waiting …  Ctrl-C cancels
        ");
        insta::assert_snapshot!(invitation("417-otter-maple", &[]), @r"
        To add a machine, type this there within 5 minutes:

              mesh join 417-otter-maple

        waiting …  Ctrl-C cancels
        ");
    }
}
