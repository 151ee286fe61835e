//! What is between a connection's bytes and its frames: nothing, or TLS records.
//!
//! The records' state, whether the handshake is still open, and what the peer's certificate says.
//! Knows no socket and no list of rules.
//!
//! Invariant: what is sealed leaves in the order in which it was sealed.

use std::io::IoSlice;
use std::sync::Arc;

use crate::protocol::access::Certificate;
use crate::wire::outbox::{Chunk, Outbox};
use crate::wire::tls::{SEAL_BYTES_MAX, TlsConnection};

/// Most chunks that are sealed at once.
const CHUNKS_MAX: usize = 16;
/// Buffers for records that a core keeps, and the largest that it does.
const SPARE_MAX: usize = 16;
const SPARE_BYTES_MAX: usize = 32 << 10;

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
        sealing: &mut Sealing,
        is_closing: bool,
        mut look: impl FnMut(&Chunk),
    ) -> Option<Chunk> {
        let tls = self.tls.as_mut()?;
        let Sealing { chunks, spare } = sealing;
        let mut bytes = spare.pop().unwrap_or_default();
        let mut counted = 0;
        if tls.is_finished() && !tls.is_closed() {
            while counted < SEAL_BYTES_MAX
                && chunks.len() < CHUNKS_MAX
                && let Some(chunk) = outbox.take_up_to(SEAL_BYTES_MAX - counted)
            {
                counted += chunk.as_ref().len();
                look(&chunk);
                chunks.push(chunk);
            }
            let mut slices = [IoSlice::new(&[]); CHUNKS_MAX];
            let filled = slices.iter_mut().zip(&*chunks);
            let count = filled.map(|(slice, it)| *slice = IoSlice::new(it.as_ref())).count();
            tls.seal(slices.get(..count).unwrap_or_default(), &mut bytes);
            chunks.drain(..).for_each(|chunk| outbox.reuse(chunk));
            if is_closing && !outbox.has_chunks() && outbox.held() == 0 {
                tls.close(&mut bytes);
            }
        } else {
            tls.seal(&[], &mut bytes);
        }
        if bytes.is_empty() {
            sealing.reuse(bytes);
            return None;
        }
        if counted == 0 {
            counted = bytes.len();
            outbox.count_records(counted);
        }
        Some(Chunk::Records { bytes, counted })
    }
}

/// Buffers of a core's connections for sealing; empty between calls.
#[derive(Clone, Debug, Default)]
pub(in crate::shard) struct Sealing {
    chunks: Vec<Chunk>,
    spare: Vec<Vec<u8>>,
}

impl Sealing {
    /// Keeps the buffer of records that have been sent, for other records.
    pub(in crate::shard) fn reuse(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && (1..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}
