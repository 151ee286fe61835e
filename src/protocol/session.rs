//! One connection's protocol state: its requests in, engine commands and its own replies out.
//!
//! Maps each request to a command of the engine. Knows no socket and no other connection: packets
//! for others are effects of the engine, which the shard delivers. Replies go to the outbox in the
//! order of the requests, as libgearman matches them by order; a reply that isn't known yet holds a
//! slot there.
//!
//! Invariant: a request has the replies of the protocol, one or none, and never closes the
//! connection; a packet that can't be parsed is no `Request`.

use crate::engine::handle::Handles;
use crate::engine::{
    ConnId, Engine, NotRunning, Now, Outcome, Status, SubmitError, UNIQUE_BYTES_MAX,
};
use crate::wire::inbound::Refusal;
use crate::wire::outbox::{Outbox, Slot};
use crate::wire::text::{c_string, decimal, has_overflow};
use crate::wire::{
    Command, ErrorReply, Grab, PacketError, Payload, Priority, Request, Response, Submit, Work,
};

/// Longest client id; longer ones are cut, as gearmand does.
const CLIENT_ID_BYTES_MAX: usize = 127;

/// Shortest handle in WORK_FAIL that is refused as too large, as gearmand does.
const WORK_FAIL_HANDLE_BYTES: usize = 64;

/// Shortest timeout of CAN_DO_TIMEOUT; shorter ones are raised to it, as gearmand does.
const TIMEOUT_MS_MIN: u32 = 1000;

/// Option of OPTION_REQ; see `SessionOptions::exceptions`.
const OPTION_EXCEPTIONS: &[u8] = b"exceptions";
/// Option of OPTION_REQ; see `SessionOptions::cancel_notice`.
const OPTION_CANCEL_NOTICE: &[u8] = b"cancel-notice";

/// What a session needs to handle a request.
#[derive(Debug)]
pub struct Context<'a> {
    /// The session's connection.
    pub conn: ConnId,
    /// The queues.
    pub engine: &'a mut Engine,
    /// Converts job numbers to handles and back.
    pub handles: &'a Handles,
    /// Output for the session's replies.
    pub outbox: &'a mut Outbox,
    /// The slot for the request's reply, if another core has the connection.
    pub slot: Option<Slot>,
    /// Bytes that may still be allocated.
    pub memory_left: usize,
    /// The time.
    pub now: Now,
    /// Whether a submission may be refused because the server is to end.
    pub may_decline: bool,
    /// The error that the request was answered with.
    pub refusal: Option<ErrorReply>,
}

/// What a connection has asked for by OPTION_REQ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// It receives WORK_EXCEPTION, instead of WORK_FAIL.
    pub exceptions: bool,
    /// It receives WORK_FAIL when a job that it runs is cancelled or exceeds its timeout.
    pub cancel_notice: bool,
}

/// The protocol state of a connection.
#[derive(Clone, Debug)]
pub struct Session {
    id: Option<Box<[u8]>>,
    since_s: u32,
    options: SessionOptions,
    /// The job of the last request, if that was WORK_EXCEPTION; otherwise 0.
    excepted: u64,
}

impl Session {
    /// The session of a new connection, with the option `exceptions` set or not.
    #[must_use]
    pub fn new(exceptions: bool, now: Now) -> Self {
        let since_s = u32::try_from(now.unix_ms / 1000).unwrap_or(u32::MAX);
        let options = SessionOptions { exceptions, ..SessionOptions::default() };
        Self { id: None, since_s, options, excepted: 0 }
    }

    /// The session of a connection at another core: what that core has told of it.
    #[must_use]
    pub fn of_proxy(id: Option<Box<[u8]>>, options: SessionOptions) -> Self {
        Self { id, since_s: 0, options, excepted: 0 }
    }

