//! Events of a shard, counted since the start.
//!
//! The shard counts, `stats` and tests read. Knows nothing of how the events come about.
//!
//! Invariant: counters never go down.

use std::ops::{AddAssign, Index, IndexMut};

use super::connections::{END_REASONS, EndReason};
use crate::wire::Command;

/// Packets by type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packets([u64; Command::ALL.len()]);

impl Default for Packets {
    fn default() -> Self {
        Self([0; _])
    }
}

impl Index<Command> for Packets {
    type Output = u64;

    #[inline]
    fn index(&self, command: Command) -> &u64 {
        &self.0[command as usize - 1]
    }
}

impl IndexMut<Command> for Packets {
    #[inline]
    fn index_mut(&mut self, command: Command) -> &mut u64 {
        &mut self.0[command as usize - 1]
    }
}

/// Events since the start, beside the engine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that came.
    pub connected: u64,
    /// Connections that were turned away because there were too many.
    pub refused: u64,
    /// Connections closed because their bytes weren't Gearman's.
    pub malformed: u64,
    /// Connections closed because they didn't read.
    pub slow_readers: u64,
    /// Packets that came in whole.
    pub packets: Packets,
    /// Packets whose body was refused, for its size or for want of memory.
    pub packets_refused: u64,
    /// Text lines that came in.
    pub lines: u64,
    /// Bytes that came in, as they were on the wire.
    pub received_bytes: u64,
    /// Bytes that left, as they were on the wire; counted when a piece has left as a whole.
    pub sent_bytes: u64,
    /// NOOPs that woke workers.
    pub wakeups: u64,
    /// Messages of other cores.
    pub messages: u64,
    /// Connections that ended, by `EndReason`.
    closed: [u64; END_REASONS],
    /// Connections that moved here from another core, to their jobs.
    pub moved: u64,
    /// Connections that moved here from another core, which had too much to do.
    pub took_in: u64,
    /// Connections that moved from here to another core.
    pub departed: u64,
}

impl Counters {
    /// Connections that have moved to this core.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.moved + self.took_in
    }

    /// Packets and lines that came in.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.packets.0.iter().sum::<u64>() + self.packets_refused + self.lines
    }

    /// Connections that ended, with what each reason is called in metrics.
    pub fn closed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        EndReason::ALL.into_iter().map(|reason| (reason.label(), self.closed[reason as usize]))
    }

    pub(super) fn count_closed(&mut self, reason: EndReason) {
        self.closed[reason as usize] += 1;
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.connected += other.connected;
        self.refused += other.refused;
        self.malformed += other.malformed;
        self.slow_readers += other.slow_readers;
        self.packets.0.iter_mut().zip(other.packets.0).for_each(|(sum, more)| *sum += more);
        self.packets_refused += other.packets_refused;
        self.lines += other.lines;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.wakeups += other.wakeups;
        self.messages += other.messages;
        self.closed.iter_mut().zip(other.closed).for_each(|(sum, more)| *sum += more);
        self.moved += other.moved;
        self.took_in += other.took_in;
        self.departed += other.departed;
    }
}
