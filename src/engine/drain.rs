//! Draining: a server that is to end once its work is done takes no more jobs.
//!
//! Jobs that the store keeps and that don't run are set aside: no worker gets them any more, and
//! the next server takes them over. Jobs that only memory has are worked off. Knows no signal and
//! no other core.
//!
//! Invariant: once `drain` has looked at all jobs, none that is stored is queued or delayed.

use super::job::{JobId, State};
use super::{Due, Engine, Now};

/// Jobs that are looked at in one go.
const JOBS_AT_ONCE: usize = 256;

/// How far draining has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Drain {
    is_on: bool,
    /// The next job to look at.
    next: JobId,
    /// Jobs set aside.
    pub(super) kept: usize,
}

impl Engine {
    /// Takes no more jobs from now on, and hands out none that the next server can have.
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

    /// Jobs that are left to the next server.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.drain.kept
    }

    /// Jobs that workers have.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Sets aside some of the jobs that the store keeps. How many jobs it looked at.
    pub(super) fn set_some_aside(&mut self, now: Now) -> usize {
        let jobs = self.jobs.iter_from(self.drain.next).take(JOBS_AT_ONCE);
        let jobs: Vec<(JobId, bool)> = jobs
            .map(|(id, job)| {
                let waits = matches!(job.state, State::Queued | State::Delayed);
                (id, job.stored && waits)
            })
            .collect();
        if let Some(&(last, _)) = jobs.last() {
            self.drain.next = last + 1;
            self.timers.insert(now.mono_ms, Due::Drain);
        }
        for &(id, _) in jobs.iter().filter(|&&(_, is_kept)| is_kept) {
            self.unqueue(id);
            self.set_aside(id);
        }
        jobs.len()
    }

    /// Whether a job that could be queued is to be set aside.
    #[inline]
    pub(super) fn is_for_next(&self, id: JobId) -> bool {
        self.drain.is_on && self.jobs[id as usize].stored
    }

    /// Leaves a job that is nowhere to the next server.
    pub(super) fn set_aside(&mut self, id: JobId) {
        let job = &mut self.jobs[id as usize];
        job.state = State::Kept;
        self.functions[job.function].kept += 1;
        self.drain.kept += 1;
    }
}
