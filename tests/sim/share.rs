//! Inputs from one provider to another: what `src/agent/{fetch,share}.rs` do, in virtual time.

use crate::{
    checkers::Seen,
    link::{CONTROL, ConnId, MS, Micros, Parcel, Stream},
    peers::message,
    world::{Nature, Timer, World},
};
use mesh_proto::{
    digest::Digest,
    exchange::{
        provider::Lacking,
        share::{Asker, Fetch, Giver, Grant, GrantKey, Source},
    },
    limits,
    message::{Control, StreamHead},
    naming::NumberSet,
    peer::PeerId,
};
use std::collections::VecDeque;

/// How long a giver waits for more.
const GIVE_WAIT: Micros = 250 * MS;
/// How long an asker waits for more.
const ASK_QUIET: Micros = 500 * MS;

/// Digests that a thief guesses at once.
const GUESSES_MAX: usize = 50;

/// A fetch of another provider's.
#[derive(Debug)]
pub(crate) struct Giving {
    giver: Giver,
    /// The key that was shown, for the checkers.
    key: GrantKey,
    step: u32,
}

/// A fetch of this provider's.
#[derive(Debug)]
pub(crate) struct Asking {
    /// For this job.
    job: (ConnId, Stream),
    asker: Asker,
    expected: VecDeque<(Digest, u64)>,
    step: u32,
}

impl World {
    fn index(&self, peer: PeerId) -> Option<usize> {
        self.machines.iter().position(|m| m.id == peer)
    }

    fn random_key(&mut self) -> GrantKey {
        GrantKey(std::array::from_fn(|_| self.clock.random.next().to_le_bytes()[0]))
    }

    /// Which links hold the files that are named on `conn` now, with what they are granted for it.
    pub(crate) fn sources(&mut self, m: usize, conn: ConnId, fresh: &[(u32, u32)]) -> Vec<Source> {
        let peer = self.machines[m].ends[&conn].peer;
        let mut held: Vec<(ConnId, Vec<u32>)> = Vec::new();
        for (file, number) in fresh {
            let machine = &mut self.machines[m];
            let stands = |holder: &&ConnId| machine.links.values().any(|link| link == *holder);
            match machine.holders.get(file).filter(stands).copied() {
                Some(holder) if holder != conn => match held.iter_mut().find(|(conn, _)| *conn == holder) {
                    Some((_, numbers)) => numbers.push(*number),
                    None => held.push((holder, vec![*number])),
                },
                _ => drop(machine.holders.insert(*file, conn)),
            }
        }
        let mut sources = Vec::new();
        for (holder, mut files) in held.into_iter().take(limits::SOURCES_MAX) {
            let key = match self.machines[m].keys.get(&(holder, conn)) {
                Some(key) => *key,
                None => {
                    let key = self.random_key();
                    self.machines[m].keys.insert((holder, conn), key);
                    let giver = self.machines[m].ends[&holder].peer;
                    self.see(Seen::Granted { client: m, giver, asker: peer, key: key.0 });
                    self.send(m, holder, CONTROL, &Control::Grant(Grant { to: self.machines[peer].id, key }));
                    key
                }
            };
            let peer = self.machines[self.machines[m].ends[&holder].peer].id;
            sources.push(Source { peer, key, files: NumberSet::new(&mut files) });
        }
        sources
    }

