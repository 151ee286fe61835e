//! The glommio driver: tasks of one executor that wait for readiness, and one task that writes.
//!
//! Each listener and each connection has a task, and so has the pipe of signals. Glommio tries a
//! plain receive first and puts a poll on its ring where that found nothing. What tasks hand to the
//! service wakes the turn's task, which runs behind all tasks of a batch: it sends once on each
//! dirty connection, and fires timers. Knows the service's contract and nothing of Gearman.
//!
//! Invariant: `Glommio` is borrowed within one poll of one task and never across an await. A
//! connection that the service wants to read has a poll in flight, is scheduled, or is in `rearm`.
//! Tasks never wake themselves: glommio looks at its ring only when no task is left to run.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{Error, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use glommio::{Task, spawn_local};
use socket2::SockRef;

pub use self::setup::GlommioError;
pub(super) use self::setup::probe;
use super::DriverError;
use super::sending::Sending;
use super::turn::EventSource;
use crate::engine::{ConnId, Now};
use crate::io::cores::numbers::Number;
use crate::io::host::accept::{self, AcceptPause};
use crate::io::host::listen::ListeningSocket;
use crate::io::host::liveness::Output;
use crate::io::host::quick_ack::Stalls;
use crate::io::links::{Links, Socket};
use crate::io::runtime::{CoreRuntime, wait_ms};
use crate::protocol::peer_address::PeerAddress;
use crate::shard::{Intake, Origin, Service};

mod setup;

/// Connections that a listener brings in a turn: with TLS each takes some 20 µs.
const ACCEPTS_PER_TURN: usize = 32;
/// Most bytes of one read.
const READ_BYTES: usize = 64 << 10;
/// Reads of one connection until glommio looks at its ring again.
const READS_PER_TURN: usize = 4;
/// Writes of one connection in a turn.
const WRITES_PER_TURN: usize = 16;
/// Time until the next try while there are no descriptors left.
const DESCRIPTORS_PAUSE: Duration = Duration::from_millis(accept::PAUSE_MS);
/// Glommio looks at timers together with the ring: the shortest one fires after the next look.
const KICK_AFTER: Duration = Duration::from_micros(1);
/// Glommio 0.9 sleeps with tasks to run if more completions come between its look at the ring and
/// the first task than the ring has room for submissions. So a core with connections for this share
/// of them is woken every `GUARD_MS`.
const GUARDED_SHARE: usize = 8;
const GUARD_MS: u64 = 100;

struct Connection {
    stream: TcpStream,
    /// Its number in lists. Its descriptor changes when it migrates.
    number: Number,
    /// Tells it from earlier connections with its number in the service.
    serial: u64,
    /// Its task's, once that has run.
    waker: Option<Waker>,
    sending: Option<Sending>,
    /// The socket took less than was to be sent: the task waits until it takes more.
    blocked: bool,
    /// The task doesn't wait for bytes, as the service wanted none.
    paused: bool,
    output: Output,
    stalls: Stalls,
}

/// What all tasks work on.
struct Glommio<L: Links> {
    runtime: CoreRuntime<L>,
    /// Submissions that a ring of the io_uring driver would have room for.
    ring_entries: u32,
    /// By the service's numbers.
    connections: Vec<Option<Connection>>,
    /// For the next connection.
    serial: u64,
    /// Connections that migrated here and have no tasks yet.
    without_tasks: Vec<(ConnId, u64)>,
    /// Connections to be written in the next turn.
    unfinished: Vec<ConnId>,
    /// Connections whose tasks are to read on after glommio has looked at its ring.
    rearm: Vec<ConnId>,
    /// Tasks that accept; they end when this is cleared.
    acceptors: Vec<Task<()>>,
    /// Tasks whose listeners the service accepts nothing from now.
    held_back: Vec<(u16, Waker)>,
    accept_pause: AcceptPause,
    read_buffer: Box<[u8]>,
    /// Of the turn's task, once that has run.
    waker: Option<Waker>,
    /// Runs the turn when its deadline comes; the time is in milliseconds of `Now::mono_ms`.
    timer: Option<(u64, Timer)>,
    /// Runs the turn after glommio has looked at its ring, for `rearm` and `unfinished`.
    kick: Option<Timer>,
}

