//! One unit of a machine's user, from request to its end: what `src/agent/{compile,submit}.rs` do, in virtual time.

use crate::{
    checkers::{End, Seen},
    link::{ConnId, MS, Micros, Parcel, SECOND, Stream},
    peers::message,
    provider::object,
    world::{HEADERS, Timer, World, toolchain},
};
use mesh::{
    reason::Reason,
    sched::{
        choose::{self, Candidate, Choice, Here},
        retry::{self, Failure, Next},
    },
};
use mesh_proto::{
    closure::{Entry, File, Node},
    digest::Digest,
    exchange::requester::{Requester, Step},
    job::{Exit, Job, Outcome},
    limits,
    message::{Offer, StreamHead},
    naming::NumberSet,
    path::AbsPath,
    peer::PeerId,
    toolchain::Fingerprint,
};
use std::{collections::VecDeque, sync::Arc};

/// How long a unit waits for a free slot, if this machine is out of the choice.
pub(crate) const WAIT_MAX: Micros = 60 * SECOND;
/// How long an answer may take beyond the job's wall time.
pub(crate) const ANSWER_SLACK: Micros = 60 * SECOND;
/// How long a blob may take.
pub(crate) const BLOB_TIME: Micros = 30 * SECOND;
/// A job's wall time.
pub(crate) const WALL: Micros = 20 * SECOND;
/// Outputs of a simulated compile, at most.
const OUTPUTS_MAX: u64 = 4;
/// By then a request has ended: the sum of every wait that it can be made to do.
pub(crate) const DEADLINE: Micros =
    WAIT_MAX + retry::ATTEMPTS_MAX as u64 * (2 * (WALL + ANSWER_SLACK) + OUTPUTS_MAX * BLOB_TIME);

/// A unit under way.
#[derive(Debug)]
pub(crate) struct Request {
    name: String,
    toolchain: Fingerprint,
    force: bool,
    prefer: Option<PeerId>,
    /// By number of the include graph.
    closure: Vec<(u32, Arc<Entry>)>,
    versions: Vec<(usize, u32)>,
    asked: Micros,
    attempt: u32,
    failed: Vec<PeerId>,
    /// Grows with everything that a timer was set for.
    step: u32,
    offered: Option<Offered>,
}

/// A unit that a peer has.
#[derive(Debug)]
struct Offered {
    conn: ConnId,
    stream: Stream,
    requester: Requester,
    outcome: Option<Outcome>,
    expected: VecDeque<(u64, Digest)>,
    got: Vec<Vec<u8>>,
}

/// What a header holds. Some have equal content under two paths, as copied headers do.
fn header(n: usize, version: u32) -> Vec<u8> {
    format!("header {} version {version}", n / 2 * 2 % HEADERS).into_bytes()
}

fn file(path: &str, content: &[u8], inode: u64) -> Entry {
    let size = content.len() as u64;
    let file = File { digest: Digest::of(content), size, mtime_s: 1, mtime_ns: 2, executable: false, inode };
    Entry { path: AbsPath::new(path).expect("normal"), node: Node::File(file) }
}

pub(crate) fn job(name: &str, toolchain: Fingerprint) -> Job {
    Job {
        toolchain,
        argv: vec![b"gcc".to_vec(), b"-c".to_vec(), name.as_bytes().to_vec()],
        env: vec![(b"LANG".to_vec(), b"C".to_vec())],
        cwd: b"/w".to_vec(),
        output_dirs: vec![AbsPath::new("/w/out").expect("normal")],
        umask: 0o22,
        merged_output: false,
        terminal: None,
        wall_ms_max: WALL / MS,
        strict: false,
    }
}

