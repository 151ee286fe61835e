//! What one thread counted; summed up at the end.

use hdrhistogram::Histogram;

use crate::checker::Faults;
use crate::report::Handshakes;

/// Longest latency that is told apart from longer ones.
const LATENCY_NS_MAX: u64 = 4 * 3600 * 1_000_000_000;

/// A thread's counts.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Latencies of the jobs that were due in the measured window, in ns.
    pub(crate) latency_ns: Histogram<u64>,
    /// Jobs answered within the window, and the bytes of their payloads and results.
    pub(crate) window_jobs: u64,
    pub(crate) window_bytes: u64,
    /// Jobs answered in the whole run.
    pub(crate) answered: u64,
    pub(crate) faults: Faults,
    /// With `--tls`.
    pub(crate) handshakes: Handshakes,
    /// Jobs that a worker got after another one had given them up or failed them.
    pub(crate) reruns: u64,
    pub(crate) crashes: u64,
    pub(crate) replaced: u64,
    /// Connections that the server closed.
    pub(crate) closed: u64,
    /// The first thing that went wrong, for people.
    pub(crate) first_error: Option<String>,
}

impl Counts {
    pub(crate) fn new() -> Self {
        Self {
            latency_ns: histogram(),
            window_jobs: 0,
            window_bytes: 0,
            answered: 0,
            faults: Faults::default(),
            handshakes: Handshakes::default(),
            reruns: 0,
            crashes: 0,
            replaced: 0,
            closed: 0,
            first_error: None,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.latency_ns += &other.latency_ns;
        self.window_jobs += other.window_jobs;
        self.window_bytes += other.window_bytes;
        self.answered += other.answered;
        self.faults += other.faults;
        self.handshakes += other.handshakes;
        self.reruns += other.reruns;
        self.crashes += other.crashes;
        self.replaced += other.replaced;
        self.closed += other.closed;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// A worker got a job whose payload is not what a client of this run wrote.
    pub(crate) fn foreign_job(&mut self) {
        self.faults.foreign += 1;
        self.first_error.get_or_insert_with(|| {
            "a worker got a job that was changed on the way, or that another run left behind"
                .to_owned()
        });
    }

    /// An ERROR packet arrived, whatever it answers.
    pub(crate) fn error(&mut self, code: &[u8], text: &[u8]) {
        self.faults.failed += 1;
        self.first_error.get_or_insert_with(|| {
            format!("{}: {}", String::from_utf8_lossy(code), String::from_utf8_lossy(text))
        });
    }
}

/// An empty histogram of latencies.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("1 ns to hours at 3 digits is valid")
}
