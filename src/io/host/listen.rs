//! Where to listen in, listening sockets out.
//!
//! Options that accepted sockets inherit on Linux (TCP_NODELAY, keep-alive, those that detect lost
//! hosts) are set here once, so that accepting costs no further system calls.
//!
//! Invariant: all cores have the same sockets in the same order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tracing::{info, warn};

use self::error::SOCKETS_MAX;
pub use self::error::{ListenError, PortOption};
pub use self::passed::{PassedSocket, PassedUse, passed_sockets};
pub(crate) use self::socket::{Acceptable, ListeningSocket};
pub use self::spec::{Endpoint, KeepAlive, ListenSpec, Sockets};
pub use self::tcp::check_ports;
use self::tcp::{bind_host, is_taken, resolve, retry_while_taken, set_options};
pub(crate) use self::unix::{SocketFile, peer_of};
pub use self::unix::{UnixError, UnixSockets};
use super::liveness;
use crate::shard::Listener;

mod error;
mod passed;
mod socket;
mod spec;
mod tcp;
mod unix;

/// Sockets that are bound; `listen` has them listen.
#[derive(Debug)]
pub struct Listeners {
    /// What each of the places to listen at is called, and how it speaks.
    listeners: Vec<Listener>,
    /// By core; each has one for every place.
    sockets: Vec<Vec<Socket>>,
    places: Vec<Place>,
    /// Files of Unix sockets that were bound here.
    files: Vec<SocketFile>,
    /// Sockets that were passed, of which the cores have copies.
    passed: Vec<PassedSocket>,
    options: Sockets,
}

/// What a socket is bound to.
#[derive(Clone, Debug)]
struct Place {
    /// The place in `Listeners::listeners`.
    listener: u16,
    /// Its address; none for a Unix socket.
    address: Option<SocketAddr>,
    /// As the log names it: `127.0.0.1:4730`, `tls:127.0.0.1:4731`, `unix:/run/g.sock`, or
    /// `fd:NAME`.
    text: String,
    origin: Origin,
}

/// Where a socket comes from.
#[derive(Clone, Debug)]
enum Origin {
    /// Bound here, to a port that this option says.
    Port(PortOption),
    /// Bound here, to a path.
    Path(PathBuf),
    /// Passed to the process; it listens already.
    Passed,
}

impl Listeners {
    /// Binds every address of each spec. `port` is that of the specs without one: a number or a
    /// service's name; 0 lets the kernel choose. The kernel refuses connections until `listen`.
    ///
    /// # Errors
    /// `ListenError` if a host is unknown, or an address can't be bound.
    pub fn open(specs: &[ListenSpec], port: &str, options: &Sockets) -> Result<Self, ListenError> {
        Self::open_beside(Vec::new(), false, specs, port, options)
    }

    /// Takes over sockets that were passed to the process, and binds every address of each spec
    /// that none of them has already; see `open`. `speaks_tls`: also those of TCP that are for
    /// plain Gearman do.
    ///
    /// # Errors
    /// `ListenError` if the kernel refuses a socket option, a host is unknown, or an address can't
    /// be bound.
    pub fn open_beside(
        passed: Vec<PassedSocket>,
        speaks_tls: bool,
        specs: &[ListenSpec],
        port: &str,
        options: &Sockets,
    ) -> Result<Self, ListenError> {
        let mut listeners = Self {
            listeners: Vec::new(),
            sockets: (0..options.cores).map(|_| Vec::new()).collect(),
            places: Vec::new(),
            files: Vec::new(),
            passed: Vec::new(),
            options: options.clone(),
        };
        for passed in passed {
            listeners.take_over(passed, speaks_tls)?;
        }
        for spec in specs {
            let listener = listeners.describe_next(spec.name.clone(), spec.speaks_tls)?;
            match (&spec.endpoint, spec.port(port)) {
                (Endpoint::Unix(path), _)
                    if listeners.passed.iter().any(|passed| passed.has_path(path)) => {}
                (Endpoint::Unix(path), _) => listeners.bind_unix(listener, path)?,
                (_, Some((port, option))) => listeners.bind(listener, spec, port, option)?,
                (Endpoint::Loopback | Endpoint::Host { .. }, None) => {}
            }
        }
        Ok(listeners)
    }

    /// Closes the sockets of all cores but the first so many. To be called before `listen`.
    pub fn use_cores(&mut self, cores: usize) {
        self.sockets.truncate(cores);
        self.options.cores = self.sockets.len();
    }

    /// Refuses specs of another set of listeners that lead to where these are bound already, also
    /// by an address that stands for all.
    ///
    /// # Errors
    /// `ListenError` if a host is unknown, or one is bound there.
    pub fn check_beside(&self, specs: &[ListenSpec]) -> Result<(), ListenError> {
        for spec in specs {
            let Some((port, option)) = spec.port("") else { continue };
            for address in resolve(&spec.endpoint, port, option)? {
                let is_there = |place: &Place| {
                    place.address.is_some_and(|other| meet(address, other)) && address.port() != 0
                };
                if self.places.iter().any(is_there) {
                    return Err(ListenError::Twice(spec.name.clone().unwrap_or_default(), address));
                }
            }
        }
        Ok(())
    }

