//! Draining: the server accepts no more jobs, and ends once no job is left to do.
//!
//! Stored jobs that aren't running are set aside: they are not assigned any more, and the next
//! server recovers them. Jobs in memory only are still run. Knows no signal and no other core.
//!
//! Invariant: no stored job is assigned, and once draining has visited all jobs, none is queued or
//! delayed.

use super::event::Step;
use super::ids::JobId;
use super::job::{State, Storage};
use super::{ConnId, Due, Engine, Now};
use crate::wire::Priority;

/// Jobs visited at a time.
const JOBS_AT_ONCE: usize = 256;

/// Progress of draining.
#[derive(Clone, Debug)]
pub(super) struct Drain {
    is_on: bool,
    /// The next job to visit.
    next: JobId,
    /// Jobs set aside, by priority.
    pub(super) kept: [u32; 3],
}

impl Default for Drain {
    fn default() -> Self {
        Self { is_on: false, next: JobId::FIRST, kept: [0; 3] }
    }
}

impl Engine {
    /// Starts draining.
    pub fn drain(&mut self, now: Now) {
        if !std::mem::replace(&mut self.drain.is_on, true) {
            self.timers.insert(now.mono_ms, Due::Drain);
        }
    }

    /// Whether submissions are refused.
    #[inline]
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.is_on
    }

    /// Jobs set aside for the next server.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.drain.kept.iter().map(|&kept| kept as usize).sum()
    }

    /// Jobs that are in no store: they are lost when the server ends. Looks at every job.
    #[must_use]
    pub fn unstored(&self) -> usize {
        self.jobs.iter_from(JobId::FIRST).filter(|(_, job)| job.storage != Storage::Stored).count()
    }

    /// Jobs assigned to workers.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Sets aside the stored jobs among the next `JOBS_AT_ONCE`. Returns the number of jobs
    /// visited.
    pub(super) fn set_some_aside(&mut self, now: Now) -> usize {
        let jobs = self.jobs.iter_from(self.drain.next).take(JOBS_AT_ONCE);
        let jobs: Vec<(JobId, bool)> = jobs
            .map(|(id, job)| {
                let waits = matches!(job.state, State::Queued | State::Delayed);
                (id, job.is_stored() && waits)
            })
            .collect();
        if let Some(&(last, _)) = jobs.last() {
            self.drain.next = last.next();
            self.timers.insert(now.mono_ms, Due::Drain);
        }
        for &(id, _) in jobs.iter().filter(|&&(_, is_kept)| is_kept) {
            self.unqueue(id);
            self.set_aside(id);
        }
        jobs.len()
    }

    /// Sets aside the stored jobs at the heads of a worker's queues, at most `JOBS_AT_ONCE`, as
    /// draining may not have visited them yet. `false` if more may be left: the worker gets no
    /// job then, and asks again.
    pub(super) fn set_heads_aside(&mut self, conn: ConnId, least: Priority) -> bool {
        for _ in 0..JOBS_AT_ONCE {
            let Some((ability, priority)) = self.find_job(conn, least) else { return true };
            let function = self.abilities.records[ability].function;
            let head = self.functions[function].queues[priority].jobs.front();
            let Some(id) = head.filter(|&id| self.is_for_next(id)) else { return true };
            self.unqueue(id);
            self.set_aside(id);
        }
        false
    }

    /// Whether a job is to be set aside instead of queued.
    #[inline]
    pub(super) fn is_for_next(&self, id: JobId) -> bool {
        self.drain.is_on && self.jobs[id].is_stored()
    }

    /// Leaves a job that is in no place to the next server.
    pub(super) fn set_aside(&mut self, id: JobId) {
        let job = &mut self.jobs[id];
        job.state = State::Kept;
        let (function, priority) = (&mut self.functions[job.function], job.priority as usize);
        function.kept += 1;
        function.queues[priority].kept += 1;
        self.drain.kept[priority] += 1;
        self.note(Step::SetAside, id, None);
    }
}
