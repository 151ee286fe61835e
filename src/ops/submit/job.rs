//! A submitted job: a packet out to the function's core, and what comes back about the job in.
//!
//! Knows the packets and their bodies, and no HTTP but its errors.
//!
//! Invariant: a job that only its `Job` waits for is dropped with it.

use axum::http::StatusCode;
use bytes::Bytes;

use super::body::out_of_memory;
use crate::ops::error::ApiError;
use crate::ops::guard::Caller;
use crate::ops::link::{Client, Closed, Ending, Held, Link};
use crate::shard::remote::message::Message;
use crate::wire::frame::{Cut, cut};
use crate::wire::outbox::PacketBatch;
use crate::wire::{Arguments, Command, ErrorReply, Header, Magic, Priority};

/// What is submitted, but for the payload.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Submission {
    pub(in crate::ops) function: Vec<u8>,
    /// The unique key; empty = none, `-` = the payload.
    pub(in crate::ops) unique: Vec<u8>,
    pub(in crate::ops) priority: Priority,
    pub(in crate::ops) is_background: bool,
    /// Earliest start in seconds since 1970, of a background job of normal priority.
    pub(in crate::ops) run_at: Option<u64>,
}

/// A job that was accepted.
#[derive(Debug)]
pub(in crate::ops) struct Job {
    client: Client,
    /// The handle.
    pub(in crate::ops) handle: String,
    /// Whether an equal job was there.
    pub(in crate::ops) joined: bool,
}

/// What a worker says of a job.
#[derive(Clone, Debug)]
pub(in crate::ops) enum Event {
    /// A part of the result.
    Data(Bytes),
    /// A warning.
    Warning,
    /// The end of the result.
    Complete(Bytes),
    /// It failed.
    Fail,
    /// It failed, with words.
    Exception(Bytes),
}

impl Submission {
    fn command(&self) -> Command {
        use Command as C;
        match (self.run_at, self.priority, self.is_background) {
            (Some(_), ..) => C::SubmitJobEpoch,
            (None, Priority::High, false) => C::SubmitJobHigh,
            (None, Priority::Normal, false) => C::SubmitJob,
            (None, Priority::Low, false) => C::SubmitJobLow,
            (None, Priority::High, true) => C::SubmitJobHighBg,
            (None, Priority::Normal, true) => C::SubmitJobBg,
            (None, Priority::Low, true) => C::SubmitJobLowBg,
        }
    }

    /// The arguments of the packet, with their NULs.
    pub(super) fn arguments(&self) -> Vec<u8> {
        let mut arguments = [&self.function[..], b"\0", &self.unique, b"\0"].concat();
        if let Some(run_at) = self.run_at {
            arguments.extend_from_slice(run_at.to_string().as_bytes());
            arguments.push(0);
        }
        arguments
    }
}

impl Job {
    /// Submits a job: `body` has its arguments and its payload, for which `held` counts until now.
    ///
    /// # Errors
    /// `ApiError` if it is refused.
    pub(super) async fn submit(
        link: &Link,
        caller: &Caller,
        submission: &Submission,
        (body, held): (Bytes, Held),
    ) -> Result<Self, ApiError> {
        let mut client = link.connect(caller.peer, caller.permissions.clone());
        let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let header = Header { magic: Magic::Request, command: submission.command(), body_bytes };
        let owner = link.cores().owner_of(&submission.function);
        let request = Message::Request { key: client.key(), slot: Some(1), header, body };
        client.send(owner, request);
        // The message counts for it from now on.
        drop(held);
        let mut joined = false;
        loop {
            match client.receive().await.map_err(closed)? {
                Message::Joined(_) => joined = true,
                Message::Reply { packets, .. } => {
                    let handle = read_reply(packets)?;
                    return Ok(Self { client, handle, joined });
                }
                _ => {}
            }
        }
    }

    /// What comes next.
    ///
    /// # Errors
    /// `ApiError` if nothing will come any more.
    pub(super) async fn next(&mut self) -> Result<Event, ApiError> {
        loop {
            match self.client.receive().await.map_err(closed)? {
                Message::Forward { command, body, .. } => {
                    if let Some(event) = event(command, &body) {
                        return Ok(event);
                    }
                }
                Message::Push { packets, .. } => {
                    // The server itself says that a job failed.
                    let bytes = Bytes::from(packets.into_bytes());
                    if let Ok(Cut::Packet { header, body }) = cut(&bytes, 0)
                        && let Some(event) = event(header.command, &bytes.slice_ref(body))
                    {
                        return Ok(event);
                    }
                }
                _ => {}
            }
        }
    }

    /// Waits until nothing will come any more.
    pub(super) async fn closed(&mut self) {
        self.client.closed().await;
    }
}

/// The handle in a reply to a submission, or the error.
fn read_reply(packets: PacketBatch) -> Result<String, ApiError> {
    let bytes = packets.into_bytes();
    let Ok(Cut::Packet { header, body }) = cut(&bytes, 0) else { return Err(unclear()) };
    let arguments = Arguments::split(header.command, body).map_err(|_| unclear())?;
    let text = |index| String::from_utf8_lossy(arguments.part(index)).into_owned();
    match header.command {
        Command::JobCreated => Ok(text(0)),
        Command::Error => Err(refused(&text(1))),
        _ => Err(unclear()),
    }
}

fn event(command: Command, body: &Bytes) -> Option<Event> {
    let arguments = Arguments::split(command, body).ok()?;
    let rest = || body.slice(arguments.payload_at().min(body.len())..);
    match command {
        Command::WorkData => Some(Event::Data(rest())),
        Command::WorkWarning => Some(Event::Warning),
        Command::WorkComplete => Some(Event::Complete(rest())),
        Command::WorkFail => Some(Event::Fail),
        Command::WorkException => Some(Event::Exception(rest())),
        _ => None,
    }
}

/// Why a submission was refused, by the text of the packet.
fn refused(text: &str) -> ApiError {
    let is = |error: ErrorReply| error.text() == text;
    let unavailable = |code, remedy| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, text, remedy).retry_after(1)
    };
    if is(ErrorReply::QueueFull) {
        let remedy = "try again when jobs are done, or raise the function's maxqueue";
        let status = StatusCode::TOO_MANY_REQUESTS;
        return ApiError::new(status, "QUEUE_FULL", text, remedy).retry_after(1);
    }
    if is(ErrorReply::OutOfMemory) {
        return out_of_memory();
    }
    if is(ErrorReply::NotStored) {
        return unavailable("NOT_STORED", "try again; the server's log says why");
    }
    if is(ErrorReply::Draining) {
        return unavailable("DRAINING", "use another server, or try again later");
    }
    ApiError::new(StatusCode::BAD_REQUEST, "REFUSED", text, "see docs/http.md for what is allowed")
}

fn unclear() -> ApiError {
    let (status, code) = (StatusCode::INTERNAL_SERVER_ERROR, "NO_REPLY");
    ApiError::new(status, code, "the core gave no reply to the submission", "report this")
}

fn closed(why: Closed) -> ApiError {
    match why {
        Closed::Ending => Ending.into(),
        Closed::Unread => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "UNREAD",
            "what the job sent has reached --outbox-max before it was read",
            "read faster, or raise --outbox-max",
        ),
    }
}
