//! Where to listen in, listening sockets out.
//!
//! Options that accepted sockets inherit on Linux (TCP_NODELAY, keep-alive, those that detect lost
//! hosts) are set here once, so that accepting costs no further system calls.
//!
//! Invariant: all addresses of a host have one port, also when the kernel chose it; all cores have
//! the same sockets in the same order.

use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use dns_lookup::{AddrInfoHints, SockType, getaddrinfo};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tracing::{info, warn};

use super::liveness;
use super::retry::retry;
use crate::shard::Listener;

/// Tries to find a port that is free for all addresses, where the kernel chooses it.
const EPHEMERAL_TRIES: usize = 16;
/// Most sockets of a core.
const SOCKETS_MAX: usize = 1000;

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
    #[error("\"{0}\" leads to {1}, where another --listen listens already: leave one of them out")]
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
    fn port<'a>(&'a self, default: &'a str) -> (&'a str, PortOption) {
        match &self.endpoint {
            Endpoint::Host { port: Some(port), .. } => (port, PortOption::Listen),
            Endpoint::Host { port: None, .. } | Endpoint::Loopback => (default, PortOption::Port),
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
    /// What each of the places to listen at is called, and how it speaks.
    listeners: Arc<[Listener]>,
    /// By core; each has one for every place.
    sockets: Vec<Vec<Socket>>,
    places: Vec<Place>,
    backlog: i32,
}

/// A bound address.
#[derive(Clone, Debug)]
struct Place {
    /// The place in `Listeners::listeners`.
    listener: u16,
    address: SocketAddr,
    option: PortOption,
    speaks_tls: bool,
}

/// As the log names it: `127.0.0.1:4730`, or `tls:127.0.0.1:4731`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.speaks_tls { "tls:" } else { "" };
        write!(f, "{prefix}{}", self.address)
    }
}

/// A socket to accept from.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    /// The place in `Listeners::describe`.
    pub(crate) listener: u16,
    pub(crate) socket: TcpListener,
}

impl Listeners {
    /// Binds every address of each spec. `port` is that of the specs without one: a number or a
    /// service's name; 0 lets the kernel choose. The kernel refuses connections until `listen`.
    ///
    /// # Errors
    /// `ListenError` if a host is unknown, or an address can't be bound.
    pub fn open(specs: &[ListenSpec], port: &str, options: &Sockets) -> Result<Self, ListenError> {
        let describe =
            |spec: &ListenSpec| Listener { name: spec.name.clone(), speaks_tls: spec.speaks_tls };
        let mut listeners = Self {
            listeners: specs.iter().map(describe).collect(),
            sockets: (0..options.cores).map(|_| Vec::new()).collect(),
            places: Vec::new(),
            backlog: i32::try_from(options.backlog).unwrap_or(i32::MAX),
        };
        for (at, spec) in specs.iter().enumerate() {
            let listener = u16::try_from(at).map_err(|_| ListenError::TooMany)?;
            listeners.bind(listener, spec, port, options)?;
        }
        Ok(listeners)
    }

    /// Binds the addresses of a spec.
    fn bind(
        &mut self,
        listener: u16,
        spec: &ListenSpec,
        port: &str,
        options: &Sockets,
    ) -> Result<(), ListenError> {
        let (port, option) = spec.port(port);
        let addresses = resolve(&spec.endpoint, port, option)?;
        let is_double = |address: &&SocketAddr| {
            address.port() != 0 && self.places.iter().any(|place| place.address == **address)
        };
        if let Some(&address) = addresses.iter().find(is_double) {
            return Err(ListenError::Twice(spec.name.clone().unwrap_or_default(), address));
        }
        if self.places.len() + addresses.len() > SOCKETS_MAX {
            return Err(ListenError::TooMany);
        }
        let is_default = spec.endpoint == Endpoint::Loopback;
        for (sockets, address) in bind_host(&addresses, is_default, option, options)? {
            for (of_core, socket) in self.sockets.iter_mut().zip(sockets) {
                of_core.push(socket);
            }
            let speaks_tls = spec.speaks_tls;
            self.places.push(Place { listener, address, option, speaks_tls });
        }
        Ok(())
    }

    /// The listeners, as the shards know them.
    #[must_use]
    pub fn describe(&self) -> Arc<[Listener]> {
        Arc::clone(&self.listeners)
    }