    /// Asks sources for what they have of this. What is left is for the client.
    pub(crate) fn share_out(
        &mut self,
        m: usize,
        job: (ConnId, Stream),
        sources: &[Source],
        lacking: Vec<Lacking>,
    ) -> (usize, Vec<Lacking>) {
        let client = self.machines[self.machines[m].ends[&job.0].peer].id;
        let (mut asked, mut rest) = (0, lacking);
        for source in sources {
            let Some(conn) = self.machines[m].links.get(&source.peer).copied() else { continue };
            let Ok(numbers) = source.files.numbers() else { continue };
            let (there, not): (Vec<_>, Vec<_>) = rest.into_iter().partition(|file| numbers.contains(&file.number));
            rest = not;
            if there.is_empty() {
                continue;
            }
            asked += 1;
            let asker = Asker::new(there.iter().map(|file| (file.digest, file.size)).collect());
            let mut fetch = asker.fetch(client, source.key);
            if self.machines[m].nature == Nature::Liar {
                // What it was granted is not all that it would like to have.
                fetch.digests.extend(self.guesses(conn, m));
            }
            let stream = self.net.open_stream(conn, self.machines[m].ends[&conn].side);
            let asking = Asking { job, asker, expected: VecDeque::new(), step: 0 };
            self.machines[m].asks.insert((conn, stream), asking);
            self.note("asks a source", [m, conn, 0]);
            self.send(m, conn, stream, &StreamHead::Fetch(Box::new(fetch)));
            self.timer(m, ASK_QUIET, Timer::Ask { conn, stream, step: 0 });
        }
        (asked, rest)
    }

    /// Something came from a source.
    pub(crate) fn source_says(&mut self, m: usize, key: (ConnId, Stream), parcel: Parcel) {
        let Some(asking) = self.machines[m].asks.get_mut(&key) else { return };
        let good = match (&parcel, asking.expected.pop_front()) {
            (Parcel::Reset, _) => return self.asked_enough(m, key),
            (Parcel::Frame(_), None) => match message::<NumberSet>(&parcel, limits::FRAME_BYTES_MAX) {
                Some(indexes) => asking.asker.announced(&indexes).map(|come| asking.expected.extend(come)).is_ok(),
                None => false,
            },
            (Parcel::Frame(bytes) | Parcel::Blob(bytes), Some((digest, size))) => {
                let right = bytes.len() as u64 == size && Digest::of(bytes) == digest;
                if right {
                    self.see(Seen::Blob { digest, bytes });
                    self.machines[m].blobs.insert(digest, bytes.clone());
                    self.note("had from a source", [m, key.0, 0]);
                    self.all_give_more(m);
                }
                right
            }
            (Parcel::Blob(_), None) => false,
        };
        let Some(asking) = self.machines[m].asks.get_mut(&key) else { return };
        if !good {
            self.note("a source broke a rule", [m, key.0, 0]);
            self.asked_enough(m, key);
        } else if asking.asker.is_done() && asking.expected.is_empty() {
            self.asked_enough(m, key);
        } else {
            asking.step += 1;
            let (conn, stream, step) = (key.0, key.1, asking.step);
            self.timer(m, ASK_QUIET, Timer::Ask { conn, stream, step });
        }
    }

    /// A source said nothing for too long.
    pub(crate) fn ask_timer(&mut self, m: usize, key: (ConnId, Stream), step: u32) {
        if self.machines[m].asks.get(&key).is_some_and(|asking| asking.step == step) {
            self.note("a source is silent", [m, key.0, 0]);
            self.asked_enough(m, key);
        }
    }

    /// A fetch is over, however.
    fn asked_enough(&mut self, m: usize, key: (ConnId, Stream)) {
        let Some(asking) = self.machines[m].asks.remove(&key) else { return };
        if self.machines[m].ends.contains_key(&key.0) {
            self.send_parcel(m, key.0, key.1, Parcel::Reset);
        }
        self.share_ended(m, asking.job);
    }

    /// Another provider asks.
    pub(crate) fn fetch_arrives(&mut self, m: usize, key: (ConnId, Stream), fetch: Fetch) {
        let asker = self.machines[self.machines[m].ends[&key.0].peer].id;
        let giving = Giving { key: fetch.key, giver: Giver::new(asker, fetch), step: 0 };
        self.machines[m].gives.insert(key, giving);
        self.timer(m, GIVE_WAIT, Timer::Give { conn: key.0, stream: key.1, step: 0 });
        self.give_more(m, key);
    }

    /// The grants, the names or what is here have grown.
    pub(crate) fn all_give_more(&mut self, m: usize) {
        let keys: Vec<_> = self.machines[m].gives.keys().copied().collect();
        for key in keys {
            self.give_more(m, key);
        }
    }

