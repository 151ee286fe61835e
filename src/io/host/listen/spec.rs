//! Where to listen, as the configuration says it.
//!
//! Values only: knows no sockets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::PortOption;
use super::unix::UnixSockets;

/// The name of loopback.
pub(super) const LOCALHOST: &str = "localhost";

/// Where to listen, as one `--listen` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSpec {
    /// The words; none for loopback without `--listen`.
    pub name: Option<Arc<str>>,
    /// What they mean.
    pub endpoint: Endpoint,
    /// Whether its connections speak TLS.
    pub speaks_tls: bool,
}

/// What to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Loopback of both families, on the port that `--port` says. IPv4 is enough where there is no
    /// IPv6.
    Loopback,
    /// All addresses of a host.
    Host {
        /// Its name or address, without brackets; empty: this host's, of all its interfaces.
        host: String,
        /// A number or a service's name; `None` = the one that `--port` says.
        port: Option<String>,
    },
    /// A Unix socket at this path, which begins with a slash.
    Unix(PathBuf),
}

impl Endpoint {
    /// Whether it is loopback of both families, where IPv4 is enough if there is no IPv6.
    pub(super) fn is_loopback(&self) -> bool {
        match self {
            Self::Loopback => true,
            Self::Host { host, .. } => host == LOCALHOST,
            Self::Unix(_) => false,
        }
    }

    /// Whether it has ports, unlike a Unix socket.
    #[must_use]
    pub fn has_port(&self) -> bool {
        matches!(self, Self::Loopback | Self::Host { .. })
    }
}

impl ListenSpec {
    /// Loopback, without TLS.
    pub const LOOPBACK: Self = Self { name: None, endpoint: Endpoint::Loopback, speaks_tls: false };

    /// Its port, or `default`, and which option says it; `None` if it takes none.
    pub(super) fn port<'a>(&'a self, default: &'a str) -> Option<(&'a str, PortOption)> {
        match &self.endpoint {
            Endpoint::Host { port: Some(port), .. } => Some((port, PortOption::Listen)),
            Endpoint::Host { port: None, .. } | Endpoint::Loopback => {
                Some((default, PortOption::Port))
            }
            Endpoint::Unix(_) => None,
        }
    }
}

/// When a silent peer is probed, and when its connection is ended.
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes without an answer.
    pub count: u32,
}

/// Options of the sockets.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// Cores that each listen.
    pub cores: usize,
    /// Connections that may wait to be accepted.
    pub backlog: u32,
    /// Probing of silent peers.
    pub keep_alive: Option<KeepAlive>,
    /// Files of Unix sockets.
    pub unix: UnixSockets,
}
