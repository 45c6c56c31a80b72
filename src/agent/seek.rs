//! What another machine has made is had from there (DO).
//!
//! One question goes to the member that the key points at, with so little patience that a compile is never held up by it; what it
//! says is followed while the compile already waits for its turn, or runs, if that takes long. A result is believed by the
//! signature of the machine that made it, which must be a member that may compile for others.

use super::{Agent, cache, compile::Unit, link::Link};
use crate::{
    net::{channel::Sender, identity::Ed25519, stream::StreamError},
    sched::whereabouts::{self, Index},
    store::results::Kept,
};
use mesh_proto::{
    exchange::results::{Gift, Receipt, Sealed, Seek, Whereabouts},
    job::Outcome,
    key::ActionKey,
    limits,
    membership::{PublicKey, Role, Sign},
    message::{Control, StreamHead},
    peer::PeerId,
};
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::timeout,
};

/// The answer is waited for, before the compile begins beside the question, for this part of what that is expected to take.
const ASK_PART: u32 = 10;
/// And for so long beyond the way there and back, twice, at most.
const ASK_SLACK: Duration = Duration::from_millis(1);
/// A question that is not answered within this time is nothing any more.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// What somebody has is waited for, before the compile begins beside it, for this part of what that is expected to take.
const GIVE_PART: u32 = 4;
const GIVE_MIN: Duration = Duration::from_millis(10);
/// What somebody makes now is waited for, before the compile begins beside it, for as long as the compile would take.
const JOIN_MIN: Duration = Duration::from_millis(50);
/// Nobody waits longer than this for another one's compile.
const JOIN_MAX: Duration = Duration::from_secs(120);
/// How long the next part of a result may take to arrive.
const PART_TIME: Duration = Duration::from_secs(10);
/// Results that are given at once.
const GIVES_MAX: usize = 16;
/// Results that are had by their keys while they are made.
const MAKING_MAX: usize = 4096;
/// What is told of who has what goes out this often at most.
const TELL_PACE: Duration = Duration::from_millis(250);
/// After somebody came or went, for so long nobody else must, before keys are told anew.
const SETTLE: Duration = Duration::from_secs(1);
/// Keys that wait to be told to one member; the oldest are not told.
const TELLS_MAX: usize = 100_000;

/// What is being made here, by key. Whoever waits for one sees the sender go.
type AllMaking = Arc<Mutex<HashMap<ActionKey, watch::Receiver<()>>>>;

/// What this machine knows of who has what.
#[derive(Debug)]
pub(super) struct Whereto {
    index: Mutex<Index>,
    making: AllMaking,
    tells: Mutex<HashMap<PeerId, VecDeque<ActionKey>>>,
    news: Notify,
    gives: Semaphore,
}

impl Default for Whereto {
    fn default() -> Self {
        Self {
            index: Mutex::default(),
            making: AllMaking::default(),
            tells: Mutex::default(),
            news: Notify::new(),
            gives: Semaphore::new(GIVES_MAX),
        }
    }
}

/// A result is being made, until this goes.
#[derive(Debug)]
pub(super) struct Making {
    key: ActionKey,
    all: AllMaking,
    _ends: watch::Sender<()>,
}

impl Drop for Making {
    fn drop(&mut self) {
        self.all.lock().expect("no panic while held").remove(&self.key);
    }
}

impl Whereto {
    /// A unit of this key begins, before anybody is asked; nothing if one is under way already.
    pub(super) fn makes(&self, key: ActionKey) -> Option<Making> {
        let mut making = self.making.lock().expect("no panic while held");
        if making.len() >= MAKING_MAX || making.contains_key(&key) {
            return None;
        }
        let (ends, made) = watch::channel(());
        making.insert(key, made);
        Some(Making { key, all: self.making.clone(), _ends: ends })
    }

    /// Waits until what is being made here is made, or is not made after all.
    async fn made(&self, key: &ActionKey) {
        let made = self.making.lock().expect("no panic while held").get(key).cloned();
        if let Some(mut made) = made {
            let _ = made.changed().await;
        }
    }

    pub(super) fn is_made_here(&self, key: &ActionKey) -> bool {
        self.making.lock().expect("no panic while held").contains_key(key)
    }

