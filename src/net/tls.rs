//! Who may talk to this machine: the gate, and the TLS configurations that ask it (DO).
//!
//! TLS 1.3 only, Ed25519 only, both sides with a self-signed certificate of which only the key counts; names, dates and
//! chains say nothing. No session tickets and no early data: on a resumed session the verifier would not run again, and
//! a forgotten machine could come back on an old ticket.

use super::identity::{Identity, provider};
use mesh_proto::{membership::PublicKey, peer::PeerId, version};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, ParsedCertificate, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Who may connect at this moment. Shared by the endpoint, which asks, and the agent, which decides.
#[derive(Debug, Default)]
pub struct Gate {
    members: RwLock<Arc<BTreeSet<PeerId>>>,
    revoked: RwLock<Arc<BTreeSet<PeerId>>>,
    pairing: AtomicBool,
    checks: AtomicU64,
}

impl Gate {
    /// Replaces the set of machines that may connect. Connections that are open already are the agent's to close.
    pub fn allow(&self, members: BTreeSet<PeerId>) {
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(members);
    }

    /// Replaces the set of machines that were put out of the mesh, and are told so when they come.
    pub fn revoke(&self, revoked: BTreeSet<PeerId>) {
        *self.revoked.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(revoked);
    }

    /// Whether this machine was put out of the mesh.
    #[must_use]
    pub fn is_revoked(&self, peer: &PeerId) -> bool {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }

    /// Whether this machine may connect as a member.
    #[must_use]
    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.members.read().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }

    /// Whether a machine may connect for this.
    #[must_use]
    pub fn lets_in(&self, protocol: Protocol, peer: &PeerId) -> bool {
        match protocol {
            Protocol::Mesh => self.is_member(peer),
            Protocol::Pair => self.is_pairing(),
            // Whoever was put out need not show why it should be in.
            Protocol::Intro => self.has_members() && !self.is_revoked(peer),
        }
    }

    fn has_members(&self) -> bool {
        !self.members.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Opens or closes the door for pairing.
    pub fn set_pairing(&self, open: bool) {
        self.pairing.store(open, Ordering::SeqCst);
    }

    /// Whether a stranger may connect for pairing.
    #[must_use]
    pub fn is_pairing(&self) -> bool {
        self.pairing.load(Ordering::SeqCst)
    }

    /// How many certificates were judged so far, in both directions.
    #[must_use]
    pub fn checks(&self) -> u64 {
        self.checks.load(Ordering::Relaxed)
    }
}

/// The protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Between members.
    Mesh,
    /// Pairing: nobody is trusted yet.
    Pair,
    /// An introduction: whoever comes shows why it is a member.
    Intro,
}

impl Protocol {
    /// The protocol with this ALPN name.
    pub(super) fn of_alpn(name: &[u8]) -> Option<Self> {
        match name {
            version::ALPN_PAIR => Some(Self::Pair),
            version::ALPN_INTRO => Some(Self::Intro),
            _ => version::ALPN_MESH.contains(&name).then_some(Self::Mesh),
        }
    }

    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Mesh => version::ALPN_MESH.iter().map(|name| name.to_vec()).collect(),
            Self::Pair => vec![version::ALPN_PAIR.to_vec()],
            Self::Intro => vec![version::ALPN_INTRO.to_vec()],
        }
    }
}

/// Whom a dialer expects at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// This machine, as a member.
    Peer(PeerId),
    /// Any member: the address came without a name.
    AnyMember,
    /// Whoever shows a code there; the code decides.
    Inviter,
    /// Whoever of a mesh is there, for an introduction: what it answers decides.
    Introducer,
}

impl Expect {
    /// The protocol to speak.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Inviter => Protocol::Pair,
            Self::Introducer => Protocol::Intro,
            Self::Peer(_) | Self::AnyMember => Protocol::Mesh,
        }
    }
}

/// The public key in a certificate.
pub(super) fn key_of(certificate: &CertificateDer<'_>) -> Option<PublicKey> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    PublicKey::from_spki(&parsed.subject_public_key_info())
}

/// Whose certificate is accepted.
#[derive(Debug)]
enum Rule {
    Expect(Expect),
    /// Members; anyone if the other side offered an introduction and nothing else, or pairing while a window is open.
    Incoming {
        offers: Arc<OnceLock<Protocol>>,
    },
}

/// The verifier of both directions: one certificate, no chain; its key decides.
#[derive(Debug)]
struct Verifier {
    gate: Arc<Gate>,
    rule: Rule,
    /// The key that the other side proved or only showed, for the error message.
    seen: Arc<OnceLock<PeerId>>,
}

impl Verifier {
    fn judge(&self, certificate: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        self.gate.checks.fetch_add(1, Ordering::Relaxed);
        let bad = Error::InvalidCertificate(CertificateError::BadEncoding);
        if !chain.is_empty() {
            return Err(bad);
        }
        let peer = key_of(certificate).ok_or(bad)?.peer();
        let _ = self.seen.set(peer);
        let welcome = match &self.rule {
            Rule::Expect(Expect::Peer(expected)) => *expected == peer && self.gate.is_member(&peer),
            Rule::Expect(Expect::AnyMember) => self.gate.is_member(&peer),
            Rule::Expect(Expect::Inviter | Expect::Introducer) => true,
            Rule::Incoming { offers } => self.gate.lets_in(offers.get().copied().unwrap_or(Protocol::Mesh), &peer),
        };
        match () {
            () if welcome => Ok(()),
            // Becomes the alert "certificate revoked" (44).
            () if self.gate.is_revoked(&peer) => Err(CertificateError::Revoked.into()),
            // Becomes the alert "access denied" (49).
            () => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(Error::General("only Ed25519 is accepted".into()));
        }
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }
}

fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("only TLS 1.3 is accepted".into()))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Hands out the one certificate, and notes what the other side offers: rustls asks for the certificate while it reads
/// the client's first message, and tells its verifier nothing of the protocols in it.
#[derive(Debug)]
struct NotingResolver {
    certified: Arc<CertifiedKey>,
    offers: Arc<OnceLock<Protocol>>,
}

impl ResolvesServerCert for NotingResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let names: Vec<&[u8]> = hello.alpn().map(Iterator::collect).unwrap_or_default();
        let offers = match names[..] {
            [only] => Protocol::of_alpn(only),
            _ => None,
        };
        // Whoever offers several things offers to be judged as a member.
        let _ = self.offers.set(offers.unwrap_or(Protocol::Mesh));
        Some(self.certified.clone())
    }
}

/// The configuration for one incoming connection. It is made for each, because the verifier's rule depends on what
/// this very connection offers; pairing is offered only while a window is open.
pub(super) fn server_config(identity: &Identity, gate: &Arc<Gate>) -> Result<ServerConfig, Error> {
    let offers = Arc::new(OnceLock::new());
    let resolver = NotingResolver { certified: identity.certified(), offers: offers.clone() };
    let verifier = Verifier { gate: gate.clone(), rule: Rule::Incoming { offers }, seen: Arc::default() };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = Protocol::Mesh.alpn();
    if gate.has_members() {
        config.alpn_protocols.extend(Protocol::Intro.alpn());
    }
    if gate.is_pairing() {
        config.alpn_protocols.extend(Protocol::Pair.alpn());
    }
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// The configuration for one outgoing connection, and the key that the other side will have shown.
pub(super) fn client_config(
    identity: &Identity,
    gate: &Arc<Gate>,
    expect: Expect,
) -> Result<(ClientConfig, Arc<OnceLock<PeerId>>), Error> {
    let seen = Arc::new(OnceLock::new());
    let verifier = Verifier { gate: gate.clone(), rule: Rule::Expect(expect), seen: seen.clone() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = expect.protocol().alpn();
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok((config, seen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::endpoint::{Endpoint, EndpointConfig};
    use quinn::crypto::rustls::QuicClientConfig;
    use std::net::{Ipv4Addr, SocketAddr};

    #[tokio::test]
    async fn a_client_that_keeps_tickets_gets_none_and_is_judged_every_time() {
        let gate = Arc::new(Gate::default());
        let local = EndpointConfig { ip: Some(Ipv4Addr::LOCALHOST.into()), port: 0 };
        let server = Arc::new(Identity::ephemeral().expect("a key"));
        let client = Identity::ephemeral().expect("a key");
        gate.allow(BTreeSet::from([client.peer()]));
        let (endpoint, mut arrivals) = Endpoint::bind(&local, server.clone(), gate.clone()).expect("binds");
        let its_gate = Arc::new(Gate::default());
        its_gate.allow(BTreeSet::from([server.peer()]));
        let (mut config, _) = client_config(&client, &its_gate, Expect::AnyMember).expect("a configuration");
        config.resumption = Resumption::in_memory_sessions(8);
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("TLS 1.3")));
        let raw = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("binds");
        for round in 1..=3 {
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, endpoint.port()));
            let conn = raw.connect_with(config.clone(), at, "mesh").expect("dials").await.expect("connects");
            let link = arrivals.next().await.expect("a link");
            // A round trip after the handshake: tickets would have come before its answer.
            let mut send = link.conn.open_uni().await.expect("opens");
            send.write_all(b"x").await.expect("sends");
            let mut recv = conn.accept_uni().await.expect("accepts");
            recv.read_exact(&mut [0]).await.expect("reads");
            assert_eq!((gate.checks(), its_gate.checks()), (round, round));
            conn.close(0u32.into(), b"");
        }
    }

    #[test]
    fn nothing_but_tls_1_3_with_ed25519_is_offered() {
        let (identity, gate) = (Identity::ephemeral().expect("a key"), Arc::new(Gate::default()));
        let server = server_config(&identity, &gate).expect("a configuration");
        assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
        assert_eq!(server.alpn_protocols, [b"mesh/1".to_vec()]);
        gate.allow(BTreeSet::from([identity.peer()]));
        let member = server_config(&identity, &gate).expect("a configuration");
        assert_eq!(
            member.alpn_protocols,
            [b"mesh/1".to_vec(), b"mesh-intro/1".to_vec()],
            "in no mesh nobody is listened to"
        );
        gate.set_pairing(true);
        let open = server_config(&identity, &gate).expect("a configuration");
        let all = ["mesh/1", "mesh-intro/1", "mesh-pair/1"].map(|name| name.as_bytes().to_vec());
        assert_eq!(open.alpn_protocols, all);
        let (client, _) = client_config(&identity, &gate, Expect::Inviter).expect("a configuration");
        assert!(!client.enable_sni && !client.enable_early_data);
        assert_eq!(client.alpn_protocols, [b"mesh-pair/1".to_vec()]);
        let verifier = Verifier { gate, rule: Rule::Expect(Expect::Inviter), seen: Arc::default() };
        assert_eq!(ServerCertVerifier::supported_verify_schemes(&verifier), [SignatureScheme::ED25519]);
        assert!(no_tls12().is_err());
    }
}
