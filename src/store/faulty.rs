//! A store in memory that fails on demand, for tests of the writer and of the threads around it.
//!
//! Commits are counted from 1. After a power loss only `durable` is left; `restart` is the next
//! start. With a lease it has partitions of `PARTITION` sequence numbers each, which other servers
//! take on demand.
//!
//! Invariant: `live` differs from `durable` only during a commit and after a power loss.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use bytes::Bytes;

use super::namespace::{Record, next_mark};
use super::{Committed, Store, StoreError};
use crate::cluster::lease::Lease;
use crate::cluster::partition::PartitionId;
use crate::engine::handle::{SLOT_BITS, job_number};
use crate::engine::record::{DeadRow, Operation, Pause, Row, Runs};

/// Sequence numbers of a partition: so many that no more are asked for.
pub(crate) const PARTITION: u64 = 1 << 34;
/// The partition of new jobs at the start.
pub(crate) const HOME: PartitionId = 1;

/// The number of a job in a partition.
pub(crate) fn number_in(partition: PartitionId, at: u64) -> u64 {
    job_number(u64::from(partition) * PARTITION + at, 0)
}

/// The sequence numbers of a partition.
pub(crate) fn sequences_of(partition: PartitionId) -> Range<u64> {
    let first = u64::from(partition) * PARTITION;
    first..first + PARTITION
}

/// What happens to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Unavailable, and nothing is applied.
    Refused,
    /// Unavailable, and all is applied: the answer was lost.
    Unanswered,
    /// Neither this commit nor a later one reaches the disk until `restart`.
    PowerLoss,
    /// Another server owns the store.
    Lost,
    /// The store is damaged.
    Unusable,
}

/// What a store has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) jobs: BTreeMap<u64, Row>,
    pub(crate) dead: BTreeMap<u64, DeadRow>,
    pub(crate) pauses: BTreeMap<Bytes, Pause>,
}

impl Tables {
    /// Applies an operation.
    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Insert { row, .. } => {
                self.jobs.insert(row.number, row.clone());
            }
            Operation::Retry { number, runs } => {
                let Runs { attempts, run_at_ms, last_reason, was_lost } = *runs;
                if let Some(row) = self.jobs.get_mut(number) {
                    *row = Row { attempts, run_at_ms, last_reason, was_lost, ..row.clone() };
                }
            }
            Operation::Remove { number } => {
                self.jobs.remove(number);
            }
            Operation::Bury(dead) => {
                self.jobs.remove(&dead.row.number);
                self.dead.insert(dead.row.number, (**dead).clone());
            }
            Operation::Unbury(row) => {
                self.dead.remove(&row.number);
                self.jobs.insert(row.number, (**row).clone());
            }
            Operation::RemoveDead { number } => {
                self.dead.remove(number);
            }
            Operation::Pause { function, pause: Some(pause) } => {
                self.pauses.insert(function.clone(), *pause);
            }
            Operation::Pause { function, pause: None } => {
                self.pauses.remove(function);
            }
        }
    }

    /// All that a store loads.
    pub(crate) fn load(store: &mut dyn Store) -> Result<Self, StoreError> {
        let mut tables = Self::default();
        let Self { jobs, dead, pauses } = &mut tables;
        store.load(&mut |row| drop(jobs.insert(row.number, row)))?;
        store.load_dead(&mut |letter| drop(dead.insert(letter.row.number, letter)))?;
        store.load_pauses(&mut |function, pause| {
            pauses.insert(function, pause);
        })?;
        Ok(tables)
    }
}

#[derive(Debug, Default)]
struct State {
    live: Tables,
    durable: Tables,
    /// All commits so far, failed ones included.
    commits: Vec<Vec<Operation>>,
    faults: BTreeMap<usize, Fault>,
    /// The fault of commits without a fault of their own.
    down: Option<Fault>,
    powerless: bool,
    /// What the store has lost, for `take_missing`.
    missing: Vec<u64>,
    /// Commits wait while this is set.
    held: bool,
    /// The record.
    prefix: Option<Vec<u8>>,
    mark: Option<u64>,
    partitions: Partitions,
}

/// The partitions of a store with a lease.
#[derive(Clone, Debug, Default)]
struct Partitions {
    lease: Option<Lease>,
    home: Option<PartitionId>,
    /// Taken by other servers, which this one hasn't heard.
    taken: BTreeSet<PartitionId>,
    /// Lost, which wasn't reported.
    unreported: Committed,
    /// Adopted, with their generations.
    adopted: BTreeMap<PartitionId, i64>,
    /// The next home; none can be had without one.
    next_home: Option<PartitionId>,
    /// No check succeeds.
    is_cut_off: bool,
    checks: u64,
    /// Jobs and dead letters that were loaded from adopted ones.
    loaded: Vec<u64>,
    has_left: bool,
}

