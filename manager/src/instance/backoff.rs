//! How long to wait before a command is started again that failed too early.
//!
//! Knows no process and no clock.
//!
//! Invariant: a wait is within the worker's `backoff`, and at most double the one before it.

use std::time::Duration;

use crate::config::Worker;

/// The waits of one instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// A worker's back-off, from its beginning.
    pub(super) fn of(worker: &Worker) -> Self {
        let (least, most) = worker.backoff;
        Self { least, most: most.max(least), next: least }
    }

    /// How long to wait after a process that ended by itself after `lived`: nothing if it was
    /// healthy before.
    pub(super) fn ended(&mut self, lived: Duration) -> Option<Duration> {
        if lived >= Worker::HEALTHY_AFTER {
            self.reset();
            return None;
        }
        Some(self.failed())
    }

    /// How long to wait after a process that couldn't be started.
    pub(super) fn failed(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.most);
        wait
    }

    /// The command works: the next wait is the least again.
    pub(super) fn reset(&mut self) {
        self.next = self.least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::samples::worker;

    #[test]
    fn waits_double_up_to_the_most_and_begin_anew_after_health() {
        let mut worker = worker(&["true"]);
        worker.backoff = (Duration::from_secs(1), Duration::from_secs(5));
        let mut backoff = Backoff::of(&worker);
        let early = Duration::from_millis(9_999);
        let waits: Vec<_> =
            (0..5).map(|_| backoff.ended(early).map(|wait| wait.as_secs())).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5].map(Some));
        assert_eq!(backoff.ended(Duration::from_secs(10)), None);
        assert_eq!(backoff.failed(), Duration::from_secs(1));
    }
}
