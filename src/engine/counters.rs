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
    /// Dead letters that were dropped, by `Dropped`.
    pub dead_dropped: [u64; DROPPED.len()],
    /// Jobs that ended after more than one run, by the first of `ATTEMPT_BOUNDS` that isn't less
    /// than the number of runs.
    pub attempts: [u64; ATTEMPT_BOUNDS.len() + 1],
    /// Runs of all these jobs.
    pub attempts_sum: u64,
}

/// Upper ends of the buckets of `Counters::attempts`; the last bucket has none.
pub const ATTEMPT_BOUNDS: [u16; 6] = [1, 2, 3, 5, 10, 25];

/// Why a dead letter was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// There were more than allowed.
    Count,
    /// They had more bytes than allowed.
    Bytes,
    /// It was too old.
    Age,
}

/// Each `Dropped`, and its name in metrics.
pub const DROPPED: [(Dropped, &str); 3] =
    [(Dropped::Count, "count"), (Dropped::Bytes, "bytes"), (Dropped::Age, "age")];

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        fn add<const N: usize>(sums: &mut [u64; N], more: &[u64; N]) {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        self.not_stored += other.not_stored;
        self.timed_out += other.timed_out;
        self.late += other.late;
        self.leases_ended += other.leases_ended;
        add(&mut self.dead_dropped, &other.dead_dropped);
        add(&mut self.attempts, &other.attempts);
        self.attempts_sum += other.attempts_sum;
    }
}
