//! What changed lately: rates, jobs ended in each of the last intervals, and percentiles.
//!
//! Samples of the functions' numbers come in every `INTERVAL`, also while nothing happens: a sample
//! costs each core one reply for 256 named functions. Numbers of now come in, and what changed
//! since earlier samples goes out. Knows no JSON and no cores.
//!
//! Invariant: a function takes at most 1.5 KiB beside its name.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::numbers::{BOUNDS_MS, BUCKETS, Durations, Numbers};
use crate::shard::operator::FunctionRow;

/// From one sample to the next.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// Intervals that are remembered.
const INTERVALS: usize = 60;
/// Samples after which the older histograms are replaced: a minute.
const ROTATE_AFTER: u64 = 12;
/// Rates are taken over no less.
const RATE_OVER_MIN: Duration = Duration::from_secs(1);

const _: () = assert!(size_of::<Track>() <= 1536);

/// What was counted of jobs: how many were submitted, completed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) submitted: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
}

impl Counts {
    pub(super) fn of(numbers: &Numbers) -> Self {
        Self {
            submitted: numbers.submitted.iter().sum(),
            completed: numbers.completed,
            failed: numbers.failed.iter().sum(),
        }
    }

    fn ended(self) -> u64 {
        self.completed + self.failed
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.submitted += other.submitted;
        self.completed += other.completed;
        self.failed += other.failed;
    }
}

/// Jobs a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub(super) struct Rate {
    pub(super) submitted: f64,
    pub(super) completed: f64,
    pub(super) failed: f64,
}

/// How long most jobs took, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    /// How many jobs.
    pub(super) count: u64,
}

/// How many durations a histogram has, by bucket.
type Buckets = [u64; BUCKETS];

/// What is remembered of a function, or of all together.
#[derive(Clone, Debug)]
struct Track {
    /// At the last two samples, the later first.
    counts: [Counts; 2],
    /// Jobs that ended in each interval, in a ring.
    ended: [u32; INTERVALS],
    /// Waits and runs: when they were last replaced, and when before that.
    wait: [Buckets; 2],
    run: [Buckets; 2],
}

impl Default for Track {
    fn default() -> Self {
        Self {
            counts: Default::default(),
            ended: [0; INTERVALS],
            wait: Default::default(),
            run: Default::default(),
        }
    }
}

/// What changed lately.
#[derive(Debug)]
pub(super) struct History {
    /// When the last two samples were taken, the later first.
    at: [Instant; 2],
    /// How many there were.
    samples: u64,
    functions: HashMap<Box<[u8]>, Track>,
    all: Track,
    /// How long each core had been busy at the last two samples, in seconds.
    busy: [Vec<f64>; 2],
}

impl History {
    /// Without samples: at this moment all numbers are 0.
    pub(super) fn new(at: Instant) -> Self {
        let (functions, busy) = (HashMap::new(), Default::default());
        Self { at: [at; 2], samples: 0, functions, all: Track::default(), busy }
    }

    /// Takes a sample: the rows of named functions, those of the others' sums, and how long each
    /// core has been busy.
    pub(super) fn sample(&mut self, at: Instant, rows: &[FunctionRow], busy: Vec<f64>) {
        let in_ring = self.ring_place();
        let rotates = (self.samples + 1).is_multiple_of(ROTATE_AFTER);
        let mut sum = Numbers::default();
        for row in rows {
            let Some(numbers) = &row.numbers else { continue };
            sum += numbers;
            let Some(name) = &row.name else { continue };
            if !self.functions.contains_key(name) {
                self.functions.insert(name.clone(), Track::default());
            }
            if let Some(track) = self.functions.get_mut(name) {
                track.sample(in_ring, rotates, numbers);
            }
        }
        self.all.sample(in_ring, rotates, &sum);
        self.at = [at, self.at[0]];
        self.busy.swap(0, 1);
        self.busy[0] = busy;
        self.samples += 1;
    }

    /// Where the next interval goes in the rings.
    fn ring_place(&self) -> usize {
        usize::try_from(self.samples % INTERVALS as u64).unwrap_or(0)
    }

    /// The rates of a function that is named in metrics.
    pub(super) fn rate(&self, name: &[u8], now: Instant, numbers: &Numbers) -> Rate {
        let base = self.functions.get(name).map_or_else(Counts::default, |it| it.counts[1]);
        self.rate_since(base, now, Counts::of(numbers))
    }

