//! Host names and a port in, listening sockets out.
//!
//! Options that accepted sockets inherit on Linux (TCP_NODELAY, keep-alive, those that detect lost
//! hosts) are set here once, so that accepting costs no further system calls.
//!
//! Invariant: all listeners share one port, also when the kernel chose it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use dns_lookup::{AddrInfoHints, SockType, getaddrinfo};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tracing::{info, warn};

use super::liveness;
use super::retry::retry;

/// Tries to find a port that is free for all addresses, where the kernel chooses it.
const EPHEMERAL_TRIES: usize = 16;

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
        "there is no port \"{0}\": give --port or GEARMAND_PORT a number from 0 to 65535, or a \
         name of /etc/services"
    )]
    Port(String),
    /// Another process listens on the port.
    #[error(
        "cannot listen on {0}: the port is taken; stop the other server (is gearmand running?) or \
         choose another port with --port"
    )]
    Taken(SocketAddr),
    /// Ports below 1024.
    #[error(
        "cannot listen on {0}: no permission; choose a port above 1023 with --port, start as root \
         with --user, or let systemd give AmbientCapabilities=CAP_NET_BIND_SERVICE"
    )]
    Permission(SocketAddr),
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
    /// Anything else.
    #[error(
        "cannot listen on {address}: {cause}; give --listen another address or --port another port"
    )]
    Other {
        /// The address.
        address: SocketAddr,
        /// The kernel's error.
        cause: std::io::Error,
    },
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
#[derive(Clone, Copy, Debug)]
pub struct Sockets {
    /// Cores that each listen.
    pub cores: usize,
    /// Connections that may wait to be accepted.
    pub backlog: u32,
    /// Probing of silent peers.
    pub keep_alive: Option<KeepAlive>,
}

/// Sockets that are bound; `listen` has them listen.
#[derive(Debug)]
pub struct Listeners {
    /// By core; each has one for every address.
    sockets: Vec<Vec<Socket>>,
    addresses: Vec<SocketAddr>,
    backlog: i32,
}

impl Listeners {
    /// Binds every address of `host`; without a host loopback of both families. The port is a
    /// number or a service's name; 0 lets the kernel choose. The kernel refuses connections until
    /// `listen`.
    ///
    /// # Errors
    /// `ListenError` if the host is unknown, or an address can't be bound. Without a host, loopback
    /// of IPv4 is enough where there is no IPv6.
    pub fn open(host: Option<&str>, port: &str, options: &Sockets) -> Result<Self, ListenError> {
        let addresses = resolve(host, port)?;
        let is_chosen_by_kernel = addresses.iter().all(|address| address.port() == 0);
        let mut tries_left = if is_chosen_by_kernel { EPHEMERAL_TRIES } else { 1 };
        let bind = || bind_all(&addresses, host.is_none(), options);
        loop {
            tries_left -= 1;
            match if is_chosen_by_kernel { bind() } else { retry_while_taken(bind) } {
                Err(ListenError::Taken(_)) if tries_left > 0 => {}
                result => return result,
            }
        }
    }

    /// Listens on all sockets.
    ///
    /// # Errors
    /// `ListenError` if another process listens there by now.
    pub fn listen(&self) -> Result<(), ListenError> {
        for sockets in &self.sockets {
            for (socket, &address) in sockets.iter().zip(&self.addresses) {
                retry_while_taken(|| {
                    socket.listen(self.backlog).map_err(|cause| match is_taken(&cause) {
                        true => ListenError::Taken(address),
                        false => ListenError::Other { address, cause },
                    })
                })?;
            }
        }
        Ok(())
    }

    /// Sets the options that detect hosts that have been gone for `timeout`. `queries_sockets`: the
    /// driver asks the kernel what they acknowledged; otherwise the kernel itself ends connections,
    /// also those of peers that don't read.
    ///
    /// # Errors
    /// If the kernel refuses an option that it has had since Linux 2.6.37.
    pub(crate) fn find_lost_hosts(
        &self,
        timeout: Duration,
        queries_sockets: bool,
    ) -> std::io::Result<()> {
        if timeout.is_zero() {
            return Ok(());
        }
        for socket in self.sockets.iter().flatten() {
            if queries_sockets {
                liveness::probe_often(socket, timeout);
            } else {
                socket.set_tcp_user_timeout(Some(timeout))?;
            }
        }
        Ok(())
    }

    /// The addresses they are bound to, with the ports that the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Logs where they listen.
    pub fn log_addresses(&self) {
        for address in &self.addresses {
            info!("listening on {address}");
        }
        if let Some(open) = self.addresses.iter().find(|address| !address.ip().is_loopback()) {
            warn!(
                "{open} can be reached from other hosts and nothing here asks who they are: \
                 keep it behind a firewall, listen on loopback, or name an access list with \
                 --access-file"
            );
        }
    }

