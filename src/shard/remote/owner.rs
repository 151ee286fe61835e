//! What a core does for connections of other cores about its own jobs: their messages in, replies
//! and effects out as messages.
//!
//! Each such connection has a proxy here: a connection without bytes of its own, so that the
//! engine knows it as it knows any other. Requests were authorised where they came in; nothing is
//! decided here that isn't decided for a core's own connections likewise.
//!
//! Invariant: a proxy lives from the first message about its connection to its `Gone`.

use bytes::Bytes;

use crate::engine::{ConnId, Now};
use crate::protocol::access::Permissions;
use crate::protocol::admin;
use crate::protocol::session::{self, Context, Session};
use crate::shard::Shard;
use crate::shard::connections::Access;
use crate::shard::connections::Connection;
use crate::shard::cores::Core;
use crate::shard::remote::message::{Answer, ConnKey, Message, Question};
use crate::wire::outbox::{PacketBatch, Slot};
use crate::wire::{Grab, Header, Payload, Priority, Request};

impl Shard {
    /// Handles a message of another core.
    pub fn receive_message(&mut self, from: Core, message: Message, now: Now) {
        self.outgoing.count_received(&message);
        self.counters.messages += 1;
        match message {
            Message::Introduced { key, peer, id, access } => {
                let conn = self.proxy(from, key);
                self.connections[conn].origin.peer = peer;
                self.connections.set_access(conn, access.map(Access::new));
                let options = self.connections[conn].session().options();
                self.connections.replace_session(conn, Session::of_proxy(id, options));
            }
            Message::Request { key, slot, header, body } => {
                self.serve(from, key, slot, header, &body, now);
            }
            Message::Grab { key, grab, least } => self.give(from, key, grab, least, now),
            Message::Sleep(key) => {
                let conn = self.proxy(from, key);
                // A worker that was woken meanwhile has its NOOP on the way.
                if !self.engine.is_woken(conn) {
                    self.engine.pre_sleep(conn);
                    self.deliver(None, now);
                }
            }
            Message::Declined(key) => {
                let conn = self.proxy(from, key);
                self.engine.end_lease(conn);
                self.deliver(None, now);
            }
            Message::Gone(conn) => {
                if let Some(conn) = self.proxies[from].remove(&conn) {
                    self.forget_leaver(conn);
                    self.engine.disconnect(conn, now);
                    // While the log and dead letters can still name it.
                    self.log_jobs(now);
                    self.name_dead(conn);
                    self.connections.remove(conn);
                    self.deliver(None, now);
                }
            }
            Message::MigrationRequested { key, options } => {
                self.expect_migration(from, key, options);
            }
            Message::MigrationCancelled(key) => self.forget_migration(from, key),
            Message::Offloaded { proxy, key, rest, access } => {
                self.connections.set_access(proxy, access.map(Access::new));
                self.find_home(from, proxy, key, rest);
            }
            Message::Leaving(key) => self.proxy_leaves(from, key),
            Message::Revoke { key, function } => {
                let conn = self.proxy(from, key);
                self.engine.revoke(conn, &function);
            }
            Message::Refused { function, why } => self.engine.refuse(&function, why),
            Message::TrimDead => self.engine.trim_dead(),
            Message::Policies(policies) => self.engine.use_policies(policies, now),
            Message::Access(list) => self.use_access_list(list, now),
            Message::Tls(server) => self.use_tls(server),
            Message::Line { key, slot, line } => {
                let mut packets = PacketBatch::default();
                let conn = self.proxy(from, key);
                packets.push_text(&match self.may_name_job(conn, &line, now) {
                    // Lines about one function were decided about at home.
                    Ok(()) => match self.refusal_of_elsewhere(&line) {
                        None => self.answer_line(&line, None, now),
                        Some(refusal) => refusal,
                    },
                    Err(refusal) => refusal,
                });
                self.outgoing.send(from, Message::Reply { key, slot, packets });
            }
            Message::Task { key, task, names, access } => {
                let (rows, next) = self.do_some(task, names.as_deref(), access.as_ref(), now);
                self.outgoing.send(from, Message::Rows { key, rows: Box::new(rows), next });
            }
            Message::Operator { ticket, request } => {
                let reply = Box::new(self.answer_operator(*request, now));
                self.outgoing.send(from, Message::OperatorReply { ticket, reply });
            }
            Message::Ask { fan_out, question } => {
                let answer = self.answer_question(&question, now);
                self.outgoing.send(from, Message::Answer { fan_out, answer });
            }
            other => self.receive_at_home(from, other, now),
        }
        // Wake-ups that this core declined for its own workers are ended last.
        self.deliver(None, now);
    }

