//! Bytes of a connection on their way to the gate: one frame after the other, as far as limits, and
//! what the connection waits for, allow.
//!
//! Bytes in, frames to `gate`. Knows when a connection has to wait, not what its frames mean.
//!
//! Invariant: frames are handled in their order, and what can't be handled yet is kept.

use tracing::warn;

use super::Shard;
use super::connections::{Closing, EndReason};
use super::limits::{INBOUND_PAUSE_BYTES, OUTBOX_PAUSE_BYTES, OUTBOX_RESUME_BYTES, SLOTS_PAUSE};
use super::refusals::Kind;
use super::remote::migration::Migration;
use crate::engine::{ConnId, Now};
use crate::wire::frame::{self, Cut};
use crate::wire::inbound::{Bounds, Inbound};
use crate::wire::{ErrorReply, FrameError, HEADER_BYTES, Payload, Request, Response};

/// A TLS record: the fatal alert handshake_failure (RFC 5246, 7.2), of version 1.0, which peers of
/// any version read.
const TLS_HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 1, 0, 2, 2, 40];

/// Frames that are looked at before the first of them is handled: as many as memory serves side by
/// side.
const FRAMES_AHEAD: usize = 16;

/// Whether a connection's next request may be handled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// It is kept until something has come or left.
    Waiting,
    /// It is dropped.
    Closing,
}

impl Shard {
    /// Handles `input` and what waited before it, as far as the outbox allows.
    pub(super) fn handle_frames(&mut self, conn: ConnId, mut input: &[u8], now: Now) {
        let mut inbound = self.connections.take_inbound(conn);
        // So much of the input is left when all that was looked at ahead has been handled.
        let mut looked_until = if self.engine.is_deep() { usize::MAX } else { 0 };
        loop {
            match self.readiness(conn, &inbound, now) {
                Readiness::Ready => {}
                Readiness::Waiting => {
                    inbound.stash(input);
                    break;
                }
                Readiness::Closing => break,
            }
            if input.is_empty() && inbound.is_empty() {
                self.finish_if_ended(conn, now);
                break;
            }
            if input.len() <= looked_until && inbound.is_empty() {
                looked_until = self.look_ahead(input);
            }
            // What can be had by closing a connection that doesn't read is as good as free.
            let memory_left = self.memory_left();
            let bounds = Bounds {
                body_bytes_max: self.settings.body_bytes_max,
                memory_left: memory_left + self.unread.largest_bytes(),
                buffer_pool: Some(&self.settings.buffer_pool),
            };
            match inbound.next(&mut input, bounds) {
                Ok(Some(arrival)) => {
                    self.outgoing.begin_frame();
                    self.handle_arrival(conn, arrival, memory_left, now);
                    self.check_messages(conn);
                }
                Ok(None) => {
                    self.finish_if_ended(conn, now);
                    break;
                }
                Err(error) => {
                    match error {
                        FrameError::Tls => self.refuse_tls(conn, now),
                        FrameError::Body => {
                            self.push(conn, &Response::Error(ErrorReply::BodyTooLarge), now);
                            self.close_malformed(conn, &error, now);
                        }
                        error => self.close_malformed(conn, &error, now),
                    }
                    break;
                }
            }
        }
        if self.connections.return_inbound(conn, inbound) > INBOUND_PAUSE_BYTES {
            let connection = &mut self.connections[conn];
            connection.paused |= connection.is_grabbing()
                || connection.listing.is_some()
                || connection.migration != Migration::No;
            self.reconsider_migration(conn);
        }
        self.consider_offload(conn);
    }

    /// Prepares the engine for the next submissions, which start with the input. Returns how much
    /// of it comes after these.
    #[inline(never)]
    fn look_ahead(&self, mut input: &[u8]) -> usize {
        for _ in 0..FRAMES_AHEAD {
            let Ok(Cut::Packet { header, body }) = frame::cut(input, 0) else { return 0 };
            if let Ok(Request::Submit(submit)) = Request::parse(header, Payload::borrowed(body)) {
                self.engine.look_ahead(submit.function, submit.unique);
            }
            input = input.get(HEADER_BYTES + body.len()..).unwrap_or_default();
        }
        input.len()
    }

    /// Everything that the peer sent is handled. If it will send nothing more and waits for no
    /// reply, it is gone for the engine, and for the driver once its replies have left.
    #[inline]
    fn finish_if_ended(&mut self, conn: ConnId, now: Now) {
        let connection = &self.connections[conn];
        if connection.ended && connection.outbox().held() == 0 {
            self.finish(conn, now);
        }
    }

