//! Sockets that systemd passes, as sd_listen_fds(3) says: variables in, sockets out.
//!
//! They are bound and listen already: connections wait in their queues until the server accepts.
//! Their names say what they are for.
//!
//! Invariant: each is a listening stream socket of TCP or Unix.

use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::{Socket, Type};

use super::error::ListenError;

/// What a passed socket is for, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedUse {
    /// `gearman`: as `--listen` without `tls:`.
    Gearman,
    /// `tls`: as `--listen tls:`.
    Tls,
    /// `http`: as `--http`.
    Http,
}

/// A socket that systemd has passed.
#[derive(Debug)]
pub struct PassedSocket {
    /// `fd:` and what FileDescriptorName= says.
    pub(super) name: Arc<str>,
    pub(super) serves: PassedUse,
    pub(super) socket: Socket,
    /// Its address; none for a Unix socket.
    pub(super) address: Option<SocketAddr>,
    /// The path of a Unix socket that has one.
    path: Option<PathBuf>,
}

impl PassedSocket {
    /// What it is for.
    #[must_use]
    pub fn serves(&self) -> PassedUse {
        self.serves
    }

    /// Whether connections to this address come to it.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        self.address.is_some_and(|own| {
            let is_any = own.ip().is_unspecified() && own.is_ipv4() == address.is_ipv4();
            own.port() == address.port() && (own.ip() == address.ip() || is_any)
        })
    }

    /// Whether connections to this path come to it.
    pub(super) fn has_path(&self, path: &Path) -> bool {
        self.path.as_deref() == Some(path)
    }
}

/// The sockets that were passed to this process, whose variables are gone afterwards. To be called
/// once, before the process opens descriptors, forks or has a second thread.
///
/// # Errors
/// `ListenError` if the variables make no sense, or for a socket of another kind or name.
pub fn passed_sockets() -> Result<Vec<PassedSocket>, ListenError> {
    // SAFETY: the process has one thread, so nothing else looks at the environment.
    #[allow(unsafe_code)]
    let passed = unsafe { sd_notify::listen_fds_with_names_and_unset_env() };
    let passed = passed.map_err(ListenError::PassedVariables)?;
    passed.map(|(descriptor, name)| adopt(descriptor, &name)).collect()
}

fn adopt(descriptor: RawFd, name: &str) -> Result<PassedSocket, ListenError> {
    // SAFETY: the descriptor is open, as a flag of it was just set, and this process's alone: it
    // was passed for this use, and nothing else was opened yet.
    #[allow(unsafe_code)]
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    let serves = match name {
        "gearman" => PassedUse::Gearman,
        "tls" => PassedUse::Tls,
        "http" => PassedUse::Http,
        _ => return Err(ListenError::PassedName(name.to_owned())),
    };
    let name: Arc<str> = format!("fd:{name}").into();
    let is_stream = socket.r#type().is_ok_and(|it| it == Type::STREAM);
    let address = socket.local_addr().ok().filter(|_| is_stream);
    let address = address.filter(|_| socket.is_listener().unwrap_or(false));
    match address {
        Some(address) if address.is_unix() && serves == PassedUse::Tls => {
            Err(ListenError::PassedPlain)
        }
        Some(address) if address.is_unix() => {
            let path = address.as_pathname().map(Path::to_owned);
            Ok(PassedSocket { name, serves, socket, address: None, path })
        }
        Some(address) if address.as_socket().is_some() => {
            let address = address.as_socket();
            Ok(PassedSocket { name, serves, socket, address, path: None })
        }
        _ => Err(ListenError::Passed(name)),
    }
}
