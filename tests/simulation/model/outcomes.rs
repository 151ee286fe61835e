//! What follows a run without a result: another one, now or later, or a dead letter.
//!
//! When a job is run again is the server's choice within the policy's bounds; the choice is read
//! from the store's operations, or from the job. Invariant: a job has no more runs than the policy
//! allows that is in force when a run ends, and clients hear of the last one only.

use ringgear::engine::ConnId;
use ringgear::engine::policy::{Backoff, Policy, Retries};
use ringgear::engine::reason::Reason;
use ringgear::engine::record::{Operation, Runs};

use super::{Model, Place};
use crate::wire::Packet;

/// What follows a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    AtOnce,
    Later,
    Never { dead: bool },
}

impl Model {
    pub(super) fn policy_of(&self, function: &[u8]) -> Option<&Policy> {
        self.rules.policies.0.iter().find(|policy| policy.matches(function))
    }

    /// How often a job is run, unless it is treated as gearmand treats it.
    fn retries_of(&self, number: u64) -> Option<&Retries> {
        let job = &self.jobs[&number];
        let retries = self.policy_of(&job.function)?.retries.as_ref()?;
        (retries.foreground || job.background).then_some(retries)
    }

    /// A worker has failed a job that it runs, or did until its time was over. Of a failure that is
    /// the last outcome clients get `packet`, those that want no exceptions the other one.
    pub(super) fn fail_run(
        &mut self,
        number: u64,
        reason: Reason,
        packet: &Packet,
        without_exceptions: &Packet,
        message: &[u8],
    ) {
        let Place::Running { conn, .. } = self.jobs[&number].place else {
            if self.retries_of(number).is_some() {
                // The timeout was that run's end.
                return self.tally.count("failed late");
            }
            return self.finish(number, packet, without_exceptions);
        };
        match self.end_run(number, reason) {
            Next::AtOnce => unreachable!("a failed job is run again later or never"),
            Next::Never { dead: false } => self.finish(number, packet, without_exceptions),
            Next::Never { dead: true } => {
                self.forward(number, packet, without_exceptions);
                self.bury(number, reason, Some(conn), message);
            }
            Next::Later => self.retry(number),
        }
    }

    /// A job's worker has lost it.
    pub(super) fn lose_worker(&mut self, number: u64, conn: ConnId, reason: Reason, group: u64) {
        let next = self.end_run(number, reason);
        if !self.jobs[&number].is_wanted() {
            self.tally.count("abandoned");
            self.remove(number);
            return;
        }
        match next {
            Next::AtOnce => {
                self.jobs.get_mut(&number).unwrap().was_lost = true;
                self.store_runs(number);
                self.requeue(number, group);
            }
            Next::Later => self.retry(number),
            Next::Never { dead } => {
                self.fail(number);
                if dead {
                    self.bury(number, reason, Some(conn), &[]);
                } else {
                    self.tally.count("exhausted");
                    self.remove(number);
                }
            }
        }
    }

    /// Counts a run that has ended, and says what follows it.
    fn end_run(&mut self, number: u64, reason: Reason) -> Next {
        let job = self.jobs.get_mut(&number).unwrap();
        job.attempts += 1;
        job.last_reason = Some(reason);
        job.progress = (0, 0);
        let job = &self.jobs[&number];
        let is_lost = matches!(reason, Reason::Lost | Reason::TimedOut);
        let policy = self.policy_of(&job.function);
        let Some(retries) = policy.and_then(|policy| policy.retries.as_ref()) else {
            let exhausted = self.rules.attempts_max.is_some_and(|max| job.attempts >= max.max(1));
            let again = is_lost && !exhausted;
            return if again { Next::AtOnce } else { Next::Never { dead: false } };
        };
        let number_of_reason = Reason::ALL.iter().position(|&other| other == reason).unwrap();
        let is_final = !retries.retried[number_of_reason]
            || retries.attempts > 0 && job.attempts >= u32::from(retries.attempts);
        if !job.is_wanted() {
            return Next::Never { dead: false };
        }
        if !job.background && !retries.foreground {
            let again = is_lost && !is_final;
            self.tally.count(if again { "foreground rerun" } else { "foreground failure" });
            return if again { Next::AtOnce } else { Next::Never { dead: false } };
        }
        if is_final {
            return Next::Never { dead: retries.dead };
        }
        if reason == Reason::Lost && !job.was_lost { Next::AtOnce } else { Next::Later }
    }

