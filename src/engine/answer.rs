//! Results of commands: accepted submissions, states of jobs, and reasons of refusals.
//!
//! The engine returns them, `protocol` turns them into replies. Knows no packets.
//!
//! Invariant: a refused command has changed nothing but what its type says.

use thiserror::Error;

use super::ids::JobId;

/// What a worker says of a job that it is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `WORK_COMPLETE`
    Complete,
    /// `WORK_FAIL`
    Fail,
    /// `WORK_EXCEPTION`
    Exception,
}

/// An accepted submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The number of the job that was created or joined.
    pub number: u64,
    /// Where the job is stored.
    pub job: JobId,
    /// The submission must not be answered before the job is on disk; see `await_store`.
    pub waits: bool,
}

/// Why a submission is refused. The function may have been created nevertheless, as in gearmand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The function has as many jobs as `maxqueue` allows.
    #[error("the function's queue is full")]
    QueueFull,
    /// The job needs more memory than is left.
    #[error("out of memory")]
    OutOfMemory,
    /// All reserved numbers are used; see `allow_sequences`.
    #[error("no job number is reserved")]
    OutOfNumbers,
}

/// A worker's packet names a job that isn't assigned to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the connection doesn't run this job")]
pub struct NotRunning;

/// State of a job, for GET_STATUS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether the job is assigned to a worker.
    pub running: bool,
    /// Numerator of the worker's last WORK_STATUS.
    pub numerator: u32,
    /// Denominator of the worker's last WORK_STATUS.
    pub denominator: u32,
    /// Foreground submissions that wait for the job.
    pub clients: u32,
}

/// Why a function can't be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("workers are registered for it or jobs of it run")]
pub struct FunctionBusy;

/// What became of a dead letter that was to be requeued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeued {
    /// It is a job again.
    Done,
    /// There is a job with its unique key: it stays as it is.
    UniqueInUse,
    /// There is no such letter.
    Unknown,
}
