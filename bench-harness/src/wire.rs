//! A blocking connection to a server: events of its protocol in, packets out, questions in text.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wire_protocol::{Event, Protocol};

const READ_BYTES: usize = 64 << 10;
/// Longest silence of a server.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects, for as long as the server isn't silent for too long.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).context("a connection to the server")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads what is there into `into`; answers with how much that is.
fn read(mut stream: &TcpStream, into: &mut [u8]) -> Result<usize> {
    loop {
        match stream.read(into) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(bytes) => return Ok(bytes),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("the server doesn't answer"),
        }
    }
}

/// Asks, and waits until `complete` makes something of the answer.
pub(crate) fn ask<T>(
    mut stream: &TcpStream,
    question: &[u8],
    complete: impl Fn(&[u8]) -> Option<Result<T>>,
) -> Result<T> {
    stream.write_all(question)?;
    let (mut answer, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(result) = complete(&answer) {
            return result.with_context(|| answer.escape_ascii().to_string());
        }
        let length = read(stream, &mut bytes)?;
        answer.extend_from_slice(&bytes[..length]);
    }
}

/// A connection that answers are cut from.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    protocol: Protocol,
    inbox: Vec<u8>,
    /// Bytes of `inbox` that have been read from the socket.
    filled: usize,
    used: usize,
    /// What is to be written next.
    pub(crate) outbox: Vec<u8>,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr, protocol: Protocol) -> Result<Self> {
        Self::with_room(address, protocol, READ_BYTES)
    }

    /// With room for answers of so many bytes, in pages that the kernel has given already.
    pub(crate) fn with_room(address: SocketAddr, protocol: Protocol, bytes: usize) -> Result<Self> {
        let (stream, inbox, outbox) = (connect(address)?, vec![b'x'; bytes], Vec::new());
        Ok(Self { stream, protocol, inbox, filled: 0, used: 0, outbox })
    }

    /// Writes what stands in the outbox.
    pub(crate) fn send(&mut self) -> Result<()> {
        self.stream.write_all(&self.outbox).context("the server doesn't read")?;
        self.outbox.clear();
        Ok(())
    }

    /// Waits for the next event and hands it to `take`, with the outbox for an answer.
    pub(crate) fn next<T>(&mut self, take: impl FnOnce(Event<'_>, &mut Vec<u8>) -> T) -> Result<T> {
        loop {
            let unread = &self.inbox[self.used..self.filled];
            if let Some((event, bytes)) = self.protocol.cut(unread)? {
                self.used += bytes;
                return Ok(take(event, &mut self.outbox));
            }
            if self.used > 0 {
                self.inbox.copy_within(self.used..self.filled, 0);
                self.filled -= self.used;
                self.used = 0;
            }
            if self.filled == self.inbox.len() {
                self.inbox.resize(2 * self.filled, 0);
            }
            self.filled += read(&self.stream, &mut self.inbox[self.filled..])?;
        }
    }
}
