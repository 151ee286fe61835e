//! What commands return: accepted submissions, states of jobs, and why a command was refused.
//!
//! The engine fills them in, the protocols turn them into replies. Knows no packets.
//!
//! Invariant: a refused command has changed nothing but what its type says.

use thiserror::Error;

use super::job::JobId;

/// A submission that was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The number of the job made or joined.
    pub number: u64,
    /// Where it is kept.
    pub job: JobId,
    /// It must not be answered before the job is on disk; see `await_store`.
    pub waits: bool,
}

/// Why a submission is not accepted. The function exists afterwards all the same, as in gearmand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The function has as many jobs as `maxqueue` allows.
    #[error("the function's queue is full")]
    QueueFull,
    /// The job would take more memory than there is left.
    #[error("out of memory")]
    OutOfMemory,
    /// The store has not reserved any more numbers; see `allow_sequences`.
    #[error("no job number is reserved")]
    OutOfNumbers,
}

/// A worker spoke of a job that isn't assigned to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the connection doesn't run this job")]
pub struct NotRunning;

/// What GET_STATUS tells of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether a worker has it.
    pub running: bool,
    /// Progress as the worker last told it.
    pub numerator: u32,
    /// Progress as the worker last told it.
    pub denominator: u32,
    /// Foreground submissions that wait for it.
    pub clients: u32,
}

/// Why a function can't be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("workers are registered for it or jobs of it run")]
pub struct FunctionBusy;
