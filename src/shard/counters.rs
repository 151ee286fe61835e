//! Events of a shard, counted since the start.
//!
//! The shard counts, `stats` and tests read. Knows nothing of how the events come about.
//!
//! Invariant: counters never go down.

use std::ops::AddAssign;

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
    /// Packets and lines that came in.
    pub frames: u64,
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
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.connected += other.connected;
        self.refused += other.refused;
        self.malformed += other.malformed;
        self.slow_readers += other.slow_readers;
        self.frames += other.frames;
        self.moved += other.moved;
        self.took_in += other.took_in;
        self.departed += other.departed;
    }
}
