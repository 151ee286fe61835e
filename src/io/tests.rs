//! Event loops with a service that says when it may accept: connections wait in the queue of a
//! listener that is held back, while others come in by another.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use slab::Slab;

use super::*;
use crate::engine::{ConnId, Now};
use crate::shard::{Intake, Origin, TooManyConnections};
use crate::wire::outbox::{Chunk, Outbox};

const PATIENCE: Duration = Duration::from_secs(20);
/// More than there are accepts in flight.
const CONNECTIONS: usize = 40;

/// Greets each connection, repeats what it says, and opens and shuts the second listener on "+" and
/// "-".
#[derive(Default)]
struct Doorman {
    outboxes: Slab<Outbox>,
    dirty: Vec<ConnId>,
    /// Connections whose peers have ended.
    ended: Vec<ConnId>,
    is_open: bool,
}

impl Doorman {
    fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        self.outboxes[conn.index()].push_text(bytes);
        self.dirty.push(conn);
    }
}

impl Service for Doorman {
    fn connect(&mut self, origin: Origin, _: Now) -> Result<ConnId, TooManyConnections> {
        let conn = ConnId::from_index(self.outboxes.insert(Outbox::default()));
        self.say(conn, if origin.listener == 0 { b"0" } else { b"1" });
        Ok(conn)
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8], _: Now) {
        self.is_open = bytes.last().map_or(self.is_open, |&byte| byte == b'+');
        self.say(conn, bytes);
    }

    fn ended(&mut self, conn: ConnId, _: Now) {
        self.ended.push(conn);
        self.dirty.push(conn);
    }

    fn disconnect(&mut self, conn: ConnId, _: Now) {
        self.outboxes.remove(conn.index());
        self.ended.retain(|&ended| ended != conn);
        self.dirty.retain(|&dirty| dirty != conn);
    }

    fn sent(&mut self, conn: ConnId, chunk: Chunk, _: Now) {
        self.outboxes[conn.index()].sent(chunk);
    }

    fn poll_dirty(&mut self, _: Now) -> Option<ConnId> {
        self.dirty.pop()
    }

    fn take(&mut self, conn: ConnId) -> Option<(Chunk, bool)> {
        self.outboxes[conn.index()].take()
    }

    fn has_chunks(&self, conn: ConnId) -> bool {
        self.outboxes[conn.index()].has_chunks()
    }

    fn intake(&self, conn: ConnId) -> Intake {
        if self.ended.contains(&conn) { Intake::Close } else { Intake::Read }
    }

    fn may_accept(&self, listener: u16) -> bool {
        listener == 0 || self.is_open
    }

    fn connections(&self) -> usize {
        self.outboxes.len()
    }

    fn is_flushed(&self) -> bool {
        self.outboxes.iter().all(|(_, outbox)| outbox.is_empty())
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn expect(mut stream: &TcpStream, byte: u8) {
    let mut buffer = [0];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, [byte]);
}

/// Has the service repeat a byte, some turns long.
fn repeat(mut stream: &TcpStream, byte: u8) {
    for _ in 0..5 {
        stream.write_all(&[byte]).unwrap();
        expect(stream, byte);
    }
}

/// How many have been greeted; they are still to be read from.
fn greeted(streams: &[TcpStream]) -> usize {
    let is_greeted = |stream: &&TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        !peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    streams.iter().filter(is_greeted).count()
}

fn a_listener_is_held_back_while_others_accept(driver: Driver) {
    let event_loop = match choose(driver, CoreCount::exactly(1), 64, true) {
        Ok(event_loop) => event_loop,
        // Not printed: the test runner keeps that for tests that fail.
        Err(error) => return drop(writeln!(std::io::stderr(), "skipped: {error}")),
    };
    let host = || Endpoint::Host { host: "127.0.0.1".to_owned(), port: None };
    let spec = || ListenSpec { endpoint: host(), ..ListenSpec::LOOPBACK };
    let sockets =
        Sockets { cores: 1, backlog: 128, keep_alive: None, unix: UnixSockets::default() };
    let listeners = Listeners::open(&[spec(), spec()], "0", &sockets).unwrap();
    let addresses: Vec<SocketAddr> =
        listeners.places().iter().map(|place| place.parse().unwrap()).collect();
    let signals = Signals::install(1).unwrap().remove(0);
    let stopper = signals.stopper();
    let server =
        thread::spawn(move || serve(Doorman::default(), event_loop, listeners, signals, 1000));
    // The queue is there before the event loop is.
    let control = loop {
        match TcpStream::connect(addresses[0]) {
            Ok(stream) => break stream,
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
        }
    };
    control.set_read_timeout(Some(PATIENCE)).unwrap();
    expect(&control, b'0');
    let in_flight = if driver == Driver::Uring { 32 } else { 0 };
    for most in [0, in_flight] {
        let waiting: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(addresses[1])).collect();
        expect(&connect(addresses[0]), b'0');
        repeat(&control, b'-');
        assert!(greeted(&waiting) <= most, "{} are greeted", greeted(&waiting));
        repeat(&control, b'+');
        waiting.iter().for_each(|stream| expect(stream, b'1'));
        repeat(&control, b'-');
    }
    stopper.stop();
    server.join().unwrap().unwrap();
}

#[test]
fn a_listener_is_held_back_while_others_accept_on_epoll() {
    a_listener_is_held_back_while_others_accept(Driver::Epoll);
}

#[test]
fn a_listener_is_held_back_while_others_accept_on_uring() {
    a_listener_is_held_back_while_others_accept(Driver::Uring);
}

#[cfg(feature = "glommio")]
#[test]
fn a_listener_is_held_back_while_others_accept_on_glommio() {
    a_listener_is_held_back_while_others_accept(Driver::Glommio);
}
