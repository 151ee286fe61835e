//! The io_uring driver: completions in, submissions out; one ring, one thread.
//!
//! Accepted sockets are direct descriptors of the ring. Each has one multishot receive that takes
//! buffers from a shared ring of them, or, within a large body, plain receives straight into the
//! body's allocation; and at most one send in flight. A turn waits, handles all completions, and
//! then submits one send for each dirty connection together with the next wait. Knows the shard's
//! contract and nothing of Gearman.
//!
//! Invariant: memory that the kernel may touch is owned by `Connection` (`Receive::Direct`,
//! `sending`) or by `Uring` (buffers, addresses) until its completion has come; a connection's
//! number in the ring is only given away when all of its operations have.

use std::collections::VecDeque;
use std::io::Error;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};

use io_uring::types::{DestinationSlot, Fd, Fixed, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;
use tracing::{debug, info, warn};

use self::buffers::{Buffers, LARGE, SMALL};
pub use self::setup::UringError;
pub(super) use self::setup::{FILES_MAX, Ring, explain, rings};
use super::liveness::{Acks, Output};
use super::{HOST_GONE, HOST_SILENT, IoError, Number, Parts, Socket, is_silence, wait_ms};
use crate::engine::{ConnId, Now};
use crate::shard::{HandOver, Intake, Origin, Shard};
use crate::wire::outbox::Chunk;

mod accept;
mod buffers;
mod setup;

/// One operation transfers at most so many bytes. The kernel waits for the rest of one, but after
/// 128 waits it gives up and blocks a thread of its own on it; and a body of 64 MiB in pieces of
/// 1 MiB takes a tenth less time than in those of 4 MiB, and a fifth less CPU than in 256 KiB.
const TRANSFER_BYTES_MAX: usize = 1 << 20;
/// A connection that has filled a small buffer takes its next so many receives one by one, with
/// large buffers. Another large body may follow, and before anybody can look at its header a
/// multishot receive has taken 32 buffers of it.
const SINGLE_RECEIVES: u8 = 32;
/// So many connections at most do so at a time: with more of them, most find all large buffers in
/// use and try again in vain, turn after turn.
const SINGLES_MAX: usize = 4 * LARGE.count as usize;
/// How long accepting rests when there are no descriptors left.
const ACCEPT_PAUSE_MS: u64 = 100;

/// The receiver of a message needs no completion: io_uring(7), `IORING_MSG_RING_CQE_SKIP`.
const MESSAGE_UNTOLD: u32 = 1;

/// How long closing everything may take at the end.
const CLOSE_MS: u64 = 300;

/// What a completion is of; the low byte of its user data. The rest is the connection's key, or the
/// number of the acceptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Operation {
    Accept,
    Receive,
    ReceiveSingle,
    ReceiveDirect,
    Send,
    Cancel,
    Shutdown,
    Close,
    Signal,
    Bell,
    HandOver,
    Lend,
    Timer,
    SetTimer,
}

/// The cores' rings, for handing connections over; each is there once its core runs.
pub(super) type Rings = Arc<[OnceLock<OwnedFd>]>;

impl Operation {
    const ALL: [Self; 14] = [
        Self::Accept,
        Self::Receive,
        Self::ReceiveSingle,
        Self::ReceiveDirect,
        Self::Send,
        Self::Cancel,
        Self::Shutdown,
        Self::Close,
        Self::Signal,
        Self::Bell,
        Self::HandOver,
        Self::Lend,
        Self::Timer,
        Self::SetTimer,
    ];

    fn user_data(self, key: usize) -> u64 {
        (key as u64) << 8 | self as u64
    }

    fn of(user_data: u64) -> (Option<Self>, usize) {
        let [operation, ..] = user_data.to_le_bytes();
        let key = usize::try_from(user_data >> 8).unwrap_or(usize::MAX);
        (Self::ALL.get(usize::from(operation)).copied(), key)
    }
}

/// The ring's timer, one for all deadlines.
#[derive(Debug, Default)]
struct Timer {
    armed: bool,
    /// When it runs out, in milliseconds of `Now::mono_ms`.
    at_ms: u64,
    /// The time it was last set to run: the kernel reads it when it takes the submission.
    span: Box<Timespec>,
}

