//! Machines that break the rules: members as providers and as clients, and strangers.

use crate::{
    checkers::Seen,
    client::{job, object_path},
    link::{CONTROL, ConnId, MS, Parcel, Stream},
    peers::{Phase, message},
    provider::outcome,
    random::Random,
    world::{Key, Nature, Timer, World, toolchain},
};
use mesh_proto::{
    closure::{Entry, File, Node},
    digest::Digest,
    job::Exit,
    limits,
    membership::{Admit, Body, Record, Role, Sign},
    message::{Answer, Control, Load, Offer, StreamHead},
    naming::{NameBatch, NumberSet},
    path::AbsPath,
};

/// Links in a liar's chain of admissions, more than a member may be away from the founder.
const CHAIN: u8 = 90;

/// What a lying provider does to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    Silence,
    Garbage,
    Reset,
    AsksForStrangers,
    AsksTooOften,
    DoneAtOnce,
    OutsideOutput,
    DeeperOutput,
    WrongBytes,
    ShortBytes,
    SamePathTwice,
    NoObject,
    HugeOutput,
    ManyOutputs,
    ExitOne,
    NeverTheBytes,
    TwoEnds,
}

impl Lie {
    const ALL: [Self; 17] = [
        Self::Silence,
        Self::Garbage,
        Self::Reset,
        Self::AsksForStrangers,
        Self::AsksTooOften,
        Self::DoneAtOnce,
        Self::OutsideOutput,
        Self::DeeperOutput,
        Self::WrongBytes,
        Self::ShortBytes,
        Self::SamePathTwice,
        Self::NoObject,
        Self::HugeOutput,
        Self::ManyOutputs,
        Self::ExitOne,
        Self::NeverTheBytes,
        Self::TwoEnds,
    ];

    /// A liar who always lies is soon known.
    pub(crate) fn pick(random: &mut Random) -> Option<Self> {
        let lie = Self::ALL[random.index(Self::ALL.len())];
        random.chance(70).then_some(lie)
    }
}

impl World {
    /// Lies that need no compile. True if nothing more is to be done for the job.
    pub(crate) fn lies_at_once(&mut self, m: usize, key: (ConnId, Stream), lie: Lie) -> bool {
        let (conn, stream) = key;
        match lie {
            Lie::Silence => {}
            Lie::Garbage => {
                let bytes = (0..self.clock.random.below(40)).map(|n| n.to_le_bytes()[0]).collect();
                self.send_parcel(m, conn, stream, Parcel::Frame(bytes));
            }
            Lie::Reset => {
                self.send_parcel(m, conn, stream, Parcel::Reset);
                self.drop_job(m, key);
            }
            Lie::AsksForStrangers => {
                let strangers = NumberSet::new(&mut vec![0, 1, 2, 100_000]);
                self.send(m, conn, stream, &Answer::Missing(strangers));
            }
            Lie::AsksTooOften => {
                for _ in 0..=limits::MISSING_ROUNDS_MAX {
                    self.send(m, conn, stream, &Answer::Missing(NumberSet::default()));
                }
            }
            Lie::DoneAtOnce => self.send(m, conn, stream, &Answer::Done(Box::new(outcome(&[])))),
            _ => return false,
        }
        self.note("lies", [m, conn, lie as usize]);
        true
    }

    /// Lies about what a compile made.
    pub(crate) fn deliver_lie(&mut self, m: usize, key: (ConnId, Stream), lie: Lie, mut made: Vec<(AbsPath, Vec<u8>)>) {
        self.note("lies", [m, key.0, lie as usize]);
        let mut said = outcome(&made);
        match lie {
            // In these the bytes are right, so that nothing else gives the lie away.
            Lie::OutsideOutput => {
                said.outputs.insert(0, renamed(&said.outputs[0], "/etc/passwd"));
                made.insert(0, made[0].clone());
            }
            Lie::DeeperOutput => {
                said.outputs.push(renamed(&said.outputs[0], "/w/out/x/y.o"));
                made.push(made[0].clone());
            }
            Lie::WrongBytes => made[1].1[0] ^= 1,
            Lie::ShortBytes => drop(made[1].1.pop()),
            Lie::SamePathTwice => {
                said.outputs.push(said.outputs[1].clone());
                made.push(made[1].clone());
            }
            Lie::NoObject => {
                made.pop();
                said.outputs.pop();
            }
            Lie::HugeOutput => said.outputs[1].size = limits::BLOB_BYTES_MAX + 1,
            Lie::ManyOutputs => {
                let many = 0..=limits::JOB_OUTPUTS_MAX;
                said.outputs = many.map(|n| renamed(&said.outputs[0], &format!("/w/out/{n:04}"))).collect();
            }
            Lie::ExitOne => said.exit = Exit::Code(1),
            Lie::NeverTheBytes => made.clear(),
            _ => {}
        }
        self.send(m, key.0, key.1, &Answer::Done(Box::new(said.clone())));
        for (_, bytes) in made {
            self.send_parcel(m, key.0, key.1, Parcel::Blob(bytes));
        }
        if lie == Lie::TwoEnds {
            self.send(m, key.0, key.1, &Answer::Done(Box::new(said)));
        }
    }

