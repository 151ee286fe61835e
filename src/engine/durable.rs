//! The engine's dealings with the store: what it is to keep out as effects, what became of that in.
//!
//! A background job of a durable function waits for the store before it runs or is answered
//! (`State::Storing`), unless its function's policy is to answer at once. Knows no store: whoever
//! handles the effects does.
//!
//! Invariant: a job is `stored` from the effect that has it kept to the one that has it removed,
//! and every submission that waits gets one answer, whatever becomes of the job.

use super::attachment::Attachment;
use super::function::{Durability, FunctionId};
use super::handle;
use super::job::{Job, JobId, State};
use super::record::Row;
use super::{ConnId, Effect, Engine, Now, Ticket};

/// Larger jobs wait for the store whatever their function's policy: it may have no room for them.
const ASYNC_BYTES_MAX: usize = 1 << 20;

impl Engine {
    /// A submission is answered with `Effect::Accepted` or `Effect::Refused` and this ticket.
    pub fn await_store(&mut self, conn: ConnId, job: JobId, ticket: Ticket) {
        self.attach(conn, job, Some(ticket));
    }

    /// The store keeps a job: whoever waited for that is answered, and it may start.
    pub fn stored(&mut self, number: u64, now: Now) {
        let Some(id) = self.find(number) else { return };
        self.jobs[id as usize].storing = false;
        self.accept(id);
        if self.jobs[id as usize].state == State::Storing {
            self.unqueue(id);
            self.start(id, now);
        }
    }

    /// The store doesn't keep a job: whoever waited for that is refused, and the job goes unless
    /// others want it, too.
    pub fn not_stored(&mut self, number: u64, now: Now) {
        let Some(id) = self.find(number) else { return };
        while let Some(attachment) = self.jobs[id as usize].waiting.front() {
            let Attachment { conn, ticket, .. } = self.attachments[attachment as usize];
            self.effects.extend(ticket.map(|ticket| Effect::Refused { conn, ticket }));
            self.detach(attachment);
        }
        let job = &mut self.jobs[id as usize];
        (job.storing, job.stored, job.background) = (false, false, false);
        if !job.clients.is_empty() && matches!(job.state, State::Storing | State::Kept) {
            self.unqueue(id);
            self.start(id, now);
        }
        self.drop_if_abandoned(id);
    }

    /// The store has lost a job that it kept: it is to keep it again, and no submission waits for
    /// that.
    pub fn keep_again(&mut self, number: u64) {
        let Some(id) = self.find(number) else { return };
        let job = &self.jobs[id as usize];
        if job.stored && !job.storing {
            self.effects.push(Effect::Insert { job: id, answered: true });
        }
    }

    /// Takes back a job that the store kept over a restart. `false` if its handle is taken.
    pub fn restore(&mut self, row: &Row, now: Now) -> bool {
        if self.find(row.number).is_some() {
            return false;
        }
        self.sequences.skip(row.number >> handle::SLOT_BITS);
        let function = self.functions.find_or_create(&row.function);
        let job = Job::restored(function, row);
        let hash = self.unique_hash(function, job.unique(), job.payload().bytes());
        // Two jobs with one unique are there if another program put them there.
        let is_joined = |hash| self.find_equal(function, hash, job.unique(), job.payload().bytes());
        let hash = hash.filter(|&hash| is_joined(hash).is_none());
        let id = self.insert(job, hash);
        self.start(id, now);
        true
    }

    /// Whether jobs of policy `Async` may be answered before they are on disk. If not, they wait as
    /// if they were of policy `Fsync`.
    pub fn allow_async(&mut self, allowed: bool) {
        self.async_allowed = allowed;
    }

    /// Has a background job kept by the store, if that is its function's policy and it isn't yet.
    /// Returns whether the job must be on disk before its submission is answered.
    pub(super) fn store(&mut self, id: JobId, function: FunctionId) -> bool {
        let durability = self.functions[function].durability;
        if durability == Durability::None {
            return false;
        }
        let job = &mut self.jobs[id as usize];
        if !job.stored {
            let small = job.bytes() <= ASYNC_BYTES_MAX;
            let answered = durability == Durability::Async && self.async_allowed && small;
            job.stored = true;
            job.storing = !answered;
            self.effects.push(Effect::Insert { job: id, answered });
        }
        job.storing
    }

    /// Answers the submissions that wait for the store to keep a job.
    pub(super) fn accept(&mut self, id: JobId) {
        let number = self.jobs[id as usize].number;
        while let Some(attachment) = self.jobs[id as usize].waiting.front() {
            let Attachment { conn, ticket, .. } = self.attachments[attachment as usize];
            self.effects.extend(ticket.map(|ticket| Effect::Accepted { conn, ticket, number }));
            self.detach(attachment);
        }
    }
}
