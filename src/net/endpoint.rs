//! One UDP socket for both directions: dials members, takes in members, refuses everybody else (DO).

use super::{
    identity::Identity,
    tls::{self, Expect, Gate, Protocol},
};
use mesh_proto::{
    hello::close,
    limits,
    membership::{PublicKey, Sign},
    peer::PeerId,
};
use quinn::{
    ClientConfig, Connection, ConnectionError, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig},
};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustls::pki_types::CertificateDer;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};

/// The usual port, "MESH" on a telephone's keys.
pub const PORT: u16 = 6374;

/// A connection that is silent this long is lost.
const IDLE: Duration = Duration::from_secs(10);
/// Silence is broken this often.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// From the first packet to a proved key.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// What a LAN's round trip is taken for until it is measured; the default of a third of a second makes one lost
/// packet in a handshake cost a whole one.
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// Largest datagram that is tried, bytes: jumbo frames where there are any. Found out by probing, never assumed.
const DATAGRAM_BYTES_MAX: u16 = 6500;
/// Bytes in flight on one stream: 10 Gbit/s at 5 ms.
const STREAM_WINDOW_BYTES: u32 = 6 << 20;
/// Bytes in flight on one connection.
const CONNECTION_WINDOW_BYTES: u32 = 24 << 20;
/// Unfinished handshakes above which a stranger must first show that its address is its own.
const RETRY_ABOVE: usize = 16;
/// Unfinished handshakes above which connections are refused.
const HANDSHAKES_MAX: usize = 64;
/// Unfinished handshakes that one address may have that showed to be its own: whoever begins many and ends none fills
/// only this much of the room.
const HANDSHAKES_PER_SOURCE: usize = 40;
/// Connections that wait to be looked at.
const INCOMING_MAX: usize = 256;
/// Authenticated connections that wait for the agent.
const ARRIVALS_MAX: usize = 64;
/// What is asked for as the socket's buffers, bytes; the kernel may give less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// TLS wants a name to connect to; it is neither sent nor compared.
const NAME: &str = "mesh";

/// TLS alerts (RFC 8446, 6) that mean something to us.
const ALERT_REVOKED: u8 = 44;
const ALERT_ACCESS_DENIED: u8 = 49;
const ALERT_NO_PROTOCOL: u8 = 120;

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// No UDP port could be had.
    #[error("no UDP port could be opened on {at}")]
    Bind {
        /// Where.
        at: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The TLS library refuses the configuration.
    #[error("the TLS configuration is refused: {0}")]
    Tls(String),
}

/// Why there is no connection, or no longer one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nobody answered in time.
    #[error("no answer from {0}")]
    Silent(SocketAddr),
    /// The address cannot be dialled from this socket.
    #[error("{addr} cannot be dialled: {why}")]
    Address {
        /// Which.
        addr: SocketAddr,
        /// Why.
        why: String,
    },
    /// Somebody else answered.
    #[error("the machine at {addr} is {found:?}, not {expected:?}: the address was given to another one")]
    WrongKey {
        /// Where.
        addr: SocketAddr,
        /// Who was expected.
        expected: PeerId,
        /// Who answered.
        found: PeerId,
    },
    /// Who answered is not in the mesh.
    #[error("the machine at {addr} ({found:?}) is not a member of this mesh")]
    NotMember {
        /// Where.
        addr: SocketAddr,
        /// Who answered.
        found: PeerId,
    },
    /// The other machine does not let this one in.
    #[error("the machine at {0} does not accept this one: it has not heard of its admission, or has forgotten it")]
    Refused(SocketAddr),
    /// The other machine was told by its mesh that this one is out.
    #[error("the machine at {0} does not accept this one: it was forgotten")]
    Forgotten(SocketAddr),
    /// No common protocol: no code is shown there, or the versions have nothing in common.
    #[error("the machine at {0} does not offer what is asked for")]
    NoProtocol(SocketAddr),
    /// The other machine ended the connection.
    #[error("the machine at {addr} ended the connection: {reason}")]
    Closed {
        /// Where.
        addr: SocketAddr,
        /// A code of [`mesh_proto::hello::close`].
        code: u64,
        /// Its words.
        reason: String,
    },
    /// Anything else that ended a connection.
    #[error("the connection to {addr} failed: {why}")]
    Failed {
        /// Where.
        addr: SocketAddr,
        /// Why.
        why: String,
    },
}