/// A connection's receiving side.
#[derive(Debug)]
enum Receive {
    Idle,
    /// This one, into a ring's buffers, is armed.
    Armed(Operation),
    /// It has been told to end.
    Ending,
    /// Receiving into a body's allocation.
    Direct(Vec<u8>),
}

#[derive(Debug)]
struct Sending {
    chunk: Chunk,
    sent: usize,
    more: bool,
}

#[derive(Debug)]
struct Connection {
    /// Its place among the ring's direct descriptors.
    file: Fixed,
    /// Its number in the shard, until it is disconnected there.
    conn: Option<ConnId>,
    /// Its number in lists, until it moves to another core.
    number: Option<Number>,
    receive: Receive,
    /// Receives that take one large buffer each before a multishot receive is armed again.
    single_receives: u8,
    sending: Option<Sending>,
    /// It is on its way to another core's ring.
    leaving: Option<HandOver>,
    /// It is about to be had as a descriptor of the process's.
    lending: bool,
    output: Output,
    ending: Ending,
}

/// How far a connection's descriptor is from being closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// A shutdown has been submitted, so that what is in flight ends. The kernel leaves that to a
    /// thread of its own, which looks the descriptor up when it comes to it: closed before, its
    /// place may be another connection's by then.
    ShuttingDown,
    /// It has been done.
    ShutDown,
    /// The close has been submitted; it must not be twice, for the place may be another's by then.
    Closed,
}

struct Uring {
    ring: IoUring,
    parts: Parts,
    listeners: Vec<TcpListener>,
    acceptors: accept::Acceptors,
    small_buffers: Buffers,
    large_buffers: Buffers,
    connections: Slab<Connection>,
    /// Keys of `connections` by the shard's numbers.
    keys: Vec<usize>,
    /// Submissions that found the queue full.
    backlog: VecDeque<squeue::Entry>,
    accept_again_at_ms: Option<u64>,
    timer: Timer,
    /// The completions of this turn; empty otherwise.
    completions: Vec<cqueue::Entry>,
    /// Single receives in flight.
    singles: usize,
    /// Receives that ended because all buffers were in use.
    starved: u64,
}

/// Serves until a signal ends it.
pub(super) fn run(mut parts: Parts, ring: Ring) -> Result<(), IoError> {
    let listeners = std::mem::take(&mut parts.listeners);
    let files_max = u32::try_from(parts.connections_max).unwrap_or(u32::MAX);
    // One more than there may be connections, so that one too many can be turned away.
    let (ring, small_buffers, large_buffers) = ring.start(files_max.saturating_add(1))?;
    if let Some(own) = parts.rings.get(parts.post.core()) {
        // SAFETY: the ring has it for longer than this block.
        #[allow(unsafe_code)]
        let descriptor = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        // Without a descriptor for the copy, connections stay where they are.
        let _ = descriptor.try_clone_to_owned().map(|copy| own.set(copy));
    }
    let driver = Uring {
        acceptors: accept::Acceptors::new(listeners.len()),
        ring,
        parts,
        listeners,
        small_buffers,
        large_buffers,
        connections: Slab::new(),
        keys: Vec::new(),
        backlog: VecDeque::new(),
        accept_again_at_ms: None,
        timer: Timer::default(),
        completions: Vec::new(),
        singles: 0,
        starved: 0,
    };
    driver.serve()
}

impl Uring {
    fn serve(mut self) -> Result<(), IoError> {
        self.arm_signals();
        self.arm_bell();
        self.arm_acceptors();
        let mut now = self.parts.clock.now();
        while !self.parts.is_over(now) {
            now = self.wait(now)?;
            self.parts.receive(now)?;
            self.handle_completions(now);
            if self.accept_again_at_ms.is_some_and(|at_ms| at_ms <= now.mono_ms) {
                self.accept_again_at_ms = None;
                self.arm_acceptors();
            }
            self.parts.tick(now);
            self.look_for_lost_hosts(now);
            self.welcome_arrivals(now);
            while let Some(conn) = self.parts.next_dirty(now) {
                self.service(self.keys[conn as usize], now);
            }
            self.parts.send();
        }
        Ok(self.close_all(now)?)
    }

    /// Hands over what has gathered, waits, and collects what has completed.
    fn wait(&mut self, now: Now) -> Result<Now, Error> {
        self.submit_and_wait(now)?;
        self.completions.extend(self.ring.completion());
        Ok(self.parts.clock.now())
    }

