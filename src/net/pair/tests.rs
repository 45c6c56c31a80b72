//! Pairings over real connections on loopback, a relay among them.

use super::*;
use crate::net::{
    endpoint::{Arrivals, EndpointConfig},
    identity::Identity,
};
use mesh_proto::membership::{Admit, Body, Genesis, Record, Sign};
use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU64, Ordering},
};

/// A machine that founded a mesh and can show a code.
struct Host {
    endpoint: Endpoint,
    arrivals: Arrivals,
    inviter: Arc<Inviter>,
    set: RecordSet,
    clock: Arc<AtomicU64>,
}

fn endpoint() -> (Endpoint, Arrivals) {
    let identity = Arc::new(Identity::ephemeral().expect("a key"));
    let config = EndpointConfig { ip: Some(Ipv4Addr::LOCALHOST.into()), port: 0 };
    Endpoint::bind(&config, identity, Arc::default()).expect("binds")
}

fn addr(endpoint: &Endpoint) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, endpoint.port()).into()
}

fn request(name: &str) -> JoinRequest {
    JoinRequest { name: name.into(), os: "linux".into(), arch: "x86_64".into(), cores: 24 }
}

/// A binding to nothing, as a protocol without the exporter and the keys would have it.
fn unbound(_: &Link) -> Result<Channel, StreamError> {
    Ok(Channel { exporter: [0; 32], joiner: PeerId([0; 32]), inviter: PeerId([0; 32]) })
}

impl Host {
    fn new() -> Self {
        Self::bound_by(channel)
    }

    fn bound_by(bind: Bind) -> Self {
        let (endpoint, arrivals) = endpoint();
        let identity = endpoint.identity();
        let genesis = Body::Genesis(Genesis {
            nonce: [1; 16],
            founder: identity.public_key(),
            founder_name: "thinkpad".into(),
            mesh_name: "home".into(),
        });
        let set = RecordSet::new(Record::sign(&genesis, &**identity).expect("signs"), &Ed25519).expect("valid");
        let clock = Arc::new(AtomicU64::new(0));
        let hand = clock.clone();
        let inviter = Inviter::new(endpoint.gate().clone(), move || hand.load(Ordering::SeqCst));
        let inviter = Arc::new(Inviter { bind, ..inviter });
        Self { endpoint, arrivals, inviter, set, clock }
    }

    /// Serves the next machine that comes.
    async fn serve(&mut self) -> Result<Admitted, InviteError> {
        let link = self.arrivals.next().await.expect("a machine");
        let (identity, mut set) = (self.endpoint.identity().clone(), self.set.clone());
        let served = self.inviter.serve(link, |request, key, role| {
            let admit = Body::Admit(Admit {
                mesh: set.mesh(),
                subject: *key,
                name: request.name.clone(),
                role,
                not_after: None,
                issuer: identity.peer(),
                issued: 1,
            });
            set.merge(
                vec![Record::sign(&admit, &*identity).map_err(|e| NotAdmitted::Failed(e.to_string()))?],
                &Ed25519,
            );
            let addresses = vec![(identity.peer(), (Ipv4Addr::LOCALHOST, 6374).into())];
            Ok(Welcome { records: set.records(), disc_key: DiscKey([9; 16]), addresses })
        });
        let outcome = served.await;
        self.set = set;
        outcome
    }
}

#[tokio::test]
async fn who_showed_the_last_code_closes_its_window_and_not_the_next_one() {
    let host = Host::new();
    let first = host.inviter.open(Role::Owner);
    let second = host.inviter.open(Role::Owner);
    host.inviter.close(&first);
    assert_eq!(host.inviter.status().map(|window| window.discriminator), Some(second.discriminator()));
    assert!(host.endpoint.gate().is_pairing());
    host.inviter.close(&second);
    assert!(host.inviter.status().is_none() && !host.endpoint.gate().is_pairing());
}

#[tokio::test]
async fn the_right_code_makes_a_member() {
    let mut host = Host::new();
    let (joiner, _arrivals) = endpoint();
    let code = host.inviter.open(Role::Owner);
    let at = addr(&host.endpoint);
    let (admitted, joined) = tokio::join!(host.serve(), join(&joiner, at, &code, request("tower"), 0));
    let (admitted, joined) = (admitted.expect("admits"), joined.expect("joins"));
    assert_eq!(admitted.key, joiner.identity().public_key());
    assert_eq!(admitted.request, request("tower"));
    assert_eq!((joined.role, joined.inviter), (Role::Owner, host.endpoint.identity().peer()));
    assert_eq!((joined.set, joined.disc_key), (host.set.clone(), DiscKey([9; 16])));
    let name = host.set.evaluate(0).get(&joiner.identity().peer()).map(|m| m.name.clone());
    assert_eq!(name.as_deref(), Some("tower"));
    assert_eq!(joined.addresses.len(), 1);
    // A code is good for one machine.
    assert!(host.inviter.status().is_none() && !host.endpoint.gate().is_pairing());
    let again = join(&joiner, at, &code, request("tower"), 0).await;
    assert!(matches!(again, Err(JoinError::Nobody(_))), "{again:?}");
}

