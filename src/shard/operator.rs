//! What operators ask of a core by HTTP: requests in, one reply each.
//!
//! The HTTP thread sends a request as a message, as if it were one more core, and asks for the
//! next part when it has a reply: a reply has at most `ROWS_MAX` rows, for which at most
//! `RECORDS_MAX` records are looked at, so that no request stops a core. Knows no HTTP.
//!
//! Invariant: what a request may see or change was decided where it came in, but for requests that
//! name a job only: these bring their permissions along.

mod changes;
mod connections;
mod dead;
mod functions;
mod jobs;
mod numbers;

use std::sync::Arc;

pub use self::changes::{CancelOutcome, Purged, RunOutcome};
pub use self::connections::{ConnectionFilter, ConnectionRow, RunningRow, WorkerState};
pub use self::dead::{DeadChange, DeadFilter, LetterRow};
pub use self::functions::{FunctionRow, FunctionsAt};
pub use self::jobs::{JobFilter, JobRow, JobWorker, JobsAt};
pub use self::numbers::{ConnectionKinds, CoreNumbers};
use super::Shard;
use super::remote::conn_key::{ConnKey, HomeConnId};
use crate::engine::Now;
use crate::engine::record::Pause;
use crate::protocol::access::Permissions;
pub use crate::protocol::admin::change::DeadAt;

/// Most rows of a reply.
pub const ROWS_MAX: usize = 256;
/// Most dead letters that are changed before others have their turn; likewise of jobs and functions
/// that text commands change.
pub(super) const CHANGES_MAX: usize = 256;
/// Most records that are looked at for a reply.
pub const RECORDS_MAX: usize = 8192;

/// What is asked of a core.
#[derive(Clone, Debug)]
pub enum OperatorRequest {
    /// Whether it runs. `OperatorReply::Alive`.
    Ping,
    /// Its numbers. `OperatorReply::Numbers`.
    Numbers,
    /// The next functions. `OperatorReply::Functions`.
    Functions(FunctionsAt),
    /// The next connections that came in on it. `OperatorReply::Connections`.
    Connections {
        /// Which.
        filter: ConnectionFilter,
        /// Where to go on; the first by default.
        from: HomeConnId,
    },
    /// What some connections run of its functions. `OperatorReply::Running`.
    Running {
        /// The core that they came in on.
        home: usize,
        /// The connections.
        conns: Vec<ConnKey>,
    },
    /// The next jobs. `OperatorReply::Jobs`.
    Jobs {
        /// Which.
        filter: JobFilter,
        /// Where to go on.
        at: JobsAt,
        /// Most rows.
        limit: usize,
    },
    /// One job, if the permissions allow to see it. `OperatorReply::Job`.
    Job {
        /// Its number.
        number: u64,
        /// Most bytes of its payload.
        payload_bytes: usize,
        /// What the peer may see; `None` = everything.
        access: Option<Arc<Permissions>>,
    },
    /// Cancels a job, if the permissions allow it. `OperatorReply::Cancelled`.
    Cancel {
        /// Its number.
        number: u64,
        /// What the peer may change; `None` = everything.
        access: Option<Arc<Permissions>>,
    },
    /// Cancels the next jobs of a function that wait, or wait for their start.
    /// `OperatorReply::Purged`.
    Purge {
        /// Which.
        filter: JobFilter,
        /// Where to go on.
        at: JobsAt,
    },
    /// The next dead letters, in the order in which the jobs died. `OperatorReply::Dead`.
    Dead {
        /// Which.
        filter: DeadFilter,
        /// Where to go on.
        at: DeadAt,
        /// Most rows.
        limit: usize,
    },
    /// One dead letter, if the permissions allow to see it. `OperatorReply::DeadLetter`.
    DeadLetter {
        /// The job's number.
        number: u64,
        /// Most bytes of its payload.
        payload_bytes: usize,
        /// What the peer may see; `None` = everything.
        access: Option<Arc<Permissions>>,
    },
    /// Makes the next dead letters jobs again. `OperatorReply::DeadChanged`.
    Requeue {
        /// Which.
        filter: DeadFilter,
        /// Where to go on.
        at: DeadAt,
    },
    /// Removes the next dead letters. `OperatorReply::DeadChanged`.
    RemoveDead {
        /// Which.
        filter: DeadFilter,
        /// Where to go on.
        at: DeadAt,
    },
    /// Has a job that waits for its start, or for its next run, start now, if the permissions allow
    /// it. `OperatorReply::Run`.
    RunNow {
        /// Its number.
        number: u64,
        /// What the peer may change; `None` = everything.
        access: Option<Arc<Permissions>>,
    },
    /// Pauses a function, also one that isn't known yet. `OperatorReply::Paused`.
    Pause {
        /// The function.
        function: Box<[u8]>,
        /// Until when.
        pause: Pause,
    },
    /// Ends the pause of a function, if it is paused. `OperatorReply::Resumed`.
    Resume {
        /// The function.
        function: Box<[u8]>,
    },
    /// Limits the jobs of a function by priority; 0 = no limit.
    /// `OperatorReply::Limited`.
    Limit {
        /// The function.
        function: Box<[u8]>,
        /// Most jobs.
        queue_max: [u32; 3],
    },
}

