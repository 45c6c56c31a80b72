//! Answers what `mesh toolchain` asks: what is known of compilers here and there, having them sent, removing them (DO).

use super::{
    Agent,
    command::{FAILED, REFUSED, TIMEOUT, failed},
    link::Link,
    local::Client,
    proofs::Proof,
    take,
    wire::{Look, Tell},
};
use crate::{
    compiler::invocation::Family,
    sched::lend,
    toolchain::{self, Toolchain},
    view::{
        rows::count,
        snapshot::{
            ArrivalRow, ArrivalState, Nearest, PartKind, PartRow, ProofState, RefusedRow, ToolchainDetail,
            ToolchainRow, Toolchains, Why, WhyRow,
        },
        time,
    },
    worker::sent::Sent,
};
use mesh_proto::{
    exchange::toolchain::{Arriving, Get, Given, check},
    limits,
    membership::Members,
    message::StreamHead,
    peer::PeerId,
    toolchain::{Fingerprint, Manifest, Needs, Part, PartNode, VERSION_FACT},
};
use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// Digits of a fingerprint that a person sees.
const ID_DIGITS: usize = 10;
/// Differences that are told of one compiler; the rest is counted.
const DIFFERENCES_MAX: usize = 12;
/// Of a text that came from another machine, what is told, bytes.
const TEXT_BYTES_MAX: usize = 512;
/// Compilers that another machine is asked to describe.
const DESCRIBED_MAX: usize = 64;
/// Within this time it describes all of them.
const DESCRIBE_TIME: Duration = Duration::from_secs(30);
/// Within this time it describes one.
const DESCRIBE_ONE_TIME: Duration = Duration::from_secs(10);
/// How often compilers on their way are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// What is not there after this time is left to come by itself.
const PUSH_TIME: Duration = Duration::from_secs(60 * 60);
/// A machine that went away may come back within this time: its agent may have been restarted.
const GONE_TIME: Duration = Duration::from_secs(20);
/// Jobs that run must have ended within this time, before the compilers go that they may use.
const JOBS_TIME: Duration = Duration::from_secs(30);

/// What names a compiler to a person.
fn id(fingerprint: &Fingerprint) -> String {
    let mut digits = fingerprint.0.hex();
    digits.truncate(ID_DIGITS);
    digits
}

/// A short name for people of a compiler of which there is but the manifest.
fn label(manifest: &Manifest) -> String {
    let name = match (take::family(manifest), toolchain::is_cxx(manifest)) {
        (Some(Family::Gcc), false) => "gcc",
        (Some(Family::Gcc), true) => "g++",
        (Some(Family::Clang), false) => "clang",
        (Some(Family::Clang), true) => "clang++",
        (None, _) => return shortened(take::name(manifest)),
    };
    format!("{name} {}", fact(manifest, VERSION_FACT))
}

fn fact(manifest: &Manifest, label: &str) -> String {
    shortened(String::from_utf8_lossy(manifest.fact(label).unwrap_or_default()).into_owned())
}

/// What other machines say is as long as they like.
fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

/// This machine's own compilers, each as it is now; blocks while one is being looked at.
fn own(agent: &Agent) -> Vec<Arc<Toolchain>> {
    let now = Instant::now();
    let known = agent.registry.known();
    known.into_iter().filter(|one| agent.registry.by_fingerprint(one.fingerprint, now).is_some()).collect()
}

/// All that were sent here.
fn sent(agent: &Agent) -> Vec<(Fingerprint, Sent)> {
    agent.server.iter().flat_map(|server| server.sent.list()).collect()
}

/// What the agent does on a thread that may block; what the person is told if it has none.
async fn blocking<T: Send + 'static>(
    agent: &Arc<Agent>,
    work: impl FnOnce(&Arc<Agent>) -> T + Send + 'static,
) -> Result<T, Tell> {
    let agent = agent.clone();
    let done = tokio::task::spawn_blocking(move || work(&agent)).await;
    done.map_err(|_| failed(FAILED, "the agent could not look at its compilers. Its log says why"))
}

