//! The order of grabs over all cores: a job whose JOB_CREATED has reached its client is seen by
//! every later grab, by priority over all functions of the worker.
//!
//! Holds for cores that take the letters that are there before they read, as drivers do; what is
//! on its way to an owner may take as long as it likes. Jobs that are taken and come back meanwhile
//! prove nothing.

use std::collections::BTreeSet;

use ringgear::engine::job::{Job, State};
use ringgear::engine::{ConnId, JobId};

use super::DelayedMessages;

/// A job that waits when a worker grabs.
#[derive(Clone, Debug)]
pub(super) struct Urgent {
    number: u64,
    priority: u8,
    attempts: u16,
    /// How often operators had changed something then.
    changes: u64,
}

impl DelayedMessages {
    /// Jobs that wait for a worker with such functions, and of which a client has heard.
    pub(super) fn known_to_all(&self, able: &BTreeSet<Vec<u8>>) -> Vec<Urgent> {
        let jobs = self.mesh.shards().iter().flat_map(|shard| {
            let engine = shard.engine();
            engine.jobs().iter_from(JobId::FIRST).filter(|(_, job)| {
                let function = engine.function_of(job);
                let is_paused = function.pause.is_some();
                job.state == State::Queued && !is_paused && able.contains(&*function.name)
            })
        });
        let heard_of = |number| self.jobs.get(&number).is_some_and(|job| job.heard_of);
        let jobs = jobs.map(|(_, job)| job).filter(|job| heard_of(job.number));
        let urgent = |job: &Job| Urgent {
            number: job.number,
            priority: job.priority as u8,
            attempts: job.attempts,
            changes: self.changes,
        };
        jobs.map(urgent).collect()
    }

    /// A worker has got a job, or none: nothing more urgent waits that waited when it asked.
    pub(super) fn check_order(&mut self, conn: ConnId, urgent: &[Urgent], got: Option<u64>) {
        if !self.prompt {
            return;
        }
        self.count("grabs in order");
        let priority = got.map(|number| self.find(number).map(|job| job.priority as u8));
        // It may have been cancelled on its way.
        let Some(priority) = priority.unwrap_or(Some(u8::MAX)) else { return };
        let counts = |it: &&Urgent| it.priority < priority && it.changes == self.changes;
        for Urgent { number, attempts, .. } in urgent.iter().filter(counts) {
            let waits = self
                .find(*number)
                .is_some_and(|job| job.state == State::Queued && job.attempts == *attempts);
            assert!(!waits, "{conn} gets {got:?}, and the more urgent job {number} waits");
        }
    }

    fn find(&self, number: u64) -> Option<&Job> {
        let mut jobs = self
            .mesh
            .shards()
            .iter()
            .flat_map(|shard| shard.engine().jobs().iter_from(JobId::FIRST));
        jobs.find_map(|(_, job)| (job.number == number).then_some(job))
    }
}
