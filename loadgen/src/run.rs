//! One run from its options to its report: set up, warm up, measure, drain, sum up.
//!
//! The one place that moves the phase. Threads do the work; this waits, reads clocks and CPU
//! counters at both ends of the measured window, and counts as lost what is missing at the end.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Poll, Waker};

use crate::client::Client;
use crate::clock::nanos;
use crate::counts::Counts;
use crate::error::Error;
use crate::limits;
use crate::options::{Mode, Options};
use crate::progress::{self, Progress};
use crate::recorder::Recorder;
use crate::report::{Kernel, Latency, Loadgen, Report, Server};
use crate::server_stats::{self, Cpu};
use crate::shared::{LiveCounts, Phase, Shared};
use crate::spawn;
use crate::thread::{Role, Target, Thread, WAKER};
use crate::tls::Tls;
use crate::worker::Worker;

/// Connections in set-up at a time, all threads together: below the backlog of any job server
/// that has one worth the name, and enough to keep it busy.
const OPENING_MAX: usize = 32;

/// Port of an address that names none.
const DEFAULT_PORT: u16 = 4730;

/// How long the set-up may stand still.
const SET_UP_TIMEOUT_NS: u64 = 30_000_000_000;

const TICK: Duration = Duration::from_millis(5);
const TICK_MEASURED: Duration = Duration::from_millis(50);

/// CPU share from which a thread counts as busy.
const BUSY: f64 = 0.9;

/// CPU counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at_ns: u64,
    server: Option<Cpu>,
    /// CPU time of the threads.
    own: Duration,
}

/// Memory at one moment: the server's, and what this host's kernel keeps.
#[derive(Clone, Copy, Debug)]
struct Memory {
    resident_bytes: Option<u64>,
    kernel_bytes: Option<u64>,
}

impl Memory {
    fn of(pid: Option<u32>) -> Self {
        let resident = pid.and_then(server_stats::resident_bytes);
        Self {
            resident_bytes: resident.map(|(_, now)| now),
            kernel_bytes: server_stats::kernel_bytes(),
        }
    }
}

/// Runs a load; `--live` writes the counts so far.
///
/// # Errors
/// `Error` if the load could not take place; what goes wrong under load is in the report.
pub fn run(options: &Options) -> Result<Report, Error> {
    let mut live = progress::Live::new(options.live);
    run_observed(options, &mut |counts, is_end| live.tell(counts, is_end))
}

/// Runs a load and hands the counts so far to `observe` many times a second, and once, with `true`,
/// at the end. An error of `observe` ends the run.
///
/// # Errors
/// As `run`, and what `observe` returns.
pub fn run_observed(
    options: &Options,
    observe: &mut dyn FnMut(&LiveCounts, bool) -> Result<(), Error>,
) -> Result<Report, Error> {
    options.check()?;
    let tls = Tls::new(options)?;
    let spread = limits::make_room(options.connections(), options.thread_count())?;
    let server = match &options.spawn {
        Some(path) => Some(spawn::Server::start(path, &options.spawn_arg)?),
        None => None,
    };
    let addr = match &server {
        Some(server) => server.addr,
        None => resolve(&options.addr)?,
    };
    check_sources(&options.source, addr)?;
    if let Some(pid) = options.server_pid.filter(|&pid| server_stats::cpu(pid).is_none()) {
        let problem = "names no process of this host: name the server's, or drop it";
        return Err(Error::Usage(format!("--server-pid {pid} {problem}")));
    }
    let pid = match &server {
        Some(server) => Some(server.pid()),
        None => options.server_pid.or_else(|| server_stats::listener(addr)),
    };
    let watched = !options.quiet && progress::has_reader();
    let shared = Arc::new(Shared::new(options.clone(), tls, spread.threads, watched));
    let mut conductor = Conductor::start(shared, addr, pid, spread.own_tables, observe)?;
    let outcome = conductor.conduct();
    conductor.enter(Phase::Done);
    conductor.progress.clear();
    let counts = conductor.join();
    let live = conductor.shared.live_counts();
    (conductor.observe)(&live, true)?;
    let window = outcome?;
    Ok(conductor.report(counts, &window))
}

/// The measured window.
#[derive(Debug)]
struct Window {
    seconds: f64,
    from: Reading,
    to: Reading,
    resident_bytes: Option<(u64, u64)>,
    /// With all connections, before the first job.
    idle: Memory,
}

