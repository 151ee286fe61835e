//! What the store's thread knows of the server's partitions: losses and homes in, what is stale
//! and what waits for a home out.
//!
//! Knows the store only to tell the partition of a number.
//!
//! Invariant: what a core sent before it heard of a loss is stale for what the server has since.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt::Awaited;
use super::down::Down;
use crate::cluster::partition::PartitionId;
use crate::engine::record::Operation;
use crate::store::Store;

/// Time between two looks at whether all cores have turned.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// The same once they take long.
const LOOK_AGAIN_LATE: Duration = Duration::from_millis(20);
/// How long the cores may take to turn before Inserts wait for as long as the timeout says only.
const HELD_MAX: Duration = Duration::from_secs(1);

/// What the thread knows of the partitions.
#[derive(Default)]
pub(super) struct Ownership {
    /// The server has beaten once.
    pub(super) has_beaten: bool,
    /// Since when a core has kept the thread from the store.
    pub(super) held: Option<Instant>,
    /// The partition of new jobs, if it is known.
    pub(super) home: Option<PartitionId>,
    /// Partitions that the server has adopted, with their generations.
    pub(super) adopted: BTreeMap<PartitionId, i64>,
    /// Number of reports of a loss or of a home so far.
    pub(super) moves: u64,
    /// The same when each partition was lost last.
    pub(super) lost: BTreeMap<PartitionId, u64>,
    /// The same when the server took its home.
    pub(super) home_taken: u64,
    /// There is no home.
    pub(super) homeless: Option<Homeless>,
}

/// The server has lost its home, and no other one yet.
pub(super) struct Homeless {
    pub(super) since: Instant,
    /// Inserts that were in no commit; their cores have them.
    pub(super) inserts: VecDeque<Awaited>,
    /// There was no home to be had.
    pub(super) down: Option<Down>,
}

impl Ownership {
    /// Whether an operation isn't to be written, as what it concerns was lost after its core sent
    /// it: `moves` is `Batch::moves`.
    pub(super) fn is_stale(&self, operation: &Operation, moves: u64, store: &dyn Store) -> bool {
        if moves < self.home_taken && matches!(operation, Operation::Insert { answered: false, .. })
        {
            // Its core numbers it anew.
            return true;
        }
        if self.lost.is_empty() {
            return false;
        }
        let Some(number) = operation.number() else { return false };
        let partition = store.partition_of(number);
        let is_awaited = matches!(operation, Operation::Insert { answered: false, .. });
        match self.lost.get(&partition) {
            None => false,
            // These go to the next home with their cores.
            Some(_) if is_awaited && self.homeless.is_some() => false,
            Some(&at) => moves < at || !self.owns(partition),
        }
    }

    fn owns(&self, partition: PartitionId) -> bool {
        self.home == Some(partition) || self.adopted.contains_key(&partition)
    }

    /// When to try to get a home.
    pub(super) fn take_home_at(&self) -> Option<Instant> {
        let homeless = self.homeless.as_ref()?;
        Some(homeless.down.as_ref().map_or(homeless.since, |down| down.next_try))
    }

    /// Why there is no home, once it was tried.
    pub(super) fn homeless_down(&self) -> Option<&Down> {
        self.homeless.as_ref()?.down.as_ref()
    }

    /// When the Insert arrived that waits longest for a home.
    pub(super) fn oldest_homeless(&self) -> Option<Instant> {
        self.homeless.as_ref()?.inserts.front().map(|it| it.arrived)
    }

    /// When the next Insert fails that waits for a home.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let down = self.homeless_down()?;
        self.oldest_homeless().map(|arrived| down.expiry(arrived))
    }

    /// Refuses the Inserts whose timeout has expired without a home; returns them and the reason.
    pub(super) fn expire(&mut self, now: Instant) -> Option<(Vec<Awaited>, Arc<str>)> {
        let Homeless { inserts, down, .. } = self.homeless.as_mut()?;
        let down = down.as_ref()?;
        let expired = inserts.iter().take_while(|it| down.expiry(it.arrived) <= now).count();
        (expired > 0).then(|| (inserts.drain(..expired).collect(), down.reason.clone()))
    }

    /// When to look whether the cores have turned, if they keep the thread from the store.
    pub(super) fn look_again_at(&self, now: Instant) -> Option<Instant> {
        let held = self.held?;
        let is_long = now.saturating_duration_since(held) > HELD_MAX / 10;
        Some(now + if is_long { LOOK_AGAIN_LATE } else { LOOK_AGAIN })
    }

    /// Whether the cores keep the thread from the store for so long that clients are to know.
    pub(super) fn is_held_for_long(&self, now: Instant) -> bool {
        self.held.is_some_and(|held| now.saturating_duration_since(held) >= HELD_MAX)
    }
}
