//! Numbers about each worker: instances count, `http` reads.
//!
//! Everything runs on one thread, so these are plain cells. Reloads keep a worker's counters.
//!
//! Invariant: totals never fall.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`name` says it")]
pub enum Outcome {
    Complete,
    /// The command said that it failed, or exited with a code that says so.
    Fail,
    Exception,
    /// Death by a signal that the manager didn't send.
    Signal,
    Timeout,
    Memory,
    /// The result was larger than `result-max`.
    ResultTooLarge,
    /// Anything but the lines of mode `lines`, or none.
    Protocol,
    /// The program couldn't be started.
    NotStarted,
    /// A client or an operator cancelled it.
    Cancelled,
    /// The manager ended, or its command was replaced, before it did within `stop-wait`.
    Stopped,
}

impl Outcome {
    /// All, in the order of metrics.
    pub const ALL: [Self; 11] = [
        Self::Complete,
        Self::Fail,
        Self::Exception,
        Self::Signal,
        Self::Timeout,
        Self::Memory,
        Self::ResultTooLarge,
        Self::Protocol,
        Self::NotStarted,
        Self::Cancelled,
        Self::Stopped,
    ];

    /// Its name in metrics and the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Fail => "fail",
            Self::Exception => "exception",
            Self::Signal => "signal",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::ResultTooLarge => "result-too-large",
            Self::Protocol => "protocol",
            Self::NotStarted => "not-started",
            Self::Cancelled => "cancelled",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a long-lived process ended, or was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`name` says it")]
pub enum Ended {
    /// By itself.
    Exit,
    /// By a signal that the manager didn't send.
    Signal,
    NotStarted,
    MaxJobs,
    MaxAge,
    Memory,
    Timeout,
    Protocol,
    ResultTooLarge,
    Cancelled,
    /// SIGHUP with other settings, SIGUSR1, or a watched file.
    Restart,
    /// The manager ends.
    Stop,
}

impl Ended {
    /// All, in the order of metrics.
    pub const ALL: [Self; 12] = [
        Self::Exit,
        Self::Signal,
        Self::NotStarted,
        Self::MaxJobs,
        Self::MaxAge,
        Self::Memory,
        Self::Timeout,
        Self::Protocol,
        Self::ResultTooLarge,
        Self::Cancelled,
        Self::Restart,
        Self::Stop,
    ];

    /// Its name in metrics and the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::NotStarted => "not-started",
            Self::MaxJobs => "max-jobs",
            Self::MaxAge => "max-age",
            Self::Memory => "memory",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::ResultTooLarge => "result-too-large",
            Self::Cancelled => "cancelled",
            Self::Restart => "restart",
            Self::Stop => "stop",
        }
    }
}

/// Seconds of the buckets of `job_run_seconds`, but for the last, which has no limit.
pub const RUN_SECONDS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 3600.0];

/// Numbers of one worker.
#[derive(Debug, Default)]
pub struct Worker {
    /// Instances that are to be there.
    pub instances: Cell<usize>,
    /// Processes that run.
    pub processes: Cell<usize>,
    /// Jobs that run (not in mode `gearman`).
    pub running: Cell<usize>,
    /// Instances that wait before they start a process again.
    pub backing_off: Cell<usize>,
    /// Resident memory of all its process groups at the last look, in bytes.
    pub memory_bytes: Cell<u64>,
    /// Jobs by outcome.
    pub jobs: RefCell<BTreeMap<Outcome, u64>>,
    /// Ends of long-lived processes by reason.
    pub ends: RefCell<BTreeMap<Ended, u64>>,
    /// Jobs whose result no server took: the connection broke meanwhile.
    pub results_lost: Cell<u64>,
    /// Runs by bucket of `RUN_SECONDS`, the last without limit.
    pub run_buckets: RefCell<[u64; RUN_SECONDS.len() + 1]>,
    /// Sum of all runs in seconds.
    pub run_seconds: Cell<f64>,
}

impl Worker {
    /// Counts a job that ended after so many seconds.
    pub fn job(&self, outcome: Outcome, seconds: f64) {
        *self.jobs.borrow_mut().entry(outcome).or_default() += 1;
        let bucket = RUN_SECONDS.iter().position(|&limit| seconds <= limit);
        if let Some(runs) =
            self.run_buckets.borrow_mut().get_mut(bucket.unwrap_or(RUN_SECONDS.len()))
        {
            *runs += 1;
        }
        self.run_seconds.set(self.run_seconds.get() + seconds);
    }

    /// Counts the end of a long-lived process.
    pub fn end(&self, reason: Ended) {
        *self.ends.borrow_mut().entry(reason).or_default() += 1;
    }
}

/// Numbers of all workers, by name, and of the servers.
#[derive(Debug, Default)]
pub struct Counters {
    /// Workers by name.
    pub workers: RefCell<BTreeMap<String, Rc<Worker>>>,
    /// Connections that are up, by the server as the file writes it.
    pub connections: RefCell<BTreeMap<String, usize>>,
    /// Servers that a warning called unreachable, and that haven't answered since.
    pub unreachable: RefCell<BTreeSet<String>>,
    /// Reloads that were taken and refused.
    pub reloads: Cell<(u64, u64)>,
}

impl Counters {
    /// The numbers of a worker; new ones if it has none yet.
    #[must_use]
    pub fn worker(&self, name: &str) -> Rc<Worker> {
        Rc::clone(self.workers.borrow_mut().entry(name.to_owned()).or_default())
    }
}
