//! Draining: the server is to end, once no job is left to do, or once no job runs.
//!
//! `JobsDone` accepts no more jobs. Stored jobs that aren't running are set aside: they are not
//! assigned any more, and the next server recovers them. Jobs in memory only are still run.
//! `RunsDone` assigns nothing, and accepts what the store keeps. Where other servers go on, both
//! accept that, and a stored job that clients wait for is run. Knows no signal and no other core.
//!
//! Invariant: no job that is for the next server is assigned; with `JobsDone`, once draining has
//! visited all jobs, none of these is queued or delayed.

use super::attachment::{Attachment, OF_CONN};
use super::event::Step;
use super::function::Durability;
use super::ids::{FunctionId, JobId};
use super::job::{Demand, Job, State, Storage};
use super::{ConnId, Due, Engine, Now};
use crate::wire::{Priority, Submit};

/// Jobs visited at a time.
const JOBS_AT_ONCE: usize = 256;

/// What a draining server waits for before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainGoal {
    /// No job is left, but those that the next server recovers.
    JobsDone,
    /// No job runs.
    RunsDone,
}

/// Progress of draining.
#[derive(Clone, Debug)]
pub(super) struct Drain {
    goal: Option<DrainGoal>,
    /// The next job to visit.
    next: JobId,
    /// Jobs set aside, by priority.
    pub(super) kept: [u32; 3],
}

impl Default for Drain {
    fn default() -> Self {
        Self { goal: None, next: JobId::FIRST, kept: [0; 3] }
    }
}

impl Engine {
    /// Starts draining; the first goal stays.
    pub fn drain(&mut self, goal: DrainGoal, now: Now) {
        if self.drain.goal.is_none() {
            self.drain.goal = Some(goal);
            if goal == DrainGoal::JobsDone {
                self.timers.insert(now.mono_ms, Due::Drain);
            }
        }
    }

