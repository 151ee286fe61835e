//! From the engine to the connections: effects in, packets in outboxes, messages and operations
//! out.
//!
//! A connection is told in its outbox, one that lives at another core by a message to there, the
//! store by an operation. Decides nothing: what has happened is the engine's to say.
//!
//! Invariant: after `deliver` no effect is left, and every connection that was told something is
//! dirty.

use bytes::Bytes;

use super::{Closing, OUTBOX_PAUSE_BYTES, Shard};
use crate::engine::record::Operation;
use crate::engine::{ConnId, Effect, Now};
use crate::shard::remote::message::Message;
use crate::shard::remote::migration::Migration;
use crate::wire::outbox::{Outbox, Parcel, Slot};
use crate::wire::{Command, ErrorReply, Payload, Response, Work};

impl Shard {
    /// Brings the engine's effects to the connections they are for. `work` is the packet that was
    /// handled, if it is one to be passed on.
    #[inline]
    pub(super) fn deliver(&mut self, work: Option<Work<'_>>, now: Now) {
        self.deliver_effects(work, now);
        while let Some(conn) = self.declined.pop() {
            self.engine.decline(conn);
            self.deliver_effects(None, now);
        }
        if self.settings.cores.count > 1 {
            self.publish_priorities();
        }
    }

    /// Other cores see of which priorities this one has queued jobs.
    fn publish_priorities(&mut self) {
        let priorities = self.engine.priorities();
        if std::mem::replace(&mut self.published_priorities, priorities) != priorities {
            self.settings.urgency.publish(self.settings.cores.own, priorities);
        }
    }

    #[inline]
    fn deliver_effects(&mut self, work: Option<Work<'_>>, now: Now) {
        let mut effects = std::mem::take(&mut self.effects);
        self.engine.take_effects(&mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Noop { conn } => self.wake(conn, now),
                Effect::Hint { conn } => self.hint(conn),
                Effect::Fail { conn, number } => {
                    let handle = self.settings.handles.text(number);
                    let body = Payload::borrowed(handle.as_ref());
                    self.push(conn, &Response::Work { command: Command::WorkFail, body }, now);
                }
                Effect::Forward { conn } => {
                    if let Some(work) = &work {
                        self.forward(conn, work, now);
                    }
                }
                Effect::Accepted { conn, ticket, number } => {
                    let handle = self.settings.handles.text(number);
                    let created = Response::JobCreated { handle: handle.as_ref() };
                    self.answer(conn, ticket, &created);
                }
                Effect::Refused { conn, ticket } => {
                    self.answer(conn, ticket, &Response::Error(ErrorReply::NotStored));
                }
                Effect::Insert { job, answered } => {
                    let job = &self.engine.jobs()[job as usize];
                    let row = job.row(&self.engine.function_of(job).name);
                    self.operations.push(Operation::Insert { row, answered });
                }
                Effect::SetAttempts { number, attempts } => {
                    self.operations.push(Operation::SetAttempts { number, attempts });
                }
                Effect::Remove { number } => self.operations.push(Operation::Remove { number }),
            }
        }
        self.effects = effects;
    }

    /// A worker that sleeps has something to do.
    #[inline]
    fn wake(&mut self, conn: ConnId, now: Now) {
        let connection = &self.connections[conn as usize];
        if let Some((home, key)) = connection.home() {
            let ready = self.engine.ready(conn);
            self.send_message(home, Message::Noop { key, ready });
        } else if let Migration::Incoming | Migration::Offloaded = connection.migration {
            // It is told when it has arrived.
        } else if connection.remote.as_ref().is_some_and(|remote| remote.roams()) {
            let ready = self.engine.ready(conn);
            self.receive_noop(conn, self.settings.cores.own, ready, now);
        } else {
            self.push(conn, &Response::Noop, now);
        }
    }

    /// There may be jobs for a worker that is awake and has to do with several cores.
    fn hint(&mut self, conn: ConnId) {
        let ready = self.engine.ready(conn);
        match self.connections[conn as usize].home() {
            Some((home, key)) => self.send_message(home, Message::Hint { key, ready }),
            None if self.is_roaming(conn) => {
                self.receive_hint(conn, self.settings.cores.own, ready);
            }
            None => {}
        }
    }

    /// A submission that waited for the store has its answer.
    fn answer(&mut self, conn: ConnId, slot: Slot, response: &Response<'_>) {
        match self.connections[conn as usize].home() {
            Some((home, key)) => {
                let mut parcel = Parcel::default();
                parcel.push(response);
                self.send_message(home, Message::Reply { key, slot, parcel });
            }
            None => self.fill(conn, |outbox| outbox.fill(slot, response)),
        }
    }

    pub(super) fn forward(&mut self, conn: ConnId, work: &Work<'_>, now: Now) {
        if let Some((home, key)) = self.connections[conn as usize].home() {
            let (command, body) = (work.command, work.body);
            let body = body.share().unwrap_or_else(|| Bytes::copy_from_slice(body.bytes()));
            return self.send_message(home, Message::Forward { key, command, body });
        }
        let exceptions = self.connections[conn as usize].session.exceptions();
        let response = if work.command == Command::WorkException && !exceptions {
            let body = Payload::borrowed(work.handle);
            Response::Work { command: Command::WorkFail, body }
        } else {
            Response::Work { command: work.command, body: work.body }
        };
        self.push(conn, &response, now);
    }

    #[inline]
    pub(super) fn push(&mut self, conn: ConnId, response: &Response<'_>, now: Now) {
        let connection = &mut self.connections[conn as usize];
        if connection.closing == Closing::Now {
            return;
        }
        if let Some((home, key)) = connection.home() {
            let mut parcel = Parcel::default();
            parcel.push(response);
            return self.send_message(home, Message::Push { key, parcel });
        }
        self.unsettle(conn);
        self.connections[conn as usize].outbox.push(response);
        self.settle(conn, now);
        self.mark_dirty(conn);
    }

    pub(super) fn push_parcel(&mut self, conn: ConnId, parcel: Parcel, now: Now) {
        self.unsettle(conn);
        self.connections[conn as usize].outbox.push_parcel(parcel);
        self.settle(conn, now);
        self.mark_dirty(conn);
    }

    /// A reply that was waited for has come, and `fill` puts it into its place.
    pub(super) fn fill(&mut self, conn: ConnId, fill: impl FnOnce(&mut Outbox)) {
        self.unsettle(conn);
        let connection = &mut self.connections[conn as usize];
        fill(&mut connection.outbox);
        if connection.may_resume() {
            self.resumed.push(conn);
        }
        // Not `settle`: what waited for this reply couldn't be read, and tells nothing of the peer.
        let bytes = connection.outbox.bytes();
        self.outbox_bytes += bytes;
        self.slots += connection.outbox.held();
        if bytes > OUTBOX_PAUSE_BYTES {
            self.list_unread(conn);
        }
        self.mark_dirty(conn);
    }

    /// Appends an admin reply; its buffer serves for the next one.
    pub(super) fn push_text(&mut self, conn: ConnId, mut text: Vec<u8>, now: Now) {
        self.unsettle(conn);
        self.connections[conn as usize].outbox.push_text(&text);
        self.settle(conn, now);
        text.clear();
        text.shrink_to(1 << 16);
        self.text = text;
    }
}
