//! Events of an engine, counted since the start.
//!
//! The engine counts, metrics and the simulation read. Knows nothing of how the events come about.
//!
//! Invariant: counters never go down.

/// Events since the start, for metrics and for the simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs made; coalesced submissions make none.
    pub created: u64,
    /// Submissions that joined a job.
    pub coalesced: u64,
    /// Jobs given to workers.
    pub assigned: u64,
    /// Jobs that workers finished, whatever the result.
    pub finished: u64,
    /// Jobs that went back to their queue because they lost their worker.
    pub requeued: u64,
    /// Jobs dropped after their last attempt.
    pub exhausted: u64,
    /// Jobs that ran out of the time that their worker gave itself.
    pub timed_out: u64,
    /// Results that were refused because the job's time there was over and others had started it.
    pub late: u64,
    /// Jobs dropped because nobody wanted them any more, cancelled ones included.
    pub abandoned: u64,
    /// Workers that were woken and let their lease end.
    pub leases_ended: u64,
}
