//! One core's numbers, for metrics.
//!
//! What the shard counts in, one record out. Knows no names of metrics.
//!
//! Invariant: all of a record's numbers are of the same moment.

use crate::protocol::peer_address::PeerAddress;
use crate::shard::Shard;
use crate::shard::connections::Connection;
use crate::shard::stats::Stats;

/// Connections by how they came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionKinds {
    /// TCP without TLS.
    pub plain: u64,
    /// TCP with TLS.
    pub tls: u64,
    /// Unix sockets.
    pub unix: u64,
}

/// What a core counts and has.
#[derive(Clone, Debug, Default)]
pub struct CoreNumbers {
    /// What `stats` tells.
    pub stats: Stats,
    /// Its connections.
    pub connections: ConnectionKinds,
}

impl Shard {
    pub(super) fn core_numbers(&self) -> CoreNumbers {
        let mut connections = ConnectionKinds::default();
        for (_, connection) in self.connections.iter_local() {
            *kind_of(connection, &mut connections) += 1;
        }
        CoreNumbers { stats: self.stats(), connections }
    }
}

fn kind_of<'a>(connection: &Connection, kinds: &'a mut ConnectionKinds) -> &'a mut u64 {
    match connection.origin.peer {
        PeerAddress::Unix(_) => &mut kinds.unix,
        PeerAddress::Ip(_) if connection.transport.is_plain() => &mut kinds.plain,
        PeerAddress::Ip(_) => &mut kinds.tls,
    }
}