impl Partitions {
    fn of(&self, number: u64) -> PartitionId {
        let partition = (number >> SLOT_BITS) / PARTITION;
        if self.lease.is_none() { 0 } else { partition.try_into().unwrap_or(0) }
    }

    /// Finds out which of these are another server's.
    fn lose(&mut self, touched: impl Fn(PartitionId) -> bool) {
        for partition in self.taken.extract_if(.., |it| touched(*it)) {
            let is_home = self.home == Some(partition);
            if is_home {
                self.home = None;
            } else if self.adopted.remove(&partition).is_none() {
                continue;
            }
            self.unreported.lost.push(partition);
            self.unreported.is_home_lost |= is_home;
        }
    }

    /// Whether operations on this partition are applied.
    fn has(&self, partition: PartitionId) -> bool {
        let is_own = self.home == Some(partition) || self.adopted.contains_key(&partition);
        self.lease.is_none() || is_own
    }
}

/// The store, and the handle by which a test controls and inspects it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faulty(Arc<(Mutex<State>, Condvar)>);

impl Faulty {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// A store with this lease, whose home is `HOME`.
    pub(crate) fn with_lease(lease: Lease) -> Self {
        let faulty = Self::default();
        let home = Some(HOME);
        faulty.state().partitions =
            Partitions { lease: Some(lease), home, ..Partitions::default() };
        faulty
    }

    /// Another server takes a partition.
    pub(crate) fn take(&self, partition: PartitionId) {
        self.state().partitions.taken.insert(partition);
    }

    /// The store leaves an adopted partition, as it is empty.
    pub(crate) fn set_free(&self, partition: PartitionId) {
        self.state().partitions.adopted.remove(&partition);
    }

    /// Which home can be had next.
    pub(crate) fn set_next_home(&self, partition: Option<PartitionId>) {
        self.state().partitions.next_home = partition;
    }

    /// Whether there is neither a home nor one that can be had.
    pub(crate) fn needs_home(&self) -> bool {
        let Partitions { home, next_home, .. } = self.state().partitions.clone();
        home.or(next_home).is_none()
    }

    /// Beats fail, or don't any more.
    pub(crate) fn cut_off(&self, is_cut_off: bool) {
        self.state().partitions.is_cut_off = is_cut_off;
    }

    /// Beats so far that belonged to no commit.
    pub(crate) fn checks(&self) -> u64 {
        self.state().partitions.checks
    }

    /// What was loaded from adopted partitions.
    pub(crate) fn loaded(&self) -> Vec<u64> {
        self.state().partitions.loaded.clone()
    }

    /// Whether the server has left its partitions to others.
    pub(crate) fn has_left(&self) -> bool {
        self.state().partitions.has_left
    }

    /// The `nth` commit from now on has this fault; the first is 1.
    pub(crate) fn fail_at(&self, nth: usize, fault: Fault) {
        let mut state = self.state();
        let at = state.commits.len() + nth;
        state.faults.insert(at, fault);
    }

    /// All commits have this fault until the next call.
    pub(crate) fn set_down(&self, fault: Option<Fault>) {
        self.state().down = fault;
    }

    /// Makes commits wait, or continue.
    pub(crate) fn hold(&self, held: bool) {
        self.state().held = held;
        self.0.1.notify_all();
    }

    /// Loses a job or dead letter.
    pub(crate) fn lose(&self, number: u64) {
        let state = &mut *self.state();
        for tables in [&mut state.live, &mut state.durable] {
            tables.jobs.remove(&number);
            tables.dead.remove(&number);
        }
        state.missing.push(number);
    }

    /// Waits until `count` commits have begun.
    pub(crate) fn wait_for_commits(&self, count: usize) {
        let state = self.state();
        let limit = std::time::Duration::from_secs(10);
        let begun = |state: &mut State| state.commits.len() < count;
        let waited = self.0.1.wait_timeout_while(state, limit, begun).unwrap().1;
        assert!(!waited.timed_out(), "no {count} commits in {limit:?}");
    }

    /// The operations of each commit.
    pub(crate) fn commits(&self) -> Vec<Vec<Operation>> {
        self.state().commits.clone()
    }

    /// The jobs that a start would load now.
    pub(crate) fn durable(&self) -> Vec<Row> {
        self.state().durable.jobs.values().cloned().collect()
    }

    /// All that a start would load now.
    pub(crate) fn tables(&self) -> Tables {
        self.state().durable.clone()
    }

    /// The store after the power loss.
    pub(crate) fn restart(&self) -> Self {
        let durable = self.state().durable.clone();
        let state = State { live: durable.clone(), durable, ..State::default() };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }
}

impl Store for Faulty {
    fn record(&mut self) -> Result<Record, StoreError> {
        let State { prefix, mark, live, .. } = &*self.state();
        let numbers = live.jobs.keys().chain(live.dead.keys());
        let last = numbers.max().copied();
        Ok(Record { prefix: prefix.clone(), mark: *mark, last })
    }

