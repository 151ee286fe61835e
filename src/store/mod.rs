//! Durable jobs: operations of all cores in, commits on disk out.
//!
//! `Store` is the interface of a database; `sqlite` stores jobs in a file, `postgres` on a server.
//! A store blocks, so a thread of its own drives it (`writer`): each commit covers everything that
//! arrived while the commit before it was being written. Knows neither connections nor queues.
//!
//! Invariant: operations reach the store in the order in which they were sent, and an outcome is
//! reported once its commit is on disk, or once it is certain that it never will be.

pub mod health;
pub mod lease_state;
pub mod namespace;
pub mod open;
pub mod own_pauses;
pub mod writer;

pub mod postgres;
pub mod sqlite;

mod error;
pub mod lock;
pub mod members;
mod membership;
pub(crate) mod mode;
pub mod needs;

#[cfg(test)]
pub(crate) mod faulty;

use std::fmt::Debug;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

pub use self::error::{OpenError, StoreError};
use self::namespace::Record;
use crate::cluster::lease::Lease;
use crate::cluster::partition::PartitionId;
use crate::engine::record::{DeadRow, Operation, Pause, Row};

/// Largest row that every store accepts, in bytes as `Row::bytes` counts them: the limit of
/// SQLite's rows and PostgreSQL's messages is about 10^9. Larger submissions must be refused.
pub const ROW_BYTES_MAX: usize = 999_000_000;

/// What has become of a commit or a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Number of changed rows, beats not counted: 0 means that no job was written, so that the
    /// success proves nothing about the disk.
    pub changed: u64,
    /// Partitions that were found to be another server's: their operations were not applied and
    /// never will be. Each is reported once.
    pub lost: Vec<PartitionId>,
    /// Whether this server's home is among them: `Store::take_home` is to be called until it
    /// succeeds, and inserts fail as `Unavailable` before that.
    pub is_home_lost: bool,
}

/// A database of durable jobs, owned by this process alone.
pub trait Store: Debug + Send {
    /// Reads the record about handles.
    ///
    /// # Errors
    /// `StoreError` if it can't be read.
    fn record(&mut self) -> Result<Record, StoreError>;

    /// Records the prefix of handles, and reserves sequence numbers for this server: a range that
    /// begins at `from` or later. Returns when that is on disk.
    ///
    /// # Errors
    /// `StoreError` if nothing could be reserved: none of the new numbers may be used.
    fn reserve(&mut self, prefix: &[u8], from: u64) -> Result<Range<u64>, StoreError>;

    /// Calls `each` for every job, the lowest number first.
    ///
    /// # Errors
    /// `StoreError` if not all jobs could be read; `each` may have been called for some.
    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError>;

    /// Calls `each` for every dead letter, in the order of their deaths and numbers.
    ///
    /// # Errors
    /// `StoreError` if not all could be read; `each` may have been called for some.
    fn load_dead(&mut self, each: &mut dyn FnMut(DeadRow)) -> Result<(), StoreError>;

    /// Calls `each` with every paused function, in any order.
    ///
    /// # Errors
    /// `StoreError` if not all could be read; `each` may have been called for some.
    fn load_pauses(&mut self, each: &mut dyn FnMut(Bytes, Pause)) -> Result<(), StoreError>;

    /// Applies operations in order, all or none, but for those of partitions that are lost, and
    /// returns when they are on disk.
    ///
    /// # Errors
    /// `StoreError`; after `Unavailable` all or none of the operations may be on disk.
    fn commit(&mut self, operations: &[Operation]) -> Result<Committed, StoreError>;

    /// Checks that the store, or each partition of it that this server has, still belongs to this
    /// process, and shows other servers that the process lives. Called every `check_interval`
    /// while there is nothing to commit, and while commits fail.
    ///
    /// # Errors
    /// `StoreError::Lost` if another server owns the store. Other errors show at the next commit.
    fn check(&mut self) -> Result<Committed, StoreError>;

    /// Time between two calls of `check`.
    fn check_interval(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// How long this process owns what it has after the last success: it must not hand out stored
    /// jobs any longer than `Lease::suspends_after`. `None` for a store that no other server can
    /// take over.
    fn lease(&self) -> Option<Lease> {
        None
    }

    /// The partition of the job of this number; 0 in a store without partitions.
    fn partition_of(&self, _number: u64) -> PartitionId {
        0
    }

    /// This server has adopted a partition with this generation, by `Members::adopt`: from now on
    /// each `check` covers it. One that the server had under an earlier generation is returned: it
    /// was lost.
    fn own(&mut self, _partition: PartitionId, _generation: i64) -> Option<PartitionId> {
        None
    }

    /// Whether an adopted partition is still this server's: it isn't once it is empty, as another
    /// server may take it then. Asked after each `check`.
    fn owns(&self, _partition: PartitionId) -> bool {
        true
    }

    /// Numbers of jobs and dead letters that were loaded from an adopted partition; none of either
    /// once all are loaded.
    fn note_loaded(&mut self, _jobs: &[u64], _dead: &[u64]) {}

    /// Takes a free partition, or a new one, in place of the home that is lost, and reserves
    /// sequence numbers in it, as `reserve` does.
    ///
    /// # Errors
    /// `StoreError` if there is none yet; the server has no home until this succeeds.
    fn take_home(&mut self, _from: u64) -> Result<Range<u64>, StoreError> {
        Err(StoreError::Unusable("this store has no partitions".to_owned()))
    }

    /// The server ends: other servers may have its partitions at once.
    ///
    /// # Errors
    /// `StoreError`: they will have to wait for the end of the lease.
    fn leave(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Numbers of committed jobs and dead letters that the store has lost, as after a failover. The
    /// caller must insert or bury them again unless they are gone. Each number is returned once.
    /// Called after a success.
    fn take_missing(&mut self) -> Vec<u64> {
        Vec::new()
    }
}
