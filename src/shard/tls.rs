//! TLS of this core's connections: records in, frames out to `frames`; what the certificate of a
//! peer says goes to `access`.
//!
//! Handshakes are bounded in number and time. Peers that speak without TLS get their answer without
//! TLS. Files that were read anew are looked at again for the connections that are open, some in
//! each turn. Knows no files.
//!
//! Invariant: no frame of a connection is handled before its handshake is finished and its
//! certificate, if it has shown one, is verified.

use std::ops::ControlFlow;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tracing::{Level, enabled, info, warn};

use super::Shard;
use super::connections::{Closing, EndReason, Transport};
use super::job_log::PEERS;
use super::packet_log;
use super::remote::message::Message;
use crate::engine::{ConnId, Now};
use crate::protocol::access::Certificate;
use crate::wire::outbox::Chunk;
use crate::wire::tls::{HandshakeResult, TlsConnection, TlsEvent, TlsFault, TlsServer};
use crate::wire::{ErrorReply, Response};

/// Certificates of open connections that are verified again in a turn: each takes up to 0.1 ms.
const VERIFIED_PER_TURN: usize = 16;
/// Handshakes that are closed in a turn because they have taken too long.
const LATE_PER_TURN: usize = 16;
/// Time between two looks at how long the server's certificate is still valid.
const REMARK_INTERVAL_MS: u64 = 24 * 60 * 60 * 1000;

/// What a core has of the server's TLS.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    server: Option<Arc<TlsServer>>,
    /// How often files were read anew.
    files: u32,
    /// The next connection, by number, whose certificate is to be verified again.
    to_verify: Option<u32>,
    /// When the next look at the server's certificate is due, in milliseconds of `Now::mono_ms`.
    remark_at_ms: Option<u64>,
}

impl Tls {
    pub(super) fn new(server: Option<Arc<TlsServer>>, is_first_core: bool, now: Now) -> Self {
        let has_remarks = server.is_some() && is_first_core;
        let remark_at_ms = has_remarks.then_some(now.mono_ms + REMARK_INTERVAL_MS);
        Self { server, files: 0, to_verify: None, remark_at_ms }
    }

    /// When `tick` has something to do.
    #[inline]
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        if self.to_verify.is_some() { Some(0) } else { self.remark_at_ms }
    }

    /// Until when the server's certificate is valid, in seconds since 1970.
    pub(super) fn not_after_s(&self) -> Option<u64> {
        self.server.as_ref().map(|server| server.not_after_s())
    }
}

/// Handshakes.
impl Shard {
    /// Whether a listener speaks TLS.
    pub(super) fn speaks_tls(&self, listener: u16) -> bool {
        let listener = self.settings.listeners.get(usize::from(listener));
        listener.is_some_and(|listener| listener.speaks_tls)
    }

    /// A connection has come to a listener that speaks TLS.
    pub(super) fn begin_tls(&mut self, conn: ConnId, now: Now) {
        let Some(server) = &self.tls.server else {
            debug_assert!(false, "a listener speaks TLS, and the server has none");
            self.connections[conn].closing = Closing::Now;
            return;
        };
        match TlsConnection::new(server) {
            Ok(tls) => {
                self.connections.replace_transport(conn, Transport::tls(tls, self.tls.files));
                let generation = self.connections[conn].generation;
                let timeout_ms = self.settings.handshake_timeout_ms;
                self.handshakes.begin(conn, generation, timeout_ms, now);
            }
            Err(fault) => self.fail_tls(conn, &fault, now),
        }
    }

