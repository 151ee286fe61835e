//! Durable jobs: operations of all cores in, commits on disk out.
//!
//! `Store` is what a database must be able to do; `sqlite` keeps jobs in a file, `postgres` on a
//! server that others share. A store blocks, so one thread of its own drives it (`writer`): each
//! commit covers everything that arrived while the last one was being written. Knows neither
//! connections nor queues.
//!
//! Invariant: operations reach the store in the order in which they were sent, and an outcome is
//! reported once the commit that holds it is on disk, or once it is certain that none will.

pub mod namespace;
pub mod open;
pub mod writer;

pub mod postgres;
pub mod sqlite;

mod error;
pub mod lock;

#[cfg(test)]
mod faulty;

use std::fmt::Debug;
use std::time::Duration;

pub use self::error::{OpenError, StoreError};
use self::namespace::Record;
use crate::engine::record::{Operation, Row};

/// Largest row that every store can keep, in bytes as `Row::bytes` counts them: SQLite's rows and
/// PostgreSQL's messages end at about 10^9. Whoever submits more must be refused.
pub const ROW_BYTES_MAX: usize = 999_000_000;

/// A database of durable jobs, owned by this process alone.
pub trait Store: Debug + Send {
    /// What is on record about handles.
    ///
    /// # Errors
    /// `StoreError`: see there.
    fn record(&mut self) -> Result<Record, StoreError>;

    /// Puts on record what handles start with, and that sequence numbers below `mark` may be in use
    /// from now on; returns when that is on disk.
    ///
    /// # Errors
    /// `StoreError`: see there. No number of those that would have been reserved may be used.
    fn reserve(&mut self, prefix: &[u8], mark: u64) -> Result<(), StoreError>;

    /// Gives every job to `each`, the lowest number first.
    ///
    /// # Errors
    /// `StoreError`: see there. What was given before stays given.
    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError>;

    /// Applies operations in their order, all or none, and returns when they are on disk. Gives the
    /// number of rows that were changed: with 0, nothing had to be written, and so success says
    /// nothing about the disk.
    ///
    /// # Errors
    /// `StoreError`: see there.
    fn commit(&mut self, operations: &[Operation]) -> Result<u64, StoreError>;

    /// Asked now and then when there is nothing to commit: whether the store is still this
    /// process's own.
    ///
    /// # Errors
    /// `StoreError::Lost`: another server has it. Anything else may be left to the next commit.
    fn check(&mut self) -> Result<(), StoreError>;

    /// How often that is asked.
    fn check_interval(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Numbers of jobs that an earlier commit kept and that the store turned out to have lost. They
    /// must be inserted again unless they are done; each is named once. Asked after a success.
    fn take_missing(&mut self) -> Vec<u64> {
        Vec::new()
    }
}
