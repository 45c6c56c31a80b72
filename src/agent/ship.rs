//! Has this machine's compilers sent to the machines that could run them and do not have them (DO).
//!
//! A machine is told of a compiler when a unit wants it; it fetches the files from whom it likes ([`super::take`]), in the
//! background, while units go to those who have it, or stay here. Nothing is sent that was not proved to be all that the
//! compiler needs ([`super::proofs`]).

use super::{Agent, link::Link, proofs::Proof};
use crate::toolchain::Toolchain;
use mesh_proto::{
    exchange::toolchain::{Arrival, Arriving, NotTaken, Wanted},
    limits::TOOLCHAINS_MAX,
    message::Control,
    toolchain::Fingerprint,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A machine that was connected this lately may not have looked at its own compilers yet.
const LOOKS: Duration = Duration::from_secs(10);
/// A machine that refused a compiler for a reason that may pass is asked again after this time, milliseconds.
const ASK_AGAIN_MS: u64 = 5 * 60 * 1000;
/// A machine on which a compiler met an instruction that the processor does not have is not used for it for so long.
const QUARANTINE: Duration = Duration::from_secs(60 * 60);

/// What one machine was told of compilers that it lacks, and what it said.
#[derive(Debug, Default)]
pub(super) struct Shipments(Mutex<HashMap<Fingerprint, Shipment>>);

#[derive(Debug, Clone, Copy, Default)]
struct Shipment {
    /// When it was told, by the agent's clock, milliseconds.
    told_ms: Option<u64>,
    state: Option<Arriving>,
    /// Until when it is not used.
    quarantined: Option<Instant>,
}

/// What can be expected of a compiler that a unit wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// Some machine will have it.
    Coming,
    /// No further machine will.
    Settled,
}

impl Shipments {
    /// Whether the machine is to be told of a compiler now.
    fn is_due(&self, fingerprint: &Fingerprint, now_ms: u64) -> bool {
        let all = self.lock();
        let Some(one) = all.get(fingerprint) else { return all.len() < TOOLCHAINS_MAX };
        let Some(told_ms) = one.told_ms else { return true };
        let may_pass = matches!(one.state, Some(Arriving::Refused(NotTaken::Room | NotTaken::Failed | NotTaken::Busy)));
        may_pass && now_ms.saturating_sub(told_ms) >= ASK_AGAIN_MS
    }

    fn told(&self, fingerprint: Fingerprint, now_ms: u64) {
        let mut all = self.lock();
        let one = all.entry(fingerprint).or_default();
        (one.told_ms, one.state) = (Some(now_ms), None);
    }

    /// It said what becomes of a compiler.
    fn said(&self, arrival: Arrival) {
        if let Some(one) = self.lock().get_mut(&arrival.fingerprint) {
            one.state = Some(arrival.state);
        }
    }

    /// What it said last of a compiler that it was told of; `None` inside if it has said nothing yet.
    pub(super) fn state(&self, fingerprint: &Fingerprint) -> Option<Option<Arriving>> {
        self.lock().get(fingerprint).filter(|one| one.told_ms.is_some()).map(|one| one.state)
    }

    /// Whether it is to have a compiler, by what it said last.
    pub(super) fn is_coming(&self, fingerprint: &Fingerprint) -> bool {
        self.state(fingerprint).is_some_and(|state| !matches!(state, Some(Arriving::Refused(_))))
    }

    /// It has it now: should it lose it, it is told again.
    pub(super) fn arrived<'a>(&self, there: impl Iterator<Item = &'a Fingerprint>) {
        let mut all = self.lock();
        for fingerprint in there {
            if let Some(one) = all.get_mut(fingerprint) {
                (one.told_ms, one.state) = (None, None);
            }
        }
        all.retain(|_, one| one.told_ms.is_some() || one.quarantined.is_some());
    }

    /// Its processor cannot run this compiler.
    pub(super) fn quarantine(&self, fingerprint: Fingerprint, now: Instant) {
        self.lock().entry(fingerprint).or_default().quarantined = Some(now + QUARANTINE);
    }

    /// Whether it is not to be used for this compiler.
    pub(super) fn is_quarantined(&self, fingerprint: &Fingerprint, now: Instant) -> bool {
        self.lock().get(fingerprint).and_then(|one| one.quarantined).is_some_and(|until| until > now)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Fingerprint, Shipment>> {
        self.0.lock().expect("no panic while held")
    }
}

