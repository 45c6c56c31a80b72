//! Drives both ends of a pairing over a `mesh-pair/1` connection (DO).

use super::{
    endpoint::{Endpoint, Link, LinkError},
    identity::Ed25519,
    stream::{self, StreamError},
    tls::{Expect, Gate, Protocol},
};
use mesh_proto::{
    advert::DiscKey,
    hello::close,
    limits,
    membership::{PublicKey, RecordSet, Role},
    pairing::{
        Channel, Code, EXPORTER_LABEL, FromInviter, FromJoiner, JoinRequest, Joiner, PairError, Refusal, Welcome,
        Window,
    },
    peer::PeerId,
};
use quinn::{RecvStream, SendStream};
use rand_core::OsRng;
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Each message must come within this: people are done typing when a pairing begins.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(3);
/// Connections of strangers that are talked to at once; all but one are told to wait, which takes a moment.
const TALKS_MAX: usize = 8;
/// Within this a joiner takes the welcome and closes.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(5);

/// Why a machine could not join. The texts are what its person reads.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No machine with this code: window closed, other digits, or not there at all.
    #[error(
        "nobody nearby is showing a code {digits:03}. Is \"mesh pair\" still open there? On another network or behind client \
         isolation, use: mesh join {code}@HOST", digits = .0.discriminator(), code = .0
    )]
    Nobody(Code),
    /// The words are wrong.
    #[error("that code is not right. {}", tries(*.0))]
    WrongCode(u8),
    /// The code was cancelled.
    #[error("that code was cancelled after wrong tries. Run mesh pair there for a new one.")]
    Cancelled,
    /// Another machine is pairing at this moment.
    #[error("another machine is joining at this moment. Try again in a few seconds.")]
    Busy,
    /// The inviter could not admit.
    #[error("the other machine could not admit this one; its log says why.")]
    Failed,
    /// This machine's key was put out of that mesh; when, seconds since 1970.
    #[error("this machine was forgotten. To come back it needs a new identity: mesh join --new-identity CODE")]
    Forgotten(u64),
    /// The protocol went wrong.
    #[error(transparent)]
    Pair(PairError),
    /// The connection went wrong.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A stream went wrong.
    #[error("the pairing broke off")]
    Stream(#[from] StreamError),
}

fn tries(left: u8) -> String {
    match left {
        0 => "It is cancelled now. Run mesh pair there for a new one.".to_owned(),
        1 => "1 try left.".to_owned(),
        n => format!("{n} tries left."),
    }
}

/// Why a machine that came was not admitted. The texts are what the inviter's person reads.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// The words were wrong, and may be tried again.
    #[error("a wrong code from {from}. {}", tries(*.tries_left))]
    WrongCode {
        /// Where from.
        from: IpAddr,
        /// How often more.
        tries_left: u8,
    },
    /// The words were wrong for the last time.
    #[error(
        "3 wrong codes from {from}; the code is cancelled. If that was not you, someone on this network is guessing. \
         Run mesh pair for a new one."
    )]
    Cancelled {
        /// Where the last came from.
        from: IpAddr,
    },
    /// It was refused before it could try a code.
    #[error("a machine at {from} was refused: {refusal:?}")]
    Refused {
        /// Where from.
        from: IpAddr,
        /// What it was told.
        refusal: Refusal,
    },
    /// It was not admitted.
    #[error(transparent)]
    Admit(#[from] NotAdmitted),
    /// The connection ended before all was said.
    #[error("the pairing broke off")]
    Stream(#[from] StreamError),
    /// The connection ended before all was said.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Why a machine that knew the code was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// Its key was put out of the mesh.
    #[error("{name} was forgotten, and its old identity stays out. To come back: mesh join --new-identity CODE")]
    Forgotten {
        /// What it calls itself.
        name: String,
        /// When, seconds since 1970.
        at_s: u64,
    },
    /// The admission could not be signed or stored.
    #[error("the machine could not be admitted: {0}")]
    Failed(String),
}

/// A mesh that this machine has joined.
#[derive(Debug)]
pub struct Joined {
    /// Its records, checked.
    pub set: RecordSet,
    /// The secret of its announcements.
    pub disc_key: DiscKey,
    /// What this machine is in it.
    pub role: Role,
    /// Who let it in.
    pub inviter: PeerId,
    /// Where members may be.
    pub addresses: Vec<(PeerId, SocketAddr)>,
}

/// A machine that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its key.
    pub key: PublicKey,
    /// What it says of itself.
    pub request: JoinRequest,
    /// What it is now.
    pub role: Role,
    /// Where it came from.
    pub address: SocketAddr,
    /// The code that it proved.
    pub code: Code,
}

