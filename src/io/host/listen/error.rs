//! Why there is no socket to listen on, in a sentence with the remedy.
//!
//! Invariant: a sentence names the option that helps.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;

use super::unix::UnixError;

/// Most sockets of a core.
pub(super) const SOCKETS_MAX: usize = 1000;

/// Why there is no socket to listen on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The host's name is unknown.
    #[error(
        "cannot listen on \"{host}\": {cause}; give --listen an address of this host, or a name \
         that leads to one"
    )]
    Host {
        /// The host.
        host: String,
        /// The resolver's error.
        cause: std::io::Error,
    },
    /// The port's name is unknown.
    #[error(
        "there is no port \"{port}\": give {} a number from 0 to 65535, or a name of /etc/services",
        option.with_variable()
    )]
    Port {
        /// The name.
        port: String,
        /// What says it.
        option: PortOption,
    },
    /// Another process listens on the port.
    #[error(
        "cannot listen on {0}: the port is taken; stop the other server (is gearmand running?) or \
         choose another port with {1}"
    )]
    Taken(SocketAddr, PortOption),
    /// Two places are the same.
    #[error("\"{0}\" leads to {1}, where the server listens already: leave one of them out")]
    Twice(Arc<str>, SocketAddr),
    /// More sockets than the event loops tell apart.
    #[error("there are more than {SOCKETS_MAX} addresses to listen on: give fewer with --listen")]
    TooMany,
    /// Ports below 1024.
    #[error(
        "cannot listen on {0}: no permission; choose a port above 1023 with {1}, start as root \
         with --user, or let systemd give AmbientCapabilities=CAP_NET_BIND_SERVICE"
    )]
    Permission(SocketAddr, PortOption),
    /// No interface has the address.
    #[error(
        "cannot listen on {0}: no interface of this host has that address; give --listen one that \
         `ip address` lists, or 0.0.0.0 for all"
    )]
    NotLocal(SocketAddr),
    /// No descriptor is left for another socket.
    #[error(
        "cannot listen on {0}: there are too few descriptors for so many cores; give more with \
         --file-descriptors or LimitNOFILE=, or lower --threads"
    )]
    Descriptors(SocketAddr),
    /// No descriptor is left for a core's copy of a socket that all cores share.
    #[error(
        "cannot listen on {0}: there are too few descriptors for so many cores; give more with \
         --file-descriptors or LimitNOFILE=, or lower --threads"
    )]
    SharedDescriptors(String),
    /// The variables about passed sockets are wrong.
    #[error(
        "the sockets that LISTEN_FDS tells of can't be used: {0}; have systemd's socket unit start \
         the server, or unset LISTEN_FDS"
    )]
    PassedVariables(std::io::Error),
    /// A passed socket is of no use.
    #[error(
        "{0} is no listening stream socket of TCP or Unix: give the socket unit ListenStream= and \
         Accept=no only"
    )]
    Passed(Arc<str>),
    /// The name of a passed socket says nothing.
    #[error(
        "a passed socket is called \"{0}\", which says nothing of its use: write \
         FileDescriptorName=gearman, FileDescriptorName=tls or FileDescriptorName=http in the \
         socket unit (LISTEN_FDNAMES without systemd)"
    )]
    PassedName(String),
    /// A Unix socket for TLS.
    #[error(
        "fd:tls is a Unix socket, and these are never encrypted: write FileDescriptorName=gearman \
         in its socket unit"
    )]
    PassedPlain,
    /// A passed socket is plain where `--listen` asks for TLS, or the other way round.
    #[error(
        "--listen {0} and the passed socket {1} have the same address, and only one of them speaks \
         TLS: write FileDescriptorName=tls in the socket unit for TLS, or leave --listen out"
    )]
    PassedOtherwise(Arc<str>, Arc<str>),
    /// A Unix socket.
    #[error(transparent)]
    Unix(#[from] UnixError),
    /// Anything else.
    #[error(
        "cannot listen on {address}: {cause}; give --listen another address or {option} another \
         port"
    )]
    Other {
        /// The address.
        address: SocketAddr,
        /// What says which port.
        option: PortOption,
        /// The kernel's error.
        cause: std::io::Error,
    },
}

/// The option that says on which port to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortOption {
    /// `--port`, for all that have no port of their own.
    Port,
    /// `--listen HOST:PORT`.
    Listen,
}

impl PortOption {
    /// The option, and the variable that has the same effect.
    fn with_variable(self) -> &'static str {
        match self {
            Self::Port => "--port or GEARMAND_PORT",
            Self::Listen => "--listen",
        }
    }
}

impl fmt::Display for PortOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Port => "--port",
            Self::Listen => "--listen",
        })
    }
}
