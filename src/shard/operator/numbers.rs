//! One core's numbers, for metrics.
//!
//! What the shard counts in, one record out. Knows no names of metrics.
//!
//! Invariant: all of a record's numbers are of the same moment.

use crate::shard::Shard;
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
    /// Memory of its dead letters.
    pub dead_bytes: u64,
}

impl Shard {
    pub(super) fn core_numbers(&self) -> CoreNumbers {
        let [plain, tls, unix] = self.connections.kinds().map(|count| count as u64);
        let connections = ConnectionKinds { plain, tls, unix };
        let dead_bytes = self.engine.dead().bytes() as u64;
        CoreNumbers { stats: self.stats(), connections, dead_bytes }
    }
}
