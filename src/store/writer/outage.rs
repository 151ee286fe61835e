//! Failures, refusals and commits of a store in, what the log is told of them out.
//!
//! A store may fail and succeed by turns: on a full disk every Insert is refused, and the removal
//! of the row, which isn't there, goes well. Knows neither the store nor what is refused.
//!
//! Invariant: an outage lasts from a failure to the next commit that has written something.

use std::time::{Duration, Instant};

use tracing::{info, warn};

/// Time between two lines about an outage that lasts.
const NEWS_INTERVAL: Duration = Duration::from_secs(60);

/// A time in which the store fails and writes nothing.
#[derive(Debug)]
pub(super) struct Outage {
    since: Instant,
    /// When the log was told last.
    told: Instant,
    /// Jobs that were refused.
    refused: u64,
}

impl Outage {
    /// The first failure.
    pub(super) fn begin(reason: &str, waiting: u64, now: Instant) -> Self {
        warn!(reason, waiting, "the store is down; trying again until it is back");
        Self { since: now, told: now, refused: 0 }
    }

    /// So many jobs are refused because of it.
    pub(super) fn refuse(&mut self, count: usize) {
        self.refused += count as u64;
    }

    /// It lasts: another failure.
    pub(super) fn go_on(&mut self, reason: &str, waiting: u64, now: Instant) {
        if self.is_news(now) {
            let (seconds, refused) = ((now - self.since).as_secs(), self.refused);
            warn!(reason, seconds, refused, waiting, "the store is still down");
        }
    }

    /// A commit has written something.
    pub(super) fn end(self, waiting: u64, now: Instant) {
        let (seconds, refused) = ((now - self.since).as_secs(), self.refused);
        info!(seconds, refused, waiting, "the store is back; what waited is written now");
    }

    /// Whether the log has been told nothing for long enough; then it is now.
    fn is_news(&mut self, now: Instant) -> bool {
        let is_news = now.saturating_duration_since(self.told) >= NEWS_INTERVAL;
        if is_news {
            self.told = now;
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_news_once_a_minute() {
        let start = Instant::now();
        let mut outage = Outage::begin("full", 1, start);
        let after = |seconds| start + Duration::from_secs(seconds);
        let told: Vec<u64> = (0..300).filter(|&seconds| outage.is_news(after(seconds))).collect();
        assert_eq!(told, [60, 120, 180, 240]);
        assert!(!outage.is_news(after(299)));
    }
}