    /// Whether stored jobs are set aside, and submissions refused: all of them, unless other
    /// servers go on.
    #[inline]
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.goal == Some(DrainGoal::JobsDone)
    }

    /// Whether the server is to end.
    #[inline]
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.drain.goal.is_some()
    }

    /// Whether workers get jobs.
    #[inline]
    #[must_use]
    pub fn assigns(&self) -> bool {
        self.drain.goal != Some(DrainGoal::RunsDone)
    }

    /// Whether a submission is refused because of draining.
    #[inline]
    #[must_use]
    pub fn declines(&self, submit: &Submit<'_>) -> bool {
        match self.drain.goal {
            None => false,
            Some(DrainGoal::JobsDone) if !self.settings.has_other_servers => true,
            Some(_) => !(submit.background && self.is_durable(submit.function)),
        }
    }

    /// Whether background jobs of a function go to the store.
    fn is_durable(&self, name: &[u8]) -> bool {
        let durability = match self.functions.find(name) {
            Some(id) => self.functions[id].durability,
            None => self.look_up_policy(name).durability,
        };
        durability != Durability::None
    }

    /// Jobs set aside for the next server.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.drain.kept.iter().map(|&kept| kept as usize).sum()
    }

    /// Jobs assigned to workers that other servers run again, and for which no client waits. Looks
    /// at every job.
    #[must_use]
    pub fn stored_runs(&self) -> usize {
        let is_others = |job: &Job| self.is_left(job) || job.demand == Demand::HandedOver;
        let jobs = self.jobs.iter_from(JobId::FIRST);
        jobs.filter(|(_, job)| job.state == State::Running && is_others(job)).count()
    }

    /// Jobs that start once they are on disk. Looks at every function.
    #[must_use]
    pub fn storing(&self) -> usize {
        let functions = self.functions.iter_from(FunctionId::FIRST);
        functions.map(|(_, function)| function.storing as usize).sum()
    }

    /// Jobs that are in no store: they are lost when the server ends. Looks at every job.
    #[must_use]
    pub fn unstored(&self) -> usize {
        let is_unstored =
            |job: &Job| job.storage != Storage::Stored && job.demand != Demand::HandedOver;
        self.jobs.iter_from(JobId::FIRST).filter(|(_, job)| is_unstored(job)).count()
    }

    /// Jobs assigned to workers.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Sets aside the stored jobs among the next `JOBS_AT_ONCE`. Returns the number of jobs
    /// visited.
    pub(super) fn set_some_aside(&mut self, now: Now) -> usize {
        let jobs = self.jobs.iter_from(self.drain.next).take(JOBS_AT_ONCE);
        let jobs: Vec<(JobId, bool)> = jobs
            .map(|(id, job)| {
                let waits = matches!(job.state, State::Queued | State::Delayed);
                (id, waits && self.is_for_next(id))
            })
            .collect();
        if let Some(&(last, _)) = jobs.last() {
            self.drain.next = last.next();
            self.timers.insert(now.mono_ms, Due::Drain);
        }
        for &(id, _) in jobs.iter().filter(|&&(_, is_kept)| is_kept) {
            self.unqueue(id);
            self.set_aside(id);
        }
        jobs.len()
    }

    /// Whether stored jobs aren't assigned.
    #[inline]
    pub(super) fn withholds_stored(&self) -> bool {
        self.is_draining() || self.suspension.is_on()
    }

    /// Passes over the stored jobs at the heads of a worker's queues, at most `JOBS_AT_ONCE`: sets
    /// them aside if the server drains, as draining may not have visited them yet, else holds them.
    /// `false` if more may be left: the worker gets no job then, and asks again.
    pub(super) fn pass_over_heads(&mut self, conn: ConnId, least: Priority) -> bool {
        for _ in 0..JOBS_AT_ONCE {
            let Some((ability, priority)) = self.find_job(conn, least) else { return true };
            let function = self.abilities.records[ability].function;
            let head = self.functions[function].queues[priority].jobs.front();
            let Some(id) = head else { return true };
            if self.is_for_next(id) {
                self.unqueue(id);
                self.set_aside(id);
            } else if self.suspension.is_on() && self.jobs[id].is_stored() {
                self.hold(id);
            } else {
                return true;
            }
        }
        false
    }

    /// Whether a job is to be set aside instead of queued.
    #[inline]
    pub(super) fn is_for_next(&self, id: JobId) -> bool {
        self.is_draining() && self.is_left(&self.jobs[id])
    }

    fn is_left(&self, job: &Job) -> bool {
        job.is_stored() && (job.clients.is_empty() || !self.settings.has_other_servers)
    }

    /// Sets a job aside whose last client has gone, if it was run for that only.
    pub(super) fn set_aside_if_left(&mut self, id: JobId) {
        let waits = matches!(self.jobs[id].state, State::Queued | State::Delayed);
        if waits && self.is_for_next(id) {
            self.unqueue(id);
            self.set_aside(id);
        }
    }

    /// Whether a connection is still to hear of a submission: that it is stored, or how its job
    /// ended. While nothing is assigned, jobs that don't run don't end.
    #[must_use]
    pub fn awaits_reply(&self, conn: ConnId) -> bool {
        let mut submissions = self.peers[conn].attachments.iter(&self.attachments, OF_CONN);
        submissions.any(|id| {
            let Attachment { job, ticket, .. } = self.attachments[id];
            let state = self.jobs[job].state;
            ticket.is_some() || state == State::Running || self.assigns() && state != State::Kept
        })
    }

    /// Leaves a job that is in no place to the next server.
    pub(super) fn set_aside(&mut self, id: JobId) {
        let job = &mut self.jobs[id];
        job.state = State::Kept;
        let (function, priority) = (&mut self.functions[job.function], job.priority as usize);
        function.kept += 1;
        function.queues[priority].kept += 1;
        self.drain.kept[priority] += 1;
        self.note(Step::SetAside, id, None);
    }
}
