//! What operators change by HTTP: jobs that are cancelled, one or many, and limits of functions.
//!
//! Knows no HTTP.
//!
//! Invariant: one call cancels at most `PURGE_MAX` jobs.

use super::jobs::{JobFilter, JobsAt};
use crate::engine::Now;
use crate::engine::job::State;
use crate::protocol::access::{Permissions, Right, Scope};
use crate::shard::Shard;

/// Most jobs that are cancelled before others have their turn.
const PURGE_MAX: usize = 1000;

/// How cancelling a job went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It is cancelled, or ends once its worker is done.
    Cancelled,
    /// There is no such job.
    Unknown,
    /// It is being written to the store.
    Storing,
    /// The access list doesn't allow it.
    Forbidden,
}

/// How far a purge has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Jobs that were cancelled now.
    pub removed: usize,
    /// Where those that are left begin.
    pub next: Option<JobsAt>,
}

impl Shard {
    pub(super) fn cancel_by_operator(
        &mut self,
        number: u64,
        access: Option<&Permissions>,
        now: Now,
    ) -> CancelOutcome {
        let Some(id) = self.engine.find(number) else { return CancelOutcome::Unknown };
        let job = &self.engine.jobs()[id];
        let function = Scope::Function(&self.engine.function_of(job).name);
        if access.is_some_and(|it| !it.may(Right::Admin, function).is_allowed) {
            return CancelOutcome::Forbidden;
        }
        if job.state == State::Storing {
            return CancelOutcome::Storing;
        }
        self.engine.cancel(number);
        self.deliver(None, now);
        CancelOutcome::Cancelled
    }

    /// Ends the next jobs that match; those that run or are being stored stay.
    pub(super) fn purge(&mut self, filter: &JobFilter, at: JobsAt, now: Now) -> Purged {
        let (ids, next) = self.find_jobs(filter, at, PURGE_MAX);
        let mut removed = 0;
        for id in ids {
            let job = &self.engine.jobs()[id];
            if matches!(job.state, State::Queued | State::Delayed | State::Kept) {
                self.engine.purge(id);
                removed += 1;
            }
        }
        self.deliver(None, now);
        // A queue is shorter now: what is left of it begins at its head.
        let next = next.map(|next| match next {
            JobsAt::Queue(priority, _) => JobsAt::Queue(priority, None),
            at @ JobsAt::Record(_) => at,
        });
        Purged { removed, next }
    }

    /// Returns whether there is such a function.
    pub(super) fn limit_function(&mut self, function: &[u8], queue_max: [u32; 3]) -> bool {
        let is_known = self.engine.functions().find(function).is_some();
        self.engine.set_queue_max(function, queue_max);
        is_known
    }
}
