//! Events of an engine that aren't counted by function, since the start.
//!
//! The engine counts, `stats` and tests read. Knows nothing of the events' causes.
//!
//! Invariant: counters never go down.

use std::ops::AddAssign;

/// Numbers of events since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs that the store refused, and that no client waited for: they don't count as submitted.
    pub not_stored: u64,
    /// Attempts that exceeded the timeout of CAN_DO_TIMEOUT.
    pub timed_out: u64,
    /// Results refused because the attempt had timed out and another worker runs the job.
    pub late: u64,
    /// Leases that ended unused.
    pub leases_ended: u64,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.not_stored += other.not_stored;
        self.timed_out += other.timed_out;
        self.late += other.late;
        self.leases_ended += other.leases_ended;
    }
}
