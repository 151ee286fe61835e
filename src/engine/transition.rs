//! A job's way from one state to the next: a job's id in, its new place and effects out.
//!
//! Each function either takes a job out of the place where it is (queue, timer, store, worker) or
//! puts one that is in no place into the next. `delayed`, `drain` and `worker` have the functions
//! of their own places. Knows no connections and no packets.
//!
//! Invariant: the counts of a function and of the engine change in the same call as a job's state.

use super::event::Loss;
use super::ids::JobId;
use super::job::{Demand, Job, State};
use super::numbers::{Ending, Failure};
use super::{ConnId, Effect, Engine, Now};

/// Which end of its queue a job goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Front,
    Back,
}

impl Engine {
    /// Takes a running job from its worker and returns it to its queue.
    pub(super) fn lose_worker(&mut self, id: JobId, worker: ConnId, loss: Loss, now: Now) {
        let ran_ms = self.release(id, now);
        self.count_run(id, ran_ms);
        self.return_job(id, worker, loss, now);
    }

    /// Puts a job that lost its worker at the head of its queue.
    pub(super) fn start_first(&mut self, id: JobId, now: Now) {
        if self.is_for_next(id) {
            self.set_aside(id);
        } else {
            self.enqueue(id, End::Front, now);
        }
    }

    /// Puts an adopted job that is in no place at the head of its queue, or into the timers if it
    /// is delayed.
    pub(super) fn start_adopted(&mut self, id: JobId, now: Now) {
        if self.jobs[id].run_at_ms() > now.unix_ms && !self.is_for_next(id) {
            self.delay(id, now);
        } else {
            self.start_first(id, now);
        }
    }

    /// Puts a job that is in no place into its queue, or into the timers if it is delayed.
    pub(super) fn start(&mut self, id: JobId, now: Now) {
        self.start_at(id, self.jobs[id].run_at_ms(), now);
    }

    /// As `start`, for a caller that knows `Job::run_at_ms`.
    #[inline]
    pub(super) fn start_at(&mut self, id: JobId, run_at_ms: u64, now: Now) {
        if self.is_for_next(id) {
            self.set_aside(id);
        } else if run_at_ms > now.unix_ms {
            self.delay(id, now);
        } else {
            self.enqueue(id, End::Back, now);
        }
    }

    /// Puts a job that is in no place into its queue, and wakes workers for it.
    fn enqueue(&mut self, id: JobId, end: End, now: Now) {
        let job = &mut self.jobs[id];
        job.state = State::Queued;
        let (function_id, priority) = (job.function, job.priority as usize);
        let function = &mut self.functions[function_id];
        let queue = &mut function.queues[priority];
        let is_first = queue.jobs.is_empty();
        // Held jobs are before all others.
        let is_held = self.suspension.is_on() && job.is_stored() && (is_first || end == End::Front);
        let list = if is_held { &mut queue.held } else { &mut queue.jobs };
        match end {
            End::Front => list.push_front(&mut self.jobs, 0, id),
            End::Back => list.push_back(&mut self.jobs, 0, id),
        }
        queue.len += 1;
        function.queued += 1;
        self.queued[priority] += 1;
        let is_paused = function.pause.is_some();
        if function.expires {
            self.jobs[id].timer = self.set_expiry(id, now);
        }
        if is_held {
            self.note_held(id);
        }
        // The end of the pause, or of the suspension, does what is left out here.
        if is_paused || is_held {
            return;
        }
        if is_first {
            self.mark_queue_ready(function_id, priority);
        }
        self.wake_for_new_job(function_id, now);
    }

    /// Takes a job that isn't running from its place: the queue, the timers, the store's or the
    /// next server's. It is in no place afterwards.
    pub(super) fn unqueue(&mut self, id: JobId) {
        let job = &mut self.jobs[id];
        let function = &mut self.functions[job.function];
        match job.state {
            State::Queued => {
                let queue = &mut function.queues[job.priority as usize];
                queue.len -= 1;
                function.queued -= 1;
                self.queued[job.priority as usize] -= 1;
                let timer = job.timer.take();
                if self.suspension.holds(job) {
                    queue.held.remove(&mut self.jobs, 0, id);
                    self.note_not_held(id);
                } else {
                    queue.jobs.remove(&mut self.jobs, 0, id);
                }
                if let Some(timer) = timer {
                    self.timers.remove(timer);
                }
            }
            State::Delayed => {
                if let Some(timer) = job.timer.take() {
                    self.timers.remove(timer);
                }
                self.end_delay(id);
            }
            State::Storing => function.storing -= 1,
            State::Kept => {
                function.kept -= 1;
                function.queues[job.priority as usize].kept -= 1;
                self.drain.kept[job.priority as usize] -= 1;
            }
            State::Running => debug_assert!(false, "a running job is in no queue"),
        }
    }

    /// Removes a job that is in no place, and its attachments. A cancelled job counts as cancelled,
    /// and another server's as handed over, however its worker ended it. `ran_ms` is how long the
    /// attempt took that ended with it.
    pub(super) fn remove(&mut self, id: JobId, ending: Ending, ran_ms: Option<u32>) {
        let job = self.take_out(id);
        if job.is_stored() {
            self.effects.push(Effect::Remove { number: job.number });
        }
        let function = &self.functions[job.function];
        let numbers = &mut self.named[function.entry];
        if let Some(ran_ms) = ran_ms {
            numbers.run.add(ran_ms.into());
        }
        let ending = match job.demand {
            Demand::Cancelled => Ending::Failed(Failure::Cancelled),
            Demand::HandedOver => Ending::HandedOver,
            Demand::Always | Demand::Clients => ending,
        };
        numbers.end(ending);
        if function.is_unused() {
            self.list_unused(job.function);
        }
        if job.attempts > 0 {
            self.count_attempts(job.attempts, ending, ran_ms.is_some());
        }
    }

    /// Takes a job that is in no place out of all indexes, for the caller to count its end.
    /// Submissions that wait for it to be on disk are accepted: the job was finished before that.
    #[inline(always)]
    pub(super) fn take_out(&mut self, id: JobId) -> Job {
        let job = &self.jobs[id];
        if !job.waiting.is_empty() || !job.clients.is_empty() {
            self.accept(id);
            while let Some(attachment) = self.jobs[id].clients.front() {
                self.detach(attachment);
            }
        }
        let job = self.jobs.remove(id);
        self.leave_indexes(id, &job);
        self.job_bytes -= job.bytes();
        job
    }
}