#[tokio::test]
async fn three_wrong_codes_cancel_the_right_one() {
    let mut host = Host::new();
    let (joiner, _arrivals) = endpoint();
    let code = host.inviter.open(Role::Owner);
    let wrong = wrong_words(&code);
    let at = addr(&host.endpoint);
    for left in [2u8, 1, 0] {
        let (served, joined) = tokio::join!(host.serve(), join(&joiner, at, &wrong, request("tower"), 0));
        let (served, joined) = (served.expect_err("wrong").to_string(), joined.expect_err("wrong").to_string());
        let (there, here) = match left {
            2 => ("a wrong code from 127.0.0.1. 2 tries left.", "that code is not right. 2 tries left."),
            1 => ("a wrong code from 127.0.0.1. 1 try left.", "that code is not right. 1 try left."),
            _ => (
                "3 wrong codes from 127.0.0.1; the code is cancelled. If that was not you, someone on this network is \
                 guessing. Run mesh pair for a new one.",
                "that code is not right. It is cancelled now. Run mesh pair there for a new one.",
            ),
        };
        assert_eq!((served.as_str(), joined.as_str()), (there, here));
    }
    let (served, joined) = tokio::join!(host.serve(), join(&joiner, at, &code, request("tower"), 0));
    assert!(matches!(joined, Err(JoinError::Cancelled)), "{joined:?}");
    assert!(matches!(served, Err(InviteError::Refused { refusal: Refusal::Cancelled, .. })), "{served:?}");
    assert_eq!(host.set.records().len(), 1, "nobody was admitted");
}

/// The same digits, other words.
fn wrong_words(code: &Code) -> Code {
    let digits = code.discriminator();
    let guesses = ["otter-maple", "maple-otter"].map(|words| Code::parse(&format!("{digits:03}-{words}")));
    guesses.into_iter().flatten().find(|guess| guess != code).expect("one of them is wrong")
}

#[tokio::test]
async fn a_code_that_expired_or_has_other_digits_is_nobodys() {
    let mut host = Host::new();
    let (joiner, _arrivals) = endpoint();
    let code = host.inviter.open(Role::Owner);
    let at = addr(&host.endpoint);
    let other = Code::parse(&format!("{:03}-otter-maple", (code.discriminator() + 1) % 1000)).expect("a code");
    let (served, joined) = tokio::join!(host.serve(), join(&joiner, at, &other, request("tower"), 0));
    let text = joined.expect_err("other digits").to_string();
    assert_eq!(
        text,
        format!(
            "nobody nearby is showing a code {:03}. Is \"mesh pair\" still open there? On another network or behind \
             client isolation, use: mesh join {other}@HOST",
            other.discriminator()
        )
    );
    assert!(matches!(served, Err(InviteError::Refused { refusal: Refusal::OtherCode, .. })), "{served:?}");
    assert_eq!(host.inviter.status().map(|s| s.tries_left), Some(3));
    // The time runs out before anybody has asked: the machine that comes is told.
    host.clock.store(mesh_proto::pairing::WINDOW_MS, Ordering::SeqCst);
    let (served, joined) = tokio::join!(host.serve(), join(&joiner, at, &code, request("tower"), 0));
    assert!(matches!(joined, Err(JoinError::Nobody(_))), "{joined:?}");
    assert!(matches!(served, Err(InviteError::Refused { refusal: Refusal::Closed, .. })), "{served:?}");
    // And once somebody has asked, the door is shut.
    assert_eq!(host.inviter.status(), None);
    assert!(!host.endpoint.gate().is_pairing());
}

#[tokio::test]
async fn a_second_machine_is_told_that_one_is_pairing_and_a_silent_one_costs_no_try() {
    let host = Host::new();
    let code = host.inviter.open(Role::Owner);
    let channel = Channel { exporter: [0; 32], joiner: PeerId([0; 32]), inviter: PeerId([0; 32]) };
    let open = || Joiner::start(&code, channel, &mut OsRng).1;
    let (turn, _) = host.inviter.begin(open(), channel).expect("the first");
    assert!(matches!(host.inviter.begin(open(), channel), Err(Stop::Refuse(Refusal::Busy))));
    drop(turn);
    let (turn, _) = host.inviter.begin(open(), channel).expect("the first has gone");
    // A new window is not touched by the end of a pairing in the old one.
    let code = host.inviter.open(Role::Owner);
    let open = || Joiner::start(&code, channel, &mut OsRng).1;
    let (_second, _) = host.inviter.begin(open(), channel).expect("the new window is free");
    drop(turn);
    assert!(matches!(host.inviter.begin(open(), channel), Err(Stop::Refuse(Refusal::Busy))));
    assert_eq!(host.inviter.status().map(|s| s.tries_left), Some(3));
}

