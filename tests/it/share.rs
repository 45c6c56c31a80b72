//! Inputs from one provider to another, with the client's grant: each leaves the client once.

use crate::{
    desk::{Desk, Lent, Streams, Unit, desk, run},
    env::{Agent, until},
};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Bytes of the header, of which three quarters are left when it is packed.
const HEADER_BYTES: usize = 2 << 20;

/// A desk with a second provider, linked with both.
struct Office {
    attic: Agent,
    desk: Lent,
}

impl Office {
    fn new() -> Option<Self> {
        let mut desk = desk()?;
        // Its mesh has a member more from now on.
        desk.spoilt = true;
        let mut attic = Agent::new(&desk.ground, "attic");
        attic.start(&desk.ground);
        attic.answers();
        desk.provider.pair_with(&attic);
        let added = desk.client.mesh(&desk.ground, &["peers", "add", &attic.address()]);
        assert_eq!(added.code, Some(0), "{}", added.err());
        let sees = |agent: &Agent, name: &str| {
            let peers = agent.snapshot().peers;
            peers.iter().any(|p| p.name == name && p.connected && !p.compilers.is_empty())
        };
        until("all are linked", || {
            let all = sees(&desk.client, "tower") && sees(&desk.client, "attic") && sees(&attic, "tower");
            all.then_some(())
        });
        Some(Self { attic, desk })
    }

    /// A unit that includes the header, for one provider.
    fn unit(&self, name: &str, header: &str, provider: &str) -> Unit {
        self.desk.write(format!("{name}.c"), format!("#include \"{header}\"\nint {name} = HEADER;\n"));
        self.desk.line(&format!("gcc -c {name}.c -o {name}.o")).env("MESH_PREFER", provider)
    }

    /// A header that does not shrink much.
    fn header(&self, name: &str) {
        let mut noise = vec![0; HEADER_BYTES];
        blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut noise);
        // Characters that end no comment: six bits of eight.
        noise.iter_mut().for_each(|b| *b = b'0' + (*b & 63));
        self.desk.write(name, [b"#define HEADER 1\n/*", &noise[..], b"*/\n"].concat());
    }

    /// Compiles and says how many bytes of inputs the client sent for it, by its own count.
    fn compile(&self, unit: &Unit, provider: &Agent) -> usize {
        let (sent, served) = (sent(&self.desk), provider.snapshot().counters.served);
        run(self.desk.launcher(unit), Streams::Apart).good();
        until("it was compiled there", || (provider.snapshot().counters.served == served + 1).then_some(()));
        crate::share::sent(&self.desk) - sent
    }
}

/// Bytes of inputs that the client has sent.
fn sent(desk: &Desk) -> usize {
    let log = desk.client.log();
    let lines = log.lines().filter(|line| line.contains(" was sent "));
    lines.filter_map(|line| line.split(" inputs in ").nth(1)?.split(' ').next()?.parse::<usize>().ok()).sum()
}

#[test]
fn a_header_leaves_the_client_once_for_two_providers() {
    let Some(office) = Office::new() else { return };
    let least = HEADER_BYTES * 7 / 10;
    office.header("once.h");
    let first = office.compile(&office.unit("a", "once.h", "tower"), &office.desk.provider);
    assert!(first > least, "{first} bytes");
    let second = office.compile(&office.unit("b", "once.h", "attic"), &office.attic);
    assert!(second < 1000, "the second provider had {second} bytes from the client");
    // At once: the second one asks while the first one is being sent it.
    office.header("both.h");
    let units = [office.unit("c", "both.h", "tower"), office.unit("d", "both.h", "attic")];
    let before = sent(&office.desk);
    let children = units.map(|unit| office.desk.launcher(&unit).spawn().unwrap());
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let both = sent(&office.desk) - before;
    assert!(both > least && both < first + first / 4, "{both} bytes for both");
    // The same bytes as by the compiler itself, wherever the inputs came from.
    let made = office.desk.read("d.o");
    run(office.desk.bare(&office.unit("d", "both.h", "attic")), Streams::Apart).good();
    assert_eq!(office.desk.read("d.o"), made);
}

/// And so it would be without any sharing: the header leaves the client twice.
#[test]
fn a_source_that_says_nothing_costs_a_moment_and_then_the_client_is_asked() {
    let Some(office) = Office::new() else { return };
    office.header("silent.h");
    let first = office.compile(&office.unit("a", "silent.h", "tower"), &office.desk.provider);
    office.desk.provider.signal(Signal::STOP);
    let began = Instant::now();
    let second = office.compile(&office.unit("b", "silent.h", "attic"), &office.attic);
    office.desk.provider.signal(Signal::CONT);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(second > first * 3 / 4, "{second} bytes, the first time {first}");
}
