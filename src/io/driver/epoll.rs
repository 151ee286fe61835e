//! The epoll driver (mio): readiness in, reads and writes out. Runs where io_uring is refused.
//!
//! Sockets are registered once for both directions, edge-triggered; the driver remembers which of
//! them are ready. A turn reads what became ready, lets the service handle it, and then writes each
//! dirty connection once. Knows the service's contract and nothing of Gearman.
//!
//! Invariant: a connection whose bytes may wait in the kernel is `readable` until a read came back
//! short, and is in `ready` whenever the service wants to read it. No connection reads or writes
//! more than its share in one turn.

use std::io::{Error, ErrorKind, Read as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::event::{Event, Source};
use mio::net::{TcpListener, TcpStream, UnixListener};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;
use tracing::warn;

use super::DriverError;
use super::sending::Sending;
use super::turn::EventSource;
use crate::engine::{ConnId, Now};
use crate::io::host::accept::AcceptPause;
use crate::io::host::listen::{Acceptable, ListeningSocket, peer_of};
use crate::io::host::liveness::Output;
use crate::io::host::quick_ack::Stalls;
use crate::io::links::{Links, Socket};
use crate::io::runtime::{CoreRuntime, wait_ms};
use crate::protocol::peer_address::PeerAddress;
use crate::shard::{Intake, Origin, Service};

const EVENTS_PER_TURN: usize = 1024;
/// Connections that a listener brings in a turn: with TLS each takes some 20 µs.
const ACCEPTS_PER_TURN: usize = 32;
/// Most bytes of one read.
const READ_BYTES: usize = 64 << 10;
/// Reads of one connection in a turn.
const READS_PER_TURN: usize = 4;
/// Writes of one connection in a turn.
const WRITES_PER_TURN: usize = 16;

const TOKEN_SIGNALS: Token = Token(usize::MAX);
const TOKEN_WAKEUP: Token = Token(usize::MAX - 1);
/// Listeners have tokens from here on, below those; connections have the service's numbers.
const TOKEN_LISTENERS: usize = usize::MAX - 1024;

struct Connection {
    stream: TcpStream,
    sending: Option<Sending>,
    readable: bool,
    /// The peer has ended, so a short read isn't the last one.
    ended: bool,
    writable: bool,
    /// It is in `ready`.
    queued: bool,
    output: Output,
    stalls: Stalls,
}

/// A socket to accept from.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn of(socket: Acceptable) -> Self {
        match socket {
            Acceptable::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)),
            Acceptable::Unix(listener) => Self::Unix(UnixListener::from_std(listener)),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(listener) => listener,
            Self::Unix(listener) => listener,
        }
    }

    fn accept(&self) -> Result<(TcpStream, PeerAddress), Error> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().map(|(stream, address)| (stream, address.into()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                let peer = peer_of(&stream)?;
                // All that is done with it can be done with any stream socket.
                let stream = OwnedFd::from(std::os::unix::net::UnixStream::from(stream));
                Ok((TcpStream::from_std(stream.into()), peer.into()))
            }
        }
    }
}

/// A listener.
struct Acceptor {
    socket: Listener,
    /// Its place in the service's list of them.
    listener: u16,
    /// Connections may wait in its queue.
    is_acceptable: bool,
}

/// The result of a read.
enum Read {
    /// The number of bytes, and whether the kernel has no more for now.
    Bytes(usize, bool),
    Nothing,
    End,
    Broken(Error),
}

impl Read {
    fn of(result: std::io::Result<usize>, capacity: usize) -> Self {
        match result.map_err(|error| (error.kind(), error)) {
            Ok(0) => Self::End,
            // epoll(7): a short read means that the kernel's buffer is empty.
            Ok(bytes) => Self::Bytes(bytes, bytes < capacity),
            Err((ErrorKind::WouldBlock, _)) => Self::Nothing,
            Err((ErrorKind::Interrupted, _)) => Self::Bytes(0, false),
            Err((_, error)) => Self::Broken(error),
        }
    }
}

struct Epoll<L: Links> {
    poll: Poll,
    runtime: CoreRuntime<L>,
    acceptors: Vec<Acceptor>,
    /// By the service's numbers.
    connections: Vec<Option<Connection>>,
    /// Connections to be read in this turn or the next.
    ready: Vec<ConnId>,
    /// Connections to be written in the next turn.
    unfinished: Vec<ConnId>,
    read_buffer: Box<[u8]>,
    accept_pause: AcceptPause,
}

