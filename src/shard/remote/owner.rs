//! What a core does for connections of other cores about its own jobs: their messages in, replies
//! and effects out as messages.
//!
//! Each such connection has a proxy here: a connection without bytes of its own, so that the
//! engine knows it as it knows any other. Nothing is decided here that isn't decided for a core's
//! own connections likewise.
//!
//! Invariant: a proxy lives from the first message about its connection to its `Gone`.

use bytes::Bytes;

use crate::engine::{ConnId, Now};
use crate::protocol::admin;
use crate::protocol::session::{self, Context, Session};
use crate::shard::cores::Core;
use crate::shard::remote::message::{Answer, ConnKey, Message, Question};
use crate::shard::{Connection, Shard};
use crate::wire::outbox::{Parcel, Slot};
use crate::wire::{Grab, Header, Payload, Priority, Request};

impl Shard {
    /// Handles a message of another core.
    pub fn receive_message(&mut self, from: Core, message: Message, now: Now) {
        self.messages.bytes -= message.bytes().cast_signed();
        match message {
            Message::Request { key, slot, header, body } => {
                self.serve(from, key, slot, header, &body, now);
            }
            Message::Grab { key, grab, least } => self.give(from, key, grab, least, now),
            Message::Sleep(key) => {
                let conn = self.proxy(from, key);
                // One that was woken meanwhile has its NOOP on the way.
                if !self.engine.is_woken(conn) {
                    self.engine.pre_sleep(conn);
                    self.deliver(None, now);
                }
            }
            Message::Declined(key) => {
                let conn = self.proxy(from, key);
                self.engine.decline(conn);
                self.deliver(None, now);
            }
            Message::Gone(conn) => {
                if let Some(conn) = self.proxies[from].remove(&conn) {
                    self.engine.disconnect(conn, now);
                    self.unsettle(conn);
                    self.connections.remove(conn as usize);
                    self.deliver(None, now);
                }
            }
            Message::MigrationRequested { key, exceptions } => self.expect(from, key, exceptions),
            Message::MigrationCancelled(key) => self.expect_no_more(from, key),
            Message::Offloaded { proxy, key, rest } => {
                self.settled_in(from, proxy, key, rest);
            }
            Message::Line { key, slot, line } => {
                let mut parcel = Parcel::default();
                parcel.push_text(&self.answer_line(&line, now));
                self.send_message(from, Message::Reply { key, slot, parcel });
            }
            Message::List { key, listing } => {
                let (rows, next) = self.list_rows(listing);
                self.send_message(from, Message::Rows { key, rows: Box::new(rows), next });
            }
            Message::Ask { fan_out, question } => {
                let answer = self.answer_question(&question, now);
                self.send_message(from, Message::Answer { fan_out, answer });
            }
            other => self.receive_at_home(from, other, now),
        }
        // What a core declines of its own is seen to last.
        self.deliver(None, now);
    }

    /// What this core has to say to a question that all are asked.
    pub(in crate::shard) fn answer_question(&mut self, question: &Question, now: Now) -> Answer {
        match question {
            Question::StatusUnique(unique) => {
                Answer::Status(session::find_unique(unique, &self.engine))
            }
            Question::Line(line) => Answer::Text(self.answer_line(line, now)),
        }
    }

    fn answer_line(&mut self, line: &[u8], now: Now) -> Vec<u8> {
        let mut text = Vec::new();
        let room = self.registry_room();
        let (handles, identity) = (&self.settings.handles, &self.settings.identity);
        // Lines that close a connection close it at home.
        let _ = admin::answer(line, &mut self.engine, handles, identity, room, &mut text);
        self.deliver(None, now);
        text
    }

    /// Handles a packet as if its connection were here.
    fn serve(
        &mut self,
        from: Core,
        key: ConnKey,
        slot: Option<Slot>,
        header: Header,
        body: &Bytes,
        now: Now,
    ) {
        // It was parsed at home.
        let Ok(request) = Request::parse(header, Payload::shared(body)) else { return };
        let conn = self.proxy(from, key);
        let late = self.engine.counters.late;
        let (waits, parcel) = self.with_proxy(conn, slot, now, |session, cx| {
            // It has arrived and isn't a job's yet: the body counts nowhere.
            cx.room = cx.room.saturating_sub(body.len());
            session.handle(&request, cx);
            cx.slot.is_none()
        });
        if let Some(slot) = slot
            && !waits
        {
            self.send_message(from, Message::Reply { key, slot, parcel });
        }
        let work = if let Request::Work(work) = request { Some(work) } else { None };
        if self.engine.counters.late > late
            && let Some(number) = work.and_then(|work| self.number_of(&work))
        {
            // Its home knows where the worker is.
            self.send_message(from, Message::Late { key, number });
        }
        self.deliver(work, now);
    }

    /// Gives a worker a job, if there is one that is urgent enough.
    fn give(&mut self, from: Core, key: ConnKey, grab: Grab, least: Priority, now: Now) {
        let conn = self.proxy(from, key);
        let (found, parcel) =
            self.with_proxy(conn, None, now, |_, cx| session::grab_urgent(grab, least, cx));
        let ready = self.engine.ready(conn);
        let message = match found {
            true => Message::Assigned { key, parcel, ready },
            false => Message::Empty { key, ready },
        };
        self.send_message(from, message);
        self.deliver(None, now);
    }

    /// Does something in the name of a proxy; answers with what its connection is sent, too.
    fn with_proxy<T>(
        &mut self,
        conn: ConnId,
        slot: Option<Slot>,
        now: Now,
        act: impl FnOnce(&mut Session, &mut Context<'_>) -> T,
    ) -> (T, Parcel) {
        let room = self.room();
        let Connection { session, outbox, .. } = &mut self.connections[conn as usize];
        let mut cx = Context {
            conn,
            engine: &mut self.engine,
            handles: &self.settings.handles,
            outbox,
            slot,
            room,
            now,
        };
        let result = act(session, &mut cx);
        (result, outbox.take_parcel())
    }

    /// The proxy of another core's connection, made if there is none yet.
    pub(in crate::shard) fn proxy(&mut self, from: Core, key: ConnKey) -> ConnId {
        if let Some(&conn) = self.proxies[from].get(&key.conn) {
            debug_assert_eq!(self.connections[conn as usize].key, Some((from, key)));
            return conn;
        }
        let id = self.connections.insert(Connection::proxy(from, key));
        let conn = ConnId::try_from(id).unwrap_or(ConnId::MAX);
        self.engine.connect(conn);
        self.engine.mark_remote(conn);
        self.proxies[from].insert(key.conn, conn);
        conn
    }
}
