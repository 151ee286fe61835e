//! The file in, what it asks for out.
//!
//! Touches no kernel: `host` checks afterwards what depends on this machine (users, folders,
//! programs). Knows neither processes nor sockets.
//!
//! Invariant: a `Config` is complete, with defaults filled in, and within its limits.

mod worker;

use std::path::PathBuf;

pub use self::worker::{Mode, Stderr, Worker};

/// What the file asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where jobs come from; never empty.
    pub servers: Vec<Server>,
    /// Where `/metrics` and `/healthz` are served, as `HOST:PORT`.
    pub http: Option<String>,
    /// TLS to all servers that are no Unix sockets; `None` = plain.
    pub tls: Option<TlsFiles>,
    /// The `[[worker]]` tables, in the order of the file; names are unique.
    pub workers: Vec<Worker>,
}

/// A job server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// A host name or address, without brackets, and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port, by default 4730.
        port: u16,
    },
    /// A Unix socket, `unix:/PATH` in the file.
    Unix(PathBuf),
}

/// The `[tls]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of authorities, PEM; `None` = those of the system.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its chain, PEM; with `key`.
    pub certificate: Option<PathBuf>,
    /// The client's private key, PEM; with `certificate`.
    pub key: Option<PathBuf>,
}
