//! What the time brings: leases, timeouts and starts that are due.
//!
//! Invariant: `deadline_ms` is no later than the next thing that `tick` does for a job.

use ringgear::engine::Now;
use ringgear::engine::reason::Reason;
use ringgear::engine::record::Pause;

use super::{Model, Place};

impl Model {
    /// Whether a lease may end that the model doesn't know the deadline of.
    pub(crate) fn has_leases(&self) -> bool {
        self.peers.values().any(|peer| peer.woken_ms.is_some()) || !self.output.slow.is_empty()
    }

    /// Time has come to `now`, and nothing that was due meanwhile has been done yet.
    pub(crate) fn stand_still(&mut self, now: Now) {
        self.now = now;
    }

    /// Time has come to `now`, which is no later than the shard's next deadline was.
    pub(crate) fn tick(&mut self, now: Now) {
        self.now = now;
        self.clock += 1;
        let group = self.clock;
        let sleepers = self.peers.values().filter(|peer| peer.asleep).count();
        for peer in self.peers.values_mut() {
            if peer.woken_ms.is_some_and(|woken_ms| woken_ms + self.rules.lease_ms <= now.mono_ms) {
                peer.woken_ms = None;
                // All others of the function may be woken in its place.
                self.wakes_due += sleepers.max(1) as u64;
                self.tally.count("lease ended");
            }
        }
        self.end_pauses();
        // What starts now may expire at once, and what is lost may be run again at once.
        while self.tick_jobs(group) {}
        self.drop_old_letters();
        self.expect_fails();
    }

    /// Does what is due for jobs; `false` if nothing is.
    fn tick_jobs(&mut self, group: u64) -> bool {
        let now = self.now;
        let numbers: Vec<u64> = self.jobs.keys().copied().collect();
        let mut is_due = false;
        for number in numbers {
            let expiry = self.expiry_of(number).filter(|&(end_ms, _)| end_ms <= now.unix_ms);
            match self.jobs[&number].place {
                Place::Running { conn, deadline_ms: Some(deadline_ms), .. }
                    if deadline_ms <= now.mono_ms =>
                {
                    self.tally.count("timed out");
                    self.notify_cancelled(number);
                    self.lose_worker(number, conn, Reason::TimedOut, group);
                    if let Some(job) = self.jobs.get_mut(&number) {
                        job.late = Some(conn);
                    }
                }
                Place::Delayed { run_at_ms } if run_at_ms <= now.unix_ms => {
                    self.tally.count("started late");
                    self.enqueue_back(number, group);
                }
                Place::Queued if let Some((_, dead)) = expiry => self.expire(number, dead),
                _ => continue,
            }
            is_due = true;
        }
        is_due
    }

    /// The earliest moment at which something is due for a job.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let offset_ms = self.now.unix_ms - self.now.mono_ms;
        let jobs = self.jobs.values().filter_map(|job| match job.place {
            Place::Running { deadline_ms, .. } => deadline_ms,
            Place::Delayed { run_at_ms } => Some(run_at_ms.saturating_sub(offset_ms)),
            Place::Queued | Place::Storing => None,
        });
        let expiries = self.jobs.keys().filter_map(|&number| self.expiry_of(number));
        let pauses = self.functions.values().filter_map(|function| match function.pause {
            Some(Pause::Until(end_ms)) => Some(end_ms),
            _ => None,
        });
        let letters = self.dead.iter().map(|letter| letter.died_ms + self.rules.dead_keep_ms);
        let by_clock = expiries.map(|(end_ms, _)| end_ms).chain(pauses).chain(letters);
        jobs.chain(by_clock.map(|at_ms| at_ms.saturating_sub(offset_ms))).min()
    }
}
