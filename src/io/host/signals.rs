//! Signals in, "go on", "drain" or "stop" out.
//!
//! SIGTERM and SIGINT stop the server: it reads nothing more, and sends what it can for half a
//! second. With a time for draining it waits until no job runs before. SIGUSR1 drains it, too: it
//! accepts no new jobs, and ends when none is left. A signal to stop ends either drain. SIGHUP
//! reopens the log and has files read anew, SIGUSR2 raises the log's level.
//!
//! Invariant: a handler only sets a flag and writes a byte to a pipe, whose other end the driver
//! polls.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use tracing::info;

use crate::engine::{DrainGoal, Now};

/// How long replies are sent after the signal to stop.
const FLUSH_MS: u64 = 500;

/// Time between two looks of a draining core at whether the others are done.
const DRAIN_POLL_MS: u64 = 50;

/// The same once they only answer what they have read.
const FLUSH_POLL_MS: u64 = 5;

/// Signals to stop that end a drain.
const STOPS_AT_ONCE: usize = 2;

/// How long peers that were accepted may take to send what they have connected for. A connection
/// that is closed with bytes which weren't read is reset.
const SETTLE_MS: u64 = 250;

/// What signals do to the log.
pub trait LogControl: Send {
    /// Opens the log file anew.
    fn reopen(&self);

    /// Logs one level more; after the last level, as much as at the start.
    fn raise_level(&self);
}

/// The signals that the server handles, for one core.
#[derive(Debug)]
pub struct Signals {
    pipe: UnixStream,
    writer: Arc<UnixStream>,
    /// How often SIGTERM and SIGINT came.
    stops: Arc<AtomicUsize>,
    drain: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
    raise_level: Arc<AtomicBool>,
    leaving: Arc<Leaving>,
}

/// Which signals to end have come, for other threads; never taken back.
#[derive(Debug, Default)]
pub struct Leaving {
    stops: AtomicBool,
    drains: AtomicBool,
}

impl Leaving {
    /// Whether SIGTERM or SIGINT has come.
    #[must_use]
    pub fn stops(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
    }

    /// Whether one of them or SIGUSR1 has come.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.stops() || self.drains.load(Ordering::Relaxed)
    }
}

impl Signals {
    /// Installs the handlers, for each of `cores` cores.
    ///
    /// # Errors
    /// If the kernel has no descriptors left for the pipes.
    pub fn install(cores: usize) -> std::io::Result<Vec<Self>> {
        (0..cores).map(|_| Self::install_one()).collect()
    }

    fn install_one() -> std::io::Result<Self> {
        let (pipe, writer) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let writer = Arc::new(writer);
        let signals = Self {
            pipe,
            writer: Arc::clone(&writer),
            stops: Arc::default(),
            drain: Arc::default(),
            reopen: Arc::default(),
            raise_level: Arc::default(),
            leaving: Arc::default(),
        };
        // Handlers run in this order: flags are set before the pipe wakes the core.
        for signal in [SIGTERM, SIGINT] {
            let (stops, leaving) = (Arc::clone(&signals.stops), Arc::clone(&signals.leaving));
            let note = move || {
                leaving.stops.store(true, Ordering::Relaxed);
                stops.fetch_add(1, Ordering::Relaxed);
            };
            // SAFETY: a handler may do what it does here: it only writes to atomics.
            #[allow(unsafe_code)]
            unsafe {
                signal_hook::low_level::register(signal, note)?;
            }
        }
        let (drain, leaving) = (Arc::clone(&signals.drain), Arc::clone(&signals.leaving));
        let note = move || {
            leaving.drains.store(true, Ordering::Relaxed);
            // All cores are to see the same order of these signals.
            drain.fetch_or(!leaving.stops(), Ordering::Relaxed);
        };
        // SAFETY: as above.
        #[allow(unsafe_code)]
        unsafe {
            signal_hook::low_level::register(SIGUSR1, note)?;
        }
        for (signal, flag) in [(SIGHUP, &signals.reopen), (SIGUSR2, &signals.raise_level)] {
            signal_hook::flag::register(signal, Arc::clone(flag))?;
        }
        for signal in [SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGUSR2] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(signals)
    }
}