    /// A member says which results it has.
    pub(super) fn held(&self, by: PeerId, keys: &[ActionKey]) {
        let mut index = self.index.lock().expect("no panic while held");
        keys.iter().for_each(|key| index.held(by, key));
    }

    /// Somebody came or went.
    pub(super) fn members_changed(&self) {
        self.news.notify_one();
    }
}

/// The members that keys can point at: all but this machine, whose own word is asked first in any case. So two that are
/// not connected with each other meet at one that is connected with both.
fn others(agent: &Agent) -> BTreeSet<PeerId> {
    agent.links.all().iter().map(|link| link.peer).collect()
}

/// By whose key a result of a machine, made at this time, is believed: this one, or a member that may compile for others. What was made
/// before its owner stopped trusting it is not.
pub(super) fn believed(agent: &Agent, executor: &PeerId, made_ms: u64) -> Option<PublicKey> {
    if agent.mesh.is_tainted(executor, made_ms) {
        return None;
    }
    if *executor == agent.mesh.me() {
        return Some(agent.mesh.identity.public_key());
    }
    agent.mesh.key_of_server(executor)
}

/// Whether a unit takes what a machine has made.
pub(super) fn is_taken(agent: &Agent, unit: &Unit, executor: &PeerId) -> bool {
    !unit.trusted_only() || *executor == agent.mesh.me() || agent.mesh.role_of(executor) == Some(Role::Owner)
}

/// Where a result may be had.
#[derive(Debug)]
pub(super) enum Lead {
    /// It is being made here, for another unit.
    Here,
    /// These have it.
    Held(Vec<Arc<Link>>),
    /// This one is making it.
    Underway(Arc<Link>),
}

impl Lead {
    /// Who it leads to, as the user is told.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Here => "another unit that was being compiled".to_owned(),
            Self::Held(links) => links.first().map(|link| link.name()).unwrap_or_default(),
            Self::Underway(link) => format!("{}, which was compiling it", link.name()),
        }
    }

    /// Whether it was being made for another unit.
    pub(super) fn joins(&self) -> bool {
        !matches!(self, Self::Held(_))
    }

    /// How long it is followed before a compile that should take so long begins beside it.
    pub(super) fn patience(&self, expected: Duration) -> Duration {
        match self {
            Self::Held(_) => (expected / GIVE_PART).max(GIVE_MIN),
            Self::Here | Self::Underway(_) => expected.clamp(JOIN_MIN, JOIN_MAX),
        }
    }
}

/// Whom to ask for a result that a compile should take so long to make, and how long to wait for the answer before the compile
/// begins beside the question.
#[derive(Debug)]
pub(super) struct Inquiry {
    key: ActionKey,
    /// If nobody has it, it is made here now.
    makes_ms: u32,
    home: Option<Arc<Link>>,
    pub(super) patience: Duration,
}

impl Inquiry {
    /// With `makes`, the result is made here now if nobody has it.
    pub(super) fn of(agent: &Agent, key: ActionKey, expected: Duration, makes: bool) -> Self {
        let makes_ms = if makes { u32::try_from(expected.as_millis()).unwrap_or(u32::MAX).max(1) } else { 0 };
        let home = whereabouts::home(&key, others(agent)).and_then(|home| agent.links.get(home));
        let rtt = home.as_ref().map_or(Duration::ZERO, |home| Duration::from_micros(home.conn.rtt_us()));
        // What takes less than the way is not worth asking for.
        let home = home.filter(|_| rtt < expected);
        Self { key, makes_ms, home, patience: (expected / ASK_PART).min(rtt * 2 + ASK_SLACK) }
    }

    /// Where the result may be had.
    pub(super) async fn ask(self, agent: &Agent) -> Option<Lead> {
        let Self { key, makes_ms, home, .. } = self;
        if makes_ms == 0 && agent.whereto.is_made_here(&key) {
            return Some(Lead::Here);
        }
        let mut where_it_is = look(agent, agent.mesh.me(), &key, makes_ms);
        if where_it_is == Whereabouts::Nobody {
            where_it_is = question(&*home?, Seek::Who { key, makes_ms }).await.ok()?;
        }
        let there = |peer: &PeerId| agent.links.get(*peer);
        match where_it_is {
            Whereabouts::Nobody => None,
            Whereabouts::Held(peers) => {
                let links: Vec<_> = peers.iter().filter_map(there).collect();
                (!links.is_empty()).then_some(Lead::Held(links))
            }
            Whereabouts::Underway(peer) => there(&peer).map(Lead::Underway),
        }
    }
}

