//! What operators ask the engine to do: cancel a job, create, bound and drop functions.
//!
//! Names and numbers in, whether there was anything to do out. Knows no text commands and no lists;
//! what is cancelled leaves by the same ways as jobs that are given up.

use super::function::FunctionId;
use super::job::State;
use super::{Effect, Engine, FunctionBusy};

impl Engine {
    /// Cancels a job: its clients are told that it failed, and no command reaches it any more. A
    /// worker that has it may go on; what it says goes nowhere. `false` if there is no such job.
    pub fn cancel(&mut self, number: u64) -> bool {
        let Some(id) = self.find(number) else { return false };
        self.counters.abandoned += u64::from(!self.jobs[id as usize].cancelled);
        self.fail(id);
        let job = &mut self.jobs[id as usize];
        if job.state == State::Running {
            job.cancelled = true;
            job.background = false;
            // No restart brings it back, whatever its worker does.
            if std::mem::take(&mut job.stored) {
                self.effects.push(Effect::Remove { number });
            }
            self.leave_unique_index(id);
        } else {
            self.unqueue(id);
            self.remove(id);
        }
        true
    }

    /// Makes a function if there is none of this name; it stays until it is dropped. `false` if
    /// there is no room for it.
    pub fn create_function(&mut self, name: &[u8], memory_left: usize) -> bool {
        let Some(id) = self.find_or_create(name, memory_left) else { return false };
        self.functions[id].created = true;
        true
    }

    /// Drops a function, and its queued jobs as if they were cancelled.
    ///
    /// # Errors
    /// `FunctionBusy` if workers are registered for it or run jobs of it.
    pub fn drop_function(&mut self, id: FunctionId) -> Result<(), FunctionBusy> {
        let function = &self.functions[id];
        if function.workers > 0 || function.running > 0 {
            return Err(FunctionBusy);
        }
        if function.total() > 0 {
            let numbers: Vec<u64> = self
                .jobs
                .iter_from(0)
                .filter_map(|(_, job)| (job.function == id).then_some(job.number))
                .collect();
            for number in numbers {
                self.cancel(number);
            }
        }
        self.functions.remove(id);
        Ok(())
    }

    /// Bounds the jobs of a function by priority; 0 = no bound. Does nothing for an unknown name.
    pub fn set_queue_max(&mut self, name: &[u8], queue_max: [u32; 3]) {
        if let Some(id) = self.functions.find(name) {
            self.functions[id].queue_max = queue_max;
            self.check_unused(id);
        }
    }
}
