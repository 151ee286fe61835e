//! The kernel's side: opens listeners, takes signals, reads the clocks, and picks the driver that
//! runs a shard on them.
//!
//! The drivers are sibling files with the same calls in them, one event loop each: `uring`,
//! `epoll` and `glommio`. They know sockets and the shard's contract, and nothing of Gearman. The
//! shard calls none.
//!
//! Invariant: each shard has one thread, which owns it and its sockets; the store has a thread of
//! its own. Signals reach a core through a pipe, everything else through its post and its bell.

mod alarm;
mod busy;
mod clock;
mod commits;
mod doze;
mod drain;
mod epoll;
mod glommio;
mod lifecycle;
mod listen;
mod liveness;
pub mod log;
pub mod machine;
pub mod memory;
pub mod mesh;
mod numbers;
mod patience;
pub mod process;
mod uring;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::sync::{Arc, OnceLock, atomic};
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tracing::{info, warn};

use self::alarm::Alarm;
use self::busy::Meter;
pub use self::clock::Clock;
use self::commits::Commits;
pub use self::commits::StoreLost;
use self::drain::Drain;
pub use self::glommio::GlommioError;
use self::lifecycle::Lifecycle;
use self::lifecycle::Stopper;
pub use self::lifecycle::{ReopenLog, Signals};
pub use self::listen::{KeepAlive, ListenError, Listeners, Sockets, check_port};
use self::liveness::Liveness;
use self::mesh::{Load, Post};
use self::numbers::{Number, Numbers};
use self::process::ProcessError;
pub use self::uring::UringError;
use crate::config::Room;
use crate::engine::{ConnId, Now};
use crate::shard::cores::{Core, CoreSet, Cores};
use crate::shard::remote::message::Message;
use crate::shard::{HandOver, MigratingConnection, OtherCores, Settings, Shard};
use crate::store::namespace::next_mark;
use crate::store::writer::{self, Writer};
use crate::store::{Store, StoreError};

