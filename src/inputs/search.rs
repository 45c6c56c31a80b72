//! Where names of headers lead: search paths, and the names resolved in them (DO).

use super::node::{FastMap, NameId, NodeId, name_hash};
use super::scan::Form;
use super::tree::Found;
use super::world::Kind;
use super::{Graph, Undecidable, Want};
use crate::compiler::invocation::Family;
use crate::reason::Reason;
use std::ops::Range;
use std::sync::Arc;

pub(super) type LookupId = u32;
pub(super) type ConfigId = u32;

/// How often a resolution is begun again because the tree changed meanwhile.
const RESOLUTIONS_MAX: u32 = 8;
/// Numbers before everything else of a macro or a header: names longer than any path are nobody's.
const NAME_BYTES_MAX: usize = 4096;

/// A header's name and its components.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) bytes: Box<[u8]>,
    pub(super) is_absolute: bool,
    parts: Box<[(Range<u16>, u64)]>,
}

/// Where a name is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// In one directory, by its listing.
    Dir(NodeId),
    /// In one directory, component by component, without listing it: for names that need not be headers.
    At(NodeId),
    /// In the directories of a search path: all, or those for `<…>`.
    Search { config: ConfigId, quoted: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LookupKey {
    pub(super) scope: Scope,
    pub(super) name: NameId,
}

/// A name resolved in a scope.
#[derive(Debug)]
pub(super) struct Lookup {
    key: LookupKey,
    /// The graph's version that it is right for; 0 before the first resolution.
    version: u64,
    /// The last arrival that its parts were checked for.
    good: u64,
    /// The walk that last came by.
    pub(super) seen: u32,
    /// Every file of that name: the last component, unfollowed.
    pub(super) targets: Box<[NodeId]>,
    /// Directories and links on the way, and what was not there.
    pub(super) trail: Box<[NodeId]>,
    /// Directories whose listings were consulted, beyond those of the scope itself.
    pub(super) listed: Box<[NodeId]>,
    /// Why the unit must stay here if it may include this name.
    pub(super) refusal: Option<Reason>,
}

/// All that decides a search path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ConfigKey {
    cwd: Vec<u8>,
    quote: Vec<Vec<u8>>,
    bracket: Vec<Vec<u8>>,
    family: Family,
}

/// A search path.
#[derive(Debug)]
pub(super) struct Config {
    key: ConfigKey,
    version: u64,
    good: u64,
    /// The real working directory.
    pub(super) cwd: NodeId,
    quote: Vec<NodeId>,
    bracket: Vec<NodeId>,
    /// Both, each directory once.
    pub(super) dirs: Vec<NodeId>,
    pub(super) trail: Vec<NodeId>,
    /// The lookups that a file's directives need here, by the path that it was found under.
    pub(super) edges: FastMap<NodeId, Edges>,
}

/// A file's directives as lookups.
#[derive(Debug)]
pub(super) struct Edges {
    /// The text that they are of, and the real file's directory, by which they were made.
    pub(super) text: u32,
    pub(super) end: NodeId,
    /// Those whose targets are followed, then those whose targets are only content.
    pub(super) lookups: Arc<[LookupId]>,
    pub(super) followed: usize,
    /// What those come to, if that is simple.
    pub(super) flat: Option<Arc<Flat>>,
}

/// A file's directives resolved: all that its lookups hold, each once.
#[derive(Debug)]
pub(super) struct Flat {
    /// The graph's version that it is right for.
    pub(super) version: u64,
    pub(super) targets: Box<[NodeId]>,
    pub(super) trail: Box<[NodeId]>,
    pub(super) listed: Box<[NodeId]>,
}

/// What a resolution collects.
#[derive(Debug, Default)]
struct Collected {
    targets: Vec<NodeId>,
    trail: Vec<NodeId>,
    listed: Vec<NodeId>,
    refusal: Option<Reason>,
}

