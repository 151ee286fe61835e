//! Where a write ends: bytes of whole packets in, the end of the next write out.
//!
//! Programs differ in how they write, and with Nagle's algorithm on it matters: what is written
//! while an earlier small write isn't acknowledged waits for that. Knows neither sockets nor what
//! packets mean. Invariant: bytes that were written lie before `packet_end`.

use ringgear::wire::HEADER_BYTES;
use ringgear::wire::frame::{Cut, cut};

use crate::options::Writes;

/// Nagle's algorithm, and what leaves in one write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writing {
    pub(crate) nagle: bool,
    pub(crate) writes: Writes,
}

/// The cuts in what stands in a connection's buffer.
#[derive(Debug)]
pub(crate) struct WriteEnds {
    writes: Writes,
    /// Of the packet that is being written.
    header_end: usize,
    packet_end: usize,
}

impl WriteEnds {
    /// Of an empty buffer.
    pub(crate) fn new(writes: Writes) -> Self {
        Self { writes, header_end: 0, packet_end: 0 }
    }

    /// The buffer has become empty.
    pub(crate) fn restart(&mut self) {
        *self = Self::new(self.writes);
    }

    /// Where the write that begins at `from` ends, in bytes of the buffer's start.
    pub(crate) fn next(&mut self, bytes: &[u8], from: usize) -> usize {
        if self.writes == Writes::Together {
            return bytes.len();
        }
        if from >= self.packet_end {
            let packet_bytes = match cut(bytes.get(from..).unwrap_or_default(), 0) {
                Ok(Cut::Packet { body, .. }) => HEADER_BYTES + body.len(),
                _ => bytes.len().saturating_sub(from),
            };
            self.packet_end = from + packet_bytes;
            let is_cut = self.writes == Writes::Parts;
            self.header_end = if is_cut { from + HEADER_BYTES } else { self.packet_end };
        }
        let end = if from < self.header_end { self.header_end } else { self.packet_end };
        end.min(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use ringgear::wire::{Command, Magic, encode};

    use super::*;

    /// The sizes of all writes of a result and a request for a job, where a socket takes at most so
    /// many bytes at a time.
    fn sizes(writes: Writes, taken_max: usize) -> Vec<usize> {
        let mut bytes = Vec::new();
        encode(&mut bytes, Magic::Request, Command::WorkComplete, &[b"H:1"], b"result");
        encode(&mut bytes, Magic::Request, Command::GrabJob, &[], &[]);
        let (mut ends, mut from, mut sizes) = (WriteEnds::new(writes), 0, Vec::new());
        while from < bytes.len() {
            let taken = (ends.next(&bytes, from) - from).min(taken_max);
            sizes.push(taken);
            from += taken;
        }
        assert_eq!(ends.next(&bytes, from), bytes.len(), "nothing is left");
        ends.restart();
        assert_eq!(ends.next(&bytes, 0).min(taken_max), sizes[0], "as at first");
        sizes
    }

    #[test]
    fn writes_end_with_the_buffer_a_packet_or_a_part_of_one() {
        assert_eq!(sizes(Writes::Together, 100), [34]);
        assert_eq!(sizes(Writes::Packets, 100), [22, 12]);
        assert_eq!(sizes(Writes::Parts, 100), [12, 10, 12]);
    }

    #[test]
    fn a_write_that_was_cut_short_goes_on_to_the_same_end() {
        assert_eq!(sizes(Writes::Packets, 15), [15, 7, 12]);
        assert_eq!(sizes(Writes::Parts, 8), [8, 4, 8, 2, 8, 4]);
    }
}
