//! Why a run could not take place, each in one sentence with its remedy.
//!
//! Faults of the server under load are not errors: they are counted in the report.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

/// A run that could not take place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that contradict each other, or make no sense.
    #[error("{0}")]
    Usage(String),
    /// The address names no host and port.
    #[error(
        "--addr {addr} can't be loaded ({cause}): give HOST:PORT, such as 127.0.0.1:4730, or \
         [::1]:4730"
    )]
    Resolve {
        /// As it was given.
        addr: String,
        /// What the resolver said.
        cause: String,
    },
    /// The first connection was refused.
    #[error(
        "nothing listens on {addr}: start a server there (`cargo run --release` starts one on \
         127.0.0.1:4730), name another with --addr HOST:PORT, or give --spawn to start one for \
         the run"
    )]
    NoServer {
        /// Where to.
        addr: SocketAddr,
    },
    /// A connection that was refused or got lost on the way.
    #[error(
        "cannot connect to {addr}: {cause} (connection {number} of {total}); {}",
        connect_remedy(cause)
    )]
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
    #[error(
        "{addr} closed a connection that was being set up, when {ready} of {total} were ready: \
         its log says why; if that is its limit, start it with more descriptors (RLIMIT_NOFILE: \
         `ulimit -n`, systemd's LimitNOFILE) and without a smaller --connections-max, or ask for \
         fewer --clients and --workers"
    )]
    ClosedEarly {
        /// The server.
        addr: SocketAddr,
        /// Connections that were ready by then.
        ready: usize,
        /// How many were wanted.
        total: usize,
    },
    /// The server answered with an error before the load began, and closed the connection.
    #[error(
        "{addr} refused a connection that was being set up, saying {said}: see its log; a port \
         that speaks TLS only takes --tls"
    )]
    Refused {
        /// The server.
        addr: SocketAddr,
        /// Code and text of its answer.
        said: String,
    },
    /// The server took connections in but did not answer on them.
    #[error(
        "{addr} left {missing} of {total} connections without an answer for {seconds} s: make \
         sure that a Gearman server listens there{} and isn't stopped, or ask for fewer \
         --clients and --workers",
        if *.tls { ", speaks TLS" } else { "" }
    )]
    SetUpStalled {
        /// The server.
        addr: SocketAddr,
        /// Connections without an answer.
        missing: usize,
        /// How many were wanted.
        total: usize,
        /// How long nothing happened.
        seconds: u64,
        /// Whether TLS was spoken to it.
        tls: bool,
    },
    /// A TLS handshake that failed, or TLS that broke later.
    #[error("{addr} {problem}")]
    Tls {
        /// The server.
        addr: SocketAddr,
        /// What it did, and the remedy.
        problem: String,
    },
    /// Source ports of this host are used up.
    #[error(
        "out of local ports for {addr}: give more addresses of this host to connect from \
         (--source, repeated), widen net.ipv4.ip_local_port_range, or ask for fewer --clients"
    )]
    OutOfPorts {
        /// Where to.
        addr: SocketAddr,
    },
    /// An address to connect from that this host doesn't have, or that can't reach the server.
    #[error(
        "can't connect from --source {from} to {addr} ({cause}): give an address of this host \
         and of the same kind (`ip address` lists them)"
    )]
    Source {
        /// As it was given.
        from: IpAddr,
        /// Where to.
        addr: SocketAddr,
        /// What is wrong with it.
        cause: String,
    },
    /// The limit on open files is too low.
    #[error(
        "{needed} descriptors are needed and the hard limit on open files is {limit}: raise it \
         (`ulimit -Hn`, as root), or ask for fewer --clients and --workers"
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
    #[error(
        "{doing}: {cause}; ask for fewer --threads and --clients, or raise the limit that the \
         kernel names"
    )]
    Kernel {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
    /// A file that should be written.
    #[error("cannot write {path}: {cause}; give --hdr a file in a folder that you may write to")]
    Write {
        /// The file.
        path: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// A standard stream that is closed.
    #[error("cannot write to {stream}: {cause}; what reads it must read to the end")]
    Unread {
        /// Its name.
        stream: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// What helps against a connection that failed.
fn connect_remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        ErrorKind::ConnectionRefused => {
            "the server has ended or takes no more in: look at its log, or ask for fewer --clients"
        }
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
            "if that is the server's limit, start it with more descriptors (RLIMIT_NOFILE: `ulimit \
             -n`, systemd's LimitNOFILE) and without a smaller --connections-max, or ask for fewer \
             --clients and --workers"
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            "check --addr, the way to that host, and its firewall"
        }
        _ => "check --addr and --source, or ask for fewer --clients",
    }
}

impl Error {
    /// For `map_err`: the kernel refused what we were `doing`.
    pub(crate) fn kernel(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Kernel { doing, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_names_its_remedy() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 4730));
        let cause = |kind| io::Error::from(kind);
        let connect = |kind| Error::Connect { addr, cause: cause(kind), number: 4, total: 9 };
        let path = || "/x".to_owned();
        let stalled = |tls| Error::SetUpStalled { addr, missing: 3, total: 9, seconds: 30, tls };
        let from = addr.ip();
        let cases = [
            (Error::Resolve { addr: path(), cause: path() }, "HOST:PORT"),
            (Error::NoServer { addr }, "cargo run --release"),
            (Error::NoServer { addr }, "--spawn"),
            (connect(ErrorKind::ConnectionRefused), "log"),
            (connect(ErrorKind::ConnectionReset), "--connections-max"),
            (connect(ErrorKind::TimedOut), "firewall"),
            (connect(ErrorKind::Other), "--addr"),
            (Error::ClosedEarly { addr, ready: 3, total: 9 }, "--connections-max"),
            (Error::ClosedEarly { addr, ready: 3, total: 9 }, "RLIMIT_NOFILE"),
            (Error::Refused { addr, said: path() }, "--tls"),
            (stalled(false), "Gearman server"),
            (stalled(true), "speaks TLS"),
            (Error::OutOfPorts { addr }, "--source"),
            (Error::Source { from, addr, cause: path() }, "ip address"),
            (Error::Descriptors { needed: 9, limit: 3 }, "ulimit -Hn"),
            (Error::kernel("cannot x")(cause(ErrorKind::Other)), "--threads"),
            (Error::Write { path: path(), cause: cause(ErrorKind::NotFound) }, "--hdr"),
            (Error::Unread { stream: "x", cause: cause(ErrorKind::BrokenPipe) }, "read to the end"),
        ];
        for (error, remedy) in cases {
            let text = error.to_string();
            assert!(text.contains(remedy) && !text.contains('\n'), "{text}");
        }
    }
}
