//! Lines about peers and what they lose: connections whose hosts can't be reached any more, results
//! that come too late; and how many such lines there may be.
//!
//! The driver finds out about the former and closes them. Knows no socket and no time-out.
//! Invariant: a line says where the peer was, why it or its packet was given up, and how many bytes
//! it doesn't get; lines that are left out are counted in a line of their own.

use tracing::warn;

use super::Shard;
use super::connections::EndReason;
use crate::engine::{ConnId, Now};

/// Lines about peers that are logged a second; the others are counted.
const LINES_PER_SECOND: u64 = 20;

/// Lines about peers in one second.
#[derive(Clone, Debug, Default)]
pub(super) struct Complaints {
    second: u64,
    count: u64,
}

impl Complaints {
    fn left_out(&self) -> u64 {
        self.count.saturating_sub(LINES_PER_SECOND)
    }

    /// When the log is to be told how many were left out.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        (self.left_out() > 0).then_some((self.second + 1) * 1000)
    }
}

impl Complaints {
    /// Logs a line about a peer unless the second has had enough of them.
    pub(super) fn log(&mut self, now: Now, log: impl Fn()) {
        self.report_left_out(now);
        self.count += 1;
        if self.left_out() == 0 {
            log();
        }
    }

    /// Logs how many lines were left out, when their second is over.
    pub(super) fn report_left_out(&mut self, now: Now) {
        let second = now.mono_ms / 1000;
        if self.second == second {
            return;
        }
        let left_out = self.left_out();
        if left_out > 0 {
            warn!(left_out, "more lines about peers were left out: too many in a second");
        }
        *self = Self { second, count: 0 };
    }
}

impl Shard {
    /// Says in the log that a connection is lost; `disconnect` is to follow. `beside` are bytes
    /// that the kernel has of it, less those of the driver's chunk that it has taken.
    pub(super) fn log_lost(&mut self, conn: ConnId, beside: isize, reason: &'static str, now: Now) {
        let connection = &mut self.connections[conn];
        connection.end_reason = EndReason::HostGone;
        let peer = connection.origin.peer;
        let unsent_bytes = connection.outbox().bytes().saturating_add_signed(beside);
        self.complaints
            .log(now, || warn!(conn = conn.number(), %peer, unsent_bytes, "closed: {reason}"));
    }

    /// Says that a result was refused since another worker has the job.
    pub(super) fn note_late(&mut self, conn: ConnId, number: u64, now: Now) {
        let peer = self.connections[conn].origin.peer;
        let handle = self.settings.handles.text(number);
        let handle = handle.as_ref().escape_ascii();
        self.complaints.log(now, || {
            warn!(
                conn = conn.number(), %peer, %handle,
                "result refused: its time was over, another worker has it; the function needs a \
                 longer CAN_DO_TIMEOUT"
            );
        });
    }
}
