//! One unit of this machine's user, from request to verdict (DO).
//!
//! One direction: request, invocation, plan, closure, job, outcome, verdict. Any trouble on the way is "compile it here",
//! with a reason.

use super::{
    Agent,
    cache::{self, Had, Keep},
    checkouts::{self, Portable},
    desk::Ticket,
    here::{self, Alone, Compiled},
    natives,
    outputs::{Made, Placed},
    phases::{Phases, measured},
    seek::{self, First, Inquiry, Lead, Making},
    session,
    starts::{self, Back, Came, Going},
    wire::Request,
};
use crate::{
    compiler::{
        invocation::Invocation,
        plan::{self, Language, Plan},
        response,
    },
    env::Keeping,
    inputs::{
        Closure, Tick, Want,
        ask::{self, Question, Rung},
    },
    reason::Reason,
    sched::{
        dispatch::{Ask, Why},
        history::{Class, Work},
    },
    toolchain::{LookupError, Toolchain},
    view::snapshot::{Phase, UnitRecord},
};
use mesh_proto::{
    digest::Digest,
    job::{Exit, Job, Outcome, Text},
    key::ActionKey,
    limits,
    path::AbsPath,
    peer::PeerId,
    toolchain::Fingerprint,
};
use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// A response file, bytes.
const RESPONSE_BYTES_MAX: u64 = 8 << 20;

/// What the launcher is told.
pub(super) enum Verdict {
    /// Compile it here.
    Local {
        /// Why.
        reason: Reason,
        /// Whether a remote compile was, or would have been, tried.
        fallback: bool,
        /// Holds a slot of this machine's until the launcher's compiler has ended.
        ticket: Ticket,
    },
    /// The outputs lie beside their targets.
    Done {
        /// What the compiler printed.
        text: Vec<Text>,
        /// The files.
        placed: Placed,
        /// What is to be kept of it, once the launcher has been told.
        keep: Option<Box<Keep>>,
    },
}

/// A unit that can go out.
pub(super) struct Unit {
    view: View,
    pub(super) closure: Closure,
    /// What it is for a peer.
    pub(super) job: Job,
    /// What its result is kept under; `None` if it is not.
    pub(super) key: Option<ActionKey>,
    /// What another checkout may have its result by; `None` as long as nobody needs to know.
    pub(super) portable: Option<Portable>,
    work: Work,
    /// Why only a kept result will do: nobody can compile it.
    stranded: Option<Reason>,
}

impl Unit {
    /// The compiler.
    pub(super) fn toolchain(&self) -> &Toolchain {
        &self.view.toolchain
    }

    /// The compiler, to be held beyond the unit.
    pub(super) fn shared_toolchain(&self) -> &Arc<Toolchain> {
        &self.view.toolchain
    }

    /// What its command line says.
    pub(super) fn plan(&self) -> &Plan {
        &self.view.plan
    }

    /// The launcher's file creation mask.
    pub(super) fn umask(&self) -> u32 {
        self.view.request.umask
    }

    /// What the launcher says of its result.
    pub(super) fn keeping(&self) -> Keeping {
        self.view.request.keeping
    }

    /// Whether its result is to be kept.
    pub(super) fn is_kept(&self, agent: &Agent) -> bool {
        self.key.is_some() && agent.cache.keeps() && self.keeping() != Keeping::Read
    }

    /// Whether the plan says that the compiler makes a file of this path.
    fn makes(&self, path: &AbsPath) -> bool {
        // gcc names this one after the source as well, so that no plan has its name.
        let remarks = path.name().ends_with(b".opt-record.json.gz")
            && self.job.argv.iter().any(|argument| argument.starts_with(b"-fsave-optimization-record"));
        let plan = &self.view.plan;
        let mut named = std::iter::once(&plan.output).chain(&plan.side_outputs);
        remarks || named.any(|named| self.real_path(named).as_ref() == Some(path))
    }