    /// The client id, `-` if none was set.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        self.client_id().unwrap_or(b"-")
    }

    /// The client id, if one was set.
    #[must_use]
    pub fn client_id(&self) -> Option<&[u8]> {
        self.id.as_deref()
    }

    /// When the connection came, in seconds since 1970; 0 for the proxy of another core's.
    #[must_use]
    pub fn since_s(&self) -> u32 {
        self.since_s
    }

    /// What the connection has asked for.
    #[must_use]
    pub fn options(&self) -> SessionOptions {
        self.options
    }

    /// Notes a request before it is handled. Returns whether it says once more what the request
    /// before it said, and is to be ignored: Perl's worker sends WORK_FAIL behind WORK_EXCEPTION,
    /// and ends if it gets an error for it.
    #[inline]
    pub fn repeats_failure(&mut self, request: &Request<'_>, handles: &Handles) -> bool {
        let before = std::mem::take(&mut self.excepted);
        match request {
            Request::Work(work) if work.command == Command::WorkException => {
                self.excepted = handles.number(c_string(work.handle)).unwrap_or(0);
                false
            }
            Request::Work(work) if before != 0 && work.command == Command::WorkFail => {
                handles.number(c_string(work.handle)) == Some(before)
            }
            _ => false,
        }
    }

    /// Handles a request.
    #[inline]
    pub fn handle(&mut self, request: &Request<'_>, cx: &mut Context<'_>) {
        match *request {
            Request::Submit(ref submit) => handle_submit(submit, cx),
            Request::GrabJob(grab) => handle_grab(grab, cx),
            Request::Work(ref work) => handle_work(work, cx),
            Request::PreSleep => cx.engine.pre_sleep(cx.conn),
            Request::CanDo { function } => cx.engine.can_do(cx.conn, function, 0),
            Request::CanDoTimeout { function, timeout_ms } => {
                let timeout_ms = match decimal(timeout_ms) {
                    ..=0 => 0,
                    ms => u32::try_from(ms).unwrap_or(u32::MAX).max(TIMEOUT_MS_MIN),
                };
                cx.engine.can_do(cx.conn, function, timeout_ms);
            }
            Request::CantDo { function } => cx.engine.cant_do(cx.conn, function, cx.now),
            Request::ResetAbilities => cx.engine.reset_abilities(cx.conn, cx.now),
            Request::GetStatus { handle } => handle_get_status(handle, cx),
            Request::GetStatusUnique { unique } => handle_get_status_unique(unique, cx),
            Request::Echo { payload } => cx.outbox.push(&Response::EchoRes { payload }),
            Request::SetClientId { id } => {
                self.id = Some(id.get(..CLIENT_ID_BYTES_MAX).unwrap_or(id).into());
            }
            Request::Option { name } => {
                let is = |option| c_string(name).eq_ignore_ascii_case(option);
                if is(OPTION_EXCEPTIONS) {
                    self.options.exceptions = true;
                } else if is(OPTION_CANCEL_NOTICE) {
                    self.options.cancel_notice = true;
                } else {
                    return refuse(cx, ErrorReply::UnknownOption);
                }
                cx.outbox.push(&Response::OptionRes { name });
            }
        }
    }

    /// Answers a packet that isn't a request; `false` if the connection must be closed.
    pub fn handle_bad_packet(&mut self, error: PacketError, outbox: &mut Outbox) -> bool {
        self.excepted = 0;
        let reply = match error {
            PacketError::ResponseMagic => ErrorReply::RequestMagicExpected,
            PacketError::NotARequest(_) => ErrorReply::CommandNotExpected,
            PacketError::MissingArgument(_) => return false,
        };
        outbox.push(&Response::Error(reply));
        true
    }

    /// Answers a packet whose body is refused; `head` is the start of the body. A result that can't
    /// be forwarded fails its job, as its clients would else wait for ever: returns the WORK_FAIL
    /// to forward instead.
    pub fn handle_refused<'a>(
        &mut self,
        command: Command,
        head: &'a [u8],
        why: Refusal,
        cx: &mut Context<'_>,
    ) -> Option<Work<'a>> {
        self.excepted = 0;
        refuse(
            cx,
            match why {
                Refusal::TooLarge => ErrorReply::PayloadTooLarge,
                Refusal::OutOfMemory => ErrorReply::OutOfMemory,
            },
        );
        if !matches!(command, Command::WorkComplete | Command::WorkException) {
            return None;
        }
        let handle = c_string(head);
        let number = cx.handles.number(handle)?;
        cx.engine.work_failed(cx.conn, number, Outcome::Fail, &[], cx.now).ok()?;
        let (command, body) = (Command::WorkFail, Payload::borrowed(handle));
        Some(Work { command, handle, numerator: &[], denominator: &[], body })
    }
}

fn fail(
    cx: &mut Context<'_>,
    number: u64,
    outcome: Outcome,
    message: &[u8],
) -> Result<(), NotRunning> {
    cx.engine.work_failed(cx.conn, number, outcome, message, cx.now)
}

fn handle_submit(submit: &Submit<'_>, cx: &mut Context<'_>) {
    if cx.may_decline && cx.engine.declines(submit) {
        return refuse(cx, ErrorReply::Draining);
    }
    if submit.unique.len() > UNIQUE_BYTES_MAX || submit.reducer.len() > UNIQUE_BYTES_MAX {
        return refuse(cx, ErrorReply::UniqueTooLarge);
    }
    let run_at_s = match submit.epoch {
        None => 0,
        Some(text) if has_overflow(text) => return refuse(cx, ErrorReply::NumberOutOfRange),
        Some(text) => u64::try_from(decimal(text)).unwrap_or(0),
    };
    match cx.engine.submit(cx.conn, submit, run_at_s, cx.memory_left, cx.now) {
        Ok(accepted) => {
            let handle = cx.handles.text(accepted.number);
            if accepted.waits {
                // If another core has the connection, it has reserved the slot.
                let slot = cx.slot.take().unwrap_or_else(|| cx.outbox.hold());
                cx.engine.await_store(cx.conn, accepted.job, slot);
            } else {
                cx.outbox.push(&Response::JobCreated { handle: handle.as_ref() });
            }
        }
        Err(SubmitError::QueueFull) => refuse(cx, ErrorReply::QueueFull),
        Err(SubmitError::OutOfMemory) => refuse(cx, ErrorReply::OutOfMemory),
        Err(SubmitError::OutOfNumbers) => refuse(cx, ErrorReply::NotStored),
    }
}