/// Why compilers are not sent from here at all.
fn not_sending(agent: &Agent) -> Option<String> {
    if agent.config.toolchain_rate == 0 {
        return Some("toolchain_rate is 0 in config.toml".to_owned());
    }
    match agent.mesh.role() {
        None => Some("this machine is in no mesh".to_owned()),
        Some(role) if !role.submits() => {
            Some(format!("this machine is a {role}, which has nothing compiled elsewhere"))
        }
        Some(_) => None,
    }
}

/// `mesh toolchain`.
pub(super) async fn list(agent: &Arc<Agent>, wanted: Option<Look>) -> Tell {
    let listed = blocking(agent, move |agent| {
        // What is none is among the refused, with the reason.
        let look = |Look { program, cwd, path_var }| agent.registry.lookup(&program, &cwd, &path_var, Instant::now());
        let looked_at = wanted.map(look).and_then(Result::ok).map(|found| id(&found.fingerprint));
        let links = agent.links.all();
        let providers = links.iter().filter(|link| link.load().slots > 0).map(|link| link.name()).collect();
        let refused = agent.registry.refused().into_iter();
        let refused = refused.map(|one| RefusedRow {
            program: one.program.as_bytes().to_vec(),
            reason: one.reason,
            why: one.why,
        });
        let (known, not_sending) = (rows(agent), not_sending(agent));
        Toolchains { known, refused: refused.collect(), providers, not_sending, looked_at }
    });
    listed.await.map_or_else(|tell| tell, |all| Tell::Toolchains(Box::new(all)))
}

/// A row for each compiler.
fn rows(agent: &Agent) -> Vec<ToolchainRow> {
    let own = own(agent);
    let mut rows: Vec<ToolchainRow> = own.iter().map(|one| own_row(agent, one)).collect();
    for (fingerprint, sent) in sent(agent) {
        // This machine may have come by the same one since.
        match own.iter().position(|one| one.fingerprint == fingerprint) {
            Some(at) => {
                let row = &mut rows[at];
                (row.from, row.used_ms) = (Some(sent.from), Some(sent.used_ms));
                if row.proof == ProofState::Untried {
                    row.proof = ProofState::Elsewhere;
                }
            }
            None => rows.push(sent_row(agent, &fingerprint, &sent)),
        }
    }
    rows
}

fn own_row(agent: &Agent, toolchain: &Toolchain) -> ToolchainRow {
    let fingerprint = &toolchain.fingerprint;
    let proof = match agent.proof(fingerprint) {
        Proof::Proved => ProofState::Proved,
        Proof::Unproved(why) => ProofState::Unproved(why),
        Proof::Pending if agent.proofs.is_waiting(fingerprint) => ProofState::Trying,
        Proof::Pending => ProofState::Untried,
    };
    ToolchainRow {
        label: toolchain.label(),
        target: toolchain.triple.clone(),
        driver: toolchain.driver.as_bytes().to_vec(),
        real: toolchain.real.as_bytes().to_vec(),
        bytes: toolchain.bytes(),
        proof,
        ..at_peers(agent, fingerprint)
    }
}

fn sent_row(agent: &Agent, fingerprint: &Fingerprint, sent: &Sent) -> ToolchainRow {
    let driver = sent.manifest.driver.as_bytes().to_vec();
    ToolchainRow {
        label: label(&sent.manifest),
        target: fact(&sent.manifest, toolchain::TARGET_FACT),
        real: driver.clone(),
        driver,
        from: Some(sent.from.clone()),
        used_ms: Some(sent.used_ms),
        bytes: sent.bytes(),
        proof: ProofState::Elsewhere,
        ..at_peers(agent, fingerprint)
    }
}

/// Who has a compiler and who will.
fn at_peers(agent: &Agent, fingerprint: &Fingerprint) -> ToolchainRow {
    let mut row = ToolchainRow { id: id(fingerprint), ..ToolchainRow::default() };
    row.is_lent = agent.served_toolchains().contains(fingerprint);
    for link in agent.links.all() {
        let peer = link.name();
        if link.has(fingerprint) {
            row.has.push(peer);
        } else if let Some(said) = link.shipments.state(fingerprint) {
            row.arrivals.push(ArrivalRow {
                id: row.id.clone(),
                peer,
                state: said.map_or(ArrivalState::Told, arriving),
            });
        }
    }
    row.has.sort();
    row.arrivals.sort_by(|a, b| a.peer.cmp(&b.peer));
    row
}