    #[inline(never)]
    fn finish(&mut self, conn: ConnId, now: Now) {
        self.connections[conn].closing = Closing::Flushing;
        self.engine.disconnect(conn, now);
        self.engine.connect(conn);
        self.leave_others(conn);
        self.deliver(None, now);
    }

    /// Whether a connection's next request may be handled. Goes on with a list, if one is being
    /// written, and with a migration.
    #[inline(always)]
    fn readiness(&mut self, conn: ConnId, inbound: &Inbound, now: Now) -> Readiness {
        let mut connection = &mut self.connections[conn];
        if connection.closing != Closing::No {
            return Readiness::Closing;
        }
        if connection.listing.is_some() || connection.migration != Migration::No {
            if self.advance(conn, now) {
                return Readiness::Waiting;
            }
            connection = &mut self.connections[conn];
        }
        if connection.is_grabbing() {
            // A reply away; it isn't worth telling the driver, unless the peer sends on and on.
            connection.paused = false;
            return Readiness::Waiting;
        }
        if connection.outbox().bytes() <= OUTBOX_RESUME_BYTES {
            connection.throttled = None;
        }
        // A body that has begun to come is received: its sender may read nothing until it has left.
        let throttled = connection.throttled.is_some() && !inbound.is_within_body();
        connection.paused =
            throttled || connection.blocked || connection.outbox().held() >= SLOTS_PAUSE;
        // What is left of a list goes on when its last part has left.
        match connection.paused || connection.listing.is_some() {
            true => Readiness::Waiting,
            false => Readiness::Ready,
        }
    }

    /// Goes on with a list and with a migration. Returns whether requests have to wait for the
    /// migration.
    #[inline(never)]
    fn advance(&mut self, conn: ConnId, now: Now) -> bool {
        let connection = &mut self.connections[conn];
        if connection.outbox().bytes() <= OUTBOX_PAUSE_BYTES
            && let Some(progress) = connection.listing.take()
        {
            self.go_on_listing(conn, progress, now);
        }
        let waits =
            self.connections[conn].migration != Migration::No && self.advance_migration(conn);
        if waits {
            let connection = &mut self.connections[conn];
            connection.paused = connection.blocked;
        }
        waits
    }

    /// Closes a connection whose peer begins a TLS handshake, once the alert that says so has left.
    #[cold]
    fn refuse_tls(&mut self, conn: ConnId, now: Now) {
        self.push_text(conn, TLS_HANDSHAKE_FAILURE.to_vec(), now);
        let connection = &mut self.connections[conn];
        connection.closing = Closing::Flushing;
        connection.end_reason = EndReason::Tls;
        self.counters.malformed += 1;
        self.connections.mark_dirty(conn);
        self.count_refusal(Kind::Tls, conn, now);
    }

    /// Closes a connection whose bytes aren't Gearman's, once its replies have left.
    pub(super) fn close_malformed(
        &mut self,
        conn: ConnId,
        error: &dyn std::error::Error,
        now: Now,
    ) {
        let connection = &mut self.connections[conn];
        connection.closing = Closing::Flushing;
        connection.end_reason = EndReason::Malformed;
        let peer = connection.origin.peer;
        self.counters.malformed += 1;
        self.connections.mark_dirty(conn);
        self.complaints.log(now, || {
            warn!(
                conn = conn.number(), %peer, %error,
                "closed: malformed bytes; mend the program at that address, or point it elsewhere"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Settings;
    use crate::wire::{Command, Magic, encode};

    #[test]
    fn what_is_looked_at_ahead_ends_with_a_frame_and_goes_on_behind_it() {
        let shard = Shard::new(Settings::default(), Now::default());
        let mut frames = Vec::new();
        encode(&mut frames, Magic::Request, Command::EchoReq, &[], b"submit me");
        for number in 1..FRAMES_AHEAD {
            let key = number.to_string();
            let arguments: [&[u8]; 2] = [b"resize", key.as_bytes()];
            encode(&mut frames, Magic::Request, Command::SubmitJobBg, &arguments, b"image");
        }
        assert_eq!(shard.look_ahead(&frames), 0);
        let whole = frames.len();
        for (rest, left) in [(&b"\0REQ"[..], 4), (b"status\n", 7), (b"\0RES garbage ", 13)] {
            frames.truncate(whole);
            frames.extend_from_slice(rest);
            assert_eq!(shard.look_ahead(&frames), left, "they come next");
            // What is no whole packet isn't looked at, nor what comes behind it.
            assert_eq!(shard.look_ahead(&frames[whole..]), 0, "{rest:?}");
        }
        assert_eq!(shard.look_ahead(&[]), 0);
    }
}
