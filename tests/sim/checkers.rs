//! What must hold, watched from outside of the code: told what happens, never asked what to do.

use crate::link::{Micros, SECOND};
use mesh::{
    reason::Reason,
    sched::{intake::places, retry::ATTEMPTS_MAX},
};
use mesh_proto::{digest::Digest, membership::Role, path::AbsPath};
use std::collections::{BTreeMap, BTreeSet};

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With a peer's object.
    Remote { object: Digest },
    /// Here, and why.
    Local(Reason),
    /// The user no longer wanted it.
    Cancelled,
}

/// Something that a checker looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen<'a> {
    Slots {
        provider: usize,
        slots: u32,
    },
    Admitted {
        machine: usize,
        role: Role,
    },
    Asked {
        request: u32,
        deadline: Micros,
        oracle: Digest,
    },
    Ended {
        request: u32,
        end: End,
    },
    Offered {
        request: u32,
        peer: usize,
    },
    Outputs {
        paths: &'a [AbsPath],
        dirs: &'a [AbsPath],
    },
    Accepted {
        provider: usize,
    },
    Released {
        provider: usize,
    },
    Started {
        provider: usize,
        client: usize,
    },
    Stopped {
        provider: usize,
    },
    Blob {
        digest: Digest,
        bytes: &'a [u8],
    },
    /// A client has named a file's content.
    Told {
        client: usize,
        provider: usize,
        digest: Digest,
    },
    /// A client lets one provider give to another.
    Granted {
        client: usize,
        giver: usize,
        asker: usize,
        key: [u8; 32],
    },
    /// A provider gives a client's file to whoever showed this key.
    Given {
        client: usize,
        giver: usize,
        asker: usize,
        key: [u8; 32],
        digest: Digest,
    },
    Crashed {
        provider: usize,
    },
    /// Two machines have shaken hands.
    Handshake {
        dialler: usize,
        other: usize,
    },
    /// A connection stands at one end.
    Stands {
        machine: usize,
        peer: usize,
        conn: usize,
    },
    /// It no longer does.
    Falls {
        machine: usize,
        conn: usize,
    },
    /// From now on connections may end for reasons that are not the machines' own.
    Trouble,
}

/// Handshakes of one pair, in one direction, within [`STORM_TIME`]: a pause that grows after each failure allows no more.
const STORM: usize = 8;
const STORM_TIME: Micros = 5 * SECOND;
/// Of two connections of a pair, one falls. No other one does while nothing is amiss.
const FALLS: u32 = 1;

#[derive(Debug)]
struct Promise {
    deadline: Micros,
    oracle: Digest,
    /// Who has been offered it.
    peers: Vec<usize>,
    end: Option<End>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    slots: u32,
    accepted: u32,
    running: u32,
}

/// One machine's view when everything is quiet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) machine: usize,
    /// The digest of its records.
    pub(crate) records: Digest,
    /// The connection that it uses, by peer.
    pub(crate) links: BTreeMap<usize, usize>,
    /// Open ends of connections, by peer, whether used or not.
    pub(crate) open: BTreeMap<usize, usize>,
}

/// The first thing that did not hold.
#[derive(Debug, Default)]
pub(crate) struct Complaint(Option<String>);

impl Complaint {
    pub(crate) fn hold(&mut self, holds: bool, words: impl FnOnce() -> String) {
        if !holds && self.0.is_none() {
            self.0 = Some(words());
        }
    }

