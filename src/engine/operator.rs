//! What operators look at and end by HTTP: jobs of a queue in their order, jobs of a worker, jobs
//! that are purged.
//!
//! Ids in, ids and records out. Knows no rows and no permissions.
//!
//! Invariant: looking changes nothing.

use super::event::Step;
use super::function::OWN;
use super::ids::{FunctionId, JobId};
use super::job::{Job, State};
use super::list::Stack;
use super::numbers::Failure;
use super::{ConnId, Engine};
use crate::wire::Priority;

impl Engine {
    /// The jobs of a queue in the order in which they will be given out: from the job of this
    /// number on, if it is still there, else from the head.
    pub fn queued_from(
        &self,
        function: FunctionId,
        priority: Priority,
        from: Option<u64>,
    ) -> impl Iterator<Item = JobId> {
        let is_there = |id: &JobId| {
            let job = &self.jobs[*id];
            job.function == function && job.priority == priority && job.state == State::Queued
        };
        let at = from.and_then(|number| self.find(number)).filter(is_there);
        let queue = &self.functions[function].queues[priority as usize];
        let (held, rest) = match at {
            Some(id) if self.suspension.holds(&self.jobs[id]) => (at, queue.jobs.front()),
            Some(_) => (None, at),
            None => (queue.held.front(), queue.jobs.front()),
        };
        let from = |id| Stack::starting_at(id).iter(&self.jobs, 0);
        from(held).chain(from(rest))
    }

    /// The jobs that a connection runs here, the latest of each function first.
    pub fn jobs_of(&self, conn: ConnId) -> impl Iterator<Item = &Job> {
        let abilities = self.peers[conn].abilities.iter(&self.abilities.records, OWN);
        let running =
            abilities.flat_map(|id| self.abilities.records[id].running.iter(&self.jobs, 0));
        running.map(|id| &self.jobs[id])
    }

    /// Ends a job that an operator took out of its queue with many others, and reports it to its
    /// clients as failed.
    pub fn purge(&mut self, id: JobId) {
        self.note(Step::Dropped, id, None);
        self.end(id, Failure::Dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::{Fixture, conn_id, settings};

    #[test]
    fn a_queue_is_listed_in_its_order_and_goes_on_where_it_was() {
        let mut fixture = Fixture::new(settings());
        let numbers = ["a", "b", "c"].map(|_| fixture.background("resize"));
        let function = fixture.engine.functions.find(b"resize").unwrap();
        let listed = |fixture: &Fixture, from| {
            let ids = fixture.engine.queued_from(function, Priority::Normal, from);
            ids.map(|id| fixture.engine.jobs[id].number).collect::<Vec<_>>()
        };
        assert_eq!(listed(&fixture, None), numbers);
        assert_eq!(listed(&fixture, Some(numbers[1])), numbers[1..]);
        fixture.engine.purge(fixture.engine.find(numbers[1]).unwrap());
        let left = [numbers[0], numbers[2]];
        assert_eq!(listed(&fixture, Some(numbers[1])), left, "it goes on at the head");
        assert_eq!(listed(&fixture, None), left);
        assert_eq!(fixture.engine.totals().failed[Failure::Dropped as usize], 1);
        fixture.engine.check_invariants();
    }

    #[test]
    fn a_worker_is_listed_with_all_that_it_runs() {
        let mut fixture = Fixture::new(settings());
        let numbers = ["a", "b"].map(|function| fixture.background(function));
        let worker = conn_id(5);
        for function in [b"a", b"b"] {
            fixture.engine.can_do(worker, function, 0);
        }
        assert_eq!(fixture.engine.jobs_of(worker).count(), 0);
        let now = fixture.now;
        while fixture.engine.grab(worker, Priority::Low, now).is_some() {}
        let mut running: Vec<u64> = fixture.engine.jobs_of(worker).map(|it| it.number).collect();
        running.sort_unstable();
        assert_eq!(running, numbers);
    }
}
