//! Connections that are lost because their peers can't be reached any more: the line that says so.
//!
//! The driver finds out and closes them. Knows no socket and no time-out. Invariant: the line says
//! where the peer was, why it was given up, and how many bytes it doesn't get.

use std::net::SocketAddr;

use tracing::warn;

use super::Shard;
use crate::engine::{ConnId, Now};

impl Shard {
    /// Says in the log that a connection is lost; `disconnect` is to follow. `peer` is where it
    /// came from if the driver knows more than the address; `beside` are bytes that the kernel has
    /// of it, less those of the chunk in the driver's hands that it has taken.
    pub fn note_lost(
        &mut self,
        conn: ConnId,
        peer: Option<SocketAddr>,
        beside: isize,
        reason: &'static str,
        now: Now,
    ) {
        let connection = &self.connections[conn as usize];
        let ip = connection.origin.ip;
        let unsent_bytes = connection.outbox.bytes().saturating_add_signed(beside);
        let peer = peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port()));
        let peer = peer.map_or_else(|| ip.to_string(), |peer| peer.to_string());
        self.complain(now, |_| warn!(conn, %peer, unsent_bytes, "closed: {reason}"), ip);
    }
}
