//! Results of attempts that have timed out.
//!
//! A job that outlasts the time its worker gave itself goes back to its queue, but the worker may
//! still finish it. As long as no other worker has started the job its result is as good as any:
//! with one worker the job would be run for ever. Knows no packets.
//!
//! Invariant: `Job::late` is the serial number of the ability whose attempt timed out, until the
//! next attempt; abilities that are given up take their serial numbers along.

use super::job::{JobId, State};
use super::{ConnId, Engine, NotRunning, Now};

impl Engine {
    /// A running job has had its time.
    pub(super) fn time_out(&mut self, id: JobId, now: Now) {
        self.counters.timed_out += 1;
        let job = &self.jobs[id as usize];
        let (number, ability) = (job.number, job.ability);
        let serial = self.abilities.records[ability as usize].serial;
        self.lose_worker(id, now);
        // It may have been its last attempt.
        if self.find(number) == Some(id) {
            self.jobs[id as usize].ability = serial;
        }
    }

    pub(super) fn is_running(&self, number: u64) -> bool {
        self.find(number).is_some_and(|id| self.jobs[id as usize].state == State::Running)
    }

    /// A job that `conn` runs, or did until its time was over and that hasn't been started again;
    /// with whether it runs.
    #[inline]
    pub(super) fn find_attempt(
        &self,
        conn: ConnId,
        number: u64,
    ) -> Result<(JobId, bool), NotRunning> {
        let id = self.find(number).ok_or(NotRunning)?;
        let job = &self.jobs[id as usize];
        let is_running = job.state == State::Running;
        let its_own = if is_running {
            self.abilities.records[job.ability as usize].conn == conn
        } else {
            let ability = self.abilities.find(conn, job.function);
            let serial = ability.map(|id| self.abilities.records[id as usize].serial);
            serial.is_some() && serial == job.late()
        };
        its_own.then_some((id, is_running)).ok_or(NotRunning)
    }
}
