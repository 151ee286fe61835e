//! The io_uring driver: completions in, submissions out; one ring, one thread.
//!
//! Accepted sockets are direct descriptors of the ring. Each has one multishot receive that takes
//! buffers from a shared ring of them, or, within a large body, plain receives straight into the
//! body's allocation; and at most one send in flight. A turn waits, handles all completions, and
//! then submits one send for each dirty connection together with the next wait. Knows the service's
//! contract and nothing of Gearman.
//!
//! Invariant: memory that the kernel may touch is owned by `Connection` (`Receive::Direct`) or by
//! `Uring` (buffers, addresses, sends) until its completion has come; a connection's key is free
//! only when all of its operations have completed.

use std::collections::VecDeque;
use std::io::Error;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use io_uring::types::{Fd, Fixed, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;
use tracing::info;

use self::accept::{Accepted, Incoming};
use self::buffers::{Buffers, LARGE, SMALL};
use self::operation::Operation;
use self::sends::{SendKey, Sends};
pub(super) use self::setup::{FILES_MAX, Ring, rings};
use super::DriverError;
use super::sending::Sending;
use super::turn::EventSource;
use crate::engine::{ConnId, Now};
use crate::io::cores::numbers::Number;
use crate::io::host::accept::AcceptPause;
use crate::io::host::liveness::Output;
use crate::io::host::quick_ack::Stalls;
use crate::io::links::{Links, Socket};
use crate::io::runtime::{CoreRuntime, wait_ms};
use crate::shard::{HandOver, Intake, Origin, Service};

mod accept;
mod acknowledge;
mod buffers;
mod circulation;
mod hand_over;
mod operation;
mod restrictions;
mod sends;
mod setup;

/// Most bytes that one operation transfers. The kernel waits for the rest of an operation, but
/// after 128 waits it blocks a thread of its own on it; and a body of 64 MiB in pieces of 1 MiB
/// takes a tenth less time than in pieces of 4 MiB, and a fifth less CPU than in pieces of 256 KiB.
const TRANSFER_BYTES_MAX: usize = 1 << 20;
/// Receives that a connection makes one by one, into large buffers, after it filled a small one.
/// Another large body may follow, and before the driver sees its header a multishot receive has
/// taken 32 buffers of it.
const SINGLE_RECEIVES: u8 = 32;
/// Most connections that do so at a time: with more of them, most find all large buffers in use and
/// try again in vain, turn after turn.
const SINGLES_MAX: usize = 4 * LARGE.count as usize;

/// Longest time that closing everything may take at the end.
const CLOSE_MS: u64 = 300;

/// The ring's timer, one for all deadlines.
#[derive(Debug, Default)]
struct Timer {
    armed: bool,
    /// When it fires, in milliseconds of `Now::mono_ms`.
    at_ms: u64,
    /// The span it was last set to: the kernel reads it when it takes the submission.
    span: Box<Timespec>,
}

/// A connection's receiving side.
#[derive(Debug)]
enum Receive {
    Idle,
    /// This operation, into a ring's buffers, is armed.
    Armed(Operation),
    /// Its cancellation was submitted.
    Ending,
    /// Receiving into a body's allocation.
    Direct(Vec<u8>),
}

#[derive(Debug)]
struct Connection {
    /// Its place among the ring's direct descriptors.
    file: Fixed,
    /// Its number in the service, until it is disconnected there.
    conn: Option<ConnId>,
    /// Its number in lists, until it migrates to another core.
    number: Option<Number>,
    receive: Receive,
    /// Receives that take one large buffer each before a multishot receive is armed again.
    single_receives: u8,
    sending: Option<SendKey>,
    /// The kernel is putting it into another core's ring.
    leaving: Option<Box<HandOver>>,
    /// The kernel is installing a descriptor of the process for it, for `is_host_gone`.
    installing: bool,
    output: Output,
    stalls: Stalls,
    closing: Closing,
}

/// There are as many as connections, so what few of them have is elsewhere.
const _: () = assert!(size_of::<Connection>() <= 112);

/// How far the closing of a connection's descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// A shutdown was submitted, so that what is in flight ends. The kernel does it on a thread of
    /// its own, which looks the descriptor up late: were it closed before, its place might be
    /// another connection's by then.
    ShuttingDown,
    /// The shutdown has completed.
    ShutDown,
    /// The close was submitted. It must be submitted once only: the place may be another
    /// connection's afterwards.
    Closed,
}

