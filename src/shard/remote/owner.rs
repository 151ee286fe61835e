//! What a core does for connections of other cores about its own jobs: their letters in, replies
//! and effects out as letters.
//!
//! Each such connection has a stand-in here: a connection without bytes of its own, so that the
//! engine knows it as it knows any other. Nothing is decided here that isn't decided for a core's
//! own connections likewise.
//!
//! Invariant: a stand-in lives from the first letter about its connection to its `Gone`.

use bytes::Bytes;

use crate::engine::{ConnId, Now};
use crate::protocol::admin;
use crate::protocol::session::{self, Context, Session};
use crate::shard::cores::Core;
use crate::shard::remote::message::{Answer, Caller, Letter, Question};
use crate::shard::{Connection, Shard};
use crate::wire::outbox::{PacketBatch, Slot};
use crate::wire::{Grab, Header, Payload, Priority, Request};

impl Shard {
    /// Handles a letter of another core.
    pub fn receive_letter(&mut self, from: Core, letter: Letter, now: Now) {
        self.letters.bytes -= letter.bytes().cast_signed();
        match letter {
            Letter::Request { caller, slot, header, body } => {
                self.serve(from, caller, slot, header, &body, now);
            }
            Letter::Grab { caller, grab, least } => self.give(from, caller, grab, least, now),
            Letter::Sleep(caller) => {
                let conn = self.stand_in(from, caller);
                // One that was woken meanwhile has its NOOP on the way.
                if !self.engine.is_woken(conn) {
                    self.engine.pre_sleep(conn);
                    self.deliver(None, now);
                }
            }
            Letter::Declined(caller) => {
                let conn = self.stand_in(from, caller);
                self.engine.end_lease(conn);
                self.deliver(None, now);
            }
            Letter::Gone(conn) => {
                if let Some(conn) = self.callers[from].remove(&conn) {
                    self.engine.disconnect(conn, now);
                    self.unsettle(conn);
                    self.connections.remove(conn as usize);
                    self.deliver(None, now);
                }
            }
            Letter::MoveIn { caller, exceptions } => self.expect(from, caller, exceptions),
            Letter::StayedHome(caller) => self.expect_no_more(from, caller),
            Letter::SettledIn { stand_in, caller, rest } => {
                self.settled_in(from, stand_in, caller, rest);
            }
            Letter::Line { caller, slot, line } => {
                let mut parcel = PacketBatch::default();
                parcel.push_text(&self.answer_line(&line, now));
                self.send_letter(from, Letter::Reply { caller, slot, parcel });
            }
            Letter::List { caller, listing } => {
                let (rows, next) = self.list_rows(listing);
                self.send_letter(from, Letter::Rows { caller, rows: Box::new(rows), next });
            }
            Letter::Ask { gathering, question } => {
                let answer = self.answer_question(&question, now);
                self.send_letter(from, Letter::Answer { gathering, answer });
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
        caller: Caller,
        slot: Option<Slot>,
        header: Header,
        body: &Bytes,
        now: Now,
    ) {
        // It was parsed at home.
        let Ok(request) = Request::parse(header, Payload::shared(body)) else { return };
        let conn = self.stand_in(from, caller);
        let late = self.engine.counters.late;
        let (waits, parcel) = self.with_stand_in(conn, slot, now, |session, cx| {
            // It has arrived and isn't a job's yet: the body counts nowhere.
            cx.memory_left = cx.memory_left.saturating_sub(body.len());
            session.handle(&request, cx);
            cx.slot.is_none()
        });
        if let Some(slot) = slot
            && !waits
        {
            self.send_letter(from, Letter::Reply { caller, slot, parcel });
        }
        let work = if let Request::Work(work) = request { Some(work) } else { None };
        if self.engine.counters.late > late
            && let Some(number) = work.and_then(|work| self.number_of(&work))
        {
            // Its home knows where the worker is.
            self.send_letter(from, Letter::Late { caller, number });
        }
        self.deliver(work, now);
    }

    /// Gives a worker a job, if there is one that is urgent enough.
    fn give(&mut self, from: Core, caller: Caller, grab: Grab, least: Priority, now: Now) {
        let conn = self.stand_in(from, caller);
        let (found, parcel) =
            self.with_stand_in(conn, None, now, |_, cx| session::grab_urgent(grab, least, cx));
        let ready = self.engine.ready(conn).bits();
        let letter = match found {
            true => Letter::Assigned { caller, parcel, ready },
            false => Letter::Empty { caller, ready },
        };
        self.send_letter(from, letter);
        self.deliver(None, now);
    }

    /// Does something in the name of a stand-in; answers with what its connection is sent, too.
    fn with_stand_in<T>(
        &mut self,
        conn: ConnId,
        slot: Option<Slot>,
        now: Now,
        act: impl FnOnce(&mut Session, &mut Context<'_>) -> T,
    ) -> (T, PacketBatch) {
        let room = self.room();
        let Connection { session, outbox, .. } = &mut self.connections[conn as usize];
        let mut cx = Context {
            conn,
            engine: &mut self.engine,
            handles: &self.settings.handles,
            outbox,
            slot,
            memory_left: room,
            now,
        };
        let result = act(session, &mut cx);
        (result, outbox.take_batch())
    }

    /// The stand-in of another core's connection, made if there is none yet.
    pub(in crate::shard) fn stand_in(&mut self, from: Core, caller: Caller) -> ConnId {
        if let Some(&conn) = self.callers[from].get(&caller.conn) {
            debug_assert_eq!(self.connections[conn as usize].caller, Some((from, caller)));
            return conn;
        }
        let id = self.connections.insert(Connection::stand_in(from, caller));
        let conn = ConnId::try_from(id).unwrap_or(ConnId::MAX);
        self.engine.connect(conn);
        self.engine.mark_remote(conn);
        self.callers[from].insert(caller.conn, conn);
        conn
    }
}
