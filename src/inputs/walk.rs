//! One unit's closure: the walk from its source over everything that is named (DO).

use super::node::{Data, Named, NodeId, ROOT, Text};
use super::scan::{self, Body, Computed, Define, Form, Scan, flag, hash32};
use super::search::{ConfigId, Edges, LookupId, Scope};
use super::tree::Found;
use super::world::Kind;
use super::{Closure, Graph, Undecidable, Want};
use crate::compiler::{plan::Language, portable};
use crate::reason::Reason;
use mesh_proto::closure::Node as WireNode;
use mesh_proto::limits;
use mesh_proto::path::AbsPath;
use rustix::io::Errno;
use std::sync::Arc;

type Done<T = ()> = Result<T, Undecidable>;

/// What compilers include before anything else, if a search directory has it.
const IMPLICIT_HEADER: &[u8] = b"stdc-predef.h";
/// Aliases followed from one macro to the next.
const ALIASES_MAX: usize = 64;
/// Macros of the compiler itself that turn up in the names of headers.
const PREDEFINED: [&[u8]; 4] = [b"linux", b"unix", b"i386", b"arm"];

/// A walk under way.
pub(super) struct Walk<'w> {
    pub(super) want: &'w Want<'w>,
    config: ConfigId,
    /// Found and to be followed.
    queue: Vec<NodeId>,
    /// What the closure holds.
    nodes: Vec<NodeId>,
    /// What it does not hold because nothing is there.
    absent: Vec<NodeId>,
    /// Real files that were followed.
    texts: Vec<Arc<Text>>,
    /// Includes whose name is a macro, with the file as found and as it is.
    computed: Vec<(NodeId, NodeId, Computed)>,
    /// The macros of the command line.
    defines: Vec<Define>,
    wrappers: Vec<u32>,
    flags: u8,
    /// A file may say where it is, and not for itself alone.
    places: bool,
    /// How far above where they are looked for names lead.
    climb: u8,
    is_asked: bool,
}

impl Graph {
    /// Everything that the unit may read, as it is now.
    ///
    /// # Errors
    /// [`Undecidable`], if that cannot be told.
    pub fn closure(&mut self, want: &Want<'_>) -> Result<Closure, Undecidable> {
        self.closure_with(want, None)
    }

    /// The same, joined with the compiler's own list of files for this unit, which settles what was undecidable.
    ///
    /// # Errors
    /// As for [`Graph::closure`]; never [`Undecidable::AskCompiler`].
    pub fn closure_with(&mut self, want: &Want<'_>, listed: Option<&[Vec<u8>]>) -> Result<Closure, Undecidable> {
        self.forget_if_large();
        self.begin_call(want.requested_at);
        self.walk += 1;
        self.refuse_suspects(want)?;
        let config = self.config(want)?;
        let mut walk = Walk {
            want,
            config,
            queue: Vec::new(),
            nodes: Vec::new(),
            absent: Vec::new(),
            texts: Vec::new(),
            computed: Vec::new(),
            defines: Vec::new(),
            wrappers: Vec::new(),
            flags: 0,
            places: false,
            climb: 0,
            is_asked: false,
        };
        walk.read_defines()?;
        self.begin(&mut walk)?;
        for path in listed.unwrap_or_default() {
            self.follow_listed(&mut walk, path)?;
        }
        self.drain(&mut walk)?;
        self.expand(&mut walk)?;
        walk.refuse_wrappers()?;
        if walk.is_asked && listed.is_none() {
            return Err(Undecidable::AskCompiler);
        }
        self.add_named(&mut walk)?;
        self.add_locale(&mut walk)?;
        self.add_terminal(&mut walk)?;
        if walk.flags & flag::TIMESTAMP != 0 {
            self.add_time_zone(&mut walk)?;
        }
        let output_dirs = self.outputs(&mut walk)?;
        self.finish(walk, output_dirs)
    }