    /// A job waits for its next run.
    fn retry(&mut self, number: u64) {
        let job = &self.jobs[&number];
        let retries = self.policy_of(&job.function).and_then(|policy| policy.retries.as_ref());
        let backoff = retries.unwrap().backoff;
        let (shortest_ms, longest_ms) = bounds_ms(&backoff, job.attempts);
        // Known unless the job has ended in the same call.
        if let Some(run_at_ms) = self.chosen_start_ms(number) {
            let delay_ms = run_at_ms.checked_sub(self.now.unix_ms);
            let bounds_ms = shortest_ms..=longest_ms;
            let is_within = delay_ms.is_some_and(|ms| bounds_ms.contains(&(ms as f64)));
            assert!(
                is_within,
                "{delay_ms:?} until the next run, not {shortest_ms} to {longest_ms} ms"
            );
            self.jobs.get_mut(&number).unwrap().run_at_ms = run_at_ms;
        } else {
            self.jobs.get_mut(&number).unwrap().run_at_ms = self.now.unix_ms + backoff.max_ms;
        }
        let job = self.jobs.get_mut(&number).unwrap();
        job.place = Place::Delayed { run_at_ms: job.run_at_ms };
        self.tally.count("retried later");
        self.store_runs(number);
    }

    /// When the server has a job run again that has just failed.
    fn chosen_start_ms(&self, number: u64) -> Option<u64> {
        let attempts = self.jobs[&number].attempts;
        let mut operations = self.output.operations.iter();
        let stored = operations.find_map(|operation| match operation {
            Operation::Retry { number: other, runs } if *other == number => {
                (runs.attempts == attempts).then_some(runs.run_at_ms)
            }
            _ => None,
        });
        stored.or_else(|| self.output.starts_ms.get(&number).copied())
    }

    /// The store is told what has become of a job's runs.
    pub(super) fn store_runs(&mut self, number: u64) {
        let job = &self.jobs[&number];
        if job.stored {
            self.tally.count("attempts kept");
            let runs = Runs {
                attempts: job.attempts,
                run_at_ms: job.run_at_ms,
                last_reason: job.last_reason,
                was_lost: job.was_lost,
            };
            self.durable.operations_due.push(Operation::Retry { number, runs });
        }
    }

    /// When a queued job expires that was never run, and whether it is dead then.
    pub(super) fn expiry_of(&self, number: u64) -> Option<(u64, bool)> {
        let job = &self.jobs[&number];
        let expiry = self.policy_of(&job.function)?.expiry?;
        let waits = job.place == Place::Queued && job.attempts == 0;
        waits.then(|| (job.submitted_ms.max(job.run_at_ms) + expiry.after_ms, expiry.dead))
    }

    pub(super) fn expire(&mut self, number: u64, dead: bool) {
        self.fail(number);
        if dead {
            self.bury(number, Reason::Expired, None, &[]);
        } else {
            self.tally.count("expired");
            self.drop_queued(number);
        }
    }

    /// When a job that is started, or has its clock started again, times out.
    pub(super) fn timeout_at(&self, conn: ConnId, function: &[u8]) -> Option<u64> {
        let own_ms = self.peers[&conn].abilities[function].timeout_ms;
        let (default_ms, max_ms) = self
            .policy_of(function)
            .map_or((0, 0), |policy| (policy.timeout_ms.into(), policy.timeout_max_ms.into()));
        let ms = match (own_ms, max_ms) {
            (0, _) => default_ms,
            (own_ms, 0) => own_ms,
            (own_ms, max_ms) => own_ms.min(max_ms),
        };
        (ms > 0).then_some(self.now.mono_ms + ms)
    }

    /// A worker has said something about a job that it runs.
    pub(super) fn touch(&mut self, number: u64) {
        let job = &self.jobs[&number];
        let Place::Running { conn, grabbed, .. } = job.place else { return };
        if self.policy_of(&job.function).is_some_and(|policy| policy.touch) {
            let deadline_ms = self.timeout_at(conn, &job.function);
            if deadline_ms.is_some() {
                self.tally.count("touched");
            }
            let place = Place::Running { conn, deadline_ms, grabbed };
            self.jobs.get_mut(&number).unwrap().place = place;
        }
    }
}

/// The shortest and the longest delay after so many runs, in milliseconds; a part of one is left to
/// the server.
fn bounds_ms(backoff: &Backoff, runs: u32) -> (f64, f64) {
    let mut longest_ms = backoff.first_ms as f64;
    for _ in 1..runs {
        longest_ms = (longest_ms * backoff.factor).min(backoff.max_ms as f64);
    }
    let shortest_ms = longest_ms * (1.0 - backoff.jitter);
    (shortest_ms.floor(), longest_ms.ceil())
}
