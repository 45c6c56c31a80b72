//! The lower rungs of the ladder: the compiler's own list, kept from last time or made now (DO).
//!
//! Only for units whose includes a walk cannot decide, and never for `__has_include`, which no list shows. `-M` costs
//! about half of a preprocessor run, on this machine; how often that happens is counted by the caller.

use super::node::{Data, NodeId};
use super::world::{Kind, Time};
use super::{Closure, Graph, Undecidable, Want, deps};
use crate::reason::Reason;
use mesh_proto::digest::Digest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Wall time of one `-M`, milliseconds.
const ASK_MS_MAX: u64 = 30_000;
/// What a list may hold, bytes.
const LIST_BYTES_MAX: usize = 8 << 20;
/// Lists kept; beyond it all are dropped. A list of 500 paths takes about 40 KB.
pub(super) const LISTS_MAX: usize = 1000;
/// How long a compiler that closed its output may take to end, milliseconds.
const END_MS_MAX: u64 = 1000;

/// A compiler command as it is run on this machine.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The compiler.
    pub program: &'a [u8],
    /// The command's arguments, `argv[0]` first.
    pub argv: &'a [Vec<u8>],
    /// The real working directory, or the one that `PWD` spells.
    pub cwd: &'a [u8],
    /// The command's environment.
    pub env: &'a [(Vec<u8>, Vec<u8>)],
}

/// How a closure was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// The walk alone.
    Graph,
    /// The walk and the compiler's list from last time.
    Kept,
    /// The walk and a list made now.
    Asked,
}

/// A list that the compiler made, and what it was made of.
#[derive(Debug)]
pub(super) struct Kept {
    list: Arc<[Vec<u8>]>,
    files: Vec<(NodeId, u32)>,
    dirs: Vec<(NodeId, u64)>,
    epoch: u32,
}

/// Climbs down the ladder until there is a closure. The graph is not locked while the compiler runs.
///
/// # Errors
/// Why the unit stays here.
pub fn closure(graph: &Mutex<Graph>, want: &Want<'_>, question: &Question<'_>) -> Result<(Closure, Rung), Reason> {
    let local = |undecidable| match undecidable {
        Undecidable::Local(reason) => reason,
        Undecidable::AskCompiler => Reason::ComputedInclude,
    };
    let key = question.key();
    {
        let mut graph = lock(graph);
        match graph.closure(want) {
            Ok(closure) => return Ok((closure, Rung::Graph)),
            Err(Undecidable::Local(reason)) => return Err(reason),
            Err(Undecidable::AskCompiler) => {}
        }
        if let Some(list) = graph.recall(&key) {
            return graph.closure_with(want, Some(&list)).map(|closure| (closure, Rung::Kept)).map_err(local);
        }
    }
    let began = lock(graph).world.now();
    let list = list(question)?;
    let mut graph = lock(graph);
    // What the list was made of must be older than the question, so that the closure is checked anew for it.
    let want = Want { requested_at: graph.arrivals.arrive(), ..*want };
    let closure = graph.closure_with(&want, Some(&list)).map_err(local)?;
    if !graph.is_older(&closure, began) {
        return Err(Reason::Changing);
    }
    graph.keep(key, list.into(), &closure);
    Ok((closure, Rung::Asked))
}

fn lock(graph: &Mutex<Graph>) -> MutexGuard<'_, Graph> {
    // A panic under the lock may have left marks of its walk, which the next walk's number makes void.
    graph.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The arguments that make the compiler list what `argv` would read: the same without outputs.
#[must_use]
pub fn arguments(argv: &[Vec<u8>]) -> Vec<&[u8]> {
    let mut kept: Vec<&[u8]> = Vec::with_capacity(argv.len() + 1);
    let mut args = argv.iter().skip(1).map(Vec::as_slice);
    let mut is_option = true;
    while let Some(arg) = args.next() {
        match arg {
            _ if !is_option => kept.push(arg),
            b"--" => {
                is_option = false;
                kept.push(b"-M");
                kept.push(arg);
            }
            b"-o" | b"-MF" | b"-MT" | b"-MQ" | b"-MJ" => {
                args.next();
            }
            // These take the next argument, whatever it looks like.
            b"-D"
            | b"-U"
            | b"-I"
            | b"-include"
            | b"-imacros"
            | b"-isystem"
            | b"-iquote"
            | b"-idirafter"
            | b"-x"
            | b"-Xclang"
            | b"-isysroot"
            | b"-iprefix"
            | b"-iwithprefix"
            | b"-iwithprefixbefore"
            | b"-target"
            | b"--param"
            | b"-arch" => {
                kept.push(arg);
                kept.extend(args.next());
            }
            b"-c" | b"-S" | b"-E" | b"-fsyntax-only" => {}
            _ if arg.starts_with(b"-M") || arg.starts_with(b"-o") || arg.starts_with(b"-Wp,-M") => {}
            _ => kept.push(arg),
        }
    }
    if is_option {
        kept.push(b"-M");
    }
    kept
}

/// Runs the compiler with `-M`.
fn list(question: &Question<'_>) -> Result<Vec<Vec<u8>>, Reason> {
    let text = run(question).ok_or(Reason::ComputedInclude)?;
    deps::parse(&text).filter(|list| !list.is_empty()).ok_or(Reason::ComputedInclude)
}