    /// The files of an outcome as they are to be placed, the object last: who sees it finds everything that belongs to it.
    /// `None` if they are not those that the compiler here would make: they could be a source, or a script.
    pub(super) fn made(&self, outcome: &Outcome, bytes: Vec<Vec<u8>>) -> Option<Vec<Made>> {
        let object = self.real_path(&self.view.plan.output);
        let object = object.as_ref();
        let is_object = |path: &AbsPath| Some(path) == object && !self.job.argv.iter().any(|a| a == b"-S");
        let made = outcome.outputs.iter().zip(bytes);
        let mut made: Vec<Made> = made
            .map(|(output, bytes)| Made { keeps_mode: !is_object(&output.path), output: output.clone(), bytes })
            .collect();
        let is_whole = made.iter().any(|m| Some(&m.output.path) == object);
        made.sort_by_key(|m| Some(&m.output.path) == object);
        (is_whole && made.iter().all(|m| self.makes(&m.output.path))).then_some(made)
    }

    /// Where an output really lies: its directory without symbolic links. The walk found the object's; most others lie there.
    fn real_path(&self, path: &[u8]) -> Option<AbsPath> {
        let directory = |path: &[u8]| path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        let (cut, object) = (directory(path), &self.view.plan.output);
        let name = &path[cut..];
        if path[..cut] == object[..directory(object)] {
            return self.closure.output_dirs.first()?.join(name).ok();
        }
        let path = absolute(&self.view.request.cwd, path);
        let dir = std::fs::canonicalize(Path::new(OsStr::from_bytes(&path)).parent()?).ok()?;
        AbsPath::new(dir.as_os_str().as_bytes()).ok()?.join(name).ok()
    }
}

/// What a closure is made for.
struct View {
    request: Request,
    toolchain: Arc<Toolchain>,
    plan: Plan,
    system_dirs: Arc<[Vec<u8>]>,
    locale_dirs: Vec<Vec<u8>>,
}

impl View {
    fn want(&self, requested_at: Tick) -> Want<'_> {
        Want {
            plan: &self.plan,
            cwd: &self.request.cwd,
            env: &self.request.env,
            system_dirs: &self.system_dirs,
            locale_dirs: &self.locale_dirs,
            family: self.toolchain.family,
            requested_at,
        }
    }
}

/// Where a compiler keeps its own translations: `share/locale` below its prefix.
fn locale_dir(toolchain: &Toolchain) -> Vec<u8> {
    let prefix = toolchain.real.parent().and_then(|bin| bin.parent()).unwrap_or_else(AbsPath::root);
    [prefix.as_bytes(), b"/share/locale"].concat()
}

/// When a request arrived: only what is checked from then on counts for it.
#[derive(Clone, Copy)]
struct Arrived {
    at: Instant,
    tick: Tick,
}

/// Why a unit stays here.
pub(super) struct Stays {
    reason: Reason,
    fallback: bool,
    /// Its ticket holds a slot here already.
    holds: bool,
}

impl From<Reason> for Stays {
    /// The plan's and the closure's verdicts: not a fallback, the unit is not distributed at all.
    fn from(reason: Reason) -> Self {
        Self { reason, fallback: false, holds: false }
    }
}

/// What a unit that stays here leaves behind.
struct Left {
    ticket: Option<Ticket>,
    local: Ask,
    alone: Option<Alone>,
}

/// Compiles a unit, or says that it is to be compiled here. Dropped or cancelled, it takes everything back.
pub(super) async fn unit(agent: &Arc<Agent>, request: Request, cancel: CancellationToken) -> Verdict {
    let mut phases = Phases::default();
    let session = request.session;
    let mut record = UnitRecord::default();
    agent.records().requested();
    let mut left = Left { ticket: None, local: Ask::here(Work::default()), alone: None };
    let result = go(agent, request, &cancel, &mut phases, &mut record, &mut left).await;
    let mut took_here = None;
    let verdict = match result {
        Ok(done) => done,
        Err(Stays { reason, fallback, holds }) => {
            record.reason = Some(reason);
            record.ran_on = None;
            let ticket = match left.ticket {
                Some(ticket) if holds => ticket,
                other => session::slot_here(agent, other, left.local, (reason, fallback), &record.source).await,
            };
            phases.ended("slot", None);
            let compiled = match left.alone {
                Some(alone) => here::compile(agent, alone, reason, &mut phases, &mut record).await,
                None => None,
            };
            match compiled {
                Some(Compiled { text, placed, keep, took }) => {
                    ticket.compiled_here(true);
                    took_here = Some((reason, took));
                    Verdict::Done { text, placed, keep }
                }
                None => Verdict::Local { reason, fallback, ticket },
            }
        }
    };
    record.ended_ms = crate::host::wall_ms();
    record.phases = phases.take();
    agent.sessions.ended(session, |name| agent.speed_of(name), &record);
    if let Some((reason, took)) = took_here {
        agent.sessions.ran_here(session, reason, took);
    }
    agent.records().ended(record);
    agent.changed();
    verdict
}

