//! Sockets that systemd passes, as sd_listen_fds(3) says: variables in, sockets out.
//!
//! They are bound and listen already: connections wait in their queues until the server accepts.
//!
//! Invariant: each is a listening stream socket of TCP or Unix.

use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use socket2::{Socket, Type};

use super::error::ListenError;

/// A socket that systemd has passed.
#[derive(Debug)]
pub struct PassedSocket {
    /// `fd:` and what FileDescriptorName= says, by default the name of the socket unit.
    pub(super) name: Arc<str>,
    pub(super) socket: Socket,
    /// Its address; none for a Unix socket.
    pub(super) address: Option<SocketAddr>,
}

impl PassedSocket {
    /// Whether it is for HTTP, by its name.
    #[must_use]
    pub fn is_for_http(&self) -> bool {
        &*self.name == "fd:http"
    }
}

/// The sockets that were passed to this process. To be called once, before the process opens
/// descriptors or forks.
///
/// # Errors
/// `ListenError` if the variables make no sense, or for a socket of another kind.
pub fn passed_sockets() -> Result<Vec<PassedSocket>, ListenError> {
    let passed = sd_notify::listen_fds_with_names().map_err(ListenError::PassedVariables)?;
    passed.map(|(descriptor, name)| adopt(descriptor, &name)).collect()
}

fn adopt(descriptor: RawFd, name: &str) -> Result<PassedSocket, ListenError> {
    // SAFETY: the descriptor is open, as a flag of it was just set, and this process's alone: it
    // was passed for this use, and nothing else was opened yet.
    #[allow(unsafe_code)]
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    let name: Arc<str> = format!("fd:{name}").into();
    let is_stream = socket.r#type().is_ok_and(|it| it == Type::STREAM);
    let address = socket.local_addr().ok().filter(|_| is_stream);
    let address = address.filter(|_| socket.is_listener().unwrap_or(false));
    match address {
        Some(address) if address.is_unix() => Ok(PassedSocket { name, socket, address: None }),
        Some(address) if address.as_socket().is_some() => {
            Ok(PassedSocket { name, socket, address: address.as_socket() })
        }
        _ => Err(ListenError::Passed(name)),
    }
}