/// What a window looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowStatus {
    /// The code's three digits, which are announced.
    pub discriminator: u16,
    /// How often a wrong code may still be tried.
    pub tries_left: u8,
    /// How long the code is still good, milliseconds.
    pub remaining_ms: u64,
}

/// How a connection is turned into what a pairing is bound to.
type Bind = fn(&Link) -> Result<Channel, StreamError>;

/// The TLS exporter and both keys.
fn channel(link: &Link) -> Result<Channel, StreamError> {
    let mut exporter = [0; 32];
    link.conn.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").map_err(|_| StreamError::Finished)?;
    let me = link.my_key.peer();
    let (joiner, inviter) = if link.dialled { (me, link.peer) } else { (link.peer, me) };
    Ok(Channel { exporter, joiner, inviter })
}

/// The inviter's end: at most one window at a time, and one machine at a time in it.
pub struct Inviter {
    gate: Arc<Gate>,
    clock_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    bind: Bind,
    talks: tokio::sync::Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts windows, so that a pairing that outlives its own cannot touch the next.
    windows: u64,
    window: Option<Window>,
}

impl std::fmt::Debug for Inviter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inviter").field("window", &self.status()).finish_non_exhaustive()
    }
}

impl Inviter {
    /// An inviter without a window. `clock_ms` counts milliseconds and never goes back.
    pub fn new(gate: Arc<Gate>, clock_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            gate,
            clock_ms: Box::new(clock_ms),
            bind: channel,
            talks: tokio::sync::Semaphore::new(TALKS_MAX),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a window, in place of one that may be open, and gives its code.
    pub fn open(&self, role: Role) -> Code {
        let code = Code::random(&mut OsRng);
        let mut state = self.state();
        state.windows += 1;
        state.window = Some(Window::new(code.clone(), role, (self.clock_ms)()));
        self.gate.set_pairing(true);
        code
    }

    /// Closes the window of this code, if it is open: whoever showed it may end when another one shows the next.
    pub fn close(&self, code: &Code) {
        let mut state = self.state();
        if state.window.as_ref().is_some_and(|window| window.code() == code) {
            self.shut(&mut state);
        }
    }

    fn shut(&self, state: &mut State) {
        state.window = None;
        self.gate.set_pairing(false);
    }

    /// The window, if its time is not over: a code that was cancelled, with no try left, shows until then. Closes it if
    /// it is, so the agent asks now and then.
    pub fn status(&self) -> Option<WindowStatus> {
        let now_ms = (self.clock_ms)();
        let mut state = self.state();
        let open = state.window.as_ref().filter(|w| w.remaining_ms(now_ms) > 0).map(|w| WindowStatus {
            discriminator: w.code().discriminator(),
            tries_left: w.tries_left(),
            remaining_ms: w.remaining_ms(now_ms),
        });
        if open.is_none() {
            self.shut(&mut state);
        }
        open
    }

    /// Pairs with a machine that has connected. `admit` is called once the machine has proved the code: it signs and
    /// stores the admission and gives all that a member needs.
    ///
    /// # Errors
    /// If the machine is not admitted; its end of the connection has been told.
    pub async fn serve(
        &self,
        link: Link,
        admit: impl FnOnce(&JoinRequest, &PublicKey, Role) -> Result<Welcome, NotAdmitted>,
    ) -> Result<Admitted, InviteError> {
        let from = link.address().ip();
        let Ok(_talk) = self.talks.try_acquire() else {
            link.close(close::BUSY, "too many machines at once");
            return Err(InviteError::Refused { from, refusal: Refusal::Busy });
        };
        let served = self.converse(&link, admit).await;
        let outcome = match served {
            Ok(admitted) => {
                // The joiner closes when it has stored what it got.
                let _ = tokio::time::timeout(FAREWELL_DEADLINE, link.closed()).await;
                link.close(close::DONE, "");
                return Ok(admitted);
            }
            Err(Stop::Stream(StreamError::Read(_) | StreamError::Write(_))) if link.end().is_some() => {
                return Err(link.end().map_or(InviteError::Stream(StreamError::Finished), InviteError::Link));
            }
            Err(Stop::Stream(error)) => {
                link.close(close::MALFORMED, "");
                InviteError::Stream(error)
            }
            Err(Stop::Admit(why)) => InviteError::Admit(why),
            Err(Stop::Refuse(Refusal::WrongCode { tries_left: 0 })) => InviteError::Cancelled { from },
            Err(Stop::Refuse(Refusal::WrongCode { tries_left })) => InviteError::WrongCode { from, tries_left },
            Err(Stop::Refuse(refusal)) => InviteError::Refused { from, refusal },
        };
        // The refusal is on its way; let it arrive before the connection's end overtakes it.
        let _ = tokio::time::timeout(MESSAGE_DEADLINE, link.closed()).await;
        link.close(close::PAIRING_REFUSED, "");
        Err(outcome)
    }

    async fn converse(
        &self,
        link: &Link,
        admit: impl FnOnce(&JoinRequest, &PublicKey, Role) -> Result<Welcome, NotAdmitted>,
    ) -> Result<Admitted, Stop> {
        let accepted = tokio::time::timeout(MESSAGE_DEADLINE, link.conn.accept_bi()).await;
        let (mut send, mut recv) = accepted.map_err(|_| StreamError::Late)?.map_err(|_| StreamError::Finished)?;
        let talked = self.talk(link, &mut send, &mut recv, admit).await;
        if let Err(stop) = &talked {
            let refusal = match stop {
                Stop::Refuse(refusal) => *refusal,
                Stop::Admit(NotAdmitted::Forgotten { at_s, .. }) => Refusal::Forgotten { at_s: *at_s },
                Stop::Admit(NotAdmitted::Failed(_)) => Refusal::Failed,
                Stop::Stream(_) => Refusal::Malformed,
            };
            // Best effort: the other side may be gone.
            let _ = stream::send(&mut send, &FromInviter::Refused(refusal), limits::PAIRING_BYTES_MAX).await;
        }
        let _ = send.finish();
        talked
    }

    async fn talk(
        &self,
        link: &Link,
        send: &mut SendStream,
        recv: &mut RecvStream,
        admit: impl FnOnce(&JoinRequest, &PublicKey, Role) -> Result<Welcome, NotAdmitted>,
    ) -> Result<Admitted, Stop> {
        if link.protocol != Protocol::Pair || link.dialled {
            return Err(Stop::Refuse(Refusal::Malformed));
        }
        let channel = (self.bind)(link)?;
        let open: FromJoiner = next(recv).await?;
        let (turn, answer) = self.begin(open, channel)?;
        stream::send(send, &answer, limits::PAIRING_BYTES_MAX).await?;
        let confirm: FromJoiner = next(recv).await?;
        let code = turn.code.clone();
        let (confirmed, role) = turn.confirm(&confirm)?;
        stream::send(send, &confirmed, limits::PAIRING_BYTES_MAX).await?;
        let request = match next(recv).await? {
            FromJoiner::Join(request) if request.is_valid() => request,
            _ => return Err(Stop::Refuse(Refusal::Malformed)),
        };
        let welcome = admit(&request, &link.key, role).map_err(Stop::Admit)?;
        stream::send(send, &FromInviter::Welcome(welcome), limits::WELCOME_BYTES_MAX).await?;
        Ok(Admitted { key: link.key, request, role, address: link.address(), code })
    }

    /// Takes the window's one place.
    fn begin(&self, open: FromJoiner, channel: Channel) -> Result<(Turn<'_>, FromInviter), Stop> {
        let mut state = self.state();
        let now_ms = (self.clock_ms)();
        let window = state.window.as_mut().ok_or(Stop::Refuse(Refusal::Closed))?;
        let (machine, answer) = window.begin(open, channel, now_ms, &mut OsRng).map_err(Stop::Refuse)?;
        let code = window.code().clone();
        let window = state.windows;
        Ok((Turn { inviter: self, window, code, machine: Some(machine) }, answer))
    }
}

/// The one place in a window: given back when dropped.
struct Turn<'a> {
    inviter: &'a Inviter,
    window: u64,
    code: Code,
    machine: Option<mesh_proto::pairing::Inviter>,
}