    /// Values of unknown options must not name files.
    fn refuse_suspects(&self, want: &Want<'_>) -> Done {
        for suspect in want.plan.suspects.iter().filter(|suspect| !suspect.is_empty() && !suspect.contains(&0)) {
            let path = if suspect[0] == b'/' { suspect.clone() } else { [want.cwd, b"/", suspect].concat() };
            match self.world.stat(&path) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP) => {}
                _ => return Err(Reason::UnknownOption.into()),
            }
        }
        Ok(())
    }

    /// Marks the search path, the source and what comes before it.
    fn begin(&mut self, walk: &mut Walk<'_>) -> Done {
        let config = &self.configs[walk.config as usize];
        let (trail, dirs, cwd) = (config.trail.clone(), config.dirs.clone(), config.cwd);
        self.mark_all(walk, &trail)?;
        self.mark_all(walk, &dirs)?;
        let mut trail = Vec::new();
        let source = self.resolve(cwd, &walk.want.plan.source, &mut trail)?;
        let Some(Found { leaf: source, end }) = source else { return Err(Reason::Unreadable.into()) };
        if self.kind(end) != Some(Kind::File) {
            return Err(Reason::Unreadable.into());
        }
        self.load(end, true)?;
        self.mark_all(walk, &trail)?;
        walk.queue.push(source);
        let implicit = self.name(IMPLICIT_HEADER);
        let implicit = self.lookup(Scope::Search { config: walk.config, quoted: false }, implicit);
        self.take(walk, implicit)?;
        for path in &walk.want.plan.forced_includes {
            self.refuse_pch(walk, cwd, path)?;
            let name = self.name(path);
            let at = self.lookup(Scope::At(cwd), name);
            self.take(walk, at)?;
            if path.first() != Some(&b'/') {
                let beside = self.node(source).parent;
                self.list(beside)?;
                self.mark(walk, beside)?;
                for scope in [Scope::Dir(beside), Scope::Search { config: walk.config, quoted: true }] {
                    let lookup = self.lookup(scope, name);
                    self.take(walk, lookup)?;
                }
            }
        }
        Ok(())
    }

    /// `-include x.h` uses `x.h.gch` or `x.h.pch`, whether `x.h` is there or not.
    fn refuse_pch(&mut self, walk: &mut Walk<'_>, cwd: NodeId, path: &[u8]) -> Done {
        for suffix in [&b".gch"[..], b".pch"] {
            let mut trail = Vec::new();
            if self.resolve(cwd, &[path, suffix].concat(), &mut trail)?.is_some() {
                return Err(Reason::PchUse.into());
            }
            self.mark_all(walk, &trail)?;
        }
        Ok(())
    }

    /// Puts a checked node into the closure, if it is there.
    fn mark(&mut self, walk: &mut Walk<'_>, id: NodeId) -> Done {
        if self.node(id).entered == self.walk || id == ROOT {
            return Ok(());
        }
        match self.kind(id) {
            Some(Kind::File) => self.load(id, false)?,
            Some(Kind::Dir | Kind::Link) => {}
            Some(Kind::Other) | None => {
                self.node_mut(id).entered = self.walk;
                walk.absent.push(id);
                return Ok(());
            }
        }
        self.node_mut(id).entered = self.walk;
        walk.nodes.push(id);
        Ok(())
    }

    pub(super) fn mark_all(&mut self, walk: &mut Walk<'_>, ids: &[NodeId]) -> Done {
        ids.iter().try_for_each(|id| self.mark(walk, *id))
    }

    /// Comes by a lookup: its targets are to be followed.
    fn take(&mut self, walk: &mut Walk<'_>, id: LookupId) -> Done {
        if self.lookups[id as usize].seen == self.walk {
            return Ok(());
        }
        self.pass(walk, id, true)?;
        let lookup = &self.lookups[id as usize];
        let nodes = &self.nodes;
        let number = self.walk;
        walk.queue.extend(lookup.targets.iter().filter(|leaf| nodes[**leaf as usize].followed != number));
        Ok(())
    }

    /// Comes by a lookup: its targets are read, not followed.
    pub(super) fn take_content(&mut self, walk: &mut Walk<'_>, id: LookupId) -> Done {
        self.pass(walk, id, false)?;
        // Not seen: another directive may want it followed.
        self.lookups[id as usize].seen = 0;
        for leaf in self.lookups[id as usize].targets.clone() {
            self.arrive(walk, leaf, false)?;
        }
        Ok(())
    }

    fn pass(&mut self, walk: &mut Walk<'_>, id: LookupId, follow: bool) -> Done {
        self.refresh(id)?;
        let number = self.walk;
        let lookup = &mut self.lookups[id as usize];
        lookup.seen = number;
        if let Some(reason) = lookup.refusal {
            return Err(reason.into());
        }
        if !(lookup.trail.is_empty() && lookup.listed.is_empty()) {
            let (trail, listed) = (lookup.trail.clone(), lookup.listed.clone());
            if follow {
                // Else marking them would read them without scanning.
                for node in &trail {
                    if self.kind(*node) == Some(Kind::File) {
                        self.load(*node, true)?;
                    }
                }
            }
            self.mark_all(walk, &trail)?;
            self.mark_all(walk, &listed)?;
        }
        Ok(())
    }

    /// From a path as found to the real file, which is put into the closure.
    fn arrive(&mut self, walk: &mut Walk<'_>, leaf: NodeId, follow: bool) -> Done<NodeId> {
        let mut trail = Vec::new();
        self.check(leaf)?;
        let end = match self.kind(leaf) {
            Some(Kind::Link) => self.follow(leaf, &mut trail, &mut 0)?.ok_or(Reason::Changing)?,
            _ => leaf,
        };
        self.load(end, follow)?;
        if end != leaf {
            self.mark(walk, leaf)?;
            self.mark_all(walk, &trail)?;
        }
        self.mark(walk, end)?;
        Ok(end)
    }

    fn drain(&mut self, walk: &mut Walk<'_>) -> Done {
        while let Some(leaf) = walk.queue.pop() {
            if self.node(leaf).followed == self.walk {
                continue;
            }
            self.node_mut(leaf).followed = self.walk;
            self.follow_text(walk, leaf)?;
            walk.refuse()?;
        }
        Ok(())
    }

    fn follow_text(&mut self, walk: &mut Walk<'_>, leaf: NodeId) -> Done {
        let end = self.arrive(walk, leaf, true)?;
        let Data::File(file) = &self.node(end).data else { return Err(Reason::Changing.into()) };
        let Some(text) = file.text.clone() else { return Err(Reason::Changing.into()) };
        for dir in [self.node(leaf).parent, self.node(end).parent] {
            self.list(dir)?;
            self.mark(walk, dir)?;
        }
        if !self.take_flat(walk, leaf, end, &text)? {
            self.take_each(walk, leaf, end, &text)?;
        }
        walk.flags |= text.scan.flags;
        walk.tells(&self.node(end).path, &text.scan);
        walk.wrappers.extend_from_slice(&text.scan.wrappers);
        walk.computed.extend(text.scan.computed.iter().map(|computed| (leaf, end, computed.clone())));
        walk.texts.push(text);
        Ok(())
    }

    /// Comes by all of a file's lookups at once, if nothing changed since they were resolved. Whether that was so.
    fn take_flat(&mut self, walk: &mut Walk<'_>, leaf: NodeId, end: NodeId, text: &Text) -> Done<bool> {
        let Some(edges) = self.configs[walk.config as usize].edges.get(&leaf) else { return Ok(false) };
        let is_same = edges.text == text.serial && edges.end == end;
        let Some(flat) = edges.flat.as_ref().filter(|flat| is_same && flat.version == self.version) else {
            return Ok(false);
        };
        let flat = Arc::clone(flat);
        flat.trail.iter().try_for_each(|node| self.check(*node))?;
        flat.listed.iter().try_for_each(|dir| self.list(*dir))?;
        if flat.version != self.version {
            return Ok(false);
        }
        for node in &flat.trail {
            if self.kind(*node) == Some(Kind::File) {
                self.load(*node, true)?;
            }
        }
        self.mark_all(walk, &flat.trail)?;
        self.mark_all(walk, &flat.listed)?;
        let (nodes, number) = (&self.nodes, self.walk);
        walk.queue.extend(flat.targets.iter().filter(|leaf| nodes[**leaf as usize].followed != number));
        Ok(true)
    }

    fn take_each(&mut self, walk: &mut Walk<'_>, leaf: NodeId, end: NodeId, text: &Text) -> Done {
        let (lookups, followed) = self.edges(walk.config, leaf, end, text);
        for id in &lookups[..followed] {
            self.take(walk, *id)?;
        }
        for id in &lookups[followed..] {
            self.take_content(walk, *id)?;
        }
        let flat = if followed == lookups.len() { self.flatten(&lookups) } else { None };
        if let Some(edges) = self.configs[walk.config as usize].edges.get_mut(&leaf) {
            edges.flat = flat.map(Arc::new);
        }
        Ok(())
    }

    fn edges(&mut self, config: ConfigId, leaf: NodeId, end: NodeId, text: &Text) -> (Arc<[LookupId]>, usize) {
        if let Some(edges) = self.configs[config as usize].edges.get(&leaf)
            && edges.text == text.serial
            && edges.end == end
        {
            return (Arc::clone(&edges.lookups), edges.followed);
        }
        let is_content = |form: &Form| matches!(form, Form::Embed | Form::Line);
        let mut lookups = Vec::with_capacity(text.uses.len() * 2);
        for (form, name) in text.uses.iter().filter(|(form, _)| !is_content(form)) {
            lookups.extend(self.lookups_for(config, leaf, end, *form, *name));
        }
        let followed = lookups.len();
        for (form, name) in text.uses.iter().filter(|(form, _)| is_content(form)) {
            lookups.extend(self.lookups_for(config, leaf, end, *form, *name));
        }
        let lookups: Arc<[LookupId]> = lookups.into();
        let edges = Edges { text: text.serial, end, lookups: Arc::clone(&lookups), followed, flat: None };
        self.configs[config as usize].edges.insert(leaf, edges);
        (lookups, followed)
    }

    /// Resolves includes of macros against every definition in the closure, until nothing new comes of it.
    fn expand(&mut self, walk: &mut Walk<'_>) -> Done {
        let mut done = 0;
        while !walk.computed.is_empty() && done != walk.texts.len() + walk.computed.len() {
            done = walk.texts.len() + walk.computed.len();
            for (leaf, end, computed) in walk.computed.clone() {
                let meaning = walk.meaning(&computed.name);
                if meaning.is_complex || (computed.has && meaning.headers.is_empty()) {
                    if computed.has {
                        return Err(Reason::ComputedInclude.into());
                    }
                    walk.is_asked = true;
                }
                for (form, header) in meaning.headers {
                    let name = self.name(&header);
                    for id in self.lookups_for(walk.config, leaf, end, form, name) {
                        self.take(walk, id)?;
                    }
                }
            }
            self.drain(walk)?;
        }
        Ok(())
    }

    /// Follows a path from the compiler's own list, and everything of the same name that the search path has.
    fn follow_listed(&mut self, walk: &mut Walk<'_>, path: &[u8]) -> Done {
        let config = &self.configs[walk.config as usize];
        let (cwd, dirs) = (config.cwd, config.dirs.clone());
        let name = self.name(path);
        let at = self.lookup(Scope::At(cwd), name);
        self.take(walk, at)?;
        for leaf in self.lookups[at as usize].targets.clone() {
            for dir in &dirs {
                let leaf_path = &self.node(leaf).path;
                let Some(rest) = leaf_path.strip_prefix(&self.node(*dir).path[..]) else { continue };
                let Some(rest) = rest.strip_prefix(b"/") else { continue };
                let rest = rest.to_vec();
                let name = self.name(&rest);
                let lookup = self.lookup(Scope::Search { config: walk.config, quoted: true }, name);
                self.take(walk, lookup)?;
            }
        }
        Ok(())
    }

    /// Adds what options and the environment name.
    fn add_named(&mut self, walk: &mut Walk<'_>) -> Done {
        let cwd = self.configs[walk.config as usize].cwd;
        for path in &walk.want.plan.extra_inputs {
            let mut trail = Vec::new();
            self.resolve(cwd, path, &mut trail)?;
            self.mark_all(walk, &trail)?;
        }
        Ok(())
    }

    /// Checks every place that the compiler may write to; the directories, by real path.
    fn outputs(&mut self, walk: &mut Walk<'_>) -> Done<Vec<AbsPath>> {
        let cwd = self.configs[walk.config as usize].cwd;
        let mut dirs = Vec::new();
        let plan = walk.want.plan;
        for path in std::iter::once(&plan.output).chain(&plan.side_outputs) {
            let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
            let (dir, name) = path.split_at(cut);
            if matches!(name, b"" | b"." | b"..") || name.contains(&0) {
                return Err(Reason::SpecialOutput.into());
            }
            let mut trail = Vec::new();
            let dir = if dir.is_empty() { &b"."[..] } else { dir };
            let found = self.resolve(cwd, dir, &mut trail)?;
            let Some(Found { end, .. }) = found.filter(|found| self.kind(found.end) == Some(Kind::Dir)) else {
                return Err(Reason::SpecialOutput.into());
            };
            self.mark_all(walk, &trail)?;
            let real = AbsPath::new(&self.node(end).path[..]).map_err(|_| Reason::TooLarge)?;
            let target = real.join(name).map_err(|_| Reason::SpecialOutput)?;
            // Not remembered: it changes with every unit.
            match self.world.stat(target.as_bytes()) {
                Err(Errno::NOENT) => {}
                Ok(stat) if stat.kind == Kind::File => {}
                _ => return Err(Reason::SpecialOutput.into()),
            }
            if !dirs.contains(&real) {
                dirs.push(real);
            }
        }
        Ok(dirs)
    }

    fn finish(&mut self, walk: Walk<'_>, output_dirs: Vec<AbsPath>) -> Done<Closure> {
        let nodes = walk.nodes;
        if nodes.len() > limits::CLOSURE_ENTRIES_MAX {
            return Err(Reason::TooLarge.into());
        }
        let mut bytes = 0;
        for id in &nodes {
            match self.enter(*id)?.map(|named| &named.entry.node) {
                Some(WireNode::File(file)) => bytes += file.size,
                Some(_) => {}
                // It was a file, a link or a directory a moment ago.
                None => return Err(Reason::Changing.into()),
            }
        }
        if bytes > limits::JOB_INPUT_BYTES_MAX {
            return Err(Reason::TooLarge.into());
        }
        for id in &nodes {
            if self.kind(*id) == Some(Kind::Dir) {
                self.settle_told(*id)?;
            }
        }
        if nodes.iter().any(|id| self.node(*id).entry.is_none()) {
            return Err(Reason::Changing.into());
        }
        let mut places: Vec<(u64, NodeId)> = nodes.iter().map(|id| (self.node(*id).label, *id)).collect();
        places.sort_unstable();
        let nodes: Box<[NodeId]> = places.into_iter().map(|(_, id)| id).collect();
        let named: Vec<Named> = nodes.iter().filter_map(|id| self.node(*id).entry.clone()).collect();
        let entries = named.into();
        let absent = walk.absent.into();
        let (version, epoch) = (self.version, self.epoch);
        let retired_at = self.retired.now();
        let (timestamped, places, climb) = (walk.flags & flag::TIMESTAMP != 0, walk.places, walk.climb);
        Ok(Closure {
            entries,
            output_dirs,
            bytes,
            nodes,
            absent,
            timestamped,
            places,
            climb,
            retired_at,
            version,
            epoch,
        })
    }
}

