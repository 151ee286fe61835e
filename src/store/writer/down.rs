//! When a store that fails is tried again, and until when Inserts wait for it.
//!
//! Failures in, times out. Knows no operation.
//!
//! Invariant: the pause between two tries grows up to a second, and no Insert waits for longer than
//! the timeout since it arrived or since the first failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause after a failed commit; doubled with each further failure.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two attempts. It ends early if an Insert's timeout expires.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// State while the store fails.
pub(super) struct Down {
    pub(super) since: Instant,
    pub(super) next_try: Instant,
    pause: Duration,
    /// How long Inserts are retried.
    pub(super) timeout: Duration,
    pub(super) reason: Arc<str>,
}

impl Down {
    /// After a failure at `now`; `earlier` is the state before it.
    pub(super) fn after(
        earlier: Option<&Self>,
        reason: &str,
        timeout: Duration,
        now: Instant,
    ) -> Self {
        let longest =
            if timeout.is_zero() { PAUSE_MAX } else { (timeout / 2).clamp(PAUSE_MIN, PAUSE_MAX) };
        let (since, pause) = match earlier {
            Some(down) => (down.since, (down.pause * 2).min(longest)),
            None => (now, PAUSE_MIN),
        };
        Self { since, next_try: now + pause, pause, timeout, reason: reason.into() }
    }

    /// When an Insert fails that arrived at `arrived`.
    pub(super) fn expiry(&self, arrived: Instant) -> Instant {
        arrived.max(self.since) + self.timeout
    }
}
