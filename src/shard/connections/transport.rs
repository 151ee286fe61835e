//! What is between a connection's bytes and its frames: nothing, or TLS records.
//!
//! The records' state, whether the handshake is still open, and what the peer's certificate says.
//! Knows no socket and no list of rules.
//!
//! Invariant: what is sealed leaves in the order in which it was sealed.

use std::sync::Arc;

use crate::protocol::access::Certificate;
use crate::wire::outbox::{Chunk, Outbox};
use crate::wire::tls::{SEAL_BYTES_MAX, TlsConnection};

/// How a connection's bytes come in and leave.
#[derive(Debug, Default)]
pub(in crate::shard) struct Transport {
    /// If its listener speaks TLS.
    tls: Option<Box<TlsConnection>>,
    /// The handshake is counted as one that is open.
    pub(in crate::shard) is_handshaking: bool,
    /// The peer's, once it is verified.
    pub(in crate::shard) certificate: Option<Arc<Certificate>>,
}

/// For checks that try all orders of events from the same state; their connections have no TLS.
impl Clone for Transport {
    fn clone(&self) -> Self {
        debug_assert!(self.tls.is_none(), "TLS state can't be copied");
        Self::default()
    }
}

impl Transport {
    /// TLS whose peer has said nothing yet.
    pub(in crate::shard) fn tls(tls: TlsConnection) -> Self {
        Self { tls: Some(Box::new(tls)), is_handshaking: true, certificate: None }
    }

    /// Whether bytes are frames as they are.
    #[inline]
    pub(in crate::shard) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    /// The records' state.
    pub(in crate::shard) fn records(&self) -> Option<&TlsConnection> {
        self.tls.as_deref()
    }

    /// Takes the records' state out, for what they bring to change the connection meanwhile;
    /// `put_back` has to follow.
    pub(in crate::shard) fn take_records(&mut self) -> Option<Box<TlsConnection>> {
        self.tls.take()
    }

    pub(in crate::shard) fn put_back(&mut self, tls: Box<TlsConnection>) {
        self.tls = Some(tls);
    }

    /// Whether everything has been handed out that has to leave before the connection is closed.
    pub(in crate::shard) fn is_flushed(&self) -> bool {
        self.tls
            .as_ref()
            .is_none_or(|tls| !tls.wants_write() && (tls.is_closed() || !tls.is_finished()))
    }

    /// Whether `seal_next` has something to hand out.
    pub(in crate::shard) fn has_records(&self, outbox: &Outbox, is_closing: bool) -> bool {
        self.tls.as_ref().is_some_and(|tls| {
            let is_open = tls.is_finished() && !tls.is_closed();
            tls.wants_write()
                || is_open && (outbox.has_chunks() || is_closing && outbox.held() == 0)
        })
    }

    /// The next records to send, which count in `outbox` until they are sent: of the handshake, of
    /// chunks that wait, and, if the connection `is_closing`, the last one. `look` sees the chunks.
    pub(in crate::shard) fn seal_next(
        &mut self,
        outbox: &mut Outbox,
        is_closing: bool,
        mut look: impl FnMut(&Chunk),
    ) -> Option<Chunk> {
        let tls = self.tls.as_mut()?;
        let (mut bytes, mut counted) = (Vec::new(), 0);
        if tls.is_finished() && !tls.is_closed() {
            let mut chunks = Vec::new();
            while counted < SEAL_BYTES_MAX
                && let Some(chunk) = outbox.take_up_to(SEAL_BYTES_MAX - counted)
            {
                counted += chunk.as_ref().len();
                look(&chunk);
                chunks.push(chunk);
            }
            let slices: Vec<&[u8]> = chunks.iter().map(AsRef::as_ref).collect();
            tls.seal(&slices, &mut bytes);
            if is_closing && !outbox.has_chunks() && outbox.held() == 0 {
                tls.close(&mut bytes);
            }
        } else {
            tls.seal(&[], &mut bytes);
        }
        if bytes.is_empty() {
            return None;
        }
        if counted == 0 {
            counted = bytes.len();
            outbox.count_records(counted);
        }
        Some(Chunk::Records { bytes, counted })
    }
}
