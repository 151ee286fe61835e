//! What workers say of the jobs that they run: packets in, packets for clients and ended jobs out.
//!
//! Numbers and values in; the packet itself is forwarded by the shard (`Effect::Forward`). What
//! follows a failure is decided in `retry`. Knows no packets.
//!
//! Invariant: a packet about a job that isn't assigned to its sender changes nothing but a counter.

use super::answer::Outcome;
use super::event::Step;
use super::ids::JobId;
use super::numbers::Ending;
use super::reason::Reason;
use super::{ConnId, Engine, NotRunning, Now};

impl Engine {
    /// `WORK_DATA` and `WORK_WARNING`: forwards the packet to the job's clients.
    ///
    /// # Errors
    /// `NotRunning` if the job isn't assigned to `conn`.
    pub fn work_data(&mut self, conn: ConnId, number: u64, now: Now) -> Result<(), NotRunning> {
        let (id, is_running) = self.find_attempt(conn, number)?;
        self.touch(id, is_running, now);
        self.forward(id);
        Ok(())
    }

    /// `WORK_STATUS`: forwards the packet and stores the numbers for GET_STATUS.
    ///
    /// # Errors
    /// `NotRunning` if the job isn't assigned to `conn`.
    pub fn work_status(
        &mut self,
        conn: ConnId,
        number: u64,
        (numerator, denominator): (u32, u32),
        now: Now,
    ) -> Result<(), NotRunning> {
        let (id, is_running) = self.find_attempt(conn, number)?;
        if is_running {
            let job = &mut self.jobs[id];
            (job.numerator, job.denominator) = (numerator, denominator);
        }
        self.touch(id, is_running, now);
        self.forward(id);
        Ok(())
    }

    /// `WORK_COMPLETE`: forwards the packet and removes the job.
    ///
    /// # Errors
    /// `NotRunning` if the job isn't assigned to `conn`, and isn't waiting after a timeout there.
    pub fn work_complete(&mut self, conn: ConnId, number: u64, now: Now) -> Result<(), NotRunning> {
        let Ok((id, is_running)) = self.find_attempt(conn, number) else {
            self.count_late(number);
            return Err(NotRunning);
        };
        self.forward(id);
        self.note(Step::Finished(Outcome::Complete), id, Some(conn));
        if is_running {
            let ran_ms = self.release(id, now);
            self.remove(id, Ending::Completed, Some(ran_ms));
        } else {
            self.unqueue(id);
            self.remove(id, Ending::Completed, None);
        }
        Ok(())
    }

    /// `WORK_FAIL` and `WORK_EXCEPTION`, whose data is `message`: has the job run again, or
    /// forwards the packet and removes the job.
    ///
    /// # Errors
    /// `NotRunning` if the job isn't assigned to `conn`, and isn't waiting after a timeout there.
    pub fn work_failed(
        &mut self,
        conn: ConnId,
        number: u64,
        outcome: Outcome,
        message: &[u8],
        now: Now,
    ) -> Result<(), NotRunning> {
        debug_assert_ne!(outcome, Outcome::Complete);
        let Ok((id, is_running)) = self.find_attempt(conn, number) else {
            self.count_late(number);
            return Err(NotRunning);
        };
        if is_running {
            self.fail_run(id, conn, outcome, message, now);
        } else if self.retries_of(id).is_none() {
            self.forward(id);
            self.note(Step::Finished(outcome), id, Some(conn));
            self.unqueue(id);
            self.remove(id, Ending::Failed(Reason::from(outcome).into()), None);
        }
        // Else the timeout was that run's end, and the job waits for the next.
        Ok(())
    }

    /// Starts the clock of a running job's timeout again, if its function's policy says so.
    #[inline]
    fn touch(&mut self, id: JobId, is_running: bool, now: Now) {
        if is_running && self.functions[self.jobs[id].function].limits_time {
            self.restart_timeout(id, now);
        }
    }

    #[inline(never)]
    fn restart_timeout(&mut self, id: JobId, now: Now) {
        let job = &self.jobs[id];
        if self.policy_of(job.function).is_some_and(|policy| policy.touch) {
            let ability = job.ability();
            let timer = self.set_timeout(id, ability, now);
            if let Some(before) = std::mem::replace(&mut self.jobs[id].timer, timer) {
                self.timers.remove(before);
            }
        }
    }
}
