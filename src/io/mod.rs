//! The kernel's side: opens listeners, takes signals, reads the clocks, and picks the driver that
//! runs a shard on them.
//!
//! The drivers are sibling files with the same calls in them, one event loop each: `uring` and
//! `epoll`. They know sockets and the shard's contract, and nothing of Gearman. The shard calls
//! none.
//!
//! Invariant: one thread owns the shard and everything here but the store, which has a thread of its
//! own; signals reach it through a pipe, the store's outcomes through a channel.

mod clock;
mod commits;
mod doze;
mod epoll;
mod lifecycle;
mod listen;
pub mod log;
pub mod machine;
pub mod mesh;
pub mod process;
mod uring;

use std::sync::atomic;
use std::time::Duration;

use thiserror::Error;
use tracing::{info, warn};

pub use self::clock::Clock;
use self::commits::Commits;
pub use self::commits::StoreLost;
use self::lifecycle::Lifecycle;
pub use self::lifecycle::Signals;
pub use self::listen::{KeepAlive, ListenError, Listeners, Sockets};
use self::process::ProcessError;
pub use self::uring::UringError;
use crate::engine::Now;
use crate::shard::{Settings, Shard};
use crate::store::writer::{self, Writer};
use crate::store::{Store, StoreError};

/// How long the store may take, at the end, to keep what was handed over.
const STORE_GRACE: Duration = Duration::from_secs(5);
/// Time between two lines about a recovery that goes on.
const RECOVERY_NEWS_MS: u64 = 1000;

/// Which event loop to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where the kernel allows it, else epoll.
    Auto,
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

/// Why the server can't run, or can't go on.
#[derive(Debug, Error)]
pub enum IoError {
    /// The process can't be what it is to be.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No socket to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// io_uring was asked for and can't be had.
    #[error("{0}; choose --io epoll, or --io auto to do so by itself")]
    Uring(#[from] UringError),
    /// Another server owns the store.
    #[error(transparent)]
    StoreLost(#[from] StoreLost),
    /// The store can't be read or had.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    commits: Option<Commits>,
    connections_max: usize,
}

impl Parts {
    /// Lets the shard know what has become of what it wanted kept, before a turn's replies leave.
    fn receive_outcomes(&mut self, now: Now) -> Result<(), StoreLost> {
        match &mut self.commits {
            Some(commits) => commits.receive(&mut self.shard, now),
            None => Ok(()),
        }
    }

    /// Hands over what the shard wants kept, at the end of a turn.
    fn send_operations(&mut self) {
        if let Some(commits) = &mut self.commits {
            commits.send(&mut self.shard);
        }
    }
}

/// What a server is made of.
pub struct Server {
    /// For the shard.
    pub settings: Settings,
    /// What `choose` answered.
    pub driver: Driver,
    /// Where to listen once everything is ready.
    pub listeners: Listeners,
    /// The signals that end it.
    pub signals: Signals,
    /// Where background jobs are kept.
    pub store: Option<Box<dyn Store>>,
    /// How long a background job may wait for a store that fails.
    pub store_timeout: Duration,
    /// Opens the log anew.
    pub reopen_log: Box<dyn Fn()>,
}

/// Takes back what the store kept, listens, says so by `ready`, and serves until a signal ends it.
///
/// # Errors
/// `IoError`: see there.
pub fn run(
    server: Server,
    ready: impl FnOnce() -> Result<(), ProcessError>,
) -> Result<(), IoError> {
    let Server { settings, driver, listeners, signals, store, store_timeout, reopen_log } = server;
    let clock = Clock::start();
    let connections_max = settings.connections_max;
    let mut shard = Shard::new(settings, clock.now());
    let (mut writer, mut commits) = (None, None);
    if let Some(mut store) = store {
        recover(store.as_mut(), &mut shard, &clock)?;
        let (outcomes, line) = commits::line()?;
        let report = move |_core: usize, outcome| outcomes.send(outcome);
        let settings = writer::Settings { cores: 1, timeout: store_timeout };
        let started = Writer::start(store, settings, report)?;
        commits = Some(line.connect(0, started.sender(), started.counters()));
        writer = Some(started);
    }
    listeners.listen()?;
    listeners.announce();
    ready()?;
    let lifecycle = Lifecycle::new(signals, reopen_log);
    let parts = Parts { shard, listeners, lifecycle, clock, commits, connections_max };
    let ended = match driver {
        Driver::Epoll => epoll::run(parts),
        Driver::Uring | Driver::Auto => uring::run(parts),
    };
    // What was handed over is kept, whatever the loop ended with.
    if let Some(writer) = writer {
        writer.stop(STORE_GRACE);
    }
    ended?;
    info!("stopped");
    Ok(())
}

/// Takes back the jobs that the store kept.
fn recover(store: &mut dyn Store, shard: &mut Shard, clock: &Clock) -> Result<(), StoreError> {
    let start = clock.now();
    let (mut restored, mut doubles, mut told_ms) = (0_u64, 0_u64, start.mono_ms);
    store.load(&mut |row| {
        let now = clock.now();
        if shard.restore(&row, now) {
            restored += 1;
        } else {
            doubles += 1;
        }
        if now.mono_ms >= told_ms + RECOVERY_NEWS_MS {
            told_ms = now.mono_ms;
            info!(jobs = restored, "recovering");
        }
    })?;
    let ms = clock.now().mono_ms - start.mono_ms;
    if doubles > 0 {
        warn!(doubles, "jobs of the store that have the handle of another were left out");
    }
    info!(jobs = restored, ms, "recovered");
    Ok(())
}

/// Finds out whether a driver can run here; `Auto` becomes the best that can. Says in the log what
/// and why.
///
/// # Errors
/// `IoError::Uring` if io_uring is asked for and can't be had.
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