impl LinkError {
    /// What a connection's end means.
    #[must_use]
    pub fn of(addr: SocketAddr, error: &ConnectionError) -> Self {
        let alert = |code: u64| u8::try_from(code.wrapping_sub(0x100)).ok();
        match error {
            ConnectionError::TimedOut => Self::Silent(addr),
            ConnectionError::ConnectionClosed(c) if alert(c.error_code.into()) == Some(ALERT_ACCESS_DENIED) => {
                Self::Refused(addr)
            }
            ConnectionError::ConnectionClosed(c) if alert(c.error_code.into()) == Some(ALERT_REVOKED) => {
                Self::Forgotten(addr)
            }
            ConnectionError::ConnectionClosed(c) if alert(c.error_code.into()) == Some(ALERT_NO_PROTOCOL) => {
                Self::NoProtocol(addr)
            }
            ConnectionError::ApplicationClosed(c) => Self::Closed {
                addr,
                code: c.error_code.into_inner(),
                reason: String::from_utf8_lossy(&c.reason).chars().filter(|c| !c.is_control()).take(200).collect(),
            },
            other => Self::Failed { addr, why: other.to_string() },
        }
    }
}

/// A connection whose other end has proved its key.
#[derive(Debug, Clone)]
pub struct Link {
    /// The connection.
    pub conn: Connection,
    /// Who is at the other end.
    pub peer: PeerId,
    /// Its key.
    pub key: PublicKey,
    /// The key that this end has proved.
    pub my_key: PublicKey,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether this side dialled.
    pub dialled: bool,
}

impl Link {
    /// Where the other end is now (it may move).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        canonical(self.conn.remote_address())
    }

    /// Ends the connection with a code of [`mesh_proto::hello::close`].
    pub fn close(&self, code: u32, reason: &str) {
        self.conn.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> LinkError {
        let error = self.conn.closed().await;
        LinkError::of(self.address(), &error)
    }

    /// Why the connection has ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<LinkError> {
        self.conn.close_reason().map(|error| LinkError::of(self.address(), &error))
    }
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// The address; none: all, both families where the host has them.
    pub ip: Option<IpAddr>,
    /// The port that is tried first; 0 for any.
    pub port: u16,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self { ip: None, port: PORT }
    }
}

/// The socket.
#[derive(Debug)]
pub struct Endpoint {
    quinn: quinn::Endpoint,
    identity: Arc<Identity>,
    gate: Arc<Gate>,
    transport: Arc<TransportConfig>,
    acceptor: tokio::task::AbortHandle,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.quinn.close(VarInt::from_u32(close::LEAVING), b"");
    }
}

/// Connections that others have opened, their keys proved and let in by the gate.
#[derive(Debug)]
pub struct Arrivals(mpsc::Receiver<Link>);

impl Arrivals {
    /// The next one; none when the endpoint is gone.
    pub async fn next(&mut self) -> Option<Link> {
        self.0.recv().await
    }
}