struct Uring<L: Links> {
    ring: IoUring,
    runtime: CoreRuntime<L>,
    acceptors: accept::Acceptors,
    small_buffers: Buffers,
    large_buffers: Buffers,
    connections: Slab<Connection>,
    sends: Sends,
    /// Keys of `connections` by the service's numbers.
    keys: Vec<usize>,
    /// Submissions that found the queue full, the oldest first.
    backlog: VecDeque<squeue::Entry>,
    accept_pause: AcceptPause,
    timer: Timer,
    /// Completions that are to be handled in this turn; empty between turns.
    completions: Vec<cqueue::Entry>,
    /// Single receives in flight.
    singles: usize,
    /// Receives that ended because all buffers were in use.
    starved: u64,
}

/// Serves until a signal ends it.
pub(super) fn run<L: Links>(mut runtime: CoreRuntime<L>, ring: Ring) -> Result<(), DriverError> {
    let listeners = std::mem::take(&mut runtime.listeners);
    let files_max = u32::try_from(runtime.connections_max).unwrap_or(u32::MAX);
    // One more than there may be connections, so that the one beyond the limit can be closed.
    let (ring, small_buffers, large_buffers) = ring.start(files_max.saturating_add(1))?;
    let core = runtime.mailbox().core();
    if let Some(own) = runtime.rings.get(core) {
        // SAFETY: the ring owns the descriptor and outlives this block.
        #[allow(unsafe_code)]
        let descriptor = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        // If there is no descriptor for the copy, connections don't migrate here.
        let _ = descriptor.try_clone_to_owned().map(|copy| own.set(copy));
    }
    let driver = Uring {
        acceptors: accept::Acceptors::new(listeners),
        ring,
        runtime,
        small_buffers,
        large_buffers,
        connections: Slab::new(),
        sends: Sends::default(),
        keys: Vec::new(),
        backlog: VecDeque::new(),
        accept_pause: AcceptPause::default(),
        timer: Timer::default(),
        completions: Vec::new(),
        singles: 0,
        starved: 0,
    };
    driver.serve()
}

impl<L: Links> EventSource for Uring<L> {
    type Links = L;

    fn runtime(&mut self) -> &mut CoreRuntime<L> {
        &mut self.runtime
    }

    fn handle_events(&mut self, now: Now) {
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.handle(&completion, now);
        }
        self.completions = completions;
        self.small_buffers.end_turn();
        self.large_buffers.end_turn();
    }

    /// Accepts complete as events; after a pause, and where they were held back, they are armed
    /// again.
    fn accept(&mut self, now: Now) {
        let is_held_back = self.acceptors.is_held_back() && !self.accept_pause.is_on();
        if self.accept_pause.poll_end(now.mono_ms) || is_held_back {
            self.arm_acceptors();
        }
    }

    fn look_for_lost_hosts(&mut self, now: Now) {
        // Not `keys_end`, which passes over all keys that came free since the busiest time.
        for key in self.runtime.liveness.next_portion(self.connections.capacity(), now.mono_ms) {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            let Connection { conn, sending, leaving, installing, output, closing, .. } = connection;
            let is_free = leaving.is_none() && !*installing && *closing == Closing::No;
            if conn.is_some()
                && is_free
                && self.runtime.liveness.is_in_doubt(output, sending.is_some())
            {
                *installing = true;
                let install = opcode::FixedFdInstall::new(connection.file, 0).build();
                self.submit(install.user_data(Operation::Install.user_data(key)));
            }
        }
    }

    fn attach_migrated(&mut self, conn: ConnId, socket: Socket, now: Now) {
        if let Socket::Direct(file, number) = socket {
            self.attach(Some(conn), Fixed(file), number, now);
        }
    }

    /// What is left of a chunk is sent when the completion of the send before comes.
    fn take_unfinished(&mut self) -> Vec<ConnId> {
        Vec::new()
    }

    fn flush(&mut self, conn: ConnId, now: Now) {
        self.submit_next(self.keys[conn.index()], now);
    }

    fn acknowledge(&mut self, key: usize) {
        self.submit_acknowledge(key);
    }
}

