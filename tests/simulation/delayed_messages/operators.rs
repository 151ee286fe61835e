//! Policies and operators of shards with slow letters.
//!
//! Cores hear of new policies one after the other, so a job may be treated by any that there has
//! been. Invariant: a job that no policy lets go is there, dead or alive, until it is done.

use std::sync::Arc;

use fastrand::Rng;
use ringgear::engine::JobId;
use ringgear::engine::dead::DeadBounds;
use ringgear::engine::handle::{slot, slot_of};
use ringgear::engine::job::State;
use ringgear::engine::policy::{Policies, Policy};
use ringgear::engine::record::Pause;
use ringgear::shard::operator::{DeadAt, DeadFilter, OperatorRequest};

use super::DelayedMessages;
use crate::peer::FUNCTIONS;
use crate::policies;

/// Policies without timeouts, as a job that timed out is with a worker that doesn't know of it.
pub(super) fn policies(rng: &mut Rng) -> Policies {
    let mut policies = policies::any(rng, false);
    policies.0.iter_mut().for_each(|policy| policy.timeout_ms = 0);
    policies
}

impl DelayedMessages {
    fn policies_of(&self, function: &[u8]) -> impl Iterator<Item = Option<&Policy>> {
        self.policies.iter().map(move |policies| policies.find(function))
    }

    /// Whether a failed job may be run again.
    pub(super) fn may_retry(&self, function: &[u8]) -> bool {
        self.policies_of(function).flatten().any(|policy| policy.retries.is_some())
    }

    /// Whether a job may be gone without having been done, and without a failure of its worker.
    pub(super) fn may_vanish(&self, function: &[u8]) -> bool {
        let may_be_dead = self.policies_of(function).flatten().any(|policy| {
            policy.retries.is_some() || policy.expiry.is_some_and(|expiry| expiry.dead)
        });
        let lets_go = |policy: &Policy| {
            policy.retries.as_ref().is_some_and(|retries| !retries.dead)
                || policy.expiry.is_some_and(|expiry| !expiry.dead)
        };
        let lets_go = self.policies_of(function).flatten().any(lets_go);
        lets_go || may_be_dead && self.dead_max < usize::MAX
    }

    /// Whether a job may be gone after a failure.
    pub(super) fn may_end_by_failure(&self, function: &[u8]) -> bool {
        let may_be_final = self
            .policies_of(function)
            .any(|policy| policy.is_none_or(|policy| policy.retries.is_none()));
        may_be_final || self.may_vanish(function)
    }

    pub(super) fn dead_bounds(&self) -> DeadBounds {
        DeadBounds::new(self.dead_max, usize::MAX, 1 << 40)
    }

    /// Lets an operator do one thing.
    pub(super) fn operate(&mut self) {
        self.changes += 1;
        let name = FUNCTIONS[self.rng.usize(0..FUNCTIONS.len())].as_bytes();
        let owner = self.mesh.cores().owner_of(name);
        match self.rng.u32(0..12) {
            0..3 => {
                self.count("requeued by an operator");
                let (filter, at) = (DeadFilter::default(), DeadAt::START);
                self.request(owner, OperatorRequest::Requeue { filter, at });
            }
            3 => self.drop_letters_of(owner),
            4..7 => {
                let jobs = self.mesh.shards()[owner].engine().jobs().iter_from(JobId::FIRST);
                let waiting = jobs.filter(|(_, job)| job.state == State::Delayed);
                let number = waiting.map(|(_, job)| job.number).next();
                if let Some(number) = number {
                    self.count("run by an operator");
                    self.request(owner, OperatorRequest::RunNow { number, access: None });
                }
            }
            7 | 8 => {
                self.count("paused by an operator");
                let ms = self.rng.u64(0..2000);
                let until = Pause::Until(self.now.unix_ms + ms);
                let pause = if self.rng.bool() { Pause::Unlimited } else { until };
                self.request(owner, OperatorRequest::Pause { function: name.into(), pause });
            }
            9 | 10 => self.resume_all(),
            _ => {
                self.count("policies changed");
                let policies = Arc::new(policies(&mut self.rng));
                self.policies.push(Arc::clone(&policies));
                self.settings.engine.policies = Arc::clone(&policies);
                // Of those that are on their way already, none may be gone unnoticed.
                for name in FUNCTIONS {
                    self.excuse(name.as_bytes());
                }
                self.mesh.set_policies(&policies, self.now);
                self.pump();
            }
        }
    }

    /// Jobs of a function end by other policies than those when they came, and what was said of
    /// them may be on its way.
    fn excuse(&mut self, function: &[u8]) {
        let (may_retry, may_end) = (self.may_retry(function), self.may_end_by_failure(function));
        let jobs = self.jobs.iter_mut();
        for (_, job) in jobs.filter(|(number, _)| slot_of(**number) == slot(function)) {
            job.excused |= may_end || job.failed;
            job.ended &= !(may_retry && job.failed);
        }
    }

    fn request(&mut self, core: usize, request: OperatorRequest) {
        self.mesh.ask(core, request, self.now);
        self.pump();
    }

    fn drop_letters_of(&mut self, core: usize) {
        let cores = self.mesh.cores();
        let letters = self.mesh.dead_numbers().into_iter();
        for number in letters.filter(|&number| cores.owner_of_job(number) == core) {
            self.jobs.entry(number).or_default().excused = true;
        }
        let (filter, at) = (DeadFilter::default(), DeadAt::START);
        self.request(core, OperatorRequest::RemoveDead { filter, at });
    }

    /// All dead letters are removed.
    pub(super) fn drop_letters(&mut self) {
        for core in 0..self.mesh.cores().count {
            self.drop_letters_of(core);
        }
    }

    pub(super) fn resume_all(&mut self) {
        for name in FUNCTIONS.map(str::as_bytes) {
            let owner = self.mesh.cores().owner_of(name);
            self.request(owner, OperatorRequest::Resume { function: name.into() });
        }
    }

    /// Time passes until the next job that waits for it starts; `false` if there is none.
    pub(super) fn pass_to_next_start(&mut self) -> bool {
        let jobs =
            self.mesh.shards().iter().flat_map(|shard| {
                shard.engine().jobs().iter_from(JobId::FIRST).map(|(_, job)| job)
            });
        let waiting = jobs.filter(|job| job.state == State::Delayed);
        let Some(start_ms) = waiting.map(|job| job.run_at_ms()).min() else { return false };
        self.tick(start_ms.saturating_sub(self.now.unix_ms));
        self.rest();
        true
    }
}
