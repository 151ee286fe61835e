//! How busy a core is, and what follows: who takes connections in, and who should let some go.
//!
//! A core's share of the last window that its thread was running, or would have been had it had the
//! processor, is published with its other gauges. Moving to a core saves crossings, so it takes in
//! whoever is as busy itself; but where it has no time left and the one that comes does, what
//! crosses is cheaper than what waits. Decides about numbers; knows no socket and no shard.
//!
//! Invariant: of two cores, never does each want the other to take its connections.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A share of a core's time, in thousandths.
pub(crate) type Busy = u32;

/// Room for a `Busy` in a report.
const BUSY_BITS: u32 = 16;
/// How long a core's time is added up before it says how busy it is, in milliseconds.
const WINDOW_MS: u64 = 50;
/// Nanoseconds that a thread ran and that it waited for a processor (proc_pid_schedstat(5)).
const SCHEDSTAT: &str = "/proc/thread-self/schedstat";
/// From here on a core has no time left.
const FULL: Busy = 900;
/// A core that has said nothing for so long has had nothing to do.
const STALE_MS: u64 = 4 * WINDOW_MS;
/// So much less busy another core must be to have connections sent to it ...
const GAP: Busy = 200;
/// ... and so much busier it may be and still take in those of its jobs.
const SLACK: Busy = 50;
/// Two cores with no more than this together can do the work of both.
const CALM: Busy = 800;
/// Of a core's connections, one in so many may make room in a window: few, as what it brings shows
/// in the next one.
const PART: usize = 32;

/// One core's time.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    window_end_ms: u64,
    /// When the window began, and for how long the thread had wanted to run until then.
    since: Option<(Duration, Duration)>,
    schedstat: Option<File>,
}

impl Meter {
    /// To be asked once a turn by the core's thread: its busy share, when a window is over. `now`
    /// is as fine as the clock goes.
    #[inline]
    pub(crate) fn read(&mut self, now_ms: u64, now: impl FnOnce() -> Duration) -> Option<Busy> {
        if now_ms < self.window_end_ms {
            return None;
        }
        self.window_end_ms = now_ms + WINDOW_MS;
        let wanted = self.wanted()?;
        let now = now();
        let (began, had_wanted) = self.since.replace((now, wanted))?;
        share(wanted.saturating_sub(had_wanted), now.saturating_sub(began))
    }

    /// For how long this thread has run or waited for a processor that others had; kernels that
    /// don't count the latter tell the former.
    fn wanted(&mut self) -> Option<Duration> {
        if self.since.is_none() {
            self.schedstat = File::open(SCHEDSTAT).ok();
        }
        let waited = self.schedstat.as_ref().and_then(|file| {
            let mut text = [0; 64];
            let length = file.read_at(&mut text, 0).ok()?;
            waited(std::str::from_utf8(text.get(..length)?).ok()?)
        });
        // What it ran stands there, too, but as of the last tick.
        let ran = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?);
        Some(ran + waited.unwrap_or_default())
    }
}

fn waited(schedstat: &str) -> Option<Duration> {
    schedstat.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// Thousandths of `whole`.
fn share(part: Duration, whole: Duration) -> Option<Busy> {
    let thousandths = part.as_nanos() * 1000 / whole.as_nanos().max(1);
    Some(Busy::try_from(thousandths).unwrap_or(Busy::MAX).min(1000))
}

/// What a core publishes: how busy it has been, and when it was.
pub(crate) fn report(busy: Busy, now_ms: u64) -> u64 {
    now_ms << BUSY_BITS | u64::from(busy)
}

/// How busy a core is that published this.
#[inline]
pub(crate) fn of_report(report: u64, now_ms: u64) -> Busy {
    let is_stale = now_ms.saturating_sub(report >> BUSY_BITS) > STALE_MS;
    let busy = Busy::try_from(report & ((1 << BUSY_BITS) - 1)).unwrap_or_default();
    if is_stale { 0 } else { busy }
}

/// Whether a core should take in connections whose jobs it has, from one that is so busy `itself`.
#[inline]
pub(crate) fn takes_in(core: Busy, itself: Busy) -> bool {
    core <= itself + SLACK || core + itself <= CALM
}

/// Which of the other cores should take connections of one that is so busy `itself`.
pub(crate) fn reliever<C>(itself: Busy, others: impl Iterator<Item = (C, Busy)>) -> Option<C> {
    let idle = others.filter(|(_, busy)| itself >= FULL && busy + GAP <= itself);
    idle.min_by_key(|(_, busy)| *busy).map(|(core, _)| core)
}

/// How many of so many connections should make room before it is looked at again.
pub(crate) fn to_go(connections: usize) -> usize {
    connections.div_ceil(PART)
}

const _: () = assert!(SLACK < GAP && CALM < FULL && GAP < FULL);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_core_has_the_idlest_one_take_its_connections() {
        let others = [(0, 700), (2, 300), (3, 500)];
        assert_eq!(reliever(1000, others.into_iter()), Some(2));
        assert_eq!(reliever(899, others.into_iter()), None, "it has time left");
        assert_eq!(reliever(1000, [(0, 801)].into_iter()), None, "the other one has little");
        assert_eq!(reliever(1000, std::iter::empty::<(u8, Busy)>()), None);
    }

    #[test]
    fn connections_go_to_their_jobs_unless_that_core_has_less_time_than_theirs() {
        for (core, itself) in [(0, 0), (1000, 1000), (1000, 950), (300, 900), (600, 200)] {
            assert!(takes_in(core, itself), "{core} from {itself}");
        }
        assert!(!takes_in(1000, 600) && !takes_in(700, 200));
    }

    #[test]
    fn nobody_is_sent_back_where_he_came_from() {
        for core in (0..=1000).step_by(25) {
            for other in (0..=1000).step_by(25) {
                let sends = reliever(core, [((), other)].into_iter()).is_some();
                assert!(!sends || !takes_in(core, other), "{core} to {other} and back");
            }
        }
    }

    #[test]
    fn a_window_of_work_is_told_from_one_of_sleep() {
        let mut meter = Meter::default();
        let start = std::time::Instant::now();
        assert_eq!(meter.read(0, || start.elapsed()), None, "nothing to compare with");
        assert_eq!(meter.read(WINDOW_MS - 1, || start.elapsed()), None);
        let (mut busy, mut now_ms) = (0, 0);
        while busy < 800 {
            assert!(start.elapsed() < Duration::from_secs(20), "{busy}");
            let until = start.elapsed() + Duration::from_millis(2);
            while start.elapsed() < until {
                std::hint::spin_loop();
            }
            now_ms += WINDOW_MS;
            busy = meter.read(now_ms, || start.elapsed()).unwrap();
        }
        // Waking up may take long, too, and counts as busy.
        while busy > 500 {
            assert!(start.elapsed() < Duration::from_secs(20), "{busy} in its sleep");
            std::thread::park_timeout(Duration::from_millis(20));
            now_ms += WINDOW_MS;
            busy = meter.read(now_ms, || start.elapsed()).unwrap();
        }
    }

    #[test]
    fn a_core_that_says_nothing_more_sleeps() {
        let report = report(970, 12_345);
        assert_eq!([12_345, 12_000, 12_345 + STALE_MS].map(|at| of_report(report, at)), [970; 3]);
        assert_eq!(of_report(report, 12_346 + STALE_MS), 0);
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
