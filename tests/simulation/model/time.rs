//! What the time brings: leases, timeouts and starts that are due.
//!
//! Invariant: `deadline_ms` is no later than the next thing that `tick` does for a job.

use ringgear::engine::Now;

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
        let numbers: Vec<u64> = self.jobs.keys().copied().collect();
        for number in numbers {
            match self.jobs[&number].place {
                Place::Running { conn, deadline_ms: Some(deadline_ms), .. }
                    if deadline_ms <= now.mono_ms =>
                {
                    self.tally.count("timed out");
                    self.lose_worker(number, group);
                    if let Some(job) = self.jobs.get_mut(&number) {
                        job.late = Some(conn);
                    }
                }
                Place::Delayed { run_at_s } if run_at_s * 1000 <= now.unix_ms => {
                    self.tally.count("started late");
                    self.enqueue_back(number, group);
                }
                _ => {}
            }
        }
        self.expect_fails();
    }

    /// The earliest moment at which something is due for a job.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let offset_ms = self.now.unix_ms - self.now.mono_ms;
        let jobs = self.jobs.values().filter_map(|job| match job.place {
            Place::Running { deadline_ms, .. } => deadline_ms,
            Place::Delayed { run_at_s } => Some(run_at_s * 1000 - offset_ms),
            Place::Queued | Place::Storing => None,
        });
        jobs.min()
    }
}
