//! The floor: what the same packets cost between the same sockets when nothing is decided about
//! them.
//!
//! A submission is answered with a handle that names its connection and goes, as the assignment
//! that it will be, to whichever worker asks next; a result goes to the connection in its handle.
//! No job records, no functions, no unique keys, no priorities, no timers, no recovery when a
//! worker is lost. Foreground loads get right answers from it, and no server that keeps jobs can be
//! cheaper on the same loop.
//!
//! Invariant: as many workers are woken and haven't asked yet as assignments wait, or none sleeps.

mod epoll;
mod uring;

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};
use ringgear::wire::frame::{self, Cut};
use ringgear::wire::{Arguments, Command, HEADER_BYTES, Magic, encode, header_bytes};
use socket2::{Domain, Socket, Type};

use crate::options::{EventLoop, RelayOptions};
use crate::process::raise_descriptors;

const BACKLOG: i32 = 1024;
/// Emptied buffers above this size aren't kept.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Serves until the process is ended.
pub(crate) fn run(options: &RelayOptions) -> Result<()> {
    let descriptors = raise_descriptors();
    let listener = listen(options.port)?;
    let address = listener.local_addr()?;
    let (relay, ready) = (Relay::default(), || eprintln!("listening on {address}"));
    match options.io {
        EventLoop::Epoll => epoll::run(listener, relay, ready),
        EventLoop::Uring => uring::run(&listener, relay, descriptors, ready),
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.bind(&address.into()).with_context(|| format!("can't listen on {address}"))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[derive(Debug, Default)]
struct Peer {
    /// An unfinished packet.
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    submitted: u64,
    is_asleep: bool,
    /// Has been woken and hasn't asked yet.
    is_woken: bool,
    is_dirty: bool,
}

/// What is being written to a connection, and how much of it has been.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    fn waits(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// What is left of it, or else all that the relay has for the connection.
    fn rest(&mut self, conn: usize, relay: &mut Relay) -> &[u8] {
        if self.sent == self.bytes.len() {
            self.bytes = relay.take(conn, std::mem::take(&mut self.bytes));
            self.sent = 0;
        }
        &self.bytes[self.sent..]
    }
}

/// Everything that the relay knows.
#[derive(Debug, Default)]
pub(super) struct Relay {
    peers: Vec<Option<Peer>>,
    /// Assignments that no worker has asked for yet, the oldest first, as they will be sent.
    waiting: VecDeque<Vec<u8>>,
    /// Buffers of assignments that have left.
    spare: Vec<Vec<u8>>,
    /// Workers that sleep, the latest last; those that don't any more are left in.
    sleepers: Vec<usize>,
    /// How many have been woken and haven't asked yet.
    woken: usize,
    dirty: Vec<usize>,
    handle: Vec<u8>,
}

impl Relay {
    fn peer(&mut self, conn: usize) -> Option<&mut Peer> {
        self.peers.get_mut(conn)?.as_mut()
    }

    pub(super) fn connect(&mut self, conn: usize) {
        if self.peers.len() <= conn {
            self.peers.resize_with(conn + 1, || None);
        }
        self.peers[conn] = Some(Peer::default());
    }

    pub(super) fn disconnect(&mut self, conn: usize) {
        self.end_wake(conn);
        self.peers[conn] = None;
        self.wake();
    }

    /// Handles some bytes of a connection.
    pub(super) fn received(&mut self, conn: usize, bytes: &[u8]) -> Result<()> {
        let Some(peer) = self.peer(conn) else { return Ok(()) };
        let mut inbox = std::mem::take(&mut peer.inbox);
        if inbox.is_empty() {
            let used = self.handle_all(conn, bytes)?;
            inbox.extend_from_slice(&bytes[used..]);
        } else {
            inbox.extend_from_slice(bytes);
            let used = self.handle_all(conn, &inbox)?;
            inbox.drain(..used);
        }
        if let Some(peer) = self.peer(conn) {
            peer.inbox = inbox;
        }
        Ok(())
    }

    /// The next connection that has bytes to be sent.
    pub(super) fn next_dirty(&mut self) -> Option<usize> {
        while let Some(conn) = self.dirty.pop() {
            if let Some(peer) = self.peer(conn) {
                peer.is_dirty = false;
                return Some(conn);
            }
        }
        None
    }

    /// All bytes to be sent to a connection, for an emptied buffer.
    pub(super) fn take(&mut self, conn: usize, mut emptied: Vec<u8>) -> Vec<u8> {
        let Some(peer) = self.peer(conn) else { return Vec::new() };
        emptied.clear();
        if emptied.capacity() > KEPT_BYTES_MAX {
            emptied = Vec::new();
        }
        std::mem::replace(&mut peer.outbox, emptied)
    }

    fn handle_all(&mut self, conn: usize, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        while let Cut::Packet { header, body } = frame::cut(&bytes[used..], 0)? {
            self.handle(conn, header.command, body)?;
            used += HEADER_BYTES + body.len();
        }
        Ok(used)
    }

    fn handle(&mut self, conn: usize, command: Command, body: &[u8]) -> Result<()> {
        match command {
            Command::SubmitJob | Command::SubmitJobBg => self.submit(conn, command, body)?,
            Command::GrabJob => self.grab(conn),
            Command::PreSleep => {
                self.end_wake(conn);
                self.sleepers.push(conn);
                if let Some(peer) = self.peer(conn) {
                    peer.is_asleep = true;
                }
                self.wake();
            }
            Command::WorkComplete => {
                if let Some(client) = client_of(body) {
                    self.push(client, |out| {
                        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
                        out.extend(header_bytes(Magic::Response, command, length));
                        out.extend_from_slice(body);
                    });
                }
            }
            Command::EchoReq => self.push(conn, |out| reply(out, Command::EchoRes, &[], body)),
            Command::OptionReq => {
                self.push(conn, |out| reply(out, Command::OptionRes, &[body], &[]));
            }
            Command::CanDo | Command::CantDo | Command::SetClientId | Command::ResetAbilities => {}
            _ => bail!("{} is beyond a relay", command.name()),
        }
        Ok(())
    }

    fn submit(&mut self, conn: usize, command: Command, body: &[u8]) -> Result<()> {
        let arguments = Arguments::split(command, body)?;
        let Some(peer) = self.peer(conn) else { return Ok(()) };
        peer.submitted += 1;
        let number = peer.submitted;
        let mut handle = std::mem::take(&mut self.handle);
        handle.clear();
        // A background job's result goes nowhere.
        let back = if command == Command::SubmitJob { conn } else { usize::MAX };
        write!(handle, "R:{back}:{number}:{conn}")?;
        self.push(conn, |out| reply(out, Command::JobCreated, &[&handle], &[]));
        let mut assignment = self.spare.pop().unwrap_or_default();
        assignment.clear();
        let payload = body.get(arguments.payload_at()..).unwrap_or_default();
        reply(&mut assignment, Command::JobAssign, &[&handle, arguments.part(0)], payload);
        self.waiting.push_back(assignment);
        self.handle = handle;
        self.wake();
        Ok(())
    }

    fn grab(&mut self, conn: usize) {
        self.end_wake(conn);
        match self.waiting.pop_front() {
            Some(assignment) => {
                self.push(conn, |out| out.extend_from_slice(&assignment));
                self.spare.push(assignment);
            }
            None => self.push(conn, |out| reply(out, Command::NoJob, &[], &[])),
        }
        self.wake();
    }

    /// Wakes as many sleepers as there are assignments without a worker on its way.
    fn wake(&mut self) {
        while self.woken < self.waiting.len()
            && let Some(worker) = self.sleepers.pop()
        {
            if let Some(peer) = self.peer(worker)
                && std::mem::take(&mut peer.is_asleep)
            {
                peer.is_woken = true;
                self.woken += 1;
                self.push(worker, |out| reply(out, Command::Noop, &[], &[]));
            }
        }
    }

    fn end_wake(&mut self, conn: usize) {
        let was_woken = self.peer(conn).is_some_and(|peer| std::mem::take(&mut peer.is_woken));
        self.woken -= usize::from(was_woken);
    }

    fn push(&mut self, conn: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(peer) = self.peer(conn) else { return };
        write(&mut peer.outbox);
        if !peer.is_dirty {
            peer.is_dirty = true;
            self.dirty.push(conn);
        }
    }
}

fn reply(out: &mut Vec<u8>, command: Command, arguments: &[&[u8]], payload: &[u8]) {
    encode(out, Magic::Response, command, arguments, payload);
}

/// The connection that a result is for: the first number of its handle.
fn client_of(body: &[u8]) -> Option<usize> {
    let digits = body.strip_prefix(b"R:")?.split(|&byte| byte == b':').next()?;
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(command: Command, arguments: &[&[u8]], payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, Magic::Request, command, arguments, payload);
        bytes
    }

    /// Commands that a connection is sent, and the handle in the first.
    fn sent(relay: &mut Relay, conn: usize) -> (Vec<Command>, Vec<u8>) {
        let bytes = relay.take(conn, Vec::new());
        let (mut commands, mut handle, mut at) = (Vec::new(), Vec::new(), 0);
        while let Cut::Packet { header, body } = frame::cut(&bytes[at..], 0).unwrap() {
            if commands.is_empty() {
                handle = body.split(|&byte| byte == 0).next().unwrap().to_vec();
            }
            commands.push(header.command);
            at += HEADER_BYTES + body.len();
        }
        (commands, handle)
    }

    #[test]
    fn a_job_goes_to_the_worker_that_asks_and_its_result_to_its_client() {
        let mut relay = Relay::default();
        for conn in 0..3 {
            relay.connect(conn);
        }
        relay.received(2, &request(Command::PreSleep, &[], &[])).unwrap();
        let submit = request(Command::SubmitJob, &[b"f", b""], b"payload");
        // In two pieces, as sockets do.
        relay.received(1, &submit[..5]).unwrap();
        relay.received(1, &submit[5..]).unwrap();
        let (commands, handle) = sent(&mut relay, 1);
        assert_eq!(commands, [Command::JobCreated]);
        assert_eq!(sent(&mut relay, 2).0, [Command::Noop]);

        relay.received(2, &request(Command::GrabJob, &[], &[])).unwrap();
        let (commands, assigned) = sent(&mut relay, 2);
        assert_eq!((commands, &assigned), (vec![Command::JobAssign], &handle));
        let mut bytes = request(Command::WorkComplete, &[&handle], b"result");
        bytes.extend(request(Command::GrabJob, &[], &[]));
        relay.received(2, &bytes).unwrap();
        assert_eq!(sent(&mut relay, 1).0, [Command::WorkComplete]);
        assert_eq!(sent(&mut relay, 2).0, [Command::NoJob]);
        assert_eq!(sent(&mut relay, 0).0, []);
    }

    #[test]
    fn a_job_that_a_woken_worker_will_take_wakes_no_other() {
        let mut relay = Relay::default();
        for conn in 0..4 {
            relay.connect(conn);
        }
        let ask = request(Command::GrabJob, &[], &[]);
        let submit = request(Command::SubmitJob, &[b"f", b""], b"");
        for worker in [1, 2] {
            relay.received(worker, &request(Command::PreSleep, &[], &[])).unwrap();
        }
        relay.received(0, &submit).unwrap();
        assert_eq!(sent(&mut relay, 2).0, [Command::Noop], "the latest to sleep");
        // A third worker is quicker, and another job comes: the one on the way will do.
        relay.received(3, &ask).unwrap();
        relay.received(0, &submit).unwrap();
        assert_eq!(sent(&mut relay, 1).0, []);
        relay.received(0, &submit).unwrap();
        assert_eq!(sent(&mut relay, 1).0, [Command::Noop], "one more than are on the way");
        // A worker that leaves isn't on the way any more.
        sent(&mut relay, 3);
        relay.received(3, &request(Command::PreSleep, &[], &[])).unwrap();
        assert_eq!(sent(&mut relay, 3).0, []);
        relay.disconnect(1);
        assert_eq!(sent(&mut relay, 3).0, [Command::Noop]);
    }

    #[test]
    fn no_worker_sleeps_beside_a_job() {
        let mut relay = Relay::default();
        relay.connect(0);
        relay.received(0, &request(Command::SubmitJob, &[b"f", b""], b"")).unwrap();
        relay.take(0, Vec::new());
        relay.received(0, &request(Command::PreSleep, &[], &[])).unwrap();
        assert_eq!(sent(&mut relay, 0).0, [Command::Noop]);
    }
}