impl Turn<'_> {
    /// Judges the joiner's proof. A code is good for one machine, and for three wrong tries.
    fn confirm(mut self, confirm: &FromJoiner) -> Result<(FromInviter, Role), Stop> {
        let mut state = self.inviter.state();
        let now_ms = (self.inviter.clock_ms)();
        let closed = Stop::Refuse(Refusal::Closed);
        if state.windows != self.window {
            return Err(closed);
        }
        let (Some(machine), Some(window)) = (self.machine.take(), state.window.as_mut()) else { return Err(closed) };
        let judged = machine.confirm(window, confirm, now_ms);
        let over = judged.is_ok() || !window.is_open(now_ms);
        if over && window.tries_left() > 0 {
            // A cancelled code stays, to say so to those who try it; a used or expired one is gone.
            self.inviter.shut(&mut state);
        }
        match judged.map_err(Stop::Refuse)? {
            FromInviter::Confirmed { role, mac } => Ok((FromInviter::Confirmed { role, mac }, role)),
            _ => Err(Stop::Refuse(Refusal::Malformed)),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.machine.is_some() {
            let mut state = self.inviter.state();
            if state.windows == self.window
                && let Some(window) = state.window.as_mut()
            {
                window.abandon();
            }
        }
    }
}

/// Why an inviter stops.
#[derive(Debug)]
enum Stop {
    Refuse(Refusal),
    Admit(NotAdmitted),
    Stream(StreamError),
}

