//! What operators change: pauses, jobs that start early, queues that are purged, policies.
//!
//! Invariant: no job of a paused function is to be had.

use std::sync::Arc;

use bytes::Bytes;
use ringgear::engine::Wakeup;
use ringgear::engine::policy::Policies;
use ringgear::engine::record::{Operation, Pause};

use super::{Function, Model, Place};

impl Model {
    /// A function, new if there is none of this name.
    pub(crate) fn function(&mut self, name: &[u8]) -> &mut Function {
        let queue_max = self.policy_of(name).and_then(|policy| policy.queue_max);
        let queue_max = queue_max.unwrap_or_default();
        let new = || Function { queue_max, policy_queue_max: queue_max, ..Function::default() };
        self.functions.entry(name.to_vec()).or_insert_with(new)
    }

    pub(crate) fn use_policies(&mut self, policies: Arc<Policies>) {
        self.tally.count("policies reloaded");
        self.rules.policies = policies;
        for name in self.functions.keys().cloned().collect::<Vec<_>>() {
            let queue_max = self.policy_of(&name).and_then(|policy| policy.queue_max);
            let queue_max = queue_max.unwrap_or_default();
            let function = self.functions.get_mut(&name).unwrap();
            if function.policy_queue_max != queue_max {
                (function.policy_queue_max, function.queue_max) = (queue_max, queue_max);
            }
        }
    }

    pub(crate) fn pause(&mut self, name: &[u8], pause: Pause) {
        self.tally.count("function paused");
        self.function(name).pause = Some(pause);
        self.store_pause(name, Some(pause));
    }

    pub(crate) fn resume(&mut self, name: &[u8]) {
        let clock = self.clock;
        let Some(function) = self.functions.get_mut(name) else { return };
        if function.pause.take().is_none() {
            return;
        }
        self.tally.count("function resumed");
        let waiting = function.queues.iter_mut().filter(|queue| !queue.jobs.is_empty());
        waiting.for_each(|queue| queue.since = clock);
        let queued = function.queued() as u64;
        if queued > 0 {
            self.enqueued.insert(name.to_vec());
        }
        self.wakes_due += match self.rules.wakeup {
            Wakeup::Lease => queued,
            Wakeup::Each(0) => queued * u64::from(u16::MAX),
            Wakeup::Each(limit) => queued * u64::from(limit),
        };
        self.store_pause(name, None);
    }

    /// Functions that are paused.
    pub(crate) fn paused(&self) -> impl Iterator<Item = &Vec<u8>> {
        let functions = self.functions.iter();
        functions.filter(|(_, function)| function.pause.is_some()).map(|(name, _)| name)
    }

    /// Jobs that wait for their start or their next run.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = u64> {
        let is_waiting = |place| matches!(place, Place::Delayed { .. });
        self.jobs.iter().filter(move |(_, job)| is_waiting(job.place)).map(|(&number, _)| number)
    }

    /// Ends pauses whose time is over.
    pub(super) fn end_pauses(&mut self) {
        let now_ms = self.now.unix_ms;
        let is_over = |pause: Option<Pause>| match pause {
            Some(Pause::Until(end_ms)) => end_ms <= now_ms,
            Some(Pause::Unlimited) | None => false,
        };
        let over = self.functions.iter().filter(|(_, function)| is_over(function.pause));
        for name in over.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.tally.count("pause over");
            self.resume(&name);
        }
    }

    pub(crate) fn store_pause(&mut self, name: &[u8], pause: Option<Pause>) {
        let function = Bytes::copy_from_slice(name);
        self.durable.operations_due.push(Operation::Pause { function, pause });
    }

    /// Has a job start that waits for it; `None` if there is no such job, `false` if it doesn't
    /// wait.
    pub(crate) fn run_now(&mut self, number: u64) -> Option<bool> {
        let job = self.jobs.get_mut(&number)?;
        if !matches!(job.place, Place::Delayed { .. }) {
            return Some(false);
        }
        job.run_at_ms = self.now.unix_ms;
        self.tally.count("run before its time");
        self.clock += 1;
        self.store_runs(number);
        self.enqueue_back(number, self.clock);
        Some(true)
    }

    /// Ends the jobs of a function that wait in its queues, or, `is_rerun`, that wait for their
    /// next run.
    pub(crate) fn purge(&mut self, name: &[u8], is_rerun: bool) -> usize {
        let numbers: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.function == name)
            .filter(|(_, job)| match job.place {
                Place::Queued => !is_rerun,
                Place::Delayed { .. } => is_rerun && job.attempts > 0,
                Place::Running { .. } | Place::Storing => false,
            })
            .map(|(&number, _)| number)
            .collect();
        for &number in &numbers {
            self.tally.count("purged");
            self.fail(number);
            self.drop_queued(number);
        }
        self.expect_fails();
        numbers.len()
    }
}
