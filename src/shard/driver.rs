//! What a driver and the service that it runs tell each other. The server's service is the shard.
//!
//! The calls of `Service`, and values: where a connection comes from, what to do about its bytes,
//! what other cores have in use. Knows no event loop.
//!
//! Invariant: numbers of connections are the service's; descriptors are the driver's.

use super::cores::CoreSet;
use crate::engine::{ConnId, Now};
use crate::protocol::peer_address::PeerAddress;
use crate::wire::outbox::Chunk;

/// What a driver runs on one core: bytes of connections in, bytes to send out.
///
/// A driver calls, in this order within a turn of its loop:
///
/// 1. What the kernel says: `connect`, `received` or `lend` and `give_back`, `ended`, `sent`,
///    `sent_some`, `disconnect`; then `tick`, if `deadline_ms` has come.
/// 2. `poll_dirty` until there is none, and for each connection that it names `take` (send it) and
///    `intake` (receive, pause or close).
///
/// Everything else only looks. What a call causes is in the chunks of the dirty connections when it
/// returns. The defaults suit a service without timers, large bodies and log lines about peers.
pub trait Service: 'static {
    /// A connection has come.
    ///
    /// # Errors
    /// `TooManyConnections`: the driver is to close it.
    fn connect(&mut self, origin: Origin, now: Now) -> Result<ConnId, TooManyConnections>;

    /// Bytes have come.
    fn received(&mut self, conn: ConnId, bytes: &[u8], now: Now);

    /// The peer will send nothing more. What it sent is still handled and answered.
    fn ended(&mut self, conn: ConnId, now: Now);

    /// The connection is gone. Its number may be given to the next one at once.
    fn disconnect(&mut self, conn: ConnId, now: Now);

    /// A chunk has been sent whole.
    fn sent(&mut self, conn: ConnId, chunk: Chunk, now: Now);

    /// Some of a chunk has been sent: its peer reads.
    fn sent_some(&mut self, _conn: ConnId, _now: Now) {}

    /// Lends the allocation that a large body is to be received into, and how many bytes it has
    /// room for; see `Inbound::lend`.
    fn lend(&mut self, _conn: ConnId) -> Option<(Vec<u8>, usize)> {
        None
    }

    /// Takes a lent allocation back, with what was received behind its bytes.
    fn give_back(&mut self, _conn: ConnId, _body: Vec<u8>, _now: Now) {}

    /// Does what is due.
    fn tick(&mut self, _now: Now) {}

    /// When `tick` has to be called next, in milliseconds of `Now::mono_ms`.
    fn deadline_ms(&self) -> Option<u64> {
        None
    }

    /// The next connection about which `take` and `intake` may have something new to say; to be
    /// polled at the end of a batch until there is none. A connection that was disconnected
    /// meanwhile is never named.
    fn poll_dirty(&mut self, now: Now) -> Option<ConnId>;

    /// What is to be sent next, and whether more waits behind it. The driver holds it until
    /// `sent`.
    fn take(&mut self, conn: ConnId) -> Option<(Chunk, bool)>;

    /// Whether `take` has something to hand out.
    fn has_chunks(&self, conn: ConnId) -> bool;

    /// What to do about a connection's incoming bytes.
    fn intake(&self, conn: ConnId) -> Intake;

    /// Whether `poll_dirty` has requests to handle that waited.
    fn has_resumed(&self) -> bool {
        false
    }

    /// Whether the network may lose the peer's host, unlike that of a Unix socket.
    fn has_host(&self, _conn: ConnId) -> bool {
        true
    }

    /// Whether connections of a listener may be accepted now; `listener` is its place in
    /// `Settings::listeners`. The driver asks again in each turn until they may; a connection that
    /// it was accepting already may still come.
    fn may_accept(&self, _listener: u16) -> bool {
        true
    }

    /// Number of connections that came in on this core.
    fn connections(&self) -> usize;

    /// Whether every reply has left, on all connections.
    fn is_flushed(&self) -> bool;

    /// Says in the log that a connection is lost; `disconnect` is to follow. `beside` are bytes
    /// that the kernel has of it, less those of the driver's chunk that it has taken.
    fn note_lost(&mut self, _conn: ConnId, _beside: isize, _reason: &'static str, _now: Now) {}

    /// A connection broke, for what its peer did; `disconnect` follows.
    fn note_reset(&mut self, _conn: ConnId) {}
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Its descriptor, or what the driver has in its place: a number that no other connection of
    /// any core has as long as this one is there.
    pub fd: i32,
    /// Its peer.
    pub peer: PeerAddress,
    /// The listener that it came to, by its place in `Settings::listeners`.
    pub listener: u16,
}

/// What a driver should do about a connection's incoming bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Receive into any buffer and call `received`.
    Read,
    /// Receive into what `lend` gives and call `give_back`.
    Direct,
    /// Receive nothing now; ask again after `sent`.
    Pause,
    /// Receive nothing, and hand the connection over to its `begin_hand_over`: call `detach`, or
    /// `cancel_hand_over` if that can't be done. Nothing is left to be sent.
    Move,
    /// Nothing more comes in or goes out: call `disconnect` and close.
    Close,
}

/// What the other cores take of what all cores share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherCores {
    /// The sum of their `Shard::load_bytes`.
    pub bytes: isize,
    /// Connections.
    pub connections: usize,
    /// Cores that have few enough connections to take in more.
    pub accepting: CoreSet,
    /// The largest of their `Shard::largest_unread_bytes`.
    pub largest_unread_bytes: usize,
}

/// There are as many connections as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many connections")]
pub struct TooManyConnections;