/// Serves until a signal ends it.
pub(super) fn run<L: Links>(mut runtime: CoreRuntime<L>) -> Result<(), DriverError> {
    let poll = Poll::new()?;
    let acceptor = |ListeningSocket { socket, listener }| Acceptor {
        socket: Listener::of(socket),
        listener,
        is_acceptable: false,
    };
    let sockets = std::mem::take(&mut runtime.listeners).into_iter();
    let mut acceptors: Vec<Acceptor> = sockets.map(acceptor).collect();
    for (at, acceptor) in acceptors.iter_mut().enumerate() {
        let token = Token(TOKEN_LISTENERS + at);
        poll.registry().register(acceptor.socket.source(), token, Interest::READABLE)?;
    }
    let pipe = runtime.lifecycle.pipe().as_raw_fd();
    poll.registry().register(&mut SourceFd(&pipe), TOKEN_SIGNALS, Interest::READABLE)?;
    let wakeup = runtime.mailbox().wakeup_fd().as_raw_fd();
    poll.registry().register(&mut SourceFd(&wakeup), TOKEN_WAKEUP, Interest::READABLE)?;
    let driver = Epoll {
        poll,
        runtime,
        acceptors,
        connections: Vec::new(),
        ready: Vec::new(),
        unfinished: Vec::new(),
        read_buffer: vec![0; READ_BYTES].into_boxed_slice(),
        accept_pause: AcceptPause::default(),
    };
    driver.serve()
}

impl<L: Links> EventSource for Epoll<L> {
    type Links = L;

    fn runtime(&mut self) -> &mut CoreRuntime<L> {
        &mut self.runtime
    }

    fn handle_events(&mut self, now: Now) {
        for conn in std::mem::take(&mut self.ready) {
            self.read(conn, now);
        }
    }

    fn accept(&mut self, now: Now) {
        self.accept_pause.poll_end(now.mono_ms);
        for at in 0..self.acceptors.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                let Some(Acceptor { socket, listener, .. }) = self.next_acceptor(at) else { break };
                match socket.accept() {
                    Ok((stream, address)) => {
                        let listener = *listener;
                        self.accept_pause.accepted();
                        self.add(stream, address, listener, now);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.acceptors[at].is_acceptable = false;
                    }
                    Err(error) => drop(self.accept_pause.failed(&error, now.mono_ms)),
                }
            }
        }
    }

    fn look_for_lost_hosts(&mut self, now: Now) {
        for at in self.runtime.liveness.next_portion(self.connections.len(), now.mono_ms) {
            let Some(connection) = &mut self.connections[at] else { continue };
            let Connection { sending, output, stream, .. } = connection;
            let sent_bytes = sending.as_ref().map(|it| it.sent_bytes);
            let conn = ConnId::from_index(at);
            if self.runtime.liveness.is_in_doubt(output, sending.is_some())
                && self.runtime.is_host_gone(conn, output, stream, sent_bytes, now)
            {
                self.drop_connection(conn, now);
            }
        }
    }

    fn attach_migrated(&mut self, conn: ConnId, socket: Socket, now: Now) {
        if let Socket::Descriptor(descriptor) = socket {
            self.attach(conn, TcpStream::from_std(descriptor.into()), now);
        }
    }

    fn take_unfinished(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.unfinished)
    }

    fn flush(&mut self, conn: ConnId, now: Now) {
        for _ in 0..WRITES_PER_TURN {
            let Some(Some(connection)) = self.connections.get_mut(conn.index()) else { return };
            if !connection.writable {
                break;
            }
            let service = &mut self.runtime.service;
            let next = || service.take(conn).map(|(chunk, more)| Sending::new(chunk, more));
            let Some(mut sending) = connection.sending.take().or_else(next) else { break };
            self.runtime.liveness.sent(&mut connection.output, now.mono_ms);
            connection.stalls.answered();
            let socket = SockRef::from(&connection.stream);
            match socket.send_with_flags(sending.rest(), sending.flags()) {
                Ok(bytes) if sending.advance(bytes) => service.sent(conn, sending.chunk, now),
                Ok(_) => {
                    connection.sending = Some(sending);
                    service.sent_some(conn, now);
                }
                Err(error) => {
                    connection.sending = Some(sending);
                    match error.kind() {
                        ErrorKind::WouldBlock => connection.writable = false,
                        ErrorKind::Interrupted => {}
                        _ => return self.break_off(conn, &error, now),
                    }
                }
            }
        }
        let Some(Some(connection)) = self.connections.get_mut(conn.index()) else { return };
        match self.runtime.service.intake(conn) {
            Intake::Close => return self.drop_connection(conn, now),
            Intake::Move => return self.hand_over(conn, now),
            Intake::Read | Intake::Direct | Intake::Pause => {}
        }
        if connection.writable
            && (connection.sending.is_some() || self.runtime.service.has_chunks(conn))
        {
            self.unfinished.push(conn);
        }
        self.queue_read(conn);
    }

    fn acknowledge(&mut self, key: usize) {
        if let Some(Some(connection)) = self.connections.get_mut(key)
            && connection.stalls.take_due()
        {
            // A connection that is broken says so when it is read.
            let _ = SockRef::from(&connection.stream).set_tcp_quickack(true);
        }
    }
}

