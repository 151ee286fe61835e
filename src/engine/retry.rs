//! What follows a run that ended without WORK_COMPLETE: a job and the reason in, another run at
//! once, later or none out.
//!
//! Without a policy a job is treated as gearmand treats it: a lost job is run again at once, a
//! failed one is gone. Knows no files; delays are drawn by the engine's seed.
//!
//! Invariant: a job has no more runs than its policy allows, and clients that wait for it hear of
//! the last one only.

use std::hash::BuildHasher;

use super::answer::Outcome;
use super::counters::ATTEMPT_BOUNDS;
use super::event::{Loss, Step};
use super::ids::JobId;
use super::numbers::{Ending, Failure, Rerun};
use super::policy::Retries;
use super::reason::Reason;
use super::{ConnId, Effect, Engine, Now};

/// What follows a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextRun {
    /// Another, as soon as a worker takes it.
    AtOnce,
    /// Another, after a delay.
    After { delay_ms: u64 },
    /// None.
    Never {
        /// Whether the job becomes a dead letter.
        dead: bool,
    },
}

impl Engine {
    /// How often a job is run if its policy is on for it; `None` if it is treated as in gearmand.
    pub(super) fn retries_of(&self, id: JobId) -> Option<&Retries> {
        let job = &self.jobs[id];
        let retries = self.policy_of(job.function)?.retries.as_ref()?;
        (retries.foreground || job.is_background()).then_some(retries)
    }

    /// A worker has failed a job that it runs.
    pub(super) fn fail_run(
        &mut self,
        id: JobId,
        worker: ConnId,
        outcome: Outcome,
        message: &[u8],
        now: Now,
    ) {
        let reason = Reason::from(outcome);
        let ran_ms = self.release(id, now);
        match self.end_run(id, reason) {
            NextRun::AtOnce | NextRun::Never { dead: false } => {
                self.forward(id);
                self.note(Step::Finished(outcome), id, Some(worker));
                self.remove(id, Ending::Failed(reason.into()), Some(ran_ms));
            }
            NextRun::Never { dead: true } => {
                self.forward(id);
                self.note(Step::Buried(reason), id, Some(worker));
                self.count_run(id, ran_ms);
                self.bury(id, reason, Some(worker), message, now);
            }
            NextRun::After { delay_ms } => {
                self.count_run(id, ran_ms);
                let rerun =
                    if outcome == Outcome::Exception { Rerun::Exception } else { Rerun::Fail };
                self.retry(id, worker, (reason, rerun), delay_ms, now);
            }
        }
    }

    /// A job that was taken from its worker returns to the head of its queue, waits for its next
    /// run, or ends.
    pub(super) fn return_job(&mut self, id: JobId, worker: ConnId, loss: Loss, now: Now) {
        let reason = Reason::from(loss);
        let next = self.end_run(id, reason);
        if !self.is_wanted(&self.jobs[id]) {
            self.note(Step::Abandoned, id, Some(worker));
            return self.remove(id, Ending::Failed(Failure::Abandoned), None);
        }
        match next {
            NextRun::AtOnce => {
                self.note(Step::Requeued(loss), id, Some(worker));
                let job = &mut self.jobs[id];
                job.was_lost = true;
                self.named[self.functions[job.function].entry].rerun[Rerun::from(loss) as usize] +=
                    1;
                self.store_runs(id);
                self.start_first(id, now);
            }
            NextRun::After { delay_ms } => {
                self.retry(id, worker, (reason, loss.into()), delay_ms, now);
            }
            NextRun::Never { dead } => {
                self.fail(id);
                if dead {
                    self.note(Step::Buried(reason), id, Some(worker));
                    self.bury(id, reason, Some(worker), &[], now);
                } else {
                    self.note(Step::Exhausted(loss), id, Some(worker));
                    self.remove(id, Ending::Failed(reason.into()), None);
                }
            }
        }
    }

    /// Counts a run that has ended, and says what follows it.
    fn end_run(&mut self, id: JobId, reason: Reason) -> NextRun {
        let job = &mut self.jobs[id];
        job.attempts = job.attempts.saturating_add(1);
        job.last_reason = Some(reason);
        (job.numerator, job.denominator) = (0, 0);
        self.next_run(id, reason)
    }

    fn next_run(&self, id: JobId, reason: Reason) -> NextRun {
        let job = &self.jobs[id];
        let is_lost = matches!(reason, Reason::Lost | Reason::TimedOut);
        let retries = self.policy_of(job.function).and_then(|policy| policy.retries.as_ref());
        let Some(retries) = retries else {
            let max = self.settings.attempts_max;
            let max = max.map(|max| max.clamp(1, u16::MAX.into()));
            let is_exhausted = max.is_some_and(|max| u32::from(job.attempts) >= max);
            let is_final = !is_lost || is_exhausted;
            return if is_final { NextRun::Never { dead: false } } else { NextRun::AtOnce };
        };
        let is_final = !retries.covers(reason) || retries.is_exhausted(job.attempts);
        if !self.is_wanted(job) {
            NextRun::Never { dead: false }
        } else if !retries.foreground && !job.is_background() {
            // Its client waits, and is told of a failure at once.
            if is_lost && !is_final { NextRun::AtOnce } else { NextRun::Never { dead: false } }
        } else if is_final {
            NextRun::Never { dead: retries.dead }
        } else if reason == Reason::Lost && !job.was_lost {
            NextRun::AtOnce
        } else {
            let random = self.hasher.hash_one((job.number, job.attempts));
            NextRun::After { delay_ms: retries.backoff.delay_ms(job.attempts, random) }
        }
    }

    /// Has a job that is in no place run again after a delay.
    fn retry(
        &mut self,
        id: JobId,
        worker: ConnId,
        (reason, rerun): (Reason, Rerun),
        delay_ms: u64,
        now: Now,
    ) {
        self.note(Step::Retried(reason), id, Some(worker));
        let job = &mut self.jobs[id];
        job.set_run_at_ms(now.unix_ms.saturating_add(delay_ms));
        self.named[self.functions[job.function].entry].rerun[rerun as usize] += 1;
        self.store_runs(id);
        if self.is_for_next(id) {
            self.set_aside(id);
        } else {
            self.delay(id, now);
        }
    }

    fn store_runs(&mut self, id: JobId) {
        let job = &self.jobs[id];
        if job.is_stored() {
            self.effects.push(Effect::Retry { number: job.number });
        }
    }

    /// Counts the runs of a job that ends, if it had several: so many have failed, and if it `ran`,
    /// it ended with another.
    #[inline(never)]
    pub(super) fn count_attempts(&mut self, failed: u16, ending: Ending, ran: bool) {
        let failed = u32::from(failed);
        let runs = match ending {
            Ending::Completed => failed + u32::from(ran),
            Ending::Failed(
                Failure::Fail | Failure::Exception | Failure::Lost | Failure::TimedOut,
            ) => failed,
            Ending::Failed(_) | Ending::NotStored | Ending::HandedOver => 0,
        };
        if runs > 1 {
            let bound = |&bound: &u16| runs <= u32::from(bound);
            let bucket = ATTEMPT_BOUNDS.iter().position(bound).unwrap_or(ATTEMPT_BOUNDS.len());
            self.counters.attempts[bucket] += 1;
            self.counters.attempts_sum += u64::from(runs);
        }
    }
}

#[cfg(test)]
mod tests;
