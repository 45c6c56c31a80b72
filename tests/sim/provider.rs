//! Jobs for others: what `src/agent/serve.rs` does, in virtual time, and the compiler, which is a pure function.

use crate::{
    checkers::Seen,
    client::{BLOB_TIME, object_path},
    liar::Lie,
    link::{ConnId, MS, Micros, Parcel, SECOND, Stream},
    peers::message,
    world::{Nature, Timer, World},
};
use mesh::sched::{
    guest::Terms,
    intake::{Act, JobId},
};
use mesh_proto::{
    closure::{Entry, Node},
    digest::Digest,
    exchange::provider::Provider,
    job::{Exit, Job, Outcome, Output, Refusal, Usage},
    limits,
    message::{Answer, Closed, Load, Offer, StreamHead},
    path::AbsPath,
    toolchain::Fingerprint,
};
use std::sync::Arc;

/// How long an offer waits for its names.
const NAMES_WAIT_MAX: Micros = 30 * SECOND;

/// How far a job has come.
#[derive(Debug)]
enum Stage {
    Names,
    /// And how many sources have been asked and have not answered.
    Fetch(Provider, usize),
    Queued(Vec<Arc<Entry>>),
    Runs(Vec<Arc<Entry>>),
}

/// A job of another machine.
#[derive(Debug)]
pub(crate) struct Serving {
    offer: Offer,
    stage: Stage,
    step: u32,
    lie: Option<Lie>,
}

/// The compiler: a function of the job and of what the inputs hold, which an oracle can compute as well.
pub(crate) fn object<'a>(job: &Job, inputs: impl Iterator<Item = (&'a AbsPath, Option<Digest>)>) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&job.toolchain.0.0);
    for argument in &job.argv {
        hasher.update(argument).update(b"\0");
    }
    hasher.update(&job.cwd);
    for (path, content) in inputs {
        hasher.update(path.as_bytes()).update(&content.map_or([0; 32], |d| d.0));
    }
    hasher.finalize().as_bytes().to_vec()
}

impl World {
    fn closed(&self, m: usize) -> Option<Closed> {
        if self.machines[m].role().is_some_and(|role| role.serves()) { None } else { Some(Closed::Role) }
    }

    /// How busy a machine says to be to the other end of a connection.
    pub(crate) fn load_for(&mut self, m: usize, conn: ConnId) -> Load {
        self.settle(m);
        let machine = &self.machines[m];
        let peer = machine.ends.get(&conn).map(|end| self.machines[end.peer].id).unwrap_or(machine.id);
        let own = u16::try_from(machine.own).unwrap_or(u16::MAX);
        Load { own, ..machine.intake.load_for(self.clock.now, peer) }
    }

    /// On what terms a machine serves may have changed with its role.
    fn settle(&mut self, m: usize) {
        let closed = self.closed(m);
        let machine = &mut self.machines[m];
        let slots = if closed.is_none() { machine.slots } else { 0 };
        machine.intake.terms(self.clock.now, Terms { slots, closed, memory_free_kib: None, gives_up_one: false });
        self.start_jobs(m);
    }

    pub(crate) fn served_toolchains(&self, m: usize) -> Vec<Fingerprint> {
        if self.closed(m).is_some() { Vec::new() } else { self.machines[m].toolchains.clone() }
    }

