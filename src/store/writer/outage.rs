//! Outages of a store: failures and commits in, lines of the log out.
//!
//! A store may fail and succeed in turns: on a full disk every Insert fails, and the removal of its
//! row, which doesn't exist, succeeds. Knows neither the store nor the operations.
//!
//! Invariant: an outage lasts from a failure to the next commit that has written something.

use std::time::{Duration, Instant};

use tracing::{info, warn};

/// Time between two lines about the same outage.
const NEWS_INTERVAL: Duration = Duration::from_secs(60);

/// A period in which the store writes nothing.
#[derive(Debug)]
pub(super) struct Outage {
    since: Instant,
    /// Time of the last line.
    logged: Instant,
    /// Number of jobs that were refused.
    refused: u64,
}

impl Outage {
    /// Begins with the first failure.
    pub(super) fn begin(reason: &str, waiting: u64, now: Instant) -> Self {
        warn!(reason, waiting, "the store is down; trying again until it is back");
        Self { since: now, logged: now, refused: 0 }
    }

    /// Counts jobs that were refused during the outage.
    pub(super) fn refuse(&mut self, count: usize) {
        self.refused += count as u64;
    }

    /// Continues after another failure.
    pub(super) fn continues(&mut self, reason: &str, waiting: u64, now: Instant) {
        if self.is_due(now) {
            let (seconds, refused) = ((now - self.since).as_secs(), self.refused);
            warn!(reason, seconds, refused, waiting, "the store is still down");
        }
    }

    /// Ends with a commit that wrote something.
    pub(super) fn end(self, waiting: u64, now: Instant) {
        let (seconds, refused) = ((now - self.since).as_secs(), self.refused);
        info!(seconds, refused, waiting, "the store is back; what waited is written now");
    }

    /// Whether the next line is due; assumes that it is logged then.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now.saturating_duration_since(self.logged) >= NEWS_INTERVAL;
        if is_due {
            self.logged = now;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_once_a_minute() {
        let start = Instant::now();
        let mut outage = Outage::begin("full", 1, start);
        let after = |seconds| start + Duration::from_secs(seconds);
        let logged: Vec<u64> = (0..300).filter(|&seconds| outage.is_due(after(seconds))).collect();
        assert_eq!(logged, [60, 120, 180, 240]);
        assert!(!outage.is_due(after(299)));
    }
}