fn run(question: &Question<'_>) -> Option<Vec<u8>> {
    let os = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let mut command = Command::new(os(question.program));
    command
        .arg0(question.argv.first().map_or_else(|| os(question.program), |name| os(name)))
        .args(arguments(question.argv).into_iter().map(os))
        .current_dir(os(question.cwd))
        .env_clear()
        .envs(question.env.iter().map(|(name, value)| (os(name), OsString::from_vec(value.clone()))))
        // Lists that the environment asks for would be written here a second time.
        .env_remove("DEPENDENCIES_OUTPUT")
        .env_remove("SUNPRO_DEPENDENCIES")
        .env_remove("CC_PRINT_HEADERS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    let mut child = command.spawn().ok()?;
    let text = read_until_end(&mut child, Instant::now() + Duration::from_millis(ASK_MS_MAX));
    let is_good = text.is_some() && ends_well(&mut child);
    if !is_good {
        if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // Its own children too; gone already is as good.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.wait();
        return None;
    }
    text
}

fn read_until_end(child: &mut Child, deadline: Instant) -> Option<Vec<u8>> {
    let mut out = child.stdout.take()?;
    let mut text = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        let left = Timespec { tv_sec: i64::try_from(left.as_secs()).ok()?, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::new(&out, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        }
        match out.read(&mut buffer).ok()? {
            0 => return Some(text),
            _ if text.len() > LIST_BYTES_MAX => return None,
            count => text.extend_from_slice(&buffer[..count]),
        }
    }
}

fn ends_well(child: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_millis(END_MS_MAX);
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => return false,
        }
    }
    false
}

impl Question<'_> {
    /// What a kept list is found by.
    fn key(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(self.program);
        field(self.cwd);
        field(&(self.argv.len() as u64).to_le_bytes());
        self.argv.iter().for_each(|arg| field(arg));
        for (name, value) in self.env {
            field(name);
            field(value);
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

impl Graph {
    /// A kept list, if every file behind it is unchanged and every directory has the same names.
    fn recall(&mut self, key: &Digest) -> Option<Arc<[Vec<u8>]>> {
        let kept = self.kept.remove(key).filter(|kept| kept.epoch == self.epoch)?;
        let is_good = kept.files.iter().all(|(id, entry)| {
            self.load(*id, false).is_ok() && self.node(*id).entry.as_ref().is_some_and(|named| named.id == *entry)
        }) && kept
            .dirs
            .iter()
            .all(|(id, names)| self.list_whole(*id).is_ok() && self.names_hash(*id) == Some(*names));
        let list = Arc::clone(&kept.list);
        if is_good {
            self.kept.insert(*key, kept);
        }
        is_good.then_some(list)
    }

    fn keep(&mut self, key: Digest, list: Arc<[Vec<u8>]>, closure: &Closure) {
        if self.kept.len() >= LISTS_MAX {
            self.kept.clear();
        }
        let named = closure.nodes.iter().zip(closure.entries.iter());
        let files = named.filter(|(id, _)| self.kind(**id) == Some(Kind::File)).map(|(id, named)| (*id, named.id));
        let files = files.collect();
        let is_listed = |id: &NodeId| matches!(self.node(*id).data, Data::Dir(_));
        let listed: Vec<NodeId> = closure.nodes.iter().copied().filter(is_listed).collect();
        let mut dirs = Vec::with_capacity(listed.len());
        for id in listed {
            match (self.list_whole(id), self.names_hash(id)) {
                (Ok(()), Some(names)) => dirs.push((id, names)),
                _ => return,
            }
        }
        let kept = Kept { list, files, dirs, epoch: self.epoch };
        self.kept.insert(key, kept);
    }

    fn names_hash(&self, id: NodeId) -> Option<u64> {
        match &self.node(id).data {
            Data::Dir(dir) => Some(dir.listing.fingerprint()),
            _ => None,
        }
    }

    /// Whether no file of a closure changed since `began`, nor so shortly before that it cannot be told.
    fn is_older(&self, closure: &Closure, began: Time) -> bool {
        closure
            .nodes
            .iter()
            .map(|id| self.node(*id))
            .all(|node| node.kind != Some(Kind::File) || node.stat.is_settled(began))
    }
}

#[cfg(test)]
mod tests {
    use super::arguments;

    #[track_caller]
    fn check(argv: &str, want: &str) {
        let argv: Vec<Vec<u8>> = argv.split(' ').map(|arg| arg.as_bytes().to_vec()).collect();
        let got: Vec<_> = arguments(&argv).into_iter().map(String::from_utf8_lossy).collect();
        assert_eq!(got.join(" "), want);
    }

    #[test]
    fn outputs_are_taken_out_of_the_command() {
        check("gcc -c a.c -o a.o", "a.c -M");
        check("gcc -oa.o -O2 -c a.c -MD -MF a.d -MT x -MQ y -MP -MMD -MG", "-O2 a.c -M");
        check("gcc -Wp,-MD,a.d -Wp,-DX -DM -D -o -c a.c", "-Wp,-DX -DM -D -o a.c -M");
        check("clang -c -- -o", "-M -- -o");
    }
}
