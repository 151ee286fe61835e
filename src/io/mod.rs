//! The kernel's side: opens listeners, takes signals, reads the clocks, and picks the driver that
//! runs a shard on them.
//!
//! The drivers are sibling files with the same calls in them, one event loop each: `uring`,
//! `epoll` and `glommio`. They know sockets and the shard's contract, and nothing of Gearman. The
//! shard calls none.
//!
//! Invariant: one thread owns the shard and everything here; signals reach it through a pipe.

mod clock;
mod epoll;
mod glommio;
mod lifecycle;
mod listen;
pub mod log;
pub mod machine;
pub mod process;
mod uring;

use thiserror::Error;
use tracing::{info, warn};

pub use self::clock::Clock;
pub use self::glommio::GlommioError;
use self::lifecycle::Lifecycle;
pub use self::lifecycle::Signals;
pub use self::listen::{KeepAlive, ListenError, Listeners, Sockets};
pub use self::uring::UringError;
use crate::engine::Now;
use crate::shard::{Settings, Shard};

/// Which event loop to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where the kernel allows it, else epoll.
    Auto,
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
    /// io_uring by way of glommio.
    Glommio,
}

/// Why the server can't run, or can't go on.
#[derive(Debug, Error)]
pub enum IoError {
    /// No socket to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// io_uring was asked for and can't be had.
    #[error("{0}; choose --io epoll, or --io auto to do so by itself")]
    Uring(#[from] UringError),
    /// glommio was asked for and can't be had.
    #[error("{0}; choose --io epoll, or --io auto for the best that can be had")]
    Glommio(#[from] GlommioError),
    /// A system call of the event loop failed that never should.
    #[error("the event loop failed: {0}")]
    Loop(#[from] std::io::Error),
}

/// Everything a driver is made of.
struct Parts {
    shard: Shard,
    listeners: Listeners,
    lifecycle: Lifecycle,
    clock: Clock,
    connections_max: usize,
}

/// Serves until a signal ends it. `driver` is what `choose` answered.
///
/// # Errors
/// `IoError`: see there.
pub fn run(
    settings: Settings,
    driver: Driver,
    listeners: Listeners,
    signals: Signals,
    reopen_log: Box<dyn Fn()>,
) -> Result<(), IoError> {
    let clock = Clock::start();
    let connections_max = settings.connections_max;
    let shard = Shard::new(settings, clock.now());
    let lifecycle = Lifecycle::new(signals, reopen_log);
    let parts = Parts { shard, listeners, lifecycle, clock, connections_max };
    match driver {
        Driver::Epoll => epoll::run(parts)?,
        Driver::Glommio => glommio::run(parts)?,
        Driver::Uring | Driver::Auto => uring::run(parts)?,
    }
    info!("stopped");
    Ok(())
}

/// Finds out whether a driver can run here; `Auto` becomes the best that can. Says in the log what
/// and why.
///
/// # Errors
/// `IoError::Uring` or `IoError::Glommio` if that is asked for and can't be had.
pub fn choose(driver: Driver) -> Result<Driver, IoError> {
    match driver {
        Driver::Epoll => {
            info!(driver = "epoll", "event loop as asked for");
            Ok(Driver::Epoll)
        }
        Driver::Uring => {
            uring::probe()?;
            info!(driver = "uring", "event loop as asked for");
            Ok(Driver::Uring)
        }
        Driver::Glommio => {
            glommio::probe()?;
            info!(driver = "glommio", "event loop as asked for");
            Ok(Driver::Glommio)
        }
        Driver::Auto => match uring::probe() {
            Ok(()) => {
                info!(driver = "uring", "event loop chosen: the kernel has all of io_uring we use");
                Ok(Driver::Uring)
            }
            Err(error) => {
                warn!(driver = "epoll", reason = %error, "event loop chosen: no io_uring here");
                Ok(Driver::Epoll)
            }
        },
    }
}

/// Milliseconds until the earlier of two deadlines; `None` = no deadline, 0 = it has passed.
fn wait_ms(now: Now, deadlines: [Option<u64>; 3]) -> Option<u64> {
    let deadline = deadlines.into_iter().flatten().min()?;
    Some(deadline.saturating_sub(now.mono_ms))
}