async fn question(link: &Link, seek: Seek) -> Result<Whereabouts, StreamError> {
    let (mut sender, mut receiver) = link.conn.open_bi().await?;
    sender.send(&StreamHead::Seek(seek), limits::FRAME_BYTES_MAX).await?;
    sender.finish();
    receiver.receive(limits::FRAME_BYTES_MAX, ANSWER_TIME).await
}

fn look(agent: &Agent, asker: PeerId, key: &ActionKey, makes_ms: u32) -> Whereabouts {
    let me = agent.mesh.me();
    let is_there = |peer: &PeerId| *peer == me || agent.links.get(*peer).is_some();
    let mut index = agent.whereto.index.lock().expect("no panic while held");
    index.ask(agent.clock.us(), asker, key, u64::from(makes_ms) * 1000, is_there)
}

/// Follows a lead to a result of this key; `None` if it leads nowhere.
pub(super) async fn follow(agent: &Agent, lead: Lead, key: ActionKey, expected: Duration) -> Option<Kept> {
    match lead {
        Lead::Here => {
            timeout(JOIN_MAX, agent.whereto.made(&key)).await.ok()?;
            None
        }
        Lead::Held(links) => {
            for link in links {
                if let Some(kept) = have(agent, &link, key, Duration::ZERO).await {
                    return Some(kept);
                }
            }
            None
        }
        Lead::Underway(link) => have(agent, &link, key, (expected * 2).clamp(JOIN_MIN, JOIN_MAX)).await,
    }
}

/// Has a result from a holder, which may wait for so long until it is made.
async fn have(agent: &Agent, link: &Link, key: ActionKey, wait: Duration) -> Option<Kept> {
    match receive(agent, link, key, wait).await {
        Ok(kept) => kept,
        Err(error) => {
            tracing::debug!("{} did not give a result: {error}", link.name());
            None
        }
    }
}

async fn receive(agent: &Agent, link: &Link, key: ActionKey, wait: Duration) -> Result<Option<Kept>, StreamError> {
    let (mut sender, mut receiver) = link.conn.open_bi().await?;
    let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
    sender.send(&StreamHead::Seek(Seek::Give { key, wait_ms }), limits::FRAME_BYTES_MAX).await?;
    sender.finish();
    let most = limits::JOB_TEXT_BYTES_MAX + limits::FRAME_BYTES_MAX;
    let Gift::Entry(sealed) = receiver.receive(most, wait + PART_TIME).await? else { return Ok(None) };
    let Sealed { receipt, outcome } = &*sealed;
    if agent.mesh.is_tainted(&receipt.executor, receipt.made_ms) {
        return Ok(None);
    }
    let is_good = believed(agent, &receipt.executor, receipt.made_ms)
        .is_some_and(|public| sealed.is_good(&key, &public, &Ed25519));
    if !is_good {
        tracing::warn!("{} gave a result that no machine here stands for", link.name());
        agent.records().discrepancy();
        return Ok(None);
    }
    let mut packed = Vec::with_capacity(outcome.outputs.len());
    for output in &outcome.outputs {
        let blob = timeout(PART_TIME, receiver.receive_packed(output.size)).await;
        packed.push(blob.unwrap_or(Err(StreamError::Late))?.wire());
    }
    let Receipt { executor, made_ms, signature } = *receipt;
    let outcome = sealed.outcome;
    Ok(Some(Kept { key, executor, outcome, packed, made_ms, signature: Some(signature) }))
}

/// What came of a unit that was looked for and compiled side by side.
pub(super) enum First<F, C> {
    /// It was found.
    Found(F),
    /// It was compiled.
    Compiled(C),
}

