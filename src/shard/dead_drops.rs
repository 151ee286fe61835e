//! Lines about dead letters that were dropped: counts of the engine in, at most a line a minute of
//! all cores together out.
//!
//! Knows no letters.
//!
//! Invariant: each drop is in exactly one line, at once or when a minute has passed since the line
//! before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::warn;

use crate::engine::Now;
use crate::engine::counters::{DROPPED, Dropped};

/// Shortest time between two lines, in milliseconds.
const PERIOD_MS: u64 = 60_000;

/// Drops by `Dropped`.
type Counts = [u64; DROPPED.len()];

/// What the cores share: drops that are in no line, and when the next may be written.
#[derive(Clone, Debug, Default)]
pub struct DeadDropLog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    next_ms: AtomicU64,
    counts: [AtomicU64; DROPPED.len()],
}

impl DeadDropLog {
    fn is_empty(&self) -> bool {
        self.0.counts.iter().all(|count| count.load(Ordering::Relaxed) == 0)
    }

    fn add(&self, more: Counts) {
        for (count, more) in self.0.counts.iter().zip(more) {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// What the next line is about, if it may be written; the caller writes it.
    fn take(&self, now: Now) -> Option<Counts> {
        let next_ms = self.0.next_ms.load(Ordering::Relaxed);
        let until_ms = now.mono_ms + PERIOD_MS;
        if self.is_empty() || now.mono_ms < next_ms {
            return None;
        }
        // Another core may write it at the same moment.
        let claim = |from, to| {
            self.0.next_ms.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
        };
        claim(next_ms, until_ms).ok()?;
        Some([0, 1, 2].map(|why: usize| self.0.counts[why].swap(0, Ordering::Relaxed)))
    }
}

/// One core's drops.
#[derive(Clone, Debug, Default)]
pub(super) struct DeadDrops {
    log: DeadDropLog,
    /// Those that `log` has been told of.
    told: Counts,
}

impl DeadDrops {
    pub(super) fn new(log: DeadDropLog) -> Self {
        Self { log, told: Counts::default() }
    }

    /// When `report` has something to do; `all` are the core's drops since the start.
    #[inline]
    pub(super) fn deadline_ms(&self, all: &Counts) -> Option<u64> {
        if *all != self.told {
            return Some(0);
        }
        (!self.log.is_empty()).then(|| self.log.0.next_ms.load(Ordering::Relaxed))
    }

    /// Writes a line about drops of all cores that are in none, if the time has come.
    #[inline]
    pub(super) fn report(&mut self, all: &Counts, now: Now) {
        if *all != self.told {
            let told = std::mem::replace(&mut self.told, *all);
            self.log.add([0, 1, 2].map(|why: usize| all[why] - told[why]));
        }
        if let Some(counts) = self.log.take(now) {
            warn!("{}", line(counts));
        }
    }
}

/// The text of a line.
fn line(counts: Counts) -> String {
    let why = |dropped: Dropped| match dropped {
        Dropped::Count => "beyond --dead-max",
        Dropped::Bytes => "beyond --dead-bytes-max",
        Dropped::Age => "older than --dead-keep",
    };
    let some = DROPPED.into_iter().zip(counts).filter(|&(_, count)| count > 0);
    let parts: Vec<String> =
        some.map(|((dropped, _), count)| format!("{count} {}", why(dropped))).collect();
    let parts = parts.join(", ");
    format!(
        "dead letters dropped: {parts}; requeue or drop them before, or raise what they exceed \
         (show dead lists those that there are)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    #[test]
    fn all_cores_together_write_a_line_a_minute() {
        let log = DeadDropLog::default();
        let mut cores = [0, 1].map(|_| DeadDrops::new(log.clone()));
        assert_eq!(cores[0].deadline_ms(&[0; 3]), None);
        assert_eq!(cores[0].deadline_ms(&[1, 0, 0]), Some(0), "the first is written at once");
        cores[0].report(&[1, 0, 0], at(1000));
        assert_eq!(cores[0].deadline_ms(&[1, 0, 0]), None);
        assert_eq!(cores[1].deadline_ms(&[0, 4, 0]), Some(0), "the other core is told");
        cores[1].report(&[0, 4, 0], at(2000));
        let later_ms = 1000 + PERIOD_MS;
        assert_eq!(cores[1].deadline_ms(&[0, 4, 0]), Some(later_ms), "it waits for its minute");
        cores[0].report(&[3, 0, 0], at(3000));
        assert!(!log.is_empty());
        cores[0].report(&[3, 0, 0], at(later_ms));
        assert!(log.is_empty(), "either core may write it");
    }

    #[test]
    fn a_line_says_how_many_why_and_what_to_do() {
        let text = line([3, 0, 2]);
        assert!(text.contains("dead"));
        assert!(text.contains("3 beyond --dead-max, 2 older than --dead-keep;"), "{text}");
        assert!(!text.contains("--dead-bytes-max"));
    }
}