/// What a core replies.
#[derive(Clone, Debug)]
pub enum OperatorReply {
    /// It runs.
    Alive,
    /// Its numbers.
    Numbers(Box<CoreNumbers>),
    /// Functions, and where those that are left begin.
    Functions(Vec<FunctionRow>, Option<FunctionsAt>),
    /// Connections, and where those that are left begin.
    Connections(Vec<ConnectionRow>, Option<HomeConnId>),
    /// What the connections run.
    Running(Vec<RunningRow>),
    /// Jobs, and where those that are left begin.
    Jobs(Vec<JobRow>, Option<JobsAt>),
    /// The job; `None` if there is none, or the peer may not see it.
    Job(Option<Box<JobRow>>),
    /// How it went.
    Cancelled(CancelOutcome),
    /// How many jobs it were.
    Purged(Purged),
    /// Dead letters, and where those that are left begin.
    Dead(Vec<LetterRow>, Option<DeadAt>),
    /// The dead letter; `None` if there is none, or the peer may not see it.
    DeadLetter(Option<Box<LetterRow>>),
    /// How many dead letters it were.
    DeadChanged(DeadChange),
    /// How it went.
    Run(RunOutcome),
    /// Whether there was memory for it.
    Paused(bool),
    /// Whether there is such a function.
    Resumed(bool),
    /// Whether there is such a function.
    Limited(bool),
}

impl OperatorRequest {
    /// Memory that it takes on its way, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Connections { filter, .. } => {
                    filter.function.as_ref().map_or(0, |name| name.len())
                }
                Self::Running { conns, .. } => size_of_val(&conns[..]),
                Self::Jobs { filter, .. } | Self::Purge { filter, .. } => {
                    filter.function.as_ref().map_or(0, |name| name.len())
                }
                Self::Dead { filter, .. }
                | Self::Requeue { filter, .. }
                | Self::RemoveDead { filter, .. } => filter.bytes(),
                Self::Limit { function, .. }
                | Self::Pause { function, .. }
                | Self::Resume { function } => function.len(),
                _ => 0,
            }
    }
}

impl OperatorReply {
    /// Memory that it takes on its way, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Numbers(_) => size_of::<CoreNumbers>(),
                Self::Functions(rows, _) => rows.iter().map(FunctionRow::bytes).sum(),
                Self::Connections(rows, _) => rows.iter().map(ConnectionRow::bytes).sum(),
                Self::Running(rows) => rows.iter().map(RunningRow::bytes).sum(),
                Self::Jobs(rows, _) => rows.iter().map(JobRow::bytes).sum(),
                Self::Job(row) => row.as_ref().map_or(0, |row| row.bytes()),
                Self::Dead(rows, _) => rows.iter().map(LetterRow::bytes).sum(),
                Self::DeadLetter(row) => row.as_ref().map_or(0, |row| row.bytes()),
                Self::Alive
                | Self::Cancelled(_)
                | Self::Purged(_)
                | Self::DeadChanged(_)
                | Self::Run(_)
                | Self::Paused(_)
                | Self::Resumed(_)
                | Self::Limited(_) => 0,
            }
    }
}

impl Shard {
    /// The handle of a job.
    fn handle_text(&self, number: u64) -> Box<str> {
        String::from_utf8_lossy(self.settings.handles.text(number).as_ref()).into()
    }

    /// Replies to a request.
    pub(super) fn answer_operator(&mut self, request: OperatorRequest, now: Now) -> OperatorReply {
        match request {
            OperatorRequest::Ping => OperatorReply::Alive,
            OperatorRequest::Numbers => OperatorReply::Numbers(Box::new(self.core_numbers())),
            OperatorRequest::Functions(at) => {
                let (rows, next) = self.function_rows(at);
                OperatorReply::Functions(rows, next)
            }
            OperatorRequest::Connections { filter, from } => {
                let (rows, next) = self.connection_rows(from, &filter);
                OperatorReply::Connections(rows, next)
            }
            OperatorRequest::Running { home, conns } => {
                OperatorReply::Running(self.running_rows(home, &conns, now))
            }
            OperatorRequest::Jobs { filter, at, limit } => {
                let (rows, next) = self.job_rows(&filter, at, limit.min(ROWS_MAX), now);
                OperatorReply::Jobs(rows, next)
            }
            OperatorRequest::Job { number, payload_bytes, access } => {
                let row = self.job_row_of(number, payload_bytes, access.as_deref(), now);
                OperatorReply::Job(row.map(Box::new))
            }
            OperatorRequest::Cancel { number, access } => {
                OperatorReply::Cancelled(self.cancel_by_operator(number, access.as_deref(), now))
            }
            OperatorRequest::Purge { filter, at } => {
                OperatorReply::Purged(self.purge(&filter, at, now))
            }
            OperatorRequest::Dead { filter, at, limit } => {
                let (rows, next) = self.letter_rows(&filter, at, limit.min(ROWS_MAX), now);
                OperatorReply::Dead(rows, next)
            }
            OperatorRequest::DeadLetter { number, payload_bytes, access } => {
                let row = self.letter_row_of(number, payload_bytes, access.as_deref());
                OperatorReply::DeadLetter(row.map(Box::new))
            }
            OperatorRequest::Requeue { filter, at } => {
                OperatorReply::DeadChanged(self.requeue_some(&filter, at, now))
            }
            OperatorRequest::RemoveDead { filter, at } => {
                OperatorReply::DeadChanged(self.remove_some_dead(&filter, at, now))
            }
            OperatorRequest::RunNow { number, access } => {
                OperatorReply::Run(self.run_by_operator(number, access.as_deref(), now))
            }
            OperatorRequest::Pause { function, pause } => {
                OperatorReply::Paused(self.pause_function(&function, pause, now))
            }
            OperatorRequest::Resume { function } => {
                OperatorReply::Resumed(self.resume_function(&function, now))
            }
            OperatorRequest::Limit { function, queue_max } => {
                OperatorReply::Limited(self.limit_function(&function, queue_max))
            }
        }
    }
}
