//! Responses in, chunks of bytes out: what waits to leave one connection.
//!
//! Small packets are appended to one buffer, so that a batch leaves with one send; payloads of
//! `SHARED_BYTES_MIN` or more are not copied but leave from the allocation they lie in. A driver
//! takes a chunk, owns it while the kernel reads it, and gives it back. Knows no socket.
//!
//! Invariant: `bytes` counts everything that was pushed and not yet reported as sent, chunks that a
//! driver holds included; it is what back-pressure goes by.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::packet::Response;

/// Payloads from here on are sent from their own allocation.
pub const SHARED_BYTES_MIN: usize = 16 << 10;
/// The buffer of small packets is closed at this size and another one begun.
const CHUNK_BYTES: usize = 128 << 10;
/// A buffer above this size isn't kept for the connection's next packets.
const KEPT_BYTES_MAX: usize = 4 << 10;

/// Bytes that leave together.
#[derive(Debug)]
pub enum Chunk {
    /// Small packets, one behind another.
    Packets(Vec<u8>),
    /// A large payload.
    Payload(Bytes),
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Packets(bytes) => bytes,
            Self::Payload(bytes) => bytes,
        }
    }
}

/// The sending side of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Closed chunks, the oldest first.
    chunks: VecDeque<Chunk>,
    /// The packets behind them.
    tail: Vec<u8>,
    bytes: usize,
    /// Bytes of the packet that was pushed last.
    last_bytes: usize,
}

impl Outbox {
    /// Appends a packet.
    #[inline]
    pub fn push(&mut self, response: &Response<'_>) {
        let before = self.tail.len();
        response.head(&mut self.tail);
        let payload = response.payload();
        let payload_bytes = payload.bytes().len();
        self.last_bytes = self.tail.len() - before + payload_bytes;
        self.bytes += self.last_bytes;
        if payload_bytes >= SHARED_BYTES_MIN
            && let Some(shared) = payload.share()
        {
            self.close_tail();
            self.chunks.push_back(Chunk::Payload(shared));
        } else {
            self.tail.extend_from_slice(payload.bytes());
            if self.tail.len() >= CHUNK_BYTES {
                self.close_tail();
            }
        }
    }

    /// Appends bytes of an admin reply.
    pub fn push_text(&mut self, text: &[u8]) {
        self.tail.extend_from_slice(text);
        self.last_bytes = text.len();
        self.bytes += text.len();
        if self.tail.len() >= CHUNK_BYTES {
            self.close_tail();
        }
    }

    /// Bytes that have not been reported as sent.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same before the last packet was pushed.
    #[inline]
    #[must_use]
    pub fn bytes_before_last(&self) -> usize {
        self.bytes.saturating_sub(self.last_bytes)
    }

    /// Hands out the oldest chunk, and whether more stand behind it.
    #[inline]
    pub fn take(&mut self) -> Option<(Chunk, bool)> {
        if let Some(chunk) = self.chunks.pop_front() {
            let more = !self.chunks.is_empty() || !self.tail.is_empty();
            return Some((chunk, more));
        }
        if self.tail.is_empty() {
            return None;
        }
        Some((Chunk::Packets(std::mem::take(&mut self.tail)), false))
    }

    /// Whether `take` has something to hand out.
    #[inline]
    #[must_use]
    pub fn has_chunks(&self) -> bool {
        !self.tail.is_empty() || !self.chunks.is_empty()
    }

    /// A chunk has left; its buffer serves again.
    #[inline]
    pub fn sent(&mut self, chunk: Chunk) {
        self.bytes -= chunk.as_ref().len();
        if let Chunk::Packets(mut buffer) = chunk
            && self.tail.capacity() == 0
            && buffer.capacity() <= KEPT_BYTES_MAX
        {
            buffer.clear();
            self.tail = buffer;
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(Chunk::Packets(std::mem::take(&mut self.tail)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Payload;

    fn echo(payload: Payload<'_>) -> Response<'_> {
        Response::EchoRes { payload }
    }

    #[test]
    fn small_packets_leave_together_and_the_buffer_serves_again() {
        let mut outbox = Outbox::default();
        (0..3).for_each(|_| outbox.push(&Response::NoJob));
        outbox.push_text(b"OK\r\n");
        assert_eq!((outbox.bytes(), outbox.bytes_before_last()), (40, 36));
        let (chunk, more) = outbox.take().unwrap();
        assert_eq!((chunk.as_ref().len(), more), (40, false));
        assert_eq!(outbox.bytes(), 40, "until it has been sent");
        let buffer = chunk.as_ref().as_ptr();
        outbox.sent(chunk);
        assert_eq!(outbox.bytes(), 0);
        assert!(outbox.take().is_none());
        outbox.push(&Response::Noop);
        assert_eq!(outbox.take().unwrap().0.as_ref().as_ptr(), buffer);
    }

    #[test]
    fn large_payloads_leave_from_their_own_allocation_in_their_place() {
        let mut outbox = Outbox::default();
        let large = Bytes::from(vec![b'l'; SHARED_BYTES_MIN]);
        outbox.push(&Response::NoJob);
        outbox.push(&echo(Payload::shared(&large)));
        outbox.push(&Response::Noop);
        let chunks: Vec<(Chunk, bool)> = std::iter::from_fn(|| outbox.take()).collect();
        let lengths: Vec<usize> = chunks.iter().map(|(chunk, _)| chunk.as_ref().len()).collect();
        assert_eq!(lengths, [24, SHARED_BYTES_MIN, 12]);
        assert!(chunks.iter().map(|(_, more)| *more).eq([true, true, false]));
        assert_eq!(chunks[1].0.as_ref().as_ptr(), large.as_ptr());
        assert_eq!(outbox.bytes(), 36 + SHARED_BYTES_MIN);
        chunks.into_iter().for_each(|(chunk, _)| outbox.sent(chunk));
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn payloads_that_are_small_or_borrowed_are_copied() {
        let mut outbox = Outbox::default();
        let bytes = Bytes::from(vec![b'x'; SHARED_BYTES_MIN]);
        outbox.push(&echo(Payload::shared(&bytes).from(1)));
        outbox.push(&echo(Payload::borrowed(&bytes)));
        let (chunk, more) = outbox.take().unwrap();
        assert_eq!((chunk.as_ref().len(), more), (24 + 2 * SHARED_BYTES_MIN - 1, false));
    }

    #[test]
    fn chunks_and_the_kept_buffer_are_bounded() {
        let mut outbox = Outbox::default();
        let text = [b't'; 1000];
        (0..1000).for_each(|_| outbox.push_text(&text));
        let mut total = 0;
        while let Some((chunk, _)) = outbox.take() {
            assert!(chunk.as_ref().len() <= CHUNK_BYTES + text.len());
            total += chunk.as_ref().len();
            outbox.sent(chunk);
            assert!(
                outbox.tail.capacity() <= CHUNK_BYTES + 4 * text.len() || !outbox.tail.is_empty()
            );
        }
        assert_eq!((total, outbox.bytes()), (1_000_000, 0));
        assert!(outbox.tail.capacity() <= KEPT_BYTES_MAX, "idle connections keep little");
    }
}
