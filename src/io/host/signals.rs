//! Signals in, "go on", "drain" or "stop" out.
//!
//! SIGTERM and SIGINT stop the server: it reads nothing more, and sends what it can for half a
//! second. SIGUSR1 drains it: it accepts no new jobs, and ends when none is left. SIGHUP reopens
//! the log and has files read anew, SIGUSR2 raises the log's level.
//!
//! Invariant: a handler only sets a flag and writes a byte to a pipe, whose other end the driver
//! polls.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use tracing::info;

use crate::engine::Now;
use crate::shard::Service;

/// How long replies are sent after the signal to stop.
const FLUSH_MS: u64 = 500;

/// Time between two looks of a draining core at whether the others are done.
const DRAIN_POLL_MS: u64 = 50;

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
    stop: Arc<AtomicBool>,
    drain: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
    raise_level: Arc<AtomicBool>,
    /// Set by SIGTERM, SIGINT and SIGUSR1, and never taken back.
    is_leaving: Arc<AtomicBool>,
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
            stop: Arc::default(),
            drain: Arc::default(),
            reopen: Arc::default(),
            raise_level: Arc::default(),
            is_leaving: Arc::default(),
        };
        for signal in [SIGTERM, SIGINT, SIGUSR1] {
            signal_hook::flag::register(signal, Arc::clone(&signals.is_leaving))?;
        }
        for (signal, flag) in [
            (SIGTERM, &signals.stop),
            (SIGINT, &signals.stop),
            (SIGUSR1, &signals.drain),
            (SIGHUP, &signals.reopen),
            (SIGUSR2, &signals.raise_level),
        ] {
            // Handlers run in this order: the flag is set before the pipe wakes the core.
            signal_hook::flag::register(signal, Arc::clone(flag))?;
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(signals)
    }
}

impl Signals {
    /// Whether a signal to stop or drain came before the cores run.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.drain.load(Ordering::Relaxed)
    }

    /// What is set once a signal to stop or drain has come.
    #[must_use]
    pub fn leaving(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_leaving)
    }

    /// A handle that stops this core as the signal would.
    pub(crate) fn stopper(&self) -> Stopper {
        Stopper { stop: Arc::clone(&self.stop), writer: Arc::clone(&self.writer) }
    }
}

/// Stops one core from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Stopper {
    stop: Arc<AtomicBool>,
    writer: Arc<UnixStream>,
}

impl Stopper {
    /// Stops the core.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
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
    draining: bool,
    stops_at_ms: Option<u64>,
}

impl Lifecycle {
    pub(crate) fn new(signals: Signals, log_control: Option<Box<dyn LogControl>>) -> Self {
        Self { signals, log_control, hung_up: false, draining: false, stops_at_ms: None }
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
        if self.signals.drain.swap(false, Ordering::Relaxed) && !self.draining {
            if is_first {
                info!("SIGUSR1, draining: submissions are refused; stopping when no job is left");
            }
            self.draining = true;
        }
        if self.signals.stop.swap(false, Ordering::Relaxed) && self.stops_at_ms.is_none() {
            if is_first {
                info!("stopping");
            }
            self.stops_at_ms = Some(now.mono_ms + FLUSH_MS);
        }
    }

    /// Whether connections are accepted.
    pub(crate) fn accepts(&self) -> bool {
        self.stops_at_ms.is_none()
    }

    /// Whether the server refuses jobs and ends when none is left.
    pub(crate) fn drains(&self) -> bool {
        self.draining && self.stops_at_ms.is_none()
    }

    /// No job is left: the run ends when all replies were sent.
    pub(crate) fn stop(&mut self, now: Now) {
        self.stops_at_ms = Some(now.mono_ms + FLUSH_MS);
    }

    /// Whether connections are read from.
    pub(crate) fn reads(&self) -> bool {
        self.stops_at_ms.is_none()
    }

    /// When `is_over` is to be called at the latest.
    pub(crate) fn deadline_ms(&self, now: Now) -> Option<u64> {
        // Other cores finish their last jobs without waking this one.
        let poll_ms = now.mono_ms + DRAIN_POLL_MS;
        self.stops_at_ms.or(if self.draining { Some(poll_ms) } else { None })
    }

    /// Whether the run has ended.
    pub(crate) fn is_over(&self, service: &impl Service, now: Now) -> bool {
        self.stops_at_ms.is_some_and(|at_ms| service.is_flushed() || now.mono_ms >= at_ms)
    }
}
