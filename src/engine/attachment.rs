//! Attachments: connections that wait for a job, by submission.
//!
//! A foreground submission is attached until the job's outcome is known, a background submission of
//! a durable job (with a ticket) until the job is on disk. Knows no packets and no store.
//!
//! Invariant: an attachment is in one list of its job (`clients`, or `waiting` if it has a ticket)
//! and in the list of its connection, in both or in neither.

use super::event::Step;
use super::ids::{AttachmentId, JobId};
use super::job::State;
use super::list::{Linked, Links};
use super::numbers::Ending;
use super::{ConnId, Effect, Engine, Ticket};

/// One waiting submission: without a ticket it waits for the job's outcome, with one for the job to
/// be on disk.
#[derive(Clone, Debug)]
pub(super) struct Attachment {
    pub(super) conn: ConnId,
    pub(super) job: JobId,
    pub(super) ticket: Option<Ticket>,
    links: [Links<AttachmentId>; 2],
}

/// Slots of an attachment's links.
pub(super) const OF_JOB: usize = 0;
pub(super) const OF_CONN: usize = 1;

impl Linked for Attachment {
    type Id = AttachmentId;
    fn links(&self, slot: usize) -> &Links<AttachmentId> {
        &self.links[slot]
    }
    fn links_mut(&mut self, slot: usize) -> &mut Links<AttachmentId> {
        &mut self.links[slot]
    }
}

impl Engine {
    /// Attaches a submission to its job and its connection.
    pub(super) fn attach(&mut self, conn: ConnId, job: JobId, ticket: Option<Ticket>) {
        let attachment = Attachment { conn, job, ticket, links: [Links::LOOSE; 2] };
        let id = self.attachments.insert(attachment);
        let job = &mut self.jobs[job];
        self.awaiting_store += usize::from(ticket.is_some());
        let list = if ticket.is_some() { &mut job.waiting } else { &mut job.clients };
        list.push_front(&mut self.attachments, OF_JOB, id);
        self.peers[conn].attachments.push_front(&mut self.attachments, OF_CONN, id);
    }

    /// Removes an attachment; returns its job.
    pub(super) fn detach(&mut self, id: AttachmentId) -> JobId {
        let Attachment { conn, job, ticket, .. } = self.attachments[id];
        let record = &mut self.jobs[job];
        self.awaiting_store -= usize::from(ticket.is_some());
        let list = if ticket.is_some() { &mut record.waiting } else { &mut record.clients };
        list.remove(&mut self.attachments, OF_JOB, id);
        self.peers[conn].attachments.remove(&mut self.attachments, OF_CONN, id);
        self.attachments.remove(id);
        job
    }

    /// Removes a job whose outcome matters no more. A running job stays until its worker is done: a
    /// submission may still join it. Returns whether it was removed.
    pub(super) fn drop_if_abandoned(&mut self, id: JobId, ending: Ending) -> bool {
        let job = &self.jobs[id];
        let is_abandoned = job.state != State::Running && !self.is_wanted(job);
        if is_abandoned {
            self.note(Step::Abandoned, id, None);
            self.unqueue(id);
            self.remove(id, ending, None);
        }
        is_abandoned
    }

    /// Forwards the packet that is being handled to the job's clients.
    #[inline(always)]
    pub(super) fn forward(&mut self, id: JobId) {
        if !self.jobs[id].clients.is_empty() {
            self.forward_to_clients(id);
        }
    }

    #[inline(never)]
    fn forward_to_clients(&mut self, id: JobId) {
        for attachment in self.jobs[id].clients.iter(&self.attachments, OF_JOB) {
            let conn = self.attachments[attachment].conn;
            self.effects.push(Effect::Forward { conn });
        }
    }

    /// Reports a job to its clients as failed, and detaches them.
    pub(super) fn fail(&mut self, id: JobId) {
        self.accept(id);
        let number = self.jobs[id].number;
        while let Some(attachment) = self.jobs[id].clients.front() {
            let conn = self.attachments[attachment].conn;
            self.effects.push(Effect::Fail { conn, number });
            self.detach(attachment);
        }
    }
}