impl Endpoint {
    /// Opens the socket and starts taking in connections. Needs a running tokio runtime.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn bind(
        config: &EndpointConfig,
        identity: Arc<Identity>,
        gate: Arc<Gate>,
    ) -> Result<(Self, Arrivals), EndpointError> {
        let socket = open_socket(config)?;
        let tls = |e: &dyn std::fmt::Display| EndpointError::Tls(e.to_string());
        let transport = Arc::new(transport().map_err(|e| tls(&e))?);
        let mut ours = quinn::EndpointConfig::default();
        ours.max_udp_payload_size(DATAGRAM_BYTES_MAX).map_err(|e| tls(&e))?;
        let server = server_config(&identity, &gate, &transport).map_err(|e| tls(&e))?;
        let quinn = quinn::Endpoint::new(ours, Some(server.clone()), socket, Arc::new(quinn::TokioRuntime))
            .map_err(|source| EndpointError::Bind { at: SocketAddr::from(([0; 4], config.port)), source })?;
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let acceptor = Acceptor { quinn: quinn.clone(), identity: identity.clone(), gate: gate.clone(), base: server };
        let acceptor = tokio::spawn(acceptor.run(sender)).abort_handle();
        Ok((Self { quinn, identity, gate, transport, acceptor }, Arrivals(arrivals)))
    }

    /// The port that was had.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.quinn.local_addr().map_or(0, |addr| addr.port())
    }

    /// This machine's identity.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Who may connect.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Dials. The other side has then proved its key, but may still refuse ours: its answer to the first message tells.
    ///
    /// # Errors
    /// If nobody answers in time, or the wrong one.
    pub async fn connect(&self, addr: SocketAddr, expect: Expect) -> Result<Link, LinkError> {
        let failed = |why: String| LinkError::Failed { addr, why };
        let (tls, seen) = tls::client_config(&self.identity, &self.gate, expect).map_err(|e| failed(e.to_string()))?;
        let quic = QuicClientConfig::try_from(tls).map_err(|e| failed(e.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(quic));
        config.transport_config(self.transport.clone());
        let connecting =
            self.quinn.connect_with(config, addr, NAME).map_err(|e| LinkError::Address { addr, why: e.to_string() })?;
        let conn = match tokio::time::timeout(HANDSHAKE, connecting).await {
            Err(_) => return Err(LinkError::Silent(addr)),
            Ok(Err(error)) => return Err(explain(addr, &error, expect, &seen, &self.gate)),
            Ok(Ok(conn)) => conn,
        };
        let link = authenticated(conn, &self.identity, true).map_err(failed)?;
        // The verifier has said so already; a session that skipped it must not get further.
        let right = match expect {
            Expect::Peer(id) => link.peer == id && self.gate.is_member(&id),
            Expect::AnyMember => self.gate.is_member(&link.peer),
            Expect::Inviter | Expect::Introducer => true,
        };
        if right && link.protocol == expect.protocol() {
            return Ok(link);
        }
        link.close(close::NOT_MEMBER, "not who was expected");
        Err(wrong_key(addr, expect, link.peer))
    }

    /// Closes all connections, telling the other ends why, and waits until they have been told.
    pub async fn close(&self, reason: &str) {
        self.acceptor.abort();
        self.quinn.close(VarInt::from_u32(close::LEAVING), reason.as_bytes());
        let _ = tokio::time::timeout(HANDSHAKE, self.quinn.wait_idle()).await;
    }
}

/// Why our own verifier refused the other side.
fn wrong_key(addr: SocketAddr, expect: Expect, found: PeerId) -> LinkError {
    match expect {
        Expect::Peer(expected) if expected != found => LinkError::WrongKey { addr, expected, found },
        _ => LinkError::NotMember { addr, found },
    }
}

/// What a failed dial means: a key that was shown and not wanted explains more than the alert that we sent.
fn explain(
    addr: SocketAddr,
    error: &ConnectionError,
    expect: Expect,
    seen: &OnceLock<PeerId>,
    gate: &Gate,
) -> LinkError {
    let ours = matches!(error, ConnectionError::TransportError(_));
    match seen.get() {
        Some(found) if ours && (expect != Expect::Peer(*found) || !gate.is_member(found)) => {
            wrong_key(addr, expect, *found)
        }
        _ => LinkError::of(addr, error),
    }
}

/// Takes in connections until the endpoint closes.
struct Acceptor {
    quinn: quinn::Endpoint,
    identity: Arc<Identity>,
    gate: Arc<Gate>,
    base: quinn::ServerConfig,
}

impl Acceptor {
    async fn run(self, arrivals: mpsc::Sender<Link>) {
        // Ends with this task, and all its handshakes with it.
        let mut handshakes: JoinSet<Option<Link>> = JoinSet::new();
        let mut sources = Sources::default();
        loop {
            tokio::select! {
                incoming = self.quinn.accept() => match incoming {
                    Some(incoming) => self.take(incoming, &mut handshakes, &mut sources),
                    None => return,
                },
                Some(done) = handshakes.join_next(), if !handshakes.is_empty() => {
                    let Ok(Some(link)) = done else { continue };
                    if let Err(mpsc::error::TrySendError::Full(link)) = arrivals.try_send(link) {
                        link.close(close::BUSY, "too many connections at once");
                    }
                }
            }
        }
    }

    /// Begins one handshake, or not.
    fn take(&self, incoming: quinn::Incoming, handshakes: &mut JoinSet<Option<Link>>, sources: &mut Sources) {
        if handshakes.len() >= HANDSHAKES_MAX {
            incoming.refuse();
            return;
        }
        if handshakes.len() > RETRY_ABOVE && !incoming.remote_address_validated() && incoming.may_retry() {
            // Fails only if a retry is not allowed, which was asked.
            let _ = incoming.retry();
            return;
        }
        let from = canonical(incoming.remote_address());
        // Only who showed its address is counted: else anybody could fill a member's share in its name.
        let held = if incoming.remote_address_validated() {
            let Some(held) = sources.hold(from.ip()) else {
                incoming.refuse();
                return;
            };
            Some(held)
        } else {
            None
        };
        let crypto = tls::server_config(&self.identity, &self.gate).map(QuicServerConfig::try_from);
        let Ok(Ok(crypto)) = crypto else {
            incoming.refuse();
            return;
        };
        // A copy of the endpoint's own configuration, so that its address tokens stay valid.
        let mut config = self.base.clone();
        config.crypto = Arc::new(crypto);
        let (identity, gate) = (self.identity.clone(), self.gate.clone());
        handshakes.spawn(async move {
            let _held = held;
            let connecting = incoming.accept_with(Arc::new(config)).ok()?;
            match tokio::time::timeout(HANDSHAKE, connecting).await {
                Ok(Ok(conn)) => admit(conn, &identity, &gate),
                Ok(Err(error)) => {
                    tracing::debug!(%from, %error, "a handshake failed");
                    None
                }
                Err(_) => {
                    tracing::debug!(%from, "a handshake was not finished in time");
                    None
                }
            }
        });
    }
}