type Shared<L> = Rc<RefCell<Glommio<L>>>;

/// Serves until a signal ends it.
pub(super) fn run<L: Links>(runtime: CoreRuntime<L>, ring_entries: u32) -> Result<(), DriverError> {
    setup::executor(runtime.busy_poll, ring_entries)?.run(serve(runtime, ring_entries))
}

async fn serve<L: Links>(
    mut runtime: CoreRuntime<L>,
    ring_entries: u32,
) -> Result<(), DriverError> {
    let listeners = std::mem::take(&mut runtime.listeners);
    let pipe = runtime.lifecycle.pipe().as_fd().try_clone_to_owned()?;
    let wakeup = runtime.mailbox().wakeup_fd().try_clone_to_owned()?;
    let shared: Shared<L> = Rc::new(RefCell::new(Glommio::new(runtime, ring_entries)));
    for listener in listeners {
        let acceptor = spawn_local(accept_loop(Rc::clone(&shared), listener));
        shared.borrow_mut().acceptors.push(acceptor);
    }
    let _signals = spawn_local(watch(Rc::clone(&shared), pipe, Glommio::handle_signals));
    let _wakeup = spawn_local(watch(Rc::clone(&shared), wakeup, Glommio::clear_wakeup));
    let turn = |cx: &mut Context<'_>| {
        let ended = shared.borrow_mut().run_turn(cx);
        let without_tasks = std::mem::take(&mut shared.borrow_mut().without_tasks);
        without_tasks.into_iter().for_each(|(conn, serial)| spawn(&shared, conn, serial));
        ended
    };
    let result = poll_fn(turn).await;
    let connections = std::mem::take(&mut shared.borrow_mut().connections);
    drop(connections);
    result
}

/// Waits until a descriptor of any kind is readable.
///
/// # Errors
/// If there are no descriptors left for the copy that it polls.
async fn readable(descriptor: BorrowedFd<'_>) -> std::io::Result<()> {
    let copy = descriptor.try_clone_to_owned()?;
    // SAFETY: the copy has no other owner.
    #[allow(unsafe_code)]
    let mut stream = unsafe { TcpStream::from_raw_fd(copy.into_raw_fd()) };
    // A new stream polls before it reads. The result of the read doesn't matter.
    let _ = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut [])).await;
    Ok(())
}

/// A task that calls `act` whenever a descriptor is readable, or might be.
async fn watch<L: Links>(shared: Shared<L>, descriptor: OwnedFd, act: fn(&mut Glommio<L>)) {
    loop {
        if readable(descriptor.as_fd()).await.is_err() {
            Timer::new(DESCRIPTORS_PAUSE).await;
        }
        act(&mut shared.borrow_mut());
    }
}

/// A listener's task.
async fn accept_loop<L: Links>(shared: Shared<L>, from: ListeningSocket) {
    loop {
        poll_fn(|cx| shared.borrow_mut().poll_may_accept(from.listener, cx)).await;
        let pauses = match readable(from.socket.as_fd()).await {
            Ok(()) => accept_some(&shared, &from),
            Err(error) => shared.borrow_mut().accept_failed(&error),
        };
        if pauses {
            Timer::new(DESCRIPTORS_PAUSE).await;
        }
    }
}

/// Gives a connection its task.
fn spawn<L: Links>(shared: &Shared<L>, conn: ConnId, serial: u64) {
    let shared = Rc::clone(shared);
    spawn_local(poll_fn(move |cx| shared.borrow_mut().poll(conn, serial, cx))).detach();
}

