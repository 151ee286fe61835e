//! The floor: what the same packets cost between the same sockets when nothing is decided about
//! them.
//!
//! It runs on the server's own event loops, in place of its shard. A submission is answered with a
//! handle that names its connection and goes, as the assignment that it will be, to whichever
//! worker asks next; a result goes to the connection in its handle. No job records, no functions,
//! no unique keys, no priorities, no timers, no recovery when a worker is lost.
//!
//! Invariant: as many workers are woken and haven't asked yet as assignments wait, or none sleeps.

use std::collections::VecDeque;
use std::io::Write;

use anyhow::{Result, bail};
use ringgear::engine::{ConnId, Now};
use ringgear::io::log::{Log, LogFormat, LogSettings, Verbosity};
use ringgear::io::{
    self, CoreCount, Endpoint, ListenSpec, Listeners, Signals, Sockets, UnixSockets, process,
};
use ringgear::shard::{Intake, Origin, Service, TooManyConnections};
use ringgear::wire::buffer_pool::BufferPool;
use ringgear::wire::inbound::{Arrival, Bounds, Inbound};
use ringgear::wire::outbox::{Chunk, Outbox, PacketBatch};
use ringgear::wire::{Command, Grab, Request, Response, Submit};
use slab::Slab;

use crate::options::RelayOptions;

/// The server's defaults.
const BACKLOG: u32 = 1024;
pub(crate) const RING_ENTRIES: u32 = 1024;

/// Serves until the process is ended.
pub(crate) fn run(options: &RelayOptions) -> Result<()> {
    let (target, format, verbosity) = ("stderr", LogFormat::Text, Verbosity::Notice);
    Log::start(LogSettings { target, format, syslog: false, verbosity })?;
    let (_, descriptors) = process::raise_descriptors(None)?;
    let signals = Signals::install(1)?.remove(0);
    let event_loop = io::choose(options.io, CoreCount::exactly(1), RING_ENTRIES, true)?;
    let connections = io::connection_limits(event_loop.driver(), descriptors, 1).per_core;
    let sockets =
        Sockets { cores: 1, backlog: BACKLOG, keep_alive: None, unix: UnixSockets::default() };
    let endpoint = Endpoint::Host { host: "127.0.0.1".to_owned(), port: None };
    let spec = ListenSpec { endpoint, ..ListenSpec::LOOPBACK };
    let listeners = Listeners::open(&[spec], &options.port.to_string(), &sockets)?;
    let connections_max = usize::try_from(connections).unwrap_or(usize::MAX);
    Ok(io::serve(Relay::new(), event_loop, listeners, signals, connections_max)?)
}

#[derive(Debug, Default)]
struct Peer {
    inbound: Inbound,
    outbox: Outbox,
    submitted: u64,
    is_asleep: bool,
    /// Has been woken and hasn't asked yet.
    is_woken: bool,
    is_dirty: bool,
    /// It sends nothing more, or nothing that a relay understands.
    is_ending: bool,
}

/// Everything that the relay knows.
#[derive(Debug)]
struct Relay {
    peers: Slab<Peer>,
    /// Memory of large bodies, as the server has it.
    buffer_pool: BufferPool,
    /// Assignments that no worker has asked for yet, the oldest first.
    waiting: VecDeque<PacketBatch>,
    /// Workers that sleep, the latest last; those that don't any more are left in.
    sleepers: Vec<usize>,
    /// How many have been woken and haven't asked yet.
    woken: usize,
    dirty: Vec<usize>,
    handle: Vec<u8>,
}

