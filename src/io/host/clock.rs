//! The clocks, as the engine takes them: milliseconds that never go back, and milliseconds since
//! 1970.
//!
//! Drivers read them once a turn.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::engine::Now;

/// Reads both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic time starts at 0 now.
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// When its monotonic time was 0.
    pub(crate) fn began(&self) -> Instant {
        self.start
    }

    /// The time.
    #[inline]
    pub(crate) fn now(&self) -> Now {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: millis(self.start.elapsed()), unix_ms: millis(since_epoch) }
    }

    /// The monotonic time in the clock's full resolution.
    #[inline]
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
