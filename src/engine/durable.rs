//! Durable jobs: store operations out as effects, their outcomes in.
//!
//! A background job of a durable function is neither run nor answered before it is on disk
//! (`State::Storing`), unless its function's policy is `Async`. Knows no store; the caller passes
//! the effects on.
//!
//! Invariant: a job `is_stored` between its `Effect::Insert` and its `Effect::Remove`, and each
//! submission that waits for the store gets one answer, even if the job is removed meanwhile.

use super::attachment::Attachment;
use super::event::Step;
use super::function::Durability;
use super::handle;
use super::ids::JobId;
use super::job::{Demand, Job, State, Storage};
use super::numbers::{Ending, Failure};
use super::record::Row;
use super::{ConnId, Effect, Engine, Now, Ticket};

/// Larger jobs wait for the store even with policy `Async`, as it may be unable to store them.
const ASYNC_BYTES_MAX: usize = 1 << 20;

impl Engine {
    /// Has a submission answered by `Effect::Accepted` or `Effect::Refused` with this ticket.
    pub fn await_store(&mut self, conn: ConnId, job: JobId, ticket: Ticket) {
        self.attach(conn, job, Some(ticket));
    }

    /// Submissions that wait for their jobs to be on disk.
    #[must_use]
    pub fn awaiting_store(&self) -> usize {
        self.awaiting_store
    }

    /// A job is on disk: its waiting submissions are accepted, and it may start.
    pub fn stored(&mut self, number: u64, now: Now) {
        let Some(id) = self.find(number) else { return };
        let job = &mut self.jobs[id];
        if job.storage == Storage::Awaited {
            job.storage = Storage::Stored;
        }
        self.note(Step::Stored, id, None);
        self.accept(id);
        if self.jobs[id].state == State::Storing {
            self.count_if_storing(id);
            self.unqueue(id);
            self.start(id, now);
        }
    }

    /// A job can't be stored: its waiting submissions are refused, and it is removed unless a
    /// client waits for its outcome.
    pub fn not_stored(&mut self, number: u64, now: Now) {
        let Some(id) = self.find(number) else { return };
        if self.jobs[id].storage == Storage::Stored {
            // It died before, which stored it as a dead letter, and was requeued.
            return;
        }
        self.note(Step::NotStored, id, None);
        while let Some(attachment) = self.jobs[id].waiting.front() {
            let Attachment { conn, ticket, .. } = self.attachments[attachment];
            self.effects.extend(ticket.map(|ticket| Effect::Refused { conn, ticket }));
            self.detach(attachment);
        }
        self.jobs[id].storage = Storage::Memory;
        self.release_if_held(id, now);
        let job = &mut self.jobs[id];
        if job.demand == Demand::Always {
            job.demand = Demand::Clients;
        }
        let mut ending = Ending::Failed(Failure::Abandoned);
        if !job.clients.is_empty() && matches!(job.state, State::Storing | State::Kept) {
            self.count_if_storing(id);
            self.unqueue(id);
            self.start(id, now);
        } else if job.state == State::Storing {
            ending = Ending::NotStored;
            self.counters.not_stored += 1;
        }
        self.drop_if_abandoned(id, ending);
    }

    /// Counts the submission of a job that waits for the store and is to leave that state. Before
    /// that it may still be refused.
    pub(super) fn count_if_storing(&mut self, id: JobId) {
        let job = &self.jobs[id];
        if job.state == State::Storing {
            let (function, background) = (job.function, job.is_background());
            self.numbers_of(function).submitted[usize::from(background)] += 1;
        }
    }

    /// The store lost a job or dead letter: stores it again. No submission waits for that.
    pub fn keep_again(&mut self, number: u64) {
        let Some(id) = self.find(number) else {
            if self.dead.find(number).is_some_and(|letter| letter.job.is_stored()) {
                self.effects.push(Effect::Bury { number, worker: None, is_stored: true });
            }
            return;
        };
        let job = &self.jobs[id];
        if job.storage == Storage::Stored {
            self.effects.push(Effect::Insert { job: id, answered: true });
        }
    }

    /// Recovers a stored job after a restart. `false` if its number is in use.
    pub fn restore(&mut self, row: &Row, now: Now) -> bool {
        if self.find(row.number).is_some() || self.dead.find(row.number).is_some() {
            return false;
        }
        let id = self.recover(row, now);
        self.start(id, now);
        true
    }

    /// Adds a job that a store has, whose number is free. It is in no place.
    pub(super) fn recover(&mut self, row: &Row, now: Now) -> JobId {
        self.sequences.skip(row.number >> handle::SLOT_BITS);
        let function = self.functions.find(&row.function);
        let function = function.unwrap_or_else(|| self.add_function(&row.function));
        let job = Job::restored(function, row, now);
        // Another program, or another server, may have stored a job with the same unique key;
        // submissions join the first that came here.
        let hash = self.free_unique_hash(&job);
        let id = self.insert(job, hash);
        self.numbers_of(function).recovered += 1;
        id
    }

    /// Allows jobs of policy `Async` to be answered before they are on disk, or treats them as
    /// `Fsync`.
    pub fn allow_async(&mut self, allowed: bool) {
        self.async_allowed = allowed;
    }

    /// Whether jobs of policy `Async` are answered before they are on disk: a server that is to end
    /// has no later moment, and one that may have lost its partition has no place for them.
    fn may_answer_async(&self) -> bool {
        self.async_allowed && !self.is_ending() && !self.suspension.is_on() && self.has_home()
    }

    /// Stores a background job if its function is durable, as given, and it isn't stored. Returns
    /// whether its submission must wait until the job is on disk.
    #[inline(always)]
    pub(super) fn store(&mut self, id: JobId, durability: Durability) -> bool {
        durability != Durability::None && self.store_durable(id, durability)
    }

    #[inline(never)]
    fn store_durable(&mut self, id: JobId, durability: Durability) -> bool {
        let may_answer = durability == Durability::Async && self.may_answer_async();
        let job = &mut self.jobs[id];
        if !job.is_stored() {
            let small = job.bytes() <= ASYNC_BYTES_MAX;
            let answered = may_answer && small;
            job.storage = if answered { Storage::Stored } else { Storage::Awaited };
            self.effects.push(Effect::Insert { job: id, answered });
        }
        job.storage == Storage::Awaited
    }

    /// Accepts the submissions that wait for a job to be on disk.
    pub(super) fn accept(&mut self, id: JobId) {
        let number = self.jobs[id].number;
        while let Some(attachment) = self.jobs[id].waiting.front() {
            let Attachment { conn, ticket, .. } = self.attachments[attachment];
            self.effects.extend(ticket.map(|ticket| Effect::Accepted { conn, ticket, number }));
            self.detach(attachment);
        }
    }
}