    /// A liar thinks of something, every now and then.
    pub(crate) fn lie(&mut self, m: usize) {
        if self.clock.now > self.lies_until {
            return;
        }
        let pause = self.clock.random.between(500 * MS, 4000 * MS);
        self.timer(m, pause, Timer::Lie);
        if self.machines[m].nature == Nature::Stranger {
            return self.knock(m);
        }
        let stands = |(conn, end): (&ConnId, &crate::peers::LinkEnd)| (end.phase == Phase::Stands).then_some(*conn);
        let conns: Vec<ConnId> = self.machines[m].ends.iter().filter_map(stands).collect();
        if conns.is_empty() {
            return;
        }
        self.see(Seen::Trouble);
        let conn = conns[self.clock.random.index(conns.len())];
        match self.clock.random.below(14) {
            0 => self.offer_lie(m, conn, |offer| offer.closure = NumberSet::new(&mut vec![7_000, 9_000])),
            1 => self.offer_lie(m, conn, |offer| offer.batches += 1_000),
            2 => self.offer_lie(m, conn, |offer| offer.job.argv.clear()),
            3 => self.offer_lie(m, conn, |offer| offer.job.cwd = b"relative".to_vec()),
            4 => self.offer_lie(m, conn, |offer| offer.job.toolchain = toolchain(99)),
            5 => {
                for _ in 0..40 {
                    self.offer_lie(m, conn, |_| {});
                }
            }
            6 => {
                let stream = self.offer_new_file(m, conn, 20);
                if self.clock.random.chance(50) {
                    self.send_parcel(m, conn, stream, Parcel::Reset);
                }
            }
            7 => drop(self.offer_new_file(m, conn, limits::BLOB_BYTES_MAX + 1)),
            8 => {
                let names = self.names_stream(m, conn);
                self.send(m, conn, names, &NameBatch { first: 1_000_000, entries: vec![], gone: NumberSet::default() });
            }
            9 => self.send_parcel(m, conn, CONTROL, Parcel::Frame(vec![3, 0, 0, 0, 250, 1, 2])),
            10 => self.send_forgeries(m, conn),
            13 => self.steal(m, conn),
            11 if self.lies_in_chains => self.send_chain(m, conn),
            _ => {
                let boast = Load { slots: u16::MAX, credits: u16::MAX, memory_mib: u32::MAX, ..Load::default() };
                self.send(m, conn, CONTROL, &Control::Load(boast));
            }
        }
        self.note("lied", [m, conn, 0]);
    }

    fn offer_lie(&mut self, m: usize, conn: ConnId, change: impl FnOnce(&mut Offer)) {
        let side = self.machines[m].ends[&conn].side;
        let namer = &self.machines[m].ends[&conn].namer;
        let (batches, mut numbers) = (namer.batches(), (0..namer.count().min(3)).collect());
        let job = job("lie.c", toolchain(0));
        let mut offer = Offer {
            job,
            batches,
            closure: NumberSet::new(&mut numbers),
            sources: vec![],
            memory_kib: 0,
            signed: false,
        };
        change(&mut offer);
        let stream = self.net.open_stream(conn, side);
        self.send(m, conn, stream, &StreamHead::Job(Box::new(offer)));
    }

    /// Offers a job with a file that the provider cannot have, to be lied about when it asks.
    fn offer_new_file(&mut self, m: usize, conn: ConnId, size: u64) -> Stream {
        let digest = Digest(std::array::from_fn(|_| self.clock.random.next().to_le_bytes()[0]));
        let file = File { digest, size, mtime_s: 0, mtime_ns: 0, executable: false, inode: 0 };
        let entry = Entry { path: object_path("lie"), node: Node::File(file) };
        let key = 2_000_000 - u32::try_from(self.step % 1_000_000).expect("small");
        let end = self.machines[m].ends.get_mut(&conn).expect("looked at above");
        let (side, number) = (end.side, end.namer.number(key, || entry).expect("few names"));
        let (news, batches) = (end.namer.take_batches(), end.namer.batches());
        let names_stream = self.names_stream(m, conn);
        for batch in news {
            self.send(m, conn, names_stream, &batch);
        }
        let closure = NumberSet::new(&mut vec![number]);
        let offer =
            Offer { job: job("lie.c", toolchain(0)), batches, closure, sources: vec![], memory_kib: 0, signed: false };
        let stream = self.net.open_stream(conn, side);
        self.send(m, conn, stream, &StreamHead::Job(Box::new(offer)));
        stream
    }

