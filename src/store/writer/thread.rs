//! The state of the store's thread, and its rounds: receive, expire, gather, commit.
//!
//! Messages in, calls of the store and outcomes out. `ownership` has what concerns partitions.
//!
//! Invariant: a commit that failed is attempted again, with all of its operations, before another.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::attempt::{Attempt, Awaited, Entry, Queue};
use super::down::Down;
use super::outage::Outage;
use super::ownership::Ownership;
use super::{Batch, COMMIT_OPERATIONS_MAX, Message, Outcome, Settings};
use crate::engine::record::Operation;
use crate::store::health::Counters;
use crate::store::{Committed, ROW_BYTES_MAX, Store, StoreError};

/// How long after a failure the store counts as one that can't be written to, unless a commit has
/// written something since.
const UNSURE: Duration = Duration::from_secs(10);

/// State of the thread.
pub(super) struct WriterThread<R> {
    pub(super) store: Box<dyn Store>,
    pub(super) settings: Settings,
    pub(super) report: R,
    receiver: Receiver<Message>,
    counters: Arc<Counters>,
    pub(super) queue: Queue,
    pub(super) attempt: Attempt,
    pub(super) down: Option<Down>,
    /// Not ended by commits that write nothing, as `down` is.
    outage: Option<Outage>,
    /// When a commit failed last, unless one has written something since.
    failed_at: Option<Instant>,
    /// The last check failed.
    is_unreachable: bool,
    /// When the ownership of the store was last checked.
    pub(super) checked: Instant,
    pub(super) ownership: Ownership,
    /// When to stop even if operations are left; `None` before `Message::Stop`.
    pub(super) stop: Option<Instant>,
}

impl<R: Fn(usize, Outcome)> WriterThread<R> {
    pub(super) fn new(
        store: Box<dyn Store>,
        settings: Settings,
        report: R,
        receiver: Receiver<Message>,
    ) -> Self {
        let counters = Arc::clone(settings.health.counters());
        let mut writer = Self {
            store,
            settings,
            report,
            receiver,
            counters,
            queue: Queue::default(),
            attempt: Attempt::default(),
            down: None,
            outage: None,
            failed_at: None,
            is_unreachable: false,
            checked: Instant::now(),
            ownership: Ownership::default(),
            stop: None,
        };
        writer.begin_owning();
        writer
    }

    pub(super) fn run(mut self) {
        loop {
            self.receive();
            self.expire();
            self.gather();
            self.publish();
            if !self.act() {
                return;
            }
            self.publish();
            if let Some(deadline) = self.stop {
                let given_up = self.down.is_some() && deadline <= Instant::now();
                if given_up || self.is_idle() {
                    break;
                }
            }
        }
        // A store that fails would only hold up the end.
        if self.down.is_none() {
            self.leave();
        }
    }

    /// Tells others how the store is.
    fn publish(&self) {
        // While the store only fails now and then, the last word counts for some time: servers
        // that aren't ready get no jobs to try it with.
        let has_failed = self.failed_at.is_some_and(|at| at.elapsed() < UNSURE);
        let is_homeless = self.ownership.homeless_down().is_some();
        let is_down = self.down.is_some() || is_homeless || self.is_unreachable || has_failed;
        let oldest = self.attempt.arrived.or_else(|| {
            let entry = self.queue.entries.front();
            entry.map(|entry| entry.arrived).or_else(|| self.ownership.oldest_homeless())
        });
        self.settings.health.note(is_down, oldest);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.entries.is_empty() && self.attempt.count == 0
    }

    /// Whether a commit has something to do.
    pub(super) fn has_work(&self) -> bool {
        let needs_sequences = self.settings.needs_sequences && self.ownership.homeless.is_none();
        !self.is_idle() || needs_sequences
    }

    /// When the ownership is to be checked next.
    fn check_at(&self) -> Option<Instant> {
        match &self.settings.lease {
            // Other servers wait for the beat whatever becomes of commits, which don't cover all
            // partitions.
            Some(state) => Some(self.checked + state.lease().beat_interval()),
            None if self.down.is_some() => None,
            None => Some(self.checked + self.store.check_interval()),
        }
    }

    /// When there is something to do, if no message comes.
    fn wake_at(&self, now: Instant) -> Instant {
        let commit_at = match &self.down {
            _ if !self.has_work() => None,
            Some(down) => Some(down.next_try),
            None => Some(now),
        };
        let act_at = [commit_at, self.check_at(), self.ownership.take_home_at()];
        let act_at = act_at.into_iter().flatten().min();
        // Nothing is done before the cores have turned.
        let act_at = act_at.map(|at| at.max(self.ownership.look_again_at(now).unwrap_or(at)));
        let expiry = self.down.as_ref().and_then(|down| self.next_expiry(down));
        let expiries = [expiry, self.ownership.next_expiry()].into_iter().flatten();
        // Without a store's interval, nothing but messages is waited for.
        act_at.into_iter().chain(expiries).min().unwrap_or(now)
    }