struct Conductor<'a> {
    shared: Arc<Shared>,
    observe: &'a mut dyn FnMut(&LiveCounts, bool) -> Result<(), Error>,
    addr: SocketAddr,
    pid: Option<u32>,
    wakers: Vec<Waker>,
    threads: Vec<JoinHandle<Counts>>,
    progress: Progress,
    phase: Phase,
    /// Before the first connection.
    empty: Memory,
}

impl<'a> Conductor<'a> {
    fn start(
        shared: Arc<Shared>,
        addr: SocketAddr,
        pid: Option<u32>,
        own_tables: bool,
        observe: &'a mut dyn FnMut(&LiveCounts, bool) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let count = shared.live.len();
        let target = Target {
            addr,
            opening_max: (OPENING_MAX / count).max(1),
            total: shared.options.connections(),
        };
        let mut this = Self {
            shared: Arc::clone(&shared),
            observe,
            addr,
            pid,
            wakers: Vec::new(),
            threads: Vec::new(),
            progress: Progress::default(),
            empty: Memory::of(pid),
            phase: Phase::SetUp,
        };
        for index in 0..count {
            let poll = Poll::new().map_err(Error::kernel("cannot make a poll"))?;
            let waker = Waker::new(poll.registry(), WAKER);
            this.wakers.push(waker.map_err(Error::kernel("cannot make a waker"))?);
            let quota = shared.options.jobs.map(|jobs| part(jobs, index, count));
            let recorder = Recorder::new(Arc::clone(&shared), index, quota);
            if let (Some(live), Some(quota)) = (shared.live.get(index), quota) {
                live.quota_left.store(quota, Ordering::Relaxed);
            }
            let roles = roles(&shared.options, addr, index, count);
            let thread = Thread::new(poll, target, recorder, index, roles, own_tables)?;
            let handle = std::thread::Builder::new()
                .name(format!("loadgen-{index}"))
                .spawn(move || thread.run())
                .map_err(Error::kernel("cannot start a thread"))?;
            this.threads.push(handle);
        }
        Ok(this)
    }

    /// Takes the run through its phases up to the end of the drain.
    fn conduct(&mut self) -> Result<Window, Error> {
        self.wait_ready()?;
        let idle = Memory::of(self.pid);
        let options = self.shared.options.clone();
        if !options.warm_up.0.is_zero() {
            self.enter(Phase::WarmUp);
            self.wait_for(nanos(options.warm_up.0))?;
        }
        let from = self.reading();
        self.enter(Phase::Measured);
        let began_ns = self.shared.clock.now_ns();
        let mut to = from;
        let ended_ns = if options.jobs.is_some() {
            self.wait_for_jobs()?;
            to = self.reading();
            self.shared.max(|live| &live.last_answer_ns).max(began_ns + 1)
        } else {
            self.wait_for(nanos(options.duration.0))?;
            self.shared.clock.now_ns()
        };
        self.enter(Phase::Drain);
        if options.jobs.is_none() {
            to = self.reading();
        }
        self.wait_drained()?;
        Ok(Window {
            seconds: (ended_ns - began_ns) as f64 / 1e9,
            from,
            to,
            resident_bytes: self.pid.and_then(server_stats::resident_bytes),
            idle,
        })
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.shared.enter(phase);
        for waker in &self.wakers {
            // A thread that cannot be woken has ended, and has said why.
            let _ = waker.wake();
        }
    }

    /// Waits until a thread has something to tell or the time is over, shows the progress, and
    /// passes on what a thread failed with.
    fn tick(&mut self, time: Duration) -> Result<(), Error> {
        std::thread::park_timeout(time);
        self.progress.show(&self.shared, self.phase);
        (self.observe)(&self.shared.live_counts(), false)?;
        self.shared.failure().map_or(Ok(()), Err)
    }

    fn wait_ready(&mut self) -> Result<(), Error> {
        let total = self.shared.options.connections();
        let mut seen = 0;
        let mut seen_ns = self.shared.clock.now_ns();
        loop {
            let ready = self.shared.sum(|live| &live.ready);
            let now_ns = self.shared.clock.now_ns();
            if ready >= total as u64 {
                return Ok(());
            }
            if ready != seen {
                (seen, seen_ns) = (ready, now_ns);
            } else if now_ns > seen_ns + SET_UP_TIMEOUT_NS {
                return Err(Error::SetUpStalled {
                    addr: self.addr,
                    missing: total - usize::try_from(ready).unwrap_or_default(),
                    total,
                    seconds: SET_UP_TIMEOUT_NS / 1_000_000_000,
                    tls: self.shared.tls.is_some(),
                });
            }
            self.tick(TICK)?;
        }
    }

