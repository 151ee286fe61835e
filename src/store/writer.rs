//! The thread that drives the store: operations of all cores in, outcomes of their commits out.
//!
//! A commit covers all operations that arrived while the commit before it was being written. While
//! the store is down, Inserts that clients wait for fail after a timeout; all other operations stay
//! in memory and are written first when the store is back. Knows no database (`Store`), no queues.
//!
//! Invariant: operations reach the store in the order in which they were sent, each at least once,
//! but for an Insert reported as Failed, whose number is removed instead. An Insert that a client
//! waits for gets one outcome, unless the writer ends (`Lost`, `stop`).

mod outage;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::{HashSet, HashSetExt};
use tracing::{error, warn};

use self::outage::Outage;
pub use super::health::Counters;
use super::health::StoreHealth;
use super::{ROW_BYTES_MAX, Store, StoreError};
use crate::cluster::partition::PartitionId;
use crate::engine::record::{DeadRow, Operation, Pause, Row};

/// Largest number of operations in a commit.
pub const COMMIT_OPERATIONS_MAX: usize = 4096;
/// Size of a commit's rows from which no further operation is added.
pub const COMMIT_BYTES_MAX: usize = 8 << 20;
/// Pause after a failed commit; doubled with each further failure.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two attempts. It ends early if an Insert's timeout expires.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long after a failure the store counts as one that can't be written to, unless a commit has
/// written something since.
const UNSURE: Duration = Duration::from_secs(10);
/// How much longer than its limit `stop` waits for a commit in progress.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Operations of a core, in order.
#[derive(Debug)]
pub struct Batch {
    /// The core that gets the outcomes.
    pub core: usize,
    /// The operations.
    pub operations: Vec<Operation>,
}

/// A report to a core. Numbers are those of Inserts that were not answered yet, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The jobs are on disk.
    Stored {
        /// The jobs.
        numbers: Vec<u64>,
    },
    /// The jobs are refused: they are not stored, or removed before a later start can load them.
    Failed {
        /// The jobs.
        numbers: Vec<u64>,
        /// One sentence.
        reason: Arc<str>,
    },
    /// More sequence numbers are reserved; reported to every core.
    Reserved {
        /// The numbers.
        sequences: Range<u64>,
    },
    /// The store has lost these committed jobs and dead letters; reported to every core, and each
    /// core sends those that it has again.
    Missing {
        /// Their numbers.
        numbers: Arc<[u64]>,
    },
    /// Another server owns a partition: its jobs and dead letters leave memory; reported to every
    /// core.
    Dropped {
        /// The partition.
        partition: PartitionId,
    },
    /// The server has another home, as the earlier one is lost; reported to every core. Jobs that
    /// wait for the store are numbered anew.
    Home {
        /// Sequence numbers that are reserved in it.
        sequences: Range<u64>,
    },
    /// Jobs and dead letters of an adopted partition that belong to this core, the largest number
    /// first over all reports for the partition.
    Adopted {
        /// Jobs.
        jobs: Vec<Row>,
        /// Dead letters.
        dead: Vec<DeadRow>,
    },
    /// Other servers have paused or resumed functions; reported to every core.
    Pauses {
        /// The functions, and until when they are paused; `None` = not any more.
        changes: Arc<[(Bytes, Option<Pause>)]>,
    },
    /// Answers to lookups of this core: the numbers, and whether the store has the jobs.
    Found {
        /// Each number once.
        numbers: Vec<(u64, bool)>,
    },
    /// Another server owns the store; reported once to every core, and nothing after it. Inserts
    /// without an outcome may have been stored or not.
    Lost(Arc<str>),
}

/// Settings of a writer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of cores, for reports to all of them.
    pub cores: usize,
    /// How long an Insert that a client waits for is retried while the store is unavailable. With
    /// zero it fails with its commit, and immediately while the store is down.
    pub timeout: Duration,
    /// Prefix of handles, for the store's record.
    pub prefix: Box<[u8]>,
    /// The first sequence number that isn't reserved.
    pub mark: u64,
    /// Whether to reserve more sequence numbers with the next commit.
    pub needs_sequences: bool,
    /// What the thread tells of the store.
    pub health: Arc<StoreHealth>,
}

enum Message {
    Batch(Batch),
    /// Reserve sequence numbers beyond this mark.
    Reserve(u64),
    /// Do what was sent before, until this time at most.
    Stop(Instant),
}