impl Agent {
    /// A unit wants this compiler: tells those that could run it and do not have it, each once.
    pub(super) fn spread(self: &Arc<Self>, toolchain: &Arc<Toolchain>) -> Spread {
        let fingerprint = &toolchain.fingerprint;
        let now_ms = self.clock.ms();
        let mut spread = Spread::Settled;
        if self.proofs.is_on_trial(fingerprint) {
            // As soon as the machine has it that was sent it for that.
            self.prove(toolchain);
        }
        for link in self.links.all() {
            if link.load().slots == 0 || link.has(fingerprint) || link.since.elapsed() < LOOKS {
                continue;
            }
            if link.shipments.is_due(fingerprint, now_ms) && !self.want(toolchain, &link, now_ms) {
                continue;
            }
            if link.shipments.is_coming(fingerprint) || self.proof(fingerprint) == Proof::Pending {
                spread = Spread::Coming;
            }
        }
        spread
    }

    /// Tells one machine, if the compiler may be sent; whether it may, or may be able to soon.
    pub(super) fn want(self: &Arc<Self>, toolchain: &Arc<Toolchain>, link: &Link, now_ms: u64) -> bool {
        if self.config.toolchain_rate == 0 {
            return false;
        }
        let Some(needs) = toolchain.manifest.needs() else { return false };
        match self.proof(&toolchain.fingerprint) {
            Proof::Pending => self.prove(toolchain),
            Proof::Unproved(_) if !self.lends_for_trial(&toolchain.fingerprint) => return false,
            Proof::Unproved(_) | Proof::Proved => {
                let (fingerprint, bytes) = (toolchain.fingerprint, toolchain.bytes());
                if link.tell(Control::Wanted(Wanted { fingerprint, needs, bytes })) {
                    tracing::info!("{} is to have {}", link.name(), toolchain.label());
                    link.shipments.told(fingerprint, now_ms);
                }
            }
        }
        true
    }

    /// A machine said what becomes of a compiler that it was told of.
    pub(super) fn arrival(&self, link: &Link, arrival: Arrival) {
        if let Arriving::Refused(why) = arrival.state {
            tracing::info!("{} does not take a compiler: {why}", link.name());
        }
        link.shipments.said(arrival);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::digest::Digest;

    #[test]
    fn a_machine_is_told_once_and_again_only_if_what_kept_it_may_have_passed() {
        let (shipments, gcc) = (Shipments::default(), Fingerprint(Digest::of(b"gcc")));
        let said = |state| shipments.said(Arrival { fingerprint: gcc, state });
        assert!(shipments.is_due(&gcc, 0) && !shipments.is_coming(&gcc));
        shipments.told(gcc, 7);
        assert!(!shipments.is_due(&gcc, u64::MAX) && shipments.is_coming(&gcc));
        said(Arriving::Coming { have: 1, of: 2 });
        assert!(!shipments.is_due(&gcc, u64::MAX) && shipments.is_coming(&gcc));
        said(Arriving::Refused(NotTaken::Machine));
        assert!(!shipments.is_due(&gcc, u64::MAX) && !shipments.is_coming(&gcc));
        said(Arriving::Refused(NotTaken::Room));
        assert!(!shipments.is_due(&gcc, 6 + ASK_AGAIN_MS) && shipments.is_due(&gcc, 7 + ASK_AGAIN_MS));
        // It has it, and gives it up later.
        shipments.arrived([gcc].iter());
        assert!(shipments.is_due(&gcc, 0));
    }

    #[test]
    fn what_a_machine_says_of_compilers_that_it_was_not_told_of_is_not_kept() {
        let shipments = Shipments::default();
        for n in 0..2 * TOOLCHAINS_MAX {
            let fingerprint = Fingerprint(Digest::of(&n.to_le_bytes()));
            shipments.said(Arrival { fingerprint, state: Arriving::Coming { have: 0, of: 1 } });
            if shipments.is_due(&fingerprint, 0) && n % 2 == 0 {
                shipments.told(fingerprint, 0);
            }
        }
        assert_eq!(shipments.lock().len(), TOOLCHAINS_MAX);
    }

    #[test]
    fn quarantine_ends_after_an_hour() {
        let (shipments, gcc) = (Shipments::default(), Fingerprint(Digest::of(b"gcc")));
        let (now, almost) = (Instant::now(), Duration::from_millis(1));
        shipments.quarantine(gcc, now);
        assert!(shipments.is_quarantined(&gcc, now + QUARANTINE - almost));
        assert!(!shipments.is_quarantined(&gcc, now + QUARANTINE));
        assert!(!shipments.is_quarantined(&Fingerprint(Digest::of(b"clang")), now));
    }
}
