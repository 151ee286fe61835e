//! What a worker has with one server: a connection that is made again whenever it breaks, and
//! whether the server is asked for a job, asleep or awake.
//!
//! Knows nothing of other servers; whose turn it is, `client` decides.
//!
//! Invariant: NOOP ends sleep at any time; a broken connection forgets everything but the back-off.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ringgear::wire::Command;
use tokio::time::Instant;

use super::connect::{self, Stream};
use super::connection::{Broken, Connection};
use super::packet::{Malformed, Packet};
use super::standing::Standing;
use super::{Ability, Ending, Job, Report, Servers};

/// Least and most time between attempts to connect; each lasts twice as long as the one before.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How long a server may take to answer a request for a job.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a server may read nothing, while requests wait to be written.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// Most bytes that the kernel may still hold after they were written.
const KERNEL_BYTES_MAX: usize = 8 << 20;

/// What the slowest network takes of them in a second: the answer comes no earlier.
const BYTES_PER_SECOND_MIN: usize = 128 << 10;

/// Added to the time-out of CAN_DO_TIMEOUT, so that the manager's own comes first.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(5);

/// The option that asks for WORK_FAIL when a running job is withdrawn.
const CANCEL_NOTICE: &[u8] = b"cancel-notice";

/// What a worker tells every server about itself.
#[derive(Debug)]
pub(super) struct Announcement {
    /// Client id.
    pub(super) id: String,
    /// Functions.
    pub(super) abilities: Vec<Ability>,
}

/// Something that a server said.
#[derive(Debug)]
pub(super) enum Event {
    /// It assigned a job.
    Assigned(Job),
    /// It has no job: `sleep` or don't.
    NoJob,
    /// It withdrew the job with this handle.
    Withdrawn(Bytes),
    /// The connection broke.
    Broken,
}

/// Whether the server is asked for jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It may be asked.
    Awake,
    /// It was asked, and has so long to answer after bytes have last moved.
    Asked(Duration),
    /// It said that it has none, and sends NOOP when it has.
    Asleep,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Stream>>>>;

enum State {
    /// Until then no attempt is made.
    Waiting(Instant),
    Connecting(Connecting),
    Up(Up),
}

/// What holds as long as the connection does.
#[derive(Debug)]
struct Up {
    connection: Connection,
    turn: Turn,
    /// Whether any packet has come.
    has_spoken: bool,
    /// Whether the answer to OPTION_REQ has come.
    is_option_answered: bool,
    /// How much had been read and written when it was last looked, and when that had changed.
    progress: (u64, Instant),
}

/// What a worker has with one server.
pub(super) struct Link {
    /// Number of the server.
    number: usize,
    servers: Rc<Servers>,
    announcement: Rc<Announcement>,
    standing: Standing,
    state: State,
    /// Time before the next attempt but for jitter.
    backoff: Duration,
    /// Whether the server once didn't answer, and hasn't since: it isn't asked for a job before it
    /// has answered something else, as no other server is asked meanwhile.
    is_suspect: bool,
    /// Whether requests were queued since they were last flushed.
    is_dirty: bool,
}

impl Link {
    /// A link to server `number`, without a connection.
    pub(super) fn new(
        number: usize,
        servers: Rc<Servers>,
        announcement: Rc<Announcement>,
        standing: Standing,
    ) -> Self {
        let state = State::Waiting(Instant::now());
        let backoff = BACKOFF.0;
        let (is_suspect, is_dirty) = (false, false);
        Self { number, servers, announcement, standing, state, backoff, is_suspect, is_dirty }
    }

    fn up(&self) -> Option<&Up> {
        match &self.state {
            State::Up(up) => Some(up),
            _ => None,
        }
    }

    fn up_mut(&mut self) -> Option<&mut Up> {
        match &mut self.state {
            State::Up(up) => Some(up),
            _ => None,
        }
    }

    /// Whether there is a connection.
    pub(super) fn is_up(&self) -> bool {
        self.up().is_some()
    }

    /// Whether the server may be asked for a job.
    pub(super) fn is_awake(&self) -> bool {
        let may_ask = |up: &Up| up.has_spoken || !self.is_suspect;
        self.up().is_some_and(|up| up.turn == Turn::Awake && may_ask(up))
    }

    /// Whether the server was asked for a job and hasn't answered.
    pub(super) fn is_asked(&self) -> bool {
        self.up().is_some_and(|up| matches!(up.turn, Turn::Asked(_)))
    }

