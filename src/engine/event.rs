//! Steps in the lives of jobs, for the log.
//!
//! The engine notes steps while jobs change, the shard takes them and writes lines with what it
//! knows of handles and peers. Nothing is noted, copied or formatted unless the step's level is on.
//! Knows no log format and no addresses.
//!
//! Invariant: a job that leaves the engine has noted why, at the level of `Step::level`.

use std::sync::atomic::{AtomicU8, Ordering};

use tracing::Level;
use tracing::level_filters::LevelFilter;

use super::ids::{ConnId, JobId};
use super::reason::Reason;
use super::{Engine, Outcome};

/// Target of the log lines about jobs, by which the level NOTICE leaves out those at INFO.
pub const JOBS: &str = "jobs";

/// A step in a job's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A submission created the job.
    Submitted,
    /// A submission joined the job.
    Joined,
    /// The store has it on disk.
    Stored,
    /// The store doesn't keep it.
    NotStored,
    /// A worker got it.
    Assigned,
    /// Its worker finished it.
    Finished(Outcome),
    /// It returned to its queue.
    Requeued(Loss),
    /// A run of it ended so, and it waits for the next.
    Retried(Reason),
    /// It became a dead letter.
    Buried(Reason),
    /// An operator made a dead letter a job again.
    Unburied,
    /// It wasn't started in time, and is gone.
    Expired,
    /// It lost its last attempt, and is gone.
    Exhausted(Loss),
    /// An operator cancelled it.
    Cancelled,
    /// An operator dropped its function with it.
    Dropped,
    /// No client waits for it any more.
    Abandoned,
    /// It is left to the next server.
    SetAside,
    /// Another server has its partition.
    HandedOver,
    /// This server has adopted its partition.
    Adopted,
}

/// Why a job lost its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The worker's connection ended.
    Disconnected,
    /// The worker withdrew the function.
    Withdrawn,
    /// The job exceeded the worker's timeout.
    TimedOut,
}

impl From<Loss> for Reason {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Disconnected | Loss::Withdrawn => Self::Lost,
            Loss::TimedOut => Self::TimedOut,
        }
    }
}

impl Step {
    /// WARN if an accepted job is lost for good, INFO if it didn't succeed, else DEBUG.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Exhausted(_) | Self::Dropped | Self::Buried(_) | Self::Expired => Level::WARN,
            Self::Finished(Outcome::Fail | Outcome::Exception)
            | Self::Requeued(_)
            | Self::Retried(_)
            | Self::Unburied
            | Self::NotStored
            | Self::Cancelled => Level::INFO,
            Self::Submitted
            | Self::Joined
            | Self::Stored
            | Self::Assigned
            | Self::Finished(Outcome::Complete)
            | Self::Abandoned
            | Self::SetAside
            | Self::HandedOver
            | Self::Adopted => Level::DEBUG,
        }
    }
}

/// The rank of the least urgent level that lines about jobs and packets are written at; 0 = none.
/// A copy of what the log's filter says, as asking that costs each step of a job some instructions.
static RANK: AtomicU8 = AtomicU8::new(0);

const fn rank(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// Sets the least urgent level that lines about jobs and packets are written at.
pub fn set_level(filter: LevelFilter) {
    RANK.store(filter.into_level().map_or(0, rank), Ordering::Relaxed);
}

/// Whether lines of a level about jobs or packets are written.
#[inline]
#[must_use]
pub fn is_on(level: Level) -> bool {
    RANK.load(Ordering::Relaxed) >= rank(level)
}

/// A step, and what the job was then.
#[derive(Clone, Debug)]
pub struct Event {
    /// The step.
    pub step: Step,
    /// The job's number.
    pub number: u64,
    /// Name of its function.
    pub function: Box<[u8]>,
    /// Its unique key.
    pub unique: Box<[u8]>,
    /// Workers that lost it.
    pub attempts: u16,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted_ms: u64,
    /// The worker or the client, where there is one.
    pub conn: Option<ConnId>,
}

impl Engine {
    /// Notes a step of a job, unless its level is off.
    #[inline]
    pub(super) fn note(&mut self, step: Step, id: JobId, conn: Option<ConnId>) {
        if is_on(step.level()) {
            self.add_event(step, id, conn);
        }
    }

    #[cold]
    fn add_event(&mut self, step: Step, id: JobId, conn: Option<ConnId>) {
        let job = &self.jobs[id];
        self.events.push(Event {
            step,
            number: job.number,
            function: self.functions[job.function].name.clone(),
            unique: job.unique().into(),
            attempts: job.attempts,
            submitted_ms: job.submitted_ms(),
            conn,
        });
    }

    /// Whether `take_events` has any.
    #[inline]
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Takes the events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}
