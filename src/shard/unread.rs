//! Connections with much unread output: how long they are read from, and which of them are closed
//! when memory runs short.
//!
//! As long as less than three quarters of the memory are taken, a peer may write all its requests
//! before it reads a reply, as loops of synchronous clients do: up to `Settings::outbox_bytes_max`
//! nothing stops it. Beyond, the largest outboxes are throttled (their requests wait, from the end
//! of the frame that is under way); at `Settings::memory_bytes_max` the largest one is closed.
//!
//! Invariant: a connection that is throttled has more than `OUTBOX_RESUME_BYTES` unread, and is
//! listed.

use tracing::warn;

use super::Shard;
use super::connections::{Closing, EndReason};
use super::limits::{OUTBOX_PAUSE_BYTES, OUTBOX_RESUME_BYTES};
use crate::engine::{ConnId, Now};

/// A throttled connection whose peer reads nothing for this long is closed.
const READ_NOTHING_MS: u64 = 60_000;
/// How often throttled connections are checked, and all listed ones where there are other cores:
/// those take memory and give it back without a message.
const CHECK_MS: u64 = 100;

/// Connections with more than `OUTBOX_PAUSE_BYTES` unread.
#[derive(Clone, Debug, Default)]
pub(super) struct Unread {
    /// All of them, and some that had as much since the last check.
    listed: Vec<ConnId>,
    /// Bytes of the largest outbox at the last check; 0 if none has more than `OUTBOX_PAUSE_BYTES`.
    largest_bytes: usize,
    /// When to check them again, if nothing else happens.
    check_at_ms: Option<u64>,
}

impl Unread {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.check_at_ms
    }

    /// Bytes that closing the connection with most unread would give back.
    #[inline]
    pub(super) fn largest_bytes(&self) -> usize {
        self.largest_bytes
    }
}

impl Shard {
    /// Bytes of the largest outbox of this core beyond 1 MiB; 0 if there is none.
    #[must_use]
    pub fn largest_unread_bytes(&self) -> usize {
        self.unread.largest_bytes
    }

    /// A connection was sent something, or has a request whose reply is to come, and has `bytes`
    /// unread now: that is within its bounds, or it is listed or closed.
    #[inline]
    pub(super) fn check_outbox(&mut self, conn: ConnId, bytes: usize, now: Now) {
        if bytes > OUTBOX_PAUSE_BYTES.min(self.settings.outbox_bytes_max) {
            self.check_large_outbox(conn, now);
        }
    }

    /// The same, after a request of the connection has gone to another core.
    pub(super) fn check_unread_of(&mut self, conn: ConnId, now: Now) {
        self.check_outbox(conn, self.connections[conn].outbox().bytes(), now);
    }

    #[inline(never)]
    fn check_large_outbox(&mut self, conn: ConnId, now: Now) {
        self.list_unread(conn);
        self.check_slow_reader(conn, now);
    }

    /// A connection has more than `OUTBOX_PAUSE_BYTES` unread.
    pub(super) fn list_unread(&mut self, conn: ConnId) {
        let connection = &mut self.connections[conn];
        if !std::mem::replace(&mut connection.is_listed, true) {
            self.unread.listed.push(conn);
        }
    }

    /// Closes a connection that has more unread than its limit. One packet of any size is let
    /// through, so what counts is what waited before the last packet.
    fn check_slow_reader(&mut self, conn: ConnId, now: Now) {
        let connection = &self.connections[conn];
        // A connection that is being handed over isn't written to meanwhile.
        if connection.outbox().bytes_before_last() > self.settings.outbox_bytes_max
            && connection.may_be_closed()
        {
            let why = "the peer doesn't read its replies, its outbox has reached --outbox-max; \
                       mend the peer, or raise the limit";
            self.close_unread(conn, why, now);
        }
    }

    /// Throttles, lets go on and closes connections with much unread, as memory demands; at the end
    /// of a batch.
    pub(super) fn check_unread(&mut self, now: Now) {
        let mut listed = std::mem::take(&mut self.unread.listed);
        listed.retain(|&conn| {
            // Its number may be another's by now.
            let Some(connection) = self.connections.get_mut(conn) else { return false };
            let stays = connection.outbox().bytes() > OUTBOX_RESUME_BYTES;
            connection.is_listed &= stays;
            connection.is_listed
        });
        let (memory_left, memory_max) = (self.memory_left(), self.settings.memory_bytes_max);
        let is_short = memory_left < memory_max / 4;
        // The less is left, the smaller are those that have to wait.
        let most = if is_short { (memory_left / 4).max(OUTBOX_PAUSE_BYTES) } else { usize::MAX };
        let has_others = self.settings.cores.count > 1 && !listed.is_empty();
        self.unread.check_at_ms = has_others.then_some(now.mono_ms + CHECK_MS);
        for &conn in &listed {
            self.check_throttle(conn, most, now);
        }
        self.unread.listed = listed;
        if memory_left == 0 {
            self.close_largest(now);
        }
        self.unread.largest_bytes = self.find_largest().map_or(0, |(_, bytes)| bytes);
    }

    fn check_throttle(&mut self, conn: ConnId, most: usize, now: Now) {
        let connection = &mut self.connections[conn];
        if !connection.may_be_closed() {
            return;
        }
        let bytes = connection.outbox().bytes();
        match connection.throttled {
            None if bytes > most => {
                connection.throttled = Some(now.mono_ms);
                connection.paused |= !connection.inbound().is_within_body();
                self.connections.mark_dirty(conn);
            }
            Some(_) if bytes <= most / 2 => {
                connection.throttled = None;
                self.connections.resume(conn);
                return;
            }
            Some(read_ms) if now.mono_ms >= read_ms + READ_NOTHING_MS => {
                let why = "memory is short, and the peer has read nothing of its outbox for a \
                           minute; mend the peer, or raise --memory-max";
                return self.close_unread(conn, why, now);
            }
            _ => {}
        }
        if self.connections[conn].throttled.is_some() {
            self.unread.check_at_ms = Some(now.mono_ms + CHECK_MS);
        }
    }

    /// Memory is used up: connections with most unread end until it isn't.
    fn close_largest(&mut self, now: Now) {
        let taken = self.taken_bytes();
        let mut excess = (taken + 1).saturating_sub(self.settings.memory_bytes_max);
        while excess > 0
            && let Some((conn, bytes)) = self.find_largest()
            && bytes >= self.other_cores.largest_unread_bytes
        {
            let why = "--memory-max is reached, and no other peer has so much unread in its \
                       outbox; mend the peer, or raise the limit";
            self.close_unread(conn, why, now);
            excess = excess.saturating_sub(bytes);
        }
    }

    fn find_largest(&self) -> Option<(ConnId, usize)> {
        let candidates = self.unread.listed.iter().filter_map(|&conn| {
            let connection = &self.connections[conn];
            let bytes = connection.outbox().bytes();
            let is_candidate = bytes > OUTBOX_PAUSE_BYTES && connection.may_be_closed();
            is_candidate.then_some((conn, bytes))
        });
        candidates.max_by_key(|&(_, bytes)| bytes)
    }

    fn close_unread(&mut self, conn: ConnId, why: &str, now: Now) {
        let connection = &mut self.connections[conn];
        connection.closing = Closing::Now;
        connection.end_reason = EndReason::Unread;
        let (peer, outbox) = (connection.origin.peer, connection.outbox().bytes());
        self.counters.slow_readers += 1;
        self.connections.mark_dirty(conn);
        self.complaints.log(now, || warn!(conn = conn.number(), %peer, outbox, "closed: {why}"));
    }
}
