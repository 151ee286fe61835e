//! What operators change by HTTP: jobs that are cancelled, one or many, or started before their
//! time; limits and pauses of functions.
//!
//! Knows no HTTP.
//!
//! Invariant: one call cancels at most `PURGE_MAX` jobs.

use super::jobs::{JobFilter, JobsAt};
use crate::engine::Now;
use crate::engine::job::State;
use crate::engine::record::Pause;
use crate::protocol::access::{Permissions, Right, Scope};
use crate::shard::Shard;

/// Most jobs that are cancelled before others have their turn.
const PURGE_MAX: usize = 1000;

/// How cancelling a job went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It is cancelled, or ends once its worker is done; or it was a dead letter, and is removed.
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

/// How starting a job before its time went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// It is in its queue now.
    Queued,
    /// There is no such job.
    Unknown,
    /// It doesn't wait for its start, or for its next run.
    NotWaiting,
    /// The access list doesn't allow it.
    Forbidden,
}

impl Shard {
    /// The function of a job, or of a dead letter, of this core.
    pub(in crate::shard) fn function_of_number(&self, number: u64) -> Option<&[u8]> {
        let engine = &self.engine;
        engine.function_of_number(number).or_else(|| {
            let letter = engine.dead().find(number)?;
            Some(&engine.function_of_dead(letter).name)
        })
    }

    pub(super) fn run_by_operator(
        &mut self,
        number: u64,
        access: Option<&Permissions>,
        now: Now,
    ) -> RunOutcome {
        let Some(function) = self.engine.function_of_number(number) else {
            return RunOutcome::Unknown;
        };
        if access.is_some_and(|it| !it.may(Right::Admin, Scope::Function(function)).is_allowed) {
            return RunOutcome::Forbidden;
        }
        if !self.engine.run_now(number, now) {
            return RunOutcome::NotWaiting;
        }
        self.deliver(None, now);
        RunOutcome::Queued
    }

    /// Returns whether there is memory for it.
    pub(super) fn pause_function(&mut self, function: &[u8], pause: Pause, now: Now) -> bool {
        let is_paused = self.engine.pause(function, pause, self.registry_memory_left(), now);
        self.deliver(None, now);
        is_paused
    }

    /// Returns whether there is such a function.
    pub(super) fn resume_function(&mut self, function: &[u8], now: Now) -> bool {
        let is_known = self.engine.functions().find(function).is_some();
        self.engine.resume(function, now);
        self.deliver(None, now);
        is_known
    }

    pub(super) fn cancel_by_operator(
        &mut self,
        number: u64,
        access: Option<&Permissions>,
        now: Now,
    ) -> CancelOutcome {
        let Some(function) = self.function_of_number(number) else {
            return CancelOutcome::Unknown;
        };
        if access.is_some_and(|it| !it.may(Right::Admin, Scope::Function(function)).is_allowed) {
            return CancelOutcome::Forbidden;
        }
        let id = self.engine.find(number);
        if id.is_some_and(|id| self.engine.jobs()[id].state == State::Storing) {
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