    /// The first place that other hosts reach without TLS, as the log names it.
    #[must_use]
    pub fn exposed(&self) -> Option<String> {
        let is_secure = |listener: &Listener| listener.speaks_tls;
        open_places(&self.places, &self.listeners, is_secure)
            .first()
            .map(|place| place.text.clone())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Takes over a socket that was passed to the process.
    fn take_over(&mut self, passed: PassedSocket, speaks_tls: bool) -> Result<(), ListenError> {
        let PassedSocket { ref name, ref socket, address, .. } = passed;
        let speaks_tls = match passed.serves() {
            PassedUse::Gearman => speaks_tls && address.is_some(),
            PassedUse::Tls => true,
            PassedUse::Http => false,
        };
        let listener = self.describe_next(Some(Arc::clone(name)), speaks_tls)?;
        let inherited = || match address {
            Some(_) => set_options(socket.into(), &self.options),
            None => Ok(()),
        };
        let set = socket.set_nonblocking(true).and_then(|()| inherited());
        set.map_err(|_| ListenError::Passed(Arc::clone(name)))?;
        let text = match address {
            Some(address) => format!("{address} ({name})"),
            None => name.to_string(),
        };
        let text = tls(text, speaks_tls);
        self.share(socket, Place { listener, address, text, origin: Origin::Passed })?;
        self.passed.push(passed);
        Ok(())
    }

    /// The addresses that no passed socket has.
    fn without_passed(
        &self,
        addresses: Vec<SocketAddr>,
        spec: &ListenSpec,
    ) -> Result<Vec<SocketAddr>, ListenError> {
        let mut rest = Vec::new();
        for address in addresses {
            let Some(passed) = self.passed.iter().find(|passed| passed.has(address)) else {
                rest.push(address);
                continue;
            };
            let is_passed = |listener: &&Listener| listener.name.as_ref() == Some(&passed.name);
            let speaks_tls = self.listeners.iter().find(is_passed).is_some_and(|it| it.speaks_tls);
            if speaks_tls != spec.speaks_tls {
                let name = spec.name.clone().unwrap_or_default();
                return Err(ListenError::PassedOtherwise(name, Arc::clone(&passed.name)));
            }
        }
        Ok(rest)
    }

    /// Notes a listener; returns its place.
    fn describe_next(
        &mut self,
        name: Option<Arc<str>>,
        speaks_tls: bool,
    ) -> Result<u16, ListenError> {
        let listener = u16::try_from(self.listeners.len()).map_err(|_| ListenError::TooMany)?;
        self.listeners.push(Listener { name, speaks_tls });
        Ok(listener)
    }

    /// Binds the addresses of a host.
    fn bind(
        &mut self,
        listener: u16,
        spec: &ListenSpec,
        port: &str,
        option: PortOption,
    ) -> Result<(), ListenError> {
        let addresses = self.without_passed(resolve(&spec.endpoint, port, option)?, spec)?;
        let is_double = |address: &&SocketAddr| {
            let is_there = |place: &Place| place.address == Some(**address);
            address.port() != 0 && self.places.iter().any(is_there)
        };
        if let Some(&address) = addresses.iter().find(is_double) {
            return Err(ListenError::Twice(spec.name.clone().unwrap_or_default(), address));
        }
        self.check_room(addresses.len())?;
        let is_loopback = spec.endpoint.is_loopback();
        for (sockets, address) in bind_host(&addresses, is_loopback, option, &self.options)? {
            for (of_core, socket) in self.sockets.iter_mut().zip(sockets) {
                of_core.push(socket);
            }
            let (text, origin) = (tls(address.to_string(), spec.speaks_tls), Origin::Port(option));
            self.places.push(Place { listener, address: Some(address), text, origin });
        }
        Ok(())
    }

    /// Binds a Unix socket.
    fn bind_unix(&mut self, listener: u16, path: &Path) -> Result<(), ListenError> {
        let (socket, file) = unix::bind(path, &self.options.unix)?;
        self.files.push(file);
        let (text, origin) = (format!("unix:{}", path.display()), Origin::Path(path.to_owned()));
        self.share(&socket, Place { listener, address: None, text, origin })
    }

    /// Gives each core a descriptor of one socket, where there can't be a socket for each.
    fn share(&mut self, socket: &Socket, place: Place) -> Result<(), ListenError> {
        self.check_room(1)?;
        for of_core in &mut self.sockets {
            let copy = socket.try_clone();
            of_core.push(copy.map_err(|_| ListenError::SharedDescriptors(place.text.clone()))?);
        }
        self.places.push(place);
        Ok(())
    }

    fn check_room(&self, more: usize) -> Result<(), ListenError> {
        let has_room = self.places.len() + more <= SOCKETS_MAX;
        has_room.then_some(()).ok_or(ListenError::TooMany)
    }

    /// The listeners, as the shards know them.
    #[must_use]
    pub fn describe(&self) -> Arc<[Listener]> {
        self.listeners.clone().into()
    }

    /// Listens on all sockets.
    ///
    /// # Errors
    /// `ListenError` if another process listens there by now.
    pub fn listen(&self) -> Result<(), ListenError> {
        let backlog = i32::try_from(self.options.backlog).unwrap_or(i32::MAX);
        for sockets in &self.sockets {
            for (socket, place) in sockets.iter().zip(&self.places) {
                match (&place.origin, place.address) {
                    (&Origin::Port(option), Some(address)) => retry_while_taken(|| {
                        socket.listen(backlog).map_err(|cause| match is_taken(&cause) {
                            true => ListenError::Taken(address, option),
                            false => ListenError::Other { address, option, cause },
                        })
                    })?,
                    (Origin::Path(path), _) => socket
                        .listen(backlog)
                        .map_err(|cause| UnixError::Other { path: path.clone(), cause })?,
                    (Origin::Passed | Origin::Port(_), _) => {}
                }
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
        let sockets = self.sockets.iter().flat_map(|sockets| sockets.iter().zip(&self.places));
        for (socket, _) in sockets.filter(|(_, place)| place.address.is_some()) {
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
        self.places.iter().map(|place| place.text.clone()).collect()
    }

    /// Logs where they listen. `asks_peers`: whether peers of a listener have to be known, by an
    /// access list or by certificates.
    pub(crate) fn log_places(&self, asks_peers: impl Fn(&Listener) -> bool) {
        for Place { text, .. } in &self.places {
            info!("listening on {text}");
        }
        for Place { text, .. } in open_places(&self.places, &self.listeners, asks_peers) {
            warn!(
                "{text} can be reached from other hosts, and every peer may do everything: keep \
                 it behind a firewall, listen on loopback, name an access list with \
                 --access-file, or ask for certificates with --ssl-client-certificates"
            );
        }
    }

    /// The sockets, by core, and what is to be there as long as the server runs.
    pub(crate) fn into_sockets(self) -> (Vec<Vec<ListeningSocket>>, Kept) {
        let Self { sockets, places, files, passed, .. } = self;
        let numbered = |(socket, place): (Socket, &Place)| ListeningSocket {
            listener: place.listener,
            socket: match place.address {
                Some(_) => Acceptable::Tcp(socket.into()),
                None => Acceptable::Unix(socket.into()),
            },
        };
        let of_core = |sockets: Vec<Socket>| sockets.into_iter().zip(&places).map(numbered);
        let sockets = sockets.into_iter().map(|sockets| of_core(sockets).collect()).collect();
        (sockets, Kept { _files: files, _passed: passed })
    }
}

/// What outlives the cores' sockets.
#[derive(Debug)]
pub(crate) struct Kept {
    /// They are removed in the end.
    _files: Vec<SocketFile>,
    /// Connections wait in their queues also while the cores accept nothing any more.
    _passed: Vec<PassedSocket>,
}

/// Whether one socket can't be bound to each of two addresses.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let is_same = one.ip() == other.ip();
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && (is_same || is_any)
}

/// What the log calls a place that speaks TLS.
fn tls(text: String, speaks_tls: bool) -> String {
    if speaks_tls { format!("tls:{text}") } else { text }
}

/// The first place of each listener that other hosts reach and that doesn't ask for more.
fn open_places<'a>(
    places: &'a [Place],
    listeners: &[Listener],
    asks_peers: impl Fn(&Listener) -> bool,
) -> Vec<&'a Place> {
    let is_open = |place: &&Place| {
        place.address.is_some_and(|address| !address.ip().to_canonical().is_loopback())
            && !listeners.get(usize::from(place.listener)).is_some_and(&asks_peers)
    };
    let mut open: Vec<&Place> = places.iter().filter(is_open).collect();
    open.dedup_by_key(|place| place.listener);
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_that_other_hosts_reach_are_told_of_unless_they_ask_for_more() {
        let place = |listener, address: &str| Place {
            listener,
            address: (!address.is_empty()).then(|| address.parse().unwrap()),
            text: address.to_owned(),
            origin: Origin::Passed,
        };
        let places = [
            place(0, "127.0.0.1:4730"),
            place(1, "10.0.0.1:4730"),
            place(1, "[fd00::1]:4730"),
            place(2, "0.0.0.0:4731"),
            place(3, ""),
        ];
        let listener = |speaks_tls| Listener { name: None, speaks_tls };
        let listeners = [false, false, true, false].map(listener);
        let open = |asks_peers: fn(&Listener) -> bool| {
            let open = open_places(&places, &listeners, asks_peers);
            open.iter().map(|place| &*place.text).collect::<Vec<_>>()
        };
        assert_eq!(open(|_| false), ["10.0.0.1:4730", "0.0.0.0:4731"]);
        assert_eq!(open(|listener| listener.speaks_tls), ["10.0.0.1:4730"]);
        assert!(open(|_| true).is_empty());
    }
}
