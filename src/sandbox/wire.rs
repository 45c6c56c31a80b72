//! What the agent and the job's own processes tell each other over the job's socket (DO).
//!
//! Length, then postcard. The agent sends one [`Start`]. From a job come back at most one [`Report::Ready`] with the
//! output layer's descriptor, and one report of the end. From a template comes one [`Report::Standing`], after which it
//! is sent [`Command`]s; each of its jobs has a socket of its own to report on. Both ends are this very binary, so there
//! is no version.

use super::{
    Cost, Enforced, Exit, Step,
    policy::{Mould, Policy, Update},
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One frame, bytes: a policy with the largest closure fits.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// One read, bytes.
const READ_BYTES: usize = 64 << 10;

/// Descriptors that come with one frame.
pub(super) const FDS_MAX: usize = 4;

/// What a freshly started process becomes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Start<P = Policy> {
    /// One job. If it is said to, what puts it into its control group comes with it.
    Job(P, bool),
    /// A template.
    Template(Mould),
}

/// What a template is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Command<U = Update, P = Policy> {
    /// Its tree changes.
    Update(U),
    /// A job starts, with these descriptors: standard output, standard error, the socket to report on; and if it is said
    /// to, what puts it into its control group.
    Job(P, bool),
}

/// What the job's processes report.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// A step failed; there will be no more.
    Failed {
        /// Which.
        step: Step,
        /// On what.
        path: Vec<u8>,
        /// The system's error number.
        errno: i32,
    },
    /// The sandbox stands and the program is about to start. The output layer's descriptor comes with it.
    Ready(Enforced),
    /// The template has its namespaces and an empty tree.
    Standing,
    /// The program ended.
    Ended {
        /// How.
        exit: Exit,
        /// At what cost.
        cost: Cost,
    },
}

/// Sends one value, and with it at most [`FDS_MAX`] descriptors.
pub(super) fn send<T: Serialize>(socket: BorrowedFd<'_>, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut frame = vec![0; 4];
    frame = postcard::to_extend(value, frame).map_err(io::Error::other)?;
    let length = u32::try_from(frame.len() - 4).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    let mut sent = 0;
    let mut passing = Some(fds).filter(|fds| !fds.is_empty());
    while sent < frame.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(fds) = passing.take()
            && !control.push(SendAncillaryMessage::ScmRights(fds))
        {
            return Err(io::Error::other("too many descriptors for one frame"));
        }
        match rustix::net::sendmsg(socket, &[IoSlice::new(&frame[sent..])], &mut control, SendFlags::NOSIGNAL) {
            Ok(bytes) => sent += bytes,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The receiving end: bytes and descriptors that have come, and what of it is whole.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Inbox {
    /// Reads once; `false` at the end of the stream.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX + 1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let start = self.bytes.len();
        self.bytes.resize(start + READ_BYTES, 0);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = loop {
            let into = &mut [IoSliceMut::new(&mut self.bytes[start..])];
            match rustix::net::recvmsg(socket, into, &mut control, flags) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        self.bytes.truncate(start + got.as_ref().map_or(0, |got| got.bytes));
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        match got {
            Ok(got) => Ok(got.bytes > 0),
            Err(rustix::io::Errno::CONNRESET) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The next whole value, if one has come.
    pub(super) fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(length) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::other("a frame over the limit"));
        }
        let Some(payload) = self.bytes.get(4..4 + length) else { return Ok(None) };
        let value = postcard::from_bytes(payload).map_err(io::Error::other)?;
        self.bytes.drain(..4 + length);
        Ok(Some(value))
    }

    /// The oldest descriptor that came.
    pub(super) fn take_fd(&mut self) -> Option<OwnedFd> {
        if self.fds.is_empty() { None } else { Some(self.fds.remove(0)) }
    }
}

/// Waits for one value. What came after it stays in the inbox.
pub(super) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>, inbox: &mut Inbox) -> io::Result<T> {
    loop {
        if let Some(value) = inbox.take()? {
            return Ok(value);
        }
        if !inbox.fill(socket.as_fd())? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn a_descriptor_arrives_with_its_report_and_pieces_are_joined() {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let sender = std::thread::spawn(move || {
            send(a.as_fd(), &vec![7_u8; 1 << 20], &[file.as_fd()]).unwrap();
            send(a.as_fd(), &"end".to_owned(), &[]).unwrap();
        });
        let mut inbox = Inbox::default();
        let first: Vec<u8> = loop {
            if let Some(value) = inbox.take().unwrap() {
                break value;
            }
            assert!(inbox.fill(b.as_fd()).unwrap());
        };
        assert_eq!(first, vec![7_u8; 1 << 20]);
        assert!(inbox.take_fd().is_some() && inbox.take_fd().is_none());
        sender.join().unwrap();
        while inbox.fill(b.as_fd()).unwrap() {}
        assert_eq!(inbox.take::<String>().unwrap().as_deref(), Some("end"));
    }
}