fn arriving(state: Arriving) -> ArrivalState {
    match state {
        Arriving::Coming { have, of } => ArrivalState::Coming { have, of },
        Arriving::Refused(why) => ArrivalState::Refused(why.to_string()),
    }
}

/// `mesh toolchain show`.
pub(super) async fn detail(agent: &Arc<Agent>, wanted: String) -> Tell {
    let found = blocking(agent, move |agent| {
        let own = own(agent).into_iter().find(|one| id(&one.fingerprint) == wanted);
        if let Some(own) = own {
            return Some(described(own_row(agent, &own), &own.manifest));
        }
        let (fingerprint, sent) = sent(agent).into_iter().find(|(fingerprint, _)| id(fingerprint) == wanted)?;
        Some(described(sent_row(agent, &fingerprint, &sent), &sent.manifest))
    });
    match found.await {
        Ok(Some(detail)) => Tell::Toolchain(Box::new(detail)),
        Ok(None) => failed(FAILED, "it has changed since. See: mesh toolchain"),
        Err(tell) => tell,
    }
}

fn described(row: ToolchainRow, manifest: &Manifest) -> ToolchainDetail {
    let kind = |node: &PartNode| match node {
        // Its first digits: the whole of it would open the file to whoever reads it.
        PartNode::File { digest, size, executable } => {
            PartKind::File { size: *size, digest: format!("{digest:?}"), executable: *executable }
        }
        PartNode::Symlink { target } => PartKind::Symlink(target.clone()),
        PartNode::Directory => PartKind::Directory,
    };
    let part = |part: &Part| PartRow { path: part.path.as_bytes().to_vec(), kind: kind(&part.node) };
    ToolchainDetail {
        row,
        needs: needs(manifest.needs()),
        facts: manifest.facts.clone(),
        parts: manifest.parts.iter().map(part).collect(),
    }
}

/// What a compiler runs on, in words.
fn needs(needs: Option<Needs>) -> String {
    match needs {
        Some(Needs { machine: 62, level: 0 | 1 }) => "any x86-64".to_owned(),
        Some(Needs { machine: 62, level }) => format!("x86-64-v{level} and better"),
        Some(Needs { machine: 183, .. }) => "AArch64".to_owned(),
        Some(Needs { machine, .. }) => format!("the architecture that ELF numbers {machine}"),
        None => "a machine that it does not name".to_owned(),
    }
}

/// The connected machine of this name.
fn peer(agent: &Agent, name: &str) -> Result<Arc<Link>, Tell> {
    if let Some(link) = agent.links.named(name).and_then(|peer| agent.links.get(peer)) {
        return Ok(link);
    }
    let is_member =
        |members: &Members| members.by_id.keys().any(|id| agent.mesh.name_of(id).is_some_and(|known| known == name));
    if name == agent.my_name() || agent.mesh.name_of(&agent.mesh.me()).is_some_and(|mine| mine == name) {
        return Err(failed(FAILED, format!("{name} is this machine. Name another one: mesh peers lists them")));
    }
    if agent.mesh.members().is_some_and(|members| is_member(&members)) {
        return Err(failed(FAILED, format!("{name} is not connected. See: mesh peers")));
    }
    Err(failed(FAILED, format!("no machine of this mesh is called {name}. See: mesh peers")))
}

/// This machine's own compilers of these ids; all of them if none is named.
async fn own_of(agent: &Arc<Agent>, ids: &[String]) -> Result<Vec<Arc<Toolchain>>, Tell> {
    let mut own = blocking(agent, |agent| own(agent)).await?;
    if !ids.is_empty() {
        own.retain(|one| ids.contains(&id(&one.fingerprint)));
        if own.is_empty() {
            let text =
                "only a compiler of this machine's own can be sent from here, and this one is none, or has changed";
            return Err(failed(FAILED, format!("{text}. See: mesh toolchain")));
        }
    }
    Ok(own)
}

/// `mesh toolchain --why`.
pub(super) async fn why(agent: &Arc<Agent>, name: &str, ids: &[String]) -> Tell {
    match compare(agent, name, ids).await {
        Ok(why) => Tell::WhyNot(Box::new(why)),
        Err(tell) => tell,
    }
}

