//! Which priorities each core has queued jobs of, for all cores to see.
//!
//! A core hints at its jobs to workers that are awake; of those that it takes for asleep, or that
//! have only just registered, it knows too late. Their home asks it when this says that it may have
//! something more urgent than what the home knows of. Knows no functions: a core may have such jobs
//! for others only, which one question tells.
//!
//! Invariant: a core publishes what a request has changed before its reply leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crossbeam_utils::CachePadded;

use crate::shard::cores::{CORES_MAX, Core};
use crate::wire::PrioritySet;

/// Priorities of queued jobs by core, one bit each, the most urgent one the lowest.
#[derive(Clone, Debug)]
pub struct Urgency(Arc<[CachePadded<AtomicU8>]>);

impl Default for Urgency {
    fn default() -> Self {
        Self((0..CORES_MAX).map(|_| CachePadded::default()).collect())
    }
}

impl Urgency {
    /// Says of which priorities a core has queued jobs.
    #[inline]
    pub fn publish(&self, core: Core, priorities: PrioritySet) {
        self.0[core].store(priorities.bits(), Ordering::Release);
    }

    /// Of which priorities a core has queued jobs.
    #[inline]
    #[must_use]
    pub fn of(&self, core: Core) -> PrioritySet {
        PrioritySet::from_bits(self.0[core].load(Ordering::Acquire))
    }
}