impl World {
    /// A launcher asks for a unit.
    pub(crate) fn ask(&mut self, m: usize) {
        if !self.machines[m].up {
            return;
        }
        let id = self.next_request;
        self.next_request += 1;
        let name = format!("u{id}.c");
        let random = &mut self.clock.random;
        let compiler = toolchain(u8::from(random.chance(20)));
        let used: Vec<usize> = (0..HEADERS).filter(|_| random.chance(50)).collect();
        let force = random.chance(self.force_percent);
        let prefer = if random.chance(10) { Some(random.index(self.machines.len())) } else { None };
        let versions: Vec<(usize, u32)> = used.iter().map(|h| (*h, self.machines[m].headers[*h])).collect();
        let source = file(&format!("/w/{name}"), format!("source of {name}").as_bytes(), 1000 + u64::from(id));
        let directory = Entry { path: AbsPath::new("/w/inc").expect("normal"), node: Node::Directory };
        let mut closure = vec![self.entry(m, &name, 0, source), self.entry(m, "inc", 0, directory)];
        for (h, version) in &versions {
            let entry = file(&format!("/w/inc/h{h}.h"), &header(*h, *version), *h as u64);
            closure.push(self.entry(m, &format!("h{h}"), *version, entry));
        }
        let request = Request {
            name,
            toolchain: compiler,
            force,
            prefer: prefer.map(|p| self.machines[p].id),
            closure,
            versions,
            asked: self.clock.now,
            attempt: 0,
            failed: Vec::new(),
            step: 0,
            offered: None,
        };
        // The oracle: what this machine's own compiler would make of these very bytes.
        let mut entries: Vec<&Entry> = request.closure.iter().map(|(_, e)| &**e).collect();
        entries.sort();
        let content = |e: &Entry| if let Node::File(f) = &e.node { Some(f.digest) } else { None };
        let oracle = object(&job(&request.name, compiler), entries.into_iter().map(|e| (&e.path, content(e))));
        let deadline = self.clock.now + DEADLINE;
        self.see(Seen::Asked { request: id, deadline, oracle: Digest::of(&oracle) });
        self.note("asked", [m, usize::try_from(id).expect("few"), 0]);
        self.machines[m].requests.insert(id, request);
        self.choose(m, id);
    }

    fn entry(&mut self, m: usize, name: &str, version: u32, entry: Entry) -> (u32, Arc<Entry>) {
        let ids = &mut self.machines[m].entry_ids;
        let next = u32::try_from(ids.len()).expect("few");
        (*ids.entry((name.as_bytes().to_vec(), version)).or_insert(next), Arc::new(entry))
    }

    /// Something that a choice looks at has changed.
    pub(crate) fn wake_waiters(&mut self, m: usize) {
        if !self.machines[m].waking && !self.machines[m].requests.is_empty() {
            self.machines[m].waking = true;
            self.timer(m, 0, Timer::Waiters);
        }
    }

    /// Everything that waits for a change chooses again.
    pub(crate) fn waiters_choose(&mut self, m: usize) {
        self.machines[m].waking = false;
        let waiting: Vec<u32> =
            self.machines[m].requests.iter().filter(|(_, r)| r.offered.is_none()).map(|(id, _)| *id).collect();
        for id in waiting {
            let plain = self.machines[m].requests.get(&id).is_some_and(|r| r.failed.is_empty() && r.prefer.is_none());
            let compiler = self.machines[m].requests.get(&id).map(|r| r.toolchain);
            // All that wait for the one compiler would choose alike.
            if plain && compiler == Some(toolchain(0)) && self.choose(m, id) == Choice::Wait {
                break;
            } else if !plain || compiler != Some(toolchain(0)) {
                self.choose(m, id);
            }
        }
    }

