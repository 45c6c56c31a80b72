//! Which files a compile reads, without running the compiler (DO).
//!
//! A [`Graph`] lives as long as the agent, and what was expensive to learn outlives it ([`memory`]). It knows real paths by
//! number, what each directory held and what each file said when they were last read, and proves both anew for every
//! unit, by `stat` or by a watch that would have told ([`watch`]). A unit's closure is a walk over it:
//!
//! - **More is right, less is wrong.** Both branches of every `#if` are followed. A name counts wherever it is found:
//!   every search directory's file of that name is in the closure, not only the first, so that the order of the
//!   directories (which compilers change by dropping absent and equal ones) and `#include_next` need no thought.
//!   Every directory that is searched is an entry even if nothing is found there.
//! - **Real paths.** A path is followed component by component; each link on the way is an entry, and so is what lies
//!   behind it. Every spelling that leads to a file here thereby leads to it in the job's root.
//! - **Freshness is never a matter of time windows.** A check counts for a job only if it was made after the job's
//!   request arrived ([`Arrivals`]); jobs that arrived before a check share it. What was read is used again only if its
//!   stamps prove that it did not change since ([`world::Stat::is_settled`]).
//! - **Doubt is an answer.** What a walk cannot know is [`Undecidable`]: the compiler is asked ([`ask`]), or the unit
//!   stays here.
//!
//! A walk from memory touches no file system and follows numbers only: names are resolved once per search path.

pub mod ask;
mod basis;
pub mod deps;
mod lex;
mod locale;
pub mod memory;
mod node;
mod retired;
pub mod scan;
mod search;
mod told;
mod tree;
mod vouch;
mod walk;
pub mod watch;
pub mod world;

pub use basis::Basis;
pub use node::Named;
pub use retired::{Cursor, Gone, Retired};

use crate::compiler::invocation::Family;
use crate::compiler::plan::Plan;
use crate::reason::Reason;
use mesh_proto::closure::{Entry, Node as WireNode};
use mesh_proto::digest::Digest;
use mesh_proto::key::EntryKey;
use mesh_proto::limits;
use mesh_proto::path::AbsPath;
use node::{FastMap, NameId, Node, NodeId};
use search::{Config, ConfigKey, Lookup, LookupId, LookupKey, Name};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Disk, World};

/// Paths that a graph keeps; beyond it forgets everything and learns anew. About 300 bytes each.
const NODES_MAX: usize = 400_000;
/// Resolved names that a graph keeps. About 150 bytes each.
const LOOKUPS_MAX: usize = 1_000_000;
/// Search paths that a graph keeps: each knows every file that was seen through it.
const CONFIGS_MAX: usize = 1024;

/// Numbers the requests in the order of their arrival. Shared with whoever accepts them: it needs no lock.
#[derive(Debug, Clone, Default)]
pub struct Arrivals(Arc<AtomicU64>);

/// One request's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

impl Arrivals {
    /// A request has arrived: only what is checked from now on counts for it.
    #[must_use]
    pub fn arrive(&self) -> Tick {
        Tick(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// The last arrival: a check that begins after this call counts up to there.
    fn last(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A unit whose inputs are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// What the command line says.
    pub plan: &'a Plan,
    /// The working directory as `PWD` spells it.
    pub cwd: &'a [u8],
    /// The command's environment.
    pub env: &'a [(Vec<u8>, Vec<u8>)],
    /// The compiler's own directories for `plan.search.probe`, in order.
    pub system_dirs: &'a [Vec<u8>],
    /// Where the compiler's own translations are, beyond the system's: `share/locale` below its prefix.
    pub locale_dirs: &'a [Vec<u8>],
    /// Which compiler.
    pub family: Family,
    /// When its request arrived.
    pub requested_at: Tick,
}

/// Everything that a unit may read.
#[derive(Debug, Clone)]
pub struct Closure {
    /// By path, each once.
    pub entries: Arc<[Named]>,
    /// The real paths of the directories in which the compiler may create files, each once.
    pub output_dirs: Vec<AbsPath>,
    /// What all files hold together, bytes.
    pub bytes: u64,
    /// Their numbers in the graph.
    nodes: Box<[NodeId]>,
    /// Paths that were looked at one by one and where nothing was.
    absent: Box<[NodeId]>,
    /// A file of it may say `__TIMESTAMP__`: what comes of it depends on when the file was written.
    pub timestamped: bool,
    /// A file of it may say where it is (`__FILE__` and its kin): what comes of it depends on how its paths are spelled.
    pub places: bool,
    /// How many directories above where it is looked for the farthest name of a file leads.
    pub climb: u8,
    /// Where the log of entries that are no longer true was when it was made.
    pub retired_at: Cursor,
    /// The graph's state that it was made of.
    version: u64,
    epoch: u32,
}

impl Closure {
    /// The entries, in the order of their paths, with what each adds to the key of a job.
    pub fn keyed(&self) -> impl Iterator<Item = (&Entry, EntryKey)> {
        self.entries.iter().map(|named| (&**named.entry, named.entry.key()))
    }

    /// The entries, numbered from zero, for a job in this machine's own sandbox.
    #[must_use]
    pub fn numbered(&self) -> Vec<(u32, Arc<Entry>)> {
        (0..).zip(self.entries.iter().map(|named| Arc::new(Entry::clone(&named.entry)))).collect()
    }
}

/// Why a walk gives no closure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecidable {
    /// The unit must be compiled here.
    #[error("the unit is compiled here: {}", .0.text())]
    Local(Reason),
    /// An include's name is computed: the compiler's own list would help ([`ask`]).
    #[error("only the compiler knows what an include names")]
    AskCompiler,
}

impl From<Reason> for Undecidable {
    fn from(reason: Reason) -> Self {
        Self::Local(reason)
    }
}

/// Why a file's content could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not a file.
    #[error("the entry is not a file")]
    NotAFile,
    /// It is not what it was when the closure was made.
    #[error("the file changed since its digest was taken")]
    Changing,
    /// The system does not give it.
    #[error("the file cannot be read: {0}")]
    System(rustix::io::Errno),
}

/// All that is known of the files that compiles read. Every call may block on the disk.
#[derive(Debug)]
pub struct Graph {
    world: Box<dyn World>,
    arrivals: Arrivals,
    retired: Retired,
    nodes: Vec<Node>,
    /// By a mix of directory and name.
    children: FastMap<u64, NodeId>,
    /// All paths that ever were an entry, for their order.
    order: BTreeMap<Box<[u8]>, NodeId>,
    names: Vec<Name>,
    name_ids: HashMap<Box<[u8]>, NameId>,
    lookups: Vec<Lookup>,
    lookup_ids: FastMap<LookupKey, LookupId>,
    configs: Vec<Config>,
    config_ids: HashMap<ConfigKey, u32>,
    /// By directory, the paths in it that have or had entries.
    told: FastMap<NodeId, told::Told>,
    watches: vouch::Watches,
    memory: memory::Memory,
    /// The compiler's own lists, by the command that they are of.
    kept: HashMap<Digest, ask::Kept>,
    /// Raised when a name that was asked for appears, vanishes or becomes something else: all lookups are done again.
    version: u64,
    /// Raised when everything is forgotten.
    epoch: u32,
    /// The walk's number, for marks.
    walk: u32,
    /// The arrival that checks must count for, while a call runs.
    tick: u64,
    next_entry: u32,
    next_text: u32,
    buffer: Vec<u8>,
}

impl Graph {
    /// A graph of this machine's files.
    #[must_use]
    pub fn new() -> Self {
        Self::with_world(Box::new(Disk))
    }