impl Signals {
    /// Whether a signal to stop or drain came before the cores run.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.leaving.is_any()
    }

    /// Which signals to end have come.
    #[must_use]
    pub fn leaving(&self) -> Arc<Leaving> {
        Arc::clone(&self.leaving)
    }

    /// A handle that stops this core at once, as two signals would.
    pub(crate) fn stopper(&self) -> Stopper {
        Stopper { stops: Arc::clone(&self.stops), writer: Arc::clone(&self.writer) }
    }
}

/// Stops one core from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Stopper {
    stops: Arc<AtomicUsize>,
    writer: Arc<UnixStream>,
}

impl Stopper {
    /// Stops the core.
    pub(crate) fn stop(&self) {
        self.stops.fetch_add(STOPS_AT_ONCE, Ordering::Relaxed);
        // The write fails if the pipe is full, and then the core wakes anyway.
        let _ = (&*self.writer).write(b"!");
    }
}

/// How far a core's run is between start and end.
pub(crate) struct Lifecycle {
    signals: Signals,
    /// The first core's only.
    log_control: Option<Box<dyn LogControl>>,
    /// SIGHUP came, and `take_hangup` hasn't told of it.
    hung_up: bool,
    /// How long jobs may run after the signal to stop.
    drain: Duration,
    /// Whether other servers go on with stored jobs.
    has_other_servers: bool,
    draining: Option<Draining>,
    stops_at_ms: Option<u64>,
    /// Cores end together.
    is_joint_end: bool,
}

/// A drain. Times are in milliseconds of `Now::mono_ms`.
#[derive(Clone, Copy, Debug)]
struct Draining {
    goal: DrainGoal,
    began_ms: u64,
    /// When the run ends whatever is left.
    ends_ms: Option<u64>,
}

impl Lifecycle {
    /// `drain`: how long jobs may run after the signal to stop; zero: they aren't waited for.
    /// `has_other_servers`: these go on with stored jobs.
    pub(crate) fn new(
        signals: Signals,
        log_control: Option<Box<dyn LogControl>>,
        drain: Duration,
        has_other_servers: bool,
    ) -> Self {
        Self {
            signals,
            log_control,
            hung_up: false,
            drain,
            has_other_servers,
            draining: None,
            stops_at_ms: None,
            is_joint_end: false,
        }
    }

    /// Whether SIGHUP came since the last call.
    pub(crate) fn take_hangup(&mut self) -> bool {
        std::mem::take(&mut self.hung_up)
    }

    /// The pipe to poll for reading.
    pub(crate) fn pipe(&self) -> &UnixStream {
        &self.signals.pipe
    }

    /// Handles the signals that came; the pipe was readable.
    pub(crate) fn handle_signals(&mut self, now: Now) {
        let mut bytes = [0; 64];
        while matches!((&self.signals.pipe).read(&mut bytes), Ok(1..)) {}
        if self.signals.reopen.swap(false, Ordering::Relaxed) {
            self.hung_up = true;
            if let Some(log_control) = &self.log_control {
                log_control.reopen();
                info!("SIGHUP, log reopened");
            }
        }
        if self.signals.raise_level.swap(false, Ordering::Relaxed)
            && let Some(log_control) = &self.log_control
        {
            log_control.raise_level();
        }
        // Every core gets the signal; the first one logs it.
        let is_first = self.log_control.is_some();
        if self.signals.drain.swap(false, Ordering::Relaxed) && self.draining.is_none() {
            if is_first && self.has_other_servers {
                info!(
                    "SIGUSR1, draining: stored jobs are left to other servers; stopping when no \
                     other job is left"
                );
            } else if is_first {
                info!("SIGUSR1, draining: submissions are refused; stopping when no job is left");
            }
            let (goal, began_ms) = (DrainGoal::JobsDone, now.mono_ms);
            self.draining = Some(Draining { goal, began_ms, ends_ms: None });
        }
        let stops = self.signals.stops.swap(0, Ordering::Relaxed);
        if stops > 0 {
            self.handle_stops(stops, is_first, now);
        }
    }