    fn choose(&mut self, m: usize, id: u32) -> Choice {
        let Some(request) = self.machines[m].requests.get(&id) else { return Choice::Nobody };
        let early = match self.machines[m].role() {
            None => Some(Reason::NoMesh),
            Some(role) if !role.submits() => Some(Reason::Role),
            Some(_) if self.machines[m].links.is_empty() && request.attempt == 0 => Some(Reason::NoPeer),
            Some(_) => None,
        };
        if let Some(reason) = early {
            self.end_local(m, id, reason);
            return Choice::Nobody;
        }
        let machine = &self.machines[m];
        let ends = || machine.links.iter().map(|(p, c)| (*p, &machine.ends[c]));
        let rtt = |peer: usize| 500 + self.net.far.get(&peer).copied().unwrap_or(0);
        let candidates: Vec<Candidate> = ends()
            .filter(|(p, e)| e.has(&request.toolchain) && !request.failed.contains(p))
            .map(|(p, e)| e.candidate(p, rtt(e.peer)))
            .collect();
        let matching = ends().any(|(_, e)| e.has(&request.toolchain));
        let (slots, running) = (machine.cores, machine.own);
        let here = Here { slots, running, speed: 1.0, has_room: running < slots };
        let load = choose::Load { cost_us: SECOND, mean_us: SECOND, waiting: 0, is_long: false };
        let choice = choose::choose(load, &candidates, (!request.force).then_some(here), request.prefer);
        match choice {
            Choice::Peer(peer, _) => {
                let conn = machine.links[&peer];
                self.offer(m, id, conn);
            }
            Choice::Wait if request.step == 0 => {
                let wait = (request.asked + WAIT_MAX).saturating_sub(self.clock.now);
                self.set_timer(m, id, wait);
                self.note("waits", [m, usize::try_from(id).expect("few"), 0]);
            }
            Choice::Wait => {}
            Choice::Here(_) | Choice::Nobody if !request.failed.is_empty() => self.end_local(m, id, Reason::PeerLost),
            Choice::Here(_) | Choice::Nobody if !matching => self.end_local(m, id, Reason::NoMatch),
            Choice::Here(_) | Choice::Nobody => self.end_local(m, id, Reason::LocalIdle),
        }
        choice
    }

    fn set_timer(&mut self, m: usize, id: u32, wait: Micros) {
        if let Some(request) = self.machines[m].requests.get_mut(&id) {
            request.step += 1;
            let step = request.step;
            self.timer(m, wait, Timer::Request { request: id, step });
        }
    }

