//! What a core does for its own connections about jobs of other cores: requests out as messages,
//! the owners' messages in.
//!
//! Replies keep their places in the outbox while they are on their way. Which core is asked, told
//! or declined is the connection's `RemoteState` to say; here it is done.
//!
//! Invariant: a request that has a reply holds a slot until an owner's `Reply` fills it.

use std::sync::Arc;

use super::message::{ConnKey, HomeConnId, Message, Rows};
use super::state::{RemoteState, entry_bytes};
use crate::engine::glob::Glob;
use crate::engine::{ConnId, Now};
use crate::protocol::admin::Task;
use crate::shard::Shard;
use crate::shard::connections::Closing;
use crate::shard::cores::{Core, CoreSet};
use crate::wire::outbox::Slot;
use crate::wire::text::c_string;
use crate::wire::{Command, ErrorReply, Header, Magic, Payload, Request, Response, Work};
use bytes::Bytes;

/// Requests of connections.
impl Shard {
    /// Passes a packet on that has replies: they have their place here.
    pub(in crate::shard) fn ask(
        &mut self,
        owner: Core,
        conn: ConnId,
        header: Header,
        body: Payload<'_>,
    ) {
        let slot = Some(self.connections.hold(conn));
        self.pass_on(owner, conn, slot, header, body);
    }

    /// Passes a packet on that has no reply.
    pub(in crate::shard) fn tell(
        &mut self,
        owner: Core,
        conn: ConnId,
        header: Header,
        body: Payload<'_>,
    ) {
        self.pass_on(owner, conn, None, header, body);
    }

    /// Passes a text line about one function or job on to its owner.
    pub(in crate::shard) fn ask_line(&mut self, owner: Core, conn: ConnId, line: &[u8]) {
        let slot = self.connections.hold(conn);
        let key = self.introduce(owner, conn);
        self.outgoing.send(owner, Message::Line { key, slot, line: line.into() });
    }

    /// A result that is refused for its size fails its job, wherever that is.
    pub(in crate::shard) fn fail_at_owner(&mut self, conn: ConnId, handle: &[u8]) {
        let Some(number) = self.settings.handles.number(handle) else { return };
        let owner = self.settings.cores.owner_of_job(number);
        if owner != self.settings.cores.own {
            let body_bytes = u32::try_from(handle.len()).unwrap_or(0);
            let command = Command::WorkFail;
            let header = Header { magic: Magic::Request, command, body_bytes };
            self.tell(owner, conn, header, Payload::borrowed(handle));
        }
    }

    /// Counts submissions to other cores; a client that has enough of them may move.
    pub(in crate::shard) fn count_submission(&mut self, conn: ConnId, owner: Core) {
        if self.connections[conn].remote().is_none() {
            return;
        }
        let in_row = self.connections.with_remote(conn, |remote| remote.count_submission(owner));
        if in_row >= self.settings.move_after {
            self.consider_migration(conn);
        }
    }

    /// Other cores forget a connection that has gone.
    pub(in crate::shard) fn leave_others(&mut self, conn: ConnId) {
        let remote = self.connections.take_remote(conn);
        for core in remote.iter().flat_map(|remote| remote.known().iter()) {
            self.outgoing.send(core, Message::Gone(HomeConnId::of(conn)));
        }
    }

    /// Has another core write the next rows of a list, or make the next portion of a change.
    pub(in crate::shard) fn ask_for_rows(
        &mut self,
        conn: ConnId,
        core: Core,
        task: Task,
        names: Option<Arc<Glob>>,
    ) {
        let (key, access) = (self.connections.key(conn), self.permissions(conn));
        self.outgoing.send(core, Message::Task { key, task, names, access });
    }

    /// Whether there is memory for a worker's word that it can run a function. Decided here, also
    /// where another core owns it: that core has no reply to refuse it with.
    pub(in crate::shard) fn may_register(&self, conn: ConnId, function: &[u8]) -> bool {
        let memory_left = self.registry_memory_left();
        let owner = self.settings.cores.owner_of(function);
        if owner == self.settings.cores.own {
            return self.engine.has_memory_to_register(conn, function, memory_left);
        }
        let beside = memory_left.saturating_sub(entry_bytes(function));
        self.engine.has_memory_to_register(conn, function, beside)
            || self.connections[conn].remote().is_some_and(|remote| remote.has_function(function))
    }

    pub(in crate::shard) fn refuse_registration(&mut self, conn: ConnId, now: Now) {
        self.push(conn, &Response::Error(ErrorReply::OutOfMemoryToRegister), now);
        self.note_refusal(conn, ErrorReply::OutOfMemoryToRegister, now);
    }

    /// The job that a worker speaks of.
    pub(in crate::shard) fn number_of(&self, work: &Work<'_>) -> Option<u64> {
        self.settings.handles.number(c_string(work.handle))
    }