    /// Something came on a stream that the other side opened.
    pub(crate) fn offer_arrives(&mut self, m: usize, conn: ConnId, stream: Stream, parcel: Parcel) {
        let key = (conn, stream);
        if self.machines[m].jobs.contains_key(&key) {
            return match parcel {
                Parcel::Reset => self.drop_job(m, key),
                parcel => self.blob_arrives(m, key, parcel),
            };
        }
        let head = message(&parcel, limits::FRAME_BYTES_MAX);
        if let Some(StreamHead::Fetch(fetch)) = head {
            return self.fetch_arrives(m, key, *fetch);
        }
        if matches!(parcel, Parcel::Reset) {
            self.machines[m].gives.remove(&key);
        }
        let Some(StreamHead::Job(offer)) = head else {
            // Not a job: the stream is given up. (A reset, or a blob that came too late, is no surprise.)
            if matches!(parcel, Parcel::Frame(_)) {
                self.note("no offer", [m, conn, 0]);
                self.send_parcel(m, conn, stream, Parcel::Reset);
            }
            return;
        };
        self.settle(m);
        let machine = &self.machines[m];
        let client = self.machines[machine.ends[&conn].peer].id;
        let role = machine.members.as_ref().and_then(|all| all.get(&client)).map(|member| member.role);
        if let Err(refusal) = self.machines[m].intake.offer(job_id(key), client, role, 0) {
            self.note("turned down", [m, conn, 0]);
            return self.send(m, conn, stream, &Answer::Refused(refusal));
        }
        self.see(Seen::Accepted { provider: m });
        self.note("accepted", [m, conn, usize::try_from(stream).expect("few")]);
        self.load_changed(m);
        let lie = if self.machines[m].nature == Nature::Liar {
            self.conspiracy.or_else(|| Lie::pick(&mut self.clock.random))
        } else {
            None
        };
        let knows = self.machines[m].toolchains.contains(&offer.job.toolchain);
        self.machines[m].jobs.insert(key, Serving { offer: *offer, stage: Stage::Names, step: 0, lie });
        if !knows {
            return self.refuse(m, key, Refusal::Toolchain);
        }
        if lie.is_some_and(|lie| self.lies_at_once(m, key, lie)) {
            return;
        }
        self.set_job_timer(m, key, NAMES_WAIT_MAX);
        self.begin_job(m, key);
    }

    fn set_job_timer(&mut self, m: usize, key: (ConnId, Stream), wait: Micros) {
        if let Some(job) = self.machines[m].jobs.get_mut(&key) {
            job.step += 1;
            let step = job.step;
            self.timer(m, wait, Timer::Job { conn: key.0, stream: key.1, step });
        }
    }

    /// Names have come: offers that waited for them may begin.
    pub(crate) fn names_came(&mut self, m: usize, conn: ConnId) {
        let waiting = |(key, job): (&(ConnId, Stream), &Serving)| matches!(job.stage, Stage::Names).then_some(*key);
        let jobs: Vec<_> = self.machines[m].jobs.range((conn, 0)..(conn + 1, 0)).filter_map(waiting).collect();
        for key in jobs {
            self.begin_job(m, key);
        }
    }

    /// Begins if the names have come as far as the offer says.
    fn begin_job(&mut self, m: usize, key: (ConnId, Stream)) {
        let machine = &self.machines[m];
        let (Some(job), Some(end)) = (machine.jobs.get(&key), machine.ends.get(&key.0)) else { return };
        if end.names.batches() < job.offer.batches {
            return self.note("waits for names", [m, key.0, 0]);
        }
        let provider = Provider::new(&job.offer, &end.names);
        let mut provider = match provider {
            Ok(provider) => provider,
            Err(refusal) => return self.refuse(m, key, refusal),
        };
        let lacking = provider.lacking(|digest| machine.blobs.contains_key(digest));
        if lacking.is_empty() {
            return self.queue_job(m, key, &provider);
        }
        let sources = job.offer.sources.clone();
        let (asked, mine) = self.share_out(m, key, &sources, lacking);
        if !mine.is_empty() {
            self.send(m, key.0, key.1, &Answer::Missing(provider.ask(&mine)));
        }
        self.set_job_timer(m, key, BLOB_TIME);
        self.machines[m].jobs.get_mut(&key).expect("looked at above").stage = Stage::Fetch(provider, asked);
    }

    /// A source has given what it has.
    pub(crate) fn share_ended(&mut self, m: usize, key: (ConnId, Stream)) {
        if let Some(Stage::Fetch(_, asked)) = self.machines[m].jobs.get_mut(&key).map(|job| &mut job.stage) {
            *asked -= 1;
            self.fetch_goes_on(m, key);
        }
    }

