//! What is counted of each function since the start: jobs by how they came and ended, and how long
//! they waited and ran.
//!
//! The engine counts, metrics and `stats` read. Knows no names and no text.
//!
//! Invariant: no number goes down. Of a function, `submitted + recovered` is the number of jobs
//! that there are, but for those that wait for the store for the first time, and of those that
//! ended, each of which counts as completed or by one `Failure`.

use std::ops::AddAssign;

use super::SubmitError;
use super::event::Loss;
use super::reason::Reason;

/// Upper ends of the first buckets of `Durations`, in milliseconds; the last bucket has none.
pub const BOUNDS_MS: [u32; 10] = [1, 5, 25, 100, 500, 2500, 10_000, 60_000, 300_000, 3_600_000];

/// Number of buckets of `Durations`.
pub const BUCKETS: usize = BOUNDS_MS.len() + 1;

/// How long something took, as a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// By bucket, not summed up: those above the bound before and not above the bucket's.
    pub buckets: [u64; BUCKETS],
    /// All together, in milliseconds.
    pub sum_ms: u64,
}

impl Durations {
    /// Adds a duration.
    #[inline]
    pub fn add(&mut self, ms: u64) {
        self.sum_ms += ms;
        // Most jobs of a busy function wait and run less.
        let bucket = if ms <= u64::from(BOUNDS_MS[0]) { 0 } else { Self::bucket(ms) };
        self.buckets[bucket] += 1;
    }

    #[inline(never)]
    fn bucket(ms: u64) -> usize {
        BOUNDS_MS.iter().position(|&bound| ms <= u64::from(bound)).unwrap_or(BOUNDS_MS.len())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl AddAssign<&Self> for Durations {
    fn add_assign(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
        self.sum_ms += other.sum_ms;
    }
}

/// How a job ended that wasn't completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// WORK_FAIL.
    Fail,
    /// WORK_EXCEPTION.
    Exception,
    /// It lost the worker of its last attempt.
    Lost,
    /// Its last attempt exceeded the worker's timeout.
    TimedOut,
    /// An operator cancelled it.
    Cancelled,
    /// No client waited for it any more.
    Abandoned,
    /// An operator dropped its function, or purged its queue.
    Dropped,
    /// It wasn't started in time.
    Expired,
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Lost => Self::Lost,
            Reason::TimedOut => Self::TimedOut,
            Reason::Fail => Self::Fail,
            Reason::Exception => Self::Exception,
            Reason::Expired => Self::Expired,
        }
    }
}

/// Each `Failure`, and its name in metrics.
pub const FAILURES: [(Failure, &str); 8] = [
    (Failure::Fail, "fail"),
    (Failure::Exception, "exception"),
    (Failure::Lost, "lost"),
    (Failure::TimedOut, "timeout"),
    (Failure::Cancelled, "cancelled"),
    (Failure::Abandoned, "abandoned"),
    (Failure::Dropped, "dropped"),
    (Failure::Expired, "expired"),
];

/// How a job left the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// WORK_COMPLETE.
    Completed,
    /// Otherwise.
    Failed(Failure),
    /// The store didn't take it: it was never accepted, its submission counts as refused.
    NotStored,
    /// Another server has the partition that it belongs to.
    HandedOver,
}

/// Why a job returned to its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rerun {
    /// Its worker's connection ended.
    Lost,
    /// It exceeded the worker's timeout.
    TimedOut,
    /// Its worker withdrew the function.
    Withdrawn,
    /// WORK_FAIL.
    Fail,
    /// WORK_EXCEPTION.
    Exception,
}

impl From<Loss> for Rerun {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Disconnected => Self::Lost,
            Loss::TimedOut => Self::TimedOut,
            Loss::Withdrawn => Self::Withdrawn,
        }
    }
}

/// Each `Rerun`, and its name in metrics.
pub const RERUNS: [(Rerun, &str); 5] = [
    (Rerun::Lost, "lost"),
    (Rerun::TimedOut, "timeout"),
    (Rerun::Withdrawn, "withdrawn"),
    (Rerun::Fail, "fail"),
    (Rerun::Exception, "exception"),
];

/// Why a submission was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The function has as many jobs as it may.
    QueueFull,
    /// Memory is short.
    Memory,
    /// The store doesn't keep it, or there are no numbers for jobs.
    Store,
    /// It is larger than a job may be.
    Size,
    /// The access list doesn't allow it.
    Access,
}

impl From<SubmitError> for Refused {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull => Self::QueueFull,
            SubmitError::OutOfMemory => Self::Memory,
            SubmitError::OutOfNumbers => Self::Store,
        }
    }
}