    /// The rates of all functions together.
    pub(super) fn rate_of_all(&self, now: Instant, counts: Counts) -> Rate {
        self.rate_since(self.all.counts[1], now, counts)
    }

    fn rate_since(&self, base: Counts, now: Instant, counts: Counts) -> Rate {
        let seconds = self.seconds_at(now);
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        Rate {
            submitted: rate(counts.submitted, base.submitted),
            completed: rate(counts.completed, base.completed),
            failed: rate(counts.failed, base.failed),
        }
    }

    /// Seconds over which rates are taken.
    fn seconds_at(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.at[1]).max(RATE_OVER_MIN).as_secs_f64()
    }

    /// Which share of the time a core has been busy, of which this is the time by now in seconds.
    pub(super) fn busy_share(&self, core: usize, now: Instant, busy_s: f64) -> f64 {
        let before = self.busy[1].get(core).copied().unwrap_or(0.0);
        ((busy_s - before) / self.seconds_at(now)).clamp(0.0, 1.0)
    }

    /// Jobs of a function that ended in each of the last intervals, the oldest first; none for one
    /// that isn't named in metrics.
    pub(super) fn ended(&self, name: &[u8]) -> Vec<u32> {
        self.functions.get(name).map(|track| self.in_order(track)).unwrap_or_default()
    }

    /// The same of all functions.
    pub(super) fn ended_of_all(&self) -> Vec<u32> {
        self.in_order(&self.all)
    }

    fn in_order(&self, track: &Track) -> Vec<u32> {
        let (newer, older) = track.ended.split_at(self.ring_place());
        let older = if self.samples < INTERVALS as u64 { &[] } else { older };
        [older, newer].concat()
    }

    /// How long a function's jobs waited in the last one to two minutes.
    pub(super) fn wait(&self, name: &[u8], numbers: &Numbers) -> Option<Percentiles> {
        percentiles(&numbers.wait, self.functions.get(name).map(|track| &track.wait[1]))
    }

    /// How long they ran.
    pub(super) fn run(&self, name: &[u8], numbers: &Numbers) -> Option<Percentiles> {
        percentiles(&numbers.run, self.functions.get(name).map(|track| &track.run[1]))
    }
}

impl Track {
    fn sample(&mut self, in_ring: usize, rotates: bool, numbers: &Numbers) {
        let counts = Counts::of(numbers);
        let ended = counts.ended().saturating_sub(self.counts[0].ended());
        if let Some(place) = self.ended.get_mut(in_ring) {
            *place = u32::try_from(ended).unwrap_or(u32::MAX);
        }
        self.counts = [counts, self.counts[0]];
        if rotates {
            self.wait = [numbers.wait.buckets, self.wait[0]];
            self.run = [numbers.run.buckets, self.run[0]];
        }
    }
}

/// Percentiles of what a histogram got since it had these buckets.
fn percentiles(now: &Durations, then: Option<&Buckets>) -> Option<Percentiles> {
    let mut new = now.buckets;
    if let Some(then) = then {
        new.iter_mut().zip(then).for_each(|(now, then)| *now = now.saturating_sub(*then));
    }
    let bounds_ms = BOUNDS_MS.map(f64::from);
    let at = |share| percentile(&new, &bounds_ms, share);
    Some(Percentiles { p50: at(0.5)?, p90: at(0.9)?, p99: at(0.99)?, count: new.iter().sum() })
}

