//! A chunk of an outbox that a driver is sending, and how much of it the kernel has taken.

use crate::wire::outbox::Chunk;

/// A chunk that is being sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) chunk: Chunk,
    /// Bytes of the chunk that the kernel has taken.
    pub(super) sent_bytes: usize,
    /// The next chunk follows at once.
    more: bool,
}

impl Sending {
    /// From the first byte on; `more`: the next chunk follows at once.
    pub(super) fn new(chunk: Chunk, more: bool) -> Self {
        Self { chunk, sent_bytes: 0, more }
    }

    /// The bytes that are left to be sent.
    #[inline]
    pub(super) fn rest(&self) -> &[u8] {
        self.chunk.as_ref().get(self.sent_bytes..).unwrap_or_default()
    }

    /// Flags of send(2).
    #[inline]
    pub(super) fn flags(&self) -> libc::c_int {
        libc::MSG_NOSIGNAL | if self.more { libc::MSG_MORE } else { 0 }
    }

    /// The kernel has taken `bytes` bytes; returns whether these were the last.
    #[inline]
    pub(super) fn advance(&mut self, bytes: usize) -> bool {
        self.sent_bytes += bytes;
        self.sent_bytes == self.chunk.as_ref().len()
    }
}
