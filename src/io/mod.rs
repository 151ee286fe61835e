//! The kernel's side of the server: starts it, and runs each core's shard on an event loop.
//!
//! `host` wraps the host (sockets, signals, clocks, the log), `cores` is what cores share, `links`
//! is what one core exchanges with other threads, `runtime` decides when it acts, and `driver` has
//! the event loops that a runtime runs on. They know sockets and the service's contract, and
//! nothing of Gearman; the shard calls none of them.
//!
//! Invariant: each shard has one thread, which owns it and its sockets; the store has two of its
//! own. Signals reach a core through a pipe, everything else through its mailbox and waker.

mod cores;
mod driver;
mod host;
mod http_link;
mod links;
mod member;
mod recovery;
mod runtime;
mod store_link;
mod store_threads;

use std::panic::resume_unwind;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tracing::{info, warn};

use self::cores::drain::Drain;
use self::cores::gauges::Gauges;
use self::cores::mesh::{self, CoreWaker, Mailbox};
use self::cores::numbers::Numbers;
use self::cores::utilization::Meter;
use self::driver::CoreLoop;
#[cfg(feature = "glommio")]
pub use self::driver::GlommioError;
pub use self::driver::{
    ConnectionLimits, CoreCount, DESCRIPTORS_RESERVED, Driver, DriverError, EventLoop, UringError,
    choose, connection_limits,
};
use self::host::alarm::Alarm;
use self::host::clock::Clock;
pub(crate) use self::host::listen::{Acceptable, peer_of};
pub use self::host::listen::{
    Endpoint, KeepAlive, ListenError, ListenSpec, Listeners, PassedSocket, PassedUse, PortOption,
    Sockets, UnixError, UnixSockets, check_ports, passed_sockets,
};
use self::host::liveness::Liveness;
use self::host::process::ProcessError;
use self::host::quick_ack::QuickAcks;
pub use self::host::service_manager::{ServiceManager, Unreachable};
pub use self::host::signals::{Leaving, LogControl, Signals};
use self::host::signals::{Lifecycle, Stopper};
pub use self::host::{folder, log, machine, memory, privileges, process, sandbox};
pub use self::http_link::{HttpLink, TURN_BOUNDS_US, TURN_BUCKETS, TurnTimes};
use self::links::{Envelope, Lost, NoLinks, OtherCoresMemory, ShardLinks};
pub use self::links::{Reload, Reloaded};
use self::runtime::{CoreRuntime, Rings};
pub use self::store_link::StoreLost;
use self::store_threads::StoreSettings;
use crate::shard::cores::{Core, Cores};
use crate::shard::{Service, Settings, Shard};
use crate::store::health::StoreHealth;
use crate::store::members::Members;
use crate::store::{Store, StoreError};

/// How long the store may take, at the end, to write the operations that it was given.
const STORE_GRACE: Duration = Duration::from_secs(5);

/// Why the server can't run, or can't go on.
#[derive(Debug, Error)]
pub enum IoError {
    /// The process can't be set up.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No socket to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No event loop can run, or one ended.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The store can't be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel refuses a thread, a descriptor or a socket option.
    #[error(
        "the kernel refuses a thread, a descriptor or a socket option: {0}; raise the limits of \
         threads (TasksMax=) and descriptors (LimitNOFILE=), or lower --threads"
    )]
    Start(#[from] std::io::Error),
}

/// Everything that a server is started with.
pub struct Server {
    /// For the shards; each core's number is put in.
    pub settings: Settings,
    /// What `choose` returned, for as many cores as there are `signals`.
    pub event_loop: EventLoop,
    /// Where to listen once everything is ready; for each core.
    pub listeners: Listeners,
    /// The signals, for each core.
    pub signals: Vec<Signals>,
    /// Where background jobs are kept.
    pub store: Option<Box<dyn Store>>,
    /// The view of all partitions, if the store has any; `settings.cluster` is to be there, too.
    pub members: Option<Box<dyn Members>>,
    /// How long a peer's host may acknowledge nothing before it is given up; zero: for ever.
    pub host_timeout: Duration,
    /// How long a background job may wait for a store that fails.
    pub store_timeout: Duration,
    /// What the store's thread tells of it, if there is a store.
    pub store_health: Arc<StoreHealth>,
    /// How long jobs may still run after the signal to stop; zero: they aren't waited for.
    pub drain: Duration,
    /// How long a core looks for work before it waits in the kernel.
    pub busy_poll: Duration,
    /// Whether connections leave a core that has no time left.
    pub offload: bool,
    /// Whether each of several cores has a processor of its own, if there are enough.
    pub pins_threads: bool,
    /// Reopens the log, and changes its level.
    pub log_control: Box<dyn LogControl>,
    /// Reads files anew when SIGHUP comes.
    pub reload: Reload,
    /// What the thread for HTTP gets its end of the links by, if there is one; called once all
    /// sockets listen.
    pub attach_http: Option<AttachHttp>,
}

