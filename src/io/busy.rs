//! How busy a core is, and what follows: who takes connections in, and who should let some go.
//!
//! A core's share of the last window that its thread was running is published with its other
//! gauges. Moving to a core saves crossings, so it takes in whoever is as busy itself; but where it
//! has no time left and the one that comes does, what crosses is cheaper than what waits. Decides
//! about numbers; knows no socket and no shard.
//!
//! Invariant: of two cores, never does each want the other to take its connections.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A share of a core's time, in thousandths.
pub(super) type Busy = u32;

/// How long a core's time is added up before it says how busy it is, in milliseconds.
const WINDOW_MS: u64 = 20;
/// From here on a core has no time left.
const FULL: Busy = 900;
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
pub(super) struct Meter {
    window_end_ms: u64,
    /// When the window began, and what the thread had run until then.
    since: Option<(Duration, Duration)>,
}

impl Meter {
    /// To be asked once a turn by the core's thread: its busy share, when a window is over. `now` is
    /// as fine as the clock goes.
    #[inline]
    pub(super) fn read(&mut self, now_ms: u64, now: impl FnOnce() -> Duration) -> Option<Busy> {
        if now_ms < self.window_end_ms {
            return None;
        }
        self.window_end_ms = now_ms + WINDOW_MS;
        let run = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?);
        let now = now();
        let (began, had_run) = self.since.replace((now, run))?;
        share(run.saturating_sub(had_run), now.saturating_sub(began))
    }
}

/// Thousandths of `whole`.
fn share(part: Duration, whole: Duration) -> Option<Busy> {
    let thousandths = part.as_nanos() * 1000 / whole.as_nanos().max(1);
    Some(Busy::try_from(thousandths).unwrap_or(Busy::MAX).min(1000))
}

/// Whether a core should take in connections whose jobs it has, from one that is so busy `itself`.
#[inline]
pub(super) fn takes_in(core: Busy, itself: Busy) -> bool {
    core <= itself + SLACK || core + itself <= CALM
}

/// Which of the other cores should take connections of one that is so busy `itself`.
pub(super) fn reliever<C>(itself: Busy, others: impl Iterator<Item = (C, Busy)>) -> Option<C> {
    let idle = others.filter(|(_, busy)| itself >= FULL && busy + GAP <= itself);
    idle.min_by_key(|(_, busy)| *busy).map(|(core, _)| core)
}

/// How many of so many connections should make room before it is looked at again.
pub(super) fn to_go(connections: usize) -> usize {
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
        // Others may have the processor meanwhile.
        while busy < 500 {
            assert!(start.elapsed() < Duration::from_secs(20), "{busy}");
            let until = start.elapsed() + Duration::from_millis(2);
            while start.elapsed() < until {
                std::hint::spin_loop();
            }
            now_ms += WINDOW_MS;
            busy = meter.read(now_ms, || start.elapsed()).unwrap();
        }
        assert_eq!(share(Duration::ZERO, Duration::from_millis(20)), Some(0));
        assert_eq!(share(Duration::from_millis(5), Duration::from_millis(20)), Some(250));
        assert_eq!(share(Duration::from_secs(9), Duration::ZERO), Some(1000));
    }
}
