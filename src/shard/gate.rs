//! The gate: each packet and each text line of a connection of this core is parsed, authorised and
//! routed here, to this core or to others.
//!
//! Whole frames in; what they cause is in outboxes, messages and operations. Proxies don't come
//! by: what they ask for came through the gate of another core.
//!
//! Invariant: nothing reaches a session, the engine or another core that `access` hasn't allowed,
//! but results of jobs that a connection runs.

use tracing::{Level, enabled, info};

use super::Shard;
use super::job_log::PEERS;
use super::listing::progress::Progress;
use super::packet_log::{log_line, log_received};
use super::refusals::Kind;
use super::remote::message::Question;
use super::route::{Route, Router};
use crate::engine::{ConnId, Now, numbers};
use crate::protocol::admin::{self, Answer};
use crate::wire::inbound::{Arrival, Refusal};
use crate::wire::text::c_string;
use crate::wire::{Command, Header, PacketError, Payload, Request};

/// Whether a text line is the first one of an HTTP request.
fn is_http(line: &[u8]) -> bool {
    matches!(line.last_chunk::<9>(), Some(b" HTTP/1.1" | b" HTTP/1.0" | b" HTTP/2.0"))
}

impl Shard {
    /// Handles one frame of a connection. `memory_left` are the bytes that may be allocated.
    #[inline(always)]
    pub(super) fn handle_arrival(
        &mut self,
        conn: ConnId,
        arrival: Arrival<'_>,
        memory_left: usize,
        now: Now,
    ) {
        match arrival {
            Arrival::Packet { header, body } => {
                self.counters.packets[header.command] += 1;
                self.handle_packet(conn, header, body, memory_left, now);
            }
            Arrival::Line(line) => {
                self.counters.lines += 1;
                self.handle_line(conn, line, now);
            }
            Arrival::Refused { header, head, why } => {
                self.counters.packets_refused += 1;
                self.handle_refused(conn, header.command, head, why, now);
            }
        }
    }

    /// A packet. Not inlined into the loop over frames, which would prepare all that any packet may
    /// need.
    #[inline(never)]
    fn handle_packet(
        &mut self,
        conn: ConnId,
        header: Header,
        body: Payload<'_>,
        memory_left: usize,
        now: Now,
    ) {
        log_received(conn, header, body.bytes());
        let parsed = parse(header, body);
        let request = match &parsed {
            Ok(request) => request,
            Err(error) => return self.handle_bad_packet(conn, *error, now),
        };
        if self.connections[conn].repeats_failure(request, &self.settings.handles)
            || !self.may_request(conn, request, now)
        {
            return;
        }
        if let Request::Submit(submit) = request
            && self.leaves_to_others(conn, submit)
        {
            return;
        }
        if let Request::CanDo { function }
        | Request::CanDoTimeout { function, .. }
        | Request::CantDo { function } = request
        {
            if header.command != Command::CantDo && !self.may_register(conn, function) {
                return self.refuse_registration(conn, now);
            }
            self.log_registration(conn, header.command, function);
        }
        if self.settings.cores.count > 1 {
            match self.router(conn).route(request) {
                Route::Here => {}
                route => {
                    self.handle_elsewhere(conn, route, header, body, request, now);
                    return self.check_unread_of(conn, now);
                }
            }
        }
        if let Request::GetStatus { handle } = request
            && self.looks_up(conn, handle, now)
        {
            return;
        }
        self.handle_here(conn, request, memory_left, now);
        if header.command == Command::SetClientId {
            self.introduce_anew(conn);
        }
    }

    #[cold]
    fn handle_bad_packet(&mut self, conn: ConnId, error: PacketError, now: Now) {
        let (is_usable, bytes) = self
            .connections
            .with_session(conn, |session, outbox| session.handle_bad_packet(error, outbox));
        self.check_outbox(conn, bytes, now);
        if !is_usable {
            self.close_malformed(conn, &error, now);
        }
    }

