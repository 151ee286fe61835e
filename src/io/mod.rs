//! The kernel's side: opens listeners, takes signals, reads the clocks, and picks the driver that
//! runs a shard on them.
//!
//! The drivers are sibling files with the same calls in them, one event loop each: `uring`,
//! `epoll` and `glommio`. They know sockets and the shard's contract, and nothing of Gearman. The
//! shard calls none.
//!
//! Invariant: each shard has one thread, which owns it and its sockets; the store has a thread of
//! its own. Signals reach a core through a pipe, everything else through its post and its bell.

mod cores;
mod driver;
mod host;
mod runtime;
mod store_link;

use std::panic::resume_unwind;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tracing::{info, warn};

use self::cores::drain::Drain;
use self::cores::mesh;
use self::cores::numbers::Numbers;
use self::cores::utilization::Meter;
use self::driver::CoreLoop;
pub use self::driver::{
    ConnectionLimits, Driver, DriverError, EventLoop, GlommioError, UringError, choose,
    connection_limits,
};
use self::host::alarm::Alarm;
pub use self::host::clock::Clock;
pub use self::host::listen::{KeepAlive, ListenError, Listeners, Sockets, check_port};
use self::host::liveness::Liveness;
use self::host::process::ProcessError;
use self::host::signals::{Lifecycle, Stopper};
pub use self::host::signals::{ReopenLog, Signals};
pub use self::host::{log, machine, memory, process};
use self::runtime::{CoreRuntime, Mail, MemoryElsewhere, Rings};
use self::store_link::StoreLink;
pub use self::store_link::StoreLost;
use crate::shard::cores::{Core, Cores};
use crate::shard::{Settings, Shard};
use crate::store::namespace::next_mark;
use crate::store::writer::{self, Writer};
use crate::store::{Store, StoreError};

/// How long the store may take, at the end, to keep what was handed over.
const STORE_GRACE: Duration = Duration::from_secs(5);
/// Time between two lines about a recovery that goes on.
const RECOVERY_NEWS_MS: u64 = 1000;