async fn go(
    agent: &Arc<Agent>,
    request: Request,
    cancel: &CancellationToken,
    phases: &mut Phases,
    record: &mut UnitRecord,
    left: &mut Left,
) -> Result<Verdict, Stays> {
    if agent.is_leaving() {
        return Err(fallback(Reason::Leaving));
    }
    let preparing = agent.clone();
    let arrived = Arrived { at: Instant::now(), tick: agent.arrivals.arrive() };
    let prepared = tokio::task::spawn_blocking(move || measured(|| prepare(&preparing, request, arrived))).await;
    let ((known, prepared), cpu_us) = prepared.map_err(|_| Stays::from(Reason::Unreadable))?;
    (record.source, record.output, record.compiler) = (known.source, known.output, known.compiler);
    record.note = known.note;
    (left.local.toolchain, left.local.work) = (known.toolchain.unwrap_or(left.local.toolchain), known.work);
    phases.ended("scan", Some(cpu_us));
    let unit = match prepared? {
        Prepared::Out(unit) => Arc::new(*unit),
        Prepared::Had(had) => return Ok(served(agent, *had, phases, record, None)),
        Prepared::Alone(unit, reason) => {
            left.alone = Some(Alone { making: making(agent, &unit), unit: Arc::new(*unit) });
            return Err(fallback(reason));
        }
    };
    record.files = u32::try_from(unit.closure.entries.len()).unwrap_or(u32::MAX);
    let (back, making) = match unit.key.filter(|_| agent.cache.is_on()) {
        None => (run_remotely(agent, &unit, cancel, phases, record, &mut left.ticket).await, None),
        Some(key) => {
            let expected_us = agent.desk.look(|all| all.expects_us(&unit.toolchain().fingerprint, &unit.work));
            let expected = Duration::from_micros(expected_us);
            let making = making(agent, &unit);
            let inquiry = Inquiry::of(agent, key, expected, making.is_some());
            let patience = inquiry.patience;
            let ask = async {
                tokio::select! {
                    lead = inquiry.ask(agent) => lead,
                    () = cancel.cancelled() => None,
                }
            };
            let follow = async |lead| {
                tokio::select! {
                    found = find(agent, &unit, lead, key, expected) => found,
                    () = cancel.cancelled() => None,
                }
            };
            let compile = run_remotely(agent, &unit, cancel, phases, record, &mut left.ticket);
            match seek::hedged(ask, patience, |lead: &Lead| lead.patience(expected), follow, compile).await {
                First::Found(found) => {
                    let Found { had, mut keep, from, joined } = found;
                    if let Some(keep) = &mut keep {
                        keep.making = making;
                    }
                    phases.ended("seek", None);
                    agent.records().had_elsewhere(joined);
                    record.note = format!("had from {from}");
                    return Ok(served(agent, had, phases, record, keep));
                }
                First::Compiled(back) => (back, making),
            }
        }
    };
    if unit.key.is_some() {
        agent.records().not_in_cache();
    }
    let mut back = match back {
        Ok(back) => back,
        Err(stays) => {
            left.alone = Some(Alone { unit, making });
            return Err(stays);
        }
    };
    if back.outcome.exit != Exit::Code(0) {
        return Err(Reason::CompileError.into());
    }
    let keep = cache::keep(agent, &unit, &mut back, making);
    let placing = agent.clone();
    let placed =
        tokio::task::spawn_blocking(move || measured(|| place(&placing, &unit, back.outcome, back.bytes))).await;
    let (placed, cpu_us) = placed.map_err(|_| fallback(Reason::RemoteError))?;
    phases.ended("write", Some(cpu_us));
    let (text, placed) = placed?;
    Ok(Verdict::Done { text, placed, keep })
}