/// Each `Refused`, and its name in metrics.
pub const REFUSALS: [(Refused, &str); 5] = [
    (Refused::QueueFull, "queue_full"),
    (Refused::Memory, "memory"),
    (Refused::Store, "store"),
    (Refused::Size, "size"),
    (Refused::Access, "access"),
];

/// What is counted of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Jobs that submissions created for clients that wait, and in the background.
    pub submitted: [u64; 2],
    /// Submissions that joined an existing job.
    pub joined: u64,
    /// Jobs that a store had when the server started or adopted their partition, and dead letters
    /// that were requeued.
    pub recovered: u64,
    /// Jobs that ended with WORK_COMPLETE.
    pub completed: u64,
    /// Other jobs that ended, by `Failure`.
    pub failed: [u64; FAILURES.len()],
    /// Jobs of a partition that another server has by now.
    pub handed_over: u64,
    /// Failed jobs that became dead letters, by `Reason`.
    pub dead: [u64; Reason::ALL.len()],
    /// For how long it was paused, in milliseconds, but for the current pause.
    pub paused_ms: u64,
    /// Jobs that returned to their queue or wait for their next run, by `Rerun`.
    pub rerun: [u64; RERUNS.len()],
    /// Submissions that were refused, by `Refused`.
    pub refused: [u64; REFUSALS.len()],
    /// From when a job could be started to its first assignment.
    pub wait: Durations,
    /// From each assignment to its end.
    pub run: Durations,
}

impl Numbers {
    /// Counts the end of a job.
    #[inline]
    pub(super) fn end(&mut self, ending: Ending) {
        if ending == Ending::Completed {
            self.completed += 1;
        } else {
            self.end_otherwise(ending);
        }
    }

    #[inline(never)]
    fn end_otherwise(&mut self, ending: Ending) {
        match ending {
            Ending::Completed => {}
            Ending::Failed(failure) => self.failed[failure as usize] += 1,
            Ending::HandedOver => self.handed_over += 1,
            Ending::NotStored => self.refused[Refused::Store as usize] += 1,
        }
    }

    /// All jobs so far.
    #[must_use]
    pub fn jobs(&self) -> u64 {
        self.submitted.iter().sum::<u64>() + self.recovered
    }

    /// Those of them that ended, here or elsewhere.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.completed + self.failed.iter().sum::<u64>() + self.handed_over
    }
}

impl AddAssign<&Self> for Numbers {
    fn add_assign(&mut self, other: &Self) {
        fn add<const N: usize>(sums: &mut [u64; N], more: &[u64; N]) {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        add(&mut self.submitted, &other.submitted);
        add(&mut self.failed, &other.failed);
        add(&mut self.dead, &other.dead);
        add(&mut self.rerun, &other.rerun);
        add(&mut self.refused, &other.refused);
        self.joined += other.joined;
        self.recovered += other.recovered;
        self.completed += other.completed;
        self.handed_over += other.handed_over;
        self.paused_ms += other.paused_ms;
        self.wait += &other.wait;
        self.run += &other.run;
    }
}

/// What there is of a function now. Jobs that wait for the store for the first time aren't in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Jobs that wait for a worker or for the next server, by priority.
    pub queued: [u32; 3],
    /// Jobs whose start time is in the future.
    pub delayed: u32,
    /// Those of them that have been run and are to be run again.
    pub retrying: u32,
    /// Dead letters.
    pub dead: u32,
    /// Jobs assigned to workers.
    pub running: u32,
    /// Connections that can run it.
    pub workers: u32,
    /// Those of them that run a job of it.
    pub workers_busy: u32,
    /// Since when its oldest job has waited, in milliseconds since 1970.
    pub oldest_ms: Option<u64>,
    /// Since when it is paused, in milliseconds since 1970.
    pub paused_since_ms: Option<u64>,
}

impl Gauges {
    /// All jobs that there are.
    #[must_use]
    pub fn jobs(&self) -> u64 {
        let counts = self.queued.iter().chain([&self.delayed, &self.running]);
        counts.copied().map(u64::from).sum()
    }
}

impl AddAssign<&Self> for Gauges {
    fn add_assign(&mut self, other: &Self) {
        self.queued.iter_mut().zip(other.queued).for_each(|(sum, more)| *sum += more);
        self.delayed += other.delayed;
        self.retrying += other.retrying;
        self.dead += other.dead;
        self.running += other.running;
        self.workers += other.workers;
        self.workers_busy += other.workers_busy;
        let earliest = |both: [Option<u64>; 2]| both.into_iter().flatten().min();
        self.oldest_ms = earliest([self.oldest_ms, other.oldest_ms]);
        self.paused_since_ms = earliest([self.paused_since_ms, other.paused_since_ms]);
    }
}