    /// Handles records of a connection that speaks TLS.
    #[inline(never)]
    pub(super) fn received_records(&mut self, conn: ConnId, records: &[u8], now: Now) {
        if self.connections[conn].closing != Closing::No {
            return;
        }
        let Some(mut tls) = self.connections[conn].transport.take_tls() else { return };
        let first = records.first().filter(|_| !tls.is_begun());
        if let Some(first) = first.copied().filter(|&byte| is_plain(byte)) {
            self.connections[conn].transport.put_back(tls);
            return self.refuse_plain(conn, first, now);
        }
        let (mut fault, mut has_ended) = (None, false);
        let result = tls.received(records, |event| {
            match event {
                TlsEvent::Finished { is_resumed, chain } => {
                    if let Err(error) = self.finish_handshake(conn, is_resumed, chain, now) {
                        fault = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                TlsEvent::Plaintext(bytes) => self.handle_frames(conn, bytes, now),
                TlsEvent::Closed => has_ended = true,
            }
            ControlFlow::Continue(())
        });
        self.connections[conn].transport.put_back(tls);
        if has_ended {
            self.connections[conn].ended = true;
            self.handle_frames(conn, &[], now);
        }
        if let Some(fault) = fault.or_else(|| result.err()) {
            self.fail_tls(conn, &fault, now);
        }
        // There may be records to send.
        self.connections.mark_dirty(conn);
    }

    /// The handshake is finished: its peer is known from here on.
    fn finish_handshake(
        &mut self,
        conn: ConnId,
        is_resumed: bool,
        chain: &[CertificateDer<'_>],
        now: Now,
    ) -> Result<(), TlsFault> {
        // The library looks at certificates in full handshakes only, and by the files that a
        // handshake began with.
        let is_verified = !is_resumed && self.connections[conn].transport.files() == self.tls.files;
        if !is_verified && let Some(server) = &self.tls.server {
            server.verify(chain, now.unix_ms / 1000)?;
        }
        let result = if is_resumed { HandshakeResult::Resumed } else { HandshakeResult::Full };
        self.end_handshake(conn, Some(result));
        let certificate = chain.first().map(|it| Arc::new(Certificate::read(it)));
        if enabled!(target: PEERS, Level::INFO) {
            let names = certificate.as_ref().and_then(|certificate| certificate.name());
            let (result, peer) = (result.name(), self.connections[conn].origin.peer);
            info!(target: PEERS, conn = conn.number(), %peer, result, names, "TLS handshake");
        }
        self.connections[conn].transport.certificate = certificate;
        self.admit(conn);
        Ok(())
    }

    fn end_handshake(&mut self, conn: ConnId, result: Option<HandshakeResult>) {
        if std::mem::take(&mut self.connections[conn].transport.is_handshaking) {
            self.handshakes.end(result);
        }
    }

    /// A connection is about to be forgotten: its handshake, if it is open, has failed.
    pub(super) fn abandon_handshake(&mut self, conn: ConnId) {
        let is_begun = self.connections[conn].transport.records().is_some_and(|it| it.is_begun());
        self.end_handshake(conn, is_begun.then_some(HandshakeResult::Protocol));
    }

    /// Closes a connection that can't go on with TLS, once the alert has left.
    #[cold]
    fn fail_tls(&mut self, conn: ConnId, fault: &TlsFault, now: Now) {
        let connection = &mut self.connections[conn];
        let is_finished = connection.transport.records().is_none_or(TlsConnection::is_finished);
        if connection.may_be_closed() {
            // After the handshake replies may wait for a peer that takes none.
            let was_open = !is_finished || connection.transport.is_handshaking;
            connection.closing = if was_open { Closing::Flushing } else { Closing::Now };
            connection.end_reason = EndReason::Handshake;
        }
        self.end_handshake(conn, Some(fault.result));
        self.connections.mark_dirty(conn);
        self.log_tls_fault(conn, fault, now);
    }

    /// Writes a line, at most one a second for an address and a reason.
    fn log_tls_fault(&mut self, conn: ConnId, fault: &TlsFault, now: Now) {
        let peer = self.connections[conn].origin.peer;
        let key = (peer.host(), fault.reason.clone());
        if let Some(repeated) = self.tls_faults.note(key, now) {
            let TlsFault { reason, remedy, subject, .. } = fault;
            warn!(%peer, reason, subject, remedy, repeated, "tls refused");
        }
    }

    /// Writes how many such lines were left out.
    pub(super) fn report_tls_faults(&mut self, now: Now) {
        self.tls_faults.report(now, |key, repeated| match key {
            Some((host, reason)) => warn!(peer = %host, reason, repeated, "tls refused"),
            None => warn!(repeated, "tls refused: peers of too many addresses for a line each"),
        });
    }

    /// Closes handshakes that have taken too long, some in a turn: those of a flood are due at the
    /// same moment.
    pub(super) fn close_late_handshakes(&mut self, now: Now) {
        for _ in 0..LATE_PER_TURN {
            let Some((conn, generation)) = self.handshakes.pop_late(now) else { return };
            let is_late = self.connections.get(conn).is_some_and(|connection| {
                connection.generation == generation && connection.transport.is_handshaking
            });
            if is_late {
                self.fail_tls(conn, &TlsFault::timeout(), now);
                self.connections[conn].closing = Closing::Now;
            }
        }
    }

    /// Answers a peer that speaks without TLS in its own way, and closes its connection.
    #[cold]
    fn refuse_plain(&mut self, conn: ConnId, first: u8, now: Now) {
        let fault = TlsFault::plain_bytes();
        self.end_handshake(conn, Some(fault.result));
        self.log_tls_fault(conn, &fault, now);
        self.connections.replace_transport(conn, Transport::default());
        match first {
            0 => self.push(conn, &Response::Error(ErrorReply::TlsRequired), now),
            _ => self.push_text(
                conn,
                b"ERR TLS_REQUIRED this+port+speaks+TLS+only\r\n".to_vec(),
                now,
            ),
        }
        let connection = &mut self.connections[conn];
        connection.closing = Closing::Flushing;
        connection.end_reason = EndReason::Handshake;
        self.connections.mark_dirty(conn);
    }

    /// The next records to send, and whether more wait behind them.
    #[inline(never)]
    pub(super) fn take_records(&mut self, conn: ConnId) -> Option<(Chunk, bool)> {
        self.connections.take_records(conn, |chunk| {
            if let Chunk::Packets(bytes) = chunk {
                packet_log::log_sent(conn, bytes);
            }
        })
    }
}

/// Files that were read anew.
impl Shard {
    /// Uses these files from now on, here and on all other cores. To be called on one core.
    pub fn set_tls(&mut self, server: &Arc<TlsServer>) {
        for core in self.others_and_http() {
            self.outgoing.send(core, Message::Tls(Arc::clone(server)));
        }
        self.use_tls(Arc::clone(server));
    }

    pub(super) fn use_tls(&mut self, server: Arc<TlsServer>) {
        self.tls.server = Some(server);
        self.tls.files += 1;
        self.tls.to_verify = Some(0);
    }

    /// Looks at the certificates of some open connections again, if files have changed, and at the
    /// server's own once a day.
    pub(super) fn tick_tls(&mut self, now: Now) {
        if let Some(first) = self.tls.to_verify {
            let end = self.connections.places();
            let mut left = VERIFIED_PER_TURN;
            let mut next = first;
            while next < end && left > 0 {
                left -= usize::from(self.verify_again(ConnId::from_number(next), now));
                next += 1;
            }
            self.tls.to_verify = Some(next).filter(|&next| next < end);
        }
        if self.tls.remark_at_ms.take_if(|at_ms| *at_ms <= now.mono_ms).is_some() {
            self.tls.remark_at_ms = Some(now.mono_ms + REMARK_INTERVAL_MS);
            let remarks = self.tls.server.as_ref().map(|it| it.remarks(now.unix_ms / 1000));
            remarks.iter().flatten().for_each(|remark| warn!("{remark}"));
        }
    }

    /// Closes a connection whose certificate isn't accepted any more. Returns whether there was
    /// anything to verify.
    pub(super) fn verify_again(&mut self, conn: ConnId, now: Now) -> bool {
        let Some(server) = &self.tls.server else { return false };
        let Some(connection) = self.connections.get_mut(conn) else { return false };
        let Some(tls) = connection.transport.records().filter(|tls| tls.is_finished()) else {
            return false;
        };
        if let Err(fault) = server.verify(tls.chain(), now.unix_ms / 1000)
            && connection.may_be_closed()
        {
            connection.closing = Closing::Now;
            connection.end_reason = EndReason::Certificate;
            self.connections.mark_dirty(conn);
            self.log_tls_fault(conn, &fault, now);
        }
        true
    }
}

/// Whether a connection's first byte is that of a packet or of a text line, not of TLS.
fn is_plain(byte: u8) -> bool {
    byte == 0 || byte.is_ascii_graphic() || byte.is_ascii_whitespace()
}
