//! What one checkout of a project has compiled, another one has (DO).
//!
//! A unit's portable key is its key with a token in the place of its root ([`portable`]): in the command, the working
//! directory, and the paths of what it may read. By that it is noted which kept result a unit of another checkout may have,
//! if nothing of it tells where it was made; only the dependency list is written anew. It is worked out only for a unit of
//! which nothing is kept as it is, and only on this machine: no other one is asked by it.

use super::{
    Agent,
    cache::{self, Had},
    compile::Unit,
    phases::measured,
    seek,
};
use crate::{
    compiler::{dependencies, invocation::Family, portable},
    store::{checkouts::Made, results::Kept},
};
use mesh_proto::{
    closure::{Entry, Node},
    digest::Digest,
    job::{Job, Output},
    key::{ActionKey, EntryKey},
    path::AbsPath,
};
use std::time::Instant;

/// What another checkout may have a unit's result by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Portable {
    key: Digest,
    root: Vec<u8>,
    family: Family,
}

/// The portable key of a unit that has a key; `None` if what it makes may tell where it was made.
pub(super) fn of(unit: &Unit) -> Option<Portable> {
    unit.key?;
    let (toolchain, closure, job) = (unit.toolchain(), &unit.closure, &unit.job);
    // A list that the compiler made knows names that no text has.
    if closure.places || job.strict {
        return None;
    }
    let files = closure.keyed().map(|(entry, _)| entry).filter(|entry| !matches!(entry.node, Node::Directory));
    let files: Vec<&[u8]> = files.map(|entry| entry.path.as_bytes()).collect();
    let lowest = portable::root(unit.plan(), &job.cwd)?;
    let root = portable::raised(lowest, closure.climb.into(), unit.plan(), &job.cwd, files.iter().copied())?;
    if !portable::is_movable(&root) {
        return None;
    }
    let is_inside = |path: &AbsPath| portable::below(path.as_bytes(), &root).is_some();
    if toolchain.manifest.parts.iter().any(|part| is_inside(&part.path)) {
        return None;
    }
    // The root is no symbolic link and below none: the real place of the object is below it.
    if !closure.output_dirs.iter().all(is_inside) || closure.keyed().any(|(entry, _)| leads_away(entry, &root)) {
        return None;
    }
    let moved = Job {
        argv: portable::argv(&job.argv, &root)?,
        env: portable::env(&job.env, &job.cwd, &root)?,
        cwd: portable::anywhere(&job.cwd, &root)?,
        ..job.clone()
    };
    // Without the directories that the root lies in: where it is they are.
    let outside = closure.keyed().filter(|(entry, _)| !is_inside(&entry.path) && !holds(entry, &root));
    let inside = closure.keyed().filter_map(|(entry, _)| Some((entry, moved_key(entry, &root)?)));
    let action = ActionKey::of(&moved, outside.chain(inside), cache::has_programs(&toolchain.manifest));
    let mut hasher = blake3::Hasher::new_derive_key("mesh 2026 portable key v1");
    hasher.update(&action.0.0);
    Some(Portable { key: Digest(*hasher.finalize().as_bytes()), root, family: toolchain.family })
}

/// Whether an entry is a symbolic link on the way to a root or in its place, or one that may lead out of it.
fn leads_away(entry: &Entry, root: &[u8]) -> bool {
    let Node::Symlink { target } = &entry.node else { return false };
    let path = entry.path.as_bytes();
    portable::below(root, path).is_some() || portable::below(path, root).is_some() && !portable::is_plain_link(target)
}

/// Whether an entry is a directory on the way to a root.
fn holds(entry: &Entry, root: &[u8]) -> bool {
    matches!(entry.node, Node::Directory) && portable::below(root, entry.path.as_bytes()).is_some()
}

/// What an entry below a root adds to a portable key.
fn moved_key(entry: &Entry, root: &[u8]) -> Option<EntryKey> {
    let rest = portable::below(entry.path.as_bytes(), root)?;
    let mut hasher = blake3::Hasher::new_derive_key("mesh 2026 portable closure entry v1");
    hasher.update(&(rest.len() as u64).to_le_bytes());
    hasher.update(rest);
    match &entry.node {
        Node::File(file) => {
            hasher.update(&[0, file.executable.into()]);
            hasher.update(&file.digest.0);
        }
        Node::Symlink { target } => {
            hasher.update(&[1]);
            hasher.update(target);
        }
        Node::Directory => {
            hasher.update(&[2]);
        }
    }
    Some(EntryKey(*hasher.finalize().as_bytes()))
}

/// A result as it is in a checkout with another root, with the outputs' bytes; `None` if anything of it tells where it was
/// made. The outputs' packed bytes are not part of it.
fn moved(kept: &Kept, made: &Portable, to: &[u8]) -> Option<(Kept, Vec<Vec<u8>>)> {
    if !kept.outcome.text.is_empty() {
        return None;
    }
    let mut outcome = kept.outcome.clone();
    let mut bytes = cache::unpacked(kept)?;
    for (output, bytes) in outcome.outputs.iter_mut().zip(&mut bytes) {
        let rest = portable::below(output.path.as_bytes(), &made.root)?;
        let path = AbsPath::new([to, rest].concat()).ok()?;
        if bytes.starts_with(OBJECT) {
            if !portable::is_silent(bytes, &made.root) {
                return None;
            }
            output.path = path;
            continue;
        }
        *bytes = dependencies::moved(bytes, made.family, &made.root, to)?;
        *output = Output { path, digest: Digest::of(bytes), size: bytes.len() as u64, executable: output.executable };
    }
    let Kept { key, executor, made_ms, signature, .. } = *kept;
    Some((Kept { key, executor, outcome, packed: Vec::new(), made_ms, signature }, bytes))
}

/// How an object begins; what begins otherwise is read as a dependency list.
const OBJECT: &[u8] = b"\x7fELF";

/// Notes that other checkouts may have a result that is kept now, if they may; blocking.
pub(super) fn keep(agent: &Agent, portable: Portable, kept: &Kept) {
    if moved(kept, &portable, &portable.root).is_some_and(|(same, _)| same.outcome == kept.outcome) {
        let Portable { key, root, .. } = portable;
        agent.cache.checkouts.put(&Made { portable: key, key: kept.key, root });
    }
}

/// Places what another checkout has made of a unit; blocking.
pub(super) fn look(agent: &Agent, unit: &Unit) -> Option<Had> {
    let (results, portable) = (agent.cache.results.as_ref()?, unit.portable.as_ref()?);
    let began = Instant::now();
    let (found, cpu_us) = measured(|| {
        let made = agent.cache.checkouts.get(&portable.key).filter(|made| portable::is_movable(&made.root))?;
        let Some(kept) = results.get(&made.key) else {
            agent.cache.checkouts.remove(&portable.key);
            return None;
        };
        seek::believed(agent, &kept.executor, kept.made_ms).filter(|_| seek::is_taken(agent, unit, &kept.executor))?;
        let maker = Portable { root: made.root, ..portable.clone() };
        let (kept, bytes) = moved(&kept, &maker, &portable.root)?;
        let placed = agent.temporaries.place(&unit.made(&kept.outcome, bytes)?, unit.umask()).ok()?;
        Some((kept, placed, maker.root))
    });
    let (kept, placed, root) = found?;
    let had = Had::new(unit, &kept, placed, (began, cpu_us));
    Some(Had { elsewhere: Some(root).filter(|root| *root != portable.root), ..had })
}
