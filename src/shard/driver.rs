//! What a shard and its driver tell each other, beside bytes.
//!
//! Values only: where a connection comes from, what to do about its bytes, what other cores have
//! in use. Knows no event loop.
//!
//! Invariant: numbers of connections are the shard's; descriptors are the driver's.

use std::net::SocketAddr;

use super::cores::CoreSet;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Its descriptor, or what the driver has in its place: a number that no other connection of
    /// any core has as long as this one is there.
    pub fd: i32,
    /// Its peer's address and port.
    pub peer: SocketAddr,
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
