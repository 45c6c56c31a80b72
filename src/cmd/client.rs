//! A question to the agent and its answers, over its socket, without waiting longer than the question is worth (DO).

use super::failure::{Failure, NO_AGENT, TIMEOUT, told};
use crate::{
    agent::wire::{ASK_BYTES_MAX, Ask, TELL_BYTES_MAX, Tell},
    places::Places,
    view::snapshot::Snapshot,
};
use mesh_proto::frame;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::{
    io::{ErrorKind, Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

/// The agent answers a question about itself within this time.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(5);

/// A connection to the agent.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    until: Instant,
}

/// The places of this user.
pub(super) fn places() -> Result<Places, Failure> {
    let uid = rustix::process::geteuid().as_raw();
    Places::find(|name| std::env::var_os(name), uid, Path::exists).ok_or_else(|| {
        Failure::new("there is no place for mesh's files, because HOME is not set. Set HOME, or MESH_DIR")
    })
}

fn not_running() -> Failure {
    Failure::coded(NO_AGENT, "the agent is not running. Start it with: mesh up")
}

fn silent() -> Failure {
    Failure::coded(
        TIMEOUT,
        "the agent does not answer. It may be suspended or very busy. Try again, or end its process and run: mesh up",
    )
}

pub(super) fn foreign() -> Failure {
    Failure::new("the agent speaks another version of mesh. Restart it: mesh down, then mesh up")
}

impl Client {
    /// Connects and asks; answers may come for `limit`.
    pub(super) fn ask(places: &Places, ask: &Ask, limit: Duration) -> Result<Self, Failure> {
        let mut client = Self { stream: connect(&places.socket)?, until: Instant::now() + limit };
        let bytes =
            frame::encode(ask, ASK_BYTES_MAX).map_err(|e| Failure::new(format!("this is too long to ask: {e}")))?;
        let sent = client.stream.set_write_timeout(Some(ANSWER_TIME)).and_then(|()| client.stream.write_all(&bytes));
        sent.map_err(|e| failed(&e))?;
        Ok(client)
    }

    /// The next answer; an answer that it cannot be done is the failure.
    pub(super) fn next(&mut self) -> Result<Tell, Failure> {
        match self.read().map_err(|e| failed(&e))? {
            Tell::Failed { code, text } => Err(Failure::coded(code.max(1), told(&text))),
            tell => Ok(tell),
        }
    }

    /// Waits until the agent says something, for as long as it is seen to live.
    pub(super) fn wait(&self, places: &Places) -> std::io::Result<()> {
        super::cc::wait_for_word(places, &self.stream)
    }

    /// Leaves the connection open in the program that this process becomes.
    pub(super) fn outlive(&self) {
        let _ = rustix::io::fcntl_setfd(&self.stream, rustix::io::FdFlags::empty());
    }

    fn read(&mut self) -> std::io::Result<Tell> {
        let malformed = |_| std::io::Error::from(ErrorKind::InvalidData);
        let header: [u8; frame::HEADER_BYTES] =
            self.bytes(frame::HEADER_BYTES)?.try_into().map_err(|_| ErrorKind::InvalidData)?;
        let length = frame::length(header, TELL_BYTES_MAX).map_err(malformed)?;
        frame::decode(&self.bytes(length)?).map_err(malformed)
    }

    /// So many bytes, by the deadline however slowly they come.
    fn bytes(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut piece = [0; 16 << 10];
        while bytes.len() < length {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let most = piece.len().min(length - bytes.len());
            match self.stream.read(&mut piece[..most]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => bytes.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(bytes)
    }
}

fn failed(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => silent(),
        ErrorKind::InvalidData => foreign(),
        _ => Failure::coded(
            NO_AGENT,
            "the agent went away in the middle of an answer. See: mesh status; or start it: mesh up",
        ),
    }
}

/// Connects without ever waiting: a stopped agent whose queue is full would hold a blocking `connect` for ever.
fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    let own = |meta: std::fs::Metadata| meta.uid() == rustix::process::geteuid().as_raw();
    match std::fs::symlink_metadata(socket).map(own) {
        Ok(true) => {}
        Ok(false) => {
            let text = format!("the socket {} belongs to another user. Check MESH_SOCKET", socket.display());
            return Err(Failure::new(text));
        }
        Err(_) => return Err(not_running()),
    }
    match dial(socket) {
        Ok(stream) => Ok(stream),
        Err(Errno::NAMETOOLONG) => Err(Failure::new(format!(
            "the socket's path is too long: {}. Set MESH_SOCKET to a shorter one",
            socket.display()
        ))),
        Err(Errno::AGAIN) => Err(silent()),
        Err(_) => Err(not_running()),
    }
}

/// Connects to a socket without waiting, not even for an agent whose queue is full ([`Errno::AGAIN`]).
pub(super) fn dial(socket: &Path) -> Result<UnixStream, Errno> {
    let address = SocketAddrUnix::new(socket)?;
    let stream = UnixStream::from(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::empty(),
        None,
    )?);
    rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&stream, true)?;
    rustix::net::connect(&stream, &address)?;
    rustix::io::ioctl_fionbio(&stream, false)?;
    Ok(stream)
}

/// Everything there is to see.
pub(super) fn snapshot(places: &Places) -> Result<Snapshot, Failure> {
    match Client::ask(places, &Ask::Snapshot, ANSWER_TIME)?.next()? {
        Tell::Snapshot(snapshot) => Ok(*snapshot),
        _ => Err(foreign()),
    }
}

/// Asks for something to be done, prints notes on the way, and gives the line that says what was done.
pub(super) fn do_it(places: &Places, ask: &Ask, limit: Duration, note: impl Fn(&str)) -> Result<String, Failure> {
    let mut client = Client::ask(places, ask, limit)?;
    loop {
        match client.next()? {
            Tell::Note(line) => note(&told(&line)),
            Tell::Finished(line) => return Ok(told(&line)),
            _ => return Err(foreign()),
        }
    }
}

/// The records of units with one of these paths, or of the last unit.
pub(super) fn explain(
    places: &Places,
    path: Option<Vec<u8>>,
) -> Result<Vec<crate::view::snapshot::UnitRecord>, Failure> {
    match Client::ask(places, &Ask::Explain { path }, ANSWER_TIME)?.next()? {
        Tell::Explained(units) => Ok(units),
        _ => Err(foreign()),
    }
}

/// Whether nothing listens at the socket.
pub(super) fn is_gone(places: &Places) -> bool {
    connect(&places.socket).is_err_and(|e| e.code == NO_AGENT)
}