impl Graph {
    /// A header's name by number.
    pub(super) fn name(&mut self, bytes: &[u8]) -> NameId {
        if let Some(id) = self.name_ids.get(bytes) {
            return *id;
        }
        let bytes = if bytes.len() > NAME_BYTES_MAX { &bytes[..NAME_BYTES_MAX] } else { bytes };
        let mut parts = Vec::new();
        let mut start = 0;
        for part in bytes.split(|byte| *byte == b'/') {
            let range = start as u16..(start + part.len()) as u16;
            start += part.len() + 1;
            parts.push((range, name_hash(part)));
        }
        let id = self.names.len() as NameId;
        let is_absolute = bytes.first() == Some(&b'/');
        self.names.push(Name { bytes: bytes.into(), is_absolute, parts: parts.into() });
        self.name_ids.insert(bytes.into(), id);
        id
    }

    /// The search path of a unit, resolved and checked, with all of its directories listed.
    pub(super) fn config(&mut self, want: &Want<'_>) -> Result<ConfigId, Undecidable> {
        let search = &want.plan.search;
        let bracket = [&search.user[..], &search.system, want.system_dirs, &search.after].concat();
        let key = ConfigKey { cwd: want.cwd.to_vec(), quote: search.quote.clone(), bracket, family: want.family };
        let id = match self.config_ids.get(&key) {
            Some(id) => *id,
            None => {
                let id = self.configs.len() as ConfigId;
                self.config_ids.insert(key.clone(), id);
                self.configs.push(Config {
                    key,
                    version: 0,
                    good: 0,
                    cwd: super::node::ROOT,
                    quote: Vec::new(),
                    bracket: Vec::new(),
                    dirs: Vec::new(),
                    trail: Vec::new(),
                    edges: FastMap::default(),
                });
                id
            }
        };
        for _ in 0..RESOLUTIONS_MAX {
            if self.config_is_good(id)? {
                return Ok(id);
            }
            self.resolve_config(id)?;
        }
        Err(Reason::Changing.into())
    }

    fn config_is_good(&mut self, id: ConfigId) -> Result<bool, Undecidable> {
        let config = &mut self.configs[id as usize];
        if config.version != self.version {
            return Ok(false);
        }
        if config.good >= self.tick {
            return Ok(true);
        }
        let (trail, dirs) = (std::mem::take(&mut config.trail), std::mem::take(&mut config.dirs));
        let seen = self.arrivals.last();
        let mut done = trail.iter().try_for_each(|node| self.check(*node));
        if done.is_ok() && self.configs[id as usize].version == self.version {
            done = dirs.iter().try_for_each(|dir| self.list(*dir));
        }
        let config = &mut self.configs[id as usize];
        (config.trail, config.dirs) = (trail, dirs);
        done?;
        if config.version == self.version {
            config.good = seen;
        }
        Ok(config.version == self.version)
    }

    fn resolve_config(&mut self, id: ConfigId) -> Result<(), Undecidable> {
        let key = self.configs[id as usize].key.clone();
        let version = self.version;
        let mut trail = Vec::new();
        let cwd = match self.resolve(super::node::ROOT, &key.cwd, &mut trail)? {
            Some(Found { end, .. }) if self.kind(end) == Some(Kind::Dir) && key.cwd.first() == Some(&b'/') => end,
            _ => return Err(Reason::OtherRoot.into()),
        };
        let quote = self.resolve_dirs(cwd, &key.quote, key.family, &mut trail)?;
        let bracket = self.resolve_dirs(cwd, &key.bracket, key.family, &mut trail)?;
        let mut dirs: Vec<NodeId> = quote.iter().chain(&bracket).copied().collect();
        dirs.sort_unstable();
        dirs.dedup();
        self.refuse_aliases(&dirs)?;
        trail.sort_unstable();
        trail.dedup();
        let config = &mut self.configs[id as usize];
        let mut edges = std::mem::take(&mut config.edges);
        if config.cwd != cwd || config.quote.is_empty() != quote.is_empty() {
            edges.clear();
        }
        *config = Config { version, cwd, quote, bracket, dirs, trail, good: 0, key, edges };
        Ok(())
    }

    fn resolve_dirs(
        &mut self,
        cwd: NodeId,
        paths: &[Vec<u8>],
        family: Family,
        trail: &mut Vec<NodeId>,
    ) -> Result<Vec<NodeId>, Undecidable> {
        let mut dirs = Vec::with_capacity(paths.len());
        for path in paths {
            let Some(Found { end, .. }) = self.resolve(cwd, path, trail)? else { continue };
            match self.kind(end) {
                Some(Kind::Dir) if !dirs.contains(&end) => dirs.push(end),
                // A file in a directory's place: clang reads it as a header map, which names more files.
                Some(Kind::File) if family == Family::Clang => return Err(Reason::ComputedInclude.into()),
                _ => {}
            }
        }
        Ok(dirs)
    }