    /// Whether requests were queued that `poll` hasn't tried to write.
    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Whether all requests are written.
    pub(super) fn is_flushed(&self) -> bool {
        self.up().is_some_and(|up| up.connection.is_flushed())
    }

    /// When `poll` has something to do again, whatever the server does.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(until) => Some(*until),
            State::Connecting(_) => None,
            State::Up(up) => up.limit().map(|limit| up.progress.1 + limit),
        }
    }

    /// Connects, reads and writes as far as that needs no waiting. Returns what the server said,
    /// one event at a time; `None` means that `cx` will be woken.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Event> {
        self.is_dirty = false;
        loop {
            match &mut self.state {
                State::Waiting(until) if now < *until => return None,
                State::Waiting(_) => {
                    let server = self.servers.servers.get(self.number)?.clone();
                    let tls = self.servers.tls.clone();
                    self.state = State::Connecting(Box::pin(connect::connect(server, tls)));
                }
                State::Connecting(connecting) => match connecting.as_mut().poll(cx) {
                    Poll::Pending => return None,
                    Poll::Ready(Ok(stream)) => {
                        self.state = State::Up(Up::new(stream, &self.announcement, now));
                    }
                    Poll::Ready(Err(error)) => self.give_up(&Broken::Io(error), now),
                },
                State::Up(up) => match up.poll(cx, now) {
                    Poll::Pending => return None,
                    Poll::Ready(Ok(packet)) => {
                        if let Some(event) = self.handle(packet, now) {
                            return Some(event);
                        }
                    }
                    Poll::Ready(Err(broken)) => {
                        self.give_up(&broken, now);
                        return Some(Event::Broken);
                    }
                },
            }
        }
    }

    /// Takes a packet; returns what it means to the worker, if anything.
    fn handle(&mut self, packet: Packet, now: Instant) -> Option<Event> {
        self.standing.answered();
        let number = self.number;
        let up = self.up_mut()?;
        up.has_spoken = true;
        let was_asked = matches!(up.turn, Turn::Asked(_));
        let unexpected = match packet {
            Packet::Noop => {
                if up.turn == Turn::Asleep {
                    up.turn = Turn::Awake;
                }
                return None;
            }
            Packet::Withdrawn(handle) => return Some(Event::Withdrawn(handle)),
            Packet::OptionTaken => {
                up.is_option_answered = true;
                return None;
            }
            Packet::Refused { code, text } => {
                // A server that doesn't know the option says so; nothing is lost by that.
                if std::mem::replace(&mut up.is_option_answered, true) {
                    self.standing.refused(code, text, now);
                }
                return None;
            }
            Packet::NoJob if was_asked => {
                up.turn = Turn::Awake;
                (self.is_suspect, self.backoff) = (false, BACKOFF.0);
                return Some(Event::NoJob);
            }
            Packet::Assigned { handle, function, unique, payload } if was_asked => {
                up.turn = Turn::Awake;
                (self.is_suspect, self.backoff) = (false, BACKOFF.0);
                let job = Job { server: number, handle, function, unique, payload };
                return Some(Event::Assigned(job));
            }
            Packet::NoJob => Command::NoJob,
            Packet::Assigned { .. } => Command::JobAssignUniq,
        };
        self.give_up(&Broken::Malformed(Malformed::Unexpected(unexpected)), now);
        Some(Event::Broken)
    }

    /// Drops the connection, or the attempt, and waits before the next.
    fn give_up(&mut self, broken: &Broken, now: Instant) {
        self.is_suspect |= matches!(broken, Broken::Hung(_));
        // Not all workers of a server that was restarted come at the same moment.
        let jitter = 0.75 + fastrand::f64() / 2.0;
        self.state = State::Waiting(now + self.backoff.mul_f64(jitter));
        self.backoff = BACKOFF.1.min(self.backoff * 2);
        self.standing.broke(broken);
    }

    /// Queues a request for a job.
    pub(super) fn ask(&mut self, now: Instant) {
        let Some(up) = self.up_mut() else { return };
        let unsent = up.connection.requests.bytes().min(KERNEL_BYTES_MAX) / BYTES_PER_SECOND_MIN;
        up.turn = Turn::Asked(ANSWER_WITHIN + Duration::from_secs(unsent as u64));
        up.progress.1 = now;
        up.connection.requests.push(Command::GrabJobUniq, &[]);
        self.is_dirty = true;
    }

    /// Queues the request for NOOP when there are jobs.
    pub(super) fn sleep(&mut self) {
        let Some(up) = self.up_mut() else { return };
        up.turn = Turn::Asleep;
        up.connection.requests.push(Command::PreSleep, &[]);
        self.is_dirty = true;
    }

    /// Queues a packet about a job.
    pub(super) fn report(&mut self, handle: &[u8], report: Report, now: Instant) {
        let Some(up) = self.up_mut() else { return };
        up.begin_writing(now);
        let requests = &mut up.connection.requests;
        let is_sent = match report {
            Report::Status(numerator, denominator) => {
                let (numerator, denominator) = (numerator.to_string(), denominator.to_string());
                let arguments = [handle, numerator.as_bytes(), denominator.as_bytes()];
                requests.push(Command::WorkStatus, &arguments);
                true
            }
            Report::Data(data) => requests.push_payload(Command::WorkData, handle, data),
            Report::Warning(text) => requests.push_payload(Command::WorkWarning, handle, text),
        };
        if !is_sent {
            self.standing.too_large(handle);
        }
        self.is_dirty = true;
    }

    /// Queues the packet that ends a job. Returns whether the server is told how it ended: a result
    /// that is too large for a packet becomes WORK_FAIL.
    pub(super) fn finish(&mut self, handle: &[u8], ending: Ending, now: Instant) -> bool {
        let Some(up) = self.up_mut() else { return false };
        up.begin_writing(now);
        let requests = &mut up.connection.requests;
        let is_sent = match ending {
            Ending::Complete(result) => {
                requests.push_payload(Command::WorkComplete, handle, result)
            }
            Ending::Exception(text) => requests.push_payload(Command::WorkException, handle, text),
            Ending::Fail => {
                requests.push(Command::WorkFail, &[handle]);
                true
            }
        };
        if !is_sent {
            requests.push(Command::WorkFail, &[handle]);
            self.standing.too_large(handle);
        }
        self.is_dirty = true;
        is_sent
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("standing", &self.standing).field("up", &self.up()).finish()
    }
}

