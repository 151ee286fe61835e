//! What later steps read, brought into the cache ahead of them: keys of submissions and heads of
//! queues in, nothing out.
//!
//! Millions of jobs fit no cache, and where a unique key lies in the index can't be guessed: a step
//! that reads it first when it needs it waits for the memory. Shallow queues are in the cache
//! anyway.
//!
//! Invariant: nothing changes but the time that later steps take.

use super::Engine;
use super::ids::JobId;

/// Jobs from which it pays: their lines of the index and their records exceed a core's own caches.
/// Unit tests have it with the few that they have.
const DEEP_JOBS: usize = if cfg!(test) { 4 } else { 1 << 16 };

impl Engine {
    /// Whether there are so many jobs that `look_ahead` pays.
    #[inline]
    #[must_use]
    pub fn is_deep(&self) -> bool {
        self.jobs.len() >= DEEP_JOBS
    }

    /// Prepares for a submission with this key that is to come soon, but not next.
    #[inline]
    pub fn look_ahead(&self, function: &[u8], unique: &[u8]) {
        // Without a payload: to hash a long one twice costs more than is gained.
        if let Some(function) = self.functions.find(function)
            && let Some(hash) = self.unique_hash(function, unique, &[])
        {
            self.prefetch_unique(hash);
        }
    }

    /// Prepares for the assignment and the end of a job.
    #[inline]
    pub(super) fn prefetch_job(&self, id: JobId) {
        let job = &self.jobs[id];
        job.prefetch_body();
        if let Some(hash) = job.unique_hash {
            self.prefetch_unique(hash);
        }
    }
}
