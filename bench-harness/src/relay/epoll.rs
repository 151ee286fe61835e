//! The relay on epoll (mio): as the server's driver of that name, without what a relay doesn't
//! need.
//!
//! Sockets are registered once, edge-triggered; a turn reads what is ready, then writes each dirty
//! connection once.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;

use anyhow::Result;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::{Outgoing, Relay};

const EVENTS_PER_TURN: usize = 1024;
const READ_BYTES: usize = 64 << 10;
const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    sending: Outgoing,
}

struct Epoll {
    poll: Poll,
    listener: mio::net::TcpListener,
    relay: Relay,
    connections: Slab<Connection>,
    scratch: Box<[u8]>,
}

pub(super) fn run(listener: TcpListener, relay: Relay, ready: impl FnOnce()) -> Result<()> {
    listener.set_nonblocking(true)?;
    let mut listener = mio::net::TcpListener::from_std(listener);
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let scratch = vec![0; READ_BYTES].into_boxed_slice();
    let mut epoll = Epoll { poll, listener, relay, connections: Slab::new(), scratch };
    ready();
    let mut events = Events::with_capacity(EVENTS_PER_TURN);
    loop {
        match epoll.poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => epoll.accept()?,
                Token(conn) => {
                    if event.is_readable() || event.is_read_closed() {
                        epoll.read(conn);
                    }
                    let connection = epoll.connections.get(conn);
                    if event.is_writable() && connection.is_some_and(|it| it.sending.waits()) {
                        epoll.write(conn);
                    }
                }
            }
        }
        while let Some(conn) = epoll.relay.next_dirty() {
            epoll.write(conn);
        }
    }
}

impl Epoll {
    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let entry = self.connections.vacant_entry();
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    self.poll.registry().register(&mut stream, Token(entry.key()), interest)?;
                    self.relay.connect(entry.key());
                    entry.insert(Connection { stream, sending: Outgoing::default() });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read(&mut self, conn: usize) {
        loop {
            let Some(connection) = self.connections.get_mut(conn) else { return };
            match connection.stream.read(&mut self.scratch) {
                Ok(0) => return self.close(conn),
                Ok(bytes) => {
                    if let Err(error) = self.relay.received(conn, &self.scratch[..bytes]) {
                        eprintln!("relay: {error}");
                        return self.close(conn);
                    }
                    // A short read means that the kernel's buffer is empty.
                    if bytes < READ_BYTES {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close(conn),
            }
        }
    }

    fn write(&mut self, conn: usize) {
        loop {
            let Some(connection) = self.connections.get_mut(conn) else { return };
            let Connection { stream, sending } = connection;
            let rest = sending.rest(conn, &mut self.relay);
            if rest.is_empty() {
                return;
            }
            match stream.write(rest) {
                Ok(bytes) => sending.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close(conn),
            }
        }
    }

    fn close(&mut self, conn: usize) {
        if let Some(mut connection) = self.connections.try_remove(conn) {
            let _ = self.poll.registry().deregister(&mut connection.stream);
            self.relay.disconnect(conn);
        }
    }
}