impl Up {
    /// A connection over a new stream, with the announcement queued.
    fn new(stream: Stream, announcement: &Announcement, now: Instant) -> Self {
        let mut connection = Connection::new(stream);
        let requests = &mut connection.requests;
        requests.push(Command::SetClientId, &[announcement.id.as_bytes()]);
        requests.push(Command::OptionReq, &[CANCEL_NOTICE]);
        for Ability { function, timeout } in &announcement.abilities {
            match timeout {
                None => requests.push(Command::CanDo, &[function.as_bytes()]),
                Some(timeout) => {
                    let milliseconds = (*timeout + TIMEOUT_MARGIN).as_millis().to_string();
                    let arguments = [function.as_bytes(), milliseconds.as_bytes()];
                    requests.push(Command::CanDoTimeout, &arguments);
                }
            }
        }
        Self {
            connection,
            turn: Turn::Awake,
            has_spoken: false,
            is_option_answered: false,
            progress: (0, now),
        }
    }

    /// How long neither byte may move; `None` = the server may be silent.
    fn limit(&self) -> Option<Duration> {
        match self.turn {
            _ if !self.connection.is_flushed() => Some(READ_WITHIN),
            Turn::Asked(limit) => Some(limit),
            _ if !self.has_spoken => Some(ANSWER_WITHIN),
            _ => None,
        }
    }

    /// Notes that bytes are expected to move from now on, unless some wait already.
    fn begin_writing(&mut self, now: Instant) {
        if self.connection.is_flushed() {
            self.progress.1 = now;
        }
    }

    /// Writes, reads, and looks whether the server still reacts.
    fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<Packet, Broken>> {
        // What the server said before it closed the connection is still read.
        let flushed = self.connection.poll_flush(cx);
        let polled = self.connection.poll_packet(cx);
        let progress = self.connection.progress();
        if progress != self.progress.0 {
            self.progress = (progress, now);
        }
        match (polled, flushed) {
            (Poll::Ready(polled), _) => Poll::Ready(polled),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(Broken::Io(error))),
            (Poll::Pending, _) => match self.limit() {
                Some(limit) if now >= self.progress.1 + limit => {
                    Poll::Ready(Err(Broken::Hung(limit.as_secs())))
                }
                _ => Poll::Pending,
            },
        }
    }
}