    /// Receives messages; waits for them if there is nothing else to do.
    fn receive(&mut self) {
        let now = Instant::now();
        let wake = self.wake_at(now);
        if let Some(deadline) = self.stop {
            // All messages before the stop have been received; those after it are not.
            if !self.is_idle() {
                thread::park_timeout(wake.min(deadline).saturating_duration_since(now));
            }
            return;
        }
        let mut message = self.receiver.recv_timeout(wake.saturating_duration_since(now));
        for _ in 0..COMMIT_OPERATIONS_MAX {
            match message {
                Ok(Message::Batch(batch)) => self.take(batch),
                // Several cores may request the same block.
                Ok(Message::Reserve(mark)) => {
                    self.settings.needs_sequences |= mark == self.settings.mark;
                }
                Ok(Message::Own(partition, generation, answer)) => {
                    self.own(partition, generation);
                    // Fails if the thread that asked has ended.
                    let _ = answer.send(());
                }
                Ok(Message::Load(partition, generation, parts, answer)) => {
                    let _ = answer.send(self.pass_on(partition, generation, parts));
                }
                Ok(Message::Stop(deadline)) => return self.stopping(deadline),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => return self.stopping(now),
            }
            // While the store is down, all messages are received, so that Inserts fail in time.
            if self.down.is_none() && self.queue.entries.len() >= COMMIT_OPERATIONS_MAX {
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
        let Batch { core, operations, moves } = batch;
        self.settings.pauses.note_sent(operations.iter());
        let arrived = Instant::now();
        let mut refused = Vec::new();
        let down = self.down.as_ref().or_else(|| self.ownership.homeless_down());
        let down = down.filter(|down| down.timeout.is_zero()).map(|down| down.reason.clone());
        for operation in operations {
            if self.ownership.is_stale(&operation, moves, &*self.store) {
                self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
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
            let entry = Entry { core, operation, arrived };
            match (&mut self.ownership.homeless, entry.awaited()) {
                // Its core sends it again, with a number of the next home.
                (Some(homeless), Some(awaited)) => {
                    self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
                    homeless.inserts.push_back(awaited);
                }
                _ => self.queue.entries.push_back(entry),
            }
        }
        if down.is_some() {
            self.outage.iter_mut().for_each(|outage| outage.refuse(refused.len()));
        }
        let reason = down.unwrap_or_else(|| "the job is too large to be kept".into());
        self.report_failed(&refused, &reason);
    }

    /// When the next Insert that a client waits for fails.
    fn next_expiry(&self, down: &Down) -> Option<Instant> {
        if !self.attempt.awaited.is_empty() {
            return Some(down.expiry(down.since));
        }
        self.queue.next_unexpired().map(|entry| down.expiry(entry.arrived))
    }

    /// Fails Inserts whose timeout has expired.
    fn expire(&mut self) {
        let now = Instant::now();
        if let Some((refused, reason)) = self.ownership.expire(now) {
            self.outage.iter_mut().for_each(|outage| outage.refuse(refused.len()));
            let refused: Vec<_> = refused.iter().map(|it| (it.core, it.number)).collect();
            self.report_failed(&refused, &reason);
        }
        let Some(down) = &self.down else { return };
        let mut refused = Vec::new();
        if down.expiry(down.since) <= now {
            refused = self.attempt.refuse();
        }
        refused.append(&mut self.queue.expire(|arrived| down.expiry(arrived) <= now));
        let reason = down.reason.clone();
        self.outage.iter_mut().for_each(|outage| outage.refuse(refused.len()));
        self.report_failed(&refused, &reason);
    }

    /// Forms the next commit from the queue, unless a commit is to be retried.
    fn gather(&mut self) {
        if self.attempt.count == 0 {
            self.attempt = Attempt::gather(&mut self.queue);
        }
    }

    /// Does with the store what is due; returns `false` if the store is lost.
    fn act(&mut self) -> bool {
        let now = Instant::now();
        let checks = self.stop.is_none() && self.check_at().is_some_and(|at| at <= now);
        let home_at = self.ownership.take_home_at().filter(|_| self.stop.is_none());
        let takes_home = home_at.is_some_and(|at| at <= now);
        let is_early = self.down.as_ref().is_some_and(|down| now < down.next_try);
        let commits = self.has_work() && !is_early;
        // A commit is a check where there is no lease.
        let checks = checks && (self.settings.lease.is_some() || !commits);
        if !checks && !takes_home && !commits {
            return true;
        }
        if let Some(core) = self.late_core(now) {
            if commits && self.ownership.is_held_for_long(now) {
                let reason = format!("core {core} of this server hasn't gone on for seconds");
                self.failed(&reason, self.settings.timeout);
            }
            return true;
        }
        // First what shows others that the server lives.
        (!checks || self.check())
            && (!takes_home || self.take_home())
            && (!commits || self.commit())
    }

    /// Attempts the commit; returns `false` if the store is lost.
    fn commit(&mut self) -> bool {
        // A check or a new home may have left nothing to do.
        if !self.has_work() {
            return true;
        }
        let start = Instant::now();
        let result = self.reserve().and_then(|reserved| {
            if self.attempt.operations.is_empty() {
                return Ok(Committed { changed: reserved, ..Committed::default() });
            }
            self.attempt.has_begun = true;
            let committed = self.store.commit(&self.attempt.operations)?;
            Ok(Committed { changed: reserved + committed.changed, ..committed })
        });
        match result {
            Ok(committed) => {
                self.settings.health.note_commit(start.elapsed());
                if self.settings.lease.is_none() {
                    self.checked = Instant::now();
                }
                self.succeeded(&committed);
                self.lose(&committed);
                self.note_commit_as_beat(start);
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
        let Settings { prefix, mark, needs_sequences, .. } = &self.settings;
        if !*needs_sequences || self.ownership.homeless.is_some() {
            return Ok(0);
        }
        let sequences = self.store.reserve(prefix, *mark)?;
        self.set_sequences(&sequences);
        self.report_to_all(&Outcome::Reserved { sequences });
        Ok(1)
    }

    /// These sequence numbers are reserved.
    pub(super) fn set_sequences(&mut self, sequences: &Range<u64>) {
        (self.settings.mark, self.settings.needs_sequences) = (sequences.end, false);
        self.note_home(sequences);
    }

    /// Checks the ownership of the store; returns `false` if it is lost. Other errors show at the
    /// next commit.
    fn check(&mut self) -> bool {
        let start = Instant::now();
        let checked = self.store.check();
        self.checked = Instant::now();
        self.is_unreachable = checked.is_err();
        match checked {
            Err(StoreError::Lost(reason)) => {
                self.report_lost(reason);
                false
            }
            Err(_) => true,
            Ok(committed) => {
                self.lose(&committed);
                self.forget_empty();
                self.note_beat(start);
                // A commit without an answer may have removed what the tables don't have. It is
                // repeated, and known to have done so then.
                if !self.attempt.has_begun {
                    self.report_missing();
                }
                if !self.has_work() {
                    // What failed was another server's, and is gone.
                    self.down = None;
                }
                true
            }
        }
    }

    /// Reports what the store has lost to every core.
    fn report_missing(&mut self) {
        let numbers: Arc<[u64]> = self.store.take_missing().into();
        if !numbers.is_empty() {
            self.report_to_all(&Outcome::Missing { numbers });
        }
    }

    /// Reports to every core that another server owns the store.
    pub(super) fn report_lost(&self, reason: String) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        error!(reason, "the store is lost: no more jobs are taken");
        self.report_to_all(&Outcome::Lost(reason.into()));
    }

    /// After a successful commit.
    fn succeeded(&mut self, committed: &Committed) {
        // It changed rows, so the store is able to write.
        let written = committed.changed > 0;
        let Attempt { operations, mut awaited, count, .. } = std::mem::take(&mut self.attempt);
        if !operations.is_empty() {
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
            self.settings.pauses.note_committed(operations.iter());
        }
        self.counters.operations.fetch_add(count as u64, Ordering::Relaxed);
        // Also after a commit that wrote nothing: only the next attempt shows whether writes
        // succeed.
        self.down = None;
        self.is_unreachable = false;
        if written {
            self.note_written();
        }
        self.counters.waiting.fetch_sub(count as u64, Ordering::Relaxed);
        // Freed before the report, as the core checks the free memory when it handles that.
        drop(operations);
        if !committed.lost.is_empty() {
            // These wait for the next home: an earlier attempt of this commit may have stored them.
            awaited.retain(|it| !committed.lost.contains(&self.store.partition_of(it.number)));
        }
        let awaited: Vec<_> = awaited.iter().map(|it: &Awaited| (it.core, it.number)).collect();
        self.report_to_cores(&awaited, |numbers| Outcome::Stored { numbers });
    }

    /// The store is able to write.
    pub(super) fn note_written(&mut self) {
        self.failed_at = None;
        if let Some(outage) = self.outage.take() {
            outage.end(self.counters.waiting.load(Ordering::Relaxed), Instant::now());
        }
    }

    /// After a failed commit: schedules the next attempt.
    pub(super) fn failed(&mut self, reason: &str, timeout: Duration) {
        let now = Instant::now();
        self.down = Some(Down::after(self.down.as_ref(), reason, timeout, now));
        self.note_failure(reason, now);
    }

    /// The store has failed.
    pub(super) fn note_failure(&mut self, reason: &str, now: Instant) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        self.failed_at = Some(now);
        let waiting = self.counters.waiting.load(Ordering::Relaxed);
        match &mut self.outage {
            Some(outage) => outage.continues(reason, waiting, now),
            none => *none = Some(Outage::begin(reason, waiting, now)),
        }
    }

    /// So many operations are done, as another server has what they concern.
    pub(super) fn give_up(&self, operations: usize) {
        self.counters.waiting.fetch_sub(operations as u64, Ordering::Relaxed);
    }

    fn report_failed(&self, refused: &[(usize, u64)], reason: &Arc<str>) {
        self.report_to_cores(refused, |numbers| Outcome::Failed {
            numbers,
            reason: reason.clone(),
        });
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

    /// Reports an outcome to every core.
    pub(super) fn report_to_all(&self, outcome: &Outcome) {
        (0..self.settings.cores).for_each(|core| (self.report)(core, outcome.clone()));
    }
}
