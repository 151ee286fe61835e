//! Numbers that each core publishes for the others: what it has in use, and how busy it is.
//!
//! A core's own numbers in, once a turn; sums over the other cores out. The numbers are atomics of
//! their own, so a reader may see some of a turn and others of the turn before. Knows no message
//! and makes no decision.
//!
//! Invariant: only the core that a gauge belongs to writes to it. A thread that reads a count sees
//! all messages that the core sent before it published that count.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::utilization::{Utilization, WINDOW_MS};

/// A report of a core's utilization that is older than this means that the core has been idle
/// since, as a core reports after each window in which it ran.
const STALE_MS: u64 = 4 * WINDOW_MS;
/// Bits of a report that hold the utilization; those above hold the time.
const UTILIZATION_BITS: u32 = 16;

/// What one core has in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Memory in bytes, with the messages that the core sent and without those that it received.
    /// The sum over all cores is what they take together; one core's may be negative.
    pub(crate) bytes: isize,
    /// Connections.
    pub(crate) connections: usize,
    /// Jobs that are to be finished before the server may end, and messages that wait for space.
    pub(crate) jobs: usize,
    /// Jobs assigned to workers.
    pub(crate) running: usize,
    /// Jobs left to the next server.
    pub(crate) kept: usize,
    /// The largest outbox beyond 1 MiB; over several cores the maximum counts.
    pub(crate) largest_unread_bytes: usize,
}

/// A core's `Load` and utilization as the other cores see them. Connections and utilization change
/// so rarely that their cache lines stay shared; the rest changes with every turn.
#[derive(Debug, Default)]
struct Gauge {
    connections: CachePadded<AtomicUsize>,
    /// The utilization of the last window, and when that ended: see `report`.
    utilization: CachePadded<AtomicU64>,
    bytes: AtomicIsize,
    jobs: AtomicUsize,
    running: AtomicUsize,
    kept: AtomicUsize,
    largest_unread_bytes: AtomicUsize,
    turns: CachePadded<Turns>,
}

/// Upper ends of the first buckets of a core's turns, in microseconds; the last bucket has none.
pub const TURN_BOUNDS_US: [u64; 5] = [100, 1000, 10_000, 100_000, 1_000_000];
/// Number of these buckets.
pub const TURN_BUCKETS: usize = TURN_BOUNDS_US.len() + 1;

/// How long a core's turns took, written by the core alone and read once a scrape.
#[derive(Debug, Default)]
struct Turns {
    /// The thread's number, by which the kernel tells how long it ran; 0 before it runs.
    thread: AtomicU32,
    buckets: [AtomicU64; TURN_BUCKETS],
    sum_us: AtomicU64,
}

/// How long a core's turns took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnTimes {
    /// The thread's number; 0 before it runs.
    pub thread: u32,
    /// Turns by bucket, not summed up.
    pub buckets: [u64; TURN_BUCKETS],
    /// All together, in microseconds.
    pub sum_us: u64,
}

/// The gauges of all cores, as one of them uses them.
#[derive(Clone, Debug)]
pub(crate) struct Gauges {
    own: usize,
    /// Cores; the thread for HTTP may have a gauge behind theirs.
    cores: usize,
    /// By core.
    gauges: Arc<[Gauge]>,
}

impl Gauges {
    /// The gauges of `cores` cores, once for each of them.
    #[cfg(test)]
    pub(crate) fn of(cores: usize) -> Vec<Self> {
        Self::with_http(cores, false)
    }

    /// The gauges of `cores` cores, once for each of them, and with `has_http` behind them those of
    /// the thread for HTTP, which has a gauge for its memory.
    pub(crate) fn with_http(cores: usize, has_http: bool) -> Vec<Self> {
        let count = cores + usize::from(has_http);
        let gauges: Arc<[Gauge]> = (0..count).map(|_| Gauge::default()).collect();
        (0..count).map(|own| Self { own, cores, gauges: Arc::clone(&gauges) }).collect()
    }

    /// The same for a thread that publishes nothing: all cores are others to it.
    pub(crate) fn for_observer(&self) -> Self {
        Self { own: self.gauges.len(), ..self.clone() }
    }

    /// The number of the core that publishes here.
    pub(crate) fn own(&self) -> usize {
        self.own
    }

    /// Number of cores.
    pub(crate) fn count(&self) -> usize {
        self.cores
    }

    /// Publishes what this core has in use; called once a turn.
    #[inline]
    pub(crate) fn publish(&self, load: Load) {
        let gauge = &self.gauges[self.own];
        let Gauge { bytes, connections, jobs, running, kept, largest_unread_bytes, .. } = gauge;
        let counts = [
            (&**connections, load.connections),
            (running, load.running),
            (kept, load.kept),
            (jobs, load.jobs),
            (largest_unread_bytes, load.largest_unread_bytes),
        ];
        // A store of the value that is there already would take the line from the readers' caches.
        if bytes.load(Ordering::Relaxed) != load.bytes {
            bytes.store(load.bytes, Ordering::Relaxed);
        }
        for (published, now) in counts {
            if published.load(Ordering::Relaxed) != now {
                published.store(now, Ordering::Release);
            }
        }
    }

