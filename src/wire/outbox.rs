//! The output of one connection: responses in, chunks of bytes out.
//!
//! Small packets are appended to one buffer, so that one send transmits many; payloads of
//! `SHARED_BYTES_MIN` or more are sent from the allocation that they are in, without a copy. A
//! driver takes a chunk, owns it while the kernel reads it, and gives it back. A slot keeps the
//! place of a reply that isn't known yet; later packets wait behind it. Knows no socket.
//!
//! Invariant: bytes are sent in the order of the calls of `hold` and `push`, in whatever order
//! slots are filled. `bytes` counts everything that was pushed and not yet reported as sent,
//! including chunks that a driver owns and packets behind slots; back-pressure is based on it.

use bytes::Bytes;

use crate::wire::rare_queue::RareQueue;
use crate::wire::{Response, SHARED_BYTES_MIN};

/// Size at which the buffer of small packets is closed and another one begun.
const CHUNK_BYTES: usize = 128 << 10;
/// Largest buffer that is kept for the connection's next packets.
const KEPT_BYTES_MAX: usize = 4 << 10;
/// Capacity for slots that is kept while there are none.
const HELD_KEPT_MAX: usize = 16;

/// Bytes for one send.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// Small packets, one behind another.
    Packets(Vec<u8>),
    /// A large payload.
    Payload(Bytes),
    /// TLS records.
    Records {
        /// The records.
        bytes: Vec<u8>,
        /// What they count for: the bytes of packets and payloads that are sealed in them, or their
        /// own if there are none.
        counted: usize,
    },
}

impl Chunk {
    /// The bytes of the outbox that it stands for.
    #[inline]
    #[must_use]
    pub fn counted_bytes(&self) -> usize {
        match self {
            Self::Packets(bytes) => bytes.len(),
            Self::Payload(bytes) => bytes.len(),
            Self::Records { counted, .. } => *counted,
        }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Packets(bytes) => bytes,
            Self::Payload(bytes) => bytes,
            Self::Records { bytes, .. } => bytes,
        }
    }
}

/// A batch of encoded packets, in the order of sending.
#[derive(Clone, Debug, Default)]
pub struct PacketBatch {
    /// Closed chunks, the oldest first.
    chunks: RareQueue<Chunk>,
    /// Packets after the closed chunks.
    tail: Vec<u8>,
}

impl PacketBatch {
    /// Appends a packet; returns its size in bytes.
    #[inline]
    pub fn push(&mut self, response: &Response<'_>) -> usize {
        let before = self.tail.len();
        response.head(&mut self.tail);
        let payload = response.payload();
        let payload_bytes = payload.bytes().len();
        let bytes = self.tail.len() - before + payload_bytes;
        if payload_bytes >= SHARED_BYTES_MIN
            && let Some(shared) = payload.share()
        {
            self.close_tail();
            self.chunks.push_back(Chunk::Payload(shared));
        } else {
            self.push_text(payload.bytes());
        }
        bytes
    }

    /// Appends bytes as they are.
    #[inline]
    pub fn push_text(&mut self, text: &[u8]) {
        self.tail.extend_from_slice(text);
        if self.tail.len() >= CHUNK_BYTES {
            self.close_tail();
        }
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().map(|chunk| chunk.as_ref().len());
        chunks.sum::<usize>() + self.tail.len()
    }

    /// All bytes, one packet behind another.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        if self.chunks.is_empty() {
            return self.tail;
        }
        self.close_tail();
        let chunks: Vec<&[u8]> = self.chunks.iter().map(AsRef::as_ref).collect();
        chunks.concat()
    }

    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    fn append(&mut self, mut other: Self) {
        if !other.chunks.is_empty() {
            self.close_tail();
            self.chunks.append(&mut other.chunks);
        }
        if self.tail.is_empty() && self.tail.capacity() < other.tail.len() {
            self.tail = other.tail;
        } else {
            self.push_text(&other.tail);
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(Chunk::Packets(std::mem::take(&mut self.tail)));
        }
    }
}

/// Number of a slot: the place of a reply that isn't known yet.
pub type Slot = u32;

/// A slot and the packets behind it.
#[derive(Clone, Debug, Default)]
struct Held {
    reply: Option<PacketBatch>,
    behind: PacketBatch,
}

/// The sending side of one connection.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    ready: PacketBatch,
    /// Slots, the oldest first; the first is never filled.
    held: RareQueue<Held>,
    /// Number of the first slot.
    first: Slot,
    bytes: usize,
    /// Size of the last packet or reply, for `bytes_before_last`.
    last_bytes: usize,
}

impl Outbox {
    /// Appends a packet.
    #[inline]
    pub fn push(&mut self, response: &Response<'_>) {
        let batch = self.held.back_mut().map_or(&mut self.ready, |held| &mut held.behind);
        self.last_bytes = batch.push(response);
        self.bytes += self.last_bytes;
    }

