//! Machines on loopback: who gets through the handshake and who does not, frames, blobs, pairing, discovery.

use mesh::net::{
    endpoint::{Arrivals, Endpoint, EndpointConfig, Link, LinkError},
    identity::Identity,
    intro::{Doorkeeper, IntroError, introduce},
    stream::{self, StreamError},
    tls::{Expect, Gate, Protocol},
};
use mesh_proto::{
    digest::Digest,
    hello::close,
    intro::{Answer, Unwelcome},
    limits,
    peer::PeerId,
};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const SOON: Duration = Duration::from_secs(5);

struct Machine {
    endpoint: Endpoint,
    arrivals: Arrivals,
    gate: Arc<Gate>,
    addr: SocketAddr,
}

impl Machine {
    fn new() -> Self {
        let identity = Arc::new(Identity::ephemeral().expect("a key"));
        let gate = Arc::new(Gate::default());
        let config = EndpointConfig { ip: Some(Ipv4Addr::LOCALHOST.into()), port: 0 };
        let (endpoint, arrivals) = Endpoint::bind(&config, identity, gate.clone()).expect("binds");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, endpoint.port()));
        Self { endpoint, arrivals, gate, addr }
    }

    fn id(&self) -> PeerId {
        self.endpoint.identity().peer()
    }

    fn allow(&self, others: &[&Machine]) {
        self.gate.allow(others.iter().map(|m| m.id()).collect());
    }

    async fn arrival(&mut self) -> Link {
        tokio::time::timeout(SOON, self.arrivals.next()).await.expect("in time").expect("a link")
    }
}

fn two() -> (Machine, Machine) {
    let (one, two) = (Machine::new(), Machine::new());
    one.allow(&[&two]);
    two.allow(&[&one]);
    (one, two)
}

/// Waits for the end of a connection that should not live.
async fn end_of(link: &Link) -> LinkError {
    tokio::time::timeout(SOON, link.closed()).await.expect("ends soon")
}

#[tokio::test]
async fn members_meet_and_know_each_other() {
    let (one, mut two) = two();
    let dialled = one.endpoint.connect(two.addr, Expect::Peer(two.id())).await.expect("connects");
    let accepted = two.arrival().await;
    assert_eq!((dialled.peer, accepted.peer), (two.id(), one.id()));
    assert_eq!((dialled.dialled, accepted.dialled), (true, false));
    assert_eq!((dialled.protocol, accepted.protocol), (Protocol::Mesh, Protocol::Mesh));
    assert_eq!(accepted.address(), one.addr);
    // The address alone is enough for a machine whose name is not known.
    let by_address = one.endpoint.connect(two.addr, Expect::AnyMember).await.expect("connects");
    assert_eq!(by_address.peer, two.id());
}

#[tokio::test]
async fn a_machine_that_is_no_member_gets_no_further_than_the_handshake() {
    let (mut one, two) = two();
    let stranger = Machine::new();
    stranger.allow(&[&one, &two]);
    let link = stranger.endpoint.connect(one.addr, Expect::Peer(one.id())).await;
    // TLS 1.3 tells the client of a refused certificate only after its own handshake is done.
    let end = match link {
        Err(error) => error,
        Ok(link) => end_of(&link).await,
    };
    assert_eq!(end, LinkError::Refused(one.addr));
    let dialled = two.endpoint.connect(one.addr, Expect::Peer(one.id())).await.expect("connects");
    assert_eq!(one.arrival().await.peer, two.id(), "the stranger never arrived");
    // Forgotten, it is refused at its next dial.
    dialled.close(0, "");
    one.gate.allow(BTreeSet::new());
    let end = match two.endpoint.connect(one.addr, Expect::Peer(one.id())).await {
        Err(error) => error,
        Ok(link) => end_of(&link).await,
    };
    assert_eq!(end, LinkError::Refused(one.addr));
}