/// Why the server can't run, or can't go on.
#[derive(Debug, Error)]
pub enum IoError {
    /// The process can't be what it is to be.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No socket to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No event loop can run, or one ended.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The store can't be read or had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel refuses something that a start takes.
    #[error("the server can't start: {0}")]
    Start(#[from] std::io::Error),
}

/// What a server is made of.
pub struct Server {
    /// For the shards, but for which core each is.
    pub settings: Settings,
    /// What `choose` answered, for as many cores as there are `signals`.
    pub event_loop: EventLoop,
    /// Where to listen once everything is ready; for each core.
    pub listeners: Listeners,
    /// The signals that end it, for each core.
    pub signals: Vec<Signals>,
    /// Where background jobs are kept.
    pub store: Option<Box<dyn Store>>,
    /// How long a peer's host may acknowledge nothing before it is given up; zero: for ever.
    pub host_timeout: Duration,
    /// How long a background job may wait for a store that fails.
    pub store_timeout: Duration,
    /// How long a core looks for something to do before it waits in the kernel.
    pub busy_poll: Duration,
    /// Opens the log anew.
    pub reopen_log: ReopenLog,
}

/// Takes back what the store kept, listens, says so by `ready`, and serves until a signal ends it.
/// There are as many cores as there are `signals`; the calling thread is the first.
///
/// # Errors
/// `IoError`: see there.
pub fn run(
    server: Server,
    ready: impl FnOnce() -> Result<(), ProcessError>,
) -> Result<(), IoError> {
    let Server {
        settings,
        event_loop,
        listeners,
        signals,
        store,
        host_timeout,
        store_timeout,
        busy_poll,
        reopen_log,
    } = server;
    let clock = Clock::start();
    let (connections_max, count) = (settings.core_connections_max, signals.len());
    let Settings { handles, engine, .. } = &settings;
    let mut shards: Vec<Shard> = (0..count)
        .map(|own| {
            let cores = Cores { own, count };
            Shard::new(Settings { cores, ..settings.clone() }, clock.now())
        })
        .collect();
    let posts = mesh::mesh(count, Mail::bytes)?;
    let rings: Rings = (0..count).map(|_| OnceLock::new()).collect();
    let numbers = Numbers::new(count);
    let (mut writer, mut commits) = (None, Vec::new());
    if let Some(mut store) = store {
        recover(store.as_mut(), &mut shards, &clock)?;
        let prefix: Box<[u8]> = handles.prefix().into();
        let (mark, needs_sequences) = reserve(store.as_mut(), &prefix, engine.first_sequence)?;
        shards.iter_mut().for_each(|shard| shard.allow_sequences(mark));
        let (outcomes, lines): (Vec<_>, Vec<_>) =
            posts.iter().map(|post| store_link::line(post.doorbell())).unzip();
        let report = move |core: Core, outcome| outcomes[core].send(outcome);
        let (cores, timeout) = (count, store_timeout);
        let settings = writer::Settings { cores, timeout, prefix, mark, needs_sequences };
        let started = Writer::start(store, settings, report)?;
        let lines = lines.into_iter().enumerate();
        commits.extend(lines.map(|(core, line)| StoreLink::new(core, line, &started, mark)));
        writer = Some(started);
    }
    let looks = event_loop.queries_sockets();
    listeners.find_lost_hosts(host_timeout, looks)?;
    let host_timeout = if looks { host_timeout } else { Duration::ZERO };
    listeners.listen()?;
    listeners.announce();
    ready()?;
    let stoppers: Vec<Stopper> = signals.iter().map(Signals::stopper).collect();
    let sockets = listeners.into_sockets();
    let mut commits = commits.into_iter();
    let mut reopen_log = Some(reopen_log);
    let runtimes =
        shards.into_iter().zip(sockets).zip(signals).zip(posts).zip(Drain::of(count)).map(
            |((((shard, listeners), signals), post), drain)| CoreRuntime {
                shard,
                listeners,
                lifecycle: Lifecycle::new(signals, reopen_log.take()),
                drain,
                clock,
                post,
                commits: commits.next(),
                letters: Vec::new(),
                arrivals: Vec::new(),
                rings: Arc::clone(&rings),
                numbers: numbers.clone(),
                busy_poll,
                connections_max,
                memory: MemoryElsewhere::default(),
                meter: (count > 1 && settings.move_after > 0 && busy_poll.is_zero())
                    .then(Meter::default),
                alarm: Alarm::default(),
                liveness: Liveness::new(host_timeout),
            },
        );
    let ended = run_cores(runtimes.collect(), event_loop, &stoppers);
    // What was handed over is kept, whatever the loops ended with.
    if let Some(writer) = writer {
        writer.stop(STORE_GRACE);
    }
    ended?;
    info!("stopped");
    Ok(())
}

/// Serves on a thread for each core until all have ended; one that fails stops the others.
fn run_cores(
    runtimes: Vec<CoreRuntime>,
    event_loop: EventLoop,
    stoppers: &[Stopper],
) -> Result<(), DriverError> {
    let (processors, count) = (machine::processors(), runtimes.len());
    let stop_all = || stoppers.iter().for_each(Stopper::stop);
    // One core runs wherever the kernel likes. Several have a processor each, if there are enough.
    let processor_of = |core: Core| {
        processors.get(core).copied().filter(|_| (2..=processors.len()).contains(&count))
    };
    let run = |core: Core, (runtime, core_loop): (CoreRuntime, CoreLoop)| {
        if let Some(processor) = processor_of(core) {
            machine::stay_on(processor);
        }
        core_loop.run(runtime).inspect_err(|_| stop_all())
    };
    let core_loops = event_loop.into_core_loops(count);
    thread::scope(|scope| {
        let mut cores = runtimes.into_iter().zip(core_loops).enumerate();
        let first = cores.next();
        let mut others = Vec::new();
        for (core, parts) in cores {
            let run = &run;
            let thread = thread::Builder::new().name(format!("core-{core}"));
            others.push(thread.spawn_scoped(scope, move || run(core, parts)));
        }
        let mut ended = first.map_or(Ok(()), |(core, parts)| run(core, parts));
        for other in others {
            let result = match other {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(error) => {
                    stop_all();
                    Err(error.into())
                }
            };
            ended = ended.and(result);
        }
        ended
    })
}

/// Takes back the jobs that the store kept, each at the core that owns its function.
fn recover(store: &mut dyn Store, shards: &mut [Shard], clock: &Clock) -> Result<(), StoreError> {
    let cores = Cores { own: 0, count: shards.len() };
    let start = clock.now();
    let (mut restored, mut doubles, mut told_ms) = (0_u64, 0_u64, start.mono_ms);
    store.load(&mut |row| {
        let now = clock.now();
        if shards[cores.owner_of(&row.function)].restore(&row, now) {
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

/// Reserves numbers from `first` on. Gives the first that isn't reserved, and whether more are
/// needed: a store that can't be written now hinders no start, so that jobs it kept can be worked
/// off, but until it can be no job gets a number.
fn reserve(store: &mut dyn Store, prefix: &[u8], first: u64) -> Result<(u64, bool), StoreError> {
    let mark = next_mark(first);
    match store.reserve(prefix, mark) {
        Ok(()) => Ok((mark, false)),
        Err(StoreError::Unavailable(reason)) => {
            warn!(reason, "no job numbers can be reserved: submissions are refused until then");
            Ok((first, true))
        }
        Err(error) => Err(error),
    }
}