impl<L: Links> Epoll<L> {
    fn serve(mut self) -> Result<(), DriverError> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut now = self.runtime.clock.now();
        while !self.runtime.poll_end(now) {
            now = self.wait(&mut events, now)?;
            self.note_events(&events, now);
            self.turn(now)?;
        }
        Ok(())
    }

    /// A listener, if something is to be accepted from it now.
    fn next_acceptor(&self, at: usize) -> Option<&Acceptor> {
        let acceptor = self.acceptors.get(at)?;
        let is_due = acceptor.is_acceptable
            && !self.accept_pause.is_on()
            && self.runtime.service.may_accept(acceptor.listener);
        is_due.then_some(acceptor)
    }

    fn service(&mut self) -> &mut L::Service {
        &mut self.runtime.service
    }

    /// Waits for events or the next deadline; returns the time.
    fn wait(&mut self, events: &mut Events, now: Now) -> Result<Now, Error> {
        if !self.poll_for_work(events) {
            let timeout = self.timeout(now);
            match self.poll.poll(events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        self.runtime.mailbox().mark_awake();
        Ok(self.runtime.clock.now())
    }

    /// Looks for work without waiting, for as long as that is wanted; the kernel's events are in
    /// `events` then.
    fn poll_for_work(&mut self, events: &mut Events) -> bool {
        if self.is_busy() {
            return false;
        }
        let Self { poll, runtime, .. } = self;
        runtime
            .poll_for_work(|| poll.poll(events, Some(Duration::ZERO)).is_ok() && !events.is_empty())
    }

    /// Whether the next turn has work whatever the kernel says.
    fn is_busy(&self) -> bool {
        let mut acceptors = 0..self.acceptors.len();
        !self.ready.is_empty()
            || !self.unfinished.is_empty()
            || acceptors.any(|at| self.next_acceptor(at).is_some())
    }

    fn timeout(&mut self, now: Now) -> Option<Duration> {
        if self.is_busy() || !self.runtime.prepare_to_sleep() {
            return Some(Duration::ZERO);
        }
        let deadline_ms = self.runtime.deadline_ms(now, self.accept_pause.deadline_ms());
        wait_ms(now, deadline_ms).map(Duration::from_millis)
    }

    /// Takes note of what has become ready. What may be written is written at once: it waited since
    /// an earlier turn.
    fn note_events(&mut self, events: &Events, now: Now) {
        for event in events {
            match event.token() {
                TOKEN_SIGNALS => self.handle_signals(now),
                TOKEN_WAKEUP => self.runtime.mailbox().clear_wakeup(),
                Token(token) if token >= TOKEN_LISTENERS => {
                    let acceptor = self.acceptors.get_mut(token - TOKEN_LISTENERS);
                    acceptor.into_iter().for_each(|it| it.is_acceptable = true);
                }
                Token(token) => {
                    let conn = ConnId::from_index(token);
                    self.note_ready(conn, event, now);
                }
            }
        }
    }

    fn handle_signals(&mut self, now: Now) {
        self.runtime.handle_signals(now);
        if !self.runtime.lifecycle.accepts() {
            self.acceptors.clear();
            self.accept_pause.cancel();
        }
    }

    fn note_ready(&mut self, conn: ConnId, event: &Event, now: Now) {
        let Some(Some(connection)) = self.connections.get_mut(conn.index()) else { return };
        connection.ended |= event.is_read_closed();
        connection.readable |= event.is_readable() || connection.ended;
        if event.is_writable() && !connection.writable {
            connection.writable = true;
            self.flush(conn, now);
        }
        self.queue_read(conn);
    }

    /// Queues a connection to be read, if it is readable and the service wants to read it.
    fn queue_read(&mut self, conn: ConnId) {
        let Some(Some(connection)) = self.connections.get_mut(conn.index()) else { return };
        let wanted = matches!(self.runtime.service.intake(conn), Intake::Read | Intake::Direct);
        if connection.readable && !connection.queued && wanted && self.runtime.lifecycle.reads() {
            connection.queued = true;
            self.ready.push(conn);
        }
    }

    fn add(&mut self, stream: TcpStream, peer: PeerAddress, listener: u16, now: Now) {
        let origin = Origin { fd: stream.as_raw_fd(), peer, listener };
        let Ok(conn) = self.service().connect(origin, now) else { return };
        self.attach(conn, stream, now);
    }

    fn attach(&mut self, conn: ConnId, mut stream: TcpStream, now: Now) {
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) =
            self.poll.registry().register(&mut stream, Token(conn.index()), interest)
        {
            let remedy = "raise the sysctl fs.epoll.max_user_watches";
            warn!(%error, "connection dropped: it can't be polled; {remedy}");
            self.service().disconnect(conn, now);
            return;
        }
        if self.connections.len() <= conn.index() {
            self.connections.resize_with(conn.index() + 1, || None);
        }
        self.connections[conn.index()] = Some(Connection {
            stream,
            sending: None,
            readable: false,
            ended: false,
            writable: true,
            queued: false,
            output: self.runtime.begin_output(Some(conn), now),
            stalls: self.runtime.begin_stalls(Some(conn)),
        });
    }

    fn read(&mut self, conn: ConnId, now: Now) {
        let Some(Some(connection)) = self.connections.get_mut(conn.index()) else { return };
        connection.queued = false;
        connection.output.heard();
        for _ in 0..READS_PER_TURN {
            let Some(Some(connection)) = self.connections.get_mut(conn.index()) else { return };
            let read = match self.runtime.service.intake(conn) {
                Intake::Read => {
                    let result = (&connection.stream).read(&mut self.read_buffer);
                    let read = Read::of(result, READ_BYTES);
                    if let Read::Bytes(bytes, _) = read {
                        let bytes = self.read_buffer.get(..bytes).unwrap_or_default();
                        self.runtime.service.received(conn, bytes, now);
                    }
                    read
                }
                Intake::Direct => {
                    let Some((mut body, capacity)) = self.runtime.service.lend(conn) else {
                        return;
                    };
                    let space = body.spare_capacity_mut();
                    let space = space.get_mut(..capacity).unwrap_or_default();
                    let read = Read::of(SockRef::from(&connection.stream).recv(space), capacity);
                    if let Read::Bytes(bytes, _) = read {
                        // SAFETY: the kernel has written that many bytes to the spare capacity.
                        #[allow(unsafe_code)]
                        unsafe {
                            body.set_len(body.len() + bytes);
                        }
                    }
                    self.runtime.service.give_back(conn, body, now);
                    read
                }
                Intake::Pause | Intake::Move | Intake::Close => return,
            };
            if let Read::Bytes(bytes @ 1.., _) = read {
                let (stalls, key) = (&mut connection.stalls, (conn.index(), conn));
                self.runtime.quick_acks.received(stalls, key, bytes, now.mono_ms);
            }
            match read {
                Read::Bytes(_, false) => {}
                Read::Bytes(_, true) if connection.ended => {}
                Read::Bytes(_, true) | Read::Nothing => {
                    connection.readable = false;
                    return;
                }
                Read::End => {
                    connection.readable = false;
                    return self.runtime.service.ended(conn, now);
                }
                Read::Broken(error) => return self.break_off(conn, &error, now),
            }
        }
        self.queue_read(conn);
    }

    /// Sends a connection to the core that it migrates to.
    fn hand_over(&mut self, conn: ConnId, now: Now) {
        let Some(hand_over) = self.runtime.begin_hand_over(conn) else { return };
        let Some(mut connection) = self.connections[conn.index()].take() else {
            return self.runtime.cancel_hand_over(hand_over);
        };
        // The descriptor stays open, so it doesn't leave epoll by itself.
        let _ = self.poll.registry().deregister(&mut connection.stream);
        let descriptor = OwnedFd::from(std::net::TcpStream::from(connection.stream));
        self.runtime.send_connection(hand_over, Socket::Descriptor(descriptor), now);
    }

    /// Ends a connection that a system call says is broken.
    fn break_off(&mut self, conn: ConnId, error: &Error, now: Now) {
        if let Some(Some(connection)) = self.connections.get(conn.index()) {
            let sent_bytes = connection.sending.as_ref().map_or(0, |it| it.sent_bytes);
            self.runtime.note_broken(conn, error, sent_bytes, now);
        }
        self.drop_connection(conn, now);
    }

    fn drop_connection(&mut self, conn: ConnId, now: Now) {
        if let Some(mut connection) = self.connections[conn.index()].take() {
            // Closing the socket takes it out of epoll, too; this only tells mio.
            let _ = self.poll.registry().deregister(&mut connection.stream);
            self.runtime.service.disconnect(conn, now);
        }
    }
}
