//! The network between simulated machines: connections with streams, delays, partitions, silence.
//!
//! It promises what QUIC promises and not more: a stream keeps its order and loses nothing while the connection lives;
//! between streams anything may overtake anything; a peer that vanishes is missed only after the idle time; what is sent
//! over a cut is delivered after it heals, if both ends still believe in the connection by then.

use crate::world::{Clock, Event};
use std::collections::{BTreeMap, BTreeSet};

/// Virtual time, microseconds.
pub(crate) type Micros = u64;
pub(crate) const MS: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// A silent peer is given up after this long.
pub(crate) const IDLE: Micros = 10 * SECOND;
/// A handshake takes no longer.
pub(crate) const HANDSHAKE_MAX: Micros = 3 * SECOND;

/// Numbers a connection, over all machines and for ever.
pub(crate) type ConnId = usize;
/// Numbers a stream of a connection.
pub(crate) type Stream = u32;
/// The stream of hellos, records and loads.
pub(crate) const CONTROL: Stream = 0;
/// The streams of names: one each way.
pub(crate) const NAMES: [Stream; 2] = [1, 2];
/// Streams from here on hold jobs; the lowest bit says which side opened it.
pub(crate) const JOBS: Stream = 4;

/// Something on a stream.
#[derive(Debug, Clone)]
pub(crate) enum Parcel {
    /// A frame, header included.
    Frame(Vec<u8>),
    /// Raw bytes.
    Blob(Vec<u8>),
    /// The stream is given up.
    Reset,
}

/// One way of one stream.
#[derive(Debug, Default)]
struct Flow {
    sent: u32,
    expected: u32,
    early: BTreeMap<u32, Parcel>,
}

/// A connection. End 0 is the one that dialled.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) ends: [usize; 2],
    /// What each end believes; a crashed machine's end is not open.
    pub(crate) open: [bool; 2],
    next_stream: [u32; 2],
    /// By receiving side and stream.
    flows: BTreeMap<(usize, Stream), Flow>,
    /// What arrived at a cut: receiving side, stream, number, parcel.
    held: Vec<(usize, Stream, u32, Parcel)>,
}

/// How fast the network is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) delay_min: Micros,
    pub(crate) delay_max: Micros,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) conns: Vec<Conn>,
    pace: Pace,
    /// Machines whose messages take this much longer.
    pub(crate) far: BTreeMap<usize, Micros>,
    cut: BTreeSet<(usize, usize)>,
}

impl Net {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { conns: Vec::new(), pace, far: BTreeMap::new(), cut: BTreeSet::new() }
    }

    pub(crate) fn reachable(&self, a: usize, b: usize) -> bool {
        !self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// How long something takes from one machine to another.
    pub(crate) fn delay(&self, clock: &mut Clock, a: usize, b: usize) -> Micros {
        let far = |m| self.far.get(&m).copied().unwrap_or(0);
        clock.random.between(self.pace.delay_min, self.pace.delay_max) + far(a) + far(b)
    }

    /// A new connection, whose handshake is over.
    pub(crate) fn connect(&mut self, dialler: usize, other: usize) -> ConnId {
        self.conns.push(Conn {
            ends: [dialler, other],
            open: [true; 2],
            next_stream: [0; 2],
            flows: BTreeMap::new(),
            held: Vec::new(),
        });
        self.conns.len() - 1
    }

    /// A new job's stream, opened by `side`.
    pub(crate) fn open_stream(&mut self, conn: ConnId, side: usize) -> Stream {
        let count = &mut self.conns[conn].next_stream[side];
        *count += 1;
        JOBS + 2 * *count + u32::try_from(side).expect("0 or 1")
    }

    /// Sends something from `side`.
    pub(crate) fn send(&mut self, clock: &mut Clock, conn: ConnId, side: usize, stream: Stream, parcel: Parcel) {
        let [from, to] = [self.conns[conn].ends[side], self.conns[conn].ends[1 - side]];
        let delay = self.delay(clock, from, to);
        let flow = self.conns[conn].flows.entry((1 - side, stream)).or_default();
        let number = flow.sent;
        flow.sent += 1;
        clock.after(delay, Event::Arrives { conn, side: 1 - side, stream, number, parcel });
    }

    /// Something has come as far as `side`: what can now be read there, in order.
    pub(crate) fn arrives(
        &mut self,
        conn: ConnId,
        side: usize,
        stream: Stream,
        number: u32,
        parcel: Parcel,
    ) -> Vec<Parcel> {
        let [a, b] = self.conns[conn].ends;
        let reachable = self.reachable(a, b);
        let conn = &mut self.conns[conn];
        if !conn.open[side] {
            return Vec::new();
        }
        if !reachable {
            conn.held.push((side, stream, number, parcel));
            return Vec::new();
        }
        let flow = conn.flows.entry((side, stream)).or_default();
        if matches!(parcel, Parcel::Reset) {
            // A reset does not wait for what was sent before it.
            flow.early.clear();
            return vec![Parcel::Reset];
        }
        flow.early.insert(number, parcel);
        let mut out = Vec::new();
        while let Some(next) = flow.early.remove(&flow.expected) {
            flow.expected += 1;
            out.push(next);
        }
        out
    }

    /// One end is no more; the other hears of it now, if it can, and misses it later otherwise.
    pub(crate) fn shut(&mut self, clock: &mut Clock, conn: ConnId, side: usize, says_so: bool) {
        let c = &mut self.conns[conn];
        if !c.open[side] {
            return;
        }
        c.open[side] = false;
        c.held.clear();
        let [from, to] = [c.ends[side], c.ends[1 - side]];
        if !c.open[1 - side] {
            c.flows.clear();
            return;
        }
        if says_so && self.reachable(from, to) {
            let delay = self.delay(clock, from, to);
            clock.after(delay, Event::ShutHeard { conn, side: 1 - side });
        }
        // The last sign of life may be as old as the pause between two of them.
        let idle = clock.random.between(IDLE * 7 / 10, IDLE);
        clock.after(idle, Event::Idle { conn, side: 1 - side });
    }

    /// Separates the machines of `island` from the others.
    pub(crate) fn cut(&mut self, clock: &mut Clock, island: &BTreeSet<usize>, machines: usize) {
        for a in 0..machines {
            for b in a + 1..machines {
                if island.contains(&a) != island.contains(&b) {
                    self.cut.insert((a, b));
                }
            }
        }
        for (id, conn) in self.conns.iter().enumerate() {
            let apart = self.cut.contains(&(conn.ends[0].min(conn.ends[1]), conn.ends[0].max(conn.ends[1])));
            for side in [0, 1] {
                if apart && conn.open[side] {
                    let idle = clock.random.between(IDLE * 7 / 10, IDLE);
                    clock.after(idle, Event::Idle { conn: id, side });
                }
            }
        }
    }

    /// Everybody reaches everybody again, and what was held goes on.
    pub(crate) fn heal(&mut self, clock: &mut Clock) {
        self.cut.clear();
        for id in 0..self.conns.len() {
            let ends = self.conns[id].ends;
            for (side, stream, number, parcel) in std::mem::take(&mut self.conns[id].held) {
                let delay = self.delay(clock, ends[1 - side], ends[side]);
                clock.after(delay, Event::Arrives { conn: id, side, stream, number, parcel });
            }
        }
    }

    /// Whether an end has reason to give its peer up: it is cut off, or the peer's end is gone.
    pub(crate) fn is_silent(&self, conn: ConnId, side: usize) -> bool {
        let c = &self.conns[conn];
        c.open[side] && (!c.open[1 - side] || !self.reachable(c.ends[0], c.ends[1]))
    }
}
