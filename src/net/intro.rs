//! Introductions over a `mesh-intro/1` connection, both ends (DO).

use super::{
    endpoint::{Endpoint, Link, LinkError},
    stream::{self, StreamError},
    tls::Expect,
};
use mesh_proto::{
    hello::close,
    intro::{Answer, Introduction, Unwelcome},
    limits,
    membership::Record,
    pairing::Welcome,
    peer::PeerId,
};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Mutex,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Each message must come within this.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(3);
/// The newcomer takes its answer within this.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(3);
/// Newcomers that are listened to at once: each costs some signatures to check.
const TALKS_MAX: usize = 4;
/// From one address, or one network of IPv6, one comes in this time.
const PACE: Duration = Duration::from_secs(1);
/// So many may have come before that, one after the other, as a whole rack of containers does.
const BURST: u32 = 8;
/// Addresses that are remembered.
const SOURCES_MAX: usize = 1024;

/// Why a machine could not introduce itself.
#[derive(Debug, thiserror::Error)]
pub enum IntroError {
    /// It was heard, and refused.
    #[error(transparent)]
    Unwelcome(#[from] Unwelcome),
    /// The connection went wrong.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A stream went wrong.
    #[error("the introduction broke off")]
    Stream(#[from] StreamError),
}

/// Shows why this machine is a member to whoever is at an address, and gives what it says and who it is.
///
/// # Errors
/// If nobody is there, or it does not agree.
pub async fn introduce(
    endpoint: &Endpoint,
    addr: SocketAddr,
    records: Vec<Record>,
) -> Result<(Welcome, PeerId), IntroError> {
    let link = endpoint.connect(addr, Expect::Introducer).await?;
    let said = say(&link, records).await;
    link.close(close::DONE, "");
    Ok((said?, link.peer))
}

async fn say(link: &Link, records: Vec<Record>) -> Result<Welcome, IntroError> {
    let lost = |error| IntroError::Link(LinkError::of(link.address(), &error));
    let (mut send, mut recv) = link.conn.open_bi().await.map_err(lost)?;
    stream::send(&mut send, &Introduction { records }, limits::INTRO_BYTES_MAX).await?;
    match stream::recv(&mut recv, limits::WELCOME_BYTES_MAX, MESSAGE_DEADLINE).await {
        Ok(Answer::Welcome(welcome)) => Ok(welcome),
        Ok(Answer::Refused(why)) => Err(why.into()),
        // An end that the other side gave explains more than the broken stream that it left.
        Err(error) => Err(link.end().map_or(IntroError::Stream(error), IntroError::Link)),
    }
}

/// How many newcomers are listened to.
#[derive(Debug)]
pub struct Doorkeeper {
    talks: Semaphore,
    /// When the last that came from each address would have come, had they kept the pace.
    sources: Mutex<HashMap<IpAddr, Instant>>,
}

impl Default for Doorkeeper {
    fn default() -> Self {
        Self { talks: Semaphore::new(TALKS_MAX), sources: Mutex::default() }
    }
}

impl Doorkeeper {
    /// Listens to one newcomer; `judge` says whether it is a member now.
    pub async fn hear(&self, link: &Link, judge: impl FnOnce(Vec<Record>) -> Answer) {
        let room = self.talks.try_acquire();
        if room.is_err() || !self.is_due(link.address().ip(), Instant::now()) {
            link.close(close::BUSY, "too many machines come at once");
            return;
        }
        let heard = async {
            let accepted = tokio::time::timeout(MESSAGE_DEADLINE, link.conn.accept_bi()).await;
            let (mut send, mut recv) = accepted.map_err(|_| StreamError::Late)?.map_err(|_| StreamError::Finished)?;
            let said: Introduction = stream::recv(&mut recv, limits::INTRO_BYTES_MAX, MESSAGE_DEADLINE).await?;
            stream::send(&mut send, &judge(said.records), limits::WELCOME_BYTES_MAX).await?;
            let _ = send.finish();
            Ok::<(), StreamError>(())
        };
        if heard.await.is_ok() {
            // The answer is on its way; let it arrive before the connection's end overtakes it.
            let _ = tokio::time::timeout(FAREWELL_DEADLINE, link.closed()).await;
        }
        link.close(close::DONE, "");
    }

    fn is_due(&self, from: IpAddr, now: Instant) -> bool {
        let from = network(from);
        let mut sources = self.sources.lock().expect("no panic while held");
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&from) {
            sources.retain(|_, last| *last > now);
            if sources.len() >= SOURCES_MAX {
                return false;
            }
        }
        let last = sources.entry(from).or_insert(now);
        let next = (*last).max(now) + PACE;
        let is_due = next <= now + PACE * BURST;
        if is_due {
            *last = next;
        }
        is_due
    }
}

/// Whoever has one address of IPv6 has all of its /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_one_network_some_may_come_at_once_and_then_one_each_second() {
        let (keeper, began) = (Doorkeeper::default(), Instant::now());
        let from = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        let come = (0..20).filter(|n| keeper.is_due(from(*n), began)).count();
        assert_eq!(come, BURST as usize);
        assert!(keeper.is_due(IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1]), began), "another network");
        assert!(!keeper.is_due(from(1), began + PACE / 2));
        assert!(keeper.is_due(from(1), began + PACE) && !keeper.is_due(from(1), began + PACE));
        for n in 0..2 * SOURCES_MAX as u32 {
            let _ = keeper.is_due(IpAddr::from(n.to_be_bytes()), began);
        }
        assert!(keeper.sources.lock().expect("whole").len() <= SOURCES_MAX);
        assert!(keeper.is_due(IpAddr::from([1, 2, 3, 4]), began + PACE * 60), "room comes back");
    }
}
