//! The epoll driver (mio): readiness in, reads and writes out. Runs where io_uring is refused.
//!
//! Sockets are registered once for both directions, edge-triggered; the driver remembers what is
//! ready. A turn reads what became ready, lets the shard handle it, and then writes each dirty
//! connection once. Knows the shard's contract and nothing of Gearman.
//!
//! Invariant: a connection whose bytes may wait in the kernel is marked `readable` until a read
//! came back short, and stands in `ready` whenever the shard wants to read it. No connection reads
//! or writes more than its share in one turn.

use std::io::{Error, ErrorKind, Read as _};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;
use tracing::{debug, warn};

use super::liveness::{Acks, Output};
use super::{HOST_GONE, HOST_SILENT, IoError, Parts, Socket, is_silence, wait_ms};
use crate::engine::{ConnId, Now};
use crate::shard::{Intake, Origin, Shard};
use crate::wire::outbox::Chunk;

const EVENTS_PER_TURN: usize = 1024;
const ACCEPTS_PER_TURN: usize = 256;
/// One read takes so much at most; and a connection gets `READS_PER_TURN` of them.
const READ_BYTES: usize = 64 << 10;
const READS_PER_TURN: usize = 4;
const WRITES_PER_TURN: usize = 16;
/// How long accepting rests when there are no descriptors left.
const ACCEPT_PAUSE_MS: u64 = 100;

const TOKEN_SIGNALS: Token = Token(usize::MAX);
const TOKEN_BELL: Token = Token(usize::MAX - 1);
/// Listeners have tokens below those.
const TOKEN_LISTENERS: usize = usize::MAX - 1024;

struct Connection {
    stream: TcpStream,
    /// The chunk that is being written, and how much of it has been.
    sending: Option<(Chunk, usize, bool)>,
    readable: bool,
    /// The peer has ended: a short read isn't the last one.
    ended: bool,
    writable: bool,
    /// Stands in `ready`.
    queued: bool,
    output: Output,
}

/// What became of a read.
enum Read {
    /// So many bytes; `true` if the kernel has no more for now.
    Bytes(usize, bool),
    Nothing,
    End,
    Broken(Error),
}

impl Read {
    fn of(result: std::io::Result<usize>, room_bytes: usize) -> Self {
        match result.map_err(|error| (error.kind(), error)) {
            Ok(0) => Self::End,
            // epoll(7): a short read means that the kernel's buffer is empty.
            Ok(bytes) => Self::Bytes(bytes, bytes < room_bytes),
            Err((ErrorKind::WouldBlock, _)) => Self::Nothing,
            Err((ErrorKind::Interrupted, _)) => Self::Bytes(0, false),
            Err((_, error)) => Self::Broken(error),
        }
    }
}

struct Epoll {
    poll: Poll,
    parts: Parts,
    listeners: Vec<TcpListener>,
    /// By the shard's numbers.
    connections: Vec<Option<Connection>>,
    /// Connections to be read in this turn or the next.
    ready: Vec<ConnId>,
    /// Connections to be written in the next turn.
    unfinished: Vec<ConnId>,
    scratch: Box<[u8]>,
    accept_again_at_ms: Option<u64>,
}

/// Serves until a signal ends it.
pub(super) fn run(mut parts: Parts) -> Result<(), IoError> {
    let poll = Poll::new()?;
    let sockets = std::mem::take(&mut parts.listeners).into_iter();
    let mut listeners: Vec<TcpListener> = sockets.map(TcpListener::from_std).collect();
    for (at, listener) in listeners.iter_mut().enumerate() {
        let token = Token(TOKEN_LISTENERS + at);
        poll.registry().register(listener, token, Interest::READABLE)?;
    }
    let pipe = parts.lifecycle.pipe().as_raw_fd();
    poll.registry().register(&mut SourceFd(&pipe), TOKEN_SIGNALS, Interest::READABLE)?;
    let bell = parts.post.bell_fd().as_raw_fd();
    poll.registry().register(&mut SourceFd(&bell), TOKEN_BELL, Interest::READABLE)?;
    let driver = Epoll {
        poll,
        parts,
        listeners,
        connections: Vec::new(),
        ready: Vec::new(),
        unfinished: Vec::new(),
        scratch: vec![0; READ_BYTES].into_boxed_slice(),
        accept_again_at_ms: None,
    };
    driver.serve()
}