    /// A connection as other cores know it, for a message after which `owner` knows of it: that
    /// core hears first where it comes from.
    pub(in crate::shard) fn introduce(&mut self, owner: Core, conn: ConnId) -> ConnKey {
        let key = self.connections.key(conn);
        if self.connections.with_remote(conn, |remote| remote.note_known(owner)) {
            self.outgoing.send(owner, self.introduction(conn));
        }
        key
    }

    /// A connection has set its client id, or there is another access list: the cores that know of
    /// it hear of that.
    pub(in crate::shard) fn introduce_anew(&mut self, conn: ConnId) {
        let known = self.connections[conn].remote().map(RemoteState::known);
        for core in known.into_iter().flat_map(CoreSet::iter) {
            self.outgoing.send(core, self.introduction(conn));
        }
    }

    fn introduction(&self, conn: ConnId) -> Message {
        let connection = &self.connections[conn];
        Message::Introduced {
            key: self.connections.key(conn),
            peer: connection.origin.peer,
            id: connection.session().client_id().map(Box::from),
            access: self.permissions(conn),
        }
    }

    /// A connection may not run a function of another core any more.
    pub(in crate::shard) fn revoke_at_owner(&mut self, conn: ConnId, function: Box<[u8]>) {
        let owner = self.settings.cores.owner_of(&function);
        if self.connections.with_remote(conn, |remote| remote.unregister(owner, &function)) {
            let key = self.introduce(owner, conn);
            self.outgoing.send(owner, Message::Revoke { key, function });
        }
    }

    fn pass_on(
        &mut self,
        owner: Core,
        conn: ConnId,
        slot: Option<Slot>,
        header: Header,
        body: Payload<'_>,
    ) {
        let body = body.share().unwrap_or_else(|| Bytes::copy_from_slice(body.bytes()));
        let key = self.introduce(owner, conn);
        self.outgoing.send(owner, Message::Request { key, slot, header, body });
    }
}

/// Messages of owners.
impl Shard {
    /// Handles a message that comes back to a connection's home.
    pub(in crate::shard) fn receive_at_home(&mut self, from: Core, message: Message, now: Now) {
        if let Message::Answer { fan_out, answer } = message {
            return self.add_answer(fan_out, answer, now);
        }
        // A connection that has gone meanwhile has told the owner so.
        let Some(conn) = message.key().and_then(|key| self.find_key(key)) else { return };
        match message {
            Message::Reply { slot, packets, .. } => {
                self.fill(conn, |outbox| outbox.fill_with(slot, packets));
            }
            Message::Push { packets, .. } => self.push_batch(conn, packets, now),
            Message::Forward { command, body, .. } => {
                self.receive_forward(conn, command, &body, now);
            }
            Message::Assigned { packets, ready, .. } => {
                self.push_batch(conn, packets, now);
                self.note_answer(conn, from, ready, true);
            }
            Message::Empty { ready, .. } => {
                self.note_answer(conn, from, ready, false);
                self.ask_next(conn, now);
            }
            Message::CancelNotice { number, .. } => self.notify_cancelled(conn, number, now),
            Message::Late { number, .. } => self.note_late(conn, number, now),
            Message::Hint { ready, .. } => {
                self.connections.with_remote(conn, |remote| remote.hint(from, ready));
            }
            Message::Noop { ready, .. } => self.receive_noop(conn, from, ready, now),
            Message::MigrationAccepted(_) => self.migration_accepted(conn, from),
            Message::Left(_) => self.left_by(conn, from),
            Message::Rows { rows, next, .. } => self.receive_rows(conn, *rows, next, now),
            other => debug_assert!(false, "{other:?} is for an owner"),
        }
    }

    /// A worker's packet about a job that a client of this core waits for.
    fn receive_forward(&mut self, conn: ConnId, command: Command, body: &Bytes, now: Now) {
        let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let header = Header { magic: Magic::Request, command, body_bytes };
        if let Ok(Request::Work(work)) = Request::parse(header, Payload::shared(body)) {
            self.forward(conn, &work, now);
        }
    }

    fn receive_rows(&mut self, conn: ConnId, rows: Rows, next: Option<Task>, now: Now) {
        let Some(progress) = &mut self.connections[conn].listing else { return };
        progress.asked = false;
        let text = progress.take_in(rows, next);
        self.push_text(conn, text, now);
        self.connections.resume(conn);
    }

    /// The connection a message is about, unless it has gone, or is gone for other cores: an answer
    /// would make itself known to them again, and nothing would make them forget it.
    pub(in crate::shard) fn find_key(&self, key: ConnKey) -> Option<ConnId> {
        let conn = key.conn.at_home();
        let connection = self.connections.get(conn)?;
        let is_open = match connection.closing {
            Closing::No | Closing::Leaving => true,
            Closing::Flushing => !connection.ended,
            Closing::Now => false,
        };
        let is_it = connection.generation == key.generation && connection.is_local();
        (is_it && is_open).then_some(conn)
    }
}
