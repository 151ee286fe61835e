//! The glommio driver: tasks of one executor that wait for readiness, and one task that writes.
//!
//! Each listener and each connection has a task, and so has the pipe of signals. Glommio tries a
//! plain receive first and puts a poll on its ring where that found nothing. What the tasks hand to
//! the shard wakes the turn, which runs behind all tasks of a batch: it sends once on each dirty
//! connection, and does what is due. Knows the shard's contract and nothing of Gearman.
//!
//! Invariant: `Glommio` is borrowed within one poll of one task and never across an await. A
//! connection that the shard wants to read has a poll in flight, is scheduled, or `hungry`. Tasks
//! never wake themselves: glommio looks at its ring only when none is left to run.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener};
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
use tracing::{debug, warn};

pub use self::setup::GlommioError;
pub(super) use self::setup::probe;
use super::liveness::{Acks, Output};
use super::{HOST_GONE, HOST_SILENT, IoError, Number, Parts, Socket, is_silence, wait_ms};
use crate::engine::{ConnId, Now};
use crate::shard::{Intake, Origin, Shard};
use crate::wire::outbox::Chunk;

mod setup;

const ACCEPTS_PER_TURN: usize = 256;
/// One read takes so much at most; and a connection gets `READS_PER_TURN` of them.
const READ_BYTES: usize = 64 << 10;
const READS_PER_TURN: usize = 4;
const WRITES_PER_TURN: usize = 16;
/// How long accepting rests when there are no descriptors left.
const DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);
/// Timers are looked at together with the ring: one that is due at once runs after that.
const NEWS_AFTER: Duration = Duration::from_micros(1);
/// Glommio 0.9 sleeps with tasks to run if more completions come between its look at the ring and
/// the first task than the ring has room for submissions, so with this share of them in connections
/// it is woken every `GUARD_MS`.
const GUARDED_SHARE: usize = 8;
const GUARD_MS: u64 = 100;

struct Sending {
    chunk: Chunk,
    sent: usize,
    more: bool,
}

struct Connection {
    stream: TcpStream,
    /// Its number in lists. Its descriptor changes when it moves to another core.
    number: Number,
    /// Tells it from others that had its number before.
    serial: u64,
    /// Of its task, once that has run.
    waker: Option<Waker>,
    sending: Option<Sending>,
    /// The socket took less than was to be sent: the task waits until it takes more.
    blocked: bool,
    /// The task doesn't wait for bytes, as the shard wanted none.
    paused: bool,
    output: Output,
}

/// What all tasks work on.
struct Glommio {
    parts: Parts,
    /// By the shard's numbers.
    connections: Vec<Option<Connection>>,
    /// For the next connection.
    serial: u64,
    /// Connections that have come from other cores, and have no tasks yet.
    arrived: Vec<(ConnId, u64)>,
    /// Connections to be written in the next turn.
    unfinished: Vec<ConnId>,
    /// Connections whose tasks are to go on reading after the next look at the ring.
    hungry: Vec<ConnId>,
    /// Tasks that accept; they end with this.
    acceptors: Vec<Task<()>>,
    /// Accepting rests, and has said so.
    resting: bool,
    scratch: Box<[u8]>,
    /// Of the turn, once that has run.
    waker: Option<Waker>,
    /// Runs the turn when something is due, and when that is.
    timer: Option<(u64, Timer)>,
    /// Runs the turn after glommio has looked at its ring, for `hungry` and `unfinished`.
    news: Option<Timer>,
}

type Shared = Rc<RefCell<Glommio>>;

/// Serves until a signal ends it.
pub(super) fn run(parts: Parts) -> Result<(), IoError> {
    setup::executor(parts.busy_poll, parts.ring_entries)?.run(serve(parts))
}

async fn serve(mut parts: Parts) -> Result<(), IoError> {
    let listeners = std::mem::take(&mut parts.listeners);
    let pipe = parts.lifecycle.pipe().as_fd().try_clone_to_owned()?;
    let bell = parts.post.bell_fd().try_clone_to_owned()?;
    let shared: Shared = Rc::new(RefCell::new(Glommio {
        parts,
        connections: Vec::new(),
        serial: 0,
        arrived: Vec::new(),
        unfinished: Vec::new(),
        hungry: Vec::new(),
        acceptors: Vec::new(),
        resting: false,
        scratch: vec![0; READ_BYTES].into_boxed_slice(),
        waker: None,
        timer: None,
        news: None,
    }));
    for listener in listeners {
        let acceptor = spawn_local(accept(Rc::clone(&shared), listener));
        shared.borrow_mut().acceptors.push(acceptor);
    }
    let _signals = spawn_local(watch(Rc::clone(&shared), pipe, Glommio::handle_signals));
    let _bell = spawn_local(watch(Rc::clone(&shared), bell, Glommio::answer_bell));
    let turn = |cx: &mut Context<'_>| {
        let ended = shared.borrow_mut().turn(cx);
        let arrived = std::mem::take(&mut shared.borrow_mut().arrived);
        arrived.into_iter().for_each(|(conn, serial)| spawn(&shared, conn, serial));
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
    // SAFETY: nobody else has the copy.
    #[allow(unsafe_code)]
    let mut stream = unsafe { TcpStream::from_raw_fd(copy.into_raw_fd()) };
    // A new stream polls before it reads, and what its read then says is of no interest.
    let _ = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut [])).await;
    Ok(())
}

