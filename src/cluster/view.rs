//! What a server knows of all partitions: readings of the database in, rows for commands, metrics
//! and the page out. Shared by the threads.
//!
//! Invariant: rows are those of the last read that succeeded, in the order of their numbers.

use std::collections::BTreeSet;
#[cfg(test)]
use std::sync::atomic::Ordering;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::blocks::Blocks;
use super::partition::{Partition, PartitionId, State};

/// What a server knows of all partitions.
#[derive(Debug, Default)]
pub struct View {
    contents: RwLock<Contents>,
    /// When the monotonic clock of the cores began.
    cores_began: OnceLock<Instant>,
    /// Partitions that this server has adopted since its start.
    pub adopted: AtomicU64,
    /// Partitions that this server has lost since its start.
    pub lost: AtomicU64,
    /// Partitions without a living owner that this server leaves, as memory is too short.
    pub orphaned: AtomicU64,
    /// Whether this server has had no beat for too long: it hands out no durable job.
    pub is_suspended: AtomicBool,
}

/// The guarded part of a view.
#[derive(Debug, Default)]
pub struct Contents {
    /// All partitions, by number.
    pub partitions: Vec<Known>,
    /// The partitions of jobs' numbers.
    pub blocks: Blocks,
    /// Partitions that this server has adopted and whose jobs aren't all in memory yet: of a number
    /// that it doesn't know, only the database says whether there is such a job. To be filled
    /// before a row says that the partition is this server's.
    pub loading: BTreeSet<PartitionId>,
}

impl Contents {
    /// Whether this server knows of each job of a partition whether it exists.
    #[must_use]
    pub fn is_known_here(&self, partition: PartitionId) -> bool {
        let is_own = |known: &Known| known.is_own && known.partition.id == partition;
        self.partitions.iter().any(is_own) && !self.loading.contains(&partition)
    }
}

/// A partition as this server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its row.
    pub partition: Partition,
    /// Whether this server owns it.
    pub is_own: bool,
    /// When its beat was seen to have changed.
    pub beat_at: Instant,
}

impl Known {
    /// Time since its last beat; `None` for a free partition, which has none.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let has_owner = self.partition.state != State::Free;
        has_owner.then(|| now.saturating_duration_since(self.beat_at))
    }
}

impl View {
    /// The monotonic clock of the cores began at this time. Called once, before they read it.
    pub fn set_cores_began(&self, at: Instant) {
        // A server has one such clock.
        let _ = self.cores_began.set(at);
    }

    /// The time that the cores' monotonic clock shows as `mono_ms`; `None` before it began.
    #[must_use]
    pub fn at_core_time(&self, mono_ms: u64) -> Option<Instant> {
        self.cores_began.get()?.checked_add(Duration::from_millis(mono_ms))
    }

    /// What is known now.
    pub fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the thread that reads the database.
    pub fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row of the partition that the job of this number belongs to, if another server owns it.
    #[must_use]
    pub fn owner_elsewhere(&self, number: u64) -> Option<Partition> {
        let contents = self.read();
        let id = contents.blocks.partition_of(number)?;
        let known = contents.partitions.iter().find(|known| known.partition.id == id)?;
        let is_elsewhere = !known.is_own && known.partition.state == State::Owned;
        is_elsewhere.then(|| known.partition.clone())
    }

    /// Whether only the database says if there is a job of this number that isn't in this server's
    /// memory: it is in a partition of another server, of none, or one that is being loaded.
    #[must_use]
    pub fn is_elsewhere(&self, number: u64) -> bool {
        let contents = self.read();
        let id = contents.blocks.partition_of(number);
        // A block that isn't known was taken a moment ago.
        id.is_none_or(|id| !contents.is_known_here(id))
    }

    /// The partition of the job of this number, if it is known.
    #[must_use]
    pub fn partition_of(&self, number: u64) -> Option<PartitionId> {
        self.read().blocks.partition_of(number)
    }
}

/// Three partitions at a time: an own one, one that a server on another host left 2.5 s ago, and a
/// free one.
#[cfg(test)]
pub(crate) fn three_partitions(now: Instant) -> View {
    let own = Partition {
        id: 0,
        generation: 3,
        beat: 40,
        state: State::Owned,
        owner: vec![1],
        name: "web-1".to_owned(),
        address: "web-1.example:4730".to_owned(),
        jobs: 12,
    };
    let offered = Partition {
        id: 1,
        generation: 7,
        state: State::Offered,
        name: "web-2".to_owned(),
        jobs: 5,
        ..Partition::default()
    };
    let free = Partition { id: 2, generation: 1, ..Partition::default() };
    let view = View::default();
    let age = |ms| now.checked_sub(Duration::from_millis(ms)).unwrap_or(now);
    view.write().partitions = vec![
        Known { partition: own, is_own: true, beat_at: age(400) },
        Known { partition: offered, is_own: false, beat_at: age(2500) },
        Known { partition: free, is_own: false, beat_at: age(90_000) },
    ];
    view.adopted.store(2, Ordering::Relaxed);
    view.lost.store(1, Ordering::Relaxed);
    view.orphaned.store(4, Ordering::Relaxed);
    view
}

#[cfg(test)]
impl Known {
    /// A partition whose beat has just been seen.
    pub(crate) fn for_tests(partition: Partition, is_own: bool) -> Self {
        Self { partition, is_own, beat_at: Instant::now() }
    }
}