/// Lets others wait for a unit whose result will be kept.
fn making(agent: &Agent, unit: &Unit) -> Option<Making> {
    agent.whereto.makes(unit.key.filter(|_| unit.is_kept(agent))?)
}

/// A result that was made elsewhere, or for another unit.
struct Found {
    had: Had,
    /// To be kept here too.
    keep: Option<Box<Keep>>,
    /// Who had it, or was making it.
    from: String,
    /// It was being made.
    joined: bool,
}

/// Follows a lead, and places what it leads to.
async fn find(agent: &Arc<Agent>, unit: &Arc<Unit>, lead: Lead, key: ActionKey, expected: Duration) -> Option<Found> {
    let (from, joined, is_here) = (lead.name(), lead.joins(), matches!(lead, Lead::Here));
    let kept = seek::follow(agent, lead, key, expected).await;
    let (placing, unit) = (agent.clone(), unit.clone());
    let placed = tokio::task::spawn_blocking(move || match kept {
        Some(kept) => {
            let keeps = unit.is_kept(&placing);
            cache::take(&placing, &unit, kept).map(|(had, keep)| (had, Some(keep).filter(|_| keeps)))
        }
        None if is_here => cache::look(&placing, &unit).map(|had| (had, None)),
        None => None,
    });
    let (had, keep) = placed.await.ok().flatten()?;
    Some(Found { had, keep, from, joined })
}

/// A unit whose result was kept.
fn served(agent: &Agent, had: Had, phases: &mut Phases, record: &mut UnitRecord, keep: Option<Box<Keep>>) -> Verdict {
    let Had { placed, outcome, executor, made_ms, files, elsewhere, took_us: (us, cpu_us) } = had;
    if let Some(root) = elsewhere {
        record.note = format!("made in another checkout, {}", String::from_utf8_lossy(&root));
    }
    phases.split("cache", us, cpu_us);
    record.cached = true;
    record.files = u32::try_from(files).unwrap_or(u32::MAX);
    let who = if executor == agent.mesh.me() { Some(agent.own_name()) } else { agent.mesh.name_of(&executor) };
    (record.made_by, record.made_ms) = (who.unwrap_or_else(|| executor.short()), made_ms);
    ran(&outcome, record);
    Verdict::Done { text: outcome.text, placed, keep }
}

/// What the machine that ran a unit says of it.
pub(super) fn ran(outcome: &Outcome, record: &mut UnitRecord) {
    let usage = &outcome.usage;
    let there =
        [("stage", usage.stage_us), ("wait", usage.wait_us), ("run", usage.run_us), ("collect", usage.collect_us)];
    let phase = |(name, us): (&str, u64)| Phase { name: name.to_owned(), us, cpu_us: None };
    record.phases_there = there.into_iter().map(phase).collect();
    record.cpu_us = usage.user_us + usage.system_us;
    record.peak_kib = usage.peak_kib;
    record.output_bytes = outcome.outputs.iter().map(|o| o.size).sum();
}

fn fallback(reason: Reason) -> Stays {
    Stays { reason, fallback: true, holds: false }
}

/// What is known of a unit even if it stays here.
#[derive(Default)]
struct Known {
    toolchain: Option<Fingerprint>,
    work: Work,
    source: Vec<u8>,
    output: Vec<u8>,
    compiler: String,
    note: String,
}

/// A unit of a few lines by which a compiler is tried.
pub(super) struct Sample {
    /// The compiler that its command means.
    pub(super) toolchain: Arc<Toolchain>,
    /// What it would be for a peer, in a root of its own.
    pub(super) job: Job,
    /// What it may read.
    pub(super) closure: Closure,
}

