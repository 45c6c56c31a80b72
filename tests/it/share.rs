//! Inputs from one provider to another, with the client's grant: each leaves the client once.

use crate::{
    desk::{Desk, Lent, Streams, Unit, desk, run},
    env::{Agent, until},
};
use mesh::net::{
    channel::Sender,
    endpoint::{Arrivals, Endpoint, EndpointConfig, Link},
    identity::Identity,
    stream,
    tls::{Expect, Gate},
};
use mesh_proto::{
    closure::{Entry, File, Node},
    digest::Digest,
    exchange::share::{Fetch, Grant, GrantKey},
    frame,
    hello::Hello,
    limits,
    membership::MeshId,
    message::{Control, StreamHead},
    naming::{NameBatch, NumberSet},
    path::AbsPath,
    peer::PeerId,
    toolchain::Fingerprint,
    version,
};
use quinn::{RecvStream, SendStream};
use rustix::process::Signal;
use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

/// Every answer comes within this time.
const SOON: Duration = Duration::from_secs(5);

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

/// A member that speaks the protocol itself.
pub(crate) struct Member {
    id: PeerId,
    pub(crate) link: Link,
    pub(crate) control: SendStream,
    /// The compilers that the agent which it greeted lends.
    pub(crate) compilers: Vec<Fingerprint>,
    said: RecvStream,
    _rest: (Endpoint, Arrivals),
}

impl Member {
    /// Joins the provider's mesh as an agent, then takes the agent's place.
    pub(crate) fn admitted(desk: &Desk, name: &str) -> Arc<Identity> {
        let mut agent = Agent::running(&desk.ground, name);
        desk.provider.pair_with(&agent);
        agent.stop();
        Arc::new(Identity::open(&agent.home.join("state")).unwrap())
    }

    /// Connects to an agent and greets it, with the very records that the agent has.
    pub(crate) async fn connect(agent: &Agent, name: &str, identity: &Arc<Identity>) -> Self {
        let peer = Identity::open(&agent.home.join("state")).unwrap().peer();
        let gate = Arc::new(Gate::default());
        gate.allow([peer].into());
        let config = EndpointConfig { ip: Some(Ipv4Addr::LOCALHOST.into()), port: 0 };
        let (endpoint, arrivals) = Endpoint::bind(&config, identity.clone(), gate).unwrap();
        let address = agent.address().parse().unwrap();
        let link = endpoint.connect(address, Expect::Peer(peer)).await.unwrap();
        let (mut control, mut said) = link.conn.open_bi().await.unwrap();
        let mut hello = Hello {
            proto_min: version::OLDEST as u32,
            proto_max: version::NEWEST as u32,
            agent_version: String::new(),
            mesh: MeshId(Digest([0; 32])),
            set_digest: Digest([0; 32]),
            role: None,
            name: name.into(),
            host_tag: [0; 16],
            slots: 0,
            toolchains: vec![],
            addresses: vec![],
            now_s: 0,
        };
        // Its length opens the stream; what it says is known when the other has spoken.
        let length = frame::encode(&hello, limits::HELLO_BYTES_MAX).unwrap();
        control.write_all(&length[..frame::HEADER_BYTES]).await.unwrap();
        let theirs: Hello = stream::recv(&mut said, limits::HELLO_BYTES_MAX, SOON).await.unwrap();
        (hello.mesh, hello.set_digest) = (theirs.mesh, theirs.set_digest);
        let compilers = theirs.toolchains;
        let bytes = frame::encode(&hello, limits::HELLO_BYTES_MAX).unwrap();
        control.write_all(&bytes[frame::HEADER_BYTES..]).await.unwrap();
        // What it says next it says to a link that stands.
        let _: Control = stream::recv(&mut said, limits::WELCOME_BYTES_MAX, SOON).await.unwrap();
        Self { id: identity.peer(), link, control, compilers, said, _rest: (endpoint, arrivals) }
    }

    /// What it is told next.
    pub(crate) async fn hears(&mut self) -> Control {
        stream::recv(&mut self.said, limits::WELCOME_BYTES_MAX, SOON).await.unwrap()
    }

    async fn names(&self, content: &[u8]) -> Sender {
        let (digest, size) = (Digest::of(content), content.len() as u64);
        let file = File { digest, size, mtime_s: 0, mtime_ns: 0, executable: false, inode: 0 };
        let entries = vec![Entry { path: AbsPath::new("/a").unwrap(), node: Node::File(file) }];
        let mut names = self.link.open_uni().await.unwrap();
        names
            .send(&NameBatch { first: 0, entries, gone: NumberSet::default() }, limits::FRAME_BYTES_MAX)
            .await
            .unwrap();
        names
    }

    async fn grants(&mut self, to: PeerId, key: GrantKey) {
        let grant = Control::Grant(Grant { to, key });
        stream::send(&mut self.control, &grant, limits::WELCOME_BYTES_MAX).await.unwrap();
    }

    /// What the provider gives of a client's, if anything.
    async fn fetches(&self, client: PeerId, key: GrantKey, content: &[u8]) -> Option<Vec<u8>> {
        let digest = Digest::of(content);
        let (mut out, mut inp) = self.link.open_bi().await.unwrap();
        let head = StreamHead::Fetch(Box::new(Fetch { client, key, digests: vec![digest] }));
        out.send(&head, limits::FRAME_BYTES_MAX).await.unwrap();
        let indexes: NumberSet = inp.receive(limits::FRAME_BYTES_MAX, SOON).await.ok()?;
        assert_eq!(indexes.numbers(), Ok(vec![0]));
        Some(inp.receive_packed(content.len() as u64).await.unwrap().unpack(&digest).unwrap())
    }
}

/// One condition less each time: the peer, its key, the name, the client's connection.
#[test]
fn a_provider_gives_only_what_this_client_named_and_only_to_whom_it_granted() {
    let Some(mut desk) = desk() else { return };
    desk.spoilt = true;
    let (named, unnamed) = (b"#define NAMED 1\n", b"#define UNNAMED 1\n");
    desk.write("named.h", named);
    desk.write("unnamed.h", unnamed);
    desk.write("x.c", "#include \"named.h\"\n#include \"unnamed.h\"\nint x = NAMED + UNNAMED;\n");
    // Now the provider has both.
    desk.same_there("gcc -c x.c -o x.o");
    let [client, asker, thief] = ["clerk", "asker", "thief"].map(|name| Member::admitted(&desk, name));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (key, other) = (GrantKey([7; 32]), GrantKey([8; 32]));
        let mut client = Member::connect(&desk.provider, "clerk", &client).await;
        let asker = Member::connect(&desk.provider, "asker", &asker).await;
        let thief = Member::connect(&desk.provider, "thief", &thief).await;
        let names = client.names(named).await;
        assert_eq!(asker.fetches(client.id, key, named).await, None, "nothing was granted");
        client.grants(asker.id, key).await;
        client.grants(thief.id, other).await;
        assert_eq!(asker.fetches(client.id, key, named).await.as_deref(), Some(&named[..]));
        assert_eq!(asker.fetches(client.id, other, named).await, None, "a key that is another's");
        assert_eq!(thief.fetches(client.id, key, named).await, None, "a stolen key");
        assert_eq!(asker.fetches(client.id, key, unnamed).await, None, "never named by this client");
        assert_eq!(asker.fetches(thief.id, key, named).await, None, "another client's");
        assert_eq!(asker.fetches(client.id, key, named).await.as_deref(), Some(&named[..]));
        let id = client.id;
        client.link.close(0, "");
        drop((names, client));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(asker.fetches(id, key, named).await, None, "the grant ends with its connection");
    });
}