/// Accepts what has come, and gives each connection its task. Returns whether accepting pauses.
fn accept_some<L: Links>(shared: &Shared<L>, from: &ListeningSocket) -> bool {
    let &ListeningSocket { listener, ref socket } = from;
    for _ in 0..ACCEPTS_PER_TURN {
        if !shared.borrow().runtime.service.may_accept(listener) {
            break;
        }
        match socket.accept() {
            Ok((stream, address)) => {
                let added = shared.borrow_mut().add(stream, address, listener);
                if let Some((conn, serial)) = added {
                    spawn(shared, conn, serial);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => {
                if shared.borrow_mut().accept_failed(&error) {
                    return true;
                }
            }
        }
    }
    false
}

impl Connection {
    /// Reads into `buffer` as soon as there is something to read. With an empty buffer it only
    /// waits, and is ready when there are bytes, the end, or an error.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }

    /// Receives into a body's allocation, behind the bytes it has, at most `capacity` bytes.
    fn receive(&self, body: &mut Vec<u8>, capacity: usize) -> std::io::Result<usize> {
        let space = body.spare_capacity_mut().get_mut(..capacity).unwrap_or_default();
        let bytes =
            socket(&self.stream, |socket| socket.recv_with_flags(space, libc::MSG_DONTWAIT))?;
        // SAFETY: the kernel has written that many bytes to the spare capacity.
        #[allow(unsafe_code)]
        unsafe {
            body.set_len(body.len() + bytes);
        }
        Ok(bytes)
    }

    fn wake(&self) {
        self.waker.iter().for_each(Waker::wake_by_ref);
    }
}

/// Does something with a stream's socket that glommio has no call for.
fn socket<T>(stream: &TcpStream, act: impl FnOnce(SockRef<'_>) -> T) -> T {
    // SAFETY: the stream owns the descriptor for as long as this runs.
    #[allow(unsafe_code)]
    let descriptor = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    act(SockRef::from(&descriptor))
}

impl<L: Links> EventSource for Glommio<L> {
    type Links = L;

    fn runtime(&mut self) -> &mut CoreRuntime<L> {
        &mut self.runtime
    }

    /// The tasks have handled everything before the turn; see `read` for what that takes.
    fn handle_events(&mut self, _: Now) {}

    /// The listeners' tasks accept; those that may go on are woken.
    fn accept(&mut self, _: Now) {
        let Self { runtime, held_back, .. } = self;
        let may = |held: &mut (u16, Waker)| runtime.service.may_accept(held.0);
        held_back.extract_if(.., may).for_each(|(_, waker)| waker.wake());
    }

    fn look_for_lost_hosts(&mut self, now: Now) {
        for at in self.runtime.liveness.next_portion(self.connections.len(), now.mono_ms) {
            let Some(connection) = &mut self.connections[at] else { continue };
            let Connection { sending, output, stream, .. } = connection;
            let sent_bytes = sending.as_ref().map(|it| it.sent_bytes);
            let conn = ConnId::from_index(at);
            let runtime = &mut self.runtime;
            if runtime.liveness.is_in_doubt(output, sending.is_some())
                && socket(stream, |it| runtime.is_host_gone(conn, output, &*it, sent_bytes, now))
            {
                self.drop_connection(conn, now);
            }
        }
    }

    fn attach_migrated(&mut self, conn: ConnId, socket: Socket, now: Now) {
        if let Socket::Copy(descriptor, number) = socket {
            let serial = self.attach(conn, descriptor, number, now);
            self.without_tasks.push((conn, serial));
        }
    }

    fn take_unfinished(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.unfinished)
    }

    fn flush(&mut self, conn: ConnId, now: Now) {
        for _ in 0..WRITES_PER_TURN {
            let Some(Some(connection)) = self.connections.get_mut(conn.index()) else { return };
            if connection.blocked {
                break;
            }
            let service = &mut self.runtime.service;
            let next = || service.take(conn).map(|(chunk, more)| Sending::new(chunk, more));
            let Some(mut sending) = connection.sending.take().or_else(next) else { break };
            self.runtime.liveness.sent(&mut connection.output, now.mono_ms);
            connection.stalls.answered();
            let flags = sending.flags() | libc::MSG_DONTWAIT;
            match socket(&connection.stream, |it| it.send_with_flags(sending.rest(), flags)) {
                Ok(bytes) if sending.advance(bytes) => service.sent(conn, sending.chunk, now),
                Ok(_) => {
                    connection.sending = Some(sending);
                    service.sent_some(conn, now);
                }
                Err(error) => {
                    connection.sending = Some(sending);
                    match error.kind() {
                        ErrorKind::WouldBlock => {
                            connection.blocked = true;
                            connection.wake();
                        }
                        ErrorKind::Interrupted => {}
                        _ => return self.break_off(conn, &error, now),
                    }
                }
            }
        }
        let Some(Some(connection)) = self.connections.get_mut(conn.index()) else { return };
        match self.runtime.service.intake(conn) {
            Intake::Close => return self.drop_connection(conn, now),
            Intake::Read | Intake::Direct => {
                if std::mem::take(&mut connection.paused) {
                    connection.wake();
                }
            }
            Intake::Move => return self.hand_over(conn, now),
            Intake::Pause => {}
        }
        if !connection.blocked
            && (connection.sending.is_some() || self.runtime.service.has_chunks(conn))
        {
            self.unfinished.push(conn);
        }
    }

    fn acknowledge(&mut self, key: usize) {
        if let Some(Some(connection)) = self.connections.get_mut(key)
            && connection.stalls.take_due()
        {
            // A connection that is broken says so when it is read.
            let _ = socket(&connection.stream, |it| it.set_tcp_quickack(true));
        }
    }
}

impl<L: Links> Glommio<L> {
    fn new(runtime: CoreRuntime<L>, ring_entries: u32) -> Self {
        Self {
            runtime,
            ring_entries,
            connections: Vec::new(),
            serial: 0,
            without_tasks: Vec::new(),
            unfinished: Vec::new(),
            rearm: Vec::new(),
            acceptors: Vec::new(),
            held_back: Vec::new(),
            accept_pause: AcceptPause::default(),
            read_buffer: vec![0; READ_BYTES].into_boxed_slice(),
            waker: None,
            timer: None,
            kick: None,
        }
    }

    fn service(&mut self) -> &mut L::Service {
        &mut self.runtime.service
    }

    fn connection(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.connections.get_mut(conn.index())?.as_mut()
    }

    /// Has the turn run; other threads needn't wake this core then.
    fn wake(&mut self) {
        self.runtime.mailbox().mark_awake();
        self.waker.iter().for_each(Waker::wake_by_ref);
    }

    /// Everything that happens once for a batch of events. Ready when the run has ended.
    fn run_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DriverError>> {
        let now = self.runtime.clock.now();
        keep(&mut self.waker, cx);
        self.runtime.mailbox().mark_awake();
        if self.kick.as_mut().is_some_and(|timer| Pin::new(timer).poll(cx).is_ready()) {
            self.kick = None;
            for conn in std::mem::take(&mut self.rearm) {
                self.connections[conn.index()].iter().for_each(Connection::wake);
            }
        }
        self.turn(now)?;
        if self.runtime.poll_end(now) {
            return Poll::Ready(Ok(()));
        }
        let is_busy = !self.unfinished.is_empty() || !self.rearm.is_empty();
        if (is_busy || !self.runtime.prepare_to_sleep()) && self.kick.is_none() {
            self.kick = Some(timer(KICK_AFTER, cx));
        }
        self.set_timer(now, cx);
        Poll::Pending
    }

    /// Has the turn run at its next deadline.
    fn set_timer(&mut self, now: Now, cx: &mut Context<'_>) {
        let service = &self.runtime.service;
        let submissions = self.ring_entries as usize * setup::SUBMISSIONS_FACTOR;
        let is_guarded = service.connections() > submissions / GUARDED_SHARE;
        let guard = is_guarded.then_some(now.mono_ms + GUARD_MS);
        let deadline_ms = self.runtime.deadline_ms(now, guard);
        let Some(wait_ms) = wait_ms(now, deadline_ms) else { return };
        let at_ms = now.mono_ms + wait_ms;
        // A timer that fires too early does no harm: the turn sets the next.
        if !self.timer.as_ref().is_some_and(|(set, _)| (now.mono_ms + 1..=at_ms).contains(set)) {
            self.timer = Some((at_ms, timer(Duration::from_millis(wait_ms), cx)));
        }
    }

    fn handle_signals(&mut self) {
        let now = self.runtime.clock.now();
        self.runtime.handle_signals(now);
        if !self.runtime.lifecycle.accepts() {
            self.acceptors.clear();
        }
        self.wake();
    }

    fn clear_wakeup(&mut self) {
        self.runtime.mailbox().clear_wakeup();
        self.wake();
    }

    /// Waits until the service may accept from a listener.
    fn poll_may_accept(&mut self, listener: u16, cx: &Context<'_>) -> Poll<()> {
        if self.runtime.service.may_accept(listener) {
            return Poll::Ready(());
        }
        self.held_back.push((listener, cx.waker().clone()));
        Poll::Pending
    }

    /// Takes note of a failed accept; returns whether the listener's task is to pause.
    fn accept_failed(&mut self, error: &Error) -> bool {
        let now = self.runtime.clock.now();
        self.accept_pause.failed(error, now.mono_ms)
    }

    /// Adds a connection that was accepted; returns it if its task is to be spawned.
    fn add(&mut self, socket: OwnedFd, peer: PeerAddress, listener: u16) -> Option<(ConnId, u64)> {
        let now = self.runtime.clock.now();
        self.accept_pause.accepted();
        let number = self.runtime.allocate_number();
        let origin = Origin { fd: number.value(), peer, listener };
        let conn = self.service().connect(origin, now).ok()?;
        // It may have something to say, or a deadline.
        self.wake();
        Some((conn, self.attach(conn, socket, number, now)))
    }

    fn attach(&mut self, conn: ConnId, descriptor: OwnedFd, number: Number, now: Now) -> u64 {
        if self.connections.len() <= conn.index() {
            self.connections.resize_with(conn.index() + 1, || None);
        }
        // SAFETY: the descriptor has no other owner.
        #[allow(unsafe_code)]
        let stream = unsafe { TcpStream::from_raw_fd(descriptor.into_raw_fd()) };
        self.serial += 1;
        self.connections[conn.index()] = Some(Connection {
            stream,
            number,
            serial: self.serial,
            waker: None,
            sending: None,
            blocked: false,
            paused: false,
            output: self.runtime.begin_output(Some(conn), now),
            stalls: self.runtime.begin_stalls(Some(conn)),
        });
        self.serial
    }

    /// A connection's task: waits until it can send the rest of a chunk, and for bytes. Ends with
    /// the connection.
    fn poll(&mut self, conn: ConnId, serial: u64, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = self.connection(conn).filter(|it| it.serial == serial) else {
            return Poll::Ready(());
        };
        keep(&mut connection.waker, cx);
        let now = self.runtime.clock.now();
        if let Err(error) = self.finish_chunk(conn, now, cx) {
            self.break_off(conn, &error, now);
            return Poll::Ready(());
        }
        for _ in 0..READS_PER_TURN {
            match ready!(self.read(conn, now, cx)) {
                Ok(bytes @ 1..) => {
                    self.note_received(conn, bytes, now);
                    self.wake();
                }
                Ok(0) => {
                    self.service().ended(conn, now);
                    self.wake();
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => {
                    self.break_off(conn, &error, now);
                    return Poll::Ready(());
                }
            }
        }
        self.rearm.push(conn);
        self.wake();
        Poll::Pending
    }

    fn note_received(&mut self, conn: ConnId, bytes: usize, now: Now) {
        let Some(Some(connection)) = self.connections.get_mut(conn.index()) else { return };
        connection.output.heard();
        let key = (conn.index(), conn);
        self.runtime.quick_acks.received(&mut connection.stalls, key, bytes, now.mono_ms);
    }

    /// Receives once, as the service wants it. Other cores' messages are received after the bytes
    /// and handled before them, as the order of a turn demands.
    fn read(
        &mut self,
        conn: ConnId,
        now: Now,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        let Some(Some(connection)) = self.connections.get_mut(conn.index()) else {
            return Poll::Pending;
        };
        let Self { runtime, read_buffer, .. } = self;
        let reads = runtime.lifecycle.reads();
        match if reads { runtime.service.intake(conn) } else { Intake::Pause } {
            Intake::Read => {
                let bytes = ready!(connection.poll_read(cx, read_buffer))?;
                runtime.receive_messages(now);
                let received = read_buffer.get(..bytes).unwrap_or_default();
                if !received.is_empty() {
                    runtime.service.received(conn, received, now);
                }
                Poll::Ready(Ok(bytes))
            }
            Intake::Direct => {
                ready!(connection.poll_read(cx, &mut []))?;
                let Some((mut body, capacity)) = runtime.service.lend(conn) else {
                    return Poll::Pending;
                };
                let result = connection.receive(&mut body, capacity);
                runtime.receive_messages(now);
                runtime.service.give_back(conn, body, now);
                Poll::Ready(result)
            }
            Intake::Pause | Intake::Move | Intake::Close => {
                connection.paused = true;
                Poll::Pending
            }
        }
    }

    /// Sends the rest of a chunk that didn't fit the socket, or waits until that can be done. The
    /// next chunk is the turn's: messages that belong before it may not be sent yet.
    fn finish_chunk(
        &mut self,
        conn: ConnId,
        now: Now,
        cx: &mut Context<'_>,
    ) -> std::io::Result<()> {
        let Some(connection) = self.connection(conn) else { return Ok(()) };
        let Some(mut sending) = connection.sending.take_if(|_| connection.blocked) else {
            return Ok(());
        };
        let is_sent = match Pin::new(&mut connection.stream).poll_write(cx, sending.rest()) {
            Poll::Pending => {
                connection.sending = Some(sending);
                return Ok(());
            }
            Poll::Ready(Ok(bytes)) => sending.advance(bytes),
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::Interrupted => false,
            Poll::Ready(Err(error)) => {
                connection.sending = Some(sending);
                return Err(error);
            }
        };
        connection.blocked = false;
        if is_sent {
            self.service().sent(conn, sending.chunk, now);
        } else {
            connection.sending = Some(sending);
            self.service().sent_some(conn, now);
        }
        self.unfinished.push(conn);
        self.wake();
        Ok(())
    }

    /// Sends a connection to the core that it migrates to. Its task ends with what it polls, so it
    /// is a copy of the descriptor that is sent.
    fn hand_over(&mut self, conn: ConnId, now: Now) {
        let Some(hand_over) = self.runtime.begin_hand_over(conn) else { return };
        let place = &mut self.connections[conn.index()];
        let copy = place.as_ref().map(|it| socket(&it.stream, |socket| socket.try_clone()));
        let Some(Ok(copy)) = copy else {
            self.runtime.cancel_hand_over(hand_over);
            return self.wake();
        };
        let Some(connection) = place.take() else {
            return self.runtime.cancel_hand_over(hand_over);
        };
        connection.wake();
        let socket = Socket::Copy(copy.into(), connection.number);
        self.runtime.send_connection(hand_over, socket, now);
    }

    /// Ends a connection that a system call says is broken.
    fn break_off(&mut self, conn: ConnId, error: &Error, now: Now) {
        if let Some(connection) = self.connection(conn) {
            let sent_bytes = connection.sending.as_ref().map_or(0, |it| it.sent_bytes);
            self.runtime.note_broken(conn, error, sent_bytes, now);
        }
        self.drop_connection(conn, now);
    }

    fn drop_connection(&mut self, conn: ConnId, now: Now) {
        if let Some(connection) = self.connections[conn.index()].take() {
            connection.wake();
            self.runtime.service.disconnect(conn, now);
            self.wake();
        }
    }
}

/// A timer that wakes the task.
fn timer(wait: Duration, cx: &mut Context<'_>) -> Timer {
    let mut timer = Timer::new(wait);
    if Pin::new(&mut timer).poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
    timer
}

/// Keeps a task's waker.
fn keep(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write as _;
    use std::net::TcpListener;

    use nix::sys::eventfd::{EfdFlags, EventFd};

    use super::*;
    use crate::io::cores::mesh::mesh;
    use crate::io::host::clock::Clock;
    use crate::io::links::Envelope;
    use crate::shard::cores::Cores;
    use crate::shard::remote::message::{HomeConnId, Message};
    use crate::shard::{Settings, Shard};

    /// Runs a test where the kernel lets glommio run.
    fn run(test: impl Future<Output = ()>) {
        match setup::executor(Duration::ZERO, 64) {
            Ok(executor) => executor.run(test),
            // Not printed: the test runner keeps that for tests that fail.
            Err(error) => drop(writeln!(std::io::stderr(), "skipped: {error}")),
        }
    }

    fn pair() -> (TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        // SAFETY: the descriptor has no other owner.
        #[allow(unsafe_code)]
        let stream = unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) };
        (stream, peer)
    }

    #[test]
    fn descriptors_of_any_kind_are_waited_for_again_and_again() {
        run(async {
            let event = Rc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
            let times = Rc::new(Cell::new(0));
            let (waited, counted) = (Rc::clone(&event), Rc::clone(&times));
            let waiter = spawn_local(async move {
                for _ in 0..3 {
                    readable(waited.as_fd()).await.unwrap();
                    counted.set(counted.get() + waited.read().unwrap());
                }
            });
            for round in 0..3 {
                assert_eq!(times.get(), round, "nothing is readable yet");
                event.write(1).unwrap();
                while times.get() == round {
                    Timer::new(KICK_AFTER).await;
                }
            }
            waiter.await;

            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let waiter = spawn_local(async move {
                readable(listener.as_fd()).await.unwrap();
                listener.accept().unwrap();
            });
            let peer = std::net::TcpStream::connect(address).unwrap();
            waiter.await;
            drop(peer);
        });
    }

    #[test]
    fn a_read_of_nothing_waits_and_takes_nothing() {
        run(async {
            let (mut stream, mut peer) = pair();
            let mut read = async |room: &mut [u8]| {
                poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, room)).await.unwrap()
            };
            peer.write_all(b"ab").unwrap();
            assert_eq!(read(&mut []).await, 0);
            let mut room = [0; 1];
            assert_eq!((read(&mut room).await, room), (1, *b"a"));
            assert_eq!(read(&mut []).await, 0);
            assert_eq!((read(&mut room).await, room), (1, *b"b"));
            let waits = Cell::new(true);
            let write = async {
                Timer::new(KICK_AFTER).await;
                waits.set(false);
                peer.write_all(b"c").unwrap();
            };
            let read_nothing = async {
                assert_eq!(read(&mut []).await, 0);
                assert!(!waits.get(), "it didn't wait");
                assert_eq!((read(&mut room).await, room), (1, *b"c"));
            };
            both(read_nothing, write).await;
            drop(peer);
            assert_eq!((read(&mut []).await, read(&mut room).await), (0, 0));
        });
    }

    /// Tasks handled what they read before the messages that had come before it, so a grab could
    /// overtake the hint about the job that it was for.
    #[test]
    fn messages_of_other_cores_are_received_before_what_a_task_has_read_is_handled() {
        run(async {
            let mut mailboxes = mesh(2, Envelope::bytes).unwrap();
            let mut other = mailboxes.pop().unwrap();
            let clock = Clock::start();
            let cores = Cores { own: 0, count: 2 };
            let shard = Shard::new(Settings { cores, ..Settings::default() }, clock.now());
            let runtime = CoreRuntime::without_threads(shard, mailboxes.remove(0));
            let mut driver = Glommio::new(runtime, 64);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, address) = listener.accept().unwrap();
            let (conn, serial) = driver.add(stream.into(), address.into(), 0).unwrap();
            peer.write_all(b"version\n").unwrap();
            other.send(0, Envelope::Message(Message::Gone(HomeConnId::of(ConnId::from_number(7)))));
            poll_fn(|cx| {
                let ended = driver.poll(conn, serial, cx);
                assert!(ended.is_pending());
                let is_handled = driver.runtime.service.has_chunks(conn);
                assert!(!is_handled || !driver.runtime.mailbox().has_work());
                if is_handled { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
    }

    async fn both(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
        let (mut one, mut other) = (Box::pin(one), Box::pin(other));
        let mut done = (false, false);
        poll_fn(|cx| {
            done.0 = done.0 || one.as_mut().poll(cx).is_ready();
            done.1 = done.1 || other.as_mut().poll(cx).is_ready();
            if done == (true, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
