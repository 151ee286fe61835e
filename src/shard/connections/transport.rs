//! What is between a connection's bytes and its frames: nothing, or TLS records.
//!
//! The records' state, whether the handshake is still open, and what the peer's certificate says.
//! Knows no socket and no list of rules.
//!
//! Invariant: what is sealed leaves in the order in which it was sealed.

use std::sync::Arc;

use crate::protocol::access::Certificate;
use crate::wire::outbox::{Chunk, Outbox};
use crate::wire::tls::TlsConnection;
use crate::wire::{HEADER_BYTES, header};

/// Bytes of chunks from which on no more are sealed at once, and the most of one chunk.
const SEAL_BYTES: usize = 192 << 10;
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
    /// Which files of TLS it began with, counted from the start on.
    files: u32,
    /// Bytes of a packet's payload that are in chunks which aren't sealed yet.
    payload_left: usize,
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
    /// TLS whose peer has said nothing yet; `files` tells which files it begins with.
    pub(in crate::shard) fn tls(tls: TlsConnection, files: u32) -> Self {
        Self { tls: Some(Box::new(tls)), is_handshaking: true, files, ..Self::default() }
    }

    /// Which files of TLS it began with.
    pub(in crate::shard) fn files(&self) -> u32 {
        self.files
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
    pub(in crate::shard) fn take_tls(&mut self) -> Option<Box<TlsConnection>> {
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
        spare: &mut SpareBuffers,
        is_closing: bool,
        mut look: impl FnMut(&Chunk),
    ) -> Option<Chunk> {
        let Self { tls, payload_left, .. } = self;
        let tls = tls.as_mut()?;
        let mut bytes = spare.take();
        let mut counted = 0;
        if tls.is_finished() && !tls.is_closed() {
            while counted < SEAL_BYTES
                && let Some(chunk) = outbox.take_up_to(SEAL_BYTES)
            {
                counted += chunk.as_ref().len();
                look(&chunk);
                let mut rest = chunk.as_ref();
                while !rest.is_empty() {
                    let (packet, others) = rest.split_at(packet_end(rest, payload_left));
                    tls.seal(packet, &mut bytes);
                    rest = others;
                }
                outbox.reuse(chunk);
            }
            if is_closing && !outbox.has_chunks() && outbox.held() == 0 {
                tls.close(&mut bytes);
            }
        }
        tls.seal(&[], &mut bytes);
        if bytes.is_empty() {
            spare.give_back(bytes);
            return None;
        }
        if counted == 0 {
            counted = bytes.len();
            outbox.count_records(counted);
        }
        Some(Chunk::Records { bytes, counted })
    }
}

/// Where the first packet in `bytes` ends, or the payload that goes on there. `payload_left` are
/// the bytes of a payload that go on in the next chunk.
///
/// Perl's client waits for its socket to be readable before it reads a packet, and one packet only:
/// of two packets in a record it would find the second when another record comes, or never. Text
/// goes on to the end.
fn packet_end(bytes: &[u8], payload_left: &mut usize) -> usize {
    let end = match bytes.first_chunk().map(header) {
        _ if *payload_left > 0 => *payload_left,
        Some(Ok(header)) => HEADER_BYTES + header.body_bytes as usize,
        Some(Err(_)) | None => bytes.len(),
    };
    *payload_left = end.saturating_sub(bytes.len());
    end.min(bytes.len())
}

/// Buffers for records, which all connections of a core share.
#[derive(Clone, Debug, Default)]
pub(in crate::shard) struct SpareBuffers(Vec<Vec<u8>>);

impl SpareBuffers {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// Keeps a buffer whose records have been sent, unless it is large.
    pub(in crate::shard) fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < SPARE_MAX && (1..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Command, Magic, encode};

    #[test]
    fn each_packet_ends_a_record() {
        let mut bytes = Vec::new();
        for payload in [&b""[..], b"payload", &[7; 1000]] {
            encode(&mut bytes, Magic::Response, Command::EchoRes, &[], payload);
        }
        // A header whose payload is in chunks of its own, then text.
        bytes.extend(crate::wire::header_bytes(Magic::Response, Command::EchoRes, 50));
        let chunks: [&[u8]; 4] = [&bytes, &[1; 20], &[0; 30], b"OK\nOK\n"];
        let mut payload_left = 0;
        let mut lengths = Vec::new();
        for chunk in chunks {
            let mut rest = chunk;
            while !rest.is_empty() {
                let end = packet_end(rest, &mut payload_left);
                lengths.push(end);
                rest = &rest[end..];
            }
        }
        assert_eq!(lengths, [12, 19, 1012, 12, 20, 30, 6]);
    }
}
