//! All that the threads of a run share: the options, the books, the phase and the live counts.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::thread::Thread;

use crossbeam_utils::CachePadded;
use serde::Serialize;

use crate::checker::Ledger;
use crate::clock::Clock;
use crate::error::Error;
use crate::options::Options;
use crate::payload::Pool;
use crate::plan;
use crate::tls::Tls;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Connecting and registering.
    SetUp,
    /// Under load, not measured.
    WarmUp,
    /// Under load, measured.
    Measured,
    /// Nothing new is submitted; answers are awaited.
    Drain,
    /// Threads end.
    Done,
}

const PHASES: [Phase; 5] =
    [Phase::SetUp, Phase::WarmUp, Phase::Measured, Phase::Drain, Phase::Done];

/// What one thread lets the others see; each is written by its thread alone.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// The kernel's number of the thread, once it runs.
    pub(crate) thread: AtomicI32,
    /// Connections that are set up.
    pub(crate) ready: AtomicU64,
    /// Jobs answered so far.
    pub(crate) answered: AtomicU64,
    /// The phase that the thread has taken note of.
    pub(crate) phase: AtomicU8,
    /// Jobs submitted and not answered.
    pub(crate) in_flight: AtomicU64,
    /// Jobs of `--jobs` that this thread has still to submit.
    pub(crate) quota_left: AtomicU64,
    /// Background jobs accepted and followed.
    pub(crate) accepted: AtomicU64,
    /// Jobs that this thread's workers answered for the first time.
    pub(crate) ran: AtomicU64,
    pub(crate) faults: AtomicU64,
    /// The 99th percentile of the last moments.
    pub(crate) p99_ns: AtomicU64,
    /// When the last answer came.
    pub(crate) last_answer_ns: AtomicU64,
}

/// The counts so far, all since the start: a line of `--live`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LiveCounts {
    /// Since the run began.
    pub seconds: f64,
    /// Connections that are set up.
    pub connections: u64,
    /// Jobs answered: foreground ones by their result, the others by their handle.
    pub answered: u64,
    /// Jobs that the workers have run, each counted once.
    pub ran: u64,
    /// Jobs without an answer.
    pub in_flight: u64,
    /// Everything that went wrong.
    pub faults: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    /// With `--tls`.
    pub(crate) tls: Option<Tls>,
    pub(crate) clock: Clock,
    pub(crate) pool: Pool,
    pub(crate) ledger: Ledger,
    /// One for each thread, which writes to it every turn: apart, so that none has others wait.
    pub(crate) live: Vec<CachePadded<Live>>,
    /// What a worker sends once it is connected, up to the first grab; with `--dedicated` one for
    /// each function.
    pub(crate) registrations: Vec<Vec<u8>>,
    /// The same for workers that sleep.
    pub(crate) idle_registration: Vec<u8>,
    pub(crate) functions: Vec<Vec<u8>>,
    /// Whether the progress is shown.
    pub(crate) watched: bool,
    phase: AtomicU8,
    /// The thread that moves the phase: woken by what it may be waiting for.
    conductor: Thread,
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Shared {
    /// To be called by the thread that moves the phase.
    pub(crate) fn new(options: Options, tls: Option<Tls>, threads: usize, watched: bool) -> Self {
        let functions = plan::functions(&options);
        let clock = Clock::start();
        Self {
            pool: Pool::new(options.seed ^ clock.run_number()),
            clock,
            ledger: Ledger::new(threads),
            live: (0..threads).map(|_| CachePadded::default()).collect(),
            registrations: plan::registrations(&options, &functions),
            idle_registration: plan::idle_registration(&options, &functions),
            functions,
            options,
            tls,
            watched,
            phase: AtomicU8::new(Phase::SetUp as u8),
            conductor: std::thread::current(),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        let index = usize::from(self.phase.load(Ordering::Acquire));
        PHASES.get(index).copied().unwrap_or(Phase::Done)
    }

    /// Moves on; the threads are to be woken afterwards.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The sum of one live count over all threads.
    pub(crate) fn sum(&self, count: impl Fn(&Live) -> &AtomicU64) -> u64 {
        self.live.iter().map(|live| count(live).load(Ordering::Relaxed)).sum()
    }

    /// The counts so far, over all threads.
    pub(crate) fn live_counts(&self) -> LiveCounts {
        LiveCounts {
            seconds: self.clock.now_ns() as f64 / 1e9,
            connections: self.sum(|live| &live.ready),
            answered: self.sum(|live| &live.answered),
            ran: self.sum(|live| &live.ran),
            in_flight: self.sum(|live| &live.in_flight),
            faults: self.sum(|live| &live.faults),
        }
    }

    /// The kernel's numbers of all threads.
    pub(crate) fn live_threads(&self) -> Vec<i32> {
        self.live.iter().map(|live| live.thread.load(Ordering::Relaxed)).collect()
    }

    /// The largest of one live count over all threads.
    pub(crate) fn max(&self, count: impl Fn(&Live) -> &AtomicU64) -> u64 {
        self.live.iter().map(|live| count(live).load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    /// Ends the run; the first failure is the one that is told.
    pub(crate) fn fail(&self, error: Error) {
        if let Ok(mut failure) = self.failure.lock() {
            failure.get_or_insert(error);
        }
        self.failed.store(true, Ordering::Release);
        self.conductor.unpark();
    }

    /// A thread is set up or has no job left: the phase may be over.
    pub(crate) fn tell_conductor(&self) {
        self.conductor.unpark();
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        if !self.failed.load(Ordering::Acquire) {
            return None;
        }
        self.failure.lock().ok().and_then(|mut failure| failure.take())
    }
}
