//! One connection to a server: requests are queued and flushed, packets are read.
//!
//! Knows bytes and packets, but not what they mean for a worker.
//!
//! Invariant: whatever future is dropped, no byte that was read or queued is lost.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::connect::Stream;
use super::packet::{Malformed, Packet, Requests, SLICES_MAX, take_packet};

/// Least room for each read: small packets come by one.
const READ_BYTES: usize = 16 << 10;

/// A buffer that is larger isn't kept when the packet that it grew for has been taken.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// Most reads before a connection is closed.
const LAST_READS_MAX: usize = 16;

/// Why a connection can't be used any longer.
#[derive(Debug)]
pub(super) enum Broken {
    /// The server closed it.
    Closed,
    /// The kernel or TLS says so.
    Io(io::Error),
    /// The server sent what no server sends.
    Malformed(Malformed),
    /// The server didn't answer, or didn't read, for this many seconds.
    Hung(u64),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Io(error) => error.fmt(f),
            Self::Malformed(malformed) => write!(f, "the server sent {malformed}"),
            Self::Hung(seconds) => write!(f, "the server didn't react for {seconds} s"),
        }
    }
}

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    input: BytesMut,
    /// What will be written.
    pub(super) requests: Requests,
    /// Bytes that were read and written.
    progress: u64,
    /// Whether TLS may hold bytes that were written to it.
    is_unflushed: bool,
}

impl Connection {
    /// A connection over a stream that nothing was sent on yet.
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            requests: Requests::default(),
            progress: 0,
            is_unflushed: false,
        }
    }

    /// Bytes that were read and written so far.
    pub(super) fn progress(&self) -> u64 {
        self.progress
    }

    /// Whether the kernel has taken all requests.
    pub(super) fn is_flushed(&self) -> bool {
        self.requests.bytes() == 0 && !self.is_unflushed
    }

    /// Writes the requests that are queued.
    ///
    /// # Errors
    /// What the kernel or TLS says.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.requests.bytes() > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.requests.slices(&mut slices);
            let stream = Pin::new(&mut self.stream);
            // The kernel takes a single slice with less work.
            let written = ready!(match slices.get(..count).unwrap_or_default() {
                [slice] => stream.poll_write(cx, slice),
                slices => stream.poll_write_vectored(cx, slices),
            })?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.requests.advance(written);
            self.progress += written as u64;
            self.is_unflushed = true;
        }
        if self.is_unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the next packet.
    ///
    /// # Errors
    /// Why there will be none.
    pub(super) fn poll_packet(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, Broken>> {
        loop {
            let held = self.input.capacity();
            match take_packet(&mut self.input) {
                Ok(Some(packet)) => {
                    self.shrink(held);
                    return Poll::Ready(Ok(packet));
                }
                Ok(None) => {}
                Err(malformed) => return Poll::Ready(Err(Broken::Malformed(malformed))),
            }
            // A buffer that is full doubles, so that what a header announces is allocated only as
            // it arrives.
            if self.input.capacity() - self.input.len() < READ_BYTES / 4 {
                self.input.reserve(READ_BYTES.max(self.input.len()));
            }
            let read = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
            match ready!(read) {
                Ok(0) => return Poll::Ready(Err(Broken::Closed)),
                Ok(bytes) => self.progress += bytes as u64,
                Err(error) => return Poll::Ready(Err(Broken::Io(error))),
            }
        }
    }

    /// Gives a buffer back that was large before a packet was taken, which may still refer to it.
    fn shrink(&mut self, held: usize) {
        if held > KEPT_BYTES_MAX && self.input.len() < READ_BYTES {
            self.input = BytesMut::from(&*self.input);
        }
    }
}

impl Drop for Connection {
    /// Reads what has arrived: if a socket is closed with unread bytes, the kernel resets the
    /// connection, and the server may lose results that it hasn't read yet.
    fn drop(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let _ = self.poll_flush(&mut cx);
        for _ in 0..LAST_READS_MAX {
            self.input.clear();
            self.input.reserve(READ_BYTES);
            match pin!(self.stream.read_buf(&mut self.input)).poll(&mut cx) {
                Poll::Ready(Ok(1..)) => {}
                _ => break,
            }
        }
        // TLS says that it ends; TCP sends its FIN.
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
    }
}