/// Takes the HTTP thread's end of the links.
pub type AttachHttp = Box<dyn FnOnce(HttpLink)>;

/// Takes back what the store kept, listens, calls `ready`, and serves until a signal ends it.
/// There are as many cores as there are `signals`; the calling thread is the first.
///
/// # Errors
/// `IoError`: see there.
pub fn run(
    server: Server,
    ready: impl FnOnce() -> Result<(), ProcessError>,
) -> Result<(), IoError> {
    let Server { settings, event_loop, listeners, signals, store, .. } = server;
    let (clock, count) = (Clock::start(), signals.len());
    settings.cluster.iter().for_each(|view| view.set_cores_began(clock.began()));
    let has_http = server.attach_http.is_some();
    let ends = count + usize::from(has_http);
    let shard = |own| {
        let cores = Cores { own, count };
        Shard::new(Settings { cores, ..settings.clone() }, clock.now())
    };
    let mut shards: Vec<Shard> = (0..count).map(shard).collect();
    let mut mailboxes = mesh::mesh(ends, Envelope::bytes)?;
    let http_mailbox = if has_http { mailboxes.pop() } else { None };
    let wakers: Vec<CoreWaker> = mailboxes.iter().map(Mailbox::waker).collect();
    let mut gauges = Gauges::with_http(count, has_http);
    let start = |(store, members)| {
        let memory = gauges[0].for_observer();
        let bytes_max = settings.memory_bytes_max;
        let threads = StoreSettings {
            settings: &settings,
            timeout: server.store_timeout,
            health: Arc::clone(&server.store_health),
            is_cluster: settings.has_other_servers,
            leaving: signals[0].leaving(),
            memory_left: Box::new(move || {
                bytes_max.saturating_sub(0_usize.saturating_add_signed(memory.elsewhere().bytes))
            }),
        };
        threads.start(store, members, &mut shards, &wakers, &clock)
    };
    let store = store.map(|store| (store, server.members));
    let (store_threads, store_links) = store.map(start).transpose()?.unzip();
    let queries_sockets = event_loop.queries_sockets();
    listeners.find_lost_hosts(server.host_timeout, queries_sockets)?;
    listeners.listen()?;
    let requires_certificates =
        settings.tls.as_ref().is_some_and(|server| server.requires_certificates());
    let has_list = settings.access_list.is_some();
    listeners.log_places(|it| has_list || it.speaks_tls && requires_certificates);
    ready()?;
    let has_meter = count > 1 && settings.move_after > 0 && server.busy_poll.is_zero();
    let stoppers: Vec<Stopper> = signals.iter().map(Signals::stopper).collect();
    let rings: Rings = (0..count).map(|_| OnceLock::new()).collect();
    let numbers = Numbers::new(count);
    let lost = Arc::<Lost>::default();
    let (sockets, _kept) = listeners.into_sockets();
    let mut sockets = sockets.into_iter();
    let mut store_links = store_links.into_iter().flatten();
    let mut log_control = Some(server.log_control);
    let mut reload = Some(server.reload);
    let http_gauges = if has_http { gauges.pop() } else { None };
    let http = server.attach_http.zip(http_mailbox).zip(http_gauges);
    if let Some(((attach, mailbox), gauges)) = http {
        attach(HttpLink::new(mailbox, gauges, settings.handles.clone()));
    }
    let ends = Drain::of(count).into_iter().zip(gauges);
    let cores = shards.into_iter().zip(mailboxes).zip(signals).zip(ends);
    let runtimes = cores.map(|(((shard, mailbox), signals), (drain, gauges))| CoreRuntime {
        service: shard,
        links: ShardLinks {
            mailbox,
            gauges,
            drain,
            clock,
            store_link: store_links.next(),
            messages: Vec::new(),
            connections_max: settings.core_connections_max,
            memory: OtherCoresMemory::default(),
            meter: has_meter.then(Meter::default),
            lost: Arc::clone(&lost),
            offloads: server.offload,
            times_turns: has_http,
            thread: None,
            reload: reload.take(),
        },
        listeners: sockets.next().unwrap_or_default(),
        lifecycle: Lifecycle::new(
            signals,
            log_control.take(),
            server.drain,
            settings.has_other_servers,
        ),
        clock,
        arrivals: Vec::new(),
        rings: Arc::clone(&rings),
        numbers: numbers.clone(),
        busy_poll: server.busy_poll,
        connections_max: settings.core_connections_max,
        alarm: Alarm::default(),
        liveness: Liveness::new(if queries_sockets { server.host_timeout } else { Duration::ZERO }),
        quick_acks: QuickAcks::default(),
    });
    let processors = if server.pins_threads { machine::processors() } else { Vec::new() };
    let ended = run_cores(runtimes.collect(), event_loop, &processors, &stoppers);
    // Operations that were handed over are written, whatever the loops ended with.
    if let Some(threads) = store_threads {
        threads.stop(STORE_GRACE);
    }
    ended?;
    let [jobs, dead] = [&lost.jobs, &lost.dead].map(|count| count.load(Ordering::Relaxed));
    if jobs + dead > 0 {
        warn!(jobs, dead, "jobs are lost: only memory had them; a server with --store keeps them");
    }
    info!("stopped");
    Ok(())
}