    fn offer(&mut self, m: usize, id: u32, conn: ConnId) {
        let machine = &mut self.machines[m];
        let Some(request) = machine.requests.get_mut(&id) else { return };
        let end = machine.ends.get_mut(&conn).expect("a link that stands has its end");
        request.attempt += 1;
        end.in_flight += 1;
        let known = end.namer.count();
        let (mut entries, mut fresh, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for (key, entry) in &request.closure {
            let number = end.namer.number(*key, || Entry::clone(entry)).expect("few names");
            if let Node::File(file) = &entry.node
                && number >= known
            {
                fresh.push((*key, number));
                told.push(file.digest);
            }
            entries.push((number, entry.clone()));
        }
        let news = end.namer.take_batches();
        let (batches, side, peer) = (end.namer.batches(), end.side, end.peer);
        let set = NumberSet::new(&mut entries.iter().map(|(n, _)| *n).collect());
        let job = job(&request.name, request.toolchain);
        let requester = Requester::new(entries, job.output_dirs.clone());
        let stream = self.net.open_stream(conn, side);
        let (outcome, expected, got) = (None, VecDeque::new(), Vec::new());
        request.offered = Some(Offered { conn, stream, requester, outcome, expected, got });
        self.machines[m].by_stream.insert((conn, stream), id);
        for batch in news {
            let names_stream = self.names_stream(m, conn);
            self.send(m, conn, names_stream, &batch);
        }
        for digest in told {
            self.see(Seen::Told { client: m, provider: peer, digest });
        }
        let sources = self.sources(m, conn, &fresh);
        self.see(Seen::Offered { request: id, peer });
        self.note("offered", [m, peer, usize::try_from(id).expect("few")]);
        let offer = Offer { job, batches, closure: set, sources, memory_kib: 0, signed: false };
        self.send(m, conn, stream, &StreamHead::Job(Box::new(offer)));
        self.set_timer(m, id, WALL + ANSWER_SLACK);
    }

    /// Something came back on a job's stream that this machine opened.
    pub(crate) fn answer_arrives(&mut self, m: usize, conn: ConnId, stream: Stream, parcel: Parcel) {
        if self.machines[m].asks.contains_key(&(conn, stream)) {
            return self.source_says(m, (conn, stream), parcel);
        }
        let Some(id) = self.machines[m].by_stream.get(&(conn, stream)).copied() else {
            return self.liars_answer(m, conn, stream, &parcel);
        };
        let Some(request) = self.machines[m].requests.get_mut(&id) else { return };
        let Some(offered) = &mut request.offered else { return };
        if matches!(parcel, Parcel::Reset) {
            return self.failed(m, id, Failure::Lost);
        }
        if offered.outcome.is_some() {
            return self.output_arrives(m, id, parcel);
        }
        let answer = message(&parcel, limits::JOB_TEXT_BYTES_MAX + limits::FRAME_BYTES_MAX);
        let Some(answer) = answer else { return self.failed(m, id, Failure::Lost) };
        let step = offered.requester.answer(answer);
        match step {
            Err(violation) => self.violated(m, id, &format!("{violation:?}")),
            Ok(Step::Refused(refusal)) => self.failed(m, id, Failure::Refused(refusal)),
            Ok(Step::Send(files)) => {
                for entry in files {
                    let Some(bytes) = self.read_file(m, id, &entry) else {
                        return self.end_local(m, id, Reason::Changing);
                    };
                    self.send_parcel(m, conn, stream, Parcel::Blob(bytes));
                }
                self.set_timer(m, id, WALL + ANSWER_SLACK);
            }
            Ok(Step::Receive(outcome)) => {
                offered.expected = outcome.outputs.iter().map(|o| (o.size, o.digest)).collect();
                offered.outcome = Some(*outcome);
                self.set_timer(m, id, BLOB_TIME);
                self.complete(m, id);
            }
        }
    }

    /// The content of a closure's file, if it is still what the entry says.
    fn read_file(&self, m: usize, id: u32, entry: &Entry) -> Option<Vec<u8>> {
        let Node::File(file) = &entry.node else { return None };
        let request = &self.machines[m].requests[&id];
        let now = |h: &usize| header(*h, self.machines[m].headers[*h]);
        let is_header = |h: &usize| entry.path.as_bytes() == format!("/w/inc/h{h}.h").as_bytes();
        let header = request.versions.iter().map(|(h, _)| h).find(|h| is_header(h));
        let bytes = header.map_or_else(|| format!("source of {}", request.name).into_bytes(), now);
        (Digest::of(&bytes) == file.digest).then_some(bytes)
    }

    fn output_arrives(&mut self, m: usize, id: u32, parcel: Parcel) {
        let (Parcel::Frame(bytes) | Parcel::Blob(bytes)) = parcel else { return };
        let request = self.machines[m].requests.get_mut(&id).expect("looked at above");
        let offered = request.offered.as_mut().expect("looked at above");
        let Some((size, digest)) = offered.expected.pop_front() else { return };
        if bytes.len() as u64 != size || Digest::of(&bytes) != digest {
            return self.violated(m, id, "an output's bytes");
        }
        offered.got.push(bytes);
        self.set_timer(m, id, BLOB_TIME);
        self.complete(m, id);
    }

    /// If everything has come: is it a result?
    fn complete(&mut self, m: usize, id: u32) {
        let request = &self.machines[m].requests[&id];
        let Some(offered) = request.offered.as_ref().filter(|o| o.expected.is_empty()) else { return };
        let Some(outcome) = &offered.outcome else { return };
        if outcome.exit != Exit::Code(0) {
            return self.end_local(m, id, Reason::CompileError);
        }
        let fresh = request.versions.iter().all(|(h, version)| self.machines[m].headers[*h] == *version);
        if !fresh {
            return self.end_local(m, id, Reason::Changing);
        }
        let wanted = object_path(&request.name);
        let Some(at) = outcome.outputs.iter().position(|o| o.path == wanted) else {
            return self.violated(m, id, "no object");
        };
        let paths: Vec<AbsPath> = outcome.outputs.iter().map(|o| o.path.clone()).collect();
        let object = Digest::of(&offered.got[at]);
        let dirs = job(&request.name, request.toolchain).output_dirs;
        self.see(Seen::Outputs { paths: &paths, dirs: &dirs });
        self.end(m, id, End::Remote { object });
    }

    fn violated(&mut self, m: usize, id: u32, _what: &str) {
        self.note("violation", [m, usize::try_from(id).expect("few"), 0]);
        self.end_local(m, id, Reason::Discrepancy);
    }

    fn failed(&mut self, m: usize, id: u32, failure: Failure) {
        self.take_back(m, id);
        let Some(request) = self.machines[m].requests.get_mut(&id) else { return };
        let what = if failure == Failure::Lost { "lost" } else { "refused" };
        let next = retry::next(failure, request.attempt);
        self.note(what, [m, usize::try_from(id).expect("few"), 0]);
        match next {
            Next::Here(reason) => self.end_local(m, id, reason),
            Next::Elsewhere => {
                let wait = self.machines[m].requests.get(&id).map_or(0, |r| r.asked + WAIT_MAX);
                self.set_timer(m, id, wait.saturating_sub(self.clock.now));
                self.choose(m, id);
            }
        }
    }

    /// Takes an offer back: the stream is reset, the peer counts as failed.
    fn take_back(&mut self, m: usize, id: u32) {
        let Some(request) = self.machines[m].requests.get_mut(&id) else { return };
        let Some(offered) = request.offered.take() else { return };
        self.machines[m].by_stream.remove(&(offered.conn, offered.stream));
        let peer = self.net.conns[offered.conn].ends.into_iter().find(|e| *e != m).expect("two ends");
        let peer = self.machines[peer].id;
        if let Some(request) = self.machines[m].requests.get_mut(&id) {
            request.failed.push(peer);
        }
        if let Some(end) = self.machines[m].ends.get_mut(&offered.conn) {
            end.in_flight -= 1;
            self.send_parcel(m, offered.conn, offered.stream, Parcel::Reset);
        }
    }

    pub(crate) fn request_late(&mut self, m: usize, id: u32, step: u32) {
        let Some(request) = self.machines[m].requests.get(&id).filter(|r| r.step == step) else { return };
        let offered = request.offered.is_some();
        self.note("late", [m, usize::try_from(id).expect("few"), 0]);
        if offered {
            self.failed(m, id, Failure::Lost);
        } else {
            self.end_local(m, id, Reason::PeersBusy);
        }
    }

    /// A connection is gone, and with it all offers on it.
    pub(crate) fn requests_lost(&mut self, m: usize, conn: ConnId) {
        let lost: Vec<u32> = self.machines[m].by_stream.range((conn, 0)..(conn + 1, 0)).map(|(_, id)| *id).collect();
        for id in lost {
            self.failed(m, id, Failure::Lost);
        }
    }

    /// The user interrupts a build.
    pub(crate) fn cancel_one(&mut self, m: usize) {
        let under_way: Vec<u32> = self.machines[m].requests.keys().copied().collect();
        if !under_way.is_empty() {
            let id = under_way[self.clock.random.index(under_way.len())];
            self.end(m, id, End::Cancelled);
        }
    }

    fn end_local(&mut self, m: usize, id: u32, reason: Reason) {
        self.machines[m].own += 1;
        let wait = self.clock.random.between(100 * MS, self.compile_max);
        self.timer(m, wait, Timer::LocalEnds);
        self.end(m, id, End::Local(reason));
    }

    fn end(&mut self, m: usize, id: u32, end: End) {
        let step = match end {
            End::Remote { .. } => "done remotely",
            End::Local(_) => "done here",
            End::Cancelled => "cancelled",
        };
        self.note(step, [m, usize::try_from(id).expect("few"), 0]);
        self.take_back(m, id);
        self.machines[m].requests.remove(&id);
        self.see(Seen::Ended { request: id, end });
        self.load_changed(m);
    }
}

pub(crate) fn object_path(name: &str) -> AbsPath {
    AbsPath::new(format!("/w/out/{name}.o")).expect("normal")
}
