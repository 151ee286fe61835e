//! Where to listen in, listening sockets out.
//!
//! Options that accepted sockets inherit on Linux (TCP_NODELAY, keep-alive, those that detect lost
//! hosts) are set here once, so that accepting costs no further system calls.
//!
//! Invariant: all cores have the same sockets in the same order.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tracing::{info, warn};

use self::error::SOCKETS_MAX;
pub use self::error::{ListenError, PortOption};
pub use self::spec::{Endpoint, ListenSpec};
pub use self::tcp::{KeepAlive, Sockets, check_ports};
use self::tcp::{bind_host, is_taken, resolve, retry_while_taken};
use super::liveness;
use crate::shard::Listener;

mod error;
mod spec;
mod tcp;

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
