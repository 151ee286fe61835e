//! How the store is: what its thread notes with each commit, as numbers for other threads.
//!
//! Commits, outages and waiting operations in, numbers out. Knows no database.
//!
//! Invariant: noted once a commit and once a round of the store's thread, never once a job.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bounds of the times of commits, in microseconds; the last bucket has all above.
pub const COMMIT_BOUNDS_US: [u64; COMMIT_BUCKETS - 1] =
    [1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000];
/// Number of buckets of the times of commits.
pub const COMMIT_BUCKETS: usize = 8;

/// Numbers of commits and operations.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commits that succeeded.
    pub commits: AtomicU64,
    /// Operations done, including those that needed no commit.
    pub operations: AtomicU64,
    /// Failed attempts to commit.
    pub failures: AtomicU64,
    /// Operations sent and not done.
    pub waiting: AtomicU64,
}

/// How the store is, shared by its thread and others.
#[derive(Debug, Default)]
pub struct StoreHealth {
    counters: Arc<Counters>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_down: bool,
    /// When the operation arrived that waits longest.
    oldest: Option<Instant>,
    commits: [u64; COMMIT_BUCKETS],
    commit_sum_us: u64,
}

/// How the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreNumbers {
    /// Whether it can be written to, as far as is known.
    pub up: bool,
    /// Operations that aren't done.
    pub pending: u64,
    /// For how long the first of them has waited, in milliseconds.
    pub oldest_pending_ms: Option<u64>,
    /// Commits that succeeded, by how long they took: at most the bound of `COMMIT_BOUNDS_US` at
    /// the same place, and more than the one before.
    pub commits: [u64; COMMIT_BUCKETS],
    /// How long they took together, in microseconds.
    pub commit_sum_us: u64,
}

impl StoreHealth {
    /// The numbers now.
    #[must_use]
    pub fn snapshot(&self) -> StoreNumbers {
        let state = self.lock();
        let oldest = state.oldest.map(|arrived| arrived.elapsed().as_millis());
        StoreNumbers {
            up: !state.is_down,
            pending: self.counters.waiting.load(Ordering::Relaxed),
            oldest_pending_ms: oldest.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            commits: state.commits,
            commit_sum_us: state.commit_sum_us,
        }
    }

    /// What the store's thread counts.
    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// A commit has succeeded after so long.
    pub(super) fn note_commit(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = COMMIT_BOUNDS_US.partition_point(|&bound| bound < took_us);
        let mut state = self.lock();
        if let Some(commits) = state.commits.get_mut(bucket) {
            *commits += 1;
        }
        state.commit_sum_us = state.commit_sum_us.saturating_add(took_us);
    }

    /// Whether the store can't be written to, and when the operation arrived that waits longest.
    pub(super) fn note(&self, is_down: bool, oldest: Option<Instant>) {
        let mut state = self.lock();
        (state.is_down, state.oldest) = (is_down, oldest);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_counted_by_their_time() {
        let health = StoreHealth::default();
        assert_eq!(health.snapshot(), StoreNumbers { up: true, ..StoreNumbers::default() });
        for us in [0, 1_000, 1_001, 25_000, 10_000_000, 10_000_001] {
            health.note_commit(Duration::from_micros(us));
        }
        let numbers = health.snapshot();
        assert_eq!(numbers.commits, [2, 1, 1, 0, 0, 0, 1, 1]);
        assert_eq!(numbers.commit_sum_us, 20_027_002);
    }

    #[test]
    fn an_outage_and_what_waits_show() {
        let health = StoreHealth::default();
        health.counters().waiting.store(3, Ordering::Relaxed);
        health.note(true, Some(Instant::now()));
        let numbers = health.snapshot();
        assert_eq!((numbers.up, numbers.pending), (false, 3));
        assert!(numbers.oldest_pending_ms.is_some());
        health.note(false, None);
        assert!(health.snapshot().up);
    }
}