async fn compare(agent: &Arc<Agent>, name: &str, ids: &[String]) -> Result<Why, Tell> {
    let link = peer(agent, name)?;
    let own = own_of(agent, ids).await?;
    let there = link.toolchains();
    let (asked, lacking): (usize, Vec<_>) =
        (own.len(), own.iter().filter(|one| !link.has(&one.fingerprint)).cloned().collect());
    let mut known: BTreeMap<Fingerprint, Arc<Manifest>> =
        sent(agent).into_iter().map(|(fingerprint, sent)| (fingerprint, sent.manifest)).collect();
    known.extend(own.iter().map(|one| (one.fingerprint, one.manifest.clone())));
    let mut theirs: Vec<Arc<Manifest>> = Vec::new();
    if !lacking.is_empty() {
        let end = Instant::now() + DESCRIBE_TIME;
        for (at, fingerprint) in there.iter().enumerate() {
            let manifest = match known.get(fingerprint) {
                Some(manifest) => Some(manifest.clone()),
                None if at >= DESCRIBED_MAX || Instant::now() >= end => None,
                None => tokio::time::timeout(DESCRIBE_ONE_TIME, describe(&link, *fingerprint)).await.ok().flatten(),
            };
            theirs.extend(manifest);
        }
    }
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let silent = if lacking.is_empty() { 0 } else { small(there.len() - theirs.len()) };
    let (looking, there) = (link.clone(), small(there.len()));
    let has: Vec<_> = own.iter().filter(|one| link.has(&one.fingerprint)).cloned().collect();
    let lacking = blocking(agent, move |agent| {
        let of = |ours: &Arc<Toolchain>| {
            let also = has.iter().find(|one| (&one.real, one.label()) == (&ours.real, ours.label()));
            WhyRow { also: also.map(|one| one.driver.as_bytes().to_vec()), ..why_row(agent, &looking, ours, &theirs) }
        };
        lacking.iter().map(of).collect::<Vec<_>>()
    });
    Ok(Why { peer: link.name(), asked: small(asked), there, silent, lacking: lacking.await? })
}

/// Has a machine describe a compiler of its own; `None` if it does not, or says what cannot be.
async fn describe(link: &Link, fingerprint: Fingerprint) -> Option<Arc<Manifest>> {
    let (mut out, mut inp) = link.conn.open_bi().await.ok()?;
    out.send(&StreamHead::Toolchain(Get { fingerprint }), limits::FRAME_BYTES_MAX).await.ok()?;
    let given: Given = inp.receive(limits::TOOLCHAIN_MANIFEST_BYTES_MAX, DESCRIBE_ONE_TIME).await.ok()?;
    out.finish();
    let Given::Manifest(manifest) = given else { return None };
    let needs = manifest.needs()?;
    check(&manifest, &fingerprint, &needs).ok()?;
    Some(Arc::from(manifest))
}

fn why_row(agent: &Agent, link: &Link, ours: &Toolchain, theirs: &[Arc<Manifest>]) -> WhyRow {
    let nearest = toolchain::most_similar(&ours.manifest, theirs.iter().map(|one| &**one)).map(|theirs| {
        let differences = toolchain::differences(&ours.manifest, theirs);
        Nearest {
            label: label(theirs),
            driver: theirs.driver.as_bytes().to_vec(),
            count: u32::try_from(differences.len()).unwrap_or(u32::MAX),
            differences: differences.iter().take(DIFFERENCES_MAX).map(|one| shortened(one.to_string())).collect(),
        }
    });
    let (outlook, can_be_sent) = outlook(agent, link, ours);
    WhyRow {
        id: id(&ours.fingerprint),
        label: ours.label(),
        driver: ours.driver.as_bytes().to_vec(),
        real: ours.real.as_bytes().to_vec(),
        also: None,
        nearest,
        outlook,
        can_be_sent,
    }
}

