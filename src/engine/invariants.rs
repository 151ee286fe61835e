//! A check of all invariants between the engine's parts, for tests.
//!
//! Visits all jobs, functions, abilities and connections. Changes nothing.

use super::ids::{FunctionId, JobId};
use super::job::{Demand, State, Storage};
use super::numbers::Gauges;
use super::{Engine, NamedFunction};

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
            match job.state {
                State::Delayed => assert!(job.timer.is_some()),
                State::Queued => {
                    let policy = self.policy_of(job.function);
                    let expires = policy.is_some_and(|it| it.expiry.is_some());
                    let may_have = expires && job.attempts == 0 || self.next_expiry.is_some();
                    assert!(may_have || job.timer.is_none(), "a queued job's timer");
                    let has = job.timer.is_some() || job.attempts > 0;
                    assert!(!expires || has || self.next_expiry.is_some(), "an expiry");
                }
                State::Running => {}
                State::Storing | State::Kept => assert!(job.timer.is_none()),
            }
            let is_storing = job.storage == Storage::Awaited && job.is_background();
            assert!(job.state != State::Storing || is_storing);
            assert!(
                job.demand != Demand::HandedOver || job.state == State::Running && !job.is_stored(),
                "of another server's jobs only running ones are left"
            );
            let may_wait = job.storage == Storage::Awaited || job.demand == Demand::Cancelled;
            assert!(may_wait || job.waiting.is_empty(), "a submission waits for a job on disk");
        }
        assert_eq!(bytes, self.job_bytes, "memory of the jobs");
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
        assert_eq!(jobs().filter(|job| job.state == State::Kept).count(), self.kept());
        assert_eq!(jobs().filter(|job| job.state == State::Running).count(), self.running);
        assert!(
            jobs().all(|job| job.state != State::Kept || job.is_stored() && self.is_draining())
        );
        self.check_numbers();
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
        let (mut counted, mut all_held) = (0, [0; 3]);
        for (id, function) in self.functions.iter_from(FunctionId::FIRST) {
            let (mut queued, mut held_here) = (0, 0);
            let kept = function.queues.each_ref().map(|queue| queue.kept);
            assert_eq!(function.kept, kept.iter().sum::<u32>());
            let delayed = function.queues.each_ref().map(|queue| queue.delayed);
            assert_eq!(function.delayed, delayed.iter().sum::<u32>());
            for (priority, queue) in function.queues.iter().enumerate() {
                let held: Vec<JobId> = queue.held.iter(&self.jobs, 0).collect();
                assert!(held.is_empty() || self.is_suspended(), "jobs are held in a suspension");
                for &at in &held {
                    let job = &self.jobs[at];
                    assert!(job.is_stored() && self.suspension.holds(job), "a held job");
                }
                let rest: Vec<JobId> = queue.jobs.iter(&self.jobs, 0).collect();
                assert!(!rest.iter().any(|&at| self.suspension.holds(&self.jobs[at])), "not held");
                all_held[priority] += held.len();
                held_here += held.len();
                let ids: Vec<JobId> = held.into_iter().chain(rest).collect();
                assert_eq!(ids.len(), queue.len as usize);
                for at in ids {
                    let job = &self.jobs[at];
                    assert_eq!((job.function, job.state), (id, State::Queued));
                    assert_eq!(job.priority as usize, priority);
                }
                queued += queue.len;
            }
            assert_eq!(function.queued, queued);
            assert_eq!(function.held as usize, held_here);
            counted += function.total() as usize;
        }
        assert_eq!(all_held, self.suspension.held.map(|held| held as usize));
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

    /// The numbers' part of `check_invariants`: what each entry counts is what there is and was.
    fn check_numbers(&self) {
        let functions = || self.functions.iter_from(FunctionId::FIRST).map(|(id, _)| id);
        let jobs = || self.jobs.iter_from(JobId::FIRST).map(|(_, job)| job);
        let mut found = 0;
        for NamedFunction { index, name, function, mut gauges, numbers, .. } in self.named_from(0) {
            let is_its = |id: FunctionId| self.functions[id].entry.index() == index;
            let ids: Vec<FunctionId> = functions().filter(|&id| is_its(id)).collect();
            if let Some(name) = name {
                assert_eq!(self.functions.find(name), function, "an entry finds its function");
                assert!(ids.iter().eq(&function), "a name has an entry alone");
            }
            found += ids.len();
            let mut expected = Gauges::default();
            for job in jobs().filter(|job| ids.contains(&job.function)) {
                match job.state {
                    State::Queued | State::Kept => expected.queued[job.priority as usize] += 1,
                    State::Delayed => {
                        expected.delayed += 1;
                        expected.retrying += u32::from(job.attempts > 0);
                    }
                    State::Running => expected.running += 1,
                    State::Storing => {}
                }
            }
            let abilities = self.abilities.records.iter().map(|(_, ability)| ability);
            for ability in abilities.filter(|it| ids.contains(&it.function)) {
                expected.workers += u32::from(!ability.is_revoked);
                expected.workers_busy += u32::from(!ability.running.is_empty());
            }
            let dead = self.dead.iter_from(0).map(|(_, letter)| letter);
            expected.dead = u32::try_from(dead.filter(|it| ids.contains(&it.job.function)).count())
                .expect("few");
            (gauges.oldest_ms, gauges.paused_since_ms) = (None, None);
            assert_eq!(gauges, expected, "the gauges of {name:?}");
            assert_eq!(numbers.jobs(), gauges.jobs() + numbers.ended(), "{name:?}: {numbers:?}");
        }
        assert_eq!(found, self.functions.len(), "each function is counted in an entry");
    }
}