    fn give_more(&mut self, m: usize, key: (ConnId, Stream)) {
        let machine = &mut self.machines[m];
        let Some(giving) = machine.gives.get_mut(&key) else { return };
        let client = giving.giver.client();
        let Some(end) = machine.links.get(&client).and_then(|conn| machine.ends.get_mut(conn)) else { return };
        let blobs = &machine.blobs;
        let given = giving.giver.next(&end.grants, &mut end.names, |digest| blobs.contains_key(digest));
        if given.is_empty() {
            return;
        }
        giving.step += 1;
        let (shown, step, done) = (giving.key.0, giving.step, giving.giver.is_done());
        let asker = machine.ends[&key.0].peer;
        let lies = machine.nature == Nature::Liar && self.clock.random.chance(30);
        let mut indexes: Vec<u32> = given.iter().map(|(index, _)| *index).collect();
        if lies && self.clock.random.chance(50) {
            indexes.push(10_000);
        }
        self.send(m, key.0, key.1, &NumberSet::new(&mut indexes));
        for (_, digest) in given {
            let mut bytes = self.machines[m].blobs[&digest].clone();
            if lies {
                bytes.push(0);
            }
            let client = self.index(client).expect("a link's peer is a machine");
            self.see(Seen::Given { client, giver: m, asker, key: shown, digest });
            self.send_parcel(m, key.0, key.1, Parcel::Blob(bytes));
        }
        self.note("gives", [m, key.0, 0]);
        if done {
            self.machines[m].gives.remove(&key);
        } else {
            self.timer(m, GIVE_WAIT, Timer::Give { conn: key.0, stream: key.1, step });
        }
    }

    /// Nothing came for a while: the asker asks the client.
    pub(crate) fn give_timer(&mut self, m: usize, key: (ConnId, Stream), step: u32) {
        if self.machines[m].gives.get(&key).is_some_and(|giving| giving.step == step) {
            self.machines[m].gives.remove(&key);
            self.send_parcel(m, key.0, key.1, Parcel::Reset);
        }
    }

    /// A connection is gone, and with it what was asked and given on it.
    pub(crate) fn shares_lost(&mut self, m: usize, conn: ConnId) {
        self.machines[m].gives.retain(|key, _| key.0 != conn);
        let lost: Vec<_> = self.machines[m].asks.range((conn, 0)..(conn + 1, 0)).map(|(key, _)| *key).collect();
        for key in lost {
            self.asked_enough(m, key);
        }
    }

    /// A job is over: nothing is asked for it any more.
    pub(crate) fn stop_asking(&mut self, m: usize, job: (ConnId, Stream)) {
        let asks = self.machines[m].asks.iter().filter(|(_, asking)| asking.job == job);
        let over: Vec<_> = asks.map(|(key, _)| *key).collect();
        for key in over {
            self.asked_enough(m, key);
        }
    }

    /// What a thief asks for who guesses well: what the other side has.
    fn guesses(&self, conn: ConnId, m: usize) -> Vec<Digest> {
        let victim = self.machines[m].ends[&conn].peer;
        self.machines[victim].blobs.keys().copied().take(GUESSES_MAX).collect()
    }

    /// A thief asks for another's files: with a key of its own invention, or with one that was granted to somebody else and
    /// that it was told of.
    pub(crate) fn steal(&mut self, m: usize, conn: ConnId) {
        let known: Vec<(PeerId, GrantKey)> = self.machines[m].overheard.clone();
        let client = self.clock.random.index(self.machines.len());
        let mut shown = (self.machines[client].id, self.random_key());
        if !known.is_empty() && self.clock.random.chance(70) {
            shown = known[self.clock.random.index(known.len())];
        }
        let digests = self.guesses(conn, m);
        let fetch = Fetch { client: shown.0, key: shown.1, digests };
        let stream = self.net.open_stream(conn, self.machines[m].ends[&conn].side);
        self.note("steals", [m, conn, 0]);
        self.send(m, conn, stream, &StreamHead::Fetch(Box::new(fetch)));
    }
}