    #[inline]
    fn router(&self, conn: ConnId) -> Router<'_> {
        Router {
            cores: self.settings.cores,
            handles: &self.settings.handles,
            is_draining: self.engine.is_draining() && !self.settings.has_other_servers,
            is_multi_core: self.connections[conn].is_multi_core(),
        }
    }

    #[inline(always)]
    fn handle_here(&mut self, conn: ConnId, request: &Request<'_>, memory_left: usize, now: Now) {
        let late = self.engine.counters.late;
        self.with_context(conn, None, memory_left, now, |session, cx| session.handle(request, cx));
        if self.settings.cores.count > 1
            && let Request::Submit(_) = request
        {
            self.count_submission(conn, self.settings.cores.own);
        }
        let work = if let Request::Work(work) = request { Some(work) } else { None };
        if self.engine.counters.late > late
            && let Some(number) = work.and_then(|work| self.number_of(work))
        {
            self.note_late(conn, number, now);
        }
        self.deliver(work, now);
    }

    /// Has other cores handle a request, or their part of it.
    fn handle_elsewhere(
        &mut self,
        conn: ConnId,
        route: Route,
        header: Header,
        body: Payload<'_>,
        request: &Request<'_>,
        now: Now,
    ) {
        match (*request, route) {
            (Request::Submit(_), Route::Owner(owner)) => {
                self.ask(owner, conn, header, body);
                self.count_submission(conn, owner);
            }
            (
                Request::CanDo { function } | Request::CanDoTimeout { function, .. },
                Route::Owner(owner),
            ) => {
                self.register_at(owner, conn, function, (header, body));
            }
            (Request::CantDo { function }, Route::Owner(owner)) => {
                self.unregister_at(owner, conn, function, (header, body));
            }
            (Request::Work(_), Route::Owner(owner)) => {
                self.ask(owner, conn, header, body);
                self.connections.with_remote(conn, |remote| remote.note_result(header.command));
            }
            (_, Route::Owner(owner)) => self.ask(owner, conn, header, body),
            (Request::GetStatusUnique { unique }, _) => {
                let access = self.permissions(conn);
                self.ask_all(conn, Question::StatusUnique { unique: unique.into(), access }, now);
            }
            (Request::GrabJob(grab), _) => self.grab_anywhere(conn, grab, now),
            (Request::PreSleep, _) => self.sleep_everywhere(conn, now),
            (Request::ResetAbilities, _) => {
                self.unregister_everywhere(conn, (header, body));
                // Its functions of this core go, too.
                self.handle_here(conn, request, self.memory_left(), now);
            }
            (other, route) => debug_assert!(false, "{other:?} has no part at {route:?}"),
        }
    }

    /// A worker can run a function from now on, or can't any more.
    fn log_registration(&self, conn: ConnId, command: Command, function: &[u8]) {
        if enabled!(target: PEERS, Level::INFO)
            && let Some(peer) = self.peer_name(conn)
        {
            let function = function.escape_ascii();
            info!(target: PEERS, conn = conn.number(), %peer, %function, "{}", command.name());
        }
    }

    /// A line of the text protocol.
    #[inline(never)]
    fn handle_line(&mut self, conn: ConnId, line: &[u8], now: Now) {
        log_line(conn, line);
        if is_http(line) {
            self.count_refusal(Kind::Http, conn, now);
        }
        if !self.may_say(conn, line, now) {
            return;
        }
        match self.router(conn).route_line(line) {
            Route::Owner(owner) => {
                self.ask_line(owner, conn, line);
                self.check_unread_of(conn, now);
            }
            Route::AllCores => {
                let access = self.permissions(conn);
                self.ask_all(conn, Question::Line { line: line.into(), access }, now);
                self.check_unread_of(conn, now);
            }
            Route::Here | Route::WorkersCores => self.handle_line_here(conn, line, now),
        }
    }

    fn handle_line_here(&mut self, conn: ConnId, line: &[u8], now: Now) {
        if let Err(refusal) = self.may_name_job(conn, line, now) {
            return self.push_text(conn, refusal, now);
        }
        if let Some(refusal) = self.refusal_of_elsewhere(line) {
            return self.push_text(conn, refusal, now);
        }
        let mut text = std::mem::take(&mut self.text);
        let access = self.permissions(conn);
        let access = access.as_deref();
        let memory_left = self.registry_memory_left();
        let Self { engine, settings, .. } = self;
        let (handles, identity) = (&settings.handles, &settings.identity);
        let cluster = settings.cluster.as_deref();
        let mut cx =
            admin::Context { engine, handles, identity, cluster, memory_left, access, now };
        match admin::answer(line, &mut cx, &mut text) {
            Ok(answer) => {
                self.push_text(conn, text, now);
                match answer {
                    Answer::Text => self.deliver(None, now),
                    Answer::Task(task, names) => {
                        let progress = Progress::of(task, names);
                        self.connections[conn].listing = Some(Box::new(progress));
                    }
                    Answer::Stats => self.ask_all(conn, Question::Stats, now),
                    Answer::Access => self.ask_all(conn, Question::Access, now),
                    Answer::Refusals => self.ask_all(conn, Question::Refusals, now),
                }
            }
            Err(error) => {
                self.text = text;
                self.close_malformed(conn, &error, now);
            }
        }
    }

    /// A packet whose body is too large, or for which there is no memory: it may fail a job that
    /// its connection runs, which needs no right.
    #[inline(never)]
    fn handle_refused(
        &mut self,
        conn: ConnId,
        command: Command,
        head: &[u8],
        why: Refusal,
        now: Now,
    ) {
        let work = self.with_context(conn, None, 0, now, |session, cx| {
            session.handle_refused(command, head, why, cx)
        });
        self.deliver(work.as_ref(), now);
        if command.is_submission() {
            let why = match why {
                Refusal::TooLarge => numbers::Refused::Size,
                Refusal::OutOfMemory => numbers::Refused::Memory,
            };
            self.count_refused(c_string(head), why);
        }
        let is_result = matches!(command, Command::WorkComplete | Command::WorkException);
        if is_result && work.is_none() && self.settings.cores.count > 1 {
            self.fail_at_owner(conn, c_string(head));
        }
    }
}

/// `Request::parse` as a function of its own: inlined, it would write the fields of all variants
/// for each packet.
#[inline(never)]
fn parse(header: Header, body: Payload<'_>) -> Result<Request<'_>, PacketError> {
    Request::parse(header, body)
}
