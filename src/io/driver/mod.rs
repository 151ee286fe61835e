//! The event loops: which of them can run here, how many connections each has room for, and how a
//! core is started on one.
//!
//! `uring`, `epoll` and `glommio` are siblings with the same calls in them. Each runs one core's
//! service, which is the server's shard, on that core's sockets. They know sockets and what
//! `Service` says, and nothing of Gearman.
//!
//! Invariant: a driver that `choose` returned can start on as many cores as were asked for.

mod epoll;
#[cfg(feature = "glommio")]
mod glommio;
mod sending;
mod turn;
mod uring;
mod uring_error;

use clap::ValueEnum;
use thiserror::Error;
use tracing::{info, warn};

#[cfg(feature = "glommio")]
pub use self::glommio::GlommioError;
use self::uring::Ring;
pub use self::uring_error::UringError;
use crate::io::links::Links;
use crate::io::runtime::CoreRuntime;
use crate::io::store_link::StoreLost;

/// Descriptors that are reserved for other uses than connections.
pub const DESCRIPTORS_RESERVED: u64 = 64;

/// How many cores are to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreCount {
    /// As many, if there is room for them.
    pub most: usize,
    /// With fewer than these the server doesn't start.
    pub fewest: usize,
}

impl CoreCount {
    /// So many, and no fewer.
    #[must_use]
    pub const fn exactly(cores: usize) -> Self {
        Self { most: cores, fewest: cores }
    }
}

/// Which event loop to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// io_uring where the kernel allows it, else epoll.
    Auto,
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
    /// io_uring by way of glommio: slower, to compare with.
    #[cfg_attr(not(feature = "glommio"), value(hide = true))]
    Glommio,
}

impl Driver {
    /// Its name, as `--io` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
            Self::Glommio => "glommio",
        }
    }

    /// Checks that this build has the driver.
    ///
    /// # Errors
    /// `DriverError::NoGlommio`.
    pub fn check(self) -> Result<(), DriverError> {
        match self {
            Self::Glommio if cfg!(not(feature = "glommio")) => Err(DriverError::NoGlommio),
            _ => Ok(()),
        }
    }
}

