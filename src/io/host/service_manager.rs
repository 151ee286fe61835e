//! The service manager that has started the server, such as systemd: variables in, the way to tell
//! it something out.
//!
//! sd_notify(3) says what can be told. The socket is connected at once, as the server may neither
//! reach it as another user nor from its sandbox. Knows nothing of what is told.
//!
//! Invariant: the variables are gone once they were read.

use std::ffi::OsString;
use std::io::Error;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use thiserror::Error;

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// The process that systemd has started, where the other variables may have been inherited.
const STARTED: &str = "SYSTEMD_EXEC_PID";

/// A service manager that wants to be told how the server is.
#[derive(Debug)]
pub struct ServiceManager {
    /// Connected to the manager's; never blocks.
    pub socket: UnixDatagram,
    /// The longest time that the manager waits for a sign of life, if it waits for any.
    pub watchdog: Option<Duration>,
}

/// The service manager can't be told anything.
#[derive(Debug, Error)]
#[error(
    "the service manager can't be told that the server is ready: NOTIFY_SOCKET is \"{}\": {cause}; \
     take NotifyAccess=main, or Type=exec",
    path.display()
)]
pub struct Unreachable {
    path: OsString,
    cause: Error,
}

impl ServiceManager {
    /// Whether the manager has started this very process, and waits for it to be ready. To be asked
    /// before `take`.
    #[must_use]
    pub fn waits_for_this_process() -> bool {
        let waits = std::env::var_os(NOTIFY_SOCKET).is_some_and(|path| !path.is_empty());
        let started = std::env::var_os(STARTED);
        waits && started.is_none_or(|id| id == std::process::id().to_string().as_str())
    }

    /// The one that the environment names, which names none afterwards; `None` without one. To be
    /// called before the process forks or has a second thread.
    ///
    /// # Errors
    /// `Unreachable` if its socket can't be connected to.
    pub fn take() -> Result<Option<Self>, Unreachable> {
        let path = std::env::var_os(NOTIFY_SOCKET);
        // SAFETY: the process has one thread, so nothing else looks at the environment.
        #[allow(unsafe_code)]
        let watchdog = unsafe {
            std::env::remove_var(NOTIFY_SOCKET);
            sd_notify::watchdog_enabled_and_unset_env()
        };
        let Some(path) = path.filter(|path| !path.is_empty()) else { return Ok(None) };
        match connect(&path) {
            Ok(socket) => Ok(Some(Self { socket, watchdog })),
            Err(cause) => Err(Unreachable { path, cause }),
        }
    }
}

/// A socket that is connected to a path, or with `@` to an abstract name.
fn connect(path: &OsString) -> Result<UnixDatagram, Error> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
