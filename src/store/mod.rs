//! Durable jobs: operations of all cores in, commits on disk out.
//!
//! `Store` is the interface of a database; `sqlite` stores jobs in a file, `postgres` on a server.
//! A store blocks, so a thread of its own drives it (`writer`): each commit covers everything that
//! arrived while the commit before it was being written. Knows neither connections nor queues.
//!
//! Invariant: operations reach the store in the order in which they were sent, and an outcome is
//! reported once its commit is on disk, or once it is certain that it never will be.

pub mod health;
pub mod namespace;
pub mod open;
pub mod writer;

pub mod postgres;
pub mod sqlite;

mod error;
pub mod lock;
pub(crate) mod mode;
pub mod needs;

#[cfg(test)]
mod faulty;

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;

pub use self::error::{OpenError, StoreError};
use self::namespace::Record;
use crate::engine::record::{DeadRow, Operation, Pause, Row};

/// Largest row that every store accepts, in bytes as `Row::bytes` counts them: the limit of
/// SQLite's rows and PostgreSQL's messages is about 10^9. Larger submissions must be refused.
pub const ROW_BYTES_MAX: usize = 999_000_000;

/// A database of durable jobs, owned by this process alone.
pub trait Store: Debug + Send {
    /// Reads the record about handles.
    ///
    /// # Errors
    /// `StoreError` if it can't be read.
    fn record(&mut self) -> Result<Record, StoreError>;

    /// Records the prefix of handles, and that sequence numbers below `mark` may be in use from now
    /// on; returns when that is on disk.
    ///
    /// # Errors
    /// `StoreError` if nothing could be reserved: none of the new numbers may be used.
    fn reserve(&mut self, prefix: &[u8], mark: u64) -> Result<(), StoreError>;

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

    /// Applies operations in order, all or none, and returns when they are on disk. Returns the
    /// number of changed rows: 0 means that nothing was written, so that the success proves nothing
    /// about the disk.
    ///
    /// # Errors
    /// `StoreError`; after `Unavailable` all or none of the operations may be on disk.
    fn commit(&mut self, operations: &[Operation]) -> Result<u64, StoreError>;

    /// Checks that the store still belongs to this process. Called every `check_interval` while
    /// there is nothing to commit.
    ///
    /// # Errors
    /// `StoreError::Lost` if another server owns the store. Other errors show at the next commit.
    fn check(&mut self) -> Result<(), StoreError>;

    /// Time between two calls of `check`.
    fn check_interval(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Numbers of committed jobs and dead letters that the store has lost, as after a failover. The
    /// caller must insert or bury them again unless they are gone. Each number is returned once.
    /// Called after a success.
    fn take_missing(&mut self) -> Vec<u64> {
        Vec::new()
    }
}
