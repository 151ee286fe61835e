//! Why a run could not take place, each in one sentence with its remedy.
//!
//! Faults of the server under load are not errors: they are counted in the report.

use std::io;
use std::net::SocketAddr;

/// A run that could not take place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that contradict each other.
    #[error("{0}")]
    Usage(String),
    /// The address names no host.
    #[error("cannot resolve {addr}: {cause}")]
    Resolve {
        /// As it was given.
        addr: String,
        /// What the resolver said.
        cause: String,
    },
    /// A connection that was refused or got lost on the way.
    #[error("cannot connect to {addr}: {cause} (connection {number} of {total})")]
    Connect {
        /// Where to.
        addr: SocketAddr,
        /// What the kernel said.
        cause: io::Error,
        /// Connections that were ready by then, and this one.
        number: usize,
        /// How many were wanted.
        total: usize,
    },
    /// The server closed a connection before the load began.
    #[error("{addr} closed a connection that was being set up ({ready} of {total} were ready)")]
    ClosedEarly {
        /// The server.
        addr: SocketAddr,
        /// Connections that were ready by then.
        ready: usize,
        /// How many were wanted.
        total: usize,
    },
    /// The server took connections in but did not answer on them.
    #[error("{addr} left {missing} of {total} connections without an answer for {seconds} s")]
    SetUpStalled {
        /// The server.
        addr: SocketAddr,
        /// Connections without an answer.
        missing: usize,
        /// How many were wanted.
        total: usize,
        /// How long nothing happened.
        seconds: u64,
    },
    /// Source ports of this host are used up.
    #[error(
        "out of local ports: widen net.ipv4.ip_local_port_range, or load a server on 127.0.0.1, \
         where more source addresses are used"
    )]
    OutOfPorts,
    /// The limit on open files is too low.
    #[error(
        "{needed} descriptors are needed and the limit is {limit}: raise it with `ulimit -n` or \
         ask for fewer connections"
    )]
    Descriptors {
        /// Sockets and a few files.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// The server to spawn is not there, or did not start.
    #[error("{0}")]
    Spawn(String),
    /// The kernel refused something that the event loop needs.
    #[error("{doing}: {cause}")]
    Kernel {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
    /// A file that should be written.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// The file.
        path: String,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl Error {
    /// For `map_err`: the kernel refused what we were `doing`.
    pub(crate) fn kernel(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Kernel { doing, cause }
    }
}
