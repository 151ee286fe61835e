//! What the threads of a server tell each other of the lease: turns of cores and beats in, whether
//! the server is suspended out.
//!
//! The cores note their turns, the store's thread notes its beats and what it owns, and all read.
//! Knows no database and no queue.
//!
//! Invariant: the server counts as suspended before its first beat, and from `suspends_after` after
//! the moment before its last good beat was sent.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::cluster::lease::Lease;
use crate::cluster::partition::PartitionId;

/// What the threads know of the lease.
#[derive(Debug)]
pub struct LeaseState {
    lease: Lease,
    /// The moment from which times count.
    began: Instant,
    /// When each core began its last turn, in milliseconds since `began`.
    turns: Box<[CachePadded<AtomicU64>]>,
    /// From when on the server is suspended, in milliseconds since `began`; 0 before a beat.
    suspends_at_ms: AtomicU64,
    owned: Mutex<Owned>,
}

/// The partitions of this server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// That of new jobs; `None` while the server has none.
    pub home: Option<PartitionId>,
    /// The others.
    pub adopted: BTreeSet<PartitionId>,
}

impl Owned {
    /// Whether a partition is among them.
    #[must_use]
    pub fn contains(&self, partition: PartitionId) -> bool {
        self.home == Some(partition) || self.adopted.contains(&partition)
    }
}

impl LeaseState {
    /// For so many cores, whose clocks began at `began`. They count as having turned now.
    #[must_use]
    pub fn new(lease: Lease, cores: usize, began: Instant) -> Self {
        let state = Self {
            lease,
            began,
            turns: (0..cores).map(|_| CachePadded::default()).collect(),
            suspends_at_ms: AtomicU64::new(0),
            owned: Mutex::default(),
        };
        let now_ms = state.ms(Instant::now());
        (0..cores).for_each(|core| state.note_turn(core, now_ms));
        state
    }

    /// The lease.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// A core begins a turn at this time of its clock.
    #[inline]
    pub fn note_turn(&self, core: usize, now_ms: u64) {
        self.turns[core].store(now_ms, Ordering::Relaxed);
    }

    /// The cores that have begun no turn for longer than `Lease::turn_max`: no commit and no beat
    /// may vouch for them.
    pub fn late_cores(&self, now: Instant) -> impl Iterator<Item = usize> {
        let turn_max_ms = millis(self.lease.turn_max());
        let since_ms = self.ms(now).saturating_sub(turn_max_ms);
        let turns = self.turns.iter().enumerate();
        turns.filter(move |(_, at)| at.load(Ordering::Relaxed) < since_ms).map(|(core, _)| core)
    }

    /// Whether the server is suspended at this time of the cores' clocks.
    #[inline]
    #[must_use]
    pub fn is_suspended(&self, now_ms: u64) -> bool {
        now_ms >= self.suspends_at_ms()
    }

    /// From when on it is suspended, if there is no further beat, by the cores' clocks.
    #[inline]
    #[must_use]
    pub fn suspends_at_ms(&self) -> u64 {
        // Reports that were sent before a beat was noted are received after it is seen.
        self.suspends_at_ms.load(Ordering::Acquire)
    }

    /// Whether the server is suspended now.
    #[must_use]
    pub fn is_suspended_now(&self) -> bool {
        self.is_suspended(self.ms(Instant::now()))
    }

    /// A beat of all partitions has succeeded that was sent after `before`. Returns whether the
    /// server was suspended until now.
    pub(crate) fn note_beat(&self, before: Instant) -> bool {
        let was_suspended = self.is_suspended_now();
        let until_ms = self.ms(before) + millis(self.lease.suspends_after());
        self.suspends_at_ms.store(until_ms, Ordering::Release);
        was_suspended
    }

    /// What the server owns.
    #[must_use]
    pub fn owned(&self) -> Owned {
        self.lock().clone()
    }

    /// Changes what the server owns; for the store's thread.
    pub(super) fn change_owned(&self, change: impl FnOnce(&mut Owned)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ms(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.began))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_suspended_before_its_first_beat_and_long_after_its_last() {
        let began = Instant::now();
        let state = LeaseState::new(Lease::default(), 1, began);
        assert!(state.is_suspended(0) && state.is_suspended_now());
        assert!(state.note_beat(began), "it was suspended");
        assert!(!state.is_suspended(3999));
        assert!(state.is_suspended(4000), "2 s before the end of the lease");
        assert!(!state.note_beat(began + Duration::from_secs(1)));
        assert!(!state.is_suspended(4999));
    }

    #[test]
    fn cores_that_have_not_turned_are_late() {
        let began = Instant::now();
        let state = LeaseState::new(Lease::default(), 3, began);
        let late = |after_ms| -> Vec<usize> {
            state.late_cores(began + Duration::from_millis(after_ms)).collect()
        };
        [0, 1000, 2500].into_iter().enumerate().for_each(|(core, at)| state.note_turn(core, at));
        assert_eq!(late(2000), [0; 0]);
        assert_eq!(late(2001), [0]);
        assert_eq!(late(3001), [0, 1]);
        state.note_turn(0, 3000);
        assert_eq!(late(3001), [1]);
    }
}
