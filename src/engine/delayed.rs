//! Delayed jobs: a job and the time in, a timer that follows the wall clock out.
//!
//! Timers use the monotonic clock. While there are delayed jobs, the engine compares the two clocks
//! once a second; after the wall clock was set, or the host suspended, it resets the jobs' timers,
//! a batch at a time. Knows no queue and no worker.
//!
//! Invariant: a delayed job has a timer, and `ClockWatch` has one exactly while there are any.

use super::ids::JobId;
use super::job::{Job, State};
use super::timer::TimerId;
use super::{Due, Engine, Now};

/// Time between two checks of the wall clock while there are delayed jobs, and the difference from
/// the monotonic clock beyond which their timers are reset.
pub(super) const CLOCK_MS: u64 = 1000;
/// Jobs in one batch after the wall clock was set.
pub(super) const CLOCK_JOBS: usize = 256;

/// Watches the wall clock: the timers of delayed jobs are wrong once it is set.
#[derive(Clone, Debug, Default)]
pub(super) struct ClockWatch {
    /// Delayed jobs.
    pub(super) delayed: usize,
    /// Set while there are delayed jobs.
    pub(super) timer: Option<TimerId>,
    /// Wall clock minus monotonic clock, as used for the jobs' timers.
    lead_ms: i64,
    /// First job of the next batch, while timers are being reset.
    resume_at: Option<JobId>,
}

impl Now {
    fn lead_ms(self) -> i64 {
        self.unix_ms.wrapping_sub(self.mono_ms).cast_signed()
    }
}

impl Engine {
    pub(super) fn delay(&mut self, id: JobId, now: Now) {
        self.set_delay(id, now);
        let job = &mut self.jobs[id];
        job.state = State::Delayed;
        let retrying = u32::from(job.attempts > 0);
        let function = &mut self.functions[job.function];
        function.delayed += 1;
        function.queues[job.priority as usize].delayed += 1;
        function.retrying += retrying;
        self.retrying += retrying;
        self.clock.delayed += 1;
        self.note_due(id);
        if self.clock.timer.is_none() {
            self.clock.lead_ms = now.lead_ms();
            self.clock.timer = Some(self.timers.insert(now.mono_ms + CLOCK_MS, Due::Clock));
        }
    }

    /// Sets the timer of a job that has none to its start by the wall clock.
    fn set_delay(&mut self, id: JobId, now: Now) {
        let job = &mut self.jobs[id];
        let wait_ms = job.run_at_ms().saturating_sub(now.unix_ms);
        job.timer = Some(self.timers.insert(now.mono_ms + wait_ms, Due::Job(id)));
    }

    pub(super) fn start_delayed(&mut self, id: JobId, now: Now) {
        self.end_delay(id);
        self.start(id, now);
    }

    /// Counts a job as delayed no more.
    pub(super) fn end_delay(&mut self, id: JobId) {
        let Job { function, run_at_s, attempts, priority, .. } = self.jobs[id];
        let retrying = u32::from(attempts > 0);
        self.functions[function].delayed -= 1;
        self.functions[function].queues[priority as usize].delayed -= 1;
        self.functions[function].retrying -= retrying;
        self.retrying -= retrying;
        self.forget_due(function, run_at_s);
        self.clock.delayed -= 1;
        if self.clock.delayed == 0 {
            self.clock.resume_at = None;
            if let Some(timer) = self.clock.timer.take() {
                self.timers.remove(timer);
            }
        }
    }

    /// Resets the timers of a batch of jobs if the wall clock was set. Returns the number of jobs
    /// visited.
    pub(super) fn follow_clock(&mut self, now: Now) -> usize {
        if now.lead_ms().abs_diff(self.clock.lead_ms) > CLOCK_MS {
            self.clock.lead_ms = now.lead_ms();
            self.clock.resume_at = Some(JobId::FIRST);
        }
        let mut looked_at = 0;
        if let Some(first) = self.clock.resume_at.take() {
            let jobs = self.jobs.iter_from(first).take(CLOCK_JOBS);
            let jobs: Vec<_> = jobs.map(|(id, job)| (id, job.state)).collect();
            looked_at = jobs.len();
            let last = jobs.last().filter(|_| looked_at == CLOCK_JOBS);
            self.clock.resume_at = last.map(|&(id, _)| id.next());
            for (id, _) in jobs.into_iter().filter(|&(_, state)| state == State::Delayed) {
                if let Some(timer) = self.jobs[id].timer.take() {
                    self.timers.remove(timer);
                }
                self.set_delay(id, now);
            }
        }
        let pause_ms = if self.clock.resume_at.is_some() { 0 } else { CLOCK_MS };
        self.clock.timer = Some(self.timers.insert(now.mono_ms + pause_ms, Due::Clock));
        looked_at
    }
}