    fn wait_for(&mut self, time_ns: u64) -> Result<(), Error> {
        let end_ns = self.shared.clock.now_ns() + time_ns;
        loop {
            let left = Duration::from_nanos(end_ns.saturating_sub(self.shared.clock.now_ns()));
            if left.is_zero() || is_alone(&self.shared) {
                return Ok(());
            }
            self.tick(left.min(TICK_MEASURED))?;
        }
    }

    /// Until all jobs of `--jobs` are answered, or nothing is answered any more.
    fn wait_for_jobs(&mut self) -> Result<(), Error> {
        let is_over = |shared: &Shared| {
            shared.live.iter().all(|live| {
                live.in_flight.load(Ordering::Acquire) == 0
                    && live.quota_left.load(Ordering::Relaxed) == 0
            }) || is_alone(shared)
        };
        self.wait_while_it_moves(is_over, Duration::ZERO)
    }

    /// Until nothing is missing any more, or nothing more comes.
    fn wait_drained(&mut self) -> Result<(), Error> {
        let is_over = |shared: &Shared| {
            // A thread that has not noticed the drain may still submit.
            let in_flight = shared.live.iter().any(|live| {
                live.phase.load(Ordering::Acquire) < Phase::Drain as u8
                    || live.in_flight.load(Ordering::Acquire) > 0
            });
            let has_run = shared.options.workers == 0
                || shared.sum(|live| &live.accepted) <= shared.sum(|live| &live.ran);
            !in_flight && has_run
        };
        let options = &self.shared.options;
        // Some servers wake no worker when a delayed job is due: it grabs the job unasked.
        let grace = match options.mode {
            Mode::Delayed => options.delay.0 + options.sleep_max.0 * 2,
            Mode::Foreground | Mode::Background | Mode::Connect => Duration::ZERO,
        };
        self.wait_while_it_moves(is_over, grace)
    }

    fn wait_while_it_moves(
        &mut self,
        is_over: impl Fn(&Shared) -> bool,
        grace: Duration,
    ) -> Result<(), Error> {
        let timeout_ns = nanos(self.shared.options.drain_timeout.0 + grace);
        let mut seen = 0;
        let mut seen_ns = self.shared.clock.now_ns();
        while !is_over(&self.shared) {
            let moved = self.shared.sum(|live| &live.answered) + self.shared.sum(|live| &live.ran);
            let now_ns = self.shared.clock.now_ns();
            if moved != seen {
                (seen, seen_ns) = (moved, now_ns);
            } else if now_ns > seen_ns + timeout_ns {
                break;
            }
            self.tick(TICK)?;
        }
        Ok(())
    }

    fn reading(&self) -> Reading {
        Reading {
            at_ns: self.shared.clock.now_ns(),
            server: self.pid.and_then(server_stats::cpu),
            own: server_stats::threads_cpu(&self.shared.live_threads()),
        }
    }

    fn join(&mut self) -> Counts {
        let mut sum = Counts::new();
        for thread in self.threads.drain(..) {
            if let Ok(counts) = thread.join() {
                sum.add(counts);
            }
        }
        sum
    }