/// Plans and closes a command as if it were to go out; blocking.
///
/// # Errors
/// Why it never would.
pub(super) fn sample(agent: &Arc<Agent>, request: Request) -> Result<Sample, Reason> {
    let arrived = Arrived { at: Instant::now(), tick: agent.arrivals.arrive() };
    let unit = plan_and_close(agent, request, arrived, &mut Known::default(), false).map_err(|stays| stays.reason)?;
    Ok(Sample { job: Job { strict: true, ..unit.job }, toolchain: unit.view.toolchain, closure: unit.closure })
}

/// What is to become of a unit.
enum Prepared {
    /// It goes out.
    Out(Box<Unit>),
    /// It stays here, for this reason.
    Alone(Box<Unit>, Reason),
    /// Its outputs lie beside their targets already.
    Had(Box<Had>),
}

/// Everything up to the closure, and the outputs too if they are kept; blocking.
fn prepare(agent: &Arc<Agent>, request: Request, arrived: Arrived) -> (Known, Result<Prepared, Stays>) {
    let mut known = Known::default();
    let unit = plan_and_close(agent, request, arrived, &mut known, true);
    let prepared = unit.map(|mut unit| {
        unit.key = cache::key(agent, &unit);
        let had = cache::look(agent, &unit).or_else(|| {
            unit.portable = checkouts::of(&unit);
            checkouts::look(agent, &unit)
        });
        match (had, unit.stranded) {
            (Some(had), _) => Prepared::Had(Box::new(had)),
            (None, Some(reason)) => {
                agent.records().not_in_cache();
                Prepared::Alone(Box::new(unit), reason)
            }
            (None, None) => Prepared::Out(Box::new(unit)),
        }
    });
    (known, prepared)
}

fn plan_and_close(
    agent: &Arc<Agent>,
    request: Request,
    arrived: Arrived,
    known: &mut Known,
    goes_out: bool,
) -> Result<Unit, Stays> {
    same_root(&request)?;
    let cwd = request.cwd.clone();
    let argv = response::expand(&request.argv, &mut |name| read_response(&cwd, name))?;
    let toolchain = compiler(agent, &request, arrived).map_err(|e| {
        known.note = agent.registry.why_refused(&request.program).unwrap_or_default();
        match e {
            LookupError::NotFound => Reason::Compiler,
            LookupError::Local(reason) => reason,
        }
    })?;
    known.compiler = toolchain.label();
    plain_loader(&request, &toolchain)?;
    let invocation = Invocation {
        argv,
        cwd,
        env: request.env.clone(),
        family: toolchain.family,
        version_major: toolchain.version_major,
        cxx_driver: toolchain.cxx_driver,
    };
    let plan = plan::plan(&invocation)?;
    known.source = absolute(&request.cwd, &plan.source);
    known.output = absolute(&request.cwd, &plan.output);
    known.toolchain = Some(toolchain.fingerprint);
    known.work = work(&known.source, &plan, &invocation.argv);
    let exists = |suspect: &Vec<u8>| Path::new(OsStr::from_bytes(&absolute(&request.cwd, suspect))).exists();
    if plan.suspects.iter().any(exists) {
        return Err(Reason::UnknownOption.into());
    }
    let stranded = if goes_out { agent.may_go_out(&toolchain).err() } else { None };
    if let Some(reason) = stranded.filter(|reason| !may_be_kept(agent, *reason, &toolchain)) {
        return Err(fallback(reason));
    }
    let argv = natives::expanded(agent, &toolchain, &plan, invocation.argv)?;
    let system_dirs = agent.system_dirs(&toolchain, plan.language, &plan.search.probe, &request.env, arrived.tick)?;
    let view = View { locale_dirs: vec![locale_dir(&toolchain)], request, toolchain, plan, system_dirs };
    let request = &view.request;
    let question = Question { program: &request.program, argv: &argv, cwd: &request.cwd, env: &request.env };
    let (closure, rung) = ask::closure(&agent.graph, &view.want(arrived.tick), &question)?;
    if rung == Rung::Asked {
        agent.records().asked_compiler();
    }
    let work = Work { input_bytes: closure.bytes, ..known.work };
    let job = job(&view, &closure, argv, rung != Rung::Graph);
    Ok(Unit { view, closure, job, key: None, portable: None, work, stranded })
}