    /// If everything that was asked for has come or will not: is all there? The client is asked for what is not.
    fn fetch_goes_on(&mut self, m: usize, key: (ConnId, Stream)) {
        let machine = &mut self.machines[m];
        let Some(job) = machine.jobs.get_mut(&key) else { return };
        let Stage::Fetch(provider, 0) = &mut job.stage else { return };
        if provider.awaited().is_some() {
            return;
        }
        let rest = provider.lacking(|digest| machine.blobs.contains_key(digest));
        if !rest.is_empty() {
            let missing = provider.ask(&rest);
            self.note("asks again", [m, key.0, rest.len()]);
            self.send(m, key.0, key.1, &Answer::Missing(missing));
            return self.set_job_timer(m, key, BLOB_TIME);
        }
        if let Stage::Fetch(provider, _) = std::mem::replace(&mut job.stage, Stage::Names) {
            self.queue_job(m, key, &provider);
        }
    }

    fn blob_arrives(&mut self, m: usize, key: (ConnId, Stream), parcel: Parcel) {
        let job = self.machines[m].jobs.get_mut(&key).expect("looked at above");
        let (Parcel::Frame(bytes) | Parcel::Blob(bytes)) = parcel else { return };
        let Stage::Fetch(provider, _) = &mut job.stage else { return };
        match provider.received(&bytes) {
            Err(_) => {
                self.note("bad blob", [m, key.0, 0]);
                self.send_parcel(m, key.0, key.1, Parcel::Reset);
                self.drop_job(m, key);
            }
            Ok(digest) => {
                let all_there = provider.awaited().is_none();
                self.see(Seen::Blob { digest, bytes: &bytes });
                self.machines[m].blobs.insert(digest, bytes);
                self.all_give_more(m);
                if all_there {
                    self.fetch_goes_on(m, key);
                } else {
                    self.set_job_timer(m, key, BLOB_TIME);
                }
            }
        }
    }

    fn queue_job(&mut self, m: usize, key: (ConnId, Stream), provider: &Provider) {
        let entries = provider.entries().cloned().collect();
        let job = self.machines[m].jobs.get_mut(&key).expect("looked at above");
        job.stage = Stage::Queued(entries);
        job.step += 1;
        let now = self.clock.now;
        self.machines[m].intake.ready(now, job_id(key));
        self.start_jobs(m);
    }

    /// Does what the intake says.
    fn start_jobs(&mut self, m: usize) {
        for act in self.machines[m].intake.take() {
            let (Act::Start(id) | Act::GiveUp(id, _)) = act;
            let key = key_of(id);
            // Its connection may be gone: then it is about to be dropped.
            let Some(client) = self.machines[m].ends.get(&key.0).map(|end| end.peer) else { continue };
            let Some(job) = self.machines[m].jobs.get_mut(&key) else { continue };
            if let Act::GiveUp(_, refusal) = act {
                self.refuse(m, key, refusal);
                continue;
            }
            let Stage::Queued(entries) = &mut job.stage else { continue };
            let entries = std::mem::take(entries);
            job.stage = Stage::Runs(entries);
            let wall = job.offer.job.wall_ms_max * MS;
            self.see(Seen::Started { provider: m, client });
            self.note("runs", [m, client, key.0]);
            let takes = self.clock.random.between(50 * MS, self.compile_max) * self.machines[m].slowness / 100;
            self.set_job_timer(m, key, takes.min(wall + 1));
        }
    }

    /// Time is up: for the names, for a blob, for the compiler.
    pub(crate) fn job_timer(&mut self, m: usize, key: (ConnId, Stream), step: u32) {
        let Some(job) = self.machines[m].jobs.get(&key).filter(|j| j.step == step) else { return };
        match &job.stage {
            Stage::Names => self.refuse(m, key, Refusal::Missing),
            Stage::Fetch(..) => {
                self.send_parcel(m, key.0, key.1, Parcel::Reset);
                self.drop_job(m, key);
            }
            Stage::Queued(_) => {}
            Stage::Runs(_) => self.compiler_ends(m, key),
        }
    }

