//! Jobs that may not wait for ever: a queued job and its function's policy in, a timer and the end
//! of the job out.
//!
//! Knows no clients and no files.
//!
//! Invariant: a queued job that was never run has a timer while its policy lets it expire.

use super::event::Step;
use super::ids::JobId;
use super::job::State;
use super::numbers::{Ending, Failure};
use super::policy::Expiry;
use super::reason::Reason;
use super::timer::TimerId;
use super::{Due, Engine, Now};

/// Jobs whose expiry is set anew at a time.
const JOBS_AT_ONCE: usize = 256;

impl Engine {
    /// When a job expires unless it is started, in milliseconds since 1970.
    fn expiry_of(&self, id: JobId) -> Option<(Expiry, u64)> {
        let job = &self.jobs[id];
        let expiry = self.policy_of(job.function)?.expiry.filter(|_| job.attempts == 0)?;
        Some((expiry, job.ready_since_ms().saturating_add(expiry.after_ms)))
    }

    /// The timer of a queued job, set if the job expires.
    #[inline(never)]
    pub(super) fn set_expiry(&mut self, id: JobId, now: Now) -> Option<TimerId> {
        let (_, end_ms) = self.expiry_of(id)?;
        let wait_ms = end_ms.saturating_sub(now.unix_ms);
        Some(self.timers.insert(now.mono_ms.saturating_add(wait_ms), Due::Job(id)))
    }

    /// Ends a queued job whose timer has expired, unless its time is later by now.
    pub(super) fn check_expiry(&mut self, id: JobId, now: Now) {
        let Some((expiry, end_ms)) = self.expiry_of(id) else { return };
        if end_ms > now.unix_ms {
            self.jobs[id].timer = self.set_expiry(id, now);
            return;
        }
        self.unqueue(id);
        self.fail(id);
        if expiry.dead {
            self.note(Step::Buried(Reason::Expired), id, None);
            self.bury(id, Reason::Expired, None, &[], now);
        } else {
            self.note(Step::Expired, id, None);
            self.remove(id, Ending::Failed(Failure::Expired), None);
        }
    }

    /// Sets the expiry of some jobs anew. Returns the number of jobs visited.
    pub(super) fn reset_some_expiries(&mut self, now: Now) -> usize {
        let Some(first) = self.next_expiry.take() else { return 0 };
        let jobs = self.jobs.iter_from(first).take(JOBS_AT_ONCE);
        let jobs: Vec<(JobId, State)> = jobs.map(|(id, job)| (id, job.state)).collect();
        if let Some(&(last, _)) = jobs.last() {
            self.next_expiry = Some(last.next());
            self.timers.insert(now.mono_ms, Due::Expiry);
        }
        for &(id, _) in jobs.iter().filter(|&&(_, state)| state == State::Queued) {
            if let Some(timer) = self.jobs[id].timer.take() {
                self.timers.remove(timer);
            }
            self.jobs[id].timer = self.set_expiry(id, now);
        }
        jobs.len()
    }
}
