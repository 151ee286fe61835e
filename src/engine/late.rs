//! Results of attempts that have timed out.
//!
//! A job that exceeds its worker's timeout returns to its queue, but the worker may still finish
//! it. Its result is accepted until another worker has started the job: with one worker only, the
//! job would else be repeated for ever. Knows no packets.
//!
//! Invariant: `Job::late` is the serial number of the ability whose attempt timed out, until the
//! next attempt; the serial number of a removed ability is not reused.

use super::event::Loss;
use super::function::Ability;
use super::ids::JobId;
use super::job::State;
use super::{ConnId, Effect, Engine, NotRunning, Now};

impl Engine {
    /// A running job exceeded its timeout: it returns to its queue.
    pub(super) fn time_out(&mut self, id: JobId, now: Now) {
        self.counters.timed_out += 1;
        let job = &self.jobs[id];
        let (number, ability) = (job.number, job.ability());
        let Ability { serial, conn, .. } = self.abilities.records[ability];
        self.effects.push(Effect::CancelNotice { conn, number });
        self.lose_worker(id, conn, Loss::TimedOut, now);
        // After its last attempt the job was removed, or is a dead letter.
        if self.find(number) == Some(id) {
            self.jobs[id].set_late(serial);
        }
    }

    /// A worker has finished a job that it may not finish. It knows the handle, so it had the job
    /// until its attempt timed out.
    #[cold]
    pub(super) fn count_late(&mut self, number: u64) {
        let is_running = |id: JobId| self.jobs[id].state == State::Running;
        self.counters.late += u64::from(self.find(number).is_some_and(is_running));
    }

    /// A job that `conn` runs (`true`), or ran until the attempt timed out, if no other worker has
    /// started it since (`false`).
    #[inline(always)]
    pub(super) fn find_attempt(
        &self,
        conn: ConnId,
        number: u64,
    ) -> Result<(JobId, bool), NotRunning> {
        let id = self.find(number).ok_or(NotRunning)?;
        let job = &self.jobs[id];
        let is_running = job.state == State::Running;
        let its_own = if is_running {
            self.abilities.records[job.ability()].conn == conn
        } else {
            let ability = self.abilities.find(conn, job.function);
            let serial = ability.map(|id| self.abilities.records[id].serial);
            serial.is_some() && serial == job.late()
        };
        its_own.then_some((id, is_running)).ok_or(NotRunning)
    }
}
