//! TLS of the load's connections: ciphertext and plaintext in, the other out.
//!
//! Knows no sockets and no packets. `files` reads what the options name, `tickets` are for resumed
//! sessions, `fault` says why a handshake failed.
//!
//! Invariant: between two calls a session holds no plaintext that was received, as it takes no more
//! ciphertext beside 16 KiB of it.

mod fault;
mod files;
mod tickets;

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use crate::error::Error;
use crate::options::Options;

/// What all sessions of a run share; the tickets of earlier ones, too.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    /// That the server's certificate must be for.
    name: ServerName<'static>,
    options: Options,
}

impl Tls {
    /// By the options; `None` without `--tls`.
    pub(crate) fn new(options: &Options) -> Result<Option<Self>, Error> {
        if !options.tls {
            return Ok(None);
        }
        let name = files::server_name(options)?;
        let config = Arc::new(files::config(options)?);
        Ok(Some(Self { config, name, options: options.clone() }))
    }

    /// A session for a new connection.
    pub(crate) fn session(&self) -> Result<Session, rustls::Error> {
        let mut connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        // What is sealed is bounded by the caller.
        connection.set_buffer_limit(None);
        Ok(Session { connection })
    }

    /// The fault behind the end of a connection; `error` is `None` where the server just closed.
    pub(crate) fn fault(&self, addr: SocketAddr, error: Option<&rustls::Error>) -> Error {
        Error::Tls { addr, problem: fault::sentence(error, &self.options) }
    }
}

/// The TLS state of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    connection: ClientConnection,
}

impl Session {
    /// Takes what the server sent, and hands out the plaintext in it.
    pub(crate) fn received(
        &mut self,
        mut cipher: &[u8],
        plain: &mut dyn FnMut(&[u8]),
    ) -> Result<(), rustls::Error> {
        while !cipher.is_empty() {
            // Reads of a slice don't fail; behind the server's close_notify nothing is taken.
            if !matches!(self.connection.read_tls(&mut cipher), Ok(1..)) {
                break;
            }
            let processed = self.connection.process_new_packets();
            // Before an error, and with the message that ends the handshake, there may be some.
            let mut reader = self.connection.reader();
            while let Ok(chunk @ [_, ..]) = reader.fill_buf() {
                let bytes = chunk.len();
                plain(chunk);
                reader.consume(bytes);
            }
            processed?;
        }
        Ok(())
    }

    /// Appends to `cipher` what is to be sent: messages of the handshake, and `plain` once that is
    /// over.
    pub(crate) fn seal(&mut self, plain: &[u8], cipher: &mut Vec<u8>) {
        // Writes to memory without a limit don't fail.
        let _ = self.connection.writer().write_all(plain);
        while self.connection.wants_write() {
            let _ = self.connection.write_tls(cipher);
        }
    }

    /// Whether `seal` has something to append even without plaintext.
    pub(crate) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// How the handshake went; `None` while it isn't over.
    pub(crate) fn handshake(&self) -> Option<HandshakeKind> {
        self.connection.handshake_kind().filter(|_| !self.connection.is_handshaking())
    }
}