impl From<StreamError> for Stop {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

async fn next<T: serde::de::DeserializeOwned>(recv: &mut RecvStream) -> Result<T, StreamError> {
    stream::recv(recv, limits::PAIRING_BYTES_MAX, MESSAGE_DEADLINE).await
}

/// Joins the mesh of the machine at `addr` that shows `code`. Nothing is stored here: the caller keeps what it gets.
///
/// # Errors
/// If the code is wrong or nobody shows it there, if the other side could not prove it, or if what it hands over does
/// not admit this machine.
pub async fn join(
    endpoint: &Endpoint,
    addr: SocketAddr,
    code: &Code,
    request: JoinRequest,
    now_s: u64,
) -> Result<Joined, JoinError> {
    join_bound(endpoint, addr, code, request, now_s, channel).await
}

async fn join_bound(
    endpoint: &Endpoint,
    addr: SocketAddr,
    code: &Code,
    request: JoinRequest,
    now_s: u64,
    bind: Bind,
) -> Result<Joined, JoinError> {
    let link = match endpoint.connect(addr, Expect::Inviter).await {
        Ok(link) => link,
        Err(LinkError::NoProtocol(_)) => return Err(JoinError::Nobody(code.clone())),
        Err(error) => return Err(JoinError::Link(error)),
    };
    let joined = ask(&link, code, request, now_s, bind).await;
    match &joined {
        Ok(_) => link.close(close::DONE, ""),
        Err(_) => link.close(close::MALFORMED, ""),
    }
    joined
}

async fn ask(link: &Link, code: &Code, request: JoinRequest, now_s: u64, bind: Bind) -> Result<Joined, JoinError> {
    let explain = |error: PairError| match error {
        PairError::Refused(Refusal::Closed | Refusal::OtherCode) => JoinError::Nobody(code.clone()),
        PairError::Refused(Refusal::WrongCode { tries_left }) => JoinError::WrongCode(tries_left),
        PairError::Refused(Refusal::Cancelled) => JoinError::Cancelled,
        PairError::Refused(Refusal::Busy) => JoinError::Busy,
        PairError::Refused(Refusal::Failed) => JoinError::Failed,
        PairError::Refused(Refusal::Forgotten { at_s }) => JoinError::Forgotten(at_s),
        other => JoinError::Pair(other),
    };
    let lost = |error| JoinError::Link(LinkError::of(link.address(), &error));
    let channel = bind(link)?;
    let (mut send, mut recv) = link.conn.open_bi().await.map_err(lost)?;
    let (joiner, open) = Joiner::start(code, channel, &mut OsRng);
    stream::send(&mut send, &open, limits::PAIRING_BYTES_MAX).await?;
    let (proven, confirm) = joiner.answered(next(&mut recv).await?).map_err(explain)?;
    stream::send(&mut send, &confirm, limits::PAIRING_BYTES_MAX).await?;
    let role = proven.confirmed(next(&mut recv).await?).map_err(explain)?;
    stream::send(&mut send, &FromJoiner::Join(request), limits::PAIRING_BYTES_MAX).await?;
    let last = stream::recv(&mut recv, limits::WELCOME_BYTES_MAX, FAREWELL_DEADLINE).await?;
    let welcome = match last {
        FromInviter::Welcome(welcome) => welcome,
        FromInviter::Refused(refusal) => return Err(explain(PairError::Refused(refusal))),
        _ => return Err(JoinError::Pair(PairError::Malformed)),
    };
    let set = welcome.accept(&link.my_key, &link.peer, now_s, &Ed25519).map_err(JoinError::Pair)?;
    let Welcome { disc_key, addresses, .. } = welcome;
    Ok(Joined { set, disc_key, role, inviter: link.peer, addresses })
}

#[cfg(test)]
mod tests;
