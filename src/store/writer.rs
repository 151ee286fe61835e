//! Operations of all cores in, outcomes of the commits that hold them out: the store's own thread.
//!
//! A commit covers what arrived while the last one was being written. While the store is down,
//! clients that wait are refused after a while; what nobody waits for is kept in memory and goes
//! first when the store is back. Knows no database (`Store`) and no queues.
//!
//! Invariant: operations reach the store in the order in which they were handed over, each at least
//! once unless it is an Insert reported as Failed, whose number is removed instead; and an Insert
//! that somebody waits for gets one outcome, or the whole writer ends (`Lost`, `stop`).

mod outage;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use foldhash::{HashSet, HashSetExt};
use tracing::{error, warn};

use self::outage::Outage;
use super::namespace::next_mark;
use super::{ROW_BYTES_MAX, Store, StoreError};
use crate::engine::record::Operation;

/// Most operations in one commit.
pub const COMMIT_OPERATIONS_MAX: usize = 4096;
/// A commit takes no further operation once its rows have this many bytes.
pub const COMMIT_BYTES_MAX: usize = 8 << 20;
/// Pause after a failed commit; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two tries. It also ends in time for Inserts that came meanwhile.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How much longer than asked for `stop` waits for a commit that is under way.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What a core hands over at once, in order.
#[derive(Debug)]
pub struct Batch {
    /// Who gets the outcomes.
    pub core: usize,
    /// What is to be done.
    pub operations: Vec<Operation>,
}

/// What a core is told. Numbers are those of Inserts that were not answered yet, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// On disk.
    Stored {
        /// The jobs.
        numbers: Vec<u64>,
    },
    /// Refused: not kept, or forgotten again before a later start could see them.
    Failed {
        /// The jobs.
        numbers: Vec<u64>,
        /// One sentence.
        reason: Arc<str>,
    },
    /// Sequence numbers up to here are reserved; every core is told.
    Reserved {
        /// The first that isn't.
        mark: u64,
    },
    /// The store has lost these jobs of any core, which it had kept: the core that has one hands it
    /// over again.
    Missing {
        /// The jobs.
        numbers: Arc<[u64]>,
    },
    /// Another server owns the store; each core is told once and nothing follows. Nobody knows what
    /// became of the Inserts without an outcome.
    Lost(Arc<str>),
}

/// How a writer behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of cores: they are told when the store is lost.
    pub cores: usize,
    /// How long an Insert that a client waits for is tried while the store is unavailable. Zero =
    /// it fails with its commit, and at once while the store is known to be down.
    pub timeout: Duration,
    /// What handles start with, for the store's record.
    pub prefix: Box<[u8]>,
    /// Sequence numbers below are reserved.
    pub mark: u64,
    /// Whether more of them are needed at once.
    pub needs_sequences: bool,
}

/// What the writer has done, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commits that succeeded.
    pub commits: AtomicU64,
    /// Operations done, those included that needed no commit.
    pub operations: AtomicU64,
    /// Commits that failed, each try counted.
    pub failures: AtomicU64,
    /// Operations handed over and not done.
    pub waiting: AtomicU64,
}

enum Message {
    Batch(Batch),
    /// Reserve more sequence numbers than those below.
    Reserve(u64),
    /// Do what was handed over before, until this time at most.
    Stop(Instant),
}

/// Hands operations over. Cheap to clone, one for each core.
#[derive(Clone, Debug)]
pub struct Sender {
    messages: mpsc::Sender<Message>,
    counters: Arc<Counters>,
}

