//! Jobs as operators see them: which ones and where a list has come to in, the next rows out.
//!
//! Knows no JSON.
//!
//! Invariant: a list over jobs that don't change meanwhile has each of them once. Jobs that wait
//! for a worker come in the order in which they will be given out, if the list is of one function.

use std::sync::Arc;

use super::RECORDS_MAX;
use crate::engine::job::{Job, State};
use crate::engine::reason::Reason;
use crate::engine::{ConnId, JobId, Now};
use crate::protocol::access::{Permissions, Right, Scope};
use crate::protocol::peer_address::PeerAddress;
use crate::shard::Shard;
use crate::wire::Priority;

/// Which jobs.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Of this function; `None` = of all.
    pub function: Option<Box<[u8]>>,
    /// In this state; `None` = in any.
    pub state: Option<State>,
    /// Whether they have been run and are to be run again: with `State::Delayed`, those that are
    /// retrying, or those that wait for their first start; `None` = either.
    pub is_rerun: Option<bool>,
    /// Which functions the peer may see; `None` = all.
    pub access: Option<Arc<Permissions>>,
}

/// How far a list of jobs has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobsAt {
    /// At this record; lists over several functions or states.
    Record(JobId),
    /// In the queue of this priority, at the job of this number, or at the head.
    Queue(Priority, Option<u64>),
}

impl JobsAt {
    /// The start of a list.
    #[must_use]
    pub fn start(filter: &JobFilter) -> Self {
        match filter {
            JobFilter { function: Some(_), state: Some(State::Queued), .. } => {
                Self::Queue(Priority::High, None)
            }
            _ => Self::Record(JobId::FIRST),
        }
    }
}

/// A job.
#[derive(Clone, Debug)]
pub struct JobRow {
    /// Its handle.
    pub handle: Box<str>,
    /// Its function.
    pub function: Box<[u8]>,
    /// Its unique key; empty for many.
    pub unique: Box<[u8]>,
    /// Its priority.
    pub priority: Priority,
    /// Its state.
    pub state: State,
    /// Whether it runs without clients that wait for it.
    pub is_background: bool,
    /// Bytes of its payload.
    pub payload_bytes: usize,
    /// Runs that ended without WORK_COMPLETE.
    pub attempts: u16,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted_ms: u64,
    /// When it may start, in milliseconds since 1970; 0 = at once.
    pub run_at_ms: u64,
    /// How its last run ended, if it did without WORK_COMPLETE.
    pub last_reason: Option<Reason>,
    /// Its worker, while it runs.
    pub worker: Option<JobWorker>,
    /// The worker's last WORK_STATUS.
    pub status: (u32, u32),
    /// As much of its payload as was asked for.
    pub payload: Box<[u8]>,
}

/// The worker of a job.
#[derive(Clone, Debug)]
pub struct JobWorker {
    /// Its address.
    pub peer: PeerAddress,
    /// Its client id; `-` without one.
    pub id: Box<[u8]>,
    /// How long it has had the job, in milliseconds.
    pub run_ms: u32,
}

impl JobRow {
    pub(super) fn bytes(&self) -> usize {
        let Self { handle, function, unique, payload, .. } = self;
        size_of::<Self>() + handle.len() + function.len() + unique.len() + payload.len()
    }
}

impl Shard {
    pub(super) fn job_rows(
        &self,
        filter: &JobFilter,
        at: JobsAt,
        limit: usize,
        now: Now,
    ) -> (Vec<JobRow>, Option<JobsAt>) {
        let (ids, next) = self.find_jobs(filter, at, limit);
        (ids.into_iter().map(|id| self.job_row(id, 0, now)).collect(), next)
    }

    /// The next jobs, at most `limit`, and where those that are left begin.
    pub(super) fn find_jobs(
        &self,
        filter: &JobFilter,
        at: JobsAt,
        limit: usize,
    ) -> (Vec<JobId>, Option<JobsAt>) {
        match at {
            JobsAt::Record(from) => self.find_records(filter, from, limit),
            JobsAt::Queue(priority, from) => self.find_queued(filter, priority, from, limit),
        }
    }

