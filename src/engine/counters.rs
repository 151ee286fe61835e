//! Events of an engine, counted since the start.
//!
//! The engine counts, `stats` and tests read. Knows nothing of the events' causes.
//!
//! Invariant: counters never go down, and `submitted + recovered` is the number of jobs that there
//! are and of those that ended, each of which is counted by one `Ending`.

use std::ops::AddAssign;

/// How a job left the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// WORK_COMPLETE.
    Completed,
    /// WORK_FAIL.
    Failed,
    /// WORK_EXCEPTION.
    Exception,
    /// It lost its last attempt.
    Exhausted,
    /// No client waited for it any more.
    Abandoned,
    /// An operator cancelled it.
    Cancelled,
    /// An operator dropped its function.
    Dropped,
    /// The store doesn't keep it.
    NotStored,
}

const ENDINGS: usize = Ending::NotStored as usize + 1;

/// Numbers of events since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs that submissions created.
    pub submitted: u64,
    /// Submissions that joined an existing job.
    pub joined: u64,
    /// Jobs that a store had when the server started.
    pub recovered: u64,
    /// Jobs assigned to workers.
    pub assigned: u64,
    /// Jobs that returned to their queue because they lost their worker.
    pub requeued: u64,
    /// Attempts that exceeded the timeout of CAN_DO_TIMEOUT.
    pub timed_out: u64,
    /// Results refused because the attempt had timed out and another worker runs the job.
    pub late: u64,
    /// Leases that ended unused.
    pub leases_ended: u64,
    ended: [u64; ENDINGS],
}

impl Counters {
    /// Counts the end of a job.
    #[inline]
    pub(super) fn end(&mut self, ending: Ending) {
        self.ended[ending as usize] += 1;
    }

    /// Jobs that ended so.
    #[must_use]
    pub fn ended(&self, ending: Ending) -> u64 {
        self.ended[ending as usize]
    }

    /// Jobs that ended.
    #[must_use]
    pub fn all_ended(&self) -> u64 {
        self.ended.iter().sum()
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.submitted += other.submitted;
        self.joined += other.joined;
        self.recovered += other.recovered;
        self.assigned += other.assigned;
        self.requeued += other.requeued;
        self.timed_out += other.timed_out;
        self.late += other.late;
        self.leases_ended += other.leases_ended;
        self.ended.iter_mut().zip(other.ended).for_each(|(sum, more)| *sum += more);
    }
}
