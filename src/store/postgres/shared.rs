//! What the two sessions of a server know together: the one that commits and the one that watches.
//!
//! Knows no connection. Locked for look-ups only, never while a statement runs.
//!
//! Invariant: the blocks of a partition are known before the partition is this server's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::partitions::Tenure;
use crate::cluster::blocks::Blocks;
use crate::cluster::partition::PartitionId;

/// What both sessions know.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The partitions of jobs' numbers.
    pub(super) blocks: Blocks,
    /// The owners before this server of the partitions that were adopted, until the session that
    /// commits learns of it.
    pub(super) before: HashMap<PartitionId, Tenure>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