/// Asks for a result, and begins to compile beside that when `patience` ends without an answer. An answer is followed for as long
/// as it is worth before the compile begins, and beside it from then on. What ends first ends the other.
pub(super) async fn hedged<L, F, C>(
    ask: impl Future<Output = Option<L>>,
    patience: Duration,
    worth: impl Fn(&L) -> Duration,
    follow: impl AsyncFnOnce(L) -> Option<F>,
    compile: impl Future<Output = C>,
) -> First<F, C> {
    let mut ask = std::pin::pin!(ask);
    let answer = timeout(patience, &mut ask).await;
    let patience = match &answer {
        Ok(None) => return First::Compiled(compile.await),
        Ok(Some(lead)) => worth(lead),
        Err(_) => Duration::ZERO,
    };
    let find = async {
        let lead = match answer {
            Ok(lead) => lead,
            Err(_) => ask.await,
        };
        follow(lead?).await
    };
    let mut find = std::pin::pin!(find);
    match timeout(patience, &mut find).await {
        Ok(Some(found)) => return First::Found(found),
        Ok(None) => return First::Compiled(compile.await),
        Err(_) => {}
    }
    let mut compile = std::pin::pin!(compile);
    tokio::select! {
        biased;
        found = &mut find => match found {
            Some(found) => First::Found(found),
            None => First::Compiled(compile.await),
        },
        compiled = &mut compile => First::Compiled(compiled),
    }
}

/// Answers a member that looks for a result.
pub(super) async fn answer(agent: &Arc<Agent>, link: &Link, seek: Seek, mut out: Sender) -> Result<(), StreamError> {
    match seek {
        Seek::Who { key, makes_ms } => {
            let has = agent.cache.has(&key);
            let held = || Whereabouts::Held(vec![agent.mesh.me()]);
            let said = if has { held() } else { look(agent, link.peer, &key, makes_ms) };
            out.send(&said, limits::FRAME_BYTES_MAX).await?;
        }
        Seek::Give { key, wait_ms } => {
            let _room = agent.whereto.gives.acquire().await.map_err(|_| StreamError::Finished)?;
            let wait = Duration::from_millis(wait_ms.into()).min(JOIN_MAX);
            let stopped = out.stopped();
            tokio::select! {
                _ = timeout(wait, agent.whereto.made(&key)) => {}
                () = stopped => return Ok(()),
            }
            let giving = agent.clone();
            let kept = tokio::task::spawn_blocking(move || cache::sealed(&giving, &key)).await.ok().flatten();
            let Some((sealed, packed)) = kept else {
                out.send(&Gift::Nothing, limits::FRAME_BYTES_MAX).await?;
                out.finish();
                return Ok(());
            };
            let most = limits::JOB_TEXT_BYTES_MAX + limits::FRAME_BYTES_MAX;
            out.send(&Gift::Entry(Box::new(sealed)), most).await?;
            for blob in &packed {
                out.send_bytes(blob).await?;
            }
        }
    }
    out.finish();
    Ok(())
}

/// A result is kept here from now on: the member that its key points at is told, soon.
pub(super) fn kept(agent: &Agent, key: ActionKey) {
    if let Some(home) = whereabouts::home(&key, others(agent)) {
        queue(agent, home, [key]);
        agent.whereto.news.notify_one();
    }
}

fn queue(agent: &Agent, home: PeerId, keys: impl IntoIterator<Item = ActionKey>) {
    let mut tells = agent.whereto.tells.lock().expect("no panic while held");
    let waiting = tells.entry(home).or_default();
    waiting.extend(keys);
    let over = waiting.len().saturating_sub(TELLS_MAX);
    waiting.drain(..over);
}

/// Tells members what this machine has of what points at them: as it is made, and all of it when somebody comes or goes.
pub(super) async fn tell(agent: Arc<Agent>) {
    let mut told = BTreeSet::new();
    loop {
        agent.whereto.news.notified().await;
        tokio::time::sleep(TELL_PACE).await;
        let now = others(&agent);
        if now != told {
            tokio::time::sleep(SETTLE).await;
            if others(&agent) == now {
                let (telling, before) = (agent.clone(), std::mem::replace(&mut told, now.clone()));
                let _ = tokio::task::spawn_blocking(move || tell_anew(&telling, &before, &now)).await;
            }
            agent.whereto.news.notify_one();
        }
        if tell_some(&agent) {
            agent.whereto.news.notify_one();
        }
    }
}