/// The addresses of unfinished handshakes. Each entry lives as long as its handshake, however that ends, and there are
/// no more of them than handshakes.
#[derive(Default)]
struct Sources(Vec<Weak<IpAddr>>);

impl Sources {
    /// Takes one place of an address's share, which is free again when what is returned is dropped. None if the share
    /// is used up.
    fn hold(&mut self, from: IpAddr) -> Option<Arc<IpAddr>> {
        self.0.retain(|held| held.strong_count() > 0);
        let of_source = self.0.iter().filter_map(Weak::upgrade).filter(|held| **held == from).count();
        if of_source >= HANDSHAKES_PER_SOURCE {
            return None;
        }
        let held = Arc::new(from);
        self.0.push(Arc::downgrade(&held));
        Some(held)
    }
}

/// Checks once more, after the handshake, whether its other end may be here.
fn admit(conn: Connection, identity: &Identity, gate: &Gate) -> Option<Link> {
    let link = authenticated(conn, identity, false).ok()?;
    if gate.lets_in(link.protocol, &link.peer) {
        return Some(link);
    }
    link.close(close::NOT_MEMBER, "not a member");
    None
}

/// The link that a connection is, from the key that its other end proved.
fn authenticated(conn: Connection, identity: &Identity, dialled: bool) -> Result<Link, String> {
    let found = (|| {
        let identity = conn.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        let [certificate] = identity.as_slice() else { return None };
        let data = conn.handshake_data()?.downcast::<HandshakeData>().ok()?;
        Some((tls::key_of(certificate)?, Protocol::of_alpn(&data.protocol?)?))
    })();
    let Some((key, protocol)) = found else {
        conn.close(VarInt::from_u32(close::NOT_MEMBER), b"no key");
        return Err("the other side showed no key".to_owned());
    };
    Ok(Link { conn, peer: key.peer(), key, my_key: identity.public_key(), protocol, dialled })
}

fn server_config(
    identity: &Identity,
    gate: &Arc<Gate>,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ServerConfig, String> {
    let tls = tls::server_config(identity, gate).map_err(|e| e.to_string())?;
    let quic = QuicServerConfig::try_from(tls).map_err(|e| e.to_string())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(quic));
    config.transport_config(transport.clone());
    config.max_incoming(INCOMING_MAX);
    Ok(config)
}

fn transport() -> Result<TransportConfig, quinn::VarIntBoundsExceeded> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM_BYTES_MAX);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE)?))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .enable_segmentation_offload(true)
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(limits::STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES));
    Ok(config)
}

/// The wanted port, or any if it is taken.
fn open_socket(config: &EndpointConfig) -> Result<UdpSocket, EndpointError> {
    let ips: Vec<IpAddr> = match config.ip {
        Some(ip) => vec![ip],
        // One socket for both families; a host without IPv6 refuses the first.
        None => vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()],
    };
    let mut last = None;
    for port in [config.port, 0] {
        for ip in &ips {
            let at = SocketAddr::new(*ip, port);
            match bind(at) {
                Ok(socket) => return Ok(socket),
                Err(source) => last = Some(EndpointError::Bind { at, source }),
            }
        }
    }
    Err(last.expect("at least one address was tried"))
}

fn bind(at: SocketAddr) -> io::Result<UdpSocket> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::DGRAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // Best effort: what the kernel gives is enough for correctness.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES);
    let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES);
    rustix::net::bind(&socket, &at)?;
    Ok(UdpSocket::from(socket))
}

/// An address as people write it: IPv4 not dressed as IPv6.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => SocketAddr::new(v6.ip().to_canonical(), v6.port()),
        other => other,
    }
}
