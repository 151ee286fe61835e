//! A check of all invariants between the engine's parts, for tests.
//!
//! Visits all jobs, functions, abilities and connections. Changes nothing.

use super::Engine;
use super::ids::{FunctionId, JobId};
use super::job::{Demand, State, Storage};

impl Engine {
    /// Checks all invariants between the engine's parts.
    ///
    /// # Panics
    /// If an invariant is broken.
    pub fn check_invariants(&self) {
        let mut bytes = 0;
        let mut uniques = 0;
        for (id, job) in self.jobs.iter_from(JobId::FIRST) {
            bytes += job.bytes();
            uniques += usize::from(job.unique_hash.is_some());
            assert_eq!(self.find(job.number), Some(id), "a job's number leads to it");
            if job.state != State::Running {
                assert!(self.is_wanted(job), "job {} waits and has no client", job.number);
            }
            let waits = job.timer.is_some() && job.state != State::Running;
            assert_eq!(job.state == State::Delayed, waits);
            let is_storing = job.storage == Storage::Awaited && job.is_background();
            assert!(job.state != State::Storing || is_storing);
            let may_wait = job.storage == Storage::Awaited || job.demand == Demand::Cancelled;
            assert!(may_wait || job.waiting.is_empty(), "a submission waits for a job on disk");
        }
        assert_eq!(bytes, self.job_bytes, "memory of the jobs");
        let come = self.counters.submitted + self.counters.recovered;
        let gone = self.counters.all_ended();
        assert_eq!(come, self.jobs.len() as u64 + gone, "each job is counted once");
        let delayed =
            self.jobs.iter_from(JobId::FIRST).filter(|(_, job)| job.state == State::Delayed);
        assert_eq!(delayed.count(), self.clock.delayed);
        assert_eq!(self.clock.timer.is_some(), self.clock.delayed > 0);
        if self.due_pass().is_none() {
            for (id, function) in self.functions.iter_from(FunctionId::FIRST) {
                let jobs = self.jobs.iter_from(JobId::FIRST).map(|(_, job)| job);
                let delayed = jobs.filter(|job| job.function == id && job.state == State::Delayed);
                let earliest = delayed.map(|job| job.run_at_s).min();
                assert_eq!(function.next_due_s, earliest.unwrap_or(u32::MAX), "the next start");
            }
        }
        let storing = self
            .functions
            .iter_from(FunctionId::FIRST)
            .map(|(_, function)| function.storing as usize);
        let waiting =
            self.jobs.iter_from(JobId::FIRST).filter(|(_, job)| job.state == State::Storing);
        assert_eq!(storing.sum::<usize>(), waiting.count());
        let jobs = || self.jobs.iter_from(JobId::FIRST).map(|(_, job)| job);
        assert_eq!(jobs().filter(|job| job.state == State::Kept).count(), self.drain.kept);
        assert_eq!(jobs().filter(|job| job.state == State::Running).count(), self.running);
        assert!(
            jobs().all(|job| job.state != State::Kept || job.is_stored() && self.is_draining())
        );
        assert_eq!(self.by_number.len(), self.jobs.len());
        assert_eq!(self.by_unique.len(), uniques);
        let functions =
            || self.functions.iter_from(FunctionId::FIRST).map(|(_, function)| function);
        let queued = |at: usize| functions().map(|function| function.queues[at].len).sum::<u32>();
        assert_eq!([queued(0), queued(1), queued(2)], self.queued);
        for (id, function) in self.functions.iter_from(FunctionId::FIRST) {
            let is_forgettable = function.is_unused() && !function.is_kept();
            assert!(!is_forgettable || self.functions.is_listed(id), "never forgotten");
        }
        let mut counted = 0;
        for (id, function) in self.functions.iter_from(FunctionId::FIRST) {
            let mut queued = 0;
            for (priority, queue) in function.queues.iter().enumerate() {
                let ids: Vec<JobId> = queue.jobs.iter(&self.jobs, 0).collect();
                assert_eq!(ids.len(), queue.len as usize);
                for at in ids {
                    let job = &self.jobs[at];
                    assert_eq!((job.function, job.state), (id, State::Queued));
                    assert_eq!(job.priority as usize, priority);
                }
                queued += queue.len;
            }
            assert_eq!(function.queued, queued);
            counted += function.total() as usize;
        }
        assert_eq!(counted, self.jobs.len(), "every job is in one place of its function");
        let mut running = vec![0; self.peers.iter().count()];
        for (at, ability) in self.abilities.records.iter() {
            for id in ability.running.iter(&self.jobs, 0) {
                let job = &self.jobs[id];
                assert_eq!((job.ability(), job.state), (at, State::Running));
                assert_eq!(job.function, ability.function);
                running[ability.conn.index()] += 1;
            }
        }
        assert!(self.peers.iter().map(|peer| peer.running).eq(running));
        self.check_workers();
    }
}