/// What becomes of a compiler that a machine lacks, and whether it could be sent now.
fn outlook(agent: &Agent, link: &Link, toolchain: &Toolchain) -> (String, bool) {
    if link.load().slots == 0 {
        return ("it does not compile for others, so it needs none".to_owned(), false);
    }
    if let Some(why) = not_sending(agent) {
        return (format!("it is not sent: {why}. The same package on both machines does as well"), false);
    }
    if let Proof::Unproved(why) = agent.proof(&toolchain.fingerprint) {
        return (format!("it is not sent: {why}. Install the same package on both machines"), false);
    }
    match link.shipments.state(&toolchain.fingerprint) {
        None => ("it is sent when a unit wants it there".to_owned(), true),
        Some(None) => ("that machine has just been asked to take it".to_owned(), false),
        Some(Some(Arriving::Coming { have, of })) => {
            (format!("it is on its way: {} of {}", time::size(have), time::size(of)), false)
        }
        Some(Some(Arriving::Refused(why))) => (format!("that machine does not take it: {why}"), false),
    }
}

/// A compiler that is to get to one machine.
#[derive(Debug)]
struct Pushed {
    toolchain: Arc<Toolchain>,
    peer: PeerId,
    /// As it was called when it was last connected.
    name: String,
    /// The connection on which it was told.
    told: Option<u64>,
    gone: Option<Instant>,
}

impl Pushed {
    /// Does what is to be done next, and says how far it is.
    fn step(&mut self, agent: &Arc<Agent>) -> ArrivalState {
        let fingerprint = &self.toolchain.fingerprint;
        let Some(link) = agent.links.get(self.peer) else {
            self.gone.get_or_insert_with(Instant::now);
            return ArrivalState::Gone;
        };
        (self.gone, self.name) = (None, link.name());
        if link.has(fingerprint) {
            return ArrivalState::There;
        }
        if link.load().slots == 0 {
            return ArrivalState::Refused("it does not compile for others".to_owned());
        }
        match agent.proof(fingerprint) {
            Proof::Pending => return ArrivalState::Proving,
            Proof::Unproved(why) => return ArrivalState::Refused(why),
            Proof::Proved => {}
        }
        if self.told != Some(link.id) {
            let is_coming = matches!(link.shipments.state(fingerprint), Some(None | Some(Arriving::Coming { .. })));
            if !is_coming && !agent.want(&self.toolchain, &link, agent.clock.ms()) {
                return ArrivalState::Refused("its files do not say what they run on".to_owned());
            }
            // The message may have found no room: then it is sent again.
            self.told = link.shipments.state(fingerprint).is_some().then_some(link.id);
        }
        link.shipments.state(fingerprint).flatten().map_or(ArrivalState::Told, arriving)
    }

    fn is_over(&self, state: &ArrivalState) -> bool {
        match state {
            ArrivalState::There | ArrivalState::Refused(_) => true,
            ArrivalState::Gone => self.gone.is_some_and(|since| since.elapsed() >= GONE_TIME),
            _ => false,
        }
    }
}

/// `mesh toolchain push`: has compilers sent, and says how far they are. Goes on when the person goes away.
pub(super) async fn push(agent: &Arc<Agent>, ids: &[String], to: Option<&str>, client: &mut Client) -> io::Result<()> {
    let mut pushed = match wanted(agent, ids, to).await {
        Ok(pushed) => pushed,
        Err(tell) => return client.tell(&tell).await,
    };
    for one in &pushed {
        agent.prove(&one.toolchain);
    }
    let (end, mut is_heard, mut told) = (Instant::now() + PUSH_TIME, true, Vec::new());
    loop {
        let states: Vec<ArrivalState> = pushed.iter_mut().map(|one| one.step(agent)).collect();
        let is_over = pushed.iter().zip(&states).all(|(one, state)| one.is_over(state));
        let rows = pushed.iter().zip(&states).map(|(one, state)| ArrivalRow {
            id: id(&one.toolchain.fingerprint),
            peer: one.name.clone(),
            state: state.clone(),
        });
        let rows: Vec<ArrivalRow> = rows.collect();
        if is_heard && rows != told {
            is_heard = client.tell(&Tell::Arrivals(rows.clone())).await.is_ok();
            told = rows;
        }
        if is_over || Instant::now() >= end {
            return if is_heard { client.tell(&outcome(&states)).await } else { Ok(()) };
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = client.gone(), if is_heard => is_heard = false,
            () = agent.leaving.cancelled() => return Ok(()),
        }
    }
}