impl<L: Links> Uring<L> {
    fn serve(mut self) -> Result<(), DriverError> {
        self.arm_signals();
        self.arm_wakeup();
        self.arm_acceptors();
        let mut now = self.runtime.clock.now();
        while !self.runtime.poll_end(now) {
            now = self.wait(now, self.accept_pause.deadline_ms())?;
            self.turn(now)?;
        }
        Ok(self.close_all(now)?)
    }

    /// Submits what was queued, waits for completions or the next deadline, and collects the
    /// completions; returns the time. `also_ms`: another deadline.
    fn wait(&mut self, now: Now, also_ms: Option<u64>) -> Result<Now, Error> {
        self.submit_and_wait(now, also_ms)?;
        self.completions.extend(self.ring.completion());
        Ok(self.runtime.clock.now())
    }

    /// Ends everything in flight. Left to the kernel it would end after the process, and the port
    /// would stay taken until then.
    fn close_all(mut self, mut now: Now) -> Result<(), Error> {
        self.stop_accepting();
        if self.starved > 0 {
            info!(times = self.starved, "receives found all buffers in use and were armed again");
        }
        for key in 0..self.keys_end() {
            if let Some(connection) = self.connections.get_mut(key) {
                // A server that stops loses no workers: the service is left as it is.
                connection.conn = None;
                self.close_if_quiet(key);
            }
        }
        let end_ms = now.mono_ms + CLOSE_MS;
        while now.mono_ms < end_ms
            && !(self.connections.is_empty() && self.acceptors.in_flight().is_empty())
        {
            now = self.wait(now, Some(end_ms))?;
            self.handle_events(now);
        }
        Ok(())
    }

    fn keys_end(&self) -> usize {
        self.connections.iter().next_back().map_or(0, |(key, _)| key + 1)
    }

    fn service(&mut self) -> &mut L::Service {
        &mut self.runtime.service
    }

    /// Submits what was queued, and waits for a completion or the next deadline.
    fn submit_and_wait(&mut self, now: Now, also_ms: Option<u64>) -> Result<(), Error> {
        self.drain_backlog()?;
        let ready =
            !self.backlog.is_empty() || self.poll_for_work()? || !self.runtime.prepare_to_sleep();
        let wait_ms = wait_ms(now, self.runtime.deadline_ms(now, also_ms));
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
        self.runtime.mailbox().mark_awake();
        match submitted.map_err(|error| (error.raw_os_error(), error)) {
            // The deadline came first; a signal came; completions must be collected before the
            // kernel takes more submissions.
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {
                Ok(())
            }
            Err((_, error)) => Err(error),
        }
    }

    /// Submits what was queued and looks for work without waiting, for as long as that is wanted.
    fn poll_for_work(&mut self) -> Result<bool, Error> {
        if self.runtime.busy_poll.is_zero() {
            return Ok(false);
        }
        match self.ring.submit().map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) | Err((Some(libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {}
            Err((_, error)) => return Err(error),
        }
        let Self { ring, runtime, .. } = self;
        Ok(runtime.poll_for_work(|| ring.submission().taskrun() || !ring.completion().is_empty()))
    }

    /// Sets the timer to `at_ms`, which is in `ms`, unless it fires before. A wait with a timeout
    /// of its own would start and end a timer in the kernel each turn.
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
        // SAFETY: the memory that an entry points to lives until its completion, by the module's
        // invariant.
        #[allow(unsafe_code)]
        let pushed =
            self.backlog.is_empty() && unsafe { self.ring.submission().push(&entry) }.is_ok();
        if !pushed {
            self.backlog.push_back(entry);
        }
    }

