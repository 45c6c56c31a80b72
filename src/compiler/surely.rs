//! What is certainly compiled here, from the arguments alone (DECIDE).

use super::args::follow_max;
use super::probe;
use crate::reason::Reason;

/// What the launcher can tell without an agent: that a command is certainly not distributed. Allocates nothing.
///
/// It never keeps here what `plan` would send, as far as the arguments go, and says nothing where a response file may
/// change them. It does not know the compiler, so an argument that could be another option's value says nothing either.
#[must_use]
pub fn surely_local<A: AsRef<[u8]>>(argv: &[A]) -> Option<Reason> {
    let args = argv.get(1..).unwrap_or_default();
    let mut compiles = false;
    let mut found = None;
    for (at, arg) in args.iter().enumerate() {
        let arg = arg.as_ref();
        let reason = match arg {
            [b'@', ..] => return None,
            b"-c" | b"-S" | b"--compile" | b"--assemble" => {
                compiles = true;
                continue;
            }
            b"-E" | b"-M" | b"-MM" | b"-###" | b"-v" | b"--version" | b"-fsyntax-only" => Reason::NotCompile,
            b"-" => Reason::Stdin,
            [b'-', ..] => continue,
            path if probe::is_named_like_one(path) => Reason::Probe,
            _ => continue,
        };
        if found.is_none() && !may_be_a_value(args, at) {
            found = Some(reason);
        }
    }
    if compiles { found } else { Some(Reason::NotCompile) }
}

/// Whether one of the arguments before this one may take it for its value.
fn may_be_a_value<A: AsRef<[u8]>>(args: &[A], at: usize) -> bool {
    let before = args[..at].iter().rev().take(VALUES_MAX).enumerate();
    before.into_iter().any(|(distance, arg)| {
        let arg = arg.as_ref();
        arg.first() == Some(&b'-') && follow_max(arg) > distance
    })
}

/// The most arguments that any option takes.
const VALUES_MAX: usize = 3;
