//! The stored form of a durable job, and the operations of a store.
//!
//! The engine creates operations, a store applies them and returns rows after a restart. Knows no
//! store.
//!
//! Invariant: a row contains all that is needed to run the job again.

use bytes::Bytes;

use crate::wire::Priority;

/// A durable job in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number in the job's handle; the key.
    pub number: u64,
    /// Name of the function, any bytes.
    pub function: Bytes,
    /// Unique key, any bytes; may be empty or `-`.
    pub unique: Bytes,
    /// The function that gathers the results; empty for most jobs.
    pub reducer: Bytes,
    /// Input of the worker.
    pub payload: Bytes,
    /// Urgency.
    pub priority: Priority,
    /// Earliest start in seconds since 1970; 0 = at once.
    pub run_at_s: u64,
    /// Number of workers that lost the job.
    pub attempts: u32,
    /// When the job was submitted, in milliseconds since 1970; 0 = not known.
    pub submitted_ms: u64,
}

impl Row {
    /// Size of names and payload in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.function.len() + self.unique.len() + self.reducer.len() + self.payload.len()
    }
}

/// A change of the stored jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Store a job with a new number.
    Insert {
        /// The job.
        row: Row,
        /// The client has been answered (policy `async`): the insertion is retried until it
        /// succeeds, and its outcome is not reported.
        answered: bool,
    },
    /// Store that a worker lost a job. Does nothing for a job that isn't stored.
    SetAttempts {
        /// The job.
        number: u64,
        /// Number of workers that lost the job.
        attempts: u32,
    },
    /// Remove a job. Does nothing for a job that isn't stored.
    Remove {
        /// The job.
        number: u64,
    },
}

impl Operation {
    /// Number of the job.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::Insert { row, .. } => row.number,
            Self::SetAttempts { number, .. } | Self::Remove { number } => *number,
        }
    }
}
