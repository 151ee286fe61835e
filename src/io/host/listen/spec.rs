//! Where to listen, as the configuration says it.
//!
//! Values only: knows no sockets.

use std::sync::Arc;

use super::error::PortOption;

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
}

impl Endpoint {
    /// Whether it has ports, unlike a Unix socket.
    #[must_use]
    pub fn has_port(&self) -> bool {
        matches!(self, Self::Loopback | Self::Host { .. })
    }
}

impl ListenSpec {
    /// Loopback, without TLS.
    pub const LOOPBACK: Self = Self { name: None, endpoint: Endpoint::Loopback, speaks_tls: false };

    /// Its port, or `default`, and which option says it.
    pub(super) fn port<'a>(&'a self, default: &'a str) -> (&'a str, PortOption) {
        match &self.endpoint {
            Endpoint::Host { port: Some(port), .. } => (port, PortOption::Listen),
            Endpoint::Host { port: None, .. } | Endpoint::Loopback => (default, PortOption::Port),
        }
    }
}
