//! Commands of operators: cancel a job; create, limit and drop functions.
//!
//! Names and numbers in, success or failure out. Knows no text commands.
//!
//! Invariant: a cancelled job is removed as an abandoned one is, at once or when its worker is
//! done.

use super::event::Step;
use super::ids::{FunctionId, JobId};
use super::job::{Demand, State, Storage};
use super::numbers::{Ending, Failure};
use super::{Effect, Engine, FunctionBusy, Now};

impl Engine {
    /// Cancels a job and reports it to its clients as failed. A running job stays until its worker
    /// is done, whose packets are not forwarded. A dead letter is removed. `false` if there is no
    /// such job.
    pub fn cancel(&mut self, number: u64) -> bool {
        let Some(id) = self.find(number) else { return self.remove_dead(number) };
        self.note(Step::Cancelled, id, None);
        self.end(id, Failure::Cancelled);
        true
    }

    /// Has a job that waits for its start, or for its next run, start now. `false` if there is no
    /// such job.
    pub fn run_now(&mut self, number: u64, now: Now) -> bool {
        let Some(id) = self.find(number) else { return false };
        if self.jobs[id].state != State::Delayed {
            return false;
        }
        self.unqueue(id);
        let job = &mut self.jobs[id];
        job.set_run_at_ms(now.unix_ms);
        if job.is_stored() {
            self.effects.push(Effect::Retry { number });
        }
        self.start(id, now);
        true
    }

    /// Ends a job that no worker is to run any more.
    pub(super) fn end(&mut self, id: JobId, failure: Failure) {
        let number = self.jobs[id].number;
        self.fail(id);
        let job = &mut self.jobs[id];
        if job.state == State::Running {
            job.demand = Demand::Cancelled;
            let conn = self.abilities.records[job.ability()].conn;
            self.effects.push(Effect::CancelNotice { conn, number });
            // Removed from the store now, so that a restart before the worker is done doesn't
            // restore it.
            if std::mem::replace(&mut job.storage, Storage::Memory) != Storage::Memory {
                self.effects.push(Effect::Remove { number });
            }
            self.leave_unique_index(id);
        } else {
            // Its submission is accepted now, if it wasn't.
            self.count_if_storing(id);
            self.unqueue(id);
            self.remove(id, Ending::Failed(failure), None);
        }
    }

    /// Creates a function unless it exists, and keeps it until it is dropped. `false` if memory is
    /// too short.
    pub fn create_function(&mut self, name: &[u8], memory_left: usize) -> bool {
        let Some(id) = self.find_or_create(name, memory_left) else { return false };
        self.functions[id].created = true;
        true
    }

    /// Drops a function with its dead letters, and cancels its jobs.
    ///
    /// # Errors
    /// `FunctionBusy` if workers are registered for it or run jobs of it.
    pub fn drop_function(&mut self, id: FunctionId) -> Result<(), FunctionBusy> {
        let function = &self.functions[id];
        if function.workers > 0 || function.running > 0 {
            return Err(FunctionBusy);
        }
        if function.total() > 0 {
            let jobs = self.jobs.iter_from(JobId::FIRST).filter(|(_, job)| job.function == id);
            for id in jobs.map(|(id, _)| id).collect::<Vec<JobId>>() {
                self.note(Step::Dropped, id, None);
                self.end(id, Failure::Dropped);
            }
        }
        let dead = self.dead.iter_from(0).filter(|(_, letter)| letter.job.function == id);
        for number in dead.map(|(_, letter)| letter.job.number).collect::<Vec<u64>>() {
            self.remove_dead(number);
        }
        self.take_pause(id);
        self.remove_function(id);
        Ok(())
    }

    /// Limits the jobs of a function by priority; 0 = no limit. Does nothing for an unknown name.
    pub fn set_queue_max(&mut self, name: &[u8], queue_max: [u32; 3]) {
        if let Some(id) = self.functions.find(name) {
            self.functions[id].queue_max = queue_max;
            self.check_unused(id);
        }
    }
}
