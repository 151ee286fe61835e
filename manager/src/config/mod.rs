//! The file in, what it asks for out.
//!
//! `file` reads the top level, `table` a worker's table. Touches no kernel: `crate::machine` checks
//! afterwards what depends on this machine (users, folders, programs). Knows neither processes nor
//! sockets.
//!
//! Invariant: a `Config` is complete, with defaults filled in, and within its limits.

mod file;
mod keys;
mod server;
mod table;
#[cfg(test)]
mod tests;
mod worker;

use std::path::PathBuf;

pub use self::file::{File, Lines};
pub use self::keys::{KEYS, TLS_KEYS, WORKER_KEYS};
pub use self::server::{HttpAddress, Server};
pub use self::worker::{Mode, Stderr, Worker};

/// What the file asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where jobs come from; never empty.
    pub servers: Vec<Server>,
    /// Where `/metrics` and `/healthz` are served; `None` = nowhere.
    pub http: Option<HttpAddress>,
    /// TLS to all servers that are no Unix sockets; `None` = plain.
    pub tls: Option<TlsFiles>,
    /// The `[[worker]]` tables, in the order of the file; names are unique.
    pub workers: Vec<Worker>,
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