    fn refuse(&mut self, m: usize, key: (ConnId, Stream), refusal: Refusal) {
        self.note("gives up", [m, key.0, 0]);
        self.drop_job(m, key);
        self.send(m, key.0, key.1, &Answer::Refused(refusal));
    }

    fn compiler_ends(&mut self, m: usize, key: (ConnId, Stream)) {
        let job = &self.machines[m].jobs[&key];
        let Stage::Runs(entries) = &job.stage else { return };
        let wall = job.offer.job.wall_ms_max * MS;
        if self.compile_max * self.machines[m].slowness / 100 > wall && self.clock.random.chance(50) {
            return self.refuse(m, key, Refusal::Limit);
        }
        let mut inputs: Vec<&Arc<Entry>> = entries.iter().collect();
        inputs.sort();
        // It reads what lies in this machine's store, not what the offer says of it.
        let blobs = &self.machines[m].blobs;
        let read = |e: &Entry| if let Node::File(f) = &e.node { Some(Digest::of(&blobs[&f.digest])) } else { None };
        let bytes = object(&job.offer.job, inputs.into_iter().map(|e| (&e.path, read(e))));
        let name = String::from_utf8_lossy(&job.offer.job.argv[job.offer.job.argv.len() - 1]).into_owned();
        let made = vec![
            (AbsPath::new(format!("/w/out/{name}.d")).unwrap_or_else(|_| AbsPath::root()), name.as_bytes().to_vec()),
            (object_path(&name), bytes),
        ];
        let lie = job.lie;
        self.drop_job(m, key);
        match lie {
            None => self.deliver(m, key, made),
            Some(lie) => self.deliver_lie(m, key, lie, made),
        }
    }

    pub(crate) fn deliver(&mut self, m: usize, key: (ConnId, Stream), made: Vec<(AbsPath, Vec<u8>)>) {
        self.send(m, key.0, key.1, &Answer::Done(Box::new(outcome(&made))));
        for (_, bytes) in made {
            self.send_parcel(m, key.0, key.1, Parcel::Blob(bytes));
        }
    }

    /// A job is over, however: its place and its slot are free.
    pub(crate) fn drop_job(&mut self, m: usize, key: (ConnId, Stream)) {
        let Some(job) = self.machines[m].jobs.remove(&key) else { return };
        self.stop_asking(m, key);
        if matches!(job.stage, Stage::Runs(_)) {
            self.see(Seen::Stopped { provider: m });
        }
        let now = self.clock.now;
        self.machines[m].intake.ended(now, job_id(key));
        self.see(Seen::Released { provider: m });
        self.load_changed(m);
        self.start_jobs(m);
    }

    /// A connection is gone, and with it the jobs that came by it.
    pub(crate) fn jobs_lost(&mut self, m: usize, conn: ConnId) {
        let lost: Vec<_> = self.machines[m].jobs.range((conn, 0)..(conn + 1, 0)).map(|(key, _)| *key).collect();
        for key in lost {
            self.drop_job(m, key);
        }
    }
}

/// A job's number at the intake, and back.
fn job_id((conn, stream): (ConnId, Stream)) -> JobId {
    (conn as u64) << 32 | u64::from(stream)
}

fn key_of(id: JobId) -> (ConnId, Stream) {
    let conn = usize::try_from(id >> 32).expect("made of one");
    (conn, Stream::try_from(id & u64::from(u32::MAX)).expect("32 bits"))
}

pub(crate) fn outcome(made: &[(AbsPath, Vec<u8>)]) -> Outcome {
    let output = |(path, bytes): &(AbsPath, Vec<u8>)| Output {
        path: path.clone(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        executable: false,
    };
    Outcome { exit: Exit::Code(0), text: vec![], outputs: made.iter().map(output).collect(), usage: Usage::default() }
}