    /// So many signals to stop came.
    fn handle_stops(&mut self, stops: usize, is_first: bool, now: Now) {
        let may_drain = self.draining.is_none() && !self.drain.is_zero() && stops < STOPS_AT_ONCE;
        if self.stops_at_ms.is_some() {
            // A drain's last replies are being sent.
            self.is_joint_end = false;
        } else if may_drain {
            if is_first {
                let seconds = self.drain.as_secs();
                info!(seconds, "draining: stopping when no job runs, at the latest after --drain");
            }
            let drain_ms = u64::try_from(self.drain.as_millis()).unwrap_or(u64::MAX);
            self.draining = Some(Draining {
                goal: DrainGoal::RunsDone,
                began_ms: now.mono_ms,
                ends_ms: Some(now.mono_ms.saturating_add(drain_ms)),
            });
        } else {
            if is_first {
                info!("stopping");
            }
            self.stops_at_ms = Some(now.mono_ms + FLUSH_MS);
        }
    }

    /// Whether connections are accepted.
    pub(crate) fn accepts(&self) -> bool {
        let waits_for_runs = |draining: &Draining| draining.goal == DrainGoal::RunsDone;
        self.stops_at_ms.is_none() && !self.draining.as_ref().is_some_and(waits_for_runs)
    }

    /// What the server waits for before it ends, while it does.
    pub(crate) fn goal(&self) -> Option<DrainGoal> {
        self.draining.filter(|_| self.stops_at_ms.is_none()).map(|draining| draining.goal)
    }

    /// Whether this core, with so many connections, has read what its peers had connected for.
    pub(crate) fn is_settled(&self, connections: usize, now: Now) -> bool {
        self.draining.is_none_or(|Draining { goal, began_ms, .. }| {
            goal == DrainGoal::JobsDone || connections == 0 || now.mono_ms >= began_ms + SETTLE_MS
        })
    }

    /// Whether stored jobs that still run are left to other servers: these run them again.
    pub(crate) fn leaves_stored_runs(&self, now: Now) -> bool {
        let drain_ms = u64::try_from(self.drain.as_millis()).unwrap_or(u64::MAX);
        let is_over =
            |draining: Draining| now.mono_ms >= draining.began_ms.saturating_add(drain_ms);
        self.has_other_servers && self.draining.is_some_and(is_over)
    }

    /// Whether a drain has taken as long as it may.
    pub(crate) fn is_out_of_time(&self, now: Now) -> bool {
        let ends_ms = self.draining.and_then(|draining| draining.ends_ms);
        ends_ms.is_some_and(|ends_ms| now.mono_ms >= ends_ms)
    }

    /// The drain is over: the run ends when all replies were sent.
    pub(crate) fn stop(&mut self, now: Now) {
        self.is_joint_end = self.goal() == Some(DrainGoal::RunsDone);
        self.stops_at_ms = Some(now.mono_ms + FLUSH_MS);
    }

    /// Whether connections are read from.
    pub(crate) fn reads(&self) -> bool {
        self.stops_at_ms.is_none()
    }

    /// When `is_over` is to be called at the latest.
    pub(crate) fn deadline_ms(&self, now: Now) -> Option<u64> {
        // Other cores finish their last jobs and replies without waking this one.
        let after = |ms| Some(now.mono_ms + ms);
        match self.stops_at_ms {
            Some(_) if self.is_joint_end => after(FLUSH_POLL_MS),
            Some(at_ms) => Some(at_ms),
            None if self.draining.is_some() => after(DRAIN_POLL_MS),
            None => None,
        }
    }

    /// Whether the run has ended. `is_flushed` tells whether all replies have left, with `true` on
    /// all cores.
    pub(crate) fn is_over(&self, now: Now, is_flushed: impl FnOnce(bool) -> bool) -> bool {
        self.stops_at_ms.is_some_and(|at_ms| is_flushed(self.is_joint_end) || now.mono_ms >= at_ms)
    }
}