    fn reserve(&mut self, prefix: &[u8], from: u64) -> Result<Range<u64>, StoreError> {
        let mut state = self.state();
        match state.down {
            Some(Fault::Lost) => return Err(StoreError::Lost("taken by another".into())),
            Some(_) => return Err(StoreError::Unavailable("refused".into())),
            None => {}
        }
        let mark = next_mark(from);
        (state.prefix, state.mark) = (Some(prefix.to_vec()), Some(mark));
        Ok(from..mark)
    }

    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        self.state().live.jobs.values().cloned().for_each(each);
        Ok(())
    }

    fn load_dead(&mut self, each: &mut dyn FnMut(DeadRow)) -> Result<(), StoreError> {
        let mut dead: Vec<DeadRow> = self.state().live.dead.values().cloned().collect();
        dead.sort_by_key(|letter| (letter.died_ms, letter.row.number));
        dead.into_iter().for_each(each);
        Ok(())
    }

    fn load_pauses(&mut self, each: &mut dyn FnMut(Bytes, Pause)) -> Result<(), StoreError> {
        let pauses = self.state().live.pauses.clone();
        pauses.into_iter().for_each(|(function, pause)| each(function, pause));
        Ok(())
    }

    fn commit(&mut self, operations: &[Operation]) -> Result<Committed, StoreError> {
        let mut state = self.state();
        state.commits.push(operations.to_vec());
        let nth = state.commits.len();
        self.0.1.notify_all();
        let mut state = self.0.1.wait_while(state, |state| state.held).unwrap();
        let fault = state.faults.remove(&nth).or(state.down);
        let unavailable = |reason: &str| Err(StoreError::Unavailable(reason.into()));
        match fault {
            _ if state.powerless => return unavailable("no power"),
            Some(Fault::Refused) => return unavailable("refused"),
            Some(Fault::Lost) => return Err(StoreError::Lost("taken by another".into())),
            Some(Fault::Unusable) => return Err(StoreError::Unusable("damaged".into())),
            Some(Fault::Unanswered | Fault::PowerLoss) | None => {}
        }
        let State { live, partitions, .. } = &mut *state;
        let of = |operation: &Operation| operation.number().map(|it| partitions.of(it));
        let touched: BTreeSet<_> = operations.iter().filter_map(of).collect();
        let inserts = operations.iter().any(|it| matches!(it, Operation::Insert { .. }));
        if partitions.lease.is_some() && partitions.home.is_none() && inserts {
            return unavailable("there is no home");
        }
        partitions.lose(|it| touched.contains(&it));
        let kept = operations
            .iter()
            .filter(|it| it.number().is_none_or(|number| partitions.has(partitions.of(number))));
        kept.for_each(|operation| live.apply(operation));
        if fault == Some(Fault::PowerLoss) {
            state.powerless = true;
            return unavailable("no power");
        }
        state.durable = state.live.clone();
        if fault == Some(Fault::Unanswered) {
            return unavailable("no answer");
        }
        Ok(Committed { changed: 1, ..std::mem::take(&mut state.partitions.unreported) })
    }

    fn check(&mut self) -> Result<Committed, StoreError> {
        let mut state = self.state();
        match state.down {
            Some(Fault::Lost) => Err(StoreError::Lost("taken by another".into())),
            _ if state.partitions.is_cut_off => Err(StoreError::Unavailable("cut off".into())),
            _ => {
                state.partitions.checks += 1;
                state.partitions.lose(|_| true);
                Ok(std::mem::take(&mut state.partitions.unreported))
            }
        }
    }

    fn lease(&self) -> Option<Lease> {
        self.state().partitions.lease
    }

    fn partition_of(&self, number: u64) -> PartitionId {
        self.state().partitions.of(number)
    }

    fn own(&mut self, partition: PartitionId, generation: i64) -> Option<PartitionId> {
        let partitions = &mut self.state().partitions;
        let was_lost = partitions.taken.remove(&partition);
        partitions.adopted.insert(partition, generation);
        was_lost.then_some(partition)
    }

    fn owns(&self, partition: PartitionId) -> bool {
        self.state().partitions.adopted.contains_key(&partition)
    }

    fn note_loaded(&mut self, jobs: &[u64], dead: &[u64]) {
        self.state().partitions.loaded.extend(jobs.iter().chain(dead));
    }

    fn take_home(&mut self, _: u64) -> Result<Range<u64>, StoreError> {
        let partitions = &mut self.state().partitions;
        partitions.home = partitions.next_home.take();
        let none = || StoreError::Unavailable("no home can be had".into());
        partitions.home.map(sequences_of).ok_or_else(none)
    }

    fn leave(&mut self) -> Result<(), StoreError> {
        self.state().partitions.has_left = true;
        Ok(())
    }

    fn take_missing(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.state().missing)
    }
}