/// Letters of other cores that a turn sees to before the connections have theirs.
const LETTERS_PER_TURN: usize = 4096;
/// How long the store may take, at the end, to keep what was handed over.
const STORE_GRACE: Duration = Duration::from_secs(5);
/// Descriptors that are kept for other things than connections.
const DESCRIPTORS_RESERVED: u64 = 64;
/// What the log says of a connection whose peer's host is gone.
const HOST_GONE: &str = "the peer's host acknowledges nothing any more";
/// The same of one that the kernel has given up.
const HOST_SILENT: &str = "the peer's host doesn't answer";
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
    /// io_uring by way of glommio.
    Glommio,
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
    /// glommio was asked for and can't be had.
    #[error("{0}; choose --io epoll, or --io auto for the best that can be had")]
    Glommio(#[from] GlommioError),
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

/// What travels between cores.
#[derive(Debug)]
enum Mail {
    Message(Message),
    /// A connection that moves.
    Connection(Box<MigratingConnection>, Socket),
}

impl Mail {
    /// Memory that it takes on its way, as far as that varies much.
    fn bytes(&self) -> usize {
        match self {
            Self::Message(letter) => letter.bytes(),
            Self::Connection(..) => size_of::<MigratingConnection>(),
        }
    }
}

/// The socket of a connection that moves.
#[derive(Debug)]
enum Socket {
    /// Its descriptor, by which lists name it.
    Descriptor(OwnedFd),
    /// A copy of its descriptor.
    Copy(OwnedFd, Number),
    /// It is among the direct descriptors of the receiver's ring already, in this place.
    Direct(u32, Number),
}

/// Everything a driver is made of.
struct Parts {
    shard: Shard,
    listeners: Vec<TcpListener>,
    lifecycle: Lifecycle,
    drain: Drain,
    clock: Clock,
    /// To and from the other cores.
    post: Post<Mail>,
    /// To and from the store, if there is one.
    commits: Option<Commits>,
    /// Letters that are being moved; empty otherwise.
    letters: Vec<(Core, Message)>,
    /// Connections that have come from other cores, which the driver is to attach.
    arrivals: Vec<(ConnId, Socket)>,
    /// For moving connections from ring to ring.
    rings: uring::Rings,
    /// For connections that lists can't name by their descriptors.
    numbers: Numbers,
    /// How long to look for something to do before waiting in the kernel.
    busy_poll: Duration,
    /// Submissions that a ring has room for.
    ring_entries: u32,
    /// Most connections of this core.
    connections_max: usize,
    memory: MemoryElsewhere,
    /// None with one core, where connections don't move, and where cores look for something to do:
    /// these are always busy.
    meter: Option<Meter>,
    alarm: Alarm,
    liveness: Liveness,
}

/// What the other cores have in use, which is looked at once a millisecond.
#[derive(Default)]
struct MemoryElsewhere {
    bytes: isize,
    largest_unread_bytes: usize,
    /// In milliseconds of `Now::mono_ms`.
    read_at_ms: Option<u64>,
}

impl Parts {
    /// Hands the shard what other threads have for it. Comes after the turn has found out what is
    /// to be read and before it is: a grab that was written after the JOB_CREATED of another core's
    /// job then comes behind that core's hint.
    fn receive(&mut self, now: Now) -> Result<(), StoreLost> {
        let Self { shard, post, commits, arrivals, connections_max, memory, .. } = self;
        let Self { meter, clock, .. } = self;
        if memory.read_at_ms != Some(now.mono_ms) {
            let Load { bytes, largest_unread_bytes, .. } = post.elsewhere();
            let read_at_ms = Some(now.mono_ms);
            *memory = MemoryElsewhere { bytes, largest_unread_bytes, read_at_ms };
        }
        if let Some(busy) = meter.as_mut().and_then(|it| it.read(now.mono_ms, || clock.elapsed())) {
            post.publish_busy(busy, now.mono_ms);
            match post.reliever(*connections_max, now.mono_ms) {
                Some(to) => shard.start_offload(to, busy::to_go(shard.connections())),
                None => shard.start_offload(post.core(), 0),
            }
        }
        let connections = post.connections_elsewhere();
        let accepting = CoreSet::from_bits(post.hospitable(*connections_max, now.mono_ms));
        let MemoryElsewhere { bytes, largest_unread_bytes, .. } = *memory;
        shard.set_other_cores(OtherCores { bytes, connections, accepting, largest_unread_bytes });
        post.receive(LETTERS_PER_TURN, |from, mail| match mail {
            Mail::Message(letter) => shard.receive_message(from, letter, now),
            Mail::Connection(passenger, socket) => {
                arrivals.push((shard.attach(from, *passenger, now), socket));
            }
        });
        commits.as_mut().map_or(Ok(()), |commits| commits.receive(shard, now))
    }

    /// The next connection whose replies may leave. What requests so far have for other cores is
    /// passed on before: what a client hears of, others know or find when they look. They are rung
    /// for in `send`.
    fn next_dirty(&mut self, now: Now) -> Option<ConnId> {
        let Self { shard, post, letters, .. } = self;
        // It also sees to requests that had to wait.
        let conn = shard.poll_dirty(now);
        shard.take_messages(letters);
        if !letters.is_empty() {
            letters.drain(..).for_each(|(to, letter)| post.send(to, Mail::Message(letter)));
            shard.set_congested(CoreSet::from_bits(post.congested()));
        }
        conn
    }

    /// Lets the shard do what is due. Comes after the turn's reads and letters.
    fn tick(&mut self, now: Now) {
        if self.alarm.is_time(self.shard.deadline_ms(), now.mono_ms) {
            self.shard.tick(now);
        }
    }

    /// A number for a connection that lists can't name by its descriptor.
    fn deal_number(&self) -> Number {
        self.numbers.deal(self.post.core())
    }

    /// When `tick` has to be called next.
    fn deadline_ms(&self) -> Option<u64> {
        let deadlines =
            [self.alarm.deadline_ms(self.shard.deadline_ms()), self.liveness.deadline_ms()];
        deadlines.into_iter().flatten().min()
    }

    /// Lets a connection go to another core, behind all letters so far and before all others: its
    /// number may be given to the next one at once, which may have something to say in this very
    /// turn.
    fn depart(&mut self, hand_over: HandOver, socket: Socket, now: Now) {
        let Self { shard, post, letters, .. } = self;
        let to = hand_over.to();
        let passenger = Box::new(shard.detach(hand_over, now));
        shard.take_messages(letters);
        letters.drain(..).for_each(|(to, letter)| post.send(to, Mail::Message(letter)));
        post.send(to, Mail::Connection(passenger, socket));
    }

    /// Hands over what the shard has for other threads, at the end of a turn.
    fn send(&mut self) {
        let Self { shard, post, commits, letters, .. } = self;
        if let Some(commits) = commits {
            commits.send(shard);
        }
        shard.take_messages(letters);
        letters.drain(..).for_each(|(to, letter)| post.send(to, Mail::Message(letter)));
        post.flush();
        shard.set_congested(CoreSet::from_bits(post.congested()));
        post.publish(load(shard, post));
    }

    /// Whether the driver may wait in the kernel: no other thread has left anything meanwhile.
    fn may_sleep(&mut self) -> bool {
        let Self { shard, post, commits, .. } = self;
        let has_outcomes = || commits.as_mut().is_some_and(Commits::has_outcomes);
        !shard.has_resumed() && post.prepare_to_sleep(has_outcomes)
    }

    /// Looks for something to do without waiting, for as long as that is wanted; `true` once there
    /// is. `look` is for what the driver waits for, beside what other threads leave.
    fn busy_poll(&mut self, mut look: impl FnMut() -> bool) -> bool {
        if self.shard.has_resumed() || self.busy_poll.is_zero() {
            return self.shard.has_resumed();
        }
        let end = self.clock.elapsed() + self.busy_poll;
        loop {
            let commits = self.commits.as_mut();
            if look() || self.post.is_wanted() || commits.is_some_and(Commits::has_outcomes) {
                return true;
            }
            if self.clock.elapsed() >= end {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    fn is_over(&mut self, now: Now) -> bool {
        let Self { lifecycle, shard, post, drain, .. } = self;
        if lifecycle.drains() {
            shard.drain(now);
            drain.join();
            let own = load(shard, post);
            drain.tell(own, post, now.mono_ms);
            if drain.is_done(own, post) {
                if post.core() == 0 {
                    let kept = own.kept + post.elsewhere().kept;
                    info!(left_to_the_next_server = kept, "no job is left");
                }
                lifecycle.stop(now);
            }
        }
        lifecycle.is_over(shard, now)
    }
}

/// What a core has in use.
fn load(shard: &Shard, post: &Post<Mail>) -> Load {
    Load {
        bytes: shard.load_bytes(),
        connections: shard.connections(),
        jobs: shard.unfinished() + post.waiting(),
        running: shard.engine().running(),
        kept: shard.engine().kept(),
        largest_unread_bytes: shard.largest_unread_bytes(),
    }
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
    let rings: uring::Rings = (0..count).map(|_| OnceLock::new()).collect();
    let numbers = Numbers::new(count);
    let (mut writer, mut commits) = (None, Vec::new());
    if let Some(mut store) = store {
        recover(store.as_mut(), &mut shards, &clock)?;
        let prefix: Box<[u8]> = handles.prefix().into();
        let (mark, needs_sequences) = reserve(store.as_mut(), &prefix, engine.first_sequence)?;
        shards.iter_mut().for_each(|shard| shard.allow_sequences(mark));
        let (outcomes, lines): (Vec<_>, Vec<_>) =
            posts.iter().map(|post| commits::line(post.doorbell())).unzip();
        let report = move |core: Core, outcome| outcomes[core].send(outcome);
        let (cores, timeout) = (count, store_timeout);
        let settings = writer::Settings { cores, timeout, prefix, mark, needs_sequences };
        let started = Writer::start(store, settings, report)?;
        let lines = lines.into_iter().enumerate();
        commits.extend(lines.map(|(core, line)| Commits::new(core, line, &started, mark)));
        writer = Some(started);
    }
    let looks = event_loop.rings.iter().all(uring::Ring::lends_descriptors);
    listeners.find_lost_hosts(host_timeout, looks)?;
    let host_timeout = if looks { host_timeout } else { Duration::ZERO };
    listeners.listen()?;
    listeners.announce();
    ready()?;
    let stoppers: Vec<Stopper> = signals.iter().map(Signals::stopper).collect();
    let sockets = listeners.into_sockets();
    let mut commits = commits.into_iter();
    let mut reopen_log = Some(reopen_log);
    let parts = shards.into_iter().zip(sockets).zip(signals).zip(posts).zip(Drain::of(count)).map(
        |((((shard, listeners), signals), post), drain)| Parts {
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
            ring_entries: event_loop.ring_entries,
            connections_max,
            memory: MemoryElsewhere::default(),
            meter: (count > 1 && settings.move_after > 0 && busy_poll.is_zero())
                .then(Meter::default),
            alarm: Alarm::default(),
            liveness: Liveness::new(host_timeout),
        },
    );
    let ended = run_cores(parts.collect(), event_loop, &stoppers);
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
    parts: Vec<Parts>,
    event_loop: EventLoop,
    stoppers: &[Stopper],
) -> Result<(), IoError> {
    let EventLoop { driver, rings, .. } = event_loop;
    debug_assert!(rings.is_empty() || rings.len() == parts.len(), "a ring for each core");
    let run = |parts: Parts, ring: Option<uring::Ring>| {
        let ended = match ring {
            Some(ring) => uring::run(parts, ring),
            None if driver == Driver::Glommio => glommio::run(parts),
            None => epoll::run(parts),
        };
        if ended.is_err() {
            stoppers.iter().for_each(Stopper::stop);
        }
        ended
    };
    let processors = machine::processors();
    let count = parts.len();
    // One core goes wherever the kernel likes; several have a place each, if there are enough.
    let place = |core: Core| {
        let places = 2..=processors.len();
        processors.get(core).copied().filter(|_| places.contains(&count))
    };
    let run = |core: Core, (parts, ring): (Parts, Option<uring::Ring>)| {
        if let Some(processor) = place(core) {
            machine::stay_on(processor);
        }
        run(parts, ring)
    };
    let rings = rings.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    thread::scope(|scope| {
        let mut cores = parts.into_iter().zip(rings).enumerate();
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
                    stoppers.iter().for_each(Stopper::stop);
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

/// An event loop for each core that can run here, with what was made to find that out.
pub struct EventLoop {
    driver: Driver,
    /// With io_uring one for each core; none otherwise.
    rings: Vec<uring::Ring>,
    /// Submissions that a ring has room for.
    ring_entries: u32,
}

impl EventLoop {
    /// Which it is; never `Auto`.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.driver
    }
}

/// Finds out whether so many cores can run on a driver here; `Auto` becomes the best that can. Says
/// in the log what and why. Each ring has room for `ring_entries` submissions, by which it takes
/// locked memory.
///
/// # Errors
/// `IoError::Uring` or `IoError::Glommio` if that is asked for and can't be had.
pub fn choose(driver: Driver, cores: usize, ring_entries: u32) -> Result<EventLoop, IoError> {
    let event_loop = |driver, rings| Ok(EventLoop { driver, rings, ring_entries });
    match driver {
        Driver::Epoll => {
            info!(driver = "epoll", "event loop as asked for");
            event_loop(driver, Vec::new())
        }
        Driver::Uring => {
            let rings = uring::rings(cores, ring_entries)?;
            info!(driver = "uring", "event loop as asked for");
            event_loop(driver, rings)
        }
        Driver::Glommio => {
            glommio::probe(cores, ring_entries)?;
            info!(driver = "glommio", "event loop as asked for");
            event_loop(driver, Vec::new())
        }
        Driver::Auto => match uring::rings(cores, ring_entries) {
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

/// How many connections a driver can have, so many descriptors being allowed. With io_uring they
/// are the ring's, not the process's, and each ring may have as many.
#[must_use]
pub fn room(driver: Driver, descriptors: u64, cores: usize) -> Room {
    let less = |descriptors: u64| descriptors.saturating_sub(DESCRIPTORS_RESERVED);
    match driver {
        Driver::Uring | Driver::Auto => {
            let of_core = less(descriptors.min(uring::FILES_MAX.into()));
            Room { of_core, in_all: of_core.saturating_mul(cores as u64) }
        }
        Driver::Epoll | Driver::Glommio => {
            Room { of_core: less(descriptors), in_all: less(descriptors) }
        }
    }
}

/// Whether a connection broke because the kernel gave its peer's host up.
fn is_silence(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), HostUnreachable | NetworkUnreachable | TimedOut)
}

/// Milliseconds until the earlier of two deadlines; `None` = no deadline, 0 = it has passed.
fn wait_ms(now: Now, deadlines: [Option<u64>; 3]) -> Option<u64> {
    let deadline = deadlines.into_iter().flatten().min()?;
    Some(deadline.saturating_sub(now.mono_ms))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::shard::Origin;
    use crate::wire::{Command, Magic, encode};

    fn parts(shard: Shard, post: Post<Mail>) -> Parts {
        Parts {
            shard,
            listeners: Vec::new(),
            lifecycle: Lifecycle::new(Signals::install(1).unwrap().remove(0), None),
            drain: Drain::of(1).remove(0),
            clock: Clock::start(),
            post,
            commits: None,
            letters: Vec::new(),
            arrivals: Vec::new(),
            rings: Arc::new([]),
            ring_entries: 64,
            numbers: Numbers::new(1),
            busy_poll: Duration::ZERO,
            connections_max: 100,
            memory: MemoryElsewhere::default(),
            meter: None,
            alarm: Alarm::default(),
            liveness: Liveness::new(Duration::ZERO),
        }
    }

    /// A request that waited for another core's answer to a grab is handled when the driver asks
    /// for the next connection to flush: what it had for other cores came there after its reply had
    /// left, and after the replies of all connections behind it.
    #[test]
    fn what_a_request_that_waited_has_for_another_core_is_on_its_way_before_replies_are() {
        let now = Now { mono_ms: 5000, unix_ms: 1_700_000_000_000 };
        let cores = Cores { own: 0, count: 2 };
        let functions = || (0..).map(|n| format!("f{n}"));
        let theirs = functions().find(|name| cores.owner_of(name.as_bytes()) == 1).unwrap();
        let mut posts = mesh::mesh(2, Mail::bytes).unwrap();
        let mut other = posts.pop().unwrap();
        let shard = Shard::new(Settings { cores, ..Settings::default() }, now);
        let mut parts = parts(shard, posts.remove(0));
        let origin = Origin { fd: 9, peer: (Ipv4Addr::LOCALHOST, 4001).into() };
        let conn = parts.shard.connect(origin, now).unwrap();
        let mut requests = Vec::new();
        let mut say = |command, arguments: &[&[u8]]| {
            encode(&mut requests, Magic::Request, command, arguments, b"");
        };
        say(Command::CanDo, &[theirs.as_bytes()]);
        say(Command::GrabJob, &[]);
        say(Command::SubmitJobBg, &[theirs.as_bytes(), b""]);
        parts.shard.received(conn, &requests, now);
        while parts.next_dirty(now).is_some() {}
        let mut letters = Vec::new();
        other.receive(9, |_, mail| letters.push(mail));
        let Some(Mail::Message(Message::Grab { key, .. })) = letters.pop() else {
            panic!("{letters:?}");
        };
        parts.shard.receive_message(1, Message::Empty { key, ready: 0 }, now);
        while parts.next_dirty(now).is_some() && letters.len() < 2 {
            other.receive(9, |_, mail| letters.push(mail));
        }
        let submitted =
            |mail: &Mail| matches!(mail, Mail::Message(Message::Request { slot: Some(_), .. }));
        assert!(letters.iter().any(submitted), "{letters:?}");
    }

    #[test]
    fn each_ring_has_room_of_its_own_and_no_more_than_the_kernel_allows() {
        let of = |driver, descriptors| {
            let Room { of_core, in_all } = room(driver, descriptors, 3);
            (of_core, in_all)
        };
        assert_eq!(of(Driver::Uring, 20_000), (19_936, 59_808));
        assert_eq!(of(Driver::Epoll, 20_000), (19_936, 19_936));
        assert_eq!(of(Driver::Glommio, 20_000), (19_936, 19_936));
        // Containers are often allowed a billion.
        assert_eq!(of(Driver::Uring, 1 << 30), ((1 << 20) - 64, 3 * ((1 << 20) - 64)));
        assert_eq!(of(Driver::Uring, 30), (0, 0));
    }
}