    /// Appends bytes of an admin reply.
    pub fn push_text(&mut self, text: &[u8]) {
        let batch = self.held.back_mut().map_or(&mut self.ready, |held| &mut held.behind);
        batch.push_text(text);
        self.last_bytes = text.len();
        self.bytes += text.len();
    }

    /// Appends a batch of packets.
    pub fn push_batch(&mut self, batch: PacketBatch) {
        self.last_bytes = batch.bytes();
        self.bytes += self.last_bytes;
        self.held.back_mut().map_or(&mut self.ready, |held| &mut held.behind).append(batch);
    }

    /// Takes out all packets that are not behind a slot.
    pub fn take_batch(&mut self) -> PacketBatch {
        let batch = std::mem::take(&mut self.ready);
        self.bytes -= batch.bytes();
        batch
    }

    /// Reserves the place of a reply that isn't known yet. Packets pushed from now on wait behind
    /// it.
    pub fn hold(&mut self) -> Slot {
        let slot = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        self.held.push_back(Held::default());
        self.first.wrapping_add(slot)
    }

    /// Puts a reply into its slot; it is sent once all slots before it are filled. To be called
    /// once for each slot.
    pub fn fill(&mut self, slot: Slot, reply: &Response<'_>) {
        if slot == self.first && !self.held.is_empty() {
            let bytes = self.ready.push(reply);
            self.count_fill(bytes);
            self.drop_first();
            self.release();
        } else {
            let mut batch = PacketBatch::default();
            batch.push(reply);
            self.fill_with(slot, batch);
        }
    }

    /// As `fill`, for a reply of any number of packets, or none.
    pub fn fill_with(&mut self, slot: Slot, reply: PacketBatch) {
        self.count_fill(reply.bytes());
        let at = slot.wrapping_sub(self.first) as usize;
        let Some(held) = self.held.get_mut(at) else {
            debug_assert!(false, "a slot is filled once");
            return;
        };
        held.reply = Some(reply);
        self.release();
    }