fn handle_grab(grab: Grab, cx: &mut Context<'_>) {
    if !grab_urgent(grab, Priority::Low, cx) {
        cx.outbox.push(&Response::NoJob);
    }
}

/// Assigns a job of at least this priority to a worker; `false` if there is none.
pub fn grab_urgent(grab: Grab, least: Priority, cx: &mut Context<'_>) -> bool {
    let Some(id) = cx.engine.grab(cx.conn, least, cx.now) else { return false };
    let job = &cx.engine.jobs()[id];
    cx.outbox.push(&Response::JobAssign {
        grab,
        handle: cx.handles.text(job.number).as_ref(),
        function: &cx.engine.function_of(job).name,
        unique: job.unique(),
        reducer: job.reducer(),
        payload: job.payload(),
    });
    true
}

fn handle_work(work: &Work<'_>, cx: &mut Context<'_>) {
    if work.command == Command::WorkFail && work.handle.len() >= WORK_FAIL_HANDLE_BYTES {
        return refuse(cx, ErrorReply::HandleTooLarge);
    }
    // WORK_FAIL's handle is the whole body, and some workers end it with a NUL.
    let number = cx.handles.number(c_string(work.handle)).ok_or(NotRunning);
    let done = number.and_then(|number| match work.command {
        Command::WorkData | Command::WorkWarning => cx.engine.work_data(cx.conn, number, cx.now),
        Command::WorkStatus => {
            let status = (progress(work.numerator), progress(work.denominator));
            cx.engine.work_status(cx.conn, number, status, cx.now)
        }
        Command::WorkComplete => cx.engine.work_complete(cx.conn, number, cx.now),
        Command::WorkException => {
            let message = work.body.bytes().get(work.handle.len() + 1..).unwrap_or_default();
            fail(cx, number, Outcome::Exception, message)
        }
        _ => fail(cx, number, Outcome::Fail, &[]),
    });
    if done.is_err() {
        refuse(
            cx,
            match work.command {
                Command::WorkData | Command::WorkWarning => ErrorReply::NoSuchJob,
                Command::WorkException => ErrorReply::NoSuchJobForException,
                _ => ErrorReply::NoSuchJobForResult,
            },
        );
    }
}

fn handle_get_status(handle: &[u8], cx: &mut Context<'_>) {
    let found = cx.handles.number(c_string(handle)).and_then(|number| cx.engine.status(number));
    cx.outbox.push(&status(handle, found));
}

/// The reply to GET_STATUS.
#[must_use]
pub fn status(handle: &[u8], found: Option<Status>) -> Response<'_> {
    let known = found.is_some();
    let Status { running, numerator, denominator, .. } = found.unwrap_or_default();
    Response::StatusRes { handle: c_string(handle), known, running, numerator, denominator }
}

fn handle_get_status_unique(unique: &[u8], cx: &mut Context<'_>) {
    let found = find_unique(unique, cx.engine, |_| true);
    cx.outbox.push(&status_unique(unique, found));
}

/// Number and state of the latest job with a unique key, of functions for which `counts` holds.
#[must_use]
pub fn find_unique(
    unique: &[u8],
    engine: &Engine,
    counts: impl Fn(&[u8]) -> bool,
) -> Option<(u64, Status)> {
    let unique = c_string(unique);
    // The empty key means that a job has none.
    if unique.is_empty() { None } else { engine.status_unique(unique, counts) }
}

/// The reply to GET_STATUS_UNIQUE.
#[must_use]
pub fn status_unique(unique: &[u8], found: Option<(u64, Status)>) -> Response<'_> {
    let status = found.map(|(_, status)| status);
    let known = status.is_some();
    let status = status.unwrap_or_default();
    Response::StatusResUnique {
        unique: c_string(unique),
        known,
        running: status.running,
        numerator: status.numerator,
        denominator: status.denominator,
        clients: status.clients,
    }
}

fn refuse(cx: &mut Context<'_>, error: ErrorReply) {
    cx.refusal = Some(error);
    cx.outbox.push(&Response::Error(error));
}

/// A progress number, saturated to 32 bits.
fn progress(text: &[u8]) -> u32 {
    u32::try_from(decimal(text).max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (text, number) in [
            ("", 0),
            ("12", 12),
            (" 12x", 12),
            ("-7", -7),
            ("+7", 7),
            ("x", 0),
            ("9223372036854775808", i64::MAX),
            ("-99999999999999999999", i64::MIN),
        ] {
            assert_eq!(decimal(text.as_bytes()), number, "{text:?}");
        }
        assert!(has_overflow(b"9223372036854775808") && !has_overflow(b"1700000000"));
        assert_eq!(progress(b"-3"), 0);
        assert_eq!(progress(b"4294967296"), u32::MAX);
    }

    #[test]
    fn text_ends_at_its_first_nul() {
        assert_eq!(c_string(b"H:a:1\0\0x"), b"H:a:1");
        assert_eq!(c_string(b"H:a:1"), b"H:a:1");
    }
}