impl Epoll {
    fn serve(mut self) -> Result<(), IoError> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut now = self.parts.clock.now();
        while !self.parts.is_over(now) {
            if !self.finds_something(&mut events) {
                let timeout = self.timeout(now);
                match self.poll.poll(&mut events, timeout) {
                    Err(error) if error.kind() != ErrorKind::Interrupted => {
                        return Err(error.into());
                    }
                    _ => {}
                }
            }
            self.parts.post.awake();
            now = self.parts.clock.now();
            for conn in std::mem::take(&mut self.unfinished) {
                self.flush(conn, now);
            }
            for event in &events {
                match event.token() {
                    TOKEN_SIGNALS => self.handle_signals(now),
                    TOKEN_BELL => self.parts.post.answer_bell(),
                    Token(token) if token >= TOKEN_LISTENERS => self.accept_again_at_ms = Some(0),
                    Token(token) => {
                        let conn = ConnId::try_from(token).unwrap_or(ConnId::MAX);
                        self.note_ready(conn, event, now);
                    }
                }
            }
            if self.accept_again_at_ms.is_some_and(|at_ms| at_ms <= now.mono_ms) {
                self.accept(now);
            }
            self.parts.receive(now)?;
            for conn in std::mem::take(&mut self.ready) {
                self.read(conn, now);
            }
            self.parts.tick(now);
            self.look_for_lost_hosts(now);
            self.welcome_arrivals(now);
            while let Some(conn) = self.parts.next_dirty(now) {
                self.flush(conn, now);
            }
            self.parts.send();
        }
        Ok(())
    }

    fn shard(&mut self) -> &mut Shard {
        &mut self.parts.shard
    }

    /// Looks for something to do, for as long as that is wanted; what it finds of the kernel's is
    /// in `events` then.
    fn finds_something(&mut self, events: &mut Events) -> bool {
        if self.is_busy() {
            return false;
        }
        let Self { poll, parts, .. } = self;
        parts.busy_poll(|| poll.poll(events, Some(Duration::ZERO)).is_ok() && !events.is_empty())
    }

    fn is_busy(&self) -> bool {
        !self.ready.is_empty() || !self.unfinished.is_empty()
    }

    fn timeout(&mut self, now: Now) -> Option<Duration> {
        if self.is_busy() || !self.parts.may_sleep() {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.parts.deadline_ms(),
            self.parts.lifecycle.deadline_ms(now),
            self.accept_again_at_ms,
        ];
        wait_ms(now, deadlines).map(Duration::from_millis)
    }

    fn handle_signals(&mut self, now: Now) {
        self.parts.lifecycle.handle_signals(now);
        if !self.parts.lifecycle.accepts() {
            self.listeners.clear();
            self.accept_again_at_ms = None;
        }
    }

    fn note_ready(&mut self, conn: ConnId, event: &Event, now: Now) {
        let Some(Some(connection)) = self.connections.get_mut(conn as usize) else { return };
        connection.ended |= event.is_read_closed();
        connection.readable |= event.is_readable() || connection.ended;
        if event.is_writable() && !connection.writable {
            connection.writable = true;
            self.flush(conn, now);
        }
        self.queue_read(conn);
    }

    /// Puts a connection among those to be read, if the shard wants to.
    fn queue_read(&mut self, conn: ConnId) {
        let Some(Some(connection)) = self.connections.get_mut(conn as usize) else { return };
        let wanted = matches!(self.parts.shard.intake(conn), Intake::Read | Intake::Direct);
        if connection.readable && !connection.queued && wanted && self.parts.lifecycle.reads() {
            connection.queued = true;
            self.ready.push(conn);
        }
    }

    fn accept(&mut self, now: Now) {
        self.accept_again_at_ms = None;
        'listeners: for at in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                match self.listeners[at].accept() {
                    Ok((stream, address)) => self.add(stream, address, now),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue 'listeners,
                    Err(error)
                        if matches!(
                            error.raw_os_error(),
                            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                        ) =>
                    {
                        warn!(%error, "accepting rests: raise the limit with --file-descriptors");
                        self.accept_again_at_ms = Some(now.mono_ms + ACCEPT_PAUSE_MS);
                        return;
                    }
                    // The connection is gone already, or a signal came.
                    Err(error) => debug!(%error, "accept"),
                }
            }
            self.accept_again_at_ms = Some(now.mono_ms);
        }
    }

    fn add(&mut self, stream: TcpStream, peer: SocketAddr, now: Now) {
        let origin = Origin { fd: stream.as_raw_fd(), peer };
        let Ok(conn) = self.shard().connect(origin, now) else { return };
        self.attach(conn, stream, now);
    }

    fn welcome_arrivals(&mut self, now: Now) {
        for (conn, socket) in std::mem::take(&mut self.parts.arrivals) {
            if let Socket::Descriptor(descriptor) = socket {
                self.attach(conn, TcpStream::from_std(descriptor.into()), now);
            }
        }
    }

    fn attach(&mut self, conn: ConnId, mut stream: TcpStream, now: Now) {
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) =
            self.poll.registry().register(&mut stream, Token(conn as usize), interest)
        {
            warn!(%error, "connection dropped: it can't be polled");
            self.shard().disconnect(conn, now);
            return;
        }
        if self.connections.len() <= conn as usize {
            self.connections.resize_with(conn as usize + 1, || None);
        }
        self.connections[conn as usize] = Some(Connection {
            stream,
            sending: None,
            readable: false,
            ended: false,
            writable: true,
            queued: false,
            output: self.parts.liveness.begin(now.mono_ms),
        });
    }

    fn read(&mut self, conn: ConnId, now: Now) {
        let Some(Some(connection)) = self.connections.get_mut(conn as usize) else { return };
        connection.queued = false;
        connection.output.heard();
        for _ in 0..READS_PER_TURN {
            let Some(Some(connection)) = self.connections.get_mut(conn as usize) else { return };
            let read = match self.parts.shard.intake(conn) {
                Intake::Read => {
                    let result = (&connection.stream).read(&mut self.scratch);
                    let read = Read::of(result, READ_BYTES);
                    if let Read::Bytes(bytes, _) = read {
                        let bytes = self.scratch.get(..bytes).unwrap_or_default();
                        self.parts.shard.received(conn, bytes, now);
                    }
                    read
                }
                Intake::Direct => {
                    let Some((mut body, room_bytes)) = self.parts.shard.lend(conn) else { return };
                    let room = body.spare_capacity_mut();
                    let room = room.get_mut(..room_bytes).unwrap_or_default();
                    let result = SockRef::from(&connection.stream).recv(room);
                    let read = Read::of(result, room_bytes);
                    if let Read::Bytes(bytes, _) = read {
                        // SAFETY: the kernel says that it wrote so many bytes of the room.
                        #[allow(unsafe_code)]
                        unsafe {
                            body.set_len(body.len() + bytes);
                        }
                    }
                    self.parts.shard.give_back(conn, body, now);
                    read
                }
                Intake::Pause | Intake::Move | Intake::Close => return,
            };
            match read {
                Read::Bytes(_, false) => {}
                Read::Bytes(_, true) if connection.ended => {}
                Read::Bytes(_, true) | Read::Nothing => {
                    connection.readable = false;
                    return;
                }
                Read::End => {
                    connection.readable = false;
                    return self.parts.shard.ended(conn, now);
                }
                Read::Broken(error) => return self.break_off(conn, &error, now),
            }
        }
        self.queue_read(conn);
    }

    /// Writes what a connection has to send, and does what the shard wants done about it then.
    fn flush(&mut self, conn: ConnId, now: Now) {
        for _ in 0..WRITES_PER_TURN {
            let Some(Some(connection)) = self.connections.get_mut(conn as usize) else { return };
            if !connection.writable {
                break;
            }
            let shard = &mut self.parts.shard;
            let sending = connection.sending.take();
            let sending =
                sending.or_else(|| shard.take(conn).map(|(chunk, more)| (chunk, 0, more)));
            let Some((chunk, sent, more)) = sending else { break };
            self.parts.liveness.sent(&mut connection.output, now.mono_ms);
            let rest = chunk.as_ref().get(sent..).unwrap_or_default();
            let flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
            match SockRef::from(&connection.stream).send_with_flags(rest, flags) {
                Ok(bytes) if bytes == rest.len() => shard.sent(conn, chunk, now),
                Ok(bytes) => {
                    connection.sending = Some((chunk, sent + bytes, more));
                    shard.sent_some(conn, now);
                }
                Err(error) => {
                    connection.sending = Some((chunk, sent, more));
                    match error.kind() {
                        ErrorKind::WouldBlock => connection.writable = false,
                        ErrorKind::Interrupted => {}
                        _ => return self.break_off(conn, &error, now),
                    }
                }
            }
        }
        let Some(Some(connection)) = self.connections.get_mut(conn as usize) else { return };
        match self.parts.shard.intake(conn) {
            Intake::Close => return self.drop_connection(conn, now),
            Intake::Move => return self.hand_over(conn, now),
            Intake::Read | Intake::Direct | Intake::Pause => {}
        }
        if connection.writable
            && (connection.sending.is_some() || self.parts.shard.has_chunks(conn))
        {
            self.unfinished.push(conn);
        }
        self.queue_read(conn);
    }

    /// Lets a connection move to another core.
    fn hand_over(&mut self, conn: ConnId, now: Now) {
        let Some(hand_over) = self.parts.shard.begin_hand_over(conn) else { return };
        let Some(mut connection) = self.connections[conn as usize].take() else {
            return self.parts.shard.cancel_hand_over(hand_over);
        };
        // Its descriptor lives on, so it doesn't leave epoll by itself.
        let _ = self.poll.registry().deregister(&mut connection.stream);
        let descriptor = OwnedFd::from(std::net::TcpStream::from(connection.stream));
        self.parts.depart(hand_over, Socket::Descriptor(descriptor), now);
    }

    /// Looks at connections whose output may have gone nowhere.
    fn look_for_lost_hosts(&mut self, now: Now) {
        let liveness = &mut self.parts.liveness;
        for at in liveness.portion(self.connections.len(), now.mono_ms) {
            let Some(connection) = &mut self.connections[at] else { continue };
            let Connection { sending, output, stream, .. } = connection;
            let liveness = &mut self.parts.liveness;
            if liveness.is_in_doubt(output, sending.is_some())
                && let Ok(acks) = Acks::of(stream)
                && liveness.is_gone(output, &acks, sending.is_some(), now.mono_ms)
            {
                let taken = sending.as_ref().map_or(0, |(_, sent, _)| *sent);
                let beside = acks.queued_bytes.cast_signed() - taken.cast_signed();
                let conn = ConnId::try_from(at).unwrap_or(ConnId::MAX);
                self.shard().note_lost(conn, beside, HOST_GONE, now);
                self.drop_connection(conn, now);
            }
        }
    }

    /// Ends a connection that a system call says is broken.
    fn break_off(&mut self, conn: ConnId, error: &Error, now: Now) {
        if let Some(Some(connection)) = self.connections.get(conn as usize)
            && is_silence(error)
        {
            let taken = connection.sending.as_ref().map_or(0, |(_, sent, _)| *sent);
            self.shard().note_lost(conn, -taken.cast_signed(), HOST_SILENT, now);
        }
        self.drop_connection(conn, now);
    }

    fn drop_connection(&mut self, conn: ConnId, now: Now) {
        if let Some(mut connection) = self.connections[conn as usize].take() {
            // Closing the socket takes it out of epoll, too; this only tells mio.
            let _ = self.poll.registry().deregister(&mut connection.stream);
            self.parts.shard.disconnect(conn, now);
        }
    }
}
