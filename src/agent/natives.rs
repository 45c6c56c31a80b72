//! What `-march=native` and its kin mean on this machine (DO).

use super::Agent;
use crate::{
    compiler::{native, plan::Plan},
    reason::Reason,
    toolchain::{Toolchain, native_trace},
};

/// Answers about native options that are kept.
const NATIVES_MAX: usize = 256;

/// Writes `-march=native` and its kin out for this machine's processor. The answer holds for as long as the agent lives:
/// the compiler is known by its content, and the processor stays.
pub(super) fn expanded(
    agent: &Agent,
    toolchain: &Toolchain,
    plan: &Plan,
    argv: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, Reason> {
    if plan.native.is_empty() {
        return Ok(argv);
    }
    let question = native::question(&argv, &plan.native, toolchain.family);
    let key = (toolchain.fingerprint, question);
    let known = agent.natives.lock().expect("no panic while held").get(&key).cloned();
    let expansion = match known {
        Some(expansion) => expansion,
        None => {
            let expansion = ask(toolchain, &key.1);
            let mut natives = agent.natives.lock().expect("no panic while held");
            if natives.len() >= NATIVES_MAX {
                natives.clear();
            }
            natives.insert(key, expansion.clone());
            expansion
        }
    };
    Ok(native::substitute(&argv, &plan.native, &expansion.ok_or(Reason::NativeArch)?))
}

fn ask(toolchain: &Toolchain, question: &native::Question) -> Option<Vec<Vec<u8>>> {
    let answer = native_trace(toolchain, question.argv.get(1..)?).ok()?;
    let expansion = question.expansion(&answer)?;
    let expanded = native_trace(toolchain, question.with(&expansion).get(1..)?).ok()?;
    question.agree(&answer, &expanded).then_some(expansion)
}