    /// Two real paths of one directory, as bind mounts make them, would be two directories elsewhere; compilers drop
    /// the second from their search path.
    fn refuse_aliases(&self, dirs: &[NodeId]) -> Result<(), Undecidable> {
        let mut identities: Vec<_> = dirs.iter().map(|dir| self.node(*dir).stat).map(|s| (s.dev, s.ino)).collect();
        identities.sort_unstable();
        if identities.windows(2).any(|pair| pair[0] == pair[1]) { Err(Reason::OtherRoot.into()) } else { Ok(()) }
    }

    /// The number of a lookup; resolved when it is first used.
    pub(super) fn lookup(&mut self, scope: Scope, name: NameId) -> LookupId {
        let key = LookupKey { scope, name };
        let next = self.lookups.len() as LookupId;
        let id = *self.lookup_ids.entry(key).or_insert(next);
        if id == next {
            self.lookups.push(Lookup {
                key,
                version: 0,
                good: 0,
                seen: 0,
                targets: Box::default(),
                trail: Box::default(),
                listed: Box::default(),
                refusal: None,
            });
        }
        id
    }

    /// Makes sure that a lookup is right as of after the request's arrival. The scope's own directories were listed.
    pub(super) fn refresh(&mut self, id: LookupId) -> Result<(), Undecidable> {
        for _ in 0..RESOLUTIONS_MAX {
            let lookup = &mut self.lookups[id as usize];
            if lookup.version == self.version {
                if lookup.good >= self.tick || (lookup.trail.is_empty() && lookup.listed.is_empty()) {
                    return Ok(());
                }
                let (trail, listed) = (std::mem::take(&mut lookup.trail), std::mem::take(&mut lookup.listed));
                let seen = self.arrivals.last();
                let version = self.version;
                let mut done = trail.iter().try_for_each(|node| self.check(*node));
                if done.is_ok() && self.version == version {
                    done = listed.iter().try_for_each(|dir| self.list(*dir));
                }
                let lookup = &mut self.lookups[id as usize];
                (lookup.trail, lookup.listed) = (trail, listed);
                done?;
                if self.version == version {
                    lookup.good = seen;
                    return Ok(());
                }
            }
            self.resolve_lookup(id)?;
        }
        Err(Reason::Changing.into())
    }

    /// What fresh lookups hold together; `None` if one of them is not as simple as that.
    pub(super) fn flatten(&self, lookups: &[LookupId]) -> Option<Flat> {
        let mut all = Collected::default();
        for id in lookups {
            let lookup = &self.lookups[*id as usize];
            if lookup.version != self.version || lookup.refusal.is_some() {
                return None;
            }
            all.targets.extend_from_slice(&lookup.targets);
            all.trail.extend_from_slice(&lookup.trail);
            all.listed.extend_from_slice(&lookup.listed);
        }
        all.sort();
        let (targets, trail, listed) = (all.targets.into(), all.trail.into(), all.listed.into());
        Some(Flat { version: self.version, targets, trail, listed })
    }

    fn resolve_lookup(&mut self, id: LookupId) -> Result<(), Undecidable> {
        let LookupKey { scope, name } = self.lookups[id as usize].key;
        let version = self.version;
        let mut found = Collected::default();
        match scope {
            Scope::At(dir) => {
                let bytes = self.names[name as usize].bytes.clone();
                if let Some(Found { leaf, end }) = self.resolve(dir, &bytes, &mut found.trail)? {
                    found.add(leaf, self.kind(end));
                }
            }
            Scope::Dir(dir) => self.find(dir, name, &mut found)?,
            Scope::Search { config, quoted } => {
                let config = &self.configs[config as usize];
                let dirs = if quoted { config.dirs.clone() } else { config.bracket.clone() };
                for dir in dirs {
                    self.find(dir, name, &mut found)?;
                }
            }
        }
        found.sort();
        let lookup = &mut self.lookups[id as usize];
        lookup.version = version;
        lookup.targets = found.targets.into();
        lookup.trail = found.trail.into();
        lookup.listed = found.listed.into();
        lookup.refusal = found.refusal;
        Ok(())
    }

