//! How busy a core is: the share of its time that its thread ran, or would have run had it had a
//! processor.
//!
//! Times in, one number for each window of `WINDOW_MS` out. What follows from the number is decided
//! in `placement`.
//!
//! Invariant: a thread that waits for a processor counts as busy, one that waits for events as
//! idle.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A share of a core's time, in thousandths.
pub(crate) type Utilization = u32;

/// The time over which a core's utilization is measured, in milliseconds.
pub(crate) const WINDOW_MS: u64 = 50;
/// Nanoseconds that a thread ran and that it waited for a processor (proc_pid_schedstat(5)).
const SCHEDSTAT: &str = "/proc/thread-self/schedstat";

/// Measures the utilization of the thread that calls it.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    window_end_ms: u64,
    /// When the window began, and for how long the thread had run or been runnable until then.
    since: Option<(Duration, Duration)>,
    schedstat: Option<File>,
}

impl Meter {
    /// Returns the utilization of a window that is over. The core's thread calls it once a turn.
    /// `now` returns the time as finely as the clock goes.
    #[inline]
    pub(crate) fn poll_window(
        &mut self,
        now_ms: u64,
        now: impl FnOnce() -> Duration,
    ) -> Option<Utilization> {
        if now_ms < self.window_end_ms {
            return None;
        }
        self.window_end_ms = now_ms + WINDOW_MS;
        let runnable = self.runnable()?;
        let now = now();
        let (began, runnable_before) = self.since.replace((now, runnable))?;
        share(runnable.saturating_sub(runnable_before), now.saturating_sub(began))
    }

    /// How long this thread has run or been runnable since it started. Kernels that don't count the
    /// time that it waited for a processor give the time that it ran.
    fn runnable(&mut self) -> Option<Duration> {
        if self.since.is_none() {
            self.schedstat = File::open(SCHEDSTAT).ok();
        }
        let waited = self.schedstat.as_ref().and_then(|file| {
            let mut text = [0; 64];
            let length = file.read_at(&mut text, 0).ok()?;
            waited(std::str::from_utf8(text.get(..length)?).ok()?)
        });
        // The file has the time that it ran, too, but as of the last tick.
        let ran = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?);
        Some(ran + waited.unwrap_or_default())
    }
}

/// How long a thread of this process has run or waited for a processor; `None` if it isn't there.
pub(crate) fn thread_time(thread: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let (Some(Ok(ran)), Some(Ok(waited))) = (numbers.next(), numbers.next()) else { return None };
    Some(Duration::from_nanos(ran) + Duration::from_nanos(waited))
}

fn waited(schedstat: &str) -> Option<Duration> {
    schedstat.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// `part` in thousandths of `whole`, at most 1000.
fn share(part: Duration, whole: Duration) -> Option<Utilization> {
    let thousandths = part.as_nanos() * 1000 / whole.as_nanos().max(1);
    Some(Utilization::try_from(thousandths).unwrap_or(Utilization::MAX).min(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_work_is_told_from_one_of_sleep() {
        let mut meter = Meter::default();
        let start = std::time::Instant::now();
        assert_eq!(meter.poll_window(0, || start.elapsed()), None, "nothing to compare with");
        assert_eq!(meter.poll_window(WINDOW_MS - 1, || start.elapsed()), None);
        let (mut busy, mut now_ms) = (0, 0);
        while busy < 800 {
            assert!(start.elapsed() < Duration::from_secs(20), "{busy}");
            let until = start.elapsed() + Duration::from_millis(2);
            while start.elapsed() < until {
                std::hint::spin_loop();
            }
            now_ms += WINDOW_MS;
            busy = meter.poll_window(now_ms, || start.elapsed()).unwrap();
        }
        // Waking up may take long, too, and counts as busy.
        while busy > 500 {
            assert!(start.elapsed() < Duration::from_secs(20), "{busy} though it sleeps");
            std::thread::park_timeout(Duration::from_millis(20));
            now_ms += WINDOW_MS;
            busy = meter.poll_window(now_ms, || start.elapsed()).unwrap();
        }
    }

    #[test]
    fn waiting_for_a_processor_is_no_idleness() {
        assert_eq!(waited("2000 3000 7\n"), Some(Duration::from_nanos(3000)));
        assert_eq!(waited("2000"), None);
        assert_eq!(share(Duration::ZERO, Duration::from_millis(20)), Some(0));
        assert_eq!(share(Duration::from_millis(5), Duration::from_millis(20)), Some(250));
        assert_eq!(share(Duration::from_secs(9), Duration::ZERO), Some(1000));
    }
}