impl Service for Relay {
    fn connect(&mut self, _: Origin, _: Now) -> Result<ConnId, TooManyConnections> {
        Ok(ConnId::from_index(self.peers.insert(Peer::default())))
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8], _: Now) {
        self.handle_all(conn.index(), bytes);
    }

    fn ended(&mut self, conn: ConnId, _: Now) {
        self.end(conn.index());
    }

    fn disconnect(&mut self, conn: ConnId, _: Now) {
        self.end_wake(conn.index());
        self.peers.remove(conn.index());
        self.wake();
    }

    fn sent(&mut self, conn: ConnId, chunk: Chunk, _: Now) {
        self.peers[conn.index()].outbox.sent(chunk);
    }

    fn lend(&mut self, conn: ConnId) -> Option<(Vec<u8>, usize)> {
        self.peers[conn.index()].inbound.lend()
    }

    fn give_back(&mut self, conn: ConnId, body: Vec<u8>, _: Now) {
        self.peers[conn.index()].inbound.give_back(body);
        self.handle_all(conn.index(), &[]);
    }

    fn tick(&mut self, now: Now) {
        self.buffer_pool.age(now.mono_ms);
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.buffer_pool.deadline_ms()
    }

    fn poll_dirty(&mut self, _: Now) -> Option<ConnId> {
        while let Some(conn) = self.dirty.pop() {
            if let Some(peer) = self.peers.get_mut(conn) {
                peer.is_dirty = false;
                return Some(ConnId::from_index(conn));
            }
        }
        None
    }

    fn take(&mut self, conn: ConnId) -> Option<(Chunk, bool)> {
        self.peers[conn.index()].outbox.take()
    }

    fn has_chunks(&self, conn: ConnId) -> bool {
        self.peers[conn.index()].outbox.has_chunks()
    }

    fn intake(&self, conn: ConnId) -> Intake {
        match &self.peers[conn.index()] {
            Peer { is_ending: true, .. } => Intake::Close,
            peer if peer.inbound.wants_direct() => Intake::Direct,
            _ => Intake::Read,
        }
    }

    fn connections(&self) -> usize {
        self.peers.len()
    }

    fn is_flushed(&self) -> bool {
        self.peers.iter().all(|(_, peer)| peer.outbox.is_empty())
    }
}

impl Relay {
    fn new() -> Self {
        Self {
            peers: Slab::new(),
            buffer_pool: BufferPool::new(usize::MAX),
            waiting: VecDeque::new(),
            sleepers: Vec::new(),
            woken: 0,
            dirty: Vec::new(),
            handle: Vec::new(),
        }
    }