#[tokio::test]
async fn strangers_that_connect_and_say_nothing_are_few_and_soon_gone() {
    let mut host = Host::new();
    let code = host.inviter.open(Role::Owner);
    let (crowd, _crowd_arrivals) = endpoint();
    let at = addr(&host.endpoint);
    let mut silent = Vec::new();
    for _ in 0..=TALKS_MAX {
        silent.push(crowd.connect(at, Expect::Inviter).await.expect("connects"));
    }
    let mut arrived = Vec::new();
    for _ in &silent {
        arrived.push(host.arrivals.next().await.expect("a machine"));
    }
    let inviter = host.inviter.clone();
    let never = |_: &JoinRequest, _: &PublicKey, _: Role| Err(NotAdmitted::Failed("nobody proved the code".to_owned()));
    let mut talks = tokio::task::JoinSet::new();
    for link in arrived {
        let inviter = inviter.clone();
        talks.spawn(async move { inviter.serve(link, never).await });
    }
    let outcomes = talks.join_all().await;
    let busy =
        |o: &Result<Admitted, InviteError>| matches!(o, Err(InviteError::Refused { refusal: Refusal::Busy, .. }));
    let late = |o: &Result<Admitted, InviteError>| matches!(o, Err(InviteError::Stream(StreamError::Late)));
    let (busy, late) = (outcomes.iter().filter(|o| busy(o)).count(), outcomes.iter().filter(|o| late(o)).count());
    assert_eq!((busy, late), (1, TALKS_MAX), "{outcomes:?}");
    assert_eq!(host.inviter.status().map(|s| s.tries_left), Some(3));
    let (joiner, _arrivals) = endpoint();
    let (served, joined) = tokio::join!(host.serve(), join(&joiner, at, &code, request("tower"), 0));
    assert!(served.is_ok() && joined.is_ok(), "{served:?} {joined:?}");
}

/// Ends TLS on both sides, with a key of its own, and forwards every byte.
async fn relay(endpoint: &Endpoint, arrivals: &mut Arrivals, inviter: SocketAddr) {
    let victim = arrivals.next().await.expect("the joiner");
    let target = endpoint.connect(inviter, Expect::Inviter).await.expect("connects");
    let (mut back, mut from_joiner) = victim.conn.accept_bi().await.expect("a stream");
    let (mut forth, mut from_inviter) = target.conn.open_bi().await.expect("a stream");
    let forward = async |from: &mut RecvStream, to: &mut SendStream| {
        let mut buffer = [0; 4096];
        while let Ok(Some(bytes)) = from.read(&mut buffer).await {
            if to.write_all(&buffer[..bytes]).await.is_err() {
                break;
            }
        }
        let _ = to.finish();
    };
    tokio::join!(forward(&mut from_joiner, &mut forth), forward(&mut from_inviter, &mut back));
    victim.closed().await;
    target.close(0, "");
}

#[tokio::test]
async fn a_relay_is_refused_with_the_right_code_and_would_not_be_without_the_binding() {
    for bound in [true, false] {
        let bind: Bind = if bound { channel } else { unbound };
        let mut host = Host::bound_by(bind);
        let (joiner, _arrivals) = endpoint();
        let (thief, mut thief_arrivals) = endpoint();
        thief.gate().set_pairing(true);
        let code = host.inviter.open(Role::Owner);
        let (target, spoofed) = (addr(&host.endpoint), addr(&thief));
        let (_, served, joined) = tokio::join!(
            relay(&thief, &mut thief_arrivals, target),
            host.serve(),
            join_bound(&joiner, spoofed, &code, request("tower"), 0, bind),
        );
        if bound {
            assert!(matches!(joined, Err(JoinError::WrongCode(2))), "{joined:?}");
            assert!(matches!(served, Err(InviteError::WrongCode { tries_left: 2, .. })), "{served:?}");
            assert_eq!(host.set.records().len(), 1);
        } else {
            // The attack that the binding prevents: the relay's key is let in, with a code that it never knew.
            let admitted = served.expect("lets the relay in");
            assert_eq!(admitted.key, thief.identity().public_key());
            assert!(host.set.evaluate(0).get(&thief.identity().peer()).is_some());
        }
    }
}

#[tokio::test]
async fn an_admission_that_fails_is_told_to_both() {
    let mut host = Host::new();
    let (joiner, _arrivals) = endpoint();
    let code = host.inviter.open(Role::Worker);
    let at = addr(&host.endpoint);
    let serve = async {
        let link = host.arrivals.next().await.expect("a machine");
        host.inviter.serve(link, |_, _, _| Err(NotAdmitted::Failed("no space left on the disk".into()))).await
    };
    let (served, joined) = tokio::join!(serve, join(&joiner, at, &code, request("tower"), 0));
    assert!(matches!(joined, Err(JoinError::Failed)), "{joined:?}");
    assert!(matches!(served, Err(InviteError::Admit(NotAdmitted::Failed(why))) if why.contains("no space")));
}