    /// The sum of what all other cores have in use, as they last published it. Busy cores have
    /// written to most of these lines since: too expensive for every turn where there are many.
    pub(crate) fn elsewhere(&self) -> Load {
        self.others().fold(Load::default(), |sum, gauge| Load {
            bytes: sum.bytes + gauge.bytes.load(Ordering::Relaxed),
            connections: sum.connections + gauge.connections.load(Ordering::Relaxed),
            jobs: sum.jobs + gauge.jobs.load(Ordering::Acquire),
            running: sum.running + gauge.running.load(Ordering::Relaxed),
            kept: sum.kept + gauge.kept.load(Ordering::Relaxed),
            largest_unread_bytes: sum
                .largest_unread_bytes
                .max(gauge.largest_unread_bytes.load(Ordering::Relaxed)),
        })
    }

    /// Connections of all other cores together.
    #[inline]
    pub(crate) fn connections_elsewhere(&self) -> usize {
        self.others().map(|gauge| gauge.connections.load(Ordering::Relaxed)).sum()
    }

    /// Connections of one core.
    pub(crate) fn connections(&self, core: usize) -> usize {
        self.gauges[core].connections.load(Ordering::Relaxed)
    }

    /// Publishes how busy this core was in a window that ended at `now_ms`.
    pub(crate) fn publish_utilization(&self, utilization: Utilization, now_ms: u64) {
        let report = report(utilization, now_ms);
        self.gauges[self.own].utilization.store(report, Ordering::Relaxed);
    }

    /// How busy a core is.
    #[inline]
    pub(crate) fn utilization(&self, core: usize, now_ms: u64) -> Utilization {
        utilization_in(self.gauges[core].utilization.load(Ordering::Relaxed), now_ms)
    }

    /// Counts a turn of this core, which this thread runs.
    pub(crate) fn count_turn(&self, took: Duration, thread: u32) {
        let turns = &self.gauges[self.own].turns;
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = TURN_BOUNDS_US.iter().position(|&bound| us <= bound);
        let bucket = &turns.buckets[bucket.unwrap_or(TURN_BOUNDS_US.len())];
        // No other thread writes to them.
        bucket.store(bucket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        turns.sum_us.store(turns.sum_us.load(Ordering::Relaxed) + us, Ordering::Relaxed);
        turns.thread.store(thread, Ordering::Relaxed);
    }

    /// How long the turns of a core took.
    pub(crate) fn turns(&self, core: usize) -> TurnTimes {
        let Turns { thread, buckets, sum_us } = &*self.gauges[core].turns;
        TurnTimes {
            thread: thread.load(Ordering::Relaxed),
            buckets: std::array::from_fn(|at| buckets[at].load(Ordering::Relaxed)),
            sum_us: sum_us.load(Ordering::Relaxed),
        }
    }

    fn others(&self) -> impl Iterator<Item = &Gauge> {
        let gauges = self.gauges.iter().enumerate();
        gauges.filter(|(core, _)| *core != self.own).map(|(_, gauge)| gauge)
    }
}

/// A utilization and its time in one number.
fn report(utilization: Utilization, now_ms: u64) -> u64 {
    now_ms << UTILIZATION_BITS | u64::from(utilization)
}

/// The utilization in a report, 0 if it is stale.
#[inline]
fn utilization_in(report: u64, now_ms: u64) -> Utilization {
    let is_stale = now_ms.saturating_sub(report >> UTILIZATION_BITS) > STALE_MS;
    let utilization = report & ((1 << UTILIZATION_BITS) - 1);
    if is_stale { 0 } else { Utilization::try_from(utilization).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_knows_what_the_others_use() {
        let gauges = Gauges::of(3);
        let load = |bytes, connections, jobs, largest_unread_bytes| Load {
            bytes,
            connections,
            jobs,
            largest_unread_bytes,
            ..Load::default()
        };
        gauges[0].publish(load(1, 10, 1, 5));
        gauges[1].publish(load(-2, 20, 2, 9));
        gauges[2].publish(load(4, 40, 4, 0));
        gauges[1].publish(load(-3, 20, 3, 7));
        assert_eq!(gauges[0].elsewhere(), load(1, 60, 7, 7));
        assert_eq!(gauges[2].elsewhere(), load(-2, 30, 4, 7));
        assert_eq!(Gauges::of(1)[0].elsewhere(), Load::default());
    }

    #[test]
    fn a_core_that_reports_nothing_more_is_idle() {
        let report = report(970, 12_345);
        let times = [12_345, 12_000, 12_345 + STALE_MS];
        assert_eq!(times.map(|now_ms| utilization_in(report, now_ms)), [970; 3]);
        assert_eq!(utilization_in(report, 12_346 + STALE_MS), 0);
    }
}