    fn handle_all(&mut self, conn: usize, mut bytes: &[u8]) {
        let buffer_pool = self.buffer_pool.clone();
        let bounds = Bounds {
            body_bytes_max: usize::MAX,
            memory_left: usize::MAX,
            buffer_pool: Some(&buffer_pool),
        };
        let mut inbound = std::mem::take(&mut self.peers[conn].inbound);
        while !self.peers[conn].is_ending {
            let handled = match inbound.next(&mut bytes, bounds) {
                Ok(None) => break,
                Ok(Some(Arrival::Packet { header, body })) => Request::parse(header, body)
                    .map_err(Into::into)
                    .and_then(|request| self.handle(conn, &request)),
                Ok(Some(arrival)) => Err(anyhow::anyhow!("{arrival:?} is beyond a relay")),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = handled {
                eprintln!("relay: {error}");
                self.end(conn);
            }
        }
        self.peers[conn].inbound = inbound;
    }

    /// Has the driver close a connection.
    fn end(&mut self, conn: usize) {
        self.peers[conn].is_ending = true;
        self.mark_dirty(conn);
    }

    fn handle(&mut self, conn: usize, request: &Request<'_>) -> Result<()> {
        match request {
            Request::Submit(submit) => self.submit(conn, submit)?,
            Request::GrabJob(Grab::Plain) => self.grab(conn),
            Request::PreSleep => {
                self.end_wake(conn);
                self.sleepers.push(conn);
                self.peers[conn].is_asleep = true;
                self.wake();
            }
            Request::Work(work) if work.command == Command::WorkComplete => {
                if let Some(client) = client_of(work.handle) {
                    self.push(client, &Response::Work { command: work.command, body: work.body });
                }
            }
            &Request::Echo { payload } => self.push(conn, &Response::EchoRes { payload }),
            Request::Option { name } => self.push(conn, &Response::OptionRes { name }),
            Request::CanDo { .. }
            | Request::CantDo { .. }
            | Request::SetClientId { .. }
            | Request::ResetAbilities => {}
            other => bail!("{other:?} is beyond a relay"),
        }
        Ok(())
    }

    fn submit(&mut self, conn: usize, submit: &Submit<'_>) -> Result<()> {
        self.peers[conn].submitted += 1;
        let number = self.peers[conn].submitted;
        let mut handle = std::mem::take(&mut self.handle);
        handle.clear();
        // A background job's result goes nowhere.
        let back = if submit.background { usize::MAX } else { conn };
        write!(handle, "R:{back}:{number}:{conn}")?;
        self.push(conn, &Response::JobCreated { handle: &handle });
        let mut assignment = PacketBatch::default();
        assignment.push(&Response::JobAssign {
            grab: Grab::Plain,
            handle: &handle,
            function: submit.function,
            unique: &[],
            reducer: &[],
            payload: submit.body.from(submit.payload_at.into()),
        });
        self.waiting.push_back(assignment);
        self.handle = handle;
        self.wake();
        Ok(())
    }

    fn grab(&mut self, conn: usize) {
        self.end_wake(conn);
        match self.waiting.pop_front() {
            Some(assignment) => {
                self.peers[conn].outbox.push_batch(assignment);
                self.mark_dirty(conn);
            }
            None => self.push(conn, &Response::NoJob),
        }
        self.wake();
    }

    /// Wakes as many sleepers as there are assignments without a worker on its way.
    fn wake(&mut self) {
        while self.woken < self.waiting.len()
            && let Some(worker) = self.sleepers.pop()
        {
            if let Some(peer) = self.peers.get_mut(worker)
                && std::mem::take(&mut peer.is_asleep)
            {
                peer.is_woken = true;
                self.woken += 1;
                self.push(worker, &Response::Noop);
            }
        }
    }

    fn end_wake(&mut self, conn: usize) {
        let was_woken = std::mem::take(&mut self.peers[conn].is_woken);
        self.woken -= usize::from(was_woken);
    }

    fn push(&mut self, conn: usize, response: &Response<'_>) {
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.outbox.push(response);
            self.mark_dirty(conn);
        }
    }

    fn mark_dirty(&mut self, conn: usize) {
        if !std::mem::replace(&mut self.peers[conn].is_dirty, true) {
            self.dirty.push(conn);
        }
    }
}