    fn report(&self, mut counts: Counts, window: &Window) -> Report {
        let shared = &self.shared;
        // The threads have ended: what is in flight now stays unanswered.
        counts.faults.lost += shared.sum(|live| &live.in_flight);
        if shared.options.is_background() && shared.options.workers > 0 {
            counts.faults.lost += shared.ledger.accepted_not_run();
        }
        let seconds = window.seconds;
        let cpu_seconds = (window.to.at_ns - window.from.at_ns) as f64 / 1e9;
        let server_cpu = match (&window.from.server, &window.to.server) {
            (Some(from), Some(to)) => Some(to.since(from)),
            _ => None,
        };
        let jobs = counts.window_jobs;
        let per_job = |time: Duration| (jobs > 0).then(|| time.as_secs_f64() * 1e6 / jobs as f64);
        let server_share = server_cpu.map(|cpu| cpu.total().as_secs_f64() / cpu_seconds);
        let threads = shared.live.len();
        let cores = std::thread::available_parallelism().map_or(threads, usize::from);
        let own = window.to.own.saturating_sub(window.from.own).as_secs_f64();
        let cpu_share = own / (cpu_seconds * threads.min(cores) as f64);
        Report {
            jobs,
            seconds,
            jobs_per_second: jobs as f64 / seconds,
            bytes_per_second: counts.window_bytes as f64 / seconds,
            latency_us: Latency::of(&counts.latency_ns),
            faults: counts.faults,
            tls: shared.tls.is_some().then_some(counts.handshakes),
            reruns: counts.reruns,
            replaced: counts.replaced,
            closed: counts.closed,
            first_error: counts.first_error,
            server: Server {
                pid: self.pid,
                cpu_user_us_per_job: server_cpu.and_then(|cpu| per_job(cpu.user)),
                cpu_system_us_per_job: server_cpu.and_then(|cpu| per_job(cpu.system)),
                cpu_share: server_share,
                rss_start_bytes: self.empty.resident_bytes,
                rss_idle_bytes: window.idle.resident_bytes,
                rss_peak_bytes: window.resident_bytes.map(|(peak, _)| peak),
                rss_end_bytes: window.resident_bytes.map(|(_, end)| end),
            },
            kernel: Kernel {
                start_bytes: self.empty.kernel_bytes,
                idle_bytes: window.idle.kernel_bytes,
            },
            loadgen: Loadgen {
                cpu_share,
                was_limit: cpu_share >= BUSY && server_share.is_none_or(|share| share < BUSY),
                threads,
            },
            config: shared.options.clone(),
            version: env!("CARGO_PKG_VERSION"),
            latency_ns: counts.latency_ns,
        }
    }
}

/// Whether there is no connection any more. Those of `--mode connect` that are being opened count.
fn is_alone(shared: &Shared) -> bool {
    shared.live.iter().all(|live| {
        live.ready.load(Ordering::Acquire) == 0 && live.in_flight.load(Ordering::Acquire) == 0
    })
}

/// What of `whole` falls to part `index` of `count`.
fn part(whole: u64, index: usize, count: usize) -> u64 {
    let (index, count) = (index as u64, count as u64);
    whole / count + u64::from(index < whole % count)
}

/// The connections of one thread: clients first.
fn roles(
    options: &Options,
    addr: SocketAddr,
    thread: usize,
    threads: usize,
) -> Vec<(Role, Option<IpAddr>)> {
    let total = options.connections();
    let own = |count: usize| (thread..count).step_by(threads);
    let source = |index: usize| limits::source(addr, index, total, &options.source);
    let client = |index: usize| {
        let client = Client::new(u32::try_from(index).unwrap_or(u32::MAX));
        (Role::Client(client), source(index))
    };
    let workers_at = options.clients;
    let idle_at = workers_at + options.workers;
    let worker = |index| (Role::Worker(Worker::new(index, false)), source(workers_at + index));
    let idle = |index| (Role::Worker(Worker::new(index, true)), source(idle_at + index));
    own(options.clients)
        .map(client)
        .chain(own(options.workers).map(worker))
        .chain(own(options.idle_workers).map(idle))
        .collect()
}

fn resolve(addr: &str) -> Result<SocketAddr, Error> {
    let problem = |cause: &str| Error::Resolve { addr: addr.to_owned(), cause: cause.to_owned() };
    if let Ok(host) = addr.parse::<IpAddr>() {
        return Ok(SocketAddr::new(host, DEFAULT_PORT));
    }
    let with_port = match addr.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok_and(|port| port > 0) => addr.to_owned(),
        Some(_) => return Err(problem("a port is a number from 1 to 65535")),
        None => format!("{addr}:{DEFAULT_PORT}"),
    };
    let mut found = with_port.to_socket_addrs().map_err(|cause| problem(&cause.to_string()))?;
    found.next().ok_or_else(|| problem("no such host"))
}

/// Checks that connections to `addr` can come from each of the addresses.
fn check_sources(sources: &[IpAddr], addr: SocketAddr) -> Result<(), Error> {
    for &from in sources {
        let problem = |cause: String| Error::Source { from, addr, cause };
        if from.is_ipv4() != addr.is_ipv4() {
            return Err(problem("one is IPv4, the other IPv6".to_owned()));
        }
        UdpSocket::bind((from, 0)).map_err(|cause| problem(cause.to_string()))?;
    }
    Ok(())
}
