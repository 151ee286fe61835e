//! TLS of one connection: records in, plaintext out; plaintext in, records out.
//!
//! The server's side of TLS 1.2 and 1.3, without sockets. `server` has what all connections share,
//! `fault` says why a handshake failed and what helps. The calls have the shape that rustls's own
//! will have from 0.24 on. Knows no Gearman.
//!
//! Invariant: no plaintext is given out, and none is sealed, before the handshake is finished; all
//! plaintext of the records that have come is given out before `received` returns.

mod fault;
mod server;
mod verifier;

use std::io::{BufRead as _, Read, Write as _};
use std::ops::ControlFlow;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ServerConnection};

pub use self::fault::{HandshakeResult, TlsFault};
pub use self::server::{ClientCertificates, Files, PemFile, TlsServer, Versions};

/// Memory that a connection's keys and buffers take while nothing is on its way, in round figures.
pub const TLS_CONNECTION_BYTES: usize = 8 << 10;

/// Most bytes that a peer may send before its handshake is finished: several long chains of
/// certificates. The library keeps them until a message is whole.
const HANDSHAKE_BYTES_MAX: usize = 24 << 10;

/// What records of the peer's have brought.
#[derive(Debug)]
pub enum TlsEvent<'a> {
    /// The handshake is finished.
    Finished {
        /// Whether the session of an earlier connection goes on, without another exchange of
        /// certificates.
        is_resumed: bool,
        /// The peer's certificate, and those that lead from it to an authority; empty if it has
        /// shown none.
        chain: &'a [CertificateDer<'static>],
    },
    /// Bytes for the protocol above.
    Plaintext(&'a [u8]),
    /// The peer will send nothing more.
    Closed,
}

/// The server's side of one connection.
#[derive(Debug)]
pub struct TlsConnection {
    connection: ServerConnection,
    /// Bytes that have come before the handshake was finished.
    handshake_bytes: usize,
    /// The handshake is finished.
    is_finished: bool,
    /// The peer's close_notify has come.
    is_ended: bool,
    /// The server's close_notify is sealed.
    is_closed: bool,
}

impl TlsConnection {
    /// A connection whose peer has said nothing yet.
    ///
    /// # Errors
    /// `TlsFault` if the library can't begin, for want of random bytes for instance.
    pub fn new(server: &TlsServer) -> Result<Self, TlsFault> {
        let mut connection =
            ServerConnection::new(Arc::clone(server.config())).map_err(|it| TlsFault::of(&it))?;
        // The outbox has the limit.
        connection.set_buffer_limit(None);
        Ok(Self {
            connection,
            handshake_bytes: 0,
            is_finished: false,
            is_ended: false,
            is_closed: false,
        })
    }

    /// Whether the peer has said anything.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.handshake_bytes > 0
    }

    /// Whether plaintext may be sealed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Takes records, whole or in pieces, and gives what they bring to `on`; a break ends that, and
    /// the rest of `records` is dropped.
    ///
    /// # Errors
    /// `TlsFault`: the connection is to be closed, once what `wants_write` tells of has left.
    pub fn received(
        &mut self,
        mut records: &[u8],
        mut on: impl FnMut(TlsEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(), TlsFault> {
        // The library takes no more than it has room for, and nothing behind a close_notify.
        while !records.is_empty() && !self.is_ended {
            let Ok(bytes) = self.connection.read_tls(&mut records as &mut dyn Read) else { break };
            if !self.is_finished {
                self.handshake_bytes += bytes;
            }
            let state = self.connection.process_new_packets().map_err(|it| TlsFault::of(&it))?;
            if self.connection.is_handshaking() && self.handshake_bytes > HANDSHAKE_BYTES_MAX {
                return Err(TlsFault::too_long());
            }
            if !self.is_finished && !self.connection.is_handshaking() {
                self.is_finished = true;
                let is_resumed = self.connection.handshake_kind() == Some(HandshakeKind::Resumed);
                let chain = self.connection.peer_certificates().unwrap_or_default();
                if on(TlsEvent::Finished { is_resumed, chain }).is_break() {
                    return Ok(());
                }
            }
            let mut reader = self.connection.reader();
            while let Ok(plaintext) = reader.fill_buf() {
                let bytes = plaintext.len();
                if bytes == 0 {
                    break;
                }
                let flow = on(TlsEvent::Plaintext(plaintext));
                reader.consume(bytes);
                if flow.is_break() {
                    return Ok(());
                }
            }
            if state.peer_has_closed() {
                self.is_ended = true;
                if on(TlsEvent::Closed).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The peer's certificate and those that lead from it to an authority.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        self.connection.peer_certificates().unwrap_or_default()
    }

    /// Appends records to `records`: those that the handshake wants to send, then as few as hold
    /// `plaintext`. Without plaintext it may be called at any time.
    pub fn seal(&mut self, plaintext: &[u8], records: &mut Vec<u8>) {
        debug_assert!(self.is_finished || plaintext.is_empty(), "sealed before the handshake");
        if !plaintext.is_empty() {
            // Without a limit all of it is taken.
            let sealed = self.connection.writer().write(plaintext);
            debug_assert!(sealed.is_ok_and(|sealed| sealed == plaintext.len()), "sealed whole");
        }
        self.write(records);
    }

    /// Appends a close_notify to `records`, once.
    pub fn close(&mut self, records: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.is_closed, true) {
            self.connection.send_close_notify();
            self.write(records);
        }
    }

    /// Whether a close_notify has been sealed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether `seal` has records to append even without plaintext: of the handshake, or an alert.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    fn write(&mut self, records: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // A vector takes everything.
            if self.connection.write_tls(records).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