/// The connection that a result is for: the first number of its handle.
fn client_of(handle: &[u8]) -> Option<usize> {
    let digits = handle.strip_prefix(b"R:")?.split(|&byte| byte == b':').next()?;
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use ringgear::wire::frame::{self, Cut};
    use ringgear::wire::{HEADER_BYTES, Magic, encode};

    use super::*;

    fn request(command: Command, arguments: &[&[u8]], payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, Magic::Request, command, arguments, payload);
        bytes
    }

    const NOW: Now = Now { mono_ms: 0, unix_ms: 0 };

    /// A relay with so many connections.
    fn relay(connections: usize) -> (Relay, Vec<ConnId>) {
        let mut relay = Relay::new();
        let origin = Origin { fd: 0, peer: (std::net::Ipv4Addr::LOCALHOST, 1).into(), listener: 0 };
        let connections = (0..connections).map(|_| relay.connect(origin, NOW).unwrap());
        let connections = connections.collect();
        (relay, connections)
    }

    /// Commands that a connection is sent, and the handle in the first.
    fn sent(relay: &mut Relay, conn: ConnId) -> (Vec<Command>, Vec<u8>) {
        let (mut commands, mut handle, mut at) = (Vec::new(), Vec::new(), 0);
        let Some((chunk, _)) = relay.take(conn) else { return (commands, handle) };
        let bytes = chunk.as_ref();
        while let Cut::Packet { header, body } = frame::cut(&bytes[at..], 0).unwrap() {
            if commands.is_empty() {
                handle = body.split(|&byte| byte == 0).next().unwrap().to_vec();
            }
            commands.push(header.command);
            at += HEADER_BYTES + body.len();
        }
        relay.sent(conn, chunk, NOW);
        (commands, handle)
    }

    #[test]
    fn a_job_goes_to_the_worker_that_asks_and_its_result_to_its_client() {
        let (mut relay, conns) = relay(3);
        relay.received(conns[2], &request(Command::PreSleep, &[], &[]), NOW);
        let submit = request(Command::SubmitJob, &[b"f", b""], b"payload");
        // In two pieces, as sockets do.
        relay.received(conns[1], &submit[..5], NOW);
        relay.received(conns[1], &submit[5..], NOW);
        let (commands, handle) = sent(&mut relay, conns[1]);
        assert_eq!(commands, [Command::JobCreated]);
        assert_eq!(sent(&mut relay, conns[2]).0, [Command::Noop]);

        relay.received(conns[2], &request(Command::GrabJob, &[], &[]), NOW);
        let (commands, assigned) = sent(&mut relay, conns[2]);
        assert_eq!((commands, &assigned), (vec![Command::JobAssign], &handle));
        let mut bytes = request(Command::WorkComplete, &[&handle], b"result");
        bytes.extend(request(Command::GrabJob, &[], &[]));
        relay.received(conns[2], &bytes, NOW);
        assert_eq!(sent(&mut relay, conns[1]).0, [Command::WorkComplete]);
        assert_eq!(sent(&mut relay, conns[2]).0, [Command::NoJob]);
        assert_eq!(sent(&mut relay, conns[0]).0, []);
        assert!(relay.is_flushed());
    }

    #[test]
    fn a_job_that_a_woken_worker_will_take_wakes_no_other() {
        let (mut relay, conns) = relay(4);
        let ask = request(Command::GrabJob, &[], &[]);
        let submit = request(Command::SubmitJob, &[b"f", b""], b"");
        for worker in [1, 2] {
            relay.received(conns[worker], &request(Command::PreSleep, &[], &[]), NOW);
        }
        relay.received(conns[0], &submit, NOW);
        assert_eq!(sent(&mut relay, conns[2]).0, [Command::Noop], "the latest to sleep");
        // A third worker is quicker, and another job comes: the one on the way will do.
        relay.received(conns[3], &ask, NOW);
        relay.received(conns[0], &submit, NOW);
        assert_eq!(sent(&mut relay, conns[1]).0, []);
        relay.received(conns[0], &submit, NOW);
        assert_eq!(sent(&mut relay, conns[1]).0, [Command::Noop], "one more than are on the way");
        // A worker that leaves isn't on the way any more.
        sent(&mut relay, conns[3]);
        relay.received(conns[3], &request(Command::PreSleep, &[], &[]), NOW);
        assert_eq!(sent(&mut relay, conns[3]).0, []);
        relay.disconnect(conns[1], NOW);
        assert_eq!(sent(&mut relay, conns[3]).0, [Command::Noop]);
    }

    #[test]
    fn no_worker_sleeps_beside_a_job() {
        let (mut relay, conns) = relay(1);
        relay.received(conns[0], &request(Command::SubmitJob, &[b"f", b""], b""), NOW);
        sent(&mut relay, conns[0]);
        relay.received(conns[0], &request(Command::PreSleep, &[], &[]), NOW);
        assert_eq!(sent(&mut relay, conns[0]).0, [Command::Noop]);
    }

    #[test]
    fn a_connection_ends_with_its_peer_or_with_a_packet_that_is_beyond_a_relay() {
        let (mut relay, conns) = relay(2);
        relay.ended(conns[0], NOW);
        relay.received(conns[1], &request(Command::SetClientId, &[b"x"], &[]), NOW);
        assert_eq!(relay.intake(conns[1]), Intake::Read);
        relay.received(conns[1], &request(Command::GetStatus, &[b"R:1:1:1"], &[]), NOW);
        let mut dirty = Vec::from_iter(std::iter::from_fn(|| relay.poll_dirty(NOW)));
        dirty.sort_unstable();
        assert_eq!(dirty, conns);
        assert!(conns.iter().all(|&conn| relay.intake(conn) == Intake::Close));
    }
}