    /// Number of slots that are empty or behind an empty slot.
    #[inline]
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether all bytes are sent and no slot is empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0 && self.held.is_empty()
    }

    /// Bytes that have not been reported as sent.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `bytes` as it was before the last packet was pushed.
    #[inline]
    #[must_use]
    pub fn bytes_before_last(&self) -> usize {
        self.bytes.saturating_sub(self.last_bytes)
    }

    /// Takes out the oldest chunk that isn't behind a slot, and whether there are more.
    #[inline]
    pub fn take(&mut self) -> Option<(Chunk, bool)> {
        if let Some(chunk) = self.ready.chunks.pop_front() {
            return Some((chunk, !self.ready.is_empty()));
        }
        if self.ready.tail.is_empty() {
            return None;
        }
        Some((Chunk::Packets(std::mem::take(&mut self.ready.tail)), false))
    }

    /// As `take`, for a chunk of at most `bytes_max` bytes: the rest stays the oldest.
    pub fn take_up_to(&mut self, bytes_max: usize) -> Option<Chunk> {
        let (chunk, _) = self.take()?;
        if chunk.as_ref().len() <= bytes_max {
            return Some(chunk);
        }
        let mut rest = match chunk {
            Chunk::Packets(bytes) => Bytes::from(bytes),
            Chunk::Payload(bytes) => bytes,
            // Records are made of chunks, and are none of them.
            Chunk::Records { bytes, .. } => Bytes::from(bytes),
        };
        let part = rest.split_to(bytes_max);
        self.ready.chunks.push_front(Chunk::Payload(rest));
        Some(Chunk::Payload(part))
    }

    /// Counts bytes that no packet has brought, until they are reported as sent.
    pub fn count_records(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Reports records as sent.
    pub fn count_sent(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Whether `take` returns a chunk.
    #[inline]
    #[must_use]
    pub fn has_chunks(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Reports a chunk as sent; its buffer is reused.
    #[inline]
    pub fn sent(&mut self, chunk: Chunk) {
        self.bytes -= chunk.counted_bytes();
        self.reuse(chunk);
    }

    /// Reuses the buffer of a chunk that has been copied; its bytes go on counting.
    #[inline]
    pub fn reuse(&mut self, chunk: Chunk) {
        if let Chunk::Packets(mut buffer) = chunk
            && self.ready.tail.capacity() == 0
            && buffer.capacity() <= KEPT_BYTES_MAX
        {
            buffer.clear();
            self.ready.tail = buffer;
        }
    }

    /// Counts a reply. `last_bytes` becomes the larger of the reply and the last packet, so that
    /// the limit, which is checked against `bytes_before_last`, lets both pass whatever their size.
    fn count_fill(&mut self, bytes: usize) {
        self.last_bytes = self.last_bytes.max(bytes);
        self.bytes += bytes;
    }

    /// Moves replies without an empty slot before them, and the packets behind them, to `ready`.
    fn release(&mut self) {
        while let Some(reply) = self.held.front_mut().and_then(|held| held.reply.take()) {
            self.ready.append(reply);
            self.drop_first();
        }
        if self.held.is_empty() {
            self.held.shrink_to(HELD_KEPT_MAX);
        }
    }

    /// Removes the first slot, whose reply is in `ready`, and appends the packets behind it.
    fn drop_first(&mut self) {
        if let Some(held) = self.held.pop_front() {
            self.first = self.first.wrapping_add(1);
            self.ready.append(held.behind);
        }
    }
}

#[cfg(debug_assertions)]
impl Outbox {
    /// The slots, the oldest first: each one's reply, if it is filled, and the bytes behind it. For
    /// tests.
    pub fn waiting(&self) -> impl Iterator<Item = (Option<Vec<u8>>, Vec<u8>)> {
        let copy = |batch: &PacketBatch| {
            let chunks = batch.chunks.iter().map(AsRef::as_ref);
            chunks.chain([&batch.tail[..]]).collect::<Vec<&[u8]>>().concat()
        };
        self.held.iter().map(move |held| (held.reply.as_ref().map(copy), copy(&held.behind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Payload;

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
    fn a_chunk_that_is_too_large_is_taken_in_parts() {
        let mut outbox = Outbox::default();
        let large = Bytes::from((0..=255).collect::<Vec<u8>>().repeat(SHARED_BYTES_MIN / 256));
        outbox.push(&Response::Noop);
        outbox.push(&echo(Payload::shared(&large)));
        outbox.push(&Response::NoJob);
        let mut left = Vec::new();
        while let Some(chunk) = outbox.take_up_to(5000) {
            assert!(chunk.as_ref().len() <= 5000);
            left.extend_from_slice(chunk.as_ref());
            outbox.sent(chunk);
        }
        assert_eq!(left.len(), 36 + large.len());
        assert_eq!(left[24..24 + large.len()], large);
        assert!(outbox.is_empty());
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
                outbox.ready.tail.capacity() <= CHUNK_BYTES + 4 * text.len()
                    || !outbox.ready.tail.is_empty()
            );
        }
        assert_eq!((total, outbox.bytes()), (1_000_000, 0));
        assert!(outbox.ready.tail.capacity() <= KEPT_BYTES_MAX, "idle connections keep little");
    }

    #[test]
    fn replies_leave_in_the_order_of_their_slots() {
        let texts = |outbox: &mut Outbox| {
            let mut bytes = Vec::new();
            while let Some((chunk, _)) = outbox.take() {
                bytes.extend_from_slice(chunk.as_ref());
                outbox.sent(chunk);
            }
            String::from_utf8(bytes).unwrap()
        };
        let batch = |text: &str| {
            let mut batch = PacketBatch::default();
            batch.push_text(text.as_bytes());
            batch
        };
        // Every order of filling three slots, text before, between and behind them.
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut outbox = Outbox { first: u32::MAX - 1, ..Outbox::default() };
            outbox.push_text(b"a");
            let slots = ["b", "c", "d"].map(|behind| {
                let slot = outbox.hold();
                outbox.push_text(behind.as_bytes());
                slot
            });
            let mut left = texts(&mut outbox);
            assert_eq!((left.as_str(), outbox.held(), outbox.bytes()), ("a", 3, 3));
            for at in order {
                outbox.fill_with(slots[at], batch(["1", "", "33"][at]));
                left += &texts(&mut outbox);
                let gaps = "a1bc33d";
                assert!(gaps.starts_with(&left), "{left}");
            }
            assert_eq!((left.as_str(), outbox.held(), outbox.bytes()), ("a1bc33d", 0, 0));
        }
    }

    #[test]
    fn what_waited_for_a_reply_still_counts_as_the_last_packet() {
        let mut outbox = Outbox::default();
        let slot = outbox.hold();
        outbox.push_text(&[b't'; 1000]);
        outbox.fill(slot, &Response::Noop);
        assert_eq!((outbox.bytes(), outbox.bytes_before_last()), (1012, 12));
    }

    #[test]
    fn a_filled_slot_lets_those_go_that_were_filled_before_it() {
        let mut outbox = Outbox::default();
        let [first, second] = [outbox.hold(), outbox.hold()];
        outbox.push(&Response::Noop);
        outbox.fill(second, &Response::NoJob);
        assert!(!outbox.has_chunks());
        let large = Bytes::from(vec![b'l'; SHARED_BYTES_MIN]);
        outbox.fill(first, &echo(Payload::shared(&large)));
        let chunks: Vec<usize> =
            std::iter::from_fn(|| outbox.take()).map(|(chunk, _)| chunk.as_ref().len()).collect();
        assert_eq!(chunks, [12, SHARED_BYTES_MIN, 24]);
        assert_eq!((outbox.held(), outbox.bytes()), (0, 36 + SHARED_BYTES_MIN));
    }
}