    fn find_records(
        &self,
        filter: &JobFilter,
        from: JobId,
        limit: usize,
    ) -> (Vec<JobId>, Option<JobsAt>) {
        let JobFilter { function, state, is_rerun, access } = filter;
        let engine = &self.engine;
        let function = match function.as_ref().map(|name| engine.functions().find(name)) {
            Some(None) => return (Vec::new(), None),
            Some(found) => found,
            None => None,
        };
        let matches = |job: &Job| {
            function.is_none_or(|function| job.function == function)
                && state.is_none_or(|state| job.state == state)
                && is_rerun.is_none_or(|is_rerun| is_rerun == (job.attempts > 0))
                && access.as_ref().is_none_or(|it| it.shows(&engine.function_of(job).name))
        };
        let mut ids = Vec::new();
        for (looked_at, (id, job)) in engine.jobs().iter_from(from).enumerate() {
            if ids.len() == limit || looked_at == RECORDS_MAX {
                return (ids, Some(JobsAt::Record(id)));
            }
            if matches(job) {
                ids.push(id);
            }
        }
        (ids, None)
    }

    fn find_queued(
        &self,
        filter: &JobFilter,
        priority: Priority,
        from: Option<u64>,
        limit: usize,
    ) -> (Vec<JobId>, Option<JobsAt>) {
        let engine = &self.engine;
        let name = filter.function.as_deref().unwrap_or_default();
        let Some(function) = engine.functions().find(name) else { return (Vec::new(), None) };
        let mut ids = Vec::new();
        let mut from = from;
        for priority in Priority::ALL.into_iter().skip(priority as usize) {
            for id in engine.queued_from(function, priority, from.take()) {
                if ids.len() == limit {
                    let number = engine.jobs()[id].number;
                    return (ids, Some(JobsAt::Queue(priority, Some(number))));
                }
                ids.push(id);
            }
        }
        (ids, None)
    }

    /// One job, if the peer may see it.
    pub(super) fn job_row_of(
        &self,
        number: u64,
        payload_bytes: usize,
        access: Option<&Permissions>,
        now: Now,
    ) -> Option<JobRow> {
        let id = self.engine.find(number)?;
        let function = &self.engine.function_of(&self.engine.jobs()[id]).name;
        let right = if payload_bytes > 0 { Right::Admin } else { Right::Observe };
        let shows = |it: &Permissions| it.may(right, Scope::Function(function)).is_allowed;
        access.is_none_or(shows).then(|| self.job_row(id, payload_bytes, now))
    }

    fn job_row(&self, id: JobId, payload_bytes: usize, now: Now) -> JobRow {
        let job = &self.engine.jobs()[id];
        let payload = job.payload();
        let payload = payload.bytes();
        JobRow {
            handle: self.handle_text(job.number),
            function: self.engine.function_of(job).name.clone(),
            unique: job.unique().into(),
            priority: job.priority,
            state: job.state,
            is_background: job.is_background(),
            payload_bytes: payload.len(),
            attempts: job.attempts,
            submitted_ms: job.submitted_ms(),
            run_at_ms: job.run_at_ms(),
            last_reason: job.last_reason,
            worker: (job.state == State::Running).then(|| self.job_worker(job, now)),
            status: (job.numerator, job.denominator),
            payload: payload.get(..payload_bytes).unwrap_or(payload).into(),
        }
    }

    fn job_worker(&self, job: &Job, now: Now) -> JobWorker {
        let conn: ConnId = self.engine.worker_of(job);
        let connection = &self.connections[conn];
        JobWorker {
            peer: connection.origin.peer,
            id: connection.session().id().into(),
            run_ms: job.run_ms(now),
        }
    }
}