    /// A liar's own offer was answered: what is asked for is not what is sent, or never comes.
    pub(crate) fn liars_answer(&mut self, m: usize, conn: ConnId, stream: Stream, parcel: &Parcel) {
        if self.machines[m].nature == Nature::Honest {
            return;
        }
        if let Some(Answer::Missing(_)) = message(parcel, limits::FRAME_BYTES_MAX) {
            match self.clock.random.below(3) {
                0 => self.send_parcel(m, conn, stream, Parcel::Blob(vec![0; 20])),
                1 => self.send_parcel(m, conn, stream, Parcel::Blob(vec![0; 19])),
                _ => {}
            }
        }
    }

    /// Records that nobody may believe: a stranger's admission, signed with a wrong key or by one who is no owner; and a
    /// chain of owners that is as long as a liar likes.
    fn send_forgeries(&mut self, m: usize, conn: ConnId) {
        let Some(mesh) = self.machines[m].set.as_ref().map(|s| s.mesh()) else { return };
        let (me, strangers) = (self.machines[m].key, self.strangers());
        let body = |subject: Key, issuer: Key| Admit {
            mesh,
            subject: subject.public_key(),
            name: "stranger".into(),
            role: Role::Owner,
            not_after: None,
            issuer: issuer.public_key().peer(),
            issued: 1,
        };
        let mut records = Vec::new();
        for stranger in strangers {
            let key = self.machines[stranger].key;
            if self.machines[m].role() != Some(Role::Owner) {
                records.extend(Record::sign(&Body::Admit(body(key, me)), &me));
            }
            // Signed by nobody's key, in the founder's name.
            let founder = self.machines[0].key;
            let forged = Forger { name: founder, pen: Key(200) };
            records.extend(Record::sign(&Body::Admit(body(key, founder)), &forged));
        }
        self.send(m, conn, CONTROL, &Control::Records(records));
    }

    /// An owner admits a machine that does not exist, which admits another one, and so on; in parts.
    fn send_chain(&mut self, m: usize, conn: ConnId) {
        let Some(mesh) = self.machines[m].set.as_ref().map(|s| s.mesh()) else { return };
        let mut issuer = self.machines[m].key;
        if self.machines[m].role() != Some(Role::Owner) {
            return;
        }
        let mut records = Vec::new();
        for n in 0..CHAIN {
            let subject = Key(100 + n);
            let (role, name, not_after) = (Role::Owner, format!("chain {n}"), None);
            let (subject_key, issuer_id) = (subject.public_key(), issuer.public_key().peer());
            let admit = Admit { mesh, subject: subject_key, name, role, not_after, issuer: issuer_id, issued: 1 };
            records.extend(Record::sign(&Body::Admit(admit), &issuer));
            issuer = subject;
        }
        self.note("chain", [m, conn, 0]);
        for part in records.chunks(limits::CHAIN_DEPTH_MAX) {
            self.send(m, conn, CONTROL, &Control::Records(part.to_vec()));
        }
    }

    fn strangers(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|m| self.machines[*m].nature == Nature::Stranger).collect()
    }

    /// A stranger dials everybody it can see.
    fn knock(&mut self, m: usize) {
        let targets: Vec<_> = self.owners.iter().filter(|(_, o)| **o != m).map(|(a, _)| *a).collect();
        let now = self.local_ms(m);
        for addr in targets {
            self.machines[m].dialer.heard(addr, None, false, now);
        }
        self.wake_dialer(m);
    }
}

/// Claims one name and signs with another's pen.
struct Forger {
    name: Key,
    pen: Key,
}

impl Sign for Forger {
    fn public_key(&self) -> mesh_proto::membership::PublicKey {
        self.name.public_key()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pen.sign(message)
    }
}

fn renamed(output: &mesh_proto::job::Output, path: &str) -> mesh_proto::job::Output {
    mesh_proto::job::Output { path: AbsPath::new(path).expect("normal"), ..output.clone() }
}