    /// Listens on all sockets.
    ///
    /// # Errors
    /// `ListenError` if another process listens there by now.
    pub fn listen(&self) -> Result<(), ListenError> {
        for sockets in &self.sockets {
            for (socket, &Place { address, option, .. }) in sockets.iter().zip(&self.places) {
                retry_while_taken(|| {
                    socket.listen(self.backlog).map_err(|cause| match is_taken(&cause) {
                        true => ListenError::Taken(address, option),
                        false => ListenError::Other { address, option, cause },
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

    /// What they are bound to, with the ports that the kernel chose, as the log names it.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        self.places.iter().map(ToString::to_string).collect()
    }

    /// Logs where they listen. `asks_peers`: an access list says what peers may do.
    pub(crate) fn log_places(&self, asks_peers: bool) {
        for place in &self.places {
            info!("listening on {place}");
        }
        if asks_peers {
            return;
        }
        let is_open = |place: &&Place| !place.address.ip().is_loopback();
        let mut warned = None;
        for open in self.places.iter().filter(is_open) {
            if warned.replace(open.listener) != Some(open.listener) {
                warn!(
                    "{open} can be reached from other hosts and nothing here asks who they are: \
                     keep it behind a firewall, listen on loopback, or name an access list with \
                     --access-file"
                );
            }
        }
    }

    /// The sockets, by core.
    pub(crate) fn into_sockets(self) -> Vec<Vec<ListeningSocket>> {
        let Self { sockets, places, .. } = self;
        let numbered = |(socket, place): (Socket, &Place)| ListeningSocket {
            listener: place.listener,
            socket: socket.into(),
        };
        let of_core = |sockets: Vec<Socket>| sockets.into_iter().zip(&places).map(numbered);
        sockets.into_iter().map(|sockets| of_core(sockets).collect()).collect()
    }
}

/// Refuses a port that is neither a number nor a known name, of a spec or, for those without one,
/// `port`. Opens no socket and resolves no host.
///
/// # Errors
/// `ListenError::Port`.
pub fn check_ports(specs: &[ListenSpec], port: &str) -> Result<(), ListenError> {
    check_port(port, PortOption::Port)?;
    specs.iter().map(|spec| spec.port(port)).try_for_each(|(port, it)| check_port(port, it))
}

fn check_port(port: &str, option: PortOption) -> Result<(), ListenError> {
    look_up(None, port, 0)
        .map(drop)
        .map_err(|_| ListenError::Port { port: port.to_owned(), option })
}

/// All addresses of a host and a port, both of which may be names; IPv4 first.
fn resolve(
    endpoint: &Endpoint,
    port: &str,
    option: PortOption,
) -> Result<Vec<SocketAddr>, ListenError> {
    check_port(port, option)?;
    // Without a host, getaddrinfo(3) gives loopback, or with AI_PASSIVE every address.
    let (name, flags) = match endpoint {
        Endpoint::Loopback => (None, 0),
        Endpoint::Host { host, .. } => {
            (Some(host.as_str()).filter(|host| !host.is_empty()), libc::AI_PASSIVE)
        }
    };
    let mut addresses = look_up(name, port, flags).map_err(|cause| ListenError::Host {
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
fn retry_while_taken<T>(attempt: impl FnMut() -> Result<T, ListenError>) -> Result<T, ListenError> {
    retry(|error| matches!(error, ListenError::Taken(..)), attempt)
}

/// Sockets for each core, and the address that they are bound to.
type Bound = (Vec<Socket>, SocketAddr);

/// Binds all addresses of a host to the same port. `is_default`: IPv6 may be missing.
fn bind_host(
    addresses: &[SocketAddr],
    is_default: bool,
    option: PortOption,
    options: &Sockets,
) -> Result<Vec<Bound>, ListenError> {
    let is_chosen_by_kernel = addresses.iter().all(|address| address.port() == 0);
    let mut tries_left = if is_chosen_by_kernel { EPHEMERAL_TRIES } else { 1 };
    let bind = || bind_all(addresses, is_default, option, options);
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
    is_default: bool,
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
            Err(cause) if is_default && address.is_ipv6() && !is_taken(&cause) => {}
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

fn is_taken(cause: &std::io::Error) -> bool {
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

fn set_options(socket: SockRef<'_>, options: &Sockets) -> std::io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if let Some(KeepAlive { idle, interval, count }) = options.keep_alive {
        let keep_alive = TcpKeepalive::new().with_time(idle).with_interval(interval);
        socket.set_tcp_keepalive(&keep_alive.with_retries(count))?;
    }
    Ok(())
}
