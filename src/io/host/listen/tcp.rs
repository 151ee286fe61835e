//! TCP: a host and a port in, bound sockets out.
//!
//! Knows no cores beyond their number.
//!
//! Invariant: all addresses of a host have one port, also when the kernel chose it.

use std::io::ErrorKind;
use std::net::SocketAddr;

use dns_lookup::{AddrInfoHints, SockType, getaddrinfo};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::error::{ListenError, PortOption};
use super::spec::{Endpoint, KeepAlive, ListenSpec, Sockets};
use crate::io::host::retry::retry;

/// Tries to find a port that is free for all addresses, where the kernel chooses it.
const EPHEMERAL_TRIES: usize = 16;

/// Refuses a port that is neither a number nor a known name, of a spec or, for those without one,
/// `port`. Opens no socket and resolves no host.
///
/// # Errors
/// `ListenError::Port`.
pub fn check_ports(specs: &[ListenSpec], port: &str) -> Result<(), ListenError> {
    check_port(port, PortOption::Port)?;
    specs.iter().filter_map(|spec| spec.port(port)).try_for_each(|(port, it)| check_port(port, it))
}

fn check_port(port: &str, option: PortOption) -> Result<(), ListenError> {
    look_up(None, port, 0)
        .map(drop)
        .map_err(|_| ListenError::Port { port: port.to_owned(), option })
}

/// All addresses of a host and a port, both of which may be names; IPv4 first.
pub(super) fn resolve(
    endpoint: &Endpoint,
    port: &str,
    option: PortOption,
) -> Result<Vec<SocketAddr>, ListenError> {
    check_port(port, option)?;
    // Without a host, getaddrinfo(3) gives loopback, or with AI_PASSIVE every address.
    let (name, flags) = match endpoint {
        Endpoint::Loopback | Endpoint::Unix(_) => (None, 0),
        Endpoint::Host { host, .. } => {
            (Some(host.as_str()).filter(|host| !host.is_empty()), libc::AI_PASSIVE)
        }
    };
    let mut found = look_up(name, port, flags);
    if found.is_err() && endpoint.is_loopback() {
        // RFC 6761: the name is loopback, also on a host without /etc/hosts.
        found = look_up(None, port, 0);
    }
    let mut addresses = found.map_err(|cause| ListenError::Host {
        host: name.unwrap_or("loopback").to_owned(),
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
pub(super) fn retry_while_taken<T>(
    attempt: impl FnMut() -> Result<T, ListenError>,
) -> Result<T, ListenError> {
    retry(|error| matches!(error, ListenError::Taken(..)), attempt)
}

/// Sockets for each core, and the address that they are bound to.
pub(super) type Bound = (Vec<Socket>, SocketAddr);

/// Binds all addresses of a host to the same port. `is_loopback`: IPv6 may be missing.
pub(super) fn bind_host(
    addresses: &[SocketAddr],
    is_loopback: bool,
    option: PortOption,
    options: &Sockets,
) -> Result<Vec<Bound>, ListenError> {
    let is_chosen_by_kernel = addresses.iter().all(|address| address.port() == 0);
    let mut tries_left = if is_chosen_by_kernel { EPHEMERAL_TRIES } else { 1 };
    let bind = || bind_all(addresses, is_loopback, option, options);
    loop {
        tries_left -= 1;
        match if is_chosen_by_kernel { bind() } else { retry_while_taken(bind) } {
            Err(ListenError::Taken(..)) if tries_left > 0 => {}
            result => return result,
        }
    }
}

fn bind_all(
    addresses: &[SocketAddr],
    is_loopback: bool,
    option: PortOption,
    options: &Sockets,
) -> Result<Vec<Bound>, ListenError> {
    let mut all: Vec<Bound> = Vec::new();
    for &address in addresses {
        let mut address = address;
        if let Some((_, first)) = all.first() {
            address.set_port(first.port());
        }
        match bind_cores(address, options) {
            Ok(bound) => all.push(bound),
            Err(cause) if is_loopback && address.is_ipv6() && !is_taken(&cause) => {}
            Err(cause) if is_taken(&cause) => return Err(ListenError::Taken(address, option)),
            Err(cause) if cause.kind() == ErrorKind::PermissionDenied => {
                return Err(ListenError::Permission(address, option));
            }
            Err(cause) if matches!(cause.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                return Err(ListenError::Descriptors(address));
            }
            Err(cause) if cause.kind() == ErrorKind::AddrNotAvailable => {
                return Err(ListenError::NotLocal(address));
            }
            Err(cause) => return Err(ListenError::Other { address, option, cause }),
        }
    }
    Ok(all)
}

pub(super) fn is_taken(cause: &std::io::Error) -> bool {
    cause.kind() == ErrorKind::AddrInUse
}

/// A socket for each core, all at one address: the kernel distributes connections over them.
fn bind_cores(address: SocketAddr, options: &Sockets) -> std::io::Result<Bound> {
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

/// Sets what accepted sockets inherit.
pub(super) fn set_options(socket: SockRef<'_>, options: &Sockets) -> std::io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if let Some(KeepAlive { idle, interval, count }) = options.keep_alive {
        let keep_alive = TcpKeepalive::new().with_time(idle).with_interval(interval);
        socket.set_tcp_keepalive(&keep_alive.with_retries(count))?;
    }
    Ok(())
}