    /// Moves the backlog into the queue. Submits what the queue has, in between, where it is full.
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
            Some(Operation::Place) => self.handle_placed(key, result, now),
            Some(Operation::HandOver) => self.handle_handed_over(key, result, now),
            Some(Operation::Install) => self.handle_installed(key, result, now),
            Some(Operation::Close) => {
                self.connections.remove(key);
            }
            Some(Operation::Signal) => {
                self.runtime.handle_signals(now);
                if !self.runtime.lifecycle.accepts() {
                    self.stop_accepting();
                }
                self.arm_signals();
            }
            Some(Operation::Wakeup) => {
                self.runtime.mailbox().clear_wakeup();
                self.arm_wakeup();
            }
            Some(Operation::Timer) => self.timer.armed = false,
            // A timer that couldn't be set has fired, and has a completion of its own.
            Some(Operation::SetTimer) => {}
            Some(Operation::Acknowledge) => self.note_unacknowledged(result),
            Some(Operation::Shutdown) => {
                self.connections[key].closing = Closing::ShutDown;
                self.close_if_quiet(key);
            }
            // The cancelled operation has a completion of its own.
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
        let buffers = if is_single { &mut self.large_buffers } else { &mut self.small_buffers };
        if let Some(buffer) = buffer {
            let bytes = usize::try_from(result).unwrap_or(0);
            if bytes >= SMALL.bytes {
                connection.single_receives = SINGLE_RECEIVES;
            }
            if let Some(conn) = conn
                && self.runtime.lifecycle.reads()
            {
                let stalls = &mut connection.stalls;
                self.runtime.quick_acks.received(stalls, (key, conn), bytes, now.mono_ms);
                self.runtime.service.received(conn, buffers.bytes(buffer, bytes), now);
            }
            buffers.give_back(buffer);
        }
        match result {
            1.. => {}
            0 => {
                if let Some(conn) = conn {
                    self.service().ended(conn, now);
                }
            }
            _ if result == -libc::ENOBUFS => {
                self.starved += u64::from(buffers.all_circulate());
                buffers.starved();
            }
            _ if result == -libc::ECANCELED || result == -libc::EINTR => {}
            _ => self.break_off(key, result, now),
        }
        self.submit_next(key, now);
    }

    fn handle_received_direct(&mut self, key: usize, result: i32, now: Now) {
        let connection = &mut self.connections[key];
        connection.output.heard();
        let receive = std::mem::replace(&mut connection.receive, Receive::Idle);
        if let (Receive::Direct(mut body), Some(conn)) = (receive, connection.conn) {
            let bytes = usize::try_from(result).unwrap_or(0);
            let stalls = &mut connection.stalls;
            self.runtime.quick_acks.received(stalls, (key, conn), bytes, now.mono_ms);
            // SAFETY: the kernel has written that many bytes behind the body's length, and at most
            // the spare capacity that the submission gave.
            #[allow(unsafe_code)]
            unsafe {
                body.set_len(body.len() + bytes);
            }
            self.service().give_back(conn, body, now);
            match result {
                1.. => {}
                0 => self.service().ended(conn, now),
                _ if result == -libc::ECANCELED || result == -libc::EINTR => {}
                _ => self.break_off(key, result, now),
            }
        }
        self.submit_next(key, now);
    }

    fn handle_sent(&mut self, key: usize, result: i32, now: Now) {
        let connection = &mut self.connections[key];
        let Some(send) = connection.sending.take() else { return };
        let Some(conn) = connection.conn else {
            self.sends.remove(send);
            return self.submit_next(key, now);
        };
        match usize::try_from(result) {
            Ok(bytes) if self.sends.get_mut(&send).advance(bytes) => {
                let chunk = self.sends.remove(send).chunk;
                self.service().sent(conn, chunk, now);
            }
            Ok(_) => {
                connection.sending = Some(send);
                self.service().sent_some(conn, now);
                return self.send(key);
            }
            Err(_) if result == -libc::EINTR || result == -libc::EAGAIN => {
                connection.sending = Some(send);
                return self.send(key);
            }
            Err(_) => {
                self.sends.remove(send);
                self.break_off(key, result, now);
            }
        }
        self.submit_next(key, now);
    }

    /// A direct descriptor has one of the process, too: asks the kernel about it and closes it.
    fn handle_installed(&mut self, key: usize, result: i32, now: Now) {
        // SAFETY: the kernel has just made the descriptor, which has no other owner.
        #[allow(unsafe_code)]
        let installed = (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) });
        let Connection { conn, sending, output, installing, .. } = &mut self.connections[key];
        *installing = false;
        let sent_bytes = self.sends.sent_bytes(sending.as_ref());
        if let (Some(conn), Some(socket)) = (*conn, installed)
            && self.runtime.is_host_gone(conn, output, &socket, sent_bytes, now)
        {
            self.hang_up(key, now);
        }
        self.submit_next(key, now);
    }

    /// Ends a connection that a system call says is broken.
    fn break_off(&mut self, key: usize, result: i32, now: Now) {
        let Connection { conn, sending, .. } = &self.connections[key];
        if let Some(conn) = *conn {
            let sent_bytes = self.sends.sent_bytes(sending.as_ref()).unwrap_or(0);
            self.runtime.note_broken(conn, &Error::from_raw_os_error(-result), sent_bytes, now);
        }
        self.hang_up(key, now);
    }

    /// Submits what a connection needs next: a send, a receive or its end, or a step towards
    /// closing.
    fn submit_next(&mut self, key: usize, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(conn) = connection.conn else { return self.close_if_quiet(key) };
        if connection.sending.is_none()
            && let Some((chunk, more)) = self.runtime.service.take(conn)
        {
            connection.sending = Some(self.sends.insert(Sending::new(chunk, more)));
            self.runtime.liveness.sent(&mut connection.output, now.mono_ms);
            connection.stalls.answered();
            self.send(key);
        }
        let intake = self.runtime.service.intake(conn);
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
            // It leaves once the descriptor is closed again.
            (Intake::Move, Receive::Idle) if connection.installing => {}
            (Intake::Move, Receive::Idle) => self.hand_over(key, conn),
            (Intake::Direct, Receive::Idle) => self.receive_direct(key, conn),
        }
    }

    fn arm_receive(&mut self, key: usize) {
        if !self.runtime.lifecycle.reads() {
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
            // Without a length of its own: as much as the buffer takes.
            let receive = opcode::Recv::new(connection.file, std::ptr::null_mut(), 0)
                .buf_group(LARGE.group)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT);
            (Operation::ReceiveSingle, receive)
        };
        connection.receive = Receive::Armed(operation);
        self.submit(receive.user_data(operation.user_data(key)));
    }

    fn receive_direct(&mut self, key: usize, conn: ConnId) {
        if !self.runtime.lifecycle.reads() {
            return;
        }
        let Some((mut body, capacity)) = self.runtime.service.lend(conn) else { return };
        let space = body.spare_capacity_mut();
        let bytes = u32::try_from(capacity.min(TRANSFER_BYTES_MAX)).unwrap_or(0);
        let connection = &mut self.connections[key];
        // Completes when all bytes have come; a shorter result is handled all the same.
        let receive = opcode::Recv::new(connection.file, space.as_mut_ptr().cast(), bytes)
            .flags(libc::MSG_WAITALL)
            .build();
        connection.receive = Receive::Direct(body);
        connection.single_receives = SINGLE_RECEIVES;
        self.submit(receive.user_data(Operation::ReceiveDirect.user_data(key)));
    }

    /// Submits what is left of the chunk that is being sent.
    fn send(&mut self, key: usize) {
        let connection = &self.connections[key];
        let Some(send) = &connection.sending else { return };
        let sending = self.sends.get(send);
        let rest = sending.rest();
        let bytes = u32::try_from(rest.len().min(TRANSFER_BYTES_MAX)).unwrap_or(0);
        let send = opcode::Send::new(connection.file, rest.as_ptr(), bytes)
            .flags(sending.flags() | libc::MSG_WAITALL)
            .build();
        self.submit(send.user_data(Operation::Send.user_data(key)));
    }

    /// Disconnects a connection from the service; its descriptor is closed when nothing is in
    /// flight.
    fn hang_up(&mut self, key: usize, now: Now) {
        if let Some(conn) = self.connections[key].conn.take() {
            self.service().disconnect(conn, now);
        }
        self.close_if_quiet(key);
    }

    fn close_if_quiet(&mut self, key: usize) {
        let Connection { file, closing, receive, sending, leaving, installing, .. } =
            &mut self.connections[key];
        let quiet = matches!(receive, Receive::Idle)
            && sending.is_none()
            && leaving.is_none()
            && !*installing;
        let (entry, operation) = match closing {
            // A direct descriptor that is closed with an operation in flight stays open with it.
            Closing::No | Closing::ShutDown if quiet => {
                *closing = Closing::Closed;
                (opcode::Close::new(*file).build(), Operation::Close)
            }
            Closing::No => {
                *closing = Closing::ShuttingDown;
                (opcode::Shutdown::new(*file, libc::SHUT_RDWR).build(), Operation::Shutdown)
            }
            Closing::ShuttingDown | Closing::ShutDown | Closing::Closed => return,
        };
        self.submit(entry.user_data(operation.user_data(key)));
    }

    fn arm_signals(&mut self) {
        self.arm_poll(self.runtime.lifecycle.pipe().as_raw_fd(), Operation::Signal);
    }

    fn arm_wakeup(&mut self) {
        let wakeup = self.runtime.mailbox().wakeup_fd().as_raw_fd();
        self.arm_poll(wakeup, Operation::Wakeup);
    }

    /// Arms a poll: one completion when a descriptor is readable.
    fn arm_poll(&mut self, descriptor: RawFd, operation: Operation) {
        let events = u32::try_from(libc::POLLIN).unwrap_or(0);
        let poll = opcode::PollAdd::new(Fd(descriptor), events).build();
        self.submit(poll.user_data(operation.user_data(0)));
    }

    fn arm_acceptors(&mut self) {
        if !self.runtime.lifecycle.accepts() {
            return;
        }
        while let Some((acceptor, accept)) =
            self.acceptors.next_idle(|listener| self.runtime.service.may_accept(listener))
        {
            self.submit(accept.user_data(Operation::Accept.user_data(acceptor)));
        }
    }

    fn stop_accepting(&mut self) {
        self.accept_pause.cancel();
        for acceptor in self.acceptors.in_flight() {
            let accept = Operation::Accept.user_data(acceptor);
            let cancel = opcode::AsyncCancel::new(accept).build();
            self.submit(cancel.user_data(Operation::Cancel.user_data(acceptor)));
        }
        self.acceptors.close();
    }

    fn handle_accepted(&mut self, acceptor: usize, result: i32, now: Now) {
        match self.acceptors.accepted(acceptor, result) {
            Ok(Accepted::Placed(incoming)) => self.add(incoming, now),
            Ok(Accepted::Unplaced(entry)) => {
                return self.submit(entry.user_data(Operation::Place.user_data(acceptor)));
            }
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => return,
            Err(error) => drop(self.accept_pause.failed(&error, now.mono_ms)),
        }
        self.rearm_acceptors();
    }

    fn handle_placed(&mut self, acceptor: usize, result: i32, now: Now) {
        match self.acceptors.placed(acceptor, result) {
            Ok(incoming) => self.add(incoming, now),
            Err(error) => drop(self.accept_pause.failed(&error, now.mono_ms)),
        }
        self.rearm_acceptors();
    }

    fn rearm_acceptors(&mut self) {
        if !self.accept_pause.is_on() {
            self.arm_acceptors();
        }
    }

    fn add(&mut self, incoming: Incoming, now: Now) {
        self.accept_pause.accepted();
        let Incoming { file, peer, listener } = incoming;
        let number = self.runtime.allocate_number();
        let origin = Origin { fd: number.value(), peer, listener };
        let conn = self.service().connect(origin, now).ok();
        let key = self.attach(conn, Fixed(file), number, now);
        self.submit_next(key, now);
    }

    /// Attaches a socket that is in the ring; returns the connection's key. `conn`: its number in
    /// the service, unless the service has no room for it.
    fn attach(&mut self, conn: Option<ConnId>, file: Fixed, number: Number, now: Now) -> usize {
        let key = self.connections.insert(Connection {
            file,
            conn,
            number: Some(number),
            receive: Receive::Idle,
            single_receives: 0,
            sending: None,
            leaving: None,
            installing: false,
            output: self.runtime.begin_output(conn, now),
            stalls: self.runtime.begin_stalls(conn),
            closing: Closing::No,
        });
        if let Some(conn) = conn {
            if self.keys.len() <= conn.index() {
                self.keys.resize(conn.index() + 1, usize::MAX);
            }
            self.keys[conn.index()] = key;
        }
        key
    }
}