#[tokio::test]
async fn a_stranger_may_introduce_itself_to_a_member_so_often_and_is_heard_for_nothing_else() {
    let (mut one, two) = two();
    let stranger = Machine::new();
    let door = Arc::new(Doorkeeper::default());
    let (listening, heard) = (door.clone(), Arc::new(AtomicUsize::new(0)));
    let count = heard.clone();
    let (one_id, one_addr) = (one.id(), one.addr);
    let serve = tokio::spawn(async move {
        while let Some(link) = one.arrivals.next().await {
            assert_eq!(link.protocol, Protocol::Intro, "nothing but what it came for");
            let count = count.clone();
            listening
                .hear(&link, |records| {
                    assert!(records.is_empty());
                    count.fetch_add(1, Ordering::SeqCst);
                    Answer::Refused(Unwelcome::Unknown)
                })
                .await;
        }
    });
    let (mut refused, mut busy) = (0, 0);
    for _ in 0..20 {
        match introduce(&stranger.endpoint, one_addr, Vec::new()).await {
            Err(IntroError::Unwelcome(Unwelcome::Unknown)) => refused += 1,
            Err(IntroError::Link(LinkError::Closed { code, .. })) if code == u64::from(close::BUSY) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    // Twenty in a moment are a burst, and a few more while it lasted.
    assert!((8..20).contains(&refused) && refused + busy == 20, "{refused} heard, {busy} not");
    assert_eq!(heard.load(Ordering::SeqCst), refused);
    // Who was put out is not heard, and who is in no mesh hears nobody.
    two.gate.revoke(BTreeSet::from([stranger.id()]));
    let out = introduce(&stranger.endpoint, two.addr, Vec::new()).await;
    assert!(matches!(out, Err(IntroError::Link(LinkError::Forgotten(_)))), "{out:?}");
    two.gate.allow(BTreeSet::new());
    let out = introduce(&stranger.endpoint, two.addr, Vec::new()).await;
    assert!(matches!(out, Err(IntroError::Link(LinkError::NoProtocol(_)))), "{out:?}");
    assert_ne!(one_id, two.id());
    serve.abort();
}

#[tokio::test]
async fn another_machine_at_a_known_address_is_named_and_not_talked_to() {
    let (one, mut two) = two();
    let third = Machine::new();
    one.allow(&[&two, &third]);
    let wrong = one.endpoint.connect(two.addr, Expect::Peer(third.id())).await.expect_err("another key");
    assert_eq!(wrong, LinkError::WrongKey { addr: two.addr, expected: third.id(), found: two.id() });
    one.allow(&[&third]);
    let foreign = one.endpoint.connect(two.addr, Expect::AnyMember).await.expect_err("no member");
    assert_eq!(foreign, LinkError::NotMember { addr: two.addr, found: two.id() });
    let forgotten = one.endpoint.connect(two.addr, Expect::Peer(two.id())).await.expect_err("no member");
    assert_eq!(forgotten, LinkError::NotMember { addr: two.addr, found: two.id() });
    assert!(tokio::time::timeout(Duration::from_millis(200), two.arrivals.next()).await.is_err());
}

#[tokio::test]
async fn an_address_where_nobody_is_fails_in_time() {
    let one = Machine::new();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let addr = silent.local_addr().expect("bound");
    assert_eq!(one.endpoint.connect(addr, Expect::AnyMember).await.expect_err("silence"), LinkError::Silent(addr));
}

#[tokio::test]
async fn every_connection_is_judged_anew_because_no_session_is_resumed() {
    let (one, mut two) = two();
    for round in 1..=3 {
        let link = one.endpoint.connect(two.addr, Expect::Peer(two.id())).await.expect("connects");
        let theirs = two.arrival().await;
        // A ticket would come now, and be used by the next round.
        let (mut send, mut recv) = link.conn.open_bi().await.expect("opens");
        stream::send(&mut send, &round, 16).await.expect("sends");
        let (mut back, mut seen) = theirs.conn.accept_bi().await.expect("accepts");
        let value: u64 = stream::recv(&mut seen, 16, SOON).await.expect("receives");
        stream::send(&mut back, &value, 16).await.expect("sends");
        assert_eq!(stream::recv::<u64>(&mut recv, 16, SOON).await.expect("receives"), round);
        link.close(0, "");
        assert_eq!((one.gate.checks(), two.gate.checks()), (round, round));
    }
}

#[tokio::test]
async fn a_stranger_may_ask_to_pair_only_while_a_window_is_open_and_nothing_else() {
    let (mut one, _two) = two();
    let stranger = Machine::new();
    let closed = stranger.endpoint.connect(one.addr, Expect::Inviter).await.expect_err("no window");
    assert_eq!(closed, LinkError::NoProtocol(one.addr));
    one.gate.set_pairing(true);
    let link = stranger.endpoint.connect(one.addr, Expect::Inviter).await.expect("connects");
    let arrived = one.arrival().await;
    assert_eq!((arrived.peer, arrived.protocol), (stranger.id(), Protocol::Pair));
    drop(link);
    // An open window lets nobody speak the members' protocol.
    stranger.allow(&[&one]);
    let end = match stranger.endpoint.connect(one.addr, Expect::AnyMember).await {
        Err(error) => error,
        Ok(link) => end_of(&link).await,
    };
    assert_eq!(end, LinkError::Refused(one.addr));
    one.gate.set_pairing(false);
    let closed = stranger.endpoint.connect(one.addr, Expect::Inviter).await.expect_err("no window");
    assert_eq!(closed, LinkError::NoProtocol(one.addr));
}

#[tokio::test]
async fn one_socket_serves_both_families_and_a_taken_port_is_no_obstacle() {
    let bind = |port| {
        let identity = Arc::new(Identity::ephemeral().expect("a key"));
        Endpoint::bind(&EndpointConfig { ip: None, port }, identity, Arc::default()).expect("binds")
    };
    let (first, mut arrivals) = bind(0);
    let (second, _arrivals) = bind(first.port());
    assert!(second.port() != 0 && second.port() != first.port());
    first.gate().allow([second.identity().peer()].into());
    second.gate().allow([first.identity().peer()].into());
    let mut hosts = vec![std::net::IpAddr::from(Ipv4Addr::LOCALHOST)];
    if std::net::UdpSocket::bind("[::1]:0").is_ok() {
        hosts.push(std::net::Ipv6Addr::LOCALHOST.into());
    } else {
        eprintln!("no IPv6 on this host: only IPv4 is tried");
    }
    for host in hosts {
        let addr = SocketAddr::new(host, first.port());
        let link = second.connect(addr, Expect::AnyMember).await.expect("connects");
        assert_eq!(link.address(), addr);
        let arrived = tokio::time::timeout(SOON, arrivals.next()).await.expect("in time").expect("a link");
        assert_eq!(arrived.address(), SocketAddr::new(host, second.port()));
    }
}

#[tokio::test]
async fn many_that_come_at_once_prove_their_address_first_and_all_get_in() {
    let (one, mut two) = two();
    let mut dials = tokio::task::JoinSet::new();
    let one = Arc::new(one);
    for _ in 0..50 {
        let (one, addr) = (one.clone(), two.addr);
        dials.spawn(async move { one.endpoint.connect(addr, Expect::AnyMember).await });
    }
    let links = tokio::time::timeout(2 * SOON, dials.join_all()).await.expect("in time");
    assert!(links.iter().all(Result::is_ok), "{:?}", links.iter().find(|l| l.is_err()));
    for _ in 0..50 {
        two.arrival().await;
    }
}

#[tokio::test]
async fn datagrams_grow_to_what_the_path_takes_and_no_further() {
    let (one, mut two) = two();
    let (mut send, mut recv, [link, _theirs]) = streams(&one, &mut two).await;
    let noise = vec![7; 100_000];
    let grown = async {
        while link.conn.stats().path.current_mtu < 6000 {
            let (sent, received) = tokio::join!(
                stream::send(&mut send, &noise, 200_000),
                stream::recv::<Vec<u8>>(&mut recv, 200_000, SOON)
            );
            sent.expect("sends");
            assert_eq!(received.expect("receives").len(), noise.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, grown).await.expect("probing finds loopback's size");
    assert!(link.conn.stats().path.current_mtu <= 6500);
}

/// A stream between two machines, and its connections, which end when they are dropped.
async fn streams(one: &Machine, two: &mut Machine) -> (quinn::SendStream, quinn::RecvStream, [Link; 2]) {
    let link = one.endpoint.connect(two.addr, Expect::Peer(two.id())).await.expect("connects");
    let theirs = two.arrival().await;
    let mut send = link.conn.open_uni().await.expect("opens");
    stream::send(&mut send, &(), 16).await.expect("sends");
    let mut recv = theirs.conn.accept_uni().await.expect("accepts");
    stream::recv::<()>(&mut recv, 16, SOON).await.expect("receives");
    (send, recv, [link, theirs])
}

#[tokio::test]
async fn frames_arrive_whole_within_their_limit_or_not_at_all() {
    let (one, mut two) = two();
    let (mut send, mut recv, _links) = streams(&one, &mut two).await;
    let words = "words".repeat(1000);
    stream::send(&mut send, &words, 10_000).await.expect("sends");
    assert_eq!(stream::recv::<String>(&mut recv, 10_000, SOON).await.expect("receives"), words);
    assert!(matches!(stream::send(&mut send, &words, 100).await, Err(StreamError::Frame(_))));
    let late = stream::recv::<String>(&mut recv, 100, Duration::from_millis(50)).await;
    assert!(matches!(late, Err(StreamError::Late)));
    stream::send(&mut send, &words, 10_000).await.expect("sends");
    assert!(matches!(stream::recv::<String>(&mut recv, 100, SOON).await, Err(StreamError::Frame(_))));
    let (mut send, mut recv, _links) = streams(&one, &mut two).await;
    send.finish().expect("open");
    assert!(matches!(stream::recv::<u8>(&mut recv, 100, SOON).await, Err(StreamError::Finished)));
}

/// Blobs as they go over the wire.
fn packed(blob: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    stream::pack_blob(blob, &mut wire).expect("packs");
    wire
}

#[tokio::test]
async fn blobs_of_every_size_arrive_and_nothing_else_does() {
    let (one, mut two) = two();
    let mut noise = vec![0; 700_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let text = "static const int table[] = { 1, 2, 3 };\n".repeat(20_000).into_bytes();
    let zeros = vec![0; 600_000];
    let (mut send, mut recv, _links) = streams(&one, &mut two).await;
    for blob in [&b""[..], b"x", &text[..1023], &text[..5000], &text, &noise, &zeros] {
        let wire = packed(blob);
        let (digest, size) = (Digest::of(blob), blob.len() as u64);
        let received = async {
            let recv = stream::recv_packed(&mut recv, size).await.expect("receives");
            (recv.size() == size && recv.wire_bytes() <= blob.len()).then(|| {
                // Whole, or block by block.
                if blob.len() % 2 == 0 {
                    return recv.unpack(&digest).expect("is what it should be");
                }
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut recv.reader(), &mut bytes).expect("unpacks");
                bytes
            })
        };
        let (sent, received) = tokio::join!(send.write_all(&wire), received);
        sent.expect("sends");
        assert!(received.expect("no larger than its content") == blob, "{size} bytes");
    }
    let (mut send, mut recv, _links) = streams(&one, &mut two).await;
    send.write_all(&packed(b"one thing")).await.expect("sends");
    let other = stream::recv_packed(&mut recv, 9).await.expect("nine bytes").unpack(&Digest::of(b"or others"));
    assert!(matches!(other, Err(StreamError::Blob)));
    send.write_all(&packed(b"nine bytes and more")).await.expect("sends");
    assert!(matches!(stream::recv_packed(&mut recv, 9).await, Err(StreamError::Blob)));
    let absurd = stream::recv_packed(&mut recv, limits::BLOB_BYTES_MAX + 1).await;
    assert!(matches!(absurd, Err(StreamError::Blob)));
}

mod meeting {
    //! Hellos and records.
    use super::*;
    use mesh::net::{
        identity::Ed25519,
        sync::{SyncError, greet},
    };
    use mesh_proto::{
        hello::{Hello, HelloError},
        membership::{Admit, Body, Cause, Genesis, MeshId, PublicKey, Record, RecordSet, Revoke, Role, Sign},
    };

    fn founded(founder: &Identity) -> RecordSet {
        let body = Body::Genesis(Genesis {
            nonce: [0; 16],
            founder: founder.public_key(),
            founder_name: "one".into(),
            mesh_name: "home".into(),
        });
        RecordSet::new(Record::sign(&body, founder).expect("signs"), &Ed25519).expect("valid")
    }

    fn admitted(mesh: MeshId, issuer: &Identity, subject: PublicKey) -> Record {
        let issuer_id = issuer.peer();
        let admit = Admit {
            mesh,
            subject,
            name: "a machine".into(),
            role: Role::Owner,
            not_after: None,
            issuer: issuer_id,
            issued: 7,
        };
        Record::sign(&Body::Admit(admit), issuer).expect("signs")
    }

    fn hello(set: &RecordSet) -> Hello {
        Hello {
            proto_min: 1,
            proto_max: 1,
            agent_version: "0.1.0".into(),
            mesh: set.mesh(),
            set_digest: set.digest(),
            role: Some(Role::Owner),
            name: "tower".into(),
            host_tag: [0; 16],
            slots: 8,
            toolchains: vec![],
            addresses: vec![],
            now_s: 0,
        }
    }

    #[tokio::test]
    async fn machines_that_meet_end_with_the_same_records() {
        let (one, mut two) = two();
        let (key_one, key_two) = (one.endpoint.identity(), two.endpoint.identity());
        let mut set_one = founded(key_one);
        set_one.merge(vec![admitted(set_one.mesh(), key_one, key_two.public_key())], &Ed25519);
        let mut set_two = set_one.clone();
        let (new_one, new_two) = (Identity::ephemeral().expect("a key"), Identity::ephemeral().expect("a key"));
        set_one.merge(vec![admitted(set_one.mesh(), key_one, new_one.public_key())], &Ed25519);
        set_two.merge(vec![admitted(set_one.mesh(), key_two, new_two.public_key())], &Ed25519);
        let link = one.endpoint.connect(two.addr, Expect::Peer(two.id())).await.expect("connects");
        let theirs = two.arrival().await;
        let (hello_one, hello_two) = (hello(&set_one), hello(&set_two));
        let (at_one, at_two) = tokio::join!(greet(&link, &hello_one, &set_one), greet(&theirs, &hello_two, &set_two));
        let (at_one, at_two) = (at_one.expect("greets"), at_two.expect("greets"));
        assert_eq!((&at_one.hello, &at_two.hello), (&hello_two, &hello_one));
        assert_eq!(set_one.merge(at_one.records, &Ed25519).added, 1);
        assert_eq!(set_two.merge(at_two.records, &Ed25519).added, 1);
        assert_eq!(set_one, set_two);
        for machine in [&new_one, &new_two] {
            assert!(set_one.evaluate(0).get(&machine.peer()).is_some());
        }
        // The stream stays for what comes next.
        let (mut send, mut recv) = (at_one.send, at_two.recv);
        stream::send(&mut send, &7u8, 16).await.expect("sends");
        assert_eq!(stream::recv::<u8>(&mut recv, 16, SOON).await.expect("receives"), 7);
    }

    #[tokio::test]
    async fn a_machine_hears_of_all_records_of_a_mesh_that_holds_as_many_as_it_may() {
        let (one, mut two) = two();
        let (key_one, key_two) = (one.endpoint.identity(), two.endpoint.identity());
        let mut small = founded(key_one);
        small.merge(vec![admitted(small.mesh(), key_one, key_two.public_key())], &Ed25519);
        let mut full = small.clone();
        let subject = |n: usize| PublicKey(Digest::of(&n.to_le_bytes()).0);
        let admissions = (2..limits::RECORDS_MAX).map(|n| admitted(full.mesh(), key_one, subject(n)));
        let revocation = |n: usize| {
            let (mesh, issuer) = (small.mesh(), key_one.peer());
            let revoke =
                Revoke { mesh, subject: subject(n).peer(), keep: vec![], cause: Cause::Left, issuer, issued: 8 };
            Record::sign(&Body::Revoke(revoke), &**key_one).expect("signs")
        };
        let records = admissions.chain((0..limits::REVOCATIONS_MAX).map(revocation)).collect();
        full.merge(records, &Ed25519);
        assert_eq!(full.records().len(), limits::SET_RECORDS_MAX);
        let link = one.endpoint.connect(two.addr, Expect::Peer(two.id())).await.expect("connects");
        let theirs = two.arrival().await;
        let (hello_one, hello_two) = (hello(&full), hello(&small));
        let (at_one, at_two) = tokio::join!(greet(&link, &hello_one, &full), greet(&theirs, &hello_two, &small));
        assert!(at_one.expect("greets").records.is_empty());
        small.merge(at_two.expect("greets").records, &Ed25519);
        assert_eq!(small, full);
    }

    #[tokio::test]
    async fn a_machine_of_another_mesh_or_of_no_words_is_sent_away() {
        let (one, mut two) = two();
        let (set_one, set_two) = (founded(one.endpoint.identity()), founded(two.endpoint.identity()));
        let link = one.endpoint.connect(two.addr, Expect::Peer(two.id())).await.expect("connects");
        let theirs = two.arrival().await;
        let (hello_one, hello_two) = (hello(&set_one), hello(&set_two));
        let (at_one, at_two) = tokio::join!(greet(&link, &hello_one, &set_one), greet(&theirs, &hello_two, &set_two));
        for greeted in [at_one, at_two] {
            let refused = matches!(
                greeted,
                Err(SyncError::Hello(HelloError::OtherMesh) | SyncError::Link(LinkError::Closed { .. }))
            );
            assert!(refused, "{greeted:?}");
        }
        let silent = one.endpoint.connect(two.addr, Expect::Peer(two.id())).await.expect("connects");
        let theirs = two.arrival().await;
        assert!(matches!(greet(&theirs, &hello_two, &set_two).await, Err(SyncError::Stream(StreamError::Late))));
        assert!(matches!(end_of(&silent).await, LinkError::Closed { .. }));
    }
}

mod nearby {
    //! Discovery on a private port, on loopback only.
    use super::*;
    use mesh::net::discovery::{Discovery, DiscoveryConfig, Event};
    use mesh_proto::advert::{Advert, DiscKey};
    use tokio::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(15);

    async fn wait_for(events: &mut mpsc::Receiver<Event>, wanted: impl Fn(&Event) -> bool) -> Event {
        let found = async {
            loop {
                let event = events.recv().await.expect("discovery runs");
                if wanted(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("heard in time")
    }

    #[tokio::test]
    async fn two_agents_find_each_other_hear_of_a_code_and_of_a_goodbye() {
        // A free port of this moment; mDNS daemons share it with each other.
        let mdns_port = {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("binds");
            socket.local_addr().expect("bound").port()
        };
        let config = DiscoveryConfig { mdns_port, loopback_only: true, announce: true };
        let (one, mut one_hears) = Discovery::start(config.clone(), 1001);
        let (two, mut two_hears) = Discovery::start(config, 1002);
        let key = DiscKey([4; 16]);
        let advert = |discovery: &Discovery, pairing| Advert {
            mesh: Some(key.mesh_tag(discovery.instance())),
            slots: 24,
            free: 24,
            pairing,
            ..Advert::default()
        };
        one.announce(advert(&one, None), Some(key));
        two.announce(advert(&two, None), Some(key));
        let (name_one, name_two) = (one.instance().to_owned(), two.instance().to_owned());
        let is = |event: &Event, name: &str| matches!(event, Event::Sighting(s) if s.instance == name);
        let (seen_one, seen_two) = tokio::join!(
            wait_for(&mut two_hears, |e| is(e, &name_one)),
            wait_for(&mut one_hears, |e| is(e, &name_two))
        );
        for (event, port) in [(seen_one, 1001), (seen_two, 1002)] {
            let Event::Sighting(sighting) = event else { panic!("a sighting") };
            assert_eq!(sighting.addrs, [SocketAddr::from((Ipv4Addr::LOCALHOST, port))]);
            assert_eq!(sighting.advert.mesh, Some(key.mesh_tag(&sighting.instance)));
            assert_eq!((sighting.advert.slots, sighting.advert.free), (24, 16));
        }
        one.announce(advert(&one, Some(417)), Some(key));
        wait_for(&mut two_hears, |e| matches!(e, Event::Sighting(s) if s.advert.pairing == Some(417))).await;
        one.stop().await;
        wait_for(&mut two_hears, |e| *e == Event::Gone { instance: name_one.clone() }).await;
        assert_eq!(two.health().trouble, None);
        two.stop().await;
    }

    #[tokio::test]
    async fn an_mdns_that_cannot_work_leaves_the_agent_alone() {
        // A port that another program holds for itself alone.
        let held = std::net::UdpSocket::bind("0.0.0.0:0").expect("binds");
        let mdns_port = held.local_addr().expect("bound").port();
        let config = DiscoveryConfig { mdns_port, loopback_only: true, announce: true };
        let (one, mut hears) = Discovery::start(config, 1001);
        one.announce(Advert { slots: 1, ..Advert::default() }, None);
        assert!(tokio::time::timeout(Duration::from_secs(1), hears.recv()).await.is_err(), "nothing is heard");
        let trouble = one.health().trouble.expect("a reason");
        assert!(trouble.contains(&mdns_port.to_string()), "{trouble}");
        // Once the port is free, it works without anybody doing anything.
        drop(held);
        let patient = async {
            while one.health().trouble.is_some() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, patient).await.expect("recovers");
        one.stop().await;
    }
}

/// Passes on what is sent to it, each from an address of its own, and loses every answer: what a sender that lies about its
/// address looks like.
async fn mute_relay(to: SocketAddr) -> SocketAddr {
    let inward = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let outward = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let addr = inward.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut packet = [0; 2048];
        while let Ok(length) = inward.recv(&mut packet).await {
            let _ = outward.send_to(&packet[..length], to).await;
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_from_addresses_that_do_not_answer_keeps_no_member_out() {
    /// More than there may be unfinished handshakes.
    const FLOOD: usize = 100;
    let (one, mut two) = two();
    let stranger = Arc::new(Machine::new());
    stranger.allow(&[&two]);
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..FLOOD {
        let (stranger, relay, victim) = (stranger.clone(), mute_relay(two.addr).await, two.id());
        flood.spawn(async move { stranger.endpoint.connect(relay, Expect::Peer(victim)).await.is_err() });
    }
    // All have sent their first packets, and none has given up.
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(flood.try_join_next().is_none(), "the flood is still under way");
    let link = one.endpoint.connect(two.addr, Expect::Peer(two.id())).await.expect("a member gets in");
    assert_eq!(two.arrival().await.peer, one.id());
    drop(link);
    while let Some(failed) = flood.join_next().await {
        assert!(failed.expect("no panic"), "nobody gets in who does not hear the answers");
    }
}

/// A way to `to` from 127.0.0.2 on which only the demand to show the address comes back: who uses it shows its address
/// and then never ends its handshake.
#[cfg(target_os = "linux")]
async fn stalling_relay(to: SocketAddr) -> SocketAddr {
    /// A datagram that begins so is a QUIC version 1 Retry (RFC 9000, 17.2.5).
    const RETRY: u8 = 0xf0;
    let inner = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
    let outer = tokio::net::UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).await.expect("binds");
    let addr = inner.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut there, mut back, mut client) = ([0; 2048], [0; 2048], None);
        loop {
            tokio::select! {
                Ok((len, from)) = inner.recv_from(&mut there) => {
                    client = Some(from);
                    let _ = outer.send_to(&there[..len], to).await;
                }
                Ok((len, _)) = outer.recv_from(&mut back) => {
                    if let Some(client) = client.filter(|_| back[0] & 0xf0 == RETRY) {
                        let _ = inner.send_to(&back[..len], client).await;
                    }
                }
            }
        }
    });
    addr
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_begins_many_handshakes_and_ends_none_keeps_no_member_out() {
    /// More than there may be unfinished handshakes.
    const STALLED: usize = 100;
    let (one, mut two) = two();
    let stranger = Arc::new(Machine::new());
    stranger.allow(&[&two]);
    let mut stalled = tokio::task::JoinSet::new();
    for _ in 0..STALLED {
        let (stranger, relay, victim) = (stranger.clone(), stalling_relay(two.addr).await, two.id());
        stalled.spawn(async move { stranger.endpoint.connect(relay, Expect::Peer(victim)).await.is_err() });
    }
    // All have sent what they send, and none has given up.
    tokio::time::sleep(Duration::from_millis(800)).await;
    let link = one.endpoint.connect(two.addr, Expect::Peer(two.id())).await.expect("a member gets in");
    assert_eq!(two.arrival().await.peer, one.id());
    drop(link);
    while let Some(failed) = stalled.join_next().await {
        assert!(failed.expect("no panic"), "nobody gets in who does not end its handshake");
    }
}
