//! Events of an engine, counted since the start.
//!
//! The engine counts, tests read. Knows nothing of the events' causes.
//!
//! Invariant: counters never go down.

/// Numbers of events since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs created; coalesced submissions create none.
    pub created: u64,
    /// Submissions that joined an existing job.
    pub coalesced: u64,
    /// Jobs assigned to workers.
    pub assigned: u64,
    /// Jobs that workers finished, with any result.
    pub finished: u64,
    /// Jobs that returned to their queue because they lost their worker.
    pub requeued: u64,
    /// Jobs dropped after their last attempt.
    pub exhausted: u64,
    /// Jobs that exceeded the timeout of CAN_DO_TIMEOUT.
    pub timed_out: u64,
    /// Results refused because the attempt had timed out and another worker runs the job.
    pub late: u64,
    /// Jobs dropped because no client waited for them any more, and cancelled jobs.
    pub abandoned: u64,
    /// Leases that ended unused.
    pub leases_ended: u64,
}