/// What a macro may stand for.
#[derive(Default)]
struct Meaning {
    headers: Vec<(Form, Box<[u8]>)>,
    is_complex: bool,
}

impl Walk<'_> {
    fn read_defines(&mut self) -> Done {
        for (name, text) in &self.want.plan.defines {
            let flags = scan::flags_of_body(text);
            self.flags |= flags;
            self.places |= flags & flag::PLACE != 0;
            let cut = name.iter().position(|byte| *byte == b'(');
            let body = if cut.is_some() { Body::Complex } else { scan::body_of(text) };
            self.defines.push(Define { name: hash32(&name[..cut.unwrap_or(name.len())]), body });
        }
        self.climb = self.want.plan.forced_includes.iter().map(|name| scan::climb(name)).max().unwrap_or(0);
        self.refuse()
    }

    /// Notes what a file's text tells of where it is. What is the system's looks for what is the system's.
    fn tells(&mut self, path: &[u8], scan: &Scan) {
        if scan.flags & flag::PLACE != 0 {
            self.places |= !portable::is_for_itself(path, self.want.plan);
        }
        // A macro's name of a file may be anything.
        self.places |= !scan.computed.is_empty();
        if scan.climb > self.climb && !path.starts_with(b"/usr/") {
            self.climb = scan.climb;
        }
    }

    /// What keeps the unit here, of all that was seen so far.
    fn refuse(&mut self) -> Done {
        if self.flags == 0 {
            return Ok(());
        }
        let plan = self.want.plan;
        // Some build systems define the macros of time to constants.
        let is_fixed = |name: &[u8]| plan.epoch_fixed || plan.defines.iter().any(|(defined, _)| defined == name);
        let is_free = |names: &[&[u8]], bit| if names.iter().all(|name| is_fixed(name)) { 0 } else { bit };
        let times =
            is_free(&[b"__DATE__", b"__TIME__"], flag::DATE_TIME) | is_free(&[b"__TIMESTAMP__"], flag::TIMESTAMP);
        let is_cxx = matches!(plan.language, Language::Cxx | Language::ObjCxx | Language::ObjC);
        let modules = if is_cxx { flag::MODULES } else { 0 };
        for (bits, reason) in [
            (flag::ASM_FILE, Reason::AsmIncbin),
            (times, Reason::Timestamp),
            (modules, Reason::Modules),
            (flag::COMPUTED_HAS, Reason::ComputedInclude),
        ] {
            if self.flags & bits != 0 {
                return Err(reason.into());
            }
        }
        self.is_asked |= self.flags & flag::COMPUTED != 0;
        Ok(())
    }

    /// A macro that passes its parameter to `__has_include` is understood where it is called with a literal.
    fn refuse_wrappers(&self) -> Done {
        let mut calls = self.texts.iter().flat_map(|text| &text.scan.wrapper_calls);
        if !self.wrappers.is_empty() && calls.any(|call| self.wrappers.contains(call)) {
            return Err(Reason::ComputedInclude.into());
        }
        Ok(())
    }

    fn all_defines(&self) -> impl Iterator<Item = &Define> {
        self.texts.iter().flat_map(|text| &text.scan.defines).chain(&self.defines)
    }

    fn meaning(&self, name: &[u8]) -> Meaning {
        let mut meaning = Meaning::default();
        let mut aliases = vec![hash32(name)];
        let mut next = 0;
        while let Some(hash) = aliases.get(next).copied() {
            next += 1;
            if hash == hash32(b"__FILE__") || hash == hash32(b"__BASE_FILE__") || next > ALIASES_MAX {
                meaning.is_complex = true;
                break;
            }
            for define in self.all_defines().filter(|define| define.name == hash) {
                match &define.body {
                    Body::Header(form, header) => {
                        meaning.is_complex |= *form == Form::Angled && self.is_expanded(header);
                        if !meaning.headers.iter().any(|(f, h)| f == form && h == header) {
                            meaning.headers.push((*form, header.clone()));
                        }
                    }
                    Body::Alias(other) if !aliases.contains(other) => aliases.push(*other),
                    Body::Alias(_) | Body::Plain => {}
                    Body::Complex => meaning.is_complex = true,
                }
            }
        }
        meaning
    }

    /// Whether a word in `<…>` is a macro: when the whole comes from a macro, its words are expanded (`linux` is 1).
    fn is_expanded(&self, header: &[u8]) -> bool {
        if header.iter().any(|byte| byte.is_ascii_whitespace()) {
            return true;
        }
        header.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_')).filter(|word| !word.is_empty()).any(
            |word| {
                let hash = hash32(word);
                PREDEFINED.contains(&word) || self.all_defines().any(|define| define.name == hash)
            },
        )
    }
}
