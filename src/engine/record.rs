//! What is kept of a durable job, and what a store is asked to do.
//!
//! The engine writes operations, a store carries them out and gives rows back after a restart.
//! Knows no store.
//!
//! Invariant: a row holds all that a job needs to run again.

use bytes::Bytes;

use crate::wire::Priority;

/// A durable job as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The number in its handle: the key.
    pub number: u64,
    /// Name of its function, any bytes.
    pub function: Bytes,
    /// Its unique key, any bytes; may be empty or `-`.
    pub unique: Bytes,
    /// The function that gathers the results; empty for most jobs.
    pub reducer: Bytes,
    /// What the worker gets to work on.
    pub payload: Bytes,
    /// Urgency.
    pub priority: Priority,
    /// Earliest start in seconds since 1970; 0 = at once.
    pub run_at_s: u64,
    /// Workers that lost it.
    pub attempts: u32,
}

impl Row {
    /// Bytes of its names and its payload.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.function.len() + self.unique.len() + self.reducer.len() + self.payload.len()
    }
}

/// A change of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Keep a job. Its number is new.
    Insert {
        /// The job.
        row: Row,
        /// The client has its answer already (policy `async`): the job must be kept as soon as the
        /// store can, however long that takes, and no outcome is reported.
        answered: bool,
    },
    /// A worker lost a job. Does nothing if the job isn't kept.
    SetAttempts {
        /// The job.
        number: u64,
        /// Workers that lost it.
        attempts: u32,
    },
    /// Forget a job. Does nothing if it isn't kept.
    Remove {
        /// The job.
        number: u64,
    },
}

impl Operation {
    /// The job that it is about.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::Insert { row, .. } => row.number,
            Self::SetAttempts { number, .. } | Self::Remove { number } => *number,
        }
    }
}