/// Whether a unit that nobody else can compile for this reason may have been compiled before, or its result can be kept.
fn may_be_kept(agent: &Arc<Agent>, reason: Reason, toolchain: &Arc<Toolchain>) -> bool {
    here::is_for_want_of_others(reason) && (here::is_possible(agent, toolchain) || agent.cache.may_have())
}

/// What a unit will be known by the next time.
fn work(source: &[u8], plan: &Plan, argv: &[Vec<u8>]) -> Work {
    let cxx = matches!(plan.language, Language::Cxx | Language::ObjCxx | Language::PreprocessedCxx);
    let class = Class::of(cxx, argv);
    let flags = [class.cxx, class.optimised, class.debug, class.lto].map(u8::from);
    let digest = Digest::of(&[&flags[..], source].concat());
    let key = u64::from_le_bytes(*digest.0.first_chunk().expect("a digest has 32 bytes"));
    Work { key: key.max(1), class, input_bytes: 0 }
}

/// The compiler that a request means now.
fn compiler(agent: &Agent, request: &Request, arrived: Arrived) -> Result<Arc<Toolchain>, LookupError> {
    let path_var = request.env.iter().find(|(k, _)| k == b"PATH").map_or(&b""[..], |(_, v)| v);
    agent.compiler(&request.program, &request.cwd, path_var, (arrived.at, arrived.tick))
}

/// `LD_LIBRARY_PATH` is set for many users all the time, for the programs that they build. It matters only if a library of
/// the compiler's own would be taken from there.
fn plain_loader(request: &Request, toolchain: &Toolchain) -> Result<(), Reason> {
    let Some((_, dirs)) = request.env.iter().find(|(k, _)| k == b"LD_LIBRARY_PATH") else { return Ok(()) };
    let is_library = |name: &[u8]| name.windows(3).any(|w| w == b".so");
    let parts = || toolchain.manifest.parts.iter().map(|p| &p.path).filter(|p| is_library(p.name()));
    for dir in dirs.split(|b| *b == b':' || *b == b';') {
        // An empty element is the working directory.
        let dir = absolute(&request.cwd, if dir.is_empty() { b"." } else { dir });
        let other = |part: &AbsPath| {
            let there = [&dir[..], b"/", part.name()].concat();
            let real = |path: &[u8]| std::fs::canonicalize(OsStr::from_bytes(path)).ok();
            real(&there).is_some_and(|found| Some(found) != real(part.as_bytes()))
        };
        if parts().any(other) {
            return Err(Reason::Environment);
        }
    }
    Ok(())
}

/// In a container or a chroot the launcher's paths mean other files than the agent's.
fn same_root(request: &Request) -> Result<(), Reason> {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let here = [id(Path::new("/")), id(&path(&request.cwd)), id(&path(&request.program))];
    if here.iter().zip(request.seen).all(|(here, seen)| *here == Some(seen)) { Ok(()) } else { Err(Reason::OtherRoot) }
}

fn read_response(cwd: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let path = PathBuf::from(OsStr::from_bytes(&absolute(cwd, name)));
    let meta = std::fs::metadata(&path).ok()?;
    if !meta.is_file() || meta.len() > RESPONSE_BYTES_MAX {
        return None;
    }
    std::fs::read(path).ok()
}

/// `path` seen from `cwd`; nothing else about it changes.
fn absolute(cwd: &[u8], path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") { path.to_vec() } else { [cwd, b"/", path].concat() }
}