/// Whether there is more.
fn tell_some(agent: &Agent) -> bool {
    let links = agent.links.all();
    let mut tells = agent.whereto.tells.lock().expect("no panic while held");
    let there: HashSet<PeerId> = links.iter().map(|link| link.peer).collect();
    tells.retain(|peer, waiting| there.contains(peer) && !waiting.is_empty());
    for link in links {
        let Some(waiting) = tells.get_mut(&link.peer) else { continue };
        let batch: Vec<ActionKey> = waiting.iter().take(limits::HELD_BATCH_MAX).copied().collect();
        let count = batch.len();
        if link.tell(Control::Held(batch)) {
            waiting.drain(..count);
        }
    }
    tells.values().any(|waiting| !waiting.is_empty())
}

/// Queues the keys that pointed elsewhere, or at nobody, before; blocking.
fn tell_anew(agent: &Agent, before: &BTreeSet<PeerId>, now: &BTreeSet<PeerId>) {
    let mut moved: HashMap<PeerId, Vec<ActionKey>> = HashMap::new();
    for key in agent.cache.keys(TELLS_MAX) {
        let Some(home) = whereabouts::home(&key, now.iter().copied()) else { continue };
        if whereabouts::home(&key, before.iter().copied()) != Some(home) {
            moved.entry(home).or_default().push(key);
        }
    }
    for (home, keys) in moved {
        queue(agent, home, keys);
    }
}

/// Signs a result that was made here.
pub(super) fn receipt(agent: &Agent, key: &ActionKey, outcome: &Outcome, made_ms: u64) -> Receipt {
    Receipt::sign(key, outcome, made_ms, &*agent.mesh.identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    const TICK: Duration = Duration::from_millis(100);

    async fn after<T>(ticks: u32, value: T) -> T {
        sleep(TICK * ticks).await;
        value
    }

    /// One case: the answer after so many ticks, whether it leads anywhere and is worth so many, what is found after how many
    /// more, and the compile after five; and what came first after how many ticks.
    async fn hedge(answer: (u32, Option<u32>), found: (u32, bool)) -> (bool, u32) {
        let began = Instant::now();
        let follow = async |_| after(found.0, found.1.then_some(())).await;
        let first = hedged(after(answer.0, answer.1), TICK * 2, |worth| TICK * *worth, follow, after(5, ())).await;
        let ticks = (began.elapsed().as_millis() / TICK.as_millis()).try_into().unwrap();
        (matches!(first, First::Found(())), ticks)
    }

    #[tokio::test(start_paused = true)]
    async fn a_compile_waits_for_a_result_for_as_long_as_that_is_worth_and_no_longer() {
        let (found, compiled) = (true, false);
        assert_eq!(hedge((1, Some(3)), (2, true)).await, (found, 3));
        assert_eq!(hedge((1, None), (0, true)).await, (compiled, 6), "nobody has it: compiled at once, then");
        assert_eq!(hedge((1, Some(3)), (2, false)).await, (compiled, 8), "they had it no more");
        assert_eq!(hedge((1, Some(3)), (6, true)).await, (found, 7), "beside the compile, and still the first");
        assert_eq!(hedge((1, Some(3)), (9, true)).await, (compiled, 9));
        assert_eq!(hedge((4, Some(3)), (1, true)).await, (found, 5), "a late answer is followed beside the compile");
        assert_eq!(hedge((4, None), (1, true)).await, (compiled, 7));
        assert_eq!(hedge((4, Some(9)), (9, true)).await, (compiled, 7));
        assert_eq!(hedge((99, Some(9)), (9, true)).await, (compiled, 7), "no answer costs two ticks");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_made_is_made_once_and_waited_for() {
        let whereto = Whereto::default();
        let key = ActionKey(mesh_proto::digest::Digest::of(b"a"));
        let making = whereto.makes(key).expect("the first");
        assert!(whereto.makes(key).is_none() && whereto.is_made_here(&key));
        let began = Instant::now();
        let ends = async {
            sleep(TICK).await;
            drop(making);
        };
        tokio::join!(whereto.made(&key), ends);
        assert_eq!(began.elapsed(), TICK);
        assert!(!whereto.is_made_here(&key));
        whereto.made(&key).await;
        assert!(whereto.makes(key).is_some(), "it can be made again");
    }
}