/// Which compilers are to get where.
async fn wanted(agent: &Arc<Agent>, ids: &[String], to: Option<&str>) -> Result<Vec<Pushed>, Tell> {
    if let Some(why) = not_sending(agent) {
        return Err(failed(REFUSED, format!("no compiler is sent from here: {why}")));
    }
    let links = match to {
        Some(name) => vec![peer(agent, name)?],
        None => agent.links.all().into_iter().filter(|link| link.load().slots > 0).collect(),
    };
    if links.is_empty() {
        return Err(failed(FAILED, "no machine is connected that compiles for others. See: mesh peers"));
    }
    let own = own_of(agent, ids).await?;
    let pairs = own.iter().flat_map(|toolchain| links.iter().map(move |link| (toolchain, link)));
    Ok(pairs
        .map(|(toolchain, link)| Pushed {
            toolchain: toolchain.clone(),
            peer: link.peer,
            name: link.name(),
            told: None,
            gone: None,
        })
        .collect())
}

/// What all of it came to.
fn outcome(states: &[ArrivalState]) -> Tell {
    let there = states.iter().filter(|state| matches!(state, ArrivalState::There)).count();
    let refused = states.iter().filter(|state| matches!(state, ArrivalState::Refused(_))).count();
    let gone = states.iter().filter(|state| matches!(state, ArrivalState::Gone)).count();
    if there == states.len() {
        return Tell::Finished(String::new());
    }
    let text = format!("{there} of {} arrived", count(states.len() as u64, "compiler"));
    match (refused, gone) {
        (0, 0) => failed(TIMEOUT, format!("{text}; the rest is still on its way. See: mesh toolchain")),
        (0, _) => failed(FAILED, format!("{text}; a machine went away. See: mesh peers")),
        _ => failed(REFUSED, format!("{text}; {refused} refused, for the reason above")),
    }
}

/// `mesh toolchain prune`: removes compilers that were sent here.
pub(super) async fn prune(agent: &Arc<Agent>, all: bool) -> Tell {
    let Some(server) = &agent.server else {
        return Tell::Finished("this machine does not serve, so no compiler was sent here".to_owned());
    };
    if !server.taking.is_idle() {
        return failed(FAILED, "a compiler is being sent here now. Try again when it is there: mesh toolchain");
    }
    let now_ms = crate::host::wall_ms();
    let is_idle = |sent: &Sent| now_ms.saturating_sub(sent.used_ms) >= lend::USED_LATELY_MS;
    let (go, stay): (Vec<_>, Vec<_>) = server.sent.list().into_iter().partition(|(_, sent)| all || is_idle(sent));
    if go.is_empty() {
        return Tell::Finished(match stay.len() {
            0 => "no compiler was sent here, so there is nothing to remove".to_owned(),
            n => format!("nothing is removed: {}", stays(n)),
        });
    }
    let victims: Vec<Fingerprint> = go.iter().map(|(fingerprint, _)| *fingerprint).collect();
    if all {
        // No further job begins with them; one that runs must not lose files half-way.
        victims.iter().for_each(|one| drop(server.sent.remove(one)));
        server.forget(&victims);
        let end = Instant::now() + JOBS_TIME;
        while agent.slots.running() > 0 {
            if Instant::now() >= end {
                for (fingerprint, sent) in go {
                    if let Err(error) = server.sent.add(fingerprint, sent) {
                        tracing::warn!(%error, "a compiler that was to be removed and is in use is not lent any more");
                    }
                }
                return failed(FAILED, "jobs of other machines run here that may need them. Try again later");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    let freed = take::give_up(agent, victims).await;
    let mut labels: Vec<String> = go.iter().map(|(_, sent)| label(&sent.manifest)).collect();
    labels.sort();
    labels.dedup();
    let mut text =
        format!("removed {} ({}); freed {}", count(go.len() as u64, "compiler"), labels.join(", "), time::size(freed));
    if !stay.is_empty() {
        text.push_str(&format!("; {}", stays(stay.len())));
    }
    Tell::Finished(text)
}

fn stays(n: usize) -> String {
    let minutes = lend::USED_LATELY_MS / 60_000;
    let (were, stay) = if n == 1 { ("was", "stays") } else { ("were", "stay") };
    let those = count(n as u64, "compiler");
    format!("{those} {were} used within the last {minutes} minutes and {stay}. All go with: mesh toolchain prune --all")
}
