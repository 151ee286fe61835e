//! From the engine to the connections: effects in, packets in outboxes, messages and operations
//! out.
//!
//! A connection of this core gets packets in its outbox, a connection of another core by a message
//! to its home, the store gets operations. Decides nothing: the engine has decided.
//!
//! Invariant: after `deliver` no effect is left, and every connection that was told something is
//! dirty.

use bytes::Bytes;

use super::Shard;
use super::connections::Closing;
use super::limits::OUTBOX_PAUSE_BYTES;
use crate::engine::record::Operation;
use crate::engine::{ConnId, Effect, Now};
use crate::shard::remote::message::Message;
use crate::shard::remote::migration::Migration;
use crate::wire::outbox::{Outbox, PacketBatch, Slot};
use crate::wire::{Command, ErrorReply, Payload, Response, Work};

impl Shard {
    /// Brings the engine's effects to the connections they are for. `work` is the packet that was
    /// handled, if clients are to get it.
    #[inline(always)]
    pub(super) fn deliver(&mut self, work: Option<&Work<'_>>, now: Now) {
        self.deliver_effects(work, now);
        while let Some(conn) = self.declined.pop() {
            self.engine.end_lease(conn);
            self.deliver_effects(None, now);
        }
        if self.settings.cores.count > 1 {
            self.publish_priorities();
        }
    }

    /// Publishes of which priorities this core has queued jobs.
    fn publish_priorities(&mut self) {
        let priorities = self.engine.priorities();
        if std::mem::replace(&mut self.published_priorities, priorities) != priorities {
            self.settings.urgency.publish(self.settings.cores.own, priorities);
        }
    }

    #[inline(always)]
    fn deliver_effects(&mut self, work: Option<&Work<'_>>, now: Now) {
        self.log_jobs(now);
        // Most packets have none.
        if self.engine.has_effects() {
            self.deliver_each(work, now);
        }
    }

    fn deliver_each(&mut self, work: Option<&Work<'_>>, now: Now) {
        let mut effects = std::mem::take(&mut self.effects);
        self.engine.take_effects(&mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Noop { conn } => self.wake(conn, now),
                Effect::Hint { conn } => self.hint(conn),
                Effect::Fail { conn, number } => self.push_fail(conn, number, now),
                Effect::Forward { conn } => {
                    if let Some(work) = work {
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
                    let job = &self.engine.jobs()[job];
                    let row = job.row(&self.engine.function_of(job).name);
                    self.operations.push(Operation::Insert { row, answered });
                }
                Effect::Retry { number } => {
                    if let Some(job) = self.engine.find(number) {
                        let runs = self.engine.jobs()[job].runs();
                        self.operations.push(Operation::Retry { number, runs });
                    }
                }
                Effect::Remove { number } => self.operations.push(Operation::Remove { number }),
                Effect::Bury { number, worker, is_stored } => self.bury(number, worker, is_stored),
                Effect::Unbury { job } => {
                    let job = &self.engine.jobs()[job];
                    let row = job.row(&self.engine.function_of(job).name);
                    self.operations.push(Operation::Unbury(Box::new(row)));
                }
                Effect::RemoveDead { number } => {
                    self.operations.push(Operation::RemoveDead { number });
                }
                Effect::Pause(change) => {
                    let function = Bytes::from(change.function);
                    self.operations.push(Operation::Pause { function, pause: change.pause });
                }
                Effect::TrimDead { core } => self.outgoing.send(core, Message::TrimDead),
                Effect::CancelNotice { conn, number } => self.notify_cancelled(conn, number, now),
            }
        }
        self.effects = effects;
    }

    /// A job has become a dead letter: notes its worker's client id, and has it stored.
    fn bury(&mut self, number: u64, worker: Option<ConnId>, is_stored: bool) {
        if let Some(worker) = worker
            && let Some(id) = self.connections.get(worker).and_then(|it| it.session().client_id())
        {
            self.engine.name_dead_worker(number, id);
        }
        if is_stored {
            // A letter beyond the bounds has been dropped at once.
            let row = self.engine.dead_row(number);
            self.operations.push(match row {
                Some(row) => Operation::Bury(Box::new(row)),
                None => Operation::Remove { number },
            });
        }
    }

    /// Notes the client id of a connection that is about to be removed at the jobs that died with
    /// it.
    pub(super) fn name_dead(&mut self, conn: ConnId) {
        if self.engine.has_effects()
            && let Some(id) = self.connections[conn].session().client_id()
        {
            self.engine.name_buried(conn, id);
        }
    }

    /// Sends WORK_FAIL.
    fn push_fail(&mut self, conn: ConnId, number: u64, now: Now) {
        let handle = self.settings.handles.text(number);
        let body = Payload::borrowed(handle.as_ref());
        self.push(conn, &Response::Work { command: Command::WorkFail, body }, now);
    }

