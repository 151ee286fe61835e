//! Nanoseconds since the run began, as plain numbers that all threads agree on.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The one clock of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
    began_unix: Duration,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let began_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), began_unix }
    }

    /// A number that no other run has.
    pub(crate) fn run_number(&self) -> u64 {
        nanos(self.began_unix).rotate_left(32) ^ u64::from(std::process::id())
    }

    pub(crate) fn now_ns(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    /// Seconds since 1970 at `now_ns` of this clock.
    pub(crate) fn unix_seconds(&self, now_ns: u64) -> u64 {
        (self.began_unix + Duration::from_nanos(now_ns)).as_secs()
    }
}

/// A duration as a number; 584 years are enough.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
