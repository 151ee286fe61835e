//! Attachments: connections that wait for a job, by submission.
//!
//! A foreground submission is attached until the job's outcome is known, a background submission of
//! a durable job (with a ticket) until the job is on disk. Knows no packets and no store.
//!
//! Invariant: an attachment is in one list of its job (`clients`, or `waiting` if it has a ticket)
//! and in the list of its connection, in both or in neither.

use super::job::{JobId, State};
use super::list::{Linked, Links};
use super::{ConnId, Effect, Engine, Ticket};

/// One waiting submission: without a ticket it waits for the job's outcome, with one for the job to
/// be on disk.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) conn: ConnId,
    pub(super) job: JobId,
    pub(super) ticket: Option<Ticket>,
    links: [Links; 2],
}

/// Slots of an attachment's links.
pub(super) const OF_JOB: usize = 0;
pub(super) const OF_CONN: usize = 1;

impl Linked for Attachment {
    fn links(&self, slot: usize) -> &Links {
        &self.links[slot]
    }
    fn links_mut(&mut self, slot: usize) -> &mut Links {
        &mut self.links[slot]
    }
}

impl Engine {
    /// Attaches a submission to its job and its connection.
    pub(super) fn attach(&mut self, conn: ConnId, job: JobId, ticket: Option<Ticket>) {
        let attachment = Attachment { conn, job, ticket, links: [Links::LOOSE; 2] };
        let id = u32::try_from(self.attachments.insert(attachment)).unwrap_or(u32::MAX);
        let job = &mut self.jobs[job as usize];
        let list = if ticket.is_some() { &mut job.waiting } else { &mut job.clients };
        list.push_front(&mut self.attachments, OF_JOB, id);
        self.peers[conn as usize].attachments.push_front(&mut self.attachments, OF_CONN, id);
    }

    /// Removes an attachment; returns its job.
    pub(super) fn detach(&mut self, id: u32) -> JobId {
        let Attachment { conn, job, ticket, .. } = self.attachments[id as usize];
        let record = &mut self.jobs[job as usize];
        let list = if ticket.is_some() { &mut record.waiting } else { &mut record.clients };
        list.remove(&mut self.attachments, OF_JOB, id);
        self.peers[conn as usize].attachments.remove(&mut self.attachments, OF_CONN, id);
        self.attachments.remove(id as usize);
        job
    }

    /// Removes a job whose outcome matters no more. A running job stays until its worker is done: a
    /// submission may still join it.
    pub(super) fn drop_if_abandoned(&mut self, id: JobId) {
        let job = &self.jobs[id as usize];
        if job.state != State::Running && !self.is_wanted(job) {
            self.counters.abandoned += 1;
            self.unqueue(id);
            self.remove(id);
        }
    }

    /// Forwards the packet that is being handled to the job's clients.
    pub(super) fn forward(&mut self, id: JobId) {
        let clients = self.jobs[id as usize].clients.iter(&self.attachments, OF_JOB);
        let conns = clients.map(|at| self.attachments[at as usize].conn);
        self.effects.extend(conns.map(|conn| Effect::Forward { conn }));
    }

    /// Reports a job to its clients as failed, and detaches them.
    pub(super) fn fail(&mut self, id: JobId) {
        self.accept(id);
        let number = self.jobs[id as usize].number;
        while let Some(attachment) = self.jobs[id as usize].clients.front() {
            let conn = self.attachments[attachment as usize].conn;
            self.effects.push(Effect::Fail { conn, number });
            self.detach(attachment);
        }
    }
}