    fn handle_completions(&mut self, now: Now) {
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.handle(&completion, now);
        }
        self.completions = completions;
        self.small_buffers.publish();
        self.large_buffers.publish();
    }

    /// Ends everything in flight. The kernel would do it after the process has gone, and the port
    /// would stay taken meanwhile.
    fn close_all(mut self, mut now: Now) -> Result<(), Error> {
        self.stop_accepting();
        if self.starved > 0 {
            info!(times = self.starved, "receives found all buffers in use and were armed again");
        }
        for key in 0..self.keys_end() {
            if let Some(connection) = self.connections.get_mut(key) {
                // Stopping isn't losing workers: the shard is left as it is.
                connection.conn = None;
                self.close_if_quiet(key);
            }
        }
        let end_ms = now.mono_ms + CLOSE_MS;
        self.accept_again_at_ms = Some(end_ms);
        while now.mono_ms < end_ms
            && !(self.connections.is_empty() && self.acceptors.armed().is_empty())
        {
            now = self.wait(now)?;
            self.handle_completions(now);
        }
        Ok(())
    }

    fn keys_end(&self) -> usize {
        self.connections.iter().next_back().map_or(0, |(key, _)| key + 1)
    }

    fn shard(&mut self) -> &mut Shard {
        &mut self.parts.shard
    }

    /// Submits what has gathered, and waits for a completion or the next deadline.
    fn submit_and_wait(&mut self, now: Now) -> Result<(), Error> {
        self.drain_backlog()?;
        let deadlines = [
            self.parts.deadline_ms(),
            self.parts.lifecycle.deadline_ms(now),
            self.accept_again_at_ms,
        ];
        let ready = !self.backlog.is_empty() || self.finds_something()? || !self.parts.may_sleep();
        let wait_ms = wait_ms(now, deadlines);
        if let Some(ms) = wait_ms.filter(|&ms| ms > 0 && !ready) {
            self.set_timer(now.mono_ms + ms, ms);
        }
        // A timer that found the queue full isn't armed yet.
        let submitted = if ready || wait_ms == Some(0) || !self.backlog.is_empty() {
            let at_once = Timespec::new();
            self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&at_once))
        } else {
            self.ring.submit_and_wait(1)
        };
        self.parts.post.awake();
        match submitted.map_err(|error| (error.raw_os_error(), error)) {
            // The deadline came first; a signal came; completions must be fetched before more fit.
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {
                Ok(())
            }
            Err((_, error)) => Err(error),
        }
    }

    /// Looks for something to do, for as long as that is wanted, without a system call.
    fn finds_something(&mut self) -> Result<bool, Error> {
        if self.parts.busy_poll.is_zero() {
            return Ok(false);
        }
        match self.ring.submit().map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) | Err((Some(libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {}
            Err((_, error)) => return Err(error),
        }
        let Self { ring, parts, .. } = self;
        Ok(parts.busy_poll(|| ring.submission().taskrun() || !ring.completion().is_empty()))
    }

    /// Has a completion come at `at_ms`, which is in `ms`, if none comes sooner. A wait with a
    /// timeout of its own would start and end a timer of the kernel's each turn.
    fn set_timer(&mut self, at_ms: u64, ms: u64) {
        let Timer { armed, at_ms: set_ms, span } = &mut self.timer;
        if *armed && *set_ms <= at_ms {
            return;
        }
        **span =
            Timespec::new().sec(ms / 1000).nsec(u32::try_from(ms % 1000 * 1_000_000).unwrap_or(0));
        let span: *const Timespec = &raw const **span;
        let timer = Operation::Timer.user_data(0);
        let entry = if *armed {
            let update = opcode::TimeoutUpdate::new(timer, span).build();
            update.user_data(Operation::SetTimer.user_data(0))
        } else {
            opcode::Timeout::new(span).flags(TimeoutFlags::empty()).build().user_data(timer)
        };
        (*armed, *set_ms) = (true, at_ms);
        self.submit(entry);
    }

    /// Queues a submission.
    fn submit(&mut self, entry: squeue::Entry) {
        // SAFETY: whatever an entry points to is owned as the module's invariant says.
        #[allow(unsafe_code)]
        let pushed =
            self.backlog.is_empty() && unsafe { self.ring.submission().push(&entry) }.is_ok();
        if !pushed {
            self.backlog.push_back(entry);
        }
    }

    /// Moves what found the queue full into it; what is in the queue then goes to the kernel
    /// before.
    fn drain_backlog(&mut self) -> Result<(), Error> {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `submit`.
            #[allow(unsafe_code)]
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                self.backlog.pop_front();
                continue;
            }
            match self.ring.submit() {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn handle(&mut self, completion: &cqueue::Entry, now: Now) {
        let (operation, key) = Operation::of(completion.user_data());
        let result = completion.result();
        match operation {
            Some(Operation::Receive) => self.handle_received(key, completion, false, now),
            Some(Operation::ReceiveSingle) => {
                self.singles -= 1;
                self.handle_received(key, completion, true, now);
            }
            Some(Operation::Send) => self.handle_sent(key, result, now),
            Some(Operation::ReceiveDirect) => self.handle_received_direct(key, result, now),
            Some(Operation::Accept) => self.handle_accepted(key, result, now),
            Some(Operation::HandOver) => self.handle_handed_over(key, result, now),
            Some(Operation::Lend) => self.handle_lent(key, result, now),
            Some(Operation::Close) => {
                self.connections.remove(key);
            }
            Some(Operation::Signal) => {
                self.parts.lifecycle.handle_signals(now);
                if !self.parts.lifecycle.accepts() {
                    self.stop_accepting();
                }
                self.arm_signals();
            }
            Some(Operation::Bell) => {
                self.parts.post.answer_bell();
                self.arm_bell();
            }
            Some(Operation::Timer) => self.timer.armed = false,
            // Their effect shows in the completions of what they end. A timer that couldn't be set
            // anew has run out, and its completion is here.
            Some(Operation::SetTimer) => {}
            Some(Operation::Shutdown) => {
                self.connections[key].ending = Ending::ShutDown;
                self.close_if_quiet(key);
            }
            Some(Operation::Cancel) | None => {}
        }
    }

    fn handle_received(
        &mut self,
        key: usize,
        completion: &cqueue::Entry,
        is_single: bool,
        now: Now,
    ) {
        let result = completion.result();
        let connection = &mut self.connections[key];
        if !cqueue::more(completion.flags()) {
            connection.receive = Receive::Idle;
        }
        connection.output.heard();
        let conn = connection.conn;
        let buffer = cqueue::buffer_select(completion.flags());
        if let Some(buffer) = buffer {
            let bytes = usize::try_from(result).unwrap_or(0);
            if bytes >= SMALL.bytes {
                connection.single_receives = SINGLE_RECEIVES;
            }
            let buffers = if is_single { &mut self.large_buffers } else { &mut self.small_buffers };
            if let Some(conn) = conn
                && self.parts.lifecycle.reads()
            {
                self.parts.shard.received(conn, buffers.bytes(buffer, bytes), now);
            }
            buffers.give_back(buffer);
        }
        match result {
            1.. => {}
            0 => {
                if let Some(conn) = conn {
                    self.shard().ended(conn, now);
                }
            }
            _ if result == -libc::ENOBUFS => self.starved += 1,
            _ if result == -libc::ECANCELED || result == -libc::EINTR => {}
            _ => self.break_off(key, result, now),
        }
        self.service(key, now);
    }

    fn handle_received_direct(&mut self, key: usize, result: i32, now: Now) {
        let connection = &mut self.connections[key];
        connection.output.heard();
        let receive = std::mem::replace(&mut connection.receive, Receive::Idle);
        if let (Receive::Direct(mut body), Some(conn)) = (receive, connection.conn) {
            let bytes = usize::try_from(result).unwrap_or(0);
            // SAFETY: the kernel wrote so many bytes behind those that were there, and was told
            // how much capacity there is.
            #[allow(unsafe_code)]
            unsafe {
                body.set_len(body.len() + bytes);
            }
            self.shard().give_back(conn, body, now);
            match result {
                1.. => {}
                0 => self.shard().ended(conn, now),
                _ if result == -libc::ECANCELED || result == -libc::EINTR => {}
                _ => self.break_off(key, result, now),
            }
        }
        self.service(key, now);
    }

    fn handle_sent(&mut self, key: usize, result: i32, now: Now) {
        let connection = &mut self.connections[key];
        let Some(mut sending) = connection.sending.take() else { return };
        let Some(conn) = connection.conn else { return self.service(key, now) };
        match usize::try_from(result) {
            Ok(bytes) => {
                sending.sent += bytes;
                if sending.sent == sending.chunk.as_ref().len() {
                    self.shard().sent(conn, sending.chunk, now);
                } else {
                    self.connections[key].sending = Some(sending);
                    self.shard().sent_some(conn, now);
                    return self.send(key);
                }
            }
            Err(_) if result == -libc::EINTR || result == -libc::EAGAIN => {
                self.connections[key].sending = Some(sending);
                return self.send(key);
            }
            Err(_) => self.break_off(key, result, now),
        }
        self.service(key, now);
    }

    /// Looks at connections whose output may have gone nowhere.
    fn look_for_lost_hosts(&mut self, now: Now) {
        // Not `keys_end`, which passes over all places that have come free since the busiest time.
        for key in self.parts.liveness.portion(self.connections.capacity(), now.mono_ms) {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            let Connection { conn, sending, leaving, lending, output, ending, .. } = connection;
            let free = conn.is_some() && leaving.is_none() && !*lending && *ending == Ending::No;
            if free && self.parts.liveness.is_in_doubt(output, sending.is_some()) {
                *lending = true;
                let lend = opcode::FixedFdInstall::new(connection.file, 0).build();
                self.submit(lend.user_data(Operation::Lend.user_data(key)));
            }
        }
    }

    /// A direct descriptor is there as one of the process's.
    fn handle_lent(&mut self, key: usize, result: i32, now: Now) {
        // SAFETY: the kernel has just made it, and it is known here only.
        #[allow(unsafe_code)]
        let lent = (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) });
        let connection = &mut self.connections[key];
        connection.lending = false;
        let (Some(conn), Some(lent)) = (connection.conn, lent) else {
            return self.service(key, now);
        };
        let Connection { sending, output, .. } = connection;
        let (is_sending, taken) = (sending.is_some(), sending.as_ref().map_or(0, |it| it.sent));
        if let Ok(acks) = Acks::of(&lent)
            && self.parts.liveness.is_gone(output, &acks, is_sending, now.mono_ms)
        {
            let beside = acks.queued_bytes.cast_signed() - taken.cast_signed();
            self.shard().note_lost(conn, beside, HOST_GONE, now);
            self.hang_up(key, now);
        }
        drop(lent);
        self.service(key, now);
    }

    /// Ends a connection that a system call says is broken.
    fn break_off(&mut self, key: usize, result: i32, now: Now) {
        let connection = &self.connections[key];
        let taken = connection.sending.as_ref().map_or(0, |sending| sending.sent);
        if let Some(conn) = connection.conn
            && is_silence(&Error::from_raw_os_error(-result))
        {
            self.shard().note_lost(conn, -taken.cast_signed(), HOST_SILENT, now);
        }
        self.hang_up(key, now);
    }

    /// Submits what a connection needs next: a send, a receive or its end, or a step towards
    /// closing.
    fn service(&mut self, key: usize, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(conn) = connection.conn else { return self.close_if_quiet(key) };
        if connection.sending.is_none()
            && let Some((chunk, more)) = self.parts.shard.take(conn)
        {
            connection.sending = Some(Sending { chunk, sent: 0, more });
            self.parts.liveness.sent(&mut connection.output, now.mono_ms);
            self.send(key);
        }
        let intake = self.parts.shard.intake(conn);
        let connection = &mut self.connections[key];
        match (intake, &connection.receive) {
            (Intake::Close, _) => self.hang_up(key, now),
            (_, Receive::Ending | Receive::Direct(_)) | (Intake::Pause, Receive::Idle) => {}
            (Intake::Read, Receive::Armed(Operation::ReceiveSingle)) => {}
            (Intake::Read, Receive::Armed(_))
                if connection.single_receives == 0 || self.singles >= SINGLES_MAX => {}
            (_, &Receive::Armed(operation)) => {
                connection.receive = Receive::Ending;
                let cancel = opcode::AsyncCancel::new(operation.user_data(key)).build();
                self.submit(cancel.user_data(Operation::Cancel.user_data(key)));
            }
            (Intake::Read, Receive::Idle) => self.arm_receive(key),
            // Where it may be looked at again when it is on its way.
            (Intake::Move, Receive::Idle) if connection.lending => {}
            (Intake::Move, Receive::Idle) => self.hand_over(key, conn),
            (Intake::Direct, Receive::Idle) => self.receive_direct(key, conn),
        }
    }

    fn arm_receive(&mut self, key: usize) {
        if !self.parts.lifecycle.reads() {
            return;
        }
        let connection = &mut self.connections[key];
        let is_single = connection.single_receives > 0 && self.singles < SINGLES_MAX;
        let (operation, receive) = if !is_single {
            let receive = opcode::RecvMulti::new(connection.file, SMALL.group).build();
            (Operation::Receive, receive)
        } else {
            connection.single_receives -= 1;
            self.singles += 1;
            // Of no length of its own: as much as the buffer takes.
            let receive = opcode::Recv::new(connection.file, std::ptr::null_mut(), 0)
                .buf_group(LARGE.group)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT);
            (Operation::ReceiveSingle, receive)
        };
        connection.receive = Receive::Armed(operation);
        self.submit(receive.user_data(operation.user_data(key)));
    }

    /// Has the kernel put a connection into the ring of the core that it moves to.
    fn hand_over(&mut self, key: usize, conn: ConnId) {
        let connection = &mut self.connections[key];
        if connection.leaving.is_some() {
            return;
        }
        let Some(hand_over) = self.parts.shard.begin_hand_over(conn) else { return };
        let Some(ring) = self.parts.rings.get(hand_over.to()).and_then(|ring| ring.get()) else {
            return self.parts.shard.cancel_hand_over(hand_over);
        };
        connection.leaving = Some(hand_over);
        let ring = Fd(ring.as_raw_fd());
        let anywhere = DestinationSlot::auto_target();
        let message = opcode::MsgRingSendFd::new(ring, connection.file, anywhere, 0)
            .opcode_flags(MESSAGE_UNTOLD)
            .build();
        self.submit(message.user_data(Operation::HandOver.user_data(key)));
    }

    fn handle_handed_over(&mut self, key: usize, result: i32, now: Now) {
        let connection = &mut self.connections[key];
        let hand_over = connection.leaving.take();
        let (Some(conn), Some(hand_over)) = (connection.conn, hand_over) else {
            return self.close_if_quiet(key);
        };
        match (u32::try_from(result), connection.number.take()) {
            (Ok(file), Some(number)) => {
                connection.conn = None;
                self.parts.depart(hand_over, Socket::Direct(file, number), now);
                self.close_if_quiet(key);
            }
            (_, number) => {
                connection.number = number;
                debug!(conn, error = %Error::from_raw_os_error(-result), "can't be handed over");
                self.shard().cancel_hand_over(hand_over);
            }
        }
    }

    fn welcome_arrivals(&mut self, now: Now) {
        for (conn, socket) in std::mem::take(&mut self.parts.arrivals) {
            if let Socket::Direct(file, number) = socket {
                self.attach(Some(conn), Fixed(file), number, now);
            }
        }
    }

    fn receive_direct(&mut self, key: usize, conn: ConnId) {
        if !self.parts.lifecycle.reads() {
            return;
        }
        let Some((mut body, room_bytes)) = self.parts.shard.lend(conn) else { return };
        let room = body.spare_capacity_mut();
        let bytes = u32::try_from(room_bytes.min(TRANSFER_BYTES_MAX)).unwrap_or(0);
        let connection = &mut self.connections[key];
        // As much as fits in one completion; what comes short of that is handled all the same.
        let receive = opcode::Recv::new(connection.file, room.as_mut_ptr().cast(), bytes)
            .flags(libc::MSG_WAITALL)
            .build();
        connection.receive = Receive::Direct(body);
        connection.single_receives = SINGLE_RECEIVES;
        self.submit(receive.user_data(Operation::ReceiveDirect.user_data(key)));
    }

    /// Submits what is left of the chunk in `sending`.
    fn send(&mut self, key: usize) {
        let connection = &self.connections[key];
        let Some(sending) = &connection.sending else { return };
        let rest = sending.chunk.as_ref().get(sending.sent..).unwrap_or_default();
        let bytes = u32::try_from(rest.len().min(TRANSFER_BYTES_MAX)).unwrap_or(0);
        let more = if sending.more { libc::MSG_MORE } else { 0 };
        let send = opcode::Send::new(connection.file, rest.as_ptr(), bytes)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL | more)
            .build();
        self.submit(send.user_data(Operation::Send.user_data(key)));
    }

    /// The connection is over for the shard; the descriptor follows when nothing is in flight.
    fn hang_up(&mut self, key: usize, now: Now) {
        if let Some(conn) = self.connections[key].conn.take() {
            self.shard().disconnect(conn, now);
        }
        self.close_if_quiet(key);
    }

    fn close_if_quiet(&mut self, key: usize) {
        let Connection { file, ending, receive, sending, leaving, lending, .. } =
            &mut self.connections[key];
        let quiet =
            matches!(receive, Receive::Idle) && sending.is_none() && leaving.is_none() && !*lending;
        let (entry, operation) = match ending {
            // A direct descriptor that is closed with an operation in flight lives on with it.
            Ending::No | Ending::ShutDown if quiet => {
                *ending = Ending::Closed;
                (opcode::Close::new(*file).build(), Operation::Close)
            }
            Ending::No => {
                *ending = Ending::ShuttingDown;
                (opcode::Shutdown::new(*file, libc::SHUT_RDWR).build(), Operation::Shutdown)
            }
            Ending::ShuttingDown | Ending::ShutDown | Ending::Closed => return,
        };
        self.submit(entry.user_data(operation.user_data(key)));
    }

    fn arm_signals(&mut self) {
        self.poll(self.parts.lifecycle.pipe().as_raw_fd(), Operation::Signal);
    }

    fn arm_bell(&mut self) {
        self.poll(self.parts.post.bell_fd().as_raw_fd(), Operation::Bell);
    }

    /// Waits, once, for a descriptor to become readable.
    fn poll(&mut self, descriptor: RawFd, operation: Operation) {
        let events = u32::try_from(libc::POLLIN).unwrap_or(0);
        let poll = opcode::PollAdd::new(Fd(descriptor), events).build();
        self.submit(poll.user_data(operation.user_data(0)));
    }

    fn arm_acceptors(&mut self) {
        if !self.parts.lifecycle.accepts() {
            return;
        }
        while let Some((acceptor, accept)) = self.acceptors.next_idle(&self.listeners) {
            self.submit(accept.user_data(Operation::Accept.user_data(acceptor)));
        }
    }

    fn stop_accepting(&mut self) {
        self.accept_again_at_ms = None;
        for acceptor in self.acceptors.armed() {
            let accept = Operation::Accept.user_data(acceptor);
            let cancel = opcode::AsyncCancel::new(accept).build();
            self.submit(cancel.user_data(Operation::Cancel.user_data(acceptor)));
        }
        // The last reference goes with the last accept that is cancelled.
        self.listeners.clear();
    }

    fn handle_accepted(&mut self, acceptor: usize, result: i32, now: Now) {
        let peer = self.acceptors.completed(acceptor);
        match u32::try_from(result) {
            Ok(file) => self.add(file, peer, now),
            Err(_)
                if [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM].contains(&-result) =>
            {
                let error = Error::from_raw_os_error(-result);
                if self.accept_again_at_ms.is_none() {
                    warn!(%error, "accepting rests: raise the limit with --file-descriptors");
                }
                self.accept_again_at_ms = Some(now.mono_ms + ACCEPT_PAUSE_MS);
                return;
            }
            Err(_) if result == -libc::ECANCELED => return,
            // The connection is gone already, or a signal came.
            Err(_) => debug!(error = %Error::from_raw_os_error(-result), "accept"),
        }
        if self.accept_again_at_ms.is_none() {
            self.arm_acceptors();
        }
    }

    fn add(&mut self, file: u32, peer: SocketAddr, now: Now) {
        let number = self.parts.deal_number();
        let origin = Origin { fd: number.value(), peer };
        let conn = self.shard().connect(origin, now).ok();
        let key = self.attach(conn, Fixed(file), number, now);
        self.service(key, now);
    }

    /// Answers with the connection's key.
    fn attach(&mut self, conn: Option<ConnId>, file: Fixed, number: Number, now: Now) -> usize {
        let key = self.connections.insert(Connection {
            file,
            conn,
            number: Some(number),
            receive: Receive::Idle,
            single_receives: 0,
            sending: None,
            leaving: None,
            lending: false,
            output: self.parts.liveness.begin(now.mono_ms),
            ending: Ending::No,
        });
        if let Some(conn) = conn {
            if self.keys.len() <= conn as usize {
                self.keys.resize(conn as usize + 1, usize::MAX);
            }
            self.keys[conn as usize] = key;
        }
        key
    }
}
