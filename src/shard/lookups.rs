//! Jobs of other servers: what clients ask of them in, numbers to look up in the database and
//! replies out.
//!
//! A handle is the same on all servers of a database. Whether there is a job that isn't in this
//! server's memory only the database says, if its partition isn't this server's: the reply to
//! GET_STATUS keeps its place until the answer has come. Knows no database.
//!
//! Invariant: each question is answered once, at the latest `LOOKUP_MS` after it was asked, unless
//! its connection has gone.

use std::collections::VecDeque;

use foldhash::HashMap;

use super::Shard;
use super::cores::Core;
use super::remote::message::{ConnKey, Message};
use crate::engine::{ConnId, Now, Status};
use crate::protocol::{admin, session};
use crate::wire::outbox::{PacketBatch, Slot};
use crate::wire::text::c_string;

/// How long an answer is waited for, in milliseconds; then the job counts as unknown.
const LOOKUP_MS: u64 = 2000;

/// A question whose reply has its place in an outbox.
#[derive(Clone, Debug)]
struct Question {
    /// The connection.
    key: ConnKey,
    /// The core that has it.
    home: Core,
    slot: Slot,
    /// As the reply repeats it.
    handle: Box<[u8]>,
    /// When it is answered anyway, in milliseconds of `Now::mono_ms`.
    deadline_ms: u64,
}

/// Questions that wait for the database. As many as there are places for replies (`SLOTS_PAUSE` a
/// connection).
#[derive(Clone, Debug, Default)]
pub(super) struct Lookups {
    /// By number of the job, the oldest first.
    questions: HashMap<u64, Vec<Question>>,
    /// Numbers that the driver hasn't taken yet.
    untaken: Vec<u64>,
    /// The deadline and the number of each question, also of those that are answered.
    deadlines: VecDeque<(u64, u64)>,
}

impl Lookups {
    fn ask(&mut self, number: u64, question: Question) {
        self.deadlines.push_back((question.deadline_ms, number));
        let questions = self.questions.entry(number).or_default();
        if questions.is_empty() {
            self.untaken.push(number);
        }
        questions.push(question);
    }

    fn answered(&mut self, number: u64) -> Vec<Question> {
        let questions = self.questions.remove(&number).unwrap_or_default();
        if self.questions.is_empty() {
            self.deadlines.clear();
        }
        questions
    }

    /// The next question that has waited too long.
    fn pop_late(&mut self, now_ms: u64) -> Option<Question> {
        while let Some(&(deadline_ms, number)) = self.deadlines.front()
            && deadline_ms <= now_ms
        {
            self.deadlines.pop_front();
            let Some(questions) = self.questions.get_mut(&number) else { continue };
            if questions.first().is_none_or(|question| question.deadline_ms > now_ms) {
                continue;
            }
            let question = questions.remove(0);
            if questions.is_empty() {
                self.questions.remove(&number);
            } else if questions.iter().all(|question| question.deadline_ms > now_ms) {
                // Later questions count on a lookup of their own.
                self.untaken.push(number);
            }
            return Some(question);
        }
        None
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.deadlines.front().map(|&(deadline_ms, _)| deadline_ms)
    }

    pub(super) fn take(&mut self, numbers: &mut Vec<u64>) {
        numbers.append(&mut self.untaken);
    }

    /// Number of questions that wait. For tests.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.questions.values().map(Vec::len).sum()
    }
}

impl Shard {
    /// Whether only the database knows the job of a handle.
    fn number_elsewhere(&self, handle: &[u8]) -> Option<u64> {
        let view = self.settings.cluster.as_ref()?;
        let number = self.settings.handles.number(c_string(handle))?;
        let is_here =
            self.engine.find(number).is_some() || self.engine.dead().find(number).is_some();
        (!is_here && view.is_elsewhere(number)).then_some(number)
    }

    /// Has the database asked for the state of a job of another server, if it is one. `false` if
    /// the question is to be answered here. The function isn't known, and so no access list
    /// refuses it.
    pub(super) fn looks_up(&mut self, conn: ConnId, handle: &[u8], now: Now) -> bool {
        let Some(number) = self.number_elsewhere(handle) else { return false };
        let (key, slot) = (self.connections.key(conn), self.connections.hold(conn));
        self.ask_database(number, (self.settings.cores.own, key, slot), handle, now);
        true
    }

    /// The same for a connection of another core.
    pub(super) fn looks_up_for(
        &mut self,
        reply_to: (Core, ConnKey, Slot),
        handle: &[u8],
        now: Now,
    ) -> bool {
        let Some(number) = self.number_elsewhere(handle) else { return false };
        self.ask_database(number, reply_to, handle, now);
        true
    }

    fn ask_database(
        &mut self,
        number: u64,
        (home, key, slot): (Core, ConnKey, Slot),
        handle: &[u8],
        now: Now,
    ) {
        let deadline_ms = now.mono_ms + LOOKUP_MS;
        let handle = c_string(handle).into();
        self.lookups.ask(number, Question { key, home, slot, handle, deadline_ms });
    }

    /// The database has answered.
    pub(super) fn answer_lookups(&mut self, number: u64, is_stored: bool) {
        // It may have come here meanwhile.
        let own = self.engine.status(number);
        let status = own.or_else(|| is_stored.then(Status::default));
        for question in self.lookups.answered(number) {
            self.answer_lookup(question, status);
        }
    }

    /// Answers what has waited too long.
    pub(super) fn answer_late_lookups(&mut self, now: Now) {
        while let Some(question) = self.lookups.pop_late(now.mono_ms) {
            self.answer_lookup(question, None);
        }
    }

    fn answer_lookup(&mut self, question: Question, status: Option<Status>) {
        let Question { key, home, slot, handle, .. } = question;
        let mut packets = PacketBatch::default();
        packets.push(&session::status(&handle, status));
        if home != self.settings.cores.own {
            self.outgoing.send(home, Message::Reply { key, slot, packets });
        } else if let Some(conn) = self.find_key(key) {
            self.fill(conn, |outbox| outbox.fill_with(slot, packets));
        }
    }

    /// The reply to a line that names a job which isn't this server's to change; `None` if it is
    /// none.
    pub(super) fn refusal_of_elsewhere(&self, line: &[u8]) -> Option<Vec<u8>> {
        let admin::Scope::Job(handle) = admin::scope(line) else { return None };
        let number = self.number_elsewhere(handle)?;
        let owner = self.settings.cluster.as_ref()?.owner_elsewhere(number)?;
        let text = format!("it is a job of {}: ask that server", owner.place());
        Some(format!("ERR UNKNOWN_JOB {}\r\n", text.replace(' ', "+")).into_bytes())
    }
}