    pub(crate) fn take(&mut self) -> Option<String> {
        self.0.take()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Checkers {
    promises: BTreeMap<u32, Promise>,
    tallies: BTreeMap<usize, Tally>,
    admitted: BTreeMap<usize, Role>,
    handshakes: BTreeMap<(usize, usize), Vec<Micros>>,
    /// The ends at which a connection stands, and its pair.
    standing: BTreeMap<usize, ((usize, usize), u32)>,
    falls: BTreeMap<(usize, usize), u32>,
    /// Client, provider, content.
    named: BTreeSet<(usize, usize, Digest)>,
    /// Client, giver, asker, key.
    granted: BTreeSet<(usize, usize, usize, [u8; 32])>,
    trouble: bool,
    complaint: Complaint,
    /// How requests ended.
    pub(crate) remote: u64,
    pub(crate) local: BTreeMap<Reason, u64>,
}

impl Checkers {
    pub(crate) fn complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    fn hold(&mut self, holds: bool, words: impl FnOnce() -> String) {
        self.complaint.hold(holds, words);
    }

    fn tally(&mut self, provider: usize) -> &mut Tally {
        self.tallies.entry(provider).or_default()
    }

    pub(crate) fn see(&mut self, now: Micros, seen: Seen<'_>) {
        match seen {
            Seen::Slots { provider, slots } => self.tally(provider).slots = slots,
            Seen::Admitted { machine, role } => {
                let had = self.admitted.get(&machine).copied();
                self.admitted.insert(machine, had.map_or(role, |had| had.join(role)));
            }
            Seen::Asked { request, deadline, oracle } => {
                let before = self.promises.insert(request, Promise { deadline, oracle, peers: vec![], end: None });
                self.hold(before.is_none(), || format!("request {request} was asked twice"));
            }
            Seen::Ended { request, end } => self.ended(now, request, end),
            Seen::Offered { request, peer } => {
                let Some(promise) = self.promises.get_mut(&request) else { return };
                let (again, over) = (promise.peers.contains(&peer), promise.end.is_some());
                promise.peers.push(peer);
                let attempts = promise.peers.len();
                self.hold(!over, || format!("request {request} was offered to {peer} after its end"));
                self.hold(!again, || format!("request {request} was offered to {peer} twice"));
                let few = attempts <= ATTEMPTS_MAX as usize;
                self.hold(few, || format!("request {request} was offered {attempts} times"));
            }
            Seen::Outputs { paths, dirs } => {
                // A path twice would be written twice.
                let ascending = paths.windows(2).all(|pair| pair[0] < pair[1]);
                self.hold(ascending, || format!("outputs out of order: {paths:?}"));
                let inside = |p: &AbsPath| p.parent().is_some_and(|parent| dirs.contains(&parent));
                let strays: Vec<_> = paths.iter().filter(|p| !inside(p)).collect();
                self.hold(strays.is_empty(), || format!("outputs outside of the declared directories: {strays:?}"));
            }
            Seen::Accepted { provider } => {
                let clients = u32::try_from(self.admitted.len()).unwrap_or(u32::MAX);
                let tally = self.tally(provider);
                tally.accepted += 1;
                let Tally { slots, accepted, .. } = *tally;
                // Each has a share, and one that had more before another came keeps it until its jobs end.
                let holds = accepted <= places(slots) * clients;
                self.hold(holds, || format!("machine {provider} of {slots} slots accepted {accepted} offers"));
            }
            Seen::Started { provider, client } => {
                let tally = self.tally(provider);
                tally.running += 1;
                let Tally { slots, running, .. } = *tally;
                self.hold(running <= slots, || format!("machine {provider} of {slots} slots runs {running} jobs"));
                let role = self.admitted.get(&client).copied();
                self.hold(role.is_some(), || format!("machine {provider} runs a job for {client}, no member"));
                let submits = role.is_none_or(Role::submits);
                self.hold(submits, || format!("machine {provider} runs a job for {client}, who may not submit"));
                let serves = self.admitted.get(&provider).is_some_and(|r| r.serves());
                self.hold(serves, || format!("machine {provider} runs a job and may not serve"));
            }
            Seen::Released { provider } => {
                let left = self.tally(provider).accepted.checked_sub(1);
                self.hold(left.is_some(), || format!("machine {provider} released more offers than it accepted"));
                self.tally(provider).accepted = left.unwrap_or(0);
            }
            Seen::Stopped { provider } => {
                let left = self.tally(provider).running.checked_sub(1);
                self.hold(left.is_some(), || format!("machine {provider} ended more jobs than it ran"));
                self.tally(provider).running = left.unwrap_or(0);
            }
            Seen::Blob { digest, bytes } => {
                let holds = Digest::of(bytes) == digest;
                self.hold(holds, || format!("a blob was accepted as {digest:?} and is something else"));
            }
            Seen::Told { client, provider, digest } => {
                self.named.insert((client, provider, digest));
            }
            Seen::Granted { client, giver, asker, key } => {
                self.granted.insert((client, giver, asker, key));
            }
            Seen::Given { client, giver, asker, key, digest } => {
                let granted = self.granted.contains(&(client, giver, asker, key));
                self.hold(granted, || format!("{giver} gave {asker} a file of {client}'s, who did not grant it"));
                let named = self.named.contains(&(client, giver, digest));
                self.hold(named, || format!("{giver} gave {asker} what {client} never named to it"));
            }
            Seen::Crashed { provider } => {
                let tally = self.tally(provider);
                (tally.accepted, tally.running) = (0, 0);
            }
            Seen::Handshake { dialler, other } => {
                let times = self.handshakes.entry((dialler, other)).or_default();
                times.retain(|t| t + STORM_TIME > now);
                times.push(now);
                let many = times.len();
                self.hold(many <= STORM, || format!("machine {dialler} shook {other}'s hand {many} times in a row"));
            }
            Seen::Stands { machine, peer, conn } => {
                self.standing.entry(conn).or_insert(((machine.min(peer), machine.max(peer)), 0)).1 += 1;
            }
            Seen::Falls { machine, conn } => {
                // Only one that both had agreed on counts.
                let Some(((a, b), 2)) = self.standing.remove(&conn) else { return };
                let falls = self.falls.entry((a, b)).or_default();
                *falls += 1;
                let (falls, trouble) = (*falls, self.trouble);
                let words = || format!("machine {machine} gave up connection {conn} of {a} and {b}, the {falls}. one");
                self.hold(falls <= FALLS || trouble, words);
            }
            Seen::Trouble => self.trouble = true,
        }
    }

    fn ended(&mut self, now: Micros, request: u32, end: End) {
        let Some(promise) = self.promises.get_mut(&request) else {
            return self.hold(false, || format!("request {request} ended and was never asked"));
        };
        let (before, deadline, oracle) = (promise.end.replace(end), promise.deadline, promise.oracle);
        self.hold(before.is_none(), || format!("request {request} ended twice: {before:?}, then {end:?}"));
        self.hold(now <= deadline, || format!("request {request} ended {} µs after its deadline", now - deadline));
        match end {
            End::Remote { object } => {
                self.remote += 1;
                self.hold(object == oracle, || format!("request {request} got another object than its own compiler's"));
            }
            End::Local(reason) => *self.local.entry(reason).or_default() += 1,
            End::Cancelled => {}
        }
    }

    /// Requests that have not ended.
    pub(crate) fn open(&self) -> usize {
        self.promises.values().filter(|p| p.end.is_none()).count()
    }

    /// At the very end: nothing is open, and nothing is held by those of whom that can be asked.
    pub(crate) fn over(&self, honest: impl Fn(usize) -> bool) -> Result<(), String> {
        if let Some((request, _)) = self.promises.iter().find(|(_, p)| p.end.is_none()) {
            return Err(format!("request {request} never ended"));
        }
        match self.tallies.iter().find(|(m, t)| honest(**m) && (t.accepted > 0 || t.running > 0)) {
            Some((m, tally)) => Err(format!("machine {m} still holds what nobody asked for: {tally:?}")),
            None => Ok(()),
        }
    }

    /// Members that can reach each other, when everything is quiet: one set of records, one connection a pair.
    pub(crate) fn agree(views: &[View]) -> Result<(), String> {
        for one in views {
            for two in views.iter().filter(|two| two.machine != one.machine) {
                let (a, b) = (one.machine, two.machine);
                if one.records != two.records {
                    return Err(format!("machines {a} and {b} hold different records"));
                }
                match (one.links.get(&b), two.links.get(&a)) {
                    (Some(mine), Some(theirs)) if mine == theirs => {}
                    (mine, theirs) => {
                        return Err(format!("machines {a} and {b} use different connections: {mine:?}, {theirs:?}"));
                    }
                }
                let open = one.open.get(&b).copied().unwrap_or(0);
                if open != 1 {
                    return Err(format!("machine {a} has {open} connections to {b}"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Digest = Digest([1; 32]);

    /// What the checkers say in the end to this story.
    fn told(story: Vec<Seen<'_>>) -> String {
        let mut checkers = Checkers::default();
        checkers.see(0, Seen::Slots { provider: 0, slots: 1 });
        checkers.see(0, Seen::Admitted { machine: 0, role: Role::Peer });
        checkers.see(0, Seen::Admitted { machine: 1, role: Role::Client });
        checkers.see(0, Seen::Admitted { machine: 2, role: Role::Worker });
        for (at, seen) in story.into_iter().enumerate() {
            checkers.see(at as u64, seen);
            if let Some(complaint) = checkers.complaint() {
                return complaint;
            }
        }
        checkers.over(|_| true).err().unwrap_or_default()
    }

    fn asked() -> Seen<'static> {
        Seen::Asked { request: 7, deadline: 3, oracle: GOOD }
    }

    fn remote(object: Digest) -> Seen<'static> {
        Seen::Ended { request: 7, end: End::Remote { object } }
    }

    fn started(client: usize) -> Seen<'static> {
        Seen::Started { provider: 0, client }
    }

    #[test]
    fn a_story_without_fault_is_let_pass() {
        let accepted = || Seen::Accepted { provider: 0 };
        let (released, stopped) = (Seen::Released { provider: 0 }, Seen::Stopped { provider: 0 });
        assert_eq!(told(vec![asked(), accepted(), remote(GOOD), released]), "");
        assert_eq!(told(vec![started(1), stopped]), "");
    }

    #[test]
    fn every_fault_is_told() {
        let accepted = || Seen::Accepted { provider: 0 };
        let path = [AbsPath::new("/etc/passwd").expect("normal")];
        let dirs = [AbsPath::new("/w").expect("normal")];
        let named = Seen::Told { client: 0, provider: 1, digest: GOOD };
        let granted = Seen::Granted { client: 0, giver: 1, asker: 2, key: [7; 32] };
        let given = |asker, key| Seen::Given { client: 0, giver: 1, asker, key: [key; 32], digest: GOOD };
        let twice = [AbsPath::new("/w/a").expect("normal"), AbsPath::new("/w/a").expect("normal")];
        let offered = |peer| Seen::Offered { request: 7, peer };
        let falls = |conn| {
            let stands = |machine, peer| Seen::Stands { machine, peer, conn };
            vec![stands(0, 1), stands(1, 0), Seen::Falls { machine: 0, conn }]
        };
        let stories = [
            (vec![asked()], "never ended"),
            (vec![asked(), remote(GOOD), remote(GOOD)], "ended twice"),
            (vec![asked(), remote(Digest([2; 32]))], "another object"),
            (vec![asked(), accepted(), accepted(), started(1), remote(GOOD)], "after its deadline"),
            ((0..7).map(|_| accepted()).collect(), "accepted 7 offers"),
            (vec![asked(), offered(1), offered(1)], "to 1 twice"),
            (vec![asked(), offered(1), offered(2), offered(3), offered(4)], "offered 4 times"),
            (vec![asked(), remote(GOOD), offered(1)], "after its end"),
            (vec![Seen::Outputs { paths: &twice, dirs: &dirs }], "out of order"),
            (vec![started(1), started(1)], "runs 2 jobs"),
            (vec![started(3)], "no member"),
            (vec![started(2)], "may not submit"),
            (vec![Seen::Started { provider: 1, client: 0 }], "runs 1 jobs"),
            (vec![started(1)], "nobody asked for"),
            (vec![Seen::Blob { digest: GOOD, bytes: b"other" }], "something else"),
            (vec![Seen::Outputs { paths: &path, dirs: &dirs }], "outside"),
            (vec![named, given(2, 7)], "did not grant"),
            (vec![named, granted, given(3, 7)], "did not grant"),
            (vec![named, granted, given(2, 8)], "did not grant"),
            (vec![granted, given(2, 7)], "never named"),
            ((0..9).map(|_| Seen::Handshake { dialler: 0, other: 1 }).collect(), "in a row"),
            ([falls(1), falls(2)].into_iter().flatten().collect(), "gave up connection 2"),
        ];
        for (story, words) in stories {
            let said = told(story);
            assert!(said.contains(words), "{words:?} was expected, {said:?} was said");
        }
    }

    #[test]
    fn views_that_differ_are_told() {
        let view = |machine: usize, peer: usize, conn: usize| View {
            machine,
            records: GOOD,
            links: BTreeMap::from([(peer, conn)]),
            open: BTreeMap::from([(peer, 1)]),
        };
        assert_eq!(Checkers::agree(&[view(0, 1, 5), view(1, 0, 5)]), Ok(()));
        let said = |one, two| Checkers::agree(&[one, two]).expect_err("they differ");
        assert!(said(view(0, 1, 5), view(1, 0, 6)).contains("different connections"));
        assert!(said(view(0, 1, 5), View { records: Digest([2; 32]), ..view(1, 0, 5) }).contains("different records"));
        assert!(
            said(view(0, 1, 5), View { links: BTreeMap::new(), ..view(1, 0, 5) }).contains("different connections")
        );
        let twice = View { open: BTreeMap::from([(1, 2)]), ..view(0, 1, 5) };
        assert!(said(twice, view(1, 0, 5)).contains("2 connections"));
    }
}