impl Sender {
    /// Hands a batch over. Nothing becomes of it once the store is lost or the writer stopped.
    pub fn send(&self, batch: Batch) {
        let count = batch.operations.len() as u64;
        self.counters.waiting.fetch_add(count, Ordering::Relaxed);
        if self.messages.send(Message::Batch(batch)).is_err() {
            self.counters.waiting.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

impl Sender {
    /// Asks for sequence numbers beyond those below `mark`.
    pub fn reserve(&self, mark: u64) {
        // A thread that has ended doesn't listen.
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
    /// Starts the thread. `report` is called on it with a core and what that core is to be told.
    ///
    /// # Errors
    /// The kernel's, when it has no thread to give.
    pub fn start(
        store: Box<dyn Store>,
        settings: Settings,
        report: impl Fn(usize, Outcome) + Send + 'static,
    ) -> io::Result<Self> {
        let counters = Arc::new(Counters::default());
        let (messages, receiver) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let work = Work {
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
            seen: Instant::now(),
            stop: None,
        };
        let run = move || {
            work.run();
            // Nobody listens if the writer was dropped.
            let _ = end.send(());
        };
        let thread = thread::Builder::new().name("store".into()).spawn(run)?;
        Ok(Self { sender: Sender { messages, counters }, thread, ended })
    }

    /// A way to hand operations over.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.sender.counters.clone()
    }

    /// Does what was handed over before this call and ends the thread. Returns how many operations
    /// are left undone because the store was unavailable for `within` or is lost; their Inserts get
    /// no outcome.
    pub fn stop(self, within: Duration) -> u64 {
        // A thread that has ended doesn't listen.
        let _ = self.sender.messages.send(Message::Stop(Instant::now() + within));
        match self.ended.recv_timeout(within + STOP_GRACE) {
            Err(RecvTimeoutError::Timeout) => error!("the store doesn't come back from a commit"),
            _ if self.thread.join().is_err() => error!("the store's thread has panicked"),
            _ => {}
        }
        let left = self.sender.counters.waiting.load(Ordering::Relaxed);
        if left > 0 {
            error!(left, "stopped with changes that are not in the store");
        }
        left
    }
}

/// An operation that no commit has held yet.
struct Entry {
    core: usize,
    operation: Operation,
    arrived: Instant,
}

/// A commit, tried until it succeeds.
#[derive(Default)]
struct Attempt {
    operations: Vec<Operation>,
    /// Core and number of the Inserts that somebody waits for.
    awaited: Vec<(usize, u64)>,
    /// Operations that it stands for.
    count: usize,
}

/// The store fails.
struct Down {
    since: Instant,
    next_try: Instant,
    pause: Duration,
    /// How long Inserts are tried.
    timeout: Duration,
    reason: Arc<str>,
}

impl Down {
    /// When an Insert that arrived then fails.
    fn expiry(&self, arrived: Instant) -> Instant {
        arrived.max(self.since) + self.timeout
    }
}

/// All that the thread has.
struct Work<R> {
    store: Box<dyn Store>,
    settings: Settings,
    report: R,
    receiver: Receiver<Message>,
    counters: Arc<Counters>,
    queue: VecDeque<Entry>,
    /// Entries at the head of the queue that nobody waits for, as far as was looked.
    examined: usize,
    attempt: Attempt,
    down: Option<Down>,
    /// Outlasts `down` where commits that write nothing succeed.
    outage: Option<Outage>,
    /// When the store was last known to be ours.
    seen: Instant,
    /// When to give up; `None` before it is told to stop.
    stop: Option<Instant>,
}

impl<R: Fn(usize, Outcome)> Work<R> {
    fn run(mut self) {
        loop {
            self.receive();
            self.expire();
            self.gather();
            if !self.try_commit() {
                break;
            }
            if let Some(deadline) = self.stop {
                let given_up = self.down.is_some() && deadline <= Instant::now();
                if given_up || self.is_idle() {
                    break;
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.attempt.count == 0
    }

    /// Takes what was handed over; waits if there is nothing else to do.
    fn receive(&mut self) {
        let now = Instant::now();
        let wake = match &self.down {
            Some(down) => {
                Some(self.next_expiry(down).map_or(down.next_try, |at| at.min(down.next_try)))
            }
            None if self.is_idle() => Some(self.seen + self.store.check_interval()),
            None => Some(now),
        };
        if let Some(deadline) = self.stop {
            // All that came before was taken when the stop was.
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
                // Other cores may have asked for the same.
                Ok(Message::Reserve(mark)) => {
                    self.settings.needs_sequences |= mark == self.settings.mark;
                }
                Ok(Message::Stop(deadline)) => return self.stopping(deadline),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => return self.stopping(now),
            }
            // While the store is down, all are taken, so that they may be refused in time.
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
                    // It would keep all that comes after it from the store.
                    warn!(number = row.number, bytes = row.bytes(), "too large to be kept");
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
        self.tell(&refused, |numbers| Outcome::Failed { numbers, reason: reason.clone() });
    }

    /// When the next Insert that somebody waits for may fail.
    fn next_expiry(&self, down: &Down) -> Option<Instant> {
        if !self.attempt.awaited.is_empty() {
            return Some(down.expiry(down.since));
        }
        self.queue.get(self.examined).map(|entry| down.expiry(entry.arrived))
    }

    /// Refuses Inserts that were tried for long enough.
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
                refused.push((entry.core, entry.operation.number()));
            }
            self.examined += 1;
        }
        let reason = down.reason.clone();
        self.outage.iter_mut().for_each(|outage| outage.refuse(refused.len()));
        self.tell(&refused, |numbers| Outcome::Failed { numbers, reason: reason.clone() });
    }

    /// Makes the next commit of what waits, unless there is one to be tried again.
    fn gather(&mut self) {
        if self.attempt.count > 0 {
            return;
        }
        let Attempt { operations, awaited, count } = &mut self.attempt;
        let (mut bytes, mut inserted, mut gone) = (0, HashSet::new(), HashSet::new());
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
                // Came and went: no commit that may have succeeded has held its Insert.
                Operation::Remove { number } if inserted.contains(number) => {
                    gone.insert(*number);
                }
                Operation::Remove { .. } | Operation::SetAttempts { .. } => {}
            }
            operations.push(entry.operation);
            *count += 1;
        }
        if !gone.is_empty() {
            operations.retain(|operation| !gone.contains(&operation.number()));
        }
        self.examined = self.examined.saturating_sub(*count);
    }

    /// Tries the commit if it is time; returns false once the store is lost.
    fn try_commit(&mut self) -> bool {
        let early = self.down.as_ref().is_some_and(|down| Instant::now() < down.next_try);
        if self.attempt.count == 0 && !self.settings.needs_sequences {
            return self.check();
        }
        if early {
            return true;
        }
        let result = self.reserve().and_then(|reserved| {
            if self.attempt.operations.is_empty() {
                return Ok(reserved);
            }
            Ok(reserved + self.store.commit(&self.attempt.operations)?)
        });
        self.seen = Instant::now();
        match result {
            Ok(changed) => {
                self.succeeded(changed > 0);
                self.ask_again();
            }
            Err(StoreError::Unavailable(reason)) => self.failed(&reason, self.settings.timeout),
            // Waiting doesn't help; what nobody waits for is kept all the same.
            Err(StoreError::Unusable(reason)) => self.failed(&reason, Duration::ZERO),
            Err(StoreError::Lost(reason)) => return self.lost(reason),
        }
        true
    }

    /// Reserves the next block of sequence numbers, if more are needed; gives the number of rows
    /// that are changed.
    fn reserve(&mut self) -> Result<u64, StoreError> {
        let Settings { cores, prefix, mark, needs_sequences, .. } = &mut self.settings;
        if !*needs_sequences {
            return Ok(0);
        }
        let next = next_mark(*mark);
        self.store.reserve(prefix, next)?;
        (*mark, *needs_sequences) = (next, false);
        (0..*cores).for_each(|core| (self.report)(core, Outcome::Reserved { mark: next }));
        Ok(1)
    }

    /// Asks the store, when nothing has been committed for a while, whether it is still ours;
    /// returns false if not. Other troubles show at the next commit.
    fn check(&mut self) -> bool {
        if self.down.is_some() || self.seen.elapsed() < self.store.check_interval() {
            return true;
        }
        let checked = self.store.check();
        self.seen = Instant::now();
        match checked {
            Err(StoreError::Lost(reason)) => self.lost(reason),
            Err(_) => true,
            Ok(()) => {
                self.ask_again();
                true
            }
        }
    }

    /// Asks every core for jobs that the store has lost.
    fn ask_again(&mut self) {
        let numbers: Arc<[u64]> = self.store.take_missing().into();
        if numbers.is_empty() {
            return;
        }
        for core in 0..self.settings.cores {
            (self.report)(core, Outcome::Missing { numbers: Arc::clone(&numbers) });
        }
    }

    /// Tells every core that the store is another server's. Always false.
    fn lost(&self, reason: String) -> bool {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        error!(reason, "the store is lost: no more jobs are taken");
        let reason: Arc<str> = reason.into();
        for core in 0..self.settings.cores {
            (self.report)(core, Outcome::Lost(reason.clone()));
        }
        false
    }

    /// `written`: something had to be written, so the store can do that.
    fn succeeded(&mut self, written: bool) {
        let Attempt { operations, awaited, count } = std::mem::take(&mut self.attempt);
        if !operations.is_empty() {
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.operations.fetch_add(count as u64, Ordering::Relaxed);
        let waiting = self.counters.waiting.fetch_sub(count as u64, Ordering::Relaxed);
        // What comes next is tried in any case, or nothing would show that it can be written again.
        self.down = None;
        if written && let Some(outage) = self.outage.take() {
            outage.end(waiting, Instant::now());
        }
        // Bodies go first: a core that is told looks once whether their memory came back.
        drop(operations);
        self.tell(&awaited, |numbers| Outcome::Stored { numbers });
    }

    fn failed(&mut self, reason: &str, timeout: Duration) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let longest =
            if timeout.is_zero() { PAUSE_MAX } else { (timeout / 2).clamp(PAUSE_MIN, PAUSE_MAX) };
        let (since, pause) = match &self.down {
            Some(down) => (down.since, (down.pause * 2).min(longest)),
            None => (now, PAUSE_MIN),
        };
        let waiting = self.counters.waiting.load(Ordering::Relaxed);
        match &mut self.outage {
            Some(outage) => outage.go_on(reason, waiting, now),
            none => *none = Some(Outage::begin(reason, waiting, now)),
        }
        let next_try = now + pause;
        self.down = Some(Down { since, next_try, pause, timeout, reason: reason.into() });
    }

    /// Tells each core about its numbers.
    fn tell(&self, awaited: &[(usize, u64)], outcome: impl Fn(Vec<u64>) -> Outcome) {
        let mut cores: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for &(core, number) in awaited {
            cores.entry(core).or_default().push(number);
        }
        for (core, numbers) in cores {
            (self.report)(core, outcome(numbers));
        }
    }
}

/// Turns an Insert that somebody waits for into a Remove: a failed commit may have kept it.
fn refuse(operation: &mut Operation) -> bool {
    let Operation::Insert { row, answered: false } = operation else { return false };
    *operation = Operation::Remove { number: row.number };
    true
}

#[cfg(test)]
mod tests;