/// The duration in seconds that a share of those in a histogram didn't exceed, as if those of a
/// bucket were spread evenly over it; the start of the last bucket for those in it. `None` if there
/// are none.
pub(super) fn percentile(buckets: &[u64], bounds_ms: &[f64], share: f64) -> Option<f64> {
    let count: u64 = buckets.iter().sum();
    let rank = share * count as f64;
    let (mut before, mut start_ms) = (0.0, 0.0);
    for (&number, &end_ms) in buckets.iter().zip(bounds_ms) {
        let number = number as f64;
        if number > 0.0 && before + number >= rank {
            return Some((start_ms + (end_ms - start_ms) * (rank - before) / number) / 1000.0);
        }
        (before, start_ms) = (before + number, end_ms);
    }
    (count > 0).then_some(start_ms / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::numbers::Gauges;

    fn row(name: &str, submitted: u64, completed: u64) -> FunctionRow {
        let numbers = Numbers { submitted: [submitted, 0], completed, ..Numbers::default() };
        FunctionRow {
            name: Some(name.as_bytes().into()),
            exists: true,
            gauges: Gauges::default(),
            numbers: Some(Box::new(numbers)),
            queue_max: [0; 3],
            pause: None,
        }
    }

    fn numbers(row: &FunctionRow) -> &Numbers {
        row.numbers.as_ref().unwrap()
    }

    #[test]
    fn rates_are_over_the_last_samples_and_fall_to_nothing() {
        let start = Instant::now();
        let mut history = History::new(start);
        let row = |submitted| row("resize", submitted, 0);
        let rate = |history: &History, after: u64, submitted: u64| {
            let now = start + Duration::from_secs(after);
            history.rate(b"resize", now, numbers(&row(submitted))).submitted
        };
        assert_eq!(rate(&history, 0, 7), 7.0, "over a second at least");
        assert_eq!(rate(&history, 4, 8), 2.0);
        for (sample, submitted) in [(1, 50), (2, 100), (3, 150)] {
            history.sample(start + INTERVAL * sample, &[row(submitted)], vec![0.0]);
        }
        assert_eq!(rate(&history, 17, 170), 10.0, "since 10 s after the start");
        assert_eq!(rate(&history, 17, 100), 0.0);
        // A function that is new.
        let new = self::row("new", 14, 0);
        let later = start + Duration::from_secs(17);
        assert_eq!(history.rate(b"new", later, numbers(&new)).submitted, 2.0);
        let all = Counts { submitted: 170, ..Counts::default() };
        assert_eq!(history.rate_of_all(later, all).submitted, 10.0);
    }

    #[test]
    fn intervals_come_in_order_and_the_oldest_leave() {
        let mut history = History::new(Instant::now());
        assert!(history.ended_of_all().is_empty());
        for sample in 1..=3 {
            history.sample(Instant::now(), &[row("a", 0, sample * sample)], Vec::new());
        }
        assert_eq!(history.ended(b"a"), [1, 3, 5]);
        assert!(history.ended(b"b").is_empty());
        for sample in 4..=70 {
            history.sample(Instant::now(), &[row("a", 0, sample * sample)], Vec::new());
        }
        let expected: Vec<u32> = (11..=70).map(|sample| 2 * sample - 1).collect();
        assert_eq!(history.ended(b"a"), expected);
        assert_eq!(history.ended_of_all(), expected);
    }

    #[test]
    fn percentiles_are_of_the_last_minutes() {
        let mut history = History::new(Instant::now());
        let mut row = row("a", 0, 0);
        let sample = |history: &mut History, row: &FunctionRow| {
            for _ in 0..ROTATE_AFTER {
                history.sample(Instant::now(), std::slice::from_ref(row), Vec::new());
            }
        };
        assert_eq!(history.wait(b"a", numbers(&row)), None);
        (0..10).for_each(|_| row.numbers.as_mut().unwrap().wait.add(60));
        sample(&mut history, &row);
        assert_eq!(history.wait(b"a", numbers(&row)).unwrap().count, 10);
        row.numbers.as_mut().unwrap().wait.add(7_000_000);
        sample(&mut history, &row);
        let last = history.wait(b"a", numbers(&row)).unwrap();
        assert_eq!((last.count, last.p50, last.p99), (1, 3600.0, 3600.0));
        sample(&mut history, &row);
        assert_eq!(history.wait(b"a", numbers(&row)), None);
    }

    #[test]
    fn a_percentile_lies_within_its_bucket() {
        let mut durations = Durations::default();
        (0..90).for_each(|_| durations.add(20));
        (0..10).for_each(|_| durations.add(99));
        let found = percentiles(&durations, None).unwrap();
        assert_eq!(found.count, 100);
        assert!((found.p50 - (0.005 + 0.020 * 50.0 / 90.0)).abs() < 1e-9, "{found:?}");
        assert!((found.p90 - 0.025).abs() < 1e-9, "{found:?}");
        assert!((found.p99 - (0.025 + 0.075 * 0.9)).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_core_is_busy_for_a_share_of_the_time() {
        let start = Instant::now();
        let mut history = History::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(history.busy_share(0, at(2), 1.0), 0.5);
        history.sample(at(5), &[], vec![4.0]);
        history.sample(at(10), &[], vec![5.0]);
        assert!((history.busy_share(0, at(15), 6.0) - 0.2).abs() < 1e-9);
        assert_eq!(history.busy_share(0, at(15), 60.0), 1.0);
    }
}