/// Sends operations to the thread. Cheap to clone, one for each core.
#[derive(Clone, Debug)]
pub struct Sender {
    messages: mpsc::Sender<Message>,
    counters: Arc<Counters>,
}

impl Sender {
    /// Sends a batch. It is dropped once the store is lost or the writer has stopped.
    pub fn send(&self, batch: Batch) {
        let count = batch.operations.len() as u64;
        self.counters.waiting.fetch_add(count, Ordering::Relaxed);
        if self.messages.send(Message::Batch(batch)).is_err() {
            self.counters.waiting.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

impl Sender {
    /// Requests sequence numbers beyond `mark`.
    pub fn reserve(&self, mark: u64) {
        // Fails if the thread has ended.
        let _ = self.messages.send(Message::Reserve(mark));
    }
}

/// The thread that drives a store.
#[derive(Debug)]
pub struct Writer {
    sender: Sender,
    thread: JoinHandle<()>,
    ended: Receiver<()>,
}

impl Writer {
    /// Starts the thread. `report` is called on it with a core and an outcome for it.
    ///
    /// # Errors
    /// The kernel's, if it can't create a thread.
    pub fn start(
        store: Box<dyn Store>,
        settings: Settings,
        report: impl Fn(usize, Outcome) + Send + 'static,
    ) -> io::Result<Self> {
        let counters = Arc::clone(settings.health.counters());
        let (messages, receiver) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let writer = WriterThread {
            store,
            settings,
            report,
            receiver,
            counters: counters.clone(),
            queue: VecDeque::new(),
            examined: 0,
            attempt: Attempt::default(),
            down: None,
            outage: None,
            failed_at: None,
            is_unreachable: false,
            checked: Instant::now(),
            stop: None,
        };
        let run = move || {
            writer.run();
            // Fails if the writer was dropped.
            let _ = end.send(());
        };
        let thread = thread::Builder::new().name("store".into()).spawn(run)?;
        Ok(Self { sender: Sender { messages, counters }, thread, ended })
    }

    /// A sender of operations.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.sender.counters.clone()
    }

    /// Does what was sent before this call and ends the thread. Returns the number of operations
    /// that are not done because the store was unavailable for `within`, or is lost; their Inserts
    /// get no outcome.
    pub fn stop(self, within: Duration) -> u64 {
        // Fails if the thread has ended.
        let _ = self.sender.messages.send(Message::Stop(Instant::now() + within));
        match self.ended.recv_timeout(within + STOP_GRACE) {
            Err(RecvTimeoutError::Timeout) => error!(
                "the store hasn't answered a commit in time, which is given up: look after its \
                 disk or the network"
            ),
            _ if self.thread.join().is_err() => error!(
                "the store's thread has panicked, which is an error in ringgeard: report it with \
                 the message on standard error"
            ),
            _ => {}
        }
        let left = self.sender.counters.waiting.load(Ordering::Relaxed);
        if left > 0 {
            error!(
                left,
                "stopped with changes that are not in the store: jobs that were done since may run \
                 again; end an outage of the store before a stop"
            );
        }
        left
    }
}

/// An operation that is in no commit yet.
struct Entry {
    core: usize,
    operation: Operation,
    arrived: Instant,
}

/// A commit that is attempted until it succeeds.
#[derive(Default)]
struct Attempt {
    operations: Vec<Operation>,
    /// Core and number of the Inserts that clients wait for.
    awaited: Vec<(usize, u64)>,
    /// Number of operations that the commit completes, including those that it needn't write.
    count: usize,
    /// When the first of them arrived.
    arrived: Option<Instant>,
}

/// State while the store fails.
struct Down {
    since: Instant,
    next_try: Instant,
    pause: Duration,
    /// How long Inserts are retried.
    timeout: Duration,
    reason: Arc<str>,
}

impl Down {
    /// When an Insert fails that arrived at `arrived`.
    fn expiry(&self, arrived: Instant) -> Instant {
        arrived.max(self.since) + self.timeout
    }
}

/// State of the thread.
struct WriterThread<R> {
    store: Box<dyn Store>,
    settings: Settings,
    report: R,
    receiver: Receiver<Message>,
    counters: Arc<Counters>,
    queue: VecDeque<Entry>,
    /// Number of entries at the head of the queue whose timeout has expired.
    examined: usize,
    attempt: Attempt,
    down: Option<Down>,
    /// Not ended by commits that write nothing, as `down` is.
    outage: Option<Outage>,
    /// When a commit failed last, unless one has written something since.
    failed_at: Option<Instant>,
    /// The last check failed.
    is_unreachable: bool,
    /// When the ownership of the store was last checked, by a commit or by `Store::check`.
    checked: Instant,
    /// When to stop even if operations are left; `None` before `Message::Stop`.
    stop: Option<Instant>,
}

impl<R: Fn(usize, Outcome)> WriterThread<R> {
    fn run(mut self) {
        loop {
            self.receive();
            self.expire();
            self.gather();
            self.publish();
            if !self.try_commit() {
                break;
            }
            self.publish();
            if let Some(deadline) = self.stop {
                let given_up = self.down.is_some() && deadline <= Instant::now();
                if given_up || self.is_idle() {
                    break;
                }
            }
        }
    }

    /// Tells others how the store is.
    fn publish(&self) {
        // While the store only fails now and then, the last word counts for some time: servers
        // that aren't ready get no jobs to try it with.
        let has_failed = self.failed_at.is_some_and(|at| at.elapsed() < UNSURE);
        let is_down = self.down.is_some() || self.is_unreachable || has_failed;
        let waiting = self.queue.front().map(|entry| entry.arrived);
        self.settings.health.note(is_down, self.attempt.arrived.or(waiting));
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.attempt.count == 0
    }

    /// Receives messages; waits for them if there is nothing else to do.
    fn receive(&mut self) {
        let now = Instant::now();
        let wake = match &self.down {
            Some(down) => {
                Some(self.next_expiry(down).map_or(down.next_try, |at| at.min(down.next_try)))
            }
            None if self.is_idle() => Some(self.checked + self.store.check_interval()),
            None => Some(now),
        };
        if let Some(deadline) = self.stop {
            // All messages before the stop have been received; those after it are not.
            if let Some(wake) = wake.filter(|_| !self.is_idle()) {
                thread::park_timeout(wake.min(deadline).saturating_duration_since(now));
            }
            return;
        }
        let wait = wake.map_or(Duration::ZERO, |wake| wake.saturating_duration_since(now));
        let mut message = self.receiver.recv_timeout(wait);
        for _ in 0..COMMIT_OPERATIONS_MAX {
            match message {
                Ok(Message::Batch(batch)) => self.take(batch),
                // Several cores may request the same block.
                Ok(Message::Reserve(mark)) => {
                    self.settings.needs_sequences |= mark == self.settings.mark;
                }
                Ok(Message::Stop(deadline)) => return self.stopping(deadline),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => return self.stopping(now),
            }
            // While the store is down, all messages are received, so that Inserts fail in time.
            if self.down.is_none() && self.queue.len() >= COMMIT_OPERATIONS_MAX {
                return;
            }
            message = self.receiver.recv_timeout(Duration::ZERO);
        }
    }

    fn stopping(&mut self, deadline: Instant) {
        self.stop = Some(deadline);
        if let Some(down) = &mut self.down {
            down.next_try = Instant::now();
        }
    }

    fn take(&mut self, batch: Batch) {
        let Batch { core, operations } = batch;
        let arrived = Instant::now();
        let mut refused = Vec::new();
        let down = self.down.as_ref().filter(|down| down.timeout.is_zero());
        for operation in operations {
            if let Operation::Insert { row, answered } = &operation {
                let large = row.bytes() > ROW_BYTES_MAX;
                if large {
                    // Its commit would fail for ever, and with it all later ones.
                    warn!(
                        number = row.number,
                        bytes = row.bytes(),
                        "job refused, as a store keeps {ROW_BYTES_MAX} bytes at most: lower \
                         --job-size-max, or leave its function out with --durability FUNCTION=none"
                    );
                }
                if large || (down.is_some() && !answered) {
                    self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
                    if !answered {
                        refused.push((core, row.number));
                    }
                    continue;
                }
            }
            self.queue.push_back(Entry { core, operation, arrived });
        }
        let reason = match down {
            Some(down) => {
                self.outage.iter_mut().for_each(|outage| outage.refuse(refused.len()));
                down.reason.clone()
            }
            None => "the job is too large to be kept".into(),
        };
        self.report_to_cores(&refused, |numbers| Outcome::Failed {
            numbers,
            reason: reason.clone(),
        });
    }

    /// When the next Insert that a client waits for fails.
    fn next_expiry(&self, down: &Down) -> Option<Instant> {
        if !self.attempt.awaited.is_empty() {
            return Some(down.expiry(down.since));
        }
        self.queue.get(self.examined).map(|entry| down.expiry(entry.arrived))
    }

    /// Fails Inserts whose timeout has expired.
    fn expire(&mut self) {
        let Some(down) = &self.down else { return };
        let now = Instant::now();
        let mut refused = Vec::new();
        if down.expiry(down.since) <= now {
            refused.append(&mut self.attempt.awaited);
            for operation in &mut self.attempt.operations {
                refuse(operation);
            }
        }
        while let Some(entry) = self.queue.get_mut(self.examined)
            && down.expiry(entry.arrived) <= now
        {
            if refuse(&mut entry.operation) {
                refused.extend(entry.operation.number().map(|number| (entry.core, number)));
            }
            self.examined += 1;
        }
        let reason = down.reason.clone();
        self.outage.iter_mut().for_each(|outage| outage.refuse(refused.len()));
        self.report_to_cores(&refused, |numbers| Outcome::Failed {
            numbers,
            reason: reason.clone(),
        });
    }

    /// Forms the next commit from the queue, unless a commit is to be retried.
    fn gather(&mut self) {
        if self.attempt.count > 0 {
            return;
        }
        let Attempt { operations, awaited, count, arrived } = &mut self.attempt;
        *arrived = self.queue.front().map(|entry| entry.arrived);
        let (mut bytes, mut inserted, mut gone) = (0, HashSet::new(), HashSet::new());
        let mut has_died = HashSet::new();
        while *count < COMMIT_OPERATIONS_MAX
            && bytes < COMMIT_BYTES_MAX
            && let Some(entry) = self.queue.pop_front()
        {
            match &entry.operation {
                Operation::Insert { row, answered } => {
                    bytes += row.bytes();
                    inserted.insert(row.number);
                    if !answered {
                        awaited.push((entry.core, row.number));
                    }
                }
                // Inserted by this very commit, which hasn't been attempted: neither is written.
                Operation::Remove { number } if inserted.contains(number) => {
                    gone.insert(*number);
                }
                Operation::Bury(dead) => {
                    bytes += dead.bytes();
                    has_died.insert(dead.row.number);
                }
                Operation::Unbury(row) => {
                    bytes += row.bytes();
                    has_died.insert(row.number);
                }
                Operation::RemoveDead { number } => {
                    has_died.insert(*number);
                }
                Operation::Remove { .. } | Operation::Retry { .. } | Operation::Pause { .. } => {}
            }
            operations.push(entry.operation);
            *count += 1;
        }
        // All is written of a job that has died: an earlier commit may have stored its letter.
        gone.retain(|number| !has_died.contains(number));
        if !gone.is_empty() {
            operations.retain(|operation| {
                !operation.number().is_some_and(|number| gone.contains(&number))
            });
        }
        self.examined = self.examined.saturating_sub(*count);
    }

    /// Attempts the commit if it is time; returns `false` if the store is lost.
    fn try_commit(&mut self) -> bool {
        let early = self.down.as_ref().is_some_and(|down| Instant::now() < down.next_try);
        if self.attempt.count == 0 && !self.settings.needs_sequences {
            return self.check();
        }
        if early {
            return true;
        }
        let start = Instant::now();
        let result = self.reserve().and_then(|reserved| {
            if self.attempt.operations.is_empty() {
                return Ok(reserved);
            }
            Ok(reserved + self.store.commit(&self.attempt.operations)?.changed)
        });
        self.checked = Instant::now();
        match result {
            Ok(changed) => {
                self.settings.health.note_commit(start.elapsed());
                self.succeeded(changed > 0);
                self.report_missing();
            }
            Err(StoreError::Unavailable(reason)) => self.failed(&reason, self.settings.timeout),
            // Waiting doesn't help clients, but all other operations stay in memory.
            Err(StoreError::Unusable(reason)) => self.failed(&reason, Duration::ZERO),
            Err(StoreError::Lost(reason)) => {
                self.report_lost(reason);
                return false;
            }
        }
        true
    }

    /// Reserves the next block of sequence numbers if it is needed; returns the number of changed
    /// rows.
    fn reserve(&mut self) -> Result<u64, StoreError> {
        let Settings { cores, prefix, mark, needs_sequences, .. } = &mut self.settings;
        if !*needs_sequences {
            return Ok(0);
        }
        let sequences = self.store.reserve(prefix, *mark)?;
        (*mark, *needs_sequences) = (sequences.end, false);
        for core in 0..*cores {
            (self.report)(core, Outcome::Reserved { sequences: sequences.clone() });
        }
        Ok(1)
    }

    /// Checks the ownership of the store if there was no commit for a while; returns `false` if it
    /// is lost. Other errors show at the next commit.
    fn check(&mut self) -> bool {
        if self.down.is_some() || self.checked.elapsed() < self.store.check_interval() {
            return true;
        }
        let checked = self.store.check();
        self.checked = Instant::now();
        self.is_unreachable = checked.is_err();
        match checked {
            Err(StoreError::Lost(reason)) => {
                self.report_lost(reason);
                false
            }
            Err(_) => true,
            Ok(_) => {
                self.report_missing();
                true
            }
        }
    }

    /// Reports what the store has lost to every core.
    fn report_missing(&mut self) {
        let numbers: Arc<[u64]> = self.store.take_missing().into();
        if numbers.is_empty() {
            return;
        }
        for core in 0..self.settings.cores {
            (self.report)(core, Outcome::Missing { numbers: Arc::clone(&numbers) });
        }
    }

    /// Reports to every core that another server owns the store.
    fn report_lost(&self, reason: String) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        error!(reason, "the store is lost: no more jobs are taken");
        let reason: Arc<str> = reason.into();
        for core in 0..self.settings.cores {
            (self.report)(core, Outcome::Lost(reason.clone()));
        }
    }

    /// After a successful commit. `written`: it changed rows, so the store is able to write.
    fn succeeded(&mut self, written: bool) {
        let Attempt { operations, awaited, count, .. } = std::mem::take(&mut self.attempt);
        if !operations.is_empty() {
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.operations.fetch_add(count as u64, Ordering::Relaxed);
        let waiting = self.counters.waiting.fetch_sub(count as u64, Ordering::Relaxed);
        // Also after a commit that wrote nothing: only the next attempt shows whether writes
        // succeed.
        self.down = None;
        self.is_unreachable = false;
        if written {
            self.failed_at = None;
        }
        if written && let Some(outage) = self.outage.take() {
            outage.end(waiting, Instant::now());
        }
        // Freed before the report, as the core checks the free memory when it handles that.
        drop(operations);
        self.report_to_cores(&awaited, |numbers| Outcome::Stored { numbers });
    }

    /// After a failed commit: schedules the next attempt.
    fn failed(&mut self, reason: &str, timeout: Duration) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        self.failed_at = Some(now);
        let longest =
            if timeout.is_zero() { PAUSE_MAX } else { (timeout / 2).clamp(PAUSE_MIN, PAUSE_MAX) };
        let (since, pause) = match &self.down {
            Some(down) => (down.since, (down.pause * 2).min(longest)),
            None => (now, PAUSE_MIN),
        };
        let waiting = self.counters.waiting.load(Ordering::Relaxed);
        match &mut self.outage {
            Some(outage) => outage.continues(reason, waiting, now),
            none => *none = Some(Outage::begin(reason, waiting, now)),
        }
        let next_try = now + pause;
        self.down = Some(Down { since, next_try, pause, timeout, reason: reason.into() });
    }

    /// Reports an outcome to each core, with the numbers of its Inserts.
    fn report_to_cores(&self, awaited: &[(usize, u64)], outcome: impl Fn(Vec<u64>) -> Outcome) {
        let mut cores: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for &(core, number) in awaited {
            cores.entry(core).or_default().push(number);
        }
        for (core, numbers) in cores {
            (self.report)(core, outcome(numbers));
        }
    }
}

/// Turns an Insert that a client waits for into a Remove, as a failed commit may have stored it.
fn refuse(operation: &mut Operation) -> bool {
    let Operation::Insert { row, answered: false } = operation else { return false };
    *operation = Operation::Remove { number: row.number };
    true
}

#[cfg(test)]
mod tests;
