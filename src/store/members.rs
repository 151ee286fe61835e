//! The view that a server has of all partitions of a database: reads in, adoptions out.
//!
//! A session of its own, driven by a thread of its own, beside the one that commits. Knows what
//! the database has, and decides nothing (`cluster::watch`).
//!
//! Invariant: `adopt` succeeds for at most one server for each generation of a partition.

use std::fmt::Debug;

use bytes::Bytes;

use super::StoreError;
use crate::cluster::partition::{PartitionId, Reading, Seen};
use crate::engine::record::{DeadRow, Pause, Row};

/// What a read found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Number of the session: another one after each reconnection.
    pub session: u64,
    /// All partitions, by number.
    pub readings: Vec<Reading>,
    /// Blocks that earlier reads didn't return, with their partitions.
    pub blocks: Vec<(u64, PartitionId)>,
    /// All paused functions, by name.
    pub pauses: Vec<(Bytes, Pause)>,
}

/// How much a partition has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Jobs and dead letters.
    pub rows: u64,
    /// Size of their texts in bytes.
    pub bytes: u64,
}

/// A session that watches all partitions.
pub trait Members: Debug + Send {
    /// Reads the partitions, connecting anew if it must.
    ///
    /// # Errors
    /// `StoreError`; the next read is in another session.
    fn read(&mut self) -> Result<Census, StoreError>;

    /// Whether this process owns the partition, by the token in the reading.
    fn is_own(&self, reading: &Reading) -> bool;

    /// How much a partition has, before it is adopted.
    ///
    /// # Errors
    /// `StoreError`.
    fn extent(&mut self, partition: PartitionId) -> Result<Extent, StoreError>;

    /// Becomes the owner, if the partition is still as it was seen; returns the new generation.
    /// Ends the session of the earlier owner that may hold the row.
    ///
    /// # Errors
    /// `StoreError`: this process may be the owner or not.
    fn adopt(&mut self, seen: Seen) -> Result<Option<i64>, StoreError>;

    /// The next jobs of a partition below `below`, the largest number first; none at the end.
    ///
    /// # Errors
    /// `StoreError`.
    fn load(&mut self, partition: PartitionId, below: Option<u64>) -> Result<Vec<Row>, StoreError>;

    /// The next dead letters of a partition below `below`, the largest number first; none at the
    /// end.
    ///
    /// # Errors
    /// `StoreError`.
    fn load_dead(
        &mut self,
        partition: PartitionId,
        below: Option<u64>,
    ) -> Result<Vec<DeadRow>, StoreError>;

    /// Those of these jobs that are stored, in any partition.
    ///
    /// # Errors
    /// `StoreError`.
    fn find(&mut self, numbers: &[u64]) -> Result<Vec<u64>, StoreError>;
}
