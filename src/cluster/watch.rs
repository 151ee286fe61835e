//! Finds partitions whose owner is gone: reads of the database in, orphans out.
//!
//! Sans-IO: the caller reads once every `Lease::read_interval` and says when. No clock of another host
//! is ever compared.
//!
//! Invariant: a partition is an orphan only if its generation and beat were the same in every read
//! of one unbroken session, over the lease at least, and in five reads at least. The lock that its
//! owner holds only shortens that, and only if it was seen held and then free in this session.

use std::time::Duration;

use super::lease::Lease;
use super::partition::{PartitionId, Reading, Seen};

/// Watches the partitions.
#[derive(Clone, Debug)]
pub struct Watch {
    lease: Lease,
}

impl Watch {
    /// Has seen nothing yet.
    #[must_use]
    pub fn new(lease: Lease) -> Self {
        Self { lease }
    }

    /// Notes a read that was answered at `at` (monotonic) in session number `session`.
    pub fn read(&mut self, at: Duration, session: u64, readings: &[Reading]) {
        let _ = (at, session, readings, self.lease);
    }

    /// A read has failed: all watching begins anew.
    pub fn failed(&mut self) {}

    /// The partitions that may be adopted at `at`: offered ones at once, orphaned ones once `rank`
    /// (number of living servers with fewer jobs than this one) times 200 ms have passed.
    #[must_use]
    pub fn orphans(&self, at: Duration, rank: u32) -> Vec<Seen> {
        let _ = (at, rank);
        Vec::new()
    }

    /// When the beat of a partition was last seen to change.
    #[must_use]
    pub fn beat_at(&self, id: PartitionId) -> Option<Duration> {
        let _ = id;
        None
    }
}