/// Why an event loop can't start, or ended.
#[derive(Debug, Error)]
pub enum DriverError {
    /// io_uring was chosen and isn't available.
    #[error("{0}; choose --io epoll, or --io auto to do so by itself")]
    Uring(#[from] UringError),
    /// glommio was chosen and isn't available.
    #[error("{0}; choose --io epoll, or --io auto for the best that can be had")]
    #[cfg(feature = "glommio")]
    Glommio(#[from] GlommioError),
    /// glommio was chosen and isn't in this build.
    #[error(
        "this build has no glommio: take --io uring, which is io_uring without it, or --io auto"
    )]
    NoGlommio,
    /// Another server owns the store.
    #[error(transparent)]
    StoreLost(#[from] StoreLost),
    /// A system call of the event loop failed.
    #[error("the event loop failed: {0}; choose another with --io")]
    Loop(#[from] std::io::Error),
}

/// An event loop for each core that can run here, with the rings that were made to find that out.
pub struct EventLoop {
    driver: Driver,
    cores: usize,
    /// With io_uring one for each core; none otherwise.
    rings: Vec<Ring>,
    /// Submissions that a ring of glommio has room for.
    #[cfg(feature = "glommio")]
    ring_entries: u32,
}

/// One core's event loop, which runs on any thread.
pub(crate) enum CoreLoop {
    Uring(Box<Ring>),
    Epoll,
    #[cfg(feature = "glommio")]
    Glommio {
        /// Submissions that its ring has room for.
        ring_entries: u32,
    },
}

impl EventLoop {
    /// The driver that runs; never `Auto`.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// How many cores it is for.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// Whether the drivers can ask the kernel about the output of each connection.
    pub(crate) fn queries_sockets(&self) -> bool {
        self.rings.iter().all(Ring::installs_descriptors)
    }

    /// The event loops of `cores` cores, in the cores' order.
    ///
    /// # Panics
    /// In debug builds, if `choose` was called for another number of cores.
    pub(crate) fn into_core_loops(self, cores: usize) -> Vec<CoreLoop> {
        match self.driver {
            Driver::Uring | Driver::Auto => {
                debug_assert_eq!(self.rings.len(), cores, "a ring for each core");
                self.rings.into_iter().map(|ring| CoreLoop::Uring(Box::new(ring))).collect()
            }
            #[cfg(feature = "glommio")]
            Driver::Glommio => {
                let ring_entries = self.ring_entries;
                (0..cores).map(|_| CoreLoop::Glommio { ring_entries }).collect()
            }
            // `choose` returns no driver that this build lacks.
            #[cfg(not(feature = "glommio"))]
            Driver::Glommio => Vec::new(),
            Driver::Epoll => (0..cores).map(|_| CoreLoop::Epoll).collect(),
        }
    }
}

impl CoreLoop {
    /// Serves on the calling thread until a signal ends it.
    ///
    /// # Errors
    /// `DriverError`: glommio's executor can't be made, the store is lost, or a system call failed.
    pub(crate) fn run<L: Links>(self, runtime: CoreRuntime<L>) -> Result<(), DriverError> {
        match self {
            Self::Uring(ring) => uring::run(runtime, *ring),
            Self::Epoll => epoll::run(runtime),
            #[cfg(feature = "glommio")]
            Self::Glommio { ring_entries } => glommio::run(runtime, ring_entries),
        }
    }
}

/// Finds out how many cores can run on a driver here; `Auto` becomes the best that can. With
/// io_uring they may be fewer than `cores.most`, if locked memory has room for no more. Logs the
/// choice and the reason. Each ring has room for `ring_entries` submissions, which decides how
/// much locked memory it takes. The io_uring driver's rings are restricted to what it asks for if
/// `is_restricted`.
///
/// # Errors
/// `DriverError` if a driver was chosen that can't run here, or that this build lacks.
pub fn choose(
    driver: Driver,
    cores: CoreCount,
    ring_entries: u32,
    is_restricted: bool,
) -> Result<EventLoop, DriverError> {
    let event_loop = |driver, rings: Vec<Ring>| {
        let cores = if rings.is_empty() { cores.most } else { rings.len() };
        Ok(EventLoop {
            driver,
            cores,
            rings,
            #[cfg(feature = "glommio")]
            ring_entries,
        })
    };
    match driver {
        Driver::Epoll => {
            info!(driver = "epoll", "event loop as asked for");
            event_loop(driver, Vec::new())
        }
        Driver::Uring => {
            let rings = uring::rings(cores, ring_entries, is_restricted)?;
            info!(driver = "uring", "event loop as asked for");
            event_loop(driver, rings)
        }
        #[cfg(feature = "glommio")]
        Driver::Glommio => {
            glommio::probe(cores.most, ring_entries)?;
            info!(driver = "glommio", "event loop as asked for");
            event_loop(driver, Vec::new())
        }
        #[cfg(not(feature = "glommio"))]
        Driver::Glommio => Err(DriverError::NoGlommio),
        Driver::Auto => match uring::rings(cores, ring_entries, is_restricted) {
            Ok(rings) => {
                info!(driver = "uring", "event loop chosen: the kernel has all of io_uring we use");
                event_loop(Driver::Uring, rings)
            }
            Err(error) => {
                warn!(driver = "epoll", reason = %error, "event loop chosen: no io_uring here");
                event_loop(Driver::Epoll, Vec::new())
            }
        },
    }
}

/// Connections that a driver has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// On each core.
    pub per_core: u64,
    /// On all cores together.
    pub total: u64,
}

/// Connections that a driver has room for when the process may have `descriptors` descriptors. With
/// io_uring they are the ring's, not the process's, and each ring may have as many.
#[must_use]
pub fn connection_limits(driver: Driver, descriptors: u64, cores: usize) -> ConnectionLimits {
    let usable = |descriptors: u64| descriptors.saturating_sub(DESCRIPTORS_RESERVED);
    match driver {
        Driver::Uring | Driver::Auto => {
            let per_core = usable(descriptors.min(uring::FILES_MAX.into()));
            ConnectionLimits { per_core, total: per_core.saturating_mul(cores as u64) }
        }
        Driver::Epoll | Driver::Glommio => {
            ConnectionLimits { per_core: usable(descriptors), total: usable(descriptors) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ring_has_room_of_its_own_and_no_more_than_the_kernel_allows() {
        let of = |driver, descriptors| {
            let ConnectionLimits { per_core, total } = connection_limits(driver, descriptors, 3);
            (per_core, total)
        };
        assert_eq!(of(Driver::Uring, 20_000), (19_936, 59_808));
        assert_eq!(of(Driver::Epoll, 20_000), (19_936, 19_936));
        assert_eq!(of(Driver::Glommio, 20_000), (19_936, 19_936));
        // Containers are often allowed a billion.
        assert_eq!(of(Driver::Uring, 1 << 30), ((1 << 20) - 64, 3 * ((1 << 20) - 64)));
        assert_eq!(of(Driver::Uring, 30), (0, 0));
    }
}