/// A task that does something whenever a descriptor is readable, or might be.
async fn watch(shared: Shared, descriptor: OwnedFd, act: fn(&mut Glommio)) {
    loop {
        if readable(descriptor.as_fd()).await.is_err() {
            Timer::new(DESCRIPTORS_PAUSE).await;
        }
        act(&mut shared.borrow_mut());
    }
}

/// A listener's task.
async fn accept(shared: Shared, listener: TcpListener) {
    loop {
        let waited = readable(listener.as_fd()).await;
        if let Err(error) = waited.and_then(|()| accept_some(&shared, &listener)) {
            shared.borrow_mut().rest(&error);
            Timer::new(DESCRIPTORS_PAUSE).await;
        }
    }
}

/// Gives a connection its task.
fn spawn(shared: &Shared, conn: ConnId, serial: u64) {
    let shared = Rc::clone(shared);
    spawn_local(poll_fn(move |cx| shared.borrow_mut().poll(conn, serial, cx))).detach();
}

/// Accepts what has come, and gives each connection its task. An error means that there are no
/// descriptors left.
fn accept_some(shared: &Shared, listener: &TcpListener) -> std::io::Result<()> {
    for _ in 0..ACCEPTS_PER_TURN {
        match listener.accept() {
            Ok((stream, address)) => {
                let added = shared.borrow_mut().add(stream, address);
                if let Some((conn, serial)) = added {
                    spawn(shared, conn, serial);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                ) =>
            {
                return Err(error);
            }
            // The connection is gone already, or a signal came.
            Err(error) => debug!(%error, "accept"),
        }
    }
    Ok(())
}

impl Connection {
    /// Reads into `room` as soon as there is something to read. With no room it only waits: it
    /// answers when there are bytes, the end, or an error.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, room)
    }

    /// Receives into a body's allocation, behind the bytes it has, at most `room_bytes` of them.
    fn receive(&self, body: &mut Vec<u8>, room_bytes: usize) -> std::io::Result<usize> {
        let room = body.spare_capacity_mut().get_mut(..room_bytes).unwrap_or_default();
        let bytes =
            socket(&self.stream, |socket| socket.recv_with_flags(room, libc::MSG_DONTWAIT))?;
        // SAFETY: the kernel says that it wrote so many bytes of the room.
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

impl Glommio {
    fn shard(&mut self) -> &mut Shard {
        &mut self.parts.shard
    }

    fn connection(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.connections.get_mut(conn as usize)?.as_mut()
    }

    /// Has the turn run, which other threads needn't ring for then.
    fn wake(&mut self) {
        self.parts.post.awake();
        self.waker.iter().for_each(Waker::wake_by_ref);
    }

    /// Everything that happens once for a batch of events.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), IoError>> {
        let now = self.parts.clock.now();
        keep(&mut self.waker, cx);
        self.parts.post.awake();
        if self.news.as_mut().is_some_and(|timer| Pin::new(timer).poll(cx).is_ready()) {
            self.news = None;
            for conn in std::mem::take(&mut self.hungry) {
                self.connections[conn as usize].iter().for_each(Connection::wake);
            }
            for conn in std::mem::take(&mut self.unfinished) {
                self.flush(conn, now);
            }
        }
        self.parts.receive(now)?;
        self.parts.tick(now);
        self.look_for_lost_hosts(now);
        self.welcome_arrivals(now);
        while let Some(conn) = self.parts.next_dirty(now) {
            self.flush(conn, now);
        }
        self.parts.send();
        if self.parts.is_over(now) {
            return Poll::Ready(Ok(()));
        }
        let busy = !self.unfinished.is_empty() || !self.hungry.is_empty();
        if (busy || !self.parts.may_sleep()) && self.news.is_none() {
            self.news = Some(timer(NEWS_AFTER, cx));
        }
        self.set_timer(now, cx);
        Poll::Pending
    }

    /// Has the turn run when the next thing is due.
    fn set_timer(&mut self, now: Now, cx: &mut Context<'_>) {
        let shard = &self.parts.shard;
        let submissions = self.parts.ring_entries as usize * setup::SUBMISSIONS_FACTOR;
        let is_guarded = shard.connections() > submissions / GUARDED_SHARE;
        let guard = is_guarded.then_some(now.mono_ms + GUARD_MS);
        let deadlines = [self.parts.deadline_ms(), self.parts.lifecycle.deadline_ms(now), guard];
        let Some(wait_ms) = wait_ms(now, deadlines) else { return };
        let at_ms = now.mono_ms + wait_ms;
        // One that comes too early does no harm: the turn sets the next.
        if !self.timer.as_ref().is_some_and(|(set, _)| (now.mono_ms + 1..=at_ms).contains(set)) {
            self.timer = Some((at_ms, timer(Duration::from_millis(wait_ms), cx)));
        }
    }

    fn handle_signals(&mut self) {
        let now = self.parts.clock.now();
        self.parts.lifecycle.handle_signals(now);
        if !self.parts.lifecycle.accepts() {
            self.acceptors.clear();
        }
        self.wake();
    }

    fn answer_bell(&mut self) {
        self.parts.post.answer_bell();
        self.wake();
    }

    /// There are no descriptors left; said once until there are again.
    fn rest(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.resting, true) {
            warn!(%error, "accepting rests: raise the limit with --file-descriptors");
        }
    }

    /// A connection has come; its task is to be spawned.
    fn add(&mut self, stream: std::net::TcpStream, peer: SocketAddr) -> Option<(ConnId, u64)> {
        let now = self.parts.clock.now();
        self.resting = false;
        let number = self.parts.deal_number();
        let origin = Origin { fd: number.value(), peer };
        let conn = self.shard().connect(origin, now).ok()?;
        Some((conn, self.attach(conn, stream.into(), number, now)))
    }

    /// Connections have come from other cores; their tasks are to be spawned.
    fn welcome_arrivals(&mut self, now: Now) {
        for (conn, socket) in std::mem::take(&mut self.parts.arrivals) {
            if let Socket::Copy(descriptor, number) = socket {
                let serial = self.attach(conn, descriptor, number, now);
                self.arrived.push((conn, serial));
            }
        }
    }

    fn attach(&mut self, conn: ConnId, descriptor: OwnedFd, number: Number, now: Now) -> u64 {
        if self.connections.len() <= conn as usize {
            self.connections.resize_with(conn as usize + 1, || None);
        }
        // SAFETY: nobody else has the descriptor.
        #[allow(unsafe_code)]
        let stream = unsafe { TcpStream::from_raw_fd(descriptor.into_raw_fd()) };
        self.serial += 1;
        self.connections[conn as usize] = Some(Connection {
            stream,
            number,
            serial: self.serial,
            waker: None,
            sending: None,
            blocked: false,
            paused: false,
            output: self.parts.liveness.begin(now.mono_ms),
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
        let now = self.parts.clock.now();
        if let Err(error) = self.finish_chunk(conn, now, cx) {
            self.break_off(conn, &error, now);
            return Poll::Ready(());
        }
        for _ in 0..READS_PER_TURN {
            match ready!(self.read(conn, now, cx)) {
                Ok(1..) => {
                    self.connection(conn).into_iter().for_each(|it| it.output.heard());
                    self.wake();
                }
                Ok(0) => {
                    self.shard().ended(conn, now);
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
        self.hungry.push(conn);
        self.wake();
        Poll::Pending
    }

    /// Receives once, as the shard wants it.
    fn read(
        &mut self,
        conn: ConnId,
        now: Now,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        let Some(Some(connection)) = self.connections.get_mut(conn as usize) else {
            return Poll::Pending;
        };
        let shard = &mut self.parts.shard;
        let intake = if self.parts.lifecycle.reads() { shard.intake(conn) } else { Intake::Pause };
        match intake {
            Intake::Read => {
                let bytes = ready!(connection.poll_read(cx, &mut self.scratch))?;
                let received = self.scratch.get(..bytes).unwrap_or_default();
                if !received.is_empty() {
                    shard.received(conn, received, now);
                }
                Poll::Ready(Ok(bytes))
            }
            Intake::Direct => {
                ready!(connection.poll_read(cx, &mut []))?;
                let Some((mut body, room_bytes)) = shard.lend(conn) else { return Poll::Pending };
                let result = connection.receive(&mut body, room_bytes);
                shard.give_back(conn, body, now);
                Poll::Ready(result)
            }
            Intake::Pause | Intake::Move | Intake::Close => {
                connection.paused = true;
                Poll::Pending
            }
        }
    }

    /// Sends the rest of a chunk that didn't fit the socket, or waits until that can be done.
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
        let rest = sending.chunk.as_ref().get(sending.sent..).unwrap_or_default();
        match Pin::new(&mut connection.stream).poll_write(cx, rest) {
            Poll::Pending => {
                connection.sending = Some(sending);
                return Ok(());
            }
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
            Poll::Ready(result) => sending.sent += result?,
        }
        connection.blocked = false;
        if sending.sent == sending.chunk.as_ref().len() {
            self.shard().sent(conn, sending.chunk, now);
        } else {
            connection.sending = Some(sending);
            self.shard().sent_some(conn, now);
        }
        self.flush(conn, now);
        self.wake();
        Ok(())
    }

    /// Writes what a connection has to send, and does what the shard wants done about it then.
    fn flush(&mut self, conn: ConnId, now: Now) {
        for _ in 0..WRITES_PER_TURN {
            let Some(Some(connection)) = self.connections.get_mut(conn as usize) else { return };
            if connection.blocked {
                break;
            }
            let shard = &mut self.parts.shard;
            let sending = connection.sending.take();
            let next = || shard.take(conn).map(|(chunk, more)| Sending { chunk, sent: 0, more });
            let Some(mut sending) = sending.or_else(next) else { break };
            self.parts.liveness.sent(&mut connection.output, now.mono_ms);
            let rest = sending.chunk.as_ref().get(sending.sent..).unwrap_or_default();
            let more = if sending.more { libc::MSG_MORE } else { 0 };
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | more;
            match socket(&connection.stream, |socket| socket.send_with_flags(rest, flags)) {
                Ok(bytes) if bytes == rest.len() => shard.sent(conn, sending.chunk, now),
                Ok(bytes) => {
                    sending.sent += bytes;
                    connection.sending = Some(sending);
                    shard.sent_some(conn, now);
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
        let Some(Some(connection)) = self.connections.get_mut(conn as usize) else { return };
        match self.parts.shard.intake(conn) {
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
            && (connection.sending.is_some() || self.parts.shard.has_chunks(conn))
        {
            self.unfinished.push(conn);
        }
    }

    /// Lets a connection move to another core. Its task ends with what it polls, so it is a copy of
    /// the descriptor that goes.
    fn hand_over(&mut self, conn: ConnId, now: Now) {
        let Some(hand_over) = self.parts.shard.begin_hand_over(conn) else { return };
        let place = &mut self.connections[conn as usize];
        let copy = place.as_ref().map(|it| socket(&it.stream, |socket| socket.try_clone()));
        let Some(Ok(copy)) = copy else {
            self.shard().cancel_hand_over(hand_over);
            return self.wake();
        };
        let Some(connection) = place.take() else {
            return self.shard().cancel_hand_over(hand_over);
        };
        connection.wake();
        let socket = Socket::Copy(copy.into(), connection.number);
        self.parts.depart(hand_over, socket, now);
    }

    /// Looks at connections whose output may have gone nowhere.
    fn look_for_lost_hosts(&mut self, now: Now) {
        for at in self.parts.liveness.portion(self.connections.len(), now.mono_ms) {
            let Some(connection) = &mut self.connections[at] else { continue };
            let Connection { sending, output, stream, .. } = connection;
            let liveness = &mut self.parts.liveness;
            if liveness.is_in_doubt(output, sending.is_some())
                && let Ok(acks) = socket(stream, |socket| Acks::of(&*socket))
                && liveness.is_gone(output, &acks, sending.is_some(), now.mono_ms)
            {
                let taken = sending.as_ref().map_or(0, |sending| sending.sent);
                let beside = acks.queued_bytes.cast_signed() - taken.cast_signed();
                let conn = ConnId::try_from(at).unwrap_or(ConnId::MAX);
                self.shard().note_lost(conn, beside, HOST_GONE, now);
                self.drop_connection(conn, now);
            }
        }
    }

    /// Ends a connection that a system call says is broken.
    fn break_off(&mut self, conn: ConnId, error: &Error, now: Now) {
        if is_silence(error)
            && let Some(connection) = self.connection(conn)
        {
            let taken = connection.sending.as_ref().map_or(0, |sending| sending.sent);
            self.shard().note_lost(conn, -taken.cast_signed(), HOST_SILENT, now);
        }
        self.drop_connection(conn, now);
    }

    fn drop_connection(&mut self, conn: ConnId, now: Now) {
        if let Some(connection) = self.connections[conn as usize].take() {
            connection.wake();
            self.parts.shard.disconnect(conn, now);
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

    use nix::sys::eventfd::{EfdFlags, EventFd};

    use super::*;

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
        // SAFETY: nobody else has the descriptor.
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
                    Timer::new(NEWS_AFTER).await;
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
                Timer::new(NEWS_AFTER).await;
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
