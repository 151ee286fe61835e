//! Connections that are lost because their peers can't be reached any more: the line that says so.
//!
//! The driver finds out and closes them. Knows no socket and no time-out. Invariant: the line says
//! where the peer was, why it was given up, and how many bytes it doesn't get.

use tracing::warn;

use super::Shard;
use crate::engine::{ConnId, Now};

impl Shard {
    /// Says in the log that a connection is lost; `disconnect` is to follow. `beside` are bytes
    /// that the kernel has of it, less those of the driver's chunk that it has taken.
    pub fn note_lost(&mut self, conn: ConnId, beside: isize, reason: &'static str, now: Now) {
        let connection = &self.connections[conn as usize];
        let peer = connection.origin.peer;
        let unsent_bytes = connection.outbox.bytes().saturating_add_signed(beside);
        self.complain(now, || warn!(conn, %peer, unsent_bytes, "closed: {reason}"));
    }
}