    /// A graph of other files.
    #[must_use]
    pub fn with_world(world: Box<dyn World>) -> Self {
        let mut graph = Self {
            world,
            arrivals: Arrivals::default(),
            retired: Retired::default(),
            nodes: Vec::new(),
            children: FastMap::default(),
            order: BTreeMap::new(),
            names: Vec::new(),
            name_ids: HashMap::new(),
            lookups: Vec::new(),
            lookup_ids: FastMap::default(),
            configs: Vec::new(),
            config_ids: HashMap::new(),
            told: FastMap::default(),
            watches: vouch::Watches::default(),
            memory: memory::Memory::default(),
            kept: HashMap::new(),
            version: 1,
            epoch: 0,
            walk: 0,
            tick: 0,
            next_entry: 0,
            next_text: 0,
            buffer: Vec::new(),
        };
        graph.forget();
        graph
    }

    /// What numbers the requests for this graph.
    #[must_use]
    pub fn arrivals(&self) -> Arrivals {
        self.arrivals.clone()
    }

    /// The log of entries that are no longer true.
    #[must_use]
    pub fn retired(&self) -> Retired {
        self.retired.clone()
    }

    /// Drops all knowledge. Entries made later have new numbers.
    pub fn forget(&mut self) {
        self.retired.push_all();
        self.nodes.clear();
        self.children.clear();
        self.order.clear();
        self.names.clear();
        self.name_ids.clear();
        self.lookups.clear();
        self.lookup_ids.clear();
        self.configs.clear();
        self.config_ids.clear();
        self.told.clear();
        self.watches.drop_all();
        self.kept.clear();
        self.version += 1;
        self.epoch += 1;
        self.walk = 0;
        self.nodes.push(Node::new(node::ROOT, Box::from(*b"/"), Some(world::Kind::Dir)));
    }

    fn forget_if_large(&mut self) {
        if self.nodes.len() > NODES_MAX
            || self.lookups.len() > LOOKUPS_MAX
            || self.configs.len() > CONFIGS_MAX
            || self.walk > u32::MAX - 2
        {
            self.forget();
        }
    }

    /// Whether the closure, made before, is still what the unit would read: asked when a remote result has come, with
    /// a `requested_at` of that moment, so that an edit during the compile voids the result.
    pub fn still_fresh(&mut self, want: &Want<'_>, closure: &Closure) -> bool {
        self.begin_call(want.requested_at);
        if closure.epoch == self.epoch && closure.version == self.version && self.recheck(closure) {
            return true;
        }
        // Something that somebody asked for changed somewhere. Only a new walk tells whether it concerns this unit.
        self.closure(want).is_ok_and(|now| {
            now.entries.len() == closure.entries.len()
                && now.entries.iter().zip(closure.entries.iter()).all(|(a, b)| a.entry == b.entry)
        })
    }

    /// An entry's content, checked against its digest.
    ///
    /// # Errors
    /// If it cannot be read or is not what the entry says.
    pub fn read(&self, entry: &Entry) -> Result<Vec<u8>, ReadError> {
        let WireNode::File(file) = &entry.node else { return Err(ReadError::NotAFile) };
        let mut bytes = Vec::new();
        self.world.read(entry.path.as_bytes(), limits::BLOB_BYTES_MAX, &mut bytes).map_err(ReadError::System)?;
        if Digest::of(&bytes) == file.digest { Ok(bytes) } else { Err(ReadError::Changing) }
    }
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
