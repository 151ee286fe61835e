//! Lines about what is lost: connections whose peers can't be reached any more, and results that
//! come too late.
//!
//! The driver finds out about the former and closes them. Knows no socket and no time-out.
//! Invariant: a line says where the peer was, why it or its packet was given up, and how many bytes
//! it doesn't get.

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

    /// Says that a result was refused since another worker has the job.
    pub(super) fn note_late(&mut self, conn: ConnId, number: u64, now: Now) {
        let peer = self.connections[conn as usize].origin.peer;
        let handle = self.settings.handles.text(number);
        let handle = handle.as_ref().escape_ascii();
        self.complain(now, || {
            warn!(conn, %peer, %handle, "result refused: its time was over, another worker has it");
        });
    }
}