/// Has the unit compiled by whoever is to do it. Err: it is compiled here.
async fn run_remotely(
    agent: &Arc<Agent>,
    unit: &Unit,
    cancel: &CancellationToken,
    phases: &mut Phases,
    record: &mut UnitRecord,
    ticket: &mut Option<Ticket>,
) -> Result<Back, Stays> {
    let job = &unit.job;
    // Said here, where the reason is known: a peer could only break off.
    job.check().map_err(|_| Stays::from(Reason::TooLarge))?;
    let prefer = unit.view.request.prefer.as_deref().and_then(|name| agent.links.named(name));
    let (toolchain, force) = (&unit.view.toolchain, unit.view.request.force);
    let ask = Ask { toolchain: toolchain.fingerprint, work: unit.work, force, prefer, local: None, memory_kib: 0 };
    let held = ticket.insert(agent.ask(ask, &record.source));
    let keeps = unit.is_kept(agent);
    let going = Going { job, closure: &unit.closure, toolchain, keeps };
    let came = starts::run(agent, held, going, cancel, &mut record.note).await;
    phases.ended("remote", None);
    let back = match came {
        Came::Back(back) => back,
        Came::Here { reason, fallback, why } => {
            record.chosen = chosen(agent, None, &why);
            return Err(Stays { reason, fallback, holds: true });
        }
        Came::Stays { reason, fallback } => return Err(Stays { reason, fallback, holds: false }),
    };
    record.ran_on = Some(back.link.as_ref().map_or_else(|| agent.own_name(), |link| link.name()));
    record.chosen = chosen(agent, record.ran_on.as_deref(), &back.why);
    record.starts = back.starts;
    ran(&back.outcome, record);
    Ok(*back)
}

/// How the machines compared when the unit went where it went: in milliseconds until its expected end, the chosen one
/// first.
fn chosen(agent: &Agent, ran_on: Option<&str>, why: &Why) -> Vec<(String, u64)> {
    if why.is_second {
        return Vec::new();
    }
    let name = |peer: &Option<PeerId>| match peer {
        Some(peer) => agent.mesh.name_of(peer).unwrap_or_else(|| peer.short()),
        None => "here".to_owned(),
    };
    let others = why.others.iter().map(|(peer, us)| (name(peer), us / 1000));
    let first = (why.finish_us > 0).then(|| (ran_on.unwrap_or("here").to_owned(), why.finish_us / 1000));
    first.into_iter().chain(others).collect()
}

/// The job that a unit is. The arguments go unchanged, but for what the plan expands.
fn job(view: &View, closure: &Closure, argv: Vec<Vec<u8>>, strict: bool) -> Job {
    // The compiler's temporary files stay in the job's own /tmp; which directory that is shows in no output.
    const DROPPED: &[&[u8]] = &[b"TMPDIR", b"TMP", b"TEMP"];
    let env = view.request.env.iter().filter(|(name, _)| !DROPPED.contains(&name.as_slice())).cloned().collect();
    Job {
        toolchain: view.toolchain.fingerprint,
        argv,
        env,
        cwd: view.request.cwd.clone(),
        output_dirs: closure.output_dirs.clone(),
        umask: view.request.umask,
        merged_output: view.request.merged_output,
        terminal: view.request.terminal,
        wall_ms_max: limits::JOB_WALL_MS_MAX,
        strict,
    }
}

/// Checks that nothing changed meanwhile, and writes the outputs; blocking.
pub(super) fn place(
    agent: &Agent,
    unit: &Unit,
    outcome: Outcome,
    bytes: Vec<Vec<u8>>,
) -> Result<(Vec<Text>, Placed), Stays> {
    let (view, now) = (&unit.view, Arrived { at: Instant::now(), tick: agent.arrivals.arrive() });
    if !agent.graph().still_fresh(&view.want(now.tick), &unit.closure) {
        return Err(fallback(Reason::Changing));
    }
    // Upgraded meanwhile, its headers with it perhaps: some of the inputs may be the new ones'.
    let is_same = |found: Arc<Toolchain>| found.fingerprint == view.toolchain.fingerprint;
    if !compiler(agent, &view.request, now).is_ok_and(is_same) {
        return Err(fallback(Reason::Changing));
    }
    // Status 0 and no object, or what the compiler here would not have made: whatever that was, it is looked at here.
    let Some(made) = unit.made(&outcome, bytes) else {
        tracing::warn!("a peer gave other files than those that were asked for");
        agent.records().discrepancy();
        return Err(fallback(Reason::Discrepancy));
    };
    let placed = agent.temporaries.place(&made, view.request.umask).map_err(|_| fallback(Reason::DiskFull))?;
    Ok((outcome.text, placed))
}
