//! The streams of a connection, with what is said on them (DO).

use super::{
    endpoint::Link,
    stream::{self, Packed, StreamError},
};
use quinn::{RecvStream, SendStream, VarInt};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// The code with which a stream is reset: its job is cancelled.
const CANCELLED: u32 = 0x2200;

/// The sending half of a stream. Dropped before [`Sender::finish`], it resets the stream: that cancels.
#[derive(Debug)]
pub struct Sender {
    stream: SendStream,
    finished: bool,
}

/// The receiving half of a stream. Dropped, it tells the other side to stop sending.
#[derive(Debug)]
pub struct Receiver(RecvStream);

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.stream.reset(VarInt::from_u32(CANCELLED));
        }
    }
}

impl Sender {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self { stream, finished: false }
    }

    /// Sends one message; see [`stream::send`].
    ///
    /// # Errors
    /// If it is too long or the stream broke.
    pub async fn send<T: Serialize>(&mut self, message: &T, bytes_max: usize) -> Result<(), StreamError> {
        stream::send(&mut self.stream, message, bytes_max).await
    }

    /// Sends bytes that are frames and packed blobs already.
    ///
    /// # Errors
    /// If the stream broke.
    pub async fn send_bytes(&mut self, wire: &[u8]) -> Result<(), StreamError> {
        Ok(self.stream.write_all(wire).await?)
    }

    /// What is sent from now on waits for what other streams of the connection have to send.
    pub fn give_way(&self) {
        // Streams begin with 0; the kind of error is a stream that has ended.
        let _ = self.stream.set_priority(-1);
    }

    /// Ends the stream: everything was said.
    pub fn finish(mut self) {
        self.finished = true;
        let _ = self.stream.finish();
    }

    /// Ends when the other side no longer wants to hear, or is gone.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let stopped = self.stream.stopped();
        async move {
            let _ = stopped.await;
        }
    }
}

impl Receiver {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self(stream)
    }

    /// Receives one message; see [`stream::recv`].
    ///
    /// # Errors
    /// If it is late, too long or malformed, or the stream ended or broke.
    pub async fn receive<T: DeserializeOwned>(
        &mut self,
        bytes_max: usize,
        deadline: Duration,
    ) -> Result<T, StreamError> {
        stream::recv(&mut self.0, bytes_max, deadline).await
    }

    /// Receives a blob of exactly this size as it is on the wire; when it must have come is the caller's to say.
    ///
    /// # Errors
    /// If the stream broke, or the blocks cannot be those of so many bytes.
    pub async fn receive_packed(&mut self, size: u64) -> Result<Packed, StreamError> {
        stream::recv_packed(&mut self.0, size).await
    }
}

impl Link {
    /// Opens a bidirectional stream.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn open_bi(&self) -> Result<(Sender, Receiver), StreamError> {
        let (send, recv) = self.conn.open_bi().await.map_err(gone)?;
        Ok((Sender::new(send), Receiver(recv)))
    }

    /// Waits for a bidirectional stream that the other side opens.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn accept_bi(&self) -> Result<(Sender, Receiver), StreamError> {
        let (send, recv) = self.conn.accept_bi().await.map_err(gone)?;
        Ok((Sender::new(send), Receiver(recv)))
    }

    /// Opens a stream of one direction.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn open_uni(&self) -> Result<Sender, StreamError> {
        Ok(Sender::new(self.conn.open_uni().await.map_err(gone)?))
    }

    /// Waits for a stream of one direction that the other side opens.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn accept_uni(&self) -> Result<Receiver, StreamError> {
        Ok(Receiver(self.conn.accept_uni().await.map_err(gone)?))
    }

    /// The round trip time, microseconds, as measured last.
    #[must_use]
    pub fn rtt_us(&self) -> u64 {
        u64::try_from(self.conn.rtt().as_micros()).unwrap_or(u64::MAX)
    }
}

fn gone(error: quinn::ConnectionError) -> StreamError {
    StreamError::Write(quinn::WriteError::ConnectionLost(error))
}