    /// Finds a relative name from a listed directory by listings.
    fn find(&mut self, dir: NodeId, name: NameId, found: &mut Collected) -> Result<(), Undecidable> {
        let mut at = dir;
        let count = self.names[name as usize].parts.len();
        for index in 0..count {
            let (range, hash) = self.names[name as usize].parts[index].clone();
            let range = usize::from(range.start)..usize::from(range.end);
            let is_last = index + 1 == count;
            match &self.names[name as usize].bytes[range.clone()] {
                b"" | b"." => continue,
                b".." => {
                    at = self.node(at).parent;
                    continue;
                }
                _ => {}
            }
            if at != dir {
                self.list(at)?;
                found.listed.push(at);
            }
            // Taken out for the call; put back before anybody else looks.
            let bytes = std::mem::take(&mut self.names[name as usize].bytes);
            let step = self.step(at, &bytes[range], hash, is_last, found);
            self.names[name as usize].bytes = bytes;
            match step? {
                Some(next) => at = next,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// One component of a name: the directory to go on in, if there is one and more to come.
    fn step(
        &mut self,
        at: NodeId,
        part: &[u8],
        hash: u64,
        is_last: bool,
        found: &mut Collected,
    ) -> Result<Option<NodeId>, Undecidable> {
        if is_last && self.has_pch(at) {
            for suffix in [&b".gch"[..], b".pch"] {
                let name = [part, suffix].concat();
                if self.listed(at, name_hash(&name), &name)?.is_some() {
                    found.refusal = Some(Reason::PchUse);
                }
            }
        }
        let Some(kind) = self.listed(at, hash, part)? else { return Ok(None) };
        let leaf = self.child(at, part, Some(kind));
        let mut end = Some(leaf);
        let mut kind = Some(kind);
        if kind == Some(Kind::Link) {
            self.check(leaf)?;
            found.trail.push(leaf);
            end = self.follow(leaf, &mut found.trail, &mut 0)?;
            kind = end.and_then(|end| self.kind(end));
        } else if kind == Some(Kind::Dir) {
            self.check(leaf)?;
            found.trail.push(leaf);
        }
        if is_last {
            found.add(leaf, kind);
            return Ok(None);
        }
        Ok(end.filter(|_| kind == Some(Kind::Dir)))
    }

    /// The lookups of one directive of a file that was found as `leaf` and is `end`.
    pub(super) fn lookups_for(
        &mut self,
        config: ConfigId,
        leaf: NodeId,
        end: NodeId,
        form: Form,
        name: NameId,
    ) -> Vec<LookupId> {
        let cwd = self.configs[config as usize].cwd;
        if self.names[name as usize].is_absolute || form == Form::Line {
            return vec![self.lookup(Scope::At(cwd), name)];
        }
        let mut lookups = Vec::with_capacity(3);
        if form != Form::Angled {
            // gcc shortens the names of system headers to their real paths, and then looks beside those.
            let (lexical, real) = (self.node(leaf).parent, self.node(end).parent);
            lookups.push(self.lookup(Scope::Dir(lexical), name));
            if real != lexical {
                lookups.push(self.lookup(Scope::Dir(real), name));
            }
        }
        if form == Form::Embed {
            lookups.push(self.lookup(Scope::At(cwd), name));
        }
        let quoted = form != Form::Angled && !self.configs[config as usize].quote.is_empty();
        lookups.push(self.lookup(Scope::Search { config, quoted }, name));
        lookups
    }
}

impl Collected {
    /// Each once.
    fn sort(&mut self) {
        for ids in [&mut self.targets, &mut self.trail, &mut self.listed] {
            ids.sort_unstable();
            ids.dedup();
        }
    }

    /// A directory never is the header meant: `<memory>` passes by a directory `memory`.
    fn add(&mut self, leaf: NodeId, kind: Option<Kind>) {
        match kind {
            Some(Kind::File) => self.targets.push(leaf),
            Some(Kind::Other) => self.refusal = Some(Reason::Unreadable),
            _ => {}
        }
    }
}