    /// Tells a worker that it need not finish a job, if it has asked for that.
    pub(super) fn notify_cancelled(&mut self, conn: ConnId, number: u64, now: Now) {
        // The home of a proxy's connection knows its options.
        if let Some((home, key)) = self.connections[conn].home() {
            self.outgoing.send(home, Message::CancelNotice { key, number });
        } else if self.connections[conn].session().options().cancel_notice {
            self.push_fail(conn, number, now);
        }
    }

    /// A worker that sleeps has something to do.
    #[inline]
    fn wake(&mut self, conn: ConnId, now: Now) {
        let connection = &self.connections[conn];
        if let Some((home, key)) = connection.home() {
            let ready = self.engine.ready(conn);
            self.outgoing.send(home, Message::Noop { key, ready });
        } else if let Migration::Incoming | Migration::Offloaded = connection.migration {
            // `attach` or `find_home` looks whether it was woken.
        } else if connection.is_multi_core() {
            let ready = self.engine.ready(conn);
            self.receive_noop(conn, self.settings.cores.own, ready, now);
        } else {
            self.push_noop(conn, now);
        }
    }

    /// There may be jobs for a worker that is awake and has to do with several cores.
    fn hint(&mut self, conn: ConnId) {
        let ready = self.engine.ready(conn);
        match self.connections[conn].home() {
            Some((home, key)) => self.outgoing.send(home, Message::Hint { key, ready }),
            None if self.connections[conn].is_multi_core() => {
                let own = self.settings.cores.own;
                self.connections.with_remote(conn, |remote| remote.hint(own, ready));
            }
            None => {}
        }
    }

    /// A submission that waited for the store has its answer.
    fn answer(&mut self, conn: ConnId, slot: Slot, response: &Response<'_>) {
        match self.connections[conn].home() {
            Some((home, key)) => {
                let mut packets = PacketBatch::default();
                packets.push(response);
                self.outgoing.send(home, Message::Reply { key, slot, packets });
            }
            None => self.fill(conn, |outbox| outbox.fill(slot, response)),
        }
    }

    pub(super) fn forward(&mut self, conn: ConnId, work: &Work<'_>, now: Now) {
        if let Some((home, key)) = self.connections[conn].home() {
            let (command, body) = (work.command, work.body);
            let body = body.share().unwrap_or_else(|| Bytes::copy_from_slice(body.bytes()));
            return self.outgoing.send(home, Message::Forward { key, command, body });
        }
        let options = self.connections[conn].session().options();
        let response = if work.command == Command::WorkException && !options.exceptions {
            let body = Payload::borrowed(work.handle);
            Response::Work { command: Command::WorkFail, body }
        } else {
            Response::Work { command: work.command, body: work.body }
        };
        self.push(conn, &response, now);
    }

    /// Wakes a worker.
    #[inline]
    pub(super) fn push_noop(&mut self, conn: ConnId, now: Now) {
        self.counters.wakeups += 1;
        self.push(conn, &Response::Noop, now);
    }

    #[inline]
    pub(super) fn push(&mut self, conn: ConnId, response: &Response<'_>, now: Now) {
        let connection = &self.connections[conn];
        if connection.closing == Closing::Now {
            return;
        }
        if let Some((home, key)) = connection.home() {
            let mut packets = PacketBatch::default();
            packets.push(response);
            return self.outgoing.send(home, Message::Push { key, packets });
        }
        self.write(conn, now, |outbox| outbox.push(response));
    }

    pub(super) fn push_batch(&mut self, conn: ConnId, packets: PacketBatch, now: Now) {
        self.write(conn, now, |outbox| outbox.push_batch(packets));
    }

    /// Appends an admin reply; its buffer serves for the next one.
    pub(super) fn push_text(&mut self, conn: ConnId, mut text: Vec<u8>, now: Now) {
        self.write(conn, now, |outbox| outbox.push_text(&text));
        text.clear();
        text.shrink_to(1 << 16);
        self.text = text;
    }

    /// A reply that was waited for has come, and `fill` puts it into its place.
    pub(super) fn fill(&mut self, conn: ConnId, fill: impl FnOnce(&mut Outbox)) {
        let ((), bytes) = self.connections.with_outbox(conn, fill);
        let connection = &self.connections[conn];
        if connection.may_resume() {
            self.connections.resume(conn);
        }
        // Not `check_outbox`: what waited for this reply couldn't be read, and tells nothing of the
        // peer.
        if bytes > OUTBOX_PAUSE_BYTES {
            self.list_unread(conn);
        }
        self.connections.mark_dirty(conn);
    }

    /// Writes to a connection of this core.
    #[inline]
    fn write(&mut self, conn: ConnId, now: Now, write: impl FnOnce(&mut Outbox)) {
        let ((), bytes) = self.connections.with_outbox(conn, write);
        self.check_outbox(conn, bytes, now);
        self.connections.mark_dirty(conn);
    }
}