    /// This core's part of the answer to a question to all cores.
    pub(in crate::shard) fn answer_question(&mut self, question: &Question, now: Now) -> Answer {
        match question {
            Question::StatusUnique { unique, access } => {
                let counts = |function: &[u8]| {
                    access.as_ref().is_none_or(|it| it.status_verdict(function).is_allowed)
                };
                Answer::Status(session::find_unique(unique, &self.engine, counts))
            }
            Question::Line { line, access } => {
                Answer::Text(self.answer_line(line, access.as_deref(), now))
            }
            Question::Stats => Answer::Stats(Box::new(self.stats_with_oldest())),
            Question::Access => Answer::Hits(Box::new(self.hits.clone())),
            Question::Refusals => Answer::Refusals(self.denials.latest()),
        }
    }

    fn answer_line(&mut self, line: &[u8], access: Option<&Permissions>, now: Now) -> Vec<u8> {
        let mut text = Vec::new();
        let memory_left = self.registry_memory_left();
        let Self { engine, settings, .. } = self;
        let (handles, identity) = (&settings.handles, &settings.identity);
        let cluster = settings.cluster.as_deref();
        let mut cx =
            admin::Context { engine, handles, identity, cluster, memory_left, access, now };
        // Lines that close a connection close it at home, and what goes on core by core goes on
        // there.
        let _ = admin::answer(line, &mut cx, &mut text);
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
        if let Request::GetStatus { handle } = request
            && !self.may_ask_status(conn, handle, now)
        {
            let mut packets = PacketBatch::default();
            packets.push(&session::status(handle, None));
            let reply = |slot| Message::Reply { key, slot, packets };
            return slot.map(reply).into_iter().for_each(|it| self.outgoing.send(from, it));
        }
        if let Request::GetStatus { handle } = request
            && let Some(slot) = slot
            && self.looks_up_for((from, key, slot), handle, now)
        {
            return;
        }
        let late = self.engine.counters.late;
        let joined = self.joined_by_http(from, &request);
        let is_http = from == self.settings.cores.http();
        let has_decided = self.settings.has_other_servers && !is_http;
        let (waits, packets) = self.with_proxy(conn, slot, now, |session, cx| {
            // It has arrived and isn't a job's yet: the body counts nowhere.
            cx.memory_left = cx.memory_left.saturating_sub(body.len());
            // Its home has decided that already, unless it is the HTTP thread.
            cx.may_decline = !has_decided;
            session.handle(&request, cx);
            cx.slot.is_none()
        });
        if self.joined_by_http(from, &request) > joined {
            self.outgoing.send(from, Message::Joined(key));
        }
        if let Some(slot) = slot
            && !waits
        {
            self.outgoing.send(from, Message::Reply { key, slot, packets });
        }
        let work = if let Request::Work(work) = &request { Some(work) } else { None };
        if self.engine.counters.late > late
            && let Some(number) = work.and_then(|work| self.number_of(work))
        {
            // Its home knows where the worker is.
            self.outgoing.send(from, Message::Late { key, number });
        }
        self.deliver(work, now);
    }

    /// How many submissions joined a job of the function that the HTTP thread submits one of;
    /// `None` for all other requests, which don't ask.
    fn joined_by_http(&self, from: Core, request: &Request<'_>) -> Option<u64> {
        match request {
            Request::Submit(submit) if from == self.settings.cores.http() => {
                Some(self.engine.joined(submit.function))
            }
            _ => None,
        }
    }

    /// Gives a worker a job, if a queue has a job that is urgent enough.
    fn give(&mut self, from: Core, key: ConnKey, grab: Grab, least: Priority, now: Now) {
        let conn = self.proxy(from, key);
        let (found, packets) =
            self.with_proxy(conn, None, now, |_, cx| session::grab_urgent(grab, least, cx));
        let ready = self.engine.ready(conn);
        let message = match found {
            true => Message::Assigned { key, packets, ready },
            false => Message::Empty { key, ready },
        };
        self.outgoing.send(from, message);
        self.deliver(None, now);
    }

    /// Does something in the name of a proxy. Returns what its connection is sent, too.
    fn with_proxy<T>(
        &mut self,
        conn: ConnId,
        slot: Option<Slot>,
        now: Now,
        act: impl FnOnce(&mut Session, &mut Context<'_>) -> T,
    ) -> (T, PacketBatch) {
        let memory_left = self.memory_left();
        self.with_context(conn, slot, memory_left, now, |session, cx| {
            (act(session, cx), cx.outbox.take_batch())
        })
    }

    /// The proxy of another core's connection, made if there is none yet.
    pub(in crate::shard) fn proxy(&mut self, from: Core, key: ConnKey) -> ConnId {
        if let Some(&conn) = self.proxies[from].get(&key.conn) {
            debug_assert_eq!(self.connections[conn].proxy_for, Some((from, key)));
            return conn;
        }
        let conn = self.connections.insert(Connection::proxy(from, key));
        self.engine.connect(conn);
        self.engine.mark_remote(conn);
        self.proxies[from].insert(key.conn, conn);
        conn
    }
}