    /// The sockets, by core.
    pub(crate) fn into_sockets(self) -> Vec<Vec<TcpListener>> {
        let of_core = |sockets: Vec<Socket>| sockets.into_iter().map(TcpListener::from).collect();
        self.sockets.into_iter().map(of_core).collect()
    }
}

/// Refuses a port that is neither a number nor a known name. Opens no socket and resolves no host.
///
/// # Errors
/// `ListenError::Port`.
pub fn check_port(port: &str) -> Result<(), ListenError> {
    look_up(None, port, 0).map(drop).map_err(|_| ListenError::Port(port.to_owned()))
}

/// All addresses of a host and a port, both of which may be names; IPv4 first.
fn resolve(host: Option<&str>, port: &str) -> Result<Vec<SocketAddr>, ListenError> {
    check_port(port)?;
    // Brackets, as in "[::1]:4730", are accepted here, too.
    let bare = |host: &'_ str| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inner.unwrap_or(host).to_owned()
    };
    // Without a host, getaddrinfo(3) gives loopback, or with AI_PASSIVE every address.
    let flags = if host.is_some() { libc::AI_PASSIVE } else { 0 };
    let name = host.filter(|host| !host.is_empty()).map(bare);
    let found = look_up(name.as_deref(), port, flags);
    let mut addresses = found.map_err(|cause| ListenError::Host {
        host: name.unwrap_or_else(|| "loopback".to_owned()),
        cause,
    })?;
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

fn look_up(host: Option<&str>, port: &str, flags: i32) -> std::io::Result<Vec<SocketAddr>> {
    let hints = AddrInfoHints { flags, socktype: SockType::Stream.into(), ..Default::default() };
    let found = getaddrinfo(host, Some(port), Some(hints)).map_err(std::io::Error::from)?;
    found.map(|info| Ok(info?.sockaddr)).collect()
}

/// Repeats an attempt while the port is taken, for a while.
fn retry_while_taken<T>(attempt: impl FnMut() -> Result<T, ListenError>) -> Result<T, ListenError> {
    retry(|error| matches!(error, ListenError::Taken(_)), attempt)
}

fn bind_all(
    addresses: &[SocketAddr],
    is_default: bool,
    options: &Sockets,
) -> Result<Listeners, ListenError> {
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    let sockets = (0..options.cores).map(|_| Vec::new()).collect();
    let mut listeners = Listeners { sockets, addresses: Vec::new(), backlog };
    for &address in addresses {
        let mut address = address;
        if let Some(first) = listeners.addresses.first() {
            address.set_port(first.port());
        }
        match bind_cores(address, options) {
            Ok((sockets, bound)) => {
                for (of_core, socket) in listeners.sockets.iter_mut().zip(sockets) {
                    of_core.push(socket);
                }
                listeners.addresses.push(bound);
            }
            Err(cause) if is_default && address.is_ipv6() && !is_taken(&cause) => {}
            Err(cause) if is_taken(&cause) => return Err(ListenError::Taken(address)),
            Err(cause) if cause.kind() == ErrorKind::PermissionDenied => {
                return Err(ListenError::Permission(address));
            }
            Err(cause) if matches!(cause.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                return Err(ListenError::Descriptors(address));
            }
            Err(cause) if cause.kind() == ErrorKind::AddrNotAvailable => {
                return Err(ListenError::NotLocal(address));
            }
            Err(cause) => return Err(ListenError::Other { address, cause }),
        }
    }
    Ok(listeners)
}

fn is_taken(cause: &std::io::Error) -> bool {
    cause.kind() == ErrorKind::AddrInUse
}

/// A socket for each core, all at one address: the kernel distributes connections over them.
fn bind_cores(
    address: SocketAddr,
    options: &Sockets,
) -> std::io::Result<(Vec<Socket>, SocketAddr)> {
    // With SO_REUSEPORT, binding succeeds although another server with the option has the port. So
    // the first attempt is made without it.
    let (exclusive, bound) = bind(address, false, options)?;
    if options.cores == 1 {
        return Ok((vec![exclusive], bound));
    }
    drop(exclusive);
    let sockets = (0..options.cores).map(|_| Ok(bind(bound, true, options)?.0));
    Ok((sockets.collect::<std::io::Result<_>>()?, bound))
}

fn bind(
    address: SocketAddr,
    shared: bool,
    options: &Sockets,
) -> std::io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // IPv4 gets a socket of its own.
        socket.set_only_v6(true)?;
    }
    // Otherwise connections in TIME_WAIT of a server that has just stopped would hold the port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    set_options(SockRef::from(&socket), options)?;
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((socket, bound))
}

fn set_options(socket: SockRef<'_>, options: &Sockets) -> std::io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if let Some(KeepAlive { idle, interval, count }) = options.keep_alive {
        let keep_alive = TcpKeepalive::new().with_time(idle).with_interval(interval);
        socket.set_tcp_keepalive(&keep_alive.with_retries(count))?;
    }
    Ok(())
}
