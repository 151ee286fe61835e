//! The stored form of a durable job, and the operations of a store.
//!
//! The engine creates operations, a store applies them and returns rows after a restart. Knows no
//! store.
//!
//! Invariant: a row contains all that is needed to run the job again.

use bytes::Bytes;

use super::reason::Reason;
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
    /// Earliest start in milliseconds since 1970; 0 = at once.
    pub run_at_ms: u64,
    /// Runs that ended without WORK_COMPLETE.
    pub attempts: u32,
    /// How the last of them ended; `None` if there is none, or if it isn't known.
    pub last_reason: Option<Reason>,
    /// Whether the job was run again at once after a worker was lost.
    pub was_lost: bool,
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

/// A change of what is stored.
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
    /// Store that a job is to be run again. Does nothing for a job that isn't stored.
    Retry {
        /// The job.
        number: u64,
        /// What has become of its runs.
        runs: Runs,
    },
    /// Remove a job. Does nothing for a job that isn't stored.
    Remove {
        /// The job.
        number: u64,
    },
    /// Remove a job, if it is stored, and store it as a dead letter instead.
    Bury(Box<DeadRow>),
    /// Remove a dead letter, if it is stored, and store it as a job instead.
    Unbury(Box<Row>),
    /// Remove a dead letter. Does nothing for one that isn't stored.
    RemoveDead {
        /// The job.
        number: u64,
    },
    /// Store that a function is paused, or no longer.
    Pause {
        /// The function.
        function: Bytes,
        /// Until when.
        pause: Option<Pause>,
    },
}

/// What has become of a job's runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// `Row::attempts`.
    pub attempts: u32,
    /// `Row::run_at_ms`.
    pub run_at_ms: u64,
    /// `Row::last_reason`.
    pub last_reason: Option<Reason>,
    /// `Row::was_lost`.
    pub was_lost: bool,
}

/// A dead letter in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRow {
    /// The job.
    pub row: Row,
    /// Why it died.
    pub reason: Reason,
    /// When, in milliseconds since 1970.
    pub died_ms: u64,
    /// Client id of its last worker, any bytes; empty without one.
    pub worker: Bytes,
    /// Data of its last WORK_EXCEPTION, any bytes.
    pub message: Bytes,
}

impl DeadRow {
    /// Size of the job, of the worker's client id and of the message in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.row.bytes() + self.worker.len() + self.message.len()
    }
}

/// For how long a function is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Until an operator resumes it.
    Unlimited,
    /// Until this time in milliseconds since 1970, or until an operator resumes it.
    Until(u64),
}

impl Operation {
    /// Number of the job; `None` for an operation on a function.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Insert { row, .. } => Some(row.number),
            Self::Bury(dead) => Some(dead.row.number),
            Self::Unbury(row) => Some(row.number),
            Self::Retry { number, .. } | Self::Remove { number } | Self::RemoveDead { number } => {
                Some(*number)
            }
            Self::Pause { .. } => None,
        }
    }
}