/// Listens and serves with any service on this thread until a signal ends it, on the event loop
/// that a server with one core has. `listeners`, `event_loop` and `signals` are for one core.
///
/// # Errors
/// `IoError`: see there.
pub fn serve(
    service: impl Service,
    event_loop: EventLoop,
    listeners: Listeners,
    signals: Signals,
    connections_max: usize,
) -> Result<(), IoError> {
    listeners.listen()?;
    listeners.log_places(|_| false);
    let (sockets, _kept) = listeners.into_sockets();
    let mut mailboxes = mesh::mesh(1, |_| 0)?;
    let runtime = CoreRuntime {
        service,
        links: NoLinks::new(mailboxes.remove(0)),
        listeners: sockets.into_iter().flatten().collect(),
        lifecycle: Lifecycle::new(signals, None, Duration::ZERO, false),
        clock: Clock::start(),
        arrivals: Vec::new(),
        rings: Rings::default(),
        numbers: Numbers::new(1),
        busy_poll: Duration::ZERO,
        connections_max,
        alarm: Alarm::default(),
        liveness: Liveness::new(Duration::ZERO),
        quick_acks: QuickAcks::default(),
    };
    let core_loop = event_loop.into_core_loops(1).pop();
    Ok(core_loop.map_or(Ok(()), |core_loop| core_loop.run(runtime))?)
}

/// Serves on a thread for each core until all have ended; one that fails stops the others.
fn run_cores(
    runtimes: Vec<CoreRuntime<ShardLinks>>,
    event_loop: EventLoop,
    processors: &[usize],
    stoppers: &[Stopper],
) -> Result<(), DriverError> {
    let count = runtimes.len();
    let stop_all = || stoppers.iter().for_each(Stopper::stop);
    // One core runs wherever the kernel likes. Several have one of `processors` each, if there are
    // enough.
    let processor_of = |core: Core| {
        processors.get(core).copied().filter(|_| (2..=processors.len()).contains(&count))
    };
    let run = |core: Core, (runtime, core_loop): (CoreRuntime<ShardLinks>, CoreLoop)| {
        if let Some(processor) = processor_of(core) {
            machine::pin_thread(processor);
        }
        core_loop.run(runtime).inspect_err(|_| stop_all())
    };
    let core_loops = event_loop.into_core_loops(count);
    thread::scope(|scope| {
        let mut cores = runtimes.into_iter().zip(core_loops).enumerate();
        let first = cores.next();
        let mut others = Vec::new();
        for (core, loaded) in cores {
            let run = &run;
            let thread = thread::Builder::new().name(format!("core-{core}"));
            others.push(thread.spawn_scoped(scope, move || run(core, loaded)));
        }
        let mut ended = first.map_or(Ok(()), |(core, loaded)| run(core, loaded));
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

#[cfg(test)]
mod tests;
